//! The audit API over real HTTP: inside a host, and from the file with `provenance-audit`.

mod erasure;
mod exports;
mod load;

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use diesel::{Connection, RunQueryDsl, SqliteConnection};
use proptest::prelude::*;
use provenance::config::{AuditRole, AuditToken, Config, InputField, Recipient, Token, TrackedModel};
use provenance::record_event;
use provenance::store::Reader;
use provenance_audit::api::{Api, Options, Request, Source};
use provenance_audit::{Error, Server, spawn_for};
use provenance_tests::Evidence;
use serde_json::Value as Json;

const TOKEN: &str = "correct-horse-battery-staple";
const PATIENCE: Duration = Duration::from_secs(20);

/// A service with evidence of its own, and its audit server.
struct Host {
    server: Server,
    evidence: Evidence,
}

impl Host {
    fn start(change: impl FnOnce(&mut Config)) -> Self {
        let evidence = Evidence::new(change);
        let server = spawn_for(evidence.tracker.clone(), "127.0.0.1:0").unwrap();
        Host { server, evidence }
    }

    fn open() -> Self {
        Host::start(|_| {})
    }

    fn protected() -> Self {
        Host::start(|config| config.audit_token = Token(TOKEN.into()))
    }

    fn db(&self) -> PathBuf {
        self.evidence.database()
    }

    /// Records one event for each of `of`, in this order.
    fn record<'a>(&self, event_type: &str, category: &str, of: impl IntoIterator<Item = &'a str>) {
        let _in_force = self.evidence.scoped();
        for value in of {
            record_event(event_type.parse().unwrap())
                .target("printer:2")
                .value(category, "field", value)
                .unwrap()
                .submit();
        }
        self.evidence.tracker.flush(PATIENCE).unwrap();
    }

    fn get(&self, path_and_query: &str) -> Answer {
        get(self.server.addr(), path_and_query, &[])
    }

    fn with(&self, path_and_query: &str, headers: &[(&str, &str)]) -> Answer {
        get(self.server.addr(), path_and_query, headers)
    }
}

struct Answer {
    status: u16,
    headers: ureq::http::HeaderMap,
    text: String,
}

impl Answer {
    /// The body of a success.
    #[track_caller]
    fn ok(&self) -> Json {
        assert_eq!(self.status, 200, "{}", self.text);
        serde_json::from_str(&self.text).unwrap()
    }

    /// The text of an error.
    #[track_caller]
    fn error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text);
        let body: Json = serde_json::from_str(&self.text).unwrap();
        assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
        body["error"].as_str().unwrap().to_owned()
    }
}

fn get(addr: SocketAddr, path_and_query: &str, headers: &[(&str, &str)]) -> Answer {
    request("GET", addr, path_and_query, headers)
}

fn request(method: &str, addr: SocketAddr, path_and_query: &str, headers: &[(&str, &str)]) -> Answer {
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .proxy(None)
            .timeout_global(Some(PATIENCE))
            .build(),
    );
    let mut request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("http://{addr}{path_and_query}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = agent.run(request.body(()).unwrap()).unwrap();
    Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        text: response.body_mut().read_to_string().unwrap(),
    }
}

/// Sends bytes as they are; gives what came back until the server closed or `PATIENCE` was over.
fn raw(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn events(body: &Json) -> &Vec<Json> {
    body["events"].as_array().unwrap()
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("Person Number {n:05}")).collect()
}

fn is_utc_rfc3339(text: &str) -> bool {
    text.ends_with('Z') && text.as_bytes().get(10) == Some(&b'T') && provenance::Timestamp::parse(text).is_some()
}

diesel::table! {
    patients (id) {
        id -> Integer,
        email -> Text,
        blood -> Text,
    }
}

#[provenance::tracked_model(owner(email))]
#[derive(diesel::Insertable)]
#[diesel(table_name = patients)]
struct NewPatient<'a> {
    #[tracked("contact.email")]
    email: &'a str,
    #[tracked("health_and_medical.genetic", description = "Blood group")]
    #[diesel(column_name = blood)]
    blood_group: &'a str,
}

// ---- what is answered ----

#[test]
fn status_tells_of_the_process_and_of_the_file() {
    let host = Host::start(|config| {
        config.audit_token = Token(TOKEN.into());
        config.key = Some(Token("0123456789abcdef".repeat(4)));
        let email = InputField {
            category: "contact.email".into(),
            description: "Email address".into(),
            pii: true,
            kind: None,
            secret: None,
            owner: None,
        };
        config.input_fields.insert("email".into(), email.clone());
        let fields = [("mail".to_owned(), email)].into();
        config.tracked_models.insert("Legacy".into(), TrackedModel { fields });
    });
    host.record("X_LETTER", "contact.email", ["alice@example.com", "bob@example.com"]);
    let answer = host.with("/runtime-audit/status", &[("x-audit-token", TOKEN)]);
    let status = answer.ok();
    assert_eq!(status["events"]["X_LETTER"], 2, "{status}");
    assert_eq!(status["fingerprints"], 2);
    assert_eq!(status["registry_size"], 2);
    assert_eq!(status["storage_path"], host.db().to_string_lossy().as_ref());
    assert_eq!(status["input_fields"]["email"]["category"], "contact.email");
    assert_eq!(status["input_fields"]["email"]["description"], "Email address");
    let model = &status["tracked_models"]["NewPatient"];
    assert_eq!(model["table"], "patients", "{status}");
    assert_eq!(model["fields"]["email"]["category"], "contact.email");
    assert_eq!(model["fields"]["blood"]["description"], "Blood group");
    assert!(model["at"].as_str().unwrap().contains("audit_api.rs:"));
    assert_eq!(
        status["tracked_models"]["Legacy"]["fields"]["mail"]["category"],
        "contact.email"
    );
    assert_eq!(status["embedded"], true);
    assert_eq!(status["service"], "tests");
    assert_eq!(status["queue"]["depth"], 0);
    assert!(status["blind_spots"].is_array());
    assert_eq!(status["chain"]["ok"], true);
    assert!(status["version"].is_string());
    assert!(
        !answer.text.contains(TOKEN) && !answer.text.contains("0123456789abcdef"),
        "{status}"
    );
    assert!(!answer.text.contains("alice"));
}

#[test]
fn an_event_is_shown_whole_and_without_raw_values() {
    let host = Host::open();
    host.record("X_LETTER", "contact.email", ["alice@example.com"]);
    let answer = host.get("/runtime-audit/events");
    let body = answer.ok();
    let event = &events(&body)[0];
    assert!(
        event["event_id"]
            .as_str()
            .unwrap()
            .starts_with(&host.evidence.tracker.instance_id())
    );
    assert!(is_utc_rfc3339(event["created_at"].as_str().unwrap()), "{event}");
    assert_eq!(event["event_type"], "X_LETTER");
    assert_eq!(event["target"], "printer:2");
    for key in ["actor", "payload", "request_id", "user_id", "extras"] {
        assert!(event.get(key).is_some(), "{key} in {event}");
    }
    let tag = &event["matched_tags"][0];
    assert_eq!(tag["category"], "contact.email");
    assert_eq!(tag["fingerprint"].as_str().unwrap().len(), 64);
    assert!(!answer.text.contains("alice"), "{event}");
}

#[test]
fn cursors_walk_every_event_once_newest_first_while_more_arrive() {
    let host = Host::open();
    let people = names(25);
    host.record("X_LETTER", "personal.name", people.iter().map(String::as_str));
    let (mut seen, mut times, mut cursor) = (Vec::new(), Vec::new(), String::new());
    loop {
        let body = host.get(&format!("/runtime-audit/events?limit=7&cursor={cursor}")).ok();
        assert!(events(&body).len() <= 7);
        for event in events(&body) {
            seen.push(event["event_id"].as_str().unwrap().to_owned());
            times.push(event["created_at"].as_str().unwrap().to_owned());
        }
        host.record("X_LATER", "personal.name", ["Somebody Else"]);
        match body["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen.len(), 25);
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 25);
    assert!(times.is_sorted_by(|newer, older| newer >= older), "{times:?}");
}

#[test]
fn the_limit_is_100_and_capped_at_500() {
    let host = Host::open();
    let people = names(510);
    host.record("X_LETTER", "personal.name", people.iter().map(String::as_str));
    for (query, expected) in [
        ("", 100),
        ("?limit=1", 1),
        ("?limit=500", 500),
        ("?limit=501", 500),
        ("?limit=99999999999999999999999", 500),
    ] {
        for listing in ["events", "fingerprints"] {
            let body = host.get(&format!("/runtime-audit/{listing}{query}")).ok();
            assert_eq!(body[listing].as_array().unwrap().len(), expected, "{listing}{query}");
            assert!(body["next_cursor"].is_string());
        }
    }
}

#[test]
fn filters_select_events() {
    let host = Host::open();
    host.record("X_LETTER", "contact.email", ["alice@example.com"]);
    std::thread::sleep(Duration::from_millis(5));
    let between = provenance::Timestamp::now();
    std::thread::sleep(Duration::from_millis(5));
    host.record("X_PARCEL", "personal.name", ["Bob Example", "Carol Example"]);
    for (query, expected) in [
        ("event_type=X_LETTER".to_owned(), 1),
        ("event_type=X_PARCEL".into(), 2),
        ("event_type=X_NEVER_SEEN".into(), 0),
        (format!("since={between}"), 2),
        (format!("until={between}"), 1),
        (format!("since={between}&event_type=X_LETTER"), 0),
        ("since=2001-01-01&until=2001-01-02".into(), 0),
        ("since=2001-01-01".into(), 3),
        // An offset's plus sign that was not escaped.
        ("since=2001-01-01T00:00:00+02:00".into(), 3),
        ("category=contact.email".into(), 1),
        ("category=user.contact.email".into(), 1),
        ("category=user.name".into(), 2),
        ("category=financial.income".into(), 0),
        ("request_id=none-like-this".into(), 0),
        ("recipient=nobody".into(), 0),
        // As a form sends what is not filled in.
        (
            "event_type=&since=&until=&category=&recipient=&request_id=&cursor=".into(),
            3,
        ),
    ] {
        let body = host.get(&format!("/runtime-audit/events?{query}")).ok();
        assert_eq!(events(&body).len(), expected, "{query}: {body}");
    }
}

#[test]
fn a_share_is_one_event_found_by_its_recipient_and_its_request() {
    let host = Host::open();
    host.record("X_LETTER", "contact.email", ["alice@example.com"]);
    {
        let _in_force = host.evidence.scoped();
        let share = provenance::share("smtp.example.com")
            .recipient("post office")
            .payload("To: alice@example.com")
            .begin()
            .unwrap();
        let pending = host.get("/runtime-audit/events?recipient=post+office").ok();
        assert_eq!(events(&pending).len(), 1, "on disk before anything is sent: {pending}");
        share.sent();
    }
    host.evidence.tracker.flush(PATIENCE).unwrap();
    let body = host.get("/runtime-audit/events?recipient=post%20office").ok();
    let [event] = events(&body).as_slice() else {
        panic!("{body}");
    };
    assert_eq!(event["event_type"], "DATA_SHARE");
    assert_eq!(event["extras"]["recipient"], "post office", "{event}");
    assert_eq!(event["extras"]["outcome"], "sent", "{event}");
    let shares = host.get("/runtime-audit/events?event_type=DATA_SHARE").ok();
    assert_eq!(events(&shares).len(), 1, "the outcome is part of it: {shares}");
    let listed = host.get("/runtime-audit/events").ok();
    assert_eq!(events(&listed).len(), 2);
    assert!(events(&host.get("/runtime-audit/events?recipient=post").ok()).is_empty());
}

#[test]
fn fingerprints_are_listed_with_their_first_appearance() {
    let host = Host::open();
    host.record("X_LETTER", "contact.email", ["alice@example.com", "bob@example.com"]);
    host.record("X_LETTER", "contact.email", ["alice@example.com"]);
    host.record("X_LETTER", "personal.name", ["Alice Example"]);
    let body = host.get("/runtime-audit/fingerprints?category=contact.email").ok();
    let listed = body["fingerprints"].as_array().unwrap();
    assert_eq!(listed.len(), 2, "{body}");
    let alice = listed.iter().find(|entry| entry["count"] == 2).unwrap();
    assert_eq!(alice["category"], "contact.email");
    assert_eq!(alice["field"], "field");
    for time in ["first_seen_at", "last_seen_at"] {
        assert!(is_utc_rfc3339(alice[time].as_str().unwrap()), "{alice}");
    }
    for key in ["description", "owner", "source"] {
        assert!(alice.get(key).is_some(), "{key} in {alice}");
    }
    let first = alice["first_seen_event_id"].as_str().unwrap();
    let all = host.get("/runtime-audit/events").ok();
    assert_eq!(events(&all)[3]["event_id"], first, "{all}");
    // One a page.
    let (mut seen, mut cursor) = (HashSet::new(), String::new());
    for _ in 0..3 {
        let page = host
            .get(&format!("/runtime-audit/fingerprints?limit=1&cursor={cursor}"))
            .ok();
        let entry = &page["fingerprints"][0];
        seen.insert(entry["fingerprint"].as_str().unwrap().to_owned());
        cursor = page["next_cursor"].as_str().unwrap_or("").to_owned();
    }
    assert_eq!(seen.len(), 3);
    assert_eq!(cursor, "");
}

// ---- bad input ----

#[test]
fn a_bad_parameter_is_named_and_its_value_is_not_repeated() {
    let host = Host::open();
    let long = "x".repeat(300);
    for (path, name, value) in [
        ("events", "limit", "abc"),
        ("events", "limit", "-1"),
        ("events", "limit", "0"),
        ("events", "limit", ""),
        ("events", "limit", "1.5"),
        ("events", "limit", "%D9%A3"),
        ("events", "event_type", "data_share"),
        ("events", "event_type", "DATA%20SHARE"),
        ("events", "event_type", "%27%3BDROP"),
        ("events", "since", "yesterday"),
        ("events", "since", "2026-13-01"),
        ("events", "since", "2027-02-03T04:05:06"),
        ("events", "until", "1700000000"),
        ("events", "category", "Contact.Email"),
        ("events", "category", "contact..email"),
        ("events", "recipient", "mail%00chimp"),
        ("events", "recipient", &long),
        ("events", "request_id", "with%20space"),
        ("events", "request_id", &long),
        ("events", "cursor", "alice%40example.com"),
        ("events", "cursor", &long),
        ("events", "cursor", "%FF%FE"),
        ("fingerprints", "limit", "alice"),
        ("fingerprints", "category", "alice%40example.com"),
        ("fingerprints", "cursor", "not-a-cursor"),
    ] {
        let answer = host.get(&format!("/runtime-audit/{path}?{name}={value}"));
        assert_eq!(answer.status, 400, "{name}={value}");
        let error = answer.error(400);
        assert!(error.starts_with(&format!("{name}: ")), "{name}={value}: {error}");
        if value.len() > 4 {
            assert!(
                !error.contains(value) && !error.contains("alice"),
                "{name}={value}: {error}"
            );
        }
    }
    for (path, name) in [
        ("events?limt=5", "limt"),
        ("status?limit=5", "limit"),
        ("fingerprints?event_type=DATA_SHARE", "event_type"),
        ("events?limit=5&limit=6", "limit"),
    ] {
        let error = host.get(&format!("/runtime-audit/{path}")).error(400);
        assert!(error.starts_with(&format!("{name}: ")), "{path}: {error}");
    }
    let error = host.get("/runtime-audit/events?alice%40example.com=1").error(400);
    assert!(!error.contains("alice"), "{error}");
}

#[test]
fn a_cursor_of_the_other_listing_is_refused() {
    let host = Host::open();
    host.record("X_LETTER", "personal.name", ["Alice Example", "Bob Example"]);
    for (listing, other) in [("events", "fingerprints"), ("fingerprints", "events")] {
        let body = host.get(&format!("/runtime-audit/{listing}?limit=1")).ok();
        let cursor = body["next_cursor"].as_str().unwrap();
        let error = host.get(&format!("/runtime-audit/{other}?cursor={cursor}")).error(400);
        assert!(error.starts_with("cursor: "), "{error}");
    }
}

#[test]
fn unknown_paths_and_wrong_methods() {
    let host = Host::open();
    for path in [
        "/",
        "/runtime-audit.",
        "/runtime-audit/view",
        "/runtime-audit/events/",
        "/runtime-audit/Events",
        "/runtime-audit/events%2F..%2Fstatus",
        "//runtime-audit/events",
    ] {
        host.get(path).error(404);
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = request(method, host.server.addr(), "/runtime-audit/events", &[]);
        answer.error(405);
        assert_eq!(answer.headers["allow"], "GET, HEAD");
    }
    let answer = request("HEAD", host.server.addr(), "/runtime-audit/status", &[]);
    assert_eq!((answer.status, answer.text.as_str()), (200, ""));
}

#[test]
fn every_answer_is_json_that_nobody_caches_or_sniffs() {
    let host = Host::protected();
    let good = [("x-audit-token", TOKEN)];
    for answer in [
        host.with("/runtime-audit/status", &good),
        host.with("/runtime-audit/events", &good),
        host.with("/runtime-audit/events?limit=x", &good),
        host.with("/nothing", &good),
        host.get("/runtime-audit/status"),
    ] {
        let header = |name: &str| answer.headers[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "application/json; charset=utf-8");
        assert_eq!(header("cache-control"), "no-store");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert!(header("content-security-policy").starts_with("default-src 'none'"));
        assert_eq!(header("referrer-policy"), "no-referrer");
        assert!(answer.headers.get("access-control-allow-origin").is_none());
    }
}

// ---- who may ask ----

#[test]
fn the_token_is_taken_in_three_ways() {
    let host = Host::protected();
    let bearer = format!("Bearer {TOKEN}");
    let lower = format!("bearer {TOKEN}");
    for (query, header) in [
        ("", Some(("X-Audit-Token", TOKEN))),
        ("", Some(("Authorization", bearer.as_str()))),
        ("", Some(("Authorization", lower.as_str()))),
        ("?audit_token=correct-horse-battery-staple", None),
        ("?audit_token=correct%2Dhorse-battery-staple", None),
        // A token frees from the Host check: it is what a foreign page does not know.
        (
            "?audit_token=correct-horse-battery-staple",
            Some(("Host", "audit.example")),
        ),
    ] {
        let headers: Vec<_> = header.into_iter().collect();
        host.with(&format!("/runtime-audit/events{query}"), &headers).ok();
    }
}

#[test]
fn without_the_token_nothing_is_told() {
    let host = Host::protected();
    let longer = format!("{TOKEN}x");
    let basic = format!("Basic {TOKEN}");
    for (query, header) in [
        ("", None),
        ("", Some(("X-Audit-Token", ""))),
        ("", Some(("X-Audit-Token", "wrong"))),
        ("", Some(("X-Audit-Token", &TOKEN[..5]))),
        ("", Some(("X-Audit-Token", longer.as_str()))),
        ("", Some(("Authorization", TOKEN))),
        ("", Some(("Authorization", basic.as_str()))),
        ("", Some(("Authorization", "Bearer"))),
        ("?audit_token=", None),
        ("?audit_token=wrong", None),
        ("?AUDIT_TOKEN=correct-horse-battery-staple", None),
    ] {
        let headers: Vec<_> = header.into_iter().collect();
        // The same for what exists and what does not, for good parameters and for bad ones.
        for path in ["/runtime-audit/events", "/runtime-audit/nothing", "/"] {
            let answer = host.with(&format!("{path}{query}"), &headers);
            assert_eq!(answer.error(401), "unauthorised");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
        }
    }
    assert_eq!(
        request("POST", host.server.addr(), "/runtime-audit/events?limit=x", &[]).error(401),
        "unauthorised"
    );
}

#[test]
fn the_query_token_can_be_switched_off() {
    let host = Host::start(|config| {
        config.audit_token = Token(TOKEN.into());
        config.audit_query_token = false;
    });
    host.get(&format!("/runtime-audit/events?audit_token={TOKEN}"))
        .error(401);
    host.with("/runtime-audit/events", &[("x-audit-token", TOKEN)]).ok();
}

#[test]
fn without_a_token_only_loopback_names_are_served() {
    let host = Host::open();
    let port = host.server.addr().port();
    let asked = |host_lines: &str| {
        let answer = raw(
            host.server.addr(),
            format!("GET /runtime-audit/events HTTP/1.1\r\n{host_lines}Connection: close\r\n\r\n").as_bytes(),
        );
        answer.split(' ').nth(1).unwrap_or("").to_owned()
    };
    for good in ["localhost", "LOCALHOST", "127.0.0.1", "[::1]", "127.9.9.9"] {
        assert_eq!(asked(&format!("Host: {good}\r\n")), "200", "{good}");
        assert_eq!(asked(&format!("Host: {good}:{port}\r\n")), "200", "{good}:{port}");
    }
    for bad in [
        "",
        "Host: \r\n",
        "Host: evil.example\r\n",
        "Host: evil.example:8787\r\n",
        "Host: localhost.evil.example\r\n",
        "Host: 127.0.0.1.evil.example\r\n",
        "Host: localhost:8787@evil.example\r\n",
        "Host: 192.168.0.1\r\n",
        "Host: [::1\r\n",
        "Host: [::1]x\r\n",
        "Host: localhost\r\nHost: evil.example\r\n",
        "Host: evil.example\r\nHost: localhost\r\n",
    ] {
        assert_eq!(asked(bad), "403", "{bad:?}");
    }
    let absolute = raw(
        host.server.addr(),
        b"GET http://evil.example/runtime-audit/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    );
    assert!(absolute.starts_with("HTTP/1.1 403 "), "{absolute}");
}

#[test]
fn an_open_address_asks_for_a_token() {
    let host = Host::open();
    let Err(error) = spawn_for(host.evidence.tracker.clone(), "0.0.0.0:0") else {
        panic!("served to everybody");
    };
    assert!(matches!(error, Error::Unprotected(_)));
    assert!(error.to_string().contains("RUNTIME_TRACKING_AUDIT_TOKEN"), "{error}");
    let protected = Host::protected();
    let server = spawn_for(protected.evidence.tracker.clone(), "0.0.0.0:0").unwrap();
    let local = SocketAddr::from(([127, 0, 0, 1], server.addr().port()));
    get(local, "/runtime-audit/status", &[("x-audit-token", TOKEN)]).ok();
}

#[test]
fn a_taken_address_is_an_error_that_names_it() {
    let host = Host::open();
    let addr = host.server.addr();
    let Err(error) = spawn_for(host.evidence.tracker.clone(), addr) else {
        panic!("bound twice");
    };
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
}

// ---- the one line ----

#[test]
fn init_serves_where_the_configuration_says() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("runtime_tracking.yaml");
    std::fs::write(
        &config,
        format!("storage_path: evidence.db\naudit_token: {TOKEN}\naudit: {{bind: \"127.0.0.1:0\"}}\n"),
    )
    .unwrap();
    // `init` is once for a process, so it gets one.
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "audit_api::a_process_with_the_one_line", "--ignored"])
        .env("RUNTIME_TRACKING_CONFIG", &config)
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}");
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn a_process_with_the_one_line() {
    let guard = provenance_audit::init().unwrap();
    let addr = guard.audit_addr().unwrap();
    record_event("X_LETTER".parse().unwrap()).submit_durable().unwrap();
    get(addr, "/runtime-audit/status", &[]).error(401);
    let status = get(addr, "/runtime-audit/status", &[("x-audit-token", TOKEN)]).ok();
    assert_eq!(status["events"]["X_LETTER"], 1);
    assert!(
        status["storage_path"].as_str().unwrap().ends_with("evidence.db"),
        "{status}"
    );

    let Err(Error::Provenance(second)) = provenance_audit::init() else {
        panic!("a second init");
    };
    assert!(second.is_already_initialised());
    let other = provenance_audit::spawn("127.0.0.1:0").unwrap();
    get(other.addr(), "/runtime-audit/status", &[("x-audit-token", TOKEN)]).ok();
    drop(other);

    drop(guard);
    assert!(TcpStream::connect(addr).is_err());
    assert!(matches!(
        provenance_audit::spawn("127.0.0.1:0"),
        Err(Error::NotInitialised)
    ));
}

// ---- whoever can reach the port ----

#[test]
fn hostile_clients_do_not_harm_the_host() {
    let host = Host::open();
    let addr = host.server.addr();
    // A body that is declared and never sent must be neither allocated nor awaited.
    for length in ["1000000000000000", "18446744073709551615", "99999999999999999999999"] {
        let post =
            format!("POST /runtime-audit/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(post.as_bytes()).unwrap();
        let mut start = [0; 9];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 ", "{length}");
    }
    // A head without end.
    let endless = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'a'; 1 << 20]].concat();
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(&endless);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "),
        "{}",
        answer.len()
    );
    for garbage in [
        b"\0\0\0\0\r\n\r\n".as_slice(),
        b"GET\r\n\r\n",
        &[0xff; 64],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let _ = raw(addr, &[garbage, b"\r\n\r\n"].concat());
    }
    // Clients that begin and never end.
    let slow: Vec<_> = (0..60)
        .map(|_| {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.write_all(b"GET /runtime-audit/status HTT").unwrap();
            stream
        })
        .collect();
    host.get("/runtime-audit/status").ok();
    drop(slow);
    host.get(&format!("/runtime-audit/events?cursor={}", "x".repeat(9000)))
        .error(414);
    host.get("/runtime-audit/status").ok();
}

#[test]
fn a_dropped_server_is_gone() {
    let Host { server, evidence } = Host::open();
    let addr = server.addr();
    get(addr, "/runtime-audit/status", &[]).ok();
    // A client that keeps its connection does not hold it up.
    let idle = TcpStream::connect(addr).unwrap();
    drop(server);
    assert!(TcpStream::connect(addr).is_err());
    drop((idle, evidence));
}

#[test]
fn evidence_that_cannot_be_read_is_a_500_until_it_can() {
    let host = Host::open();
    host.record("X_LETTER", "personal.name", ["Alice Example"]);
    host.evidence.tracker.close();
    let evidence = std::fs::read(host.db()).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("later.db");
    let api = Api::new(Source::File(path.clone()), &Options::new()).unwrap();
    let server = Server::start(api, "127.0.0.1:0").unwrap();
    let text = "this is not a database, but a text of some length\n".repeat(4000);
    // Missing; something else; there; damaged while it is open.
    get(server.addr(), "/runtime-audit/events", &[]).error(500);
    for _ in 0..2 {
        std::fs::write(&path, &text).unwrap();
        for listing in ["status", "events", "fingerprints"] {
            get(server.addr(), &format!("/runtime-audit/{listing}"), &[]).error(500);
        }
        std::fs::write(&path, &evidence).unwrap();
        let body = get(server.addr(), "/runtime-audit/events", &[]).ok();
        assert_eq!(events(&body).len(), 1);
    }
}

fn hostile_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ -~]{0,40}",
        "(limit|event_type|since|until|category|cursor|audit_token|recipient|request_id)=[%A-Za-z0-9:._+-]{0,40}",
        "(limit=[0-9-]{0,30}&?){0,3}",
        "(%[0-9a-fA-F]{2}|&|=|\\+){0,40}",
    ]
}

proptest! {
    #[test]
    fn any_request_gets_json_or_a_page_and_a_fitting_status(
        method in prop_oneof![3 => Just("GET".to_owned()), 3 => Just("POST".to_owned()), 1 => Just("HEAD".to_owned()), 1 => any::<String>()],
        path in prop_oneof![
            "/runtime-audit/(status|events|fingerprints|recipients|flows|inventory|coverage|metrics|openapi.json|subjects|affected|export|erasure)",
            "/runtime-audit/lineage/([0-9a-f]{64}|.{0,20})",
            "/runtime-audit/(|sign-in|sign-out|style.css|view/(events|lineage|person|recipients|incident|erase|declared|health|.{0,20}))",
            "/runtime-audit/view/events/([0-9a-f]{16}-[0-9]{1,3}|.{0,20})",
            any::<String>(),
        ],
        query in proptest::option::of(prop_oneof![
            hostile_text(),
            "format=(jsonl|csv|fides|ropa-html|.{0,9})&reason=[a-z0-9@]{0,9}(&(since|category|recipient)=.{0,12}){0,2}".prop_map(String::from),
        ]),
        headers in proptest::collection::vec(
            (
                prop_oneof!["(?i)(host|authorization|x-audit-token|cookie|origin|sec-fetch-site|content-type)", any::<String>()],
                prop_oneof![
                    Just(b"localhost".to_vec()),
                    Just(b"application/json".to_vec()),
                    Just(TOKEN.as_bytes().to_vec()),
                    proptest::collection::vec(any::<u8>(), 0..40),
                ],
            ),
            0..4,
        ),
        body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..60),
            "(kind|identifier|reason|recipient|owner|as|token|next|form_key|since)=[%A-Za-z0-9:._+@/-]{0,40}(&(kind|reason|identifiers)=.{0,20}){0,3}".prop_map(String::into_bytes),
            "\\{\"(kind|recipient)\":\"[a-z<]{0,9}\",\"identifier\":\"[ -~]{0,9}\",\"reason\":\"[ -~]{0,20}\"\\}".prop_map(String::into_bytes),
        ],
        protected in any::<bool>(),
    ) {
        static HOST: OnceLock<(Host, Api, Api)> = OnceLock::new();
        let (_, open, closed) = HOST.get_or_init(|| {
            let host = Host::open();
            host.record("X_LETTER", "personal.name", ["Alice Example"]);
            let api = |token| Api::new(Source::Tracker(host.evidence.tracker.clone()), &Options::new().token(token)).unwrap();
            let (open, closed) = (api(""), api(TOKEN));
            (host, open, closed)
        });
        let request = Request { method, path, query, headers, body, client: None };
        let response = if protected { closed } else { open }.handle(&request);
        let status = response.status;
        let text = String::from_utf8(response.body.into_bytes().unwrap()).unwrap();
        let statuses: &[u16] = if protected {
            &[200, 303, 400, 401, 403, 404, 405, 413, 414, 415, 429]
        } else {
            &[200, 303, 400, 403, 404, 405, 413, 414, 415]
        };
        prop_assert!(statuses.contains(&status), "{}: {text}", status);
        prop_assert!(response.headers.iter().all(|(_, value)| !value.chars().any(char::is_control)));
        let media = response.headers.iter().find(|(name, _)| *name == "content-type").map(|(_, value)| value.to_string());
        if media.as_deref() == Some("application/json; charset=utf-8") {
            let body: Json = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(status != 200, body.get("error").is_some());
        } else if status != 303 && media.as_deref() == Some("text/html; charset=utf-8") {
            prop_assert!(text.starts_with("<!DOCTYPE html>") && text.ends_with("</html>"));
        }
    }
}

// ---- signing in ----

const READER: &str = "reader-token-of-some-length";
const DESK: &str = "desk-token-of-some-length";

/// With a main token, one that may read, and one that may ask for people alone.
fn guarded() -> Host {
    Host::start(|config| {
        config.audit_token = Token(TOKEN.into());
        config.audit_tokens = vec![
            AuditToken {
                name: "reader".into(),
                token: Token(READER.into()),
                roles: vec![AuditRole::Read],
            },
            AuditToken {
                name: "desk".into(),
                token: Token(DESK.into()),
                roles: vec![AuditRole::Subject],
            },
        ];
    })
}

/// Sends a body; redirects are not followed.
fn post(addr: SocketAddr, path: &str, media: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .timeout_global(Some(PATIENCE))
            .build(),
    );
    let mut request = agent.post(format!("http://{addr}{path}")).header("content-type", media);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = request.send(body).unwrap();
    Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        text: response.body_mut().read_to_string().unwrap(),
    }
}

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

fn subjects(addr: SocketAddr, identifier: &str, headers: &[(&str, &str)]) -> Answer {
    let body = serde_json::json!({ "kind": "email", "identifier": identifier, "reason": "case 7" });
    post(addr, "/runtime-audit/subjects", JSON, &body.to_string(), headers)
}

/// The cookie of an answer, as the next request sends it.
fn cookie(answer: &Answer) -> String {
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

fn sign_in(host: &Host, token: &str) -> Answer {
    post(
        host.server.addr(),
        "/runtime-audit/sign-in",
        FORM,
        &format!("token={token}&next=%2Fruntime-audit%2Fview%2Fhealth"),
        &[],
    )
}

/// The hidden field of a page's forms.
fn form_key(page: &str) -> String {
    let rest = page.split("name=\"form_key\" value=\"").nth(1).unwrap();
    rest.split('"').next().unwrap().to_owned()
}

#[test]
fn signing_in_opens_a_session_and_signing_out_ends_it() {
    let host = guarded();
    let page = host.get("/runtime-audit/view/health");
    assert_eq!(page.status, 401);
    assert!(page.text.contains("type=\"password\""), "{}", page.text);
    assert!(!page.text.contains("view/declared"), "the pages are told only inside");

    let answer = sign_in(&host, TOKEN);
    assert_eq!(answer.status, 303);
    assert_eq!(answer.headers["location"], "/runtime-audit/view/health");
    let set = answer.headers["set-cookie"].to_str().unwrap();
    for word in ["HttpOnly", "SameSite=Strict", "Path=/runtime-audit"] {
        assert!(set.contains(word), "{set}");
    }
    assert!(!set.contains("Secure") && !set.contains(TOKEN), "{set}");
    let cookie = cookie(&answer);
    let session = [("cookie", cookie.as_str())];
    let page = host.with("/runtime-audit/view/health", &session);
    assert_eq!(page.status, 200);
    host.with("/runtime-audit/status", &session).ok();

    let out = |key: &str| {
        let body = format!("form_key={key}");
        post(host.server.addr(), "/runtime-audit/sign-out", FORM, &body, &session)
    };
    assert_eq!(out("0123").status, 403);
    assert_eq!(out(&form_key(&page.text)).status, 303);
    host.with("/runtime-audit/status", &session).error(401);

    let https = post(
        host.server.addr(),
        "/runtime-audit/sign-in",
        FORM,
        &format!("token={TOKEN}"),
        &[("x-forwarded-proto", "https")],
    );
    assert!(https.headers["set-cookie"].to_str().unwrap().contains("; Secure"));
}

#[test]
fn after_signing_in_only_pages_of_ours_are_gone_to() {
    let host = guarded();
    for next in [
        "https://evil.example/",
        "//evil.example/",
        "/runtime-audit/view/..%5c..%5cevil",
        "/runtime-audit@evil.example",
        "/runtime-audit/sign-out",
        "/runtime-audit/view/a%0d%0aset-cookie: x=1",
    ] {
        let body: String = form(&[("token", TOKEN), ("next", next)]);
        let answer = post(host.server.addr(), "/runtime-audit/sign-in", FORM, &body, &[]);
        let to = answer.headers["location"].to_str().unwrap();
        assert!(to.starts_with("/runtime-audit/"), "{next}: {to}");
        assert!(answer.headers.get_all("set-cookie").iter().count() == 1, "{next}");
    }
}

fn form(pairs: &[(&str, &str)]) -> String {
    let encode = |text: &str| -> String {
        text.bytes()
            .map(|b| {
                if b.is_ascii_alphanumeric() {
                    char::from(b).to_string()
                } else {
                    format!("%{b:02X}")
                }
            })
            .collect()
    };
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| format!("{name}={}", encode(value)))
        .collect();
    pairs.join("&")
}

#[test]
fn a_token_in_the_address_is_moved_out_of_it_and_changes_nothing() {
    let host = guarded();
    let target = format!("/runtime-audit/view/events?category=contact.email&audit_token={TOKEN}");
    let answer = raw(
        host.server.addr(),
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes(),
    );
    assert!(answer.starts_with("HTTP/1.1 303 "), "{answer}");
    assert!(
        answer.contains("location: /runtime-audit/view/events?category=contact.email\r\n"),
        "{answer}"
    );
    assert!(answer.contains("set-cookie: ") && !answer.contains(TOKEN), "{answer}");
    let body = serde_json::json!({ "kind": "email", "identifier": "a@example.com", "reason": "case 7" }).to_string();
    post(
        host.server.addr(),
        &format!("/runtime-audit/subjects?audit_token={TOKEN}"),
        JSON,
        &body,
        &[],
    )
    .error(401);
    assert!(host.evidence.of("AUDIT_ACCESS").is_empty());
}

#[test]
fn guessing_is_slowed_down_and_sessions_go_on() {
    let host = guarded();
    let cookie = cookie(&sign_in(&host, TOKEN));
    let mut statuses = Vec::new();
    for n in 0..25 {
        statuses.push(sign_in(&host, &format!("guess-{n}")).status);
    }
    assert_eq!(
        statuses.iter().filter(|status| **status == 401).count(),
        20,
        "{statuses:?}"
    );
    assert_eq!(statuses.last(), Some(&429));
    let wait = host.with("/runtime-audit/status", &[("x-audit-token", TOKEN)]);
    assert_eq!(wait.status, 429, "not even the right one is listened to");
    assert!(wait.headers["retry-after"].to_str().unwrap().parse::<u32>().is_ok());
    host.with("/runtime-audit/status", &[("cookie", &cookie)]).ok();
}

#[test]
fn roles_open_what_they_say() {
    let host = guarded();
    let addr = host.server.addr();
    let (reader, desk) = ([("x-audit-token", READER)], [("x-audit-token", DESK)]);
    host.with("/runtime-audit/events", &reader).ok();
    assert_eq!(host.with("/runtime-audit/", &reader).status, 200);
    assert!(
        subjects(addr, "alice@example.com", &reader)
            .error(403)
            .contains("`subject`")
    );
    assert_eq!(host.with("/runtime-audit/view/person", &reader).status, 403);
    subjects(addr, "alice@example.com", &desk).ok();
    assert_eq!(host.with("/runtime-audit/view/person", &desk).status, 200);
    assert!(host.with("/runtime-audit/events", &desk).error(403).contains("`read`"));
    assert_eq!(host.with("/runtime-audit/", &desk).status, 403);
    let recorded = host.evidence.of("AUDIT_ACCESS");
    assert_eq!(recorded.len(), 1, "{recorded:?}");
    assert_eq!(recorded[0]["actor"], "audit:desk");
}

#[test]
fn named_tokens_are_read_from_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("runtime_tracking.yaml");
    let load = |tokens: &str| {
        std::fs::write(
            &file,
            format!("audit:\n  bind: 127.0.0.1:0\n  tokens:\n    - {tokens}\n"),
        )
        .unwrap();
        Config::load(Some(&file))
    };
    let config = load("{name: privacy-desk, token: s3cret, roles: [read, subject]}").unwrap();
    let [desk] = config.audit_tokens.as_slice() else {
        panic!("{config:?}");
    };
    assert_eq!((desk.name.as_str(), desk.token.0.as_str()), ("privacy-desk", "s3cret"));
    assert_eq!(desk.roles, [AuditRole::Read, AuditRole::Subject]);
    assert!(!format!("{config:?}").contains("s3cret"));
    for (bad, problem) in [
        ("{name: desk, token: s3cret, roles: [reed]}", "did you mean `read`"),
        ("{name: desk, token: s3cret}", "needs the keys name, token and roles"),
        ("{name: The Desk, token: s3cret, roles: [read]}", "expected a name"),
        (
            "{name: desk, token: s3cret, roles: [read], rolls: 1}",
            "did you mean `roles`",
        ),
        ("desk", "expected a map"),
    ] {
        let error = load(bad).unwrap_err().to_string();
        assert!(error.contains(problem) && error.contains(".yaml:4"), "{bad}: {error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[test]
fn other_sites_change_nothing() {
    let host = Host::open();
    let addr = host.server.addr();
    let page = host.get("/runtime-audit/view/person");
    let key = form_key(&page.text);
    let search = |key: &str, headers: &[(&str, &str)]| {
        let body = form(&[
            ("form_key", key),
            ("kind", "email"),
            ("identifier", "alice@example.com"),
            ("reason", "case 7"),
        ]);
        post(addr, "/runtime-audit/view/person", FORM, &body, headers).status
    };
    let origin = format!("http://{addr}");
    for headers in [
        [("origin", "http://evil.example")],
        [("origin", "http://127.0.0.1:1")],
        [("sec-fetch-site", "cross-site")],
        [("sec-fetch-site", "same-site")],
    ] {
        assert_eq!(search(&key, &headers), 403, "{headers:?}");
        assert_eq!(subjects(addr, "alice@example.com", &headers).status, 403, "{headers:?}");
    }
    assert_eq!(search("", &[]), 403);
    assert_eq!(search("00", &[("origin", "null")]), 403);
    // What a form of another site can send.
    let body = r#"{"kind":"email","identifier":"alice@example.com","reason":"case 7"}"#;
    for media in ["text/plain", FORM, "multipart/form-data"] {
        post(addr, "/runtime-audit/subjects", media, body, &[]).error(415);
    }
    assert!(host.evidence.of("AUDIT_ACCESS").is_empty());
    assert_eq!(
        search(&key, &[("origin", &origin), ("sec-fetch-site", "same-origin")]),
        200
    );
    assert_eq!(search(&key, &[("origin", "null")]), 200);
    assert_eq!(host.evidence.of("AUDIT_ACCESS").len(), 2);
}

// ---- questions ----

/// What happens to Ada's data, and to Alan's address.
fn people(host: &Host) {
    let _in_force = host.evidence.scoped();
    {
        let _scope = provenance::Scope::new("HTTP POST /signup").enter();
        provenance::set_owner("email", "ada@example.com");
        record_event("DATA_COLLECTION".parse().unwrap())
            .value("contact.email", "email", "ada@example.com")
            .unwrap()
            .value("health_and_medical.genetic", "blood", "AB negative, tested twice")
            .unwrap()
            .submit();
        record_event("DATA_STORAGE".parse().unwrap())
            .target("db:patients")
            .value("contact.email", "email", "ada@example.com")
            .unwrap()
            .submit();
        share_with("mailer", "To: ada@example.com");
        share_with("stranger", "To: ada@example.com");
    }
    let _scope = provenance::Scope::new("HTTP POST /signup").enter();
    provenance::set_owner("email", "alan@example.com");
    record_event("DATA_COLLECTION".parse().unwrap())
        .value("contact.email", "email", "alan@example.com")
        .unwrap()
        .submit();
    share_with("mailer", "To: alan@example.com");
    host.evidence.tracker.flush(PATIENCE).unwrap();
}

fn share_with(recipient: &str, text: &str) {
    let share = provenance::share("smtp.example.com")
        .recipient(recipient)
        .purpose("letters")
        .payload(text);
    share.begin().unwrap().sent();
}

fn mailer() -> Host {
    Host::start(|config| {
        let mailer = Recipient {
            role: Some("processor".into()),
            legal_name: Some("Mailer <b>Ltd</b>".into()),
            country: Some("IE".into()),
            ..Recipient::default()
        };
        config.recipients.insert("mailer".into(), mailer);
    })
}

#[test]
fn a_person_is_answered_by_category_and_it_is_recorded_first() {
    let host = mailer();
    people(&host);
    let answer = subjects(host.server.addr(), "Ada@Example.com", &[]);
    let person = answer.ok();
    assert!(!answer.text.to_lowercase().contains("ada@"), "{person}");
    assert_eq!(person["complete"], true);
    let category = |name: &str| {
        let categories = person["categories"].as_array().unwrap();
        categories.iter().find(|category| category["category"] == name).unwrap()
    };
    let email = category("contact.email");
    assert_eq!(email["from"]["HTTP POST /signup"]["events"], 1, "{person}");
    assert_eq!(email["stored"]["patients"]["events"], 1);
    assert_eq!(email["shared"].as_object().unwrap().len(), 2);
    assert_eq!(email["purposes"], serde_json::json!(["letters"]));
    assert!(
        category("health_and_medical.genetic")["special"]
            .as_str()
            .unwrap()
            .contains("Art. 9")
    );
    let told = person["recipients"].as_array().unwrap();
    assert_eq!(told[0]["recipient"], "stranger", "undeclared first: {person}");
    assert_eq!(told[1]["legal_name"], "Mailer <b>Ltd</b>");
    assert_eq!(told[1]["country"], "IE");
    assert_eq!(told[1]["events"], 1, "Alan's share is not Ada's: {person}");

    let recorded = host.evidence.of("AUDIT_ACCESS");
    assert_eq!(recorded[0]["actor"], "audit:local");
    assert_eq!(recorded[0]["extras"]["reason"], "case 7");
    assert_eq!(recorded[0]["extras"]["owner"], person["identifiers"][0]);
    assert!(Reader::open(&host.db()).unwrap().verify().unwrap().is_ok());
    // She can be told who looked.
    let again = subjects(host.server.addr(), "ada@example.com", &[]).ok();
    assert_eq!(again["asked"].as_array().unwrap().len(), 2, "{again}");
    let nobody = subjects(host.server.addr(), "nobody@example.com", &[]).ok();
    assert_eq!(nobody["events"], 0);
    assert!(!host.evidence.holds("nobody@example.com"));
}

#[test]
fn a_reason_is_asked_for_and_names_nobody() {
    let host = Host::open();
    let addr = host.server.addr();
    for reason in ["", "  ", "case of ada@example.com", "she is Ada Lovelace", "two\nlines"] {
        let body = serde_json::json!({ "kind": "name", "identifier": "Ada Lovelace", "reason": reason });
        let error = post(addr, "/runtime-audit/subjects", JSON, &body.to_string(), &[]).error(400);
        assert!(error.starts_with("reason: ") && !error.contains("Ada"), "{error}");
    }
    for body in [
        "",
        "[]",
        "{}",
        r#"{"kind":"email","identifier":"ada@example.com"}"#,
        r#"{"kind":"email","identifier":"ada@example.com","reason":"x","secret":"ada@example.com"}"#,
        r#"{"kind":"ada@example.com","identifier":"ada@example.com","reason":"case 7"}"#,
        r#"{"kind":7,"identifier":"ada@example.com","reason":"case 7"}"#,
    ] {
        let error = post(addr, "/runtime-audit/subjects", JSON, body, &[]).error(400);
        assert!(!error.contains("ada@"), "{error}");
    }
    // A pseudonym that is none would be kept as it is.
    let page = host.get("/runtime-audit/view/person");
    let body = form(&[
        ("form_key", &form_key(&page.text)),
        ("owner", "email:ada@example.com"),
        ("reason", "case 7"),
    ]);
    assert_eq!(post(addr, "/runtime-audit/view/person", FORM, &body, &[]).status, 400);
    assert!(host.evidence.of("AUDIT_ACCESS").is_empty());
}

#[test]
fn an_incident_tells_who_was_affected() {
    let host = mailer();
    people(&host);
    let addr = host.server.addr();
    let ask = |body: Json| post(addr, "/runtime-audit/affected", JSON, &body.to_string(), &[]).ok();
    let named = |identifier: &str| serde_json::json!({ "kind": "email", "identifier": identifier });
    let all = ask(
        serde_json::json!({ "recipient": "mailer", "reason": "case 8", "identifiers":
        [named("nobody@example.com"), named("ALAN@example.com")] }),
    );
    assert_eq!((&all["people"], &all["shares"]), (&2.into(), &2.into()), "{all}");
    assert_eq!(all["matched"], serde_json::json!([1]));
    assert_eq!(all["unmatched_people"], 1);
    assert_eq!(all["categories"]["contact.email"], 2);
    for (more, people) in [
        (serde_json::json!({ "category": "user.contact.email" }), 2),
        (serde_json::json!({ "category": "financial.income" }), 0),
        (serde_json::json!({ "until": "2001-01-01" }), 0),
        (serde_json::json!({ "since": "2001-01-01" }), 2),
    ] {
        let mut body = serde_json::json!({ "recipient": "mailer", "reason": "case 8" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(ask(body.clone())["people"], people, "{body}");
    }
    assert_eq!(host.evidence.of("AUDIT_ACCESS").len(), 5);
}

#[test]
fn a_lineage_follows_what_was_derived() {
    let host = Host::open();
    {
        let _in_force = host.evidence.scoped();
        let _scope = provenance::Scope::new("HTTP POST /score").enter();
        provenance::set_owner("email", "ada@example.com");
        record_event("DATA_COLLECTION".parse().unwrap())
            .value("contact.email", "email", "ada@example.com")
            .unwrap()
            .submit();
        let score = initials("ada@example.com");
        share_with("scorer", &score);
    }
    host.evidence.tracker.flush(PATIENCE).unwrap();
    let event = &host.evidence.of("DATA_COLLECTION")[0];
    let fingerprint = event["matched_tags"][0]["fingerprint"].as_str().unwrap();
    let lineage = host.get(&format!("/runtime-audit/lineage/{fingerprint}")).ok();
    let stages: Vec<_> = lineage["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["stage"].as_str().unwrap())
        .collect();
    assert_eq!(stages, ["collected", "derived", "shared"], "{lineage}");
    assert_eq!(lineage["steps"][2]["generation"], 1);
    assert_eq!(lineage["steps"][2]["recipient"], "scorer");
    let derived = lineage["steps"][2]["fingerprint"].as_str().unwrap();
    let back = host.get(&format!("/runtime-audit/lineage/{derived}")).ok();
    assert_eq!(back["derived_from"][0]["fingerprint"], fingerprint, "{back}");
    let events = host
        .get(&format!("/runtime-audit/events?fingerprint={fingerprint}"))
        .ok();
    assert_eq!(events["events"].as_array().unwrap().len(), 2);
    host.get(&format!("/runtime-audit/lineage/{}", "0".repeat(64)))
        .error(404);
    host.get("/runtime-audit/lineage/ada").error(400);
}

#[provenance::derived("x.handle", description = "A handle")]
fn initials(email: &str) -> String {
    format!("handle-of-{}-and-more", email.len())
}

#[test]
fn recipients_flows_coverage_and_metrics_say_what_was_seen() {
    let host = mailer();
    people(&host);
    let recipients = host.get("/runtime-audit/recipients").ok();
    let recipients = recipients["recipients"].as_array().unwrap();
    assert_eq!(recipients[0]["recipient"], "stranger");
    assert_eq!(recipients[0]["declared"], false);
    let mailer = recipients
        .iter()
        .find(|recipient| recipient["recipient"] == "mailer")
        .unwrap();
    assert_eq!(mailer["categories"]["contact.email"], 2, "{mailer}");
    assert_eq!(mailer["outcomes"]["sent"], 2);
    let flows = host.get("/runtime-audit/flows?since=2001-01-01").ok();
    assert!(
        flows["flows"]
            .as_array()
            .unwrap()
            .iter()
            .any(|flow| flow["recipient"] == "stranger")
    );
    assert!(
        host.get("/runtime-audit/flows?until=2001-01-01").ok()["flows"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    let inventory = host.get("/runtime-audit/inventory").ok();
    assert_eq!(inventory["undeclared_recipients"]["stranger"], 1, "{inventory}");
    let coverage = host.get("/runtime-audit/coverage").ok();
    assert_eq!(coverage["embedded"], true);
    let metrics = host.get("/runtime-audit/metrics");
    assert!(
        metrics.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain")
    );
    assert!(
        metrics
            .text
            .contains("provenance_events{event_type=\"DATA_SHARE\"} 3\n"),
        "{}",
        metrics.text
    );
    assert!(metrics.text.contains("provenance_chain_ok 1\n"));
}

#[test]
fn beside_a_service_people_are_looked_up_with_its_key_alone() {
    let host = mailer();
    people(&host);
    host.evidence.tracker.close();
    let serve = |db: &Path| {
        let api = Api::new(Source::File(db.to_owned()), &Options::new()).unwrap();
        Server::start(api, "127.0.0.1:0").unwrap()
    };
    let server = serve(&host.db());
    let person = subjects(server.addr(), "ada@example.com", &[]).ok();
    assert_eq!(person["recipients"].as_array().unwrap().len(), 2);
    drop(server);
    let mut reader = Reader::open(&host.db()).unwrap();
    assert!(reader.verify().unwrap().is_ok());
    assert_eq!(reader.summary().unwrap().events["AUDIT_ACCESS"], 1);

    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.db");
    std::fs::copy(host.db(), &copy).unwrap();
    let before = std::fs::read(&copy).unwrap();
    let server = serve(&copy);
    let error = subjects(server.addr(), "ada@example.com", &[]).error(503);
    assert!(error.contains("key"), "{error}");
    get(server.addr(), "/runtime-audit/events", &[]).ok();
    drop(server);
    assert!(before == std::fs::read(&copy).unwrap(), "nothing was written");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no key was made");
}

// ---- pages ----

const PAGES: [&str; 8] = [
    "",
    "view/events",
    "view/lineage",
    "view/person",
    "view/recipients",
    "view/incident",
    "view/declared",
    "view/health?check=all",
];

#[test]
fn hostile_names_are_shown_and_not_obeyed() {
    const BAD: &str = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'";
    let host = Host::start(|config| {
        let recipient = Recipient {
            legal_name: Some(BAD.into()),
            ..Recipient::default()
        };
        config.recipients.insert(BAD.into(), recipient);
    });
    {
        let _in_force = host.evidence.scoped();
        let _scope = provenance::Scope::new(format!("HTTP GET /{BAD}")).enter();
        provenance::set_owner("email", "ada@example.com");
        for event_type in ["DATA_COLLECTION", "DATA_STORAGE", "DATA_SHARE", "X_OWN"] {
            record_event(event_type.parse().unwrap())
                .target(&format!("db:{BAD}"))
                .extra("recipient", BAD)
                .extra("purpose", BAD)
                .extra("reason", BAD)
                .value("contact.email", BAD, "ada@example.com")
                .unwrap()
                .submit();
        }
        share_with(BAD, "To: ada@example.com");
    }
    host.evidence.tracker.flush(PATIENCE).unwrap();
    let event = &host.evidence.of("DATA_COLLECTION")[0];
    let fingerprint = event["matched_tags"][0]["fingerprint"].as_str().unwrap();
    let mut pages: Vec<String> = PAGES.iter().map(|page| (*page).to_owned()).collect();
    pages.push(format!("view/lineage?fingerprint={fingerprint}"));
    for event in host.evidence.events() {
        pages.push(format!("view/events/{}", event["event_id"].as_str().unwrap()));
    }
    for (name, value) in [("recipient", BAD), ("source", BAD), ("table", BAD)] {
        pages.push(format!("?{}", form(&[(name, value)])));
    }
    pages.push(format!("view/events?{}", form(&[("recipient", BAD)])));
    pages.push(format!("view/incident?{}", form(&[("recipient", BAD)])));
    let mut answers: Vec<Answer> = pages
        .iter()
        .map(|page| host.get(&format!("/runtime-audit/{page}")))
        .collect();
    let key = form_key(&host.get("/runtime-audit/view/person").text);
    for kind in ["", "annex"] {
        let body = form(&[
            ("form_key", &key),
            ("kind", "email"),
            ("identifier", "ada@example.com"),
            ("reason", BAD),
            ("as", kind),
        ]);
        answers.push(post(host.server.addr(), "/runtime-audit/view/person", FORM, &body, &[]));
    }
    let body = form(&[("form_key", &key), ("recipient", BAD), ("reason", BAD)]);
    answers.push(post(
        host.server.addr(),
        "/runtime-audit/view/incident",
        FORM,
        &body,
        &[],
    ));
    let mut shown = 0;
    for answer in answers {
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert!(
            !answer.text.contains("<script") && !answer.text.contains("<img"),
            "{}",
            answer.text
        );
        assert!(!answer.text.contains("\"&gt;<"), "{}", answer.text);
        assert!(!answer.text.contains("ada@"), "{}", answer.text);
        shown += usize::from(answer.text.contains("&lt;script&gt;"));
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe") && !policy.contains("script"));
        assert_eq!(answer.headers["referrer-policy"], "no-referrer");
    }
    assert!(shown > 10, "the names were shown on {shown} pages only");
}

#[test]
fn an_event_page_names_its_code_and_leads_on() {
    let host = mailer();
    people(&host);
    for event in host.evidence.events() {
        let page = host.get(&format!(
            "/runtime-audit/view/events/{}",
            event["event_id"].as_str().unwrap()
        ));
        assert_eq!(page.status, 200);
        for tag in event["matched_tags"].as_array().unwrap() {
            let link = format!("view/lineage?fingerprint={}", tag["fingerprint"].as_str().unwrap());
            assert!(page.text.contains(&link), "{}", page.text);
        }
    }
    for nothing in ["view/events/0000000000000000-1", "view/events/x", "view/nothing"] {
        assert_eq!(host.get(&format!("/runtime-audit/{nothing}")).status, 404, "{nothing}");
    }
    assert_eq!(host.get("/runtime-audit/view/events?limit=x").status, 400);
}

#[test]
fn internal_recipients_are_folded_until_asked() {
    let host = Host::start(|config| {
        for name in ["warehouse-one", "warehouse-two"] {
            let recipient = Recipient {
                role: Some("internal".into()),
                ..Recipient::default()
            };
            config.recipients.insert(name.into(), recipient);
        }
    });
    {
        let _in_force = host.evidence.scoped();
        let _scope = provenance::Scope::new("HTTP POST /signup").enter();
        record_event("DATA_COLLECTION".parse().unwrap())
            .value("contact.email", "email", "ada@example.com")
            .unwrap()
            .submit();
        share_with("warehouse-one", "ada@example.com");
        share_with("warehouse-two", "ada@example.com");
    }
    host.evidence.tracker.flush(PATIENCE).unwrap();
    let picture = |query: &str| {
        let page = host.get(&format!("/runtime-audit/{query}")).text;
        page.split("<svg")
            .nth(1)
            .unwrap()
            .split("</svg>")
            .next()
            .unwrap()
            .to_owned()
    };
    assert!(picture("").contains("internal recipients") && !picture("").contains("warehouse-one"));
    assert!(picture("?internal=each").contains("warehouse-one"));
}

// ---- bodies and routers ----

#[test]
fn a_body_is_capped() {
    let host = Host::open();
    let addr = host.server.addr();
    let long = "x".repeat(70_000);
    assert_eq!(post(addr, "/runtime-audit/subjects", JSON, &long, &[]).status, 413);
    // Of a length that is not told.
    let chunk = format!("{:x}\r\n{long}\r\n0\r\n\r\n", long.len());
    let head = "POST /runtime-audit/subjects HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all((head.to_owned() + &chunk).as_bytes());
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_is_mounted_with_a_token_alone() {
    let open = Evidence::default();
    let Err(error) = provenance_audit::axum::router::<()>(open.tracker.clone()) else {
        panic!("mounted without a token");
    };
    assert!(error.to_string().contains("RUNTIME_TRACKING_AUDIT_TOKEN"), "{error}");

    let evidence = Evidence::new(|config| config.audit_token = Token(TOKEN.into()));
    let app = axum::Router::new()
        .route("/", axum::routing::get(|| async { "the host's own" }))
        .merge(provenance_audit::axum::router(evidence.tracker.clone()).unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    tokio::task::spawn_blocking(move || {
        assert_eq!(get(addr, "/", &[]).text, "the host's own");
        get(addr, "/runtime-audit/status", &[]).error(401);
        get(addr, "/runtime-audit/status", &[("x-audit-token", TOKEN)]).ok();
        assert_eq!(get(addr, "/runtime-audit/", &[]).status, 401);
        assert_eq!(get(addr, "/runtime-audit", &[("x-audit-token", TOKEN)]).status, 200);
        subjects(addr, "ada@example.com", &[("x-audit-token", TOKEN)]).ok();
        let export = get(
            addr,
            "/runtime-audit/export?format=jsonl&reason=case+9",
            &[("x-audit-token", TOKEN)],
        );
        assert_eq!(
            (export.status, export.text.lines().count()),
            (200, 2),
            "{}",
            export.text
        );
        let long = "x".repeat(70_000);
        assert_eq!(post(addr, "/runtime-audit/subjects", JSON, &long, &[]).status, 413);
    })
    .await
    .unwrap();
    evidence.tracker.close();
}

// ---- the command ----

/// Ends the process with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The command, as a user would call it.
fn command() -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let path = BUILT.get_or_init(|| provenance_tests::program("provenance-audit"));
    let mut command = Command::new(path);
    command.env_remove("RUNTIME_TRACKING_AUDIT_TOKEN").stdin(Stdio::null());
    command
}

/// Starts `serve` on a free port; gives its address.
fn serve(mut command: Command, db: &Path, args: &[&str]) -> (Running, SocketAddr) {
    let mut child = command
        .args(["serve", "--bind", "127.0.0.1:0", "--db"])
        .arg(db)
        .args(args)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    let running = Running(child);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    let addr = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
    (
        running,
        addr.unwrap_or_else(|| panic!("no address in {line:?}"))
            .parse()
            .unwrap(),
    )
}

#[test]
fn the_command_serves_a_file_that_is_being_written() {
    let host = Host::open();
    host.record("X_LETTER", "personal.name", ["Alice Example"]);
    let (_running, addr) = serve(command(), &host.db(), &[]);
    assert_eq!(events(&get(addr, "/runtime-audit/events", &[]).ok()).len(), 1);
    host.record("X_LETTER", "personal.name", ["Bob Example"]);
    assert_eq!(events(&get(addr, "/runtime-audit/events", &[]).ok()).len(), 2);
    let status = get(addr, "/runtime-audit/status", &[]).ok();
    assert_eq!(status["events"]["X_LETTER"], 2);
    assert_eq!(status["fingerprints"], 2);
    assert_eq!(status["embedded"], false);
    assert!(status["registry_size"].is_null() && status["queue"].is_null() && status["blind_spots"].is_null());
    let fingerprints = get(addr, "/runtime-audit/fingerprints", &[]).ok();
    assert_eq!(fingerprints["fingerprints"].as_array().unwrap().len(), 2);
}

#[test]
fn the_command_takes_its_token_from_the_environment() {
    let host = Host::open();
    for (variable, args) in [
        ("RUNTIME_TRACKING_AUDIT_TOKEN", &[][..]),
        ("MY_TOKEN", &["--token-env", "MY_TOKEN"][..]),
    ] {
        let mut command = command();
        command.env(variable, TOKEN);
        let (_running, addr) = serve(command, &host.db(), args);
        get(addr, "/runtime-audit/status", &[]).error(401);
        get(addr, "/runtime-audit/status", &[("x-audit-token", TOKEN)]).ok();
    }
    for (args, problem) in [
        (&["--token-env", "PROVENANCE_TEST_UNSET"][..], "PROVENANCE_TEST_UNSET"),
        (&["--bind", "0.0.0.0:0"][..], "token"),
    ] {
        let child = command()
            .args(["serve", "--db"])
            .arg(host.db())
            .args(args)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut running = Running(child);
        let begun = Instant::now();
        let code = loop {
            match running.0.try_wait().unwrap() {
                Some(status) => break status.code(),
                None if begun.elapsed() > PATIENCE => panic!("it serves, with {args:?}"),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        assert_eq!(code, Some(2));
        let mut stderr = String::new();
        running.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert!(stderr.contains(problem), "{stderr}");
    }
}

#[test]
fn the_command_takes_the_key_from_the_environment() {
    let key = "0123456789abcdef".repeat(4);
    let host = Host::start(|config| config.key = Some(Token(key.clone())));
    people(&host);
    let mut with_key = command();
    with_key.env("RUNTIME_TRACKING_KEY", &key);
    let (_running, addr) = serve(with_key, &host.db(), &[]);
    let person = subjects(addr, "ada@example.com", &[]).ok();
    assert_eq!(person["recipients"].as_array().unwrap().len(), 2, "{person}");
    for wrong in ["", "f", &"f".repeat(64)] {
        let mut command = command();
        command.env("RUNTIME_TRACKING_KEY", wrong);
        let (_running, addr) = serve(command, &host.db(), &[]);
        let error = subjects(addr, "ada@example.com", &[]).error(503);
        assert!(error.contains("key") && !error.contains(&"f".repeat(9)), "{error}");
    }
}

#[test]
fn verify_tells_whole_from_broken_from_unknown() {
    let host = Host::open();
    let people = names(20);
    host.record("X_LETTER", "personal.name", people.iter().map(String::as_str));
    host.evidence.tracker.close();
    let verify = |path: &Path| {
        let output = command().args(["verify", "--db"]).arg(path).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), text)
    };
    let (code, text) = verify(&host.db());
    assert_eq!(code, 0, "{text}");
    assert!(text.contains(&host.evidence.tracker.instance_id()), "{text}");
    // The head to be noted elsewhere is the one that `/status` shows.
    let summary = provenance::store::Reader::open(&host.db()).unwrap().summary().unwrap();
    let head = summary.chain["head"]["hash"].as_str().unwrap();
    assert!(text.contains(&format!("hold, head {head}")), "{text}");

    for (name, edit) in [
        ("changed", "UPDATE events SET actor = actor + 1 WHERE seq = 7"),
        ("removed", "DELETE FROM events WHERE seq = 7"),
    ] {
        let copy = host.evidence.folder.path().join(name);
        std::fs::copy(host.db(), &copy).unwrap();
        let mut connection = SqliteConnection::establish(&copy.to_string_lossy()).unwrap();
        diesel::sql_query(edit).execute(&mut connection).unwrap();
        drop(connection);
        let (code, text) = verify(&copy);
        assert_eq!(code, 1, "{name}: {text}");
        assert!(text.contains("BROKEN"), "{text}");
    }
    let (code, text) = verify(&host.evidence.folder.path().join("missing.db"));
    assert_eq!(code, 2, "{text}");
    let other = host.evidence.folder.path().join("text.db");
    std::fs::write(&other, "not evidence").unwrap();
    assert_eq!(verify(&other).0, 2);
}

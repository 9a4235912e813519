//! The audit API over real HTTP: inside a host, and from the file with `provenance-audit`.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use diesel::{Connection, RunQueryDsl, SqliteConnection};
use proptest::prelude::*;
use provenance::config::{Config, InputField, Token, TrackedModel};
use provenance::record_event;
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
        "/runtime-audit",
        "/runtime-audit/",
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
    fn any_request_gets_json_and_a_fitting_status(
        method in prop_oneof![Just("GET".to_owned()), Just("HEAD".to_owned()), any::<String>()],
        path in prop_oneof![
            "/runtime-audit/(status|events|fingerprints)",
            any::<String>(),
        ],
        query in proptest::option::of(hostile_text()),
        headers in proptest::collection::vec(
            (
                prop_oneof!["(?i)(host|authorization|x-audit-token)", any::<String>()],
                prop_oneof![
                    Just(b"localhost".to_vec()),
                    Just(TOKEN.as_bytes().to_vec()),
                    proptest::collection::vec(any::<u8>(), 0..40),
                ],
            ),
            0..4,
        ),
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
        let request = Request { method, path, query, headers };
        let response = if protected { closed } else { open }.handle(&request);
        let body: Json = serde_json::from_slice(&response.body).unwrap();
        let statuses: &[u16] = if protected { &[200, 400, 401, 404, 405, 414] } else { &[200, 400, 403, 404, 405, 414] };
        prop_assert!(statuses.contains(&response.status), "{}: {body}", response.status);
        prop_assert_eq!(response.status != 200, body.get("error").is_some());
    }
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

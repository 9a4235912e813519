//! Who a share goes to: the register, redirects, and what a rule does that is switched while the program runs.

use std::collections::HashMap;

use provenance::config::{Config, OnViolation, Recipient};
use provenance::egress;
use provenance_tests::{Evidence, tag, text};
use serde_json::{Value as Json, json};
use ureq::{Agent, Error};

use super::wire::Wire;
use super::{ALICE, Partner, Subscriber, alice, only};

#[egress(recipient = "crm", allow("personal.name"))]
fn send(url: &str, key: &str) -> Result<u16, Error> {
    Ok(ureq::post(url)
        .header("x-key", key)
        .header("authorization", ALICE)
        .send("hello")?
        .status()
        .as_u16())
}

fn hops(shares: &[Json]) -> Vec<(String, String, String)> {
    shares
        .iter()
        .map(|share| {
            let extras = &share["extras"];
            (
                text(&share["target"]),
                text(&extras["recipient"]),
                text(&extras["outcome"]),
            )
        })
        .collect()
}

fn row(target: &str, recipient: &str, outcome: &str) -> (String, String, String) {
    (target.to_owned(), recipient.to_owned(), outcome.to_owned())
}

#[test]
fn every_hop_is_a_recipient() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    alice();
    let wire = Wire::start();
    let url = wire.url(&format!("/302?/303?{}", wire.elsewhere("/end")));
    assert_eq!(send(&url, ALICE).unwrap(), 200);

    let shares = evidence.of("DATA_SHARE");
    assert_eq!(
        hops(&shares),
        [
            row("POST 127.0.0.1/{id}", "crm", "redirected"),
            row("GET 127.0.0.1/{id}", "crm", "redirected"),
            row("GET localhost/end", "localhost", "status"),
        ]
    );
    assert_eq!(shares[2]["extras"]["hop"], 2);
    assert_eq!(shares[2]["extras"]["status"], 200);
    assert_eq!(shares[2]["extras"]["evidence"], "after");
    // The key went along, the credentials did not.
    let places = |share: &Json| {
        let email = tag(share, "email");
        (text(&email["place"]), email["also"].as_array().map_or(0, Vec::len))
    };
    assert_eq!(places(&shares[2]), ("header:x-key".to_owned(), 0));
    assert_eq!(evidence.of("POLICY_VIOLATION").len(), 3);
    assert_eq!(evidence.blind_spots().len(), 0);
    let raw = wire.normal();
    assert!(!raw[2].1.contains("authorization"), "{}", raw[2].1);
}

#[test]
fn a_redirect_that_fails_is_counted_as_unseen() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    let wire = Wire::start();
    assert!(matches!(send(&wire.url("/307?/end"), "k"), Err(Error::RedirectFailed)));
    assert_eq!(only(evidence.of("DATA_SHARE"))["extras"]["error"], "redirect");
    assert_eq!(evidence.blind_spots(), ["unseen_redirect"]);
}

#[test]
fn endless_redirects_are_bounded() {
    let evidence = Evidence::new(|config| config.ignored_hosts.clear());
    let _scoped = evidence.scoped();
    let wire = Wire::start();
    let agent: Agent = Agent::config_builder()
        .max_redirects(60)
        .middleware(provenance::ureq::middleware())
        .build()
        .into();
    let around = "/302?".repeat(50);
    agent.get(wire.url(&format!("{around}/end"))).call().unwrap();
    assert_eq!(evidence.of("DATA_SHARE").len(), 33);
    assert_eq!(evidence.blind_spots(), ["unseen_redirect"]);
}

#[test]
fn a_proxy_is_no_recipient() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    #[egress]
    fn through(agent: &Agent) -> Result<(), Error> {
        agent.get("http://partner.example/v1/x").call().map(drop)
    }
    let wire = Wire::start();
    let proxy = ureq::Proxy::new(&wire.url("")).unwrap();
    let agent: Agent = Agent::config_builder().proxy(Some(proxy)).build().into();
    through(&agent).ok();
    let share = only(evidence.of("DATA_SHARE"));
    assert_eq!(share["target"], "GET partner.example/v1/x");
    assert_eq!(share["extras"]["recipient"], "partner.example");
    assert!(wire.normal()[0].1.contains("partner.example"));
}

#[test]
fn a_time_out_is_an_error_of_its_own_kind() {
    #[egress(recipient = "crm")]
    fn slow(url: &str) -> Result<(), Error> {
        let config = ureq::get(url)
            .config()
            .timeout_global(Some(std::time::Duration::from_millis(100)));
        let request = config.build();
        request.call().map(drop)
    }
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    let wire = Wire::start();
    assert!(matches!(slow(&wire.url("/slow")), Err(Error::Timeout(_))));
    assert_eq!(only(evidence.of("DATA_SHARE"))["extras"]["error"], "timeout");
}

#[test]
fn the_rule_is_switched_while_the_program_runs() {
    let evidence = Evidence::new(|config| {
        let recipient = Recipient {
            on_violation: Some(OnViolation::Record),
            ..Recipient::default()
        };
        config.recipients.insert("crm".into(), recipient);
    });
    let _scoped = evidence.scoped();
    alice();
    let partner = Partner::start();
    let status = || Json::Object(evidence.tracker.status())["egress"].clone();
    assert_eq!(status()["on_violation"], "record");
    send(&partner.url("/x"), "k").unwrap();

    evidence.tracker.set_on_violation(Some(OnViolation::Block));
    assert_eq!(
        (&status()["on_violation"], &status()["switched"]),
        (&json!("block"), &json!(true))
    );
    let Err(Error::Other(error)) = send(&partner.url("/x"), "k") else {
        panic!("not blocked")
    };
    assert!(error.downcast::<provenance::Blocked>().unwrap().is_policy());
    assert_eq!(partner.seen.lock().unwrap().len(), 1);

    evidence.tracker.set_on_violation(None);
    assert_eq!(status()["switched"], false);
    send(&partner.url("/x"), "k").unwrap();
    assert_eq!(partner.seen.lock().unwrap().len(), 2);
    let outcomes: Vec<_> = evidence
        .of("DATA_SHARE")
        .iter()
        .map(|share| text(&share["extras"]["outcome"]))
        .collect();
    assert_eq!(outcomes, ["status", "blocked", "status"]);
}

#[test]
fn the_register_says_who_an_address_is() {
    let evidence = Evidence::new(|config| {
        let recipient = |hosts: &[&str]| Recipient {
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            role: Some("processor".into()),
            country: Some("US".into()),
            safeguard: Some("SCC".into()),
            legal_name: Some("Office Inc.".into()),
            on_violation: None,
        };
        config.recipients.insert("office".into(), recipient(&["127.0.0.0/8"]));
        config.recipients.insert("elsewhere".into(), recipient(&["10.0.0.0/8"]));
    });
    let _scoped = evidence.scoped();
    #[egress]
    fn unnamed(url: &str) -> Result<(), Error> {
        ureq::get(url).call().map(drop)
    }
    let partner = Partner::start();
    unnamed(&partner.url("/x")).unwrap();
    let extras = only(evidence.of("DATA_SHARE"))["extras"].clone();
    for (key, value) in [
        ("recipient", json!("office")),
        ("recipient_declared", json!(true)),
        ("recipient_role", json!("processor")),
        ("recipient_country", json!("US")),
        ("recipient_safeguard", json!("SCC")),
    ] {
        assert_eq!(extras[key], value, "{key}");
    }
    let status = Json::Object(evidence.tracker.status());
    assert_eq!(status["recipients"]["office"]["legal_name"], "Office Inc.");
    assert_eq!(status["recipients"]["elsewhere"]["hosts"], json!(["10.0.0.0/8"]));
}

#[test]
fn ignored_ranges_are_left_alone_outside_the_attribute() {
    let evidence = Evidence::new(|config| config.ignored_hosts = vec!["127.0.0.0/8".into()]);
    let _scoped = evidence.scoped();
    let wire = Wire::start();
    let agent: Agent = Agent::config_builder()
        .middleware(provenance::ureq::middleware())
        .build()
        .into();
    agent.get(wire.url("/x")).call().unwrap();
    assert_eq!(evidence.of("DATA_SHARE").len(), 0);
    agent.get(wire.elsewhere("/x")).call().unwrap();
    send(&wire.url("/x"), "k").unwrap();
    assert_eq!(evidence.of("DATA_SHARE").len(), 2);
}

#[test]
fn the_file_is_checked_to_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runtime_tracking.yaml");
    let load = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Config::load(Some(&path)).map_err(|error| error.to_string())
    };
    let config = load(
        "egress: {read_ahead: 65536, streams: refuse}\nignored_hosts: [10.0.0.0/8]\n\
         recipients: {office: {hosts: [192.168.0.0/16, \"2001:db8::/32\"], role: joint_controller}}\n",
    )
    .unwrap();
    assert_eq!(config.egress.read_ahead, 65536);
    assert_eq!(config.recipients["office"].hosts[1], "2001:db8::/32");
    let wrong: HashMap<&str, &[&str]> = HashMap::from([
        (
            "\negress: {streams: cut}",
            &[":2:", "egress.streams", "watch or refuse"][..],
        ),
        ("egress: {read_ahead: 0}", &[":1:", "egress.read_ahead", "at least 1"]),
        ("egress: {readahead: 1}", &["did you mean `read_ahead`"]),
        (
            "recipients: {a: {role: procesor}}",
            &["recipients.a.role", "did you mean `processor`"],
        ),
        (
            "recipients:\n  a:\n    hosts:\n      - 10.0.0.0/33",
            &[":4:", "recipients.a.hosts", "10.0.0.0/8"],
        ),
        ("ignored_hosts: [\"https://x\"]", &["ignored_hosts", "host name"]),
    ]);
    for (text, parts) in wrong {
        let error = load(text).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{part} not in {error}");
        }
    }
}

#[test]
fn an_early_return_is_no_blind_spot() {
    fn unseen(_: &str) {}
    #[egress(recipient = "crm")]
    fn checked(url: &str, ok: Result<(), u8>) -> Result<(), u8> {
        ok?;
        ureq::get(url).call().map(drop).map_err(|_| 1)
    }
    #[egress(recipient = "crm")]
    fn helper(url: &str, ok: Result<(), u8>) -> Result<(), u8> {
        ok?;
        unseen(url);
        Ok(())
    }
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    checked("http://127.0.0.1:1/", Err(2)).unwrap_err();
    assert_eq!(evidence.blind_spots().len(), 0);
    helper("x", Ok(())).unwrap();
    assert_eq!(evidence.blind_spots(), ["egress_without_call"]);
}

/// A transport whose method has a client's name.
struct Smtp(Vec<usize>);

impl Smtp {
    fn send(&mut self, database: &std::path::Path) {
        let shares = super::partner::shares(database);
        self.0.push(
            shares
                .iter()
                .filter(|share| text(&share["target"]).ends_with("mail"))
                .count(),
        );
    }
}

#[egress(recipient = "smtp", purpose = "receipts")]
fn mail(smtp: &mut Smtp, database: &std::path::Path, #[payload] subscriber: &Subscriber<'_>) {
    let _ = subscriber.email;
    smtp.send(database);
}

#[test]
fn a_transport_that_is_known_by_now_is_recorded_before() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    let subscriber = Subscriber {
        email: ALICE,
        name: "A",
        plan: 1,
    };
    let mut smtp = Smtp(Vec::new());
    for _ in 0..3 {
        mail(&mut smtp, &evidence.database(), &subscriber);
        evidence.events();
    }
    let shares = evidence.of("DATA_SHARE");
    assert_eq!(shares.len(), 3);
    assert_eq!(shares[0]["extras"]["evidence"], "after");
    assert!(shares[1]["extras"]["evidence"].is_null() && shares[2]["extras"]["evidence"].is_null());
    // What stood in the file when it was called: the first is not there yet, the others are.
    assert_eq!(smtp.0, [0, 2, 3]);
    assert_eq!(evidence.blind_spots().len(), 0);
}

#[test]
fn names_with_control_characters_are_not_kept() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    provenance::share("smtp\r\nX-Injected: 1")
        .payload("a")
        .begin()
        .unwrap()
        .sent();
    provenance::share("smtp")
        .recipient("a\nb")
        .payload("a")
        .begin()
        .unwrap()
        .sent();
    let shares = evidence.of("DATA_SHARE");
    assert_eq!(shares[0]["target"], "{text}");
    assert_eq!(shares[0]["extras"]["recipient"], "{text}");
    assert_eq!(shares[1]["extras"]["recipient"], "{text}");
}

#[test]
fn giant_headers_are_scanned() {
    #[egress(recipient = "crm")]
    fn giant(agent: &Agent, url: &str) -> Result<(), Error> {
        let filler = "x ".repeat(20_000);
        agent
            .get(url)
            .header("x-big", format!("{filler}{ALICE}"))
            .call()
            .map(drop)
    }
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    alice();
    let wire = Wire::start();
    giant(&ureq::agent(), &wire.url("/x")).unwrap();
    let email = tag(&only(evidence.of("DATA_SHARE")), "email").clone();
    assert!(text(&email["place"]).starts_with("header:x-big@40000"), "{email}");
}

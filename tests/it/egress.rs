//! What leaves through `#[egress]`, the middleware and custom sinks: on a real server, with real evidence.

use std::sync::Arc;
use std::time::Instant;

use provenance::config::{Durability, OnViolation};
use provenance::{Scope, Tracked, egress, set_owner, tag as register};
use provenance_tests::{Evidence, tag, text};
use serde::Serialize;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

mod later;
mod left_out;
mod partner;
mod recipients;
mod streams;
mod untouched;
mod wire;

use partner::Partner;

const ALICE: &str = "alice.liddell@wonder.example";
const BOB: &str = "bob.dodgson@wonder.example";

/// Makes a person's values known, as a sign-up does.
fn person(email: &str, more: &[(&str, &str, &str)]) {
    let scope = Scope::new("HTTP POST /signup");
    let _entered = scope.enter();
    set_owner("email", email);
    register("contact.email", "email", email).unwrap();
    for (category, field, value) in more {
        register(category, field, *value).unwrap();
    }
}

fn alice() {
    person(
        ALICE,
        &[
            ("financial.income", "income", "4200.00"),
            ("personal.name", "name", "Alice Pleasance"),
        ],
    );
}

/// A request of this person.
fn request_of(email: &str) -> Scope {
    let scope = Scope::new("HTTP POST /share");
    let entered = scope.enter();
    set_owner("email", email);
    drop(entered);
    scope
}

#[derive(Serialize, Tracked)]
#[tracked(owner(email))]
struct Subscriber<'a> {
    #[tracked("contact.email")]
    email: &'a str,
    #[tracked("personal.name")]
    name: &'a str,
    plan: u8,
}

#[egress(recipient = "mailchimp", purpose = "newsletter", basis = "consent")]
fn post_json(url: &str, body: impl Serialize) -> Result<u16, ureq::Error> {
    Ok(ureq::post(url).send_json(body)?.status().as_u16())
}

#[egress(recipient = "mailchimp")]
fn post_text(url: &str, body: &str) -> Result<(), ureq::Error> {
    ureq::post(url).send(body)?;
    Ok(())
}

fn only(events: Vec<Json>) -> Json {
    let [event] = <[Json; 1]>::try_from(events).expect("one event");
    event
}

fn findings(event: &Json) -> Vec<(String, String, String)> {
    let tags = event["matched_tags"].as_array().unwrap();
    tags.iter()
        .map(|tag| (text(&tag["field"]), text(&tag["place"]), text(&tag["form"])))
        .collect()
}

#[test]
fn a_share_says_what_left_to_whom_and_how_it_ended() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    alice();
    let partner = Partner::start();
    let request = request_of(ALICE);
    let entered = request.enter();
    assert_eq!(
        post_json(
            &partner.url("/3.0/lists/1234/members?key=s3cret"),
            json!({"email": ALICE, "plan": 2})
        )
        .unwrap(),
        200
    );
    drop(entered);

    let share = only(evidence.of("DATA_SHARE"));
    assert_eq!(text(&share["actor"]), "HTTP POST /share");
    assert_eq!(text(&share["target"]), "POST 127.0.0.1/3.0/lists/{id}/members");
    assert_eq!(text(&share["request_id"]), &**request.request_id());
    let extras = &share["extras"];
    assert_eq!(extras["recipient"], "mailchimp");
    assert_eq!(extras["recipient_declared"], false);
    assert_eq!(extras["purpose"], "newsletter");
    assert_eq!(extras["basis"], "consent");
    assert_eq!(extras["status"], 200, "{extras}");
    assert!(text(&extras["site"]["path"]).ends_with("egress::post_json"));
    assert_eq!(share["payload"]["media"], "json");
    assert_eq!(share["payload"]["fields"], json!(["email", "plan"]));
    let email = tag(&share, "email");
    assert_eq!(email["category"], "contact.email");
    assert_eq!(email["place"], "body:/email");
    assert_eq!(email["form"], "exact");
    assert_eq!(email["confidence"], "high");
    assert_eq!(email["source"], "HTTP POST /signup");
    assert_eq!(extras["owner"], email["owner"]);
    for raw in [ALICE, "s3cret", "liddell"] {
        assert!(!evidence.holds(raw), "{raw} in the evidence");
    }
}

#[test]
fn values_are_found_wherever_they_stand() {
    #[egress(recipient = "crm")]
    fn everywhere(url: &str) -> Result<(), ureq::Error> {
        ureq::get(url)
            .header("x-user", ALICE)
            .query("income", "4200")
            .query_pairs([("who", "Alice Pleasance")])
            .call()?;
        ureq::post(url).send_form([("contact", ALICE)])?;
        ureq::post(url).send(format!("to: {ALICE}").as_bytes())?;
        let hashed: String = Sha256::digest(ALICE).iter().map(|b| format!("{b:02x}")).collect();
        ureq::put(url).send(&format!(r#"{{"em": "{hashed}"}}"#))?;
        ureq::http::Request::post(url)
            .body(Vec::from(ALICE))
            .map(|request| ureq::agent().run(request))??;
        Ok(())
    }
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    alice();
    let partner = Partner::start();
    let request = request_of(ALICE);
    let _entered = request.enter();
    everywhere(&partner.url("/in")).unwrap();

    let shares = evidence.of("DATA_SHARE");
    assert_eq!(shares.len(), 5);
    let got: Vec<Vec<String>> = shares
        .iter()
        .map(|share| {
            let mut found: Vec<String> = findings(share)
                .into_iter()
                .map(|(field, place, form)| format!("{field} {place} {form}"))
                .collect();
            found.sort();
            found
        })
        .collect();
    assert_eq!(got[0].len(), 3, "{got:?}");
    assert!(
        got[0].iter().any(|found| found.starts_with("email header:x-user")),
        "{got:?}"
    );
    assert!(
        got[0].iter().any(|found| found.starts_with("income url:query.income")),
        "{got:?}"
    );
    assert!(
        got[0].iter().any(|found| found.starts_with("name url:query.who")),
        "{got:?}"
    );
    assert!(got[1][0].starts_with("email body:contact"), "{got:?}");
    assert!(
        got[2][0].starts_with("email body") && got[2][0].ends_with("embedded"),
        "{got:?}"
    );
    assert!(
        got[3][0].starts_with("email body:/em") && got[3][0].ends_with("hashed"),
        "{got:?}"
    );
    assert!(got[4][0].starts_with("email body"), "{got:?}");
    assert_eq!(tag(&shares[0], "income")["category"], "financial.income");
}

#[test]
fn a_number_inside_prose_is_its_owners() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    alice();
    person(BOB, &[("financial.income", "income", "4200")]);
    let partner = Partner::start();
    let request = request_of(ALICE);
    let _entered = request.enter();
    post_json(
        &partner.url("/ai"),
        json!({"prompt": "She earns 4200.00 a month and wants to save."}),
    )
    .unwrap();
    let share = only(evidence.of("DATA_SHARE"));
    let income = tag(&share, "income");
    assert_eq!(
        share["matched_tags"].as_array().unwrap().len(),
        1,
        "two people mixed: {share}"
    );
    assert_eq!(income["owner"], share["extras"]["owner"]);
    assert_eq!(income["shared_by"], 2);
}

#[test]
fn a_value_of_very_many_people_is_met_at_every_line() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    let address = |person: usize| format!("person{person}@wonder.example");
    for number in 0..1000 {
        person(&address(number), &[("financial.currency", "currency", "EUR")]);
    }
    let partner = Partner::start();
    let request = request_of(&address(7));
    let _entered = request.enter();
    let lines: Vec<Json> = (0..500).map(|_| json!({"currency": "EUR"})).collect();
    let sent = Instant::now();
    post_json(&partner.url("/x"), json!({ "lines": lines })).unwrap();
    println!("sent in {:?}", sent.elapsed());
    let share = only(evidence.of("DATA_SHARE"));
    assert_eq!(findings(&share).len(), 1, "of the request's person alone: {share}");
    assert_eq!(tag(&share, "currency")["shared_by"], 1000);
}

#[test]
fn two_peoples_shares_are_never_mixed() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    let values = [
        ("contact.address.city", "city", "Guildford"),
        ("financial.income", "income", "5100"),
    ];
    person(ALICE, &values);
    person(BOB, &values);
    let partner = Partner::start();
    for email in [ALICE, BOB] {
        // No scope: the address in the message says whose it is.
        post_json(
            &partner.url("/x"),
            json!({"email": email, "city": "Guildford", "income": 5100}),
        )
        .unwrap();
    }
    // Nobody is named: a value that two people share is nobody's finding.
    post_json(&partner.url("/x"), json!({"income": 5100})).unwrap();

    let shares = evidence.of("DATA_SHARE");
    let owners: Vec<Vec<String>> = shares
        .iter()
        .map(|share| {
            let tags = share["matched_tags"].as_array().unwrap();
            let mut owners: Vec<String> = tags.iter().map(|tag| text(&tag["owner"])).collect();
            owners.dedup();
            owners
        })
        .collect();
    assert_eq!(owners[0].len(), 1, "{owners:?}");
    assert_eq!(owners[1].len(), 1, "{owners:?}");
    assert_ne!(owners[0], owners[1]);
    assert_eq!(owners[2].len(), 0, "{owners:?}");
}

#[test]
fn the_record_is_on_disk_when_the_request_arrives() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    alice();
    let database = evidence.database();
    let partner = Partner::answering(move |_| {
        let shares = partner::shares(&database);
        format!(
            "200 {}",
            shares
                .first()
                .map_or("nothing".to_owned(), |share| share["extras"]["outcome"].to_string())
        )
    });
    let seen = partner.seen.clone();
    post_json(&partner.url("/x"), json!({"email": ALICE})).unwrap();
    let answer = seen.lock().unwrap().last().unwrap().answer.clone();
    assert!(answer.contains("pending"), "the partner saw: {answer}");
    assert_eq!(only(evidence.of("DATA_SHARE"))["extras"]["status"], 200);
}

#[test]
fn batched_records_do_not_wait() {
    let evidence = Evidence::new(|config| config.egress.durability = Durability::Batched);
    let _scoped = evidence.scoped();
    let partner = Partner::start();
    post_text(&partner.url("/x"), "nothing personal").unwrap();
    let share = only(evidence.of("DATA_SHARE"));
    assert_eq!(share["matched_tags"], json!([]));
    assert_eq!(share["extras"]["status"], 200);
}

#[test]
fn outcomes_are_told_apart() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    let partner = Partner::answering(|request| if request.contains("/down") { "503 x" } else { "204 x" }.to_owned());
    assert!(matches!(
        post_text(&partner.url("/down"), "a"),
        Err(ureq::Error::StatusCode(503))
    ));
    post_text(&partner.url("/up"), "a").unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    assert!(post_text(&format!("http://{free}/"), "a").is_err());
    assert!(post_text("http://nowhere.invalid/", "a").is_err());
    drop(provenance::share("queue:letters").payload("a").begin().unwrap());
    provenance::share("queue:letters").payload("a").begin().unwrap().sent();
    provenance::share("queue:letters")
        .payload("a")
        .begin()
        .unwrap()
        .error("full");
    let outcomes: Vec<Json> = evidence
        .of("DATA_SHARE")
        .iter()
        .map(|share| share["extras"].clone())
        .collect();
    assert_eq!(outcomes[0]["status"], 503, "{outcomes:?}");
    assert_eq!(outcomes[1]["status"], 204);
    assert_eq!(outcomes[2]["error"], "connect");
    assert!(
        outcomes[3]["error"] == "dns" || outcomes[3]["error"] == "io",
        "{outcomes:?}"
    );
    let words: Vec<String> = outcomes.iter().map(|extras| text(&extras["outcome"])).collect();
    assert_eq!(
        words,
        ["status", "status", "error", "error", "unknown", "sent", "error"]
    );
    assert_eq!(outcomes[6]["error"], "full");
}

#[test]
fn a_middleware_and_the_attribute_make_one_event() {
    #[egress(recipient = "crm")]
    fn through(agent: &ureq::Agent, url: &str) -> Result<(), ureq::Error> {
        agent.post(url).send_json(json!({"email": ALICE}))?;
        agent.run(ureq::http::Request::get(url).body(())?)?;
        Ok(())
    }
    let evidence = Evidence::new(|config| config.ignored_hosts.clear());
    let _scoped = evidence.scoped();
    alice();
    let partner = Partner::start();
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .middleware(provenance::ureq::middleware())
        .build()
        .into();
    through(&agent, &partner.url("/x")).unwrap();
    assert_eq!(evidence.of("DATA_SHARE").len(), 2);

    // Outside the attribute, the middleware alone.
    agent.post(partner.url("/y?q=1")).send(vec![b'x'; 40_000]).unwrap();
    agent
        .post(partner.url("/y"))
        .send_json(json!({"email": ALICE}))
        .unwrap();
    agent.post(partner.url("/y")).send_empty().unwrap();
    agent.get(partner.url("/y")).call().unwrap();
    let shares = evidence.of("DATA_SHARE");
    assert_eq!(shares.len(), 6);
    assert_eq!(shares[3]["extras"]["recipient"], "127.0.0.1");
    assert_eq!(text(&shares[3]["target"]), "POST 127.0.0.1/y");
    assert_eq!(tag(&shares[3], "email")["place"], "body:/email");
    assert_eq!(shares[3]["extras"]["status"], 200);
    let seen = partner.seen.lock().unwrap();
    assert!(
        seen[2].head.to_ascii_lowercase().contains("content-length: 40000"),
        "{}",
        seen[2].head
    );
    assert_eq!(seen[2].body.len(), 40_000);
    assert!(
        seen[4].head.to_ascii_lowercase().contains("content-length: 0"),
        "{}",
        seen[4].head
    );
    assert!(
        !seen[5].head.to_ascii_lowercase().contains("content-length"),
        "{}",
        seen[5].head
    );
}

#[test]
fn ignored_hosts_are_left_alone_outside_the_attribute() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    let partner = Partner::start();
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .middleware(provenance::ureq::middleware())
        .build()
        .into();
    agent.get(partner.url("/x")).call().unwrap();
    assert_eq!(evidence.of("DATA_SHARE").len(), 0);
    post_text(&partner.url("/x"), "a").unwrap();
    assert_eq!(evidence.of("DATA_SHARE").len(), 1);
}

#[egress(recipient = "scoring", allow("financial.income"))]
fn only_income(url: &str, body: &Json) -> Result<(), ureq::Error> {
    ureq::post(url).send_json(body)?;
    Ok(())
}

#[test]
fn what_is_not_allowed_is_a_violation() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    alice();
    let partner = Partner::start();
    let request = request_of(ALICE);
    let _entered = request.enter();
    only_income(&partner.url("/x"), &json!({"income": 4200})).unwrap();
    assert_eq!(evidence.of("POLICY_VIOLATION").len(), 0);
    only_income(&partner.url("/x"), &json!({"income": 4200, "email": ALICE})).unwrap();
    let events = evidence.events();
    let position = |event_type: &str| {
        events
            .iter()
            .rposition(|event| event["event_type"] == event_type)
            .unwrap()
    };
    assert!(position("POLICY_VIOLATION") < position("DATA_SHARE"));
    let violation = only(evidence.of("POLICY_VIOLATION"));
    assert_eq!(violation["payload"]["categories"], json!(["contact.email"]));
    assert_eq!(violation["extras"]["recipient"], "scoring");
    assert_eq!(violation["extras"]["action"], "recorded");
    assert_eq!(partner.seen.lock().unwrap().len(), 2);
}

#[test]
fn a_blocked_share_does_not_leave() {
    #[egress(recipient = "scoring", allow())]
    fn held(url: &str) -> Result<(), ureq::Error> {
        let request = ureq::post(url);
        request.send_json(json!({"email": ALICE}))?;
        Ok(())
    }
    let evidence = Evidence::new(|config| config.egress.on_violation = OnViolation::Block);
    let _scoped = evidence.scoped();
    alice();
    let partner = Partner::start();
    for result in [
        only_income(&partner.url("/x"), &json!({"email": ALICE})),
        held(&partner.url("/x")),
    ] {
        let Err(ureq::Error::Other(error)) = result else {
            panic!("not blocked")
        };
        let blocked = error.downcast::<provenance::Blocked>().unwrap();
        assert!(blocked.is_policy() && !blocked.is_evidence());
        assert_eq!(blocked.recipient(), "scoring");
    }
    assert_eq!(partner.seen.lock().unwrap().len(), 0);
    for share in evidence.of("DATA_SHARE") {
        assert!(share["extras"]["outcome"] == "blocked", "{share}");
    }
    assert_eq!(evidence.of("POLICY_VIOLATION").len(), 2);
}

#[test]
fn payload_arguments_are_part_of_the_event() {
    // As a trait object: of a type with a name, the compiler would refuse the field.
    #[egress(recipient = "mailchimp", allow("contact.email"))]
    fn subscribe(url: &str, #[payload] _subscriber: &dyn Tracked, body: &Json) -> Result<(), ureq::Error> {
        ureq::post(url).send_json(body)?;
        Ok(())
    }
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    alice();
    let partner = Partner::start();
    let subscriber = Subscriber {
        email: ALICE,
        name: "Alice Pleasance",
        plan: 1,
    };
    assert_eq!(subscriber.plan, 1);
    let body = json!({"email": subscriber.email, "first": subscriber.name.len()});
    subscribe(&partner.url("/x"), &subscriber, &body).unwrap();
    let share = only(evidence.of("DATA_SHARE"));
    assert_eq!(share["matched_tags"].as_array().unwrap().len(), 2, "{share}");
    assert_eq!(tag(&share, "email")["form"], "exact");
    assert_eq!(tag(&share, "name")["form"], "declared");
    assert_eq!(tag(&share, "name")["owner"], tag(&share, "email")["owner"]);
    assert_eq!(
        only(evidence.of("POLICY_VIOLATION"))["payload"]["categories"],
        json!(["personal.name"])
    );
}

struct Smtp;

impl Smtp {
    fn deliver(&self, to: &str) -> Result<(), std::num::ParseIntError> {
        if to.is_empty() {
            "x".parse::<u8>().map(drop)
        } else {
            Ok(())
        }
    }

    fn send(&mut self, _: &str) {}

    /// No call here could be a client's: the function as a whole is the share.
    #[egress(recipient = "smtp", purpose = "receipts", name = "Smtp::receipt")]
    fn receipt(&self, #[payload] subscriber: &Subscriber<'_>) -> Result<(), std::num::ParseIntError> {
        self.deliver(subscriber.email)
    }

    #[egress(recipient = "smtp")]
    async fn receipt_later(&self, #[payload] Subscriber { email, .. }: Subscriber<'_>) -> bool {
        tokio::task::yield_now().await;
        self.deliver(email).is_ok()
    }

    /// What looks like a client's call is none.
    #[egress(recipient = "smtp")]
    fn spool(&mut self, #[payload] subscriber: &Subscriber<'_>) {
        self.send(subscriber.email);
    }
}

#[test]
fn other_transports_share_their_payload() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    let subscriber = |email| Subscriber {
        email,
        name: "A",
        plan: 1,
    };
    Smtp.receipt(&subscriber(ALICE)).unwrap();
    Smtp.receipt(&subscriber("")).unwrap_err();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(runtime.block_on(Smtp.receipt_later(subscriber(ALICE))));
    Smtp.spool(&subscriber(ALICE));

    let shares = evidence.of("DATA_SHARE");
    assert_eq!(shares.len(), 4);
    assert!(
        text(&shares[0]["target"]).ends_with("egress::Smtp::receipt"),
        "{}",
        shares[0]["target"]
    );
    assert!(text(&shares[0]["target"]).starts_with("fn "));
    assert_eq!(tag(&shares[0], "email")["form"], "declared");
    assert_eq!(shares[0]["extras"]["outcome"], "sent");
    assert_eq!(shares[1]["extras"]["error"], "returned_error");
    assert_eq!(shares[2]["extras"]["outcome"], "sent");
    assert_eq!(shares[3]["extras"]["evidence"], "after");
    assert!(!evidence.holds(ALICE));
}

#[test]
fn a_function_that_sends_nothing_is_a_blind_spot() {
    #[egress(recipient = "nobody")]
    fn quiet() -> u8 {
        7
    }
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    assert_eq!(quiet(), 7);
    assert_eq!(evidence.blind_spots(), ["egress_without_call"]);
    assert_eq!(evidence.of("DATA_SHARE").len(), 0);
}

#[test]
fn a_custom_sink_is_scanned_and_can_be_blocked() {
    let evidence = Evidence::new(|config| {
        let recipient = provenance::config::Recipient {
            hosts: vec!["smtp.example.com".into()],
            ..Default::default()
        };
        config.recipients.insert("mail".into(), recipient);
    });
    let _scoped = evidence.scoped();
    alice();
    let share = provenance::share("smtp.example.com")
        .purpose("receipts")
        .payload(&format!("Dear {ALICE}"))
        .begin()
        .unwrap();
    share.status(250);
    let share = only(evidence.of("DATA_SHARE"));
    assert_eq!(share["target"], "smtp.example.com");
    assert_eq!(share["extras"]["recipient"], "mail");
    assert_eq!(share["extras"]["recipient_declared"], true);
    assert_eq!(share["extras"]["purpose"], "receipts");
    assert_eq!(share["extras"]["status"], 250);
    assert_eq!(tag(&share, "email")["form"], "embedded");
    assert!(!evidence.holds(ALICE));

    evidence.tracker.close();
    provenance::share("smtp.example.com")
        .payload("x")
        .begin()
        .unwrap()
        .sent();
}

#[test]
fn paths_and_keys_keep_no_values() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    alice();
    let partner = Partner::start();
    let url =
        partner.url("/v2/users/alice.liddell%40wonder.example/orders/2024-11/Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9v/a,b");
    post_json(&url, json!({ALICE: 1, "ok": {"phone 0171": 2}})).unwrap();
    let share = only(evidence.of("DATA_SHARE"));
    assert!(
        text(&share["target"]).starts_with("POST 127.0.0.1/v2/users/{"),
        "{}",
        share["target"]
    );
    assert!(
        text(&share["target"]).ends_with("}/orders/{id}/{id}/{text}"),
        "{}",
        share["target"]
    );
    assert_eq!(share["payload"]["fields"], json!(["ok", "{key}"]));
    assert!(!evidence.holds("liddell"));
}

#[test]
fn threads_and_tasks_keep_the_request() {
    #[egress(recipient = "crm")]
    fn in_threads(url: Arc<str>) {
        let first = url.clone();
        let owned = std::thread::spawn(move || ureq::get(&*first).call().map(drop));
        std::thread::scope(|scope| {
            scope.spawn(|| ureq::get(&*url).call().map(drop));
        });
        owned.join().unwrap().unwrap();
    }
    #[egress(recipient = "crm")]
    async fn in_tasks(url: String) -> Result<(), ureq::Error> {
        let request = ureq::post(&url);
        tokio::task::yield_now().await;
        request.send("direct")?;
        tokio::task::spawn_blocking(move || ureq::get(&url).call().map(drop))
            .await
            .unwrap()
    }
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    let partner = Partner::start();
    let request = request_of(ALICE);
    let _entered = request.enter();
    in_threads(partner.url("/t").into());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(in_tasks(partner.url("/t"))).unwrap();
    // The scoped thread borrows, and has no tracker of this test's: it is the one that is missing.
    let shares = evidence.of("DATA_SHARE");
    assert_eq!(shares.len(), 3);
    for share in shares {
        assert_eq!(text(&share["request_id"]), &**request.request_id());
    }
}

//! With `durability: batched` a message is looked at when it may have left: what is recorded is the same.

use provenance::config::{Durability, OnViolation};
use provenance::{Scope, set_owner, tag as register};
use provenance_tests::{Evidence, fields};
use serde_json::{Value as Json, json};

use super::partner::Partner;
use super::{ALICE, BOB, Subscriber, alice, only_income, person, post_json, post_text, request_of};

/// What a batch of messages of many kinds leaves, but for what differs from run to run.
fn recorded(durability: Durability) -> Vec<Json> {
    let evidence = Evidence::new(|config| {
        config.egress.durability = durability;
        config.ignored_hosts.clear();
        config.owners_clear = true;
    });
    let _scoped = evidence.scoped();
    alice();
    person(BOB, &[("personal.name", "name", "Bob Dodgson")]);
    let partner = Partner::answering(|request| if request.contains("/down") { "503 x" } else { "200 ok" }.to_owned());
    let url = partner.url("/v1/users/4711?to=alice.liddell%40wonder.example");
    post_json(&url, json!({"email": ALICE, "income": 4200})).unwrap();
    {
        let request = request_of(ALICE);
        let _entered = request.enter();
        request.set_purpose("billing");
        post_json(&url, json!({"income": "4200.00", "note": ["Bob Dodgson"]})).unwrap();
        only_income(&url, &json!({"email": ALICE})).unwrap();
    }
    post_text(&partner.url("/down"), BOB).unwrap_err();
    post_text("http://nowhere.invalid/", ALICE).unwrap_err();
    post_text(&partner.url("/long"), &"word ".repeat(20_000)).unwrap();
    post_json(
        &url,
        Subscriber {
            email: BOB,
            name: "Bob",
            plan: 1,
        },
    )
    .unwrap();
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .middleware(provenance::ureq::middleware())
        .build()
        .into();
    agent.get(&url).header("x-user", BOB).call().unwrap();
    agent.post(&url).send_form([("mail", ALICE)]).unwrap();
    provenance::share("smtp.example.com")
        .recipient("mail")
        .purpose("letters")
        .payload(ALICE)
        .begin()
        .unwrap()
        .sent();
    drop(provenance::share("queue:letters").begin().unwrap());
    let port = partner.url("").rsplit(':').next().unwrap().to_owned();
    let mut events = evidence.events();
    for event in &mut events {
        let text = event.to_string().replace(&port, "PORT");
        *event = serde_json::from_str(&text).unwrap();
        let event = event.as_object_mut().unwrap();
        for varies in ["event_id", "created_at", "request_id"] {
            event.remove(varies);
        }
        for tag in event["matched_tags"].as_array_mut().unwrap() {
            tag["fingerprint"].take();
            tag["created_at"].take();
        }
        let extras = event["extras"].as_object_mut().unwrap();
        for varies in ["instance", "outcome_at"] {
            extras.remove(varies);
        }
    }
    events
}

#[test]
fn what_is_recorded_later_is_what_is_recorded_before() {
    let (before, later) = (recorded(Durability::BeforeSend), recorded(Durability::Batched));
    for (before, later) in before.iter().zip(&later) {
        assert_eq!(before, later);
    }
    assert_eq!(before.len(), later.len());
}

#[test]
fn it_is_as_it_was_when_it_was_sent() {
    let evidence = Evidence::new(|config| {
        config.egress.durability = Durability::Batched;
        config.owners_clear = true;
    });
    let _scoped = evidence.scoped();
    person(ALICE, &[]);
    let partner = Partner::start();
    let scope = Scope::new("HTTP POST /share");
    let _entered = scope.enter();
    let body = json!({"a": ALICE, "b": BOB});
    set_owner("email", ALICE);
    post_json(&partner.url("/first"), &body).unwrap();
    set_owner("email", BOB);
    scope.set_purpose("second");
    register("contact.email", "email", BOB).unwrap();
    post_json(&partner.url("/second"), &body).unwrap();
    let shares = evidence.of("DATA_SHARE");
    let [first, second] = shares.as_slice() else {
        panic!("{shares:?}")
    };
    assert_eq!(
        (first["user_id"].as_str(), fields(first).len()),
        (Some("email:alice.liddell@wonder.example"), 1)
    );
    assert_eq!(
        (second["user_id"].as_str(), fields(second).len()),
        (Some("email:bob.dodgson@wonder.example"), 2)
    );
}

#[test]
fn what_may_be_blocked_is_looked_at_first() {
    let evidence = Evidence::new(|config| config.egress.durability = Durability::Batched);
    let _scoped = evidence.scoped();
    alice();
    let partner = Partner::start();
    let tracker = &evidence.tracker;
    only_income(&partner.url("/x"), &json!({"email": ALICE})).unwrap();
    tracker.set_on_violation(Some(OnViolation::Block));
    only_income(&partner.url("/x"), &json!({"email": ALICE})).unwrap_err();
    only_income(&partner.url("/x"), &json!({"income": 4200})).unwrap();
    tracker.set_on_violation(None);
    only_income(&partner.url("/x"), &json!({"email": ALICE})).unwrap();
    assert_eq!(partner.seen.lock().unwrap().len(), 3);
    let actions: Vec<Json> = evidence
        .of("POLICY_VIOLATION")
        .iter()
        .map(|violation| violation["extras"]["action"].clone())
        .collect();
    assert_eq!(actions, ["recorded", "blocked", "recorded"]);
}

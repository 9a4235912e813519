//! Hostile input, and slips of the host's: whose a value is, what is kept, and that the host goes on.

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use provenance::config::{Config, OnEvidenceFailure};
use provenance::{EventType, Scope, Tracked, Visitor, egress, provenance_input, record_event, set_owner, tag};
use provenance_tests::postgres::Database;
use provenance_tests::{Evidence, fields, text};
use serde_json::{Value as Json, json};

mod leaks;

/// Nobody listens there.
const URL: &str = "http://127.0.0.1:9";

/// Alice, known by her address, lives in a town that many know.
fn alice() {
    let _scope = Scope::new("job people").enter();
    set_owner("email", "alice@example.com");
    tag("contact.email", "email", "alice@example.com").unwrap();
    tag("contact.address.city", "city", "Bath").unwrap();
}

/// Whether the town in a text of user `id`'s is taken for Alice's: a weak value is, where the request
/// is that of its owner.
fn is_alice(evidence: &Evidence, id: i32) -> bool {
    let _scope = Scope::new("job letters").enter();
    set_owner("user", id);
    let letter = provenance::share("letters").payload("from Bath with love").begin();
    letter.unwrap().sent();
    let shares = evidence.of("DATA_SHARE");
    !fields(shares.last().unwrap()).is_empty()
}

#[derive(Tracked)]
#[tracked(owner(email, id as "user"))]
struct Claim {
    #[tracked("contact.email")]
    email: String,
    id: i32,
}

#[provenance_input]
fn sign_up(claim: Claim) -> bool {
    claim.id == 7 && !claim.email.is_empty()
}

#[test]
fn input_never_makes_one_person_of_two_identifiers() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    alice();
    assert!(sign_up(Claim {
        email: "alice@example.com".into(),
        id: 7,
    }));
    assert!(!is_alice(&evidence, 7), "user 7 has only written Alice's address");
    provenance::link_owner(("user", 8), ("email", "alice@example.com"));
    assert!(is_alice(&evidence, 8), "the host may say so");
}

diesel::table! {
    users (id) {
        id -> Integer,
        email -> Text,
    }
}

#[provenance::tracked_model(owner(email, id as "user"))]
#[derive(Insertable, AsChangeset)]
#[diesel(table_name = users)]
struct User {
    id: i32,
    #[tracked("contact.email")]
    email: String,
}

fn user(id: i32, email: &str) -> User {
    User {
        id,
        email: email.into(),
    }
}

fn connect() -> SqliteConnection {
    let mut db = SqliteConnection::establish(":memory:").unwrap();
    db.batch_execute("CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE)")
        .unwrap();
    db
}

#[test]
fn a_write_that_may_not_have_happened_links_nobody() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    alice();
    // PostgreSQL does not tell whether these wrote anything.
    let database = Database::new("CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE)");
    let mut db = database.connect();
    db.batch_execute("INSERT INTO users SELECT 1, 'alice@example.com'")
        .unwrap();
    diesel::insert_into(users::table)
        .values(&user(7, "alice@example.com"))
        .on_conflict_do_nothing()
        .execute(&mut db)
        .unwrap();
    diesel::update(users::table.filter(users::id.eq(99)))
        .set(&user(8, "alice@example.com"))
        .execute(&mut db)
        .unwrap();
    assert_eq!(evidence.of("DATA_STORAGE").len(), 2);
    assert!(!is_alice(&evidence, 7) && !is_alice(&evidence, 8));
    db.batch_execute("DELETE FROM users").unwrap();
    diesel::insert_into(users::table)
        .values(&user(9, "alice@example.com"))
        .execute(&mut db)
        .unwrap();
    assert!(is_alice(&evidence, 9));
}

#[test]
fn an_address_that_passes_to_another_person_does_not_make_them_one() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    alice();
    let mut db = connect();
    for id in [1, 2] {
        db.batch_execute("DELETE FROM users").unwrap();
        diesel::insert_into(users::table)
            .values(&user(id, "alice@example.com"))
            .execute(&mut db)
            .unwrap();
    }
    assert!(is_alice(&evidence, 1) && !is_alice(&evidence, 2));
    assert_eq!(evidence.blind_spots(), ["owner_conflict"]);
    let owners: Vec<String> = evidence
        .of("DATA_STORAGE")
        .iter()
        .filter(|event| event["extras"]["action"] == "insert")
        .map(|event| text(&event["matched_tags"][0]["owner"]))
        .collect();
    assert!(
        owners[0].starts_with("email:") && owners[1].starts_with("user:"),
        "{owners:?}"
    );
}

#[test]
fn a_derivation_does_not_take_another_persons_value_for_an_input() {
    #[provenance::derived("score.credit")]
    fn score(income: i64) -> i64 {
        income / 100
    }
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let of = |email: &str| {
        let scope = Scope::new("job scores").enter();
        set_owner("email", email);
        scope
    };
    {
        let _scope = of("alice@example.com");
        tag("financial.income", "income", 5000).unwrap();
    }
    let _scope = of("bob@example.com");
    assert_eq!(score(5000), 50);
    let derivations = evidence.of("DATA_DERIVATION");
    assert_eq!(derivations[0]["payload"]["inputs"], 0, "{}", derivations[0]);
}

struct Explosive;

impl Tracked for Explosive {
    fn visit(&self, _: &mut Visitor<'_>) {
        panic!("on purpose");
    }
}

#[test]
fn the_hosts_code_may_panic_inside_a_hook() {
    #[provenance_input]
    fn take(_explosive: Explosive) -> u8 {
        7
    }
    #[egress(recipient = "nobody")]
    fn send(#[payload] explosive: &Explosive) -> u8 {
        let _ = explosive;
        7
    }
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    assert_eq!(take(Explosive), 7);
    assert_eq!(send(&Explosive), 7);
    set_owner("user", Explosive);
    provenance::link_owner(("user", Explosive), ("user", 1));
    assert!(evidence.blind_spots().contains(&"hook_panicked".to_owned()));
}

#[test]
fn a_function_that_outlives_the_guard_sends_as_without_us() {
    #[egress(recipient = "nobody")]
    fn send(evidence: &Evidence) -> Result<(), ureq::Error> {
        let request = ureq::get(URL);
        evidence.tracker.close();
        request.call()?;
        Ok(())
    }
    let evidence = Evidence::new(|config: &mut Config| {
        config.egress.on_evidence_failure = OnEvidenceFailure::Refuse;
    });
    let _tracker = evidence.scoped();
    let error = send(&evidence).unwrap_err();
    assert!(!error.to_string().contains("nothing was sent"), "{error}");
    assert_eq!(evidence.blind_spots(), [""; 0]);
}

#[test]
fn sends_of_one_call_do_not_wait_for_each_others_record() {
    #[egress(recipient = "nobody")]
    fn send() {
        let senders: Vec<_> = (0..4)
            .map(|_| std::thread::spawn(move || ureq::get(URL).call().is_err()))
            .collect();
        senders.into_iter().for_each(|sender| assert!(sender.join().unwrap()));
    }
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    // Another process writes: no record can reach the disk.
    let mut other = SqliteConnection::establish(evidence.database().to_str().unwrap()).unwrap();
    other.batch_execute("BEGIN IMMEDIATE").unwrap();
    let begun = Instant::now();
    send();
    let took = begun.elapsed();
    other.batch_execute("ROLLBACK").unwrap();
    // Each waits its second, all at once.
    assert!(took > Duration::from_millis(900), "{took:?}");
    assert!(took < Duration::from_millis(2500), "{took:?}");
}

fn shares(evidence: &Evidence) -> Json {
    Json::Array(evidence.of("DATA_SHARE"))
}

#[test]
fn names_keep_neither_credentials_nor_addresses() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let send = |target: &str| provenance::share(target).payload("x").begin().unwrap().sent();
    send("carol@mail.example");
    send("amqp://service:hunter2@queue.example/letters");
    provenance::share("queue")
        .recipient("carol@mail.example")
        .begin()
        .unwrap()
        .sent();
    let shares = shares(&evidence);
    assert_eq!(shares[0]["extras"]["recipient"], "mail.example");
    assert_eq!(shares[1]["extras"]["recipient"], "queue.example/letters");
    assert_eq!(shares[2]["extras"]["recipient"], "mail.example");
    assert!(!evidence.holds("carol") && !evidence.holds("hunter2"));
}

#[test]
fn tokens_in_a_path_or_as_a_name_are_not_kept() {
    #[egress(recipient = "chat")]
    fn post(path: &str) -> bool {
        ureq::post(format!("{URL}{path}")).send("x").is_err()
    }
    #[provenance_input]
    fn take(form: Json) -> usize {
        form.as_object().map_or(0, serde_json::Map::len)
    }
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    alice();
    assert!(post(
        "/services/TqZkWmNbA/xYzzyPlughFooBarQuxAb12/sendMessage/oauth2/chat.postMessage"
    ));
    let target = text(&shares(&evidence)[0]["target"]);
    assert!(
        target.ends_with("/services/{id}/{id}/sendMessage/oauth2/chat.postMessage"),
        "{target}"
    );
    assert_eq!(take(json!({"u01715550123": 1, "Bath": 2, "plan": 3})), 3);
    let collected = evidence.of("DATA_COLLECTION");
    let mut names = fields(&collected[0]);
    names.sort();
    assert_eq!(names, ["plan", "{key}", "{key}"]);
    for needle in ["TqZkWmNbA", "Plugh", "5550123"] {
        assert!(!evidence.holds(needle), "{needle}");
    }
}

#[test]
fn a_value_written_by_hand_where_none_belongs_does_not_last() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let event: EventType = "X_LETTER".parse().unwrap();
    record_event(event)
        .target("mailbox:carol@mail.example")
        .extra("note", json!({"to": ["carol@mail.example"], "copies": 2}))
        .value("contact.email", "email", "carol@mail.example")
        .unwrap()
        .submit();
    let events = evidence.events();
    assert_eq!(events[0]["target"], "{value}");
    assert_eq!(events[0]["extras"]["note"], json!({"to": ["{value}"], "copies": 2}));
    assert!(!evidence.holds("carol"));
}

//! `#[provenance_input]` on functions of every shape, and the words that hosts say by hand.

use std::collections::HashMap;

use provenance::{Tracked, provenance_input};
use provenance_tests::{Evidence, fields, tag, text};

#[derive(Tracked)]
#[tracked(owner(email))]
struct Contact<'a> {
    #[tracked("contact.email")]
    email: &'a str,
    #[tracked("contact.phone_number")]
    phone: Option<String>,
    address: Address,
}

#[derive(Tracked)]
struct Address {
    #[tracked("contact.address.city")]
    city: String,
    #[tracked("contact.address.postal_code", kind = "id")]
    postal_code: u32,
}

fn contact(email: &str) -> Contact<'_> {
    Contact {
        email,
        phone: None,
        address: Address {
            city: "Turin".into(),
            postal_code: 10121,
        },
    }
}

#[provenance_input]
fn import(contacts: Vec<Contact<'_>>) -> Result<usize, std::num::TryFromIntError> {
    let n = u8::try_from(contacts.len())?;
    Ok(n.into())
}

#[provenance_input]
fn by_name(form: &HashMap<String, String>, mut email: String, dry_run: bool) -> String {
    email.push_str(if dry_run { "" } else { "!" });
    format!("{} {email}", form.len())
}

struct Service {
    prefix: String,
}

impl Service {
    #[provenance_input]
    async fn greet(&self, Wrapped(json): Wrapped<serde_json::Value>) -> String {
        format!("{}{}", self.prefix, json["email"].as_str().unwrap_or_default().len())
    }
}

struct Wrapped<T>(T);

impl<T: Tracked> Tracked for Wrapped<T> {
    fn visit(&self, visitor: &mut provenance::Visitor<'_>) {
        self.0.visit(visitor);
    }
}

#[test]
fn every_record_has_its_own_owner() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    assert_eq!(
        import(vec![contact("ada@example.com"), contact("alan@example.com")]),
        Ok(2)
    );

    let events = evidence.of("DATA_COLLECTION");
    assert_eq!(events.len(), 1);
    assert!(
        text(&events[0]["actor"]).starts_with("fn it::input::import"),
        "{}",
        events[0]["actor"]
    );
    assert_eq!(
        fields(&events[0]),
        ["email", "city", "postal_code", "email", "city", "postal_code"]
    );
    let owners: Vec<_> = events[0]["matched_tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| text(&tag["owner"]))
        .collect();
    assert_eq!(owners[0], owners[2]);
    assert_eq!(owners[3], owners[5]);
    assert_ne!(owners[0], owners[3]);
    assert!(text(&events[0]["extras"]["site"]["file"]).ends_with("input.rs"));
}

#[test]
fn maps_and_plain_arguments_go_by_configured_names() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let form = HashMap::from([("phone".to_owned(), "555-0102030".to_owned())]);
    assert_eq!(by_name(&form, "ada@example.com".into(), true), "1 ada@example.com");
    let event = &evidence.of("DATA_COLLECTION")[0];
    assert_eq!(fields(event), ["phone", "email", "dry_run"]);
    assert_eq!(tag(event, "dry_run")["category"], "unknown");
    assert_eq!(tag(event, "phone")["owner"], tag(event, "email")["owner"]);
}

#[tokio::test]
async fn async_methods_and_json() {
    let evidence = Evidence::default();
    let service = Service { prefix: "n=".into() };
    let json = serde_json::json!({ "email": "ada@example.com", "nested": { "income": 4200.5 } });
    let greeting = provenance::test::scoped_future(&evidence.tracker, service.greet(Wrapped(json))).await;
    assert_eq!(greeting, "n=15");
    let event = &evidence.of("DATA_COLLECTION")[0];
    assert_eq!(fields(event), ["email", "income"]);
}

#[test]
fn the_session_names_the_owner() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let scope = provenance::Scope::new("job import");
    let _scope = scope.enter();
    provenance::set_owner("user", 7);
    by_name(&HashMap::new(), "ada@example.com".into(), false);
    let event = &evidence.of("DATA_COLLECTION")[0];
    assert_eq!(event["actor"], "job import");
    assert!(text(&tag(event, "email")["owner"]).starts_with("user:"));
    assert_eq!(event["user_id"], tag(event, "email")["owner"]);
}

#[test]
fn events_by_hand() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let event_type = "X_LETTER_PRINTED".parse().unwrap();
    let event = provenance::record_event(event_type)
        .target("printer:2")
        .extra("copies", 2);
    assert!(
        !format!("{event:?}").contains("printer"),
        "Debug shows no text of the host's"
    );
    event
        .value("contact.email", "email", "ada@example.com")
        .unwrap()
        .submit_durable()
        .unwrap();
    let event = &evidence.of("X_LETTER_PRINTED")[0];
    assert_eq!(event["target"], "printer:2");
    assert_eq!(event["extras"]["copies"], 2);
    assert_eq!(fields(event), ["email"]);
    assert!("LETTER_PRINTED".parse::<provenance::EventType>().is_err());
    assert!(provenance::tag("Contact Email", "email", "x").unwrap_err().is_input());
}

#[test]
fn nothing_in_force_nothing_recorded() {
    assert_eq!(import(vec![contact("ada@example.com")]), Ok(1));
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    evidence.tracker.close();
    assert_eq!(import(vec![contact("ada@example.com")]), Ok(1));
}

/// Nothing can read it.
#[derive(serde::Deserialize)]
struct Opaque {
    #[allow(dead_code)]
    note: String,
}

#[derive(serde::Serialize)]
struct Named<'a> {
    note: &'a str,
}

mod listed {
    #![allow(clippy::unused_async)]

    use axum::extract::{Path, Query, State};
    use axum::{Form, Json};
    use serde::de::DeserializeOwned;

    use super::{Contact, Named, Opaque, provenance_input};

    #[allow(dead_code, reason = "what nobody calls is listed too")]
    #[provenance_input]
    async fn opaque(State(_): State<Opaque>, body: Result<Json<Opaque>, ()>) -> bool {
        body.is_ok()
    }

    #[provenance_input]
    pub(super) fn unbounded<T: DeserializeOwned>(form: &Form<T>, Path((city, email)): Path<(String, String)>) -> usize {
        let _ = form;
        city.len() + email.len()
    }

    #[provenance_input]
    pub(super) fn read<'a>(form: Option<Form<Contact<'a>>>, query: &Query<Named<'a>>) -> usize {
        form.map_or(0, |form| form.email.len()) + query.note.len()
    }

    #[provenance_input]
    pub(super) fn may_be<T: super::Tracked>(form: Form<T>) -> Form<T> {
        form
    }
}

/// Parameters of the `impl` cannot be named by an item inside its functions.
struct Handlers<T, Body>(std::marker::PhantomData<(T, Body)>);

impl<T: Tracked, Body> Handlers<T, Body> {
    #[provenance_input]
    fn generic(form: axum::Form<T>, _: axum::extract::State<Body>) -> T {
        form.0
    }
}

fn listed_inputs() -> Vec<String> {
    let entries = provenance::inventory();
    let unvisited = entries.iter().filter(|entry| entry.kind == "unvisited");
    let of_here = unvisited.filter_map(|entry| entry.path.strip_prefix("it::input::listed::"));
    of_here.map(str::to_owned).collect()
}

#[test]
fn inputs_that_cannot_be_visited_are_known_before_any_call() {
    assert_eq!(
        listed_inputs(),
        ["opaque(body: Result<Json<Opaque>, ()>)", "unbounded(form: &Form<T>)"]
    );
    // And the ladder finds the same when they are called.
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let form = Some(axum::Form(contact("ada@example.com")));
    listed::read(form, &axum::extract::Query(Named { note: "x" }));
    let _same = listed::may_be(axum::Form(contact("ada@example.com")));
    Handlers::<_, ()>::generic(axum::Form(contact("ada@example.com")), axum::extract::State(()));
    assert_eq!(evidence.blind_spots().len(), 0);
    listed::unbounded(
        &axum::Form(1),
        axum::extract::Path(("Turin".into(), "alan@example.com".into())),
    );
    assert_eq!(evidence.blind_spots(), ["unvisited_input"]);
    let event = &evidence.of("DATA_COLLECTION")[3];
    assert_eq!(fields(event), ["city", "email"], "the pattern names what a path holds");
    assert_eq!(tag(event, "email")["category"], "contact.email");
}

#[test]
fn inputs_that_cannot_be_visited_are_said_at_start() {
    if std::env::var_os("PROVENANCE_TEST_CHILD").is_some() {
        let folder = tempfile::tempdir().unwrap();
        let config = provenance::Config {
            storage: provenance::config::Storage::Sqlite(folder.path().join("provenance.db")),
            ..provenance::Config::default()
        };
        let guard = provenance::init_with(config).unwrap();
        println!("{}", guard.tracker().unwrap().status()["blind_spots"]);
        return;
    }
    let test = "input::inputs_that_cannot_be_visited_are_said_at_start";
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env("PROVENANCE_TEST_CHILD", "1")
        .output()
        .unwrap();
    let (shown, said) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(output.status.success(), "{said}");
    let lines: Vec<_> = said
        .lines()
        .filter(|line| line.contains("derive Tracked or Serialize"))
        .collect();
    assert_eq!(lines.len(), 1, "{said}");
    for input in listed_inputs() {
        let site = format!("it::input::listed::{input}");
        assert!(lines[0].contains(&site), "{site}: {said}");
        assert!(
            shown.contains(&site) && shown.contains("unvisited_input"),
            "{site}: {shown}"
        );
    }
}

#[derive(Tracked)]
#[tracked(owner(email))]
struct Subscription<'a> {
    #[tracked("contact.email")]
    email: &'a str,
}

#[provenance_input]
fn subscribe(form: Subscription<'_>) -> usize {
    form.email.len()
}

/// The work of an input is put off; whoever looks for its values meets them all the same.
#[test]
fn what_came_in_is_found_at_once_by_any_thread() {
    let evidence = Evidence::default();
    for n in 0..200 {
        let email = format!("ada.lovelace{n}@example.com");
        {
            let _tracker = evidence.scoped();
            subscribe(Subscription { email: &email });
        }
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let _tracker = evidence.scoped();
                let note = provenance::record_event("X_NOTE".parse().expect("well-formed"));
                note.target(&email).submit();
            });
        });
    }
    let notes = evidence.of("X_NOTE");
    assert_eq!(notes.len(), 200);
    let unknown = notes.iter().filter(|note| note["target"] != "{value}").count();
    assert_eq!(unknown, 0, "addresses that were taken in and not found");
    // Each input before what was done after it, and of its own time.
    let of_types: Vec<String> = evidence
        .events()
        .iter()
        .map(|event| text(&event["event_type"]))
        .collect();
    let (input, note) = ("DATA_COLLECTION".to_owned(), "X_NOTE".to_owned());
    assert!(
        of_types.chunks(2).all(|pair| pair == [input.clone(), note.clone()]),
        "{of_types:?}"
    );
}

#[test]
fn what_a_session_says_later_is_of_later_events() {
    let evidence = Evidence::default();
    {
        let _tracker = evidence.scoped();
        let scope = provenance::Scope::new("job import");
        let _scope = scope.enter();
        by_name(&HashMap::new(), "ada@example.com".into(), true);
        provenance::set_owner("user", 7);
        scope.set_purpose("cleaning");
        by_name(&HashMap::new(), "alan@example.com".into(), true);
    }
    let events = evidence.of("DATA_COLLECTION");
    let owners: Vec<String> = events.iter().map(|event| text(&event["extras"]["owner"])).collect();
    assert!(
        owners[0].starts_with("email:") && owners[1].starts_with("user:"),
        "{owners:?}"
    );
    assert_eq!(events[0]["extras"]["purpose"], serde_json::Value::Null);
    assert_eq!(events[1]["extras"]["purpose"], "cleaning");
}

//! What a restart keeps: events, registered values, links between a person's identifiers.

use provenance::{Scope, record_event, set_owner, tag};
use provenance_tests::{Evidence, text};

#[test]
fn events_values_and_links_survive_and_secrets_do_not() {
    let evidence = Evidence::default();
    {
        let _tracker = evidence.scoped();
        let _scope = Scope::new("job one").enter();
        set_owner("email", "ada@example.com");
        tag("contact.email", "email", "ada@example.com").unwrap();
        tag("security.password", "password", "correct horse battery").unwrap();
        provenance::link_owner(("user", 7), ("email", "ada@example.com"));
        record_event("X_ONE".parse().unwrap()).submit_durable().unwrap();
    }
    assert_eq!(evidence.tracker.status()["registry_size"], 2);
    let first_instance = evidence.tracker.instance_id();

    let evidence = evidence.restart();
    let _tracker = evidence.scoped();
    assert_ne!(evidence.tracker.instance_id(), first_instance);
    assert_eq!(
        evidence.tracker.status()["registry_size"],
        1,
        "the secret lived in memory only"
    );
    let _scope = Scope::new("job two").enter();
    set_owner("user", 7);
    let share = provenance::share("smtp.example.com")
        .payload(b"To: ada@example.com")
        .begin()
        .unwrap();
    share.sent();

    let events = evidence.events();
    assert_eq!(events.len(), 2);
    assert_eq!(text(&events[0]["extras"]["instance"]), first_instance);
    assert_eq!(events[1]["matched_tags"][0]["field"], "email");
    assert_eq!(events[1]["extras"]["outcome"], "sent");
}

#[test]
fn another_key_is_refused_and_the_file_stays_as_it_is() {
    let evidence = Evidence::default();
    {
        let _tracker = evidence.scoped();
        record_event("X_ONE".parse().unwrap()).submit_durable().unwrap();
    }
    evidence.tracker.close();
    let before = std::fs::read(evidence.database()).unwrap();
    let open = |key: Option<&str>| {
        provenance::Tracker::open(provenance::Config {
            storage: provenance::config::Storage::Sqlite(evidence.database()),
            key: key.map(|key| provenance::config::Token(key.into())),
            ..provenance::Config::default()
        })
    };
    assert!(open(Some(&"ab".repeat(32))).unwrap_err().is_key());
    std::fs::remove_file(evidence.folder.path().join("provenance.db.key")).unwrap();
    let missing = open(None).unwrap_err();
    assert!(missing.is_key(), "{missing}");
    assert_eq!(before, std::fs::read(evidence.database()).unwrap());
}

//! The format, as a stranger reads it: by docs/format.md and a page of Python.

use std::path::Path;
use std::process::Command;

use provenance::store::Reader;
use provenance_tests::Evidence;

/// Whether it holds, and what it prints.
fn python(database: &Path) -> (bool, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/verify.py");
    let output = Command::new("python3").arg(script).arg(database).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

fn evidence() -> Evidence {
    let evidence = Evidence::default();
    {
        let _in_force = evidence.scoped();
        let scope = provenance::Scope::new("HTTP POST /signup");
        let _scope = scope.enter();
        provenance::set_owner("user", 7);
        for round in 0..20 {
            let address = format!("ada-{round}@example.com");
            provenance::record_event("X_ROUND".parse().unwrap())
                .target("db:users")
                .extra("round", round)
                .value("contact.email", "email", address.as_str())
                .unwrap()
                .submit();
            let text = format!("Dear {address}");
            let share = provenance::share("smtp.example.com").recipient("mail").payload(&text);
            share.begin().unwrap().sent();
        }
    }
    evidence.tracker.close();
    evidence
}

#[test]
fn another_program_comes_to_the_same_heads() {
    let evidence = evidence();
    let verified = Reader::open(&evidence.database()).unwrap().verify().unwrap();
    assert!(verified.is_ok(), "{verified:?}");
    let (holds, text) = python(&evidence.database());
    assert!(holds, "{text}");
    for instance in &verified.instances {
        let line = format!(
            "{}: {} events in {} batches hold, head {}",
            instance.instance, instance.events, instance.batches, instance.head
        );
        assert!(text.contains(&line), "{text}\n{line}");
    }
}

#[test]
fn another_program_follows_an_erasure_and_a_retention() {
    let evidence = evidence().restart();
    let before = Reader::open(&evidence.database()).unwrap().verify().unwrap();
    let erased = evidence.tracker.erase("user", "7", "ticket 17").unwrap();
    assert!(erased.events > 0, "{erased:?}");
    let now = provenance::Timestamp::now();
    let pruned = evidence.tracker.prune("X_ROUND", now, "ticket 18", false).unwrap();
    assert_eq!(pruned.events, 20);
    evidence.tracker.close();
    let after = Reader::open(&evidence.database()).unwrap().verify().unwrap();
    assert!(after.is_ok(), "{after:?}");
    assert_eq!(after.instances[0].head, before.instances[0].head, "the leaves stay");
    let (holds, text) = python(&evidence.database());
    assert!(holds && text.contains(&after.instances[1].head), "{text}");
}

#[test]
fn another_program_finds_what_was_changed() {
    use diesel::connection::SimpleConnection;
    use diesel::prelude::*;
    for edit in [
        "UPDATE events SET after = after + 1 WHERE seq = 3",
        "UPDATE events SET tags = x'' WHERE length(tags) > 0",
        "UPDATE texts SET text = text || '.' WHERE id = 1",
        "DELETE FROM events WHERE seq = 2",
        "UPDATE batches SET root = zeroblob(32)",
    ] {
        let evidence = evidence();
        let mut connection = diesel::SqliteConnection::establish(evidence.database().to_str().unwrap()).unwrap();
        connection.batch_execute(edit).unwrap();
        drop(connection);
        let (holds, text) = python(&evidence.database());
        assert!(!holds && text.contains("BROKEN"), "{edit}: {text}");
        assert!(
            !Reader::open(&evidence.database()).unwrap().verify().unwrap().is_ok(),
            "{edit}"
        );
    }
}

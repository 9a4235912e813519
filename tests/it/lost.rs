//! What becomes of evidence whose file is removed, replaced, cut off or overwritten while it is written.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use provenance::config::{Config, Storage};
use provenance::store::{Reader, in_force};
use provenance::{Tracker, record_event, test};
use provenance_tests::{Evidence, all_events, text};
use serde_json::Value as Json;

use crate::recorder::{Process, inside, numbers};

fn config(folder: &Path) -> Config {
    Config {
        storage: Storage::Sqlite(folder.join("provenance.db")),
        service: "tests".into(),
        ..Config::default()
    }
}

/// Every event of a file whose chain holds, oldest first.
fn events(file: &Path) -> Vec<Json> {
    let mut reader = Reader::open(file).unwrap();
    let verified = reader.verify().unwrap();
    assert!(verified.is_ok(), "{verified:?}");
    let mut events = all_events(&mut reader);
    events.reverse();
    events
}

fn event(n: u64) -> provenance::EventBuilder {
    record_event("X_ONE".parse().unwrap()).extra("n", n)
}

/// Everything from the journal into the file, so that a fault of the file meets something.
fn checkpoint(file: &Path) {
    let mut other = SqliteConnection::establish(file.to_str().unwrap()).unwrap();
    other
        .batch_execute("PRAGMA busy_timeout = 5000; PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Removed,
    /// With its journal.
    AllRemoved,
    JournalRemoved,
    /// By a file of its own, under the same name.
    Replaced,
    /// What is in it was copied over by another database.
    CopiedOver,
    CutToNothing,
    CutInHalf,
    Overwritten,
    /// But for the first page.
    PagesOverwritten,
}

impl Fault {
    /// Brings it about; gives what stands there then.
    fn strike(self, file: &Path) -> Option<Vec<u8>> {
        use std::os::unix::fs::FileExt;
        let other = file.with_file_name("other.db");
        let mut connection = SqliteConnection::establish(other.to_str().unwrap()).unwrap();
        connection
            .batch_execute("CREATE TABLE mine (a TEXT); INSERT INTO mine VALUES ('kept')")
            .unwrap();
        drop(connection);
        // In another process: closing the file in this one would end SQLite's locks on it.
        let run = |script: &str| {
            let mut shell = std::process::Command::new("sh");
            let status = shell.args(["-c", script, "sh"]).args([file, &other]).status().unwrap();
            assert!(status.success(), "{self:?}");
        };
        let length = std::fs::metadata(file).unwrap().len();
        assert!(length > 40_000, "{length}");
        match self {
            Fault::Removed => run("rm \"$1\""),
            Fault::AllRemoved => run("rm \"$1\" \"$1\"-wal \"$1\"-shm"),
            Fault::JournalRemoved => run("rm \"$1\"-wal"),
            Fault::Replaced => run("mv \"$2\" \"$1\""),
            Fault::CopiedOver => run("cat \"$2\" > \"$1\""),
            Fault::CutToNothing => run(": > \"$1\""),
            Fault::CutInHalf => run(&format!("truncate -s {} \"$1\"", length / 2)),
            Fault::Overwritten | Fault::PagesOverwritten => {
                let from = if self == Fault::Overwritten { 0 } else { 4096 };
                let garbage = vec![0xa5; (length - from) as usize];
                let noise = file.with_file_name("noise");
                std::fs::File::create(&noise)
                    .unwrap()
                    .write_all_at(&garbage, 0)
                    .unwrap();
                run(&format!(
                    "dd if=\"$(dirname \"$1\")\"/noise of=\"$1\" bs=4096 seek={} conv=notrunc status=none",
                    from / 4096
                ));
            }
        }
        std::fs::read(file).ok()
    }
}

fn goes_on_after(fault: Fault) {
    let evidence = Evidence::default();
    let file = evidence.database();
    let first = evidence.tracker.instance_id();
    let (share, blind_before) = {
        let _tracker = evidence.scoped();
        for n in 0..300 {
            event(n).target(&format!("queue:{n}")).submit();
        }
        event(300)
            .value("contact.email", "email", "ada@example.com")
            .unwrap()
            .submit_durable()
            .unwrap();
        provenance::link_owner(("user", 7), ("email", "ada@example.com"));
        let share = provenance::share("queue:letters").begin().unwrap();
        evidence.tracker.flush(Duration::from_secs(10)).unwrap();
        (share, evidence.blind_spots())
    };
    assert!(!blind_before.contains(&"evidence_lost".to_owned()));
    checkpoint(&file);
    let struck = fault.strike(&file);

    let _tracker = evidence.scoped();
    let mut acknowledged = BTreeSet::new();
    let began = Instant::now();
    for n in 1000..1020 {
        if event(n).submit_durable().is_ok() {
            acknowledged.insert(n);
        }
    }
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{fault:?}: {:?}",
        began.elapsed()
    );
    // On a busy machine the first one may not be there in its two seconds.
    assert!(
        acknowledged.len() >= 19,
        "{fault:?}: {:?}",
        evidence.tracker.status()["queue"]
    );
    share.sent();
    evidence.tracker.flush(Duration::from_secs(10)).unwrap();

    // Loud.
    let status = Json::Object(evidence.tracker.status());
    assert_eq!(status["continued"]["file"], "provenance.db.continued-1", "{fault:?}");
    assert_eq!(status["continued"]["before"], "provenance.db");
    assert!(evidence.blind_spots().contains(&"evidence_lost".to_owned()));
    assert!(
        status["notes"]
            .to_string()
            .contains("goes on in provenance.db.continued-1"),
        "{status}"
    );
    assert_eq!(status["queue"]["refused"], 0);
    assert_eq!(status["queue"]["last_error"], Json::Null);
    // What was acknowledged is there, and begins with where it comes from.
    let next = beside(&file, ".continued-1");
    assert_eq!(evidence.tracker.storage(), Storage::Sqlite(next.clone()));
    let found = events(&next);
    let missing: Vec<_> = acknowledged.iter().filter(|n| !numbers(&found).contains(n)).collect();
    assert!(missing.is_empty(), "{fault:?}: {missing:?}");
    assert_eq!(found[0]["event_type"], "X_EVIDENCE_CONTINUED", "{fault:?}");
    assert_eq!(found[0]["extras"]["instance_before"], first);
    assert_eq!(text(&found[0]["extras"]["chain_before"]).len(), 64);
    assert!(found.iter().all(|event| event["extras"]["instance"] != first.as_str()));
    let outcome = found.iter().find(|event| event["event_type"] == "DATA_SHARE").unwrap();
    assert_eq!(outcome["extras"]["outcome"], "sent");
    let share = text(&outcome["extras"]["outcome_of"]);
    assert!(share.starts_with(&format!("{first}-")), "{share}");
    // Nothing was written to what stands there now.
    assert_eq!(std::fs::read(&file).ok(), struck, "{fault:?}");

    // The next start goes on there, and knows what was known.
    let Evidence { folder, tracker } = &evidence;
    tracker.close();
    let tracker = Tracker::open(config(folder.path())).unwrap();
    let status = Json::Object(tracker.status());
    assert_eq!(status["continued"], Json::Null);
    assert!(
        status["notes"]
            .to_string()
            .contains("goes on in provenance.db.continued-1"),
        "{status}"
    );
    assert_eq!(status["registry_size"], 1, "{fault:?}");
    let _tracker = test::scoped(&tracker);
    let share = provenance::share("queue:letters")
        .payload("ada@example.com")
        .begin()
        .unwrap();
    share.sent();
    event(2000).submit_durable().unwrap();
    tracker.close();
    let found = events(&next);
    assert_eq!(numbers(&found).last(), Some(&2000));
    let tags = |event: &&Json| event["matched_tags"].as_array().is_some_and(|tags| !tags.is_empty());
    assert!(found.iter().rev().any(|event| tags(&event)), "{fault:?}");
    assert_eq!(std::fs::read(&file).ok(), struck, "{fault:?}");
}

#[test]
fn evidence_goes_on_beside_a_file_that_is_lost_and_nothing_is_overwritten() {
    std::thread::scope(|scope| {
        for fault in [
            Fault::Removed,
            Fault::AllRemoved,
            Fault::JournalRemoved,
            Fault::Replaced,
            Fault::CopiedOver,
            Fault::CutToNothing,
            Fault::CutInHalf,
            Fault::Overwritten,
            Fault::PagesOverwritten,
        ] {
            scope.spawn(move || goes_on_after(fault));
        }
    });
}

#[test]
fn all_who_write_a_file_go_on_in_the_same_one_and_over_nobodys() {
    let evidence = Evidence::default();
    let other = Tracker::open(config(evidence.folder.path())).unwrap();
    let file = evidence.database();
    // Somebody has a file of that name.
    std::fs::write(beside(&file, ".continued-1"), "a letter, perhaps").unwrap();
    let say = |tracker: &Tracker, n: u64| {
        let _tracker = test::scoped(tracker);
        event(n)
            .value("contact.email", "email", format!("ada{n}@example.com"))
            .unwrap()
            .submit_durable()
            .unwrap();
    };
    say(&evidence.tracker, 1);
    say(&other, 2);
    std::fs::remove_file(&file).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| say(&evidence.tracker, 3));
        scope.spawn(|| say(&other, 4));
    });
    let next = beside(&file, ".continued-2");
    assert_eq!(evidence.tracker.storage(), Storage::Sqlite(next.clone()));
    assert_eq!(other.storage(), evidence.tracker.storage());
    assert_eq!(in_force(&Storage::Sqlite(file.clone())), other.storage());
    // They follow each other there.
    say(&other, 5);
    let until = Instant::now() + Duration::from_secs(10);
    while evidence.tracker.status()["registry_size"] != 5 {
        assert!(Instant::now() < until, "{:?}", evidence.tracker.status());
        std::thread::sleep(Duration::from_millis(20));
    }
    // And where that one is lost, too, in one more.
    std::fs::remove_file(&next).unwrap();
    say(&other, 6);
    say(&evidence.tracker, 7);
    assert_eq!(other.storage(), Storage::Sqlite(beside(&file, ".continued-3")));
    assert_eq!(other.storage(), evidence.tracker.storage());
    let letter = std::fs::read(beside(&file, ".continued-1")).unwrap();
    assert_eq!(letter, b"a letter, perhaps");
    other.close();
    evidence.tracker.close();
    let mut found = numbers(&events(&beside(&file, ".continued-3")));
    found.sort_unstable();
    assert_eq!(found, [6, 7]);
}

#[test]
fn a_file_that_is_back_within_a_second_is_gone_on_with() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let file = evidence.database();
    event(1).submit_durable().unwrap();
    let away = file.with_file_name("away");
    std::fs::rename(&file, &away).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            std::fs::rename(&away, &file).unwrap();
        });
        event(2).submit_durable().unwrap();
    });
    assert_eq!(evidence.tracker.status()["continued"], Json::Null);
    assert_eq!(evidence.events().len(), 2);
}

#[test]
fn who_was_erased_stays_erased_in_the_next_file() {
    let evidence = Evidence::default();
    let ada = || {
        let _tracker = evidence.scoped();
        let _scope = provenance::Scope::new("job").enter();
        provenance::set_owner("email", "ada@example.com");
        event(1)
            .value("contact.email", "email", "ada@example.com")
            .unwrap()
            .submit_durable()
            .unwrap();
    };
    ada();
    evidence.tracker.erase("email", "ada@example.com", "ticket 1").unwrap();
    std::fs::remove_file(evidence.database()).unwrap();
    {
        let _tracker = evidence.scoped();
        event(2).submit_durable().unwrap();
    }
    let Evidence { folder, tracker } = &evidence;
    tracker.close();
    let tracker = Tracker::open(config(folder.path())).unwrap();
    let _tracker = test::scoped(&tracker);
    let _scope = provenance::Scope::new("job").enter();
    provenance::set_owner("email", "ada@example.com");
    event(3).submit_durable().unwrap();
    let spots = tracker.status()["blind_spots"].to_string();
    assert!(spots.contains("erased_person_met"), "{spots}");
}

/// Says each number once it was acknowledged.
#[test]
#[ignore = "run by other tests"]
fn child_goes_on() {
    let (folder, _) = inside();
    let _guard = provenance::init_with(config(&folder)).unwrap();
    for n in 0.. {
        event(n).submit_durable().unwrap();
        println!("\nacknowledged {n} .");
    }
}

#[test]
fn a_file_that_is_moved_away_and_the_next_one_hold_all_that_was_acknowledged_before_a_kill() {
    let rounds: u64 = std::env::var("FAULTS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    let round = |round: u64| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("provenance.db");
        let mut process = Process::start("lost::child_goes_on", folder.path(), "");
        let mut last = process.said("acknowledged ").unwrap();
        std::thread::sleep(Duration::from_millis(round * 7919 % 300));
        let moved = folder.path().join("moved");
        std::fs::create_dir(&moved).unwrap();
        for ending in ["", "-wal", "-shm"] {
            let from = beside(&file, ending);
            std::fs::rename(&from, moved.join(from.file_name().unwrap())).unwrap();
        }
        // Before it goes on, while it does, and after.
        std::thread::sleep(Duration::from_millis(700 + round * 104_729 % 700));
        process.signal(libc::SIGKILL);
        while let Some(n) = process.said("acknowledged ") {
            last = n;
        }
        assert_eq!(process.end(), -libc::SIGKILL);
        let last: u64 = last.trim_end_matches([' ', '.']).parse().unwrap();
        // What was spilled comes in.
        Tracker::open(config(folder.path())).unwrap().close();
        let Storage::Sqlite(now) = in_force(&Storage::Sqlite(file.clone())) else {
            panic!()
        };
        let mut kept: BTreeSet<u64> = numbers(&events(&moved.join("provenance.db"))).into_iter().collect();
        kept.extend(numbers(&events(&now)));
        let missing: Vec<_> = (0..=last).filter(|n| !kept.contains(n)).collect();
        assert!(missing.is_empty(), "round {round}, of {last}: {missing:?}");
    };
    for some in (0..rounds).collect::<Vec<_>>().chunks(4) {
        std::thread::scope(|scope| some.iter().for_each(|n| drop(scope.spawn(|| round(*n)))));
    }
}

//! Sudden ends, many times: `scripts/faults` runs each 200 times, the tests a few.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::read::EventQuery;
use super::tests::{Folder, event, instance, keys, record, tag};
use super::write::Writer;
use crate::recorder::Recorder;
use crate::vocabulary::EventType;

/// How often each fault is brought about.
fn rounds() -> u64 {
    std::env::var("FAULTS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(6)
}

/// A number that differs from round to round.
fn spread(round: u64, below: u64) -> u64 {
    (round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) % below
}

#[test]
#[ignore = "run by the tests below, in a process of its own"]
fn child_writes() {
    let Some(db) = std::env::var_os("CHILD_DB") else { return };
    let mut writer = Writer::open(Path::new(&db), &keys(), &instance(1)).unwrap();
    writer.restore(1000).unwrap();
    if std::env::var_os("CHILD_IS_CARELESS").is_some() {
        writer.be_careless();
    }
    let recorder = Recorder::start(writer).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let recorder = &recorder;
            scope.spawn(move || {
                for n in 0..20_000 {
                    let at = 100_000 * thread + n;
                    // What nobody waits for keeps the journal growing.
                    let tags = vec![tag(n as u8, "contact.email", None)];
                    recorder.send(record(event(EventType::DataStorage, at, tags)));
                    let durable = record(event(EventType::DataShare, at, vec![]));
                    recorder.send_durable(durable, Duration::from_secs(10)).unwrap();
                    println!("acked {at}");
                }
            });
        }
    });
}

struct Child {
    process: std::process::Child,
    acked: Box<dyn Iterator<Item = i64> + Send>,
}

fn child(folder: &Folder, change: impl FnOnce(&mut Command)) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "store::faults::child_writes", "--ignored", "--nocapture"])
        .env("CHILD_DB", folder.db())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    change(&mut command);
    let mut process = command.spawn().unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    // A line may have been cut off.
    let acked = lines.filter_map(|line| line.split("acked ").nth(1)?.parse().ok());
    Child {
        process,
        acked: Box::new(acked),
    }
}

/// Acknowledged shares that the file does not hold; panics where the chain does not.
fn lost(folder: &Folder, acked: &BTreeSet<i64>) -> usize {
    let mut reader = match super::Reader::open(&folder.db()) {
        Ok(reader) => reader,
        Err(_) if acked.is_empty() => return 0,
        Err(error) => panic!("{error}"),
    };
    let verified = reader.verify().unwrap();
    assert!(verified.is_ok(), "{verified:?}");
    let mut query = EventQuery {
        event_type: Some("DATA_SHARE".into()),
        limit: 500,
        ..EventQuery::default()
    };
    let mut kept = BTreeSet::new();
    loop {
        let page = reader.events(&query).unwrap();
        kept.extend(page.events.iter().map(|event| event.created_at.0));
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            break;
        }
    }
    drop(reader);
    // Whoever comes next can write, and what is left of the index is taken over.
    let mut writer = folder.writer(2);
    writer.restore(10).unwrap();
    while writer.maintain(true).unwrap() {}
    writer
        .append(&[record(event(EventType::DataStorage, 1, vec![]))], None)
        .unwrap();
    acked.difference(&kept).count()
}

#[test]
fn killed_under_load_nothing_acknowledged_is_lost() {
    for round in 0..rounds() {
        let folder = Folder::new();
        let Child { mut process, mut acked } = child(&folder, |_| {});
        let many = 1 + spread(round, 400) as usize;
        let mut seen: BTreeSet<i64> = acked.by_ref().take(many).collect();
        process.kill().unwrap();
        seen.extend(acked);
        process.wait().unwrap();
        assert_eq!(lost(&folder, &seen), 0, "round {round}, {} acknowledged", seen.len());
    }
}

/// The shim, compiled.
#[cfg(target_os = "linux")]
fn shim(folder: &Folder) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/faults/power_cut.c");
    // The loader takes spaces in the name for ends of names.
    let library = folder.db().with_file_name("power_cut.so");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .args([&library, &source])
        .args(["-ldl", "-lpthread"])
        .status()
        .unwrap();
    assert!(compiled.success());
    library
}

/// Power fails after so many writes and syncs; what was acknowledged, and how much of it is lost.
#[cfg(target_os = "linux")]
fn power_cut(shim: &Path, after: u64, careless: bool) -> (usize, usize) {
    let folder = Folder::new();
    let Child { mut process, acked } = child(&folder, |command| {
        command
            .env("LD_PRELOAD", shim)
            .env("CUT_DIR", folder.db().parent().unwrap())
            .env("CUT_AFTER", after.to_string());
        if careless {
            command.env("CHILD_IS_CARELESS", "1");
        }
    });
    let acked: BTreeSet<i64> = acked.collect();
    assert_eq!(process.wait().unwrap().code(), Some(137));
    (acked.len(), lost(&folder, &acked))
}

#[cfg(target_os = "linux")]
#[test]
fn when_the_power_fails_nothing_acknowledged_is_lost() {
    let folder = Folder::new();
    let shim = shim(&folder);
    let mut acknowledged = 0;
    for round in 0..rounds() {
        let after = 60 + spread(round, 3_000);
        let (acked, lost) = power_cut(&shim, after, false);
        acknowledged += acked;
        assert_eq!(lost, 0, "round {round}: cut after {after}, {acked} acknowledged");
    }
    assert!(acknowledged > 0);
    // The cut cuts: without a sync a commit, what was acknowledged is gone.
    let careless: Vec<_> = (0..rounds())
        .map(|round| power_cut(&shim, 200 + spread(round, 1_000), true))
        .collect();
    assert!(careless.iter().any(|(_, lost)| *lost > 0), "{careless:?}");
}

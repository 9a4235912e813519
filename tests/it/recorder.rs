//! What the recorder keeps when the database takes nothing, and when the process ends.

mod ends;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use provenance::config::{Config, OnEvidenceFailure, Storage};
use provenance::store::{EventQuery, Reader};
use provenance::{Guard, Tracker, record_event, test};
use provenance_tests::{Evidence, all_events, text};
use serde_json::Value as Json;

/// What [`spills`] finds where there is nothing.
const NONE: [PathBuf; 0] = [];

/// Locks a database for writers until it is dropped.
fn lock(database: &Path) -> SqliteConnection {
    let mut connection = SqliteConnection::establish(database.to_str().unwrap()).unwrap();
    connection
        .batch_execute("PRAGMA busy_timeout = 5000; BEGIN IMMEDIATE")
        .unwrap();
    connection
}

fn config(folder: &Path) -> Config {
    Config {
        storage: Storage::Sqlite(folder.join("provenance.db")),
        service: "tests".into(),
        ..Config::default()
    }
}

/// Every event in the order of its chain.
fn events(folder: &Path) -> Vec<Json> {
    let mut reader = Reader::open(&folder.join("provenance.db")).unwrap();
    assert!(reader.verify().unwrap().is_ok());
    let mut events = all_events(&mut reader);
    let key = |event: &Json| {
        let id = text(&event["event_id"]);
        let (instance, seq) = id.rsplit_once('-').unwrap();
        (instance.to_owned(), seq.parse::<u64>().unwrap())
    };
    events.sort_by_key(key);
    events
}

pub(crate) fn numbers(events: &[Json]) -> Vec<u64> {
    events
        .iter()
        .filter_map(|event| event["extras"]["n"].as_u64())
        .collect()
}

fn event(n: u64) -> provenance::EventBuilder {
    record_event("X_ONE".parse().unwrap()).extra("n", n)
}

/// Spill files in a folder, by their ending.
fn spills(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.to_str().unwrap().ends_with(ending)).collect()
}

/// `scripts/faults` brings faults about for longer than the tests do.
fn is_long() -> bool {
    std::env::var_os("FAULTS").is_some()
}

fn queue(tracker: &Tracker) -> Json {
    tracker.status()["queue"].clone()
}

/// Waits until the database has everything.
fn caught_up(tracker: &Tracker) {
    let until = Instant::now() + Duration::from_secs(30);
    while queue(tracker)["spill_bytes"] != 0 {
        assert!(Instant::now() < until, "{}", queue(tracker));
        std::thread::sleep(Duration::from_millis(5));
    }
    tracker.flush(Duration::from_secs(30)).unwrap();
}

/// This program once more, as one of the tests below that are ignored.
pub(crate) struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) fn start(name: &str, folder: &Path, how: &str) -> Self {
        Self::start_with(name, folder, how, |_| {})
    }

    fn start_with(name: &str, folder: &Path, how: &str, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", name, "--ignored", "--nocapture"])
            .env("RECORDER_FOLDER", folder)
            .env("RECORDER_HOW", how)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Process { child, lines }
    }

    /// The next line that begins so, without its beginning; `None` at the end.
    pub(crate) fn said(&mut self, beginning: &str) -> Option<String> {
        self.lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once(beginning)?.1.to_owned()))
    }

    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: a call without pointers, to a process that was not waited for yet.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// How it ended: its exit code, or its signal as a negative number.
    pub(crate) fn end(mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let status = self.child.wait().unwrap();
        status.code().unwrap_or_else(|| -status.signal().unwrap())
    }
}

pub(crate) fn inside() -> (PathBuf, String) {
    let folder = std::env::var_os("RECORDER_FOLDER").expect("run by another test");
    (folder.into(), std::env::var("RECORDER_HOW").unwrap())
}

fn init(change: impl FnOnce(&mut Config)) -> (Guard, PathBuf, String) {
    let (folder, how) = inside();
    let mut config = config(&folder);
    change(&mut config);
    (provenance::init_with(config).unwrap(), folder, how)
}

#[test]
#[ignore = "run by other tests"]
fn child_locks() {
    let (folder, how) = inside();
    let _locked = lock(&folder.join("provenance.db"));
    println!("\nlocked .");
    std::thread::sleep(Duration::from_millis(how.parse().unwrap()));
}

#[test]
fn while_another_process_holds_the_lock_shares_go_on_and_land_once_in_order() {
    const THREADS: u64 = 4;
    let evidence = Evidence::default();
    let folder = evidence.folder.path();
    let held = if is_long() { 30_000 } else { 3_500 };
    let mut locker = Process::start("recorder::child_locks", folder, &held.to_string());
    locker.said("locked").unwrap();
    let began = Instant::now();
    let until = Duration::from_millis(held + 1000);
    let counts: Vec<u64> = std::thread::scope(|scope| {
        let share = |thread: u64| {
            let _tracker = evidence.scoped();
            let mut n = 0;
            while began.elapsed() < until {
                let asked = Instant::now();
                event(n).submit_durable().unwrap();
                let share = provenance::share(&format!("queue:{thread}"))
                    .purpose(&n.to_string())
                    .begin()
                    .unwrap();
                assert!(asked.elapsed() < Duration::from_secs(4));
                share.sent();
                n += 1;
                std::thread::sleep(Duration::from_millis(3));
            }
            n
        };
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || share(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(locker.end(), 0);
    caught_up(&evidence.tracker);
    let status = queue(&evidence.tracker);
    assert!(status["spilled"].as_u64().unwrap() > 100, "{status}");
    assert_eq!(status["spilled"], status["replayed"]);
    assert_eq!(status["refused"], 0);
    assert_eq!(status["last_error"], Json::Null);
    assert!(!evidence.blind_spots().contains(&"evidence_failure".to_owned()));
    assert_eq!(spills(folder, "spill"), NONE);
    let mut by_target: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let events = events(folder);
    let total: u64 = counts.iter().sum();
    assert_eq!(numbers(&events).len() as u64, total);
    for event in events.iter().filter(|event| event["event_type"] == "DATA_SHARE") {
        assert_eq!(event["extras"]["outcome"], "sent");
        let n = text(&event["extras"]["purpose"]).parse().unwrap();
        by_target.entry(text(&event["target"])).or_default().push(n);
    }
    assert_eq!(by_target.len(), counts.len());
    for (ns, count) in by_target.into_values().zip(counts) {
        assert_eq!(ns, (0..count).collect::<Vec<_>>());
    }
}

/// Says each number once it was acknowledged.
#[test]
#[ignore = "run by other tests"]
fn child_acknowledges() {
    let (_guard, ..) = init(|_| {});
    event(0).submit_durable().unwrap();
    println!("\nready .");
    std::thread::sleep(Duration::from_millis(100));
    for n in 1.. {
        event(n)
            .value("contact.email", "email", "ada@example.com")
            .unwrap()
            .submit_durable()
            .unwrap();
        println!("acknowledged {n}");
        provenance::share("queue:letters").begin().unwrap().sent();
    }
}

#[test]
fn what_was_acknowledged_before_a_kill_is_there_once() {
    let kill = |freed: Option<u64>| {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Process::start("recorder::child_acknowledges", folder.path(), "");
        process.said("ready").unwrap();
        let locked = lock(&folder.path().join("provenance.db"));
        let mut last = 0;
        while last < 150 {
            last = process.said("acknowledged ").unwrap().parse().unwrap();
        }
        let left = spills(folder.path(), "spill");
        assert_eq!(left.len(), 1);
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(left[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        // Freed: it is killed while it brings in what it has spilled, or just before, or just after.
        let mut locked = Some(locked);
        if let Some(after) = freed {
            locked = None;
            std::thread::sleep(Duration::from_millis(after));
        }
        process.signal(libc::SIGKILL);
        while let Some(n) = process.said("acknowledged ") {
            last = n.parse().unwrap();
        }
        assert_eq!(process.end(), -libc::SIGKILL);
        drop(locked);

        let tracker = Tracker::open(config(folder.path())).unwrap();
        assert_eq!(tracker.status()["registry_size"], 1, "the value was spilled too");
        tracker.close();
        let events = events(folder.path());
        let mut found = numbers(&events);
        // The old instance's events and the new one's stand in no order to each other.
        found.sort_unstable();
        assert!(found.len() as u64 > last, "{} of {last}", found.len());
        assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>());
        let shares: Vec<_> = events
            .iter()
            .filter(|event| event["event_type"] == "DATA_SHARE")
            .collect();
        let ended = |event: &&&Json| event["extras"]["outcome"] == "sent";
        assert!(shares.iter().filter(ended).count() as u64 >= last - 1);
        assert_eq!(spills(folder.path(), "spill"), NONE);
        assert_eq!(spills(folder.path(), "damaged"), NONE);
    };
    std::thread::scope(|scope| {
        for freed in [None, Some(0), Some(100), Some(300), Some(450), Some(600)] {
            scope.spawn(move || kill(freed));
        }
    });
}

/// A folder with a spill file that holds these events, and nobody's.
fn left_behind(count: u64) -> (tempfile::TempDir, PathBuf) {
    let Evidence { folder, tracker } = Evidence::default();
    {
        let _tracker = test::scoped(&tracker);
        event(0).submit_durable().unwrap();
        let _locked = lock(&folder.path().join("provenance.db"));
        for n in 1..=count {
            event(n).submit_durable().unwrap();
        }
        tracker.close();
        assert_eq!(queue(&tracker)["refused"], 0);
    }
    let mut left = spills(folder.path(), "spill");
    assert_eq!(left.len(), 1);
    (folder, left.remove(0))
}

#[test]
fn of_a_spill_file_cut_off_anywhere_what_is_whole_is_brought_in() {
    let (folder, spill) = left_behind(2);
    let bytes = std::fs::read(&spill).unwrap();
    // A head of 40 bytes; then frames of 12 and as many as they say.
    let mut ends = vec![40];
    while *ends.last().unwrap() < bytes.len() {
        let at = *ends.last().unwrap();
        let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap());
        ends.push(at + 12 + length as usize);
    }
    assert_eq!((ends.len(), ends[2]), (3, bytes.len()));
    let files = ["provenance.db", "provenance.db.key"].map(|name| (name, folder.path().join(name)));
    let name = spill.file_name().unwrap();
    std::thread::scope(|scope| {
        for part in 0..4 {
            let (bytes, ends, files) = (&bytes, &ends, &files);
            scope.spawn(move || {
                for cut in (part..=bytes.len()).step_by(4) {
                    let folder = tempfile::tempdir().unwrap();
                    for (name, from) in files {
                        std::fs::copy(from, folder.path().join(name)).unwrap();
                    }
                    std::fs::write(folder.path().join(name), &bytes[..cut]).unwrap();
                    let tracker = Tracker::open(config(folder.path())).unwrap();
                    let status = queue(&tracker);
                    tracker.close();
                    let whole = ends.iter().filter(|end| **end <= cut).count();
                    let rest = cut - whole.checked_sub(1).map_or(0, |last| ends[last]);
                    let found = numbers(&events(folder.path()));
                    assert_eq!(found.len(), whole.max(1), "{cut}");
                    assert!(
                        found.contains(&0) && (1..whole as u64).all(|n| found.contains(&n)),
                        "{cut}"
                    );
                    assert_eq!(status["spill_passed_over"], rest, "{cut}");
                    assert_eq!(status["replayed"], whole.max(1) - 1, "{cut}");
                    let aside = spills(folder.path(), ".damaged");
                    assert_eq!(aside.len(), usize::from(rest > 0 || cut == 0), "{cut}");
                    for aside in aside {
                        assert_eq!(std::fs::read(aside).unwrap(), bytes[..cut], "{cut}");
                    }
                    assert_eq!(spills(folder.path(), ".spill"), NONE, "{cut}");
                }
            });
        }
    });
}

#[test]
fn a_spill_file_whose_owner_lives_is_left_alone() {
    use std::os::fd::AsRawFd;
    let (folder, spill) = left_behind(1);
    let owner = std::fs::File::open(&spill).unwrap();
    // SAFETY: a call without pointers, on an open file.
    assert_eq!(
        unsafe { libc::flock(owner.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) },
        0
    );
    Tracker::open(config(folder.path())).unwrap().close();
    assert_eq!(numbers(&events(folder.path())), [0]);
    assert!(spill.exists());
    drop(owner);
    Tracker::open(config(folder.path())).unwrap().close();
    assert_eq!(numbers(&events(folder.path())).len(), 2);
    assert!(!spill.exists());
}

#[test]
fn a_spill_file_that_could_not_be_removed_adds_nothing() {
    let (folder, spill) = left_behind(3);
    let bytes = std::fs::read(&spill).unwrap();
    for _ in 0..3 {
        std::fs::write(&spill, &bytes).unwrap();
        Tracker::open(config(folder.path())).unwrap().close();
        assert_eq!(numbers(&events(folder.path())).len(), 4);
    }
}

#[test]
fn a_newer_spill_file_is_left_as_it_is_and_named() {
    let (folder, spill) = left_behind(1);
    let mut bytes = std::fs::read(&spill).unwrap();
    bytes[8] = 9;
    std::fs::write(&spill, &bytes).unwrap();
    let tracker = Tracker::open(config(folder.path())).unwrap();
    let name = spill.file_name().unwrap().to_str().unwrap();
    assert_eq!(queue(&tracker)["spill_aside"], serde_json::json!([name]));
    tracker.close();
    assert_eq!(std::fs::read(&spill).unwrap(), bytes);
}

#[test]
fn where_neither_the_database_nor_the_spill_file_takes_it_the_configuration_decides() {
    let try_it = |refuse: bool, spill: &str| {
        let evidence = Evidence::new(|config| {
            if refuse {
                config.egress.on_evidence_failure = OnEvidenceFailure::Refuse;
            }
            match spill {
                "none" => config.spill_max_bytes = 0,
                "small" => config.spill_max_bytes = 100,
                _ => {}
            }
        });
        let folder = evidence.folder.path();
        if spill == "blocked" {
            let name = format!("provenance.db.{}.spill", evidence.tracker.instance_id());
            std::fs::create_dir(folder.join(name)).unwrap();
        }
        let _tracker = evidence.scoped();
        let locked = lock(&evidence.database());
        let began = Instant::now();
        let share = provenance::share("queue:letters").begin();
        assert!(began.elapsed() < Duration::from_millis(2500), "{:?}", began.elapsed());
        match share {
            Ok(share) => {
                assert!(!refuse);
                share.sent();
            }
            Err(blocked) => assert!(refuse && blocked.is_evidence()),
        }
        assert!(evidence.blind_spots().contains(&"evidence_failure".to_owned()));
        let refused = event(1).submit_durable().unwrap_err();
        assert!(refused.is_evidence(), "{refused}");
        event(2).submit();
        let status = queue(&evidence.tracker);
        let why = text(&status["last_error"]);
        assert!(why.contains("locked") && why.contains("spill"), "{status}");
        assert_eq!(status["spilled"], 0);
        assert_eq!(status["refused"], 0);
        drop(locked);
        // They were still being tried.
        evidence.tracker.flush(Duration::from_secs(10)).unwrap();
        let events = events(folder);
        assert_eq!(numbers(&events), [1, 2]);
        let outcome = if refuse { "blocked" } else { "sent" };
        assert_eq!(events[0]["extras"]["outcome"], outcome);
    };
    std::thread::scope(|scope| {
        for refuse in [false, true] {
            for spill in ["none", "small", "blocked"] {
                scope.spawn(move || try_it(refuse, spill));
            }
        }
    });
}

/// Every write that makes a file grow fails, as on a full disk.
fn fill_the_disk(full: bool) {
    let most = libc::rlimit {
        rlim_cur: if full { 1 } else { libc::RLIM_INFINITY },
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the structure is whole, and lives as long as the call; the signal is ignored, so that
    // writes fail instead of ending the process.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &most), 0);
    }
}

#[test]
#[ignore = "run by other tests"]
fn child_fills_the_disk() {
    let (guard, folder, _) = init(|_| {});
    event(0).submit_durable().unwrap();
    fill_the_disk(true);
    let began = Instant::now();
    let refused = event(1).submit_durable().unwrap_err();
    let took = began.elapsed();
    for n in 2..200 {
        event(n).submit();
    }
    let status = queue(guard.tracker().unwrap());
    fill_the_disk(false);
    assert!(refused.is_evidence(), "{refused}");
    assert!(took < Duration::from_millis(2500), "{took:?}");
    assert!(text(&status["last_error"]).contains("spill file"), "{status}");
    provenance::flush(Duration::from_secs(10)).unwrap();
    assert_eq!(queue(guard.tracker().unwrap())["refused"], 0);
    assert_eq!(numbers(&events(&folder)), (0..200).collect::<Vec<_>>());
    println!("\nfreed .");
}

#[test]
fn a_full_disk_is_a_typed_error_and_what_waits_lands_once_it_is_freed() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start("recorder::child_fills_the_disk", folder.path(), "");
    assert!(process.said("freed").is_some());
    assert_eq!(process.end(), 0);
}

/// The most memory that this process had in use so far, in MiB.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim_end_matches("kB").trim().parse::<u64>().unwrap() / 1024
}

#[test]
#[ignore = "run by other tests"]
fn child_is_flooded() {
    const THREADS: u64 = 64;
    let (guard, folder, how) = init(|_| {});
    let (long, tracker) = (Duration::from_millis(how.parse().unwrap()), guard.tracker().unwrap());
    event(0).submit_durable().unwrap();
    let before = most_memory();
    let locked = lock(&folder.join("provenance.db"));
    let began = Instant::now();
    let sent: Vec<(u64, Duration, usize)> = std::thread::scope(|scope| {
        let send = || {
            let (mut sent, mut longest, mut deepest) = (0, Duration::ZERO, 0);
            while began.elapsed() < long {
                let asked = Instant::now();
                event(sent).submit();
                longest = longest.max(asked.elapsed());
                sent += 1;
                if sent % 256 == 0 {
                    deepest = deepest.max(queue(tracker)["depth"].as_u64().unwrap_or(0) as usize);
                }
            }
            (sent, longest, deepest)
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(send)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let status = queue(tracker);
    assert!(status["spill_bytes"].as_u64().unwrap() > 0, "{status}");
    let (after, total) = (most_memory(), sent.iter().map(|(sent, ..)| sent).sum::<u64>());
    let longest = sent.iter().map(|(_, longest, _)| *longest).max().unwrap();
    let deepest = sent.iter().map(|(.., deepest)| *deepest).max().unwrap();
    drop(locked);
    let freed = Instant::now();
    while queue(tracker)["spill_bytes"] != 0 {
        assert!(
            freed.elapsed() < 10 * long + Duration::from_secs(30),
            "{}",
            queue(tracker)
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    provenance::flush(Duration::from_secs(30)).unwrap();
    let status = queue(tracker);
    assert_eq!(status["refused"], 0, "{status}");
    assert_eq!(status["written"], total + 1);
    drop(guard);
    let mut reader = Reader::open(&folder.join("provenance.db")).unwrap();
    assert_eq!(reader.summary().unwrap().events["X_ONE"], total as i64 + 1);
    assert!(reader.verify().unwrap().is_ok());
    println!(
        "\nlanded {total} {} {} {deepest} .",
        after - before,
        longest.as_millis()
    );
}

#[test]
fn sixty_four_writers_and_a_full_queue_lose_nothing_in_bounded_memory() {
    let folder = tempfile::tempdir().unwrap();
    let long = if is_long() { "10000" } else { "1500" };
    let mut process = Process::start("recorder::child_is_flooded", folder.path(), long);
    let said = process.said("landed ").unwrap();
    let numbers: Vec<u64> = said.split(' ').filter_map(|number| number.parse().ok()).collect();
    let [total, memory, longest, deepest] = numbers[..] else {
        panic!("{said}")
    };
    println!("{total} events, {memory} MiB more, {longest} ms at most, {deepest} in the queue at most");
    assert!(deepest > 30_000, "{said}");
    // 65,536 records wait, and as many again are on their way to the spill file.
    assert!(memory < 400, "{said}");
    // No longer than anybody waits while records go to the disk.
    assert!(longest < 12_000, "{said}");
    assert_eq!(process.end(), 0);
}

#[tokio::test]
async fn a_task_awaits_its_record_and_others_go_on_meanwhile() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    event(0).submit_durable_async().await.unwrap();
    assert_eq!(numbers(&evidence.events()), [0]);
    let locked = lock(&evidence.database());
    let record = event(1).submit_durable_async();
    let share = provenance::share("queue:letters").payload("x").begin_async();
    drop(event(2).submit_durable_async());
    let turns = async {
        let mut turns = 0;
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(400) {
            tokio::time::sleep(Duration::from_millis(1)).await;
            turns += 1;
        }
        drop(locked);
        turns
    };
    let (turns, record, share) = tokio::join!(turns, record, share);
    assert!(turns > 10, "{turns}");
    record.unwrap();
    share.unwrap().sent();
    let events = evidence.events();
    assert_eq!(numbers(&events), [0, 1, 2]);
    assert!(events.iter().any(|event| event["extras"]["outcome"] == "sent"));
}

#[test]
fn without_a_runtime_a_task_gets_a_typed_error_in_time() {
    let evidence = Evidence::new(|config| {
        config.spill_max_bytes = 0;
        config.egress.on_evidence_failure = OnEvidenceFailure::Refuse;
    });
    let _tracker = evidence.scoped();
    let locked = lock(&evidence.database());
    let began = Instant::now();
    let record = event(1).submit_durable_async();
    let share = provenance::share("queue:letters").begin_async();
    assert!(began.elapsed() < Duration::from_millis(500));
    assert!(block_on(record).unwrap_err().is_evidence());
    assert!(block_on(share).err().unwrap().is_evidence());
    assert!(began.elapsed() < Duration::from_millis(2_500), "{:?}", began.elapsed());
    assert!(evidence.blind_spots().contains(&"evidence_failure".to_owned()));
    drop(locked);
    evidence.tracker.flush(Duration::from_secs(10)).unwrap();
    assert_eq!(numbers(&evidence.events()), [1]);
}

/// An executor of the smallest kind.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
#[ignore = "run by other tests"]
fn child_steps_back() {
    let (guard, folder, _) = init(|_| {});
    // SAFETY: a name that ends with a zero; the library that the other test preloads has it, with this type.
    let step: extern "C" fn(i64) = unsafe {
        let found = libc::dlsym(libc::RTLD_DEFAULT, c"step_clock".as_ptr());
        assert!(!found.is_null());
        std::mem::transmute(found)
    };
    let now = || provenance::Timestamp::now().0;
    let began = now();
    for n in 0..60 {
        if n % 20 == 10 {
            step(-3600);
        }
        if n % 20 == 15 {
            step(7200);
        }
        event(n).submit();
        if n % 7 == 0 {
            event(1000 + n).submit_durable().unwrap();
        }
    }
    step(-1_000_000_000);
    assert!(now() < began);
    event(60).submit_durable().unwrap();
    let share = provenance::share("queue:letters").begin().unwrap();
    share.sent();
    drop(guard);
    // In the order in which they were sent, whatever their time: pages go by it.
    let mut reader = Reader::open(&folder.join("provenance.db")).unwrap();
    let query = EventQuery {
        event_type: Some("X_ONE".into()),
        limit: 500,
        ..EventQuery::default()
    };
    let page = reader.events(&query).unwrap();
    let of = |event: &provenance::store::StoredEvent| event.extras["n"].as_u64().unwrap();
    let order: Vec<u64> = page.events.iter().rev().map(of).filter(|n| *n < 1000).collect();
    assert_eq!(order, (0..=60).collect::<Vec<_>>());
    let times: Vec<i64> = page.events.iter().rev().map(|event| event.created_at.0).collect();
    assert!(times.windows(2).any(|pair| pair[1] < pair[0]));
    // The next start, still in the past, goes on after them.
    let tracker = Tracker::open(config(&folder)).unwrap();
    {
        let _tracker = test::scoped(&tracker);
        event(61).submit_durable().unwrap();
    }
    tracker.close();
    let all = events(&folder);
    assert!(numbers(&all).contains(&61));
    assert!(all.iter().any(|event| event["extras"]["outcome"] == "sent"));
    println!("\nstepped .");
}

#[test]
fn when_the_clock_is_set_back_the_order_is_that_of_the_chain() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("clock.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/recorder/clock.c");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status()
        .unwrap();
    assert!(compiled.success());
    let mut process = Process::start_with("recorder::child_steps_back", folder.path(), "", |command| {
        command.env("LD_PRELOAD", &library);
    });
    assert!(process.said("stepped").is_some());
    assert_eq!(process.end(), 0);
}

/// How often the threads of ours that this process has were put on a processor, by name.
fn turns() -> BTreeMap<String, u64> {
    let mut turns = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        let read = |name: &str| std::fs::read_to_string(task.join(name)).unwrap_or_default();
        let name = read("comm").trim().to_owned();
        if name.starts_with("provenance") {
            let count = read("schedstat").split_whitespace().nth(2).and_then(|n| n.parse().ok());
            *turns.entry(name).or_default() += count.unwrap_or(0);
        }
    }
    turns
}

#[test]
#[ignore = "run by other tests"]
fn child_rests() {
    let (_guard, ..) = init(|_| {});
    event(0).submit_durable().unwrap();
    block_on(event(1).submit_durable_async()).unwrap();
    // What follows a commit, the index and the alarms, is over by then.
    std::thread::sleep(Duration::from_secs(5));
    let before = turns();
    std::thread::sleep(Duration::from_secs(5));
    let after = turns();
    let woken: Vec<_> = after
        .iter()
        .map(|(name, n)| (name, n - before.get(name).unwrap_or(&0)))
        .collect();
    println!("\nrested {woken:?} .");
    assert!(woken.iter().map(|(_, n)| n).sum::<u64>() <= 15, "{woken:?}");
    assert!(woken.len() <= 2, "{woken:?}");
}

#[test]
fn a_service_with_nothing_to_do_wakes_up_once_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start("recorder::child_rests", folder.path(), "");
    assert!(process.said("rested").is_some());
    assert_eq!(process.end(), 0);
}

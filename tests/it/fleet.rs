//! Many instances in one place: a PostgreSQL database, or a file.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection, RunQueryDsl};
use provenance::config::{Config, Storage, Token};
use provenance::store::{EventQuery, FingerprintQuery, FlowQuery, Reader, StoredEvent};
use provenance::{Error, Scope, Tracker, record_event, set_owner, tag, test};
use provenance_audit::api::{Api, Options, Request, Source};
use provenance_tests::Evidence;
use provenance_tests::postgres::Database;

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const PATIENCE: Duration = Duration::from_secs(30);

fn config(storage: Storage) -> Config {
    Config {
        storage,
        service: "fleet".into(),
        key: Some(Token(KEY.into())),
        ..Config::default()
    }
}

fn at(url: &str) -> Storage {
    Storage::Postgres(Token(url.into()))
}

fn open(url: &str) -> Tracker {
    Tracker::open(config(at(url))).unwrap()
}

fn refused(config: Config) -> Error {
    Tracker::open(config).unwrap_err()
}

fn record(tracker: &Tracker, target: &str, email: &str) {
    let _in_force = test::scoped(tracker);
    record_event("X_SENT".parse().unwrap())
        .target(target)
        .value("contact.email", "email", email)
        .unwrap()
        .submit();
}

/// All events, newest first, through small pages.
fn all(storage: &Storage) -> Vec<StoredEvent> {
    let mut reader = Reader::connect(storage).unwrap();
    let mut query = EventQuery {
        limit: 700,
        ..EventQuery::default()
    };
    let mut events = Vec::new();
    loop {
        let page = reader.events(&query).unwrap();
        events.extend(page.events);
        match page.next_cursor {
            Some(cursor) => query.cursor = Some(cursor),
            None => return events,
        }
    }
}

fn targets(events: &[StoredEvent]) -> Vec<&str> {
    events.iter().map(|event| event.target.as_deref().unwrap()).collect()
}

#[test]
fn two_instances_are_read_as_one_and_each_has_its_chain() {
    let database = Database::new("SELECT 1");
    let (a, b) = (open(&database.url()), open(&database.url()));
    for round in 0..20 {
        let (tracker, name) = if round % 2 == 0 { (&a, "a") } else { (&b, "b") };
        record(
            tracker,
            &format!("{name}{round}"),
            &format!("person{round}@example.com"),
        );
        tracker.flush(PATIENCE).unwrap();
        // Places in the order are milliseconds.
        std::thread::sleep(Duration::from_millis(2));
    }
    {
        let _in_force = test::scoped(&a);
        let _scope = Scope::new("job\0with what PostgreSQL's texts cannot hold").enter();
        set_owner("email", "ada@example.com");
        tag("contact.email", "email", "ada@example.com").unwrap();
        let share = provenance::share("smtp.example.com")
            .payload(b"To: ada@example.com")
            .begin()
            .unwrap();
        share.status(250);
    }
    a.flush(PATIENCE).unwrap();
    // Half of the questions are asked before the index knows the events, half after.
    for closed in [false, true] {
        if closed {
            a.close();
            b.close();
        }
        let storage = at(&database.url());
        let events = all(&storage);
        assert_eq!(events.len(), 21);
        assert_eq!(events[0].event_type, "DATA_SHARE");
        assert_eq!(events[0].extras["outcome"], "status");
        assert_eq!(events[0].extras["status"], 250);
        assert!(events[0].actor.contains('\0'), "{:?}", events[0].actor);
        let expected: Vec<String> = (0..20)
            .rev()
            .map(|round| format!("{}{round}", if round % 2 == 0 { "a" } else { "b" }))
            .collect();
        assert_eq!(targets(&events[1..]), expected);
        let of = |tracker: &Tracker| {
            let own = |event: &&StoredEvent| event.extras["instance"] == tracker.instance_id();
            events.iter().filter(own).count()
        };
        assert_eq!((of(&a), of(&b)), (11, 10));

        let mut reader = Reader::connect(&storage).unwrap();
        let owner = events[0].matched_tags[0]["owner"].as_str().unwrap().to_owned();
        let fingerprint = events[4].matched_tags[0]["fingerprint"].as_str().unwrap().to_owned();
        let mut ask = |query: EventQuery| {
            let page = reader.events(&EventQuery { limit: 100, ..query }).unwrap();
            page.events
                .iter()
                .map(|event| event.event_id.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            ask(EventQuery {
                owner: Some(owner),
                ..EventQuery::default()
            }),
            [events[0].event_id.clone()]
        );
        assert_eq!(
            ask(EventQuery {
                fingerprint: Some(fingerprint),
                ..EventQuery::default()
            }),
            [events[4].event_id.clone()]
        );
        assert_eq!(
            ask(EventQuery {
                category: Some("user.contact.email".into()),
                ..EventQuery::default()
            })
            .len(),
            21
        );
        assert_eq!(
            ask(EventQuery {
                event_type: Some("X_SENT".into()),
                ..EventQuery::default()
            })
            .len(),
            20
        );
        assert!(reader.event(&events[7].event_id).unwrap().is_some());
        let page = reader
            .fingerprints(&FingerprintQuery {
                limit: 9,
                ..FingerprintQuery::default()
            })
            .unwrap();
        assert_eq!((page.fingerprints.len(), page.next_cursor.is_some()), (9, true));
        assert_eq!(page.fingerprints[1].count, 1);
        let flows = reader.flows(&FlowQuery::default()).unwrap();
        assert_eq!(flows.iter().map(|flow| flow.events).sum::<i64>(), 21);
        let summary = reader.summary().unwrap();
        assert_eq!(summary.events["X_SENT"], 20);
        assert_eq!(summary.chain["instances"], 2);
        assert_eq!(summary.chain["ok"], true, "{:?}", summary.chain);
        let verified = reader.verify().unwrap();
        assert!(verified.is_ok(), "{:?}", verified.first_problem());
        // The outcome is an event of the chain.
        let held: Vec<i64> = verified.instances.iter().map(|instance| instance.events).collect();
        assert_eq!(held, [12, 10]);
    }
}

#[test]
fn an_edited_row_is_named() {
    for (edit, index) in [
        ("UPDATE provenance.events SET owner = '\\x00' WHERE seq = 3", 3),
        ("DELETE FROM provenance.events WHERE seq = 2", 2),
        ("UPDATE provenance.texts SET text = 'b2' WHERE text = 'a2'", 2),
        ("UPDATE provenance.batches SET root = '\\x00' WHERE batch_no = 4", 4),
    ] {
        let database = Database::new("SELECT 1");
        let tracker = open(&database.url());
        for round in 1..6 {
            record(&tracker, &format!("a{round}"), "ada@example.com");
            tracker.flush(PATIENCE).unwrap();
        }
        database.connect().batch_execute(edit).unwrap();
        let verified = Reader::connect(&at(&database.url())).unwrap().verify().unwrap();
        let problem = verified.first_problem().unwrap();
        let expected = format!("{}-{index}", tracker.instance_id());
        assert_eq!(problem.event_id.as_deref(), Some(&*expected), "{edit}: {problem:?}");
    }
}

/// Registers a value with `a` and sends it with `b` until `b` knows it; gives how long that took.
fn crosses(a: &Tracker, b: &Tracker, email: &str) -> Duration {
    {
        let _in_force = test::scoped(a);
        let _scope = Scope::new("signup").enter();
        set_owner("email", email);
        tag("contact.email", "email", email).unwrap();
    }
    let registered = Instant::now();
    let _in_force = test::scoped(b);
    loop {
        let share = provenance::share("smtp.example.com")
            .payload(email.as_bytes())
            .begin()
            .unwrap();
        share.sent();
        b.flush(PATIENCE).unwrap();
        let events = all(&b.config().storage);
        if !events[0].matched_tags.is_empty() {
            assert_eq!(events[0].matched_tags[0]["source"], "signup");
            return registered.elapsed();
        }
        assert!(registered.elapsed() < Duration::from_secs(20), "never");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn what_one_instance_registers_another_detects_within_two_seconds() {
    let database = Database::new("SELECT 1");
    let folder = tempfile::tempdir().unwrap();
    for storage in [at(&database.url()), Storage::Sqlite(folder.path().join("e.db"))] {
        let a = Tracker::open(config(storage.clone())).unwrap();
        let b = Tracker::open(config(storage.clone())).unwrap();
        for (from, to, email) in [(&a, &b, "ada@example.com"), (&b, &a, "alan@example.com")] {
            let took = crosses(from, to, email);
            assert!(took < Duration::from_secs(2), "{storage}: {took:?}");
        }
        assert_eq!(a.status()["following"]["values"], 1);
        // Of the value that `a` registered, `b` was the one to see events.
        b.close();
        a.close();
        let mut reader = Reader::connect(&storage).unwrap();
        let page = reader
            .fingerprints(&FingerprintQuery {
                limit: 9,
                ..FingerprintQuery::default()
            })
            .unwrap();
        let counts: Vec<i64> = page.fingerprints.iter().map(|value| value.count).collect();
        assert_eq!(counts, [1, 1], "{storage}");
        assert!(reader.verify().unwrap().is_ok());
        // And a third one that starts later knows both.
        let c = Tracker::open(config(storage.clone())).unwrap();
        assert_eq!(c.status()["registry_size"], 2, "{storage}");
        c.close();
    }
}

#[test]
fn twenty_start_at_once_on_an_empty_database() {
    let database = Database::new("SELECT 1");
    let url = database.url();
    let gate = std::sync::Barrier::new(20);
    std::thread::scope(|scope| {
        for number in 0..20 {
            let (url, gate) = (&url, &gate);
            scope.spawn(move || {
                gate.wait();
                let tracker = open(url);
                record(&tracker, &format!("t{number}"), "ada@example.com");
                tracker.close();
            });
        }
    });
    assert_eq!(all(&at(&url)).len(), 20);
    let verified = Reader::connect(&at(&url)).unwrap().verify().unwrap();
    assert!(verified.is_ok() && verified.instances.len() == 20);
}

#[test]
fn what_cannot_be_used_is_refused_and_left_as_it_is() {
    let database = Database::new("SELECT 1");
    let url = database.url();
    let no_evidence = Reader::connect(&at(&url)).err().unwrap();
    assert!(
        no_evidence.is_store() && no_evidence.to_string().contains("no evidence"),
        "{no_evidence}"
    );
    let tracker = open(&url);
    record(&tracker, "a", "ada@example.com");
    tracker.close();

    let without = refused(Config {
        key: None,
        ..config(at(&url))
    });
    assert!(without.is_key(), "{without}");
    let other = refused(Config {
        key: Some(Token("ab".repeat(32))),
        ..config(at(&url))
    });
    assert!(
        other.is_key() && other.to_string().contains("another master key"),
        "{other}"
    );

    database
        .connect()
        .batch_execute("UPDATE provenance.layout SET version = 99")
        .unwrap();
    for newer in [refused(config(at(&url))), Reader::connect(&at(&url)).err().unwrap()] {
        assert!(
            newer.is_store() && newer.to_string().contains("newer version"),
            "{newer}"
        );
    }
    database
        .connect()
        .batch_execute("UPDATE provenance.layout SET version = 1")
        .unwrap();
    let verified = Reader::connect(&at(&url)).unwrap().verify().unwrap();
    assert_eq!(verified.instances.len(), 1, "who was refused is not registered");

    // Nobody listens on port 1.
    let started = Instant::now();
    let away = refused(config(at(
        "postgres://ada:s3cr%40t@127.0.0.1:1/evidence?password=s3cret",
    )));
    assert!(away.is_store() && started.elapsed() < Duration::from_secs(5), "{away}");
    let text = format!("{away} {away:?}");
    assert!(
        text.contains("cannot be reached") && text.contains("127.0.0.1:1/evidence"),
        "{text}"
    );
    assert!(!text.contains("s3c") && !text.contains("ada"), "{text}");
}

#[test]
fn the_audit_api_reads_it_and_shows_no_password() {
    let database = Database::new("SELECT 1");
    let url = database.url().replacen("postgres@", "postgres:s3cret@", 1);
    assert!(url.contains("s3cret"));
    let tracker = open(&url);
    record(&tracker, "a", "ada@example.com");
    tracker.flush(PATIENCE).unwrap();
    for source in [Source::Tracker(tracker.clone()), Source::Storage(at(&url))] {
        let api = Api::new(source, &Options::new()).unwrap();
        for path in ["status", "events", "fingerprints"] {
            let answer = api.handle(&Request {
                method: "GET".into(),
                path: format!("/runtime-audit/{path}"),
                headers: vec![("host".into(), "localhost".into())],
                ..Request::default()
            });
            let text = String::from_utf8(answer.body.into_bytes().unwrap()).unwrap();
            assert_eq!(answer.status, 200, "{path}: {text}");
            assert!(!text.contains("s3cret"), "{text}");
        }
    }
}

/// Each of `count` events exactly once, in order, and a chain that holds.
#[track_caller]
fn exactly_once(storage: &Storage, count: usize) {
    let mut events = all(storage);
    events.reverse();
    let expected: Vec<String> = (0..count).map(|number| format!("t{number}")).collect();
    assert_eq!(targets(&events), expected);
    let verified = Reader::connect(storage).unwrap().verify().unwrap();
    assert!(verified.is_ok(), "{:?}", verified.first_problem());
}

#[test]
fn connections_that_are_cut_while_they_commit_neither_lose_nor_repeat() {
    let database = Database::new("SELECT 1");
    let url = database.url();
    let tracker = open(&url);
    let done = AtomicBool::new(false);
    let cuts = std::thread::scope(|scope| {
        let cutter = scope.spawn(|| {
            let mut connection = database.connect();
            let mut cuts = 0;
            while !done.load(Ordering::Relaxed) {
                cuts += diesel::sql_query(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                     WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'provenance' \
                     AND query ~ '^(BEGIN|COPY|COMMIT|INSERT)'",
                )
                .execute(&mut connection)
                .unwrap();
                std::thread::sleep(Duration::from_millis(3));
            }
            cuts
        });
        for number in 0..1500 {
            record(&tracker, &format!("t{number}"), &format!("person{number}@example.com"));
            if number % 10 == 0 {
                let _ = tracker.flush(Duration::from_millis(20));
            }
        }
        done.store(true, Ordering::Relaxed);
        cutter.join().unwrap()
    });
    tracker.flush(PATIENCE).unwrap();
    let retries = tracker.status()["queue"]["retries"].as_u64().unwrap();
    assert!(cuts > 5 && retries > 5, "{cuts} cuts, {retries} retries");
    tracker.close();
    exactly_once(&at(&url), 1500);
}

#[test]
fn a_server_that_is_killed_and_comes_back_gets_everything_once() {
    let mut server = Private::start();
    let url = server.url();
    let tracker = open(&url);
    let mut before = 0;
    for number in 0..1200 {
        record(&tracker, &format!("t{number}"), "ada@example.com");
        if number % 40 == 0 {
            let _ = tracker.flush(Duration::from_millis(20));
        }
        match number % 400 {
            200 => server.kill(),
            300 => {
                let started = Instant::now();
                let _in_force = test::scoped(&tracker);
                // On disk all the same: in the spill file.
                record_event("X_SPILLED".parse().unwrap())
                    .target("x")
                    .submit_durable()
                    .unwrap();
                assert!(started.elapsed() < Duration::from_secs(3));
                let status = tracker.status();
                let error = status["queue"]["last_error"].as_str().unwrap_or_default().to_owned();
                assert!(error.contains("cannot be reached") || error.contains("cut"), "{error}");
                assert!(status["queue"]["spilled"].as_u64().unwrap() > 0, "{status:?}");
                before += 1;
                server.start_again();
            }
            _ => {}
        }
    }
    tracker.flush(PATIENCE).unwrap();
    let until = Instant::now() + PATIENCE;
    while !tracker.status()["queue"]["last_error"].is_null() {
        assert!(Instant::now() < until, "{:?}", tracker.status()["queue"]);
        std::thread::sleep(Duration::from_millis(50));
    }
    tracker.close();
    let storage = at(&url);
    let events = all(&storage);
    assert_eq!(events.len(), 1200 + before);
    let mut rest: Vec<&str> = targets(&events).into_iter().filter(|target| *target != "x").collect();
    rest.reverse();
    let expected: Vec<String> = (0..1200).map(|number| format!("t{number}")).collect();
    assert_eq!(rest, expected);
    let verified = Reader::connect(&storage).unwrap().verify().unwrap();
    assert!(verified.is_ok(), "{:?}", verified.first_problem());
}

/// A server of one test, which may be killed.
struct Private {
    folder: tempfile::TempDir,
    programs: PathBuf,
    postmaster: Option<Child>,
}

impl Private {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Private {
            folder,
            programs: programs(),
            postmaster: None,
        };
        if is_root() {
            let path = server.folder.path().to_str().unwrap();
            assert!(
                Command::new("chown")
                    .args(["postgres:", path])
                    .status()
                    .unwrap()
                    .success()
            );
        }
        let data = server.data();
        let made = server
            .command("initdb")
            .args([
                "--username",
                "postgres",
                "--auth",
                "trust",
                "--encoding",
                "UTF8",
                "--locale",
                "C",
                "--no-sync",
            ])
            .args(["--pgdata", &data])
            .status()
            .unwrap();
        assert!(made.success());
        server.start_again();
        server
    }

    fn data(&self) -> String {
        self.folder.path().join("data").to_str().unwrap().to_owned()
    }

    fn url(&self) -> String {
        let folder = self.folder.path().to_str().unwrap().replace('/', "%2F");
        format!("postgres://postgres@{folder}/postgres")
    }

    /// The server refuses to be root.
    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = match is_root() {
            true => {
                let mut command = Command::new("setpriv");
                command
                    .args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"])
                    .arg(program);
                command
            }
            false => Command::new(program),
        };
        command
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn start_again(&mut self) {
        let folder = self.folder.path().to_str().unwrap().to_owned();
        let until = Instant::now() + PATIENCE;
        // Right after a kill, backends may still hold the memory.
        while Instant::now() < until {
            let data = self.data();
            let mut command = self.command("postgres");
            command.args(["-D", &data, "-k", &folder, "-c", "listen_addresses=", "-c", "fsync=off"]);
            let mut child = command.spawn().unwrap();
            while child.try_wait().unwrap().is_none() && Instant::now() < until {
                if PgConnection::establish(&self.url()).is_ok() {
                    self.postmaster = Some(child);
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("the server did not start");
    }

    /// As `kill -9` does it.
    fn kill(&mut self) {
        let mut child = self.postmaster.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Some(mut child) = self.postmaster.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}

/// Debian keeps the server's programs out of PATH, a folder a version.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders
        .into_iter()
        .rev()
        .find(|folder| folder.join("postgres").exists())
        .unwrap_or_else(|| Path::new("").to_owned())
}

#[test]
fn evidence_in_files_is_as_before() {
    // What follows others must not stand in the way of a file that nobody writes any more.
    let evidence = Evidence::default();
    record(&evidence.tracker, "a", "ada@example.com");
    evidence.tracker.close();
    let names: Vec<String> = std::fs::read_dir(evidence.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(!names.iter().any(|name| name.ends_with("-wal")), "{names:?}");
}

//! Many instances in one place: a PostgreSQL database, or a file.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use provenance::config::{AuditRole, AuditToken, Config, Storage, Token};
use provenance::store::{EventQuery, FingerprintQuery, FlowQuery, Reader, StoredEvent};
use provenance::{Error, Pseudonyms, Scope, Tracker, link_owner, record_event, set_owner, tag, test, tracked_model};
use provenance_audit::api::{Api, Options, Request, Source};
use provenance_tests::Evidence;
use provenance_tests::postgres::{Database, Private};

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

#[test]
fn a_person_is_erased_over_http_and_others_stay() {
    let database = Database::new("SELECT 1");
    let dpo = AuditToken {
        name: "dpo".into(),
        token: Token("dpo-token-of-some-length".into()),
        roles: vec![AuditRole::Erase],
    };
    let tracker = Tracker::open(Config {
        audit_tokens: vec![dpo],
        ..config(at(&database.url()))
    })
    .unwrap();
    let people = ["ada@example.com", "alan@example.com"];
    for email in people {
        let _in_force = test::scoped(&tracker);
        let _scope = Scope::new("signup").enter();
        set_owner("email", email);
        let event = record_event("X_SENT".parse().unwrap());
        event.value("contact.email", "email", email).unwrap().submit();
    }
    tracker.flush(PATIENCE).unwrap();
    let pseudonyms = Pseudonyms::load(tracker.config()).unwrap();
    let known = || {
        let events = format!("{:?}", all(&at(&database.url())));
        people.map(|email| events.contains(pseudonyms.owner("email", email).unwrap().as_str()))
    };
    assert_eq!(known(), [true, true]);

    let api = Api::new(Source::Tracker(tracker.clone()), &Options::of(tracker.config())).unwrap();
    let ask = |confirmation: Option<&str>| -> serde_json::Value {
        let question = serde_json::json!({
            "kind": "email", "identifier": "ada@example.com", "reason": "case 17", "confirmation": confirmation,
        });
        let headers = [
            ("host", "localhost"),
            ("content-type", "application/json"),
            ("x-audit-token", "dpo-token-of-some-length"),
        ];
        let answer = api.handle(&Request {
            method: "POST".into(),
            path: "/runtime-audit/erasure".into(),
            headers: headers.map(|(name, value)| (name.into(), value.into())).into(),
            body: question.to_string().into_bytes(),
            ..Request::default()
        });
        let body = answer.body.into_bytes().unwrap();
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    };
    let preview = ask(None);
    assert_eq!(known(), [true, true], "a preview erases nobody");
    let erased = ask(preview["confirmation"].as_str());
    assert_eq!(erased["state"], "erased", "{erased}");
    assert_eq!(known(), [false, true]);
    let verified = Reader::connect(&at(&database.url())).unwrap().verify().unwrap();
    assert!(verified.is_ok(), "{:?}", verified.first_problem());
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

/// What is done to the next batch's COMMIT.
const PASS: u8 = 0;
const CUT_BEFORE: u8 = 1;
const CUT_THE_ANSWER: u8 = 2;

/// A way to the server that is cut in the middle of a COMMIT, when it is told to.
struct Proxy {
    port: u16,
    next: Arc<AtomicU8>,
    cuts: Arc<AtomicUsize>,
}

impl Proxy {
    fn before(server: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (next, cuts) = (Arc::new(AtomicU8::new(PASS)), Arc::new(AtomicUsize::new(0)));
        let (asked, counted) = (next.clone(), cuts.clone());
        // Ends with the process.
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), UnixStream::connect(&server).unwrap());
                let (asked, counted) = (asked.clone(), counted.clone());
                std::thread::spawn(move || pass(client, server, &asked, &counted));
            }
        });
        Proxy { port, next, cuts }
    }

    fn url(&self, database: &Database) -> String {
        let (_, name) = database
            .url()
            .rsplit_once('/')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .unwrap();
        format!(
            "postgres://postgres@127.0.0.1:{}/{name}?sslmode=disable&gssencmode=disable",
            self.port
        )
    }
}

fn pass(mut client: TcpStream, mut server: UnixStream, next: &AtomicU8, cuts: &AtomicUsize) {
    let silent = Arc::new(AtomicBool::new(false));
    let (mut answers, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let held_back = silent.clone();
    let answering = std::thread::spawn(move || {
        let mut bytes = [0; 65_536];
        while let Ok(count @ 1..) = answers.read(&mut bytes) {
            if held_back.load(Ordering::SeqCst) || back.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = back.shutdown(Shutdown::Both);
    });
    let (mut bytes, mut is_batch) = ([0; 65_536], false);
    while let Ok(count @ 1..) = client.read(&mut bytes) {
        let said = &bytes[..count];
        is_batch |= [&b"COPY \"events\""[..], b"INSERT INTO fingerprints"]
            .iter()
            .any(|copy| memchr::memmem::find(said, copy).is_some());
        if said.ends_with(b";COMMIT\0") && std::mem::take(&mut is_batch) {
            match next.swap(PASS, Ordering::SeqCst) {
                CUT_BEFORE => {
                    cuts.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                CUT_THE_ANSWER => {
                    silent.store(true, Ordering::SeqCst);
                    cuts.fetch_add(1, Ordering::SeqCst);
                }
                _ => {}
            }
        }
        if server.write_all(said).is_err() {
            break;
        }
    }
    if silent.load(Ordering::SeqCst) {
        // The server has answered by then.
        answering.join().unwrap();
    }
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
}

#[test]
fn a_batch_whose_commit_is_cut_off_is_there_once() {
    let database = Database::new("SELECT 1");
    let proxy = Proxy::before(database.socket());
    let tracker = open(&proxy.url(&database));
    for number in 0..30 {
        proxy
            .next
            .store([CUT_BEFORE, CUT_THE_ANSWER][number % 2], Ordering::SeqCst);
        if number % 3 == 2 {
            // A batch of values alone has no place in the chain: it is known by its first value.
            let _in_force = test::scoped(&tracker);
            let _scope = Scope::new("signup").enter();
            tag("contact.email", "email", format!("alone{number}@example.com")).unwrap();
        } else {
            record(&tracker, &format!("t{number}"), &format!("person{number}@example.com"));
        }
        tracker.flush(PATIENCE).unwrap();
        assert_eq!(proxy.cuts.load(Ordering::SeqCst), number + 1);
    }
    let retries = tracker.status()["queue"]["retries"].as_u64().unwrap();
    assert!(retries >= 30, "{retries}");
    tracker.close();
    let storage = at(&database.url());
    let mut events = all(&storage);
    events.reverse();
    let numbers = (0..30).filter(|number| number % 3 != 2);
    let expected: Vec<String> = numbers.map(|number| format!("t{number}")).collect();
    assert_eq!(targets(&events), expected);
    let mut reader = Reader::connect(&storage).unwrap();
    assert_eq!(reader.summary().unwrap().fingerprints, 30);
    let verified = reader.verify().unwrap();
    assert!(verified.is_ok(), "{:?}", verified.first_problem());
}

#[test]
fn four_instances_lose_nothing_and_keep_their_order_while_the_server_is_killed() {
    const EVENTS: usize = 400;
    let mut server = Private::start();
    let storage = at(&server.url());
    let folder = tempfile::tempdir().unwrap();
    let spilling = || Config {
        spill_folder: Some(folder.path().to_owned()),
        ..config(storage.clone())
    };
    let instances: Vec<Tracker> = (0..4).map(|_| Tracker::open(spilling()).unwrap()).collect();
    let sent = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for tracker in &instances {
            let sent = &sent;
            scope.spawn(move || {
                for number in 0..EVENTS {
                    record(tracker, &format!("t{number}"), &format!("person{number}@example.com"));
                    sent.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
        }
        for part in [1, 3] {
            while sent.load(Ordering::SeqCst) < part * EVENTS {
                std::thread::sleep(Duration::from_millis(5));
            }
            server.kill();
            // Long enough for them to spill.
            std::thread::sleep(Duration::from_millis(1_300));
            server.start_again();
        }
    });
    for tracker in &instances {
        // The spill file takes it, too: what counts is that it goes on to the database.
        let until = Instant::now() + PATIENCE;
        while tracker.status()["queue"]["spill_bytes"] != 0 || tracker.status()["queue"]["depth"] != 0 {
            assert!(Instant::now() < until, "{:?}", tracker.status()["queue"]);
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(tracker.status()["queue"]["spilled"].as_u64().unwrap() > 0);
        tracker.close();
    }
    let mut events = all(&storage);
    events.reverse();
    assert_eq!(events.len(), 4 * EVENTS);
    for tracker in &instances {
        let own = events
            .iter()
            .filter(|event| event.extras["instance"] == tracker.instance_id());
        let own: Vec<&str> = own.map(|event| event.target.as_deref().unwrap()).collect();
        let expected: Vec<String> = (0..EVENTS).map(|number| format!("t{number}")).collect();
        assert_eq!(own, expected);
    }
    let verified = Reader::connect(&storage).unwrap().verify().unwrap();
    assert!(verified.is_ok(), "{:?}", verified.first_problem());
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "no spill file is left"
    );
}

#[test]
fn a_folder_that_takes_no_spill_file_is_told_of_at_the_start() {
    let database = Database::new("SELECT 1");
    let missing = |max_bytes: u64| Config {
        spill_folder: Some("/nowhere/at/all".into()),
        spill_max_bytes: max_bytes,
        ..config(at(&database.url()))
    };
    let error = refused(missing(1_000));
    assert!(
        error.is_config() && error.to_string().contains("spill.folder"),
        "{error}"
    );
    Tracker::open(missing(0)).unwrap().close();
}

diesel::table! {
    users (id) { id -> Integer, email -> Text }
}

#[tracked_model(owner(email, id as "user"))]
#[derive(Queryable, Selectable)]
#[diesel(table_name = users, check_for_backend(diesel::sqlite::Sqlite))]
#[allow(dead_code)]
struct User {
    id: i32,
    #[tracked("contact.email")]
    email: String,
}

#[test]
fn links_that_another_instance_makes_are_known_within_two_seconds() {
    let database = Database::new("SELECT 1");
    let folder = tempfile::tempdir().unwrap();
    for storage in [at(&database.url()), Storage::Sqlite(folder.path().join("e.db"))] {
        let a = Tracker::open(config(storage.clone())).unwrap();
        let b = Tracker::open(config(storage.clone())).unwrap();
        {
            let _in_force = test::scoped(&a);
            link_owner(("user", 7), ("email", "ada@example.com"));
        }
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(b.status()["following"]["links"], 1, "{storage}");
        // So a row in which somebody else has that address says nothing to the contrary.
        let _in_force = test::scoped(&b);
        let mut db = diesel::SqliteConnection::establish(":memory:").unwrap();
        db.batch_execute(
            "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT); INSERT INTO users VALUES (8, 'ada@example.com')",
        )
        .unwrap();
        let loaded: Vec<User> = users::table.select(User::as_select()).load(&mut db).unwrap();
        assert_eq!(loaded.len(), 1);
        let spots = serde_json::json!(b.status()["blind_spots"]).to_string();
        assert!(spots.contains("owner_conflict"), "{storage}: {spots}");
        a.close();
        b.close();
    }
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

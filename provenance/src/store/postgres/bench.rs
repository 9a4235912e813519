//! Batches into PostgreSQL, against a raw COPY of the same rows in transactions of the same size into the same tables:
//! by the writer alone, and from the hook to the commit and the index. And what an event takes there.
//!
//! `scripts/bench store-postgres`, with EVENTS in the environment; the server is one that does not sync, so that what is
//! compared is work, not waiting.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::pg::CopyFormat;
use diesel::prelude::*;

use crate::config::{Config, Storage, Token};
use crate::store::Writer;
use crate::store::bench::{number, record};
use crate::store::tests::keys;
use crate::store::write::Instance;
use crate::{Scope, Tracker, record_event, set_owner, tag, test};

/// Rows of one raw transaction: as many as the recorder takes.
const BATCH: i64 = 2_048;
/// Events between two rounds of the index.
const ROUND: i64 = 4_096;
const RUNS: usize = 5;

macro_rules! raw_tables {
    ($($table:ident ($($key:ident),*) { $($column:ident: $of:ident),* })*) => {
        mod raw {
            $(diesel::table! { raw.$table ($($key),*) { $($column -> $of,)* } })*
        }
    };
}
// COPY does not look at types here: the bytes come from the same columns.
raw_tables! {
    events (n, seq) {
        n: BigInt, seq: BigInt, at: BigInt, after: BigInt, event_type: Integer, actor: Integer, target: Integer,
        recipient: Integer, outcome_of: BigInt, owner: Binary, user_id: Binary, request_id: Binary, payload: Binary,
        extras: Binary, tags: Binary, proof: Binary
    }
    fingerprints (n, id) {
        n: BigInt, id: BigInt, fingerprint: Binary, tag: Integer, category: Integer, owner: Binary, kind: SmallInt,
        entry: Binary, created_at: BigInt
    }
    event_terms (term, at, n, seq) { term: BigInt, at: BigInt, n: BigInt, seq: BigInt, more: Binary }
}

macro_rules! copy {
    ($table:expr, $bytes:expr, $connection:expr) => {
        diesel::copy_from($table)
            .from_raw_data($table, |out: &mut dyn std::io::Write| -> QueryResult<()> {
                out.write_all($bytes)
                    .map_err(|e| diesel::result::Error::SerializationError(Box::new(e)))
            })
            .with_format(CopyFormat::Binary)
            .execute($connection)
    };
}

/// A new database of the server that `scripts/postgres` has begun.
fn database(name: &str) -> String {
    let server = std::env::var("PROVENANCE_TEST_POSTGRES").expect("begin this with scripts/bench store-postgres");
    let mut connection = PgConnection::establish(&format!("{server}/postgres")).unwrap();
    connection.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
    format!("{server}/{name}")
}

/// The time that passed, and CPU time of ours and of the server.
type Spent = (Duration, [Duration; 2]);

#[derive(Default)]
struct Ratios(Vec<f64>, Vec<f64>);

impl Ratios {
    fn add(&mut self, what: &str, events: i64, (ours, our_cpu): Spent, (raw, raw_cpu): Spent) {
        let micros = |time: Duration| time.as_secs_f64() * 1e6 / events as f64;
        let [[our_client, our_server], [raw_client, raw_server]] = [our_cpu, raw_cpu].map(|cpu| cpu.map(micros));
        let ratio = raw.as_secs_f64() / ours.as_secs_f64();
        let cpu = (raw_client + raw_server) / (our_client + our_server);
        println!(
            "{what}: us an event {:.2}, raw COPY {:.2}, ratio {ratio:.2}; CPU {our_client:.2} + server {our_server:.2}, \
             raw COPY {raw_client:.2} + server {raw_server:.2}, ratio {cpu:.2}",
            micros(ours),
            micros(raw),
        );
        self.0.push(ratio);
        self.1.push(cpu);
    }
}

impl Drop for Ratios {
    fn drop(&mut self) {
        for (of, ratios) in [("time", &mut self.0), ("CPU", &mut self.1)] {
            ratios.sort_unstable_by(f64::total_cmp);
            println!("median ratio by {of}: {:.2} (guide 0.6)", ratios[ratios.len() / 2]);
        }
    }
}

#[test]
#[ignore = "a benchmark: scripts/bench store-postgres"]
fn by_the_writer() {
    let events = number("EVENTS", 100_000);
    println!("{events} events with 3 tags, 1 of 5 a share: append of batches at hand until the commit, no index");
    let mut ratios = Ratios::default();
    for run in 0..RUNS {
        let url = database(&format!("by_the_writer_{run}"));
        let instance = Instance {
            id: (run as u64).to_be_bytes(),
            service: "bench".into(),
            environment: None,
            build: String::new(),
        };
        let mut writer = Writer::open(&Storage::Postgres(Token(url.clone())), &keys(), &instance).unwrap();
        writer.restore(0).unwrap();
        let at = |n: u64| 1_700_000_000_000_000 + n.cast_signed() * 1000;
        let records: Vec<_> = (0..events).map(|n| record(n, 50_000, at(n))).collect();
        let mut watch = PgConnection::establish(&url).unwrap();
        let before = cpu(&mut watch, None, "provenance");
        let started = Instant::now();
        for batch in records.chunks(BATCH as usize) {
            writer.append(batch, None).unwrap();
        }
        let ours = (started.elapsed(), since(cpu(&mut watch, None, "provenance"), before));
        let raw = raw(&mut watch, events.cast_signed());
        ratios.add("the writer", events.cast_signed(), ours, raw.0);
    }
}

#[test]
#[ignore = "a benchmark: scripts/bench store-postgres"]
fn from_the_hook() {
    let events = number("EVENTS", 100_000).cast_signed();
    println!("{events} events with 3 tags, from the hook to the commit, rounds of the index between them");
    let mut ratios = Ratios::default();
    for run in 0..RUNS {
        let url = database(&format!("from_the_hook_{run}"));
        let ours = ours(&url, events);
        let mut connection = PgConnection::establish(&url).unwrap();
        let raw = raw(&mut connection, events);
        ratios.add("committed", events, ours.0, raw.0);
        let (ours, raw) = (ours.1.as_secs_f64(), raw.1.as_secs_f64());
        println!("indexed too: ratio {:.2}", raw / ours);
        if run + 1 == RUNS {
            sizes(&mut connection, events);
        }
    }
}

/// CPU time so far: of this thread, or those with a name, and of the server's processes for an application.
fn cpu(server: &mut PgConnection, thread: Option<&str>, application: &str) -> [Duration; 2] {
    #[derive(QueryableByName)]
    struct Backend {
        #[diesel(sql_type = diesel::sql_types::Integer)]
        pid: i32,
    }
    let spent = |of: &std::path::Path| {
        let text = std::fs::read_to_string(of.join("schedstat")).unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    };
    let client = match thread {
        None => spent("/proc/thread-self".as_ref()),
        Some(name) => std::fs::read_dir("/proc/self/task")
            .unwrap()
            .map(|task| task.unwrap().path())
            .filter(|task| std::fs::read_to_string(task.join("comm")).unwrap().trim() == name)
            .map(|task| spent(&task))
            .sum(),
    };
    let backends: Vec<Backend> = diesel::sql_query(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1",
    )
    .bind::<diesel::sql_types::Text, _>(application)
    .load(server)
    .unwrap();
    let backends = backends
        .iter()
        .map(|backend| spent(format!("/proc/{}", backend.pid).as_ref()));
    [client, backends.sum()]
}

fn since([client, server]: [Duration; 2], [before, server_before]: [Duration; 2]) -> [Duration; 2] {
    [client - before, server - server_before]
}

/// From the first event to the last one's commit, and until the index knows them all.
fn ours(url: &str, events: i64) -> (Spent, Duration) {
    let mut watch = PgConnection::establish(url).unwrap();
    let tracker = Tracker::open(Config {
        storage: Storage::Postgres(Token(url.to_owned())),
        key: Some(Token("ab".repeat(32))),
        ..Config::default()
    })
    .unwrap();
    let _in_force = test::scoped(&tracker);
    // People whom the service knows already.
    let people: Vec<String> = (0..1_000).map(|person| format!("person{person}@example.com")).collect();
    for email in &people {
        let _scope = Scope::new("signup").enter();
        set_owner("email", email.as_str());
        tag("contact.email", "email", email.as_str()).unwrap();
    }
    tracker.flush(Duration::MAX).unwrap();
    let mut spent = || cpu(&mut watch, Some("provenance"), "provenance");
    let before = spent();
    let started = Instant::now();
    for number in 0..events {
        let email = people[number as usize % people.len()].as_str();
        let _scope = Scope::new("POST /orders").enter();
        set_owner("email", email);
        record_event("X_ORDER".parse().unwrap())
            .target("orders")
            .value("contact.email", "email", email)
            .and_then(|event| event.value("financial.income", "income", 1_000 + number % 5_000))
            .and_then(|event| event.value("user.demographic.age_range", "age", 18 + number % 60))
            .unwrap()
            .submit();
    }
    tracker.flush(Duration::MAX).unwrap();
    let committed = (started.elapsed(), since(spent(), before));
    // Also brings the index up to date; its thread is gone then.
    tracker.close();
    let refused = tracker.status()["queue"]["refused"].clone();
    assert_eq!(refused, 0, "events were refused");
    (committed, started.elapsed())
}

/// The same rows of `events` and `fingerprints` by COPY alone, with the same indexes; without and with those of
/// `event_terms`.
fn raw(connection: &mut PgConnection, events: i64) -> (Spent, Duration) {
    connection
        .batch_execute(
            "CREATE SCHEMA raw; \
             CREATE TABLE raw.events (LIKE provenance.events INCLUDING ALL); \
             CREATE TABLE raw.fingerprints (LIKE provenance.fingerprints INCLUDING ALL); \
             CREATE TABLE raw.event_terms (LIKE provenance.event_terms INCLUDING ALL)",
        )
        .unwrap();
    let file = std::path::PathBuf::from(format!("/tmp/provenance-bench-{}", std::process::id()));
    let mut read = |select: String| {
        let copy = format!("COPY ({select}) TO '{}' (FORMAT binary)", file.display());
        connection.batch_execute(&copy).unwrap();
        let bytes = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        bytes
    };
    let batches: Vec<_> = (1..=events)
        .step_by(BATCH as usize)
        .map(|from| {
            let until = from + BATCH;
            read(format!(
                "SELECT * FROM provenance.events WHERE seq >= {from} AND seq < {until} ORDER BY seq"
            ))
        })
        .collect();
    let values = read("SELECT * FROM provenance.fingerprints ORDER BY n, id".to_owned());
    let rounds: Vec<_> = (1..=events)
        .step_by(ROUND as usize)
        .map(|from| {
            let until = from + ROUND;
            read(format!(
                "SELECT * FROM provenance.event_terms WHERE seq >= {from} AND seq < {until} ORDER BY term, at, n, seq"
            ))
        })
        .collect();
    connection.batch_execute("SET application_name = 'raw'").unwrap();
    let before = cpu(connection, None, "raw");
    let started = Instant::now();
    connection
        .transaction(|connection| copy!(raw::fingerprints::table, &values, connection))
        .unwrap();
    for batch in &batches {
        connection
            .transaction(|connection| copy!(raw::events::table, batch, connection))
            .unwrap();
    }
    let committed = started.elapsed();
    let spent = since(cpu(connection, None, "raw"), before);
    for round in &rounds {
        connection
            .transaction(|connection| copy!(raw::event_terms::table, round, connection))
            .unwrap();
    }
    ((committed, spent), started.elapsed())
}

fn sizes(connection: &mut PgConnection, events: i64) {
    #[derive(QueryableByName)]
    struct Size {
        #[diesel(sql_type = diesel::sql_types::Text)]
        name: String,
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        heap: i64,
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        whole: i64,
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        rows: i64,
    }
    connection.batch_execute("ANALYZE").unwrap();
    let sizes: Vec<Size> = diesel::sql_query(
        "SELECT relname::text AS name, pg_relation_size(oid) AS heap, pg_total_relation_size(oid) AS whole, \
         reltuples::bigint AS rows FROM pg_class WHERE relnamespace = 'provenance'::regnamespace AND relkind = 'r' \
         ORDER BY 3 DESC",
    )
    .load(connection)
    .unwrap();
    println!("table, rows, bytes an event: rows alone, with indexes");
    for size in sizes.iter().filter(|size| size.rows > 0) {
        println!(
            "{:>14} {:>9} {:>8.1} {:>8.1}",
            size.name,
            size.rows,
            size.heap as f64 / events as f64,
            size.whole as f64 / events as f64
        );
    }
}

//! Batches into PostgreSQL: ours, from the hook to the commit and the index, against a raw COPY of the same rows in
//! transactions of the same size into the same tables. And what an event takes there.
//!
//! `scripts/bench store-postgres [events]`; the server is one that does not sync, so that what is compared is
//! work, not waiting.

use std::time::{Duration, Instant};

use anyhow::Context;
use diesel::connection::SimpleConnection;
use diesel::pg::CopyFormat;
use diesel::prelude::*;
use provenance::config::{Config, Storage, Token};
use provenance::{Scope, Tracker, record_event, set_owner, tag, test};

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

fn main() -> anyhow::Result<()> {
    let events: i64 = std::env::args().nth(1).map_or(Ok(100_000), |count| count.parse())?;
    let server = std::env::var("PROVENANCE_TEST_POSTGRES").context("begin this with scripts/bench store-postgres")?;
    let folder = std::path::PathBuf::from("/tmp");
    let (mut ratios, mut cpu_ratios) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        let name = format!("bench_{run}");
        PgConnection::establish(&format!("{server}/postgres"))?.batch_execute(&format!("CREATE DATABASE {name}"))?;
        let url = format!("{server}/{name}");
        let (ours, our_cpu) = ours(&url, events)?;
        let mut connection = PgConnection::establish(&url)?;
        let (raw, raw_cpu) = raw(&mut connection, &folder, events)?;
        let whats = ["committed", "indexed too"];
        for ((what, ours), raw) in whats.into_iter().zip(ours).zip(raw) {
            let ratio = raw.as_secs_f64() / ours.as_secs_f64();
            println!(
                "{what:>12}: ours {:>8.0} events/s   raw COPY {:>8.0} events/s   ratio {ratio:.2}",
                events as f64 / ours.as_secs_f64(),
                events as f64 / raw.as_secs_f64(),
            );
            if what == whats[0] {
                ratios.push(ratio);
            }
        }
        let micros =
            |[client, server]: [Duration; 2]| [client, server].map(|cpu| cpu.as_secs_f64() * 1e6 / events as f64);
        let ([our_client, our_server], [raw_client, raw_server]) = (micros(our_cpu), micros(raw_cpu));
        let ratio = (raw_client + raw_server) / (our_client + our_server);
        println!(
            "CPU us an event until committed: ours {our_client:.1} + server {our_server:.1}   \
             raw COPY {raw_client:.1} + server {raw_server:.1}   ratio {ratio:.2}"
        );
        cpu_ratios.push(ratio);
        if run + 1 == RUNS {
            sizes(&mut connection, events)?;
        }
    }
    for ratios in [&mut ratios, &mut cpu_ratios] {
        ratios.sort_unstable_by(f64::total_cmp);
    }
    println!(
        "median ratio of what is committed {:.2} (guide: 0.6), by CPU {:.2}",
        ratios[RUNS / 2],
        cpu_ratios[RUNS / 2]
    );
    Ok(())
}

/// CPU time so far: of this process's threads with a name, and of the server's processes for an application.
fn cpu(server: &mut PgConnection, thread: &str, application: &str) -> anyhow::Result<[Duration; 2]> {
    #[derive(QueryableByName)]
    struct Backend {
        #[diesel(sql_type = diesel::sql_types::Integer)]
        pid: i32,
    }
    let spent = |of: &std::path::Path| -> anyhow::Result<Duration> {
        let text = std::fs::read_to_string(of.join("schedstat"))?;
        let nanos = text.split(' ').next().context("schedstat")?.parse()?;
        Ok(Duration::from_nanos(nanos))
    };
    let mut client = Duration::ZERO;
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm"))?.trim() == thread {
            client += spent(&task)?;
        }
    }
    let backends: Vec<Backend> = diesel::sql_query(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1",
    )
    .bind::<diesel::sql_types::Text, _>(application)
    .load(server)?;
    let mut backend = Duration::ZERO;
    for Backend { pid } in backends {
        backend += spent(std::path::Path::new(&format!("/proc/{pid}")))?;
    }
    Ok([client, backend])
}

fn since([client, server]: [Duration; 2], [before, server_before]: [Duration; 2]) -> [Duration; 2] {
    [client - before, server - server_before]
}

/// From the first event to the last one's commit, and until the index knows them all; and what our writer and the
/// server spent until the commit.
fn ours(url: &str, events: i64) -> anyhow::Result<([Duration; 2], [Duration; 2])> {
    let mut watch = PgConnection::establish(url)?;
    let tracker = Tracker::open(Config {
        storage: Storage::Postgres(Token(url.to_owned())),
        key: Some(Token("ab".repeat(32))),
        ..Config::default()
    })?;
    let _in_force = test::scoped(&tracker);
    // People whom the service knows already.
    let people: Vec<String> = (0..1_000).map(|person| format!("person{person}@example.com")).collect();
    for email in &people {
        let _scope = Scope::new("signup").enter();
        set_owner("email", email.as_str());
        tag("contact.email", "email", email.as_str())?;
    }
    tracker.flush(Duration::MAX)?;
    let before = cpu(&mut watch, "provenance", "provenance")?;
    let started = Instant::now();
    for number in 0..events {
        let email = people[number as usize % people.len()].as_str();
        let _scope = Scope::new("POST /orders").enter();
        set_owner("email", email);
        record_event("X_ORDER".parse()?)
            .target("orders")
            .value("contact.email", "email", email)?
            .value("financial.income", "income", 1_000 + number % 5_000)?
            .value("user.demographic.age_range", "age", 18 + number % 60)?
            .submit();
    }
    tracker.flush(Duration::MAX)?;
    let committed = started.elapsed();
    let spent = since(cpu(&mut watch, "provenance", "provenance")?, before);
    // Also brings the index up to date.
    tracker.close();
    let indexed = started.elapsed();
    let refused = tracker.status()["queue"]["refused"].clone();
    anyhow::ensure!(refused == 0, "{refused} events were refused");
    Ok(([committed, indexed], spent))
}

/// The same rows of `events` and `fingerprints` by COPY alone, with the same indexes; without and with those of
/// `event_terms`.
fn raw(
    connection: &mut PgConnection,
    folder: &std::path::Path,
    events: i64,
) -> anyhow::Result<([Duration; 2], [Duration; 2])> {
    connection.batch_execute(
        "CREATE SCHEMA raw; \
         CREATE TABLE raw.events (LIKE provenance.events INCLUDING ALL); \
         CREATE TABLE raw.fingerprints (LIKE provenance.fingerprints INCLUDING ALL); \
         CREATE TABLE raw.event_terms (LIKE provenance.event_terms INCLUDING ALL)",
    )?;
    let file = folder.join(format!("provenance-bench-{}", std::process::id()));
    let mut read = |select: String| -> anyhow::Result<Vec<u8>> {
        connection.batch_execute(&format!("COPY ({select}) TO '{}' (FORMAT binary)", file.display()))?;
        let bytes = std::fs::read(&file)?;
        std::fs::remove_file(&file)?;
        Ok(bytes)
    };
    let mut batches = Vec::new();
    for from in (1..=events).step_by(BATCH as usize) {
        let until = from + BATCH;
        batches.push(read(format!(
            "SELECT * FROM provenance.events WHERE seq >= {from} AND seq < {until} ORDER BY seq"
        ))?);
    }
    let values = read("SELECT * FROM provenance.fingerprints ORDER BY n, id".to_owned())?;
    let mut rounds = Vec::new();
    for from in (1..=events).step_by(ROUND as usize) {
        let until = from + ROUND;
        rounds.push(read(format!(
            "SELECT * FROM provenance.event_terms WHERE seq >= {from} AND seq < {until} ORDER BY term, at, n, seq"
        ))?);
    }
    connection.batch_execute("SET application_name = 'raw'")?;
    let before = cpu(connection, "store_postgres", "raw")?;
    let started = Instant::now();
    connection.transaction(|connection| copy!(raw::fingerprints::table, &values, connection))?;
    for batch in &batches {
        connection.transaction(|connection| copy!(raw::events::table, batch, connection))?;
    }
    let committed = started.elapsed();
    let spent = since(cpu(connection, "store_postgres", "raw")?, before);
    for round in &rounds {
        connection.transaction(|connection| copy!(raw::event_terms::table, round, connection))?;
    }
    Ok(([committed, started.elapsed()], spent))
}

fn sizes(connection: &mut PgConnection, events: i64) -> anyhow::Result<()> {
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
    connection.batch_execute("ANALYZE")?;
    let sizes: Vec<Size> = diesel::sql_query(
        "SELECT relname::text AS name, pg_relation_size(oid) AS heap, pg_total_relation_size(oid) AS whole, \
         reltuples::bigint AS rows FROM pg_class WHERE relnamespace = 'provenance'::regnamespace AND relkind = 'r' \
         ORDER BY 3 DESC",
    )
    .load(connection)?;
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
    Ok(())
}

//! `scripts/bench hooks`: what one call of each hook costs, against the same call without it.
//!
//! Both run in short rounds that take turns, and the medians are compared: what else the machine
//! does hits both alike. Between rounds the evidence is flushed, so that a figure is of the thread
//! that serves a request; what the writer's thread does later stands in a column of its own.

use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use provenance::config::{Config, Durability, Storage};
use provenance::{Tracked, egress, provenance_input, tracked_model};
use serde::{Deserialize, Serialize};

diesel::table! {
    people (id) { id -> BigInt, email -> Text, name -> Text, income -> Double, city -> Text, plan -> Text, }
}

macro_rules! people {
    ($([$($attribute:meta),*] $row:ident [$($email:meta)?] [$($income:meta)?];)*) => {$(
        $(#[$attribute])*
        #[derive(Insertable, Queryable, Selectable, Clone)]
        #[diesel(table_name = people)]
        struct $row {
            id: i64,
            $(#[$email])?
            email: String,
            name: String,
            $(#[$income])?
            income: f64,
            city: String,
            plan: String,
        }

        impl $row {
            fn new(id: i64) -> Self {
                $row {
                    id,
                    email: format!("ada.lovelace{id}@example.com"),
                    name: "Ada Lovelace".to_owned(),
                    income: 4200.25 + id as f64,
                    city: "London".to_owned(),
                    plan: "family".to_owned(),
                }
            }
        }
    )*};
}
people! {
    [] Plain [] [];
    [tracked_model(owner(email))] Known [tracked("contact.email")] [tracked("financial.income")];
}

/// The body of a sign-up, ten tracked fields.
#[derive(Deserialize, Serialize, Tracked)]
#[tracked(owner(email))]
struct Signup {
    #[tracked("personal.name")]
    name: String,
    #[tracked("contact.email")]
    email: String,
    #[tracked("security.password")]
    password: String,
    #[tracked("demographic.date_of_birth")]
    birthday: String,
    #[tracked("demographic.gender")]
    gender: String,
    #[tracked("financial.income")]
    income: f64,
    #[tracked("financial.currency")]
    currency: String,
    #[tracked("preferences.budget_style")]
    budget_style: String,
    #[tracked("preferences.goals")]
    goals: String,
    #[tracked("preferences.week_start")]
    week_start: String,
}

impl Signup {
    fn new(n: u64) -> Self {
        Signup {
            name: format!("Ada Lovelace {n}"),
            email: format!("ada{n}@example.com"),
            password: format!("correct horse {n}"),
            birthday: format!("19{}-{:02}-{:02}", 40 + n % 60, n % 12 + 1, n % 28 + 1),
            gender: "female".to_owned(),
            income: 4200.25 + n as f64,
            currency: "EUR".to_owned(),
            budget_style: "zero based".to_owned(),
            goals: format!("a garden, and {n} books"),
            week_start: "monday".to_owned(),
        }
    }
}

#[inline(never)]
fn plain_handler(form: &Signup) -> usize {
    black_box(form).name.len()
}

#[provenance_input]
#[inline(never)]
fn tracked_handler(form: &Signup) -> usize {
    black_box(form).name.len()
}

type Sent = Result<(), ureq::Error>;

fn plain_send(agent: &ureq::Agent, url: &str, order: &serde_json::Value) -> Sent {
    agent.post(url).send_json(order)?.body_mut().read_to_string()?;
    Ok(())
}

#[egress(recipient = "shop", purpose = "order")]
fn tracked_send(agent: &ureq::Agent, url: &str, order: &serde_json::Value) -> Sent {
    agent.post(url).send_json(order)?.body_mut().read_to_string()?;
    Ok(())
}

/// As [`tracked_send`], of bytes that can be read only once.
#[egress(recipient = "shop", purpose = "order")]
fn tracked_stream(agent: &ureq::Agent, url: &str, order: &[u8]) -> Sent {
    let mut reader = order;
    let body = ureq::SendBody::from_reader(&mut reader);
    let request = agent.post(url).header("content-type", "application/json");
    request
        .header("content-length", order.len())
        .send(body)?
        .body_mut()
        .read_to_string()?;
    Ok(())
}

fn plain_stream(agent: &ureq::Agent, url: &str, order: &[u8]) -> Sent {
    let mut reader = order;
    let body = ureq::SendBody::from_reader(&mut reader);
    let request = agent.post(url).header("content-type", "application/json");
    request
        .header("content-length", order.len())
        .send(body)?
        .body_mut()
        .read_to_string()?;
    Ok(())
}

/// How long the two sides of one figure take turns.
const MEASURED: Duration = Duration::from_secs(4);

/// Figures of one comparison: nanoseconds a call.
struct Compared {
    plain: f64,
    ours: f64,
    /// CPU spent later, by the writer's thread mostly, for what one call recorded.
    writer: f64,
}

/// What the clock of a round shows.
#[derive(Clone, Copy)]
enum Clock {
    /// CPU of this thread: what others do on a busy machine is not in it.
    Cpu,
    /// Time that passes, for calls that wait.
    Wall,
}

impl Clock {
    fn now(self) -> f64 {
        let time = rustix::time::clock_gettime(match self {
            Clock::Cpu => rustix::time::ClockId::ThreadCPUTime,
            Clock::Wall => rustix::time::ClockId::Monotonic,
        });
        time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
    }
}

/// `calls` of each a round; `before` prepares what they work on, and is not measured.
///
/// Each side goes first in every other round: whoever comes after the flush finds the caches as the writer's code
/// has left them, and that must not always be the same side.
fn compare<T>(
    clock: Clock,
    calls: usize,
    work: &mut T,
    mut before: impl FnMut(&mut T),
    mut plain: impl FnMut(&mut T),
    mut ours: impl FnMut(&mut T),
) -> anyhow::Result<Compared> {
    let (mut plains, mut ourses, mut writers) = (Vec::new(), Vec::new(), Vec::new());
    let begun = Instant::now();
    let mut ours_first = false;
    while begun.elapsed() < MEASURED {
        ours_first = !ours_first;
        before(work);
        provenance::flush(Duration::from_secs(30))?;
        let writer = writer_ns();
        let mut one = |is_ours: bool| {
            let started = clock.now();
            match is_ours {
                true => ours(work),
                false => plain(work),
            }
            let taken = clock.now() - started;
            if is_ours { &mut ourses } else { &mut plains }.push(taken);
        };
        one(ours_first);
        one(!ours_first);
        // Whoever flushes works off what was put off to the writer.
        let flushed = Clock::Cpu.now();
        provenance::flush(Duration::from_secs(30))?;
        writers.push(writer_ns() - writer + Clock::Cpu.now() - flushed);
    }
    let writer = writers.iter().sum::<f64>() / (writers.len() * calls) as f64;
    let of = |mut taken: Vec<f64>| {
        taken.sort_by(f64::total_cmp);
        taken.get(taken.len() / 2).copied().unwrap_or(f64::NAN) / calls as f64
    };
    Ok(Compared {
        plain: of(plains),
        ours: of(ourses),
        writer,
    })
}

/// CPU time of the writer's thread so far; 0 where the system does not tell.
fn writer_ns() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks
        .map(|task| task.path())
        .filter(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "provenance"))
        .filter_map(|task| std::fs::read_to_string(task.join("schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<f64>().ok())
        .sum()
}

fn report(what: &str, gate: f64, Compared { plain, ours, writer }: &Compared) {
    let ratio = ours / plain;
    let met = if ratio <= gate { "met" } else { "missed" };
    println!("| {what} | {plain:.0} | {ours:.0} | {ratio:.2} | {gate:.2} | {met} | {writer:.0} |");
}

/// One part of the table of figures.
type Part = fn(&mut Tables) -> anyhow::Result<()>;

/// The same table twice: one that nothing watches, and one that is watched.
struct Tables {
    plain: SqliteConnection,
    watched: SqliteConnection,
    plain_rows: Vec<Plain>,
    known_rows: Vec<Known>,
    next: i64,
}

fn main() -> anyhow::Result<()> {
    // Made before ours is in force: nothing watches it.
    let plain = database()?;
    let folder = tempfile::tempdir()?;
    let mut config = Config {
        storage: Storage::Sqlite(folder.path().join("evidence.db")),
        ..Config::default()
    };
    config.egress.durability = Durability::Batched;
    // A loopback address would be left out as one's own machine.
    config.ignored_hosts.clear();
    let _provenance = provenance::init_with(config)?;
    let mut tables = Tables {
        plain,
        watched: database()?,
        plain_rows: Vec::new(),
        known_rows: Vec::new(),
        next: 0,
    };
    let wanted = std::env::args().nth(1).unwrap_or_default();
    println!("| call | plain ns | ours ns | ours / plain | gate | | later ns |");
    println!("|---|---|---|---|---|---|---|");
    let parts: [(&str, Part); 5] = [
        ("send", send),
        ("query", query),
        ("insert", insert),
        ("load", load),
        ("handler", handler),
    ];
    for (name, part) in parts {
        if name.contains(&wanted) {
            part(&mut tables)?;
        }
    }
    Ok(())
}

fn database() -> anyhow::Result<SqliteConnection> {
    let mut db = SqliteConnection::establish(":memory:")?;
    db.batch_execute(
        "CREATE TABLE people (id BIGINT PRIMARY KEY, email TEXT NOT NULL, name TEXT NOT NULL, income DOUBLE NOT NULL, \
         city TEXT NOT NULL, plan TEXT NOT NULL)",
    )?;
    Ok(db)
}

impl Tables {
    fn empty(&mut self) {
        for db in [&mut self.plain, &mut self.watched] {
            let _ = diesel::delete(people::table).execute(db);
        }
    }

    fn make(&mut self, rows: i64) {
        let ids = self.next..self.next + rows;
        self.plain_rows = ids.clone().map(Plain::new).collect();
        self.known_rows = ids.map(Known::new).collect();
    }
}

fn insert(tables: &mut Tables) -> anyhow::Result<()> {
    const ROWS: i64 = 250;
    for (what, step) in [("insert of values met before", 0), ("insert of values never met", ROWS)] {
        let before = |tables: &mut Tables| {
            tables.empty();
            tables.make(ROWS);
            tables.next += step;
        };
        let plain = |tables: &mut Tables| {
            for row in &tables.plain_rows {
                let _ = diesel::insert_into(people::table)
                    .values(row)
                    .execute(&mut tables.plain);
            }
        };
        let ours = |tables: &mut Tables| {
            for row in &tables.known_rows {
                let _ = diesel::insert_into(people::table)
                    .values(row)
                    .execute(&mut tables.watched);
            }
        };
        report(
            what,
            1.10,
            &compare(Clock::Cpu, ROWS as usize, tables, before, plain, ours)?,
        );
    }
    Ok(())
}

fn load(tables: &mut Tables) -> anyhow::Result<()> {
    const ROWS: i64 = 1000;
    for (what, step) in [("load of a row met before", 0), ("load of a row never met", ROWS)] {
        let mut filled = false;
        let before = |tables: &mut Tables| {
            if filled && step == 0 {
                return;
            }
            filled = true;
            tables.empty();
            tables.next += step;
            tables.make(ROWS);
            // By the plain model on both sides: the first load is the first that is seen of them.
            for db in [&mut tables.plain, &mut tables.watched] {
                let _ = db.transaction(|db| {
                    let rows = tables.plain_rows.iter();
                    rows.map(|row| diesel::insert_into(people::table).values(row).execute(db))
                        .collect::<QueryResult<Vec<_>>>()
                });
            }
        };
        let plain = |tables: &mut Tables| {
            let _ = black_box(people::table.select(Plain::as_select()).load(&mut tables.plain));
        };
        let ours = |tables: &mut Tables| {
            let _ = black_box(people::table.select(Known::as_select()).load(&mut tables.watched));
        };
        report(
            what,
            1.15,
            &compare(Clock::Cpu, ROWS as usize, tables, before, plain, ours)?,
        );
    }
    Ok(())
}

fn query(tables: &mut Tables) -> anyhow::Result<()> {
    const QUERIES: i64 = 200;
    fn city(db: &mut SqliteConnection) {
        for id in 0..QUERIES {
            let found = people::table
                .find(black_box(id))
                .select(people::city)
                .first::<String>(db);
            let _ = black_box(found.optional());
        }
    }
    let plain = |tables: &mut Tables| city(&mut tables.plain);
    let ours = |tables: &mut Tables| city(&mut tables.watched);
    let compared = compare(Clock::Cpu, QUERIES as usize, tables, |_| {}, plain, ours)?;
    report("query of nothing that is tracked", 1.02, &compared);
    Ok(())
}

/// Here "plain" is one parse of the body, and "ours" what the hook adds to the handler's own time.
fn handler(_: &mut Tables) -> anyhow::Result<()> {
    const CALLS: u64 = 100;
    struct Work {
        forms: Vec<Signup>,
        bodies: Vec<String>,
        next: u64,
    }
    for (what, step) in [
        ("handler, ten values met before", 0),
        ("handler, ten values, seven never met", CALLS),
    ] {
        let mut work = Work {
            forms: Vec::new(),
            bodies: Vec::new(),
            next: 0,
        };
        let before = |work: &mut Work| {
            work.next += step;
            work.forms = (work.next..work.next + CALLS).map(Signup::new).collect();
            work.bodies = work
                .forms
                .iter()
                .filter_map(|form| serde_json::to_string(form).ok())
                .collect();
        };
        let parse = |work: &mut Work| {
            for body in &work.bodies {
                let _ = black_box(serde_json::from_str::<Signup>(black_box(body)));
            }
        };
        let tracked = |work: &mut Work| {
            for form in &work.forms {
                black_box(tracked_handler(form));
            }
        };
        let untracked = |work: &mut Work| {
            for form in &work.forms {
                black_box(plain_handler(form));
            }
        };
        let own = compare(Clock::Cpu, CALLS as usize, &mut work, before, parse, untracked)?.ours;
        let mut added = compare(Clock::Cpu, CALLS as usize, &mut work, before, parse, tracked)?;
        added.ours -= own;
        report(what, 1.0, &added);
    }
    Ok(())
}

fn send(tables: &mut Tables) -> anyhow::Result<()> {
    const SENDS: usize = 40;
    // The address in the order is a known one.
    diesel::insert_into(people::table)
        .values(&Known::new(1))
        .execute(&mut tables.watched)?;
    let url = partner()?;
    let order = order();
    let text = serde_json::to_vec(&order)?;
    let agent = ureq::Agent::new_with_defaults();
    plain_stream(&agent, &url, &text)?;
    let plain = |_: &mut ()| (0..SENDS).for_each(|_| drop(black_box(plain_stream(&agent, &url, &text))));
    let ours = |_: &mut ()| (0..SENDS).for_each(|_| drop(black_box(tracked_stream(&agent, &url, &text))));
    report(
        "POST of 2 KB from a reader",
        1.05,
        &compare(Clock::Wall, SENDS, &mut (), |_| {}, plain, ours)?,
    );
    let plain = |_: &mut ()| (0..SENDS).for_each(|_| drop(black_box(plain_send(&agent, &url, &order))));
    let ours = |_: &mut ()| (0..SENDS).for_each(|_| drop(black_box(tracked_send(&agent, &url, &order))));
    report(
        "POST of 2 KB JSON",
        1.05,
        &compare(Clock::Wall, SENDS, &mut (), |_| {}, plain, ours)?,
    );
    Ok(())
}

/// An order of 2 KB, with one registered address.
fn order() -> serde_json::Value {
    let item = |n: usize| {
        serde_json::json!({
            "sku": format!("KB-{:05}", n * 37), "title": "Mechanical keyboard, tenkeyless", "quantity": n % 7 + 1,
            "unit_price": 80 + n * 13, "currency": "EUR", "updated_at": "2026-01-31T10:15:00Z",
        })
    };
    let email = "ada.lovelace1@example.com";
    serde_json::json!({ "customer": { "email": email }, "items": (0..13).map(item).collect::<Vec<_>>() })
}

/// Answers every POST on loopback until the process ends; gives its address.
fn partner() -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/orders", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = stream.set_nodelay(true);
                let Ok(mut answers) = stream.try_clone() else { return };
                let mut requests = BufReader::new(stream);
                let mut body = Vec::new();
                let mut length = 0;
                let mut line = String::new();
                while requests.read_line(&mut line).is_ok_and(|read| read > 0) {
                    if let Some(given) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = given.trim().parse().unwrap_or(0);
                    }
                    if line == "\r\n" {
                        body.resize(length, 0);
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                        if requests.read_exact(&mut body).is_err() || answers.write_all(answer).is_err() {
                            return;
                        }
                    }
                    line.clear();
                }
            });
        }
    });
    Ok(url)
}

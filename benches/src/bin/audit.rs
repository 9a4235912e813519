//! `scripts/bench audit`: the newest 50 events of a large file, from `provenance-audit serve` and from Datasette.
//!
//! The file is written to all the time by a host (this process, through the library), and `wrk` loads the two
//! servers in turns. Datasette gets the cheapest query that gives those rows, by the primary key, and gives their
//! columns as they are; ours are decoded events.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use provenance::config::{Config, Storage, Token};
use provenance::{Scope, Tracker, record_event, set_owner, test};
use provenance_benches::{Load, cpu, wrk};

const PEOPLE: u64 = 10_000;
/// Events a second that the host writes meanwhile.
const PACE: u64 = 1_000;
const CONNECTIONS: usize = 8;
const PAGE: &str = "/runtime-audit/events?limit=50";
const QUERY: &str = "SELECT * FROM events WHERE outcome_of IS NULL ORDER BY n DESC, seq DESC LIMIT 50";

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(program), Some(datasette)) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("begin this with scripts/bench audit");
    };
    let (events, seconds, rounds) = (
        variable("EVENTS", 1_000_000)?,
        variable("TIME", 30)?,
        variable("ROUNDS", 2)?,
    );
    let folder = tempfile::tempdir()?;
    // A file that an earlier run made spares the making.
    let file = std::env::var_os("FILE").map_or_else(|| folder.path().join("provenance.db"), PathBuf::from);
    let is_made = file.exists();
    let tracker = Tracker::open(Config {
        storage: Storage::Sqlite(file.clone()),
        key: Some(Token("ab".repeat(32))),
        ..Config::default()
    })?;
    let host = test::scoped(&tracker);
    if !is_made {
        let begun = Instant::now();
        for number in 0..events {
            event(number)?;
        }
        tracker.flush(Duration::MAX)?;
        println!("{events} events made in {:.0} s", begun.elapsed().as_secs_f64());
    }
    drop(host);

    let (over, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let measured = std::thread::scope(|scope| {
        scope.spawn(|| {
            let _in_force = test::scoped(&tracker);
            let begun = Instant::now();
            while !over.load(Ordering::Relaxed) {
                let due = begun.elapsed().as_millis() as u64 * PACE / 1000;
                let so_far = written.load(Ordering::Relaxed);
                (so_far..due).for_each(|number| event(number).unwrap_or_default());
                written.store(due.max(so_far), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let measured = measure(&program, &datasette, &file, seconds, rounds, &written);
        over.store(true, Ordering::Relaxed);
        measured
    });
    let refused = tracker.status()["queue"]["refused"].clone();
    anyhow::ensure!(refused == 0, "{refused} events were refused");
    measured
}

fn variable<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(name: &str, usual: T) -> anyhow::Result<T> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} is no number")),
        Err(_) => Ok(usual),
    }
}

/// One of what a service does with a person's data.
fn event(number: u64) -> anyhow::Result<()> {
    let email = format!("person{}@example.com", number % PEOPLE);
    let _scope = Scope::new("POST /orders").enter();
    set_owner("email", email.as_str());
    let (event_type, target) = match number % 5 {
        0 => ("DATA_COLLECTION", "form"),
        1 | 2 => ("DATA_STORAGE", "db:orders"),
        3 => ("DATA_SHARE", "https://api.mailchimp.com/3.0/lists/{id}/members"),
        _ => ("DATA_DERIVATION", "score.credit"),
    };
    record_event(event_type.parse()?)
        .target(target)
        .value("contact.email", "email", email.as_str())?
        .value("financial.income", "income", 1_000 + number % 5_000)?
        .value("user.demographic.age_range", "age", 18 + number % 60)?
        .submit();
    Ok(())
}

fn measure(
    program: &Path,
    datasette: &Path,
    file: &Path,
    seconds: u64,
    rounds: u64,
    written: &AtomicU64,
) -> anyhow::Result<()> {
    let ours = Server::start(
        Command::new(program)
            .args(["serve", "--bind", "127.0.0.1:0", "--db"])
            .arg(file),
        PAGE,
    )?;
    let encoded = QUERY.replace(' ', "+");
    let name = file.file_stem().context("the file has no name")?.to_string_lossy();
    let theirs = Server::start(
        Command::new(datasette)
            .args(["serve", "--host", "127.0.0.1", "--port", "0"])
            .arg(file),
        &format!("/{name}.json?_shape=objects&sql={encoded}"),
    )?;
    println!("| | requests/s | p50 ms | p99 ms | errors | CPU us a request |");
    println!("|---|---|---|---|---|---|");
    let (mut ratios, mut of_ours) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    let before = written.load(Ordering::Relaxed);
    for _ in 0..rounds {
        let (theirs, ours) = (theirs.round("Datasette", seconds)?, ours.round("ours", seconds)?);
        ratios.push(ours.requests_a_second / theirs.requests_a_second);
        of_ours.push(ours);
    }
    let pace = (written.load(Ordering::Relaxed) - before) as f64 / begun.elapsed().as_secs_f64();
    println!("\nmeanwhile {pace:.0} events/s were written");
    let worst = |figure: fn(&Load) -> f64| of_ours.iter().map(figure).fold(0.0, f64::max);
    for (what, is_met) in [
        (
            format!("requests/s, ours / Datasette: {ratios:.1?} (gate 10)"),
            ratios.iter().all(|ratio| *ratio >= 10.0),
        ),
        (
            format!("p99: {:.1} ms (gate 20)", worst(|load| load.p99)),
            worst(|load| load.p99) <= 20.0,
        ),
        (
            format!("errors: {} (gate 0)", worst(|load| load.errors as f64)),
            worst(|load| load.errors as f64) == 0.0,
        ),
    ] {
        println!("{what}: {}", if is_met { "met" } else { "missed" });
    }
    Ok(())
}

/// A running server, and the address that is asked for.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(command: &mut Command, path_and_query: &str) -> anyhow::Result<Self> {
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{command:?} does not start"))?;
        let (sender, said) = std::sync::mpsc::channel();
        let streams: [Option<Box<dyn std::io::Read + Send>>; 2] = [
            process.stdout.take().map(|stream| Box::new(stream) as _),
            process.stderr.take().map(|stream| Box::new(stream) as _),
        ];
        for stream in streams.into_iter().flatten() {
            let sender = sender.clone();
            // To the end, so that it never waits for us.
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        drop(sender);
        let address = said
            .iter()
            .find_map(|line| {
                let (_, rest) = line.split_once("http://")?;
                rest.split(['/', ' ']).next().map(str::to_owned)
            })
            .context("the server has ended, or does not say where it listens")?;
        let server = Server {
            process,
            url: format!("http://{address}{path_and_query}"),
        };
        let mut answer = ureq::get(&server.url).call()?;
        let answer: serde_json::Value = serde_json::from_str(&answer.body_mut().read_to_string()?)?;
        let rows = answer.get("events").or_else(|| answer.get("rows"));
        let rows = rows.and_then(serde_json::Value::as_array).map_or(0, Vec::len);
        anyhow::ensure!(rows == 50, "{} gives {rows} rows", server.url);
        Ok(server)
    }

    fn round(&self, name: &str, seconds: u64) -> anyhow::Result<Load> {
        // Not measured: caches fill, connections are opened.
        wrk(&self.url, CONNECTIONS, 1, None)?;
        let before = cpu(self.process.id())?;
        let load = wrk(&self.url, CONNECTIONS, seconds, None)?;
        let cpu = (cpu(self.process.id())? - before).as_secs_f64() * 1e6 / load.requests;
        println!(
            "| {name} | {:.0} | {:.1} | {:.1} | {} | {cpu:.0} |",
            load.requests_a_second, load.p50, load.p99, load.errors
        );
        Ok(load)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

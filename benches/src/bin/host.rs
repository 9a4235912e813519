//! `scripts/bench host`: what tracking costs a whole service.
//!
//! Two copies of the budget tracker, one with `enabled: false`, are loaded in turns by `wrk`, which
//! shares the machine with them. A round of one is followed by a round of the other, and the
//! medians are compared. CPU is what the process used, its writer's thread included.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use provenance_benches::{cpu, wrk};

/// Signed in, for each route; requests take turns.
const PEOPLE: usize = 32;
/// Noted for each before the rounds.
const EXPENSES: usize = 10;

struct Route {
    name: &'static str,
    gate: f64,
    seconds: u64,
    lua: &'static str,
}

const ROUTES: [Route; 3] = [
    Route {
        name: "GET /dashboard",
        gate: 0.95,
        seconds: 4,
        lua: r#"return wrk.format("GET", "/dashboard", { cookie = cookies[n % #cookies + 1] })"#,
    },
    Route {
        name: "POST /expenses",
        gate: 0.85,
        seconds: 4,
        lua: r#"return wrk.format("POST", "/expenses",
            { cookie = cookies[n % #cookies + 1], ["content-type"] = "application/x-www-form-urlencoded" },
            string.format("amount=%d.%02d&category=%s&description=receipt+%d&date=2026-11-%02d",
                1 + n % 400, n % 100, ({ "groceries", "rent", "travel", "books" })[n % 4 + 1], n, 1 + n % 28))"#,
    },
    Route {
        name: "POST /signup",
        gate: 0.97,
        seconds: 6,
        lua: r#"return wrk.format("POST", "/signup", { ["content-type"] = "application/x-www-form-urlencoded" },
            string.format("name=Ada+Lovelace+%d&email=ada%d.%s@example.com&password=correct+horse+%d&birthday=19%02d-%02d-%02d"
                .. "&gender=female&income=%d.25&currency=EUR&budget_style=zero+based&goals=a+garden+and+%d+books"
                .. "&week_start=monday", n, n, round, n, 40 + n % 60, 1 + n % 12, 1 + n % 28, 2000 + n, n))"#,
    },
];

/// One running copy.
struct Service {
    process: Child,
    url: String,
    folder: tempfile::TempDir,
    cookies: Vec<String>,
}

/// One round.
struct Round {
    requests_a_second: f64,
    /// CPU of the process, microseconds a request.
    cpu: f64,
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let program = PathBuf::from(
        arguments
            .first()
            .context("the first argument names the budget-tracker program")?,
    );
    let wanted = arguments.get(1).map_or("", String::as_str);
    let rounds: usize = arguments.get(2).map_or(Ok(5), |rounds| rounds.parse())?;
    let mut off = Service::start(&program, false)?;
    let mut on = Service::start(&program, true)?;
    println!("| route | off, requests/s | on, requests/s | on / off | gate | | off, CPU us | on, CPU us | added |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for route in ROUTES.iter().filter(|route| route.name.contains(wanted)) {
        // Not measured: caches fill, connections are opened.
        off.round(route, "warm")?;
        on.round(route, "warm")?;
        let (mut offs, mut ons) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let name = round.to_string();
            if round % 2 == 0 {
                offs.push(off.round(route, &name)?);
                ons.push(on.round(route, &name)?);
            } else {
                ons.push(on.round(route, &name)?);
                offs.push(off.round(route, &name)?);
            }
        }
        let speed = |rounds: &[Round]| median(rounds.iter().map(|round| round.requests_a_second));
        let cpu = |rounds: &[Round]| median(rounds.iter().map(|round| round.cpu));
        let ratio = speed(&ons) / speed(&offs);
        println!(
            "| {} | {:.0} | {:.0} | {ratio:.2} | {:.2} | {} | {:.1} | {:.1} | {:.1} |",
            route.name,
            speed(&offs),
            speed(&ons),
            route.gate,
            if ratio >= route.gate { "met" } else { "missed" },
            cpu(&offs),
            cpu(&ons),
            cpu(&ons) - cpu(&offs),
        );
    }
    Ok(())
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Service {
    fn start(program: &Path, enabled: bool) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut process = Command::new(program)
            .args([
                "--addr",
                "127.0.0.1:0",
                "--audit-addr",
                "127.0.0.1:0",
                "--no-demo",
                "--data-dir",
            ])
            .arg(folder.path())
            .env("RUNTIME_TRACKING_ENABLED", enabled.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} does not start", program.display()))?;
        let mut lines = BufReader::new(process.stdout.take().context("no output")?).lines();
        let url = lines
            .find_map(|line| line.ok()?.strip_prefix("app ").map(str::to_owned))
            .context("the service has ended, or does not say where it listens")?;
        // Read on, so that it never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        let mut service = Service {
            process,
            url,
            folder,
            cookies: Vec::new(),
        };
        service.people()?;
        Ok(service)
    }

    /// Signs people up: the first half look at dashboards, the others note expenses.
    fn people(&mut self) -> anyhow::Result<()> {
        for n in 0..2 * PEOPLE {
            let email = format!("person{n}@example.com");
            let name = format!("Alan Turing {n}");
            let income = format!("{}.5", 3000 + n);
            let form = [
                ("email", email.as_str()),
                ("name", &name),
                ("password", "correct horse battery"),
                ("birthday", "1990-04-23"),
                ("gender", "male"),
                ("income", &income),
                ("currency", "EUR"),
                ("budget_style", "envelopes"),
                ("goals", "a bicycle"),
                ("week_start", "monday"),
            ];
            let answer = ureq::post(format!("{}/signup", self.url)).send_form(form)?;
            let cookie = answer.headers().get("set-cookie").context("no cookie")?.to_str()?;
            let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
            for expense in 0..EXPENSES {
                let amount = format!("{}.25", 10 + expense);
                let form = [
                    ("amount", amount.as_str()),
                    (
                        "category",
                        ["groceries", "rent", "travel"].get(expense % 3).unwrap_or(&""),
                    ),
                    ("description", "weekly"),
                    ("date", "2026-11-20"),
                ];
                ureq::post(format!("{}/expenses", self.url))
                    .header("cookie", &cookie)
                    .send_form(form)?;
            }
            self.cookies.push(cookie);
        }
        Ok(())
    }

    fn round(&mut self, route: &Route, round: &str) -> anyhow::Result<Round> {
        let (lookers, spenders) = self.cookies.split_at(PEOPLE);
        let cookies = if route.name.contains("expenses") {
            spenders
        } else {
            lookers
        };
        let script = self.folder.path().join("load.lua");
        let lua = format!(
            "cookies = {{ {} }}\nround = \"{round}\"\nn = 0\nfunction request()\n n = n + 1\n {}\nend\n",
            cookies
                .iter()
                .map(|cookie| format!("\"{cookie}\""))
                .collect::<Vec<_>>()
                .join(", "),
            route.lua
        );
        std::fs::write(&script, lua)?;
        let before = cpu(self.process.id())?;
        let load = wrk(&self.url, 16, route.seconds, Some(&script))?;
        // What is still queued belongs to this round.
        std::thread::sleep(Duration::from_millis(300));
        let cpu = cpu(self.process.id())? - before;
        anyhow::ensure!(
            load.errors == 0,
            "{}: {} requests were not served",
            route.name,
            load.errors
        );
        Ok(Round {
            requests_a_second: load.requests_a_second,
            cpu: cpu.as_secs_f64() * 1e6 / load.requests,
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

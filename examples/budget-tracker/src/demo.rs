//! The story of one person's data: what they did, told by the application's own HTTP answers,
//! and what became of it, told by the audit API.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value as Json, json};

/// How long the evidence of the last request may take to be on disk.
const PATIENCE: Duration = Duration::from_secs(10);

/// Drives the application at `app`, then asks the audit API at `audit`, if there is one.
pub fn run(app: SocketAddr, audit: Option<SocketAddr>, audit_token: &str) -> anyhow::Result<()> {
    let mut person = Person::new(app)?;
    println!("\nOne person uses the budget tracker.");
    person.does(
        "signs up with ten fields",
        "POST",
        "/signup",
        Some(person.signup()),
        201,
    )?;
    person.does(
        "raises the income and names a new goal",
        "POST",
        "/profile",
        Some(json!({"income": "4350.00", "goals": "A cargo bike, and six months of savings"})),
        200,
    )?;
    for (amount, category, description) in [
        (1450, "rent", "Rent for the flat"),
        (62, "groceries", "Weekly groceries"),
    ] {
        person.does(
            "notes an expense",
            "POST",
            "/expenses",
            Some(json!({"amount": amount, "category": category, "description": description, "date": "2026-03-02"})),
            201,
        )?;
    }
    person.does("looks at the dashboard", "GET", "/dashboard", None, 200)?;
    person.does("subscribes to the newsletter", "POST", "/newsletter", None, 200)?;
    person.does("asks for a credit score", "POST", "/score", None, 200)?;
    person.does("asks the AI for advice", "POST", "/insights", None, 200)?;
    match audit {
        Some(audit) => {
            println!("\nWhat became of the data, as the audit API tells it:");
            Story::wait_for(&person, audit, audit_token)?.print();
        }
        None => println!("\nProvenance is switched off: there is no record of what became of the data."),
    }
    Ok(())
}

struct Person {
    agent: ureq::Agent,
    app: SocketAddr,
    /// New in every run, so that the demo also works on a data folder that it has been run on.
    id: String,
    cookie: String,
    requests: Vec<String>,
}

impl Person {
    fn new(app: SocketAddr) -> anyhow::Result<Self> {
        let mut bytes = [0; 4];
        getrandom::fill(&mut bytes)?;
        Ok(Person {
            agent: agent(),
            app,
            id: format!("{:08x}", u32::from_ne_bytes(bytes)),
            cookie: String::new(),
            requests: Vec::new(),
        })
    }

    fn signup(&self) -> Json {
        json!({
            "name": "Ada Quill",
            "email": format!("ada.{}@example.com", self.id),
            "password": format!("correct-horse-{}", self.id),
            "birthday": "1990-04-23",
            "gender": "female",
            "income": 4200,
            "currency": "EUR",
            "budget_style": "zero-based",
            "goals": "A cargo bike by next summer",
            "week_start": "monday",
        })
    }

    /// One request. Prints what was asked and the status, never the values.
    fn does(&mut self, what: &str, method: &str, path: &str, body: Option<Json>, expected: u16) -> anyhow::Result<()> {
        let request_id = format!("demo-{}-{}", self.id, self.requests.len() + 1);
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.app))
            .header("x-request-id", &request_id)
            .header("cookie", &self.cookie)
            .header("content-type", "application/json");
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let response = self
            .agent
            .run(request.body(body)?)
            .with_context(|| format!("{method} {path} got no answer"))?;
        let status = response.status().as_u16();
        println!(
            "  {:>2}. {what:<40} {method:<4} {path:<12} {status}",
            self.requests.len() + 1
        );
        if status != expected {
            bail!("{method} {path} answered {status}, not {expected}");
        }
        if let Some(cookie) = response.headers().get("set-cookie") {
            let cookie = cookie.to_str()?;
            self.cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        }
        self.requests.push(request_id);
        Ok(())
    }
}

/// The events of one person's requests, oldest first.
struct Story(Vec<Json>);

impl Story {
    /// Events reach the disk a moment after the answer they belong to.
    fn wait_for(person: &Person, audit: SocketAddr, token: &str) -> anyhow::Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let story = Story::read(person, audit, token)?;
            if story.is_told() {
                return Ok(story);
            }
            if Instant::now() > deadline {
                bail!("the evidence of the demo's requests is not complete after {PATIENCE:?}");
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn read(person: &Person, audit: SocketAddr, token: &str) -> anyhow::Result<Self> {
        let mut events = Vec::new();
        for request_id in &person.requests {
            let answer: Json = person
                .agent
                .get(format!("http://{audit}/runtime-audit/events"))
                .query("request_id", request_id)
                .header("x-audit-token", token)
                .call()?
                .into_body()
                .read_json()?;
            let page = answer["events"].as_array().context("the audit API gave no events")?;
            events.extend(page.iter().rev().cloned());
        }
        Ok(Story(events))
    }

    fn of(&self, event_type: &str) -> impl Iterator<Item = &Json> {
        self.0.iter().filter(move |event| event["event_type"] == event_type)
    }

    /// Sign-up, two updates of which one commits both fields, two expenses; three shares with their outcomes.
    fn is_told(&self) -> bool {
        self.of("DATA_STORAGE").count() >= 4
            && self
                .of("DATA_SHARE")
                .filter(|share| share["extras"]["outcome"] != "pending")
                .count()
                >= 3
    }

    fn print(&self) {
        let owners: BTreeSet<_> = self
            .0
            .iter()
            .filter_map(|event| event["extras"]["owner"].as_str())
            .collect();
        println!("  known as  {}", Vec::from_iter(owners).join(" = "));
        for event in self.of("DATA_COLLECTION") {
            line("in", &text(&event["actor"]), &fields(event, "field"));
        }
        for event in self.of("DATA_STORAGE") {
            let target = format!("{} {}", text(&event["extras"]["action"]), text(&event["target"]));
            line("stored", &target, &fields(event, "field"));
        }
        for event in self.of("DATA_DERIVATION") {
            let inputs = fields_where(event, "field", |tag| tag["role"] == "input");
            let target = text(&event["target"]);
            let category = target.strip_prefix("derived:").unwrap_or(&target);
            line("derived", category, &format!("from {inputs}"));
        }
        for event in self.of("DATA_SHARE") {
            let extras = &event["extras"];
            let recipient = format!("{}, for {}", text(&extras["recipient"]), text(&extras["purpose"]));
            let mut findings: Vec<_> = tags(event)
                .map(|tag| format!("{} ({})", text(&tag["field"]), text(&tag["form"])))
                .collect();
            findings.sort();
            findings.dedup();
            line(
                "shared",
                &recipient,
                &format!("{} -> {}", findings.join(", "), outcome(extras)),
            );
        }
    }
}

/// `status 201`, `error timeout`, `unknown`.
fn outcome(extras: &Json) -> String {
    let word = text(&extras["outcome"]);
    match &extras[&word] {
        Json::Null => word,
        detail => format!("{word} {}", text(detail)),
    }
}

fn line(word: &str, who: &str, what: &str) {
    println!("  {word:<8}  {who:<34}  {what}");
}

fn tags(event: &Json) -> impl Iterator<Item = &Json> {
    event["matched_tags"].as_array().into_iter().flatten()
}

fn fields(event: &Json, key: &str) -> String {
    fields_where(event, key, |_| true)
}

fn fields_where(event: &Json, key: &str, holds: impl Fn(&Json) -> bool) -> String {
    let names: BTreeSet<_> = tags(event)
        .filter(|tag| holds(tag))
        .map(|tag| text(&tag[key]))
        .collect();
    Vec::from_iter(names).join(", ")
}

fn text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(30)))
        .http_status_as_error(false)
        .build();
    config.new_agent()
}

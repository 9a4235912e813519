//! Each hook of a host: that it reported the synthetic person, or why not.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use axum::Form;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use diesel::connection::{Instrumentation, InstrumentationEvent, SimpleConnection};
use diesel::prelude::*;
use provenance::{Tracked, egress, provenance_input, tracked_model};
use provenance_tests::{program, text};
use serde::Deserialize;
use serde_json::Value as Json;

use super::super::{Done, command, done};
use super::{Host, TOKEN, found, signup};

/// What is said of a declared hook.
#[track_caller]
fn hook(done: &Done, kind: &str, path: &str) -> Json {
    let answer = done.json();
    let mut hooks = answer["hooks"].as_array().unwrap().iter();
    let found = hooks.find(|hook| hook["kind"] == kind && text(&hook["path"]).ends_with(path));
    found.unwrap_or_else(|| panic!("no {kind} {path}: {answer:#}")).clone()
}

/// The example, as its users run it.
struct Example {
    process: Child,
    app: String,
    audit: String,
    folder: tempfile::TempDir,
}

impl Example {
    fn start(environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Command::new(program("budget-tracker"))
            .args([
                "--addr",
                "127.0.0.1:0",
                "--audit-addr",
                "127.0.0.1:0",
                "--no-demo",
                "--data-dir",
            ])
            .arg(folder.path())
            .current_dir(folder.path())
            .env("RUNTIME_TRACKING_AUDIT_TOKEN", TOKEN)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut said = |name: &str| {
            lines
                .find_map(|line| line.ok()?.strip_prefix(name).map(str::to_owned))
                .unwrap()
        };
        let (app, audit) = (said("app "), said("audit "));
        std::thread::spawn(move || lines.for_each(drop));
        Example {
            process,
            app,
            audit,
            folder,
        }
    }

    fn doctor(&self, args: &[&str]) -> Done {
        let mut command = command(self.folder.path());
        command
            .env("MY_TOKEN", TOKEN)
            .args(["doctor", "--token-env", "MY_TOKEN", "--url"]);
        command.args([&self.audit, "--app", &self.app]).args(args);
        done(command, b"")
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const SIGN_UP: &str = "POST:/signup ..";

#[test]
fn each_hook_of_the_example_fires_or_says_why_not() {
    let example = Example::start(&[]);
    let all = example.doctor(&[
        "--probe",
        SIGN_UP,
        "--probe",
        "POST:/expenses date={date} ..",
        "--probe",
        "GET /dashboard",
        "--probe",
        "POST /insights",
        "--expect",
        "collected,stored,shared",
        "--json",
    ]);
    // Sent to nobody: a password's hash is stored, a date of an expense is not declared, and the rest stays here.
    let problems = found(&all, "problem");
    assert!(problems.lines().all(|line| line.starts_with("not ")), "{problems}");
    for (kind, path, of) in [
        ("input", "app::signup", "DATA_COLLECTION"),
        ("input", "app::add_expense", "DATA_COLLECTION"),
        ("model", "models::NewUser", "DATA_STORAGE"),
        ("model", "models::NewExpense", "DATA_STORAGE"),
        ("egress", "Partners::advise", "DATA_SHARE"),
        ("derived", "app::savings_rate", "DATA_DERIVATION"),
    ] {
        let hook = hook(&all, kind, path);
        assert_eq!(hook["fired"], true, "{hook}");
        let ids = hook["events"][of].as_array().unwrap_or_else(|| panic!("{hook}"));
        assert_eq!(ids.len(), 1, "{hook}");
        assert_eq!(text(&ids[0]).split('-').count(), 2, "{hook}");
        assert!(hook["why"].is_null() && hook["missed"] == false, "{hook}");
    }
    for (kind, path, why) in [
        ("input", "app::login", "no probe reached it"),
        ("input", "app::change_profile", "no probe reached it"),
        ("egress", "Partners::subscribe", "no probe reached it"),
        ("derived", "partners::first_name", "no probe reached it with a value"),
        (
            "model",
            "models::User",
            "rows of users were reported by budget_tracker::models::NewUser instead",
        ),
    ] {
        let hook = hook(&all, kind, path);
        assert_eq!(hook["fired"], false, "{hook}");
        assert!(
            text(&hook["why"]).contains(why) && !text(&hook["advice"]).is_empty(),
            "{hook}"
        );
    }
    let notes = found(&all, "note");
    assert!(
        notes.contains("POST /signup: sent name, email, password") && notes.contains("app::signup declares"),
        "{notes}"
    );
    assert!(
        notes.contains("provenance-audit erase --db ") && notes.contains("example.invalid"),
        "{notes}"
    );

    // What was seen once is where it can be seen again; and a route that refuses says so of its hooks.
    let later = example.doctor(&["--probe", "POST /signup email=nobody", "--json"]);
    assert_eq!(later.code, 1);
    assert!(found(&later, "problem").contains("POST /signup: the application answers 400 ({\"errors\":{"));
    let advise = hook(&later, "egress", "Partners::advise");
    assert_eq!(
        advise["advice"],
        "it reported before, in HTTP POST /insights: probe that"
    );
    let user = hook(&later, "model", "models::NewUser");
    assert!(text(&user["why"]).contains("rolled back, or never made"), "{user}");
    let signup = hook(&later, "input", "app::signup");
    assert_eq!(signup["fired"], true, "{signup}");

    let strict = example.doctor(&["--probe", SIGN_UP, "--every-hook", "--json"]);
    assert_eq!(strict.code, 1);
    assert!(
        found(&strict, "problem")
            .contains("egress function budget_tracker::partners::Partners::score reported nothing")
    );
    let people = example.doctor(&["--probe", SIGN_UP]).ok().out;
    assert!(
        people.contains("\n2 of ") && people.contains("declared hooks reported the synthetic person:\n"),
        "{people}"
    );
    assert!(
        people.contains("\nfired    input budget_tracker::app::signup ("),
        "{people}"
    );
}

#[test]
fn the_synthetic_person_is_erased_again() {
    let example = Example::start(&[]);
    let done = example.doctor(&["--probe", SIGN_UP, "--clean", "--json"]).ok();
    let fine = found(&done, "fine");
    assert!(
        fine.contains("the synthetic person was erased from 2 events and "),
        "{fine}"
    );
    let notes = found(&done, "note");
    assert!(
        notes.contains("remove the account") && !notes.contains("provenance-audit erase"),
        "{notes}"
    );
    let email = notes
        .split_whitespace()
        .find(|word| word.contains("@example.invalid"))
        .unwrap();
    let mut subject = command(example.folder.path());
    subject
        .args(["subject", "--no-record", "--json", "--owner", email, "--db"])
        .arg(example.folder.path().join("evidence/runtime_provenance.db"));
    let subject = super::super::done(subject, b"").ok();
    assert!(!subject.out.contains("HTTP POST /signup"), "{}", subject.out);
}

#[test]
fn a_host_that_is_switched_off_is_told_from_one_that_is_away() {
    let example = Example::start(&[("RUNTIME_TRACKING_ENABLED", "false")]);
    assert_eq!(example.audit, "off");
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://{free}");
    let mut off = command(example.folder.path());
    off.args(["doctor", "--url", &url, "--app", &example.app, "--probe", SIGN_UP]);
    let off = super::super::done(off, b"");
    assert!(off.refused().contains("enabled: false"), "{}", off.err);
}

#[test]
fn a_session_comes_from_the_environment_and_is_not_shown() {
    let host = Host::new();
    let app = host.serve(super::app());
    let probe = |headers: &[&str]| {
        let args = [&["--app", &app, "--wait", "1", "--probe", "POST /closed"], headers].concat();
        let mut command = command(host.elsewhere.path());
        command.env("MY_TOKEN", TOKEN).env("SESSION", "session=1");
        command.args(["doctor", "--token-env", "MY_TOKEN", "--url"]);
        command.arg(format!("http://{}", host.audit.addr())).args(args);
        done(command, b"")
    };
    assert!(probe(&[]).out.contains("answers 401"));
    let done = probe(&["--header-env", "cookie=SESSION"]);
    assert!(
        !done.out.contains("401") && !done.out.contains("session=1"),
        "{}",
        done.out
    );
    let done = probe(&["--header-env", "cookie=PROVENANCE_TEST_UNSET"]);
    assert!(done.refused().contains("PROVENANCE_TEST_UNSET"), "{}", done.err);
    assert!(probe(&["--header-env", "cookie"]).refused().contains("HEADER=NAME"));
}

// ---- hooks that miss ----

diesel::table! {
    letters {
        id -> Integer,
        email -> Text,
    }
}

#[tracked_model(owner(email))]
#[derive(Insertable)]
#[diesel(table_name = letters)]
struct Letter {
    #[tracked("contact.email")]
    email: String,
}

#[derive(Deserialize, Tracked)]
struct Address {
    #[tracked("contact.email")]
    email: String,
}

struct Nothing;

impl Instrumentation for Nothing {
    fn on_connection_event(&mut self, _: InstrumentationEvent<'_>) {}
}

/// Writes on a connection that tells hooks nothing.
#[provenance_input]
async fn write_aside(Form(form): Form<Address>) {
    let mut db = SqliteConnection::establish(":memory:").unwrap();
    db.batch_execute("CREATE TABLE letters (id INTEGER PRIMARY KEY, email TEXT NOT NULL)")
        .unwrap();
    db.set_instrumentation(Nothing);
    let letter = Letter { email: form.email };
    diesel::insert_into(letters::table)
        .values(&letter)
        .execute(&mut db)
        .unwrap();
}

/// Sends by a way that it does not see.
#[egress(recipient = "pigeon")]
fn send_aside() -> u8 {
    7
}

#[provenance_input]
async fn post_aside(Form(form): Form<Address>) -> StatusCode {
    assert!(!form.email.is_empty());
    send_aside();
    StatusCode::ACCEPTED
}

#[derive(Deserialize)]
struct Closed {
    email: String,
}

#[provenance_input]
async fn unread(Form(form): Form<Closed>) -> String {
    form.email.len().to_string()
}

#[test]
fn a_hook_that_missed_is_a_problem_with_its_cause() {
    let host = Host::new();
    let app = host.serve(
        Router::new()
            .route("/letters", post(write_aside))
            .route("/pigeons", post(post_aside))
            .route("/unread", post(unread))
            .layer(provenance::axum::layer())
            .route("/bare", post(signup)),
    );
    let probe = |probe: &str| {
        let done = host.asked(&["--app", &app, "--json", "--wait", "2", "--probe", probe]);
        (found(&done, "problem"), done)
    };
    for (route, kind, path, part) in [
        (
            "POST /letters email={email}",
            "model",
            "hooks::Letter",
            "the hooks do not see",
        ),
        (
            "POST /pigeons email={email}",
            "egress",
            "hooks::send_aside",
            "no call was seen",
        ),
        ("POST /unread email={email}", "input", "hooks::unread", "cannot be read"),
    ] {
        let (problems, done) = probe(route);
        let hook = hook(&done, kind, path);
        // The layer still read the field of the one that cannot read its argument.
        assert_eq!(hook["fired"], path.ends_with("unread"), "{hook}");
        assert_eq!(hook["missed"], true, "{hook}");
        assert!(
            text(&hook["why"]).contains(part) && !text(&hook["advice"]).is_empty(),
            "{hook}"
        );
        assert!(problems.contains(path), "{problems}");
        assert_eq!(done.code, 1);
    }
    // Without the layer hooks fire and do not know the request; fingerprints find their events.
    let (problems, done) = probe("POST /bare email={email} name={name} password={word} nickname=x");
    assert_eq!(problems, "");
    let warnings = found(&done, "warning");
    assert!(
        warnings.contains("POST /bare: its events do not carry the request's id"),
        "{warnings}"
    );
    assert_eq!(hook(&done, "input", "doctor::signup")["fired"], true);
}

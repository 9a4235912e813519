//! `doctor`: of a file, of a running host, and with a synthetic person.

mod hooks;

use std::net::TcpListener;

use axum::Form;
use axum::routing::post;
use axum::{Router, http::StatusCode};
use provenance::config::Token;
use provenance::{Tracked, provenance_input, share};
use provenance_audit::{Server, spawn_for};
use provenance_tests::{Evidence, text};
use serde::Deserialize;
use serde_json::Value as Json;

use super::{Done, Service, command, done, event};

const TOKEN: &str = "correct-horse-battery-staple";

/// What was found at this level, with what to do.
fn found(done: &Done, level: &str) -> String {
    let found = done.json()["findings"].clone();
    let of_level = found
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["level"] == level);
    of_level
        .map(|finding| format!("{}: {}\n", text(&finding["what"]), text(&finding["advice"])))
        .collect()
}

#[test]
fn a_file_is_looked_at_without_its_host() {
    let service = Service::new();
    let done = service.run("doctor", &["--json"]).ok();
    let warnings = found(&done, "warning");
    for part in [
        "recipient tracker.example is undeclared",
        "no retention is set",
        "key lies beside the evidence",
    ] {
        assert!(warnings.contains(part), "{part}: {warnings}");
    }
    assert!(found(&done, "note").contains("--program"));
    let shown = service.run("doctor", &[]).ok().out;
    assert!(
        shown.contains("warning  recipient tracker.example is undeclared: it got 1 share\n"),
        "{shown}"
    );
    assert!(shown.contains("\n0 problems, 3 warnings, "), "{shown}");
    // A file that nothing was recorded in.
    let empty = Evidence::default();
    empty.tracker.close();
    let mut of_empty = command(empty.folder.path());
    of_empty.args(["doctor", "--db"]).arg(empty.database());
    let done = super::done(of_empty, b"");
    assert_eq!(done.code, 1, "{}{}", done.out, done.err);
    assert!(done.out.contains("PROBLEM  nothing was ever recorded"), "{}", done.out);
}

/// A service with its audit server, and a folder to call the command from.
struct Host {
    evidence: Evidence,
    audit: Server,
    elsewhere: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let evidence = Evidence::new(|config| config.audit_token = Token(TOKEN.into()));
        let audit = spawn_for(evidence.tracker.clone(), "127.0.0.1:0").unwrap();
        Host {
            evidence,
            audit,
            elsewhere: tempfile::tempdir().unwrap(),
        }
    }

    fn doctor(&self, args: &[&str]) -> Done {
        let mut command = command(self.elsewhere.path());
        command.env("MY_TOKEN", TOKEN).args(["doctor", "--url"]);
        command.arg(format!("http://{}", self.audit.addr())).args(args);
        done(command, b"")
    }

    fn asked(&self, args: &[&str]) -> Done {
        self.doctor(&[&["--token-env", "MY_TOKEN"], args].concat())
    }

    /// Serves an application on a thread of its own, as long as the test lives.
    fn serve(&self, router: Router) -> String {
        let tracker = self.evidence.tracker.clone();
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let _in_force = provenance::test::scoped(&tracker);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(listener.local_addr().unwrap()).unwrap();
                axum::serve(listener, router).await.unwrap();
            });
        });
        format!("http://{}", receiver.recv().unwrap())
    }
}

#[test]
fn a_running_host_tells_of_its_blind_spots() {
    let host = Host::new();
    {
        let _in_force = host.evidence.scoped();
        event(
            "X_LETTER",
            "printer:2",
            &[("contact.email", "email", "ada@example.com")],
        );
        share("smtp.example.com").begin().unwrap().sent();
    }
    let done = host.asked(&["--json"]).ok();
    let warnings = found(&done, "warning");
    for part in [
        "bodies that left and were not scanned to the end: 1 time: ",
        "smtp.example.com is undeclared",
        "master key was created beside the database",
    ] {
        assert!(warnings.contains(part), "{part}: {warnings}");
    }
    assert_eq!(warnings.matches("beside the").count(), 1, "{warnings}");
    let fine = found(&done, "fine");
    for part in [
        "the recorder writes",
        "newest part of the chain holds",
        "2 events recorded",
    ] {
        assert!(fine.contains(part), "{part}: {fine}");
    }
}

#[test]
fn a_host_that_cannot_be_asked_is_no_answer() {
    let host = Host::new();
    let done = host.doctor(&[]);
    assert!(done.refused().contains("--token-env"), "{}", done.err);
    let done = host.doctor(&["--token-env", "PROVENANCE_TEST_UNSET"]);
    assert!(done.refused().contains("PROVENANCE_TEST_UNSET"), "{}", done.err);
    assert!(!done.err.contains(TOKEN));
    // Nobody listens; and somebody who is no audit API.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let app = host.serve(Router::new());
    for (url, part) in [
        (format!("http://{free}"), "cannot be reached"),
        (app, "no audit API here"),
        ("localhost:8787".to_owned(), "http://127.0.0.1:8787"),
    ] {
        let mut command = command(host.elsewhere.path());
        command.args(["doctor", "--url", &url]);
        let done = super::done(command, b"");
        assert!(done.refused().contains(part), "{url}: {}", done.err);
    }
}

#[test]
fn without_a_host_its_file_is_looked_at() {
    let service = Service::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = serde_json::json!({ "storage_path": "provenance.db", "audit": { "bind": free.to_string() } });
    std::fs::write(service.folder().join("runtime_tracking.json"), config.to_string()).unwrap();
    let mut command = command(service.folder());
    command.args(["doctor", "--json"]);
    let done = done(command, b"");
    assert_eq!(done.code, 1, "{}", done.err);
    let problems = found(&done, "problem");
    assert!(
        problems.contains("cannot be reached") && problems.contains("is the service running"),
        "{problems}"
    );
    assert!(found(&done, "fine").contains("7 events recorded"));
}

// ---- a synthetic person ----

#[derive(Deserialize, Tracked)]
#[tracked(owner(email))]
struct Signup {
    #[tracked("contact.email")]
    email: String,
    #[tracked("personal.name")]
    name: String,
    #[tracked("security.password")]
    password: String,
    nickname: String,
}

#[provenance_input]
async fn signup(Form(form): Form<Signup>) -> ([(&'static str, &'static str); 1], String) {
    event("DATA_STORAGE", "db:users", &[("contact.email", "email", &form.email)]);
    let welcome = format!("Welcome, {}", form.name);
    share("smtp.example.com").payload(&welcome).begin().unwrap().sent();
    let text = format!("{} {}", form.password.len(), form.nickname.len());
    ([("set-cookie", "session=1; HttpOnly")], text)
}

async fn closed(headers: axum::http::HeaderMap) -> StatusCode {
    match headers.get("cookie").is_some_and(|cookie| cookie == "session=1") {
        true => StatusCode::OK,
        false => StatusCode::UNAUTHORIZED,
    }
}

fn app() -> Router {
    Router::new()
        .route("/signup", post(signup))
        .layer(provenance::axum::layer())
        .route("/closed", post(closed))
}

const SIGNUP: &str = "POST /signup email={email} name={name} password={word} nickname={word}";

#[test]
fn a_synthetic_person_shows_what_each_hook_reports_and_why_not() {
    let host = Host::new();
    let app = host.serve(app());
    let done = host.asked(&["--app", &app, "--probe", SIGNUP, "--json"]).ok();
    let fine = found(&done, "fine");
    for part in [
        "POST /signup: 3 events were reported",
        "collected (HTTP POST /signup): email, name, ",
        "stored (db:users): email",
        "shared (smtp.example.com): name",
    ] {
        assert!(fine.contains(part), "{part}: {fine}");
    }
    let notes = found(&done, "note");
    for part in [
        "not stored, as far as hooks saw: name, nickname, password: rows were written",
        "not shared, as far as hooks saw: email, nickname, password: requests left",
        "not used in a derivation, as far as hooks saw: email, name, nickname, password",
        "provenance-probe-",
    ] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    // Unlike a note, what was expected is a problem.
    let done = host.asked(&[
        "--app",
        &app,
        "--probe",
        SIGNUP,
        "--json",
        "--expect",
        "derived,shared",
        "--wait",
        "5",
    ]);
    assert_eq!(done.code, 1);
    let problems = found(&done, "problem");
    assert!(
        problems.contains("not shared, as far as hooks saw: email, nickname, password"),
        "{problems}"
    );
    assert!(problems.contains("no #[derived] function"), "{problems}");
}

#[test]
fn a_route_without_hooks_is_a_problem_with_a_way_out() {
    let host = Host::new();
    let app = host.serve(app());
    // Alone, it is refused; after the sign-up, with its cookie, it is taken; hooks it has none.
    let probe = |args: &[&str]| host.asked(&[&["--app", &app, "--json", "--wait", "1"], args].concat());
    let done = probe(&["--probe", "POST /closed email={email}"]);
    assert_eq!(done.code, 1);
    let problems = found(&done, "problem");
    assert!(
        problems.contains("the application answers 401: it asks for a session"),
        "{problems}"
    );
    assert!(
        problems.contains("POST /closed: nothing was reported: no hook ran: put provenance::axum::layer()"),
        "{problems}"
    );
    let done = probe(&["--probe", SIGNUP, "--probe", "POST /closed"]);
    let problems = found(&done, "problem");
    assert!(!problems.contains("401"), "{problems}");
    assert!(problems.contains("POST /closed: nothing was reported"), "{problems}");
    let done = probe(&["--probe", SIGNUP, "--as", "json"]);
    let problems = found(&done, "problem");
    assert!(
        problems.contains("answers 415") && problems.contains("--as"),
        "{problems}"
    );
}

#[test]
fn a_probe_is_read_strictly() {
    let host = Host::new();
    for (probe, part) in [
        ("POST", "no path"),
        ("post /x", "capitals"),
        ("POST x", "begin with /"),
        ("POST /x email", "no = in it"),
    ] {
        let done = host.asked(&["--app", "http://127.0.0.1:1", "--probe", probe]);
        assert!(done.refused().contains(part), "{probe}: {}", done.err);
    }
    let done = host.asked(&["--app", "http://127.0.0.1:1", "--probe", "POST /x"]);
    assert!(
        done.refused().contains("the application cannot be reached"),
        "{}",
        done.err
    );
}

#[provenance::egress(recipient = "never", allow("contact.email"))]
fn never_called() -> Result<(), ureq::Error> {
    ureq::get("http://127.0.0.1:9/").call()?;
    Ok(())
}

#[test]
fn what_a_program_declares_is_compared_with_what_was_seen() {
    let _: fn() -> Result<(), ureq::Error> = never_called;
    let service = Service::new();
    let program = std::env::current_exe().unwrap().to_string_lossy().into_owned();
    let warnings = found(
        &service.run("doctor", &["--program", &program, "--json"]).ok(),
        "warning",
    );
    for part in [
        "egress function it::commands::doctor::never_called (",
        "input it::commands::doctor::signup (",
        "of table patients is declared, and no write",
    ] {
        // Rows of `patients` were stored by hand: the table was seen.
        assert_eq!(
            warnings.contains(part),
            !part.contains("patients"),
            "{part}: {warnings}"
        );
    }
    let done = service.run("doctor", &["--program", "/etc/passwd"]);
    assert!(done.refused().contains("--program"), "{}", done.err);
    let _: Json = service.run("doctor", &["--json"]).json();
}

//! `provenance-audit` as people and scripts call it: the built program, on evidence that the library wrote.

mod doctor;
mod exports;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use provenance::config::{Config, OnViolation, Recipient};
use provenance::{Scope, link_owner, record_event, set_owner, share};
use provenance_tests::{Evidence, text};
use serde_json::Value as Json;

const PATIENCE: Duration = Duration::from_secs(20);
const ADA: &str = "ada@example.com";
const ALAN: &str = "alan@example.org";

/// What a call gave.
struct Done {
    code: i32,
    out: String,
    err: String,
}

impl Done {
    #[track_caller]
    fn json(&self) -> Json {
        assert_ne!(self.code, 2, "{}", self.err);
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }

    #[track_caller]
    fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self
    }

    /// No answer, and why.
    #[track_caller]
    fn refused(&self) -> &str {
        assert_eq!(self.code, 2, "{}{}", self.out, self.err);
        assert!(self.out.is_empty(), "{}", self.out);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        &self.err
    }
}

/// The command in a folder without configuration, and without variables that say something to it.
fn command(folder: &Path) -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let path = BUILT.get_or_init(|| provenance_tests::program("provenance-audit"));
    let mut command = Command::new(path);
    for variable in ["AUDIT_TOKEN", "CONFIG", "STORAGE", "ENABLED", "KEY"] {
        command.env_remove(format!("RUNTIME_TRACKING_{variable}"));
    }
    command.env_remove("SUDO_USER").current_dir(folder).stdin(Stdio::null());
    command
}

fn done(mut command: Command, input: &[u8]) -> Done {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let fed = std::thread::spawn(move || {
        // It may not want all of it.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    fed.join().unwrap();
    Done {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A service with the evidence of two people.
struct Service(Evidence);

impl Service {
    fn new() -> Self {
        Service::with(|_| {})
    }

    /// Ada (an address and an id) signed up, was stored, and her address went to mailchimp twice. Alan's income went to a
    /// tracker that nobody declared.
    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let service = Service(Evidence::new(|config| {
            let mailchimp = Recipient {
                hosts: vec!["api.mailchimp.example".into()],
                role: Some("processor".into()),
                legal_name: Some("The Rocket Science Group LLC".into()),
                country: Some("US".into()),
                safeguard: Some("SCC".into()),
                on_violation: None,
            };
            config.recipients.insert("mailchimp".into(), mailchimp);
            config.recipients.insert("quiet".into(), Recipient::default());
            change(config);
        }));
        let _in_force = service.0.scoped();
        {
            let _scope = Scope::new("HTTP POST /signup").enter();
            set_owner("email", ADA);
            link_owner(("user", 7_i64), ("email", ADA));
            event(
                "DATA_COLLECTION",
                "form",
                &[("contact.email", "email", ADA), ("financial.income", "income", "48213")],
            );
            event("DATA_STORAGE", "db:users", &[("contact.email", "email", ADA)]);
            for _ in 0..2 {
                let share = share("api.mailchimp.example").purpose("newsletter").payload(ADA);
                share.begin().unwrap().status(200);
            }
        }
        {
            let _scope = Scope::new("HTTP POST /profile").enter();
            set_owner("email", ALAN);
            event(
                "DATA_COLLECTION",
                "form",
                &[
                    ("financial.income", "income", "77135"),
                    ("contact.email", "email", ALAN),
                ],
            );
            event(
                "DATA_STORAGE",
                "db:patients",
                &[("health_and_medical.genetic", "blood", "AB negative")],
            );
            share("tracker.example")
                .payload(r#"{"income": 77135}"#)
                .begin()
                .unwrap()
                .sent();
        }
        service.0.tracker.flush(PATIENCE).unwrap();
        service
    }

    fn folder(&self) -> &Path {
        self.0.folder.path()
    }

    /// `provenance-audit <subcommand> --db <evidence> <args>`.
    fn run(&self, subcommand: &str, args: &[&str]) -> Done {
        self.fed(subcommand, args, b"")
    }

    fn fed(&self, subcommand: &str, args: &[&str], input: &[u8]) -> Done {
        let mut command = command(self.folder());
        command.arg(subcommand).arg("--db").arg(self.0.database()).args(args);
        done(command, input)
    }

    fn accesses(&self) -> Vec<Json> {
        self.0.of("AUDIT_ACCESS")
    }

    /// How the evidence calls the person.
    fn pseudonym(&self, kind: &str, identifier: &str) -> String {
        let config = self.0.tracker.config();
        let pseudonyms = provenance::Pseudonyms::load(config).unwrap();
        pseudonyms.owner(kind, identifier).unwrap().to_string()
    }
}

fn event(event_type: &str, target: &str, values: &[(&str, &str, &str)]) {
    let mut event = record_event(event_type.parse().unwrap()).target(target);
    for (category, field, value) in values {
        event = event.value(category, field, *value).unwrap();
    }
    if event_type == "DATA_STORAGE" {
        event = event.extra("action", "insert");
    }
    event.submit();
}

#[provenance::egress(recipient = "mailchimp", allow("contact.email"))]
fn leak(income: &str) -> Result<(), ureq::Error> {
    ureq::post("http://192.0.2.1/never-sent").send(income)?;
    Ok(())
}

// ---- one person ----

#[test]
fn a_subject_is_told_by_category_with_place_recipient_and_purpose() {
    let service = Service::new();
    let plain = service
        .run("subject", &["--owner", "email:Ada@Example.com", "--reason", "DSR-17"])
        .ok()
        .out;
    for part in [
        "4 events about this person",
        "user.contact.email  (email)\n",
        "collected from HTTP POST /signup; 1 event",
        "stored in      db:users; insert; 1 event",
        "sent to        mailchimp; The Rocket Science Group LLC; processor; US; safeguard SCC; outcome status 200 (2); \
         purpose newsletter; 2 events",
        "user.financial.income  (income)\n",
        "holds no copy of the data",
        "does not prove",
    ] {
        assert!(plain.contains(part), "{part}: {plain}");
    }
    assert!(
        !plain.contains("tracker.example") && !plain.contains("/profile"),
        "{plain}"
    );
    // Under whichever identifier: they are one person's.
    let by_id = service.run("subject", &["--owner", "user:7", "--json"]).ok().json();
    let identifiers: Vec<_> = by_id["identifiers"].as_array().unwrap().iter().map(text).collect();
    assert_eq!(
        identifiers,
        [service.pseudonym("email", ADA), service.pseudonym("user", "7")]
    );
    assert_eq!(by_id["events"], 4);
    let email = &by_id["categories"][0];
    assert_eq!(email["category"], "user.contact.email");
    let sent = &email["shared"][0];
    assert_eq!(sent["place"], "mailchimp");
    assert_eq!(sent["recipient"]["country"], "US");
    assert_eq!(sent["outcomes"]["status 200"], 2);
    assert_eq!(sent["events"], 2);
    assert_eq!(sent["left"], true);
    let markdown = service.run("subject", &["--owner", ADA, "--markdown"]).ok().out;
    assert!(
        markdown.starts_with("# What was observed of one person\n"),
        "{markdown}"
    );
    assert!(
        markdown.contains("| sent to | mailchimp | The Rocket Science Group LLC; processor; US;"),
        "{markdown}"
    );
    for answer in [plain, by_id.to_string(), markdown] {
        assert!(
            !answer.to_lowercase().contains("ada@") && !answer.contains("48213"),
            "{answer}"
        );
    }
}

#[test]
fn a_search_is_on_record_without_the_identifier() {
    let service = Service::new();
    service
        .run(
            "subject",
            &[
                "--owner",
                "email:ada@example.com",
                "--reason",
                "call of ADA@example.com, id 4711, for x@y.z",
            ],
        )
        .ok();
    service
        .run("affected", &["--recipient", "mailchimp", "--since", "2020-01-01"])
        .ok();
    service
        .run("export", &["--format", "jsonl", "--type", "DATA_SHARE"])
        .ok();
    let accesses = service.accesses();
    let who = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    assert_eq!(accesses.len(), 3, "{accesses:#?}");
    let asked = [
        "subject",
        "affected recipient=mailchimp since=2020-01-01T00:00:00.000000Z",
        "export format=jsonl type=DATA_SHARE",
    ];
    for (access, asked) in accesses.iter().zip(asked) {
        assert_eq!(access["target"], asked);
        assert_eq!(access["actor"], format!("audit:{}", who.trim()));
        assert_eq!(access["extras"]["service"], "provenance-audit");
        assert!(access["user_id"].is_null());
    }
    let reason = &accesses[0]["extras"]["reason"];
    assert_eq!(reason, "call of {value}, id 4711, for {value}");
    assert_eq!(accesses[0]["extras"]["owner"], service.pseudonym("email", ADA).as_str());
    assert!(!service.0.holds(ADA) && !service.0.holds("x@y.z"));
    // The chain holds with what the command added, and the next answer says who looked.
    service.run("verify", &[]).ok();
    let subject = service
        .run("subject", &["--owner", ADA, "--json", "--no-record"])
        .ok()
        .json();
    assert_eq!(subject["accesses"].as_array().unwrap().len(), 1);
    assert_eq!(subject["accesses"][0]["by"], who.trim());
    assert_eq!(
        subject["events"], 4,
        "an access is not about what was done with the data"
    );
    assert_eq!(service.accesses().len(), 3);
}

#[test]
fn the_service_goes_on_as_before_while_it_is_searched() {
    let service = Service::new();
    let _in_force = service.0.scoped();
    let pending = share("api.mailchimp.example").payload(ADA).begin().unwrap();
    service.run("subject", &["--owner", ADA]).ok();
    // Whoever searches is no later instance of the service, which would end what is open.
    let newest = service.0.of("DATA_SHARE").pop().unwrap();
    assert_eq!(newest["extras"]["outcome"], "pending");
    pending.status(202);
    let newest = service.0.of("DATA_SHARE").pop().unwrap();
    assert_eq!(newest["extras"]["status"], 202);
}

#[test]
fn identifiers_come_from_standard_input_too() {
    let service = Service::new();
    let done = service.fed(
        "subject",
        &["--owner", "-", "--json"],
        "\u{feff}user:7\r\n\nada@example.com".as_bytes(),
    );
    assert_eq!(done.ok().json()["events"], 4);
    let empty = service.fed("subject", &["--owner", "-"], b"\n\n");
    assert!(empty.refused().contains("no identifier"), "{}", empty.err);
    for bad in ["Grace Hopper", ":7", "User:7", "user:", "\u{0}"] {
        let done = service.fed("subject", &["--owner", "-"], bad.as_bytes());
        assert!(done.refused().contains("expected an identifier"), "{}", done.err);
        assert!(!done.err.contains("Grace"), "{}", done.err);
    }
    let done = service.run("subject", &["--owner", "Grace Hopper"]);
    assert!(
        done.refused().contains("expected an identifier") && !done.err.contains("Grace"),
        "{}",
        done.err
    );
    let endless = vec![b'a'; 1 << 20];
    service.fed("subject", &["--owner", "-"], &endless).refused();
    let many = "user:1\n".repeat(1001);
    let done = service.fed("subject", &["--owner", "-"], many.as_bytes());
    assert!(done.refused().contains("one person at a time"), "{}", done.err);
}

#[test]
fn of_somebody_unknown_nothing_was_observed() {
    let service = Service::new();
    let done = service.run("subject", &["--owner", "email:nobody@example.com"]).ok();
    assert!(
        done.out.starts_with("nothing was observed of this person\n"),
        "{}",
        done.out
    );
    let done = service
        .run("subject", &["--owner", "email:nobody@example.com", "--json"])
        .ok();
    assert_eq!(done.json()["events"], 0);
    assert!(done.json()["first"].is_null());
}

#[test]
fn without_the_key_a_person_is_found_by_pseudonym_alone() {
    let service = Service::new();
    let pseudonym = service.pseudonym("email", ADA);
    service.0.tracker.close();
    std::fs::remove_file(service.folder().join("provenance.db.key")).unwrap();
    let done = service.run("subject", &["--owner", ADA]);
    assert!(
        done.refused().contains("RUNTIME_TRACKING_KEY") && done.err.contains("--config"),
        "{}",
        done.err
    );
    let done = service.run("affected", &["--recipient", "mailchimp", "--match", "-"]);
    assert!(done.refused().contains("RUNTIME_TRACKING_KEY"), "{}", done.err);
    // What can be answered is, and says that it is not on record.
    let done = service.run("subject", &["--pseudonym", &pseudonym, "--json"]).ok();
    assert_eq!(done.json()["events"], 4);
    assert!(
        done.err.contains("NOT RECORDED") && done.err.contains("master key"),
        "{}",
        done.err
    );
    let done = service.run("export", &["--format", "csv"]).ok();
    assert!(done.err.contains("NOT RECORDED"), "{}", done.err);
    assert!(
        service
            .run("export", &["--format", "csv", "--no-record"])
            .ok()
            .err
            .starts_with("note: this access")
    );
    assert!(
        service
            .run("subject", &["--pseudonym", "nonsense"])
            .refused()
            .contains("--pseudonym")
    );
    // No key was made in its place.
    assert!(!service.folder().join("provenance.db.key").exists());
    let wrong = |key: &str| {
        let mut command = command(service.folder());
        command
            .args(["subject", "--owner", ADA, "--db"])
            .arg(service.0.database());
        command.env("RUNTIME_TRACKING_KEY", key);
        done_(command)
    };
    wrong(&"0".repeat(64)).refused();
    let done = wrong("no key at all");
    assert!(!done.refused().contains("no key at all"), "{}", done.err);
}

fn done_(command: Command) -> Done {
    done(command, b"")
}

#[cfg(unix)]
#[test]
fn who_may_only_read_gets_the_answer_and_is_told_that_it_is_not_on_record() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;

    let service = Service::new();
    let key = std::fs::read_to_string(service.folder().join("provenance.db.key")).unwrap();
    service.0.tracker.close();
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(&service.0.database(), 0o444);
    mode(service.folder(), 0o555);
    let before: Vec<_> = std::fs::read_dir(service.folder())
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    let mut command = command(service.folder());
    command
        .args(["subject", "--owner", ADA, "--json", "--db"])
        .arg(service.0.database());
    command.env("RUNTIME_TRACKING_KEY", key.trim());
    // Rights say nothing to root.
    if std::fs::metadata(service.0.database()).unwrap().uid() == 0 {
        command.uid(65534).gid(65534);
    }
    let done = done_(command).ok();
    assert_eq!(done.json()["events"], 4);
    assert!(done.err.contains("NOT RECORDED"), "{}", done.err);
    let after: Vec<_> = std::fs::read_dir(service.folder())
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    assert_eq!(before, after);
    mode(service.folder(), 0o755);
}

// ---- incidents ----

#[test]
fn supplied_identifiers_that_were_affected_come_back_as_written() {
    let service = Service::new();
    let list = service.folder().join("ids.txt");
    std::fs::write(
        &list,
        format!(
            "\u{feff}Ada@Example.com\r\n\r\nuser:7\nemail:{ALAN}\nnot an identifier\n{}\nuser:8\n",
            "x".repeat(100_000)
        ),
    )
    .unwrap();
    let list = list.to_string_lossy().into_owned();
    let args = ["--recipient", "mailchimp", "--match", &list];
    let done = service.run("affected", &args);
    assert_eq!(done.code, 1, "lines that are no identifiers: {}", done.err);
    assert_eq!(done.out, "Ada@Example.com\nuser:7\n");
    for part in [
        "1 person affected, in 2 shares",
        "2 identifiers of the file match; they name 1 person, and none names 0 of those affected",
        "2 lines could not be read as identifiers",
        "line 5, 6",
    ] {
        assert!(done.err.contains(part), "{part}: {}", done.err);
    }
    assert!(!done.err.contains("not an identifier"), "{}", done.err);
    let json = service.run("affected", &[&args[..], &["--json"]].concat()).json();
    assert_eq!(json["matched"], serde_json::json!(["Ada@Example.com", "user:7"]));
    assert_eq!(json["matched_people"], 1);
    assert_eq!(json["unmatched_owners"], 0);
    assert_eq!(json["lines"], 7);
    assert_eq!(json["unusable_lines"], 2);
    assert_eq!(json["first_unusable_lines"], serde_json::json!([5, 6]));

    // Nobody named Ada.
    let done = service
        .fed(
            "affected",
            &["--recipient", "mailchimp", "--match", "-"],
            ALAN.as_bytes(),
        )
        .ok();
    assert_eq!(done.out, "");
    assert!(done.err.contains("none names 1 of those affected"), "{}", done.err);
    // No list at all: who it was, keyed; the linked identifiers are one person.
    let all = service.run("affected", &["--recipient", "mailchimp"]).ok();
    assert_eq!(all.out.lines().count(), 1, "{}", all.out);
    assert_eq!(all.out.trim(), service.pseudonym("email", ADA));
    let all = service
        .run("affected", &["--recipient", "tracker.example", "--json"])
        .ok()
        .json();
    assert_eq!(all["owners"], serde_json::json!([service.pseudonym("email", ALAN)]));
}

#[test]
fn a_long_list_is_matched_as_it_is_read() {
    let service = Service::new();
    let mut list: String = (0..200_000).map(|number| format!("user:{number}\n")).collect();
    list.push_str(ADA);
    let done = service
        .fed(
            "affected",
            &["--recipient", "mailchimp", "--match", "-"],
            list.as_bytes(),
        )
        .ok();
    assert_eq!(done.out, format!("user:7\n{ADA}\n"));
}

#[test]
fn time_and_category_narrow_an_incident() {
    let service = Service::new();
    let people = |args: &[&str]| {
        service
            .run("affected", &[&["--json", "--recipient", "mailchimp"], args].concat())
            .json()
    };
    assert_eq!(people(&["--category", "contact.email"])["people"], 1);
    assert_eq!(people(&["--category", "user.contact"])["people"], 1);
    for none in [
        &["--category", "financial.income"][..],
        &["--category", "contact.emai"],
        &["--since", "2100-01-01"],
        &["--until", "2020-01-01"],
    ] {
        assert_eq!(people(none)["people"], 0, "{none:?}");
    }
    let done = service
        .run("affected", &["--recipient", "mailchimp", "--until", "2020-01-01"])
        .ok();
    assert!(
        done.err.contains("look at --since, --until and --category"),
        "{}",
        done.err
    );
    let done = service.run("affected", &["--recipient", "mailchump"]).ok();
    assert!(
        done.err.contains("there are: mailchimp, tracker.example"),
        "{}",
        done.err
    );
    let done = service.run(
        "affected",
        &["--recipient", "m", "--since", "2026-02-01", "--until", "2026-02-01"],
    );
    assert!(done.refused().contains("no time between"), "{}", done.err);
}

#[test]
fn what_was_blocked_affected_nobody() {
    let service = Service::with(|config| config.egress.on_violation = OnViolation::Block);
    let _in_force = service.0.scoped();
    {
        let _scope = Scope::new("HTTP POST /export").enter();
        set_owner("email", ALAN);
        leak("77135").unwrap_err();
    }
    service.0.tracker.flush(PATIENCE).unwrap();
    let json = service
        .run("affected", &["--recipient", "mailchimp", "--json"])
        .ok()
        .json();
    assert_eq!(
        (&json["people"], &json["shares"], &json["blocked_shares"]),
        (&1.into(), &2.into(), &1.into())
    );
    assert_eq!(json["owners"], serde_json::json!([service.pseudonym("email", ADA)]));
    let subject = service.run("subject", &["--owner", ALAN]).ok().out;
    assert!(
        subject.contains("mailchimp") && subject.contains("blocked: nothing left"),
        "{subject}"
    );
    let recipients = service.run("recipients", &[]).ok().out;
    assert!(
        recipients.contains("1 violation of what its functions allow"),
        "{recipients}"
    );
}

// ---- recipients ----

#[test]
fn recipients_that_nobody_declared_come_first() {
    let service = Service::new();
    let config = service.folder().join("runtime_tracking.json");
    let written = serde_json::json!({
        "storage_path": "provenance.db",
        "recipients": {
            "mailchimp": { "hosts": ["api.mailchimp.example"] },
            "quiet": { "role": "processor", "country": "DE" },
        },
    });
    std::fs::write(config, written.to_string()).unwrap();
    // The configuration of the working folder says where the evidence is.
    let run = |args: &[&str]| {
        let mut command = command(service.folder());
        command.arg("recipients").args(args);
        done_(command).ok()
    };
    let recipients = run(&["--json"]).json()["recipients"].clone();
    let names: Vec<_> = recipients
        .as_array()
        .unwrap()
        .iter()
        .map(|one| text(&one["recipient"]))
        .collect();
    assert_eq!(names, ["tracker.example", "mailchimp", "quiet"]);
    let [tracker, mailchimp, quiet] = [0, 1, 2].map(|index| &recipients[index]);
    assert_eq!(tracker["declared"], false);
    assert_eq!(tracker["categories"]["user.financial.income"], 1);
    assert_eq!(tracker["outcomes"]["sent"], 1);
    assert_eq!(mailchimp["legal_name"], "The Rocket Science Group LLC");
    assert_eq!(mailchimp["safeguard"], "SCC");
    assert_eq!(mailchimp["events"], 2);
    assert_eq!(mailchimp["purposes"], serde_json::json!(["newsletter"]));
    assert!(text(&mailchimp["first"]) < text(&mailchimp["last"]));
    assert_eq!(quiet["country"], "DE");
    assert!(quiet.get("events").is_none());
    let shown = run(&[]).out;
    assert!(shown.starts_with("tracker.example  UNDECLARED\n"), "{shown}");
    assert!(shown.contains("declared, and no share with it is recorded"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "colours are for terminals");
    assert_eq!(
        run(&["--until", "2020-01-01", "--json"]).json()["recipients"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

// ---- every command ----

#[test]
fn what_a_service_wrote_cannot_steer_a_terminal_or_a_document() {
    let service = Service::new();
    let _in_force = service.0.scoped();
    let evil = "\u{1b}[2J\u{202e}|<img src=x>`*a*[x](y)";
    {
        let _scope = Scope::new(format!("fn {evil}")).enter();
        set_owner("email", ADA);
        let field = format!("=cmd|' /C calc'!A0{evil}");
        event("X_EVIL", evil, &[("contact.email", &field, ADA)]);
        event("DATA_STORAGE", &format!("db:{evil}"), &[("contact.email", &field, ADA)]);
        share(evil).purpose(evil).payload(ADA).begin().unwrap().sent();
    }
    service.0.tracker.flush(PATIENCE).unwrap();
    for (subcommand, args) in [
        ("subject", &["--owner", ADA][..]),
        ("subject", &["--owner", ADA, "--markdown"]),
        ("affected", &["--recipient", "none of this name"]),
        ("recipients", &[]),
        ("report", &[]),
        ("doctor", &[]),
    ] {
        let done = service.run(subcommand, args);
        for c in ['\u{1b}', '\u{202e}'] {
            assert!(
                !done.out.contains(c) && !done.err.contains(c),
                "{subcommand}: {}",
                done.out
            );
        }
        if args.contains(&"--markdown") || subcommand == "report" {
            assert!(
                !done.out.contains("<img") && !done.out.contains("[x](y)"),
                "{}",
                done.out
            );
            assert!(done.out.contains("&lt;img"), "{}", done.out);
        }
    }
    let csv = service.run("export", &["--format", "csv"]).ok().out;
    assert!(csv.contains(",'=cmd|"), "{csv}");
    assert!(!csv.contains(",=cmd|") && !csv.contains("\"=cmd|"), "{csv}");
}

#[test]
fn what_is_wrong_is_named_with_the_way_out() {
    let service = Service::new();
    let folder = service.folder();
    std::fs::write(
        folder.join("text.db"),
        "not a database, but long enough to be looked at".repeat(100),
    )
    .unwrap();
    std::fs::write(folder.join("bad.yaml"), "storage_pth: x.db\n").unwrap();
    std::fs::write(
        folder.join("pg.yaml"),
        "storage_path: postgres://me:hunter2@127.0.0.1:1/crm\n",
    )
    .unwrap();
    let run = |args: &[&str]| {
        let mut command = command(folder);
        command.args(args);
        done_(command)
    };
    for (args, part) in [
        (&["recipients", "--db", "missing.db"][..], "no evidence file here"),
        (&["recipients", "--db", "text.db"], "text.db"),
        (&["recipients", "--db", "."], ""),
        (&["recipients", "--config", "bad.yaml"], "storage_path"),
        (&["recipients", "--config", "none.yaml"], "none.yaml"),
        (&["recipients", "--config", "pg.yaml"], "cannot be reached"),
        (&["recipients"], "runtime_provenance.db"),
        (&["subject", "--db", "provenance.db"], "--owner"),
        (&["affected", "--db", "provenance.db"], "--recipient"),
        (
            &[
                "affected",
                "--db",
                "provenance.db",
                "--recipient",
                "x",
                "--match",
                "none.txt",
            ],
            "none.txt",
        ),
        (
            &["affected", "--db", "provenance.db", "--recipient", "x", "--match", "."],
            "folder",
        ),
        (
            &[
                "affected",
                "--db",
                "provenance.db",
                "--recipient",
                "x",
                "--since",
                "yesterday",
            ],
            "2026-01-31",
        ),
        (&["export", "--db", "provenance.db", "--format", "xml"], "openlineage"),
        (
            &["export", "--db", "provenance.db", "--format", "csv", "--type", "share"],
            "DATA_SHARE",
        ),
        (
            &["export", "--db", "provenance.db", "--format", "csv", "--out", "."],
            "folder",
        ),
        (
            &[
                "export",
                "--db",
                "provenance.db",
                "--format",
                "csv",
                "--out",
                "no/such/folder.csv",
            ],
            "no/such",
        ),
        (&["report", "--db", "provenance.db", "--format", "xml"], "markdown"),
        (&["frobnicate"], "frobnicate"),
        (&["doctor", "--url", "https://localhost:1"], "plain HTTP"),
        (&["doctor", "--probe", "POST /x"], "--app"),
        (&["serve", "--db", "missing.db"], "missing.db"),
        (&["verify", "--db", "missing.db"], "missing.db"),
        (&["man", "--dir", "no/such/folder"], "no/such"),
    ] {
        let done = run(args);
        assert!(done.refused().contains(part), "{args:?}: {}", done.err);
        assert!(!done.err.contains("hunter2"), "{}", done.err);
    }
    // Nothing was made by looking for it.
    assert!(!folder.join("missing.db").exists() && !folder.join("runtime_provenance.db").exists());
}

#[test]
fn help_has_examples_and_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let mut command = command(folder.path());
        command.args(args);
        done_(command).ok().out
    };
    let help = run(&["--help"]);
    for part in ["Exit codes:", "NO_COLOR", "affected"] {
        assert!(help.contains(part), "{part}: {help}");
    }
    for subcommand in [
        "serve",
        "verify",
        "subject",
        "affected",
        "recipients",
        "report",
        "export",
        "doctor",
    ] {
        let help = run(&[subcommand, "--help"]);
        for part in ["Example", "  provenance-audit ", "Exit codes: "] {
            assert!(help.contains(part), "{subcommand}: {part}: {help}");
        }
        assert_eq!(
            subcommand != "serve" && subcommand != "export",
            help.contains("--json"),
            "{subcommand}"
        );
    }
}

#[test]
fn shells_and_manual_know_every_subcommand() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let mut command = command(folder.path());
        command.args(args);
        done_(command).ok().out
    };
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]);
        for word in ["affected", "recipient", "openlineage"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let page = run(&["man"]);
    assert!(
        page.contains(".TH provenance\\-audit") || page.contains(".TH provenance-audit"),
        "{page}"
    );
    let dir = folder.path().to_string_lossy().into_owned();
    run(&["man", "--dir", &dir]);
    for page in [
        "provenance-audit.1",
        "provenance-audit-affected.1",
        "provenance-audit-doctor.1",
    ] {
        assert!(folder.path().join(page).exists(), "{page}");
    }
}

#[test]
fn verify_gives_json_too() {
    let service = Service::new();
    service.0.tracker.close();
    let verified = service.run("verify", &["--json"]).ok().json();
    assert_eq!(verified["result"], "holds");
    assert_eq!(
        verified["instances"][0]["instance"],
        service.0.tracker.instance_id().as_str()
    );
    assert_eq!(text(&verified["instances"][0]["head"]).len(), 64);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let service = Service::new();
    let _in_force = service.0.scoped();
    for number in 0..2000 {
        event("X_MANY", &format!("printer:{number}"), &[]);
    }
    service.0.tracker.flush(PATIENCE).unwrap();
    for (subcommand, args) in [
        ("export", &["--format", "jsonl"][..]),
        ("export", &["--format", "csv"]),
        ("export", &["--format", "openlineage"]),
    ] {
        let mut command = command(service.folder());
        command
            .arg(subcommand)
            .args(args)
            .arg("--no-record")
            .arg("--db")
            .arg(service.0.database());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 64];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{err}");
        assert_eq!(err.lines().count(), 1, "only the note: {err}");
    }
}

//! The example application as its users run it: the real binary over HTTP, with a partner that
//! keeps what it was sent, and the audit API of the running process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use provenance_tests::program;
use provenance_tests::{fields, tag, text};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

/// What is declared of the ten fields of a sign-up.
const SIGNUP: [(&str, &str); 10] = [
    ("name", "personal.name"),
    ("email", "contact.email"),
    ("password", "security.password"),
    ("birthday", "demographic.date_of_birth"),
    ("gender", "demographic.gender"),
    ("income", "financial.income"),
    ("currency", "financial.currency"),
    ("budget_style", "preferences.budget_style"),
    ("goals", "preferences.goals"),
    ("week_start", "preferences.week_start"),
];

#[test]
fn a_sign_up_is_collected_and_stored_with_owner_source_and_one_request_id() {
    let partner = Partner::start();
    let app = App::start(&partner.url);
    for (encoding, email) in [(Encoding::Json, "one@example.org"), (Encoding::Form, "two@example.org")] {
        let mut person = Person::new(&app, email);
        let answer = person.post_as("/signup", &person.signup(), encoding);
        assert_eq!(answer.status, 201, "{encoding:?}");
        assert!(answer.body["id"].is_i64());

        let events = app.events_of(&answer.request_id, &["DATA_COLLECTION", "DATA_STORAGE"]);
        let (collection, storage) = (one(&events, "DATA_COLLECTION"), one(&events, "DATA_STORAGE"));
        let owner = text(&collection["extras"]["owner"]);
        assert!(owner.starts_with("email:") && !owner.contains('@'), "{owner}");
        assert_eq!(text(&storage["extras"]["owner"]), owner);
        assert_eq!(storage["extras"]["action"], "insert");
        assert_eq!(storage["extras"]["certain"], true);
        assert_eq!(storage["target"], "db:users");

        for event in [collection, storage] {
            assert_eq!(event["request_id"], answer.request_id);
            assert_eq!(event["actor"], "HTTP POST /signup");
            let stored = event["event_type"] == "DATA_STORAGE";
            let expected: BTreeMap<_, _> = SIGNUP
                .into_iter()
                .map(|(field, category)| match field {
                    "password" if stored => ("password_hash", category),
                    _ => (field, category),
                })
                .collect();
            let found: BTreeMap<_, _> = fields(event)
                .into_iter()
                .map(|field| (field.clone(), text(&tag(event, &field)["category"])))
                .collect();
            assert_eq!(
                found,
                expected
                    .into_iter()
                    .map(|(f, c)| (f.to_owned(), c.to_owned()))
                    .collect(),
                "{}",
                event["event_type"]
            );
            assert_eq!(fields(event).len(), 10, "no field twice");
            for field in fields(event) {
                let tag = tag(event, &field);
                assert_eq!(text(&tag["owner"]), owner, "{field}");
                assert_eq!(tag["pii"], true, "{field}");
                if field.starts_with("password") {
                    assert_eq!(tag["fingerprint"], Json::Null);
                } else {
                    assert_eq!(text(&tag["fingerprint"]).len(), 64, "{field}");
                    assert_eq!(tag["source"], "HTTP POST /signup", "{field}");
                }
            }
        }
        assert_eq!(
            tag(collection, "income")["fingerprint"],
            tag(storage, "income")["fingerprint"],
            "text that came in and the number that was stored are one value"
        );
    }
}

#[test]
fn what_the_database_refused_is_not_stored() {
    let partner = Partner::start();
    let app = App::start(&partner.url);
    let mut person = Person::new(&app, "twice@example.org");
    assert_eq!(person.sign_up().status, 201);
    let mut again = Person::new(&app, "TWICE@example.org");
    let refused = again.sign_up();
    assert_eq!(refused.status, 409);
    assert!(again.cookie.is_empty());

    // Events are written in order: once a later one is there, the refused request has no more to come.
    let later = person.post("/profile", &json!({"gender": "other"}));
    app.events_of(&later.request_id, &["DATA_STORAGE"]);
    let events = app.events(&format!("request_id={}", refused.request_id));
    one(&events, "DATA_COLLECTION");
    assert!(
        events.iter().all(|event| event["event_type"] != "DATA_STORAGE"),
        "{events:#?}"
    );
}

#[test]
fn a_profile_update_is_recorded_as_an_update_by_the_signed_in_person() {
    let partner = Partner::start();
    let app = App::start(&partner.url);
    let mut person = Person::new(&app, "update@example.org");
    person.sign_up();
    let answer = person.post(
        "/profile",
        &json!({"income": "5100.50", "goals": "Learn to sail next spring"}),
    );
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["income"], 5100.5);
    assert_eq!(answer.body["budget_style"], "zero-based");

    let events = app.events_of(&answer.request_id, &["DATA_COLLECTION", "DATA_STORAGE"]);
    let storage = one(&events, "DATA_STORAGE");
    assert_eq!(storage["extras"]["action"], "update");
    assert_eq!(storage["extras"]["certain"], true);
    assert_eq!(storage["target"], "db:users");
    assert_eq!(
        BTreeSet::from_iter(fields(storage)),
        BTreeSet::from(["goals".into(), "income".into()])
    );
    let owner = text(&storage["extras"]["owner"]);
    assert!(owner.starts_with("user:"), "{owner}");
    assert_eq!(text(&tag(storage, "income")["owner"]), owner);
    assert_eq!(tag(storage, "income")["source"], "HTTP POST /profile");

    let refused = person.post("/profile", &json!({"income": "plenty"}));
    assert_eq!(refused.status, 400);
    assert!(refused.body["errors"]["income"].is_string());
}

#[test]
fn shares_carry_findings_of_the_person_whose_data_left() {
    let partner = Partner::start();
    let app = App::start(&partner.url);
    let mut person = Person::new(&app, "Share@example.org");
    person.sign_up();
    person.post(
        "/expenses",
        &json!({"amount": "85.20", "category": "aquarium supplies", "description": "pump", "date": "2026-03-02"}),
    );
    let owners = app.owners(&person);

    let answer = person.post("/newsletter", &json!({}));
    assert_eq!(answer.status, 200);
    let share = app.share(&answer.request_id);
    assert_eq!(share["extras"]["recipient"], "marketing");
    assert_eq!(share["extras"]["purpose"], "newsletter");
    assert_eq!(share["extras"]["status"], 200);
    assert_eq!(tag(&share, "email")["form"], "hashed");
    assert_all_owned_by(&share, &owners);
    let digest: String = Sha256::digest(b"share@example.org")
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let sent = partner.received("/marketing/v1/subscribers");
    assert_eq!(sent["email_sha256"], digest.as_str());
    assert_eq!(sent["first_name"], "Zephyrine");

    let answer = person.post("/score", &json!({}));
    assert_eq!(answer.body["score"], 640.0);
    let share = app.share(&answer.request_id);
    assert_eq!(share["extras"]["recipient"], "scoring");
    for field in ["birthday", "income"] {
        tag(&share, field);
    }
    assert_all_owned_by(&share, &owners);
    let sent = partner.received("/scoring/v1/score");
    assert_eq!(sent, json!({"birthday": "1987-11-05", "income": 4200.0}));

    let answer = person.post("/insights", &json!({}));
    assert_eq!(answer.body["insights"], "Spend less.");
    let share = app.share(&answer.request_id);
    assert_eq!(share["extras"]["recipient"], "ai");
    for field in ["income", "goals", "category"] {
        assert_ne!(tag(&share, field)["form"], "exact", "{field} stands inside prose");
    }
    assert_all_owned_by(&share, &owners);
    let prompt = text(&partner.received("/ai/v1/responses")["input"]);
    assert!(
        prompt.contains("4200.00") && prompt.contains("hot-air balloon"),
        "{prompt}"
    );
    assert_eq!(app.events("event_type=POLICY_VIOLATION"), Vec::<Json>::new());
    assert_eq!(app.audit("/status")["blind_spots"], json!([]));
}

#[test]
fn a_derivation_names_what_it_was_made_from() {
    let partner = Partner::start();
    let app = App::start(&partner.url);
    let mut person = Person::new(&app, "derive@example.org");
    person.sign_up();
    person.post(
        "/expenses",
        &json!({"amount": 1050, "category": "rent", "description": "flat", "date": "2026-03-02"}),
    );
    let answer = person.get("/dashboard");
    assert_eq!(answer.body["remaining"], 3150.0);
    assert_eq!(answer.body["spending"], json!({"rent": 1050.0}));
    assert_eq!(answer.body["savings_rate"], 75.0);
    let events = app.events_of(&answer.request_id, &["DATA_DERIVATION"]);
    let derivation = one(&events, "DATA_DERIVATION");
    assert_eq!(derivation["target"], "derived:x.budget.savings_rate");
    assert_eq!(tag(derivation, "income")["role"], "input");
    assert_eq!(tag(derivation, "savings_rate")["role"], "result");
    assert_all_owned_by(derivation, &app.owners(&person));
}

#[test]
fn two_peoples_shares_are_never_mixed() {
    let partner = Partner::start();
    let app = App::start(&partner.url);
    let people: Vec<_> = thread::scope(|scope| {
        let served: Vec<_> = [("left@example.org", 4200), ("right@example.org", 3900)]
            .map(|(email, income)| {
                let app = &app;
                scope.spawn(move || {
                    let mut person = Person::new(app, email);
                    // Birthday, gender, currency and goals are the same for both; only income differs.
                    let mut form = person.signup();
                    form["income"] = income.into();
                    assert_eq!(person.post("/signup", &form).status, 201);
                    let mut requests = Vec::new();
                    for _ in 0..5 {
                        for path in ["/newsletter", "/score", "/insights"] {
                            let answer = person.post(path, &json!({}));
                            assert_eq!(answer.status, 200, "{path}");
                            requests.push((path, answer.request_id));
                        }
                    }
                    (person, requests)
                })
            })
            .into_iter()
            .collect();
        served.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let owners: Vec<_> = people.iter().map(|(person, _)| app.owners(person)).collect();
    assert!(owners[0].is_disjoint(&owners[1]), "{owners:?}");
    for ((_, requests), owners) in people.iter().zip(&owners) {
        for (path, request_id) in requests {
            let share = app.share(request_id);
            assert!(!fields(&share).is_empty(), "{path}");
            assert!(owners.contains(&text(&share["extras"]["owner"])), "{path}: {share:#}");
            assert_all_owned_by(&share, owners);
        }
    }
    assert_eq!(
        app.events("event_type=DATA_SHARE&limit=500").len(),
        30,
        "one send is one event"
    );
}

#[test]
fn a_partner_that_is_down_is_an_outcome_of_its_own() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let app = App::start(&format!("http://{closed}"));
    let mut person = Person::new(&app, "down@example.org");
    person.sign_up();
    for path in ["/newsletter", "/score", "/insights"] {
        let answer = person.post(path, &json!({}));
        assert_eq!(answer.status, 502, "{path}");
        assert!(answer.body["error"].is_string());
        let share = app.share(&answer.request_id);
        assert_eq!(share["extras"]["outcome"], "error", "{path}: {share:#}");
        assert!(
            !fields(&share).is_empty(),
            "{path}: what was about to leave is recorded"
        );
    }
}

#[test]
fn a_partner_that_refuses_is_recorded_with_its_status() {
    let partner = Partner::with_status(503);
    let app = App::start(&partner.url);
    let mut person = Person::new(&app, "refused@example.org");
    person.sign_up();
    let answer = person.post("/score", &json!({}));
    assert_eq!(answer.status, 502);
    let share = app.share(&answer.request_id);
    assert_eq!(share["extras"]["status"], 503, "{share:#}");
}

#[test]
fn no_raw_value_is_kept_shown_or_logged() {
    let partner = Partner::start();
    let mut app = App::start(&partner.url);
    let mut person = Person::new(&app, "zephyrine.q@example.org");
    let mut form = person.signup();
    form["income"] = json!("4217.35");
    assert_eq!(person.post("/signup", &form).status, 201);
    assert_eq!(person.post("/signup", &form).status, 409);
    person.post("/profile", &json!({"goals": "A lighthouse on a quiet island"}));
    person.post(
        "/profile",
        &json!({"income": "plenty, thank you", "birthday": "long ago"}),
    );
    person.post(
        "/login",
        &json!({"email": "zephyrine.q@example.org", "password": "a wrong guess of it"}),
    );
    person.post(
        "/expenses",
        &json!({"amount": "77.31", "category": "aquarium supplies", "description": "Pump for the tank", "date": "2026-03-02"}),
    );
    for path in ["/newsletter", "/score", "/insights"] {
        assert_eq!(person.post(path, &json!({})).status, 200, "{path}");
    }
    let last = person.get("/dashboard?email=zephyrine.q@example.org&note=balloonist");
    app.events_of(&last.request_id, &["DATA_DERIVATION"]);

    let mut answers = app.audit("/status").to_string();
    for path in ["/events?limit=500", "/fingerprints?limit=500"] {
        answers.push_str(&app.audit(path).to_string());
    }
    let logs = app.stop();
    let files = files(&app.data().join("evidence"));
    assert!(files.len() > 1, "the database, and its key at least");

    let digest = Sha256::digest(b"zephyrine.q@example.org");
    let token = person.cookie.split_once('=').unwrap().1.to_owned();
    let mut needles: Vec<(&str, Vec<u8>)> = [
        "Zephyrine",
        "Quattlebaum",
        "zephyrine.q@example.org",
        "zephyrine.q%40example.org",
        "1987-11-05",
        "hot-air balloon",
        "lighthouse",
        "4217.35",
        "77.31",
        "a-long-password-of-mine",
        "a wrong guess",
        "plenty, thank you",
        "long ago",
        "aquarium",
        "Pump for the tank",
        "balloonist",
        &token,
        &digest.iter().map(|b| format!("{b:02x}")).collect::<String>(),
    ]
    .into_iter()
    .map(|needle| ("text", needle.to_ascii_lowercase().into_bytes()))
    .collect();
    needles.push(("raw digest", digest.to_ascii_lowercase()));
    needles.push(("raw number", 4217.35_f64.to_be_bytes().to_ascii_lowercase()));

    let places = files
        .iter()
        .map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
        .chain([("logs", logs.as_bytes()), ("audit answers", answers.as_bytes())]);
    for (place, bytes) in places {
        let bytes = bytes.to_ascii_lowercase();
        for (what, needle) in &needles {
            assert!(
                !bytes.windows(needle.len()).any(|window| window == needle),
                "{what} {:?} stands in {place}",
                String::from_utf8_lossy(needle)
            );
        }
    }
    // The search finds what is there: the application's own database has all of it.
    let app_db: Vec<u8> = files_named(app.data(), "app.db").concat();
    assert!(app_db.windows(9).any(|window| window == b"Zephyrine"));
}

#[test]
fn events_and_registered_values_survive_a_restart() {
    let partner = Partner::start();
    let mut app = App::start(&partner.url);
    let mut person = Person::new(&app, "restart@example.org");
    person.sign_up();
    // Loaded by no tracked model: after the restart only the store can know this text.
    let answer = person.post(
        "/expenses",
        &json!({"amount": 12, "category": "aquarium supplies", "description": "pump", "date": "2026-03-02"}),
    );
    app.events_of(&answer.request_id, &["DATA_STORAGE"]);
    let before = app.event_ids();
    let owners = app.owners(&person);
    let logs = app.stop();
    assert!(!logs.contains("panicked"), "{logs}");

    let app = app.restart(&partner.url);
    let after = app.event_ids();
    assert!(before.is_subset(&after), "{before:?} {after:?}");
    person.app = app.url.clone();
    let answer = person.post("/insights", &json!({}));
    assert_eq!(answer.status, 200, "the session outlives the process");
    let share = app.share(&answer.request_id);
    assert!(owners.contains(&text(&tag(&share, "category")["owner"])), "{share:#}");
    assert!(before.contains(&app.first_seen(&text(&tag(&share, "category")["fingerprint"]))));
    assert_all_owned_by(&share, &owners);
}

#[test]
fn bad_bodies_get_the_answers_they_get_without_provenance() {
    let partner = Partner::start();
    let (with, without) = (App::start(&partner.url), App::switched_off(&partner.url));
    assert!(without.audit_url.is_empty());
    let valid = Person::new(&with, "body@example.org").signup();
    let valid_but = |email: &str, more: &[(String, Json)]| {
        let mut body = valid.clone();
        body["email"] = email.into();
        body.as_object_mut().unwrap().extend(more.iter().cloned());
        body
    };
    let many: Vec<_> = (0..100_000).map(|n| (format!("p{n}"), Json::from(n))).collect();
    let as_keys = [
        ("zephyrine.key@example.org".to_owned(), json!("yes")),
        (
            "born 1987-11-05".to_owned(),
            json!({"Zephyrine Quattlebaum": ["hot-air balloon"]}),
        ),
    ];
    let nested = |open: &str, close: &str| format!("{}1{}", open.repeat(10_000), close.repeat(10_000)).into_bytes();
    let nested_beside = |email: &str| {
        let body = valid_but(email, &[]).to_string();
        let deep = String::from_utf8(nested("[", "]")).unwrap();
        format!("{},\"deep\":{deep}}}", body.strip_suffix('}').unwrap()).into_bytes()
    };
    const JSON: &str = "application/json";
    const FORM: &str = "application/x-www-form-urlencoded";
    let mut latin = form_body(&valid_but("latin@example.org", &[]));
    latin.extend(b"&goals2=caf\xe9&x=%FF%FE%00");
    let mut not_utf8 = valid_but("utf8@example.org", &[]).to_string().into_bytes();
    not_utf8[10] = 0xff;
    let truncated = valid_but("cut@example.org", &[]).to_string();
    let cases: Vec<(&str, &str, Vec<u8>, u16)> = vec![
        ("form that is not UTF-8", FORM, latin, 201),
        ("JSON that is not UTF-8", JSON, not_utf8, 400),
        (
            "truncated JSON",
            JSON,
            truncated.as_bytes()[..truncated.len() / 2].to_vec(),
            400,
        ),
        ("truncated escape", FORM, b"name=Zephyrine%4".to_vec(), 400),
        ("10,000 arrays", JSON, nested("[", "]"), 400),
        ("10,000 objects", JSON, nested("{\"email\":", "}"), 400),
        (
            "10,000 arrays beside a sign-up",
            JSON,
            nested_beside("deep@example.org"),
            201,
        ),
        // Just above: of a longer one the server would close the connection before all is sent.
        (
            "huge, above the limit",
            FORM,
            [b"name=".as_slice(), &[b'a'; 2 << 20]].concat(),
            413,
        ),
        (
            "huge, below the limit",
            FORM,
            form_body(&valid_but(
                "big@example.org",
                &[("more".into(), "b".repeat(1 << 20).into())],
            )),
            201,
        ),
        (
            "100,000 form parameters",
            FORM,
            form_body(&valid_but("many@example.org", &many)),
            201,
        ),
        (
            "100,000 JSON members",
            JSON,
            valid_but("mems@example.org", &many).to_string().into(),
            201,
        ),
        (
            "personal data as JSON keys",
            JSON,
            valid_but("keys@example.org", &as_keys).to_string().into(),
            201,
        ),
        ("a text", JSON, b"\"Zephyrine\"".to_vec(), 422),
        ("nothing", JSON, Vec::new(), 400),
        ("an empty form", FORM, Vec::new(), 400),
        ("another type", "text/plain", b"name=Zephyrine".to_vec(), 415),
        ("no type", "", b"name=Zephyrine".to_vec(), 415),
    ];
    for (case, content_type, body, status) in &cases {
        let answers = [&with, &without].map(|app| app.send("/signup", content_type, body));
        assert_eq!(answers[0].status, *status, "{case}");
        assert_eq!(answers[1].status, *status, "{case}, switched off");
        assert_eq!(answers[0].body, answers[1].body, "{case}");
    }
    assert!(files(&without.data().join("evidence")).is_empty());

    let blind_spots = with.audit("/status")["blind_spots"].to_string();
    assert!(blind_spots.contains("capped_input"), "{blind_spots}");
    with.events_of(
        &with.send("/signup", FORM, &form_body(&valid)).request_id,
        &["DATA_STORAGE"],
    );
    let kept = with.audit("/events?limit=500").to_string();
    for (place, bytes) in files(&with.data().join("evidence"))
        .iter()
        .chain([&("answers".into(), kept.into_bytes())])
    {
        for needle in ["zephyrine", "1987-11-05", "balloon", "caf\u{e9}"] {
            let bytes = bytes.to_ascii_lowercase();
            assert!(
                !bytes.windows(needle.len()).any(|w| w == needle.as_bytes()),
                "{needle} in {place}"
            );
        }
    }
}

#[test]
fn the_demo_tells_the_story_and_leaves() {
    let output = Command::new(program("budget-tracker"))
        .args([
            "--addr",
            "127.0.0.1:0",
            "--audit-addr",
            "127.0.0.1:0",
            "--exit-after-demo",
        ])
        .output()
        .unwrap();
    let (told, complaints) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(output.status.success(), "{told}{complaints}");
    for line in ["in ", "stored ", "derived ", "shared "] {
        assert!(
            told.lines().any(|told| told.trim_start().starts_with(line)),
            "{line}: {told}"
        );
    }
    for (recipient, finding) in [
        ("marketing", "email (hashed)"),
        ("scoring", "birthday"),
        ("ai", "income"),
    ] {
        assert!(
            told.lines()
                .any(|line| line.contains("shared") && line.contains(recipient) && line.contains(finding)),
            "{recipient}: {told}"
        );
    }
    for raw in [
        "Ada",
        "Quill",
        "@example.com",
        "1990-04-23",
        "4200",
        "4350",
        "cargo bike",
        "horse",
    ] {
        assert!(
            !told.contains(raw) && !complaints.contains(raw),
            "{raw}: {told}{complaints}"
        );
    }
    let data = told.lines().find_map(|line| line.strip_prefix("data ")).unwrap();
    assert!(!Path::new(data).exists(), "the temporary folder is removed");
}

#[test]
fn a_busy_port_is_named_with_the_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for (flag, other) in [("--addr", "--audit-addr"), ("--audit-addr", "--addr")] {
        let data = tempfile::tempdir().unwrap();
        let output = Command::new(program("budget-tracker"))
            .args([flag, &addr, other, "127.0.0.1:0", "--exit-after-demo", "--data-dir"])
            .arg(data.path())
            .output()
            .unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{complaint}");
        assert!(complaint.contains(&addr) && complaint.contains(flag), "{complaint}");
        assert!(!complaint.contains("panicked"), "{complaint}");
    }
}

/// The running application. Ended when dropped.
struct App {
    child: Child,
    url: String,
    audit_url: String,
    data: Arc<TempDir>,
    logs: Vec<JoinHandle<String>>,
}

impl App {
    fn start(partner_url: &str) -> Self {
        App::launch(partner_url, Arc::new(tempfile::tempdir().unwrap()), true)
    }

    fn switched_off(partner_url: &str) -> Self {
        App::launch(partner_url, Arc::new(tempfile::tempdir().unwrap()), false)
    }

    fn restart(&self, partner_url: &str) -> Self {
        App::launch(partner_url, self.data.clone(), true)
    }

    fn launch(partner_url: &str, data: Arc<TempDir>, enabled: bool) -> Self {
        let mut child = Command::new(program("budget-tracker"))
            .args(["--addr", "127.0.0.1:0", "--audit-addr", "127.0.0.1:0", "--no-demo"])
            .args(["--partner-url", partner_url])
            .arg("--data-dir")
            .arg(data.path())
            .env("RUNTIME_TRACKING_ENABLED", enabled.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (found, addresses) = mpsc::channel();
        let logs = vec![
            gather(child.stdout.take().unwrap(), Some(found)),
            gather(child.stderr.take().unwrap(), None),
        ];
        let mut app = App {
            child,
            url: String::new(),
            audit_url: String::new(),
            data,
            logs,
        };
        let deadline = Instant::now() + PATIENCE;
        for _ in 0..2 {
            let Ok(line) = addresses.recv_timeout(deadline.saturating_duration_since(Instant::now())) else {
                panic!("the application did not start: {}", app.stop());
            };
            match line.split_once(' ').unwrap() {
                ("app", url) => app.url = url.to_owned(),
                (_, "off") => {}
                (_, url) => app.audit_url = url.to_owned(),
            }
        }
        app
    }

    /// Ends the process and gives all that it printed.
    fn stop(&mut self) -> String {
        // May have ended by itself.
        let _ = self.child.kill();
        self.child.wait().unwrap();
        self.logs.drain(..).map(|log| log.join().unwrap()).collect()
    }

    fn data(&self) -> &Path {
        self.data.path()
    }

    fn send(&self, path: &str, content_type: &str, body: &[u8]) -> Answer {
        send("POST", &format!("{}{path}", self.url), content_type, "", body).0
    }

    fn audit(&self, path_and_query: &str) -> Json {
        let url = format!("{}/runtime-audit{path_and_query}", self.audit_url);
        let answer = send("GET", &url, "", "", b"").0;
        assert_eq!(answer.status, 200, "{url}: {}", answer.body);
        answer.body
    }

    /// Events, oldest first.
    fn events(&self, query: &str) -> Vec<Json> {
        let page = self.audit(&format!("/events?{query}"));
        page["events"].as_array().unwrap().iter().rev().cloned().collect()
    }

    fn event_ids(&self) -> BTreeSet<String> {
        self.events("limit=500")
            .iter()
            .map(|event| text(&event["event_id"]))
            .collect()
    }

    /// The events of one request, oldest first, once all these types are among them.
    fn events_of(&self, request_id: &str, types: &[&str]) -> Vec<Json> {
        eventually(|| {
            let events = self.events(&format!("request_id={request_id}"));
            types
                .iter()
                .all(|wanted| events.iter().any(|event| event["event_type"] == *wanted))
                .then_some(events)
                .ok_or_else(|| format!("no {types:?} of {request_id}"))
        })
    }

    /// The one share of a request, once its outcome is known.
    fn share(&self, request_id: &str) -> Json {
        eventually(|| {
            let events = self.events(&format!("request_id={request_id}&event_type=DATA_SHARE"));
            match events.as_slice() {
                [share] if share["extras"]["outcome"] != "pending" => Ok(share.clone()),
                other => Err(format!(
                    "{} shares of {request_id}, or one that is pending",
                    other.len()
                )),
            }
        })
    }

    /// The identifiers under which a person's requests were recorded: by address, then by account.
    fn owners(&self, person: &Person) -> BTreeSet<String> {
        eventually(|| {
            let owners: BTreeSet<_> = person
                .requests
                .iter()
                .flat_map(|request_id| self.events(&format!("request_id={request_id}")))
                .filter_map(|event| event["extras"]["owner"].as_str().map(str::to_owned))
                .collect();
            let kinds: Vec<_> = owners.iter().filter_map(|owner| owner.split(':').next()).collect();
            match kinds.as_slice() {
                ["email", "user"] => Ok(owners),
                _ => Err(format!("{owners:?} are not one address and one account")),
            }
        })
    }

    /// The event that a value was first seen in.
    fn first_seen(&self, fingerprint: &str) -> String {
        let page = self.audit("/fingerprints?limit=500");
        let values = page["fingerprints"].as_array().unwrap();
        let value = values.iter().find(|value| value["fingerprint"] == fingerprint);
        text(&value.expect("a known fingerprint")["first_seen_event_id"])
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if !self.logs.is_empty() {
            self.stop();
        }
    }
}

/// A person at their browser.
struct Person {
    app: String,
    email: String,
    cookie: String,
    requests: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
enum Encoding {
    Json,
    Form,
}

impl Person {
    fn new(app: &App, email: &str) -> Self {
        Person {
            app: app.url.clone(),
            email: email.to_owned(),
            cookie: String::new(),
            requests: Vec::new(),
        }
    }

    fn signup(&self) -> Json {
        json!({
            "name": "Zephyrine Quattlebaum",
            "email": self.email,
            "password": "a-long-password-of-mine",
            "birthday": "1987-11-05",
            "gender": "non-binary",
            "income": "4200",
            "currency": "EUR",
            "budget_style": "zero-based",
            "goals": "Cross the Alps in a hot-air balloon",
            "week_start": "monday",
        })
    }

    fn sign_up(&mut self) -> Answer {
        self.post("/signup", &self.signup())
    }

    fn post(&mut self, path: &str, body: &Json) -> Answer {
        self.post_as(path, body, Encoding::Json)
    }

    fn post_as(&mut self, path: &str, body: &Json, encoding: Encoding) -> Answer {
        match encoding {
            Encoding::Json => self.ask("POST", path, "application/json", body.to_string().as_bytes()),
            Encoding::Form => self.ask("POST", path, "application/x-www-form-urlencoded", &form_body(body)),
        }
    }

    fn get(&mut self, path: &str) -> Answer {
        self.ask("GET", path, "", b"")
    }

    fn ask(&mut self, method: &str, path: &str, content_type: &str, body: &[u8]) -> Answer {
        let (answer, cookie) = send(method, &format!("{}{path}", self.app), content_type, &self.cookie, body);
        if let Some(cookie) = cookie {
            assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"));
            self.cookie = cookie.split(';').next().unwrap().to_owned();
        }
        self.requests.push(answer.request_id.clone());
        answer
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    body: Json,
    request_id: String,
}

/// One request, under a request id of its own; gives the cookie beside the answer.
fn send(method: &str, url: &str, content_type: &str, cookie: &str, body: &[u8]) -> (Answer, Option<String>) {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let request_id = format!("test-{:06}", NEXT.fetch_add(1, Ordering::Relaxed));
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(60)))
        .http_status_as_error(false)
        .build()
        .new_agent();
    let mut request = ureq::http::Request::builder()
        .method(method)
        .uri(url)
        .header("x-request-id", &request_id);
    for (name, value) in [("content-type", content_type), ("cookie", cookie)] {
        if !value.is_empty() {
            request = request.header(name, value);
        }
    }
    let mut response = agent.run(request.body(body).unwrap()).unwrap();
    let cookie = response
        .headers()
        .get("set-cookie")
        .map(|value| value.to_str().unwrap().to_owned());
    let text = response
        .body_mut()
        .with_config()
        .limit(64 << 20)
        .read_to_string()
        .unwrap();
    let answer = Answer {
        status: response.status().as_u16(),
        body: serde_json::from_str(&text).unwrap_or(Json::String(text)),
        request_id,
    };
    (answer, cookie)
}

/// The partner of the tests: keeps every body that reaches it.
struct Partner {
    url: String,
    received: Arc<Mutex<Vec<(String, Json)>>>,
}

impl Partner {
    fn start() -> Self {
        Partner::with_status(200)
    }

    fn with_status(status: u16) -> Self {
        let server = tiny_http::Server::http("127.0.0.1:0").unwrap();
        let url = format!("http://{}", server.server_addr().to_ip().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let kept = received.clone();
        thread::spawn(move || {
            for mut request in server.incoming_requests() {
                let mut body = Vec::new();
                request.as_reader().read_to_end(&mut body).unwrap();
                let path = request.url().to_owned();
                kept.lock()
                    .unwrap()
                    .push((path, serde_json::from_slice(&body).unwrap()));
                let answer = json!({"score": 640, "output_text": "Spend less."}).to_string();
                let _ = request.respond(tiny_http::Response::from_string(answer).with_status_code(status));
            }
        });
        Partner { url, received }
    }

    /// The one body that came to `path`.
    fn received(&self, path: &str) -> Json {
        let received = self.received.lock().unwrap();
        let bodies: Vec<_> = received.iter().filter(|(to, _)| to == path).collect();
        assert_eq!(bodies.len(), 1, "{path}");
        bodies[0].1.clone()
    }
}

/// The one event of a type.
fn one<'e>(events: &'e [Json], event_type: &str) -> &'e Json {
    let found: Vec<_> = events
        .iter()
        .filter(|event| event["event_type"] == event_type)
        .collect();
    assert_eq!(found.len(), 1, "{event_type} in {events:#?}");
    found[0]
}

fn assert_all_owned_by(event: &Json, owners: &BTreeSet<String>) {
    for tag in event["matched_tags"].as_array().unwrap() {
        assert!(
            owners.contains(&text(&tag["owner"])),
            "{owners:?} own not all of {event:#}"
        );
    }
}

fn eventually<T>(mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(why) => assert!(Instant::now() < deadline, "{why}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn form_body(fields: &Json) -> Vec<u8> {
    let escape = |text: &str| -> String {
        text.bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
                _ => format!("%{byte:02X}"),
            })
            .collect()
    };
    let pairs: Vec<_> = fields
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("{}={}", escape(key), escape(&value))
        })
        .collect();
    pairs.join("&").into_bytes()
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    found
}

fn files_named(folder: &Path, prefix: &str) -> Vec<Vec<u8>> {
    files(folder)
        .into_iter()
        .filter(|(path, _)| {
            Path::new(path)
                .file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with(prefix)
        })
        .map(|(_, bytes)| bytes)
        .collect()
}

/// Reads a pipe to its end; lines that name an address go to `found` as they come.
fn gather(pipe: impl Read + Send + 'static, found: Option<mpsc::Sender<String>>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut all = String::new();
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if let Some(found) = &found
                && (line.starts_with("app ") || line.starts_with("audit "))
            {
                let _ = found.send(line.clone());
            }
            all.push_str(&line);
            all.push('\n');
        }
        all
    })
}

//! Configuration as a user meets it: files, environment, and what is said of mistakes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use provenance::Kind;
use provenance::config::{Config, Durability, Fingerprints, OnEvidenceFailure, OnViolation, Storage};
use serde_json::Value as Json;
use tempfile::TempDir;

/// Every key of the documentation.
const YAML: &str = r#"# a comment
enabled: false
storage_path: evidence/own.db
audit_token: "s3cret"
audit: {bind: "127.0.0.1:9999", query_token: false}
fingerprints: sha256
owners: clear
key_file: own.key
service: crm
environment: production
ignored_hosts: [localhost, "*.internal"]
input_fields:
  Email: {category: contact.email, description: "Email: the main one", pii: true, kind: email, secret: false, owner: email}
tracked_models:
  User:
    fields:
      email: {category: contact.email, description: User email, owner_attribute: email}
      income: {category: financial.income}
recipients:
  mailchimp:
    hosts: [api.mailchimp.com]
    role: processor
    legal_name: Intuit Inc.
    country: us
    safeguard: SCC
    on_violation: block
egress: {durability: batched, on_violation: block, on_evidence_failure: refuse}
registry: {max_values: 500}
spill: {max_bytes: 4096}
retention: {DATA_COLLECTION: 400d, X_OWN: 36h, contact.email: 8w}
"#;

const JSON: &str = r#"{
  "enabled": false, "storage_path": "evidence/own.db", "audit_token": "s3cret",
  "audit": {"bind": "127.0.0.1:9999", "query_token": false},
  "fingerprints": "sha256", "owners": "clear", "key_file": "own.key",
  "service": "crm", "environment": "production", "ignored_hosts": ["localhost", "*.internal"],
  "input_fields": {"Email": {"category": "contact.email", "description": "Email: the main one", "pii": true,
                             "kind": "email", "secret": false, "owner": "email"}},
  "tracked_models": {"User": {"fields": {
    "email": {"category": "contact.email", "description": "User email", "owner_attribute": "email"},
    "income": {"category": "financial.income"}}}},
  "recipients": {"mailchimp": {"hosts": ["api.mailchimp.com"], "role": "processor", "legal_name": "Intuit Inc.",
                               "country": "us", "safeguard": "SCC", "on_violation": "block"}},
  "egress": {"durability": "batched", "on_violation": "block", "on_evidence_failure": "refuse"},
  "registry": {"max_values": 500}, "spill": {"max_bytes": 4096},
  "retention": {"DATA_COLLECTION": "400d", "X_OWN": "36h", "contact.email": "8w"}
}"#;

const TOML: &str = r#"
enabled = false
storage_path = "evidence/own.db"
audit_token = "s3cret"
audit.bind = "127.0.0.1:9999"
audit.query_token = false
fingerprints = "sha256"
owners = "clear"
key_file = "own.key"
service = "crm"
environment = "production"
ignored_hosts = ["localhost", "*.internal"]
registry.max_values = 500
spill.max_bytes = 4096

[input_fields.Email]
category = "contact.email"
description = "Email: the main one"
pii = true
kind = "email"
secret = false
owner = "email"

[tracked_models.User.fields]
email = { category = "contact.email", description = "User email", owner_attribute = "email" }
income = { category = "financial.income" }

[recipients.mailchimp]
hosts = ["api.mailchimp.com"]
role = "processor"
legal_name = "Intuit Inc."
country = "us"
safeguard = "SCC"
on_violation = "block"

[egress]
durability = "batched"
on_violation = "block"
on_evidence_failure = "refuse"

[retention]
DATA_COLLECTION = "400d"
X_OWN = "36h"
"contact.email" = "8w"
"#;

fn file(name: &str, content: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

fn load(name: &str, content: impl AsRef<[u8]>) -> Config {
    Config::load(Some(&file(name, content).1)).unwrap()
}

/// The message, with the file's folder taken out.
fn error(name: &str, content: impl AsRef<[u8]>) -> String {
    let (folder, path) = file(name, content);
    let error = Config::load(Some(&path)).unwrap_err();
    assert!(error.is_config());
    let folder = format!("{}{}", folder.path().display(), std::path::MAIN_SEPARATOR);
    error.to_string().replace(&folder, "")
}

#[test]
fn every_key_is_read_from_every_syntax() {
    for (name, content) in [("a.yaml", YAML), ("a.yml", YAML), ("a.json", JSON), ("a.toml", TOML)] {
        let (folder, path) = file(name, content);
        let config = Config::load(Some(&path)).unwrap();
        assert!(!config.enabled, "{name}");
        assert_eq!(config.storage, Storage::Sqlite(folder.path().join("evidence/own.db")));
        assert_eq!(config.audit_token.0, "s3cret");
        assert_eq!(config.audit_bind.to_string(), "127.0.0.1:9999");
        assert!(!config.audit_query_token);
        assert_eq!(config.fingerprints, Fingerprints::Sha256);
        assert!(config.owners_clear);
        assert_eq!(config.key_file, Some(folder.path().join("own.key")));
        assert_eq!(
            (config.service.as_str(), config.environment.as_deref()),
            ("crm", Some("production"))
        );
        assert_eq!(config.ignored_hosts, ["localhost", "*.internal"]);
        assert_eq!((config.max_values, config.spill_max_bytes), (500, 4096));
        assert_eq!(config.file, Some(path));

        assert_eq!(config.input_fields.len(), 1, "a map that is given replaces its default");
        let email = &config.input_fields["email"];
        assert_eq!(
            (email.category.as_str(), email.description.as_str()),
            ("contact.email", "Email: the main one")
        );
        assert_eq!(
            (email.kind, email.secret, email.owner.as_deref()),
            (Some(Kind::Email), Some(false), Some("email"))
        );

        let user = &config.tracked_models["User"].fields;
        assert_eq!(user["email"].owner.as_deref(), Some("email"));
        assert_eq!(
            (user["income"].pii, user["income"].kind, user["income"].secret),
            (true, None, None)
        );

        let mailchimp = &config.recipients["mailchimp"];
        assert_eq!(mailchimp.hosts, ["api.mailchimp.com"]);
        assert_eq!(
            [
                &mailchimp.role,
                &mailchimp.legal_name,
                &mailchimp.country,
                &mailchimp.safeguard
            ]
            .map(|text| text.as_deref().unwrap()),
            ["processor", "Intuit Inc.", "US", "SCC"]
        );
        assert_eq!(mailchimp.on_violation, Some(OnViolation::Block));
        assert_eq!(config.egress.durability, Durability::Batched);
        assert_eq!(config.egress.on_violation, OnViolation::Block);
        assert_eq!(config.egress.on_evidence_failure, OnEvidenceFailure::Refuse);
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let retention = [
            ("DATA_COLLECTION", hours(9600)),
            ("X_OWN", hours(36)),
            ("contact.email", hours(56 * 24)),
        ];
        assert_eq!(
            config.retention,
            BTreeMap::from(retention.map(|(key, time)| (key.to_owned(), time)))
        );
    }
}

#[test]
fn an_empty_file_means_the_defaults() {
    for (name, content) in [
        ("a.yaml", ""),
        ("a.yaml", "---\n# nothing\n"),
        ("a.json", "{}"),
        ("a.toml", "\n"),
        ("a.json", "\u{feff}{ }"),
    ] {
        let (folder, path) = file(name, content);
        let config = Config::load(Some(&path)).unwrap();
        assert!(config.enabled);
        assert_eq!(
            config.storage,
            Storage::Sqlite(folder.path().join("runtime_provenance.db"))
        );
        assert_eq!(config.audit_token.0, "");
        assert_eq!(config.audit_bind.to_string(), "127.0.0.1:8787");
        assert_eq!(config.fingerprints, Fingerprints::HmacSha256);
        assert_eq!(config.ignored_hosts, ["localhost"]);
        assert_eq!(config.max_values, 1_000_000);
        assert!(config.retention.is_empty() && config.tracked_models.is_empty() && config.recipients.is_empty());
        assert_eq!(config.input_fields["email"].owner.as_deref(), Some("email"));
        assert!(config.service.starts_with("it-"), "{}", config.service);
    }
}

#[test]
fn the_usual_field_names_are_known_by_default() {
    let names = [
        "email",
        "name",
        "first_name",
        "last_name",
        "full_name",
        "phone",
        "address",
        "city",
        "postal_code",
        "birthday",
        "date_of_birth",
        "gender",
        "income",
        "salary",
        "currency",
        "password",
        "goals",
        "budget_style",
        "week_start",
        "iban",
        "ssn",
        "ip",
    ];
    let config = Config::default();
    for name in names {
        assert!(config.input_fields.contains_key(name), "{name}");
    }
    for (name, field) in &config.input_fields {
        assert!(
            provenance::inventory::is_known_category(&field.category),
            "{name}: {}",
            field.category
        );
        assert_eq!(*name, name.to_lowercase());
    }
}

#[test]
fn keys_without_a_value_count_as_left_out() {
    let config = load("a.yaml", "storage_path:\naudit:\n  bind:\ninput_fields: ~\n");
    assert_eq!(config.audit_bind.to_string(), "127.0.0.1:8787");
    assert!(config.input_fields.contains_key("email"));
    assert!(load("a.json", r#"{"input_fields": {}}"#).input_fields.is_empty());
}

#[test]
fn mistakes_are_named_with_file_line_key_expectation_and_the_nearest_key() {
    let yaml = |content: &str, message: &str| assert_eq!(error("a.yaml", content), message);
    yaml(
        "enabled: true\nstorag_path: x.db\n",
        "a.yaml:2: storag_path: unknown key (did you mean `storage_path`?); expected one of enabled, access_events, derivation_interval, storage_path, \
         audit_token, audit, fingerprints, owners, key_file, key_epoch, checkpoints, service, environment, ignored_hosts, \
         input_fields, tracked_models, recipients, suppress, egress, registry, spill, retention",
    );
    yaml(
        "audit:\n  bnid: 127.0.0.1:1\n",
        "a.yaml:2: audit.bnid: unknown key (did you mean `bind`?); expected one of bind, query_token, tokens",
    );
    yaml(
        "enabled: yes\n",
        "a.yaml:1: enabled: expected true or false, found text",
    );
    yaml(
        "audit_token: 0123\n",
        "a.yaml:1: audit_token: expected text, found a number; put it in quotes",
    );
    yaml("audit: 8787\n", "a.yaml:1: audit: expected a map, found a number");
    yaml(
        "audit: {bind: localhost}\n",
        "a.yaml:1: audit.bind: expected an address and port such as 127.0.0.1:8787, found `localhost`",
    );
    yaml(
        "fingerprints: sha265\n",
        "a.yaml:1: fingerprints: expected hmac-sha256 or sha256, found `sha265` (did you mean `sha256`?)",
    );
    yaml(
        "owners: true\n",
        "a.yaml:1: owners: expected keyed or clear, found true or false",
    );
    yaml(
        "service: \" \"\n",
        "a.yaml:1: service: expected text, found an empty one",
    );
    yaml(
        "ignored_hosts: localhost\n",
        "a.yaml:1: ignored_hosts: expected a list of host names, found text",
    );
    yaml(
        "ignored_hosts:\n  - localhost\n  - https://example.com\n",
        "a.yaml:3: ignored_hosts: expected a host name such as api.example.com or *.example.com, or addresses as 10.0.0.0/8, found `https://example.com`",
    );
    yaml(
        "input_fields:\n  email:\n    category: contact_email\n",
        "a.yaml:3: input_fields.email.category: expected a category such as contact.email (lower-case words joined by \
         dots), found `contact_email` (did you mean `contact.email`?)",
    );
    yaml(
        "input_fields:\n  email: {description: x}\n",
        "a.yaml:2: input_fields.email: the key `category` is missing; expected a category such as contact.email",
    );
    yaml(
        "input_fields:\n  email: {category: contact.email}\n  EMAIL: {category: contact.email}\n",
        "a.yaml:3: input_fields.EMAIL: given twice: names of input fields are the same in any case",
    );
    yaml(
        "input_fields:\n  email: {category: contact.email, owner_attribute: id}\n",
        "a.yaml:2: input_fields.email.owner_attribute: unknown key; expected one of category, description, pii, kind, secret, owner",
    );
    yaml(
        "tracked_models:\n  User:\n    fields:\n      email: {category: contact.email, kind: mail}\n",
        "a.yaml:4: tracked_models.User.fields.email.kind: expected text or email or phone or number or date or id, \
         found `mail` (did you mean `email`?)",
    );
    yaml(
        "recipients:\n  x: {country: Germany}\n",
        "a.yaml:2: recipients.x.country: expected a country as two letters (ISO 3166-1), such as DE, found `Germany`",
    );
    yaml(
        "suppress:\n  - {category: contact.email, reson: x}\n",
        "a.yaml:2: suppress.reson: unknown key (did you mean `reason`?); expected one of category, recipient, place, \
         reason, expires",
    );
    yaml(
        "suppress:\n  - {category: contact.email}\n",
        "a.yaml:2: suppress: the key `reason` is missing; expected why these findings are left out",
    );
    yaml(
        "suppress:\n  - {reason: all of it}\n",
        "a.yaml:2: suppress: would leave every finding out; expected a category, a recipient or a place",
    );
    yaml(
        "suppress:\n  - {place: body, reason: x, expires: soon}\n",
        "a.yaml:2: suppress.expires: expected a date such as 2026-12-31, found `soon`",
    );
    yaml(
        "suppress: {}\n",
        "a.yaml:1: suppress: expected a list of rules, found a map",
    );
    yaml(
        "egress: {unregistered: on}\n",
        "a.yaml:1: egress.unregistered: expected ignore or record or judge, found `on`",
    );
    yaml(
        "registry: {max_values: 0}\n",
        "a.yaml:1: registry.max_values: expected a whole number, at least 1, found 0",
    );
    yaml(
        "registry: {max_values: 10000001}\n",
        "a.yaml:1: registry.max_values: expected at most 10000000, found 10000001",
    );
    yaml(
        "registry: {max_values: 1.5}\n",
        "a.yaml:1: registry.max_values: expected a whole number, at least 1, found a number that is not whole",
    );
    yaml(
        "spill: {max_bytes: -1}\n",
        "a.yaml:1: spill.max_bytes: expected a whole number of bytes, at least 0, found -1",
    );
    for time in ["400", "0d", "d", "-1d", "4 d", "99999999999w", "1y"] {
        yaml(
            &format!("retention:\n  DATA_SHARE: \"{time}\"\n"),
            &format!("a.yaml:2: retention.DATA_SHARE: expected a time such as 36h, 400d or 8w, found `{time}`"),
        );
    }
    yaml(
        "retention:\n  DATA_COLECTION: 4d\n",
        "a.yaml:2: retention.DATA_COLECTION: unknown event type (did you mean `DATA_COLLECTION`?); expected an event \
         type such as DATA_COLLECTION, an own one that begins with X_, or a category such as contact.email",
    );
    yaml("- a\n", "a.yaml:1: expected a map, found a list");
    yaml(
        "storage_path: mysql://localhost/x\n",
        "a.yaml:1: storage_path: expected the path of a SQLite file, or a postgres:// URL",
    );
}

#[test]
fn every_syntax_names_the_line() {
    assert_eq!(
        error(
            "a.json",
            "{\n  \"enabled\": true,\n  \"audit\": {\n    \"bind\": 7\n  }\n}"
        ),
        "a.json:4: audit.bind: expected an address and port such as 127.0.0.1:8787, found a number"
    );
    assert_eq!(
        error("a.json", "{\n  \"ignored_hosts\": [\n    \"a b\"\n]}"),
        "a.json:3: ignored_hosts: expected a host name such as api.example.com or *.example.com, or addresses as 10.0.0.0/8, found `a b`"
    );
    assert_eq!(
        error("a.toml", "enabled = true\n\n[audit]\nbnid = 7\n"),
        "a.toml:4: audit.bnid: unknown key (did you mean `bind`?); expected one of bind, query_token, tokens"
    );
    assert_eq!(
        error("a.toml", "registry.max_values = 2020-01-01\n"),
        "a.toml:1: registry.max_values: expected a whole number, at least 1, found a date"
    );
}

#[test]
fn broken_syntax_is_named_with_its_line_and_without_what_the_line_says() {
    let cases = [
        ("a.yaml", "enabled: true\naudit_token: \"hunter2\naudit: [\n", "a.yaml:"),
        ("a.yaml", "enabled: true\n  audit_token: hunter2\n", "a.yaml:2: "),
        ("a.yaml", "audit: {bind: hunter2\n", "a.yaml:"),
        (
            "a.yaml",
            "audit_token: &a hunter2\nservice: *a\n",
            "a.yaml:2: YAML aliases are not supported here",
        ),
        (
            "a.yaml",
            "audit_token: !!str hunter2\n",
            "a.yaml:1: YAML tags are not supported here",
        ),
        (
            "a.yaml",
            "service: a\n---\nservice: hunter2\n",
            "a.yaml:2: a second YAML document begins here; only one is read",
        ),
        ("a.yaml", "[hunter2]: b\n", "a.yaml:1: a key must be plain text"),
        (
            "a.json",
            "{\n\"audit_token\": \"hunter2\",\n}",
            "a.json:3: trailing comma",
        ),
        (
            "a.json",
            "{\"audit_token\": \"hunter2\"",
            "a.json:1: the JSON ends too early",
        ),
        ("a.json", "", "a.json:1: the JSON ends too early"),
        (
            "a.json",
            "{}\n{\"audit_token\": \"hunter2\"}",
            "a.json:2: trailing characters",
        ),
        ("a.toml", "enabled = true\naudit_token = hunter2\n", "a.toml:2: "),
        ("a.toml", "enabled = true\naudit_token = \"hunter2\n", "a.toml:2: "),
    ];
    for (name, content, expected) in cases {
        let message = error(name, content);
        assert!(message.starts_with(expected), "{content:?}: {message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn a_key_may_be_given_once() {
    assert_eq!(
        error("a.yaml", "enabled: true\nservice: a\nenabled: false\n"),
        "a.yaml:3: `enabled` is given twice; first on line 1"
    );
    assert_eq!(
        error(
            "a.json",
            "{\"audit\": {\n\"bind\": \"127.0.0.1:1\",\n\"bind\": \"127.0.0.1:2\"}}"
        ),
        "a.json:3: `bind` is given twice; first on line 2"
    );
    assert!(error("a.toml", "enabled = true\nenabled = false\n").starts_with("a.toml:2: duplicate key"));
}

#[test]
fn hostile_files_are_refused_in_little_time_and_space() {
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(10_000), close.repeat(10_000));
    for (name, content) in [
        ("a.yaml", deep("[", "]")),
        ("a.yaml", "- ".repeat(100_000)),
        ("a.yaml", format!("x: {}", deep("{a: ", "}"))),
        ("a.json", deep("[", "]")),
        ("a.json", deep("{\"a\":", "}")),
        ("a.json", format!("{}{}", "[".repeat(100), "]".repeat(100))),
        ("a.toml", format!("a = {}", deep("[", "]"))),
        ("a.toml", format!("a{} = 1", ".a".repeat(100_000))),
        ("a.toml", format!("[a{}]", ".a".repeat(50))),
    ] {
        let message = error(name, &content);
        assert!(message.len() < 300, "{message}");
    }
    // "Billion laughs": every line names the one before ten times.
    let mut laughs = "a: &a [ha]\n".to_owned();
    for (one, other) in ('a'..'j').zip('b'..) {
        laughs += &format!("{other}: &{other} [{}*{one}]\n", format!("*{one}, ").repeat(9));
    }
    assert!(error("a.yaml", laughs).contains("aliases"));
    assert!(error("a.yaml", format!("service: {}", "x".repeat(1 << 20))).contains("larger than 1048576 bytes"));
    assert!(error("a.yaml", "x".repeat(1 << 19)).len() < 300);
    assert_eq!(
        error("a.yaml", b"service: a\nenvironment: \xff\n"),
        "a.yaml:2: not UTF-8: save the file as UTF-8"
    );
    assert!(error("a.yaml", b"\xff\xfes\0e\0").contains("not UTF-8"));
    let many: String = (0..60_000).map(|i| format!("k{i}: 1\n")).collect();
    assert!(error("a.yaml", many).starts_with("a.yaml:1: k0: unknown key"));
}

#[test]
fn a_file_that_is_named_must_be_there_and_be_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Config::load(Some(&folder.path().join("missing.yaml"))).unwrap_err();
    assert!(missing.is_config());
    assert!(
        missing
            .to_string()
            .ends_with("missing.yaml: there is no such configuration file"),
        "{missing}"
    );
    let directory = Config::load(Some(folder.path())).unwrap_err();
    assert!(directory.to_string().contains("found something else"), "{directory}");
    assert!(error("a.ini", "").contains("expected a file name that ends in .yaml, .yml, .json or .toml"));
}

#[test]
fn secrets_are_never_shown() {
    let url = "postgres://evidence:hunter2@db.example:5432/prod?sslmode=require&password=hunter2";
    let mut config = load("a.yaml", format!("audit_token: hunter2\nstorage_path: {url}\n"));
    assert_eq!(config.storage.to_string(), "postgres://db.example:5432/prod");
    config.key = Some(provenance::config::Token("hunter2".into()));
    assert!(!format!("{config:?}").contains("hunter2"));
    for url in [
        "postgres://u:hunter2/x@db.example/prod",
        "postgres://u:hunter2?x@db.example/prod",
        "postgres://u:hunter2#x@db.example/prod",
        "postgres://u:x@hunter2@db.example/prod",
        "postgresql://db.example/prod?password=hunter2@x",
    ] {
        let shown = load("a.yaml", format!("storage_path: \"{url}\"\n")).storage.to_string();
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

    /// Characters and words that mean something to one syntax or another, in any order.
    #[test]
    fn no_file_makes_it_panic(parts in proptest::collection::vec(
        proptest::sample::select(vec![
            "enabled", "audit", "bind", "input_fields", "retention", "recipients", ": ", ":", "\n", "\n  ", "\n- ", "-", "{", "}",
            "[", "]", ",", "\"", "'", "=", ".", "#", "&a ", "*a", "!!str ", "?", "|", ">", "%", "@", "`", "---", "...", "\t", "\r",
            "true", "null", "~", "1", "-1e9", "0x", "\\u", "\\x", "é", "\u{feff}", "\0", "<<", "[[a]]", "1979-05-27",
        ]),
        0..40,
    )) {
        let text = parts.concat();
        for name in ["a.yaml", "a.json", "a.toml"] {
            let (_folder, path) = file(name, &text);
            let _ = Config::load(Some(&path));
        }
    }
}

/// Prints what the environment and the working folder give; run by [`child`] in a process of its own.
#[test]
#[ignore = "a part of other tests"]
fn print_config() {
    match Config::load(None) {
        Ok(config) => println!(
            "ok {} {} {} {} {} {:?}",
            config.enabled,
            config.storage,
            config.audit_token.0,
            config.service,
            config.key.is_some(),
            config.file
        ),
        Err(error) => println!("error {error}"),
    }
}

fn child(folder: &Path, variables: &[(&str, &str)]) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["config::print_config", "--exact", "--ignored", "--nocapture"])
        .current_dir(folder)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let line = output
        .lines()
        .find(|line| line.starts_with("ok ") || line.starts_with("error "));
    line.unwrap_or_else(|| panic!("{output}"))
        .replace(&folder.display().to_string(), "FOLDER")
}

#[test]
fn the_working_folder_is_searched_in_order_and_then_the_defaults_hold() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    assert!(child(&folder, &[]).starts_with("ok true FOLDER/runtime_provenance.db  it-"));
    for (name, content) in [
        ("runtime_tracking.toml", "service = 'toml'"),
        ("runtime_tracking.json", "{\"service\": \"json\"}"),
        ("runtime_tracking.yml", "service: yml"),
        ("runtime_tracking.yaml", "service: yaml"),
    ] {
        std::fs::write(folder.join(name), content).unwrap();
        let kind = name.rsplit('.').next().unwrap();
        assert_eq!(
            child(&folder, &[]),
            format!("ok true FOLDER/runtime_provenance.db  {kind} false Some(\"FOLDER/{name}\")")
        );
    }
}

#[test]
fn the_environment_names_the_file_and_wins_over_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    std::fs::create_dir(folder.join("etc")).unwrap();
    std::fs::write(
        folder.join("etc/own.yaml"),
        "service: own\nstorage_path: x.db\naudit_token: file\n",
    )
    .unwrap();
    std::fs::write(folder.join("runtime_tracking.yaml"), "service: not this one").unwrap();
    let file = ("RUNTIME_TRACKING_CONFIG", "etc/own.yaml");
    assert_eq!(
        child(&folder, &[file]),
        "ok true FOLDER/etc/x.db file own false Some(\"FOLDER/etc/own.yaml\")"
    );
    let all = [
        file,
        ("RUNTIME_TRACKING_AUDIT_TOKEN", "env"),
        ("RUNTIME_TRACKING_STORAGE", "y.db"),
        ("RUNTIME_TRACKING_ENABLED", "false"),
        ("RUNTIME_TRACKING_KEY", "k"),
    ];
    assert_eq!(
        child(&folder, &all),
        "ok false FOLDER/y.db env own true Some(\"FOLDER/etc/own.yaml\")"
    );
    let empty = all.map(|(name, value)| (name, if name == file.0 { value } else { "" }));
    assert_eq!(
        child(&folder, &empty),
        "ok true FOLDER/etc/x.db file own false Some(\"FOLDER/etc/own.yaml\")"
    );
}

#[test]
fn mistakes_in_the_environment_name_the_variable() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    assert_eq!(
        child(&folder, &[("RUNTIME_TRACKING_CONFIG", "gone.yaml")]),
        "error gone.yaml: there is no such configuration file"
    );
    assert_eq!(
        child(&folder, &[("RUNTIME_TRACKING_ENABLED", "maybe")]),
        "error environment variable RUNTIME_TRACKING_ENABLED: expected true or false (or 1 or 0)"
    );
    assert_eq!(
        child(&folder, &[("RUNTIME_TRACKING_STORAGE", "redis://u:hunter2@x")]),
        "error environment variable RUNTIME_TRACKING_STORAGE: expected the path of a SQLite file, or a postgres:// URL"
    );
}

/// A model of this program; `tracked_models` may name it without a warning.
#[provenance::tracked_model]
#[derive(diesel::Insertable)]
#[diesel(table_name = served)]
#[allow(dead_code)]
struct Served<'a> {
    #[tracked("contact.email")]
    email: &'a str,
}

diesel::table! {
    served (email) {
        email -> Text,
    }
}

/// Starts the tracker; run in a process of its own.
#[test]
#[ignore = "a part of other tests"]
fn start() {
    let guard = provenance::init().unwrap();
    println!("status {}", Json::Object(guard.tracker().unwrap().status()));
}

/// What a start says on standard error, and on `/status`.
fn started(configuration: &str) -> (String, Json) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("runtime_tracking.yaml"), configuration).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["config::start", "--exact", "--ignored", "--nocapture"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let status = stdout
        .lines()
        .find_map(|line| Some(line.split_once("status ")?.1))
        .unwrap();
    (
        String::from_utf8_lossy(&output.stderr).into_owned(),
        serde_json::from_str(status).unwrap(),
    )
}

#[test]
fn a_configured_model_that_no_hook_serves_is_served_by_its_sql() {
    let fields = "{fields: {email: {category: contact.email}}}";
    let models = format!("tracked_models: {{Served: {fields}, served: {fields}, Unserved: {fields}}}\n");
    let (stderr, status) = started(&models);
    assert!(!stderr.contains("tracked_models"), "{stderr}");
    // This program has inputs that cannot be visited, too.
    let mut spots = status["blind_spots"].as_array().unwrap().iter();
    assert!(!spots.any(|spot| spot["kind"] == "model_without_hook"), "{status}");
    assert_eq!(status["build"].as_str().unwrap().len(), 16);
}

//! What the tests share: a tracker on a folder of its own, and its evidence read back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

pub mod browser;
pub mod postgres;

use std::path::{Path, PathBuf};
use std::time::Duration;

use provenance::config::{Config, Storage, Token};
use provenance::store::{EventQuery, Reader};
use provenance::{Tracker, test};
use serde_json::Value as Json;

/// Evidence in a temporary folder.
pub struct Evidence {
    /// Holds the database and its key; removed at the end.
    pub folder: tempfile::TempDir,
    /// Writes there.
    pub tracker: Tracker,
}

impl Default for Evidence {
    fn default() -> Self {
        Evidence::new(|_| {})
    }
}

/// Every event, newest first, as the audit API shows it.
pub fn all_events(reader: &mut Reader) -> Vec<Json> {
    let mut query = EventQuery {
        limit: 10_000,
        ..EventQuery::default()
    };
    let mut events = Vec::new();
    loop {
        let page = reader.events(&query).unwrap();
        events.extend(page.events.iter().map(|event| serde_json::to_value(event).unwrap()));
        match page.next_cursor {
            Some(cursor) => query.cursor = Some(cursor),
            None => return events,
        }
    }
}

impl Evidence {
    /// A tracker with default configuration but for what `change` changes.
    pub fn new(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::Sqlite(folder.path().join("provenance.db"));
        let tracker = Tracker::open(config(storage, change)).unwrap();
        Evidence { folder, tracker }
    }

    /// As [`Evidence::new`], in a PostgreSQL database.
    pub fn on_server(database: &postgres::Database, change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = config(Storage::Postgres(Token(database.url())), |config| {
            config.key = Some(Token("ab".repeat(32)));
            change(config);
        });
        let tracker = Tracker::open(config).unwrap();
        Evidence { folder, tracker }
    }

    /// Closes the tracker and opens another one on the same evidence, as a restart does.
    pub fn restart(self) -> Self {
        self.tracker.close();
        let config = config(self.storage(), |config| {
            config.key.clone_from(&self.tracker.config().key)
        });
        let tracker = Tracker::open(config).unwrap();
        Evidence {
            folder: self.folder,
            tracker,
        }
    }

    /// Puts the tracker in force on this thread.
    pub fn scoped(&self) -> test::OverrideGuard {
        test::scoped(&self.tracker)
    }

    /// Where the evidence is.
    pub fn storage(&self) -> Storage {
        self.tracker.config().storage.clone()
    }

    /// The file.
    pub fn database(&self) -> PathBuf {
        self.folder.path().join("provenance.db")
    }

    /// Everything recorded so far, oldest first, as the audit API shows it.
    pub fn events(&self) -> Vec<Json> {
        self.tracker.flush(Duration::from_secs(10)).unwrap();
        let mut reader = Reader::connect(&self.storage()).unwrap();
        let mut events = all_events(&mut reader);
        events.reverse();
        events
    }

    /// Events of one type, oldest first.
    pub fn of(&self, event_type: &str) -> Vec<Json> {
        self.events()
            .into_iter()
            .filter(|event| event["event_type"] == event_type)
            .collect()
    }

    /// The kinds of blind spots counted so far.
    pub fn blind_spots(&self) -> Vec<String> {
        let status = Json::Object(self.tracker.status());
        status["blind_spots"]
            .as_array()
            .unwrap()
            .iter()
            .map(|spot| text(&spot["kind"]))
            .collect()
    }

    /// Whether `needle` stands in any file of the folder (write-ahead log included), ignoring ASCII
    /// case. Another process looks: closing a file in this one would drop SQLite's locks on it.
    pub fn holds(&self, needle: &str) -> bool {
        self.tracker.flush(Duration::from_secs(10)).unwrap_or_default();
        let mut grep = std::process::Command::new("grep");
        let found = grep.args(["-rqiaF", needle]).arg(self.folder.path()).status().unwrap();
        assert!(matches!(found.code(), Some(0 | 1)), "grep: {found}");
        found.success()
    }
}

fn config(storage: Storage, change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config {
        storage,
        service: "tests".into(),
        ..Config::default()
    };
    change(&mut config);
    config
}

/// A JSON string's text; empty for anything else.
pub fn text(value: &Json) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The fields of an event's tags, in order.
pub fn fields(event: &Json) -> Vec<String> {
    event["matched_tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| text(&tag["field"]))
        .collect()
}

/// The tag of a field.
pub fn tag<'e>(event: &'e Json, field: &str) -> &'e Json {
    let tags = event["matched_tags"].as_array().unwrap();
    tags.iter()
        .find(|tag| tag["field"] == field)
        .unwrap_or_else(|| panic!("no tag for {field}"))
}

/// A program of the workspace, built as `scripts/test` builds it, so that there it is built already.
pub fn program(name: &str) -> PathBuf {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["build", "--workspace", "--all-features", "--bin", name])
        .args(["--message-format", "json", "--quiet"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .stderr(std::process::Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{name} does not build");
    let messages = String::from_utf8(output.stdout).unwrap();
    let mut messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Json>(line).ok());
    let path = messages.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    path.unwrap()
}

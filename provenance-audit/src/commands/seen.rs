//! What was observed, against what is declared: what was never seen, and what is not said.

use std::collections::{BTreeMap, BTreeSet};

use provenance::Config;
use provenance::inventory::Entry;
use provenance::store::{EventQuery, StoredEvent};
use serde_json::{Map, Value as Json};

use super::doctor::{Findings, Level};
use super::host::Host;
use super::output::{self, Failure, count};
use super::place::Evidence;
use crate::export::{each_event, text};

/// Pages of events that are read of a host whose file is not at hand.
const PAGES: usize = 40;

/// What was observed, as far as it is compared.
#[derive(Default)]
pub(super) struct Seen {
    events: BTreeMap<String, u64>,
    /// Types and tables of models, and paths of attributes, that some event names.
    sites: BTreeSet<String>,
    models: BTreeSet<String>,
    recipients: BTreeSet<String>,
    undeclared: BTreeMap<String, u64>,
    without_person: u64,
    unknown_outcomes: u64,
    uncertain: u64,
}

impl Seen {
    pub(super) fn in_file(evidence: &mut Evidence, findings: &mut Findings) -> Result<Self, Failure> {
        let path = evidence.config.storage.to_string();
        findings.add(Level::Fine, format!("the evidence in {path} can be read"), "");
        let bar = output::progress("events");
        let mut seen = Seen::default();
        let query = EventQuery::default();
        each_event(&mut evidence.reader, &query, |event: StoredEvent| {
            bar.inc(1);
            let persons = event
                .matched_tags
                .iter()
                .any(|tag| tag.get("owner").is_some_and(|owner| !owner.is_null()));
            seen.see(&event.event_type, &event.extras, event.target.as_deref(), persons);
            Ok::<_, provenance::Error>(())
        })?;
        bar.finish_and_clear();
        Ok(seen)
    }

    pub(super) fn at(host: &Host, findings: &mut Findings) -> Result<Self, String> {
        let mut seen = Seen::default();
        let mut cursor = String::new();
        for page in 0..=PAGES {
            if page == PAGES {
                findings.add(
                    Level::Note,
                    format!("only the newest {} events were looked at", PAGES * 500),
                    "name the evidence file with --db to look at all of them",
                );
                break;
            }
            let answer = host.get(&format!("events?limit=500{cursor}"))?;
            for event in answer.get("events").and_then(Json::as_array).into_iter().flatten() {
                let nothing = Map::new();
                let extras = event.get("extras").and_then(Json::as_object).unwrap_or(&nothing);
                let event_type = event.get("event_type").and_then(Json::as_str).unwrap_or_default();
                let tags = event.get("matched_tags").and_then(Json::as_array).into_iter().flatten();
                let persons = tags
                    .into_iter()
                    .any(|tag| tag.get("owner").is_some_and(Json::is_string));
                seen.see(event_type, extras, event.get("target").and_then(Json::as_str), persons);
            }
            match answer.get("next_cursor").and_then(Json::as_str) {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        Ok(seen)
    }

    fn see(&mut self, event_type: &str, extras: &Map<String, Json>, target: Option<&str>, persons: bool) {
        *self.events.entry(event_type.to_owned()).or_default() += 1;
        for key in ["model", "table"] {
            self.models.insert(text(extras, key).to_owned());
        }
        self.models
            .extend(target.and_then(|target| target.strip_prefix("db:")).map(str::to_owned));
        if let Some(site) = extras.get("site").and_then(Json::as_object) {
            self.sites.insert(text(site, "path").to_owned());
        }
        let certain = extras.get("certain").and_then(Json::as_bool).unwrap_or(true);
        self.uncertain += u64::from(event_type == "DATA_STORAGE" && !certain);
        self.without_person +=
            u64::from(event_type == "DATA_COLLECTION" && !persons && text(extras, "owner").is_empty());
        if event_type == "DATA_SHARE" {
            let recipient = text(extras, "recipient");
            self.recipients.insert(recipient.to_owned());
            if extras.get("recipient_declared") == Some(&Json::Bool(false)) {
                *self.undeclared.entry(recipient.to_owned()).or_default() += 1;
            }
            self.unknown_outcomes += u64::from(text(extras, "outcome") == "unknown");
        }
    }

    fn is_nothing(&self) -> bool {
        self.events.keys().all(|event_type| event_type == "AUDIT_ACCESS")
    }

    /// What is not said, or went wrong.
    pub(super) fn compare(&self, config: &Config, findings: &mut Findings) {
        let of = |event_type: &str| self.events.get(event_type).copied().unwrap_or(0);
        if self.is_nothing() {
            findings.add(
                Level::Problem,
                "nothing was ever recorded",
                "does main keep the guard of provenance::init() (`let _provenance = ..`, not `let _ = ..`)? Do \
                 attributes stand on models and handlers? Was a request made? --probe finds out",
            );
            return;
        }
        let total: u64 = self.events.values().sum();
        findings.add(Level::Fine, format!("{} recorded", count(total, "event", "events")), "");
        for (recipient, shares) in &self.undeclared {
            if !config.recipients.contains_key(recipient) {
                findings.add(
                    Level::Warning,
                    format!(
                        "recipient {recipient} is undeclared: it got {}",
                        count(*shares, "share", "shares")
                    ),
                    "say in `recipients` who it is: hosts, role, legal_name, country, safeguard",
                );
            }
        }
        for name in config.recipients.keys().filter(|name| !self.recipients.contains(*name)) {
            findings.add(
                Level::Note,
                format!("recipient {name} is declared, and no share with it was observed"),
                "",
            );
        }
        if of("POLICY_VIOLATION") > 0 {
            findings.add(
                Level::Warning,
                format!(
                    "{} of what egress functions allow",
                    count(of("POLICY_VIOLATION"), "violation", "violations")
                ),
                "`provenance-audit export --format jsonl --type POLICY_VIOLATION` lists them",
            );
        }
        if self.unknown_outcomes > 0 {
            findings.add(
                Level::Note,
                format!(
                    "nobody can tell how {} ended",
                    count(self.unknown_outcomes, "share", "shares")
                ),
                "the process ended first, or the client is one that no hook knows",
            );
        }
        if self.without_person > 0 {
            findings.add(
                Level::Note,
                format!(
                    "{} of nobody known: a person's answer misses them",
                    count(self.without_person, "collection is", "collections are")
                ),
                "say whose they are: owner(..) on the type, `owner` of input_fields, or set_owner",
            );
        }
        if self.uncertain > 0 {
            findings.add(
                Level::Note,
                format!(
                    "{} uncertain (certain: false)",
                    count(self.uncertain, "write is", "writes are")
                ),
                "extras.reason says why; the feature sqlite-probe closes most of these gaps for SQLite",
            );
        }
    }

    /// Hooks that were never seen.
    pub(super) fn hooks(&self, status: Option<&Json>, program: &[Entry], findings: &mut Findings) {
        if self.is_nothing() {
            return;
        }
        self.models_unseen(status, program, findings);
        for (kind, what, advice) in [
            (
                "egress",
                "egress function",
                "was it ever called? A helper that calls the client elsewhere is not seen",
            ),
            ("input", "input", "was it ever called?"),
            (
                "derived",
                "derivation",
                "was it ever called, with values that are registered?",
            ),
        ] {
            for entry in program.iter().filter(|entry| entry.kind == kind) {
                if !self.sites.contains(&entry.path) {
                    findings.add(
                        Level::Warning,
                        format!("{what} {} was never seen", place(entry)),
                        advice,
                    );
                }
            }
        }
        if program.is_empty() {
            findings.add(
                Level::Note,
                "egress functions and inputs that were never seen are not listed",
                "name the host's program with --program to compare what it declares",
            );
        }
    }

    /// Models that no write and no load was seen of.
    fn models_unseen(&self, status: Option<&Json>, program: &[Entry], findings: &mut Findings) {
        let mut unseen = BTreeMap::new();
        let declared = status
            .and_then(|status| status.get("tracked_models"))
            .and_then(Json::as_object);
        for (name, model) in declared.into_iter().flatten() {
            let table = model.get("table").and_then(Json::as_str).unwrap_or(name);
            let at = model.get("at").and_then(Json::as_str).unwrap_or_default();
            if !self.models.contains(table) && !self.models.contains(name) {
                unseen.insert(table.to_owned(), format!("{name} ({at})"));
            }
        }
        for entry in program.iter().filter(|entry| entry.kind == "model") {
            let table = text(&entry.rest, "table");
            if !self.models.contains(table) {
                unseen.insert(table.to_owned(), place(entry));
            }
        }
        for (table, model) in unseen {
            findings.add(
                Level::Warning,
                format!("model {model} of table {table} is declared, and no write of it was ever seen"),
                "writes around the model are seen with the feature sql-fallback; a table that only reads needs \
                 access_events to show up",
            );
        }
    }
}

fn place(entry: &Entry) -> String {
    match &entry.at {
        Some(at) => format!("{} ({at})", entry.path),
        None => entry.path.clone(),
    }
}

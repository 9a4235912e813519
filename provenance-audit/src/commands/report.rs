//! `provenance-audit report`: a draft record of processing activities.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use provenance::Timestamp;
use provenance::config::Config;
use provenance::inventory::canonical_category;
use provenance::store::{EventQuery, StoredEvent};
use serde::Serialize;
use serde_json::Value as Json;

use super::export::Draft;
use super::output::{self, Done, Failure};
use super::place::{Period, Place};
use super::subject::cell;
use crate::export::csv::Table;
use crate::export::{Profile, Span, each_event, text, was_kept_in};

/// What code cannot know.
const TO_COMPLETE: &str = "TO COMPLETE";
/// Most activities, and most names in a list of one.
const MOST: usize = 2000;

/// Draft the record of processing activities (GDPR Art. 30) from what was observed
///
/// One activity for each purpose that attributes declare; what declares none is listed by the route or function that did
/// it. What code cannot know reads TO COMPLETE: the draft is where your record begins, not the record.
#[derive(Args)]
#[command(after_help = "Examples:
  provenance-audit report --config /etc/crm/runtime_tracking.yaml > record.md
  provenance-audit report --format csv --since 2026-01-01 --out record.csv

Time limits come from `retention` of the configuration.

Exit codes: 0 written, 2 cannot tell.")]
pub(super) struct Report {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    period: Period,
    /// How it is written
    #[arg(long, value_enum, default_value = "markdown")]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Where to write; without it, standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Markdown,
    Csv,
    Json,
}

impl Report {
    pub(super) fn run(self) -> Done {
        self.period.check()?;
        let mut evidence = self.place.open()?;
        let draft = self.out.as_deref().map(Draft::new).transpose()?;
        let query = EventQuery {
            since: self.period.since,
            until: self.period.until,
            ..EventQuery::default()
        };
        let bar = output::progress("events");
        let mut record = Record::default();
        let config = &evidence.config;
        each_event(&mut evidence.reader, &query, |event| {
            bar.inc(1);
            record.see(&event, config);
            Ok::<_, provenance::Error>(())
        })?;
        bar.finish_and_clear();
        let format = if self.json { Format::Json } else { self.format };
        match draft {
            Some(mut draft) => {
                record.write(format, &mut draft.file)?;
                draft.keep()
            }
            None => {
                let mut out = output::out();
                record.write(format, &mut out)?;
                output::finish(out)
            }
        }
    }
}

/// What is to be told of one purpose.
#[derive(Serialize)]
struct Activity {
    name: String,
    service: String,
    purpose: Option<String>,
    legal_basis: BTreeSet<String>,
    subjects: BTreeSet<String>,
    categories: BTreeSet<String>,
    special_categories: BTreeSet<String>,
    sources: BTreeSet<String>,
    stored_in: BTreeSet<String>,
    actors: BTreeSet<String>,
    recipients: BTreeMap<String, Profile>,
    time_limits: BTreeSet<String>,
    #[serde(flatten)]
    span: Span,
}

#[derive(Default)]
struct Record {
    /// By service, then purposes before actors, then name.
    activities: BTreeMap<(String, bool, String), Activity>,
    left_out: u64,
}

impl Record {
    fn see(&mut self, event: &StoredEvent, config: &Config) {
        let own = event.event_type.starts_with("X_");
        let is_meant = own || (event.event_type.starts_with("DATA_") && event.event_type != "DATA_ERASURE");
        let personal: Vec<_> = event
            .matched_tags
            .iter()
            .filter(|tag| tag.get("pii").and_then(Json::as_bool).unwrap_or(true))
            .collect();
        if !is_meant || personal.is_empty() {
            return;
        }
        let service = text(&event.extras, "service").to_owned();
        let purpose = text(&event.extras, "purpose");
        let key = match purpose {
            "" => (service.clone(), true, event.actor.clone()),
            purpose => (service.clone(), false, purpose.to_owned()),
        };
        if self.activities.len() >= MOST && !self.activities.contains_key(&key) {
            self.left_out += 1;
            return;
        }
        let activity = self.activities.entry(key.clone()).or_insert_with(|| Activity {
            name: key.2,
            service,
            purpose: (!purpose.is_empty()).then(|| purpose.to_owned()),
            legal_basis: BTreeSet::new(),
            subjects: BTreeSet::new(),
            categories: BTreeSet::new(),
            special_categories: BTreeSet::new(),
            sources: BTreeSet::new(),
            stored_in: BTreeSet::new(),
            actors: BTreeSet::new(),
            recipients: BTreeMap::new(),
            time_limits: BTreeSet::new(),
            span: Span::none_yet(event.created_at),
        });
        activity.span.see(event.created_at);
        add(&mut activity.legal_basis, text(&event.extras, "basis"));
        add(&mut activity.subjects, text(&event.extras, "subject"));
        add(&mut activity.actors, &event.actor);
        if let Some(limit) = config.retention.get(&event.event_type) {
            let events = event.event_type.as_str();
            add(&mut activity.time_limits, &format!("{events}: {}", days(*limit)));
        }
        for tag in personal {
            let category = canonical_category(text(tag, "category")).into_owned();
            add(&mut activity.sources, text(tag, "source"));
            if is_special(&category) {
                add(&mut activity.special_categories, &category);
            }
            let limits = config.retention.iter();
            for (_, limit) in limits.filter(|(written, _)| canonical_category(written) == category.as_str()) {
                add(&mut activity.time_limits, &format!("{category}: {}", days(*limit)));
            }
            add(&mut activity.categories, &category);
        }
        match event.event_type.as_str() {
            "DATA_STORAGE" => add(&mut activity.stored_in, event.target.as_deref().unwrap_or_default()),
            "DATA_SHARE" if !was_kept_in(event) && activity.recipients.len() < MOST => {
                let recipient = text(&event.extras, "recipient").to_owned();
                activity
                    .recipients
                    .entry(recipient)
                    .or_insert_with(|| Profile::of(event, &config.recipients));
            }
            _ => {}
        }
    }

    fn write(&self, format: Format, out: &mut impl Write) -> Result<(), Failure> {
        match format {
            Format::Markdown => self.markdown(out),
            Format::Csv => self.csv(out),
            Format::Json => {
                let activities: Vec<_> = self.activities.values().collect();
                let answer = serde_json::json!({ "activities": activities, "events_left_out": self.left_out });
                output::json(out, &answer)
            }
        }
    }

    fn markdown(&self, out: &mut impl Write) -> Result<(), Failure> {
        writeln!(
            out,
            "# Record of processing activities (GDPR Art. 30): draft\n\n\
             Made {} from what hooks observed. It does not prove that nothing else is done. What code cannot know reads \
             {TO_COMPLETE}.\n\n\
             | | |\n|---|---|\n\
             | Controller, contact | {TO_COMPLETE} |\n\
             | Joint controllers | {TO_COMPLETE} |\n\
             | Representative | {TO_COMPLETE} |\n\
             | Data protection officer | {TO_COMPLETE} |\n\
             | Technical and organisational measures (Art. 32) | {TO_COMPLETE} |",
            Timestamp::now()
        )?;
        if self.activities.is_empty() {
            writeln!(out, "\nNo processing of personal data is recorded.")?;
        }
        for activity in self.activities.values() {
            writeln!(
                out,
                "\n## {}: {}\n\n| | |\n|---|---|",
                cell(&activity.service),
                cell(&activity.name)
            )?;
            for (heading, content) in activity.lines() {
                writeln!(out, "| {heading} | {} |", cell(&content))?;
            }
        }
        if self.left_out > 0 {
            writeln!(
                out,
                "\nNot everything is listed: {} events belong to more activities.",
                self.left_out
            )?;
        }
        Ok(())
    }

    fn csv(&self, out: &mut impl Write) -> Result<(), Failure> {
        let heading = ["Service", "Activity"].into_iter().chain(HEADINGS);
        let mut table = Table::new(out, heading.map(str::to_owned))?;
        for activity in self.activities.values() {
            let cells = [activity.service.clone(), activity.name.clone()];
            table.row(cells.into_iter().chain(activity.lines().map(|(_, content)| content)))?;
        }
        Ok(table.end()?)
    }
}

const HEADINGS: [&str; 13] = [
    "Purpose",
    "Legal basis (Art. 6)",
    "Categories of data subjects",
    "Categories of personal data",
    "Special categories (Art. 9, 10)",
    "Sources",
    "Stored in",
    "Recipients",
    "Transfers to third countries, safeguards",
    "Time limits for erasure",
    "Security measures",
    "Routes and functions",
    "Observed",
];

impl Activity {
    /// What Art. 30 asks for, in its order.
    fn lines(&self) -> [(&'static str, String); 13] {
        let said = |texts: &BTreeSet<String>| match texts.is_empty() {
            true => TO_COMPLETE.to_owned(),
            false => output::listed(texts),
        };
        let none = |texts: &BTreeSet<String>| match texts.is_empty() {
            true => "none observed".to_owned(),
            false => output::listed(texts),
        };
        let recipients: Vec<_> = self
            .recipients
            .iter()
            .map(|(name, profile)| format!("{name} ({})", profile.words().join("; ")).replace(" ()", ""))
            .collect();
        let transfers: Vec<_> = self
            .recipients
            .iter()
            .filter(|(_, profile)| profile.role.as_deref() != Some("internal"))
            .map(|(name, profile)| {
                let said = |said: &Option<String>| said.clone().unwrap_or_else(|| TO_COMPLETE.to_owned());
                format!(
                    "{name}: country {}, safeguard {}",
                    said(&profile.country),
                    said(&profile.safeguard)
                )
            })
            .collect();
        let joined = |lines: Vec<String>| match lines.is_empty() {
            true => "none observed".to_owned(),
            false => lines.join("; "),
        };
        let [
            purpose,
            basis,
            subjects,
            categories,
            special,
            sources,
            stored,
            recipients_heading,
            transfers_heading,
            limits,
            security,
            actors,
            observed,
        ] = HEADINGS;
        [
            (purpose, self.purpose.clone().unwrap_or_else(|| TO_COMPLETE.to_owned())),
            (basis, said(&self.legal_basis)),
            (subjects, said(&self.subjects)),
            (categories, said(&self.categories)),
            (special, none(&self.special_categories)),
            (sources, none(&self.sources)),
            (stored, none(&self.stored_in)),
            (recipients_heading, joined(recipients)),
            (transfers_heading, joined(transfers)),
            (limits, said(&self.time_limits)),
            (security, TO_COMPLETE.to_owned()),
            (actors, none(&self.actors)),
            (
                observed,
                format!("{} to {}, {} events", self.span.first, self.span.last, self.span.events),
            ),
        ]
    }
}

/// Adds a name, if there is one and there is room.
fn add(names: &mut BTreeSet<String>, name: &str) {
    if !name.is_empty() && names.len() < MOST {
        names.insert(name.to_owned());
    }
}

fn days(limit: Duration) -> String {
    let hours = limit.as_secs() / 3600;
    match hours % 24 {
        0 => format!("{} days", hours / 24),
        _ => format!("{hours} hours"),
    }
}

/// Whether a canonical category is one of GDPR Art. 9 or 10: racial or ethnic origin, opinions and beliefs, health,
/// genetic and biometric data, sexual orientation; convictions.
fn is_special(category: &str) -> bool {
    [
        "user.biometric",
        "user.authorization.biometric",
        "user.health_and_medical",
        "user.criminal_history",
        "user.demographic.political_opinion",
        "user.demographic.race_ethnicity",
        "user.demographic.religious_belief",
        "user.demographic.sexual_orientation",
    ]
    .iter()
    .any(|special| {
        category
            .strip_prefix(special)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

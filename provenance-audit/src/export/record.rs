//! A draft record of processing activities (GDPR Art. 30): one activity for each purpose that attributes declare; what
//! declares none, by the route or function that did it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use maud::html;
use provenance::Timestamp;
use provenance::config::Config;
use provenance::inventory::canonical_category;
use provenance::store::{EventQuery, Reader, StoredEvent};
use serde::Serialize;

use super::csv::Table;
use super::{Error, each_event};
use crate::answers::{Profile, Seen, is_personal, special, text, was_kept_in};
use crate::shown::{cell, listed};

/// What code cannot know.
const TO_COMPLETE: &str = "TO COMPLETE";
/// Most activities, and most names in a list of one.
const MOST: usize = 2000;

/// How it is written.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    Markdown,
    Csv,
    Html,
    Json,
}

/// Reads what `query` means, then writes the record: it is bounded by what an application does, not by how often.
pub(super) fn write(
    reader: &mut Reader,
    query: &EventQuery,
    config: &Config,
    shape: Shape,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(),
) -> Result<(), Error> {
    let mut record = Record::default();
    each_event(reader, query, |event| {
        progress();
        record.see(&event, config);
        Ok::<_, Error>(())
    })?;
    match shape {
        Shape::Markdown => record.markdown(out),
        Shape::Csv => record.csv(out),
        Shape::Html => record.html(out),
        Shape::Json => record.json(out),
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
    seen: Seen,
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
        let personal: Vec<_> = event.matched_tags.iter().filter(|tag| is_personal(tag)).collect();
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
            seen: Seen::at(event.created_at),
        });
        activity.seen.again(event.created_at);
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
            if special(&category).is_some() {
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

    fn json(&self, out: &mut dyn Write) -> Result<(), Error> {
        let activities: Vec<_> = self.activities.values().collect();
        let answer = serde_json::json!({ "activities": activities, "events_left_out": self.left_out });
        serde_json::to_writer_pretty(&mut *out, &answer)?;
        Ok(writeln!(out)?)
    }

    fn markdown(&self, out: &mut dyn Write) -> Result<(), Error> {
        writeln!(
            out,
            "# Record of processing activities (GDPR Art. 30): draft\n\n\
             Made {} from what hooks observed. It does not prove that nothing else is done. What code cannot know reads \
             {TO_COMPLETE}.\n\n\
             | | |\n|---|---|",
            Timestamp::now()
        )?;
        for heading in CONTROLLER {
            writeln!(out, "| {heading} | {TO_COMPLETE} |")?;
        }
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

    /// One page that needs nothing else, to be looked at, completed and printed.
    fn html(&self, out: &mut dyn Write) -> Result<(), Error> {
        let made = Timestamp::now().to_string();
        let body = html! {
            h1 { "Record of processing activities" }
            p.lead { "A draft after GDPR Art. 30, made " time datetime=(made) { (made.get(..16).unwrap_or(&made).replace('T', " ")) " UTC" } " from what was observed in the code." }
            p.note { "It lists what hooks saw, and does not prove that nothing else is done. What code cannot know reads " mark { (TO_COMPLETE) } ": the draft is where your record begins, not the record." }
            h2 { "Controller (Art. 30(1)(a))" }
            table.record {
                tbody { @for heading in CONTROLLER { tr { th scope="row" { (heading) } td { mark { (TO_COMPLETE) } } } } }
            }
            @if self.activities.is_empty() { div.empty { p { "No processing of personal data is recorded." } } }
            @else {
                h2 { "Activities" }
                ol.contents { @for (index, activity) in self.activities.values().enumerate() {
                    li { a href={ "#activity-" (index + 1) } { (activity.name) } " " span.count { (activity.service) } }
                } }
            }
            @for (index, activity) in self.activities.values().enumerate() {
                section id={ "activity-" (index + 1) } {
                    h2 { (index + 1) ". " (activity.name) " " span.count { (activity.service) } }
                    table.record { tbody { @for (heading, content) in activity.lines() { tr {
                        th scope="row" { (heading) }
                        td { @for (index, part) in content.split(TO_COMPLETE).enumerate() { @if index > 0 { mark { (TO_COMPLETE) } } (part) } }
                    } } } }
                }
            }
            @if self.left_out > 0 { p.problem { "Not everything is listed: " (self.left_out) " events belong to more activities." } }
        };
        let page = crate::sheet::document(
            "Record of processing activities",
            crate::sheet::STYLE,
            &maud::html! { main { (body) } },
        );
        Ok(out.write_all(page.into_string().as_bytes())?)
    }

    fn csv(&self, out: &mut dyn Write) -> Result<(), Error> {
        let heading = ["Service", "Activity"].into_iter().chain(HEADINGS);
        let mut table = Table::new(out, heading.map(str::to_owned))?;
        for activity in self.activities.values() {
            let cells = [activity.service.clone(), activity.name.clone()];
            table.row(cells.into_iter().chain(activity.lines().map(|(_, content)| content)))?;
        }
        table.end()
    }
}

const CONTROLLER: [&str; 5] = [
    "Controller, contact",
    "Joint controllers",
    "Representative",
    "Data protection officer",
    "Technical and organisational measures (Art. 32)",
];

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
            false => listed(texts),
        };
        let none = |texts: &BTreeSet<String>| match texts.is_empty() {
            true => "none observed".to_owned(),
            false => listed(texts),
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
                format!(
                    "{} to {}, {} events",
                    self.seen.first_at, self.seen.last_at, self.seen.events
                ),
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

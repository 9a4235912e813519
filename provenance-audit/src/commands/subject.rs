//! `provenance-audit subject`: what was observed of one person.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use clap::Args;
use provenance::config::Recipient;
use provenance::inventory::canonical_category;
use provenance::store::{EventQuery, Reader, StoredEvent};
use provenance::{Owner, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::output::{self, Done, Failure, Paint, count, listed};
use super::people::{self, Line, Lines};
use super::place::{Evidence, Place};
use super::record::{Asked, Recording};
use crate::declared::shown;
use crate::export::{Profile, Span, each_event, outcome, text, was_kept_in};

/// Most identifiers of one person that are taken in, and most accesses that are listed.
const MOST: usize = 1000;

const NO_COPY: &str = "This answer holds no copy of the data: only what was observed, when and where.";
const NO_PROOF: &str =
    "It lists what the hooks observed. That something is not listed does not prove that it did not happen.";

/// Say what was observed of one person: where from, where stored, sent to whom, when, for what
///
/// Finds everything under each of the person's linked identifiers. The answer is an annex to an answer under GDPR
/// Art. 15: it holds no copy of the data. Identifiers are looked up by their pseudonyms, which needs the
/// service's key; the access is put on record in the evidence (AUDIT_ACCESS), without the identifier.
#[derive(Args)]
#[command(after_help = "Examples:
  provenance-audit subject --config /etc/crm/runtime_tracking.yaml --owner email:ada@example.com --reason DSR-17
  provenance-audit subject --owner - --markdown < identifiers.txt > annex.md   # keeps them out of the history
  provenance-audit subject --db evidence.db --pseudonym email:9f86d081884c7d659a2feaa0c55ad015 --json

Exit codes: 0 answered, also where nothing was observed; 2 cannot tell.")]
pub(super) struct SubjectArgs {
    #[command(flatten)]
    place: Place,
    /// An identifier of the person: email:ada@example.com, user:7, or a bare address; - reads one a line from
    /// standard input. Several are taken for one person's
    #[arg(long, value_name = "KIND:VALUE", required_unless_present = "pseudonym")]
    owner: Vec<String>,
    /// An identifier as the evidence shows it (`owner` of an event); needs no key
    #[arg(long, value_name = "KIND:PSEUDONYM")]
    pseudonym: Vec<String>,
    #[command(flatten)]
    recording: Recording,
    /// Write the answer as JSON
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Write the answer as Markdown, to be printed or attached
    #[arg(long)]
    markdown: bool,
}

impl SubjectArgs {
    pub(super) fn run(self) -> Done {
        let mut evidence = self.place.open()?;
        let (given, owners) = self.owners(&evidence)?;
        let asked = Asked {
            command: "subject",
            owners: &owners,
            given: &given,
            filters: Vec::new(),
        };
        self.recording.put(&evidence.config, &asked);
        let subject = Subject::read(&mut evidence.reader, &owners, &evidence.config.recipients)?;
        let mut out = output::out();
        match (self.json, self.markdown) {
            (true, _) => output::json(&mut out, &subject)?,
            (_, true) => subject.markdown(&mut out)?,
            _ => subject.plain(&mut out, Paint::stdout())?,
        }
        output::finish(out)
    }

    /// The identifiers as given, and as the evidence has them.
    fn owners(&self, evidence: &Evidence) -> Result<(Vec<String>, Vec<Owner>), Failure> {
        let (mut given, mut owners) = (Vec::new(), Vec::new());
        for pseudonym in &self.pseudonym {
            owners.push(Owner::from_stored(pseudonym).ok_or_else(|| {
                Failure::said(
                    "--pseudonym: expected an owner as the evidence shows it, such as \
                     email:9f86d081884c7d659a2feaa0c55ad015",
                )
            })?);
        }
        if !self.owner.is_empty() {
            let pseudonyms = evidence.pseudonyms()?;
            for text in &self.owner {
                if text != "-" {
                    owners.push(people::owner(&pseudonyms, text.trim()).ok_or_else(people::expected)?);
                    given.push(text.trim().to_owned());
                    continue;
                }
                let mut lines = Lines::new(std::io::stdin().lock());
                let unreadable = |_| Failure::said("--owner -: standard input cannot be read");
                while let Some(line) = lines.next(&pseudonyms).map_err(unreadable)? {
                    match line {
                        Line::Empty => {}
                        Line::Person(text, owner) if owners.len() < MOST => {
                            given.push(text);
                            owners.push(owner);
                        }
                        Line::Person(..) => {
                            return Err(Failure::said(format!(
                                "--owner -: more than {MOST} identifiers; they are taken for one person's: ask for one \
                                 person at a time, or use `affected --match`"
                            )));
                        }
                        Line::Unusable => return Err(people::expected()),
                    }
                }
            }
        }
        if owners.is_empty() {
            return Err(Failure::said("--owner -: standard input holds no identifier"));
        }
        Ok((given, owners))
    }
}

/// What was observed of one person. No value of theirs is in it.
#[derive(Serialize)]
struct Subject {
    /// Under which pseudonyms: those asked for, and those linked to them.
    identifiers: BTreeSet<String>,
    /// Events about the person, in all categories.
    events: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    categories: Vec<Category>,
    /// Who looked this person up, newest first.
    accesses: Vec<Access>,
    notes: [&'static str; 2],
}

#[derive(Serialize)]
struct Category {
    category: String,
    fields: BTreeSet<String>,
    sources: BTreeSet<String>,
    collected: Vec<Fact>,
    stored: Vec<Fact>,
    derived: Vec<Fact>,
    shared: Vec<Fact>,
    other: Vec<Fact>,
}

/// What happened in one place, however often.
#[derive(Serialize)]
struct Fact {
    /// `HTTP POST /signup`, `db:users`, the recipient.
    place: String,
    /// `insert`, `result`, the type of an own event; empty where there is nothing to say.
    action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<Profile>,
    /// Of a share: the address, the outcomes and their numbers, the forms in which values were found.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    targets: BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    outcomes: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    forms: BTreeSet<String>,
    /// Of a share: every one of them was blocked before anything left.
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<bool>,
    purposes: BTreeSet<String>,
    #[serde(flatten)]
    span: Span,
    /// The newest event, to be looked up.
    event_id: String,
}

#[derive(Serialize)]
struct Access {
    at: Timestamp,
    event_type: String,
    by: String,
    reason: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verb {
    Collected,
    Stored,
    Derived,
    Shared,
    Other,
}

impl Subject {
    fn read(
        reader: &mut Reader,
        owners: &[Owner],
        recipients: &BTreeMap<String, Recipient>,
    ) -> Result<Subject, provenance::Error> {
        let mut identifiers = BTreeSet::new();
        for owner in owners {
            identifiers.extend(reader.identifiers(owner.as_str())?);
        }
        let bar = output::progress("events of this person");
        let mut found = Found::default();
        for identifier in &identifiers {
            let query = EventQuery {
                owner: Some(identifier.clone()),
                ..EventQuery::default()
            };
            each_event(reader, &query, |event| {
                bar.inc(1);
                // An event may name the person under two identifiers: it counts under the first.
                let earlier = identifiers.iter().take_while(|other| *other != identifier);
                if !earlier.into_iter().any(|other| names(&event, other)) {
                    found.see(&event, &identifiers, recipients);
                }
                Ok::<_, provenance::Error>(())
            })?;
        }
        bar.finish_and_clear();
        Ok(found.subject(identifiers))
    }
}

fn owner_of(tag: &Map<String, Json>) -> Option<&str> {
    tag.get("owner").and_then(Json::as_str)
}

/// Whether a question by this identifier gives the event.
fn names(event: &StoredEvent, identifier: &str) -> bool {
    text(&event.extras, "owner") == identifier
        || event.user_id.as_deref() == Some(identifier)
        || event.matched_tags.iter().any(|tag| owner_of(tag) == Some(identifier))
}

#[derive(Default)]
struct Found {
    span: Option<Span>,
    categories: BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)>,
    facts: BTreeMap<(String, Verb, String, String), Fact>,
    accesses: Vec<Access>,
}

impl Found {
    fn see(&mut self, event: &StoredEvent, identifiers: &BTreeSet<String>, recipients: &BTreeMap<String, Recipient>) {
        let theirs = |owner: &str| identifiers.contains(owner);
        let whole = theirs(text(&event.extras, "owner"));
        if matches!(event.event_type.as_str(), "AUDIT_ACCESS" | "DATA_ERASURE") {
            if whole && self.accesses.len() < MOST {
                self.accesses.push(Access {
                    at: event.created_at,
                    event_type: event.event_type.clone(),
                    by: event.actor.strip_prefix("audit:").unwrap_or(&event.actor).to_owned(),
                    reason: Some(text(&event.extras, "reason").to_owned()).filter(|reason| !reason.is_empty()),
                });
            }
            return;
        }
        // What a signed-in person did with the values of others is not about them.
        let tags: Vec<_> = event
            .matched_tags
            .iter()
            .filter(|tag| owner_of(tag).map_or(whole, theirs))
            .collect();
        if tags.is_empty() && !whole {
            return;
        }
        self.span
            .get_or_insert_with(|| Span::none_yet(event.created_at))
            .see(event.created_at);
        let mut counted = BTreeSet::new();
        for tag in &tags {
            let category = match text(tag, "category") {
                // Of a parameter that nobody declared.
                "unknown" => "unknown".to_owned(),
                written => canonical_category(written).into_owned(),
            };
            let about = self.categories.entry(category.clone()).or_default();
            about.0.insert(text(tag, "field").to_owned());
            about.1.insert(text(tag, "source").to_owned());
            let (verb, place, action) = verb(event, tag);
            let fact = self
                .facts
                .entry((category.clone(), verb, place.clone(), action.clone()))
                .or_insert_with(|| Fact {
                    place: place.clone(),
                    action: action.clone(),
                    recipient: (verb == Verb::Shared).then(|| Profile::of(event, recipients)),
                    targets: BTreeSet::new(),
                    outcomes: BTreeMap::new(),
                    forms: BTreeSet::new(),
                    left: (verb == Verb::Shared).then_some(false),
                    purposes: BTreeSet::new(),
                    span: Span::none_yet(event.created_at),
                    event_id: event.event_id.clone(),
                });
            let form = text(tag, "form");
            if verb == Verb::Shared && !form.is_empty() {
                fact.forms.insert(form.to_owned());
            }
            // Two values of one category in one event are one event.
            if !counted.insert((category, verb, place, action)) {
                continue;
            }
            fact.span.see(event.created_at);
            let purpose = text(&event.extras, "purpose");
            if !purpose.is_empty() {
                fact.purposes.insert(purpose.to_owned());
            }
            if verb == Verb::Shared {
                fact.targets.extend(event.target.clone());
                *fact.outcomes.entry(outcome(event)).or_default() += 1;
                fact.left = Some(fact.left == Some(true) || !was_kept_in(event));
            }
        }
    }

    fn subject(self, identifiers: BTreeSet<String>) -> Subject {
        let mut categories: BTreeMap<String, Category> = self
            .categories
            .into_iter()
            .map(|(category, (fields, sources))| {
                let empty = Category {
                    category: category.clone(),
                    fields,
                    sources,
                    collected: Vec::new(),
                    stored: Vec::new(),
                    derived: Vec::new(),
                    shared: Vec::new(),
                    other: Vec::new(),
                };
                (category, empty)
            })
            .collect();
        for ((category, verb, ..), fact) in self.facts {
            let Some(category) = categories.get_mut(&category) else {
                continue;
            };
            match verb {
                Verb::Collected => category.collected.push(fact),
                Verb::Stored => category.stored.push(fact),
                Verb::Derived => category.derived.push(fact),
                Verb::Shared => category.shared.push(fact),
                Verb::Other => category.other.push(fact),
            }
        }
        Subject {
            identifiers,
            events: self.span.as_ref().map_or(0, |span| span.events),
            first: self.span.as_ref().map(|span| span.first),
            last: self.span.as_ref().map(|span| span.last),
            categories: categories.into_values().collect(),
            accesses: self.accesses,
            notes: [NO_COPY, NO_PROOF],
        }
    }
}

/// What an event did with a value, where, and how.
fn verb(event: &StoredEvent, tag: &Map<String, Json>) -> (Verb, String, String) {
    let target = || event.target.clone().unwrap_or_else(|| event.actor.clone());
    let action = || text(&event.extras, "action").to_owned();
    match event.event_type.as_str() {
        "DATA_COLLECTION" => (Verb::Collected, event.actor.clone(), String::new()),
        "DATA_STORAGE" => (Verb::Stored, target(), action()),
        "DATA_DERIVATION" => (Verb::Derived, event.actor.clone(), text(tag, "role").to_owned()),
        "DATA_SHARE" => (Verb::Shared, text(&event.extras, "recipient").to_owned(), String::new()),
        other => (Verb::Other, target(), other.to_owned()),
    }
}

impl Category {
    /// Each kind of fact with its heading.
    fn parts(&self) -> [(&'static str, &[Fact]); 5] {
        [
            ("collected from", &self.collected),
            ("stored in", &self.stored),
            ("computed", &self.derived),
            ("sent to", &self.shared),
            ("other", &self.other),
        ]
    }
}

impl Fact {
    /// The fact without its place, in words.
    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if !self.action.is_empty() {
            words.push(self.action.clone());
        }
        if let Some(recipient) = &self.recipient {
            words.extend(recipient.words());
            words.extend((!self.outcomes.is_empty()).then(|| {
                let outcomes: Vec<_> = self
                    .outcomes
                    .iter()
                    .map(|(word, times)| format!("{word} ({times})"))
                    .collect();
                format!("outcome {}", outcomes.join(", "))
            }));
            if self.left == Some(false) {
                words.push("blocked: nothing left".to_owned());
            }
        }
        if !self.purposes.is_empty() {
            words.push(format!("purpose {}", listed(&self.purposes)));
        }
        words
    }

    fn when(&self) -> String {
        let times = count(self.span.events, "event", "events");
        match self.span.first == self.span.last {
            true => format!("{times}, {}", self.span.first),
            false => format!("{times}, {} to {}", self.span.first, self.span.last),
        }
    }
}

impl Profile {
    /// The recipient in words.
    pub(super) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        words.extend(self.legal_name.clone());
        words.extend(self.role.clone().map(|role| role.replace('_', " ")));
        words.extend(self.country.clone());
        words.extend(
            self.safeguard
                .as_ref()
                .map(|safeguard| format!("safeguard {safeguard}")),
        );
        if !self.declared {
            words.push("undeclared recipient".to_owned());
        }
        words
    }
}

impl Subject {
    fn plain(&self, out: &mut impl Write, paint: Paint) -> Result<(), Failure> {
        match (self.first, self.last) {
            (Some(first), Some(last)) => writeln!(
                out,
                "{} about this person, from {first} to {last}",
                count(self.events, "event", "events")
            )?,
            _ => writeln!(out, "nothing was observed of this person")?,
        }
        writeln!(out, "known as {}", shown(&listed(&self.identifiers)))?;
        for category in &self.categories {
            writeln!(
                out,
                "\n{}  ({})",
                paint.bold(&shown(&category.category)),
                shown(&listed(&category.fields))
            )?;
            for (heading, facts) in category.parts() {
                for fact in facts {
                    write!(out, "  {heading:<14} {}", shown(&fact.place))?;
                    for word in fact.words() {
                        write!(out, "; {}", shown(&word))?;
                    }
                    writeln!(out, "; {}", fact.when())?;
                }
            }
        }
        if !self.accesses.is_empty() {
            writeln!(out, "\n{}", paint.bold("looked up"))?;
            for access in &self.accesses {
                writeln!(
                    out,
                    "  {} {} by {}: {}",
                    access.at,
                    shown(&access.event_type),
                    shown(&access.by),
                    shown(access.reason.as_deref().unwrap_or("no reason given"))
                )?;
            }
        }
        Ok(writeln!(out, "\n{NO_COPY}\n{NO_PROOF}")?)
    }

    fn markdown(&self, out: &mut impl Write) -> Result<(), Failure> {
        writeln!(out, "# What was observed of one person\n")?;
        writeln!(out, "{NO_COPY} {NO_PROOF}\n")?;
        match (self.first, self.last) {
            (Some(first), Some(last)) => writeln!(
                out,
                "- {} from {first} to {last}",
                count(self.events, "event", "events")
            )?,
            _ => writeln!(out, "- nothing was observed of this person")?,
        }
        writeln!(out, "- known as {}", cell(&listed(&self.identifiers)))?;
        writeln!(out, "- made {}", Timestamp::now())?;
        for category in &self.categories {
            writeln!(
                out,
                "\n## {}\n\nFields: {}\n",
                cell(&category.category),
                cell(&listed(&category.fields))
            )?;
            writeln!(
                out,
                "| what | where | more | first | last | events |\n|---|---|---|---|---|---|"
            )?;
            for (heading, facts) in category.parts() {
                for fact in facts {
                    writeln!(
                        out,
                        "| {heading} | {} | {} | {} | {} | {} |",
                        cell(&fact.place),
                        cell(&fact.words().join("; ")),
                        fact.span.first,
                        fact.span.last,
                        fact.span.events
                    )?;
                }
            }
        }
        Ok(())
    }
}

/// Text of the evidence inside Markdown: nothing in it is markup.
pub(super) fn cell(text: &str) -> String {
    let mut cell = String::with_capacity(text.len());
    for c in shown(text).chars() {
        match c {
            '&' => cell.push_str("&amp;"),
            '<' => cell.push_str("&lt;"),
            '>' => cell.push_str("&gt;"),
            '\\' | '|' | '`' | '*' | '_' | '[' | ']' | '#' | '!' => cell.extend(['\\', c]),
            c => cell.push(c),
        }
    }
    cell
}

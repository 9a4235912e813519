//! `provenance-audit subject`: what was observed of one person.

use std::io::Write;

use clap::Args;
use provenance::{Owner, Timestamp};
use serde_json::{Value as Json, json};

use super::output::{self, Done, Failure, Paint, count};
use super::people::{self, Line, Lines};
use super::place::{Evidence, Place};
use super::record::{Asked, Recording};
use crate::answers::person::{self, Fact, Person, Verb};
use crate::shown::{cell, listed, shown};

/// Most identifiers of one person that are taken in.
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
        let bar = output::progress("events of this person");
        let Evidence { config, reader } = &mut evidence;
        let person = person::of(reader, &owners, config, usize::MAX, &mut || bar.inc(1))?;
        bar.finish_and_clear();
        let mut out = output::out();
        match (self.json, self.markdown) {
            (true, _) => output::json(&mut out, &as_json(&person))?,
            (_, true) => markdown(&person, &mut out)?,
            _ => plain(&person, &mut out, Paint::stdout())?,
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

/// The answer as scripts read it.
fn as_json(person: &Person) -> Json {
    let mut identifiers = person.identifiers.clone();
    identifiers.sort();
    let categories: Vec<Json> = person
        .categories
        .iter()
        .map(|category| {
            let mut shown = json!({
                "category": category.canonical,
                "fields": category.fields,
                "sources": category.sources,
            });
            for (verb, name, _) in VERBS {
                let facts: Vec<Json> = category
                    .facts
                    .iter()
                    .filter(|fact| fact.verb == verb)
                    .map(fact_as_json)
                    .collect();
                if let Some(shown) = shown.as_object_mut() {
                    shown.insert(name.to_owned(), facts.into());
                }
            }
            shown
        })
        .collect();
    let accesses: Vec<Json> = person
        .asked
        .iter()
        .map(|asked| {
            let reason = Some(&asked.reason).filter(|reason| !reason.is_empty());
            json!({ "at": asked.at, "event_type": asked.event_type, "by": asked.by, "reason": reason })
        })
        .collect();
    json!({
        "identifiers": identifiers,
        "events": person.events,
        "first": person.first_at,
        "last": person.last_at,
        "categories": categories,
        "accesses": accesses,
        "notes": [NO_COPY, NO_PROOF],
    })
}

fn fact_as_json(fact: &Fact) -> Json {
    let mut shown = json!(fact);
    if let Some(shown) = shown.as_object_mut() {
        for (name, own) in [("first_at", "first"), ("last_at", "last")] {
            if let Some(time) = shown.remove(name) {
                shown.insert(own.to_owned(), time);
            }
        }
    }
    shown
}

/// Kinds of facts: their name in JSON, and their heading.
const VERBS: [(Verb, &str, &str); 5] = [
    (Verb::Collected, "collected", "collected from"),
    (Verb::Stored, "stored", "stored in"),
    (Verb::Derived, "derived", "computed"),
    (Verb::Shared, "shared", "sent to"),
    (Verb::Other, "other", "other"),
];

fn heading(fact: &Fact) -> &'static str {
    let of = VERBS.iter().find(|(verb, ..)| *verb == fact.verb);
    of.map_or("other", |(.., heading)| heading)
}

/// The fact without its place, in words.
fn words(fact: &Fact) -> Vec<String> {
    let mut words = Vec::new();
    if !fact.action.is_empty() {
        words.push(fact.action.clone());
    }
    if let Some(recipient) = &fact.recipient {
        words.extend(recipient.words());
        words.extend((!fact.outcomes.is_empty()).then(|| {
            let outcomes: Vec<_> = fact
                .outcomes
                .iter()
                .map(|(word, times)| format!("{word} ({times})"))
                .collect();
            format!("outcome {}", outcomes.join(", "))
        }));
        if fact.left == Some(false) {
            words.push("blocked: nothing left".to_owned());
        }
    }
    if !fact.purposes.is_empty() {
        words.push(format!("purpose {}", listed(&fact.purposes)));
    }
    words
}

fn when(fact: &Fact) -> String {
    let times = count(fact.seen.events, "event", "events");
    match fact.seen.first_at == fact.seen.last_at {
        true => format!("{times}, {}", fact.seen.first_at),
        false => format!("{times}, {} to {}", fact.seen.first_at, fact.seen.last_at),
    }
}

fn plain(person: &Person, out: &mut impl Write, paint: Paint) -> Result<(), Failure> {
    match (person.first_at, person.last_at) {
        (Some(first), Some(last)) => writeln!(
            out,
            "{} about this person, from {first} to {last}",
            count(person.events, "event", "events")
        )?,
        _ => writeln!(out, "nothing was observed of this person")?,
    }
    writeln!(out, "known as {}", shown(&listed(&person.identifiers)))?;
    for category in &person.categories {
        writeln!(
            out,
            "\n{}  ({})",
            paint.bold(&shown(&category.canonical)),
            shown(&listed(&category.fields))
        )?;
        for fact in &category.facts {
            write!(out, "  {:<14} {}", heading(fact), shown(&fact.place))?;
            for word in words(fact) {
                write!(out, "; {}", shown(&word))?;
            }
            writeln!(out, "; {}", when(fact))?;
        }
    }
    if !person.asked.is_empty() {
        writeln!(out, "\n{}", paint.bold("looked up"))?;
        for access in &person.asked {
            writeln!(
                out,
                "  {} {} by {}: {}",
                access.at,
                shown(&access.event_type),
                shown(&access.by),
                shown(
                    Some(access.reason.as_str())
                        .filter(|reason| !reason.is_empty())
                        .unwrap_or("no reason given")
                )
            )?;
        }
    }
    Ok(writeln!(out, "\n{NO_COPY}\n{NO_PROOF}")?)
}

fn markdown(person: &Person, out: &mut impl Write) -> Result<(), Failure> {
    writeln!(out, "# What was observed of one person\n")?;
    writeln!(out, "{NO_COPY} {NO_PROOF}\n")?;
    match (person.first_at, person.last_at) {
        (Some(first), Some(last)) => writeln!(
            out,
            "- {} from {first} to {last}",
            count(person.events, "event", "events")
        )?,
        _ => writeln!(out, "- nothing was observed of this person")?,
    }
    writeln!(out, "- known as {}", cell(&listed(&person.identifiers)))?;
    writeln!(out, "- made {}", Timestamp::now())?;
    for category in &person.categories {
        writeln!(
            out,
            "\n## {}\n\nFields: {}\n",
            cell(&category.canonical),
            cell(&listed(&category.fields))
        )?;
        writeln!(
            out,
            "| what | where | more | first | last | events |\n|---|---|---|---|---|---|"
        )?;
        for fact in &category.facts {
            writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} |",
                heading(fact),
                cell(&fact.place),
                cell(&words(fact).join("; ")),
                fact.seen.first_at,
                fact.seen.last_at,
                fact.seen.events
            )?;
        }
    }
    Ok(())
}

//! `provenance-audit affected`: whose data a recipient got.

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;

use clap::Args;
use provenance::store::{EventQuery, Reader};
use serde_json::{Value as Json, json};

use super::found;
use super::output::{self, Done, Failure, count};
use super::people::{Line, Lines};
use super::place::{Period, Place};
use super::record::{Asked, Recording};
use crate::answers::affected::{self, Found};
use crate::declared::shown;

/// Most lines that are named as unusable.
const MOST_NAMED: usize = 10;

/// Say who was affected by what a recipient got between two times
///
/// With --match: which of the supplied identifiers are of people whose data was sent, one a line, as supplied; and how
/// many people were affected whom none of them names. Without it: the pseudonyms of everybody affected. Linked
/// identifiers count as one person. Shares that were blocked before anything left affect nobody.
#[derive(Args)]
#[command(after_help = "Examples:
  provenance-audit affected --recipient mailchimp --since 2026-11-01 --until 2026-11-08 --match customers.txt
  provenance-audit affected --recipient api.example.com --category contact.email --json
  psql -Atc 'select email from customers' | provenance-audit affected --recipient mailchimp --match -

A line of the file is an identifier: email:ada@example.com, user:7, or a bare address. To match them takes the
service's key; the access is put on record in the evidence (AUDIT_ACCESS), without the identifiers.

Exit codes: 0 answered; 1 answered, and lines of the file could not be read as identifiers; 2 cannot tell.")]
pub(super) struct Affected {
    #[command(flatten)]
    place: Place,
    /// The recipient, as `recipients` lists it
    #[arg(long, value_name = "NAME")]
    recipient: String,
    #[command(flatten)]
    period: Period,
    /// Only data of this category, or of one below it
    #[arg(long, value_name = "CATEGORY")]
    category: Option<String>,
    /// Identifiers to look for, one a line; - for standard input
    #[arg(long = "match", value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    recording: Recording,
    /// Write the answer as JSON
    #[arg(long)]
    json: bool,
}

impl Affected {
    pub(super) fn run(self) -> Done {
        self.period.check()?;
        let mut evidence = self.place.open()?;
        // What cannot be answered is told before anything is read.
        let matching = match &self.file {
            Some(file) => Some((evidence.pseudonyms()?, open(file)?)),
            None => None,
        };
        let mut filters = vec![("recipient", self.recipient.clone())];
        filters.extend(self.period.since.map(|since| ("since", since.to_string())));
        filters.extend(self.period.until.map(|until| ("until", until.to_string())));
        filters.extend(self.category.clone().map(|category| ("category", category)));
        let asked = Asked {
            command: "affected",
            owners: &[],
            given: &[],
            filters,
        };
        self.recording.put(&evidence.config, &asked);
        let people = self.people(&mut evidence.reader)?;
        if people.shares == 0 {
            eprintln!("note: {}", self.nothing(&mut evidence.reader)?);
        }
        match matching {
            Some((pseudonyms, lines)) => self.matched(&people, &pseudonyms, lines),
            None => self.all(&people),
        }
    }

    /// Everybody whose data was sent.
    fn people(&self, reader: &mut Reader) -> Result<Found, Failure> {
        let query = EventQuery {
            recipient: Some(self.recipient.clone()),
            since: self.period.since,
            until: self.period.until,
            category: self.category.clone(),
            ..EventQuery::default()
        };
        let bar = output::progress("shares with this recipient");
        let found = affected::of(reader, &query, usize::MAX, &mut || bar.inc(1))?;
        bar.finish_and_clear();
        Ok(found)
    }

    /// Why there may be nothing.
    fn nothing(&self, reader: &mut Reader) -> Result<String, Failure> {
        let mut recipients = BTreeSet::new();
        for flow in reader.flows(&Default::default())? {
            recipients.extend(flow.key.recipient);
        }
        Ok(match recipients.contains(&self.recipient) {
            true => "no share with this recipient matches: look at --since, --until and --category".to_owned(),
            false => format!(
                "no share with a recipient of this name is recorded; there are: {}",
                shown(&output::listed(recipients.iter().take(50)))
            ),
        })
    }

    fn all(&self, people: &Found) -> Done {
        // One identifier of each.
        let owners: Vec<&String> = people.people.iter().filter_map(|one| one.identifiers.first()).collect();
        let mut out = output::out();
        if self.json {
            let mut answer = self.answer(people);
            answer.insert("owners".into(), json!(owners));
            output::json(&mut out, &answer)?;
        } else {
            for owner in owners {
                writeln!(out, "{}", shown(owner))?;
            }
            out.flush()?;
            eprintln!("{}", summary(people));
        }
        output::finish(out)
    }

    /// Writes what matches as it is met: the file may be of any length.
    fn matched(&self, people: &Found, pseudonyms: &provenance::Pseudonyms, mut lines: Lines<Box<dyn BufRead>>) -> Done {
        let mut out = output::out();
        let (mut met, mut matched, mut unusable, mut named) = (HashSet::new(), 0_u64, 0_u64, Vec::new());
        let mut number = 0_u64;
        let bar = output::progress("identifiers");
        if self.json {
            write!(out, "{{\"matched\":[")?;
        }
        let unreadable = |_| Failure::said("--match: the file cannot be read to its end");
        while let Some(line) = lines.next(pseudonyms).map_err(unreadable)? {
            number += 1;
            bar.inc(1);
            match line {
                Line::Empty => {}
                Line::Unusable => {
                    unusable += 1;
                    if named.len() < MOST_NAMED {
                        named.push(number);
                    }
                }
                Line::Person(written, owner) => {
                    let Some(person) = people.place_of(owner.as_str()) else {
                        continue;
                    };
                    met.insert(person);
                    if self.json {
                        let comma = if matched > 0 { "," } else { "" };
                        write!(out, "{comma}{}", Json::from(written))?;
                    } else {
                        writeln!(out, "{}", shown(&written))?;
                    }
                    matched += 1;
                }
            }
        }
        bar.finish_and_clear();
        let unmatched = people.people.len() - met.len();
        if self.json {
            let mut answer = self.answer(people);
            answer.insert("matched_identifiers".into(), matched.into());
            answer.insert("matched_people".into(), met.len().into());
            answer.insert("unmatched_owners".into(), unmatched.into());
            answer.insert("lines".into(), number.into());
            answer.insert("unusable_lines".into(), unusable.into());
            answer.insert("first_unusable_lines".into(), json!(named));
            let rest = Json::Object(answer).to_string();
            writeln!(out, "],{}", rest.strip_prefix('{').unwrap_or("}"))?;
        }
        let done = output::finish(out)?;
        if !self.json {
            eprintln!("{}", summary(people));
            eprintln!(
                "{} of the file match; they name {}, and none names {} of those affected",
                count(matched, "identifier", "identifiers"),
                count(met.len() as u64, "person", "people"),
                unmatched
            );
        }
        if unusable == 0 {
            return Ok(done);
        }
        let named: Vec<_> = named.iter().map(u64::to_string).collect();
        eprintln!(
            "warning: {} could not be read as identifiers (email:ada@example.com, user:7, or a bare address): line {}{}",
            count(unusable, "line", "lines"),
            named.join(", "),
            if unusable > named.len() as u64 { ", .." } else { "" }
        );
        found()
    }

    fn answer(&self, people: &Found) -> serde_json::Map<String, Json> {
        serde_json::Map::from_iter([
            ("recipient".to_owned(), json!(self.recipient)),
            ("since".to_owned(), json!(self.period.since)),
            ("until".to_owned(), json!(self.period.until)),
            ("category".to_owned(), json!(self.category)),
            ("people".to_owned(), people.people.len().into()),
            ("shares".to_owned(), people.shares.into()),
            (
                "shares_of_unknown_people".to_owned(),
                people.shares_of_unknown_people.into(),
            ),
            ("blocked_shares".to_owned(), people.blocked_shares.into()),
        ])
    }
}

fn summary(found: &Found) -> String {
    let mut summary = format!(
        "{} affected, in {}",
        count(found.people.len() as u64, "person", "people"),
        count(found.shares, "share", "shares")
    );
    if found.shares_of_unknown_people > 0 {
        summary.push_str(&format!(
            "; of {} it is not known whose data all of it is",
            count(found.shares_of_unknown_people, "share", "shares")
        ));
    }
    if found.blocked_shares > 0 {
        summary.push_str(&format!(
            "; {} blocked before anything left",
            count(found.blocked_shares, "share was", "shares were")
        ));
    }
    summary
}

fn open(file: &PathBuf) -> Result<Lines<Box<dyn BufRead>>, Failure> {
    if file.as_os_str() == "-" {
        return Ok(Lines::new(Box::new(BufReader::new(std::io::stdin()))));
    }
    let unreadable = |kind: String| Failure::said(format!("--match: {}: {kind}", file.display()));
    let opened = File::open(file).map_err(|error| unreadable(error.kind().to_string()))?;
    if opened.metadata().is_ok_and(|meta| meta.is_dir()) {
        return Err(unreadable(
            "is a folder; expected a file with one identifier a line".to_owned(),
        ));
    }
    Ok(Lines::new(Box::new(BufReader::with_capacity(64 * 1024, opened))))
}

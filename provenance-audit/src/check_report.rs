//! What `cargo provenance check` found, for a terminal, a pull request, or a program.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use clap::builder::styling::{AnsiColor, Style};
use serde_json::{Value as Json, json};

use crate::call_sites::{self, CallSite};
use crate::declared::{UnknownKey, shown};
use crate::inventory_report::cell;
use crate::lockfile::{self, Change, Kind, Lock, Place, Verb};

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A line a finding, for a terminal
    #[value(alias = "table")]
    Text,
    /// GitHub's workflow annotations, on the lines of the pull request
    Github,
    /// Tables, for a comment or a job's summary
    Markdown,
    /// One object: status, problems, changes, unknown_keys, calls
    Json,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// Why the builds and the lock could not be compared, a sentence each.
    pub problems: Vec<String>,
    /// The builds, if they could be read.
    pub now: Option<Lock>,
    /// How they differ from the lock.
    pub changes: Vec<Change>,
    /// Keys that the taxonomy does not have.
    pub unknown_keys: Vec<UnknownKey>,
    /// Calls outside any `#[egress]` function, if they were looked for.
    pub calls: Option<Vec<CallSite>>,
    /// The lock was to be written: whether it had to be.
    pub written: Option<bool>,
    /// The packages of the workspace: files of others are not in it.
    pub packages: BTreeSet<String>,
    /// Where the workspace stands in its repository.
    pub within_repository: String,
}

impl Report {
    /// `current`, `drift` or `unknown`; nothing where nothing was to be compared.
    fn status(&self) -> Option<&'static str> {
        match (&self.problems[..], &self.now, &self.changes[..]) {
            ([_, ..], _, _) => Some("unknown"),
            (_, None, _) => None,
            (_, _, []) => Some("current"),
            _ => Some("drift"),
        }
    }

    /// The report's text, ending in a line feed.
    pub fn render(&self, format: Format, colour: bool) -> String {
        match format {
            Format::Text => self.text(colour),
            Format::Github => self.github(),
            Format::Markdown => self.markdown(),
            Format::Json => serde_json::to_string_pretty(&self.json()).unwrap_or_default() + "\n",
        }
    }

    fn text(&self, colour: bool) -> String {
        let paint = |style: Style, text: &str| match colour {
            true => format!("{style}{text}{style:#}"),
            false => text.to_owned(),
        };
        let mut out = String::new();
        for change in &self.changes {
            let style = match change.verb {
                Verb::New => AnsiColor::Green.on_default(),
                Verb::Lost => AnsiColor::Red.on_default(),
                Verb::Changed | Verb::Renamed => AnsiColor::Yellow.on_default(),
            };
            let (verb, rest) = (change.verb.word(), self.sentence(change));
            let _ = writeln!(out, "{}: {} {rest}", self.shown(&change.place), paint(style, verb));
        }
        for unknown in &self.unknown_keys {
            let mark = paint(AnsiColor::Yellow.on_default(), "unknown");
            let _ = writeln!(out, "{}: {mark} {}", self.shown(&unknown.place()), about(unknown));
        }
        if let Some(summary) = self.summary() {
            if !out.is_empty() {
                out.push('\n');
            }
            let _ = writeln!(out, "{}", paint(Style::new().bold(), &summary));
        }
        for problem in &self.problems {
            let _ = writeln!(
                out,
                "{}: {}",
                paint(AnsiColor::Red.on_default().bold(), "cannot tell"),
                shown(problem)
            );
        }
        if let Some(calls) = &self.calls {
            if !out.is_empty() {
                out.push('\n');
            }
            out.push_str(&call_sites::table(calls));
        }
        out
    }

    fn summary(&self) -> Option<String> {
        let now = self.now.as_ref().filter(|_| self.problems.is_empty())?;
        let programs: Vec<String> = now.programs().map(shown).collect();
        let unknown = match self.unknown_keys.len() {
            0 => String::new(),
            number => format!(" {} not in the taxonomy.", counted(number, "key is", "keys are")),
        };
        Some(match self.changes.len() {
            number if self.written == Some(true) => format!(
                "{} is written: {}, {} of {}.{unknown}",
                lockfile::FILE,
                counted(number, "change", "changes"),
                counted(now.len(), "fact", "facts"),
                programs.join(", ")
            ),
            0 => format!(
                "{} is current: {} of {}.{unknown}",
                lockfile::FILE,
                counted(now.len(), "fact", "facts"),
                programs.join(", ")
            ),
            number => format!(
                "{}: {}. Where they are meant, run `cargo provenance lock` and commit the file.{unknown}",
                lockfile::FILE,
                counted(number, "change", "changes")
            ),
        })
    }

    fn github(&self) -> String {
        let mut out = String::new();
        let mut say = |level: &str, place: Option<&Place>, title: &str, message: &str| {
            let mut properties = Vec::new();
            if let Some((file, place)) = place.and_then(|place| Some((self.in_repository(place)?, place))) {
                properties.push(format!("file={}", property(&file)));
                properties.extend(place.line.map(|line| format!("line={line}")));
            }
            properties.push(format!("title={}", property(title)));
            let _ = writeln!(out, "::{level} {}::{}", properties.join(","), data(message));
        };
        for problem in &self.problems {
            say("error", None, "provenance cannot tell", problem);
        }
        for change in &self.changes {
            let title = format!("Personal data: {} {}", change.verb.word(), change.kind.word());
            let message = format!("{} {}", change.verb.word(), self.sentence(change));
            say("warning", Some(&change.place), &title, &message);
        }
        for unknown in &self.unknown_keys {
            let title = format!("Unknown {}", unknown.taxon.word());
            say(
                "warning",
                Some(&unknown.place()),
                &title,
                &format!("unknown {}", about(unknown)),
            );
        }
        for call in self.calls.iter().flatten() {
            let place = Place {
                file: Some(call.file.clone()),
                line: Some(call.line),
                package: None,
            };
            let message = format!(
                "{} `{}` in {} stands outside any #[egress] function",
                call.library, call.call, call.function
            );
            say("notice", Some(&place), "Call outside #[egress]", &message);
        }
        if let Some(summary) = self.summary() {
            let _ = writeln!(out, "{summary}");
        }
        out
    }

    fn markdown(&self) -> String {
        let mut out = String::from("## Personal data in this build\n");
        for problem in &self.problems {
            let _ = writeln!(out, "\n**Cannot tell:** {}", cell(&shown(problem)));
        }
        if let Some(summary) = self.summary() {
            let _ = writeln!(out, "\n{summary}");
        }
        let mut table = |title: &str, headings: &[&str], rows: Vec<Vec<String>>| {
            if rows.is_empty() {
                return;
            }
            let _ = writeln!(
                out,
                "\n### {title}\n\n| {} |\n|{}",
                headings.join(" | "),
                "---|".repeat(headings.len())
            );
            for row in rows {
                let cells: Vec<String> = row.iter().map(|text| cell(&shown(text))).collect();
                let _ = writeln!(out, "| {} |", cells.join(" | "));
            }
        };
        let changes = self.changes.iter().map(|change| {
            let path = match &change.now {
                Some(now) => format!("{} is now {now}", change.path),
                None => change.path.clone(),
            };
            let what = format!("{} {}", change.verb.word(), change.kind.word());
            vec![
                what,
                path,
                said(change),
                change.programs.join(", "),
                self.shown(&change.place),
            ]
        });
        table("Changes", &["change", "of", "declares", "in", "at"], changes.collect());
        let unknown = self.unknown_keys.iter().map(|unknown| {
            let nearest = unknown.nearest.unwrap_or_default().to_owned();
            let what = unknown.taxon.word().to_owned();
            vec![
                what,
                unknown.key.clone(),
                nearest,
                unknown.item(),
                self.shown(&unknown.place()),
            ]
        });
        table(
            "Keys that are not in the taxonomy",
            &["list", "key", "nearest", "of", "at"],
            unknown.collect(),
        );
        let calls = self.calls.iter().flatten().map(|call| {
            let what = format!("{} {}", call.library, call.call);
            vec![what, call.function.clone(), format!("{}:{}", call.file, call.line)]
        });
        table(
            "Calls outside any #[egress] function, to look at",
            &["call", "in", "at"],
            calls.collect(),
        );
        out
    }

    fn json(&self) -> Json {
        let changes: Vec<Json> = self
            .changes
            .iter()
            .map(|change| {
                json!({
                    "change": change.verb,
                    "what": change.kind,
                    "path": change.path,
                    "now": change.now,
                    "before": change.before,
                    "after": change.after,
                    "programs": change.programs,
                    "file": change.place.file,
                    "line": change.place.line,
                    "crate": change.place.package,
                })
            })
            .collect();
        json!({
            "status": self.status(),
            "problems": self.problems,
            "programs": self.now.as_ref().map(|now| now.programs().collect::<Vec<_>>()),
            "taxonomy": provenance::inventory::TAXONOMY,
            "changes": changes,
            "unknown_keys": self.unknown_keys,
            "calls": self.calls,
        })
    }

    /// A change without its verb and place, fit to be shown.
    fn sentence(&self, change: &Change) -> String {
        let mut out = format!("{} `{}`", change.kind.word(), shown(&change.path));
        if let Some(now) = &change.now {
            let _ = write!(out, ": now `{}`", shown(now));
        }
        let said = said(change);
        if !said.is_empty() {
            let _ = write!(out, ": {}", shown(&said));
        }
        let all = self.now.as_ref().is_some_and(|now| now.programs().count() == 1);
        if !all && change.kind != Kind::Program {
            let _ = write!(out, " (in {})", shown(&change.programs.join(", ")));
        }
        out
    }

    /// `src/users.rs:12`; of a crate outside the workspace `crm-types: src/lib.rs:12`.
    fn shown(&self, place: &Place) -> String {
        let file = place.file.as_deref().unwrap_or("(place unknown)");
        let mut out = match &place.package {
            Some(package) if !self.packages.contains(package) => format!("{}: {}", shown(package), shown(file)),
            _ => shown(file),
        };
        if let Some(line) = place.line {
            let _ = write!(out, ":{line}");
        }
        out
    }

    /// The file as the repository has it, if it has it.
    fn in_repository(&self, place: &Place) -> Option<String> {
        let outside = |package: &String| !self.packages.contains(package);
        let file = place
            .file
            .as_deref()
            .filter(|_| !place.package.as_ref().is_some_and(outside))?;
        Some(match self.within_repository.as_str() {
            "" => file.to_owned(),
            within => format!("{within}/{file}"),
        })
    }
}

impl UnknownKey {
    fn place(&self) -> Place {
        Place {
            file: self.file.clone(),
            line: self.line,
            package: self.package.clone(),
        }
    }
}

fn about(unknown: &UnknownKey) -> String {
    let nearest = unknown
        .nearest
        .map(|nearest| format!("; did you mean `{nearest}`?"))
        .unwrap_or_default();
    let (word, key, item) = (unknown.taxon.word(), shown(&unknown.key), shown(&unknown.item()));
    format!("{word} `{key}` of `{item}`{nearest}")
}

/// What a new or lost line says; of a changed one, the members that are different.
fn said(change: &Change) -> String {
    let (before, after) = match (&change.before, &change.after) {
        (Some(before), Some(after)) => (before, after),
        (Some(says), None) | (None, Some(says)) => return lockfile::members(says),
        (None, None) => return String::new(),
    };
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differ = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
    let of = |says: &lockfile::Says, key| says.get(key).map_or_else(|| "nothing".to_owned(), ToString::to_string);
    let each = differ.map(|key| format!("{key}: {} -> {}", of(before, key), of(after, key)));
    each.collect::<Vec<_>>().join(", ")
}

fn counted(number: usize, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

/// The text of a workflow command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property of a workflow command.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

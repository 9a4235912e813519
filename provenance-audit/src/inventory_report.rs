//! What a build declares, for people (table, Markdown) and for programs (JSON).

use std::fmt::Write as _;

use provenance::inventory::{self, Entry};
use serde_json::{Map, Value as Json};

use crate::artifact::Artifact;

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Format {
    /// Columns for a terminal.
    Table,
    /// An array of entries, as INVENTORY.md describes them.
    Json,
    /// A table for a document.
    Markdown,
}

/// The report, ending in a line feed.
pub fn render(artifact: &Artifact, format: Format) -> String {
    match format {
        Format::Json => serde_json::to_string_pretty(&artifact.entries).unwrap_or_default() + "\n",
        Format::Table => table(&rows(artifact), artifact),
        Format::Markdown => markdown(&rows(artifact), artifact),
    }
}

const HEADINGS: [&str; 4] = ["kind", "path", "declares", "at"];

/// One line of the report. Further lines of the same entry leave all but the third column empty.
type Row = [String; 4];

fn rows(artifact: &Artifact) -> Vec<Row> {
    let mut rows = Vec::new();
    for entry in &artifact.entries {
        let mut declared = declarations(entry).into_iter();
        rows.push([
            shown(&entry.kind),
            shown(&entry.path),
            declared.next().unwrap_or_default(),
            shown(entry.at.as_deref().unwrap_or_default()),
        ]);
        rows.extend(declared.map(|line| [String::new(), String::new(), line, String::new()]));
    }
    rows
}

/// What an entry says, a line a fact. Kinds of later versions are shown by what is known of them.
fn declarations(entry: &Entry) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(version) = text(&entry.rest, "version") {
        lines.push(format!("version {}", shown(version)));
    }
    if let Some(category) = text(&entry.rest, "category") {
        lines.push(format!("result: {}", flagged(category)));
    }
    let table = text(&entry.rest, "table")
        .map(|table| shown(table) + ".")
        .unwrap_or_default();
    for field in list(&entry.rest, "fields").iter().filter_map(Json::as_object) {
        let name = text(field, "name").unwrap_or("?");
        let category = text(field, "category").map(flagged).unwrap_or_default();
        lines.push(format!("{table}{}: {category}{}", shown(name), properties(field)));
    }
    for arg in list(&entry.rest, "args").iter().filter_map(Json::as_object) {
        let (name, ty) = (text(arg, "name").unwrap_or("_"), text(arg, "type").unwrap_or("?"));
        let verb = if entry.kind == "egress" { "sends" } else { "takes" };
        lines.push(format!("{verb} {}: {}", shown(name), shown(ty)));
    }
    match text(&entry.rest, "recipient") {
        Some(recipient) => lines.push(format!("to {}", shown(recipient))),
        None if entry.kind == "egress" => lines.push("to the hosts it calls".to_owned()),
        None => {}
    }
    match entry.rest.get("allow") {
        Some(Json::Array(allowed)) if allowed.is_empty() => lines.push("allows nothing".to_owned()),
        Some(Json::Array(allowed)) => {
            let allowed: Vec<_> = allowed.iter().filter_map(Json::as_str).map(flagged).collect();
            lines.push(format!("allows {}", allowed.join(", ")));
        }
        _ => {}
    }
    for key in ["purpose", "basis", "data_use", "subject"] {
        if let Some(value) = text(&entry.rest, key) {
            lines.push(format!("{}: {}", key.replace('_', " "), shown(value)));
        }
    }
    lines
}

fn properties(field: &Map<String, Json>) -> String {
    let is = |key: &str, truth: bool| field.get(key).and_then(Json::as_bool) == Some(truth);
    let words = [(is("secret", true), "secret"), (is("pii", false), "not personal")];
    words
        .iter()
        .filter(|(applies, _)| *applies)
        .map(|(_, word)| format!(", {word}"))
        .collect()
}

/// A category; with a mark and the nearest known one, if it is not known.
fn flagged(category: &str) -> String {
    let category_shown = shown(category);
    if inventory::is_known_category(category) {
        return category_shown;
    }
    match inventory::nearest_category(category) {
        Some(nearest) => format!("{category_shown} (unknown; did you mean {nearest}?)"),
        None => format!("{category_shown} (unknown)"),
    }
}

fn table(rows: &[Row], artifact: &Artifact) -> String {
    let headings = HEADINGS.map(str::to_uppercase);
    let widths: Vec<usize> = (0..headings.len())
        .map(|column| {
            let cells = std::iter::once(&headings).chain(rows).map(|row| &row[column]);
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        })
        .collect();
    let mut out = String::new();
    for row in std::iter::once(&headings).chain(rows) {
        let line: String = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}  "))
            .collect();
        out.push_str(line.trim_end());
        out.push('\n');
    }
    let _ = writeln!(out, "\n{}", summary(artifact));
    out
}

fn markdown(rows: &[Row], artifact: &Artifact) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "| {} |\n|{}", HEADINGS.join(" | "), "---|".repeat(HEADINGS.len()));
    for row in rows {
        let cells = row
            .each_ref()
            .map(|cell| cell.replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;"));
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    let _ = writeln!(out, "\n{}", summary(artifact));
    out
}

fn summary(artifact: &Artifact) -> String {
    let count = |kind: &str| artifact.entries.iter().filter(|entry| entry.kind == kind).count();
    let of = |number: usize, one: &str, more: &str| format!("{number} {}", if number == 1 { one } else { more });
    format!(
        "build {}: {}, {}, {}, {}, {}",
        artifact.build,
        of(count("model"), "model", "models"),
        of(count("tracked"), "tracked type", "tracked types"),
        of(count("input"), "input", "inputs"),
        of(count("egress"), "egress function", "egress functions"),
        of(count("derived"), "derivation", "derivations"),
    )
}

fn text<'a>(map: &'a Map<String, Json>, key: &str) -> Option<&'a str> {
    map.get(key).and_then(Json::as_str).filter(|text| !text.is_empty())
}

fn list<'a>(map: &'a Map<String, Json>, key: &str) -> &'a [Json] {
    map.get(key)
        .and_then(Json::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// Text out of a file that is not trusted: no control characters reach the terminal.
pub(crate) fn shown(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() || is_bidirectional(c) {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// Characters that make a terminal show text in another order than it has.
fn is_bidirectional(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

//! What a build declares, for people (table, Markdown) and for programs (JSON).

use std::fmt::Write as _;

use provenance::inventory::Entry;
use serde_json::{Map, Value as Json};

use crate::artifact::Artifact;
use crate::declared::{TERMS, Taxon, objects, shown, text, texts};
use crate::inventory_page;

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
    /// One page for a browser or a printer, without anything from elsewhere.
    Html,
}

/// The taxonomy that the build was made with.
pub(crate) fn taxonomy(artifact: &Artifact) -> String {
    let runtime = artifact.entries.iter().find(|entry| entry.kind == "runtime");
    let said = runtime.and_then(|entry| text(&entry.rest, "taxonomy"));
    said.map_or_else(|| "not named".to_owned(), shown)
}

/// The report, ending in a line feed.
pub fn render(artifact: &Artifact, format: Format) -> String {
    match format {
        Format::Json => serde_json::to_string_pretty(&artifact.entries).unwrap_or_default() + "\n",
        Format::Table => table(&rows(artifact), artifact),
        Format::Html => inventory_page::render(artifact),
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
        lines.push(format!("result: {}", Taxon::Category.flagged(category)));
    }
    let table = text(&entry.rest, "table")
        .map(|table| shown(table) + ".")
        .unwrap_or_default();
    for field in objects(&entry.rest, "fields") {
        let name = text(field, "name").unwrap_or("?");
        let category = text(field, "category")
            .map(|key| Taxon::Category.flagged(key))
            .unwrap_or_default();
        lines.push(format!("{table}{}: {category}{}", shown(name), properties(field)));
    }
    for arg in objects(&entry.rest, "args") {
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
        Some(Json::Array(_)) => {
            let allowed: Vec<_> = texts(&entry.rest, "allow")
                .map(|key| Taxon::Category.flagged(key))
                .collect();
            lines.push(format!("allows {}", allowed.join(", ")));
        }
        _ => {}
    }
    for key in TERMS {
        if let Some(value) = text(&entry.rest, key) {
            let value = match key {
                "data_use" => Taxon::DataUse.flagged(value),
                "subject" => Taxon::Subject.flagged(value),
                _ => shown(value),
            };
            lines.push(format!("{}: {value}", key.replace('_', " ")));
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
        let cells = row.each_ref().map(|text| cell(text));
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    let _ = writeln!(out, "\n{}", summary(artifact));
    out
}

/// Text for a cell of a Markdown table: neither markup nor the table's own marks.
pub(crate) fn cell(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            // A name in a comment must not call anybody.
            '@' => out.push_str("&#64;"),
            '\\' | '|' | '*' | '`' | '[' | ']' | '~' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

pub(crate) fn summary(artifact: &Artifact) -> String {
    let count = |kind: &str| artifact.entries.iter().filter(|entry| entry.kind == kind).count();
    let of = |number: usize, one: &str, more: &str| format!("{number} {}", if number == 1 { one } else { more });
    format!(
        "build {}: {}, {}, {}, {}, {}; taxonomy {}",
        artifact.build,
        of(count("model"), "model", "models"),
        of(count("tracked"), "tracked type", "tracked types"),
        of(count("input"), "input", "inputs"),
        of(count("egress"), "egress function", "egress functions"),
        of(count("derived"), "derivation", "derivations"),
        taxonomy(artifact),
    )
}

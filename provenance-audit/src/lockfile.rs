//! `provenance.lock`: what builds declare, a line a fact, to be reviewed like code.
//!
//! TOML, sorted; no places, versions or descriptions, so that it changes only where the personal
//! data does. INVENTORY.md specifies it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use provenance::inventory::Entry;
use serde_json::{Map, Value as Json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::declared::{TERMS, is_bidirectional, objects, place, text, texts};

/// The file's name, beside the workspace's Cargo.toml.
pub const FILE: &str = "provenance.lock";

/// The format that this version writes and reads.
const VERSION: i64 = 1;

/// Most bytes of a file that is read.
const MAX_FILE: usize = 64 << 20;

/// What a fact is about: a section of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A program as a whole.
    Program,
    /// A type with tracked fields.
    Type,
    /// A tracked field.
    Field,
    /// A function that takes input.
    Input,
    /// An argument that comes from a client and cannot be visited.
    Unvisited,
    /// A function that sends.
    Egress,
    /// A function whose result is derived.
    Derivation,
    /// What later versions declare.
    Other,
}

impl Kind {
    const SECTIONS: [(Kind, &'static str); 7] = [
        (Kind::Type, "types"),
        (Kind::Field, "fields"),
        (Kind::Input, "inputs"),
        (Kind::Unvisited, "unvisited"),
        (Kind::Egress, "egress"),
        (Kind::Derivation, "derivations"),
        (Kind::Other, "other"),
    ];

    /// As people call it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Program => "program",
            Kind::Type => "type",
            Kind::Field => "field",
            Kind::Input => "input",
            Kind::Unvisited => "unread argument",
            Kind::Egress => "egress",
            Kind::Derivation => "derivation",
            Kind::Other => "declaration",
        }
    }
}

/// What a line says, by key.
pub type Says = BTreeMap<String, Said>;

/// One value of a line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(untagged)]
pub enum Said {
    /// A text.
    Text(String),
    /// Several texts.
    List(Vec<String>),
    /// Yes or no.
    Flag(bool),
}

/// Where a fact stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as in the workspace.
    pub file: Option<String>,
    /// The line, from 1.
    pub line: Option<usize>,
    /// The package, where the file is source.
    pub package: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Fact {
    says: Says,
    place: Place,
}

/// What one program declares. Two items of one path are two facts of one key.
type Facts = BTreeMap<(Kind, String), Vec<Fact>>;

/// What some programs declare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    programs: BTreeMap<String, Facts>,
}

impl Lock {
    /// Adds a program and what its inventory holds.
    pub fn add(&mut self, program: &str, entries: &[Entry]) {
        let facts = self.programs.entry(program.to_owned()).or_default();
        for entry in entries {
            take(entry, facts);
        }
        for said in facts.values_mut() {
            said.sort_by(|one, other| (&one.says, &one.place).cmp(&(&other.says, &other.place)));
        }
    }

    /// The names of the programs.
    pub fn programs(&self) -> impl Iterator<Item = &str> {
        self.programs.keys().map(String::as_str)
    }

    /// How many facts there are.
    pub fn len(&self) -> usize {
        self.programs.values().flat_map(BTreeMap::values).map(Vec::len).sum()
    }

    /// Whether nothing is declared.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let mut out = format!(
            "# Written by `cargo provenance lock`: what each program declares of personal data.\n\
             # Review it like code, and do not edit it.\nversion = {VERSION}\n"
        );
        for (program, facts) in &self.programs {
            let program = key(program);
            let _ = writeln!(out, "\n[bin.{program}]");
            for (kind, section) in Kind::SECTIONS {
                let mut of_kind = facts.iter().filter(|((of, _), _)| *of == kind).peekable();
                if of_kind.peek().is_none() {
                    continue;
                }
                let _ = writeln!(out, "\n[bin.{program}.{section}]");
                for ((_, path), said) in of_kind {
                    for (index, fact) in said.iter().enumerate() {
                        let path = match index {
                            0 => quoted(path),
                            // A key stands once in TOML.
                            more => quoted(&format!("{path}#{}", more + 1)),
                        };
                        let _ = writeln!(out, "{path} = {}", line(&fact.says));
                    }
                }
            }
        }
        out
    }

    /// Reads a file's text. The places of its facts are lines of the file.
    ///
    /// # Errors
    /// It is no lock file, or one of a later version: a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_FILE {
            return Err("too large to be a lock file".to_owned());
        }
        let file = DeTable::parse(text).map_err(|error| {
            let line = error.span().map_or(1, |span| Reader::of(text).line(span.start));
            format!("line {line}: not TOML: {}", error.message())
        })?;
        let reader = Reader::of(text);
        let mut lock = Lock::default();
        let mut version = None;
        for (name, value) in file.get_ref() {
            match (&**name.get_ref(), value.get_ref()) {
                ("version", DeValue::Integer(number)) => version = number.as_str().parse::<i64>().ok(),
                ("bin", DeValue::Table(programs)) => {
                    for (name, facts) in programs {
                        let facts = reader.facts(reader.table(facts)?)?;
                        lock.programs.insert(name.get_ref().to_string(), facts);
                    }
                }
                (other, _) => return Err(reader.wrong(name.span().start, &format!("unknown key {}", quoted(other)))),
            }
        }
        match version {
            Some(VERSION) => Ok(lock),
            Some(newer) if newer > VERSION => {
                Err(format!("written by a newer version ({newer}); update cargo-provenance"))
            }
            _ => Err("without a version that this program knows".to_owned()),
        }
    }
}

struct Reader {
    /// Where lines end.
    ends: Vec<usize>,
}

impl Reader {
    fn of(text: &str) -> Self {
        Reader {
            ends: text.match_indices('\n').map(|(at, _)| at).collect(),
        }
    }

    /// The line of a byte, from 1.
    fn line(&self, at: usize) -> usize {
        self.ends.partition_point(|end| *end < at) + 1
    }

    fn facts(&self, sections: &DeTable<'_>) -> Result<Facts, String> {
        let mut facts = Facts::new();
        for (name, section) in sections {
            let kind = Kind::SECTIONS
                .iter()
                .find(|(_, section)| section == name.get_ref())
                .map(|(kind, _)| *kind)
                .ok_or_else(|| {
                    self.wrong(
                        name.span().start,
                        &format!("unknown section {}", quoted(name.get_ref())),
                    )
                })?;
            for (key, says) in self.table(section)? {
                let says = self
                    .table(says)?
                    .iter()
                    .map(|(key, value)| Ok((key.get_ref().to_string(), self.said(value)?)))
                    .collect::<Result<Says, String>>()?;
                let place = Place {
                    file: Some(FILE.to_owned()),
                    line: Some(self.line(key.span().start)),
                    package: None,
                };
                let path = without_count(key.get_ref()).to_owned();
                facts.entry((kind, path)).or_default().push(Fact { says, place });
            }
        }
        Ok(facts)
    }

    fn table<'v, 'i>(&self, value: &'v Spanned<DeValue<'i>>) -> Result<&'v DeTable<'i>, String> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(table),
            _ => Err(self.wrong(value.span().start, "expected a table")),
        }
    }

    fn said(&self, value: &Spanned<DeValue<'_>>) -> Result<Said, String> {
        let wrong = || self.wrong(value.span().start, "expected a text, a list of texts, true or false");
        match value.get_ref() {
            DeValue::String(text) => Ok(Said::Text(text.to_string())),
            DeValue::Boolean(flag) => Ok(Said::Flag(*flag)),
            DeValue::Array(list) => {
                let texts = list.iter().map(|item| match item.get_ref() {
                    DeValue::String(text) => Ok(text.to_string()),
                    _ => Err(wrong()),
                });
                Ok(Said::List(texts.collect::<Result<_, _>>()?))
            }
            _ => Err(wrong()),
        }
    }

    fn wrong(&self, at: usize, what: &str) -> String {
        format!("line {}: {what}", self.line(at))
    }
}

/// `crm::send#2` is the second fact of `crm::send`.
fn without_count(key: &str) -> &str {
    match key.rsplit_once('#') {
        Some((path, count)) if !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit()) => path,
        _ => key,
    }
}

/// The facts of one entry. Descriptions are left out: they say nothing that data is.
fn take(entry: &Entry, facts: &mut Facts) {
    let (file, line) = place(entry);
    let place = Place {
        file: file.map(str::to_owned),
        line,
        package: entry.package.clone(),
    };
    let mut note = |kind: Kind, key: String, says: Says| {
        // A path that ends so would be taken for a count.
        let key = match without_count(&key) {
            whole if whole.len() == key.len() => key,
            _ => key + "#",
        };
        let place = place.clone();
        facts.entry((kind, key)).or_default().push(Fact { says, place });
    };
    let path = entry.path.clone();
    let mut says = says(
        &entry.rest,
        &["args", "fields", "table", "owner", "owner_columns", "allow"],
    );
    let mut say = |key: &str, texts: Vec<String>| says.insert(key.to_owned(), Said::List(texts));
    let owned = |key: &str| texts(&entry.rest, key).map(str::to_owned).collect::<Vec<_>>();
    let args: Vec<String> = objects(&entry.rest, "args")
        .map(|arg| {
            let ty = text(arg, "type").unwrap_or("?");
            text(arg, "name").map_or_else(|| ty.to_owned(), |name| format!("{name}: {ty}"))
        })
        .collect();
    match entry.kind.as_str() {
        "model" | "tracked" => {
            let (kinds, columns) = (owned("owner"), owned("owner_columns"));
            if !columns.is_empty() && columns != kinds {
                say("owner_columns", columns);
            }
            if !kinds.is_empty() {
                say("owner", kinds);
            }
            if let Some(table) = text(&entry.rest, "table") {
                says.insert("table".to_owned(), Said::Text(table.to_owned()));
            }
            if entry.kind == "model" {
                says.insert("model".to_owned(), Said::Flag(true));
            }
            for field in objects(&entry.rest, "fields") {
                let name = text(field, "name").unwrap_or("?");
                note(Kind::Field, format!("{path}.{name}"), self::says(field, &["name"]));
            }
            note(Kind::Type, path, says);
        }
        "input" => {
            say("args", args);
            note(Kind::Input, path, says);
        }
        "egress" => {
            if entry.rest.contains_key("allow") {
                let mut allowed = owned("allow");
                allowed.sort();
                say("allow", allowed);
            }
            if !args.is_empty() {
                say("payload", args);
            }
            note(Kind::Egress, path, says);
        }
        "derived" => {
            say("args", args);
            note(Kind::Derivation, path, says);
        }
        "unvisited" => note(Kind::Unvisited, path, says),
        // Which version of the library is no matter of personal data.
        "runtime" => {}
        other => {
            let whole = self::says(&entry.rest, &[]);
            note(Kind::Other, format!("{other} {path}"), whole);
        }
    }
}

/// The members of an object that say something of the data; `null` and defaults are left out.
fn says(map: &Map<String, Json>, without: &[&str]) -> Says {
    map.iter()
        .filter(|(key, _)| *key != "description" && !without.contains(&key.as_str()))
        .filter_map(|(key, value)| {
            let said = match value {
                Json::Null => return None,
                Json::Bool(true) if key == "pii" => return None,
                Json::String(text) if text.is_empty() && TERMS.contains(&key.as_str()) => return None,
                Json::String(text) => Said::Text(text.clone()),
                Json::Bool(flag) => Said::Flag(*flag),
                other => Said::Text(other.to_string()),
            };
            Some((key.clone(), said))
        })
        .collect()
}

/// `{ category = "contact.email" }`.
fn line(says: &Says) -> String {
    match members(says) {
        members if members.is_empty() => "{}".to_owned(),
        members => format!("{{ {members} }}"),
    }
}

/// Members that come before others, in the order in which people ask for them.
const FIRST: [&str; 9] = [
    "recipient",
    "allow",
    "payload",
    "table",
    "owner",
    "category",
    "value_kind",
    "pii",
    "secret",
];

/// `category = "contact.email", pii = false`: a line's members, as the file has them.
pub fn members(says: &Says) -> String {
    let mut members: Vec<_> = says.iter().collect();
    members.sort_by_key(|(name, _)| FIRST.iter().position(|first| first == name).unwrap_or(FIRST.len()));
    let members: Vec<String> = members
        .into_iter()
        .map(|(name, said)| format!("{} = {said}", key(name)))
        .collect();
    members.join(", ")
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Said::Text(text) => f.write_str(&quoted(text)),
            Said::Flag(flag) => flag.fmt(f),
            Said::List(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
                write!(f, "[{}]", texts.join(", "))
            }
        }
    }
}

/// A key, in quotes where TOML needs them.
fn key(name: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !name.is_empty() && name.bytes().all(is_bare) {
        name.to_owned()
    } else {
        quoted(name)
    }
}

/// A TOML text. Nothing in it can make a terminal or a review show something else.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || is_bidirectional(c) || matches!(c, '\u{2028}' | '\u{2029}') => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// What became of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// It was not in the lock.
    New,
    /// It is in the lock alone.
    Lost,
    /// It says something else.
    Changed,
    /// The same under another path.
    Renamed,
}

impl Verb {
    /// As people say it.
    pub fn word(self) -> &'static str {
        match self {
            Verb::New => "new",
            Verb::Lost => "lost",
            Verb::Changed => "changed",
            Verb::Renamed => "renamed",
        }
    }
}

/// One difference between the lock and the builds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where: in the source, or in the lock what is no longer in the source.
    pub place: Place,
    /// What became of it.
    pub verb: Verb,
    /// Of what.
    pub kind: Kind,
    /// Of which: `crm::users::User.email`.
    pub path: String,
    /// Its new path, if it was renamed.
    pub now: Option<String>,
    /// What the lock says.
    pub before: Option<Says>,
    /// What the build says.
    pub after: Option<Says>,
    /// The programs in which it is so.
    pub programs: Vec<String>,
}

/// The differences between what was `locked` and what the programs declare `now`, in order of their
/// places. What is the same in several programs comes once.
pub fn compare(locked: &Lock, now: &Lock) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    let mut known: BTreeMap<_, usize> = BTreeMap::new();
    let names: BTreeSet<&String> = locked.programs.keys().chain(now.programs.keys()).collect();
    for name in names {
        let (old, new) = (locked.programs.get(name), now.programs.get(name));
        let none = Facts::new();
        let mut of_program = differences(old.unwrap_or(&none), new.unwrap_or(&none));
        match (old, new) {
            (None, _) => of_program.push(whole(Verb::New, name)),
            (_, None) => of_program.push(whole(Verb::Lost, name)),
            _ => {}
        }
        for change in of_program {
            let Change {
                verb,
                kind,
                path,
                now,
                before,
                after,
                ..
            } = change.clone();
            // What is lost stands on a line of its own for each program.
            let place = (verb != Verb::Lost).then(|| change.place.clone());
            let at = *known
                .entry((verb, kind, path, now, before, after, place))
                .or_insert(changes.len());
            if at == changes.len() {
                changes.push(change);
            }
            if let Some(change) = changes.get_mut(at)
                && change.programs.last() != Some(name)
            {
                change.programs.push(name.clone());
            }
        }
    }
    sort(&mut changes);
    changes
}

/// Puts changes in order of their places.
pub fn sort(changes: &mut [Change]) {
    changes.sort_by(|one, other| {
        let key = |change: &Change| (change.place.clone(), change.kind, change.path.clone(), change.verb);
        key(one).cmp(&key(other))
    });
}

fn whole(verb: Verb, program: &str) -> Change {
    Change {
        place: Place {
            file: Some(FILE.to_owned()),
            line: Some(1),
            package: None,
        },
        verb,
        kind: Kind::Program,
        path: program.to_owned(),
        now: None,
        before: None,
        after: None,
        programs: Vec::new(),
    }
}

fn differences(old: &Facts, new: &Facts) -> Vec<Change> {
    let renamed = renamed(old, new);
    let paths = |at: fn(&Rename) -> &String| -> BTreeSet<(Kind, &str)> {
        renamed
            .iter()
            .map(|rename| (rename.kind, at(rename).as_str()))
            .collect()
    };
    let (from, to) = (paths(|rename| &rename.from), paths(|rename| &rename.to));
    // Of a type with all its fields.
    let is_of = |paths: &BTreeSet<(Kind, &str)>, kind: Kind, path: &str| match (kind, path.rsplit_once('.')) {
        (Kind::Field, Some((of, _))) => paths.contains(&(Kind::Type, of)),
        _ => paths.contains(&(kind, path)),
    };
    let mut changes = Vec::new();
    let keys: BTreeSet<&(Kind, String)> = old.keys().chain(new.keys()).collect();
    for key in keys {
        let (kind, path) = key;
        let none = Vec::new();
        let (before, after) = (old.get(key).unwrap_or(&none), new.get(key).unwrap_or(&none));
        if (after.is_empty() && is_of(&from, *kind, path)) || (before.is_empty() && is_of(&to, *kind, path)) {
            continue;
        }
        let (mut gone, mut come) = (without(before, after).into_iter(), without(after, before).into_iter());
        loop {
            let (verb, place) = match (gone.next(), come.next()) {
                (None, None) => break,
                (Some(gone), Some(come)) => ((Verb::Changed, Some(&gone.says), Some(&come.says)), come.place.clone()),
                (None, Some(come)) => ((Verb::New, None, Some(&come.says)), come.place.clone()),
                (Some(gone), None) => {
                    let place = place_of_type(*kind, path, new).unwrap_or_else(|| gone.place.clone());
                    ((Verb::Lost, Some(&gone.says), None), place)
                }
            };
            let (verb, before, after) = verb;
            changes.push(Change {
                place,
                verb,
                kind: *kind,
                path: path.clone(),
                now: None,
                before: before.cloned(),
                after: after.cloned(),
                programs: Vec::new(),
            });
        }
    }
    changes.extend(renamed.into_iter().map(|rename| Change {
        place: rename.place,
        verb: Verb::Renamed,
        kind: rename.kind,
        path: rename.from,
        now: Some(rename.to),
        before: None,
        after: None,
        programs: Vec::new(),
    }));
    changes
}

/// The facts of `these` that `those` do not have, counting each as often as it is said.
fn without<'f>(these: &'f [Fact], those: &[Fact]) -> Vec<&'f Fact> {
    let mut rest: Vec<&Says> = those.iter().map(|fact| &fact.says).collect();
    these
        .iter()
        .filter(|fact| match rest.iter().position(|says| **says == fact.says) {
            Some(at) => {
                rest.swap_remove(at);
                false
            }
            None => true,
        })
        .collect()
}

/// A field that is gone is best looked for where its type still is.
fn place_of_type(kind: Kind, path: &str, facts: &Facts) -> Option<Place> {
    let (type_path, _) = path.rsplit_once('.').filter(|_| kind == Kind::Field)?;
    let facts = facts.get(&(Kind::Type, type_path.to_owned()))?;
    Some(facts.first()?.place.clone())
}

struct Rename {
    kind: Kind,
    from: String,
    to: String,
    place: Place,
}

/// What has gone under one path and come under another, and says the same: a type with all its fields, a
/// function. Only where nothing else could be meant.
fn renamed(old: &Facts, new: &Facts) -> Vec<Rename> {
    let mut alike: BTreeMap<(Kind, Content<'_>), [Vec<&str>; 2]> = BTreeMap::new();
    for (side, (these, those)) in [(old, new), (new, old)].into_iter().enumerate() {
        for (kind, path) in these.keys().filter(|key| !those.contains_key(key)) {
            if matches!(kind, Kind::Type | Kind::Input | Kind::Egress | Kind::Derivation) {
                let paths = alike.entry((*kind, content(these, *kind, path))).or_default();
                if let Some(paths) = paths.get_mut(side) {
                    paths.push(path);
                }
            }
        }
    }
    let mut renames = Vec::new();
    for ((kind, content), [gone, come]) in &alike {
        let last = |path: &str| path.rsplit("::").next().map(str::to_owned);
        for from in gone {
            let moved = |paths: &[&str]| paths.iter().filter(|path| last(path) == last(from)).count() == 1;
            let to = match (&**gone, &**come) {
                ([_], [to]) if says_something(content) || last(from) == last(to) => Some(to),
                // Of several that are alike, those that kept their names in another module.
                _ if moved(gone) && moved(come) => come.iter().find(|to| last(to) == last(from)),
                _ => None,
            };
            if let Some(to) = to
                && let Some(fact) = new.get(&(*kind, (*to).to_owned())).and_then(|facts| facts.first())
            {
                renames.push(Rename {
                    kind: *kind,
                    from: (*from).to_owned(),
                    to: (*to).to_owned(),
                    place: fact.place.clone(),
                });
            }
        }
    }
    renames
}

/// All that is said of an item, without its path: its own line first, then those of its fields by name.
type Content<'f> = Vec<(&'f str, Vec<&'f Says>)>;

fn content<'f>(facts: &'f Facts, kind: Kind, path: &str) -> Content<'f> {
    let says = |facts: &'f [Fact]| facts.iter().map(|fact| &fact.says).collect::<Vec<_>>();
    let own = facts.get(&(kind, path.to_owned())).map(|facts| ("", says(facts)));
    let begins = format!("{path}.");
    let fields = facts
        .range((Kind::Field, begins.clone())..)
        .take_while(|((of, key), _)| kind == Kind::Type && *of == Kind::Field && key.starts_with(&begins))
        .filter_map(|((_, key), facts)| Some((key.get(begins.len()..)?, says(facts))));
    own.into_iter().chain(fields).collect()
}

/// Two functions of which nothing is said need not be the same one.
fn says_something(content: &Content<'_>) -> bool {
    let of_line = |says: &&Says| says.values().any(|said| *said != Said::List(Vec::new()));
    content.len() > 1 || content.iter().flat_map(|(_, lines)| lines).any(of_line)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use provenance::inventory;

    use super::*;

    /// The lock of one program that has these lines in its inventory, on lines 1, 2, 3 of `src/lib.rs`.
    fn lock(lines: &[&str]) -> Lock {
        let section: String = lines
            .iter()
            .zip(1..)
            .map(|(line, at)| format!("{{\"v\":1,\"at\":\"src/lib.rs:{at}\",\"crate\":\"crm\",{line}}}\n"))
            .collect();
        let mut lock = Lock::default();
        lock.add("crm", &inventory::parse(section.as_bytes()).unwrap());
        lock
    }

    /// What became of what, in words.
    fn changes(old: &[&str], new: &[&str]) -> Vec<String> {
        // The old one as it comes from the file.
        let old = Lock::parse(&lock(old).text()).unwrap();
        let say = |change: Change| {
            let now = change.now.map(|now| format!(" -> {now}")).unwrap_or_default();
            let line = change.place.line.unwrap();
            let file = change.place.file.unwrap();
            format!(
                "{file}:{line} {} {} {}{now}",
                change.verb.word(),
                change.kind.word(),
                change.path
            )
        };
        compare(&old, &lock(new)).into_iter().map(say).collect()
    }

    const SEND: &str = r#""kind":"egress","path":"crm::send","recipient":"post","args":[{"name":null,"type":"& str"}]"#;
    const OTHER_SEND: &str = r#""kind":"egress","path":"crm::send","recipient":null,"args":[]"#;
    const EMPTY: &str = r#""kind":"input","path":"crm::a","args":[]"#;

    fn tracked(path: &str, fields: &[(&str, &str)]) -> String {
        let fields = fields.iter().map(|(name, category)| {
            format!(r#"{{"name":"{name}","category":"{category}","description":"d","value_kind":null,"pii":true,"secret":null}}"#)
        });
        let fields: Vec<String> = fields.collect();
        format!(
            r#""kind":"tracked","path":"{path}","fields":[{}],"owner":[]"#,
            fields.join(",")
        )
    }

    #[test]
    fn what_stays_is_no_change_wherever_it_stands() {
        let user = tracked("crm::User", &[("email", "contact.email")]);
        assert!(changes(&[SEND, &user, OTHER_SEND], &[&user, OTHER_SEND, SEND]).is_empty());
        // Two of one path are told apart by what they say, and may say the same.
        assert!(changes(&[SEND, SEND, OTHER_SEND], &[OTHER_SEND, SEND, SEND]).is_empty());
        assert_eq!(
            changes(&[SEND, SEND], &[SEND]),
            ["provenance.lock:9 lost egress crm::send"]
        );
        assert_eq!(changes(&[SEND], &[SEND, SEND]), ["src/lib.rs:2 new egress crm::send"]);
        let reworded = user.replace("\"d\"", "\"another description\"");
        assert!(changes(&[&user], &[&reworded]).is_empty());
    }

    #[test]
    fn fields_are_followed_one_by_one() {
        let before = tracked("crm::User", &[("email", "contact.email"), ("name", "user.name")]);
        let after = tracked("crm::User", &[("email", "contact.phone"), ("age", "x.age")]);
        assert_eq!(
            changes(&[&before], &[&after]),
            [
                "src/lib.rs:1 new field crm::User.age",
                "src/lib.rs:1 changed field crm::User.email",
                "src/lib.rs:1 lost field crm::User.name",
            ]
        );
    }

    #[test]
    fn a_rename_is_one_change_where_nothing_else_could_be_meant() {
        let fields = [("email", "contact.email"), ("name", "user.name")];
        let (user, customer) = (tracked("crm::User", &fields), tracked("crm::Customer", &fields));
        assert_eq!(
            changes(&[&user], &[&customer]),
            ["src/lib.rs:1 renamed type crm::User -> crm::Customer"]
        );
        // Another type that begins alike keeps its fields.
        let users = tracked("crm::Users", &[("email", "contact.email")]);
        assert_eq!(
            changes(&[&user, &users], &[&customer]),
            [
                "provenance.lock:9 lost type crm::Users",
                "provenance.lock:14 lost field crm::Users.email",
                "src/lib.rs:1 renamed type crm::User -> crm::Customer",
            ]
        );
        // One that changed as well is another type.
        let other = tracked("crm::Customer", &fields[..1]);
        assert_eq!(changes(&[&user], &[&other]).len(), 5);
        // Two candidates; then two that have kept their names in another module.
        let two = [customer.clone(), tracked("crm::Person", &fields)];
        assert_eq!(changes(&[&user], &[&two[0], &two[1]]).len(), 3 + 6);
        let moved = [
            tracked("crm::new::User", &fields),
            tracked("crm::new::Customer", &fields),
        ];
        assert_eq!(
            changes(&[&user, &customer], &[&moved[0], &moved[1]]),
            [
                "src/lib.rs:1 renamed type crm::User -> crm::new::User",
                "src/lib.rs:2 renamed type crm::Customer -> crm::new::Customer",
            ]
        );
        // Functions that say nothing are not the same because of that.
        let other = EMPTY.replace("crm::a", "crm::b");
        assert_eq!(changes(&[EMPTY], &[&other]).len(), 2);
    }

    #[test]
    fn what_is_the_same_in_two_programs_comes_once() {
        let mut now = lock(&[SEND]);
        let shared = now.clone();
        now.programs.insert("worker".to_owned(), shared.programs["crm"].clone());
        let mut locked = Lock::default();
        locked.add("crm", &[]);
        locked.add("worker", &[]);
        let changes = compare(&locked, &now);
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].programs, ["crm", "worker"]);
        // Gone from both: two lines of the file, one change.
        let locked = Lock::parse(&now.text()).unwrap();
        let mut none = Lock::default();
        none.add("crm", &[]);
        none.add("worker", &[]);
        assert_eq!(compare(&locked, &none).len(), 1);
    }

    #[test]
    fn programs_come_and_go() {
        let mut two = lock(&[SEND]);
        two.add("version", &[]);
        let one = lock(&[SEND]);
        let words = |old: &Lock, new: &Lock| -> Vec<_> {
            compare(old, new)
                .into_iter()
                .map(|change| (change.verb, change.kind, change.path))
                .collect()
        };
        assert_eq!(words(&one, &two), [(Verb::New, Kind::Program, "version".to_owned())]);
        assert_eq!(words(&two, &one), [(Verb::Lost, Kind::Program, "version".to_owned())]);
        assert_eq!(Lock::parse(&two.text()).unwrap().text(), two.text());
    }

    #[track_caller]
    fn refused(text: &str, why: &str) {
        let error = Lock::parse(text).unwrap_err();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn what_is_no_lock_file_is_refused() {
        refused("", "without a version");
        refused("version = 2\n[bin.crm.wishes]\n", "line 2: unknown section \"wishes\"");
        refused("version = 2\n", "written by a newer version (2)");
        refused("version = 1\ncolour = 1\n", "line 2: unknown key \"colour\"");
        refused("version = 1\n<<<<<<< ours\n", "line 2: not TOML");
        refused(
            "version = 1\n[bin.crm.types]\n\"a\" = {}\n\"a\" = {}\n",
            "line 4: not TOML",
        );
        refused("version = 1\n[bin.crm.types]\n\"a\" = 1\n", "line 3: expected a table");
        refused(
            "version = 1\n[bin.crm.types]\n\"a\" = { b = 1 }\n",
            "line 3: expected a text",
        );
        refused(&"[".repeat(100_000), "not TOML");
    }

    proptest! {
        /// Whatever an inventory holds, the file is read as it was written, and no line of it hides anything.
        #[test]
        fn a_file_is_read_as_it_was_written(
            program in ".{0,20}",
            items in proptest::collection::vec((".{0,12}(#[0-9]{1,2})?", ".{0,12}", ".{0,12}"), 0..8),
        ) {
            let mut section = String::new();
            for (at, (path, key, value)) in items.iter().enumerate() {
                let entry = serde_json::json!({
                    "v": 1, "kind": "egress", "path": path, "at": format!("a:{at}"), "recipient": value, "allow": [key], key: value,
                });
                if !matches!(key.as_str(), "v" | "kind" | "path" | "at" | "crate") {
                    section += &(entry.to_string() + "\n");
                }
            }
            let mut lock = Lock::default();
            lock.add(&program, &inventory::parse(section.as_bytes()).unwrap());
            let text = lock.text();
            let read = Lock::parse(&text).unwrap();
            prop_assert_eq!(read.text(), text.clone());
            prop_assert_eq!(compare(&read, &lock), Vec::new());
            prop_assert_eq!(lock.len(), items.len());
            prop_assert!(!text.contains(|c: char| (c.is_control() && c != '\n') || is_bidirectional(c)));
        }
    }
}

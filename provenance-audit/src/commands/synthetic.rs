//! Somebody who does not exist, and the requests that they make.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use provenance::Timestamp;
use provenance::inventory::{Entry, canonical_category};
use serde_json::{Map, Value as Json};
use sha2::{Digest, Sha256};

use super::output::listed;
use crate::export::text;

/// Stands among a probe's parameters for all fields that the route's input declares.
const THE_REST: &str = "..";

/// Who does not exist. Domain and numbers are reserved: they are nobody's.
pub(super) struct Person {
    pub(super) tag: String,
}

impl Person {
    pub(super) fn new() -> Self {
        // Unlike any other run's: nothing here is a secret.
        let seed = format!("{:?} {} {:?}", Timestamp::now(), std::process::id(), Instant::now());
        let hash = Sha256::digest(seed);
        Person {
            tag: hash.iter().take(5).map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    pub(super) fn email(&self) -> String {
        format!("provenance-probe-{}@example.invalid", self.tag)
    }

    /// `{email}`, `{word.goals}`: each name behind a dot has a value of its own.
    fn value(&self, mark: &str) -> Option<String> {
        let hash = Sha256::digest(format!("{} {mark}", self.tag));
        let mut bytes = hash.iter().copied();
        let mut below = |most: u32| {
            let (high, low) = (bytes.next().unwrap_or(0), bytes.next().unwrap_or(0));
            u32::from(u16::from_be_bytes([high, low])) % most
        };
        let mut letters = || -> String {
            (0..8)
                .map(|_| char::from(b'a' + u8::try_from(below(26)).unwrap_or(0)))
                .collect()
        };
        Some(match mark.split_once('.').map_or(mark, |(kind, _)| kind) {
            "email" => self.email(),
            "name" => format!("Probe {}", capital(&letters())),
            "word" => format!("probe{}", letters()),
            "phone" => format!("+1 202 555 01{:02}", below(100)),
            "number" => (100_000 + below(65_536) * 7).to_string(),
            "date" => format!("19{}-0{}-1{}", 50 + below(50), 1 + below(9), below(10)),
            _ => return None,
        })
    }

    /// The text with this person's values for its marks.
    pub(super) fn filled(&self, text: &str) -> String {
        let (mut out, mut rest) = (String::new(), text);
        while let Some((before, mark, after)) = next_mark(rest) {
            out.push_str(before);
            match self.value(mark) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push('{');
                    out.push_str(mark);
                    out.push('}');
                }
            }
            rest = after;
        }
        out + rest
    }
}

/// What stands before the first `{mark}`, the mark, and the rest.
fn next_mark(text: &str) -> Option<(&str, &str, &str)> {
    let (before, after) = text.split_once('{')?;
    let (mark, after) = after.split_once('}')?;
    Some((before, mark, after))
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

/// One request, as it was asked for.
pub(super) struct Probe {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) parameters: Vec<(String, String)>,
    /// Whether the fields that are declared for the route are sent, too.
    wants_declared: bool,
}

impl Probe {
    /// `POST /signup email={email} currency=EUR`, or `POST:/signup ..`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            Err(format!(
                "--probe: {what}; write METHOD PATH NAME=VALUE.., such as 'POST /signup email={{email}} name={{name}}'"
            ))
        };
        let mut words = text.split_whitespace().flat_map(|word| match word.split_once(":/") {
            Some((method, _)) if is_method(method) => {
                let (method, path) = word.split_at(method.len());
                vec![method, path.trim_start_matches(':')]
            }
            _ => vec![word],
        });
        let (Some(method), Some(path)) = (words.next(), words.next()) else {
            return wrong("there is no method, or no path");
        };
        if !is_method(method) {
            return wrong("the method is not in capitals");
        }
        if !path.starts_with('/') {
            return wrong("the path does not begin with /");
        }
        let mut probe = Probe {
            method: method.to_owned(),
            path: path.to_owned(),
            parameters: Vec::new(),
            wants_declared: false,
        };
        for word in words {
            if word == THE_REST {
                probe.wants_declared = true;
                continue;
            }
            let Some((name, value)) = word.split_once('=').filter(|(name, _)| !name.is_empty()) else {
                return wrong("a parameter has no = in it");
            };
            probe.parameters.push((name.to_owned(), value.to_owned()));
        }
        Ok(probe)
    }

    pub(super) fn route(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// The parameters that are this person's.
    pub(super) fn marked(&self) -> impl Iterator<Item = &(String, String)> {
        let marked = |value: &str| next_mark(value).is_some();
        self.parameters.iter().filter(move |(_, value)| marked(value))
    }

    /// Takes in the fields that the inventory has for this route, where they were asked for; says whose they are.
    /// `served` tells which inputs were seen to serve which routes.
    pub(super) fn complete(
        &mut self,
        declared: &[Entry],
        served: &BTreeMap<String, BTreeSet<String>>,
    ) -> Result<Option<String>, String> {
        if !self.wants_declared {
            return Ok(None);
        }
        let source = format!("HTTP {}", self.route());
        let inputs: Vec<&Entry> = declared.iter().filter(|entry| entry.kind == "input").collect();
        let known = |input: &&&Entry| served.get(&input.path).is_some_and(|routes| routes.contains(&source));
        let by_name = |input: &&&Entry| is_named_after(&self.path, input);
        let mut found: Vec<&&Entry> = inputs.iter().filter(known).collect();
        if found.is_empty() {
            found = inputs.iter().filter(by_name).collect();
        }
        let [input] = found.as_slice() else {
            let named = inputs.iter().map(|input| input.path.clone()).collect::<BTreeSet<_>>();
            return Err(format!(
                "--probe: which of the declared inputs serves {} is not known, so `..` stands for nothing: name its \
                 fields, or send one request by hand first (inputs: {})",
                self.route(),
                listed(&named)
            ));
        };
        for field in fields(declared, input) {
            let name = text(field, "name");
            if !self.parameters.iter().any(|(known, _)| known == name) {
                self.parameters.push((name.to_owned(), usual(field)));
            }
        }
        Ok(Some(input.path.clone()))
    }
}

fn is_method(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// Whether an input's name or type has the last word of the path in it: `/expenses` and `add_expense`.
fn is_named_after(path: &str, input: &Entry) -> bool {
    let path = path.split('?').next().unwrap_or_default();
    let mut words = path
        .rsplit('/')
        .filter(|word| !word.is_empty() && !word.starts_with(['{', ':']));
    let Some(word) = words.next() else { return false };
    let word: String = word.chars().filter(char::is_ascii_alphanumeric).collect();
    let word = word.to_ascii_lowercase();
    let word = word.strip_suffix('s').unwrap_or(&word);
    let function = input.path.rsplit("::").next().unwrap_or_default();
    let types = args(input).map(|arg| text(arg, "type"));
    word.len() > 2
        && std::iter::once(function)
            .chain(types)
            .any(|name| name.replace('_', "").to_ascii_lowercase().contains(word))
}

fn args(input: &Entry) -> impl Iterator<Item = &Map<String, Json>> {
    objects(input, "args")
}

fn objects<'e>(entry: &'e Entry, key: &str) -> impl Iterator<Item = &'e Map<String, Json>> {
    let listed = entry.rest.get(key).and_then(Json::as_array);
    listed.into_iter().flatten().filter_map(Json::as_object)
}

/// The declared fields of the types that an input takes.
fn fields<'e>(declared: &'e [Entry], input: &Entry) -> Vec<&'e Map<String, Json>> {
    let package = |entry: &Entry| entry.path.split("::").next().map(str::to_owned);
    let words: BTreeSet<&str> = args(input)
        .flat_map(|arg| text(arg, "type").split(|c: char| !c.is_alphanumeric() && c != '_'))
        .collect();
    let types = declared.iter().filter(|entry| {
        entry.kind == "tracked"
            && package(entry) == package(input)
            && entry.path.rsplit("::").next().is_some_and(|name| words.contains(name))
    });
    types.flat_map(|entry| objects(entry, "fields")).collect()
}

/// What a field like this usually takes.
fn usual(field: &Map<String, Json>) -> String {
    let (name, kind) = (text(field, "name"), text(field, "value_kind"));
    let category = canonical_category(text(field, "category")).into_owned();
    let says = |word: &str| category.contains(word) || name.to_ascii_lowercase().contains(word);
    let mark = match kind {
        _ if says("currency") => return "EUR".to_owned(),
        _ if says("password") => "word",
        "email" | "phone" | "date" | "number" => return of_kind(kind, name),
        _ if says("email") => "email",
        _ if says("phone") => "phone",
        _ if says("birth") || says("date") => "date",
        _ if says("financial") || says("income") || says("amount") => "number",
        _ if says("name") => "name",
        _ => "word",
    };
    of_kind(mark, name)
}

fn of_kind(mark: &str, name: &str) -> String {
    match mark {
        "word" | "number" => format!("{{{mark}.{name}}}"),
        mark => format!("{{{mark}}}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn marks_are_filled_and_other_braces_stay() {
        let person = Person { tag: "0a1b".to_owned() };
        assert_eq!(person.filled("{email}"), "provenance-probe-0a1b@example.invalid");
        assert_eq!(person.filled("{}{x}{ {"), "{}{x}{ {");
        assert_eq!(person.filled("a{word}b{word}"), person.filled("a{word}b{word}"));
        assert_ne!(person.filled("{word.a}"), person.filled("{word.b}"));
        let phone = person.filled("{phone}");
        assert!(phone.starts_with("+1 202 555 01") && phone.len() == 15, "{phone}");
    }

    #[test]
    fn declared_fields_are_those_of_the_inputs_types() {
        let section = [
            r#"{"v":1,"kind":"input","path":"crm::api::add_expense","args":[{"name":null,"type":"Form<Wrap<Expense>>"}]}"#,
            r#"{"v":1,"kind":"input","path":"crm::api::signup","args":[{"name":null,"type":"Json<Signup>"}]}"#,
            r#"{"v":1,"kind":"tracked","path":"crm::Expense","fields":[{"name":"amount","category":"financial.expense"},{"name":"note","category":"x.note"}]}"#,
            r#"{"v":1,"kind":"tracked","path":"other::Expense","fields":[{"name":"wrong","category":"x.note"}]}"#,
        ];
        let declared = provenance::inventory::parse((section.join("\n") + "\n").as_bytes()).unwrap();
        let mut probe = Probe::parse("POST:/expenses note=lunch ..").unwrap();
        let whose = probe.complete(&declared, &BTreeMap::new()).unwrap();
        assert_eq!(whose.as_deref(), Some("crm::api::add_expense"));
        let sent = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            probe.parameters,
            [sent("note", "lunch"), sent("amount", "{number.amount}")]
        );
        // By what was seen, rather than by name.
        let served = BTreeMap::from([(
            "crm::api::signup".to_owned(),
            BTreeSet::from(["HTTP POST /expenses".to_owned()]),
        )]);
        let mut probe = Probe::parse("POST /expenses ..").unwrap();
        assert_eq!(
            probe.complete(&declared, &served).unwrap().as_deref(),
            Some("crm::api::signup")
        );
        let mut probe = Probe::parse("POST /x ..").unwrap();
        assert!(
            probe
                .complete(&declared, &BTreeMap::new())
                .unwrap_err()
                .contains("crm::api::signup")
        );
    }
}

//! From a section's bytes to entries. The bytes may come from any file: nothing in them is trusted.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};
use sha2::{Digest, Sha256};

use super::section;
use crate::Error;
use crate::config::Config;
use crate::error::ErrorKind;

/// The format that this version writes and reads.
const VERSION: u64 = 1;

/// Most bytes of one entry; a model of a thousand fields has a fifth of that.
const MAX_LINE: usize = 1 << 20;

/// Most bytes of a section.
const MAX_SECTION: usize = 64 << 20;

/// One use of an attribute, as it stands in the program. Serialises to the JSON of INVENTORY.md.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Entry {
    /// `model`, `tracked`, `input`, `unvisited`, `egress`, `derived`, or `runtime` for this crate itself; later versions may add more.
    pub kind: String,
    /// Module path and item, `crm::users::User`.
    pub path: String,
    /// Source file and line, `src/users.rs:12`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// The package that declares it.
    #[serde(rename = "crate", skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Everything else that the attribute says: `table`, `fields`, `recipient`, ...
    #[serde(flatten)]
    pub rest: Map<String, Json>,
}

/// What this program declares, in order of kind, path and place.
///
/// Empty where the platform gives no way to read it at run time (this works on ELF: Linux,
/// Android, the BSDs); `cargo provenance inventory` reads the file on the others too.
pub fn inventory() -> Vec<Entry> {
    let entries = lines(section::bytes()).filter_map(|line| entry(line).ok());
    sorted(entries.collect())
}

/// How many copies of this crate were linked into the running program. More than one means that
/// attributes of different copies report to different trackers.
pub fn runtimes() -> usize {
    inventory().iter().filter(|entry| entry.kind == "runtime").count()
}

/// Names in `config.tracked_models` that no model in `entries` serves, by its type or its table.
/// None where there are no entries: not even this crate's own, so they cannot be read here.
pub fn models_without_hook(config: &Config, entries: &[Entry]) -> Vec<String> {
    config
        .tracked_models
        .keys()
        .filter(|name| !entries.is_empty() && !entries.iter().any(|entry| serves(entry, name)))
        .cloned()
        .collect()
}

/// Arguments that come from a client and cannot be visited: `crm::signup(form: Form<Signup>)`.
pub(crate) fn unvisited(entries: &[Entry]) -> Vec<String> {
    let unvisited = entries.iter().filter(|entry| entry.kind == "unvisited");
    unvisited.map(|entry| entry.path.clone()).collect()
}

/// Whether an entry is the model of this name: of its type, with or without its path, or of its table.
pub(crate) fn serves(entry: &Entry, name: &str) -> bool {
    let named = |key: &str| entry.rest.get(key).and_then(Json::as_str) == Some(name);
    entry.kind == "model"
        && (named("table") || named("model") || entry.path.rsplit("::").next() == Some(name) || entry.path == name)
}

/// Reads the bytes of an inventory section, as found in a program's file.
///
/// Entries come in order of kind, path and place. Kinds and keys that this version does not
/// know are kept.
///
/// # Errors
/// [`Error::is_inventory`]: the section is cut off, too large, written by a newer version, holds
/// something else, or says two things of one item.
pub fn parse(section: &[u8]) -> Result<Vec<Entry>, Error> {
    if section.len() > MAX_SECTION {
        return Err(wrong("the inventory section is too large to be one"));
    }
    let last = section.iter().rfind(|byte| **byte != 0);
    if last.is_some_and(|byte| *byte != b'\n') {
        return Err(wrong("the inventory section is cut off: its last entry has no end"));
    }
    let entries = lines(section)
        .enumerate()
        .map(|(index, line)| entry(line).map_err(|what| wrong(format!("inventory entry {}: {what}", index + 1))))
        .collect::<Result<Vec<_>, _>>()?;
    let entries = sorted(entries);
    for pair in entries.windows(2) {
        if let [one, other] = pair
            && one.kind != "runtime"
            && place(one) == place(other)
        {
            return Err(wrong(format!(
                "two inventory entries of kind `{}` say different things of `{}` at {}; give each a `name = \"..\"` of its own",
                one.kind.escape_debug(),
                one.path.escape_debug(),
                one.at.as_deref().unwrap_or("one place").escape_debug()
            )));
        }
    }
    Ok(entries)
}

/// The name of a build: the first 16 hex digits of the SHA-256 over the section's distinct
/// lines, sorted by bytes, each with its line feed.
pub fn hash(section: &[u8]) -> String {
    let mut lines: Vec<_> = lines(section).collect();
    lines.sort_unstable();
    lines.dedup();
    let mut hash = Sha256::new();
    for line in lines {
        hash.update(line);
        hash.update(b"\n");
    }
    let digest = hash.finalize();
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Hash of this program's inventory: names the build on every event. Empty where it cannot be read.
pub(crate) fn build_hash() -> String {
    match section::bytes() {
        [] => String::new(),
        section => hash(section),
    }
}

/// Linkers pad with zeros, between entries too.
fn lines(section: &[u8]) -> impl Iterator<Item = &[u8]> {
    section
        .split(|byte| matches!(byte, 0 | b'\n'))
        .filter(|line| !line.is_empty())
}

fn entry(line: &[u8]) -> Result<Entry, &'static str> {
    if line.len() > MAX_LINE {
        return Err("too long");
    }
    // serde_json follows at most 128 levels.
    let Ok(Json::Object(mut rest)) = serde_json::from_slice(line) else {
        return Err("not a JSON object");
    };
    match rest.remove("v").as_ref().and_then(Json::as_u64) {
        Some(VERSION) => {}
        Some(newer) if newer > VERSION => return Err("written by a newer version; update the reader"),
        _ => return Err("without a version"),
    }
    let mut text = |key: &str| match rest.remove(key) {
        Some(Json::String(text)) => Ok(Some(text)),
        Some(_) => Err("`kind`, `path`, `at` and `crate` must be text"),
        None => Ok(None),
    };
    Ok(Entry {
        kind: text("kind")?.ok_or("without a `kind`")?,
        path: text("path")?.ok_or("without a `path`")?,
        at: text("at")?,
        package: text("crate")?,
        rest,
    })
}

/// The linker's order means nothing. What is said twice in the same words counts once, but
/// for runtimes, where twice means two copies.
fn sorted(mut entries: Vec<Entry>) -> Vec<Entry> {
    let words =
        |entry: &Entry| serde_json::to_string(&entry.rest.iter().collect::<BTreeMap<_, _>>()).unwrap_or_default();
    entries.sort_by_cached_key(|entry| {
        let (kind, path, file, line) = place(entry);
        (kind.to_owned(), path.to_owned(), file.to_owned(), line, words(entry))
    });
    entries.dedup_by(|one, other| one == other && one.kind != "runtime");
    entries
}

/// What no two entries share: kind, path, file and line.
fn place(entry: &Entry) -> (&str, &str, &str, u64) {
    let at = entry.at.as_deref().unwrap_or_default();
    let (file, line) = at.rsplit_once(':').unwrap_or((at, ""));
    (&entry.kind, &entry.path, file, line.parse().unwrap_or_default())
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Inventory, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::TrackedModel;

    fn model(path: &str, line: u32, table: &str) -> String {
        format!(r#"{{"v":1,"kind":"model","path":"{path}","at":"src/m.rs:{line}","crate":"crm","table":"{table}"}}"#)
            + "\n"
    }

    #[track_caller]
    fn refused(section: &[u8], why: &str) {
        let error = parse(section).unwrap_err();
        assert!(error.is_inventory());
        assert!(error.to_string().contains(why), "{error}");
    }

    #[test]
    fn padding_is_skipped_and_order_does_not_matter() {
        let (one, two) = (model("crm::A", 9, "a"), model("crm::A", 10, "b"));
        let section = [b"\0\0", one.as_bytes(), b"\0\0\0", two.as_bytes(), b"\0"].concat();
        let reversed = [two.as_bytes(), one.as_bytes(), one.as_bytes()].concat();
        let entries = parse(&section).unwrap();
        assert_eq!(entries, parse(&reversed).unwrap());
        assert_eq!(
            entries.iter().map(|e| e.at.clone().unwrap()).collect::<Vec<_>>(),
            ["src/m.rs:9", "src/m.rs:10"]
        );
        assert_eq!(hash(&section), hash(&reversed));
        assert_ne!(hash(&section), hash(one.as_bytes()));
    }

    #[test]
    fn the_hash_is_what_the_specification_says() {
        // printf '{"v":1}\n' | sha256sum
        assert_eq!(hash(b"\0{\"v\":1}\n\0\0{\"v\":1}\n"), "2b4248702881de2f".to_owned());
    }

    #[test]
    fn unknown_kinds_and_keys_are_kept() {
        let entries =
            parse(b"{\"v\":1,\"kind\":\"telepathy\",\"path\":\"a::b\",\"waves\":[1,{\"x\":null}]}\n").unwrap();
        assert_eq!(
            serde_json::to_string(&entries).unwrap(),
            r#"[{"kind":"telepathy","path":"a::b","waves":[1,{"x":null}]}]"#
        );
    }

    #[test]
    fn what_is_not_an_inventory_is_refused() {
        refused(&model("crm::A", 1, "a").as_bytes()[..40], "cut off");
        refused(b"hello\n", "entry 1: not a JSON object");
        refused(b"[1]\n", "not a JSON object");
        refused(b"\xff\xfe\n", "not a JSON object");
        refused(b"{\"kind\":\"model\",\"path\":\"a\"}\n", "without a version");
        refused(b"{\"v\":2,\"kind\":\"model\",\"path\":\"a\"}\n", "newer version");
        refused(b"{\"v\":1,\"path\":\"a\"}\n", "without a `kind`");
        refused(b"{\"v\":1,\"kind\":\"model\",\"path\":7}\n", "must be text");
        refused(format!("{}\n", "[".repeat(10_000)).as_bytes(), "not a JSON object");
        refused(&vec![b'a'; MAX_SECTION + 1], "too large");
        let two_tables = model("crm::A", 1, "a") + &model("crm::A", 1, "b");
        refused(two_tables.as_bytes(), "say different things of `crm::A` at src/m.rs:1");
    }

    #[test]
    fn two_runtimes_are_both_kept() {
        let runtime = "{\"v\":1,\"kind\":\"runtime\",\"path\":\"provenance\",\"version\":\"0.1.0\"}\n";
        assert_eq!(parse(runtime.repeat(2).as_bytes()).unwrap().len(), 2);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_program_names_its_runtime() {
        assert_eq!(runtimes(), 1);
        assert_eq!(build_hash().len(), 16);
    }

    #[test]
    fn configured_models_without_a_hook_are_named() {
        let nothing = TrackedModel {
            fields: BTreeMap::new(),
        };
        let names = ["User", "users", "crm::User", "accounts", "Use", "sers"];
        let config = Config {
            tracked_models: names.map(|name| (name.to_owned(), nothing.clone())).into(),
            ..Config::default()
        };
        let entries = parse(model("crm::User", 1, "users").as_bytes()).unwrap();
        assert_eq!(models_without_hook(&config, &entries), ["Use", "accounts", "sers"]);
    }
}

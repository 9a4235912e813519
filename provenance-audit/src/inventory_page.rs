//! What a build declares, as one page for a browser or a printer: no script, nothing from elsewhere.

use maud::{Markup, html};
use provenance::inventory::Entry;
use serde_json::{Map, Value as Json};

use crate::artifact::Artifact;
use crate::declared::{TERMS, Taxon, UnknownKey, objects, shown, text, texts, unknown_keys};
use crate::inventory_report::taxonomy;
use crate::sheet;

const STYLE: &str = include_str!("inventory_page.css");

/// A part of the page: the kinds of entries in it, its anchor, its title, what an empty one says.
struct Part {
    kinds: &'static [&'static str],
    id: &'static str,
    title: &'static str,
    empty: &'static str,
    show: fn(&Entry) -> Markup,
}

const PARTS: [Part; 5] = [
    Part {
        kinds: &["egress"],
        id: "egress",
        title: "Who it is sent to",
        empty: "No function is declared to send anything.",
        show: egress,
    },
    Part {
        kinds: &["input", "unvisited"],
        id: "inputs",
        title: "Where it comes in",
        empty: "No function is declared to take input.",
        show: function,
    },
    Part {
        kinds: &["model"],
        id: "models",
        title: "Where it is stored",
        empty: "No database model is declared.",
        show: fields,
    },
    Part {
        kinds: &["tracked"],
        id: "types",
        title: "What else carries it",
        empty: "No other type is declared.",
        show: fields,
    },
    Part {
        kinds: &["derived"],
        id: "derived",
        title: "What is derived from it",
        empty: "No derivation is declared.",
        show: function,
    },
];

/// The page. Everything that the program's file says is escaped.
pub fn render(artifact: &Artifact) -> String {
    let program = shown(&artifact.program);
    let unknown = unknown_keys(&artifact.entries);
    let of = |part: &Part| -> Vec<&Entry> {
        let is_of = |entry: &&Entry| part.kinds.contains(&entry.kind.as_str());
        artifact.entries.iter().filter(is_of).collect()
    };
    let known = |kind: &str| kind == "runtime" || PARTS.iter().any(|part| part.kinds.contains(&kind));
    let others: Vec<&Entry> = artifact.entries.iter().filter(|entry| !known(&entry.kind)).collect();
    let body = html! {
        header {
            h1 { "Personal data in " code { (program) } }
            p {
                "What the source declares, as this build carries it. What the program then did stands in its "
                "evidence; the two can be compared by the build’s name."
            }
            dl {
                dt { "Build" } dd { (code(&artifact.build)) }
                dt { "Taxonomy" } dd { (taxonomy(artifact)) }
            }
        }
        nav aria-label="Parts" {
            ul {
                @if !unknown.is_empty() { li { a href="#unknown" { "Unknown keys" } " (" (unknown.len()) ")" } }
                @for part in &PARTS { li { a href={ "#" (part.id) } { (part.title) } " (" (of(part).len()) ")" } }
                @if !others.is_empty() { li { a href="#others" { "Other declarations" } " (" (others.len()) ")" } }
            }
        }
        main {
            @if !unknown.is_empty() { (unknown_part(&unknown)) }
            @for part in &PARTS {
                section id=(part.id) {
                    h2 { (part.title) }
                    @let entries = of(part);
                    @if entries.is_empty() { p { (part.empty) } }
                    @for entry in entries { (item(entry, (part.show)(entry))) }
                }
            }
            @if !others.is_empty() {
                section id="others" {
                    h2 { "Other declarations" }
                    @for entry in others { (item(entry, other(entry))) }
                }
            }
        }
    };
    sheet::document(&format!("Personal data in {program}"), STYLE, &body).into_string() + "\n"
}

fn item(entry: &Entry, says: Markup) -> Markup {
    html! {
        article {
            h3 { (code(&entry.path)) }
            @if let Some(at) = &entry.at {
                p.at {
                    @if let Some(package) = &entry.package { (shown(package)) ", " }
                    (shown(at))
                }
            }
            (says)
            @let terms: Vec<_> = TERMS.iter().filter_map(|key| Some((*key, text(&entry.rest, key)?))).collect();
            @if !terms.is_empty() {
                dl {
                    @for (key, value) in terms {
                        dt { (capital(&key.replace('_', " "))) }
                        dd {
                            @match key {
                                "data_use" => { (taxon(Taxon::DataUse, value)) }
                                "subject" => { (taxon(Taxon::Subject, value)) }
                                _ => { (shown(value)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn egress(entry: &Entry) -> Markup {
    let allowed: Vec<&str> = texts(&entry.rest, "allow").collect();
    html! {
        dl {
            dt { "To" }
            dd {
                @match text(&entry.rest, "recipient") {
                    Some(recipient) => { strong { (shown(recipient)) } }
                    None => { "the hosts that it calls" }
                }
            }
            dt { "May send" }
            dd {
                @if !entry.rest.contains_key("allow") { "anything: the attribute sets no limit" }
                @else if allowed.is_empty() { "nothing" }
                @else { ul.keys { @for key in allowed { li { (taxon(Taxon::Category, key)) } } } }
            }
            (arguments(entry, "Payload"))
        }
    }
}

fn function(entry: &Entry) -> Markup {
    html! {
        dl {
            @if entry.kind == "unvisited" {
                dt { "Not read" } dd { "The argument’s type cannot be visited: what it brings in is not recorded." }
            }
            @if let Some(category) = text(&entry.rest, "category") {
                dt { "Result" }
                dd {
                    (taxon(Taxon::Category, category))
                    @if let Some(description) = text(&entry.rest, "description") { ": " (shown(description)) }
                    (marks(&entry.rest))
                }
            }
            (arguments(entry, "Takes"))
        }
    }
}

fn arguments(entry: &Entry, title: &str) -> Markup {
    let args: Vec<_> = objects(&entry.rest, "args").collect();
    html! {
        @if !args.is_empty() {
            dt { (title) }
            dd {
                ul.keys {
                    @for arg in args {
                        li { (code(&format!("{}: {}", text(arg, "name").unwrap_or("_"), text(arg, "type").unwrap_or("?")))) }
                    }
                }
            }
        }
    }
}

fn fields(entry: &Entry) -> Markup {
    let owners: Vec<String> = texts(&entry.rest, "owner").map(shown).collect();
    let fields: Vec<_> = objects(&entry.rest, "fields").collect();
    html! {
        dl {
            @if let Some(table) = text(&entry.rest, "table") { dt { "Table" } dd { (code(table)) } }
            @if !owners.is_empty() { dt { "Whose it is, by" } dd { (owners.join(", ")) } }
        }
        @if !fields.is_empty() {
            table {
                caption { "Fields of " (code(&entry.path)) }
                thead { tr { th scope="col" { "Field" } th scope="col" { "Category" } th scope="col" { "What it is" } } }
                tbody {
                    @for field in fields {
                        tr {
                            th scope="row" { (code(text(field, "name").unwrap_or("?"))) }
                            td { (taxon(Taxon::Category, text(field, "category").unwrap_or("?"))) }
                            td { (shown(text(field, "description").unwrap_or_default())) (marks(field)) }
                        }
                    }
                }
            }
        }
    }
}

fn other(entry: &Entry) -> Markup {
    html! {
        p { "Of a kind that a later version declares: " (code(&entry.kind)) }
        pre { (serde_json::to_string_pretty(&entry.rest).unwrap_or_default().lines().map(shown).collect::<Vec<_>>().join("\n")) }
    }
}

fn unknown_part(unknown: &[UnknownKey]) -> Markup {
    html! {
        section id="unknown" {
            h2 { "Unknown keys" }
            p { "The taxonomy does not have them. Keys of your own begin with " code { "x." } }
            table {
                caption { "Keys that are not in the taxonomy" }
                thead { tr { @for title in ["List", "Key", "Nearest", "Of", "At"] { th scope="col" { (title) } } } }
                tbody {
                    @for key in unknown {
                        tr {
                            td { (key.taxon.word()) }
                            th scope="row" { (code(&key.key)) }
                            td { @if let Some(nearest) = key.nearest { (code(nearest)) } }
                            td { (code(&key.item())) }
                            td {
                                @if let Some(file) = &key.file {
                                    (code(&key.line.map_or(file.clone(), |line| format!("{file}:{line}"))))
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A name out of the file. It may break behind its marks, not within its words.
fn code(name: &str) -> Markup {
    let name = shown(name);
    html! {
        code {
            @for part in name.split_inclusive([':', '.', '/', '_', '(']) {
                (part)
                // Behind `::`, not within it.
                @if part == ":" || !part.ends_with(':') { wbr; }
            }
        }
    }
}

/// A key of the taxonomy, marked where the taxonomy does not have it.
fn taxon(taxon: Taxon, key: &str) -> Markup {
    html! {
        (code(key))
        @if !taxon.is_known(key) {
            " " strong.unknown {
                "unknown"
                @if let Some(nearest) = taxon.nearest(key) { ", near " (nearest) }
            }
        }
    }
}

/// What is said of a value besides its category.
fn marks(declared: &Map<String, Json>) -> Markup {
    let is = |key: &str, truth: bool| declared.get(key).and_then(Json::as_bool) == Some(truth);
    html! {
        @if is("secret", true) { " " em { "secret" } }
        @if is("pii", false) { " " em { "not personal" } }
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_uppercase().chain(chars).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use provenance::inventory;

    use super::*;

    fn page(lines: &[Json]) -> String {
        let section: String = lines.iter().map(|line| format!("{line}\n")).collect();
        render(&Artifact {
            program: "crm <1>".to_owned(),
            entries: inventory::parse(section.as_bytes()).unwrap(),
            build: "0123456789abcdef".to_owned(),
        })
    }

    #[test]
    fn whatever_the_file_says_is_text() {
        let evil = "\"><script>alert(1)</script><img src=x onerror='a'>&amp;\u{202e}\u{7}";
        let value = serde_json::json!({"name": evil, "type": evil, "category": evil, "description": evil});
        let line = |kind: &str| {
            serde_json::json!({
                "v": 1, "kind": kind, "path": evil, "at": evil, "crate": evil, "table": evil, "owner": [evil],
                "fields": [value], "args": [value], "allow": [evil], "recipient": evil, "category": evil,
                "description": evil, "purpose": evil, "basis": evil, "data_use": evil, "subject": evil,
                "taxonomy": evil, "version": evil, "type": evil,
            })
        };
        let kinds = [
            "model",
            "tracked",
            "input",
            "unvisited",
            "egress",
            "derived",
            "runtime",
            evil,
        ];
        let page = page(&kinds.map(line));
        assert!(page.len() > 10_000, "{page}");
        let body = page.split_once("</style>").unwrap().1;
        for mark in ["<script", "<img", "\u{202e}", "\u{7}"] {
            assert!(!body.contains(mark), "{mark} in {body}");
        }
        assert!(body.matches("&lt;script&gt;").count() > 50);
        assert!(page.contains("Personal data in crm &lt;1&gt;"));
    }

    #[test]
    fn nothing_comes_from_elsewhere_and_nothing_runs() {
        let page = page(&[]);
        for mark in ["http:", "https:", "src=", "<script", "<link", "@import", "url("] {
            assert!(!page.contains(mark), "{mark}");
        }
        assert!(page.contains("default-src 'none'"));
        assert_eq!(page.matches("is declared").count(), 5);
    }

    #[test]
    fn unknown_keys_are_marked_with_the_nearest() {
        let page = page(&[serde_json::json!({
            "v": 1, "kind": "egress", "path": "crm::send", "at": "src/a.rs:3", "crate": "crm", "recipient": null,
            "allow": ["contact.email", "contact.emial"], "data_use": "marketing.comunications", "subject": "costumer",
        })]);
        for near in ["contact.email", "marketing.communications", "customer"] {
            assert!(page.contains(&format!("unknown, near {near}<")), "{near}: {page}");
        }
        assert_eq!(page.matches("unknown, near").count(), 3);
        assert!(page.contains("Unknown keys") && page.contains("rs:3<wbr></code>"));
    }
}

//! What the code declares against what was observed.

use maud::{Markup, html};

use super::parts::{category, export, link, number};
use super::{Here, Pairs};
use crate::answers::declared::Comparison;
use crate::api::{Refusal, Reply};
use crate::export::Format;
use crate::params::Params;

pub(super) fn show(here: &Here<'_>, pairs: &Pairs<'_>) -> Result<Reply, Refusal> {
    Params::read(pairs, &[])?;
    let found = here.api.comparison()?;
    let body = html! {
        h1 { "Declared and observed" }
        p.lead { "What the code and the configuration say, against what was recorded." }
        @if !found.inventory_known {
            p.problem role="status" { "What the program declares is not known here: this page reads a file. Open it inside the running service, or compare with " code { "cargo provenance inventory" } "." }
        }
        ul.facts {
            li { strong { (number(found.seen)) } " declared and seen" }
            li { strong { (number(found.never_seen.len())) } " declared, never seen" }
            li.bad[!found.undeclared.is_empty()] { strong { (number(found.undeclared.len())) } " seen, not declared" }
            li.bad[!found.undeclared_recipients.is_empty()] { strong { (number(found.undeclared_recipients.len())) } " recipients not declared" }
        }
        (recipients(&found))
        (undeclared(&found))
        (never_seen(&found))
        p.hint { a href="/runtime-audit/inventory" { "As JSON" } ", with the program's whole inventory." }
        h2 { "Record of processing activities (GDPR Art. 30)" }
        p { "A draft from what was observed: purposes, categories, recipients, transfers, time limits. What code cannot know reads TO COMPLETE." }
        (export(&[], &[Format::RopaHtml, Format::Ropa, Format::RopaCsv, Format::RopaJson]))
    };
    Ok(here.page("Declared and observed", body))
}

fn recipients(found: &Comparison) -> Markup {
    html! {
        h2 { "Recipients that the configuration does not name" }
        @if found.undeclared_recipients.is_empty() { p.good { "None: everybody who got personal data is declared." } }
        @else { table {
            thead { tr { th scope="col" { "Recipient" } th.num scope="col" { "Values in shares" } } }
            tbody { @for (name, events) in &found.undeclared_recipients { tr {
                th scope="row" { a href=(link("view/events", &[("recipient", name)])) { (name) } }
                td.num data-label="Values" { (number(*events)) }
            } } }
        } }
    }
}

fn undeclared(found: &Comparison) -> Markup {
    html! {
        h2 { "Seen, and not declared" }
        @if found.undeclared.is_empty() { p.good { "Nothing." } }
        @else { div.scroll tabindex="0" role="region" aria-label="Seen, and not declared" { table {
            thead { tr { th scope="col" { "What" } th scope="col" { "Name" } th scope="col" { "Category" } th.num scope="col" { "Events" } } }
            tbody { @for row in &found.undeclared { tr {
                td data-label="What" { (row.what) }
                th scope="row" { (row.name) }
                td data-label="Category" { (category(&row.category)) }
                td.num data-label="Events" { (number(row.events)) }
            } } }
        } } }
    }
}

fn never_seen(found: &Comparison) -> Markup {
    html! {
        h2 { "Declared, and never seen" }
        @if found.never_seen.is_empty() { p.good { "Nothing." } }
        @else {
            p.hint { "Code that did not run yet, hooks that are not in force, or a declaration that nobody needs any more." }
            div.scroll tabindex="0" role="region" aria-label="Declared, and never seen" { table {
                thead { tr { th scope="col" { "What" } th scope="col" { "Name" } th scope="col" { "Category" } th scope="col" { "Code" } th scope="col" { "Looked for in" } } }
                tbody { @for row in &found.never_seen { tr {
                    td data-label="What" { (row.what) }
                    th scope="row" { (row.name) }
                    td data-label="Category" { @match &row.category { Some(name) => (category(name)), None => span.none { "–" } } }
                    td data-label="Code" { @match &row.at { Some(at) => code { (at) }, None => span.none { "configuration" } } }
                    td.count data-label="Looked for in" { (row.looked_at) }
                } } }
            } }
        }
    }
}

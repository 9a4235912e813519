//! Events, filtered as in the API.

use maud::{Markup, html};
use provenance::store::StoredEvent;

use super::parts::{category, event_link, export, kind, link, outcome, pseudonym, site, time};
use super::{Here, Pairs};
use crate::answers::{self, text};
use crate::api::{Refusal, Reply};
use crate::export::Format;
use crate::params::{self, Params};

/// Events on a page.
const LIMIT: usize = 50;
const TYPES: [(&str, &str); 8] = [
    ("DATA_COLLECTION", "collected"),
    ("DATA_STORAGE", "stored"),
    ("DATA_ACCESS", "read"),
    ("DATA_DERIVATION", "derived"),
    ("DATA_SHARE", "shared"),
    ("POLICY_VIOLATION", "violation"),
    ("DATA_ERASURE", "erased"),
    ("AUDIT_ACCESS", "audit access"),
];

pub(super) fn show(here: &Here<'_>, pairs: &Pairs<'_>) -> Result<Reply, Refusal> {
    let params = Params::read(pairs, params::EVENTS)?;
    let mut query = params.events()?;
    if params.get("limit").is_none() {
        query.limit = LIMIT;
    }
    let page = here.api.ask(|reader| reader.events(&query))?;
    let given = params.all();
    let next = page.next_cursor.as_deref().map(|cursor| {
        let kept = given.iter().copied().filter(|(name, _)| *name != "cursor");
        link("view/events", &kept.chain([("cursor", cursor)]).collect::<Vec<_>>())
    });
    let kept: Vec<_> = given
        .iter()
        .copied()
        .filter(|(name, value)| !matches!(*name, "cursor" | "limit") && !value.is_empty())
        .collect();
    let newest: Vec<_> = given.iter().copied().filter(|(name, _)| *name != "cursor").collect();
    let body = html! {
        div.title {
            div {
                h1 { "Events" }
                p.lead { "What hooks saw, newest first. Values are shown as fingerprints, people as pseudonyms." }
            }
            a href="#take" { "Download" }
        }
        (filter_form(&params))
        @if page.events.is_empty() {
            div.empty { p { "No event fits. " a href=(link("view/events", &[])) { "Show all" } } }
        } @else {
            (table(&page.events))
        }
        nav.pager aria-label="Listing" {
            @if query.cursor.is_some() { a href=(link("view/events", &newest)) { "Newest" } }
            @else { a href=(link("view/events", &newest)) { "Refresh" } }
            @if let Some(next) = next { a rel="next" href=(next) { "Older" } }
        }
        h2 id="take" { "Download" }
        p { "All events that fit the filters above, not this page alone. A download is recorded in the evidence, with the name of your token and the reason. It holds pseudonyms: it is still personal data." }
        (export(&kept, &Format::all().collect::<Vec<_>>()))
    };
    Ok(here.page("Events", body))
}

fn filter_form(params: &Params<'_>) -> Markup {
    let value = |name: &str| params.get(name).unwrap_or("");
    let chosen = value("event_type");
    html! {
        form.filter method="get" {
            label { span { "Type" }
                select name="event_type" {
                    option value="" { "any" }
                    @for (name, words) in TYPES { option value=(name) selected[name == chosen] { (words) } }
                    @if !chosen.is_empty() && TYPES.iter().all(|(name, _)| *name != chosen) { option value=(chosen) selected { (chosen) } }
                }
            }
            label { span { "Category" } input name="category" value=(value("category")) placeholder="contact.email" spellcheck="false"; }
            label { span { "Recipient" } input name="recipient" value=(value("recipient")) spellcheck="false"; }
            label { span { "From" } input name="since" value=(value("since")) placeholder="2026-01-31" spellcheck="false"; }
            label { span { "Until" } input name="until" value=(value("until")) placeholder="2026-02-28" spellcheck="false"; }
            label { span { "Request" } input name="request_id" value=(value("request_id")) spellcheck="false"; }
            label { span { "Fingerprint" } input name="fingerprint" value=(value("fingerprint")) spellcheck="false"; }
            div.actions { button type="submit" { "Filter" } a href=(link("view/events", &[])) { "Clear" } }
        }
    }
}

/// A table of events, also for other pages.
pub(super) fn table(events: &[StoredEvent]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Events" {
            table.events {
                thead { tr {
                    th scope="col" { "Time (UTC)" }
                    th scope="col" { "What" }
                    th scope="col" { "Who and onto what" }
                    th scope="col" { "Values" }
                    th scope="col" { "Person" }
                    th scope="col" { "Code" }
                } }
                tbody { @for event in events { (row(event)) } }
            }
        }
    }
}

fn row(event: &StoredEvent) -> Markup {
    let mut categories: Vec<&str> = event
        .matched_tags
        .iter()
        .map(|tag| answers::short(text(tag, "category")))
        .collect();
    categories.sort_unstable();
    categories.dedup();
    let more = categories.len().saturating_sub(4);
    let recipient = text(&event.extras, "recipient");
    // Whose it is says the event, or else each value.
    let mut owners: Vec<&str> = match text(&event.extras, "owner") {
        "" => event.matched_tags.iter().map(|tag| text(tag, "owner")).collect(),
        owner => vec![owner],
    };
    owners.retain(|owner| !owner.is_empty());
    owners.sort_unstable();
    owners.dedup();
    html! {
        tr {
            td.time data-label="Time (UTC)" { (event_link(&event.event_id, &time(event.created_at))) }
            td data-label="What" {
                (kind(&event.event_type))
                @if event.event_type == "DATA_SHARE" { " " (outcome(&answers::outcome(event))) }
            }
            td.what data-label="Who" {
                (event.actor)
                @if !recipient.is_empty() { " → " strong { (recipient) } }
                @else if let Some(target) = &event.target { " → " (target) }
            }
            td data-label="Values" { ul.plain { @for name in categories.iter().take(4) { li { (category(name)) } } @if more > 0 { li.none { "and " (more) " more" } } } }
            td data-label="Person" { @match owners.as_slice() { [] => span.none { "–" }, [owner] => (pseudonym(owner)), more => { (more.len()) " people" } } }
            td data-label="Code" { (site(event)) }
        }
    }
}

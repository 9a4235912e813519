//! One event: its place in the code, what was found, and what it belongs to.

use maud::{Markup, html};
use provenance::store::{EventQuery, StoredEvent};
use serde_json::{Map, Value as Json};

use super::parts::{category, fingerprint, kind, link, outcome, pseudonym, time};
use super::{Here, events};
use crate::answers::{self, text};
use crate::api::{Refusal, Reply};

/// Most events of the same request that are shown.
const BESIDE: usize = 25;

pub(super) fn show(here: &Here<'_>, event_id: &str) -> Result<Reply, Refusal> {
    let event = here.api.ask(|reader| reader.event(event_id))?;
    let Some(event) = event else {
        return Err(Refusal::new(404, "there is no event of this id"));
    };
    let beside = match &event.request_id {
        Some(request_id) => {
            let query = EventQuery {
                limit: BESIDE,
                request_id: Some(request_id.clone()),
                ..EventQuery::default()
            };
            here.api.ask(|reader| reader.events(&query))?.events
        }
        None => Vec::new(),
    };
    let beside: Vec<StoredEvent> = beside
        .into_iter()
        .filter(|other| other.event_id != event.event_id)
        .collect();
    let recipient = text(&event.extras, "recipient");
    let title = match (&event.target, recipient) {
        (_, recipient) if !recipient.is_empty() => format!("{} → {recipient}", event.actor),
        (Some(target), _) => format!("{} → {target}", event.actor),
        _ => event.actor.clone(),
    };
    let body = html! {
        p.crumbs { a href=(link("view/events", &[])) { "Events" } " / " code { (event.event_id) } }
        h1.event { (kind(&event.event_type)) " " (title) }
        (facts(&event))
        (values(&event))
        @if !event.payload.is_empty() { (shape("Shape of the data", &event.payload)) }
        (rest(&event))
        @if !beside.is_empty() {
            h2 { "The same request" }
            (events::table(&beside))
        }
    };
    Ok(here.page("Event", body))
}

fn facts(event: &StoredEvent) -> Markup {
    let extra = |key: &str| Some(text(&event.extras, key)).filter(|text| !text.is_empty());
    let site = answers::site(event);
    html! {
        dl.facts-list {
            div { dt { "Time" } dd { (time(event.created_at)) " UTC" } }
            @if let Some((place, path)) = &site { div { dt { "Code" } dd { code { (place) } br; span.count { (path) } } } }
            @if event.event_type == "DATA_SHARE" { div { dt { "Outcome" } dd { (outcome(&answers::outcome(event))) } } }
            @if let Some(recipient) = extra("recipient") {
                div { dt { "Recipient" } dd {
                    a href=(link("view/events", &[("recipient", recipient)])) { (recipient) }
                    @if event.extras.get("recipient_declared") == Some(&Json::Bool(false)) { " " span.chip.violation { "not declared" } }
                    @for key in ["recipient_role", "recipient_country", "recipient_safeguard"] { @if let Some(said) = extra(key) { " · " (said) } }
                } }
            }
            @if let Some(target) = &event.target { div { dt { "Onto" } dd { (target) } } }
            @for (key, name) in [("purpose", "Purpose"), ("basis", "Legal basis"), ("data_use", "Data use"), ("subject", "Subjects"), ("action", "Action"), ("reason", "Reason")] {
                @if let Some(said) = extra(key) { div { dt { (name) } dd { (said) } } }
            }
            @if event.extras.get("certain") == Some(&Json::Bool(false)) { div { dt { "Certain" } dd { "no: the database or the client does not tell" } } }
            @if let Some(owner) = extra("owner") { div { dt { "Person" } dd { (pseudonym(owner)) } } }
            @if let Some(user) = &event.user_id { div { dt { "Signed in" } dd { (pseudonym(user)) } } }
            @if let Some(request) = &event.request_id { div { dt { "Request" } dd { a href=(link("view/events", &[("request_id", request)])) { code { (request) } } } } }
        }
    }
}

fn values(event: &StoredEvent) -> Markup {
    let says = |key: &str| event.matched_tags.iter().any(|tag| !text(tag, key).is_empty());
    let (form, role) = (says("form"), says("role"));
    html! {
        @if !event.matched_tags.is_empty() {
            h2 { @if form { "What was found" } @else { "Values" } }
            div.scroll tabindex="0" role="region" aria-label="Values" {
                table {
                    thead { tr {
                        th scope="col" { "Field" }
                        th scope="col" { "Category" }
                        @if role { th scope="col" { "Role" } }
                        @if form { th scope="col" { "Form" } th scope="col" { "Place" } th scope="col" { "Confidence" } }
                        th scope="col" { "First seen" }
                        th scope="col" { "Person" }
                        th scope="col" { "Lineage" }
                    } }
                    tbody {
                        @for tag in &event.matched_tags {
                            tr {
                                th scope="row" { (text(tag, "field")) @if !text(tag, "description").is_empty() { br; span.count { (text(tag, "description")) } } }
                                td data-label="Category" { (category(text(tag, "category"))) }
                                @if role { td data-label="Role" { (text(tag, "role")) } }
                                @if form {
                                    td data-label="Form" { (text(tag, "form")) }
                                    td data-label="Place" { code { (text(tag, "place")) } }
                                    td data-label="Confidence" { (text(tag, "confidence")) }
                                }
                                td data-label="First seen" { (text(tag, "source")) }
                                td data-label="Person" { @if text(tag, "owner").is_empty() { span.none { "–" } } @else { (pseudonym(text(tag, "owner"))) } }
                                td data-label="Lineage" { @if text(tag, "fingerprint").is_empty() { span.none { "a secret: none kept" } } @else { (fingerprint(text(tag, "fingerprint"))) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn shape(title: &str, map: &Map<String, Json>) -> Markup {
    html! {
        details {
            summary { (title) }
            pre { (serde_json::to_string_pretty(map).unwrap_or_default()) }
        }
    }
}

fn rest(event: &StoredEvent) -> Markup {
    html! {
        (shape("Everything else that is recorded", &event.extras))
        p.hint { "The same as JSON: " a href=(event.request_id.as_deref().map_or_else(|| "/runtime-audit/events".to_owned(), |request| link("events", &[("request_id", request)]))) { "events of this request" } }
    }
}

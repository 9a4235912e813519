//! Whether the evidence can be trusted, and what it cannot see.

use maud::{Markup, html};
use provenance::store::{EventQuery, Reader};
use serde_json::{Map, Value as Json};

use super::parts::{event_link, link, number, time};
use super::{Here, Pairs};
use crate::answers::person::Asked;
use crate::answers::text;
use crate::api::{Refusal, Reply};
use crate::params::Params;

/// Looks that are listed.
const LOOKS: usize = 50;

pub(super) fn show(here: &Here<'_>, pairs: &Pairs<'_>) -> Result<Reply, Refusal> {
    let params = Params::read(pairs, &["check"])?;
    let status = here.api.status()?;
    let status = status.as_object().cloned().unwrap_or_default();
    let checked = match params.get("check") {
        Some("all") => Some(here.api.ask(Reader::verify)?),
        _ => None,
    };
    let query = EventQuery {
        limit: LOOKS,
        event_type: Some("AUDIT_ACCESS".to_owned()),
        ..EventQuery::default()
    };
    let looks = here.api.ask(|reader| reader.events(&query))?.events;
    let body = html! {
        h1 { "Health" }
        p.lead { "Whether the evidence was changed, whether all of it is on disk, and what the hooks could not see." }
        h2 { "Was the evidence changed?" }
        (chain(&status))
        @match &checked {
            Some(verified) => { (verdict(verified)) }
            None => p { a.button href=(link("view/health", &[("check", "all")])) { "Check every chain now" } " " span.count { "recomputes each event; takes about a second for 100,000" } }
        }
        h2 { "Recording" }
        (recording(&status))
        h2 { "Blind spots" }
        (blind_spots(&status))
        h2 { "Who looked at people" }
        @if looks.is_empty() { p.good { "Nobody yet." } }
        @else { div.scroll tabindex="0" role="region" aria-label="Access log" { table {
            thead { tr { th scope="col" { "Time (UTC)" } th scope="col" { "Token" } th scope="col" { "What" } th scope="col" { "Reason" } } }
            tbody { @for event in &looks {
                @let asked = Asked::of(event);
                tr { td.time data-label="Time (UTC)" { (event_link(&event.event_id, &time(asked.at))) } td data-label="Token" { (asked.by) } td data-label="What" { (asked.what) } td data-label="Reason" { (asked.reason) } }
            } }
        } } }
    };
    Ok(here.page("Health", body))
}

fn chain(status: &Map<String, Json>) -> Markup {
    let empty = Map::new();
    let chain = status.get("chain").and_then(Json::as_object).unwrap_or(&empty);
    let holds = chain.get("ok").and_then(Json::as_bool) == Some(true);
    let head = chain.get("head").and_then(Json::as_object).unwrap_or(&empty);
    let count = |key: &str| chain.get(key).and_then(Json::as_i64).unwrap_or_default();
    html! {
        @if holds { p.verdict.good { strong { "The newest batch holds." } " " "Batches: " (number(count("batches"))) ", instances: " (number(count("instances"))) "." } }
        @else {
            p.verdict.bad role="alert" { strong { "The newest batch does not hold." }
                @if let Some(problem) = chain.get("problem").and_then(Json::as_object) { " " (text(problem, "what")) " " code { (text(problem, "event_id")) } } }
        }
        @if !text(head, "hash").is_empty() {
            p.hint { "Note this head where nobody who can write the file can reach it; later the same batch must have the same hash: instance "
                code { (text(head, "instance")) } ", batch " code { (head.get("batch").and_then(Json::as_i64).unwrap_or_default()) } ", " code.long { (text(head, "hash")) } }
        }
    }
}

fn verdict(verified: &provenance::store::Verified) -> Markup {
    html! {
        @match verified.first_problem() {
            None => p.verdict.good role="status" { strong { "Every chain holds." } " No event was changed, removed or reordered since it was written, as far as the file itself can tell." },
            Some(problem) => p.verdict.bad role="alert" { strong { "The evidence was changed." } " " (problem.what) @if let Some(event) = &problem.event_id { ": event " code { (event) } } },
        }
        div.scroll tabindex="0" role="region" aria-label="Chains" { table {
            thead { tr { th scope="col" { "Instance" } th.num scope="col" { "Records, outcomes included" } th.num scope="col" { "Batches" } th scope="col" { "State" } th scope="col" { "Head" } } }
            tbody { @for instance in &verified.instances { tr {
                th scope="row" { code { (instance.instance) } }
                td.num data-label="Records" { (number(instance.events)) }
                td.num data-label="Batches" { (number(instance.batches)) }
                td data-label="State" { @match &instance.problem { None => span.outcome.good { "holds" }, Some(problem) => { span.outcome.bad { "broken" } " " (problem.what) } } }
                td data-label="Head" { code title=(instance.head) { (instance.head.get(..16).unwrap_or("")) "…" } }
            } } }
        } }
        p.hint { "Who can write the file can also rewrite all of it, or cut its end. Against that helps a head that was noted elsewhere." }
    }
}

fn recording(status: &Map<String, Json>) -> Markup {
    let empty = Map::new();
    let queue = status.get("queue").and_then(Json::as_object);
    let events = status.get("events").and_then(Json::as_object).unwrap_or(&empty);
    let total: i64 = events.values().filter_map(Json::as_i64).fold(0, i64::saturating_add);
    let of = |key: &str| {
        queue
            .and_then(|queue| queue.get(key))
            .and_then(Json::as_i64)
            .unwrap_or_default()
    };
    let notes = status.get("notes").and_then(Json::as_array);
    html! {
        ul.facts {
            li { strong { (number(total)) } " events" }
            li { strong { (number(status.get("fingerprints").and_then(Json::as_i64).unwrap_or_default())) } " values" }
            @if queue.is_some() {
                li { strong { (number(of("depth"))) } " waiting" }
                li.bad[of("refused") > 0] { strong { (number(of("refused"))) } " lost" }
                li { strong { (number(of("retries"))) } " retries" }
            }
        }
        @if queue.is_none() { p.problem role="status" { "Queue and blind spots are known inside the running service alone: this page reads its file." } }
        @if let Some(error) = queue.and_then(|queue| queue.get("last_error")).and_then(Json::as_str) { p.problem role="alert" { "Last error: " (error) } }
        @for note in notes.into_iter().flatten().filter_map(Json::as_str) { p.note { (note) } }
        dl.facts-list {
            @for (key, name) in [("storage_path", "Evidence"), ("service", "Service"), ("environment", "Environment"), ("build", "Build"), ("instance", "Instance"), ("key_id", "Key"), ("version", "Version")] {
                @if !text(status, key).is_empty() { div { dt { (name) } dd { code { (text(status, key)) } } } }
            }
        }
    }
}

fn blind_spots(status: &Map<String, Json>) -> Markup {
    let spots = status.get("blind_spots").and_then(Json::as_array);
    html! {
        @match spots {
            None => p { "Known inside the running service alone." },
            Some(spots) if spots.is_empty() => p.good { "None was met since the start." },
            Some(spots) => div.scroll tabindex="0" role="region" aria-label="Blind spots" { table {
                thead { tr { th scope="col" { "What" } th scope="col" { "Where" } th.num scope="col" { "Times" } } }
                tbody { @for spot in spots.iter().filter_map(Json::as_object) { tr {
                    th scope="row" { (meaning(text(spot, "kind"))) br; span.count { (text(spot, "kind")) } }
                    td data-label="Where" { code { (text(spot, "site")) } }
                    td.num data-label="Times" { (number(spot.get("count").and_then(Json::as_i64).unwrap_or_default())) }
                } } }
            } },
        }
        @if let Some(reads) = status.get("reads_without_model").and_then(Json::as_object).filter(|reads| !reads.is_empty()) {
            p { "Read without a model: " @for (index, (table, times)) in reads.iter().enumerate() { @if index > 0 { ", " } code { (table) } " " (number(times.as_i64().unwrap_or_default())) "×" } "." }
        }
    }
}

fn meaning(kind: &str) -> &str {
    match kind {
        "unvisited_input" => "An argument that cannot be looked into",
        "capped_input" => "An input above a cap, or not decodable",
        "unscanned_body" => "A body that was not scanned to its end",
        "model_without_hook" => "A configured model that nothing serves",
        "bypassed_model" => "A write around a model",
        "uninstrumented_connection" => "A connection that the hooks do not see",
        "egress_without_call" => "A function that sends, in which no call was seen",
        "unseen_redirect" => "Redirects that were not told",
        "evidence_failure" => "Evidence that was late",
        "owner_conflict" => "A row in which two people seem to be one",
        "hook_panicked" => "A hook that panicked",
        "evidence_lost" => "An evidence file that was lost",
        other => other,
    }
}

//! What became of one value, on a time line.

use maud::{Markup, html};

use super::parts::{category, event_link, fingerprint, kind, link, number, outcome, time};
use super::{Here, Pairs};
use crate::answers::lineage::{Lineage, Met, Step};
use crate::api::{Refusal, Reply};
use crate::params::Params;

/// Values that are offered where none is asked for.
const OFFERED: usize = 25;

pub(super) fn show(here: &Here<'_>, pairs: &Pairs<'_>) -> Result<Reply, Refusal> {
    let params = Params::read(pairs, &["fingerprint", "category"])?;
    let wanted = params.get("fingerprint").map(str::trim).filter(|text| !text.is_empty());
    let body = match wanted {
        Some(wanted) => match here.api.lineage(wanted)? {
            Some(lineage) => line(&lineage),
            None => return Err(Refusal::new(404, "no event carries this fingerprint")),
        },
        None => offer(here, &params)?,
    };
    Ok(here.page("Lineage", body))
}

fn form(wanted: &str) -> Markup {
    html! {
        form.filter method="get" {
            label.wide { span { "Fingerprint" } input name="fingerprint" value=(wanted) required pattern="[0-9a-f]{64}" title="64 hex digits" spellcheck="false"; }
            div.actions { button type="submit" { "Follow" } }
        }
    }
}

fn offer(here: &Here<'_>, params: &Params<'_>) -> Result<Markup, Refusal> {
    let mut query = params.fingerprints()?;
    query.limit = OFFERED;
    let page = here.api.ask(|reader| reader.fingerprints(&query))?;
    Ok(html! {
        h1 { "Lineage" }
        p.lead { "What became of one value: where it was collected and stored, what was derived from it, who it was shared with." }
        (form(""))
        h2 { "Values first seen most recently" }
        @if page.fingerprints.is_empty() { div.empty { p { "No value was recorded yet." } } }
        @else {
            div.scroll tabindex="0" role="region" aria-label="Values" {
                table {
                    thead { tr { th scope="col" { "Field" } th scope="col" { "Category" } th scope="col" { "First seen in" } th scope="col" { "First seen" } th.num scope="col" { "Events" } th scope="col" { "Lineage" } } }
                    tbody { @for value in &page.fingerprints { tr {
                        th scope="row" { (value.field) }
                        td data-label="Category" { (category(&value.category)) }
                        td data-label="First seen in" { (value.source) }
                        td.time data-label="First seen" { (time(value.first_seen_at)) }
                        td.num data-label="Events" { (number(value.count)) }
                        td data-label="Lineage" { (fingerprint(&value.fingerprint)) }
                    } } }
                }
            }
        }
    })
}

fn line(lineage: &Lineage) -> Markup {
    let own: Vec<&Met> = lineage.values.iter().filter(|value| value.generation == 0).collect();
    let derived: Vec<&Met> = lineage.values.iter().filter(|value| value.generation > 0).collect();
    let name = own.first().map_or("", |value| value.field.as_str());
    let stages = ["collected", "stored", "derived", "shared"];
    let seen = |stage: &str| lineage.steps.iter().filter(|step| step.stage == stage).count();
    html! {
        p.crumbs { a href=(link("view/lineage", &[])) { "Lineage" } " / " code { (lineage.fingerprint.get(..16).unwrap_or("")) "…" } }
        h1 { "What became of " (name) }
        p.lead { @for (index, value) in own.iter().enumerate() { @if index > 0 { ", " } (category(&value.category)) } }
        ol.stages aria-label="Stages" {
            @for stage in stages { li class={ (stage) @if seen(stage) == 0 { " absent" } } { strong { (number(seen(stage))) } " " (stage) } }
        }
        @if !lineage.derived_from.is_empty() {
            p { "Derived from " @for (index, value) in lineage.derived_from.iter().enumerate() { @if index > 0 { ", " } (value.field) " " (fingerprint(&value.fingerprint)) } "." }
        }
        @if !derived.is_empty() {
            p { "From it was derived " @for (index, value) in derived.iter().enumerate() { @if index > 0 { ", " } (value.field) " (" (category(&value.category)) ") " (fingerprint(&value.fingerprint)) } ". Its way is followed below, indented." }
        }
        @if !lineage.complete { p.problem role="status" { "There are more events than are shown here." } }
        ol.timeline { @for step in &lineage.steps { (stop(step)) } }
        p.hint { "Fingerprint " code.long { (lineage.fingerprint) } " · " a href=(link("view/events", &[("fingerprint", &lineage.fingerprint)])) { "as a list of events" } " · " a href={ "/runtime-audit/lineage/" (lineage.fingerprint) } { "as JSON" } }
    }
}

fn stop(step: &Step) -> Markup {
    html! {
        li class={ (step.stage) @if step.generation > 0 { " later" } } {
            div.when { (event_link(&step.event_id, &time(step.at))) }
            div.stop {
                p { (kind(&step.event_type)) " "
                    @if let Some(recipient) = &step.recipient { "with " strong { (recipient) } }
                    @else if let Some(target) = &step.target { strong { (target.strip_prefix("db:").unwrap_or(target)) } }
                    @else { strong { (step.actor) } }
                    @if step.stage == "shared" { @if let Some(words) = &step.outcome { " " (outcome(words)) } }
                }
                p.count {
                    @if step.recipient.is_some() || step.target.is_some() { (step.actor) " · " }
                    (step.field)
                    @if step.generation > 0 { " (derived)" }
                    @if let Some(form) = &step.form { ", " (form) }
                    @if let Some(purpose) = &step.purpose { " · for " (purpose) }
                    @if let Some(site) = &step.site { " · " code { (site) } }
                }
                @if step.recipient.is_some() { @if let Some(target) = &step.target { p.count { (target) } } }
                @if step.generation > 0 { p.count { (category(&step.category)) } }
            }
        }
    }
}

//! Who gets personal data, undeclared recipients first.

use std::collections::BTreeSet;

use maud::html;

use super::parts::{category, link, maybe, number, outcome, words};
use super::{Here, Pairs};
use crate::answers::is_within;
use crate::answers::recipients::Recipient;
use crate::api::{Refusal, Reply};
use crate::params::Params;

pub(super) fn show(here: &Here<'_>, pairs: &Pairs<'_>) -> Result<Reply, Refusal> {
    let params = Params::read(pairs, &["category"])?;
    let wanted = params.category()?;
    let wanted = wanted
        .as_deref()
        .map(|category| crate::answers::short(&provenance::inventory::canonical_category(category)).to_owned());
    let mut recipients = here.api.recipients()?;
    let known: BTreeSet<String> = recipients
        .iter()
        .flat_map(|recipient| recipient.categories.keys().cloned())
        .collect();
    if let Some(wanted) = &wanted {
        recipients.retain(|recipient| recipient.categories.keys().any(|name| is_meant(name, wanted)));
    }
    let got = |recipient: &&Recipient| !recipient.categories.is_empty() || recipient.newest_shares > 0;
    let undeclared = recipients
        .iter()
        .filter(got)
        .filter(|recipient| !recipient.profile.declared)
        .count();
    let body = html! {
        div.title {
            div {
                h1 { "Recipients" }
                p.lead { @if undeclared > 0 { strong.bad { (number(undeclared)) " got data and " @if undeclared == 1 { "is" } @else { "are" } " not declared." } " " }
                    "Everybody whom the configuration or the code names, or who got a request." }
            }
            form.dates method="get" {
                label { span { "Who got" } input name="category" value=(params.get("category").unwrap_or("")) placeholder="financial.income" list="categories" spellcheck="false";
                    datalist id="categories" { @for name in &known { option value=(name) {} } } }
                button type="submit" { "Show" }
            }
        }
        @if let Some(wanted) = &wanted {
            ul.filters aria-label="Filters in force" { li { span { "got " strong { (wanted) } } a href=(link("view/recipients", &[])) aria-label="Remove the filter" { "×" } } }
        }
        @if recipients.is_empty() { div.empty { p { "None was seen, and none is declared." } } }
        @else {
            div.scroll tabindex="0" role="region" aria-label="Recipients" {
                table {
                    thead { tr {
                        th scope="col" { "Recipient" }
                        th scope="col" { "Country" }
                        th scope="col" { "Safeguard" }
                        th scope="col" { "What was found" }
                        th scope="col" { "Purposes" }
                        th scope="col" { "First and last" }
                        th scope="col" { "How it ended" }
                    } }
                    tbody { @for recipient in &recipients {
                        tr {
                            th scope="row" {
                                a href=(link("view/events", &[("recipient", &recipient.recipient)])) { (recipient.profile.legal_name.as_deref().unwrap_or(&recipient.recipient)) }
                                @if recipient.profile.legal_name.is_some() { " " span.count { "(" (recipient.recipient) ")" } }
                                @if !recipient.profile.declared { " " span class=(if got(&recipient) { "chip violation" } else { "chip" }) title="The configuration does not name it" { "not declared" } }
                                @if let Some(role) = &recipient.profile.role { br; span.count { (role.replace('_', " ")) } }
                                br; a.small href=(link("view/incident", &[("recipient", &recipient.recipient)])) { "Who was affected?" }
                            }
                            td data-label="Country" { (maybe(recipient.profile.country.as_deref())) }
                            td data-label="Safeguard" { (maybe(recipient.profile.safeguard.as_deref())) }
                            td data-label="What was found" {
                                @if recipient.categories.is_empty() { span.none { "nothing seen" } }
                                ul.plain { @for (name, events) in &recipient.categories { li { (category(name)) " " span.count { (number(*events)) "×" }
                                    @if let Some(found) = recipient.violations.get(name) { " " a.violation href=(link("view/events", &[("event_type", "POLICY_VIOLATION"), ("recipient", &recipient.recipient), ("category", name)])) { "▲ " (number(*found)) " against the policy" } }
                                } } }
                            }
                            td data-label="Purposes" { (words(&recipient.purposes)) }
                            td data-label="First and last" { @match (&recipient.first_day, &recipient.last_day) {
                                (Some(first), Some(last)) if first == last => (first),
                                (Some(first), Some(last)) => { (first) " – " (last) }
                                _ => span.none { "never" }
                            } }
                            td data-label="How it ended" { ul.plain { @for (ended, times) in &recipient.outcomes { li { (outcome(ended)) " " span.count { (number(*times)) "×" } } } } }
                        }
                    } }
                }
            }
            p.hint { "Counts of what was found are those of all shares. How they ended, and purposes beside those that the code declares, are those of the newest 2,000 shares. " a href="/runtime-audit/recipients" { "As JSON" } }
        }
    };
    Ok(here.page("Recipients", body))
}

/// Whether a category is the one that was asked for, or below it, or has the word in it: `income` finds `financial.income`.
fn is_meant(name: &str, wanted: &str) -> bool {
    is_within(name, wanted) || name.split('.').any(|segment| segment == wanted)
}

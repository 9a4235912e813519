//! Who was affected by what one recipient got.

use maud::{Markup, html};

use super::parts::{category, number, pseudonym, times};
use super::{Here, Pairs, ROOT};
use crate::access::Caller;
use crate::answers::affected::Affected;
use crate::api::{Api, Refusal, Reply};
use crate::params::{Form, IncidentQuestion, Params};

pub(super) fn ask(here: &Here<'_>, pairs: &Pairs<'_>) -> Result<Reply, Refusal> {
    let params = Params::read(pairs, &["recipient", "since", "until", "category"])?;
    let known = here.api.recipients()?;
    let value = |name: &str| params.get(name).unwrap_or("").to_owned();
    let body = html! {
        h1 { "Incident" }
        p.lead { "Who was affected by what a recipient got between two dates." }
        form.card method="post" action={ (ROOT) "view/incident" } autocomplete="off" {
            (here.form_key())
            label { span { "Recipient" }
                input name="recipient" list="recipients" required value=(value("recipient")) spellcheck="false";
                datalist id="recipients" { @for recipient in &known { option value=(recipient.recipient) {} } }
            }
            div.pair {
                label.grow { span { "From (UTC)" } input type="date" name="since" value=(value("since")); }
                label.grow { span { "Until, not included" } input type="date" name="until" value=(value("until")); }
                label.grow { span { "Category, if only one" } input name="category" value=(value("category")) placeholder="contact.email" spellcheck="false"; }
            }
            label { span { "Reason" } input name="reason" required maxlength="500" placeholder="Breach at the recipient, case 2026-118" aria-describedby="why"; }
            details {
                summary { "Match identifiers of your own" }
                p.hint id="match" { "One a line, at most 1,000, of one kind. The answer says which of them are affected, and how many people none of them names." }
                label { span { "Kind" } input name="kind" value="email" spellcheck="false"; }
                label { span { "Identifiers" } textarea name="identifiers" rows="5" spellcheck="false" aria-describedby="match" {} }
            }
            button type="submit" { "Who was affected?" }
            p.hint id="why" { "Each question is recorded in the evidence, with the name of your token and this reason." }
        }
    };
    Ok(here.page("Incident", body))
}

pub(super) fn found(api: &Api, caller: &Caller, form: &Form) -> Result<Reply, Refusal> {
    let question = form.incident()?;
    let affected = api.affected(caller, &question)?;
    let here = Here {
        api,
        caller,
        page: "view/incident",
    };
    Ok(here.page("Incident", answer(&affected, &question)))
}

fn answer(affected: &Affected, question: &IncidentQuestion) -> Markup {
    let query = &question.query;
    let recipient = query.recipient.as_deref().unwrap_or("");
    html! {
        p.crumbs { a href={ (ROOT) "view/incident" } { "Incident" } " / answer" }
        h1 { (number(affected.people)) @if affected.people == 1 { " person was" } @else { " people were" } " affected" }
        p.lead {
            "By what " strong { (recipient) } " got"
            @if let Some(category) = &query.category { " of " (category) }
            @if let Some(since) = query.since { " from " (since.to_string().get(..10).unwrap_or("")) }
            @if let Some(until) = query.until { " until before " (until.to_string().get(..10).unwrap_or("")) }
            ": " (number(affected.shares)) @if affected.shares == 1 { " share." } @else { " shares." }
        }
        @if !affected.complete { p.problem role="status" { "There are more shares than were read: the newest 200,000." } }
        @if affected.shares_of_unknown_people > 0 {
            p { (number(affected.shares_of_unknown_people)) " of the shares carried values that are known to be nobody's: these people are not counted." }
        }
        @if !question.identifiers.is_empty() {
            h2 { "Of the identifiers you gave" }
            p { strong { (number(affected.matched.len())) " of " (number(question.identifiers.len())) } " are affected: "
                @if affected.matched.is_empty() { "none" }
                @else { "line " (affected.matched.iter().map(|index| (index + 1).to_string()).collect::<Vec<_>>().join(", ")) }
                ". " (number(affected.unmatched_people)) " affected people are named by none of them." }
        }
        @if !affected.categories.is_empty() {
            h2 { "What went there" }
            ul.plain { @for (name, shares) in &affected.categories { li { (category(name)) " " span.count { "in " (number(*shares)) " shares" } } } }
        }
        @if !affected.listed.is_empty() {
            h2 { "People" }
            @if affected.people > affected.listed.len() { p.hint { "The " (number(affected.listed.len())) " with most shares." } }
            div.scroll tabindex="0" role="region" aria-label="People" {
                table {
                    thead { tr { th scope="col" { "Person" } th scope="col" { "What" } th scope="col" { "Shares" } } }
                    tbody { @for person in &affected.listed { tr {
                        th scope="row" { @for (index, identifier) in person.identifiers.iter().enumerate() { @if index > 0 { " = " } (pseudonym(identifier)) } }
                        td { ul.plain { @for name in &person.categories { li { (category(name)) } } } }
                        td { (times(&person.seen)) }
                    } } }
                }
            }
            p.hint { "People are pseudonyms: who they are says the service's own database, or the identifiers you match." }
        }
    }
}

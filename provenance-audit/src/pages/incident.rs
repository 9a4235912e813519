//! Who was affected by what one recipient got.

use maud::{Markup, html};

use super::parts::{self, category, link, number, pseudonym};
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
        p.lead { "Who was affected by what a recipient got between two dates: how many people, and which of your customers." }
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
    let times = [("since", query.since), ("until", query.until)];
    let times = times.map(|(name, time)| (name, time.map(|time| time.to_string())));
    let mut events = vec![("event_type", "DATA_SHARE"), ("recipient", recipient)];
    events.extend(times.iter().filter_map(|(name, time)| Some((*name, time.as_deref()?))));
    events.extend(query.category.as_deref().map(|category| ("category", category)));
    html! {
        p.crumbs { a href={ (ROOT) "view/incident" } { "Incident" } " / answer" }
        h1 { (number(affected.people)) @if affected.people == 1 { " person was" } @else { " people were" } " affected" }
        p.lead {
            "By what " strong { (recipient) } " got"
            @if let Some(category) = &query.category { " of " (category) }
            @if let Some(since) = query.since { " from " (since.to_string().get(..10).unwrap_or("")) }
            @if let Some(until) = query.until { " until before " (until.to_string().get(..10).unwrap_or("")) }
            ": " (number(affected.shares)) @if affected.shares == 1 { " share" } @else { " shares" } ", of which each left, or may have left. "
            a href=(link("view/events", &events)) { "See them" }
        }
        @if !affected.complete { p.problem role="status" { "There are more shares than were read: the newest 200,000." } }
        @if affected.shares_of_unknown_people > 0 {
            p { (number(affected.shares_of_unknown_people)) " of the shares carried values that are known to be nobody's, or were not scanned to their end: people in these are not counted." }
        }
        @if affected.blocked_shares > 0 {
            p { (number(affected.blocked_shares)) " more were blocked before anything left, and affected nobody." }
        }
        @if affected.shares == 0 {
            p { "No share with a recipient of this name is recorded for these dates. " a href={ (ROOT) "view/recipients" } { "Who is there" } " lists the names; mind the category, too." }
        }
        @if !question.identifiers.is_empty() {
            h2 { "Of the identifiers you gave" }
            p { strong { (number(affected.matched.len())) " of " (number(question.identifiers.len())) } " are affected: "
                @if affected.matched.is_empty() { "none" }
                @else { "line " (affected.matched.iter().map(|index| (index + 1).to_string()).collect::<Vec<_>>().join(", ")) }
                ". "
                @match affected.unmatched_people { 0 => "They name everybody who was affected.", 1 => "1 affected person is named by none of them.", more => { (number(more)) " affected people are named by none of them." } } }
        }
        @if !affected.categories.is_empty() {
            h2 { "What went there" }
            ul.plain { @for (name, shares) in &affected.categories { li { (category(name)) " " span.count { "in " (number(*shares)) @if *shares == 1 { " share" } @else { " shares" } } } } }
        }
        @if !affected.listed.is_empty() {
            h2 { "People" }
            @if affected.people > affected.listed.len() { p.hint { "The " (number(affected.listed.len())) " with most shares." } }
            div.scroll tabindex="0" role="region" aria-label="People" {
                table {
                    thead { tr { th scope="col" { "Person" } th scope="col" { "What" } th scope="col" { "Shares" } } }
                    tbody { @for person in &affected.listed { tr {
                        th scope="row" { @for (index, identifier) in person.identifiers.iter().enumerate() { @if index > 0 { " = " } (pseudonym(identifier)) } }
                        td data-label="What" { ul.plain { @for name in &person.categories { li { (category(name)) } } } }
                        td data-label="Shares" { (parts::times(&person.seen)) }
                    } } }
                }
            }
            p.hint { "People are shown as pseudonyms. To learn who they are, ask again with the identifiers of your customers: the answer names the lines that are affected." }
        }
    }
}

//! What was observed of one person: asked by a form, never by an address.

use maud::{Markup, html};
use provenance::config::AuditRole;
use serde_json::json;

use super::parts::{category, day, maybe, number, outcome, pseudonym, special, tally, time, times, words};
use super::{Here, ROOT, frame};
use crate::access::Caller;
use crate::answers::person::{NOTE, Person};
use crate::api::{Api, Refusal, Reply};
use crate::params::{Form, PersonQuestion};

const KINDS: [&str; 4] = ["email", "user", "phone", "customer"];

pub(super) fn ask(here: &Here<'_>) -> Reply {
    here.page("Person", question(here))
}

fn question(here: &Here<'_>) -> Markup {
    html! {
        h1 { "Person" }
        p.lead { "What was observed of one person: where their data came from, where it was stored, who was told." }
        form.card method="post" action={ (ROOT) "view/person" } autocomplete="off" {
            (here.form_key())
            (who("Art. 15 request, case 2026-117"))
            button type="submit" { "Search" }
        }
    }
}

/// Whom, and why: the fields of a form.
pub(super) fn who(example: &str) -> Markup {
    html! {
        div.pair {
            label { span { "Kind" }
                input name="kind" list="kinds" value="email" required pattern="[a-z][a-z0-9_]*" spellcheck="false";
                datalist id="kinds" { @for kind in KINDS { option value=(kind) {} } }
            }
            label.grow { span { "Identifier" } input name="identifier" required spellcheck="false" autocapitalize="none" aria-describedby="how"; }
        }
        p.hint id="how" { "As your service knows the person: an address, a user id. It is turned into a pseudonym and forgotten: it is neither kept nor in any address." }
        label { span { "Reason" } input name="reason" required maxlength="500" placeholder=(example) aria-describedby="why"; }
        p.hint id="why" { "Recorded in the evidence, with the name of your token. Give a case number, not a name." }
    }
}

pub(super) fn found(api: &Api, caller: &Caller, form: &Form) -> Result<Reply, Refusal> {
    let question = form.person()?;
    let what = match form.get("as") {
        Some("json") => "subject:json",
        Some("annex") => "subject:annex",
        _ => "subject",
    };
    let person = api.person(caller, &question, what)?;
    let here = Here {
        api,
        caller,
        page: "view/person",
    };
    Ok(match what {
        "subject:json" => {
            Reply::json(&json!(person))?.with("content-disposition", "attachment; filename=\"person.json\"")
        }
        "subject:annex" => frame("Annex", None, None, annex(&here, &person)),
        _ => here.page("Person", answer(&here, &person, &question)),
    })
}

fn answer(here: &Here<'_>, person: &Person, question: &PersonQuestion) -> Markup {
    let owner = person.identifiers.first().map_or("", String::as_str);
    if person.categories.is_empty() && person.events == 0 {
        return html! {
            (question_again())
            h1 { "Nothing was observed" }
            p.lead { "No event names the person " (pseudonym(owner)) "." }
            p { "That does not prove that nothing is stored: hooks record from the day on which they were put in force, and only what they see. "
                "Check the spelling and the kind; people may be known by another identifier." }
            (asked(person))
        };
    }
    html! {
        (question_again())
        div.title {
            div {
                h1 { "What was observed of this person" }
                p.lead { "Known as " @for (index, identifier) in person.identifiers.iter().enumerate() { @if index > 0 { " = " } (pseudonym(identifier)) }
                    ". " (number(person.events)) @if person.events == 1 { " event" } @else { " events" } ", " (number(person.recipients.len())) @if person.recipients.len() == 1 { " recipient" } @else { " recipients" } ". As of " (time(person.as_of)) " UTC." }
            }
            form.downloads method="post" action={ (ROOT) "view/person" } {
                (here.form_key())
                input type="hidden" name="owner" value=(owner);
                input type="hidden" name="reason" value=(question.reason);
                button type="submit" name="as" value="annex" { "Annex to print" }
                button.quiet type="submit" name="as" value="json" { "Download JSON" }
                @if here.caller.may(AuditRole::Erase) { button.quiet.danger type="submit" formaction={ (ROOT) "view/erase" } { "Erase …" } }
            }
        }
        @if !person.complete { p.problem role="status" { "There are more events than were read: the newest 50,000 of each identifier." } }
        (categories(person))
        h2 { "Who was told" }
        (recipients(person))
        p.note { (NOTE) }
        (asked(person))
    }
}

fn question_again() -> Markup {
    html! { p.crumbs { a href={ (ROOT) "view/person" } { "Person" } " / answer" } }
}

fn categories(person: &Person) -> Markup {
    html! {
        h2 { "By category" }
        div.scroll tabindex="0" role="region" aria-label="By category" {
            table {
                thead { tr {
                    th scope="col" { "Category" }
                    th scope="col" { "Came from" }
                    th scope="col" { "Stored in" }
                    th scope="col" { "Shared with" }
                    th scope="col" { "Purposes" }
                } }
                tbody {
                    @for row in &person.categories {
                        tr {
                            th scope="row" {
                                (category(&row.category)) br;
                                span.count { (words(if row.descriptions.is_empty() { &row.fields } else { &row.descriptions })) }
                            }
                            td data-label="Came from" { (tally(&row.from)) }
                            td data-label="Stored in" { (tally(&row.stored)) @if !row.used_for.is_empty() { div.count { "used for " (words(row.used_for.keys())) } } }
                            td data-label="Shared with" { @if row.shared.is_empty() { span.none { "nobody seen" } } @else { (tally(&row.shared)) } }
                            td data-label="Purposes" { (words(&row.purposes)) }
                        }
                    }
                }
            }
        }
    }
}

fn recipients(person: &Person) -> Markup {
    html! {
        @if person.recipients.is_empty() { div.empty { p { "No share of this person's data was seen." } } }
        @else {
            div.scroll tabindex="0" role="region" aria-label="Who was told" {
                table {
                    thead { tr {
                        th scope="col" { "Recipient" }
                        th scope="col" { "Country" }
                        th scope="col" { "Safeguard" }
                        th scope="col" { "What" }
                        th scope="col" { "Purpose" }
                        th scope="col" { "When" }
                        th scope="col" { "How it ended" }
                    } }
                    tbody { @for told in &person.recipients {
                        tr {
                            th scope="row" {
                                (told.profile.legal_name.as_deref().unwrap_or(&told.recipient))
                                @if told.profile.legal_name.is_some() { " " span.count { "(" (told.recipient) ")" } }
                                @if !told.profile.declared { " " span.chip.violation { "not declared" } }
                                @if let Some(role) = &told.profile.role { br; span.count { (role.replace('_', " ")) } }
                                @if !told.left { br; span.count { "blocked: nothing left" } }
                            }
                            td data-label="Country" { (maybe(told.profile.country.as_deref())) }
                            td data-label="Safeguard" { (maybe(told.profile.safeguard.as_deref())) }
                            td data-label="What" { ul.plain { @for name in &told.categories { li { (category(name)) } } } }
                            td data-label="Purpose" { (words(&told.purposes)) @if !told.legal_bases.is_empty() { br; span.count { (words(&told.legal_bases)) } } }
                            td data-label="When" { (times(&told.seen)) }
                            td data-label="How it ended" { ul.plain { @for (ended, times) in &told.outcomes { li { (outcome(ended)) @if *times > 1 { " " span.count { (number(*times)) "×" } } } } } }
                        }
                    } }
                }
            }
        }
    }
}

fn asked(person: &Person) -> Markup {
    html! {
        @if !person.asked.is_empty() {
            details {
                summary { "Who looked this person up (" (number(person.asked.len())) ")" }
                table {
                    thead { tr { th scope="col" { "Time (UTC)" } th scope="col" { "Token" } th scope="col" { "What" } th scope="col" { "Reason" } } }
                    tbody { @for asked in &person.asked { tr { td.time data-label="Time (UTC)" { (time(asked.at)) } td data-label="Token" { (asked.by) } td data-label="What" { (asked.what) } td data-label="Reason" { (asked.reason) } } } }
                }
            }
        }
    }
}

/// To be printed and sent along: no navigation, no pseudonym but the first, no fingerprint.
fn annex(here: &Here<'_>, person: &Person) -> Markup {
    let service = super::parts::service(here);
    html! {
        article.annex {
            h1 { "Annex: what was observed of your personal data" }
            p.lead { "To the answer to a request under Art. 15 GDPR. Service " strong { (service) } ", as of " (day(person.as_of)) "." }
            p.note { strong { "This annex holds no copy of the data." } " It lists what technical records of the service say was done with it. "
                "The copy under Art. 15(3) is given separately. The records begin when recording was put in force, and they do not prove that nothing else was done." }
            h2 { "1. Categories of data, where they came from, where they are stored" }
            table {
                thead { tr { th scope="col" { "Category" } th scope="col" { "Came from" } th scope="col" { "Stored in" } th scope="col" { "Purposes" } } }
                tbody { @for row in &person.categories { tr {
                    th scope="row" { (row.category) @if let Some(why) = row.special { " " (special(why)) }
                        @if !row.descriptions.is_empty() { br; span.count { (words(&row.descriptions)) } } }
                    td data-label="Came from" { (tally(&row.from)) }
                    td data-label="Stored in" { (tally(&row.stored)) }
                    td data-label="Purposes" { (words(&row.purposes)) }
                } } }
            }
            h2 { "2. Recipients" }
            @if !person.recipients.iter().any(|told| told.left) { p { "No disclosure was recorded." } }
            @else { table {
                thead { tr { th scope="col" { "Recipient" } th scope="col" { "Country, safeguard" } th scope="col" { "Categories" } th scope="col" { "Purpose" } th scope="col" { "When" } } }
                tbody { @for told in person.recipients.iter().filter(|told| told.left) { tr {
                    th scope="row" { (told.profile.legal_name.as_deref().unwrap_or(&told.recipient)) @if let Some(role) = &told.profile.role { br; span.count { (role.replace('_', " ")) } } }
                    td data-label="Country" { (maybe(told.profile.country.as_deref())) @if let Some(safeguard) = &told.profile.safeguard { ", " (safeguard) } }
                    td data-label="Categories" { (words(&told.categories)) }
                    td data-label="Purpose" { (words(&told.purposes)) }
                    td data-label="When" { (times(&told.seen)) }
                } } }
            } }
            h2 { "3. To be completed by the controller" }
            ul.todo {
                li { "TO COMPLETE: name and contact of the controller and of the data protection officer" }
                li { "TO COMPLETE: how long each category is kept" }
                @if person.recipients.iter().any(|told| told.left && told.profile.legal_name.is_none()) { li { "TO COMPLETE: legal names of recipients that are shown by their short name" } }
                li { "TO COMPLETE: the rights to rectification, erasure, restriction and objection, and to complain to a supervisory authority" }
                li { "TO COMPLETE: whether there is automated decision-making (Art. 22), and its logic" }
            }
        }
    }
}

//! Erasing a person: who must be told is shown first; the act takes a word that is shown with it.

use maud::{Markup, html};
use provenance::config::AuditRole;

use super::parts::{category, maybe, number, time, times};
use super::person::who;
use super::{Here, ROOT};
use crate::access::Caller;
use crate::answers::Seen;
use crate::api::{Api, Refusal, Reply};
use crate::erasure::{Answer, Counts, Line};
use crate::params::Form;

pub(super) fn ask(here: &Here<'_>) -> Reply {
    let body = html! {
        h1 { "Erase a person" }
        p.lead { "Takes one person out of the evidence: their identifiers, their values and what was recorded of them. Nothing is erased yet: you are shown first what it would be, and who must be told." }
        form.card method="post" action={ (ROOT) "view/erase" } autocomplete="off" {
            (here.form_key())
            (who("Art. 17 request, case 2026-118"))
            button type="submit" { "Show what would be erased" }
        }
        (scope_note())
    };
    here.page("Erase", body)
}

pub(super) fn found(api: &Api, caller: &Caller, form: &Form) -> Result<Reply, Refusal> {
    let question = form.erasure()?;
    caller.must(AuditRole::Erase)?;
    let owner = api.owner(&question.who)?;
    let here = Here {
        api,
        caller,
        page: "view/erase",
    };
    Ok(here.page(
        "Erase",
        match api.erasure(caller, &question)? {
            Answer::Preview {
                counts,
                confirmation,
                valid_until,
            } => html! {
                p.crumbs { a href={ (ROOT) "view/person" } { "Person" } " / erase" }
                h1 { "What would be erased" }
                p.lead { "Nothing was changed yet." @if counts.events == 0 { " Nothing of this person is recorded." } @else { " Looks at this person are among the events." } }
                (facts(&counts))
                (told(&counts, false))
                h2 { "Erase" }
                form.card.danger method="post" action={ (ROOT) "view/erase" } autocomplete="off" {
                    (here.form_key())
                    // From here on by pseudonym: no page repeats an identifier.
                    input type="hidden" name="owner" value=(owner.as_str());
                    input type="hidden" name="reason" value=(question.reason);
                    label.check { input type="checkbox" required; span { @if counts.to_be_told.is_empty() { "I know that this cannot be undone." } @else { "The recipients above are noted down, and will be told. I know that this cannot be undone." } } }
                    label { span { "To confirm, type " strong.word { (confirmation) } }
                        input name="confirmation" required spellcheck="false" autocapitalize="none" autocomplete="off" pattern="[0-9a-fA-F]{4}-[0-9a-fA-F]{4}" title=(confirmation) aria-describedby="until"; }
                    div.actions { button.danger type="submit" { "Erase for good" } a href={ (ROOT) "view/person" } { "Leave it" } }
                    p.hint id="until" { "The word is good until " (time(valid_until)) " UTC, once, and as long as nobody else gets data of this person." }
                }
                (scope_note())
            },
            Answer::Erased {
                counts,
                erasure,
                event_id,
                damaged,
                log_emptied,
                log,
            } => html! {
                p.crumbs { a href={ (ROOT) "view/person" } { "Person" } " / erase" }
                h1 { "Erased" }
                p.verdict.good role="status" { strong { "The person is out of the evidence." } " The chain still holds: what is gone is covered by the record of this erasure"
                    @if let Some(event) = &event_id { ", " a href={ (ROOT) "view/events/" (event) } { "event " code { (event) } } } "." }
                @if !log_emptied { p.problem role="status" { "Somebody reads the file right now, so its write-ahead log (" code { "-wal" } ") could not be emptied: removed bytes may stand there until it has no reader for a moment." } }
                @if damaged > 0 { p.problem role="status" { (number(damaged)) " rows are damaged, and were left as they are. " a href={ (ROOT) "view/health?check=all" } { "Check the chains" } } }
                (facts(&counts))
                (told(&counts, true))
                (kept(&erasure, &log))
            },
        },
    ))
}

fn facts(counts: &Counts) -> Markup {
    html! {
        ul.facts {
            li { strong { (number(counts.events)) } @if counts.events == 1 { " event" } @else { " events" } }
            li { strong { (number(counts.values)) } @if counts.values == 1 { " value" } @else { " values" } }
            li { strong { (number(counts.identifiers)) } @if counts.identifiers == 1 { " identifier" } @else { " identifiers" } }
            li { strong { (number(counts.to_be_told.len())) } @if counts.to_be_told.len() == 1 { " recipient to be told" } @else { " recipients to be told" } }
        }
    }
}

fn told(counts: &Counts, is_done: bool) -> Markup {
    html! {
        h2 { "Who must be told" }
        @if counts.to_be_told.is_empty() { p.good { "Nobody: no share of this person's data is recorded." } }
        @else {
            p { "Each recipient of the data must be told of its erasure, unless that is impossible or takes disproportionate effort (GDPR Art. 19). " @if is_done { "The evidence does not lead from the person to them any more: " } @else { "After the erasure the evidence does not lead from the person to them any more: " } strong { "note them down now." } }
            div.scroll tabindex="0" role="region" aria-label="Who must be told" { table {
                thead { tr { th scope="col" { "Recipient" } th scope="col" { "Country" } th scope="col" { "What it got" } th scope="col" { "Shares" } } }
                tbody { @for told in &counts.to_be_told { tr {
                    th scope="row" { (told.legal_name.as_deref().unwrap_or(&told.recipient)) @if told.legal_name.is_some() { " " span.count { "(" (told.recipient) ")" } } }
                    td data-label="Country" { (maybe(told.country.as_deref())) }
                    td data-label="What it got" { ul.plain { @for name in &told.categories { li { (category(name)) } } } }
                    td data-label="Shares" { (times(&Seen { events: told.shares, first_at: told.first_at, last_at: told.last_at })) }
                } } }
            } }
        }
    }
}

fn kept(erasure: &str, log: &Line) -> Markup {
    html! {
        h2 { "For your backups" }
        p { "A backup that is restored brings the person back. Keep this line where the backups' keeper finds it, and apart from the evidence: it holds pseudonyms. " code { "provenance-audit erase --replay erasures.jsonl --yes" } " then erases again." }
        pre.wrap { (serde_json::to_string(log).unwrap_or_default()) }
        p.hint { "Erasure " code { (erasure) } }
    }
}

fn scope_note() -> Markup {
    html! {
        p.note { "This is about the evidence alone. The service's own database, its backups and its logs are erased by the service. What others share with the person, and others' part of the same events, stays. The erasure is recorded, with the name of your token and the reason, and without naming the person." }
    }
}

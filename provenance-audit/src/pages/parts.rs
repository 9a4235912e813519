//! What several pages show alike.

use maud::{Markup, html};
use provenance::Timestamp;
use provenance::store::StoredEvent;

use super::{Here, ROOT};
use crate::answers::{self, Seen, Tally, map};
use crate::export::Format;

/// A time to the second, with the whole of it for machines.
pub(super) fn time(at: Timestamp) -> Markup {
    let whole = at.to_string();
    let shown = whole.get(..19).unwrap_or(&whole).replace('T', " ");
    html! { time datetime=(whole) title=(whole) { (shown) } }
}

/// A day, with the whole time for machines.
pub(super) fn day(at: Timestamp) -> Markup {
    let whole = at.to_string();
    html! { time datetime=(whole) title=(whole) { (whole.get(..10).unwrap_or(&whole)) } }
}

/// `12,345`.
pub(super) fn number(number: impl TryInto<i64>) -> String {
    let digits = number.try_into().unwrap_or(i64::MAX).to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        let left = digits.len() - index;
        if index > 0 && left % 3 == 0 && !shown.ends_with('-') {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A link with a query.
pub(super) fn link(page: &str, query: &[(&str, &str)]) -> String {
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(query)
        .finish();
    match query.is_empty() {
        true => format!("{ROOT}{page}"),
        false => format!("{ROOT}{page}?{query}"),
    }
}

/// A category with its colour and a mark where it is special.
pub(super) fn category(name: &str) -> Markup {
    // As it was written, in the colour of what it means.
    let canonical = provenance::inventory::canonical_category(name);
    html! {
        span.category {
            span class={ "dot g" (map::group(&canonical)) } aria-hidden="true" {}
            (answers::short(name))
            @if let Some(why) = answers::special(&canonical) { " " (special(why)) }
        }
    }
}

/// The mark of a category that GDPR Art. 9 or 10 protects.
pub(super) fn special(why: &str) -> Markup {
    let article = if why.contains("Art. 10") { "Art. 10" } else { "Art. 9" };
    html! { abbr.special title=(why) { (article) } }
}

/// A person's pseudonym, which is too long to be read.
pub(super) fn pseudonym(owner: &str) -> Markup {
    let short: String = match owner.split_once(':') {
        Some((kind, value)) if value.len() > 12 => format!("{kind}:{}…", value.chars().take(10).collect::<String>()),
        _ => owner.to_owned(),
    };
    html! { code.one title=(owner) { (short) } }
}

/// The beginning of a fingerprint, as a link to its lineage.
pub(super) fn fingerprint(fingerprint: &str) -> Markup {
    let short = fingerprint.get(..10).unwrap_or(fingerprint);
    html! {
        a href=(link("view/lineage", &[("fingerprint", fingerprint)])) title={ "Lineage of " (fingerprint) } {
            code.one { (short) "…" }
        }
    }
}

/// The type of an event, in words.
pub(super) fn kind(event_type: &str) -> Markup {
    let (class, words) = match event_type {
        "DATA_COLLECTION" => ("collected", "collected"),
        "DATA_STORAGE" => ("stored", "stored"),
        "DATA_ACCESS" => ("other", "read"),
        "DATA_DERIVATION" => ("derived", "derived"),
        "DATA_SHARE" => ("shared", "shared"),
        "POLICY_VIOLATION" => ("violation", "violation"),
        "DATA_ERASURE" => ("other", "erased"),
        "AUDIT_ACCESS" => ("other", "audit access"),
        own => ("other", own),
    };
    html! { span class={ "chip " (class) } title=(event_type) { (words) } }
}

/// A link to an event.
pub(super) fn event_link(event_id: &str, words: &Markup) -> Markup {
    html! { a href=(link(&format!("view/events/{event_id}"), &[])) { (words) } }
}

/// How a share ended.
pub(super) fn outcome(words: &str) -> Markup {
    let class = match words {
        words if words.starts_with("status 2") || words == "sent" || words == "redirected" => "good",
        "blocked" => "stopped",
        words if words.starts_with("error") || words.starts_with("status") => "bad",
        _ => "open",
    };
    html! { span class={ "outcome " (class) } { (words) } }
}

/// Names with their counts; long lists end early.
pub(super) fn tally(tally: &Tally) -> Markup {
    html! {
        @if tally.is_empty() { span.none { "none seen" } }
        @else {
            ul.plain {
                @for (name, seen) in tally {
                    li { (name) " " span.count { (times(seen)) } }
                }
            }
        }
    }
}

/// `3 times, 2026-03-01 – 2026-03-04`.
pub(super) fn times(seen: &Seen) -> Markup {
    let (first, last) = (seen.first_at.to_string(), seen.last_at.to_string());
    let same = first.get(..10) == last.get(..10);
    html! {
        (number(seen.events)) "× "
        @if same { (day(seen.last_at)) } @else { (day(seen.first_at)) " – " (day(seen.last_at)) }
    }
}

/// Short texts, one after the other.
pub(super) fn words<'a>(words: impl IntoIterator<Item = &'a String>) -> Markup {
    let words: Vec<&str> = words.into_iter().map(String::as_str).collect();
    html! { @if words.is_empty() { span.none { "–" } } @else { (words.join(", ")) } }
}

/// A form that takes evidence out, with the filters in force.
pub(super) fn export(filters: &[(&str, &str)], formats: &[Format]) -> Markup {
    html! {
        form.filter.export method="get" action="/runtime-audit/export" {
            @for (name, value) in filters { input type="hidden" name=(name) value=(value); }
            label.wide { span { "As" } select name="format" { @for format in formats { option value=(format.name()) { (format.words()) } } } }
            label.wide { span { "Reason" } input name="reason" required maxlength="500" placeholder="Audit, case 2026-119"; }
            div.actions { button type="submit" { "Download" } }
        }
    }
}

/// A text that may be missing.
pub(super) fn maybe(text: Option<&str>) -> Markup {
    html! { @match text { Some(text) => (text), None => span.none { "–" } } }
}

/// What the running service is called.
pub(super) fn service(here: &Here<'_>) -> String {
    match here.api.tracker() {
        Some(tracker) => tracker.config().service.clone(),
        None => "(read from its file)".to_owned(),
    }
}

/// Where something happened in the code.
pub(super) fn site(event: &StoredEvent) -> Markup {
    html! {
        @match answers::site(event) {
            Some((place, path)) => { code.one title={ (place) ", " (path) } { (tail(&place)) } }
            None => span.none { "–" }
        }
    }
}

/// The end of a long path: `…/src/app.rs:109`.
fn tail(place: &str) -> String {
    let mut parts = place.rsplitn(3, '/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(file), Some(folder), Some(_)) if place.chars().count() > 24 => format!("…/{folder}/{file}"),
        _ => place.to_owned(),
    }
}

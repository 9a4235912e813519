//! Query parameters, checked one by one. No error repeats a value: it may be personal.

use std::borrow::Cow;

use provenance::store::{EventQuery, FingerprintQuery};
use provenance::{EventType, Timestamp};

use crate::access::QUERY_TOKEN;
use crate::api::Refusal;

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 500;

/// What `/events` takes.
pub(crate) const EVENTS: &[&str] = &[
    "limit",
    "event_type",
    "since",
    "until",
    "category",
    "recipient",
    "request_id",
    "cursor",
];
/// What `/fingerprints` takes.
pub(crate) const FINGERPRINTS: &[&str] = &["limit", "category", "cursor"];

/// The parameters of one request: each known, none twice.
pub(crate) struct Params<'a>(Vec<(&'static str, &'a str)>);

impl<'a> Params<'a> {
    pub(crate) fn read(pairs: &'a [(Cow<'_, str>, Cow<'_, str>)], taken: &[&'static str]) -> Result<Self, Refusal> {
        let mut params = Vec::with_capacity(pairs.len().min(taken.len()));
        for (name, value) in pairs.iter().filter(|(name, _)| name != QUERY_TOKEN) {
            let Some(known) = taken.iter().copied().find(|known| known == name) else {
                return Err(unknown(name, taken));
            };
            if params.iter().any(|(seen, _)| *seen == known) {
                return Err(bad(known, "it is given twice"));
            }
            params.push((known, &**value));
        }
        Ok(Params(params))
    }

    pub(crate) fn events(&self) -> Result<EventQuery, Refusal> {
        Ok(EventQuery {
            limit: self.limit()?,
            event_type: self.checked(
                "event_type",
                EventType::is_well_formed,
                "an event type such as DATA_SHARE: capitals, digits and _, at most 64",
            )?,
            since: self.time("since")?,
            until: self.time("until")?,
            category: self.category()?,
            recipient: self.checked("recipient", is_recipient, "a recipient's name, at most 256 bytes")?,
            request_id: self.checked(
                "request_id",
                is_token,
                "a request id, at most 256 printable ASCII characters",
            )?,
            cursor: self.cursor()?,
            ..EventQuery::default()
        })
    }

    pub(crate) fn fingerprints(&self) -> Result<FingerprintQuery, Refusal> {
        Ok(FingerprintQuery {
            limit: self.limit()?,
            category: self.category()?,
            cursor: self.cursor()?,
        })
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    fn limit(&self) -> Result<usize, Refusal> {
        let Some(text) = self.get("limit") else {
            return Ok(DEFAULT_LIMIT);
        };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // Digits that no integer holds are above the cap too.
        match (digits, text.parse::<usize>().unwrap_or(MAX_LIMIT)) {
            (true, limit @ 1..) => Ok(limit.min(MAX_LIMIT)),
            _ => Err(bad(
                "limit",
                "expected a whole number from 1; above 500 it counts as 500",
            )),
        }
    }

    fn time(&self, name: &'static str) -> Result<Option<Timestamp>, Refusal> {
        let Some(text) = self.get(name).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        // An unescaped `+02:00` arrives with a space.
        let time = Timestamp::parse(text).or_else(|| {
            let (local, offset) = text.rsplit_once(' ')?;
            Timestamp::parse(&format!("{local}+{offset}"))
        });
        match time {
            Some(time) => Ok(Some(time)),
            None => Err(bad(
                name,
                "expected a time such as 2026-01-31T12:00:00Z, or a date such as 2026-01-31",
            )),
        }
    }

    fn category(&self) -> Result<Option<String>, Refusal> {
        self.checked("category", is_category, "a category such as contact.email")
    }

    fn cursor(&self) -> Result<Option<String>, Refusal> {
        self.checked("cursor", is_token, "a next_cursor of this listing")
    }

    fn checked(
        &self,
        name: &'static str,
        is_good: impl Fn(&str) -> bool,
        expected: &str,
    ) -> Result<Option<String>, Refusal> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(value) if is_good(value) => Ok(Some(value.to_owned())),
            Some(_) => Err(bad(name, &format!("expected {expected}"))),
        }
    }
}

fn bad(name: &str, problem: &str) -> Refusal {
    Refusal::new(400, format!("{name}: {problem}"))
}

fn unknown(name: &str, taken: &[&str]) -> Refusal {
    let identifier_like = name.len() <= 32 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let name = if identifier_like && !name.is_empty() {
        name
    } else {
        "a parameter"
    };
    let takes = if taken.is_empty() {
        "none".to_owned()
    } else {
        taken.join(", ")
    };
    bad(name, &format!("unknown here; this path takes {takes}"))
}

/// One segment is enough: inputs of no configured field are tagged `unknown`.
fn is_category(text: &str) -> bool {
    text.len() <= 128
        && text.split('.').all(|segment| {
            segment.starts_with(|c: char| c.is_ascii_lowercase())
                && segment
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        })
}

fn is_recipient(text: &str) -> bool {
    text.len() <= 256 && !text.chars().any(|c| c.is_control() || c == char::REPLACEMENT_CHARACTER)
}

fn is_token(text: &str) -> bool {
    text.len() <= 256 && text.bytes().all(|byte| byte.is_ascii_graphic())
}

//! What a request says: query parameters, forms and JSON bodies, checked one by one. No error repeats a
//! value: it may be personal.

use std::borrow::Cow;

use provenance::store::{EventQuery, FingerprintQuery, FlowQuery};
use provenance::{EventType, Timestamp};
use serde::Deserialize;

use crate::access::{FORM_KEY, QUERY_TOKEN};
use crate::answers::map::Filter;
use crate::api::Refusal;
use crate::export::Format;

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
    "fingerprint",
    "cursor",
];
/// What `/export` takes: the filters of `/events`.
pub(crate) const EXPORT: &[&str] = &[
    "format",
    "event_type",
    "since",
    "until",
    "category",
    "recipient",
    "request_id",
    "fingerprint",
    "reason",
];
/// What `/fingerprints` takes.
pub(crate) const FINGERPRINTS: &[&str] = &["limit", "category", "cursor"];

/// What `/flows` takes.
pub(crate) const FLOWS: &[&str] = &["since", "until"];
/// What the map takes.
pub(crate) const MAP: &[&str] = &["since", "until", "source", "category", "table", "recipient", "internal"];
/// What the search for a person takes: an identifier, or the pseudonym that an answer named.
pub(crate) const PERSON: &[&str] = &["kind", "identifier", "owner", "reason", "as"];
/// What an erasure takes.
pub(crate) const ERASURE: &[&str] = &["kind", "identifier", "owner", "reason", "confirmation"];
/// What the question of an incident takes.
pub(crate) const INCIDENT: &[&str] = &[
    "recipient",
    "since",
    "until",
    "category",
    "reason",
    "kind",
    "identifiers",
];

/// Most identifiers that are matched at once.
const MAX_IDENTIFIERS: usize = 1000;

/// The body of `/subjects`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Subject {
    kind: String,
    identifier: String,
    reason: String,
}

/// The body of `/erasure`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Erase {
    kind: String,
    identifier: String,
    reason: String,
    confirmation: Option<String>,
}

/// The body of `/affected`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Incident {
    recipient: String,
    since: Option<String>,
    until: Option<String>,
    category: Option<String>,
    reason: String,
    #[serde(default)]
    identifiers: Vec<Named>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    kind: String,
    identifier: String,
}

/// A person who is asked for, and why.
pub(crate) struct PersonQuestion {
    pub(crate) who: Who,
    pub(crate) reason: String,
}

pub(crate) enum Who {
    Identifier {
        kind: String,
        identifier: String,
    },
    /// As an answer named them.
    Pseudonym(String),
}

/// Who is to be erased, why, and the word that the preview gave.
pub(crate) struct ErasureQuestion {
    pub(crate) who: Who,
    pub(crate) reason: String,
    pub(crate) confirmation: Option<String>,
}

/// What is to be exported, as the record has it, and why.
pub(crate) struct ExportQuestion {
    pub(crate) query: EventQuery,
    pub(crate) format: Format,
    pub(crate) what: String,
    pub(crate) reason: String,
}

/// Who was affected, and why that is asked.
pub(crate) struct IncidentQuestion {
    pub(crate) query: EventQuery,
    /// Kind and identifier.
    pub(crate) identifiers: Vec<(String, String)>,
    pub(crate) reason: String,
}

impl Subject {
    pub(crate) fn checked(self) -> Result<PersonQuestion, Refusal> {
        let kind = kind(&self.kind)?;
        let identifier = identifier(&self.identifier)?;
        let reason = reason(&self.reason, std::slice::from_ref(&identifier))?;
        Ok(PersonQuestion {
            who: Who::Identifier { kind, identifier },
            reason,
        })
    }
}

impl Erase {
    pub(crate) fn checked(self) -> Result<ErasureQuestion, Refusal> {
        let (kind, identifier, reason) = (self.kind, self.identifier, self.reason);
        let PersonQuestion { who, reason } = Subject {
            kind,
            identifier,
            reason,
        }
        .checked()?;
        let confirmation = self.confirmation.as_deref().and_then(confirmation);
        Ok(ErasureQuestion {
            who,
            reason,
            confirmation,
        })
    }
}

impl Incident {
    pub(crate) fn checked(self) -> Result<IncidentQuestion, Refusal> {
        let pairs = [
            ("recipient", Some(self.recipient)),
            ("since", self.since),
            ("until", self.until),
            ("category", self.category),
        ];
        let pairs: Vec<_> = pairs
            .into_iter()
            .filter_map(|(name, value)| Some((Cow::Borrowed(name), Cow::Owned(value?))))
            .collect();
        let query = Params::read(&pairs, INCIDENT)?.shares()?;
        if self.identifiers.len() > MAX_IDENTIFIERS {
            return Err(bad("identifiers", "at most 1000 at once"));
        }
        let named = self.identifiers.iter();
        let identifiers = named
            .map(|named| Ok((kind(&named.kind)?, identifier(&named.identifier)?)))
            .collect::<Result<Vec<_>, Refusal>>()?;
        let values: Vec<_> = identifiers.iter().map(|(_, identifier)| identifier.clone()).collect();
        Ok(IncidentQuestion {
            query,
            reason: reason(&self.reason, &values)?,
            identifiers,
        })
    }
}

/// What a form on a page sent.
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    pub(crate) fn read(body: &[u8]) -> Self {
        let pairs = form_urlencoded::parse(body);
        Form(
            pairs
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect(),
        )
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    fn pairs(&self) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
        let pairs = self.0.iter().filter(|(name, _)| name != FORM_KEY);
        pairs
            .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
            .collect()
    }

    pub(crate) fn person(&self) -> Result<PersonQuestion, Refusal> {
        let pairs = self.pairs();
        Params::read(&pairs, PERSON)?.person()
    }

    pub(crate) fn erasure(&self) -> Result<ErasureQuestion, Refusal> {
        let pairs = self.pairs();
        let params = Params::read(&pairs, ERASURE)?;
        let PersonQuestion { who, reason } = params.person()?;
        Ok(ErasureQuestion {
            who,
            reason,
            confirmation: params.get("confirmation").and_then(confirmation),
        })
    }

    pub(crate) fn incident(&self) -> Result<IncidentQuestion, Refusal> {
        let pairs = self.pairs();
        let params = Params::read(&pairs, INCIDENT)?;
        let query = params.shares()?;
        let lines = params.get("identifiers").unwrap_or("").lines().map(str::trim);
        let values: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
        if values.len() > MAX_IDENTIFIERS {
            return Err(bad("identifiers", "at most 1000 at once"));
        }
        let kind = match values.is_empty() {
            true => String::new(),
            false => kind(params.get("kind").unwrap_or(""))?,
        };
        let identifiers = values
            .into_iter()
            .map(|value| Ok((kind.clone(), identifier(value)?)))
            .collect::<Result<Vec<_>, Refusal>>()?;
        let values: Vec<_> = identifiers.iter().map(|(_, identifier)| identifier.clone()).collect();
        Ok(IncidentQuestion {
            query,
            reason: reason(params.get("reason").unwrap_or(""), &values)?,
            identifiers,
        })
    }
}

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
            recipient: self.recipient()?,
            request_id: self.checked(
                "request_id",
                is_token,
                "a request id, at most 256 printable ASCII characters",
            )?,
            fingerprint: self.checked(
                "fingerprint",
                is_fingerprint,
                "a fingerprint: 64 hex digits, in lower case",
            )?,
            cursor: self.cursor()?,
            ..EventQuery::default()
        })
    }

    pub(crate) fn flows(&self) -> Result<FlowQuery, Refusal> {
        Ok(FlowQuery {
            since: self.time("since")?,
            until: self.time("until")?,
        })
    }

    pub(crate) fn map(&self) -> Result<(FlowQuery, Filter), Refusal> {
        let filter = Filter {
            source: self.checked("source", is_recipient, "a source, at most 256 bytes")?,
            category: self.category()?,
            table: self.checked("table", is_recipient, "a table, at most 256 bytes")?,
            recipient: self.recipient()?,
            unfolded: self.get("internal") == Some("each"),
        };
        Ok((self.flows()?, filter))
    }

    fn person(&self) -> Result<PersonQuestion, Refusal> {
        let given = self.get("reason").unwrap_or("");
        if let Some(owner) = self.get("owner").filter(|owner| !owner.is_empty()) {
            return Ok(PersonQuestion {
                who: Who::Pseudonym(owner.to_owned()),
                reason: reason(given, &[])?,
            });
        }
        let kind = kind(self.get("kind").unwrap_or(""))?;
        let identifier = identifier(self.get("identifier").unwrap_or(""))?;
        let reason = reason(given, std::slice::from_ref(&identifier))?;
        Ok(PersonQuestion {
            who: Who::Identifier { kind, identifier },
            reason,
        })
    }

    pub(crate) fn export(&self) -> Result<ExportQuestion, Refusal> {
        let expected = || {
            let names: Vec<_> = Format::all().map(Format::name).collect();
            bad("format", &format!("expected one of {}", names.join(", ")))
        };
        let format = self.get("format").and_then(Format::named).ok_or_else(expected)?;
        let filters = self
            .0
            .iter()
            .filter(|(name, value)| *name != "reason" && !value.is_empty());
        let filters = filters.map(|(name, value)| format!(" {name}={value}"));
        Ok(ExportQuestion {
            query: self.events()?,
            format,
            what: std::iter::once("export".to_owned()).chain(filters).collect(),
            reason: reason(self.get("reason").unwrap_or(""), &[])?,
        })
    }

    /// The shares of an incident.
    fn shares(&self) -> Result<EventQuery, Refusal> {
        let recipient = self.recipient()?;
        if recipient.is_none() {
            return Err(bad("recipient", "missing: who got the data"));
        }
        Ok(EventQuery {
            event_type: Some("DATA_SHARE".to_owned()),
            recipient,
            since: self.time("since")?,
            until: self.time("until")?,
            category: self.category()?,
            ..EventQuery::default()
        })
    }

    fn recipient(&self) -> Result<Option<String>, Refusal> {
        self.checked("recipient", is_recipient, "a recipient's name, at most 256 bytes")
    }

    pub(crate) fn fingerprints(&self) -> Result<FingerprintQuery, Refusal> {
        Ok(FingerprintQuery {
            limit: self.limit()?,
            category: self.category()?,
            cursor: self.cursor()?,
        })
    }

    /// As they were given.
    pub(crate) fn all(&self) -> Vec<(&'static str, &'a str)> {
        self.0.clone()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
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

    pub(crate) fn category(&self) -> Result<Option<String>, Refusal> {
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

/// A fingerprint as events show it.
pub(crate) fn is_fingerprint(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn kind(text: &str) -> Result<String, Refusal> {
    let text = text.trim();
    let is_kind = text.len() <= 32
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    match is_kind {
        true => Ok(text.to_owned()),
        false => Err(bad("kind", "expected the kind of identifier: email, user, phone, ..")),
    }
}

fn identifier(text: &str) -> Result<String, Refusal> {
    match text.trim() {
        "" => Err(bad("identifier", "missing: an email address, a user id, ..")),
        text if text.len() > 1024 => Err(bad("identifier", "at most 1024 bytes")),
        text => Ok(text.to_owned()),
    }
}

/// Kept with the record of the question, so it may not name the person.
fn reason(text: &str, identifiers: &[String]) -> Result<String, Refusal> {
    let text = text.trim();
    if text.is_empty() || text.len() > 500 || text.chars().any(char::is_control) {
        return Err(bad("reason", "say why in a line of at most 500 bytes: it is recorded"));
    }
    let lower = text.to_lowercase();
    let names = |identifier: &String| identifier.chars().count() > 3 && lower.contains(&identifier.to_lowercase());
    if identifiers.iter().any(names) || text.contains('@') {
        return Err(bad(
            "reason",
            "it is recorded, so it must not hold an identifier: give a case number",
        ));
    }
    Ok(text.to_owned())
}

/// The word of a preview, as it is compared; `None` where none is given.
fn confirmation(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    (!text.is_empty()).then_some(text)
}

fn is_token(text: &str) -> bool {
    text.len() <= 256 && text.bytes().all(|byte| byte.is_ascii_graphic())
}

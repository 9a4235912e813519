//! What an event keeps of a message: its shape, and where it went, without a value in it.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value as Json, json};

use super::Body;
use crate::detect::Media;
use crate::hooks::input::is_identifier_like;
use crate::tracker::Tracker;
use crate::vocabulary::EventTag;

/// Most field names that are kept of one body.
const MAX_FIELDS: usize = 256;

/// How much of a body is read for the names of its fields.
const FIELDS_WITHIN: usize = 8 << 20;

/// `media`, `length` in bytes, `fields` and where which category was `found`. `decoded`: what a body
/// under a content encoding stands for.
pub(super) fn payload(
    tracker: &Tracker,
    body: &Body<'_>,
    decoded: Option<&[u8]>,
    tags: &[EventTag],
) -> Map<String, Json> {
    let mut payload = Map::new();
    match body {
        Body::Empty => {}
        Body::Unseen => {
            payload.insert("media".into(), "unknown".into());
        }
        Body::Bytes { bytes, content_type }
        | Body::Long {
            beginning: bytes,
            content_type,
            ..
        }
        | Body::Stream {
            beginning: bytes,
            content_type,
        } => {
            let plain = decoded.unwrap_or(bytes);
            let media = media(plain, *content_type);
            payload.insert("media".into(), word(media).into());
            if matches!(body, Body::Bytes { .. }) {
                payload.insert("length".into(), bytes.len().into());
            }
            let fields = fields(tracker, plain.get(..FIELDS_WITHIN).unwrap_or(plain), media);
            if !fields.is_empty() {
                payload.insert("fields".into(), json!(fields));
            }
        }
    }
    payload.append(&mut found(tags));
    payload
}

/// Where which category was met.
pub(super) fn found(tags: &[EventTag]) -> Map<String, Json> {
    let mut payload = Map::new();
    let found: Vec<Json> = tags
        .iter()
        .filter_map(|tag| Some(json!({ "category": &*tag.tag.category, "place": tag.detail.get("place")? })))
        .collect();
    if !found.is_empty() {
        payload.insert("found".into(), found.into());
    }
    payload
}

/// How a body is to be read: by its content type, else by its first byte.
pub(super) fn media(bytes: &[u8], content_type: Option<&str>) -> Media {
    let essence = content_type
        .and_then(|text| text.split(';').next())
        .map(|text| text.trim().to_ascii_lowercase())
        .unwrap_or_default();
    match essence.as_str() {
        "application/x-www-form-urlencoded" => Media::Form,
        json if json.ends_with("/json") || json.ends_with("+json") => Media::Json,
        _ => match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'{' | b'[') => Media::Json,
            _ => Media::Text,
        },
    }
}

fn word(media: Media) -> &'static str {
    match media {
        Media::Json => "json",
        Media::Form => "form",
        Media::Url => "url",
        Media::Text => "text",
    }
}

/// `POST api.example.com/v1/users/{id}`: no query, no credentials, no port.
///
/// Of the path stay short words (letters, digits, `._~-`, beginning with a letter) and versions
/// (`v1`, `3.0`). Registered values read `{value}`; addresses `{email}`; what has four digits or
/// more, is all digits, longer than 32 characters or no word (see [`is_word`]) `{id}`; anything else
/// `{text}`.
pub(super) fn http_target(tracker: &Tracker, method: &str, host: &str, path: &str) -> String {
    let method = match method {
        known if known.len() <= 16 && known.bytes().all(|byte| byte.is_ascii_uppercase()) => known,
        _ => "OTHER",
    };
    let mut target = format!("{method} {}", self::host(tracker, &host.to_ascii_lowercase()));
    for segment in path.trim_start_matches('/').split('/').take(64) {
        target.push('/');
        target.push_str(redact(tracker, segment));
    }
    target
}

/// A host, unless it tells somebody's value (`alice-liddell.example.com`).
pub(super) fn host<'h>(tracker: &Tracker, host: &'h str) -> &'h str {
    match host {
        _ if tracker.tells(host) => "{value}",
        _ if host.len() > 256 || host.contains(char::is_control) => "{text}",
        host => host,
    }
}

/// A name without what stands before an `@` (the local part of an address, a password).
pub(super) fn without_userinfo(name: &str) -> &str {
    name.rsplit_once('@').map_or(name, |(_, name)| name)
}

/// A target that was given by name, unless the name is a registered value.
pub(super) fn name(tracker: &Tracker, name: &str) -> String {
    let kept = without_userinfo(name).split(['?', '#']).next().unwrap_or_default();
    if kept.len() > 256 || is_registered(tracker, kept, Media::Text) {
        "{value}".into()
    } else if kept.contains(char::is_control) {
        "{text}".into()
    } else {
        kept.to_owned()
    }
}

fn redact<'s>(tracker: &Tracker, segment: &'s str) -> &'s str {
    let digits = segment.bytes().filter(u8::is_ascii_digit).count();
    let plain = segment
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'-'));
    if segment.is_empty() {
        ""
    } else if is_registered(tracker, segment, Media::Url) {
        "{value}"
    } else if segment.contains('@') || segment.to_ascii_lowercase().contains("%40") {
        "{email}"
    } else if !plain {
        "{text}"
    } else if is_version(segment) {
        segment
    } else if segment.len() > 32 || digits >= 4 || digits == segment.len() {
        "{id}"
    } else if !segment.starts_with(|c: char| c.is_ascii_alphabetic()) {
        "{text}"
    } else if is_word(segment) {
        segment
    } else {
        "{id}"
    }
}

/// What programs name things, as against tokens (a webhook's secret, a short link): pieces of at
/// most 20 characters, `lower`, `UPPER` or `camelCase`, digits at the end only, but in short ones.
fn is_word(segment: &str) -> bool {
    segment.split(['.', '_', '~', '-']).all(|piece| {
        let letters = piece.trim_end_matches(|c: char| c.is_ascii_digit());
        let lower = !piece.bytes().any(|byte| byte.is_ascii_uppercase());
        let upper = letters.bytes().all(|byte| byte.is_ascii_uppercase());
        let capitals = letters.bytes().filter(u8::is_ascii_uppercase).count();
        let camel = capitals * 3 <= letters.len();
        let digits_inside = letters.bytes().any(|byte| byte.is_ascii_digit());
        piece.len() <= 20 && (lower || upper || camel) && (!digits_inside || (lower && piece.len() <= 8))
    })
}

/// `v2`, `3.0`.
fn is_version(segment: &str) -> bool {
    let numbers = segment.strip_prefix('v').unwrap_or(segment);
    (numbers.len() < segment.len() || numbers.contains('.'))
        && numbers.len() <= 8
        && numbers
            .split('.')
            .all(|number| (1..=2).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_registered(tracker: &Tracker, text: &str, media: Media) -> bool {
    !tracker.hits(text, media).is_empty()
}

/// The names of a body's fields, sorted; those that are data, or look like it, read `{key}`.
fn fields(tracker: &Tracker, bytes: &[u8], media: Media) -> Vec<String> {
    let mut keys = Keys::default();
    match media {
        Media::Json => {
            // What is broken off or nested too deep gives the names up to there.
            let _ = (&mut keys).deserialize(&mut serde_json::Deserializer::from_slice(bytes));
        }
        Media::Form => {
            for (key, _) in form_urlencoded::parse(bytes).take(4096) {
                keys.add(&key);
            }
        }
        Media::Text | Media::Url => {}
    }
    // One scan over all names tells whether any of them needs a closer look.
    let together = keys.names.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
    let suspicious = !together.is_empty() && is_registered(tracker, &together, Media::Text);
    let mut fields: BTreeSet<String> = keys
        .names
        .into_iter()
        .filter(|name| {
            let kept = !suspicious || !is_registered(tracker, name, Media::Text);
            keys.hidden |= !kept;
            kept
        })
        .collect();
    if keys.hidden {
        fields.insert("{key}".into());
    }
    fields.into_iter().collect()
}

#[derive(Default)]
struct Keys {
    names: BTreeSet<String>,
    /// Some were left out.
    hidden: bool,
}

impl Keys {
    fn add(&mut self, key: &str) {
        if self.names.contains(key) {
            return;
        }
        if is_identifier_like(key) && self.names.len() < MAX_FIELDS {
            self.names.insert(key.to_owned());
        } else {
            self.hidden = true;
        }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Keys {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Keys {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            self.add(&key);
            map.next_value_seed(&mut *self)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element_seed(&mut *self)?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

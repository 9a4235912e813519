//! What an event keeps of a message: its shape, and where it went, without a value in it.

use std::borrow::Cow;
use std::collections::BTreeMap;

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
                payload.insert("fields".into(), fields.into());
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
fn fields(tracker: &Tracker, bytes: &[u8], media: Media) -> Vec<Json> {
    let mut keys = Keys::default();
    match media {
        Media::Json => keys.json(bytes),
        Media::Form => {
            for (key, _) in form_urlencoded::parse(bytes).take(4096) {
                keys.add(key);
            }
        }
        Media::Text | Media::Url => {}
    }
    let Keys { names, mut hidden, .. } = keys;
    let mut names: Vec<Cow<'_, str>> = names.into_keys().collect();
    // One scan over all names tells whether any of them needs a closer look.
    let together = names.join("\n");
    if !together.is_empty() && is_registered(tracker, &together, Media::Text) {
        let before = names.len();
        names.retain(|name| !is_registered(tracker, name, Media::Text));
        hidden |= names.len() < before;
    }
    // Behind every letter.
    let key = hidden.then_some("{key}");
    names.iter().map(|name| &**name).chain(key).map(Json::from).collect()
}

/// Names of fields. Those of records in a list come in the same order again and again.
#[derive(Default)]
struct Keys<'b> {
    /// With the order in which they were met.
    names: BTreeMap<Cow<'b, str>, usize>,
    met: Vec<Cow<'b, str>>,
    /// Where in `met` the next one may stand.
    next: usize,
    /// Some were left out.
    hidden: bool,
}

impl<'b> Keys<'b> {
    /// The keys of objects: texts that a colon follows. What is no JSON gives what looks like it.
    fn json(&mut self, bytes: &'b [u8]) {
        let mut rest = bytes;
        while let Some((text, escaped, after)) = next_text(rest) {
            rest = after;
            if !after.trim_ascii_start().starts_with(b":") {
                continue;
            }
            match str::from_utf8(text) {
                Ok(key) if !escaped => self.add(Cow::Borrowed(key)),
                Ok(key) => match serde_json::from_str::<String>(&format!("\"{key}\"")) {
                    Ok(key) => self.add(Cow::Owned(key)),
                    Err(_) => self.hidden = true,
                },
                Err(_) => self.hidden = true,
            }
        }
    }

    fn add(&mut self, key: Cow<'b, str>) {
        if self.met.get(self.next) == Some(&key) {
            self.next += 1;
        } else if let Some(at) = self.names.get(&key) {
            self.next = at + 1;
        } else if is_identifier_like(&key) && self.names.len() < MAX_FIELDS {
            self.names.insert(key.clone(), self.met.len());
            self.met.push(key);
            self.next = self.met.len();
        } else {
            self.hidden = true;
        }
    }
}

/// The next text in quotes, whether it has escapes, and what follows it.
fn next_text(bytes: &[u8]) -> Option<(&[u8], bool, &[u8])> {
    let (_, text) = bytes.split_at_checked(memchr::memchr(b'"', bytes)? + 1)?;
    let (mut end, mut escaped) = (0, false);
    loop {
        end += memchr::memchr2(b'"', b'\\', text.get(end..)?)?;
        let (inside, after) = text.split_at_checked(end)?;
        match after.split_first()? {
            (b'"', after) => return Some((inside, escaped, after)),
            _ => (end, escaped) = (end + 2, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(bytes: &[u8]) -> (Vec<String>, bool) {
        let mut keys = Keys::default();
        keys.json(bytes);
        (keys.names.keys().map(ToString::to_string).collect(), keys.hidden)
    }

    fn all(value: &Json, names: &mut std::collections::BTreeSet<String>) {
        match value {
            Json::Object(members) => members.iter().for_each(|(key, value)| {
                names.insert(key.clone());
                all(value, names);
            }),
            Json::Array(values) => values.iter().for_each(|value| all(value, names)),
            _ => {}
        }
    }

    fn json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            any::<f64>().prop_map(Json::from),
            ".{0,12}".prop_map(Json::from),
            r#"[\":{}a ]{0,8}"#.prop_map(Json::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
                prop::collection::btree_map(r#"[a-c\":\u{e9}]{1,3}"#, inner, 0..6).prop_map(Json::from_iter),
            ]
        })
    }

    proptest! {
        #[test]
        fn names_are_those_that_a_parser_finds(value in json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let mut expected = std::collections::BTreeSet::new();
            all(&value, &mut expected);
            let hidden = expected.len();
            expected.retain(|name| is_identifier_like(name));
            let hidden = hidden > expected.len();
            prop_assert_eq!(names(text.unwrap_or_default().as_bytes()), (expected.into_iter().collect(), hidden));
        }
    }

    #[test]
    fn what_is_broken_off_gives_the_names_up_to_there() {
        assert_eq!(
            names(br#"{"a": 1, "b": [{"c": "x\"}"#),
            (vec!["a".into(), "b".into(), "c".into()], false)
        );
        assert_eq!(names(br#"{"a": 1, "b"#), (vec!["a".into()], false));
        assert_eq!(names(br#"{"\ud800": 1, "a\u0062" : 2}"#), (vec!["ab".into()], true));
    }
}

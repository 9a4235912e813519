//! From any body that ureq takes: what the hook sees of it, and then the body itself, as ureq would send it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use ureq::http::{HeaderMap, HeaderValue, header};
use ureq::{AsSendBody, Error, SendBody};

use super::ahead::Ahead;
use super::framing::Framing;
use super::{Answer, held};
use crate::hooks::egress::{Body, Watcher};

/// What a body says of itself, that the request must say if its body is replaced.
#[derive(Default)]
pub(super) struct Said<'s> {
    length: Option<u64>,
    content_type: Option<&'s HeaderValue>,
}

impl<'s> Said<'s> {
    pub(super) fn content_type(content_type: Option<&'s HeaderValue>) -> Self {
        Said {
            length: None,
            content_type,
        }
    }

    /// As ureq adds it: unless the request says it by itself.
    pub(super) fn add(&self, headers: &mut HeaderMap) {
        if let Some(content_type) = self.content_type
            && !headers.contains_key(header::CONTENT_TYPE)
        {
            headers.append(header::CONTENT_TYPE, content_type.clone());
        }
        self.add_length(headers);
    }

    /// The length alone.
    pub(super) fn add_length(&self, headers: &mut HeaderMap) {
        if let Some(length) = self.length
            && !headers.contains_key(header::CONTENT_LENGTH)
            && !headers.contains_key(header::TRANSFER_ENCODING)
        {
            headers.append(header::CONTENT_LENGTH, length.into());
        }
    }
}

/// Shows a body to `begin`, up to `most` bytes of it, and then gives it to `send`. `begin` gets the type that
/// the body says it has. `said`: see [`Framing::said`].
pub(super) fn carry<T: AsSendBody, S>(
    mut data: T,
    most: usize,
    said: Option<Framing>,
    begin: impl FnOnce(Body<'_>, Option<&str>) -> Result<(S, Option<Watcher>), Error>,
    send: impl FnOnce(S, SendBody<'_>, &Said<'_>) -> Answer,
) -> Answer {
    let content_type = None;
    if held::is::<T, ()>() {
        let (started, _) = begin(Body::Empty, None)?;
        return send(started, data.as_body(), &Said::default());
    }
    if let Some(mut bytes) = held::bytes(&data) {
        let (started, _) = begin(in_memory(bytes), None)?;
        return send(started, bytes.as_body(), &Said::default());
    }
    if let Some(mut file) = held::file(&data)
        && let Some((start, ahead)) = look(file, most)
    {
        let beginning = &ahead.bytes;
        let seen = match ahead.whole {
            true => in_memory(beginning),
            false => Body::Long {
                beginning,
                rest: file,
                content_type,
            },
        };
        let begun = begin(seen, None);
        // It is sent from where it stood, whether it was read or not.
        file.seek(SeekFrom::Start(start))?;
        let (started, _) = begun?;
        return send(started, file.as_body(), &Said::default());
    }
    let framing = said.unwrap_or_else(|| Framing::of(&mut data));
    if framing.is_none() {
        let (started, _) = begin(Body::Empty, None)?;
        return send(started, data.as_body(), &Said::default());
    }
    let mut reader = data.as_body().into_reader();
    let mut ahead = Ahead::read(&mut reader, most);
    let beginning = &ahead.bytes;
    let seen = match ahead.whole {
        true => in_memory(beginning),
        false => Body::Stream {
            beginning,
            content_type,
        },
    };
    let named = framing.content_type.as_ref();
    let (started, watcher) = begin(seen, named.and_then(|value| value.to_str().ok()))?;
    if ahead.whole && framing.length == Some(ahead.bytes.len() as u64) {
        return send(started, ahead.bytes.as_body(), &Said::content_type(named));
    }
    let said = Said {
        length: framing.length,
        content_type: named,
    };
    send(
        started,
        SendBody::from_reader(&mut ahead.replay(&mut reader, watcher)),
        &said,
    )
}

fn in_memory(bytes: &[u8]) -> Body<'_> {
    match bytes {
        [] => Body::Empty,
        bytes => Body::Bytes {
            bytes,
            content_type: None,
        },
    }
}

/// The beginning of a file from where it stands, and where that is; `None` for what cannot be wound back.
fn look(mut file: &File, most: usize) -> Option<(u64, Ahead)> {
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let start = file.stream_position().ok()?;
    let ahead = Ahead::read(&mut file as &mut dyn Read, most);
    Some((start, ahead))
}

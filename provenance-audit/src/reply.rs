//! What goes out: answers and refusals, with the headers that all have.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use provenance::Config;
use provenance::store::{EventQuery, Reader};
use serde::Serialize;
use serde_json::json;

use crate::export::{self, Format};

/// Exports at the same time: each has a reader and a thread.
const EXPORTS: usize = 2;

pub(crate) const JSON: &str = "application/json; charset=utf-8";
const HEADERS: [(&str, &str); 4] = [
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
];

/// One response. To `HEAD` the body is the one that `GET` gets, and must not be sent.
#[derive(Debug)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// All headers, but those of the transport (length, date, connection).
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// JSON, or what `content-type` says.
    pub body: Body,
}

/// The body of a response.
#[derive(Debug)]
#[non_exhaustive]
pub enum Body {
    /// All of it.
    Whole(Vec<u8>),
    /// An export: longer than memory should be, so it is written while it is sent.
    Stream(Box<Stream>),
}

impl Body {
    /// All of it, in memory.
    ///
    /// # Errors
    /// The evidence cannot be read to the end of a stream.
    pub fn into_bytes(self) -> Result<Vec<u8>, export::Error> {
        match self {
            Body::Whole(bytes) => Ok(bytes),
            Body::Stream(stream) => {
                let mut bytes = Vec::new();
                Stream::write(*stream, &mut bytes)?;
                Ok(bytes)
            }
        }
    }
}

/// An export that is to be written.
pub struct Stream {
    pub(crate) reader: Reader,
    pub(crate) query: EventQuery,
    pub(crate) format: Format,
    pub(crate) config: Config,
    /// Given back at the end.
    pub(crate) _turn: Turn,
}

impl Stream {
    /// Writes it.
    ///
    /// # Errors
    /// The evidence cannot be read, or `out` takes no more: what was written is not whole, and must not look so.
    pub fn write(mut self, out: &mut dyn std::io::Write) -> Result<(), export::Error> {
        self.format
            .write(&mut self.reader, &self.query, &self.config, out, &mut || {})
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

/// One of the exports that are made at the same time.
pub(crate) struct Turn(Arc<AtomicUsize>);

impl Turn {
    /// # Errors
    /// 503: others are being made.
    pub(crate) fn take(making: &Arc<AtomicUsize>) -> Result<Self, Refusal> {
        let turn = Turn(making.clone());
        if making.fetch_add(1, Ordering::AcqRel) < EXPORTS {
            return Ok(turn);
        }
        let refusal = Refusal::new(503, "two exports are being made already: ask again when one is done");
        Err(refusal.with("retry-after", "10"))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An answer on its way out.
pub(crate) struct Reply {
    pub(crate) status: u16,
    content_type: &'static str,
    /// `content-security-policy`.
    pub(crate) policy: &'static str,
    pub(crate) headers: Vec<(&'static str, Cow<'static, str>)>,
    body: Body,
}

/// Of what is no page.
const NO_CONTENT: &str = "default-src 'none'; frame-ancestors 'none'";

impl Reply {
    pub(crate) fn new(content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Reply {
            status: 200,
            content_type,
            policy: NO_CONTENT,
            headers: Vec::new(),
            body: Body::Whole(body.into()),
        }
    }

    /// What is written while it is sent, as a file to be kept.
    pub(crate) fn stream(stream: Stream) -> Self {
        let name = format!("attachment; filename=\"provenance.{}\"", stream.format.extension());
        let reply = Reply {
            body: Body::Stream(Box::new(stream)),
            ..Reply::new("", "")
        };
        reply.with("content-disposition", name)
    }

    pub(crate) fn json(answer: &impl Serialize) -> Result<Self, Refusal> {
        let body = serde_json::to_vec(answer).map_err(|_| Refusal::unshown())?;
        Ok(Reply::new(JSON, body))
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn into_response(self) -> Response {
        let media = match &self.body {
            Body::Whole(_) => self.content_type,
            Body::Stream(stream) => stream.format.media_type(),
        };
        let mut headers: Vec<(&'static str, Cow<'static, str>)> = vec![
            ("content-type", media.into()),
            ("content-security-policy", self.policy.into()),
        ];
        headers.extend(HEADERS.map(|(name, value)| (name, value.into())));
        headers.extend(self.headers);
        Response {
            status: self.status,
            headers,
            body: self.body,
        }
    }
}

/// Why a request gets no answer.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) message: String,
    pub(crate) headers: Vec<(&'static str, Cow<'static, str>)>,
}

impl Refusal {
    pub(crate) fn unshown() -> Self {
        Refusal::new(500, "the evidence cannot be shown as JSON")
    }

    /// `message` goes out as it is: it must not hold anything of the request but a checked parameter name.
    pub(crate) fn new(status: u16, message: impl Into<String>) -> Self {
        let headers = match status {
            401 => vec![("www-authenticate", "Bearer".into())],
            _ => Vec::new(),
        };
        Refusal {
            status,
            message: message.into(),
            headers,
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn into_reply(self) -> Reply {
        let body = json!({ "error": self.message }).to_string();
        Reply {
            status: self.status,
            headers: self.headers,
            ..Reply::new(JSON, body)
        }
    }
}

/// What is answered where a request could not be read, or its handler is gone.
#[cfg(any(feature = "axum", feature = "server"))]
pub(crate) fn unread(status: u16) -> Response {
    let message = match status {
        408 => "the body did not come in time",
        413 => "the body is longer than 64 KiB",
        500 => "the request was not answered",
        _ => "the body cannot be read",
    };
    Refusal::new(status, message).into_reply().into_response()
}

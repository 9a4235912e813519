//! Bodies that are read along while others read them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use serde::de::DeserializeSeed;

use super::multipart::{Fed, Part, Parts};
use super::walk::Walk;
use super::{Settle, read_pairs};
use crate::hooks::input::{self, Collector};
use crate::scope::Scope;
use crate::tracked::{Value, Visitor};
use crate::tracker::{self, BlindSpot, Tracker};

/// Most bytes of a body that are kept to be read once it is whole.
const BODY_CAP: usize = 256 * 1024;

/// The body of a request, read along if it is of a kind that can be read.
pub(super) fn watched(body: Body, headers: &HeaderMap, scope: &Scope, route: &Arc<str>) -> Body {
    match Reader::of(headers) {
        Some(reader) => Body::new(Watched {
            inner: body,
            seen: Some(Seen {
                reader,
                scope: scope.clone(),
                route: route.clone(),
            }),
        }),
        None => body,
    }
}

/// The response, its body made in the request's scope if it is made while it is sent.
pub(super) fn followed(response: Response, settle: Settle) -> Response {
    tracker::with(|tracker| input::settle_in(tracker, &settle.0));
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    response.map(|inner| Body::new(Followed { inner, settle }))
}

struct Watched {
    inner: Body,
    /// `None` once there is nothing more to learn.
    seen: Option<Seen>,
}

struct Seen {
    reader: Reader,
    scope: Scope,
    route: Arc<str>,
}

enum Reader {
    Form(Vec<u8>),
    Json(Vec<u8>),
    Multipart(Box<Parts>),
}

impl Reader {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let essence = content_type.split(';').next()?.trim().to_ascii_lowercase();
        match &*essence {
            "application/x-www-form-urlencoded" => Some(Reader::Form(Vec::new())),
            "multipart/form-data" => Parts::new(content_type).map(|parts| Reader::Multipart(Box::new(parts))),
            _ => is_json(&essence).then(|| Reader::Json(Vec::new())),
        }
    }
}

/// Whether a media type is JSON's, or ends in `+json`.
pub(super) fn is_json(essence: &str) -> bool {
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

impl Watched {
    /// One frame that the handler is about to get.
    fn watch(&mut self, data: &Bytes) {
        let Some(seen) = &mut self.seen else { return };
        let more = match &mut seen.reader {
            Reader::Form(bytes) | Reader::Json(bytes) => {
                let fits = bytes.len().saturating_add(data.len()) <= BODY_CAP;
                if fits {
                    bytes.extend_from_slice(data);
                } else {
                    tracker::with(|tracker| tracker.blind_spot(BlindSpot::CappedInput, &seen.route));
                }
                fits
            }
            Reader::Multipart(parts) => {
                let (scope, route) = (&seen.scope, &seen.route);
                let fed = tracker::with(|tracker| parts.feed(data, |part| read_part(tracker, &part, scope, route)));
                if fed == Some(Fed::Unreadable) {
                    tracker::with(|tracker| tracker.blind_spot(BlindSpot::CappedInput, route));
                }
                fed == Some(Fed::More)
            }
        };
        if !more {
            self.seen = None;
        }
    }

    /// The handler has read it all.
    fn finish(&mut self) {
        let Some(Seen { reader, scope, route }) = self.seen.take() else {
            return;
        };
        tracker::with(|tracker| match reader {
            Reader::Form(bytes) => {
                let mut collector = Collector::new(tracker, "form");
                read_pairs(&bytes, &mut Visitor::new(&mut collector));
                input::leave_pending(tracker, &scope, collector.finish(&route));
            }
            Reader::Json(bytes) => {
                let mut collector = Collector::new(tracker, "json");
                if is_read(&bytes, &mut Visitor::new(&mut collector)) {
                    input::leave_pending(tracker, &scope, collector.finish(&route));
                } else {
                    tracker.blind_spot(BlindSpot::CappedInput, &route);
                }
            }
            // Its parts were taken one by one; without its closing boundary it was cut off.
            Reader::Multipart(_) => tracker.blind_spot(BlindSpot::CappedInput, &route),
        });
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.watch(data);
                }
                // Who knows the length need not ask for an end.
                if self.inner.is_end_stream() {
                    self.finish();
                }
            }
            Poll::Ready(None) => self.finish(),
            // The handler sees the error; what came before it is no input that was taken.
            Poll::Ready(Some(Err(_))) => self.seen = None,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// `false` where the bytes are no JSON, or nested deeper than serde_json follows (128).
fn is_read(json: &[u8], visitor: &mut Visitor<'_>) -> bool {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    Walk(visitor).deserialize(&mut deserializer).is_ok() && deserializer.end().is_ok()
}

fn read_part(tracker: &Tracker, part: &Part<'_>, scope: &Scope, route: &str) {
    let (name, bytes) = match part {
        Part::Value { name, bytes, .. } => (*name, *bytes),
        Part::TooLong => return tracker.blind_spot(BlindSpot::CappedInput, route),
        Part::File => return tracker.blind_spot(BlindSpot::UnvisitedInput, &format!("{route} (file part)")),
    };
    let mut collector = Collector::new(tracker, "multipart");
    let mut readable = true;
    Visitor::new(&mut collector).entry(name, |visitor| match part {
        Part::Value { json: true, .. } => readable = is_read(bytes, visitor),
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => visitor.value(Value::Text(text)),
            Err(_) => readable = false,
        },
    });
    if readable {
        input::leave_pending(tracker, scope, collector.finish(route));
    } else {
        tracker.blind_spot(BlindSpot::CappedInput, route);
    }
}

/// A response's body that is made in the scope of its request.
struct Followed {
    inner: Body,
    settle: Settle,
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let _in_scope = self.settle.0.enter();
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

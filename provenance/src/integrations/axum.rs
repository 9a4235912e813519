//! axum 0.8: a layer that gives every handler its scope and reads its parameters, and
//! extractors that can be visited.
//!
//! ```
//! # use axum::{Router, routing::post};
//! let app: Router = Router::new()
//!     .route("/signup", post(async || "ok"))
//!     .layer(provenance::axum::layer());
//! ```
//! The layer takes nothing from the handler and decides nothing: it watches the body while the
//! handler's own extractors read it, so limits, errors and streaming stay as they are.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request};
use axum::http::{HeaderMap, Method, header};
use axum::response::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess};
use tower_layer::Layer;
use tower_service::Service;

use crate::hooks::input::{self, Collected, Collector};
use crate::probe::Inner;
use crate::scope::{Scope, random_id, scoped_in};
use crate::tracked::{Tracked, Value, Visitor};
use crate::tracker::{self, BlindSpot};

/// Most bytes of a body that are kept to be read once it is whole.
const BODY_CAP: usize = 256 * 1024;

/// A layer that gives each request a [`Scope`] (method, route template, request id, trace id) and
/// records query, path, form and JSON parameters by their configured names (`input_fields`).
pub fn layer() -> ProvenanceLayer {
    ProvenanceLayer(())
}

/// Made by [`layer`].
#[derive(Clone, Copy, Debug)]
pub struct ProvenanceLayer(());

impl<S> Layer<S> for ProvenanceLayer {
    type Service = ProvenanceService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ProvenanceService { inner }
    }
}

/// A service inside [`layer`].
#[derive(Clone, Debug)]
pub struct ProvenanceService<S> {
    inner: S,
}

impl<S> Service<Request> for ProvenanceService<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        Box::pin(async move {
            if tracker::with(|_| ()).is_none() {
                return inner.call(request).await;
            }
            let (mut parts, body) = request.into_parts();
            let route: Arc<str> = match parts.extensions.get::<MatchedPath>() {
                Some(path) => format!("{} {}", known_method(&parts.method), path.as_str()).into(),
                None => format!("{} (no route)", known_method(&parts.method)).into(),
            };
            let scope = Scope::with(
                format!("HTTP {route}").into(),
                request_id(&parts.headers),
                trace_id(&parts.headers),
            );
            let path = RawPathParams::from_request_parts(&mut parts, &()).await.ok();
            let query = parts.uri.query().map(str::to_owned);
            tracker::with(|tracker| {
                let mut collector = Collector::new(tracker, "path");
                let mut visitor = Visitor::new(&mut collector);
                for (name, value) in path.iter().flatten() {
                    visitor.entry(name, |visitor| visitor.value(Value::Text(value)));
                }
                input::leave_pending(&scope, collector.finish(&route));
                if let Some(query) = &query {
                    input::leave_pending(&scope, read_pairs(tracker, "query", query.as_bytes(), &route));
                }
            });
            let body = Body::new(Watched::new(body, media(&parts.headers), scope.clone(), route));
            let request = Request::from_parts(parts, body);
            let _settle = Settle(scope.clone());
            scoped_in(Some(scope), inner.call(request)).await
        })
    }
}

/// Records what is still pending at the end, also where the client went away before it.
struct Settle(Scope);

impl Drop for Settle {
    fn drop(&mut self) {
        tracker::with(|tracker| input::settle_in(tracker, &self.0));
    }
}

fn known_method(method: &Method) -> &str {
    let known = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
    ];
    if known.contains(method) {
        method.as_str()
    } else {
        "OTHER"
    }
}

/// The caller's `x-request-id` where it is plainly an id, and nobody's value; else a random one.
fn request_id(headers: &HeaderMap) -> Arc<str> {
    let given = headers.get("x-request-id").and_then(|value| value.to_str().ok());
    let plain = |id: &&str| {
        (8..=64).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && id.bytes().any(|b| b.is_ascii_digit())
            && id.bytes().any(|b| b.is_ascii_alphabetic())
    };
    let nobodys = |id: &&str| tracker::with(|tracker| !tracker.tells(id)).unwrap_or(false);
    given.filter(plain).filter(nobodys).map_or_else(random_id, Arc::from)
}

/// The trace id of a W3C `traceparent` (<https://www.w3.org/TR/trace-context/#traceparent-header>).
fn trace_id(headers: &HeaderMap) -> Option<Arc<str>> {
    let header = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = header.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let well_formed = hex(version, 2) && version != "ff" && hex(trace, 32) && hex(parent, 16) && hex(flags, 2);
    (well_formed && trace.bytes().any(|b| b != b'0')).then(|| trace.into())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Media {
    Form,
    Json,
}

fn media(headers: &HeaderMap) -> Option<Media> {
    let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?.to_ascii_lowercase();
    let essence = content_type.split(';').next()?.trim();
    if essence == "application/x-www-form-urlencoded" {
        Some(Media::Form)
    } else if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        Some(Media::Json)
    } else {
        None
    }
}

/// A body that is read along as the handler reads it.
struct Watched {
    inner: Body,
    seen: Option<Seen>,
}

struct Seen {
    media: Media,
    bytes: Vec<u8>,
    scope: Scope,
    route: Arc<str>,
}

impl Watched {
    fn new(inner: Body, media: Option<Media>, scope: Scope, route: Arc<str>) -> Self {
        let seen = media.map(|media| Seen {
            media,
            bytes: Vec::new(),
            scope,
            route,
        });
        Watched { inner, seen }
    }

    fn watch(&mut self, data: &[u8]) {
        let Some(seen) = &mut self.seen else { return };
        if seen.bytes.len() + data.len() > BODY_CAP {
            tracker::with(|tracker| tracker.blind_spot(BlindSpot::CappedInput, &seen.route));
            self.seen = None;
        } else {
            seen.bytes.extend_from_slice(data);
        }
    }

    fn finish(&mut self) {
        let Some(seen) = self.seen.take() else { return };
        tracker::with(|tracker| {
            let collected = match seen.media {
                Media::Form => Some(read_pairs(tracker, "form", &seen.bytes, &seen.route)),
                Media::Json => read_json(tracker, &seen.bytes, &seen.route),
            };
            match collected {
                Some(collected) => input::leave_pending(&seen.scope, collected),
                None => tracker.blind_spot(BlindSpot::CappedInput, &seen.route),
            }
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

fn read_pairs(tracker: &tracker::Tracker, part: &'static str, bytes: &[u8], route: &str) -> Collected {
    let mut collector = Collector::new(tracker, part);
    let mut visitor = Visitor::new(&mut collector);
    for (name, value) in form_urlencoded::parse(bytes) {
        visitor.entry(&name, |visitor| visitor.value(Value::Text(&value)));
    }
    collector.finish(route)
}

/// `None` where the body is no JSON, or nested deeper than serde_json follows (128).
fn read_json(tracker: &tracker::Tracker, bytes: &[u8], route: &str) -> Option<Collected> {
    let mut collector = Collector::new(tracker, "json");
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let walked = Walk(&mut Visitor::new(&mut collector)).deserialize(&mut deserializer);
    (walked.is_ok() && deserializer.end().is_ok()).then(|| collector.finish(route))
}

/// Visits JSON while it is parsed, without building it.
struct Walk<'a, 'v>(&'a mut Visitor<'v>);

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> serde::de::Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.value(Value::Bool(value));
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.0.value(Value::Integer(value.into()));
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.0.value(Value::Integer(value.into()));
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.0.value(Value::Float(value));
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.0.value(Value::Text(value));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element_seed(Walk(&mut *self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(key) = members.next_key::<std::borrow::Cow<'_, str>>()? {
            let mut walked = None;
            self.0
                .entry(&key, |visitor| walked = Some(members.next_value_seed(Walk(visitor))));
            match walked {
                Some(result) => result?,
                // The visitor does not go deeper; the parser still has to.
                None => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

macro_rules! extractor {
    ($($name:ident),*) => {$(
        impl<T: Tracked> Tracked for axum::extract::$name<T> {
            fn visit(&self, visitor: &mut Visitor<'_>) {
                self.0.visit(visitor);
            }
        }

        // What is `Serialize` alone is read by name.
        impl<T> Inner for axum::extract::$name<T> {
            type Inner = T;
            fn inner(&self) -> Option<&T> {
                Some(&self.0)
            }
        }
    )*};
}
extractor!(Form, Json, Path, Query);

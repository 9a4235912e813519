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
//!
//! Put it on with `Router::layer`, which runs it after routing: around a whole router it does not
//! know the route, and every request reads `HTTP GET (no route)`, as those that meet a fallback do.
//! A second layer inside the first leaves the request to the first.
//!
//! # What it reads
//!
//! | part | by which name |
//! |---|---|
//! | path, query, form, JSON | the parameter's, as in `input_fields` |
//! | text parts of `multipart/form-data` | the part's, each as soon as the handler has read it; files are counted, not read |
//! | headers | only those in `input_fields`, written `header:x-user-email` |
//! | cookies | only those in `input_fields`, written `cookie:contact`, percent escapes undone |
//!
//! Parameters that are not configured are recorded by name and category `unknown`; headers and cookies
//! that are not configured are not looked at. A form or JSON body above 256 KiB, and a text part above
//! 64 KiB, pass unread and are counted (`capped_input`), as is what cannot be decoded.
//!
//! # How long the scope lasts
//!
//! From the head of the request to the end of the response's body, if that is streamed. A task that
//! the handler spawns takes the scope along by [`scoped`](crate::scoped) or
//! [`in_scope`](crate::in_scope). So does a web socket:
//!
//! ```
//! # use axum::{response::Response, extract::Request};
//! # struct WebSocketUpgrade; struct WebSocket;
//! # impl WebSocketUpgrade { fn on_upgrade<F: Future>(self, _: impl FnOnce(WebSocket) -> F) -> Response { Response::default() } }
//! # async fn talk(socket: WebSocket) {}
//! # use std::future::Future;
//! async fn chat(upgrade: WebSocketUpgrade) -> Response {
//!     let scope = provenance::Scope::current();
//!     upgrade.on_upgrade(async move |socket| match scope {
//!         Some(scope) => scope.run(talk(socket)).await,
//!         None => talk(socket).await,
//!     })
//! }
//! ```

mod body;
mod multipart;
mod walk;

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::response::Response;
use percent_encoding::percent_decode_str;
use tower_layer::Layer;
use tower_service::Service;

use crate::hooks::input::{self, Collector};
use crate::probe::Inner;
use crate::scope::{Scope, scoped_in};
use crate::tracked::{Tracked, Value, Visitor};
use crate::tracker::{self, BlindSpot, Place, Tracker};

/// A layer that gives each request a [`Scope`] (method, route template, request id, trace id) and
/// records its parameters by their configured names (`input_fields`).
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

/// On a request that a layer of ours has in hand.
#[derive(Clone)]
struct InHand;

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
            if request.extensions().get::<InHand>().is_some() || tracker::with(|_| ()).is_none() {
                return inner.call(request).await;
            }
            let (mut parts, body) = request.into_parts();
            let (route, source) = route(&parts);
            let scope = Scope::with(source, request_id(&parts.headers), trace_id(&parts.headers));
            let path = RawPathParams::from_request_parts(&mut parts, &()).await.ok();
            tracker::with(|tracker| read_head(tracker, &parts, path.as_ref(), &scope, &route));
            let body = body::watched(body, &parts.headers, &scope, &route);
            parts.extensions.insert(InHand);
            // Where the handler panics, or the client goes away, what it has read was taken all the same.
            let settle = Settle(scope.clone());
            let answer = {
                let _in_scope = scope.enter();
                inner.call(Request::from_parts(parts, body))
            };
            let response = scoped_in(Some(scope), answer).await?;
            Ok(body::followed(response, settle))
        })
    }
}

/// Records what is still pending when it is dropped.
struct Settle(Scope);

impl Drop for Settle {
    fn drop(&mut self) {
        tracker::with(|tracker| input::settle_in(tracker, &self.0));
    }
}

/// Routes of this thread, and what is said of values from there.
struct Route {
    method: Method,
    path: Arc<str>,
    named: (Arc<str>, Arc<str>),
}

/// Most routes that a thread remembers.
const MAX_ROUTES: usize = 256;

thread_local! {
    static ROUTES: RefCell<Vec<Route>> = const { RefCell::new(Vec::new()) };
}

/// Method and route template (never the path itself, which holds values), and with it the source that they are.
fn route(parts: &Parts) -> (Arc<str>, Arc<str>) {
    let path = parts
        .extensions
        .get::<MatchedPath>()
        .map_or("(no route)", MatchedPath::as_str);
    let is = |route: &Route| route.method == parts.method && *route.path == *path;
    let known = ROUTES.try_with(|routes| Some(routes.try_borrow().ok()?.iter().find(|route| is(route))?.named.clone()));
    if let Ok(Some(named)) = known {
        return named;
    }
    let method = known_method(&parts.method);
    let route = format!("{method} {path}");
    let named: (Arc<str>, Arc<str>) = (route.as_str().into(), format!("HTTP {route}").into());
    // A client may send any method.
    if method == parts.method.as_str() {
        let _ = ROUTES.try_with(|routes| {
            if let Ok(mut routes) = routes.try_borrow_mut()
                && routes.len() < MAX_ROUTES
            {
                routes.push(Route {
                    method: parts.method.clone(),
                    path: path.into(),
                    named: named.clone(),
                });
            }
        });
    }
    named
}

/// Leaves on the scope what stands before the body.
fn read_head(tracker: &Tracker, parts: &Parts, path: Option<&RawPathParams>, scope: &Scope, route: &Arc<str>) {
    let read = |part, visit: &mut dyn FnMut(&mut Visitor<'_>)| {
        let mut collector = Collector::new(tracker, part);
        visit(&mut Visitor::new(&mut collector));
        input::leave_pending(tracker, scope, collector.finish(route));
    };
    if let Some(path) = path {
        read("path", &mut |visitor| {
            for (name, value) in path {
                visitor.entry(name, |visitor| visitor.value(Value::Text(value)));
            }
        });
    }
    if let Some(query) = parts.uri.query() {
        read("query", &mut |visitor| read_pairs(query.as_bytes(), visitor));
    }
    let (headers, cookies) = (tracker.inputs_in(Place::Header), tracker.inputs_in(Place::Cookie));
    let unreadable = || tracker.blind_spot(BlindSpot::CappedInput, route);
    if !headers.is_empty() {
        read("header", &mut |visitor| {
            for named in headers {
                for value in parts.headers.get_all(&*named.name) {
                    match std::str::from_utf8(value.as_bytes()) {
                        Ok(value) => visitor.entry(&named.key, |visitor| visitor.value(Value::Text(value))),
                        Err(_) => unreadable(),
                    }
                }
            }
        });
    }
    if cookies.is_empty() {
        return;
    }
    read("cookie", &mut |visitor| {
        for header in parts.headers.get_all(header::COOKIE) {
            // `a=1; b="2"` (RFC 6265, 4.2.1).
            for pair in header.as_bytes().split(|byte| *byte == b';') {
                let Ok(pair) = std::str::from_utf8(pair) else {
                    unreadable();
                    continue;
                };
                let Some((name, value)) = pair.split_once('=') else {
                    continue;
                };
                let Some(named) = cookies
                    .iter()
                    .find(|named| named.name.eq_ignore_ascii_case(name.trim()))
                else {
                    continue;
                };
                let value = value.trim();
                let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
                match percent_decode_str(quoted.unwrap_or(value)).decode_utf8() {
                    Ok(value) => visitor.entry(&named.key, |visitor| visitor.value(Value::Text(&value))),
                    Err(_) => unreadable(),
                }
            }
        }
    });
}

fn read_pairs(bytes: &[u8], visitor: &mut Visitor<'_>) {
    for (name, value) in form_urlencoded::parse(bytes) {
        visitor.entry(&name, |visitor| visitor.value(Value::Text(&value)));
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

/// The caller's `x-request-id` where it is plainly an id, and nobody's value.
fn request_id(headers: &HeaderMap) -> Option<Arc<str>> {
    let given = headers.get("x-request-id").and_then(|value| value.to_str().ok());
    let plain = |id: &&str| {
        (8..=64).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && id.bytes().any(|b| b.is_ascii_digit())
            && id.bytes().any(|b| b.is_ascii_alphabetic())
    };
    let nobodys = |id: &&str| tracker::with(|tracker| !tracker.tells(id)).unwrap_or(false);
    given.filter(plain).filter(nobodys).map(Arc::from)
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

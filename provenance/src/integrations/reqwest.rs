//! reqwest 0.13: the senders that rewritten calls go through, a middleware for reqwest-middleware, and a
//! redirect policy that records each hop.
//!
//! Under [`egress`](macro@crate::egress), `send()` and `execute(..)` of reqwest's async and blocking clients are recorded,
//! on disk before their bytes leave. A task waits for that without holding its thread. A request that the policy blocks gives
//! a [`reqwest::Error`] whose source is [`Blocked`](crate::Blocked), and opens no connection.
//!
//! A streamed body is polled ahead for as long as it need not wait, up to `egress.read_ahead`, and watched from there
//! on.
//!
//! Not seen: the free functions `reqwest::get` and `reqwest::blocking::get`, headers that a client adds by itself
//! (`default_headers`, cookies), and what a blocking client reads from a reader, its multipart forms among them;
//! those bodies are counted. Redirects are recorded hop by hop with [`redirect_policy`] alone.

use std::future::Future;
use std::pin::Pin;

use http::Extensions;
use reqwest::redirect::Policy;
use reqwest::{Request, Response};
use reqwest_middleware::{Middleware, Next};

use crate::hooks::egress::Frame;
use crate::policy;
use crate::tracker;
use exchange::{Origin, exchange};
use message::Message;

mod ahead;
mod exchange;
mod failure;
mod flight;
mod message;
mod rewritten;

/// A middleware that records every request of a client, with or without `#[egress]` around it:
/// `reqwest_middleware::ClientBuilder::new(client).with(provenance::reqwest::middleware())`.
///
/// Add it last: it records what the middlewares before it make of a request, and each retry as a send of
/// its own. Under `#[egress]` a client with middlewares needs none: the attribute puts one below them all, and
/// this one stands back, so that one send is one event. Hosts in `ignored_hosts` are left alone.
///
/// A request that the policy blocks gives [`reqwest_middleware::Error::Middleware`];
/// [`Blocked::find`](crate::Blocked::find) tells which block. What [`redirect_policy`] says of redirects holds here.
pub fn middleware() -> impl Middleware {
    outermost as Handler
}

/// A redirect policy that records each hop as a share of its own, on disk before the hop's bytes leave, and
/// otherwise follows `inner`: `Client::builder().redirect(provenance::reqwest::redirect_policy(Policy::default()))`.
///
/// A 307 or 308 sends the whole body again, to a host that the caller may never have heard of. reqwest follows
/// redirects below everything that is hooked, so without this policy the event names the first host; a second
/// one follows, `evidence: after` and `certain: false`, for the last host if the answer came from another address,
/// and hosts between them are not known.
///
/// It speaks of requests that `#[egress]` or [`middleware`] record. A hop that the policy blocks fails with an error
/// for which [`reqwest::Error::is_redirect`] holds, and for which [`Blocked::find`](crate::Blocked::find) tells
/// the block. A hop that `inner` does not follow is recorded too, with the error `not_followed`. The record is
/// waited for where reqwest asks the policy: on the thread that polls the request. A blocking client asks from
/// a thread of its own: while several requests to the same first address are under way there, their hops
/// are recorded as without this policy.
pub fn redirect_policy(inner: Policy) -> Policy {
    Policy::custom(move |attempt| flight::redirect(&inner, attempt))
}

type Answer = reqwest_middleware::Result<Response>;
type Later<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;
type Handler = for<'a> fn(Request, &'a mut Extensions, Next<'a>) -> Later<'a>;

/// On a request of a rewritten call: the middleware below all others records it, as the function's.
#[derive(Clone)]
struct Handed(Frame);

fn outermost<'a>(request: Request, extensions: &'a mut Extensions, next: Next<'a>) -> Later<'a> {
    if extensions.get::<Handed>().is_some() {
        return next.run(request, extensions);
    }
    let message = Message::of(&request);
    let is_ignored = |tracker: &tracker::Tracker| policy::is_ignored(tracker.config(), message.host());
    match tracker::with(is_ignored) {
        None | Some(true) => next.run(request, extensions),
        Some(false) => {
            Frame::seen_by_middleware();
            Box::pin(exchange(Origin::Host, request, |request| next.run(request, extensions)))
        }
    }
}

/// Below all other middlewares of a rewritten call.
fn innermost<'a>(request: Request, extensions: &'a mut Extensions, next: Next<'a>) -> Later<'a> {
    match extensions.get::<Handed>().cloned() {
        Some(Handed(frame)) => {
            let origin = Origin::Function(frame);
            Box::pin(exchange(origin, request, |request| next.run(request, extensions)))
        }
        None => next.run(request, extensions),
    }
}

//! A request under way, and where redirects take it.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use reqwest::header::{self, HeaderMap, HeaderName};
use reqwest::redirect::{Action, Attempt, Policy};
use reqwest::{Method, Request, StatusCode, Url, blocking};

use super::exchange::Origin;
use super::message::{Content, Message};
use crate::hooks::egress::{Blocked, Hop, Pending};
use crate::vocabulary::Outcome;

thread_local! {
    /// What is being polled on this thread, the innermost last.
    static POLLED: RefCell<Vec<Flight>> = const { RefCell::new(Vec::new()) };
}

/// What blocking clients have under way: they ask for redirects on threads of their own.
static ANNOUNCED: Mutex<Vec<Flight>> = Mutex::new(Vec::new());

/// A request under way. Clones are the same one.
#[derive(Clone)]
pub(super) struct Flight(Arc<Inner>);

struct Inner {
    origin: Origin,
    first: Url,
    state: Mutex<State>,
}

/// A copy of what was sent; buffered bodies are shared with it.
enum Sent {
    Async(Request),
    Blocking(blocking::Request),
}

struct State {
    request: Sent,
    /// The share of the hop under way.
    pending: Option<Pending>,
    method: Method,
    /// A redirect has dropped it.
    without_body: bool,
    hops: usize,
}

impl Flight {
    pub(super) fn of(origin: Origin, request: &Request, pending: Pending) -> Self {
        let copy = request.try_clone().unwrap_or_else(|| {
            // A stream: it is not sent twice.
            let mut copy = Request::new(request.method().clone(), request.url().clone());
            *copy.headers_mut() = request.headers().clone();
            copy
        });
        Flight::new(origin, Sent::Async(copy), pending)
    }

    pub(super) fn of_blocking(origin: Origin, request: &blocking::Request, pending: Pending) -> Self {
        let copy = request.try_clone().unwrap_or_else(|| {
            let mut copy = blocking::Request::new(request.method().clone(), request.url().clone());
            *copy.headers_mut() = request.headers().clone();
            copy
        });
        Flight::new(origin, Sent::Blocking(copy), pending)
    }

    fn new(origin: Origin, request: Sent, pending: Pending) -> Self {
        let (first, method) = (request.message().url.clone(), request.message().method.clone());
        let state = State {
            request,
            pending: Some(pending),
            method,
            without_body: false,
            hops: 0,
        };
        Flight(Arc::new(Inner {
            origin,
            first,
            state: Mutex::new(state),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client's future, with this at hand while it is polled.
    pub(super) fn carry<F: Future>(&self, client: F) -> Carried<F> {
        Carried {
            flight: self.clone(),
            client,
        }
    }

    /// Makes it known to other threads, until the guard is dropped.
    pub(super) fn announce(&self) -> Announced<'_> {
        announced().push(self.clone());
        Announced(self)
    }

    /// The one under way on this thread, or the only one that began at `first`.
    fn of_attempt(first: &Url) -> Option<Self> {
        let polled = POLLED.try_with(|polled| polled.try_borrow().ok()?.last().cloned());
        if let Ok(Some(flight)) = polled {
            return Some(flight);
        }
        let announced = announced();
        let mut same = announced.iter().filter(|flight| same_place(&flight.0.first, first));
        let flight = same.next()?;
        same.next().is_none().then(|| flight.clone())
    }

    /// A redirect is about to be followed: its target is one more recipient.
    fn hop(&self, status: StatusCode, to: &Url, from: Option<&Url>) -> Result<(), Blocked> {
        let state = &mut *self.state();
        end(state, Outcome::Status(status.as_u16()));
        state.hops += 1;
        let sent = state.request.message();
        match status {
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND if state.method == Method::POST => {
                state.method = Method::GET;
                state.without_body = true;
            }
            StatusCode::SEE_OTHER => {
                if state.method != Method::HEAD {
                    state.method = Method::GET;
                }
                state.without_body = true;
            }
            _ => {}
        }
        let mut headers = sent.headers.clone();
        let mut drop_headers = |names: &[HeaderName]| {
            for name in names {
                headers.remove(name);
            }
        };
        if state.without_body {
            drop_headers(&OF_THE_BODY);
        }
        if from.is_none_or(|from| !same_host(from, to)) {
            drop_headers(&OF_THE_HOST);
        }
        let message = Message {
            method: &state.method,
            url: to,
            headers: &headers,
            content: if state.without_body {
                Content::Nothing
            } else {
                sent.content
            },
        };
        let hop = Some(self.number(state.hops, to));
        state.pending = self.0.origin.begin(message, hop)?;
        Ok(())
    }

    fn number(&self, number: usize, to: &Url) -> Hop {
        Hop {
            number,
            elsewhere: self.0.first.host_str() != to.host_str(),
        }
    }

    /// The client did not follow after all.
    fn stay(&self) {
        end(&mut self.state(), Outcome::Error("not_followed"));
    }

    /// An answer has come.
    pub(super) fn land(&self, url: &Url, status: StatusCode) {
        let state = &mut *self.state();
        let answered = Outcome::Status(status.as_u16());
        if state.hops > 0 || same_place(&self.0.first, url) {
            return end(state, answered);
        }
        // Redirected, and nobody asked us: what it was answered at first is not known, nor which
        // of its parts went on.
        end(state, Outcome::Redirected);
        let sent = state.request.message();
        let mut headers: HeaderMap = sent.headers.clone();
        if !same_host(sent.url, url) {
            OF_THE_HOST.iter().for_each(|name| drop(headers.remove(name)));
        }
        let message = Message {
            url,
            headers: &headers,
            ..sent
        };
        let hop = Some(self.number(1, url));
        self.0.origin.after(message, hop, "redirect_followed", answered);
    }

    /// It has ended without an answer.
    pub(super) fn end(&self, outcome: Outcome) {
        end(&mut self.state(), outcome);
    }
}

fn end(state: &mut State, outcome: Outcome) {
    if let Some(pending) = state.pending.take() {
        pending.finish(outcome);
    }
}

/// What reqwest drops with a body.
const OF_THE_BODY: [HeaderName; 4] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::TRANSFER_ENCODING,
];

/// What reqwest does not pass on to another host.
const OF_THE_HOST: [HeaderName; 4] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::PROXY_AUTHORIZATION,
    header::WWW_AUTHENTICATE,
];

/// Whether two addresses are one; neither fragments nor user names are sent as part of them.
fn same_place(a: &Url, b: &Url) -> bool {
    same_host(a, b) && a.path() == b.path() && a.query() == b.query()
}

fn same_host(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host_str() == b.host_str() && a.port_or_known_default() == b.port_or_known_default()
}

impl Sent {
    fn message(&self) -> Message<'_> {
        match self {
            Sent::Async(request) => Message::of(request),
            Sent::Blocking(request) => Message::of_blocking(request),
        }
    }
}

/// Decides as `inner`, with a record for each hop.
pub(super) fn redirect(inner: &Policy, attempt: Attempt<'_>) -> Action {
    let Some(flight) = attempt.previous().first().and_then(Flight::of_attempt) else {
        return inner.redirect(attempt);
    };
    if let Err(blocked) = flight.hop(attempt.status(), attempt.url(), attempt.previous().last()) {
        return attempt.error(blocked);
    }
    let action = inner.redirect(attempt);
    // An action tells what it is in no other way.
    let shown = format!("{action:?}");
    if shown.contains("Stop") || shown.contains("Error") {
        flight.stay();
    }
    action
}

fn announced() -> MutexGuard<'static, Vec<Flight>> {
    ANNOUNCED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends [`Flight::announce`].
pub(super) struct Announced<'a>(&'a Flight);

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        announced().retain(|flight| !Arc::ptr_eq(&flight.0, &self.0.0));
    }
}

pin_project_lite::pin_project! {
    /// Made by [`Flight::carry`].
    pub(super) struct Carried<F> {
        flight: Flight,
        #[pin]
        client: F,
    }
}

impl<F: Future> Future for Carried<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        struct Leave(bool);
        impl Drop for Leave {
            fn drop(&mut self) {
                if self.0 {
                    let left = POLLED.try_with(|polled| polled.try_borrow_mut().ok()?.pop());
                    drop(left);
                }
            }
        }
        let this = self.project();
        let entered = POLLED.try_with(|polled| {
            let polled = polled.try_borrow_mut();
            polled.map(|mut polled| polled.push(this.flight.clone())).is_ok()
        });
        let _leave = Leave(entered.unwrap_or(false));
        this.client.poll(context)
    }
}

//! ureq 3: the senders that rewritten calls go through, and a middleware for agents.

use ureq::http::{HeaderMap, Method, Request, Response, Uri, header};
use ureq::middleware::{Middleware, MiddlewareNext};
use ureq::{Body as ResponseBody, Error, SendBody};

use crate::hooks::egress::{Blocked, Body, Frame, Outgoing, Pending, Target, begin};
use crate::policy;
use crate::tracker::{self, Tracker};
use crate::vocabulary::Outcome;

mod ahead;
mod carry;
mod framing;
mod held;
mod hops;
mod rewritten;

use carry::carry;
use framing::Framing;
use hops::{Hops, Trail};

type Answer = Result<Response<ResponseBody>, Error>;

/// On a request that is recorded already: the middleware passes it on.
#[derive(Clone)]
struct Recorded;

/// A middleware that records every request of an agent, with or without `#[egress]` around it:
/// `Agent::config_builder().middleware(provenance::ureq::middleware())`.
///
/// Hosts in `ignored_hosts` are left alone. A request that a rewritten call has recorded
/// passes through, so that one send is one event. Of several middlewares, those that the agent got later see
/// the request as it leaves: add this one last.
///
/// A body is read up to `egress.read_ahead` bytes before anything is sent, and passed on in the
/// same pieces and under the same headers. What is longer is scanned as it passes; there, a
/// `Content-Length` moves up among the request's own headers.
///
/// Redirects: ureq follows them below its middlewares. Every hop is recorded when the answer is there, if
/// the request was for plain `http` or the agent has `save_redirect_history(true)`; else the first
/// and the last host, and a blind spot that there may have been others. (To ask for the history of one request
/// would cost it the agent's TLS sessions.) A response of plain `http` has a `get_redirect_history()` that
/// it would not have otherwise.
pub fn middleware() -> impl Middleware {
    Recorder
}

struct Recorder;

impl Middleware for Recorder {
    fn handle(&self, request: Request<SendBody>, next: MiddlewareNext) -> Answer {
        if request.extensions().get::<Recorded>().is_some() {
            return next.handle(request);
        }
        let ahead = |tracker: &Tracker| {
            let host = request.uri().host().unwrap_or_default();
            (!policy::is_ignored(tracker.config(), host)).then(|| tracker.config().egress.read_ahead)
        };
        match tracker::with(ahead).flatten() {
            None => next.handle(request),
            Some(most) => record(request, next, most),
        }
    }
}

fn record(request: Request<SendBody>, next: MiddlewareNext, most: usize) -> Answer {
    Frame::seen_by_middleware();
    let (mut parts, body) = request.into_parts();
    let trail = Trail::of(&parts.method, &parts.uri, &parts.headers);
    let seen = parts.clone();
    let said = Framing::said(&parts.headers);
    carry(
        body,
        most,
        said,
        |body, _| {
            let url = Url::new(&seen.method, &seen.uri, "");
            let outgoing = Outgoing {
                site: None,
                recipient: None,
                purpose: None,
                target: url.target(),
                headers: headers(&seen.headers),
                body: with_type(body, content_type(&seen.headers)),
                declared: &[],
                enforceable: true,
                hop: None,
            };
            let begun = tracker::with(|tracker| begin(tracker, &outgoing)).transpose();
            let pending = begun.map_err(refused)?;
            let watcher = pending.as_ref().and_then(Pending::watcher);
            Ok((pending, watcher))
        },
        |pending, body, said| {
            // A type belongs to `send`, which is above.
            said.add_length(&mut parts.headers);
            let answer = next.handle(trail.asked(Request::from_parts(parts, body)));
            trail.finish(&Hops::Middleware, pending, answer)
        },
    )
}

fn with_type<'a>(body: Body<'a>, content_type: Option<&'a str>) -> Body<'a> {
    match body {
        Body::Bytes { bytes, .. } => Body::Bytes { bytes, content_type },
        Body::Stream { beginning, .. } => Body::Stream {
            beginning,
            content_type,
        },
        Body::Long { beginning, rest, .. } => Body::Long {
            beginning,
            rest,
            content_type,
        },
        Body::Empty | Body::Unseen => body,
    }
}

/// A request's address in parts.
struct Url<'a> {
    method: &'a str,
    uri: &'a Uri,
    query: String,
}

impl<'a> Url<'a> {
    fn new(method: &'a Method, uri: &'a Uri, queried: &str) -> Self {
        let mut query = uri.query().unwrap_or_default().to_owned();
        if !query.is_empty() && !queried.is_empty() {
            query.push('&');
        }
        query.push_str(queried);
        Url {
            method: method.as_str(),
            uri,
            query,
        }
    }

    fn target(&self) -> Target<'_> {
        let authority = self.uri.authority().map(|authority| authority.as_str());
        let userinfo = authority
            .and_then(|text| text.rsplit_once('@'))
            .map(|(userinfo, _)| userinfo);
        Target::Http {
            method: self.method,
            host: self.uri.host().unwrap_or_default(),
            path: self.uri.path(),
            query: &self.query,
            userinfo: userinfo.unwrap_or_default(),
        }
    }
}

fn headers(map: &HeaderMap) -> Vec<(&str, &[u8])> {
    map.iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect()
}

fn content_type(map: &HeaderMap) -> Option<&str> {
    map.get(header::CONTENT_TYPE)?.to_str().ok()
}

fn refused(blocked: Blocked) -> Error {
    Error::Other(Box::new(blocked))
}

fn outcome(answer: &Answer) -> Outcome {
    match answer {
        Ok(response) => Outcome::Status(response.status().as_u16()),
        Err(Error::StatusCode(code)) => Outcome::Status(*code),
        Err(Error::Other(error)) if error.is::<Blocked>() => Outcome::Blocked,
        Err(error) => Outcome::Error(kind(error)),
    }
}

/// An error as one word; its text may hold a URL.
fn kind(error: &Error) -> &'static str {
    use std::io::ErrorKind;
    match error {
        Error::Timeout(_) => "timeout",
        Error::Io(error) => match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => "timeout",
            ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::AddrNotAvailable => "connect",
            _ => "io",
        },
        Error::ConnectionFailed | Error::ConnectProxyFailed(_) | Error::InvalidProxyUrl => "connect",
        Error::HostNotFound => "dns",
        Error::Tls(_) | Error::TlsRequired | Error::RequireHttpsOnly(_) => "tls",
        Error::Http(_) | Error::BadUri(_) => "request",
        Error::Protocol(_) | Error::LargeResponseHeader(..) => "protocol",
        Error::RedirectFailed | Error::TooManyRedirects => "redirect",
        Error::BodyExceedsLimit(_) | Error::Json(_) => "body",
        // The variants of TLS back-ends exist only where the host enables them.
        other => match other.to_string().split(':').next() {
            Some("rustls" | "native-tls" | "PEM" | "der") => "tls",
            _ => "other",
        },
    }
}

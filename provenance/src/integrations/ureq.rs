//! ureq 3: the senders that rewritten calls go through, and a middleware for agents.

use std::io::Read;

use ureq::http::{HeaderMap, Method, Request, Response, Uri, header};
use ureq::middleware::{Middleware, MiddlewareNext};
use ureq::{AsSendBody, Body as ResponseBody, Error, SendBody};

use crate::hooks::egress::{Blocked, Body, Frame, Outgoing, Pending, Target, begin};
use crate::policy;
use crate::tracker;
use crate::vocabulary::Outcome;

mod rewritten;

const BODY_CAP: usize = 8 << 20;

type Answer = Result<Response<ResponseBody>, Error>;

/// On a request that is recorded already: the middleware passes it on.
#[derive(Clone)]
struct Recorded;

/// A middleware that records every request of an agent, with or without `#[egress]` around it:
/// `Agent::config_builder().middleware(provenance::ureq::middleware())`.
///
/// Hosts in `ignored_hosts` are left alone. A request that a rewritten call has recorded
/// passes through, so that one send is one event.
///
/// ureq hides how long a body is, so the middleware reads up to 8 MiB ahead and passes on
/// what it read. Up to there, a body that was a reader is sent with a `Content-Length` instead of
/// in chunks, a POST of `()` with `Content-Length: 0`, and a reader that waits for the answer to
/// its own beginning would wait forever. Above, a body of known length is sent in chunks unless
/// the request sets `Content-Length` itself, and the rest is not scanned; that is counted as a
/// blind spot.
///
/// Redirects: ureq follows them below its middlewares, so the event names the first host.
pub fn middleware() -> impl Middleware {
    Recorder
}

struct Recorder;

impl Middleware for Recorder {
    fn handle(&self, request: Request<SendBody>, next: MiddlewareNext) -> Answer {
        if request.extensions().get::<Recorded>().is_some() {
            return next.handle(request);
        }
        let ignored = |tracker: &tracker::Tracker| {
            let host = request.uri().host().unwrap_or_default();
            policy::is_ignored(tracker.config(), host)
        };
        match tracker::with(ignored) {
            None | Some(true) => next.handle(request),
            Some(false) => record(request, next),
        }
    }
}

fn record(request: Request<SendBody>, next: MiddlewareNext) -> Answer {
    Frame::seen_by_middleware();
    let (parts, body) = request.into_parts();
    let mut reader = body.into_reader();
    let mut bytes = Vec::new();
    if let Err(error) = (&mut reader).take(BODY_CAP as u64 + 1).read_to_end(&mut bytes) {
        return Err(Error::Io(error));
    }
    let whole = bytes.len() <= BODY_CAP;
    let content_type = content_type(&parts.headers);
    let seen = if bytes.is_empty() {
        Body::Empty
    } else if whole {
        Body::Bytes {
            bytes: &bytes,
            content_type,
        }
    } else {
        Body::Stream {
            beginning: &bytes,
            content_type,
        }
    };
    let url = Url::new(&parts.method, &parts.uri, "");
    let outgoing = Outgoing {
        site: None,
        recipient: None,
        purpose: None,
        target: url.target(),
        headers: headers(&parts.headers),
        body: seen,
        declared: &[],
        enforceable: true,
        hop: None,
    };
    let pending = tracker::with(|tracker| begin(tracker, &outgoing))
        .transpose()
        .map_err(refused)?;
    drop(outgoing);
    let answer = if bytes.is_empty() && !sends_a_body(&parts.method) {
        next.handle(Request::from_parts(parts, SendBody::none()))
    } else if whole {
        next.handle(Request::from_parts(parts, (&mut bytes.as_slice()).as_body()))
    } else {
        let mut rest = bytes.as_slice().chain(reader);
        next.handle(Request::from_parts(parts, SendBody::from_reader(&mut rest)))
    };
    finish(pending, &answer);
    answer
}

/// The methods that ureq gives a body, be it an empty one.
fn sends_a_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
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

fn finish(pending: Option<Pending>, answer: &Answer) {
    if let Some(pending) = pending {
        pending.finish(match answer {
            Ok(response) => Outcome::Status(response.status().as_u16()),
            Err(Error::StatusCode(code)) => Outcome::Status(*code),
            Err(error) => Outcome::Error(kind(error)),
        });
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
        Error::Other(error) if error.is::<Blocked>() => "blocked",
        // The variants of TLS back-ends exist only where the host enables them.
        other => match other.to_string().split(':').next() {
            Some("rustls" | "native-tls" | "PEM" | "der") => "tls",
            _ => "other",
        },
    }
}

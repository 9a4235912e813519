//! Redirects, as ureq follows them: by itself, below its middlewares. It tells of them afterwards.
//!
//! It never sends a body twice: 307 and 308 are followed for requests without one, anything else
//! becomes a GET. A hop gets the URL that the host before it named, and the request's own headers but for
//! `Authorization` (on another host), `Cookie` and `Content-Length`.

use ureq::http::{HeaderMap, Method, Request, Response, Uri, header};
use ureq::{Body as ResponseBody, Error, RequestExt, ResponseExt, SendBody};

use super::{Answer, Url, headers, outcome};
use crate::hooks::egress::{Body, Frame, Hop, Outgoing, Pending, record_after};
use crate::tracker::{self, BlindSpot};
use crate::vocabulary::Outcome;

/// Most hops that are recorded of one request.
const MOST: usize = 32;

/// Who tells of the hops.
pub(super) enum Hops<'f> {
    /// A rewritten call.
    Call(&'f Frame),
    Middleware,
}

/// What a request would bring to a redirect.
pub(super) struct Trail {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Trail {
    pub(super) fn of(method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        let mut headers = headers.clone();
        headers.remove(header::COOKIE);
        headers.remove(header::CONTENT_LENGTH);
        Trail {
            method: match *method {
                Method::HEAD => Method::HEAD,
                _ => Method::GET,
            },
            uri: uri.clone(),
            headers,
        }
    }

    /// Whether its history may be asked for: over TLS, a request with a configuration of its own
    /// gets none of the sessions that its agent keeps.
    pub(super) fn may_ask(&self) -> bool {
        self.uri.scheme_str() == Some("http")
    }

    /// The request, with its history asked for. For middlewares.
    pub(super) fn asked<'b>(&self, request: Request<SendBody<'b>>) -> Request<SendBody<'b>> {
        if !self.may_ask() {
            return request;
        }
        // Outside of a middleware, which this is, there would be none to configure.
        let (parts, body) = request.into_parts();
        let bare = Request::from_parts(parts.clone(), ());
        match bare.middleware_config() {
            Some(config) => {
                let (parts, ()) = config.save_redirect_history(true).build().into_parts();
                Request::from_parts(parts, body)
            }
            None => Request::from_parts(parts, body),
        }
    }

    /// Appends how the request ended, and tells where it went from there.
    pub(super) fn finish(&self, hops: &Hops<'_>, pending: Option<Pending>, answer: Answer) -> Answer {
        let Some(pending) = pending else { return answer };
        let last = outcome(&answer);
        match &answer {
            Ok(response) if self.was_redirected(response) => {
                pending.finish(Outcome::Redirected);
                self.tell(hops, response, &last);
            }
            Err(Error::TooManyRedirects | Error::RedirectFailed) => {
                pending.finish(last);
                self.unseen(hops);
            }
            _ => pending.finish(last),
        }
        answer
    }

    fn was_redirected(&self, response: &Response<ResponseBody>) -> bool {
        match response.get_redirect_history() {
            Some(history) => history.len() > 1,
            // Not by the query: ureq adds parameters to a URL that we may have seen without.
            None => {
                let uri = response.get_uri();
                uri.scheme() != self.uri.scheme()
                    || uri.authority() != self.uri.authority()
                    || uri.path() != self.uri.path()
            }
        }
    }

    fn tell(&self, hops: &Hops<'_>, response: &Response<ResponseBody>, last: &Outcome) {
        let history = match response.get_redirect_history() {
            Some([_, rest @ ..]) => rest,
            _ => {
                self.unseen(hops);
                std::slice::from_ref(response.get_uri())
            }
        };
        let shown = history.len().min(MOST);
        for (number, uri) in (1..).zip(history.iter().take(shown)) {
            let outcome = if number == history.len() {
                last.clone()
            } else {
                Outcome::Redirected
            };
            self.record(hops, uri, number, outcome);
        }
        if shown < history.len() {
            self.unseen(hops);
        }
    }

    fn record(&self, hops: &Hops<'_>, uri: &Uri, number: usize, outcome: Outcome) {
        let elsewhere = uri.host() != self.uri.host();
        let hop = Hop { number, elsewhere };
        let url = Url::new(&self.method, uri, "");
        let kept = headers(&self.headers)
            .into_iter()
            .filter(|(name, _)| !elsewhere || *name != "authorization")
            .collect();
        match hops {
            Hops::Call(frame) => frame.record_hop(url.target(), kept, hop, outcome),
            Hops::Middleware => {
                let outgoing = Outgoing {
                    site: None,
                    recipient: None,
                    purpose: None,
                    target: url.target(),
                    headers: kept,
                    body: Body::Empty,
                    declared: &[],
                    enforceable: false,
                    hop: Some(hop),
                };
                tracker::with(|tracker| record_after(tracker, &outgoing, "redirect_followed", outcome));
            }
        }
    }

    fn unseen(&self, hops: &Hops<'_>) {
        match hops {
            Hops::Call(frame) => frame.blind_spot(BlindSpot::UnseenRedirect),
            Hops::Middleware => {
                tracker::with(|tracker| tracker.blind_spot(BlindSpot::UnseenRedirect, "ureq middleware"));
            }
        }
    }
}

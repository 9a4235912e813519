//! Errors: how a block becomes one, and what the evidence says of the others.

use std::error::Error as StdError;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use http_body::{Body as _, Frame};
use reqwest::Body;

use crate::hooks::egress::Blocked;
use crate::vocabulary::Outcome;

/// An error of a client.
pub(super) trait Failure: StdError + Sized + 'static {
    /// What the caller gets in place of an answer.
    fn refused(blocked: Blocked) -> Self;

    /// The client's own error in it.
    fn client(&self) -> Option<&reqwest::Error>;

    /// How the send ended; an error's text may hold a URL.
    fn outcome(&self) -> Outcome {
        let status = self.client().and_then(reqwest::Error::status);
        match (status, self.client()) {
            (Some(status), _) => Outcome::Status(status.as_u16()),
            (None, Some(error)) => Outcome::Error(kind(error)),
            (None, None) => Outcome::Error("middleware"),
        }
    }
}

impl Failure for reqwest::Error {
    /// reqwest makes its errors itself: this one is made by a body that fails with the block, and that
    /// nobody sends. `is_body` holds for it, and its source is the block.
    fn refused(blocked: Blocked) -> Self {
        let mut body = Body::wrap(Refused(Some(blocked.clone())));
        let context = &mut Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(Some(Err(error))) = Pin::new(&mut body).poll_frame(context) {
                return error;
            }
            body = Body::wrap(Refused(Some(blocked.clone())));
        }
    }

    fn client(&self) -> Option<&reqwest::Error> {
        Some(self)
    }
}

impl Failure for reqwest_middleware::Error {
    fn refused(blocked: Blocked) -> Self {
        // The variant shows the sources of what it holds: the block has to be one.
        reqwest_middleware::Error::Middleware(anyhow::Error::new(blocked).context("the request was held back"))
    }

    fn client(&self) -> Option<&reqwest::Error> {
        match self {
            reqwest_middleware::Error::Reqwest(error) => Some(error),
            reqwest_middleware::Error::Middleware(_) => None,
        }
    }
}

/// A body that fails.
struct Refused(Option<Blocked>);

impl http_body::Body for Refused {
    type Data = bytes::Bytes;
    type Error = Box<dyn StdError + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Poll::Ready(self.0.take().map(|blocked| Err(blocked.into())))
    }
}

fn kind(error: &reqwest::Error) -> &'static str {
    if Blocked::find(error).is_some() {
        "blocked"
    } else if error.is_timeout() {
        "timeout"
    } else if error.is_dns() {
        "dns"
    } else if is_tls(error) {
        "tls"
    } else if error.is_connect() {
        "connect"
    } else if error.is_redirect() {
        "redirect"
    } else if error.is_decode() {
        "decode"
    } else if error.is_body() {
        "body"
    } else if error.is_builder() {
        "request"
    } else if error.is_upgrade() {
        "upgrade"
    } else {
        "io"
    }
}

/// The types of TLS back-ends exist only where the host enables them; their texts are looked at, not kept.
fn is_tls(error: &reqwest::Error) -> bool {
    let mut next = error.source();
    while let Some(source) = next {
        let text = source.to_string();
        if error.is_connect()
            && ["certificate", "TLS", "tls", "handshake", "SSL"]
                .iter()
                .any(|word| text.contains(word))
        {
            return true;
        }
        next = source.source();
    }
    false
}

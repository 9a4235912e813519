//! How ureq would frame a body. It does not say, and a body that is replaced must be framed alike:
//! so it is asked, by a request that goes nowhere. A builder's `send` takes the type out of the body; a GET
//! shows whether there is a body at all, as a POST always has one.

use std::sync::LazyLock;

use ureq::config::Config;
use ureq::http::{HeaderMap, HeaderValue, Request, Uri, header};
use ureq::middleware::MiddlewareNext;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};
use ureq::{Agent, AsSendBody, Error, SendBody};

/// How a body is framed, and what it says it is.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Framing {
    pub(super) length: Option<u64>,
    pub(super) chunked: bool,
    pub(super) content_type: Option<HeaderValue>,
}

impl Framing {
    /// Asks. A [`SendBody`] forgets its length by this.
    pub(super) fn of<T: AsSendBody>(body: &mut T) -> Self {
        match ASKED.post("http://framing.invalid/").send(Again(body).into_body()) {
            Err(Error::Other(answer)) => answer
                .downcast()
                .map_or_else(|_| Framing::default(), |framing| *framing),
            _ => Framing::default(),
        }
    }

    /// Of a body whose request says its length and its type by itself: then ureq asks the body for neither, and it
    /// need not be asked.
    pub(super) fn said(head: &HeaderMap) -> Option<Self> {
        let length = head.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse::<u64>().ok()?;
        let said =
            length > 0 && head.contains_key(header::CONTENT_TYPE) && !head.contains_key(header::TRANSFER_ENCODING);
        said.then_some(Framing {
            length: None,
            chunked: true,
            content_type: None,
        })
    }

    /// There is no body.
    pub(super) fn is_none(&self) -> bool {
        self.length.is_none() && !self.chunked
    }

    fn read(head: &[u8]) -> Self {
        let mut framing = Framing::default();
        for line in head.split(|byte| *byte == b'\n') {
            let Some(at) = memchr::memchr(b':', line) else { continue };
            let (name, value) = line.split_at(at);
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            if name.eq_ignore_ascii_case(b"content-length") {
                framing.length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                framing.chunked = value.eq_ignore_ascii_case(b"chunked");
            }
        }
        framing
    }
}

impl std::fmt::Display for Framing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a framing")
    }
}

impl std::error::Error for Framing {}

/// A body that stays with its owner.
struct Again<'b, T>(&'b mut T);

impl<'b, T: AsSendBody> Again<'b, T> {
    fn into_body(self) -> SendBody<'b> {
        self.0.as_body()
    }
}

/// Sees the request as a builder makes it, and goes on to [`NOWHERE`].
static ASKED: LazyLock<Agent> = LazyLock::new(|| {
    let ask = |request: Request<SendBody>, _: MiddlewareNext| {
        let (parts, body) = request.into_parts();
        let bare = Request::get("http://framing.invalid/").body(body)?;
        match NOWHERE.run(bare) {
            Err(Error::Other(answer)) => Err(Error::Other(match answer.downcast::<Framing>() {
                Ok(mut framing) => {
                    framing.content_type = parts.headers.get(header::CONTENT_TYPE).cloned();
                    framing
                }
                Err(other) => other,
            })),
            other => other,
        }
    };
    Agent::config_builder().middleware(ask).build().into()
});

static NOWHERE: LazyLock<Agent> = LazyLock::new(|| {
    let config = Agent::config_builder()
        .user_agent("")
        .accept("")
        .accept_encoding("")
        .proxy(None)
        .max_redirects(0)
        .build();
    Agent::with_parts(config, Nowhere, Nowhere)
});

/// Resolves every name to nothing, and connects to it.
#[derive(Debug)]
struct Nowhere;

impl Resolver for Nowhere {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}

impl Connector for Nowhere {
    type Out = Head;

    fn connect(&self, _: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Head>, Error> {
        Ok(Some(Head(LazyBuffers::new(64, 4096))))
    }
}

/// Takes the head of a request, and answers with what it says.
#[derive(Debug)]
struct Head(LazyBuffers);

impl Transport for Head {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.0
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        let head = self.0.output().get(..amount).unwrap_or_default();
        Err(Error::Other(Box::new(Framing::read(head))))
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        Ok(false)
    }

    fn is_open(&mut self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_body() {
        let length = |length| Framing {
            length: Some(length),
            ..Framing::default()
        };
        let chunked = Framing {
            chunked: true,
            ..Framing::default()
        };
        assert_eq!(Framing::of(&mut ()), Framing::default());
        assert_eq!(Framing::of(&mut SendBody::none()), Framing::default());
        assert_eq!(Framing::of(&mut "four"), length(4));
        let json = SendBody::from_json(&[1]).map(|mut body| Framing::of(&mut body));
        assert!(json.is_ok_and(|json| json.length.is_some() && json.content_type.is_some()));
        assert_eq!(Framing::of(&mut &[0_u8; 0]), length(0));
        assert_eq!(Framing::of(&mut "four".as_body()), length(4));
        assert_eq!(Framing::of(&mut SendBody::from_reader(&mut std::io::empty())), chunked);
        assert_eq!(Framing::of(&mut SendBody::from_owned_reader(std::io::empty())), chunked);
    }
}

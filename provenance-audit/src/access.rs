//! Who may ask: the token, or else the loopback `Host`.

use std::borrow::Cow;
use std::net::IpAddr;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::api::{Options, Refusal};

/// The query parameter that may carry the token.
pub(crate) const QUERY_TOKEN: &str = "audit_token";

pub(crate) struct Access {
    /// Digests are compared, not tokens: they have one length, and the token itself is not kept.
    token: Option<[u8; 32]>,
    query_token: bool,
}

impl Access {
    pub(crate) fn new(options: &Options) -> Self {
        Access {
            token: (!options.token.is_empty()).then(|| digest(options.token.as_bytes())),
            query_token: options.query_token,
        }
    }

    pub(crate) fn is_protected(&self) -> bool {
        self.token.is_some()
    }

    pub(crate) fn check(
        &self,
        headers: &[(String, Vec<u8>)],
        query: &[(Cow<'_, str>, Cow<'_, str>)],
    ) -> Result<(), Refusal> {
        match &self.token {
            Some(token) if self.brings(token, headers, query) => Ok(()),
            Some(_) => Err(Refusal::new(401, "unauthorised")),
            None if names_loopback(headers) => Ok(()),
            None => Err(Refusal::new(
                403,
                "without an audit token only requests to localhost, 127.0.0.1 or [::1] by that name are served",
            )),
        }
    }

    /// Any of the ways will do; all that are given are compared, so that time tells nothing.
    fn brings(&self, token: &[u8; 32], headers: &[(String, Vec<u8>)], query: &[(Cow<'_, str>, Cow<'_, str>)]) -> bool {
        let from_headers = headers.iter().filter_map(|(name, value)| {
            if name.eq_ignore_ascii_case("x-audit-token") {
                Some(value.as_slice())
            } else if name.eq_ignore_ascii_case("authorization") {
                bearer(value)
            } else {
                None
            }
        });
        let from_query = query
            .iter()
            .filter(|(name, _)| self.query_token && name == QUERY_TOKEN)
            .map(|(_, value)| value.as_bytes());
        from_headers
            .chain(from_query)
            .fold(false, |brought, given| brought | bool::from(digest(given).ct_eq(token)))
    }
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// A page of another site whose name was made to point to this machine (DNS rebinding) still sends
/// its own name as `Host`. Every `Host` must name loopback, and there must be one.
fn names_loopback(headers: &[(String, Vec<u8>)]) -> bool {
    let mut hosts = headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("host"))
        .map(|(_, value)| std::str::from_utf8(value).ok().and_then(without_port))
        .peekable();
    hosts.peek().is_some()
        && hosts.all(|host| {
            host.is_some_and(|host| {
                host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            })
        })
}

/// `localhost:8787` -> `localhost`, `[::1]:8787` -> `::1`.
fn without_port(host: &str) -> Option<&str> {
    let (name, rest) = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    match rest.strip_prefix(':') {
        Some(port) => port.parse::<u16>().ok().map(|_| name),
        None => rest.is_empty().then_some(name),
    }
}

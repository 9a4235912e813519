//! A request as the verb takes it.

use reqwest::header::{self, HeaderMap};
use reqwest::{Method, Request, Url, blocking};

use crate::hooks::egress::{Body, Target};

/// What is seen of a request, async or blocking.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) method: &'a Method,
    pub(super) url: &'a Url,
    pub(super) headers: &'a HeaderMap,
    pub(super) content: Content<'a>,
}

#[derive(Clone, Copy)]
pub(super) enum Content<'a> {
    Nothing,
    Bytes(&'a [u8]),
    /// A stream, as far as it was read ahead.
    Stream(&'a [u8]),
    /// A reader.
    Unseen,
}

impl<'a> Message<'a> {
    pub(super) fn of(request: &'a Request) -> Self {
        Message {
            method: request.method(),
            url: request.url(),
            headers: request.headers(),
            content: Content::of(request.body().map(reqwest::Body::as_bytes)),
        }
    }

    pub(super) fn of_blocking(request: &'a blocking::Request) -> Self {
        Message {
            method: request.method(),
            url: request.url(),
            headers: request.headers(),
            content: Content::of(request.body().map(blocking::Body::as_bytes)),
        }
    }

    pub(super) fn host(&self) -> &'a str {
        self.url.host_str().unwrap_or_default()
    }

    /// What stands before the `@` of a URL.
    pub(super) fn userinfo(&self) -> String {
        match (self.url.username(), self.url.password()) {
            (name, None) => name.to_owned(),
            (name, Some(password)) => format!("{name}:{password}"),
        }
    }

    pub(super) fn target<'t>(&self, userinfo: &'t str) -> Target<'t>
    where
        'a: 't,
    {
        Target::Http {
            method: self.method.as_str(),
            host: self.host(),
            path: self.url.path(),
            query: self.url.query().unwrap_or_default(),
            userinfo,
        }
    }

    pub(super) fn headers(&self) -> Vec<(&'a str, &'a [u8])> {
        self.headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect()
    }

    pub(super) fn body(&self) -> Body<'a> {
        let content_type = self
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        match self.content {
            Content::Nothing => Body::Empty,
            Content::Bytes(bytes) => Body::Bytes { bytes, content_type },
            Content::Stream(beginning) => Body::Stream {
                beginning,
                content_type,
            },
            Content::Unseen => Body::Unseen,
        }
    }
}

impl<'a> Content<'a> {
    fn of(body: Option<Option<&'a [u8]>>) -> Self {
        match body {
            None | Some(Some([])) => Content::Nothing,
            Some(Some(bytes)) => Content::Bytes(bytes),
            Some(None) => Content::Unseen,
        }
    }
}

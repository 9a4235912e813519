//! What rewritten calls go through: stand-ins for ureq's request builder and agent, with the
//! same methods, so that the wire and the types stay as they are.

use std::io::Read;
use std::sync::{Arc, LazyLock};

use serde::Serialize;
use ureq::http::{HeaderValue, Request};
use ureq::typestate::{WithBody, WithoutBody};
use ureq::{Agent, AsSendBody, Error, RequestBuilder, SendBody};

use super::carry::{Said, carry};
use super::framing::Framing;
use super::hops::{Hops, Trail};
use super::{Answer, Recorded, Url, content_type, headers, refused, with_type};
use crate::hooks::egress::{Body, Frame, Pending, Watcher};
use crate::rewrite::{Pick, Wrap};

impl<B> Wrap<RequestBuilder<B>> {
    /// A send is about to be called on it.
    pub fn __hook(self, frame: &Frame) -> Sender<B> {
        Sender::new(frame, self.0)
    }

    /// Query parameters are about to be added to it.
    pub fn __query(self, frame: &Frame) -> Sender<B> {
        Sender::new(frame, self.0)
    }
}

impl<B> Wrap<&RequestBuilder<B>> {
    /// A place that holds a request.
    pub fn __pick(&self, _: &Frame) -> Pick<Held> {
        Pick::Client(Held)
    }
}

/// A place holds a request builder.
pub struct Held;

impl Held {
    /// What follows is reached.
    pub fn go(&self) {}

    /// Takes the request out of its place.
    pub fn hook<B>(self, frame: &Frame, builder: RequestBuilder<B>) -> Sender<B> {
        Sender::new(frame, builder)
    }
}

/// Stands for a [`RequestBuilder`] in a rewritten call, with the same methods.
pub struct Sender<B> {
    builder: RequestBuilder<B>,
    frame: Frame,
}

impl<B> Sender<B> {
    fn new(frame: &Frame, builder: RequestBuilder<B>) -> Self {
        Sender {
            builder,
            frame: frame.clone(),
        }
    }

    /// As [`RequestBuilder::query`].
    pub fn query<K: AsRef<str>, V: AsRef<str>>(mut self, key: K, value: V) -> RequestBuilder<B> {
        self.queried(|query| pair(query, key.as_ref(), value.as_ref()));
        self.builder.query(key, value)
    }

    /// As [`RequestBuilder::query_raw`].
    pub fn query_raw<K: AsRef<str>, V: AsRef<str>>(mut self, key: K, value: V) -> RequestBuilder<B> {
        self.queried(|query| raw_pair(query, key.as_ref(), value.as_ref()));
        self.builder.query_raw(key, value)
    }

    /// As [`RequestBuilder::query_pairs`].
    pub fn query_pairs<I, K, V>(mut self, pairs: I) -> RequestBuilder<B>
    where
        I: IntoIterator<Item = (K, V)>,
        K: AsRef<str>,
        V: AsRef<str>,
    {
        let pairs: Vec<(K, V)> = pairs.into_iter().collect();
        self.queried(|query| pairs.iter().for_each(|(k, v)| pair(query, k.as_ref(), v.as_ref())));
        self.builder.query_pairs(pairs)
    }

    /// As [`RequestBuilder::query_pairs_raw`].
    pub fn query_pairs_raw<I, K, V>(mut self, pairs: I) -> RequestBuilder<B>
    where
        I: IntoIterator<Item = (K, V)>,
        K: AsRef<str>,
        V: AsRef<str>,
    {
        let pairs: Vec<(K, V)> = pairs.into_iter().collect();
        self.queried(|query| {
            pairs.iter().for_each(|(k, v)| raw_pair(query, k.as_ref(), v.as_ref()));
        });
        self.builder.query_pairs_raw(pairs)
    }

    fn queried(&mut self, add: impl FnOnce(&mut String)) {
        if self.frame.is_live()
            && let Some(extensions) = self.builder.extensions_mut()
        {
            add(&mut extensions.get_or_insert_with(Queried::default).0);
        }
    }

    /// Records the request; nothing is in force, or it may be sent.
    fn begin(self, body: Body<'_>, content_type: Option<&str>) -> Result<Started<B>, Error> {
        let Sender { mut builder, frame } = self;
        let queried = builder
            .extensions_mut()
            .and_then(|extensions| extensions.remove::<Queried>())
            .unwrap_or_default();
        let recorded = match (builder.method_ref(), builder.uri_ref(), builder.headers_ref()) {
            (Some(method), Some(uri), Some(map)) => {
                let url = Url::new(method, uri, &queried.0);
                let body = with_type(body, self::content_type(map).or(content_type));
                let pending = frame.begin_send(url.target(), headers(map), body).map_err(refused)?;
                pending.map(|pending| (pending, Trail::of(method, uri, map)))
            }
            // The builder holds an error: nothing will be sent, and ureq says why.
            _ => None,
        };
        if let Some((_, trail)) = &recorded {
            if let Some(extensions) = builder.extensions_mut() {
                extensions.insert(Recorded);
            }
            if trail.may_ask() {
                builder = builder.config().save_redirect_history(true).build();
            }
        }
        Ok(Started {
            builder,
            frame,
            recorded,
        })
    }
}

/// A request that may be sent.
struct Started<B> {
    builder: RequestBuilder<B>,
    frame: Frame,
    recorded: Option<(Pending, Trail)>,
}

impl<B> Started<B> {
    fn watched(self) -> (Self, Option<Watcher>) {
        let watcher = self.recorded.as_ref().and_then(|(pending, _)| pending.watcher());
        (self, watcher)
    }

    /// Lets `send` do what the user called, and records how it ended.
    fn send(self, send: impl FnOnce(RequestBuilder<B>) -> Answer) -> Answer {
        let answer = send(self.builder);
        match self.recorded {
            Some((pending, trail)) => trail.finish(&Hops::Call(&self.frame), Some(pending), answer),
            None => answer,
        }
    }
}

impl Sender<WithoutBody> {
    /// As [`RequestBuilder::call`].
    #[allow(clippy::missing_errors_doc)]
    pub fn call(self) -> Answer {
        self.begin(Body::Empty, None)?.send(RequestBuilder::call)
    }
}

#[allow(clippy::missing_errors_doc)]
impl Sender<WithBody> {
    /// As [`RequestBuilder::send`].
    pub fn send(self, data: impl AsSendBody) -> Answer {
        let Some(most) = self.frame.read_ahead() else {
            return self.builder.send(data);
        };
        let said = self.builder.headers_ref().and_then(Framing::said);
        carry(
            data,
            most,
            said,
            |body, content_type| Ok(self.begin(body, content_type)?.watched()),
            |started, body, said| {
                started.send(|mut builder| {
                    if let Some(map) = builder.headers_mut() {
                        said.add(map);
                    }
                    builder.send(body)
                })
            },
        )
    }

    /// As [`RequestBuilder::send_empty`].
    pub fn send_empty(self) -> Answer {
        self.begin(Body::Empty, None)?.send(RequestBuilder::send_empty)
    }

    /// As [`RequestBuilder::send_form`].
    pub fn send_form<I, K, V>(self, pairs: I) -> Answer
    where
        I: IntoIterator<Item = (K, V)>,
        K: AsRef<str>,
        V: AsRef<str>,
    {
        if !self.frame.is_live() {
            return self.builder.send_form(pairs);
        }
        let pairs: Vec<(K, V)> = pairs.into_iter().collect();
        let mut encoded = String::new();
        pairs
            .iter()
            .for_each(|(key, value)| pair(&mut encoded, key.as_ref(), value.as_ref()));
        let body = whole(encoded.as_bytes());
        self.begin(body, Some("application/x-www-form-urlencoded"))?
            .send(|builder| builder.send_form(pairs))
    }

    /// As [`RequestBuilder::send_json`]. The value is serialised once, as ureq does it.
    pub fn send_json(self, data: impl Serialize) -> Answer {
        if !self.frame.is_live() {
            return self.builder.send_json(data);
        }
        let mut bytes = Vec::new();
        SendBody::from_json(&data)?.into_reader().read_to_end(&mut bytes)?;
        let said = Said::content_type(JSON.as_ref());
        self.begin(whole(&bytes), Some("application/json"))?
            .send(|mut builder| {
                if let Some(map) = builder.headers_mut() {
                    said.add(map);
                }
                builder.send(&bytes)
            })
    }
}

/// The type that ureq gives its JSON.
static JSON: LazyLock<Option<HeaderValue>> = LazyLock::new(|| {
    let body = SendBody::from_json(&()).ok();
    body.and_then(|mut body| Framing::of(&mut body).content_type)
});

fn whole(bytes: &[u8]) -> Body<'_> {
    Body::Bytes {
        bytes,
        content_type: None,
    }
}

macro_rules! agents {
    ($($agent:ty),*) => {$(
        impl Wrap<$agent> {
            /// A request is about to be run on it.
            pub fn __run(self, frame: &Frame) -> Runner {
                Runner { agent: Agent::clone(&self.0), frame: frame.clone() }
            }
        }

        impl Wrap<&$agent> {
            /// A place that holds an agent.
            pub fn __pick_run(&self, _: &Frame) -> Pick<Agents> {
                Pick::Client(Agents(Agent::clone(self.0)))
            }
        }
    )*};
}
agents!(
    Agent,
    &Agent,
    Arc<Agent>,
    &Arc<Agent>,
    LazyLock<Agent>,
    &LazyLock<Agent>
);

impl<T: AsSendBody> Wrap<Request<T>> {
    /// A request is about to be run by a function, on an agent of its own.
    #[allow(clippy::missing_errors_doc)]
    pub fn __through(self, frame: &Frame, send: impl FnOnce(Request<T>) -> Answer) -> Answer {
        if !frame.is_live() {
            return send(self.0);
        }
        // What `ureq::run` does.
        let runner = Runner {
            agent: ureq::agent(),
            frame: frame.clone(),
        };
        runner.run(self.0)
    }
}

/// A place holds an agent.
pub struct Agents(Agent);

impl Agents {
    /// What follows is reached.
    pub fn go(&self) {}

    /// A runner for the agent; its place keeps it.
    pub fn hook<T>(self, frame: &Frame, _: T) -> Runner {
        Runner {
            agent: self.0,
            frame: frame.clone(),
        }
    }
}

/// Stands for an [`Agent`] in a rewritten call.
pub struct Runner {
    agent: Agent,
    frame: Frame,
}

impl Runner {
    /// As [`Agent::run`].
    #[allow(clippy::missing_errors_doc)]
    pub fn run(self, request: Request<impl AsSendBody>) -> Answer {
        let Some(most) = self.frame.read_ahead() else {
            return self.agent.run(request);
        };
        let (mut parts, data) = request.into_parts();
        let seen = (parts.method.clone(), parts.uri.clone(), parts.headers.clone());
        let said = Framing::said(&parts.headers);
        carry(
            data,
            most,
            said,
            |body, _| {
                let (method, uri, map) = &seen;
                let url = Url::new(method, uri, "");
                let body = with_type(body, content_type(map));
                let begun = self.frame.begin_send(url.target(), headers(map), body);
                let pending = begun.map_err(refused)?;
                let watcher = pending.as_ref().and_then(Pending::watcher);
                Ok((pending, watcher))
            },
            |pending, body, said| {
                said.add_length(&mut parts.headers);
                let trail = Trail::of(&seen.0, &seen.1, &seen.2);
                if pending.is_some() {
                    parts.extensions.insert(Recorded);
                }
                let mut request = Request::from_parts(parts, body);
                if pending.is_some() && trail.may_ask() {
                    request = self
                        .agent
                        .configure_request(request)
                        .save_redirect_history(true)
                        .build();
                }
                trail.finish(&Hops::Call(&self.frame), pending, self.agent.run(request))
            },
        )
    }
}

/// Query parameters that a builder was given and does not show, percent-encoded.
#[derive(Clone, Default)]
struct Queried(String);

fn pair(query: &mut String, key: &str, value: &str) {
    let encode = form_urlencoded::byte_serialize;
    separate(query);
    query.extend(encode(key.as_bytes()));
    query.push('=');
    query.extend(encode(value.as_bytes()));
}

fn raw_pair(query: &mut String, key: &str, value: &str) {
    separate(query);
    query.push_str(key);
    query.push('=');
    query.push_str(value);
}

fn separate(query: &mut String) {
    if !query.is_empty() {
        query.push('&');
    }
}

//! What rewritten calls go through: stand-ins for ureq's request builder and agent, with the
//! same methods, so that the wire and the types stay as they are.

use std::io::Read;
use std::sync::{Arc, LazyLock};

use serde::Serialize;
use ureq::http::Request;
use ureq::typestate::{WithBody, WithoutBody};
use ureq::{Agent, AsSendBody, RequestBuilder};

use super::{Answer, BODY_CAP, Recorded, Url, content_type, finish, headers, refused};
use crate::hooks::egress::{Begun, Body, Frame};
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

    /// Records the request, lets `send` do what the user called, and records how it ended.
    fn run(
        mut self,
        body: Body<'_>,
        content_type: Option<&str>,
        send: impl FnOnce(RequestBuilder<B>) -> Answer,
    ) -> Answer {
        let queried = self
            .builder
            .extensions_mut()
            .and_then(|extensions| extensions.remove::<Queried>())
            .unwrap_or_default();
        let pending = match self.begin(&queried, body, content_type) {
            Ok(pending) => pending,
            Err(blocked) => return Err(refused(blocked)),
        };
        if pending.is_some()
            && let Some(extensions) = self.builder.extensions_mut()
        {
            extensions.insert(Recorded);
        }
        let answer = send(self.builder);
        finish(pending, &answer);
        answer
    }

    fn begin(&self, queried: &Queried, body: Body<'_>, default_type: Option<&str>) -> Begun {
        let builder = &self.builder;
        let (Some(method), Some(uri), Some(map)) = (builder.method_ref(), builder.uri_ref(), builder.headers_ref())
        else {
            // The builder holds an error: nothing will be sent, and ureq says why.
            return Ok(None);
        };
        let url = Url::new(method, uri, &queried.0);
        let content_type = content_type(map).or(default_type);
        self.frame
            .begin_send(url.target(), headers(map), with_type(body, content_type))
    }
}

impl Sender<WithoutBody> {
    /// As [`RequestBuilder::call`].
    #[allow(clippy::missing_errors_doc)]
    pub fn call(self) -> Answer {
        self.run(Body::Empty, None, RequestBuilder::call)
    }
}

#[allow(clippy::missing_errors_doc)]
impl Sender<WithBody> {
    /// As [`RequestBuilder::send`].
    pub fn send(self, mut data: impl AsSendBody) -> Answer {
        if !self.frame.is_live() {
            return self.builder.send(data);
        }
        let seen = Seen::of(&mut data);
        self.run(seen.body(), None, |builder| builder.send(data))
    }

    /// As [`RequestBuilder::send_empty`].
    pub fn send_empty(self) -> Answer {
        self.run(Body::Empty, None, RequestBuilder::send_empty)
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
        let seen = Seen::whole(encoded.into_bytes());
        self.run(seen.body(), Some("application/x-www-form-urlencoded"), |builder| {
            builder.send_form(pairs)
        })
    }

    /// As [`RequestBuilder::send_json`]. The value is serialised a second time, for the scan.
    pub fn send_json(self, data: impl Serialize) -> Answer {
        if !self.frame.is_live() {
            return self.builder.send_json(data);
        }
        let seen = match serde_json::to_vec(&data) {
            Ok(bytes) => Seen::whole(bytes),
            // ureq will fail the same way, and send nothing.
            Err(_) => return self.builder.send_json(data),
        };
        self.run(seen.body(), Some("application/json"), |builder| builder.send_json(data))
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
        if !self.frame.is_live() {
            return self.agent.run(request);
        }
        let (mut parts, mut body) = request.into_parts();
        let seen = Seen::of(&mut body);
        let url = Url::new(&parts.method, &parts.uri, "");
        let body_seen = with_type(seen.body(), content_type(&parts.headers));
        let pending = self
            .frame
            .begin_send(url.target(), headers(&parts.headers), body_seen)
            .map_err(refused)?;
        parts.extensions.insert(Recorded);
        let answer = self.agent.run(Request::from_parts(parts, body));
        finish(pending, &answer);
        answer
    }
}

/// A copy of a body's bytes, as far as they can be read without consuming them.
enum Seen {
    Bytes { bytes: Vec<u8>, whole: bool },
    Empty,
    Unseen,
}

impl Seen {
    fn whole(bytes: Vec<u8>) -> Self {
        Seen::Bytes { bytes, whole: true }
    }

    fn of<T: AsSendBody>(body: &mut T) -> Self {
        if is::<T, ()>() {
            return Seen::Empty;
        }
        if !is_bytes::<T>() {
            return Seen::Unseen;
        }
        let mut bytes = Vec::new();
        let mut reader = body.as_body().into_reader().take(BODY_CAP as u64 + 1);
        match reader.read_to_end(&mut bytes) {
            Ok(_) => Seen::Bytes {
                whole: bytes.len() <= BODY_CAP,
                bytes,
            },
            Err(_) => Seen::Unseen,
        }
    }

    fn body(&self) -> Body<'_> {
        match self {
            Seen::Empty => Body::Empty,
            Seen::Unseen => Body::Unseen,
            Seen::Bytes { bytes, .. } if bytes.is_empty() => Body::Empty,
            Seen::Bytes { bytes, whole: true } => Body::Bytes {
                bytes,
                content_type: None,
            },
            Seen::Bytes { bytes, whole: false } => Body::Stream {
                beginning: bytes,
                content_type: None,
            },
        }
    }
}

fn is<T, U>() -> bool {
    typeid::of::<T>() == typeid::of::<U>()
}

/// The bodies whose `as_body` gives the same bytes each time. ureq seals the trait, so that the
/// list is known; arrays have a type for each length, and are known by their name.
fn is_bytes<T>() -> bool {
    is::<T, &str>()
        || is::<T, String>()
        || is::<T, &String>()
        || is::<T, Vec<u8>>()
        || is::<T, &Vec<u8>>()
        || is::<T, &[u8]>()
        || std::any::type_name::<T>().starts_with("&[u8; ")
}

/// Query parameters that a builder was given and does not show, percent-encoded.
#[derive(Clone, Default)]
struct Queried(String);

fn with_type<'a>(body: Body<'a>, content_type: Option<&'a str>) -> Body<'a> {
    match body {
        Body::Bytes { bytes, .. } => Body::Bytes { bytes, content_type },
        Body::Stream { beginning, .. } => Body::Stream {
            beginning,
            content_type,
        },
        Body::Empty | Body::Unseen | Body::Long { .. } => body,
    }
}

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

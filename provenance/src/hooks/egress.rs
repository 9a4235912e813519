//! What was sent: DATA_SHARE events, on disk before the first byte leaves.
//!
//! `begin` scans a message, records it and decides whether it may leave; `Pending::finish`
//! appends how it ended. Everything that sends goes through these two: rewritten calls
//! (`frame`), middlewares, and custom sinks (`crate::share`).
// Only the integrations of HTTP clients need all of it.
#![cfg_attr(not(any(feature = "ureq", feature = "reqwest")), allow(dead_code, unused_imports))]

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::input;
use crate::config::{Durability, OnEvidenceFailure, OnViolation};
use crate::detect::{Limits, Media, Message, Part};
use crate::policy::{self, Resolved};
use crate::recorder::Ticket;
use crate::scope::Scope;
use crate::site::EgressSite;
use crate::tracker::{BlindSpot, Tracker, declare};
use crate::vocabulary::{Event, EventTag, EventType, Outcome};

mod declared;
mod findings;
mod frame;
mod shape;

pub(crate) use declared::Declared;
pub(crate) use frame::Begun;
pub use frame::{Call, Entered, Frame};

/// Most bytes of a body that are read ahead and scanned.
pub(crate) const BODY_CAP: usize = 8 << 20;

/// One message about to leave.
pub(crate) struct Outgoing<'a> {
    /// The `#[egress]` it leaves through, if any.
    pub(crate) site: Option<&'static EgressSite>,
    /// Said by hand; the attribute's and the host's names come after it.
    pub(crate) recipient: Option<&'a str>,
    /// Said by hand.
    pub(crate) purpose: Option<&'a str>,
    pub(crate) target: Target<'a>,
    pub(crate) headers: Vec<(&'a str, &'a [u8])>,
    pub(crate) body: Body<'a>,
    /// What the `#[payload]` arguments of the function declare.
    pub(crate) declared: &'a [Declared],
    /// Whether the caller can keep it from leaving.
    pub(crate) enforceable: bool,
}

/// Where it goes.
pub(crate) enum Target<'a> {
    /// An HTTP request. `query` is percent-encoded, `userinfo` as in the URL.
    Http {
        method: &'a str,
        host: &'a str,
        path: &'a str,
        query: &'a str,
        userinfo: &'a str,
    },
    /// A host or a system by name, `smtp.example.com`.
    Named(&'a str),
    /// Whatever the function at the site reaches.
    Function,
}

/// What is known of the body.
pub(crate) enum Body<'a> {
    /// There is none.
    Empty,
    /// All of it.
    Bytes {
        bytes: &'a [u8],
        content_type: Option<&'a str>,
    },
    /// Its beginning; the rest goes unseen.
    Beginning {
        bytes: &'a [u8],
        content_type: Option<&'a str>,
    },
    /// Nothing: a reader, a file, a type that cannot be read twice.
    Unseen,
}

/// A share that was kept from leaving: by the policy, or because its record could not be persisted.
#[derive(Clone, PartialEq, Eq)]
pub struct Blocked {
    recipient: Arc<str>,
    reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Policy,
    Evidence,
}

impl Blocked {
    /// The block that a client's error stands for: the error itself, or a source of it.
    ///
    /// ```
    /// # fn send() -> Result<(), Box<dyn std::error::Error>> { Ok(()) }
    /// if let Err(error) = send()
    ///     && let Some(blocked) = provenance::Blocked::find(&*error)
    /// {
    ///     println!("held back from {}", blocked.recipient());
    /// }
    /// ```
    pub fn find<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e Blocked> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(blocked) = error.downcast_ref() {
                return Some(blocked);
            }
            next = error.source();
        }
        None
    }

    /// The recipient that gets nothing.
    pub fn recipient(&self) -> &str {
        &self.recipient
    }

    /// Whether the policy blocks it (`on_violation: block`).
    pub fn is_policy(&self) -> bool {
        self.reason == Reason::Policy
    }

    /// Whether its record could not be persisted in time (`on_evidence_failure: refuse`).
    pub fn is_evidence(&self) -> bool {
        self.reason == Reason::Evidence
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self.reason {
            Reason::Policy => "it holds data that the policy does not let leave here",
            Reason::Evidence => "its record could not be persisted in time",
        };
        write!(f, "nothing was sent to `{}`: {reason}", self.recipient)
    }
}

impl fmt::Debug for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocked")
            .field("recipient", &self.recipient)
            .field("reason", &self.reason)
            .finish()
    }
}

impl std::error::Error for Blocked {}

/// A share that is recorded and not ended yet. Dropped without [`Pending::finish`], nobody can
/// tell how it ended.
pub(crate) struct Pending {
    tracker: Tracker,
    ticket: Ticket,
    finished: bool,
}

impl Pending {
    fn new(tracker: &Tracker, ticket: Ticket) -> Self {
        Pending {
            tracker: tracker.clone(),
            ticket,
            finished: false,
        }
    }

    /// Appends the outcome.
    pub(crate) fn finish(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.finished, true) {
            self.tracker.outcome(&self.ticket, outcome);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.end(Outcome::Unknown);
    }
}

/// Scans and records a message. When this returns `Ok`, it may leave.
///
/// # Errors
/// The policy blocks it, or it cannot be recorded and `on_evidence_failure` says `refuse`.
pub(crate) fn begin(tracker: &Tracker, outgoing: &Outgoing<'_>) -> Result<Pending, Blocked> {
    let admitted = admit(tracker, outgoing)?;
    match tracker.config().egress.durability {
        Durability::Batched => Ok(Pending::new(tracker, tracker.record(admitted.share))),
        Durability::BeforeSend => match tracker.record_durable(admitted.share) {
            Err((ticket, _)) if admitted.refusable => {
                Pending::new(tracker, ticket).finish(Outcome::Blocked);
                Err(admitted.recipient.refused(Reason::Evidence))
            }
            Ok(ticket) | Err((ticket, _)) => Ok(Pending::new(tracker, ticket)),
        },
    }
}

/// As [`begin`], for tasks: the record is queued, and [`Recording::on_disk`] waits for it.
///
/// # Errors
/// The policy blocks it.
#[cfg(feature = "reqwest")]
pub(crate) fn start(tracker: &Tracker, outgoing: &Outgoing<'_>) -> Result<Recording, Blocked> {
    let admitted = admit(tracker, outgoing)?;
    let (ticket, written) = match tracker.config().egress.durability {
        Durability::Batched => (tracker.record(admitted.share), None),
        Durability::BeforeSend => {
            let (ticket, written) = tracker.start_durable(admitted.share);
            (ticket, Some(written))
        }
    };
    Ok(Recording {
        pending: Pending::new(tracker, ticket),
        written,
        refused: admitted.refusable.then(|| admitted.recipient.refused(Reason::Evidence)),
    })
}

/// A share whose record is on its way to the disk. Dropped, nobody can tell how it ended.
#[cfg(feature = "reqwest")]
pub(crate) struct Recording {
    pending: Pending,
    written: Option<crate::recorder::Written>,
    refused: Option<Blocked>,
}

#[cfg(feature = "reqwest")]
impl Recording {
    /// Waits, without blocking the thread. When this returns `Ok`, the message may leave.
    ///
    /// # Errors
    /// It cannot be recorded in time, and `on_evidence_failure` says `refuse`.
    pub(crate) async fn on_disk(self) -> Result<Pending, Blocked> {
        let Some(written) = self.written else {
            return Ok(self.pending);
        };
        if self.pending.tracker.await_durable(written).await.is_err()
            && let Some(refused) = self.refused
        {
            self.pending.finish(Outcome::Blocked);
            return Err(refused);
        }
        Ok(self.pending)
    }
}

/// A message that the policy lets leave.
struct Admitted {
    share: Event,
    recipient: Recipient,
    /// It must not leave without a record.
    refusable: bool,
}

struct Recipient(Arc<str>);

impl Recipient {
    fn refused(self, reason: Reason) -> Blocked {
        Blocked {
            recipient: self.0,
            reason,
        }
    }
}

/// Scans a message and asks the policy; what it blocks is recorded as that.
fn admit(tracker: &Tracker, outgoing: &Outgoing<'_>) -> Result<Admitted, Blocked> {
    input::settle(tracker);
    let seen = see(tracker, outgoing);
    if let Some(violation) = seen.violation {
        tracker.record(violation);
    }
    let recipient = Recipient(seen.share.recipient.clone().unwrap_or_default());
    if seen.block {
        Pending::new(tracker, tracker.record(seen.share)).finish(Outcome::Blocked);
        return Err(recipient.refused(Reason::Policy));
    }
    let refuses = tracker.config().egress.on_evidence_failure == OnEvidenceFailure::Refuse;
    Ok(Admitted {
        share: seen.share,
        recipient,
        refusable: outgoing.enforceable && refuses,
    })
}

/// Records what has left already, as far as anyone can tell: not before it. `reason` is why.
pub(crate) fn record_after(tracker: &Tracker, outgoing: &Outgoing<'_>, reason: &str, outcome: Outcome) {
    input::settle(tracker);
    let mut seen = see(tracker, outgoing);
    if let Some(violation) = seen.violation {
        tracker.record(violation);
    }
    let extras = &mut seen.share.extras;
    extras.insert("evidence".into(), "after".into());
    extras.insert("reason".into(), reason.into());
    let ticket = tracker.record(seen.share);
    tracker.outcome(&ticket, outcome);
}

struct Seen {
    share: Event,
    violation: Option<Event>,
    block: bool,
}

/// Makes the events of one message.
fn see(tracker: &Tracker, outgoing: &Outgoing<'_>) -> Seen {
    let scope = Scope::current();
    let context = scope.as_ref().and_then(Scope::owner);
    let url = outgoing.url();
    let scan = tracker
        .registry()
        .detector()
        .scan(&outgoing.message(&url), Limits::default());
    let mut tags = findings::findings(tracker, &scan, context.as_ref());
    declared::merge(tracker, &mut tags, outgoing.declared, context.as_ref());

    let mut share = Event::new(EventType::DataShare, outgoing.actor(scope.as_ref()));
    let recipient = outgoing.recipient(tracker);
    share.target = Some(outgoing.target(tracker).into());
    share.recipient = Some(recipient.name.as_str().into());
    share.owner = findings::sole_owner(tracker, &tags).or(context);
    share.payload = shape::payload(tracker, &outgoing.body, &tags);
    share
        .extras
        .insert("recipient_declared".into(), recipient.declared.into());
    if let Some(site) = outgoing.site {
        declare(&mut share, &site.site);
    }
    if let Some(purpose) = outgoing.purpose {
        share.extras.insert("purpose".into(), purpose.into());
    }
    let unscanned = matches!(outgoing.body, Body::Unseen | Body::Beginning { .. });
    if scan.dropped > 0 {
        share.extras.insert("dropped_findings".into(), scan.dropped.into());
    }
    if unscanned || scan.unscanned > 0 {
        share.extras.insert("unscanned".into(), true.into());
        tracker.blind_spot(BlindSpot::UnscannedBody, outgoing.place(&share.actor));
    }

    let offending = outgoing.offending(&tags);
    let block = outgoing.enforceable
        && !offending.is_empty()
        && policy::on_violation(tracker.config(), &recipient.name) == OnViolation::Block;
    let violation = (!offending.is_empty()).then(|| violation(&share, &offending, block));
    share.tags = tags;
    Seen {
        share,
        violation,
        block,
    }
}

fn violation(share: &Event, offending: &[EventTag], block: bool) -> Event {
    let mut event = Event::new(EventType::PolicyViolation, share.actor.clone());
    event.created_at = share.created_at;
    event.target.clone_from(&share.target);
    event.recipient.clone_from(&share.recipient);
    event.owner.clone_from(&share.owner);
    event.extras.clone_from(&share.extras);
    event.extras.insert("reason".into(), "not_allowed".into());
    let action = if block { "blocked" } else { "recorded" };
    event.extras.insert("action".into(), action.into());
    let mut categories: Vec<&str> = offending.iter().map(|tag| &*tag.tag.category).collect();
    categories.sort_unstable();
    categories.dedup();
    event.payload = Map::from_iter([("categories".to_owned(), json!(categories))]);
    event.tags = offending.to_vec();
    event
}

impl Outgoing<'_> {
    fn actor(&self, scope: Option<&Scope>) -> Arc<str> {
        match (scope, self.site) {
            (Some(scope), _) => scope.source().clone(),
            (None, Some(site)) => format!("fn {}", site.site.path).into(),
            (None, None) => "host".into(),
        }
    }

    /// Where a blind spot of this message is counted.
    fn place<'a>(&self, actor: &'a str) -> &'a str {
        self.site.map_or(actor, |site| site.site.path)
    }

    fn host(&self) -> &str {
        match self.target {
            Target::Http { host, .. } => host,
            // `alice@example.com`, `amqp://user:password@host`: not as a recipient's name.
            Target::Named(name) => shape::without_userinfo(name),
            Target::Function => "",
        }
    }

    fn recipient(&self, tracker: &Tracker) -> Resolved {
        let given = self.recipient.or(self.site.and_then(|site| site.recipient));
        let mut resolved = policy::recipient(tracker.config(), given, self.host());
        if !resolved.declared && (given.is_none() || self.recipient.is_some()) {
            let name = shape::without_userinfo(&resolved.name);
            resolved.name = shape::host(tracker, name).to_owned();
        }
        if resolved.name.is_empty() {
            resolved.name = "unknown".into();
        }
        resolved
    }

    fn target(&self, tracker: &Tracker) -> String {
        match &self.target {
            Target::Http { method, host, path, .. } => shape::http_target(tracker, method, host, path),
            Target::Named(name) => shape::name(tracker, name),
            Target::Function => format!("fn {}", self.site.map_or("", |site| site.site.path)),
        }
    }

    fn url(&self) -> String {
        match self.target {
            Target::Http { path, query: "", .. } => path.to_owned(),
            Target::Http { path, query, .. } => format!("{path}?{query}"),
            Target::Named(_) | Target::Function => String::new(),
        }
    }

    fn message<'s>(&'s self, url: &'s str) -> Message<'s> {
        let mut parts = Vec::with_capacity(2 + self.headers.len());
        let mut push = |place: String, bytes: &'s [u8], media| {
            if !bytes.is_empty() {
                parts.push(Part { place, bytes, media });
            }
        };
        push("url".into(), url.as_bytes(), Media::Url);
        if let Target::Http { userinfo, .. } = self.target {
            push("url:userinfo".into(), userinfo.as_bytes(), Media::Text);
        }
        for (name, value) in &self.headers {
            push(format!("header:{name}"), value, Media::Text);
        }
        match self.body {
            Body::Bytes { bytes, content_type } | Body::Beginning { bytes, content_type } => {
                push("body".into(), bytes, shape::media(bytes, content_type));
            }
            Body::Empty | Body::Unseen => {}
        }
        Message { parts }
    }

    /// The tags whose categories may not leave here.
    fn offending(&self, tags: &[EventTag]) -> Vec<EventTag> {
        let Some(allow) = self.site.and_then(|site| site.allow) else {
            return Vec::new();
        };
        tags.iter()
            .filter(|tag| !policy::allows(allow, &tag.tag.category))
            .cloned()
            .collect()
    }
}

/// `place`, `form` and `confidence` of a tag.
fn detail(place: Option<&str>, form: &str, confidence: &str) -> Map<String, Json> {
    let mut detail = Map::new();
    if let Some(place) = place {
        detail.insert("place".into(), place.into());
    }
    detail.insert("form".into(), form.into());
    detail.insert("confidence".into(), confidence.into());
    detail
}

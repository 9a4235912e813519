//! What was sent: DATA_SHARE events, on disk before the first byte leaves.
//!
//! `begin` scans a message, records it and decides whether it may leave; `Pending::finish`
//! appends how it ended. Everything that sends goes through these two: rewritten calls
//! (`frame`), middlewares, and custom sinks (`crate::share`).
// Only the integrations of HTTP clients need all of it.
#![cfg_attr(not(any(feature = "ureq", feature = "reqwest")), allow(dead_code, unused_imports))]

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::input;
use crate::allow;
use crate::config::{Durability, OnEvidenceFailure, OnViolation, Streams, Unregistered};
use crate::detect::{Limits, Media, Message, Part, Scan};
use crate::policy::{self, Resolved};
use crate::scope::Scope;
use crate::site::EgressSite;
use crate::ticket::Ticket;
use crate::tracker::{BlindSpot, Tracker, complete, declare};
use crate::vocabulary::{Event, EventTag, EventType, Outcome, Timestamp};

mod declared;
mod encoding;
mod findings;
mod frame;
mod later;
mod shape;
mod stream;
mod windows;

pub(crate) use declared::Declared;
pub use frame::{Call, Entered, Frame};
use stream::Rest;
pub(crate) use stream::Watcher;

use encoding::Encoding;
use windows::Windows;

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
    /// A redirect that the client follows, not what the host asked for.
    pub(crate) hop: Option<Hop>,
}

/// A redirect.
#[derive(Clone, Copy)]
pub(crate) struct Hop {
    /// From 1.
    pub(crate) number: usize,
    /// To another host than the request: the name that the attribute gives is not the recipient's.
    pub(crate) elsewhere: bool,
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
    /// Its beginning, and the rest in a file that is read before it is sent; who gives it winds it back.
    Long {
        beginning: &'a [u8],
        rest: &'a File,
        content_type: Option<&'a str>,
    },
    /// Its beginning, as far as it was read ahead. The rest goes through [`Pending::watcher`].
    Stream {
        beginning: &'a [u8],
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
    Stream,
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

    /// Whether the policy blocks it (`on_violation: block`): it holds data that may not leave here.
    pub fn is_policy(&self) -> bool {
        self.reason == Reason::Policy
    }

    /// Whether its body is longer than what is read ahead, where a violation blocks and
    /// `egress.streams` says `refuse`.
    pub fn is_stream(&self) -> bool {
        self.reason == Reason::Stream
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
            Reason::Stream => "its body is too long to be scanned before it leaves",
            Reason::Evidence => "its record could not be persisted in time",
        };
        write!(f, "kept from `{}`: {reason}", self.recipient)
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
    /// Its record may be put off still: its outcome comes behind it.
    later: bool,
    watcher: Option<Watcher>,
}

impl Pending {
    fn new(tracker: &Tracker, ticket: Ticket, watcher: Option<Watcher>) -> Self {
        Pending {
            tracker: tracker.clone(),
            ticket,
            finished: false,
            later: false,
            watcher,
        }
    }

    fn later(tracker: &Tracker, ticket: Ticket) -> Self {
        Pending {
            tracker: tracker.clone(),
            ticket,
            finished: false,
            later: true,
            watcher: None,
        }
    }

    /// Appends the outcome.
    pub(crate) fn finish(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    /// Whom the rest of a [`Body::Stream`] is shown before it is passed on; `None` for any other body.
    pub(crate) fn watcher(&self) -> Option<Watcher> {
        self.watcher.clone()
    }

    fn end(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.finished, true) {
            if self.later {
                return self.tracker.outcome_later(&self.ticket, outcome);
            }
            let (outcome, late) = match &self.watcher {
                Some(watcher) => watcher.tell(outcome),
                None => (outcome, None),
            };
            self.tracker.outcome_with(&self.ticket, outcome, late);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.end(Outcome::Unknown);
    }
}

/// Scans and records a message, or puts that off where nothing waits for it. When this returns `Ok`, it may leave.
///
/// # Errors
/// The policy blocks it, or it cannot be recorded and `on_evidence_failure` says `refuse`.
pub(crate) fn begin(tracker: &Tracker, outgoing: &Outgoing<'_>) -> Result<Pending, Blocked> {
    if let Some(pending) = later::begin(tracker, outgoing) {
        return Ok(pending);
    }
    let admitted = admit(tracker, outgoing)?;
    match tracker.config().egress.durability {
        Durability::Batched => Ok(Pending::new(tracker, tracker.record(admitted.share), admitted.watcher)),
        Durability::BeforeSend => match tracker.record_durable(admitted.share) {
            Err((ticket, _)) if admitted.refusable => {
                Pending::new(tracker, ticket, None).finish(Outcome::Blocked);
                Err(admitted.recipient.refused(Reason::Evidence))
            }
            Ok(ticket) | Err((ticket, _)) => Ok(Pending::new(tracker, ticket, admitted.watcher)),
        },
    }
}

/// As [`begin`], for tasks: the record is queued, and [`Recording::on_disk`] waits for it.
///
/// # Errors
/// The policy blocks it.
pub(crate) fn start(tracker: &Tracker, outgoing: &Outgoing<'_>) -> Result<Recording, Blocked> {
    if let Some(pending) = later::begin(tracker, outgoing) {
        return Ok(Recording {
            pending,
            written: None,
            refused: None,
        });
    }
    let admitted = admit(tracker, outgoing)?;
    let (ticket, written) = match tracker.config().egress.durability {
        Durability::Batched => (tracker.record(admitted.share), None),
        Durability::BeforeSend => {
            let (ticket, written) = tracker.start_durable(admitted.share);
            (ticket, Some(written))
        }
    };
    Ok(Recording {
        pending: Pending::new(tracker, ticket, admitted.watcher),
        written,
        refused: admitted.refusable.then(|| admitted.recipient.refused(Reason::Evidence)),
    })
}

/// A share whose record is on its way to the disk. Dropped, nobody can tell how it ended.
pub(crate) struct Recording {
    pending: Pending,
    written: Option<crate::recorder::Written>,
    refused: Option<Blocked>,
}

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
    watcher: Option<Watcher>,
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
    let seen = see_now(tracker, outgoing);
    if let Some(violation) = seen.violation {
        tracker.record(violation);
    }
    let recipient = Recipient(seen.share.recipient.clone().unwrap_or_default());
    if let Some(reason) = seen.block {
        Pending::new(tracker, tracker.record(seen.share), None).finish(Outcome::Blocked);
        return Err(recipient.refused(reason));
    }
    let refuses = tracker.config().egress.on_evidence_failure == OnEvidenceFailure::Refuse;
    Ok(Admitted {
        share: seen.share,
        watcher: seen.watcher,
        recipient,
        refusable: outgoing.enforceable && refuses,
    })
}

/// Records what has left already, as far as anyone can tell: not before it. `reason` is why.
pub(crate) fn record_after(tracker: &Tracker, outgoing: &Outgoing<'_>, reason: &str, outcome: Outcome) {
    input::settle(tracker);
    let mut seen = see_now(tracker, outgoing);
    if let Some(violation) = seen.violation {
        tracker.record(violation);
    }
    let extras = &mut seen.share.extras;
    extras.insert("evidence".into(), "after".into());
    extras.insert("certain".into(), false.into());
    extras.insert("reason".into(), reason.into());
    let ticket = tracker.record(seen.share);
    tracker.outcome(&ticket, outcome);
}

struct Seen {
    share: Event,
    violation: Option<Event>,
    block: Option<Reason>,
    watcher: Option<Watcher>,
}

fn see_now(tracker: &Tracker, outgoing: &Outgoing<'_>) -> Seen {
    see(tracker, outgoing, Scope::current().as_ref(), Timestamp::now())
}

/// Makes the events of one message, sent `at` that time in this scope.
fn see(tracker: &Tracker, outgoing: &Outgoing<'_>, scope: Option<&Scope>, at: Timestamp) -> Seen {
    let context = scope.and_then(Scope::owner);
    let url = outgoing.url();
    let encoding = Encoding::of(&outgoing.headers);
    let decoded = outgoing.decoded(encoding, tracker.config().egress.read_ahead);
    let body = match (&decoded, outgoing.body.seen()) {
        (Some((plain, _)), _) => plain,
        (None, seen) => seen,
    };
    let mut scan = tracker
        .registry()
        .detector()
        .scan(&outgoing.message(&url, body), Limits::default());
    let windows = outgoing.scan_on(tracker, body, decoded.is_none(), &mut scan);
    let recipient = outgoing.recipient(tracker);
    let mut found = findings::findings(tracker, &scan, context.as_ref(), &recipient.name);
    declared::merge(
        tracker,
        &mut found,
        outgoing.declared,
        context.as_ref(),
        &recipient.name,
    );
    let suppressed = found.count_suppressed(tracker);
    let tags = found.tags;

    let mut share = Event::new(EventType::DataShare, outgoing.actor(scope));
    share.created_at = at;
    share.target = Some(outgoing.target(tracker).into());
    share.recipient = Some(recipient.name.as_str().into());
    share.owner = findings::sole_owner(tracker, &tags).or(context);
    share.payload = shape::payload(
        tracker,
        &outgoing.body,
        decoded.as_ref().map(|(plain, _)| &**plain),
        &tags,
    );
    if let Some(encoding) = encoding
        && !matches!(outgoing.body, Body::Empty)
    {
        share.payload.insert("encoding".into(), encoding.as_str().into());
    }
    share
        .extras
        .insert("recipient_declared".into(), recipient.declared.into());
    if let Some(known) = recipient.registered(tracker.config()) {
        for (key, value) in [
            ("recipient_role", &known.role),
            ("recipient_legal_name", &known.legal_name),
            ("recipient_country", &known.country),
            ("recipient_safeguard", &known.safeguard),
        ] {
            if let Some(value) = value {
                share.extras.insert(key.into(), value.as_str().into());
            }
        }
    }
    if let Some(site) = outgoing.site {
        declare(&mut share, &site.site);
    }
    if let Some(purpose) = outgoing.purpose {
        share.extras.insert("purpose".into(), purpose.into());
    }
    if let Some(hop) = outgoing.hop {
        share.extras.insert("hop".into(), hop.number.into());
    }
    // A stream is decoded on as it passes.
    let is_stream = matches!(outgoing.body, Body::Stream { .. });
    let encoded = encoding.is_some() && !matches!(outgoing.body, Body::Empty);
    let undecoded = encoded && !is_stream && decoded.as_ref().is_none_or(|(_, whole)| !whole);
    let unscanned = undecoded || matches!(outgoing.body, Body::Unseen);
    if suppressed > 0 {
        share.extras.insert("suppressed".into(), suppressed.into());
    }
    if scan.dropped > 0 {
        share.extras.insert("dropped_findings".into(), scan.dropped.into());
    }
    if unscanned || scan.unscanned > 0 {
        share.extras.insert("unscanned".into(), true.into());
        tracker.blind_spot(BlindSpot::UnscannedBody, outgoing.place(&share.actor));
    }

    let offending = offending(tracker, outgoing.site.and_then(|site| site.allow), &tags);
    let enforced = outgoing.enforceable && tracker.on_violation(&recipient.name) == OnViolation::Block;
    let allow = outgoing.site.and_then(|site| site.allow);
    let block = match tracker.config().egress.streams {
        _ if !enforced => None,
        _ if !offending.is_empty() => Some(Reason::Policy),
        Streams::Refuse if is_stream && allow.is_some() => Some(Reason::Stream),
        _ => None,
    };
    if block == Some(Reason::Stream) {
        share.extras.insert("reason".into(), "stream".into());
    }
    let violation = (!offending.is_empty()).then(|| violation(&share, &offending, block.is_some()));
    let watcher = match &outgoing.body {
        Body::Stream { beginning, .. } if block.is_none() => {
            complete(&mut share);
            let place = outgoing.place(&share.actor);
            let rest = match encoding {
                None => Rest::plain(windows),
                Some(encoding) => {
                    let decoded = decoded.as_ref().map(|(plain, _)| (plain.len(), windows));
                    Rest::encoded(tracker, encoding, beginning, decoded)
                }
            };
            let passed = beginning.len() as u64;
            Some(Watcher::new(tracker, &share, allow, enforced, place, rest, passed))
        }
        _ => None,
    };
    share.tags = tags;
    Seen {
        share,
        violation,
        block,
        watcher,
    }
}

fn violation(share: &Event, offending: &[EventTag], block: bool) -> Event {
    let mut event = Event::new(EventType::PolicyViolation, share.actor.clone());
    event.created_at = share.created_at;
    event.target.clone_from(&share.target);
    event.recipient.clone_from(&share.recipient);
    event.owner.clone_from(&share.owner);
    event.extras.clone_from(&share.extras);
    event.site = share.site;
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

    /// The recipient's name as the program gives it.
    fn given(&self) -> Option<&str> {
        let site = self.site.filter(|_| !self.hop.is_some_and(|hop| hop.elsewhere));
        self.recipient.or(site.and_then(|site| site.recipient))
    }

    fn recipient(&self, tracker: &Tracker) -> Resolved {
        let given = self.given();
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

    /// What the beginning of an encoded body stands for, and whether that is all of the body.
    fn decoded(&self, encoding: Option<Encoding>, most: usize) -> Option<(Vec<u8>, bool)> {
        let bytes = self.body.seen();
        let (plain, whole) = encoding.filter(|_| !bytes.is_empty())?.decode(bytes, most)?;
        Some((plain, whole && matches!(self.body, Body::Bytes { .. })))
    }

    /// Scans what of the body lies beyond the first scan, and can be read before it leaves. `seen` is what
    /// the first scan got, `as_sent` whether it stands in the body like this. Gives the windows that a
    /// stream goes on with: they may hold a last piece that they have not searched.
    fn scan_on(&self, tracker: &Tracker, seen: &[u8], as_sent: bool, scan: &mut Scan) -> Windows {
        let detector = tracker.registry().detector();
        let (first, more) = seen.split_at(seen.len().min(Limits::default().bytes));
        let mut windows = Windows::after(first);
        windows.push(detector, more);
        // The first scan has counted it as beyond its cap.
        scan.unscanned = scan.unscanned.saturating_sub(more.len());
        if let Body::Long { mut rest, .. } = self.body
            && as_sent
        {
            let mut piece = vec![0; 64 << 10];
            loop {
                match rest.read(&mut piece) {
                    Ok(0) => break,
                    Ok(n) => windows.push(detector, piece.get(..n).unwrap_or_default()),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    // Who sends it meets the same, perhaps.
                    Err(_) => {
                        windows.lose(1);
                        break;
                    }
                }
            }
        }
        if !matches!(self.body, Body::Stream { .. }) {
            windows.flush(detector);
        }
        let found = windows.take_found();
        scan.hits.extend(found.hits);
        scan.shapes.extend(found.shapes);
        scan.unscanned = scan.unscanned.saturating_add(found.unscanned);
        scan.dropped = scan.dropped.saturating_add(found.dropped);
        windows
    }

    fn message<'s>(&'s self, url: &'s str, body: &'s [u8]) -> Message<'s> {
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
            let name = if input::is_identifier_like(name) { name } else { "{key}" };
            push(format!("header:{name}"), value, Media::Text);
        }
        push("body".into(), body, shape::media(body, self.body.content_type()));
        Message { parts }
    }
}

impl<'a> Body<'a> {
    /// What of it is in memory.
    fn seen(&self) -> &'a [u8] {
        match self {
            Body::Bytes { bytes, .. } => bytes,
            Body::Long { beginning, .. } | Body::Stream { beginning, .. } => beginning,
            Body::Empty | Body::Unseen => &[],
        }
    }

    fn content_type(&self) -> Option<&'a str> {
        match self {
            Body::Bytes { content_type, .. } | Body::Long { content_type, .. } | Body::Stream { content_type, .. } => {
                *content_type
            }
            Body::Empty | Body::Unseen => None,
        }
    }
}

/// The tags whose categories may not leave where this is allowed.
fn offending(tracker: &Tracker, allow: Option<&[&str]>, tags: &[EventTag]) -> Vec<EventTag> {
    let Some(allow) = allow else { return Vec::new() };
    let judged = tracker.config().egress.unregistered == Unregistered::Judge;
    tags.iter()
        .filter(|tag| judged || !findings::is_unregistered(tag))
        .filter(|tag| !allow::allows(allow, &tag.tag.category))
        .cloned()
        .collect()
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

//! A message that nobody has to look at before it leaves: held as it is, and looked at by the writer's side.

use std::ops::Range;

use zeroize::Zeroizing;

use super::{Body, Declared, Encoding, Hop, Outgoing, Pending, Target, see};
use crate::config::{Durability, OnViolation};
use crate::hooks::input;
use crate::policy;
use crate::scope::Scope;
use crate::site::EgressSite;
use crate::ticket::Ticket;
use crate::tracker::{Moment, Tracker};

/// Longest message that is held; what is longer is scanned at once.
const MOST: usize = 1 << 16;

/// Records a message later, in the order of all that is put off; `None` where something of it decides whether it may
/// leave, where its record is to be on disk first, and where it cannot be held.
pub(super) fn begin(tracker: &Tracker, outgoing: &Outgoing<'_>) -> Option<Pending> {
    if tracker.config().egress.durability != Durability::Batched || decides(tracker, outgoing) {
        return None;
    }
    let kept = Kept::of(outgoing)?;
    input::settle(tracker);
    let ticket = Ticket::default();
    let recorded = ticket.clone();
    tracker.defer(Scope::current(), kept.buffer.len(), move |tracker, moment| {
        record(tracker, &kept.outgoing(), moment, &recorded);
    });
    Some(Pending::later(tracker, ticket))
}

/// Whether what is found in it may keep it from leaving.
fn decides(tracker: &Tracker, outgoing: &Outgoing<'_>) -> bool {
    outgoing.enforceable && outgoing.site.is_some_and(|site| site.allow.is_some()) && {
        let recipient = policy::recipient(tracker.config(), outgoing.given(), outgoing.host());
        tracker.on_violation(&recipient.name) == OnViolation::Block
    }
}

fn record(tracker: &Tracker, outgoing: &Outgoing<'_>, moment: &Moment, ticket: &Ticket) {
    let seen = see(tracker, outgoing, moment.scope.as_ref(), moment.at);
    if let Some(violation) = seen.violation {
        tracker.record_of(violation, moment);
    }
    tracker.record_as(seen.share, moment, ticket);
}

/// All that an [`Outgoing`] borrows. Its bytes are wiped when it is dropped.
struct Kept {
    buffer: Zeroizing<Vec<u8>>,
    site: Option<&'static EgressSite>,
    recipient: Option<Span>,
    purpose: Option<Span>,
    target: Goal,
    headers: Vec<(Span, Span)>,
    body: Content,
    declared: Vec<Declared>,
    hop: Option<Hop>,
}

/// Where in the buffer.
type Span = Range<usize>;

enum Goal {
    /// Method, host, path, query, userinfo.
    Http([Span; 5]),
    Named(Span),
    Function,
}

enum Content {
    Empty,
    Bytes(Span, Option<Span>),
    Unseen,
}

impl Kept {
    /// `None` for what is long, or is read while it is sent. What is encoded may stand for much more.
    fn of(outgoing: &Outgoing<'_>) -> Option<Self> {
        let (bytes, content_type): (&[u8], _) = match outgoing.body {
            Body::Bytes { bytes, content_type } => (bytes, content_type),
            Body::Empty | Body::Unseen => (&[], None),
            Body::Long { .. } | Body::Stream { .. } => return None,
        };
        let goal = match &outgoing.target {
            Target::Http {
                method,
                host,
                path,
                query,
                userinfo,
            } => [*method, host, path, query, userinfo],
            Target::Named(name) => [*name, "", "", "", ""],
            Target::Function => [""; 5],
        };
        let texts = [outgoing.recipient, outgoing.purpose, content_type];
        let headers = outgoing.headers.iter();
        let length = bytes.len()
            + goal.iter().map(|text| text.len()).sum::<usize>()
            + texts.iter().flatten().map(|text| text.len()).sum::<usize>()
            + headers.map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if length > MOST || Encoding::of(&outgoing.headers).is_some() {
            return None;
        }
        // Grown, it would leave its old bytes behind.
        let mut buffer = Zeroizing::new(Vec::with_capacity(length));
        let mut put = |piece: &[u8]| {
            let begin = buffer.len();
            buffer.extend_from_slice(piece);
            begin..buffer.len()
        };
        let goal = goal.map(|text| put(text.as_bytes()));
        let [recipient, purpose, content_type] = texts.map(|text| text.map(|text| put(text.as_bytes())));
        let headers = outgoing.headers.iter();
        let headers = headers
            .map(|(name, value)| (put(name.as_bytes()), put(value)))
            .collect();
        let body = match outgoing.body {
            Body::Bytes { .. } => Content::Bytes(put(bytes), content_type),
            Body::Unseen => Content::Unseen,
            _ => Content::Empty,
        };
        let target = match outgoing.target {
            Target::Http { .. } => Goal::Http(goal),
            Target::Named(_) => {
                let [name, ..] = goal;
                Goal::Named(name)
            }
            Target::Function => Goal::Function,
        };
        Some(Kept {
            buffer,
            site: outgoing.site,
            recipient,
            purpose,
            target,
            headers,
            body,
            declared: outgoing.declared.to_vec(),
            hop: outgoing.hop,
        })
    }

    /// The message again. It has left, so that nothing can be enforced.
    fn outgoing(&self) -> Outgoing<'_> {
        let bytes = |span: &Span| self.buffer.get(span.clone()).unwrap_or_default();
        let text = |span: &Span| str::from_utf8(bytes(span)).unwrap_or_default();
        Outgoing {
            site: self.site,
            recipient: self.recipient.as_ref().map(text),
            purpose: self.purpose.as_ref().map(text),
            target: match &self.target {
                Goal::Http([method, host, path, query, userinfo]) => Target::Http {
                    method: text(method),
                    host: text(host),
                    path: text(path),
                    query: text(query),
                    userinfo: text(userinfo),
                },
                Goal::Named(name) => Target::Named(text(name)),
                Goal::Function => Target::Function,
            },
            headers: self
                .headers
                .iter()
                .map(|(name, value)| (text(name), bytes(value)))
                .collect(),
            body: match &self.body {
                Content::Empty => Body::Empty,
                Content::Bytes(body, content_type) => Body::Bytes {
                    bytes: bytes(body),
                    content_type: content_type.as_ref().map(text),
                },
                Content::Unseen => Body::Unseen,
            },
            declared: &self.declared,
            enforceable: false,
            hop: self.hop,
        }
    }
}

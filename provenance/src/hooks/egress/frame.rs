//! One call of a function under `#[egress]`, as generated code sees it.
//!
//! A call `receiver.send(body)` becomes `Wrap(receiver).__hook(&frame).send(body)`: for the
//! clients that a feature knows, an inherent `__hook` answers with a sender that records; for
//! every other type, `Other` (see `rewrite.rs`) gives the receiver back. A receiver that is a place
//! (`req`, `self.tx`) must not be moved unless it is a client's, so it is looked at first: `Other`
//! answers `Pick::Other(..)`, and the arm for clients becomes dead code by `Never::go`.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Blocked, Body, Declared, Hop, Outgoing, Pending, Target, begin, declared, record_after};
#[cfg(feature = "reqwest")]
use super::{Recording, start};
use crate::scope::{Scope, ScopeGuard};
use crate::site::EgressSite;
use crate::tracked::Visitor;
use crate::tracker::{self, BlindSpot, Tracker};
use crate::vocabulary::Outcome;

/// One call of an annotated function. Clones are the same call: they go into other threads and
/// tasks, and take the request's scope along.
#[derive(Clone)]
pub struct Frame(Option<Arc<Inner>>);

struct Inner {
    site: &'static EgressSite,
    tracker: Tracker,
    scope: Option<Scope>,
    /// Not to be missed when nothing was sent through it: made for a closure that may run
    /// anywhere, or for a function that has such closures.
    loose: bool,
    /// The function has calls that could be sends. If none of them is reached, it returned before.
    has_calls: bool,
    declared: Mutex<Arc<Vec<Declared>>>,
    /// Sends that were recorded.
    sends: AtomicUsize,
    /// Calls that looked like a send, on a type that is no client.
    others: AtomicUsize,
    /// The share of the function as a whole, if it was recorded before one of those.
    whole: Mutex<Option<Pending>>,
}

thread_local! {
    static ENTERED: RefCell<Vec<Frame>> = const { RefCell::new(Vec::new()) };
}

impl Frame {
    /// The function begins. Without a tracker in force, everything below is the identity.
    /// `loose`: calls of its may happen where this frame is not known. `has_calls`: some of its body's
    /// were rewritten.
    pub fn begin(site: &'static EgressSite, loose: bool, has_calls: bool) -> Self {
        Frame(tracker::with(|tracker| {
            Arc::new(Inner {
                site,
                tracker: tracker.clone(),
                scope: Scope::current(),
                loose,
                has_calls,
                declared: Mutex::default(),
                sends: AtomicUsize::new(0),
                others: AtomicUsize::new(0),
                whole: Mutex::default(),
            })
        }))
    }

    /// The frame of the innermost call of the function on this thread, for closures that run in
    /// place; elsewhere one of its own, so that closures need not capture anything.
    pub fn current(site: &'static EgressSite) -> Self {
        let of_site = |frame: &&Frame| {
            let inner = frame.0.as_ref();
            inner.is_some_and(|inner| std::ptr::eq(inner.site, site))
        };
        ENTERED
            .try_with(|entered| entered.try_borrow().ok()?.iter().rev().find(of_site).cloned())
            .ok()
            .flatten()
            .unwrap_or_else(|| Frame::begin(site, true, true))
    }

    /// Counts a send that a middleware records by itself while the innermost function runs.
    pub(crate) fn seen_by_middleware() {
        let innermost = ENTERED.try_with(|entered| entered.try_borrow().ok()?.last().cloned());
        if let Ok(Some(Frame(Some(inner)))) = innermost {
            inner.sent();
        }
    }

    /// Makes this the thread's innermost call until the guard is dropped. For synchronous bodies.
    pub fn enter(&self) -> Entered {
        let entered = self.0.is_some()
            && ENTERED
                .try_with(|entered| entered.try_borrow_mut().map(|mut frames| frames.push(self.clone())))
                .is_ok_and(|pushed| pushed.is_ok());
        Entered {
            entered,
            not_send: PhantomData,
        }
    }

    /// Visits the `#[payload]` arguments: what they declare is part of every send.
    pub fn payload(&self, visit: impl FnOnce(&mut Visitor<'_>)) {
        if let Some(inner) = &self.0 {
            let actor = match &inner.scope {
                Some(scope) => scope.source().to_string(),
                None => format!("fn {}", inner.site.site.path),
            };
            let found = inner
                .tracker
                .attempt(|tracker| declared::visit(tracker, &actor, visit))
                .unwrap_or_default();
            Arc::make_mut(&mut *inner.declared.lock().unwrap_or_else(PoisonError::into_inner)).extend(found);
        }
    }

    /// Records the payload as a share of the function as a whole, for functions in whose body
    /// no call can be rewritten. It cannot be kept from leaving: the result's type is the user's.
    pub fn share(&self) -> Call {
        Call(self.live().and_then(|inner| {
            inner.sends.fetch_add(1, Ordering::Relaxed);
            inner.begin_as_a_whole(&inner.declared())
        }))
    }

    /// Whether anything is recorded at all.
    pub(crate) fn is_live(&self) -> bool {
        self.live().is_some()
    }

    /// A function may outlive the guard: from then on it sends as without us.
    fn live(&self) -> Option<&Inner> {
        self.0.as_deref().filter(|inner| inner.tracker.is_open())
    }

    /// Records a message that a client is about to send. `None` where nothing is in force.
    pub(crate) fn begin_send(&self, target: Target<'_>, headers: Vec<(&str, &[u8])>, body: Body<'_>) -> Begun {
        self.begin_hop(target, headers, body, None)
    }

    /// Records what a redirect is about to send; else as [`Frame::begin_send`].
    pub(crate) fn begin_hop(
        &self,
        target: Target<'_>,
        headers: Vec<(&str, &[u8])>,
        body: Body<'_>,
        hop: Option<Hop>,
    ) -> Begun {
        self.with_send(target, headers, body, hop, true, begin)
    }

    /// As [`Frame::begin_send`]; the record is on its way, and to be waited for.
    #[cfg(feature = "reqwest")]
    pub(crate) fn start_send(
        &self,
        target: Target<'_>,
        headers: Vec<(&str, &[u8])>,
        body: Body<'_>,
    ) -> Result<Option<Recording>, Blocked> {
        self.with_send(target, headers, body, None, true, start)
    }

    /// Records a message that a client has sent already.
    #[cfg(feature = "reqwest")]
    pub(crate) fn sent_already(
        &self,
        target: Target<'_>,
        headers: Vec<(&str, &[u8])>,
        body: Body<'_>,
        hop: Option<Hop>,
        reason: &str,
        outcome: Outcome,
    ) {
        let _ = self.with_send(target, headers, body, hop, false, |tracker, outgoing| {
            record_after(tracker, outgoing, reason, outcome);
            Ok(())
        });
    }

    fn with_send<P>(
        &self,
        target: Target<'_>,
        headers: Vec<(&str, &[u8])>,
        body: Body<'_>,
        hop: Option<Hop>,
        enforceable: bool,
        begin: impl FnOnce(&Tracker, &Outgoing<'_>) -> Result<P, Blocked>,
    ) -> Result<Option<P>, Blocked> {
        let Some(inner) = self.live() else { return Ok(None) };
        inner.sent();
        let _scope = inner.scope_elsewhere();
        let declared = inner.declared();
        let outgoing = Outgoing {
            site: Some(inner.site),
            recipient: None,
            purpose: None,
            target,
            headers,
            body,
            declared: &declared,
            enforceable,
            hop,
        };
        inner.tracker.attempt(|tracker| begin(tracker, &outgoing)).transpose()
    }

    /// Records a redirect that a client has followed by itself.
    pub(crate) fn record_hop(&self, target: Target<'_>, headers: Vec<(&str, &[u8])>, hop: Hop, outcome: Outcome) {
        let Some(inner) = self.live() else { return };
        let _scope = inner.scope_elsewhere();
        let outgoing = Outgoing {
            site: Some(inner.site),
            recipient: None,
            purpose: None,
            target,
            headers,
            body: Body::Empty,
            declared: &[],
            enforceable: false,
            hop: Some(hop),
        };
        inner
            .tracker
            .attempt(|tracker| record_after(tracker, &outgoing, "redirect_followed", outcome));
    }

    /// Counts what could not be seen here.
    pub(crate) fn blind_spot(&self, kind: BlindSpot) {
        if let Some(inner) = self.live() {
            inner.tracker.blind_spot(kind, inner.site.site.path);
        }
    }

    /// How much of a body is read before it is sent; `None` where nothing is in force.
    pub(crate) fn read_ahead(&self) -> Option<usize> {
        self.live().map(|inner| inner.tracker.config().egress.read_ahead)
    }

    /// A receiver of a client's method name that is no client. A site at which such calls alone were seen
    /// sends by them: from the second time on, its payload is recorded before. `takes_all`: the method takes
    /// all it sends from its receiver, so what the payload declares is about to leave the first time too.
    pub(crate) fn other(&self, takes_all: bool) {
        let Some(inner) = self.live() else { return };
        let first = inner.others.fetch_add(1, Ordering::Relaxed) == 0;
        let sends = takes_all
            || (first && inner.sends.load(Ordering::Relaxed) == 0 && inner.tracker.sends_by_others(inner.site));
        let declared = inner.declared();
        if !sends || declared.is_empty() {
            return;
        }
        // Other threads wait here for the record: what they send is in it too.
        let mut whole = inner.whole.lock().unwrap_or_else(PoisonError::into_inner);
        if whole.is_none() {
            *whole = inner.begin_as_a_whole(&declared);
        }
    }
}

/// What [`Frame::begin_send`] says.
pub(crate) type Begun = Result<Option<Pending>, Blocked>;

impl Inner {
    /// A copy: the lock must not be held while a record waits for the disk, as other threads may be
    /// sending through this frame.
    fn declared(&self) -> Arc<Vec<Declared>> {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// In a thread or task without a scope, the function's own.
    fn scope_elsewhere(&self) -> Option<ScopeGuard> {
        match Scope::current() {
            Some(_) => None,
            None => self.scope.as_ref().map(Scope::enter),
        }
    }

    /// A client sends through it.
    fn sent(&self) {
        if self.sends.fetch_add(1, Ordering::Relaxed) == 0 {
            self.tracker.has_client(self.site);
        }
    }

    /// Records the function as a whole, before it sends. It cannot be kept from it.
    fn begin_as_a_whole(&self, declared: &[Declared]) -> Option<Pending> {
        let _scope = self.scope_elsewhere();
        let outgoing = self.outgoing_as_a_whole(declared);
        self.tracker.attempt(|tracker| begin(tracker, &outgoing).ok()).flatten()
    }

    fn outgoing_as_a_whole<'a>(&self, declared: &'a [Declared]) -> Outgoing<'a> {
        Outgoing {
            site: Some(self.site),
            recipient: None,
            purpose: None,
            target: Target::Function,
            headers: Vec::new(),
            body: Body::Empty,
            declared,
            enforceable: false,
            hop: None,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Recorded before, and nobody tells how it ended.
        let whole = self.whole.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if whole.is_some() || *self.sends.get_mut() > 0 || !self.tracker.is_open() {
            return;
        }
        let declared = self.declared();
        let others = *self.others.get_mut() > 0;
        if others && !declared.is_empty() {
            // What looked like a send was one, by a client that no feature knows.
            self.tracker.has_others(self.site);
            let _scope = self.scope_elsewhere();
            let whole = self.outgoing_as_a_whole(&declared);
            // The host may be unwinding: a second panic would end it.
            self.tracker
                .attempt(|tracker| record_after(tracker, &whole, "unknown_client", Outcome::Unknown));
        } else if !self.loose && (others || !self.has_calls) {
            self.tracker
                .blind_spot(BlindSpot::EgressWithoutCall, self.site.site.path);
        }
    }
}

/// Ends [`Frame::enter`]. Not `Send`: the frame is this thread's.
#[must_use]
pub struct Entered {
    entered: bool,
    not_send: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        if self.entered {
            let _ = ENTERED.try_with(|entered| entered.try_borrow_mut().map(|mut frames| frames.pop()));
        }
    }
}

/// A share of a function as a whole. Made by [`Frame::share`]; dropped without
/// [`Call::finish`] (a panic, a cancelled future), its outcome is unknown.
pub struct Call(Option<Pending>);

impl Call {
    /// The function has returned: an error, or anything else.
    pub fn finish(self, failed: bool) {
        if let Some(pending) = self.0 {
            pending.finish(if failed {
                Outcome::Error("returned_error")
            } else {
                Outcome::Sent
            });
        }
    }
}

//! What came in: DATA_COLLECTION events.
//!
//! Two hooks feed one event a request. The HTTP layer reads query, path and body parameters by
//! configured name and leaves them pending on the scope; `#[provenance_input]` visits the typed
//! arguments, takes over what is pending, and records both, a typed field winning over a
//! parameter of the same name. What nobody took over is recorded by `settle`, before the next
//! event of the request or at its end.

use std::any::Any;
use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;

use serde_json::Map;

use super::block::{Block, What};
use super::tape::{self, Tape};
use crate::detect::Media;
use crate::scope::{Scope, ScopeGuard, Scoped, scoped_in};
use crate::site::InputSite;
use crate::tracked::{Field, Sink, Value, Visitor};
use crate::tracker::{self, BlindSpot, Moment, Observed, Tracker, declare};
use crate::vocabulary::event::Shape;
use crate::vocabulary::tag::FieldSpec;
use crate::vocabulary::{Event, EventTag, EventType, Kind, Owner, category};

/// Most values of one request that are looked at; more are counted.
const MAX_VALUES: usize = 4096;
/// Most parameters of unknown name on one event.
const MAX_UNKNOWN: usize = 256;

/// One call of a function under `#[provenance_input]`. Generated code makes it.
pub struct Call {
    site: &'static InputSite,
    /// The scope that this call made; none where the layer made one, or nothing is in force.
    own: Option<Scope>,
}

impl Call {
    /// Outside any scope, the call gets one of its own.
    pub fn begin(site: &'static InputSite) -> Self {
        let own = tracker::with(|_| match Scope::current() {
            Some(_) => None,
            None => Some(Scope::of_call(site.site.path)),
        });
        Call {
            site,
            own: own.flatten(),
        }
    }

    /// Visits the arguments and records them.
    pub fn collect(&self, visit: impl FnOnce(&mut Visitor<'_>)) {
        tracker::with(|tracker| {
            let scope = self.own.clone().or_else(Scope::current)?;
            tape::on_scratch(|tape| {
                visit(&mut Visitor::new(tape));
                self.collected(tracker, scope, tape);
            })
        });
    }

    fn collected(&self, tracker: &Tracker, scope: Scope, tape: &mut Tape) {
        let (site, pending) = (self.site, scope.state().pending.take());
        let moment = tracker.moment(Some(scope));
        if tape.is_capped() {
            tracker.work_off();
            tracker.blind_spot(BlindSpot::CappedInput, site.site.path);
        } else if moment.is_deferred() {
            return Block::add(tracker, tape.size(), |block| {
                block.tape.append(tape);
                What::Input { site, moment, pending }
            });
        }
        taken(tracker, &moment, site, pending, |sink| tape.play(sink));
    }

    /// The scope of a synchronous body.
    pub fn enter(&self) -> Option<ScopeGuard> {
        self.own.as_ref().map(Scope::enter)
    }

    /// The scope of an asynchronous body.
    pub fn run<F: Future>(&self, body: F) -> Scoped<F> {
        scoped_in(self.own.clone(), body)
    }
}

/// Records what the arguments of a function held: they are told to a sink.
pub(super) fn taken(
    tracker: &Tracker,
    moment: &Moment,
    site: &'static InputSite,
    pending: Option<Box<dyn Any + Send>>,
    tell: impl FnOnce(&mut dyn Sink),
) {
    let mut collector = Collector::new(tracker, "argument");
    tell(&mut collector);
    for what in collector.missed.drain(..) {
        tracker.blind_spot(BlindSpot::UnvisitedInput, &format!("{} ({what})", site.site.path));
    }
    let mut collected = collector.finish(site.site.path);
    collected.take_over(pending.and_then(Collected::of));
    record(tracker, moment, collected, Some(site));
}

/// Values met in one request, with whose they are.
#[derive(Default)]
pub(crate) struct Collected {
    items: Vec<Item>,
    /// Said by the input, best first: a record's declared owner, a configured owner field, the first email.
    owner: Option<(Rank, Owner)>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    FirstEmail,
    Configured,
    Declared,
}

struct Item {
    observed: Observed,
    owner: Option<Owner>,
    /// Which part of the request: `argument`, `path`, `query`, `header`, `cookie`, `form`, `json`, `multipart`.
    part: &'static str,
    known: bool,
}

impl Collected {
    /// What was left on a scope.
    fn of(pending: Box<dyn Any + Send>) -> Option<Self> {
        pending.downcast::<Self>().ok().map(|collected| *collected)
    }

    fn claim(&mut self, rank: Rank, owner: Owner) {
        if self.owner.as_ref().is_none_or(|(held, _)| *held < rank) {
            self.owner = Some((rank, owner));
        }
    }

    /// Adds what the layer read, except parameters that a typed field of the same name covers.
    fn take_over(&mut self, pending: Option<Collected>) {
        let Some(pending) = pending else { return };
        let typed: HashSet<String> = self
            .items
            .iter()
            .map(|item| item.observed.spec.name.to_lowercase())
            .collect();
        self.items.extend(
            pending
                .items
                .into_iter()
                .filter(|item| !typed.contains(&item.observed.spec.name.to_lowercase())),
        );
        if let Some((rank, owner)) = pending.owner {
            self.claim(rank, owner);
        }
    }
}

/// Leaves `collected` on the scope, for the typed hook to take over.
#[cfg(feature = "axum")]
pub(crate) fn leave_pending(tracker: &Tracker, scope: &Scope, mut collected: Collected) {
    if collected.items.is_empty() && collected.owner.is_none() {
        return;
    }
    let mut before = take_pending(scope).unwrap_or_default();
    // One event holds them all, however many parts they came in.
    let room = MAX_VALUES.saturating_sub(before.items.len());
    if collected.items.len() > room {
        tracker.blind_spot(BlindSpot::CappedInput, scope.source());
        collected.items.truncate(room);
    }
    before.items.append(&mut collected.items);
    if let Some((rank, owner)) = collected.owner {
        before.claim(rank, owner);
    }
    scope.state().pending = Some(Box::new(before));
}

fn take_pending(scope: &Scope) -> Option<Collected> {
    let pending = scope.state().pending.take()?;
    Collected::of(pending)
}

/// Records what is still pending on the scope in hand, so that a request's input comes before
/// whatever is done with it.
pub(crate) fn settle(tracker: &Tracker) {
    if let Some(scope) = Scope::current() {
        settle_in(tracker, &scope);
    }
}

/// As [`settle`], for a scope that need not be the one in hand.
pub(crate) fn settle_in(tracker: &Tracker, scope: &Scope) {
    if let Some(pending) = take_pending(scope) {
        tracker.defer(Some(scope.clone()), 0, move |tracker, moment| {
            record(tracker, moment, pending, None);
        });
    }
}

fn record(tracker: &Tracker, moment: &Moment, collected: Collected, site: Option<&'static InputSite>) {
    let Some(scope) = &moment.scope else { return };
    let owner = {
        let mut state = scope.state();
        if let (None, Some((_, owner))) = (&state.input_owner, collected.owner) {
            state.input_owner = Some(owner);
        }
        state.session_owner.clone().or_else(|| state.input_owner.clone())
    };
    // Who gives something after an erasure has come back.
    let named = collected.items.iter().filter_map(|item| item.owner.as_ref());
    named.chain(&owner).for_each(|owner| tracker.readmit_owner(owner));
    let mut event = Event::new(EventType::DataCollection, scope.source().clone());
    event.created_at = moment.at;
    if let Some(site) = site {
        declare(&mut event, &site.site);
    }
    event.tags.reserve(collected.items.len());
    scope.state().collected.reserve(collected.items.len());
    for item in collected.items {
        let owner = item.owner.as_ref().or(owner.as_ref());
        let met = (
            item.observed.spec.name.clone(),
            item.observed.fingerprint,
            owner.cloned(),
        );
        {
            let collected = &mut scope.state().collected;
            if collected.len() >= MAX_VALUES {
                // A job that takes input for ever: what it took long ago may stand on two events.
                collected.clear();
            }
            if !collected.insert(met) {
                continue;
            }
        }
        describe(&mut event, &item.observed, Some(item.part));
        event.tags.push(if item.known {
            tracker.register(&item.observed, owner, scope.source(), false, moment.at)
        } else {
            // A parameter of unknown name stands on its event, never in the registry.
            EventTag {
                tag: item.observed.tag(owner, scope.source(), moment.at),
                detail: Map::new(),
            }
        });
    }
    if event.tags.is_empty() {
        return;
    }
    event.owner = owner;
    event.request_id = Some(scope.request_id().clone());
    tracker.record_of(event, moment);
}

/// Adds a value's shape to the payload: `fields.email = {"type": "string", "length": 17, "in": "form"}`.
pub(crate) fn describe(event: &mut Event, observed: &Observed, part: Option<&'static str>) {
    let shape = shape(observed, part);
    match event.shapes.iter_mut().find(|known| known.name == shape.name) {
        Some(known) => *known = shape,
        None => event.shapes.push(shape),
    }
}

pub(super) fn shape(observed: &Observed, part: Option<&'static str>) -> Shape {
    Shape {
        name: observed.spec.name.clone(),
        json_type: observed.json_type,
        length: observed.length,
        part,
        count: 1,
    }
}

/// Visits values and keeps pseudonyms.
pub(crate) struct Collector<'t> {
    tracker: &'t Tracker,
    part: &'static str,
    collected: Collected,
    /// Open records: where their items begin, and the first owner they named. That one input names
    /// two identifiers does not make them one person's: anybody can write another's address.
    records: Vec<(usize, Option<Owner>)>,
    unknown: usize,
    capped: usize,
    missed: Vec<&'static str>,
}

impl<'t> Collector<'t> {
    pub(crate) fn new(tracker: &'t Tracker, part: &'static str) -> Self {
        Collector {
            tracker,
            part,
            collected: Collected::default(),
            records: Vec::new(),
            unknown: 0,
            capped: 0,
            missed: Vec::new(),
        }
    }

    /// What was met; what went beyond a cap is counted at `site`.
    pub(crate) fn finish(self, site: &str) -> Collected {
        if self.capped > 0 {
            self.tracker.blind_spot(BlindSpot::CappedInput, site);
        }
        self.collected
    }

    fn push(&mut self, spec: &Arc<FieldSpec>, value: Value<'_>, known: bool) {
        if self.collected.items.len() >= MAX_VALUES {
            self.capped += 1;
            return;
        }
        if let Some(observed) = self.tracker.observe(spec, value) {
            self.collected.items.push(Item {
                observed,
                owner: None,
                part: self.part,
                known,
            });
        }
    }
}

impl Sink for Collector<'_> {
    fn begin(&mut self) {
        self.records.push((self.collected.items.len(), None));
    }

    fn end(&mut self) {
        let Some((first, Some(owner))) = self.records.pop() else {
            return;
        };
        for item in self.collected.items.iter_mut().skip(first) {
            // Inner records have named their own already.
            item.owner.get_or_insert_with(|| owner.clone());
        }
        self.collected.claim(Rank::Declared, owner);
    }

    fn owner(&mut self, kind: &'static str, value: Value<'_>) {
        if let Some((_, named @ None)) = self.records.last_mut() {
            *named = self.tracker.owner(kind, value);
        }
    }

    fn declared(&mut self, field: &'static Field, value: Value<'_>) {
        let spec = self.tracker.spec(field);
        if spec.kind == Kind::Email
            && self.collected.owner.is_none()
            && category::same(&spec.category, "contact.email")
            && let Some(owner) = self.tracker.owner("email", value)
        {
            self.collected.claim(Rank::FirstEmail, owner);
        }
        self.push(&spec, value, true);
    }

    fn keyed(&mut self, key: &str, value: Value<'_>) {
        if let Some((spec, owner_kind)) = self.tracker.input_spec(key) {
            if let Some(owner) = owner_kind.and_then(|kind| self.tracker.owner(kind, value)) {
                self.collected.claim(Rank::Configured, owner);
            }
            self.push(&spec, value, true);
            return;
        }
        if self.unknown >= MAX_UNKNOWN {
            self.capped += 1;
            return;
        }
        self.unknown += 1;
        let spec = FieldSpec {
            // A name that the client chose: a value may stand for it.
            name: if is_identifier_like(key) && self.tracker.hits(key, Media::Text).is_empty() {
                key.into()
            } else {
                "{key}".into()
            },
            category: "unknown".into(),
            description: "".into(),
            kind: Kind::Text,
            pii: false,
            secret: category::is_secret("unknown", key),
        };
        self.push(&Arc::new(spec), value, false);
    }

    fn missed(&mut self, what: &'static str) {
        if self.missed.len() < 16 {
            self.missed.push(what);
        }
    }
}

/// Names that a program would choose, as against data used as a key (a phone number, a token).
pub(crate) fn is_identifier_like(name: &str) -> bool {
    name.len() <= 64
        && name.bytes().filter(u8::is_ascii_digit).count() < 4
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'[' | b']'))
}

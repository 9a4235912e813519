//! What was computed from tracked values: DATA_DERIVATION events.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::input;
use super::tape::Tape;
use crate::scope::Scope;
use crate::site::DerivedSite;
use crate::tracked::{Field, Sink, Value, Visitor};
use crate::tracker::{self, Moment, Tracker, complete, declare};
use crate::vocabulary::{Event, EventTag, EventType, Kind, Owner, Tag, Timestamp};

/// Most inputs that one derivation lists.
const MAX_INPUTS: usize = 256;

/// One call of a function under `#[derived]`. Generated code makes it.
pub struct Call {
    site: &'static DerivedSite,
    inputs: Inputs,
}

/// What is known of the arguments.
enum Inputs {
    Found(Vec<EventTag>),
    /// Looked at only where the derivation says something new.
    Kept(Tape),
}

impl Call {
    /// Nothing is looked at yet.
    pub fn begin(site: &'static DerivedSite) -> Self {
        Call {
            site,
            inputs: Inputs::Found(Vec::new()),
        }
    }

    /// Visits the arguments: those that are registered values are the inputs.
    pub fn inputs(&mut self, visit: impl FnOnce(&mut Visitor<'_>)) {
        tracker::with(|tracker| {
            if tracker.config().derivation_interval.is_zero() {
                self.inputs = Inputs::Found(found(tracker, |sink| visit(&mut Visitor::new(sink))));
                return;
            }
            let mut tape = Tape::default();
            visit(&mut Visitor::new(&mut tape));
            self.inputs = Inputs::Kept(tape);
        });
    }

    /// Visits the result, registers it and records the derivation.
    pub fn result(self, visit: impl FnOnce(&mut Visitor<'_>)) {
        tracker::with(|tracker| match self.inputs {
            Inputs::Found(inputs) => {
                let event = derivation(tracker, self.site, inputs, |sink| visit(&mut Visitor::new(sink)));
                if let Some(event) = event {
                    tracker.record(event);
                }
            }
            Inputs::Kept(arguments) => {
                let mut results = Tape::default();
                visit(&mut Visitor::new(&mut results));
                say_once(tracker, self.site, &arguments, &results);
            }
        });
    }
}

/// Records what was not said within the interval, and counts what was.
fn say_once(tracker: &Tracker, site: &'static DerivedSite, arguments: &Tape, results: &Tape) {
    input::settle(tracker);
    let interval = i64::try_from(tracker.config().derivation_interval.as_micros()).unwrap_or(i64::MAX);
    let owner = Scope::current().and_then(|scope| scope.owner());
    let mut key = tracker.derivation_key();
    key.number(std::ptr::from_ref(site).addr() as u64);
    key.text(owner.as_ref().map_or("", Owner::as_str));
    arguments.mark(&mut key);
    results.mark(&mut key);
    let key = key.end();
    let whole = !arguments.is_capped() && !results.is_capped();
    if whole && tracker.repeats().count(key, Timestamp::now(), interval) {
        return;
    }
    let inputs = found(tracker, |sink| arguments.play(sink));
    let Some(mut event) = derivation(tracker, site, inputs, |sink| results.play(sink)) else {
        return;
    };
    complete(&mut event);
    let ended = match whole {
        true => tracker.repeats().keep(key, event.clone(), interval),
        false => Vec::new(),
    };
    for told in ended {
        tracker.record_of(told, &Moment::nobodys());
    }
    tracker.record(event);
}

/// The registered values among the arguments.
fn found(tracker: &Tracker, tell: impl FnOnce(&mut dyn Sink)) -> Vec<EventTag> {
    let request_owner = Scope::current().and_then(|scope| scope.owner());
    let mut sink = Arguments {
        tracker,
        request_owner,
        found: Vec::new(),
    };
    tell(&mut sink);
    sink.found
}

/// The event; nothing if the result has no value.
fn derivation(
    tracker: &Tracker,
    site: &'static DerivedSite,
    inputs: Vec<EventTag>,
    tell: impl FnOnce(&mut dyn Sink),
) -> Option<Event> {
    input::settle(tracker);
    // What was sent before does not hold the result.
    tracker.work_off();
    let scope = Scope::current();
    let actor = match &scope {
        Some(scope) => scope.source().clone(),
        None => format!("fn {}", site.site.path).into(),
    };
    let owner = scope.and_then(|scope| scope.owner()).or_else(|| sole_owner(&inputs));
    let target: Arc<str> = format!("derived:{}", site.field.category).into();
    let mut event = Event::new(EventType::DataDerivation, actor);
    declare(&mut event, &site.site);
    let mut sink = Results {
        tracker,
        event: &mut event,
        owner: owner.as_ref(),
        source: &target,
    };
    tell(&mut sink);
    if event.tags.is_empty() {
        return None;
    }
    event.payload.insert("inputs".into(), inputs.len().into());
    event.tags.extend(inputs);
    event.target = Some(target.clone());
    event.owner = owner;
    Some(event)
}

fn sole_owner(tags: &[EventTag]) -> Option<Owner> {
    let mut owners = tags.iter().filter_map(|tag| tag.tag.owner.as_ref());
    let first = owners.next()?;
    owners.all(|owner| owner == first).then(|| first.clone())
}

fn role(word: &str) -> Map<String, Json> {
    Map::from_iter([("role".to_owned(), word.into())])
}

struct Arguments<'t> {
    tracker: &'t Tracker,
    request_owner: Option<Owner>,
    found: Vec<EventTag>,
}

impl Arguments<'_> {
    fn look_up(&mut self, kind: Kind, value: Value<'_>) -> bool {
        let Some(fingerprint) = self.tracker.fingerprint(kind, value) else {
            return false;
        };
        let tags = self.tracker.registry().tags(&fingerprint);
        let same_person = |tag: &Tag| match (&self.request_owner, &tag.owner) {
            (Some(a), Some(b)) => self.tracker.registry().same_person(a, b),
            _ => false,
        };
        // Identifiers of one kind that are not linked are two people's, as in findings.
        let somebody_elses = |tag: &Tag| match (&self.request_owner, &tag.owner) {
            (Some(a), Some(b)) => a.kind() == b.kind() && !self.tracker.registry().same_person(a, b),
            _ => false,
        };
        // A value that several people share is this request's person's, where it is theirs too.
        let theirs = tags.iter().any(|tag| same_person(tag));
        let counts = |tag: &Tag| if theirs { same_person(tag) } else { !somebody_elses(tag) };
        let mut any = false;
        for tag in tags.iter().filter(|tag| counts(tag)) {
            any = true;
            let known = self
                .found
                .iter()
                .any(|t| t.tag.fingerprint == tag.fingerprint && t.tag.category == tag.category);
            if !known && self.found.len() < MAX_INPUTS {
                self.found.push(EventTag {
                    tag: (**tag).clone(),
                    detail: role("input"),
                });
            }
        }
        any
    }
}

impl Sink for Arguments<'_> {
    fn declared(&mut self, field: &'static Field, value: Value<'_>) {
        let spec = self.tracker.spec(field);
        self.look_up(spec.kind, value);
    }

    fn keyed(&mut self, key: &str, value: Value<'_>) {
        if let Some((spec, _)) = self.tracker.input_spec(key)
            && self.look_up(spec.kind, value)
        {
            return;
        }
        // The argument does not say what it is: its canonical form decides.
        let kinds = [Kind::Text, Kind::Number, Kind::Date, Kind::Id];
        let _found = kinds.into_iter().any(|kind| self.look_up(kind, value));
    }
}

struct Results<'t> {
    tracker: &'t Tracker,
    event: &'t mut Event,
    owner: Option<&'t Owner>,
    source: &'t Arc<str>,
}

impl Sink for Results<'_> {
    fn declared(&mut self, field: &'static Field, value: Value<'_>) {
        let spec = self.tracker.spec(field);
        if let Some(observed) = self.tracker.observe(&spec, value) {
            input::describe(self.event, &observed, None);
            let mut tag = self
                .tracker
                .register(&observed, self.owner, self.source, false, self.event.created_at);
            tag.detail = role("result");
            self.event.tags.push(tag);
        }
    }
}

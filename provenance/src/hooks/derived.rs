//! What was computed from tracked values: DATA_DERIVATION events.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::input;
use crate::scope::Scope;
use crate::site::DerivedSite;
use crate::tracked::{Field, Sink, Value, Visitor};
use crate::tracker::{self, Tracker, declare};
use crate::vocabulary::{Event, EventTag, EventType, Kind, Owner, Tag};

/// Most inputs that one derivation lists.
const MAX_INPUTS: usize = 256;

/// One call of a function under `#[derived]`. Generated code makes it.
pub struct Call {
    site: &'static DerivedSite,
    inputs: Vec<EventTag>,
}

impl Call {
    /// Nothing is looked at yet.
    pub fn begin(site: &'static DerivedSite) -> Self {
        Call {
            site,
            inputs: Vec::new(),
        }
    }

    /// Visits the arguments: those that are registered values are the inputs.
    pub fn inputs(&mut self, visit: impl FnOnce(&mut Visitor<'_>)) {
        tracker::with(|tracker| {
            let request_owner = Scope::current().and_then(|scope| scope.owner());
            let mut sink = Inputs {
                tracker,
                request_owner,
                found: Vec::new(),
            };
            visit(&mut Visitor::new(&mut sink));
            self.inputs = sink.found;
        });
    }

    /// Visits the result, registers it and records the derivation.
    pub fn result(self, visit: impl FnOnce(&mut Visitor<'_>)) {
        tracker::with(|tracker| {
            input::settle(tracker);
            let scope = Scope::current();
            let actor = match &scope {
                Some(scope) => scope.source().clone(),
                None => format!("fn {}", self.site.site.path).into(),
            };
            let owner = scope
                .and_then(|scope| scope.owner())
                .or_else(|| sole_owner(&self.inputs));
            let target: Arc<str> = format!("derived:{}", self.site.field.category).into();
            let mut event = Event::new(EventType::DataDerivation, actor);
            declare(&mut event, &self.site.site);
            let mut sink = Results {
                tracker,
                event: &mut event,
                owner: owner.as_ref(),
                source: &target,
            };
            visit(&mut Visitor::new(&mut sink));
            if event.tags.is_empty() {
                return;
            }
            event.payload.insert("inputs".into(), self.inputs.len().into());
            event.tags.extend(self.inputs);
            event.target = Some(target.clone());
            event.owner = owner;
            tracker.record(event);
        });
    }
}

fn sole_owner(tags: &[EventTag]) -> Option<Owner> {
    let mut owners = tags.iter().filter_map(|tag| tag.tag.owner.as_ref());
    let first = owners.next()?;
    owners.all(|owner| owner == first).then(|| first.clone())
}

fn role(word: &str) -> Map<String, Json> {
    Map::from_iter([("role".to_owned(), word.into())])
}

struct Inputs<'t> {
    tracker: &'t Tracker,
    request_owner: Option<Owner>,
    found: Vec<EventTag>,
}

impl Inputs<'_> {
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

impl Sink for Inputs<'_> {
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

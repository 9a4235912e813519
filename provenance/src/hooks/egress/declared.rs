//! What `#[payload]` arguments declare of themselves.

use std::sync::Arc;

use super::findings::Findings;
use crate::policy::Suppression;
use crate::scope::Scope;
use crate::tracked::{Field, Sink, Value, Visitor};
use crate::tracker::{Observed, Tracker};
use crate::vocabulary::{EventTag, Fingerprint, Owner, Tag, Timestamp};

/// Most values of one function's payload.
const MAX_VALUES: usize = 1024;

/// One declared value of a payload.
#[derive(Clone)]
pub(crate) struct Declared {
    fingerprint: Fingerprint,
    tag: Tag,
}

/// Visits a payload.
pub(super) fn visit(tracker: &Tracker, source: &str, visit: impl FnOnce(&mut Visitor<'_>)) -> Vec<Declared> {
    let mut sink = Payload {
        tracker,
        found: Vec::new(),
        records: Vec::new(),
    };
    visit(&mut Visitor::new(&mut sink));
    let request = Scope::current().and_then(|scope| scope.owner());
    let source: Arc<str> = source.into();
    sink.found
        .into_iter()
        .map(|(observed, owner)| declared(tracker, &observed, owner.or_else(|| request.clone()), &source))
        .collect()
}

/// Adds what the scan has not found by itself; findings of the same value say more, and stay.
pub(super) fn merge(
    tracker: &Tracker,
    found: &mut Findings,
    declared: &[Declared],
    request: Option<&Owner>,
    recipient: &str,
) {
    let rules = Suppression::of(tracker.config(), recipient);
    let same = |a: Option<&Owner>, b: Option<&Owner>| match (a, b) {
        (Some(a), Some(b)) => tracker.registry().same_person(a, b),
        _ => true,
    };
    let more: Vec<EventTag> = declared
        .iter()
        .filter(|one| {
            let suppressed = found.suppressed.iter().map(|(_, tag)| tag);
            !found.tags.iter().chain(suppressed).any(|tag| {
                let same_value = match tag.tag.fingerprint {
                    Some(fingerprint) => fingerprint == one.fingerprint,
                    // Secrets have none on a tag: their field tells.
                    None => one.tag.fingerprint.is_none() && tag.tag.field == one.tag.field,
                };
                same_value && same(tag.tag.owner.as_ref(), one.tag.owner.as_ref())
            })
        })
        .map(|one| {
            let mut tag = one.tag.clone();
            if tag.owner.is_none() {
                tag.owner = request.cloned();
            }
            EventTag {
                tag,
                detail: super::detail(None, "declared", "high"),
            }
        })
        .collect();
    for tag in more {
        match rules.rule(&tag.tag.category, None) {
            Some(rule) => found.suppressed.push((rule, tag)),
            None => found.tags.push(tag),
        }
    }
}

fn declared(tracker: &Tracker, observed: &Observed, owner: Option<Owner>, source: &Arc<str>) -> Declared {
    let spec = &observed.spec;
    let known = tracker.registry().tags(&observed.fingerprint);
    let known = known.iter().find(|tag| tag.owner == owner).or(known.first());
    Declared {
        fingerprint: observed.fingerprint,
        tag: Tag {
            fingerprint: (!spec.secret).then_some(observed.fingerprint),
            category: spec.category.clone(),
            field: spec.name.clone(),
            description: spec.description.clone(),
            owner,
            source: known.map_or_else(|| source.clone(), |tag| tag.source.clone()),
            pii: spec.pii,
            created_at: known.map_or_else(Timestamp::now, |tag| tag.created_at),
        },
    }
}

struct Payload<'t> {
    tracker: &'t Tracker,
    found: Vec<(Observed, Option<Owner>)>,
    /// Open records: where their values begin, and whose they say they are.
    records: Vec<(usize, Option<Owner>)>,
}

impl Sink for Payload<'_> {
    fn begin(&mut self) {
        self.records.push((self.found.len(), None));
    }

    fn end(&mut self) {
        let Some((first, owner)) = self.records.pop() else {
            return;
        };
        for (_, slot) in self.found.iter_mut().skip(first) {
            if slot.is_none() {
                slot.clone_from(&owner);
            }
        }
    }

    fn owner(&mut self, kind: &'static str, value: Value<'_>) {
        if let Some((_, owner @ None)) = self.records.last_mut() {
            *owner = self.tracker.owner(kind, value);
        }
    }

    fn declared(&mut self, field: &'static Field, value: Value<'_>) {
        if self.found.len() < MAX_VALUES {
            let spec = self.tracker.spec(field);
            if let Some(observed) = self.tracker.observe(&spec, value) {
                self.found.push((observed, None));
            }
        }
    }
}

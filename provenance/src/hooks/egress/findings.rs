//! From hits to findings: which of them count, and whose they are.
//!
//! A value may be many people's (a city, an income), and a weak hit may be chance. So people are
//! told apart by context: the request's owner first, then the one person whom a value of this
//! message names alone.

use std::sync::Arc;

use crate::detect::{Form, Hit, Scan, Shape};
use crate::policy::Suppression;
use crate::tracker::Tracker;
use crate::vocabulary::{EventTag, Fingerprint, Owner, Tag, Timestamp, category};

/// Most people whom one ambiguous value is attributed to, and most places listed of one value.
const MAX_LISTED: usize = 16;

/// The form of what was never registered.
const UNREGISTERED: &str = "unregistered";

/// What counts, and what a rule of `suppress` leaves out.
pub(super) struct Findings {
    pub(super) tags: Vec<EventTag>,
    /// With the number of the rule.
    pub(super) suppressed: Vec<(usize, EventTag)>,
}

impl Findings {
    /// Counts what was left out, for `/status`; gives how many findings that were.
    pub(super) fn count_suppressed(&self, tracker: &Tracker) -> usize {
        self.suppressed.iter().for_each(|(rule, _)| tracker.suppressed(*rule));
        self.suppressed.len()
    }
}

/// Whether a tag is of what was never registered.
pub(super) fn is_unregistered(tag: &EventTag) -> bool {
    tag.detail.get("form").is_some_and(|form| form == UNREGISTERED)
}

/// The tags of everything in `scan` that counts. Each carries where it stands (`place`, and
/// `also` for further places), its `form`, and how sure the finding is: `confidence` is `high`
/// for a telling value as it was registered, inside text, encoded or hashed; `medium` for one
/// in another format; `low` for a value that only its context makes telling. `shared_by` counts
/// the people who have the value, where there are several. What was never registered has one tag for each
/// category, without owner and fingerprint.
pub(super) fn findings(tracker: &Tracker, scan: &Scan, request: Option<&Owner>, recipient: &str) -> Findings {
    let rules = Suppression::of(tracker.config(), recipient);
    let met: Vec<Met<'_>> = scan
        .hits
        .iter()
        .map(|hit| Met {
            hit,
            tags: tracker.registry().tags(&hit.fingerprint),
        })
        .filter(|met| !met.tags.is_empty())
        .collect();
    let people = People { tracker };
    let sole = people.sole(
        met.iter()
            .filter(|met| !met.hit.weak)
            .filter_map(|met| people.only(met)),
    );
    let context: Vec<&Owner> = request.into_iter().chain(sole.as_ref()).collect();

    let mut found = Found {
        rules,
        tags: Vec::new(),
        suppressed: Vec::new(),
    };
    let mut named: Vec<Owner> = Vec::new();
    for met in met.iter().filter(|met| !met.hit.weak) {
        let tags = people.narrow(&met.tags, &context);
        named.extend(tags.iter().filter_map(|tag| tag.owner.clone()));
        found.add(&people, met, &tags);
    }
    for met in met.iter().filter(|met| met.hit.weak) {
        let tags = people.telling(met, request, &context, &named);
        found.add(&people, met, &tags);
    }
    scan.shapes.iter().for_each(|shape| found.shape(shape));
    Findings {
        tags: found.tags.into_iter().map(|(_, tag)| tag).collect(),
        suppressed: found.suppressed.into_iter().map(|(rule, _, tag)| (rule, tag)).collect(),
    }
}

/// The one person whom all tags with an owner are about.
pub(super) fn sole_owner(tracker: &Tracker, tags: &[EventTag]) -> Option<Owner> {
    People { tracker }.sole(tags.iter().filter_map(|tag| tag.tag.owner.as_ref()))
}

struct Met<'s> {
    hit: &'s Hit,
    tags: Vec<Arc<Tag>>,
}

struct People<'t> {
    tracker: &'t Tracker,
}

impl People<'_> {
    fn same(&self, a: &Owner, b: &Owner) -> bool {
        self.tracker.registry().same_person(a, b)
    }

    fn is(&self, tag: &Tag, person: &Owner) -> bool {
        tag.owner.as_ref().is_some_and(|owner| self.same(owner, person))
    }

    /// Identifiers of one kind that are not linked are two people's; of two kinds, nobody can tell.
    fn certainly_others(&self, tag: &Tag, context: &[&Owner]) -> bool {
        let Some(owner) = &tag.owner else { return false };
        !context.iter().any(|person| self.same(owner, person))
            && context.iter().any(|person| owner.kind() == person.kind())
    }

    fn sole<'o>(&self, mut owners: impl Iterator<Item = &'o Owner>) -> Option<Owner> {
        let first = owners.next()?;
        owners.all(|owner| self.same(owner, first)).then(|| first.clone())
    }

    /// The one person who has this value.
    fn only<'m>(&self, met: &'m Met<'_>) -> Option<&'m Owner> {
        let mut owners = met.tags.iter().filter_map(|tag| tag.owner.as_ref());
        let first = owners.next()?;
        owners.all(|owner| self.same(owner, first)).then_some(first)
    }

    /// How many people the tags are about.
    fn count(&self, tags: &[Arc<Tag>]) -> usize {
        let owners = tags.iter().filter_map(|tag| tag.owner.as_ref());
        self.tracker.registry().count_people(owners)
    }

    /// The tags of the first person of the context who has the value, else all.
    fn narrow(&self, tags: &[Arc<Tag>], context: &[&Owner]) -> Vec<Arc<Tag>> {
        for person in context {
            let theirs: Vec<_> = tags.iter().filter(|tag| self.is(tag, person)).cloned().collect();
            if !theirs.is_empty() {
                return theirs;
            }
        }
        tags.to_vec()
    }

    /// The tags under which a weak hit counts: the request's owner's, else those of people whom
    /// the message names, else, where one person alone has it, by the key that it stands under.
    fn telling(&self, met: &Met<'_>, request: Option<&Owner>, context: &[&Owner], named: &[Owner]) -> Vec<Arc<Tag>> {
        let of = |people: &mut dyn Iterator<Item = &Owner>| -> Vec<Arc<Tag>> {
            let people: Vec<&Owner> = people.collect();
            met.tags
                .iter()
                .filter(|tag| people.iter().any(|person| self.is(tag, person)))
                .cloned()
                .collect()
        };
        let theirs = of(&mut request.into_iter());
        if !theirs.is_empty() {
            return theirs;
        }
        let theirs = of(&mut named.iter());
        if !theirs.is_empty() {
            return theirs;
        }
        let by_key: Vec<_> = met
            .tags
            .iter()
            .filter(|tag| self.key_names(met.hit, tag) && !self.certainly_others(tag, context))
            .cloned()
            .collect();
        if self.count(&by_key) > 1 { Vec::new() } else { by_key }
    }

    /// Whether the leaf's key says the same as the tag.
    fn key_names(&self, hit: &Hit, tag: &Tag) -> bool {
        let Some(key) = &hit.key else { return false };
        tag.field.eq_ignore_ascii_case(key)
            || self
                .tracker
                .input_spec(key)
                .is_some_and(|(spec, _)| category::same(&spec.category, &tag.category))
    }
}

struct Found<'c> {
    rules: Suppression<'c>,
    tags: Vec<(Option<Fingerprint>, EventTag)>,
    suppressed: Vec<(usize, Option<Fingerprint>, EventTag)>,
}

impl Found<'_> {
    fn add(&mut self, people: &People<'_>, met: &Met<'_>, tags: &[Arc<Tag>]) {
        let hit = met.hit;
        // A person may have the value under several identifiers.
        let same_owner = |a: &Tag, b: &Tag| match (&a.owner, &b.owner) {
            (Some(a), Some(b)) => people.same(a, b),
            (a, b) => a == b,
        };
        // One value under several categories: the one that its key names, if there is one.
        let named = |tag: &&Arc<Tag>| hit.key.as_ref().is_some_and(|key| tag.field.eq_ignore_ascii_case(key));
        let any_named = tags.iter().any(|tag| named(&tag));
        for tag in tags.iter().filter(|tag| !any_named || named(tag)).take(MAX_LISTED) {
            let same = |fingerprint: &Option<Fingerprint>, known: &EventTag| {
                *fingerprint == Some(hit.fingerprint)
                    && category::same(&known.tag.category, &tag.category)
                    && same_owner(&known.tag, tag)
            };
            let rule = self.rules.rule(&tag.category, Some(&hit.place));
            match self.known(rule, same) {
                Some(known) => also(known, &hit.place),
                None => {
                    let mut detail = super::detail(Some(&hit.place), hit.form.as_str(), confidence(hit));
                    // Only where a tag is added: very many may have a value that is met at every line.
                    let shared_by = people.count(&met.tags);
                    if shared_by > 1 {
                        detail.insert("shared_by".into(), shared_by.into());
                    }
                    let tag = (**tag).clone();
                    self.push(rule, Some(hit.fingerprint), EventTag { tag, detail });
                }
            }
        }
    }

    /// What stands already among what counts, or among what this rule leaves out.
    fn known(
        &mut self,
        rule: Option<usize>,
        same: impl Fn(&Option<Fingerprint>, &EventTag) -> bool,
    ) -> Option<&mut EventTag> {
        match rule {
            Some(rule) => {
                let mut suppressed = self.suppressed.iter_mut();
                let known = suppressed.find(|(of, fingerprint, known)| *of == rule && same(fingerprint, known));
                known.map(|(_, _, known)| known)
            }
            None => {
                let known = self
                    .tags
                    .iter_mut()
                    .find(|(fingerprint, known)| same(fingerprint, known));
                known.map(|(_, known)| known)
            }
        }
    }

    fn push(&mut self, rule: Option<usize>, fingerprint: Option<Fingerprint>, tag: EventTag) {
        match rule {
            Some(rule) => self.suppressed.push((rule, fingerprint, tag)),
            None => self.tags.push((fingerprint, tag)),
        }
    }

    /// What was never registered: nobody can tell values apart, so places of one category are one finding.
    fn shape(&mut self, shape: &Shape) {
        let rule = self.rules.rule(shape.category, Some(&shape.place));
        let same = |_: &Option<Fingerprint>, known: &EventTag| {
            is_unregistered(known) && &*known.tag.category == shape.category
        };
        if let Some(known) = self.known(rule, same) {
            return also(known, &shape.place);
        }
        let tag = Tag {
            fingerprint: None,
            category: shape.category.into(),
            field: "".into(),
            description: "".into(),
            owner: None,
            source: UNREGISTERED.into(),
            pii: true,
            created_at: Timestamp::now(),
        };
        let detail = super::detail(Some(&shape.place), UNREGISTERED, "low");
        self.push(rule, None, EventTag { tag, detail });
    }
}

fn also(tag: &mut EventTag, place: &str) {
    if tag.detail.get("place").is_some_and(|first| first == place) {
        return;
    }
    let more = tag
        .detail
        .entry("also")
        .or_insert_with(|| serde_json::Value::Array(Vec::new()));
    if let serde_json::Value::Array(places) = more
        && places.len() < MAX_LISTED
        && !places.iter().any(|known| known == place)
    {
        places.push(place.into());
    }
}

fn confidence(hit: &Hit) -> &'static str {
    match (hit.weak, hit.form) {
        (true, _) => "low",
        (false, Form::Normalised) => "medium",
        (false, _) => "high",
    }
}

//! Fingerprint -> tags, in memory: what detection finds, and whose it is.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use dashmap::DashMap;

use crate::detect::{Detector, Entry};
use crate::vocabulary::{Fingerprint, Owner, Tag, Timestamp, category};

/// Values that no commit or load confirmed are forgotten after this time.
const UNCONFIRMED_MICROS: i64 = 3_600_000_000;

/// Most people whom one value is known as; a value of more (a currency, a gender) tells nobody apart.
const MAX_TAGS: usize = 1024;

/// Values that go from one thread to another at once.
const SOME: usize = 4_096;

/// The registry. Nothing here waits for the writer.
///
/// Locks are taken in this order, and no code of others runs while one is held: a shard of
/// `values`, then the detector's or `people`; `arrivals` before all of them.
pub(crate) struct Registry {
    detector: Detector,
    values: DashMap<Fingerprint, Held>,
    arrivals: Mutex<Arrivals>,
    max_values: usize,
    evicted: AtomicU64,
    expired: AtomicU64,
    /// Values forgotten so far: what was known of the registry holds as long as this stays.
    generation: AtomicU64,
    people: RwLock<People>,
}

struct Held {
    /// One for each kind that the value was registered as: they are met in different forms.
    entries: Vec<Entry>,
    /// Tells this stay from an earlier one of the same value.
    since: Timestamp,
    /// Seen in a commit or a load, not just in an input.
    confirmed: bool,
    tags: Tags,
}

struct HeldTag {
    tag: Arc<Tag>,
    confirmed: bool,
}

/// The tags of a value, the oldest first.
#[derive(Default)]
struct Tags {
    held: VecDeque<HeldTag>,
    /// Of so many nobody but an input says that they are.
    unconfirmed: usize,
    /// How many tags each owner has, once there are many: most who come have none yet, and to look at all
    /// tags for each of them takes longer than all else.
    owners: HashMap<Owner, usize>,
}

impl Tags {
    /// From so many on their owners are counted.
    const MANY: usize = 32;

    fn push(&mut self, tag: HeldTag) {
        self.unconfirmed += usize::from(!tag.confirmed);
        self.held.push_back(tag);
        let uncounted = match self.owners.is_empty() {
            true if self.held.len() <= Self::MANY => return,
            true => 0,
            false => self.held.len() - 1,
        };
        for held in self.held.range(uncounted..) {
            if let Some(owner) = &held.tag.owner {
                *self.owners.entry(owner.clone()).or_insert(0) += 1;
            }
        }
    }

    fn remove(&mut self, at: usize) {
        let Some(gone) = self.held.remove(at) else { return };
        self.unconfirmed -= usize::from(!gone.confirmed);
        if let Some(owner) = &gone.tag.owner
            && let Some(count) = self.owners.get_mut(owner)
        {
            *count -= 1;
            if *count == 0 {
                self.owners.remove(owner);
            }
        }
    }

    fn confirm(&mut self, at: usize) {
        if let Some(held) = self.held.get_mut(at).filter(|held| !held.confirmed) {
            held.confirmed = true;
            self.unconfirmed -= 1;
        }
    }

    /// The oldest that no commit or load has confirmed.
    fn unconfirmed(&self) -> Option<usize> {
        (self.unconfirmed > 0).then(|| self.held.iter().position(|held| !held.confirmed))?
    }

    /// Whether this owner may have one.
    fn may_have(&self, owner: &Owner) -> bool {
        self.owners.is_empty() || self.owners.contains_key(owner)
    }

    /// Leaves out the tags of these owners; `false` if there are none.
    fn forget(&mut self, owners: &HashSet<Owner>) -> bool {
        let before = self.held.len();
        let theirs = |held: &HeldTag| held.tag.owner.as_ref().is_some_and(|owner| owners.contains(owner));
        self.held.retain(|held| !theirs(held));
        self.unconfirmed = self.held.iter().filter(|held| !held.confirmed).count();
        self.owners.retain(|owner, _| !owners.contains(owner));
        self.held.len() < before
    }
}

/// Order of arrival, for eviction and expiry. Anybody can send input: what only an input named
/// goes first, so that a flood of it does not drive out what the database has.
#[derive(Default)]
struct Arrivals {
    unconfirmed: VecDeque<(Fingerprint, Timestamp)>,
    confirmed: VecDeque<(Fingerprint, Timestamp)>,
    /// Values held; the queues may name some that are gone, or confirmed since. Whoever forgets a person
    /// may count a value off before the one who registered it has counted it.
    held: i64,
}

/// What [`Registry::register`] says.
pub(crate) struct Registered {
    /// The tag as first seen: keeps its source and time.
    pub(crate) tag: Arc<Tag>,
    /// The store does not know it yet.
    pub(crate) fresh: bool,
}

impl Registry {
    pub(crate) fn new(detector: Detector, max_values: usize) -> Self {
        Registry {
            detector,
            values: DashMap::new(),
            arrivals: Mutex::default(),
            max_values: max_values.max(1),
            evicted: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            people: RwLock::default(),
        }
    }

    /// One that knows these values from the start, all of them confirmed: the first is the first to be evicted.
    pub(crate) fn holding(
        detector: Detector,
        max_values: usize,
        values: impl ExactSizeIterator<Item = (Fingerprint, Entry, Arc<Tag>)> + Send,
    ) -> Self {
        let count = values.len();
        let registry = Registry {
            values: DashMap::with_capacity(count.min(max_values)),
            ..Registry::new(detector, max_values)
        };
        registry.detector.reserve(count);
        let mut arrivals = lock(&registry.arrivals);
        arrivals.confirmed.reserve(count);
        let mut last = Timestamp(i64::MIN);
        // Nobody else knows it yet: one thread makes that they are found, another whose they are.
        let values = Mutex::new(values);
        let find = || {
            let some: Vec<_> = lock(&values).by_ref().take(SOME).collect();
            let entries = some.iter().map(|(fingerprint, entry, _)| (entry, *fingerprint));
            registry.detector.insert_all(entries);
            (!some.is_empty()).then_some(some)
        };
        std::thread::scope(|scope| {
            let (found, hold) = std::sync::mpsc::sync_channel(4);
            let thread = std::thread::Builder::new().name("provenance-start".into());
            if count > SOME {
                // Without a thread it is done below.
                let _ = thread.spawn_scoped(
                    scope,
                    move || while find().is_some_and(|some| found.send(some).is_ok()) {},
                );
            } else {
                drop(found);
            }
            while let Some(some) = hold.recv().ok().or_else(find) {
                for (fingerprint, entry, tag) in some {
                    last = tag.created_at;
                    let mut held = registry.values.entry(fingerprint).or_insert_with(|| {
                        arrivals.held += 1;
                        arrivals.confirmed.push_back((fingerprint, last));
                        Held {
                            entries: Vec::with_capacity(1),
                            since: last,
                            confirmed: true,
                            tags: Tags::default(),
                        }
                    });
                    if !held.entries.contains(&entry) {
                        held.entries.push(entry);
                    }
                    registry.hold(&mut held.tags, tag, true);
                }
            }
        });
        registry.make_room(&mut arrivals, last);
        drop(arrivals);
        registry
    }

    pub(crate) fn detector(&self) -> &Detector {
        &self.detector
    }

    /// Distinct values held.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// What was dropped because of a cap (values, or people of one value), and values dropped
    /// because nothing confirmed them.
    pub(crate) fn losses(&self) -> (u64, u64) {
        (
            self.evicted.load(Ordering::Relaxed),
            self.expired.load(Ordering::Relaxed),
        )
    }

    /// Changes when a value or a person is forgotten. What was registered under the same generation still is; but
    /// of a value with very many people, the tag of one may be gone.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Makes a value known under `tag`; the first tag of a (value, category, person) stays.
    pub(crate) fn register(
        &self,
        fingerprint: Fingerprint,
        entry: &Entry,
        tag: impl Into<Arc<Tag>>,
        confirmed: bool,
    ) -> Registered {
        let tag = tag.into();
        let now = tag.created_at;
        let mut arrived = false;
        let (registered, newly_confirmed) = {
            let mut held = self.values.entry(fingerprint).or_insert_with(|| {
                arrived = true;
                Held {
                    entries: Vec::new(),
                    since: now,
                    confirmed: false,
                    tags: Tags::default(),
                }
            });
            if !held.entries.contains(entry) {
                held.entries.push(entry.clone());
                self.detector.insert(entry, fingerprint);
            }
            let newly_confirmed = (confirmed && !held.confirmed).then_some(held.since);
            held.confirmed |= confirmed;
            (self.hold(&mut held.tags, tag, confirmed), newly_confirmed)
        };
        if arrived || newly_confirmed.is_some() {
            let mut arrivals = lock(&self.arrivals);
            arrivals.held += i64::from(arrived);
            match newly_confirmed {
                Some(since) => arrivals.confirmed.push_back((fingerprint, since)),
                None => arrivals.unconfirmed.push_back((fingerprint, now)),
            }
            self.make_room(&mut arrivals, now);
        }
        registered
    }

    /// A value that is known under one fingerprint is known under another from now on. Gives the tags that this
    /// made, each with an entry of the value.
    pub(crate) fn rename(&self, before: Fingerprint, now: Fingerprint) -> Vec<(Entry, Arc<Tag>)> {
        let Some((entries, tags, since, confirmed)) = self.values.get(&before).map(|held| {
            let tags: Vec<_> = held
                .tags
                .held
                .iter()
                .map(|held| (held.tag.clone(), held.confirmed))
                .collect();
            (held.entries.clone(), tags, held.since, held.confirmed)
        }) else {
            return Vec::new();
        };
        let mut made = Vec::new();
        // Under the new one before the old one goes: a scan meanwhile finds both, rather than none.
        for (tag, confirmed) in tags {
            for entry in &entries {
                let tag = Tag {
                    fingerprint: tag.fingerprint.map(|_| now),
                    ..(*tag).clone()
                };
                let registered = self.register(now, entry, tag, confirmed);
                if registered.fresh {
                    made.push((entry.clone(), registered.tag));
                }
            }
        }
        let mut arrivals = lock(&self.arrivals);
        if self.forget(before, since, confirmed) {
            arrivals.held = arrivals.held.saturating_sub(1);
        }
        made
    }

    /// Adds a tag to those of a value, unless it is known.
    fn hold(&self, tags: &mut Tags, tag: Arc<Tag>, confirmed: bool) -> Registered {
        if let Some(at) = self.position(tags, &tag)
            && let Some(known) = tags.held.get(at)
        {
            let tag = known.tag.clone();
            if confirmed {
                tags.confirm(at);
            }
            return Registered { tag, fresh: false };
        }
        if tags.held.len() >= MAX_TAGS {
            self.evicted.fetch_add(1, Ordering::Relaxed);
            // What an input claims does not drive out what the database has.
            match tags.unconfirmed() {
                Some(oldest) => tags.remove(oldest),
                None if confirmed => tags.remove(0),
                None => return Registered { tag, fresh: false },
            }
        }
        tags.push(HeldTag {
            tag: tag.clone(),
            confirmed,
        });
        Registered { tag, fresh: true }
    }

    fn make_room(&self, arrivals: &mut Arrivals, now: Timestamp) {
        let most = i64::try_from(self.max_values).unwrap_or(i64::MAX);
        while let Some(&(oldest, since)) = arrivals.unconfirmed.front() {
            let aged = now.0.saturating_sub(since.0) > UNCONFIRMED_MICROS;
            if !aged && arrivals.held <= most {
                break;
            }
            arrivals.unconfirmed.pop_front();
            if self.forget(oldest, since, false) {
                arrivals.held -= 1;
                let counter = if aged { &self.expired } else { &self.evicted };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
        while arrivals.held > most {
            let Some((oldest, since)) = arrivals.confirmed.pop_front() else {
                break;
            };
            if self.forget(oldest, since, true) {
                arrivals.held -= 1;
                self.evicted.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Forgets a value, if it is still the one that the queue means.
    fn forget(&self, fingerprint: Fingerprint, since: Timestamp, confirmed: bool) -> bool {
        let forgotten = self.values.remove_if(&fingerprint, |_, held| {
            let meant = held.since == since && held.confirmed == confirmed;
            if meant {
                self.generation.fetch_add(1, Ordering::AcqRel);
                // Under the shard's lock: whoever registers it again does so after this.
                for entry in &held.entries {
                    self.detector.remove(entry, fingerprint);
                }
            }
            meant
        });
        forgotten.is_some()
    }

    /// Forgets a person: the tags under all identifiers that are known to be theirs, what links these, and
    /// each value that nobody else is known to have (a tag without an owner is nobody's). Gives the
    /// fingerprints of those values; no scan that begins after this finds them. What is registered or
    /// linked meanwhile or later is known anew.
    pub(crate) fn forget_person(&self, owner: &Owner) -> Vec<Fingerprint> {
        let identifiers: HashSet<Owner> = {
            let people = self.people.read().unwrap_or_else(PoisonError::into_inner);
            people.identifiers(owner).iter().cloned().collect()
        };
        let mut gone = HashSet::new();
        self.values.retain(|fingerprint, held| {
            if !held.tags.forget(&identifiers) {
                return true;
            }
            // Both under the shard's lock: whoever registers the value again does so after this.
            self.generation.fetch_add(1, Ordering::AcqRel);
            if held.tags.held.iter().any(|held| held.tag.owner.is_some()) {
                return true;
            }
            for entry in &held.entries {
                self.detector.remove(entry, *fingerprint);
            }
            gone.insert((*fingerprint, held.since));
            false
        });
        if !gone.is_empty() {
            let mut arrivals = lock(&self.arrivals);
            arrivals.held -= i64::try_from(gone.len()).unwrap_or(i64::MAX);
            let Arrivals {
                unconfirmed, confirmed, ..
            } = &mut *arrivals;
            for queue in [unconfirmed, confirmed] {
                queue.retain(|arrival| !gone.contains(arrival));
            }
        }
        let mut people = self.people.write().unwrap_or_else(PoisonError::into_inner);
        people.forget(&identifiers);
        drop(people);
        // What was known of rows says that their links are known too.
        self.generation.fetch_add(1, Ordering::AcqRel);
        gone.into_iter().map(|(fingerprint, _)| fingerprint).collect()
    }

    /// Everybody who is known.
    pub(crate) fn owners(&self) -> HashSet<Owner> {
        let mut owners = HashSet::new();
        for held in &self.values {
            owners.extend(held.tags.held.iter().filter_map(|held| held.tag.owner.clone()));
        }
        let people = self.people.read().unwrap_or_else(PoisonError::into_inner);
        owners.extend(people.person.keys().cloned());
        owners
    }

    /// Every value that is held.
    pub(crate) fn fingerprints(&self) -> Vec<Fingerprint> {
        self.values.iter().map(|held| *held.key()).collect()
    }

    /// What a store keeps of a value: nothing of a secret.
    pub(crate) fn stored(&self, fingerprint: &Fingerprint) -> Vec<(Entry, Arc<Tag>)> {
        let Some(held) = self.values.get(fingerprint) else {
            return Vec::new();
        };
        let Some(entry) = held.entries.first() else {
            return Vec::new();
        };
        let tags = held.tags.held.iter().map(|held| &held.tag);
        tags.filter(|tag| tag.fingerprint.is_some())
            .map(|tag| (entry.clone(), tag.clone()))
            .collect()
    }

    /// Identifiers that are one person's, two and two.
    pub(crate) fn links(&self) -> Vec<(Owner, Owner)> {
        let people = self.people.read().unwrap_or_else(PoisonError::into_inner);
        let pairs = people.known_as.iter().flat_map(|of_one| of_one.windows(2));
        pairs
            .filter_map(|pair| Some((pair.first()?.clone(), pair.last()?.clone())))
            .collect()
    }

    /// What was known of the registry no longer holds.
    pub(crate) fn renew(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// All identifiers of the person who has this one, as far as is known.
    pub(crate) fn identifiers(&self, owner: &Owner) -> Vec<Owner> {
        let people = self.people.read().unwrap_or_else(PoisonError::into_inner);
        people.identifiers(owner).to_vec()
    }

    /// The tag of the same category and person, who may give a value under one identifier and store it
    /// under another.
    fn position(&self, tags: &Tags, tag: &Tag) -> Option<usize> {
        let same = |held: &HeldTag| category::same(&held.tag.category, &tag.category);
        let exactly = |held: &HeldTag| held.tag.owner == tag.owner && same(held);
        let Some(owner) = &tag.owner else {
            return tags.held.iter().position(exactly);
        };
        if tags.may_have(owner)
            && let Some(at) = tags.held.iter().position(exactly)
        {
            return Some(at);
        }
        let people = self.people.read().unwrap_or_else(PoisonError::into_inner);
        let identifiers = people.identifiers(owner);
        if identifiers.len() < 2 || !identifiers.iter().any(|identifier| tags.may_have(identifier)) {
            return None;
        }
        tags.held.iter().position(|held| {
            let held_owner = held.tag.owner.as_ref();
            held_owner.is_some_and(|held| people.same(held, owner)) && same(held)
        })
    }

    /// The tags of a value.
    pub(crate) fn tags(&self, fingerprint: &Fingerprint) -> Vec<Arc<Tag>> {
        self.values
            .get(fingerprint)
            .map(|held| held.tags.held.iter().map(|held| held.tag.clone()).collect())
            .unwrap_or_default()
    }

    /// Two identifiers are of one person, on the host's word. `true` if that was not known.
    pub(crate) fn link(&self, a: &Owner, b: &Owner) -> bool {
        !self.same_person(a, b) && self.people.write().unwrap_or_else(PoisonError::into_inner).link(a, b)
    }

    /// Two identifiers stand in one row of the database. A row says that of its day: addresses and
    /// numbers pass from one person to another. So this never makes one person of two who have
    /// different identifiers of a kind that stays (`user`); `Err` says that it would.
    pub(crate) fn link_by_row(&self, a: &Owner, b: &Owner) -> Result<bool, Conflict> {
        if self.same_person(a, b) {
            return Ok(false);
        }
        let mut people = self.people.write().unwrap_or_else(PoisonError::into_inner);
        if people.conflict(a, b) {
            return Err(Conflict);
        }
        Ok(people.link(a, b))
    }

    /// How many people these identifiers are of, as far as is known.
    pub(crate) fn count_people<'o>(&self, owners: impl Iterator<Item = &'o Owner>) -> usize {
        let people = self.people.read().unwrap_or_else(PoisonError::into_inner);
        let (mut linked, mut alone) = (HashSet::new(), HashSet::new());
        for owner in owners {
            match people.person.get(owner) {
                Some(person) => linked.insert(*person),
                None => alone.insert(owner),
            };
        }
        linked.len() + alone.len()
    }

    /// Whether two identifiers are known to be of one person.
    pub(crate) fn same_person(&self, a: &Owner, b: &Owner) -> bool {
        a == b || self.people.read().unwrap_or_else(PoisonError::into_inner).same(a, b)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A link would make one person of two.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Conflict;

/// Who is known under which identifiers.
#[derive(Default)]
struct People {
    person: HashMap<Owner, usize>,
    /// The identifiers of each; of those who turned out to be another, none.
    known_as: Vec<Vec<Owner>>,
}

impl People {
    fn of(&mut self, owner: &Owner) -> usize {
        if let Some(person) = self.person.get(owner) {
            return *person;
        }
        self.known_as.push(vec![owner.clone()]);
        let person = self.known_as.len() - 1;
        self.person.insert(owner.clone(), person);
        person
    }

    fn link(&mut self, a: &Owner, b: &Owner) -> bool {
        let (a, b) = (self.of(a), self.of(b));
        if a == b {
            return false;
        }
        let (kept, gone) = match self.known_as[a].len() < self.known_as[b].len() {
            true => (b, a),
            false => (a, b),
        };
        for owner in std::mem::take(&mut self.known_as[gone]) {
            self.person.insert(owner.clone(), kept);
            self.known_as[kept].push(owner);
        }
        true
    }

    fn forget(&mut self, identifiers: &HashSet<Owner>) {
        for owner in identifiers {
            if let Some(person) = self.person.remove(owner) {
                self.known_as[person].retain(|known| known != owner);
            }
        }
    }

    fn same(&self, a: &Owner, b: &Owner) -> bool {
        match (self.person.get(a), self.person.get(b)) {
            (Some(a), Some(b)) => a == b,
            _ => false,
        }
    }

    /// Whether the two have different identifiers of one kind that a person keeps.
    fn conflict(&self, a: &Owner, b: &Owner) -> bool {
        let (a, b) = (self.identifiers(a), self.identifiers(b));
        a.iter()
            .filter(|one| one.is_kept())
            .any(|one| b.iter().any(|other| one.kind() == other.kind() && one != other))
    }

    fn identifiers<'a>(&'a self, owner: &'a Owner) -> &'a [Owner] {
        match self.person.get(owner) {
            Some(person) => &self.known_as[*person],
            None => std::slice::from_ref(owner),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::vocabulary::Kind;

    fn registry(max_values: usize) -> Registry {
        Registry::new(Detector::new(&[7; 32]), max_values)
    }

    fn owner(text: &str) -> Owner {
        Owner::from_stored(text).unwrap()
    }

    /// Registers value number `value`, `at` so many seconds.
    fn register(registry: &Registry, value: u32, of: &str, at: i64, confirmed: bool) -> Registered {
        let entry = registry.detector().entry(Kind::Id, &format!("value-{value}"));
        let tag = Tag {
            fingerprint: None,
            category: "x.value".into(),
            field: "value".into(),
            description: "".into(),
            owner: Some(owner(of)),
            source: "test".into(),
            pii: true,
            created_at: Timestamp(at * 1_000_000),
        };
        registry.register(fingerprint(value), &entry, tag, confirmed)
    }

    fn fingerprint(value: u32) -> Fingerprint {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&value.to_be_bytes());
        Fingerprint(bytes)
    }

    fn holds(registry: &Registry, value: u32) -> bool {
        let text = format!("value-{value}");
        let message = crate::detect::Message {
            parts: vec![crate::detect::Part {
                place: String::new(),
                bytes: text.as_bytes(),
                media: crate::detect::Media::Text,
            }],
        };
        let found = !registry.detector().scan(&message, Default::default()).hits.is_empty();
        assert_eq!(found, !registry.tags(&fingerprint(value)).is_empty(), "value {value}");
        found
    }

    #[test]
    fn a_confirmed_value_does_not_keep_unconfirmed_ones_from_expiring() {
        let registry = registry(100);
        register(&registry, 1000, "user:1", 0, true);
        register(&registry, 1001, "user:1", 0, false);
        register(&registry, 1002, "user:1", 0, false);
        register(&registry, 1002, "user:1", 1, true);
        register(&registry, 1003, "user:1", 3700, false);
        let held: Vec<bool> = (1000..1004).map(|value| holds(&registry, value)).collect();
        assert_eq!(held, [true, false, true, true]);
        assert_eq!(registry.losses(), (0, 1));
    }

    #[test]
    fn a_flood_of_input_does_not_drive_out_what_the_database_has() {
        let registry = registry(10);
        for value in 1000..1005 {
            register(&registry, value, "user:1", 0, true);
        }
        for value in 2000..3000 {
            register(&registry, value, "email:flood", 1, false);
        }
        assert!((1000..1005).all(|value| holds(&registry, value)));
        assert_eq!(registry.len(), 10);
        // What the database has, in turn, has room for no more than the cap.
        for value in 4000..4020 {
            register(&registry, value, "user:2", 2, true);
        }
        assert!(!holds(&registry, 1000) && holds(&registry, 4019));
        assert_eq!(registry.len(), 10);
        let arrivals = registry.arrivals.lock().unwrap();
        assert_eq!((arrivals.held, arrivals.confirmed.len()), (10, 10));
        assert!(arrivals.unconfirmed.len() <= 10);
    }

    #[test]
    fn a_value_of_very_many_people_has_a_bounded_number_of_tags() {
        let registry = registry(10);
        for person in 0..1500 {
            register(&registry, 1000, &format!("user:{person}"), 0, true);
        }
        let tags = registry.tags(&fingerprint(1000));
        assert_eq!(tags.len(), MAX_TAGS);
        assert_eq!(tags.last().unwrap().owner, Some(owner("user:1499")));
        // Claims of strangers leave those of the database alone.
        for person in 0..1500 {
            assert!(!register(&registry, 1000, &format!("email:{person}"), 0, false).fresh);
        }
        let tags = registry.tags(&fingerprint(1000));
        assert!(tags.iter().all(|tag| tag.owner.as_ref().unwrap().kind() == "user"));
        assert_eq!(registry.losses().0, 476 + 1500);
    }

    proptest::proptest! {
        /// Against a list of who has what: however many there are, and whoever is forgotten meanwhile.
        #[test]
        fn tags_of_a_value_are_one_a_person(
            steps in proptest::collection::vec((0_u16..70, 0_u8..12, proptest::bool::ANY), 0..300),
        ) {
            let registry = registry(10);
            registry.link(&owner("user:3"), &owner("user:4"));
            let mut expected: Vec<String> = Vec::new();
            register(&registry, 1000, "user:99", 0, true);
            for (person, what, confirmed) in steps {
                let name = format!("user:{person}");
                let is_same = |known: &String| *known == name
                    || (["user:3", "user:4"].contains(&known.as_str()) && ["user:3", "user:4"].contains(&name.as_str()));
                if what == 0 {
                    registry.forget_person(&owner(&name));
                    expected.retain(|known| !is_same(known));
                    registry.link(&owner("user:3"), &owner("user:4"));
                    continue;
                }
                let fresh = register(&registry, 1000, &name, 0, confirmed).fresh;
                proptest::prop_assert_eq!(fresh, !expected.iter().any(is_same));
                if fresh {
                    expected.push(name);
                }
            }
            let held = registry.tags(&fingerprint(1000));
            let held = held.iter().skip(1).filter_map(|tag| tag.owner.as_ref().map(|owner| owner.as_str().to_owned()));
            proptest::prop_assert!(held.eq(expected));
        }
    }

    #[test]
    fn a_renamed_value_keeps_its_people_and_is_found_once() {
        let registry = registry(10);
        for person in ["user:1", "user:2"] {
            assert!(register(&registry, 1, person, 5, person == "user:1").fresh);
        }
        assert!(registry.rename(fingerprint(9), fingerprint(2)).is_empty());
        let made = registry.rename(fingerprint(1), fingerprint(2));
        assert_eq!(made.len(), 2);
        assert_eq!(registry.len(), 1);
        assert!(registry.tags(&fingerprint(1)).is_empty());
        let people: Vec<_> = registry
            .tags(&fingerprint(2))
            .into_iter()
            .filter_map(|tag| tag.owner.clone())
            .collect();
        assert_eq!(people, [owner("user:1"), owner("user:2")]);
        let message = crate::detect::Message {
            parts: vec![crate::detect::Part {
                place: String::new(),
                bytes: b"value-1",
                media: crate::detect::Media::Text,
            }],
        };
        let hits = registry.detector().scan(&message, Default::default()).hits;
        let hits: Vec<_> = hits.iter().map(|hit| hit.fingerprint).collect();
        assert_eq!(hits, [fingerprint(2)]);
        // It takes the room of one.
        for other in 20..29 {
            register(&registry, other, "user:3", 7, true);
        }
        assert_eq!((registry.len(), registry.losses()), (10, (0, 0)));
        register(&registry, 29, "user:3", 8, true);
        assert_eq!((registry.len(), registry.losses()), (10, (1, 0)));
    }

    #[test]
    fn a_row_never_makes_one_person_of_two() {
        let registry = registry(10);
        let (ada, alan) = (owner("user:1"), owner("user:2"));
        let (mail, old, phone) = (owner("email:a"), owner("email:b"), owner("phone:1"));
        assert_eq!(registry.link_by_row(&mail, &ada), Ok(true));
        assert_eq!(registry.link_by_row(&old, &ada), Ok(true));
        assert_eq!(registry.link_by_row(&phone, &alan), Ok(true));
        assert_eq!(
            registry.link_by_row(&old, &alan),
            Err(Conflict),
            "an address that passed on"
        );
        assert_eq!(registry.link_by_row(&mail, &phone), Err(Conflict));
        assert!(!registry.same_person(&ada, &alan) && registry.same_person(&mail, &old));
        let all = [&ada, &alan, &mail, &old, &phone, &owner("user:3"), &ada];
        assert_eq!(
            registry.count_people(all.into_iter()),
            3,
            "linked identifiers are one person's"
        );
        // The host may know better.
        assert!(registry.link(&ada, &alan));
        assert!(registry.same_person(&phone, &mail));
        assert_eq!(registry.link_by_row(&old, &alan), Ok(false));
    }

    #[test]
    fn a_person_who_is_forgotten_leaves_what_others_have() {
        let registry = registry(100);
        let (ada, mail) = (owner("user:1"), owner("email:a"));
        registry.link(&ada, &mail);
        register(&registry, 1000, "user:1", 0, true);
        register(&registry, 1001, "email:a", 0, false);
        register(&registry, 1002, "user:1", 0, true);
        register(&registry, 1002, "user:2", 0, true);
        register(&registry, 1003, "user:2", 0, true);
        let generation = registry.generation();
        let mut gone = registry.forget_person(&mail);
        gone.sort_unstable();
        assert_eq!(gone, [fingerprint(1000), fingerprint(1001)]);
        assert_ne!(registry.generation(), generation);
        let held: Vec<bool> = (1000..1004).map(|value| holds(&registry, value)).collect();
        assert_eq!(held, [false, false, true, true]);
        let owners: Vec<_> = registry
            .tags(&fingerprint(1002))
            .iter()
            .map(|tag| tag.owner.clone())
            .collect();
        assert_eq!(owners, [Some(owner("user:2"))]);
        assert!(!registry.same_person(&ada, &mail), "what linked them is gone too");
        assert_eq!((registry.len(), registry.arrivals.lock().unwrap().held), (2, 2));
        assert_eq!(registry.forget_person(&mail), []);
        // Who comes back is known anew.
        assert!(register(&registry, 1000, "user:1", 1, true).fresh);
        assert!(holds(&registry, 1000));
    }

    #[test]
    fn people_who_come_and_are_forgotten_leave_nothing_behind() {
        let registry = registry(100);
        for round in 0..1000 {
            register(&registry, 1000 + round, "user:1", i64::from(round), true);
            register(&registry, 5000 + round, "user:1", i64::from(round), false);
            assert_eq!(registry.forget_person(&owner("user:1")).len(), 2);
        }
        let arrivals = registry.arrivals.lock().unwrap();
        let left = (arrivals.held, arrivals.confirmed.len(), arrivals.unconfirmed.len());
        assert_eq!((registry.len(), left), (0, (0, 0, 0)));
    }

    #[test]
    fn whoever_is_registered_while_others_are_forgotten_stays() {
        let registry = registry(100_000);
        std::thread::scope(|scope| {
            for person in 0..4 {
                let registry = &registry;
                scope.spawn(move || {
                    for value in 0..2000 {
                        register(registry, 1000 + value, &format!("user:{person}"), 0, true);
                        if person < 2 && value % 100 == 99 {
                            registry.forget_person(&owner(&format!("user:{person}")));
                        }
                    }
                });
            }
        });
        assert!((1000..3000).all(|value| holds(&registry, value)));
        let has = |value: u32, person: &str| {
            let tags = registry.tags(&fingerprint(value));
            tags.iter().any(|tag| tag.owner == Some(owner(person)))
        };
        for value in 1000..3000 {
            assert!(has(value, "user:2") && has(value, "user:3"));
            assert!(!has(value, "user:0") && !has(value, "user:1"));
        }
        assert_eq!(registry.arrivals.lock().unwrap().held, 2000);
    }

    proptest::proptest! {
        /// Against a list of who has what.
        #[test]
        fn forgetting_is_of_one_person_alone(
            has in proptest::collection::vec((0_u32..12, 0_u8..5, proptest::bool::ANY), 0..60),
            links in proptest::collection::vec((0_u8..5, 0_u8..5), 0..3),
            whom in 0_u8..5,
        ) {
            let registry = registry(1000);
            let name = |person: u8| format!("user:{person}");
            let mut same: Vec<u8> = (0..5).collect();
            for (a, b) in links {
                registry.link(&owner(&name(a)), &owner(&name(b)));
                let (from, to) = (same[usize::from(a)], same[usize::from(b)]);
                same.iter_mut().filter(|person| **person == from).for_each(|person| *person = to);
            }
            for (value, person, confirmed) in &has {
                register(&registry, 1000 + value, &name(*person), 0, *confirmed);
            }
            let is_theirs = |person: u8| same[usize::from(person)] == same[usize::from(whom)];
            let gone: HashSet<_> = registry.forget_person(&owner(&name(whom))).into_iter().collect();
            for value in 0..12 {
                let owners: Vec<u8> = has.iter().filter(|(has, ..)| *has == value).map(|(_, person, _)| *person).collect();
                let others = owners.iter().any(|person| !is_theirs(*person));
                proptest::prop_assert_eq!(holds(&registry, 1000 + value), others);
                proptest::prop_assert_eq!(gone.contains(&fingerprint(1000 + value)), !owners.is_empty() && !others);
                let left = registry.tags(&fingerprint(1000 + value));
                let theirs = |tag: &Tag| (0..5).any(|person| is_theirs(person) && tag.owner == Some(owner(&name(person))));
                proptest::prop_assert_eq!(left.iter().filter(|tag| theirs(tag)).count(), 0);
            }
        }
    }
}

//! Fingerprint -> tags, in memory: what detection finds, and whose it is.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;

use crate::detect::{Detector, Entry};
use crate::vocabulary::{Fingerprint, Owner, Tag, Timestamp, category};

/// Values that no commit or load confirmed are forgotten after this time.
const UNCONFIRMED_MICROS: i64 = 3_600_000_000;

/// The registry. Insertions take one shard's lock; nothing here waits for the writer.
pub(crate) struct Registry {
    detector: Detector,
    values: DashMap<Fingerprint, Held>,
    /// Order of arrival, for eviction and expiry.
    arrivals: Mutex<VecDeque<(Fingerprint, Timestamp)>>,
    max_values: usize,
    evicted: AtomicU64,
    expired: AtomicU64,
    people: RwLock<People>,
}

struct Held {
    /// One for each kind that the value was registered as: they are met in different forms.
    entries: Vec<Entry>,
    /// Seen in a commit or a load, not just in an input.
    confirmed: bool,
    tags: Vec<Arc<Tag>>,
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
            people: RwLock::default(),
        }
    }

    pub(crate) fn detector(&self) -> &Detector {
        &self.detector
    }

    /// Distinct values held.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// Values dropped because of `max_values`, and because nothing confirmed them.
    pub(crate) fn losses(&self) -> (u64, u64) {
        (
            self.evicted.load(Ordering::Relaxed),
            self.expired.load(Ordering::Relaxed),
        )
    }

    /// Makes a value known under `tag`; the first tag of a (value, category, person) stays.
    pub(crate) fn register(&self, fingerprint: Fingerprint, entry: &Entry, tag: Tag, confirmed: bool) -> Registered {
        let now = tag.created_at;
        let (registered, arrived) = match self.values.entry(fingerprint) {
            Slot::Occupied(mut slot) => {
                let held = slot.get_mut();
                held.confirmed |= confirmed;
                if !held.entries.contains(entry) {
                    held.entries.push(entry.clone());
                    self.detector.insert(entry, fingerprint);
                }
                let known = held
                    .tags
                    .iter()
                    .find(|known| category::same(&known.category, &tag.category) && self.same_owner(known, &tag));
                match known {
                    Some(known) => (
                        Registered {
                            tag: known.clone(),
                            fresh: false,
                        },
                        false,
                    ),
                    None => {
                        let tag = Arc::new(tag);
                        held.tags.push(tag.clone());
                        (Registered { tag, fresh: true }, false)
                    }
                }
            }
            Slot::Vacant(slot) => {
                let tag = Arc::new(tag);
                slot.insert(Held {
                    entries: vec![entry.clone()],
                    confirmed,
                    tags: vec![tag.clone()],
                });
                (Registered { tag, fresh: true }, true)
            }
        };
        if arrived {
            self.detector.insert(entry, fingerprint);
            self.make_room(fingerprint, now);
        }
        registered
    }

    fn make_room(&self, arrived: Fingerprint, now: Timestamp) {
        let mut arrivals = lock(&self.arrivals);
        arrivals.push_back((arrived, now));
        while let Some(&(oldest, since)) = arrivals.front() {
            let aged = now.0.saturating_sub(since.0) > UNCONFIRMED_MICROS;
            let unconfirmed = aged && self.values.get(&oldest).is_some_and(|held| !held.confirmed);
            if arrivals.len() > self.max_values || unconfirmed {
                let counter = if unconfirmed { &self.expired } else { &self.evicted };
                counter.fetch_add(1, Ordering::Relaxed);
                self.forget(oldest);
                arrivals.pop_front();
            } else {
                break;
            }
        }
    }

    fn forget(&self, fingerprint: Fingerprint) {
        if let Some((_, held)) = self.values.remove(&fingerprint) {
            for entry in &held.entries {
                self.detector.remove(entry, fingerprint);
            }
        }
    }

    /// A person may give a value under one identifier and store it under another.
    fn same_owner(&self, a: &Tag, b: &Tag) -> bool {
        match (&a.owner, &b.owner) {
            (Some(a), Some(b)) => self.same_person(a, b),
            (a, b) => a == b,
        }
    }

    /// The tags of a value.
    pub(crate) fn tags(&self, fingerprint: &Fingerprint) -> Vec<Arc<Tag>> {
        self.values
            .get(fingerprint)
            .map(|held| held.tags.clone())
            .unwrap_or_default()
    }

    /// Two identifiers are of one person. `true` if that was not known.
    pub(crate) fn link(&self, a: &Owner, b: &Owner) -> bool {
        self.people.write().unwrap_or_else(PoisonError::into_inner).link(a, b)
    }

    /// Whether two identifiers are known to be of one person.
    pub(crate) fn same_person(&self, a: &Owner, b: &Owner) -> bool {
        a == b || self.people.read().unwrap_or_else(PoisonError::into_inner).same(a, b)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Union-find over owners.
#[derive(Default)]
struct People {
    index: HashMap<Owner, usize>,
    parent: Vec<usize>,
}

impl People {
    fn node(&mut self, owner: &Owner) -> usize {
        let next = self.parent.len();
        let node = *self.index.entry(owner.clone()).or_insert(next);
        if node == next {
            self.parent.push(next);
        }
        node
    }

    fn root(&self, mut node: usize) -> usize {
        while self.parent[node] != node {
            node = self.parent[node];
        }
        node
    }

    fn link(&mut self, a: &Owner, b: &Owner) -> bool {
        let (a, b) = (self.node(a), self.node(b));
        let (a, b) = (self.root(a), self.root(b));
        // Towards the smaller index: depth stays small, as people have few identifiers.
        self.parent[a.max(b)] = a.min(b);
        a != b
    }

    fn same(&self, a: &Owner, b: &Owner) -> bool {
        match (self.index.get(a), self.index.get(b)) {
            (Some(&a), Some(&b)) => self.root(a) == self.root(b),
            _ => false,
        }
    }
}

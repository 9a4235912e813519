//! Keyed hashes of all registered values, and who they lead to.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use dashmap::DashMap;
use siphasher::sip128::{Hasher128, SipHasher13};

use super::entry::Entry;
use super::filter::{Anchor, AnchorKey, Filter};
use super::{Form, decode};
use crate::vocabulary::Fingerprint;

/// Values of one lane are never met in another: their hashes differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Text,
    Number,
    Date,
    Phone,
    /// A phone without its calling code, or its last digits.
    National,
    /// A digest of a canonical form.
    Digest,
    /// An id without separators.
    Bare,
}

const LANES: usize = 7;
/// Lengths that are told apart.
const LENGTHS: usize = 32;

/// Removed keys that a filter keeps for each key that it has, before it is built anew.
const STALE: usize = 4;

pub(super) struct Index {
    key: SipHasher13,
    pub(super) anchor_key: AnchorKey,
    values: DashMap<u128, Vec<Known>, Spread>,
    /// Hash of an anchor -> lengths of what begins so, with their number. The number of a length
    /// may pass below zero while an insertion and a removal of one value overtake each other.
    lengths_of: DashMap<u32, Vec<(u32, i32)>, Spread>,
    /// What the filter is built of, with its number. Apart from the lengths: very many values may begin alike.
    anchors: DashMap<Anchor, i32>,
    filter: RwLock<Filters>,
    /// Keys in the filter, and those of them that were taken away.
    keys: AtomicUsize,
    stale: AtomicUsize,
    /// Hashes by lane and length of what was hashed, the longest together.
    lengths: [[AtomicUsize; LENGTHS]; LANES],
    /// Hashes by lane: a lane without any is not searched.
    counts: [AtomicUsize; LANES],
    /// Texts that have no word character.
    wordless: AtomicUsize,
}

/// What scans read, and what is being built to follow it: insertions go into both.
struct Filters {
    current: Arc<Filter>,
    next: Option<Arc<Filter>>,
}

/// A value that a hash leads to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) fingerprint: Fingerprint,
    /// Length of the folded canonical form.
    pub(super) length: u32,
    pub(super) weak: bool,
    /// Of the hash under which this stands.
    lane: Lane,
    /// The entry's own hash: one fingerprint may have entries of several kinds.
    of: u128,
}

impl Known {
    /// The form in which it was met under this hash: its own, or that of another spelling.
    pub(super) fn met_as(&self, hash: u128, form: Form) -> Form {
        if hash == self.of { form } else { Form::Normalised }
    }
}

impl Index {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let (mut value_key, mut anchor_key) = ([0; 16], [0; 16]);
        value_key.copy_from_slice(&key[..16]);
        anchor_key.copy_from_slice(&key[16..]);
        Index {
            key: SipHasher13::new_with_key(&value_key),
            anchor_key: AnchorKey::new(&anchor_key),
            values: DashMap::default(),
            lengths_of: DashMap::default(),
            anchors: DashMap::default(),
            filter: RwLock::new(Filters {
                current: Arc::new(Filter::new(0, 0)),
                next: None,
            }),
            keys: AtomicUsize::new(0),
            stale: AtomicUsize::new(0),
            lengths: Default::default(),
            counts: Default::default(),
            wordless: AtomicUsize::new(0),
        }
    }

    /// The keyed hash of `bytes`, to be continued.
    pub(super) fn hasher(&self, lane: Lane) -> SipHasher13 {
        let mut hasher = self.key;
        hasher.write(&[lane as u8]);
        hasher
    }

    pub(super) fn hash(&self, lane: Lane, bytes: &[u8]) -> u128 {
        // In one piece where it fits: what is looked up for each word is short.
        let mut buffer = [lane as u8; 32];
        match buffer.get_mut(1..=bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.key.hash(&buffer[..=bytes.len()]).as_u128()
            }
            None => {
                let mut hasher = self.hasher(lane);
                hasher.write(bytes);
                hasher.finish128().as_u128()
            }
        }
    }

    /// What a scan asks first, as it is now.
    pub(super) fn filter(&self) -> Arc<Filter> {
        let filters = self.filter.read().unwrap_or_else(PoisonError::into_inner);
        filters.current.clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| count.load(Ordering::Relaxed) == 0)
    }

    pub(super) fn has(&self, lane: Lane) -> bool {
        self.counts[lane as usize].load(Ordering::Relaxed) > 0
    }

    /// Whether anything so long is known.
    pub(super) fn has_length(&self, lane: Lane, bytes: usize) -> bool {
        self.lengths[lane as usize][bytes.min(LENGTHS - 1)].load(Ordering::Relaxed) > 0
    }

    /// Whether text without any word character is known.
    pub(super) fn has_wordless(&self) -> bool {
        self.wordless.load(Ordering::Relaxed) > 0
    }

    pub(super) fn find(&self, hash: u128) -> Vec<Known> {
        self.values.get(&hash).map(|known| known.clone()).unwrap_or_default()
    }

    /// The hash of the digest that a run of hex or base64 is, if it is one that is known.
    pub(super) fn digest(&self, filter: &Filter, run: &[u8]) -> Option<u128> {
        if !self.has(Lane::Digest) {
            return None;
        }
        let mut digest = [0; 32];
        let length = decode::digest(run, &mut digest)?;
        let hash = self.hash(Lane::Digest, digest.get(..length)?);
        (filter.has_digest(hash) && self.values.contains_key(&hash)).then_some(hash)
    }

    /// The lengths of the needles that begin with this anchor, ascending, into `lengths`.
    pub(super) fn lengths(&self, anchor: u32, lengths: &mut Vec<u32>) {
        lengths.clear();
        if let Some(found) = self.lengths_of.get(&anchor) {
            lengths.extend(found.iter().filter(|(_, count)| *count > 0).map(|(length, _)| *length));
        }
        lengths.sort_unstable();
    }

    pub(super) fn insert(&self, entry: &Entry, fingerprint: Fingerprint) {
        let known = Known {
            fingerprint,
            length: entry.length,
            weak: entry.weak,
            lane: entry.lane,
            of: entry.hash,
        };
        if self.add(entry.hash, known) {
            for further in &entry.further {
                let lane = further.lane;
                self.add(further.hash, Known { lane, ..known });
            }
            self.count(entry, true);
        }
    }

    pub(super) fn remove(&self, entry: &Entry, fingerprint: Fingerprint) {
        if self.take(entry.lane, entry.hash, fingerprint, entry.hash) {
            for further in &entry.further {
                self.take(further.lane, further.hash, fingerprint, entry.hash);
            }
            self.count(entry, false);
        }
    }

    fn count(&self, entry: &Entry, more: bool) {
        let change = |counter: &AtomicUsize| match more {
            true => counter.fetch_add(1, Ordering::AcqRel),
            false => counter.fetch_sub(1, Ordering::AcqRel),
        };
        let needle = usize::try_from(entry.needle).unwrap_or(LENGTHS);
        change(&self.lengths[entry.lane as usize][needle.min(LENGTHS - 1)]);
        for further in &entry.further {
            change(&self.lengths[further.lane as usize][usize::from(further.length).min(LENGTHS - 1)]);
        }
        if entry.wordless {
            change(&self.wordless);
        }
        // Into the table of anchors first: a filter that is being built reads it.
        for anchor in &entry.anchors {
            self.count_anchor(*anchor, if more { 1 } else { -1 });
        }
        let keys = entry.anchors.len();
        let (keys, stale) = match more {
            true => {
                let filters = self.filter.read().unwrap_or_else(PoisonError::into_inner);
                for filter in [Some(&filters.current), filters.next.as_ref()].into_iter().flatten() {
                    entry.anchors.iter().for_each(|anchor| filter.add(*anchor));
                    let digests = entry.further.iter().filter(|further| further.lane == Lane::Digest);
                    digests.for_each(|digest| filter.add_digest(digest.hash));
                }
                drop(filters);
                (self.keys.fetch_add(keys, Ordering::AcqRel) + keys, 0)
            }
            false => (
                self.keys.load(Ordering::Acquire),
                self.stale.fetch_add(keys, Ordering::AcqRel) + keys,
            ),
        };
        let digests = self.counts[Lane::Digest as usize].load(Ordering::Relaxed);
        if !self.filter().has_room(keys, digests) || stale > 1024.max(keys / STALE) {
            self.rebuild();
        }
    }

    /// Builds a filter of what is there now, with room for more. Scans go on with the one they have,
    /// insertions go into both.
    #[cold]
    fn rebuild(&self) {
        let write = || self.filter.write().unwrap_or_else(PoisonError::into_inner);
        let stale = self.stale.swap(0, Ordering::AcqRel);
        self.keys.fetch_sub(stale, Ordering::AcqRel);
        let next = {
            let mut filters = write();
            if filters.next.is_some() {
                // Somebody is at it.
                self.stale.fetch_add(stale, Ordering::AcqRel);
                self.keys.fetch_add(stale, Ordering::AcqRel);
                return;
            }
            let digests = self.counts[Lane::Digest as usize].load(Ordering::Relaxed);
            let next = Arc::new(Filter::new(self.keys.load(Ordering::Acquire) * 2, digests * 2));
            filters.next = Some(next.clone());
            next
        };
        for anchor in &self.anchors {
            next.add(*anchor.key());
        }
        for known in &self.values {
            if known.iter().any(|known| known.lane == Lane::Digest) {
                next.add_digest(*known.key());
            }
        }
        let mut filters = write();
        filters.current = next;
        filters.next = None;
    }

    fn add(&self, hash: u128, known: Known) -> bool {
        let mut slot = self.values.entry(hash).or_default();
        let new = !slot
            .iter()
            .any(|k| k.fingerprint == known.fingerprint && k.of == known.of);
        if new {
            // Hardly any has a second.
            slot.reserve_exact(1);
            slot.push(known);
            self.counts[known.lane as usize].fetch_add(1, Ordering::Relaxed);
        }
        new
    }

    fn take(&self, lane: Lane, hash: u128, fingerprint: Fingerprint, of: u128) -> bool {
        let mut taken = false;
        self.values.remove_if_mut(&hash, |_, slot| {
            let before = slot.len();
            slot.retain(|k| k.fingerprint != fingerprint || k.of != of);
            taken = slot.len() < before;
            slot.is_empty()
        });
        if taken {
            self.counts[lane as usize].fetch_sub(1, Ordering::Relaxed);
        }
        taken
    }

    fn count_anchor(&self, anchor: Anchor, change: i32) {
        *self.anchors.entry(anchor).or_default() += change;
        self.anchors.remove_if(&anchor, |_, count| *count == 0);
        let mut lengths = self.lengths_of.entry(anchor.hash).or_default();
        match lengths.iter_mut().find(|(length, _)| *length == anchor.length) {
            Some((_, count)) => *count += change,
            None => lengths.push((anchor.length, change)),
        }
        lengths.retain(|(_, count)| *count != 0);
        let empty = lengths.is_empty();
        drop(lengths);
        if empty {
            self.lengths_of.remove_if(&anchor.hash, |_, lengths| lengths.is_empty());
        }
    }
}

/// Keys here are keyed hashes already.
type Spread = BuildHasherDefault<Plain>;

#[derive(Default)]
struct Plain(u64);

impl Hasher for Plain {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u32(&mut self, hash: u32) {
        // The table looks at the highest bits and the lowest.
        self.0 = u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_u128(&mut self, hash: u128) {
        // Half of the bits place it; the table compares all.
        self.0 = (hash >> 64) as u64;
    }
}

//! Keyed hashes of all registered values, and who they lead to.

use std::collections::BTreeMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use siphasher::sip128::{Hasher128, SipHasher13};

use super::entry::{ANCHOR, Entry, NATIONAL};
use super::filter::Filter;
use crate::vocabulary::Fingerprint;

/// Values of one lane are never met in another: their hashes differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Text,
    Number,
    Date,
    Phone,
    /// The last digits of a phone.
    National,
    /// SHA-256 of a canonical form.
    Digest,
}

const LANES: usize = 6;
/// Lengths that are told apart.
const LENGTHS: usize = 32;

pub(super) struct Index {
    key: SipHasher13,
    anchor_key: SipHasher13,
    values: DashMap<u128, Vec<Known>, Spread>,
    /// Anchor -> lengths of the needles that begin so, with their number. The number of a length
    /// may pass below zero while an insertion and a removal of one value overtake each other.
    anchors: DashMap<u64, BTreeMap<u32, i64>, Spread>,
    /// Of every value: the anchor of long text, else the hash; and the national hash of phones.
    filter: Filter,
    /// Hashes by lane and length of what was hashed, the longest together.
    lengths: [[AtomicUsize; LENGTHS]; LANES],
    /// Hashes by lane: a lane without any is not searched.
    counts: [AtomicUsize; LANES],
}

/// A value that a hash leads to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) fingerprint: Fingerprint,
    /// Length of the folded canonical form.
    pub(super) length: u32,
    pub(super) weak: bool,
    /// The entry's own hash: one fingerprint may have entries of several kinds.
    of: u128,
}

impl Index {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let (mut value_key, mut anchor_key) = ([0; 16], [0; 16]);
        value_key.copy_from_slice(&key[..16]);
        anchor_key.copy_from_slice(&key[16..]);
        Index {
            key: SipHasher13::new_with_key(&value_key),
            anchor_key: SipHasher13::new_with_key(&anchor_key),
            values: DashMap::default(),
            anchors: DashMap::default(),
            filter: Filter::new(),
            lengths: Default::default(),
            counts: Default::default(),
        }
    }

    /// What is looked up in the filter for a hash.
    fn filtered(hash: u128) -> u64 {
        hash as u64
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

    /// The hash of the first bytes of `text`, if there are enough; never 0.
    pub(super) fn anchor(&self, text: &[u8]) -> Option<u64> {
        let first: &[u8; ANCHOR] = text.first_chunk()?;
        Some(self.anchor_key.hash(first).h2.max(1))
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

    /// Whether there may be text that begins with this anchor.
    pub(super) fn may_begin(&self, anchor: u64) -> bool {
        self.filter.may_have(anchor)
    }

    /// As [`Index::find`], for all but text with an anchor, and digests.
    pub(super) fn find_filtered(&self, hash: u128) -> Vec<Known> {
        match self.filter.may_have(Index::filtered(hash)) {
            true => self.find(hash),
            false => Vec::new(),
        }
    }

    pub(super) fn find(&self, hash: u128) -> Vec<Known> {
        self.values.get(&hash).map(|known| known.clone()).unwrap_or_default()
    }

    /// The lengths of the needles that begin with this anchor, ascending, into `lengths`.
    pub(super) fn lengths(&self, anchor: u64, lengths: &mut Vec<u32>) {
        lengths.clear();
        if let Some(found) = self.anchors.get(&anchor) {
            lengths.extend(found.iter().filter(|(_, count)| **count > 0).map(|(length, _)| *length));
        }
    }

    pub(super) fn insert(&self, entry: &Entry, fingerprint: Fingerprint) {
        let known = Known {
            fingerprint,
            length: entry.length,
            weak: entry.weak,
            of: entry.hash,
        };
        // First into the filter, and last out of it: it must not deny what is in the tables.
        self.allow(entry);
        if self.add(entry.lane, entry.hash, known) {
            for (lane, hash) in others(entry) {
                self.add(lane, hash, known);
            }
            self.count_anchor(entry, 1);
        } else {
            self.disallow(entry);
        }
    }

    pub(super) fn remove(&self, entry: &Entry, fingerprint: Fingerprint) {
        if self.take(entry.lane, entry.hash, fingerprint, entry.hash) {
            for (lane, hash) in others(entry) {
                self.take(lane, hash, fingerprint, entry.hash);
            }
            self.count_anchor(entry, -1);
            self.disallow(entry);
        }
    }

    fn allow(&self, entry: &Entry) {
        for (lane, length, hash) in filtered(entry) {
            self.filter.add(hash);
            self.lengths[lane as usize][length].fetch_add(1, Ordering::AcqRel);
        }
    }

    fn disallow(&self, entry: &Entry) {
        for (lane, length, hash) in filtered(entry) {
            self.filter.remove(hash);
            self.lengths[lane as usize][length].fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn add(&self, lane: Lane, hash: u128, known: Known) -> bool {
        let mut slot = self.values.entry(hash).or_default();
        let new = !slot
            .iter()
            .any(|k| k.fingerprint == known.fingerprint && k.of == known.of);
        if new {
            slot.push(known);
            self.counts[lane as usize].fetch_add(1, Ordering::Relaxed);
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

    fn count_anchor(&self, entry: &Entry, change: i64) {
        let Some(anchor) = anchor(entry) else { return };
        let mut lengths = self.anchors.entry(anchor).or_default();
        let count = lengths.entry(entry.needle).or_default();
        *count += change;
        if *count == 0 {
            lengths.remove(&entry.needle);
        }
        drop(lengths);
        self.anchors.remove_if(&anchor, |_, lengths| lengths.is_empty());
    }
}

/// The anchor of an entry of long text.
fn anchor(entry: &Entry) -> Option<u64> {
    let anchor = u64::try_from(entry.second).ok()?;
    (entry.lane == Lane::Text && anchor > 0).then_some(anchor)
}

/// What the filter has of an entry, with lane and length.
fn filtered(entry: &Entry) -> impl Iterator<Item = (Lane, usize, u64)> {
    let length = usize::try_from(entry.needle).unwrap_or(LENGTHS).min(LENGTHS - 1);
    let first = anchor(entry).unwrap_or(Index::filtered(entry.hash));
    let national = (entry.lane == Lane::Phone && entry.second != 0).then_some((
        Lane::National,
        NATIONAL,
        Index::filtered(entry.second),
    ));
    [(entry.lane, length, first)].into_iter().chain(national)
}

/// The further hashes under which an entry is found.
fn others(entry: &Entry) -> impl Iterator<Item = (Lane, u128)> {
    let national = (entry.lane == Lane::Phone).then_some((Lane::National, entry.second));
    let digests = entry.digests.into_iter().map(|digest| (Lane::Digest, digest));
    national.into_iter().chain(digests).filter(|(_, hash)| *hash != 0)
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

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write_u128(&mut self, hash: u128) {
        // Half of the bits place it; the table compares all.
        self.0 = (hash >> 64) as u64;
    }
}

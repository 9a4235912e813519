//! Keyed hashes of all registered values, and who they lead to.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use dashmap::DashMap;
use siphasher::sip128::{Hasher128, SipHasher13};

use super::anchor::{Anchor, AnchorKey, LONGEST};
use super::entry::Entry;
use super::filter::Filter;
use super::table::{Key, Table};
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

/// Keys of a filter that takes little memory: it grows more at once.
const SMALL: usize = 1 << 18;

pub(super) struct Index {
    key: SipHasher13,
    pub(super) anchor_key: AnchorKey,
    /// By keyed hash: what is met as it is written.
    forms: Box<[RwLock<Forms>; SHARDS]>,
    digests: Box<[RwLock<Table<Id>>; SHARDS]>,
    /// Hash of an anchor -> lengths of what begins so and is longer than a filter tells apart, with their number.
    long: DashMap<u32, Vec<(u32, u32)>, Spread>,
    filter: RwLock<Filters>,
    /// Keys in the filter, and those of them that were taken away.
    keys: AtomicUsize,
    stale: AtomicUsize,
    /// Hashes by lane and length of what was hashed, the longest together; and the bits of lengths of which there are any.
    counts: [[AtomicUsize; LENGTHS]; LANES],
    lengths: [AtomicU32; LANES],
    /// Texts that have no word character.
    wordless: AtomicUsize,
}

/// Parts of the tables, each with a lock of its own; a power of two.
const SHARDS: usize = 512;

/// A shard of what is met as it is written, with the values whose own hash is in it.
struct Forms {
    table: Table<Written>,
    values: Vec<Value>,
    free: Vec<u32>,
}

/// What a keyed hash of written text leads to, and what a filter has of it.
#[derive(Clone, Copy, Default)]
struct Written {
    value: Id,
    anchor: u32,
    whole: u32,
    /// The length, as far as a filter tells them apart; the beginning; whether the hash is the value's own.
    packed: u32,
}

const OWN: u32 = 1 << 31;

impl Written {
    fn new(value: Id, anchor: Anchor, own: bool) -> Self {
        let length = anchor.length.min(LONGEST as u32);
        Written {
            value,
            anchor: anchor.hash,
            whole: anchor.whole,
            packed: length | u32::from(anchor.begin) << 8 | if own { OWN } else { 0 },
        }
    }

    fn anchor(self) -> Anchor {
        Anchor {
            hash: self.anchor,
            length: self.packed & 0xff,
            begin: (self.packed >> 8) as u16 & 0x1fff,
            whole: self.whole,
        }
    }
}

/// Where a value is: the shard, and the place in it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Id(u32);

impl Id {
    fn new(shard: usize, place: usize) -> Self {
        Id((place * SHARDS + shard) as u32)
    }

    fn shard(self) -> usize {
        self.0 as usize % SHARDS
    }

    fn place(self) -> usize {
        self.0 as usize / SHARDS
    }
}

#[derive(Clone, Copy)]
struct Value {
    fingerprint: Fingerprint,
    /// Length of the folded canonical form; the highest bit says that it is weak.
    length: u32,
}

const WEAK: u32 = 1 << 31;

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
    /// Whether the hash is the value's own, not that of another spelling.
    own: bool,
}

impl Known {
    fn new(value: &Value, own: bool) -> Self {
        Known {
            fingerprint: value.fingerprint,
            length: value.length & !WEAK,
            weak: value.length & WEAK != 0,
            own,
        }
    }

    /// The form in which it was met: its own, or that of another spelling.
    pub(super) fn met_as(&self, form: Form) -> Form {
        if self.own { form } else { Form::Normalised }
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl Index {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let (mut value_key, mut anchor_key) = ([0; 16], [0; 16]);
        value_key.copy_from_slice(&key[..16]);
        anchor_key.copy_from_slice(&key[16..]);
        Index {
            key: SipHasher13::new_with_key(&value_key),
            anchor_key: AnchorKey::new(&anchor_key),
            forms: Box::new([const { RwLock::new(Forms::new()) }; SHARDS]),
            digests: Box::new([const { RwLock::new(Table::new()) }; SHARDS]),
            long: DashMap::default(),
            filter: RwLock::new(Filters {
                current: Arc::new(Filter::new(0)),
                next: None,
            }),
            keys: AtomicUsize::new(0),
            stale: AtomicUsize::new(0),
            counts: Default::default(),
            lengths: Default::default(),
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
        read(&self.filter).current.clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lengths.iter().all(|lengths| lengths.load(Ordering::Acquire) == 0)
    }

    pub(super) fn has(&self, lane: Lane) -> bool {
        self.lengths(lane) != 0
    }

    /// Whether anything so long is known.
    pub(super) fn has_length(&self, lane: Lane, bytes: usize) -> bool {
        self.lengths(lane) >> bytes.min(LENGTHS - 1) & 1 != 0
    }

    /// A bit for each length that is known, in bytes; the highest for all longer ones.
    pub(super) fn lengths(&self, lane: Lane) -> u32 {
        self.lengths[lane as usize].load(Ordering::Acquire)
    }

    /// Whether text without any word character is known.
    pub(super) fn has_wordless(&self) -> bool {
        self.wordless.load(Ordering::Relaxed) > 0
    }

    /// Slots in the tables that are taken, and values in memory.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let mut held = self.long.len();
        for shard in self.forms.iter().map(read) {
            shard.table.all(|_, _| held += 1);
            held += shard.values.len() - shard.free.len();
        }
        self.digests.iter().for_each(|shard| read(shard).all(|_, _| held += 1));
        held
    }

    fn forms(&self, key: Key) -> &RwLock<Forms> {
        &self.forms[key.shard(SHARDS)]
    }

    pub(super) fn find(&self, lane: Lane, hash: u128) -> Vec<Known> {
        let key = Key::new(hash);
        let mut found = Vec::new();
        let ids = |found: &mut Vec<Known>| {
            let mut ids = Vec::new();
            if lane == Lane::Digest {
                read(&self.digests[key.shard(SHARDS)]).each(key, |id| -> Option<()> {
                    ids.push(*id);
                    None
                });
                return ids;
            }
            found.clear();
            let shard = read(self.forms(key));
            shard.table.each(key, |written| -> Option<()> {
                if written.packed & OWN == 0 {
                    ids.push(written.value);
                } else if let Some(value) = shard.values.get(written.value.place()) {
                    found.push(Known::new(value, true));
                }
                None
            });
            ids
        };
        let others = ids(&mut found);
        if others.is_empty() {
            return found;
        }
        let values: Vec<(Id, Known)> = others
            .iter()
            .filter_map(|id| {
                let shard = read(&self.forms[id.shard()]);
                Some((*id, Known::new(shard.values.get(id.place())?, false)))
            })
            .collect();
        // What was forgotten meanwhile may have made room for another.
        let still = ids(&mut found);
        found.extend(
            values
                .iter()
                .filter(|(id, _)| still.contains(id))
                .map(|(_, known)| *known),
        );
        found
    }

    /// The hash of the digest that a run of hex or base64 is, if it is one that is known.
    pub(super) fn digest(&self, run: &[u8]) -> Option<u128> {
        if !self.has(Lane::Digest) {
            return None;
        }
        let mut digest = [0; 32];
        let length = decode::digest(run, &mut digest)?;
        let hash = self.hash(Lane::Digest, digest.get(..length)?);
        let key = Key::new(hash);
        read(&self.digests[key.shard(SHARDS)]).each(key, |_| Some(hash))
    }

    /// The lengths of the long needles that begin with this anchor, ascending, into `lengths`.
    pub(super) fn long_lengths(&self, anchor: u32, lengths: &mut Vec<u32>) {
        lengths.clear();
        if let Some(found) = self.long.get(&anchor) {
            lengths.extend(found.iter().map(|(length, _)| *length));
        }
        lengths.sort_unstable();
    }

    /// Makes a value known. Of one value and entry, insertions and removals must not overtake each other.
    pub(super) fn insert(&self, entry: &Entry, fingerprint: Fingerprint) {
        let own = Key::new(entry.hash);
        let filters = read(&self.filter);
        // What has to be waited for is waited for at once.
        read(self.forms(own)).table.prefetch(own);
        for further in &entry.further {
            let key = Key::new(further.hash);
            match further.lane {
                Lane::Digest => read(&self.digests[key.shard(SHARDS)]).prefetch(key),
                _ => read(self.forms(key)).table.prefetch(key),
            }
        }
        entry
            .anchors
            .iter()
            .for_each(|anchor| filters.current.prefetch(*anchor));
        drop(filters);

        let mut anchors = entry.anchors.iter().copied();
        let Some(id) = write(self.forms(own)).insert(own, entry, fingerprint, anchors.next().unwrap_or_default())
        else {
            return;
        };
        for further in &entry.further {
            let key = Key::new(further.hash);
            if further.lane == Lane::Digest {
                write(&self.digests[key.shard(SHARDS)]).insert(key, id);
            } else {
                let anchor = anchors.next().unwrap_or_default();
                let written = Written::new(id, anchor, false);
                write(self.forms(key)).table.insert(key, written);
            }
        }
        self.count(entry, true);
    }

    /// Makes room for so many more values.
    pub(super) fn reserve(&self, _values: usize) {}

    /// Makes many values known, as [`insert`](Self::insert) does one.
    pub(super) fn insert_all<'e>(&self, values: impl IntoIterator<Item = (&'e Entry, Fingerprint)>) {
        values
            .into_iter()
            .for_each(|(entry, fingerprint)| self.insert(entry, fingerprint));
    }

    /// Forgets a value, as [`insert`](Self::insert) made it known.
    pub(super) fn remove(&self, entry: &Entry, fingerprint: Fingerprint) {
        let own = Key::new(entry.hash);
        let Some(id) = write(self.forms(own)).take(own, fingerprint) else {
            return;
        };
        for further in &entry.further {
            let key = Key::new(further.hash);
            if further.lane == Lane::Digest {
                write(&self.digests[key.shard(SHARDS)]).remove(key, |other| (*other == id).then_some(()));
            } else {
                let is_it = |written: &Written| (written.value == id && written.packed & OWN == 0).then_some(());
                write(self.forms(key)).table.remove(key, is_it);
            }
        }
        // Nothing leads to it any more.
        write(self.forms(own)).free(id);
        self.count(entry, false);
    }

    fn count(&self, entry: &Entry, more: bool) {
        let needle = usize::try_from(entry.needle).unwrap_or(LENGTHS);
        self.tally(entry.lane, needle, more);
        for further in &entry.further {
            self.tally(further.lane, usize::from(further.length), more);
        }
        if entry.wordless {
            match more {
                true => self.wordless.fetch_add(1, Ordering::AcqRel),
                false => self.wordless.fetch_sub(1, Ordering::AcqRel),
            };
        }
        for anchor in entry.anchors.iter().filter(|anchor| anchor.length >= LONGEST as u32) {
            self.count_long(*anchor, more);
        }
        let keys = entry.anchors.len();
        let (keys, stale, room) = match more {
            true => {
                let filters = read(&self.filter);
                for filter in [Some(&filters.current), filters.next.as_ref()].into_iter().flatten() {
                    entry.anchors.iter().for_each(|anchor| filter.add(*anchor));
                }
                let keys = self.keys.fetch_add(keys, Ordering::AcqRel) + keys;
                (keys, 0, filters.current.has_room(keys))
            }
            false => (
                self.keys.load(Ordering::Acquire),
                self.stale.fetch_add(keys, Ordering::AcqRel) + keys,
                true,
            ),
        };
        if !room || stale > 1024.max(keys / STALE) {
            self.rebuild();
        }
    }

    fn tally(&self, lane: Lane, length: usize, more: bool) {
        let length = length.min(LENGTHS - 1);
        let (count, lengths) = (&self.counts[lane as usize][length], &self.lengths[lane as usize]);
        if more {
            if count.fetch_add(1, Ordering::AcqRel) == 0 {
                lengths.fetch_or(1 << length, Ordering::AcqRel);
            }
        } else if count.fetch_sub(1, Ordering::AcqRel) == 1 {
            lengths.fetch_and(!(1 << length), Ordering::AcqRel);
            // Somebody may have added one just before.
            if count.load(Ordering::Acquire) > 0 {
                lengths.fetch_or(1 << length, Ordering::AcqRel);
            }
        }
    }

    /// Builds a filter of what is there now, with room for more. Scans go on with the one they have,
    /// insertions go into both.
    #[cold]
    fn rebuild(&self) {
        let stale = self.stale.swap(0, Ordering::AcqRel);
        self.keys.fetch_sub(stale, Ordering::AcqRel);
        let next = {
            let mut filters = write(&self.filter);
            if filters.next.is_some() {
                // Somebody is at it.
                self.stale.fetch_add(stale, Ordering::AcqRel);
                self.keys.fetch_add(stale, Ordering::AcqRel);
                return;
            }
            let keys = self.keys.load(Ordering::Acquire);
            let next = Arc::new(Filter::new(keys * if keys < SMALL { 4 } else { 2 }));
            filters.next = Some(next.clone());
            next
        };
        for shard in self.forms.iter() {
            // In batches, so that memory is waited for once.
            let mut batch = [Anchor::default(); 16];
            let mut count = 0;
            read(shard).table.all(|_, written| {
                batch[count % 16] = written.anchor();
                next.prefetch(written.anchor());
                count += 1;
                if count % 16 == 0 {
                    batch.iter().for_each(|anchor| next.add(*anchor));
                }
            });
            batch.iter().take(count % 16).for_each(|anchor| next.add(*anchor));
        }
        let mut filters = write(&self.filter);
        filters.current = next;
        filters.next = None;
    }

    fn count_long(&self, anchor: Anchor, more: bool) {
        let mut lengths = self.long.entry(anchor.hash).or_default();
        match lengths.iter_mut().find(|(length, _)| *length == anchor.length) {
            Some((_, count)) if more => *count += 1,
            Some((_, count)) => *count = count.saturating_sub(1),
            None if more => lengths.push((anchor.length, 1)),
            None => {}
        }
        lengths.retain(|(_, count)| *count != 0);
        drop(lengths);
        self.long.remove_if(&anchor.hash, |_, lengths| lengths.is_empty());
    }
}

impl Forms {
    const fn new() -> Self {
        Forms {
            table: Table::new(),
            values: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Where the value is now; `None` if it was there.
    fn insert(&mut self, own: Key, entry: &Entry, fingerprint: Fingerprint, anchor: Anchor) -> Option<Id> {
        if self.own(own, fingerprint).is_some() {
            return None;
        }
        let value = Value {
            fingerprint,
            length: entry.length.min(WEAK - 1) | if entry.weak { WEAK } else { 0 },
        };
        let id = match self.free.pop() {
            Some(id) => Id(id),
            None => {
                if self.values.len() == self.values.capacity() {
                    self.values.reserve_exact(self.values.len() / 4 + 4);
                }
                self.values.push(value);
                Id::new(own.shard(SHARDS), self.values.len() - 1)
            }
        };
        *self.values.get_mut(id.place())? = value;
        self.table.insert(own, Written::new(id, anchor, true));
        Some(id)
    }

    fn own(&self, own: Key, fingerprint: Fingerprint) -> Option<Id> {
        self.table.each(own, |written| self.is_own(written, fingerprint))
    }

    fn is_own(&self, written: &Written, fingerprint: Fingerprint) -> Option<Id> {
        let value = self.values.get(written.value.place());
        let own = written.packed & OWN != 0 && value.is_some_and(|value| value.fingerprint == fingerprint);
        own.then_some(written.value)
    }

    fn free(&mut self, id: Id) {
        if let Some(value) = self.values.get_mut(id.place()) {
            value.fingerprint = Fingerprint([0; 32]);
            self.free.push(id.0);
        }
    }

    /// Takes the value's own hash away.
    fn take(&mut self, own: Key, fingerprint: Fingerprint) -> Option<Id> {
        let id = self.own(own, fingerprint)?;
        let is_it = |written: &Written| (written.packed & OWN != 0 && written.value == id).then_some(id);
        self.table.remove(own, is_it)
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
}

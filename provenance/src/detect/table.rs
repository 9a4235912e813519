//! Keyed hashes and what they lead to, packed: buckets of sixteen slots, no memory of its own for a value.

use super::classify::prefetch;

/// The part of a keyed hash that is kept: 96 bits say where it stands, and are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Key([u32; 3]);

impl Key {
    pub(super) fn new(hash: u128) -> Self {
        Key([hash as u32, (hash >> 32) as u32, (hash >> 64) as u32])
    }

    /// Which of `shards`, a power of two, it is in.
    pub(super) fn shard(self, shards: usize) -> usize {
        self.0[2] as usize & (shards - 1)
    }

    fn tag(self) -> u8 {
        self.0[1] as u8 | TAKEN
    }

    /// The place in a bucket that is tried first.
    fn place(self) -> usize {
        (self.0[1] >> 8) as usize % BUCKET
    }

    /// The bucket of `count` in which it is looked for first. Grows with the hash, so that a table grows in one pass.
    fn bucket(self, count: usize) -> usize {
        ((u64::from(self.0[0]) * count as u64) >> 32) as usize
    }
}

const BUCKET: usize = 16;
/// The tag of a slot that is free, of one that was taken once, and the bit of one that is.
const FREE: u8 = 0;
const GONE: u8 = 1;
const TAKEN: u8 = 0x80;

#[derive(Clone, Copy, Default)]
struct Slot<T> {
    key: Key,
    item: T,
}

/// Several items may stand under one key.
pub(super) struct Table<T> {
    tags: Vec<[u8; BUCKET]>,
    slots: Vec<[Slot<T>; BUCKET]>,
    taken: usize,
    /// Taken, or taken once.
    used: usize,
}

impl<T: Copy + Default> Table<T> {
    pub(super) const fn new() -> Self {
        Table {
            tags: Vec::new(),
            slots: Vec::new(),
            taken: 0,
            used: 0,
        }
    }

    /// Asks the processor for what will be looked at first, or written, under this key.
    pub(super) fn prefetch(&self, key: Key) {
        let bucket = key.bucket(self.tags.len());
        if let Some((tags, slots)) = self.tags.get(bucket).zip(self.slots.get(bucket)) {
            prefetch(tags);
            prefetch(&slots[key.place()]);
            prefetch(&slots[(key.place() + 3) % BUCKET]);
        }
    }

    /// Every item under a key, until one is found that is looked for.
    pub(super) fn each<F>(&self, key: Key, mut looked_for: impl FnMut(&T) -> Option<F>) -> Option<F> {
        self.places(key, |slot| looked_for(&slot.item)).map(|(found, _)| found)
    }

    fn places<F>(&self, key: Key, mut looked_for: impl FnMut(&Slot<T>) -> Option<F>) -> Option<(F, (usize, usize))> {
        let count = self.tags.len();
        let mut bucket = key.bucket(count);
        for _ in 0..count {
            let (tags, slots) = self.tags.get(bucket).zip(self.slots.get(bucket))?;
            let mut candidates = with_tag(tags, key.tag());
            while candidates != 0 {
                let place = candidates.trailing_zeros() as usize / 8;
                candidates &= candidates - 1;
                let slot = slots
                    .get(place)
                    .filter(|slot| slot.key == key && tags[place] == key.tag());
                if let Some(found) = slot.and_then(&mut looked_for) {
                    return Some((found, (bucket, place)));
                }
            }
            if with_tag(tags, FREE) != 0 {
                return None;
            }
            bucket = if bucket + 1 == count { 0 } else { bucket + 1 };
        }
        None
    }

    pub(super) fn insert(&mut self, key: Key, item: T) {
        if (self.used + 1) * 8 > self.tags.len() * BUCKET * 7 {
            // Half as much again: what is free is memory that holds nothing.
            let taken = self.taken + self.taken / 2 + 1;
            let mut grown = Table::with_buckets(taken * 8 / 7 / BUCKET + 1);
            self.all(|key, item| grown.put(key, *item));
            *self = grown;
        }
        self.put(key, item);
    }

    fn with_buckets(count: usize) -> Self {
        Table {
            tags: vec![[FREE; BUCKET]; count],
            slots: vec![Default::default(); count],
            taken: 0,
            used: 0,
        }
    }

    fn put(&mut self, key: Key, item: T) {
        let count = self.tags.len();
        let mut bucket = key.bucket(count);
        for _ in 0..count {
            let Some((tags, slots)) = self.tags.get_mut(bucket).zip(self.slots.get_mut(bucket)) else {
                return;
            };
            // From its own place on, so that it can be foretold.
            let room = (!u128::from_le_bytes(*tags) & HIGH).rotate_right(8 * key.place() as u32);
            if room != 0 {
                let place = (room.trailing_zeros() as usize / 8 + key.place()) % BUCKET;
                self.taken += 1;
                self.used += usize::from(tags[place] == FREE);
                tags[place] = key.tag();
                slots[place] = Slot { key, item };
                return;
            }
            bucket = if bucket + 1 == count { 0 } else { bucket + 1 };
        }
    }

    /// Takes the first item away that is looked for.
    pub(super) fn remove<F>(&mut self, key: Key, looked_for: impl FnMut(&T) -> Option<F>) -> Option<F> {
        let mut looked_for = looked_for;
        let (found, (bucket, place)) = self.places(key, |slot| looked_for(&slot.item))?;
        let tags = self.tags.get_mut(bucket)?;
        // Where one is free nobody looked further.
        tags[place] = if with_tag(tags, FREE) != 0 { FREE } else { GONE };
        self.used -= usize::from(tags[place] == FREE);
        self.taken -= 1;
        *self.slots.get_mut(bucket)?.get_mut(place)? = Slot::default();
        Some(found)
    }

    pub(super) fn all(&self, mut each: impl FnMut(Key, &T)) {
        for (tags, slots) in self.tags.iter().zip(&self.slots) {
            for (tag, slot) in tags.iter().zip(slots) {
                if tag & TAKEN != 0 {
                    each(slot.key, &slot.item);
                }
            }
        }
    }
}

const LOW: u128 = u128::from_le_bytes([1; BUCKET]);
const HIGH: u128 = LOW << 7;

/// The high bits of the bytes that are this tag; above one of them, others may be set that are not.
#[inline(always)]
fn with_tag(tags: &[u8; BUCKET], tag: u8) -> u128 {
    let other = u128::from_le_bytes(*tags) ^ (LOW * u128::from(tag));
    other.wrapping_sub(LOW) & !other & HIGH
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is put in and taken out, in hashes that all but collide: it agrees with a plain map.
        #[test]
        fn agrees_with_a_map(steps in prop::collection::vec((any::<bool>(), 0_u128..40, 0_u32..4), 0..400)) {
            let mut table = Table::new();
            let mut map: HashMap<u128, Vec<u32>> = HashMap::new();
            for (insert, n, item) in steps {
                // Few buckets, few tags.
                let hash = (n % 3 * 0x5000_0000) | (n % 2) << 32 | n << 64;
                let key = Key::new(hash);
                let held = map.entry(hash).or_default();
                if insert {
                    table.insert(key, item);
                    held.push(item);
                } else {
                    let taken = table.remove(key, |other| (*other == item).then_some(()));
                    let place = held.iter().position(|other| *other == item);
                    prop_assert_eq!(taken.is_some(), place.is_some());
                    place.map(|place| held.swap_remove(place));
                }
            }
            for (hash, items) in &map {
                let mut found = Vec::new();
                table.each(Key::new(*hash), |item| -> Option<()> { found.push(*item); None });
                found.sort_unstable();
                let mut items = items.clone();
                items.sort_unstable();
                prop_assert_eq!(found, items);
            }
            let mut all = 0;
            table.all(|_, _| all += 1);
            prop_assert_eq!(all, map.values().map(Vec::len).sum::<usize>());
        }
    }
}

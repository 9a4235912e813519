//! What was worked out before, so that a value that is met again costs a look, not a MAC.
//!
//! Keys are 128-bit hashes under a random key of this process: no raw value is kept. Everything is
//! bounded: a slot holds the last of the keys that fall on it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;
use zeroize::Zeroize;

use crate::tracked::Value;

/// Slots of a [`Memo`].
const SLOTS: usize = 1 << 14;
/// Slots of a [`Seen`].
const MARKS: usize = 1 << 16;

/// Makes keys.
pub(crate) struct Hashes {
    keyed: SipHasher13,
    /// Of rows.
    seeds: (u64, SharedSeed),
}

impl Hashes {
    pub(crate) fn new() -> Self {
        let random = || {
            // The standard library's own seed is the next best.
            let seed = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
            getrandom::u64().unwrap_or_else(|_| seed())
        };
        Hashes {
            keyed: SipHasher13::new_with_keys(random(), random()),
            seeds: (random(), SharedSeed::from_u64(random())),
        }
    }

    /// Begins the key of a row.
    pub(crate) fn row(&self) -> RowKey<'_> {
        RowKey(FoldHasher::with_seed(self.seeds.0, &self.seeds.1))
    }

    /// Begins a key. `what` tells keys of one use from those of another.
    pub(crate) fn begin(&self, what: u8) -> Key {
        let mut key = Key {
            hasher: self.keyed,
            buffer: [0; ROOM],
            length: 0,
        };
        key.raw(&[what]);
        key
    }
}

const ROOM: usize = 240;

/// A key in the making. What it was made of is gone when it is dropped.
pub(crate) struct Key {
    hasher: SipHasher13,
    buffer: [u8; ROOM],
    length: usize,
}

impl Key {
    fn raw(&mut self, bytes: &[u8]) {
        if let Some(room) = self.buffer.get_mut(self.length..self.length + bytes.len()) {
            room.copy_from_slice(bytes);
            self.length += bytes.len();
            return;
        }
        self.hasher.write(self.buffer.get(..self.length).unwrap_or_default());
        self.length = 0;
        match self.buffer.get_mut(..bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.length = bytes.len();
            }
            None => self.hasher.write(bytes),
        }
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.raw(&number.to_le_bytes());
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.raw(text.as_bytes());
    }

    /// Bytes whose number the key says already.
    pub(crate) fn slice(&mut self, bytes: &[u8]) {
        self.raw(bytes);
    }

    pub(crate) fn value(&mut self, value: Value<'_>) {
        match value {
            Value::Text(text) => {
                self.raw(&[0]);
                self.text(text);
            }
            Value::Integer(number) => {
                self.raw(&[1]);
                self.raw(&number.to_le_bytes());
            }
            Value::Float(number) => {
                self.raw(&[2]);
                self.number(number.to_bits());
            }
            Value::Bool(truth) => self.raw(&[3, u8::from(truth)]),
        }
    }

    pub(crate) fn end(mut self) -> u128 {
        let written = self.buffer.get(..self.length).unwrap_or_default();
        self.hasher.write(written);
        self.hasher.finish128().as_u128()
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.buffer.get_mut(..self.length).unwrap_or_default().zeroize();
    }
}

/// The key of a row in the making: a hash under secrets of its own, of a sort that costs a row that is read
/// again an eighth of what SipHash does. A key that is taken for another, one in 2^64, hides a row from detection, and
/// shows nothing.
pub(crate) struct RowKey<'h>(FoldHasher<'h>);

impl RowKey<'_> {
    #[inline]
    pub(crate) fn number(&mut self, number: u64) {
        self.0.write_u64(number);
    }

    /// A value under a name, which an address in this program stands for: in one number with what the value is.
    #[inline]
    pub(crate) fn named(&mut self, address: usize, value: Value<'_>) {
        // Addresses leave the upper sixteen bits free; where they do not, nothing but a rare number is shared.
        const SHORT: u64 = 0xff00;
        let (length, what) = match value {
            Value::Text(text) => (text.len() as u64, (text.len() as u64).min(SHORT)),
            Value::Integer(_) => (0, SHORT + 1),
            Value::Float(_) => (0, SHORT + 2),
            Value::Bool(truth) => (0, SHORT + 3 + u64::from(truth)),
        };
        self.number(address as u64 ^ what << 48);
        if length >= SHORT {
            self.number(length);
        }
        match value {
            Value::Text(text) => self.0.write(text.as_bytes()),
            Value::Integer(number) => self.0.write_u128(number as u128),
            Value::Float(number) => self.number(number.to_bits()),
            Value::Bool(_) => {}
        }
    }

    pub(crate) fn end(self) -> u64 {
        self.0.finish()
    }
}

/// Results by key.
pub(crate) struct Memo<V>(Box<[Slot<V>]>);

type Slot<V> = Mutex<Option<(u128, V)>>;

impl<V: Clone> Memo<V> {
    pub(crate) fn new() -> Self {
        Memo((0..SLOTS).map(|_| Mutex::new(None)).collect())
    }

    fn slot(&self, key: u128) -> Option<&Slot<V>> {
        self.0.get(key as usize % SLOTS)
    }

    /// What was kept under this key. Waits for nobody: a slot in use counts as empty.
    pub(crate) fn get(&self, key: u128) -> Option<V> {
        let slot = self.slot(key)?.try_lock().ok()?;
        let (held, value) = slot.as_ref()?;
        (*held == key).then(|| value.clone())
    }

    pub(crate) fn keep(&self, key: u128, value: V) {
        let gone = self
            .slot(key)
            .and_then(|slot| slot.try_lock().ok()?.replace((key, value)));
        // Dropped here, when nobody waits for the slot.
        drop(gone);
    }

    /// Keeps nothing of what was kept.
    pub(crate) fn clear(&self) {
        for slot in &self.0 {
            let gone = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(gone);
        }
    }
}

/// Which keys were met, and nothing else; without locks.
pub(crate) struct Seen(Box<[AtomicU64]>);

impl Seen {
    pub(crate) fn new() -> Self {
        Seen((0..MARKS).map(|_| AtomicU64::new(0)).collect())
    }

    /// The slot by a part of the key; the mark is the key.
    fn slot(&self, key: u64) -> Option<(&AtomicU64, u64)> {
        let slot = self.0.get(key as usize % MARKS)?;
        Some((slot, key.max(1)))
    }

    pub(crate) fn has(&self, key: u64) -> bool {
        self.slot(key)
            .is_some_and(|(slot, mark)| slot.load(Ordering::Acquire) == mark)
    }

    pub(crate) fn note(&self, key: u64) {
        if let Some((slot, mark)) = self.slot(key) {
            slot.store(mark, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(hashes: &Hashes, values: &[Value<'_>]) -> u128 {
        let mut key = hashes.begin(7);
        values.iter().for_each(|value| key.value(*value));
        key.end()
    }

    #[test]
    fn keys_are_of_one_process() {
        let value = [Value::Text("alice@example.com")];
        assert_ne!(key(&Hashes::new(), &value), key(&Hashes::new(), &value));
    }

    #[test]
    fn values_of_other_types_are_others() {
        let hashes = Hashes::new();
        let values = [
            Value::Text("1"),
            Value::Integer(1),
            Value::Float(1.0),
            Value::Bool(true),
        ];
        let mut keys: Vec<u128> = values.map(|value| key(&hashes, &[value])).into();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 4);
    }

    fn row(hashes: &Hashes, values: &[Value<'_>]) -> u64 {
        static NAMES: [u8; 4] = [0; 4];
        let mut key = hashes.row();
        let names = NAMES.iter().cycle();
        for (name, value) in names.zip(values) {
            key.named(std::ptr::from_ref(name).addr(), *value);
        }
        key.end()
    }

    #[test]
    fn rows_that_differ_anywhere_have_other_keys() {
        let hashes = Hashes::new();
        let texts = [
            "",
            "a",
            "b",
            "ab",
            "ada@example.com",
            "ada@example.con",
            "0123456789abcdef0",
            "0123456789abcdef1",
        ];
        let mut values: Vec<Value<'_>> = texts.map(Value::Text).into();
        values.extend((-60..60).map(Value::Integer));
        values.extend((-60..60).map(|n| Value::Float(f64::from(n))));
        values.extend([true, false].map(Value::Bool));
        let pairs = values
            .iter()
            .flat_map(|a| values.iter().map(|b| row(&hashes, &[*a, *b])));
        let mut keys: Vec<u64> = pairs
            .chain(values.iter().map(|value| row(&hashes, &[*value])))
            .collect();
        let met = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), met);
        assert_ne!(row(&hashes, &values), row(&Hashes::new(), &values));
        let long = [0xfeff, 0xff00, 0xff01, 0xff02, 0x1_ff00].map(|length| "a".repeat(length));
        let mut keys: Vec<u64> = long.iter().map(|text| row(&hashes, &[Value::Text(text)])).collect();
        keys.extend([true, false].map(|truth| row(&hashes, &[Value::Bool(truth)])));
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 7);
    }

    proptest! {
        /// However long the pieces are, and wherever the buffer ends.
        #[test]
        fn keys_agree_where_all_pieces_do(a in prop::collection::vec(".{0,300}", 0..6), b in prop::collection::vec(".{0,300}", 0..6)) {
            let hashes = Hashes::new();
            let of = |texts: &[String]| {
                let values: Vec<_> = texts.iter().map(|text| Value::Text(text)).collect();
                key(&hashes, &values)
            };
            prop_assert_eq!(of(&a), of(&a.clone()));
            prop_assert_eq!(of(&a) == of(&b), a == b);
            // One text cut in two is not the same.
            let joined = [a.concat()];
            prop_assert_eq!(of(&a) == of(&joined), a == joined);
        }
    }

    #[test]
    fn a_memo_keeps_what_it_was_given_last() {
        let memo = Memo::new();
        let hashes = Hashes::new();
        let keys: Vec<u128> = (0..100_000).map(|n| key(&hashes, &[Value::Integer(n)])).collect();
        for (n, key) in keys.iter().enumerate() {
            memo.keep(*key, n);
            assert_eq!(memo.get(*key), Some(n));
        }
        let found = keys.iter().enumerate().filter(|(n, key)| match memo.get(**key) {
            Some(found) => found == *n,
            None => false,
        });
        let kept = keys.iter().filter(|key| memo.get(**key).is_some()).count();
        assert_eq!(found.count(), kept);
        assert!(kept > SLOTS / 2 && kept <= SLOTS);
    }

    #[test]
    fn marks_are_of_whole_keys() {
        let seen = Seen::new();
        let key = 1_u64 << 40 | 5;
        assert!(!seen.has(key));
        seen.note(key);
        assert!(seen.has(key) && !seen.has(2 << 40 | 5) && !seen.has(1 << 40 | 6));
    }
}

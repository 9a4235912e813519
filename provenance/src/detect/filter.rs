//! A quick no: whether anything registered could begin, or be, what is looked up.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters, of four bits each; a power of two. One megabyte: with 200,000 values, one look-up in ten
/// passes in vain.
const SLOTS: usize = 1 << 21;
const PER_WORD: usize = 16;
/// A counter that has been here stays, as nobody knows how often it was counted.
const FULL: u64 = 15;

/// A counting Bloom filter with one counter for each keyed hash. What is in it is never denied.
pub(super) struct Filter(Box<[AtomicU64]>);

impl Filter {
    pub(super) fn new() -> Self {
        Filter((0..SLOTS / PER_WORD).map(|_| AtomicU64::new(0)).collect())
    }

    /// `false`: it was not added, or was removed.
    pub(super) fn may_have(&self, hash: u64) -> bool {
        let (word, shift) = self.slot(hash);
        word.load(Ordering::Acquire) >> shift & FULL != 0
    }

    pub(super) fn add(&self, hash: u64) {
        self.change(hash, |count| count + 1);
    }

    /// Only what was added may be removed.
    pub(super) fn remove(&self, hash: u64) {
        self.change(hash, |count| count.saturating_sub(1));
    }

    fn change(&self, hash: u64, to: impl Fn(u64) -> u64) {
        let (word, shift) = self.slot(hash);
        // Fails only where there is nothing to change.
        let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |counts| {
            let count = counts >> shift & FULL;
            (count != FULL).then(|| counts & !(FULL << shift) | to(count) << shift)
        });
    }

    fn slot(&self, hash: u64) -> (&AtomicU64, usize) {
        let slot = hash as usize % SLOTS;
        (&self.0[slot / PER_WORD], slot % PER_WORD * 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_never_denies() {
        let filter = Filter::new();
        assert!(!filter.may_have(5));
        for _ in 0..3 {
            filter.add(5);
        }
        filter.add(6);
        filter.remove(5);
        filter.remove(5);
        assert!(filter.may_have(5) && filter.may_have(6) && !filter.may_have(4));
        filter.remove(5);
        assert!(!filter.may_have(5) && filter.may_have(6));
        // Beyond what a counter counts, it stays.
        (0..20).for_each(|_| filter.add(7));
        (0..20).for_each(|_| filter.remove(7));
        assert!(filter.may_have(7));
    }
}

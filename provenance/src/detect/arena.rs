//! Memory for what scans read while more of it comes: what is in it never moves, and takes memory when it is written
//! first.

use std::alloc::{Layout, handle_alloc_error};
use std::sync::OnceLock;

use zerocopy::FromZeros;

use super::classify::in_large_pages;

/// Items of the first sixteen chunks together; of the next sixteen there are as many as of all before, and so on: so what is
/// made, and not used yet, is a small part. Powers of two.
const FIRST: u32 = 256;
const PARTS: u32 = 16;
const CHUNKS: usize = 19 * PARTS as usize;
/// Bits of a place that say where in a chunk it is.
const WITHIN: u32 = 21;
/// Bits of a place.
pub(super) const PLACE: u32 = 30;
/// Chunks of so many bytes are in large pages.
const LARGE: usize = 4 << 20;

pub(super) struct Arena<T>([OnceLock<Box<[T]>>; CHUNKS]);

impl<T: FromZeros> Arena<T> {
    pub(super) const fn new() -> Self {
        Arena([const { OnceLock::new() }; CHUNKS])
    }

    #[inline]
    pub(super) fn get(&self, place: u32) -> Option<&T> {
        let chunk = self.0.get((place >> WITHIN) as usize)?.get()?;
        chunk.get((place & ((1 << WITHIN) - 1)) as usize)
    }

    /// The item at a place, which is zero if nobody wrote to it; `None` beyond some 60 million.
    #[inline]
    pub(super) fn make(&self, place: u32) -> Option<&T> {
        self.get(place).or_else(|| {
            let number = place >> WITHIN;
            let chunk = self.0.get(number as usize)?;
            chunk.get_or_init(|| Self::chunk(items(number) as usize));
            self.get(place)
        })
    }

    #[cold]
    fn chunk(items: usize) -> Box<[T]> {
        let mut items = zeros(items);
        if size_of_val(&*items) >= LARGE {
            in_large_pages(&mut items);
        }
        items
    }
}

/// How many items a chunk has.
#[inline]
fn items(number: u32) -> u32 {
    (FIRST / PARTS) << (number / PARTS).saturating_sub(1)
}

/// The place of the n-th item.
#[inline]
pub(super) fn place(n: u32) -> u32 {
    let bits = n.max(FIRST - 1).ilog2() + 1 - FIRST.ilog2();
    let part = FIRST.ilog2() + bits.saturating_sub(1) - PARTS.ilog2();
    let first = if bits == 0 { 0 } else { FIRST << (bits - 1) };
    let number = bits * PARTS + ((n - first) >> part);
    number << WITHIN | (n - first) & ((1 << part) - 1)
}

/// So many zeros.
pub(super) fn zeros<T: FromZeros>(count: usize) -> Box<[T]> {
    let layout = || Layout::array::<T>(count).unwrap_or(Layout::new::<T>());
    <[T]>::new_box_zeroed_with_elems(count).unwrap_or_else(|_| handle_alloc_error(layout()))
}

/// Which places of an arena are in use.
#[derive(Default)]
pub(super) struct Places {
    pub(super) made: u32,
    next: u32,
    free: Vec<u32>,
}

impl Places {
    pub(super) fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            let place = self.next;
            let (number, within) = (place >> WITHIN, place & ((1 << WITHIN) - 1));
            self.made += 1;
            self.next = match within + 1 < items(number) {
                true => place + 1,
                false => (number + 1) << WITHIN,
            };
            place
        })
    }

    pub(super) fn free(&mut self, place: u32) {
        self.free.push(place);
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.made as usize - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_the_digests_of_the_most_values() {
        // Of a phone there are six.
        let last = place(6 * crate::config::MOST_VALUES as u32);
        assert!(((last >> WITHIN) as usize) < CHUNKS && last < 1 << PLACE);
        assert!(items(CHUNKS as u32 - 1) <= 1 << WITHIN);
    }

    #[test]
    fn each_item_has_a_place_of_its_own() {
        let arena: Arena<[u8; 8]> = Arena::new();
        let mut places = Places::default();
        let mut before = None;
        for n in 0..100_000 {
            assert_eq!(places.take(), place(n));
            let at = arena.make(place(n)).map(|item| std::ptr::from_ref(item).addr());
            assert!(at.is_some() && at != before);
            assert!(place(n) < 1 << PLACE && (n == 0 || place(n) > place(n - 1)));
            before = at;
        }
        let made: usize = arena.0.iter().filter_map(OnceLock::get).map(|chunk| chunk.len()).sum();
        assert!(made < 105_000);
    }
}

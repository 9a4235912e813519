//! Keyed hashes and what they lead to, packed: who reads waits for nobody, who writes is one at a time.
//!
//! A slot is half a word of the hash and an item; eight of them are what the processor reads at once (a line). The
//! highest bits of a hash choose a unit of two to four pages of lines, the next ones the line in it, which goes on in
//! the following one if it is full. A unit that is full gets one page more, one of four pages becomes two of three: so
//! little is free, and what has to move for it is at most a few hundred slots.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{OnceLock, PoisonError, RwLock};

use zerocopy::FromZeros;

use super::arena::{Arena, place, zeros};
use super::classify::prefetch;

/// The part of a keyed hash that is kept, 96 bits: where it stands, and what is compared beyond that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    place: u64,
    pub(super) rest: u64,
}

/// Bits of a hash that say where it stands; a slot has the lower 32 of them, the others are the same in all of a unit.
const PLACE: u32 = 32 + LEAST_DEPTH;
/// Bits of it that are kept beside what it leads to.
pub(super) const REST: u32 = 96 - PLACE;

impl Key {
    pub(super) fn new(hash: u128) -> Self {
        Key {
            place: (hash >> (128 - PLACE)) as u64,
            rest: hash as u64 & ((1 << REST) - 1),
        }
    }

    fn slot(self, item: u32) -> u64 {
        self.place << 32 | u64::from(item)
    }
}

/// Bits by which units are told apart: at first, and at most.
const LEAST_DEPTH: u32 = 10;
const DEPTHS: usize = 18;
/// Slots of a line, lines of a page, pages of a unit.
const SLOTS: usize = 8;
const LINES: usize = 8;
const PAGES: usize = 4;
const PAGE: usize = LINES * SLOTS;

const FREE: u64 = 0;
/// Was taken; there may be more behind it.
const GONE: u64 = 1;

#[derive(FromZeros)]
#[repr(C, align(64))]
struct Line([AtomicU64; SLOTS]);

#[derive(FromZeros)]
#[repr(C)]
struct Unit {
    pages: [AtomicU32; PAGES],
    /// Pages that it has, and above that the bits that are the same in all hashes here.
    layout: AtomicU32,
    /// Slots that are not free.
    used: AtomicU32,
}

/// Pages and bits of a unit.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Layout {
    pages: u32,
    depth: u32,
}

impl Layout {
    #[inline]
    fn of(packed: u32) -> Self {
        Layout {
            pages: packed % 8,
            depth: packed / 8,
        }
    }

    /// How many lines there are, and in which of them a hash stands first. That grows with the hash.
    #[inline]
    fn home(self, place: u64) -> (usize, usize) {
        let lines = self.pages as usize * LINES;
        let within = (place << (u64::BITS - PLACE)).wrapping_shl(self.depth) >> 32;
        (lines, ((within * lines as u64) >> 32) as usize)
    }

    /// Slots that are used at most.
    #[inline]
    fn most(self) -> usize {
        self.pages as usize * (PAGE - PAGE / 8)
    }
}

impl Unit {
    #[inline]
    fn layout(&self) -> Layout {
        Layout::of(self.layout.load(Ordering::Relaxed))
    }

    fn lay_out(&self, layout: Layout, pages: &[u32]) {
        pages
            .iter()
            .zip(&self.pages)
            .for_each(|(page, to)| to.store(*page, Ordering::Relaxed));
        self.layout.store(layout.depth * 8 + layout.pages, Ordering::Relaxed);
    }

    #[inline]
    fn put(&self, line: &Line, slot: u64) -> bool {
        for room in &line.0 {
            let was = room.load(Ordering::Relaxed);
            if was == FREE || was == GONE {
                room.store(slot, Ordering::Release);
                let used = self.used.load(Ordering::Relaxed) + u32::from(was == FREE);
                self.used.store(used, Ordering::Relaxed);
                return true;
            }
        }
        false
    }

    #[inline]
    fn full(&self) -> bool {
        self.used.load(Ordering::Relaxed) as usize >= self.layout().most()
    }
}

/// Where a key stands, as long as the unit is laid out so.
#[derive(Clone, Copy)]
pub(super) struct Spot<'t> {
    pub(super) key: Key,
    home: Option<(&'t Unit, &'t Line)>,
    layout: u32,
}

impl<'t> Spot<'t> {
    pub(super) const NOWHERE: Self = Spot {
        key: Key { place: 0, rest: 0 },
        home: None,
        layout: 0,
    };

    #[inline]
    fn home(&self) -> Option<(&'t Unit, &'t Line)> {
        let (unit, line) = self.home?;
        (unit.layout.load(Ordering::Relaxed) == self.layout).then_some((unit, line))
    }
}

/// Several items may stand under one key. No item is 0 or 1.
pub(super) struct Table {
    /// For each depth the units, from 1 on, by the highest bits of a hash; 0 is none yet.
    directories: [OnceLock<Box<[AtomicU32]>>; DEPTHS],
    depth: AtomicU32,
    units: Arena<Unit>,
    pages: Arena<[Line; LINES]>,
    /// Units and pages that were made.
    units_made: AtomicU32,
    pages_made: AtomicU32,
    /// Odd while something moves; what was read meanwhile counts for nothing.
    version: AtomicU64,
    /// What finds no room, as too many have the same hash: only values that are made for it.
    crowd: RwLock<HashMap<Key, Vec<u32>>>,
    crowded: AtomicUsize,
}

/// How often a reader tries before it waits for who writes.
const TRIES: usize = 64;

impl Table {
    pub(super) fn new() -> Self {
        let directories = [const { OnceLock::new() }; DEPTHS];
        let _ = directories[0].set(zeros(1 << LEAST_DEPTH));
        Table {
            directories,
            depth: AtomicU32::new(LEAST_DEPTH),
            units: Arena::new(),
            pages: Arena::new(),
            units_made: AtomicU32::new(0),
            pages_made: AtomicU32::new(0),
            version: AtomicU64::new(0),
            crowd: RwLock::default(),
            crowded: AtomicUsize::new(0),
        }
    }

    /// What is seen while nothing moves; `None` if something always did.
    pub(super) fn read<R>(&self, mut look: impl FnMut() -> R) -> Option<R> {
        (0..TRIES).find_map(|_| {
            let before = self.version.load(Ordering::Acquire);
            let seen = before.is_multiple_of(2).then(&mut look);
            fence(Ordering::Acquire);
            if seen.is_none() || self.version.load(Ordering::Relaxed) != before {
                std::hint::spin_loop();
                return None;
            }
            seen
        })
    }

    /// Changes what readers may be looking at. Only one may be at it.
    pub(super) fn change<R>(&self, change: impl FnOnce() -> R) -> R {
        let before = self.version.load(Ordering::Relaxed);
        self.version.store(before.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        let changed = change();
        self.version.store(before.wrapping_add(2), Ordering::Release);
        changed
    }

    #[inline]
    fn unit(&self, place: u64) -> Option<&Unit> {
        let depth = self.depth.load(Ordering::Acquire);
        let directory = self.directories.get((depth - LEAST_DEPTH) as usize)?.get()?;
        let unit = directory.get((place >> (PLACE - depth)) as usize)?;
        self.units.get(unit.load(Ordering::Acquire).checked_sub(1)?)
    }

    #[inline]
    fn line(&self, unit: &Unit, line: usize) -> Option<&Line> {
        let page = unit.pages.get(line / LINES)?.load(Ordering::Relaxed);
        self.pages.get(page)?.get(line % LINES)
    }

    /// The lines in which a hash can stand, the first one first.
    #[inline]
    fn lines<'t>(&'t self, unit: &'t Unit, place: u64) -> impl Iterator<Item = &'t Line> {
        let (lines, home) = unit.layout().home(place);
        (home..lines).chain(0..home).map_while(|line| self.line(unit, line))
    }

    /// Where a key stands, or will. Asks the processor for what will be looked at first, or written.
    #[inline]
    pub(super) fn spot(&self, key: Key) -> Spot<'_> {
        let mut layout = 0;
        let home = self.unit(key.place).and_then(|unit| {
            layout = unit.layout.load(Ordering::Relaxed);
            let line = self.line(unit, Layout::of(layout).home(key.place).1)?;
            prefetch(line);
            Some((unit, line))
        });
        Spot { key, home, layout }
    }

    /// Every item under a key, until one is found that is looked for.
    pub(super) fn each<F>(&self, key: Key, mut looked_for: impl FnMut(u32) -> Option<F>) -> Option<F> {
        let found = self.places(key, &mut looked_for).map(|(found, ..)| found);
        if found.is_some() || self.crowded.load(Ordering::Acquire) == 0 {
            return found;
        }
        let crowd = self.crowd.read().unwrap_or_else(PoisonError::into_inner);
        crowd.get(&key)?.iter().find_map(|item| looked_for(*item))
    }

    #[inline]
    fn places<F>(
        &self,
        key: Key,
        mut looked_for: impl FnMut(u32) -> Option<F>,
    ) -> Option<(F, &Unit, &Line, &AtomicU64)> {
        let unit = self.unit(key.place)?;
        for line in self.lines(unit, key.place) {
            for place in &line.0 {
                let slot = place.load(Ordering::Acquire);
                if slot == FREE {
                    return None;
                }
                if (slot >> 32) as u32 == key.place as u32
                    && slot != GONE
                    && let Some(found) = looked_for(slot as u32)
                {
                    return Some((found, unit, line, place));
                }
            }
        }
        None
    }

    /// Whether nothing at all is under a key, as far as its first line says.
    #[inline]
    pub(super) fn is_new(spot: &Spot<'_>) -> bool {
        let Some((_, line)) = spot.home() else { return false };
        for slot in &line.0 {
            let slot = slot.load(Ordering::Relaxed);
            if slot == FREE {
                return true;
            }
            if (slot >> 32) as u32 == spot.key.place as u32 {
                return false;
            }
        }
        false
    }

    #[inline]
    pub(super) fn insert(&self, spot: &Spot<'_>, item: u32) {
        let put = match spot.home() {
            Some((unit, line)) if !unit.full() => unit.put(line, spot.key.slot(item)),
            _ => false,
        };
        if !put {
            self.insert_anywhere(spot.key, item);
        }
    }

    fn insert_anywhere(&self, key: Key, item: u32) {
        if let Some(unit) = self.room(key.place) {
            let (lines, home) = unit.layout().home(key.place);
            for line in (home..lines).chain(0..home) {
                if self.line(unit, line).is_some_and(|line| unit.put(line, key.slot(item))) {
                    return;
                }
            }
        }
        let mut crowd = self.crowd.write().unwrap_or_else(PoisonError::into_inner);
        crowd.entry(key).or_default().push(item);
        self.crowded.fetch_add(1, Ordering::Release);
    }

    /// The unit of a hash, with room for one more.
    fn room(&self, place: u64) -> Option<&Unit> {
        match self.unit(place) {
            Some(unit) if !unit.full() => Some(unit),
            Some(unit) if self.change(|| self.grow(unit, place)).is_some() => self.unit(place),
            Some(_) => None,
            None => {
                let layout = Layout {
                    pages: 1,
                    depth: LEAST_DEPTH,
                };
                let unit = self.make_unit(layout, &[self.make_page()?])?;
                self.lead(place, LEAST_DEPTH, unit);
                self.unit(place)
            }
        }
    }

    /// Makes room in the unit in which a hash stands; `None` if there cannot be more.
    #[cold]
    fn grow(&self, unit: &Unit, place: u64) -> Option<()> {
        let layout = unit.layout();
        let mut slots = [FREE; PAGE * PAGES];
        let mut taken = 0;
        let pages = unit.pages.each_ref().map(|page| page.load(Ordering::Relaxed));
        for page in pages.iter().take(layout.pages as usize) {
            for slot in self.pages.get(*page)?.iter().flat_map(|line| &line.0) {
                let slot = slot.load(Ordering::Relaxed);
                if slot > GONE {
                    *slots.get_mut(taken)? = slot;
                    taken += 1;
                }
            }
        }
        let slots = slots.get(..taken)?;
        match pages {
            // What is gone took the room.
            _ if taken * 4 <= layout.most() * 3 => {}
            [first, second, third, fourth] if layout.pages as usize == PAGES => {
                let bit = 1 << (PLACE - 1 - layout.depth);
                // It is among those that a slot has.
                let is_upper = |slot: u64| slot >> 32 & bit != 0;
                let upper = slots.iter().filter(|slot| is_upper(**slot)).count();
                let layout = Layout {
                    pages: 3,
                    depth: layout.depth + 1,
                };
                if upper.max(taken - upper) > layout.most() {
                    return None;
                }
                self.deepen(layout.depth)?;
                let (fifth, sixth) = (self.make_page()?, self.make_page()?);
                let other = self.make_unit(layout, &[third, fourth, sixth])?;
                unit.lay_out(layout, &[first, second, fifth]);
                let of_other = place | bit;
                self.lead(of_other, layout.depth, other);
                self.refill(
                    self.unit(of_other)?,
                    of_other,
                    slots.iter().copied().filter(|slot| is_upper(*slot)),
                );
                self.refill(unit, place, slots.iter().copied().filter(|slot| !is_upper(*slot)));
                return Some(());
            }
            mut pages => {
                *pages.get_mut(layout.pages as usize)? = self.make_page()?;
                let pages_more = layout.pages + 1;
                unit.lay_out(
                    Layout {
                        pages: pages_more,
                        ..layout
                    },
                    &pages,
                );
            }
        }
        self.refill(unit, place, slots.iter().copied());
        Some(())
    }

    /// Leaves these slots in a unit, and no others.
    fn refill(&self, unit: &Unit, place: u64, slots: impl Iterator<Item = u64>) {
        let layout = unit.layout();
        let mut lines = [[FREE; SLOTS]; LINES * PAGES];
        let mut filled = [0_u8; LINES * PAGES];
        let mut used = 0;
        for slot in slots {
            let (count, mut line) = layout.home(place >> 32 << 32 | slot >> 32);
            used += 1;
            // There is room.
            while let Some(filled) = filled.get_mut(line)
                && let Some(slots_) = lines.get_mut(line)
            {
                if let Some(room) = slots_.get_mut(usize::from(*filled)) {
                    *room = slot;
                    *filled += 1;
                    break;
                }
                line = if line + 1 == count { 0 } else { line + 1 };
            }
        }
        for (page, lines) in unit
            .pages
            .iter()
            .zip(lines.as_chunks::<LINES>().0)
            .take(layout.pages as usize)
        {
            let Some(page) = self.pages.get(page.load(Ordering::Relaxed)) else {
                return;
            };
            for (line, slots) in page.iter().zip(lines) {
                let line = line.0.iter().zip(slots);
                line.for_each(|(to, slot)| to.store(*slot, Ordering::Relaxed));
            }
        }
        unit.used.store(used, Ordering::Relaxed);
    }

    fn make_page(&self) -> Option<u32> {
        let made = self.pages_made.load(Ordering::Relaxed);
        self.pages.make(place(made))?;
        self.pages_made.store(made + 1, Ordering::Relaxed);
        Some(place(made))
    }

    fn make_unit(&self, layout: Layout, pages: &[u32]) -> Option<u32> {
        let made = self.units_made.load(Ordering::Relaxed);
        let unit = self.units.make(place(made))?;
        self.units_made.store(made + 1, Ordering::Relaxed);
        unit.lay_out(layout, pages);
        Some(place(made) + 1)
    }

    /// Lets all hashes that share so many bits with this one lead to a unit.
    fn lead(&self, place: u64, bits: u32, unit: u32) {
        let depth = self.depth.load(Ordering::Relaxed);
        let directory = self
            .directories
            .get((depth - LEAST_DEPTH) as usize)
            .and_then(OnceLock::get);
        let first = (place >> (PLACE - bits) << (depth - bits)) as usize;
        let those = directory.and_then(|directory| directory.get(first..first + (1 << (depth - bits))));
        those
            .into_iter()
            .flatten()
            .for_each(|entry| entry.store(unit, Ordering::Release));
    }

    /// Tells units apart by so many bits.
    fn deepen(&self, bits: u32) -> Option<()> {
        let depth = self.depth.load(Ordering::Relaxed);
        if bits <= depth {
            return Some(());
        }
        let before = self.directories.get((depth - LEAST_DEPTH) as usize)?.get()?;
        let twice = before.iter().flat_map(|unit| {
            let unit = unit.load(Ordering::Relaxed);
            [AtomicU32::new(unit), AtomicU32::new(unit)]
        });
        self.directories
            .get((depth + 1 - LEAST_DEPTH) as usize)?
            .set(twice.collect())
            .ok()?;
        self.depth.store(depth + 1, Ordering::Release);
        Some(())
    }

    /// Takes the first item away that is looked for; within a [`change`](Self::change).
    pub(super) fn remove<F>(&self, key: Key, mut looked_for: impl FnMut(u32) -> Option<F>) -> Option<F> {
        if let Some((found, unit, line, place)) = self.places(key, &mut looked_for) {
            let mut used = line
                .0
                .iter()
                .rev()
                .skip_while(|slot| slot.load(Ordering::Relaxed) == FREE);
            let full = line.0.last().is_some_and(|last| last.load(Ordering::Relaxed) != FREE);
            match used.next() {
                // Where one is free nobody looks further. All that is free comes last.
                Some(last) if !full => {
                    place.store(last.load(Ordering::Relaxed), Ordering::Relaxed);
                    last.store(FREE, Ordering::Release);
                    let used = unit.used.load(Ordering::Relaxed);
                    unit.used.store(used.saturating_sub(1), Ordering::Relaxed);
                }
                _ => place.store(GONE, Ordering::Release),
            }
            return Some(found);
        }
        let mut crowd = self.crowd.write().unwrap_or_else(PoisonError::into_inner);
        let here = crowd.get_mut(&key)?;
        let mut each = here.iter().enumerate();
        let (at, found) = each.find_map(|(at, item)| Some((at, looked_for(*item)?)))?;
        here.swap_remove(at);
        if here.is_empty() {
            crowd.remove(&key);
        }
        self.crowded.fetch_sub(1, Ordering::Release);
        Some(found)
    }

    /// Slots that are taken.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        let pages = (0..self.pages_made.load(Ordering::Relaxed)).filter_map(|page| self.pages.get(place(page)));
        let slots = pages.flatten().flat_map(|line| &line.0);
        slots.filter(|slot| slot.load(Ordering::Relaxed) > GONE).count() + self.crowded.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items(table: &Table, key: Key) -> Vec<u32> {
        let mut found = Vec::new();
        table.each(key, |item| -> Option<()> {
            found.push(item);
            None
        });
        found.sort_unstable();
        found
    }

    fn insert(table: &Table, key: Key, item: u32) {
        table.insert(&table.spot(key), item);
    }

    fn remove(table: &Table, key: Key, item: u32) -> bool {
        table
            .change(|| table.remove(key, |other| (other == item).then_some(())))
            .is_some()
    }

    proptest! {
        /// Whatever is put in and taken out, in hashes that all but collide: it agrees with a plain map.
        #[test]
        fn agrees_with_a_map(
            spread in 0_u32..40,
            steps in prop::collection::vec((0..4_u8, 0_u128..1 << 16, 2_u32..5), 0..4000),
        ) {
            let table = Table::new();
            let mut map: HashMap<u128, Vec<u32>> = HashMap::new();
            for (way, n, item) in steps {
                // From one unit to many.
                let hash = n << (128 - PLACE) << (spread % 27);
                let key = Key::new(hash);
                let held = map.entry(hash).or_default();
                if way > 0 {
                    insert(&table, key, item);
                    held.push(item);
                } else {
                    let place = held.iter().position(|other| *other == item);
                    prop_assert_eq!(remove(&table, key, item), place.is_some());
                    place.map(|place| held.swap_remove(place));
                }
            }
            for (hash, held) in &map {
                let mut held = held.clone();
                held.sort_unstable();
                prop_assert_eq!(items(&table, Key::new(*hash)), held);
            }
            prop_assert_eq!(table.taken(), map.values().map(Vec::len).sum::<usize>());
        }
    }

    #[test]
    fn what_is_made_to_collide_takes_no_more_memory_than_it_needs() {
        let table = Table::new();
        let key = Key::new(5 << 100);
        (2..2000).for_each(|item| insert(&table, key, item));
        let beside = Key::new(5 << 100 | 1 << (128 - PLACE));
        insert(&table, beside, 7);
        assert_eq!(items(&table, key), Vec::from_iter(2..2000));
        assert_eq!(items(&table, beside), [7]);
        assert_eq!(table.pages_made.load(Ordering::Relaxed), PAGES as u32);
        assert!((2..2000).all(|item| remove(&table, key, item)));
        assert!(remove(&table, beside, 7) && !remove(&table, beside, 7));
        assert_eq!(table.taken(), 0);
    }

    #[test]
    fn who_reads_while_much_moves_misses_nothing() {
        let table = Table::new();
        let key = |n: u32| Key::new(u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        (0..1000).for_each(|n| insert(&table, key(n), n + 2));
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut seen = 0;
                while !done.load(Ordering::Relaxed) {
                    for n in 0..1000 {
                        let look = || table.each(key(n), |item| (item == n + 2).then_some(()));
                        if let Some(found) = table.read(look) {
                            assert_eq!(found, Some(()));
                            seen += 1;
                        }
                    }
                }
                seen
            });
            for _ in 0..3 {
                (1000..100_000).for_each(|n| insert(&table, key(n), n + 2));
                assert!((1000..100_000).all(|n| remove(&table, key(n), n + 2)));
            }
            done.store(true, Ordering::Relaxed);
            assert!(reader.join().is_ok_and(|seen| seen > 0));
        });
        assert_eq!(table.taken(), 1000);
    }
}

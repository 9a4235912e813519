//! What stands for an event on its way to the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::Digest;

/// Stands for an event on its way: the writer fills in its sequence number when it is in the database,
/// and until then its number in the spill file, if it is there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ticket(Arc<AtomicU64>);

/// How many files the process has written to before: a file that is lost is gone on without.
pub(crate) type Generation = u8;

impl Ticket {
    /// Tells numbers in the spill file from sequence numbers.
    const SPILLED: u64 = 1 << 63;
    /// Where the generation stands, in seven bits.
    const GENERATION: u32 = 56;
    /// The last one that has a place.
    pub(crate) const LAST: Generation = 127;

    /// Of an event in the database, as [`Ticket::place`] had it.
    pub(crate) fn of(place: u64) -> Self {
        Ticket(Arc::new(AtomicU64::new(place & !Self::SPILLED)))
    }

    /// Where the event is, once it is in the database: see [`parts`].
    pub(crate) fn place(&self) -> Option<u64> {
        match self.0.load(Ordering::Acquire) {
            0 => None,
            number if number & Self::SPILLED != 0 => None,
            place => Some(place),
        }
    }

    /// The sequence number, once assigned (they begin with 1).
    pub(crate) fn seq(&self) -> Option<u64> {
        Some(parts(self.place()?).1)
    }

    /// The number in the spill file, while there is no sequence number.
    pub(crate) fn spilled_at(&self) -> Option<u64> {
        let number = self.0.load(Ordering::Acquire);
        (number & Self::SPILLED != 0).then_some(number & !Self::SPILLED)
    }

    /// Called by the writer, once the event is in the database.
    pub(crate) fn assign(&self, seq: u64) {
        self.0.store(seq, Ordering::Release);
    }

    /// Called by the recorder, where the database is not the process's first.
    pub(crate) fn stamp(&self, generation: Generation) {
        if let Some(seq) = self.seq() {
            self.0
                .store(seq | u64::from(generation) << Self::GENERATION, Ordering::Release);
        }
    }

    /// Called by the writer, when the event goes to the spill file under this number.
    pub(crate) fn spill(&self, at: u64) {
        if self.place().is_none() {
            self.0.store(at | Self::SPILLED, Ordering::Release);
        }
    }

    /// Whether anybody else may ask for the number.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Tells this ticket's event from others while no sequence number is assigned.
    pub(crate) fn identity(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }
}

/// The generation and the sequence number of a [`Ticket::place`].
pub(crate) fn parts(place: u64) -> (Generation, u64) {
    let generation = (place >> Ticket::GENERATION) as Generation & Ticket::LAST;
    (generation, place & ((1 << Ticket::GENERATION) - 1))
}

/// What an instance that began as `first` is called in its next files.
pub(crate) fn instance(first: [u8; 8], generation: Generation) -> [u8; 8] {
    if generation == 0 {
        return first;
    }
    let hash = sha2::Sha256::digest([&b"continued"[..], &first, &[generation]].concat());
    let mut id = [0; 8];
    id.copy_from_slice(&hash[..8]);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_generation_and_a_number() {
        let ticket = Ticket::default();
        ticket.spill(9);
        assert_eq!((ticket.place(), ticket.spilled_at()), (None, Some(9)));
        ticket.assign(7);
        ticket.stamp(Ticket::LAST);
        ticket.spill(10);
        assert_eq!((ticket.seq(), ticket.spilled_at()), (Some(7), None));
        let place = ticket.place().map(parts);
        assert_eq!(place, Some((Ticket::LAST, 7)));
        let again = Ticket::of(ticket.place().unwrap_or_default());
        assert_eq!(again.place().map(parts), place);
    }
}

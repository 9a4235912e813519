//! What was put off, of every kind, in the order in which it came: raw values on one tape, and beside it what is to
//! be done with them. So a call that puts something off allocates nothing that another thread frees.

use std::any::Any;
use std::sync::Mutex;

use super::tape::{Place, Tape};
use crate::site::InputSite;
#[cfg(feature = "diesel")]
use crate::site::{Column, ModelSite};
use crate::tracker::{Moment, Tracker};
#[cfg(feature = "diesel")]
use crate::vocabulary::{Action, Timestamp};

/// What a block that was worked off has left over: memory that the next one need not ask for.
static SPARE: Mutex<Option<Spare>> = Mutex::new(None);
/// Most calls, and most bytes on the tape, of a block whose memory is kept.
const MOST_CALLS: usize = 4096;
const MOST_BYTES: usize = 1 << 18;

struct Spare {
    tape: Tape,
    entries: Vec<Entry>,
    #[cfg(feature = "diesel")]
    binds: Vec<Bind>,
}

/// Calls that follow each other.
pub(super) struct Block {
    pub(super) tracker: Tracker,
    pub(super) tape: Tape,
    pub(super) entries: Vec<Entry>,
    /// Of the writes.
    #[cfg(feature = "diesel")]
    pub(super) binds: Vec<Bind>,
}

/// One of them, and where its part of the tape ends.
pub(super) struct Entry {
    pub(super) what: What,
    pub(super) end: Place,
}

/// What happened.
pub(super) enum What {
    /// An input was taken.
    Input {
        site: &'static InputSite,
        moment: Moment,
        /// What the layer had read.
        pending: Option<Box<dyn Any + Send>>,
    },
    /// A row was read.
    #[cfg(feature = "diesel")]
    Row {
        site: &'static ModelSite,
        at: Timestamp,
        key: u64,
    },
    /// A write was committed.
    #[cfg(feature = "diesel")]
    Write {
        site: &'static ModelSite,
        moment: Moment,
        action: Action,
        doubt: Option<&'static str>,
        /// How many of the block's are its own.
        binds: usize,
    },
}

/// A value as it was bound.
#[cfg(feature = "diesel")]
#[derive(Clone, Copy)]
pub(super) struct Bind {
    pub(super) column: &'static Column,
    /// Where it stands on the tape.
    pub(super) from: Place,
    pub(super) to: Place,
    /// Where it stands whose it is.
    pub(super) owners: Option<(Place, Place)>,
}

impl Block {
    fn new(tracker: Tracker) -> Self {
        // Nobody waits for it.
        let spare = SPARE.try_lock().ok().and_then(|mut spare| spare.take());
        let Spare {
            tape,
            entries,
            #[cfg(feature = "diesel")]
            binds,
        } = spare.unwrap_or_else(|| Spare {
            tape: Tape::default(),
            entries: Vec::new(),
            #[cfg(feature = "diesel")]
            binds: Vec::new(),
        });
        Block {
            tracker,
            tape,
            entries,
            #[cfg(feature = "diesel")]
            binds,
        }
    }

    /// Leaves its memory to the next block. All of its calls are done.
    pub(super) fn end(mut self) {
        self.entries.clear();
        self.tape.clear();
        if self.entries.capacity() > MOST_CALLS || self.tape.capacity() > MOST_BYTES {
            return;
        }
        #[cfg(feature = "diesel")]
        self.binds.clear();
        if let Ok(mut spare) = SPARE.try_lock() {
            *spare = Some(Spare {
                tape: self.tape,
                entries: self.entries,
                #[cfg(feature = "diesel")]
                binds: self.binds,
            });
        }
    }

    /// Adds what `add` takes down, of about so many bytes, to what waits.
    pub(super) fn add(tracker: &Tracker, bytes: usize, add: impl FnOnce(&mut Block) -> What) {
        let begin = || Block::new(tracker.clone());
        tracker.defer_in(bytes + size_of::<Entry>(), begin, |block: &mut Block| {
            let what = add(block);
            let end = block.tape.place();
            block.entries.push(Entry { what, end });
        });
    }
}

//! What a writer is given, and what it gives back.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::batch::KnownValues;
use super::chain::Hash;
use crate::detect::Entry;
use crate::ticket::Ticket;
use crate::vocabulary::{Event, Fingerprint, Kind, Late, Outcome, Owner, Tag, Timestamp};

/// Who writes: on every event of this process.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    /// Random; 16 hex digits on the wire.
    pub(crate) id: [u8; 8],
    pub(crate) service: String,
    pub(crate) environment: Option<String>,
    /// Hash of the binary's inventory, lower-case hex.
    pub(crate) build: String,
}

/// A value as the registry holds it, for the store to keep across restarts. Secrets never come here.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) kind: Kind,
    pub(crate) entry: Entry,
    pub(crate) tag: Arc<Tag>,
}

/// One thing to append, in the order it was sent.
pub(crate) enum Record {
    /// An event; the writer fills the ticket with its sequence number.
    Event(Box<Event>, Ticket),
    /// The outcome of a DATA_SHARE recorded before: a record of its own.
    Outcome {
        of: Ticket,
        outcome: Outcome,
        created_at: Timestamp,
        late: Option<Box<Late>>,
    },
    /// A value to be detected after a restart.
    Value(Box<Value>),
    /// Two owners are one person.
    Link(Owner, Owner),
}

/// How far a recorder has come, by the id of its spill file: kept with the batch that it speaks of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpillMark {
    pub(crate) id: [u8; 16],
    pub(crate) offset: u64,
}

/// Rows of registered values that are no longer there: what erasures and retentions tell a writer.
#[derive(Default)]
pub(crate) struct Forgotten(Mutex<Vec<Forget>>);

enum Forget {
    These(Vec<(i64, i64)>),
    AllBut(HashSet<(i64, i64)>),
}

impl Forgotten {
    /// These are gone.
    pub(crate) fn these(&self, rows: Vec<(i64, i64)>) {
        if !rows.is_empty() {
            self.tell(Forget::These(rows));
        }
    }

    /// All that were there before are gone but these.
    pub(crate) fn all_but(&self, rows: HashSet<(i64, i64)>) {
        self.tell(Forget::AllBut(rows));
    }

    fn tell(&self, forget: Forget) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(forget);
    }

    pub(super) fn apply(&self, known: &mut KnownValues, own: i64) {
        let told = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for forget in told {
            match forget {
                Forget::These(rows) => {
                    let rows: HashSet<_> = rows.into_iter().collect();
                    known.retain(|_, row| !rows.contains(row));
                }
                Forget::AllBut(rows) => {
                    // What this writer has added since it was looked.
                    let last = rows.iter().filter(|(n, _)| *n == own).map(|(_, id)| *id).max();
                    known.retain(|_, row| rows.contains(row) || row.0 == own && Some(row.1) > last);
                }
            }
        }
    }
}

/// Values that others have stored: their keys and rows, on their way to the writer. Without them it could not
/// say in which events they are seen here.
#[derive(Clone, Default)]
pub(crate) struct Learned(Arc<Mutex<KnownValues>>);

impl Learned {
    pub(super) fn add(&self, key: u64, row: (i64, i64)) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, row);
    }

    pub(super) fn take(&self) -> KnownValues {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where a chain stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    /// 16 hex digits on the wire.
    pub(crate) instance: i64,
    pub(crate) batch_no: i64,
    /// The last event's.
    pub(crate) seq: i64,
    pub(crate) chain: Hash,
}

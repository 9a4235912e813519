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

pub(super) mod postgres;
pub(super) mod sqlite;

/// On a runtime whose threads, those for blocking calls included, have the tracker of the caller.
pub(super) fn run(operation: Operation, place: &Place, tracker: &Tracker) {
    let tracker = tracker.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .on_thread_start(move || std::mem::forget(test::scoped(&tracker)))
        .build()
        .unwrap();
    runtime.block_on(operation(place));
}

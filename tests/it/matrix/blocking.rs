//! Connections that block.

use futures_util::FutureExt;
use provenance::Tracker;

use crate::matrix::Operation;
use crate::matrix::place::Place;

macro_rules! wait {
    ($query:expr) => {
        $query
    };
}

macro_rules! transaction {
    ($db:expr, |$inner:ident| $body:block) => {
        $db.transaction::<_, Error, _>(|$inner| $body)
    };
}

macro_rules! test_transaction {
    ($db:expr, |$inner:ident| $body:block) => {
        $db.test_transaction::<_, Error, _>(|$inner| $body)
    };
}

/// Nobody leaves what blocks.
macro_rules! broken_off {
    ($operation:expr, $polls:expr) => {{
        let _ = ($operation.await, $polls);
    }};
}

pub(super) mod postgres;
pub(super) mod sqlite;

/// Nothing in it waits.
pub(super) fn run(operation: Operation, place: &Place, _: &Tracker) {
    operation(place).now_or_never().unwrap();
}

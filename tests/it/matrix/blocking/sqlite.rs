//! `SqliteConnection`.

use diesel::RunQueryDsl;
use diesel::connection::{Connection as Transactions, SimpleConnection as Batch};
use diesel::query_dsl::SaveChangesDsl;

use crate::matrix::place::Place;

pub(super) type Db = diesel::SqliteConnection;

macro_rules! serializable {
    ($db:expr, |$inner:ident| $body:block) => {
        $db.transaction::<_, Error, _>(|$inner| $body)
    };
}

async fn connect(place: &Place) -> Db {
    let mut db = Db::establish(&place.url()).unwrap();
    db.batch_execute("PRAGMA busy_timeout = 30000; PRAGMA foreign_keys = ON")
        .unwrap();
    db
}

#[path = "../batches.rs"]
pub(in crate::matrix) mod batches;
#[path = "../mixed.rs"]
pub(in crate::matrix) mod mixed;
#[path = "../operations.rs"]
pub(in crate::matrix) mod operations;
#[path = "pools.rs"]
pub(in crate::matrix) mod pools;
#[path = "../replace.rs"]
pub(in crate::matrix) mod replace;

//! `PgConnection`.

use diesel::RunQueryDsl;
use diesel::connection::{Connection as Transactions, SimpleConnection as Batch};
use diesel::query_dsl::SaveChangesDsl;

use crate::matrix::place::Place;

pub(super) type Db = diesel::PgConnection;

macro_rules! serializable {
    ($db:expr, |$inner:ident| $body:block) => {
        $db.build_transaction()
            .serializable()
            .run::<_, Error, _>(|$inner| $body)
    };
}

async fn connect(place: &Place) -> Db {
    Db::establish(&place.url()).unwrap()
}

#[path = "../batches.rs"]
pub(in crate::matrix) mod batches;
#[path = "../mixed.rs"]
pub(in crate::matrix) mod mixed;
#[path = "../operations.rs"]
pub(in crate::matrix) mod operations;
#[path = "pools.rs"]
pub(in crate::matrix) mod pools;

pub(in crate::matrix) mod copy;

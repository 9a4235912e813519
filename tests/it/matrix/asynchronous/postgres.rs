//! `AsyncPgConnection`.

use diesel_async::{AsyncConnection as Transactions, RunQueryDsl, SaveChangesDsl, SimpleAsyncConnection as Batch};

use crate::matrix::place::Place;

pub(super) type Db = diesel_async::AsyncPgConnection;

macro_rules! serializable {
    ($db:expr, |$inner:ident| $body:block) => {
        $db.build_transaction()
            .serializable()
            .run::<_, Error, _>(async |$inner| $body)
            .await
    };
}

async fn connect(place: &Place) -> Db {
    Db::establish(&place.url()).await.unwrap()
}

#[path = "../batches.rs"]
pub(in crate::matrix) mod batches;
#[path = "../mixed.rs"]
pub(in crate::matrix) mod mixed;
#[path = "../operations.rs"]
pub(in crate::matrix) mod operations;
#[path = "pools.rs"]
pub(in crate::matrix) mod pools;

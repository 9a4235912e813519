//! `SyncConnectionWrapper<SqliteConnection>`: statements run on threads for blocking calls.

use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_async::{AsyncConnection as Transactions, RunQueryDsl, SaveChangesDsl, SimpleAsyncConnection as Batch};

use crate::matrix::place::Place;

pub(super) type Db = SyncConnectionWrapper<diesel::SqliteConnection>;

macro_rules! serializable {
    ($db:expr, |$inner:ident| $body:block) => {
        $db.transaction::<_, Error, _>(async |$inner| $body).await
    };
}

async fn connect(place: &Place) -> Db {
    let mut db = Db::establish(&place.url()).await.unwrap();
    db.batch_execute("PRAGMA busy_timeout = 30000; PRAGMA foreign_keys = ON")
        .await
        .unwrap();
    db
}

#[path = "../mixed.rs"]
pub(in crate::matrix) mod mixed;
#[path = "../operations.rs"]
pub(in crate::matrix) mod operations;
#[path = "pools.rs"]
pub(in crate::matrix) mod pools;
#[path = "../replace.rs"]
pub(in crate::matrix) mod replace;

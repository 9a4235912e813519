//! Ways to a connection of diesel-async, and futures that nobody waits for.

use std::pin::pin;

use diesel::result::Error;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8, deadpool};
use futures_util::poll;

use super::{Db, RunQueryDsl, Transactions, connect};
use crate::matrix::models::*;
use crate::matrix::place::Place;

operations! { dropped_future; deadpool_pool, bb8_pool }

/// An insert, and one that is rolled back.
macro_rules! use_connection {
    ($db:expr) => {
        wait!(diesel::insert_into(people::table).values(person()).execute(&mut $db)).unwrap();
        transaction!($db, |db| {
            wait!(diesel::insert_into(people::table).values(person()).execute(db))?;
            Err::<(), _>(Error::RollbackTransaction)
        })
        .unwrap_err();
    };
}

async fn deadpool_pool(place: &Place) {
    let manager = AsyncDieselConnectionManager::<Db>::new(place.url());
    let pool = deadpool::Pool::builder(manager).max_size(2).build().unwrap();
    let (mut one, mut other) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    use_connection!(one);
    use_connection!(other);
    drop((one, other));
    let mut again = pool.get().await.unwrap();
    use_connection!(again);
}

async fn bb8_pool(place: &Place) {
    let manager = AsyncDieselConnectionManager::<Db>::new(place.url());
    let pool = bb8::Pool::builder().max_size(2).build(manager).await.unwrap();
    let (mut one, mut other) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    use_connection!(one);
    use_connection!(other);
    drop((one, other));
    let mut again = pool.get().await.unwrap();
    use_connection!(again);
}

/// Statements that are prepared already, left at one poll after the other: before they are handed over, after
/// that, when the answer is there.
async fn dropped_future(db: &mut Db) {
    let into = || diesel::insert_into(people::table);
    into().values(person()).execute(db).await.unwrap();
    for polls in 1..8 {
        let person = person();
        let mut statement = pin!(into().values(&person).execute(db));
        for _ in 0..polls {
            if poll!(&mut statement).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    into().values(person()).execute(db).await.unwrap();
}

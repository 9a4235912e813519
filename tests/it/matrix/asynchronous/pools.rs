//! Ways to a connection of diesel-async, and futures that nobody waits for.

use std::pin::pin;
use std::task::Poll;

use diesel::SelectableHelper;
use diesel::result::Error;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8, deadpool};
use futures_util::poll;

use super::{Db, RunQueryDsl, Transactions, connect};
use crate::matrix::models::*;
use crate::matrix::place::Place;

operations! { dropped_future; deadpool_pool, bb8_pool, rows_of_another_connection }

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

/// While a statement that will fail is under way, another connection's rows are read on the same thread.
async fn rows_of_another_connection(place: &Place) {
    let (mut one, mut other) = (connect(place).await, connect(place).await);
    let taken = NewPerson {
        email: "seed1@example.org".into(),
        ..person()
    };
    let statement = || diesel::insert_into(people::table);
    let failing = statement().values(&taken).returning(Person::as_returning());
    let mut failing = pin!(failing.get_result::<Person>(&mut one));
    let begun = poll!(&mut failing);
    let person = statement().values(person()).returning(Person::as_returning());
    person.get_result::<Person>(&mut other).await.unwrap();
    let failed = match begun {
        Poll::Ready(result) => result,
        Poll::Pending => failing.await,
    };
    assert!(failed.is_err());
}

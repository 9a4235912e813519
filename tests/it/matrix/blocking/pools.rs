//! Ways to a connection that blocks.

use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, Pool};
use diesel::result::Error;

use super::Db;
use crate::matrix::models::*;
use crate::matrix::place::Place;

operations! { ; r2d2_pool, multi_connection }

/// Two at a time, then one that was used before.
async fn r2d2_pool(place: &Place) {
    let manager = ConnectionManager::<Db>::new(place.url());
    let pool = Pool::builder().max_size(2).build(manager).unwrap();
    let into = || diesel::insert_into(people::table);
    let (mut one, mut other) = (pool.get().unwrap(), pool.get().unwrap());
    into().values(person()).execute(&mut one).unwrap();
    into().values(person()).execute(&mut other).unwrap();
    drop((one, other));
    let mut again = pool.get().unwrap();
    let rolled_back = again.transaction(|db| {
        into().values(person()).execute(db)?;
        Err::<(), _>(Error::RollbackTransaction)
    });
    rolled_back.unwrap_err();
    into().values(person()).execute(&mut again).unwrap();
}

async fn multi_connection(place: &Place) {
    let mut db = place.open();
    diesel::insert_into(people::table)
        .values(person())
        .execute(&mut db)
        .unwrap();
    let rolled_back = db.transaction(|db| {
        diesel::insert_into(people::table).values(person()).execute(db)?;
        Err::<(), _>(Error::RollbackTransaction)
    });
    rolled_back.unwrap_err();
}

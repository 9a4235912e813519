//! Many rows in one statement.

use super::{Db, RunQueryDsl, connect};
use crate::matrix::models::*;

operations! { insert_a_vec, insert_a_slice, insert_a_batch_with_defaults; }

async fn insert_a_vec(db: &mut Db) {
    wait!(
        diesel::insert_into(people::table)
            .values(vec![row(), row()])
            .execute(db)
    )
    .unwrap();
    wait!(
        diesel::insert_into(people::table)
            .values(&vec![row(), row()])
            .execute(db)
    )
    .unwrap();
}

async fn insert_a_slice(db: &mut Db) {
    let rows = [row(), row()];
    wait!(diesel::insert_into(people::table).values(&rows[..]).execute(db)).unwrap();
}

/// Diesel makes a statement a row of it on SQLite, in a transaction of its own.
async fn insert_a_batch_with_defaults(db: &mut Db) {
    let batch = [
        person(),
        NewPerson {
            income: None,
            ..person()
        },
    ];
    wait!(diesel::insert_into(people::table).values(&batch).execute(db)).unwrap();
}

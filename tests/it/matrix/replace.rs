//! `REPLACE INTO`, which PostgreSQL has not.

use super::{Db, RunQueryDsl, connect};
use crate::matrix::models::*;

operations! { replace; }

/// A row that is new, and one whose address is taken.
async fn replace(db: &mut Db) {
    let known = NewPerson {
        email: "seed1@example.org".into(),
        ..person()
    };
    for person in [person(), known] {
        wait!(diesel::replace_into(people::table).values(&person).execute(db)).unwrap();
    }
}

//! One task of the stress test. Whatever an operation comes back with, the database's journal says what became
//! of it. A column compiles this file as it does `operations`, with its own way to break off.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use diesel::prelude::*;
use diesel::result::Error;
use diesel::{delete, insert_into, sql_query, update};
use futures_util::FutureExt;

use super::{Batch, Db, RunQueryDsl, Transactions, connect};
use crate::matrix::models::*;
use crate::matrix::place::Place;
use crate::matrix::stress::Dice;

macro_rules! insert {
    ($db:expr, $person:expr) => {
        wait!(insert_into(people::table).values($person).execute($db))
    };
}

/// Does `count` operations, on a new connection after each that broke the one before.
pub(in crate::matrix) async fn task(place: Arc<Place>, mut dice: Dice, count: usize) {
    let mut db = connect(&place).await;
    // Only rows of this task's own are changed: nobody waits for another's lock twice.
    let mut mine = person();
    let _ = insert!(&mut db, &mine);
    for _ in 0..count {
        match dice.roll(100) {
            0 => {
                let panicking = AssertUnwindSafe(panic_in_a_transaction(&mut db, &mut dice));
                let _ = panicking.catch_unwind().await;
                db = connect(&place).await;
            }
            1 => {
                let polls = dice.roll(12);
                broken_off!(transaction(&mut db, &mut dice), polls);
                db = connect(&place).await;
            }
            2..5 => {
                let (person, polls) = (person(), dice.roll(6));
                broken_off!(insert_alone(&mut db, &person), polls);
            }
            5..25 => {
                let _ = insert!(&mut db, &person());
            }
            25..32 => {
                let _ = insert!(&mut db, &mine);
            }
            32..40 => one_of_many(&mut db, &mut dice, &mut mine).await,
            40..55 => returning(&mut db, &mut dice, &mine).await,
            55..65 => conflict(&mut db, &mut dice, &mine).await,
            65..72 => text(&mut db, &mut dice).await,
            72..78 => swallowed(&mut db, &mut dice, &mine).await,
            78..84 => commit_that_fails(&mut db).await,
            _ => {
                let _ = transaction(&mut db, &mut dice).await;
            }
        }
    }
}

async fn insert_alone(db: &mut Db, person: &NewPerson) -> QueryResult<usize> {
    insert!(db, person)
}

async fn panic_in_a_transaction(db: &mut Db, dice: &mut Dice) {
    let nested = dice.roll(2) == 0;
    let _ = transaction!(db, |db| {
        insert!(db, &person())?;
        if nested {
            transaction!(db, |db| {
                insert!(db, &person())?;
                panic_on_purpose()
            })?;
        }
        panic_on_purpose()
    });
}

/// Without a word on stderr.
fn panic_on_purpose() -> QueryResult<()> {
    std::panic::resume_unwind(Box::new("on purpose"))
}

/// Each level ends as the dice say.
async fn transaction(db: &mut Db, dice: &mut Dice) -> QueryResult<()> {
    let ends = [dice.roll(3) > 0, dice.roll(2) > 0, dice.roll(2) > 0];
    let end = move |level: usize| {
        if ends[level] {
            Ok(())
        } else {
            Err(Error::RollbackTransaction)
        }
    };
    transaction!(db, |db| {
        insert!(db, &person())?;
        let _ = transaction!(db, |db| {
            insert!(db, &person())?;
            let _ = transaction!(db, |db| {
                insert!(db, &person())?;
                end(2)
            });
            end(1)
        });
        insert!(db, &person())?;
        end(0)
    })
}

/// Updates and deletes, of rows that are there or not.
async fn one_of_many(db: &mut Db, dice: &mut Dice, mine: &mut NewPerson) {
    let own = people::table.filter(people::email.eq(mine.email.clone()));
    match dice.roll(4) {
        0 => {
            let _ = wait!(update(own).set(&changes()).execute(db));
        }
        1 => {
            let _ = wait!(update(people::table.find(-1)).set(&changes()).execute(db));
        }
        2 => {
            let moved = email();
            let changes = Changes {
                email: Some(moved.clone()),
                income: None,
            };
            if wait!(update(own).set(&changes).execute(db)) == Ok(1) {
                mine.email = moved;
            }
        }
        _ => {
            let _ = wait!(delete(own).execute(db));
            *mine = person();
            let _ = insert!(db, &*mine);
        }
    }
}

async fn returning(db: &mut Db, dice: &mut Dice, mine: &NewPerson) {
    let person = if dice.roll(3) == 0 { mine.clone() } else { person() };
    let statement = insert_into(people::table).values(&person);
    if dice.roll(2) == 0 {
        let _: QueryResult<i32> = wait!(statement.returning(people::id).get_result(db));
    } else {
        let _: QueryResult<Person> = wait!(statement.returning(Person::as_returning()).get_result(db));
    }
}

/// New rows, and rows that are there.
async fn conflict(db: &mut Db, dice: &mut Dice, mine: &NewPerson) {
    let person = if dice.roll(2) == 0 { mine.clone() } else { person() };
    let statement = insert_into(people::table).values(&person).on_conflict(people::email);
    let _ = match dice.roll(2) {
        0 => wait!(statement.do_nothing().execute(db)),
        _ => wait!(statement.do_update().set(people::plan.eq("kept")).execute(db)),
    };
}

/// Transactions and savepoints by hand.
async fn text(db: &mut Db, dice: &mut Dice) {
    let savepoint = dice.roll(2) == 0;
    let end = ["COMMIT", "ROLLBACK"][usize::from(dice.roll(2) == 0)];
    if wait!(db.batch_execute("BEGIN")).is_err() {
        return;
    }
    let _ = insert!(db, &person());
    if savepoint {
        let _ = wait!(sql_query("SAVEPOINT a").execute(db));
        let _ = insert!(db, &person());
        let _ = wait!(db.batch_execute("ROLLBACK TO a; RELEASE a"));
        let _ = insert!(db, &person());
    }
    let _ = wait!(sql_query(end).execute(db));
}

/// Errors that the transaction's closure keeps to itself: PostgreSQL's COMMIT then rolls back.
async fn swallowed(db: &mut Db, dice: &mut Dice, mine: &NewPerson) {
    let ways = (dice.roll(2) == 0, dice.roll(2) == 0, dice.roll(2) == 0);
    let (with_rows, in_a_savepoint, goes_on) = ways;
    let taken = insert_into(people::table).values(mine);
    let _ = transaction!(db, |db| {
        insert!(db, &person())?;
        if in_a_savepoint {
            let _ = transaction!(db, |db| {
                insert!(db, &person())?;
                insert!(db, mine)
            });
        } else if with_rows {
            let _: QueryResult<i32> = wait!(taken.returning(people::id).get_result(db));
        } else {
            let _ = wait!(taken.execute(db));
        }
        if goes_on {
            let _ = insert!(db, &person());
        }
        Ok(())
    });
}

async fn commit_that_fails(db: &mut Db) {
    let _ = transaction!(db, |db| {
        insert!(db, &person())?;
        wait!(insert_into(notes::table).values(notes::person_id.eq(-1)).execute(db))
    });
}

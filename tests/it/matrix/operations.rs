//! What every column does, each operation once. A column compiles this file with its own connection `Db`, its
//! own `RunQueryDsl`, and macros that add `.await` where it is needed. Rows 1 to 3 are there before.

use std::panic::AssertUnwindSafe;

use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::{Double, Integer, Text};
use diesel::{delete, insert_into, sql_query, update};
use futures_util::FutureExt;

use super::{Batch, Db, RunQueryDsl, SaveChangesDsl, Transactions, connect};
use crate::matrix::models::*;
use crate::matrix::place::Place;

operations! {
    insert_by_value, insert_by_reference, insert_a_tuple_of_models,
    insert_an_embedded_model, insert_without_optional_values, insert_built_and_never_run,
    insert_with_a_bind_that_fails, insert_that_violates_a_constraint,
    update_of_one_row, update_of_no_row, update_of_many_rows, save_changes,
    insert_returning_the_model, insert_returning_an_id, insert_returning_that_fails,
    update_returning_the_model, update_returning_no_row,
    do_nothing_that_won, do_nothing_that_lost, upsert_that_inserts, upsert_that_updates, upsert_of_the_same_values, upsert_from_excluded, upsert_of_another_column,
    transaction_committed, transaction_rolled_back, nested_transactions_committed, inner_transaction_rolled_back,
    outer_transaction_rolled_back, test_transaction, panic_in_a_transaction, commit_that_fails,
    violation_in_a_transaction, violation_in_a_savepoint, violation_ignored_then_commit,
    failed_returning_ignored_then_commit,
    begin_and_commit_by_batch_execute, begin_and_rollback_by_batch_execute, begin_and_commit_by_sql_query,
    begin_and_rollback_by_sql_query, savepoints_by_batch_execute, savepoints_by_sql_query,
    commit_among_several_statements, rollback_among_several_statements,
    set_a_column, set_a_column_of_no_row, values_of_columns, another_struct, sql_query_insert_with_binds,
    sql_query_update_with_binds, literal_insert, literal_update, literal_inserts_in_one_text,
    literal_insert_rolled_back, insert_from_select,
    delete_one_row, delete_all_rows, delete_no_row, delete_rolled_back;
    serialization_failure_retried
}

/// An address that is taken.
const TAKEN: &str = "seed1@example.org";

fn taken() -> NewPerson {
    NewPerson {
        email: TAKEN.into(),
        income: Some(income()),
    }
}

// Macros, since a transaction's closure may be one that cannot wait.
macro_rules! insert {
    ($db:ident, $person:expr) => {
        wait!(insert_into(people::table).values($person).execute($db))
    };
}

macro_rules! insert_one {
    ($db:ident) => {
        assert_eq!(insert!($db, &person()), Ok(1))
    };
}

macro_rules! batch {
    ($db:ident, $sql:expr) => {
        wait!($db.batch_execute($sql)).unwrap()
    };
}

macro_rules! query {
    ($db:ident, $sql:expr) => {
        wait!(sql_query($sql).execute($db)).unwrap()
    };
}

fn is_violation<T>(result: QueryResult<T>) {
    let error = result.err();
    assert!(
        matches!(error, Some(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _))),
        "{error:?}"
    );
}

// Inserts.

async fn insert_by_value(db: &mut Db) {
    wait!(insert_into(people::table).values(person()).execute(db)).unwrap();
}

async fn insert_by_reference(db: &mut Db) {
    wait!(insert_into(people::table).values(&person()).execute(db)).unwrap();
}

async fn insert_a_tuple_of_models(db: &mut Db) {
    let values = (&person(), people::plan.eq("paid"));
    wait!(insert_into(people::table).values(values).execute(db)).unwrap();
}

async fn insert_an_embedded_model(db: &mut Db) {
    let customer = Customer {
        person: person(),
        plan: "paid".into(),
    };
    wait!(insert_into(people::table).values(&customer).execute(db)).unwrap();
}

async fn insert_without_optional_values(db: &mut Db) {
    let nothing = NewPerson {
        income: None,
        ..person()
    };
    assert_eq!(insert!(db, &nothing), Ok(1));
}

async fn insert_built_and_never_run(db: &mut Db) {
    let person = person();
    let _statement = insert_into(people::table).values(&person);
    insert_one!(db);
}

async fn insert_with_a_bind_that_fails(db: &mut Db) {
    let values = (person(), people::plan.eq(Unbindable));
    wait!(insert_into(people::table).values(values).execute(db)).unwrap_err();
    insert_one!(db);
}

async fn insert_that_violates_a_constraint(db: &mut Db) {
    is_violation(insert!(db, &taken()));
    insert_one!(db);
}

// Updates.

async fn update_of_one_row(db: &mut Db) {
    let updated = wait!(update(people::table.find(1)).set(&changes()).execute(db));
    assert_eq!(updated, Ok(1));
}

async fn update_of_no_row(db: &mut Db) {
    let updated = wait!(update(people::table.find(404)).set(&changes()).execute(db));
    assert_eq!(updated, Ok(0));
}

async fn update_of_many_rows(db: &mut Db) {
    let updated = wait!(update(people::table).set(&changes()).execute(db));
    assert_eq!(updated, Ok(3));
}

async fn save_changes(db: &mut Db) {
    let changed = Person { id: 1, ..row() };
    let saved: Person = wait!(changed.save_changes(db)).unwrap();
    assert_eq!((saved.id, &saved.email), (1, &changed.email));
}

// RETURNING.

async fn insert_returning_the_model(db: &mut Db) {
    let statement = insert_into(people::table)
        .values(person())
        .returning(Person::as_returning());
    let _: Person = wait!(statement.get_result(db)).unwrap();
}

async fn insert_returning_an_id(db: &mut Db) {
    let statement = insert_into(people::table).values(person()).returning(people::id);
    let _: i32 = wait!(statement.get_result(db)).unwrap();
}

async fn insert_returning_that_fails(db: &mut Db) {
    let statement = insert_into(people::table).values(taken()).returning(people::id);
    is_violation(wait!(statement.get_result::<i32>(db)));
    let statement = insert_into(people::table)
        .values(taken())
        .returning(Person::as_returning());
    is_violation(wait!(statement.get_result::<Person>(db)));
}

async fn update_returning_the_model(db: &mut Db) {
    let statement = update(people::table.find(1))
        .set(changes())
        .returning(Person::as_returning());
    let _: Person = wait!(statement.get_result(db)).unwrap();
}

async fn update_returning_no_row(db: &mut Db) {
    let statement = update(people::table.find(404))
        .set(changes())
        .returning(Person::as_returning());
    assert_eq!(wait!(statement.load::<Person>(db)).unwrap().len(), 0);
}

// Conflicts.

async fn do_nothing_that_won(db: &mut Db) {
    let statement = insert_into(people::table).values(person()).on_conflict_do_nothing();
    assert_eq!(wait!(statement.execute(db)), Ok(1));
}

async fn do_nothing_that_lost(db: &mut Db) {
    let statement = insert_into(people::table).values(taken()).on_conflict_do_nothing();
    assert_eq!(wait!(statement.execute(db)), Ok(0));
}

async fn upsert(db: &mut Db, person: NewPerson) {
    let statement = insert_into(people::table)
        .values(person)
        .on_conflict(people::email)
        .do_update()
        .set(changes());
    assert_eq!(wait!(statement.execute(db)), Ok(1));
}

async fn upsert_that_inserts(db: &mut Db) {
    upsert(db, person()).await;
}

async fn upsert_that_updates(db: &mut Db) {
    upsert(db, taken()).await;
}

async fn upsert_of_the_same_values(db: &mut Db) {
    for email in [TAKEN.into(), email()] {
        let person = NewPerson { email, ..person() };
        let same = Changes {
            email: Some(person.email.clone()),
            income: person.income,
        };
        let statement = insert_into(people::table)
            .values(person)
            .on_conflict(people::email)
            .do_update()
            .set(same);
        assert_eq!(wait!(statement.execute(db)), Ok(1));
    }
}

async fn upsert_from_excluded(db: &mut Db) {
    let statement = insert_into(people::table)
        .values(taken())
        .on_conflict(people::email)
        .do_update()
        .set(people::income.eq(diesel::upsert::excluded(people::income)));
    assert_eq!(wait!(statement.execute(db)), Ok(1));
}

/// What is stored where a row was there is not tracked.
async fn upsert_of_another_column(db: &mut Db) {
    for person in [taken(), person()] {
        let statement = insert_into(people::table)
            .values(person)
            .on_conflict(people::email)
            .do_update()
            .set(people::plan.eq("kept"));
        assert_eq!(wait!(statement.execute(db)), Ok(1));
    }
}

// Transactions.

async fn transaction_committed(db: &mut Db) {
    transaction!(db, |db| {
        insert_one!(db);
        insert_one!(db);
        Ok(())
    })
    .unwrap();
}

async fn transaction_rolled_back(db: &mut Db) {
    transaction!(db, |db| {
        insert_one!(db);
        Err::<(), _>(Error::RollbackTransaction)
    })
    .unwrap_err();
    insert_one!(db);
}

async fn nested_transactions_committed(db: &mut Db) {
    transaction!(db, |db| {
        insert_one!(db);
        transaction!(db, |db| {
            insert_one!(db);
            transaction!(db, |db| {
                insert_one!(db);
                Ok(())
            })
        })?;
        insert_one!(db);
        Ok(())
    })
    .unwrap();
}

async fn inner_transaction_rolled_back(db: &mut Db) {
    transaction!(db, |db| {
        insert_one!(db);
        transaction!(db, |db| {
            insert_one!(db);
            transaction!(db, |db| {
                insert_one!(db);
                Ok(())
            })?;
            Err::<(), _>(Error::RollbackTransaction)
        })
        .unwrap_err();
        insert_one!(db);
        Ok(())
    })
    .unwrap();
}

async fn outer_transaction_rolled_back(db: &mut Db) {
    transaction!(db, |db| {
        transaction!(db, |db| {
            insert_one!(db);
            Ok(())
        })?;
        Err::<(), _>(Error::RollbackTransaction)
    })
    .unwrap_err();
}

async fn test_transaction(db: &mut Db) {
    test_transaction!(db, |db| {
        insert_one!(db);
        transaction!(db, |db| {
            insert_one!(db);
            Ok(())
        })
    });
    insert_one!(db);
}

async fn panic_in_a_transaction(db: &mut Db) {
    let panicking = async {
        transaction!(db, |db| {
            insert_one!(db);
            panic_on_purpose()
        })
    };
    AssertUnwindSafe(panicking).catch_unwind().await.unwrap_err();
}

/// Without a word on stderr.
fn panic_on_purpose() -> QueryResult<()> {
    std::panic::resume_unwind(Box::new("on purpose"))
}

async fn commit_that_fails(db: &mut Db) {
    let failed = transaction!(db, |db| {
        insert_one!(db);
        let nobodys = notes::person_id.eq(404);
        wait!(insert_into(notes::table).values(nobodys).execute(db))
    });
    assert!(matches!(
        failed,
        Err(Error::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, _))
    ));
    insert_one!(db);
}

async fn serialization_failure_retried(place: &Place) {
    let db = &mut connect(place).await;
    let person = person();
    let (person, mut attempts) = (&person, 0);
    loop {
        attempts += 1;
        let done = serializable!(db, |db| {
            let _: i64 = wait!(people::table.count().get_result(db))?;
            if attempts == 1 {
                place.run("UPDATE people SET plan = 'meanwhile' WHERE id = 1");
            }
            insert!(db, person)?;
            wait!(update(people::table.find(1)).set(people::plan.eq("now")).execute(db))
        });
        if done.is_ok() {
            break;
        }
    }
    assert_eq!(attempts, 2);
}

async fn violation_in_a_transaction(db: &mut Db) {
    let failed = transaction!(db, |db| {
        insert_one!(db);
        insert!(db, &taken())
    });
    is_violation(failed);
    insert_one!(db);
}

async fn violation_in_a_savepoint(db: &mut Db) {
    transaction!(db, |db| {
        insert_one!(db);
        is_violation(transaction!(db, |db| {
            insert_one!(db);
            insert!(db, &taken())
        }));
        insert_one!(db);
        Ok(())
    })
    .unwrap();
}

/// SQLite undoes the statement alone; PostgreSQL answers this COMMIT with success, and rolls back.
async fn violation_ignored_then_commit(db: &mut Db) {
    transaction!(db, |db| {
        insert_one!(db);
        is_violation(insert!(db, &taken()));
        Ok(())
    })
    .unwrap();
    insert_one!(db);
}

async fn failed_returning_ignored_then_commit(db: &mut Db) {
    transaction!(db, |db| {
        insert_one!(db);
        let statement = insert_into(people::table).values(taken()).returning(people::id);
        is_violation(wait!(statement.get_result::<i32>(db)));
        Ok(())
    })
    .unwrap();
    insert_one!(db);
}

// Transactions in SQL text.

async fn begin_and_commit_by_batch_execute(db: &mut Db) {
    batch!(db, "begin;");
    insert_one!(db);
    batch!(db, "COMMIT");
    insert_one!(db);
}

async fn begin_and_rollback_by_batch_execute(db: &mut Db) {
    batch!(db, "BEGIN TRANSACTION");
    insert_one!(db);
    batch!(db, "ROLLBACK -- all of it");
    insert_one!(db);
}

async fn begin_and_commit_by_sql_query(db: &mut Db) {
    query!(db, "BEGIN");
    insert_one!(db);
    query!(db, "END");
    insert_one!(db);
}

async fn begin_and_rollback_by_sql_query(db: &mut Db) {
    query!(db, "/* by hand */ BEGIN");
    insert_one!(db);
    query!(db, "ROLLBACK");
    insert_one!(db);
}

async fn savepoints_by_batch_execute(db: &mut Db) {
    batch!(db, "BEGIN");
    insert_one!(db);
    batch!(db, "SAVEPOINT first");
    insert_one!(db);
    batch!(db, "SAVEPOINT second");
    insert_one!(db);
    batch!(db, "ROLLBACK TO first");
    insert_one!(db);
    batch!(db, "RELEASE first");
    batch!(db, "COMMIT");
}

async fn savepoints_by_sql_query(db: &mut Db) {
    query!(db, "BEGIN");
    query!(db, "SAVEPOINT a");
    insert_one!(db);
    query!(db, "RELEASE SAVEPOINT a");
    query!(db, "savepoint \"A b\"");
    insert_one!(db);
    query!(db, "ROLLBACK TO SAVEPOINT \"A b\"");
    query!(db, "COMMIT");
}

async fn commit_among_several_statements(db: &mut Db) {
    batch!(db, "BEGIN; UPDATE people SET plan = 'a;b' WHERE id = 1");
    insert_one!(db);
    batch!(db, "UPDATE people SET plan = 'c' WHERE id = 1; COMMIT; BEGIN;");
    insert_one!(db);
    batch!(db, "ROLLBACK");
}

async fn rollback_among_several_statements(db: &mut Db) {
    batch!(db, "UPDATE people SET plan = 'BEGIN; COMMIT' WHERE id = 1; BEGIN");
    insert_one!(db);
    batch!(db, "ROLLBACK; UPDATE people SET plan = 'COMMIT' WHERE id = 1");
    insert_one!(db);
}

// Around the model.

async fn set_a_column(db: &mut Db) {
    let statement = update(people::table.find(1)).set(people::email.eq(email()));
    assert_eq!(wait!(statement.execute(db)), Ok(1));
}

async fn set_a_column_of_no_row(db: &mut Db) {
    let statement = update(people::table.find(404)).set((people::email.eq(email()), people::income.eq(income())));
    assert_eq!(wait!(statement.execute(db)), Ok(0));
}

async fn values_of_columns(db: &mut Db) {
    let values = (people::email.eq(email()), people::income.eq(income()));
    wait!(insert_into(people::table).values(values).execute(db)).unwrap();
}

async fn another_struct(db: &mut Db) {
    let plain = PlainPerson {
        email: email(),
        income: Some(income()),
    };
    wait!(insert_into(people::table).values(&plain).execute(db)).unwrap();
}

async fn sql_query_insert_with_binds(db: &mut Db) {
    let statement = sql_query("INSERT INTO people (email, income) VALUES ($1, $2)")
        .bind::<Text, _>(email())
        .bind::<Double, _>(income());
    assert_eq!(wait!(statement.execute(db)), Ok(1));
}

async fn sql_query_update_with_binds(db: &mut Db) {
    let statement = sql_query("UPDATE people SET income = $1 WHERE id = $2")
        .bind::<Double, _>(income())
        .bind::<Integer, _>(1);
    assert_eq!(wait!(statement.execute(db)), Ok(1));
}

fn insert_text() -> String {
    let NewPerson { email, income } = person();
    format!(
        "INSERT INTO people (email, income) VALUES ('{email}', {})",
        income.unwrap()
    )
}

async fn literal_insert(db: &mut Db) {
    query!(db, &insert_text());
    batch!(db, &insert_text());
}

async fn literal_update(db: &mut Db) {
    query!(db, &format!("UPDATE people SET income = {} WHERE id = 1", income()));
}

async fn literal_inserts_in_one_text(db: &mut Db) {
    batch!(db, &format!("{}; {};", insert_text(), insert_text()));
}

async fn literal_insert_rolled_back(db: &mut Db) {
    transaction!(db, |db| {
        query!(db, &insert_text());
        Err::<(), _>(Error::RollbackTransaction)
    })
    .unwrap_err();
}

async fn insert_from_select(db: &mut Db) {
    let sql = "INSERT INTO people (email) SELECT 'copy.of.' || email FROM people WHERE id = 1";
    query!(db, sql);
}

// Deletes.

async fn delete_one_row(db: &mut Db) {
    assert_eq!(wait!(delete(people::table.find(1)).execute(db)), Ok(1));
}

async fn delete_all_rows(db: &mut Db) {
    assert_eq!(wait!(delete(people::table).execute(db)), Ok(3));
}

async fn delete_no_row(db: &mut Db) {
    assert_eq!(wait!(delete(people::table.find(404)).execute(db)), Ok(0));
}

async fn delete_rolled_back(db: &mut Db) {
    transaction!(db, |db| {
        wait!(delete(people::table.find(1)).execute(db))?;
        Err::<(), _>(Error::RollbackTransaction)
    })
    .unwrap_err();
}

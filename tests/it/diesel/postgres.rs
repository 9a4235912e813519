//! PostgreSQL, where an error poisons its transaction, and where a COMMIT of it reports success.

use std::collections::BTreeSet;

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use provenance::tracked_model;
use provenance_tests::postgres::Database;
use provenance_tests::{Evidence, fields};

use super::{clear_owners, notes, stored, stored_for_certain, user, users};

mod asynchronous;

pub(super) const SCHEMA: &str = "
    CREATE TABLE users (
        id SERIAL PRIMARY KEY,
        email TEXT NOT NULL UNIQUE,
        income DOUBLE PRECISION,
        type TEXT NOT NULL DEFAULT 'free',
        CONSTRAINT paid CHECK (income < 1000000)
    );
    CREATE TABLE notes (
        id SERIAL PRIMARY KEY,
        user_id INTEGER NOT NULL REFERENCES users (id) DEFERRABLE INITIALLY DEFERRED,
        body TEXT NOT NULL
    );";

#[tracked_model(owner(email))]
#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = users, check_for_backend(Pg), treat_none_as_default_value = false)]
struct Account {
    #[tracked("contact.email")]
    email: String,
    #[tracked("financial.income")]
    income: Option<f64>,
}

fn account(email: &str) -> Account {
    Account {
        email: email.into(),
        income: Some(1.5),
    }
}

fn insert(db: &mut PgConnection, email: &str) -> QueryResult<usize> {
    diesel::insert_into(users::table).values(&user(email)).execute(db)
}

fn in_table(db: &mut PgConnection) -> BTreeSet<String> {
    let emails = users::table.select(users::email).load::<String>(db).unwrap();
    emails.into_iter().collect()
}

fn set(emails: &[&str]) -> BTreeSet<String> {
    emails.iter().map(|email| (*email).to_owned()).collect()
}

fn reasons(evidence: &Evidence) -> BTreeSet<String> {
    let events = evidence.of("DATA_STORAGE");
    events
        .iter()
        .map(|event| provenance_tests::text(&event["extras"]["reason"]))
        .filter(|reason| !reason.is_empty())
        .collect()
}

#[test]
fn a_commit_of_an_aborted_transaction_confirms_nothing() {
    let evidence = clear_owners();
    let _tracker = evidence.scoped();
    let server = Database::new(SCHEMA);
    let mut db = server.connect();
    insert(&mut db, "ada@x.org").unwrap();
    db.transaction(|db| {
        insert(db, "gone@x.org")?;
        // Ignored by the host.
        insert(db, "ada@x.org").unwrap_err();
        QueryResult::Ok(())
    })
    .ok();
    db.batch_execute("BEGIN").unwrap();
    insert(&mut db, "gone.too@x.org").unwrap();
    diesel::sql_query("SELECT 1 / 0").execute(&mut db).unwrap_err();
    db.batch_execute("COMMIT").unwrap();
    assert_eq!(stored(&evidence), set(&["ada@x.org"]));
    assert_eq!(in_table(&mut db), set(&["ada@x.org"]));
}

#[test]
fn a_savepoint_takes_the_error_back() {
    let evidence = clear_owners();
    let _tracker = evidence.scoped();
    let server = Database::new(SCHEMA);
    let mut db = server.connect();
    db.transaction(|db| {
        insert(db, "outer@x.org")?;
        let inner = db.transaction(|db| {
            insert(db, "inner@x.org")?;
            insert(db, "outer@x.org")
        });
        inner.unwrap_err();
        diesel::sql_query("savepoint \"S\"").execute(db)?;
        insert(db, "gone@x.org")?;
        db.batch_execute("SELECT no_such_column").unwrap_err();
        db.batch_execute("ROLLBACK TO \"S\"")?;
        insert(db, "after@x.org").map(drop)
    })
    .unwrap();
    assert_eq!(stored_for_certain(&evidence), in_table(&mut db));
    assert_eq!(stored(&evidence), set(&["outer@x.org", "after@x.org"]));
}

#[test]
fn savepoints_that_differ_in_case_are_two() {
    let evidence = clear_owners();
    let _tracker = evidence.scoped();
    let server = Database::new(SCHEMA);
    let mut db = server.connect();
    db.batch_execute("BEGIN; SAVEPOINT \"A\"").unwrap();
    insert(&mut db, "gone@x.org").unwrap();
    db.batch_execute("SAVEPOINT a").unwrap();
    insert(&mut db, "gone.too@x.org").unwrap();
    db.batch_execute("ROLLBACK TO \"A\"; COMMIT AND CHAIN").unwrap();
    insert(&mut db, "kept@x.org").unwrap();
    db.batch_execute("END").unwrap();
    insert(&mut db, "after@x.org").unwrap();
    assert!(stored_for_certain(&evidence).is_subset(&in_table(&mut db)));
    assert!(in_table(&mut db).is_subset(&stored(&evidence)));
    assert!(stored_for_certain(&evidence).contains("after@x.org"));
}

#[test]
fn a_deferred_constraint_that_fails_the_commit_confirms_nothing() {
    let evidence = clear_owners();
    let _tracker = evidence.scoped();
    let server = Database::new(SCHEMA);
    let mut db = server.connect();
    let failed = db.transaction(|db| {
        insert(db, "gone@x.org")?;
        diesel::insert_into(notes::table)
            .values((notes::user_id.eq(404), notes::body.eq("dangling")))
            .execute(db)
    });
    assert!(matches!(
        failed,
        Err(Error::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, _))
    ));
    insert(&mut db, "ada@x.org").unwrap();
    assert_eq!(stored(&evidence), set(&["ada@x.org"]));
    assert_eq!(stored_for_certain(&evidence), in_table(&mut db));
}

#[test]
fn a_serialization_failure_is_recorded_once_it_is_repeated() {
    let evidence = clear_owners();
    let _tracker = evidence.scoped();
    let server = Database::new(SCHEMA);
    let (mut first, mut second) = (server.connect(), server.connect());
    insert(&mut first, "ada@x.org").unwrap();
    let mut attempts = 0;
    let mut attempt = |first: &mut PgConnection| {
        attempts += 1;
        let rival = (attempts == 1).then_some(&mut second);
        first.build_transaction().serializable().run(|db| {
            let count: i64 = users::table.count().get_result(db)?;
            if let Some(rival) = rival {
                rival.build_transaction().serializable().run(|db| {
                    let _: i64 = users::table.count().get_result(db)?;
                    insert(db, "rival@x.org")
                })?;
            }
            insert(db, &format!("after.{count}@x.org"))
        })
    };
    let failed = attempt(&mut first).unwrap_err();
    assert!(
        matches!(failed, Error::DatabaseError(DatabaseErrorKind::SerializationFailure, _)),
        "{failed}"
    );
    attempt(&mut first).unwrap();
    assert_eq!(stored(&evidence), set(&["ada@x.org", "rival@x.org", "after.2@x.org"]));
    assert_eq!(stored_for_certain(&evidence), in_table(&mut first));
}

#[test]
fn what_the_server_does_not_tell_is_uncertain() {
    let evidence = clear_owners();
    let _tracker = evidence.scoped();
    let server = Database::new(SCHEMA);
    let mut db = server.connect();
    let into = || diesel::insert_into(users::table);
    let _: i32 = into()
        .values(&user("a@x.org"))
        .returning(users::id)
        .get_result(&mut db)
        .unwrap();
    let failed: QueryResult<i32> = into().values(&user("a@x.org")).returning(users::id).get_result(&mut db);
    failed.unwrap_err();
    assert_eq!(
        stored_for_certain(&evidence),
        in_table(&mut db),
        "RETURNING is as good as any"
    );
    into()
        .values(&user("b@x.org"))
        .on_conflict_do_nothing()
        .execute(&mut db)
        .unwrap();
    diesel::update(users::table.find(1))
        .set(&account("c@x.org"))
        .execute(&mut db)
        .unwrap();
    assert_eq!(reasons(&evidence), set(&["on_conflict", "row_count_not_reported"]));
    assert_eq!(stored_for_certain(&evidence), set(&["a@x.org"]));
}

#[test]
fn copy_is_recorded_row_by_row() {
    let evidence = clear_owners();
    let _tracker = evidence.scoped();
    let server = Database::new(SCHEMA);
    let mut db = server.connect();
    let rows = vec![account("a@x.org"), account("b@x.org")];
    let copied = diesel::copy_from(users::table)
        .from_insertable(rows)
        .execute(&mut db)
        .unwrap();
    assert_eq!(copied, 2);
    let failed = diesel::copy_from(users::table)
        .from_insertable(vec![account("c@x.org"), account("a@x.org")])
        .execute(&mut db);
    failed.unwrap_err();
    assert_eq!(stored_for_certain(&evidence), in_table(&mut db));
    assert_eq!(stored(&evidence).len(), 2);
    assert_eq!(
        fields(&evidence.of("DATA_STORAGE")[0]),
        ["email", "income", "email", "income"]
    );
}

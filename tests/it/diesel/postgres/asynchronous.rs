//! diesel-async: statements end by their text alone, errors come with the rows, futures are dropped.

use std::collections::BTreeSet;

use diesel::prelude::*;
use diesel::result::Error;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use provenance_tests::postgres::Database;

use super::{Account, SCHEMA, account, reasons, set};
use crate::diesel::{clear_owners, stored, stored_for_certain, user, users};

async fn connect(server: &Database) -> AsyncPgConnection {
    AsyncPgConnection::establish(&server.url()).await.unwrap()
}

async fn insert(db: &mut AsyncPgConnection, email: &str) -> QueryResult<usize> {
    diesel::insert_into(users::table).values(&user(email)).execute(db).await
}

fn in_table(server: &Database) -> BTreeSet<String> {
    super::in_table(&mut server.connect())
}

#[tokio::test]
async fn transactions_and_savepoints_decide() {
    let evidence = clear_owners();
    let _tracker = evidence.scoped();
    let server = Database::new(SCHEMA);
    let mut db = connect(&server).await;
    insert(&mut db, "first@x.org").await.unwrap();
    insert(&mut db, "first@x.org").await.unwrap_err();
    db.transaction(async |db| {
        insert(db, "outer@x.org").await?;
        let inner = db
            .transaction(async |db| {
                insert(db, "inner.gone@x.org").await?;
                Err::<(), _>(Error::RollbackTransaction)
            })
            .await;
        inner.unwrap_err();
        insert(db, "after@x.org").await
    })
    .await
    .unwrap();
    diesel::sql_query("BEGIN").execute(&mut db).await.unwrap();
    insert(&mut db, "raw.gone@x.org").await.unwrap();
    db.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(stored_for_certain(&evidence), in_table(&server));
    assert_eq!(stored(&evidence).len(), 3);
}

#[tokio::test]
async fn an_error_that_comes_with_the_rows_leaves_no_certain_event() {
    let evidence = clear_owners();
    let _tracker = evidence.scoped();
    let server = Database::new(SCHEMA);
    let mut db = connect(&server).await;
    insert(&mut db, "ada@x.org").await.unwrap();
    let swallowed = |email: &'static str| {
        diesel::insert_into(users::table)
            .values(account(email))
            .returning(Account::as_returning())
    };
    // The host goes on as if nothing had happened, and COMMIT reports success.
    let committed = db
        .transaction(async |db| {
            insert(db, "gone@x.org").await?;
            assert!(swallowed("ada@x.org").get_result(db).await.is_err());
            QueryResult::Ok(())
        })
        .await;
    committed.unwrap();
    db.batch_execute("BEGIN").await.unwrap();
    insert(&mut db, "gone.too@x.org").await.unwrap();
    let failed = diesel::sql_query("SELECT email, income / (income - 4200) AS income FROM users")
        .execute(&mut db)
        .await;
    assert!(failed.is_err());
    db.batch_execute("COMMIT").await.unwrap();
    assert_eq!(in_table(&server), set(&["ada@x.org"]));
    assert_eq!(stored_for_certain(&evidence), set(&["ada@x.org"]));

    // A later statement shows that it went well.
    db.transaction(async |db| {
        let row: Account = swallowed("new@x.org").get_result(db).await?;
        insert(db, &format!("more.{}", row.email)).await
    })
    .await
    .unwrap();
    assert_eq!(stored_for_certain(&evidence), in_table(&server));
}

#[tokio::test]
async fn a_failed_select_poisons_too() {
    let evidence = clear_owners();
    let _tracker = evidence.scoped();
    let server = Database::new(SCHEMA);
    let mut db = connect(&server).await;
    let committed = db
        .transaction(async |db| {
            insert(db, "gone@x.org").await?;
            let failed = users::table
                .select(diesel::dsl::sql::<diesel::sql_types::Integer>("1 / (id - id)"))
                .load::<i32>(db)
                .await;
            assert!(failed.is_err());
            QueryResult::Ok(())
        })
        .await;
    committed.unwrap();
    assert!(in_table(&server).is_empty());
    assert!(stored_for_certain(&evidence).is_empty());
    assert_eq!(reasons(&evidence), set(&["transaction_may_have_aborted"]));
}

#[tokio::test]
async fn pipelined_statements_are_uncertain_and_later_ones_are_not() {
    let evidence = clear_owners();
    let _tracker = evidence.scoped();
    let server = Database::new(SCHEMA);
    let mut db = connect(&server).await;
    {
        let db = &db;
        let one = async |email: &'static str| {
            let mut db = db;
            diesel::insert_into(users::table)
                .values(user(email))
                .execute(&mut db)
                .await
        };
        let (a, b, c) = tokio::join!(one("a@x.org"), one("b@x.org"), one("a@x.org"));
        a.unwrap();
        b.unwrap();
        c.unwrap_err();
    }
    assert!(stored_for_certain(&evidence).is_subset(&in_table(&server)));
    assert!(in_table(&server).is_subset(&stored(&evidence)));
    assert_eq!(reasons(&evidence), set(&["statements_overlapped"]));
    insert(&mut db, "later@x.org").await.unwrap();
    assert!(stored_for_certain(&evidence).contains("later@x.org"));
}

#[tokio::test]
async fn a_dropped_future_may_have_written() {
    let evidence = clear_owners();
    let _tracker = evidence.scoped();
    let server = Database::new(SCHEMA);
    let mut db = connect(&server).await;
    insert(&mut db, "first@x.org").await.unwrap();
    drop(Box::pin(
        diesel::insert_into(users::table)
            .values(user("never@x.org"))
            .execute(&mut db),
    ));
    {
        let sent = diesel::insert_into(users::table)
            .values(user("sent@x.org"))
            .execute(&mut db);
        let _ = tokio::time::timeout(std::time::Duration::ZERO, sent).await;
    }
    insert(&mut db, "next@x.org").await.unwrap();
    db.transaction(async |db| insert(db, "last@x.org").await).await.unwrap();
    let table = in_table(&server);
    assert!(stored_for_certain(&evidence).is_subset(&table), "{table:?}");
    assert!(table.is_subset(&stored(&evidence)));
    let certain = stored_for_certain(&evidence);
    assert!(
        certain.contains("last@x.org"),
        "Diesel's transaction makes it clear: {certain:?}"
    );
}

/// A future that was dropped leaves a statement open for good. The ends of later ones must not be taken for
/// its own: a savepoint that is rolled back would then discard what was written before it.
#[tokio::test]
async fn a_dropped_future_does_not_move_later_writes_into_another_savepoint() {
    let evidence = clear_owners();
    let _tracker = evidence.scoped();
    let server = Database::new(SCHEMA);
    let mut db = connect(&server).await;
    insert(&mut db, "first@x.org").await.unwrap();
    for round in 0..3 {
        drop(Box::pin(
            diesel::insert_into(users::table)
                .values(user("never@x.org"))
                .execute(&mut db),
        ));
        let email = |name: &str| format!("{name}.{round}@x.org");
        db.batch_execute("BEGIN").await.unwrap();
        insert(&mut db, &email("before")).await.unwrap();
        diesel::sql_query("SAVEPOINT a").execute(&mut db).await.unwrap();
        insert(&mut db, &email("gone")).await.unwrap();
        db.batch_execute("ROLLBACK TO a; RELEASE a").await.unwrap();
        insert(&mut db, &email("after")).await.unwrap();
        diesel::sql_query("COMMIT").execute(&mut db).await.unwrap();
    }
    let (certain, table) = (stored_for_certain(&evidence), in_table(&server));
    assert_eq!(table.len(), 7);
    assert!(certain.is_subset(&table), "{certain:?}");
    assert!(table.is_subset(&stored(&evidence)), "{:?}", stored(&evidence));
    assert!(
        certain.contains("after.2@x.org"),
        "the boundaries tell it apart: {certain:?}"
    );
}

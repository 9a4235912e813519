//! SQLite, asked itself: what changed no row leaves no event, and what did is certain.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use provenance_tests::{fields, text};
use serde_json::Value as Json;

use super::{Changes, User, clear_owners, connect, insert, row, user, users};

/// Action and reason of each event; no reason where it is certain.
fn summary(events: &[Json]) -> Vec<(String, String)> {
    let extras = events.iter().map(|event| &event["extras"]);
    extras
        .map(|extras| {
            assert_eq!(extras["certain"] == true, extras["reason"] == Json::Null);
            (text(&extras["action"]), text(&extras["reason"]))
        })
        .collect()
}

fn certain(actions: &[&str]) -> Vec<(String, String)> {
    actions
        .iter()
        .map(|action| ((*action).to_owned(), String::new()))
        .collect()
}

#[test]
fn what_met_no_row_leaves_nothing() {
    let evidence = clear_owners();
    let _tracker = evidence.scoped();
    let mut db = connect();
    insert(&mut db, "ada@x.org").unwrap();
    let changes = Changes {
        email: Some("new@x.org"),
        income: None,
    };
    diesel::update(users::table.find(404))
        .set(&changes)
        .execute(&mut db)
        .unwrap();
    diesel::insert_or_ignore_into(users::table)
        .values(&user("ada@x.org"))
        .execute(&mut db)
        .unwrap();
    diesel::insert_into(users::table)
        .values(&user("ada@x.org"))
        .on_conflict_do_nothing()
        .execute(&mut db)
        .unwrap();
    let failed: QueryResult<i32> = diesel::insert_into(users::table)
        .values(&user("ada@x.org"))
        .returning(users::id)
        .get_result(&mut db);
    failed.unwrap_err();
    let missed: QueryResult<User> = diesel::update(users::table.find(404))
        .set(&changes)
        .returning(User::as_returning())
        .get_result(&mut db);
    missed.unwrap_err();
    assert_eq!(summary(&evidence.of("DATA_STORAGE")), certain(&["insert"]));

    diesel::update(users::table.find(1))
        .set(&changes)
        .execute(&mut db)
        .unwrap();
    diesel::insert_or_ignore_into(users::table)
        .values(&user("b@x.org"))
        .execute(&mut db)
        .unwrap();
    let _: i32 = diesel::insert_into(users::table)
        .values(&user("c@x.org"))
        .returning(users::id)
        .get_result(&mut db)
        .unwrap();
    diesel::replace_into(users::table)
        .values(&row(1, "d@x.org"))
        .execute(&mut db)
        .unwrap();
    assert_eq!(
        summary(&evidence.of("DATA_STORAGE")),
        certain(&["insert", "update", "insert", "insert", "insert"])
    );
}

#[test]
fn a_batch_of_which_some_rows_were_ignored_is_uncertain() {
    let evidence = clear_owners();
    let _tracker = evidence.scoped();
    let mut db = connect();
    let batch = |from: i32| {
        vec![
            row(from, &format!("{from}@x.org")),
            row(from + 1, &format!("{}@x.org", from + 1)),
        ]
    };
    for from in [1, 2, 2, 5] {
        diesel::insert_or_ignore_into(users::table)
            .values(batch(from))
            .execute(&mut db)
            .unwrap();
    }
    let all = summary(&evidence.of("DATA_STORAGE"));
    let expected = [("insert", ""), ("insert", "some_rows_ignored"), ("insert", "")];
    assert_eq!(
        all,
        expected.map(|(action, reason)| (action.to_owned(), reason.to_owned()))
    );
}

#[test]
fn an_upsert_is_certain_where_the_row_is_new_or_both_ways_store_the_same() {
    let evidence = clear_owners();
    let _tracker = evidence.scoped();
    let mut db = connect();
    for _ in 0..2 {
        let full = row(1, "ada@x.org");
        diesel::insert_into(users::table)
            .values(&full)
            .on_conflict(users::id)
            .do_update()
            .set(&full)
            .execute(&mut db)
            .unwrap();
    }
    diesel::insert_into(users::table)
        .values(&row(1, "bob@x.org"))
        .on_conflict(users::id)
        .do_update()
        .set(&row(1, "carol@x.org"))
        .execute(&mut db)
        .unwrap();
    let events = evidence.of("DATA_STORAGE");
    let upsert = "insert-or-update".to_owned();
    assert_eq!(
        summary(&events),
        [
            ("insert".to_owned(), String::new()),
            (upsert.clone(), String::new()),
            (upsert, "on_conflict".to_owned())
        ]
    );
    assert_eq!(fields(&events[0]), ["email", "income"]);
    assert_eq!(fields(&events[2]), ["email", "income", "email"]);
}

#[test]
fn triggers_do_not_count_as_the_statements_rows() {
    let evidence = clear_owners();
    let _tracker = evidence.scoped();
    let mut db = connect();
    db.batch_execute(
        "CREATE TRIGGER no_bob BEFORE INSERT ON users WHEN new.email = 'bob@x.org' BEGIN
             INSERT INTO notes (user_id, body) VALUES (1, 'refused');
             SELECT RAISE(IGNORE);
         END;",
    )
    .unwrap();
    insert(&mut db, "ada@x.org").unwrap();
    insert(&mut db, "bob@x.org").unwrap();
    let expected = [("insert", ""), ("insert", "row_count_not_reported")];
    assert_eq!(
        summary(&evidence.of("DATA_STORAGE")),
        expected.map(|(action, reason)| (action.to_owned(), reason.to_owned()))
    );
}

#[test]
fn an_error_that_ends_the_transaction_ends_it_for_us() {
    let evidence = clear_owners();
    let _tracker = evidence.scoped();
    let mut db = connect();
    db.batch_execute("BEGIN").unwrap();
    insert(&mut db, "gone@x.org").unwrap();
    db.batch_execute("INSERT OR ROLLBACK INTO users (email) VALUES ('gone@x.org')")
        .unwrap_err();
    insert(&mut db, "kept@x.org").unwrap();
    assert_eq!(
        super::stored_for_certain(&evidence).into_iter().collect::<Vec<_>>(),
        ["kept@x.org"]
    );
}

#[test]
fn the_hooks_of_a_connection_stay_the_hosts() {
    let evidence = clear_owners();
    let _tracker = evidence.scoped();
    let mut db = connect();
    let called = diesel::sql_query("SELECT provenance_probe()").execute(&mut db);
    assert!(called.unwrap_err().to_string().contains("not to be called"));
    // A connection that fails to open leaves nothing behind.
    assert!(SqliteConnection::establish("/no/such/folder/app.db").is_err());
    insert(&mut db, "ada@x.org").unwrap();
    assert_eq!(summary(&evidence.of("DATA_STORAGE")), certain(&["insert"]));
}

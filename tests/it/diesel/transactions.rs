//! Transactions that the host controls by text, in any route and mixed with Diesel's own.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::result::Error;
use diesel::sql_types::Bool;
use diesel::sqlite::Sqlite;
use proptest::prelude::*;
use provenance_tests::Evidence;

use super::{clear_owners, connect, insert, notes, stored, stored_for_certain, user, users};

fn in_table(db: &mut SqliteConnection) -> BTreeSet<String> {
    users::table
        .select(users::email)
        .load::<String>(db)
        .unwrap()
        .into_iter()
        .collect()
}

/// As a host has it that sets the instrumentation itself: no probe.
fn connect_without_probe() -> SqliteConnection {
    let mut db = connect();
    db.set_instrumentation(provenance::diesel::instrumentation());
    db
}

#[test]
fn sql_query_and_batches_begin_and_end_transactions() {
    for open in [connect, connect_without_probe] {
        let evidence = clear_owners();
        let _tracker = evidence.scoped();
        let mut db = open();
        diesel::sql_query("/* note */ begin immediate")
            .execute(&mut db)
            .unwrap();
        insert(&mut db, "rolled.back@x.org").unwrap();
        diesel::sql_query("ROLLBACK").execute(&mut db).unwrap();
        db.batch_execute("SELECT 1; BEGIN; SELECT ';'").unwrap();
        insert(&mut db, "kept@x.org").unwrap();
        assert!(evidence.events().is_empty(), "nothing before the end");
        diesel::sql_query("-- done\nEND TRANSACTION").execute(&mut db).unwrap();
        insert(&mut db, "after@x.org").unwrap();
        assert_eq!(stored_for_certain(&evidence), in_table(&mut db));
        assert_eq!(in_table(&mut db).len(), 2);
    }
}

#[test]
fn named_savepoints_are_levels_and_mix_with_diesels() {
    for open in [connect, connect_without_probe] {
        let evidence = clear_owners();
        let _tracker = evidence.scoped();
        let mut db = open();
        db.transaction(|db| {
            insert(db, "1@x.org")?;
            db.batch_execute("SAVEPOINT \"A b\"")?;
            insert(db, "2.gone@x.org")?;
            diesel::sql_query("savepoint c").execute(db)?;
            insert(db, "3.gone@x.org")?;
            diesel::sql_query("RELEASE C").execute(db)?;
            db.batch_execute("ROLLBACK TRANSACTION TO SAVEPOINT [a B]")?;
            insert(db, "4@x.org")?;
            db.transaction(|db| {
                insert(db, "5.gone@x.org")?;
                Err::<(), _>(Error::RollbackTransaction)
            })
            .unwrap_err();
            db.transaction(|db| insert(db, "6@x.org"))?;
            db.batch_execute("RELEASE \"A b\"")
        })
        .unwrap();
        assert_eq!(stored_for_certain(&evidence), in_table(&mut db));
        assert_eq!(in_table(&mut db).len(), 3);
    }
}

#[test]
fn an_outermost_savepoint_is_a_transaction() {
    for open in [connect, connect_without_probe] {
        let evidence = clear_owners();
        let _tracker = evidence.scoped();
        let mut db = open();
        db.batch_execute("SAVEPOINT a").unwrap();
        insert(&mut db, "a@x.org").unwrap();
        assert!(evidence.events().is_empty());
        db.batch_execute("RELEASE a; SAVEPOINT b").unwrap();
        insert(&mut db, "b@x.org").unwrap();
        db.batch_execute("ROLLBACK").unwrap();
        assert_eq!(stored_for_certain(&evidence), in_table(&mut db));
    }
}

#[test]
fn a_trigger_has_no_transaction_in_its_body() {
    for open in [connect, connect_without_probe] {
        let evidence = clear_owners();
        let _tracker = evidence.scoped();
        let mut db = open();
        db.batch_execute("BEGIN").unwrap();
        insert(&mut db, "a@x.org").unwrap();
        db.batch_execute(
            "CREATE TRIGGER note AFTER INSERT ON users BEGIN
                 INSERT INTO notes (user_id, body) VALUES (new.id, CASE WHEN 1 THEN 'COMMIT;' ELSE 'x' END);
             END;",
        )
        .unwrap();
        insert(&mut db, "b@x.org").unwrap();
        db.batch_execute("ROLLBACK").unwrap();
        assert!(evidence.events().is_empty());
    }
}

#[test]
fn what_cannot_be_followed_is_never_certain() {
    let evidence = clear_owners();
    let _tracker = evidence.scoped();
    let mut db = connect_without_probe();
    db.batch_execute("BEGIN").unwrap();
    insert(&mut db, "a@x.org").unwrap();
    // Fails in the middle: has it committed?
    db.batch_execute("COMMIT; BEGIN; SELECT no_such_column; ROLLBACK")
        .unwrap_err();
    insert(&mut db, "b@x.org").unwrap();
    db.batch_execute("ROLLBACK").unwrap();
    insert(&mut db, "c@x.org").unwrap();
    assert_eq!(stored_for_certain(&evidence), BTreeSet::from(["c@x.org".to_owned()]));
    let doubtful: Vec<_> = evidence
        .events()
        .into_iter()
        .filter(|event| event["extras"]["certain"] == false)
        .collect();
    assert_eq!(doubtful.len(), 2);
    for event in doubtful {
        assert_eq!(event["extras"]["reason"], "transaction_not_followed");
    }
}

/// A condition that counts how often Diesel walks the query that it stands in.
#[derive(Clone, Copy, QueryId)]
struct Counted;

static WALKS: AtomicUsize = AtomicUsize::new(0);

impl diesel::expression::Expression for Counted {
    type SqlType = Bool;
}
impl<T> diesel::expression::AppearsOnTable<T> for Counted {}
impl<T> diesel::expression::SelectableExpression<T> for Counted {}
impl<G> diesel::expression::ValidGrouping<G> for Counted {
    type IsAggregate = diesel::expression::is_aggregate::Never;
}
impl QueryFragment<Sqlite> for Counted {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        WALKS.fetch_add(1, Ordering::Relaxed);
        out.push_sql("1 = 1");
        Ok(())
    }
}

#[test]
fn a_query_that_diesel_builds_is_not_written_out() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let mut plain = connect();
    plain.set_instrumentation(|_: diesel::connection::InstrumentationEvent<'_>| {});
    let mut watched = connect();
    let walks = |db: &mut SqliteConnection| {
        let mut run = || {
            let before = WALKS.load(Ordering::Relaxed);
            // With binds, and of a table without a model: `sql-fallback` writes out the others.
            let met = notes::id.gt(0);
            notes::table
                .filter(Counted)
                .filter(met)
                .select(notes::id)
                .load::<i32>(db)
                .unwrap();
            diesel::delete(notes::table.filter(Counted).filter(met))
                .execute(db)
                .unwrap();
            WALKS.load(Ordering::Relaxed) - before
        };
        run();
        run()
    };
    assert_eq!(walks(&mut watched), walks(&mut plain));
}

/// What a host may do next.
#[derive(Debug, Clone)]
enum Op {
    Insert(bool),
    InsertIgnored(u8),
    InsertReturning(u8),
    UpdateNobody,
    Fail,
    Run(&'static str, bool),
    Batch(&'static str),
    Transaction(Vec<Op>, bool),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    const CONTROL: [&str; 14] = [
        "BEGIN",
        "begin exclusive",
        "COMMIT",
        "END",
        "commit transaction",
        "ROLLBACK",
        "rollback transaction",
        "SAVEPOINT a",
        "SAVEPOINT \"B\"",
        "RELEASE a",
        "RELEASE SAVEPOINT b",
        "ROLLBACK TO a",
        "ROLLBACK TO 'b'",
        "SAVEPOINT diesel_savepoint_1",
    ];
    const BATCHES: [&str; 7] = [
        "BEGIN; SAVEPOINT a; SELECT 'COMMIT;'",
        "COMMIT; BEGIN",
        "ROLLBACK; SELECT no_such_column",
        "COMMIT; SELECT no_such_column",
        "SAVEPOINT a; SELECT no_such_column; RELEASE a",
        "END; SAVEPOINT b; -- COMMIT",
        "/* BEGIN */ ROLLBACK TO a; SAVEPOINT a",
    ];
    let leaf = prop_oneof![
        4 => any::<bool>().prop_map(Op::Insert),
        2 => (0_u8..4).prop_map(Op::InsertIgnored),
        2 => (0_u8..4).prop_map(Op::InsertReturning),
        1 => Just(Op::UpdateNobody),
        1 => Just(Op::Fail),
        8 => (proptest::sample::select(&CONTROL), any::<bool>()).prop_map(|(text, batch)| Op::Run(text, batch)),
        2 => proptest::sample::select(&BATCHES).prop_map(Op::Batch),
    ];
    let op = leaf.prop_recursive(3, 24, 6, |inner| {
        (proptest::collection::vec(inner, 0..6), any::<bool>()).prop_map(|(ops, commit)| Op::Transaction(ops, commit))
    });
    proptest::collection::vec(op, 1..20)
}

/// Does it; what fails, fails.
fn run(db: &mut SqliteConnection, op: &Op, count: &mut u32) {
    let id = 2000 + i32::try_from(*count).unwrap();
    let mut next = || {
        *count += 1;
        format!("{count}@x.org")
    };
    match op {
        Op::Insert(true) => drop(insert(db, &next())),
        Op::Insert(false) => drop(
            diesel::insert_into(users::table)
                .values(&vec![super::row(id, &next())])
                .execute(db),
        ),
        Op::InsertIgnored(n) => drop(
            diesel::insert_or_ignore_into(users::table)
                .values(&user(&format!("again.{n}@x.org")))
                .execute(db),
        ),
        Op::InsertReturning(n) => drop(
            diesel::insert_into(users::table)
                .values(&user(&format!("again.{n}@x.org")))
                .returning(users::id)
                .get_result::<i32>(db),
        ),
        Op::UpdateNobody => drop(
            diesel::update(users::table.find(-1))
                .set(super::Changes {
                    email: Some("nobody@x.org"),
                    income: None,
                })
                .execute(db),
        ),
        Op::Fail => drop(diesel::sql_query("SELECT no_such_column").execute(db)),
        Op::Run(text, false) => drop(diesel::sql_query(*text).execute(db)),
        Op::Run(text, true) | Op::Batch(text) => drop(db.batch_execute(text)),
        Op::Transaction(ops, commit) => drop(db.transaction(|db| {
            ops.iter().for_each(|op| run(db, op, count));
            if *commit {
                Ok(())
            } else {
                Err(Error::RollbackTransaction)
            }
        })),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn events_say_what_the_table_has(ops in ops(), probe in any::<bool>()) {
        let evidence = clear_owners();
        let _tracker = evidence.scoped();
        let mut db = if probe { connect() } else { connect_without_probe() };
        let mut count = 0;
        for op in &ops {
            run(&mut db, op, &mut count);
        }
        let _ = db.batch_execute("ROLLBACK");
        let table: BTreeSet<String> = {
            #[derive(QueryableByName)]
            struct Row { #[diesel(sql_type = diesel::sql_types::Text)] email: String }
            let rows: Vec<Row> = diesel::sql_query("SELECT email FROM users").load(&mut db).unwrap();
            rows.into_iter().map(|row| row.email).collect()
        };
        let certain = stored_for_certain(&evidence);
        let all = stored(&evidence);
        prop_assert!(certain.is_subset(&table), "certain {certain:?}, in the table {table:?}");
        prop_assert!(table.is_subset(&all), "in the table {table:?}, recorded {all:?}");
        // A text of several statements may fail in the middle.
        let may_stop_anywhere = format!("{ops:?}").contains("Batch");
        if probe && !may_stop_anywhere {
            prop_assert_eq!(certain, table);
            prop_assert_eq!(all.len(), count_certain(&evidence), "all of it certain");
        }
    }
}

/// SQLite takes a savepoint outside of a transaction for one, and Diesel leaves it behind when it rolls back.
#[test]
fn a_savepoint_that_was_left_behind_keeps_the_next_from_committing() {
    let evidence = clear_owners();
    let _tracker = evidence.scoped();
    let mut db = connect_without_probe();
    let _: QueryResult<()> = db.transaction(|db| {
        db.batch_execute("COMMIT")?;
        let _: QueryResult<()> = db.transaction(|_| Err(Error::RollbackTransaction));
        db.transaction(|db| insert(db, "gone@x.org"))?;
        Err(Error::RollbackTransaction)
    });
    assert!(in_table(&mut db).is_empty());
    assert!(stored_for_certain(&evidence).is_empty());
}

fn count_certain(evidence: &Evidence) -> usize {
    stored_for_certain(evidence).len()
}

#[test]
fn a_probed_connection_may_be_opened_and_dropped_in_a_transaction() {
    let evidence = clear_owners();
    let _tracker = evidence.scoped();
    let mut db = connect();
    db.batch_execute("BEGIN").unwrap();
    insert(&mut db, "dropped@x.org").unwrap();
    drop(db);
    assert!(evidence.events().is_empty(), "closing rolls back");

    let mut db = connect();
    db.batch_execute("BEGIN").unwrap();
    insert(&mut db, "unwatched@x.org").unwrap();
    db.set_instrumentation(|_: diesel::connection::InstrumentationEvent<'_>| {});
    db.batch_execute("COMMIT").unwrap();
    assert!(stored_for_certain(&evidence).is_empty());
    assert_eq!(stored(&evidence), in_table(&mut db), "it may be committed unseen");
}

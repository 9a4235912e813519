//! Ways to a connection: an enum of connections, and instrumentation of the host's beside ours.

use std::sync::atomic::{AtomicUsize, Ordering};

use diesel::connection::{Connection as _, InstrumentationEvent, SimpleConnection};
use diesel::prelude::*;
use diesel::result::Error;
use provenance_tests::postgres::Database;

use super::{SCHEMA, clear_owners, connect, insert, stored, stored_for_certain, user, users};

#[derive(diesel::MultiConnection)]
enum AnyConnection {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

fn insert_any(db: &mut AnyConnection, email: &str) -> QueryResult<usize> {
    diesel::insert_into(users::table).values(user(email)).execute(db)
}

#[test]
fn an_enum_of_connections_is_watched_like_each_of_them() {
    let evidence = clear_owners();
    let _tracker = evidence.scoped();
    let server = Database::new(
        "CREATE TABLE users (id SERIAL PRIMARY KEY, email TEXT NOT NULL UNIQUE, income DOUBLE PRECISION, type TEXT);",
    );
    let mut sqlite = AnyConnection::establish(":memory:").unwrap();
    assert!(matches!(sqlite, AnyConnection::Sqlite(_)));
    sqlite.batch_execute(SCHEMA).unwrap();
    let postgres = AnyConnection::establish(&server.url()).unwrap();
    assert!(matches!(postgres, AnyConnection::Postgres(_)));
    for (db, name) in [&mut sqlite, &mut { postgres }].into_iter().zip(["sqlite", "postgres"]) {
        insert_any(db, &format!("{name}@x.org")).unwrap();
        let done = db.transaction(|db| {
            insert_any(db, &format!("{name}.gone@x.org"))?;
            Err::<(), _>(Error::RollbackTransaction)
        });
        done.unwrap_err();
        db.transaction(|db| {
            insert_any(db, &format!("{name}.too@x.org"))?;
            // On PostgreSQL this aborts it.
            insert_any(db, &format!("{name}@x.org")).unwrap_err();
            QueryResult::Ok(())
        })
        .ok();
    }
    let expected = ["postgres@x.org", "sqlite.too@x.org", "sqlite@x.org"];
    assert_eq!(stored_for_certain(&evidence).into_iter().collect::<Vec<_>>(), expected);
    assert_eq!(stored(&evidence).len(), expected.len());
}

#[test]
fn a_hosts_instrumentation_sees_every_event_beside_ours() {
    static SEEN: AtomicUsize = AtomicUsize::new(0);
    let count = |_: InstrumentationEvent<'_>| {
        SEEN.fetch_add(1, Ordering::Relaxed);
    };
    let evidence = clear_owners();
    let _tracker = evidence.scoped();
    let events = |db: &mut SqliteConnection| {
        let before = SEEN.load(Ordering::Relaxed);
        db.transaction(|db| insert(db, "ada@x.org")).unwrap();
        SEEN.load(Ordering::Relaxed) - before
    };
    let mut alone = connect();
    alone.set_instrumentation(count);
    let mut beside = connect();
    beside.set_instrumentation(provenance::diesel::instrumentation_with(count));
    assert_eq!(events(&mut beside), events(&mut alone));
    assert_eq!(evidence.of("DATA_STORAGE").len(), 1);
    assert_eq!(
        evidence.blind_spots(),
        ["uninstrumented_connection"],
        "the one that was replaced"
    );
}

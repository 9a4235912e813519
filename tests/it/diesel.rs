//! What is committed through Diesel is recorded, and nothing else.

use std::collections::BTreeSet;

use diesel::connection::{Instrumentation, InstrumentationEvent, SimpleConnection};
use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, Pool};
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sqlite::Sqlite;
use provenance::{Scope, set_owner, tracked_model};
use provenance_tests::{Evidence, fields, tag, text};
use serde_json::Value as Json;

mod loads;
mod postgres;
mod probe;
mod returning;
mod routes;
mod shapes;
mod transactions;

diesel::table! {
    users (id) {
        id -> Integer,
        email -> Text,
        income -> Nullable<Double>,
        #[sql_name = "type"]
        type_ -> Text,
    }
}

diesel::table! {
    notes (id) {
        id -> Integer,
        user_id -> Integer,
        body -> Text,
    }
}

diesel::joinable!(notes -> users (user_id));
diesel::allow_tables_to_appear_in_same_query!(users, notes);

const SCHEMA: &str = "
    PRAGMA foreign_keys = ON;
    CREATE TABLE users (
        id INTEGER PRIMARY KEY,
        email TEXT NOT NULL UNIQUE,
        income DOUBLE,
        type TEXT NOT NULL DEFAULT 'free'
    );
    CREATE TABLE notes (
        id INTEGER PRIMARY KEY,
        user_id INTEGER NOT NULL REFERENCES users (id) DEFERRABLE INITIALLY DEFERRED,
        body TEXT NOT NULL
    );";

#[tracked_model(owner(email), purpose = "accounts")]
#[derive(Insertable, Debug, Clone)]
#[diesel(table_name = users)]
struct NewUser<'a> {
    #[tracked("contact.email")]
    email: &'a str,
    #[tracked("financial.income", description = "Monthly income")]
    income: Option<f64>,
    #[diesel(column_name = type_)]
    plan: &'a str,
}

#[tracked_model(owner(email, id as "user"))]
#[derive(Queryable, Selectable, Identifiable, AsChangeset, Insertable, PartialEq, Debug, Clone)]
#[diesel(table_name = users, check_for_backend(Sqlite))]
#[diesel(treat_none_as_null = true, treat_none_as_default_value = false)]
struct User {
    id: i32,
    #[tracked("contact.email")]
    email: String,
    #[tracked("financial.income")]
    income: Option<f64>,
    r#type_: String,
}

#[tracked_model(table = users)]
#[derive(AsChangeset, Default)]
#[diesel(table_name = users)]
struct Changes<'a> {
    #[tracked("contact.email")]
    email: Option<&'a str>,
    #[tracked("financial.income")]
    income: Option<f64>,
}

/// As `NewUser`, with Diesel's own derives.
#[derive(Insertable)]
#[diesel(table_name = users)]
struct PlainUser<'a> {
    email: &'a str,
    income: Option<f64>,
    #[diesel(column_name = type_)]
    plan: &'a str,
}

fn ada() -> NewUser<'static> {
    user("ada@example.com")
}

fn user(email: &str) -> NewUser<'_> {
    NewUser {
        email,
        income: Some(4200.0),
        plan: "free",
    }
}

fn row(id: i32, email: &str) -> User {
    User {
        id,
        email: email.into(),
        income: Some(1.5),
        type_: "free".into(),
    }
}

fn connect() -> SqliteConnection {
    let mut db = SqliteConnection::establish(":memory:").unwrap();
    db.batch_execute(SCHEMA).unwrap();
    db
}

fn insert(db: &mut SqliteConnection, email: &str) -> QueryResult<usize> {
    diesel::insert_into(users::table).values(&user(email)).execute(db)
}

/// Owners can be read: an event says whose row it was.
fn clear_owners() -> Evidence {
    Evidence::new(|config| config.owners_clear = true)
}

/// The addresses that events say are stored, certain or not.
fn stored(evidence: &Evidence) -> BTreeSet<String> {
    addresses(evidence, |_| true)
}

/// As [`stored`], of events that are certain.
fn stored_for_certain(evidence: &Evidence) -> BTreeSet<String> {
    addresses(evidence, |event| event["extras"]["certain"] == true)
}

fn addresses(evidence: &Evidence, which: impl Fn(&Json) -> bool) -> BTreeSet<String> {
    let events = evidence.of("DATA_STORAGE");
    let owners = events.iter().filter(|event| which(event)).flat_map(owners);
    owners
        .filter_map(|owner| owner.strip_prefix("email:").map(str::to_owned))
        .collect()
}

/// The owners of an event's tags, one after the other.
fn owners(event: &Json) -> Vec<String> {
    let tags = event["matched_tags"].as_array().unwrap();
    tags.iter().map(|tag| text(&tag["owner"])).collect()
}

#[test]
fn a_committed_insert_is_one_event_with_its_tags_and_their_owner() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let _scope = Scope::new("HTTP POST /signup").enter();
    let mut db = connect();
    diesel::insert_into(users::table)
        .values(ada())
        .execute(&mut db)
        .unwrap();

    let events = evidence.of("DATA_STORAGE");
    let [event] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(event["actor"], "HTTP POST /signup");
    assert_eq!(event["target"], "db:users");
    assert_eq!(event["extras"]["action"], "insert");
    assert_eq!(event["extras"]["table"], "users");
    assert_eq!(event["extras"]["certain"], true);
    assert_eq!(event["extras"]["purpose"], "accounts");
    assert!(
        text(&event["extras"]["site"]["path"]).ends_with("diesel::NewUser"),
        "{event}"
    );
    assert_eq!(fields(event), ["email", "income"]);
    let email = tag(event, "email");
    assert_eq!(email["category"], "contact.email");
    assert_eq!(email["source"], "db:users.email");
    assert!(text(&email["owner"]).starts_with("email:"));
    assert_eq!(tag(event, "income")["owner"], email["owner"]);
    assert_eq!(tag(event, "income")["description"], "Monthly income");
    assert_eq!(event["extras"]["owner"], email["owner"]);
    assert_eq!(event["payload"]["fields"]["email"]["length"], 15);
    assert!(!evidence.holds("ada@example.com"));
}

#[test]
fn every_way_to_insert_is_recorded() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let mut db = connect();
    let into = || diesel::insert_into(users::table);
    into().values(user("a@x.org")).execute(&mut db).unwrap();
    into().values(&user("b@x.org")).execute(&mut db).unwrap();
    into()
        .values(vec![row(10, "c@x.org"), row(11, "d@x.org")])
        .execute(&mut db)
        .unwrap();
    into().values(&vec![row(12, "e@x.org")]).execute(&mut db).unwrap();
    into().values(&[row(13, "f@x.org")][..]).execute(&mut db).unwrap();
    into().values([row(14, "g@x.org")]).execute(&mut db).unwrap();
    into()
        .values((&user("h@x.org"), users::id.eq(99)))
        .execute(&mut db)
        .unwrap();
    user("i@x.org").insert_into(users::table).execute(&mut db).unwrap();
    // Optional columns make SQLite insert row by row, in a transaction of Diesel's own.
    into()
        .values(&[user("j@x.org"), user("k@x.org")])
        .execute(&mut db)
        .unwrap();
    into().values(Some(user("l@x.org"))).execute(&mut db).err();

    let events = evidence.of("DATA_STORAGE");
    let emails: usize = events
        .iter()
        .map(|event| fields(event).iter().filter(|field| *field == "email").count())
        .sum();
    let rows: i64 = users::table.count().get_result(&mut db).unwrap();
    assert_eq!(emails, usize::try_from(rows).unwrap());
    assert!(events.iter().all(|event| event["extras"]["certain"] == true));
    let batch = events.iter().find(|event| fields(event).len() == 4).unwrap();
    let owners = owners(batch);
    assert_eq!(owners[0], owners[1]);
    assert_ne!(owners[0], owners[2], "each row has its own owner");
    assert_eq!(
        batch["extras"]["owner"],
        Json::Null,
        "two people: the event is nobody's alone"
    );
}

#[test]
fn none_and_columns_without_tracked_are_not_tagged() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let mut db = connect();
    let new = NewUser { income: None, ..ada() };
    diesel::insert_into(users::table).values(&new).execute(&mut db).unwrap();
    assert_eq!(fields(&evidence.of("DATA_STORAGE")[0]), ["email"]);
}

#[test]
fn updates_are_recorded_with_what_diesel_does_not_tell() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let _scope = Scope::new("job").enter();
    set_owner("user", 1);
    let mut db = connect();
    db.set_instrumentation(provenance::diesel::instrumentation());
    insert(&mut db, "ada@example.com").unwrap();
    let changes = Changes {
        email: Some("ada@example.org"),
        income: None,
    };
    diesel::update(users::table.find(1))
        .set(&changes)
        .execute(&mut db)
        .unwrap();
    diesel::update(users::table.find(1))
        .set(changes)
        .execute(&mut db)
        .unwrap();
    let saved: User = row(1, "ada@example.net").save_changes(&mut db).unwrap();
    assert_eq!(saved.email, "ada@example.net");

    let events = evidence.of("DATA_STORAGE");
    let updates: Vec<_> = events[1..].iter().map(|event| event["extras"].clone()).collect();
    assert_eq!(updates.len(), 3);
    for update in &updates {
        assert_eq!(update["action"], "update");
        assert_eq!(update["certain"], false);
        assert_eq!(update["reason"], "row_count_not_reported");
    }
    assert_eq!(fields(&events[1]), ["email"]);
    let owner = owners(&events[1])[0].clone();
    assert!(owner.starts_with("user:"), "as its WHERE says: {owner}");
    assert!(owners(&events[3])[0].starts_with("email:"));
}

#[test]
fn returning_is_certain_where_a_tracked_model_read_the_row() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let mut db = connect();
    db.set_instrumentation(provenance::diesel::instrumentation());
    let into = || diesel::insert_into(users::table);
    let loaded: User = into()
        .values(&ada())
        .returning(User::as_returning())
        .get_result(&mut db)
        .unwrap();
    let _: i32 = into()
        .values(&user("b@x.org"))
        .returning(users::id)
        .get_result(&mut db)
        .unwrap();
    let changed: User = diesel::update(&loaded)
        .set(&Changes {
            income: Some(1.0),
            ..Changes::default()
        })
        .returning(User::as_returning())
        .get_result(&mut db)
        .unwrap();
    assert_eq!(changed.income, Some(1.0));
    let duplicate: QueryResult<User> = into()
        .values(&ada())
        .returning(User::as_returning())
        .get_result(&mut db);
    assert!(matches!(
        duplicate,
        Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _))
    ));
    diesel::insert_or_ignore_into(users::table)
        .values(&ada())
        .execute(&mut db)
        .unwrap();
    into()
        .values(&row(1, "z@x.org"))
        .on_conflict(users::id)
        .do_update()
        .set(&row(1, "z@x.org"))
        .execute(&mut db)
        .unwrap();

    let certain: Vec<_> = evidence
        .of("DATA_STORAGE")
        .iter()
        .map(|event| {
            let extras = &event["extras"];
            (text(&extras["action"]), text(&extras["reason"]))
        })
        .collect();
    let expected = [
        ("insert", ""),
        ("insert", "returning_not_confirmed"),
        ("update", ""),
        ("insert", "returning_not_confirmed"),
        ("insert", "on_conflict"),
        ("insert-or-update", "on_conflict"),
    ];
    assert_eq!(
        certain,
        expected.map(|(action, reason)| (action.to_owned(), reason.to_owned()))
    );
}

#[test]
fn what_failed_or_never_ran_leaves_nothing() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let mut db = connect();
    insert(&mut db, "ada@example.com").unwrap();
    insert(&mut db, "ada@example.com").unwrap_err();
    let query = diesel::insert_into(users::table).values(user("never@x.org"));
    let _ = diesel::debug_query::<Sqlite, _>(&query).to_string();
    drop(query);
    diesel::sql_query("no such statement").execute(&mut db).unwrap_err();
    diesel::update(users::table)
        .set(Changes::default())
        .execute(&mut db)
        .unwrap_err();
    insert(&mut db, "bob@example.com").unwrap();
    assert_eq!(evidence.of("DATA_STORAGE").len(), 2);
    assert!(evidence.blind_spots().is_empty());
}

#[test]
fn transactions_and_savepoints_decide() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let mut db = connect();
    let rolled_back = db.transaction(|db| {
        insert(db, "rolled.back@x.org")?;
        Err::<(), _>(Error::RollbackTransaction)
    });
    rolled_back.unwrap_err();
    assert!(evidence.of("DATA_STORAGE").is_empty());

    db.transaction(|db| {
        insert(db, "outer@x.org")?;
        let inner = db.transaction(|db| {
            insert(db, "inner.gone@x.org")?;
            db.transaction(|db| insert(db, "deep.gone@x.org"))?;
            Err::<(), _>(Error::RollbackTransaction)
        });
        inner.unwrap_err();
        db.transaction(|db| insert(db, "released@x.org"))?;
        assert!(evidence.of("DATA_STORAGE").is_empty(), "nothing before COMMIT");
        QueryResult::Ok(())
    })
    .unwrap();
    db.immediate_transaction(|db| insert(db, "immediate@x.org")).unwrap();
    db.test_transaction::<_, Error, _>(|db| {
        insert(db, "test@x.org")?;
        db.transaction(|db| insert(db, "test.inner@x.org"))
    });
    insert(&mut db, "after@x.org").unwrap();

    let recorded: Vec<_> = evidence
        .of("DATA_STORAGE")
        .iter()
        .map(|event| owners(event)[0].clone())
        .collect();
    let stored: Vec<String> = users::table
        .select(users::email)
        .order(users::id)
        .load(&mut db)
        .unwrap();
    assert_eq!(
        stored,
        ["outer@x.org", "released@x.org", "immediate@x.org", "after@x.org"]
    );
    assert_eq!(recorded.len(), stored.len());
}

#[test]
fn a_failed_commit_confirms_nothing() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let mut db = connect();
    let failed = db.transaction(|db| {
        insert(db, "ada@example.com")?;
        diesel::insert_into(notes::table)
            .values((notes::user_id.eq(404), notes::body.eq("dangling")))
            .execute(db)
    });
    assert!(matches!(
        failed,
        Err(Error::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, _))
    ));
    insert(&mut db, "bob@example.com").unwrap();
    let rows: i64 = users::table.count().get_result(&mut db).unwrap();
    assert_eq!((rows, evidence.of("DATA_STORAGE").len()), (1, 1));
}

#[test]
fn a_panic_in_a_transaction_confirms_nothing() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let mut db = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    db.batch_execute(SCHEMA).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        db.transaction(|db| {
            insert(db, "ada@example.com")?;
            panic_on_purpose()
        })
    }));
    panicked.unwrap_err();
    drop(db);
    let mut db = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    insert(&mut db, "bob@example.com").unwrap();
    let rows: i64 = users::table.count().get_result(&mut db).unwrap();
    assert_eq!((rows, evidence.of("DATA_STORAGE").len()), (1, 1));
}

fn panic_on_purpose() -> QueryResult<()> {
    panic!("on purpose")
}

#[test]
fn transactions_in_a_batchs_text_decide_too() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let mut db = connect();
    db.batch_execute("begin immediate;").unwrap();
    insert(&mut db, "ada@example.com").unwrap();
    db.batch_execute("ROLLBACK").unwrap();
    db.batch_execute("BEGIN").unwrap();
    insert(&mut db, "bob@example.com").unwrap();
    assert!(evidence.of("DATA_STORAGE").is_empty());
    db.batch_execute("COMMIT;\n").unwrap();
    assert_eq!(evidence.of("DATA_STORAGE").len(), 1);
    db.batch_execute("COMMIT").unwrap_err();
    insert(&mut db, "carol@example.com").unwrap();
    assert_eq!(evidence.of("DATA_STORAGE").len(), 2);
}

#[test]
fn pooled_connections_on_many_threads_keep_their_writes_apart() {
    let evidence = Evidence::default();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let pool = {
        let _tracker = evidence.scoped();
        let pool = Pool::builder()
            .max_size(4)
            .build(ConnectionManager::<SqliteConnection>::new(path.to_str().unwrap()))
            .unwrap();
        pool.get()
            .unwrap()
            .batch_execute(&format!("PRAGMA journal_mode = WAL; {SCHEMA}"))
            .unwrap();
        pool
    };
    std::thread::scope(|threads| {
        for thread in 0..4 {
            let (pool, evidence) = (&pool, &evidence);
            threads.spawn(move || {
                let _tracker = evidence.scoped();
                for n in 0..25 {
                    let mut db = pool.get().unwrap();
                    db.batch_execute("PRAGMA busy_timeout = 30000").unwrap();
                    let email = format!("{thread}.{n}@x.org");
                    let done = db.immediate_transaction(|db| {
                        diesel::insert_into(users::table).values(&user(&email)).execute(db)?;
                        match n % 2 {
                            0 => Ok(()),
                            _ => Err(Error::RollbackTransaction),
                        }
                    });
                    assert_eq!(done.is_ok(), n % 2 == 0);
                }
            });
        }
    });
    let events = evidence.of("DATA_STORAGE");
    assert_eq!(events.len(), 4 * 13);
    let mut owners: Vec<_> = events.iter().map(|event| owners(event)[0].clone()).collect();
    owners.sort();
    owners.dedup();
    assert_eq!(owners.len(), 4 * 13);
}

#[test]
fn a_load_makes_values_and_people_known_without_an_event() {
    let evidence = Evidence::default();
    let mut db = {
        let _installed = evidence.scoped();
        connect()
    };
    let plain = PlainUser {
        email: "ada@example.com",
        income: Some(4200.0),
        plan: "free",
    };
    diesel::insert_into(users::table)
        .values(&plain)
        .execute(&mut db)
        .unwrap();
    let _tracker = evidence.scoped();
    let users: Vec<User> = users::table.select(User::as_select()).load(&mut db).unwrap();
    assert_eq!(users[0].email, "ada@example.com");
    let pairs: Vec<(User, Option<String>)> = users::table
        .left_join(notes::table)
        .select((User::as_select(), notes::body.nullable()))
        .load(&mut db)
        .unwrap();
    assert_eq!(pairs.len(), 1);
    assert!(evidence.events().is_empty());
    assert_eq!(evidence.tracker.status()["registry_size"], 2);

    // The model says that user 1 is ada: a share in user 1's request is about her.
    let _scope = Scope::new("job").enter();
    set_owner("user", 1);
    let changes = Changes {
        income: Some(4200.0),
        ..Changes::default()
    };
    diesel::update(users::table.find(1))
        .set(&changes)
        .execute(&mut db)
        .unwrap();
    let event = &evidence.of("DATA_STORAGE")[0];
    assert_eq!(tag(event, "income")["source"], "db:users.income");
}

#[test]
fn the_sql_is_byte_for_byte_that_of_diesels_own_derive() {
    let tracked = diesel::insert_into(users::table).values(ada());
    let plain = diesel::insert_into(users::table).values(PlainUser {
        email: "ada@example.com",
        income: Some(4200.0),
        plan: "free",
    });
    assert_eq!(
        diesel::debug_query::<Sqlite, _>(&tracked).to_string(),
        diesel::debug_query::<Sqlite, _>(&plain).to_string()
    );
    let update = diesel::update(users::table.find(1)).set(Changes {
        email: Some("a@x.org"),
        income: None,
    });
    assert_eq!(
        diesel::debug_query::<Sqlite, _>(&update).to_string(),
        "UPDATE `users` SET `email` = ? WHERE (`users`.`id` = ?) -- binds: [\"a@x.org\", 1]"
    );
}

#[test]
fn prepared_statements_are_cached_as_without_us() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static CACHED: AtomicUsize = AtomicUsize::new(0);
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let mut db = connect();
    db.set_instrumentation(provenance::diesel::instrumentation_with(
        |event: InstrumentationEvent<'_>| {
            if let InstrumentationEvent::CacheQuery { .. } = event {
                CACHED.fetch_add(1, Ordering::Relaxed);
            }
        },
    ));
    for id in 1..4 {
        diesel::insert_into(users::table)
            .values(&row(id, &format!("{id}@x.org")))
            .execute(&mut db)
            .unwrap();
    }
    assert_eq!(CACHED.load(Ordering::Relaxed), 1);
    assert_eq!(
        evidence.of("DATA_STORAGE").len(),
        3,
        "and the chained instrumentation records"
    );
}

#[test]
fn a_connection_that_does_not_report_is_a_blind_spot() {
    struct Nothing;
    impl Instrumentation for Nothing {
        fn on_connection_event(&mut self, _: InstrumentationEvent<'_>) {}
    }
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let mut db = connect();
    db.set_instrumentation(Nothing);
    insert(&mut db, "ada@example.com").unwrap();
    assert!(evidence.of("DATA_STORAGE").is_empty());
    assert_eq!(evidence.blind_spots(), ["uninstrumented_connection"]);

    // Also while another connection, which does report, is in the middle of a query.
    let mut watched = connect();
    insert(&mut watched, "bob@example.com").unwrap();
    for found in users::table.load_iter::<User, _>(&mut watched).unwrap() {
        found.unwrap();
        insert(&mut db, "carol@example.com").unwrap();
    }
    assert_eq!(evidence.of("DATA_STORAGE").len(), 1);

    db.set_instrumentation(provenance::diesel::instrumentation());
    insert(&mut db, "dan@example.com").unwrap();
    assert_eq!(evidence.of("DATA_STORAGE").len(), 2);
}

#[test]
fn without_a_tracker_it_is_plain_diesel() {
    let mut db = connect();
    insert(&mut db, "ada@example.com").unwrap();
    let found: User = users::table.first(&mut db).unwrap();
    assert_eq!((found.email.as_str(), found.income), ("ada@example.com", Some(4200.0)));
    let saved: User = row(1, "new@x.org").save_changes(&mut db).unwrap();
    assert_eq!(saved, row(1, "new@x.org"));

    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    evidence.tracker.close();
    insert(&mut db, "bob@example.com").unwrap();
}

/// Needs a process in which the host came first.
#[test]
fn a_hosts_default_instrumentation_is_kept() {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "diesel::child_with_a_default_instrumentation", "--ignored"])
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"));
}

#[test]
#[ignore = "run by a_hosts_default_instrumentation_is_kept"]
fn child_with_a_default_instrumentation() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static SEEN: AtomicUsize = AtomicUsize::new(0);
    diesel::connection::set_default_instrumentation(|| {
        Some(Box::new(|event: InstrumentationEvent<'_>| {
            if let InstrumentationEvent::FinishQuery { .. } = event {
                SEEN.fetch_add(1, Ordering::Relaxed);
            }
        }))
    })
    .unwrap();
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let mut first = connect();
    let mut second = connect();
    let before = SEEN.load(Ordering::Relaxed);
    insert(&mut first, "ada@example.com").unwrap();
    insert(&mut second, "ada@example.com").unwrap();
    assert_eq!(SEEN.load(Ordering::Relaxed) - before, 2);
    assert_eq!(evidence.of("DATA_STORAGE").len(), 2);
}

#[test]
fn a_row_that_was_forgotten_is_known_again_once_it_is_read_again() {
    let evidence = Evidence::new(|config| config.max_values = 4);
    let _scoped = evidence.scoped();
    let mut db = connect();
    for n in 0..10 {
        let row = row(n, &format!("ada{n}@example.com"));
        let (email, plan) = (row.email.as_str(), "free");
        let income = Some(1000.5 + f64::from(n));
        let plain = PlainUser { email, income, plan };
        diesel::insert_into(users::table)
            .values(&plain)
            .execute(&mut db)
            .unwrap();
    }
    let mut found = |id: i32| {
        let user: User = users::table.find(id).select(User::as_select()).first(&mut db).unwrap();
        provenance::share("letters")
            .payload(&user.email)
            .begin()
            .unwrap()
            .sent();
        !fields(evidence.of("DATA_SHARE").last().unwrap()).is_empty()
    };
    for id in (1..=10).chain(1..=10).chain([10, 10, 1, 1]) {
        assert!(found(id), "{id}");
    }
}

#[test]
fn an_update_is_of_the_one_that_its_where_names() {
    let evidence = Evidence::new(|config| config.owners_clear = true);
    let _tracker = evidence.scoped();
    let _scope = Scope::new("job").enter();
    set_owner("user", 99);
    let mut db = connect();
    for email in ["ada@x.org", "alan@x.org"] {
        insert(&mut db, email).unwrap();
    }
    let changes = |income| Changes {
        email: None,
        income: Some(income),
    };
    diesel::update(users::table.find(2))
        .set(&changes(1.0))
        .execute(&mut db)
        .unwrap();
    diesel::update(users::table.filter(users::email.eq("ada@x.org")))
        .set(&changes(2.0))
        .execute(&mut db)
        .unwrap();
    // Several rows, or nobody in particular.
    diesel::update(users::table.filter(users::id.gt(0)))
        .set(&changes(3.0))
        .execute(&mut db)
        .unwrap();
    diesel::update(users::table.filter(users::id.eq(1).or(users::id.eq(2))))
        .set(&changes(4.0))
        .execute(&mut db)
        .unwrap();
    let events = evidence.of("DATA_STORAGE");
    let owners: Vec<_> = events[2..].iter().map(|event| owners(event)[0].clone()).collect();
    assert_eq!(owners, ["user:2", "email:ada@x.org", "user:99", "user:99"]);
}

//! Writes that go around a model are recorded all the same, and nothing twice.

use std::collections::BTreeMap;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Integer, Text};
use provenance::config::{InputField, TrackedModel};
use provenance::{Scope, set_owner, tracked_model};
use provenance_tests::postgres::Database;
use provenance_tests::{Evidence, fields, tag, text};
use serde_json::Value as Json;

diesel::table! {
    people (id) {
        id -> Integer,
        email -> Text,
        phone -> Nullable<Text>,
        plan -> Nullable<Text>,
    }
}

diesel::table! {
    guests (id) {
        id -> Integer,
        name -> Text,
        host_id -> Integer,
    }
}

diesel::table! {
    untracked (id) {
        id -> Integer,
        email -> Text,
    }
}

const SCHEMA: &str = "
    CREATE TABLE people (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, phone TEXT, plan TEXT);
    CREATE TABLE guests (id INTEGER PRIMARY KEY, name TEXT NOT NULL, host_id INTEGER NOT NULL);
    CREATE TABLE untracked (id INTEGER PRIMARY KEY, email TEXT NOT NULL);
    INSERT INTO untracked VALUES (1, 'nobody@x.org');";

#[tracked_model(owner(email))]
#[derive(Insertable)]
#[diesel(table_name = people)]
struct NewPerson<'a> {
    #[tracked("contact.email")]
    email: &'a str,
    #[tracked("contact.phone_number")]
    phone: Option<&'a str>,
}

#[tracked_model(owner(email, id as "user"))]
#[derive(Queryable, Selectable, AsChangeset)]
#[diesel(table_name = people)]
struct Person {
    id: i32,
    #[tracked("contact.email")]
    email: String,
    #[tracked("contact.phone_number")]
    phone: Option<String>,
}

/// The same table, without the attribute.
#[derive(Insertable, AsChangeset)]
#[diesel(table_name = people)]
struct Plain<'a> {
    email: &'a str,
    phone: &'a str,
}

fn connect() -> SqliteConnection {
    let mut db = SqliteConnection::establish(":memory:").unwrap();
    db.batch_execute(SCHEMA).unwrap();
    db
}

fn evidence() -> Evidence {
    Evidence::new(|config| {
        let name = InputField {
            category: "name".into(),
            description: "Guest".into(),
            pii: true,
            kind: None,
            secret: None,
            owner: Some("host_id".into()),
        };
        let fields = BTreeMap::from([("name".to_owned(), name)]);
        config.tracked_models = [("Guest".to_owned(), TrackedModel { fields })].into();
    })
}

/// Action, table, fields and certainty of each event.
fn said(events: &[Json]) -> Vec<String> {
    let one = |event: &Json| {
        let extras = &event["extras"];
        let fields = fields(event).join(" ");
        let certain = if extras["certain"] == true { "" } else { "?" };
        format!(
            "{}{certain} {}: {fields}",
            text(&extras["action"]),
            text(&extras["table"])
        )
    };
    events.iter().map(one).collect()
}

fn owner(event: &Json) -> String {
    text(&event["extras"]["owner"])
}

fn bypassed(evidence: &Evidence) -> Vec<(String, u64)> {
    let status = Json::Object(evidence.tracker.status());
    let spots = status["blind_spots"].as_array().unwrap().iter();
    spots
        .filter(|spot| spot["kind"] == "bypassed_model")
        .map(|spot| (text(&spot["site"]), spot["count"].as_u64().unwrap()))
        .collect()
}

fn reads(evidence: &Evidence) -> Json {
    evidence.tracker.status()["reads_without_model"].clone()
}

/// A write around the model, and what is to be said of it.
type Case = (fn(&mut SqliteConnection) -> QueryResult<usize>, &'static str);

#[test]
fn every_way_around_the_model_is_recorded() {
    let cases: [Case; 12] = [
        (
            |db| {
                let row = (people::email.eq("one@x.org"), people::phone.eq("+15550100001"));
                diesel::insert_into(people::table).values(row).execute(db)
            },
            "insert people: email phone",
        ),
        (
            |db| {
                let row = Plain {
                    email: "two@x.org",
                    phone: "+15550100002",
                };
                diesel::insert_into(people::table).values(row).execute(db)
            },
            "insert people: email phone",
        ),
        (
            |db| {
                let rows = vec![people::email.eq("three@x.org"), people::email.eq("four@x.org")];
                diesel::insert_into(people::table).values(rows).execute(db)
            },
            "insert people: email email",
        ),
        (
            |db| {
                diesel::update(people::table.find(1))
                    .set(people::email.eq("five@x.org"))
                    .execute(db)
            },
            "update people: email",
        ),
        (
            |db| {
                let changes = Plain {
                    email: "six@x.org",
                    phone: "+15550100006",
                };
                diesel::update(people::table.filter(people::email.eq("two@x.org")))
                    .set(changes)
                    .execute(db)
            },
            "update people: email phone",
        ),
        (
            |db| {
                sql_query("insert into People (Email, plan) values (?2, ?1)")
                    .bind::<Text, _>("free")
                    .bind::<Text, _>("seven -- binds: [@x.org")
                    .execute(db)
            },
            "insert people: email",
        ),
        (
            |db| {
                db.batch_execute("INSERT INTO people (id, email) VALUES (80, 'eight@x.org'); /* ' */ SELECT 1")
                    .map(|()| 1)
            },
            "insert people: email",
        ),
        (
            |db| sql_query("INSERT INTO people (email, plan) VALUES ('nine@x.org', ' -- binds: [\"x\"]')").execute(db),
            "insert people: email",
        ),
        (
            |db| {
                diesel::insert_into(people::table)
                    .values(people::email.eq("nine@x.org"))
                    .on_conflict(people::email)
                    .do_update()
                    .set(people::phone.eq("+15550100009"))
                    .execute(db)
            },
            "insert-or-update? people: email phone",
        ),
        (
            |db| {
                sql_query("WITH x AS (SELECT 1) INSERT INTO main.people (email) VALUES ($1)")
                    .bind::<Text, _>("ten@x.org")
                    .execute(db)
            },
            "insert people: email",
        ),
        (
            |db| {
                diesel::insert_into(guests::table)
                    .values((guests::name.eq("Ada"), guests::host_id.eq(7)))
                    .execute(db)
            },
            "insert guests: name",
        ),
        (
            |db| {
                diesel::update(people::table)
                    .set(people::phone.eq(None::<String>))
                    .execute(db)
            },
            "",
        ),
    ];
    let evidence = evidence();
    let _tracker = evidence.scoped();
    let mut db = connect();
    for (index, (write, expected)) in cases.into_iter().enumerate() {
        let before = evidence.of("DATA_STORAGE").len();
        assert!(write(&mut db).unwrap() > 0, "{index}");
        let events = evidence.of("DATA_STORAGE");
        assert_eq!(said(&events[before..]).join("; "), expected, "{index}");
    }
    let events = evidence.of("DATA_STORAGE");
    assert_eq!(events[0]["extras"]["seen"], "sql");
    assert_eq!(events[0]["extras"]["model"], Json::Null);
    assert_eq!(tag(&events[0], "email")["category"], "contact.email");
    assert_eq!(tag(&events[0], "email")["source"], "db:people.email");
    assert!(bypassed(&evidence).is_empty());
    for raw in ["one@x.org", "eight@x.org", "seven --", "15550100006"] {
        assert!(!evidence.holds(raw), "{raw}");
    }
}

#[test]
fn the_owner_is_in_the_statement_or_the_requests() {
    let evidence = evidence();
    let _tracker = evidence.scoped();
    let _scope = Scope::new("HTTP POST /people").enter();
    set_owner("user", 99);
    let mut db = connect();
    let person = NewPerson {
        email: "ada@x.org",
        phone: None,
    };
    diesel::insert_into(people::table)
        .values(&person)
        .execute(&mut db)
        .unwrap();
    let phone = || people::phone.eq("+15550100001");
    diesel::update(people::table.filter(people::email.eq("ada@x.org")))
        .set(phone())
        .execute(&mut db)
        .unwrap();
    diesel::update(people::table.find(1))
        .set(phone())
        .execute(&mut db)
        .unwrap();
    diesel::update(people::table).set(phone()).execute(&mut db).unwrap();
    let guest = (guests::name.eq("Alan"), guests::host_id.eq(99));
    diesel::insert_into(guests::table)
        .values(guest)
        .execute(&mut db)
        .unwrap();
    diesel::update(people::table.find(1))
        .set(people::email.eq("new@x.org"))
        .execute(&mut db)
        .unwrap();

    let events = evidence.of("DATA_STORAGE");
    let owners: Vec<String> = events.iter().map(owner).collect();
    assert!(owners[0].starts_with("email:"));
    assert_eq!(owners[1], owners[0], "by the address in the WHERE");
    assert!(owners[2].starts_with("user:") && owners[2] != owners[3], "by the id");
    assert!(owners[3].starts_with("user:"), "the request's");
    assert!(owners[4].starts_with("host:"), "as the config says");
    assert_eq!(owners[5], owners[2], "the row's, not the new address's");
    assert!(events.iter().all(|event| event["actor"] == "HTTP POST /people"));
}

#[test]
fn what_a_model_writes_is_recorded_once() {
    let evidence = evidence();
    let _tracker = evidence.scoped();
    let mut db = connect();
    let person = |email| NewPerson {
        email,
        phone: Some("+15550100001"),
    };
    let into = || diesel::insert_into(people::table);
    for _ in 0..2 {
        let row = person("ada@x.org");
        into().values(&row).execute(&mut db).ok();
    }
    into()
        .values(vec![person("b@x.org"), person("c@x.org")])
        .execute(&mut db)
        .unwrap();
    into()
        .values(NewPerson {
            email: "d@x.org",
            phone: None,
        })
        .execute(&mut db)
        .unwrap();
    into()
        .values((person("e@x.org"), people::plan.eq("free")))
        .execute(&mut db)
        .unwrap();
    let changes = Person {
        id: 1,
        email: "f@x.org".into(),
        phone: None,
    };
    diesel::update(people::table.find(1))
        .set(&changes)
        .execute(&mut db)
        .unwrap();
    // One column by the model, one around it: one event.
    #[tracked_model(owner(email))]
    #[derive(Insertable)]
    #[diesel(table_name = people)]
    struct Address<'a> {
        #[tracked("contact.email")]
        email: &'a str,
    }
    into()
        .values((Address { email: "g@x.org" }, people::phone.eq("+15550100007")))
        .execute(&mut db)
        .unwrap();

    let events = evidence.of("DATA_STORAGE");
    let said = said(&events);
    let emails = said.iter().map(|said| said.matches("email").count()).sum::<usize>();
    assert_eq!(emails, 7, "{said:?}");
    assert_eq!(said.last().unwrap(), "insert people: email phone");
    let last = events.last().unwrap();
    assert_eq!(tag(last, "phone")["owner"], tag(last, "email")["owner"]);
    assert!(events.iter().all(|event| event["extras"]["model"] != Json::Null));
    assert!(bypassed(&evidence).is_empty());
}

#[test]
fn removed_rows_are_recorded() {
    let evidence = evidence();
    let _tracker = evidence.scoped();
    let mut db = connect();
    for id in 1..=5 {
        let row = (people::id.eq(id), people::email.eq(format!("p{id}@x.org")));
        diesel::insert_into(people::table).values(row).execute(&mut db).unwrap();
    }
    let before = evidence.of("DATA_STORAGE").len();
    diesel::delete(people::table.find(1)).execute(&mut db).unwrap();
    diesel::delete(people::table.filter(people::email.eq("p2@x.org")))
        .execute(&mut db)
        .unwrap();
    diesel::delete(people::table.filter(people::email.eq_any(["p3@x.org", "p4@x.org"])))
        .execute(&mut db)
        .unwrap();
    diesel::delete(people::table.find(77)).execute(&mut db).unwrap();
    sql_query("DELETE FROM people").execute(&mut db).unwrap();
    sql_query("DELETE FROM untracked").execute(&mut db).unwrap();

    let events = &evidence.of("DATA_STORAGE")[before..];
    assert_eq!(
        said(events),
        [
            "delete people: ",
            "delete people: email",
            "delete people: email email",
            "delete people: "
        ]
    );
    assert!(owner(&events[0]).starts_with("user:"));
    assert!(owner(&events[1]).starts_with("email:"));
    assert_eq!(owner(&events[3]), "");
}

#[test]
fn only_what_was_committed_is_recorded() {
    let evidence = evidence();
    let _tracker = evidence.scoped();
    let mut db = connect();
    let insert = |db: &mut SqliteConnection, email: &str| {
        diesel::insert_into(people::table)
            .values(people::email.eq(email.to_owned()))
            .execute(db)
    };
    insert(&mut db, "kept@x.org").unwrap();
    insert(&mut db, "kept@x.org").unwrap_err();
    let gone = db.transaction(|db| {
        insert(db, "gone@x.org")?;
        diesel::delete(people::table).execute(db)?;
        Err::<(), _>(diesel::result::Error::RollbackTransaction)
    });
    gone.unwrap_err();
    diesel::update(people::table.find(404))
        .set(people::email.eq("none@x.org"))
        .execute(&mut db)
        .unwrap();
    diesel::insert_or_ignore_into(people::table)
        .values(people::email.eq("kept@x.org"))
        .execute(&mut db)
        .unwrap();
    db.transaction(|db| {
        insert(db, "outer@x.org")?;
        let inner = db.transaction(|db| {
            insert(db, "inner@x.org")?;
            Err::<(), _>(diesel::result::Error::RollbackTransaction)
        });
        inner.unwrap_err();
        assert_eq!(evidence.of("DATA_STORAGE").len(), 1, "nothing before COMMIT");
        QueryResult::Ok(())
    })
    .unwrap();
    assert_eq!(
        said(&evidence.of("DATA_STORAGE")),
        ["insert people: email", "insert people: email"]
    );
}

#[test]
fn what_the_text_does_not_tell_is_counted() {
    let evidence = evidence();
    let _tracker = evidence.scoped();
    let mut db = connect();
    let mut sql = |text: &str| db.batch_execute(text).unwrap();
    sql("INSERT INTO people VALUES (1, 'a@x.org', NULL, NULL)");
    sql("UPDATE people SET email = lower('B@x.org')");
    sql("INSERT INTO people (email) SELECT email || id FROM untracked");
    sql("BEGIN; UPDATE people SET email = 'c@x.org' WHERE id = 1; ROLLBACK");
    sql("INSERT INTO untracked VALUES (2, 'd@x.org')");
    sql("UPDATE people SET plan = lower('FREE')");
    assert_eq!(bypassed(&evidence), [("people".to_owned(), 4)]);
    assert!(evidence.of("DATA_STORAGE").is_empty());
}

#[test]
fn reads_without_a_model_are_counted() {
    let evidence = evidence();
    let _tracker = evidence.scoped();
    let mut db = connect();
    let row = NewPerson {
        email: "ada@x.org",
        phone: None,
    };
    diesel::insert_into(people::table).values(row).execute(&mut db).unwrap();
    for _ in 0..3 {
        let _: Vec<String> = people::table
            .filter(people::id.gt(0))
            .select(people::email)
            .load(&mut db)
            .unwrap();
    }
    let _: Vec<Person> = people::table.select(Person::as_select()).load(&mut db).unwrap();
    let _: i64 = people::table.count().get_result(&mut db).unwrap();
    let _: Vec<i32> = people::table
        .filter(people::email.ne("x"))
        .select(people::id)
        .load(&mut db)
        .unwrap();
    let _: Vec<String> = untracked::table.select(untracked::email).load(&mut db).unwrap();
    assert_eq!(reads(&evidence), serde_json::json!({"people": 3}));
}

/// One type of query, many texts: each is read for itself.
#[test]
fn a_type_of_query_may_have_many_texts() {
    let evidence = evidence();
    let _tracker = evidence.scoped();
    let mut db = connect();
    for _ in 0..3 {
        let count = sql_query("SELECT id FROM untracked WHERE email = ?")
            .bind::<Text, _>("a@x.org")
            .execute(&mut db);
        count.unwrap();
    }
    let boxed = |email: Option<&'static str>| {
        let query = diesel::update(people::table)
            .set(people::email.eq("b@x.org"))
            .into_boxed();
        match email {
            Some(email) => query.filter(people::email.eq(email)),
            None => query.filter(people::id.eq(1)),
        }
    };
    sql_query("INSERT INTO people (email) VALUES (?)")
        .bind::<Text, _>("a@x.org")
        .execute(&mut db)
        .unwrap();
    for email in [None, Some("b@x.org"), None, Some("b@x.org")] {
        boxed(email).execute(&mut db).unwrap();
    }
    let events = evidence.of("DATA_STORAGE");
    assert_eq!(said(&events)[0], "insert people: email");
    assert_eq!(events.len(), 5);
}

#[test]
fn a_query_that_diesel_knows_by_its_type_keeps_its_values_apart() {
    let evidence = evidence();
    let _tracker = evidence.scoped();
    let mut db = connect();
    for round in 0..3 {
        for id in 0..5 {
            let row = (
                people::id.eq(round * 10 + id),
                people::email.eq(format!("p{round}-{id}@x.org")),
            );
            diesel::insert_into(people::table).values(row).execute(&mut db).unwrap();
        }
    }
    let events = evidence.of("DATA_STORAGE");
    let prints: std::collections::HashSet<String> = events
        .iter()
        .map(|event| text(&tag(event, "email")["fingerprint"]))
        .collect();
    assert_eq!((events.len(), prints.len()), (15, 15));
}

mod wrapper {
    //! diesel-async's wrapper of a synchronous connection collects binds ahead of the statement.

    use std::error::Error;
    use std::future::{Future, ready};
    use std::pin::Pin;

    use diesel_async::sync_connection_wrapper::{SpawnBlocking, SyncConnectionWrapper};
    use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};

    use super::*;

    /// On this thread, where the test's tracker is.
    struct Here;

    impl SpawnBlocking for Here {
        fn spawn_blocking<'a, R>(
            &mut self,
            task: impl FnOnce() -> R + Send + 'static,
        ) -> Pin<Box<dyn Future<Output = Result<R, Box<dyn Error + Send + Sync>>> + Send + 'a>>
        where
            R: Send + 'static,
        {
            Box::pin(ready(Ok(task())))
        }

        fn get_runtime() -> Self {
            Here
        }
    }

    type Db = diesel_async::sync_connection_wrapper::SyncConnectionWrapper<SqliteConnection, Here>;

    #[tokio::test(flavor = "current_thread")]
    async fn writes_are_read_from_the_text() {
        let evidence = evidence();
        let _tracker = evidence.scoped();
        let mut db: Db = SyncConnectionWrapper::establish(":memory:").await.unwrap();
        db.batch_execute(SCHEMA).await.unwrap();
        // The first texts of a type that stands for all: cached by Diesel, and not tracked.
        for id in 0..3 {
            let _: Vec<i32> = untracked::table
                .select(untracked::id)
                .filter(untracked::id.eq(id))
                .load(&mut db)
                .await
                .unwrap();
        }
        let _: Vec<i32> = untracked::table.select(untracked::id).load(&mut db).await.unwrap();
        let person = NewPerson {
            email: "ada@x.org",
            phone: Some("+15550100001"),
        };
        diesel::insert_into(people::table)
            .values(&person)
            .execute(&mut db)
            .await
            .unwrap();
        sql_query("INSERT INTO people (email) VALUES (?), (?)")
            .bind::<Text, _>("b@x.org")
            .bind::<Text, _>("c@x.org")
            .execute(&mut db)
            .await
            .unwrap();
        let gone = db.transaction(async |db| {
            diesel::delete(people::table.filter(people::id.eq(1)))
                .execute(db)
                .await?;
            Err::<(), _>(diesel::result::Error::RollbackTransaction)
        });
        gone.await.unwrap_err();
        sql_query("UPDATE people SET email = ? WHERE id = ?")
            .bind::<Text, _>("d@x.org")
            .bind::<Integer, _>(1)
            .execute(&mut db)
            .await
            .unwrap();
        let events = evidence.of("DATA_STORAGE");
        assert_eq!(
            said(&events),
            [
                "insert people: email phone",
                "insert people: email email",
                "update people: email"
            ]
        );
        assert!(owner(&events[0]).starts_with("email:"));
    }
}

mod postgres {
    use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl as AsyncDsl};

    use super::*;

    const SCHEMA: &str = "
        CREATE TABLE people (id SERIAL PRIMARY KEY, email TEXT NOT NULL UNIQUE, phone TEXT, plan TEXT);
        CREATE TABLE guests (id SERIAL PRIMARY KEY, name TEXT NOT NULL, host_id INTEGER NOT NULL);";

    #[test]
    fn placeholders_are_numbered() {
        let evidence = evidence();
        let _tracker = evidence.scoped();
        let database = Database::new(SCHEMA);
        let mut db = database.connect();
        use diesel::RunQueryDsl;
        for email in ["a@x.org", "b@x.org"] {
            let row = (people::email.eq(email), people::phone.eq("+15550100001"));
            RunQueryDsl::execute(diesel::insert_into(people::table).values(row), &mut db).unwrap();
        }
        let update = sql_query("UPDATE \"people\" SET phone = $2::text WHERE email = $1");
        let update = update.bind::<Text, _>("a@x.org").bind::<Text, _>("+15550100002");
        RunQueryDsl::execute(update, &mut db).unwrap();
        db.batch_execute("UPDATE people SET phone = E'+1555\\u0030100003' WHERE email = 'b@x.org'")
            .unwrap();
        RunQueryDsl::execute(
            diesel::delete(people::table.filter(people::email.eq("a@x.org"))),
            &mut db,
        )
        .unwrap();
        let returned = diesel::insert_into(people::table)
            .values(people::email.eq("c@x.org"))
            .returning(people::id);
        let _: i32 = RunQueryDsl::get_result(returned, &mut db).unwrap();
        let events = evidence.of("DATA_STORAGE");
        assert_eq!(
            said(&events),
            [
                "insert people: email phone",
                "insert people: email phone",
                "update? people: phone",
                "update? people: phone",
                "delete? people: email",
                "insert people: email",
            ]
        );
        assert_eq!(owner(&events[2]), owner(&events[0]));
        assert_eq!(events[4]["extras"]["reason"], "row_count_not_reported");
    }

    #[test]
    fn rows_that_a_model_takes_after_the_end_are_no_blind_read() {
        use diesel::RunQueryDsl;
        let evidence = evidence();
        let _tracker = evidence.scoped();
        let database = Database::new(SCHEMA);
        let mut db = database.connect();
        let row = people::email.eq("a@x.org");
        RunQueryDsl::execute(diesel::insert_into(people::table).values(row), &mut db).unwrap();
        for _ in 0..2 {
            let seen = people::table.filter(people::id.gt(0));
            let _: Vec<Person> = RunQueryDsl::load(seen.select(Person::as_select()), &mut db).unwrap();
        }
        let unseen = people::table.filter(people::id.gt(0)).select(people::email);
        for _ in 0..3 {
            let _: Vec<String> = RunQueryDsl::load(unseen, &mut db).unwrap();
        }
        drop(db);
        assert_eq!(reads(&evidence), serde_json::json!({"people": 3}));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn asynchronous_statements_are_read_as_they_begin() {
        let evidence = evidence();
        let _tracker = evidence.scoped();
        let database = Database::new(SCHEMA);
        let mut db = AsyncPgConnection::establish(&database.url()).await.unwrap();
        for email in ["a@x.org", "b@x.org"] {
            let row = (people::email.eq(email), people::phone.eq("+15550100001"));
            AsyncDsl::execute(diesel::insert_into(people::table).values(row), &mut db)
                .await
                .unwrap();
        }
        let person = NewPerson {
            email: "c@x.org",
            phone: None,
        };
        AsyncDsl::execute(diesel::insert_into(people::table).values(&person), &mut db)
            .await
            .unwrap();
        let gone = db.transaction(async |db| {
            let row = people::email.eq("gone@x.org");
            AsyncDsl::execute(diesel::insert_into(people::table).values(row), db).await?;
            Err::<(), _>(diesel::result::Error::RollbackTransaction)
        });
        gone.await.unwrap_err();
        let taken = diesel::insert_into(people::table).values(people::email.eq("a@x.org"));
        AsyncDsl::execute(taken, &mut db).await.unwrap_err();
        AsyncDsl::execute(diesel::delete(people::table.find(1)), &mut db)
            .await
            .unwrap();
        let events = evidence.of("DATA_STORAGE");
        assert_eq!(
            said(&events),
            [
                "insert people: email phone",
                "insert people: email phone",
                "insert people: email",
                "delete? people: "
            ]
        );
    }
}

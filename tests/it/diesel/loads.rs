//! What loads bring in, and the events that say who read what.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use provenance::{Scope, set_owner, tracked_model};
use provenance_tests::Evidence;
use serde_json::json;

use super::{User, connect, insert, users};

#[tracked_model(owner(email), table = users)]
#[derive(QueryableByName, Debug)]
#[diesel(table_name = users)]
struct Named {
    #[tracked("contact.email")]
    #[diesel(sql_type = Text)]
    email: String,
    #[tracked("financial.income")]
    income: Option<f64>,
    #[diesel(sql_type = BigInt, column_name = "length")]
    length: i64,
    #[diesel(embed)]
    plan: Plan,
}

#[derive(QueryableByName, Debug)]
#[diesel(table_name = users)]
struct Plan {
    #[diesel(sql_type = Text, column_name = "type")]
    name: String,
}

fn load_named(db: &mut SqliteConnection) -> Vec<Named> {
    let sql = "SELECT email, income, type, length(email) AS length FROM users ORDER BY id";
    diesel::sql_query(sql).load(db).unwrap()
}

#[test]
fn rows_read_by_name_are_known() {
    let evidence = Evidence::default();
    let mut db = connect();
    insert(&mut db, "ada@example.com").unwrap();
    let _tracker = evidence.scoped();
    let rows = load_named(&mut db);
    assert_eq!((rows[0].email.as_str(), rows[0].length), ("ada@example.com", 15));
    assert_eq!((rows[0].income, rows[0].plan.name.as_str()), (Some(4200.0), "free"));
    assert_eq!(evidence.tracker.status()["registry_size"], 2);
    assert!(evidence.events().is_empty(), "events of loads are off by default");
}

#[test]
fn what_one_thread_has_read_another_finds_in_what_it_sends() {
    const ROWS: usize = 200;
    let evidence = Evidence::default();
    let mut db = connect();
    for n in 0..ROWS {
        insert(&mut db, &format!("ada{n}@example.com")).unwrap();
    }
    let (read, sent) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let evidence = &evidence;
        scope.spawn(move || {
            let _tracker = evidence.scoped();
            // Nobody waits for what is put off of the rows before.
            for user in users::table.load_iter::<User, _>(&mut db).unwrap() {
                read.send(user.unwrap().email).unwrap();
            }
        });
        scope.spawn(move || {
            let _tracker = evidence.scoped();
            for email in sent {
                let share = provenance::share("https://api.example.com/lists").payload(email.as_bytes());
                share.begin().unwrap().sent();
            }
        });
    });
    let shares = evidence.of("DATA_SHARE");
    let missed = shares.iter().filter(|share| share["matched_tags"] == json!([])).count();
    assert_eq!((shares.len(), missed), (ROWS, 0));
}

#[test]
fn a_request_leaves_one_access_for_each_model_it_read() {
    let evidence = Evidence::new(|config| config.access_events = true);
    let _tracker = evidence.scoped();
    let mut db = connect();
    for n in 0..3 {
        insert(&mut db, &format!("{n}@x.org")).unwrap();
    }
    let scope = Scope::new("HTTP GET /users");
    let entered = scope.enter();
    set_owner("user", 7);
    for _ in 0..2 {
        let all: Vec<User> = users::table.load(&mut db).unwrap();
        assert_eq!(all.len(), 3);
    }
    load_named(&mut db);
    assert!(
        evidence.of("DATA_ACCESS").is_empty(),
        "nothing before the request's end"
    );
    drop(entered);
    let request_id = scope.request_id().to_string();
    drop(scope);

    let events = evidence.of("DATA_ACCESS");
    let [users, named] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(users["actor"], "HTTP GET /users");
    assert_eq!(users["target"], "db:users");
    assert_eq!(users["request_id"], request_id);
    assert!(provenance_tests::text(&users["user_id"]).starts_with("user:"));
    assert_eq!(users["extras"]["count"], 6);
    assert_eq!(users["extras"]["model"], "User");
    assert_eq!(
        users["extras"]["categories"],
        json!(["contact.email", "financial.income"])
    );
    assert_eq!(users["matched_tags"], json!([]));
    assert_eq!(
        (&named["extras"]["count"], &named["extras"]["model"]),
        (&json!(3), &json!("Named"))
    );
}

#[test]
fn outside_of_a_request_each_statement_leaves_its_own() {
    let evidence = Evidence::new(|config| config.access_events = true);
    let _tracker = evidence.scoped();
    let mut db = connect();
    insert(&mut db, "ada@x.org").unwrap();
    for _ in 0..2 {
        let _: Vec<User> = users::table.load(&mut db).unwrap();
    }
    let _: Vec<User> = users::table.filter(users::id.eq(404)).load(&mut db).unwrap();
    let counts: Vec<_> = evidence
        .of("DATA_ACCESS")
        .iter()
        .map(|event| event["extras"]["count"].clone())
        .collect();
    assert_eq!(counts, [json!(1), json!(1)]);
}

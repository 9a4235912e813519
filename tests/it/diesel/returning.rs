//! Rows that come back say whose the values of a model are that does not.

use diesel::pg::Pg;
use diesel::prelude::*;
use provenance::{Scope, set_owner, tracked_model};
use provenance_tests::Evidence;
use provenance_tests::postgres::Database;

use super::{Changes, User, clear_owners, connect, insert, owners, postgres, users};

/// Says nothing of whose it is.
#[tracked_model]
#[derive(Insertable)]
#[diesel(table_name = users)]
struct NewIncome<'a> {
    #[tracked("contact.email")]
    email: &'a str,
    #[tracked("financial.income")]
    income: Option<f64>,
}

/// A row of the same table, as one of PostgreSQL.
#[tracked_model(owner(id as "user"))]
#[derive(Queryable, Selectable)]
#[diesel(table_name = users, check_for_backend(Pg))]
#[allow(dead_code)]
struct Account {
    id: i32,
    #[tracked("contact.email")]
    email: String,
}

fn new(email: &str, income: f64) -> NewIncome<'_> {
    NewIncome {
        email,
        income: Some(income),
    }
}

/// The owners of each write.
fn whose(evidence: &Evidence) -> Vec<Vec<String>> {
    evidence.of("DATA_STORAGE").iter().map(owners).collect()
}

#[test]
fn a_row_that_comes_back_says_whose_its_values_are() {
    let evidence = clear_owners();
    let _tracker = evidence.scoped();
    let _scope = Scope::new("HTTP POST /import").enter();
    set_owner("user", 99);
    let mut db = connect();
    insert(&mut db, "b@x.org").unwrap();
    let into = || diesel::insert_into(users::table);
    let _: User = into()
        .values(&new("a@x.org", 1.5))
        .returning(User::as_returning())
        .get_result(&mut db)
        .unwrap();
    let raise = |from: f64| {
        let changes = Changes {
            email: None,
            income: Some(77_000.0),
        };
        diesel::update(users::table.filter(users::income.eq(from))).set(changes)
    };
    let _: User = raise(4200.0)
        .returning(User::as_returning())
        .get_result(&mut db)
        .unwrap();
    let several = [new("c@x.org", 3.5), new("d@x.org", 4.5), new("e@x.org", 3.5)];
    let _: Vec<User> = several
        .iter()
        .map(|one| into().values(one))
        .map(|one| one.returning(User::as_returning()).get_result(&mut db).unwrap())
        .collect();
    // A row that is read is none of another statement's.
    raise(1.5).execute(&mut db).unwrap();
    let _: Vec<User> = users::table.select(User::as_select()).load(&mut db).unwrap();

    let whose = whose(&evidence);
    assert_eq!(whose[1], ["email:a@x.org", "email:a@x.org"]);
    assert_eq!(whose[2], ["email:b@x.org"], "the row's, not the request's");
    assert_eq!(whose[3], ["email:c@x.org", "email:c@x.org"]);
    assert_eq!(whose[6], ["user:99"], "nothing came back");
    assert_eq!(whose.len(), 7);
}

#[test]
fn of_many_rows_each_value_goes_by_its_own() {
    let evidence = clear_owners();
    let _tracker = evidence.scoped();
    let server = Database::new(postgres::SCHEMA);
    let mut db = server.connect();
    let _: Vec<Account> = diesel::insert_into(users::table)
        .values([new("a@x.org", 1.5), new("b@x.org", 2.5)].as_slice())
        .returning(Account::as_returning())
        .get_results(&mut db)
        .unwrap();
    let outcome: QueryResult<Account> = db.transaction(|db| {
        diesel::insert_into(users::table)
            .values(&new("c@x.org", 3.5))
            .returning(Account::as_returning())
            .get_result(db)
    });
    outcome.unwrap();
    // The second row is not read.
    let _: Account = diesel::insert_into(users::table)
        .values([new("d@x.org", 4.5), new("e@x.org", 5.5)].as_slice())
        .returning(Account::as_returning())
        .get_result(&mut db)
        .unwrap();
    // Read by another statement.
    let _: Vec<Account> = users::table.select(Account::as_select()).load(&mut db).unwrap();

    let whose = whose(&evidence);
    assert_eq!(whose.len(), 3);
    // Incomes are not in the rows that came back.
    assert_eq!(whose[0][0], "user:1");
    assert_eq!(whose[0][2], "user:2");
    assert_eq!(whose[1], ["user:3", "user:3"]);
    assert_eq!(whose[2], [""; 4], "rather nobody's than the other row's");
}

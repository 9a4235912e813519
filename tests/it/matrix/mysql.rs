//! MySQL goes through the same generic hooks. Nothing here runs: it must compile, and show Diesel's own SQL.

use diesel::connection::LoadConnection;
use diesel::mysql::Mysql;
use diesel::prelude::*;

use super::models::*;

/// All that a host does with a model; never called.
#[allow(dead_code)]
fn compiles(db: &mut impl LoadConnection<Backend = Mysql>) -> QueryResult<Vec<Person>> {
    let into = || diesel::insert_into(people::table);
    into().values(person()).execute(db)?;
    into().values(&row()).execute(db)?;
    into().values(vec![row(), row()]).execute(db)?;
    into().values((&person(), people::plan.eq("paid"))).execute(db)?;
    diesel::replace_into(people::table).values(&row()).execute(db)?;
    diesel::insert_or_ignore_into(people::table)
        .values(&row())
        .execute(db)?;
    diesel::update(people::table.find(1)).set(&changes()).execute(db)?;
    diesel::update(people::table.find(1)).set(row()).execute(db)?;
    people::table.select(Person::as_select()).load(db)
}

/// The text up to the binds: with models of ours and Diesel's own.
macro_rules! assert_same {
    ($ours:expr, $plain:expr) => {
        let (ours, plain) = ($ours, $plain);
        let ours = diesel::debug_query::<Mysql, _>(&ours).to_string();
        let plain = diesel::debug_query::<Mysql, _>(&plain).to_string();
        assert_eq!(ours, plain);
    };
}

#[test]
fn the_sql_is_that_of_diesels_own_derives() {
    let NewPerson { email, income } = &person();
    let ours = || NewPerson {
        email: email.clone(),
        income: *income,
    };
    let plain = || PlainPerson {
        email: email.clone(),
        income: *income,
    };
    let into = || diesel::insert_into(people::table);
    assert_same!(into().values(ours()), into().values(plain()));
    assert_same!(
        into().values(vec![ours(), ours()]),
        into().values(vec![plain(), plain()])
    );
    let changes = Changes {
        email: Some(email.clone()),
        income: None,
    };
    let columns = (
        Some(people::email.eq(email)),
        None::<diesel::dsl::Eq<people::income, f64>>,
    );
    assert_same!(
        diesel::update(people::table.find(1)).set(changes),
        diesel::update(people::table.find(1)).set(columns)
    );
}

//! The host's side: tables, models, and values that occur once.

use std::panic::Location;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use diesel::backend::Backend;
use diesel::expression::AsExpression;
use diesel::prelude::*;
use diesel::serialize::{self, Output, ToSql};
use diesel::sql_types::Text;
use provenance::tracked_model;

diesel::table! {
    people (id) {
        id -> Integer,
        email -> Text,
        income -> Nullable<Double>,
        plan -> Text,
    }
}

diesel::table! {
    notes (id) {
        id -> Integer,
        person_id -> Integer,
    }
}

#[tracked_model(owner(email))]
#[derive(Insertable, Clone)]
#[diesel(table_name = people)]
pub(super) struct NewPerson {
    #[tracked("contact.email")]
    pub(super) email: String,
    #[tracked("financial.income")]
    pub(super) income: Option<f64>,
}

#[tracked_model(owner(email, id as "user"))]
#[derive(Insertable, Queryable, Selectable, Identifiable, AsChangeset)]
#[diesel(table_name = people, treat_none_as_default_value = false)]
pub(super) struct Person {
    pub(super) id: i32,
    #[tracked("contact.email")]
    pub(super) email: String,
    #[tracked("financial.income")]
    pub(super) income: Option<f64>,
    pub(super) plan: String,
}

#[tracked_model(table = people)]
#[derive(AsChangeset)]
#[diesel(table_name = people)]
pub(super) struct Changes {
    #[tracked("contact.email")]
    pub(super) email: Option<String>,
    #[tracked("financial.income")]
    pub(super) income: Option<f64>,
}

#[tracked_model(table = people)]
#[derive(Insertable)]
#[diesel(table_name = people)]
pub(super) struct Customer {
    #[diesel(embed)]
    pub(super) person: NewPerson,
    pub(super) plan: String,
}

/// The same columns without the attribute.
#[derive(Insertable)]
#[diesel(table_name = people)]
pub(super) struct PlainPerson {
    pub(super) email: String,
    pub(super) income: Option<f64>,
}

/// A value that no database gets.
#[derive(AsExpression, Debug)]
#[diesel(sql_type = Text)]
pub(super) struct Unbindable;

impl<DB: Backend> ToSql<Text, DB> for Unbindable {
    fn to_sql<'b>(&'b self, _: &mut Output<'b, '_, DB>) -> serialize::Result {
        Err("on purpose".into())
    }
}

static COUNT: AtomicU32 = AtomicU32::new(1);

/// An address that occurs nowhere else, and tells which line made it up.
#[track_caller]
pub(super) fn email() -> String {
    let (line, count) = (Location::caller().line(), COUNT.fetch_add(1, Ordering::Relaxed));
    let email = format!("line{line}.{count}@example.org");
    MADE_UP.lock().unwrap().push(email.clone());
    email
}

static MADE_UP: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The address with this fingerprint, for those who look for a mistake.
pub(super) fn made_up(is: impl Fn(&str) -> bool) -> Option<String> {
    MADE_UP.lock().unwrap().iter().find(|email| is(email)).cloned()
}

/// An amount that occurs nowhere else.
pub(super) fn income() -> f64 {
    f64::from(100_000 + COUNT.fetch_add(1, Ordering::Relaxed))
}

#[track_caller]
pub(super) fn person() -> NewPerson {
    NewPerson {
        email: email(),
        income: Some(income()),
    }
}

pub(super) fn changes() -> Changes {
    Changes {
        email: None,
        income: Some(income()),
    }
}

#[track_caller]
/// A whole row, its id chosen here.
pub(super) fn row() -> Person {
    Person {
        id: i32::try_from(COUNT.fetch_add(1, Ordering::Relaxed)).unwrap() + 100_000,
        email: email(),
        income: Some(income()),
        plan: "paid".into(),
    }
}

//! What is read from and written to the database.

use std::collections::BTreeMap;

use diesel::prelude::*;
use serde::Serialize;

use crate::schema::{expenses, users};

/// A sign-up, checked.
#[derive(Insertable)]
#[diesel(table_name = users)]
pub struct NewUser<'a> {
    /// Lower case, so that one address is one account.
    pub email: String,
    pub name: &'a str,
    pub password_hash: String,
    pub birthday: &'a str,
    pub gender: &'a str,
    pub income: f64,
    pub currency: String,
    pub budget_style: &'a str,
    pub goals: &'a str,
    pub week_start: &'a str,
}

/// A person with an account, as the profile shows them.
#[derive(Queryable, Selectable, Serialize)]
#[diesel(table_name = users)]
pub struct User {
    pub id: i64,
    pub email: String,
    pub name: String,
    pub birthday: String,
    pub gender: String,
    pub income: f64,
    pub currency: String,
    pub budget_style: String,
    pub goals: String,
    pub week_start: String,
}

/// What a person changes in their profile; `None` leaves a column as it is.
#[derive(AsChangeset)]
#[diesel(table_name = users)]
pub struct ProfileChange<'a> {
    pub name: Option<&'a str>,
    pub birthday: Option<&'a str>,
    pub gender: Option<&'a str>,
    pub income: Option<f64>,
    pub currency: Option<String>,
    pub budget_style: Option<&'a str>,
    pub goals: Option<&'a str>,
    pub week_start: Option<&'a str>,
}

/// An expense, checked.
#[derive(Insertable)]
#[diesel(table_name = expenses)]
pub struct NewExpense<'a> {
    pub user_id: i64,
    pub amount: f64,
    pub category: &'a str,
    pub description: &'a str,
    pub date: &'a str,
}

/// What a person spent in one month.
#[derive(Default)]
pub struct Spending {
    /// `2026-11`; empty before the first expense.
    pub month: String,
    pub by_category: BTreeMap<String, f64>,
}

impl Spending {
    pub fn total(&self) -> f64 {
        self.by_category.values().sum()
    }
}

impl User {
    pub fn find(db: &mut SqliteConnection, id: i64) -> QueryResult<User> {
        users::table.find(id).select(User::as_select()).first(db)
    }

    /// Spending in the month of the latest expense.
    pub fn spending(db: &mut SqliteConnection, id: i64) -> QueryResult<Spending> {
        let rows: Vec<(String, f64, String)> = expenses::table
            .filter(expenses::user_id.eq(id))
            .order(expenses::date.desc())
            .select((expenses::category, expenses::amount, expenses::date))
            .load(db)?;
        let month = |date: &str| date.get(..7).unwrap_or_default().to_owned();
        let mut spending = Spending::default();
        if let Some((_, _, latest)) = rows.first() {
            spending.month = month(latest);
        }
        for (category, amount, date) in rows {
            if month(&date) == spending.month {
                *spending.by_category.entry(category).or_default() += amount;
            }
        }
        Ok(spending)
    }
}

impl ProfileChange<'_> {
    /// Whether nothing would change: Diesel refuses to build an empty UPDATE.
    pub fn is_empty(&self) -> bool {
        matches!(
            self,
            ProfileChange {
                name: None,
                birthday: None,
                gender: None,
                income: None,
                currency: None,
                budget_style: None,
                goals: None,
                week_start: None,
            }
        )
    }
}

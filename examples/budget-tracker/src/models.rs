//! What is read from and written to the database.

use std::collections::BTreeMap;

use diesel::prelude::*;
use provenance::tracked_model;
use serde::Serialize;

use crate::schema::{expenses, users};

/// A sign-up, checked.
#[tracked_model(owner(email))]
#[derive(Insertable)]
#[diesel(table_name = users)]
pub struct NewUser<'a> {
    /// Lower case, so that one address is one account.
    #[tracked("contact.email", description = "Email address")]
    pub email: String,
    #[tracked("personal.name", description = "Full name")]
    pub name: &'a str,
    #[tracked("security.password", description = "Argon2 hash of the password")]
    pub password_hash: String,
    #[tracked("demographic.date_of_birth", description = "Date of birth")]
    pub birthday: &'a str,
    #[tracked("demographic.gender", description = "Gender")]
    pub gender: &'a str,
    #[tracked("financial.income", description = "Monthly income")]
    pub income: f64,
    #[tracked("financial.currency", description = "Currency of all amounts")]
    pub currency: String,
    #[tracked("preferences.budget_style", description = "Budgeting method")]
    pub budget_style: &'a str,
    #[tracked("preferences.goals", description = "Savings goals")]
    pub goals: &'a str,
    #[tracked("preferences.week_start", description = "First day of the week")]
    pub week_start: &'a str,
}

/// A person with an account, as the profile shows them.
#[tracked_model(owner(email, id as "user"))]
#[derive(Queryable, Selectable, Serialize)]
#[diesel(table_name = users)]
pub struct User {
    pub id: i64,
    #[tracked("contact.email", description = "Email address")]
    pub email: String,
    #[tracked("personal.name", description = "Full name")]
    pub name: String,
    #[tracked("demographic.date_of_birth", description = "Date of birth")]
    pub birthday: String,
    #[tracked("demographic.gender", description = "Gender")]
    pub gender: String,
    #[tracked("financial.income", description = "Monthly income")]
    pub income: f64,
    #[tracked("financial.currency", description = "Currency of all amounts")]
    pub currency: String,
    #[tracked("preferences.budget_style", description = "Budgeting method")]
    pub budget_style: String,
    #[tracked("preferences.goals", description = "Savings goals")]
    pub goals: String,
    #[tracked("preferences.week_start", description = "First day of the week")]
    pub week_start: String,
}

/// What a person changes in their profile; `None` leaves a column as it is.
#[tracked_model]
#[derive(AsChangeset)]
#[diesel(table_name = users)]
pub struct ProfileChange<'a> {
    #[tracked("personal.name", description = "Full name")]
    pub name: Option<&'a str>,
    #[tracked("demographic.date_of_birth", description = "Date of birth")]
    pub birthday: Option<&'a str>,
    #[tracked("demographic.gender", description = "Gender")]
    pub gender: Option<&'a str>,
    #[tracked("financial.income", description = "Monthly income")]
    pub income: Option<f64>,
    #[tracked("financial.currency", description = "Currency of all amounts")]
    pub currency: Option<String>,
    #[tracked("preferences.budget_style", description = "Budgeting method")]
    pub budget_style: Option<&'a str>,
    #[tracked("preferences.goals", description = "Savings goals")]
    pub goals: Option<&'a str>,
    #[tracked("preferences.week_start", description = "First day of the week")]
    pub week_start: Option<&'a str>,
}

/// An expense, checked.
#[tracked_model(owner(user_id as "user"))]
#[derive(Insertable)]
#[diesel(table_name = expenses)]
pub struct NewExpense<'a> {
    pub user_id: i64,
    #[tracked("financial.expense", description = "Amount spent")]
    pub amount: f64,
    #[tracked("behavior.purchase_history", description = "What it was spent on")]
    pub category: &'a str,
    #[tracked("behavior.purchase_history", description = "Note on the expense")]
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

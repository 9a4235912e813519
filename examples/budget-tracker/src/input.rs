//! What comes in: bodies as form or JSON, and the checks on them. No text here repeats a value.

use std::collections::BTreeMap;

use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::{Form, Json};
use jiff::civil::Date;
use provenance::{Tracked, Value, Visitor};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::app::AppError;
use crate::auth;
use crate::models::{NewExpense, NewUser, ProfileChange};

/// A request body, read as JSON or as a form by its content type.
#[derive(Tracked)]
pub struct Input<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Input<T> {
    type Rejection = AppError;

    async fn from_request(request: Request, state: &S) -> Result<Self, AppError> {
        let content_type = request
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .unwrap_or_default();
        let read = if content_type.trim().eq_ignore_ascii_case("application/json") {
            let json = Json::from_request(request, state).await;
            json.map(|Json(body)| body).map_err(IntoResponse::into_response)
        } else {
            let form = Form::from_request(request, state).await;
            form.map(|Form(body)| body).map_err(IntoResponse::into_response)
        };
        // The extractors' own texts may quote the body, so only their status is passed on.
        read.map(Input).map_err(|rejection| AppError::Body(rejection.status()))
    }
}

/// One field as it came: text, or a JSON number.
#[derive(Deserialize, Default)]
#[serde(from = "Option<Scalar>")]
pub struct Field(String);

#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Integer(i64),
    Float(f64),
}

impl From<Option<Scalar>> for Field {
    fn from(scalar: Option<Scalar>) -> Self {
        Field(match scalar {
            None => String::new(),
            Some(Scalar::Text(text)) => text,
            Some(Scalar::Integer(number)) => number.to_string(),
            Some(Scalar::Float(number)) => number.to_string(),
        })
    }
}

impl Tracked for Field {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.value(Value::Text(&self.0));
    }
}

/// `POST /signup`.
#[derive(Deserialize, Default, Tracked)]
#[serde(default)]
#[tracked(owner(email))]
pub struct Signup {
    #[tracked("personal.name", description = "Full name")]
    name: Field,
    #[tracked("contact.email", description = "Email address")]
    email: Field,
    #[tracked("security.password", description = "Password")]
    password: Field,
    #[tracked("demographic.date_of_birth", description = "Date of birth")]
    birthday: Field,
    #[tracked("demographic.gender", description = "Gender")]
    gender: Field,
    #[tracked("financial.income", description = "Monthly income")]
    income: Field,
    #[tracked("financial.currency", description = "Currency of all amounts")]
    currency: Field,
    #[tracked("preferences.budget_style", description = "Budgeting method")]
    budget_style: Field,
    #[tracked("preferences.goals", description = "Savings goals")]
    goals: Field,
    #[tracked("preferences.week_start", description = "First day of the week")]
    week_start: Field,
}

impl Signup {
    /// The row to insert. Hashes the password, which takes a while: not for async code.
    pub fn check(&self) -> Result<NewUser<'_>, AppError> {
        let mut check = Check::default();
        let user = NewUser {
            email: check.email("email", &self.email),
            name: check.text("name", &self.name, 200),
            password_hash: String::new(),
            birthday: check.birthday("birthday", &self.birthday),
            gender: check.text("gender", &self.gender, 40),
            income: check.amount("income", &self.income),
            currency: check.currency("currency", &self.currency),
            budget_style: check.text("budget_style", &self.budget_style, 100),
            goals: check.text("goals", &self.goals, 2000),
            week_start: check.text("week_start", &self.week_start, 20),
        };
        check.password("password", &self.password);
        check.finish()?;
        Ok(NewUser {
            password_hash: auth::hash(&self.password.0)?,
            ..user
        })
    }
}

/// `POST /login`.
#[derive(Deserialize, Default, Tracked)]
#[serde(default)]
#[tracked(owner(email))]
pub struct Login {
    #[tracked("contact.email", description = "Email address")]
    email: Field,
    #[tracked("security.password", description = "Password")]
    password: Field,
}

impl Login {
    /// Address and password.
    pub fn credentials(&self) -> (&str, &str) {
        (&self.email.0, &self.password.0)
    }
}

/// `POST /profile`: any of the fields; those left out stay as they are.
#[derive(Deserialize, Default, Tracked)]
#[serde(default)]
pub struct ProfileForm {
    #[tracked("personal.name", description = "Full name")]
    name: Option<Field>,
    #[tracked("demographic.date_of_birth", description = "Date of birth")]
    birthday: Option<Field>,
    #[tracked("demographic.gender", description = "Gender")]
    gender: Option<Field>,
    #[tracked("financial.income", description = "Monthly income")]
    income: Option<Field>,
    #[tracked("financial.currency", description = "Currency of all amounts")]
    currency: Option<Field>,
    #[tracked("preferences.budget_style", description = "Budgeting method")]
    budget_style: Option<Field>,
    #[tracked("preferences.goals", description = "Savings goals")]
    goals: Option<Field>,
    #[tracked("preferences.week_start", description = "First day of the week")]
    week_start: Option<Field>,
}

impl ProfileForm {
    /// The columns to change; `None` if no field was given.
    pub fn check(&self) -> Result<Option<ProfileChange<'_>>, AppError> {
        let mut check = Check::default();
        let change = ProfileChange {
            name: self.name.as_ref().map(|f| check.text("name", f, 200)),
            birthday: self.birthday.as_ref().map(|f| check.birthday("birthday", f)),
            gender: self.gender.as_ref().map(|f| check.text("gender", f, 40)),
            income: self.income.as_ref().map(|f| check.amount("income", f)),
            currency: self.currency.as_ref().map(|f| check.currency("currency", f)),
            budget_style: self.budget_style.as_ref().map(|f| check.text("budget_style", f, 100)),
            goals: self.goals.as_ref().map(|f| check.text("goals", f, 2000)),
            week_start: self.week_start.as_ref().map(|f| check.text("week_start", f, 20)),
        };
        check.finish()?;
        Ok((!change.is_empty()).then_some(change))
    }
}

/// `POST /expenses`.
#[derive(Deserialize, Default, Tracked)]
#[serde(default)]
pub struct ExpenseForm {
    #[tracked("financial.expense", description = "Amount spent")]
    amount: Field,
    #[tracked("behavior.purchase_history", description = "What it was spent on")]
    category: Field,
    #[tracked("behavior.purchase_history", description = "Note on the expense")]
    description: Field,
    date: Field,
}

impl ExpenseForm {
    /// The row to insert.
    pub fn check(&self, user_id: i64) -> Result<NewExpense<'_>, AppError> {
        let mut check = Check::default();
        let expense = NewExpense {
            user_id,
            amount: check.amount("amount", &self.amount),
            category: check.text("category", &self.category, 100),
            description: check.text("description", &self.description, 500),
            date: check.date("date", &self.date).0,
        };
        check.finish()?;
        Ok(expense)
    }
}

/// Collects what is wrong, so that one answer names every field.
#[derive(Default)]
struct Check(BTreeMap<&'static str, &'static str>);

impl Check {
    fn finish(self) -> Result<(), AppError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(AppError::Fields(self.0))
        }
    }

    /// The first complaint about a field is the one that counts.
    fn require(&mut self, field: &'static str, holds: bool, complaint: &'static str) {
        if !holds {
            self.0.entry(field).or_insert(complaint);
        }
    }

    fn text<'a>(&mut self, field: &'static str, value: &'a Field, most: usize) -> &'a str {
        let text = value.0.trim();
        self.require(field, !text.is_empty(), "is required");
        self.require(field, text.chars().count() <= most, "is too long");
        text
    }

    fn email(&mut self, field: &'static str, value: &Field) -> String {
        let text = self.text(field, value, 254);
        let has_form = text.split_once('@').is_some_and(|(local, domain)| {
            !local.is_empty()
                && domain.contains('.')
                && !domain.starts_with('.')
                && !domain.ends_with('.')
                && !domain.contains('@')
                && !text.contains(|c: char| c.is_whitespace() || c.is_control())
        });
        self.require(field, has_form, "must be an email address");
        text.to_lowercase()
    }

    fn password(&mut self, field: &'static str, value: &Field) {
        self.require(field, value.0.chars().count() >= 8, "must have at least 8 characters");
        self.require(field, value.0.len() <= 1000, "is too long");
    }

    fn amount(&mut self, field: &'static str, value: &Field) -> f64 {
        let amount = self.text(field, value, 40).parse().unwrap_or(f64::NAN);
        self.require(
            field,
            (0.0..=1e12).contains(&amount),
            "must be an amount of money, such as 4200 or 4200.50",
        );
        amount
    }

    fn currency(&mut self, field: &'static str, value: &Field) -> String {
        let text = self.text(field, value, 40);
        let has_form = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_alphabetic());
        self.require(field, has_form, "must be a currency code of three letters, such as EUR");
        text.to_uppercase()
    }

    fn date<'a>(&mut self, field: &'static str, value: &'a Field) -> (&'a str, Option<Date>) {
        let text = self.text(field, value, 40);
        let date = Date::strptime("%Y-%m-%d", text).ok().filter(|_| text.len() == 10);
        self.require(field, date.is_some(), "must be a date, such as 1990-04-23");
        (text, date)
    }

    fn birthday<'a>(&mut self, field: &'static str, value: &'a Field) -> &'a str {
        let (text, date) = self.date(field, value);
        let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
        self.require(field, date.is_none_or(|date| date <= today), "must be in the past");
        text
    }
}

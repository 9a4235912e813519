//! The application: its state, its routes and its errors.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::SET_COOKIE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, CustomizeConnection, Pool};
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use provenance::{Scope, derived, provenance_input};
use serde_json::{Value as JsonValue, json};

use crate::auth::{self, Session};
use crate::input::{ExpenseForm, Input, Login, ProfileForm, Signup};
use crate::models::User;
use crate::partners::{Applicant, Partners, Prompt, Subscriber};
use crate::schema::{expenses, users};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!();

/// What every handler has in hand. Cheap to clone.
#[derive(Clone)]
pub struct App {
    pool: Pool<ConnectionManager<SqliteConnection>>,
    partners: Arc<Partners>,
}

impl App {
    /// Opens the database, creating it if there is none.
    pub fn open(database: &Path, partner_url: &str) -> anyhow::Result<Self> {
        let pool = Pool::builder()
            .max_size(8)
            .connection_timeout(Duration::from_secs(5))
            .connection_customizer(Box::new(Pragmas))
            .build(ConnectionManager::new(database.to_string_lossy()))?;
        pool.get()?
            .run_pending_migrations(MIGRATIONS)
            .map_err(|error| anyhow::anyhow!("the database could not be brought up to date: {error}"))?;
        Ok(App {
            pool,
            partners: Arc::new(Partners::new(partner_url)),
        })
    }

    /// Runs `work` with a connection, off the async threads.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut SqliteConnection) -> Result<T, AppError> + Send + 'static,
    ) -> Result<T, AppError> {
        let pool = self.pool.clone();
        blocking(move || {
            let mut db = pool
                .get()
                .map_err(|_| AppError::Internal("no database connection is free"))?;
            work(&mut db)
        })
        .await
    }

    /// Calls a partner, off the async threads.
    async fn ask<T: Send + 'static>(
        &self,
        partner: &'static str,
        call: impl FnOnce(&Partners) -> Result<T, ureq::Error> + Send + 'static,
    ) -> Result<T, AppError> {
        let partners = self.partners.clone();
        blocking(move || call(&partners).map_err(|_| AppError::Partner(partner))).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AppError> + Send + 'static,
) -> Result<T, AppError> {
    // Another thread does not know whose request this is: the scope goes along.
    let scope = Scope::current();
    let work = move || {
        let _scope = scope.as_ref().map(Scope::enter);
        work()
    };
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(AppError::Internal("a worker panicked")))
}

/// Every route of the application.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/signup", post(signup))
        .route("/login", post(login))
        .route("/profile", get(profile).post(change_profile))
        .route("/expenses", post(add_expense))
        .route("/dashboard", get(dashboard))
        .route("/newsletter", post(newsletter))
        .route("/score", post(score))
        .route("/insights", post(insights))
        .layer(provenance::axum::layer())
        .with_state(app)
}

#[provenance_input]
async fn signup(State(app): State<App>, Input(form): Input<Signup>) -> Result<impl IntoResponse, AppError> {
    let (id, cookie) = app
        .run(move |db| {
            let new = form.check()?;
            db.transaction(|db| {
                let user = diesel::insert_into(users::table)
                    .values(&new)
                    .returning(User::as_returning())
                    .get_result(db)?;
                Ok((user.id, Session::open(db, user.id)?))
            })
        })
        .await?;
    Ok((StatusCode::CREATED, [(SET_COOKIE, cookie)], Json(json!({ "id": id }))))
}

#[provenance_input]
async fn login(State(app): State<App>, Input(form): Input<Login>) -> Result<impl IntoResponse, AppError> {
    let (id, cookie) = app
        .run(move |db| {
            let (email, password) = form.credentials();
            let id = auth::log_in(db, email, password)?.ok_or(AppError::WrongCredentials)?;
            Ok((id, Session::open(db, id)?))
        })
        .await?;
    Ok(([(SET_COOKIE, cookie)], Json(json!({ "id": id }))))
}

async fn profile(State(app): State<App>, session: Session) -> Result<Json<User>, AppError> {
    let user = app.run(move |db| Ok(User::find(db, session.user_id)?)).await?;
    Ok(Json(user))
}

#[provenance_input]
async fn change_profile(
    State(app): State<App>,
    session: Session,
    Input(form): Input<ProfileForm>,
) -> Result<Json<User>, AppError> {
    let user = app
        .run(move |db| {
            let person = users::table.find(session.user_id);
            match form.check()? {
                Some(change) => Ok(diesel::update(person)
                    .set(&change)
                    .returning(User::as_returning())
                    .get_result(db)?),
                None => Ok(User::find(db, session.user_id)?),
            }
        })
        .await?;
    Ok(Json(user))
}

#[provenance_input]
async fn add_expense(
    State(app): State<App>,
    session: Session,
    Input(form): Input<ExpenseForm>,
) -> Result<impl IntoResponse, AppError> {
    let id: i64 = app
        .run(move |db| {
            let expense = form.check(session.user_id)?;
            Ok(diesel::insert_into(expenses::table)
                .values(&expense)
                .returning(expenses::id)
                .get_result(db)?)
        })
        .await?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id }))))
}

async fn dashboard(State(app): State<App>, session: Session) -> Result<Json<JsonValue>, AppError> {
    let (user, spending) = app
        .run(move |db| Ok((User::find(db, session.user_id)?, User::spending(db, session.user_id)?)))
        .await?;
    let remaining = user.income - spending.total();
    Ok(Json(json!({
        "income": user.income,
        "currency": user.currency,
        "month": spending.month,
        "spending": spending.by_category,
        "remaining": remaining,
        "savings_rate": savings_rate(user.income, spending.total()),
    })))
}

async fn newsletter(State(app): State<App>, session: Session) -> Result<Json<JsonValue>, AppError> {
    let user = app.run(move |db| Ok(User::find(db, session.user_id)?)).await?;
    app.ask("marketing", move |partners| partners.subscribe(&Subscriber::new(&user)))
        .await?;
    Ok(Json(json!({ "subscribed": true })))
}

async fn score(State(app): State<App>, session: Session) -> Result<Json<JsonValue>, AppError> {
    let user = app.run(move |db| Ok(User::find(db, session.user_id)?)).await?;
    let score = app
        .ask("scoring", move |partners| partners.score(&Applicant::new(&user)))
        .await?;
    Ok(Json(json!({ "score": score })))
}

async fn insights(State(app): State<App>, session: Session) -> Result<Json<JsonValue>, AppError> {
    let (user, spending) = app
        .run(move |db| Ok((User::find(db, session.user_id)?, User::spending(db, session.user_id)?)))
        .await?;
    let answer = app
        .ask("AI", move |partners| partners.advise(&Prompt::new(&user, &spending)))
        .await?;
    Ok(Json(json!({ "insights": answer.output_text })))
}

/// The part of the income that is left, in percent.
#[derived("x.budget.savings_rate", kind = "number")]
fn savings_rate(income: f64, spent: f64) -> f64 {
    if income > 0.0 {
        ((income - spent) / income * 1000.0).round() / 10.0
    } else {
        0.0
    }
}

/// Why a request got no answer. Nothing here holds a value of the request.
#[derive(Debug)]
pub enum AppError {
    /// The body could not be read; the status says why.
    Body(StatusCode),
    /// Fields that need correcting, with what is wrong with each.
    Fields(BTreeMap<&'static str, &'static str>),
    NotSignedIn,
    WrongCredentials,
    Known,
    NotFound,
    /// This partner did not answer, or not as agreed.
    Partner(&'static str),
    Internal(&'static str),
}

impl From<DieselError> for AppError {
    fn from(error: DieselError) -> Self {
        match error {
            DieselError::NotFound => AppError::NotFound,
            DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _) => AppError::Known,
            // Diesel's texts may quote what was bound.
            _ => AppError::Internal("a query failed"),
        }
    }
}

impl IntoResponse for AppError {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            AppError::Fields(errors) => {
                return (StatusCode::BAD_REQUEST, Json(json!({ "errors": errors }))).into_response();
            }
            AppError::Body(status) => (
                status,
                "the body is not a form or JSON of the expected shape".to_owned(),
            ),
            AppError::NotSignedIn => (StatusCode::UNAUTHORIZED, "please log in".to_owned()),
            AppError::WrongCredentials => (StatusCode::UNAUTHORIZED, "email or password is wrong".to_owned()),
            AppError::Known => (StatusCode::CONFLICT, "an account with this email exists".to_owned()),
            AppError::NotFound => (StatusCode::NOT_FOUND, "there is no such account".to_owned()),
            AppError::Partner(partner) => (StatusCode::BAD_GATEWAY, format!("the {partner} partner gave no answer")),
            AppError::Internal(reason) => {
                eprintln!("error: {reason}");
                (StatusCode::INTERNAL_SERVER_ERROR, "something went wrong".to_owned())
            }
        };
        (status, Json(json!({ "error": text }))).into_response()
    }
}

#[derive(Debug)]
struct Pragmas;

impl CustomizeConnection<SqliteConnection, diesel::r2d2::Error> for Pragmas {
    fn on_acquire(&self, db: &mut SqliteConnection) -> Result<(), diesel::r2d2::Error> {
        db.batch_execute("PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON;")
            .map_err(diesel::r2d2::Error::QueryError)
    }
}

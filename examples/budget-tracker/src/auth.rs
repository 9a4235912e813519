//! Passwords and sessions.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use axum::extract::FromRequestParts;
use axum::http::header::COOKIE;
use axum::http::request::Parts;
use diesel::prelude::*;
use sha2::{Digest, Sha256};

use crate::app::{App, AppError};
use crate::schema::{sessions, users};

const COOKIE_NAME: &str = "session";
const LIFETIME_SECONDS: i64 = 7 * 24 * 3600;

/// The signed-in person. As a handler's argument it turns everybody else away with 401.
pub struct Session {
    pub user_id: i64,
}

impl FromRequestParts<App> for Session {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, AppError> {
        let token = parts
            .headers
            .get_all(COOKIE)
            .iter()
            .filter_map(|header| header.to_str().ok())
            .flat_map(|header| header.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find_map(|(name, value)| (name == COOKIE_NAME).then(|| sha256_hex(value)))
            .ok_or(AppError::NotSignedIn)?;
        let user_id = app
            .run(move |db| {
                sessions::table
                    .find(token)
                    .filter(sessions::expires_at.gt(now()))
                    .select(sessions::user_id)
                    .first::<i64>(db)
                    .optional()?
                    .ok_or(AppError::NotSignedIn)
            })
            .await?;
        provenance::set_owner("user", user_id);
        Ok(Session { user_id })
    }
}

impl Session {
    /// Opens a session and gives the cookie for it. The database learns the token's digest
    /// only, so a stolen copy opens no account.
    pub fn open(db: &mut SqliteConnection, user_id: i64) -> Result<String, AppError> {
        let token = hex(&random::<32>()?);
        diesel::delete(sessions::table.filter(sessions::expires_at.le(now()))).execute(db)?;
        diesel::insert_into(sessions::table)
            .values((
                sessions::token_sha256.eq(sha256_hex(&token)),
                sessions::user_id.eq(user_id),
                sessions::expires_at.eq(now() + LIFETIME_SECONDS),
            ))
            .execute(db)?;
        // Not `Secure`: the example is served over plain HTTP on loopback.
        Ok(format!(
            "{COOKIE_NAME}={token}; HttpOnly; SameSite=Strict; Path=/; Max-Age={LIFETIME_SECONDS}"
        ))
    }
}

/// The id of the account that this address and password open, if they open one.
pub fn log_in(db: &mut SqliteConnection, email: &str, password: &str) -> Result<Option<i64>, AppError> {
    // Checked for unknown addresses too: how long an answer takes must not tell who has an account.
    static NOBODY: LazyLock<String> = LazyLock::new(|| hash("nobody").unwrap_or_default());

    let known: Option<(i64, String)> = users::table
        .filter(users::email.eq(email.trim().to_lowercase()))
        .select((users::id, users::password_hash))
        .first(db)
        .optional()?;
    let (id, stored) = match known {
        Some((id, stored)) => (Some(id), stored),
        None => (None, NOBODY.clone()),
    };
    let stored = PasswordHash::new(&stored).map_err(|_| AppError::Internal("a stored password hash is malformed"))?;
    let matches = Argon2::default().verify_password(password.as_bytes(), &stored).is_ok();
    Ok(id.filter(|_| matches))
}

/// An Argon2id hash with a random salt, in PHC format.
pub fn hash(password: &str) -> Result<String, AppError> {
    let salt = SaltString::encode_b64(&random::<16>()?).map_err(|_| AppError::Internal("no salt could be made"))?;
    Argon2::default()
        .hash_password(password.as_bytes(), &salt)
        .map(|hash| hash.to_string())
        .map_err(|_| AppError::Internal("a password could not be hashed"))
}

/// Lower-case hex SHA-256.
pub fn sha256_hex(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn random<const N: usize>() -> Result<[u8; N], AppError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| AppError::Internal("the system gives no random bytes"))?;
    Ok(bytes)
}

fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

//! Values and links that other instances register, taken over while this one runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::Error;
use crate::store::follow::News;

/// How following others goes.
#[derive(Default)]
pub(crate) struct Following {
    values: AtomicU64,
    links: AtomicU64,
    failures: AtomicU64,
    last_error: Mutex<Option<String>>,
}

/// For `/status`.
#[derive(Debug, Serialize)]
pub(crate) struct FollowingStatus {
    /// Values of others that were taken over since the start.
    values: u64,
    /// Links between identifiers, likewise.
    links: u64,
    /// Looks that failed.
    failures: u64,
    /// Why the last look failed, without values; `None` once one has succeeded again.
    last_error: Option<String>,
}

impl Following {
    /// Counts a look; gives what it found.
    pub(crate) fn note(&self, looked: Result<News, Error>) -> News {
        let (news, trouble) = match looked {
            Ok(news) => (news, None),
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                (News::default(), Some(error.to_string()))
            }
        };
        self.values.fetch_add(news.values.len() as u64, Ordering::Relaxed);
        self.links.fetch_add(news.links.len() as u64, Ordering::Relaxed);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        news
    }

    pub(crate) fn status(&self) -> FollowingStatus {
        FollowingStatus {
            values: self.values.load(Ordering::Relaxed),
            links: self.links.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            // In a forked child nobody would ever give it back.
            last_error: self.last_error.try_lock().ok().and_then(|error| error.clone()),
        }
    }
}

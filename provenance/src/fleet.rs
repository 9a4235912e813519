//! Values and links that other instances register, taken over while this one runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use serde::Serialize;

use crate::Error;
use crate::error::ErrorKind;
use crate::store::follow::{Follower, News};

/// Longest time for which closing waits for a look in progress.
const PATIENCE: Duration = Duration::from_secs(2);

/// A thread that looks, at an interval, at what others have stored. It ends with its tracker.
pub(crate) struct Following {
    stop: Mutex<Option<Sender<()>>>,
    ended: Receiver<()>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
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
    /// Gives `take` what others have stored, until it says that nobody wants it any more.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(
        mut follower: Follower,
        interval: Duration,
        mut take: impl FnMut(News) -> bool + Send + 'static,
    ) -> Result<Self, Error> {
        let (stop, stopped) = bounded(1);
        let (end, ended) = bounded(1);
        let shared = Arc::new(Shared::default());
        let side = shared.clone();
        std::thread::Builder::new()
            .name("provenance-fleet".into())
            .spawn(move || {
                while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                    let looked = follower.look();
                    let trouble = match looked {
                        Ok(news) => {
                            side.values.fetch_add(news.values.len() as u64, Ordering::Relaxed);
                            side.links.fetch_add(news.links.len() as u64, Ordering::Relaxed);
                            if !take(news) {
                                break;
                            }
                            None
                        }
                        Err(error) => {
                            side.failures.fetch_add(1, Ordering::Relaxed);
                            Some(error.to_string())
                        }
                    };
                    *lock(&side.last_error) = trouble;
                }
                // A file's journal goes with its last connection.
                drop(follower);
                let _ = end.send(());
            })
            .map_err(|e| Error::new(ErrorKind::Store, "the thread that follows others cannot be started").because(e))?;
        Ok(Following {
            stop: Mutex::new(Some(stop)),
            ended,
            shared,
        })
    }

    /// Ends the thread; waits for a look in progress, but not for long.
    pub(crate) fn stop(&self) {
        if lock(&self.stop).take().is_some() {
            let _ = self.ended.recv_timeout(PATIENCE);
        }
    }

    pub(crate) fn status(&self) -> FollowingStatus {
        FollowingStatus {
            values: self.shared.values.load(Ordering::Relaxed),
            links: self.shared.links.load(Ordering::Relaxed),
            failures: self.shared.failures.load(Ordering::Relaxed),
            // In a forked child nobody would ever give it back.
            last_error: self.shared.last_error.try_lock().ok().and_then(|error| error.clone()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

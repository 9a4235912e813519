//! The one thread of a tracker that looks after things: what others register, what others erase, what a retention
//! ends. Where nobody has written to the file it asks the file system, and nothing else.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use super::erasure::{Keeping, Waiting};
use super::{Inner, Tracker};
use crate::Error;
use crate::config::Storage;
use crate::keeper::Keeper;
use crate::store::erase::Eraser;
use crate::store::follow::Follower;
use crate::ticket::Generation;

/// How often it looks for what others erased, and for what a retention ends.
const LOOK: Duration = Duration::from_secs(1);
/// Shortest pause, whatever `follow_interval` says.
const SHORTEST: Duration = Duration::from_millis(1);

/// What the thread has.
struct Looking {
    inner: Weak<Inner>,
    generation: Generation,
    erasing: Keeping,
    follower: Option<Follower>,
    waiting: Waiting,
    /// When each is due.
    erase_at: Instant,
    follow_at: Instant,
    stir: Stir,
}

impl Tracker {
    /// Begins to follow what others register and erase, and to apply the retention.
    pub(super) fn keep(&self, eraser: Eraser, version: i64, follower: Option<Follower>) {
        let home = self.home();
        let now = Instant::now();
        let mut looking = Looking {
            inner: std::sync::Arc::downgrade(&self.0),
            generation: home.generation,
            stir: Stir::of(&home.storage),
            erasing: self.keeping(eraser, version),
            follower,
            waiting: Waiting::default(),
            erase_at: now + LOOK,
            follow_at: now + self.config().follow_interval,
        };
        if let Some(keeper) = Keeper::start(looking.pause(), move |last| looking.look(last)) {
            let _ = self.0.keeper.set(keeper);
        }
    }
}

impl Looking {
    /// Until something is due.
    fn pause(&self) -> Duration {
        let next = match self.follower {
            Some(_) => self.erase_at.min(self.follow_at),
            None => self.erase_at,
        };
        next.saturating_duration_since(Instant::now()).max(SHORTEST)
    }

    fn look(&mut self, last: bool) -> Duration {
        let Some(inner) = self.inner.upgrade() else {
            return LOOK;
        };
        let tracker = Tracker(inner);
        // Where that fails the recorder says what is wrong with the file.
        let _ = self.move_on(&tracker);
        let stirred = self.stir.is_stirred() || tracker.0.erased.is_lifting();
        if let Some(follower) = self.follower.as_mut().filter(|_| Instant::now() >= self.follow_at) {
            if stirred || !self.waiting.is_empty() {
                tracker.learn(tracker.0.following.note(follower.look()), &mut self.waiting);
            }
            self.follow_at = Instant::now() + tracker.config().follow_interval;
        }
        if last || Instant::now() >= self.erase_at {
            self.erasing.look(&tracker, stirred, last);
            self.erase_at = Instant::now() + LOOK;
        }
        self.pause()
    }

    /// Looks at the file that evidence goes on in, if it does.
    fn move_on(&mut self, tracker: &Tracker) -> Result<(), Error> {
        let home = tracker.home();
        if home.generation == self.generation {
            return Ok(());
        }
        self.erasing = tracker.keeping(Eraser::open(&home.storage)?, 0);
        self.follower = home.follower.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.stir = Stir::of(&home.storage);
        self.generation = home.generation;
        Ok(())
    }
}

/// Whether somebody has written to a file since the last look.
struct Stir {
    /// The write-ahead log, into which all that is written goes first; of a server nothing is known.
    log: Option<PathBuf>,
    seen: Option<(u64, SystemTime)>,
}

impl Stir {
    /// Of two changes within this time the second one may not show.
    const GRAIN: Duration = Duration::from_secs(2);

    fn of(storage: &Storage) -> Self {
        let log = |path: &Path| {
            // SQLite follows links: the log is beside what they name.
            let mut log = std::fs::canonicalize(path).ok()?.into_os_string();
            log.push("-wal");
            Some(log.into())
        };
        Stir {
            log: match storage {
                Storage::Sqlite(path) => log(path),
                Storage::Postgres(_) => None,
            },
            seen: None,
        }
    }

    fn is_stirred(&mut self) -> bool {
        let found = self.log.as_ref().and_then(|log| {
            let found = std::fs::metadata(log).ok()?;
            Some((found.len(), found.modified().ok()?))
        });
        let is_fresh = found.is_none_or(|(_, at)| at.elapsed().is_ok_and(|age| age < Self::GRAIN));
        std::mem::replace(&mut self.seen, found) != found || is_fresh
    }
}

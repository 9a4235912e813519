//! Derivations that say nothing new: counted, and told once an interval.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::vocabulary::{Event, Timestamp};

/// Most derivations that are remembered; with more the oldest interval ends early.
const MOST: usize = 4096;

/// What was recorded within the interval, and what repeated it.
#[derive(Default)]
pub(crate) struct Repeats(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// By site, person, arguments and result.
    said: HashMap<u128, Said>,
    looked_at: Timestamp,
}

struct Said {
    /// As recorded.
    event: Event,
    times: u64,
    last: Timestamp,
}

impl Repeats {
    /// Whether this was recorded less than `interval` microseconds ago: then it is counted.
    pub(crate) fn count(&self, key: u128, now: Timestamp, interval: i64) -> bool {
        let mut known = self.lock();
        let Some(said) = known.said.get_mut(&key) else {
            return false;
        };
        if now.0.saturating_sub(said.event.created_at.0) >= interval {
            return false;
        }
        said.times += 1;
        said.last = now;
        true
    }

    /// Remembers what is recorded now. Gives what is to be told of intervals that have ended.
    #[must_use]
    pub(crate) fn keep(&self, key: u128, event: Event, interval: i64) -> Vec<Event> {
        let now = event.created_at;
        let mut known = self.lock();
        let mut told = Vec::new();
        if known.said.len() >= MOST {
            told = end(&mut known.said, |_| true);
        } else if now.0.saturating_sub(known.looked_at.0) >= interval {
            known.looked_at = now;
            told = end(&mut known.said, |said| {
                now.0.saturating_sub(said.event.created_at.0) >= interval
            });
        }
        let said = Said {
            event,
            times: 0,
            last: now,
        };
        told.extend(known.said.insert(key, said).and_then(Said::told));
        told
    }

    /// Ends every interval.
    #[must_use]
    pub(crate) fn all(&self) -> Vec<Event> {
        end(&mut self.lock().said, |_| true)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn end(said: &mut HashMap<u128, Said>, ended: impl Fn(&Said) -> bool) -> Vec<Event> {
    said.extract_if(|_, said| ended(said))
        .filter_map(|(_, said)| said.told())
        .collect()
}

impl Said {
    /// The event that says how often, and until when, it was repeated; nothing if it was not.
    fn told(self) -> Option<Event> {
        if self.times == 0 {
            return None;
        }
        let mut event = self.event;
        event.extras.insert("repeats".into(), self.times.into());
        event.created_at = self.last;
        // It is of many requests.
        event.request_id = None;
        event.extras.remove("trace_id");
        Some(event)
    }
}

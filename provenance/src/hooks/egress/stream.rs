//! A body that is not held whole: scanned as it passes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;

use super::encoding::{Decoder, Encoding};
use super::windows::Windows;
use super::{Blocked, Reason, findings, offending, shape, violation};
use crate::detect::Detector;
use crate::tracker::{BlindSpot, Tracker};
use crate::vocabulary::{Event, Late, Outcome};

/// Watches the body of one share. Clones watch the same body.
#[derive(Clone)]
pub(crate) struct Watcher(Arc<Watched>);

struct Watched {
    tracker: Tracker,
    /// The share as it was recorded, without its tags.
    share: Event,
    allow: Option<&'static [&'static str]>,
    /// Cut off at the first violation.
    enforced: bool,
    /// Where a blind spot is counted.
    place: String,
    state: Mutex<State>,
}

struct State {
    windows: Windows,
    decoder: Option<Decoder>,
    passed: u64,
    /// How much had been found when the policy was last asked.
    judged: usize,
    ended: bool,
    cut: bool,
    /// The outcome is recorded.
    told: bool,
}

impl Watcher {
    /// Watches what follows `beginning`, which was scanned before the share was recorded.
    pub(super) fn new(
        tracker: &Tracker,
        share: &Event,
        allow: Option<&'static [&'static str]>,
        enforced: bool,
        place: &str,
        encoding: Option<Encoding>,
        beginning: &[u8],
    ) -> Self {
        let (windows, decoder) = match encoding {
            None => (Windows::after(beginning), None),
            Some(encoding) => {
                // Searched already: only to bring the decoder to where the rest begins.
                let mut decoder = Decoder::new(encoding);
                let mut last = Vec::new();
                decoder.push(beginning, &mut |piece| {
                    last.extend_from_slice(piece);
                    last.drain(..last.len().saturating_sub(64 << 10));
                });
                (Windows::after(&last), Some(decoder))
            }
        };
        Watcher(Arc::new(Watched {
            tracker: tracker.clone(),
            share: share.clone(),
            allow,
            enforced: enforced && allow.is_some(),
            place: place.to_owned(),
            state: Mutex::new(State {
                windows,
                decoder,
                passed: beginning.len() as u64,
                judged: 0,
                ended: false,
                cut: false,
                told: false,
            }),
        }))
    }

    /// The next piece of the body, before it is passed on.
    ///
    /// # Errors
    /// The policy cuts the body off here: what is in hand must not be passed on, nor what follows.
    pub(crate) fn pass(&self, bytes: &[u8]) -> Result<(), Blocked> {
        let watched = &*self.0;
        watched
            .tracker
            .attempt(|tracker| {
                let mut state = watched.state();
                if state.cut {
                    return Err(watched.blocked());
                }
                if state.told {
                    return Ok(());
                }
                state.passed = state.passed.saturating_add(bytes.len() as u64);
                let detector = tracker.registry().detector();
                state.take(detector, bytes);
                if watched.enforced {
                    state.windows.flush(detector);
                    if state.windows.found().hits.len() > state.judged {
                        state.judged = state.windows.found().hits.len();
                        state.cut = !watched.offending(&state).is_empty();
                    }
                    if state.cut {
                        state.passed = state.passed.saturating_sub(bytes.len() as u64);
                        return Err(watched.blocked());
                    }
                }
                Ok(())
            })
            .unwrap_or(Ok(()))
    }

    /// The body has passed to its end.
    pub(crate) fn end(&self) {
        let watched = &*self.0;
        watched.tracker.attempt(|tracker| {
            let mut state = watched.state();
            if !std::mem::replace(&mut state.ended, true) {
                state.finish(tracker.registry().detector());
            }
        });
    }

    /// Why the body was cut off, if it was.
    pub(crate) fn blocked(&self) -> Option<Blocked> {
        self.0.state().cut.then(|| self.0.blocked())
    }

    /// The outcome, and what follows with it.
    pub(super) fn tell(&self, outcome: Outcome) -> (Outcome, Option<Box<Late>>) {
        let watched = &*self.0;
        let late = watched.tracker.attempt(|tracker| watched.late(tracker, &outcome));
        let outcome = self.blocked().map_or(outcome, |_| Outcome::Blocked);
        (outcome, late.flatten().map(Box::new))
    }
}

impl State {
    fn take(&mut self, detector: &Detector, bytes: &[u8]) {
        let windows = &mut self.windows;
        match &mut self.decoder {
            None => windows.push(detector, bytes),
            Some(decoder) => decoder.push(bytes, &mut |piece| windows.push(detector, piece)),
        }
    }

    fn finish(&mut self, detector: &Detector) {
        let windows = &mut self.windows;
        if let Some(decoder) = &mut self.decoder
            && !decoder.end(&mut |piece| windows.push(detector, piece))
        {
            windows.lose(1);
        }
        windows.flush(detector);
    }
}

impl Watched {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blocked(&self) -> Blocked {
        Blocked {
            recipient: self.share.recipient.clone().unwrap_or_default(),
            reason: Reason::Policy,
        }
    }

    fn offending(&self, state: &State) -> Vec<crate::vocabulary::EventTag> {
        let tags = findings::findings(&self.tracker, state.windows.found(), self.share.owner.as_ref());
        offending(self.allow, &tags)
    }

    fn late(&self, tracker: &Tracker, outcome: &Outcome) -> Option<Late> {
        let mut state = self.state();
        if std::mem::replace(&mut state.told, true) {
            return None;
        }
        let answered = matches!(outcome, Outcome::Status(_) | Outcome::Sent | Outcome::Redirected);
        let ended = state.ended;
        if !ended {
            state.finish(tracker.registry().detector());
        }
        let found = state.windows.found();
        let tags = findings::findings(tracker, found, self.share.owner.as_ref());
        let mut late = Late {
            shared_at: self.share.created_at,
            recipient: self.share.recipient.clone(),
            request_id: self.share.request_id.clone(),
            owner: findings::sole_owner(tracker, &tags),
            payload: shape::found(&tags),
            extras: serde_json::Map::new(),
            tags,
        };
        if ended {
            late.payload.insert("length".into(), state.passed.into());
        } else {
            // Not all of it left, or not through us.
            late.extras.insert("passed".into(), state.passed.into());
        }
        if found.dropped > 0 {
            late.extras.insert("dropped_findings".into(), found.dropped.into());
        }
        if found.unscanned > 0 || (answered && !ended) {
            late.extras.insert("unscanned".into(), json!(true));
            tracker.blind_spot(BlindSpot::UnscannedBody, &self.place);
        }
        let offending = offending(self.allow, &late.tags);
        if !offending.is_empty() {
            tracker.record(violation(&self.share, &offending, state.cut));
        }
        Some(late)
    }
}

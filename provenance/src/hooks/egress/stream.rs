//! A body that is not held whole: scanned as it passes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;

use super::encoding::{Decoder, Encoding};
use super::findings::Findings;
use super::windows::Windows;
use super::{Blocked, Reason, findings, offending, shape, violation};
use crate::detect::{Detector, Scan};
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
    rest: Rest,
    passed: u64,
    /// How much had been found when the policy was last asked.
    judged: usize,
    ended: bool,
    cut: bool,
    /// The outcome is recorded.
    told: bool,
}

/// The rest of a body, as it is read.
pub(super) struct Rest {
    windows: Windows,
    decoder: Option<Decoder>,
    /// Bytes that the decoder will give and `windows` have got. It may hold some back until it gets more.
    known: usize,
}

impl Rest {
    /// `windows` have got what came before.
    pub(super) fn plain(windows: Windows) -> Self {
        Rest {
            windows,
            decoder: None,
            known: 0,
        }
    }

    /// The rest of an encoded body. `decoded`: how much of what `beginning` stands for has been scanned, and the
    /// windows that have got it; `None` if none of it.
    pub(super) fn encoded(
        tracker: &Tracker,
        encoding: Encoding,
        beginning: &[u8],
        decoded: Option<(usize, Windows)>,
    ) -> Self {
        let (known, windows) = decoded.unwrap_or_else(|| (0, Windows::after(&[])));
        let mut rest = Rest {
            windows,
            decoder: Some(Decoder::new(encoding)),
            known,
        };
        rest.take(tracker.registry().detector(), beginning);
        rest
    }

    fn take(&mut self, detector: &Detector, bytes: &[u8]) {
        let (windows, known) = (&mut self.windows, &mut self.known);
        match &mut self.decoder {
            None => windows.push(detector, bytes),
            Some(decoder) => decoder.push(bytes, &mut |piece| push_new(windows, known, detector, piece)),
        }
    }

    fn finish(&mut self, detector: &Detector) {
        let (windows, known) = (&mut self.windows, &mut self.known);
        if let Some(decoder) = &mut self.decoder
            && !decoder.end(&mut |piece| push_new(windows, known, detector, piece))
        {
            windows.lose(1);
        }
        windows.flush(detector);
    }
}

/// Pushes what of `piece` is not among the first `known` bytes.
fn push_new(windows: &mut Windows, known: &mut usize, detector: &Detector, piece: &[u8]) {
    windows.push(detector, piece.get(*known..).unwrap_or_default());
    *known = known.saturating_sub(piece.len());
}

impl Watcher {
    /// Watches what follows the `passed` bytes that were scanned before the share was recorded.
    pub(super) fn new(
        tracker: &Tracker,
        share: &Event,
        allow: Option<&'static [&'static str]>,
        enforced: bool,
        place: &str,
        rest: Rest,
        passed: u64,
    ) -> Self {
        Watcher(Arc::new(Watched {
            tracker: tracker.clone(),
            share: share.clone(),
            allow,
            enforced: enforced && allow.is_some(),
            place: place.to_owned(),
            state: Mutex::new(State {
                rest,
                passed,
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
                // Answered early: what still leaves is not recorded any more, but held back all the same.
                if state.told && !watched.enforced {
                    return Ok(());
                }
                state.passed = state.passed.saturating_add(bytes.len() as u64);
                let detector = tracker.registry().detector();
                state.rest.take(detector, bytes);
                if watched.enforced {
                    state.rest.windows.flush(detector);
                    let found = state.rest.windows.found();
                    let found = found.hits.len() + found.shapes.len();
                    if found > state.judged {
                        state.judged = found;
                        let offending = watched.offending(&state);
                        state.cut = !offending.is_empty();
                        if state.cut && state.told {
                            tracker.record(violation(&watched.share, &offending, true));
                        }
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
                state.rest.finish(tracker.registry().detector());
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
        let found = self.findings(state.rest.windows.found());
        offending(&self.tracker, self.allow, &found.tags)
    }

    fn findings(&self, scan: &Scan) -> Findings {
        let recipient = self.share.recipient.as_deref().unwrap_or_default();
        findings::findings(&self.tracker, scan, self.share.owner.as_ref(), recipient)
    }

    fn late(&self, tracker: &Tracker, outcome: &Outcome) -> Option<Late> {
        let mut state = self.state();
        if std::mem::replace(&mut state.told, true) {
            return None;
        }
        let answered = matches!(outcome, Outcome::Status(_) | Outcome::Sent | Outcome::Redirected);
        let ended = state.ended;
        match (ended, self.enforced) {
            (true, _) => {}
            // It may go on, and its decoder with it.
            (false, true) => state.rest.windows.flush(tracker.registry().detector()),
            (false, false) => state.rest.finish(tracker.registry().detector()),
        }
        let found = state.rest.windows.found();
        let findings = self.findings(found);
        let suppressed = findings.count_suppressed(tracker);
        let tags = findings.tags;
        let mut late = Late {
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
        if suppressed > 0 {
            late.extras.insert("suppressed".into(), suppressed.into());
        }
        if found.dropped > 0 {
            late.extras.insert("dropped_findings".into(), found.dropped.into());
        }
        if found.unscanned > 0 || (answered && !ended) {
            late.extras.insert("unscanned".into(), json!(true));
            tracker.blind_spot(BlindSpot::UnscannedBody, &self.place);
        }
        let offending = offending(tracker, self.allow, &late.tags);
        if !offending.is_empty() {
            tracker.record(violation(&self.share, &offending, state.cut));
        }
        Some(late)
    }
}

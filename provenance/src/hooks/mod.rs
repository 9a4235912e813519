//! The four verbs: what came in, what was committed, what was sent, what was derived.

#[cfg(feature = "diesel")]
pub(crate) mod access;
mod block;
pub mod derived;
pub(crate) mod egress;
pub mod input;
#[cfg(feature = "diesel")]
pub(crate) mod returned;
#[cfg(feature = "diesel")]
pub(crate) mod storage;
pub(crate) mod tape;

use block::{Block, Entry, What};
use tape::Place;

use crate::deferred::Series;

impl Series for Block {
    fn run(mut self: Box<Self>) {
        let mut entries = std::mem::take(&mut self.entries);
        let (tracker, tape) = (&self.tracker, &self.tape);
        #[cfg(feature = "diesel")]
        let mut binds = self.binds.as_slice();
        let mut begin = Place::default();
        for Entry { what, end } in entries.drain(..) {
            let from = std::mem::replace(&mut begin, end);
            #[cfg(feature = "diesel")]
            let own = match &what {
                What::Write { binds: own, .. } => binds.split_off(..*own).unwrap_or_default(),
                _ => &[],
            };
            tracker.guarded(|tracker| match what {
                What::Input { site, moment, pending } => {
                    input::taken(tracker, &moment, site, pending, |sink| tape.play_part(from, end, sink));
                }
                #[cfg(feature = "diesel")]
                What::Row { site, at, key } => {
                    storage::row(tracker, site, at, key, |sink| tape.play_part(from, end, sink));
                }
                #[cfg(feature = "diesel")]
                What::Write {
                    site,
                    moment,
                    action,
                    doubt,
                    ..
                } => storage::written(tracker, &moment, (site, action, doubt), tape, own),
            });
        }
        self.entries = entries;
        self.end();
    }
}

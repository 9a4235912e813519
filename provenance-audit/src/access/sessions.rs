//! Who is signed in. Ends with the process.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::SESSION_SECONDS;

/// Most sessions at a time; one more ends the oldest.
const MOST: usize = 1024;

/// Sessions by the digest of their id.
#[derive(Default)]
pub(super) struct Sessions(HashMap<[u8; 32], Session>);

struct Session {
    /// The token's.
    name: String,
    begun: Instant,
}

impl Sessions {
    pub(super) fn open(&mut self, id: [u8; 32], name: &str) {
        self.0.retain(|_, session| session.lives());
        if self.0.len() >= MOST
            && let Some(oldest) = self
                .0
                .iter()
                .min_by_key(|(_, session)| session.begun)
                .map(|(id, _)| *id)
        {
            self.0.remove(&oldest);
        }
        let session = Session {
            name: name.to_owned(),
            begun: Instant::now(),
        };
        self.0.insert(id, session);
    }

    /// The name of the token that opened it.
    pub(super) fn get(&self, id: &[u8; 32]) -> Option<String> {
        self.0
            .get(id)
            .filter(|session| session.lives())
            .map(|session| session.name.clone())
    }

    pub(super) fn close(&mut self, id: &[u8; 32]) {
        self.0.remove(id);
    }
}

impl Session {
    fn lives(&self) -> bool {
        self.begun.elapsed() < Duration::from_secs(SESSION_SECONDS)
    }
}

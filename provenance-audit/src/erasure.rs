//! Erasing a person by the API: a preview first, which names whom to tell, then the act, with the word that the preview gave.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use provenance::config::AuditRole;
use provenance::{Erasure, Scope, Timestamp};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::access::Caller;
use crate::api::{Api, Refusal, lock};
use crate::params::ErasureQuestion;

/// A word is good until the end of the span after the one in which it was given, in seconds.
const SPAN: u64 = 300;
/// Most people whose erasures are counted.
const MOST: usize = 4096;

/// How often this process erased each person, so that a word is good once.
#[derive(Default)]
pub(crate) struct Erasing(HashMap<String, u64>);

/// What came of it.
#[derive(Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum Answer {
    /// What would be erased. Nothing was changed.
    Preview {
        #[serde(flatten)]
        counts: Counts,
        /// To be given back.
        confirmation: String,
        valid_until: Timestamp,
    },
    /// What was erased.
    Erased {
        #[serde(flatten)]
        counts: Counts,
        /// Names it in the records.
        erasure: String,
        /// The DATA_ERASURE that says it is done.
        event_id: Option<String>,
        damaged: u64,
        log_emptied: bool,
        /// A line for `provenance-audit erase --replay`, after a backup was restored: pseudonyms that the evidence no
        /// longer has.
        log: Line,
    },
}

/// What is in an erasure.
#[derive(Serialize)]
pub(crate) struct Counts {
    /// What stands for the person in the records of the erasure, and leads to nothing else.
    pub(crate) person: String,
    pub(crate) identifiers: usize,
    pub(crate) events: u64,
    pub(crate) values: u64,
    /// Who got something of the person, and must be told (GDPR Art. 19).
    pub(crate) to_be_told: Vec<provenance::ToBeTold>,
}

/// A line of a log of erasures.
#[derive(Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) erasure: String,
    pub(crate) at: String,
    pub(crate) event_id: Option<String>,
    pub(crate) owners: Vec<String>,
}

impl Line {
    pub(crate) fn of(erased: &Erasure) -> Self {
        Line {
            erasure: erased.erasure.clone(),
            at: Timestamp::now().to_string(),
            event_id: erased.event_id.clone(),
            owners: erased.owners.iter().map(|owner| owner.as_str().to_owned()).collect(),
        }
    }
}

impl Api {
    /// Previews an erasure, or makes it. That it was asked is on disk before it is answered; what is recorded names nobody,
    /// as the person is to be gone.
    pub(crate) fn erasure(&self, caller: &Caller, question: &ErasureQuestion) -> Result<Answer, Refusal> {
        caller.must(AuditRole::Erase)?;
        let recorder = self.recorder()?;
        let owner = self.owner(&question.who)?;
        // One after the other: two requests with one word are one erasure.
        let mut erasing = lock(&self.erasing);
        let preview = recorder.erasure_preview_of(&owner).map_err(|error| refused(&error))?;
        let times = erasing.0.get(&preview.person).copied().unwrap_or(0);
        let span = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.as_secs())
            / SPAN;
        let Some(given) = &question.confirmation else {
            let what = format!("erasure:preview {}", preview.person);
            self.record(caller, &what, &question.reason, None)?;
            let end = i64::try_from((span + 2) * SPAN).unwrap_or(i64::MAX / 1_000_000);
            return Ok(Answer::Preview {
                confirmation: self.word(caller, &preview, times, span)?,
                valid_until: Timestamp(end.saturating_mul(1_000_000)),
                counts: Counts::of(preview),
            });
        };
        let mut fits = false;
        for span in [span, span.saturating_sub(1)] {
            let word = self.word(caller, &preview, times, span)?;
            fits |= bool::from(given.as_bytes().ct_eq(word.as_bytes()));
        }
        if !fits {
            return Err(Refusal::new(
                409,
                "confirmation: not the word of a preview that still holds. A word is good for five to ten minutes, once, \
                 for whom it was given, and while nobody else got data of the person: look at the preview again. Nothing \
                 was changed",
            ));
        }
        self.record(caller, &format!("erasure {}", preview.person), &question.reason, None)?;
        let _scope = Scope::new(format!("audit:{}", caller.name())).enter();
        let erased = recorder
            .erase_owner(&owner, &question.reason)
            .map_err(|error| refused(&error))?;
        if erasing.0.len() >= MOST {
            erasing.0.clear();
        }
        *erasing.0.entry(erased.person.clone()).or_default() += 1;
        Ok(Answer::Erased {
            log: Line::of(&erased),
            erasure: erased.erasure.clone(),
            event_id: erased.event_id.clone(),
            damaged: erased.damaged,
            log_emptied: erased.log_emptied,
            counts: Counts::of(erased),
        })
    }

    /// The word for what this caller was shown.
    fn word(&self, caller: &Caller, preview: &Erasure, times: u64, span: u64) -> Result<String, Refusal> {
        let counts = [times, span, preview.owners.len() as u64, u64::from(preview.events > 0)].map(u64::to_le_bytes);
        let told: Vec<_> = preview
            .to_be_told
            .iter()
            .map(|told| (told, told.shares.to_le_bytes()))
            .collect();
        let owners = preview.owners.iter().map(|owner| owner.as_str().as_bytes());
        let told = told
            .iter()
            .flat_map(|(told, shares)| [told.recipient.as_bytes(), shares.as_slice()]);
        let parts = std::iter::once(caller.name().as_bytes())
            .chain(counts.iter().map(|count| count.as_slice()))
            .chain(owners)
            .chain(told);
        self.access().word(parts)
    }
}

impl Counts {
    fn of(erasure: Erasure) -> Self {
        Counts {
            person: erasure.person,
            identifiers: erasure.identifiers,
            events: erasure.events,
            values: erasure.values,
            to_be_told: erasure.to_be_told,
        }
    }
}

fn refused(error: &provenance::Error) -> Refusal {
    match error.is_input() {
        true => Refusal::new(400, "identifier: not one of this kind"),
        false => Refusal::new(
            503,
            format!("not erased, or not to the end (then asking again goes on): {error}"),
        ),
    }
}

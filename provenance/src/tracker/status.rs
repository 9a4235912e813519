//! What `/status` shows of the running process, and what it could not see.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::Ordering;

use serde_json::{Value as Json, json};

use super::Tracker;
use crate::checkpoint::Checkpointer;
use crate::config::Storage;
use crate::continued as files;
use crate::key::Origin;
use crate::vocabulary::Timestamp;

/// Most distinct blind spots that are listed; more are counted under one heading.
const MAX_BLIND_SPOTS: usize = 1024;

/// What a hook could not see, or could not do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum BlindSpot {
    /// An argument or a part of it that cannot be visited.
    UnvisitedInput,
    /// An input above a cap (size, number, depth) or not decodable.
    CappedInput,
    /// A body that was not scanned, or not to its end.
    UnscannedBody,
    /// A model in the config that no attribute serves.
    ModelWithoutHook,
    /// A write around a model, to a table of one, of which the SQL text does not tell the values.
    BypassedModel,
    /// A tracked value bound on a connection that our instrumentation does not see.
    UninstrumentedConnection,
    /// An `#[egress]` function in which no call was seen.
    EgressWithoutCall,
    /// A client followed redirects and does not tell where to.
    UnseenRedirect,
    /// A share whose record was not on disk in time.
    EvidenceFailure,
    /// A row whose identifiers belong to two people: they were not linked.
    OwnerConflict,
    /// A hook that panicked, as code of the host's that it called (`Display`, `Serialize`, ..) may.
    HookPanicked,
    /// The evidence file was removed, replaced or damaged: evidence goes on in another one.
    EvidenceLost,
    /// Data of a person who was erased is still there: once a person, place and day.
    ErasedPersonMet,
}

impl BlindSpot {
    fn as_str(self) -> &'static str {
        match self {
            BlindSpot::UnvisitedInput => "unvisited_input",
            BlindSpot::CappedInput => "capped_input",
            BlindSpot::UnscannedBody => "unscanned_body",
            BlindSpot::ModelWithoutHook => "model_without_hook",
            BlindSpot::BypassedModel => "bypassed_model",
            BlindSpot::UninstrumentedConnection => "uninstrumented_connection",
            BlindSpot::EgressWithoutCall => "egress_without_call",
            BlindSpot::UnseenRedirect => "unseen_redirect",
            BlindSpot::EvidenceFailure => "evidence_failure",
            BlindSpot::OwnerConflict => "owner_conflict",
            BlindSpot::HookPanicked => "hook_panicked",
            BlindSpot::EvidenceLost => "evidence_lost",
            BlindSpot::ErasedPersonMet => "erased_person_met",
        }
    }
}

impl Tracker {
    fn egress_status(&self) -> Json {
        let egress = self.config().egress;
        json!({
            "on_violation": self.switched().unwrap_or(egress.on_violation).as_str(),
            "switched": self.switched().is_some(),
            "read_ahead": egress.read_ahead,
            "streams": egress.streams.as_str(),
        })
    }

    /// What `/status` shows of the running process: registry, queue, key, blind spots.
    pub fn status(&self) -> serde_json::Map<String, Json> {
        self.work_off();
        let inner = &self.0;
        let (evicted, expired) = inner.registry.losses();
        let mut blind_spots: Vec<_> = inner
            .blind_spots
            .iter()
            .map(|spot| (spot.key().0.as_str(), spot.key().1.clone(), *spot.value()))
            .collect();
        blind_spots.sort();
        let mut notes = Vec::new();
        if let Origin::Created(path) = &inner.keys.origin {
            let name = path
                .file_name()
                .map(|n| n.to_string_lossy().into_owned())
                .unwrap_or_default();
            notes.push(format!(
                "the master key was created beside the database ({name}): it protects copies of the database \
                 alone; for more, give RUNTIME_TRACKING_KEY"
            ));
            if !path.exists() {
                notes.push(format!(
                    "the master key's file ({name}) is gone: put it back before this process ends, or no service will \
                     start on this evidence"
                ));
            }
        }
        if let Some(path) = &inner.signing_key {
            let name = path.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
            notes.push(format!(
                "the key that signs checkpoints lies beside the database ({name}): whoever controls this machine can \
                 sign too, but not replace what was written elsewhere before; for more, set checkpoints.key_file"
            ));
        }
        let home = self.home();
        if let Storage::Sqlite(path) = &home.storage
            && files::first(path) != *path
        {
            let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            notes.push(format!(
                "evidence goes on in {}, as what was written before was removed, replaced or damaged while it was \
                 written: {} and what else stands beside it is left as it is",
                name(path),
                name(&files::first(path))
            ));
        }
        let status = json!({
            "registry_size": inner.registry.len(),
            "registry": { "values": inner.registry.len(), "max_values": inner.config.max_values, "evicted": evicted, "expired": expired },
            "queue": inner.recorder.status(),
            "following": (!inner.config.follow_interval.is_zero()).then(|| inner.following.status()),
            "continued": home.continued,
            "egress": self.egress_status(),
            "recipients": inner.config.recipients.iter().map(|(name, recipient)| (name.as_str(), recipient.status())).collect::<HashMap<_, _>>(),
            "suppress": self.suppress_status(),
            "instance": self.instance_id(),
            "service": inner.instance.service,
            "environment": inner.instance.environment,
            "build": inner.instance.build,
            "taxonomy": crate::inventory::TAXONOMY,
            "key_id": inner.keys.id,
            "key_epoch": inner.config.key_epoch,
            "checkpoints": inner.checkpointer.as_ref().map(Checkpointer::status),
            "notes": notes,
            "blind_spots": blind_spots.into_iter().map(|(kind, site, count)| json!({ "kind": kind, "site": site, "count": count })).collect::<Vec<_>>(),
        });
        #[cfg_attr(not(feature = "sql-fallback"), allow(unused_mut))]
        let mut status = match status {
            Json::Object(map) => map,
            _ => serde_json::Map::new(),
        };
        #[cfg(feature = "sql-fallback")]
        {
            let reads = inner
                .reads
                .iter()
                .map(|of| ((*of.key()).to_owned(), Json::from(*of.value())));
            status.insert("reads_without_model".into(), Json::Object(reads.collect()));
        }
        status
    }

    fn suppress_status(&self) -> Vec<Json> {
        let now = Timestamp::now();
        let rules = self.config().suppress.iter().zip(&self.0.suppressed);
        rules
            .map(|(rule, count)| rule.status(now, count.load(Ordering::Relaxed)))
            .collect()
    }

    /// A rule of `suppress`, by its place among them, left a finding out.
    pub(crate) fn suppressed(&self, rule: usize) {
        if let Some(count) = self.0.suppressed.get(rule) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn blind_spot(&self, kind: BlindSpot, site: &str) {
        let spots = &self.0.blind_spots;
        let listed = spots.len() < MAX_BLIND_SPOTS;
        let key = (kind, if listed { site.to_owned() } else { "(others)".to_owned() });
        *spots.entry(key).or_insert(0) += 1;
    }
}

//! Going on in another file where the one that is written to is lost: removed, replaced, cut off, or damaged.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value as Json, json};

use super::{BlindSpot, Tracker};
use crate::Error;
use crate::config::Storage;
use crate::continued;
use crate::detect::Entry;
use crate::erased::Erased;
use crate::error::ErrorKind;
use crate::hex::hex;
use crate::store::Writer;
use crate::store::erase::Eraser;
use crate::store::follow::Follower;
use crate::store::write::{self, Forgotten, Instance, Record};
use crate::ticket::{self, Generation, Ticket};
use crate::vocabulary::{Event, EventType, Fingerprint, Tag, Timestamp};

/// The first event of a chain that goes on in another file.
const CONTINUED: &str = "X_EVIDENCE_CONTINUED";
/// Values that one commit takes.
const BATCH: usize = 2048;

/// Where evidence goes.
pub(super) struct Home {
    pub(super) storage: Storage,
    pub(super) generation: Generation,
    /// Made before anything was read there; taken by whoever follows.
    pub(super) follower: Mutex<Option<Follower>>,
    pub(super) forgotten: Arc<Forgotten>,
    /// What `/status` says of the file before, where there was one.
    pub(super) continued: Json,
}

impl Home {
    pub(super) fn first(storage: Storage, writer: &Writer) -> Self {
        Home {
            storage,
            generation: 0,
            follower: Mutex::default(),
            forgotten: writer.forgotten(),
            continued: Json::Null,
        }
    }
}

/// Values as a registry takes them at start, the newest last. `rotated`: values may stand there under several epochs.
pub(crate) fn values(
    erased: &Erased,
    rotated: bool,
    mut restored: Vec<write::Value>,
) -> impl ExactSizeIterator<Item = (Fingerprint, Entry, Arc<Tag>)> + Send + use<> {
    restored.retain(|value| !value.tag.owner.as_ref().is_some_and(|owner| erased.has(owner)));
    // A value that was met under several epochs is one, under its newest fingerprint.
    let mut newest = std::collections::HashMap::new();
    if rotated {
        for value in &restored {
            newest.entry(value.entry.to_bytes()).or_insert(value.fingerprint);
        }
    }
    // Newest first, as the store gives them; the newest must be the last to be evicted.
    restored.into_iter().rev().map(move |value| {
        let renamed = rotated.then(|| newest.get(&value.entry.to_bytes())).flatten();
        match renamed.filter(|newest| **newest != value.fingerprint) {
            Some(newest) => {
                let tag = Tag {
                    fingerprint: Some(*newest),
                    ..(*value.tag).clone()
                };
                (*newest, value.entry, Arc::new(tag))
            }
            None => (value.fingerprint, value.entry, value.tag),
        }
    })
}

impl Tracker {
    /// Where evidence is written to now: `storage_path`, or the file beside it that it goes on in since that was removed,
    /// replaced or damaged.
    pub fn storage(&self) -> Storage {
        self.home().storage.clone()
    }

    /// Begins the next file, or joins the processes that did, with all that is known: values, links, who was erased.
    /// Nothing that stands there is changed.
    pub(super) fn renew(&self, generation: Generation, why: &str) -> Result<Writer, Error> {
        let now = self.home();
        let Storage::Sqlite(lost) = &now.storage else {
            return Err(Error::new(ErrorKind::Store, "only a file can go on in another one"));
        };
        let inner = &self.0;
        let instance = Instance {
            id: ticket::instance(inner.instance.id, generation),
            ..inner.instance.clone()
        };
        let mut path = lost.clone();
        let (storage, mut writer) = loop {
            path = continued::next(&path)
                .ok_or_else(|| Error::new(ErrorKind::Store, "there are no more names for a file to go on in"))?;
            let storage = Storage::Sqlite(path.clone());
            match Writer::open(&storage, &inner.keys, &instance) {
                Ok(writer) => break (storage, writer),
                // It is somebody else's, or lost as well.
                Err(error) if error.is_lost() || error.is_key() => {}
                Err(error) => return Err(error),
            }
        };
        let follower = match inner.config.follow_interval.is_zero() {
            true => None,
            false => Some(Follower::new(&storage, writer.learns())?),
        };
        // Those of others that began it.
        let restored = writer.restore(inner.config.max_values)?;
        for (fingerprint, entry, tag) in values(&inner.erased, !inner.keys.earlier.is_empty(), restored.values) {
            inner.registry.register(fingerprint, &entry, tag, true);
        }
        for (a, b) in &restored.links {
            inner.registry.link(a, b);
        }
        for some in inner.registry.fingerprints().chunks(BATCH) {
            let values: Vec<_> = some
                .iter()
                .flat_map(|fingerprint| {
                    let stored = inner.registry.stored(fingerprint);
                    stored.into_iter().map(|(entry, tag)| write::Value {
                        fingerprint: *fingerprint,
                        kind: entry.kind(),
                        entry,
                        tag,
                    })
                })
                .map(|value| Record::Value(Box::new(value)))
                .collect();
            writer.append(&values, None)?;
        }
        let links = inner.registry.links();
        let links: Vec<_> = links.into_iter().map(|(a, b)| Record::Link(a, b)).collect();
        writer.append(&links, None)?;
        Eraser::open(&storage)?.carry(&inner.erased.all())?;

        // Without the path, which is the error's.
        let why = why.rsplit(": ").next().unwrap_or(why);
        let (before, file) = (name(lost), name(&path));
        let mut event = Event::new(EventType::Own(CONTINUED.into()), "provenance");
        event.extras.insert("before".into(), before.clone().into());
        event.extras.insert("why".into(), why.into());
        event.extras.insert("instance_before".into(), self.instance_id().into());
        if let Some(head) = inner.recorder.heads()() {
            event.extras.insert("batch_before".into(), head.batch_no.into());
            event.extras.insert("seq_before".into(), head.seq.into());
            event.extras.insert("chain_before".into(), hex(&head.chain).into());
        }
        let (told, ticket) = (self.told(&event), Ticket::default());
        writer.append(&[Record::Event(Box::new(event), ticket.clone())], None)?;
        ticket.stamp(generation);
        self.tell(told, &ticket);

        eprintln!(
            "provenance: warning: {}: {why}: evidence goes on in {}",
            lost.display(),
            path.display()
        );
        self.blind_spot(BlindSpot::EvidenceLost, &before);
        let continued = json!({ "file": file, "before": before, "why": why, "since": Timestamp::now() });
        let home = Home {
            storage,
            generation,
            follower: Mutex::new(follower),
            forgotten: writer.forgotten(),
            continued,
        };
        *inner.home.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(home);
        Ok(writer)
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

//! From values to pseudonyms, and to what the registry knows of them.

use std::sync::Arc;

use super::Tracker;
use crate::detect::{Entry, Hit, Limits, Media, Message, Part};
use crate::memo::{Key, RowKey};
use crate::store::write::{self, Record};
use crate::tracked::{Field, Value};
use crate::vocabulary::canonical::canonical;
use crate::vocabulary::tag::FieldSpec;
use crate::vocabulary::{EventTag, Fingerprint, Kind, Owner, Tag, Timestamp, category};

/// What a key of a memo is made for.
#[derive(Clone, Copy)]
enum Use {
    Value,
    Owner,
    Tag,
    Derivation,
}

/// A value as a hook met it: pseudonyms and shape, no raw value.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    pub(crate) spec: Arc<FieldSpec>,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) entry: Arc<Entry>,
    /// `string`, `integer`, `number`, `boolean`.
    pub(crate) json_type: &'static str,
    /// Characters, for text that is no secret.
    pub(crate) length: Option<usize>,
}

impl Observed {
    /// The tag that this site gives the value, whether it is registered or not.
    pub(crate) fn tag(&self, owner: Option<&Owner>, source: &Arc<str>, at: Timestamp) -> Tag {
        let spec = &self.spec;
        Tag {
            fingerprint: (!spec.secret).then_some(self.fingerprint),
            category: spec.category.clone(),
            field: spec.name.clone(),
            description: spec.description.clone(),
            owner: owner.cloned(),
            source: source.clone(),
            pii: spec.pii,
            created_at: at,
        }
    }
}

impl Tracker {
    /// What an attribute's static declares, resolved once.
    pub(crate) fn spec(&self, field: &'static Field) -> Arc<FieldSpec> {
        let address = std::ptr::from_ref(field) as usize;
        if let Some(spec) = self.0.declared.get(&address) {
            return spec.clone();
        }
        let spec = Arc::new(FieldSpec {
            name: field.name.into(),
            category: field.category.into(),
            description: field.description.into(),
            kind: field
                .kind
                .and_then(Kind::parse)
                .unwrap_or_else(|| category::default_kind(field.category)),
            pii: field.pii.unwrap_or(true),
            secret: field
                .secret
                .unwrap_or_else(|| category::is_secret(field.category, field.name)),
        });
        self.0.declared.insert(address, spec.clone());
        spec
    }

    /// What `input_fields` says of a parameter, with the owner kind it identifies, if any.
    pub(crate) fn input_spec(&self, name: &str) -> Option<(Arc<FieldSpec>, Option<&str>)> {
        let found = match self.0.inputs.get(name) {
            Some(found) => found,
            None => self.0.inputs.get(&name.to_lowercase())?,
        };
        Some((found.spec.clone(), found.owner_kind.as_deref()))
    }

    /// Pseudonyms and shape of a value; `None` where there is nothing to keep (empty, NaN).
    pub(crate) fn observe(&self, spec: &Arc<FieldSpec>, value: Value<'_>) -> Option<Observed> {
        let (fingerprint, entry) = match spec.secret {
            true => self.pseudonyms(spec.kind, value)?,
            false => self.known_pseudonyms(spec.kind, value)?,
        };
        let (json_type, length) = match value {
            Value::Text(text) if !spec.secret => ("string", Some(text.chars().count())),
            Value::Text(_) => ("string", None),
            Value::Integer(_) => ("integer", None),
            Value::Float(_) => ("number", None),
            Value::Bool(_) => ("boolean", None),
        };
        Some(Observed {
            spec: spec.clone(),
            fingerprint,
            entry,
            json_type,
            length,
        })
    }

    /// The fingerprint of a value that is no secret.
    pub(crate) fn fingerprint(&self, kind: Kind, value: Value<'_>) -> Option<Fingerprint> {
        self.known_pseudonyms(kind, value).map(|(fingerprint, _)| fingerprint)
    }

    fn known_pseudonyms(&self, kind: Kind, value: Value<'_>) -> Option<(Fingerprint, Arc<Entry>)> {
        let mut key = self.0.hashes.begin(Use::Value as u8);
        key.number(kind as u64);
        key.value(value);
        let key = key.end();
        if let Some(known) = self.0.values.get(key) {
            return Some(known);
        }
        let made = self.pseudonyms(kind, value)?;
        self.0.values.keep(key, made.clone());
        Some(made)
    }

    fn pseudonyms(&self, kind: Kind, value: Value<'_>) -> Option<(Fingerprint, Arc<Entry>)> {
        let canonical = zeroize::Zeroizing::new(canonical(kind, value)?);
        let fingerprint = self.0.fingerprinter.fingerprint(canonical.as_bytes());
        for earlier in self.0.fingerprinter.earlier(canonical.as_bytes()) {
            self.rename(earlier, fingerprint);
        }
        Some((
            fingerprint,
            Arc::new(self.0.registry.detector().entry(kind, &canonical)),
        ))
    }

    /// A value that was registered under an earlier epoch was met again.
    fn rename(&self, earlier: Fingerprint, fingerprint: Fingerprint) {
        for (entry, tag) in self.0.registry.rename(earlier, fingerprint) {
            // To the store it is new: a restart takes the newest one for the value's fingerprint.
            let tag = Tag {
                created_at: Timestamp::now(),
                ..(*tag).clone()
            };
            self.0.recorder.send(Record::Value(Box::new(write::Value {
                fingerprint,
                kind: entry.kind(),
                entry,
                tag: Arc::new(tag),
            })));
        }
    }

    /// The owner with this identifier.
    pub(crate) fn owner(&self, kind: &str, value: Value<'_>) -> Option<Owner> {
        let mut key = self.0.hashes.begin(Use::Owner as u8);
        key.text(kind);
        key.value(value);
        let key = key.end();
        if let Some(known) = self.0.people.get(key) {
            return Some(known);
        }
        let owner = self.0.owners.identified(kind, value)?;
        self.0.people.keep(key, owner.clone());
        Some(owner)
    }

    /// Begins the key of a loaded row. What is known of rows ends when the registry forgets.
    pub(crate) fn row_key(&self) -> RowKey<'_> {
        let mut key = self.0.hashes.row();
        key.number(self.0.registry.generation());
        key
    }

    /// Begins the key of a derivation.
    pub(crate) fn derivation_key(&self) -> Key {
        self.0.hashes.begin(Use::Derivation as u8)
    }

    pub(crate) fn knows_row(&self, key: u64) -> bool {
        self.0.rows.has(key)
    }

    /// Every value of this row is registered.
    pub(crate) fn note_row(&self, key: u64) {
        self.0.rows.note(key);
    }

    /// What is registered in a text: one hit, a telling one if there is one.
    pub(crate) fn hits(&self, text: &str, media: Media) -> Vec<Hit> {
        let message = Message {
            parts: vec![Part {
                place: String::new(),
                bytes: text.as_bytes(),
                media,
            }],
        };
        let limits = Limits {
            hits: 1,
            ..Limits::default()
        };
        self.registry().detector().scan(&message, limits).hits
    }

    /// Whether a text that is about to be kept as it is holds a value that says somebody by itself.
    pub(crate) fn tells(&self, text: &str) -> bool {
        self.hits(text, Media::Text).iter().any(|hit| !hit.weak)
    }

    /// Registers a value and gives its tag for an event: category, field and description as
    /// this site has them, source and time as first seen. `confirmed`: by a commit or a load.
    pub(crate) fn register(
        &self,
        observed: &Observed,
        owner: Option<&Owner>,
        source: &Arc<str>,
        confirmed: bool,
        at: Timestamp,
    ) -> EventTag {
        let mut tag = observed.tag(owner, source, at);
        let registered = self.registered(observed, &tag, confirmed);
        if tag.owner.is_some() && registered.owner.is_none() {
            // Of somebody who was erased.
            tag.owner = None;
            tag.fingerprint = None;
        }
        tag.source = registered.source.clone();
        tag.created_at = registered.created_at;
        EventTag {
            tag,
            detail: serde_json::Map::new(),
        }
    }

    /// Registers a value, and gives the tag that it was first seen under.
    fn registered(&self, observed: &Observed, tag: &Tag, confirmed: bool) -> Arc<Tag> {
        if let Some(nobodys) = self.refused(tag) {
            return Arc::new(nobodys);
        }
        let spec = &observed.spec;
        let mut key = self.0.hashes.begin(Use::Tag as u8);
        key.number(self.0.registry.generation());
        key.slice(&observed.fingerprint.0);
        key.number(u64::from(confirmed) << 8 | spec.kind as u64);
        key.text(&spec.category);
        key.text(tag.owner.as_ref().map_or("", Owner::as_str));
        let key = key.end();
        if let Some(known) = self.0.registered.get(key) {
            return known;
        }
        let registered = self
            .0
            .registry
            .register(observed.fingerprint, &observed.entry, tag.clone(), confirmed);
        if registered.fresh && !spec.secret {
            self.0.recorder.send(Record::Value(Box::new(write::Value {
                fingerprint: observed.fingerprint,
                kind: spec.kind,
                entry: (*observed.entry).clone(),
                tag: registered.tag.clone(),
            })));
        }
        self.0.registered.keep(key, registered.tag.clone());
        registered.tag
    }

    /// Two identifiers are of one person, on the host's word.
    pub(crate) fn link(&self, a: &Owner, b: &Owner) {
        if self.are_erased(a, b) {
            return;
        }
        if self.registry().link(a, b) {
            self.0.recorder.send(Record::Link(a.clone(), b.clone()));
        }
    }

    /// Two identifiers stand in one row of the database; `false` if they are known to be two people's.
    pub(crate) fn link_by_row(&self, a: &Owner, b: &Owner) -> bool {
        if self.are_erased(a, b) {
            return true;
        }
        let linked = self.registry().link_by_row(a, b);
        if linked == Ok(true) {
            self.0.recorder.send(Record::Link(a.clone(), b.clone()));
        }
        linked.is_ok()
    }
}

//! Reading evidence: no key needed, never writes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use diesel::dsl::{exists, max};
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use super::schema::{
    self, Found, Mode, Rest, batches, event_counts, event_tags, events, fingerprints, instances, keys, owner_links,
};
use super::verify::{self, Verified};
use crate::Error;
use crate::error::ErrorKind;
use crate::vocabulary::{Fingerprint, Timestamp, category};

/// How long a question waits for a writer. In WAL readers wait only while a file is made.
const PATIENCE: Duration = Duration::from_secs(2);
/// Keys looked up at once: below the 999 variables of older SQLite builds.
const KEYS: usize = 500;

/// Tries to read a file at rest before it counts as being written.
const ATTEMPTS: usize = 3;

/// Reads one evidence file, also while a service writes it.
///
/// A file that nobody writes is read as it is: nothing is created beside it, and its folder may be
/// read-only. While a service writes, SQLite shares its journal's index (`-wal` and `-shm`, which
/// the service has made) with readers.
pub struct Reader {
    path: PathBuf,
    connection: SqliteConnection,
    /// How the file lay when the connection was made without a journal.
    rest: Option<Rest>,
}

/// Which events to list.
#[derive(Clone, Debug, Default)]
pub struct EventQuery {
    /// At most this many; the caller caps it.
    pub limit: usize,
    /// Only this event type.
    pub event_type: Option<String>,
    /// At or after.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
    /// Only events with a tag of this category (any spelling of the same category).
    pub category: Option<String>,
    /// Only shares with this recipient.
    pub recipient: Option<String>,
    /// Only this request's.
    pub request_id: Option<String>,
    /// Only events that carry this fingerprint (64 hex digits).
    pub fingerprint: Option<String>,
    /// Only events of this person under this identifier (`email:9f86..`): its owner, its user, or a tag's owner.
    pub owner: Option<String>,
    /// Continue after the page that gave this cursor.
    pub cursor: Option<String>,
}

/// One page of events, newest first.
#[derive(Debug, Serialize)]
pub struct EventPage {
    /// The events.
    pub events: Vec<StoredEvent>,
    /// Give it as `cursor` for the next page; `None` on the last.
    pub next_cursor: Option<String>,
}

/// An event as the audit API shows it.
#[derive(Debug, Clone, Serialize)]
pub struct StoredEvent {
    /// `<instance>-<seq>`.
    pub event_id: String,
    /// When the hook saw it.
    pub created_at: Timestamp,
    /// `DATA_SHARE`, ...
    pub event_type: String,
    /// Who did it.
    pub actor: String,
    /// Onto what.
    pub target: Option<String>,
    /// The shape of the data.
    pub payload: Map<String, Json>,
    /// The request.
    pub request_id: Option<String>,
    /// The signed-in user.
    pub user_id: Option<String>,
    /// The tags, each a flat object.
    pub matched_tags: Vec<Map<String, Json>>,
    /// Owner, recipient, outcome, certain, purpose, site, service, environment, build, instance, ...
    pub extras: Map<String, Json>,
}

impl StoredEvent {
    fn is_about(&self, query: &EventQuery) -> bool {
        let has = |key: &str, wanted: &str| {
            let says = |tag: &Map<String, Json>| tag.get(key).and_then(Json::as_str) == Some(wanted);
            self.matched_tags.iter().any(says)
        };
        query
            .fingerprint
            .as_ref()
            .is_none_or(|wanted| has("fingerprint", wanted))
            && query.owner.as_ref().is_none_or(|wanted| {
                self.extras.get("owner").and_then(Json::as_str) == Some(wanted)
                    || self.user_id.as_ref() == Some(wanted)
                    || has("owner", wanted)
            })
    }
}

/// Which days [`Reader::flows`] sums.
#[derive(Clone, Debug, Default)]
pub struct FlowQuery {
    /// From this time's day (UTC) on.
    pub since: Option<Timestamp>,
    /// Before this time; its day counts as a whole where it has begun.
    pub until: Option<Timestamp>,
}

/// How many events of one kind carried one kind of value.
#[derive(Clone, Debug, Serialize)]
pub struct Flow {
    /// What is the same in all of them.
    #[serde(flatten)]
    pub key: FlowKey,
    /// How many: an event with two values of the same field counts once.
    pub events: i64,
}

/// What tells flows apart.
#[derive(Clone, Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowKey {
    /// The UTC day, `2026-11-22`.
    pub day: String,
    /// `DATA_SHARE`, ...
    pub event_type: String,
    /// Who did it.
    pub actor: String,
    /// Onto what.
    pub target: Option<String>,
    /// Who a share went to.
    pub recipient: Option<String>,
    /// Category of the value, canonical.
    pub category: String,
    /// Field name of the value.
    pub field: String,
    /// Where the value was first seen.
    pub source: String,
    /// Whether it is personal data.
    pub pii: bool,
}

impl FlowKey {
    fn all(event: &StoredEvent) -> std::collections::BTreeSet<Self> {
        let text = |tag: &Map<String, Json>, key: &str| tag.get(key).and_then(Json::as_str).unwrap_or("").to_owned();
        let of = |tag: &Map<String, Json>| FlowKey {
            day: event.created_at.to_string().chars().take(10).collect(),
            event_type: event.event_type.clone(),
            actor: event.actor.clone(),
            target: event.target.clone(),
            recipient: event.extras.get("recipient").and_then(Json::as_str).map(str::to_owned),
            category: category::canonical(&text(tag, "category")).into_owned(),
            field: text(tag, "field"),
            source: text(tag, "source"),
            pii: tag.get("pii").and_then(Json::as_bool).unwrap_or(true),
        };
        event.matched_tags.iter().map(of).collect()
    }
}

/// Which fingerprints to list.
#[derive(Clone, Debug, Default)]
pub struct FingerprintQuery {
    /// At most this many; the caller caps it.
    pub limit: usize,
    /// Only of this category (any spelling).
    pub category: Option<String>,
    /// Continue after the page that gave this cursor.
    pub cursor: Option<String>,
}

/// One page of fingerprints, in order of first appearance, newest first.
#[derive(Debug, Serialize)]
pub struct FingerprintPage {
    /// The fingerprints.
    pub fingerprints: Vec<StoredFingerprint>,
    /// Give it as `cursor` for the next page; `None` on the last.
    pub next_cursor: Option<String>,
}

/// A fingerprint with the tag it was first seen under.
#[derive(Debug, Clone, Serialize)]
pub struct StoredFingerprint {
    /// 64 hex digits.
    pub fingerprint: String,
    /// The first event that carried it; `None` if only a load was seen.
    pub first_seen_event_id: Option<String>,
    /// When it was first seen.
    pub first_seen_at: Timestamp,
    /// When it was last seen.
    pub last_seen_at: Timestamp,
    /// Field name.
    pub field: String,
    /// Category as written.
    pub category: String,
    /// Description.
    pub description: String,
    /// Whose.
    pub owner: Option<String>,
    /// Where first seen.
    pub source: String,
    /// Events that carried it.
    pub count: i64,
}

/// What `/status` shows of the file.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Events by type.
    pub events: std::collections::BTreeMap<String, i64>,
    /// Distinct (fingerprint, category, owner).
    pub fingerprints: i64,
    /// `instances`, `batches`, `last_seq` and `head` {`instance`, `batch`, `hash`} of the newest instance,
    /// `checked` (`tail`), `ok`, and where that is false, `problem` {`event_id`, `what`}.
    pub chain: Map<String, Json>,
    /// Key id.
    pub key_id: Option<String>,
}

impl Reader {
    /// Opens an existing file read-only.
    ///
    /// # Errors
    /// [`Error::is_store`]: missing, not a database, not an evidence file, or of a newer version.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let rest = Rest::of(path);
        match Reader::open_at(path, rest) {
            // A service began to write it at the same time.
            Err(_) if rest.is_some() && rest != Rest::of(path) => Reader::open_at(path, None),
            opened => opened,
        }
    }

    fn open_at(path: &Path, rest: Option<Rest>) -> Result<Self, Error> {
        let empty = || {
            let text = format!(
                "{}: there is no evidence file here (yet); check the path",
                path.display()
            );
            Err(Error::new(ErrorKind::Store, text))
        };
        if schema::look(path)? == Found::Nothing {
            return empty();
        }
        let mode = if rest.is_some() { Mode::Look } else { Mode::Read };
        let mut connection = schema::connect(path, mode, PATIENCE)?;
        if schema::check(&mut connection, path)? == 0 {
            return empty();
        }
        Ok(Reader {
            path: path.to_owned(),
            connection,
            rest,
        })
    }

    /// Events, newest first; a DATA_SHARE is folded with its outcome.
    ///
    /// # Errors
    /// [`Error::is_input`] for a malformed cursor; [`Error::is_store`] when the file cannot be read.
    pub fn events(&mut self, query: &EventQuery) -> Result<EventPage, Error> {
        if query.fingerprint.is_some() || query.owner.is_some() {
            return self.filtered(query);
        }
        let from = query.cursor.as_deref().map(EventKey::parse).transpose()?;
        self.snapshot(|connection| {
            let mut keys = event_keys(connection, query, from)?;
            let more = keys.len() > query.limit;
            keys.truncate(query.limit);
            let next_cursor = keys.last().filter(|_| more).map(EventKey::to_string);
            if query.category.is_some() {
                to_shares(connection, &mut keys)?;
            }
            Ok(EventPage {
                next_cursor,
                events: stored_events(connection, &keys)?,
            })
        })
    }

    /// Looks at every event.
    fn filtered(&mut self, query: &EventQuery) -> Result<EventPage, Error> {
        let mut all = EventQuery {
            limit: 500,
            fingerprint: None,
            owner: None,
            ..query.clone()
        };
        let mut found: Vec<StoredEvent> = Vec::new();
        loop {
            let page = self.events(&all)?;
            for event in page.events {
                if !event.is_about(query) {
                    continue;
                }
                if found.len() == query.limit {
                    let next_cursor = found.last().and_then(EventKey::of).map(|key| key.to_string());
                    return Ok(EventPage {
                        events: found,
                        next_cursor,
                    });
                }
                found.push(event);
            }
            if page.next_cursor.is_none() {
                return Ok(EventPage {
                    events: found,
                    next_cursor: None,
                });
            }
            all.cursor = page.next_cursor;
        }
    }

    /// One event, by its id; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::is_store`] when the file cannot be read.
    pub fn event(&mut self, event_id: &str) -> Result<Option<StoredEvent>, Error> {
        let key = event_id.split_once('-').and_then(|(instance, seq)| {
            Some(EventKey {
                created_at: 0,
                instance: u64::from_str_radix(instance, 16).ok()?.cast_signed(),
                seq: seq.parse().ok()?,
            })
        });
        let Some(key) = key else { return Ok(None) };
        self.snapshot(|connection| Ok(stored_events(connection, &[key])?.pop()))
    }

    /// All identifiers of the person who has this one, it among them; in order.
    ///
    /// # Errors
    /// [`Error::is_store`] when the file cannot be read.
    pub fn identifiers(&mut self, owner: &str) -> Result<Vec<String>, Error> {
        self.snapshot(|connection| {
            let mut known = std::collections::BTreeSet::from([owner.to_owned()]);
            let mut new = vec![owner.to_owned()];
            while let Some(one) = new.pop() {
                let links = owner_links::table
                    .filter(owner_links::a.eq(&one).or(owner_links::b.eq(&one)))
                    .select((owner_links::a, owner_links::b))
                    .load::<(String, String)>(connection)?;
                for other in links.into_iter().flat_map(|(a, b)| [a, b]) {
                    if known.insert(other.clone()) {
                        new.push(other);
                    }
                }
            }
            Ok(known.into_iter().collect())
        })
    }

    /// What went where, summed: one flow for each combination of its keys and UTC day.
    ///
    /// # Errors
    /// [`Error::is_store`] when the file cannot be read.
    pub fn flows(&mut self, query: &FlowQuery) -> Result<Vec<Flow>, Error> {
        let mut flows: BTreeMap<FlowKey, i64> = BTreeMap::new();
        let mut all = EventQuery {
            limit: 500,
            since: query.since,
            until: query.until,
            ..EventQuery::default()
        };
        loop {
            let page = self.events(&all)?;
            for event in &page.events {
                for key in FlowKey::all(event) {
                    *flows.entry(key).or_default() += 1;
                }
            }
            all.cursor = page.next_cursor;
            if all.cursor.is_none() {
                break;
            }
        }
        Ok(flows.into_iter().map(|(key, events)| Flow { key, events }).collect())
    }

    /// Fingerprints.
    ///
    /// # Errors
    /// As [`Reader::events`].
    pub fn fingerprints(&mut self, query: &FingerprintQuery) -> Result<FingerprintPage, Error> {
        let from = query.cursor.as_deref().map(FingerprintKey::parse).transpose()?;
        self.snapshot(|connection| fingerprint_page(connection, query, from.as_ref()))
    }

    /// The chain after a batch of an instance (16 hex digits), as the file has it; `None` where it has no such
    /// batch. Whether the events give this chain is for [`Reader::verify`] to say.
    ///
    /// # Errors
    /// [`Error::is_store`] when the file cannot be read.
    pub fn chain_at(&mut self, instance: &str, batch_no: i64) -> Result<Option<[u8; 32]>, Error> {
        let Ok(instance) = u64::from_str_radix(instance, 16) else {
            return Ok(None);
        };
        self.snapshot(|connection| {
            let found = batches::table
                .find((instance.cast_signed(), batch_no))
                .select(batches::chain)
                .get_result::<Vec<u8>>(connection)
                .optional()?;
            Ok(found.and_then(|chain| chain.try_into().ok()))
        })
    }

    /// Counts. Cheap enough to be asked every second; the chain is checked over its tail only:
    /// the last batch of the instance that started last.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn summary(&mut self) -> Result<Summary, Error> {
        self.snapshot(|connection| {
            let mut events = BTreeMap::new();
            // One row for each instance and type: summed here, as SQL's sum may overflow.
            for (event_type, count) in event_counts::table
                .select((event_counts::event_type, event_counts::events))
                .load::<(String, i64)>(connection)?
            {
                let total: &mut i64 = events.entry(event_type).or_default();
                *total = total.saturating_add(count);
            }
            Ok(Summary {
                events,
                fingerprints: fingerprints::table.count().get_result(connection)?,
                chain: chain_tail(connection)?,
                key_id: keys::table
                    .order(keys::epoch.desc())
                    .select(keys::key_id)
                    .first(connection)
                    .optional()?,
            })
        })
    }

    /// Recomputes every instance's chain from its rows. Needs no key. What it cannot see: a whole
    /// instance, or the last batches of one, removed together with their rows.
    ///
    /// # Errors
    /// The file cannot be read. What does not hold is not an error but in the answer.
    pub fn verify(&mut self) -> Result<Verified, Error> {
        self.ask(verify::verify)
    }

    /// One view of the file, whatever is written meanwhile.
    fn snapshot<T>(&mut self, read: impl Fn(&mut SqliteConnection) -> QueryResult<T>) -> Result<T, Error> {
        self.ask(|connection| connection.transaction(&read))
    }

    /// Asks a file at rest, and again if it was not at rest all the time: SQLite does not watch a file
    /// that it was told to read as it is.
    fn ask<T>(&mut self, read: impl Fn(&mut SqliteConnection) -> QueryResult<T>) -> Result<T, Error> {
        for _ in 0..ATTEMPTS {
            if self.rest.is_some() && self.rest != Rest::of(&self.path) {
                *self = Reader::open(&self.path)?;
            }
            let answer = read(&mut self.connection);
            if self.rest.is_none() || self.rest == Rest::of(&self.path) {
                return answer.map_err(|e| schema::failed(&self.path, &e));
            }
        }
        *self = Reader::open_at(&self.path, None)?;
        read(&mut self.connection).map_err(|e| schema::failed(&self.path, &e))
    }
}

fn bad_cursor() -> Error {
    Error::new(
        ErrorKind::Input,
        "cursor: is not one that an earlier page gave; leave it out to begin with the newest",
    )
}

/// 16 hex digits of a 64-bit number, from the front of `text`.
fn take_number(text: &mut &str) -> Option<i64> {
    let (digits, rest) = text.split_at_checked(16)?;
    let canonical = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    *text = rest;
    Some(
        u64::from_str_radix(digits, 16)
            .ok()
            .filter(|_| canonical)?
            .cast_signed(),
    )
}

/// The place of an event in the order of pages.
#[derive(Clone, Copy)]
struct EventKey {
    created_at: i64,
    instance: i64,
    seq: i64,
}

impl EventKey {
    fn parse(mut text: &str) -> Result<Self, Error> {
        let mut number = || take_number(&mut text);
        let key = (number(), number(), number());
        match key {
            (Some(created_at), Some(instance), Some(seq)) if text.is_empty() => Ok(EventKey {
                created_at,
                instance,
                seq,
            }),
            _ => Err(bad_cursor()),
        }
    }
}

impl EventKey {
    /// Of an event that was read.
    fn of(event: &StoredEvent) -> Option<Self> {
        let (instance, seq) = event.event_id.split_once('-')?;
        Some(EventKey {
            created_at: event.created_at.0,
            instance: u64::from_str_radix(instance, 16).ok()?.cast_signed(),
            seq: seq.parse().ok()?,
        })
    }
}

impl std::fmt::Display for EventKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}{:016x}{:016x}", self.created_at, self.instance, self.seq)
    }
}

/// The place of a fingerprint; `skip` rows with this time and fingerprint were shown already.
/// (Their owners tell them apart, and do not belong into a URL.)
struct FingerprintKey {
    first_seen_at: i64,
    fingerprint: Fingerprint,
    skip: i64,
}

impl FingerprintKey {
    fn parse(mut text: &str) -> Result<Self, Error> {
        let key = |text: &mut &str| {
            let first_seen_at = take_number(text)?;
            let (fingerprint, rest) = text.split_at_checked(64)?;
            *text = rest;
            Some(FingerprintKey {
                first_seen_at,
                fingerprint: Fingerprint::parse(fingerprint)?,
                skip: take_number(text).filter(|skip| *skip >= 0)?,
            })
        };
        key(&mut text).filter(|_| text.is_empty()).ok_or_else(bad_cursor)
    }
}

impl std::fmt::Display for FingerprintKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}{}{:016x}", self.first_seen_at, self.fingerprint, self.skip)
    }
}

fn one_more(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)
}

/// Which events a page shows, and one more; along one index.
fn event_keys(
    connection: &mut SqliteConnection,
    query: &EventQuery,
    from: Option<EventKey>,
) -> QueryResult<Vec<EventKey>> {
    // The same bounds on either table; `le` on the time alone gives the index its range.
    macro_rules! bounded {
        ($keys:ident, $at:expr, $instance:expr, $seq:expr) => {{
            if let Some(since) = query.since {
                $keys = $keys.filter($at.ge(since.0));
            }
            if let Some(until) = query.until {
                $keys = $keys.filter($at.lt(until.0));
            }
            if let Some(key) = from {
                let within = $instance
                    .lt(key.instance)
                    .or($instance.eq(key.instance).and($seq.lt(key.seq)));
                $keys = $keys
                    .filter($at.le(key.created_at))
                    .filter($at.lt(key.created_at).or(within));
            }
            $keys
                .order(($at.desc(), $instance.desc(), $seq.desc()))
                .limit(one_more(query.limit))
                .load::<(i64, i64, i64)>(connection)?
        }};
    }
    let keys = match &query.category {
        None => {
            let mut keys = events::table
                .filter(events::outcome_of.is_null())
                .select((events::created_at, events::instance, events::seq))
                .into_boxed::<Sqlite>();
            if let Some(event_type) = &query.event_type {
                keys = keys.filter(events::event_type.eq(event_type));
            }
            if let Some(recipient) = &query.recipient {
                keys = keys.filter(events::recipient.eq(recipient));
            }
            if let Some(request_id) = &query.request_id {
                keys = keys.filter(events::request_id.eq(request_id));
            }
            bounded!(keys, events::created_at, events::instance, events::seq)
        }
        Some(category) => {
            let mut keys = event_tags::table
                .filter(event_tags::canonical.eq(category::canonical(category).into_owned()))
                .select((event_tags::event_at, event_tags::instance, event_tags::seq))
                .distinct()
                .into_boxed::<Sqlite>();
            // Looked up by key for each tag, so that the order still comes from the tags' index.
            macro_rules! of_event {
                () => {
                    events::table
                        .filter(events::instance.eq(event_tags::instance))
                        .filter(events::seq.eq(event_tags::seq))
                };
            }
            if let Some(event_type) = &query.event_type {
                keys = keys.filter(exists(of_event!().filter(events::event_type.eq(event_type))));
            }
            if let Some(recipient) = &query.recipient {
                keys = keys.filter(exists(of_event!().filter(events::recipient.eq(recipient))));
            }
            if let Some(request_id) = &query.request_id {
                keys = keys.filter(exists(of_event!().filter(events::request_id.eq(request_id))));
            }
            bounded!(keys, event_tags::event_at, event_tags::instance, event_tags::seq)
        }
    };
    Ok(keys
        .into_iter()
        .map(|(created_at, instance, seq)| EventKey {
            created_at,
            instance,
            seq,
        })
        .collect())
}

/// A tag that came with the outcome of a share stands for the share.
fn to_shares(connection: &mut SqliteConnection, keys: &mut Vec<EventKey>) -> QueryResult<()> {
    let mut seqs: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for key in &*keys {
        seqs.entry(key.instance).or_default().push(key.seq);
    }
    let mut shares = HashMap::new();
    for (instance, seqs) in seqs {
        for seqs in seqs.chunks(KEYS) {
            let found = events::table
                .filter(events::instance.eq(instance).and(events::seq.eq_any(seqs)))
                .filter(events::outcome_of.is_not_null())
                .select((events::seq, events::outcome_of.assume_not_null()))
                .load::<(i64, i64)>(connection)?;
            shares.extend(found.into_iter().map(|(seq, share)| ((instance, seq), share)));
        }
    }
    let mut shown = HashSet::new();
    keys.retain_mut(|key| {
        key.seq = *shares.get(&(key.instance, key.seq)).unwrap_or(&key.seq);
        shown.insert((key.instance, key.seq))
    });
    Ok(())
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = events)]
struct EventRow {
    instance: i64,
    seq: i64,
    created_at: i64,
    event_type: String,
    actor: String,
    target: Option<String>,
    payload: String,
    owner: Option<String>,
    recipient: Option<String>,
    request_id: Option<String>,
    user_id: Option<String>,
    extras: String,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = event_tags)]
struct TagRow {
    instance: i64,
    seq: i64,
    fingerprint: Option<Vec<u8>>,
    category: String,
    field: String,
    description: String,
    owner: Option<String>,
    source: String,
    pii: i64,
    created_at: i64,
    detail: String,
}

/// How a share ended, and what became known of it only then.
#[derive(Queryable, Selectable)]
#[diesel(table_name = events)]
struct OutcomeRow {
    seq: i64,
    #[diesel(select_expression = events::outcome_of.assume_not_null())]
    of: i64,
    created_at: i64,
    outcome: Option<String>,
    owner: Option<String>,
    payload: String,
    extras: String,
}

/// The events with these keys, in their order: a few statements for each instance among them.
fn stored_events(connection: &mut SqliteConnection, keys: &[EventKey]) -> QueryResult<Vec<StoredEvent>> {
    let mut seqs: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for key in keys {
        seqs.entry(key.instance).or_default().push(key.seq);
    }
    let mut rows = HashMap::new();
    let mut tags: HashMap<_, Vec<_>> = HashMap::new();
    let mut outcomes: HashMap<_, Vec<OutcomeRow>> = HashMap::new();
    for (&instance, seqs) in &seqs {
        for seqs in seqs.chunks(KEYS) {
            let found = events::table
                .filter(events::instance.eq(instance).and(events::seq.eq_any(seqs)))
                .select(EventRow::as_select())
                .load(connection)?;
            rows.extend(found.into_iter().map(|row| ((row.instance, row.seq), row)));
            let found = event_tags::table
                .filter(event_tags::instance.eq(instance).and(event_tags::seq.eq_any(seqs)))
                .order((event_tags::seq, event_tags::idx))
                .select(TagRow::as_select())
                .load(connection)?;
            for tag in found {
                tags.entry((tag.instance, tag.seq)).or_default().push(tag.flat());
            }
            let found = events::table
                .filter(events::instance.eq(instance).and(events::outcome_of.eq_any(seqs)))
                .order(events::seq)
                .select(OutcomeRow::as_select())
                .load(connection)?;
            let late: HashMap<i64, i64> = found.iter().map(|row| (row.seq, row.of)).collect();
            let late_seqs: Vec<i64> = found.iter().map(|row| row.seq).collect();
            for row in found {
                outcomes.entry((instance, row.of)).or_default().push(row);
            }
            for seqs in late_seqs.chunks(KEYS) {
                let found = event_tags::table
                    .filter(event_tags::instance.eq(instance).and(event_tags::seq.eq_any(seqs)))
                    .order((event_tags::seq, event_tags::idx))
                    .select(TagRow::as_select())
                    .load(connection)?;
                for tag in found {
                    let of = late.get(&tag.seq).copied().unwrap_or(tag.seq);
                    tags.entry((instance, of)).or_default().push(tag.flat());
                }
            }
        }
    }
    let writers = writers(connection, seqs.keys().copied().collect())?;
    Ok(keys
        .iter()
        .filter_map(|key| {
            let id = (key.instance, key.seq);
            let row = rows.remove(&id)?;
            Some(row.stored(
                tags.remove(&id).unwrap_or_default(),
                outcomes.remove(&id).unwrap_or_default(),
                writers.get(&key.instance),
            ))
        })
        .collect())
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = instances)]
struct WriterRow {
    instance: i64,
    started_at: i64,
    service: String,
    environment: Option<String>,
    build: String,
    ended_at: Option<i64>,
}

/// Who wrote, and whether an outcome may still come from there.
struct WriterInfo {
    row: WriterRow,
    live: bool,
}

fn writers(connection: &mut SqliteConnection, ids: Vec<i64>) -> QueryResult<HashMap<i64, WriterInfo>> {
    let mut rows = Vec::new();
    for ids in ids.chunks(KEYS) {
        rows.extend(
            instances::table
                .filter(instances::instance.eq_any(ids))
                .select(WriterRow::as_select())
                .load(connection)?,
        );
    }
    let newest: HashMap<String, Option<i64>> = instances::table
        .group_by(instances::service)
        .select((instances::service, max(instances::started_at)))
        .load(connection)?
        .into_iter()
        .collect();
    Ok(rows
        .into_iter()
        .map(|row| {
            let newest = newest.get(&row.service).copied().flatten();
            let live = row.ended_at.is_none() && newest.is_none_or(|newest| newest <= row.started_at);
            (row.instance, WriterInfo { row, live })
        })
        .collect())
}

pub(super) fn instance_id(instance: i64) -> String {
    format!("{instance:016x}")
}

pub(super) fn event_id(instance: i64, seq: i64) -> String {
    format!("{instance:016x}-{seq}")
}

impl EventRow {
    fn stored(
        self,
        matched_tags: Vec<Map<String, Json>>,
        outcomes: Vec<OutcomeRow>,
        writer: Option<&WriterInfo>,
    ) -> StoredEvent {
        let (mut payload, mut extras) = (object(&self.payload), object(&self.extras));
        let mut owner = self.owner;
        for late in &outcomes {
            fold(&mut payload, object(&late.payload));
            fold(&mut extras, object(&late.extras));
            owner = owner.or_else(|| late.owner.clone());
        }
        let mut put = |key: &str, value: Json| {
            extras.insert(key.to_owned(), value);
        };
        put("instance", instance_id(self.instance).into());
        for (key, value) in [("owner", owner), ("recipient", self.recipient)] {
            if let Some(value) = value {
                put(key, value.into());
            }
        }
        if let Some(WriterInfo { row, .. }) = writer {
            put("service", row.service.as_str().into());
            put("environment", row.environment.as_deref().into());
            put("build", row.build.as_str().into());
        }
        // Of several the last one counts: a body may fail after its status was seen.
        match outcomes.into_iter().next_back() {
            Some(OutcomeRow {
                created_at: at,
                outcome,
                ..
            }) => {
                let words = outcome.unwrap_or_default();
                let (word, detail) = words.split_once(' ').unwrap_or((&words, ""));
                put("outcome", word.into());
                put("outcome_at", Timestamp(at).to_string().into());
                match (word, detail.parse::<u16>()) {
                    ("status", Ok(status)) => put("status", status.into()),
                    ("error", _) => put("error", detail.into()),
                    _ => {}
                }
            }
            None if self.event_type == "DATA_SHARE" && !extras.contains_key("outcome") => {
                let live = writer.is_some_and(|writer| writer.live);
                extras.insert("outcome".into(), if live { "pending" } else { "unknown" }.into());
            }
            None => {}
        }
        StoredEvent {
            event_id: event_id(self.instance, self.seq),
            created_at: Timestamp(self.created_at),
            event_type: self.event_type,
            actor: self.actor,
            target: self.target,
            payload,
            request_id: self.request_id,
            user_id: self.user_id,
            matched_tags,
            extras,
        }
    }
}

impl TagRow {
    /// One object: what the event knows more of the tag never hides the tag's own keys.
    fn flat(self) -> Map<String, Json> {
        let mut tag = object(&self.detail);
        for (key, value) in [
            ("fingerprint", self.fingerprint.map(|bytes| hex(&bytes)).into()),
            ("category", Json::from(self.category)),
            ("field", self.field.into()),
            ("description", self.description.into()),
            ("owner", self.owner.into()),
            ("source", self.source.into()),
            ("pii", (self.pii != 0).into()),
            ("created_at", Timestamp(self.created_at).to_string().into()),
        ] {
            tag.insert(key.to_owned(), value);
        }
        tag
    }
}

/// What became known later goes over what was known; lists grow.
fn fold(known: &mut Map<String, Json>, late: Map<String, Json>) {
    for (key, value) in late {
        match (known.get_mut(&key), value) {
            (Some(Json::Array(known)), Json::Array(more)) => known.extend(more),
            (_, value) => {
                known.insert(key, value);
            }
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A JSON object; what is none was not written by us, and is not passed on.
fn object(text: &str) -> Map<String, Json> {
    serde_json::from_str(text).unwrap_or_else(|_| Map::from_iter([("unreadable".to_owned(), true.into())]))
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = fingerprints)]
struct FingerprintRow {
    fingerprint: Vec<u8>,
    owner: String,
    category: String,
    field: String,
    description: String,
    source: String,
    first_instance: Option<i64>,
    first_seq: Option<i64>,
    first_seen_at: i64,
    last_seen_at: i64,
    events: i64,
}

fn fingerprint_page(
    connection: &mut SqliteConnection,
    query: &FingerprintQuery,
    from: Option<&FingerprintKey>,
) -> QueryResult<FingerprintPage> {
    let mut rows = fingerprints::table
        .select(FingerprintRow::as_select())
        .into_boxed::<Sqlite>();
    if let Some(category) = &query.category {
        rows = rows.filter(fingerprints::canonical.eq(category::canonical(category).into_owned()));
    }
    if let Some(from) = from {
        let within = fingerprints::fingerprint.le(from.fingerprint.0.to_vec());
        rows = rows
            .filter(fingerprints::first_seen_at.le(from.first_seen_at))
            .filter(fingerprints::first_seen_at.lt(from.first_seen_at).or(within))
            .offset(from.skip);
    }
    let mut rows: Vec<FingerprintRow> = rows
        .order((
            fingerprints::first_seen_at.desc(),
            fingerprints::fingerprint.desc(),
            fingerprints::canonical.desc(),
            fingerprints::owner.desc(),
        ))
        .limit(one_more(query.limit))
        .load(connection)?;
    let more = rows.len() > query.limit;
    rows.truncate(query.limit);
    let next_cursor = rows.last().filter(|_| more).and_then(|last| {
        let fingerprint = Fingerprint(last.fingerprint.as_slice().try_into().ok()?);
        let same = |row: &&FingerprintRow| row.first_seen_at == last.first_seen_at && row.fingerprint == fingerprint.0;
        let shown = rows.iter().rev().take_while(same).count();
        // A whole page of the same value continues a count that began before it.
        let before = from
            .filter(|from| {
                shown == rows.len() && from.first_seen_at == last.first_seen_at && from.fingerprint == fingerprint
            })
            .map_or(0, |from| from.skip);
        let key = FingerprintKey {
            first_seen_at: last.first_seen_at,
            fingerprint,
            skip: before.saturating_add(i64::try_from(shown).unwrap_or(i64::MAX)),
        };
        Some(key.to_string())
    });
    Ok(FingerprintPage {
        fingerprints: rows.into_iter().map(FingerprintRow::stored).collect(),
        next_cursor,
    })
}

impl FingerprintRow {
    fn stored(self) -> StoredFingerprint {
        StoredFingerprint {
            fingerprint: hex(&self.fingerprint),
            first_seen_event_id: self
                .first_instance
                .zip(self.first_seq)
                .map(|(instance, seq)| event_id(instance, seq)),
            first_seen_at: Timestamp(self.first_seen_at),
            last_seen_at: Timestamp(self.last_seen_at),
            field: self.field,
            category: self.category,
            description: self.description,
            owner: Some(self.owner).filter(|owner| !owner.is_empty()),
            source: self.source,
            count: self.events,
        }
    }
}

/// State of the chain for `/status`.
fn chain_tail(connection: &mut SqliteConnection) -> QueryResult<Map<String, Json>> {
    let tail = verify::tail(connection)?;
    let mut chain = Map::new();
    chain.insert(
        "instances".into(),
        instances::table.count().get_result::<i64>(connection)?.into(),
    );
    chain.insert("batches".into(), verify::batches(connection)?.into());
    chain.insert("last_seq".into(), tail.last_seq.into());
    chain.insert("head".into(), json!(tail.head));
    chain.insert("checked".into(), "tail".into());
    chain.insert("ok".into(), tail.problem.is_none().into());
    if let Some(problem) = tail.problem {
        chain.insert("problem".into(), json!(problem));
    }
    Ok(chain)
}

//! Erasing a person, and ending what was kept for its time: items are replaced by their commitments, so that
//! the chain and everybody else's items stay provable.
//!
//! All of it runs in transactions of a few dozen events. The index is the list of what is to be done: an event
//! leaves it in the same transaction in which it is erased. So whoever is interrupted begins again, and comes
//! to the same end.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Integer, Nullable};
use serde_json::Value as Json;

use super::chain::{self, Body, Hash, Salt};
use super::db::{Db, on};
use super::index::terms;
use super::pack::{self, PackedTag, Tags};
#[cfg(feature = "postgres-store")]
use super::postgres;
use super::postings::{self, Entry, Spot, Term};
use super::proof::{Items, Proof};
use super::retention;
use super::schema::{self, Mode, events, fingerprints, instances, sights};
use super::source::Source;
use super::statement::statement;
use super::stored::EventRow;
use super::texts::Catalog;
use super::values;
use crate::Error;
use crate::config::Storage;
use crate::vocabulary::{Owner, Timestamp};

/// How long a transaction waits for the service's own.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest time of one statement on a server: some read a table as a whole.
const STATEMENT_MILLIS: u32 = 600_000;
/// Events of one transaction.
const SLICE: usize = 64;
/// Rows that are looked through at once.
const WINDOW: i64 = 2_048;

/// A keyed hash of an owner: tells that somebody was erased, and leads to nothing of theirs.
pub(crate) type Person = [u8; 16];

/// The connection that erases.
pub(crate) struct Eraser {
    source: Source,
    catalog: Catalog,
}

/// What an erasure has removed.
#[derive(Debug, Default)]
pub(crate) struct Removed {
    /// Events of which something was removed.
    pub(crate) events: u64,
    pub(crate) tags: u64,
    /// Registered values, by their rows.
    pub(crate) values: Vec<(i64, i64)>,
    /// Links between identifiers.
    pub(crate) links: u64,
    /// Rows that nobody could have written so, and that were left as they are.
    pub(crate) damaged: u64,
}

impl Removed {
    pub(crate) fn add(&mut self, more: Removed) {
        self.events += more.events;
        self.tags += more.tags;
        self.values.extend(more.values);
        self.links += more.links;
        self.damaged += more.damaged;
    }
}

/// One who got something of a person.
#[derive(Clone, Debug, Default)]
pub(crate) struct Got {
    pub(crate) shares: u64,
    /// Microseconds since 1970.
    pub(crate) first_at: i64,
    pub(crate) last_at: i64,
    /// Canonical.
    pub(crate) categories: BTreeSet<String>,
}

impl Got {
    /// Of what was seen twice the larger count is the better one.
    pub(crate) fn take_in(&mut self, more: Got) {
        let first = if self.shares == 0 { i64::MAX } else { self.first_at };
        self.shares = self.shares.max(more.shares);
        self.first_at = first.min(more.first_at);
        self.last_at = self.last_at.max(more.last_at);
        self.categories.extend(more.categories);
    }
}

/// What the evidence holds of a person.
#[derive(Default)]
pub(crate) struct Survey {
    pub(crate) events: u64,
    pub(crate) values: u64,
    pub(crate) recipients: BTreeMap<String, Got>,
}

/// A line of the table of erasures.
pub(crate) struct Change {
    pub(crate) person: Person,
    pub(crate) version: i64,
    pub(crate) erasure: [u8; 16],
    /// While it is not done.
    pub(crate) owner: Option<Owner>,
    pub(crate) touched_at: i64,
    pub(crate) is_done: bool,
    pub(crate) is_lifted: bool,
}

/// A row with its proof.
#[derive(Queryable, Selectable)]
#[diesel(table_name = events)]
pub(super) struct Full {
    #[diesel(embed)]
    pub(super) event: EventRow,
    pub(super) proof: Vec<u8>,
}

/// What goes of a row.
pub(super) struct Cut {
    /// Numbers of parts.
    pub(super) parts: BTreeSet<u16>,
    /// Indices of tags.
    pub(super) tags: BTreeSet<usize>,
}

impl Full {
    pub(super) fn items(&self) -> Items<'_> {
        let event = &self.event;
        Items {
            owner: event.owner.as_deref(),
            user_id: event.user_id.as_deref(),
            target: event.target,
            request_id: event.request_id.as_deref(),
            payload: &event.payload,
            extras: &event.extras,
            tags: &event.tags,
            created_at: event.created_at(),
        }
    }

    /// The commitments of its items, and the salts of those that are there.
    fn commitments(&self, proof: &Proof, catalog: &Catalog) -> Option<(Hash, Vec<(u16, Hash)>)> {
        let n = self.event.n;
        let text = |id: i32| catalog.get(n, id).map(|text| &text.hash).ok_or("no text");
        let mut body = Body::keeping(proof.salts.clone());
        self.items().commit(&proof.gone, text, &mut body).ok()?;
        Some(body.end())
    }

    /// The hash over its commitments.
    pub(super) fn body(&self, catalog: &Catalog) -> Option<(Hash, Hash)> {
        let proof = Proof::read(&self.proof)?;
        match proof.body {
            Some(body) => Some((proof.leaf, body)),
            None => Some((proof.leaf, self.commitments(&proof, catalog)?.0)),
        }
    }

    /// Replaces items by their commitments. `None` where the row cannot be read.
    pub(super) fn cut(&mut self, cut: &Cut, catalog: &Catalog) -> Option<()> {
        let proof = Proof::read(&self.proof)?;
        let (_, commitments) = self.commitments(&proof, catalog)?;
        let mut salts = proof.salts.clone();
        let mut remaining: Vec<(u16, Salt)> = Vec::new();
        let mut gone = proof.gone.clone();
        let created_at = self.event.created_at();
        let tags: Vec<PackedTag<'_>> =
            Tags::read(&self.event.tags, self.event.owner.as_deref(), created_at).collect::<Option<_>>()?;
        let owner = match cut.parts.contains(&chain::OWNER) {
            true => None,
            false => self.event.owner.as_deref(),
        };
        let mut packed = Vec::with_capacity(self.event.tags.len());
        for (number, commitment) in &commitments {
            match number.checked_sub(chain::FIRST_TAG) {
                Some(at) => {
                    let at = usize::from(at);
                    let is_cut = cut.tags.contains(&at);
                    let tag = tags.get(at)?;
                    if is_cut {
                        pack::put_tag(&mut packed, &PackedTag::Erased(commitment), owner, created_at);
                        continue;
                    }
                    pack::put_tag(&mut packed, tag, owner, created_at);
                    if !matches!(tag, PackedTag::Erased(_)) {
                        remaining.push((*number, salts.of(*number)));
                    }
                }
                None if proof.erased(*number).is_some() => {}
                None if cut.parts.contains(number) => gone.push((*number, *commitment)),
                None => remaining.push((*number, salts.of(*number))),
            }
        }
        gone.sort_unstable();
        self.proof = Proof::write(&proof.leaf, &remaining, &gone);
        self.event.tags = packed;
        for part in &cut.parts {
            match *part {
                chain::OWNER => self.event.owner = None,
                chain::USER => self.event.user_id = None,
                chain::TARGET => self.event.target = None,
                chain::PAYLOAD => self.event.payload.clear(),
                chain::REQUEST => self.event.request_id = None,
                chain::EXTRAS => self.event.extras.clear(),
                _ => {}
            }
        }
        Some(())
    }

    pub(super) fn update(&self, connection: &mut Db<'_>) -> QueryResult<()> {
        let event = &self.event;
        let update = statement!(
            "UPDATE events SET owner = ?, user_id = ?, target = ?, request_id = ?, payload = ?, \
             extras = ?, tags = ?, proof = ? WHERE n = ? AND seq = ?",
            event.owner.as_deref(),
            event.user_id.as_deref(),
            event.target,
            event.request_id.as_deref(),
            event.payload.as_slice(),
            event.extras.as_slice(),
            event.tags.as_slice(),
            self.proof.as_slice(),
            event.n,
            event.seq
        );
        on!(connection, update.execute(connection)).map(drop)
    }
}

/// An event's row, and those of its outcomes.
pub(super) struct Group {
    pub(super) rows: Vec<Full>,
}

impl Group {
    /// Loads the events with these ids, and the texts that they name.
    pub(super) fn load(
        connection: &mut Db<'_>,
        catalog: &mut Catalog,
        ids: &BTreeSet<(i64, i64)>,
    ) -> QueryResult<Vec<Group>> {
        let mut numbers: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for (n, seq) in ids {
            numbers.entry(*n).or_default().push(*seq);
        }
        let mut groups: BTreeMap<(i64, i64), Vec<Full>> = BTreeMap::new();
        for (n, seqs) in &numbers {
            let own = events::n.eq(n).and(events::seq.eq_any(seqs));
            let outcomes = events::n.eq(n).and(events::outcome_of.eq_any(seqs));
            let own: Vec<Full> = on!(
                connection,
                events::table.filter(own).select(Full::as_select()).load(connection)
            )?;
            let outcomes = on!(
                connection,
                events::table
                    .filter(outcomes)
                    .order(events::seq)
                    .select(Full::as_select())
                    .load(connection)
            )?;
            for row in own.into_iter().chain(outcomes) {
                let seq = row
                    .event
                    .outcome_of
                    .filter(|of| seqs.contains(of))
                    .unwrap_or(row.event.seq);
                groups.entry((*n, seq)).or_default().push(row);
            }
        }
        let rows = groups.values().flatten();
        let named: Vec<_> = rows.flat_map(|row| row.event.texts()).collect();
        catalog.load(connection, named)?;
        catalog.trim();
        Ok(groups.into_values().map(|rows| Group { rows }).collect())
    }

    /// What it is found by; all of it stands where its first row does.
    pub(super) fn entries(&self, catalog: &Catalog) -> BTreeSet<Entry> {
        let mut entries = BTreeSet::new();
        let Some(first) = self.rows.first() else { return entries };
        let spot = Spot {
            at: first.event.at,
            n: first.event.n,
            seq: first.event.seq,
        };
        for row in &self.rows {
            entries.extend(terms(&row.event, catalog).into_iter().map(|term| (term, spot)));
        }
        entries
    }
}

/// The pseudonyms of one person, as rows have them.
pub(super) struct Theirs(HashSet<Vec<u8>>);

impl Theirs {
    fn of(owners: &[Owner]) -> Self {
        Theirs(owners.iter().map(|owner| pack::pack_text(owner.as_str())).collect())
    }

    fn are(&self, packed: Option<&[u8]>) -> bool {
        packed.is_some_and(|packed| self.0.contains(packed))
    }

    /// Whether a row has anything of theirs.
    fn are_in(&self, event: &EventRow) -> bool {
        self.are(event.owner.as_deref())
            || self.are(event.user_id.as_deref())
            || event
                .tags()
                .any(|tag| matches!(tag, PackedTag::Tag { owner: Some(owner), .. } if self.0.contains(&*owner)))
    }

    /// Whether a row is about somebody else, too. Who was signed in is not whom it is about.
    fn are_not_alone_in(&self, event: &EventRow) -> bool {
        let other = |owner: &[u8]| !self.0.contains(owner);
        event.owner.as_deref().is_some_and(other)
            || event
                .tags()
                .any(|tag| matches!(tag, PackedTag::Tag { owner: Some(owner), .. } if other(&owner)))
    }

    /// What goes of a row. `alone`: its event is about nobody else.
    fn cut(&self, event: &EventRow, alone: bool) -> Cut {
        let mut cut = Cut {
            parts: BTreeSet::new(),
            tags: BTreeSet::new(),
        };
        let is_owner = self.are(event.owner.as_deref());
        let is_user = self.are(event.user_id.as_deref());
        if is_owner {
            cut.parts.insert(chain::OWNER);
        }
        if is_user {
            cut.parts.insert(chain::USER);
        }
        // Their request is found by its id in logs of the host's.
        if (alone || is_owner || is_user) && event.request_id.is_some() {
            cut.parts.insert(chain::REQUEST);
        }
        if alone {
            let columns = [(chain::PAYLOAD, &event.payload), (chain::EXTRAS, &event.extras)];
            let there = columns.into_iter().filter(|(_, column)| !column.is_empty());
            cut.parts.extend(there.map(|(number, _)| number));
        }
        for (at, tag) in event.tags().enumerate() {
            if let PackedTag::Tag { owner, .. } = tag {
                // In an event about one person, what says nobody's name is theirs too.
                if owner.as_deref().map_or(alone, |owner| self.0.contains(owner)) {
                    cut.tags.insert(at);
                }
            }
        }
        cut
    }
}

impl Eraser {
    /// For existing evidence.
    ///
    /// # Errors
    /// This build does not read it.
    pub(crate) fn open(storage: &Storage) -> Result<Self, Error> {
        Ok(Eraser {
            source: Source::new(storage, connect, STATEMENT_MILLIS)?,
            catalog: Catalog::default(),
        })
    }

    pub(super) fn ask<T>(&mut self, ask: impl FnOnce(&mut Db<'_>, &mut Catalog) -> QueryResult<T>) -> Result<T, Error> {
        self.source.ask(|connection| ask(connection, &mut self.catalog))
    }

    /// All identifiers of the person who has this one.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn identifiers(&mut self, owner: &Owner) -> Result<Vec<Owner>, Error> {
        let found = self.ask(|connection, _| match is_text(connection, owner) {
            true => values::identifiers(connection, owner.as_str()),
            false => Ok(Vec::new()),
        })?;
        Ok(found.iter().filter_map(|text| Owner::from_stored(text)).collect())
    }

    /// What the evidence holds of a person, and who got something of it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn survey(&mut self, owners: &[Owner]) -> Result<Survey, Error> {
        let theirs = Theirs::of(owners);
        self.ask(|connection, catalog| {
            let mut survey = Survey::default();
            let mut ids: BTreeSet<(i64, i64)> = BTreeSet::new();
            for tail in tails(connection)? {
                tail.each(connection, &theirs, |_, found| {
                    ids.extend(found);
                    Ok(())
                })?;
            }
            for packed in &theirs.0 {
                let mut before = Spot::END;
                loop {
                    let spots = connection.find(Term::owner(packed), before, 512)?;
                    let Some(last) = spots.last() else { break };
                    before = *last;
                    ids.extend(spots.iter().map(|spot| (spot.n, spot.seq)));
                }
            }
            let ids: Vec<_> = ids.into_iter().collect();
            for ids in ids.chunks(SLICE) {
                for group in Group::load(connection, catalog, &ids.iter().copied().collect())? {
                    survey.see(&group, &theirs, catalog);
                }
            }
            survey.values = u64::try_from(value_ids(connection, &theirs)?.len()).unwrap_or(u64::MAX);
            Ok(survey)
        })
    }

    /// The recipients in the records of an erasure that was interrupted: its events do not name them any more.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn recorded(&mut self, erasure: &str) -> Result<BTreeMap<String, Got>, Error> {
        self.ask(|connection, catalog| {
            let mut recipients: BTreeMap<String, Got> = BTreeMap::new();
            for extras in retention::records(connection, catalog)? {
                let of = |key: &str| extras.get(key).unwrap_or(&Json::Null);
                if of("erasure").as_str() != Some(erasure) {
                    continue;
                }
                for told in of("recipients").as_array().into_iter().flatten() {
                    let time = |key: &str| told.get(key)?.as_str().and_then(Timestamp::parse);
                    let (Some(recipient), Some(first_at), Some(last_at)) = (
                        told.get("recipient").and_then(Json::as_str),
                        time("first_at"),
                        time("last_at"),
                    ) else {
                        continue;
                    };
                    let categories = told.get("categories").and_then(Json::as_array);
                    let words = categories.into_iter().flatten().filter_map(Json::as_str);
                    let got = Got {
                        shares: told.get("shares").and_then(Json::as_u64).unwrap_or(0),
                        first_at: first_at.0,
                        last_at: last_at.0,
                        categories: words.map(str::to_owned).collect(),
                    };
                    recipients.entry(recipient.to_owned()).or_default().take_in(got);
                }
            }
            Ok(recipients)
        })
    }

    /// Notes that people are being erased; from now on nobody registers them by a load. Gives the erasure's
    /// id: that of one which was interrupted, if there is one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn begin(&mut self, people: &[(Person, Owner)], new: [u8; 16]) -> Result<[u8; 16], Error> {
        let now = Timestamp::now().0;
        self.ask(|connection, _| {
            write(connection, |connection| {
                hold_erasures(connection)?;
                let mut erasure = new;
                for (person, _) in people {
                    let open = statement!(
                        "SELECT erasure FROM erasures WHERE person = ? AND done_at IS NULL",
                        person.as_slice()
                    )
                    .typed::<Binary>();
                    let open = on!(connection, open.get_result::<Vec<u8>>(connection)).optional()?;
                    if let Some(open) = open.and_then(|open| open.try_into().ok()) {
                        erasure = open;
                    }
                }
                for (person, owner) in people {
                    let owner = pack::pack_text(owner.as_str());
                    let noted = statement!(
                        "INSERT INTO erasures (person, version, erasure, owner, at, touched_at) \
                         VALUES (?, (SELECT coalesce(max(version), 0) + 1 FROM erasures), ?, ?, ?, ?) \
                         ON CONFLICT (person) DO UPDATE SET version = excluded.version, erasure = excluded.erasure, \
                         owner = excluded.owner, at = excluded.at, touched_at = excluded.touched_at, done_at = NULL, \
                         lifted_at = NULL",
                        person.as_slice(),
                        erasure.as_slice(),
                        owner.as_slice(),
                        now,
                        now
                    );
                    on!(connection, noted.execute(connection))?;
                }
                Ok(erasure)
            })
        })
    }

    /// Notes people who were erased from a file that is lost: in this one there is nothing of theirs.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn carry(&mut self, people: &[(Person, [u8; 16])]) -> Result<(), Error> {
        let now = Timestamp::now().0;
        self.ask(|connection, _| {
            write(connection, |connection| {
                hold_erasures(connection)?;
                for (person, erasure) in people {
                    let noted = statement!(
                        "INSERT INTO erasures (person, version, erasure, at, touched_at, done_at) \
                         VALUES (?, (SELECT coalesce(max(version), 0) + 1 FROM erasures), ?, ?, ?, ?) \
                         ON CONFLICT (person) DO NOTHING",
                        person.as_slice(),
                        erasure.as_slice(),
                        now,
                        now,
                        now
                    );
                    on!(connection, noted.execute(connection))?;
                }
                Ok(())
            })
        })
    }

    /// Erases everything of one person, whose identifiers these are.
    ///
    /// # Errors
    /// The file cannot be written; what was done by then stays done.
    pub(crate) fn erase(&mut self, erasure: &[u8; 16], owners: &[Owner]) -> Result<Removed, Error> {
        let theirs = Theirs::of(owners);
        let mut removed = Removed::default();
        self.ask(|connection, catalog| {
            // What the index does not have yet, and then what it has: what comes into it meanwhile is in one of both.
            for tail in tails(connection)? {
                tail.each(connection, &theirs, |connection, found| {
                    let found: Vec<_> = found.into_iter().collect();
                    for ids in found.chunks(SLICE) {
                        let ids = ids.iter().copied().collect();
                        removed.add(slice(connection, catalog, erasure, &theirs, &ids, Vec::new())?);
                    }
                    Ok(())
                })?;
            }
            for packed in &theirs.0 {
                let term = Term::owner(packed);
                loop {
                    let spots = connection.find(term, Spot::END, SLICE)?;
                    if spots.is_empty() {
                        break;
                    }
                    let ids = spots.iter().map(|spot| (spot.n, spot.seq)).collect();
                    let listed = spots.into_iter().map(|spot| (term, spot)).collect();
                    removed.add(slice(connection, catalog, erasure, &theirs, &ids, listed)?);
                }
            }
            let values = value_ids(connection, &theirs)?;
            for ids in values.chunks(4 * SLICE) {
                write(connection, |connection| {
                    ids.iter().try_for_each(|id| forget_value(connection, *id))
                })?;
                removed.values.extend(ids);
            }
            for owner in owners {
                if is_text(connection, owner) {
                    let links = statement!(
                        "DELETE FROM owner_links WHERE a = ? OR b = ?",
                        owner.as_str(),
                        owner.as_str()
                    );
                    removed.links += on!(connection, links.execute(connection))? as u64;
                }
            }
            Ok(())
        })?;
        Ok(removed)
    }

    /// Notes that nothing is left, and forgets the pseudonyms.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn finish(&mut self, erasure: &[u8; 16]) -> Result<(), Error> {
        let now = Timestamp::now().0;
        self.ask(|connection, _| {
            write(connection, |connection| {
                hold_erasures(connection)?;
                let done = statement!(
                    "UPDATE erasures SET version = (SELECT max(version) + 1 FROM erasures), done_at = ?, \
                     owner = NULL WHERE erasure = ? AND done_at IS NULL",
                    now,
                    erasure.as_slice()
                );
                on!(connection, done.execute(connection)).map(drop)
            })
        })
    }

    /// The people of an erasure came back.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn lift(&mut self, erasure: &[u8; 16]) -> Result<(), Error> {
        let now = Timestamp::now().0;
        self.ask(|connection, _| {
            write(connection, |connection| {
                hold_erasures(connection)?;
                let lifted = statement!(
                    "UPDATE erasures SET version = (SELECT max(version) + 1 FROM erasures), lifted_at = ? \
                     WHERE erasure = ? AND lifted_at IS NULL",
                    now,
                    erasure.as_slice()
                );
                on!(connection, lifted.execute(connection)).map(drop)
            })
        })
    }

    /// What came into the table of erasures after this version, in order.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn changes(&mut self, after: i64) -> Result<Vec<Change>, Error> {
        type Line = (Vec<u8>, i64, Vec<u8>, Option<Vec<u8>>, i64, Option<i64>, Option<i64>);
        type Columns = (
            Binary,
            BigInt,
            Binary,
            Nullable<Binary>,
            BigInt,
            Nullable<BigInt>,
            Nullable<BigInt>,
        );
        let lines = self.ask(|connection, _| {
            let lines = statement!(
                "SELECT person, version, erasure, owner, touched_at, done_at, lifted_at FROM erasures \
                 WHERE version > ? ORDER BY version",
                after
            )
            .typed::<Columns>();
            on!(connection, lines.load::<Line>(connection))
        })?;
        let change = |(person, version, erasure, owner, touched_at, done_at, lifted_at): Line| {
            Some(Change {
                person: person.try_into().ok()?,
                version,
                erasure: erasure.try_into().ok()?,
                owner: owner.and_then(|packed| Owner::from_stored(&pack::unpack_text(&packed)?)),
                touched_at,
                is_done: done_at.is_some(),
                is_lifted: lifted_at.is_some(),
            })
        };
        Ok(lines.into_iter().filter_map(change).collect())
    }

    /// The rows of all registered values.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn values(&mut self) -> Result<HashSet<(i64, i64)>, Error> {
        self.ask(|connection, _| {
            let rows: Vec<(i64, i64)> = on!(
                connection,
                fingerprints::table
                    .select((fingerprints::n, fingerprints::id))
                    .load(connection)
            )?;
            Ok(rows.into_iter().collect())
        })
    }

    /// Does what can be done now so that removed bytes are gone: empties a file's write-ahead log, which it brings into
    /// the file; vacuums a server's tables. `false` if a reader that stays kept it from that, or a missing right.
    ///
    /// # Errors
    /// The evidence cannot be written.
    pub(crate) fn clean(&mut self) -> Result<bool, Error> {
        self.ask(|connection, _| match connection {
            Db::Sqlite(connection) => truncate(connection),
            #[cfg(feature = "postgres-store")]
            // What is erased is erased, also on a server that knows no vacuum.
            Db::Postgres(connection) => Ok(postgres::vacuum(connection).unwrap_or(false)),
        })
    }
}

fn connect(path: &Path) -> Result<SqliteConnection, Error> {
    let mut connection = schema::connect(path, Mode::Write, PATIENCE)?;
    connection
        .batch_execute("PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; PRAGMA wal_autocheckpoint = 4000;")
        .map_err(|e| schema::failed(path, &e))?;
    Ok(connection)
}

fn truncate(connection: &mut SqliteConnection) -> QueryResult<bool> {
    const TRIES: usize = 40;
    #[derive(QueryableByName)]
    struct Checkpoint {
        #[diesel(sql_type = Integer)]
        busy: i32,
    }
    connection.batch_execute("PRAGMA busy_timeout = 50")?;
    let mut emptied = false;
    for _ in 0..TRIES {
        let done = diesel::sql_query("PRAGMA wal_checkpoint(TRUNCATE)").get_result::<Checkpoint>(connection);
        if done.is_ok_and(|done| done.busy == 0) {
            emptied = true;
            break;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    connection.batch_execute(&format!("PRAGMA busy_timeout = {}", PATIENCE.as_millis()))?;
    Ok(emptied)
}

/// Does something in one transaction. Where it fails, the connection is given up.
pub(super) fn write<T>(connection: &mut Db<'_>, work: impl FnOnce(&mut Db<'_>) -> QueryResult<T>) -> QueryResult<T> {
    match connection {
        Db::Sqlite(connection) => connection.batch_execute("BEGIN IMMEDIATE")?,
        #[cfg(feature = "postgres-store")]
        Db::Postgres(connection) => connection.batch_execute("BEGIN")?,
    }
    let done = work(connection)?;
    on!(connection, connection.batch_execute("COMMIT"))?;
    Ok(done)
}

/// Keeps everybody else from changing events of these instances, and from indexing them, until the transaction ends:
/// who changes an event writes all of its row. A transaction on a file keeps everybody from everything.
#[cfg_attr(not(feature = "postgres-store"), expect(unused_variables))]
pub(super) fn hold(connection: &mut Db<'_>, ids: &BTreeSet<(i64, i64)>) -> QueryResult<()> {
    match connection {
        Db::Sqlite(_) => Ok(()),
        #[cfg(feature = "postgres-store")]
        Db::Postgres(connection) => postgres::hold(connection, ids.iter().map(|(n, _)| *n).collect()),
    }
}

/// Lets the changes of the table of erasures be committed in the order of their versions.
fn hold_erasures(connection: &mut Db<'_>) -> QueryResult<()> {
    match connection {
        Db::Sqlite(_) => Ok(()),
        #[cfg(feature = "postgres-store")]
        Db::Postgres(connection) => postgres::layout(connection, true).map(drop),
    }
}

pub(super) fn remove_entries(connection: &mut Db<'_>, gone: Vec<Entry>) -> QueryResult<()> {
    match connection {
        Db::Sqlite(connection) => postings::remove_entries(connection, gone),
        #[cfg(feature = "postgres-store")]
        Db::Postgres(connection) => postgres::terms::remove(connection, gone),
    }
}

/// PostgreSQL's texts have no U+0000, so nothing is linked to an owner with one; only those kept in clear could have it.
#[cfg_attr(not(feature = "postgres-store"), expect(unused_variables))]
fn is_text(connection: &Db<'_>, owner: &Owner) -> bool {
    match connection {
        Db::Sqlite(_) => true,
        #[cfg(feature = "postgres-store")]
        Db::Postgres(_) => !owner.as_str().contains('\0'),
    }
}

impl Survey {
    fn see(&mut self, group: &Group, theirs: &Theirs, catalog: &Catalog) {
        let rows: Vec<&EventRow> = group.rows.iter().map(|row| &row.event).collect();
        if !rows.iter().any(|row| theirs.are_in(row)) {
            return;
        }
        self.events += 1;
        let Some(first) = group.rows.first().map(|row| &row.event) else {
            return;
        };
        let outcome = group.rows.last().and_then(|row| {
            row.event.outcome_of?;
            catalog.text(row.event.n, row.event.actor)
        });
        let is_share = first.event_type == schema::type_code("DATA_SHARE");
        let Some(recipient) = first.recipient(catalog).filter(|_| is_share) else {
            return;
        };
        // What was kept in went to nobody.
        if outcome.is_some_and(|word| word.as_ref() == "blocked") {
            return;
        }
        let mut categories = BTreeSet::new();
        for row in rows {
            for tag in row.tags() {
                if let PackedTag::Tag { kind, owner, .. } = tag
                    && (theirs.are(owner.as_deref()) || owner.is_none() && theirs.are(row.owner.as_deref()))
                    && let Some(kind) = catalog.get(row.n, kind.cast_signed()).and_then(|text| text.kind())
                {
                    categories.insert(kind.canonical.as_ref().to_owned());
                }
            }
        }
        if categories.is_empty() {
            return;
        }
        let at = first.created_at();
        let got = self.recipients.entry(recipient.to_owned()).or_insert_with(|| Got {
            first_at: at,
            last_at: at,
            ..Got::default()
        });
        got.shares += 1;
        got.first_at = got.first_at.min(at);
        got.last_at = got.last_at.max(at);
        got.categories.extend(categories);
    }
}

/// Events of an instance that the index does not know of.
pub(super) struct Tail {
    pub(super) n: i64,
    pub(super) indexed: i64,
}

pub(super) fn tails(connection: &mut Db<'_>) -> QueryResult<Vec<Tail>> {
    let rows = match connection {
        Db::Sqlite(connection) => instances::table
            .select((instances::n, instances::indexed))
            .load::<(i64, i64)>(*connection)?,
        #[cfg(feature = "postgres-store")]
        Db::Postgres(connection) => postgres::behind(connection)?,
    };
    Ok(rows.into_iter().map(|(n, indexed)| Tail { n, indexed }).collect())
}

impl Tail {
    /// The next rows after one.
    pub(super) fn rows(&self, connection: &mut Db<'_>, after: i64) -> QueryResult<Vec<EventRow>> {
        on!(
            connection,
            events::table
                .filter(events::n.eq(self.n).and(events::seq.gt(after)))
                .order(events::seq)
                .limit(WINDOW)
                .select(EventRow::as_select())
                .load(connection)
        )
    }

    /// Calls `found` with the ids of events that have something of theirs.
    fn each(
        &self,
        connection: &mut Db<'_>,
        theirs: &Theirs,
        mut found: impl FnMut(&mut Db<'_>, BTreeSet<(i64, i64)>) -> QueryResult<()>,
    ) -> QueryResult<()> {
        let mut after = self.indexed;
        loop {
            let rows = self.rows(connection, after)?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.seq;
            let of_theirs = rows.iter().filter(|row| theirs.are_in(row));
            let ids: BTreeSet<_> = of_theirs
                .map(|row| (row.n, row.outcome_of.unwrap_or(row.seq)))
                .collect();
            if !ids.is_empty() {
                found(connection, ids)?;
            }
        }
    }
}

/// Erases a person from some events, in one transaction. `listed` goes from the index in any case.
fn slice(
    connection: &mut Db<'_>,
    catalog: &mut Catalog,
    erasure: &[u8; 16],
    theirs: &Theirs,
    ids: &BTreeSet<(i64, i64)>,
    listed: Vec<Entry>,
) -> QueryResult<Removed> {
    write(connection, |connection| {
        hold(connection, ids)?;
        let mut removed = Removed::default();
        let mut gone = listed;
        for mut group in Group::load(connection, catalog, ids)? {
            let before = group.entries(catalog);
            let alone = !group.rows.iter().any(|row| theirs.are_not_alone_in(&row.event));
            if !group.rows.iter().any(|row| theirs.are_in(&row.event)) {
                continue;
            }
            for row in &mut group.rows {
                let alone = alone || theirs.are_in(&row.event) && !theirs.are_not_alone_in(&row.event);
                let cut = theirs.cut(&row.event, alone);
                if cut.parts.is_empty() && cut.tags.is_empty() {
                    continue;
                }
                match row.cut(&cut, catalog) {
                    Some(()) => {
                        row.update(connection)?;
                        removed.tags += cut.tags.len() as u64;
                    }
                    None => removed.damaged += 1,
                }
            }
            removed.events += 1;
            let after = group.entries(catalog);
            gone.extend(before.difference(&after));
        }
        remove_entries(connection, gone)?;
        // Somebody is at work on it.
        let touched = statement!(
            "UPDATE erasures SET touched_at = ? WHERE erasure = ?",
            Timestamp::now().0,
            erasure.as_slice()
        );
        on!(connection, touched.execute(connection))?;
        Ok(removed)
    })
}

/// The registered values of a person, in order: two that erase at once do not wait for each other in a ring.
fn value_ids(connection: &mut Db<'_>, theirs: &Theirs) -> QueryResult<Vec<(i64, i64)>> {
    let packed: Vec<&Vec<u8>> = theirs.0.iter().collect();
    let mut found = Vec::new();
    for packed in packed.chunks(500) {
        let owners = fingerprints::owner.eq_any(packed.iter().map(|packed| packed.as_slice()));
        let ids: Vec<(i64, i64)> = on!(
            connection,
            fingerprints::table
                .filter(owners)
                .select((fingerprints::n, fingerprints::id))
                .load(connection)
        )?;
        found.extend(ids);
    }
    found.sort_unstable();
    Ok(found)
}

/// Forgets a registered value, and where it was seen.
pub(super) fn forget_value(connection: &mut Db<'_>, id: (i64, i64)) -> QueryResult<()> {
    on!(connection, {
        diesel::delete(sights::table.find(id)).execute(connection)?;
        diesel::delete(fingerprints::table.find(id)).execute(connection)
    })
    .map(drop)
}

//! The leaves of an instance, computed from its rows.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use diesel::connection::DefaultLoadingMode;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Bool, Integer, Text};
use diesel::sqlite::{Sqlite, SqliteType, SqliteValue};

use super::chain::{self, Body, Hash, Header, Sealer};
use super::db::{Db, on};
use super::proof::{CHANGED, Items, Proof};
use super::retention::Retained;
use super::statement::statement;

/// Of a row that nobody of us wrote.
const OTHER_TYPE: &str = "the event holds something of another type";
/// Events that are hashed together: their messages stay near the processor.
const TOGETHER: usize = 16;
const MISSING: &str = "the event is missing";

/// Leaves of an instance.
pub(super) struct Leaves {
    n: i64,
    known: Arc<Known>,
}

impl Leaves {
    pub(super) fn new(connection: &mut Db<'_>, (n, instance): (i64, i64), retained: Retained) -> QueryResult<Self> {
        let known = Arc::new(Known::load(connection, n, instance, retained)?);
        Ok(Leaves { n, known })
    }

    /// Those of the events from one on, `end` not among them, as far as they hold; and what is wrong with the next.
    pub(super) fn of(
        &mut self,
        connection: &mut Db<'_>,
        from: i64,
        end: i64,
    ) -> QueryResult<(Vec<Hash>, Option<&'static str>)> {
        let found = self.read(connection, from, end)?;
        if found.wrong.is_none() {
            return Ok((found.leaves, None));
        }
        // A service that writes meanwhile has said before what the rows refer to.
        let mut retained = self.known.retained.clone();
        retained.refresh(connection)?;
        self.known = Arc::new(Known::load(connection, self.n, self.known.instance, retained)?);
        let found = self.read(connection, from, end)?;
        Ok((found.leaves, found.wrong))
    }

    fn read(&self, connection: &mut Db<'_>, from: i64, end: i64) -> QueryResult<Run> {
        let mut run = Run::new(self.known.clone(), from, end);
        match connection {
            Db::Sqlite(connection) => {
                RUN.set(Some(run));
                // No row comes back but the first one that does not hold.
                let read = statement!(
                    "SELECT 1 FROM events WHERE n = ? AND seq >= ? AND seq < ? AND NOT provenance_leaf(seq, at, after, \
                     event_type, actor, target, recipient, outcome_of, owner, user_id, request_id, payload, extras, \
                     tags, proof) ORDER BY seq LIMIT 1",
                    self.n,
                    from,
                    end
                )
                .typed::<Integer>()
                .get_result::<i32>(*connection)
                .optional();
                run = RUN.take().unwrap_or_else(|| Run::new(self.known.clone(), from, end));
                read?;
            }
            #[cfg(feature = "postgres-store")]
            Db::Postgres(connection) => server::read(connection, self.n, end, &mut run)?,
        }
        run.settle();
        if run.wrong.is_none() && run.next() < end {
            run.wrong = Some(MISSING);
        }
        Ok(run)
    }
}

/// Events that follow each other, as their rows come.
struct Run {
    known: Arc<Known>,
    from: i64,
    leaves: Vec<Hash>,
    /// What is wrong with the event after these.
    wrong: Option<&'static str>,
    /// Some events are hashed together: their items, their rows, and the leaves that are claimed.
    sealer: Sealer,
    waiting: Vec<(Row, Hash)>,
    /// Of the row at hand, one after the other: owner, user_id, request_id, payload, extras, tags and proof.
    bytes: Vec<u8>,
}

impl Run {
    fn new(known: Arc<Known>, from: i64, end: i64) -> Self {
        Run {
            known,
            from,
            leaves: Vec::with_capacity(usize::try_from(end.saturating_sub(from)).unwrap_or_default()),
            wrong: None,
            sealer: Sealer::default(),
            waiting: Vec::with_capacity(TOGETHER),
            bytes: Vec::with_capacity(1024),
        }
    }

    /// Whose row comes next.
    fn next(&self) -> i64 {
        let before = self.leaves.len() + self.waiting.len();
        self.from.saturating_add_unsigned(before as u64)
    }

    /// Takes the next row; `false` where it, or one before, does not hold.
    fn take(&mut self, row: Row) -> bool {
        let begun = self.begin(row);
        self.bytes.clear();
        if self.waiting.len() >= TOGETHER {
            self.settle();
        }
        if let Err(what) = begun {
            self.settle();
            self.wrong = self.wrong.or(Some(what));
        }
        self.wrong.is_none()
    }

    fn begin(&mut self, row: Row) -> Result<(), &'static str> {
        match row.seq {
            Some(seq) if seq != self.next() => return Err(MISSING),
            _ if !row.typed => return Err(OTHER_TYPE),
            _ => {}
        }
        let header = self.known.header(&row)?;
        let mut rest = self.bytes.as_slice();
        let mut blobs = row.lengths.map(|length| {
            let (blob, after) = rest.split_at_checked(length?)?;
            rest = after;
            Some(blob)
        });
        let [owner, user_id, request_id, payload, extras, tags, proof] = &mut blobs;
        let items = Items {
            owner: *owner,
            user_id: *user_id,
            target: row.target,
            request_id: *request_id,
            payload: payload.unwrap_or_default(),
            extras: extras.unwrap_or_default(),
            tags: tags.unwrap_or_default(),
            created_at: header.created_at,
        };
        let text = |id| self.known.text(id);
        let proof = proof.unwrap_or_default();
        if let Some((salt, leaf)) = Proof::whole(proof) {
            self.sealer.event(*salt);
            items.commit(&[], text, &mut self.sealer)?;
            self.waiting.push((row, *leaf));
            return Ok(());
        }
        let proof = Proof::read(proof).ok_or(CHANGED)?;
        let leaf = match &proof.body {
            Some(_) if !items.is_stub() => return Err(CHANGED),
            Some(_) if !self.known.retained.cover(row.event_type, row.at) => {
                return Err("the event was reduced to a stub, and no record of a retention covers it");
            }
            Some(body) => header.leaf(body),
            None => {
                let mut body = Body::new(proof.salts.clone());
                items.commit(&proof.gone, text, &mut body)?;
                body.leaf(&header)
            }
        };
        self.settle();
        match self.wrong {
            None if leaf == proof.leaf => self.leaves.push(leaf),
            wrong => self.wrong = wrong.or(Some(CHANGED)),
        }
        Ok(())
    }

    /// Makes the leaves that wait.
    fn settle(&mut self) {
        let headers = self.waiting.iter().filter_map(|(row, _)| self.known.header(row).ok());
        let leaves = self.sealer.leaves(headers);
        let claimed = self.waiting.iter().map(|(_, claimed)| claimed);
        let hold = leaves.iter().zip(claimed).take_while(|(leaf, claimed)| leaf == claimed);
        let before = self.leaves.len();
        self.leaves.extend(hold.map(|(leaf, _)| *leaf));
        if self.leaves.len() - before < self.waiting.len() {
            self.wrong = Some(CHANGED);
        }
        self.waiting.clear();
    }
}

thread_local! {
    /// What the statement that runs on this thread is for.
    static RUN: RefCell<Option<Run>> = const { RefCell::new(None) };
}

mod sql {
    #![allow(clippy::too_many_arguments, reason = "the columns of a row")]

    use diesel::sql_types::{BigInt, Binary, Nullable};

    // SQLite calls it with the row at hand; as columns of an answer, each value would be asked for under a lock.
    #[diesel::declare_sql_function(generate_return_type_helpers = false)]
    extern "SQL" {
        fn provenance_leaf(
            seq: Nullable<BigInt>,
            at: Nullable<BigInt>,
            after: Nullable<BigInt>,
            event_type: Nullable<BigInt>,
            actor: Nullable<BigInt>,
            target: Nullable<BigInt>,
            recipient: Nullable<BigInt>,
            outcome_of: Nullable<BigInt>,
            owner: Nullable<Binary>,
            user_id: Nullable<Binary>,
            request_id: Nullable<Binary>,
            payload: Nullable<Binary>,
            extras: Nullable<Binary>,
            tags: Nullable<Binary>,
            proof: Nullable<Binary>,
        ) -> Bool;
    }
}

/// Gives a connection what [`Leaves`] asks with.
pub(super) fn prepare(connection: &mut SqliteConnection) -> QueryResult<()> {
    type N = Option<Number>;
    type B = Option<Blob>;
    let leaf = |seq: N,
                at: N,
                after: N,
                event_type: N,
                actor: N,
                target: N,
                recipient: N,
                outcome_of: N,
                owner: B,
                user_id: B,
                request_id: B,
                payload: B,
                extras: B,
                tags: B,
                proof: B| {
        let numbers = [seq, at, after, event_type, actor, target, recipient, outcome_of];
        let blobs = [owner, user_id, request_id, payload, extras, tags, proof];
        let typed = numbers.iter().flatten().all(|number| number.0.is_some())
            && blobs.iter().flatten().all(|blob| blob.0.is_some());
        let numbers = numbers.map(|number| number?.0);
        let row = Row::of(numbers, blobs.map(|blob| blob?.0), typed);
        RUN.with_borrow_mut(|run| run.as_mut().is_some_and(|run| run.take(row)))
    };
    sql::provenance_leaf_utils::register_nondeterministic_impl(connection, leaf)
}

/// A number, if it is one: a file's columns may hold anything.
#[derive(FromSqlRow)]
struct Number(Option<i64>);

impl FromSql<BigInt, Sqlite> for Number {
    fn from_sql(mut value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        // `SqliteType` says of every integer that it is a long one.
        let is_number = value.value_type() == Some(SqliteType::Long);
        Ok(Number(is_number.then(|| value.read_long())))
    }
}

/// The length of bytes, if it is some; they go to the run at hand.
#[derive(FromSqlRow)]
struct Blob(Option<usize>);

impl FromSql<Binary, Sqlite> for Blob {
    fn from_sql(mut value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        if value.value_type() != Some(SqliteType::Binary) {
            return Ok(Blob(None));
        }
        let blob = value.read_blob();
        RUN.with_borrow_mut(|run| run.as_mut().map(|run| run.bytes.extend_from_slice(blob)));
        Ok(Blob(Some(blob.len())))
    }
}

/// What rows refer to.
struct Known {
    instance: i64,
    retained: Retained,
    /// Hashes of texts by number; those with numbers that no writer gives are apart.
    texts: Vec<Option<Hash>>,
    strays: HashMap<i32, Hash>,
    types: HashMap<i32, Hash>,
}

impl Known {
    fn load(connection: &mut Db<'_>, n: i64, instance: i64, retained: Retained) -> QueryResult<Self> {
        let mut texts = HashMap::new();
        // As bytes, and only what is a text: no conversion hides an edit. A number beyond 32 bits is none of
        // ours: a narrower read would cut off what was changed.
        let mut add = |(id, text, is_text): (i64, Vec<u8>, bool)| {
            if let Ok(id) = i32::try_from(id)
                && is_text
            {
                texts.insert(id, chain::bytes(&text));
            }
        };
        match connection {
            Db::Sqlite(connection) => statement!(
                "SELECT id, CAST(text AS BLOB), typeof(text) = 'text' FROM texts WHERE n = ?",
                n
            )
            .typed::<(BigInt, Binary, Bool)>()
            .load_iter::<_, DefaultLoadingMode>(*connection)?
            .try_for_each(|text| text.map(&mut add))?,
            #[cfg(feature = "postgres-store")]
            Db::Postgres(connection) => statement!("SELECT id::bigint, text, true FROM texts WHERE n = ?", n)
                .typed::<(BigInt, Binary, Bool)>()
                .load_iter::<_, DefaultLoadingMode>(*connection)?
                .try_for_each(|text| text.map(&mut add))?,
        }
        let types = statement!("SELECT event_type, name FROM event_counts WHERE n = ?", n);
        let types = types.typed::<(Integer, Text)>();
        let types = on!(connection, types.load::<(i32, String)>(connection))?;
        let mut known = Known {
            instance,
            retained,
            texts: vec![None; texts.len() + 1],
            strays: HashMap::new(),
            types: types
                .into_iter()
                .filter(|(code, name)| super::schema::type_code(name) == *code)
                .map(|(code, name)| (code, chain::text(&name)))
                .chain([(super::schema::type_code("DATA_SHARE"), chain::text("DATA_SHARE"))])
                .collect(),
        };
        for (id, hash) in texts {
            match usize::try_from(id).ok().and_then(|at| known.texts.get_mut(at)) {
                Some(text) => *text = Some(hash),
                None => drop(known.strays.insert(id, hash)),
            }
        }
        Ok(known)
    }

    fn text(&self, id: i32) -> Result<&Hash, &'static str> {
        let near = usize::try_from(id).ok().and_then(|at| self.texts.get(at));
        let text = near.and_then(Option::as_ref).or_else(|| self.strays.get(&id));
        text.ok_or("a text that the event names is missing, or was changed")
    }

    /// What an event's leaf commits to beside its items.
    fn header(&self, row: &Row) -> Result<Header<'_>, &'static str> {
        let type_name = self.types.get(&row.event_type);
        Ok(Header {
            instance: self.instance,
            seq: row.seq.unwrap_or_default(),
            at: row.at,
            created_at: row.at.wrapping_mul(1000).wrapping_add(row.after),
            event_type: row.event_type,
            type_name: type_name.ok_or("the event's type is not known, or was changed")?,
            actor: self.text(row.actor)?,
            recipient: row.recipient.map(|id| self.text(id)).transpose()?,
            outcome_of: row.outcome_of,
        })
    }
}

/// A row, but for its bytes.
struct Row {
    seq: Option<i64>,
    at: i64,
    after: i64,
    event_type: i32,
    actor: i32,
    target: Option<i32>,
    recipient: Option<i32>,
    outcome_of: Option<i64>,
    /// Of owner, user_id, request_id, payload, extras, tags and proof.
    lengths: [Option<usize>; 7],
    /// Every column holds what it may.
    typed: bool,
}

impl Row {
    /// Of eight numbers, where they are ones.
    fn of(numbers: [Option<i64>; 8], lengths: [Option<usize>; 7], mut typed: bool) -> Self {
        let [seq, at, after, event_type, actor, target, recipient, outcome_of] = numbers;
        let mut present = |number: Option<i64>| {
            typed &= number.is_some();
            number.unwrap_or(i64::MIN)
        };
        let (at, after) = (present(at), present(after));
        let (event_type, actor) = (present(event_type), present(actor));
        let mut narrow = |number: i64, least: i32| {
            let narrow = i32::try_from(number).ok().filter(|number| *number >= least);
            typed &= narrow.is_some();
            narrow.unwrap_or_default()
        };
        Row {
            seq,
            at,
            after,
            event_type: narrow(event_type, i32::MIN),
            actor: narrow(actor, 0),
            target: target.map(|target| narrow(target, 0)),
            recipient: recipient.map(|recipient| narrow(recipient, 0)),
            outcome_of,
            lengths,
            typed: typed && seq.is_some() && lengths.iter().skip(3).all(Option::is_some),
        }
    }
}

/// From PostgreSQL, which sees to the types.
#[cfg(feature = "postgres-store")]
mod server {
    use diesel::connection::DefaultLoadingMode;
    use diesel::deserialize::{self, FromSql, FromSqlRow};
    use diesel::pg::Pg;
    use diesel::prelude::*;
    use diesel::row::Field;
    use diesel::sql_types::{BigInt, Binary, Integer, Nullable};

    use super::{OTHER_TYPE, Row, Run};
    use crate::store::statement::statement;

    /// Events that are read at once: a server gives all that is asked for in one piece.
    const CHUNK: i64 = 1_024;

    type Columns = (
        BigInt,
        BigInt,
        BigInt,
        Integer,
        Integer,
        Nullable<Integer>,
        Nullable<Integer>,
        Nullable<BigInt>,
        Nullable<Binary>,
        Nullable<Binary>,
        Nullable<Binary>,
        Binary,
        Binary,
        Binary,
        Binary,
    );

    struct Whole {
        row: Row,
        bytes: Vec<u8>,
    }

    pub(super) fn read(connection: &mut PgConnection, n: i64, end: i64, run: &mut Run) -> QueryResult<()> {
        let mut more = true;
        while more && run.next() < end {
            let from = run.next();
            let rows = statement!(
                "SELECT seq, at, after, event_type, actor, target, recipient, outcome_of, owner, user_id, \
                 request_id, payload, extras, tags, proof FROM events WHERE n = ? AND seq >= ? AND seq < ? \
                 ORDER BY seq LIMIT ?",
                n,
                from,
                end,
                CHUNK
            )
            .typed::<Columns>();
            for whole in rows.load_iter::<Whole, DefaultLoadingMode>(connection)? {
                let whole = whole?;
                run.bytes.extend_from_slice(&whole.bytes);
                if !run.take(whole.row) {
                    return Ok(());
                }
            }
            more = run.next() > from;
        }
        Ok(())
    }

    impl FromSqlRow<Columns, Pg> for Whole {
        fn build_from_row<'a>(columns: &impl diesel::row::Row<'a, Pg>) -> deserialize::Result<Self> {
            let mut numbers = [None; 8];
            for (at, number) in numbers.iter_mut().enumerate() {
                let field = columns.get(at).ok_or(OTHER_TYPE)?;
                *number = match field.value() {
                    Some(value) if (3..7).contains(&at) => {
                        Some(i64::from(<i32 as FromSql<Integer, Pg>>::from_sql(value)?))
                    }
                    Some(value) => Some(<i64 as FromSql<BigInt, Pg>>::from_sql(value)?),
                    None => None,
                };
            }
            let mut bytes = Vec::with_capacity(512);
            let mut lengths = [None; 7];
            for (at, length) in (8..).zip(&mut lengths) {
                let field = columns.get(at).ok_or(OTHER_TYPE)?;
                if let Some(value) = field.value() {
                    let blob = value.as_bytes();
                    *length = Some(blob.len());
                    bytes.extend_from_slice(blob);
                }
            }
            Ok(Whole {
                row: Row::of(numbers, lengths, true),
                bytes,
            })
        }
    }
}

//! What a start reads: the values that were registered before, and who is one person.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use diesel::connection::DefaultLoadingMode;
use diesel::deserialize::{self, FromSql};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Integer};
use diesel::sqlite::{Sqlite, SqliteValue};

use super::batch::{KnownValues, value_key};
use super::db::{self, Db, on};
use super::pack;
use super::schema::{Mode, fingerprints, owner_links};
use super::statement::statement;
use super::texts::{Catalog, KindText};
use super::write::Value;
use crate::detect::Entry;
use crate::vocabulary::{Fingerprint, Kind, Owner, Tag, Timestamp};

/// Fewer values are read at once on one thread.
const MANY: usize = 20_000;

/// What a store gives back at start.
#[derive(Default)]
pub(crate) struct Restored {
    /// Newest first.
    pub(crate) values: Vec<Value>,
    pub(crate) links: Vec<(Owner, Owner)>,
}

/// What kinds of tags are called, by their numbers.
pub(super) type Kinds = HashMap<(i64, i32), KindText>;

/// All kinds of tags, each made once.
fn kinds(connection: &mut Db<'_>) -> QueryResult<Kinds> {
    // Of all texts these are JSON arrays. To ask values for theirs takes a third of what it takes to read them.
    let all = match connection {
        Db::Sqlite(connection) => statement!("SELECT n, id FROM texts WHERE substr(text, 1, 1) = '['")
            .typed::<(BigInt, Integer)>()
            .load(*connection)?,
        #[cfg(feature = "postgres-store")]
        Db::Postgres(connection) => statement!("SELECT n, id FROM texts WHERE substr(text, 1, 1) = '\\x5b'")
            .typed::<(BigInt, Integer)>()
            .load(*connection)?,
    };
    kinds_of(connection, all)
}

/// These kinds.
pub(super) fn kinds_of(connection: &mut Db<'_>, wanted: Vec<(i64, i32)>) -> QueryResult<Kinds> {
    let mut catalog = Catalog::default();
    catalog.load(connection, wanted.iter().copied())?;
    let kind = |(n, id): (i64, i32)| Some(((n, id), catalog.get(n, id)?.kind()?.clone()));
    Ok(wanted.into_iter().filter_map(kind).collect())
}

/// A registered value, as it is read back.
#[derive(Queryable, Selectable)]
#[diesel(table_name = fingerprints)]
pub(super) struct StoredValue {
    pub(super) n: i64,
    pub(super) id: i64,
    fingerprint: Stored<Fingerprint>,
    pub(super) tag: i32,
    owner: Option<Vec<u8>>,
    kind: i16,
    entry: Stored<Entry>,
    created_at: i64,
}

/// What bytes of a row say; `None` where they are damaged.
pub(super) struct Stored<T>(Option<T>);

pub(super) trait FromBytes: Sized {
    fn read(bytes: &[u8]) -> Option<Self>;
}

impl FromBytes for Fingerprint {
    fn read(bytes: &[u8]) -> Option<Self> {
        Some(Fingerprint(bytes.try_into().ok()?))
    }
}

impl FromBytes for Entry {
    fn read(bytes: &[u8]) -> Option<Self> {
        Entry::from_bytes(bytes)
    }
}

impl<T, DB: diesel::backend::Backend> Queryable<Binary, DB> for Stored<T>
where
    Self: FromSql<Binary, DB>,
{
    type Row = Self;

    fn build(row: Self) -> deserialize::Result<Self> {
        Ok(row)
    }
}

impl<T: FromBytes> FromSql<Binary, Sqlite> for Stored<T> {
    fn from_sql(mut value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        Ok(Stored(T::read(value.read_blob())))
    }
}

#[cfg(feature = "postgres-store")]
impl<T: FromBytes> FromSql<Binary, diesel::pg::Pg> for Stored<T> {
    fn from_sql(value: diesel::pg::PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Stored(T::read(value.as_bytes())))
    }
}

/// The owner of the value before: of most people several values follow each other.
#[derive(Default)]
pub(super) struct LastOwner(Option<(Vec<u8>, Owner)>);

impl LastOwner {
    fn of(&mut self, packed: Vec<u8>) -> Option<Owner> {
        match &self.0 {
            Some((last, owner)) if *last == packed => Some(owner.clone()),
            _ => {
                let owner = Owner::from_stored(&pack::unpack_text(&packed)?)?;
                self.0 = Some((packed, owner.clone()));
                Some(owner)
            }
        }
    }
}

impl StoredValue {
    /// The value with its key; `None` where it is damaged, or its kind is not known.
    pub(super) fn read(self, kinds: &Kinds, owners: &mut LastOwner) -> Option<(u64, Value)> {
        let kind = kinds.get(&(self.n, self.tag))?;
        let fingerprint = self.fingerprint.0?;
        let key = value_key(&fingerprint.0, &kind.canonical, self.owner.as_deref());
        let owner = match self.owner {
            Some(packed) => Some(owners.of(packed)?),
            None => None,
        };
        let value = Value {
            fingerprint,
            kind: Kind::of_code(self.kind)?,
            entry: self.entry.0?,
            tag: Arc::new(Tag {
                fingerprint: Some(fingerprint),
                category: kind.category.clone(),
                field: kind.field.clone(),
                description: kind.description.clone(),
                owner,
                source: kind.source.clone(),
                pii: kind.pii,
                created_at: Timestamp(self.created_at),
            }),
        };
        Some((key, value))
    }
}

/// Values, and keys with their rows.
#[derive(Default)]
struct Part {
    values: Vec<Value>,
    keys: Vec<(u64, (i64, i64))>,
}

/// What a file gives back. As many of its values as are asked for are read, and so many keys more that the writer knows
/// what is stored.
pub(super) fn file(
    connection: &mut SqliteConnection,
    path: &Path,
    known: &mut KnownValues,
    max_values: usize,
) -> QueryResult<Restored> {
    let all = fingerprints::table.count().get_result::<i64>(connection)?;
    let all = usize::try_from(all).unwrap_or(usize::MAX);
    let kinds = kinds(&mut Db::Sqlite(connection))?;
    known.reserve(all.min(max_values));
    let values = match all <= max_values {
        // All are quicker read as they lie, which is nearly the order of their times.
        true => {
            let [first, later] = whole(connection, path, &kinds, all)?;
            known.extend(first.keys.into_iter().chain(later.keys));
            let mut values = first.values;
            values.extend(later.values);
            values.reverse();
            values.sort_by_key(|value| std::cmp::Reverse(value.tag.created_at));
            values
        }
        false => {
            let rows = fingerprints::table
                .order(fingerprints::created_at.desc())
                .select(StoredValue::as_select())
                .load_iter::<StoredValue, DefaultLoadingMode>(connection)?;
            take_in(rows, &kinds, known, max_values)?
        }
    };
    Ok(Restored {
        values,
        links: links(&mut Db::Sqlite(connection))?,
    })
}

/// All values of a file, half of them on another thread where they are many.
fn whole(connection: &mut SqliteConnection, path: &Path, kinds: &Kinds, all: usize) -> QueryResult<[Part; 2]> {
    let middle = match all >= MANY {
        true => fingerprints::table
            .order((fingerprints::n, fingerprints::id))
            .select((fingerprints::n, fingerprints::id))
            .offset(i64::try_from(all / 2).unwrap_or(i64::MAX))
            .limit(1)
            .get_result::<(i64, i64)>(connection)
            .optional()?,
        false => None,
    };
    std::thread::scope(|scope| {
        let later = middle.and_then(|middle| {
            let mut beside = db::reading(path, Mode::Read).ok()?;
            let thread = std::thread::Builder::new().name("provenance-start".into());
            let read = move || part(&mut beside, kinds, Some(middle), None);
            thread.spawn_scoped(scope, read).ok()
        });
        let first = part(connection, kinds, None, middle.filter(|_| later.is_some()))?;
        let later = match later.map(std::thread::ScopedJoinHandle::join) {
            None => Part::default(),
            Some(Ok(Ok(later))) => later,
            // This connection waits longer for a writer.
            Some(_) => part(connection, kinds, middle, None)?,
        };
        Ok([first, later])
    })
}

/// Values from a row on, up to another, in their order.
fn part(
    connection: &mut SqliteConnection,
    kinds: &Kinds,
    from: Option<(i64, i64)>,
    end: Option<(i64, i64)>,
) -> QueryResult<Part> {
    let (from, end) = (
        from.unwrap_or((i64::MIN, i64::MIN)),
        end.unwrap_or((i64::MAX, i64::MAX)),
    );
    let rows = statement!(
        "SELECT n, id, fingerprint, tag, owner, kind, entry, created_at FROM fingerprints \
         WHERE (n, id) >= (?, ?) AND (n, id) < (?, ?) ORDER BY n, id",
        from.0,
        from.1,
        end.0,
        end.1
    )
    .typed::<diesel::dsl::SqlTypeOf<diesel::dsl::AsSelect<StoredValue, Sqlite>>>();
    let rows = rows.load_iter::<StoredValue, DefaultLoadingMode>(connection)?;
    let (mut part, mut owners) = (Part::default(), LastOwner::default());
    for row in rows {
        let row = row?;
        let place = (row.n, row.id);
        // A damaged row is passed over: it must not keep the service from starting.
        if let Some((key, value)) = row.read(kinds, &mut owners) {
            part.keys.push((key, place));
            part.values.push(value);
        }
    }
    Ok(part)
}

/// What a server gives back, as [`file`] does.
#[cfg(feature = "postgres-store")]
pub(super) fn server(
    connection: &mut PgConnection,
    known: &mut KnownValues,
    max_values: usize,
) -> QueryResult<Restored> {
    let kinds = kinds(&mut Db::Postgres(connection))?;
    let most = i64::try_from(max_values.saturating_mul(4)).unwrap_or(i64::MAX);
    let rows = fingerprints::table
        .order(fingerprints::created_at.desc())
        .limit(most)
        .select(StoredValue::as_select())
        .load_iter::<StoredValue, diesel::pg::PgRowByRowLoadingMode>(connection)?;
    Ok(Restored {
        values: take_in(rows, &kinds, known, max_values)?,
        links: links(&mut Db::Postgres(connection))?,
    })
}

/// The newest values, and keys of more.
fn take_in(
    rows: impl Iterator<Item = QueryResult<StoredValue>>,
    kinds: &Kinds,
    known: &mut KnownValues,
    max_values: usize,
) -> QueryResult<Vec<Value>> {
    let (mut values, mut owners) = (Vec::new(), LastOwner::default());
    for row in rows {
        let row = row?;
        let place = (row.n, row.id);
        let Some((key, value)) = row.read(kinds, &mut owners) else {
            continue;
        };
        known.insert(key, place);
        if values.len() < max_values {
            values.push(value);
        } else if known.len() >= 4 * max_values {
            break;
        }
    }
    Ok(values)
}

fn links(connection: &mut Db<'_>) -> QueryResult<Vec<(Owner, Owner)>> {
    let links = on!(
        connection,
        owner_links::table
            .select((owner_links::a, owner_links::b))
            .load::<(String, String)>(connection)
    )?;
    let owners = |(a, b): &(String, String)| Some((Owner::from_stored(a)?, Owner::from_stored(b)?));
    Ok(links.iter().filter_map(owners).collect())
}

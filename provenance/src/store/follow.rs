//! What other instances have stored since the last look: each numbers its values without gaps, in the order in
//! which they are committed, so that the last number seen of each is enough.

use std::collections::HashMap;
use std::time::Duration;

use diesel::prelude::*;

use super::db::{Db, on};
use super::load::{LastOwner, StoredValue, kinds_of};
use super::schema::{self, Mode, fingerprints, owner_links};
use super::source::Source;
use super::statement::statement;
use super::write::{Learned, Value};
use crate::Error;
use crate::config::Storage;
use crate::vocabulary::Owner;

/// Rows that one question gives at most.
const ROWS: i64 = 10_000;
/// How long a question waits for a writer.
const PATIENCE: Duration = Duration::from_secs(1);
const STATEMENT_MILLIS: u32 = 5_000;

/// What others have stored.
#[derive(Default)]
pub(crate) struct News {
    pub(crate) values: Vec<Value>,
    /// Identifiers of one person.
    pub(crate) links: Vec<(Owner, Owner)>,
}

/// Reads what others register.
pub(crate) struct Follower {
    source: Source,
    /// This instance's own number.
    n: i64,
    /// The last that was seen of each.
    seen: HashMap<i64, Last>,
    /// Told of what is read, for the counts of events by value.
    learned: Learned,
}

impl Follower {
    /// Remembers where everybody stands now. What they store from now on is given by [`Follower::look`], so the
    /// values that are there must be read after this.
    ///
    /// # Errors
    /// The evidence cannot be read.
    pub(crate) fn new(storage: &Storage, (n, learned): (i64, Learned)) -> Result<Self, Error> {
        let mut follower = Follower {
            source: Source::new(
                storage,
                |path| schema::connect(path, Mode::Read, PATIENCE),
                STATEMENT_MILLIS,
            )?,
            n,
            seen: HashMap::new(),
            learned,
        };
        follower.seen = follower.source.ask(last)?.into_iter().collect();
        Ok(follower)
    }

    /// What others have stored since the last look, in the order of each; more may follow at once if there are
    /// very many.
    ///
    /// # Errors
    /// The evidence cannot be read; the next look connects again.
    pub(crate) fn look(&mut self) -> Result<News, Error> {
        let (own, seen) = (self.n, self.seen.clone());
        let (rows, kinds, links) = self.source.ask(|connection| {
            let mut rows: Vec<StoredValue> = Vec::new();
            let mut links: Vec<(i64, i64, String, String)> = Vec::new();
            for (n, (value, link)) in last(connection)? {
                let (known, known_link) = seen.get(&n).copied().unwrap_or_default();
                if n != own && value > known {
                    rows.extend(on!(
                        connection,
                        fingerprints::table
                            .filter(fingerprints::n.eq(n).and(fingerprints::id.gt(known)))
                            .order(fingerprints::id)
                            .limit(ROWS)
                            .select(StoredValue::as_select())
                            .load(connection)
                    )?);
                }
                if n != own && link > known_link {
                    links.extend(on!(
                        connection,
                        owner_links::table
                            .filter(owner_links::n.eq(n).and(owner_links::id.gt(known_link)))
                            .order(owner_links::id)
                            .limit(ROWS)
                            .select((owner_links::n, owner_links::id, owner_links::a, owner_links::b))
                            .load::<(i64, i64, String, String)>(connection)
                    )?);
                }
            }
            let mut wanted: Vec<_> = rows.iter().map(|row| (row.n, row.tag)).collect();
            wanted.sort_unstable();
            wanted.dedup();
            let kinds = kinds_of(connection, wanted)?;
            Ok((rows, kinds, links))
        })?;
        let mut news = News::default();
        let mut owners = LastOwner::default();
        for row in rows {
            let place = (row.n, row.id);
            self.seen.entry(row.n).or_default().0 = row.id;
            if let Some((key, value)) = row.read(&kinds, &mut owners) {
                self.learned.add(key, place);
                news.values.push(value);
            }
        }
        for (n, id, a, b) in links {
            self.seen.entry(n).or_default().1 = id;
            news.links.extend(Owner::from_stored(&a).zip(Owner::from_stored(&b)));
        }
        Ok(news)
    }
}

/// The last value and the last link of an instance.
type Last = (i64, i64);

/// Those of each instance that may still store some, or has not been gone for long.
fn last(connection: &mut Db<'_>) -> QueryResult<Vec<(i64, Last)>> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        n: i64,
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        value: i64,
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        link: i64,
    }
    const DAY_MICROS: i64 = 86_400_000_000;
    let since = crate::vocabulary::Timestamp::now().0.saturating_sub(DAY_MICROS);
    let rows = statement!(
        "SELECT n, coalesce((SELECT max(f.id) FROM fingerprints f WHERE f.n = i.n), 0) AS value, \
         coalesce((SELECT max(l.id) FROM owner_links l WHERE l.n = i.n), 0) AS link \
         FROM instances i WHERE ended_at IS NULL OR ended_at > ?",
        since
    );
    let rows: Vec<Row> = on!(connection, rows.load(connection))?;
    Ok(rows.into_iter().map(|row| (row.n, (row.value, row.link))).collect())
}

//! The index of a server: which events a term is in.
//!
//! Segments as in a file would have to be asked one by one, and a fleet would have thousands of them. So there is one
//! tree; but a row stands for all events of one round, instance and minute that have the term.

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Binary};

use super::copy::copy_of;
use crate::store::pack::{self, Input};
use crate::store::postings::{Entry, Spot, Term};
use crate::store::statement::{Column, statement};

/// Milliseconds from the first event of a row to the last one, at most: so who pages knows when there can be none
/// before.
const SPAN: i64 = 65_536;
/// Bytes after which a row ends: longer ones would be kept elsewhere.
const LONGEST: usize = 1_800;
/// Rows that a question reads at once.
const FEWEST: i64 = 16;
const MOST: i64 = 512;

diesel::table! {
    event_terms (term, at, n, seq) {
        term -> BigInt,
        at -> BigInt,
        n -> BigInt,
        seq -> BigInt,
        more -> Binary,
    }
}

/// A term, the first of some events that it is in, and how the others follow: time and seq after the one before.
struct Row {
    /// The term's number.
    term: i64,
    first: Spot,
    more: Vec<u8>,
}

type Columns = (BigInt, BigInt, BigInt, BigInt, Binary);
type Read = (i64, i64, i64, i64, Vec<u8>);

impl Row {
    fn read((term, at, n, seq, more): Read) -> Self {
        Row {
            term,
            first: Spot { at, n, seq },
            more,
        }
    }

    fn key(&self) -> Entry {
        (Term::from_number(self.term), self.first)
    }

    /// What is damaged ends them.
    fn spots(&self) -> impl Iterator<Item = Spot> {
        let mut input = Input(&self.more);
        std::iter::successors(Some(self.first), move |last| {
            let at = last.at.checked_add_unsigned(input.number()?)?;
            let seq = last.seq.checked_add(input.signed()?)?;
            Some(Spot { at, n: last.n, seq })
        })
    }

    /// Packs sorted entries.
    fn pack(entries: &[Entry]) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        let mut last = Spot::END;
        for (term, spot) in entries {
            match rows.last_mut() {
                Some(row)
                    if row.term == term.number()
                        && row.first.n == spot.n
                        && spot.at.saturating_sub(row.first.at) <= SPAN
                        && row.more.len() < LONGEST =>
                {
                    pack::put(&mut row.more, spot.at.wrapping_sub(last.at).cast_unsigned());
                    pack::put_signed(&mut row.more, spot.seq.wrapping_sub(last.seq));
                }
                _ => rows.push(Row {
                    term: term.number(),
                    first: *spot,
                    more: Vec::new(),
                }),
            }
            last = *spot;
        }
        rows
    }
}

/// Adds entries of one instance; those up to `indexed` may be there already.
pub(super) fn add(connection: &mut PgConnection, mut entries: Vec<Entry>, indexed: i64) -> QueryResult<()> {
    entries.sort_unstable();
    entries.dedup();
    // What came with an outcome stands at its share, which an earlier round may have put there.
    let (new, late): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(|(_, spot)| spot.seq > indexed);
    copy_of(
        event_terms::table,
        &Row::pack(&new),
        |row, put| {
            put(Column::Big(&row.term))?;
            put(Column::Big(&row.first.at))?;
            put(Column::Big(&row.first.n))?;
            put(Column::Big(&row.first.seq))?;
            put(Column::Bytes(&row.more))
        },
        connection,
    )?;
    let alone = |(term, first): Entry| Row {
        term: term.number(),
        first,
        more: Vec::new(),
    };
    insert(connection, &late.into_iter().map(alone).collect::<Vec<_>>())
}

/// Of two rows that begin alike, one is an outcome's, which stands alone: the longer one has it, too.
fn insert(connection: &mut PgConnection, rows: &[Row]) -> QueryResult<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let [term, at, n, seq] = columns(rows.iter().map(Row::key));
    diesel::sql_query(
        "INSERT INTO event_terms AS t (term, at, n, seq, more) SELECT * FROM unnest($1, $2, $3, $4, $5) \
         ON CONFLICT (term, at, n, seq) DO UPDATE SET more = excluded.more \
         WHERE length(excluded.more) > length(t.more)",
    )
    .bind::<Array<BigInt>, _>(term)
    .bind::<Array<BigInt>, _>(at)
    .bind::<Array<BigInt>, _>(n)
    .bind::<Array<BigInt>, _>(seq)
    .bind::<Array<Binary>, _>(rows.iter().map(|row| &row.more).collect::<Vec<_>>())
    .execute(connection)
    .map(drop)
}

fn columns(entries: impl Iterator<Item = Entry>) -> [Vec<i64>; 4] {
    let mut columns: [Vec<i64>; 4] = Default::default();
    for (term, Spot { at, n, seq }) in entries {
        for (column, value) in columns.iter_mut().zip([term.number(), at, n, seq]) {
            column.push(value);
        }
    }
    columns
}

/// Up to `limit` spots of a term before `before`, newest first.
pub(in crate::store) fn find(
    connection: &mut PgConnection,
    term: Term,
    before: Spot,
    limit: usize,
) -> QueryResult<Vec<Spot>> {
    let most = i64::try_from(limit).unwrap_or(i64::MAX).clamp(FEWEST, MOST);
    let mut found: Vec<Spot> = Vec::new();
    let mut upto = before;
    loop {
        let rows = statement!(
            "SELECT term, at, n, seq, more FROM event_terms WHERE term = ? AND (at, n, seq) < (?, ?, ?) \
             ORDER BY at DESC, n DESC, seq DESC LIMIT ?",
            term.number(),
            upto.at,
            upto.n,
            upto.seq,
            most
        )
        .typed::<Columns>();
        let rows: Vec<Row> = rows.load::<Read>(connection)?.into_iter().map(Row::read).collect();
        for row in &rows {
            found.extend(row.spots().take_while(|spot| *spot < before));
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.dedup();
        let Some(last) = rows.last() else { break };
        upto = last.first;
        // Rows that begin before this one may reach over it.
        let enough = found.get(limit.saturating_sub(1));
        if enough.is_some_and(|spot| spot.at > upto.at.saturating_add(SPAN)) || (rows.len() as i64) < most {
            break;
        }
    }
    found.truncate(limit);
    Ok(found)
}

/// Takes entries out. The caller keeps their instances from adding any.
pub(in crate::store) fn remove(connection: &mut PgConnection, mut gone: Vec<Entry>) -> QueryResult<()> {
    gone.sort_unstable();
    gone.dedup();
    let [term, at, n, _] = columns(gone.iter().copied());
    let rows = diesel::sql_query(
        "SELECT DISTINCT t.term, t.at, t.n, t.seq, t.more FROM unnest($1, $2, $3) AS g (term, at, n) \
         JOIN event_terms t ON t.term = g.term AND t.n = g.n AND t.at BETWEEN g.at - $4 AND g.at",
    )
    .bind::<Array<BigInt>, _>(term)
    .bind::<Array<BigInt>, _>(at)
    .bind::<Array<BigInt>, _>(n)
    .bind::<BigInt, _>(SPAN)
    .load::<Stored>(connection)?;
    let (mut changed, mut kept) = (Vec::new(), Vec::new());
    for row in rows
        .into_iter()
        .map(|row| Row::read((row.term, row.at, row.n, row.seq, row.more)))
    {
        let all: Vec<Entry> = row.spots().map(|spot| (row.key().0, spot)).collect();
        let rest: Vec<Entry> = all
            .iter()
            .copied()
            .filter(|entry| gone.binary_search(entry).is_err())
            .collect();
        if rest.len() < all.len() {
            changed.push(row.key());
            kept.extend(Row::pack(&rest));
        }
    }
    let [term, at, n, seq] = columns(changed.into_iter());
    diesel::sql_query(
        "DELETE FROM event_terms t USING unnest($1, $2, $3, $4) AS g (term, at, n, seq) \
         WHERE t.term = g.term AND t.at = g.at AND t.n = g.n AND t.seq = g.seq",
    )
    .bind::<Array<BigInt>, _>(term)
    .bind::<Array<BigInt>, _>(at)
    .bind::<Array<BigInt>, _>(n)
    .bind::<Array<BigInt>, _>(seq)
    .execute(connection)?;
    insert(connection, &kept)
}

#[derive(QueryableByName)]
struct Stored {
    #[diesel(sql_type = BigInt)]
    term: i64,
    #[diesel(sql_type = BigInt)]
    at: i64,
    #[diesel(sql_type = BigInt)]
    n: i64,
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Binary)]
    more: Vec<u8>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use diesel::connection::SimpleConnection;
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};

    use super::*;

    fn entries(found: &BTreeSet<(i64, i64, i64, i64)>) -> Vec<Entry> {
        let entry = |(term, at, n, seq): &(i64, i64, i64, i64)| {
            let (at, n, seq) = (*at, *n, *seq);
            (Term::from_number(*term), Spot { at, n, seq })
        };
        found.iter().map(entry).collect()
    }

    proptest! {
        #[test]
        fn packed_rows_hold_every_entry_once_and_end_within_their_span(
            found in proptest::collection::btree_set((0..4_i64, -200_000..200_000_i64, 0..3_i64, 1..5_000_i64), 0..300),
        ) {
            let entries = entries(&found);
            let rows = Row::pack(&entries);
            let unpacked: Vec<Entry> = rows
                .iter()
                .flat_map(|row| row.spots().map(|spot| (row.key().0, spot)))
                .collect();
            prop_assert_eq!(&unpacked, &entries);
            for row in &rows {
                prop_assert!(row.spots().all(|spot| spot.at - row.first.at <= SPAN));
            }
        }
    }

    /// On the server that `scripts/postgres` has begun, as `scripts/test` does; without one it says so.
    #[test]
    fn a_table_of_rows_is_what_a_set_of_entries_is() {
        let Ok(server) = std::env::var("PROVENANCE_TEST_POSTGRES") else {
            eprintln!("not run: begin it with scripts/postgres");
            return;
        };
        let mut db = PgConnection::establish(&format!("{server}/postgres")).unwrap();
        db.batch_execute(
            "CREATE TEMPORARY TABLE event_terms (term BIGINT NOT NULL, at BIGINT NOT NULL, n BIGINT NOT NULL, \
             seq BIGINT NOT NULL, more BYTEA NOT NULL, PRIMARY KEY (term, at, n, seq))",
        )
        .unwrap();
        // Of each round: its entries, those that come late, and which of all there are then removed.
        let of_round = |from: i64| {
            let new = proptest::collection::btree_set((0..3_i64, 0..300_000_i64, 1..4_i64, from..from + 100), 0..60);
            (
                new,
                proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
                any::<u64>(),
            )
        };
        let rounds = (of_round(1), of_round(101), of_round(201));
        let db = std::cell::RefCell::new(db);
        let mut runner = TestRunner::new(Config::with_cases(48));
        let outcome = runner.run(&rounds, |(a, b, c)| {
            let db = &mut *db.borrow_mut();
            db.batch_execute("TRUNCATE event_terms").unwrap();
            let mut model: BTreeSet<Entry> = BTreeSet::new();
            for (indexed, (new, again, fate)) in [(0, a), (100, b), (200, c)] {
                let mut added = entries(&new);
                let known: Vec<Entry> = model.iter().copied().collect();
                // What is there comes once more, under its own term and another one.
                for at in &again {
                    if !known.is_empty() {
                        let (term, spot) = *at.get(&known);
                        added.extend([(term, spot), (Term::from_number((term.number() + 1) % 3), spot)]);
                    }
                }
                add(db, added.clone(), indexed).unwrap();
                model.extend(added);
                let gone = |entry: &Entry| (entry.1.seq.unsigned_abs().wrapping_mul(fate | 1) >> 7).is_multiple_of(4);
                let removed: Vec<Entry> = model.iter().copied().filter(gone).collect();
                remove(db, removed).unwrap();
                model.retain(|entry| !gone(entry));
                for term in (0..3).map(Term::from_number) {
                    let mut all: Vec<Spot> = model
                        .iter()
                        .filter(|(of, _)| *of == term)
                        .map(|(_, spot)| *spot)
                        .collect();
                    all.reverse();
                    let (mut paged, mut before) = (Vec::new(), Spot::END);
                    loop {
                        let page = find(db, term, before, 7).unwrap();
                        let Some(last) = page.last() else { break };
                        before = *last;
                        paged.extend(page);
                    }
                    prop_assert_eq!(&paged, &all);
                }
            }
            Ok(())
        });
        outcome.unwrap();
    }
}

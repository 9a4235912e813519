//! Which events a fingerprint, a person, a request, a recipient or a category is in.
//!
//! An index in the usual place, with a random key for each value, costs a page of the journal for each entry.
//! So entries are collected, sorted and written a few thousand events at a time, as a segment of packed
//! blocks; segments of a level are merged into one of the next, a slice with each commit. A question asks each
//! segment, of which there are at most a few dozen.
//!
//! What is here can be made again from the events, and is no evidence by itself.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Integer};

use super::pack::{self, Input};
use super::statement::statement;

/// A block's packed entries, in bytes: with its key it fills a page.
const BLOCK: usize = 3_900;
/// Segments of one level that become one of the next.
const FAN: usize = 8;
/// Blocks that one step of a merge writes, or removes.
const SLICE: usize = 96;
/// Blocks that a question reads at once.
const AHEAD: i64 = 2;

const BUILDING: i32 = 0;
const READY: i32 = 1;
const DEAD: i32 = 2;

/// What can be asked for, as 48 bits. Two may share a number: who asks looks at the event, too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Term(i64);

impl Term {
    /// It is a hash already.
    pub(super) fn fingerprint(fingerprint: &[u8]) -> Self {
        let first = fingerprint.first_chunk().copied().unwrap_or_default();
        Term((u64::from_be_bytes(first) >> 16).cast_signed())
    }

    /// `owner` is a packed text.
    pub(super) fn owner(owner: &[u8]) -> Self {
        Term::of(2, owner)
    }

    /// `request_id` is a packed text.
    pub(super) fn request(request_id: &[u8]) -> Self {
        Term::of(3, request_id)
    }

    pub(super) fn recipient(recipient: &str) -> Self {
        Term::of(4, recipient.as_bytes())
    }

    /// `category` is canonical.
    pub(super) fn category(category: &str) -> Self {
        Term::of(5, category.as_bytes())
    }

    /// As tables have it.
    #[cfg(feature = "postgres-store")]
    pub(super) fn number(self) -> i64 {
        self.0
    }

    #[cfg(feature = "postgres-store")]
    pub(super) fn from_number(number: i64) -> Self {
        Term(number)
    }

    fn of(what: u8, bytes: &[u8]) -> Self {
        use std::hash::Hasher;
        // Keys that are no secret, and stay: the numbers are in the file.
        let mut hash = siphasher::sip::SipHasher13::new_with_keys(0x7072_6f76, 0x656e_616e_6365);
        hash.write(&[what]);
        hash.write(bytes);
        Term((hash.finish() >> 16).cast_signed())
    }
}

/// A place in the order of pages: time in milliseconds, then instance and seq.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Spot {
    pub(super) at: i64,
    pub(super) n: i64,
    pub(super) seq: i64,
}

impl Spot {
    /// After every other.
    pub(super) const END: Spot = Spot {
        at: i64::MAX,
        n: i64::MAX,
        seq: i64::MAX,
    };
}

/// One entry: this is in the event at that spot.
pub(super) type Entry = (Term, Spot);

/// Packs sorted entries into blocks, each with its first entry.
struct Blocks {
    done: Vec<(Entry, Vec<u8>)>,
    first: Option<Entry>,
    last: Entry,
    bytes: Vec<u8>,
}

const NOTHING: Entry = (Term(0), Spot { at: 0, n: 0, seq: 0 });

impl Blocks {
    fn new() -> Self {
        Blocks {
            done: Vec::new(),
            first: None,
            last: NOTHING,
            bytes: Vec::new(),
        }
    }

    fn push(&mut self, entry: Entry) {
        if self.bytes.len() >= BLOCK {
            self.end();
        }
        if self.first.is_none() {
            self.first = Some(entry);
            self.last = entry;
        }
        let ((term, spot), (last_term, last)) = (entry, self.last);
        let ahead = term.0.wrapping_sub(last_term.0).cast_unsigned();
        let same_instance = spot.n == last.n;
        pack::put(&mut self.bytes, ahead << 1 | u64::from(!same_instance));
        pack::put_signed(&mut self.bytes, spot.at.wrapping_sub(last.at));
        if !same_instance {
            pack::put_signed(&mut self.bytes, spot.n.wrapping_sub(last.n));
        }
        pack::put_signed(&mut self.bytes, spot.seq.wrapping_sub(last.seq));
        self.last = entry;
    }

    fn end(&mut self) {
        if let Some(first) = self.first.take() {
            self.done.push((first, std::mem::take(&mut self.bytes)));
        }
    }
}

/// The entries of a block. What is damaged ends them.
struct Unpacked<'a> {
    input: Input<'a>,
    last: Entry,
}

impl<'a> Unpacked<'a> {
    fn new(first: Entry, bytes: &'a [u8]) -> Self {
        Unpacked {
            input: Input(bytes),
            last: first,
        }
    }
}

impl Iterator for Unpacked<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let (term, spot) = self.last;
        let ahead = self.input.number()?;
        let at = spot.at.wrapping_add(self.input.signed()?);
        let n = match ahead & 1 {
            0 => spot.n,
            _ => spot.n.wrapping_add(self.input.signed()?),
        };
        let seq = spot.seq.wrapping_add(self.input.signed()?);
        self.last = (
            Term(term.0.wrapping_add((ahead >> 1).cast_signed())),
            Spot { at, n, seq },
        );
        Some(self.last)
    }
}

#[derive(QueryableByName)]
struct Block {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = BigInt)]
    term: i64,
    #[diesel(sql_type = BigInt)]
    at: i64,
    #[diesel(sql_type = BigInt)]
    n: i64,
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Binary)]
    entries: Vec<u8>,
}

impl Block {
    fn first(&self) -> Entry {
        let Block { at, n, seq, .. } = *self;
        (Term(self.term), Spot { at, n, seq })
    }

    fn entries(&self) -> Unpacked<'_> {
        Unpacked::new(self.first(), &self.entries)
    }
}

#[derive(QueryableByName)]
struct Segment {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = Integer)]
    level: i32,
    #[diesel(sql_type = Integer)]
    state: i32,
    #[diesel(sql_type = BigInt)]
    n: i64,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

fn segments(connection: &mut SqliteConnection) -> QueryResult<Vec<Segment>> {
    statement!("SELECT id, level, state, n FROM segments ORDER BY id LIMIT 10000",).load(connection)
}

/// Up to `limit` spots of a term before `before`, newest first.
pub(super) fn find(
    connection: &mut SqliteConnection,
    term: Term,
    before: Spot,
    limit: usize,
) -> QueryResult<Vec<Spot>> {
    let mut found = Vec::new();
    for segment in segments(connection)?.iter().filter(|segment| segment.state == READY) {
        let mut here = 0;
        let mut upto = (term, before);
        'blocks: while here < limit {
            let blocks: Vec<Block> = statement!(
                "SELECT id, term, at, n, seq, entries FROM postings \
                 WHERE segment = ? AND (term, at, n, seq) < (?, ?, ?, ?) \
                 ORDER BY term DESC, at DESC, n DESC, seq DESC LIMIT ?",
                segment.id,
                upto.0.0,
                upto.1.at,
                upto.1.n,
                upto.1.seq,
                if here == 0 { 1 } else { AHEAD }
            )
            .load(connection)?;
            if blocks.is_empty() {
                break;
            }
            for block in &blocks {
                let matching = |(of, spot): Entry| (of == term && spot < before).then_some(spot);
                let spots: Vec<Spot> = block
                    .entries()
                    .take_while(|entry| entry.0 <= term)
                    .filter_map(matching)
                    .collect();
                here += spots.len();
                found.extend(spots);
                upto = block.first();
                if upto.0 < term {
                    break 'blocks;
                }
            }
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.dedup();
    found.truncate(limit);
    Ok(found)
}

/// Adds a segment with these entries.
pub(super) fn add(connection: &mut SqliteConnection, mut entries: Vec<Entry>) -> QueryResult<()> {
    if entries.is_empty() {
        return Ok(());
    }
    sort(&mut entries);
    entries.dedup();
    let id = begin(connection, 0, READY, 0)?;
    let mut blocks = Blocks::new();
    for entry in &entries {
        blocks.push(*entry);
    }
    blocks.end();
    write(connection, id, blocks.done)?;
    count(connection, id, entries.len())
}

/// Sorts entries that came in the order of their spots, or nearly: by their terms alone, which takes half the time.
fn sort(entries: &mut Vec<Entry>) {
    let mut order: Vec<(i64, usize)> = entries.iter().zip(0..).map(|((term, _), at)| (term.0, at)).collect();
    order.sort_unstable();
    let sorted = order.iter().filter_map(|(_, at)| entries.get(*at).copied()).collect();
    *entries = sorted;
    if !entries.is_sorted() {
        entries.sort();
    }
}

fn begin(connection: &mut SqliteConnection, level: i32, state: i32, n: i64) -> QueryResult<i64> {
    statement!(
        "INSERT INTO segments (id, level, state, n, entries) \
         VALUES ((SELECT ifnull(max(id), 0) + 1 FROM segments), ?, ?, ?, 0) RETURNING id",
        level,
        state,
        n
    )
    .get_result::<Number>(connection)
    .map(|number| number.id)
}

fn write(connection: &mut SqliteConnection, segment: i64, blocks: Vec<(Entry, Vec<u8>)>) -> QueryResult<()> {
    for ((term, spot), entries) in blocks {
        statement!(
            "INSERT INTO postings (segment, term, at, n, seq, entries) VALUES (?, ?, ?, ?, ?, ?)",
            segment,
            term.0,
            spot.at,
            spot.n,
            spot.seq,
            entries.as_slice()
        )
        .execute(connection)?;
    }
    Ok(())
}

fn count(connection: &mut SqliteConnection, segment: i64, more: usize) -> QueryResult<()> {
    statement!(
        "UPDATE segments SET entries = entries + ? WHERE id = ?",
        i64::try_from(more).unwrap_or(i64::MAX),
        segment
    )
    .execute(connection)
    .map(drop)
}

/// Merges in progress, in the memory of the writer that began them. One of small segments goes before one of large
/// ones, which takes long: meanwhile each question would ask many small ones.
pub(super) struct Merges {
    running: Vec<Merge>,
    /// Segments of a level that become one of the next.
    fan: usize,
    /// Blocks that one step writes, or removes.
    slice: usize,
}

impl Default for Merges {
    fn default() -> Self {
        Merges {
            running: Vec::new(),
            fan: FAN,
            slice: SLICE,
        }
    }
}

struct Merge {
    /// Of its sources; that of each is lower than those before it.
    level: i32,
    target: i64,
    sources: Vec<Source>,
}

/// A segment that is read from its beginning.
struct Source {
    segment: i64,
    /// In order, and the next ones last.
    entries: Vec<Entry>,
    /// The first entry of the last block that was read.
    upto: Option<Entry>,
}

impl Source {
    fn next(&mut self, connection: &mut SqliteConnection) -> QueryResult<Option<Entry>> {
        if self.entries.is_empty() {
            let after = self.upto.unwrap_or((Term(i64::MIN), NOTHING.1));
            let block = statement!(
                "SELECT id, term, at, n, seq, entries FROM postings \
                 WHERE segment = ? AND (term, at, n, seq) > (?, ?, ?, ?) ORDER BY term, at, n, seq LIMIT 1",
                self.segment,
                after.0.0,
                after.1.at,
                after.1.n,
                after.1.seq
            )
            .get_result::<Block>(connection)
            .optional()?;
            let Some(block) = block else { return Ok(None) };
            self.upto = Some(block.first());
            self.entries = block.entries().collect();
            self.entries.reverse();
        }
        Ok(self.entries.last().copied())
    }
}

impl Merges {
    /// One step of what is to be done, in a transaction of its own. `true` if there is more.
    pub(super) fn step(&mut self, n: i64, connection: &mut SqliteConnection) -> QueryResult<bool> {
        connection.batch_execute("BEGIN IMMEDIATE")?;
        let stepped = self.stepped(n, connection).and_then(|more| {
            connection.batch_execute("COMMIT")?;
            Ok(more)
        });
        if stepped.is_err() {
            let _ = connection.batch_execute("ROLLBACK");
            // What they hold in memory may be ahead of the file: they begin again.
            self.running.clear();
        }
        stepped
    }

    fn stepped(&mut self, n: i64, connection: &mut SqliteConnection) -> QueryResult<bool> {
        let segments = segments(connection)?;
        let is = |id, state| {
            segments
                .iter()
                .any(|segment| segment.id == id && segment.state == state)
        };
        // What others have changed is begun again.
        self.running
            .retain(|merge| is(merge.target, BUILDING) && merge.sources.iter().all(|source| is(source.segment, READY)));
        // What a merge has read, or a process that died was making.
        let is_left = |segment: &&Segment| match segment.state {
            BUILDING => segment.n == n && self.running.iter().all(|merge| merge.target != segment.id),
            state => state == DEAD,
        };
        let left = segments.iter().find(is_left);
        if let Some(left) = left {
            remove(connection, left.id, 2 * self.slice)?;
        }
        let below = self.running.last().map_or(i32::MAX, |merge| merge.level);
        let mut levels: Vec<i32> = segments.iter().map(|segment| segment.level).collect();
        levels.sort_unstable();
        levels.dedup();
        // One process at a time.
        levels.retain(|level| *level < below && segments.iter().all(|s| s.state != BUILDING || s.n == n));
        for level in levels {
            let sources: Vec<Source> = segments
                .iter()
                .filter(|segment| segment.level == level && segment.state == READY)
                .map(|segment| Source {
                    segment: segment.id,
                    entries: Vec::new(),
                    upto: None,
                })
                .collect();
            if sources.len() >= self.fan {
                let target = begin(connection, level.saturating_add(1), BUILDING, n)?;
                self.running.push(Merge { level, target, sources });
                return Ok(true);
            }
        }
        let Some(current) = self.running.last_mut() else {
            return Ok(left.is_some());
        };
        if current.advance(connection, self.slice)? {
            self.running.pop();
        }
        Ok(true)
    }
}

impl Merge {
    /// Writes some blocks; `true` if the target is whole.
    fn advance(&mut self, connection: &mut SqliteConnection, slice: usize) -> QueryResult<bool> {
        let mut blocks = Blocks::new();
        let mut written = 0;
        let mut last = None;
        let mut heap = BinaryHeap::new();
        for (at, source) in self.sources.iter_mut().enumerate() {
            if let Some(entry) = source.next(connection)? {
                heap.push(Reverse((entry, at)));
            }
        }
        // A slice ends with a block, so that the next one begins with another entry.
        while blocks.done.len() < slice
            && let Some(mut top) = heap.peek_mut()
        {
            let Reverse((entry, at)) = *top;
            if last != Some(entry) {
                blocks.push(entry);
                written += 1;
                last = Some(entry);
            }
            let next = match self.sources.get_mut(at) {
                Some(source) => {
                    source.entries.pop();
                    source.next(connection)?
                }
                None => None,
            };
            match next {
                Some(next) => *top = Reverse((next, at)),
                None => drop(PeekMut::pop(top)),
            }
        }
        let done = heap.is_empty();
        blocks.end();
        write(connection, self.target, blocks.done)?;
        count(connection, self.target, written)?;
        if done {
            for source in &self.sources {
                state(connection, source.segment, DEAD)?;
            }
            state(connection, self.target, READY)?;
        }
        Ok(done)
    }
}

fn state(connection: &mut SqliteConnection, segment: i64, state: i32) -> QueryResult<()> {
    statement!("UPDATE segments SET state = ? WHERE id = ?", state, segment)
        .execute(connection)
        .map(drop)
}

/// Removes some blocks of a segment, and the segment once it has none.
fn remove(connection: &mut SqliteConnection, segment: i64, blocks: usize) -> QueryResult<()> {
    let removed = statement!(
        "DELETE FROM postings WHERE id IN \
         (SELECT id FROM postings INDEXED BY postings_by_term WHERE segment = ? LIMIT ?)",
        segment,
        i64::try_from(blocks).unwrap_or(i64::MAX)
    )
    .execute(connection)?;
    if removed == 0 {
        statement!("DELETE FROM segments WHERE id = ?", segment).execute(connection)?;
    }
    Ok(())
}

/// Segments that a writer which is gone was making, for the next one to remove.
pub(super) fn abandon(connection: &mut SqliteConnection, is_gone: &[i64]) -> QueryResult<()> {
    for segment in segments(connection)? {
        if segment.state == BUILDING && is_gone.contains(&segment.n) {
            state(connection, segment.id, DEAD)?;
        }
    }
    Ok(())
}

/// Removes these entries from all segments.
pub(super) fn remove_entries(connection: &mut SqliteConnection, mut gone: Vec<Entry>) -> QueryResult<()> {
    gone.sort_unstable();
    gone.dedup();
    for segment in segments(connection)? {
        if segment.state == BUILDING {
            // Whoever makes it has entries in memory: it begins again.
            state(connection, segment.id, DEAD)?;
        }
        let mut rest = gone.as_slice();
        while let Some((term, spot)) = rest.last() {
            let block = statement!(
                "SELECT id, term, at, n, seq, entries FROM postings \
                 WHERE segment = ? AND (term, at, n, seq) <= (?, ?, ?, ?) \
                 ORDER BY term DESC, at DESC, n DESC, seq DESC LIMIT 1",
                segment.id,
                term.0,
                spot.at,
                spot.n,
                spot.seq
            )
            .get_result::<Block>(connection)
            .optional()?;
            // What is before the first block is in none.
            let Some(block) = block else { break };
            let (before, here) = rest.split_at(rest.partition_point(|entry| *entry < block.first()));
            rest = before;
            let all: Vec<Entry> = block.entries().collect();
            let mut kept = Blocks::new();
            let mut count = 0;
            for entry in &all {
                if here.binary_search(entry).is_err() {
                    kept.push(*entry);
                    count += 1;
                }
            }
            if count == all.len() {
                continue;
            }
            kept.end();
            statement!("DELETE FROM postings WHERE id = ?", block.id).execute(connection)?;
            write(connection, segment.id, kept.done)?;
        }
    }
    Ok(())
}

/// Every entry of every ready segment.
#[cfg(test)]
pub(super) fn each(connection: &mut SqliteConnection, mut see: impl FnMut(Entry)) -> QueryResult<()> {
    for segment in segments(connection)?.iter().filter(|segment| segment.state == READY) {
        let mut source = Source {
            segment: segment.id,
            entries: Vec::new(),
            upto: None,
        };
        while source.next(connection)?.is_some() {
            source.entries.drain(..).for_each(&mut see);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn file() -> SqliteConnection {
        let mut connection = SqliteConnection::establish(":memory:").unwrap();
        connection
            .batch_execute(
                "CREATE TABLE segments (id INTEGER PRIMARY KEY, level INTEGER, state INTEGER, n BIGINT, entries BIGINT);
                 CREATE TABLE postings (id INTEGER PRIMARY KEY, segment BIGINT, term BIGINT, at BIGINT, n BIGINT,
                     seq BIGINT, entries BLOB);
                 CREATE INDEX postings_by_term ON postings (segment, term, at, n, seq)",
            )
            .unwrap();
        connection
    }

    /// Few terms have many entries, many terms few.
    fn entry() -> impl Strategy<Value = Entry> {
        let term = prop_oneof![0..3_i64, 1_000_000..1_000_400_i64, 0..1_i64 << 48];
        (term, 0..5_000_000_i64, 1..4_i64, 1..100_000_i64)
            .prop_map(|(term, at, n, seq)| (Term(term), Spot { at, n, seq }))
    }

    #[test]
    fn a_block_is_small() {
        let mut blocks = Blocks::new();
        for seq in 0..10_000 {
            blocks.push((
                Term(7),
                Spot {
                    at: 1_700_000_000_000 + seq,
                    n: 1,
                    seq,
                },
            ));
        }
        blocks.end();
        let bytes: usize = blocks.done.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(bytes <= 3 * 10_000, "{bytes}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

        /// Whatever was merged and forgotten meanwhile, a question finds what a plain set holds.
        #[test]
        fn segments_hold_what_was_added(
            segments in prop::collection::vec(prop::collection::vec(entry(), 1..900), 1..60),
            steps in prop::collection::vec(0..6_u8, 60),
            forgotten in prop::option::of(0..60_usize),
            asked in prop::collection::vec((entry(), 1..40_usize), 10),
        ) {
            let mut connection = file();
            let mut oracle = BTreeSet::new();
            // So small that one is begun while another is not done.
            let small = || Merges { fan: 3, slice: 1, ..Merges::default() };
            let mut merges = small();
            for (at, entries) in segments.into_iter().enumerate() {
                oracle.extend(entries.iter().copied());
                add(&mut connection, entries).unwrap();
                for _ in 0..steps[at] {
                    merges.step(1, &mut connection).unwrap();
                }
                if forgotten == Some(at) {
                    let gone = |(term, spot): Entry| term.0 < 2 && spot.n == 2;
                    remove_entries(&mut connection, oracle.iter().copied().filter(|entry| gone(*entry)).collect()).unwrap();
                    oracle.retain(|entry| !gone(*entry));
                }
                if steps[at] == 5 {
                    // The process is gone, and so is what it knew of a merge.
                    merges = small();
                    abandon(&mut connection, &[1]).unwrap();
                }
            }
            for ((term, before), limit) in asked.into_iter().chain([((Term(0), Spot::END), 100_000), ((Term(1), Spot::END), 7)]) {
                let found = find(&mut connection, term, before, limit).unwrap();
                let expected = oracle.iter().rev().filter(|(of, spot)| *of == term && *spot < before);
                let expected: Vec<Spot> = expected.take(limit).map(|(_, spot)| *spot).collect();
                prop_assert_eq!(found, expected);
            }
            while merges.step(1, &mut connection).unwrap() {}
            let mut all = BTreeSet::new();
            each(&mut connection, |entry| { all.insert(entry); }).unwrap();
            prop_assert_eq!(all, oracle);
            let left = super::segments(&mut connection).unwrap();
            prop_assert!(left.iter().all(|segment| segment.state == READY));
            prop_assert!(left.len() < FAN * 3, "{}", left.len());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

        /// Of several segments, with blocks of many terms and terms of many blocks.
        #[test]
        fn what_is_removed_is_gone_and_nothing_else(
            segments in prop::collection::vec(prop::collection::vec((0_i64..12, 0_i64..4000, 1_i64..3), 1..4000), 1..4),
            gone in prop::collection::vec((0_i64..12, 0_i64..4000, 1_i64..3), 0..2000),
            whole in 0_i64..24,
        ) {
            let entry = |(term, at, n): (i64, i64, i64)| (Term(term << 20), Spot { at, n, seq: at * 7 });
            let mut connection = file();
            let mut expected = BTreeSet::new();
            for segment in segments {
                let entries: Vec<Entry> = segment.into_iter().map(entry).collect();
                expected.extend(entries.iter().copied());
                add(&mut connection, entries).unwrap();
            }
            let mut gone: Vec<Entry> = gone.into_iter().map(entry).collect();
            gone.extend(expected.iter().filter(|entry| entry.0.0 == whole << 20));
            expected.retain(|entry| !gone.contains(entry));
            remove_entries(&mut connection, gone).unwrap();
            let mut left = BTreeSet::new();
            each(&mut connection, |entry| {
                left.insert(entry);
            })
            .unwrap();
            prop_assert_eq!(left, expected);
        }
    }
}

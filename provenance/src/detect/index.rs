//! Keyed hashes of all registered values, and who they lead to.

use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use dashmap::DashMap;
use siphasher::sip128::{Hasher128, SipHasher13};

use super::anchor::{Anchor, AnchorKey, LONGEST};
use super::arena::{self, Arena, Places};
use super::entry::{Entry, Further};
use super::filter::{Begins, Filter};
use super::table::{Key, REST, Spot, Table};
use super::{Form, decode};
use crate::vocabulary::Fingerprint;

/// Values of one lane are never met in another: their hashes differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Text,
    Number,
    Date,
    Phone,
    /// A phone without its calling code, or its last digits.
    National,
    /// A digest of a canonical form.
    Digest,
    /// An id without separators.
    Bare,
}

const LANES: usize = 7;
/// Lengths that are told apart.
const LENGTHS: usize = 32;

/// Removed keys that a filter keeps for each key that it has, before it is built anew.
const STALE: usize = 4;

/// Keys of a filter that takes little memory: it grows more at once.
const SMALL: usize = 1 << 18;

/// What goes over to a new filter with each insertion or removal, and values that are prefetched together.
const STEP: usize = 16;

/// Hashes of a value that are prefetched; few have more.
const SPOTS: usize = 10;

/// Scans read it without a lock while values come and go.
pub(super) struct Index {
    key: SipHasher13,
    pub(super) anchor_key: AnchorKey,
    /// By keyed hash, where the record is.
    table: Table,
    values: Arena<[AtomicU32; VALUE]>,
    spellings: Arena<[AtomicU32; SPELLING]>,
    digests: Arena<[AtomicU32; DIGEST]>,
    /// Hash of an anchor -> lengths of what begins so and is longer than a filter tells apart, with their number.
    long: DashMap<u32, Vec<(u32, u32)>, Spread>,
    /// What a scan asks first.
    filter: RwLock<Arc<Filter>>,
    /// The bits of the lengths of which there is any hash in a lane, the longest together.
    lengths: [AtomicU32; LANES],
    /// Texts that have no word character.
    wordless: AtomicUsize,
    writer: Mutex<Writer>,
}

/// What only insertions and removals need.
struct Writer {
    values: Places,
    spellings: Places,
    digests: Places,
    /// Hashes by lane and length of what was hashed.
    counts: [u32; LENGTHS * LANES],
    begins: Begins,
    filter: Arc<Filter>,
    /// What is to follow it: insertions go into both.
    next: Option<Next>,
    /// Keys in the filter, and those of them that were taken away.
    keys: usize,
    stale: usize,
}

/// A filter that is being built, and what has to go over to it yet.
struct Next {
    filter: Arc<Filter>,
    values: Range<u32>,
    spellings: Range<u32>,
    /// Asked for, and put in at the next step.
    waiting: Vec<Anchor>,
}

/// Words of a record. A spelling is the rest of its hash, packed with what else is known, and its anchor; a value is its
/// own spelling and the fingerprint; another spelling has its value behind it, and a digest, which has no anchor, too.
const VALUE: usize = OWN + 8;
const SPELLING: usize = OWN + 1;
const DIGEST: usize = 3;
const OWN: usize = 4;

/// What the table leads to: which sort of record, and where.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Record {
    Value(u32),
    Spelling(u32),
    Digest(u32),
}

const SORT: u32 = arena::PLACE;

impl Record {
    fn item(self) -> u32 {
        match self {
            Record::Value(place) => 1 << SORT | place,
            Record::Spelling(place) => 2 << SORT | place,
            Record::Digest(place) => 3 << SORT | place,
        }
    }

    fn of(item: u32) -> Option<Self> {
        let place = item & ((1 << SORT) - 1);
        match item >> SORT {
            1 => Some(Record::Value(place)),
            2 => Some(Record::Spelling(place)),
            3 => Some(Record::Digest(place)),
            _ => None,
        }
    }
}

/// Beside the rest of a hash stand the length of the anchor, as far as a filter tells them apart, and of a value whether it
/// is weak and how many bytes are not searched.
const LENGTH: u32 = REST - 32;
const IS_WEAK: u32 = LENGTH + 6;
const TRIMMED: u32 = IS_WEAK + 1;
const MOST_TRIMMED: u32 = (1 << (32 - TRIMMED)) - 1;

fn load(word: &AtomicU32) -> u32 {
    word.load(Ordering::Relaxed)
}

fn store(words: &[AtomicU32], wanted: impl IntoIterator<Item = u32>) {
    words
        .iter()
        .zip(wanted)
        .for_each(|(word, wanted)| word.store(wanted, Ordering::Relaxed));
}

fn rest(words: &[AtomicU32]) -> u64 {
    match words {
        [low, packed, ..] => u64::from(load(low)) | u64::from(load(packed)) << 32 & ((1 << REST) - 1),
        _ => 0,
    }
}

fn spelling(key: Key, anchor: Anchor, flags: u32) -> [u32; OWN] {
    let length = anchor.length.clamp(1, LONGEST as u32) - 1;
    let packed = (key.rest >> 32) as u32 | length << LENGTH | flags;
    [key.rest as u32, packed, anchor.hash, anchor.whole]
}

/// What a filter has of a spelling; `None` where there is none any more.
fn anchor(words: &[AtomicU32]) -> Option<Anchor> {
    let [low, packed, hash, whole, ..] = words else {
        return None;
    };
    let packed = load(packed);
    (packed != 0 || load(low) != 0).then(|| Anchor {
        hash: load(hash),
        length: (packed >> LENGTH) % LONGEST as u32 + 1,
        begin: 0,
        whole: load(whole),
    })
}

/// A value that a hash leads to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) fingerprint: Fingerprint,
    pub(super) weak: bool,
    /// Bytes around it that are not searched, as far as they are counted.
    trimmed: u32,
    /// Whether the hash is the value's own, not that of another spelling.
    own: bool,
}

impl Known {
    fn new(words: &[AtomicU32; VALUE], own: bool) -> Self {
        let mut fingerprint = [0; 32];
        let (to, _) = fingerprint.as_chunks_mut::<4>();
        let from = words.iter().skip(OWN);
        to.iter_mut()
            .zip(from)
            .for_each(|(to, word)| *to = load(word).to_le_bytes());
        let packed = load(&words[1]);
        Known {
            fingerprint: Fingerprint(fingerprint),
            weak: packed >> IS_WEAK & 1 != 0,
            trimmed: packed >> TRIMMED,
            own,
        }
    }

    /// Whether a text with so many bytes around what is searched of it may be the value as a whole.
    pub(super) fn is_all_of(&self, trimmed: usize) -> bool {
        self.trimmed as usize == trimmed.min(MOST_TRIMMED as usize)
    }

    /// The form in which it was met: its own, or that of another spelling.
    pub(super) fn met_as(&self, form: Form) -> Form {
        if self.own { form } else { Form::Normalised }
    }
}

impl Index {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let (mut value_key, mut anchor_key) = ([0; 16], [0; 16]);
        value_key.copy_from_slice(&key[..16]);
        anchor_key.copy_from_slice(&key[16..]);
        let begins = Begins::new();
        let filter = Arc::new(Filter::new(0, &begins));
        Index {
            key: SipHasher13::new_with_key(&value_key),
            anchor_key: AnchorKey::new(&anchor_key),
            table: Table::new(),
            values: Arena::new(),
            spellings: Arena::new(),
            digests: Arena::new(),
            long: DashMap::default(),
            filter: RwLock::new(filter.clone()),
            lengths: Default::default(),
            wordless: AtomicUsize::new(0),
            writer: Mutex::new(Writer {
                values: Places::default(),
                spellings: Places::default(),
                digests: Places::default(),
                counts: [0; LENGTHS * LANES],
                begins,
                filter,
                next: None,
                keys: 0,
                stale: 0,
            }),
        }
    }

    /// The keyed hash of `bytes`, to be continued.
    pub(super) fn hasher(&self, lane: Lane) -> SipHasher13 {
        let mut hasher = self.key;
        hasher.write(&[lane as u8]);
        hasher
    }

    pub(super) fn hash(&self, lane: Lane, bytes: &[u8]) -> u128 {
        // In one piece where it fits: what is looked up for each word is short.
        let mut buffer = [lane as u8; 32];
        match buffer.get_mut(1..=bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.key.hash(&buffer[..=bytes.len()]).as_u128()
            }
            None => {
                let mut hasher = self.hasher(lane);
                hasher.write(bytes);
                hasher.finish128().as_u128()
            }
        }
    }

    /// What a scan asks first, as it is now.
    pub(super) fn filter(&self) -> Arc<Filter> {
        self.filter.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lengths.iter().all(|lengths| lengths.load(Ordering::Acquire) == 0)
    }

    pub(super) fn has(&self, lane: Lane) -> bool {
        self.lengths(lane) != 0
    }

    /// Whether anything so long is known.
    pub(super) fn has_length(&self, lane: Lane, bytes: usize) -> bool {
        self.lengths(lane) >> bytes.min(LENGTHS - 1) & 1 != 0
    }

    /// A bit for each length that is known, in bytes; the highest for all longer ones.
    pub(super) fn lengths(&self, lane: Lane) -> u32 {
        self.lengths[lane as usize].load(Ordering::Acquire)
    }

    /// Whether text without any word character is known.
    pub(super) fn has_wordless(&self) -> bool {
        self.wordless.load(Ordering::Relaxed) > 0
    }

    /// Slots in the tables that are taken, and records in memory.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let writer = self.writer();
        let places = [&writer.values, &writer.spellings, &writer.digests];
        let records: usize = places.iter().map(|places| places.used()).sum();
        self.long.len() + self.table.taken() + records
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is seen while nothing moves: tried again if something did, and at last while nobody may write.
    fn look<R>(&self, mut look: impl FnMut() -> R) -> R {
        self.table.read(&mut look).unwrap_or_else(|| {
            let _writer = self.writer();
            look()
        })
    }

    /// The value that a record belongs to, if the hash is that of the record.
    fn known(&self, key: Key, item: u32) -> Option<Known> {
        let value = |words: &[AtomicU32], value: &AtomicU32| {
            let words = (rest(words) == key.rest).then(|| self.values.get(load(value)))??;
            Some(Known::new(words, false))
        };
        match Record::of(item)? {
            Record::Value(place) => {
                let words = self.values.get(place).filter(|words| rest(*words) == key.rest)?;
                Some(Known::new(words, true))
            }
            Record::Spelling(place) => self.spellings.get(place).and_then(|words| value(words, &words[OWN])),
            Record::Digest(place) => self.digests.get(place).and_then(|words| value(words, &words[2])),
        }
    }

    pub(super) fn find(&self, hash: u128) -> Vec<Known> {
        let key = Key::new(hash);
        self.look(|| {
            let mut found = Vec::new();
            self.table.each(key, |item| -> Option<()> {
                found.extend(self.known(key, item));
                None
            });
            found
        })
    }

    /// The hash of the digest that a run of hex or base64 is, if it is one that is known.
    pub(super) fn digest(&self, run: &[u8]) -> Option<u128> {
        if !self.has(Lane::Digest) {
            return None;
        }
        let mut digest = [0; 32];
        let length = decode::digest(run, &mut digest)?;
        let hash = self.hash(Lane::Digest, digest.get(..length)?);
        let key = Key::new(hash);
        let known = self.look(|| self.table.each(key, |item| self.known(key, item)));
        known.map(|_| hash)
    }

    /// The lengths of the long needles that begin with this anchor, ascending, into `lengths`.
    pub(super) fn long_lengths(&self, anchor: u32, lengths: &mut Vec<u32>) {
        lengths.clear();
        if let Some(found) = self.long.get(&anchor) {
            lengths.extend(found.iter().map(|(length, _)| *length));
        }
        lengths.sort_unstable();
    }

    /// Makes a value known.
    pub(super) fn insert(&self, entry: &Entry, fingerprint: Fingerprint) {
        let mut writer = self.writer();
        let mut spots = [Spot::NOWHERE; SPOTS];
        let mut room = spots.iter_mut();
        self.prefetch(&writer, entry, |spot| {
            room.next().into_iter().for_each(|room| *room = spot)
        });
        self.put(&mut writer, entry, fingerprint, &mut spots.iter());
    }

    /// Makes many values known.
    pub(super) fn insert_all<'e>(&self, values: impl IntoIterator<Item = (&'e Entry, Fingerprint)>) {
        let mut values = values.into_iter();
        let mut batch = Vec::with_capacity(STEP);
        let mut spots = Vec::with_capacity(STEP * SPOTS);
        loop {
            batch.extend(values.by_ref().take(STEP));
            if batch.is_empty() {
                return;
            }
            let mut writer = self.writer();
            spots.clear();
            for (entry, _) in &batch {
                self.prefetch(&writer, entry, |spot| spots.push(spot));
            }
            let mut spots = spots.iter();
            for (entry, fingerprint) in batch.drain(..) {
                self.put(&mut writer, entry, fingerprint, &mut spots);
            }
        }
    }

    /// Makes room for so many more values.
    pub(super) fn reserve(&self, values: usize) {
        // Names have more than others.
        let more = values.saturating_mul(2);
        loop {
            let mut writer = self.writer();
            match writer.next {
                Some(_) => self.follow(&mut writer),
                None if writer.filter.has_room(writer.keys.saturating_add(more)) => return,
                None => self.renew(&mut writer, more),
            }
        }
    }

    /// Where the hashes of a value will stand. Asks the processor for what will be written: what has to be waited for is
    /// waited for at once.
    #[inline]
    fn prefetch<'t>(&'t self, writer: &Writer, entry: &Entry, mut each: impl FnMut(Spot<'t>)) {
        each(self.table.spot(Key::new(entry.hash)));
        for further in &entry.further {
            each(self.table.spot(Key::new(further.hash)));
        }
        for anchor in &entry.anchors {
            let next = writer.next.iter().map(|next| &next.filter);
            next.chain([&writer.filter]).for_each(|filter| filter.prefetch(*anchor));
        }
    }

    /// `spots` are those of [`prefetch`](Self::prefetch), as far as there are any.
    fn put<'t, 's>(
        &'t self,
        writer: &mut Writer,
        entry: &Entry,
        fingerprint: Fingerprint,
        spots: &mut impl Iterator<Item = &'s Spot<'t>>,
    ) where
        't: 's,
    {
        let mut spots = spots.take(1 + entry.further.len());
        let mut spot = |hash: u128| spots.next().copied().unwrap_or_else(|| self.table.spot(Key::new(hash)));
        let own = spot(entry.hash);
        if !Table::is_new(&own) && self.own(own.key, fingerprint).is_some() {
            spots.for_each(drop);
            return;
        }
        let place = writer.values.take();
        let Some(words) = self.values.make(place) else { return };
        // Who still reads what stood there before sees that it was removed.
        fence(Ordering::Release);
        let mut anchors = entry.anchors.iter().copied();
        let mut next_anchor = || anchors.next().unwrap_or_default();
        let trimmed = (entry.length - entry.needle).min(MOST_TRIMMED);
        let flags = u32::from(entry.weak) << IS_WEAK | trimmed << TRIMMED;
        let (own_words, of_fingerprint) = words.split_at(OWN);
        store(own_words, spelling(own.key, next_anchor(), flags));
        let (fingerprint, _) = fingerprint.0.as_chunks();
        store(of_fingerprint, fingerprint.iter().map(|word| u32::from_le_bytes(*word)));
        self.table.insert(&own, Record::Value(place).item());
        for further in &entry.further {
            let spot = spot(further.hash);
            let record = if further.lane == Lane::Digest {
                let at = writer.digests.take();
                let Some(words) = self.digests.make(at) else { return };
                store(words, [spot.key.rest as u32, (spot.key.rest >> 32) as u32, place]);
                Record::Digest(at)
            } else {
                let at = writer.spellings.take();
                let Some(words) = self.spellings.make(at) else { return };
                store(words, spelling(spot.key, next_anchor(), 0));
                words[OWN].store(place, Ordering::Relaxed);
                Record::Spelling(at)
            };
            self.table.insert(&spot, record.item());
        }
        self.count(writer, entry, true);
    }

    /// The item that leads to a value.
    fn own(&self, key: Key, fingerprint: Fingerprint) -> Option<u32> {
        self.table.each(key, |item| {
            let known = self.known(key, item)?;
            (known.own && known.fingerprint == fingerprint).then_some(item)
        })
    }

    /// Forgets a value, as [`insert`](Self::insert) made it known.
    pub(super) fn remove(&self, entry: &Entry, fingerprint: Fingerprint) {
        let mut writer = self.writer();
        let own = Key::new(entry.hash);
        let Some(item) = self.own(own, fingerprint) else { return };
        self.table.change(|| self.take(&mut writer, entry, item));
        self.count(&mut writer, entry, false);
    }

    fn take(&self, writer: &mut Writer, entry: &Entry, item: u32) {
        let Some(Record::Value(value)) = Record::of(item) else {
            return;
        };
        let is_it = |other: u32| (other == item).then_some(());
        self.table.remove(Key::new(entry.hash), is_it);
        for further in &entry.further {
            let key = Key::new(further.hash);
            let gone = self.table.remove(key, |item| {
                let record = Record::of(item)?;
                (self.value_of(key, record)? == value).then_some(record)
            });
            match gone {
                Some(Record::Spelling(place)) => forget(&self.spellings, &mut writer.spellings, place),
                Some(Record::Digest(place)) => forget(&self.digests, &mut writer.digests, place),
                Some(Record::Value(_)) | None => {}
            }
        }
        forget(&self.values, &mut writer.values, value);
    }

    /// The value of a spelling or a digest, if the hash is that of it.
    fn value_of(&self, key: Key, record: Record) -> Option<u32> {
        let (words, value): (&[AtomicU32], _) = match record {
            Record::Value(_) => return None,
            Record::Spelling(place) => self.spellings.get(place).map(|words| (&words[..], &words[OWN]))?,
            Record::Digest(place) => self.digests.get(place).map(|words| (&words[..], &words[2]))?,
        };
        (rest(words) == key.rest).then(|| load(value))
    }

    fn count(&self, writer: &mut Writer, entry: &Entry, more: bool) {
        let needle = usize::try_from(entry.needle).unwrap_or(LENGTHS);
        self.tally(writer, entry.lane, needle, more);
        for Further { lane, length, .. } in &entry.further {
            self.tally(writer, *lane, usize::from(*length), more);
        }
        if entry.wordless {
            match more {
                true => self.wordless.fetch_add(1, Ordering::AcqRel),
                false => self.wordless.fetch_sub(1, Ordering::AcqRel),
            };
        }
        for anchor in &entry.anchors {
            if anchor.length >= LONGEST as u32 {
                self.count_long(*anchor, more);
            }
            if anchor.begin != 0 || anchor.length < 8 {
                writer.begins.count(*anchor, more);
            }
            if more {
                writer.filter.add(*anchor);
                writer.next.iter().for_each(|next| next.filter.add(*anchor));
            }
        }
        let keys = entry.anchors.len();
        match more {
            true => writer.keys += keys,
            false => writer.stale += keys,
        }
        let stale = writer.stale > 1024.max(writer.keys / STALE);
        if writer.next.is_some() {
            self.follow(writer);
        } else if stale || !writer.filter.has_room(writer.keys) {
            self.renew(writer, 0);
        }
    }

    fn tally(&self, writer: &mut Writer, lane: Lane, length: usize, more: bool) {
        let length = length.min(LENGTHS - 1);
        let count = &mut writer.counts[lane as usize * LENGTHS + length];
        let lengths = &self.lengths[lane as usize];
        match more {
            true => *count += 1,
            false => *count = count.saturating_sub(1),
        }
        match *count {
            0 => lengths.fetch_and(!(1 << length), Ordering::AcqRel),
            1 if more => lengths.fetch_or(1 << length, Ordering::AcqRel),
            _ => return,
        };
    }

    /// Begins a filter of what is there now, with room for more. Scans go on with the one they have.
    #[cold]
    fn renew(&self, writer: &mut Writer, more: usize) {
        writer.keys = writer.keys.saturating_sub(std::mem::take(&mut writer.stale));
        // Filters have sizes that are powers of two: this makes twice as much, or four times.
        let grown = writer.keys / 2 * if writer.keys < SMALL { 6 } else { 3 };
        writer.next = Some(Next {
            filter: Arc::new(Filter::new(grown.max(writer.keys.saturating_add(more)), &writer.begins)),
            values: 0..writer.values.made,
            spellings: 0..writer.spellings.made,
            waiting: Vec::with_capacity(STEP),
        });
    }

    /// Takes some of what is there over into the filter that is to follow, which takes its place when it has all.
    fn follow(&self, writer: &mut Writer) {
        let Some(next) = &mut writer.next else { return };
        next.waiting.drain(..).for_each(|anchor| next.filter.add(anchor));
        let values = next
            .values
            .by_ref()
            .map(|n| self.values.get(arena::place(n)).map(|words| &words[..]));
        let spellings = next
            .spellings
            .by_ref()
            .map(|n| self.spellings.get(arena::place(n)).map(|words| &words[..]));
        let mut seen = 0;
        for words in values.chain(spellings).take(STEP) {
            seen += 1;
            if let Some(anchor) = words.and_then(anchor) {
                next.filter.prefetch(anchor);
                next.waiting.push(anchor);
            }
        }
        if seen == 0 {
            writer.filter = next.filter.clone();
            writer.next = None;
            *self.filter.write().unwrap_or_else(PoisonError::into_inner) = writer.filter.clone();
        }
    }

    fn count_long(&self, anchor: Anchor, more: bool) {
        let mut lengths = self.long.entry(anchor.hash).or_default();
        match lengths.iter_mut().find(|(length, _)| *length == anchor.length) {
            Some((_, count)) if more => *count += 1,
            Some((_, count)) => *count = count.saturating_sub(1),
            None if more => lengths.push((anchor.length, 1)),
            None => {}
        }
        lengths.retain(|(_, count)| *count != 0);
        drop(lengths);
        self.long.remove_if(&anchor.hash, |_, lengths| lengths.is_empty());
    }
}

/// Wipes a record.
fn forget<const WORDS: usize>(records: &Arena<[AtomicU32; WORDS]>, places: &mut Places, place: u32) {
    if let Some(words) = records.get(place) {
        store(words, [0; WORDS]);
        places.free(place);
    }
}

/// Keys here are keyed hashes already.
type Spread = BuildHasherDefault<Plain>;

#[derive(Default)]
struct Plain(u64);

impl Hasher for Plain {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u32(&mut self, hash: u32) {
        // The table looks at the highest bits and the lowest.
        self.0 = u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

//! The texts that rows name by number: each instance has its own, numbered from 1.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::Arc;

use diesel::prelude::*;
use foldhash::fast::RandomState;

use super::chain::{self, Hash};
use super::db::Db;
use super::draft::Draft;
use super::pack::{self, Packed};
use super::postings::Term;
use super::schema::texts;
use crate::vocabulary::{Tag, category};

/// Texts that are looked up in memory; with more of them, some are written twice.
const MAX_KNOWN: usize = 65_536;
/// Tags of an event whose kinds are at hand.
const MAX_RECENT: usize = 16;
/// JSON texts seen once: what comes again is worth a number.
const MAX_ONCE: usize = 8_192;
/// Longer JSON texts stand in their rows.
const MAX_TEMPLATE: usize = 4_096;

/// The writer's side: gives numbers. What a failed commit has not written stays to be written.
#[derive(Default)]
pub(super) struct Texts {
    known: HashMap<Arc<str>, u32, RandomState>,
    /// By where a tag's words are: they are kept there, so that no others can come to the same place.
    kinds: HashMap<KindPlace, (KindWords, u32), RandomState>,
    /// Of the last event's tags, in their order: the next one has mostly the same.
    recent: Vec<(KindPlace, u32)>,
    /// By a hash of the words, which hosts that name them anew for each event have in another place each time.
    worded: HashMap<u64, (KindWords, bool, u32), RandomState>,
    /// Of event types.
    types: HashMap<i32, Hash, RandomState>,
    hashes: Vec<Hash>,
    /// Not on disk yet.
    pub(super) unsaved: Vec<(u32, Arc<str>)>,
    once: HashSet<u64, RandomState>,
    hasher: RandomState,
}

type KindPlace = ([usize; 4], bool);
type KindWords = [Arc<str>; 4];

impl Texts {
    /// The number of a text.
    pub(super) fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.known.get(text) {
            return *number;
        }
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        let text: Arc<str> = text.into();
        self.hashes.push(chain::text(&text));
        let number = u32::try_from(self.hashes.len()).unwrap_or(u32::MAX);
        self.known.insert(text.clone(), number);
        self.unsaved.push((number, text));
        number
    }

    /// The number of the text that says what a tag's value is. `at`: which of its event's tags it is.
    pub(super) fn kind(&mut self, tag: &Tag, at: usize) -> u32 {
        let words = [&tag.category, &tag.field, &tag.description, &tag.source];
        let place = (words.map(|word| word.as_ptr().addr()), tag.pii);
        if let Some((recent, number)) = self.recent.get(at)
            && *recent == place
        {
            return *number;
        }
        if let Some((_, number)) = self.kinds.get(&place) {
            if let Some(recent) = self.recent.get_mut(at) {
                *recent = (place, *number);
            } else if self.recent.len() < MAX_RECENT {
                self.recent.push((place, *number));
            }
            return *number;
        }
        let hash = self.hasher.hash_one((words.map(|word| &**word), tag.pii));
        let same = |(known, pii, _): &&(KindWords, bool, u32)| {
            *pii == tag.pii && known.iter().zip(words).all(|(known, word)| known == word)
        };
        let number = match self.worded.get(&hash).filter(same) {
            Some((.., number)) => *number,
            None => {
                let number = self.number(&KindText::of(tag));
                if self.worded.len() >= MAX_KNOWN {
                    self.worded.clear();
                }
                self.worded.insert(hash, (words.map(Arc::clone), tag.pii, number));
                number
            }
        };
        // Words that nobody else has are in no tag to come.
        if words.iter().all(|word| Arc::strong_count(word) > 1) {
            if self.kinds.len() >= MAX_KNOWN {
                self.kinds.clear();
                self.recent.clear();
            }
            self.kinds.insert(place, (words.map(Arc::clone), number));
        }
        number
    }

    /// The hash of an event type's name.
    pub(super) fn type_hash(&mut self, code: i32, name: &str) -> Hash {
        *self.types.entry(code).or_insert_with(|| chain::text(name))
    }

    /// The hash of a text with a number.
    pub(super) fn hash(&self, number: u32) -> &Hash {
        let at = usize::try_from(number).unwrap_or(usize::MAX).wrapping_sub(1);
        self.hashes.get(at).unwrap_or(&[0; 32])
    }

    /// Writes a JSON text as a column has it.
    pub(super) fn json(&mut self, draft: &Draft, out: &mut Vec<u8>) {
        if draft.template.len() <= MAX_TEMPLATE && self.is_worth_a_number(&draft.template) {
            pack::put(out, u64::from(self.number(&draft.template)));
            out.extend_from_slice(&draft.arguments);
            return;
        }
        out.push(0);
        let text = pack::fill(&draft.template, &draft.arguments);
        out.extend_from_slice(text.as_deref().unwrap_or("{}").as_bytes());
    }

    fn is_worth_a_number(&mut self, template: &str) -> bool {
        if self.known.contains_key(template) {
            return true;
        }
        if self.once.len() >= MAX_ONCE {
            self.once.clear();
        }
        // Seen for the second time.
        !self.once.insert(self.hasher.hash_one(template))
    }
}

/// What the kind of a tag is called, as a text.
#[derive(Clone)]
pub(super) struct KindText {
    pub(super) category: Arc<str>,
    pub(super) canonical: Arc<str>,
    pub(super) field: Arc<str>,
    pub(super) description: Arc<str>,
    pub(super) source: Arc<str>,
    pub(super) pii: bool,
}

impl KindText {
    fn of(tag: &Tag) -> String {
        let parts = (&*tag.category, &*tag.field, &*tag.description, &*tag.source, tag.pii);
        // Texts and a truth are always JSON.
        serde_json::to_string(&parts).unwrap_or_default()
    }

    fn parse(text: &str) -> Option<Self> {
        let (category, field, description, source, pii): (Arc<str>, _, _, _, _) = serde_json::from_str(text).ok()?;
        Some(KindText {
            canonical: category::canonical(&category).into(),
            category,
            field,
            description,
            source,
            pii,
        })
    }
}

/// The reader's side: texts of any instance, once they were asked for.
#[derive(Default)]
pub(super) struct Catalog(HashMap<(i64, i32), StoredText, RandomState>);

/// A text, and what it stands for.
pub(super) struct StoredText {
    pub(super) text: Arc<str>,
    pub(super) hash: Hash,
    kind: OnceCell<Option<KindText>>,
    terms: OnceCell<(Term, Option<Term>)>,
}

impl StoredText {
    /// What it says of a tag's kind.
    pub(super) fn kind(&self) -> Option<&KindText> {
        self.kind.get_or_init(|| KindText::parse(&self.text)).as_ref()
    }

    /// What events are found by that name it as their recipient.
    pub(super) fn recipient(&self) -> Term {
        self.terms().0
    }

    /// What events with a tag of this kind are found by.
    pub(super) fn category(&self) -> Option<Term> {
        self.terms().1
    }

    fn terms(&self) -> &(Term, Option<Term>) {
        self.terms.get_or_init(|| {
            let category = self.kind().map(|kind| Term::category(&kind.canonical));
            (Term::recipient(&self.text), category)
        })
    }
}

impl Catalog {
    /// Makes sure that these are known, where they are in the file.
    pub(super) fn load(
        &mut self,
        connection: &mut Db<'_>,
        wanted: impl IntoIterator<Item = (i64, i32)>,
    ) -> QueryResult<()> {
        let mut missing: BTreeMap<i64, Vec<i32>> = BTreeMap::new();
        let mut last = None;
        for (n, id) in wanted {
            // Rows of one batch name few texts, and mostly the same.
            if last != Some((n, id)) && !self.0.contains_key(&(n, id)) {
                missing.entry(n).or_default().push(id);
            }
            last = Some((n, id));
        }
        for (n, mut ids) in missing {
            ids.sort_unstable();
            ids.dedup();
            for ids in ids.chunks(500) {
                let found: Vec<(i32, String)> = match connection {
                    Db::Sqlite(connection) => texts::table
                        .filter(texts::n.eq(n).and(texts::id.eq_any(ids)))
                        .select((texts::id, texts::text))
                        .load(*connection)?,
                    #[cfg(feature = "postgres-store")]
                    Db::Postgres(connection) => super::postgres::texts(connection, n, ids)?,
                };
                for (id, text) in found {
                    let stored = StoredText {
                        hash: chain::text(&text),
                        text: text.into(),
                        kind: OnceCell::new(),
                        terms: OnceCell::new(),
                    };
                    self.0.insert((n, id), stored);
                }
            }
        }
        Ok(())
    }

    /// Forgets them when they have become very many.
    pub(super) fn trim(&mut self) {
        if self.0.len() > 4 * MAX_KNOWN {
            self.0.clear();
        }
    }

    pub(super) fn get(&self, n: i64, id: i32) -> Option<&StoredText> {
        self.0.get(&(n, id))
    }

    pub(super) fn text(&self, n: i64, id: i32) -> Option<&Arc<str>> {
        self.get(n, id).map(|stored| &stored.text)
    }

    /// The JSON text in a column.
    pub(super) fn json<'a>(&self, n: i64, column: &'a [u8]) -> Option<Cow<'a, str>> {
        Some(match Packed::read(column)? {
            Packed::Text(text) => Cow::Borrowed(std::str::from_utf8(text).ok()?),
            Packed::Template { id, arguments } => Cow::Owned(pack::fill(self.text(n, id.cast_signed())?, arguments)?),
        })
    }
}

/// The number of a JSON column's template, if it has one.
pub(super) fn template_of(column: &[u8]) -> Option<i32> {
    match Packed::read(column)? {
        Packed::Template { id, .. } => Some(id.cast_signed()),
        Packed::Text(_) => None,
    }
}

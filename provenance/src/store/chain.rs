//! Commitments, leaves and the batch chain: what makes an edit show, and an erasure possible.
//!
//! The format is specified in docs/format.md, for those who verify with other tools. In short: an event's
//! person-linked parts and tags are **items**; each has a salted commitment; the leaf is a hash over the
//! header and the commitments; the leaves of a batch have a root; the roots form a chain for each instance.
//! Erasing an item leaves its commitment in its place, so the leaf stays provable and the item can no
//! longer be guessed.

use sha2::{Digest, Sha256};

use super::pack::{self, PackedTag};
use super::sha::{Absorb, Messages, Sha};

/// A SHA-256.
pub(crate) type Hash = [u8; 32];
/// The salt of an event, and of an item.
pub(super) type Salt = [u8; 16];

// What a hash is of: its first byte.
const SALTS: u8 = 0;
const ITEM: u8 = 1;
const BODY: u8 = 2;
const LEAF: u8 = 3;
const HEAD: u8 = 4;
const LINK: u8 = 5;
const ROOT: u8 = 6;

/// Numbers of an event's parts; its tags follow.
pub(super) const OWNER: u16 = 0;
pub(super) const USER: u16 = 1;
pub(super) const TARGET: u16 = 2;
pub(super) const PAYLOAD: u16 = 3;
pub(super) const REQUEST: u16 = 4;
pub(super) const EXTRAS: u16 = 5;
pub(super) const FIRST_TAG: u16 = 6;

/// Who writes, as stored; a chain begins with it.
pub(crate) struct HeadParts<'a> {
    pub(crate) instance: i64,
    pub(crate) started_at: i64,
    pub(crate) service: &'a [u8],
    pub(crate) environment: Option<&'a [u8]>,
    pub(crate) build: &'a [u8],
    pub(crate) version: &'a [u8],
    pub(crate) key_id: &'a [u8],
}

/// What an event's leaf commits to beside its items.
pub(super) struct Header<'a> {
    pub(super) instance: i64,
    pub(super) seq: i64,
    /// Milliseconds since 1970, never before the event before it.
    pub(super) at: i64,
    /// Microseconds since 1970.
    pub(super) created_at: i64,
    /// As rows have it.
    pub(super) event_type: i32,
    /// Of the type's name.
    pub(super) type_name: &'a Hash,
    pub(super) actor: &'a Hash,
    pub(super) recipient: Option<&'a Hash>,
    pub(super) outcome_of: Option<i64>,
}

/// A tag's item: the tag as it stands in its row, with hashes for the numbers of texts.
pub(super) struct TagItem<'a> {
    pub(super) flags: u8,
    /// Of the text that names it.
    pub(super) kind: &'a Hash,
    pub(super) fingerprint: Option<&'a Hash>,
    /// Where it is not the event's.
    pub(super) owner: Option<&'a [u8]>,
    /// Where it is not the event's time: that less this.
    pub(super) ago: Option<i64>,
    pub(super) detail: JsonItem<'a>,
}

impl<'a> TagItem<'a> {
    /// Of a tag in an event with this owner and time.
    #[inline]
    pub(super) fn of(
        tag: &'a PackedTag<'_>,
        event_owner: Option<&[u8]>,
        event_at: i64,
        kind: &'a Hash,
        detail: JsonItem<'a>,
    ) -> Self {
        let (fingerprint, owner, ago) = match tag {
            PackedTag::Tag {
                fingerprint,
                owner,
                created_at,
                ..
            } => (*fingerprint, owner.as_deref(), event_at.wrapping_sub(*created_at)),
            PackedTag::Erased(_) => (None, None, 0),
        };
        TagItem {
            flags: tag.flags(event_owner, event_at),
            kind,
            fingerprint,
            owner: owner.filter(|owner| Some(*owner) != event_owner),
            ago: (ago != 0).then_some(ago),
            detail,
        }
    }

    #[inline]
    fn put(&self, hash: &mut impl Absorb) {
        hash.update(&[self.flags]);
        hash.update(self.kind);
        if let Some(fingerprint) = self.fingerprint {
            hash.update(fingerprint);
        }
        if let Some(owner) = self.owner {
            pack::varint(owner.len() as u64, |byte| hash.update(&[byte]));
            hash.update(owner);
        }
        if let Some(ago) = self.ago {
            pack::varint(pack::zigzag(ago), |byte| hash.update(&[byte]));
        }
        if !matches!(self.detail, JsonItem::Nothing) {
            json(hash, self.detail);
        }
    }
}

/// A JSON text's item.
#[derive(Clone, Copy)]
pub(super) enum JsonItem<'a> {
    Text(&'a [u8]),
    Template {
        template: &'a Hash,
        arguments: &'a [u8],
    },
    /// `{}`, where no column stands for it.
    Nothing,
}

/// The hash of a text, as headers and items name it.
pub(super) fn text(text: &str) -> Hash {
    bytes(text.as_bytes())
}

pub(super) fn bytes(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// Collects the commitments of an event's items, in the order of their numbers.
pub(super) struct Body {
    salts: Salts,
    hash: Sha,
    /// Each commitment, where somebody asked for them.
    kept: Option<Vec<(u16, Hash)>>,
}

impl Body {
    pub(super) fn new(salts: Salts) -> Self {
        Body {
            salts,
            hash: Sha::new(BODY),
            kept: None,
        }
    }

    /// As [`Body::new`], and gives the commitments back.
    pub(super) fn keeping(salts: Salts) -> Self {
        Body {
            kept: Some(Vec::new()),
            ..Body::new(salts)
        }
    }

    /// A part whose item is these bytes.
    pub(super) fn part(&mut self, number: u16, item: &[u8]) {
        let commitment = self.commitment(number, |hash| hash.update(item));
        self.add(number, &commitment);
    }

    /// A part that is a JSON text.
    pub(super) fn json(&mut self, number: u16, item: JsonItem<'_>) {
        let commitment = self.commitment(number, |hash| json(hash, item));
        self.add(number, &commitment);
    }

    /// A tag.
    pub(super) fn tag(&mut self, number: u16, tag: &TagItem<'_>) {
        let commitment = self.commitment(number, |hash| tag.put(hash));
        self.add(number, &commitment);
    }

    /// What stands for an item that was erased.
    pub(super) fn add(&mut self, number: u16, commitment: &Hash) {
        self.hash.update(&number.to_be_bytes());
        self.hash.update(commitment);
        if let Some(kept) = &mut self.kept {
            kept.push((number, *commitment));
        }
    }

    fn commitment(&mut self, number: u16, item: impl FnOnce(&mut Sha)) -> Hash {
        let mut hash = Sha::new(ITEM);
        hash.update(&self.salts.of(number));
        item(&mut hash);
        hash.finish()
    }

    /// The hash over all of them; and each, if they were to be kept.
    pub(super) fn end(mut self) -> (Hash, Vec<(u16, Hash)>) {
        (self.hash.finish(), self.kept.unwrap_or_default())
    }

    /// The leaf of an event with these items.
    pub(super) fn leaf(mut self, header: &Header<'_>) -> Hash {
        header.leaf(&self.hash.finish())
    }
}

impl Header<'_> {
    /// The leaf of an event whose items come to `body`.
    pub(super) fn leaf(&self, body: &Hash) -> Hash {
        let mut leaf = Sha::new(LEAF);
        self.put(body, &mut leaf);
        leaf.finish()
    }

    #[inline]
    fn put(&self, body: &Hash, leaf: &mut impl Absorb) {
        for number in [self.instance, self.seq, self.at, self.created_at] {
            leaf.update(&number.to_be_bytes());
        }
        match u8::try_from(self.event_type) {
            Ok(built_in) => leaf.update(&[built_in]),
            Err(_) => {
                leaf.update(&[0]);
                leaf.update(self.type_name);
            }
        }
        leaf.update(self.actor);
        match self.recipient {
            Some(recipient) => {
                leaf.update(&[1]);
                leaf.update(recipient);
            }
            None => leaf.update(&[0]),
        }
        match self.outcome_of {
            Some(share) => {
                leaf.update(&[1]);
                leaf.update(&share.to_be_bytes());
            }
            None => leaf.update(&[0]),
        }
        leaf.update(body);
    }
}

/// The leaves of some events together: what does not wait for another's result is hashed at once.
#[derive(Default)]
pub(super) struct Sealer {
    /// Of the event that items are added to.
    salt: Salt,
    pair: Option<u16>,
    /// Where the items of each event begin.
    starts: Vec<usize>,
    /// The number of each item, and which of the hashes over salts its own is in.
    numbers: Vec<(u16, usize)>,
    salts: Messages,
    items: Messages,
    /// Bodies and leaves, in turn.
    others: Messages,
    hashes: Vec<Hash>,
    commitments: Vec<Hash>,
}

impl Sealer {
    /// What follows belongs to the next event; in the order of the items' numbers.
    pub(super) fn event(&mut self, salt: Salt) {
        (self.salt, self.pair) = (salt, None);
        self.starts.push(self.numbers.len());
    }

    /// A part whose item is these bytes.
    pub(super) fn part(&mut self, number: u16, item: &[u8]) {
        self.item(number, |message| message.update(item));
    }

    /// A part that is a JSON text.
    pub(super) fn json(&mut self, number: u16, item: JsonItem<'_>) {
        self.item(number, |message| json(message, item));
    }

    /// A tag.
    pub(super) fn tag(&mut self, number: u16, tag: &TagItem<'_>) {
        self.item(number, |message| tag.put(message));
    }

    #[inline]
    fn item(&mut self, number: u16, item: impl FnOnce(&mut Messages)) {
        if self.pair.replace(number / 2) != Some(number / 2) {
            self.salts.begin(SALTS);
            self.salts.update(&self.salt);
            self.salts.update(&(number / 2).to_be_bytes());
            self.salts.end();
        }
        self.numbers.push((number, self.salts.count() - 1));
        self.items.begin(ITEM);
        // Its salt comes later.
        self.items.update(&[0; 16]);
        item(&mut self.items);
        self.items.end();
    }

    /// The leaves of these events, whose headers are given in their order; then it begins anew.
    pub(super) fn leaves<'h>(&mut self, headers: impl Iterator<Item = Header<'h>>) -> &[Hash] {
        self.salts.digest(&mut self.hashes);
        for (item, (number, salts)) in self.numbers.iter().enumerate() {
            let salts = self.hashes.get(*salts).map(|salts| salts.as_chunks::<16>().0);
            let salt = salts.and_then(|halves| halves.get(usize::from(number % 2)));
            if let (Some(salt), Some(hole)) = (salt, self.items.hole(item)) {
                *hole = *salt;
            }
        }
        self.items.digest(&mut self.commitments);
        let ends = self.starts.iter().skip(1).copied().chain([self.numbers.len()]);
        for (start, end) in self.starts.iter().zip(ends) {
            self.others.begin(BODY);
            let numbers = self.numbers.get(*start..end).unwrap_or_default();
            let commitments = self.commitments.get(*start..end).unwrap_or_default();
            for ((number, _), commitment) in numbers.iter().zip(commitments) {
                self.others.update(&number.to_be_bytes());
                self.others.update(commitment);
            }
            self.others.end();
        }
        self.others.digest(&mut self.hashes);
        self.others.clear();
        for (header, body) in headers.zip(&self.hashes) {
            self.others.begin(LEAF);
            header.put(body, &mut self.others);
            self.others.end();
        }
        self.others.digest(&mut self.commitments);
        self.starts.clear();
        self.numbers.clear();
        for messages in [&mut self.salts, &mut self.items, &mut self.others] {
            messages.clear();
        }
        &self.commitments
    }
}

#[inline]
fn json(hash: &mut impl Absorb, item: JsonItem<'_>) {
    match item {
        JsonItem::Nothing => hash.update(&[0]),
        JsonItem::Text(text) => {
            hash.update(&[1]);
            hash.update(text);
        }
        JsonItem::Template { template, arguments } => {
            hash.update(&[2]);
            hash.update(template);
            hash.update(arguments);
        }
    }
}

/// The salts of an event's items: two of each hash over the event's salt, or, after an erasure, those
/// of the items that remain.
#[derive(Clone)]
pub(super) enum Salts {
    Event { salt: Salt, pair: u16, salts: Hash },
    Remaining(Vec<(u16, Salt)>),
}

impl Salts {
    pub(super) fn of_event(salt: Salt) -> Self {
        Salts::Event {
            salt,
            pair: 0,
            salts: pair_of(&salt, 0),
        }
    }

    /// The salt of an item. One that an erasure took has none, and its commitment is not asked for.
    pub(super) fn of(&mut self, number: u16) -> Salt {
        match self {
            Salts::Event { salt, pair, salts } => {
                if *pair != number / 2 {
                    *pair = number / 2;
                    *salts = pair_of(salt, *pair);
                }
                let (halves, _) = salts.as_chunks::<16>();
                halves.get(usize::from(number % 2)).copied().unwrap_or_default()
            }
            Salts::Remaining(salts) => {
                let found = salts.iter().find(|(of, _)| *of == number);
                found.map(|(_, salt)| *salt).unwrap_or_default()
            }
        }
    }
}

fn pair_of(salt: &Salt, pair: u16) -> Hash {
    let mut hash = Sha::new(SALTS);
    hash.update(salt);
    hash.update(&pair.to_be_bytes());
    hash.finish()
}

/// `chain(0)` of an instance.
pub(crate) fn head(instance: &HeadParts<'_>) -> Hash {
    let mut head = Sha::new(HEAD);
    head.update(&instance.instance.to_be_bytes());
    head.update(&instance.started_at.to_be_bytes());
    let texts = [instance.service, instance.build, instance.version, instance.key_id];
    for text in texts.into_iter().chain(instance.environment) {
        head.update(&(text.len() as u64).to_be_bytes());
        head.update(text);
    }
    head.finish()
}

/// What a batch's leaves come to.
pub(crate) fn root(leaves: &[Hash]) -> Hash {
    let mut root = Sha::new(ROOT);
    for leaf in leaves {
        root.update(leaf);
    }
    root.finish()
}

/// `chain(batch_no)`, given the chain before it.
pub(crate) fn link(before: &Hash, batch_no: i64, first_seq: i64, events: i64, root: &Hash) -> Hash {
    let mut link = Sha::new(LINK);
    link.update(before);
    for number in [batch_no, first_seq, events] {
        link.update(&number.to_be_bytes());
    }
    link.update(root);
    link.finish()
}

//! What stands beside an event's columns: its leaf, and the salts with which they give it.
//!
//! `proof` is the event's salt (16 bytes) and its leaf (32). After an erasure it is the leaf, the salts of the
//! items that remain (how many; for each its number in 2 bytes and the salt), and the commitments of the
//! parts that are gone (how many; for each its number and the commitment). Tags that are gone have theirs in
//! their place.
//!
//! Of an event that its retention has ended, a **stub** is left: the columns of the header, `tags` that are the
//! one byte 0x40, nothing in the columns of items, and a proof of 64 bytes: the leaf, and the hash over the
//! commitments (C), with which the header gives the leaf. So type and time of a stub are still proven, and
//! `verify` takes it only where a chained record of the retention covers them.

use super::chain::{self, Body, Hash, JsonItem, Salt, Salts, Sealer, TagItem};
use super::pack::{self, Input, Packed, PackedTag, Tags};

/// What is said of a row that does not give its leaf.
pub(super) const CHANGED: &str = "the event, or a tag of it, was changed";
/// `tags` of a stub: no tag begins so.
pub(super) const STUB: &[u8] = &[0x40];

/// A row's proof.
#[derive(Clone)]
pub(super) struct Proof {
    pub(super) leaf: Hash,
    pub(super) salts: Salts,
    /// Parts, by number.
    pub(super) gone: Vec<(u16, Hash)>,
    /// Of a stub: the hash over its commitments.
    pub(super) body: Option<Hash>,
}

impl Proof {
    /// Salt and leaf of an event of which nothing is gone.
    pub(super) fn whole(bytes: &[u8]) -> Option<(&Salt, &Hash)> {
        let (salt, leaf) = <&[u8; 48]>::try_from(bytes).ok()?.split_first_chunk::<16>()?;
        Some((salt, leaf.try_into().ok()?))
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        if let Some((salt, leaf)) = Proof::whole(bytes) {
            return Some(Proof {
                leaf: *leaf,
                salts: Salts::of_event(*salt),
                gone: Vec::new(),
                body: None,
            });
        }
        // No long form has this length.
        if let Ok(bytes) = <&[u8; 64]>::try_from(bytes) {
            let (leaf, body) = bytes.split_first_chunk::<32>()?;
            return Some(Proof {
                leaf: *leaf,
                salts: Salts::Remaining(Vec::new()),
                gone: Vec::new(),
                body: Some(body.try_into().ok()?),
            });
        }
        let mut input = Input(bytes);
        let leaf = *input.array()?;
        let mut salts: Vec<(u16, Salt)> = Vec::new();
        for _ in 0..input.number()? {
            salts.push((u16::from_be_bytes(*input.array()?), *input.array()?));
        }
        let mut gone = Vec::new();
        for _ in 0..input.number()? {
            gone.push((u16::from_be_bytes(*input.array()?), *input.array()?));
        }
        input.is_empty().then_some(Proof {
            leaf,
            salts: Salts::Remaining(salts),
            gone,
            body: None,
        })
    }

    /// The commitment of a part that is gone.
    pub(super) fn erased(&self, number: u16) -> Option<&Hash> {
        self.gone
            .iter()
            .find(|(gone, _)| *gone == number)
            .map(|(_, commitment)| commitment)
    }

    /// The long form.
    pub(super) fn write(leaf: &Hash, salts: &[(u16, Salt)], gone: &[(u16, Hash)]) -> Vec<u8> {
        let mut out = leaf.to_vec();
        pack::put(&mut out, salts.len() as u64);
        for (number, salt) in salts {
            out.extend(number.to_be_bytes());
            out.extend(salt);
        }
        pack::put(&mut out, gone.len() as u64);
        for (number, commitment) in gone {
            out.extend(number.to_be_bytes());
            out.extend(commitment);
        }
        out
    }

    /// That of a stub.
    pub(super) fn of_stub(leaf: &Hash, body: &Hash) -> Vec<u8> {
        [leaf.as_slice(), body.as_slice()].concat()
    }
}

/// What takes items, in the order of their numbers.
pub(super) trait Commit {
    fn part(&mut self, number: u16, item: &[u8]);
    fn json(&mut self, number: u16, item: JsonItem<'_>);
    fn tag(&mut self, number: u16, tag: &TagItem<'_>);
    /// What stands for an item that was erased.
    fn erased(&mut self, number: u16, commitment: &Hash) -> Result<(), &'static str>;
}

impl Commit for Body {
    fn part(&mut self, number: u16, item: &[u8]) {
        self.part(number, item);
    }

    fn json(&mut self, number: u16, item: JsonItem<'_>) {
        self.json(number, item);
    }

    fn tag(&mut self, number: u16, tag: &TagItem<'_>) {
        self.tag(number, tag);
    }

    fn erased(&mut self, number: u16, commitment: &Hash) -> Result<(), &'static str> {
        self.add(number, commitment);
        Ok(())
    }
}

impl Commit for Sealer {
    fn part(&mut self, number: u16, item: &[u8]) {
        self.part(number, item);
    }

    fn json(&mut self, number: u16, item: JsonItem<'_>) {
        self.json(number, item);
    }

    fn tag(&mut self, number: u16, tag: &TagItem<'_>) {
        self.tag(number, tag);
    }

    /// Who erases says which salts remain: no event has the salt of all, and a part that is gone.
    fn erased(&mut self, _: u16, _: &Hash) -> Result<(), &'static str> {
        Err(CHANGED)
    }
}

/// The columns of a row that are items.
pub(super) struct Items<'r> {
    pub(super) owner: Option<&'r [u8]>,
    pub(super) user_id: Option<&'r [u8]>,
    pub(super) target: Option<i32>,
    pub(super) request_id: Option<&'r [u8]>,
    pub(super) payload: &'r [u8],
    pub(super) extras: &'r [u8],
    pub(super) tags: &'r [u8],
    /// Microseconds since 1970.
    pub(super) created_at: i64,
}

impl Items<'_> {
    /// Hands every item, or what stands for it, to `body`: of parts that are gone, their commitments. `text` gives the
    /// hash of a text.
    pub(super) fn commit<'t>(
        &self,
        gone: &[(u16, Hash)],
        text: impl Fn(i32) -> Result<&'t Hash, &'static str>,
        body: &mut impl Commit,
    ) -> Result<(), &'static str> {
        let target = self.target.map(&text).transpose()?;
        let parts = [
            (chain::OWNER, self.owner),
            (chain::USER, self.user_id),
            (chain::TARGET, target.map(<[u8; 32]>::as_slice)),
            (chain::PAYLOAD, Some(self.payload)),
            (chain::REQUEST, self.request_id),
            (chain::EXTRAS, Some(self.extras)),
        ];
        for (number, part) in parts {
            if let Some((_, commitment)) = gone.iter().find(|(gone, _)| *gone == number) {
                if part.is_some_and(|part| !part.is_empty()) {
                    return Err(CHANGED);
                }
                body.erased(number, commitment)?;
                continue;
            }
            let Some(part) = part else { continue };
            if number == chain::PAYLOAD || number == chain::EXTRAS {
                match Packed::read(part).ok_or(CHANGED)? {
                    Packed::Template { id, arguments } => {
                        let template = text(id.cast_signed())?;
                        body.json(number, JsonItem::Template { template, arguments });
                    }
                    Packed::Text(text) => body.json(number, JsonItem::Text(text)),
                }
            } else {
                body.part(number, part);
            }
        }
        for (number, tag) in (chain::FIRST_TAG..).zip(Tags::read(self.tags, self.owner, self.created_at)) {
            let tag = tag.ok_or(CHANGED)?;
            match &tag {
                PackedTag::Erased(commitment) => body.erased(number, commitment)?,
                PackedTag::Tag { kind, detail, .. } => {
                    let detail = match detail.is_empty() {
                        true => JsonItem::Nothing,
                        false => match Packed::read(detail).ok_or(CHANGED)? {
                            Packed::Template { id, arguments } => JsonItem::Template {
                                template: text(id.cast_signed())?,
                                arguments,
                            },
                            Packed::Text(text) => JsonItem::Text(text),
                        },
                    };
                    let kind = text(kind.cast_signed())?;
                    body.tag(number, &TagItem::of(&tag, self.owner, self.created_at, kind, detail));
                }
            }
        }
        Ok(())
    }

    /// Whether nothing is in them, as in a stub.
    pub(super) fn is_stub(&self) -> bool {
        self.tags == STUB
            && self.owner.is_none()
            && self.user_id.is_none()
            && self.target.is_none()
            && self.request_id.is_none()
            && self.payload.is_empty()
            && self.extras.is_empty()
    }
}

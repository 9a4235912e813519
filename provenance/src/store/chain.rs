//! Commitments, leaves and the batch chain: what makes an edit show, and an erasure possible.
//!
//! All hashes are SHA-256; every one begins with eight bytes that say what it is.
//! `int` is a 64-bit big-endian integer; `text` is its length in bytes as `int`, then its bytes;
//! `opt x` is one byte 0, or one byte 1 and `x`.
//!
//! - An event's **items** are its person-linked parts: 0 owner, 1 user_id, 2 target, 3 payload,
//!   4 request_id, 5 extras, `6 + idx` its tags. Items that are NULL are absent.
//! - `salt(i) = HMAC-SHA-256(event salt, int i)`; the event's salt is 16 random bytes.
//! - `c(i) = H("pv1 item", salt(i), int i, item)`. The item of a part is its bytes; of a tag:
//!   opt text fingerprint, text category, text canonical, text field, text description,
//!   opt text owner, text source, int pii, int event_at, int created_at, text detail.
//! - `C = H("pv1 body", int i, c(i), ..)` over the items present, in order.
//! - `leaf = H("pv1 leaf", header, C)`, header: int instance, int seq, int created_at,
//!   text event_type, text actor, opt text recipient, opt int outcome_of, opt text outcome.
//! - `chain(0) = H("pv1 head", ..)` over the instance: int instance, int started_at, text service,
//!   opt text environment, text build, text version, text key_id.
//! - `chain(n) = H("pv1 link", chain(n-1), int n, int first_seq, int events, leaf, ..)`, n from 1.
//!
//! Erasing an item leaves `c(i)` in its place, and the salts of the remaining items instead of
//! the event's salt: the leaf stays provable, the item can no longer be guessed.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// A SHA-256.
pub(crate) type Hash = [u8; 32];

/// What the header and the parts of an event commit to, as stored.
pub(crate) struct EventParts<'a> {
    pub(crate) instance: i64,
    pub(crate) seq: i64,
    pub(crate) created_at: i64,
    pub(crate) event_type: &'a [u8],
    pub(crate) actor: &'a [u8],
    pub(crate) recipient: Option<&'a [u8]>,
    pub(crate) outcome_of: Option<i64>,
    pub(crate) outcome: Option<&'a [u8]>,
    pub(crate) owner: Option<&'a [u8]>,
    pub(crate) user_id: Option<&'a [u8]>,
    pub(crate) target: Option<&'a [u8]>,
    pub(crate) payload: &'a [u8],
    pub(crate) request_id: Option<&'a [u8]>,
    pub(crate) extras: &'a [u8],
    pub(crate) salt: &'a [u8],
}

/// What a tag commits to, as stored.
pub(crate) struct TagParts<'a> {
    pub(crate) idx: i64,
    pub(crate) event_at: i64,
    pub(crate) fingerprint: Option<&'a [u8]>,
    pub(crate) category: &'a [u8],
    pub(crate) canonical: &'a [u8],
    pub(crate) field: &'a [u8],
    pub(crate) description: &'a [u8],
    pub(crate) owner: Option<&'a [u8]>,
    pub(crate) source: &'a [u8],
    pub(crate) pii: i64,
    pub(crate) created_at: i64,
    pub(crate) detail: &'a [u8],
}

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

const FIRST_TAG: i64 = 6;

/// The leaf of an event with its tags, which come in the order of `idx`.
pub(crate) fn leaf<'a>(event: &EventParts<'_>, tags: impl IntoIterator<Item = TagParts<'a>>) -> Hash {
    // Hmac takes keys of any length; the fallback keeps this total without a panic.
    let salts = Hmac::new_from_slice(event.salt).unwrap_or_else(|_| Hmac::new(&Default::default()));
    let mut body = Encoder::new(b"pv1 body");
    let parts = [
        event.owner,
        event.user_id,
        event.target,
        Some(event.payload),
        event.request_id,
        Some(event.extras),
    ];
    for (i, part) in (0..).zip(parts) {
        if let Some(part) = part {
            let mut item = Encoder::item(&salts, i);
            item.raw(part);
            body.int(i).raw(&item.finish());
        }
    }
    for tag in tags {
        let i = FIRST_TAG.saturating_add(tag.idx);
        let mut item = Encoder::item(&salts, i);
        item.opt_text(tag.fingerprint)
            .text(tag.category)
            .text(tag.canonical)
            .text(tag.field)
            .text(tag.description)
            .opt_text(tag.owner)
            .text(tag.source)
            .int(tag.pii)
            .int(tag.event_at)
            .int(tag.created_at)
            .text(tag.detail);
        body.int(i).raw(&item.finish());
    }
    let mut leaf = Encoder::new(b"pv1 leaf");
    leaf.int(event.instance)
        .int(event.seq)
        .int(event.created_at)
        .text(event.event_type)
        .text(event.actor)
        .opt_text(event.recipient)
        .opt_int(event.outcome_of)
        .opt_text(event.outcome)
        .raw(&body.finish());
    leaf.finish()
}

/// `chain(0)` of an instance.
pub(crate) fn head(instance: &HeadParts<'_>) -> Hash {
    let mut head = Encoder::new(b"pv1 head");
    head.int(instance.instance)
        .int(instance.started_at)
        .text(instance.service)
        .opt_text(instance.environment)
        .text(instance.build)
        .text(instance.version)
        .text(instance.key_id);
    head.finish()
}

/// `chain(batch_no)`, given the chain before it.
pub(crate) fn link(before: &Hash, batch_no: i64, first_seq: i64, leaves: &[Hash]) -> Hash {
    let mut link = Encoder::new(b"pv1 link");
    link.raw(before)
        .int(batch_no)
        .int(first_seq)
        .int(i64::try_from(leaves.len()).unwrap_or(i64::MAX));
    for leaf in leaves {
        link.raw(leaf);
    }
    link.finish()
}

struct Encoder(Sha256);

impl Encoder {
    fn new(what: &[u8; 8]) -> Self {
        Encoder(Sha256::new_with_prefix(what))
    }

    fn item(salts: &Hmac<Sha256>, i: i64) -> Self {
        let salt = salts.clone().chain_update(i.to_be_bytes()).finalize().into_bytes();
        let mut item = Encoder::new(b"pv1 item");
        item.raw(&salt).int(i);
        item
    }

    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    fn int(&mut self, int: i64) -> &mut Self {
        self.raw(&int.to_be_bytes())
    }

    fn text(&mut self, text: &[u8]) -> &mut Self {
        let length = i64::try_from(text.len()).unwrap_or(i64::MAX);
        self.int(length).raw(text)
    }

    fn opt_text(&mut self, text: Option<&[u8]>) -> &mut Self {
        match text {
            Some(text) => self.raw(&[1]).text(text),
            None => self.raw(&[0]),
        }
    }

    fn opt_int(&mut self, int: Option<i64>) -> &mut Self {
        match int {
            Some(int) => self.raw(&[1]).int(int),
            None => self.raw(&[0]),
        }
    }

    fn finish(self) -> Hash {
        self.0.finalize().into()
    }
}

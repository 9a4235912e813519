//! Rows as a batch writes them.

use diesel::prelude::*;

use super::schema::owner_links;
use super::statement::{Column, Row};

/// Columns of an event's row that hold bytes, in the order in which they lie behind each other.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Owner,
    User,
    Request,
    Payload,
    Extras,
    Tags,
}

/// An event's row. What has bytes is in one piece: a batch has thousands of rows.
pub(super) struct EventRow {
    pub(super) n: i64,
    pub(super) seq: i64,
    pub(super) at: i64,
    pub(super) after: i64,
    pub(super) event_type: i32,
    pub(super) actor: i32,
    pub(super) target: Option<i32>,
    pub(super) recipient: Option<i32>,
    pub(super) outcome_of: Option<i64>,
    /// The parts.
    pub(super) bytes: Box<[u8]>,
    /// Where each ends.
    pub(super) ends: [usize; 6],
    pub(super) proof: [u8; 48],
}

/// Empty where the column is NULL: no packed text is.
pub(super) fn part<'r>(bytes: &'r [u8], ends: &[usize; 6], part: Part) -> &'r [u8] {
    let at = part as usize;
    let start = at.checked_sub(1).and_then(|before| ends.get(before));
    let range = start.copied().unwrap_or(0)..ends.get(at).copied().unwrap_or(0);
    bytes.get(range).unwrap_or_default()
}

impl EventRow {
    fn part(&self, of: Part) -> &[u8] {
        part(&self.bytes, &self.ends, of)
    }

    pub(super) fn text(&self, part: Part) -> Option<&[u8]> {
        Some(self.part(part)).filter(|text| !text.is_empty())
    }

    pub(super) fn tags(&self) -> &[u8] {
        self.part(Part::Tags)
    }

    pub(super) fn created_at(&self) -> i64 {
        self.at.wrapping_mul(1000).wrapping_add(self.after)
    }
}

impl Row for EventRow {
    type Name = EventRow;
    const INTO: &'static str = "INSERT OR ROLLBACK INTO events (n, seq, at, after, event_type, actor, target, recipient, \
        outcome_of, owner, user_id, request_id, payload, extras, tags, proof) VALUES";

    fn columns<'b>(&'b self, column: &mut dyn FnMut(Column<'b>) -> QueryResult<()>) -> QueryResult<()> {
        column(Column::Big(&self.n))?;
        column(Column::Big(&self.seq))?;
        column(Column::Big(&self.at))?;
        column(Column::Big(&self.after))?;
        column(Column::Int(&self.event_type))?;
        column(Column::Int(&self.actor))?;
        column(Column::OptInt(&self.target))?;
        column(Column::OptInt(&self.recipient))?;
        column(Column::OptBig(&self.outcome_of))?;
        column(Column::OptBytes(self.text(Part::Owner)))?;
        column(Column::OptBytes(self.text(Part::User)))?;
        column(Column::OptBytes(self.text(Part::Request)))?;
        column(Column::Bytes(self.part(Part::Payload)))?;
        column(Column::Bytes(self.part(Part::Extras)))?;
        column(Column::Bytes(self.part(Part::Tags)))?;
        column(Column::Bytes(&self.proof))
    }
}

/// Two identifiers of one person.
#[derive(Insertable)]
#[diesel(table_name = owner_links, treat_none_as_default_value = false)]
pub(super) struct LinkRow<'a> {
    pub(super) a: &'a str,
    pub(super) b: &'a str,
    pub(super) created_at: i64,
    pub(super) n: i64,
    pub(super) id: i64,
}

/// A registered value's row.
pub(super) struct ValueRow {
    pub(super) n: i64,
    pub(super) id: i64,
    pub(super) fingerprint: [u8; 32],
    pub(super) tag: i32,
    pub(super) category: i32,
    pub(super) owner: Option<Vec<u8>>,
    pub(super) kind: i16,
    pub(super) entry: Vec<u8>,
    pub(super) created_at: i64,
}

impl Row for ValueRow {
    type Name = ValueRow;
    const INTO: &'static str = "INSERT OR ROLLBACK INTO fingerprints \
        (n, id, fingerprint, tag, category, owner, kind, entry, created_at) VALUES";

    fn columns<'b>(&'b self, column: &mut dyn FnMut(Column<'b>) -> QueryResult<()>) -> QueryResult<()> {
        column(Column::Big(&self.n))?;
        column(Column::Big(&self.id))?;
        column(Column::Bytes(&self.fingerprint))?;
        column(Column::Int(&self.tag))?;
        column(Column::Int(&self.category))?;
        column(Column::OptBytes(self.owner.as_deref()))?;
        column(Column::Small(&self.kind))?;
        column(Column::Bytes(&self.entry))?;
        column(Column::Big(&self.created_at))
    }
}

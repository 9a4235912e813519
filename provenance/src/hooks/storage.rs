//! What the database has: DATA_STORAGE events for committed writes, and the values of loads.

use std::cell::Cell;
use std::sync::{Arc, LazyLock};

use dashmap::DashMap;

use super::block::{Bind, Block, What};
use super::returned::Returned;
use super::tape::{self, Place, Tape};
use super::{access, input};
use crate::memo::RowKey;
use crate::scope::Scope;
use crate::site::{Column, ModelSite};
use crate::tracked::{Field, Sink, Value, Visitor};
use crate::tracker::{BlindSpot, Moment, Observed, Tracker, declare};
#[cfg(feature = "sql-fallback")]
use crate::vocabulary::EventTag;
use crate::vocabulary::{Action, Event, EventType, Fingerprint, Owner, Timestamp};

/// Most bytes of raw values that one statement or row puts off, and that wait for one transaction's end.
pub(crate) const MOST_RAW: usize = 1 << 16;

/// Most bytes of raw values that a thread keeps room for.
const MOST_KEPT: usize = 1 << 12;

/// What one statement does to one table, from its binds to its commit.
pub(crate) struct Write {
    /// In force when the values were bound: their fingerprints are made with its key.
    tracker: Tracker,
    site: &'static ModelSite,
    action: Action,
    /// What was bound, and nobody has looked at yet.
    raw: Tape,
    binds: Vec<Staged>,
    was_bound: bool,
    values: Vec<Stored>,
    /// Whose values were asked for last.
    last: Option<Named>,
    /// Rows that the statement gave back, where values do not say whose they are.
    returned: Option<Arc<Returned>>,
    /// Whose the rows are, where no value says it.
    pub(crate) owners: Option<Arc<[Owner]>>,
    /// Why it is not certain, if it is not.
    pub(crate) doubt: Option<Doubt>,
}

/// What a write that was bound is taken down in.
#[derive(Default)]
struct Buffers {
    raw: Tape,
    binds: Vec<Staged>,
}

thread_local! {
    /// Of the last write of this thread, for the next.
    static SPARE: Cell<Buffers> = const { Cell::new(Buffers { raw: Tape::new(), binds: Vec::new() }) };
}

/// What a record says of whose it is, and who that is.
struct Named(Arc<Tape>, Option<Arc<[Owner]>>);

/// A value as it was bound.
struct Staged {
    column: &'static Column,
    /// Where it ends on the tape.
    end: Place,
    owners: Whose,
}

/// What says whose a value is.
enum Whose {
    Nothing,
    /// What says it of the value before.
    Same,
    Own(Arc<Tape>),
}

struct Stored {
    column: &'static Column,
    observed: Observed,
    owners: Option<Arc<[Owner]>>,
}

/// What nobody tells of a write that succeeded at first sight. The words stand in a table in
/// [`integrations::diesel`](crate::integrations::diesel).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Doubt {
    /// An existing row may have won.
    OnConflict,
    /// It may have changed no row.
    RowCountNotReported,
    /// A RETURNING statement whose rows nobody of ours read may have failed.
    ReturningNotConfirmed,
    /// Fewer rows were stored than the statement has.
    SomeRowsIgnored,
    /// Several statements were open at once, or one was never seen to end.
    StatementsOverlapped,
    /// A statement of the transaction may have failed, so that its COMMIT rolled back.
    TransactionMayHaveAborted,
    /// How the transaction ended was not understood.
    TransactionNotFollowed,
    /// The COMMIT was not answered.
    CommitNotConfirmed,
}

impl Doubt {
    fn as_str(self) -> &'static str {
        match self {
            Doubt::OnConflict => "on_conflict",
            Doubt::RowCountNotReported => "row_count_not_reported",
            Doubt::ReturningNotConfirmed => "returning_not_confirmed",
            Doubt::SomeRowsIgnored => "some_rows_ignored",
            Doubt::StatementsOverlapped => "statements_overlapped",
            Doubt::TransactionMayHaveAborted => "transaction_may_have_aborted",
            Doubt::TransactionNotFollowed => "transaction_not_followed",
            Doubt::CommitNotConfirmed => "commit_not_confirmed",
        }
    }
}

impl Write {
    pub(crate) fn new(tracker: &Tracker, site: &'static ModelSite, action: Action) -> Self {
        let buffers = SPARE.try_with(Cell::take).unwrap_or_default();
        Write {
            tracker: tracker.clone(),
            site,
            action,
            raw: buffers.raw,
            binds: buffers.binds,
            was_bound: false,
            values: Vec::new(),
            last: None,
            returned: None,
            owners: None,
            doubt: None,
        }
    }

    /// Whether one of its values does not say whose it is.
    pub(crate) fn lacks_owners(&self) -> bool {
        self.values.iter().any(|value| value.owners.is_none())
            || self.binds.iter().any(|bind| matches!(bind.owners, Whose::Nothing))
    }

    /// Where a row that comes back is to go: nowhere, if it is of another table or is not needed.
    pub(crate) fn returned(&mut self, row: &ModelSite) -> Option<Arc<Returned>> {
        (self.site.table == row.table).then(|| self.asks())?
    }

    /// Where rows that come back are to go, if they are asked whose the values are.
    pub(crate) fn asks(&mut self) -> Option<Arc<Returned>> {
        let table = self.site.table;
        self.lacks_owners().then(|| {
            self.returned
                .get_or_insert_with(|| Arc::new(Returned::of(table)))
                .clone()
        })
    }

    /// Values that do not say whose they are, are theirs.
    #[cfg(feature = "sql-fallback")]
    pub(crate) fn belongs_to(&mut self, owners: &Arc<[Owner]>) {
        self.look();
        for value in &mut self.values {
            value.owners.get_or_insert_with(|| owners.clone());
        }
    }

    /// Whether this value of a column belongs to it already.
    #[cfg(feature = "sql-fallback")]
    pub(crate) fn holds(&mut self, column: &Column, observed: &Observed) -> bool {
        self.look();
        let is =
            |value: &Stored| value.column.name == column.name && value.observed.fingerprint == observed.fingerprint;
        self.values.iter().any(is)
    }

    pub(crate) fn action(&self) -> Action {
        self.action
    }

    /// Whether values of `site` under `action` belong to this event.
    pub(crate) fn is_of(&self, site: &ModelSite, action: Action) -> bool {
        self.action == action && self.site.table == site.table
    }

    /// A value was bound: it is looked at once the database has it.
    pub(crate) fn stage(&mut self, column: &'static Column, tape: &Tape, owners: Option<&Arc<Tape>>) {
        self.was_bound = true;
        self.raw.append(tape);
        let last = || {
            let mut binds = self.binds.iter().rev();
            binds.find_map(|bind| match &bind.owners {
                Whose::Own(tape) => Some(Some(tape)),
                Whose::Nothing => Some(None),
                Whose::Same => None,
            })
        };
        let owners = match owners {
            None => Whose::Nothing,
            Some(owners) => match last().flatten() {
                Some(last) if Arc::ptr_eq(last, owners) => Whose::Same,
                _ => Whose::Own(owners.clone()),
            },
        };
        self.binds.push(Staged {
            column,
            end: self.raw.place(),
            owners,
        });
        if self.raw.bytes() > MOST_RAW {
            self.look();
        }
    }

    /// A value that was looked at before it was converted was bound.
    pub(crate) fn stage_seen(&mut self, column: &'static Column, seen: &[Observed], owners: Option<&Arc<Tape>>) {
        let owners = owners.and_then(|owners| self.named(owners));
        for observed in seen {
            self.push(column, observed.clone(), owners.clone());
        }
    }

    pub(crate) fn push(&mut self, column: &'static Column, observed: Observed, owners: Option<Arc<[Owner]>>) {
        self.look();
        self.values.push(Stored {
            column,
            observed,
            owners,
        });
    }

    /// Bytes of raw values that it holds.
    pub(crate) fn raw(&self) -> usize {
        self.raw.bytes()
    }

    /// Makes pseudonyms of what was bound.
    pub(crate) fn look(&mut self) {
        if self.binds.is_empty() {
            return;
        }
        let raw = std::mem::take(&mut self.raw);
        let (mut begin, mut owners) = (Place::default(), None);
        for Staged {
            column,
            end,
            owners: whose,
        } in std::mem::take(&mut self.binds)
        {
            match whose {
                Whose::Same => {}
                Whose::Nothing => owners = None,
                Whose::Own(tape) => owners = self.named(&tape),
            }
            let tell = |sink: &mut dyn Sink| raw.play_part(begin, end, sink);
            look(
                &self.tracker,
                self.site,
                column,
                owners.as_ref(),
                &mut self.values,
                tell,
            );
            begin = end;
        }
    }

    /// Whom a record names. Asked once a record: what is the same says that it is of one row.
    fn named(&mut self, tape: &Arc<Tape>) -> Option<Arc<[Owner]>> {
        if let Some(Named(last, owners)) = &self.last
            && Arc::ptr_eq(last, tape)
        {
            return owners.clone();
        }
        let owners = named(&self.tracker, |sink| tape.play(sink));
        self.last = Some(Named(tape.clone(), owners.clone()));
        owners
    }

    pub(crate) fn is_of_table(&self, other: &Write) -> bool {
        self.site.table == other.site.table
    }

    pub(crate) fn becomes(&mut self, action: Action) {
        self.action = action;
    }

    /// Takes the values of `other`, each once. `true` if both had the same ones.
    pub(crate) fn absorb(&mut self, mut other: Write) -> bool {
        self.look();
        other.look();
        let mut known = vec![false; self.values.len()];
        let mut more = Vec::new();
        for value in other.values {
            let is = |own: &Stored| {
                own.column.name == value.column.name && own.observed.fingerprint == value.observed.fingerprint
            };
            match self.values.iter().position(is).and_then(|at| known.get_mut(at)) {
                Some(known) => *known = true,
                None => more.push(value),
            }
        }
        let same = more.is_empty() && known.iter().all(|known| *known);
        self.values.append(&mut more);
        same
    }

    /// The write was not seen to its end.
    pub(crate) fn missed(&self, why: BlindSpot) {
        self.tracker.blind_spot(why, self.site.site.path);
    }

    /// The database has it: registers the values and records the event.
    pub(crate) fn committed(self) {
        let scope = Scope::current();
        if let Some(scope) = &scope {
            input::settle_in(&self.tracker, scope);
        }
        if self.binds.is_empty() || !self.values.is_empty() || self.owners.is_some() || self.returned.is_some() {
            let (tracker, bytes) = (self.tracker.clone(), self.raw.bytes());
            return tracker.defer(scope, bytes, |_, moment| self.record(moment));
        }
        let moment = self.tracker.moment(scope);
        if !moment.is_deferred() {
            return self.record(&moment);
        }
        Block::add(&self.tracker, self.size(), |block| self.copy(block, moment));
        let Write { mut raw, mut binds, .. } = self;
        if raw.capacity() <= MOST_KEPT {
            raw.clear();
            binds.clear();
            let _ = SPARE.try_with(|spare| spare.replace(Buffers { raw, binds }));
        }
    }

    /// Values that do not say whose they are go by the row that came back with them; those of one record also where the
    /// database has changed them.
    fn ask_rows(&mut self) {
        struct Row<'c> {
            owners: Arc<[Owner]>,
            values: Vec<(&'c str, Fingerprint)>,
        }
        let Some(returned) = self.returned.take() else { return };
        let mut rows: Vec<Row<'_>> = Vec::new();
        returned.each(|site, tell| {
            let mut seen = Seen::new(&self.tracker);
            tell(&mut seen);
            let named = |(field, observed): &(&'static Field, Observed)| {
                Some((column(site, field)?.name, observed.fingerprint))
            };
            rows.push(Row {
                values: seen.values.iter().filter_map(named).collect(),
                owners: seen.owners.into(),
            });
        });
        let mut columns = self.values.iter().map(|value| value.column.name);
        let one = rows.len() == 1 && columns.next().is_none_or(|first| columns.all(|column| column != first));
        let returns = |column: &str| rows.iter().flat_map(|row| &row.values).any(|(of, _)| *of == column);
        let came = |value: &Stored| {
            let of = (value.column.name, value.observed.fingerprint);
            rows.iter().any(|row| row.values.contains(&of))
        };
        // Of a record whose row was not read nobody is to be taken for the owner.
        let missed = |value: &Stored| returns(value.column.name) && !came(value);
        if !one && self.values.iter().any(missed) {
            return;
        }
        for value in self.values.iter_mut().filter(|value| value.owners.is_none()) {
            let of = (value.column.name, value.observed.fingerprint);
            let mut with = rows.iter().filter(|row| one || row.values.contains(&of));
            let Some(Row { owners, .. }) = with.next() else {
                continue;
            };
            // What two people have in common says of neither.
            if !owners.is_empty() && with.all(|row| row.owners == *owners) {
                value.owners = Some(owners.clone());
            }
        }
    }

    fn record(mut self, moment: &Moment) {
        self.look();
        self.ask_rows();
        // Of all that was bound there may be nothing to keep.
        if !self.was_bound || !self.values.is_empty() {
            let doubt = self.doubt.map(Doubt::as_str);
            let write = (self.site, self.action, doubt);
            record(&self.tracker, moment, write, &self.values, self.owners.as_deref());
        }
    }

    /// Bytes that it takes while it waits, about.
    fn size(&self) -> usize {
        let owners = self.binds.iter().map(|bind| match &bind.owners {
            Whose::Own(tape) => tape.size(),
            Whose::Same | Whose::Nothing => 0,
        });
        self.raw.size() + owners.sum::<usize>() + size_of_val(&*self.binds)
    }

    fn copy(&self, block: &mut Block, moment: Moment) -> What {
        let base = block.tape.place();
        block.tape.append(&self.raw);
        let (mut from, mut owners) = (base, None);
        for bind in &self.binds {
            match &bind.owners {
                Whose::Same => {}
                Whose::Nothing => owners = None,
                Whose::Own(tape) => {
                    let begin = block.tape.place();
                    block.tape.append(tape);
                    owners = Some((begin, block.tape.place()));
                }
            }
            let to = bind.end.behind(base);
            block.binds.push(Bind {
                column: bind.column,
                from,
                to,
                owners,
            });
            from = to;
        }
        What::Write {
            site: self.site,
            moment,
            action: self.action,
            doubt: self.doubt.map(Doubt::as_str),
            binds: self.binds.len(),
        }
    }
}

/// Records a write that waited as it was bound.
pub(super) fn written(
    tracker: &Tracker,
    moment: &Moment,
    write: (&'static ModelSite, Action, Option<&'static str>),
    tape: &Tape,
    binds: &[Bind],
) {
    let mut values = Vec::with_capacity(binds.len());
    let (mut place, mut owners) = (None, None);
    for bind in binds {
        if bind.owners != place {
            place = bind.owners;
            owners = place.and_then(|(from, to)| named(tracker, |sink| tape.play_part(from, to, sink)));
        }
        let tell = |sink: &mut dyn Sink| tape.play_part(bind.from, bind.to, sink);
        look(tracker, write.0, bind.column, owners.as_ref(), &mut values, tell);
    }
    if !values.is_empty() {
        record(tracker, moment, write, &values, None);
    }
}

/// Makes pseudonyms of what was bound to a column.
fn look(
    tracker: &Tracker,
    site: &'static ModelSite,
    column: &'static Column,
    owners: Option<&Arc<[Owner]>>,
    values: &mut Vec<Stored>,
    tell: impl FnOnce(&mut dyn Sink),
) {
    let mut seen = Seen::new(tracker);
    tell(&mut seen);
    seen.report(site);
    values.extend(seen.values.into_iter().map(|(_, observed)| Stored {
        column,
        observed,
        owners: owners.cloned(),
    }));
}

/// Whom a record names.
fn named(tracker: &Tracker, tell: impl FnOnce(&mut dyn Sink)) -> Option<Arc<[Owner]>> {
    let mut seen = Seen::new(tracker);
    tell(&mut seen);
    (!seen.owners.is_empty()).then(|| seen.owners.into())
}

/// `of_rows`: whose the rows are, where no value says it.
fn record(
    tracker: &Tracker,
    moment: &Moment,
    (site, action, doubt): (&'static ModelSite, Action, Option<&'static str>),
    values: &[Stored],
    of_rows: Option<&[Owner]>,
) {
    let scope = moment.scope.as_ref();
    let actor = scope.map_or_else(|| Arc::from("db"), |scope| scope.source().clone());
    // A new row of somebody who was erased says that they came back.
    if action == Action::Insert && doubt.is_none() {
        let named = values.iter().filter_map(|value| value.owners.as_deref());
        let named = named.chain(of_rows).flatten();
        named.for_each(|owner| tracker.readmit_owner(owner));
    }
    // What may not have been stored does not say who is who.
    let owners = owners_of(tracker, site, values, doubt.is_none());
    // Values that do not say whose they are: of the one person that the others name (an embedded
    // record), else of the request's.
    let mut named = owners.iter().copied().flatten();
    let unnamed = match named.next() {
        Some(first) => named.all(|owner| owner == first).then(|| first.clone()),
        None => scope.and_then(|scope| scope.owner()),
    };

    let mut event = Event::new(EventType::DataStorage, actor);
    event.created_at = moment.at;
    // What the SQL text told is of no attribute.
    if site.model.is_empty() {
        event.extras.insert("seen".into(), "sql".into());
    } else {
        declare(&mut event, &site.site);
        event.extras.insert("model".into(), site.model.into());
    }
    event.target = Some(format!("db:{}", site.table).into());
    event.extras.insert("action".into(), action.as_str().into());
    event.extras.insert("table".into(), site.table.into());
    event.extras.insert("certain".into(), doubt.is_none().into());
    if let Some(doubt) = doubt {
        event.extras.insert("reason".into(), doubt.into());
    }
    for (value, owner) in values.iter().zip(&owners) {
        describe(&mut event, &value.observed);
        let owner = owner.or(unnamed.as_ref());
        let source = source(site, value.column);
        event.tags.push(match action {
            // What was removed is not what the database has.
            #[cfg(feature = "sql-fallback")]
            Action::Delete => EventTag {
                tag: value.observed.tag(owner, &source, moment.at),
                detail: Default::default(),
            },
            _ => tracker.register(&value.observed, owner, &source, true, moment.at),
        });
    }
    event.owner = match of_rows {
        Some(owners) if values.is_empty() => whose(tracker, site, owners, doubt.is_none()).0.cloned(),
        _ => sole_owner(&event),
    };
    tracker.record_of(event, moment);
}

/// A row of a model was read: its values are known to whoever asks from now on. `at` tells when.
///
/// Rows are read again and again; one whose every value is registered needs no more than a look. So the first
/// visit makes its key alone.
pub(crate) fn loaded(
    tracker: &Tracker,
    site: &'static ModelSite,
    at: fn() -> Timestamp,
    visit: impl Fn(&mut Visitor<'_>),
) {
    let mut glance = Glance(tracker.row_key());
    glance.0.number(std::ptr::from_ref(site).addr() as u64);
    visit(&mut Visitor::new(&mut glance));
    let key = glance.0.end();
    let (known, counted) = (tracker.knows_row(key), tracker.config().access_events);
    if known && !counted {
        return;
    }
    tape::on_scratch(|tape| {
        visit(&mut Visitor::new(tape));
        if counted {
            access::row(tracker, site, tape.fields().filter_map(|field| column(site, field)));
        }
        if known {
            return;
        }
        let at = at();
        if tape.bytes() > MOST_RAW || tape.is_capped() {
            tracker.work_off();
            return row(tracker, site, at, key, |sink| tape.play(sink));
        }
        Block::add(tracker, tape.size(), |block| {
            block.tape.append(tape);
            What::Row { site, at, key }
        });
    });
}

/// Makes a row's key, and nothing of its values.
struct Glance<'t>(RowKey<'t>);

impl Sink for Glance<'_> {
    fn begin(&mut self) {
        self.0.number(1);
    }

    fn end(&mut self) {
        self.0.number(2);
    }

    fn owner(&mut self, kind: &'static str, value: Value<'_>) {
        self.0.named(kind.as_ptr().addr(), value);
    }

    fn declared(&mut self, field: &'static Field, value: Value<'_>) {
        self.0.named(std::ptr::from_ref(field).addr(), value);
    }
}

/// Registers the values of a row that was read.
pub(super) fn row(
    tracker: &Tracker,
    site: &'static ModelSite,
    at: Timestamp,
    key: u64,
    tell: impl FnOnce(&mut dyn Sink),
) {
    let mut seen = Seen::new(tracker);
    tell(&mut seen);
    seen.report(site);
    let (owner, agreed) = whose(tracker, site, &seen.owners, true);
    for (field, observed) in &seen.values {
        // A record inside this one is a model of its own, or is not of the database.
        if let Some(column) = column(site, field) {
            tracker.register(observed, owner, &source(site, column), true, at);
        }
    }
    // What is counted once a row has to be counted the next time too.
    if agreed && seen.missed.is_none() {
        tracker.note_row(key);
    }
}

fn column(site: &'static ModelSite, field: &'static Field) -> Option<&'static Column> {
    site.columns.iter().find(|column| std::ptr::eq(column.field, field))
}

/// Whose each value is, as its row says. The identifiers of a row that the database has are linked.
fn owners_of<'v>(tracker: &Tracker, site: &ModelSite, values: &'v [Stored], certain: bool) -> Vec<Option<&'v Owner>> {
    let mut last: Option<(&Arc<[Owner]>, Option<&Owner>)> = None;
    let of = |value: &'v Stored| {
        let owners = value.owners.as_ref()?;
        match last {
            Some((row, owner)) if Arc::ptr_eq(row, owners) => owner,
            _ => {
                let (owner, _) = whose(tracker, site, owners, certain);
                last = Some((owners, owner));
                owner
            }
        }
    };
    values.iter().map(of).collect()
}

/// Links the identifiers that a row carries, and gives the one that it goes by: the first, or, where
/// that is another person's (an address that passed on), the one that people keep. With whether
/// they are all one person's. What is not certain links nobody.
fn whose<'o>(tracker: &Tracker, site: &ModelSite, owners: &'o [Owner], certain: bool) -> (Option<&'o Owner>, bool) {
    let Some((first, others)) = owners.split_first() else {
        return (None, true);
    };
    if !certain {
        return (Some(first), others.is_empty());
    }
    let mut one_person = true;
    for other in others {
        one_person &= tracker.link_by_row(first, other);
    }
    if one_person {
        return (Some(first), true);
    }
    tracker.blind_spot(BlindSpot::OwnerConflict, site.site.path);
    (owners.iter().find(|owner| owner.is_kept()).or(Some(first)), false)
}

fn sole_owner(event: &Event) -> Option<Owner> {
    let mut owners = event.tags.iter().map(|tag| tag.tag.owner.as_ref());
    let first = owners.next()??;
    owners.all(|owner| owner == Some(first)).then(|| first.clone())
}

/// `db:users.email`, made once a column.
fn source(site: &ModelSite, column: &'static Column) -> Arc<str> {
    static SOURCES: LazyLock<DashMap<usize, Arc<str>>> = LazyLock::new(DashMap::new);
    let address = std::ptr::from_ref(column) as usize;
    if let Some(source) = SOURCES.get(&address) {
        return source.clone();
    }
    let source: Arc<str> = format!("db:{}.{}", site.table, column.name).into();
    SOURCES.insert(address, source.clone());
    source
}

/// One shape a field; of many rows, how many values instead of a length.
fn describe(event: &mut Event, observed: &Observed) {
    let name = &observed.spec.name;
    match event.shapes.iter_mut().find(|known| known.name == *name) {
        Some(known) => {
            known.length = None;
            known.count += 1;
        }
        None => event.shapes.push(input::shape(observed, None)),
    }
}

/// Visits a record's fields and keeps pseudonyms.
pub(crate) struct Seen<'t> {
    tracker: &'t Tracker,
    depth: usize,
    /// Of the outermost record.
    pub(crate) owners: Vec<Owner>,
    pub(crate) values: Vec<(&'static Field, Observed)>,
    missed: Option<&'static str>,
}

impl<'t> Seen<'t> {
    pub(crate) fn new(tracker: &'t Tracker) -> Self {
        Seen {
            tracker,
            depth: 0,
            owners: Vec::new(),
            values: Vec::new(),
            missed: None,
        }
    }

    /// Counts what could not be visited.
    pub(crate) fn report(&self, site: &ModelSite) {
        if let Some(what) = self.missed {
            self.tracker
                .blind_spot(BlindSpot::UnvisitedInput, &format!("{} ({what})", site.site.path));
        }
    }
}

impl Sink for Seen<'_> {
    fn begin(&mut self) {
        self.depth += 1;
    }

    fn end(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    fn owner(&mut self, kind: &'static str, value: Value<'_>) {
        if self.depth <= 1 {
            self.owners.extend(self.tracker.owner(kind, value));
        }
    }

    fn declared(&mut self, field: &'static Field, value: Value<'_>) {
        let spec = self.tracker.spec(field);
        self.values
            .extend(self.tracker.observe(&spec, value).map(|observed| (field, observed)));
    }

    fn missed(&mut self, what: &'static str) {
        self.missed = Some(what);
    }
}

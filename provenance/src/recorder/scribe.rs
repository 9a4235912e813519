//! The writer's thread: commits in batches, spills where the database takes nothing, and goes on in a fresh file
//! where the one before is lost.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};

use super::written::Done;
use super::{Message, Shared, lock};
use crate::Error;
use crate::deferred::Deferred;
use crate::hex::hex;
use crate::spill::{self, Chunk, Spill};
use crate::store::Writer;
use crate::store::write::{Record, SpillMark};
use crate::ticket::{self, Generation, Ticket};

/// Most records that one commit takes.
pub(super) const BATCH: usize = 2048;
/// Most records that one write to the spill file takes: it is to be quicker than those who send.
const SPILL_BATCH: usize = 8 * BATCH;
/// How long a record may wait for others to share its commit. Nobody wakes the writer meanwhile:
/// on a busy machine that costs more than what is sent.
const LINGER: Duration = Duration::from_millis(100);
/// How long the writer looks for more by itself once it has told the one who waited: who sends one record after the other
/// has the next one by then, and to be woken costs more than that. It is tried again only where it would have helped.
const ATTENTIVE: Duration = Duration::from_micros(120);
/// Meanwhile it leaves its processor to others. One that was gone for so long had work of its own: then the writer does not
/// look for more for a while, as one that sleeps is let in at once.
const CROWDED: Duration = Duration::from_micros(50);
const UNCROWDED: Duration = Duration::from_secs(1);
/// With nothing to write for so long, the index is brought up to date.
const QUIET: Duration = Duration::from_secs(1);
/// How long a commit may fail before its records go to the spill file, or to a fresh one where this one is lost.
const SPILL_AFTER: Duration = Duration::from_secs(1);
/// How long the writer brings in what was spilled before it looks at what was sent meanwhile.
const STRETCH: Duration = Duration::from_millis(200);
/// First and longest pause between two attempts to commit.
const PAUSE: Duration = Duration::from_millis(5);
pub(super) const BACKOFF: Duration = Duration::from_millis(500);

/// What the writer thread has in hand.
pub(super) struct Scribe<'a> {
    writer: Writer,
    spill: Spill,
    /// What the database takes next: it stands in the spill file too. The same records each time: a commit
    /// that seemed to fail may have taken place.
    held: Option<Chunk>,
    /// When the database is asked again.
    again_at: Instant,
    /// Why the database took nothing the last time.
    trouble: Option<String>,
    /// Since when it is known that it never will.
    lost_since: Option<Instant>,
    generation: Generation,
    /// The number of the last record.
    numbered: u64,
    /// When somebody who waited was told, if that was the last thing done.
    told_at: Option<Instant>,
    /// The next record came soon after, the last time.
    is_attentive: bool,
    /// Until when it does not look for more.
    crowded_until: Option<Instant>,
    messages: &'a Receiver<Message>,
    shared: &'a Shared,
}

impl<'a> Scribe<'a> {
    /// `held` was read from the spill file, and is taken first.
    pub(super) fn new(
        writer: Writer,
        spill: Spill,
        held: Option<Chunk>,
        messages: &'a Receiver<Message>,
        shared: &'a Shared,
    ) -> Self {
        Scribe {
            writer,
            spill,
            held,
            again_at: Instant::now(),
            trouble: None,
            lost_since: None,
            generation: 0,
            numbered: 0,
            told_at: None,
            is_attentive: true,
            crowded_until: None,
            messages,
            shared,
        }
    }

    /// Commits until told to stop, or until nobody can send any more.
    pub(super) fn run(&mut self, hurried: &Receiver<()>, deferred: &Deferred) {
        let mut batch = Batch::default();
        let mut last = false;
        loop {
            // Those who sent while it was told to stop are still served.
            // What was put off since it was last looked at has perhaps announced itself already.
            let first = match last || !deferred.is_idle() {
                true => self
                    .messages
                    .try_recv()
                    .map_err(|error| last || error.is_disconnected()),
                false => self.wait(),
            };
            batch.most = if self.is_behind() { SPILL_BATCH } else { BATCH };
            match first {
                Ok(message) => batch.take(message),
                Err(true) => break,
                Err(false) => {}
            }
            // Whoever hurries sends first: what was said before this is found by the look that follows.
            let _ = hurried.try_recv();
            batch.fill(self.messages);
            // Where somebody waits, only what is there already shares the commit.
            let is_late = batch.records.is_empty() && self.is_behind();
            if !batch.urgent && !batch.is_full() && !last && !is_late {
                let _ = hurried.recv_timeout(LINGER);
            }
            deferred.work_off();
            batch.fill(self.messages);
            batch.records.append(&mut lock(&self.shared.overflow));
            last |= batch.last;
            batch.first = self.numbered + 1;
            self.number(&mut batch);
            if !self.settle(&mut batch) {
                // Given up: what still waits will not be written either.
                let records = |m: &Message| matches!(m, Message::Record(_) | Message::Durable(..));
                let waiting = self.messages.try_iter().filter(records);
                self.shared.refused.fetch_add(waiting.count() as u64, Ordering::Relaxed);
                deferred.work_off();
                return;
            }
            if !self.is_pressed() {
                self.catch_up(STRETCH);
            }
        }
        // What was put off while it ended keeps its tracker alive.
        deferred.work_off();
        // What the database does not take now stays in the spill file.
        self.again_at = Instant::now();
        self.catch_up(Duration::MAX);
        if !self.is_behind() {
            let _ = self.writer.end();
        }
    }

    /// The first of the next messages; the error says whether there will be none.
    fn wait(&mut self) -> Result<Message, bool> {
        let told_at = self.told_at.take();
        let is_crowded = |told: Instant| self.crowded_until.is_some_and(|until| told < until);
        if let Some(told_at) = told_at.filter(|told| self.is_attentive && !is_crowded(*told)) {
            let mut now = Instant::now();
            while now < told_at + ATTENTIVE {
                match self.messages.try_recv() {
                    Err(TryRecvError::Empty) => std::thread::yield_now(),
                    told => return told.map_err(|_| true),
                }
                let before = std::mem::replace(&mut now, Instant::now());
                if now > before + CROWDED {
                    self.crowded_until = Some(now + UNCROWDED);
                }
            }
        }
        let message = self.sleep();
        self.is_attentive = told_at.is_some_and(|told_at| told_at.elapsed() < 3 * ATTENTIVE / 2);
        message
    }

    fn sleep(&mut self) -> Result<Message, bool> {
        if !self.is_behind() {
            if self.writer.is_behind() {
                match self.messages.recv_timeout(QUIET) {
                    Ok(message) => return Ok(message),
                    Err(RecvTimeoutError::Disconnected) => return Err(true),
                    Err(RecvTimeoutError::Timeout) => while self.maintain(true) && self.messages.is_empty() {},
                }
            }
            return self.messages.recv().map_err(|_| true);
        }
        self.messages
            .recv_deadline(self.again_at)
            .map_err(|error| error == RecvTimeoutError::Disconnected)
    }

    /// Does a part of what waits for quiet; `true` if there is more.
    fn maintain(&mut self, idle: bool) -> bool {
        let done = std::panic::catch_unwind(AssertUnwindSafe(|| self.writer.maintain(idle)));
        if let Ok(Err(error)) = &done
            && error.is_lost()
        {
            self.note(Err(error.into()));
        }
        matches!(done, Ok(Ok(true)))
    }

    /// Whether so much waits that it goes to the spill file first: to ask a locked database takes half a
    /// second, in which the queue may become full. Sooner or later it is asked all the same.
    fn is_pressed(&self) -> bool {
        self.trouble.is_some() && self.messages.len() >= BATCH && Instant::now() < self.again_at + SPILL_AFTER * 5
    }

    /// Whether the spill file holds what goes into the database before anything new.
    fn is_behind(&self) -> bool {
        self.held.is_some() || !self.spill.is_empty()
    }

    /// Puts a batch on disk, trying again and again; `false` if that was given up.
    fn settle(&mut self, batch: &mut Batch) -> bool {
        let began = Instant::now();
        let mut pause = PAUSE;
        loop {
            let last_chance = self.gives_up(pause);
            if self.commit(batch) {
                break;
            }
            if self.renew() {
                self.number(batch);
                continue;
            }
            let waited = began.elapsed() >= SPILL_AFTER || self.messages.is_full();
            let spilled = match waited || last_chance || self.is_behind() {
                true => self.spill(batch),
                false => Err(None),
            };
            match spilled {
                Ok(()) => {
                    self.report(None);
                    return true;
                }
                Err(refusal) => self.report(refusal),
            }
            if waited {
                batch.disappoint();
            }
            self.shared.retries.fetch_add(1, Ordering::Relaxed);
            if last_chance {
                self.shared
                    .refused
                    .fetch_add(batch.records.len() as u64, Ordering::Relaxed);
                return false;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(BACKOFF);
            // There is nothing to gain by waiting for longer than this batch does.
            self.again_at = Instant::now();
            self.catch_up(STRETCH);
            self.number(batch);
        }
        if !batch.records.is_empty() {
            self.report(None);
        }
        self.shared
            .written
            .fetch_add(batch.records.len() as u64, Ordering::Relaxed);
        // Of several, each would have a commit of its own.
        self.told_at = (batch.waiting.len() == 1).then(Instant::now);
        batch.tell();
        *batch = Batch::default();
        // Nobody waits for the index.
        self.maintain(false);
        true
    }

    /// Appends the batch to the database, unless others come first; `false` if it is not there.
    fn commit(&mut self, batch: &Batch) -> bool {
        if batch.records.is_empty() {
            return true;
        }
        if self.is_behind() {
            return false;
        }
        // Values and links may be appended twice.
        let counts = |record: &Record| matches!(record, Record::Event(..) | Record::Outcome { .. });
        let mark = match batch.records.iter().any(counts) {
            true => self.spill.mark(batch.upto),
            false => None,
        };
        let done = self.append(&batch.records, mark);
        self.note(done)
    }

    /// A panic is one more way to fail: the thread and the host go on.
    fn append(&mut self, records: &[Record], mark: Option<SpillMark>) -> Result<(), Trouble> {
        match std::panic::catch_unwind(AssertUnwindSafe(|| self.writer.append(records, mark))) {
            Ok(appended) => appended.map_err(|error| Trouble::from(&error))?,
            Err(_) => return Err(Trouble::new("the writer panicked")),
        }
        if self.generation > 0 {
            for record in records {
                if let Record::Event(_, ticket) = record {
                    ticket.stamp(self.generation);
                }
            }
        }
        self.tell_head();
        Ok(())
    }

    /// Remembers why the database took nothing; `true` if it did.
    fn note(&mut self, done: Result<(), Trouble>) -> bool {
        match done {
            Ok(()) => (self.trouble, self.lost_since) = (None, None),
            Err(trouble) => {
                match trouble.is_lost {
                    true => drop(self.lost_since.get_or_insert_with(Instant::now)),
                    false => self.lost_since = None,
                }
                self.trouble = Some(trouble.text);
            }
        }
        self.trouble.is_none()
    }

    /// Goes on in a fresh file where the one in hand has been lost for a second: who moves a file away to put another
    /// one there does it within that. `true` if it does.
    fn renew(&mut self) -> bool {
        let (Some(since), Some(renew)) = (self.lost_since, self.shared.renew.get()) else {
            return false;
        };
        if since.elapsed() < SPILL_AFTER || self.generation >= Ticket::LAST {
            return false;
        }
        let why = self.trouble.clone().unwrap_or_default();
        let renewed = std::panic::catch_unwind(AssertUnwindSafe(|| renew(self.generation + 1, &why)));
        let trouble = match renewed {
            Ok(Ok(writer)) => {
                // Not closed: SQLite would write its log into what is left of the lost file.
                std::mem::forget(std::mem::replace(&mut self.writer, writer));
                self.generation += 1;
                if let Some(held) = &mut self.held {
                    disown(&mut held.records, self.generation, self.spill.instance());
                }
                return self.note(Ok(()));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "to begin a fresh file panicked".to_owned(),
        };
        self.trouble = Some(format!("{why}; {trouble}"));
        false
    }

    /// Numbers the records of a batch, the newest there is, as this file takes them.
    fn number(&mut self, batch: &mut Batch) {
        disown(&mut batch.records, self.generation, self.spill.instance());
        batch.upto = (batch.first + batch.records.len() as u64).saturating_sub(1);
        self.numbered = batch.upto;
    }

    fn tell_head(&self) {
        *lock(&self.shared.head) = Some(self.writer.head()).filter(|head| head.batch_no > 0);
    }

    /// Puts the batch into the spill file.
    fn spill(&mut self, batch: &mut Batch) -> Result<(), Option<String>> {
        let was_behind = self.is_behind();
        self.shared.spilling.store(true, Ordering::Relaxed);
        let spilled = self.spill.append(batch.first, &batch.records);
        self.shared.spilling.store(false, Ordering::Relaxed);
        spilled.map_err(|error| Some(error.to_string()))?;
        batch.tell();
        let mark = self.spill.mark(batch.upto);
        let records = std::mem::take(batch).records;
        if !was_behind {
            self.held = Some(Chunk { records, mark });
            self.again_at = Instant::now() + BACKOFF;
        }
        Ok(())
    }

    /// Brings what was spilled into the database, as far as it takes it, for so long.
    fn catch_up(&mut self, stretch: Duration) {
        let began = Instant::now();
        while self.is_behind() && Instant::now() >= self.again_at {
            let done = match self.bring_in() {
                Ok(true) => Ok(()),
                Ok(false) => {
                    self.note(Ok(()));
                    return self.report(None);
                }
                Err(trouble) => Err(trouble),
            };
            let done = self.note(done);
            self.report(None);
            if done {
                if began.elapsed() > stretch && !self.messages.is_empty() {
                    return;
                }
                continue;
            }
            if !self.renew() {
                self.shared.retries.fetch_add(1, Ordering::Relaxed);
                self.again_at = Instant::now() + BACKOFF;
            }
        }
    }

    /// The next of what was spilled; `false` if there is no more.
    fn bring_in(&mut self) -> Result<bool, Trouble> {
        let chunk = match self.held.take() {
            Some(held) => held,
            None => match self
                .spill
                .next(&mut self.writer)
                .map_err(|error| Trouble::from(&error))?
            {
                Some(mut chunk) => {
                    disown(&mut chunk.records, self.generation, self.spill.instance());
                    chunk
                }
                None => return Ok(false),
            },
        };
        if let Err(trouble) = self.append(&chunk.records, chunk.mark) {
            self.held = Some(chunk);
            return Err(trouble);
        }
        let records = chunk.records.len();
        self.shared.written.fetch_add(records as u64, Ordering::Relaxed);
        self.spill.brought_in(records);
        Ok(true)
    }

    /// Says on `/status` why the database, and perhaps the spill file, took nothing.
    fn report(&self, refusal: Option<String>) {
        let both: Vec<_> = self.trouble.iter().cloned().chain(refusal).collect();
        *lock(&self.shared.last_error) = (!both.is_empty()).then(|| both.join("; "));
    }

    /// Whether there is no time for another attempt after this pause.
    fn gives_up(&self, pause: Duration) -> bool {
        lock(&self.shared.give_up).is_some_and(|until| Instant::now() + pause > until)
    }
}

/// Why the database takes nothing.
struct Trouble {
    text: String,
    /// It never will.
    is_lost: bool,
}

impl Trouble {
    fn new(text: &str) -> Self {
        Trouble {
            text: text.to_owned(),
            is_lost: false,
        }
    }
}

impl From<&Error> for Trouble {
    fn from(error: &Error) -> Self {
        Trouble {
            text: error.to_string(),
            is_lost: error.is_lost(),
        }
    }
}

/// Outcomes of shares that stand in a file which is lost become shares of their own, which name the other. `first`: the
/// instance that the process began as.
fn disown(records: &mut Vec<Record>, generation: Generation, first: [u8; 8]) {
    let elsewhere = |record: &Record| match record {
        Record::Outcome { of, .. } => of.place().map(ticket::parts).filter(|(of, _)| *of != generation),
        _ => None,
    };
    if !records.iter().any(|record| elsewhere(record).is_some()) {
        return;
    }
    let mut kept = Vec::with_capacity(records.len() + 1);
    for record in records.drain(..) {
        let place = elsewhere(&record);
        match (place, record) {
            (
                Some((of, seq)),
                Record::Outcome {
                    outcome,
                    created_at,
                    late,
                    ..
                },
            ) => {
                let share = format!("{}-{seq}", hex(&ticket::instance(first, of)));
                kept.extend(spill::by_itself(share, outcome, created_at, late));
            }
            (_, record) => kept.push(record),
        }
    }
    *records = kept;
}

#[derive(Default)]
struct Batch {
    /// The number of the first record among those of this process, and of the last.
    first: u64,
    upto: u64,
    /// How many it takes.
    most: usize,
    records: Vec<Record>,
    /// Those who wait for one record.
    waiting: Vec<Done>,
    /// Those who wait for all that was sent before.
    flushes: Vec<Done>,
    urgent: bool,
    last: bool,
}

impl Batch {
    /// It is on disk.
    fn tell(&mut self) {
        let waiting = self.waiting.drain(..).chain(self.flushes.drain(..));
        waiting.for_each(|waiting| waiting.tell(true));
    }

    /// It is not on disk, and will not be soon: nobody need wait for longer.
    fn disappoint(&mut self) {
        self.waiting.drain(..).for_each(|waiting| waiting.tell(false));
    }

    fn is_full(&self) -> bool {
        self.records.len() >= self.most
    }

    /// Takes what is there, if there is room.
    fn fill(&mut self, messages: &Receiver<Message>) {
        while !self.is_full() {
            match messages.try_recv() {
                Ok(message) => self.take(message),
                Err(_) => break,
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Record(record) => self.records.push(record),
            Message::Durable(record, done) => {
                self.records.push(record);
                self.waiting.push(done);
                self.urgent = true;
            }
            Message::Work => {}
            Message::Flush(done) => {
                self.flushes.push(done);
                self.urgent = true;
            }
            Message::Stop => {
                self.last = true;
                self.urgent = true;
            }
        }
    }
}

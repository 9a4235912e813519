//! The queue and its one writer thread.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, TrySendError, bounded};

#[cfg(feature = "reqwest")]
use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::Error;
use crate::deferred::{self, Deferred, Job, Series};
use crate::error::ErrorKind;
use crate::spill::{Chunk, Spill, SpillStatus, Tally};
use crate::store::Writer;
use crate::store::write::{Head, Record, SpillMark};

/// Name of the writer's thread.
pub(crate) const THREAD: &str = "provenance";
/// Most messages that wait.
const CAPACITY: usize = 65_536;
/// Most records that one commit takes.
const BATCH: usize = 2048;
/// Most records that one write to the spill file takes: it is to be quicker than those who send.
const SPILL_BATCH: usize = 8 * BATCH;
/// How long a record may wait for others to share its commit. Nobody wakes the writer meanwhile:
/// on a busy machine that costs more than what is sent.
const LINGER: Duration = Duration::from_millis(100);
/// With nothing to write for so long, the index is brought up to date.
const QUIET: Duration = Duration::from_secs(1);
const NOT_YET: &str = "the record is not on disk yet: its outcome is unknown, it is still being tried";
/// How long a commit may fail before its records go to the spill file.
const SPILL_AFTER: Duration = Duration::from_secs(1);
/// How long the writer brings in what was spilled before it looks at what was sent meanwhile.
const STRETCH: Duration = Duration::from_millis(200);
/// First and longest pause between two attempts to commit.
const PAUSE: Duration = Duration::from_millis(5);
const BACKOFF: Duration = Duration::from_millis(500);

/// Stands for an event on its way: the writer fills in its sequence number when it is in the database,
/// and until then its number in the spill file, if it is there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ticket(Arc<AtomicU64>);

impl Ticket {
    /// Tells numbers in the spill file from sequence numbers.
    const SPILLED: u64 = 1 << 63;

    /// Of an event in the database.
    pub(crate) fn of(seq: u64) -> Self {
        Ticket(Arc::new(AtomicU64::new(seq)))
    }

    /// The sequence number, once assigned (they begin with 1).
    pub(crate) fn seq(&self) -> Option<u64> {
        match self.0.load(Ordering::Acquire) {
            0 => None,
            number if number & Self::SPILLED != 0 => None,
            seq => Some(seq),
        }
    }

    /// The number in the spill file, while there is no sequence number.
    pub(crate) fn spilled_at(&self) -> Option<u64> {
        let number = self.0.load(Ordering::Acquire);
        (number & Self::SPILLED != 0).then_some(number & !Self::SPILLED)
    }

    /// Called by the writer, once the event is in the database.
    pub(crate) fn assign(&self, seq: u64) {
        self.0.store(seq, Ordering::Release);
    }

    /// Called by the writer, when the event goes to the spill file under this number.
    pub(crate) fn spill(&self, at: u64) {
        if self.seq().is_none() {
            self.0.store(at | Self::SPILLED, Ordering::Release);
        }
    }

    /// Whether anybody else may ask for the number.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Tells this ticket's event from others while no sequence number is assigned.
    pub(crate) fn identity(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }
}

/// Sends records to the writer thread.
pub(crate) struct Recorder {
    /// `None` once dropped.
    queue: Option<Sender<Message>>,
    /// Ends the writer's waiting for more.
    hurry: Option<Sender<()>>,
    /// Told by the thread's end.
    ended: Receiver<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
    shared: Arc<Shared>,
    deferred: Arc<Deferred>,
    spill: Arc<Tally>,
    /// A forked child has this memory, but no writer thread.
    pid: u32,
}

/// What both sides look at.
#[derive(Default)]
struct Shared {
    written: AtomicU64,
    retries: AtomicU64,
    refused: AtomicU64,
    stopped: AtomicBool,
    /// The queue was full for so long that nobody waits for it until it has room again.
    stalled: AtomicBool,
    last_error: Mutex<Option<String>>,
    /// Where the chain ends on disk.
    head: Mutex<Option<Head>>,
    /// Records of jobs that found the queue full: the writer may be waiting for the job.
    overflow: Mutex<Vec<Record>>,
    /// From then on a failing commit is given up.
    give_up: Mutex<Option<Instant>>,
}

enum Message {
    Record(Record),
    /// To be committed at once, and acknowledged.
    Durable(Record, Done),
    Flush(Done),
    /// Something was put off.
    Work,
    Stop,
}

/// Tells whoever waits whether it is on disk, or could be put neither into the database nor into
/// the spill file so far.
enum Done {
    Thread(Sender<bool>),
    #[cfg(feature = "reqwest")]
    Task(oneshot::Sender<bool>),
}

impl Done {
    fn tell(self, on_disk: bool) {
        match self {
            Done::Thread(done) => drop(done.try_send(on_disk)),
            #[cfg(feature = "reqwest")]
            Done::Task(done) => drop(done.send(on_disk)),
        }
    }
}

/// A record that a task waits for.
#[cfg(feature = "reqwest")]
pub(crate) struct Written {
    told: oneshot::Receiver<bool>,
    until: Instant,
}

#[cfg(feature = "reqwest")]
impl Written {
    /// Until it is on disk. Without tokio's timer it blocks the thread instead.
    ///
    /// # Errors
    /// As [`Recorder::send_durable`].
    pub(crate) async fn wait(self) -> Result<(), Error> {
        let Written { mut told, until } = self;
        let timer = AssertUnwindSafe(|| Box::pin(tokio::time::sleep_until(until.into())));
        if let Ok(timer) = std::panic::catch_unwind(timer) {
            let on_disk = tokio::time::timeout_at(timer.deadline(), told).await;
            return on_disk
                .is_ok_and(|told| told == Ok(true))
                .then_some(())
                .ok_or_else(|| evidence(NOT_YET));
        }
        loop {
            match told.try_recv() {
                Ok(true) => return Ok(()),
                Err(TryRecvError::Empty) if Instant::now() < until => std::thread::sleep(Duration::from_millis(1)),
                Ok(false) | Err(_) => return Err(evidence(NOT_YET)),
            }
        }
    }
}

/// Counts for `/status`.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub(crate) struct QueueStatus {
    /// Records waiting.
    pub(crate) depth: usize,
    /// Most records that may wait.
    pub(crate) capacity: usize,
    /// Records in the database since the start.
    pub(crate) written: u64,
    /// Commits that failed and were tried again.
    pub(crate) retries: u64,
    /// Records that could not be taken in time. They are counted, and lost.
    pub(crate) refused: u64,
    /// Kind of the last error, without values; `None` once a commit has succeeded again.
    pub(crate) last_error: Option<String>,
    /// What the spill file did.
    #[serde(flatten)]
    pub(crate) spill: SpillStatus,
}

impl Recorder {
    /// How long [`Recorder::send`] waits for room in a full queue.
    const PATIENCE: Duration = Duration::from_secs(1);

    /// Starts the writer thread without a spill file.
    #[cfg(test)]
    pub(crate) fn start(writer: impl Into<Writer>) -> Result<Self, Error> {
        let spill = Spill::new(std::path::Path::new(""), [0; 8], 0)?;
        Self::start_with(writer, spill, None)
    }

    /// Starts the writer thread. What it spills goes there; `held` was read from there, and the database
    /// did not take it yet.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start_with(writer: impl Into<Writer>, spill: Spill, held: Option<Chunk>) -> Result<Self, Error> {
        let writer = writer.into();
        let (queue, messages) = bounded(CAPACITY);
        let (hurry, hurried) = bounded(1);
        let (end, ended) = bounded(1);
        let shared = Arc::new(Shared::default());
        let side = shared.clone();
        let deferred = Arc::new(Deferred::new());
        let work = deferred.clone();
        let tally = spill.tally().clone();
        let thread = std::thread::Builder::new()
            .name(THREAD.into())
            .spawn(move || {
                let run = || {
                    let mut scribe = Scribe {
                        writer,
                        spill,
                        held,
                        again_at: Instant::now(),
                        trouble: None,
                        messages: &messages,
                        shared: &side,
                    };
                    scribe.run(&hurried, &work);
                };
                let _ = std::panic::catch_unwind(AssertUnwindSafe(run));
                // Whatever happened: nobody waits for a thread that is gone.
                side.stopped.store(true, Ordering::Release);
                let _ = end.send(());
            })
            .map_err(|e| Error::new(ErrorKind::Store, "the writer thread cannot be started").because(e))?;
        Ok(Recorder {
            queue: Some(queue),
            hurry: Some(hurry),
            ended,
            thread: Mutex::new(Some(thread)),
            shared,
            deferred,
            spill: tally,
            pid: std::process::id(),
        })
    }

    /// Queues a record; waits at most `Self::PATIENCE` if the queue is full, which it stays only where
    /// neither the database nor the spill file takes anything. Then the record is counted as refused, and lost;
    /// so are the next ones, without waiting, until there is room.
    pub(crate) fn send(&self, record: Record) {
        let Some(queue) = self.open() else { return };
        let message = match queue.try_send(Message::Record(record)) {
            Ok(()) => return self.shared.stalled.store(false, Ordering::Relaxed),
            Err(TrySendError::Full(message)) => message,
            Err(TrySendError::Disconnected(_)) => return self.refuse(),
        };
        self.hurry();
        if deferred::is_working() {
            if let Message::Record(record) = message {
                lock(&self.shared.overflow).push(record);
            }
            return;
        }
        if self.shared.stalled.load(Ordering::Relaxed) || queue.send_timeout(message, Self::PATIENCE).is_err() {
            self.shared.stalled.store(true, Ordering::Relaxed);
            self.refuse();
        }
    }

    /// Puts off a job that holds so many bytes of raw values. The writer does it before its next commit,
    /// unless somebody needs it earlier.
    pub(crate) fn defer(&self, job: Job, bytes: usize) {
        self.announce(self.deferred.push(job, bytes));
    }

    /// The same of a job in a series: see [`Deferred::add`].
    pub(crate) fn defer_in<S: Series>(&self, bytes: usize, begin: impl FnOnce() -> S, add: impl FnOnce(&mut S)) {
        self.announce(self.deferred.add(bytes, begin, add));
    }

    /// Something was put off; `first`: while nothing else waited.
    fn announce(&self, first: bool) {
        if self.shared.stopped.load(Ordering::Acquire) {
            // Nobody else will.
            self.deferred.work_off();
        } else if first
            && self.pid == std::process::id()
            && let Some(queue) = &self.queue
        {
            // A full queue keeps the writer awake as well.
            let _ = queue.try_send(Message::Work);
        }
    }

    /// Whether this process started it: a forked child has this memory, and no writer.
    pub(crate) fn is_ours(&self) -> bool {
        self.pid == std::process::id()
    }

    /// What was put off.
    pub(crate) fn deferred(&self) -> &Arc<Deferred> {
        &self.deferred
    }

    /// Queues a record and waits until it is on disk.
    ///
    /// # Errors
    /// [`Error::is_evidence`] after `timeout`: the outcome is unknown, the writer keeps trying; or
    /// the queue took it not even by then, and it is lost and counted.
    pub(crate) fn send_durable(&self, record: Record, timeout: Duration) -> Result<(), Error> {
        self.confirmed(timeout, |done| Message::Durable(record, Done::Thread(done)))
            .inspect_err(|refused| {
                if *refused {
                    self.refuse();
                }
            })
            .map_err(|refused| {
                if refused {
                    evidence("the record could not be queued in time, and is lost")
                } else {
                    evidence(NOT_YET)
                }
            })
    }

    /// Queues a record as [`Recorder::send_durable`] does, for a task that waits for it. Blocks only while the
    /// queue is full.
    #[cfg(feature = "reqwest")]
    pub(crate) fn start_durable(&self, record: Record, timeout: Duration) -> Written {
        let until = after(timeout);
        let (done, told) = oneshot::channel();
        let queued = self
            .open()
            .map(|queue| queue.send_deadline(Message::Durable(record, Done::Task(done)), until));
        match queued {
            Some(Ok(())) => self.hurry(),
            Some(Err(_)) => self.refuse(),
            None => {}
        }
        Written { told, until }
    }

    /// Waits until everything sent before is on disk.
    ///
    /// # Errors
    /// [`Error::is_evidence`] after `timeout`; the writer keeps trying.
    pub(crate) fn flush(&self, timeout: Duration) -> Result<(), Error> {
        self.confirmed(timeout, |done| Message::Flush(Done::Thread(done)))
            .map_err(|_| evidence("not everything is on disk yet; it is still being tried"))
    }

    /// Flushes and ends the writer thread; later sends are ignored. What cannot be written within
    /// `timeout` is counted as refused.
    pub(crate) fn stop(&self, timeout: Duration) {
        let Some(queue) = self.queue.as_ref().filter(|_| self.pid == std::process::id()) else {
            return;
        };
        if self.shared.stopped.swap(true, Ordering::AcqRel) {
            return;
        }
        let until = after(timeout);
        *lock(&self.shared.give_up) = Some(until);
        let told = queue.send_deadline(Message::Stop, until).is_ok();
        self.hurry();
        // The last attempt may be within SQLite when the time is up.
        if told
            && self
                .ended
                .recv_deadline(until.checked_add(BACKOFF).unwrap_or(until))
                .is_ok()
            && let Some(thread) = lock(&self.thread).take()
        {
            let _ = thread.join();
        }
    }

    /// Tells where the chain ends on disk, also after the recorder was stopped.
    pub(crate) fn heads(&self) -> impl Fn() -> Option<Head> + Send + use<> {
        let shared = self.shared.clone();
        move || *lock(&shared.head)
    }

    /// Counts for `/status`.
    pub(crate) fn status(&self) -> QueueStatus {
        QueueStatus {
            depth: self.queue.as_ref().map_or(0, Sender::len),
            capacity: CAPACITY,
            written: self.shared.written.load(Ordering::Relaxed),
            retries: self.shared.retries.load(Ordering::Relaxed),
            refused: self.shared.refused.load(Ordering::Relaxed),
            // Not waited for: in a forked child nobody would ever give it back.
            last_error: self.shared.last_error.try_lock().ok().and_then(|error| error.clone()),
            spill: self.spill.status(),
        }
    }

    /// The queue, unless it was stopped or belongs to the process that this one was forked from.
    fn open(&self) -> Option<&Sender<Message>> {
        if self.pid != std::process::id() {
            self.refuse();
            return None;
        }
        self.queue
            .as_ref()
            .filter(|_| !self.shared.stopped.load(Ordering::Acquire))
    }

    /// The writer, if it waits for more, begins at once.
    fn hurry(&self) {
        if let Some(hurry) = &self.hurry {
            let _ = hurry.try_send(());
        }
    }

    fn refuse(&self) {
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends a message and waits for its acknowledgement; the error says whether it was not even sent.
    fn confirmed(&self, timeout: Duration, message: impl FnOnce(Sender<bool>) -> Message) -> Result<(), bool> {
        let until = after(timeout);
        let queue = self.open().ok_or(true)?;
        let (done, acknowledged) = bounded(1);
        match queue.send_deadline(message(done), until) {
            Ok(()) => {
                self.hurry();
                let on_disk = acknowledged.recv_deadline(until).is_ok_and(|on_disk| on_disk);
                on_disk.then_some(()).ok_or(false)
            }
            Err(SendTimeoutError::Timeout(_) | SendTimeoutError::Disconnected(_)) => Err(true),
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if self.pid == std::process::id() {
            // Without a queue the thread ends by itself; a failing commit must not keep it forever.
            lock(&self.shared.give_up).get_or_insert(Instant::now() + Self::PATIENCE);
            return;
        }
        // In a forked child a lock inside the queue may be held by a thread that is not there.
        std::mem::forget((self.queue.take(), self.hurry.take()));
    }
}

/// The end of a wait; a caller's "for ever" is a year.
fn after(timeout: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    Instant::now() + timeout.min(YEAR)
}

fn evidence(text: &str) -> Error {
    Error::new(ErrorKind::Evidence, text)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the writer thread has in hand.
struct Scribe<'a> {
    writer: Writer,
    spill: Spill,
    /// What the database takes next: it stands in the spill file too. The same records each time: a commit
    /// that seemed to fail may have taken place.
    held: Option<Chunk>,
    /// When the database is asked again.
    again_at: Instant,
    /// Why the database took nothing the last time.
    trouble: Option<String>,
    messages: &'a Receiver<Message>,
    shared: &'a Shared,
}

impl Scribe<'_> {
    /// Commits until told to stop, or until nobody can send any more.
    fn run(&mut self, hurried: &Receiver<()>, deferred: &Deferred) {
        let mut batch = Batch::default();
        let mut last = false;
        let mut numbered = 0;
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
            batch.first = numbered + 1;
            numbered += batch.records.len() as u64;
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
        }
        if !batch.records.is_empty() {
            self.report(None);
        }
        self.shared
            .written
            .fetch_add(batch.records.len() as u64, Ordering::Relaxed);
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
            true => self.spill.mark(batch.upto()),
            false => None,
        };
        self.trouble = append(&mut self.writer, &batch.records, mark).err();
        if self.trouble.is_none() {
            self.tell_head();
        }
        self.trouble.is_none()
    }

    fn tell_head(&self) {
        *lock(&self.shared.head) = Some(self.writer.head()).filter(|head| head.batch_no > 0);
    }

    /// Puts the batch into the spill file.
    fn spill(&mut self, batch: &mut Batch) -> Result<(), Option<String>> {
        let was_behind = self.is_behind();
        self.spill
            .append(batch.first, &batch.records)
            .map_err(|error| Some(error.to_string()))?;
        batch.tell();
        let mark = self.spill.mark(batch.upto());
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
            let next = match self.held.take() {
                Some(held) => Ok(Some(held)),
                None => self.spill.next(&mut self.writer),
            };
            let trouble = match next {
                Ok(None) => {
                    self.trouble = None;
                    return self.report(None);
                }
                Ok(Some(chunk)) => match append(&mut self.writer, &chunk.records, chunk.mark) {
                    Ok(()) => {
                        self.tell_head();
                        let records = chunk.records.len();
                        self.shared.written.fetch_add(records as u64, Ordering::Relaxed);
                        self.spill.brought_in(records);
                        self.trouble = None;
                        self.report(None);
                        if began.elapsed() > stretch && !self.messages.is_empty() {
                            return;
                        }
                        continue;
                    }
                    Err(trouble) => {
                        self.held = Some(chunk);
                        trouble
                    }
                },
                Err(error) => error.to_string(),
            };
            self.trouble = Some(trouble);
            self.report(None);
            self.shared.retries.fetch_add(1, Ordering::Relaxed);
            self.again_at = Instant::now() + BACKOFF;
        }
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

/// A panic is one more way to fail: the thread and the host go on.
fn append(writer: &mut Writer, records: &[Record], mark: Option<SpillMark>) -> Result<(), String> {
    match std::panic::catch_unwind(AssertUnwindSafe(|| writer.append(records, mark))) {
        Ok(appended) => appended.map_err(|error| error.to_string()),
        Err(_) => Err("the writer panicked".to_owned()),
    }
}

#[derive(Default)]
struct Batch {
    /// The number of the first record among those of this process.
    first: u64,
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
    /// The number of the last record.
    fn upto(&self) -> u64 {
        (self.first + self.records.len() as u64).saturating_sub(1)
    }

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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use diesel::connection::SimpleConnection;
    use diesel::prelude::*;

    use super::*;
    use crate::config::Storage;
    use crate::key::{Keys, Origin};
    use crate::store::write::Instance;
    use crate::vocabulary::Owner;

    fn recorder(folder: &std::path::Path) -> Recorder {
        let instance = Instance {
            id: [1; 8],
            service: "shop".into(),
            environment: None,
            build: String::new(),
        };
        let keys = Keys::from_master(&[7; 32], 1, Origin::Environment);
        let storage = Storage::Sqlite(folder.join("evidence.db"));
        Recorder::start(Writer::open(&storage, &keys, &instance).unwrap()).unwrap()
    }

    fn small() -> Record {
        let owner = |text| Owner::from_stored(text).unwrap();
        Record::Link(owner("email:a"), owner("user:1"))
    }

    #[test]
    fn a_forked_child_neither_sends_nor_hangs() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = recorder(folder.path());
        recorder.pid += 1;
        recorder.send(small());
        assert!(
            recorder
                .send_durable(small(), Duration::from_secs(9))
                .unwrap_err()
                .is_evidence()
        );
        assert!(recorder.flush(Duration::from_secs(9)).unwrap_err().is_evidence());
        recorder.stop(Duration::from_secs(9));
        let status = recorder.status();
        assert!(status.refused >= 2 && status.depth == 0, "{status:?}");
        assert!(
            recorder.thread.lock().unwrap().is_some(),
            "the parent's thread is left alone"
        );
        drop(recorder);
    }

    #[test]
    fn a_full_queue_is_waited_for_once_and_what_is_lost_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let recorder = recorder(folder.path());
        let path = folder.path().join("evidence.db");
        let mut other = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
        other.batch_execute("BEGIN IMMEDIATE").unwrap();
        let mut waits = 0;
        let mut sent = 0;
        let started = Instant::now();
        while sent < CAPACITY + 2 * BATCH {
            let before = Instant::now();
            recorder.send(small());
            waits += u32::from(before.elapsed() > Recorder::PATIENCE / 2);
            sent += 1;
        }
        assert!(started.elapsed() < Duration::from_secs(20));
        assert_eq!(waits, 1);
        let status = recorder.status();
        assert_eq!(status.depth, CAPACITY);
        assert!(status.refused > 0);
        assert!(
            recorder
                .send_durable(small(), Duration::from_millis(50))
                .unwrap_err()
                .is_evidence()
        );
        other.batch_execute("COMMIT").unwrap();
        recorder.flush(Duration::MAX).unwrap();
        let status = recorder.status();
        assert_eq!(status.written + status.refused, sent as u64 + 1);
    }
}

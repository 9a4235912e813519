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
use crate::deferred::{self, Deferred, Job};
use crate::error::ErrorKind;
use crate::store::Writer;
use crate::store::write::Record;

/// Most messages that wait.
const CAPACITY: usize = 65_536;
/// Most records that one commit takes.
const BATCH: usize = 2048;
/// How long a record may wait for others to share its commit. Nobody wakes the writer meanwhile:
/// on a busy machine that costs more than what is sent.
const LINGER: Duration = Duration::from_millis(100);
/// With nothing to write for so long, the index is brought up to date.
const QUIET: Duration = Duration::from_secs(1);
const NOT_YET: &str = "the record is not on disk yet: its outcome is unknown, it is still being tried";
/// Longest pause between two attempts to commit.
const BACKOFF: Duration = Duration::from_millis(500);

/// Stands for an event on its way: the writer fills in its sequence number when it is on disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ticket(Arc<AtomicU64>);

impl Ticket {
    /// The sequence number, once assigned (they begin with 1).
    pub(crate) fn seq(&self) -> Option<u64> {
        match self.0.load(Ordering::Acquire) {
            0 => None,
            seq => Some(seq),
        }
    }

    /// Called by the writer, once the event is on disk.
    pub(crate) fn assign(&self, seq: u64) {
        self.0.store(seq, Ordering::Release);
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
    /// Records of jobs that found the queue full: the writer may be waiting for the job.
    spilt: Mutex<Vec<Record>>,
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

/// Tells whoever waits for a commit.
enum Done {
    Thread(Sender<()>),
    #[cfg(feature = "reqwest")]
    Task(oneshot::Sender<()>),
}

impl Done {
    fn tell(self) {
        match self {
            Done::Thread(done) => drop(done.try_send(())),
            #[cfg(feature = "reqwest")]
            Done::Task(done) => drop(done.send(())),
        }
    }
}

/// A record that a task waits for.
#[cfg(feature = "reqwest")]
pub(crate) struct Written {
    told: oneshot::Receiver<()>,
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
                .is_ok_and(|told| told.is_ok())
                .then_some(())
                .ok_or_else(|| evidence(NOT_YET));
        }
        loop {
            match told.try_recv() {
                Ok(()) => return Ok(()),
                Err(TryRecvError::Empty) if Instant::now() < until => std::thread::sleep(Duration::from_millis(1)),
                Err(_) => return Err(evidence(NOT_YET)),
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
    /// Records on disk since the start.
    pub(crate) written: u64,
    /// Commits that failed and were tried again.
    pub(crate) retries: u64,
    /// Records that could not be taken in time. They are counted, and lost.
    pub(crate) refused: u64,
    /// Kind of the last error, without values; `None` once a commit has succeeded again.
    pub(crate) last_error: Option<String>,
}

impl Recorder {
    /// How long [`Recorder::send`] waits for room in a full queue.
    const PATIENCE: Duration = Duration::from_secs(1);

    /// Starts the writer thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(writer: impl Into<Writer>) -> Result<Self, Error> {
        let writer = writer.into();
        let (queue, messages) = bounded(CAPACITY);
        let (hurry, hurried) = bounded(1);
        let (end, ended) = bounded(1);
        let shared = Arc::new(Shared::default());
        let side = shared.clone();
        let deferred = Arc::new(Deferred::new());
        let work = deferred.clone();
        let thread = std::thread::Builder::new()
            .name("provenance".into())
            .spawn(move || {
                let _ = std::panic::catch_unwind(AssertUnwindSafe(|| run(writer, &messages, &hurried, &side, &work)));
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
            pid: std::process::id(),
        })
    }

    /// Queues a record; waits at most `Self::PATIENCE` if the queue is full. Then the record is
    /// counted as refused, and lost (there is no spill file yet); so are the next ones, without
    /// waiting, until there is room.
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
                lock(&self.shared.spilt).push(record);
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
        let first = self.deferred.push(job, bytes);
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
    fn confirmed(&self, timeout: Duration, message: impl FnOnce(Sender<()>) -> Message) -> Result<(), bool> {
        let until = after(timeout);
        let queue = self.open().ok_or(true)?;
        let (done, acknowledged) = bounded(1);
        match queue.send_deadline(message(done), until) {
            Ok(()) => {
                self.hurry();
                acknowledged.recv_deadline(until).map_err(|_| false)
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

/// Commits until told to stop, or until nobody can send any more.
fn run(mut writer: Writer, messages: &Receiver<Message>, hurried: &Receiver<()>, shared: &Shared, deferred: &Deferred) {
    let mut batch = Batch::default();
    let mut last = false;
    loop {
        // Those who sent while it was told to stop are still served.
        // What was put off since it was last looked at has perhaps announced itself already.
        let first = match last || !deferred.is_idle() {
            true => messages.try_recv().map_err(|error| last || error.is_disconnected()),
            false if writer.is_behind() => match messages.recv_timeout(QUIET) {
                Ok(message) => Ok(message),
                Err(RecvTimeoutError::Disconnected) => Err(true),
                Err(RecvTimeoutError::Timeout) => {
                    while writer.maintain(true).unwrap_or(false) && messages.is_empty() {}
                    messages.recv().map_err(|_| true)
                }
            },
            false => messages.recv().map_err(|_| true),
        };
        match first {
            Ok(message) => batch.take(message),
            Err(true) => break,
            Err(false) => {}
        }
        // Whoever hurries sends first: what was said before this is found by the look that follows.
        let _ = hurried.try_recv();
        batch.fill(messages);
        // Where somebody waits, only what is there already shares the commit.
        if !batch.urgent && !batch.is_full() && !last {
            let _ = hurried.recv_timeout(LINGER);
        }
        deferred.work_off();
        batch.fill(messages);
        batch.records.append(&mut lock(&shared.spilt));
        last |= batch.last;
        if !commit(&mut writer, &mut batch, shared) {
            // Given up: what still waits will not be written either.
            let waiting = messages
                .try_iter()
                .filter(|m| matches!(m, Message::Record(_) | Message::Durable(..)));
            shared.refused.fetch_add(waiting.count() as u64, Ordering::Relaxed);
            deferred.work_off();
            return;
        }
    }
    // What was put off while it ended keeps its tracker alive.
    deferred.work_off();
    let _ = writer.end();
}

#[derive(Default)]
struct Batch {
    records: Vec<Record>,
    waiting: Vec<Done>,
    urgent: bool,
    last: bool,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.records.len() >= BATCH
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
                self.waiting.push(done);
                self.urgent = true;
            }
            Message::Stop => {
                self.last = true;
                self.urgent = true;
            }
        }
    }
}

/// Appends the batch, again and again until it is on disk; `false` if that was given up.
fn commit(writer: &mut Writer, batch: &mut Batch, shared: &Shared) -> bool {
    let mut pause = Duration::from_millis(5);
    loop {
        let appended = match batch.records.is_empty() {
            true => Ok(Ok(())),
            // A panic is one more way to fail: the thread and the host go on.
            false => std::panic::catch_unwind(AssertUnwindSafe(|| writer.append(&batch.records, None))),
        };
        let trouble = match appended {
            Ok(Ok(())) => break,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the writer panicked".to_owned(),
        };
        *lock(&shared.last_error) = Some(trouble);
        shared.retries.fetch_add(1, Ordering::Relaxed);
        if lock(&shared.give_up).is_some_and(|until| Instant::now() + pause > until) {
            shared.refused.fetch_add(batch.records.len() as u64, Ordering::Relaxed);
            return false;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(BACKOFF);
    }
    if !batch.records.is_empty() {
        *lock(&shared.last_error) = None;
    }
    shared.written.fetch_add(batch.records.len() as u64, Ordering::Relaxed);
    std::mem::take(batch).waiting.into_iter().for_each(Done::tell);
    // Nobody waits for the index.
    let _ = std::panic::catch_unwind(AssertUnwindSafe(|| writer.maintain(false)));
    true
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

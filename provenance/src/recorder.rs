//! The queue and its one writer thread.

mod scribe;
mod written;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, TrySendError, bounded};
use once_cell::sync::OnceCell;

use self::scribe::{BACKOFF, Scribe};
use self::written::Done;
pub(crate) use self::written::Written;
use crate::Error;
use crate::deferred::{self, Deferred, Job, Series};
use crate::error::ErrorKind;
use crate::spill::{Chunk, Spill, SpillStatus, Tally};
use crate::store::Writer;
use crate::store::write::{Head, Record};
use crate::ticket::Generation;

/// Name of the writer's thread.
pub(crate) const THREAD: &str = "provenance";
/// Most messages that wait.
const CAPACITY: usize = 65_536;
const NOT_YET: &str = "the record is not on disk yet: its outcome is unknown, it is still being tried";
const LOST: &str = "the record could not be queued in time, and is lost";

/// Begins the file that records go to from now on, where the one before is lost: its generation, and why.
pub(crate) type Renew = Box<dyn Fn(Generation, &str) -> Result<Writer, Error> + Send + Sync>;

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
    /// The writer is putting records into the spill file.
    spilling: AtomicBool,
    last_error: Mutex<Option<String>>,
    /// Where the chain ends on disk.
    head: Mutex<Option<Head>>,
    /// Records of jobs that found the queue full: the writer may be waiting for the job.
    overflow: Mutex<Vec<Record>>,
    /// From then on a failing commit is given up.
    give_up: Mutex<Option<Instant>>,
    renew: OnceCell<Renew>,
}

impl Shared {
    fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
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
    /// How long it does while records go to the disk all the same.
    const LONGEST: Duration = Duration::from_secs(10);

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
                    let mut scribe = Scribe::new(writer, spill, held, &messages, &side);
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

    /// Queues a record; waits if the queue is full: for `Self::PATIENCE` where neither the database nor the spill file
    /// takes anything, longer where they do. Then the record is counted as refused, and lost;
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
        if self.shared.stalled.load(Ordering::Relaxed) || !self.wait_for_room(queue, message) {
            self.shared.stalled.store(true, Ordering::Relaxed);
            self.refuse();
        }
    }

    /// Waits as long as records go to the disk, but not for ever; `false` if the queue stayed full.
    fn wait_for_room(&self, queue: &Sender<Message>, mut message: Message) -> bool {
        let began = Instant::now();
        loop {
            let before = self.landed();
            match queue.send_timeout(message, Self::PATIENCE) {
                Ok(()) => return true,
                Err(SendTimeoutError::Disconnected(_)) => return false,
                Err(SendTimeoutError::Timeout(full)) => message = full,
            }
            let moves = self.landed() != before || self.shared.spilling.load(Ordering::Relaxed);
            if !moves || began.elapsed() > Self::LONGEST {
                return false;
            }
        }
    }

    /// Records that went to the disk so far, wherever.
    fn landed(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed) + self.spill.status().spilled
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

    /// Where the file is lost, `renew` gives the next one.
    pub(crate) fn renew_with(&self, renew: Renew) {
        let _ = self.shared.renew.set(renew);
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
            .map_err(|refused| if refused { evidence(LOST) } else { evidence(NOT_YET) })
    }

    /// Queues a record as [`Recorder::send_durable`] does, for a task that waits for it.
    pub(crate) fn start_durable(&self, record: Record, timeout: Duration) -> Written {
        let (mut written, message) = Written::new(after(timeout), |done| Message::Durable(record, done));
        match self.open().map(|queue| (queue, queue.try_send(message))) {
            Some((_, Ok(()))) => self.hurry(),
            Some((queue, Err(TrySendError::Full(message)))) => {
                self.hurry();
                written.unsent(message, queue, self.hurry.as_ref(), &self.shared);
            }
            Some((_, Err(TrySendError::Disconnected(_)))) | None => {
                self.refuse();
                written.refused();
            }
        }
        written
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
        self.shared.refuse();
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use diesel::connection::SimpleConnection;
    use diesel::prelude::*;

    use super::scribe::BATCH;
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

    /// An executor of the smallest kind.
    fn block_on<F: Future>(future: F) -> F::Output {
        struct Unpark(std::thread::Thread);
        impl std::task::Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Arc::new(Unpark(std::thread::current())).into();
        let mut future = std::pin::pin!(future);
        loop {
            let polled = future.as_mut().poll(&mut std::task::Context::from_waker(&waker));
            match polled {
                std::task::Poll::Ready(output) => return output,
                std::task::Poll::Pending => std::thread::park(),
            }
        }
    }

    /// Keeps the writer busy until it is dropped.
    fn hold(recorder: &Recorder) -> Sender<()> {
        let (go, told) = bounded(0);
        let (begin, begun) = bounded(1);
        let job = move || {
            let _ = begin.send(());
            let _ = told.recv();
        };
        recorder.defer(Box::new(job), 0);
        recorder.hurry();
        begun.recv().unwrap();
        go
    }

    #[test]
    fn a_task_waits_no_longer_than_it_said_whatever_the_writer_does() {
        let folder = tempfile::tempdir().unwrap();
        let recorder = recorder(folder.path());
        block_on(recorder.start_durable(small(), Duration::MAX)).unwrap();
        let held = hold(&recorder);
        let began = Instant::now();
        let short = recorder.start_durable(small(), Duration::from_millis(200));
        let shorter = recorder.start_durable(small(), Duration::from_millis(100));
        assert!(block_on(short).unwrap_err().is_evidence());
        assert!(block_on(shorter).unwrap_err().is_evidence());
        let took = began.elapsed();
        assert!(
            took >= Duration::from_millis(200) && took < Duration::from_secs(2),
            "{took:?}"
        );
        // Dropped, or not polled at all, it is recorded all the same.
        drop(recorder.start_durable(small(), Duration::MAX));
        let patient = recorder.start_durable(small(), Duration::MAX);
        drop(held);
        block_on(patient).unwrap();
        assert_eq!((recorder.status().written, recorder.status().refused), (5, 0));
        recorder.stop(Duration::from_secs(9));
        assert!(
            block_on(recorder.start_durable(small(), Duration::MAX))
                .unwrap_err()
                .is_evidence()
        );
        assert_eq!(recorder.status().refused, 1);
    }

    #[test]
    fn a_task_that_finds_the_queue_full_tries_again_and_what_is_given_up_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let recorder = recorder(folder.path());
        let held = hold(&recorder);
        while recorder.status().depth < CAPACITY {
            recorder.send(small());
        }
        let began = Instant::now();
        drop(recorder.start_durable(small(), Duration::MAX));
        let late = recorder.start_durable(small(), Duration::from_millis(100));
        assert!(block_on(late).unwrap_err().is_evidence());
        let patient = recorder.start_durable(small(), Duration::MAX);
        assert!(began.elapsed() < Recorder::PATIENCE);
        assert_eq!(recorder.status().refused, 2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(50));
                drop(held);
            });
            block_on(patient).unwrap();
        });
        recorder.flush(Duration::MAX).unwrap();
        assert_eq!(
            (recorder.status().written, recorder.status().refused),
            (CAPACITY as u64 + 1, 2)
        );
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

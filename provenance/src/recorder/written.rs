//! Who waits for a record: a thread for a channel, a task for its waker.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError};

use super::{LOST, Message, NOT_YET, Shared, evidence, lock};
use crate::Error;

/// How often a task that found the queue full tries again.
const AGAIN: Duration = Duration::from_millis(10);
/// How long the thread of the alarms stays when there are none.
const LINGER: Duration = Duration::from_secs(1);

/// Tells whoever waits whether it is on disk, or could be put neither into the database nor into
/// the spill file so far.
pub(super) enum Done {
    Thread(Sender<bool>),
    Task(Teller),
}

impl Done {
    pub(super) fn tell(self, on_disk: bool) {
        match self {
            Done::Thread(done) => drop(done.try_send(on_disk)),
            Done::Task(teller) => teller.0.tell(on_disk),
        }
    }
}

/// The writer's side of a task that waits. Dropped, it says that nobody knows.
pub(super) struct Teller(Arc<Slot>);

impl Drop for Teller {
    fn drop(&mut self) {
        self.0.tell(false);
    }
}

/// What the writer, the task and the alarms share.
#[derive(Default)]
struct Slot(Mutex<State>);

#[derive(Default)]
struct State {
    told: Option<bool>,
    waker: Option<Waker>,
}

impl Slot {
    /// What is said first holds.
    fn tell(&self, on_disk: bool) {
        lock(&self.0).told.get_or_insert(on_disk);
        self.wake();
    }

    fn wake(&self) {
        let waker = lock(&self.0).waker.take();
        // It runs code of the executor's, on threads of ours.
        if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(|| waker.map(Waker::wake))) {
            std::mem::forget(panic);
        }
    }
}

/// A record that a task waits for, until a time. Dropped, the record goes to the disk all the same.
pub(crate) struct Written {
    slot: Arc<Slot>,
    until: Instant,
    alarm: Option<Alarm>,
    unsent: Option<Unsent>,
    /// Nobody took it.
    refused: bool,
}

/// A record that found the queue full.
struct Unsent {
    message: Message,
    queue: Sender<Message>,
    hurry: Option<Sender<()>>,
    shared: Arc<Shared>,
}

impl Written {
    /// Of what `message` makes a message of.
    pub(super) fn new(until: Instant, message: impl FnOnce(Done) -> Message) -> (Self, Message) {
        let slot = Arc::<Slot>::default();
        let message = message(Done::Task(Teller(slot.clone())));
        let written = Written {
            slot,
            until,
            alarm: None,
            unsent: None,
            refused: false,
        };
        (written, message)
    }

    /// The queue is full: to be sent when the task is polled.
    pub(super) fn unsent(
        &mut self,
        message: Message,
        queue: &Sender<Message>,
        hurry: Option<&Sender<()>>,
        shared: &Arc<Shared>,
    ) {
        self.unsent = Some(Unsent {
            message,
            queue: queue.clone(),
            hurry: hurry.cloned(),
            shared: shared.clone(),
        });
    }

    /// Nobody takes it.
    pub(super) fn refused(&mut self) {
        self.refused = true;
    }

    /// Sends what found the queue full; `false` if that cannot be done now.
    fn send(&mut self) -> Result<bool, Error> {
        if self.refused {
            return Err(evidence(LOST));
        }
        let Some(mut unsent) = self.unsent.take() else {
            return Ok(true);
        };
        match unsent.queue.try_send(unsent.message) {
            Ok(()) => {
                if let Some(hurry) = unsent.hurry {
                    let _ = hurry.try_send(());
                }
                Ok(true)
            }
            Err(TrySendError::Full(message)) if Instant::now() < self.until => {
                unsent.message = message;
                self.unsent = Some(unsent);
                Ok(false)
            }
            Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) => {
                drop(message);
                unsent.shared.refuse();
                self.refused = true;
                Err(evidence(LOST))
            }
        }
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if let Some(unsent) = &self.unsent {
            unsent.shared.refuse();
        }
    }
}

impl Future for Written {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let is_sent = match this.send() {
            Ok(is_sent) => is_sent,
            Err(error) => return Poll::Ready(Err(error)),
        };
        let now = Instant::now();
        {
            let mut state = lock(&this.slot.0);
            if is_sent || now >= this.until {
                match state.told {
                    Some(true) => return Poll::Ready(Ok(())),
                    Some(false) => return Poll::Ready(Err(evidence(NOT_YET))),
                    None if now >= this.until => return Poll::Ready(Err(evidence(NOT_YET))),
                    None => {}
                }
            }
            match &mut state.waker {
                Some(waker) => waker.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
        }
        let at = match is_sent {
            true => this.until,
            false => this.until.min(now + AGAIN),
        };
        if this.alarm.as_ref().is_none_or(|alarm| alarm.at.0 != at) {
            match Alarm::set(at, &this.slot) {
                Some(alarm) => this.alarm = Some(alarm),
                // Without a thread to wake it nobody can say how long it would wait.
                None => return Poll::Ready(Err(evidence(NOT_YET))),
            }
        }
        Poll::Pending
    }
}

/// Wakes a task at a time. One thread does it for all, while there are any: so a task's end of waiting needs
/// neither the executor's timer, nor a writer that may be held up in the file system.
struct Alarm {
    at: (Instant, u64),
}

struct Alarms {
    waiting: BTreeMap<(Instant, u64), Weak<Slot>>,
    /// Tells apart those of one time.
    next: u64,
    /// Until when the thread sleeps; `None` if there is none.
    asleep_until: Option<Instant>,
}

static ALARMS: Mutex<Alarms> = Mutex::new(Alarms {
    waiting: BTreeMap::new(),
    next: 0,
    asleep_until: None,
});
static EARLIER: Condvar = Condvar::new();

impl Alarm {
    /// `None` where the system gives no thread.
    fn set(at: Instant, slot: &Arc<Slot>) -> Option<Self> {
        let mut alarms = lock(&ALARMS);
        alarms.next += 1;
        let at = (at, alarms.next);
        alarms.waiting.insert(at, Arc::downgrade(slot));
        match alarms.asleep_until {
            Some(until) if until > at.0 => EARLIER.notify_one(),
            Some(_) => {}
            None => {
                let thread = std::thread::Builder::new().name("provenance-alarms".into());
                if thread.spawn(ring).is_err() {
                    alarms.waiting.remove(&at);
                    return None;
                }
                alarms.asleep_until = Some(at.0);
            }
        }
        Some(Alarm { at })
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        lock(&ALARMS).waiting.remove(&self.at);
    }
}

/// Until there is nobody to wake any more.
fn ring() {
    let mut alarms = lock(&ALARMS);
    let mut idle = false;
    loop {
        let now = Instant::now();
        while let Some(entry) = alarms.waiting.first_entry().filter(|entry| entry.key().0 <= now) {
            let slot = entry.remove();
            drop(alarms);
            if let Some(slot) = slot.upgrade() {
                slot.wake();
            }
            alarms = lock(&ALARMS);
        }
        let until = match alarms.waiting.keys().next() {
            Some((at, _)) => {
                idle = false;
                *at
            }
            None if std::mem::replace(&mut idle, true) => {
                alarms.asleep_until = None;
                return;
            }
            None => now + LINGER,
        };
        alarms.asleep_until = Some(until);
        let waited = EARLIER.wait_timeout(alarms, until.saturating_duration_since(now));
        alarms = waited.map_or_else(|poisoned| poisoned.into_inner().0, |(alarms, _)| alarms);
    }
}

//! Work that does not decide what the host gets: put off, in order, to the writer's thread, or to
//! whoever needs its result first.

use std::any::Any;
use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// Most jobs that wait: some milliseconds of work for whoever needs them done.
const MOST_JOBS: usize = 1024;
/// Most bytes of raw values that wait.
const MOST_BYTES: usize = 1 << 20;

pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Jobs of one kind that follow each other, and share their buffers.
pub(crate) trait Series: Any + Send {
    /// Does them, in the order in which they were added.
    fn run(self: Box<Self>);
}

enum Waiting {
    Job(Job),
    Series(Box<dyn Series>),
}

thread_local! {
    /// Set while this thread runs a job: what a job asks for does not wait for itself.
    static WORKING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread runs a job.
pub(crate) fn is_working() -> bool {
    WORKING.try_with(Cell::get).unwrap_or(false)
}

/// Jobs that wait. They run one after the other, in the order in which they were pushed.
pub(crate) struct Deferred {
    jobs: Mutex<Jobs>,
    /// Held while a job is taken and run. Taken before `jobs`; a job may take any lock but this.
    working: Mutex<()>,
    pushed: AtomicU64,
    done: AtomicU64,
    /// A forked child has this memory, and none of the threads that may hold its locks.
    pid: u32,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<(Waiting, usize)>,
    bytes: usize,
}

impl Deferred {
    pub(crate) fn new() -> Self {
        Deferred {
            jobs: Mutex::default(),
            working: Mutex::default(),
            pushed: AtomicU64::new(0),
            done: AtomicU64::new(0),
            pid: std::process::id(),
        }
    }

    /// Whether nothing waits, and nothing is being worked on.
    pub(crate) fn is_idle(&self) -> bool {
        self.done.load(Ordering::Acquire) >= self.pushed.load(Ordering::Acquire)
    }

    /// Puts a job off that holds so many bytes of raw values. `true` if it is the first of those that
    /// wait. Where too much waits already the caller works it off.
    pub(crate) fn push(&self, job: Job, bytes: usize) -> bool {
        let Some(mut jobs) = self.with_room(bytes) else {
            return false;
        };
        if bytes > MOST_BYTES {
            drop(jobs);
            run(Waiting::Job(job));
            return false;
        }
        self.put(&mut jobs, Waiting::Job(job), bytes)
    }

    /// Adds a job to the series that was pushed last, if it is of its kind, or begins one. Otherwise as
    /// [`Deferred::push`]; what it takes may not call anybody's code.
    pub(crate) fn add<S: Series>(&self, bytes: usize, begin: impl FnOnce() -> S, add: impl FnOnce(&mut S)) -> bool {
        let Some(mut jobs) = self.with_room(bytes) else {
            return false;
        };
        if let Some((Waiting::Series(last), held)) = jobs.waiting.back_mut()
            && let Some(series) = (&mut **last as &mut dyn Any).downcast_mut::<S>()
        {
            add(series);
            *held += bytes;
            jobs.bytes += bytes;
            return false;
        }
        let mut series = Box::new(begin());
        add(&mut series);
        self.put(&mut jobs, Waiting::Series(series), bytes)
    }

    /// The jobs, with room for one more of so many bytes; of one that is larger than all may be, with none.
    fn with_room(&self, bytes: usize) -> Option<MutexGuard<'_, Jobs>> {
        let jobs = self.lock(&self.jobs)?;
        if jobs.waiting.len() < MOST_JOBS && jobs.bytes.saturating_add(bytes) <= MOST_BYTES {
            return Some(jobs);
        }
        drop(jobs);
        self.work_off();
        self.lock(&self.jobs)
    }

    fn put(&self, jobs: &mut Jobs, waiting: Waiting, bytes: usize) -> bool {
        jobs.bytes += bytes;
        jobs.waiting.push_back((waiting, bytes));
        self.pushed.fetch_add(1, Ordering::AcqRel);
        jobs.waiting.len() == 1
    }

    /// Runs what was pushed before this call, and waits for what others run of it. Within a job: nothing.
    pub(crate) fn work_off(&self) {
        if self.is_idle() || is_working() {
            return;
        }
        let wanted = self.pushed.load(Ordering::Acquire);
        while self.done.load(Ordering::Acquire) < wanted {
            let Some(_working) = self.lock(&self.working) else {
                return;
            };
            // Another thread may have run it while this one waited.
            if self.done.load(Ordering::Acquire) >= wanted {
                return;
            }
            let taken = self.lock(&self.jobs).and_then(|mut jobs| {
                let (job, bytes) = jobs.waiting.pop_front()?;
                jobs.bytes = jobs.bytes.saturating_sub(bytes);
                Some(job)
            });
            let Some(job) = taken else { return };
            run(job);
            self.done.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// `None` in a forked child, where the holder may not exist.
    fn lock<'m, T>(&self, mutex: &'m Mutex<T>) -> Option<MutexGuard<'m, T>> {
        match mutex.try_lock() {
            Ok(held) => return Some(held),
            Err(TryLockError::Poisoned(held)) => return Some(held.into_inner()),
            Err(TryLockError::WouldBlock) => {}
        }
        (self.pid == std::process::id()).then(|| mutex.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Runs a job and drops what it held. Jobs count their own panics.
fn run(waiting: Waiting) {
    struct Done(bool);
    impl Drop for Done {
        fn drop(&mut self) {
            let _ = WORKING.try_with(|working| working.set(self.0));
        }
    }
    let _done = Done(WORKING.try_with(|working| working.replace(true)).unwrap_or(true));
    if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(|| match waiting {
        Waiting::Job(job) => job(),
        Waiting::Series(series) => series.run(),
    })) {
        // What a panic carries may panic when it is dropped.
        std::mem::forget(panic);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_was_pushed_before_is_done_after_in_order_whoever_does_it() {
        let deferred = Arc::new(Deferred::new());
        let ran: Arc<Mutex<Vec<(usize, usize)>>> = Arc::default();
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let (deferred, ran) = (deferred.clone(), ran.clone());
                std::thread::spawn(move || {
                    for n in 0..300 {
                        let ran_by_job = ran.clone();
                        deferred.push(Box::new(move || ran_by_job.lock().unwrap().push((thread, n))), n);
                        if n % 7 == 0 {
                            deferred.work_off();
                            assert!(ran.lock().unwrap().contains(&(thread, n)));
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        deferred.work_off();
        assert!(deferred.is_idle());
        let ran = ran.lock().unwrap();
        for thread in 0..8 {
            let of_it = ran.iter().filter(|(of, _)| *of == thread).map(|(_, n)| *n);
            assert!(of_it.eq(0..300), "thread {thread}");
        }
    }

    #[test]
    fn no_more_waits_than_the_caps_say() {
        let deferred = Deferred::new();
        for _ in 0..MOST_JOBS {
            deferred.push(Box::new(|| {}), 1);
        }
        assert!(
            deferred.push(Box::new(|| {}), 1),
            "the caller has worked off the others"
        );
        assert!(deferred.push(Box::new(|| {}), MOST_BYTES));
        assert!(!deferred.push(Box::new(|| {}), MOST_BYTES + 1));
        assert!(deferred.is_idle(), "more than may wait is done at once");
        assert_eq!(deferred.jobs.lock().unwrap().bytes, 0);
    }

    #[test]
    fn what_is_added_to_a_series_keeps_its_place() {
        struct Numbers(Arc<Mutex<Vec<usize>>>, Vec<usize>);
        impl Series for Numbers {
            fn run(self: Box<Self>) {
                self.0.lock().unwrap().extend(self.1);
            }
        }
        let deferred = Deferred::new();
        let ran: Arc<Mutex<Vec<usize>>> = Arc::default();
        for n in 0..30 {
            if n % 10 == 9 {
                let ran = ran.clone();
                deferred.push(Box::new(move || ran.lock().unwrap().push(n)), 1);
            } else {
                let first = deferred.add(1, || Numbers(ran.clone(), Vec::new()), |numbers| numbers.1.push(n));
                assert_eq!(first, n == 0);
            }
        }
        assert_eq!(deferred.jobs.lock().unwrap().waiting.len(), 6);
        assert!(!deferred.is_idle());
        deferred.work_off();
        assert!(deferred.is_idle() && ran.lock().unwrap().iter().copied().eq(0..30));
        assert_eq!(deferred.jobs.lock().unwrap().bytes, 0);
    }

    #[test]
    fn jobs_may_panic_and_ask_for_what_waits() {
        let deferred = Arc::new(Deferred::new());
        deferred.push(Box::new(|| panic!("a job's own")), 0);
        let inner = deferred.clone();
        deferred.push(Box::new(move || inner.work_off()), 0);
        deferred.work_off();
        assert!(deferred.is_idle() && !is_working());
    }
}

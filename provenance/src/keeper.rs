//! A thread that looks after something now and then, until it is stopped.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

/// How long stopping waits for what is being done.
const PATIENCE: Duration = Duration::from_secs(5);
/// When it looks again after a look that panicked.
const AGAIN: Duration = Duration::from_secs(1);

/// Ends its thread when it is stopped or dropped.
pub(crate) struct Keeper {
    stop: Sender<()>,
    ended: Receiver<()>,
    /// A forked child has this memory, but no thread.
    pid: u32,
}

impl Keeper {
    /// Calls `look` after `pause`, then after each pause that it gives, and once more when it is stopped, with `true`.
    /// `None` where the system gives no thread.
    pub(crate) fn start(mut pause: Duration, mut look: impl FnMut(bool) -> Duration + Send + 'static) -> Option<Self> {
        let (stop, stopped) = bounded::<()>(1);
        let (end, ended) = bounded(1);
        std::thread::Builder::new()
            .name("provenance-keeper".into())
            .spawn(move || {
                loop {
                    let last = match stopped.recv_timeout(pause) {
                        Err(RecvTimeoutError::Timeout) => false,
                        Ok(()) => true,
                        Err(RecvTimeoutError::Disconnected) => break,
                    };
                    // Whatever happened: the next look may go better.
                    pause = std::panic::catch_unwind(AssertUnwindSafe(|| look(last))).unwrap_or(AGAIN);
                    if last {
                        break;
                    }
                }
                // What it holds is closed before anybody is told.
                drop(look);
                let _ = end.send(());
            })
            .ok()?;
        Some(Keeper {
            stop,
            ended,
            pid: std::process::id(),
        })
    }

    /// Waits until the thread has ended, for some seconds at most.
    pub(crate) fn stop(&self) {
        if self.pid == std::process::id() && self.stop.try_send(()).is_ok() {
            let _ = self.ended.recv_timeout(PATIENCE);
        }
    }
}

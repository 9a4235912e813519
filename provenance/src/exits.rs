//! What is still queued when the process ends without dropping its guard: `exit`, a panic that aborts,
//! SIGTERM. The global tracker is flushed, on a thread of its own: whoever ends the process may hold
//! any lock, and its thread locals may be gone, so it waits for so long and no longer.

use std::sync::Once;
use std::time::Duration;

use crate::Error;
use crate::tracker;

/// How long the end of the process waits.
const PATIENCE: Duration = Duration::from_secs(3);
/// What the flush may take beyond that to say that it failed.
const GRACE: Duration = Duration::from_millis(200);

/// From now on `exit`, and panics where they abort, flush first.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        #[cfg(unix)]
        c::at_exit();
        if cfg!(panic = "abort") {
            flush_on_panic();
        }
    });
}

/// From now on every panic flushes first, for 3 s at most, before the hook that was set until now is called.
///
/// For programs in which a panic ends the process without unwinding `main`: those with a panic hook
/// that exits or aborts. Builds with `panic = "abort"` do it by themselves, from [`init`](crate::init) on. A panic
/// that is caught costs as much as a [`flush`](crate::flush()). Does nothing in a thread that panics.
pub fn flush_on_panic() {
    static SET: Once = Once::new();
    if std::thread::panicking() {
        return;
    }
    SET.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            flush();
            before(panic);
        }));
    });
}

/// From now on SIGTERM flushes, for 3 s at most, and then ends the process as it does by default.
///
/// For programs that do nothing on SIGTERM themselves: one that shuts down by itself drops its guard, or calls
/// [`flush`](crate::flush()), where it sees fit. Elsewhere than on Unix it does nothing.
///
/// # Errors
/// [`Error::is_config`] where the system lets nobody handle the signal, or gives no thread.
pub fn flush_on_sigterm() -> Result<(), Error> {
    #[cfg(unix)]
    sigterm::install()
        .map_err(|e| Error::new(crate::error::ErrorKind::Config, "SIGTERM cannot be handled").because(e))?;
    Ok(())
}

/// Puts on disk what the global tracker has, if it can be done in time. In a forked child, and on the
/// writer's own thread, it would wait for nobody.
fn flush() {
    if !tracker::is_global_alive() || std::thread::current().name() == Some(crate::recorder::THREAD) {
        return;
    }
    let (done, told) = crossbeam_channel::bounded::<()>(1);
    let flushing = std::thread::Builder::new()
        .name("provenance-exit".into())
        .spawn(move || {
            tracker::flush_global(PATIENCE);
            drop(done);
        });
    if flushing.is_ok() {
        let _ = told.recv_timeout(PATIENCE + GRACE);
    }
}

#[cfg(unix)]
mod c {
    /// Flushes when the process exits.
    pub(super) fn at_exit() {
        // SAFETY: the function is there as long as the program, and it never unwinds.
        unsafe { libc::atexit(exiting) };
    }

    extern "C" fn exiting() {
        if let Err(panic) = std::panic::catch_unwind(super::flush) {
            // What a panic carries may panic when it is dropped.
            std::mem::forget(panic);
        }
    }
}

#[cfg(unix)]
mod sigterm {
    use std::io;
    use std::sync::Mutex;
    use std::sync::PoisonError;

    use signal_hook::consts::SIGTERM;
    use signal_hook::iterator::Signals;
    use signal_hook::low_level;

    pub(super) fn install() -> io::Result<()> {
        static INSTALLED: Mutex<bool> = Mutex::new(false);
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if *installed {
            return Ok(());
        }
        let mut signals = Signals::new([SIGTERM])?;
        std::thread::Builder::new()
            .name("provenance-sigterm".into())
            .spawn(move || {
                for signal in signals.forever() {
                    super::flush();
                    let _ = low_level::emulate_default_handler(signal);
                }
            })?;
        let pid = std::process::id();
        let in_a_child = move || {
            if std::process::id() != pid {
                let _ = low_level::emulate_default_handler(SIGTERM);
            }
        };
        // A forked child has no such thread: nobody would end it.
        // SAFETY: within a signal handler it only compares numbers and makes system calls that may be made
        // there (getpid; and what signal-hook documents for this function).
        unsafe { low_level::register(SIGTERM, in_a_child) }?;
        *installed = true;
        Ok(())
    }
}

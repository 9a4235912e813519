//! The context of one request: who is served, under which route, on which purpose.
//!
//! A scope lives in a thread-local for as long as a future is being polled ([`scoped`]) or a
//! guard lives ([`Scope::enter`]), so it never leaks into another task.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};

use crate::deferred::Deferred;
use crate::vocabulary::{Fingerprint, Owner, Timestamp};

thread_local! {
    /// The scopes entered and not left, the innermost last; numbered, as guards may be dropped in
    /// any order.
    static ENTERED: RefCell<Vec<(u64, Scope)>> = const { RefCell::new(Vec::new()) };
    static NEXT: Cell<u64> = const { Cell::new(0) };
}

/// The context of one request or job. Cheap to clone; clones share their state.
#[derive(Clone)]
pub struct Scope(Arc<Inner>);

struct Inner {
    source: OnceLock<Arc<str>>,
    /// The function that is the source, until somebody asks for its name.
    function: &'static str,
    /// Made when somebody asks for it.
    request_id: OnceLock<Arc<str>>,
    trace_id: Option<Arc<str>>,
    state: Mutex<State>,
}

/// What may change while a request is served.
#[derive(Default)]
pub(crate) struct State {
    /// Set by the host: whose session this is.
    pub(crate) session_owner: Option<Owner>,
    /// Found in the input.
    pub(crate) input_owner: Option<Owner>,
    pub(crate) purpose: Option<Arc<str>>,
    pub(crate) tenant: Option<Arc<str>>,
    /// Input that the layer read and no event carries yet; typed by the input hook.
    pub(crate) pending: Option<Box<dyn Any + Send>>,
    /// What DATA_COLLECTION events of this request carry already: field, value, whose.
    pub(crate) collected: HashSet<(Arc<str>, Fingerprint, Option<Owner>)>,
    /// Where work of this request was put off: what it says of the request is not said yet.
    pub(crate) deferred: Option<Arc<Deferred>>,
    /// What waits for the end of the request.
    pub(crate) ending: Option<Ending>,
}

/// What a hook gathers while a request is served, and does with it when the request has ended.
pub(crate) struct Ending {
    pub(crate) what: Box<dyn Any + Send>,
    pub(crate) run: fn(Box<dyn Any + Send>, &Scope),
}

impl Drop for Inner {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(Ending { what, run }) = state.ending.take() else {
            return;
        };
        // The scope once more, so that its events say whose request it was.
        let scope = Scope(Arc::new(Inner {
            source: self.source.clone(),
            function: self.function,
            request_id: self.request_id.clone(),
            trace_id: self.trace_id.clone(),
            state: Mutex::new(std::mem::take(state)),
        }));
        let _entered = scope.enter();
        run(what, &scope);
    }
}

impl Scope {
    /// A scope of its own, with a random request id.
    ///
    /// `source` says where values come from, such as `HTTP POST /signup` (a route template,
    /// never a path with values in it) or `job nightly-export`.
    pub fn new(source: impl Into<Arc<str>>) -> Self {
        Scope::made(OnceLock::from(source.into()), "", OnceLock::new(), None)
    }

    /// The scope of one call of a function, `fn crm::api::signup`.
    pub(crate) fn of_call(path: &'static str) -> Self {
        Scope::made(OnceLock::new(), path, OnceLock::new(), None)
    }

    #[cfg(feature = "axum")]
    pub(crate) fn with(source: Arc<str>, request_id: Option<Arc<str>>, trace_id: Option<Arc<str>>) -> Self {
        let request_id = request_id.map_or_else(OnceLock::new, OnceLock::from);
        Scope::made(OnceLock::from(source), "", request_id, trace_id)
    }

    fn made(
        source: OnceLock<Arc<str>>,
        function: &'static str,
        request_id: OnceLock<Arc<str>>,
        trace_id: Option<Arc<str>>,
    ) -> Self {
        Scope(Arc::new(Inner {
            source,
            function,
            request_id,
            trace_id,
            state: Mutex::default(),
        }))
    }

    /// The scope in hand, if any.
    pub fn current() -> Option<Self> {
        ENTERED
            .try_with(|entered| entered.try_borrow().ok()?.last().map(|(_, scope)| scope.clone()))
            .ok()
            .flatten()
    }

    /// Makes this the current scope of the thread until the guard is dropped. For threads and
    /// blocking closures; futures take [`scoped`].
    #[must_use = "the scope ends when the guard is dropped"]
    pub fn enter(&self) -> ScopeGuard {
        let number = NEXT
            .try_with(|next| next.replace(next.get().wrapping_add(1)))
            .unwrap_or_default();
        let _ = ENTERED.try_with(|entered| {
            entered
                .try_borrow_mut()
                .map(|mut entered| entered.push((number, self.clone())))
        });
        ScopeGuard {
            number,
            not_send: PhantomData,
        }
    }

    /// Polls a future inside this scope, on whichever thread: for a middleware that makes the scope,
    /// or a task that is made later than the scope was taken.
    pub fn run<F: Future>(&self, future: F) -> Scoped<F> {
        scoped_in(Some(self.clone()), future)
    }

    /// Where values of this request come from.
    pub fn source(&self) -> &Arc<str> {
        self.0.source.get_or_init(|| format!("fn {}", self.0.function).into())
    }

    /// The request id, validated or random.
    pub fn request_id(&self) -> &Arc<str> {
        self.0.request_id.get_or_init(random_id)
    }

    /// The W3C trace id, if the request brought one.
    pub fn trace_id(&self) -> Option<&Arc<str>> {
        self.0.trace_id.as_ref()
    }

    /// Whose request this is: what the session said, else what the input said.
    pub fn owner(&self) -> Option<Owner> {
        self.work_off();
        let state = self.state();
        state.session_owner.clone().or_else(|| state.input_owner.clone())
    }

    /// Names the tenant on every later event of this scope.
    pub fn set_tenant(&self, tenant: &str) {
        self.work_off();
        self.state().tenant = Some(tenant.into());
    }

    /// Names the purpose on every later event of this scope that has none of its own.
    pub fn set_purpose(&self, purpose: &str) {
        self.work_off();
        self.state().purpose = Some(purpose.into());
    }

    /// Does what was put off. Before what it says is asked for, and before what is said changes: that
    /// is of later events alone.
    pub(crate) fn work_off(&self) {
        let deferred = self.state().deferred.clone();
        if let Some(deferred) = deferred {
            deferred.work_off();
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a scope's turn on this thread. Not `Send`: held across an await it would leak into
/// another task, so the compiler refuses that in spawned futures.
pub struct ScopeGuard {
    number: u64,
    not_send: PhantomData<*const ()>,
}

impl Drop for ScopeGuard {
    fn drop(&mut self) {
        let _left = ENTERED.try_with(|entered| {
            let mut entered = entered.try_borrow_mut().ok()?;
            let at = entered.iter().rposition(|(number, _)| *number == self.number)?;
            Some(entered.remove(at))
        });
    }
}

/// Carries the scope in hand into a future that another task will poll:
/// `tokio::spawn(provenance::scoped(async move { .. }))`.
pub fn scoped<F: Future>(future: F) -> Scoped<F> {
    Scoped {
        scope: Scope::current(),
        future,
    }
}

/// Carries the scope in hand into a closure that another thread will call:
/// `spawn_blocking(provenance::in_scope(move || ..))`, and likewise `rayon::spawn` and
/// `std::thread::spawn`. Where several calls are wanted, as in `par_iter().for_each(..)`, take
/// [`Scope::current`] outside and [`Scope::enter`] inside.
pub fn in_scope<R>(closure: impl FnOnce() -> R) -> impl FnOnce() -> R {
    let scope = Scope::current();
    move || {
        let _guard = scope.as_ref().map(Scope::enter);
        closure()
    }
}

pub(crate) fn scoped_in<F: Future>(scope: Option<Scope>, future: F) -> Scoped<F> {
    Scoped { scope, future }
}

pin_project_lite::pin_project! {
    /// A future that is polled inside a scope. Made by [`scoped`].
    pub struct Scoped<F> {
        scope: Option<Scope>,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _guard = this.scope.as_ref().map(Scope::enter);
        this.future.poll(context)
    }
}

/// 128 bits as 32 hex digits, as good as random among instances: milliseconds (48 bits), random bits
/// of this process (40), a count (40). In order of time, so that the store's index of them grows at
/// its end; and without asking the system for each.
fn random_id() -> Arc<str> {
    static PROCESS: LazyLock<u128> = LazyLock::new(|| {
        let mut bytes = [0; 16];
        // Without entropy: unique within the process is what is left.
        let _ = getrandom::fill(&mut bytes);
        u128::from_be_bytes(bytes)
    });
    static NEXT: AtomicU64 = AtomicU64::new(0);
    const LOW: u128 = (1 << 40) - 1;
    let milliseconds = Timestamp::now().0.unsigned_abs() / 1000;
    let count = u128::from(NEXT.fetch_add(1, Ordering::Relaxed)) & LOW;
    let id = u128::from(milliseconds) << 80 | (*PROCESS & LOW) << 40 | count;
    let mut text = [0; 32];
    for (digit, at) in text.iter_mut().zip((0..32).rev()) {
        *digit = b"0123456789abcdef"[(id >> (4 * at)) as usize & 15];
    }
    str::from_utf8(&text).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_may_be_dropped_in_any_order() {
        let source = || Scope::current().map(|scope| scope.source().to_string());
        let (one, two) = (Scope::new("one"), Scope::new("two"));
        let first = one.enter();
        let second = two.enter();
        drop(first);
        assert_eq!(source().as_deref(), Some("two"));
        drop(second);
        assert_eq!(source(), None, "a scope has leaked into what the thread does next");
    }
}

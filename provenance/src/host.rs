//! What a host calls by hand: the one line in `main`, and the words beside the attributes.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;

use crate::Error;
use crate::config::Config;
use crate::error::ErrorKind;
use crate::exits;
use crate::hooks::input;
use crate::scope::Scope;
use crate::tracked::{Sink, Tracked, Value, Visitor};
use crate::tracker::{self, BlindSpot, Erasure, Tracker};
use crate::vocabulary::tag::FieldSpec;
use crate::vocabulary::{Event, EventType, Fingerprint, Owner, Timestamp, category};

/// Reads the configuration and puts provenance in force for this process. Keep the guard:
/// dropping it flushes the evidence and turns every hook into a no-op. `std::process::exit`, and panics where they
/// abort, flush first, for 3 s at most.
///
/// # Errors
/// [`Error::is_config`], [`Error::is_key`], [`Error::is_store`], each saying what to do;
/// [`Error::is_already_initialised`] on a second call: the first stays.
pub fn init() -> Result<Guard, Error> {
    init_with(Config::load(None)?)
}

/// As [`init`], with a configuration made by the host.
///
/// # Errors
/// As [`init`].
pub fn init_with(config: Config) -> Result<Guard, Error> {
    if crate::inventory::runtimes() > 1 {
        return Err(Error::new(
            ErrorKind::Config,
            "two versions of the provenance crate are linked into this program, and hooks of one would not reach \
             the other: `cargo tree -d -p provenance` shows who asks for which",
        ));
    }
    let tracker = tracker::install(config)?;
    if let Some(tracker) = &tracker {
        exits::install();
        #[cfg(feature = "diesel")]
        crate::integrations::diesel::install();
        let inventory = crate::inventory::inventory();
        // With `sql-fallback` the SQL text serves them.
        let unserved = match cfg!(feature = "sql-fallback") {
            true => Vec::new(),
            false => crate::inventory::models_without_hook(tracker.config(), &inventory),
        };
        for model in unserved {
            eprintln!(
                "provenance: warning: tracked_models names `{model}`, and no #[tracked_model] serves it: \
                 its writes are not recorded"
            );
            tracker.blind_spot(BlindSpot::ModelWithoutHook, &model);
        }
        let unvisited = crate::inventory::unvisited(&inventory);
        for input in &unvisited {
            tracker.blind_spot(BlindSpot::UnvisitedInput, input);
        }
        if !unvisited.is_empty() {
            eprintln!(
                "provenance: warning: what these arguments bring in cannot be read, derive Tracked or Serialize on \
                 what they hold: {}",
                listed(&unvisited)
            );
        }
    }
    Ok(Guard { tracker })
}

/// The first of many, on one line.
fn listed(names: &[String]) -> String {
    const MOST: usize = 20;
    let mut line = names.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
    if let Some(more) = names.len().checked_sub(MOST).filter(|more| *more > 0) {
        line.push_str(&format!(", and {more} more: see /status"));
    }
    line
}

/// Keeps provenance in force. Made by [`init`].
#[must_use = "dropping the guard ends the recording: bind it in main, `let _provenance = provenance::init()?;`"]
#[derive(Debug)]
pub struct Guard {
    tracker: Option<Tracker>,
}

impl Guard {
    /// The tracker; `None` with `enabled: false`.
    pub fn tracker(&self) -> Option<&Tracker> {
        self.tracker.as_ref()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(tracker) = &self.tracker {
            tracker.close();
        }
    }
}

/// The tracker in force here, if any.
pub fn tracker() -> Option<Tracker> {
    tracker::with(Clone::clone)
}

/// Says whose request this is, typically after the session was checked:
/// `set_owner("user", user.id)`. Without a [`Scope`] in hand, or with an ill-formed kind, it does nothing.
pub fn set_owner(kind: &str, value: impl Tracked) {
    let Some(scope) = Scope::current() else { return };
    if let Some(Some(owner)) = tracker::with(|tracker| owner_of(tracker, kind, &value)) {
        scope.work_off();
        scope.state().session_owner = Some(owner);
    }
}

/// Says that two identifiers are of one person: `link_owner(("user", id), ("email", &email))`.
pub fn link_owner(a: (&str, impl Tracked), b: (&str, impl Tracked)) {
    tracker::with(|tracker| {
        if let (Some(a), Some(b)) = (owner_of(tracker, a.0, &a.1), owner_of(tracker, b.0, &b.1)) {
            tracker.link(&a, &b);
        }
    });
}

fn owner_of(tracker: &Tracker, kind: &str, value: &dyn Tracked) -> Option<Owner> {
    let mut owner = None;
    each_value(value, |value| {
        if owner.is_none() {
            owner = tracker.owner(kind, value);
        }
    });
    owner
}

/// Hands every plain value in `value` to `take`.
fn each_value(value: &dyn Tracked, take: impl FnMut(Value<'_>)) {
    struct Take<F>(F);
    impl<F: FnMut(Value<'_>)> Sink for Take<F> {
        fn declared(&mut self, _: &'static crate::tracked::Field, value: Value<'_>) {
            (self.0)(value);
        }
        fn keyed(&mut self, _: &str, value: Value<'_>) {
            (self.0)(value);
        }
    }
    Visitor::new(&mut Take(take)).entry("", |visitor| value.visit(visitor));
}

/// Registers a value by hand, so that it is found when it leaves: `tag("contact.email", "email", &email)?`.
/// Gives its fingerprint; `None` where there is nothing to keep, for secrets, and while provenance is off.
///
/// # Errors
/// [`Error::is_input`] for an ill-formed category.
pub fn tag(category: &str, field: &str, value: impl Tracked) -> Result<Option<Fingerprint>, Error> {
    let spec = spec(category, field)?;
    let mut fingerprint = None;
    tracker::with(|tracker| {
        // What was sent before does not hold it.
        tracker.work_off();
        let scope = Scope::current();
        let source = scope
            .as_ref()
            .map_or_else(|| Arc::from("tag"), |scope| scope.source().clone());
        let owner = scope.and_then(|scope| scope.owner());
        each_value(&value, |value| {
            if let Some(observed) = tracker.observe(&spec, value) {
                fingerprint = tracker
                    .register(&observed, owner.as_ref(), &source, false, Timestamp::now())
                    .tag
                    .fingerprint;
            }
        });
    });
    Ok(fingerprint)
}

fn spec(written: &str, field: &str) -> Result<Arc<FieldSpec>, Error> {
    if !category::is_well_formed(written) {
        return Err(Error::new(
            ErrorKind::Input,
            "ill-formed category: write dotted lower-case words such as contact.email, own ones below x.",
        ));
    }
    Ok(Arc::new(FieldSpec {
        name: field.into(),
        category: written.into(),
        description: "".into(),
        kind: category::default_kind(written),
        pii: true,
        secret: category::is_secret(written, field),
    }))
}

/// Begins an event by hand. Finish it with [`EventBuilder::submit`].
///
/// ```no_run
/// # fn main() -> Result<(), provenance::Error> {
/// # let email = "";
/// provenance::record_event("X_LETTER_PRINTED".parse()?).target("printer:2").value("contact.email", "email", email)?.submit();
/// # Ok(()) }
/// ```
pub fn record_event(event_type: EventType) -> EventBuilder {
    // Input comes before what is done with it, in the order of time too.
    tracker::with(input::settle);
    let actor = Scope::current().map_or_else(|| Arc::from("host"), |scope| scope.source().clone());
    EventBuilder {
        event: Event::new(event_type, actor),
    }
}

/// What the host wrote by hand, without values that are known to be somebody's: `target(&user.email)`
/// is a slip that must not last.
fn scrubbed(tracker: &Tracker, mut event: Event) -> Event {
    fn scrub(tracker: &Tracker, value: &mut Json) {
        match value {
            Json::String(text) if tracker.tells(text) => *text = "{value}".to_owned(),
            Json::Number(number) if tracker.tells(&number.to_string()) => *value = "{value}".into(),
            Json::Array(elements) => elements.iter_mut().for_each(|element| scrub(tracker, element)),
            Json::Object(members) => {
                *members = std::mem::take(members)
                    .into_iter()
                    .map(|(key, mut value)| {
                        scrub(tracker, &mut value);
                        (if tracker.tells(&key) { "{key}".to_owned() } else { key }, value)
                    })
                    .collect();
            }
            _ => {}
        }
    }
    if event.target.as_deref().is_some_and(|target| tracker.tells(target)) {
        event.target = Some("{value}".into());
    }
    let mut extras = Json::Object(std::mem::take(&mut event.extras));
    scrub(tracker, &mut extras);
    if let Json::Object(extras) = extras {
        event.extras = extras;
    }
    event
}

/// An event in the making.
#[must_use = "nothing is recorded before submit()"]
pub struct EventBuilder {
    event: Event,
}

/// Shows the type of the event alone: what the host wrote is looked through only on submission.
impl std::fmt::Debug for EventBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventBuilder")
            .field("event_type", &self.event.event_type)
            .finish_non_exhaustive()
    }
}

impl EventBuilder {
    /// Onto what, such as `queue:letters`. Kept as it is, unless it holds a registered value that
    /// tells somebody: no personal values here.
    pub fn target(mut self, target: &str) -> Self {
        self.event.target = Some(target.into());
        self
    }

    /// A word of your own. Kept as it is, unless it holds a registered value that tells somebody: no
    /// personal values here.
    pub fn extra(mut self, key: &str, value: impl Into<Json>) -> Self {
        self.event.extras.insert(key.into(), value.into());
        self
    }

    /// A value that the event is about: registered, and kept as a fingerprint.
    ///
    /// # Errors
    /// [`Error::is_input`] for an ill-formed category.
    pub fn value(mut self, category: &str, field: &str, value: impl Tracked) -> Result<Self, Error> {
        let spec = spec(category, field)?;
        let source = self.event.actor.clone();
        let owner = Scope::current().and_then(|scope| scope.owner());
        tracker::with(|tracker| {
            each_value(&value, |value| {
                if let Some(observed) = tracker.observe(&spec, value) {
                    input::describe(&mut self.event, &observed, None);
                    self.event
                        .tags
                        .push(tracker.register(&observed, owner.as_ref(), &source, false, Timestamp::now()));
                }
            });
        });
        Ok(self)
    }

    /// Queues the event.
    pub fn submit(self) {
        tracker::with(|tracker| {
            input::settle(tracker);
            tracker.record(scrubbed(tracker, self.event));
        });
    }

    /// Records the event and waits until it is on disk: in the database, or in the spill file.
    ///
    /// # Errors
    /// [`Error::is_evidence`] where neither takes it, within two seconds: the outcome is unknown, the writer goes on
    /// trying.
    pub fn submit_durable(self) -> Result<(), Error> {
        tracker::with(|tracker| {
            input::settle(tracker);
            tracker
                .record_durable(scrubbed(tracker, self.event))
                .map(|_| ())
                .map_err(|(_, error)| error)
        })
        .unwrap_or(Ok(()))
    }

    /// As [`EventBuilder::submit_durable`], for tasks: the event is queued at once, and the future is ready when it is on
    /// disk. It blocks no thread and needs no executor of a certain kind. Dropped, or never polled, the event is
    /// recorded all the same, unless the queue was full.
    ///
    /// # Errors
    /// As [`EventBuilder::submit_durable`].
    #[must_use = "awaited, the future tells whether the event is on disk"]
    pub fn submit_durable_async(self) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<> {
        let written = tracker::with(|tracker| {
            input::settle(tracker);
            let (_, written) = tracker.start_durable(scrubbed(tracker, self.event));
            (tracker.clone(), written)
        });
        async move {
            match written {
                Some((tracker, written)) => tracker.await_durable(written).await,
                None => Ok(()),
            }
        }
    }
}

impl Tracker {
    /// Records that somebody looked into the evidence of a person, or took evidence away: an AUDIT_ACCESS, on
    /// disk when this returns. `by` is the name of a token, `what` what was asked, `reason` why; of a
    /// `reason` that holds a registered value nothing is kept.
    ///
    /// # Errors
    /// [`Error::is_evidence`]: it is not on disk after one second, or this tracker is closed.
    pub fn record_access(&self, by: &str, what: &str, reason: &str, owner: Option<&Owner>) -> Result<(), Error> {
        let recorded = self.attempt(|tracker| {
            let mut event = Event::new(EventType::AuditAccess, format!("audit:{by}"));
            event.target = Some(what.into());
            event.owner = owner.cloned();
            event.extras.insert("reason".into(), reason.into());
            tracker
                .record_durable(scrubbed(tracker, event))
                .map(|_| ())
                .map_err(|(_, error)| error)
        });
        recorded.unwrap_or_else(|| {
            Err(Error::new(
                ErrorKind::Evidence,
                "the access cannot be recorded: recording has ended",
            ))
        })
    }

    /// Erases a person from the evidence: `erase("email", "ada@example.com", "ticket 17")`. All identifiers that are
    /// known to be theirs are followed. Their values, tags and links are removed, in this process at once, in others
    /// within two seconds; what others share with them, and others' parts of the same events, stay, and so does the
    /// chain. Before it begins, and when it is done, a DATA_ERASURE is recorded, which names nobody.
    ///
    /// A load of an old row does not register the person again. An input of theirs or a new row does, and so
    /// does [`Tracker::readmit`]. It blocks until all is done, which takes about a millisecond for each ten events.
    /// Interrupted, it is taken up by the next process that writes the file, or by the next call.
    ///
    /// `reason` is kept: a ticket, and no personal data.
    ///
    /// # Errors
    /// [`Error::is_input`] where `kind` is no kind, or `identifier` is empty; [`Error::is_store`] and
    /// [`Error::is_evidence`] where it could not be finished: call it again.
    pub fn erase(&self, kind: &str, identifier: &str, reason: &str) -> Result<Erasure, Error> {
        // What this request brought in was there before.
        input::settle(self);
        self.erase_identified(kind, identifier, reason)
    }
}

/// Waits until everything recorded so far is on disk: in the database, or in the spill file.
///
/// # Errors
/// [`Error::is_evidence`] after `timeout`; the writer goes on trying.
pub fn flush(timeout: Duration) -> Result<(), Error> {
    tracker::with(|tracker| tracker.flush(timeout)).unwrap_or(Ok(()))
}

/// Trackers of their own for tests that run in parallel.
pub mod test {
    use std::future::Future;
    use std::marker::PhantomData;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use crate::tracker::{Tracker, replace_override};

    /// Puts `tracker` in force on this thread, before the global one, until the guard is dropped.
    #[must_use = "the override ends when the guard is dropped"]
    pub fn scoped(tracker: &Tracker) -> OverrideGuard {
        #[cfg(feature = "diesel")]
        crate::integrations::diesel::install();
        OverrideGuard {
            before: replace_override(Some(tracker.clone())),
            not_send: PhantomData,
        }
    }

    /// Puts `tracker` in force while `future` is polled, on whichever thread.
    pub fn scoped_future<F: Future>(tracker: &Tracker, future: F) -> ScopedFuture<F> {
        ScopedFuture {
            tracker: tracker.clone(),
            future,
        }
    }

    /// Ends an override. Made by [`scoped`].
    #[derive(Debug)]
    pub struct OverrideGuard {
        before: Option<Tracker>,
        not_send: PhantomData<*const ()>,
    }

    impl Drop for OverrideGuard {
        fn drop(&mut self) {
            replace_override(self.before.take());
        }
    }

    pin_project_lite::pin_project! {
        /// A future with a tracker of its own. Made by [`scoped_future`].
        #[derive(Debug)]
        pub struct ScopedFuture<F> {
            tracker: Tracker,
            #[pin]
            future: F,
        }
    }

    impl<F: Future> Future for ScopedFuture<F> {
        type Output = F::Output;

        fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
            let this = self.project();
            let _guard = scoped(this.tracker);
            this.future.poll(context)
        }
    }
}

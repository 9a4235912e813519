//! From what happened to records: at once, later, or on disk before anything else.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;

use super::{BlindSpot, Tracker};
use crate::Error;
use crate::deferred::{self, Series};
use crate::recorder::Written;
use crate::scope::Scope;
use crate::site::Site;
use crate::store::write::Record;
use crate::telemetry::{self, Told};
use crate::ticket::Ticket;
use crate::vocabulary::{Event, Late, Outcome, Timestamp};

/// How long a durable record may take before `egress.on_evidence_failure` applies.
/// The spill file takes it where the database did not for one second.
const EVIDENCE_PATIENCE: Duration = Duration::from_secs(2);
/// When and where something happened that is recorded later.
pub(crate) struct Moment {
    pub(crate) at: Timestamp,
    pub(crate) scope: Option<Scope>,
    trace_id: Option<Arc<str>>,
    /// It was put off: nobody is told, and this thread is another.
    deferred: bool,
}

impl Moment {
    fn new(scope: Option<Scope>) -> Self {
        Moment {
            at: Timestamp::now(),
            scope,
            trace_id: telemetry::trace_id(),
            deferred: false,
        }
    }

    /// Whether it is recorded later.
    pub(crate) fn is_deferred(&self) -> bool {
        self.deferred
    }

    /// For events that are complete.
    pub(crate) fn nobodys() -> Self {
        Moment {
            at: Timestamp::now(),
            scope: None,
            trace_id: None,
            deferred: true,
        }
    }
}

impl Tracker {
    /// Does `work` later, on another thread: what it works out decides nothing that the host gets, and
    /// whoever asks for its result has it done first. It may hold `bytes` of raw values; what calls
    /// the host's code may not be put off.
    pub(crate) fn defer(
        &self,
        scope: Option<Scope>,
        bytes: usize,
        work: impl FnOnce(&Tracker, &Moment) + Send + 'static,
    ) {
        let moment = self.moment(scope);
        if !moment.deferred {
            return work(self, &moment);
        }
        let tracker = self.clone();
        let job = move || {
            tracker.guarded(|tracker| work(tracker, &moment));
        };
        self.0.recorder.defer(Box::new(job), bytes);
    }

    /// This moment, for what [`Moment::is_deferred`] says is done later: see [`Tracker::defer`]. Anything else is to be
    /// done now.
    pub(crate) fn moment(&self, scope: Option<Scope>) -> Moment {
        let mut moment = Moment::new(scope);
        // A subscriber is told in its own span.
        if deferred::is_working() || self.is_listened_to() {
            self.work_off();
            return moment;
        }
        moment.deferred = true;
        if let Some(scope) = &moment.scope {
            let deferred = &mut scope.state().deferred;
            if deferred.is_none() {
                *deferred = Some(self.0.recorder.deferred().clone());
            }
        }
        moment
    }

    /// Puts a job off of which there may be very many: it is added to the series of its kind.
    pub(crate) fn defer_in<S: Series>(&self, bytes: usize, begin: impl FnOnce() -> S, add: impl FnOnce(&mut S)) {
        self.0.recorder.defer_in(bytes, begin, add);
    }

    /// Does what was put off: see [`Tracker::defer`].
    pub(crate) fn work_off(&self) {
        self.0.recorder.deferred().work_off();
    }

    fn is_listened_to(&self) -> bool {
        let listened = telemetry::is_listened_to();
        if listened.is_err() {
            self.blind_spot(BlindSpot::HookPanicked, "tracing subscriber");
        }
        listened.unwrap_or(false)
    }

    /// Queues an event; the scope in hand adds what the event does not say itself.
    pub(crate) fn record(&self, event: Event) -> Ticket {
        self.work_off();
        self.record_of(event, &Moment::new(Scope::current()))
    }

    /// Queues an event of that moment.
    pub(crate) fn record_of(&self, event: Event, moment: &Moment) -> Ticket {
        let ticket = Ticket::default();
        self.record_as(event, moment, &ticket);
        ticket
    }

    /// Queues an event of that moment, for which this ticket was given out already.
    pub(crate) fn record_as(&self, mut event: Event, moment: &Moment, ticket: &Ticket) {
        complete_of(&mut event, moment);
        self.without_erased(&mut event);
        let told = match moment.deferred {
            true => None,
            false => self.told(&event),
        };
        self.0.recorder.send(Record::Event(Box::new(event), ticket.clone()));
        self.tell(told, ticket);
    }

    pub(super) fn told(&self, event: &Event) -> Option<Told> {
        let told = Told::of(event);
        if told.is_err() {
            self.blind_spot(BlindSpot::HookPanicked, "tracing subscriber");
        }
        told.ok().flatten()
    }

    /// Tells the host's log of an event that was recorded, whatever became of it: by its id, if it has one yet.
    pub(super) fn tell(&self, told: Option<Told>, ticket: &Ticket) {
        let Some(told) = told else { return };
        if told.tell(self.event_id(ticket)).is_err() {
            self.blind_spot(BlindSpot::HookPanicked, "tracing subscriber");
        }
    }

    /// The record of an event that follows all that was put off, its ticket, and what a subscriber is told.
    fn at_once(&self, mut event: Event) -> (Record, Ticket, Option<Told>) {
        self.work_off();
        complete(&mut event);
        self.without_erased(&mut event);
        let told = self.told(&event);
        let ticket = Ticket::default();
        let record = Record::Event(Box::new(event), ticket.clone());
        (record, ticket, told)
    }

    /// Records an event and waits until it is on disk.
    ///
    /// # Errors
    /// [`Error::is_evidence`] after two seconds, or when it could be put neither into the database nor into the
    /// spill file; counted as a blind spot.
    pub(crate) fn record_durable(&self, event: Event) -> Result<Ticket, (Ticket, Error)> {
        let (record, ticket, told) = self.at_once(event);
        let sent = self.0.recorder.send_durable(record, EVIDENCE_PATIENCE);
        self.tell(told, &ticket);
        match sent {
            Ok(()) => Ok(ticket),
            Err(error) => {
                self.blind_spot(BlindSpot::EvidenceFailure, "recorder");
                Err((ticket, error))
            }
        }
    }

    /// Queues an event, to be written at once; [`Tracker::await_durable`] waits for it.
    pub(crate) fn start_durable(&self, event: Event) -> (Ticket, Written) {
        let (record, ticket, told) = self.at_once(event);
        let written = self.0.recorder.start_durable(record, EVIDENCE_PATIENCE);
        self.tell(told, &ticket);
        (ticket, written)
    }

    /// Waits until an event is on disk, without blocking the thread.
    ///
    /// # Errors
    /// As [`Tracker::record_durable`].
    pub(crate) async fn await_durable(&self, written: Written) -> Result<(), Error> {
        let result = written.await;
        if result.is_err() {
            self.blind_spot(BlindSpot::EvidenceFailure, "recorder");
        }
        result
    }

    /// Appends the outcome of a share.
    pub(crate) fn outcome(&self, of: &Ticket, outcome: Outcome) {
        self.outcome_with(of, outcome, None);
    }

    /// As [`Tracker::outcome`], of a share whose own record may have been put off: behind it.
    pub(crate) fn outcome_later(&self, of: &Ticket, outcome: Outcome) {
        let tracker = self.clone();
        let record = Record::Outcome {
            of: of.clone(),
            outcome,
            created_at: Timestamp::now(),
            late: None,
        };
        match self.0.recorder.deferred().is_idle() {
            true => self.0.recorder.send(record),
            false => self
                .0
                .recorder
                .defer(Box::new(move || tracker.0.recorder.send(record)), 0),
        }
    }

    /// Appends the outcome of a share, and what became known of it only by then.
    pub(crate) fn outcome_with(&self, of: &Ticket, outcome: Outcome, mut late: Option<Box<Late>>) {
        if let Some(late) = &mut late {
            self.late_without_erased(late);
        }
        self.0.recorder.send(Record::Outcome {
            of: of.clone(),
            outcome,
            created_at: Timestamp::now(),
            late,
        });
    }
}

/// What the scope in hand, and the trace, know of every event.
pub(crate) fn complete(event: &mut Event) {
    complete_of(event, &Moment::new(Scope::current()));
}

fn complete_of(event: &mut Event, moment: &Moment) {
    let scope = moment.scope.as_ref();
    // OpenTelemetry knows better than the caller's header, which its propagator may have refused.
    if let Some(trace_id) = moment.trace_id.as_ref().or_else(|| scope?.trace_id()) {
        event
            .extras
            .entry("trace_id")
            .or_insert_with(|| Json::from(&**trace_id));
    }
    let Some(scope) = scope else { return };
    event.request_id.get_or_insert_with(|| scope.request_id().clone());
    let state = scope.state();
    if event.user_id.is_none() {
        event.user_id = state.session_owner.as_ref().map(|owner| owner.as_str().into());
    }
    // Tags of several people: the event is no single person's.
    if event.owner.is_none() && event.tags.iter().all(|tag| tag.tag.owner.is_none()) {
        event.owner = state.session_owner.clone().or_else(|| state.input_owner.clone());
    }
    if let Some(purpose) = &state.purpose {
        event.extras.entry("purpose").or_insert_with(|| Json::from(&**purpose));
    }
    if let Some(tenant) = &state.tenant {
        event.extras.entry("tenant").or_insert_with(|| Json::from(&**tenant));
    }
}

/// Adds what an attribute says of its place and its terms.
pub(crate) fn declare(event: &mut Event, site: &'static Site) {
    let terms = &site.terms;
    for (key, value) in [
        ("purpose", terms.purpose),
        ("basis", terms.basis),
        ("data_use", terms.data_use),
        ("subject", terms.subject),
    ] {
        if let Some(value) = value {
            event.extras.insert(key.into(), value.into());
        }
    }
    event.site = Some(site);
}

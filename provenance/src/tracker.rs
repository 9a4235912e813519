//! Ties registry, recorder and configuration together. An ordinary value; the global is one of them.

pub(crate) mod continued;
mod erasure;
mod keeping;
mod opening;
mod recording;
mod status;
mod values;

pub use erasure::{Erasure, Pruned, ToBeTold};
pub(crate) use recording::{Moment, complete, declare};
pub(crate) use status::BlindSpot;
pub(crate) use values::Observed;

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use dashmap::DashMap;
use once_cell::sync::OnceCell;

use self::continued::Home;
use crate::Error;
use crate::checkpoint::Checkpointer;
#[cfg(feature = "sql-fallback")]
use crate::columns::ColumnMap;
use crate::config::{Config, OnViolation};
use crate::detect::Entry;
use crate::erased::Erased;
use crate::error::ErrorKind;
use crate::fleet::Following;
use crate::hex::hex;
use crate::keeper::Keeper;
use crate::key::Keys;
use crate::memo::{Hashes, Memo, Seen};
use crate::policy;
use crate::recorder::Recorder;
use crate::registry::Registry;
use crate::repeats::Repeats;
use crate::site::EgressSite;
use crate::store::write::Instance;
use crate::ticket::{self, Ticket};
use crate::vocabulary::fingerprint::Fingerprinter;
use crate::vocabulary::owner::Owners;
use crate::vocabulary::tag::FieldSpec;
use crate::vocabulary::{Fingerprint, Owner, Tag};

/// Everything provenance knows in one process: configuration, registry, recorder.
///
/// [`init`](crate::init) makes the global one; tests make their own and put it in force with
/// [`test::scoped`](crate::test::scoped). Cheap to clone.
#[derive(Clone)]
pub struct Tracker(Arc<Inner>);

struct Inner {
    config: Config,
    fingerprinter: Fingerprinter,
    owners: Owners,
    keys: Keys,
    registry: Registry,
    recorder: Recorder,
    checkpointer: Option<Checkpointer>,
    /// The signing key that was made beside the database.
    signing_key: Option<PathBuf>,
    following: Following,
    /// As which the process began.
    instance: Instance,
    home: RwLock<Arc<Home>>,
    /// Attribute statics, resolved once; keyed by address.
    declared: DashMap<usize, Arc<FieldSpec>>,
    /// `input_fields`, by lower-case name.
    inputs: HashMap<String, Configured>,
    /// Those of `input_fields` that are headers and cookies.
    headers: Vec<Named>,
    cookies: Vec<Named>,
    blind_spots: DashMap<(BlindSpot, String), u64>,
    /// Findings that each rule of `suppress` left out.
    suppressed: Box<[AtomicU64]>,
    /// `#[egress]` functions by the address of their site: whether a client that a feature knows was
    /// seen there, or only others.
    transports: DashMap<usize, bool>,
    #[cfg(feature = "sql-fallback")]
    columns: Arc<ColumnMap>,
    /// Statements that read tracked columns without a model, by table.
    #[cfg(feature = "sql-fallback")]
    reads: DashMap<&'static str, u64>,
    open: AtomicBool,
    /// What [`Tracker::set_on_violation`] said: 0 nothing, else one of [`SWITCH`], from 1.
    on_violation: AtomicU8,
    hashes: Hashes,
    /// By kind and raw value; declared secrets are not among them.
    values: Memo<(Fingerprint, Arc<Entry>)>,
    /// By kind and raw value.
    people: Memo<Owner>,
    /// The tag that a value is registered under, by fingerprint, category, owner and generation.
    registered: Memo<Arc<Tag>>,
    /// Rows whose values are all registered.
    rows: Seen,
    repeats: Repeats,
    erased: Erased,
    /// Follows others' values and erasures and applies retentions; there once the tracker is.
    keeper: OnceCell<Keeper>,
}

/// What can be said while the program runs.
const SWITCH: [OnViolation; 2] = [OnViolation::Record, OnViolation::Block];

struct Configured {
    spec: Arc<FieldSpec>,
    owner_kind: Option<String>,
}

/// Where an input stands that is no parameter, and that is looked at only by its configured name.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    Header,
    Cookie,
}

/// A header or cookie in `input_fields`.
pub(crate) struct Named {
    /// As configured: `header:x-user-email`.
    pub(crate) key: String,
    /// As the client sends it: `x-user-email`.
    pub(crate) name: String,
}

static GLOBAL: OnceCell<Option<Tracker>> = OnceCell::new();

/// Whether a tracker was ever put in force for a part of the program: else nobody need look.
static OVERRIDDEN: AtomicBool = AtomicBool::new(false);

thread_local! {
    static OVERRIDE: RefCell<Option<Tracker>> = const { RefCell::new(None) };
}

/// Puts `tracker` in force on this thread; gives back what was.
pub(crate) fn replace_override(tracker: Option<Tracker>) -> Option<Tracker> {
    OVERRIDDEN.store(true, Ordering::Release);
    OVERRIDE
        .try_with(|slot| match slot.try_borrow_mut() {
            Ok(mut slot) => std::mem::replace(&mut *slot, tracker),
            Err(_) => None,
        })
        .ok()
        .flatten()
}

/// Runs `hook` with the tracker in force, if there is one and it is open.
pub(crate) fn with<R>(hook: impl FnOnce(&Tracker) -> R) -> Option<R> {
    let scoped = match OVERRIDDEN.load(Ordering::Acquire) {
        true => OVERRIDE.try_with(|slot| slot.try_borrow().ok().and_then(|slot| slot.clone())),
        false => Ok(None),
    };
    match scoped.ok().flatten() {
        Some(tracker) => tracker.attempt(hook),
        None => GLOBAL.get()?.as_ref()?.attempt(hook),
    }
}

/// Makes `config` the global tracker's. `Ok(None)` with `enabled: false`.
pub(crate) fn install(config: Config) -> Result<Option<Tracker>, Error> {
    let mut ours = false;
    let tracker = GLOBAL.get_or_try_init(|| {
        ours = true;
        config.enabled.then(|| Tracker::open(config)).transpose()
    })?;
    if !ours {
        return Err(Error::new(
            ErrorKind::AlreadyInitialised,
            "provenance is initialised already in this process; the first tracker stays. \
             Call init() once, in main, and keep its guard",
        ));
    }
    Ok(tracker.clone())
}

/// Whether there is a global tracker that is open, and not a forked process's.
pub(crate) fn is_global_alive() -> bool {
    let global = GLOBAL.get().and_then(Option::as_ref);
    global.is_some_and(|tracker| tracker.is_open() && tracker.0.recorder.is_ours())
}

/// Puts on disk what the global tracker has, as far as that is done in time.
pub(crate) fn flush_global(patience: Duration) {
    if let Some(tracker) = GLOBAL.get().and_then(Option::as_ref) {
        tracker.attempt(|tracker| {
            tracker.tell_repeats();
            tracker.flush(patience)
        });
    }
}

impl std::fmt::Debug for Tracker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracker")
            .field("instance", &self.instance_id())
            .finish_non_exhaustive()
    }
}

impl Tracker {
    /// Derivations that were recorded, and what repeats them.
    pub(crate) fn repeats(&self) -> &Repeats {
        &self.0.repeats
    }

    fn tell_repeats(&self) {
        for event in self.0.repeats.all() {
            self.record_of(event, &Moment::nobodys());
        }
    }

    /// Runs `hook`, unless this is closed. Hooks call code of the host's (`Display`, `Serialize`,
    /// `Tracked`), some of them while a panic unwinds already: if it panics, the host goes on as
    /// without us, and it is counted.
    pub(crate) fn attempt<R>(&self, hook: impl FnOnce(&Tracker) -> R) -> Option<R> {
        if !self.is_open() {
            return None;
        }
        self.guarded(hook)
    }

    pub(crate) fn guarded<R>(&self, hook: impl FnOnce(&Tracker) -> R) -> Option<R> {
        match std::panic::catch_unwind(AssertUnwindSafe(|| hook(self))) {
            Ok(result) => Some(result),
            Err(panic) => {
                // What a panic carries may panic when it is dropped.
                std::mem::forget(panic);
                self.blind_spot(BlindSpot::HookPanicked, "hook");
                None
            }
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.open.load(Ordering::Acquire)
    }

    /// Waits until everything recorded so far is on disk: in the database, or in the spill file.
    ///
    /// # Errors
    /// [`Error::is_evidence`] after `timeout`; the writer goes on trying.
    pub fn flush(&self, timeout: Duration) -> Result<(), Error> {
        self.work_off();
        self.0.recorder.flush(timeout)
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Puts `on_violation` in force for every recipient, over whatever the configuration says, until
    /// `None` gives the word back to it. For incidents: `Some(OnViolation::Block)` keeps in what
    /// the attributes do not allow, from the next request on. Shown on `/status`.
    pub fn set_on_violation(&self, on_violation: Option<OnViolation>) {
        let switch = SWITCH.iter().zip(1..).find(|(known, _)| Some(**known) == on_violation);
        self.0
            .on_violation
            .store(switch.map_or(0, |(_, number)| number), Ordering::Release);
    }

    /// What [`Tracker::set_on_violation`] put in force.
    fn switched(&self) -> Option<OnViolation> {
        let number = usize::from(self.0.on_violation.load(Ordering::Acquire));
        SWITCH.get(number.checked_sub(1)?).copied()
    }

    /// What a violation does at this recipient.
    pub(crate) fn on_violation(&self, recipient: &str) -> OnViolation {
        self.switched()
            .unwrap_or_else(|| policy::on_violation(self.config(), recipient))
    }

    /// With everything that was committed and taken in so far.
    pub(crate) fn registry(&self) -> &Registry {
        self.work_off();
        &self.0.registry
    }

    /// The random id of this process's instance: 16 hex digits, the first part of its event ids.
    pub fn instance_id(&self) -> String {
        hex(&ticket::instance(self.0.instance.id, self.home().generation))
    }

    /// The id of an event that is in the database.
    pub(crate) fn event_id(&self, ticket: &Ticket) -> Option<String> {
        let (generation, seq) = ticket::parts(ticket.place()?);
        Some(format!(
            "{}-{seq}",
            hex(&ticket::instance(self.0.instance.id, generation))
        ))
    }

    fn home(&self) -> Arc<Home> {
        self.0.home.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Which columns of the database hold personal data.
    #[cfg(feature = "sql-fallback")]
    pub(crate) fn columns(&self) -> &Arc<ColumnMap> {
        &self.0.columns
    }

    /// A statement read tracked columns of `table`, and no model took its rows.
    #[cfg(feature = "sql-fallback")]
    pub(crate) fn read_without_model(&self, table: &'static str) {
        *self.0.reads.entry(table).or_insert(0) += 1;
    }

    /// A client that a feature knows sends at this site.
    pub(crate) fn has_client(&self, site: &'static EgressSite) {
        self.0.transports.insert(std::ptr::from_ref(site) as usize, true);
    }

    /// What sends at this site is no client that a feature knows, as far as was seen.
    pub(crate) fn has_others(&self, site: &'static EgressSite) {
        self.0
            .transports
            .entry(std::ptr::from_ref(site) as usize)
            .or_insert(false);
    }

    /// Whether only clients that no feature knows were seen at this site.
    pub(crate) fn sends_by_others(&self, site: &'static EgressSite) -> bool {
        let known = self.0.transports.get(&(std::ptr::from_ref(site) as usize));
        known.is_some_and(|client| !*client)
    }

    /// The headers or cookies that `input_fields` names.
    pub(crate) fn inputs_in(&self, place: Place) -> &[Named] {
        match place {
            Place::Header => &self.0.headers,
            Place::Cookie => &self.0.cookies,
        }
    }
}

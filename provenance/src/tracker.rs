//! Ties registry, recorder and configuration together. An ordinary value; the global is one of them.

mod continued;
mod erasure;
mod keeping;

pub use erasure::{Erasure, Pruned, ToBeTold};

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use dashmap::DashMap;
use once_cell::sync::OnceCell;
use serde_json::{Value as Json, json};
use sha2::Digest;

use self::continued::Home;
use crate::Error;
use crate::checkpoint::{Checkpointer, Plan};
#[cfg(feature = "sql-fallback")]
use crate::columns::ColumnMap;
use crate::config::{COOKIE, Config, HEADER, OnViolation, Storage, Unregistered};
use crate::continued as files;
use crate::deferred::{self, Series};
use crate::detect::{Detector, Entry, Hit, Limits, Media, Message, Part};
use crate::erased::Erased;
use crate::error::ErrorKind;
use crate::fleet::Following;
use crate::hex::hex;
use crate::keeper::Keeper;
use crate::key::{Keys, Origin};
use crate::memo::{Hashes, Key, Memo, RowKey, Seen};
use crate::policy;
use crate::recorder::{Recorder, Written};
use crate::registry::Registry;
use crate::repeats::Repeats;
use crate::scope::Scope;
use crate::site::{EgressSite, Site};
use crate::spill::Spill;
use crate::store::erase::Eraser;
use crate::store::follow::Follower;
use crate::store::write::{self, Instance, Record};
use crate::store::{self, Writer};
use crate::telemetry::{self, Told};
use crate::ticket::{self, Ticket};
use crate::tracked::{Field, Value};
use crate::vocabulary::canonical::canonical;
use crate::vocabulary::fingerprint::Fingerprinter;
use crate::vocabulary::owner::Owners;
use crate::vocabulary::tag::FieldSpec;
use crate::vocabulary::{Event, EventTag, Fingerprint, Kind, Late, Outcome, Owner, Tag, Timestamp, category};

/// How long a durable record may take before `egress.on_evidence_failure` applies.
/// The spill file takes it where the database did not for one second.
const EVIDENCE_PATIENCE: Duration = Duration::from_secs(2);
/// How long closing waits for the queue.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
/// Most distinct blind spots that are listed; more are counted under one heading.
const MAX_BLIND_SPOTS: usize = 1024;

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

/// What a key of a memo is made for.
#[derive(Clone, Copy)]
enum Use {
    Value,
    Owner,
    Tag,
    Derivation,
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

fn named(config: &Config, prefix: &str) -> Vec<Named> {
    let named = |key: &String| {
        Some(Named {
            key: key.clone(),
            name: key.strip_prefix(prefix)?.to_owned(),
        })
    };
    config.input_fields.keys().filter_map(named).collect()
}

/// What a hook could not see, or could not do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum BlindSpot {
    /// An argument or a part of it that cannot be visited.
    UnvisitedInput,
    /// An input above a cap (size, number, depth) or not decodable.
    CappedInput,
    /// A body that was not scanned, or not to its end.
    UnscannedBody,
    /// A model in the config that no attribute serves.
    ModelWithoutHook,
    /// A write around a model, to a table of one, of which the SQL text does not tell the values.
    BypassedModel,
    /// A tracked value bound on a connection that our instrumentation does not see.
    UninstrumentedConnection,
    /// An `#[egress]` function in which no call was seen.
    EgressWithoutCall,
    /// A client followed redirects and does not tell where to.
    UnseenRedirect,
    /// A share whose record was not on disk in time.
    EvidenceFailure,
    /// A row whose identifiers belong to two people: they were not linked.
    OwnerConflict,
    /// A hook that panicked, as code of the host's that it called (`Display`, `Serialize`, ..) may.
    HookPanicked,
    /// The evidence file was removed, replaced or damaged: evidence goes on in another one.
    EvidenceLost,
    /// Data of a person who was erased is still there: once a person, place and day.
    ErasedPersonMet,
}

impl BlindSpot {
    fn as_str(self) -> &'static str {
        match self {
            BlindSpot::UnvisitedInput => "unvisited_input",
            BlindSpot::CappedInput => "capped_input",
            BlindSpot::UnscannedBody => "unscanned_body",
            BlindSpot::ModelWithoutHook => "model_without_hook",
            BlindSpot::BypassedModel => "bypassed_model",
            BlindSpot::UninstrumentedConnection => "uninstrumented_connection",
            BlindSpot::EgressWithoutCall => "egress_without_call",
            BlindSpot::UnseenRedirect => "unseen_redirect",
            BlindSpot::EvidenceFailure => "evidence_failure",
            BlindSpot::OwnerConflict => "owner_conflict",
            BlindSpot::HookPanicked => "hook_panicked",
            BlindSpot::EvidenceLost => "evidence_lost",
            BlindSpot::ErasedPersonMet => "erased_person_met",
        }
    }
}

/// A value as a hook met it: pseudonyms and shape, no raw value.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    pub(crate) spec: Arc<FieldSpec>,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) entry: Arc<Entry>,
    /// `string`, `integer`, `number`, `boolean`.
    pub(crate) json_type: &'static str,
    /// Characters, for text that is no secret.
    pub(crate) length: Option<usize>,
}

impl Observed {
    /// The tag that this site gives the value, whether it is registered or not.
    pub(crate) fn tag(&self, owner: Option<&Owner>, source: &Arc<str>, at: Timestamp) -> Tag {
        let spec = &self.spec;
        Tag {
            fingerprint: (!spec.secret).then_some(self.fingerprint),
            category: spec.category.clone(),
            field: spec.name.clone(),
            description: spec.description.clone(),
            owner: owner.cloned(),
            source: source.clone(),
            pii: spec.pii,
            created_at: at,
        }
    }
}

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

/// What the names of spill files begin with: beside an SQLite file; of PostgreSQL, or in a folder that is named, with
/// a hash of where the evidence is, so that nobody brings them into another place.
///
/// # Errors
/// The folder cannot be written: told now rather than when it is needed.
fn spill_base(config: &Config, instance: [u8; 8]) -> Result<PathBuf, Error> {
    let (name, place) = match (&config.storage, &config.spill_folder) {
        (Storage::Sqlite(path), None) => return Ok(files::first(path)),
        (Storage::Sqlite(path), Some(_)) => {
            let first = files::first(path);
            let name = first.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, first.display().to_string())
        }
        (Storage::Postgres(_), _) => ("runtime_provenance".to_owned(), config.storage.to_string()),
    };
    let [a, b, c, d, ..]: [u8; 32] = sha2::Sha256::digest(place).into();
    let folder = config.spill_folder.clone().unwrap_or_default();
    let name = format!("{name}-{a:02x}{b:02x}{c:02x}{d:02x}");
    let (base, probe) = (
        folder.join(&name),
        folder.join(format!("{name}.{:016x}.probe", u64::from_be_bytes(instance))),
    );
    let written = config.spill_max_bytes == 0
        || std::fs::write(&probe, [])
            .and_then(|()| std::fs::remove_file(&probe))
            .is_ok();
    if written {
        return Ok(base);
    }
    Err(Error::new(
        ErrorKind::Config,
        format!(
            "{}: the spill file, which takes records while the database does not, cannot be made in this folder; give \
             another one (`spill.folder`), or none (`spill.max_bytes: 0`)",
            std::path::absolute(&folder).unwrap_or(folder).display()
        ),
    ))
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
    /// Opens the store that `config` names, or the file beside it that its evidence goes on in, and starts the writer.
    ///
    /// # Errors
    /// [`Error::is_config`], [`Error::is_key`] and [`Error::is_store`], each with the way out.
    pub fn open(config: Config) -> Result<Self, Error> {
        let storage = files::in_force(&config.storage);
        if storage != config.storage {
            eprintln!(
                "provenance: warning: {} was lost while it was written: evidence goes on in {storage}",
                config.storage
            );
        }
        Self::open_at(Config { storage, ..config })
    }

    /// As [`Tracker::open`], with this very file, though it was gone on in another one: for commands.
    ///
    /// # Errors
    /// As [`Tracker::open`].
    #[doc(hidden)]
    pub fn open_at(config: Config) -> Result<Self, Error> {
        let keys = Keys::load(&config, store::is_empty(&config.storage)?)?;
        let checkpoints = Plan::of(&config)?;
        let mut id = [0; 8];
        getrandom::fill(&mut id)
            .map_err(|_| Error::new(ErrorKind::Store, "the system gives no random bytes for an instance id"))?;
        let instance = Instance {
            id,
            service: config.service.clone(),
            environment: config.environment.clone(),
            build: crate::inventory::build_hash(),
        };
        let spilled = spill_base(&config, instance.id)?;
        let mut writer = Writer::open(&config.storage, &keys, &instance)?;
        let mut spill = Spill::new(&spilled, instance.id, config.spill_max_bytes)?;
        if files::in_force(&config.storage) == config.storage {
            spill.find_left();
        }
        // Before anything new, and before the values that it holds are asked for.
        let held = spill.bring_in(&mut writer);
        // What others store while this one reads is seen twice rather than never.
        let follower = match config.follow_interval.is_zero() {
            true => None,
            false => Some(Follower::new(&config.storage, writer.learns())?),
        };
        let restored = writer.restore(config.max_values)?;
        let mut eraser = Eraser::open(&config.storage)?;
        let erased = Erased::new(&keys);
        let mut version = 0;
        for change in eraser.changes(0)? {
            version = change.version;
            if !change.is_lifted {
                erased.add(change.person, change.erasure);
            }
        }

        let shapes = config.egress.unregistered != Unregistered::Ignore;
        let registry = Registry::new(Detector::new(&keys.detection).with_shapes(shapes), config.max_values);
        continued::take_in(&registry, &erased, !keys.earlier.is_empty(), restored);
        let inputs = config
            .input_fields
            .iter()
            .map(|(name, field)| {
                let bare = name
                    .strip_prefix(HEADER)
                    .or_else(|| name.strip_prefix(COOKIE))
                    .unwrap_or(name);
                let spec = FieldSpec {
                    name: bare.into(),
                    category: field.category.as_str().into(),
                    description: field.description.as_str().into(),
                    kind: field.kind.unwrap_or_else(|| category::default_kind(&field.category)),
                    pii: field.pii,
                    secret: field
                        .secret
                        .unwrap_or_else(|| category::is_secret(&field.category, bare)),
                };
                (
                    name.clone(),
                    Configured {
                        spec: Arc::new(spec),
                        owner_kind: field.owner.clone(),
                    },
                )
            })
            .collect();
        let home = Home::first(config.storage.clone(), &writer);
        let recorder = Recorder::start_with(writer, spill, held)?;
        let signing_key = checkpoints.as_ref().and_then(Plan::key_beside).map(Path::to_path_buf);
        let checkpointer = checkpoints.map(|plan| plan.start(recorder.heads())).transpose()?;
        let inner = Arc::new(Inner {
            fingerprinter: Fingerprinter::of(&config, &keys),
            owners: Owners::of(&config, &keys),
            keys,
            registry,
            recorder,
            checkpointer,
            signing_key,
            following: Following::default(),
            instance,
            home: RwLock::new(Arc::new(home)),
            declared: DashMap::new(),
            inputs,
            headers: named(&config, HEADER),
            cookies: named(&config, COOKIE),
            blind_spots: DashMap::new(),
            suppressed: config.suppress.iter().map(|_| AtomicU64::new(0)).collect(),
            transports: DashMap::new(),
            #[cfg(feature = "sql-fallback")]
            columns: Arc::new(ColumnMap::new(&config, &crate::inventory::inventory())),
            #[cfg(feature = "sql-fallback")]
            reads: DashMap::new(),
            open: AtomicBool::new(true),
            on_violation: AtomicU8::new(0),
            hashes: Hashes::new(),
            values: Memo::new(),
            people: Memo::new(),
            registered: Memo::new(),
            rows: Seen::new(),
            repeats: Repeats::default(),
            erased,
            keeper: OnceCell::new(),
            config,
        });
        let tracker = Tracker(inner);
        if matches!(tracker.config().storage, Storage::Sqlite(_)) {
            let inner = Arc::downgrade(&tracker.0);
            tracker.0.recorder.renew_with(Box::new(move |generation, why| {
                let inner = inner
                    .upgrade()
                    .ok_or_else(|| Error::new(ErrorKind::Store, "recording has ended"))?;
                Tracker(inner).renew(generation, why)
            }));
        }
        tracker.keep(eraser, version, follower);
        Ok(tracker)
    }

    /// Flushes and stops; from now on every hook that meets this tracker is a no-op.
    pub fn close(&self) {
        self.work_off();
        if self.is_open() {
            self.tell_repeats();
        }
        if self.0.open.swap(false, Ordering::AcqRel) {
            if let Some(keeper) = self.0.keeper.get() {
                keeper.stop();
            }
            // Of hooks that had begun.
            self.work_off();
            self.0.recorder.stop(CLOSE_PATIENCE);
            if let Some(checkpointer) = &self.0.checkpointer {
                checkpointer.stop();
            }
        }
    }

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

    fn egress_status(&self) -> Json {
        let egress = self.config().egress;
        json!({
            "on_violation": self.switched().unwrap_or(egress.on_violation).as_str(),
            "switched": self.switched().is_some(),
            "read_ahead": egress.read_ahead,
            "streams": egress.streams.as_str(),
        })
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

    /// What `/status` shows of the running process: registry, queue, key, blind spots.
    pub fn status(&self) -> serde_json::Map<String, Json> {
        self.work_off();
        let inner = &self.0;
        let (evicted, expired) = inner.registry.losses();
        let mut blind_spots: Vec<_> = inner
            .blind_spots
            .iter()
            .map(|spot| (spot.key().0.as_str(), spot.key().1.clone(), *spot.value()))
            .collect();
        blind_spots.sort();
        let mut notes = Vec::new();
        if let Origin::Created(path) = &inner.keys.origin {
            let name = path
                .file_name()
                .map(|n| n.to_string_lossy().into_owned())
                .unwrap_or_default();
            notes.push(format!(
                "the master key was created beside the database ({name}): it protects copies of the database \
                 alone; for more, give RUNTIME_TRACKING_KEY"
            ));
            if !path.exists() {
                notes.push(format!(
                    "the master key's file ({name}) is gone: put it back before this process ends, or no service will \
                     start on this evidence"
                ));
            }
        }
        if let Some(path) = &inner.signing_key {
            let name = path.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
            notes.push(format!(
                "the key that signs checkpoints lies beside the database ({name}): whoever controls this machine can \
                 sign too, but not replace what was written elsewhere before; for more, set checkpoints.key_file"
            ));
        }
        let home = self.home();
        if let Storage::Sqlite(path) = &home.storage
            && files::first(path) != *path
        {
            let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            notes.push(format!(
                "evidence goes on in {}, as what was written before was removed, replaced or damaged while it was \
                 written: {} and what else stands beside it is left as it is",
                name(path),
                name(&files::first(path))
            ));
        }
        let status = json!({
            "registry_size": inner.registry.len(),
            "registry": { "values": inner.registry.len(), "max_values": inner.config.max_values, "evicted": evicted, "expired": expired },
            "queue": inner.recorder.status(),
            "following": (!inner.config.follow_interval.is_zero()).then(|| inner.following.status()),
            "continued": home.continued,
            "egress": self.egress_status(),
            "recipients": inner.config.recipients.iter().map(|(name, recipient)| (name.as_str(), recipient.status())).collect::<HashMap<_, _>>(),
            "suppress": self.suppress_status(),
            "instance": self.instance_id(),
            "service": inner.instance.service,
            "environment": inner.instance.environment,
            "build": inner.instance.build,
            "taxonomy": crate::inventory::TAXONOMY,
            "key_id": inner.keys.id,
            "key_epoch": inner.config.key_epoch,
            "checkpoints": inner.checkpointer.as_ref().map(Checkpointer::status),
            "notes": notes,
            "blind_spots": blind_spots.into_iter().map(|(kind, site, count)| json!({ "kind": kind, "site": site, "count": count })).collect::<Vec<_>>(),
        });
        #[cfg_attr(not(feature = "sql-fallback"), allow(unused_mut))]
        let mut status = match status {
            Json::Object(map) => map,
            _ => serde_json::Map::new(),
        };
        #[cfg(feature = "sql-fallback")]
        {
            let reads = inner
                .reads
                .iter()
                .map(|of| ((*of.key()).to_owned(), Json::from(*of.value())));
            status.insert("reads_without_model".into(), Json::Object(reads.collect()));
        }
        status
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

    /// A rule of `suppress`, by its place among them, left a finding out.
    pub(crate) fn suppressed(&self, rule: usize) {
        if let Some(count) = self.0.suppressed.get(rule) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn suppress_status(&self) -> Vec<Json> {
        let now = Timestamp::now();
        let rules = self.config().suppress.iter().zip(&self.0.suppressed);
        rules
            .map(|(rule, count)| rule.status(now, count.load(Ordering::Relaxed)))
            .collect()
    }

    pub(crate) fn blind_spot(&self, kind: BlindSpot, site: &str) {
        let spots = &self.0.blind_spots;
        let listed = spots.len() < MAX_BLIND_SPOTS;
        let key = (kind, if listed { site.to_owned() } else { "(others)".to_owned() });
        *spots.entry(key).or_insert(0) += 1;
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

    /// What an attribute's static declares, resolved once.
    pub(crate) fn spec(&self, field: &'static Field) -> Arc<FieldSpec> {
        let address = std::ptr::from_ref(field) as usize;
        if let Some(spec) = self.0.declared.get(&address) {
            return spec.clone();
        }
        let spec = Arc::new(FieldSpec {
            name: field.name.into(),
            category: field.category.into(),
            description: field.description.into(),
            kind: field
                .kind
                .and_then(Kind::parse)
                .unwrap_or_else(|| category::default_kind(field.category)),
            pii: field.pii.unwrap_or(true),
            secret: field
                .secret
                .unwrap_or_else(|| category::is_secret(field.category, field.name)),
        });
        self.0.declared.insert(address, spec.clone());
        spec
    }

    /// What `input_fields` says of a parameter, with the owner kind it identifies, if any.
    pub(crate) fn input_spec(&self, name: &str) -> Option<(Arc<FieldSpec>, Option<&str>)> {
        let found = match self.0.inputs.get(name) {
            Some(found) => found,
            None => self.0.inputs.get(&name.to_lowercase())?,
        };
        Some((found.spec.clone(), found.owner_kind.as_deref()))
    }

    /// The headers or cookies that `input_fields` names.
    pub(crate) fn inputs_in(&self, place: Place) -> &[Named] {
        match place {
            Place::Header => &self.0.headers,
            Place::Cookie => &self.0.cookies,
        }
    }

    /// Pseudonyms and shape of a value; `None` where there is nothing to keep (empty, NaN).
    pub(crate) fn observe(&self, spec: &Arc<FieldSpec>, value: Value<'_>) -> Option<Observed> {
        let (fingerprint, entry) = match spec.secret {
            true => self.pseudonyms(spec.kind, value)?,
            false => self.known_pseudonyms(spec.kind, value)?,
        };
        let (json_type, length) = match value {
            Value::Text(text) if !spec.secret => ("string", Some(text.chars().count())),
            Value::Text(_) => ("string", None),
            Value::Integer(_) => ("integer", None),
            Value::Float(_) => ("number", None),
            Value::Bool(_) => ("boolean", None),
        };
        Some(Observed {
            spec: spec.clone(),
            fingerprint,
            entry,
            json_type,
            length,
        })
    }

    /// The fingerprint of a value that is no secret.
    pub(crate) fn fingerprint(&self, kind: Kind, value: Value<'_>) -> Option<Fingerprint> {
        self.known_pseudonyms(kind, value).map(|(fingerprint, _)| fingerprint)
    }

    fn known_pseudonyms(&self, kind: Kind, value: Value<'_>) -> Option<(Fingerprint, Arc<Entry>)> {
        let mut key = self.0.hashes.begin(Use::Value as u8);
        key.number(kind as u64);
        key.value(value);
        let key = key.end();
        if let Some(known) = self.0.values.get(key) {
            return Some(known);
        }
        let made = self.pseudonyms(kind, value)?;
        self.0.values.keep(key, made.clone());
        Some(made)
    }

    fn pseudonyms(&self, kind: Kind, value: Value<'_>) -> Option<(Fingerprint, Arc<Entry>)> {
        let canonical = zeroize::Zeroizing::new(canonical(kind, value)?);
        let fingerprint = self.0.fingerprinter.fingerprint(canonical.as_bytes());
        for earlier in self.0.fingerprinter.earlier(canonical.as_bytes()) {
            self.rename(earlier, fingerprint);
        }
        Some((
            fingerprint,
            Arc::new(self.0.registry.detector().entry(kind, &canonical)),
        ))
    }

    /// A value that was registered under an earlier epoch was met again.
    fn rename(&self, earlier: Fingerprint, fingerprint: Fingerprint) {
        for (entry, tag) in self.0.registry.rename(earlier, fingerprint) {
            // To the store it is new: a restart takes the newest one for the value's fingerprint.
            let tag = Tag {
                created_at: Timestamp::now(),
                ..(*tag).clone()
            };
            self.0.recorder.send(Record::Value(Box::new(write::Value {
                fingerprint,
                kind: entry.kind(),
                entry,
                tag: Arc::new(tag),
            })));
        }
    }

    /// The owner with this identifier.
    pub(crate) fn owner(&self, kind: &str, value: Value<'_>) -> Option<Owner> {
        let mut key = self.0.hashes.begin(Use::Owner as u8);
        key.text(kind);
        key.value(value);
        let key = key.end();
        if let Some(known) = self.0.people.get(key) {
            return Some(known);
        }
        let owner = self.0.owners.identified(kind, value)?;
        self.0.people.keep(key, owner.clone());
        Some(owner)
    }

    /// Begins the key of a loaded row. What is known of rows ends when the registry forgets.
    pub(crate) fn row_key(&self) -> RowKey<'_> {
        let mut key = self.0.hashes.row();
        key.number(self.0.registry.generation());
        key
    }

    /// Begins the key of a derivation.
    pub(crate) fn derivation_key(&self) -> Key {
        self.0.hashes.begin(Use::Derivation as u8)
    }

    pub(crate) fn knows_row(&self, key: u64) -> bool {
        self.0.rows.has(key)
    }

    /// Every value of this row is registered.
    pub(crate) fn note_row(&self, key: u64) {
        self.0.rows.note(key);
    }

    /// What is registered in a text: one hit, a telling one if there is one.
    pub(crate) fn hits(&self, text: &str, media: Media) -> Vec<Hit> {
        let message = Message {
            parts: vec![Part {
                place: String::new(),
                bytes: text.as_bytes(),
                media,
            }],
        };
        let limits = Limits {
            hits: 1,
            ..Limits::default()
        };
        self.registry().detector().scan(&message, limits).hits
    }

    /// Whether a text that is about to be kept as it is holds a value that says somebody by itself.
    pub(crate) fn tells(&self, text: &str) -> bool {
        self.hits(text, Media::Text).iter().any(|hit| !hit.weak)
    }

    /// Registers a value and gives its tag for an event: category, field and description as
    /// this site has them, source and time as first seen. `confirmed`: by a commit or a load.
    pub(crate) fn register(
        &self,
        observed: &Observed,
        owner: Option<&Owner>,
        source: &Arc<str>,
        confirmed: bool,
        at: Timestamp,
    ) -> EventTag {
        let mut tag = observed.tag(owner, source, at);
        let registered = self.registered(observed, &tag, confirmed);
        if tag.owner.is_some() && registered.owner.is_none() {
            // Of somebody who was erased.
            tag.owner = None;
            tag.fingerprint = None;
        }
        tag.source = registered.source.clone();
        tag.created_at = registered.created_at;
        EventTag {
            tag,
            detail: serde_json::Map::new(),
        }
    }

    /// Registers a value, and gives the tag that it was first seen under.
    fn registered(&self, observed: &Observed, tag: &Tag, confirmed: bool) -> Arc<Tag> {
        if let Some(nobodys) = self.refused(tag) {
            return Arc::new(nobodys);
        }
        let spec = &observed.spec;
        let mut key = self.0.hashes.begin(Use::Tag as u8);
        key.number(self.0.registry.generation());
        key.slice(&observed.fingerprint.0);
        key.number(u64::from(confirmed) << 8 | spec.kind as u64);
        key.text(&spec.category);
        key.text(tag.owner.as_ref().map_or("", Owner::as_str));
        let key = key.end();
        if let Some(known) = self.0.registered.get(key) {
            return known;
        }
        let registered = self
            .0
            .registry
            .register(observed.fingerprint, &observed.entry, tag.clone(), confirmed);
        if registered.fresh && !spec.secret {
            self.0.recorder.send(Record::Value(Box::new(write::Value {
                fingerprint: observed.fingerprint,
                kind: spec.kind,
                entry: (*observed.entry).clone(),
                tag: registered.tag.clone(),
            })));
        }
        self.0.registered.keep(key, registered.tag.clone());
        registered.tag
    }

    /// Two identifiers are of one person, on the host's word.
    pub(crate) fn link(&self, a: &Owner, b: &Owner) {
        if self.are_erased(a, b) {
            return;
        }
        if self.registry().link(a, b) {
            self.0.recorder.send(Record::Link(a.clone(), b.clone()));
        }
    }

    /// Two identifiers stand in one row of the database; `false` if they are known to be two people's.
    pub(crate) fn link_by_row(&self, a: &Owner, b: &Owner) -> bool {
        if self.are_erased(a, b) {
            return true;
        }
        let linked = self.registry().link_by_row(a, b);
        if linked == Ok(true) {
            self.0.recorder.send(Record::Link(a.clone(), b.clone()));
        }
        linked.is_ok()
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

    fn told(&self, event: &Event) -> Option<Told> {
        let told = Told::of(event);
        if told.is_err() {
            self.blind_spot(BlindSpot::HookPanicked, "tracing subscriber");
        }
        told.ok().flatten()
    }

    /// Tells the host's log of an event that was recorded, whatever became of it: by its id, if it has one yet.
    fn tell(&self, told: Option<Told>, ticket: &Ticket) {
        let Some(told) = told else { return };
        if told.tell(self.event_id(ticket)).is_err() {
            self.blind_spot(BlindSpot::HookPanicked, "tracing subscriber");
        }
    }

    /// Records an event and waits until it is on disk.
    ///
    /// # Errors
    /// [`Error::is_evidence`] after two seconds, or when it could be put neither into the database nor into the
    /// spill file; counted as a blind spot.
    pub(crate) fn record_durable(&self, mut event: Event) -> Result<Ticket, (Ticket, Error)> {
        self.work_off();
        complete(&mut event);
        self.without_erased(&mut event);
        let told = self.told(&event);
        let ticket = Ticket::default();
        let record = Record::Event(Box::new(event), ticket.clone());
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
    pub(crate) fn start_durable(&self, mut event: Event) -> (Ticket, Written) {
        self.work_off();
        complete(&mut event);
        self.without_erased(&mut event);
        let told = self.told(&event);
        let ticket = Ticket::default();
        let record = Record::Event(Box::new(event), ticket.clone());
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

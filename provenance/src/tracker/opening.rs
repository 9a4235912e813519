//! Opens a tracker on its store, and closes it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use dashmap::DashMap;
use once_cell::sync::OnceCell;
use sha2::Digest;

use super::continued::{self, Home};
use super::{Configured, Inner, Named, Tracker};
use crate::Error;
use crate::checkpoint::Plan;
#[cfg(feature = "sql-fallback")]
use crate::columns::ColumnMap;
use crate::config::{COOKIE, Config, HEADER, MOST_VALUES, Storage, Unregistered};
use crate::continued as files;
use crate::detect::Detector;
use crate::erased::Erased;
use crate::error::ErrorKind;
use crate::fleet::Following;
use crate::key::Keys;
use crate::memo::{Hashes, Memo, Seen};
use crate::recorder::Recorder;
use crate::registry::Registry;
use crate::repeats::Repeats;
use crate::spill::Spill;
use crate::store::erase::Eraser;
use crate::store::follow::Follower;
use crate::store::write::Instance;
use crate::store::{self, Writer};
use crate::vocabulary::category;
use crate::vocabulary::fingerprint::Fingerprinter;
use crate::vocabulary::owner::Owners;
use crate::vocabulary::tag::FieldSpec;

/// How long closing waits for the queue.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// Those of `input_fields` whose names begin like this.
fn named(config: &Config, prefix: &str) -> Vec<Named> {
    let named = |key: &String| {
        Some(Named {
            key: key.clone(),
            name: key.strip_prefix(prefix)?.to_owned(),
        })
    };
    config.input_fields.keys().filter_map(named).collect()
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
        let config = Config {
            max_values: config.max_values.clamp(1, MOST_VALUES),
            ..config
        };
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
        let values = continued::values(&erased, !keys.earlier.is_empty(), restored.values);
        let detector = Detector::new(&keys.detection).with_shapes(shapes);
        let registry = Registry::holding(detector, config.max_values, values);
        for (a, b) in &restored.links {
            registry.link(a, b);
        }
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
}

//! The file that takes what the database does not, until it does again.
//!
//! Each process has one of its own beside the database, `<database>.<instance>.spill`, made when it is
//! needed and removed when all of it is in the database. Its owner holds a lock on it: a file without a
//! holder was left by a process that is gone, and whoever starts next brings it in.

mod form;
mod frame;

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, ErrorKind as Io, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value as Json;

use self::form::{Form, Numbered, Of};
use self::frame::{Found, Frames, HEAD, Head};
use crate::Error;
use crate::continued::folder;
use crate::error::ErrorKind;
use crate::hex::hex;
use crate::store::Writer;
use crate::store::write::{Record, SpillMark};
use crate::ticket::{self, Ticket};
use crate::vocabulary::{Event, EventType, Late, Outcome, Timestamp};

/// Most records that are brought in by one commit, and most bytes of their frames.
const MOST: usize = 2048;
const MOST_BYTES: u64 = 8 << 20;
const ENDING: &str = ".spill";
/// Most files left aside that are named.
const NAMED: usize = 16;

/// What `/status` shows.
#[derive(Default)]
pub(crate) struct Tally {
    spilled: AtomicU64,
    bytes: AtomicU64,
    replayed: AtomicU64,
    passed_over: AtomicU64,
    aside: Mutex<Vec<String>>,
}

/// Counts for `/status`.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub(crate) struct SpillStatus {
    /// Records that went to the spill file first.
    pub(crate) spilled: u64,
    /// Bytes of this process's spill file.
    pub(crate) spill_bytes: u64,
    /// Records brought into the database from spill files, those of processes that are gone included.
    pub(crate) replayed: u64,
    /// Bytes of damaged spill files that held no whole record.
    pub(crate) spill_passed_over: u64,
    /// Names of spill files that were left beside the database, damaged or of a newer version.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) spill_aside: Vec<String>,
}

impl Tally {
    /// Does not wait: in a forked child nobody would ever give a lock back.
    pub(crate) fn status(&self) -> SpillStatus {
        SpillStatus {
            spilled: self.spilled.load(Ordering::Relaxed),
            spill_bytes: self.bytes.load(Ordering::Relaxed),
            replayed: self.replayed.load(Ordering::Relaxed),
            spill_passed_over: self.passed_over.load(Ordering::Relaxed),
            spill_aside: self.aside.try_lock().map(|names| names.clone()).unwrap_or_default(),
        }
    }

    fn left_aside(&self, path: &Path) {
        let mut names = self.aside.lock().unwrap_or_else(PoisonError::into_inner);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if names.len() < NAMED && !names.contains(&name) {
            names.push(name);
        }
    }
}

/// Spill files that hold something: those of processes that are gone, then this one's.
pub(crate) struct Spill {
    database: PathBuf,
    head: Head,
    /// Most bytes of this process's file; 0 for none at all.
    most: u64,
    left: VecDeque<Source>,
    own: Option<Source>,
    tally: Arc<Tally>,
}

/// Records to be appended together, and the mark to be left with them. It stays the same until
/// that has succeeded.
pub(crate) struct Chunk {
    pub(crate) records: Vec<Record>,
    pub(crate) mark: Option<SpillMark>,
}

/// A spill file and how far it was read.
struct Source {
    /// Holds the lock.
    file: File,
    path: PathBuf,
    head: Head,
    /// Bytes that are whole.
    length: u64,
    /// Where to read on.
    read: u64,
    passed_over: u64,
    /// Shares of this file whose outcome may follow, and events that somebody waits for, by number.
    tickets: HashMap<u64, Ticket>,
}

impl Spill {
    /// For the process with this instance, whose file takes at most so many bytes. Nothing is made yet.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub(crate) fn new(database: &Path, instance: [u8; 8], most: u64) -> Result<Self, Error> {
        let mut id = [0; 16];
        getrandom::fill(&mut id)
            .map_err(|_| Error::new(ErrorKind::Store, "the system gives no random bytes for a spill id"))?;
        Ok(Spill {
            database: database.to_owned(),
            head: Head { id, instance },
            most,
            left: VecDeque::new(),
            own: None,
            tally: Arc::default(),
        })
    }

    pub(crate) fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// What a commit of the records up to this number leaves in the database, so that they are not
    /// brought in a second time where it seemed to fail and they were spilled.
    pub(crate) fn mark(&self, upto: u64) -> Option<SpillMark> {
        (self.most > 0).then_some(SpillMark {
            id: self.head.id,
            offset: upto,
        })
    }

    /// The instance that the process began as.
    pub(crate) fn instance(&self) -> [u8; 8] {
        self.head.instance
    }

    /// Whether there is nothing to bring in.
    pub(crate) fn is_empty(&self) -> bool {
        self.left.is_empty() && self.own.is_none()
    }

    /// Puts records on disk, numbered from `first` on; all or nothing.
    ///
    /// # Errors
    /// The file cannot be made or written, or has grown to the most it may have.
    pub(crate) fn append(&mut self, first: u64, records: &[Record]) -> Result<(), Error> {
        let failed = |e: io::Error| {
            Error::new(
                ErrorKind::Evidence,
                format!("the spill file takes nothing: {}", reason(&e)),
            )
        };
        if records.is_empty() {
            return Ok(());
        }
        if self.most == 0 {
            return Err(failed(Io::Unsupported.into()));
        }
        let mut bytes = Vec::new();
        for (at, record) in (first..).zip(records) {
            // An outcome may follow its share within these records.
            if let Record::Event(_, ticket) = record {
                ticket.spill(at);
            }
            let Some(record) = Form::of(record) else { continue };
            let payload = serde_json::to_vec(&Numbered { at, record }).map_err(|e| failed(e.into()))?;
            if !frame::push(&payload, &mut bytes) {
                return Err(failed(Io::FileTooLarge.into()));
            }
        }
        let length = self.own.as_ref().map_or(HEAD, |own| own.length);
        if length.saturating_add(bytes.len() as u64) > self.most {
            return Err(failed(Io::QuotaExceeded.into()));
        }
        let own = match &mut self.own {
            Some(own) => own,
            none => none.insert(Source::create(&self.database, self.head).map_err(failed)?),
        };
        if let Err(e) = own.append(&bytes) {
            if own.length == HEAD {
                // Nothing that was promised is in it.
                let _ = own.remove();
                self.own = None;
            }
            return Err(failed(e));
        }
        for (at, record) in (first..).zip(records) {
            if let Record::Event(event, ticket) = record
                && (event.event_type == EventType::DataShare || ticket.is_shared())
            {
                own.tickets.insert(at, ticket.clone());
            }
        }
        self.tally.spilled.fetch_add(records.len() as u64, Ordering::Relaxed);
        self.tally.bytes.store(own.length, Ordering::Relaxed);
        Ok(())
    }

    /// Finds what processes that are gone have left. What cannot be read is passed over, and said so.
    pub(crate) fn find_left(&mut self) {
        let (Some(folder), Some(name)) = (folder(&self.database), self.database.file_name()) else {
            return;
        };
        let name = name.to_string_lossy();
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        let mut paths: Vec<_> = entries
            .filter_map(|entry| {
                let found = entry.ok()?.file_name();
                let rest = found.to_str()?.strip_prefix(&*name)?.strip_prefix('.')?;
                let made = rest.strip_suffix(MAKING).unwrap_or(rest);
                let instance = made.strip_suffix(ENDING)?;
                let hex = instance.len() == 16 && instance.bytes().all(|byte| byte.is_ascii_hexdigit());
                hex.then(|| folder.join(&found))
            })
            .collect();
        // Of one service in the order in which it was started, as far as the files tell.
        paths.sort_by_key(|path| {
            let modified = std::fs::metadata(path).and_then(|found| found.modified()).ok();
            (modified, path.clone())
        });
        for path in paths {
            match Source::open(&path) {
                Ok(Opened::Left(source)) => self.left.push_back(*source),
                Ok(Opened::Newer) => self.tally.left_aside(&path),
                Ok(Opened::Damaged(length)) => {
                    self.tally.passed_over.fetch_add(length, Ordering::Relaxed);
                    self.tally.left_aside(&set_aside(&path));
                }
                Ok(Opened::Nothing) => {}
                Err(_) => self.tally.left_aside(&path),
            }
        }
    }

    /// What is to be appended next; `None` once everything is in the database, and the files are gone.
    ///
    /// # Errors
    /// The database, or a file, cannot be read.
    pub(crate) fn next(&mut self, writer: &mut Writer) -> Result<Option<Chunk>, Error> {
        let ours = self.head.id;
        loop {
            let Some(source) = self.left.front_mut().or(self.own.as_mut()) else {
                return Ok(None);
            };
            let done = writer.replayed(&source.head.id)?;
            let chunk = source
                .chunk(done, source.head.id == ours)
                .map_err(|e| Error::new(ErrorKind::Store, format!("a spill file cannot be read: {}", reason(&e))))?;
            if chunk.is_some() {
                return Ok(chunk);
            }
            self.tally.passed_over.fetch_add(source.passed_over, Ordering::Relaxed);
            // A file that cannot be removed is found again, and adds nothing: its mark is in the database.
            match source.passed_over {
                0 => drop(source.remove()),
                _ => self.tally.left_aside(&set_aside(&source.path)),
            }
            if self.left.pop_front().is_none() {
                self.own = None;
                self.tally.bytes.store(0, Ordering::Relaxed);
            }
        }
    }

    /// So many records of a chunk are in the database.
    pub(crate) fn brought_in(&self, records: usize) {
        self.tally.replayed.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// Brings in what was left, as far as the database takes it; the rest stays for later.
    pub(crate) fn bring_in(&mut self, writer: &mut Writer) -> Option<Chunk> {
        while let Ok(Some(chunk)) = self.next(writer) {
            if writer.append(&chunk.records, chunk.mark).is_err() {
                return Some(chunk);
            }
            self.brought_in(chunk.records.len());
        }
        None
    }
}

/// What a path turned out to be.
enum Opened {
    Left(Box<Source>),
    /// Its owner lives, or it is gone already.
    Nothing,
    Newer,
    /// So many bytes without a head.
    Damaged(u64),
}

/// Ends the name of a file whose head is not written yet.
const MAKING: &str = ".new";

impl Source {
    fn create(database: &Path, head: Head) -> io::Result<Self> {
        let path = beside(database, &format!(".{}{ENDING}", hex(&head.instance)));
        let making = beside(&path, MAKING);
        if path.exists() {
            return Err(Io::AlreadyExists.into());
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).create_new(true);
        for_its_owner(&mut options);
        let file = options.open(&making)?;
        let made = lock(&file)
            // Under its own name it is never without a lock and a head.
            .and_then(|()| (&file).write_all(&head.to_bytes()))
            .and_then(|()| file.sync_data())
            .and_then(|()| std::fs::rename(&making, &path))
            .and_then(|()| sync_folder(&path));
        if let Err(e) = made {
            let _ = std::fs::remove_file(&making);
            return Err(e);
        }
        Ok(Source::at(file, path, head, HEAD))
    }

    fn at(file: File, path: PathBuf, head: Head, length: u64) -> Self {
        Source {
            file,
            path,
            head,
            length,
            read: HEAD,
            passed_over: 0,
            tickets: HashMap::new(),
        }
    }

    fn open(path: &Path) -> io::Result<Opened> {
        let mut options = OpenOptions::new();
        options.read(true).append(true);
        for_its_owner(&mut options);
        if !std::fs::symlink_metadata(path)?.is_file() {
            return Err(Io::InvalidInput.into());
        }
        let file = options.open(path)?;
        match lock(&file) {
            Err(e) if e.kind() == Io::WouldBlock => return Ok(Opened::Nothing),
            locked => locked?,
        }
        // Another start may have finished it before the lock was given.
        if is_gone(&file) {
            return Ok(Opened::Nothing);
        }
        if path.to_string_lossy().ends_with(MAKING) {
            // Nobody was told that anything is in it.
            std::fs::remove_file(path)?;
            return Ok(Opened::Nothing);
        }
        let length = file.metadata()?.len();
        Ok(match Head::read(&file)? {
            Found::Head(head) => Opened::Left(Box::new(Source::at(file, path.to_owned(), head, length))),
            Found::Newer => Opened::Newer,
            Found::Damaged => Opened::Damaged(length),
        })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(bytes).and_then(|()| self.file.sync_data());
        if let Err(e) = written {
            // What is half there would be passed over, but it would also be in the way.
            let _ = self.file.set_len(self.length);
            return Err(e);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// What follows the number `done`; `None` at the end. `ours`: of this process.
    fn chunk(&mut self, done: u64, ours: bool) -> io::Result<Option<Chunk>> {
        let mut frames = Frames::new(BufReader::new(&self.file), self.read, self.length)?;
        let mut found = Vec::new();
        let mut bytes = 0;
        let mut unread = 0;
        while found.len() < MOST && bytes < MOST_BYTES {
            let Some(payload) = frames.next()? else { break };
            let length = payload.len() as u64;
            match serde_json::from_slice::<Numbered>(&payload) {
                Ok(numbered) if numbered.at > done => {
                    bytes += length;
                    found.push((numbered, length));
                }
                // It is there already.
                Ok(_) => {}
                Err(_) => unread += length,
            }
        }
        (self.read, unread) = (frames.offset, unread + frames.passed_over);
        self.passed_over += unread;
        let Some(offset) = found.last().map(|(last, _)| last.at) else {
            return Ok(None);
        };
        let mut records = Vec::with_capacity(found.len());
        for (Numbered { at, record }, length) in found {
            if self.record(at, record, ours, &mut records).is_none() {
                // Whole, and yet nothing that this version writes.
                self.passed_over += length;
            }
        }
        Ok(Some(Chunk {
            records,
            mark: Some(SpillMark {
                id: self.head.id,
                offset,
            }),
        }))
    }

    fn record(&mut self, at: u64, form: Form, ours: bool, records: &mut Vec<Record>) -> Option<()> {
        match form {
            Form::Event(form) => {
                let event = form.event()?;
                let ticket = match event.event_type {
                    // Its outcome may follow.
                    EventType::DataShare => self.tickets.entry(at).or_default().clone(),
                    _ => self.tickets.remove(&at).unwrap_or_default(),
                };
                records.push(Record::Event(Box::new(event), ticket));
            }
            Form::Outcome(form) => {
                let ended = form.ended()?;
                let share = match ended.of {
                    Of::At(share) => self.tickets.remove(&share),
                    Of::Seq(place) => ours.then(|| Ticket::of(place)),
                };
                match share {
                    Some(of) => records.push(Record::Outcome {
                        of,
                        outcome: ended.outcome,
                        created_at: ended.created_at,
                        late: ended.late,
                    }),
                    None => {
                        let instance = |generation| hex(&ticket::instance(self.head.instance, generation));
                        let share = match ended.of {
                            Of::Seq(place) => {
                                let (generation, seq) = ticket::parts(place);
                                format!("{}-{seq}", instance(generation))
                            }
                            Of::At(_) => instance(0),
                        };
                        records.extend(by_itself(share, ended.outcome, ended.created_at, ended.late));
                    }
                }
            }
            Form::Value(form) => records.push(Record::Value(Box::new(form.value()?))),
            Form::Link(a, b) => records.push(Record::Link(
                crate::vocabulary::Owner::from_stored(&a)?,
                crate::vocabulary::Owner::from_stored(&b)?,
            )),
        }
        Some(())
    }

    fn remove(&self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

/// The outcome of a share that stands under another instance, whose chain has ended: a share of its own, which
/// names the other.
pub(crate) fn by_itself(
    share: String,
    outcome: Outcome,
    created_at: Timestamp,
    late: Option<Box<Late>>,
) -> [Record; 2] {
    let mut event = Event::new(EventType::DataShare, "");
    event.created_at = created_at;
    if let Some(late) = late {
        event.recipient = late.recipient;
        event.request_id = late.request_id;
        event.owner = late.owner;
        event.tags = late.tags;
        event.payload = late.payload;
        event.extras = late.extras;
    }
    event.extras.insert("outcome_of".into(), Json::from(share));
    let ticket = Ticket::default();
    let outcome = Record::Outcome {
        of: ticket.clone(),
        outcome,
        created_at,
        late: None,
    };
    [Record::Event(Box::new(event), ticket), outcome]
}

/// Gives a damaged file another name, under which nobody looks for it; gives the name.
fn set_aside(path: &Path) -> PathBuf {
    let names = (0..100).map(|n| match n {
        0 => beside(path, ".damaged"),
        n => beside(path, &format!(".{n}.damaged")),
    });
    for name in names {
        // A second name first: it never goes over another file.
        if std::fs::hard_link(path, &name).is_ok() {
            let _ = std::fs::remove_file(path);
            return name;
        }
    }
    path.to_owned()
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// What went wrong, without a path.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        Io::Unsupported => "spill.max_bytes is 0".to_owned(),
        Io::QuotaExceeded if error.raw_os_error().is_none() => "it has grown to spill.max_bytes".to_owned(),
        kind => kind.to_string(),
    }
}

/// Takes the file for this process alone, or says [`Io::WouldBlock`].
#[cfg(unix)]
fn lock(file: &File) -> io::Result<()> {
    use rustix::fs::{FlockOperation, flock};
    Ok(flock(file, FlockOperation::NonBlockingLockExclusive)?)
}

/// To open it was to lock it: see [`for_its_owner`].
#[cfg(not(unix))]
fn lock(_: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn for_its_owner(options: &mut OpenOptions) {
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
}

#[cfg(windows)]
fn for_its_owner(options: &mut OpenOptions) {
    // Others may rename and remove it, and not open it.
    const FILE_SHARE_DELETE: u32 = 4;
    std::os::windows::fs::OpenOptionsExt::share_mode(options, FILE_SHARE_DELETE);
}

#[cfg(not(any(unix, windows)))]
fn for_its_owner(_: &mut OpenOptions) {}

#[cfg(unix)]
fn is_gone(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    file.metadata().is_ok_and(|found| found.nlink() == 0)
}

#[cfg(not(unix))]
fn is_gone(_: &File) -> bool {
    false
}

/// A new name is on disk once its folder is.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    folder(path).map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

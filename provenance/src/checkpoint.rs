//! Checkpoints: signed ends of the chain, kept where whoever can change the evidence cannot reach.
//!
//! A checkpoint is one line of JSON:
//!
//! | key | value |
//! |---|---|
//! | `format` | `provenance checkpoint v1` |
//! | `instance` | whose chain: 16 hex digits |
//! | `batch` | number of the batch that the chain ended with |
//! | `last_seq` | sequence number of that batch's last event |
//! | `chain` | the chain after that batch: 64 hex digits |
//! | `time` | when it was signed, RFC 3339 in UTC |
//! | `public_key` | the ed25519 key that verifies it: 64 hex digits |
//! | `signature` | ed25519 (RFC 8032, pure) over the message: 128 hex digits |
//!
//! The message is the first seven values as text, in this order, each with a line feed after it. All hex digits
//! are lower-case. A line with any other key, or with a value of another form, is no checkpoint.
//!
//! Since the chain after a batch stands for every event up to it, one checkpoint proves all that came before.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::Error;
use crate::config::{CheckpointPlace, Config};
use crate::error::ErrorKind;
use crate::hex::hex;
use crate::key::CheckpointKey;
pub use crate::key::PublicKey;
use crate::store::Reader;
use crate::store::write::Head;
use crate::vocabulary::Timestamp;

const FORMAT: &str = "provenance checkpoint v1";
/// Longest line that may be one; the longest that is made has half of that.
const MAX_LINE: usize = 1024;

/// One line, as it stands.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    format: &'a str,
    instance: &'a str,
    batch: i64,
    last_seq: i64,
    chain: &'a str,
    time: &'a str,
    public_key: &'a str,
    signature: &'a str,
}

/// A signed end of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whose chain: 16 hex digits, the first part of its event ids.
    pub instance: String,
    /// The batch that the chain ended with; they begin with 1.
    pub batch: i64,
    /// Sequence number of that batch's last event.
    pub last_seq: i64,
    /// The chain after that batch: 64 hex digits.
    pub chain: String,
    /// When it was signed, RFC 3339, by the clock of the machine that signed.
    pub time: String,
    /// The key that it says it is signed with: who gave it is for the caller to know.
    pub public_key: PublicKey,
    signature: [u8; 64],
}

/// Where evidence and checkpoint part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Nothing of the instance is there.
    InstanceMissing,
    /// The instance's chain has no such batch (any more): a missing tail, if the chain holds by itself.
    BatchMissing,
    /// The batch has another chain: it, or something before it, was changed since, and the chain computed anew.
    OtherChain,
}

impl Checkpoint {
    /// Reads a line; `None` if it is no checkpoint. Its signature is not looked at: see [`Checkpoint::is_signed`].
    pub fn parse(line: &str) -> Option<Self> {
        let line = line.trim();
        if line.len() > MAX_LINE {
            return None;
        }
        let line: Line<'_> = serde_json::from_str(line).ok()?;
        let lower_hex = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let well_formed = line.format == FORMAT
            && lower_hex(line.instance, 16)
            && line.batch > 0
            && line.last_seq >= line.batch
            && lower_hex(line.chain, 64)
            && line.time.bytes().all(|b| b.is_ascii_graphic())
            && Timestamp::parse(line.time).is_some()
            && lower_hex(line.public_key, 64)
            && lower_hex(line.signature, 128);
        let mut signature = [0; 64];
        let (pairs, _) = line.signature.as_bytes().as_chunks::<2>();
        for (byte, [high, low]) in signature.iter_mut().zip(pairs) {
            let digit = |c: &u8| char::from(*c).to_digit(16);
            *byte = u8::try_from(digit(high)? << 4 | digit(low)?).ok()?;
        }
        well_formed.then_some(())?;
        Some(Checkpoint {
            instance: line.instance.to_owned(),
            batch: line.batch,
            last_seq: line.last_seq,
            chain: line.chain.to_owned(),
            time: line.time.to_owned(),
            public_key: PublicKey::parse(line.public_key)?,
            signature,
        })
    }

    /// Whether the key that it names signed it. Anybody can sign with a key of their own: compare
    /// [`Checkpoint::public_key`] with the one that you were given.
    pub fn is_signed(&self) -> bool {
        self.public_key.verifies(self.message().as_bytes(), &self.signature)
    }

    /// Compares it with the evidence; `None` where they agree. That the events of the file give its chains is
    /// for [`Reader::verify`] to say.
    ///
    /// # Errors
    /// [`Error::is_store`] when the file cannot be read.
    pub fn compare(&self, reader: &mut Reader) -> Result<Option<Difference>, Error> {
        Ok(match reader.chain_at(&self.instance, self.batch)? {
            Some(chain) if hex(&chain) == self.chain => None,
            Some(_) => Some(Difference::OtherChain),
            None if reader.chain_at(&self.instance, 1)?.is_none() => Some(Difference::InstanceMissing),
            None => Some(Difference::BatchMissing),
        })
    }

    /// Signs where a chain ends.
    fn sign(head: &Head, key: &CheckpointKey) -> Self {
        let mut checkpoint = Checkpoint {
            instance: format!("{:016x}", head.instance),
            batch: head.batch_no,
            last_seq: head.seq,
            chain: hex(&head.chain),
            time: Timestamp::now().to_string(),
            public_key: key.public(),
            signature: [0; 64],
        };
        checkpoint.signature = key.sign(checkpoint.message().as_bytes());
        checkpoint
    }

    /// What is signed. No value can hold a line feed, so no two checkpoints share a message, and the first line
    /// keeps it apart from whatever else the key may sign one day.
    fn message(&self) -> String {
        format!(
            "{FORMAT}\n{}\n{}\n{}\n{}\n{}\n{}\n",
            self.instance, self.batch, self.last_seq, self.chain, self.time, self.public_key
        )
    }

    /// The line, without its end.
    fn line(&self) -> String {
        serde_json::to_string(&Line {
            format: FORMAT,
            instance: &self.instance,
            batch: self.batch,
            last_seq: self.last_seq,
            chain: &self.chain,
            time: &self.time,
            public_key: &self.public_key.to_string(),
            signature: &hex(&self.signature),
        })
        .unwrap_or_default()
    }
}

/// How long a request with a checkpoint may take.
const POST_PATIENCE: Duration = Duration::from_secs(5);
/// First pause after a failure; it doubles, up to `checkpoints.every`.
const BACKOFF: Duration = Duration::from_secs(1);
/// Shortest interval, whatever a host asks for.
const SHORTEST: Duration = Duration::from_millis(10);

/// The thread that writes checkpoints. Nobody waits for it but the end.
pub(crate) struct Checkpointer {
    stop: Sender<()>,
    ended: Receiver<()>,
    shared: Arc<Shared>,
    /// For `/status`.
    to: String,
    every: Duration,
    public_key: PublicKey,
    /// A forked child has this memory, but no such thread.
    pid: u32,
}

#[derive(Default)]
struct Shared {
    written: AtomicU64,
    failed: AtomicU64,
    last: Mutex<Option<Checkpoint>>,
    last_error: Mutex<Option<String>>,
}

/// What a checkpointer needs, before there is a chain.
pub(crate) struct Plan {
    to: String,
    every: Duration,
    place: Place,
    key: CheckpointKey,
}

impl Plan {
    /// What the configuration asks for, if it does.
    ///
    /// # Errors
    /// [`Error::is_config`]: this build cannot post to the URL, or the file holds something else.
    /// [`Error::is_key`]: as [`CheckpointKey::load`].
    pub(crate) fn of(config: &Config) -> Result<Option<Self>, Error> {
        let Some(checkpoints) = &config.checkpoints else {
            return Ok(None);
        };
        Ok(Some(Plan {
            to: checkpoints.to.to_string(),
            every: checkpoints.every.max(SHORTEST),
            place: Place::new(&checkpoints.to)?,
            key: CheckpointKey::load(config, checkpoints)?,
        }))
    }

    /// The signing key that lies beside the database, where no other was named.
    pub(crate) fn key_beside(&self) -> Option<&Path> {
        self.key.beside.as_deref()
    }

    /// Starts the thread; `head` tells where the chain ends on disk.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(self, head: impl Fn() -> Option<Head> + Send + 'static) -> Result<Checkpointer, Error> {
        let Plan { to, every, place, key } = self;
        let (stop, told) = bounded(1);
        let (end, ended) = bounded(1);
        let shared = Arc::new(Shared::default());
        let public_key = key.public();
        let side = shared.clone();
        std::thread::Builder::new()
            .name("provenance-checkpoints".into())
            .spawn(move || {
                run(&told, every, |last| {
                    let made = std::panic::catch_unwind(AssertUnwindSafe(|| side.advance(&head, &key, &place)));
                    let done = made.unwrap_or_else(|_| Err("the writer of checkpoints panicked".to_owned()));
                    if let (true, Err(trouble)) = (last, &done) {
                        eprintln!("provenance: warning: the last checkpoint was not written: {trouble}");
                    }
                    side.note(done)
                });
                let _ = end.send(());
            })
            .map_err(|e| Error::new(ErrorKind::Store, "the thread for checkpoints cannot be started").because(e))?;
        Ok(Checkpointer {
            stop,
            ended,
            shared,
            to,
            every,
            public_key,
            pid: std::process::id(),
        })
    }
}

impl Checkpointer {
    /// Writes the last one, once the recorder has stopped.
    pub(crate) fn stop(&self) {
        if self.pid == std::process::id() && self.stop.try_send(()).is_ok() {
            // An attempt may be under way, and the last one comes after it.
            let _ = self.ended.recv_timeout(POST_PATIENCE * 2);
        }
    }

    /// For `/status`.
    pub(crate) fn status(&self) -> Json {
        // Not waited for: in a forked child nobody would ever give it back.
        let last = self.shared.last.try_lock().ok().and_then(|last| last.clone());
        let last_error = self.shared.last_error.try_lock().ok().and_then(|error| error.clone());
        json!({
            "to": self.to,
            "every_seconds": self.every.as_secs_f64(),
            "public_key": self.public_key.to_string(),
            "written": self.shared.written.load(Ordering::Relaxed),
            "failed": self.shared.failed.load(Ordering::Relaxed),
            "last_error": last_error,
            "last": last.map(|last| json!({ "batch": last.batch, "last_seq": last.last_seq, "chain": last.chain, "time": last.time })),
        })
    }
}

/// Makes one at each interval, and one more when told to stop, or when nobody is there any more to tell it.
fn run(told: &Receiver<()>, every: Duration, mut advance: impl FnMut(bool) -> bool) {
    let (mut wait, mut pause) = (every, BACKOFF);
    loop {
        let last = !matches!(told.recv_timeout(wait), Err(RecvTimeoutError::Timeout));
        let done = advance(last);
        if last {
            return;
        }
        (wait, pause) = match done {
            true => (every, BACKOFF),
            false => (pause.min(every), pause.saturating_mul(2)),
        };
    }
}

impl Shared {
    /// Signs and writes where the chain ends, if it has moved since. A later one stands for those that failed.
    fn advance(
        &self,
        head: &dyn Fn() -> Option<Head>,
        key: &CheckpointKey,
        place: &Place,
    ) -> Result<Option<Checkpoint>, String> {
        let Some(head) = head() else { return Ok(None) };
        if lock(&self.last)
            .as_ref()
            .is_some_and(|last| last.batch >= head.batch_no)
        {
            return Ok(None);
        }
        let checkpoint = Checkpoint::sign(&head, key);
        place.put(&checkpoint.line())?;
        Ok(Some(checkpoint))
    }

    fn note(&self, done: Result<Option<Checkpoint>, String>) -> bool {
        let trouble = match done {
            Ok(None) => return true,
            Ok(Some(checkpoint)) => {
                self.written.fetch_add(1, Ordering::Relaxed);
                *lock(&self.last) = Some(checkpoint);
                None
            }
            Err(trouble) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                Some(trouble)
            }
        };
        let fine = trouble.is_none();
        *lock(&self.last_error) = trouble;
        fine
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where checkpoints go.
enum Place {
    File(std::path::PathBuf),
    #[cfg(feature = "ureq")]
    Url(Box<post::Endpoint>),
}

impl Place {
    fn new(to: &CheckpointPlace) -> Result<Self, Error> {
        match to {
            CheckpointPlace::File(path) => {
                let wrong = |what: &str| {
                    let text = format!("checkpoints.to: {}: {what}", path.display());
                    Err(Error::new(ErrorKind::Config, text))
                };
                match path.metadata() {
                    // A pipe would block whoever opens it.
                    Ok(found) if !found.is_file() => wrong("expected a file, found something else"),
                    Ok(_) if matches!(File::open(path).map(|mut file| is_ours(&mut file)), Ok(Ok(false))) => {
                        wrong(FOREIGN)
                    }
                    _ => Ok(Place::File(path.clone())),
                }
            }
            #[cfg(feature = "ureq")]
            CheckpointPlace::Url(url) => Ok(Place::Url(Box::new(post::Endpoint::new(&url.0)?))),
            #[cfg(not(feature = "ureq"))]
            CheckpointPlace::Url(_) => Err(Error::new(
                ErrorKind::Config,
                "checkpoints.to: this build cannot post: enable the feature `ureq` of the crate `provenance`, or give \
                 the path of a file",
            )),
        }
    }

    /// Writes a line; the error is a kind, without values.
    fn put(&self, line: &str) -> Result<(), String> {
        match self {
            Place::File(path) => append(path, line).map_err(|e| match e.kind() {
                std::io::ErrorKind::InvalidData => FOREIGN.to_owned(),
                kind => kind.to_string(),
            }),
            #[cfg(feature = "ureq")]
            Place::Url(endpoint) => endpoint.post(line),
        }
    }
}

const FOREIGN: &str = "the file holds something other than checkpoints";

/// Whether nothing but checkpoints can be there: a database that was named by mistake must not be spoilt.
fn is_ours(file: &mut File) -> std::io::Result<bool> {
    let mut first = [b'{'];
    file.seek(SeekFrom::Start(0))?;
    Ok(file.read(&mut first)? == 0 || first == *b"{")
}

/// Appends a line, on disk when it returns. What a crash left unfinished stays a line of its own.
fn append(path: &Path, line: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let fresh = !path.exists();
    let mut file = options.open(path)?;
    if !is_ours(&mut file)? {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut text = String::with_capacity(line.len() + 2);
    if file.metadata()?.len() > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            text.push('\n');
        }
    }
    text.push_str(line);
    text.push('\n');
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    if fresh && let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        // The name must survive a power cut as well.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
    Ok(())
}

#[cfg(feature = "ureq")]
mod post {
    //! By an agent of our own, which no hook sees: hooks sit on rewritten calls and on agents that take the
    //! middleware.

    use ureq::Agent;

    use super::POST_PATIENCE;
    use crate::Error;
    use crate::error::ErrorKind;

    pub(super) struct Endpoint {
        agent: Agent,
        url: String,
    }

    impl Endpoint {
        pub(super) fn new(url: &str) -> Result<Self, Error> {
            let wrong = |text: &str| Err(Error::new(ErrorKind::Config, format!("checkpoints.to: {text}")));
            if url.parse::<ureq::http::Uri>().is_err() {
                return wrong("the URL is malformed");
            }
            if url.starts_with("https://") && !has_tls() {
                return wrong(
                    "https:// needs TLS, and the ureq of this program is built without rustls: add `ureq` to its \
                     dependencies with the feature `rustls` (one of its default features)",
                );
            }
            let config = Agent::config_builder()
                .timeout_global(Some(POST_PATIENCE))
                .max_redirects(0)
                .max_redirects_will_error(true)
                .user_agent(concat!("provenance/", env!("CARGO_PKG_VERSION")))
                .build();
            Ok(Endpoint {
                agent: config.new_agent(),
                url: url.to_owned(),
            })
        }

        pub(super) fn post(&self, line: &str) -> Result<(), String> {
            let request = self.agent.post(&self.url).content_type("application/json");
            match request.send(line) {
                Ok(answer) if answer.status().is_success() => Ok(()),
                Ok(answer) => Err(format!("status {}", answer.status().as_u16())),
                Err(error) => Err(kind(&error)),
            }
        }
    }

    /// What went wrong, without the URL: it may hold a secret.
    fn kind(error: &ureq::Error) -> String {
        match error {
            ureq::Error::StatusCode(status) => format!("status {status}"),
            ureq::Error::Io(error) => error.kind().to_string(),
            ureq::Error::Timeout(_) => "timed out".to_owned(),
            ureq::Error::HostNotFound => "host not found".to_owned(),
            ureq::Error::TooManyRedirects | ureq::Error::RedirectFailed => "redirected".to_owned(),
            ureq::Error::Tls(_) | ureq::Error::TlsRequired => "TLS failed".to_owned(),
            _ => "the request failed".to_owned(),
        }
    }

    /// Stands in for ureq's own where ureq is built without it: a glob goes before what stands outside of it.
    #[allow(dead_code)]
    struct RustlsConnector;

    /// Whether ureq has rustls, which only the whole program's features decide. Asked for an https:// URL without
    /// any TLS it fails; with native-tls alone, it panics unless each agent names that.
    fn has_tls() -> bool {
        #[allow(unused_imports)]
        use ureq::unversioned::transport::*;
        std::any::type_name::<RustlsConnector>().starts_with("ureq")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::config::Checkpoints;
    use crate::key::{Keys, Origin};
    use crate::store::write::{Instance, Record, Writer};
    use crate::ticket::Ticket;
    use crate::vocabulary::Event;

    fn key(folder: &Path) -> CheckpointKey {
        let config = Config {
            storage: crate::config::Storage::Sqlite(folder.join("evidence.db")),
            ..Config::default()
        };
        let checkpoints = Checkpoints {
            to: CheckpointPlace::File(folder.join("checkpoints")),
            every: Duration::from_secs(1),
            key_file: None,
        };
        CheckpointKey::load(&config, &checkpoints).unwrap()
    }

    /// Evidence of one process with these events, a batch each; where its chain ended after each.
    fn history(database: &Path, names: &[&str]) -> Vec<Head> {
        let instance = Instance {
            id: [7; 8],
            service: "shop".into(),
            environment: None,
            build: String::new(),
        };
        let keys = Keys::from_master(&[7; 32], 1, Origin::Environment);
        let mut writer = Writer::open(database, &keys, &instance).unwrap();
        assert_eq!(writer.head().batch_no, 0);
        names
            .iter()
            .map(|name| {
                let event = Event::new(name.parse().unwrap(), "test");
                let record = Record::Event(Box::new(event), Ticket::default());
                writer.append(&[record], None).unwrap();
                writer.head()
            })
            .collect()
    }

    #[test]
    fn the_same_process_with_another_history_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let key = key(folder.path());
        let before = history(&folder.path().join("before.db"), &["X_ONE", "X_TWO", "X_THREE"]);
        // As many batches and events, of the same instance; whole by itself.
        let after = history(&folder.path().join("after.db"), &["X_ONE", "X_TWO", "X_LIE"]);
        let compare = |head: &Head, database: &str| {
            let mut reader = Reader::open(&folder.path().join(database)).unwrap();
            assert!(reader.verify().unwrap().is_ok());
            Checkpoint::sign(head, &key).compare(&mut reader).unwrap()
        };
        for (head, other) in before.iter().zip(&after) {
            assert_eq!((head.batch_no, head.seq), (other.batch_no, other.seq));
            assert_eq!(compare(head, "before.db"), None);
            assert_eq!(compare(head, "after.db"), Some(Difference::OtherChain));
        }
        let beyond = Head {
            batch_no: 4,
            ..before[2]
        };
        assert_eq!(compare(&beyond, "before.db"), Some(Difference::BatchMissing));
        let stranger = Head {
            instance: -1,
            ..before[2]
        };
        assert_eq!(compare(&stranger, "before.db"), Some(Difference::InstanceMissing));
    }

    #[test]
    fn no_byte_of_a_line_can_be_changed() {
        let folder = tempfile::tempdir().unwrap();
        let head = Head {
            instance: -2,
            batch_no: 12,
            seq: 340,
            chain: [0xab; 32],
        };
        let signed = Checkpoint::sign(&head, &key(folder.path()));
        let line = signed.line();
        assert_eq!(Checkpoint::parse(&line), Some(signed.clone()));
        assert!(signed.is_signed() && line.len() < MAX_LINE / 2, "{line}");
        for at in 0..line.len() {
            for with in [b'0', b'1', b'a', b'A', b'\\', b'"', b' ', b'\n'] {
                let mut changed = line.clone().into_bytes();
                changed[at] = with;
                if changed == line.as_bytes() {
                    continue;
                }
                let read = Checkpoint::parse(std::str::from_utf8(&changed).unwrap());
                assert!(
                    read.is_none_or(|read| !read.is_signed()),
                    "{}",
                    String::from_utf8_lossy(&changed)
                );
            }
        }
        // Another key signs what is its own, and is told by its name.
        let other = tempfile::tempdir().unwrap();
        let other = Checkpoint::sign(&head, &self::key(other.path()));
        assert!(other.is_signed() && other.public_key != signed.public_key);
    }
}

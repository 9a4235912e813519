//! One master key, HKDF-SHA-256 subkeys (RFC 5869) for fingerprints, owners and detection; and the key that
//! signs checkpoints, which nothing is derived from and which is derived from nothing.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::general_purpose::STANDARD as BASE64;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::Error;
use crate::config::{Checkpoints, Config, Storage};
use crate::continued::first;
use crate::error::ErrorKind;
use crate::hex::hex;

/// A subkey for HMAC-SHA-256, with its key schedule computed once.
#[derive(Clone)]
pub(crate) struct Subkey(Hmac<Sha256>);

impl Subkey {
    fn derive(master: &[u8; 32], label: &str) -> Self {
        let bytes = Zeroizing::new(expand(master, label));
        // Hmac takes keys of any length; the fallback keeps this total without a panic.
        Subkey(Hmac::new_from_slice(&*bytes).unwrap_or_else(|_| Hmac::new(&Default::default())))
    }

    /// HMAC over the concatenation of `parts`.
    pub(crate) fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.0.clone();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }
}

fn expand(master: &[u8; 32], label: &str) -> [u8; 32] {
    let mut out = [0; 32];
    // 32 bytes are below HKDF's limit of 255 blocks, so `expand` cannot fail.
    let _ = hkdf::Hkdf::<Sha256>::new(Some(b"provenance v1"), master).expand(label.as_bytes(), &mut out);
    out
}

/// Everything derived from the master key. The master itself is not kept.
pub(crate) struct Keys {
    /// Names the fingerprint key in the store: 16 hex digits, not secret.
    pub(crate) id: String,
    /// Tells a wrong key from the right one on a non-empty store; not secret.
    pub(crate) check: [u8; 16],
    /// Counts rotations of the fingerprint key, from 1.
    pub(crate) epoch: u32,
    pub(crate) fingerprints: Subkey,
    /// Those of earlier epochs, the newest first: what was fingerprinted with them stays recognised.
    pub(crate) earlier: Vec<Earlier>,
    pub(crate) owners: Subkey,
    pub(crate) detection: [u8; 32],
    /// Where the master key came from, for `/status`.
    pub(crate) origin: Origin,
}

/// The fingerprint key of an epoch that has passed.
pub(crate) struct Earlier {
    pub(crate) id: String,
    pub(crate) fingerprints: Subkey,
}

/// Who wrote a store, as its key ids and check values tell.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// This master key, or nobody yet.
    Here,
    /// This master key, under a later epoch than is known here.
    Later,
    /// Another master key.
    Elsewhere,
}

/// Where a master key came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Environment,
    File(PathBuf),
    /// Created beside the database: protects copies of the database alone.
    Created(PathBuf),
}

impl Keys {
    /// `epoch` counts rotations of the fingerprint key; owners and detection stay.
    pub(crate) fn from_master(master: &[u8; 32], epoch: u32, origin: Origin) -> Self {
        let Earlier { id, fingerprints } = Earlier::of(master, epoch);
        let mut check = [0; 16];
        check.copy_from_slice(&Subkey::derive(master, "check").mac(&[b"check value"])[..16]);
        Keys {
            id,
            check,
            epoch,
            fingerprints,
            earlier: (1..epoch).rev().map(|epoch| Earlier::of(master, epoch)).collect(),
            owners: Subkey::derive(master, "owners"),
            detection: expand(master, "detection"),
            origin,
        }
    }
}

impl Earlier {
    fn of(master: &[u8; 32], epoch: u32) -> Self {
        let fingerprints = Subkey::derive(master, &format!("fingerprints {epoch}"));
        let id = hex(&fingerprints.mac(&[b"key id"])[..8]);
        Earlier { id, fingerprints }
    }
}

impl Keys {
    /// Judges by the key ids and check values that a store holds.
    pub(crate) fn judge(&self, known: &[(String, Vec<u8>)]) -> Written {
        let ours = |id: &String| *id == self.id || self.earlier.iter().any(|earlier| *id == earlier.id);
        // The check value is the master's: the same in every epoch.
        let mut of_master = known.iter().filter(|(_, check)| *check == self.check).peekable();
        match (known.is_empty(), of_master.peek().is_some()) {
            (true, _) => Written::Here,
            (false, false) => Written::Elsewhere,
            (false, true) if of_master.all(|(id, _)| ours(id)) => Written::Here,
            (false, true) => Written::Later,
        }
    }

    /// Loads the master key: `RUNTIME_TRACKING_KEY`, `key_file`, or the file beside the database,
    /// which is created (0600) when the store is empty.
    ///
    /// # Errors
    /// [`Error::is_key`]: a malformed key, a key file that others can read, or none for a non-empty store.
    pub(crate) fn load(config: &Config, store_is_empty: bool) -> Result<Self, Error> {
        let (master, origin) = if let Some(given) = config.key.as_ref().filter(|key| !key.0.is_empty()) {
            let master = parse(given.0.as_bytes())
                .ok_or_else(|| error(format!("RUNTIME_TRACKING_KEY is not a key: it must be {FORM}")))?;
            (master, Origin::Environment)
        } else if let Some(path) = &config.key_file {
            let master = read(path)?.ok_or_else(|| {
                error(format!(
                    "{}: the key file does not exist; put it there, or create one holding {FORM}",
                    path.display()
                ))
            })?;
            (master, Origin::File(path.clone()))
        } else {
            beside(&config.storage, store_is_empty)?
        };
        Ok(Keys::from_master(&master, config.key_epoch.clamp(1, MAX_EPOCH), origin))
    }
}

type Master = Zeroizing<[u8; 32]>;

/// As the configuration has it: each epoch costs a MAC for every value that is new.
const MAX_EPOCH: u32 = 64;
const FORM: &str = "32 bytes, as 64 hex digits or base64 (`openssl rand -hex 32` makes one)";
/// Longest key file that is read: a key with much white space around it.
const MAX_FILE: u64 = 1024;

fn error(text: String) -> Error {
    Error::new(ErrorKind::Key, text)
}

/// The key file beside the database; made when nothing depends on another one yet.
fn beside(storage: &Storage, store_is_empty: bool) -> Result<(Master, Origin), Error> {
    let Storage::Sqlite(database) = storage else {
        return Err(error(
            "PostgreSQL needs a key that every instance shares: set RUNTIME_TRACKING_KEY or key_file".to_owned(),
        ));
    };
    let path = sibling(&first(database), ".key");
    let master = match read(&path)? {
        Some(master) => master,
        None if store_is_empty => create(&path)?,
        None => {
            return Err(error(format!(
                "{}: the master key that {} was written with is missing; put this file back, or give the key \
                 through RUNTIME_TRACKING_KEY or key_file. If the key is lost, move the database away to begin a \
                 new one: the old one can still be read and verified, but its values are no longer recognised",
                path.display(),
                database.display()
            )));
        }
    };
    Ok((master, Origin::Created(path)))
}

fn sibling(database: &Path, ending: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(ending);
    PathBuf::from(path)
}

/// The key in a file; `None` if there is no such file.
fn read(path: &Path) -> Result<Option<Master>, Error> {
    let Some(text) = contents(path)? else { return Ok(None) };
    match parse(&text) {
        Some(master) => Ok(Some(master)),
        None => Err(error(format!(
            "{}: the file does not hold a key: it must be {FORM}",
            path.display()
        ))),
    }
}

/// What a file of a secret key holds, which others may not read; `None` if there is no such file.
fn contents(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    let unreadable =
        |e: std::io::Error| error(format!("{}: the key file cannot be read: {}", path.display(), e.kind()));
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable(e)),
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(error(format!(
                "{0}: others can read the key file (mode {1:03o}); run `chmod 600 {0}`",
                path.display(),
                mode & 0o777
            )));
        }
    }
    // Of one size from the start: growing would leave copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE as usize + 1));
    file.take(MAX_FILE + 1).read_to_end(&mut text).map_err(unreadable)?;
    Ok(Some(text))
}

/// Makes the file of a master key; of processes that start at once, the first one's stays.
fn create(path: &Path) -> Result<Master, Error> {
    let master = random()?;
    let mut text = Zeroizing::new([0; 65]);
    let (pairs, end) = text.as_chunks_mut::<2>();
    for (pair, byte) in pairs.iter_mut().zip(master.iter()) {
        let digit = |nibble: u8| char::from_digit(nibble.into(), 16).map_or(b'0', |digit| digit as u8);
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
    end.fill(b'\n');
    if place(path, &*text)? {
        return Ok(master);
    }
    read(path)?.ok_or_else(|| removed(path))
}

fn removed(path: &Path) -> Error {
    error(format!("{}: the key file was removed while starting", path.display()))
}

fn random() -> Result<Zeroizing<[u8; 32]>, Error> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).map_err(|_| error("the system gives no random bytes for a key".to_owned()))?;
    Ok(bytes)
}

/// Makes a key file, whole or not at all; `false` if there is one.
fn place(path: &Path, text: &[u8]) -> Result<bool, Error> {
    let mut suffix = [0; 8];
    getrandom::fill(&mut suffix).map_err(|_| error("the system gives no random bytes for a key".to_owned()))?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{:016x}", u64::from_be_bytes(suffix)));
    let draft = PathBuf::from(draft);
    let linked = write(&draft, text).and_then(|()| std::fs::hard_link(&draft, path));
    let _ = std::fs::remove_file(&draft);
    match linked {
        Ok(()) => {
            // The name must survive a power cut, as the database that needs it will.
            if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
                let _ = File::open(folder).and_then(|folder| folder.sync_all());
            }
            Ok(true)
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(error(format!(
            "{}: a key file cannot be created: {}; check the rights, or say in the configuration where the key is",
            path.display(),
            e.kind()
        ))),
    }
}

fn write(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// A key as 64 hex digits, or as base64 of 32 bytes, with or without padding, in either alphabet.
fn parse(text: &[u8]) -> Option<Master> {
    let text = text.trim_ascii();
    let mut master = Zeroizing::new([0; 32]);
    if text.len() == 64 {
        let (pairs, _) = text.as_chunks::<2>();
        for (byte, [high, low]) in master.iter_mut().zip(pairs) {
            let digit = |c: &u8| char::from(*c).to_digit(16);
            *byte = u8::try_from(digit(high)? << 4 | digit(low)?).ok()?;
        }
        return Some(master);
    }
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [&STANDARD, &URL_SAFE].into_iter().find_map(|alphabet| {
        // A decoder may need room for a whole last group beyond the 32 bytes.
        let mut bytes = Zeroizing::new([0; 48]);
        let length = GeneralPurpose::new(alphabet, config)
            .decode_slice(text, &mut *bytes)
            .ok()?;
        let (key, rest) = bytes.split_at_checked(32)?;
        master.copy_from_slice(key);
        (length == 32 && !rest.is_empty()).then(|| master.clone())
    })
}

/// The key that signs checkpoints. Whoever has the master key cannot sign with it.
pub(crate) struct CheckpointKey {
    key: SigningKey,
    /// The file beside the database that holds it, where no other was named.
    pub(crate) beside: Option<PathBuf>,
}

impl CheckpointKey {
    /// Loads the key: `checkpoints.key_file`, or the file beside the database, which is created (0600).
    ///
    /// # Errors
    /// [`Error::is_key`]: a malformed key, a key file that others can read, or none where one was named.
    pub(crate) fn load(config: &Config, checkpoints: &Checkpoints) -> Result<Self, Error> {
        if let Some(path) = &checkpoints.key_file {
            let key = signing_key(path)?.ok_or_else(|| {
                error(format!(
                    "{}: the key file does not exist; put it there, or make {SIGNING_FORM}",
                    path.display()
                ))
            })?;
            return Ok(CheckpointKey { key, beside: None });
        }
        let Storage::Sqlite(database) = &config.storage else {
            return Err(error(format!(
                "checkpoints of a PostgreSQL store need a key: name {SIGNING_FORM} as checkpoints.key_file"
            )));
        };
        let path = sibling(&first(database), ".signing-key");
        let key = match signing_key(&path)? {
            Some(key) => key,
            None => {
                let secret = random()?;
                place(
                    &path,
                    armour("PRIVATE KEY", &[&PKCS8[..], &secret[..]].concat()).as_bytes(),
                )?;
                signing_key(&path)?.ok_or_else(|| removed(&path))?
            }
        };
        Ok(CheckpointKey {
            key,
            beside: Some(path),
        })
    }

    pub(crate) fn public(&self) -> PublicKey {
        PublicKey(self.key.verifying_key().to_bytes())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

/// The public half of a key that signs checkpoints (ed25519); shown as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub(crate) [u8; 32]);

impl PublicKey {
    /// Reads 64 hex digits, or what `openssl pkey -pubout` writes.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.len() == 64
            && let Some(bytes) = parse(text.as_bytes())
        {
            return Some(PublicKey(*bytes));
        }
        let der = unarmour("PUBLIC KEY", text)?;
        der.strip_prefix(&SPKI[..])?.try_into().ok().map(PublicKey)
    }

    /// Reads a file: of a public key in either form, or of a signing key, whose public half it gives.
    ///
    /// # Errors
    /// [`Error::is_key`]: it cannot be read, is no such key, or is a signing key that others can read.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let unreadable = |e: std::io::Error| error(format!("{}: cannot be read: {}", path.display(), e.kind()));
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE as usize + 1));
        let file = File::open(path).map_err(unreadable)?;
        file.take(MAX_FILE + 1).read_to_end(&mut text).map_err(unreadable)?;
        if let Some(key) = std::str::from_utf8(&text).ok().and_then(PublicKey::parse) {
            return Ok(key);
        }
        match signing_key(path) {
            Ok(Some(key)) => Ok(PublicKey(key.verifying_key().to_bytes())),
            Err(e) if e.to_string().contains("chmod") => Err(e),
            _ => Err(error(format!(
                "{}: expected a public key: 64 hex digits, or the PEM that `openssl pkey -pubout` writes",
                path.display()
            ))),
        }
    }

    /// As `openssl` reads it (SubjectPublicKeyInfo in PEM).
    pub fn to_pem(&self) -> String {
        armour("PUBLIC KEY", &[&SPKI[..], &self.0[..]].concat()).to_string()
    }

    /// Whether it is a signature of `message` under this key. Keys and signatures that fit more than one
    /// message are refused.
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.0)
            .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
    }
}

impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

const SIGNING_FORM: &str =
    "an ed25519 key as PKCS#8 in PEM (`umask 077; openssl genpkey -algorithm ed25519 -out FILE` makes one)";
/// What stands before the 32 bytes of a private ed25519 key in PKCS#8, and of a public one (RFC 8410).
const PKCS8: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The signing key in a file; `None` if there is no such file.
fn signing_key(path: &Path) -> Result<Option<SigningKey>, Error> {
    let Some(text) = contents(path)? else { return Ok(None) };
    let secret = std::str::from_utf8(&text)
        .ok()
        .and_then(|text| unarmour("PRIVATE KEY", text))
        .and_then(|der| {
            Some(Zeroizing::new(
                <[u8; 32]>::try_from(der.strip_prefix(&PKCS8[..])?).ok()?,
            ))
        });
    match secret {
        Some(secret) => Ok(Some(SigningKey::from_bytes(&secret))),
        None => Err(error(format!(
            "{}: the file does not hold a key: it must be {SIGNING_FORM}",
            path.display()
        ))),
    }
}

/// PEM of what fits one line of base64, as keys of 32 bytes do.
fn armour(label: &str, der: &[u8]) -> Zeroizing<String> {
    let base64 = Zeroizing::new(BASE64.encode(der));
    Zeroizing::new(format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", *base64))
}

fn unarmour(label: &str, text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let base64 = text
        .trim()
        .strip_prefix(&format!("-----BEGIN {label}-----"))?
        .strip_suffix(&format!("-----END {label}-----"))?;
    let mut der = Zeroizing::new(vec![0; 72]);
    let length = BASE64.decode_slice(base64.trim(), &mut der[..]).ok()?;
    der.truncate(length);
    Some(der)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::config::Token;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff";

    fn given(key: &str) -> Result<Keys, Error> {
        let config = Config {
            key: Some(Token(key.into())),
            ..Config::default()
        };
        Keys::load(&config, false)
    }

    fn beside(folder: &Path) -> Config {
        Config {
            storage: Storage::Sqlite(folder.join("e.db")),
            ..Config::default()
        }
    }

    #[test]
    fn a_given_key_is_taken_in_each_form() {
        let id = given(HEX).unwrap().id;
        for same in [
            HEX.to_uppercase().as_str(),
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv8=",
            " AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv8\n",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv8=",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv8="
                .replace('/', "_")
                .as_str(),
        ] {
            assert_eq!(given(same).unwrap().id, id, "{same}");
        }
        assert_ne!(given(&HEX.replace("ff", "fe")).unwrap().id, id);
    }

    #[test]
    fn a_malformed_key_is_refused_and_not_shown() {
        for bad in [
            "secretsecret",
            "0001",
            &HEX[2..],
            &format!("{HEX}00"),
            &"g".repeat(64),
            "AAECAwQ=",
            "%%%%",
        ] {
            let error = given(bad).err().unwrap();
            assert!(error.is_key(), "{bad}");
            assert!(!format!("{error} {error:?}").contains(bad), "{error}");
        }
    }

    #[test]
    fn a_key_is_made_once_for_an_empty_store() {
        let folder = tempfile::tempdir().unwrap();
        let config = beside(folder.path());
        let ids: Vec<_> = std::thread::scope(|scope| {
            let loads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| Keys::load(&config, true).unwrap().id))
                .collect();
            loads.into_iter().map(|load| load.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]));
        let again = Keys::load(&config, false).unwrap();
        assert_eq!(again.id, ids[0]);
        assert_eq!(again.origin, Origin::Created(folder.path().join("e.db.key")));
        // No draft is left behind.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(folder.path().join("e.db.key"))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_lost_key_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let error = Keys::load(&beside(folder.path()), false).err().unwrap();
        assert!(
            error.is_key() && error.to_string().contains("put this file back"),
            "{error}"
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let config = Config {
            key_file: Some(folder.path().join("none")),
            ..beside(folder.path())
        };
        let error = Keys::load(&config, true).err().unwrap();
        assert!(
            error.is_key() && error.to_string().contains("does not exist"),
            "{error}"
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, HEX).unwrap();
        let config = Config {
            key_file: Some(path.clone()),
            ..beside(folder.path())
        };
        for (mode, fine) in [
            (0o644, false),
            (0o640, false),
            (0o602, false),
            (0o600, true),
            (0o400, true),
        ] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            match Keys::load(&config, false) {
                Ok(keys) => assert!(fine && keys.origin == Origin::File(path.clone()), "{mode:o}"),
                Err(e) => assert!(
                    !fine && e.is_key() && e.to_string().contains("chmod 600"),
                    "{mode:o}: {e}"
                ),
            }
        }
        std::fs::write(&path, "short").unwrap();
        assert!(
            Keys::load(&config, false)
                .err()
                .unwrap()
                .to_string()
                .contains("does not hold a key")
        );
    }

    #[test]
    fn postgres_needs_a_given_key() {
        let config = Config {
            storage: Storage::Postgres(Token("postgres://x".into())),
            ..Config::default()
        };
        assert!(Keys::load(&config, true).err().unwrap().is_key());
    }

    #[test]
    fn a_store_is_judged_by_its_keys() {
        let master = |byte: u8, epoch| Keys::from_master(&[byte; 32], epoch, Origin::Environment);
        let row = |keys: &Keys| (keys.id.clone(), keys.check.to_vec());
        let [first, second, third] = [1, 2, 3].map(|epoch| master(7, epoch));
        let stranger = master(8, 1);
        let first_detection = first.detection;
        assert_eq!(second.judge(&[]), Written::Here);
        assert_eq!(second.judge(&[row(&first)]), Written::Here);
        assert_eq!(second.judge(&[row(&first), row(&second)]), Written::Here);
        assert_eq!(second.judge(&[row(&first), row(&third)]), Written::Later);
        assert_eq!(first.judge(&[row(&second)]), Written::Later);
        assert_eq!(first.judge(&[row(&stranger)]), Written::Elsewhere);
        assert_eq!(second.judge(&[(first.id.clone(), vec![0; 16])]), Written::Elsewhere);
        let earlier: Vec<_> = third.earlier.iter().map(|earlier| earlier.id.clone()).collect();
        assert_eq!(earlier, [second.id, first.id]);
        assert_eq!(third.detection, first_detection, "detection does not rotate");
    }

    #[test]
    fn public_keys_are_read_in_each_form() {
        let key = PublicKey(*b"0123456789abcdef0123456789abcdef");
        assert_eq!(PublicKey::parse(&key.to_pem()), Some(key));
        assert_eq!(PublicKey::parse(&format!(" {key}\n")), Some(key));
        assert_eq!(PublicKey::parse(&key.to_string().to_uppercase()), Some(key));
        for bad in [
            "",
            "0123",
            &key.to_string()[1..],
            &key.to_pem().replace("PUBLIC", "PRIVATE"),
            &armour("PUBLIC KEY", &key.0),
            &armour("PUBLIC KEY", &[&PKCS8[..], &key.0[..]].concat()),
            &armour("PUBLIC KEY", &[0; 54]),
            &key.to_pem().replace("-----END", "-----"),
        ] {
            assert_eq!(PublicKey::parse(bad), None, "{bad}");
        }
    }
}

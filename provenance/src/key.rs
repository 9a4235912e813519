//! One master key, HKDF-SHA-256 subkeys (RFC 5869) for fingerprints, owners and detection.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::Error;
use crate::config::{Config, Storage};
use crate::error::ErrorKind;

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
    pub(crate) owners: Subkey,
    pub(crate) detection: [u8; 32],
    /// Where the master key came from, for `/status`.
    pub(crate) origin: Origin,
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
        let fingerprints = Subkey::derive(master, &format!("fingerprints {epoch}"));
        let id = fingerprints.mac(&[b"key id"])[..8]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let mut check = [0; 16];
        check.copy_from_slice(&Subkey::derive(master, "check").mac(&[b"check value"])[..16]);
        Keys {
            id,
            check,
            epoch,
            fingerprints,
            owners: Subkey::derive(master, "owners"),
            detection: expand(master, "detection"),
            origin,
        }
    }
}

impl Keys {
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
        Ok(Keys::from_master(&master, 1, origin))
    }
}

type Master = Zeroizing<[u8; 32]>;

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
    let mut path = database.clone().into_os_string();
    path.push(".key");
    let path = PathBuf::from(path);
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

/// The key in a file; `None` if there is no such file.
fn read(path: &Path) -> Result<Option<Master>, Error> {
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
    match parse(&text) {
        Some(master) => Ok(Some(master)),
        None => Err(error(format!(
            "{}: the file does not hold a key: it must be {FORM}",
            path.display()
        ))),
    }
}

/// Makes a key file, whole or not at all; of processes that start at once, the first one's stays.
fn create(path: &Path) -> Result<Master, Error> {
    let mut master = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *master).map_err(|_| error("the system gives no random bytes for a key".to_owned()))?;
    let mut suffix = [0; 8];
    getrandom::fill(&mut suffix).map_err(|_| error("the system gives no random bytes for a key".to_owned()))?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{:016x}", u64::from_be_bytes(suffix)));
    let draft = PathBuf::from(draft);
    let linked = write(&draft, &master).and_then(|()| std::fs::hard_link(&draft, path));
    let _ = std::fs::remove_file(&draft);
    match linked {
        Ok(()) => {
            // The name must survive a power cut, as the database that needs it will.
            if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
                let _ = File::open(folder).and_then(|folder| folder.sync_all());
            }
            Ok(master)
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => match read(path)? {
            Some(master) => Ok(master),
            None => Err(error(format!(
                "{}: the key file was removed while starting",
                path.display()
            ))),
        },
        Err(e) => Err(error(format!(
            "{}: a key file cannot be created: {}; check the rights, or give a key through RUNTIME_TRACKING_KEY",
            path.display(),
            e.kind()
        ))),
    }
}

fn write(path: &Path, master: &Master) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut text = Zeroizing::new([0; 65]);
    let (pairs, end) = text.as_chunks_mut::<2>();
    for (pair, byte) in pairs.iter_mut().zip(master.iter()) {
        let digit = |nibble: u8| char::from_digit(nibble.into(), 16).map_or(b'0', |digit| digit as u8);
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
    end.fill(b'\n');
    let mut file = options.open(path)?;
    file.write_all(&*text)?;
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
}

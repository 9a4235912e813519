//! Pseudonyms outside of a running service: for commands that look a person or a value up.

use zeroize::Zeroizing;

use crate::Error;
use crate::config::Config;
use crate::key::Keys;
use crate::store;
use crate::tracked::Value;
use crate::vocabulary::canonical::canonical;
use crate::vocabulary::fingerprint::Fingerprinter;
use crate::vocabulary::owner::Owners;
use crate::vocabulary::{Fingerprint, Kind, Owner};

/// Turns identifiers and values into the pseudonyms that the evidence holds. Needs the master key,
/// as the service has it.
pub struct Pseudonyms {
    owners: Owners,
    fingerprints: Fingerprinter,
}

impl Pseudonyms {
    /// Loads the key that `config` names; never makes one.
    ///
    /// # Errors
    /// [`Error::is_key`] where it is missing or malformed; [`Error::is_store`] where the evidence
    /// cannot be read.
    pub fn load(config: &Config) -> Result<Self, Error> {
        let keys = Keys::load(config, false)?;
        store::check(&config.storage, &keys)?;
        Ok(Pseudonyms {
            owners: Owners::of(config, &keys),
            fingerprints: Fingerprinter::of(config, &keys),
        })
    }

    /// The person with this identifier: kind `email` and an address, kind `user` and an id. `None`
    /// where `kind` is no kind (`[a-z][a-z0-9_]*`) or `identifier` is empty.
    pub fn owner(&self, kind: &str, identifier: &str) -> Option<Owner> {
        self.owners.identified(kind, Value::Text(identifier))
    }

    /// The fingerprint that a value gets now, by the rules of its kind; `None` where it is empty. What the evidence
    /// holds of it may be older: see [`Pseudonyms::fingerprints`].
    pub fn fingerprint(&self, kind: Kind, value: &str) -> Option<Fingerprint> {
        let canonical = Zeroizing::new(canonical(kind, Value::Text(value))?);
        Some(self.fingerprints.fingerprint(canonical.as_bytes()))
    }

    /// Every fingerprint under which the evidence may hold a value: that of the epoch in force first, then those
    /// of earlier ones. Empty where the value is.
    pub fn fingerprints(&self, kind: Kind, value: &str) -> Vec<Fingerprint> {
        let Some(canonical) = canonical(kind, Value::Text(value)).map(Zeroizing::new) else {
            return Vec::new();
        };
        let earlier = self.fingerprints.earlier(canonical.as_bytes());
        std::iter::once(self.fingerprints.fingerprint(canonical.as_bytes()))
            .chain(earlier)
            .collect()
    }
}

//! Who was erased: what keeps a load of an old row from registering a person again.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use crate::key::{Keys, Subkey};
use crate::store::erase::Person;
use crate::vocabulary::{Owner, Timestamp};

const MICROS_A_DAY: i64 = 86_400_000_000;
/// Most people who are noted as met on one day.
const MAX_MET: usize = 65_536;

/// Names an erasure, which may be of several identifiers.
pub(crate) type ErasureId = [u8; 16];

/// The people who were erased and did not come back.
pub(crate) struct Erased {
    key: Subkey,
    people: RwLock<HashMap<Person, ErasureId>>,
    /// Whether there is anybody: nearly always not, and asked at each registration.
    any: AtomicBool,
    /// Those that this process erased itself.
    own: Mutex<HashSet<ErasureId>>,
    /// Those whose people came back, to be written down.
    lifted: Mutex<Vec<ErasureId>>,
    met: Mutex<(i64, HashSet<(Person, &'static str)>)>,
}

impl Erased {
    pub(crate) fn new(keys: &Keys) -> Self {
        Erased {
            key: keys.owners.clone(),
            people: RwLock::default(),
            any: AtomicBool::new(false),
            own: Mutex::default(),
            lifted: Mutex::default(),
            met: Mutex::default(),
        }
    }

    /// What stands for an owner that is gone. With `owners: clear`, too, it can be made by the key alone.
    pub(crate) fn person(&self, owner: &Owner) -> Person {
        // No kind of an owner begins with a zero.
        let mac = self.key.mac(&[b"\0erased\0", owner.as_str().as_bytes()]);
        let (person, _) = mac.as_chunks::<16>();
        person.first().copied().unwrap_or_default()
    }

    pub(crate) fn add(&self, person: Person, erasure: ErasureId) {
        self.people
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(person, erasure);
        self.any.store(true, Ordering::Release);
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<(Person, ErasureId)> {
        let people = self.people.read().unwrap_or_else(PoisonError::into_inner);
        people.iter().map(|(person, erasure)| (*person, *erasure)).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }

    pub(crate) fn has(&self, owner: &Owner) -> bool {
        !self.is_empty() && self.of(&self.person(owner)).is_some()
    }

    fn of(&self, person: &Person) -> Option<ErasureId> {
        self.people
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(person)
            .copied()
    }

    /// The people of this erasure came back. `false` if that was known.
    pub(crate) fn remove(&self, erasure: &ErasureId) -> bool {
        let mut people = self.people.write().unwrap_or_else(PoisonError::into_inner);
        let before = people.len();
        people.retain(|_, of| of != erasure);
        self.any.store(!people.is_empty(), Ordering::Release);
        people.len() < before
    }

    /// Somebody came back: with all their identifiers. `false` if they were not away.
    pub(crate) fn readmit(&self, owner: &Owner) -> bool {
        if self.is_empty() {
            return false;
        }
        let Some(erasure) = self.of(&self.person(owner)) else {
            return false;
        };
        let came_back = self.remove(&erasure);
        if came_back {
            lock(&self.lifted).push(erasure);
        }
        came_back
    }

    /// Whether there are some to be written down.
    pub(crate) fn is_lifting(&self) -> bool {
        !lock(&self.lifted).is_empty()
    }

    /// Those that are to be written down.
    pub(crate) fn lifted(&self) -> Vec<ErasureId> {
        std::mem::take(&mut *lock(&self.lifted))
    }

    pub(crate) fn note_own(&self, erasure: ErasureId) {
        lock(&self.own).insert(erasure);
    }

    pub(crate) fn is_own(&self, erasure: &ErasureId) -> bool {
        lock(&self.own).contains(erasure)
    }

    /// Whether this is the first time today that they were met there.
    pub(crate) fn is_first_met(&self, owner: &Owner, place: &'static str) -> bool {
        let day = Timestamp::now().0.div_euclid(MICROS_A_DAY);
        let mut met = lock(&self.met);
        if met.0 != day || met.1.len() >= MAX_MET {
            *met = (day, HashSet::new());
        }
        met.1.insert((self.person(owner), place))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

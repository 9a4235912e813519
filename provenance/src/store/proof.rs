//! What stands beside an event's columns: its leaf, and the salts with which they give it.
//!
//! `proof` is the event's salt (16 bytes) and its leaf (32). After an erasure it is the leaf, the salts of the
//! items that remain (how many; for each its number in 2 bytes and the salt), and the commitments of the
//! parts that are gone (how many; for each its number and the commitment). Tags that are gone have theirs in
//! their place.

use super::chain::{Hash, Salt, Salts};
use super::pack::{self, Input};

/// A row's proof.
#[derive(Clone)]
pub(super) struct Proof {
    pub(super) leaf: Hash,
    pub(super) salts: Salts,
    /// Parts, by number.
    pub(super) gone: Vec<(u16, Hash)>,
}

impl Proof {
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        if let Ok(bytes) = <&[u8; 48]>::try_from(bytes) {
            let (salt, leaf) = bytes.split_first_chunk::<16>()?;
            return Some(Proof {
                leaf: leaf.try_into().ok()?,
                salts: Salts::of_event(*salt),
                gone: Vec::new(),
            });
        }
        let mut input = Input(bytes);
        let leaf = *input.array()?;
        let mut salts: Vec<(u16, Salt)> = Vec::new();
        for _ in 0..input.number()? {
            salts.push((u16::from_be_bytes(*input.array()?), *input.array()?));
        }
        let mut gone = Vec::new();
        for _ in 0..input.number()? {
            gone.push((u16::from_be_bytes(*input.array()?), *input.array()?));
        }
        input.is_empty().then_some(Proof {
            leaf,
            salts: Salts::Remaining(salts),
            gone,
        })
    }

    /// The commitment of a part that is gone.
    pub(super) fn erased(&self, number: u16) -> Option<&Hash> {
        self.gone
            .iter()
            .find(|(gone, _)| *gone == number)
            .map(|(_, commitment)| commitment)
    }

    /// The long form.
    #[cfg_attr(not(test), expect(dead_code, reason = "for erasures"))]
    pub(super) fn write(leaf: &Hash, salts: &[(u16, Salt)], gone: &[(u16, Hash)]) -> Vec<u8> {
        let mut out = leaf.to_vec();
        pack::put(&mut out, salts.len() as u64);
        for (number, salt) in salts {
            out.extend(number.to_be_bytes());
            out.extend(salt);
        }
        pack::put(&mut out, gone.len() as u64);
        for (number, commitment) in gone {
            out.extend(number.to_be_bytes());
            out.extend(commitment);
        }
        out
    }
}

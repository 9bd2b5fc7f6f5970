//! Which task has which key.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};

/// Positions of tasks by the hashes of their keys. The keys themselves are on the disk, where the caller
/// compares them.
///
/// A submitter cannot know which keys have the same hash: it is a keyed one, and another in each process.
#[derive(Debug, Default)]
pub(crate) struct KeyIndex {
    hasher: RandomState,
    positions: HashMap<u64, Positions>,
    len: usize,
}

/// Tasks whose keys have the same hash: one, as a rule.
#[derive(Debug)]
enum Positions {
    One(u64),
    Many(Vec<u64>),
}

impl Positions {
    fn as_slice(&self) -> &[u64] {
        match self {
            Self::One(position) => std::slice::from_ref(position),
            Self::Many(positions) => positions,
        }
    }
}

impl KeyIndex {
    /// Returns the number of keys.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns the positions of tasks that may have this key.
    pub(crate) fn candidates(&self, key: &[u8]) -> &[u64] {
        self.positions.get(&self.hasher.hash_one(key)).map_or(&[], Positions::as_slice)
    }

    /// Notes that a task has this key.
    pub(crate) fn insert(&mut self, key: &[u8], position: u64) {
        self.len += 1;
        match self.positions.entry(self.hasher.hash_one(key)) {
            Entry::Vacant(place) => {
                place.insert(Positions::One(position));
            }
            Entry::Occupied(place) => {
                let positions = place.into_mut();
                *positions = Positions::Many([positions.as_slice(), &[position]].concat());
            }
        }
    }

    /// Forgets the key of a task.
    pub(crate) fn remove(&mut self, key: &[u8], position: u64) {
        let Entry::Occupied(mut place) = self.positions.entry(self.hasher.hash_one(key)) else {
            return;
        };
        let positions = place.get().as_slice();
        let rest: Vec<u64> = positions.iter().copied().filter(|it| *it != position).collect();
        self.len -= positions.len() - rest.len();
        match rest[..] {
            [] => drop(place.remove()),
            [one] => *place.get_mut() = Positions::One(one),
            _ => *place.get_mut() = Positions::Many(rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_and_forgotten_one_by_one() {
        let mut keys = KeyIndex::default();
        for position in 0..1000_u64 {
            keys.insert(&position.to_le_bytes(), position);
        }
        keys.insert(b"same", 5000);
        keys.insert(b"same", 6000);
        assert_eq!((keys.len(), keys.candidates(b"same")), (1002, &[5000, 6000][..]));
        assert_eq!(keys.candidates(&7_u64.to_le_bytes()), [7]);
        assert!(keys.candidates(b"none").is_empty());
        keys.remove(b"same", 5000);
        keys.remove(b"same", 1);
        keys.remove(b"none", 1);
        assert_eq!((keys.len(), keys.candidates(b"same")), (1001, &[6000][..]));
        keys.remove(b"same", 6000);
        assert_eq!((keys.len(), keys.candidates(b"same")), (1000, &[][..]));
        for position in 0..1000_u64 {
            keys.remove(&position.to_le_bytes(), position);
        }
        assert!(keys.len() == 0 && keys.positions.is_empty());
    }
}

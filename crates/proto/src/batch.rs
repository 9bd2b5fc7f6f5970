//! Lists whose length is bounded when they come from a peer.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::BATCH_TASKS_MAX;

/// A list that refuses to be decoded with more than `MAX` elements.
///
/// A frame's size alone does not bound memory: an element of one byte on the wire may take a
/// hundred in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Bounded<T, const MAX: usize>(pub Vec<T>);

/// Tasks or results of one message.
pub type Batch<T> = Bounded<T, BATCH_TASKS_MAX>;

/// Bytes of a list that are reserved because a message says that they are needed. Beyond them a list
/// grows with the elements that come.
const CLAIMED_BYTES_MAX: usize = 256 << 10;

/// Returns the number of elements to reserve memory for, of as many as a message claims to have.
pub(crate) fn cautious<T>(claimed: usize) -> usize {
    claimed.min(CLAIMED_BYTES_MAX / size_of::<T>().max(1))
}

impl<T, const MAX: usize> Default for Bounded<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const MAX: usize> From<Vec<T>> for Bounded<T, MAX> {
    fn from(list: Vec<T>) -> Self {
        debug_assert!(list.len() <= MAX, "a list of {} is never sent", list.len());
        Self(list)
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Bounded<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T, const MAX: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Elements<T, MAX> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX} elements")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
                let claimed = seq.size_hint().unwrap_or(0);
                if claimed > MAX {
                    return Err(A::Error::invalid_length(claimed, &self));
                }
                let mut list = Vec::with_capacity(cautious::<T>(claimed));
                while let Some(element) = seq.next_element()? {
                    if list.len() == MAX {
                        return Err(A::Error::invalid_length(MAX + 1, &self));
                    }
                    list.push(element);
                }
                Ok(list)
            }
        }

        deserializer.deserialize_seq(Elements::<T, MAX>(PhantomData)).map(Self)
    }
}

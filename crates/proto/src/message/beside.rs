//! Lists of which a part travels beside the elements: the numbers that are random come together before the
//! list, as they are in memory.
//!
//! As fields of the elements they would be what costs most of them, since random numbers are as long as
//! numbers get.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Task, TaskResult};
use crate::batch::Batch;
use crate::{Tag, TaskHash};

/// Bytes of a tag.
const TAG_BYTES: usize = size_of::<u64>();

/// Element of which a part travels beside it.
pub(super) trait Split {
    /// That part.
    type Beside: for<'a> TryFrom<&'a [u8]>;
    /// Bytes of that part.
    const BYTES: usize;

    fn beside(&self) -> Self::Beside;
    fn flat(all: &[Self::Beside]) -> &[u8];
    fn complete(&mut self, beside: Self::Beside);
}

/// Its tag and its hash.
impl<P> Split for Task<P> {
    type Beside = [u8; 12];
    const BYTES: usize = TAG_BYTES + size_of::<u32>();

    #[inline]
    fn beside(&self) -> [u8; 12] {
        let (tag, hash) = (u128::from(self.tag.0), u128::from(self.hash.0));
        let [beside @ .., _, _, _, _] = (tag | hash << 64).to_le_bytes();
        beside
    }

    #[inline]
    fn flat(all: &[[u8; 12]]) -> &[u8] {
        all.as_flattened()
    }

    #[inline]
    fn complete(&mut self, [tag @ .., a, b, c, d]: [u8; 12]) {
        self.tag = Tag(u64::from_le_bytes(tag));
        self.hash = TaskHash(u32::from_le_bytes([a, b, c, d]));
    }
}

/// Its tag.
impl<P> Split for TaskResult<P> {
    type Beside = [u8; TAG_BYTES];
    const BYTES: usize = TAG_BYTES;

    #[inline]
    fn beside(&self) -> [u8; TAG_BYTES] {
        self.tag.0.to_le_bytes()
    }

    #[inline]
    fn flat(all: &[[u8; TAG_BYTES]]) -> &[u8] {
        all.as_flattened()
    }

    #[inline]
    fn complete(&mut self, tag: [u8; TAG_BYTES]) {
        self.tag = Tag(u64::from_le_bytes(tag));
    }
}

/// Bytes as such, and not as a list of numbers.
struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

pub(super) fn serialize<T: Split + Serialize, S: Serializer>(
    list: &Batch<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let beside: Vec<T::Beside> = list.0.iter().map(T::beside).collect();
    let mut parts = serializer.serialize_tuple(2)?;
    parts.serialize_element(&Raw(T::flat(&beside)))?;
    parts.serialize_element(list)?;
    parts.end()
}

pub(super) fn deserialize<'de, T: Split + Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Batch<T>, D::Error> {
    struct Parts<T>(PhantomData<T>);

    impl<'de, T: Split + Deserialize<'de>> Visitor<'de> for Parts<T> {
        type Value = Batch<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list, with what travels beside it")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Batch<T>, A::Error> {
            let missing = || A::Error::custom("a part is missing");
            let beside: &'de [u8] = parts.next_element()?.ok_or_else(missing)?;
            let mut list: Batch<T> = parts.next_element()?.ok_or_else(missing)?;
            if beside.len() != list.0.len() * T::BYTES {
                return Err(A::Error::invalid_length(beside.len(), &self));
            }
            for (element, beside) in list.0.iter_mut().zip(beside.chunks_exact(T::BYTES)) {
                element.complete(beside.try_into().map_err(|_| missing())?);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_tuple(2, Parts(PhantomData))
}

//! Bytes of a task, or of its output.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use serde::{Serialize, Serializer};

/// Bytes that may be shared.
///
/// Short ones are kept in place: to count references to a buffer costs more than to copy them,
/// most of all where two threads do so, and a task that lives long would keep alive all that was
/// read together with it.
#[derive(Clone)]
pub struct Payload(Repr);

#[derive(Clone)]
enum Repr {
    Short(Short),
    Shared(Bytes),
}

/// Aligned, so that it is copied by words.
#[derive(Clone, Copy)]
#[repr(align(8))]
struct Short {
    bytes: [u8; SHORT_BYTES_MAX],
    len: u8,
}

/// Number of bytes that fit beside the pointers of [`Bytes`] without making the whole larger.
const SHORT_BYTES_MAX: usize = 23;

impl Payload {
    /// Creates an empty payload.
    #[must_use]
    pub const fn new() -> Self {
        Self(Repr::Short(Short { bytes: [0; SHORT_BYTES_MAX], len: 0 }))
    }

    /// Creates a payload from a part of a buffer, which is shared if the part is too long to be
    /// copied.
    ///
    /// # Panics
    ///
    /// When it is not a part of it.
    #[must_use]
    pub fn part_of(buffer: &Bytes, part: &[u8]) -> Self {
        Self::short(part).unwrap_or_else(|| Self(Repr::Shared(buffer.slice_ref(part))))
    }

    /// Returns the text of a line, as a shell's `$(…)` takes it: without the newline at its end. A
    /// payload that is not UTF-8 is no text, and is returned unchanged.
    #[must_use]
    pub fn without_newline(self) -> Self {
        match self.strip_suffix(b"\n") {
            Some(line) if std::str::from_utf8(line).is_ok() => {
                let length = line.len();
                match self.0 {
                    Repr::Short(Short { bytes, .. }) => {
                        Self(Repr::Short(Short { bytes, len: length as u8 }))
                    }
                    Repr::Shared(bytes) => bytes.slice(..length).into(),
                }
            }
            _ => self,
        }
    }

    /// Returns the same bytes, in memory of their own.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        Self::short(bytes).unwrap_or_else(|| Self(Repr::Shared(Bytes::copy_from_slice(bytes))))
    }

    #[inline]
    fn short(part: &[u8]) -> Option<Self> {
        let mut bytes = [0; SHORT_BYTES_MAX];
        bytes.get_mut(..part.len())?.copy_from_slice(part);
        Some(Self(Repr::Short(Short { bytes, len: part.len() as u8 })))
    }
}

impl Deref for Payload {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Short(Short { bytes, len }) => &bytes[..usize::from(*len)],
            Repr::Shared(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Default for Payload {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::short(&bytes).unwrap_or(Self(Repr::Shared(bytes)))
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static [u8]> for Payload {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

impl<const N: usize> From<&'static [u8; N]> for Payload {
    fn from(bytes: &'static [u8; N]) -> Self {
        bytes[..].into()
    }
}

impl From<&'static str> for Payload {
    fn from(text: &'static str) -> Self {
        text.as_bytes().into()
    }
}

impl From<Payload> for Bytes {
    fn from(payload: Payload) -> Self {
        match payload.0 {
            Repr::Short(_) => Self::copy_from_slice(&payload),
            Repr::Shared(bytes) => bytes,
        }
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Payload {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl Eq for Payload {}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self)
    }
}

/// Moves payloads that are parts of shared buffers into one of their own, which is as large as they are. So the
/// others keep no memory that was read together with them.
pub fn move_out<'a>(payloads: impl IntoIterator<Item = &'a mut Payload>) {
    let is_shared = |payload: &&'a mut Payload| matches!(payload.0, Repr::Shared(_));
    let shared: Vec<&mut Payload> = payloads.into_iter().filter(is_shared).collect();
    let mut buffer = Vec::with_capacity(shared.iter().map(|payload| payload.len()).sum());
    shared.iter().for_each(|payload| buffer.extend_from_slice(payload));
    let mut rest = Bytes::from(buffer);
    for payload in shared {
        let length = payload.len();
        *payload = Payload(Repr::Shared(rest.split_to(length)));
    }
}

/// Bytes that hardly any of many values have: in one word, where a [`Payload`] takes three.
#[derive(Debug, PartialEq, Eq)]
pub struct Rare<P = Payload>(Option<Box<P>>);

impl<P> Rare<P> {
    /// Bytes in a shared buffer, seldom copied into memory of their own.
    pub fn map<Q>(self, turn: impl FnOnce(P) -> Q) -> Rare<Q> {
        Rare(self.0.map(|bytes| Box::new(turn(*bytes))))
    }

    /// Returns the bytes, if there are any.
    pub fn get(&self) -> Option<&P> {
        self.0.as_deref()
    }

    /// Returns the bytes, to be changed, if there are any.
    pub fn get_mut(&mut self) -> Option<&mut P> {
        self.0.as_deref_mut()
    }

    /// Stores bytes.
    pub fn some(bytes: P) -> Self {
        Self(Some(Box::new(bytes)))
    }
}

impl<P: Clone> Clone for Rare<P> {
    #[inline]
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<P> Default for Rare<P> {
    fn default() -> Self {
        Self(None)
    }
}

impl<P: AsRef<[u8]>> Deref for Rare<P> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.0.as_deref().map_or(b"", AsRef::as_ref)
    }
}

impl<P: AsRef<[u8]>> AsRef<[u8]> for Rare<P> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<T: Into<Payload>> From<T> for Rare {
    fn from(bytes: T) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() { Self::default() } else { Self::some(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_its_length_it_holds_what_it_was_given() {
        for length in 0..=64 {
            let buffer = Bytes::from((0..100 + length).collect::<Vec<u8>>());
            let part = &buffer[7..7 + usize::from(length)];
            let payload = Payload::part_of(&buffer, part);
            assert_eq!(&*payload, part);
            assert_eq!(payload, Payload::from(part.to_vec()));
            assert_eq!(Payload::copy_of(part), part);
            assert_eq!(&Bytes::from(payload.clone())[..], part);
            let is_shared = payload.as_ptr() == part.as_ptr();
            assert_eq!(is_shared, part.len() > SHORT_BYTES_MAX);
        }
    }

    #[test]
    fn what_is_moved_out_is_the_same_and_keeps_no_other_memory() {
        let buffer = Bytes::from((0..=255).cycle().take(5_000).collect::<Vec<u8>>());
        let parts = [&buffer[..10], &buffer[10..200], &buffer[1_000..1_000], &buffer[900..4_000]];
        let mut payloads = parts.map(|part| Payload::part_of(&buffer, part));
        move_out(&mut payloads);
        assert!(buffer.is_unique(), "nothing else refers to it");
        assert_eq!(payloads, parts);
    }

    #[test]
    fn a_line_goes_without_its_newline() {
        let long = "x".repeat(100);
        for (output, line) in [
            (&b"a\n"[..], &b"a"[..]),
            (b"a\n\n", b"a\n"),
            (b"\n", b""),
            (b"", b""),
            (b"a\r\n", b"a\r"),
            (b"\xff\n", b"\xff\n"),
            (format!("{long}\n").as_bytes(), long.as_bytes()),
        ] {
            assert_eq!(&*Payload::from(output.to_vec()).without_newline(), line, "{output:?}");
        }
    }

    #[test]
    fn rare_bytes_take_a_word() {
        assert_eq!(size_of::<Rare>(), size_of::<usize>());
        assert_eq!(&*Rare::from(b"err"), b"err");
        assert_eq!(Rare::from(b""), Rare::default());
    }

    #[test]
    fn it_is_no_larger_than_a_shared_buffer() {
        assert_eq!(size_of::<Payload>(), size_of::<Bytes>());
    }
}

//! Bytes of a segment that are read a chunk at a time.

use std::io;
use std::ops::Range;

use bytes::Bytes;

use super::Medium;

/// Bytes of one segment that were read last, and where they begin.
#[derive(Clone, Debug)]
pub struct Chunk {
    read_bytes: u64,
    start: u64,
    bytes: Bytes,
}

impl Chunk {
    /// Creates one without bytes. This number of bytes is read at a time, or as many as are asked for.
    #[must_use]
    pub const fn new(read_bytes: u64) -> Self {
        Self { read_bytes, start: 0, bytes: Bytes::new() }
    }

    /// Returns the byte of the segment behind those that it has; `None` if it has none.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        (!self.is_empty()).then(|| self.start + self.bytes.len() as u64)
    }

    /// Returns whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Frees the bytes.
    pub fn clear(&mut self) {
        self.bytes = Bytes::new();
    }

    /// Returns this number of bytes from here, of a segment that ends at `end`; `None` if it has fewer.
    ///
    /// # Errors
    ///
    /// When the segment cannot be read.
    pub fn bytes_at(
        &mut self,
        medium: &mut impl Medium,
        segment: u64,
        at: u64,
        count: u64,
        end: u64,
    ) -> io::Result<Option<Bytes>> {
        let most = count.max(self.read_bytes);
        self.bytes_of(medium, segment, at, count..most, end)
    }

    /// Returns the first of these numbers of bytes, and reads the second if some have to be read: whoever keeps what is
    /// returned keeps all that was read with it.
    ///
    /// # Errors
    ///
    /// When the segment cannot be read.
    pub fn bytes_of(
        &mut self,
        medium: &mut impl Medium,
        segment: u64,
        at: u64,
        Range { start: count, end: most }: Range<u64>,
        end: u64,
    ) -> io::Result<Option<Bytes>> {
        if at.saturating_add(count) > end {
            return Ok(None);
        }
        if let Some(bytes) = self.within(at, count) {
            return Ok(Some(bytes));
        }
        let room = most.max(count).min(end - at);
        let mut bytes = vec![0; usize::try_from(room).map_err(io::Error::other)?];
        let read = medium.read_at(segment, at, &mut bytes)?;
        bytes.truncate(read);
        (self.start, self.bytes) = (at, bytes.into());
        Ok(self.within(at, count))
    }

    fn within(&self, at: u64, count: u64) -> Option<Bytes> {
        let from = usize::try_from(at.checked_sub(self.start)?).ok()?;
        let to = from.checked_add(usize::try_from(count).ok()?)?;
        (to <= self.bytes.len()).then(|| self.bytes.slice(from..to))
    }
}

//! Reading a log, from any position on.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use tradewind_records::{Chunk, Medium};

use super::{CHUNK_BYTES, Log, damaged};
use crate::error::LogError;
use crate::format::{HEAD_BYTES, Head};

/// Place at which reading goes on.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) segment: u64,
    at: u64,
    chunk: Chunk,
    /// Position of the first entry of the batch at `at`.
    next: u64,
    /// The batch at `at`, if some of its entries were taken.
    begun: Option<Begun>,
}

/// Batch of which the first entries were taken: it is neither read nor checked again for the others.
#[derive(Debug)]
struct Begun {
    head: Head,
    /// Position of the next entry, and that after the last.
    position: u64,
    end: u64,
    rest: Bytes,
}

/// Entry that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its position.
    pub position: u64,
    /// Byte of its segment at which its batch begins: with it, [`Log::entry_at`] finds it at once.
    pub batch: u64,
    /// Its bytes.
    pub bytes: Bytes,
}

/// Bytes that are read for one entry, and its whole batch if that has more.
const ENTRY_READ_BYTES: u64 = 16 << 10;

/// Bytes from which on a batch is read, or passed over, by itself.
const LARGE_BYTES: u64 = 64 << 10;

/// How a walk goes on after an entry.
#[derive(Clone, Copy, Debug)]
pub(super) enum Then {
    GoOn,
    Stop,
    /// The entry was not taken: the next walk begins with it.
    StopBefore,
}

impl<M: Medium> Log<M> {
    /// Returns entries from a position on: at least one if there is one, and as many more as fit into these
    /// bytes. The first may be a later one, if those before were removed.
    ///
    /// # Errors
    ///
    /// When they cannot be read, or are damaged.
    pub fn read(&mut self, from: u64, bytes_max: usize) -> Result<Vec<(u64, Bytes)>, LogError> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        self.walk(from..u64::MAX, None, |entry| {
            bytes += entry.bytes.len();
            if !entries.is_empty() && bytes > bytes_max {
                return Ok::<_, LogError>(Then::StopBefore);
            }
            entries.push((entry.position, entry.bytes));
            Ok(if bytes < bytes_max { Then::GoOn } else { Then::Stop })
        })?;
        Ok(entries)
    }

    /// Returns the entry with a position, whose batch begins at this byte of its segment; `None` if it was
    /// removed. Reads its batch, and of the rest of the segment nothing.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or there is no such batch.
    pub fn entry_at(&mut self, position: u64, batch: u64) -> Result<Option<Bytes>, LogError> {
        let Some(number) = self.segment_with(position).filter(|number| *number <= position) else {
            return Ok(None);
        };
        let (mut chunk, end) = (Chunk::new(ENTRY_READ_BYTES), self.segments[&number].bytes);
        let mut source = Source { medium: &mut self.medium, id: self.id, segment: number, end };
        let (head, end) = source.head(&mut chunk, batch)?;
        if !(head.first..end).contains(&position) {
            return Err(damaged(number, batch, "its positions"));
        }
        let mut rest = source.body(&mut chunk, batch, head)?;
        for _ in head.first..position {
            source.take_entry(&mut rest, batch)?;
        }
        source.take_entry(&mut rest, batch).map(Some)
    }

    /// Gives the entries in this range of batches that have one of these marks; others are not read.
    ///
    /// # Errors
    ///
    /// When they cannot be read, are damaged, or `visit` fails.
    pub fn visit<E: From<LogError>>(
        &mut self,
        range: Range<u64>,
        marks: u32,
        mut visit: impl FnMut(Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        self.walk(range, Some(marks), |entry| {
            visit(entry)?;
            Ok(Then::GoOn)
        })
    }

    /// Gives the entries in this range, of all batches or of those with one of these marks, until it is told
    /// to stop. The next walk goes on without looking for its place.
    pub(super) fn walk<E: From<LogError>>(
        &mut self,
        range: Range<u64>,
        marks: Option<u32>,
        mut visit: impl FnMut(Entry) -> Result<Then, E>,
    ) -> Result<(), E> {
        let Range { start: mut from, end: to } = range;
        while from < self.committed.min(to) {
            let Some((mut source, reader)) = self.seek(from)? else { break };
            let at = reader.at;
            let begun = match reader.begun.take() {
                Some(begun) => begun,
                None => source.begin(&mut reader.chunk, at, marks)?,
            };
            let Begun { head, mut position, end, rest: body } = begun;
            let (mut then, mut rest) = (Then::GoOn, body.clone());
            let is_wanted = marks.is_none_or(|marks| head.marks & marks != 0);
            while is_wanted && position < end {
                let (this, before) = (position, rest.len());
                let bytes = source.take_entry(&mut rest, at)?;
                position += 1;
                if !(from..to).contains(&this) {
                    continue;
                }
                then = visit(Entry { position: this, batch: at, bytes })?;
                let left = match then {
                    Then::StopBefore => Some((this, before)),
                    Then::Stop if position < end => Some((position, rest.len())),
                    Then::Stop | Then::GoOn => None,
                };
                if let Some((position, left)) = left {
                    let rest = body.slice(body.len() - left..);
                    reader.begun = Some(Begun { head, position, end, rest });
                    return Ok(());
                }
            }
            from = from.max(end);
            (reader.at, reader.next) = (at + head.batch_bytes(), end);
            if matches!(then, Then::Stop) {
                break;
            }
        }
        Ok(())
    }

    /// Finds the batch with this position, or the next one that there is.
    fn seek(&mut self, from: u64) -> Result<Option<(Source<'_, M>, &mut Reader)>, LogError> {
        let Some(number) = self.segment_with(from) else { return Ok(None) };
        self.learn(number, false)?;
        let segment = &self.segments[&number];
        let goes_on = |reader: &Reader| {
            reader.segment == number && reader.next <= from && reader.at < segment.bytes
        };
        if !self.reader.as_ref().is_some_and(goes_on) {
            let place = segment.places.partition_point(|(first, _)| *first <= from);
            let (next, at) = segment.places[place.saturating_sub(1)];
            let chunk = Chunk::new(CHUNK_BYTES);
            self.reader = Some(Reader { segment: number, at, chunk, next, begun: None });
        }
        let reader = self.reader.as_mut().expect("it was just made");
        let end = segment.bytes;
        let mut source = Source { medium: &mut self.medium, id: self.id, segment: number, end };
        let goes_on = |begun: &Begun| (begun.position..begun.end).contains(&from);
        if reader.begun.as_ref().is_some_and(goes_on) {
            return Ok(Some((source, reader)));
        }
        reader.begun = None;
        // Batches before the one with the position are passed over by their heads.
        loop {
            let (head, end) = source.head(&mut reader.chunk, reader.at)?;
            if end > from {
                return Ok(Some((source, reader)));
            }
            (reader.at, reader.next) = (reader.at + head.batch_bytes(), end);
        }
    }

    /// Returns the segment with this position, or the next one that there is.
    fn segment_with(&self, from: u64) -> Option<u64> {
        let before = self.segments.range(..=from).next_back();
        let after = self.segments.range(from..).next();
        let with = before.filter(|(_, segment)| from < segment.end);
        with.or(after.filter(|(number, segment)| segment.end > **number)).map(|(number, _)| *number)
    }

    /// Reads every entry, and returns their number.
    ///
    /// # Errors
    ///
    /// When something cannot be read, or is damaged: with its place.
    pub fn check(&mut self) -> Result<u64, LogError> {
        let (mut count, mut from) = (0, 0);
        loop {
            let entries = self.read(from, usize::try_from(CHUNK_BYTES).expect("a megabyte"))?;
            let Some((last, _)) = entries.last() else { return Ok(count) };
            (count, from) = (count + entries.len() as u64, last + 1);
        }
    }
}

/// Segment whose batches are read.
pub(super) struct Source<'a, M> {
    pub(super) medium: &'a mut M,
    pub(super) id: u64,
    pub(super) segment: u64,
    /// Byte after its last batch.
    pub(super) end: u64,
}

impl<M: Medium> Source<'_, M> {
    /// Returns the head of the batch that begins here, and the position after its last entry.
    pub(super) fn head(&mut self, chunk: &mut Chunk, at: u64) -> Result<(Head, u64), LogError> {
        let bytes = head_bytes(self.medium, chunk, self.segment, at, self.end)?;
        let bytes = bytes.ok_or_else(|| damaged(self.segment, at, "it ends within a batch"))?;
        let head = Head::decode(&bytes, self.id);
        let head = head.ok_or_else(|| damaged(self.segment, at, "the head of a batch"))?;
        let end = head.end().ok_or_else(|| damaged(self.segment, at, "its positions"))?;
        Ok((head, end))
    }

    /// Begins with the batch at `at`: without its body, if it has none of these marks.
    fn begin(&mut self, chunk: &mut Chunk, at: u64, marks: Option<u32>) -> Result<Begun, LogError> {
        let (head, end) = self.head(chunk, at)?;
        let is_wanted = marks.is_none_or(|marks| head.marks & marks != 0);
        let rest = if is_wanted { self.body(chunk, at, head)? } else { Bytes::new() };
        Ok(Begun { head, position: head.first, end, rest })
    }

    pub(super) fn body(
        &mut self,
        chunk: &mut Chunk,
        at: u64,
        head: Head,
    ) -> Result<Bytes, LogError> {
        let (from, count) = (at + HEAD_BYTES as u64, u64::from(head.body_bytes));
        // Entries keep what was read with them. Of a large batch that is itself, and the head of the next.
        let most = match count < LARGE_BYTES {
            true => CHUNK_BYTES,
            false => head.batch_bytes(),
        };
        let body = chunk.bytes_of(self.medium, self.segment, from, count..most, self.end)?;
        let body = body.ok_or_else(|| damaged(self.segment, at, "it ends within a batch"))?;
        let is_right = crc32fast::hash(&body) == head.body_crc;
        is_right.then_some(body).ok_or_else(|| damaged(self.segment, at, "the body of a batch"))
    }

    /// Takes the next entry off the front of the body of the batch that begins here.
    fn take_entry(&self, body: &mut Bytes, at: u64) -> Result<Bytes, LogError> {
        let entry = take_entry(body);
        entry.ok_or_else(|| damaged(self.segment, at, "the length of an entry"))
    }
}

/// Returns the bytes of a head, of a segment that ends at `end`; `None` if it has fewer. Whoever passed over a large batch
/// as a rule passes over the next: of that no more is read.
pub(super) fn head_bytes(
    medium: &mut impl Medium,
    chunk: &mut Chunk,
    segment: u64,
    at: u64,
    end: u64,
) -> io::Result<Option<Bytes>> {
    let is_far = chunk.end().is_some_and(|end| at >= end + LARGE_BYTES);
    let count = HEAD_BYTES as u64;
    chunk.bytes_of(medium, segment, at, count..if is_far { count } else { CHUNK_BYTES }, end)
}

/// Takes the next entry off the front of a batch's body.
pub(super) fn take_entry(body: &mut Bytes) -> Option<Bytes> {
    let (len, _) = body.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    if body.len() - 4 < len {
        return None;
    }
    let _ = body.split_to(4);
    Some(body.split_to(len))
}

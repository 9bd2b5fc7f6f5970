//! A row of entries with positions, in segments.

mod learn;
mod read;
mod survey;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use tradewind_records::Medium;

use self::learn::header_of;
pub use self::read::Entry;
use self::read::Reader;
pub use self::survey::Survey;
pub(crate) use self::survey::{Surveyed, survey};
use crate::error::LogError;
use crate::format::{ALIGN, HEAD_BYTES, HEADER_BYTES, Head, Header, Kind};

/// Sizes of a log's segments.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// Bytes after which a segment is full. One with a larger batch has only that.
    pub segment_bytes: u64,
    /// Bytes that are filled with zeros ahead of what is appended: a sync has to wait for the file
    /// system's own notes only where a file grows.
    pub zeroed_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, zeroed_bytes: 4 << 20 }
    }
}

/// What was found in a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Positions that are there, ascending; what is missing between two was removed.
    pub ranges: Vec<Range<u64>>,
    /// Bytes of a batch that was being written when the process or the machine ended: they do not count.
    pub torn_bytes: u64,
}

/// A log. One process has it at a time; that is for its owner to see to.
///
/// An entry is at most 4 GiB. Entries that are [appended](Self::append) wait in memory until they are
/// [committed](Self::commit).
#[derive(Debug)]
pub struct Log<M> {
    medium: M,
    kind: Kind,
    id: u64,
    options: LogOptions,
    /// By the position of the first entry, which is the segment's number too.
    segments: BTreeMap<u64, Segment>,
    /// Position of the next entry that is committed.
    committed: u64,
    batch: Batch,
    reader: Option<Reader>,
    /// Segment whose header was not written to its end: it goes with the next commit.
    unfinished: Option<u64>,
    /// Whether batches of the last segment are not synced, because the [medium](Medium::is_synced) is not to be.
    is_behind: bool,
}

#[derive(Debug)]
struct Segment {
    /// Bytes of the header and of whole batches.
    bytes: u64,
    /// Bytes that the file has: from `bytes` on zeros, or what was torn.
    file_bytes: u64,
    /// Position after the last entry.
    end: u64,
    /// Places of some batches, by the positions of their first entries.
    places: Vec<(u64, u64)>,
    /// Whether every batch was looked at: else there are no places.
    is_known: bool,
    /// Whether it has an end: nothing is appended any more.
    is_closed: bool,
    /// Whether what was torn is yet to be filled with zeros, before anything is appended.
    is_torn: bool,
}

/// Batch that is being made.
#[derive(Debug, Default)]
struct Batch {
    /// Room for the head, then the body.
    bytes: Vec<u8>,
    count: u32,
    marks: u32,
}

/// Bytes of a batch at most: its body's length has four bytes.
const BATCH_BYTES_MAX: usize = 1 << 30;

/// Bytes between two places that are remembered.
const PLACE_BYTES: u64 = 256 << 10;

/// Bytes that are read at a time.
const CHUNK_BYTES: u64 = 1 << 20;

impl Batch {
    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(HEAD_BYTES, 0);
        (self.count, self.marks) = (0, 0);
    }
}

impl Segment {
    fn new(first: u64) -> Self {
        Self {
            bytes: HEADER_BYTES,
            file_bytes: HEADER_BYTES,
            end: first,
            places: Vec::new(),
            is_known: true,
            is_closed: false,
            is_torn: false,
        }
    }

    fn add(&mut self, head: Head) {
        if head.count == 0 {
            self.is_closed = true;
            return;
        }
        let is_far = self.places.last().is_none_or(|(_, at)| self.bytes - at >= PLACE_BYTES);
        if is_far {
            self.places.push((head.first, self.bytes));
        }
        self.bytes += head.batch_bytes();
        self.end = head.first + u64::from(head.count);
    }
}

impl<M: Medium> Log<M> {
    /// Opens a log, and creates one in an empty medium. `id` is that of a new log and is to be random.
    ///
    /// What was being written at the end does not count. It is cut off by the next commit: to open a log changes
    /// nothing. Of segments before the last only the headers and the ends are read: what is amiss in one is found
    /// when it is read, or by [`check`](Self::check). On a medium that is not [synced](Medium::is_synced) each batch
    /// of the last segment may have been being written, and the log ends before the first that is not whole.
    ///
    /// # Errors
    ///
    /// When a segment is not of this log or version, is damaged, or cannot be read.
    pub fn open(
        mut medium: M,
        kind: Kind,
        id: u64,
        options: LogOptions,
    ) -> Result<(Self, Found), LogError> {
        let mut headers = BTreeMap::new();
        let mut numbers = medium.segments()?;
        numbers.sort_unstable();
        let last = numbers.last().copied();
        let (mut of_all, mut unfinished) = (None, None);
        let mut found = Found::default();
        for segment in numbers {
            match header_of(&mut medium, segment, kind)? {
                Some(header) => {
                    if *of_all.get_or_insert(header.id) != header.id {
                        return Err(LogError::Foreign { segment });
                    }
                    headers.insert(segment, header);
                }
                // It was about to be begun, beside another if it is not the first.
                None if Some(segment) == last && (segment == 0 || !headers.is_empty()) => {
                    found.torn_bytes += medium.len(segment)?;
                    unfinished = Some(segment);
                }
                None => return Err(damaged(segment, 0, "its header")),
            }
        }
        let id = of_all.unwrap_or(id);
        let mut log = Self {
            medium,
            kind,
            id,
            options,
            segments: BTreeMap::new(),
            committed: 0,
            batch: Batch::default(),
            reader: None,
            unfinished,
            is_behind: false,
        };
        log.batch.clear();
        for &segment in headers.keys() {
            let unknown = Segment { is_known: false, ..Segment::new(segment) };
            log.segments.insert(segment, unknown);
        }
        for &segment in headers.keys() {
            if Some(&segment) == headers.keys().next_back() {
                found.torn_bytes += log.learn(segment, true)?;
                log.committed = log.segments[&segment].end;
                // What is there may have been written by a process that ended before it was synced, or could not.
                log.medium.sync(segment)?;
            } else if !log.learn_end(segment)? {
                log.learn(segment, false)?;
            }
        }
        found.ranges = log.ranges();
        Ok((log, found))
    }

    /// Returns the id of the log.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns the position of the next entry.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.committed + u64::from(self.batch.count)
    }

    /// Returns the position after the last entry that is committed.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// Returns the bytes of all segments, with zeros that were written ahead.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.file_bytes).sum()
    }

    /// Returns the number of segments.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// Returns the position of the first entry that is there; that of the next one, if there is none.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.segments.first_key_value().map_or(self.committed, |(first, _)| *first)
    }

    /// Returns the bytes of the segment to which the next batch goes, without zeros that were written ahead: 0
    /// if it has no batch, or does not exist yet.
    #[must_use]
    pub fn last_segment_bytes(&self) -> u64 {
        let last = self.segments.last_key_value().filter(|(_, segment)| !segment.is_closed);
        last.map_or(0, |(_, segment)| segment.bytes - HEADER_BYTES)
    }

    /// Returns the medium.
    pub fn medium(&mut self) -> &mut M {
        &mut self.medium
    }

    /// Adds an entry, of what `write` appends to the buffer. Returns its position, at which it is there once
    /// it is [committed](Self::commit). `marks` are bits by which [`visit`](Self::visit) finds its
    /// batch.
    ///
    /// # Errors
    ///
    /// When the batch would be too large. The entry is not in it then.
    pub fn append(
        &mut self,
        marks: u32,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<u64, LogError> {
        let position = self.next();
        let bytes = &mut self.batch.bytes;
        let start = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        write(bytes);
        if bytes.len() > BATCH_BYTES_MAX {
            let entry = bytes.len() - start - 4;
            bytes.truncate(start);
            return Err(LogError::TooLarge { bytes: entry, max: BATCH_BYTES_MAX });
        }
        let len = u32::try_from(bytes.len() - start - 4).expect("a batch is smaller");
        bytes[start..start + 4].copy_from_slice(&len.to_le_bytes());
        self.batch.count += 1;
        self.batch.marks |= marks;
        Ok(position)
    }

    /// Returns the bytes that wait to be committed.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.batch.bytes.len() - HEAD_BYTES
    }

    /// Takes back what was appended and not committed.
    pub fn discard(&mut self) {
        self.batch.clear();
    }

    /// Writes what was appended, so that it survives a crash of the machine when this returns, unless the medium is
    /// not [synced](Medium::is_synced). Returns the byte of its segment at which the batch begins, if there was
    /// something to write.
    ///
    /// # Errors
    ///
    /// When that failed. It waits still: it may be committed again, or [discarded](Self::discard). Is the log
    /// opened again instead, all of it is there or, as far as the medium still obeys, nothing.
    pub fn commit(&mut self) -> Result<Option<u64>, LogError> {
        if self.batch.count == 0 {
            return Ok(None);
        }
        if let Some(unfinished) = self.unfinished {
            self.medium.remove(unfinished)?;
            self.unfinished = None;
        }
        let body_bytes = self.batch.bytes.len() - HEAD_BYTES;
        let head = Head {
            body_bytes: u32::try_from(body_bytes).expect("a batch is smaller"),
            first: self.committed,
            count: self.batch.count,
            body_crc: crc32fast::hash(&self.batch.bytes[HEAD_BYTES..]),
            marks: self.batch.marks,
        };
        let number = self.room_for(head)?;
        self.clear_rest(number)?;
        let segment = self.segments.get_mut(&number).expect("there is room in it");
        let (at, end) = (segment.bytes, segment.bytes + head.batch_bytes());
        if end > segment.file_bytes {
            let zeroed = end.saturating_add(self.options.zeroed_bytes);
            let zeroed = zeroed.min(self.options.segment_bytes).max(end);
            // Where there is no room for zeros there may be room for the batch.
            if write_zeros(&mut self.medium, number, segment.file_bytes..zeroed).is_ok() {
                segment.file_bytes = zeroed;
            }
        }
        self.batch.bytes[..HEAD_BYTES].copy_from_slice(&head.encode(self.id));
        self.batch.bytes.resize(HEAD_BYTES + body_bytes.next_multiple_of(ALIGN), 0);
        let written = self.medium.write_at(number, at, &self.batch.bytes);
        let is_synced = self.medium.is_synced();
        let synced = written.and_then(|()| match is_synced {
            true => self.medium.sync(number),
            false => Ok(()),
        });
        // Of a batch that waits still only the body counts.
        self.batch.bytes.truncate(HEAD_BYTES + body_bytes);
        if let Err(error) = synced {
            // What was refused is not to be there after a restart. If this fails too, it may be.
            let voided = self.medium.write_at(number, at, &[0; HEAD_BYTES]);
            let _ = voided.and_then(|()| self.medium.sync(number));
            return Err(error.into());
        }
        segment.file_bytes = segment.file_bytes.max(end);
        segment.add(head);
        self.is_behind = !is_synced;
        self.committed = segment.end;
        self.batch.clear();
        Ok(Some(at))
    }

    /// Returns the segment that a batch goes to: a new one if the last is full.
    fn room_for(&mut self, head: Head) -> Result<u64, LogError> {
        if let Some((&number, segment)) = self.segments.last_key_value() {
            let is_empty = segment.bytes == HEADER_BYTES;
            let fits = segment.bytes + head.batch_bytes() <= self.options.segment_bytes;
            let is_next = segment.end == head.first;
            if !segment.is_closed && is_next && (is_empty || fits) {
                return Ok(number);
            }
            if is_empty && !is_next {
                // Its number would be that of its first entry.
                self.medium.remove(number)?;
                self.segments.remove(&number);
            } else {
                self.close_segment()?;
            }
        }
        let number = head.first;
        let header = Header { id: self.id, first: number }.encode(self.kind);
        let made = self.medium.create(number).and_then(|()| {
            self.medium.write_at(number, 0, &header)?;
            // Before its first batch: a segment whose header is broken has none, then.
            self.medium.sync(number)
        });
        if let Err(error) = made {
            let _ = self.medium.remove(number);
            return Err(error.into());
        }
        self.segments.insert(number, Segment::new(number));
        Ok(number)
    }

    /// Closes the last segment, unless it has no batch: the next one goes to a new segment.
    ///
    /// # Errors
    ///
    /// When that failed. More is appended to it then.
    pub fn close_segment(&mut self) -> Result<(), LogError> {
        let Some((&number, segment)) = self.segments.last_key_value() else { return Ok(()) };
        if segment.is_closed || segment.bytes == HEADER_BYTES {
            return Ok(());
        }
        self.clear_rest(number)?;
        let segment = self.segments.get_mut(&number).expect("it was just there");
        // By its end one that was cut off is told from one after which others were removed.
        let end = Head::end_of_segment(segment.end);
        self.medium.write_at(number, segment.bytes, &end.encode(self.id))?;
        segment.file_bytes = segment.file_bytes.max(segment.bytes + end.batch_bytes());
        // Zeros behind it are in the way of who looks for it, and no more than that.
        if self.medium.cut(number, segment.bytes + end.batch_bytes()).is_ok() {
            segment.file_bytes = segment.bytes + end.batch_bytes();
        }
        self.medium.sync(number)?;
        self.is_behind = false;
        segment.add(end);
        Ok(())
    }

    /// Makes all that is committed survive a crash of the machine.
    ///
    /// # Errors
    ///
    /// When that failed.
    pub fn sync(&mut self) -> Result<(), LogError> {
        // Segments before it were synced when they were closed.
        if let Some((&number, _)) = self.segments.last_key_value().filter(|_| self.is_behind) {
            self.medium.sync(number)?;
            self.is_behind = false;
        }
        Ok(())
    }

    /// Lets the next entry have this position, if it would have a lower one: those between are as if they were
    /// removed. Nothing may wait to be committed.
    pub fn skip_to(&mut self, position: u64) {
        debug_assert!(self.batch.count == 0, "the waiting entries have their positions");
        self.committed = self.committed.max(position);
    }

    /// Returns the positions that are there.
    fn ranges(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (&number, segment) in &self.segments {
            match ranges.last_mut() {
                Some(last) if last.end == number => last.end = segment.end,
                _ if segment.end > number => ranges.push(number..segment.end),
                _ => {}
            }
        }
        ranges
    }

    /// Returns the positions of each segment.
    #[must_use]
    pub fn segment_ranges(&self) -> Vec<Range<u64>> {
        self.segments.iter().map(|(number, segment)| *number..segment.end).collect()
    }

    /// Returns the positions of each segment that may be [removed](Self::remove): of all but the last.
    #[must_use]
    pub fn closed_segments(&self) -> Vec<Range<u64>> {
        let mut ranges = self.segment_ranges();
        ranges.pop();
        ranges
    }

    /// Removes one of the [closed segments](Self::closed_segments), by the position of its first entry.
    ///
    /// # Errors
    ///
    /// When it could not be removed: it is still there.
    pub fn remove(&mut self, first: u64) -> Result<(), LogError> {
        let is_closed = self.segments.range(first + 1..).next().is_some();
        if is_closed && self.segments.contains_key(&first) {
            // It may go because of what was written after it.
            self.sync()?;
            self.medium.remove(first)?;
            self.segments.remove(&first);
            self.reader.take_if(|reader| reader.segment == first);
        }
        Ok(())
    }
}

fn write_zeros(medium: &mut impl Medium, segment: u64, range: Range<u64>) -> io::Result<()> {
    const ZEROS: &[u8] = &[0; 64 << 10];
    let mut at = range.start;
    while at < range.end {
        let count = (range.end - at).min(ZEROS.len() as u64);
        medium.write_at(
            segment,
            at,
            &ZEROS[..usize::try_from(count).map_err(io::Error::other)?],
        )?;
        at += count;
    }
    Ok(())
}

fn damaged(segment: u64, at: u64, what: &'static str) -> LogError {
    LogError::Damaged { segment, at, what }
}

#[cfg(test)]
mod tests;

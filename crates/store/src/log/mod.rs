//! A row of entries with positions, in segments.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use bytes::Bytes;
use memchr::memmem::Finder;
use tradewind_records::{Chunk, Medium};

use crate::error::LogError;
use crate::format::{
    ALIGN, HEAD_BYTES, HEAD_MAGIC, HEADER_BYTES, Head, Header, HeaderFault, Kind, VERSION,
};

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
    /// Bytes of a batch that was being written when the process or the machine ended: they were cut off.
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
    /// Whether every batch was looked at.
    is_known: bool,
    /// Whether it has an end: nothing is appended any more.
    is_closed: bool,
}

/// Batch that is being made.
#[derive(Debug, Default)]
struct Batch {
    /// Room for the head, then the body.
    bytes: Vec<u8>,
    count: u32,
    marks: u32,
}

/// Place at which reading goes on.
#[derive(Debug)]
struct Reader {
    segment: u64,
    at: u64,
    chunk: Chunk,
    /// Position of the first entry of the batch at `at`.
    next: u64,
}

/// How a walk goes on after an entry.
#[derive(Clone, Copy, Debug)]
enum Then {
    GoOn,
    Stop,
    /// The entry was not taken: the next walk begins with it.
    StopBefore,
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
        let (bytes, places) = (HEADER_BYTES, Vec::new());
        Self { bytes, file_bytes: bytes, end: first, places, is_known: true, is_closed: false }
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
    /// What was being written at the end is cut off. Of segments before the last only headers are read: what
    /// is amiss in one is found when it is read, or by [`check`](Self::check).
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
        let mut of_all = None;
        let mut found = Found::default();
        for segment in numbers {
            match header_of(&mut medium, segment, kind)? {
                Some(header) => {
                    if *of_all.get_or_insert(header.id) != header.id {
                        return Err(LogError::Foreign { segment });
                    }
                    headers.insert(segment, header);
                }
                // It was about to be begun.
                None if Some(segment) == last => {
                    found.torn_bytes += medium.len(segment)?;
                    medium.remove(segment)?;
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
        };
        log.batch.clear();
        for &segment in headers.keys() {
            let unknown = Segment { is_known: false, ..Segment::new(segment) };
            log.segments.insert(segment, unknown);
        }
        if let Some(&last) = headers.keys().next_back() {
            found.torn_bytes += log.learn(last, true)?;
            log.committed = log.segments[&last].end;
        }
        found.ranges = log.ranges()?;
        Ok((log, found))
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

    /// Returns the medium.
    pub fn medium(&mut self) -> &mut M {
        &mut self.medium
    }

    /// Adds an entry, of what `write` appends to the buffer. Returns its position, at which it is there once
    /// it is [committed](Self::commit). `marks` are bits by which [`visit`](Self::visit) finds its batch.
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

    /// Writes what was appended, so that it survives a crash of the machine when this returns.
    ///
    /// # Errors
    ///
    /// When that failed. It waits still: it may be committed again, or [discarded](Self::discard). Is the log
    /// opened again instead, all of it is there or, as far as the medium still obeys, nothing.
    pub fn commit(&mut self) -> Result<(), LogError> {
        if self.batch.count == 0 {
            return Ok(());
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
        let synced = written.and_then(|()| self.medium.sync(number));
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
        self.committed = segment.end;
        self.batch.clear();
        Ok(())
    }

    /// Returns the segment that a batch goes to: a new one if the last is full.
    fn room_for(&mut self, head: Head) -> Result<u64, LogError> {
        if let Some((&number, segment)) = self.segments.last_key_value() {
            let is_empty = segment.bytes == HEADER_BYTES;
            let fits = segment.bytes + head.batch_bytes() <= self.options.segment_bytes;
            if !segment.is_closed && (is_empty || fits) {
                return Ok(number);
            }
            self.close(number)?;
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

    /// Writes the end of a segment, so that one that was cut off is told from one after which others were
    /// removed.
    fn close(&mut self, number: u64) -> Result<(), LogError> {
        let segment = self.segments.get_mut(&number).expect("the segment is there");
        if segment.is_closed {
            return Ok(());
        }
        let end = Head::end_of_segment(segment.end);
        self.medium.write_at(number, segment.bytes, &end.encode(self.id))?;
        self.medium.sync(number)?;
        segment.file_bytes = segment.file_bytes.max(segment.bytes + end.batch_bytes());
        segment.add(end);
        Ok(())
    }

    /// Returns entries from a position on: at least one if there is one, and as many more as fit into these
    /// bytes. The first may be a later one, if those before were removed.
    ///
    /// # Errors
    ///
    /// When they cannot be read, or are damaged.
    pub fn read(&mut self, from: u64, bytes_max: usize) -> Result<Vec<(u64, Bytes)>, LogError> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        self.walk(from..u64::MAX, None, |position, entry| {
            bytes += entry.len();
            if !entries.is_empty() && bytes > bytes_max {
                return Ok::<_, LogError>(Then::StopBefore);
            }
            entries.push((position, entry));
            Ok(if bytes < bytes_max { Then::GoOn } else { Then::Stop })
        })?;
        Ok(entries)
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
        mut visit: impl FnMut(u64, Bytes) -> Result<(), E>,
    ) -> Result<(), E> {
        self.walk(range, Some(marks), |position, entry| {
            visit(position, entry)?;
            Ok(Then::GoOn)
        })
    }

    /// Gives the entries in this range, of all batches or of those with one of these marks, until it is told
    /// to stop. The next walk goes on without looking for its place.
    fn walk<E: From<LogError>>(
        &mut self,
        range: Range<u64>,
        marks: Option<u32>,
        mut visit: impl FnMut(u64, Bytes) -> Result<Then, E>,
    ) -> Result<(), E> {
        let Range { start: mut from, end: to } = range;
        while from < self.committed.min(to) {
            let Some(reader) = self.seek(from)? else { break };
            let (number, at) = (reader.segment, reader.at);
            let head = self.head_at(number, at)?;
            let end = head.end().ok_or_else(|| damaged(number, at, "its positions"))?;
            let mut then = Then::GoOn;
            if marks.is_none_or(|marks| head.marks & marks != 0) {
                let (_, mut rest) = self.batch_at(number, at)?;
                for position in head.first..end {
                    let entry = take_entry(&mut rest);
                    let entry =
                        entry.ok_or_else(|| damaged(number, at, "the length of an entry"))?;
                    if !(from..to).contains(&position) {
                        continue;
                    }
                    then = visit(position, entry)?;
                    let is_last = position + 1 == end;
                    if matches!(then, Then::StopBefore) || (matches!(then, Then::Stop) && !is_last)
                    {
                        return Ok(());
                    }
                }
            }
            from = from.max(end);
            if let Some(reader) = &mut self.reader {
                (reader.at, reader.next) = (at + head.batch_bytes(), end);
            }
            if matches!(then, Then::Stop) {
                break;
            }
        }
        Ok(())
    }

    /// Finds the batch with this position, or the next one that there is.
    fn seek(&mut self, from: u64) -> Result<Option<&Reader>, LogError> {
        let Some(number) = self.segment_with(from)? else { return Ok(None) };
        let segment = &self.segments[&number];
        let goes_on = |reader: &Reader| {
            reader.segment == number && reader.next <= from && reader.at < segment.bytes
        };
        if !self.reader.as_ref().is_some_and(goes_on) {
            let place = segment.places.partition_point(|(first, _)| *first <= from);
            let (next, at) = segment.places[place.saturating_sub(1)];
            let chunk = Chunk::new(CHUNK_BYTES);
            self.reader = Some(Reader { segment: number, at, chunk, next });
        }
        // Batches before the one with the position are passed over by their heads.
        loop {
            let reader = self.reader.as_ref().expect("it was just made");
            let at = reader.at;
            let head = self.head_at(number, at)?;
            let end = head.end().ok_or_else(|| damaged(number, at, "its positions"))?;
            if end > from {
                break;
            }
            let reader = self.reader.as_mut().expect("it was just made");
            (reader.at, reader.next) = (at + head.batch_bytes(), end);
        }
        Ok(self.reader.as_ref())
    }

    /// Returns the segment with this position, or the next one that there is.
    fn segment_with(&mut self, from: u64) -> Result<Option<u64>, LogError> {
        if let Some((&number, _)) = self.segments.range(..=from).next_back() {
            self.learn(number, false)?;
            if from < self.segments[&number].end {
                return Ok(Some(number));
            }
        }
        let next = self.segments.range(from..).next().map(|(number, _)| *number);
        if let Some(number) = next {
            self.learn(number, false)?;
        }
        Ok(next.filter(|number| self.segments[number].end > *number))
    }

    fn head_at(&mut self, number: u64, at: u64) -> Result<Head, LogError> {
        let bytes = self.bytes_at(number, at, HEAD_BYTES as u64)?;
        Head::decode(&bytes, self.id).ok_or_else(|| damaged(number, at, "the head of a batch"))
    }

    fn batch_at(&mut self, number: u64, at: u64) -> Result<(Head, Bytes), LogError> {
        let head = self.head_at(number, at)?;
        let body = self.bytes_at(number, at + HEAD_BYTES as u64, head.body_bytes.into())?;
        if crc32fast::hash(&body) != head.body_crc {
            return Err(damaged(number, at, "the body of a batch"));
        }
        Ok((head, body))
    }

    /// Reads this many bytes of a segment, through the reader's chunk.
    fn bytes_at(&mut self, number: u64, at: u64, count: u64) -> Result<Bytes, LogError> {
        let end = self.segments[&number].bytes;
        let mut other = Chunk::new(count);
        let chunk = match &mut self.reader {
            Some(reader) if reader.segment == number => &mut reader.chunk,
            _ => &mut other,
        };
        let bytes = chunk.bytes_at(&mut self.medium, number, at, count, end)?;
        bytes.ok_or_else(|| damaged(number, at, "it ends within a batch"))
    }

    /// Looks at each batch of a segment, if that was not done yet. Of the last one, what was being written is
    /// cut off; returns its bytes.
    fn learn(&mut self, number: u64, is_last: bool) -> Result<u64, LogError> {
        if self.segments[&number].is_known {
            return Ok(0);
        }
        let len = self.medium.len(number)?;
        let next = self.segments.range(number + 1..).next().map(|(next, _)| *next);
        let mut segment = Segment { file_bytes: len, ..Segment::new(number) };
        let mut chunk = Chunk::new(CHUNK_BYTES);
        loop {
            let medium = &mut self.medium;
            let bytes = chunk.bytes_at(medium, number, segment.bytes, HEAD_BYTES as u64, len)?;
            let Some(head) = bytes.and_then(|bytes| Head::decode(&bytes, self.id)) else { break };
            if head.first != segment.end
                || head.end().is_none_or(|end| next.is_some_and(|next| end > next))
            {
                return Err(damaged(number, segment.bytes, "its positions"));
            }
            // What is read later is checked then.
            if is_last {
                let at = segment.bytes + HEAD_BYTES as u64;
                let body = chunk.bytes_at(medium, number, at, head.body_bytes.into(), len)?;
                if body.is_none_or(|body| crc32fast::hash(&body) != head.body_crc) {
                    break;
                }
            } else if segment.bytes + head.batch_bytes() > len.next_multiple_of(ALIGN as u64) {
                break;
            }
            segment.add(head);
            if segment.is_closed {
                break;
            }
        }
        segment.is_known = true;
        let end = match segment.is_closed {
            true => segment.bytes + HEAD_BYTES as u64,
            false => segment.bytes,
        };
        // Zeros, or a batch that was never committed: nothing that was may follow.
        if self.is_batch_after(number, end, len)? {
            return Err(damaged(number, end, "a batch, and whole ones follow"));
        }
        let mut torn = 0;
        if is_last {
            torn = self.clear_rest(number, end, len)?;
        } else if !segment.is_closed {
            return Err(damaged(number, end, "a batch, and another segment follows"));
        }
        self.segments.insert(number, segment);
        Ok(torn)
    }

    /// Returns whether there is a whole head of a batch behind the one that begins here.
    fn is_batch_after(&mut self, number: u64, from: u64, len: u64) -> Result<bool, LogError> {
        let finder = Finder::new(HEAD_MAGIC);
        // The batch at `from` is broken itself, though its head may be whole.
        let mut at = from + ALIGN as u64;
        while at + HEAD_BYTES as u64 <= len {
            let room = CHUNK_BYTES.min(len - at);
            let mut bytes = vec![0; usize::try_from(room).map_err(io::Error::other)?];
            let read = self.medium.read_at(number, at, &mut bytes)?;
            bytes.truncate(read);
            let mut places = finder.find_iter(&bytes);
            if places.any(|place| Head::decode(&bytes[place..], self.id).is_some()) {
                return Ok(true);
            }
            if read < HEAD_BYTES {
                break;
            }
            // A head that the chunk cuts is whole in the next.
            at += (read - HEAD_BYTES + 1) as u64;
        }
        Ok(false)
    }

    /// Fills what is left of a batch with zeros. Returns the number of bytes up to the last that was none.
    fn clear_rest(&mut self, number: u64, from: u64, len: u64) -> Result<u64, LogError> {
        let mut torn = 0;
        let mut at = from;
        while at < len {
            let room = usize::try_from(CHUNK_BYTES.min(len - at)).map_err(io::Error::other)?;
            let mut bytes = vec![0; room];
            let read = self.medium.read_at(number, at, &mut bytes)?;
            if read == 0 {
                break;
            }
            if let Some(last) = bytes[..read].iter().rposition(|byte| *byte != 0) {
                torn = at + last as u64 + 1 - from;
                bytes.fill(0);
                self.medium.write_at(number, at, &bytes[..=last])?;
            }
            at += read as u64;
        }
        if torn > 0 {
            self.medium.sync(number)?;
        }
        Ok(torn)
    }

    /// Returns the positions that are there.
    fn ranges(&mut self) -> Result<Vec<Range<u64>>, LogError> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for number in self.segments.keys().copied().collect::<Vec<_>>() {
            self.learn(number, false)?;
            let end = self.segments[&number].end;
            match ranges.last_mut() {
                Some(last) if last.end == number => last.end = end,
                _ if end > number => ranges.push(number..end),
                _ => {}
            }
        }
        Ok(ranges)
    }

    /// Returns the positions of each segment that may be [removed](Self::remove): of all but the last.
    ///
    /// # Errors
    ///
    /// When one cannot be read.
    pub fn closed_segments(&mut self) -> Result<Vec<Range<u64>>, LogError> {
        let Some((&last, _)) = self.segments.last_key_value() else { return Ok(Vec::new()) };
        let numbers: Vec<u64> = self.segments.range(..last).map(|(number, _)| *number).collect();
        numbers
            .into_iter()
            .map(|number| {
                self.learn(number, false)?;
                Ok(number..self.segments[&number].end)
            })
            .collect()
    }

    /// Removes one of the [closed segments](Self::closed_segments), by the position of its first entry.
    ///
    /// # Errors
    ///
    /// When it could not be removed: it is still there.
    pub fn remove(&mut self, first: u64) -> Result<(), LogError> {
        let is_closed = self.segments.range(first + 1..).next().is_some();
        if is_closed && self.segments.contains_key(&first) {
            self.medium.remove(first)?;
            self.segments.remove(&first);
            self.reader.take_if(|reader| reader.segment == first);
        }
        Ok(())
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

/// Returns the header of a segment; `None` if it was being written and nothing follows it.
fn header_of(
    medium: &mut impl Medium,
    segment: u64,
    kind: Kind,
) -> Result<Option<Header>, LogError> {
    let mut bytes = [0; HEADER_BYTES as usize];
    let read = medium.read_at(segment, 0, &mut bytes)?;
    match Header::decode(&bytes[..read], kind) {
        Ok(header) if header.first == segment => Ok(Some(header)),
        Ok(_) => Err(damaged(segment, 24, "the position of its first entry")),
        Err(HeaderFault::Version(version)) => {
            Err(LogError::Version { segment, version, ours: VERSION })
        }
        Err(HeaderFault::Kind) => Err(LogError::Foreign { segment }),
        Err(HeaderFault::Broken) => {
            let len = medium.len(segment)?;
            if len > HEADER_BYTES && !is_zero(medium, segment, HEADER_BYTES..len)? {
                return Err(damaged(segment, 0, "its header"));
            }
            Ok(None)
        }
    }
}

fn is_zero(medium: &mut impl Medium, segment: u64, range: Range<u64>) -> io::Result<bool> {
    let mut at = range.start;
    while at < range.end {
        let room = CHUNK_BYTES.min(range.end - at);
        let mut bytes = vec![0; usize::try_from(room).map_err(io::Error::other)?];
        let read = medium.read_at(segment, at, &mut bytes)?;
        if bytes[..read].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        if read == 0 {
            break;
        }
        at += read as u64;
    }
    Ok(true)
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

/// Takes the next entry off the front of a batch's body.
fn take_entry(body: &mut Bytes) -> Option<Bytes> {
    let (len, _) = body.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    if body.len() - 4 < len {
        return None;
    }
    let _ = body.split_to(4);
    Some(body.split_to(len))
}

fn damaged(segment: u64, at: u64, what: &'static str) -> LogError {
    LogError::Damaged { segment, at, what }
}

#[cfg(test)]
mod tests;

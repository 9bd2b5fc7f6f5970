//! Records that wait on the disk for an earlier one.
//!
//! They are appended to segments in the order in which they come. A full segment is sorted by seq,
//! so that reading all of them back in order takes a place in each and no index in memory. A
//! segment is removed when all of its records are in the output.
//!
//! The spool has no index: a frame counts if its CRC is right and those of all before it in its
//! segment are. The rest is a torn end. A record that is in the output already, or in the spool
//! twice, is skipped.

mod chunk;
mod frame;
mod medium;
mod spooler;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};

use bytes::Bytes;
use tradewind_proto::collector::{Counts, Records};
use tradewind_proto::message::Status;
use tradewind_proto::{JobId, Seq, SeqRange, SeqSet};

pub use self::chunk::Chunk;
use self::frame::{HEAD_BYTES, HEADER_BYTES, Head, Names, Read};
pub use self::medium::Directory;
pub use self::medium::Medium;
pub(super) use self::medium::unnamed_file;
pub use self::spooler::Spooler;
pub(super) use self::spooler::{beside, destination};

/// Bytes after which a segment is full.
const SEGMENT_BYTES: u64 = 4 << 20;

/// Bytes that are written at a time.
const WRITE_BYTES: usize = 1 << 20;

/// Bytes that are read at a time.
const READ_BYTES: u64 = 64 << 10;

/// Number of segments of which read bytes are kept. Those of others are read again.
const CHUNKS_MAX: usize = 64;

/// Number of records below which a segment is not sorted: the place of each is known.
const UNSORTED_MAX: usize = 64;

/// Spool of one job.
#[derive(Debug)]
pub struct Spool<M> {
    medium: M,
    job: JobId,
    /// Whether appended records survive a crash of the machine.
    is_synced: bool,
    segment_bytes: u64,
    segments: BTreeMap<u64, Segment>,
    /// Segment to which records are appended.
    active: Option<u64>,
    /// Segment from which the last record was read.
    reading: Option<u64>,
    /// Number of the next segment.
    next: u64,
    buffer: Vec<u8>,
    names: Names,
}

/// Segment, and the place at which it is read next.
#[derive(Debug)]
struct Segment {
    bytes: u64,
    /// Seq after its last one.
    end: Seq,
    order: Order,
    /// Seq of the next frame, once that is known.
    next: Option<Seq>,
    chunk: Chunk,
}

#[derive(Debug)]
enum Order {
    /// The frames are sorted, and the next one begins here.
    Sorted { at: u64 },
    /// Place of each frame, and number of those that are read.
    Unsorted { frames: Vec<(Seq, u64)>, read: usize, is_sorted: bool },
}

/// Contents of a spool.
#[derive(Debug, Default)]
pub struct Found {
    /// Tasks whose records are in it, and not in the output.
    pub seqs: SeqSet,
    /// Numbers of these records by status.
    pub counts: Counts,
    /// Tasks among these that are not `ok`.
    pub not_ok: SeqSet,
    /// Tasks among these that were cancelled.
    pub cancelled: SeqSet,
    /// Tasks whose records are to be left out.
    dropped: SeqSet,
    segments: Vec<FoundSegment>,
    /// Number above those of all segments.
    next: u64,
}

#[derive(Debug)]
struct FoundSegment {
    number: u64,
    /// Bytes that count, and bytes that there are.
    bytes: u64,
    len: u64,
    is_sorted: bool,
    /// Seq of the first frame.
    first: Seq,
    /// Lowest seq, and the one after the highest, of records that are not in the output.
    seqs: Option<SeqRange>,
}

/// Finds the records of this job in a spool. Changes nothing. A record that is in the output is not
/// needed, and one whose task hash is in no note of the journal does not count.
///
/// # Errors
///
/// When the spool cannot be read.
pub fn find(
    medium: &mut impl Medium,
    job: JobId,
    is_written: impl Fn(Seq) -> bool,
    noted: &SeqSet,
) -> io::Result<Found> {
    let mut found = Found::default();
    let mut names = Names::default();
    for number in medium.segments()? {
        found.next = number.saturating_add(1);
        let mut header = [0; HEADER_BYTES as usize];
        let count = medium.read_at(number, 0, &mut header)?;
        let whose = frame::job_of(&header[..count]);
        if whose.is_none() && !frame::is_torn_header(&header[..count]) {
            // It belongs to another job.
            continue;
        }
        let len = medium.len(number)?;
        let bytes = if whose == Some(job) { HEADER_BYTES } else { 0 };
        let first = Seq(0);
        let mut segment = FoundSegment { number, bytes, len, is_sorted: true, first, seqs: None };
        let mut last = None;
        let mut chunk = Chunk::new(READ_BYTES);
        while segment.bytes > 0
            && let Some((head, frame)) = frame_at(medium, number, segment.bytes, len, &mut chunk)?
            && let Some(Read { result, .. }) = head.decode(&frame, &mut names)
        {
            let seq = head.seq;
            if segment.bytes == HEADER_BYTES {
                segment.first = seq;
            }
            segment.bytes += head.frame_bytes();
            segment.is_sorted &= last.replace(seq).is_none_or(|last| last < seq);
            if is_written(seq) {
                continue;
            }
            let SeqRange { start, end } = segment.seqs.unwrap_or(SeqRange::one(seq));
            segment.seqs = Some(SeqRange { start: start.min(seq), end: end.max(seq.next()) });
            if !noted.contains(seq) {
                found.dropped.insert(seq);
                continue;
            }
            if !found.seqs.insert(seq) {
                continue;
            }
            let status = result.outcome.status;
            found.counts.add(status);
            if !status.is_success() {
                found.not_ok.insert(seq);
            }
            if status == Status::Cancelled {
                found.cancelled.insert(seq);
            }
        }
        found.segments.push(segment);
    }
    Ok(found)
}

impl Found {
    /// Leaves out the records of these tasks, which are to run again.
    pub fn leave_out(&mut self, dropped: &SeqSet, without: impl Fn(&Counts) -> Counts) {
        for range in dropped.to_ranges().as_slice() {
            self.seqs.remove_range(*range);
            self.dropped.insert_range(*range);
        }
        self.counts = without(&self.counts);
    }
}

/// Reads the frame that begins here; `None` if too few bytes follow.
fn frame_at(
    medium: &mut impl Medium,
    segment: u64,
    at: u64,
    end: u64,
    chunk: &mut Chunk,
) -> io::Result<Option<(Head, Bytes)>> {
    let Some(head) = chunk.bytes_at(medium, segment, at, HEAD_BYTES, end)? else {
        return Ok(None);
    };
    let head = Head::read(&head).expect("a head was read");
    let frame = chunk.bytes_at(medium, segment, at, head.frame_bytes(), end)?;
    Ok(frame.map(|frame| (head, frame)))
}

impl<M: Medium> Spool<M> {
    /// Creates an empty spool. Segments of other jobs, or of an earlier run, are removed.
    ///
    /// # Errors
    ///
    /// When that failed.
    pub fn begin(medium: M, job: JobId, is_synced: bool) -> io::Result<Self> {
        let mut spool = Self::new(medium, job, is_synced);
        // None of it is of this job.
        let found = find(&mut spool.medium, job, |_| true, &SeqSet::new())?;
        spool.next = found.next;
        for FoundSegment { number, .. } in found.segments {
            spool.medium.remove(number)?;
        }
        spool.medium.clear();
        Ok(spool)
    }

    /// Continues with the records that were found: cuts torn ends off, and removes segments that
    /// are not needed.
    ///
    /// # Errors
    ///
    /// When that failed. It is to be tried again with the result of another [`find`].
    pub fn go_on(medium: M, job: JobId, is_synced: bool, found: &Found) -> io::Result<Self> {
        let mut spool = Self::new(medium, job, is_synced);
        spool.next = found.next;
        for segment in &found.segments {
            spool.take_over(segment, found)?;
        }
        if spool.segments.is_empty() {
            spool.medium.clear();
        }
        Ok(spool)
    }

    /// Creates a spool in a medium that has no segment.
    pub(super) fn new(medium: M, job: JobId, is_synced: bool) -> Self {
        Self {
            medium,
            job,
            is_synced,
            segment_bytes: SEGMENT_BYTES,
            segments: BTreeMap::new(),
            active: None,
            reading: None,
            next: 0,
            buffer: Vec::new(),
            names: Names::default(),
        }
    }

    /// Sets smaller segments, for tests.
    #[must_use]
    pub fn with_segment_bytes(self, segment_bytes: u64) -> Self {
        Self { segment_bytes, ..self }
    }

    /// Returns the medium of the segments.
    pub fn medium(&self) -> &M {
        &self.medium
    }

    /// Returns the bytes of all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }

    /// Appends records, which are stored then.
    ///
    /// # Errors
    ///
    /// When that failed. None of them is there then.
    pub fn append(&mut self, records: &[Records]) -> io::Result<()> {
        let number = match self.active {
            Some(number) => number,
            None => self.create()?,
        };
        let start = self.segments[&number].bytes;
        let mut frames = Vec::new();
        let appended = self.write(number, start, records, &mut frames);
        let end = match appended {
            Ok(end) => end,
            Err(error) => {
                if start == HEADER_BYTES {
                    self.segments.remove(&number);
                    self.active = None;
                    let _ = self.medium.remove(number);
                } else if self.medium.cut(number, start).is_err() {
                    // Frames after the torn end would not count.
                    self.active = None;
                }
                return Err(error);
            }
        };
        let segment = self.segments.get_mut(&number).expect("it is appended to");
        segment.add(frames, end);
        self.active = Some(number);
        if end >= self.segment_bytes {
            self.active = None;
            // Unsorted it can be read as well.
            let _ = self.sort(number, None);
        }
        Ok(())
    }

    /// Reads the next records of the range, from its beginning to its end, or until they have
    /// `bytes_max` bytes. They are not read again.
    ///
    /// # Errors
    ///
    /// When the spool cannot be read, or is damaged.
    pub fn read(&mut self, range: SeqRange, bytes_max: usize) -> io::Result<Vec<Records>> {
        let (mut lists, mut next, mut bytes) = (Vec::<Records>::new(), range.start, 0);
        while next < range.end && bytes < bytes_max {
            match self.read_next(next) {
                Ok(Read { worker, stage, result }) => {
                    next = next.next();
                    bytes += usize::try_from(result.held_bytes()).unwrap_or(usize::MAX);
                    match lists.last_mut() {
                        Some(list) if list.worker == worker && list.stage == stage => {
                            list.results.push(result);
                        }
                        _ => lists.push(Records { worker, stage, results: vec![result] }),
                    }
                }
                // The error comes again.
                Err(_) if !lists.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(lists)
    }

    /// Removes segments that are not needed: all records below this seq are in the output.
    pub fn release(&mut self, below: Seq) {
        let is_read =
            |(number, segment): (&u64, &Segment)| (segment.end <= below).then_some(*number);
        let read: Vec<u64> = self.segments.iter().filter_map(is_read).collect();
        for number in read {
            self.segments.remove(&number);
            self.active.take_if(|active| *active == number);
            // A record that stays is found to be in the output when the job is resumed.
            let _ = self.medium.remove(number);
        }
        if self.segments.is_empty() {
            self.medium.clear();
        }
    }

    /// Makes all of it survive a crash of the machine.
    ///
    /// # Errors
    ///
    /// When that failed.
    pub fn sync(&mut self) -> io::Result<()> {
        let mut numbers = self.segments.keys();
        numbers.try_for_each(|number| self.medium.sync(*number))
    }

    fn create(&mut self) -> io::Result<u64> {
        let number = self.next;
        self.medium.create(number)?;
        self.next += 1;
        if let Err(error) = self.medium.write_at(number, 0, &frame::header(self.job)) {
            let _ = self.medium.remove(number);
            return Err(error);
        }
        self.segments.insert(number, Segment::new(HEADER_BYTES));
        Ok(number)
    }

    /// Writes records from this byte on, and notes their places. Returns the byte at which they
    /// end.
    fn write(
        &mut self,
        number: u64,
        start: u64,
        records: &[Records],
        frames: &mut Vec<(Seq, u64)>,
    ) -> io::Result<u64> {
        let mut at = start;
        self.buffer.clear();
        for record in records.iter().flat_map(Records::iter) {
            frames.push((record.result.seq, at + self.buffer.len() as u64));
            frame::encode(record, &mut self.buffer);
            if self.buffer.len() >= WRITE_BYTES {
                self.medium.write_at(number, at, &self.buffer)?;
                at += self.buffer.len() as u64;
                self.buffer.clear();
            }
        }
        self.medium.write_at(number, at, &self.buffer)?;
        at += self.buffer.len() as u64;
        self.buffer.clear();
        self.buffer.shrink_to(2 * WRITE_BYTES);
        if self.is_synced {
            self.medium.sync(number)?;
        }
        Ok(at)
    }

    /// Reads the record of this seq.
    fn read_next(&mut self, seq: Seq) -> io::Result<Read> {
        loop {
            let changed = || io::Error::new(ErrorKind::InvalidData, "the spool has changed");
            let mut reading = self.reading;
            if let Some(number) = reading
                && !self.is_next(number, seq)?
            {
                reading = None;
            }
            let number = match reading {
                Some(number) => number,
                None => self.first()?.ok_or_else(changed)?,
            };
            self.reading = Some(number);
            self.drop_chunks(number);
            let segment = self.segments.get_mut(&number).expect("it was just found");
            let next = segment.next(&mut self.medium, number)?.ok_or_else(changed)?;
            if next > seq {
                return Err(changed());
            }
            if next < seq {
                // It is in the output.
                segment.skip(&mut self.medium, number)?;
                continue;
            }
            let at = segment.at();
            let frame = frame_at(&mut self.medium, number, at, segment.bytes, &mut segment.chunk)?;
            let (head, frame) = frame.ok_or_else(changed)?;
            let read = head.decode(&frame, &mut self.names).ok_or_else(changed)?;
            segment.go_past(head.frame_bytes());
            return Ok(read);
        }
    }

    /// Returns whether this is the next record of the segment.
    fn is_next(&mut self, number: u64, seq: Seq) -> io::Result<bool> {
        let Some(segment) = self.segments.get_mut(&number) else { return Ok(false) };
        Ok(segment.next(&mut self.medium, number)? == Some(seq))
    }

    /// Returns the segment whose next record has the lowest seq.
    fn first(&mut self) -> io::Result<Option<u64>> {
        let mut first: Option<(Seq, u64)> = None;
        for (number, segment) in &mut self.segments {
            if let Some(next) = segment.next(&mut self.medium, *number)?
                && first.is_none_or(|(first, _)| next < first)
            {
                first = Some((next, *number));
            }
        }
        Ok(first.map(|(_, number)| number))
    }

    /// Frees the bytes of segments that are read last, which can be read again.
    fn drop_chunks(&mut self, number: u64) {
        if !self.segments[&number].chunk.is_empty() {
            return;
        }
        let with_chunk = self.segments.values_mut().filter(|segment| !segment.chunk.is_empty());
        let mut with_chunk: Vec<&mut Segment> = with_chunk.collect();
        if with_chunk.len() < CHUNKS_MAX {
            return;
        }
        with_chunk.sort_by_key(|segment| segment.next);
        for segment in with_chunk.into_iter().skip(CHUNKS_MAX / 2) {
            segment.chunk.clear();
        }
    }

    /// Sorts a segment, if it is worth it. Records that were read or dropped are left out.
    fn sort(&mut self, number: u64, dropped: Option<&SeqSet>) -> io::Result<()> {
        let segment = self.segments.get_mut(&number).expect("it is there");
        let Order::Unsorted { frames, read, is_sorted } = &mut segment.order else {
            return Ok(());
        };
        if dropped.is_none() {
            if frames.len() <= UNSORTED_MAX {
                return Ok(());
            }
            if *read == 0 && frames.is_sorted_by_key(|(_, at)| *at) && frames.is_sorted() {
                segment.next = frames.first().map(|(seq, _)| *seq);
                segment.order = Order::Sorted { at: HEADER_BYTES };
                return Ok(());
            }
        }
        frames.drain(..*read);
        (*read, *is_sorted) = (0, true);
        frames.sort_unstable();
        let mut frames = frames.clone();
        frames.retain(|(seq, _)| dropped.is_none_or(|dropped| !dropped.contains(*seq)));
        let (bytes, mut chunk) = (segment.bytes, Chunk::new(READ_BYTES));
        let new = self.create()?;
        let copied = (|| {
            let mut at = HEADER_BYTES;
            let mut buffer = Vec::new();
            for (_, place) in &frames {
                let frame = frame_at(&mut self.medium, number, *place, bytes, &mut chunk)?;
                let (_, frame) = frame.ok_or(ErrorKind::UnexpectedEof)?;
                buffer.extend_from_slice(&frame);
                if buffer.len() >= WRITE_BYTES {
                    self.medium.write_at(new, at, &buffer)?;
                    at += buffer.len() as u64;
                    buffer.clear();
                }
            }
            self.medium.write_at(new, at, &buffer)?;
            if self.is_synced {
                self.medium.sync(new)?;
            }
            Ok::<_, io::Error>(at + buffer.len() as u64)
        })();
        let bytes = match copied {
            Ok(bytes) => bytes,
            Err(error) => {
                self.segments.remove(&new);
                let _ = self.medium.remove(new);
                return Err(error);
            }
        };
        let mut sorted = Segment::new(bytes);
        sorted.order = Order::Sorted { at: HEADER_BYTES };
        sorted.next = frames.first().map(|(seq, _)| *seq);
        sorted.end = frames.last().map_or(Seq(0), |(seq, _)| seq.next());
        self.segments.insert(new, sorted);
        self.segments.remove(&number);
        self.medium.remove(number)
    }

    /// Makes a found segment one of this spool's.
    fn take_over(&mut self, segment: &FoundSegment, found: &Found) -> io::Result<()> {
        let FoundSegment { number, bytes, len, is_sorted, first, seqs } = *segment;
        let is_needed = |range: &SeqRange| !found.seqs.is_free(*range);
        let Some(seqs) = seqs.filter(is_needed) else {
            return self.medium.remove(number);
        };
        if bytes < len {
            self.medium.cut(number, bytes)?;
        }
        let mut segment = Segment::new(bytes);
        (segment.order, segment.end) = (Order::Sorted { at: HEADER_BYTES }, seqs.end);
        segment.next = Some(first);
        if is_sorted && found.dropped.is_free(seqs) {
            self.segments.insert(number, segment);
            return Ok(());
        }
        let mut frames = Vec::new();
        let (mut at, mut chunk) = (HEADER_BYTES, Chunk::new(READ_BYTES));
        while let Some((head, _)) = frame_at(&mut self.medium, number, at, bytes, &mut chunk)? {
            frames.push((head.seq, at));
            at += head.frame_bytes();
        }
        segment.order = Order::Unsorted { frames, read: 0, is_sorted: false };
        segment.next = None;
        self.segments.insert(number, segment);
        self.sort(number, Some(&found.dropped))
    }
}

impl Segment {
    fn new(bytes: u64) -> Self {
        let order = Order::Unsorted { frames: Vec::new(), read: 0, is_sorted: true };
        Self { bytes, end: Seq(0), order, next: None, chunk: Chunk::new(READ_BYTES) }
    }

    /// Adds frames, up to which it has this number of bytes now.
    fn add(&mut self, new: Vec<(Seq, u64)>, bytes: u64) {
        (self.bytes, self.next) = (bytes, None);
        let last = new.iter().map(|(seq, _)| seq.next()).max();
        self.end = self.end.max(last.unwrap_or_default());
        // The bytes that were read of it end too early now.
        self.chunk.clear();
        if let Order::Unsorted { frames, is_sorted, .. } = &mut self.order {
            frames.extend(new);
            *is_sorted = false;
        }
    }

    /// Returns the byte at which the next frame begins.
    fn at(&self) -> u64 {
        match &self.order {
            Order::Sorted { at } => *at,
            Order::Unsorted { frames, read, .. } => {
                frames.get(*read).map_or(self.bytes, |(_, at)| *at)
            }
        }
    }

    /// Returns the seq of the next frame.
    fn next(&mut self, medium: &mut impl Medium, number: u64) -> io::Result<Option<Seq>> {
        if self.next.is_some() {
            return Ok(self.next);
        }
        self.next = match &mut self.order {
            Order::Sorted { at } => {
                let head = self.chunk.bytes_at(medium, number, *at, HEAD_BYTES, self.bytes)?;
                head.and_then(|head| Head::read(&head)).map(|head| head.seq)
            }
            Order::Unsorted { frames, read, is_sorted } => {
                if !std::mem::replace(is_sorted, true) {
                    frames[*read..].sort_unstable();
                }
                frames.get(*read).map(|(seq, _)| *seq)
            }
        };
        Ok(self.next)
    }

    /// Skips the next frame.
    fn skip(&mut self, medium: &mut impl Medium, number: u64) -> io::Result<()> {
        let at = self.at();
        let head = self.chunk.bytes_at(medium, number, at, HEAD_BYTES, self.bytes)?;
        let head = head.and_then(|head| Head::read(&head)).ok_or(ErrorKind::UnexpectedEof)?;
        self.go_past(head.frame_bytes());
        Ok(())
    }

    fn go_past(&mut self, frame_bytes: u64) {
        self.next = None;
        match &mut self.order {
            Order::Sorted { at } => *at += frame_bytes,
            Order::Unsorted { read, .. } => *read += 1,
        }
    }
}

#[cfg(test)]
mod tests;

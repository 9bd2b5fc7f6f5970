//! The record log of a queue: each task's record once, found by its seq.
//!
//! What a record's bytes are is for its writer to say. They are to be the JSON line that the output has
//! ([`Format::Jsonl`](tradewind_records::Format)), and not the form of the spool, which is that of the wire:
//! records are kept for months, over changes of the wire, and are read as lines by whoever asks for them.
//!
//! Each segment begins with a [checkpoint](Checkpoint): the tasks whose records were stored before it. So to
//! open a log takes reading its last segment, segments may go from the front without that their tasks are
//! forgotten, and no second file has to agree with the log.

mod batches;
mod entry;
mod index;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tradewind_proto::collector::{Counts, Opened};
use tradewind_proto::message::Status;
use tradewind_proto::{Seq, SeqRange, SeqSet};
use tradewind_records::Medium;

pub use self::batches::RecordBatches;
use self::entry::{Checkpoint, Entry, INDEX_SEQS_MAX, encode_record};
pub use self::entry::{EntryError, StoredRecord};
use self::index::{Index, Looked, Place};
use crate::error::LogError;
use crate::format::{HEADER_BYTES, Kind};
use crate::log::{Found, Log, LogOptions, Surveyed};

/// Sizes of a record log.
#[derive(Clone, Copy, Debug)]
pub struct RecordOptions {
    /// Sizes of its segments: at most 16 GiB each, and one batch.
    pub log: LogOptions,
    /// Number of seqs in a file of the index, 16 bytes each, of a new log.
    pub index_seqs: u64,
}

impl Default for RecordOptions {
    fn default() -> Self {
        Self { log: LogOptions::default(), index_seqs: 1 << 20 }
    }
}

/// How long records are kept. Whole segments go, the oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// At least this long. A segment is closed after an eighth of that, and at the earliest after 10 s, so
    /// that the records in it do not stay for much longer.
    Time(Duration),
    /// As many as fit into these bytes, of which the segment that is appended to has an eighth.
    Bytes(u64),
    /// Until the position from which the last consumer reads on.
    Consumed(u64),
}

/// Earliest time after which a segment is closed for its age.
const SEGMENT_TIME_MIN: Duration = Duration::from_secs(10);

/// Bytes of a segment at most: the index has 4 bytes for a place in it.
const SEGMENT_BYTES_MAX: u64 = 16 << 30;

/// The record log of a queue.
///
/// A record that is [appended](Self::append) is stored once [`commit`](Self::commit) has returned. In memory are
/// the ranges of stored seqs, some hundred bytes for each segment and each file of the index, and a place for each
/// 256 KiB of the segments that were read from within.
#[derive(Debug)]
pub struct RecordLog<M> {
    log: Log<M>,
    index: Index<M>,
    segment_bytes: u64,
    stored: SeqSet,
    counts: Counts,
    /// Time at which the last segment began.
    begun: Duration,
    /// Records that are not committed.
    waiting: Vec<(Place, Status)>,
    waiting_seqs: SeqSet,
    /// Time at which the segment begins that the waiting batch begins.
    beginning: Option<Duration>,
    /// Records that are committed, and could not be written to the index, by seq: those of one batch at most, or
    /// of the last segment when the log was opened.
    unindexed: Vec<Place>,
}

/// Reason why records cannot be stored or read.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum RecordError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("entry {position} of the record log cannot be read: {error}")]
    Unreadable { position: u64, error: EntryError },
    #[error("segment {segment} of the record log does not begin with a checkpoint")]
    NoCheckpoint { segment: u64 },
    #[error(
        "file {file} of the index is damaged at byte {at}: it is made again when the index is removed"
    )]
    Index { file: u64, at: u64 },
}

impl From<std::io::Error> for RecordError {
    fn from(error: std::io::Error) -> Self {
        Self::Log(error.into())
    }
}

// Each batch has one of them.
const CHECKPOINT: u32 = 1;
const OK: u32 = 2;
const NOT_OK: u32 = 4;

impl<M: Medium> RecordLog<M> {
    /// Opens a record log with its index, or creates them. `id` is that of a new log and is to be random.
    ///
    /// Reads the last segment, whose part of the index is written again. Files of the index that are not there
    /// are made again, for which the whole log is read.
    ///
    /// # Errors
    ///
    /// When it is damaged, or cannot be read.
    pub fn open(
        medium: M,
        index: M,
        id: u64,
        options: RecordOptions,
    ) -> Result<(Self, Found), RecordError> {
        // It is this log that begins segments: each with a checkpoint.
        let log = LogOptions { segment_bytes: u64::MAX, ..options.log };
        let (mut log, found) = Log::open(medium, Kind::Records, id, log)?;
        let last = last_checkpoint(&mut log)?;
        let (from, Checkpoint { begun, stored, counts, index_seqs, index: files }) = match last {
            Some(last) => last,
            None => {
                let index_seqs = options.index_seqs.min(INDEX_SEQS_MAX);
                (0, Checkpoint { index_seqs, ..Checkpoint::default() })
            }
        };
        let mut index = Index::open(index, log.id(), index_seqs.max(1))?;
        index.expect(files);
        // They may have been removed since the checkpoint.
        index.remove_below(log.first(), &stored)?;
        let missing = index.missing();
        let mut records = Self {
            log,
            index,
            segment_bytes: options.log.segment_bytes.min(SEGMENT_BYTES_MAX),
            stored,
            counts,
            begun,
            waiting: Vec::new(),
            waiting_seqs: SeqSet::new(),
            beginning: None,
            unindexed: Vec::new(),
        };
        if !missing.is_empty() {
            records.make_index_again(&missing, from)?;
        }
        records.read_tail(from)?;
        Ok((records, found))
    }

    /// Reads what is behind the last checkpoint.
    fn read_tail(&mut self, from: u64) -> Result<(), RecordError> {
        let Self { log, index, stored, counts, unindexed, .. } = self;
        log.visit(from..u64::MAX, u32::MAX, |entry| {
            if let Entry::Record(record) = decoded(entry.position, entry.bytes)? {
                let (seq, position, batch) = (record.seq.0, entry.position, entry.batch);
                let place = Place { seq, position, batch };
                stored.insert(record.seq);
                counts.add(record.status);
                index.note(place);
                unindexed.push(place);
            }
            Ok::<_, RecordError>(())
        })?;
        // A disk that is full is no reason not to read, or to remove what is old.
        let _ = self.write_index();
        Ok(())
    }

    /// Makes files of the index again, of what is before this position.
    fn make_index_again(&mut self, files: &BTreeSet<u64>, to: u64) -> Result<(), RecordError> {
        let Self { log, index, stored, .. } = self;
        index.begin_again(files, stored)?;
        let mut places = Vec::new();
        log.visit(0..to, u32::MAX, |entry| {
            if let Entry::Record(record) = decoded(entry.position, entry.bytes)?
                && files.contains(&index.file_of(record.seq))
            {
                let (seq, position, batch) = (record.seq.0, entry.position, entry.batch);
                places.push(Place { seq, position, batch });
                if places.len() >= PLACES_MAX {
                    index.put(&mut places)?;
                    places.clear();
                }
            }
            Ok::<_, RecordError>(())
        })?;
        index.put(&mut places)?;
        index.finish(files)?;
        Ok(())
    }

    /// Returns the tasks whose records are stored, also of those that were removed.
    #[must_use]
    pub fn stored(&self) -> &SeqSet {
        &self.stored
    }

    /// Returns the numbers of stored records by status, with those that were removed.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Returns what a sink whose output this is begins with: the stored tasks, and the numbers of their records.
    #[must_use]
    pub fn opened(&self) -> Opened {
        Opened { stored: self.stored.clone(), counts: self.counts, ..Opened::default() }
    }

    /// Returns the position of the first entry that is still there.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.log.first()
    }

    /// Returns a position behind which every record is that was stored at this time since 1970 or later: that of the
    /// segment that was written to then.
    ///
    /// # Errors
    ///
    /// When a checkpoint cannot be read.
    pub fn first_since(&mut self, time: Duration) -> Result<u64, RecordError> {
        let segments = self.log.segment_ranges();
        for segment in segments.iter().rev().filter(|segment| !segment.is_empty()) {
            if checkpoint_of(&mut self.log, segment.start)?.begun <= time {
                return Ok(segment.start);
            }
        }
        Ok(self.log.first())
    }

    /// Returns the number of records that are there.
    #[must_use]
    pub fn kept(&self) -> u64 {
        // Each segment has a checkpoint as well.
        self.log
            .segment_ranges()
            .iter()
            .map(|range| (range.end - range.start).saturating_sub(1))
            .sum()
    }

    /// Returns the position after the last record that is stored.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.log.committed()
    }

    /// Returns the bytes of all segments, with zeros that were written ahead.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.log.file_bytes()
    }

    /// Returns the bytes that wait to be committed.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.log.waiting_bytes()
    }

    /// Adds a record. Returns false if the task has one already, stored or waiting: that one stays. `now` is the
    /// time since 1970.
    ///
    /// # Errors
    ///
    /// When the batch would be too large. The record is not in it then.
    pub fn append(
        &mut self,
        now: Duration,
        seq: Seq,
        status: Status,
        record: &[u8],
    ) -> Result<bool, RecordError> {
        if self.stored.contains(seq) || self.waiting_seqs.contains(seq) {
            return Ok(false);
        }
        if self.waiting.is_empty() && self.beginning.is_none() {
            let bytes = self.log.last_segment_bytes();
            if bytes == 0 || bytes >= self.segment_bytes {
                self.begin_segment(now)?;
            }
        }
        let mark = if status == Status::Ok { OK } else { NOT_OK };
        let position = self.log.append(mark, |out| encode_record(seq, status, record, out))?;
        self.waiting.push((Place { seq: seq.0, position, batch: 0 }, status));
        self.waiting_seqs.insert(seq);
        Ok(true)
    }

    /// Makes the batch begin a segment.
    fn begin_segment(&mut self, now: Duration) -> Result<(), RecordError> {
        let checkpoint = Checkpoint {
            // No segment begins before the one before it, whatever the clock says.
            begun: now.max(self.begun),
            stored: self.stored.clone(),
            counts: self.counts,
            index_seqs: self.index.file_seqs(),
            index: self.index.highest().clone(),
        };
        self.log.append(CHECKPOINT, |out| checkpoint.encode(out))?;
        self.beginning = Some(checkpoint.begun);
        Ok(())
    }

    /// Writes what was appended, so that it survives a crash of the machine when this returns.
    ///
    /// # Errors
    ///
    /// When that failed. None of it is stored then. It may be committed again, or [discarded](Self::discard).
    pub fn commit(&mut self) -> Result<(), RecordError> {
        // Where the index cannot be written, nothing more is stored: what it lacks is in memory.
        self.write_index()?;
        if self.beginning.is_some() {
            // The checkpoint says that it has all that is before.
            self.index.sync()?;
            self.log.close_segment()?;
        }
        let Some(batch) = self.log.commit()? else { return Ok(()) };
        if let Some(begun) = self.beginning.take() {
            self.begun = begun;
        }
        for (place, status) in self.waiting.drain(..) {
            let place = Place { batch, ..place };
            self.index.note(place);
            self.unindexed.push(place);
            self.counts.add(status);
        }
        let stored = std::mem::take(&mut self.waiting_seqs).to_ranges();
        stored.as_slice().iter().for_each(|range| self.stored.insert_range(*range));
        // The next commit fails if this does.
        let _ = self.write_index();
        Ok(())
    }

    /// Makes all that is stored survive a crash of the machine, also where the medium is not
    /// [synced](Medium::is_synced).
    ///
    /// # Errors
    ///
    /// When that failed.
    pub fn sync(&mut self) -> Result<(), RecordError> {
        Ok(self.log.sync()?)
    }

    fn write_index(&mut self) -> Result<(), RecordError> {
        if !self.unindexed.is_empty() {
            self.index.put(&mut self.unindexed)?;
            self.unindexed.clear();
        }
        Ok(())
    }

    /// Takes back what was appended and not committed.
    pub fn discard(&mut self) {
        self.log.discard();
        self.waiting.clear();
        self.waiting_seqs = SeqSet::new();
        self.beginning = None;
    }

    /// Returns the tasks whose records are there and are not `ok`, nor `skipped`. Reads the batches that have such
    /// records.
    ///
    /// # Errors
    ///
    /// When they cannot be read, or are damaged.
    pub fn not_ok(&mut self) -> Result<SeqSet, RecordError> {
        let mut seqs = SeqSet::new();
        self.log.visit(0..u64::MAX, NOT_OK, |entry| {
            if let Entry::Record(record) = decoded(entry.position, entry.bytes)?
                && !matches!(record.status, Status::Ok | Status::Skipped)
            {
                seqs.insert(record.seq);
            }
            Ok::<_, RecordError>(())
        })?;
        Ok(seqs)
    }

    /// Returns whether a task of this range has no record, or one of `failed` that is still there: it may be
    /// retried. What `failed` has of records that were removed is taken out of it.
    pub fn is_needed(&mut self, range: SeqRange, failed: &mut SeqSet) -> bool {
        if !self.stored.gaps(range).is_empty() {
            return true;
        }
        for part in failed.parts(range) {
            for seq in (part.start.0..part.end.0).map(Seq) {
                match self.position_of(seq) {
                    Ok(None) => drop(failed.remove(seq)),
                    // What cannot be read stays.
                    Ok(Some(_)) | Err(_) => return true,
                }
            }
        }
        false
    }

    /// Returns the record of a task; `None` if there is none that is stored, or no longer.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or its place is not known because the index is damaged.
    pub fn get(&mut self, seq: Seq) -> Result<Option<StoredRecord>, RecordError> {
        let Some(place) = self.place_of(seq)? else { return Ok(None) };
        let Place { position, batch, .. } = place;
        let Some(bytes) = self.log.entry_at(position, batch)? else { return Ok(None) };
        match decoded(position, bytes)? {
            Entry::Record(record) if record.seq == seq => Ok(Some(record)),
            _ => Err(self.index_damaged(seq)),
        }
    }

    /// Returns the position of the record of a task; `None` if there is none that is stored, or no longer.
    ///
    /// # Errors
    ///
    /// When the index cannot be read, or is damaged.
    pub fn position_of(&mut self, seq: Seq) -> Result<Option<u64>, RecordError> {
        Ok(self.place_of(seq)?.map(|place| place.position))
    }

    fn place_of(&mut self, seq: Seq) -> Result<Option<Place>, RecordError> {
        if !self.stored.contains(seq) {
            return Ok(None);
        }
        if let Ok(place) = self.unindexed.binary_search_by_key(&seq.0, |place| place.seq) {
            return Ok(Some(self.unindexed[place]));
        }
        match self.index.get(seq)? {
            Looked::Found(place) if place.position >= self.log.first() && place.position > 0 => {
                Ok(Some(place))
            }
            Looked::Found(_) => Ok(None),
            // All of the file's records were removed, and it with them.
            Looked::Nothing if !self.index.highest().contains_key(&self.index.file_of(seq)) => {
                Ok(None)
            }
            Looked::Nothing => Err(self.index_damaged(seq)),
            Looked::Damaged { file, at } => Err(RecordError::Index { file, at }),
        }
    }

    fn index_damaged(&self, seq: Seq) -> RecordError {
        let (file, at) = self.index.place_in_file(seq);
        RecordError::Index { file, at }
    }

    /// Returns records in the order in which they were stored, from a position on: at least one if there is one,
    /// and as many more as fit into these bytes; and the position from which to read on. Positions are not
    /// dense. The first record may be a later one, if those before were removed.
    ///
    /// # Errors
    ///
    /// When they cannot be read, or are damaged.
    pub fn read(
        &mut self,
        from: u64,
        bytes_max: usize,
    ) -> Result<(Vec<(u64, StoredRecord)>, u64), RecordError> {
        let (mut records, mut next) = (Vec::new(), from);
        while records.is_empty() {
            let entries = self.log.read(next, bytes_max)?;
            let Some((last, _)) = entries.last() else { break };
            next = last + 1;
            for (position, bytes) in entries {
                if let Entry::Record(record) = decoded(position, bytes)? {
                    records.push((position, record));
                }
            }
        }
        Ok((records, next))
    }

    /// Removes the oldest segments, as far as they are not kept any longer. Their tasks stay known as stored.
    /// Nothing of what waits to be committed is touched. `now` is the time since 1970. Returns how many went.
    ///
    /// # Errors
    ///
    /// When one could not be read or removed: it is still there.
    pub fn remove_old(&mut self, keep: Keep, now: Duration) -> Result<usize, RecordError> {
        let is_idle = self.waiting.is_empty() && self.beginning.is_none();
        if is_idle && self.is_to_be_closed(keep, now) {
            self.begin_segment(now)?;
            if let Err(error) = self.commit() {
                self.discard();
                return Err(error);
            }
        }
        let mut count = 0;
        let segments = self.log.segment_ranges();
        for pair in segments.windows(2) {
            let [segment, next] = pair else { continue };
            // What is in a segment is known from the one after it.
            if next.is_empty() {
                break;
            }
            let is_kept = match keep {
                Keep::Time(time) => {
                    checkpoint_of(&mut self.log, next.start)?.begun.saturating_add(time) > now
                }
                Keep::Bytes(bytes) => self.log.file_bytes() <= bytes,
                Keep::Consumed(position) => segment.end > position,
            };
            if is_kept {
                break;
            }
            self.log.remove(segment.start)?;
            count += 1;
        }
        if count > 0 {
            self.index.remove_below(self.log.first(), &self.stored)?;
        }
        Ok(count)
    }

    /// Returns whether the last segment has records and is to be followed by another, which gets a checkpoint.
    fn is_to_be_closed(&self, keep: Keep, now: Duration) -> bool {
        let segments = self.log.segment_ranges();
        let Some(last) = segments.last() else { return false };
        let bytes = self.log.last_segment_bytes();
        // Only a checkpoint, which does as well.
        if last.end == last.start + 1 && bytes > 0 {
            return false;
        }
        let is_old =
            |time: Duration| self.begun.saturating_add((time / 8).max(SEGMENT_TIME_MIN)) <= now;
        match keep {
            _ if bytes == 0 => true,
            Keep::Time(time) => is_old(time),
            Keep::Bytes(max) => bytes >= max / 8,
            Keep::Consumed(_) => false,
        }
    }
}

/// Places that wait in memory for being written to the index.
const PLACES_MAX: usize = 256 << 10;

/// Returns the last checkpoint, and its position; `None` if the log is empty.
fn last_checkpoint<M: Medium>(log: &mut Log<M>) -> Result<Option<(u64, Checkpoint)>, RecordError> {
    let segments = log.segment_ranges();
    // One that was about to be begun is empty.
    match segments.iter().rev().find(|range| !range.is_empty()) {
        Some(last) => Ok(Some((last.start, checkpoint_of(log, last.start)?))),
        None => match segments.first() {
            // Those before were removed because of what was in it.
            Some(range) if range.start > 0 => {
                Err(RecordError::NoCheckpoint { segment: range.start })
            }
            _ => Ok(None),
        },
    }
}

fn checkpoint_of<M: Medium>(log: &mut Log<M>, segment: u64) -> Result<Checkpoint, RecordError> {
    let entry = log.entry_at(segment, HEADER_BYTES)?;
    match entry.map(|bytes| decoded(segment, bytes)).transpose()? {
        Some(Entry::Checkpoint(checkpoint)) => Ok(checkpoint),
        _ => Err(RecordError::NoCheckpoint { segment }),
    }
}

fn decoded(position: u64, bytes: Bytes) -> Result<Entry, RecordError> {
    Entry::decode(bytes).map_err(|error| RecordError::Unreadable { position, error })
}

/// What is known of a record log whose entries are checked one after the other, and of its index.
#[derive(Debug)]
pub(crate) struct RecordCheck<M> {
    /// Medium of the index, until it is opened.
    medium: Option<M>,
    index: Option<Index<M>>,
    found: IndexFound,
    /// Number of tasks that there are.
    tasks: u64,
    seen: SeqSet,
    segment: Option<u64>,
}

/// What was found in an index that is checked.
#[derive(Debug, Default)]
pub(crate) struct IndexFound {
    /// What is amiss, by file and byte.
    pub(crate) faults: Vec<(u64, u64, String)>,
    /// Files that are to be made again.
    pub(crate) unmade: BTreeSet<u64>,
    /// Why it could not be read.
    pub(crate) error: Option<std::io::Error>,
}

impl<M: Medium> RecordCheck<M> {
    pub(crate) fn new(index: M, tasks: u64) -> Self {
        Self {
            medium: Some(index),
            index: None,
            found: IndexFound::default(),
            tasks,
            seen: SeqSet::new(),
            segment: None,
        }
    }

    /// Returns what is amiss with an entry.
    pub(crate) fn check(&mut self, entry: Surveyed) -> Result<(), String> {
        let Surveyed { id, segment, is_last, batch, position, bytes } = entry;
        let is_first = self.segment.replace(segment) != Some(segment);
        let decoded = Entry::decode(bytes).map_err(|error| error.to_string())?;
        let record = match decoded {
            Entry::Checkpoint(checkpoint) => {
                if let Some(medium) = self.medium.take() {
                    match Index::open(medium, id, checkpoint.index_seqs.max(1)) {
                        Ok(index) => self.index = Some(index),
                        Err(error) => self.found.error = Some(error),
                    }
                }
                let is_right = self.seen.is_subset(&checkpoint.stored);
                return is_right.then_some(()).ok_or("records before it are missing".to_owned());
            }
            Entry::Record(_) if is_first => {
                return Err("it begins a segment and is no checkpoint".to_owned());
            }
            Entry::Record(record) => record,
        };
        let seq = record.seq;
        // Records of the last segment are written to the index again when the log is opened.
        if !is_last {
            self.check_index(Place { seq: seq.0, position, batch });
        }
        if !self.seen.insert(seq) {
            return Err(format!("a second record of task {}", seq.0));
        }
        if seq.0 >= self.tasks {
            return Err(format!("a record of task {}, which is not there", seq.0));
        }
        Ok(())
    }

    fn check_index(&mut self, place: Place) {
        let Some(index) = &mut self.index else { return };
        let seq = Seq(place.seq);
        if !index.has(index.file_of(seq)) {
            self.found.unmade.insert(index.file_of(seq));
            return;
        }
        let what = match index.get(seq) {
            Ok(Looked::Found(found)) if found == place => return,
            Ok(Looked::Found(_)) => "another place for the record of task",
            Ok(Looked::Nothing) => "no place for the record of task",
            Ok(Looked::Damaged { .. }) => "no whole place for the record of task",
            Err(error) => {
                self.found.error = Some(error);
                return;
            }
        };
        let (file, at) = index.place_in_file(seq);
        self.found.faults.push((file, at, format!("{what} {}", seq.0)));
    }

    /// Returns what was found in the index.
    pub(crate) fn finish(self) -> IndexFound {
        self.found
    }
}

#[cfg(test)]
mod tests;

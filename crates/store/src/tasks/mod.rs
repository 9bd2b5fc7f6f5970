//! The task log of a queue: what was submitted, each key once.

mod reader;

use std::collections::{BTreeMap, HashMap};
use std::ops::{DerefMut, Range};

use bytes::Bytes;
use thiserror::Error;
use tradewind_proto::{Seq, SeqRange, SeqSet};
use tradewind_records::Medium;

pub use self::reader::{NextTask, TaskReader};
use crate::error::LogError;
use crate::format::Kind;
use crate::halves::{Remember, Told};
use crate::kept::{KeptKey, PayloadHash};
use crate::keys::KeyIndex;
use crate::log::{Found, Log, LogOptions};
use crate::records::{RecordError, RecordLog};
use crate::task::{KEY_BYTES_MAX, StoredTask, TaskError};

/// Limits of a task log.
#[derive(Clone, Copy, Debug)]
pub struct TasksOptions {
    /// Sizes of its segments.
    pub log: LogOptions,
    /// Sizes of the key log's segments.
    pub keys: LogOptions,
    /// Number of keys that are remembered: some 32 bytes of memory each.
    pub keys_max: usize,
}

impl Default for TasksOptions {
    fn default() -> Self {
        let keys = LogOptions { segment_bytes: 4 << 20, zeroed_bytes: 64 << 10 };
        Self { log: LogOptions::default(), keys, keys_max: 1 << 21 }
    }
}

/// The task log of a queue, and the log of keys whose tasks are gone.
///
/// A task that is [submitted](Self::submit) is promised once [`commit`](Self::commit) has returned. One with the
/// key of another that is remembered is that other one. A key is remembered as long as its task is there, and as
/// long as its record is: see [`forget_below`](Self::forget_below).
#[derive(Debug)]
pub struct Tasks<M> {
    log: Log<M>,
    /// Keys whose tasks are gone.
    kept: Log<M>,
    /// Highest position of a record in each segment of the key log.
    kept_records: BTreeMap<u64, u64>,
    /// Position of the record log from which on a record's key is remembered.
    kept_from: u64,
    /// Positions of tasks, and of keys in the key log: with [`KEPT`].
    keys: KeyIndex,
    keys_max: usize,
    /// Keys of tasks that are not committed, with their payloads: these cannot be read yet.
    waiting: Vec<(u64, StoredTask)>,
    /// Tasks that were read last, by their positions.
    near: Vec<(u64, StoredTask)>,
}

/// Answer to a submit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// It is a new task, with this position.
    New(u64),
    /// It is known, by its key.
    Known(u64),
}

impl Submitted {
    /// Returns the task's position.
    #[must_use]
    pub fn position(self) -> u64 {
        let (Self::New(position) | Self::Known(position)) = self;
        position
    }
}

/// Task with a key.
enum Known {
    There(u64, StoredTask),
    Gone(KeptKey),
}

impl Known {
    /// Returns the task's position.
    fn task(&self) -> u64 {
        match self {
            Self::There(position, _) => *position,
            Self::Gone(kept) => kept.task,
        }
    }
}

/// Reason why a task is not taken.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum SubmitError {
    #[error("a key has 1 to {KEY_BYTES_MAX} bytes")]
    Key,
    #[error("task {position} has the same key, and is another one")]
    OtherTask { position: u64 },
    #[error("two tasks of the request have the same key, and are different ones")]
    TwoTasks,
    #[error("{max} keys are remembered, no more fit")]
    KeysFull { max: usize },
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the key log: {0}")]
    KeyLog(LogError),
    #[error(transparent)]
    Records(#[from] RecordError),
    #[error("task {position} in the log cannot be read: {error}")]
    Unreadable { position: u64, error: TaskError },
    #[error("entry {position} of the key log cannot be read: {error}")]
    UnreadableKey { position: u64, error: TaskError },
}

/// Reason why none of the tasks of a request is taken.
#[derive(Debug, Error)]
#[error("task {place} of the request: {error}")]
pub struct RequestError {
    /// Place of the task in the request.
    pub place: usize,
    /// What is the matter with it.
    pub error: SubmitError,
}

impl From<SubmitError> for RequestError {
    /// Of the request as a whole.
    fn from(error: SubmitError) -> Self {
        Self { place: 0, error }
    }
}

/// Bytes of tasks that are read together where one is asked for.
const NEAR_BYTES: usize = 128 << 10;

/// Mark of a batch with keys.
const KEYED: u32 = 1;

/// Bit of a position in the key log, where it is not one of a task.
const KEPT: u64 = 1 << 63;

/// Bytes of keys that are written at a time.
const KEPT_BATCH_BYTES: usize = 256 << 10;

impl<M: Medium> Tasks<M> {
    /// Opens a task log and its key log, or creates them. `id` is that of new ones and is to be random.
    /// `kept_from` is the position of the record log from which on a record's key is remembered.
    ///
    /// # Errors
    ///
    /// When one is damaged, or cannot be read.
    pub fn open(
        medium: M,
        keys: M,
        id: u64,
        options: TasksOptions,
        kept_from: u64,
    ) -> Result<(Self, Found), SubmitError> {
        let (log, found) = Log::open(medium, Kind::Tasks, id, options.log)?;
        let kept = Log::open(keys, Kind::Keys, log.id(), options.keys);
        let (kept, _) = kept.map_err(SubmitError::KeyLog)?;
        let mut tasks = Self {
            log,
            kept,
            kept_records: BTreeMap::new(),
            kept_from,
            keys: KeyIndex::default(),
            keys_max: options.keys_max,
            waiting: Vec::new(),
            near: Vec::new(),
        };
        let keys = &mut tasks.keys;
        tasks.log.visit(0..u64::MAX, KEYED, |entry| {
            if let Some(key) = decoded(entry.position, entry.bytes)?.key {
                keys.insert(&key, entry.position);
            }
            Ok::<_, SubmitError>(())
        })?;
        for segment in tasks.kept.segment_ranges() {
            let keys = &mut tasks.keys;
            let mut last = 0;
            visit_kept(&mut tasks.kept, segment.clone(), |position, key| {
                keys.insert(&key.key, position | KEPT);
                last = key.record.max(last);
            })?;
            tasks.kept_records.insert(segment.start, last);
        }
        tasks.forget_below(kept_from)?;
        Ok((tasks, found))
    }

    /// Adds a task, unless one with its key is remembered.
    ///
    /// # Errors
    ///
    /// When the key stands for another task, there are too many, or the log cannot be read.
    pub fn submit(&mut self, task: StoredTask) -> Result<Submitted, SubmitError> {
        if let Some(position) = self.check(&task)? {
            return Ok(Submitted::Known(position));
        }
        if task.key.is_some() {
            self.check_room(1)?;
        }
        let marks = if task.key.is_some() { KEYED } else { 0 };
        let position = self.log.append(marks, |bytes| task.encode(bytes))?;
        if let Some(key) = &task.key {
            self.keys.insert(key, position);
            self.waiting.push((position, task));
        }
        Ok(Submitted::New(position))
    }

    /// Adds all tasks of a request to the batch, or none.
    ///
    /// # Errors
    ///
    /// As those of [`submit`](Self::submit), for the first task for which there is one.
    pub fn submit_all(&mut self, tasks: Vec<StoredTask>) -> Result<Vec<Submitted>, RequestError> {
        // Nothing can be taken back of a batch that has others' tasks: what would be refused is found out before.
        let mut keys: HashMap<&Bytes, (u64, &StoredTask)> = HashMap::new();
        let (mut next, mut new_keys) = (self.next(), 0);
        for (place, task) in tasks.iter().enumerate() {
            let refused = |error| RequestError { place, error };
            let same = task.key.as_ref().and_then(|key| keys.get(key));
            if let Some((position, known)) = same {
                if *known != task {
                    // The first of the two may be known from before, or be refused with this one.
                    let is_new = *position >= self.next();
                    let position = *position;
                    return Err(refused(match is_new {
                        true => SubmitError::TwoTasks,
                        false => SubmitError::OtherTask { position },
                    }));
                }
                continue;
            }
            let known = self.check(task).map_err(refused)?;
            let position = known.unwrap_or(next);
            next += u64::from(known.is_none());
            if let Some(key) = &task.key {
                new_keys += usize::from(known.is_none());
                keys.insert(key, (position, task));
            }
        }
        self.check_room(new_keys)?;
        tasks.into_iter().map(|task| Ok(self.submit(task)?)).collect()
    }

    /// Returns the position of a task that is known, by its key; `None` if it would be a new one.
    ///
    /// # Errors
    ///
    /// When the key stands for another task, is none, or the log cannot be read.
    pub fn check(&mut self, task: &StoredTask) -> Result<Option<u64>, SubmitError> {
        let Some(key) = &task.key else { return Ok(None) };
        if !(1..=KEY_BYTES_MAX).contains(&key.len()) {
            return Err(SubmitError::Key);
        }
        let Some(known) = self.known(key)? else { return Ok(None) };
        let (position, is_same) = match known {
            Known::There(position, known) => {
                (position, (&known.options, &known.payload) == (&task.options, &task.payload))
            }
            Known::Gone(kept) => (kept.task, kept.hash == PayloadHash::of(task, self.kept.id())),
        };
        if is_same { Ok(Some(position)) } else { Err(SubmitError::OtherTask { position }) }
    }

    /// Returns an error if so many new keys cannot be remembered.
    ///
    /// # Errors
    ///
    /// When they cannot.
    pub fn check_room(&self, keys: usize) -> Result<(), SubmitError> {
        match self.keys.len().saturating_add(keys) > self.keys_max {
            true => Err(SubmitError::KeysFull { max: self.keys_max }),
            false => Ok(()),
        }
    }

    /// Returns the position of the next task that is submitted and new.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.log.next()
    }

    /// Returns the position of the first task that is still there.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.log.first()
    }

    /// Returns the bytes of all segments, of tasks and of keys, with zeros that were written ahead.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.log.file_bytes() + self.kept.file_bytes()
    }

    /// Returns the position of the task with a key, if one is remembered.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub fn find(&mut self, key: &[u8]) -> Result<Option<u64>, SubmitError> {
        Ok(self.known(key)?.map(|known| known.task()))
    }

    /// Returns the position of the task with a key, if it is there and is a retry of this one.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub fn find_retry(&mut self, of: u64, key: &[u8]) -> Result<Option<u64>, SubmitError> {
        Ok(self.known(key)?.and_then(|known| match known {
            Known::There(position, task) if task.options.retry_of == Some(of) => Some(position),
            Known::There(..) | Known::Gone(_) => None,
        }))
    }

    fn known(&mut self, key: &[u8]) -> Result<Option<Known>, SubmitError> {
        // One that was forgotten may be known again after a start, beside the task that was submitted since: the last
        // one is it.
        let mut last: Option<Known> = None;
        let is_later = |known: &Known, last: &Option<Known>| {
            last.as_ref().is_none_or(|it| it.task() < known.task())
        };
        for position in self.keys.candidates(key).to_vec() {
            if position & KEPT != 0 {
                let kept = self.kept_key(position & !KEPT)?;
                let is_it = |kept: &KeptKey| kept.key == key && kept.record >= self.kept_from;
                let known = kept.filter(is_it).map(Known::Gone);
                last = known.filter(|known| is_later(known, &last)).or(last);
                continue;
            }
            let waiting = self.waiting.binary_search_by_key(&position, |(position, _)| *position);
            let task = match waiting {
                Ok(place) => Some(self.waiting[place].1.clone()),
                Err(_) => self.task(position)?,
            };
            let task = task.filter(|task| task.key.as_deref() == Some(key));
            let known = task.map(|task| Known::There(position, task));
            last = known.filter(|known| is_later(known, &last)).or(last);
        }
        Ok(last)
    }

    fn kept_key(&mut self, position: u64) -> Result<Option<KeptKey>, SubmitError> {
        let read = self.kept.read(position, 0).map_err(SubmitError::KeyLog)?;
        let entry = read.into_iter().next().filter(|(at, _)| *at == position);
        entry.map(|(at, bytes)| decoded_kept(at, bytes)).transpose()
    }

    /// Writes what was submitted, so that it survives a crash of the machine when this returns.
    ///
    /// # Errors
    ///
    /// When that failed. None of it is promised then. It may be committed again, or
    /// [discarded](Self::discard).
    pub fn commit(&mut self) -> Result<(), SubmitError> {
        self.log.commit()?;
        self.waiting.clear();
        Ok(())
    }

    /// Makes all that is committed survive a crash of the machine, also where the medium is not
    /// [synced](Medium::is_synced).
    ///
    /// # Errors
    ///
    /// When that failed.
    pub fn sync(&mut self) -> Result<(), SubmitError> {
        Ok(self.log.sync()?)
    }

    /// Lets the next task have this position, if it would have a lower one: what is known of those between is of
    /// tasks that are lost. Nothing may wait to be committed.
    pub fn skip_to(&mut self, position: u64) {
        self.log.skip_to(position);
    }

    /// Takes back what was submitted and not committed.
    pub fn discard(&mut self) {
        for (position, task) in self.waiting.drain(..) {
            self.keys.remove(task.key.as_deref().unwrap_or_default(), position);
        }
        self.log.discard();
    }

    /// Returns the bytes that wait to be committed.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.log.waiting_bytes()
    }

    /// Returns the position after the last task that is committed.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.log.committed()
    }

    /// Returns committed tasks from a position on: at least one if there is one, and as many more as fit into
    /// these bytes. The first may be a later one, if those before were removed.
    ///
    /// # Errors
    ///
    /// When they cannot be read, or are damaged.
    pub fn read(
        &mut self,
        from: u64,
        bytes_max: usize,
    ) -> Result<Vec<(u64, StoredTask)>, SubmitError> {
        let entries = self.log.read(from, bytes_max)?.into_iter();
        entries.map(|(position, bytes)| Ok((position, decoded(position, bytes)?))).collect()
    }

    /// Returns a committed task; `None` if there is none at this position, or no longer. Reads some of those behind
    /// it as well: who asks for one as a rule asks for the next.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is damaged.
    pub fn task(&mut self, position: u64) -> Result<Option<StoredTask>, SubmitError> {
        let place = |near: &[(u64, StoredTask)]| {
            near.binary_search_by_key(&position, |(position, _)| *position).ok()
        };
        if place(&self.near).is_none() {
            self.near = self.read(position, NEAR_BYTES)?;
        }
        Ok(place(&self.near).map(|place| self.near[place].1.clone()))
    }

    /// Removes tasks that are not [needed](RecordLog::is_needed) any more, and keys whose records were removed; with
    /// `forgets_keys` those of all tasks that are removed. `records` and `failed` are asked for again and again, and
    /// held on to for one answer each.
    ///
    /// # Errors
    ///
    /// When something that is not needed could not be read or removed: it is still there.
    pub fn trim<R, F>(
        &mut self,
        records: impl Fn() -> R,
        failed: impl Fn() -> F,
        forgets_keys: bool,
    ) -> Result<(), SubmitError>
    where
        R: DerefMut<Target = RecordLog<M>>,
        F: DerefMut<Target = SeqSet>,
    {
        let first = records().first();
        self.forget_below(if forgets_keys { u64::MAX } else { first })?;
        self.remove_unneeded(
            |range| is_needed(&records, &failed, range),
            |position| match forgets_keys {
                true => Ok(None),
                false => records().position_of(Seq(position)),
            },
        )?;
        Ok(())
    }

    /// Does the same, and remembers the keys of tasks whose records were stored at this position of the record log
    /// or later, also of records that are gone.
    ///
    /// # Errors
    ///
    /// As [`trim`](Self::trim).
    pub fn trim_from<R, F>(
        &mut self,
        records: impl Fn() -> R,
        failed: impl Fn() -> F,
        position: u64,
    ) -> Result<(), SubmitError>
    where
        R: DerefMut<Target = RecordLog<M>>,
        F: DerefMut<Target = SeqSet>,
    {
        self.forget_below(position)?;
        self.remove_unneeded(
            |range| is_needed(&records, &failed, range),
            |task| {
                let mut records = records();
                let stored = records.position_of(Seq(task))?;
                // When one was stored that is gone is not known any more: not after this.
                Ok(Some(stored.unwrap_or_else(|| records.committed())))
            },
        )?;
        Ok(())
    }

    /// Returns the ranges of tasks that are removed as a whole, the oldest first.
    #[must_use]
    pub fn closed_segments(&self) -> Vec<Range<u64>> {
        self.log.closed_segments()
    }

    /// Removes one of the [closed segments](Self::closed_segments), by what its record log has told of it. Returns
    /// whether it did: not if a task is needed, or if it is told of something else.
    ///
    /// # Errors
    ///
    /// As [`remove_unneeded`](Self::remove_unneeded).
    pub fn remove_told(
        &mut self,
        segment: &Range<u64>,
        told: &Told,
        remember: Remember,
    ) -> Result<bool, SubmitError> {
        let is_whole = told.positions.len() as u64 == segment.end.saturating_sub(segment.start);
        if told.is_needed || !is_whole {
            return Ok(false);
        }
        let removed = self.remove_unneeded(
            |closed| closed != *segment,
            |task| {
                let place = usize::try_from(task.saturating_sub(segment.start));
                Ok(place.ok().and_then(|place| told.remembered(remember, place)))
            },
        );
        Ok(removed? > 0)
    }

    /// Removes segments of whose tasks none is needed. Of the keys in them those are remembered whose records are
    /// kept: `record_of` is asked for a record's position in the record log, by its task's, and answers `None`
    /// if it is not, or if no key is to outlive its task. Returns how many segments went.
    ///
    /// # Errors
    ///
    /// When one could not be read or removed: it is still there. Or when keys could not be written.
    pub fn remove_unneeded(
        &mut self,
        mut is_needed: impl FnMut(Range<u64>) -> bool,
        mut record_of: impl FnMut(u64) -> Result<Option<u64>, RecordError>,
    ) -> Result<usize, SubmitError> {
        let mut count = 0;
        for range in self.log.closed_segments() {
            if is_needed(range.clone()) {
                continue;
            }
            let (mut keys, mut kept) = (Vec::new(), Vec::new());
            let id = self.kept.id();
            self.log.visit(range.clone(), KEYED, |entry| {
                let position = entry.position;
                let task = decoded(position, entry.bytes)?;
                let Some(key) = task.key.clone() else { return Ok(()) };
                if let Some(record) = record_of(position)? {
                    let hash = PayloadHash::of(&task, id);
                    kept.push(KeptKey { task: position, record, hash, key: key.clone() });
                }
                keys.push((position, key));
                Ok::<_, SubmitError>(())
            })?;
            self.keep(kept)?;
            self.near.clear();
            self.log.remove(range.start)?;
            // Not before: with the segment they would come back.
            keys.into_iter().for_each(|(position, key)| self.keys.remove(&key, position));
            count += 1;
        }
        Ok(count)
    }

    /// Writes keys to the key log, of which some may be there: a segment was not removed after that.
    fn keep(&mut self, keys: Vec<KeptKey>) -> Result<(), SubmitError> {
        let mut batch = Vec::new();
        for key in keys {
            if key.record < self.kept_from || self.is_kept(&key)? {
                continue;
            }
            let position = self.kept.append(KEYED, |bytes| key.encode(bytes));
            batch.push((position.map_err(SubmitError::KeyLog)?, key));
            if self.kept.waiting_bytes() >= KEPT_BATCH_BYTES {
                self.commit_kept(&mut batch)?;
            }
        }
        self.commit_kept(&mut batch)?;
        self.kept.sync().map_err(SubmitError::KeyLog)
    }

    fn is_kept(&mut self, key: &KeptKey) -> Result<bool, SubmitError> {
        for position in self.keys.candidates(&key.key).to_vec() {
            if position & KEPT != 0 && self.kept_key(position & !KEPT)?.as_ref() == Some(key) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn commit_kept(&mut self, batch: &mut Vec<(u64, KeptKey)>) -> Result<(), SubmitError> {
        if let Err(error) = self.kept.commit() {
            self.kept.discard();
            return Err(SubmitError::KeyLog(error));
        }
        let segment = self.kept.segment_ranges().last().map_or(0, |range| range.start);
        for (position, key) in batch.drain(..) {
            let last = self.kept_records.entry(segment).or_default();
            *last = key.record.max(*last);
            self.keys.insert(&key.key, position | KEPT);
        }
        Ok(())
    }

    /// Forgets the keys of tasks that are gone and whose records are below this position of the record log. It is
    /// to be called before these records are removed, or after: a record says nothing of its key.
    ///
    /// # Errors
    ///
    /// When what is not needed any more could not be read or removed. The keys are forgotten then, and take room.
    pub fn forget_below(&mut self, position: u64) -> Result<(), SubmitError> {
        self.kept_from = position.max(self.kept_from);
        for range in self.kept.closed_segments() {
            if self.kept_records.get(&range.start).is_some_and(|last| *last >= self.kept_from) {
                continue;
            }
            let mut keys = Vec::new();
            visit_kept(&mut self.kept, range.clone(), |position, key| {
                keys.push((position | KEPT, key.key));
            })?;
            self.kept.remove(range.start).map_err(SubmitError::KeyLog)?;
            self.kept_records.remove(&range.start);
            keys.into_iter().for_each(|(position, key)| self.keys.remove(&key, position));
        }
        Ok(())
    }
}

fn is_needed<M: Medium, R, F>(
    records: impl Fn() -> R,
    failed: impl Fn() -> F,
    range: Range<u64>,
) -> bool
where
    R: DerefMut<Target = RecordLog<M>>,
    F: DerefMut<Target = SeqSet>,
{
    let range = SeqRange { start: Seq(range.start), end: Seq(range.end) };
    let mut records = records();
    // A record that may be lost with the machine is none for which its task can go.
    records.is_needed(range, &mut failed()) || records.sync().is_err()
}

fn visit_kept<M: Medium>(
    kept: &mut Log<M>,
    range: Range<u64>,
    mut visit: impl FnMut(u64, KeptKey),
) -> Result<(), SubmitError> {
    let mut unreadable = None;
    let visited = kept.visit(range, KEYED, |entry| {
        match KeptKey::decode(entry.bytes) {
            Ok(key) => visit(entry.position, key),
            Err(error) => unreadable = Some((entry.position, error)),
        }
        Ok::<_, LogError>(())
    });
    visited.map_err(SubmitError::KeyLog)?;
    match unreadable {
        Some((position, error)) => Err(SubmitError::UnreadableKey { position, error }),
        None => Ok(()),
    }
}

fn decoded_kept(position: u64, bytes: Bytes) -> Result<KeptKey, SubmitError> {
    KeptKey::decode(bytes).map_err(|error| SubmitError::UnreadableKey { position, error })
}

fn decoded(position: u64, bytes: Bytes) -> Result<StoredTask, SubmitError> {
    StoredTask::decode(bytes).map_err(|error| SubmitError::Unreadable { position, error })
}

#[cfg(test)]
mod tests;

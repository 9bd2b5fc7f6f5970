//! The task log of a queue: what was submitted, each key once.

use std::ops::Range;

use bytes::Bytes;
use thiserror::Error;
use tradewind_records::Medium;

use crate::error::LogError;
use crate::format::Kind;
use crate::keys::KeyIndex;
use crate::log::{Found, Log, LogOptions};
use crate::task::{KEY_BYTES_MAX, StoredTask, TaskError};

/// Limits of a task log.
#[derive(Clone, Copy, Debug)]
pub struct TasksOptions {
    /// Sizes of its segments.
    pub log: LogOptions,
    /// Number of keys that are remembered: some 32 bytes of memory each.
    pub keys_max: usize,
}

impl Default for TasksOptions {
    fn default() -> Self {
        Self { log: LogOptions::default(), keys_max: 1 << 21 }
    }
}

/// The task log of a queue.
///
/// A task that is [submitted](Self::submit) is promised once [`commit`](Self::commit) has returned. One with the
/// key of another that is remembered is that other one.
#[derive(Debug)]
pub struct Tasks<M> {
    log: Log<M>,
    keys: KeyIndex,
    keys_max: usize,
    /// Keys of tasks that are not committed, with their payloads: these cannot be read yet.
    waiting: Vec<(u64, StoredTask)>,
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

/// Reason why a task is not taken.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum SubmitError {
    #[error("a key has 1 to {KEY_BYTES_MAX} bytes")]
    Key,
    #[error("task {position} has the same key, and is another one")]
    OtherTask { position: u64 },
    #[error("{max} keys are remembered, no more fit")]
    KeysFull { max: usize },
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("task {position} in the log cannot be read: {error}")]
    Unreadable { position: u64, error: TaskError },
}

/// Mark of a batch with keys.
const KEYED: u32 = 1;

impl<M: Medium> Tasks<M> {
    /// Opens a task log, or creates one. `id` is that of a new one and is to be random.
    ///
    /// # Errors
    ///
    /// When it is damaged, or cannot be read.
    pub fn open(medium: M, id: u64, options: TasksOptions) -> Result<(Self, Found), SubmitError> {
        let (mut log, found) = Log::open(medium, Kind::Tasks, id, options.log)?;
        let mut keys = KeyIndex::default();
        log.visit(0..u64::MAX, KEYED, |entry| {
            if let Some(key) = decoded(entry.position, entry.bytes)?.key {
                keys.insert(&key, entry.position);
            }
            Ok::<_, SubmitError>(())
        })?;
        Ok((Self { log, keys, keys_max: options.keys_max, waiting: Vec::new() }, found))
    }

    /// Adds a task, unless one with its key is remembered.
    ///
    /// # Errors
    ///
    /// When the key stands for another task, there are too many, or the log cannot be read.
    pub fn submit(&mut self, task: StoredTask) -> Result<Submitted, SubmitError> {
        if let Some(key) = &task.key {
            if !(1..=KEY_BYTES_MAX).contains(&key.len()) {
                return Err(SubmitError::Key);
            }
            if let Some((position, known)) = self.find(key)? {
                let is_same = (&known.options, &known.payload) == (&task.options, &task.payload);
                return match is_same {
                    true => Ok(Submitted::Known(position)),
                    false => Err(SubmitError::OtherTask { position }),
                };
            }
            if self.keys.len() >= self.keys_max {
                return Err(SubmitError::KeysFull { max: self.keys_max });
            }
        }
        let marks = if task.key.is_some() { KEYED } else { 0 };
        let position = self.log.append(marks, |bytes| task.encode(bytes))?;
        if let Some(key) = &task.key {
            self.keys.insert(key, position);
            self.waiting.push((position, task));
        }
        Ok(Submitted::New(position))
    }

    /// Returns the task with a key, and its position, if one is remembered.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub fn find(&mut self, key: &[u8]) -> Result<Option<(u64, StoredTask)>, SubmitError> {
        // Two keys with one hash are rare: of the candidates the first is it.
        for position in self.keys.candidates(key).to_vec() {
            let waiting = self.waiting.binary_search_by_key(&position, |(position, _)| *position);
            let task = match waiting {
                Ok(place) => Some(self.waiting[place].1.clone()),
                Err(_) => self.task(position)?,
            };
            if let Some(task) = task.filter(|task| task.key.as_deref() == Some(key)) {
                return Ok(Some((position, task)));
            }
        }
        Ok(None)
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

    /// Returns a committed task; `None` if there is none at this position, or no longer.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is damaged.
    pub fn task(&mut self, position: u64) -> Result<Option<StoredTask>, SubmitError> {
        let read = self.read(position, 0)?;
        Ok(read.into_iter().next().filter(|(at, _)| *at == position).map(|(_, task)| task))
    }

    /// Removes segments of whose tasks none is needed, with their keys. Returns how many went.
    ///
    /// # Errors
    ///
    /// When one could not be read or removed: it is still there.
    pub fn remove_unneeded(
        &mut self,
        mut is_needed: impl FnMut(Range<u64>) -> bool,
    ) -> Result<usize, SubmitError> {
        let mut count = 0;
        for range in self.log.closed_segments() {
            if is_needed(range.clone()) {
                continue;
            }
            let mut keys = Vec::new();
            self.log.visit(range.clone(), KEYED, |entry| {
                let key = decoded(entry.position, entry.bytes)?.key;
                keys.extend(key.map(|key| (entry.position, key)));
                Ok::<_, SubmitError>(())
            })?;
            self.log.remove(range.start)?;
            // Not before: with the segment they would come back.
            keys.into_iter().for_each(|(position, key)| self.keys.remove(&key, position));
            count += 1;
        }
        Ok(count)
    }
}

fn decoded(position: u64, bytes: Bytes) -> Result<StoredTask, SubmitError> {
    StoredTask::decode(bytes).map_err(|error| SubmitError::Unreadable { position, error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;

    const SMALL: TasksOptions =
        TasksOptions { log: LogOptions { segment_bytes: 400, zeroed_bytes: 100 }, keys_max: 50 };

    fn open(disk: &Disk) -> Tasks<Disk> {
        Tasks::open(disk.clone(), 7, SMALL).unwrap().0
    }

    fn task(key: &str, payload: &str) -> StoredTask {
        let key = (!key.is_empty()).then(|| Bytes::copy_from_slice(key.as_bytes()));
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        StoredTask { key, payload, ..StoredTask::default() }
    }

    #[test]
    fn the_same_key_is_the_same_task_before_and_after_a_commit_and_a_restart() {
        let disk = Disk::default();
        let mut tasks = open(&disk);
        assert_eq!(tasks.submit(task("", "x")).unwrap(), Submitted::New(0));
        assert_eq!(tasks.submit(task("", "x")).unwrap(), Submitted::New(1));
        assert_eq!(tasks.submit(task("a", "x")).unwrap(), Submitted::New(2));
        let check = |tasks: &mut Tasks<Disk>| {
            assert_eq!(tasks.submit(task("a", "x")).unwrap(), Submitted::Known(2));
            let other = tasks.submit(task("a", "y")).unwrap_err();
            assert_eq!(other.to_string(), "task 2 has the same key, and is another one");
        };
        check(&mut tasks);
        tasks.commit().unwrap();
        check(&mut tasks);
        let mut tasks = open(&disk);
        check(&mut tasks);
        assert_eq!(tasks.committed(), 3);
        assert_eq!(tasks.task(2).unwrap(), Some(task("a", "x")));
        assert_eq!(tasks.task(3).unwrap(), None);
    }

    #[test]
    fn what_was_not_committed_leaves_no_key() {
        let disk = Disk::default();
        let mut tasks = open(&disk);
        assert_eq!(tasks.submit(task("a", "x")).unwrap(), Submitted::New(0));
        tasks.discard();
        assert_eq!(tasks.submit(task("a", "y")).unwrap(), Submitted::New(0));
        tasks.commit().unwrap();
        assert_eq!(tasks.submit(task("b", "z")).unwrap(), Submitted::New(1));
        drop(tasks);
        assert_eq!(open(&disk).submit(task("b", "other")).unwrap(), Submitted::New(1));
    }

    #[test]
    fn keys_go_with_their_segment_and_make_room() {
        let disk = Disk::default();
        let mut tasks = open(&disk);
        for at in 0..50 {
            tasks.submit(task(&format!("key-{at}"), "payload")).unwrap();
            tasks.commit().unwrap();
        }
        let full = tasks.submit(task("more", "")).unwrap_err();
        assert_eq!(full.to_string(), "50 keys are remembered, no more fit");
        let straggler = 20;
        let before = tasks.log.segments();
        let removed = tasks.remove_unneeded(|range| range.contains(&straggler)).unwrap();
        assert_eq!(removed, before - 2);
        for tasks in [&mut tasks, &mut open(&disk)] {
            assert_eq!(tasks.submit(task("key-20", "payload")).unwrap(), Submitted::Known(20));
            assert_eq!(tasks.submit(task("key-49", "payload")).unwrap(), Submitted::Known(49));
            assert_eq!(tasks.task(0).unwrap(), None);
            assert_eq!(tasks.submit(task("key-0", "payload")).unwrap(), Submitted::New(50));
        }
    }

    #[test]
    fn a_key_that_is_none_is_refused() {
        let mut tasks = open(&Disk::default());
        for key in [Vec::new(), vec![b'x'; KEY_BYTES_MAX + 1]] {
            let task = StoredTask { key: Some(key.into()), ..StoredTask::default() };
            assert!(matches!(tasks.submit(task), Err(SubmitError::Key)));
        }
        let task = StoredTask { key: Some(vec![b'x'; KEY_BYTES_MAX].into()), ..task("", "") };
        assert_eq!(tasks.submit(task).unwrap(), Submitted::New(0));
    }
}

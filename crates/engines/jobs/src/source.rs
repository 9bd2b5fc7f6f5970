//! The tasks of a log as a job's input: those that are there when the job begins.

use std::collections::VecDeque;
use std::thread;
use std::time::Duration;

use tradewind_engine::{Engine, EngineError, TaskLog};
use tradewind_input::{Chunk, InputError, Item, Source};
use tradewind_proto::TaskHash;
use tradewind_proto::dispatcher::TaskLimits;
use tradewind_proto::limits::READ_TASKS_MAX;
use tradewind_store::{StoredTask, TaskOptions};

/// Bytes of tasks that are read together.
const READ_BYTES_MAX: usize = 256 << 10;

/// Longest wait for a task that ought to be there: a replica that is asked may be behind.
const WAIT: Duration = Duration::from_millis(500);

/// Number of waits in vain after which there is none: the last ones were removed one by one.
const WAITS_MAX: u32 = 6;

/// Time after which a log that cannot be read is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The tasks that the partitions of a log have when it is opened, one partition after the other.
pub struct EngineSource {
    name: String,
    parts: VecDeque<Part>,
    /// Tasks that were read, of the first of these partitions.
    read: VecDeque<(u64, StoredTask)>,
    task_bytes_max: usize,
    waits: u32,
    is_away: bool,
}

/// What is left of a partition.
struct Part {
    partition: u32,
    log: Box<dyn TaskLog>,
    /// Position from which on is read.
    next: u64,
    end: u64,
}

impl EngineSource {
    /// Opens the logs, below these positions if some are given: one for each partition. `name` is for messages.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn open(
        engine: &dyn Engine,
        name: String,
        partitions: u32,
        ends: &[u64],
        task_bytes_max: usize,
    ) -> Result<Self, EngineError> {
        let parts = (0..partitions).map(|partition| {
            let mut log = engine.tasks(partition)?;
            let there = log.end()?;
            let given = ends.get(partition as usize).copied();
            let (next, end) = (log.first()?, given.unwrap_or(there).min(there));
            Ok(Part { partition, log, next, end })
        });
        let parts = parts.collect::<Result<_, EngineError>>()?;
        let (read, waits, is_away) = (VecDeque::new(), 0, false);
        Ok(Self { name, parts, read, task_bytes_max, waits, is_away })
    }

    /// Returns the position of each partition below which its tasks are read, until reading has begun.
    pub fn ends(&self) -> impl Iterator<Item = u64> {
        self.parts.iter().map(|part| part.end)
    }

    /// Reads on in the first partition, and drops it when it has no more.
    fn read_on(&mut self) -> Result<(), EngineError> {
        let Some(part) = self.parts.front_mut() else { return Ok(()) };
        if part.next >= part.end {
            self.parts.pop_front();
            return Ok(());
        }
        let tasks = part.log.read(part.next, READ_BYTES_MAX, WAIT)?;
        match tasks.last() {
            Some((last, _)) => (part.next, self.waits) = (last + 1, 0),
            None if self.waits < WAITS_MAX && part.log.first()? < part.end => self.waits += 1,
            None => (part.next, self.waits) = (part.end, 0),
        }
        self.read.extend(tasks.into_iter().filter(|(position, _)| *position < part.end));
        Ok(())
    }

    fn push(&self, chunk: &mut Chunk, position: u64, task: StoredTask) {
        let Some(Part { partition, .. }) = self.parts.front() else { return };
        let bytes = task.payload.len();
        if bytes > self.task_bytes_max {
            chunk.push(Item::TooLarge { bytes: bytes as u64 });
            return;
        }
        let TaskOptions { retries, timeout, .. } = task.options;
        let hash = TaskHash::at(*partition, position, &task.payload);
        chunk.push_at(task.payload.into(), hash, TaskLimits { retries, timeout });
    }
}

impl Source for EngineSource {
    /// Returns an empty chunk now and then, so that the thread that reads can see that nobody wants more.
    fn read(&mut self) -> Result<Option<Chunk>, InputError> {
        if self.read.is_empty() {
            if self.parts.is_empty() {
                return Ok(None);
            }
            match self.read_on() {
                Ok(()) if std::mem::take(&mut self.is_away) => {
                    tracing::info!("{} can be read again", self.name);
                }
                Ok(()) => {}
                Err(error) if error.is_passing() => {
                    if !std::mem::replace(&mut self.is_away, true) {
                        tracing::error!(
                            "{} cannot be read: {error}; waiting until it can, nothing is lost",
                            self.name
                        );
                    }
                    thread::sleep(RETRY_INTERVAL);
                }
                Err(error) => {
                    let text = format!("{} cannot be read: {error}", self.name);
                    return Err(InputError::Program(text.into()));
                }
            }
        }
        let mut chunk = Chunk::default();
        while (chunk.len() as u64) < READ_TASKS_MAX
            && let Some((position, task)) = self.read.pop_front()
        {
            self.push(&mut chunk, position, task);
        }
        Ok(Some(chunk))
    }
}

#[cfg(test)]
mod tests {
    use tradewind_proto::Payload;

    use super::*;
    use crate::fake::{Fake, task};

    /// Reads to the end.
    fn read(source: &mut EngineSource) -> (Vec<Item>, Vec<TaskHash>) {
        let (mut items, mut hashes) = (Vec::new(), Vec::new());
        while let Some(mut chunk) = source.read().expect("it can be read") {
            hashes.extend(chunk.take_hashes().into_iter().map(|(_, hash)| hash));
            items.extend(chunk);
        }
        (items, hashes)
    }

    fn items(texts: &[&'static str]) -> Vec<Item> {
        texts.iter().map(|text| Item::Task(Payload::from(text.as_bytes()))).collect()
    }

    fn open(fake: &Fake, partitions: u32, ends: &[u64]) -> EngineSource {
        EngineSource::open(fake, "it".into(), partitions, ends, 9).expect("it is there")
    }

    #[test]
    fn the_tasks_that_are_there_at_the_beginning_are_read_one_partition_after_the_other() {
        let fake = Fake::default();
        fake.submit(0, &["a", "b"]);
        fake.submit(1, &["c"]);
        let mut source = open(&fake, 3, &[]);
        assert_eq!(source.ends().collect::<Vec<_>>(), [2, 1, 0]);
        fake.submit(0, &["late"]);
        fake.submit(2, &["late"]);
        let (read_items, hashes) = read(&mut source);
        assert_eq!(read_items, items(&["a", "b", "c"]));
        let wanted = [(0, 0, "a"), (0, 1, "b"), (1, 0, "c")];
        let wanted =
            wanted.map(|(partition, at, text)| TaskHash::at(partition, at, text.as_bytes()));
        assert_eq!(hashes, wanted);
        assert_eq!(fake.tasks_left(0), 3, "nothing is taken out");
    }

    #[test]
    fn what_came_later_is_left_out_when_the_end_is_given() {
        let fake = Fake::default();
        fake.submit(0, &["a", "b"]);
        fake.submit(1, &["c"]);
        let (read, _) = read(&mut open(&fake, 2, &[1, 7]));
        assert_eq!(read, items(&["a", "c"]));
    }

    #[test]
    fn a_trimmed_log_begins_later_and_a_task_that_is_too_large_has_its_place() {
        let fake = Fake::default();
        fake.submit(0, &["a", "0123456789", "b"]);
        fake.remove(0, 0);
        let (read, hashes) = read(&mut open(&fake, 1, &[]));
        assert_eq!(read[0], Item::TooLarge { bytes: 10 });
        assert_eq!(read[1..], items(&["b"]));
        assert_eq!(hashes, [TaskHash::at(0, 2, b"b")]);
    }

    #[test]
    fn an_engine_that_is_away_is_waited_for_and_one_that_refuses_ends_the_input() {
        let fake = Fake::default();
        fake.submit(0, &["a"]);
        let mut source = open(&fake, 1, &[]);
        fake.fail(EngineError::Away("x".into()));
        assert_eq!(source.read().expect("it waits").expect("it goes on").len(), 0);
        assert_eq!(read(&mut source).0, items(&["a"]));
        let mut source = open(&fake, 1, &[]);
        fake.fail(EngineError::Refused("no".into()));
        let error = source.read().expect_err("it is refused").to_string();
        assert_eq!(error, "cannot get more tasks: it cannot be read: no");
    }

    #[test]
    fn tasks_keep_their_own_limits() {
        let fake = Fake::default();
        let limits = TaskLimits { retries: Some(3), timeout: Some(Duration::from_secs(1)) };
        fake.push(0, task("a", limits));
        let mut chunk = open(&fake, 1, &[]).read().expect("it can be read").expect("there is one");
        assert_eq!(chunk.take_limits(), [(0, limits)]);
    }
}

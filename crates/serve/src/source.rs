//! The task log as the ventilator's input.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tradewind_input::{Chunk, InputError, Item, Source};
use tradewind_proto::dispatcher::TaskLimits;
use tradewind_proto::limits::READ_TASKS_MAX;
use tradewind_proto::{Seq, SeqSet};
use tradewind_store::{NextTask, StoredTask, SubmitError, TaskOptions, TaskReader};

use crate::tasks::SharedTasks;

/// Bytes of tasks that are read together.
const READ_BYTES_MAX: usize = 256 << 10;

/// Time after which a log that cannot be read is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Longest wait without a look at whether anybody wants the tasks.
const WAIT: Duration = Duration::from_millis(500);

/// The tasks of a queue, from the first on that had no record at the start. They have no end.
pub(crate) struct LogSource {
    logs: Arc<SharedTasks>,
    reader: TaskReader,
    /// Position after the last task that was there at the start, until all of these are given.
    before: Option<u64>,
}

impl LogSource {
    /// Those of `recorded` are passed over: who made it knows that the sink has their records.
    pub(crate) fn new(logs: Arc<SharedTasks>, recorded: SeqSet) -> Self {
        let reader = TaskReader::new(recorded);
        let before = Some(logs.submitted());
        Self { logs, reader, before }
    }

    /// Returns the seq of the next task.
    pub(crate) fn next(&self) -> Seq {
        Seq(self.reader.position())
    }

    /// Gives what comes next: no more tasks than may be taken in at once.
    fn read_on(&mut self, end: u64) -> Result<Chunk, SubmitError> {
        let (mut chunk, mut has_read) = (Chunk::default(), false);
        while (chunk.len() as u64) < READ_TASKS_MAX {
            match self.reader.poll_next() {
                Some(NextTask::There(task)) => push(&mut chunk, task),
                Some(NextTask::Recorded(count)) => chunk.push_recorded(count),
                Some(NextTask::Missing) => {
                    // The sink has its record, and takes no second one; or it is lost.
                    let reason = "the task was removed from the log, and has no record".to_owned();
                    chunk.push(Item::Unfit { reason });
                }
                None if has_read || !chunk.is_empty() => break,
                None => {
                    self.reader.read(&mut self.logs.tasks(), end, READ_BYTES_MAX)?;
                    has_read = true;
                }
            }
        }
        Ok(chunk)
    }

    /// Says once that all tasks that were there at the start are given. Returns whether it does.
    fn note_caught_up(&mut self, chunk: &mut Chunk) -> bool {
        let is_caught_up = self.before.take_if(|before| *before <= self.reader.position());
        if is_caught_up.is_some() {
            chunk.set_caught_up();
        }
        is_caught_up.is_some()
    }
}

pub(crate) fn push(chunk: &mut Chunk, task: StoredTask) {
    let TaskOptions { retries, timeout, .. } = task.options;
    let limits = TaskLimits { retries, timeout };
    match limits {
        TaskLimits { retries: None, timeout: None } => chunk.push(Item::Task(task.payload.into())),
        _ => chunk.push_limited(task.payload.into(), limits),
    }
}

impl Source for LogSource {
    /// Returns an empty chunk now and then, so that the thread that reads can see that nobody wants more.
    fn read(&mut self) -> Result<Option<Chunk>, InputError> {
        let mut chunk = Chunk::default();
        if self.note_caught_up(&mut chunk) {
            return Ok(Some(chunk));
        }
        let end = match self.logs.wait_submitted(self.reader.position(), WAIT) {
            Some(end) if end > self.reader.position() => end,
            Some(_) => return Ok(Some(Chunk::default())),
            // The ventilator has ended before the logs are closed: nobody takes this for the end of the input.
            None => return Ok(Some(Chunk::default())),
        };
        match self.read_on(end) {
            Ok(mut chunk) => {
                self.note_caught_up(&mut chunk);
                Ok(Some(chunk))
            }
            Err(error) => {
                let dir = self.logs.dir().display();
                tracing::error!(
                    "{dir}: the tasks cannot be read, none goes out until they can: {error}"
                );
                thread::sleep(RETRY_INTERVAL);
                Ok(Some(Chunk::default()))
            }
        }
    }
}

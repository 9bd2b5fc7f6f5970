//! The task log as the ventilator's input.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tradewind_input::{Chunk, InputError, Item, Source};
use tradewind_store::{StoredTask, SubmitError};

use crate::logs::Logs;

/// Bytes of tasks that are read together.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// Number of tasks that were removed, and are passed over together.
const REMOVED_MAX: u64 = 64 << 10;

/// Time after which a log that cannot be read is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Longest wait without a look at whether anybody wants the tasks.
const WAIT: Duration = Duration::from_millis(500);

/// The tasks of a queue, from a position on. They have no end.
pub(crate) struct LogSource {
    logs: Arc<Logs>,
    next: u64,
}

impl LogSource {
    pub(crate) fn new(logs: Arc<Logs>, first: u64) -> Self {
        Self { logs, next: first }
    }

    fn read_on(&mut self) -> Result<Chunk, SubmitError> {
        let mut chunk = Chunk::default();
        let tasks = self.logs.tasks().read(self.next, CHUNK_BYTES_MAX)?;
        for (position, task) in tasks {
            if !self.pass_over(&mut chunk, position) {
                break;
            }
            chunk.push(item(task));
            self.next = position + 1;
        }
        Ok(chunk)
    }

    /// Gives what is before a position, and is not in the log any more: tasks that have their records, of which the
    /// sink knows. Returns whether that is all.
    fn pass_over(&mut self, chunk: &mut Chunk, position: u64) -> bool {
        let end = position.min(self.next + REMOVED_MAX);
        for _ in self.next..end {
            let reason = "the task was removed from the log, and has no record".to_owned();
            chunk.push(Item::Unfit { reason });
        }
        self.next = end;
        end == position
    }
}

fn item(task: StoredTask) -> Item {
    Item::Task(task.payload.into())
}

impl Source for LogSource {
    /// Returns an empty chunk now and then, so that the thread that reads can see that nobody wants more.
    fn read(&mut self) -> Result<Option<Chunk>, InputError> {
        match self.logs.wait_submitted(self.next, WAIT) {
            Some(end) if end > self.next => {}
            Some(_) => return Ok(Some(Chunk::default())),
            None => {
                // Whoever closed it does not take it for the end of the input, and is about to end.
                thread::sleep(Duration::from_millis(10));
                return Ok(Some(Chunk::default()));
            }
        }
        match self.read_on() {
            Ok(chunk) => Ok(Some(chunk)),
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

//! The task log as the ventilator's input.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tradewind_input::{Chunk, InputError, Item, Source};
use tradewind_proto::dispatcher::TaskLimits;
use tradewind_proto::limits::READ_TASKS_MAX;
use tradewind_store::{StoredTask, SubmitError, TaskOptions};

use crate::logs::Logs;

/// Bytes of tasks that are read together.
const READ_BYTES_MAX: usize = 1 << 20;

/// Time after which a log that cannot be read is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Longest wait without a look at whether anybody wants the tasks.
const WAIT: Duration = Duration::from_millis(500);

/// The tasks of a queue, from a position on. They have no end.
pub(crate) struct LogSource {
    logs: Arc<Logs>,
    next: u64,
    /// Tasks that are read already, by their positions.
    ahead: VecDeque<(u64, StoredTask)>,
}

impl LogSource {
    pub(crate) fn new(logs: Arc<Logs>, first: u64) -> Self {
        Self { logs, next: first, ahead: VecDeque::new() }
    }

    /// Gives what comes next before this position: no more tasks than may be taken in at once.
    fn read_on(&mut self, end: u64) -> Result<Chunk, SubmitError> {
        if self.ahead.is_empty() {
            self.ahead.extend(self.logs.tasks().read(self.next, READ_BYTES_MAX)?);
        }
        // None is there any more: the last ones were lost with the machine, and passed over.
        let there = self.ahead.back().map_or(end, |(last, _)| last.saturating_add(1));
        let mut chunk = Chunk::default();
        while (chunk.len() as u64) < READ_TASKS_MAX && self.next < there {
            if self.ahead.front().is_none_or(|(position, _)| self.next < *position) {
                // It was removed from the log: it has its record, of which the sink knows. Or it is lost.
                let reason = "the task was removed from the log, and has no record".to_owned();
                chunk.push(Item::Unfit { reason });
            } else if let Some((_, task)) = self.ahead.pop_front() {
                push(&mut chunk, task);
            }
            self.next += 1;
        }
        Ok(chunk)
    }
}

fn push(chunk: &mut Chunk, task: StoredTask) {
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
        let end = match self.logs.wait_submitted(self.next, WAIT) {
            Some(end) if end > self.next => end,
            Some(_) => return Ok(Some(Chunk::default())),
            // The ventilator has ended before the logs are closed: nobody takes this for the end of the input.
            None => return Ok(Some(Chunk::default())),
        };
        match self.read_on(end) {
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

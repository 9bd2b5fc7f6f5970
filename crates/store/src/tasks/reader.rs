//! Reading the tasks that have no record, one after the other.

use std::collections::VecDeque;

use tradewind_proto::{Seq, SeqSet};
use tradewind_records::Medium;

use super::{StoredTask, SubmitError, Tasks};

/// Reader of the tasks of a queue in their order, which passes over those that had their records when it began: whether
/// they are still there or not, many cost no more than one.
#[derive(Debug)]
pub struct TaskReader {
    next: u64,
    recorded: SeqSet,
    /// Tasks that were read, by their positions.
    ahead: VecDeque<(u64, StoredTask)>,
    /// Position below which there is none but these.
    looked: u64,
}

/// What comes next in a task log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextTask {
    /// A task.
    There(StoredTask),
    /// This number of tasks, which have their records.
    Recorded(u64),
    /// A task that was removed, since it has had its record for less time than there is a reader; or that is lost.
    Missing,
}

impl TaskReader {
    /// Creates one that begins with the first task that is not among these.
    #[must_use]
    pub fn new(recorded: SeqSet) -> Self {
        Self { next: recorded.first_missing().0, recorded, ahead: VecDeque::new(), looked: 0 }
    }

    /// Returns the position of the next task.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Returns what comes next, as far as it was [read](Self::read).
    pub fn poll_next(&mut self) -> Option<NextTask> {
        if let Some(range) = self.recorded.range_from(Seq(self.next)) {
            self.next = range.end.0;
            let passed = self.ahead.partition_point(|(position, _)| *position < self.next);
            self.ahead.drain(..passed);
            return Some(NextTask::Recorded(range.count()));
        }
        let is_there = match self.ahead.front() {
            Some((position, _)) => *position == self.next,
            None if self.next < self.looked => false,
            None => return None,
        };
        self.next += 1;
        match is_there {
            true => self.ahead.pop_front().map(|(_, task)| NextTask::There(task)),
            false => Some(NextTask::Missing),
        }
    }

    /// Reads on, to be done when there is nothing [next](Self::poll_next): one task if there is one, and as many more as
    /// fit into these bytes. If there is none below `end`, which is the position behind the last one that was promised,
    /// the rest is missing: the machine stopped, and took what was not synced.
    ///
    /// # Errors
    ///
    /// When they cannot be read, or are damaged.
    pub fn read<M: Medium>(
        &mut self,
        tasks: &mut Tasks<M>,
        end: u64,
        bytes_max: usize,
    ) -> Result<(), SubmitError> {
        if self.ahead.is_empty() {
            self.ahead.extend(tasks.read(self.next, bytes_max)?);
            if self.ahead.is_empty() {
                self.looked = end;
            }
        }
        Ok(())
    }
}

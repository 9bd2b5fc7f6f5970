//! The task log of a queue, shared by the threads that work on it.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tradewind_records::Directory;
use tradewind_store::{Part, Tasks, TasksOptions};
use tradewind_system::random_id;

use crate::control::ControlLog;
use crate::disk::Disk;
use crate::logs::{OpenError, say_torn};

/// The task log of a queue.
pub(crate) struct SharedTasks {
    control: Arc<ControlLog>,
    tasks: Mutex<Tasks<Disk>>,
    submitted: Mutex<Submitted>,
    is_submitted: Condvar,
}

/// What the ventilator's input waits for.
struct Submitted {
    /// Position after the last task.
    end: u64,
    is_closed: bool,
}

impl SharedTasks {
    /// Opens the log in the directory of its control log, or creates it there.
    pub(crate) fn open(control: Arc<ControlLog>) -> Result<Self, OpenError> {
        let dir = control.dir();
        let durability = control.durability();
        let part =
            |part: Part| Disk::new(Directory::new(dir.join(part.as_str())), durability.clone());
        let (tasks, found) = Tasks::open(
            part(Part::Tasks),
            part(Part::Keys),
            random_id(),
            TasksOptions::default(),
            // What is not remembered any more is found out by the first trim.
            0,
        )
        .map_err(|error| OpenError::Tasks { path: dir.to_owned(), error })?;
        say_torn(dir, Part::Tasks, found.torn_bytes);
        Ok(Self {
            submitted: Mutex::new(Submitted { end: tasks.committed(), is_closed: false }),
            is_submitted: Condvar::new(),
            tasks: Mutex::new(tasks),
            control,
        })
    }

    /// Returns the directory of the log.
    pub(crate) fn dir(&self) -> &Path {
        self.control.dir()
    }

    pub(crate) fn control(&self) -> &Arc<ControlLog> {
        &self.control
    }

    pub(crate) fn tasks(&self) -> MutexGuard<'_, Tasks<Disk>> {
        lock(&self.tasks)
    }

    /// Returns the position after the last task that is promised.
    pub(crate) fn submitted(&self) -> u64 {
        lock(&self.submitted).end
    }

    /// Notes that tasks are promised.
    pub(crate) fn note_submitted(&self, end: u64) {
        lock(&self.submitted).end = end;
        self.is_submitted.notify_all();
    }

    /// Waits for a task at this position or behind it, for so long at most. Returns the position after the last
    /// one; `None` if the queue is closed.
    pub(crate) fn wait_submitted(&self, position: u64, wait: Duration) -> Option<u64> {
        let submitted = lock(&self.submitted);
        let is_waiting = |it: &mut Submitted| it.end <= position && !it.is_closed;
        let waited = self.is_submitted.wait_timeout_while(submitted, wait, is_waiting);
        let (submitted, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (!submitted.is_closed).then_some(submitted.end)
    }

    /// Ends what waits for tasks.
    pub(crate) fn close(&self) {
        lock(&self.submitted).is_closed = true;
        self.is_submitted.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No thread leaves what it guards in the middle of a change by a panic: the logs see to that themselves.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

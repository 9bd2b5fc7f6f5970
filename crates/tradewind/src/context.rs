//! Context of a task, for its handler.

use std::time::Duration;

use tradewind_handlers::{StopSignal, Task};
use tradewind_worker::StopToken;

/// Information for a closure about its task.
///
/// A task may run for as long as it likes, a week or more: there is nothing to send meanwhile. That
/// the worker is there is said by its own loop, on another thread.
#[derive(Debug)]
pub struct Context<'a> {
    pub(crate) task: &'a Task,
    pub(crate) stop: &'a StopSignal,
}

impl Context<'_> {
    /// The task's place in the job, from 0.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.task.seq.0
    }

    /// Which run this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.task.attempt.0
    }

    /// Returns whether the closure should return soon: its task has timed out, or is not wanted any more. An
    /// error then means that it did; an output comes too late to be a success, and is kept beside the reason.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.is_stopped()
    }

    /// Waits, but not on when the closure should return; says whether it should.
    #[must_use]
    pub fn sleep(&self, duration: Duration) -> bool {
        self.stop.wait_timeout(duration)
    }
}

/// The same for an asynchronous closure. It may be cloned, and outlive the task.
#[derive(Clone, Debug)]
pub struct AsyncContext {
    pub(crate) seq: u64,
    pub(crate) attempt: u32,
    pub(crate) stop: StopToken,
}

impl AsyncContext {
    /// The task's place in the job, from 0.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Which run this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns whether the task has timed out, is not wanted any more, or is over.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.is_stopped()
    }

    /// Waits until that is so.
    ///
    /// For what the closure has started on the side, such as a blocking call: its own future is
    /// dropped at that moment, wherever it waits, so that what is to be cleaned up belongs into a
    /// `Drop`.
    pub async fn stopped(&self) {
        self.stop.stopped().await;
    }
}

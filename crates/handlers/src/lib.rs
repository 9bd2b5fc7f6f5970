//! Tradewind's handlers: what is done with a task. A command is run for it, a child that stays up is
//! given it, or a function is called, on a thread per slot.
//!
//! Without a network, a job, a retry, a runtime and flags: a task goes in, an outcome comes out.
//! Handlers block; nothing here is asynchronous.

mod code;
mod command;
mod fields;
mod files;
mod host;
mod live;
mod pipe;
mod process;
mod program;
mod quote;
mod sleep;
mod slots;
mod stop;
mod tail;
mod template;
mod term_seq;

use tradewind_proto::Payload;
use tradewind_proto::message::{Layout, Outcome, Report, Reported, Status};
use tradewind_proto::{Attempt, Seq, Slot, TaskHash};

pub use code::CodeError;
pub use command::{CommandHandler, CommandOptions};
pub use fields::{FieldError, Fields};
pub use host::{Company, HostLimits, Lack, PerSlot, TooLittle, Unstarted, fit};
pub use live::Live;
pub use live::failure as live_failure;
pub use pipe::{
    Answer, Answers, EXIT_GRACE, PipeHandler, PipeMode, PipeOptions, Pipes, SlotStatus, WrongAnswer,
};
pub use program::{ProgramError, check_program, check_word};
pub use quote::COMMAND_BYTES_MAX;
pub use slots::{Begun, Finished, RunQueue, Slots, panicked};
pub use stop::{StopSignal, stop_at_once};
pub use tail::clip;
pub use template::{Input, MissingCommand, Template};
pub use term_seq::{TermSeq, TermSeqError};

/// The error of a task that was stopped before it came to anything.
const STOPPED: &str = "stopped";

/// A task for a slot to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its place in the job.
    pub seq: Seq,
    /// Which run this is.
    pub attempt: Attempt,
    /// The task itself: a part of the user's input, or the output of an earlier stage.
    pub payload: Payload,
    /// Parts that [`Finished::reported`] should have.
    pub report: Report,
    /// The hash of what it was in the user's input.
    pub hash: TaskHash,
    /// Slot in which it runs.
    pub slot: Slot,
}

impl Task {
    /// Creates a task of which nothing is to be reported.
    #[must_use]
    pub fn new(seq: Seq, attempt: Attempt, payload: Payload) -> Self {
        let (report, hash, slot) = (Report::default(), TaskHash::of(&payload), Slot(0));
        Self { seq, attempt, payload, report, hash, slot }
    }

    /// Returns what is to be reported of the task.
    pub fn reported(&self, command: impl FnOnce() -> Payload) -> Option<Box<Reported>> {
        if self.report == Report::default() {
            return None;
        }
        Some(Box::new(Reported {
            command: if self.report.command { command() } else { Payload::new() },
            task: if self.report.task { self.payload.clone() } else { Payload::new() },
        }))
    }
}

/// Something that runs tasks, one at a time on each of several threads.
///
/// Every `Fn(&Task, &StopSignal) -> Outcome` that can be shared between threads is one.
pub trait BlockingHandler: Send + Sync {
    /// Runs a task to its end; soon after `stop` is raised, it should have ended.
    ///
    /// The outcome says what happened, not why: one that was stopped before its end has failed,
    /// whatever it made of that. Panicking fails the task as well.
    fn run(&self, task: &Task, stop: &StopSignal) -> Outcome;

    /// The same, by a handler that knows what is this host's failure and not the task's.
    ///
    /// # Errors
    ///
    /// When this host lacks something, so that the task has not been run.
    fn try_run(&self, task: &Task, stop: &StopSignal) -> Result<Outcome, Unstarted> {
        Ok(self.run(task, stop))
    }

    /// Tasks are made of this from now on.
    ///
    /// # Errors
    ///
    /// When the handler was told that tasks are made of something else; the text is for the user.
    fn set_layout(&self, layout: &Layout) -> Result<(), String> {
        let _ = layout;
        Ok(())
    }

    /// The worker was asked to leave.
    fn notice_leaving(&self) {}

    /// Returns the command for this task, as a shell would take it; empty if that makes no sense.
    fn command(&self, task: &Task) -> Payload {
        let _ = task;
        Payload::new()
    }
}

impl<F> BlockingHandler for F
where
    F: Fn(&Task, &StopSignal) -> Outcome + Send + Sync,
{
    fn run(&self, task: &Task, stop: &StopSignal) -> Outcome {
        let outcome = self(task, stop);
        // Its time was up: what it has made of that comes too late.
        if stop.is_stopped() { stopped(outcome) } else { outcome }
    }
}

/// The handlers that a worker can be told to use.
#[derive(Debug)]
pub enum Handler {
    /// The output is the task. For measuring everything else.
    Echo,
    /// The task is a number of seconds to wait. For trying things out.
    Sleep,
    /// The task is handed to a command, whose stdout is the output.
    Command(Box<CommandHandler>),
}

impl BlockingHandler for Handler {
    fn run(&self, task: &Task, stop: &StopSignal) -> Outcome {
        match self {
            Self::Echo if stop.is_stopped() => Outcome::error(Status::Failed, STOPPED),
            Self::Echo => Outcome::ok(task.payload.clone()),
            Self::Sleep => sleep::run(&task.payload, stop),
            Self::Command(handler) => handler.run(task, stop),
        }
    }

    fn try_run(&self, task: &Task, stop: &StopSignal) -> Result<Outcome, Unstarted> {
        match self {
            Self::Echo | Self::Sleep => Ok(self.run(task, stop)),
            Self::Command(handler) => handler.try_run(task, stop),
        }
    }

    fn set_layout(&self, layout: &Layout) -> Result<(), String> {
        match self {
            Self::Echo | Self::Sleep => Ok(()),
            Self::Command(handler) => handler.set_layout(layout),
        }
    }

    fn notice_leaving(&self) {
        if let Self::Command(handler) = self {
            handler.notice_leaving();
        }
    }

    fn command(&self, task: &Task) -> Payload {
        match self {
            Self::Echo | Self::Sleep => Payload::new(),
            Self::Command(handler) => handler.command(task),
        }
    }
}

/// Turns the success of a task that was told to stop before into a failure.
pub(crate) fn stopped(outcome: Outcome) -> Outcome {
    if outcome.status.is_success() {
        return Outcome { status: Status::Failed, error: STOPPED.to_owned(), ..outcome };
    }
    outcome
}

//! What a worker does with a task: runs a command, or something built in, on a thread per slot.
//!
//! Knows no network, no job and no retry: a task goes in, an outcome comes out. Handlers block;
//! nothing here is asynchronous.

mod command;
mod fields;
mod group;
mod pipe;
mod process;
mod program;
mod quote;
mod sleep;
mod slots;
mod stop;
mod tail;
mod template;

use tradewind_proto::Payload;
use tradewind_proto::message::{Outcome, Report, Reported, Status};
use tradewind_proto::{Attempt, Seq};

pub use command::{CommandHandler, CommandOptions, STOP_GRACE};
pub use fields::{FieldError, Fields};
pub use pipe::{EXIT_GRACE, PipeHandler, PipeMode, PipeOptions, Pipes, Standing};
pub use program::{ProgramError, check_program};
pub use quote::COMMAND_BYTES_MAX;
pub(crate) use slots::panicked;
pub use slots::{Begun, Deck, Finished, Slots};
pub use stop::StopSignal;
pub(crate) use tail::clip;
pub use template::{Input, MissingCommand, Template};

/// The error of a task that was stopped before it came to anything.
const STOPPED: &str = "stopped";

/// A task for a slot to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its place in the job.
    pub seq: Seq,
    /// Which run this is.
    pub attempt: Attempt,
    /// What the user's input said.
    pub payload: Payload,
    /// What [`Finished::reported`] should have.
    pub report: Report,
}

impl Task {
    /// What is to be reported of it.
    pub(crate) fn reported(&self, command: impl FnOnce() -> Payload) -> Option<Box<Reported>> {
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
    /// The outcome says what happened, not why: one that was stopped has failed. Panicking fails
    /// the task as well.
    fn run(&self, task: &Task, stop: &StopSignal) -> Outcome;

    /// What is run for this task, as a shell would take it; empty if that makes no sense.
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
        self(task, stop)
    }
}

/// The handlers that a worker can be told to use.
#[derive(Clone, Debug)]
pub enum Handler {
    /// The output is the task. For measuring everything else.
    Echo,
    /// The task is a number of seconds to wait. For trying things out.
    Sleep,
    /// The task is handed to a command, whose stdout is the output.
    Command(CommandHandler),
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

    fn command(&self, task: &Task) -> Payload {
        match self {
            Self::Echo | Self::Sleep => Payload::new(),
            Self::Command(handler) => handler.command(task),
        }
    }
}

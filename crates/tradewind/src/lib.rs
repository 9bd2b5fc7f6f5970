//! A Rust program as a Tradewind worker.
//!
//! ```no_run
//! use tradewind::{Context, Worker};
//!
//! # fn main() -> Result<(), tradewind::Error> {
//! Worker::connect("tcp://vent-host:5557", "tcp://sink-host:5558")?
//!     .name("squares")
//!     .slots(4)
//!     .run(|task: &[u8], _: &Context<'_>| -> Result<String, String> {
//!         let text = std::str::from_utf8(task).map_err(|error| error.to_string())?;
//!         let number: u64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
//!         Ok((number * number).to_string())
//!     })
//! # }
//! ```
//!
//! What a closure returns is the task's output; an error is the task's failure. A panic is a
//! failure too, and takes nothing else down.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tradewind_lanes::{Endpoint, EndpointError, LaneOptions};
use tradewind_node::exit::{CONNECT, Fatal};
use tradewind_node::{args, block_on};
use tradewind_proto::limits::{MESSAGE_OVERHEAD_BYTES, SLOTS_MAX};
use tradewind_proto::message::{Outcome, Status};
use tradewind_worker::args::cores;
use tradewind_worker::handler::{StopSignal, Task};
use tradewind_worker::{Runner, Settings};

/// Why a worker could not be, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One of the endpoints is none.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A name that could not be shown, or that does not fit.
    #[error("{0}")]
    Name(String),
    /// No tasks at once, or too many.
    #[error("a worker has 1 to {SLOTS_MAX} slots, not {0}")]
    Slots(u32),
    /// The ventilator or the sink was not reached in time.
    #[error("{0:#}")]
    Unreachable(anyhow::Error),
    /// Something else went wrong on this machine.
    #[error("{0:#}")]
    System(anyhow::Error),
}

/// A worker that runs a closure for each task.
#[derive(Debug)]
pub struct Worker {
    ventilator: Endpoint,
    sink: Endpoint,
    name: Option<String>,
    slots: u32,
    exit_when_done: bool,
    connect_timeout: Option<Duration>,
    message_bytes_max: u64,
}

/// What a closure may want to know about its task.
#[derive(Debug)]
pub struct Context<'a> {
    task: &'a Task,
    stop: &'a StopSignal,
}

/// A task, as an asynchronous closure gets it.
#[derive(Clone, Debug)]
pub struct OwnedTask {
    /// Its place in the job, from 0.
    pub seq: u64,
    /// Which run this is, from 1.
    pub attempt: u32,
    /// What the input said.
    pub payload: Bytes,
}

/// From a request to stop to the stop of what runs; as the `worker` program has it by default.
const GRACE: Duration = Duration::from_secs(30);

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

    /// Should the closure return soon? Its task has timed out, or nobody wants it any more.
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

impl Worker {
    /// A worker for the ventilator that hands out tasks here and the sink that listens there, both
    /// like `tcp://host:5557`. Nothing is connected yet.
    ///
    /// # Errors
    /// When one of them is not an endpoint.
    pub fn connect(ventilator: &str, sink: &str) -> Result<Self, Error> {
        Ok(Self {
            ventilator: ventilator.parse()?,
            sink: sink.parse()?,
            name: None,
            slots: cores(),
            exit_when_done: false,
            connect_timeout: None,
            message_bytes_max: LaneOptions::default().message_bytes_max,
        })
    }

    /// Its name, for people and records; by default the host's and the process's id.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How many tasks to run at once; by default the cores.
    #[must_use]
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// Return when the job is over instead of waiting for the next.
    #[must_use]
    pub fn exit_when_done(mut self, exit: bool) -> Self {
        self.exit_when_done = exit;
        self
    }

    /// Give up when a peer cannot be reached for so long; by default never.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// Runs tasks, each slot on its own thread, until SIGTERM or SIGINT drains the worker, or the
    /// job is over if that was asked for. Blocks.
    ///
    /// # Errors
    /// When no tasks can be run.
    pub fn run<F, O, E>(self, handler: F) -> Result<(), Error>
    where
        F: Fn(&[u8], &Context<'_>) -> Result<O, E> + Send + Sync + 'static,
        O: Into<Vec<u8>>,
        E: Display,
    {
        let bytes_max = self.output_bytes_max();
        let handler = move |task: &Task, stop: &StopSignal| {
            outcome(handler(&task.payload, &Context { task, stop }), bytes_max)
        };
        self.block_on(Runner::Threads(Arc::new(handler)))
    }

    /// As [`run`](Self::run), with a closure that returns a future. All run on one thread; one
    /// that is to stop is dropped where it waits.
    ///
    /// # Errors
    /// When no tasks can be run.
    pub fn run_async<F, R, O, E>(self, handler: F) -> Result<(), Error>
    where
        F: Fn(OwnedTask) -> R + Send + Sync + 'static,
        R: Future<Output = Result<O, E>> + Send + 'static,
        O: Into<Vec<u8>> + 'static,
        E: Display + 'static,
    {
        let bytes_max = self.output_bytes_max();
        let handler = move |task: Task| -> tradewind_worker::OutcomeFuture {
            let Task { seq, attempt, payload, .. } = task;
            let result =
                handler(OwnedTask { seq: seq.0, attempt: attempt.0, payload: payload.into() });
            Box::pin(async move { outcome(result.await, bytes_max) })
        };
        self.block_on(Runner::Async(Arc::new(handler)))
    }

    fn output_bytes_max(&self) -> u64 {
        self.message_bytes_max - MESSAGE_OVERHEAD_BYTES
    }

    fn block_on(self, runner: Runner) -> Result<(), Error> {
        let name = match self.name {
            Some(name) => args::name(&name).map_err(Error::Name)?,
            None => args::default_name(),
        };
        if !(1..=SLOTS_MAX).contains(&self.slots) {
            return Err(Error::Slots(self.slots));
        }
        let settings = Settings {
            ventilator: self.ventilator,
            sink: self.sink,
            slots: self.slots,
            name,
            exit_when_done: self.exit_when_done,
            grace: GRACE,
            runner,
            lanes: LaneOptions {
                message_bytes_max: self.message_bytes_max,
                ..LaneOptions::default()
            },
            connect_timeout: self.connect_timeout,
        };
        let ended = block_on(|shutdown| tradewind_worker::run(settings, shutdown));
        match ended {
            Ok(_) => Ok(()),
            Err(Fatal { code: CONNECT, error }) => Err(Error::Unreachable(error)),
            Err(Fatal { error, .. }) => Err(Error::System(error)),
        }
    }
}

fn outcome<O: Into<Vec<u8>>, E: Display>(result: Result<O, E>, bytes_max: u64) -> Outcome {
    match result.map(Into::into) {
        Ok(output) if output.len() as u64 > bytes_max => {
            let error = format!("the output has {} bytes, more than {bytes_max}", output.len());
            Outcome::error(Status::Failed, error)
        }
        Ok(output) => Outcome::ok(output.into()),
        Err(error) => Outcome::error(Status::Failed, error.to_string()),
    }
}

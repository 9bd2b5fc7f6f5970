//! A Rust program as a worker.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tradewind_handlers::{StopSignal, Task};
use tradewind_lanes::{Endpoint, LaneOptions};
use tradewind_node::block_on_until;
use tradewind_node::exit::Audience;
use tradewind_node::keys::{KeyRole, Wanted};
use tradewind_proto::limits::SLOTS_MAX;
use tradewind_proto::message::{Outcome, Status};
use tradewind_system::cores;
use tradewind_worker::{AsyncRunner, OutcomeFuture, Runner, Settings, StopToken};

use crate::{AsyncContext, Codec, Context, Error, Handle, Reply};

/// A worker that runs a closure for each task.
///
/// The closure returns the task's output, or [`Reply::Skip`]. Its error is the task's
/// failure; a panic is one too, and takes nothing else down. The program may run as many workers as
/// it likes.
#[derive(Debug)]
pub struct Worker {
    ventilator: Endpoint,
    sink: Endpoint,
    name: Option<String>,
    queue: Option<String>,
    slots: u32,
    exit_when_done: bool,
    grace: Duration,
    connect_timeout: Option<Duration>,
    lanes: LaneOptions,
    keys: Wanted,
    signals: bool,
    runtime: Option<tokio::runtime::Handle>,
    handle: Handle,
}

/// A worker whose closure takes and returns values; made by [`Worker::typed`].
#[derive(Debug)]
pub struct TypedWorker<C> {
    worker: Worker,
    codec: C,
}

/// From a request to stop to the stop of what runs; as the `worker` program has it by default.
const GRACE: Duration = Duration::from_secs(30);

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
            queue: None,
            slots: cores(),
            exit_when_done: false,
            grace: GRACE,
            connect_timeout: None,
            lanes: LaneOptions::default(),
            keys: Wanted::default(),
            signals: true,
            runtime: None,
            handle: Handle::default(),
        })
    }

    /// Queue whose tasks it runs, of a program that serves queues; by default none, for a job.
    ///
    /// # Errors
    /// When this is not the name of a queue.
    pub fn queue(mut self, name: &str) -> Result<Self, Error> {
        self.queue = Some(tradewind_text::queue_name(name).map_err(Error::Name)?);
        Ok(self)
    }

    /// Its name, for people and records; by default the host's and the process's id.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the number of tasks that run at once; by default that of cores.
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

    /// Sets the time that running tasks have when the worker drains, before they are stopped and handed
    /// back. By default 30 s.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Folder of keys that `tradewind keys new` has made, or file with a token. By default they are looked for
    /// as the programs do it: `TRADEWIND_KEYS`, `$CREDENTIALS_DIRECTORY`, `/run/secrets`,
    /// `~/.config/tradewind`. A process that has read keys leaves no core dump.
    #[must_use]
    pub fn keys(mut self, path: impl Into<PathBuf>) -> Self {
        self.keys.keys = Some(path.into());
        self
    }

    /// Whether to use no keys over TCP: whoever reaches a port may then take part, and connections are not
    /// encrypted. Where nothing is said, `TRADEWIND_INSECURE` decides.
    #[must_use]
    pub fn insecure(mut self, insecure: bool) -> Self {
        self.keys.is_insecure = insecure;
        self
    }

    /// Sets the time after which an unreachable peer is given up; by default never.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// Whether SIGTERM and SIGINT drain it, and when repeated stop it at once, as SIGHUP does. By
    /// default they do; they are then taken over for the rest of the process's life. Without, there
    /// is the [handle](Self::handle).
    #[must_use]
    pub fn signals(mut self, signals: bool) -> Self {
        self.signals = signals;
        self
    }

    /// Sets the runtime for the futures of [`run_async`](Self::run_async); by default one of one thread is
    /// made for them. One of several threads runs them on several cores, and a thing that belongs to a
    /// runtime, such as a pool of connections, can be used on that one.
    #[must_use]
    pub fn runtime(mut self, runtime: tokio::runtime::Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Returns the handle that stops the worker, from another thread or from a closure.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Tasks and outputs as values. The last of the settings.
    #[must_use]
    pub fn typed<C: Codec>(self, codec: C) -> TypedWorker<C> {
        TypedWorker { worker: self, codec }
    }

    /// Runs tasks, each slot on its own thread, until it is told to stop, or until the job is over
    /// if that was asked for. Blocks; in asynchronous code, give it a thread of its own.
    ///
    /// # Errors
    /// When it was set to give up peers and did not reach one, when a peer is of another kind or version,
    /// when its keys cannot be used, or when the system refuses a thread or a socket. A task that fails is no
    /// error.
    pub fn run<F, R, E>(self, handler: F) -> Result<(), Error>
    where
        F: Fn(&[u8], &Context<'_>) -> Result<R, E> + Send + Sync + 'static,
        R: Into<Reply>,
        E: Display,
    {
        let bytes_max = self.output_bytes_max();
        let handler = move |task: &Task, stop: &StopSignal| {
            outcome(handler(&task.payload, &Context { task, stop }), bytes_max)
        };
        self.block_on(Runner::Threads(Arc::new(handler)))
    }

    /// As [`run`](Self::run), with a closure that returns a future, as many of them at once as
    /// there are slots: `slots(1000)` is nothing special. All of tokio can be used; what blocks
    /// belongs into `spawn_blocking`, or it holds up the others. A future that is to stop is
    /// dropped where it waits.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub fn run_async<F, Fut, R, E>(self, handler: F) -> Result<(), Error>
    where
        F: Fn(Bytes, AsyncContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        R: Into<Reply> + 'static,
        E: Display + 'static,
    {
        let bytes_max = self.output_bytes_max();
        let runtime = self.runtime.clone();
        let handler = move |task: Task, stop: StopToken| -> OutcomeFuture {
            let context = AsyncContext { seq: task.seq.0, attempt: task.attempt.0, stop };
            let result = handler(task.payload.into(), context);
            Box::pin(async move { outcome(result.await, bytes_max) })
        };
        self.block_on(Runner::Async(AsyncRunner { handler: Arc::new(handler), runtime }))
    }

    /// Can it be run at all?
    pub(crate) fn check(&self) -> Result<(), Error> {
        if let Some(name) = &self.name {
            tradewind_text::name(name).map_err(Error::Name)?;
        }
        if !(1..=SLOTS_MAX).contains(&self.slots) {
            return Err(Error::Slots(self.slots));
        }
        Ok(())
    }

    fn output_bytes_max(&self) -> u64 {
        tradewind_text::payload_bytes_max(self.lanes.message_bytes_max)
    }

    fn block_on(self, runner: Runner) -> Result<(), Error> {
        self.check()?;
        let dials = [Some(&self.ventilator), Some(&self.sink)];
        let keys = self.keys.or_env().open(KeyRole::Worker, [], dials).map_err(Error::keys)?;
        let settings = Settings {
            ventilator: self.ventilator,
            sink: self.sink,
            queue: self.queue.unwrap_or_default(),
            slots: self.slots,
            name: self.name.unwrap_or_else(tradewind_text::default_name),
            exit_when_done: self.exit_when_done,
            late_ok: false,
            exit_when_idle: None,
            grace: self.grace,
            runner,
            keys,
            lanes: self.lanes,
            connect_timeout: self.connect_timeout,
            late_max: Settings::late_max(self.exit_when_done, self.connect_timeout),
            forgotten_max: Settings::forgotten_max(self.exit_when_done, self.connect_timeout),
            joined: None,
            audience: Audience::Program,
        };
        block_on_until(
            || self.handle.shutdown(self.signals),
            |shutdown| tradewind_worker::run(settings, shutdown),
        )?;
        Ok(())
    }
}

impl<C: Codec> TypedWorker<C> {
    /// As [`Worker::run`].
    ///
    /// # Errors
    /// Those of [`Worker::run`].
    pub fn run<F, R, E>(self, handler: F) -> Result<(), Error>
    where
        F: Fn(C::Task, &Context<'_>) -> Result<R, E> + Send + Sync + 'static,
        R: Into<Reply<C::Output>>,
        E: Display,
    {
        let Self { worker, codec } = self;
        worker.run(move |task, context| {
            let task = decode(&codec, task)?;
            encode(&codec, handler(task, context))
        })
    }

    /// As [`Worker::run_async`].
    ///
    /// # Errors
    /// Those of [`Worker::run`].
    pub fn run_async<F, Fut, R, E>(self, handler: F) -> Result<(), Error>
    where
        F: Fn(C::Task, AsyncContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        R: Into<Reply<C::Output>> + 'static,
        E: Display + 'static,
    {
        let codec = Arc::new(self.codec);
        self.worker.run_async(move |task, context| {
            let codec = Arc::clone(&codec);
            let running = decode(&*codec, &task).map(|task| handler(task, context));
            async move { encode(&*codec, running?.await) }
        })
    }
}

fn decode<C: Codec>(codec: &C, task: &[u8]) -> Result<C::Task, String> {
    codec.decode(task).map_err(|error| format!("cannot decode the task: {error:#}"))
}

fn encode<C, R, E>(codec: &C, result: Result<R, E>) -> Result<Reply, String>
where
    C: Codec,
    R: Into<Reply<C::Output>>,
    E: Display,
{
    // The alternate form of an `anyhow::Error` has its causes.
    match result.map_err(|error| format!("{error:#}"))?.into() {
        Reply::Skip => Ok(Reply::Skip),
        Reply::Output(output) => match codec.encode(output) {
            Ok(bytes) => Ok(Reply::Output(bytes)),
            Err(error) => Err(format!("cannot encode the output: {error:#}")),
        },
    }
}

fn outcome<R: Into<Reply>, E: Display>(result: Result<R, E>, bytes_max: u64) -> Outcome {
    match result.map(Into::into) {
        Ok(Reply::Output(output)) if output.len() as u64 > bytes_max => {
            let error = format!("the output has {} bytes, more than {bytes_max}", output.len());
            Outcome::error(Status::Failed, error)
        }
        Ok(Reply::Output(output)) => Outcome::ok(output.into()),
        Ok(Reply::Skip) => Outcome::error(Status::Skipped, ""),
        Err(error) => Outcome::error(Status::Failed, format!("{error:#}")),
    }
}

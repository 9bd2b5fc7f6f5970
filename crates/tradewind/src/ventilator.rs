//! A Rust program as a ventilator.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use serde::Serialize;
use tradewind_input::Item;
use tradewind_lanes::{Endpoint, LaneOptions};
use tradewind_node::block_on_until;
use tradewind_node::exit::{Audience, OK, STOPPED, TASKS_FAILED};
use tradewind_node::keys::{KeyRole, Wanted};
use tradewind_proto::dispatcher::{Halt, Policy, Timeout};
use tradewind_proto::message::{Layout, Start};
use tradewind_ventilator::{Ending, Settings};

use crate::feed::{Given, feed};
use crate::listening::Listening;
use crate::{Error, Handle};

/// A ventilator whose tasks come from this program.
///
/// They are taken from the iterator, on a thread of its own, only as there is room: at most 24 MiB
/// of them, and at most 163,840 tasks beyond the first whose record is not stored, give or take
/// what is on the way between threads (some 1.5 MiB or 5,000 tasks).
#[derive(Debug)]
pub struct Ventilator {
    tasks: Listening,
    receipts: Listening,
    sink: Endpoint,
    options: JobOptions,
    connect_timeout: Option<Duration>,
    lanes: LaneOptions,
    keys: Wanted,
    signals: bool,
    handle: Handle,
}

/// Limits of a job's tasks, and whether the job resumes an earlier one.
#[derive(Clone, Debug)]
pub struct JobOptions {
    name: String,
    start: Start,
    policy: Policy,
}

/// Summary of a job that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobSummary {
    /// Tasks that have their records.
    pub tasks: u64,
    /// Of those, the ones that are neither [`Ok`](crate::Status::Ok) nor
    /// [`Skipped`](crate::Status::Skipped).
    pub failed: u64,
}

impl Default for JobOptions {
    fn default() -> Self {
        Self { name: "job".to_owned(), start: Start::New, policy: Policy::default() }
    }
}

impl JobOptions {
    /// A new job, whose tasks are run once and may take as long as they like.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Its name, for people; by default `job`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the number of retries of a failed task, each after a longer wait.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.policy.retries = retries;
        self
    }

    /// Stop an attempt that takes longer; see [`Context::is_stopped`](crate::Context::is_stopped).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.policy.timeout = Some(Timeout::After(timeout));
        self
    }

    /// Sets the number of lost workers after which a task is `lost` that they may have run; by default
    /// 3.
    #[must_use]
    pub fn max_losses(mut self, losses: u32) -> Self {
        self.policy.losses_max = losses.max(1);
        self
    }

    /// End the job early, as with GNU parallel's `--halt`: `"now,fail=1".parse()`.
    #[must_use]
    pub fn halt(mut self, halt: Halt) -> Self {
        self.policy.halt = Some(halt);
        self
    }

    /// Go on with the job that the sink's output has: the tasks must be the same, and those that
    /// have their records are passed over. With nothing there to go on with, it is a new job.
    #[must_use]
    pub fn resume(mut self) -> Self {
        self.start = Start::Resume;
        self
    }

    /// The same, and tasks whose records are not `ok` are run again.
    #[must_use]
    pub fn retry_failed(mut self) -> Self {
        self.start = Start::RetryFailed;
        self
    }

    /// Sets the time that a resumed job waits for workers that may still hold tasks, if its sink is new
    /// too; by default 10 s. Zero is right where all workers are new.
    #[must_use]
    pub fn resume_wait(mut self, wait: Duration) -> Self {
        self.policy.resume_wait = wait;
        self
    }
}

impl Ventilator {
    /// Listens for workers on the first and for the sink on the second endpoint, both like
    /// `tcp://0.0.0.0:5557` or `ipc:///run/jobs/tasks`; port 0 is any that is free. Peers may connect from
    /// now on.
    ///
    /// # Errors
    /// When one of them is not an endpoint, or cannot be listened on.
    pub fn listen(tasks: &str, receipts: &str) -> Result<Self, Error> {
        Ok(Self {
            tasks: Listening::on(tasks)?,
            receipts: Listening::on(receipts)?,
            sink: "tcp://127.0.0.1:5558".parse()?,
            options: JobOptions::default(),
            connect_timeout: None,
            lanes: LaneOptions::default(),
            keys: Wanted::default(),
            signals: false,
            handle: Handle::default(),
        })
    }

    /// Returns the endpoint to which workers can connect, with the actual port.
    #[must_use]
    pub fn tasks_endpoint(&self) -> String {
        self.tasks.endpoint()
    }

    /// Returns the endpoint to which the sink can connect, with the actual port.
    #[must_use]
    pub fn receipts_endpoint(&self) -> String {
        self.receipts.endpoint()
    }

    /// Sets the endpoint at which the sink listens; by default `tcp://127.0.0.1:5558`.
    ///
    /// # Errors
    /// When this is not an endpoint.
    pub fn sink(mut self, endpoint: &str) -> Result<Self, Error> {
        self.sink = endpoint.parse()?;
        Ok(self)
    }

    /// Sets the limits of the job's tasks.
    #[must_use]
    pub fn options(mut self, options: JobOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets the time after which an unreachable sink is given up; by default never.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
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

    /// Sets the number of connections to one port from one address, or from one /64 network of IPv6, at a time; 0 for
    /// any number. By default 1,024. More workers than that behind one address (NAT, a proxy) need a higher one.
    #[must_use]
    pub fn connections_per_address(mut self, connections: usize) -> Self {
        self.lanes.connections_per_address = connections;
        self
    }

    /// Whether SIGTERM and SIGINT drain the job, twice cancel it, and three times or SIGHUP end it
    /// at once. By default they are left alone, and there is the [handle](Self::handle). Once
    /// taken over, they are for the rest of the process's life.
    #[must_use]
    pub fn signals(mut self, signals: bool) -> Self {
        self.signals = signals;
        self
    }

    /// Returns the handle that stops the ventilator, from another thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs a job to its end. Blocks; in asynchronous code, give it a thread of its own.
    ///
    /// The iterator may block, for example on a channel: tasks that it has given are dispatched at once. If
    /// it panics, the job is drained.
    ///
    /// # Errors
    /// When the job cannot be run or resumed, or was stopped before its end. Tasks that failed are no
    /// error, but counted in the summary.
    pub fn run<I>(self, tasks: I) -> Result<JobSummary, Error>
    where
        I: IntoIterator<Item: Into<Bytes>>,
        I::IntoIter: Send + 'static,
    {
        self.run_given(stream::iter(tasks.into_iter().map(|task| self::task(task.into()))))
    }

    /// As [`run`](Self::run), with an iterator that may fail. The job is then drained, and its
    /// error is [`Error::Input`].
    ///
    /// # Errors
    /// As with [`run`](Self::run), and the iterator's.
    pub fn try_run<I, T, E>(self, tasks: I) -> Result<JobSummary, Error>
    where
        I: IntoIterator<Item = Result<T, E>>,
        I::IntoIter: Send + 'static,
        T: Into<Bytes>,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let tasks = tasks.into_iter().map(|task| match task {
            Ok(task) => self::task(task.into()),
            Err(error) => Err(error.into()),
        });
        self.run_given(stream::iter(tasks))
    }

    /// As [`run`](Self::run), with tasks that become JSON. One that cannot gets a `failed` record.
    ///
    /// # Errors
    /// As with [`run`](Self::run).
    pub fn run_json<I>(self, tasks: I) -> Result<JobSummary, Error>
    where
        I: IntoIterator<Item: Serialize>,
        I::IntoIter: Send + 'static,
    {
        let tasks = tasks.into_iter().map(|task| match serde_json::to_vec(&task) {
            Ok(task) => self::task(task.into()),
            Err(error) => {
                Ok(Item::Unfit { reason: format!("the task cannot become JSON: {error}") })
            }
        });
        self.run_given(stream::iter(tasks))
    }

    /// As [`run`](Self::run), with a stream. It is polled on a thread of its own, within a runtime
    /// that has tokio's time and network.
    ///
    /// # Errors
    /// As with [`run`](Self::run).
    pub fn run_stream<S>(self, tasks: S) -> Result<JobSummary, Error>
    where
        S: Stream<Item: Into<Bytes>> + Send + 'static,
    {
        self.run_given(tasks.map(|task| self::task(task.into())))
    }

    fn run_given(
        self,
        tasks: impl Stream<Item = Given> + Send + 'static,
    ) -> Result<JobSummary, Error> {
        let task_bytes_max = tradewind_text::payload_bytes_max(self.lanes.message_bytes_max);
        let tasks = tasks.map(move |given| match given {
            Ok(Item::Task(task)) if task.len() as u64 > task_bytes_max => {
                Ok(Item::TooLarge { bytes: task.len() as u64 })
            }
            given => given,
        });
        let JobOptions { name, start, policy } = self.options;
        let (workers, sink) = (self.tasks.into(), self.receipts.into());
        let keys =
            self.keys.or_env().open(KeyRole::Ventilator, [&workers, &sink], [Some(&self.sink)]);
        let keys = keys.map_err(Error::keys)?;
        let settings = Settings {
            stage: String::new(),
            task_bytes_max,
            tasks: workers,
            receipts: sink,
            sink: self.sink,
            job: tradewind_text::name(&name).map_err(Error::Name)?,
            start,
            layout: Layout::Unsaid,
            measured: None,
            policy,
            keys,
            lanes: self.lanes,
            connect_timeout: self.connect_timeout,
            progress: false,
            audience: Audience::Program,
            queue: None,
            asks: None,
        };
        let (source, _wanted) = feed(tasks).map_err(Error::system)?;
        let Ending { code, tasks, failed } = block_on_until(
            || self.handle.shutdown(self.signals),
            |shutdown| tradewind_ventilator::run(settings, source, shutdown),
        )?;
        match code {
            OK | TASKS_FAILED => Ok(JobSummary { tasks, failed }),
            STOPPED => Err(Error::Stopped),
            code => Err(Error::system(anyhow::anyhow!("the job ended with code {code}"))),
        }
    }
}

fn task(task: Bytes) -> Given {
    Ok(Item::Task(task.into()))
}

//! A Rust program as a sink.

use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use futures::Stream;
use tradewind_lanes::{Endpoint, LaneOptions};
use tradewind_node::block_on_until;
use tradewind_node::exit::{Audience, OK, REFUSED, STOPPED, TASKS_FAILED};
use tradewind_node::keys::{KeyRole, Wanted};
use tradewind_proto::collector::Order;
use tradewind_proto::limits::SPOOL_BYTES_MAX;
use tradewind_records::{self as records, Format, Fsync, OutputTarget};
use tradewind_sink::Settings;
use tradewind_sink::WhenFull;

use crate::listening::Listening;
use crate::taking::{Taking, channel};
use crate::{Error, Handle, Record};

/// A sink whose records this program takes.
///
/// **A record counts as stored once the program has taken it**: then the ventilator and the worker
/// forget it. What was given and not taken is bounded, and so is everything behind it: a program
/// that takes records slowly slows the job, and nothing is lost. A program that dies has lost what
/// it took and did not keep, and the job cannot be gone on with, unless there is a
/// [file](Self::output) too.
#[derive(Debug)]
pub struct Sink {
    results: Listening,
    ventilator: Endpoint,
    order: Order,
    spool_max: u64,
    output: Option<PathBuf>,
    overwrite: bool,
    connect_timeout: Option<Duration>,
    lanes: LaneOptions,
    keys: Wanted,
    signals: bool,
    handle: Handle,
}

/// The records of a job, one for each task. To be waited for where one may block; asynchronous code
/// takes a [`RecordStream`].
///
/// It says `None` when the job is over and the ventilator knows; only then is there nothing left
/// that this process has to do for it. An error is the last that comes. When it is dropped before, the
/// sink ends with the next record, or at once when it is told to [quit](Handle::quit), and the ventilator
/// waits for another one, unless it is told so too.
#[derive(Debug)]
pub struct Records(Taking);

/// The same as a stream.
#[derive(Debug)]
pub struct RecordStream(Taking);

impl Sink {
    /// Listens for workers and for the ventilator on an endpoint like `tcp://0.0.0.0:5558`; port 0
    /// is any that is free. Peers may connect from now on.
    ///
    /// # Errors
    /// When this is not an endpoint, or cannot be listened on.
    pub fn listen(results: &str) -> Result<Self, Error> {
        Ok(Self {
            results: Listening::on(results)?,
            ventilator: "tcp://127.0.0.1:5559".parse()?,
            order: Order::Seq,
            spool_max: SPOOL_BYTES_MAX,
            output: None,
            overwrite: false,
            connect_timeout: None,
            lanes: LaneOptions::default(),
            keys: Wanted::default(),
            signals: false,
            handle: Handle::default(),
        })
    }

    /// Returns the endpoint to which workers and the ventilator can connect, with the actual port.
    #[must_use]
    pub fn results_endpoint(&self) -> String {
        self.results.endpoint()
    }

    /// Sets the endpoint at which the ventilator listens for receipts; by default `tcp://127.0.0.1:5559`.
    ///
    /// # Errors
    /// When this is not an endpoint.
    pub fn ventilator(mut self, endpoint: &str) -> Result<Self, Error> {
        self.ventilator = endpoint.parse()?;
        Ok(self)
    }

    /// Whether records come in the order of the tasks, as they do by default, or as tasks end.
    #[must_use]
    pub fn ordered(mut self, ordered: bool) -> Self {
        self.order = if ordered { Order::Seq } else { Order::Completion };
        self
    }

    /// Limits the bytes of records that wait on the disk for an earlier one, if they come in the order of
    /// the tasks: beside the [file](Self::output), or without one where temporary files are, in a file
    /// without a name. By default 4 GiB; with 0 none wait there, and a task that runs long soon stops all
    /// others.
    #[must_use]
    pub fn spool_max(mut self, bytes: u64) -> Self {
        self.spool_max = bytes;
        self
    }

    /// Store records in a file too, as the `sink` program does: `jsonl` if its name ends so, else
    /// `lines`. A job can then be [gone on with](crate::JobOptions::resume): the records that are
    /// in the file are not given again, those that were taken and are not in it are.
    #[must_use]
    pub fn output(mut self, file: impl Into<PathBuf>) -> Self {
        self.output = Some(file.into());
        self
    }

    /// Replace a file that holds records of another job.
    #[must_use]
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
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

    /// Sets the time after which an unreachable ventilator is given up; by default never.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// Sets the number of connections to one port from one address, or from one /64 network of IPv6, at a time; 0 for
    /// any number. By default 1,024. More workers than that behind one address (NAT, a proxy) need a higher one.
    #[must_use]
    pub fn connections_per_address(mut self, connections: usize) -> Self {
        self.lanes.connections_per_address = connections;
        self
    }

    /// Whether SIGTERM, SIGINT and SIGHUP stop it. By default they are left alone, and there is the
    /// [handle](Self::handle). Once taken over, they are for the rest of the process's life.
    #[must_use]
    pub fn signals(mut self, signals: bool) -> Self {
        self.signals = signals;
        self
    }

    /// Returns a handle that stops the sink. The records that it has are still given then, and are to be
    /// taken.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Starts to collect one job's records, on a thread of its own.
    ///
    /// # Errors
    /// When there is a file, and it cannot be opened.
    pub fn records(self) -> Result<Records, Error> {
        self.start().map(Records)
    }

    /// The same, for asynchronous code, on whatever runtime.
    ///
    /// # Errors
    /// When there is a file, and it cannot be opened.
    pub fn stream(self) -> Result<RecordStream, Error> {
        self.start().map(RecordStream)
    }

    fn start(self) -> Result<Taking, Error> {
        let file = self.output.map(|file| {
            let output = OutputTarget::File(file);
            records::prepare(&records::Settings {
                format: Format::of(&output),
                output,
                order: self.order,
                joblog: None,
                overwrite: self.overwrite,
                fsync: Fsync::default(),
                ..records::Settings::default()
            })
        });
        let file = file.transpose().map_err(|error| Error::Output(error.into()))?;
        let listen = self.results.into();
        let keys = self.keys.or_env().open(KeyRole::Sink, [&listen], [Some(&self.ventilator)]);
        let keys = keys.map_err(Error::keys)?;
        let (store, end, taking) = channel(file);
        let settings = Settings {
            listen,
            ventilator: self.ventilator,
            order: self.order,
            spool_bytes_max: self.spool_max,
            keys,
            lanes: self.lanes,
            connect_timeout: self.connect_timeout,
            quiet: true,
            progress: false,
            when_full: WhenFull::Wait,
            audience: Audience::Program,
            queue: None,
        };
        let (handle, signals) = (self.handle, self.signals);
        let run = move || {
            let ended = block_on_until(
                || handle.shutdown(signals),
                |shutdown| {
                    let mut store = Some(store);
                    // What can be opened is not asked for twice.
                    let prepare = move || Ok(store.take().expect("it is asked for once"));
                    tradewind_sink::run(settings, prepare, shutdown)
                },
            );
            // An error: the program wants to know nothing more.
            let _ = end.send(ended.map_err(Error::from).and_then(judge));
        };
        thread::Builder::new().name("sink".to_owned()).spawn(run).map_err(Error::system)?;
        Ok(taking)
    }
}

fn judge(code: u8) -> Result<(), Error> {
    match code {
        OK | TASKS_FAILED => Ok(()),
        STOPPED => Err(Error::Stopped),
        REFUSED => Err(Error::Refused(anyhow::anyhow!(
            "the ventilator has given the job up before all of its records were stored"
        ))),
        code => Err(Error::system(anyhow::anyhow!("the sink ended with code {code}"))),
    }
}

impl Iterator for Records {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

impl Stream for RecordStream {
    type Item = Result<Record, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next(context)
    }
}

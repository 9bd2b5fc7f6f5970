//! The sink's flags.

use std::fs::File;
use std::io::{IsTerminal, stdout};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use tradewind_engine_jobs::{EngineStore, Held, Look, TakeError};
use tradewind_engines::{Engine, EngineUrl, EngineUrlError};
use tradewind_lanes::Endpoint;
use tradewind_node::args::{EndArgs, GateArgs, KeyArgs, LaneArgs, LogArgs};
use tradewind_node::exit::{Audience, CONNECT, Fatal, HELP, OUTPUT, SYSTEM, USAGE};
use tradewind_node::keys::{KeyRole, ventilator_at};
use tradewind_node::{Inherited, allow_many_files, block_on, exit, logs};
use tradewind_proto::collector::Order;

use crate::run::{Settings, WhenFull, run};
use tradewind_records::{self as records, Extras, Format, Fsync, OutputTarget, Show};
use tradewind_text::{default_name, size};

const EXAMPLES: &str = "\
Examples:
  sink --ventilator tcp://vent-host:5559 --output results.jsonl
  sink --ventilator tcp://127.0.0.1:5559 --format lines --joblog job.log > sums.txt
  sink --ventilator tcp://vent-host:5559 --output nats://nats-host:4222/ORDERS_DONE";

/// Time that a lease may take to be given up at the end.
const GIVE_UP_TIME: Duration = Duration::from_secs(2);

/// Collect the records of a job
#[derive(Args, Clone, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{HELP}"))]
pub struct SinkArgs {
    /// Listen for workers and for the ventilator here: tcp://HOST:PORT, or ipc:///PATH for a Unix
    /// socket
    #[arg(long, env = "TRADEWIND_LISTEN", value_name = "ENDPOINT", default_value = "tcp://*:5558")]
    pub listen: Endpoint,

    /// Where the ventilator listens for receipts [default: the token's, or tcp://127.0.0.1:5559]
    #[arg(long, env = "TRADEWIND_VENTILATOR", value_name = "ENDPOINT")]
    pub ventilator: Option<Endpoint>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub output: OutputArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub keys: KeyArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub lanes: LaneArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub gate: GateArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub end: EndArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub logs: LogArgs,
}

/// Where records go, and how they look.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// File for the records, or - for standard output, or the URL of an engine, as nats://HOST:4222/STREAM [default: -]
    #[arg(long, env = "TRADEWIND_OUTPUT", value_name = "FILE")]
    pub output: Option<OutputTarget>,

    /// Format of the records [default: jsonl for a file that ends in .jsonl, else lines]
    #[arg(long, env = "TRADEWIND_FORMAT", value_enum)]
    pub format: Option<Format>,

    /// Records in the order of the input (the default for lines)
    #[arg(
        long,
        env = "TRADEWIND_ORDERED",
        conflicts_with = "unordered",
        value_parser = BoolishValueParser::new()
    )]
    pub ordered: bool,

    /// Records as tasks end (the default for jsonl)
    #[arg(long, env = "TRADEWIND_UNORDERED", value_parser = BoolishValueParser::new())]
    pub unordered: bool,

    /// Write a line for each task here, with GNU parallel's columns
    #[arg(long, env = "TRADEWIND_JOBLOG", value_name = "FILE")]
    pub joblog: Option<OutputTarget>,

    /// Replace an output that exists
    #[arg(long, env = "TRADEWIND_OVERWRITE", value_parser = BoolishValueParser::new())]
    pub overwrite: bool,

    /// When stored records are made to survive a crash of the machine: at the end, per batch, or per
    /// record
    #[arg(long, env = "TRADEWIND_FSYNC", value_name = "WHEN", value_enum, default_value_t)]
    pub fsync: Fsync,

    /// When the output cannot be written: wait until it can (the default of the sink), or exit with
    /// code 4 (the default of run)
    #[arg(long, env = "TRADEWIND_WHEN_FULL", value_name = "WHAT", value_enum)]
    pub when_full: Option<WhenFull>,

    /// Keep up to this many bytes of records that wait for an earlier one on the disk, beside the output
    /// (of standard output: in $TMPDIR); 0 keeps none there
    #[arg(
        long,
        env = "TRADEWIND_SPOOL_MAX",
        value_name = "SIZE",
        default_value = "4GiB",
        value_parser = size
    )]
    pub spool_max: u64,

    /// Put the task and a tab before each line (format lines)
    #[arg(long, env = "TRADEWIND_TAG", value_parser = BoolishValueParser::new())]
    pub tag: bool,

    /// Put the task into each record (format jsonl)
    #[arg(long, env = "TRADEWIND_WITH_TASK", value_parser = BoolishValueParser::new())]
    pub with_task: bool,

    /// Make a directory for each task in this one, named by its number, with stdout, stderr and
    /// record.json
    #[arg(long, env = "TRADEWIND_RESULTS", value_name = "DIR")]
    pub results: Option<PathBuf>,

    /// Do not show what tasks write to stderr; by default it is shown when the output is lines or a
    /// terminal
    #[arg(long, env = "TRADEWIND_NO_STDERR", value_parser = BoolishValueParser::new())]
    pub no_stderr: bool,
}

impl OutputArgs {
    /// Where records go.
    #[must_use]
    pub fn target(&self) -> OutputTarget {
        self.output.clone().unwrap_or_default()
    }

    /// Refuses flags that contradict one another.
    ///
    /// # Errors
    /// When there are any.
    pub fn check(&self) -> Result<(), Fatal> {
        let format = self.format();
        let refuse = |text: &str| Err(Fatal::new(USAGE, text));
        if self.engine()?.is_some() {
            let given = [
                ("--joblog", self.joblog.is_some()),
                ("--results", self.results.is_some()),
                ("--overwrite", self.overwrite),
                ("--tag", self.tag),
                ("--format lines", format == Format::Lines),
            ];
            if let Some((flag, _)) = given.iter().find(|(_, is_given)| *is_given) {
                return refuse(&format!("{flag} is for files, and the output is an engine's"));
            }
        }
        if self.tag && format != Format::Lines {
            return refuse("--tag is for lines; records in jsonl have the task with --with-task");
        }
        if self.with_task && format != Format::Jsonl {
            return refuse("--with-task is for --format jsonl; lines have the task with --tag");
        }
        Ok(())
    }

    /// Returns where the records go if that is in an engine.
    ///
    /// # Errors
    /// When it is, and the URL is not as the engine's are.
    pub fn engine(&self) -> Result<Option<EngineUrl>, Fatal> {
        match self.engine_text() {
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|error: EngineUrlError| Fatal::new(USAGE, format!("--output: {error}"))),
            None => Ok(None),
        }
    }

    fn engine_text(&self) -> Option<&str> {
        let text = self.output.as_ref()?.as_os_str().to_str()?;
        EngineUrl::is_one(text).then_some(text)
    }

    fn format(&self) -> Format {
        let of_output = || match self.engine_text() {
            Some(_) => Format::Jsonl,
            None => Format::of(&self.target()),
        };
        self.format.unwrap_or_else(of_output)
    }

    fn order(&self) -> Order {
        let by_seq = self.ordered || (self.format() == Format::Lines && !self.unordered);
        if by_seq { Order::Seq } else { Order::Completion }
    }

    fn is_terminal(&self) -> bool {
        let is_terminal = |path: &Path| File::open(path).is_ok_and(|file| file.is_terminal());
        match self.target() {
            OutputTarget::Stdout => stdout().is_terminal(),
            OutputTarget::File(path) => path.starts_with("/dev") && is_terminal(&path),
        }
    }

    fn show(&self, quiet: bool) -> Show {
        let is_read_here = self.format() == Format::Lines || self.is_terminal();
        Show { stderr: is_read_here && !self.no_stderr, failures: !quiet }
    }

    fn settings(&self, quiet: bool) -> records::Settings {
        records::Settings {
            output: self.target(),
            format: self.format(),
            order: self.order(),
            joblog: self.joblog.clone(),
            overwrite: self.overwrite,
            fsync: self.fsync,
            extras: Extras { tag: self.tag, task: self.with_task },
            results: self.results.clone(),
            show: self.show(quiet),
        }
    }
}

impl SinkArgs {
    /// Returns the settings that the flags give, except those of the output.
    ///
    /// # Errors
    /// When keys cannot be used, or are lacking.
    pub fn settings(self, mut inherited: Inherited) -> Result<Settings, Fatal> {
        let listen = inherited.or_endpoint(0, self.listen);
        let dials = [self.ventilator.as_ref()];
        let keys = self.keys.wanted().open(KeyRole::Sink, [&listen], dials)?;
        let ventilator = ventilator_at(self.ventilator, &keys, "tcp://127.0.0.1:5559")?;
        Ok(Settings {
            listen,
            ventilator,
            keys,
            order: self.output.order(),
            spool_bytes_max: self.output.spool_max,
            lanes: self.gate.options(self.lanes.options()),
            connect_timeout: self.lanes.connect_timeout,
            quiet: self.logs.quiet,
            // A bar between the lines of the output would be in the way of both.
            progress: !self.logs.no_progress && !self.logs.quiet && !self.output.is_terminal(),
            when_full: self.output.when_full.unwrap_or_default(),
            audience: Audience::User,
            queue: None,
        })
    }

    /// Runs the program: everything between the flags and the exit code.
    ///
    /// # Errors
    /// When the records cannot be collected.
    pub fn main(self) -> exit::Outcome {
        logs::init(&self.logs, "info")?;
        self.output.check()?;
        match self.output.engine()? {
            Some(url) => self.into_engine(&url),
            None => self.into_files(),
        }
    }

    fn into_files(self) -> exit::Outcome {
        let (end, output) = (self.end, self.output.settings(self.logs.quiet));
        let settings = self.settings(Inherited::from_env())?;
        allow_many_files();
        end.apply_downstream(block_on(|shutdown| {
            run(settings, move || records::prepare(&output), shutdown)
        }))
    }

    fn into_engine(self, url: &EngineUrl) -> exit::Outcome {
        let look = Look {
            order: self.output.order(),
            has_task: self.output.with_task,
            show: self.output.show(self.logs.quiet),
        };
        let (end, settings) = (self.end, self.settings(Inherited::from_env())?);
        // What waits for an earlier record would be spooled here, and not where the next sink finds it.
        let settings = Settings { spool_bytes_max: 0, ..settings };
        let (store, held) = open_store(url, look)?;
        allow_many_files();
        let mut store = Some(store);
        let prepare = move || Ok(store.take().expect("it is prepared once"));
        let outcome = block_on(|shutdown| run(settings, prepare, shutdown));
        // The next sink need not wait for it.
        held.wait_given_up(GIVE_UP_TIME);
        end.apply_downstream(outcome)
    }
}

/// Connects to the engine of the output.
///
/// # Errors
/// When it cannot be reached, or refuses the credentials.
pub fn connect_output(url: &EngineUrl) -> Result<Box<dyn Engine>, Fatal> {
    url.connect().map_err(|error| failed(url, &error.into()))
}

fn failed(url: &EngineUrl, error: &TakeError) -> Fatal {
    let code = match error {
        TakeError::Engine(error) if error.is_passing() => CONNECT,
        TakeError::Thread(_) => SYSTEM,
        TakeError::Engine(_) | TakeError::Taken => OUTPUT,
    };
    Fatal::new(code, format!("cannot open output {url}: {error}"))
}

/// Takes the lease of an output in an engine.
fn open_store(url: &EngineUrl, look: Look) -> Result<(EngineStore, Held), Fatal> {
    let engine = connect_output(url)?;
    for note in engine.notes() {
        tracing::info!("output {url}: {note}");
    }
    let owner = format!("sink {} {}", default_name(), std::process::id());
    let wait = || {
        tracing::warn!(
            "output {url} is in use by another sink, or by one that was killed: waiting for its lease"
        );
    };
    let store = EngineStore::open(&*engine, url.to_string(), &owner, look, wait);
    store.map_err(|error| failed(url, &error))
}

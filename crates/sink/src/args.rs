//! The sink's flags.

use std::fs::File;
use std::io::{IsTerminal, stdout};
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::BoolishValueParser;
use tradewind_lanes::Endpoint;
use tradewind_node::args::{EndArgs, GateArgs, KeyArgs, LaneArgs, LogArgs};
use tradewind_node::exit::{Audience, Fatal, HELP, USAGE};
use tradewind_node::keys::{KeyRole, ventilator_at};
use tradewind_node::{Inherited, allow_many_files, block_on, exit, logs};
use tradewind_proto::collector::Order;

use crate::run::{Settings, WhenFull, run};
use tradewind_records::{self as records, Extras, Format, Fsync, OutputTarget, Show};
use tradewind_text::size;

const EXAMPLES: &str = "\
Examples:
  sink --ventilator tcp://vent-host:5559 --output results.jsonl
  sink --ventilator tcp://127.0.0.1:5559 --format lines --joblog job.log > sums.txt";

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
    /// File for the records, or - for standard output [default: -]
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
        if self.tag && format != Format::Lines {
            return refuse("--tag is for lines; records in jsonl have the task with --with-task");
        }
        if self.with_task && format != Format::Jsonl {
            return refuse("--with-task is for --format jsonl; lines have the task with --tag");
        }
        Ok(())
    }

    fn format(&self) -> Format {
        self.format.unwrap_or_else(|| Format::of(&self.target()))
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

    fn settings(&self, quiet: bool) -> records::Settings {
        let is_read_here = self.format() == Format::Lines || self.is_terminal();
        records::Settings {
            output: self.target(),
            format: self.format(),
            order: self.order(),
            joblog: self.joblog.clone(),
            overwrite: self.overwrite,
            fsync: self.fsync,
            extras: Extras { tag: self.tag, task: self.with_task },
            results: self.results.clone(),
            show: Show { stderr: is_read_here && !self.no_stderr, failures: !quiet },
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
        let (end, output) = (self.end, self.output.settings(self.logs.quiet));
        let settings = self.settings(Inherited::from_env())?;
        allow_many_files();
        end.apply_downstream(block_on(|shutdown| {
            run(settings, move || records::prepare(&output), shutdown)
        }))
    }
}

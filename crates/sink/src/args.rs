//! The sink's flags.

use clap::Args;
use clap::builder::BoolishValueParser;
use tradewind_lanes::Endpoint;
use tradewind_node::args::{LaneArgs, LogArgs};
use tradewind_node::exit::{Audience, HELP};
use tradewind_node::{Inherited, allow_many_files, block_on, exit, logs};
use tradewind_proto::collector::Order;

use crate::output::{self, Format, Fsync, OutputTarget};
use crate::run::{Settings, run};

const EXAMPLES: &str = "\
Examples:
  sink --ventilator tcp://vent-host:5559 --output results.jsonl
  sink --ventilator tcp://127.0.0.1:5559 --format lines --joblog job.log > sums.txt";

/// Collect the records of a job
#[derive(Args, Clone, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{HELP}"))]
pub struct SinkArgs {
    /// Listen for workers and for the ventilator here
    #[arg(
        long,
        env = "TRADEWIND_LISTEN",
        value_name = "ENDPOINT",
        default_value = "tcp://0.0.0.0:5558"
    )]
    pub listen: Endpoint,

    /// Where the ventilator listens for receipts
    #[arg(
        long,
        env = "TRADEWIND_VENTILATOR",
        value_name = "ENDPOINT",
        default_value = "tcp://127.0.0.1:5559"
    )]
    pub ventilator: Endpoint,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub output: OutputArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub lanes: LaneArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub logs: LogArgs,
}

/// Where records go, and how they look.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Where records go: a file, or - for standard output [default: -]
    #[arg(long, env = "TRADEWIND_OUTPUT", value_name = "FILE")]
    pub output: Option<OutputTarget>,

    /// How a record looks [default: jsonl for a file that ends in .jsonl, else lines]
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

    /// What is stored survives a crash of the machine: at the end, per batch, or per record
    #[arg(long, env = "TRADEWIND_FSYNC", value_name = "WHEN", value_enum, default_value_t)]
    pub fsync: Fsync,
}

impl OutputArgs {
    /// Where records go.
    #[must_use]
    pub fn target(&self) -> OutputTarget {
        self.output.clone().unwrap_or_default()
    }

    fn format(&self) -> Format {
        self.format.unwrap_or_else(|| Format::of(&self.target()))
    }

    fn order(&self) -> Order {
        let by_seq = self.ordered || (self.format() == Format::Lines && !self.unordered);
        if by_seq { Order::Seq } else { Order::Completion }
    }

    fn settings(&self) -> output::Settings {
        output::Settings {
            output: self.target(),
            format: self.format(),
            order: self.order(),
            joblog: self.joblog.clone(),
            overwrite: self.overwrite,
            fsync: self.fsync,
        }
    }
}

impl SinkArgs {
    /// What the flags mean, but for those of the output.
    #[must_use]
    pub fn settings(self, mut inherited: Inherited) -> Settings {
        Settings {
            listen: inherited.or_endpoint(0, self.listen),
            ventilator: self.ventilator,
            order: self.output.order(),
            lanes: self.lanes.options(),
            connect_timeout: self.lanes.connect_timeout,
            quiet: self.logs.quiet,
            progress: !self.logs.no_progress && !self.logs.quiet,
            audience: Audience::User,
        }
    }

    /// Runs the program: everything between the flags and the exit code.
    ///
    /// # Errors
    /// When the records cannot be collected.
    pub fn main(self) -> exit::Outcome {
        logs::init(&self.logs, "info")?;
        let output = self.output.settings();
        let settings = self.settings(Inherited::from_env());
        allow_many_files();
        block_on(|shutdown| run(settings, move || output::prepare(&output), shutdown))
    }
}

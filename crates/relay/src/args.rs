//! The relay's flags.

use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use tradewind_lanes::Endpoint;
use tradewind_node::args::{AttemptArgs, EndArgs, LaneArgs, LivenessArgs, LogArgs};
use tradewind_node::exit::{Fatal, HELP, USAGE};
use tradewind_node::{Inherited, allow_many_files, block_on, exit, logs};
use tradewind_text::{duration_or_zero, name};

use crate::run::{Settings, run};

const EXAMPLES: &str = "\
Examples, for a job of two stages:
  ventilator --input urls.txt --stage fetch --sink tcp://relay-host:5558
  worker --ventilator tcp://vent-host:5557 --sink tcp://relay-host:5558 -- ./fetch.sh
  relay --ventilator tcp://vent-host:5559 --sink tcp://sink-host:5558 --stage parse
  worker --ventilator tcp://relay-host:5557 --sink tcp://sink-host:5558 --stdin -- ./parse.py
  sink --ventilator tcp://relay-host:5559 --output results.jsonl";

/// Take one stage's results and hand them out as the next stage's tasks
///
/// A relay stands between two stages of workers: to those before it it is the sink, to those after
/// it the ventilator. It keeps nothing on disk, and may die and be started again at any time.
#[derive(Args, Clone, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{HELP}"))]
pub struct RelayArgs {
    /// Listen here for the workers of the previous stage, and for its ventilator or relay:
    /// tcp://HOST:PORT, or ipc:///PATH for a Unix socket
    #[arg(long, env = "TRADEWIND_LISTEN", value_name = "ENDPOINT", default_value = "tcp://*:5558")]
    pub listen: Endpoint,

    /// Where the ventilator or relay of the previous stage listens for receipts
    #[arg(
        long,
        env = "TRADEWIND_VENTILATOR",
        value_name = "ENDPOINT",
        default_value = "tcp://127.0.0.1:5559"
    )]
    pub ventilator: Endpoint,

    /// Listen here for the workers of the next stage
    #[arg(long, env = "TRADEWIND_TASKS", value_name = "ENDPOINT", default_value = "tcp://*:5557")]
    pub tasks: Endpoint,

    /// Listen here for the receipts of the sink or relay of the next stage
    #[arg(
        long,
        env = "TRADEWIND_RECEIPTS",
        value_name = "ENDPOINT",
        default_value = "tcp://*:5559"
    )]
    pub receipts: Endpoint,

    /// Where the sink or relay of the next stage listens
    #[arg(
        long,
        env = "TRADEWIND_SINK",
        value_name = "ENDPOINT",
        default_value = "tcp://127.0.0.1:5558"
    )]
    pub sink: Endpoint,

    /// Name of the next stage; part of its records
    #[arg(long, env = "TRADEWIND_STAGE", value_name = "NAME", value_parser = name)]
    pub stage: Option<String>,

    /// Forward what a task has written byte for byte; by default text loses the newline at its end
    #[arg(long, env = "TRADEWIND_KEEP_NEWLINE", value_parser = BoolishValueParser::new())]
    pub keep_newline: bool,

    /// How long a relay that was started again waits for workers that may still hold tasks, if the
    /// sink is new too
    #[arg(
        long,
        env = "TRADEWIND_RESUME_WAIT",
        value_name = "DURATION",
        value_parser = duration_or_zero,
        default_value = "10s"
    )]
    pub resume_wait: Duration,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub attempts: AttemptArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub lanes: LaneArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub end: EndArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub liveness: LivenessArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub logs: LogArgs,
}

impl RelayArgs {
    /// Returns the settings that the flags give.
    #[must_use]
    pub fn settings(self, mut inherited: Inherited) -> Settings {
        Settings {
            listen: inherited.or_endpoint(0, self.listen),
            tasks: inherited.or_endpoint(1, self.tasks),
            receipts: inherited.or_endpoint(2, self.receipts),
            ventilator: self.ventilator,
            sink: self.sink,
            stage: self.stage.unwrap_or_default(),
            keep_newline: self.keep_newline,
            policy: self.attempts.policy(&self.liveness, self.resume_wait, None),
            lanes: self.lanes.options(),
            connect_timeout: self.lanes.connect_timeout,
        }
    }

    /// By default a relay would dial its own ports, and be its own previous and next stage.
    fn refuse_itself(&self) -> Result<(), Fatal> {
        let pairs = [
            ("--ventilator", &self.ventilator, "--receipts", &self.receipts, "previous"),
            ("--sink", &self.sink, "--listen", &self.listen, "next"),
        ];
        for (flag, dialled, own_flag, own, which) in pairs {
            let is_same = match (dialled.tcp(), own.tcp()) {
                (Some(dialled), Some(own)) => {
                    let is_here = own.is_loopback() || own.is_everywhere();
                    let is_same = dialled.port() == own.port() && own.port() != 0;
                    is_same && is_here && dialled.is_loopback()
                }
                _ => dialled == own,
            };
            if is_same {
                let text = format!(
                    "{flag} {dialled} is this relay's own {own_flag}: give the endpoint of the {which} stage"
                );
                return Err(Fatal::new(USAGE, text));
            }
        }
        Ok(())
    }

    /// Runs the program: everything between the flags and the exit code.
    ///
    /// # Errors
    /// When nothing can be relayed.
    pub fn main(self) -> exit::Outcome {
        logs::init(&self.logs, "info")?;
        let end = self.end;
        let inherited = Inherited::from_env();
        if !inherited.has_any() {
            self.refuse_itself()?;
        }
        let settings = self.settings(inherited);
        allow_many_files();
        end.apply_downstream(block_on(|shutdown| run(settings, shutdown)))
    }
}

//! The relay's flags.

use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use tradewind_lanes::Endpoint;
use tradewind_node::args::{
    AttemptArgs, EndArgs, GateArgs, KeyArgs, LaneArgs, LivenessArgs, LogArgs,
};
use tradewind_node::exit::{Fatal, HELP, USAGE};
use tradewind_node::keys::{KeyRole, sink_at, ventilator_at};
use tradewind_node::{Inherited, allow_many_files, block_on, exit, logs};
use tradewind_text::{duration_or_zero, name, queue_name};

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
    /// [default: the token's, or tcp://127.0.0.1:5559]
    #[arg(long, env = "TRADEWIND_VENTILATOR", value_name = "ENDPOINT")]
    pub ventilator: Option<Endpoint>,

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
    /// [default: the token's, or tcp://127.0.0.1:5558]
    #[arg(long, env = "TRADEWIND_SINK", value_name = "ENDPOINT")]
    pub sink: Option<Endpoint>,

    /// Relay the tasks of this queue, of a program that serves queues
    #[arg(long, env = "TRADEWIND_QUEUE", value_name = "NAME", value_parser = queue_name)]
    pub queue: Option<String>,

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
    pub liveness: LivenessArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub logs: LogArgs,
}

impl RelayArgs {
    /// Returns the settings that the flags give.
    ///
    /// # Errors
    /// When keys cannot be used, or are lacking, or when the relay would dial itself.
    pub fn settings(self, mut inherited: Inherited) -> Result<Settings, Fatal> {
        let own = [self.receipts.clone(), self.listen.clone()];
        let is_inherited = inherited.has_any();
        let listen = inherited.or_endpoint(0, self.listen);
        let tasks = inherited.or_endpoint(1, self.tasks);
        let receipts = inherited.or_endpoint(2, self.receipts);
        let listens = [&listen, &tasks, &receipts];
        let dials = [self.ventilator.as_ref(), self.sink.as_ref()];
        let keys = self.keys.wanted().open(KeyRole::Relay, listens, dials)?;
        let ventilator = ventilator_at(self.ventilator, &keys, "tcp://127.0.0.1:5559")?;
        let sink = sink_at(self.sink, &keys, "tcp://127.0.0.1:5558")?;
        if !is_inherited {
            refuse_itself(&own, &ventilator, &sink)?;
        }
        Ok(Settings {
            listen,
            tasks,
            receipts,
            ventilator,
            sink,
            keys,
            queue: self.queue.unwrap_or_default(),
            stage: self.stage.unwrap_or_default(),
            keep_newline: self.keep_newline,
            policy: self.attempts.policy(&self.liveness, self.resume_wait, None),
            lanes: self.gate.options(self.lanes.options()),
            connect_timeout: self.lanes.connect_timeout,
        })
    }

    /// Runs the program: everything between the flags and the exit code.
    ///
    /// # Errors
    /// When nothing can be relayed.
    pub fn main(self) -> exit::Outcome {
        logs::init(&self.logs, "info")?;
        let end = self.end;
        let settings = self.settings(Inherited::from_env())?;
        allow_many_files();
        end.apply_downstream(block_on(|shutdown| run(settings, shutdown)))
    }
}

/// By default a relay would dial its own ports, and be its own previous and next stage.
fn refuse_itself(
    [receipts, listen]: &[Endpoint; 2],
    ventilator: &Endpoint,
    sink: &Endpoint,
) -> Result<(), Fatal> {
    let pairs = [
        ("--ventilator", ventilator, "--receipts", receipts, "previous"),
        ("--sink", sink, "--listen", listen, "next"),
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

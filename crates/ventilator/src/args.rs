//! The ventilator's flags.

use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use tradewind_lanes::Endpoint;
use tradewind_node::args::{
    AttemptArgs, LaneArgs, LogArgs, duration_or_zero, name, payload_bytes_max,
};
use tradewind_node::exit::{Audience, Fatal, HELP, INPUT, OrExit};
use tradewind_node::{Inherited, block_on, exit, logs};

use tradewind_proto::dispatcher::Halt;
use tradewind_proto::message::Start;

use crate::input::{Delimiter, InputPath, Source, open};
use crate::run::{Settings, run};

const EXAMPLES: &str = "\
Examples:
  ventilator --input names.txt --sink tcp://sink-host:5558
  find . -type f -print0 | ventilator -0 --sink tcp://127.0.0.1:5558 --retries 2 --timeout 30s";

/// Hand out tasks, one a line of the input, to workers
#[derive(Args, Clone, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{HELP}"))]
pub struct VentilatorArgs {
    /// Where the tasks are: a file, or - for standard input
    #[arg(long, env = "TRADEWIND_INPUT", value_name = "FILE", default_value = "-")]
    pub input: InputPath,

    /// Tasks end with a NUL, not with a newline
    #[arg(long, short = '0', env = "TRADEWIND_NULL", value_parser = BoolishValueParser::new())]
    pub null: bool,

    /// Listen for workers here
    #[arg(
        long,
        env = "TRADEWIND_TASKS",
        value_name = "ENDPOINT",
        default_value = "tcp://0.0.0.0:5557"
    )]
    pub tasks: Endpoint,

    /// Listen for the sink's receipts here
    #[arg(
        long,
        env = "TRADEWIND_RECEIPTS",
        value_name = "ENDPOINT",
        default_value = "tcp://0.0.0.0:5559"
    )]
    pub receipts: Endpoint,

    /// Where the sink listens
    #[arg(
        long,
        env = "TRADEWIND_SINK",
        value_name = "ENDPOINT",
        default_value = "tcp://127.0.0.1:5558"
    )]
    pub sink: Endpoint,

    /// The job's name, for people
    #[arg(
        long,
        env = "TRADEWIND_JOB",
        value_name = "NAME",
        value_parser = name,
        default_value = "job"
    )]
    pub job: String,

    /// What the stage is called whose workers run the tasks; stands in their records
    #[arg(long, env = "TRADEWIND_STAGE", value_name = "NAME", value_parser = name)]
    pub stage: Option<String>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub resume: ResumeArgs,

    /// How long to wait for workers that may still hold tasks, if the sink is new too
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
    pub policy: PolicyArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub lanes: LaneArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub logs: LogArgs,
}

/// Whether a job goes on.
#[derive(Args, Clone, Debug)]
pub struct ResumeArgs {
    /// Go on with the job that the output has, with the same input; start anew if there is none
    #[arg(long, env = "TRADEWIND_RESUME", value_parser = BoolishValueParser::new())]
    pub resume: bool,

    /// With --resume: run tasks again whose records are not ok
    #[arg(
        long,
        env = "TRADEWIND_RETRY_FAILED",
        requires = "resume",
        value_parser = BoolishValueParser::new()
    )]
    pub retry_failed: bool,
}

impl ResumeArgs {
    fn start(&self) -> Start {
        match (self.resume, self.retry_failed) {
            (false, _) => Start::Anew,
            (true, false) => Start::Resume,
            (true, true) => Start::RetryFailed,
        }
    }
}

/// What a job allows its tasks.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "What a task may take")]
pub struct PolicyArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub attempts: AttemptArgs,

    /// End the job early, as GNU parallel does: now|soon,fail|success|done=N|N%
    #[arg(long, env = "TRADEWIND_HALT", value_name = "WHEN,WHY")]
    pub halt: Option<Halt>,
}

impl VentilatorArgs {
    /// Opens the input.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn source(&self) -> Result<impl Source + Send + use<>, Fatal> {
        let delimiter = if self.null { Delimiter::Nul } else { Delimiter::Newline };
        let task_bytes_max = payload_bytes_max(self.lanes.message_max);
        let task_bytes_max = usize::try_from(task_bytes_max).unwrap_or(usize::MAX);
        Ok(open(&self.input).or_exit(INPUT)?.lines(delimiter, task_bytes_max))
    }

    /// What the other flags mean.
    #[must_use]
    pub fn settings(self, mut inherited: Inherited) -> Settings {
        Settings {
            task_bytes_max: payload_bytes_max(self.lanes.message_max),
            tasks: inherited.or_endpoint(0, self.tasks),
            receipts: inherited.or_endpoint(1, self.receipts),
            sink: self.sink,
            job: self.job,
            stage: self.stage.unwrap_or_default(),
            start: self.resume.start(),
            resume_wait: self.resume_wait,
            retries: self.policy.attempts.retries,
            timeout: self.policy.attempts.timeout,
            losses_max: self.policy.attempts.max_losses,
            halt: self.policy.halt,
            lanes: self.lanes.options(),
            connect_timeout: self.lanes.connect_timeout,
            progress: !self.logs.no_progress && !self.logs.quiet,
            audience: Audience::User,
        }
    }

    /// Runs the program: everything between the flags and the exit code.
    ///
    /// # Errors
    /// When the job cannot be run.
    pub fn main(self) -> exit::Outcome {
        logs::init(&self.logs, "info")?;
        block_on(|shutdown| async move {
            let source = self.source()?;
            let settings = self.settings(Inherited::from_env());
            Ok(run(settings, source, shutdown).await?.code)
        })
    }
}

/// The ventilator's own failures carry what the user can do about them.
pub(crate) fn cannot_listen(error: tradewind_lanes::BindError) -> Fatal {
    Fatal { code: exit::LISTEN, error: error.into() }
}

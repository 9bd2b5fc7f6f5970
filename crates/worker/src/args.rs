//! The worker's flags.

use std::ffi::OsString;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use tradewind_lanes::Endpoint;
use tradewind_node::args::{KeyArgs, LaneArgs, LogArgs};
use tradewind_node::exit::{Audience, COMMAND, Fatal, HELP, OrExit, SYSTEM, USAGE};
use tradewind_node::keys::{KeyRole, sink_at, ventilator_at};
use tradewind_node::{Inherited, block_on, exit, logs, parent};
use tradewind_proto::limits::{OUTPUT_BYTES_MAX, SLOTS_MAX};
use tradewind_system::cores;
use tradewind_text::Colsep;
use tradewind_text::{
    default_name, duration, duration_or_zero, name, payload_bytes_max, queue_name, size,
};

use crate::run::{Settings, run};
use crate::runner::Runner;
use tradewind_handlers::{
    CommandHandler, CommandOptions, Company, EXIT_GRACE, Fields, Handler, HostLimits, Input, Live,
    PerSlot, PipeHandler, PipeMode, PipeOptions, Template, TermSeq, check_program, check_word, fit,
};

const EXAMPLES: &str = "\
Examples:
  worker --ventilator tcp://vent-host:5557 --sink tcp://sink-host:5558 -- gzip -k {}
  worker --slots 2 --stdin -- python3 classify.py
  worker --slots 2 --pipe lines -- python3 handler.py";

/// Rules for a command that stays up, for `--help`.
pub const PIPES: &str = "\
With --pipe the command is started once for each slot and stays. It reads tasks from its standard
input and writes an answer to each to its standard output, in order, and flushes it (Python does
so by itself: it gets PYTHONUNBUFFERED=1 unless that is set). Its arguments are taken as they are.
  lines   for line in sys.stdin: print(line.strip().upper(), flush=True)
          An answer is a line; a task with a newline fails; nothing can be skipped.
  json    for line in sys.stdin: print(json.dumps({\"output\": json.loads(line)[\"task\"]}))
          A line with {\"seq\":0,\"attempt\":1,\"task\":\"...\"}, or \"task_base64\" if it is not UTF-8;
          the answer has \"output\", \"output_base64\", \"error\" or \"skip\":true, and may have \"seq\".
  frames  while head := sys.stdin.buffer.read(4): ... read(int.from_bytes(head))
          Four bytes of length, the highest first, then the bytes, each way; nothing can be skipped.
A command that ends or breaks these rules is restarted: the first task without an answer has
failed, the tasks behind it are given to the new process. The command sees TRADEWIND_WORKER and
TRADEWIND_SLOT (from 0), and the end of its input when the worker leaves.";

/// Replacement strings of a command line, for `--help`.
pub const REPLACEMENTS: &str = "\
Replacement strings in COMMAND and ARG, as in GNU parallel:
  {}   the task          {.}  without extension        {#}  its number, from 1
  {/}  its basename      {/.} basename without extension  {//} its directory
  {%}  the slot that it runs in, from 1; the command sees TRADEWIND_SLOT too (from 0)
Without any of these the task is appended as the last argument.
Where tasks have fields (--input-format, --header, --colsep, -n, :::, --fields):
  {1}  the first field   {-1} the last    {NAME} of jsonl, csv and --header, by its name
  {NAME.} {NAME/} {NAME//} {NAME/.}       as above, {1.} and so on too
${NAME} and { NAME }, with spaces, are left as they are; {{1}} stands for {1} itself, and so on.";

/// Run tasks
#[derive(Args, Clone, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{REPLACEMENTS}\n\n{PIPES}\n\n{HELP}"))]
pub struct WorkerArgs {
    /// Where the ventilator hands out tasks: tcp://HOST:PORT, or ipc:///PATH for a Unix socket
    /// [default: the token's, or tcp://127.0.0.1:5557]
    #[arg(long, env = "TRADEWIND_VENTILATOR", value_name = "ENDPOINT")]
    pub ventilator: Option<Endpoint>,

    /// Where the sink listens [default: the token's, or tcp://127.0.0.1:5558]
    #[arg(long, env = "TRADEWIND_SINK", value_name = "ENDPOINT")]
    pub sink: Option<Endpoint>,

    /// Run the tasks of this queue, of a program that serves queues
    #[arg(long, env = "TRADEWIND_QUEUE", value_name = "NAME", value_parser = queue_name)]
    pub queue: Option<String>,

    /// Tasks to run at once [default: the cores]
    #[arg(
        long,
        env = "TRADEWIND_SLOTS",
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(SLOTS_MAX))
    )]
    pub slots: Option<u32>,

    /// Name of this worker in logs and records [default: the host's and the process's id]
    #[arg(long, env = "TRADEWIND_NAME", value_name = "NAME", value_parser = name)]
    pub name: Option<String>,

    /// Exit when the job is over instead of waiting for the next
    #[arg(long, env = "TRADEWIND_EXIT_WHEN_DONE", value_parser = BoolishValueParser::new())]
    pub exit_when_done: bool,

    /// Exit with 0, not 6, when the ventilator was never reached: the job may be over. For a
    /// supervisor that restarts a program unless it exits with 0, such as a restart policy
    #[arg(long, env = "TRADEWIND_LATE_OK", value_parser = BoolishValueParser::new())]
    pub late_ok: bool,

    /// Exit after this time without a task, with code 0
    #[arg(
        long,
        env = "TRADEWIND_EXIT_WHEN_IDLE",
        value_name = "DURATION",
        value_parser = duration
    )]
    pub exit_when_idle: Option<Duration>,

    /// After a request to stop: time for running tasks to finish before they are handed back
    #[arg(
        long,
        env = "TRADEWIND_GRACE",
        value_name = "DURATION",
        value_parser = duration,
        default_value = "30s"
    )]
    pub grace: Duration,

    /// Workers on this host that were started together and share its limits of processes
    #[arg(long, value_name = "N", default_value_t = 1, hide = true)]
    pub share: u32,

    /// Threads that they and the programs beside them have at most, without those of slots
    #[arg(long, value_name = "N", default_value_t = 0, hide = true)]
    pub share_threads: u64,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub handler: HandlerArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub keys: KeyArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub lanes: LaneArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub logs: LogArgs,
}

/// Flags for the handler of tasks.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Handler")]
pub struct HandlerArgs {
    /// Give the task to the command's standard input, not in its arguments
    #[arg(long, env = "TRADEWIND_STDIN", value_parser = BoolishValueParser::new())]
    pub stdin: bool,

    /// Kind of fields in a task, for {1} and {NAME}. Not needed where the job declares it; a worker
    /// leaves a job that declares another kind
    #[arg(long, env = "TRADEWIND_FIELDS", value_name = "KIND", value_enum)]
    pub fields: Option<FieldKind>,

    /// Split a task into columns, so that {1} stands for the first: the separator, a character or a
    /// regular expression
    #[arg(long, short = 'C', env = "TRADEWIND_COLSEP", value_name = "REGEXP")]
    pub colsep: Option<Colsep>,

    /// Run no command: the output is the task
    #[arg(
        long,
        env = "TRADEWIND_ECHO",
        conflicts_with = "sleep",
        value_parser = BoolishValueParser::new()
    )]
    pub echo: bool,

    /// Run no command: the task is a number of seconds to wait
    #[arg(
        long,
        env = "TRADEWIND_SLEEP",
        value_parser = BoolishValueParser::new()
    )]
    pub sleep: bool,

    /// Start the command once for each slot, and write it one task after another
    #[arg(
        long,
        env = "TRADEWIND_PIPE",
        value_name = "MODE",
        conflicts_with_all = ["stdin", "echo", "sleep", "skip_exit_code"]
    )]
    pub pipe: Option<PipeMode>,

    /// With --pipe: time to start up, until the first answer, that does not count as the task's
    #[arg(
        long,
        env = "TRADEWIND_PIPE_STARTUP",
        value_name = "DURATION",
        value_parser = duration_or_zero,
        default_value = "60s"
    )]
    pub pipe_startup: Duration,

    /// With --pipe: number of restarts in a row of a command that ends without an answer
    #[arg(long, env = "TRADEWIND_PIPE_RESTARTS", value_name = "N", default_value_t = 5)]
    pub pipe_restarts: u32,

    /// Record a task as skipped, not failed, when its command exits with this code
    #[arg(
        long,
        env = "TRADEWIND_SKIP_EXIT_CODE",
        value_name = "CODE",
        conflicts_with_all = ["echo", "sleep"],
        value_parser = clap::value_parser!(u8).range(1..)
    )]
    pub skip_exit_code: Option<u8>,

    /// Fail a task whose output is larger [default: 16MiB, or less if --message-max is]
    #[arg(long, env = "TRADEWIND_MAX_OUTPUT", value_name = "SIZE", value_parser = size)]
    pub max_output: Option<u64>,

    /// Signals that stop a command and its process group, each with milliseconds to wait after it;
    /// KILL always comes last
    #[arg(
        long,
        env = "TRADEWIND_TERMSEQ",
        value_name = "SEQUENCE",
        default_value = "TERM,2000,KILL"
    )]
    pub termseq: TermSeq,

    /// Number of the first slot, as commands see it
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        hide = true,
        value_parser = clap::value_parser!(u32).range(..=i64::from(u32::MAX / 2))
    )]
    pub first_slot: u32,

    /// Let the command use the terminal as its standard input, one task at a time
    #[arg(
        long,
        env = "TRADEWIND_TTY",
        conflicts_with_all = ["stdin", "echo", "sleep", "pipe"],
        value_parser = BoolishValueParser::new()
    )]
    pub tty: bool,

    /// Show what commands write line by line as they write it, not in the order of the tasks
    #[arg(
        long,
        visible_alias = "lb",
        env = "TRADEWIND_LINE_BUFFER",
        conflicts_with_all = ["echo", "sleep", "pipe", "ungroup"],
        value_parser = BoolishValueParser::new()
    )]
    pub line_buffer: bool,

    /// Let commands write to standard output and standard error themselves: nothing is captured,
    /// and the output of records is empty
    #[arg(
        long,
        short = 'u',
        env = "TRADEWIND_UNGROUP",
        conflicts_with_all = ["echo", "sleep", "pipe"],
        value_parser = BoolishValueParser::new()
    )]
    pub ungroup: bool,

    /// Let replacement strings stand inside code, as in sh -c 'cat {}': whatever a task says is run
    #[arg(
        long,
        env = "TRADEWIND_UNSAFE_TEMPLATE",
        conflicts_with_all = ["echo", "sleep", "pipe"],
        value_parser = BoolishValueParser::new()
    )]
    pub unsafe_template: bool,

    /// The command to run for each task, without a shell
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Kind of fields in a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FieldKind {
    /// A JSON object or array, as from --input-format jsonl or csv, or --header.
    Json,
    /// Lines, as from -n.
    Lines,
    /// Texts with a NUL between them, as from -n with -0.
    Nul,
}

impl FieldKind {
    /// As it is written on a command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Lines => "lines",
            Self::Nul => "nul",
        }
    }
}

/// The fields that a command asks for, if tasks are JSON; `None` if it is no command.
#[must_use]
pub fn asked_fields<S: Into<OsString> + Clone>(words: &[S]) -> Option<Vec<Vec<String>>> {
    let words = words.iter().cloned().map(Into::into);
    let template = Template::with_fields(words, Input::Argument, Fields::Json).ok()?;
    Some(template.asked_fields())
}

impl HandlerArgs {
    /// The fields that the command asks for, if tasks are JSON; `None` if nothing asks for any.
    #[must_use]
    pub fn asked_fields(&self) -> Option<Vec<Vec<String>>> {
        // Who reads tasks by itself may ask for anything.
        match self.pipe {
            Some(_) => None,
            None if self.command.is_empty() => Some(Vec::new()),
            None => asked_fields(&self.command),
        }
    }

    /// Kind of fields in a task.
    fn fields(&self) -> Fields {
        // Of tasks that have fields already, the separator is the ventilator's to know.
        match (self.fields, &self.colsep) {
            (Some(FieldKind::Json), _) => Fields::Json,
            (Some(FieldKind::Lines), _) => Fields::Group(b'\n'),
            (Some(FieldKind::Nul), _) => Fields::Group(0),
            (None, Some(colsep)) => Fields::Columns(colsep.clone()),
            (None, None) => Fields::Whole,
        }
    }

    /// The command that the flags describe; it is not looked for.
    ///
    /// # Errors
    /// When there is none, or a task would be put into code.
    pub fn template(&self) -> Result<Template, Fatal> {
        let template = self.typed()?;
        let template = if self.unsafe_template { template.with_code() } else { template };
        template.check_code().or_exit(USAGE)?;
        Ok(template)
    }

    /// Lets tasks be put into code, and warns of it if they are.
    fn trust_tasks(&mut self) {
        if self.unsafe_template || self.command.is_empty() {
            return;
        }
        if let Some(error) = self.typed().ok().and_then(|typed| typed.check_code().err()) {
            tracing::warn!(
                "run all the same, since --insecure trusts all tasks: {}",
                error.about()
            );
        }
        self.unsafe_template = true;
    }

    fn typed(&self) -> Result<Template, Fatal> {
        let input = if self.stdin { Input::Stdin } else { Input::Argument };
        let command = self.command.iter().cloned();
        Template::with_fields(command, input, self.fields()).map_err(|_| {
            let text = "no handler: give a command after --, or --echo or --sleep";
            Fatal::new(USAGE, text)
        })
    }

    /// Returns the way in which the output of running commands is shown.
    #[must_use]
    pub fn live(&self) -> Live {
        match (self.line_buffer, self.ungroup) {
            (_, true) => Live::Raw,
            (true, false) => Live::Lines,
            (false, false) => Live::No,
        }
    }

    /// Returns the number of tasks that run at once on this host, if this number was asked for, beside
    /// other workers of the same run.
    ///
    /// # Errors
    /// When there is not even room for one.
    fn slots(&self, asked: Option<u32>, company: Company) -> Result<u32, Fatal> {
        if self.tty && asked.is_some_and(|slots| slots > 1) {
            let text = "--tty gives one command at a time the terminal: use --slots 1";
            return Err(Fatal::new(USAGE, text));
        }
        if self.tty && File::open("/dev/tty").is_err() {
            let text = "--tty gives commands the terminal, and there is none: start this from one";
            return Err(Fatal::new(USAGE, text));
        }
        let slots = asked.unwrap_or_else(|| if self.tty { 1 } else { cores() });
        if self.command.is_empty() {
            return Ok(slots);
        }
        let per_slot =
            if self.pipe.is_some() { PerSlot::pipe() } else { PerSlot::command(self.stdin) };
        let HostLimits { slots, reason } = fit(slots, per_slot, company).or_exit(SYSTEM)?;
        if let Some(reason) = reason {
            tracing::warn!("{reason}");
        }
        Ok(slots)
    }

    /// The handler that the flags describe, and where it runs; a command is looked for.
    ///
    /// # Errors
    /// When there is no handler, or its command cannot be run.
    pub fn runner(&self, worker: &str, message_bytes_max: u64) -> Result<Runner, Fatal> {
        if (self.echo || self.sleep) && !self.command.is_empty() {
            let text = "--echo and --sleep run no command, and one was given after --";
            return Err(Fatal::new(USAGE, text));
        }
        if self.echo {
            // Not worth a thread's wake-up.
            return Ok(Runner::Inline(Arc::new(Handler::Echo)));
        }
        if self.sleep {
            return Ok(Runner::Threads(Arc::new(Handler::Sleep)));
        }
        if self.command.is_empty() {
            let text = "no handler: give a command after --, or --echo or --sleep";
            return Err(Fatal::new(USAGE, text));
        }
        let fits = payload_bytes_max(message_bytes_max);
        if let Some(bytes) = self.max_output.filter(|bytes| *bytes > fits) {
            let text = format!(
                "--max-output {bytes} does not fit into a message: at most {fits} bytes do; \
                 see --message-max"
            );
            return Err(Fatal::new(USAGE, text));
        }
        // Beside it there is to be room for the reason and for what was written to stderr.
        let by_default = OUTPUT_BYTES_MAX.min(fits - fits / 16);
        let output_bytes_max = self.max_output.unwrap_or(by_default);
        if let Some(mode) = self.pipe {
            let options = PipeOptions {
                mode,
                output_bytes_max,
                startup: self.pipe_startup,
                restarts_max: self.pipe_restarts,
                exit_grace: EXIT_GRACE,
                term_seq: self.termseq.clone(),
                worker: worker.to_owned(),
                first_slot: self.first_slot,
            };
            let handler = PipeHandler::new(self.command.clone(), options).or_exit(COMMAND)?;
            return Ok(Runner::Pipes(Arc::new(handler)));
        }
        let template = self.template()?;
        check_program(&template).or_exit(COMMAND)?;
        check_word(&self.command).or_exit(COMMAND)?;
        let options = CommandOptions {
            output_bytes_max,
            term_seq: self.termseq.clone(),
            tty: self.tty,
            live: self.live(),
            worker: worker.to_owned(),
            first_slot: self.first_slot,
            skip_exit_code: self.skip_exit_code.map(i32::from),
        };
        let handler = CommandHandler::new(template, options);
        Ok(Runner::Threads(Arc::new(Handler::Command(Box::new(handler)))))
    }
}

impl WorkerArgs {
    /// Returns the settings that the flags give.
    ///
    /// # Errors
    /// When they mean nothing that can be done.
    pub fn settings(mut self) -> Result<Settings, Fatal> {
        if self.keys.insecure && self.handler.pipe.is_none() {
            // Whoever reaches the ventilator decides about the tasks anyway.
            self.handler.trust_tasks();
        }
        let name = self.name.unwrap_or_else(default_name);
        let runner = self.handler.runner(&name, self.lanes.message_max)?;
        let company = Company { workers: self.share, threads: self.share_threads };
        let slots = self.handler.slots(self.slots, company)?;
        let dials = [self.ventilator.as_ref(), self.sink.as_ref()];
        let keys = self.keys.wanted().open(KeyRole::Worker, [], dials)?;
        let ventilator = ventilator_at(self.ventilator, &keys, "tcp://127.0.0.1:5557")?;
        let sink = sink_at(self.sink, &keys, "tcp://127.0.0.1:5558")?;
        Ok(Settings {
            ventilator,
            sink,
            keys,
            queue: self.queue.unwrap_or_default(),
            slots,
            name,
            exit_when_done: self.exit_when_done,
            late_ok: self.late_ok,
            exit_when_idle: self.exit_when_idle,
            grace: self.grace,
            runner,
            lanes: self.lanes.options(),
            connect_timeout: self.lanes.connect_timeout,
            late_max: Settings::late_max(self.exit_when_done, self.lanes.connect_timeout),
            forgotten_max: Settings::forgotten_max(self.exit_when_done, self.lanes.connect_timeout),
            // Its parent wants to know whether what dies has ever worked.
            joined: parent::speaks_for_us().then(|| Inherited::from_env().datagram(0)).flatten(),
            // A parent sends its workers home: that is no news for its user.
            audience: if parent::speaks_for_us() { Audience::Program } else { Audience::User },
        })
    }

    /// Runs the program: everything between the flags and the exit code.
    ///
    /// # Errors
    /// When the flags make no sense, the command cannot be run, or this host has no room for a task; and those
    /// of [`run`].
    pub fn main(self) -> exit::Outcome {
        logs::init(&self.logs, "info")?;
        let settings = self.settings()?;
        block_on(|shutdown| run(settings, shutdown))
    }
}

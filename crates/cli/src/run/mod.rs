//! `tradewind run`: all three on this machine, as one program.

mod child;
mod dry_run;
mod jobs;
mod pipeline;
mod tasks;
mod values;

use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal, stdout};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::BoolishValueParser;
use rustix::process::{Resource, getrlimit};
use tradewind_engines::EngineUrl;
use tradewind_face::HttpArgs;
use tradewind_handlers::Live;
use tradewind_input::InputPath;
use tradewind_lanes::PrivateDir;
use tradewind_node::args::{AttemptArgs, LogArgs, message_size};
use tradewind_node::exit::{
    Fatal, HELP, LISTEN, OK, OUTPUT, OrExit, REFUSED, STOPPED, SYSTEM, USAGE,
};
use tradewind_node::{Asked, Shutdown, block_on, exit, logs};
use tradewind_proto::dispatcher::Timeout;
use tradewind_records::{FileId, Format, OutputTarget, ReadFile, check_distinct};
use tradewind_sink::WhenFull;
use tradewind_sink::args::{OutputArgs, connect_output};
use tradewind_system::cores;
use tradewind_text::default_name;
use tradewind_ventilator::args::{
    AskedFields, FormatArgs, InputFormat, PolicyArgs, ResumeArgs, connect_input, input_engine,
};
use tradewind_worker::args::{FieldKind, HandlerArgs, PIPES, REPLACEMENTS};

use self::child::{Children, End, Part, Role, arg, flag, share_args};
use self::jobs::Jobs;
use self::tasks::Tasks;

const EXAMPLES: &str = "\
Examples:
  find . -name '*.jpg' | tradewind run -j 8 -- convert {} {.}.png
  tradewind run --input urls.txt --output results.jsonl --retries 2 --timeout 30s -- curl -sf
  find . -type f -print0 | tradewind run -0 -n 100 -- sha256sum > sums.txt
  tradewind run --input-format csv --input people.csv -- mail -s 'Dear {First Name}' {mail}
  tradewind run -- convert -rotate {2} {1} {1.}-{2}.png ::: *.jpg ::: 90 180
  tradewind run --pipe lines -- python3 handler.py < lines.txt > answers.txt
  tradewind run --pipeline site.toml --input urls.txt --output results.jsonl";

const VALUES: &str = "\
Values on the command line, as in GNU parallel, instead of --input:
  -- COMMAND ::: A B        two tasks
  -- COMMAND ::: A B ::: 1 2   every combination: A 1, A 2, B 1, B 2
  -- COMMAND ::: A B :::+ 1 2  one with one: A 1, B 2
  -- COMMAND :::: FILE...   the lines of files; ::::+ FILE links them";

const PIPELINE: &str = "\
A pipeline FILE (TOML) names its stages in order; a task's output in one is its task in the next:
  [[stage]]
  name = \"fetch\"            # part of the records; required, as is command
  command = \"curl -sf {}\"   # split into words as a shell does it, or a list of words
  workers = 4                # processes [default: 1], each with
  slots = 8                  # this many tasks at once [default: the cores]
  retries = 2
  timeout = \"30s\"           # or \"300%\"
  [[stage]]
  name = \"parse\"
  command = [\"python3\", \"parse.py\"]
  stdin = true               # or pipe = \"lines\", \"json\" or \"frames\"
Also: max_losses, max_output, skip_exit_code, termseq, keep_newline, env; echo = true or sleep = true for no command;
[defaults] for all stages; at the top name, input and output, which flags override.";

/// Worker processes of a run, or of a stage.
const WORKERS_MAX: u32 = 1024;

/// Run a command for each line of the input, on this machine
#[derive(Args, Clone, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{VALUES}\n\n{PIPELINE}\n\n{REPLACEMENTS}\n\n{PIPES}\n\n{HELP}"))]
pub(crate) struct RunArgs {
    /// Tasks to run at once, in all: a number, +N or -N (more or fewer than the cores), N% (of
    /// the cores), or 0 (as many as possible) [default: the cores]
    #[arg(long, short, env = "TRADEWIND_SLOTS", value_name = "SLOTS", allow_hyphen_values = true)]
    jobs: Option<Jobs>,

    /// Worker processes to spread them over
    #[arg(
        long,
        env = "TRADEWIND_WORKERS",
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(WORKERS_MAX))
    )]
    workers: u32,

    /// Run the stages that this file describes, instead of a command; see below
    #[arg(
        long,
        env = "TRADEWIND_PIPELINE",
        value_name = "FILE",
        conflicts_with_all = [
            "jobs", "workers", "command", "stdin", "echo", "sleep", "max_output", "retries",
            "timeout", "max_losses", "dry_run", "pipe", "skip_exit_code", "line_buffer", "ungroup",
            "termseq", "tty",
        ]
    )]
    pipeline: Option<PathBuf>,

    /// Show the stages of the pipeline and whether their commands exist, and run nothing
    #[arg(long, requires = "pipeline")]
    check: bool,

    /// Input with the tasks: a file, or - for standard input, or the URL of an engine, as nats://HOST:4222/STREAM
    /// [default: -]
    #[arg(long, env = "TRADEWIND_INPUT", value_name = "FILE")]
    input: Option<InputPath>,

    /// Tasks end with a NUL, not with a newline
    #[arg(long, short = '0', env = "TRADEWIND_NULL", value_parser = BoolishValueParser::new())]
    null: bool,

    /// Print the commands that would be run, and run none
    #[arg(
        long,
        env = "TRADEWIND_DRY_RUN",
        conflicts_with_all = ["echo", "sleep", "pipe"],
        value_parser = BoolishValueParser::new()
    )]
    dry_run: bool,

    /// Files whose lines are values.
    #[arg(skip)]
    values_from: Vec<InputPath>,

    #[command(flatten)]
    resume: ResumeArgs,

    #[command(flatten)]
    format: FormatArgs,

    #[command(flatten)]
    handler: HandlerArgs,

    #[command(flatten)]
    policy: PolicyArgs,

    #[command(flatten)]
    http: HttpArgs,

    #[command(flatten)]
    output: OutputArgs,

    /// Largest message between processes, and so largest task and output
    #[arg(
        long,
        env = "TRADEWIND_MESSAGE_MAX",
        value_name = "SIZE",
        value_parser = message_size,
        default_value = "64MiB"
    )]
    message_max: u64,

    #[command(flatten)]
    logs: LogArgs,
}

impl RunArgs {
    pub(crate) fn main(mut self) -> exit::Outcome {
        logs::init(&self.logs, "warn")?;
        if let Some(file) = self.pipeline.clone() {
            return pipeline::main(self, &file);
        }
        // What is wrong with the command line is said before anything is started.
        if self.is_live()
            && self.output.format == Some(Format::Jsonl)
            && self.output.target() == OutputTarget::Stdout
        {
            let text = "with --line-buffer and --ungroup commands write to standard output: \
                        records need --output FILE";
            return Err(Fatal::new(USAGE, text));
        }
        if self.is_live() && self.output.tag {
            let text = "--tag cannot be used with --line-buffer or --ungroup";
            return Err(Fatal::new(USAGE, text));
        }
        let values = self.take_values()?;
        let has_values = values.is_some() || !self.values_from.is_empty();
        self.check_command(has_values)?;
        self.format.asked_fields = self.handler.asked_fields().map(AskedFields::new);
        let format = self.format.format(self.null, self.handler.colsep.as_ref())?;
        self.handler.fields = self.handler.fields.or(self.fields(values.is_some()));
        self.handler.runner("", self.message_max)?;
        if !self.dry_run {
            self.check_files(values.is_some())?;
        }
        self.check_engines()?;
        let tasks = Tasks::open(values, &self.input(), self.logs.quiet)?;
        if self.dry_run {
            if tradewind_stdio::is_stdout_closed() {
                return Err(Fatal::new(OUTPUT, "standard output is closed"));
            }
            let template = self.handler.template()?;
            return dry_run::show(
                tasks.try_into()?,
                &format,
                &template,
                self.message_max,
                stdout(),
            );
        }
        block_on(|shutdown| self.run(tasks, shutdown))
    }

    /// A command line can end in values without a command before them.
    fn check_command(&self, has_values: bool) -> Result<(), Fatal> {
        let HandlerArgs { echo, sleep, command, .. } = &self.handler;
        if !*echo && !*sleep && command.is_empty() && has_values {
            let text = "no command for the values: give one before them; if they are \
                        commands themselves, write -- sh -c {} :::";
            return Err(Fatal::new(USAGE, text));
        }
        Ok(())
    }

    /// Returns the fields of tasks that workers have to know of, besides `--colsep`.
    fn fields(&self, has_values: bool) -> Option<FieldKind> {
        let FormatArgs { input_format, header, .. } = &self.format;
        if *input_format != InputFormat::Lines || header.is_some() {
            return Some(FieldKind::Json);
        }
        let is_group =
            self.format.group().is_some() || (has_values && self.handler.colsep.is_none());
        is_group.then_some(if self.null { FieldKind::Nul } else { FieldKind::Lines })
    }

    async fn run(self, tasks: Tasks, shutdown: Shutdown) -> exit::Outcome {
        check_open_files()?;
        let slots = match self.jobs {
            Some(jobs) => jobs.slots(cores()),
            None if self.handler.tty => 1,
            None => cores(),
        };
        if self.handler.tty && slots > 1 {
            let text = "--tty gives one command at a time the terminal: use -j1";
            return Err(Fatal::new(USAGE, text));
        }
        if self.handler.tty && File::open("/dev/tty").is_err() {
            return Err(Fatal::new(USAGE, "--tty needs a terminal, and there is none here"));
        }
        if self.workers > slots {
            let s = if slots == 1 { "" } else { "s" };
            let text = format!("{} workers cannot share {slots} slot{s}; see -j", self.workers);
            return Err(Fatal::new(USAGE, text));
        }

        drive(self.start(slots, tasks)?, shutdown).await
    }

    /// Refuses to write over what is read.
    fn check_files(&self, has_values: bool) -> Result<(), Fatal> {
        let mut inputs = self.values_from.clone();
        // Where all tasks are on the command line there is none.
        if !has_values {
            inputs.push(self.input());
        }
        self.output.check()?;
        // The sink finds what Rust's runtime has opened here in its place.
        let targets = [Some(self.output.target()), self.output.joblog.clone()];
        if targets.contains(&Some(OutputTarget::Stdout)) && tradewind_stdio::is_stdout_closed() {
            return Err(Fatal::new(OUTPUT, "standard output is closed"));
        }
        let pipeline = self.pipeline.as_ref().and_then(|path| {
            FileId::of_path(path).map(|id| ReadFile { name: format!("pipeline {path:?}"), id })
        });
        let (output, joblog) = (self.output.target(), self.output.joblog.as_ref());
        let read: Vec<ReadFile> = inputs.iter().filter_map(read_file).chain(pipeline).collect();
        check_distinct(&read, &output, joblog).or_exit(USAGE)?;
        let results = self.output.results.as_deref();
        let overwritten = inputs.iter().find(|input| results.is_some_and(|dir| is_of(input, dir)));
        overwritten.map_or(Ok(()), |input| {
            let text = format!(
                "{input} is in the directory of a task in --results: name another one for one of \
                 them"
            );
            Err(Fatal::new(USAGE, text))
        })
    }

    fn input(&self) -> InputPath {
        self.input.clone().unwrap_or_default()
    }

    /// Starts all three, with sockets that listen already: none has to wait for another.
    fn start(&self, slots: u32, input: Tasks) -> Result<Children, Fatal> {
        let mut children = self.children()?;
        let sockets = children.sockets();
        let (tasks, tasks_at) = listen(sockets, "tasks")?;
        let (receipts, receipts_at) = listen(sockets, "receipts")?;
        let (results, results_at) = listen(sockets, "results")?;
        children.allow_for(self.handler.termseq.total());
        let sink = [arg("--ventilator", &receipts_at), arg("--listen", &results_at)].concat();
        let sink = Part::new(Role::Sink, [sink, self.sink_args()].concat(), vec![results]);
        children.start_part(Part { env: self.sink_env()?, ..sink })?;
        let ventilator = [
            arg("--tasks", &tasks_at),
            arg("--receipts", &receipts_at),
            arg("--sink", &results_at),
            input.args(),
            self.ventilator_args(),
        ];
        children.start_part(Part {
            env: input.env(),
            stdin: Some(input.into()),
            ..Part::new(Role::Ventilator, ventilator.concat(), vec![tasks, receipts])
        })?;
        let host = default_name();
        let mut first_slot = 0;
        for worker in 0..self.workers {
            let share = slots / self.workers + u32::from(worker < slots % self.workers);
            let args = [
                arg("--ventilator", &tasks_at),
                arg("--sink", &results_at),
                arg("--slots", share.to_string()),
                arg("--name", format!("{host}.{}", worker + 1)),
                share_args(self.workers, 0),
                arg("--first-slot", first_slot.to_string()),
                self.worker_args(),
            ];
            first_slot += share;
            let part = Part::new(Role::Worker, args.concat(), Vec::new());
            children.start_part(Part {
                keeps_terminal: self.handler.tty,
                keeps_stdout: self.is_live(),
                ..part
            })?;
        }
        Ok(children)
    }

    fn children(&self) -> Result<Children, Fatal> {
        let mut logs = self.logs.clone();
        // A bar between the lines of the output would be in the way of both.
        logs.no_progress |= self.output.target() == OutputTarget::Stdout && stdout().is_terminal();
        logs.no_progress |= self.is_live();
        let sockets = PrivateDir::new().or_exit(LISTEN)?;
        Children::new(logs, self.message_max, sockets).or_exit(SYSTEM)
    }

    /// Do commands write to our standard output while they run?
    fn is_live(&self) -> bool {
        self.handler.live() != Live::No
    }

    fn ventilator_args(&self) -> Vec<OsString> {
        let PolicyArgs { attempts, halt } = &self.policy;
        let mut args: Vec<OsString> = flag("--null", self.null).into_iter().collect();
        args.extend(self.format.to_args().into_iter().map(OsString::from));
        args.extend(self.handler.colsep.iter().map(|colsep| format!("--colsep={colsep}").into()));
        let ResumeArgs { resume, retry_failed } = self.resume;
        args.extend(flag("--resume", resume));
        args.extend(flag("--retry-failed", retry_failed));
        // All workers are new, and hold nothing.
        args.extend(arg("--resume-wait", "0s"));
        args.extend(attempt_args(attempts));
        args.extend(arg("--halt", halt.to_string()));
        args.extend(self.http.to_args());
        args
    }

    /// Connects to the engines of the input and the output, so that what is wrong is said once, before anything is
    /// started.
    fn check_engines(&self) -> Result<(), Fatal> {
        if let Some(url) = input_engine(&self.input())? {
            self.format.check_engine(self.null)?;
            connect_input(&url)?;
        }
        if let Some(url) = self.output.engine()? {
            connect_output(&url)?;
        }
        Ok(())
    }

    /// Returns variables for the sink: others see flags, and the URL of an engine may have a password.
    fn sink_env(&self) -> Result<Vec<(String, String)>, Fatal> {
        let is_engine = self.output.engine()?.is_some();
        let url = self.output.target().as_os_str().to_string_lossy().into_owned();
        Ok(if is_engine { vec![("TRADEWIND_OUTPUT".to_owned(), url)] } else { Vec::new() })
    }

    fn sink_args(&self) -> Vec<OsString> {
        let OutputArgs {
            output: _,
            format,
            ordered,
            unordered,
            joblog,
            overwrite,
            fsync,
            when_full,
            spool_max,
            tag,
            with_task,
            results,
            no_stderr,
        } = &self.output;
        // What is shown as it comes is not shown once more.
        let is_shown = self.is_live() && self.output.target() == OutputTarget::Stdout;
        let nowhere = OutputTarget::from(OsString::from("/dev/null"));
        let target = if is_shown { nowhere } else { self.output.target() };
        let is_engine = target.as_os_str().to_str().is_some_and(EngineUrl::is_one);
        let mut args = if is_engine { Vec::new() } else { arg("--output", target.as_os_str()) };
        if let Some(format) = format {
            args.extend(arg("--format", format.as_str()));
        }
        if let Some(joblog) = joblog {
            args.extend(arg("--joblog", joblog.as_os_str()));
        }
        args.extend(flag("--ordered", *ordered));
        args.extend(flag("--unordered", *unordered || (is_shown && !*ordered)));
        args.extend(flag("--overwrite", *overwrite));
        args.extend(arg("--fsync", fsync.as_str()));
        // A person waits for the end, and can make room and resume.
        args.extend(arg("--when-full", when_full.unwrap_or(WhenFull::Exit).as_str()));
        args.extend(arg("--spool-max", spool_max.to_string()));
        args.extend(flag("--tag", *tag));
        args.extend(flag("--with-task", *with_task));
        if let Some(results) = results {
            args.extend(arg("--results", results));
        }
        args.extend(flag("--no-stderr", *no_stderr || self.is_live()));
        args.extend(flag("--no-progress", true));
        args
    }

    /// Returns the arguments that describe the tasks of the input to workers.
    fn field_args(&self) -> Vec<OsString> {
        match (self.handler.fields, &self.handler.colsep) {
            (Some(fields), _) => arg("--fields", fields.as_str()),
            (None, Some(colsep)) => vec![format!("--colsep={colsep}").into()],
            (None, None) => Vec::new(),
        }
    }

    fn worker_args(&self) -> Vec<OsString> {
        let HandlerArgs {
            stdin,
            fields: _,
            colsep: _,
            echo,
            sleep,
            pipe,
            pipe_startup,
            pipe_restarts,
            skip_exit_code,
            max_output,
            termseq,
            tty,
            first_slot: _,
            line_buffer,
            ungroup,
            unsafe_template,
            command,
        } = &self.handler;
        let mut args = arg("--termseq", termseq.to_string());
        if let Some(max_output) = max_output {
            args.extend(arg("--max-output", max_output.to_string()));
        }
        args.extend(flag("--tty", *tty));
        args.extend(flag("--line-buffer", *line_buffer));
        args.extend(flag("--ungroup", *ungroup));
        args.extend(flag("--unsafe-template", *unsafe_template));
        args.extend(flag("--exit-when-done", true));
        args.extend(flag("--stdin", *stdin));
        args.extend(self.field_args());
        args.extend(flag("--echo", *echo));
        args.extend(flag("--sleep", *sleep));
        if let Some(pipe) = pipe {
            args.extend(arg("--pipe", pipe.as_str()));
            args.extend(arg("--pipe-startup", format!("{}us", pipe_startup.as_micros())));
            args.extend(arg("--pipe-restarts", pipe_restarts.to_string()));
        }
        if let Some(code) = skip_exit_code {
            args.extend(arg("--skip-exit-code", code.to_string()));
        }
        if !command.is_empty() {
            args.push("--".into());
            args.extend(command.iter().cloned());
        }
        args
    }
}

fn read_file(input: &InputPath) -> Option<ReadFile> {
    match input {
        InputPath::File(path) => {
            FileId::of_path(path).map(|id| ReadFile { name: input.to_string(), id })
        }
        InputPath::Stdin => ReadFile::stdin(),
    }
}

/// Is this in the directory of a task, where its output goes?
fn is_of(input: &InputPath, results: &Path) -> bool {
    let path = match input {
        InputPath::File(path) => path,
        InputPath::Stdin => Path::new("/dev/stdin"),
    };
    let (Ok(path), Ok(results)) = (path.canonicalize(), results.canonicalize()) else {
        return false;
    };
    let task = path.strip_prefix(results).ok().and_then(Path::parent).and_then(Path::to_str);
    task.is_some_and(|task| !task.is_empty() && task.bytes().all(|byte| byte.is_ascii_digit()))
}

/// With fewer open files than this none of the children could do its part.
const FILES_MIN: u64 = 36;

/// Says so where even the least cannot be done.
fn check_open_files() -> Result<(), Fatal> {
    let limit = getrlimit(Resource::Nofile).current.filter(|limit| *limit < FILES_MIN);
    limit.map_or(Ok(()), |limit| {
        let text = format!(
            "open files: ulimit -n is {limit}, and `tradewind run` takes {FILES_MIN} at least"
        );
        Err(Fatal::new(SYSTEM, text))
    })
}

/// Sees the children through to their end.
async fn drive(mut children: Children, mut shutdown: Shutdown) -> exit::Outcome {
    let mut looks = shutdown.take_looks();
    let mut is_cancelled = false;
    loop {
        tokio::select! {
            () = looks.next() => children.look(),
            end = children.ended() => match end? {
                End::All { ventilator, sink } => {
                    return Ok(if ventilator == OK { sink } else { ventilator });
                }
                // Its tasks wait for a worker to run them.
                End::Killed { child } => children.restart(child)?,
                End::Failed { code } => {
                    // The child has said why.
                    children.quit().await;
                    // A ventilator ends because the sink has refused its job.
                    let is_output = code == REFUSED && children.code(Role::Sink) == Some(OUTPUT);
                    return Ok(if is_output { OUTPUT } else { code });
                }
            },
            asked = shutdown.asked() => match asked {
                // The ventilator knows what draining and cancelling mean.
                Asked::Drain | Asked::Cancel => {
                    is_cancelled = asked == Asked::Cancel;
                    children.ask_ventilator();
                }
                // Commands have had the time that they get when they were cancelled.
                Asked::Quit if is_cancelled => {
                    children.quit_now().await;
                    return Ok(STOPPED);
                }
                Asked::Quit => {
                    children.quit().await;
                    return Ok(STOPPED);
                }
            }
        }
    }
}

/// Listens in a place that only this user can reach.
fn listen(sockets: &PrivateDir, name: &str) -> Result<(UnixListener, String), Fatal> {
    let (listener, endpoint) = sockets.listen(name).or_exit(LISTEN)?;
    Ok((listener, endpoint.to_string()))
}

/// Limits of a task, as flags.
fn attempt_args(attempts: &AttemptArgs) -> Vec<OsString> {
    let AttemptArgs { retries, timeout, max_losses, max_failures_per_worker } = attempts;
    let mut args = arg("--retries", retries.to_string());
    match timeout {
        Some(Timeout::After(limit)) => {
            args.extend(arg("--timeout", format!("{}us", limit.as_micros())));
        }
        Some(Timeout::Percent(percent)) => args.extend(arg("--timeout", format!("{percent}%"))),
        None => {}
    }
    args.extend(arg("--max-losses", max_losses.to_string()));
    if let Some(failures) = max_failures_per_worker {
        args.extend(arg("--max-failures-per-worker", failures.to_string()));
    }
    args
}

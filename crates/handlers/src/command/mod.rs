//! The handler that runs a command for each task.

mod run;

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::Signal;
use tradewind_proto::limits::OUTPUT_BYTES_MAX;
use tradewind_proto::message::{Exit, Layout, Outcome, Status};
use tradewind_proto::{Payload, Slot};

use self::run::{Care, Ended};
use super::host::{Lack, Unstarted};
use super::live::{self, Live};
use super::process::{
    Environment, Launch, OOM_REASON, OomKills, Supervised, exit_of, killed_by, may_be_oom,
    terminal_reason,
};
use super::program;
use super::template::{Input, Template};
use super::term_seq::TermSeq;
use super::{BlockingHandler, STOPPED, StopSignal, Task, files};

/// The kernel's `MAX_ARG_STRLEN`, less the NUL at the end.
const ARGUMENT_BYTES_MAX: usize = (128 << 10) - 1;

/// As a number, as exit statuses have it.
const SIGPIPE: i32 = Signal::PIPE.as_raw();

/// Exit codes of interpreters that do not find their script.
const NOT_FOUND: [i32; 3] = [2, 126, 127];

/// Signals that end commands together with their worker: HUP, INT and TERM.
const LEAVING_SIGNALS: [i32; 3] = [1, 2, 15];

/// Time within which the worker should have heard of it too.
const LEAVING_WAIT: Duration = Duration::from_secs(1);

/// Time between two checks whether it has.
const LEAVING_LOOK: Duration = Duration::from_millis(10);

/// Waits before a command is tried again that could not be started for a passing reason.
const RETRY_DELAYS_MS: [u64; 2] = [5, 20];

/// The same where its file is being written.
const CLOSED_DELAYS_MS: [u64; 7] = [5, 20, 50, 100, 200, 400, 800];

/// Runs a command for each task, in a process group of its own, with what it writes captured.
#[derive(Debug)]
pub struct CommandHandler {
    /// As it was typed, with the fields that flags say.
    typed: Template,
    /// With those of the job.
    template: RwLock<Arc<Template>>,
    /// The file to run, found once instead of each time.
    program: Option<PathBuf>,
    /// Stdin of commands, opened once as well; a system without it says so each time.
    nothing: Option<Arc<File>>,
    environment: Environment,
    /// There is a terminal that commands may want.
    has_terminal: bool,
    oom_kills: OomKills,
    /// The worker was asked to leave.
    is_leaving: AtomicBool,
    options: CommandOptions,
}

/// Options for running commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandOptions {
    /// A command that writes more to stdout is killed, and its task has failed.
    pub output_bytes_max: u64,
    /// Signals that stop a command.
    pub term_seq: TermSeq,
    /// The worker's name: commands see it as `TRADEWIND_WORKER`.
    pub worker: String,
    /// A command that exits with this code has skipped its task: nothing more is to be done.
    pub skip_exit_code: Option<i32>,
    /// Commands have the terminal, and it is their standard input.
    pub tty: bool,
    /// Number of the first slot, as commands see it: workers of one run have no two alike.
    pub first_slot: u32,
    /// Way in which the output of running commands is shown.
    pub live: Live,
}

impl Default for CommandOptions {
    fn default() -> Self {
        Self {
            output_bytes_max: OUTPUT_BYTES_MAX,
            term_seq: TermSeq::default(),
            worker: String::new(),
            skip_exit_code: None,
            tty: false,
            first_slot: 0,
            live: Live::No,
        }
    }
}

impl CommandHandler {
    /// A handler for this command, which [`check_program`](super::check_program) may have
    /// checked: here, one that is missing is each task's failure if it differs from task to task,
    /// else this host's.
    #[must_use]
    pub fn new(template: Template, options: CommandOptions) -> Self {
        let program = template.program().and_then(|program| program::find(program).ok());
        let nothing = File::open("/dev/null").ok().map(Arc::new);
        let has_terminal = File::open("/dev/tty").is_ok();
        let environment = Environment::new(options.worker.clone(), options.first_slot);
        let oom_kills = OomKills::default();
        let (typed, template) = (template.clone(), RwLock::new(Arc::new(template)));
        let is_leaving = AtomicBool::new(false);
        Self {
            typed,
            template,
            program,
            nothing,
            environment,
            has_terminal,
            oom_kills,
            is_leaving,
            options,
        }
    }

    /// Returns the slot of a task as its command sees it.
    fn slot(&self, task: &Task) -> Slot {
        self.environment.slot(task.slot)
    }

    fn template(&self) -> Arc<Template> {
        Arc::clone(&self.template.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn spawn(&self, words: &[Cow<'_, OsStr>], task: &Task) -> io::Result<Supervised> {
        let (word, args) = words.split_first().expect("a template has a command");
        let mut command = match &self.program {
            Some(program) => Command::new(program),
            None => Command::new(word),
        };
        self.environment.set(&mut command, task.slot);
        command
            .arg0(word)
            .args(args)
            .env("TRADEWIND_SEQ", task.seq.to_string())
            .env("TRADEWIND_ATTEMPT", task.attempt.to_string());
        // Before a file is opened: those that wait to start theirs must not hold any.
        let starting = files::starting();
        let is_fed = self.typed.input() == Input::Stdin;
        if !is_fed {
            command.stdin(match &self.nothing {
                _ if self.options.tty => File::open("/dev/tty")?.into(),
                Some(nothing) => nothing.try_clone()?.into(),
                None => Stdio::null(),
            });
        }
        let launch = Launch {
            is_fed,
            is_captured: self.options.live != Live::Raw,
            is_alone: self.options.tty,
            has_terminal: self.has_terminal && !self.options.tty,
            keeps_ends: true,
        };
        Supervised::spawn(command, launch, &starting)
    }

    /// Does not give up at once where trying again may help.
    fn spawn_patiently(
        &self,
        words: &[Cow<'_, OsStr>],
        task: &Task,
        stop: &StopSignal,
    ) -> io::Result<Supervised> {
        let mut delays = RETRY_DELAYS_MS.iter();
        let mut closed_delays = CLOSED_DELAYS_MS.iter();
        loop {
            let error = match self.spawn(words, task) {
                Ok(spawned) => return Ok(spawned),
                Err(error) => error,
            };
            let delay = match Lack::of(&error) {
                Some(Lack::Closed) => closed_delays.next(),
                Some(_) => delays.next(),
                None => None,
            };
            let Some(delay_ms) = delay else { return Err(error) };
            if stop.wait_timeout(Duration::from_millis(*delay_ms)) {
                return Err(error);
            }
        }
    }

    /// Resource that this host lacks, if that is why a command could not be started.
    fn lack(
        &self,
        template: &Template,
        words: &[Cow<'_, OsStr>],
        error: &io::Error,
    ) -> Option<Unstarted> {
        let lack = Lack::of(error).or_else(|| {
            // One that differs from task to task is the task's business.
            template.program()?;
            let is_gone = matches!(
                Errno::from_io_error(error),
                Some(Errno::NOENT | Errno::ACCESS | Errno::PERM | Errno::NOTDIR | Errno::NOEXEC)
            );
            is_gone.then_some(Lack::Command)
        })?;
        Some(Unstarted { lack, reason: explain(words, error) })
    }
}

impl BlockingHandler for CommandHandler {
    fn run(&self, task: &Task, stop: &StopSignal) -> Outcome {
        self.try_run(task, stop)
            .unwrap_or_else(|unstarted| Outcome::error(Status::Failed, unstarted.reason))
    }

    fn try_run(&self, task: &Task, stop: &StopSignal) -> Result<Outcome, Unstarted> {
        let failed = |error: String| Ok(Outcome::error(Status::Failed, error));
        if stop.is_stopped() {
            return failed(STOPPED.to_owned());
        }
        let template = self.template();
        let words = match template.expand(&task.payload, task.seq, self.slot(task)) {
            Ok(words) => words,
            Err(error) => return failed(error.to_string()),
        };
        if words.iter().any(|word| word.as_bytes().contains(&0)) {
            return failed("the task has a NUL byte and cannot be an argument: use --stdin".into());
        }
        let spawned = match self.spawn_patiently(&words, task, stop) {
            Ok(spawned) => spawned,
            Err(error) => {
                return match self.lack(&template, &words, &error) {
                    Some(unstarted) => Err(unstarted),
                    None => failed(explain(&words, &error)),
                };
            }
        };
        let input = template.stdin(&task.payload);
        let limit = self.options.output_bytes_max;
        let care = Care {
            input: &input,
            stdout_bytes_max: usize::try_from(limit).unwrap_or(usize::MAX),
            is_live: self.options.live == Live::Lines,
            term_seq: &self.options.term_seq,
        };
        match run::run(spawned, &care, stop) {
            Ok(ended) if self.has_gone_meanwhile(&ended) => {
                let reason = format!("{:?} has gone while it was being started", words[0]);
                Err(Unstarted { lack: Lack::Command, reason })
            }
            Ok(ended) if self.has_left_with_worker(&ended, stop) => {
                let reason =
                    "the command was ended by the signal that stopped this worker".to_owned();
                Err(Unstarted { lack: Lack::Worker, reason })
            }
            Ok(ended) => {
                if self.options.live == Live::Raw && ended.status.signal() == Some(SIGPIPE) {
                    live::notice_closed();
                }
                Ok(self.outcome(ended))
            }
            Err(error) => failed(format!("failed to supervise the command: {error}")),
        }
    }

    fn set_layout(&self, layout: &Layout) -> Result<(), String> {
        let template = Arc::new(self.typed.for_job(layout)?);
        *self.template.write().unwrap_or_else(PoisonError::into_inner) = template;
        Ok(())
    }

    fn notice_leaving(&self) {
        self.is_leaving.store(true, Ordering::Release);
    }

    fn command(&self, task: &Task) -> Payload {
        // Of a task that lacks a field there is none.
        self.template().quote(&task.payload, task.seq, self.slot(task)).unwrap_or_default().into()
    }
}

impl CommandHandler {
    /// Did an interpreter not find its script any more? The kernel had found it an instant before.
    fn has_gone_meanwhile(&self, ended: &Ended) -> bool {
        let may_be = matches!(exit_of(ended.status), Exit::Code(code) if NOT_FOUND.contains(&code));
        may_be
            && !ended.is_stopped
            && self.program.as_ref().is_some_and(|program| !program.exists())
    }

    /// Did a signal that asks the worker to leave end the command too? A system that shuts down, a
    /// service manager or a batch system sends it to all there is, in any order.
    fn has_left_with_worker(&self, ended: &Ended, stop: &StopSignal) -> bool {
        let signal = match exit_of(ended.status) {
            Exit::Signal(signal) => signal,
            // As shells and others say it that clean up before they go.
            Exit::Code(code) if self.options.skip_exit_code != Some(code) => code - 128,
            Exit::Code(_) | Exit::None => return false,
        };
        let is_ours =
            ended.is_stopped || ended.written.is_exceeded || ended.wanted_terminal.is_some();
        if is_ours || !LEAVING_SIGNALS.contains(&signal) {
            return false;
        }
        let waits_until = Instant::now() + LEAVING_WAIT;
        while !self.is_leaving.load(Ordering::Acquire) {
            if Instant::now() >= waits_until || stop.wait_timeout(LEAVING_LOOK) {
                return false;
            }
        }
        true
    }

    fn outcome(&self, ended: Ended) -> Outcome {
        let CommandOptions { output_bytes_max, skip_exit_code, .. } = self.options;
        let exit = exit_of(ended.status);
        // What was read ahead would otherwise be kept as long as the result.
        let mut stdout = ended.written.stdout;
        stdout.shrink_to_fit();
        let (status, error) = match (exit, ended.wanted_terminal) {
            _ if ended.written.is_exceeded => {
                let reason = format!(
                    "wrote more than {output_bytes_max} bytes to stdout, the limit of --max-output"
                );
                (Status::Failed, reason)
            }
            (_, Some(signal)) => (Status::Failed, terminal_reason(signal).to_owned()),
            // Whatever it made of the signal.
            (Exit::Code(_), None) if ended.is_stopped => (Status::Failed, STOPPED.to_owned()),
            (Exit::Code(code), None) if skip_exit_code == Some(code) => {
                (Status::Skipped, String::new())
            }
            (Exit::Code(0), None) => (Status::Ok, String::new()),
            (Exit::Code(code), None) => (Status::Failed, format!("exit code {code}")),
            (Exit::Signal(signal), None) => (Status::Failed, killed_by(signal)),
            (Exit::None, None) => {
                (Status::Failed, format!("ended with unknown wait status {}", ended.status))
            }
        };
        let is_ours = ended.is_stopped || ended.written.is_exceeded;
        let error = if !is_ours && may_be_oom(exit) && self.oom_kills.take() {
            format!("{error}; {OOM_REASON}")
        } else {
            error
        };
        let stderr = ended.written.stderr.into_bytes().into();
        Outcome { status, exit, output: stdout.into(), stderr, error }
    }
}

/// Why a command could not be started, and what may help.
fn explain(words: &[Cow<'_, OsStr>], error: &io::Error) -> String {
    let word = words[0].as_ref();
    match Errno::from_io_error(error) {
        Some(Errno::TOOBIG) => {
            let longest = words.iter().map(|word| word.len()).max().unwrap_or(0);
            if longest > ARGUMENT_BYTES_MAX {
                format!(
                    "the task is too long for an argument ({longest} bytes, and the kernel takes \
                     {ARGUMENT_BYTES_MAX}): use --stdin"
                )
            } else {
                "the arguments and the environment are too long for the kernel: use --stdin".into()
            }
        }
        Some(Errno::NOEXEC) => {
            format!("failed to start {word:?}: {error} (does a script lack its #! line?)")
        }
        Some(Errno::NOENT | Errno::ACCESS | Errno::NOTDIR) => match program::find(word) {
            Err(reason) => reason.to_string(),
            Ok(_) => format!("failed to start {word:?}: {error} (is its interpreter missing?)"),
        },
        _ => format!("failed to start {word:?}: {error}"),
    }
}

#[cfg(test)]
mod tests;

//! The handler that runs a command for each task.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tradewind_proto::Payload;
use tradewind_proto::limits::{ERROR_BYTES_MAX, OUTPUT_BYTES_MAX};
use tradewind_proto::message::{Exit, Outcome, Status};

use super::process::{Ended, Spawned, supervise};
use super::program;
use super::template::{Input, Template};
use super::{BlockingHandler, STOPPED, StopSignal, Task};

/// What a command that is stopped has, from TERM to KILL, for cleaning up.
pub const STOP_GRACE: Duration = Duration::from_secs(2);

/// The kernel's `MAX_ARG_STRLEN`, less the NUL at the end.
const ARGUMENT_BYTES_MAX: usize = (128 << 10) - 1;

/// Waits before a command is tried again that could not be started for a passing reason.
const RETRY_DELAYS_MS: [u64; 5] = [5, 20, 50, 100, 200];

/// Runs a command for each task, in a process group of its own, with what it writes captured.
#[derive(Clone, Debug)]
pub struct CommandHandler {
    template: Template,
    /// The file to run, found once instead of each time.
    program: Option<PathBuf>,
    /// What commands have for stdin, opened once as well; a system without it says so each time.
    nothing: Option<Arc<File>>,
    options: CommandOptions,
}

/// What there is to choose about running commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandOptions {
    /// A command that writes more to stdout is killed, and its task has failed.
    pub output_bytes_max: u64,
    /// From TERM to KILL, for a command that is stopped.
    pub grace: Duration,
    /// The worker's name: commands see it as `TRADEWIND_WORKER`.
    pub worker: String,
    /// A command that exits with this code has skipped its task: nothing more is to be done.
    pub skip_exit_code: Option<i32>,
}

impl Default for CommandOptions {
    fn default() -> Self {
        Self {
            output_bytes_max: OUTPUT_BYTES_MAX,
            grace: STOP_GRACE,
            worker: String::new(),
            skip_exit_code: None,
        }
    }
}

impl CommandHandler {
    /// A handler for this command, which [`check_program`](super::check_program) may have
    /// checked: here, one that is missing is each task's failure.
    #[must_use]
    pub fn new(template: Template, options: CommandOptions) -> Self {
        let program = template.program().and_then(|program| program::find(program).ok());
        let nothing = File::open("/dev/null").ok().map(Arc::new);
        Self { template, program, nothing, options }
    }

    fn spawn(&self, words: &[Cow<'_, OsStr>], task: &Task) -> io::Result<Spawned> {
        let (word, args) = words.split_first().expect("a template has a command");
        let mut command = match &self.program {
            Some(program) => Command::new(program),
            None => Command::new(word),
        };
        let stdin = match self.template.input() {
            Input::Argument => match &self.nothing {
                Some(nothing) => nothing.try_clone()?.into(),
                None => Stdio::null(),
            },
            Input::Stdin => Stdio::piped(),
        };
        let (stdout, stdout_end) = io::pipe()?;
        let (stderr, stderr_end) = io::pipe()?;
        command
            .arg0(word)
            .args(args)
            .env("TRADEWIND_SEQ", task.seq.to_string())
            .env("TRADEWIND_ATTEMPT", task.attempt.to_string())
            .env("TRADEWIND_WORKER", &self.options.worker)
            // Together with the absence of `pre_exec` this keeps to posix_spawn, which does not
            // copy the worker's page tables.
            .process_group(0)
            .stdin(stdin)
            .stdout(stdout_end)
            .stderr(stderr_end);
        let child = command.spawn()?;
        Ok(Spawned { child, stdout: stdout.into(), stderr: stderr.into(), ends: command })
    }

    /// Does not give up at once where trying again may help.
    fn spawn_patiently(
        &self,
        words: &[Cow<'_, OsStr>],
        task: &Task,
        stop: &StopSignal,
    ) -> io::Result<Spawned> {
        for delay_ms in RETRY_DELAYS_MS {
            match self.spawn(words, task) {
                // At the limit of processes, or the file is still being written.
                Err(error)
                    if matches!(
                        Errno::from_io_error(&error),
                        Some(Errno::AGAIN | Errno::TXTBSY)
                    ) =>
                {
                    stop.wait_timeout(Duration::from_millis(delay_ms));
                }
                result => return result,
            }
        }
        self.spawn(words, task)
    }
}

impl BlockingHandler for CommandHandler {
    fn run(&self, task: &Task, stop: &StopSignal) -> Outcome {
        let failed = |error: String| Outcome::error(Status::Failed, error);
        if stop.is_stopped() {
            return failed(STOPPED.to_owned());
        }
        let words = match self.template.expand(&task.payload, task.seq) {
            Ok(words) => words,
            Err(error) => return failed(error.to_string()),
        };
        if words.iter().any(|word| word.as_bytes().contains(&0)) {
            return failed("the task has a NUL byte and cannot be an argument: use --stdin".into());
        }
        let spawned = match self.spawn_patiently(&words, task, stop) {
            Ok(spawned) => spawned,
            Err(error) => return failed(explain(&words, &error)),
        };
        let input = match self.template.input() {
            Input::Argument => &[],
            Input::Stdin => task.payload.as_ref(),
        };
        let limit = self.options.output_bytes_max;
        let output_bytes_max = usize::try_from(limit).unwrap_or(usize::MAX);
        match supervise(spawned, input, output_bytes_max, self.options.grace, stop) {
            Ok(ended) => outcome(ended, &self.options),
            Err(error) => failed(format!("failed to look after the command: {error}")),
        }
    }

    fn command(&self, task: &Task) -> Payload {
        // Of a task that lacks a field there is none.
        self.template.quote(&task.payload, task.seq).unwrap_or_default().into()
    }
}

fn outcome(ended: Ended, options: &CommandOptions) -> Outcome {
    let CommandOptions { output_bytes_max, skip_exit_code, .. } = *options;
    let exit = exit_of(ended.status);
    // What was read ahead would otherwise be kept as long as the result.
    let mut stdout = ended.stdout;
    stdout.shrink_to_fit();
    let (status, error) = match exit {
        _ if ended.stdout_exceeded => {
            let reason = format!(
                "wrote more than {output_bytes_max} bytes to stdout, the limit of --max-output"
            );
            (Status::Failed, reason)
        }
        Exit::Code(code) if skip_exit_code == Some(code) => (Status::Skipped, String::new()),
        Exit::Code(0) => (Status::Ok, String::new()),
        Exit::Code(code) => {
            let tail = ended.stderr.text(ERROR_BYTES_MAX);
            (Status::Failed, if tail.is_empty() { format!("exit code {code}") } else { tail })
        }
        Exit::Signal(signal) => {
            let mut reason = killed_by(signal);
            let tail = ended.stderr.text(ERROR_BYTES_MAX - reason.len() - 2);
            if !tail.is_empty() {
                reason += ": ";
                reason += &tail;
            }
            (Status::Failed, reason)
        }
        Exit::None => (Status::Failed, format!("ended strangely: {}", ended.status)),
    };
    Outcome { status, exit, output: stdout.into(), stderr: Payload::new(), error }
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

pub(super) fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::None,
    }
}

pub(super) fn killed_by(signal: i32) -> String {
    match signal_name(signal) {
        Some(name) => format!("killed by signal {signal} (SIG{name})"),
        None => format!("killed by signal {signal}"),
    }
}

/// As on x86, ARM and RISC-V; real-time signals have no name.
fn signal_name(signal: i32) -> Option<&'static str> {
    const NAMES: &str = "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM \
                         STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO \
                         PWR SYS";
    NAMES.split(' ').nth(usize::try_from(signal).ok()?.checked_sub(1)?)
}

#[cfg(test)]
mod tests;

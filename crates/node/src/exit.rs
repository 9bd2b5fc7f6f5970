//! Exit codes, the same for every program of Tradewind.

use std::process::ExitCode;

use tradewind_shown::shown;
use tradewind_system::stderr;

use crate::parent;

#[cfg(feature = "cli")]
pub use crate::cli::parse;

/// Every record is `ok`.
pub const OK: u8 = 0;
/// The job is complete, and some records are not `ok`.
pub const TASKS_FAILED: u8 = 1;
/// The command line is wrong (clap's own code).
pub const USAGE: u8 = 2;
/// The input cannot be read.
pub const INPUT: u8 = 3;
/// The output cannot be written.
pub const OUTPUT: u8 = 4;
/// A port cannot be listened on.
pub const LISTEN: u8 = 5;
/// No peer answered within `--connect-timeout`.
pub const CONNECT: u8 = 6;
/// The sink refused the job.
pub const REFUSED: u8 = 7;
/// Another failure of this machine.
pub const SYSTEM: u8 = 8;
/// A handler that is to stay up could not be kept up.
pub const HANDLER: u8 = 9;
/// The dialled peer is of another version or kind, or belongs to another job.
pub const WRONG_PEER: u8 = 10;
/// The job was stopped before its end, by a signal.
pub const STOPPED: u8 = 130;
/// The reader of the output went away, as with `| head`; reported by the code alone, as a program
/// that is ended by SIGPIPE does.
pub const CLOSED: u8 = 141;
/// The command does not exist or cannot be run, as in a shell.
pub const COMMAND: u8 = 127;

/// Error that ends a program, and the exit code.
#[derive(Debug)]
pub struct Fatal {
    /// One of this module's codes.
    pub code: u8,
    /// Failure, place and remedy: one line.
    pub error: anyhow::Error,
}

/// Outcome of a program.
pub type Outcome = Result<u8, Fatal>;

/// Attaches to an error the code with which it ends the program.
pub trait OrExit<T> {
    /// Turns the error into the program's end.
    ///
    /// # Errors
    /// When there was one.
    fn or_exit(self, code: u8) -> Result<T, Fatal>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, code: u8) -> Result<T, Fatal> {
        self.map_err(|error| Fatal { code, error: error.into() })
    }
}

impl Fatal {
    /// Creates a fatal error that is only a text.
    pub fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, error: anyhow::Error::msg(text.into()) }
    }

    /// Returns the outcome of a program that was told to quit at once. If the parent told it, no
    /// line is printed: the parent prints one.
    pub fn quit(text: &str) -> Self {
        Self::new(STOPPED, if parent::speaks_for_us() { "" } else { text })
    }
}

/// Returns the name of the program that the user has started: the parent's, if there is one.
#[must_use]
pub fn speaker(program: &str) -> &str {
    if parent::speaks_for_us() { "tradewind" } else { program }
}

/// Prints a line for the user, as one whole line even when other processes write to the same
/// terminal. Never waits and never fails: a line without a reader is lost. The last lines are
/// written by [`report`], or by [`flush`]. Characters that do not show are escaped: a part of the line
/// may come from a peer, a task or a file.
pub fn say(line: &str) {
    stderr::write(format!("{}\n", shown(line)).into_bytes());
}

/// Names the variable that says that a process beside this one draws a progress bar on the terminal
/// that both write to.
pub const BAR_ENV: &str = "TRADEWIND_BAR";

/// Makes each line from now on remove the progress bar of another process.
pub fn share_with_bar() {
    stderr::share_with_bar();
}

/// Waits until all lines are written, for a second at most: to be called before the process ends in
/// any other way than by [`report`].
pub fn flush() {
    stderr::flush();
}

/// Audience of a role's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// The user, on stderr.
    User,
    /// The program that embeds the role: its stderr is not ours, but it may read our log.
    Program,
}

impl Audience {
    /// Prints or logs a line.
    pub fn say(self, line: &str) {
        match self {
            Self::User => say(line),
            Self::Program => tracing::info!("{line}"),
        }
    }
}

/// Prints the error, if there was one, and returns the exit code.
pub fn report(program: &str, outcome: Outcome) -> ExitCode {
    let code = match outcome {
        Ok(code) => code.into(),
        Err(Fatal { code, error }) => {
            // One line, whatever the causes: they read on after a colon.
            let text = format!("{error:#}");
            if code != CLOSED && !text.is_empty() {
                say(&format!("{}: {text}", speaker(program)));
            }
            code.into()
        }
    };
    flush();
    code
}

/// Table of the codes for `--help`.
pub const HELP: &str = "\
Exit codes:
  0    every record is ok
  1    the job is complete, some records are not ok (0 with --failed-ok)
  2    the command line is wrong
  3    the input cannot be read
  4    the output cannot be written
  5    a port or Unix socket cannot be listened on
  6    no peer answered within --connect-timeout, or an engine is away at the start (0 with --late-ok, if the ventilator never did)
  7    the sink refused the job
  8    something else went wrong on this machine
  9    the command of --pipe keeps ending before it has answered anything
  10   a flag names the wrong port, or a program of another version or with other keys
  127  the command does not exist or cannot be run
  130  the job was stopped by a signal before its end
  141  the reader of the output closed it";

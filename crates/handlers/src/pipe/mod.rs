//! Commands that stay up: a child for each slot, that is given one task after another and writes
//! an answer to each.
//!
//! `codec` knows how tasks and answers are written, `feed` decides everything about a child,
//! `slot` is the thread that owns it, `pipes` all of them together.

mod codec;
mod feed;
mod pace;
mod pipes;
mod slot;
mod stderr;

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use tradewind_proto::Payload;
use tradewind_proto::limits::OUTPUT_BYTES_MAX;

use super::process::Environment;
use super::{ProgramError, TermSeq, program, quote};

pub use codec::{Answer, Answers, WrongAnswer};
pub use pipes::{Pipes, SlotStatus};

/// How tasks and answers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum PipeMode {
    /// A line each
    Lines,
    /// A JSON object a line: seq, attempt and task (or task_base64), and back output (or
    /// output_base64), error or skip
    Json,
    /// Four bytes of length, the highest first, then the bytes
    Frames,
}

/// Options of children that stay up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipeOptions {
    /// How tasks and answers are written.
    pub mode: PipeMode,
    /// An answer with a larger output is none.
    pub output_bytes_max: u64,
    /// From a child's start to its first answer, so much does not count as its task's time.
    pub startup: Duration,
    /// Number of children in a row that may end without an answer and be replaced.
    pub restarts_max: u32,
    /// From the end of its input to TERM.
    pub exit_grace: Duration,
    /// Signals that stop a child.
    pub term_seq: TermSeq,
    /// The worker's name: children see it as `TRADEWIND_WORKER`.
    pub worker: String,
    /// The number that the child of the first slot sees as `TRADEWIND_SLOT`.
    pub first_slot: u32,
}

/// A command that stays up.
#[derive(Clone, Debug)]
pub struct PipeHandler {
    /// The command and its arguments, as they were typed. Not empty.
    words: Vec<OsString>,
    /// The file to run.
    program: PathBuf,
    environment: Environment,
    /// There is a terminal that children may want.
    has_terminal: bool,
    options: PipeOptions,
}

/// Time that a child has at the end to exit by itself. With what comes after it, less than `tradewind
/// run` gives a worker that is told to quit.
pub const EXIT_GRACE: Duration = Duration::from_secs(2);

impl PipeMode {
    /// As it is written on a command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lines => "lines",
            Self::Json => "json",
            Self::Frames => "frames",
        }
    }
}

impl PipeOptions {
    /// The defaults.
    #[must_use]
    pub fn new(mode: PipeMode) -> Self {
        Self {
            mode,
            output_bytes_max: OUTPUT_BYTES_MAX,
            startup: Duration::from_secs(60),
            restarts_max: 5,
            exit_grace: EXIT_GRACE,
            term_seq: TermSeq::default(),
            worker: String::new(),
            first_slot: 0,
        }
    }
}

impl PipeHandler {
    /// A handler for this command, which is looked for.
    ///
    /// # Errors
    ///
    /// If there is no such command, or it cannot be run.
    ///
    /// # Panics
    ///
    /// If not even a command is given.
    pub fn new(words: Vec<OsString>, options: PipeOptions) -> Result<Self, ProgramError> {
        let program = program::find(words.first().expect("a command is given"))?;
        let has_terminal = File::open("/dev/tty").is_ok();
        let environment = Environment::new(options.worker.clone(), options.first_slot);
        Ok(Self { words, program, environment, has_terminal, options })
    }

    fn options(&self) -> &PipeOptions {
        &self.options
    }

    /// The command as a shell would take it.
    fn command(&self) -> Payload {
        quote::line(self.words.iter().map(|word| word.as_bytes())).into()
    }
}

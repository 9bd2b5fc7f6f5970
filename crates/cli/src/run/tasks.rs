//! Input of a run. It is opened once, here: a named pipe has one beginning.

use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal, PipeReader};
use std::num::NonZeroU32;
use std::process::Stdio;

use tradewind_input::{Delimiter, Input, InputPath};
use tradewind_node::exit::{Fatal, INPUT, OrExit, SYSTEM, USAGE, say};
use tradewind_ventilator::args::{InputFormat, input_engine};

use super::RunArgs;
use super::child::arg;
use super::values::{self, Combinations};

/// The tasks of a run, ready to be read.
pub(super) enum Tasks {
    /// URL of an engine, which the ventilator opens.
    Engine(String),
    /// An input that is open.
    Input { file: File, path: InputPath },
    /// Tasks that a thread makes of values.
    Values(PipeReader),
}

impl Tasks {
    /// Opens the input, unless there are values.
    pub(super) fn open(
        values: Option<Combinations>,
        path: &InputPath,
        is_quiet: bool,
    ) -> Result<Self, Fatal> {
        match values {
            Some(values) => Ok(Self::Values(values.reader().or_exit(SYSTEM)?)),
            None if input_engine(path)?.is_some() => {
                Ok(Self::Engine(path.as_os_str().to_string_lossy().into_owned()))
            }
            None => {
                let file = tradewind_input::open_file(path).or_exit(INPUT)?;
                if file.is_terminal() && !is_quiet {
                    say("reading tasks from the terminal, one a line; Ctrl-D ends them");
                }
                Ok(Self::Input { file, path: path.clone() })
            }
        }
    }

    /// The flags of the ventilator, which finds them at its standard input.
    pub(super) fn args(&self) -> Vec<OsString> {
        match self {
            Self::Input { path: InputPath::File(path), .. } => arg("--input-name", path),
            Self::Input { path: InputPath::Stdin, .. } | Self::Values(_) | Self::Engine(_) => {
                Vec::new()
            }
        }
    }

    /// Variables for the ventilator: others see flags, and a URL may have a password.
    pub(super) fn env(&self) -> Vec<(String, String)> {
        match self {
            Self::Engine(url) => vec![("TRADEWIND_INPUT".to_owned(), url.clone())],
            Self::Input { .. } | Self::Values(_) => Vec::new(),
        }
    }
}

impl From<Tasks> for Stdio {
    fn from(tasks: Tasks) -> Self {
        match tasks {
            Tasks::Engine(_) => Self::null(),
            Tasks::Input { file, .. } => file.into(),
            Tasks::Values(pipe) => pipe.into(),
        }
    }
}

impl TryFrom<Tasks> for Input {
    type Error = Fatal;

    fn try_from(tasks: Tasks) -> Result<Self, Fatal> {
        match tasks {
            Tasks::Engine(_) => {
                Err(Fatal::new(USAGE, "--dry-run is for files, and the input is an engine's"))
            }
            Tasks::Input { file, path } => Input::new(file, path).or_exit(INPUT),
            Tasks::Values(pipe) => {
                Ok(Input { reader: Box::new(pipe), path: InputPath::Stdin, bytes: None })
            }
        }
    }
}

impl RunArgs {
    /// Takes the values of `:::` and `::::` out of the command. They come to the ventilator one
    /// after another, as if `find -print0` had written them, and several make a task.
    pub(super) fn take_values(&mut self) -> Result<Option<Combinations>, Fatal> {
        let command = std::mem::take(&mut self.handler.command);
        let (command, values) = values::split(command).or_exit(USAGE)?;
        self.handler.command = command;
        let Some(values) = values else { return Ok(None) };
        self.values_from = values.files();
        let refuse = |flag: &str| {
            let text = format!("values after ::: are the tasks, and so is {flag}: use one of them");
            Err(Fatal::new(USAGE, text))
        };
        if self.input() != InputPath::Stdin {
            return refuse("--input");
        }
        if self.format.input_format != InputFormat::Lines {
            return refuse("--input-format");
        }
        if self.format.header.is_some() {
            return refuse("--header");
        }
        let sources = values.sources();
        if sources > 1 && (self.format.group().is_some() || self.handler.colsep.is_some()) {
            let text =
                "-n (--max-args), -X (--xargs) and --colsep make tasks of the values of one :::";
            return Err(Fatal::new(USAGE, text));
        }
        if sources > 1 {
            let sources = u32::try_from(sources).unwrap_or(u32::MAX);
            self.format.max_args = NonZeroU32::new(sources);
        }
        if let Some(path) = values.only_file() {
            // Its lines are the input, and {1} is the line.
            self.input = Some(path.clone());
            if self.format.group().is_none() && self.handler.colsep.is_none() {
                self.format.max_args = Some(NonZeroU32::MIN);
            }
            return Ok(None);
        }
        let delimiter = if self.null { Delimiter::Nul } else { Delimiter::Newline };
        self.null = true;
        values.read(delimiter).or_exit(INPUT).map(Some)
    }
}

//! `tradewind completions` and `tradewind man`: what `--help` knows, for shells and for `man`.

use std::fmt;
use std::fs::create_dir_all;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Command, CommandFactory, ValueEnum};
use clap_complete::{Shell, generate};
use clap_mangen::Man;
use tradewind_node::exit::{CLOSED, OK, OUTPUT, OrExit, Outcome};
use tradewind_node::version;
use tradewind_relay::RelayArgs;
use tradewind_serve::{SinkProgram, VentilatorProgram};
use tradewind_worker::WorkerArgs;

use crate::Cli;

const EXAMPLES: &str = "\
Examples:
  tradewind completions bash > ~/.local/share/bash-completion/completions/tradewind
  tradewind completions zsh > ~/.zfunc/_tradewind      # a folder of fpath
  tradewind completions fish > ~/.config/fish/completions/tradewind.fish
  tradewind completions bash worker > ~/.local/share/bash-completion/completions/worker";

/// Print what a shell needs to complete flags and subcommands
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// The shell that reads it
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,

    /// The program whose command lines it completes
    #[arg(value_name = "PROGRAM", value_enum, default_value_t = Program::Tradewind)]
    program: Program,
}

/// Write the man pages of all programs and subcommands into a directory
///
/// They are `tradewind.1`, `tradewind-run.1` and so on, and those of `ventilator`, `worker`, `relay` and `sink`.
/// `man -l FILE` shows one; those below `~/.local/share/man/man1` are found by their names.
#[derive(Args, Clone, Debug)]
pub(crate) struct ManArgs {
    /// Directory of the pages, made if it is not there
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Program {
    Tradewind,
    Ventilator,
    Worker,
    Relay,
    Sink,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Tradewind => "tradewind",
            Self::Ventilator => "ventilator",
            Self::Worker => "worker",
            Self::Relay => "relay",
            Self::Sink => "sink",
        }
    }

    fn command(self) -> Command {
        let role = Command::new(self.name()).version(version());
        let command = match self {
            Self::Tradewind => Cli::command(),
            Self::Ventilator => VentilatorProgram::augment_args(role),
            Self::Worker => WorkerArgs::augment_args(role),
            Self::Relay => RelayArgs::augment_args(role),
            Self::Sink => SinkProgram::augment_args(role),
        };
        command.disable_help_subcommand(true)
    }
}

impl CompletionsArgs {
    pub(crate) fn main(self) -> Outcome {
        let mut script = Vec::new();
        generate(self.shell, &mut self.program.command(), self.program.name(), &mut script);
        match io::stdout().write_all(&script) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(CLOSED),
            written => written.map(|()| OK).or_exit(OUTPUT),
        }
    }
}

impl ManArgs {
    pub(crate) fn main(self) -> Outcome {
        self.write().map(|()| OK).or_exit(OUTPUT)
    }

    fn write(&self) -> anyhow::Result<()> {
        create_dir_all(&self.dir)
            .with_context(|| format!("failed to make {}", self.dir.display()))?;
        for program in Program::value_variants() {
            let mut command = program.command();
            // Gives subcommands the names under which they are typed.
            command.build();
            write_pages(&command, program.name(), &self.dir)?;
        }
        Ok(())
    }
}

/// Writes the page of a command, and of all below it.
fn write_pages(command: &Command, name: &str, dir: &Path) -> anyhow::Result<()> {
    let mut page = Vec::new();
    let man = Man::new(command.clone()).title(name).source(format!("tradewind {}", version()));
    let path = dir.join(format!("{name}.1"));
    man.render(&mut page)
        .and_then(|()| std::fs::write(&path, &page))
        .with_context(|| format!("failed to write {}", path.display()))?;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_pages(below, &format!("{name}-{}", below.get_name()), dir)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_shell_completes_the_flags_of_each_program() {
        for shell in Shell::value_variants() {
            for program in Program::value_variants() {
                let mut script = Vec::new();
                generate(*shell, &mut program.command(), program.name(), &mut script);
                let script = String::from_utf8(script).expect("text");
                let flag = match program {
                    Program::Tradewind => "retry-failed",
                    Program::Ventilator => "input-format",
                    Program::Worker => "exit-when-idle",
                    Program::Relay => "receipts",
                    Program::Sink => "fsync",
                };
                assert!(script.contains(flag), "{shell}, {program}: no {flag}");
            }
        }
    }

    #[test]
    fn each_command_has_a_page_under_the_name_that_is_typed() {
        fn names(command: &Command, name: &str, into: &mut BTreeSet<String>) {
            into.insert(format!("{name}.1"));
            for below in command.get_subcommands() {
                names(below, &format!("{name}-{}", below.get_name()), into);
            }
        }
        let dir = tempfile::tempdir().expect("a directory");
        let pages = ManArgs { dir: dir.path().join("man1") };
        pages.write().expect("pages");
        let written: BTreeSet<String> = std::fs::read_dir(&pages.dir)
            .expect("the directory")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .collect();
        let mut wanted = BTreeSet::new();
        for program in Program::value_variants() {
            names(&program.command(), program.name(), &mut wanted);
        }
        assert_eq!(written, wanted);
        let page = std::fs::read_to_string(pages.dir.join("tradewind-queue-add.1")).expect("it");
        assert!(page.contains(r"tradewind queue add"), "{page}");
        assert!(page.contains(r"max\-running"), "{page}");
    }
}

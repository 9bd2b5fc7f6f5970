//! Liars against the real programs, during jobs: whatever they say, the honest records are complete and
//! right, nobody dies, and nothing grows without bound.
//!
//! A liar speaks the protocol by the codec and the keys that the programs have, but below the lanes and the
//! machines: it shows any card at any port, and says any message or any bytes. All of it happens on loopback,
//! with bounded loads.

mod peer;
mod ring;
mod scenarios;
mod stage;
mod suite;

use std::io;
use std::process::ExitCode;

use clap::Parser;

use crate::suite::Verdict;

/// Play hostile peers, tasks, files and users against the real programs
#[derive(Debug, Parser)]
#[command(version, after_help = "Example: hostile impostors fake-sink")]
struct Args {
    /// Groups or scenarios to play [default: all]
    names: Vec<String>,

    /// List the scenarios, the ways in which each is played, and the outcome that is required
    #[arg(long)]
    list: bool,
}

fn main() -> io::Result<ExitCode> {
    let Args { names, list } = Args::parse();
    if list {
        suite::list(scenarios::GROUPS)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(name) = names.iter().find(|name| !suite::is_known(scenarios::GROUPS, name)) {
        eprintln!("hostile: no scenario and no group is called {name:?}; --list shows them");
        return Ok(ExitCode::from(2));
    }
    let counts = suite::play(scenarios::GROUPS, scenarios::NOT_YET, &names)?;
    let has_failed = counts.contains_key(&Verdict::Failed);
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

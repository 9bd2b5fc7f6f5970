//! What the command line says.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::role::Role;

/// Measures Tradewind and its peers in turn, on the same work. `scripts/bench` builds and installs
/// what it takes, and then starts this.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Args {
    /// Less work and fewer rounds.
    #[arg(long)]
    pub(crate) quick: bool,
    /// How often each is measured [default: 5, quick 3].
    #[arg(long)]
    pub(crate) rounds: Option<usize>,
    /// These workloads alone.
    #[arg(long, value_name = "LETTERS", value_delimiter = ',')]
    pub(crate) only: Vec<char>,
    /// Instead, Tradewind's throughput and memory as tasks, their size and workers grow.
    #[arg(long, conflicts_with = "only")]
    pub(crate) growth: bool,
    /// Where the table, the numbers and the pictures go.
    #[arg(long, value_name = "DIR", default_value = "target/bench/results")]
    pub(crate) out: PathBuf,
    /// The compiled peers/pipeline.c.
    #[arg(long, value_name = "FILE")]
    pub(crate) pipeline: Option<PathBuf>,
    /// A Python that has Celery and Dask.
    #[arg(long, value_name = "FILE")]
    pub(crate) python: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Takes part in a measurement.
    #[command(subcommand, hide = true)]
    Role(Role),
}

const ROUNDS: usize = 5;
const ROUNDS_QUICK: usize = 3;

impl Args {
    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { ROUNDS_QUICK } else { ROUNDS }).max(1)
    }
}

//! Command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::role::Role;

/// Measure Tradewind and its peers in turn, on the same work. `scripts/bench` builds and installs
/// the programs, and then starts this one.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Args {
    /// Do less work in fewer rounds.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Number of rounds [default: 5, quick 3].
    #[arg(long)]
    pub(crate) rounds: Option<usize>,
    /// Measure only these workloads.
    #[arg(long, value_name = "LETTERS", value_delimiter = ',')]
    pub(crate) only: Vec<char>,
    /// Measure only Tradewind's throughput and memory as tasks, their size and workers grow.
    #[arg(long, conflicts_with = "only")]
    pub(crate) growth: bool,
    /// Directory for the table, the numbers and the pictures.
    #[arg(long, value_name = "DIR", default_value = "target/bench/results")]
    pub(crate) out: PathBuf,
    /// Path of the compiled peers/pipeline.c.
    #[arg(long, value_name = "FILE")]
    pub(crate) pipeline: Option<PathBuf>,
    /// Path of a Python that has Celery and Dask.
    #[arg(long, value_name = "FILE")]
    pub(crate) python: Option<PathBuf>,
    /// Path of a nats-server that can sync each message (2.10 or later).
    #[arg(long, value_name = "FILE")]
    pub(crate) nats: Option<PathBuf>,
    /// Put the tables into this file as well, between its lines `<!-- measured -->` and
    /// `<!-- end -->`.
    #[arg(long, value_name = "FILE", conflicts_with = "growth")]
    pub(crate) book: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Take part in a measurement.
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

//! What this program is when it takes part in a measurement itself, as a peer or for one.

mod beanstalk;
mod pipeline;

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use clap::Subcommand;

/// `bench role ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// A bare pipeline's: deals lines to workers, once so many are there.
    Ventilator { tasks: String, input: PathBuf, workers: usize },
    /// A bare pipeline's: sends on what comes, until it is killed.
    Worker { tasks: String, results: String },
    /// A bare pipeline's: writes so many results; 0 is no end.
    Sink { results: String, count: u64, output: PathBuf },
    /// beanstalkd's: puts lines into it.
    Producer { address: String, input: PathBuf },
    /// beanstalkd's: puts what it takes into another tube, until it is killed.
    TubeWorker { address: String, slower: Option<f64> },
    /// beanstalkd's: writes so many results.
    Consumer { address: String, count: usize, output: PathBuf },
    /// Waits so many times the seconds that the task says.
    Nap { slower: f64, seconds: f64 },
}

pub(crate) fn run(role: Role) -> Result<()> {
    match role {
        Role::Ventilator { tasks, input, workers } => pipeline::ventilator(&tasks, &input, workers),
        Role::Worker { tasks, results } => pipeline::worker(&tasks, &results),
        Role::Sink { results, count, output } => pipeline::sink(&results, count, &output),
        Role::Producer { address, input } => beanstalk::producer(&address, &input),
        Role::TubeWorker { address, slower } => beanstalk::worker(&address, slower),
        Role::Consumer { address, count, output } => beanstalk::consumer(&address, count, &output),
        Role::Nap { slower, seconds } => {
            thread::sleep(Duration::from_secs_f64(slower * seconds));
            Ok(())
        }
    }
}

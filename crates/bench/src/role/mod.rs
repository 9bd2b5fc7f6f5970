//! Roles in which this program takes part in a measurement itself, as a peer or for one.

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
    /// Of a bare pipeline: send lines to workers, once this number of them has connected.
    Ventilator { tasks: String, input: PathBuf, workers: usize },
    /// Of a bare pipeline: forward each task as its result, until killed.
    Worker { tasks: String, results: String },
    /// Of a bare pipeline: write this number of results; 0 is no end.
    Sink { results: String, count: u64, output: PathBuf },
    /// Of beanstalkd: put lines into it.
    Producer { address: String, input: PathBuf },
    /// Of beanstalkd: put each job into another tube, until killed.
    TubeWorker { address: String, slower: Option<f64> },
    /// Of beanstalkd: write this number of results.
    Consumer { address: String, count: usize, output: PathBuf },
    /// Sleep the seconds in the task times this factor.
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

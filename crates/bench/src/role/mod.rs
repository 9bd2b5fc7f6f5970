//! Roles in which this program takes part in a measurement itself, as a peer or for one.

pub(crate) mod beanstalk;
pub(crate) mod nats;
mod pipeline;
mod plain;
mod queue;
pub(crate) mod redis;

use std::future::Future;
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
    TubeWorker {
        address: String,
        slower: Option<f64>,
        /// Hold only one task at a time.
        #[arg(long)]
        single: bool,
    },
    /// Of beanstalkd: write this number of results.
    Consumer { address: String, count: usize, output: PathBuf },
    /// Of `tradewind serve`: submit lines.
    Submitter { url: String, queue: String, input: PathBuf },
    /// Of `tradewind serve`: write the outputs of this number of records after a position.
    Reader { url: String, queue: String, count: usize, output: PathBuf, after: Option<u64> },
    /// Of NATS: make streams of tasks and results.
    NatsSetUp { address: String },
    /// Of NATS: publish lines.
    NatsProducer { address: String, input: PathBuf },
    /// Of NATS: publish each task as its result, until killed.
    NatsWorker { address: String },
    /// Of NATS: write this number of results.
    NatsConsumer { address: String, count: usize, output: PathBuf },
    /// Of Redis: put lines into a list.
    RedisProducer { address: String, input: PathBuf },
    /// Of Redis: move each task to another list, until killed.
    RedisWorker { address: String },
    /// Of Redis: write this number of results.
    RedisConsumer { address: String, count: usize, output: PathBuf },
    /// Take part as an engine's own client.
    #[command(subcommand)]
    Plain(plain::Plain),
    /// Sleep the seconds in the task times this factor.
    Nap { slower: f64, seconds: f64 },
}

pub(crate) fn run(role: Role) -> Result<()> {
    match role {
        Role::Ventilator { tasks, input, workers } => pipeline::ventilator(&tasks, &input, workers),
        Role::Worker { tasks, results } => pipeline::worker(&tasks, &results),
        Role::Sink { results, count, output } => pipeline::sink(&results, count, &output),
        Role::Producer { address, input } => beanstalk::producer(&address, &input),
        Role::TubeWorker { address, slower, single } => {
            // One that sleeps holds no tasks beside the one that it runs: others could run them.
            let batch = if single || slower.is_some() { 1 } else { beanstalk::BATCH };
            beanstalk::worker(&address, batch, slower)
        }
        Role::Consumer { address, count, output } => beanstalk::consumer(&address, count, &output),
        Role::Submitter { url, queue, input } => queue::submit(&url, &queue, &input),
        Role::Reader { url, queue, after, count, output } => {
            queue::read(&url, &queue, after, count, &output)
        }
        Role::NatsSetUp { address } => nats::set_up(&address),
        Role::NatsProducer { address, input } => nats::producer(&address, &input),
        Role::NatsWorker { address } => nats::worker(&address),
        Role::NatsConsumer { address, count, output } => nats::consumer(&address, count, &output),
        Role::RedisProducer { address, input } => redis::producer(&address, &input),
        Role::RedisWorker { address } => redis::worker(&address),
        Role::RedisConsumer { address, count, output } => redis::consumer(&address, count, &output),
        Role::Plain(plain) => plain::run(plain),
        Role::Nap { slower, seconds } => {
            thread::sleep(Duration::from_secs_f64(slower * seconds));
            Ok(())
        }
    }
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

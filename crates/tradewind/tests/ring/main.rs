//! The library from outside: whole rings in this process, over loopback, on ports that are free.

mod ends;
mod handlers;
mod heartbeats;
mod local;
mod pace;
mod signals;

use std::thread::{self, JoinHandle};
use std::time::Duration;

use tradewind::{Error, JobOptions, JobSummary, Record, Sink, Ventilator, Worker};

const ANY_PORT: &str = "tcp://127.0.0.1:0";

/// No test waits longer for a peer that should be there.
const PATIENCE: Duration = Duration::from_secs(60);

/// Three that know of one another. Nothing runs yet.
fn ring(options: JobOptions) -> (Ventilator, Worker, Sink) {
    let sink = Sink::listen(ANY_PORT).unwrap().insecure(true).connect_timeout(PATIENCE);
    let ventilator = Ventilator::listen(ANY_PORT, ANY_PORT)
        .unwrap()
        .insecure(true)
        .sink(&sink.results_endpoint())
        .unwrap()
        .options(options)
        .connect_timeout(PATIENCE);
    let worker = worker(&ventilator, &sink);
    let sink = sink.ventilator(&ventilator.receipts_endpoint()).unwrap();
    (ventilator, worker, sink)
}

fn worker(ventilator: &Ventilator, sink: &Sink) -> Worker {
    Worker::connect(&ventilator.tasks_endpoint(), &sink.results_endpoint())
        .unwrap()
        .insecure(true)
        .name("w")
        .slots(4)
        .exit_when_done(true)
        .connect_timeout(PATIENCE)
        .signals(false)
}

type Job = JoinHandle<Result<JobSummary, Error>>;

/// Starts a job, and a worker that is given to `work`.
fn start<T: Into<bytes::Bytes> + Send + 'static>(
    (ventilator, worker): (Ventilator, Worker),
    tasks: impl IntoIterator<Item = T, IntoIter: Send> + Send + 'static,
    work: impl FnOnce(Worker) -> Result<(), Error> + Send + 'static,
) -> (Job, JoinHandle<Result<(), Error>>) {
    (thread::spawn(move || ventilator.run(tasks)), thread::spawn(move || work(worker)))
}

/// Runs a job to its good end, and gives all of its records.
fn run<T: Into<bytes::Bytes> + Send + 'static>(
    options: JobOptions,
    tasks: impl IntoIterator<Item = T, IntoIter: Send> + Send + 'static,
    work: impl FnOnce(Worker) -> Result<(), Error> + Send + 'static,
) -> (JobSummary, Vec<Record>) {
    let (ventilator, worker, sink) = ring(options);
    let (job, worker) = start((ventilator, worker), tasks, work);
    let records = sink.records().unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    worker.join().unwrap().unwrap();
    (job.join().unwrap().unwrap(), records)
}

/// Passes the time in which something must not happen that could by then.
fn another_job() {
    let same = tradewind::map(0..5_000, 4, Ok::<i32, String>).unwrap();
    assert!(same.map(Result::unwrap).eq(0..5_000));
}

/// Status, output and error of each record.
fn brief(records: &[Record]) -> Vec<(&str, &str, &str)> {
    assert!(records.iter().map(|record| record.seq).eq(0..records.len() as u64));
    records
        .iter()
        .map(|Record { status, output, error, .. }| {
            (status.as_str(), std::str::from_utf8(output).unwrap(), error.as_str())
        })
        .collect()
}

//! All three in one program: counts the words of files, and prints the counts in the order of the
//! names. Ctrl-C ends it with what it has begun.
//!
//! ```text
//! cargo run --release -p tradewind --example words -- README.md ARCHITECTURE.md
//! ```

use std::io::Write;
use std::thread;

use tradewind::{Error, JobOptions, Sink, Ventilator, Worker};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let names: Vec<String> = std::env::args().skip(1).collect();

    // Unix sockets, which need no keys; workers could join from anywhere if these were tcp://.
    let at = |port: &str| format!("ipc://@words-{}-{port}", std::process::id());
    let sink = Sink::listen(&at("results"))?;
    let ventilator = Ventilator::listen(&at("tasks"), &at("receipts"))?
        .sink(&sink.results_endpoint())?
        .options(JobOptions::new().name("words"))
        .signals(true);
    let worker = Worker::connect(&ventilator.tasks_endpoint(), &sink.results_endpoint())?
        .exit_when_done(true)
        .signals(false);
    let sink = sink.ventilator(&ventilator.receipts_endpoint())?;

    let tasks = names.clone();
    let ventilator = thread::spawn(move || ventilator.run(tasks));
    let worker = thread::spawn(move || worker.run(|name, _| count(name)));

    let mut out = std::io::stdout().lock();
    for record in sink.records()? {
        let record = record?;
        let name = &names[usize::try_from(record.seq)?];
        match record.json::<usize>() {
            Ok(words) => writeln!(out, "{words:8} {name}")?,
            Err(error) => writeln!(out, "       - {name}: {error}")?,
        }
    }
    worker.join().expect("it does not panic")?;
    match ventilator.join().expect("it does not panic") {
        Ok(_) | Err(Error::Stopped) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn count(name: &[u8]) -> Result<String, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string(std::str::from_utf8(name)?)?;
    Ok(text.split_whitespace().count().to_string())
}

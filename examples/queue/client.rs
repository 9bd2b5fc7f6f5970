//! Submits each argument after the queue's name as a task, and prints the tasks' outputs in the same order.
//!
//! ```text
//! cargo run --example queue-client -- thumbs https://example.net/1.jpg https://example.net/2.jpg
//! ```
//!
//! A task's key is the task itself, so that the same command again makes no task twice.

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::time::Duration;

use tradewind::blocking::Client;
use tradewind::queues::{Batch, NewTask};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let queue = args.next().ok_or("which queue?")?;
    let tasks: Result<Batch, _> = args.map(|task| NewTask::new(task.clone()).key(task)).collect();
    let client = Client::from_env()?;
    for submitted in client.submit_batch(&queue, tasks?)? {
        let Some(record) = client.result(&submitted.id, Duration::MAX)? else { continue };
        io::stdout().write_all(&record.output().unwrap_or_default())?;
        eprintln!("{}: {}", record.id, record.status.as_str());
    }
    Ok(())
}

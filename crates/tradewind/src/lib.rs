//! Rust programs that take part in a Tradewind job: as its workers, as its ventilator, as its sink,
//! or as all three.
//!
//! # A worker
//!
//! A closure for each task, on as many threads as there are slots:
//!
//! ```no_run
//! use tradewind::Worker;
//!
//! # fn main() -> Result<(), tradewind::Error> {
//! Worker::connect("tcp://vent-host:5557", "tcp://sink-host:5558")?
//!     .name("shouter")
//!     .slots(4)
//!     .run(|task, _| Ok::<_, String>(task.to_ascii_uppercase()))
//! # }
//! ```
//!
//! Its return value is the task's output, an error is the task's failure, a panic is one too, and
//! [`Reply::Skip`] ends the task without either. With values instead of bytes, as JSON or by any
//! other [`Codec`]:
//!
//! ```no_run
//! use serde::{Deserialize, Serialize};
//! use tradewind::{Json, Reply, Worker};
//!
//! #[derive(Deserialize)]
//! struct Order {
//!     item: String,
//!     count: u32,
//!     price: f64,
//! }
//!
//! #[derive(Serialize)]
//! struct Total {
//!     item: String,
//!     total: f64,
//! }
//!
//! # fn main() -> Result<(), tradewind::Error> {
//! Worker::connect("tcp://vent-host:5557", "tcp://sink-host:5558")?
//!     .typed(Json::<Order, Total>::new())
//!     .run(|order, _| {
//!         if order.count == 0 {
//!             return Ok(Reply::Skip);
//!         }
//!         let total = f64::from(order.count) * order.price;
//!         if total < 0.0 {
//!             return Err(format!("the price of {} is below 0", order.item));
//!         }
//!         Ok(Total { item: order.item, total }.into())
//!     })
//! # }
//! ```
//!
//! And as futures, a thousand at once, with all of tokio to be used:
//!
//! ```no_run
//! use tokio::io::AsyncReadExt;
//! use tokio::net::TcpStream;
//! use tradewind::Worker;
//!
//! async fn banner(address: String) -> std::io::Result<Vec<u8>> {
//!     let mut banner = Vec::new();
//!     TcpStream::connect(address).await?.take(100).read_to_end(&mut banner).await?;
//!     Ok(banner)
//! }
//!
//! # fn main() -> Result<(), tradewind::Error> {
//! Worker::connect("tcp://vent-host:5557", "tcp://sink-host:5558")?
//!     .slots(1000)
//!     .run_async(|task, _| banner(String::from_utf8_lossy(&task).into_owned()))
//! # }
//! ```
//!
//! A task may run for a week; nothing has to be sent meanwhile. SIGTERM drains a worker, and so
//! does its [`Handle`].
//!
//! # A ventilator and a sink
//!
//! A program that has the tasks, and wants the results, needs no command line and no files. This
//! one embeds all three; the worker might as well be a hundred, anywhere.
//!
//! ```
//! use std::thread;
//! use tradewind::{JobOptions, Sink, Ventilator, Worker};
//!
//! # fn main() -> Result<(), tradewind::Error> {
//! // Unix sockets without a file; tcp://0.0.0.0:5558 and so on are for other machines, and need keys.
//! let at = |port: &str| format!("ipc://@lengths-{}-{port}", std::process::id());
//! let sink = Sink::listen(&at("results"))?;
//! let ventilator = Ventilator::listen(&at("tasks"), &at("receipts"))?
//!     .sink(&sink.results_endpoint())?
//!     .options(JobOptions::new().name("lengths").retries(2));
//! let worker = Worker::connect(&ventilator.tasks_endpoint(), &sink.results_endpoint())?
//!     .exit_when_done(true)
//!     .signals(false);
//! let sink = sink.ventilator(&ventilator.receipts_endpoint())?;
//!
//! let words = ["doldrums", "trade", "westerlies"];
//! let ventilator = thread::spawn(move || ventilator.run(words));
//! let worker = thread::spawn(move || {
//!     worker.run(|word, _| Ok::<_, String>(word.len().to_string()))
//! });
//!
//! let mut lengths = Vec::new();
//! for record in sink.records()? {
//!     lengths.push(record?.json::<usize>()?);
//! }
//! assert_eq!(lengths, [8, 5, 10]);
//!
//! let summary = ventilator.join().expect("it does not panic")?;
//! assert_eq!((summary.tasks, summary.failed), (3, 0));
//! worker.join().expect("it does not panic")?;
//! # Ok(())
//! # }
//! ```
//!
//! The promise is the programs': one record for each task, in order unless told otherwise, whatever
//! dies on the way. [`Sink`] says what dies with a program that takes records. Tasks are taken from
//! an iterator ([`Ventilator::run`]) or a stream ([`Ventilator::run_stream`]) only as there is
//! room, and records are waited for until they are taken, so that whichever is slowest sets the
//! pace and memory is bounded.
//!
//! Where all of it is to happen in this process there is [`map`].
//!
//! # Queues
//!
//! A queue of `tradewind serve` stays open: any program submits tasks to it, and takes their records by id or as
//! a stream. A task that is submitted again under its key is the same task.
//!
//! ```no_run
//! use std::time::Duration;
//! use tradewind::blocking;
//! use tradewind::queues::NewTask;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = blocking::Client::connect("http://127.0.0.1:5560")?;
//! let task = NewTask::new("https://example.net/1.jpg").key("1.jpg")?;
//! let submitted = client.submit("thumbs", task)?;
//! if let Some(record) = client.result(&submitted.id, Duration::from_secs(60))? {
//!     println!("{}: {:?}", record.status.as_str(), record.output());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! And as futures, with records as they are stored, whether the server is started again meanwhile or not:
//!
//! ```no_run
//! use futures::TryStreamExt;
//! use tradewind::Client;
//! use tradewind::queues::Wanted;
//!
//! # async fn run() -> Result<(), tradewind::queues::Error> {
//! let client = Client::from_env()?;
//! let wanted = Wanted::default().consumer("billing")?.follow();
//! let mut records = client.records("thumbs", wanted)?;
//! while let Some(record) = records.try_next().await? {
//!     println!("{}", record.json());
//!     client.set_consumer("thumbs", "billing", Some(record.position)).await?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Keys
//!
//! Over TCP a worker, a ventilator and a sink use the keys that `tradewind keys` makes, and find them as the
//! programs do; each has `keys` and `insecure`. A ventilator or a sink that is to listen on TCP without keys is
//! refused. A client of queues uses them for `https`.

mod codec;
mod context;
mod error;
mod feed;
mod handle;
mod listening;
mod map;
mod record;
mod reply;
mod sink;
mod taking;
mod ventilator;
mod worker;

/// Queues that stay open, and their clients: names, settings, tasks, records and errors.
pub use tradewind_client as queues;
pub use tradewind_client::{Client, blocking};

pub use codec::{Codec, Json};
pub use context::{AsyncContext, Context};
pub use error::{Error, TaskError};
pub use handle::Handle;
pub use map::{Mapped, map};
pub use record::Record;
pub use reply::Reply;
pub use sink::{RecordStream, Records, Sink};
pub use tradewind_lanes::{BindError, EndpointError};
pub use tradewind_proto::dispatcher::Halt;
pub use tradewind_proto::message::{Exit, Status};
pub use ventilator::{JobOptions, JobSummary, Ventilator};
pub use worker::{TypedWorker, Worker};

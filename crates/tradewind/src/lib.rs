//! A Rust program as a Tradewind worker.
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
//! What it returns is the task's output, an error is the task's failure, a panic is one too, and
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

mod codec;
mod context;
mod error;
mod handle;
mod reply;
mod worker;

pub use codec::{Codec, Json};
pub use context::{AsyncContext, Context};
pub use error::{Error, TaskError};
pub use handle::Handle;
pub use reply::Reply;
pub use tradewind_lanes::{BindError, EndpointError};
pub use tradewind_proto::message::Status;
pub use worker::{TypedWorker, Worker};

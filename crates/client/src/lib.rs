//! A client of queues: tasks in, records out, over HTTP.
//!
//! Without files, flags and a store. It keeps a few connections, and of a queue nothing but a position. A
//! request whose answer is lost is sent again if that cannot make a second task: all are, but a submit or a
//! retry without a key.
//!
//! | module | |
//! | --- | --- |
//! | `client` | what can be asked, a method each |
//! | `records` | records as a stream that survives the server |
//! | `exchange` | one request and its answer, sent again or not |
//! | `pool`, `dial`, `tls` | connections |
//! | `answer`, `task`, `problem` | bytes to values and back: without I/O |
//! | [`blocking`] | the same without `async` |

mod address;
mod answer;
pub mod blocking;
mod client;
mod dial;
mod error;
mod exchange;
mod options;
mod pool;
mod problem;
mod records;
mod task;
mod tls;

pub use address::{AddressError, DEFAULT_URL, URL_ENV};
pub use answer::{QueueState, Record, Submitted, TaskState};
pub use client::Client;
pub use error::{Error, Unreachable};
pub use options::{Options, TOKEN_ENV};
pub use problem::{Problem, ProblemKind};
pub use records::{Records, Wanted};
pub use task::{Batch, NewTask};
pub use tls::PROTOCOL;
pub use tradewind_proto::message::Status;
pub use tradewind_queue::{
    Change, ConsumerName, Fsync, Keep, Kept, KeptAsk, NameError, QueueName, SettingError, Settings,
    SettingsPatch, TaskId, TaskKey, Unique,
};

//! The HTTP face of queues: requests in, answers out, over the trait [`Queues`].
//!
//! It knows no store and no machine, and keeps nothing between two requests. What stands in a request is
//! parsed here, once; the [`Queues`] are given names, tasks and settings that are such. All that fails is
//! answered as a problem (RFC 9457), and what others wrote is escaped where a person is shown it.
//!
//! | module | |
//! | --- | --- |
//! | `routes` | the table of what can be asked, in the order of `openapi.json` |
//! | `answers`, `records` | what is done about it |
//! | `params`, `ndjson`, and the crate `tradewind-queue` | text to values: without I/O |
//! | `body`, `limits` | what a client may cost |
//! | `access` | who may ask |
//! | `server`, `stream`, `admission` | connections, over whatever carries them |
//! | `problem`, `refusal` | why something was not done |

mod access;
mod admission;
mod answers;
mod app;
mod body;
mod limits;
#[cfg(feature = "memory")]
pub mod memory;
mod ndjson;
mod params;
mod problem;
mod queues;
mod records;
mod refusal;
mod routes;
mod server;
mod stream;

pub use access::{Access, Check, Token};
pub use admission::{Admission, NoRoom};
pub use limits::Limits;
pub use queues::{NewTask, Page, QueueState, Queues, Record, Submitted, TaskState, Wanted};
pub use refusal::Refusal;
pub use routes::Peer;
pub use server::{Acceptor, Draining, Server};
pub use tradewind_queue::{
    Change, ConsumerName, Fsync, KEPT_TASKS_MAX, KEY_BYTES_MAX, Keep, Kept, KeptAsk,
    NAME_BYTES_MAX, NameError, QueueName, SettingError, Settings, SettingsPatch, TaskId, TaskKey,
    Unique,
};

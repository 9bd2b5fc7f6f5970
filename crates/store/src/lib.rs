//! Logs of a queue.
//!
//! A [`Log`] is a row of entries with positions 0, 1, 2 and so on. Entries are appended in batches: all of a
//! batch is there after a crash, or nothing, and what [`Log::commit`] said yes to is there. Without sockets,
//! a clock or threads; files are behind [`Medium`], so that the simulator plays them.

mod error;
mod format;
mod log;
mod task;

pub use self::error::LogError;
pub use self::format::Kind;
pub use self::log::{Found, Log, LogOptions};
pub use self::task::{KEY_BYTES_MAX, StoredTask, TaskError, TaskOptions};
pub use tradewind_records::Medium;

//! Logs of a queue.
//!
//! A [`Log`] is a row of entries with positions 0, 1, 2 and so on. Entries are appended in batches: all of a
//! batch is there after a crash, or nothing, and what [`Log::commit`] said yes to is there. Without sockets,
//! a clock or threads; files are behind [`Medium`], so that the simulator plays them.

mod check;
mod control;
#[cfg(test)]
mod disk;
mod error;
mod format;
mod halves;
mod kept;
mod keys;
mod log;
mod lost;
mod parts;
mod records;
mod retry;
mod task;
mod tasks;

pub use self::check::{Fault, Part, QueueMedia, Report, check};
pub use self::control::{
    CANCELLED_RANGES_MAX, CONSUMERS_MAX, Change, ChangeError, Control, ControlError,
    ControlOptions, ControlState, NAME_BYTES_MAX, SETTINGS_BYTES_MAX,
};
pub use self::error::LogError;
pub use self::format::Kind;
pub use self::halves::{NotOurs, Noted, Remember, Told, judge_records};
pub use self::log::{Entry, Found, Log, LogOptions, Survey};
pub use self::lost::skip_lost;
pub use self::records::{
    EntryError, Keep, RecordBatches, RecordError, RecordLog, RecordOptions, StoredRecord,
};
pub use self::retry::{Retry, retry, retry_settled};
pub use self::task::{KEY_BYTES_MAX, StoredTask, TaskError, TaskOptions};
pub use self::tasks::{
    NextTask, RequestError, SubmitError, Submitted, TaskReader, Tasks, TasksOptions,
};
pub use tradewind_records::Medium;

//! Tradewind's ids, messages and machines.
//!
//! This crate does no I/O. It holds no clock, no thread, no socket, no file and no source of
//! randomness, and it knows no runtime: the program that drives a machine passes events and the
//! time to it (`handle_*`), then asks for the work to do (`poll_*`) until there is no more.

pub mod batch;
pub mod collector;
pub mod dispatcher;
pub mod executor;
pub mod farewell;
mod ids;
pub mod limits;
pub mod message;
mod payload;
mod ranges;
pub mod relay;
mod seq_ring;
mod seq_set;
mod tag;
mod time;
mod window;

pub use ids::{Attempt, CallId, JobId, LaneId, Seq, SessionId, Slot, TaskHash};
pub use payload::{Payload, Rare, move_out};
pub use ranges::{SeqList, SeqRange, SeqRanges};
pub use seq_set::SeqSet;
pub use tag::{JobKey, Tag, Tagger};
pub use time::Time;

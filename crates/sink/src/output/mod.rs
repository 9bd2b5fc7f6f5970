//! The output: where records are stored.
//!
//! Blocking code without a clock, a socket or a runtime; [`WriterThread`] runs it on a thread of
//! its own. It decides nothing: the records come in the order in which they are to be stored, each
//! of them once. What it promises is that a record which it calls stored has left the process, and
//! that an error, be it in the middle of a record, neither loses nor doubles a byte.

mod format;
mod joblog;
mod jsonl;
mod open;
mod record;
mod stream;
mod target;
mod thread;
mod writer;

pub use format::Format;
pub use open::{OpenError, OpenFile, Settings, open};
pub use record::Record;
pub use stream::{Device, OutputError};
pub use target::{Destination, OutputTarget, Role};
pub use thread::{Event, WriterThread};
pub use writer::{Output, Writer};

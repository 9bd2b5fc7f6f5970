//! Tradewind's output: where records are stored.
//!
//! Blocking code without a clock, a socket, a runtime or flags; [`WriterThread`] runs it on a thread
//! of its own. It decides nothing: the records come in the order in which they are to be stored, each
//! of them once. What it promises is that a record which it calls stored has left the process, and
//! that an error, be it in the middle of a record, neither loses nor doubles a byte.

mod elsewhere;
mod error;
#[cfg(test)]
mod examples;
mod file;
mod format;
mod fsync;
mod hashes;
mod joblog;
mod journal;
mod jsonl;
mod open;
mod output;
mod recover;
mod results;
mod rewrite;
mod same;
mod spool;
mod store;
mod stream;
mod target;
mod terminal;
mod thread;
mod writer;

pub use elsewhere::{JournalLines, KeptJournal, NoJournalLine, complete_line};
pub use error::{Earlier, Obstacle, OpenError};
pub use file::OpenFile;
pub use format::{Extras, Format};
pub use fsync::Fsync;
pub use hashes::TaskHashes;
pub use journal::Claim;
pub use jsonl::{encode as encode_jsonl, encode_within as encode_jsonl_within};
pub use open::{Continued, Journal, Prepared, Settings, prepare};
pub use output::FileOutput;
pub use recover::{Damage, Recovered, recover};
pub use same::{FileId, ReadFile, SameFile, check_distinct};
pub use spool::{Chunk, Directory, Found, Medium, Spool, Spooler, find};
pub use store::Store;
pub use stream::{Device, OutputError, Place, Presence};
pub use target::{Destination, OutputTarget, Role};
pub use terminal::{Show, Terminal};
pub use thread::{Event, WriterThread};
pub use writer::{Output, Writer};

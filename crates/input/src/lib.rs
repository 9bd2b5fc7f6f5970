//! Tradewind's input: sources of tasks.
//!
//! Blocking code without a clock or a runtime, meant for a thread of its own. It knows nothing of
//! seqs, workers, lanes or flags, never reads further than it is asked to and never holds the whole
//! input.

mod bad_row;
#[cfg(feature = "formats")]
mod csv;
#[cfg(feature = "formats")]
mod format;
mod groups;
mod lines;
mod measure;
mod names;
mod open;
mod rows;
mod source;

pub use bad_row::BadRow;
#[cfg(feature = "formats")]
pub use csv::CsvSource;
#[cfg(feature = "formats")]
pub use format::Format;
pub use groups::GroupSource;
pub use lines::{Delimiter, LineSource};
pub use measure::Measured;
pub use names::Asked;
pub use open::{Input, InputError, InputPath, open, open_file};
pub use rows::RowSource;
pub use source::{Chunk, Item, Source};

/// Byte order mark that some programs put before UTF-8.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Bytes after which a chunk is full: tasks that are made of rows may be far longer than these.
const CHUNK_BYTES_MAX: u64 = 1 << 20;

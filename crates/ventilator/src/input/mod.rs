//! The input: where tasks come from.
//!
//! Blocking code without a clock or a runtime, meant for a thread of its own. It knows nothing of
//! seqs, workers or lanes, never reads further than it is asked to and never holds the whole input.

mod lines;
mod open;
mod source;

pub use lines::{Delimiter, LineSource};
pub use open::{Input, InputError, InputPath, open};
pub use source::{Chunk, Item, Source};

//! Tradewind's sink: records are stored here.
//!
//! Takes workers' results, makes each task's first final one its record, writes records in order
//! or as they come, and tells the ventilator what it has. What to do when is decided by
//! [`Collector`](tradewind_proto::collector::Collector); this crate holds the writer thread, the
//! sockets and the flags around it, and knows neither the ventilator's crate nor the worker's.

#[cfg(feature = "cli")]
pub mod args;
mod run;
mod summary;

#[cfg(feature = "cli")]
pub use args::SinkArgs;
pub use run::{NoteWorkers, Queue, Settings, WhenFull, run};

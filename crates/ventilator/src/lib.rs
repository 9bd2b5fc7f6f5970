//! Tradewind's ventilator: tasks go in here.
//!
//! Reads its input, hands the tasks to workers and keeps each until the sink has stored its
//! record. What to do when is decided by
//! [`Dispatcher`](tradewind_proto::dispatcher::Dispatcher); this crate holds the input, the
//! sockets and the flags around it, and knows neither the worker's crate nor the sink's.

#[cfg(feature = "cli")]
pub mod args;
mod queue;
mod reader;
mod run;

#[cfg(feature = "cli")]
pub use args::VentilatorArgs;
pub use queue::{Command, JudgeSink, Queue};
pub use run::{Ending, Ran, Settings, run, run_seen};

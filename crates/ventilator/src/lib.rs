//! Tradewind's ventilator: tasks go in here.
//!
//! Reads its input, hands the tasks to workers and keeps each until the sink has stored its
//! record. What to do when is decided by
//! [`Dispatcher`](tradewind_proto::dispatcher::Dispatcher); this crate holds the input, the
//! sockets and the flags around it, and knows neither the worker's crate nor the sink's.

pub mod args;
mod measure;
mod reader;
mod run;

pub use args::VentilatorArgs;
pub use measure::Measured;
pub use run::{Ending, Settings, run};

//! Tradewind's worker: tasks are run here.
//!
//! Takes tasks from the ventilator, runs each with its handler and pushes the results to the sink,
//! keeping them until they are settled. What to do when is decided by
//! [`Executor`](tradewind_proto::executor::Executor); this crate holds the slots, the sockets
//! and the flags around it, and knows neither the ventilator's crate nor the sink's.

#[cfg(feature = "cli")]
pub mod args;
mod run;
mod runner;

#[cfg(feature = "cli")]
pub use args::WorkerArgs;
pub use run::{Settings, run};
pub use runner::{AsyncHandler, AsyncRunner, OutcomeFuture, Runner, StopToken};

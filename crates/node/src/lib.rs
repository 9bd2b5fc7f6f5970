//! Where Tradewind's time, sockets and rules meet.
//!
//! What the three programs have in common around their machines: the clock, ids, connections that
//! are kept up and speak in messages, flags, logs, progress, signals and exit codes. This crate
//! carries messages to the machines and knows none of their decisions, and no role's crate.

pub mod args;
mod cli;
mod counterpart;
pub mod doors;
pub mod downstream;
pub mod exit;
mod figures;
pub mod links;
mod listen;
pub mod logs;
mod peers;
mod progress;
mod room;
mod runtime;
mod shutdown;
pub mod upstream;

pub use listen::{Inherited, Listen};
pub use progress::{Progress, ProgressView};
pub use room::Room;
pub use runtime::{allow_many_files, block_on, block_on_until};
pub use shutdown::{
    Asked, IgnoredSignals, LEAVE, Looks, PARENT_ENV, RELAY, Shutdown, StopHandle, is_caught,
};

//! Where Tradewind's time, sockets and rules meet.
//!
//! Common parts of the four programs around their machines: connections that are kept up and carry
//! messages, progress, signals and exit codes; and flags and logs, with the feature `cli`. This
//! crate carries messages to the machines and knows none of their decisions, and no role's crate.

#[cfg(feature = "cli")]
pub mod args;
mod arrivals;
#[cfg(feature = "cli")]
mod cli;
mod counterpart;
pub mod doors;
pub mod downstream;
pub mod drive;
pub mod exit;
mod figures;
#[cfg(feature = "cli")]
mod inherited;
pub mod keys;
pub mod links;
mod listen;
#[cfg(feature = "cli")]
pub mod logs;
pub mod parent;
mod peers;
mod progress;
mod room;
mod runtime;
mod shutdown;
pub mod upstream;
#[cfg(feature = "cli")]
mod version;

#[cfg(feature = "cli")]
pub use inherited::Inherited;
pub use listen::Listen;
pub use progress::{Progress, ProgressView};
pub use room::Room;
pub use runtime::{BLOCKING_THREADS_MAX, allow_many_files, block_on, block_on_until};
pub use shutdown::{Asked, IgnoredSignals, LEAVE, Looks, RELAY, Shutdown, StopHandle, is_caught};
#[cfg(feature = "cli")]
pub use version::version;

//! Costs of a task in Tradewind's hot loops.
//!
//! Instructions and allocations are counted, since they are the same on a slow machine, on a busy
//! one and on an idle one; so they can have bounds. A count is always the difference between two
//! runs of different lengths: costs of starting are not in it.
//!
//! No other crate needs this one. It calls the public functions of the others only: their insides
//! may change as long as they stay cheap.

mod loops;
mod table;

pub use table::{BATCH_TASKS, Cost, LOOPS, Loop, TASKS};

//! What a task costs in Tradewind's hot loops.
//!
//! Counted in instructions and allocations, which are the same on a slow machine, on a busy one
//! and on an idle one; so they can have bounds. A count is always of the difference between two
//! runs of different lengths: what happens once, however often, is not in it.
//!
//! This crate measures and holds nothing that any other needs. It drives what it measures through
//! its public functions only: the insides may change as they like, as long as they stay cheap.

mod loops;
mod table;

pub use table::{BATCH_TASKS, Cost, LOOPS, Loop, TASKS};

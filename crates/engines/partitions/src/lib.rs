//! Partitions of a queue, each a log of its own, that any number of processes share.
//!
//! Decisions alone, without an engine, a clock and threads: which partitions a process takes and gives up
//! ([`next_step`]), and which task of its ring is which of a partition ([`Placed`]).

mod placed;
mod shares;

pub use placed::{Place, Placed, partition_of};
pub use shares::{MEMBERS_FIRST, MEMBERS_MAX, Step, member_lease, next_step};

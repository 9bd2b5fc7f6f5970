//! Tradewind's machines in virtual time.
//!
//! The real dispatcher, executors and collector talk through the real codec here, and nothing
//! else is real: there is no clock, no socket, no file, no process, no thread and no entropy but
//! the seed. The seed makes the [plan](plan::Plan), which says what the world is like and what
//! will go wrong when; the [world](world) plays it and plays the shells' part;
//! the [check](check) watches and keeps its own account, which it never takes from a machine.

mod check;
mod event;
mod faults;
mod mutation;
mod network;
pub mod plan;
mod run;
mod sink;
mod ventilator;
mod worker;
mod world;

pub use mutation::Mutation;
pub use run::{Options, Report, run};

#[cfg(test)]
mod tests;

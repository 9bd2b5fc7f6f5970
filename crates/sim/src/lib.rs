//! Tradewind's machines in virtual time.
//!
//! The real dispatcher, executors and collector talk through the real codec here, and what the sink stores is
//! written and recovered by the real writer, into memory. Nothing else is real: there is no clock, no socket,
//! no file, no process, no thread and no entropy but the seed. The seed makes the [`plan`], which says what
//! the world is like and what will go wrong when; `world` plays it, and the shells' part in it; `check`
//! watches and keeps an account of its own, which it never takes from a machine.

mod check;
mod disk;
mod event;
mod faults;
mod liar;
mod mutation;
mod network;
pub mod plan;
mod relay;
mod run;
mod serve;
mod sink;
mod troubles;
mod ventilator;
mod worker;
mod world;

pub use mutation::Mutation;
pub use run::{Options, Report, run};

#[cfg(test)]
mod tests;

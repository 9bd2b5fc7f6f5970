//! What drives Tradewind's machines outside the programs: in tests, in the simulator, in the guards.
//!
//! A [`Machine`] is asked for everything that it has to say, as one list of actions: a `poll_*` that a
//! machine gets is added to [`machine`] and nowhere else, and the compiler then names each driver that
//! does not know the new action. [`Ring`] joins all machines of a job in virtual time.
//!
//! This crate has no socket, codec, disk, thread or clock, and no faults but those that a test asks for.
//! Nothing that ships depends on it.

pub mod machine;
mod ring;

pub use machine::{Accepts, CollectorAction, DispatcherAction, ExecutorAction, Machine};
pub use ring::{JOB, Ring, Worker, Written, config};

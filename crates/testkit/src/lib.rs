//! Drivers of Tradewind's machines outside the programs: in tests, in the simulator, in the guards.
//!
//! A [`Machine`] is asked for everything that it has to say, as one list of actions: a `poll_*` that a
//! machine gets is added to [`machine`] and nowhere else, and the compiler then names each driver that
//! does not know the new action. [`Ring`] joins all machines of a job in virtual time, with as many stages
//! as a test wants. [`Sink`] and [`Worker`] are its parts, each a machine and what does as it says.
//!
//! This crate has no socket, codec, disk, thread or clock, and no faults but those that a test asks for.
//! Nothing that ships depends on it.

mod connections;
pub mod machine;
mod ring;
mod sink;
mod worker;

pub use machine::{Accepts, CollectorAction, DispatcherAction, ExecutorAction, Machine};
pub use ring::{JOB, Ring, config, relay_config};
pub use sink::{KEY, Sink, Written, tag};
pub use worker::{Ends, Worker};

//! Tradewind's relay: the sink of one stage and the ventilator of the next.
//!
//! All decisions are made by [`Relay`](tradewind_proto::relay::Relay), which is made of the
//! machines of both; this crate holds the sockets and the flags around it. It has no file, and
//! knows neither the ventilator's crate nor the sink's.

#[cfg(feature = "cli")]
pub mod args;
mod run;

#[cfg(feature = "cli")]
pub use args::RelayArgs;
pub use run::{Settings, run};

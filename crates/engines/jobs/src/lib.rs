//! An engine's logs as the input and the output of a job: [`EngineSource`] and [`EngineStore`].
//!
//! Blocking code, as that of engines is, without a runtime, sockets and flags. A job takes nothing out of a log: it reads
//! the tasks that are there when it begins, and adds records to a log that had none.

#[cfg(test)]
mod fake;
mod keeper;
mod opening;
mod output;
mod renewal;
mod source;
mod store;

pub use self::keeper::Held;
pub use self::output::EngineOutput;
pub use self::source::EngineSource;
pub use self::store::{EngineStore, Look, TakeError};

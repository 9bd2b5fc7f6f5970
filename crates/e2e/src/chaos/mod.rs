//! Jobs whose every role is killed, stopped and cut off, at random, while they run; afterwards the
//! input is compared with the output.
//!
//! [`Plan`] decides everything from a seed, [`Round`] does it with real processes, [`Verdict`] says
//! what came of it. When exactly a fault falls is up to the machine: a seed brings back the same
//! job and the same faults in the same order, not the same instant.

mod engine;
mod faults;
mod growth;
mod plan;
mod queue;
mod round;
mod tally;
mod verdict;

pub use engine::{EngineKind, EngineServer, NatsCluster};
pub use faults::{Fault, Gap, Kind, Role, Tempo, one_by_one, schedule};
pub use plan::{Format, Plan, Work};
pub use queue::{QueuePlan, QueueReport, Underneath, queue_chaos};
pub use round::{Failure, Options, Report, Round};
pub use tally::Tally;
pub use verdict::{Expected, Verdict, compare};

//! Queues whose logs are an engine's: any number of processes share the partitions of one.
//!
//! | module | |
//! | --- | --- |
//! | `engines` | the logs, opened when they are wanted |
//! | `held` | the partitions that this process has, shared by its threads |
//! | `source` | their task logs as the ventilator's input |
//! | `output` | their record logs as the sink's output |
//! | `leases` | which partitions this process has |
//! | `queue` | what can be asked of such a queue |

mod engines;
mod held;
mod leases;
mod output;
mod queue;
mod source;

pub(crate) use self::queue::OnEngine;

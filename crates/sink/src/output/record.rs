//! What is stored of a task.

use std::sync::Arc;

use tradewind_proto::Payload;
use tradewind_proto::message::Outcome;
use tradewind_proto::{Attempt, Seq, TaskHash, collector};

/// What is stored of a task: how its last attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The task.
    pub seq: Seq,
    /// Its last attempt, 0 if there was none.
    pub attempt: Attempt,
    /// The name of the worker that ran it, empty if none ever did.
    pub worker: Arc<str>,
    /// When the attempt started: microseconds since 1970 by the worker's clock, 0 if it never did.
    pub started_us: u64,
    /// How long it ran, in microseconds.
    pub ran_us: u64,
    /// Bytes of the task's payload.
    pub task_bytes: u64,
    /// What the task was.
    pub task_hash: TaskHash,
    /// How it ended.
    pub outcome: Outcome,
    /// The command that was run, if a joblog asked for it; else empty.
    pub command: Payload,
}

impl From<collector::Record> for Record {
    fn from(record: collector::Record) -> Self {
        let collector::Record { worker, result } = record;
        Self {
            seq: result.seq,
            attempt: result.attempt,
            worker,
            started_us: result.started_us,
            ran_us: result.ran_us,
            task_bytes: result.task_bytes,
            task_hash: result.task_hash,
            outcome: result.outcome,
            command: result.command,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tradewind_proto::message::{Exit, Status};

    use super::*;

    /// A record like most: `seq` printed `output` and exited with 0.
    pub(in crate::output) fn record(seq: u64, output: impl AsRef<[u8]>) -> Record {
        Record {
            seq: Seq(seq),
            attempt: Attempt::FIRST,
            worker: "w1".into(),
            started_us: 1_767_323_045_678_901,
            ran_us: 1_500_000,
            task_bytes: 7,
            task_hash: TaskHash::of(b"a task "),
            outcome: Outcome {
                status: Status::Ok,
                exit: Exit::Code(0),
                output: Payload::from(output.as_ref().to_vec()),
                error: String::new(),
            },
            command: Payload::from(b"echo hi"),
        }
    }

    /// The same, but it ended in another way.
    pub(in crate::output) fn ended(status: Status, exit: Exit, error: &str) -> Record {
        let mut record = record(3, "");
        record.outcome = Outcome { status, exit, output: Payload::new(), error: error.to_owned() };
        record
    }

    /// Nobody ever ran it.
    pub(in crate::output) fn never_ran(status: Status, error: &str) -> Record {
        Record {
            seq: Seq(4),
            attempt: Attempt(0),
            worker: "".into(),
            started_us: 0,
            ran_us: 0,
            task_bytes: 0,
            task_hash: TaskHash::of(b""),
            outcome: Outcome::error(status, error),
            command: Payload::new(),
        }
    }
}

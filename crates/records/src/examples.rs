//! Records for tests.

use tradewind_proto::Rare;
use tradewind_proto::collector::Records;
use tradewind_proto::message::{Exit, Outcome, Reported, Status, TaskResult};
use tradewind_proto::{Attempt, Payload, Seq, Tag, TaskHash};

/// Returns a record like most: `seq` printed `output` and exited with 0.
pub(crate) fn record(seq: u64, output: impl AsRef<[u8]>) -> Records {
    let result = TaskResult {
        seq: Seq(seq),
        attempt: Attempt::FIRST,
        last: false,
        tag: Tag::default(),
        started_us: 1_767_323_045_678_901,
        ran_us: 1_500_000,
        task_bytes: 7,
        task_hash: TaskHash::of(b"a task "),
        outcome: Outcome {
            status: Status::Ok,
            exit: Exit::Code(0),
            output: Payload::from(output.as_ref().to_vec()),
            stderr: Rare::default(),
            error: String::new(),
        },
        reported: Some(Box::new(Reported {
            command: Payload::from(b"echo hi"),
            ..Reported::default()
        })),
    };
    Records { worker: "w1".into(), stage: "".into(), results: vec![result] }
}

/// Returns a record of a task that ended in another way.
pub(crate) fn ended(status: Status, exit: Exit, error: &str) -> Records {
    let mut record = record(3, "");
    record.results[0].outcome = Outcome { exit, ..Outcome::error(status, error) };
    record
}

/// Returns the record of a task that no worker ran.
pub(crate) fn never_ran(status: Status, error: &str) -> Records {
    let result = TaskResult {
        seq: Seq(4),
        attempt: Attempt(0),
        last: true,
        tag: Tag::default(),
        started_us: 0,
        ran_us: 0,
        task_bytes: 0,
        task_hash: TaskHash::of(b""),
        outcome: Outcome::error(status, error),
        reported: None,
    };
    Records { worker: "".into(), stage: "".into(), results: vec![result] }
}

/// Returns a record with changes.
pub(crate) fn with(mut record: Records, change: impl FnOnce(&mut TaskResult)) -> Records {
    change(&mut record.results[0]);
    record
}

//! Messages of the peers.

use std::time::Duration;

use tradewind_proto::limits::BATCH_TASKS_MAX;
use tradewind_proto::message::{Limits, Outcome, Task, TaskResult, ToWorker};
use tradewind_proto::{
    Attempt, JobId, JobKey, Payload, Seq, SeqRange, SessionId, Tag, TaskHash, Time,
};

pub(super) const JOB: JobId = JobId(0x7472_6164_6577_696e);

/// Number of tasks in a full batch.
pub(super) const BATCH: u64 = BATCH_TASKS_MAX as u64;

/// Number of tasks in a batch when a hundred workers share the work: fewer, so that the costs of a
/// batch count for more.
pub(super) const SHARE: u64 = BATCH / 8;

/// Bytes of a payload.
pub(super) const PAYLOAD_BYTES: usize = 16;

/// Start of each attempt, in microseconds since 1970.
pub(super) const STARTED_US: u64 = 1_767_323_045_678_901;

/// Time that passes for each task: all workers together run a million a second.
const TASK_TIME: Duration = Duration::from_micros(1);

/// Returns the time after this number of tasks.
pub(super) fn time(tasks: u64) -> Time {
    Time(1_000_000) + TASK_TIME * u32::try_from(tasks).expect("a run is shorter than an hour")
}

/// Returns the session of a worker.
pub(super) fn session(worker: u64) -> SessionId {
    // Sessions are random, so that their order is not the order of joining.
    SessionId(worker.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Returns a range of seqs.
pub(super) fn range(start: u64, count: u64) -> SeqRange {
    SeqRange { start: Seq(start), end: Seq(start + count) }
}

/// Returns a payload. All are equal.
pub(super) fn payload() -> Payload {
    Payload::from(&[b'x'; PAYLOAD_BYTES])
}

/// Returns a batch of tasks for a worker.
pub(super) fn tasks(range: SeqRange) -> ToWorker {
    let task = |seq| Task {
        seq,
        attempt: Attempt::FIRST,
        last: true,
        tag: Tag(u64::MAX - seq.0),
        payload: payload(),
        hash: HASH,
    };
    let tasks: Vec<Task> = range.seqs().map(task).collect();
    ToWorker::Tasks { job: JOB, limits: Limits::default(), tasks: tasks.into() }
}

/// Key of the tags of the job's tasks.
pub(super) const KEY: JobKey = JobKey::new(*b"the guards' key!");

/// Returns a batch of a worker's results.
pub(super) fn results(session: SessionId, range: SeqRange) -> Vec<TaskResult> {
    let tagger = KEY.tagger(session);
    range.seqs().map(|seq| result(seq, tagger.tag(seq, HASH))).collect()
}

const HASH: TaskHash = TaskHash(0x1234_5678);

fn result(seq: Seq, tag: Tag) -> TaskResult {
    TaskResult {
        seq,
        attempt: Attempt::FIRST,
        last: true,
        tag,
        started_us: STARTED_US,
        ran_us: 10,
        task_bytes: PAYLOAD_BYTES as u64,
        task_hash: HASH,
        outcome: Outcome::ok(payload()),
        reported: None,
    }
}

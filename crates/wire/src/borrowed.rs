//! Payloads while a message is being decoded: slices of the frame, turned into [`Payload`]s that
//! share its memory where they are long.

use std::fmt;

use bytes::Bytes;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use tradewind_proto::batch::Batch;
use tradewind_proto::message::{Outcome, Reported, Task, TaskResult, ToSink, ToWorker};
use tradewind_proto::{Payload, move_out};

/// A payload that has not left the frame.
///
/// It takes the room of a [`Payload`]: a list of the one becomes a list of the other in place.
#[derive(Default)]
pub(crate) struct Borrowed<'a> {
    bytes: &'a [u8],
    _room: [usize; 2],
}

const _: () = assert!(size_of::<Borrowed<'_>>() == size_of::<Payload>());

impl<'de> Deserialize<'de> for Borrowed<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Payload;

        impl<'de> Visitor<'de> for Payload {
            type Value = Borrowed<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a payload")
            }

            fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Borrowed { bytes, _room: [0; 2] })
            }
        }

        deserializer.deserialize_bytes(Payload)
    }
}

impl Borrowed<'_> {
    fn share(&self, frame: &Bytes) -> Payload {
        Payload::part_of(frame, self.bytes)
    }
}

pub(crate) fn to_worker(message: ToWorker<Borrowed<'_>>, frame: &Bytes) -> ToWorker {
    match message {
        ToWorker::Tasks { job, limits, tasks } => {
            let share = |task: Task<Borrowed<'_>>| Task {
                seq: task.seq,
                attempt: task.attempt,
                last: task.last,
                tag: task.tag,
                hash: task.hash,
                payload: task.payload.share(frame),
            };
            let mut tasks: Vec<Task> = tasks.0.into_iter().map(share).collect();
            let bytes = tasks.iter().map(|task| task.payload.len()).sum();
            if is_mostly_other(frame, bytes, tasks.len()) {
                move_out(tasks.iter_mut().map(|task| &mut task.payload));
            }
            ToWorker::Tasks { job, limits, tasks: tasks.into() }
        }
        ToWorker::RollCall { job, call, layout } => ToWorker::RollCall { job, call, layout },
        ToWorker::Settled { job, below, ranges } => ToWorker::Settled { job, below, ranges },
        ToWorker::Recall { job, call, keep } => ToWorker::Recall { job, call, keep },
        ToWorker::Cancel { job } => ToWorker::Cancel { job },
        ToWorker::Drain => ToWorker::Drain,
        ToWorker::Ping => ToWorker::Ping,
        ToWorker::Limits { job, limits } => ToWorker::Limits { job, limits },
        ToWorker::Done { job } => ToWorker::Done { job },
    }
}

pub(crate) fn to_sink(message: ToSink<Borrowed<'_>>, frame: &Bytes) -> ToSink {
    match message {
        ToSink::Results { job, session, results } => {
            ToSink::Results { job, session, results: task_results(results, frame) }
        }
        ToSink::Forwarded { job, stage, worker, results } => {
            ToSink::Forwarded { job, stage, worker, results: task_results(results, frame) }
        }
        ToSink::Cancel { job } => ToSink::Cancel { job },
        ToSink::News { session, news } => ToSink::News { session, news },
        ToSink::JobOpen { job, name, start, stage, is_untouched } => {
            ToSink::JobOpen { job, name, start, stage, is_untouched }
        }
        ToSink::JobClose { job, total, end } => ToSink::JobClose { job, total, end },
        ToSink::GiveUp { job, seq, attempt, task_hash, status, error } => {
            ToSink::GiveUp { job, seq, attempt, task_hash, status, error }
        }
        ToSink::JobDone { job } => ToSink::JobDone { job },
        ToSink::Ping => ToSink::Ping,
        ToSink::Inputs { job, from, hashes } => ToSink::Inputs { job, from, hashes },
    }
}

fn task_results(results: Batch<TaskResult<Borrowed<'_>>>, frame: &Bytes) -> Batch<TaskResult> {
    let results = results.0.into_iter().map(|result| task_result(result, frame));
    let mut results: Vec<TaskResult> = results.collect();
    let bytes = results.iter().map(|result| result.payload_bytes() as usize).sum();
    if is_mostly_other(frame, bytes, results.len()) {
        move_out(results.iter_mut().flat_map(TaskResult::payloads_mut));
    }
    results.into()
}

/// Returns whether a frame would take much more memory than its elements seem to, with so many payload bytes.
/// No honest peer's does.
fn is_mostly_other(frame: &Bytes, bytes: usize, count: usize) -> bool {
    frame.len() > 2 * (bytes + count * crate::ELEMENT_BYTES) + crate::FRAME_OTHER_BYTES
}

pub(crate) fn task_result(result: TaskResult<Borrowed<'_>>, frame: &Bytes) -> TaskResult {
    let Outcome { status, exit, output, stderr, error } = result.outcome;
    let (output, stderr) = (output.share(frame), stderr.map(|stderr| stderr.share(frame)));
    let reported = result.reported.map(|reported| {
        let Reported { command, task } = *reported;
        Box::new(Reported { command: command.share(frame), task: task.share(frame) })
    });
    TaskResult {
        seq: result.seq,
        attempt: result.attempt,
        last: result.last,
        tag: result.tag,
        started_us: result.started_us,
        ran_us: result.ran_us,
        task_bytes: result.task_bytes,
        task_hash: result.task_hash,
        outcome: Outcome { status, exit, output, stderr, error },
        reported,
    }
}

//! Loop of the worker: tasks in, starts out, ends in, results out, settled in.

use tradewind_proto::executor::{Executor, Finished};
use tradewind_proto::limits::BATCH_TASKS_MAX;
use tradewind_proto::message::{Layout, Outcome, ToSink, ToWorker};
use tradewind_proto::{CallId, Seq, SeqRange, SeqRanges};

use super::made::{BATCH, JOB, SHARE, STARTED_US, range, session, tasks as tasks_of, time};

/// Runs it for a worker that is alone.
pub(crate) fn executor(tasks: u64) {
    run((0..tasks).step_by(BATCH as usize).map(|start| range(start, BATCH.min(tasks - start))));
}

/// Runs it for one worker of a hundred: its batches are smaller, and far apart.
pub(crate) fn executor_of_100(tasks: u64) {
    let starts = (0..tasks).step_by(SHARE as usize);
    run(starts.map(|start| range(start * 100, SHARE.min(tasks - start))));
}

fn run(batches: impl Iterator<Item = SeqRange>) {
    let mut executor = Executor::new(session(0), 1);
    executor.handle_sink_connected();
    executor.handle_message(ToWorker::RollCall {
        job: JOB,
        call: CallId(0),
        layout: Layout::Unsaid,
    });
    let (mut given, mut returned) = (0, 0);
    let mut before = range(0, 0);
    for batch in batches {
        executor.handle_message(tasks_of(batch));
        given += batch.count();
        returned += drive(&mut executor, given);
        executor.handle_message(settled(before));
        before = batch;
    }
    executor.handle_message(settled(before));
    assert_eq!(returned, given, "every task has its result");
    assert!(executor.is_empty(), "nothing is retained");
}

/// Settles the batch; those of other workers just before it are not all settled yet.
fn settled(batch: SeqRange) -> ToWorker {
    let ranges = SeqRanges::of(batch);
    let below = Seq(batch.start.0.saturating_sub(BATCH));
    ToWorker::Settled { job: JOB, below, ranges }
}

/// Drives the executor, as the worker's loop does. Returns the number of results.
///
/// The other machines are asked through the list of their actions here. This one is not: a task costs it a
/// call of `poll_start`, which the compiler puts into the loop only if that is its one caller. The list would
/// add 5 % to the count that are not the machine's.
fn drive(executor: &mut Executor, given: u64) -> u64 {
    let now = time(given);
    if now >= executor.poll_timeout() {
        executor.handle_timeout(now);
    }
    let mut ended = 0;
    while ended < BATCH_TASKS_MAX
        && let Some(start) = executor.poll_start(now)
    {
        executor.handle_finished(Finished {
            slot: start.slot,
            started_us: STARTED_US,
            ran_us: 0,
            outcome: Outcome::ok(start.task.payload),
            reported: None,
        });
        ended += 1;
    }
    let mut returned = 0;
    while let Some(message) = executor.poll_transmit() {
        if let ToSink::Results { results, .. } = message {
            returned += results.0.len() as u64;
        }
    }
    returned
}

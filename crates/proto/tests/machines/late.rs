//! Messages that come late, or again, and connections that come back: what was true once is not
//! taken for what is true now.

use tradewind_proto::batch::{Batch, Bounded};
use tradewind_proto::collector::Order;
use tradewind_proto::limits::RETRY_BACKOFF_MIN;
use tradewind_proto::message::{Failure, News, Status, ToVentilator, ToWorker};
use tradewind_proto::{Attempt, CallId, LaneId, Seq, SeqRanges, SessionId};

use crate::{failed, ok};
use tradewind_testkit::{JOB, Ring};

const SECOND: u64 = 1_000_000;

/// The sink says (again) that this attempt of task 0 failed at worker 1.
fn failure(attempt: u32) -> ToVentilator {
    let session = SessionId(1);
    let failure = Failure { session, seq: Seq(0), attempt: Attempt(attempt), ran_us: 10 };
    ToVentilator::Receipt {
        job: JOB,
        received: Bounded(Vec::new()),
        stored: SeqRanges::new(),
        retry: Batch::from(vec![failure]),
        held_bytes: 0,
        failed: 0,
    }
}

/// One worker, at which the first attempt of the only task has failed.
fn a_failure(retries: u32) -> Ring {
    let mut ring = Ring::new(retries, Order::Seq);
    ring.join(1, 1);
    ring.tasks(&["a"]);
    ring.finish(1, 0, failed());
    ring
}

// Fails if a worker's failure counts whichever attempt it is of (`since`).
#[test]
fn a_failure_that_is_reported_again_takes_no_later_attempt_back() {
    let mut ring = a_failure(3);
    ring.pass(SECOND);
    assert_eq!(ring.running(1), [(0, 2)]);
    ring.say(failure(1));
    ring.join(2, 1);
    ring.pass(SECOND);
    assert_eq!(ring.running(2), [], "it runs at the other one");
}

// Fails if a failure of a task that waits counts whichever attempt it is of (`failed`).
#[test]
fn a_failure_that_is_reported_again_makes_no_task_wait_again() {
    let mut ring = a_failure(3);
    ring.kill(1);
    ring.pass(SECOND);
    ring.say(failure(1));
    ring.join(2, 1);
    assert_eq!(ring.running(2), [(0, 2)]);
}

// Fails if `note_failure` counts an attempt that it has counted.
#[test]
fn a_failure_that_is_reported_again_after_a_roll_call_uses_up_no_retry() {
    let mut ring = a_failure(2);
    ring.pass(SECOND);
    assert_eq!(ring.running(1), [(0, 2)]);
    // From now on it may be at any attempt.
    ring.say(ToVentilator::Relay { session: SessionId(1), news: News::Reconnected });
    ring.say(failure(1));
    ring.finish(1, 0, failed());
    ring.pass(SECOND);
    assert_eq!(ring.running(1), [(0, 3)]);
    ring.finish(1, 0, failed());
    assert_eq!(ring.records(), [], "there is a retry left");
}

// Found by the simulator: a job's last attempt went to the worker where the first had failed, since the other one
// had just connected anew. Fails if a worker that is being asked what it holds counts as none.
#[test]
fn a_task_is_not_tried_again_where_it_failed_while_another_answers_a_roll_call() {
    let mut ring = Ring::new(1, Order::Seq);
    ring.join(2, 1);
    ring.tasks(&["a"]);
    ring.finish(2, 0, ok("a"));
    ring.swallows = Some(2);
    ring.say(ToVentilator::Relay { session: SessionId(2), news: News::Reconnected });
    ring.join(1, 1);
    ring.tasks(&["b"]);
    assert_eq!(ring.running(1), [(1, 1)]);
    ring.finish(1, 0, failed());
    ring.pass(10 * RETRY_BACKOFF_MIN.as_micros() as u64);
    assert_eq!(ring.running(1), []);
    let mut calls = std::mem::take(&mut ring.swallowed).into_iter().filter_map(|said| match said {
        ToWorker::RollCall { call, .. } => Some(call),
        _ => None,
    });
    let call = calls.next_back().expect("a call");
    ring.swallows = None;
    let news = News::Holding {
        job: JOB,
        call,
        unfinished: SeqRanges::new(),
        finished: SeqRanges::new(),
        hashes: Bounded(Vec::new()),
        tags: Bounded(Vec::new()),
    };
    ring.say(ToVentilator::Relay { session: SessionId(2), news });
    assert_eq!((ring.running(1), ring.running(2)), (vec![], vec![(1, 2)]));
}

// Fails if the answer to any call is taken for that to the latest.
#[test]
fn the_answer_to_an_earlier_roll_call_is_out_of_date() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 1);
    ring.tasks(&["a"]);
    ring.join(2, 1);
    // It is called, and what it said when it had nothing comes only now.
    ring.swallows = Some(1);
    ring.say(ToVentilator::Relay { session: SessionId(1), news: News::Reconnected });
    let news = News::Holding {
        job: JOB,
        call: CallId(0),
        unfinished: SeqRanges::new(),
        finished: SeqRanges::new(),
        hashes: Bounded(Vec::new()),
        tags: Bounded(Vec::new()),
    };
    ring.say(ToVentilator::Relay { session: SessionId(1), news });
    assert_eq!(ring.running(2), [], "the first one has it");
    ring.kill(1);
    assert_eq!(ring.running(2), [(0, 2)], "and was sent it once");
}

// Fails if a beat without a sink does not open the job again.
#[test]
fn a_hello_on_the_connection_that_seemed_older_is_asked_for_again() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 1);
    // The hello came before what is taken for the newer connection.
    ring.dispatcher.handle_receipts_disconnected(ring.now);
    ring.dispatcher.handle_receipts_connected(ring.now);
    ring.settle();
    assert!(!ring.dispatcher.is_sink_open());
    ring.pass(2 * SECOND);
    assert!(ring.dispatcher.is_sink_open());
    ring.tasks(&["a"]);
    assert_eq!(ring.running(1), [(0, 1)]);
}

/// Worker 1 runs the first attempts of two tasks, its lane was lost and is back; worker 2 runs the
/// second ones.
fn at_two_workers() -> Ring {
    let mut ring = Ring::new(1, Order::Completion);
    ring.join(1, 2);
    ring.tasks(&["a", "b"]);
    ring.dispatcher.handle_lane_gone(LaneId(1));
    ring.join(2, 2);
    ring.rejoin(1, 2);
    let sorted = |mut running: Vec<(u64, u32)>| {
        running.sort_unstable();
        running
    };
    assert_eq!(sorted(ring.running(1)), [(0, 1), (1, 1)]);
    assert_eq!(sorted(ring.running(2)), [(0, 2), (1, 2)]);
    ring
}

/// Ends a task at a worker.
fn end(ring: &mut Ring, worker: u64, seq: u64, is_ok: bool) {
    let running = &ring.workers[&worker].running;
    let slot = running.iter().find(|(_, start)| start.task.seq == Seq(seq)).map(|(slot, _)| *slot);
    let outcome = if is_ok { ok("x") } else { failed() };
    ring.finish(worker, slot.expect("it runs there"), outcome);
}

// Fails if `hand_over` looks for no other one.
#[test]
fn what_two_workers_hold_is_left_to_the_other() {
    let mut ring = at_two_workers();
    ring.kill(2);
    ring.join(3, 2);
    ring.pass(SECOND);
    assert_eq!(ring.running(3), [], "the first one has both");
    ring.finish_all();
    assert_eq!(ring.records(), [(0, Status::Ok, 1), (1, Status::Ok, 1)]);
}

// Fails if only the failure of the attempt that was sent last is heard of, or if `hand_over` does not
// doubt which one that is.
#[test]
fn a_failed_attempt_older_than_the_one_that_was_sent_is_heard_of() {
    let mut ring = at_two_workers();
    ring.kill(2);
    end(&mut ring, 1, 0, false);
    end(&mut ring, 1, 1, true);
    ring.pass(SECOND);
    assert_eq!(ring.running(1), [(0, 3)]);
}

// Fails if `receive` tells nothing of what is settled, in the window or below it.
#[test]
fn a_result_that_comes_after_anothers_record_is_let_go_at_once() {
    for is_far in [false, true] {
        let mut ring = at_two_workers();
        end(&mut ring, 2, 1, true);
        if is_far {
            // The window moves past the straggler.
            ring.join(3, 1);
            for _ in 0..3_000 {
                ring.tasks(&["c"]);
                ring.finish(3, 0, ok("y"));
            }
        }
        end(&mut ring, 1, 1, true);
        let snapshot = ring.workers[&1].executor.snapshot();
        assert_eq!((snapshot.running, snapshot.retained), (1, 0), "far: {is_far}");
    }
}

// Fails if a window may grow without bound from one round to the next, or if what a few short tasks
// take is believed.
#[test]
fn one_short_task_does_not_fill_a_queue_with_long_ones() {
    // So many that nobody counts what each worker's share is.
    for waiting in [20, 20_000] {
        let mut ring = Ring::new(0, Order::Completion);
        ring.tasks(&vec!["t"; waiting]);
        ring.join(1, 1);
        ring.join(2, 1);
        ring.now.0 += 100;
        ring.finish_after(1, 0, 1, ok("x"));
        let held = ring.dispatcher.snapshot().workers[0].out;
        assert!((1..=2).contains(&held), "{held} of {waiting} are where one was short");
    }
}

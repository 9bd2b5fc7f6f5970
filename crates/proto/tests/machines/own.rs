//! Tasks with a number of retries and a timeout of their own.

use std::time::Duration;

use tradewind_proto::collector::Order;
use tradewind_proto::dispatcher::{CancelAnswer, LedgerBug, Policy, TaskLimits, Timeout};
use tradewind_proto::limits::{ANSWER_MAX, ROLL_CALL_GRACE};
use tradewind_proto::message::{News, Start, Status, ToVentilator, ToWorker};
use tradewind_proto::{Attempt, LaneId, Seq, SessionId, Time};

use crate::{failed, ok};
use tradewind_testkit::{Ends, Ring};

const SECOND: u64 = 1_000_000;
const NONE: TaskLimits = TaskLimits { retries: None, timeout: None };

fn retries(retries: u32) -> TaskLimits {
    TaskLimits { retries: Some(retries), ..NONE }
}

fn after(seconds: u64) -> TaskLimits {
    TaskLimits { timeout: Some(Duration::from_secs(seconds)), ..NONE }
}

/// A policy with this timeout, and two retries.
fn policy(timeout: Option<u64>) -> Policy {
    let timeout = timeout.map(|seconds| Timeout::After(Duration::from_secs(seconds)));
    Policy { retries: 2, timeout, ..Policy::default() }
}

fn ring(timeout: Option<u64>) -> Ring {
    Ring::with(Order::Completion, |config| config.policy = policy(timeout))
}

/// Lets seconds pass; a task that is to be stopped fails. Returns what was stopped in each second.
fn pass(ring: &mut Ring, id: u64, seconds: u64) -> Vec<(u64, u64)> {
    let mut stopped = Vec::new();
    for second in 1..=seconds {
        ring.pass(SECOND);
        for (seq, attempt) in std::mem::take(&mut ring.worker(id).stopped) {
            stopped.push((second, seq));
            let running = ring.workers[&id].running.iter();
            let is_it = |task: &tradewind_proto::message::Task| {
                (task.seq, task.attempt) == (Seq(seq), Attempt(attempt))
            };
            let slot =
                running.filter(|(_, start)| is_it(&start.task)).map(|(slot, _)| *slot).next();
            ring.finish(id, slot.expect("it runs"), failed());
        }
    }
    stopped
}

/// Returns the records by seq.
fn records(ring: &Ring) -> Vec<(u64, Status, u32)> {
    let mut records = ring.records();
    records.sort_unstable_by_key(|(seq, ..)| *seq);
    records
}

/// Ends the job; nothing is kept of limits.
#[track_caller]
fn end_well(mut ring: Ring) {
    ring.end_input();
    for _ in 0..60 {
        ring.finish_all();
        ring.pass(SECOND);
    }
    assert_eq!(ring.dispatcher.snapshot().own_limits, 0);
    ring.flush();
    ring.assert_over();
}

// Fails if the ledger goes by the policy's number, for what is dispatched in its turn or after a failure.
#[test]
fn a_task_is_retried_as_often_as_it_says_or_else_the_policy() {
    let mut ring = ring(None);
    let all = [NONE, retries(0), NONE, retries(1), retries(4), NONE, retries(2)];
    ring.join_stage(0, 1, 8, Ends::at_once(|_| failed()));
    ring.tasks_with(&all.map(|limits| ("t", limits)));
    assert_eq!(ring.records(), [(1, Status::Failed, 1)]);
    for _ in 0..60 {
        ring.pass(SECOND);
    }
    let attempts: Vec<u32> = records(&ring).iter().map(|(.., attempt)| *attempt).collect();
    assert_eq!(attempts, [3, 1, 3, 2, 5, 3, 3]);
    assert!(records(&ring).iter().all(|(_, status, _)| *status == Status::Failed));
    end_well(ring);
}

#[test]
fn another_policy_changes_no_limits_that_tasks_have_of_their_own() {
    let mut ring = ring(Some(10));
    ring.join(1, 4);
    let both = TaskLimits { retries: Some(1), ..after(2) };
    ring.tasks_with(&[("a", NONE), ("b", both), ("c", NONE), ("d", both)]);
    ring.finish(1, 2, failed());
    ring.finish(1, 3, failed());
    ring.dispatcher.set_policy(Policy { retries: 0, ..policy(Some(5)) });
    assert_eq!(pass(&mut ring, 1, 2), [(2, 1)]);
    // The second attempts have begun after a short wait.
    let stopped = pass(&mut ring, 1, 8);
    let seqs: Vec<u64> = stopped.iter().map(|(_, seq)| *seq).collect();
    assert_eq!(seqs, [3, 1, 2, 0], "{stopped:?}");
    assert_eq!(stopped[3], (8, 0), "it was sent with the earlier timeout");
    ring.finish_all();
    let wanted = [(1, Status::TimedOut, 2), (2, Status::TimedOut, 2), (3, Status::TimedOut, 2)];
    assert_eq!(records(&ring)[..3], wanted);
    end_well(ring);
}

#[test]
fn an_attempt_may_take_as_long_as_its_task_says_or_else_the_policy() {
    let mut ring = ring(Some(10));
    ring.join(1, 4);
    ring.tasks_with(&[("a", NONE), ("b", after(2)), ("c", after(30)), ("d", after(2))]);
    assert_eq!(pass(&mut ring, 1, 2), [(2, 1), (2, 3)]);
    ring.pass(SECOND);
    assert_eq!(ring.running(1).len(), 4, "the second attempts");
    let stopped = pass(&mut ring, 1, 27);
    // Found after the pauses between attempts.
    assert_eq!(stopped.iter().filter(|(_, seq)| *seq == 1 || *seq == 3).count(), 4);
    assert_eq!(stopped.iter().find(|(_, seq)| *seq == 0), Some(&(7, 0)));
    assert_eq!(stopped.iter().find(|(_, seq)| *seq == 2), Some(&(27, 2)));
    let wanted = [(1, Status::TimedOut, 3), (3, Status::TimedOut, 3)];
    assert_eq!(records(&ring)[..2], wanted);
    end_well(ring);
}

/// Returns seqs and timeout in seconds of each batch that a worker was sent and did not get.
fn batches(ring: &mut Ring) -> Vec<(Option<u64>, Vec<u64>)> {
    let swallowed = std::mem::take(&mut ring.swallowed).into_iter();
    let batches = swallowed.filter_map(|message| match message {
        ToWorker::Tasks { limits, tasks, .. } => {
            let seqs = tasks.0.iter().map(|task| task.seq.0).collect();
            Some((limits.timeout_us.map(|us| us / SECOND), seqs))
        }
        _ => None,
    });
    batches.collect()
}

// Fails if a batch goes on where the timeout changes, or ends where only the number of retries does.
#[test]
fn tasks_of_one_timeout_are_a_batch() {
    for timeout in [None, Some(10)] {
        let mut ring = ring(timeout);
        ring.join(1, 20);
        ring.swallows = Some(1);
        let (long, short) = (after(30), after(2));
        let all = [NONE, NONE, retries(0), NONE, short, short, NONE, long, short, retries(1), NONE];
        ring.dispatcher.handle_pause();
        ring.tasks_with(&all.map(|limits| ("t", limits)));
        ring.dispatcher.handle_unpause();
        ring.settle();
        let wanted = [
            (timeout, vec![0, 1, 2, 3]),
            (Some(2), vec![4, 5]),
            (timeout, vec![6]),
            (Some(30), vec![7]),
            (Some(2), vec![8]),
            (timeout, vec![9, 10]),
        ];
        assert_eq!(batches(&mut ring), wanted);
    }
}

// Fails if what is picked for a worker is sent as one batch, whatever the timeouts.
#[test]
fn what_is_requeued_is_sent_in_batches_of_one_timeout_too() {
    for is_failed in [false, true] {
        let mut ring = ring(Some(10));
        ring.join(1, 6);
        let all = [NONE, after(2), NONE, after(30), after(2), NONE];
        ring.tasks_with(&all.map(|limits| ("t", limits)));
        ring.join(2, 6);
        ring.swallows = Some(2);
        if is_failed {
            (0..6).for_each(|slot| ring.finish(1, slot, failed()));
            ring.pass(SECOND);
        } else {
            ring.dispatcher.handle_lane_gone(LaneId(1));
            ring.workers.remove(&1);
            ring.settle();
        }
        let mut sent = batches(&mut ring);
        sent.sort();
        let mut tasks = Vec::new();
        for (timeout, seqs) in sent {
            tasks.extend(seqs.into_iter().map(|seq| (seq, timeout)));
        }
        tasks.sort_unstable();
        let wanted = all.map(|limits| limits.timeout.map_or(10, |timeout| timeout.as_secs()));
        let wanted: Vec<(u64, Option<u64>)> = (0..).zip(wanted.map(Some)).collect();
        assert_eq!(tasks, wanted, "failed: {is_failed}");
    }
}

/// Three tasks at a worker, with limits that the job of the next ventilator does not have.
const LIMITED: [(&str, TaskLimits); 4] = [
    ("a", TaskLimits { retries: Some(2), timeout: Some(Duration::from_secs(20)) }),
    ("b", TaskLimits { retries: Some(2), timeout: None }),
    ("c", TaskLimits { retries: Some(1), timeout: Some(Duration::from_secs(2)) }),
    ("d", TaskLimits { retries: None, timeout: None }),
];

/// A ventilator that was started again, and has neither retries nor a timeout, has read the tasks, of which the
/// worker has run the first ones all the while.
fn resumed(slots: u32, bug: Option<LedgerBug>) -> Ring {
    let mut ring = ring(None);
    // The sink has been there for long enough to know all workers.
    ring.pass(SECOND);
    ring.pass(ROLL_CALL_GRACE.as_micros() as u64);
    ring.join(1, slots);
    ring.tasks_with(&LIMITED);
    ring.restart_ventilator(Start::Resume);
    bug.into_iter().for_each(|bug| ring.dispatcher.plant(bug));
    ring.rejoin(1, slots);
    ring.tasks_with(&LIMITED);
    (0..3).for_each(|_| ring.pass(SECOND));
    assert!(!ring.dispatcher.is_resuming());
    ring
}

/// Returns the attempts of the records of a resumed job whose tasks fail.
fn attempts_after_resume(bug: Option<LedgerBug>) -> Vec<u32> {
    let mut ring = resumed(2, bug);
    assert_eq!(ring.running(1), [(0, 1), (1, 1)], "what is held goes on");
    ring.worker(1).ends = Ends::at_once(|_| failed());
    ring.finish(1, 0, failed());
    ring.finish(1, 1, failed());
    for _ in 0..60 {
        ring.pass(SECOND);
    }
    let records = records(&ring);
    end_well(ring);
    records.iter().map(|(.., attempt)| *attempt).collect()
}

#[test]
fn a_ventilator_that_is_started_again_knows_the_retries_of_what_is_held_and_of_what_is_not() {
    assert_eq!(attempts_after_resume(None), [3, 3, 2, 1]);
    if cfg!(debug_assertions) {
        assert_eq!(attempts_after_resume(Some(LedgerBug::ForgetOwn)), [2, 2, 2, 1]);
    }
}

#[test]
fn a_ventilator_that_is_started_again_knows_the_timeouts_of_what_is_held_and_of_what_is_not() {
    let mut ring = resumed(2, None);
    ring.finish(1, 0, failed());
    assert_eq!(ring.running(1), [(2, 1), (1, 1)]);
    let stopped = pass(&mut ring, 1, 30);
    let of = |seq: u64| stopped.iter().filter(move |stop| stop.1 == seq).map(|(second, _)| *second);
    assert_eq!(of(2).next(), Some(2), "{stopped:?}");
    // The attempt that was held ended at once, and the next one began after a pause.
    assert!(of(0).next().is_some_and(|second| (20..=25).contains(&second)), "{stopped:?}");
    end_well(ring);
}

// Fails if a ventilator counts the time of what is held by the policy alone, which has no timeout here.
#[test]
fn a_worker_owes_what_it_held_before_by_the_timeout_of_the_task() {
    let mut ring = ring(None);
    ring.pass(SECOND);
    ring.pass(ROLL_CALL_GRACE.as_micros() as u64);
    ring.join(2, 2);
    ring.tasks_with(&[("a", after(2)), ("b", after(1))]);
    ring.restart_ventilator(Start::Resume);
    ring.rejoin(2, 2);
    ring.tasks_with(&[("a", after(2)), ("b", after(1))]);
    (0..3).for_each(|_| ring.pass(SECOND));
    ring.workers.remove(&2);
    pass_beating(&mut ring, 2 * 2 + ANSWER_MAX.as_secs() + 3);
    assert_eq!(ring.closed, [LaneId(2)]);
}

/// Lets time pass while worker 2 is heard, and claims to have two tasks.
fn pass_beating(ring: &mut Ring, seconds: u64) {
    for _ in 0..seconds {
        let news = News::Heartbeat { running: 2, queued: 0, slots: 2 };
        ring.say(ToVentilator::Relay { session: SessionId(2), news });
        ring.pass(SECOND);
    }
}

// Fails if the policy's timeout is all that counts, or the first task's.
#[test]
fn a_worker_owes_a_result_by_the_longest_timeout_of_its_tasks() {
    for (limits, is_lost) in [
        ([NONE, NONE], true),
        ([NONE, after(3_600)], false),
        ([after(3_600), NONE], false),
        ([after(3_600), after(1)], false),
        ([after(1), NONE], true),
    ] {
        let mut ring = ring(Some(2));
        ring.join(2, 2);
        ring.tasks_with(&limits.map(|limits| ("t", limits)));
        ring.workers.remove(&2);
        pass_beating(&mut ring, 2 * 2 + ANSWER_MAX.as_secs());
        assert_eq!(ring.closed, [], "{limits:?}");
        pass_beating(&mut ring, 3);
        assert_eq!(!ring.closed.is_empty(), is_lost, "{limits:?}");
    }
    // A task that may take any time is no reason, and none is left.
    for (limits, is_lost) in [([NONE, after(2)], false), ([after(1), after(2)], true)] {
        let mut ring = ring(None);
        ring.join(2, 2);
        ring.tasks_with(&limits.map(|limits| ("t", limits)));
        ring.workers.remove(&2);
        pass_beating(&mut ring, 2 * 2 + ANSWER_MAX.as_secs() + 3);
        assert_eq!(!ring.closed.is_empty(), is_lost, "{limits:?}");
    }
}

// Fails if the tasks that have their own timeout are noted as sent with the policy's: their worker owes nothing then.
#[test]
fn a_policy_without_a_timeout_leaves_none_to_tasks_that_have_their_own() {
    let mut ring = ring(None);
    ring.join(2, 2);
    ring.tasks_with(&[("a", after(2)), ("b", NONE)]);
    ring.dispatcher.set_policy(policy(Some(2)));
    ring.finish(2, 1, ok("b"));
    ring.tasks(&["c"]);
    assert_eq!(ring.running(2), [(0, 1), (2, 1)]);
    ring.workers.remove(&2);
    pass_beating(&mut ring, 2 * 2 + ANSWER_MAX.as_secs() + 3);
    assert_eq!(ring.closed, [LaneId(2)]);
}

/// A job with a timeout that follows the median run time, 0.1 s, at a worker with three slots.
fn with_percentage(first: &[(&'static str, TaskLimits)]) -> Ring {
    let mut ring = Ring::with(Order::Completion, |config| {
        config.policy.timeout = Some(Timeout::Percent(500.0));
    });
    ring.join(1, 3);
    ring.tasks_with(first);
    ring.tasks(&["q"; 5]);
    for _ in 0..5 {
        ring.pass(100_000);
        ring.finish_after(1, 2, 100_000, ok("q"));
    }
    ring
}

// Fails if an announced timeout holds for all tasks of a worker, or is never announced to one with such tasks.
#[test]
fn a_percentage_of_the_median_changes_no_timeout_that_tasks_have_of_their_own() {
    let mut ring = with_percentage(&[("a", after(30)), ("b", NONE)]);
    assert_eq!(
        pass(&mut ring, 1, 10),
        [],
        "the worker is told of the median when it has no such task"
    );
    ring.finish(1, 0, ok("a"));
    assert_eq!(pass(&mut ring, 1, 2).iter().map(|(_, seq)| *seq).collect::<Vec<_>>(), [1]);
    end_well(ring);
    let mut ring = with_percentage(&[("a", after(30)), ("b", after(2))]);
    let stopped = pass(&mut ring, 1, 30);
    let seqs: Vec<u64> = stopped.iter().map(|(_, seq)| *seq).collect();
    assert_eq!(seqs, [1, 0], "{stopped:?}");
    assert!((1..=2).contains(&stopped[0].0) && (28..=30).contains(&stopped[1].0), "{stopped:?}");
    end_well(ring);
}

// Fails if the worker owes by a timeout that it was not told: it stops no task before.
#[test]
fn a_worker_owes_nothing_by_a_timeout_of_which_it_has_not_heard() {
    let mut ring = with_percentage(&[("a", after(3)), ("b", NONE)]);
    // There is always a task that has its own timeout.
    for turn in 0..40 {
        ring.tasks_with(&[("t", after(3))]);
        ring.pass(SECOND);
        ring.finish(1, [0, 2][turn % 2], ok("t"));
    }
    assert_eq!((&ring.closed[..], &ring.workers[&1].stopped[..]), (&[][..], &[][..]));
    ring.finish(1, 0, ok("t"));
    assert_eq!(pass(&mut ring, 1, 2).iter().map(|(_, seq)| *seq).collect::<Vec<_>>(), [1]);
    end_well(ring);
}

#[test]
fn a_task_that_is_cancelled_takes_its_limits_along() {
    let mut ring = ring(None);
    ring.join(1, 2);
    let both = TaskLimits { retries: Some(3), ..after(2) };
    ring.dispatcher.handle_cancel_task(Seq(3));
    ring.tasks_with(&[("t", both); 6]);
    ring.dispatcher.handle_pause();
    ring.finish(1, 1, failed());
    assert_eq!(ring.dispatcher.snapshot().own_limits, 10, "of five, two each");
    for (seq, answer) in [
        (5, CancelAnswer::Cancelled),
        (1, CancelAnswer::Cancelled),
        (3, CancelAnswer::Ended),
        (0, CancelAnswer::Stopping),
    ] {
        assert_eq!(ring.dispatcher.handle_cancel_task(Seq(seq)), answer, "task {seq}");
        ring.settle();
    }
    assert_eq!(ring.dispatcher.snapshot().own_limits, 4);
    ring.finish(1, 0, failed());
    let cancelled: Vec<u64> = records(&ring).iter().map(|(seq, ..)| *seq).collect();
    assert_eq!(cancelled, [0, 1, 3, 5]);
    ring.dispatcher.handle_unpause();
    end_well(ring);
}

// Fails if the limits of a settled task, or of one that was dropped, are kept.
#[test]
fn nothing_is_kept_of_tasks_that_are_settled_or_dropped() {
    let mut ring = ring(None);
    ring.join(1, 4);
    let all = [retries(1), after(50), NONE, TaskLimits { retries: Some(0), ..after(3) }];
    ring.tasks_with(&all.repeat(1_000).into_iter().map(|limits| ("t", limits)).collect::<Vec<_>>());
    assert_eq!(ring.dispatcher.snapshot().own_limits, 4_000);
    // The first one runs on.
    for done in 1..1_000 {
        ring.now = Time(ring.now.0 + 1_000);
        let slot = *ring.workers[&1].running.keys().next_back().expect("tasks run");
        ring.finish(1, slot, ok("t"));
        assert_eq!(ring.records().len(), done);
    }
    let own = ring.dispatcher.snapshot().own_limits;
    assert!((2_990..=3_010).contains(&own), "{own}");
    // A task whose record is stored is read again, and has none either.
    ring.restart_ventilator(Start::Resume);
    ring.rejoin(1, 4);
    ring.tasks_with(&all.repeat(1_000).into_iter().map(|limits| ("t", limits)).collect::<Vec<_>>());
    (0..3).for_each(|_| ring.pass(SECOND));
    assert_eq!(ring.dispatcher.snapshot().own_limits, own);
    ring.dispatcher.handle_drain();
    ring.settle();
    let own = ring.dispatcher.snapshot().own_limits;
    assert!((1..500).contains(&own), "{own}: what is not out is dropped");
    ring.finish_all();
    assert_eq!(ring.dispatcher.snapshot().own_limits, 0);
    ring.flush();
    ring.assert_over();
    // What comes after the end of input is dropped.
    ring.tasks_with(&[("t", retries(1))]);
    assert_eq!(ring.dispatcher.snapshot().own_limits, 0);
}

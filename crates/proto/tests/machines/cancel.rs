//! Cancel of one task: one record, whatever its worker does and whoever is lost.

use tradewind_proto::collector::Order;
use tradewind_proto::dispatcher::CancelAnswer;
use tradewind_proto::limits::ROLL_CALL_GRACE;
use tradewind_proto::message::{News, Start, Status, ToVentilator};
use tradewind_proto::{Seq, SessionId};

use crate::{failed, ok};
use tradewind_testkit::Ring;

const SECOND: u64 = 1_000_000;
const HOP_US: u64 = 50_000;
const TASKS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Six tasks, of which a worker runs the first two. The records are in the order in which they are made.
fn running() -> Ring {
    let mut ring = Ring::new(3, Order::Completion);
    // The sink has been there for long enough to know all workers.
    ring.pass(SECOND);
    ring.pass(ROLL_CALL_GRACE.as_micros() as u64);
    ring.join(1, 2);
    ring.tasks(&TASKS);
    assert_eq!(ring.running(1), [(0, 1), (1, 1)]);
    ring
}

#[track_caller]
fn cancel(ring: &mut Ring, seq: u64, wanted: CancelAnswer) {
    assert_eq!(ring.dispatcher.handle_cancel_task(Seq(seq)), wanted, "task {seq}");
    ring.settle();
}

fn cancelled(ring: &Ring) -> Vec<u64> {
    let records = ring.records().into_iter();
    records.filter(|(_, status, _)| *status == Status::Cancelled).map(|(seq, ..)| seq).collect()
}

/// Ends the job: each task has one record, and these are cancelled.
#[track_caller]
fn end_well(mut ring: Ring, wanted: &[u64]) {
    ring.end_input();
    for id in ring.workers.keys().copied().collect::<Vec<_>>() {
        // The processes of tasks that were stopped have ended.
        let stopped = ring.workers[&id].stopped.clone();
        let slots = ring.workers[&id].running.iter();
        let slots =
            slots.filter(|(_, start)| stopped.contains(&(start.task.seq.0, start.task.attempt.0)));
        for slot in slots.map(|(slot, _)| *slot).collect::<Vec<_>>() {
            ring.finish(id, slot, failed());
        }
    }
    ring.finish_all();
    let mut records = ring.records();
    records.sort_unstable_by_key(|(seq, ..)| *seq);
    let seqs: Vec<u64> = records.iter().map(|(seq, ..)| *seq).collect();
    assert!(seqs.into_iter().eq(0..TASKS.len() as u64), "{records:?}");
    let mut cancelled = cancelled(&ring);
    cancelled.sort_unstable();
    assert_eq!(cancelled, wanted);
    ring.flush();
    ring.assert_over();
}

#[test]
fn a_task_that_waits_has_its_record_at_once() {
    let mut ring = running();
    ring.disk_is_stuck = true;
    for seq in [4, 2] {
        cancel(&mut ring, seq, CancelAnswer::Cancelled);
        cancel(&mut ring, seq, CancelAnswer::Cancelled);
    }
    ring.disk_is_stuck = false;
    ring.settle();
    assert_eq!(ring.records(), [(4, Status::Cancelled, 0), (2, Status::Cancelled, 0)]);
    cancel(&mut ring, 4, CancelAnswer::Ended);
    ring.finish(1, 0, ok("a"));
    assert_eq!(ring.running(1), [(3, 1), (1, 1)], "it is passed over");
    assert_eq!(ring.workers[&1].stopped, []);
    end_well(ring, &[2, 4]);
}

#[test]
fn a_task_that_is_to_be_retried_or_dispatched_again_is_not() {
    let mut ring = running();
    ring.finish(1, 0, failed());
    // In its backoff.
    cancel(&mut ring, 0, CancelAnswer::Cancelled);
    assert_eq!(ring.records(), [(0, Status::Cancelled, 1)]);
    ring.kill(1);
    // Requeued.
    cancel(&mut ring, 1, CancelAnswer::Cancelled);
    ring.join(2, 1);
    ring.pass(20 * SECOND);
    assert_eq!(cancelled(&ring), [0, 1]);
    assert_eq!(ring.running(2), [(2, 2)], "the next one, of which an attempt was lost");
    end_well(ring, &[0, 1]);
}

#[test]
fn a_task_that_runs_is_stopped_and_its_result_makes_no_second_record() {
    let mut ring = running();
    cancel(&mut ring, 1, CancelAnswer::Stopping);
    assert_eq!(ring.records(), [(1, Status::Cancelled, 1)]);
    assert_eq!(ring.workers[&1].stopped, [(1, 1)]);
    // It ended all the same.
    ring.finish(1, 1, ok("b"));
    assert_eq!(ring.running(1), [(0, 1), (2, 1)], "its slot is free");
    assert_eq!(ring.dispatcher.snapshot().workers[0].out, 2);
    assert_eq!(ring.sink.collector.snapshot().duplicates, 0);
    end_well(ring, &[1]);
}

#[test]
fn a_task_that_waits_at_a_worker_is_handed_back() {
    let mut ring = running();
    // The worker is quick, and has a queue.
    ring.tasks(&["t"; 200]);
    while ring.workers[&1].executor.snapshot().queued < 4 {
        ring.now = tradewind_proto::Time(ring.now.0 + 2_000);
        ring.finish_after(1, 0, 2_000, ok("t"));
        ring.finish_after(1, 1, 2_000, ok("t"));
    }
    let last = ring.running(1).into_iter().map(|(seq, _)| seq).max().expect("tasks run") + 2;
    let before = ring.workers[&1].started;
    cancel(&mut ring, last, CancelAnswer::Stopping);
    assert_eq!(cancelled(&ring), [last]);
    assert_eq!(ring.workers[&1].stopped, []);
    ring.finish_all();
    assert_eq!(ring.records().len(), 206);
    assert_eq!(cancelled(&ring), [last]);
    assert_eq!(ring.workers[&1].started - before, ring.records().len() as u64 - 1 - before);
}

#[test]
fn a_task_that_was_received_or_stored_or_that_does_not_exist_is_left_alone() {
    let mut ring = running();
    ring.finish(1, 0, ok("a"));
    cancel(&mut ring, 0, CancelAnswer::Ended);
    ring.disk_is_stuck = true;
    ring.finish(1, 1, ok("b"));
    cancel(&mut ring, 1, CancelAnswer::Ended);
    ring.dispatcher.handle_unfit_task("too large".to_owned());
    cancel(&mut ring, 6, CancelAnswer::Ended);
    ring.end_input();
    cancel(&mut ring, 7, CancelAnswer::Unknown);
    ring.disk_is_stuck = false;
    ring.settle();
    ring.finish_all();
    assert_eq!(cancelled(&ring), []);
    assert_eq!(ring.records().len(), 7);
}

#[test]
fn a_result_that_is_on_its_way_is_the_record() {
    let mut ring = running();
    ring.hop = std::time::Duration::from_micros(HOP_US);
    ring.finish(1, 1, ok("b"));
    ring.pass(HOP_US / 2);
    cancel(&mut ring, 1, CancelAnswer::Stopping);
    ring.pass(4 * HOP_US);
    assert_eq!(ring.records(), [(1, Status::Ok, 1)]);
    ring.hop = std::time::Duration::ZERO;
    end_well(ring, &[]);
}

#[test]
fn a_result_that_comes_after_the_cancel_is_a_duplicate() {
    let mut ring = running();
    ring.hop = std::time::Duration::from_micros(HOP_US);
    cancel(&mut ring, 1, CancelAnswer::Stopping);
    ring.pass(HOP_US / 2);
    // Before the worker hears of it.
    ring.finish(1, 1, ok("b"));
    ring.pass(4 * HOP_US);
    assert_eq!(ring.records(), [(1, Status::Cancelled, 1)]);
    assert_eq!(ring.sink.collector.snapshot().duplicates, 1);
    assert_eq!(ring.running(1), [(0, 1), (2, 1)], "its slot is free");
    ring.hop = std::time::Duration::ZERO;
    end_well(ring, &[1]);
}

#[test]
fn a_failure_that_comes_after_the_cancel_brings_nothing_back() {
    let mut ring = running();
    ring.hop = std::time::Duration::from_micros(HOP_US);
    ring.finish(1, 1, failed());
    ring.pass(HOP_US / 2);
    cancel(&mut ring, 1, CancelAnswer::Stopping);
    ring.pass(20 * SECOND);
    assert_eq!(ring.records(), [(1, Status::Cancelled, 1)]);
    assert_eq!(ring.running(1), [(0, 1), (2, 1)]);
    ring.hop = std::time::Duration::ZERO;
    end_well(ring, &[1]);
}

#[test]
fn a_cancel_reaches_the_sink_when_the_connection_is_back() {
    for is_sink_lost in [false, true] {
        let mut ring = running();
        ring.cut_sink_off();
        cancel(&mut ring, 1, CancelAnswer::Stopping);
        cancel(&mut ring, 4, CancelAnswer::Cancelled);
        assert_eq!(ring.records(), []);
        assert_eq!(ring.workers[&1].stopped, [(1, 1)], "the worker hears of it at once");
        if is_sink_lost {
            ring.restart_sink(Order::Completion);
        } else {
            ring.connect_sink();
        }
        assert_eq!(cancelled(&ring), [1, 4]);
        end_well(ring, &[1, 4]);
    }
}

#[test]
fn a_cancel_outlives_a_sink_that_had_not_written_it() {
    let mut ring = running();
    ring.disk_is_stuck = true;
    cancel(&mut ring, 1, CancelAnswer::Stopping);
    cancel(&mut ring, 4, CancelAnswer::Cancelled);
    ring.disk_is_stuck = false;
    ring.restart_sink(Order::Completion);
    assert_eq!(cancelled(&ring), [1, 4]);
    end_well(ring, &[1, 4]);
}

// Fails unless a task that was cancelled is announced again to a worker that says that it has it.
#[test]
fn a_worker_that_missed_the_cancel_hears_of_it_when_it_says_what_it_holds() {
    let mut ring = running();
    (ring.swallows, ring.disk_is_stuck) = (Some(1), true);
    cancel(&mut ring, 1, CancelAnswer::Stopping);
    assert_eq!(ring.workers[&1].stopped, []);
    ring.swallows = None;
    assert_eq!(ring.records(), []);
    ring.say(ToVentilator::Relay { session: SessionId(1), news: News::Reconnected });
    assert_eq!(ring.workers[&1].stopped, [(1, 1)]);
    ring.disk_is_stuck = false;
    ring.settle();
    assert_eq!(ring.records(), [(1, Status::Cancelled, 1)]);
    end_well(ring, &[1]);
}

#[test]
fn a_cancelled_task_does_not_come_back_when_its_worker_is_lost() {
    let mut ring = running();
    cancel(&mut ring, 1, CancelAnswer::Stopping);
    ring.kill(1);
    ring.join(2, 2);
    ring.pass(20 * SECOND);
    assert_eq!(ring.records(), [(1, Status::Cancelled, 1)]);
    end_well(ring, &[1]);
}

#[test]
fn a_task_is_cancelled_as_soon_as_it_is_read() {
    let mut ring = Ring::new(3, Order::Completion);
    ring.join(1, 2);
    for seq in [0, 4] {
        cancel(&mut ring, seq, CancelAnswer::Unread);
        cancel(&mut ring, seq, CancelAnswer::Unread);
    }
    ring.tasks(&TASKS);
    assert_eq!(ring.records(), [(0, Status::Cancelled, 0), (4, Status::Cancelled, 0)]);
    assert_eq!(ring.running(1), [(1, 1), (2, 1)]);
    end_well(ring, &[0, 4]);
}

#[test]
fn a_new_ventilator_cancels_what_is_held_and_not_what_is_stored() {
    let mut ring = running();
    ring.finish(1, 0, ok("a"));
    assert_eq!(ring.running(1), [(2, 1), (1, 1)]);
    ring.restart_ventilator(Start::Resume);
    for seq in [0, 1, 4] {
        cancel(&mut ring, seq, CancelAnswer::Unread);
    }
    ring.rejoin(1, 2);
    ring.tasks(&TASKS);
    ring.end_input();
    assert_eq!(cancelled(&ring), [1, 4]);
    assert_eq!(ring.workers[&1].stopped, [(1, 1)]);
    cancel(&mut ring, 0, CancelAnswer::Ended);
    end_well(ring, &[1, 4]);
}

// Fails if what was cancelled before its turn does not count as begun: the output has its record already.
#[test]
fn a_drained_job_has_all_tasks_before_one_that_was_cancelled() {
    let mut ring = running();
    cancel(&mut ring, 3, CancelAnswer::Cancelled);
    ring.dispatcher.handle_drain();
    ring.settle();
    ring.finish_all();
    let mut seqs: Vec<u64> = ring.records().iter().map(|(seq, ..)| *seq).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, [0, 1, 2, 3]);
    ring.flush();
    ring.assert_over();
}

//! A ventilator that restarts and goes on where the one before it was.

use tradewind_proto::collector::Order;
use tradewind_proto::dispatcher::{Ended, TaskLimits};
use tradewind_proto::limits::ROLL_CALL_GRACE;
use tradewind_proto::message::{Start, Status};
use tradewind_proto::{Payload, SessionId, TaskHash};

use crate::ok;
use tradewind_testkit::Ring;

const TASKS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Six tasks at a worker with two slots, of which it has finished the first, and runs two.
fn begun(order: Order) -> Ring {
    let mut ring = Ring::new(0, order);
    // The sink has been there for long enough to know all workers.
    ring.pass(1_000_000);
    ring.pass(ROLL_CALL_GRACE.as_micros() as u64);
    ring.join(1, 2);
    ring.tasks(&TASKS);
    ring.finish(1, 0, ok("a"));
    assert_eq!(ring.running(1), [(2, 1), (1, 1)]);
    ring
}

fn end_input(ring: &mut Ring) {
    ring.dispatcher.handle_input_end();
    ring.settle();
}

fn end_well(mut ring: Ring) {
    ring.finish_all();
    let mut seqs: Vec<(u64, Status)> = ring.records().iter().map(|r| (r.0, r.1)).collect();
    seqs.sort_unstable_by_key(|(seq, _)| *seq);
    assert_eq!(seqs, (0..TASKS.len() as u64).map(|seq| (seq, Status::Ok)).collect::<Vec<_>>());
    ring.flush();
    ring.assert_over();
}

#[track_caller]
fn assert_refused(ring: &Ring, wanted: &str) {
    let ended = ring.dispatcher.ended();
    assert!(
        matches!(ended, Some(Ended::Refused(reason)) if reason.contains(wanted)),
        "{wanted:?}: {ended:?}"
    );
    for worker in ring.workers.values() {
        assert!(!worker.executor.is_empty(), "it may still be resumed");
        assert_eq!(worker.stopped, []);
    }
    assert!(!ring.sink.collector.is_done(), "it may still be resumed");
}

#[test]
fn what_is_stored_or_held_is_not_run_again() {
    for order in [Order::Seq, Order::Completion] {
        let mut ring = begun(order);
        ring.restart_ventilator(Start::Resume);
        ring.rejoin(1, 2);
        ring.tasks(&TASKS);
        assert_eq!(ring.running(1), [(2, 1), (1, 1)], "nothing new before all is read");
        end_input(&mut ring);
        ring.finish(1, 1, ok("b"));
        assert_eq!(ring.running(1), [(2, 1), (3, 1)], "the rest goes on");
        end_well(ring);
    }
}

#[test]
fn what_was_stored_meanwhile_is_not_run_again() {
    let mut ring = begun(Order::Seq);
    ring.restart_ventilator(Start::Resume);
    // All of this while the worker and the ventilator have not found one another.
    ring.tasks(&TASKS[..2]);
    ring.finish(1, 0, ok("c"));
    ring.finish(1, 1, ok("b"));
    assert_eq!(ring.records().len(), 3);
    ring.rejoin(1, 2);
    ring.tasks(&TASKS[2..]);
    end_input(&mut ring);
    assert_eq!(ring.running(1), [(4, 1), (3, 1)]);
    end_well(ring);
}

#[test]
fn an_input_that_pauses_does_not_hold_up_the_job() {
    let mut ring = begun(Order::Seq);
    ring.restart_ventilator(Start::Resume);
    ring.rejoin(1, 2);
    ring.tasks(&TASKS[..4]);
    for _ in 0..3 {
        ring.pass(1_000_000);
    }
    ring.finish(1, 0, ok("c"));
    assert_eq!(ring.running(1), [(3, 1), (1, 1)], "what was read goes on");
    ring.tasks(&TASKS[4..]);
    end_input(&mut ring);
    end_well(ring);
}

#[test]
fn nothing_to_resume_is_a_new_job() {
    let mut ring = Ring::with(Order::Seq, |config| config.start = Start::Resume);
    ring.join(1, 2);
    ring.tasks(&TASKS);
    assert_eq!(ring.running(1), [(0, 1), (1, 1)]);
    end_input(&mut ring);
    end_well(ring);
}

#[test]
fn a_changed_input_is_refused_where_it_differs() {
    let check = |tasks: &[&'static str], wanted: &str| {
        let mut ring = begun(Order::Seq);
        ring.finish(1, 1, ok("b"));
        ring.restart_ventilator(Start::Resume);
        ring.rejoin(1, 2);
        ring.tasks(tasks);
        ring.dispatcher.handle_input_end();
        ring.settle();
        assert_refused(&ring, wanted);
    };
    check(&["x", "b", "c", "d", "e", "f"], "number 1 of its tasks");
    check(&["a", "x", "c", "d", "e", "f"], "number 2 of its tasks");
    // Stored up to here; these run.
    check(&["a", "b", "x", "d", "e", "f"], "number 3 of its tasks");
    check(&["a", "b", "c", "x", "e", "f"], "number 4 of its tasks");
    check(&["a"], "has 1 task, and the output has records up to task 2");
}

#[test]
fn an_input_with_positions_is_refused_where_tasks_are_at_others() {
    let read = |ring: &mut Ring, positions: std::ops::Range<u64>| {
        for position in positions {
            let hash = TaskHash::at(0, position, b"same");
            let limits = TaskLimits::default();
            ring.dispatcher.handle_task_at(Payload::from(&b"same"[..]), hash, limits);
        }
        end_input(ring);
    };
    let begin = || {
        let mut ring = Ring::new(0, Order::Seq);
        ring.pass(1_000_000);
        ring.pass(ROLL_CALL_GRACE.as_micros() as u64);
        ring.join(1, 2);
        read(&mut ring, 10..16);
        ring.finish(1, 0, ok("same"));
        ring.restart_ventilator(Start::Resume);
        ring.rejoin(1, 2);
        ring
    };
    let mut ring = begin();
    read(&mut ring, 10..16);
    end_well(ring);
    // The first was removed meanwhile, and there is one more at the end.
    let mut ring = begin();
    read(&mut ring, 11..17);
    assert_refused(&ring, "number 1 of its tasks");
}

#[test]
fn the_right_input_is_taken_after_a_wrong_one() {
    let mut ring = begun(Order::Seq);
    ring.restart_ventilator(Start::Resume);
    ring.rejoin(1, 2);
    ring.tasks(&["x"]);
    end_input(&mut ring);
    assert_refused(&ring, "number 1 of its tasks");
    ring.restart_ventilator(Start::Resume);
    ring.rejoin(1, 2);
    ring.tasks(&TASKS);
    end_input(&mut ring);
    assert_eq!(ring.running(1), [(2, 1), (1, 1)]);
    end_well(ring);
}

#[test]
fn a_job_that_is_opened_anew_beside_another_is_refused() {
    let mut ring = begun(Order::Seq);
    ring.restart_ventilator(Start::New);
    ring.rejoin(1, 2);
    let ended = ring.dispatcher.ended();
    assert!(
        matches!(ended, Some(Ended::Refused(reason)) if reason.contains("--resume")),
        "{ended:?}"
    );
    assert_eq!(ring.workers[&1].stopped, [], "the other job can still be resumed");
    ring.restart_ventilator(Start::Resume);
    ring.rejoin(1, 2);
    ring.tasks(&TASKS);
    end_input(&mut ring);
    end_well(ring);
}

#[test]
fn workers_that_the_sink_knows_are_waited_for() {
    let mut ring = begun(Order::Seq);
    ring.join(2, 1);
    assert_eq!(ring.running(2), [(3, 1)]);
    ring.restart_ventilator(Start::Resume);
    ring.rejoin(1, 2);
    ring.tasks(&TASKS);
    end_input(&mut ring);
    ring.finish(1, 1, ok("b"));
    assert_eq!(ring.running(1), [(2, 1)], "somebody else may hold the rest");
    ring.rejoin(2, 1);
    assert_eq!(ring.running(1), [(2, 1), (4, 1)], "and holds one of them");
    assert_eq!(ring.running(2), [(3, 1)]);
    end_well(ring);
}

#[test]
fn a_worker_that_does_not_come_back_is_not_waited_for_for_ever() {
    let mut ring = begun(Order::Seq);
    ring.join(2, 1);
    ring.restart_ventilator(Start::Resume);
    ring.rejoin(1, 2);
    ring.tasks(&TASKS);
    end_input(&mut ring);
    ring.workers.remove(&2);
    ring.pass(ROLL_CALL_GRACE.as_micros() as u64);
    ring.finish(1, 1, ok("b"));
    assert_eq!(ring.running(1), [(2, 1), (3, 1)]);
    end_well(ring);
}

#[test]
fn both_may_restart_at_once() {
    let mut ring = begun(Order::Seq);
    ring.disk_is_stuck = true;
    ring.finish(1, 1, ok("b"));
    ring.disk_is_stuck = false;
    ring.restart_sink(Order::Seq);
    ring.restart_ventilator(Start::Resume);
    ring.tasks(&TASKS);
    end_input(&mut ring);
    ring.rejoin(1, 2);
    assert_eq!(ring.records().len(), 2, "what the sink had not written came again");
    // The sink is too new to say whether there are others.
    ring.finish(1, 0, ok("c"));
    ring.pass(ROLL_CALL_GRACE.as_micros() as u64);
    assert!(ring.running(1).iter().all(|(_, attempt)| *attempt == 1));
    end_well(ring);
}

#[test]
fn a_stop_before_the_job_goes_on_leaves_everything_as_it_was() {
    let mut ring = begun(Order::Seq);
    ring.restart_ventilator(Start::Resume);
    ring.rejoin(1, 2);
    ring.tasks(&TASKS[..2]);
    ring.dispatcher.handle_drain();
    ring.settle();
    assert_eq!(ring.dispatcher.ended(), Some(&Ended::Untouched));
    assert_eq!(ring.running(1), [(2, 1), (1, 1)]);
    assert!(!ring.sink.collector.is_done());
    ring.restart_ventilator(Start::Resume);
    ring.rejoin(1, 2);
    ring.tasks(&TASKS);
    end_input(&mut ring);
    end_well(ring);
}

#[test]
fn a_drain_after_a_resume_runs_only_what_was_begun() {
    let mut ring = begun(Order::Seq);
    ring.restart_ventilator(Start::Resume);
    ring.rejoin(1, 2);
    ring.tasks(&TASKS);
    end_input(&mut ring);
    ring.dispatcher.handle_drain();
    ring.settle();
    ring.finish_all();
    let seqs: Vec<u64> = ring.records().iter().map(|record| record.0).collect();
    // The window of the worker is its two slots: what it holds is finished, no more is begun.
    assert_eq!(seqs, [0, 1, 2]);
    assert!(!ring.sink.collector.is_whole(), "there is something left to resume");
    ring.flush();
    ring.assert_over();
}

#[test]
fn a_worker_that_dies_after_a_resume_loses_nothing() {
    let mut ring = begun(Order::Seq);
    ring.restart_ventilator(Start::Resume);
    ring.rejoin(1, 2);
    ring.tasks(&TASKS);
    end_input(&mut ring);
    ring.join(2, 2);
    ring.kill(1);
    ring.finish_all();
    let attempts: Vec<u32> = ring.records().iter().map(|record| record.2).collect();
    assert_eq!(attempts, [1, 2, 2, 1, 1, 1], "an attempt is never counted twice");
    assert_eq!(ring.dispatcher.snapshot().workers[0].session, SessionId(2));
}

#[test]
fn a_job_that_was_complete_ends_at_once() {
    let mut ring = begun(Order::Seq);
    end_input(&mut ring);
    ring.finish_all();
    ring.sink_is_mute = true;
    ring.flush();
    ring.restart_ventilator(Start::Resume);
    ring.sink_is_mute = false;
    ring.rejoin(1, 2);
    ring.tasks(&TASKS);
    end_input(&mut ring);
    assert_eq!(ring.records().len(), 6);
    ring.flush();
    ring.assert_over();
}

// Found by the simulator: the results of tasks that a resumed ventilator had not read yet stayed received
// when the sink that had them died, and nobody ran the tasks again. Fails without `forget_received_ahead`.
#[test]
fn what_only_a_dead_sink_had_comes_again_although_it_was_not_read_yet() {
    for is_worker_dead in [false, true] {
        let mut ring = begun(Order::Seq);
        ring.restart_ventilator(Start::Resume);
        ring.rejoin(1, 2);
        ring.tasks(&TASKS[..1]);
        for _ in 0..3 {
            ring.pass(1_000_000);
        }
        ring.finish(1, 0, ok("c"));
        assert_eq!(ring.records().len(), 1, "the third record waits for the second");
        if is_worker_dead {
            ring.kill(1);
        }
        ring.restart_sink(Order::Seq);
        ring.tasks(&TASKS[1..]);
        end_input(&mut ring);
        if is_worker_dead {
            ring.join(2, 2);
        }
        ring.pass(ROLL_CALL_GRACE.as_micros() as u64);
        end_well(ring);
    }
}

// Found by the simulator. Fails if a received task does not count as begun.
#[test]
fn a_task_that_was_received_once_is_begun_for_a_ventilator_that_did_not_dispatch_it() {
    let mut ring = begun(Order::Seq);
    ring.restart_ventilator(Start::Resume);
    ring.tasks(&TASKS);
    end_input(&mut ring);
    ring.finish(1, 0, ok("c"));
    // The worker is dead before its connection ends.
    ring.workers.remove(&1);
    ring.rejoin(1, 2);
    ring.restart_sink(Order::Seq);
    ring.kill(1);
    ring.dispatcher.handle_cancel();
    ring.settle();
    let ends: Vec<(u64, Status)> = ring.records().iter().map(|r| (r.0, r.1)).collect();
    assert_eq!(ends, [(0, Status::Ok), (1, Status::Cancelled), (2, Status::Cancelled)]);
}

//! Jobs without an end, whose input is a log that is trimmed from the front.

use tradewind_proto::Seq;
use tradewind_proto::collector::Order;
use tradewind_proto::dispatcher::Ended;
use tradewind_proto::limits::ROLL_CALL_GRACE;
use tradewind_proto::message::{Start, Status};

use crate::ok;
use tradewind_testkit::Ring;

/// Seq of the first task of the log.
const FIRST: u64 = 5_000_000_000;

const TASKS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Six tasks at a worker with two slots, of which it has finished the first, and runs two.
fn begun(order: Order, first: u64) -> Ring {
    let mut ring = Ring::starting_at(order, first);
    // The sink has been there for long enough to know all workers.
    ring.pass(1_000_000);
    ring.pass(ROLL_CALL_GRACE.as_micros() as u64);
    ring.join(1, 2);
    ring.tasks(&TASKS);
    ring.finish(1, 0, ok("a"));
    assert_eq!(ring.running(1), [(first + 2, 1), (first + 1, 1)]);
    ring
}

/// Starts another ventilator, whose log begins with this task and has those.
fn resume_at(ring: &mut Ring, first: u64, tasks: &[&'static str]) {
    ring.restart_ventilator_at(Start::Resume, first);
    read(ring, tasks);
}

/// Starts another ventilator, whose log begins with this task and has those, and another sink.
fn resume_both_at(ring: &mut Ring, order: Order, first: u64, tasks: &[&'static str]) {
    ring.restart_both_at(order, Start::Resume, first);
    read(ring, tasks);
    ring.pass(ROLL_CALL_GRACE.as_micros() as u64);
}

fn read(ring: &mut Ring, tasks: &[&'static str]) {
    ring.rejoin(1, 2);
    ring.tasks(tasks);
    // The log has no more tasks at the moment.
    for _ in 0..3 {
        ring.pass(1_000_000);
    }
}

/// Ends what runs; the records from this seq on are those of the tasks that were read, each once.
#[track_caller]
fn assert_each_once(ring: &mut Ring, seqs: std::ops::Range<u64>) {
    ring.finish_all();
    let mut records: Vec<(u64, Status)> = ring.records().iter().map(|r| (r.0, r.1)).collect();
    records.sort_unstable_by_key(|(seq, _)| *seq);
    let wanted: Vec<(u64, Status)> = seqs.map(|seq| (seq, Status::Ok)).collect();
    assert_eq!(records, wanted);
    assert_eq!(ring.dispatcher.ended(), None, "a queue does not end");
    assert!(ring.workers.values().all(|worker| worker.executor.is_empty()), "all is settled");
}

#[track_caller]
fn assert_refused(ring: &Ring, wanted: &str) {
    let ended = ring.dispatcher.ended();
    let is_wanted = matches!(ended, Some(Ended::Refused(reason)) if reason.contains(wanted));
    assert!(is_wanted, "{wanted:?}: {ended:?}");
}

#[test]
fn a_job_may_begin_at_any_seq_and_ends_as_others_do() {
    for order in [Order::Seq, Order::Completion] {
        let mut ring = begun(order, FIRST);
        assert_each_once(&mut ring, FIRST..FIRST + 6);
        ring.end_input();
        ring.flush();
        ring.assert_over();
        let (snapshot, counts) = (ring.dispatcher.snapshot(), ring.sink.collector.snapshot());
        assert_eq!((snapshot.settled, snapshot.read, snapshot.entries), (FIRST + 6, FIRST + 6, 0));
        assert_eq!(counts.stored.total(), 6, "what lies below has no record here");
    }
}

#[test]
fn a_log_is_read_and_compared_from_its_first_task_on() {
    for order in [Order::Seq, Order::Completion] {
        for trimmed_output in [0, 1] {
            let mut ring = begun(order, 0);
            ring.finish(1, 1, ok("b"));
            assert_eq!(ring.running(1), [(2, 1), (3, 1)]);
            ring.sink.trim(Seq(trimmed_output));
            resume_at(&mut ring, 1, &TASKS[1..]);
            assert_eq!(ring.sink.compared, 1, "task 1 is compared, and 0 is not in the log");
            assert_eq!(ring.running(1), [(2, 1), (3, 1)], "what is held goes on");
            assert_each_once(&mut ring, trimmed_output..6);
        }
    }
}

#[test]
fn a_sink_and_a_ventilator_that_start_together_go_on_from_the_trimmed_log() {
    for order in [Order::Seq, Order::Completion] {
        let mut ring = begun(order, 0);
        ring.finish(1, 1, ok("b"));
        ring.sink.trim(Seq(1));
        resume_both_at(&mut ring, order, 1, &TASKS[1..]);
        assert_eq!(ring.running(1), [(2, 1), (3, 1)], "what is held goes on");
        assert_each_once(&mut ring, 1..6);
    }
}

// Fails unless the sink hears that there is nothing to compare: it writes no record before.
#[test]
fn a_log_of_which_all_that_is_stored_was_trimmed_goes_on() {
    for (order, trimmed_output) in
        [Order::Seq, Order::Completion].map(|order| [(order, 0), (order, 3)]).concat()
    {
        let mut ring = begun(order, 0);
        ring.finish(1, 1, ok("b"));
        ring.finish(1, 0, ok("c"));
        ring.sink.trim(Seq(trimmed_output));
        resume_both_at(&mut ring, order, 3, &TASKS[3..]);
        assert_eq!(ring.sink.compared, 0);
        assert_each_once(&mut ring, trimmed_output..6);
    }
}

#[test]
fn an_output_that_was_trimmed_further_than_the_log_is_compared_from_its_own_first_task_on() {
    let mut ring = begun(Order::Completion, 0);
    ring.finish(1, 1, ok("b"));
    ring.sink.trim(Seq(2));
    resume_both_at(&mut ring, Order::Completion, 1, &TASKS[1..]);
    assert_each_once(&mut ring, 2..6);
}

#[test]
fn a_log_with_other_tasks_is_refused_where_it_differs() {
    let mut ring = begun(Order::Completion, FIRST);
    ring.finish(1, 1, ok("b"));
    resume_at(&mut ring, FIRST + 1, &["x", "c", "d", "e", "f"]);
    assert_refused(&ring, "number 5000000002 of its tasks");
    // A log that is one task short would have its tasks at other seqs.
    resume_at(&mut ring, FIRST + 1, &TASKS[2..]);
    assert_refused(&ring, "number 5000000002 of its tasks");
    resume_at(&mut ring, FIRST + 1, &TASKS[1..]);
    assert_each_once(&mut ring, FIRST..FIRST + 6);
}

#[test]
fn a_sink_without_the_records_of_what_was_trimmed_is_refused() {
    let mut ring = begun(Order::Completion, 0);
    ring.finish(1, 1, ok("b"));
    ring.sink.written.remove(0);
    resume_both_at(&mut ring, Order::Completion, 2, &TASKS[2..]);
    assert_refused(&ring, "no longer has the record of task 0");
}

#[test]
fn a_log_may_be_trimmed_up_to_the_first_task_that_is_not_stored() {
    let mut ring = begun(Order::Completion, FIRST);
    let mark = |ring: &Ring| ring.dispatcher.low_water_mark().0 - FIRST;
    assert_eq!(mark(&ring), 1);
    // Task 1 runs on.
    for _ in 2..6 {
        ring.finish(1, 0, ok("x"));
        assert_eq!(mark(&ring), 1);
    }
    ring.disk_is_stuck = true;
    ring.finish(1, 1, ok("x"));
    assert_eq!(mark(&ring), 1, "received is not stored");
    ring.disk_is_stuck = false;
    ring.settle();
    assert_eq!(mark(&ring), 6);
    ring.tasks(&["g"]);
    assert_eq!(mark(&ring), 6);
    ring.finish_all();
    assert_eq!(mark(&ring), 7);
}

#[test]
fn a_log_is_not_trimmed_of_what_was_not_compared() {
    let mut ring = begun(Order::Completion, FIRST);
    ring.finish(1, 1, ok("b"));
    ring.finish(1, 0, ok("c"));
    ring.restart_ventilator_at(Start::Resume, FIRST + 1);
    let mark = |ring: &Ring| ring.dispatcher.low_water_mark().0 - FIRST;
    assert_eq!(mark(&ring), 1);
    ring.tasks(&TASKS[1..2]);
    assert_eq!(mark(&ring), 2, "compared");
    ring.sink_is_mute = true;
    ring.tasks(&["x"]);
    assert_eq!(mark(&ring), 2, "it may not be what the sink has a record of");
    ring.sink_is_mute = false;
    ring.settle();
    assert_refused(&ring, "number 5000000003 of its tasks");
    assert_eq!(mark(&ring), 2);
}

#[test]
fn tasks_that_are_recorded_are_neither_read_nor_compared_however_many_they_are() {
    for order in [Order::Seq, Order::Completion] {
        // The second task runs on, and those behind it are stored: with their order, when it is.
        let mut ring = begun(order, FIRST);
        (2..6).for_each(|_| ring.finish(1, 0, ok("x")));
        let stored_behind = if order == Order::Completion { 4 } else { 0 };
        ring.restart_ventilator_at(Start::Resume, 0);
        ring.rejoin(1, 2);
        ring.dispatcher.handle_cancel_task(Seq(FIRST - 1));
        ring.dispatcher.handle_recorded(FIRST - 1);
        ring.dispatcher.handle_recorded(2);
        ring.tasks(&TASKS[1..2]);
        ring.dispatcher.handle_recorded(stored_behind);
        ring.tasks(&TASKS[2 + stored_behind as usize..]);
        let snapshot = ring.dispatcher.snapshot();
        assert_eq!((snapshot.read, snapshot.settled), (FIRST + 6, FIRST + 1 + stored_behind));
        assert!(snapshot.entries <= 5, "{} tasks take up memory", snapshot.entries);
        assert_eq!(ring.dispatcher.low_water_mark(), Seq(FIRST + 1));
        (0..3).for_each(|_| ring.pass(1_000_000));
        assert_eq!(ring.sink.compared, 0);
        assert_eq!(ring.running(1), [(FIRST + 1, 1)], "what is held goes on");
        ring.tasks(&["g"]);
        assert_each_once(&mut ring, FIRST..FIRST + 7);
        assert_eq!(ring.dispatcher.low_water_mark(), Seq(FIRST + 7));
    }
}

#[test]
fn many_recorded_tasks_leave_those_before_them_as_they_are() {
    let mut ring = begun(Order::Completion, FIRST);
    ring.restart_ventilator_at(Start::Resume, 0);
    ring.rejoin(1, 2);
    ring.dispatcher.handle_recorded(1);
    // The sink counts those as stored as well, and no worker has one of them.
    ring.dispatcher.handle_unfit_task("no".to_owned());
    ring.dispatcher.handle_recorded(FIRST - 2);
    ring.dispatcher.handle_recorded(1);
    ring.tasks(&TASKS[1..]);
    (0..3).for_each(|_| ring.pass(1_000_000));
    assert_each_once(&mut ring, FIRST..FIRST + 6);
    assert_eq!(ring.dispatcher.snapshot().settled, FIRST + 6);
}

#[test]
fn a_sink_without_the_record_of_a_recorded_task_is_refused() {
    let mut ring = begun(Order::Completion, 0);
    ring.finish(1, 0, ok("c"));
    ring.sink.written.retain(|record| record.result.seq != Seq(2));
    ring.restart_both_at(Order::Completion, Start::Resume, 1);
    ring.rejoin(1, 2);
    ring.tasks(&TASKS[1..2]);
    ring.dispatcher.handle_recorded(1);
    ring.tasks(&TASKS[3..]);
    (0..3).for_each(|_| ring.pass(1_000_000));
    assert_refused(&ring, "no longer has the record of task 2");
}

#[test]
fn a_job_that_is_the_ventilators_own_is_resumed_whether_or_not_the_sink_has_heard_of_it() {
    for has_begun in [false, true] {
        let order = Order::Completion;
        let mut ring = if has_begun { begun(order, 0) } else { Ring::starting_at(order, 0) };
        ring.restart_own_ventilator(0);
        if has_begun {
            ring.rejoin(1, 2);
        } else {
            ring.join(1, 2);
        }
        ring.tasks(&TASKS);
        // The log has no more tasks at the moment; a sink that is new does not know its workers yet.
        for _ in 0..20 {
            ring.pass(1_000_000);
        }
        assert_eq!(ring.dispatcher.ended(), None);
        let wanted = if has_begun { [(2, 1), (1, 1)] } else { [(0, 1), (1, 1)] };
        assert_eq!(ring.running(1), wanted, "what is held goes on: {has_begun}");
        assert_each_once(&mut ring, 0..6);
        assert_eq!(ring.dispatcher.low_water_mark(), Seq(6));
        assert_eq!(ring.dispatcher.snapshot().low_water_mark, Seq(6));
    }
}

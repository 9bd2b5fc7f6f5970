//! A task that takes longer than all others together holds up none of them.

use tradewind_proto::Payload;
use tradewind_proto::SessionId;
use tradewind_proto::collector::Order;
use tradewind_proto::limits::{ROLL_CALL_GRACE, UNSETTLED_TASKS_MAX};
use tradewind_proto::message::{News, Outcome, Start, Status, ToVentilator};

use tradewind_testkit::Ring;

/// Tasks that memory may be used for, beside a straggler.
const ENTRIES_MAX: u64 = UNSETTLED_TASKS_MAX;

/// Reads input and ends all tasks but the first, until so many are stored.
fn run_past_the_first(ring: &mut Ring, read: &mut u64, count: u64) {
    while ring.sink.written.len() < count as usize {
        let room = ring.dispatcher.input_room().min(count + 1 - *read);
        (0..room).for_each(|_| ring.dispatcher.handle_task(task()));
        *read += room;
        ring.settle();
        let before = ring.sink.written.len();
        end_all_but_the_first(ring);
        assert!(room > 0 || ring.sink.written.len() > before, "{before} of {count} are stored");
        let entries = ring.dispatcher.snapshot().entries;
        assert!(entries <= ENTRIES_MAX, "{entries} tasks take up memory");
    }
}

/// Ends once what runs, but for the first task.
fn end_all_but_the_first(ring: &mut Ring) {
    let ids: Vec<u64> = ring.workers.keys().copied().collect();
    for id in ids {
        // As a worker of short tasks does: results are said together.
        for _ in 0..2_000 {
            let worker = ring.workers.get_mut(&id).expect("the worker is there");
            let running = worker.running.iter().find(|(_, start)| start.task.seq.0 > 0);
            let Some(slot) = running.map(|(slot, _)| *slot) else { break };
            ring.finish_quietly(id, slot, Outcome::ok(task()));
        }
    }
    ring.now = tradewind_proto::Time(ring.now.0 + 2_000);
    ring.settle();
}

fn task() -> Payload {
    Payload::from(b"t".as_slice())
}

/// The first task runs at worker 1, and so many others have their records.
fn a_straggler(order: Order, count: u64) -> Ring {
    let mut ring = Ring::new(0, order);
    // The sink has been there for long enough to know all workers.
    ring.pass(1_000_000);
    ring.pass(ROLL_CALL_GRACE.as_micros() as u64);
    ring.join(1, 2);
    run_past_the_first(&mut ring, &mut 0, count);
    assert_eq!(ring.records().len() as u64, count);
    assert!(ring.running(1).contains(&(0, 1)), "the first still runs");
    ring
}

/// The first task ends, and with it the job.
fn end_well(mut ring: Ring, count: u64) {
    ring.dispatcher.handle_input_end();
    ring.settle();
    ring.finish_all();
    let mut seqs: Vec<u64> = ring.records().iter().map(|record| record.0).collect();
    seqs.sort_unstable();
    assert!(seqs.into_iter().eq(0..=count), "each task has its record");
    assert!(ring.records().iter().all(|record| record.1 == Status::Ok));
    ring.flush();
    ring.assert_over();
}

#[test]
fn a_million_tasks_are_run_while_the_first_one_is() {
    let count = 1_000_000;
    let ring = a_straggler(Order::Completion, count);
    let snapshot = ring.dispatcher.snapshot();
    assert_eq!((snapshot.settled, snapshot.read), (count, count + 1));
    // What is settled is forgotten.
    assert!(snapshot.entries <= 4_096, "{} tasks take up memory", snapshot.entries);
    assert_eq!(snapshot.kept_bytes, 1);
    assert_eq!(ring.workers[&1].executor.snapshot().retained, 0);
    end_well(ring, count);
}

const COUNT: u64 = 20_000;

#[test]
fn a_new_sink_has_what_was_stored_beside_a_straggler() {
    let mut ring = a_straggler(Order::Completion, COUNT);
    ring.restart_sink(Order::Completion);
    assert_eq!(ring.running(1), [(0, 1)], "nothing runs again");
    end_well(ring, COUNT);
}

#[test]
fn a_new_ventilator_reads_past_what_was_stored_beside_a_straggler() {
    let mut ring = a_straggler(Order::Completion, COUNT);
    ring.restart_ventilator(Start::Resume);
    ring.rejoin(1, 2);
    let mut read = 0;
    while ring.dispatcher.snapshot().read < COUNT + 1 {
        let room = ring.dispatcher.input_room().min(COUNT + 1 - read);
        (0..room).for_each(|_| ring.dispatcher.handle_task(task()));
        read += room;
        ring.settle();
        let entries = ring.dispatcher.snapshot().entries;
        assert!(entries <= 4_096, "{entries} tasks take up memory");
    }
    ring.dispatcher.handle_input_end();
    ring.settle();
    assert_eq!(ring.running(1), [(0, 1)], "nothing runs again");
    end_well(ring, COUNT);
}

#[test]
fn a_straggler_whose_worker_is_lost_runs_again_and_nothing_else_does() {
    let mut ring = a_straggler(Order::Completion, COUNT);
    ring.join(2, 2);
    ring.kill(1);
    assert_eq!(ring.running(2), [(0, 2)]);
    end_well(ring, COUNT);
}

#[test]
fn a_worker_keeps_its_straggler_when_it_is_asked_what_it_holds() {
    let mut ring = a_straggler(Order::Completion, COUNT);
    ring.say(ToVentilator::Relay { session: SessionId(1), news: News::Reconnected });
    assert_eq!(ring.running(1), [(0, 1)]);
    assert_eq!(ring.dispatcher.snapshot().workers[0].out, 1);
    end_well(ring, COUNT);
}

#[test]
fn what_is_stored_beside_a_straggler_is_missed_in_another_output() {
    let mut ring = a_straggler(Order::Completion, COUNT);
    // Somebody took a record out of the output.
    ring.sink.written.remove(9_000);
    ring.restart_sink(Order::Completion);
    let ended = format!("{:?}", ring.dispatcher.ended());
    assert!(ended.contains("no longer has the record of task"), "{ended}");
}

#[test]
fn tasks_that_are_far_apart_take_up_their_own_memory_only() {
    let mut ring = Ring::new(0, Order::Completion);
    ring.join(1, 20);
    let (mut read, mut seen) = (0, 0);
    while read < 200_000 {
        let room = ring.dispatcher.input_room().min(1_000);
        (0..room).for_each(|_| ring.dispatcher.handle_task(task()));
        read += room;
        ring.settle();
        // Of every ten thousand tasks one never ends.
        loop {
            let worker = &ring.workers[&1];
            let ends = |seq: u64| !seq.is_multiple_of(10_000);
            let next = worker.running.iter().find(|(_, start)| ends(start.task.seq.0));
            let Some((slot, _)) = next else { break };
            ring.finish_quietly(1, *slot, Outcome::ok(task()));
        }
        ring.now = tradewind_proto::Time(ring.now.0 + 2_000);
        ring.settle();
        seen = seen.max(ring.dispatcher.snapshot().entries);
    }
    let mut running: Vec<u64> = ring.running(1).into_iter().map(|(seq, _)| seq).collect();
    running.sort_unstable();
    assert!(running.into_iter().eq((0..20).map(|place| place * 10_000)));
    assert!(seen < UNSETTLED_TASKS_MAX, "{seen}");
}

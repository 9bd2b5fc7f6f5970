//! What a sink holds, by its bytes, and what it leaves to the workers.

use bytes::Bytes;
use tradewind_proto::collector::Order;
use tradewind_proto::limits::HEARTBEAT_INTERVAL;
use tradewind_proto::message::{News, Outcome, Start, TaskResult, ToSink, ToVentilator};
use tradewind_proto::{Attempt, Payload, Seq, SessionId, TaskHash, Time};

use crate::failed;
use tradewind_testkit::{Accepts, JOB, Ring, Sink, tag};

const OUTPUT_BYTES: u64 = 1000;
const WORKER: SessionId = SessionId(2);

fn result(seq: u64, output: Payload) -> TaskResult {
    TaskResult {
        seq: Seq(seq),
        attempt: Attempt(1),
        last: true,
        tag: tag(WORKER.0, seq, TaskHash(1)),
        started_us: 1,
        ran_us: 1,
        task_bytes: 1,
        task_hash: TaskHash(1),
        outcome: Outcome::ok(output),
        reported: None,
    }
}

fn output() -> Payload {
    Payload::from(vec![7; OUTPUT_BYTES as usize])
}

/// A sink with an open job, whose disk does what a test says.
fn sink(order: Order) -> Sink {
    let mut sink = Sink::new(order, None);
    sink.is_slow = true;
    sink.collector.handle_ventilator_connected();
    sink.collector.handle_worker_connected(WORKER, "w");
    sink.collector.handle_message(ToSink::JobOpen {
        job: JOB,
        name: String::new(),
        start: Start::New,
        stage: String::new(),
        is_untouched: true,
    });
    sink.drive(Time(0), Accepts::ALL, |_| {});
    sink
}

fn take(sink: &mut Sink, results: Vec<TaskResult>) {
    let results = results.into();
    sink.collector.handle_message(ToSink::Results { job: JOB, session: WORKER, results });
    sink.drive(Time(0), Accepts::ALL, |_| {});
    sink.collector.check_invariants();
}

/// Lets a heartbeat pass. Returns how often the sink has asked for the results of its worker.
fn beat(sink: &mut Sink, beats: &mut u32) -> usize {
    *beats += 1;
    let now = Time(0) + HEARTBEAT_INTERVAL * *beats;
    sink.collector.handle_timeout(now);
    let mut asked = 0;
    sink.drive(now, Accepts::ALL, |message| {
        let again = ToVentilator::Relay { session: WORKER, news: News::Reconnected };
        asked += usize::from(message == again);
    });
    asked
}

#[test]
fn a_result_without_room_is_left_to_its_worker_and_asked_for_later() {
    let each = result(0, output()).held_bytes();
    let mut sink = sink(Order::Seq);
    let mut beats = 0;
    sink.collector.set_taken_bytes_max(10 * each);
    // One by one, in a message, and in one with a gap.
    (1..=5).for_each(|seq| take(&mut sink, vec![result(seq, output())]));
    take(&mut sink, (6..=15).map(|seq| result(seq, output())).collect());
    take(&mut sink, [20, 22].map(|seq| result(seq, output())).into());
    assert_eq!(sink.collector.snapshot().held_bytes, 10 * each);
    assert_eq!(beat(&mut sink, &mut beats), 0, "there is no room for it");

    // All of them wait for this one.
    take(&mut sink, vec![result(0, output())]);
    assert_eq!(sink.collector.snapshot().held_bytes, 11 * each);
    while sink.write(10) {}
    assert_eq!(sink.written.len(), 11);
    assert_eq!(beat(&mut sink, &mut beats), 1);
    assert_eq!(beat(&mut sink, &mut beats), 0, "the ventilator knows");
    take(&mut sink, (0..=19).map(|seq| result(seq, output())).collect());
    while sink.write(10) {}
    assert_eq!(sink.written.len(), 20);
    assert!(sink.written.iter().map(|record| record.seq.0).eq(0..20));
}

#[test]
fn the_result_that_all_others_wait_for_is_asked_for_though_there_is_no_room() {
    let each = result(0, output()).held_bytes();
    let mut sink = sink(Order::Seq);
    let mut beats = 0;
    sink.collector.set_taken_bytes_max(3 * each);
    take(&mut sink, [0, 2, 3, 1].map(|seq| result(seq, output())).into());
    assert_eq!(sink.collector.snapshot().held_bytes, 3 * each);
    assert_eq!(beat(&mut sink, &mut beats), 0, "the first may do");
    sink.write(1);
    assert_eq!(sink.written.len(), 1);
    assert_eq!(beat(&mut sink, &mut beats), 1);
    take(&mut sink, vec![result(1, output())]);
    while sink.write(10) {}
    assert_eq!(sink.written.len(), 4);
}

// Fails if each result in its turn is taken while the disk stands still.
#[test]
fn what_is_not_written_has_a_bound_in_any_order() {
    let each = result(0, output()).held_bytes();
    for order in [Order::Seq, Order::Completion] {
        let mut sink = sink(order);
        sink.collector.set_taken_bytes_max(3 * each);
        (0..100).for_each(|seq| take(&mut sink, vec![result(seq, output())]));
        assert_eq!(sink.collector.snapshot().held_bytes, 3 * each, "{order:?}");
    }
}

// Fails if a record keeps the memory of all that came in its message.
#[test]
fn a_record_does_not_keep_the_rest_of_its_message() {
    let mut sink = sink(Order::Seq);
    take(&mut sink, vec![result(0, output())]);
    let frame = Bytes::from(vec![7; 1 << 20]);
    let part = |range: std::ops::Range<usize>| Payload::part_of(&frame, &frame[range]);
    let results = vec![result(5, part(0..100)), result(0, part(100..1 << 20))];
    take(&mut sink, results);
    assert!(frame.is_unique(), "the second came before, and the first is small");
    assert_eq!(sink.collector.snapshot().held_bytes, {
        let all = [result(0, output()), result(5, Payload::from(vec![7; 100]))];
        all.iter().map(TaskResult::held_bytes).sum::<u64>()
    });
    // Where most of a message is held, it is not copied.
    take(&mut sink, vec![result(7, part(0..1 << 19)), result(8, part(1 << 19..1 << 20))]);
    assert!(!frame.is_unique());
}

#[test]
fn a_job_ends_though_the_sink_has_room_for_hardly_any_result() {
    for order in [Order::Seq, Order::Completion] {
        let mut ring = Ring::new(0, order);
        ring.sink.collector.set_taken_bytes_max(4096);
        (1..=3).for_each(|id| ring.join(id, 4));
        ring.disk_is_stuck = true;
        ring.tasks(&["a task with an output of its length"; 200]);
        ring.end_input();
        for _ in 0..30 {
            ring.finish_all();
            ring.pass(1_000_000);
            let held = ring.sink.collector.snapshot().held_bytes;
            assert!(held <= 4096 + 400, "{held} bytes are held");
        }
        assert!(ring.sink.written.is_empty());
        ring.disk_is_stuck = false;
        for _ in 0..60 {
            ring.finish_all();
            ring.pass(1_000_000);
        }
        assert_eq!(ring.sink.written.len(), 200, "{order:?}");
        assert_eq!(ring.dispatcher.snapshot().settled, 200, "{order:?}");
    }
}

// Found by the simulator. Fails if results that the sink has left to the workers keep them from the one task that it
// waits for.
#[test]
fn a_worker_whose_results_a_full_sink_has_left_gets_the_task_that_it_waits_for() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.sink.collector.set_taken_bytes_max(1);
    ring.join(1, 1);
    ring.tasks(&["the first"]);
    ring.join(2, 1);
    ring.tasks(&["another"; 8]);
    ring.end_input();
    for _ in 0..20 {
        if ring.worker(2).running.contains_key(&0) {
            ring.finish(2, 0, Outcome::ok(output()));
        }
    }
    assert!(ring.sink.written.is_empty());
    ring.kill(1);
    for _ in 0..60 {
        ring.finish_all();
        ring.pass(1_000_000);
    }
    assert_eq!(ring.sink.written.len(), 9);
}

// Found by the simulator. Fails if the task that a full sink waits for is kept for a worker at which it has not
// failed, until that has room: the sink has left results to it.
#[test]
fn a_task_that_a_full_sink_waits_for_is_run_again_where_it_has_not_failed() {
    let mut ring = Ring::new(1, Order::Seq);
    ring.sink.collector.set_taken_bytes_max(1);
    ring.join(1, 1);
    ring.tasks(&["the first"]);
    ring.join(2, 1);
    ring.tasks(&["another"; 8]);
    ring.end_input();
    for _ in 0..20 {
        if ring.worker(2).running.contains_key(&0) {
            ring.finish(2, 0, Outcome::ok(output()));
        }
    }
    ring.finish(1, 0, failed());
    ring.pass(5_000_000);
    assert!(ring.running(2).iter().any(|(seq, _)| *seq == 0));
    for _ in 0..60 {
        ring.finish_all();
        ring.pass(1_000_000);
    }
    assert_eq!(ring.sink.written.len(), 9);
}

//! A job that is halted starts nothing after the task that halts it has ended.

use tradewind_proto::Payload;
use tradewind_proto::collector::Order;
use tradewind_proto::message::{Exit, InputEnd, Outcome, Status};

use tradewind_testkit::Ring;

fn ok() -> Outcome {
    Outcome::ok(Payload::from(b"fine"))
}

fn failed() -> Outcome {
    Outcome { exit: Exit::Code(1), ..Outcome::error(Status::Failed, "exit code 1") }
}

fn halted(halt: &str, slots: u32, order: Order) -> Ring {
    let halt = halt.parse().expect("a halt");
    let mut ring = Ring::with(order, |config| config.policy.halt = Some(halt));
    ring.join(1, slots);
    ring.tasks(&["t"; 400]);
    ring
}

/// Tasks that have begun, after the one that fails as said has ended. What has ended is stored at
/// once, or only when something else happens.
fn begun(ring: &mut Ring, failures: &[u64], is_slow: bool) -> u64 {
    let mut most = 0;
    for _ in 0..2_000 {
        let next = ring.workers[&1].running.iter().next();
        let Some((slot, seq)) = next.map(|(slot, start)| (*slot, start.task.seq.0)) else { break };
        most = most.max(seq);
        ring.disk_is_stuck = is_slow;
        ring.finish(1, slot, if failures.contains(&seq) { failed() } else { ok() });
        ring.disk_is_stuck = false;
        ring.settle();
    }
    most + 1
}

#[test]
fn nothing_starts_after_the_task_that_halts_the_job() {
    for order in [Order::Seq, Order::Completion] {
        for is_slow in [false, true] {
            for (halt, failures, expected) in [
                ("soon,fail=1", vec![2], 3),
                ("now,fail=1", vec![2], 3),
                ("soon,fail=1", vec![0], 1),
                ("soon,fail=1", vec![150], 151),
                ("now,fail=3", vec![1, 80, 200, 201], 201),
                ("soon,success=1", vec![0, 1, 2], 4),
                ("now,success=1", vec![], 1),
                ("soon,success=70", vec![5, 6], 72),
                ("now,done=1", vec![], 1),
                ("soon,done=100", vec![3], 100),
            ] {
                let mut ring = halted(halt, 1, order);
                assert_eq!(begun(&mut ring, &failures, is_slow), expected, "{halt}, {failures:?}");
                ring.dispatcher.handle_input_end();
                ring.settle();
                assert!(ring.dispatcher.is_halted());
                let on = ring.dispatcher.halted_by().expect("it was halted");
                assert_eq!(ring.sink.collector.input_end(), Some(InputEnd::Halted(on)));
                ring.flush();
                ring.assert_over();
            }
        }
    }
}

#[test]
fn beside_others_only_what_runs_goes_on() {
    for (halt, failures) in [("soon,fail=1", vec![9]), ("soon,fail=2", vec![9, 40])] {
        let mut ring = halted(halt, 4, Order::Completion);
        let last = *failures.last().expect("one fails");
        assert!(begun(&mut ring, &failures, true) <= last + 4, "{halt}");
    }
}

#[test]
fn a_halt_that_is_far_away_holds_up_nobody() {
    let mut ring = halted("now,fail=300", 1, Order::Seq);
    for _ in 0..40 {
        ring.pass(10);
        ring.finish(1, 0, ok());
    }
    let held = ring.workers[&1].executor.snapshot();
    assert!(held.queued > 16, "it has a queue: {held:?}");
}

#[test]
fn a_job_that_is_stopped_is_cut_short_and_one_that_ends_is_not() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 1);
    ring.tasks(&["t"; 9]);
    assert_eq!(ring.sink.collector.input_end(), None);
    ring.dispatcher.handle_drain();
    ring.finish_all();
    assert_eq!(ring.sink.collector.input_end(), Some(InputEnd::CutShort));
    assert!(!ring.sink.collector.is_whole());
    let mut ring = Ring::new(0, Order::Seq);
    ring.dispatcher.handle_input_end();
    ring.settle();
    assert_eq!(ring.sink.collector.input_end(), Some(InputEnd::Whole));
    assert!(ring.sink.collector.is_whole());
}

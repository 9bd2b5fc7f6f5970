//! What the ventilator can say: of all tasks, of one task, and of each worker.

use tradewind_proto::collector::Order;
use tradewind_proto::dispatcher::{Aside, Place, TaskLimits, WaitsFor, WorkerState};
use tradewind_proto::limits::ROLL_CALL_GRACE;
use tradewind_proto::message::{News, ToVentilator};
use tradewind_proto::{Attempt, Seq, SessionId, Time};

use crate::{a_slow_worker_and_a_task_that_waits, failed, ok};
use tradewind_testkit::Ring;

const SECOND: u64 = 1_000_000;

/// A worker with two slots has two of six tasks, and not more at a time.
fn two_of_six() -> Ring {
    let mut ring = Ring::with(Order::Completion, |config| {
        (config.policy.retries, config.policy.max_running) = (3, Some(2));
    });
    ring.join(1, 2);
    ring.tasks(&["t"; 6]);
    ring
}

/// Worker 1 says how many tasks run there and wait there.
fn beat(ring: &mut Ring, running: u32, queued: u32) {
    let news = News::Heartbeat { running, queued, slots: 2 };
    ring.say(ToVentilator::Relay { session: SessionId(1), news });
}

fn place(ring: &Ring, seq: u64) -> Place {
    ring.dispatcher.explain(Seq(seq)).place
}

#[test]
fn each_task_is_counted_where_it_is() {
    let mut ring = two_of_six();
    beat(&mut ring, 2, 0);
    let counts = |ring: &Ring| {
        let s = ring.dispatcher.snapshot();
        (s.settled, s.received, s.given_up, s.running, s.dispatched, s.delayed, s.queued)
    };
    assert_eq!(counts(&ring), (0, 0, 0, 2, 2, 0, 4));
    assert_eq!(ring.dispatcher.snapshot().delayed_until, None);
    assert_eq!(ring.dispatcher.snapshot().stored_at, None);

    ring.disk_is_stuck = true;
    ring.finish(1, 0, ok("t"));
    assert_eq!(counts(&ring), (0, 1, 0, 2, 2, 0, 3));
    ring.finish(1, 1, failed());
    assert_eq!(counts(&ring), (0, 1, 0, 2, 2, 1, 2));
    let snapshot = ring.dispatcher.snapshot();
    let until = snapshot.delayed_until.expect("it is tried again");
    assert!(until > ring.now, "{until:?}");
    assert_eq!(snapshot.retries, 1);

    ring.disk_is_stuck = false;
    ring.pass(1_000);
    assert_eq!(counts(&ring), (1, 0, 0, 2, 2, 1, 2));
    assert_eq!(ring.dispatcher.snapshot().stored_at, Some(ring.now));
    ring.dispatcher.handle_pause();
    ring.pass(SECOND);
    assert_eq!(counts(&ring).5, 0, "its wait is over");
    assert_eq!(counts(&ring).6, 3);
    ring.dispatcher.handle_unpause();
    ring.finish_all();
    assert_eq!(counts(&ring).0, 6);
    assert_eq!(ring.dispatcher.snapshot().received, 0);
}

#[test]
fn a_task_is_explained_at_each_step() {
    let mut ring = two_of_six();
    let dispatched = ring.now;
    beat(&mut ring, 1, 1);
    let at_worker = |is_running| Place::AtWorker {
        session: SessionId(1),
        worker: "w1".to_owned(),
        since: Some(dispatched),
        is_running,
    };
    assert_eq!(place(&ring, 0), at_worker(true));
    assert_eq!(place(&ring, 1), at_worker(false));
    let queued = |before| Place::Queued { before, waits_for: WaitsFor::Turn };
    assert_eq!((place(&ring, 2), place(&ring, 5)), (queued(0), queued(3)));
    assert_eq!(place(&ring, 6), Place::Unread);

    ring.disk_is_stuck = true;
    ring.finish(1, 0, failed());
    ring.finish(1, 1, ok("t"));
    assert!(matches!(place(&ring, 0), Place::Delayed { until } if until > ring.now));
    let explained = ring.dispatcher.explain(Seq(0));
    assert_eq!((explained.attempts, explained.failures), (Attempt(1), 1));
    let worker = Some("w1".to_owned());
    assert_eq!(place(&ring, 1), Place::Received { session: SessionId(1), worker });
    ring.disk_is_stuck = false;
    ring.settle();
    assert_eq!(place(&ring, 1), Place::Stored);

    ring.pass(SECOND);
    assert_eq!(place(&ring, 0), queued(0), "it goes before those that are fresh");
    ring.dispatcher.handle_cancel();
    ring.settle();
    assert_eq!(place(&ring, 0), Place::Stored);
    assert_eq!(place(&ring, 5), Place::Unread, "it was never dispatched");
}

#[test]
fn a_task_that_failed_waits_for_another_worker() {
    let mut ring = Ring::new(3, Order::Completion);
    ring.join(1, 1);
    ring.tasks(&["t"]);
    ring.join(2, 1);
    ring.tasks(&["t", "t"]);
    ring.finish(1, 0, failed());
    ring.dispatcher.handle_pause();
    ring.pass(SECOND);
    let waits_for = WaitsFor::OtherWorker { until: None };
    assert_eq!(place(&ring, 0), Place::Queued { before: 0, waits_for });
}

#[test]
fn a_suspect_says_what_it_waits_for() {
    let mut ring = Ring::new(3, Order::Completion);
    for losses in 1..=2 {
        ring.join(losses, 1);
        ring.tasks(if losses == 1 { &["t"] } else { &[] });
        ring.dispatcher.handle_pause();
        ring.kill(losses);
        let waits_for = if losses == 1 { WaitsFor::NoSuspect } else { WaitsFor::EmptyWorker };
        assert_eq!(place(&ring, 0), Place::Queued { before: 0, waits_for });
        assert_eq!(u64::from(ring.dispatcher.explain(Seq(0)).losses), losses);
        assert_eq!(ring.dispatcher.snapshot().workers_lost, losses);
        ring.dispatcher.handle_unpause();
    }
}

#[test]
fn the_straggler_is_known_with_its_age() {
    let mut ring = Ring::new(0, Order::Completion);
    assert_eq!(ring.dispatcher.snapshot().straggler, None);
    ring.join(1, 2);
    ring.pass(SECOND);
    ring.tasks(&["t"; 4]);
    let begun = ring.now;
    let straggler = |ring: &Ring| {
        let straggler = ring.dispatcher.snapshot().straggler.expect("there is one");
        (straggler.seq.0, straggler.since, straggler.place)
    };
    ring.pass(SECOND);
    ring.finish(1, 1, ok("t"));
    let (seq, since, held) = straggler(&ring);
    assert_eq!((seq, since), (0, begun));
    assert!(matches!(held, Place::AtWorker { session: SessionId(1), .. }), "{held:?}");
    ring.pass(SECOND);
    ring.finish(1, 0, ok("t"));
    assert_eq!((straggler(&ring).0, straggler(&ring).1), (2, ring.now));
    ring.finish_all();
    assert_eq!(ring.dispatcher.snapshot().straggler, None);
}

#[test]
fn a_worker_says_what_is_against_it() {
    let mut ring = Ring::new(0, Order::Completion);
    (1..=3).for_each(|id| ring.join(id, 1));
    let joined = ring.now;
    ring.tasks(&["t"; 300]);
    let mut count = 0;
    while ring.notices.is_empty() {
        for (id, outcome) in [(1, failed()), (2, ok("t")), (3, ok("t"))] {
            if ring.workers[&id].running.contains_key(&0) {
                ring.finish(id, 0, outcome);
            }
        }
        ring.pass(1_000);
        count += 1;
        assert!(count < 50, "it is set aside");
    }
    let workers = ring.dispatcher.snapshot().workers;
    let WorkerState::SetAside { why: Aside::Failures { failed, ended }, probe_at } =
        workers[0].state
    else {
        panic!("{:?}", workers[0]);
    };
    assert!(failed == ended && probe_at > ring.now, "{:?}", workers[0]);
    assert_eq!((workers[0].failed, workers[0].failed_in_row), (failed, failed));
    assert_eq!((workers[1].failed, workers[1].failed_in_row), (0, 0));
    assert_eq!((workers[0].joined, workers[1].state), (joined, WorkerState::Ready));
    assert!(workers.iter().all(|worker| worker.heard > joined), "{workers:?}");
}

// Fails if a success in between does not count.
#[test]
fn failures_in_a_row_end_with_a_success() {
    let mut ring = Ring::new(0, Order::Completion);
    ring.join(1, 1);
    ring.tasks(&["t"; 9]);
    let in_row = |ring: &Ring| {
        let worker = &ring.dispatcher.snapshot().workers[0];
        (worker.failed, worker.failed_in_row)
    };
    let ends = [(failed(), (1, 1)), (failed(), (2, 2)), (ok("t"), (2, 0)), (failed(), (3, 1))];
    for (outcome, expected) in ends {
        ring.finish(1, 0, outcome);
        assert_eq!(in_row(&ring), expected);
    }
}

#[test]
fn a_slow_worker_is_said_to_be_slow() {
    let mut ring = Ring::new(0, Order::Completion);
    ring.join(1, 1);
    ring.join(2, 1);
    ring.tasks(&["t"; 400]);
    assert_eq!(ring.dispatcher.snapshot().workers[1].factor, None);
    for _ in 0..40 {
        ring.pass(1_000);
        ring.finish_after(1, 0, 1_000, ok("t"));
        ring.finish_after(2, 0, 8_000, ok("t"));
    }
    let workers = ring.dispatcher.snapshot().workers;
    let factor = workers[1].factor.expect("it is known");
    assert!(workers[1].is_slow && (7.0..8.1).contains(&factor), "{:?}", workers[1]);
    assert!(!workers[0].is_slow && workers[0].factor.is_some_and(|factor| factor < 1.0));
    assert_eq!(workers[1].usual.map(|usual| usual.as_micros()), Some(8_000));
    assert_eq!(workers[1].state, WorkerState::Ready, "there is enough for all");
}

#[test]
fn a_slow_worker_is_said_to_be_held_back() {
    let ring = a_slow_worker_and_a_task_that_waits();
    let workers = ring.dispatcher.snapshot().workers;
    let is_held = |state| matches!(state, WorkerState::HeldBack { until } if until > ring.now);
    assert!(is_held(workers[1].state), "{:?}", workers[1]);
    assert_eq!(workers[0].state, WorkerState::Ready);
}

#[test]
fn roll_calls_and_recalled_tasks_are_counted() {
    let mut ring = Ring::new(0, Order::Completion);
    ring.join(1, 1);
    assert_eq!(ring.dispatcher.snapshot().roll_calls, 0);
    ring.restart_sink(Order::Completion);
    assert_eq!(ring.dispatcher.snapshot().roll_calls, 1);
    ring.pass(ROLL_CALL_GRACE.as_micros() as u64 + SECOND);

    ring.tasks(&["t"; 64]);
    for _ in 0..40 {
        ring.pass(1_000);
        ring.finish_after(1, 0, 1_000, ok("t"));
    }
    let held = ring.dispatcher.snapshot().workers[0].out;
    assert!(held > 1, "some wait there");
    assert_eq!(ring.dispatcher.snapshot().recalled, 0);
    ring.end_input();
    ring.join(2, 1);
    ring.pass(10_000);
    assert_eq!(ring.workers[&1].recalls, 1);
    let left = ring.dispatcher.snapshot().workers[0].out;
    let snapshot = ring.dispatcher.snapshot();
    assert!(left < held && snapshot.recalled == held - left, "{held}, {left}: {snapshot:?}");
}

#[test]
fn a_task_too_large_for_all_says_so() {
    let mut ring = Ring::new(0, Order::Completion);
    ring.join(1, 1);
    ring.dispatcher
        .handle_task_with(tradewind_proto::Payload::from(vec![0; 65 << 20]), TaskLimits::default());
    ring.settle();
    let waits_for = WaitsFor::LargerWorker { since: ring.now };
    assert_eq!(place(&ring, 0), Place::Queued { before: 0, waits_for });
    assert_eq!(ring.dispatcher.snapshot().now, Time(ring.now.0));
}

//! How much goes out: pauses, a bound of the tasks that are out, and changes of the policy.

use std::time::Duration;

use tradewind_proto::collector::Order;
use tradewind_proto::dispatcher::{Policy, Timeout};
use tradewind_proto::message::Status;

use crate::{failed, ok};
use tradewind_testkit::Ring;

const SECOND: u64 = 1_000_000;

fn policy(ring: &mut Ring, policy: Policy) {
    ring.dispatcher.set_policy(policy);
    ring.settle();
}

fn at_most(max_running: u64) -> Policy {
    Policy { max_running: Some(max_running), ..Policy::default() }
}

/// Returns the number of tasks that are out at each worker.
fn out(ring: &Ring) -> Vec<u64> {
    ring.dispatcher.snapshot().workers.iter().map(|worker| worker.out).collect()
}

#[test]
fn while_a_job_is_paused_nothing_goes_out_and_what_is_out_goes_on() {
    let mut ring = Ring::new(1, Order::Completion);
    ring.join(1, 2);
    ring.tasks(&["a", "b", "c"]);
    ring.dispatcher.handle_pause();
    assert!(ring.dispatcher.is_paused());
    ring.finish(1, 0, ok("a"));
    ring.finish(1, 1, failed());
    ring.join(2, 2);
    ring.pass(20 * SECOND);
    assert_eq!(ring.records(), [(0, Status::Ok, 1)]);
    assert_eq!(out(&ring), [0, 0], "the retry waits as well");
    ring.dispatcher.handle_unpause();
    ring.settle();
    assert_eq!(out(&ring).iter().sum::<u64>(), 2);
    ring.finish_all();
    ring.end_input();
    ring.flush();
    assert_eq!(ring.records().len(), 3);
}

#[test]
fn a_paused_job_that_is_drained_comes_to_its_end() {
    let mut ring = Ring::new(1, Order::Completion);
    ring.join(1, 1);
    ring.tasks(&["a", "b"]);
    ring.dispatcher.handle_pause();
    ring.finish(1, 0, failed());
    ring.pass(SECOND);
    ring.dispatcher.handle_drain();
    ring.settle();
    assert_eq!(ring.running(1), [(0, 2)]);
    ring.finish_all();
    ring.flush();
    ring.assert_over();
}

#[test]
fn no_more_tasks_are_out_than_the_policy_allows() {
    let mut ring = Ring::with(Order::Completion, |config| config.policy = at_most(3));
    ring.join(1, 2);
    ring.join(2, 2);
    ring.tasks(&["t"; 40]);
    let sum = |ring: &Ring| out(ring).iter().sum::<u64>();
    assert_eq!(sum(&ring), 3);
    assert!(!out(&ring).contains(&0), "{:?}", out(&ring));
    ring.finish(1, 0, ok("t"));
    assert_eq!(sum(&ring), 3);
    policy(&mut ring, at_most(4));
    assert_eq!(out(&ring), [2, 2]);
    policy(&mut ring, at_most(0));
    assert_eq!(out(&ring), [2, 2], "nothing is taken back");
    ring.finish(1, 0, ok("t"));
    ring.finish(2, 0, ok("t"));
    assert_eq!(out(&ring), [1, 1]);
    policy(&mut ring, at_most(2));
    assert_eq!(out(&ring), [1, 1]);
    policy(&mut ring, Policy::default());
    assert!(out(&ring).iter().all(|out| *out >= 2), "{:?}", out(&ring));
    ring.finish_all();
    assert_eq!(ring.records().len(), 40);
}

#[test]
fn no_slot_is_idle_while_another_worker_has_a_queue() {
    let mut ring = Ring::with(Order::Completion, |config| config.policy = at_most(6));
    ring.join(1, 1);
    ring.join(2, 2);
    ring.tasks(&["t"; 600]);
    let mut has_queue = false;
    for turn in 0..180 {
        ring.now = tradewind_proto::Time(ring.now.0 + 100);
        let (id, slot) = [(1, 0), (2, 0), (2, 1)][turn % 3];
        ring.finish_after(id, slot, 100, ok("t"));
        let out = out(&ring);
        assert!(out[0] >= 1 && out[1] >= 2, "{out:?}");
        assert!(out[0] + out[1] <= 6, "{out:?}");
        has_queue |= out[0] > 1;
    }
    assert!(has_queue, "what is prefetched counts");
}

#[test]
fn a_worker_that_comes_when_all_is_out_gets_what_waits_at_another() {
    let mut ring = Ring::with(Order::Completion, |config| config.policy = at_most(8));
    ring.join(1, 1);
    ring.tasks(&["t"; 100]);
    for _ in 0..20 {
        ring.now = tradewind_proto::Time(ring.now.0 + 5_000);
        ring.finish_after(1, 0, 5_000, ok("t"));
    }
    assert_eq!(out(&ring), [8]);
    ring.join(2, 1);
    ring.pass(10_000);
    let out = out(&ring);
    assert!(out[1] >= 1 && out[0] + out[1] <= 8, "{out:?}");
    ring.finish_all();
    assert!(
        ring.records().iter().all(|(_, status, attempt)| (*status, *attempt) == (Status::Ok, 1))
    );
    assert_eq!(ring.records().len(), 100);
}

#[test]
fn another_number_of_retries_holds_for_what_is_dispatched_next() {
    let mut ring = Ring::new(0, Order::Completion);
    ring.join(1, 1);
    ring.tasks(&["a", "b"]);
    policy(&mut ring, Policy { retries: 1, ..Policy::default() });
    ring.finish(1, 0, failed());
    assert_eq!(ring.records(), [(0, Status::Failed, 1)], "it was the last when it was dispatched");
    ring.finish(1, 0, failed());
    policy(&mut ring, Policy::default());
    ring.pass(SECOND);
    assert_eq!(ring.running(1), [(1, 2)]);
    ring.finish(1, 0, failed());
    assert_eq!(ring.records()[1..], [(1, Status::Failed, 2)]);
}

#[test]
fn another_timeout_holds_for_what_is_dispatched_next() {
    let after = |seconds| Policy {
        timeout: Some(Timeout::After(Duration::from_secs(seconds))),
        ..Policy::default()
    };
    let mut ring = Ring::with(Order::Completion, |config| config.policy = after(3_600));
    ring.join(1, 2);
    ring.tasks(&["a", "b", "c"]);
    policy(&mut ring, after(1));
    ring.finish(1, 1, ok("b"));
    assert_eq!(ring.running(1), [(0, 1), (2, 1)]);
    for _ in 0..60 {
        ring.pass(SECOND);
    }
    // The worker does not owe the first, which may take an hour.
    assert_eq!(ring.workers[&1].stopped, [(2, 1)]);
    assert_eq!(out(&ring), [2]);
    // Longer is no less.
    policy(&mut ring, after(7_200));
    policy(&mut ring, after(1));
    for _ in 0..60 {
        ring.pass(SECOND);
    }
    assert_eq!(out(&ring), [2]);
    ring.pass(3_600 * SECOND);
    assert_eq!(ring.workers[&1].stopped, [(2, 1), (0, 1)]);
}

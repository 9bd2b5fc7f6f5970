//! Bounds of memory: each is reached, and not passed.

use tradewind_proto::collector::Order;
use tradewind_proto::dispatcher::CancelAnswer;
use tradewind_proto::limits::{
    READ_AHEAD_TASKS_MAX, READ_TASKS_MAX, RETAINED_BYTES_MAX, UNSETTLED_TASKS_MAX,
};
use tradewind_proto::message::{Outcome, Status};
use tradewind_proto::{Payload, Seq};

use tradewind_testkit::Ring;

/// Reads tasks of this size, one by one, for as long as there is room; returns their number.
fn read(ring: &mut Ring, bytes: usize) -> u64 {
    let task = Payload::from(vec![b'x'; bytes]);
    let mut count = 0;
    while ring.dispatcher.input_room() > 0 {
        ring.dispatcher.handle_task(task.clone());
        count += 1;
        assert!(count <= 2 * (READ_AHEAD_TASKS_MAX + UNSETTLED_TASKS_MAX), "there is no bound");
    }
    ring.settle();
    count
}

// Fails without the bound of bytes in `Ledger::room`, and if settled tasks still count there.
#[test]
fn the_input_is_read_up_to_a_number_of_bytes() {
    const TASK: u64 = 1 << 20;
    let mut ring = Ring::new(0, Order::Completion);
    assert_eq!(read(&mut ring, TASK as usize), RETAINED_BYTES_MAX / TASK);
    assert_eq!(ring.dispatcher.snapshot().kept_bytes, RETAINED_BYTES_MAX);
    // Tasks that are out are kept as well.
    ring.join(1, 2);
    assert_eq!(ring.dispatcher.input_room(), 0);
    ring.finish(1, 0, Outcome::ok(Payload::new()));
    assert_eq!(read(&mut ring, TASK as usize), 1, "one is stored");
    // The last task may be of any size.
    ring.finish(1, 0, Outcome::ok(Payload::new()));
    assert_eq!(read(&mut ring, 30 << 20), 1);
}

#[test]
fn a_queue_may_keep_fewer_bytes_of_its_input() {
    let mut ring = Ring::new(0, Order::Completion);
    ring.dispatcher = ring.dispatcher.with_retained_bytes_max(5 << 20);
    assert_eq!(read(&mut ring, 1 << 20), 5);
}

// Fails without either bound of `Dispatcher::input_room`.
#[test]
fn the_input_is_read_up_to_a_number_of_tasks() {
    let mut ring = Ring::new(0, Order::Seq);
    assert_eq!(read(&mut ring, 1), READ_AHEAD_TASKS_MAX);
    // Tasks that no worker can take are not fresh, and their records wait for the sink all the same.
    let mut ring = Ring::new(0, Order::Seq);
    ring.disk_is_stuck = true;
    let mut count = 0;
    while ring.dispatcher.input_room() > 0 {
        ring.dispatcher.handle_unfit_task("too large".to_owned());
        count += 1;
        assert!(count <= 2 * (READ_AHEAD_TASKS_MAX + UNSETTLED_TASKS_MAX), "there is no bound");
    }
    assert_eq!(count, READ_AHEAD_TASKS_MAX + UNSETTLED_TASKS_MAX);
}

// Fails if the sink takes records only of tasks that may be out or were read one by one.
#[test]
fn the_last_task_that_may_be_read_can_be_cancelled_at_once() {
    let mut ring = Ring::new(0, Order::Completion);
    ring.disk_is_stuck = true;
    let mut next = 0;
    while ring.dispatcher.input_room() > 0 {
        // The first ones wait for the sink, so that the rest has as many before it as there can be.
        if next < UNSETTLED_TASKS_MAX {
            ring.dispatcher.handle_unfit_task("no".to_owned());
            next += 1;
            continue;
        }
        let count = if next == UNSETTLED_TASKS_MAX { READ_TASKS_MAX - 1 } else { READ_TASKS_MAX };
        (0..count).for_each(|_| ring.dispatcher.handle_task(Payload::from(b"x")));
        next += count;
    }
    ring.settle();
    let last = Seq(next - 1);
    assert_eq!(ring.dispatcher.handle_cancel_task(last), CancelAnswer::Cancelled);
    ring.settle();
    ring.disk_is_stuck = false;
    ring.settle();
    assert!(ring.records().contains(&(last.0, Status::Cancelled, 0)));
    assert_eq!(ring.sink.collector.snapshot().unexpected_results, 0);
}

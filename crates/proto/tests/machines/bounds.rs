//! Bounds of memory: each is reached, and not passed.

use tradewind_proto::Payload;
use tradewind_proto::collector::Order;
use tradewind_proto::limits::{READ_AHEAD_TASKS_MAX, RETAINED_BYTES_MAX, UNSETTLED_TASKS_MAX};
use tradewind_proto::message::Outcome;

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

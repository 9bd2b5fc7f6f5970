//! Messages that no honest peer sends: what they cost, and what they change.

use tradewind_proto::collector::Order;
use tradewind_proto::dispatcher::Transmit;
use tradewind_proto::executor::{Executor, Finished};
use tradewind_proto::limits::{CREDIT_BYTES_MAX, CREDIT_TASKS_MAX, MESSAGE_BYTES_MAX, SEQS_MAX};
use tradewind_proto::message::{
    Card, Layout, Limits, News, Outcome, Role, Task, ToSink, ToVentilator, ToWorker,
};
use tradewind_proto::{
    Attempt, CallId, LaneId, Payload, Seq, SeqRange, SeqRanges, SessionId, Slot, TaskHash, Time,
};

use crate::ok;
use tradewind_testkit::{JOB, Ring};

/// A worker with one slot that knows the job.
fn worker() -> Executor {
    let mut executor = Executor::new(SessionId(1), 1);
    executor.handle_sink_connected();
    let (call, layout) = (CallId(1), Layout::Unsaid);
    executor.handle_message(ToWorker::RollCall { job: JOB, call, layout });
    while executor.poll_transmit().is_some() {}
    executor
}

fn task(seq: u64, payload: &Payload) -> Task {
    let (attempt, payload) = (Attempt::FIRST, payload.clone());
    Task { seq: Seq(seq), attempt, last: true, payload, origin: None }
}

fn give(executor: &mut Executor, tasks: Vec<Task>) {
    let (limits, tasks) = (Limits::default(), tasks.into());
    executor.handle_message(ToWorker::Tasks { job: JOB, limits, tasks });
}

/// The number of tasks that a worker hands back.
fn handed_back(executor: &mut Executor) -> u64 {
    let mut count = 0;
    while let Some(message) = executor.poll_transmit() {
        if let ToSink::News { news: News::Returned { ranges, .. }, .. } = message {
            count += ranges.count();
        }
    }
    count
}

// Fails if what is kept by seq has a place for each seq below.
#[test]
fn a_worker_takes_a_task_with_any_seq() {
    let mut executor = worker();
    for seq in [3, SEQS_MAX - 1, 1 << 35] {
        give(&mut executor, vec![task(seq, &Payload::from(b"x"))]);
        assert_eq!(executor.poll_start(Time(0)).map(|start| start.task.seq), Some(Seq(seq)));
        executor.handle_finished(Finished {
            slot: Slot(0),
            started_us: 1,
            ran_us: 1,
            outcome: ok("x"),
            reported: None,
        });
    }
    let Some(ToSink::Results { results, .. }) = executor.poll_transmit() else {
        panic!("the results are sent")
    };
    assert_eq!(results.0.len(), 3);
    let ranges = SeqRanges::of(SeqRange { start: Seq(1 << 34), end: Seq(SEQS_MAX) });
    executor.handle_message(ToWorker::Settled { job: JOB, below: Seq(2), ranges });
    assert_eq!(executor.snapshot().retained, 1);
    executor.check_invariants();
}

// Fails without the bounds of `Queue::is_full`.
#[test]
fn a_worker_hands_back_what_is_more_than_its_share() {
    let payloads = [(Payload::from(b"x"), 2 * CREDIT_TASKS_MAX, CREDIT_TASKS_MAX)]
        .into_iter()
        .chain([(Payload::from(vec![0; 1 << 20]), (2 * CREDIT_BYTES_MAX) >> 20, 100)]);
    for (payload, most, more) in payloads {
        let mut executor = worker();
        for seq in 0..most {
            give(&mut executor, vec![task(seq, &payload)]);
        }
        assert_eq!(handed_back(&mut executor), 0, "an honest ventilator may give so many");
        for seq in most..most + more {
            give(&mut executor, vec![task(seq, &payload)]);
        }
        assert_eq!(handed_back(&mut executor), more);
        assert_eq!(u64::from(executor.snapshot().queued), most);
        executor.check_invariants();
    }
    // One task may be of any size.
    let mut executor = worker();
    give(&mut executor, vec![task(0, &Payload::from(vec![0; 3 * CREDIT_BYTES_MAX as usize]))]);
    assert_eq!(handed_back(&mut executor), 0);
}

// Fails if an answer to a roll call is believed that has fewer hashes than tasks: some twenty bytes claim
// a hundred thousand tasks.
#[test]
fn an_answer_to_a_roll_call_without_hashes_is_none() {
    let hashes = |count: usize| {
        let mut ring = Ring::new(0, Order::Completion);
        let (lane, session) = (LaneId(1), SessionId(1));
        let name = "w1".to_owned();
        let (role, slots, message_bytes_max) = (Role::Worker, 1, MESSAGE_BYTES_MAX);
        let card = Card { role, session, slots, message_bytes_max, name };
        ring.dispatcher.handle_lane_opened(ring.now, lane, &card);
        let asked = ring.dispatcher.poll_transmit(ring.now);
        let Some(Transmit::Worker(_, ToWorker::RollCall { call, .. })) = asked else {
            panic!("the roll is called: {asked:?}")
        };
        let news = News::Holding {
            job: JOB,
            call,
            unfinished: SeqRanges::of(SeqRange { start: Seq(0), end: Seq(1000) }),
            finished: SeqRanges::new(),
            hashes: vec![TaskHash(0); count].into(),
        };
        ring.say(ToVentilator::Relay { session, news });
        ring.dispatcher.snapshot().workers[0].is_ready
    };
    assert!(hashes(1000));
    assert!(!hashes(0) && !hashes(999) && !hashes(1001));
}

// Fails if receipts name tasks in the order in which their results came: such a list is no message.
#[test]
fn a_receipt_names_tasks_in_order_whatever_the_order_of_their_results() {
    let mut ring = Ring::new(0, Order::Completion);
    ring.join(1, 4);
    ring.tasks(&["a", "b", "c", "d"]);
    ring.sink_is_mute = true;
    for slot in [2, 0, 3, 1] {
        ring.finish_quietly(1, slot, Outcome::ok(Payload::new()));
    }
    ring.settle();
    let receipts = std::iter::from_fn(|| ring.collector.poll_transmit());
    let receipts: Vec<ToVentilator> = receipts.collect();
    let all = SeqRanges::of(SeqRange { start: Seq(0), end: Seq(4) });
    let [ToVentilator::Receipt { received, stored, .. }] = &receipts[..] else {
        panic!("one receipt: {receipts:?}")
    };
    assert_eq!((&received.0[0].ranges, stored), (&all, &all));
}

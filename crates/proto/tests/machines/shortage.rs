//! A worker whose host lacks something: tasks that could not be started, slots that are not used.

use std::time::Duration;

use tradewind_proto::collector::Order;
use tradewind_proto::executor::{Executor, Finished, PutBack, Start};
use tradewind_proto::limits::{SHORTAGE_PAUSE_MAX, SHORTAGE_PAUSE_MIN};
use tradewind_proto::message::{Layout, News, Outcome, Task, ToSink, ToVentilator, ToWorker};
use tradewind_proto::{Attempt, CallId, Payload, Seq, SessionId, Slot, Tag, TaskHash, Time};

use tradewind_testkit::{JOB, Ring};

/// A worker with so many slots and tasks, and the starts of the first ones.
fn worker(slots: u32, tasks: u64) -> (Executor, Vec<Start>) {
    let mut executor = Executor::new(SessionId(1), slots);
    executor.handle_sink_connected();
    let (call, layout) = (CallId(1), Layout::Unsaid);
    executor.handle_message(ToWorker::RollCall { job: JOB, call, layout });
    let task = |seq| Task {
        seq: Seq(seq),
        attempt: Attempt::FIRST,
        last: true,
        payload: Payload::from(b"task"),
        hash: TaskHash::of(b"task"),
        tag: Tag::default(),
    };
    let tasks: Vec<Task> = (0..tasks).map(task).collect();
    let limits = Default::default();
    executor.handle_message(ToWorker::Tasks { job: JOB, limits, tasks: tasks.into() });
    let starts = starts(&mut executor, Time(0));
    said(&mut executor);
    (executor, starts)
}

fn starts(executor: &mut Executor, now: Time) -> Vec<Start> {
    std::iter::from_fn(|| executor.poll_start(now)).collect()
}

fn seqs(starts: &[Start]) -> Vec<u64> {
    starts.iter().map(|start| start.task.seq.0).collect()
}

fn said(executor: &mut Executor) -> Vec<News> {
    let mut all = Vec::new();
    while let Some(message) = executor.poll_transmit() {
        if let ToSink::News { news, .. } = message {
            all.push(news);
        }
    }
    all
}

fn returned(news: &[News]) -> Vec<u64> {
    let ranges = news.iter().filter_map(|news| match news {
        News::Returned { ranges, .. } => Some(ranges.seqs()),
        _ => None,
    });
    ranges.flatten().map(|seq| seq.0).collect()
}

fn end(executor: &mut Executor, slot: u32) {
    let (slot, outcome) = (Slot(slot), Outcome::ok(Payload::new()));
    executor.handle_finished(Finished { slot, started_us: 1, ran_us: 1, outcome, reported: None });
}

fn put_back(executor: &mut Executor, now: Time, start: &Start) -> PutBack {
    executor.handle_unstartable(now, start.slot, start.task.clone())
}

const PAUSE: u64 = SHORTAGE_PAUSE_MIN.as_micros() as u64;

#[test]
fn what_could_not_be_started_beside_others_waits_for_one_of_them() {
    let (mut executor, began) = worker(3, 5);
    assert_eq!(seqs(&began), [0, 1, 2]);
    assert_eq!(put_back(&mut executor, Time(10), &began[1]), PutBack::Waits);
    assert_eq!(said(&mut executor), [News::Heartbeat { running: 2, queued: 3, slots: 2 }]);
    assert_eq!(seqs(&starts(&mut executor, Time(20))), [], "one slot less");
    end(&mut executor, began[0].slot.0);
    let again = starts(&mut executor, Time(30));
    assert_eq!((seqs(&again), again[0].task.attempt), (vec![1], Attempt::FIRST));
}

#[test]
fn a_slot_that_was_given_up_is_tried_again_after_a_pause_that_grows() {
    let (mut executor, began) = worker(2, 9);
    put_back(&mut executor, Time(0), &began[1]);
    let mut pause = SHORTAGE_PAUSE_MIN;
    let mut now = Time(0);
    for _ in 0..9 {
        assert_eq!(executor.slots_now(), 1);
        executor.handle_timeout(Time(now.0 + pause.as_micros() as u64 - 1));
        assert_eq!(seqs(&starts(&mut executor, now)), [], "not before {pause:?}");
        now = now + pause;
        assert!(executor.poll_timeout() <= now);
        executor.handle_timeout(now);
        let again = starts(&mut executor, now);
        assert_eq!(seqs(&again), [1]);
        put_back(&mut executor, now, &again[0]);
        // With all slots in use it is over, and the next shortage another one.
        pause = SHORTAGE_PAUSE_MIN;
    }
    // Several are missing, and each that is tried is one too many.
    let (mut executor, began) = worker(4, 9);
    put_back(&mut executor, Time(0), &began[1]);
    put_back(&mut executor, Time(0), &began[2]);
    put_back(&mut executor, Time(0), &began[3]);
    let (mut now, mut waits) = (Time(0), Vec::new());
    for _ in 0..9 {
        let due = std::iter::repeat_with(|| {
            now = Time(now.0 + 1_000_000);
            executor.handle_timeout(now);
            starts(&mut executor, now).pop()
        });
        let (waited, start) = (1..).zip(due).find(|(_, due)| due.is_some()).expect("it is tried");
        waits.push(waited);
        put_back(&mut executor, now, &start.expect("it is tried"));
    }
    assert!(waits.is_sorted(), "{waits:?}");
    assert_eq!(waits.last(), Some(&SHORTAGE_PAUSE_MAX.as_secs()), "{waits:?}");
}

#[test]
fn several_that_fail_at_once_are_one_failure() {
    let (mut executor, began) = worker(12, 30);
    for start in &began[1..] {
        assert_eq!(put_back(&mut executor, Time(0), start), PutBack::Waits);
    }
    executor.handle_timeout(Time(PAUSE));
    assert_eq!(seqs(&starts(&mut executor, Time(PAUSE))), [1], "after the shortest pause");
}

#[test]
fn what_could_not_be_started_where_nothing_runs_is_handed_back_with_the_rest() {
    let (mut executor, began) = worker(2, 5);
    assert_eq!(put_back(&mut executor, Time(0), &began[0]), PutBack::Waits);
    assert_eq!(put_back(&mut executor, Time(0), &began[1]), PutBack::Returned);
    let news = said(&mut executor);
    assert_eq!(returned(&news), [0, 1, 2, 3, 4]);
    let is_last_beat = |news: &News| matches!(news, News::Heartbeat { slots: 0, .. });
    let beat = news.iter().position(is_last_beat).expect("it says that it has no slot");
    assert_eq!(beat, news.len() - 2, "before it hands back: {news:?}");
    assert_eq!(executor.snapshot().tasks_done, 0);
    executor.handle_timeout(Time(2 * PAUSE));
    assert_eq!(executor.slots_now(), 1, "one is tried");
}

#[test]
fn slots_may_be_lowered_and_raised() {
    let (mut executor, began) = worker(3, 9);
    executor.set_slots(1);
    assert_eq!(said(&mut executor), [News::Heartbeat { running: 3, queued: 6, slots: 1 }]);
    for start in &began[..2] {
        end(&mut executor, start.slot.0);
        assert_eq!(seqs(&starts(&mut executor, Time(1))), []);
        assert_eq!(executor.waiting().count(), if start.slot == began[0].slot { 0 } else { 6 });
    }
    end(&mut executor, began[2].slot.0);
    assert_eq!(seqs(&starts(&mut executor, Time(1))), [3]);
    executor.set_slots(9);
    assert_eq!(executor.slots_now(), 3, "no more than there are");
    assert_eq!(seqs(&starts(&mut executor, Time(1))), [4, 5]);
}

#[test]
fn a_worker_that_leaves_says_why_to_every_ventilator() {
    let (mut executor, began) = worker(1, 3);
    executor.handle_leave(Time(0), Duration::from_secs(9), "no threads left".to_owned());
    let draining = News::Draining { reason: "no threads left".to_owned() };
    let news = said(&mut executor);
    assert_eq!((news.first(), returned(&news)), (Some(&draining), vec![1, 2]));
    let (call, layout) = (CallId(2), Layout::Unsaid);
    executor.handle_message(ToWorker::RollCall { job: JOB, call, layout });
    assert!(said(&mut executor).contains(&draining), "whoever is new hears it too");
    assert_eq!(
        put_back(&mut executor, Time(1), &began[0]),
        PutBack::Returned,
        "nothing waits here"
    );
    assert_eq!(returned(&said(&mut executor)), [0]);
}

#[test]
fn what_was_stopped_because_nobody_wants_it_is_not_put_back() {
    let (mut executor, began) = worker(1, 1);
    executor.handle_message(ToWorker::Cancel { job: JOB });
    assert_eq!(put_back(&mut executor, Time(1), &began[0]), PutBack::Dropped);
    assert!(executor.is_empty());
    assert_eq!(returned(&said(&mut executor)), []);
}

#[test]
fn what_was_handed_back_while_it_ran_has_not_ended_here() {
    let (mut executor, began) = worker(2, 2);
    executor.handle_drain(Time(0), Duration::ZERO);
    executor.handle_timeout(Time(0));
    assert_eq!(returned(&said(&mut executor)), [0, 1]);
    end(&mut executor, began[0].slot.0);
    end(&mut executor, began[1].slot.0);
    assert_eq!(executor.snapshot().tasks_done, 0);
}

/// What a worker says by way of the sink.
fn relay(ring: &mut Ring, id: u64, news: News) {
    ring.say(ToVentilator::Relay { session: SessionId(id), news });
}

#[test]
fn a_worker_gets_tasks_for_the_slots_that_it_says_it_has() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 4);
    let beat = |slots| News::Heartbeat { running: 0, queued: 0, slots };
    relay(&mut ring, 1, beat(0));
    ring.tasks(&["t"; 9]);
    assert_eq!(ring.running(1), []);
    relay(&mut ring, 1, beat(2));
    assert_eq!(ring.running(1).len(), 2);
    relay(&mut ring, 1, beat(4));
    assert_eq!(ring.running(1).len(), 4);
}

#[test]
fn a_large_result_on_a_slow_link_is_a_sign_of_life() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 1);
    ring.tasks(&["a"]);
    // Its heartbeats wait behind the result.
    let worker = ring.workers.remove(&1).expect("it has joined");
    for second in 1..60 {
        ring.sink.collector.handle_alive(SessionId(1));
        ring.sink.collector.handle_alive(SessionId(99));
        ring.pass(1_000_000);
        assert_eq!(ring.dispatcher.snapshot().workers.len(), 1, "after {second} s");
    }
    for _ in 0..12 {
        ring.pass(1_000_000);
    }
    assert_eq!(ring.dispatcher.snapshot().workers.len(), 0, "nothing arrives any more");
    drop(worker);
}

#[test]
fn bytes_of_the_sink_are_a_sign_of_life() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 1);
    ring.tasks(&["a"]);
    ring.workers.remove(&1);
    ring.sink_is_mute = true;
    for _ in 0..12 {
        // Its receipt is long, and the worker is silent all the time.
        ring.dispatcher.handle_sink_alive(ring.now);
        ring.pass(1_000_000);
    }
    assert_eq!(
        ring.dispatcher.snapshot().workers.len(),
        0,
        "the sink was heard, the worker was not"
    );
}

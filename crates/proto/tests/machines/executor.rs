//! A worker's machine by itself, with slots that go on before they are told to.

use std::time::Duration;

use tradewind_proto::collector::Order;
use tradewind_proto::executor::{Executor, Finished, Stop};
use tradewind_proto::limits::HEARTBEAT_INTERVAL;
use tradewind_proto::message::{Limits, News, Outcome, Status, Task, ToSink, ToWorker};
use tradewind_proto::{Attempt, CallId, Payload, Seq, SeqRanges, SessionId, Slot, Time};

use crate::ring::{JOB, Ring};

/// Runs task 0 in its only slot; 1, 2 and 3 wait.
fn worker() -> Executor {
    let mut executor = Executor::new(SessionId(1), 1);
    executor.handle_sink_connected();
    executor.handle_message(ToWorker::RollCall { job: JOB, call: CallId(1) });
    let tasks = (0..4).map(|seq| Task {
        seq: Seq(seq),
        attempt: Attempt::FIRST,
        last: true,
        payload: Payload::from(b"task"),
        origin: None,
    });
    executor.handle_message(ToWorker::Tasks {
        job: JOB,
        limits: Limits { timeout_us: Some(1_000), report_command: false },
        tasks: tasks.collect::<Vec<_>>().into(),
    });
    assert_eq!(executor.poll_start(Time(0)).map(|start| start.task.seq), Some(Seq(0)));
    while executor.poll_transmit().is_some() {}
    executor
}

/// Task 0 has ended, and the slot has begun 1 at this time.
fn go_on(executor: &mut Executor, began: Time) {
    let outcome = Outcome::ok(Payload::new());
    let command = Payload::new();
    let slot = Slot(0);
    executor.handle_finished(Finished { slot, started_us: 1, ran_us: 1, outcome, command });
    executor.handle_begun(began, slot, Seq(1));
}

fn waiting(executor: &Executor) -> Vec<u64> {
    executor.waiting().map(|(task, _)| task.seq.0).collect()
}

const STOP: Stop = Stop { slot: Slot(0), seq: Seq(1), attempt: Attempt::FIRST };

#[test]
fn a_slot_that_has_gone_on_is_not_given_another_task() {
    let mut executor = worker();
    assert_eq!(waiting(&executor), [1, 2, 3]);
    go_on(&mut executor, Time(5));
    assert_eq!(executor.poll_start(Time(5)), None);
    assert_eq!(waiting(&executor), [2, 3]);
    assert_eq!((executor.snapshot().running, executor.snapshot().queued), (1, 2));
}

#[test]
fn a_timeout_counts_from_when_the_task_began() {
    let mut executor = worker();
    go_on(&mut executor, Time(500));
    // It was heard of later than that.
    executor.handle_timeout(Time(1_499));
    assert_eq!(executor.poll_stop(), None);
    assert_eq!(executor.poll_timeout(), Time(1_500));
    executor.handle_timeout(Time(1_500));
    assert_eq!(executor.poll_stop(), Some(STOP));
}

#[test]
fn what_has_begun_is_not_handed_back() {
    let mut executor = worker();
    go_on(&mut executor, Time(5));
    executor.handle_message(ToWorker::Recall { job: JOB, call: CallId(7), keep: 0 });
    let ranges: SeqRanges = [Seq(2), Seq(3)].into_iter().collect();
    let news = News::Recalled { job: JOB, call: CallId(7), ranges };
    assert_eq!(executor.poll_news(), Some(ToSink::News { session: SessionId(1), news }));
    assert_eq!(waiting(&executor), []);
}

#[test]
fn what_has_begun_is_stopped_when_the_job_is_cancelled_and_the_rest_is_dropped() {
    let mut executor = worker();
    go_on(&mut executor, Time(5));
    executor.handle_message(ToWorker::Cancel { job: JOB });
    assert_eq!(executor.poll_stop(), Some(STOP));
    assert_eq!(executor.poll_stop(), None);
    assert_eq!(waiting(&executor), []);
}

#[test]
fn news_need_not_wait_for_results() {
    let mut executor = worker();
    go_on(&mut executor, Time(5));
    assert_eq!(executor.poll_news(), None);
    executor.handle_drain(Time(5), Duration::ZERO);
    assert!(matches!(executor.poll_news(), Some(ToSink::News { news: News::Draining, .. })));
    assert!(matches!(executor.poll_news(), Some(ToSink::News { news: News::Returned { .. }, .. })));
    assert_eq!(executor.poll_news(), None);
    assert!(matches!(executor.poll_transmit(), Some(ToSink::Results { .. })));
}

#[test]
fn a_task_that_runs_for_a_day_is_run_once() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 1);
    ring.join(2, 1);
    ring.tasks(&["a"]);
    ring.dispatcher.handle_input_end();
    ring.settle();
    let holder = if ring.running(1).is_empty() { 2 } else { 1 };
    let beat = HEARTBEAT_INTERVAL.as_micros() as u64;
    for _ in 0..24 * 60 * 60 {
        ring.pass(beat);
    }
    assert_eq!(ring.running(holder), [(0, 1)]);
    assert!(ring.running(3 - holder).is_empty(), "nobody else was given it");
    ring.finish(holder, 0, Outcome::ok(Payload::new()));
    assert_eq!(ring.records(), [(0, Status::Ok, 1)]);
    ring.flush();
    ring.assert_over();
}

//! A worker's machine by itself, with slots that go on before they are told to.

use std::time::Duration;

use tradewind_proto::collector::Order;
use tradewind_proto::executor::{Executor, Finished, Stop};
use tradewind_proto::limits::HEARTBEAT_INTERVAL;
use tradewind_proto::message::{
    Layout, Limits, News, Outcome, Report, Reported, Status, Task, ToSink, ToWorker,
};
use tradewind_proto::{
    Attempt, CallId, Payload, Seq, SeqRanges, SessionId, Slot, Tag, TaskHash, Time,
};

use tradewind_testkit::{JOB, Ring};

/// Runs task 0 in its only slot; 1, 2 and 3 wait.
fn worker() -> Executor {
    let mut executor = Executor::new(SessionId(1), 1);
    executor.handle_sink_connected();
    executor.handle_message(ToWorker::RollCall {
        job: JOB,
        call: CallId(1),
        layout: Layout::Unsaid,
    });
    let tasks = (0..4).map(|seq| Task {
        seq: Seq(seq),
        attempt: Attempt::FIRST,
        last: true,
        payload: Payload::from(b"task"),
        hash: TaskHash::of(b"task"),
        tag: Tag::default(),
    });
    executor.handle_message(ToWorker::Tasks {
        job: JOB,
        limits: Limits { timeout_us: Some(1_000), report: Report::default() },
        tasks: tasks.collect::<Vec<_>>().into(),
    });
    assert_eq!(executor.poll_start(Time(0)).map(|start| start.task.seq), Some(Seq(0)));
    while executor.poll_transmit().is_some() {}
    executor
}

/// Task 0 has ended, and the slot has begun 1 at this time.
fn go_on(executor: &mut Executor, began: Time) {
    let outcome = Outcome::ok(Payload::new());
    let slot = Slot(0);
    executor.handle_finished(Finished { slot, started_us: 1, ran_us: 1, outcome, reported: None });
    executor.handle_begun(began, slot, Seq(1));
}

/// Gives a worker the first attempt of a task, with this tag.
fn give(executor: &mut Executor, seq: u64, payload: &'static [u8], tag: Tag) {
    let (attempt, payload) = (Attempt::FIRST, Payload::from(payload));
    let hash = TaskHash::of(&payload);
    let task = Task { seq: Seq(seq), attempt, last: true, payload, hash, tag };
    let (limits, tasks) = (Limits::default(), vec![task].into());
    executor.handle_message(ToWorker::Tasks { job: JOB, limits, tasks });
    executor.check_invariants();
}

/// Ends the task in the only slot, and returns the tags of the results that are sent then.
fn tags_at_end(executor: &mut Executor) -> Vec<(u64, Tag)> {
    let (slot, outcome) = (Slot(0), Outcome::ok(Payload::new()));
    executor.handle_finished(Finished { slot, started_us: 1, ran_us: 1, outcome, reported: None });
    let sent = std::iter::from_fn(|| executor.poll_transmit());
    let results = sent.filter_map(|message| match message {
        ToSink::Results { results, .. } => Some(results.0),
        _ => None,
    });
    results.flatten().map(|result| (result.seq.0, result.tag)).collect()
}

fn waiting(executor: &Executor) -> Vec<u64> {
    executor.waiting().map(|(task, _)| task.seq.0).collect()
}

// Fails if first attempts are not looked for in the slots: it would be here twice, and its result would have
// a tag that the sink refuses.
#[test]
fn a_task_that_runs_takes_the_tag_of_a_sink_that_was_started_again() {
    let mut executor = worker();
    give(&mut executor, 0, b"task", Tag(7));
    assert_eq!(waiting(&executor), [1, 2, 3]);
    assert_eq!(tags_at_end(&mut executor), [(0, Tag(7))]);
}

// Fails as the test before does.
#[test]
fn a_task_that_is_prefetched_takes_the_tag_of_a_sink_that_was_started_again() {
    let mut executor = worker().with_prefetch();
    executor.handle_depth(Slot(0), 3);
    let started = std::iter::from_fn(|| executor.poll_start(Time(1)));
    assert_eq!(started.map(|start| start.task.seq.0).collect::<Vec<_>>(), [1, 2]);
    give(&mut executor, 1, b"task", Tag(7));
    assert_eq!(waiting(&executor), [3]);
    assert_eq!(tags_at_end(&mut executor), [(0, Tag::default())]);
    assert_eq!(tags_at_end(&mut executor), [(1, Tag(7))]);
}

// Fails if a task that runs is taken for one with another payload: the sink would refuse its result.
#[test]
fn a_task_whose_input_has_changed_is_stopped_and_runs_again() {
    let mut executor = worker();
    give(&mut executor, 0, b"other", Tag(7));
    let stop = Stop { slot: Slot(0), seq: Seq(0), attempt: Attempt::FIRST };
    assert_eq!(executor.poll_stop(), Some(stop));
    assert_eq!(executor.poll_stop(), None);
    assert_eq!(waiting(&executor), [0, 1, 2, 3]);
    assert_eq!(tags_at_end(&mut executor), [], "nobody wants it");
    let start = executor.poll_start(Time(1)).expect("its slot is free");
    assert_eq!((start.task.seq, &start.task.payload[..]), (Seq(0), &b"other"[..]));
    assert_eq!(tags_at_end(&mut executor), [(0, Tag(7))]);
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
    assert!(matches!(executor.poll_news(), Some(ToSink::News { news: News::Draining { .. }, .. })));
    assert!(matches!(executor.poll_news(), Some(ToSink::News { news: News::Returned { .. }, .. })));
    assert_eq!(executor.poll_news(), None);
    assert!(matches!(executor.poll_transmit(), Some(ToSink::Results { .. })));
}

/// The seqs that a worker says it has no more.
fn returned(executor: &mut Executor) -> Vec<u64> {
    let news = std::iter::from_fn(|| executor.poll_news());
    news.filter_map(|message| match message {
        ToSink::News { news: News::Returned { ranges, .. }, .. } => Some(ranges),
        _ => None,
    })
    .flat_map(|ranges| ranges.as_slice().to_vec())
    .flat_map(|range| range.seqs().map(|seq| seq.0).collect::<Vec<_>>())
    .collect()
}

#[test]
fn what_is_settled_elsewhere_while_it_is_being_stopped_is_handed_back() {
    let mut executor = worker();
    executor.handle_timeout(Time(1_000));
    assert_eq!(stops(&mut executor), [(0, 0)], "it has timed out");
    executor.handle_message(ToWorker::Settled {
        job: JOB,
        below: Seq(1),
        ranges: SeqRanges::new(),
    });
    assert_eq!(returned(&mut executor), [0]);
    assert_eq!(stops(&mut executor), [], "it is being stopped already");
    end(&mut executor, 0);
    assert_eq!(executor.poll_transmit(), None, "nobody wants its result");
}

#[test]
fn a_result_that_is_settled_before_it_was_sent_is_handed_back() {
    let mut executor = worker();
    end(&mut executor, 0);
    let ranges: SeqRanges = [Seq(0)].into_iter().collect();
    executor.handle_message(ToWorker::Settled { job: JOB, below: Seq(0), ranges });
    assert_eq!(returned(&mut executor), [0]);
    assert_eq!(executor.poll_transmit(), None);
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

/// A worker whose two slots take three tasks at once, and the tasks that it has started.
fn prefetching(attempts: &[u32]) -> (Executor, Vec<(u64, u32)>) {
    let mut executor = Executor::new(SessionId(1), 2).with_prefetch();
    executor.handle_sink_connected();
    executor.handle_message(ToWorker::RollCall {
        job: JOB,
        call: CallId(1),
        layout: Layout::Unsaid,
    });
    executor.handle_depth(Slot(0), 3);
    executor.handle_depth(Slot(1), 3);
    let tasks = (0..).zip(attempts).map(|(seq, attempt)| Task {
        seq: Seq(seq),
        attempt: Attempt(*attempt),
        last: true,
        payload: Payload::from(b"task"),
        hash: TaskHash::of(b"task"),
        tag: Tag::default(),
    });
    executor.handle_message(ToWorker::Tasks {
        job: JOB,
        limits: Limits { timeout_us: Some(1_000), report: Report::default() },
        tasks: tasks.collect::<Vec<_>>().into(),
    });
    while executor.poll_transmit().is_some() {}
    let started = starts(&mut executor);
    (executor, started)
}

fn starts(executor: &mut Executor) -> Vec<(u64, u32)> {
    let starts = std::iter::from_fn(|| executor.poll_start(Time(0)));
    starts.map(|start| (start.task.seq.0, start.slot.0)).collect()
}

fn end(executor: &mut Executor, slot: u32) {
    executor.handle_finished(Finished {
        slot: Slot(slot),
        started_us: 1,
        ran_us: 1,
        outcome: Outcome::ok(Payload::new()),
        reported: None,
    });
}

fn stops(executor: &mut Executor) -> Vec<(u64, u32)> {
    let stops = std::iter::from_fn(|| executor.poll_stop());
    stops.map(|stop| (stop.seq.0, stop.slot.0)).collect()
}

#[test]
fn busy_slots_are_fed_in_turn_up_to_their_depth() {
    let (mut executor, started) = prefetching(&[1; 9]);
    assert_eq!(started, [(0, 0), (1, 1), (2, 0), (3, 1), (4, 0), (5, 1)]);
    assert_eq!(waiting(&executor), [6, 7, 8]);
    assert_eq!((executor.snapshot().running, executor.snapshot().queued), (2, 7));
    end(&mut executor, 1);
    assert_eq!(starts(&mut executor), [(6, 1)]);
    executor.handle_depth(Slot(0), 1);
    end(&mut executor, 0);
    assert_eq!(starts(&mut executor), []);
}

#[test]
fn a_later_attempt_is_alone_in_its_slot() {
    let (mut executor, started) = prefetching(&[2, 1, 1, 2, 1]);
    // Behind the first there is nothing, and 3 waits for a slot of its own.
    assert_eq!(started, [(0, 0), (1, 1), (2, 1)]);
    end(&mut executor, 0);
    assert_eq!(starts(&mut executor), [(3, 0), (4, 1)]);
}

#[test]
fn what_was_fed_is_not_handed_back_and_is_held() {
    let (mut executor, _) = prefetching(&[1; 9]);
    executor.handle_message(ToWorker::Recall { job: JOB, call: CallId(7), keep: 0 });
    let ranges: SeqRanges = (6..9).map(Seq).collect();
    let news = News::Recalled { job: JOB, call: CallId(7), ranges };
    assert_eq!(executor.poll_news(), Some(ToSink::News { session: SessionId(1), news }));
    executor.handle_message(ToWorker::RollCall {
        job: JOB,
        call: CallId(8),
        layout: Layout::Unsaid,
    });
    let Some(ToSink::News { news: News::Holding { unfinished, hashes, .. }, .. }) =
        executor.poll_news()
    else {
        panic!("the roll call is answered");
    };
    assert_eq!(unfinished, (0..6).map(Seq).collect());
    assert_eq!(hashes.0.len(), 6);
}

#[test]
fn a_fed_task_has_time_from_when_it_has_begun() {
    let (mut executor, _) = prefetching(&[1; 3]);
    executor.handle_timeout(Time(999_999));
    assert_eq!(stops(&mut executor), []);
    executor.handle_under_way(Slot(0), Seq(0), Attempt::FIRST, Time(1_000_000));
    // It is not the first there, any more or yet.
    executor.handle_under_way(Slot(0), Seq(2), Attempt::FIRST, Time(0));
    executor.handle_timeout(Time(1_000_999));
    assert_eq!(stops(&mut executor), []);
    executor.handle_timeout(Time(1_001_000));
    assert_eq!(stops(&mut executor), [(0, 0)]);
}

#[test]
fn what_was_fed_and_is_wanted_no_more_is_stopped() {
    let (mut executor, _) = prefetching(&[1; 9]);
    let ranges: SeqRanges = [Seq(4), Seq(6)].into_iter().collect();
    executor.handle_message(ToWorker::Settled { job: JOB, below: Seq(1), ranges });
    assert_eq!(stops(&mut executor), [(0, 0), (4, 0)]);
    executor.handle_message(ToWorker::Cancel { job: JOB });
    assert_eq!(stops(&mut executor), [(1, 1), (2, 0), (3, 1), (5, 1)]);
    for slot in [0, 0, 0, 1, 1, 1] {
        assert!(!executor.is_empty());
        end(&mut executor, slot);
    }
    assert!(executor.is_empty());
}

#[test]
fn what_was_fed_answers_for_a_later_attempt() {
    let (mut executor, _) = prefetching(&[1; 6]);
    let task = Task {
        seq: Seq(4),
        attempt: Attempt(2),
        last: true,
        payload: Payload::from(b"task"),
        hash: TaskHash::of(b"task"),
        tag: Tag::default(),
    };
    let limits = Limits::default();
    executor.handle_message(ToWorker::Tasks { job: JOB, limits, tasks: vec![task].into() });
    assert_eq!(waiting(&executor), []);
    for _ in 0..3 {
        end(&mut executor, 0);
    }
    let Some(ToSink::Results { results, .. }) = executor.poll_transmit() else {
        panic!("there are results");
    };
    let results: Vec<_> = results.0.iter().map(|result| (result.seq.0, result.attempt.0)).collect();
    assert_eq!(results, [(0, 1), (2, 1), (4, 2)]);
}

/// Takes what the worker sends of results: how each ended, and its reason.
fn sent(executor: &mut Executor) -> Vec<(u64, Status, String)> {
    let mut sent = Vec::new();
    while let Some(message) = executor.poll_transmit() {
        if let ToSink::Results { results, .. } = message {
            let results = results.0.into_iter();
            sent.extend(results.map(|it| (it.seq.0, it.outcome.status, it.outcome.error)));
        }
    }
    sent
}

#[test]
fn a_result_that_the_sink_does_not_take_is_a_failure_and_holds_up_nothing() {
    let mut executor = worker();
    executor.handle_sink_limit(1 << 20, 5 << 20);
    executor.handle_sink_connected();
    let finish = |executor: &mut Executor, bytes: usize| {
        let outcome = Outcome::ok(Payload::from(vec![0; bytes]));
        let slot = Slot(0);
        let reported = None;
        executor.handle_finished(Finished { slot, started_us: 1, ran_us: 1, outcome, reported });
        let _ = executor.poll_start(Time(1));
    };
    finish(&mut executor, 10);
    finish(&mut executor, 1 << 20);
    finish(&mut executor, (1 << 20) - (64 << 10));
    let said = "the result has 1048576 bytes, and the sink takes messages of 1048576 bytes (its \
                --message-max; it is 5242880 at the worker)";
    let ok = |seq| (seq, Status::Ok, String::new());
    let wanted = [ok(0), (1, Status::Failed, said.to_owned()), ok(2)];
    assert_eq!(sent(&mut executor), wanted);
    // One that takes more does not get another result than the one before it.
    executor.handle_sink_limit(1 << 30, 5 << 20);
    executor.handle_sink_connected();
    assert_eq!(sent(&mut executor), wanted);
    // One that says that it takes nothing gets what every sink takes.
    executor.handle_sink_limit(0, 5 << 20);
    executor.handle_sink_connected();
    let sent = sent(&mut executor);
    assert_eq!(
        sent.iter().map(|it| it.1).collect::<Vec<_>>(),
        [Status::Ok, Status::Failed, Status::Failed]
    );
}

#[test]
fn what_only_goes_with_a_result_is_left_out_where_it_does_not_fit() {
    const MOST: usize = (1 << 20) - (64 << 10);
    /// Bytes of the output, of stderr and of the task, and which of the last two are sent.
    #[track_caller]
    fn check(bytes: [usize; 3], stderr: &str, has_task: bool) {
        let [output, said, task] = bytes.map(|bytes| Payload::from(vec![b'x'; bytes]));
        let mut executor = worker();
        executor.handle_sink_limit(1 << 20, 5 << 20);
        executor.handle_sink_connected();
        let reported = Some(Box::new(Reported { command: "c".into(), task }));
        let outcome = Outcome { stderr: said.into(), ..Outcome::ok(output) };
        let slot = Slot(0);
        executor.handle_finished(Finished { slot, started_us: 1, ran_us: 1, outcome, reported });
        let sent = std::iter::from_fn(|| executor.poll_transmit());
        let mut results = sent.filter_map(|message| match message {
            ToSink::Results { results, .. } => Some(results.0),
            _ => None,
        });
        let result = results.next().expect("it is sent").remove(0);
        assert_eq!((result.outcome.status, result.outcome.output.len()), (Status::Ok, bytes[0]));
        assert_eq!(&*result.outcome.stderr, stderr.as_bytes());
        assert_eq!(result.reported.is_some(), has_task);
    }
    check([10, 3, 10], "xxx", true);
    check([MOST - 100, 0, 10], "", true);
    check([MOST - 100, 1_000, 10], "[1000 bytes are left out]\n", true);
    check([MOST - 100, 1_000, 1_000], "[1000 bytes are left out]\n", false);
    check([MOST, 0, 10], "", false);
}

//! Messages that no honest peer sends: what they cost, and what they change.

use tradewind_proto::collector::Order;
use tradewind_proto::dispatcher::{Notice, Timeout, Transmit};
use tradewind_proto::executor::{Executor, Finished};
use tradewind_proto::limits::{CREDIT_BYTES_MAX, CREDIT_TASKS_MAX, MESSAGE_BYTES_MAX, SEQS_MAX};
use tradewind_proto::message::{
    Card, Failure, Layout, Limits, News, Outcome, Received, Role, Start, Task, TaskResult, ToSink,
    ToVentilator, ToWorker,
};
use tradewind_proto::{
    Attempt, CallId, JobKey, LaneId, Payload, Seq, SeqRange, SeqRanges, SessionId, Slot, Tag,
    TaskHash, Time,
};

use crate::{failed, ok};
use tradewind_testkit::{JOB, Ring, tag};

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
    let (tag, hash) = (Tag::default(), TaskHash::of(&payload));
    Task { seq: Seq(seq), attempt, last: true, tag, hash, payload }
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
        let card = Card { role, session, slots, message_bytes_max, name, queue: String::new() };
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
            tags: vec![Tag::default(); count].into(),
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
    let receipts = std::iter::from_fn(|| ring.sink.collector.poll_transmit());
    let receipts: Vec<ToVentilator> = receipts.collect();
    let all = SeqRanges::of(SeqRange { start: Seq(0), end: Seq(4) });
    let [ToVentilator::Receipt { received, stored, .. }] = &receipts[..] else {
        panic!("one receipt: {receipts:?}")
    };
    assert_eq!((&received.0[0].ranges, stored), (&all, &all));
}

/// A receipt for results of tasks at a worker, all of which took this time.
fn received(session: u64, tasks: SeqRange, ran_us: u64, failed: u64) -> ToVentilator {
    let received = Received {
        session: SessionId(session),
        ranges: SeqRanges::of(tasks),
        ran_us_max: ran_us,
        ran_us_median: ran_us,
        ran_us_mean: ran_us,
        bytes: 0,
        failed,
    };
    ToVentilator::Receipt {
        job: JOB,
        received: vec![received].into(),
        stored: SeqRanges::new(),
        retry: Vec::new().into(),
        held_bytes: 0,
        failed: 0,
    }
}

// Fails if results count for the median that the worker did not have the task of.
#[test]
fn a_result_that_is_repeated_or_of_no_task_moves_no_timeout() {
    let mut ring = Ring::with(Order::Completion, |config| {
        config.policy.timeout = Some(Timeout::Percent(500.0));
    });
    ring.join(1, 1);
    ring.join(2, 1);
    ring.tasks(&["t"; 20]);
    for _ in 0..4 {
        for worker in [1, 2] {
            ring.pass(1_000_000);
            ring.finish_after(worker, 0, 1_000_000, ok("x"));
        }
    }
    for _ in 0..300 {
        ring.say(received(2, SeqRange::one(Seq(0)), 1, 0));
        ring.say(received(2, SeqRange { start: Seq(100), end: Seq(200) }, 1, 0));
        ring.say(received(3, SeqRange::one(Seq(1)), 1, 0));
    }
    for _ in 0..3 {
        ring.pass(1_000_000);
    }
    assert_eq!(ring.workers[&1].stopped, [], "five seconds, as before");
    ring.pass(1_000_000);
    assert_eq!(ring.workers[&1].stopped.len(), 1);
}

// Fails if the end of a task counts that the worker did not have: one that was set aside would come back
// with a result that is known.
#[test]
fn a_result_that_is_repeated_makes_no_worker_well() {
    let mut ring = Ring::new(1, Order::Completion);
    ring.join(1, 1);
    ring.join(2, 1);
    ring.tasks(&["t"; 200]);
    ring.finish(2, 0, ok("x"));
    while !ring.notices.iter().any(|notice| matches!(notice, Notice::SetAside { .. })) {
        ring.finish(1, 0, ok("x"));
        ring.finish(2, 0, failed());
        assert!(!ring.workers[&2].running.is_empty(), "it is set aside");
    }
    if !ring.workers[&2].running.is_empty() {
        ring.finish(2, 0, failed());
    }
    assert_eq!(ring.workers[&2].running.len(), 0);
    for seq in 0..10 {
        ring.say(received(2, SeqRange::one(Seq(seq)), 1, 0));
    }
    assert_eq!(ring.workers[&2].running.len(), 0);
}

// Fails if what a result says counts also where the sink has had that result before.
#[test]
fn results_that_came_before_say_nothing_beside_others() {
    let mut ring = Ring::new(0, Order::Completion);
    ring.join(1, 2);
    ring.tasks(&["a", "b"]);
    ring.sink_is_mute = true;
    ring.finish_after(1, 0, 1_000, ok("a"));
    ring.finish_after(1, 1, 1_000, ok("b"));
    let results = |ring: &mut Ring, all: &[(u64, u64)]| {
        let result = |(seq, ran_us): &(u64, u64)| TaskResult {
            seq: Seq(*seq),
            ran_us: *ran_us,
            attempt: Attempt::FIRST,
            last: true,
            tag: tag(1, *seq, TaskHash(0)),
            started_us: 1,
            task_bytes: 1,
            task_hash: TaskHash(0),
            outcome: ok("xyz"),
            reported: None,
        };
        let (session, results) = (SessionId(1), all.iter().map(result).collect::<Vec<_>>().into());
        while ring.sink.collector.poll_transmit().is_some() {}
        ring.sink.collector.handle_message(ToSink::Results { job: JOB, session, results });
        match ring.sink.collector.poll_transmit() {
            Some(ToVentilator::Receipt { received, .. }) => {
                let Received { ran_us_median, bytes, ranges, .. } = &received.0[0];
                (*ran_us_median, *bytes, ranges.count())
            }
            other => panic!("a receipt: {other:?}"),
        }
    };
    assert_eq!(results(&mut ring, &[(0, 7), (1, 7)]), (7, 6, 2), "the receipt may have been lost");
    assert_eq!(results(&mut ring, &[(0, 5), (1, 5), (0, 5), (1, 5), (2, 900)]), (900, 3, 3));
}

// Fails if the number of an attempt is believed: with the highest one no failure would count any more.
#[test]
fn a_failed_attempt_of_any_number_uses_up_one_retry() {
    let mut ring = Ring::new(2, Order::Completion);
    ring.join(1, 1);
    ring.tasks(&["a"]);
    for _ in 0..2 {
        let session = SessionId(1);
        let (seq, attempt) = (Seq(0), Attempt(u32::MAX));
        ring.say(ToVentilator::Receipt {
            job: JOB,
            received: Vec::new().into(),
            stored: SeqRanges::new(),
            retry: vec![Failure { session, seq, attempt, ran_us: 1 }].into(),
            held_bytes: 0,
            failed: 0,
        });
        // The worker was told that the result is not needed.
        ring.finish(1, 0, ok("a"));
        // It waits for the longest time that there is.
        for _ in 0..31 {
            ring.pass(1_000_000);
        }
    }
    ring.finish(1, 0, failed());
    assert_eq!(ring.records().len(), 1, "no retry is left");
}

/// A result of a task that a session claims to have run, with the tag of another session's task.
fn forged(session: u64, seq: u64, tag: Tag) -> ToSink {
    let result = TaskResult {
        seq: Seq(seq),
        attempt: Attempt::FIRST,
        last: true,
        tag,
        started_us: 1,
        ran_us: 1,
        task_bytes: 1,
        task_hash: TaskHash::of(b"t"),
        outcome: ok("forged"),
        reported: None,
    };
    ToSink::Results { job: JOB, session: SessionId(session), results: vec![result].into() }
}

// Fails if a result counts from whoever brings it.
#[test]
fn a_result_counts_from_the_session_that_was_given_the_task() {
    let mut ring = Ring::new(1, Order::Completion);
    ring.join(1, 1);
    ring.join(2, 1);
    ring.tasks(&["t"; 4]);
    let hash = TaskHash::of(b"t");
    let its = ring.workers[&2].running[&0].task.clone();
    assert_eq!(its.tag, tag(2, its.seq.0, hash));
    for seq in 0..4 {
        // Another's tag, its own tag for another task, and a guess.
        for tag in [tag(1, 0, hash), its.tag, Tag::default(), Tag(5)] {
            if (seq, tag) != (its.seq.0, its.tag) {
                ring.sink.collector.handle_message(forged(2, seq, tag));
            }
        }
    }
    ring.settle();
    assert_eq!(ring.records(), []);
    let snapshot = ring.sink.collector.snapshot();
    assert_eq!((snapshot.refused_results, snapshot.unexpected_results), (15, 0));
    assert_eq!(ring.sink.collector.refused_by_worker().collect::<Vec<_>>(), [("w2", 15)]);
    // What it was given counts.
    ring.sink.collector.handle_message(forged(2, its.seq.0, its.tag));
    ring.settle();
    assert_eq!(ring.records().len(), 1);
    ring.finish_all();
    assert_eq!(ring.records().len(), 4);
}

// Fails if a worker is believed to hold what it was not given: in a resumed job it could claim all, or end
// the job with a wrong hash.
#[test]
fn a_worker_holds_what_it_was_given() {
    let mut ring = Ring::new(0, Order::Completion);
    ring.join(1, 1);
    ring.tasks(&["t"; 3]);
    ring.restart_ventilator(Start::Resume);
    ring.swallows = Some(2);
    ring.join(2, 4);
    ring.rejoin(1, 1);
    let asked = ring.swallowed.iter().find_map(|message| match message {
        ToWorker::RollCall { call, .. } => Some(*call),
        _ => None,
    });
    assert_eq!(asked, None, "nothing is asked before the input was read again");
    ring.tasks(&["t"; 3]);
    ring.dispatcher.handle_input_end();
    ring.settle();
    let asked = ring.swallowed.iter().find_map(|message| match message {
        ToWorker::RollCall { call, .. } => Some(*call),
        _ => None,
    });
    let news = News::Holding {
        job: JOB,
        call: asked.expect("the roll is called"),
        unfinished: SeqRanges::of(SeqRange { start: Seq(0), end: Seq(3) }),
        finished: SeqRanges::new(),
        hashes: vec![TaskHash(0), TaskHash::of(b"t"), TaskHash::of(b"t")].into(),
        tags: vec![Tag(1), tag(1, 1, TaskHash::of(b"t")), tag(2, 1, TaskHash::of(b"t"))].into(),
    };
    ring.say(ToVentilator::Relay { session: SessionId(2), news });
    assert_eq!(ring.dispatcher.ended(), None);
    let mut workers = ring.dispatcher.snapshot().workers.into_iter();
    assert!(workers.any(|it| it.session == SessionId(2) && it.is_ready && it.out == 0));
    ring.workers.remove(&2);
    ring.dispatcher.handle_lane_gone(LaneId(2));
    for _ in 0..12 {
        ring.pass(1_000_000);
    }
    ring.finish_all();
    assert_eq!(ring.records().len(), 3);
}

// Fails if a worker keeps a result with a tag that the sink does not know, or if a task that it has is run
// again for a new tag.
#[test]
fn results_are_taken_by_a_sink_that_has_lost_the_key() {
    for is_held in [false, true] {
        let mut ring = Ring::new(0, Order::Completion);
        ring.join(1, 2);
        ring.tasks(&["t"; 4]);
        ring.disk_is_stuck = true;
        ring.finish(1, 0, ok("x"));
        if is_held {
            ring.finish(1, 1, ok("x"));
        }
        ring.disk_is_stuck = false;
        ring.sink.key = JobKey::new([9; 16]);
        ring.restart_sink(Order::Completion);
        let refused = ring.sink.collector.snapshot().refused_results;
        assert!(refused > 0, "they were made for the other one");
        for _ in 0..12 {
            ring.pass(1_000_000);
        }
        let starts: usize = ring.workers[&1].running.len();
        assert_eq!((ring.records().len(), starts), (1 + usize::from(is_held), 2));
        ring.finish_all();
        assert_eq!(ring.records().len(), 4);
        ring.dispatcher.handle_input_end();
        ring.settle();
        ring.flush();
        ring.assert_over();
    }
}

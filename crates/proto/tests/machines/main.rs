//! The three machines against one another: one behaviour a test, and nothing else happened.

mod again;
mod bounds;
mod cancel;
mod completion;
mod executor;
mod explain;
mod farewell;
mod flow;
mod halt;
mod held;
mod hosts;
mod late;
mod lies;
mod once_more;
mod overdue;
mod own;
mod queue;
mod receipts;
mod relay;
mod resume;
mod shortage;
mod spool;
mod straggler;
mod suspects;
mod uneven;

use std::time::Duration;

use tradewind_proto::Payload;
use tradewind_proto::collector::Order;
use tradewind_proto::dispatcher::{Ended, Notice, Timeout};
use tradewind_proto::executor::Executor;
use tradewind_proto::limits::{
    CREDIT_BYTES_MAX, CREDIT_TASKS_MAX, HELD_BYTES_MAX, LOSSES_MAX, RETRY_BACKOFF_MIN, RETURN_GRACE,
};
use tradewind_proto::message::{
    Exit, Layout, News, Outcome, Status, Task, ToSink, ToVentilator, ToWorker,
};
use tradewind_proto::{Attempt, CallId, LaneId, Seq, SessionId, Tag, TaskHash, Time};

use tradewind_testkit::{JOB, Ring, tag};

fn ok(output: &'static str) -> Outcome {
    Outcome::ok(Payload::from(output.as_bytes()))
}

fn failed() -> Outcome {
    Outcome { exit: Exit::Code(1), ..Outcome::error(Status::Failed, "exit code 1") }
}

#[test]
fn a_lone_task_waits_for_no_timer() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 1);
    ring.tasks(&["a"]);
    assert_eq!(ring.running(1), [(0, 1)]);
    ring.finish(1, 0, ok("A"));
    assert_eq!(ring.records(), [(0, Status::Ok, 1)]);
    ring.dispatcher.handle_input_end();
    ring.settle();
    ring.flush();
    ring.assert_over();
}

#[test]
fn a_job_without_tasks_ends() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.dispatcher.handle_input_end();
    ring.settle();
    ring.flush();
    ring.assert_over();
}

#[test]
fn records_are_in_the_order_that_was_asked_for() {
    for (order, expected) in [(Order::Seq, [0, 1, 2]), (Order::Completion, [2, 0, 1])] {
        let mut ring = Ring::new(0, order);
        ring.join(1, 3);
        ring.tasks(&["a", "b", "c"]);
        for seq in [2, 0, 1] {
            ring.finish(1, seq, ok("x"));
        }
        let seqs: Vec<u64> = ring.records().iter().map(|record| record.0).collect();
        assert_eq!(seqs, expected, "{order:?}");
    }
}

#[test]
fn a_window_begins_with_the_slots_and_is_shared_evenly() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 2);
    ring.join(2, 3);
    ring.tasks(&["t"; 20]);
    let held: Vec<u64> = ring.dispatcher.snapshot().workers.iter().map(|w| w.out).collect();
    assert_eq!(held, [2, 3]);
}

#[test]
fn a_window_reaches_its_bound_and_never_exceeds_it() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 1);
    let mut most = (0, 0);
    for _ in 0..40 {
        while ring.dispatcher.input_room() > 0 {
            ring.dispatcher.handle_task(Payload::from(b"t"));
        }
        ring.settle();
        let worker = &ring.dispatcher.snapshot().workers[0];
        assert!(worker.out <= worker.window && worker.window <= CREDIT_TASKS_MAX);
        most = most.max((worker.window, worker.out));
        let mut ended = 0;
        while let Some(slot) = ring.workers[&1].running.keys().next().copied()
            && ended < 1_000
        {
            ring.finish(1, slot, ok("t"));
            ended += 1;
        }
    }
    // A worker with all slots busy is given more once an eighth is free.
    assert_eq!(most.0, CREDIT_TASKS_MAX);
    assert!(most.1 > CREDIT_TASKS_MAX / 8 * 7, "{} tasks at most", most.1);
}

/// Worker 1 takes a millisecond for a task and worker 2 a second; one task waits that both could
/// have, and worker 1 is at another.
fn a_slow_worker_and_a_task_that_waits() -> Ring {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 1);
    ring.join(2, 1);
    ring.tasks(&["t"; 2]);
    for _ in 0..10 {
        ring.tasks(&["t"]);
        ring.now = Time(ring.now.0 + 1_000);
        ring.finish_after(1, 0, 1_000, ok("t"));
    }
    ring.tasks(&["t"]);
    ring.now = Time(ring.now.0 + 1_000_000);
    ring.finish_after(1, 0, 1_000, ok("t"));
    ring.finish_after(2, 0, 1_000_000, ok("t"));
    assert_eq!((ring.running(1).len(), ring.running(2).len()), (1, 0));
    ring.tasks(&["t"]);
    ring
}

#[test]
fn a_task_is_kept_for_those_who_will_sooner_have_done_it() {
    let mut ring = a_slow_worker_and_a_task_that_waits();
    assert_eq!(ring.running(2), []);
    ring.finish(1, 0, ok("t"));
    assert_eq!((ring.running(1), ring.running(2)), (vec![(13, 1)], vec![]));
    // With more than they get through in that time it is another matter.
    ring.tasks(&["t"; 2_000]);
    assert_eq!(ring.running(2).len(), 1);
}

#[test]
fn a_slow_worker_gets_what_is_left_when_the_faster_ones_are_gone() {
    let mut ring = a_slow_worker_and_a_task_that_waits();
    ring.kill(1);
    assert_eq!(ring.running(2), [(12, 2)]);
}

#[test]
fn a_slow_worker_gets_what_is_left_when_the_faster_ones_do_not_move() {
    let mut ring = a_slow_worker_and_a_task_that_waits();
    let due = ring.dispatcher.poll_timeout();
    assert!(due <= Time(ring.now.0 + 1_000_000), "somebody looks again");
    ring.pass(500_000);
    assert_eq!(ring.running(2), []);
    ring.pass(600_000);
    assert_eq!(ring.running(2), [(13, 1)]);
}

#[test]
fn what_failed_elsewhere_is_tried_by_a_slow_worker() {
    let mut ring = Ring::new(1, Order::Seq);
    ring.join(1, 1);
    ring.join(2, 1);
    ring.tasks(&["t"; 2]);
    ring.finish_after(1, 0, 1_000, ok("t"));
    ring.finish_after(2, 0, 1_000_000, ok("t"));
    ring.tasks(&["t"]);
    assert_eq!(ring.running(1), [(2, 1)]);
    ring.finish(1, 0, failed());
    ring.pass(RETRY_BACKOFF_MIN.as_micros() as u64);
    assert_eq!((ring.running(1), ring.running(2)), (vec![], vec![(2, 2)]));
}

/// Worker 1 has a queue of what is left, and nobody else is there yet.
fn a_queue_of_all_that_is_left() -> Ring {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 1);
    ring.tasks(&["t"; 40]);
    while ring.dispatcher.snapshot().workers[0].out < 8 {
        ring.now = Time(ring.now.0 + 5_000);
        ring.finish_after(1, 0, 5_000, ok("t"));
    }
    while ring.dispatcher.snapshot().read > ring.records().len() as u64 + 8 {
        ring.now = Time(ring.now.0 + 5_000);
        ring.finish_after(1, 0, 5_000, ok("t"));
    }
    ring
}

#[test]
fn a_queue_is_shared_with_a_worker_that_comes_late() {
    let mut ring = a_queue_of_all_that_is_left();
    let held = |ring: &Ring, id: u64| ring.workers[&id].executor.snapshot();
    assert_eq!((held(&ring, 1).running, held(&ring, 1).queued), (1, 7));
    ring.join(2, 1);
    ring.pass(1_000);
    // One half each, of which the ventilator keeps what worker 2 does not run yet.
    assert_eq!((held(&ring, 1).running, held(&ring, 1).queued), (1, 3));
    // It was moved, not attempted before.
    assert_eq!(ring.running(2), [(36, 1)]);
    ring.finish_all();
    let seqs: Vec<u64> = ring.records().iter().map(|record| record.0).collect();
    assert!(seqs.into_iter().eq(0..40));
}

#[test]
fn an_answer_to_a_recall_that_was_answered_takes_nothing_back() {
    let mut ring = a_queue_of_all_that_is_left();
    ring.join(2, 1);
    ring.pass(1_000);
    let held = |ring: &Ring| -> Vec<u64> {
        ring.dispatcher.snapshot().workers.iter().map(|worker| worker.out).collect()
    };
    assert_eq!(held(&ring), [4, 1]);
    for call in 0..10 {
        let ranges = (0..40).map(Seq).collect();
        let news = News::Recalled { job: JOB, call: CallId(call), ranges };
        ring.say(ToVentilator::Relay { session: SessionId(1), news });
    }
    assert_eq!(held(&ring), [4, 1]);
}

#[test]
fn a_recall_is_answered_and_leaves_what_would_start_first() {
    let mut executor = Executor::new(SessionId(1), 1);
    executor.handle_sink_connected();
    executor.handle_message(ToWorker::RollCall {
        job: JOB,
        call: CallId(0),
        layout: Layout::Unsaid,
    });
    let task = |seq| Task {
        seq: Seq(seq),
        attempt: Attempt(1),
        last: true,
        payload: Default::default(),
        hash: TaskHash::of(b""),
        tag: Tag::default(),
    };
    let tasks: Vec<Task> = (0..5).map(task).collect();
    let limits = Default::default();
    executor.handle_message(ToWorker::Tasks { job: JOB, limits, tasks: tasks.into() });
    assert!(executor.poll_start(Time(0)).is_some());
    while executor.poll_transmit().is_some() {}
    for (keep, returned) in [(1, vec![Seq(2), Seq(3), Seq(4)]), (1, vec![]), (0, vec![Seq(1)])] {
        executor.handle_message(ToWorker::Recall { job: JOB, call: CallId(7), keep });
        let ranges = returned.into_iter().collect();
        let news = News::Recalled { job: JOB, call: CallId(7), ranges };
        let session = SessionId(1);
        assert_eq!(executor.poll_transmit(), Some(ToSink::News { session, news }));
    }
    assert_eq!(executor.snapshot().running, 1);
}

#[test]
fn a_worker_that_the_sink_does_not_hear_gets_no_task() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.sink_is_mute = true;
    ring.join(1, 1);
    ring.tasks(&["a"]);
    assert_eq!(ring.running(1), []);
    ring.sink_is_mute = false;
    ring.settle();
    assert_eq!(ring.running(1), [(0, 1)]);
}

#[test]
fn a_lost_workers_tasks_go_to_another_lowest_first() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 2);
    ring.tasks(&["a", "b", "c"]);
    ring.join(2, 1);
    assert_eq!(ring.running(2), [(2, 1)]);
    ring.kill(1);
    ring.finish_all();
    assert_eq!(ring.records(), [(0, Status::Ok, 2), (1, Status::Ok, 2), (2, Status::Ok, 1)]);
}

#[test]
fn a_silent_worker_is_lost_but_not_while_the_sink_is_silent_too() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 1);
    ring.tasks(&["a"]);
    // A worker that hangs says nothing, while the sink does.
    let worker = ring.workers.remove(&1).expect("it has joined");
    for _ in 0..6 {
        ring.pass(1_000_000);
    }
    assert_eq!(ring.dispatcher.snapshot().workers.len(), 1);
    ring.sink_is_mute = true;
    for _ in 0..60 {
        ring.pass(1_000_000);
    }
    assert_eq!(ring.dispatcher.snapshot().workers.len(), 1, "nobody could have been heard");
    ring.sink_is_mute = false;
    ring.settle();
    for _ in 0..12 {
        ring.pass(1_000_000);
    }
    assert_eq!(ring.dispatcher.snapshot().workers.len(), 0);
    let silent = Notice::Silent { worker: "w1".to_owned(), seconds: 10, out: 1 };
    assert_eq!(ring.notices.pop_front(), Some(silent), "people are told why");
    assert_eq!(ring.closed, [LaneId(1)], "it hears of it should it be there after all");
    drop(worker);
}

#[test]
fn a_failure_is_tried_again_after_a_backoff_as_often_as_allowed() {
    let mut ring = Ring::new(2, Order::Seq);
    ring.join(1, 1);
    ring.tasks(&["a"]);
    for attempt in 1..=2 {
        assert_eq!(ring.running(1), [(0, attempt)]);
        ring.finish(1, 0, failed());
        assert_eq!(ring.running(1), [], "not before its backoff");
        ring.pass(RETRY_BACKOFF_MIN.as_micros() as u64 * u64::from(attempt) * 2);
    }
    assert_eq!(ring.records(), []);
    assert_eq!(ring.running(1), [(0, 3)]);
    ring.finish(1, 0, failed());
    assert_eq!(ring.records(), [(0, Status::Failed, 3)]);
}

#[test]
fn a_poison_task_gets_a_lost_record_and_its_neighbours_do_not() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.tasks(&["poison", "b", "c"]);
    for id in 1..=u64::from(LOSSES_MAX) {
        assert_eq!(ring.records(), []);
        ring.join(id, 1);
        assert_eq!(ring.running(id), [(0, id as u32)]);
        ring.kill(id);
    }
    // The last of them may yet be back.
    ring.join(9, 1);
    assert_eq!(ring.running(9), [(1, 1)]);
    ring.pass(1_000_000);
    assert_eq!(ring.records(), []);
    for _ in 0..=RETURN_GRACE.as_secs() {
        ring.pass(1_000_000);
    }
    assert_eq!(ring.records(), [(0, Status::Lost, LOSSES_MAX)]);
    ring.finish_all();
    assert_eq!(ring.records()[1..], [(1, Status::Ok, 1), (2, Status::Ok, 1)]);
}

#[test]
fn duplicate_result_is_counted_once() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 1);
    ring.tasks(&["a"]);
    ring.sink_is_mute = true;
    ring.finish(1, 0, ok("A"));
    // Not settled yet, so a new connection brings it again.
    let worker = ring.workers.get_mut(&1).expect("it has joined");
    worker.executor.handle_sink_disconnected();
    worker.executor.handle_sink_connected();
    ring.sink_is_mute = false;
    ring.settle();
    assert_eq!(ring.records(), [(0, Status::Ok, 1)]);
    assert_eq!(ring.sink.collector.snapshot().duplicates, 1);
    assert!(ring.workers[&1].executor.is_empty(), "settled");
}

#[test]
fn a_result_of_another_job_or_far_away_is_no_record() {
    let mut ring = Ring::new(0, Order::Completion);
    ring.join(1, 1);
    ring.tasks(&["a"]);
    let mut other = Executor::new(SessionId(5), 1);
    other.handle_sink_connected();
    for (job, seq) in [(tradewind_proto::JobId(5), 0), (JOB, u64::MAX - 1), (JOB, 1 << 40)] {
        let results = vec![tradewind_proto::message::TaskResult {
            seq: tradewind_proto::Seq(seq),
            attempt: tradewind_proto::Attempt(1),
            last: true,
            tag: tag(5, seq, tradewind_proto::TaskHash(0)),
            started_us: 0,
            ran_us: 0,
            task_bytes: 0,
            task_hash: tradewind_proto::TaskHash(0),
            outcome: ok("forged"),
            reported: None,
        }];
        let session = SessionId(5);
        ring.sink.collector.handle_message(ToSink::Results {
            job,
            session,
            results: results.into(),
        });
    }
    ring.settle();
    assert_eq!(ring.records(), []);
    assert_eq!(ring.sink.collector.snapshot().unexpected_results, 3);
}

#[test]
fn a_task_that_cannot_be_sent_gets_its_record_in_its_turn() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.tasks(&["a"]);
    ring.dispatcher.handle_unfit_task("too large".into());
    ring.tasks(&["c"]);
    assert_eq!(ring.records(), []);
    ring.join(1, 1);
    ring.finish_all();
    assert_eq!(ring.records(), [(0, Status::Ok, 1), (1, Status::Failed, 0), (2, Status::Ok, 1)]);
}

#[test]
fn a_full_sink_is_given_only_what_it_waits_for() {
    assert_held(Ring::new(0, Order::Seq), HELD_BYTES_MAX);
    let mut ring = Ring::new(0, Order::Seq);
    ring.sink.collector = ring.sink.collector.with_held_bytes_max(3 << 20);
    assert_held(ring, 3 << 20);
}

#[track_caller]
fn assert_held(mut ring: Ring, held_bytes_max: u64) {
    ring.join(1, 2);
    ring.tasks(&["t"; 50]);
    // Seq 0 runs on; what comes after it piles up at the sink.
    let large = Payload::from(vec![0; 1 << 20]);
    let mut ended = 0;
    while let Some(slot) = ring.workers[&1]
        .running
        .iter()
        .find_map(|(slot, start)| (start.task.seq.0 != 0).then_some(*slot))
    {
        ring.now = tradewind_proto::Time(ring.now.0 + 5_000);
        ring.finish(1, slot, Outcome::ok(large.clone()));
        ended += 1;
    }
    // What was handed out when the sink said that it is full still comes.
    let bound = (held_bytes_max + CREDIT_BYTES_MAX) / (1 << 20) + 4;
    assert!(ended <= bound, "{ended} results were made");
    assert_eq!(ring.records(), []);
    ring.finish_all();
    assert_eq!(ring.records().len(), 50);
}

#[test]
fn draining_finishes_what_is_out_and_drops_the_rest() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 2);
    ring.tasks(&["t"; 10]);
    ring.dispatcher.handle_drain();
    ring.settle();
    assert_eq!(ring.dispatcher.input_room(), 0);
    ring.finish_all();
    assert_eq!(ring.records(), [(0, Status::Ok, 1), (1, Status::Ok, 1)]);
    ring.flush();
    ring.assert_over();
}

#[test]
fn cancelling_stops_what_runs_and_leaves_a_record_for_it() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 2);
    ring.tasks(&["t"; 10]);
    ring.finish(1, 0, ok("t"));
    ring.dispatcher.handle_cancel();
    ring.settle();
    let stopped = ring.workers[&1].stopped.clone();
    assert!(stopped.contains(&(1, 1)), "{stopped:?}");
    for slot in [0, 1] {
        if ring.workers[&1].running.contains_key(&slot) {
            ring.finish(1, slot, failed());
        }
    }
    let records = ring.records();
    assert_eq!(records[0], (0, Status::Ok, 1));
    assert!(records[1..].iter().all(|record| record.1 == Status::Cancelled), "{records:?}");
    ring.flush();
    ring.assert_over();
}

#[test]
fn a_draining_worker_hands_back_and_leaves_when_it_is_settled() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 1);
    ring.tasks(&["a", "b", "c"]);
    ring.finish(1, 0, ok("a"));
    let now = ring.now;
    ring.workers
        .get_mut(&1)
        .expect("it has joined")
        .executor
        .handle_drain(now, Duration::from_secs(1));
    ring.settle();
    ring.join(2, 1);
    assert!(!ring.workers[&1].executor.is_drained(), "one still runs");
    ring.finish(1, 0, ok("b"));
    assert!(ring.workers[&1].executor.is_drained());
    assert_eq!(ring.closed, [LaneId(1)], "it has said goodbye");
    ring.finish_all();
    let records = ring.records();
    // What was handed back was handed out twice.
    assert_eq!(records, [(0, Status::Ok, 1), (1, Status::Ok, 1), (2, Status::Ok, 2)]);
}

#[test]
fn a_worker_that_comes_back_keeps_what_it_runs() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 1);
    ring.tasks(&["a"]);
    // Its lane breaks, and a new one stands before another worker could take the task over.
    ring.dispatcher.handle_lane_gone(LaneId(1));
    let worker = ring.workers.remove(&1).expect("it has joined");
    ring.workers.insert(2, worker);
    let card = tradewind_proto::message::Card {
        role: tradewind_proto::message::Role::Worker,
        session: SessionId(1),
        slots: 1,
        message_bytes_max: tradewind_proto::limits::MESSAGE_BYTES_MAX,
        name: "w1".into(),
        queue: String::new(),
    };
    ring.dispatcher.handle_lane_opened(ring.now, LaneId(2), &card);
    ring.settle();
    ring.join(3, 1);
    assert_eq!(ring.running(3), [], "nobody else runs it");
    ring.finish(2, 0, ok("a"));
    assert_eq!(ring.records(), [(0, Status::Ok, 1)]);
}

#[test]
fn a_refused_job_ends() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.say(ToVentilator::Refused { job: JOB, reason: "no".into() });
    assert_eq!(ring.dispatcher.ended(), Some(&Ended::Refused("no".into())));
}

#[test]
fn a_stranger_cannot_take_a_workers_place() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 1);
    ring.tasks(&["a"]);
    // News of a session that has no lane changes nothing.
    for news in [News::Goodbye, News::Draining { reason: String::new() }, News::Reconnected] {
        ring.say(ToVentilator::Relay { session: SessionId(99), news });
    }
    ring.finish_all();
    assert_eq!(ring.records(), [(0, Status::Ok, 1)]);
}

#[test]
fn why_a_worker_leaves_is_said_once_unless_it_was_told_to() {
    let mut ring = Ring::new(0, Order::Seq);
    (1..=2).for_each(|id| ring.join(id, 1));
    let mut drains = |id, reason: &str| {
        let news = News::Draining { reason: reason.to_owned() };
        ring.say(ToVentilator::Relay { session: SessionId(id), news });
        ring.notices.pop_front().map(|notice| notice.to_string())
    };
    assert_eq!(drains(1, "no threads left").as_deref(), Some("worker w1 leaves: no threads left"));
    assert_eq!(drains(1, "no threads left"), None);
    assert_eq!(drains(2, ""), None);
}

#[test]
fn a_failed_task_goes_elsewhere_if_there_is_room() {
    let mut ring = Ring::new(1, Order::Seq);
    ring.join(1, 2);
    ring.join(2, 2);
    ring.tasks(&["a"]);
    assert_eq!(ring.running(1), [(0, 1)]);
    ring.finish(1, 0, failed());
    ring.pass(10 * RETRY_BACKOFF_MIN.as_micros() as u64);
    assert_eq!((ring.running(1), ring.running(2)), (vec![], vec![(0, 2)]));
    // With nobody else, the same one has to do.
    let mut ring = Ring::new(1, Order::Seq);
    ring.join(1, 1);
    ring.tasks(&["a"]);
    ring.finish(1, 0, failed());
    ring.pass(10 * RETRY_BACKOFF_MIN.as_micros() as u64);
    assert_eq!(ring.running(1), [(0, 2)]);
}

// Fails if a halt comes one failure too early or too late, or lets more begin than what runs then.
#[test]
fn a_job_is_halted_when_enough_have_failed() {
    // With two slots a second task runs when the last failure comes: it is finished, or stopped.
    let cases = [
        ("soon,fail=2", true, vec![Status::Failed; 3]),
        ("now,fail=2", true, vec![Status::Failed, Status::Failed, Status::Cancelled]),
        ("soon,fail=6", true, vec![Status::Failed; 6]),
        ("now,fail=7", false, vec![Status::Failed; 6]),
    ];
    for (text, is_halted, expected) in cases {
        let halt = text.parse().expect("a halt");
        let mut ring = Ring::with(Order::Completion, |config| config.policy.halt = Some(halt));
        ring.join(1, 2);
        ring.tasks(&["t"; 6]);
        while let Some(slot) = ring.workers[&1].running.keys().next().copied() {
            ring.finish(1, slot, failed());
        }
        ring.dispatcher.handle_input_end();
        ring.settle();
        assert_eq!(ring.dispatcher.is_halted(), is_halted, "{text}");
        assert!(!ring.dispatcher.is_stopped(), "{text}: by nobody");
        let statuses: Vec<Status> = ring.records().iter().map(|record| record.1).collect();
        assert_eq!(statuses, expected, "{text}");
        ring.flush();
        ring.assert_over();
    }
}

#[test]
fn what_outlasts_a_drains_grace_is_stopped_and_run_elsewhere() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 1);
    ring.tasks(&["a"]);
    let now = ring.now;
    let executor = &mut ring.workers.get_mut(&1).expect("it has joined").executor;
    executor.handle_drain(now, Duration::from_secs(3));
    ring.join(2, 1);
    ring.pass(2_999_999);
    assert_eq!(ring.workers[&1].stopped, []);
    ring.pass(1);
    assert_eq!(ring.workers[&1].stopped, [(0, 1)]);
    assert_eq!(ring.running(2), [(0, 2)]);
    ring.finish(1, 0, failed());
    assert!(ring.workers[&1].executor.is_drained());
    ring.finish(2, 0, ok("a"));
    assert_eq!(ring.records(), [(0, Status::Ok, 2)]);
}

#[test]
fn a_percentage_of_the_median_stops_what_was_started_without_it() {
    let mut ring = Ring::with(Order::Completion, |config| {
        config.policy.timeout = Some(Timeout::Percent(500.0));
    });
    ring.join(1, 2);
    ring.tasks(&["slow", "b", "c", "d", "e"]);
    for _ in 1..=4 {
        ring.pass(100_000);
        let slot = ring.workers[&1].running.iter().find(|(_, start)| start.task.seq.0 > 0);
        let slot = *slot.expect("a quick one runs").0;
        ring.finish_after(1, slot, 100_000, ok("x"));
    }
    assert_eq!(ring.workers[&1].stopped, []);
    for _ in 0..3 {
        ring.pass(1_000_000);
    }
    assert_eq!(ring.workers[&1].stopped, [(0, 1)]);
}

#[test]
fn a_sink_that_comes_back_gets_what_it_lost_and_nothing_is_run_again() {
    for order in [Order::Seq, Order::Completion] {
        let mut ring = Ring::new(0, order);
        ring.join(1, 4);
        ring.tasks(&["a", "b", "c", "d", "e", "f"]);
        ring.finish(1, 1, ok("b"));
        ring.disk_is_stuck = true;
        ring.finish(1, 2, ok("c"));
        ring.finish(1, 0, ok("a"));
        ring.disk_is_stuck = false;
        let before = ring.records().len();
        ring.restart_sink(order);
        assert!(ring.records().len() > before, "{order:?}: what was not written comes again");
        ring.finish_all();
        ring.dispatcher.handle_input_end();
        ring.settle();
        let mut records = ring.records();
        records.sort_unstable_by_key(|record| record.0);
        assert_eq!(records, (0..6).map(|seq| (seq, Status::Ok, 1)).collect::<Vec<_>>());
        ring.flush();
        ring.assert_over();
    }
}

#[test]
fn a_sink_that_has_lost_what_it_had_stored_is_not_believed() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 1);
    ring.tasks(&["a", "b"]);
    ring.finish(1, 0, ok("a"));
    ring.sink.written.clear();
    ring.restart_sink(Order::Seq);
    let ended = ring.dispatcher.ended();
    assert!(
        matches!(ended, Some(Ended::Refused(reason)) if reason.contains("task 0")),
        "{ended:?}"
    );
}

//! Workers that are heard and do not do what they owe.

use std::time::Duration;

use tradewind_proto::batch::Bounded;
use tradewind_proto::collector::Order;
use tradewind_proto::dispatcher::{Notice, Timeout};
use tradewind_proto::limits::ANSWER_MAX;
use tradewind_proto::message::{
    Failure, News, Outcome, Start, Task, TaskResult, ToSink, ToVentilator, ToWorker,
};
use tradewind_proto::{CallId, LaneId, SeqRanges, SessionId};

use crate::{failed, ok};
use tradewind_testkit::{JOB, Ring};

const SECOND: u64 = 1_000_000;
const ANSWER_SECONDS: u64 = ANSWER_MAX.as_secs();

/// Lets time pass while worker 2 is heard, and claims to have this number of tasks.
fn pass_beating(ring: &mut Ring, seconds: u64, held: u32) {
    for _ in 0..seconds {
        let mut workers = ring.dispatcher.snapshot().workers.into_iter();
        let worker = workers.find(|worker| worker.session == SessionId(2));
        let slots = worker.map_or(1, |worker| worker.slots as u32);
        let running = held.min(slots);
        let news = News::Heartbeat { running, queued: held - running, slots };
        ring.say(ToVentilator::Relay { session: SessionId(2), news });
        ring.pass(SECOND);
    }
}

/// Worker 2 has four of the tasks, and from now on nothing is heard of it but what a test says.
fn silent_but_for_beats(change: impl FnOnce(&mut Ring)) -> Ring {
    let mut ring = Ring::with(Order::Completion, |config| {
        config.policy.timeout = Some(Timeout::After(Duration::from_secs(2)));
    });
    ring.join(2, 4);
    ring.tasks(&["a", "b", "c", "d"]);
    change(&mut ring);
    ring.workers.remove(&2);
    ring
}

fn notices(ring: &mut Ring) -> Vec<Notice> {
    ring.notices.drain(..).collect()
}

// Fails if only the worker itself enforces timeouts.
#[test]
fn a_worker_that_keeps_its_tasks_beyond_their_timeout_loses_them() {
    let mut ring = silent_but_for_beats(|_| {});
    let most = 2 * 2 + ANSWER_SECONDS;
    pass_beating(&mut ring, most, 4);
    assert_eq!(ring.closed, []);
    ring.join(1, 4);
    pass_beating(&mut ring, 3, 4);
    assert_eq!(ring.closed, [LaneId(2)]);
    assert_eq!(ring.running(1).len(), 4);
    let said = notices(&mut ring);
    assert!(matches!(&said[..], [Notice::NoResult { out: 4, .. }]), "{said:?}");
}

// Fails if each result gives a worker time for all of its tasks: it could keep one for ever.
#[test]
fn a_worker_that_keeps_one_task_loses_it_whatever_becomes_of_the_others() {
    let mut ring = Ring::with(Order::Completion, |config| {
        config.policy.timeout = Some(Timeout::After(Duration::from_secs(2)));
    });
    ring.join(2, 2);
    ring.tasks(&["kept"]);
    let mut seconds = 0;
    while ring.closed.is_empty() {
        ring.tasks(&["other"]);
        ring.pass(SECOND);
        ring.finish(2, 1, ok("x"));
        // Its own machine wants to stop the task.
        seconds += 1;
        assert!(seconds < 60, "it keeps the task");
    }
    assert!(seconds > 2 * 2 + ANSWER_SECONDS, "after {seconds} s");
}

// Fails if the time of an attempt counts for the next one at the same worker.
#[test]
fn a_worker_may_take_its_time_for_each_attempt() {
    let mut ring = Ring::with(Order::Completion, |config| {
        config.policy.timeout = Some(Timeout::After(Duration::from_secs(20)));
        config.policy.retries = 3;
    });
    ring.join(2, 1);
    ring.tasks(&["a"]);
    for _ in 0..3 {
        for _ in 0..19 {
            ring.pass(SECOND);
        }
        ring.finish(2, 0, failed());
        // It is there again at the next heartbeat.
        ring.pass(SECOND / 2);
        assert_eq!(ring.running(2).len(), 1);
        ring.pass(SECOND / 2);
    }
    assert_eq!(ring.closed, []);
}

/// Worker 2 has tasks in its queue and is silent from now on; worker 1 has nothing to do.
fn a_queue_beside_a_starved_worker() -> (Ring, Vec<Task>) {
    // One failure sets a worker aside.
    let mut ring = Ring::with(Order::Completion, |config| {
        (config.policy.retries, config.policy.worker_failures_max) = (1, Some(1));
    });
    ring.join(2, 1);
    for _ in 0..6 {
        ring.tasks(&["t"]);
        ring.pass(3_000);
        ring.finish_after(2, 0, 3_000, ok("x"));
    }
    ring.tasks(&["t"; 10]);
    ring.dispatcher.handle_input_end();
    let worker = &ring.workers[&2];
    let running = worker.running.values().map(|start| start.task.clone());
    let waiting = worker.executor.waiting().map(|(task, _)| task.clone());
    let held: Vec<Task> = running.chain(waiting).collect();
    assert!(held.len() > 2, "{}", held.len());
    ring.workers.remove(&2);
    ring.join(1, 1);
    while let Some(slot) = ring.workers[&1].running.keys().next().copied() {
        ring.finish(1, slot, ok("x"));
    }
    (ring, held)
}

/// Lets time pass while worker 2 says that it has nothing, answers roll calls, and does nothing else.
fn pass_denying(ring: &mut Ring, seconds: u64, held: &[Task]) {
    ring.swallows = Some(2);
    for _ in 0..seconds {
        let beat = News::Heartbeat { running: 0, queued: 0, slots: 1 };
        ring.say(ToVentilator::Relay { session: SessionId(2), news: beat });
        ring.pass(SECOND);
        for message in std::mem::take(&mut ring.swallowed) {
            let ToWorker::RollCall { job, call, .. } = message else { continue };
            let unfinished = held.iter().map(|task| task.seq).collect();
            let (finished, hashes) =
                (SeqRanges::new(), held.iter().map(|task| task.hash).collect());
            let (hashes, tags) = (Bounded(hashes), held.iter().map(|task| task.tag).collect());
            let tags = Bounded(tags);
            let news = News::Holding { job, call, unfinished, finished, hashes, tags };
            ring.say(ToVentilator::Relay { session: SessionId(2), news });
        }
    }
}

// Fails if a worker owes nothing for as long as it says that its tasks have not reached it, though it has
// shown that they have.
#[test]
fn a_worker_that_denies_what_it_holds_loses_it() {
    let mut held = Vec::new();
    let mut ring = silent_but_for_beats(|ring| {
        held = ring.workers[&2].running.values().map(|start| start.task.clone()).collect();
    });
    held.sort_by_key(|task: &Task| task.seq);
    pass_denying(&mut ring, 40, &held);
    assert_eq!(ring.closed, [LaneId(2)]);
}

// Fails if the answer to a roll call counts for that to a recall.
#[test]
fn a_worker_that_answers_roll_calls_and_no_recall_loses_its_tasks() {
    let (mut ring, held) = a_queue_beside_a_starved_worker();
    ring.pass(SECOND);
    pass_denying(&mut ring, 40, &held);
    assert_eq!(ring.closed, [LaneId(2)]);
}

// Fails if a recall that is not answered has no consequence.
#[test]
fn a_worker_that_does_not_answer_a_recall_loses_its_tasks() {
    let (mut ring, held) = a_queue_beside_a_starved_worker();
    let held = held.len() as u32;
    pass_beating(&mut ring, ANSWER_SECONDS, held);
    assert_eq!((&ring.closed[..], ring.running(1).len()), (&[][..], 0));
    pass_beating(&mut ring, 3, held);
    assert_eq!((&ring.closed[..], ring.running(1).len()), (&[LaneId(2)][..], 1));
    let said = notices(&mut ring);
    assert!(matches!(&said[..], [Notice::NoAnswer { .. }]), "{said:?}");
}

// Fails if a roll call that is not answered has no consequence for a worker that says it has all its tasks.
#[test]
fn a_worker_that_does_not_answer_a_roll_call_loses_its_tasks() {
    let mut ring = Ring::new(0, Order::Completion);
    ring.join(2, 2);
    ring.tasks(&["a", "b"]);
    ring.workers.remove(&2);
    ring.join(1, 2);
    ring.say(ToVentilator::Relay { session: SessionId(2), news: News::Reconnected });
    for second in 0..ANSWER_SECONDS + 4 {
        // Two at a time, as if they had waited behind a large result.
        pass_beating(&mut ring, 1, 2);
        let news = News::Heartbeat { running: 2, queued: 0, slots: 2 };
        ring.say(ToVentilator::Relay { session: SessionId(2), news });
        // And the question is not asked anew.
        let again = ToVentilator::Relay { session: SessionId(2), news: News::Reconnected };
        if second % 3 == 0 {
            ring.say(again);
        }
    }
    assert_eq!((&ring.closed[..], ring.running(1).len()), (&[LaneId(2)][..], 2));
}

/// The last recall that a worker was sent, and the last roll call.
fn asked(ring: &mut Ring) -> (Option<CallId>, Option<CallId>) {
    let (mut recalled, mut called) = (None, None);
    for message in std::mem::take(&mut ring.swallowed) {
        match message {
            ToWorker::Recall { call, .. } => recalled = Some(call),
            ToWorker::RollCall { call, .. } => called = Some(call),
            _ => {}
        }
    }
    (recalled, called)
}

// Found by the simulator. Fails if the answer to a roll call has a recall sent again that came after the call:
// what is handed back then is an answer to no recall, and stays with the worker that does not have it.
#[test]
fn a_recall_that_is_sent_after_a_roll_call_is_answered_after_it() {
    let (mut ring, held) = a_queue_beside_a_starved_worker();
    ring.swallows = Some(2);
    ring.say(ToVentilator::Relay { session: SessionId(2), news: News::Reconnected });
    let (_, called) = asked(&mut ring);
    // It is set aside, and asked for all that it has not started.
    let (session, Task { seq, attempt, .. }) = (SessionId(2), &held[0]);
    ring.say(ToVentilator::Receipt {
        job: JOB,
        received: Bounded(Vec::new()),
        stored: SeqRanges::new(),
        retry: vec![Failure { session, seq: *seq, attempt: *attempt, ran_us: 1 }].into(),
        held_bytes: 0,
        failed: 0,
    });
    let held = &held[1..];
    let (recalled, _) = asked(&mut ring);
    let call = called.expect("the roll is called");
    let recall = recalled.expect("it is set aside");
    ring.pass(SECOND);
    ring.finish_all();
    let unfinished: SeqRanges = held.iter().map(|task| task.seq).collect();
    let handed_back: SeqRanges = held[1..].iter().map(|task| task.seq).collect();
    let hashes = Bounded(held.iter().map(|task| task.hash).collect());
    let (finished, tags) = (SeqRanges::new(), Bounded(held.iter().map(|task| task.tag).collect()));
    let job = JOB;
    let holding = News::Holding { job, call, unfinished, finished, hashes, tags };
    ring.say(ToVentilator::Relay { session: SessionId(2), news: holding });
    assert_eq!(asked(&mut ring).0, None, "an answer is on its way");
    let recalled = News::Recalled { job, call: recall, ranges: handed_back };
    ring.say(ToVentilator::Relay { session: SessionId(2), news: recalled });
    assert!(!ring.running(1).is_empty());
}

// Fails if a worker that hands back nothing is not deaf: asked again and again, it would keep for ever what it
// does not have.
#[test]
fn a_worker_that_has_nothing_to_hand_back_may_be_deaf() {
    let (mut ring, _) = a_queue_beside_a_starved_worker();
    ring.swallows = Some(2);
    for _ in 0..10 {
        let beat = News::Heartbeat { running: 0, queued: 0, slots: 1 };
        ring.say(ToVentilator::Relay { session: SessionId(2), news: beat });
        ring.pass(SECOND);
        let (recall, call) = asked(&mut ring);
        if call.is_some() {
            return;
        }
        let (Some(call), ranges) = (recall, SeqRanges::new()) else { continue };
        let recalled = News::Recalled { job: JOB, call, ranges };
        ring.say(ToVentilator::Relay { session: SessionId(2), news: recalled });
    }
    panic!("it is not asked what it has");
}

// Fails if the time in which a worker was not heard counts, or in which an answer may be on its way.
#[test]
fn a_worker_that_is_not_heard_or_whose_messages_are_on_their_way_owes_nothing() {
    let mut ring = silent_but_for_beats(|_| {});
    ring.say(ToVentilator::Relay { session: SessionId(2), news: News::Reconnected });
    for _ in 0..ANSWER_SECONDS - 2 {
        // It hangs, and is heard again.
        for _ in 0..6 {
            ring.pass(SECOND);
        }
        pass_beating(&mut ring, 1, 4);
        ring.say(ToVentilator::Relay { session: SessionId(2), news: News::Alive });
        ring.pass(SECOND);
    }
    assert_eq!(ring.closed, []);
}

/// The sink gets a result of a task that worker 2 has.
fn result_arrives(ring: &mut Ring, task: &Task, outcome: Outcome) {
    let result = TaskResult {
        seq: task.seq,
        attempt: task.attempt,
        last: task.last,
        tag: task.tag,
        started_us: 1,
        ran_us: 1,
        task_bytes: 1,
        task_hash: task.hash,
        outcome,
        reported: None,
    };
    let (session, results) = (SessionId(2), vec![result].into());
    ring.sink.collector.handle_message(ToSink::Results { job: JOB, session, results });
    ring.settle();
}

// Found by the simulator, on a slow link. Fails if only results of tasks count that the ventilator knows to be
// at the worker: one that was started again knows of none before the answer that comes behind these results.
#[test]
fn a_worker_may_send_its_results_before_it_answers_a_ventilator_that_was_started_again() {
    let others = [ok("x"), failed()];
    for (outcome, is_repeated) in
        others.into_iter().flat_map(|it| [(it.clone(), false), (it, true)])
    {
        let mut ring = Ring::new(1, Order::Completion);
        ring.join(2, 20);
        ring.tasks(&["t"; 20]);
        let running = ring.workers[&2].running.values();
        let tasks: Vec<Task> = running.map(|start| start.task.clone()).collect();
        assert_eq!(tasks.len(), 20);
        ring.workers.remove(&2);
        ring.restart_ventilator(Start::Resume);
        ring.rejoin(2, 20);
        ring.tasks(&["t"; 20]);
        ring.dispatcher.handle_input_end();
        ring.settle();
        assert!(!ring.dispatcher.is_resuming());
        for task in &tasks {
            let task = if is_repeated { &tasks[0] } else { task };
            result_arrives(&mut ring, task, outcome.clone());
            pass_beating(&mut ring, 1, 20);
        }
        assert_eq!(ring.closed, [], "{outcome:?}, repeated: {is_repeated}");
        pass_beating(&mut ring, ANSWER_SECONDS + 3, 20);
        assert_eq!(ring.closed, [LaneId(2)], "nothing comes any more");
    }
}

// Fails if a worker that was lost so gets its tasks again, and as many more, when it comes back.
#[test]
fn a_worker_that_owed_something_is_tried_when_it_comes_back() {
    let mut ring = silent_but_for_beats(|_| {});
    pass_beating(&mut ring, 2 * 2 + ANSWER_SECONDS + 3, 4);
    assert_eq!(ring.closed, [LaneId(2)]);
    ring.join(1, 2);
    assert_eq!(ring.running(1).len(), 2);
    ring.join(2, 4);
    assert_eq!(ring.running(2).len(), 0, "two tasks wait");
    ring.pass(2 * SECOND);
    assert_eq!(ring.running(2).len(), 1, "a probe");
    let slot = *ring.workers[&2].running.keys().next().unwrap();
    ring.finish(2, slot, ok("x"));
    assert_eq!(ring.running(2).len(), 1, "and then what is left");
}

// Found by the simulator. Fails if a worker at which all tasks fail is no better than one that keeps them: such
// ones would have the tasks in turn, for ever.
#[test]
fn a_worker_that_owed_something_is_tried_also_beside_one_that_is_sick() {
    let mut ring = silent_but_for_beats(|ring| ring.tasks(&["t"; 200]));
    pass_beating(&mut ring, 2 * 2 + ANSWER_SECONDS + 3, 4);
    assert_eq!(ring.closed, [LaneId(2)]);
    ring.join(1, 1);
    for _ in 0..20 {
        ring.finish(1, 0, failed());
    }
    ring.join(2, 4);
    assert_eq!((ring.running(1).len(), ring.running(2).len()), (1, 0));
    ring.pass(2 * SECOND);
    assert_eq!(ring.running(2).len(), 1, "a probe");
    // Where no other one is left it has to do.
    ring.kill(1);
    assert_eq!(ring.running(2).len(), 4);
}

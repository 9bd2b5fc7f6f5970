//! What was said once, and may not have been heard, is said once more; what is done once is not done twice.

use std::time::Duration;

use tradewind_proto::collector::Order;
use tradewind_proto::dispatcher::Transmit;
use tradewind_proto::executor::{Executor, Finished};
use tradewind_proto::limits::{
    BATCH_BYTES_MAX, CREDIT_BYTES_MAX, RETRY_BACKOFF_MIN, ROLL_CALL_GRACE,
};
use tradewind_proto::message::{
    Layout, Limits, News, Outcome, Status, Task, ToSink, ToVentilator, ToWorker,
};
use tradewind_proto::{
    Attempt, CallId, JobId, Payload, Seq, SeqRanges, SessionId, Slot, Tag, TaskHash, Time,
};

use crate::{failed, ok};
use tradewind_testkit::{JOB, Ring};

const SECOND: u64 = 1_000_000;

// Fails if the records of tasks that were given up are not sent again with the hello.
#[test]
fn what_was_given_up_is_said_again_to_a_sink_that_missed_it() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.sink_is_deaf = true;
    ring.dispatcher.handle_unfit_task("too large".to_owned());
    ring.settle();
    assert_eq!(ring.records(), []);
    ring.cut_sink_off();
    ring.sink_is_deaf = false;
    ring.connect_sink();
    assert_eq!(ring.records(), [(0, Status::Failed, 0)]);
}

// Fails if `JobDone` is not sent again with the hello: the sink waits for ever.
#[test]
fn the_end_is_said_again_to_a_sink_that_missed_it() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.dispatcher.handle_input_end();
    ring.settle();
    ring.sink_is_deaf = true;
    ring.flush();
    assert!(ring.dispatcher.ended().is_some() && !ring.sink.collector.is_done());
    ring.cut_sink_off();
    ring.sink_is_deaf = false;
    ring.connect_sink();
    assert!(ring.sink.collector.is_done());
}

// Fails if only the workers that are there at the end hear of it.
#[test]
fn a_worker_that_comes_after_the_end_hears_of_it() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.dispatcher.handle_input_end();
    ring.settle();
    ring.flush();
    ring.join(1, 1);
    ring.assert_over();
}

// Fails if a job is over because the sink says so.
#[test]
fn a_job_with_tasks_that_are_not_stored_is_not_over() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 1);
    ring.tasks(&["a", "b"]);
    ring.dispatcher.handle_input_end();
    ring.finish(1, 0, ok("a"));
    ring.say(ToVentilator::Complete { job: JOB });
    assert_eq!(ring.dispatcher.ended(), None);
    // Nor does the sink say so of itself.
    ring.sink.collector.handle_flushed();
    assert!(!ring.sink.collector.is_flushed());
    assert_eq!(ring.sink.collector.poll_transmit(), None);
    ring.settle();
    assert_eq!(ring.dispatcher.ended(), None);
    ring.finish_all();
    ring.flush();
    ring.assert_over();
}

// Fails if results that only a dead sink had, of a worker that is gone, are still taken for received.
#[test]
fn a_result_that_died_with_its_worker_and_with_the_sink_is_made_again() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 1);
    ring.tasks(&["a"]);
    ring.disk_is_stuck = true;
    ring.finish(1, 0, ok("a"));
    ring.kill(1);
    ring.restart_sink(Order::Seq);
    ring.disk_is_stuck = false;
    ring.join(2, 1);
    for _ in 0..=ROLL_CALL_GRACE.as_secs() {
        ring.pass(SECOND);
    }
    assert_eq!(ring.running(2), [(0, 2)]);
    ring.finish(2, 0, ok("a"));
    assert_eq!(ring.records(), [(0, Status::Ok, 2)]);
}

// Fails if a receipt that settles tasks of several workers is told to the last of them only.
#[test]
fn each_worker_hears_which_of_its_results_are_stored() {
    let mut ring = Ring::new(0, Order::Completion);
    (1..=3).for_each(|id| ring.join(id, 1));
    ring.tasks(&["a", "b", "c", "d"]);
    // The first one goes on, so that the base says nothing.
    let first = (1..=3).find(|id| ring.running(*id) == [(0, 1)]).expect("it runs somewhere");
    ring.disk_is_stuck = true;
    let others: Vec<u64> = (1..=3).filter(|id| *id != first).collect();
    others.iter().for_each(|id| ring.finish(*id, 0, ok("x")));
    ring.disk_is_stuck = false;
    ring.settle();
    for id in others {
        assert_eq!(ring.workers[&id].executor.snapshot().retained, 0, "worker {id}");
    }
}

// Fails if tasks go out while no receipt can come back.
#[test]
fn nothing_is_dispatched_while_the_sink_is_cut_off() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 1);
    ring.cut_sink_off();
    ring.tasks(&["a"]);
    assert_eq!(ring.running(1), []);
    ring.connect_sink();
    assert_eq!(ring.running(1), [(0, 1)]);
}

// Fails if the dispatcher does not name the end of a backoff: a retry waits for the next heartbeat.
#[test]
fn the_end_of_a_backoff_is_a_time_to_wake_at() {
    let mut ring = Ring::new(1, Order::Seq);
    ring.join(1, 1);
    ring.tasks(&["a"]);
    ring.pass(SECOND);
    ring.finish(1, 0, failed());
    let due = ring.dispatcher.poll_timeout();
    assert!(
        due <= ring.now + RETRY_BACKOFF_MIN,
        "{due:?} is later than a backoff from {:?}",
        ring.now
    );
    ring.pass(due.0 - ring.now.0);
    assert_eq!(ring.running(1), [(0, 2)]);
}

// Fails if the silence of the sink, while the ventilator slept too, is taken for that of the workers.
#[test]
fn a_ventilator_that_slept_declares_nobody_lost() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 1);
    ring.tasks(&["a"]);
    ring.now = ring.now + Duration::from_secs(60);
    ring.say(ToVentilator::Ping { is_stuck: false });
    ring.dispatcher.handle_timeout(ring.now);
    ring.settle();
    assert_eq!(ring.dispatcher.snapshot().workers.len(), 1);
}

// Fails if consecutive tasks are put into one message, or charged to one worker, without a bound of bytes.
#[test]
fn a_message_and_a_worker_take_a_bounded_number_of_bytes() {
    const TASK: u64 = 60 << 10;
    let mut ring = Ring::new(0, Order::Completion);
    ring.join(1, 1);
    // Its window is made for tasks that take nothing.
    for _ in 0..40 {
        ring.tasks(&["t"; 200]);
        ring.finish_all();
        if ring.dispatcher.snapshot().workers[0].window > 1_000 {
            break;
        }
    }
    assert!(ring.dispatcher.snapshot().workers[0].window > 2 * CREDIT_BYTES_MAX / TASK);
    let task = Payload::from(vec![b'x'; TASK as usize]);
    (0..2 * CREDIT_BYTES_MAX / TASK).for_each(|_| ring.dispatcher.handle_task(task.clone()));
    let mut most = 0;
    while let Some(transmit) = ring.dispatcher.poll_transmit(ring.now) {
        if let Transmit::Worker(_, ToWorker::Tasks { tasks, .. }) = transmit {
            most = most.max(tasks.0.iter().map(|task| task.payload.len()).sum());
        }
    }
    assert!(
        most <= BATCH_BYTES_MAX && most + TASK as usize > BATCH_BYTES_MAX,
        "{most} in a message"
    );
    let held = ring.dispatcher.snapshot().workers[0].out_bytes;
    assert!(
        held <= CREDIT_BYTES_MAX + TASK && held + TASK > CREDIT_BYTES_MAX,
        "{held} at a worker"
    );
}

/// A worker with one slot, called to a job.
fn called() -> Executor {
    let mut executor = Executor::new(SessionId(1), 1);
    executor.handle_sink_connected();
    call(&mut executor, JOB);
    executor
}

fn call(executor: &mut Executor, job: JobId) {
    let layout = Layout::Unsaid;
    executor.handle_message(ToWorker::RollCall { job, call: CallId(1), layout });
}

fn give(executor: &mut Executor, seq: u64, attempt: u32) {
    let task = Task {
        seq: Seq(seq),
        attempt: Attempt(attempt),
        last: true,
        payload: Payload::from(b"task"),
        hash: TaskHash::of(b"task"),
        tag: Tag::default(),
    };
    let limits = Limits::default();
    executor.handle_message(ToWorker::Tasks { job: JOB, limits, tasks: vec![task].into() });
}

fn started(executor: &mut Executor) -> Option<u64> {
    executor.poll_start(Time(0)).map(|start| start.task.seq.0)
}

fn finish(executor: &mut Executor) {
    let (slot, outcome) = (Slot(0), Outcome::ok(Payload::new()));
    executor.handle_finished(Finished { slot, started_us: 1, ran_us: 1, outcome, reported: None });
}

// Fails if a task is run that is settled, or whose result is here.
#[test]
fn a_task_that_has_its_result_is_not_run_again() {
    let mut executor = called();
    give(&mut executor, 0, 1);
    assert_eq!(started(&mut executor), Some(0));
    finish(&mut executor);
    give(&mut executor, 0, 2);
    assert_eq!(started(&mut executor), None, "its result is on its way");
    let ranges = SeqRanges::new();
    executor.handle_message(ToWorker::Settled { job: JOB, below: Seq(5), ranges });
    give(&mut executor, 3, 1);
    assert_eq!(started(&mut executor), None, "it was settled elsewhere");
    give(&mut executor, 5, 1);
    assert_eq!(started(&mut executor), Some(5));
}

// Fails if a worker forgets that the job is cancelled: it would run what was on its way.
#[test]
fn a_task_that_comes_after_the_cancel_is_not_run() {
    let mut executor = called();
    executor.handle_message(ToWorker::Cancel { job: JOB });
    give(&mut executor, 0, 1);
    assert_eq!(started(&mut executor), None);
    // Whoever goes on with the job calls the roll first.
    call(&mut executor, JOB);
    give(&mut executor, 0, 1);
    assert_eq!(started(&mut executor), Some(0));
}

// Fails if a worker keeps what it had of another job, and says that it holds it of this one.
#[test]
fn a_worker_that_is_called_to_another_job_has_nothing_of_the_one_before() {
    let mut executor = called();
    (0..3).for_each(|seq| give(&mut executor, seq, 1));
    assert_eq!(started(&mut executor), Some(0));
    finish(&mut executor);
    assert_eq!(started(&mut executor), Some(1));
    while executor.poll_transmit().is_some() {}
    call(&mut executor, JobId(JOB.0 + 7));
    let said: Vec<ToSink> = std::iter::from_fn(|| executor.poll_transmit()).collect();
    let holds = |message: &ToSink| match message {
        ToSink::News { news: News::Holding { unfinished, finished, .. }, .. } => {
            unfinished.count() + finished.count()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(said.iter().map(holds).collect::<Vec<_>>(), [0]);
    assert_eq!(executor.poll_stop().map(|stop| stop.seq), Some(Seq(1)));
    finish(&mut executor);
    assert_eq!(started(&mut executor), None);
    assert!(executor.is_empty());
}

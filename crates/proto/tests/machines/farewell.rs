//! Who leaves when: each rule, and that it waits no longer and no shorter.

use std::time::Duration;

use tradewind_proto::collector::{Collector, CollectorConfig, Counts, Opened, Order};
use tradewind_proto::dispatcher::Ended;
use tradewind_proto::executor::{Executor, Finished};
use tradewind_proto::farewell::{
    SinkExit, SinkFarewell, VentilatorExit, VentilatorFarewell, WorkerExit, WorkerFarewell,
    WorkerRules, WorkerStep,
};
use tradewind_proto::limits::{
    ALONE_MAX, CANCEL_GRACE, FAREWELL_MAX, FORGOTTEN_MAX, LATE_MAX, LINGER, SETTLE_BYTES_MIN,
    SETTLE_WAIT_LEAVING_MAX, SETTLE_WAIT_MAX, STRANGE_BEATS_MAX,
};
use tradewind_proto::message::{
    InputEnd, Layout, Outcome, Report, Start, Task, ToSink, ToVentilator, ToWorker,
};
use tradewind_proto::{
    Attempt, CallId, JobId, Payload, Seq, SeqRange, SeqRanges, SeqSet, SessionId, Slot, Tag,
    TaskHash, Time,
};

use tradewind_testkit::{JOB, KEY, Ring};

const TICK: Duration = Duration::from_millis(1);

/// A job of one task, of which the worker has been given it.
fn begun() -> Ring {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 1);
    ring.tasks(&["a"]);
    ring
}

/// A job of one task that is complete.
fn complete() -> Ring {
    let mut ring = begun();
    ring.dispatcher.handle_input_end();
    ring.finish_all();
    ring.flush();
    ring.assert_over();
    ring
}

/// What the ventilator's rules say at this time.
fn look(farewell: &mut VentilatorFarewell, ring: &mut Ring, now: Time) -> Option<VentilatorExit> {
    farewell.review(now, &mut ring.dispatcher);
    ring.settle();
    farewell.exit(now, &ring.dispatcher)
}

const ENDED: Option<VentilatorExit> = Some(VentilatorExit::Ended);

#[test]
fn a_ventilator_leaves_at_once_when_the_sink_has_been_told() {
    let (mut ring, mut farewell) = (complete(), VentilatorFarewell::default());
    let now = ring.now;
    assert_eq!(look(&mut farewell, &mut ring, now), ENDED);
}

#[test]
fn a_ventilator_waits_for_a_sink_that_has_to_be_told_and_not_for_ever() {
    let (mut ring, mut farewell) = (complete(), VentilatorFarewell::default());
    let now = ring.now;
    ring.dispatcher.handle_receipts_disconnected(now);
    assert_eq!(look(&mut farewell, &mut ring, now), None);
    assert_eq!(farewell.poll_timeout(), now + FAREWELL_MAX);
    assert_eq!(look(&mut farewell, &mut ring, now + (FAREWELL_MAX - TICK)), None);
    assert_eq!(look(&mut farewell, &mut ring, now + FAREWELL_MAX), ENDED);
}

#[test]
fn a_ventilator_that_waits_at_the_end_leaves_when_a_sink_comes_or_is_given_up_or_it_is_asked() {
    let ways: [fn(&mut VentilatorFarewell, &mut Ring); 3] = [
        |_, ring| ring.restart_sink(Order::Seq),
        |farewell, ring| assert!(farewell.handle_sink_given_up(&ring.dispatcher)),
        |farewell, ring| farewell.handle_drain(&mut ring.dispatcher),
    ];
    for way in ways {
        let (mut ring, mut farewell) = (complete(), VentilatorFarewell::default());
        let now = ring.now;
        ring.dispatcher.handle_receipts_disconnected(now);
        assert_eq!(look(&mut farewell, &mut ring, now), None);
        way(&mut farewell, &mut ring);
        assert_eq!(look(&mut farewell, &mut ring, now + TICK), ENDED);
        assert_eq!(ring.dispatcher.ended(), Some(&Ended::Complete));
    }
}

#[test]
fn a_ventilator_cannot_do_without_its_sink_before_the_end() {
    let (ring, mut farewell) = (begun(), VentilatorFarewell::default());
    assert!(!farewell.handle_sink_given_up(&ring.dispatcher));
}

#[test]
fn a_drain_that_nobody_is_left_to_finish_is_cancelled() {
    let (mut ring, mut farewell) = (begun(), VentilatorFarewell::default());
    farewell.handle_drain(&mut ring.dispatcher);
    let now = ring.now;
    assert!(!farewell.review(now, &mut ring.dispatcher), "there is a worker");
    ring.kill(1);
    assert!(!farewell.review(now, &mut ring.dispatcher));
    assert!(!farewell.review(now + (ALONE_MAX - TICK), &mut ring.dispatcher));
    assert!(farewell.review(now + ALONE_MAX, &mut ring.dispatcher));
    assert!(!farewell.review(now + ALONE_MAX, &mut ring.dispatcher), "it says so once");
    ring.settle();
    ring.flush();
    assert_eq!(look(&mut farewell, &mut ring, now + ALONE_MAX), ENDED);
}

#[test]
fn a_cancelled_job_without_an_answer_is_left() {
    let (mut ring, mut farewell) = (begun(), VentilatorFarewell::default());
    ring.sink_is_mute = true;
    let now = ring.now;
    farewell.handle_drain(&mut ring.dispatcher);
    farewell.handle_cancel(now, &mut ring.dispatcher);
    assert_eq!(look(&mut farewell, &mut ring, now + (CANCEL_GRACE - TICK)), None);
    let unanswered = Some(VentilatorExit::Unanswered);
    assert_eq!(look(&mut farewell, &mut ring, now + CANCEL_GRACE), unanswered);
    // One that was given up will not answer either.
    let (mut ring, mut farewell) = (begun(), VentilatorFarewell::default());
    farewell.handle_cancel(now, &mut ring.dispatcher);
    assert!(farewell.handle_sink_given_up(&ring.dispatcher));
    assert_eq!(farewell.exit(now, &ring.dispatcher), unanswered);
}

// Fails if a sink that has much to store gets no more time than one that stores nothing.
#[test]
fn a_cancelled_job_waits_for_a_sink_that_goes_on() {
    let (mut ring, mut farewell) = (begun(), VentilatorFarewell::default());
    ring.sink_is_mute = true;
    let now = ring.now;
    farewell.handle_cancel(now, &mut ring.dispatcher);
    let later = now + (CANCEL_GRACE - TICK);
    ring.say(ToVentilator::Receipt {
        job: JOB,
        received: Default::default(),
        stored: SeqRanges::of(SeqRange::one(Seq(0))),
        retry: Default::default(),
        held_bytes: 0,
        failed: 0,
    });
    assert_eq!(look(&mut farewell, &mut ring, later), None);
    assert_eq!(look(&mut farewell, &mut ring, later + (CANCEL_GRACE - TICK)), None);
    let unanswered = Some(VentilatorExit::Unanswered);
    assert_eq!(look(&mut farewell, &mut ring, later + CANCEL_GRACE), unanswered);
}

#[test]
fn a_job_whose_input_failed_ends_with_what_was_read() {
    let (mut ring, mut farewell) = (begun(), VentilatorFarewell::default());
    let now = ring.now;
    farewell.handle_input_failed();
    assert_eq!(look(&mut farewell, &mut ring, now), None);
    assert!(!ring.dispatcher.is_stopped());
    ring.finish_all();
    assert_eq!(look(&mut farewell, &mut ring, now), None);
    assert!(ring.dispatcher.is_stopped());
    ring.flush();
    assert_eq!(look(&mut farewell, &mut ring, now), ENDED);
}

const NOW: Time = Time(5_000_000);

/// A sink that has all there is of a job without tasks.
fn whole_sink() -> Collector {
    let report = Report::default();
    let mut sink = Collector::new(CollectorConfig {
        session: SessionId(1),
        order: Order::Seq,
        report,
        key: KEY,
    });
    sink.handle_message(opening());
    let opening = sink.poll_open().expect("a job is to be opened");
    let (stored, counts) = (SeqSet::new(), Counts::default());
    sink.handle_opened(Opened { job: opening.job, stored, counts, ..Opened::default() });
    sink.handle_message(ToSink::JobClose { job: JOB, total: 0, end: InputEnd::Whole });
    assert!(sink.is_all_stored());
    sink.handle_flushed();
    sink
}

fn opening() -> ToSink {
    let (name, stage) = ("a job".to_owned(), String::new());
    ToSink::JobOpen { job: JOB, name, start: Start::New, stage, is_untouched: true }
}

const ALONE: Option<SinkExit> = Some(SinkExit::Alone);

#[test]
fn a_sink_that_has_everything_and_is_alone_leaves_after_a_while() {
    let (sink, mut farewell) = (whole_sink(), SinkFarewell::default());
    farewell.review(NOW, true, true);
    assert_eq!(farewell.poll_timeout(), Time(u64::MAX), "a ventilator is there");
    farewell.review(NOW, false, false);
    assert_eq!(farewell.poll_timeout(), Time(u64::MAX), "it is not flushed");
    farewell.review(NOW, true, false);
    assert_eq!(farewell.exit(NOW + (FAREWELL_MAX - TICK), &sink), None);
    assert_eq!(farewell.exit(NOW + FAREWELL_MAX, &sink), ALONE);
    farewell.review(NOW + FAREWELL_MAX / 2, true, true);
    assert_eq!(farewell.exit(NOW + FAREWELL_MAX, &sink), None, "it is back");
}

#[test]
fn a_sink_that_has_everything_leaves_one_that_knows_no_job() {
    let (sink, mut farewell) = (whole_sink(), SinkFarewell::default());
    let day = Duration::from_secs(86_400);
    let mut now = NOW;
    farewell.handle_ventilator_connected();
    farewell.handle_message(&opening());
    let mut beat = |farewell: &mut SinkFarewell| {
        now = now + Duration::from_secs(1);
        farewell.handle_message(&ToSink::Ping);
        farewell.review(now, true, true);
        now
    };
    // One that has opened its job knows of it.
    for _ in 0..1_000 {
        beat(&mut farewell);
    }
    assert_eq!(farewell.poll_timeout(), Time(u64::MAX));
    // A relay that came later has not, and only says that it is there; silent, it may be stopped.
    // Nor does it know more when it is started again.
    for _ in 1..STRANGE_BEATS_MAX {
        farewell.handle_ventilator_connected();
        beat(&mut farewell);
    }
    assert_eq!(farewell.poll_timeout(), Time(u64::MAX));
    farewell.handle_ventilator_connected();
    let last = beat(&mut farewell);
    assert_eq!(farewell.exit(last + (FAREWELL_MAX - TICK), &sink), None);
    assert_eq!(farewell.exit(last + FAREWELL_MAX, &sink), ALONE);
    // Unless it hears of the job after all.
    farewell.handle_message(&opening());
    let last = beat(&mut farewell);
    assert_eq!(farewell.exit(last + day, &sink), None);
}

#[test]
fn a_sink_does_without_its_ventilator_only_when_it_has_everything() {
    let (sink, mut farewell) = (whole_sink(), SinkFarewell::default());
    assert!(farewell.handle_ventilator_given_up(&sink));
    farewell.review(NOW, false, false);
    assert_eq!(farewell.exit(NOW, &sink), None, "it is not flushed");
    farewell.review(NOW, true, false);
    assert_eq!(farewell.exit(NOW, &sink), ALONE);
    let (ring, mut farewell) = (begun(), SinkFarewell::default());
    assert!(!farewell.handle_ventilator_given_up(&ring.sink.collector));
}

#[test]
fn a_sink_that_refuses_a_job_waits_until_that_is_heard() {
    let (sink, mut farewell) = (begun().sink.collector, SinkFarewell::default());
    farewell.handle_ventilator_gone();
    farewell.handle_refused(NOW);
    assert_eq!(farewell.exit(NOW, &sink), None);
    let refused = |is_heard| Some(SinkExit::Refused { is_heard });
    assert_eq!(farewell.exit(NOW + LINGER, &sink), refused(false));
    farewell.handle_ventilator_gone();
    assert_eq!(farewell.exit(NOW, &sink), refused(true));
}

/// A worker, and what it knows of its peers.
struct Worker {
    executor: Executor,
    farewell: WorkerFarewell,
    now: Time,
    sent_bytes: u64,
}

impl Worker {
    fn new(rules: WorkerRules) -> Self {
        let (executor, farewell) = (Executor::new(SessionId(1), 1), WorkerFarewell::new(rules));
        Self { executor, farewell, now: NOW, sent_bytes: 0 }
    }

    /// One that has reached both, and was called by the ventilator.
    fn called(rules: WorkerRules) -> Self {
        let mut worker = Self::new(rules);
        worker.farewell.handle_ventilator_connected();
        worker.farewell.handle_sink_connected();
        worker.executor.handle_sink_connected();
        worker.call();
        worker
    }

    fn call(&mut self) {
        self.hear(ToWorker::RollCall { job: JOB, call: CallId(0), layout: Layout::Unsaid });
    }

    fn hear(&mut self, message: ToWorker) {
        self.farewell.handle_message(&message);
        self.executor.handle_message(message);
        self.look();
    }

    /// Begins the tasks with these seqs.
    fn begin(&mut self, seqs: std::ops::Range<u64>) {
        let task = |seq| Task {
            seq: Seq(seq),
            attempt: Attempt(1),
            last: true,
            payload: Payload::new(),
            hash: TaskHash::of(b""),
            tag: Tag::default(),
        };
        let tasks: Vec<Task> = seqs.map(task).collect();
        let limits = Default::default();
        self.hear(ToWorker::Tasks { job: JOB, limits, tasks: tasks.into() });
    }

    /// Runs all that it has.
    fn run(&mut self) {
        while self.executor.poll_start(self.now).is_some() {
            self.executor.handle_finished(Finished {
                slot: Slot(0),
                started_us: 1,
                ran_us: 1,
                outcome: Outcome::ok(Payload::new()),
                reported: None,
            });
        }
        self.look();
    }

    fn drain(&mut self) {
        self.farewell.handle_drain(self.now, Duration::from_secs(1), &mut self.executor);
        self.look();
    }

    fn lose_both(&mut self) {
        self.farewell.handle_ventilator_disconnected();
        self.lose_sink();
    }

    fn lose_sink(&mut self) {
        self.farewell.handle_sink_disconnected();
        self.executor.handle_sink_disconnected();
        self.look();
    }

    fn look(&mut self) -> Option<WorkerStep> {
        let step = self.farewell.review(self.now, &mut self.executor, self.sent_bytes);
        while self.executor.poll_transmit().is_some() {}
        step
    }

    fn pass(&mut self, duration: Duration) -> Option<WorkerStep> {
        self.now = self.now + duration;
        self.look()
    }

    fn exit(&self) -> Option<WorkerExit> {
        self.farewell.exit(self.now, &self.executor)
    }

    fn settle(&mut self, seqs: std::ops::Range<u64>) {
        let ranges: SeqRanges = seqs.map(Seq).collect();
        self.hear(ToWorker::Settled { job: JOB, below: Seq(0), ranges });
    }
}

const WITH_JOB: WorkerRules = WorkerRules {
    exit_when_done: true,
    idle_max: None,
    late_max: Some(LATE_MAX),
    forgotten_max: Some(FORGOTTEN_MAX),
};

#[test]
fn a_worker_leaves_with_its_job_if_it_was_told_to() {
    for (rules, exit) in [(WITH_JOB, Some(WorkerExit::JobDone)), (WorkerRules::default(), None)] {
        let mut worker = Worker::called(rules);
        worker.hear(ToWorker::Done { job: JOB });
        assert_eq!(worker.exit(), exit);
    }
}

#[test]
fn a_worker_that_leaves_waits_until_its_results_are_settled() {
    let mut worker = Worker::called(WITH_JOB);
    worker.begin(0..2);
    worker.run();
    worker.drain();
    assert_eq!(worker.exit(), None);
    worker.settle(0..2);
    assert_eq!(worker.exit(), Some(WorkerExit::Drained));
}

#[test]
fn a_worker_that_leaves_gives_up_results_that_nobody_settles() {
    let mut worker = Worker::called(WITH_JOB);
    worker.begin(0..3);
    worker.run();
    worker.drain();
    assert_eq!(worker.pass(SETTLE_WAIT_MAX - TICK), None);
    worker.settle(2..3);
    // One of them was settled: others may be.
    assert_eq!(worker.pass(SETTLE_WAIT_MAX - TICK), None);
    assert_eq!(worker.exit(), None);
    assert_eq!(worker.pass(TICK), Some(WorkerStep::GaveUp { results: 2 }));
    worker.look();
    assert_eq!(worker.exit(), Some(WorkerExit::Drained));
}

#[test]
fn results_that_are_on_their_way_are_waited_for() {
    let mut worker = Worker::called(WITH_JOB);
    worker.begin(0..1);
    worker.run();
    worker.drain();
    for _ in 0..100 {
        worker.sent_bytes += SETTLE_BYTES_MIN;
        assert_eq!(worker.pass(SETTLE_WAIT_MAX - TICK), None);
    }
    // Heartbeats alone are no progress.
    worker.sent_bytes += SETTLE_BYTES_MIN - 1;
    assert_eq!(worker.pass(SETTLE_WAIT_MAX), Some(WorkerStep::GaveUp { results: 1 }));
}

#[test]
fn a_worker_that_can_run_nothing_does_not_wait_as_long() {
    let mut worker = Worker::called(WITH_JOB);
    worker.begin(0..1);
    worker.run();
    let (now, reason) = (worker.now, "nothing runs here".to_owned());
    let executor = &mut worker.executor;
    assert!(worker.farewell.handle_leave(now, Duration::ZERO, reason.clone(), executor));
    assert!(!worker.farewell.handle_leave(now, Duration::ZERO, reason, executor));
    worker.look();
    assert_eq!(worker.pass(SETTLE_WAIT_LEAVING_MAX - TICK), None);
    assert_eq!(worker.pass(TICK), Some(WorkerStep::GaveUp { results: 1 }));
}

#[test]
fn a_worker_that_is_to_leave_and_has_nobody_leaves() {
    let mut worker = Worker::called(WITH_JOB);
    worker.begin(0..1);
    worker.run();
    worker.lose_both();
    worker.drain();
    worker.pass(ALONE_MAX - TICK);
    assert_eq!(worker.exit(), None);
    worker.pass(TICK);
    assert_eq!(worker.exit(), Some(WorkerExit::Alone));
    // One that has nothing need not wait.
    let mut worker = Worker::new(WITH_JOB);
    worker.drain();
    assert_eq!(worker.exit(), Some(WorkerExit::Alone));
}

#[test]
fn a_worker_that_is_to_leave_does_without_a_peer_that_was_given_up() {
    let mut worker = Worker::called(WITH_JOB);
    worker.begin(0..1);
    worker.run();
    worker.lose_sink();
    assert!(!worker.farewell.handle_peer_given_up(&worker.executor), "it is not to leave");
    let mut worker = Worker::called(WITH_JOB);
    worker.begin(0..1);
    worker.run();
    worker.lose_sink();
    worker.drain();
    assert!(worker.farewell.handle_peer_given_up(&worker.executor));
    assert_eq!(worker.look(), Some(WorkerStep::GaveUp { results: 1 }));
    assert_eq!(worker.exit(), Some(WorkerExit::Alone));
}

#[test]
fn a_worker_that_never_reaches_the_ventilator_takes_the_job_to_be_over() {
    let mut worker = Worker::new(WITH_JOB);
    worker.look();
    worker.pass(LATE_MAX - TICK);
    assert_eq!(worker.exit(), None);
    worker.pass(TICK);
    assert_eq!(worker.exit(), Some(WorkerExit::Late(LATE_MAX)));
}

#[test]
fn a_worker_that_missed_the_end_of_its_job_does_not_wait_for_another_one() {
    let missed: [fn(&mut Worker); 3] = [
        // Nobody is there any more.
        Worker::lose_both,
        // The sink is a relay that came after the end.
        |worker| worker.farewell.handle_ventilator_disconnected(),
        // The ventilator is a relay that came after the end.
        |worker| {
            worker.lose_both();
            worker.farewell.handle_ventilator_connected();
            worker.hear(ToWorker::Ping);
        },
    ];
    for miss in missed {
        let mut worker = Worker::called(WITH_JOB);
        worker.pass(2 * FORGOTTEN_MAX);
        assert_eq!(worker.exit(), None, "its ventilator is there");
        miss(&mut worker);
        worker.look();
        worker.pass(FORGOTTEN_MAX - TICK);
        assert_eq!(worker.exit(), None);
        let mut found = worker;
        found.farewell.handle_ventilator_connected();
        found.call();
        found.pass(TICK);
        assert_eq!(found.exit(), None, "it is called again");
        let mut worker = Worker::called(WITH_JOB);
        miss(&mut worker);
        worker.look();
        worker.pass(FORGOTTEN_MAX);
        assert_eq!(worker.exit(), Some(WorkerExit::Forgotten(FORGOTTEN_MAX)));
    }
}

#[test]
fn a_worker_that_has_not_worked_for_a_job_or_still_runs_something_is_not_forgotten() {
    let mut worker = Worker::new(WITH_JOB);
    worker.farewell.handle_ventilator_connected();
    worker.look();
    worker.pass(2 * FORGOTTEN_MAX);
    assert_eq!(worker.exit(), None, "the job has yet to come");
    let mut worker = Worker::called(WITH_JOB);
    worker.begin(0..1);
    assert!(worker.executor.poll_start(worker.now).is_some());
    worker.lose_both();
    worker.pass(2 * FORGOTTEN_MAX);
    assert_eq!(worker.exit(), None, "it runs a task");
    let mut worker = Worker::called(WorkerRules::default());
    worker.lose_both();
    worker.pass(2 * FORGOTTEN_MAX);
    assert_eq!(worker.exit(), None, "it was not told to leave with the job");
}

#[test]
fn a_worker_without_tasks_is_idle_and_says_so_once() {
    let idle_max = Some(Duration::from_secs(30));
    let mut worker = Worker::called(WorkerRules { idle_max, ..WorkerRules::default() });
    worker.pass(Duration::from_secs(29));
    worker.begin(0..1);
    worker.run();
    assert_eq!(worker.pass(Duration::from_secs(29)), None);
    let idle = Some(WorkerStep::Idle(Duration::from_secs(30)));
    assert_eq!(worker.pass(Duration::from_secs(1)), idle);
    assert_eq!(worker.look(), None);
}

#[test]
fn a_job_of_another_ventilator_is_none_of_ours() {
    let mut worker = Worker::called(WITH_JOB);
    worker.hear(ToWorker::Done { job: JobId(JOB.0 + 1) });
    assert_eq!(worker.exit(), None);
}

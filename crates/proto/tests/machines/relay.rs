//! Two stages and the relay between them, joined without sockets or codec.

use std::time::Duration;

use tradewind_proto::collector::{Collector, CollectorConfig, Counts, Opened, Order};
use tradewind_proto::dispatcher::{Dispatcher, Ended, Policy, Transmit};
use tradewind_proto::executor::{Executor, Finished, Start};
use tradewind_proto::farewell::{RelayExit, RelayFarewell};
use tradewind_proto::limits::{
    CREDIT_BYTES_MAX, FAREWELL_MAX, HELD_BYTES_MAX, MESSAGE_BYTES_MAX, ROLL_CALL_GRACE,
    STRANGE_BEATS_MAX, UNSETTLED_TASKS_MAX,
};
use tradewind_proto::message::{
    Card, InputEnd, Outcome, Report, Role, Status, TaskResult, ToSink, ToVentilator, ToWorker,
};
use tradewind_proto::relay::{Relay, RelayConfig};
use tradewind_proto::{Attempt, JobId, LaneId, Payload, Seq, SeqSet, SessionId, TaskHash, Time};

use tradewind_testkit::{JOB, config};

const TICK: Duration = Duration::from_millis(1);

const FIRST: usize = 0;
const SECOND: usize = 1;

/// What the job is called in the second stage.
const IN_SECOND: JobId = JobId(JOB.0 + 1);

/// A ventilator, a worker, the relay, a worker, the sink.
struct Stages {
    now: Time,
    ventilator: Dispatcher,
    relay: Relay,
    sink: Collector,
    workers: [Option<Executor>; 2],
    /// How the worker of a stage ends what it runs; none if that takes for ever.
    ends: [Option<End>; 2],
    /// Tasks that the worker of each stage has begun.
    begun: [u64; 2],
    /// Seqs, statuses, stages and outputs of the records, as they were written.
    written: Vec<(u64, Status, String, Vec<u8>)>,
    relays: u64,
    is_flushed: bool,
    /// Nothing gets through from the relay to the sink, or from the sink to the relay.
    is_sink_deaf: bool,
    is_sink_mute: bool,
    /// Steps until the machines are checked again.
    unchecked: u64,
}

type End = fn(&Payload) -> Outcome;

fn relay(session: u64) -> Relay {
    Relay::new(RelayConfig {
        session: SessionId(session),
        stage: "second".to_owned(),
        policy: Policy::default(),
        message_bytes_max: MESSAGE_BYTES_MAX,
        keep_newline: false,
        seed: session,
    })
}

impl Stages {
    fn new(order: Order) -> Self {
        let mut config = config(JOB);
        config.stage = "first".to_owned();
        let sink = CollectorConfig { session: SessionId(1000), order, report: Report::default() };
        let mut stages = Self {
            now: Time(1_000_000),
            ventilator: Dispatcher::new(config),
            relay: relay(2000),
            sink: Collector::new(sink),
            workers: [None, None],
            ends: [Some(|task| Outcome::ok(task.clone())); 2],
            begun: [0; 2],
            written: Vec::new(),
            relays: 1,
            is_flushed: false,
            is_sink_deaf: false,
            is_sink_mute: false,
            unchecked: 0,
        };
        stages.ventilator.handle_sink_connected();
        stages.ventilator.handle_receipts_connected(stages.now);
        stages.connect_relay();
        stages.sink.handle_ventilator_connected();
        stages.settle();
        stages
    }

    fn connect_relay(&mut self) {
        self.relay.upstream_mut().handle_ventilator_connected();
        self.relay.downstream_mut().handle_sink_connected();
        self.relay.downstream_mut().handle_receipts_connected(self.now);
    }

    /// The connections between the relay and the sink end, with what is under way, and stand again.
    fn reconnect_sink(&mut self) {
        self.relay.downstream_mut().handle_sink_disconnected();
        self.relay.downstream_mut().handle_receipts_disconnected(self.now);
        self.sink.handle_ventilator_disconnected();
        (self.is_sink_deaf, self.is_sink_mute) = (false, false);
        self.relay.downstream_mut().handle_sink_connected();
        self.relay.downstream_mut().handle_receipts_connected(self.now);
        self.sink.handle_ventilator_connected();
        self.settle();
    }

    /// The relay dies, and another one takes its place.
    fn restart_relay(&mut self) {
        self.ventilator.handle_sink_disconnected();
        self.ventilator.handle_receipts_disconnected(self.now);
        self.sink.handle_ventilator_disconnected();
        if let Some(worker) = &mut self.workers[FIRST] {
            worker.handle_sink_disconnected();
        }
        self.relay = relay(2000 + self.relays);
        self.relays += 1;
        self.ventilator.handle_sink_connected();
        self.ventilator.handle_receipts_connected(self.now);
        self.connect_relay();
        self.sink.handle_ventilator_connected();
        if let Some(worker) = &mut self.workers[FIRST] {
            worker.handle_sink_connected();
            let (session, name) = (SessionId(FIRST as u64), "w0");
            self.relay.upstream_mut().handle_worker_connected(session, name);
        }
        if self.workers[SECOND].is_some() {
            let card = card(SECOND, 1);
            let lane = LaneId(100 + self.relays);
            self.relay.downstream_mut().handle_lane_opened(self.now, lane, &card);
        }
        self.settle();
    }

    fn join(&mut self, stage: usize, slots: u32) {
        let card = card(stage, slots);
        let mut executor = Executor::new(card.session, slots);
        executor.handle_sink_connected();
        self.workers[stage] = Some(executor);
        let (dispatcher, collector) = match stage {
            FIRST => (&mut self.ventilator, self.relay.upstream_mut()),
            _ => (self.relay.downstream_mut(), &mut self.sink),
        };
        collector.handle_worker_connected(card.session, &card.name);
        dispatcher.handle_lane_opened(self.now, LaneId(stage as u64), &card);
        self.settle();
    }

    /// Reads as much input as there is room for, again and again.
    fn read(&mut self, task: &Payload, count: u64) {
        let mut read = 0;
        while read < count && self.ventilator.input_room() > 0 {
            let room = self.ventilator.input_room().min(count - read);
            (0..room).for_each(|_| self.ventilator.handle_task(task.clone()));
            read += room;
            self.settle();
        }
    }

    fn end_input(&mut self) {
        self.ventilator.handle_input_end();
        self.settle();
    }

    /// Delivers everything until nobody has anything more to say.
    fn settle(&mut self) {
        for _ in 0..1_000_000 {
            if !self.step() {
                return;
            }
        }
        panic!("the machines never stop talking");
    }

    /// After every step, or more rarely the more there is to look at.
    fn check_invariants(&mut self) {
        if self.unchecked > 0 {
            self.unchecked -= 1;
            return;
        }
        let snapshot = self.ventilator.snapshot();
        self.unchecked = (snapshot.read - snapshot.settled) / 256;
        self.ventilator.check_invariants();
        self.relay.check_invariants();
        self.sink.check_invariants();
        self.workers.iter().flatten().for_each(Executor::check_invariants);
    }

    fn step(&mut self) -> bool {
        self.check_invariants();
        let mut moved = false;
        self.now = Time(self.now.0 + 1);
        while let Some(transmit) = self.ventilator.poll_transmit(self.now) {
            moved = true;
            match transmit {
                Transmit::Worker(_, message) => self.tell_worker(FIRST, message),
                Transmit::Sink(message) => self.relay.handle_from_upstream(message),
            }
        }
        while let Some(transmit) = self.relay.downstream_mut().poll_transmit(self.now) {
            moved = true;
            match transmit {
                Transmit::Worker(_, message) => self.tell_worker(SECOND, message),
                Transmit::Sink(_) if self.is_sink_deaf => {}
                Transmit::Sink(message) => self.tell_sink(message),
            }
        }
        for stage in [FIRST, SECOND] {
            moved |= self.work(stage);
        }
        while let Some(records) = self.sink.poll_write() {
            moved = true;
            for record in records.iter().flat_map(|records| records.iter()) {
                let (seq, outcome) = (record.result.seq.0, &record.result.outcome);
                let stage = record.stage.to_owned();
                self.written.push((seq, outcome.status, stage, outcome.output.to_vec()));
            }
            self.sink.handle_written(records.len());
        }
        if self.sink.is_all_stored() && !self.is_flushed {
            self.is_flushed = true;
            self.sink.handle_flushed();
        }
        while !self.is_sink_mute
            && let Some(message) = self.sink.poll_transmit()
        {
            moved = true;
            self.relay.handle_from_downstream(self.now, message);
        }
        while let Some(message) = self.relay.upstream_mut().poll_transmit() {
            moved = true;
            self.ventilator.handle_message(self.now, message);
        }
        moved
    }

    fn tell_worker(&mut self, stage: usize, message: ToWorker) {
        if let Some(worker) = &mut self.workers[stage] {
            worker.handle_message(message);
        }
    }

    fn tell_sink(&mut self, message: ToSink) {
        self.sink.handle_message(message);
        if let Some(opening) = self.sink.poll_open() {
            let (job, stored, counts) = (opening.job, SeqSet::new(), Counts::default());
            self.sink.handle_opened(Opened { job, stored, counts, ..Opened::default() });
        }
    }

    fn work(&mut self, stage: usize) -> bool {
        let Some(worker) = &mut self.workers[stage] else { return false };
        let mut moved = false;
        while let Some(Start { slot, task, .. }) = worker.poll_start(self.now) {
            moved = true;
            self.begun[stage] += 1;
            if let Some(end) = self.ends[stage] {
                worker.handle_finished(Finished {
                    slot,
                    started_us: 1,
                    ran_us: 10,
                    outcome: end(&task.payload),
                    reported: None,
                });
            }
        }
        while let Some(message) = worker.poll_transmit() {
            moved = true;
            if stage == FIRST {
                self.relay.handle_from_upstream(message);
            } else {
                self.sink.handle_message(message);
            }
        }
        moved
    }

    #[track_caller]
    fn assert_over(&self) {
        assert_eq!(self.ventilator.ended(), Some(&Ended::Complete));
        assert_eq!(self.relay.downstream().ended(), Some(&Ended::Complete));
        assert!(self.sink.is_done());
        for worker in self.workers.iter().flatten() {
            assert!(worker.is_empty(), "a worker holds something");
        }
    }
}

fn card(stage: usize, slots: u32) -> Card {
    let (session, name) = (SessionId(stage as u64), format!("w{stage}"));
    Card { role: Role::Worker, session, slots, message_bytes_max: MESSAGE_BYTES_MAX, name }
}

/// Everything is stored, and the ventilator is gone before it was told.
fn everything_stored_without_a_ventilator() -> Stages {
    let mut stages = Stages::new(Order::Seq);
    stages.join(FIRST, 1);
    stages.join(SECOND, 1);
    stages.read(&Payload::from(b"task"), 1);
    stages.is_flushed = true;
    stages.end_input();
    stages.ventilator.handle_receipts_disconnected(stages.now);
    stages.ventilator.handle_sink_disconnected();
    stages.relay.upstream_mut().handle_ventilator_disconnected();
    stages.sink.handle_flushed();
    stages.settle();
    assert!(stages.relay.is_all_stored() && stages.relay.is_flushed());
    assert_eq!(stages.relay.downstream().ended(), None);
    stages
}

#[test]
fn a_relay_without_a_ventilator_to_tell_tells_those_behind_it_of_the_end() {
    let mut stages = everything_stored_without_a_ventilator();
    let (now, mut farewell) = (stages.now, RelayFarewell::default());
    farewell.review(now, &mut stages.relay, true);
    assert_eq!(farewell.poll_timeout(), Time(u64::MAX), "it may be told yet");
    farewell.review(now, &mut stages.relay, false);
    farewell.review(now + (FAREWELL_MAX - TICK), &mut stages.relay, false);
    assert_eq!(farewell.exit(now + (FAREWELL_MAX - TICK), &stages.relay), None);
    farewell.review(now + FAREWELL_MAX, &mut stages.relay, false);
    assert_eq!(farewell.exit(now + FAREWELL_MAX, &stages.relay), Some(RelayExit::Ended));
    stages.settle();
    assert!(stages.sink.is_done());
    let worker = stages.workers[SECOND].as_ref().expect("it has joined");
    assert_eq!(worker.snapshot().jobs_done, 1);
}

#[test]
fn a_relay_that_has_everything_leaves_one_that_knows_no_job_or_was_given_up() {
    let mut stages = everything_stored_without_a_ventilator();
    let (now, mut farewell) = (stages.now, RelayFarewell::default());
    farewell.handle_ventilator_connected();
    for _ in 0..STRANGE_BEATS_MAX {
        farewell.handle_message(&ToSink::Ping);
    }
    farewell.review(now, &mut stages.relay, true);
    assert_eq!(farewell.exit(now, &stages.relay), None);
    farewell.review(now + FAREWELL_MAX, &mut stages.relay, true);
    assert_eq!(farewell.exit(now + FAREWELL_MAX, &stages.relay), Some(RelayExit::Ended));

    let mut stages = everything_stored_without_a_ventilator();
    let mut farewell = RelayFarewell::default();
    assert!(farewell.handle_ventilator_given_up(&stages.relay));
    farewell.review(now, &mut stages.relay, false);
    assert_eq!(farewell.exit(now, &stages.relay), Some(RelayExit::Ended));
    let mut farewell = RelayFarewell::default();
    assert!(!farewell.handle_ventilator_given_up(&Stages::new(Order::Seq).relay));
}

// Fails if `JobClose` or `JobDone` of a job that is not open yet is dropped: the relay waits for ever.
#[test]
fn an_end_that_is_heard_before_the_sink_is_there_is_known_once_it_is() {
    let mut stages = with_an_end_heard_before(true);
    assert_eq!(stages.relay.downstream().ended(), Some(&Ended::Complete));
    assert!(stages.sink.is_done());
    let exit = RelayFarewell::default().exit(stages.now, &stages.relay);
    assert_eq!(exit, Some(RelayExit::Ended));
    // Without the last word the relay knows that everything is stored, and can tell the ventilator.
    stages = with_an_end_heard_before(false);
    assert!(stages.relay.is_flushed());
    assert_eq!(stages.relay.downstream().ended(), None);
}

/// Another relay, which has heard how the job ends before the sink was there, and perhaps that it is done.
fn with_an_end_heard_before(is_done: bool) -> Stages {
    let mut stages = everything_stored_without_a_ventilator();
    let mut relay = relay(3000);
    relay.upstream_mut().handle_ventilator_connected();
    let name = "a job".to_owned();
    let opening = ToSink::JobOpen {
        job: JOB,
        name,
        start: tradewind_proto::message::Start::New,
        stage: "first".to_owned(),
        is_untouched: false,
    };
    relay.handle_from_upstream(opening.clone());
    relay.handle_from_upstream(ToSink::JobClose { job: JOB, total: 1, end: InputEnd::Whole });
    if is_done {
        relay.handle_from_upstream(ToSink::JobDone { job: JOB });
    }
    relay.handle_from_upstream(opening);
    relay.upstream_mut().handle_ventilator_disconnected();

    stages.relay = relay;
    stages.relay.downstream_mut().handle_sink_connected();
    stages.relay.downstream_mut().handle_receipts_connected(stages.now);
    stages.sink.handle_ventilator_connected();
    stages.settle();
    stages
}

#[test]
fn a_relay_that_knows_no_job_says_that_it_is_there_and_nothing_else() {
    let mut relay = relay(2000);
    relay.downstream_mut().handle_sink_connected();
    relay.downstream_mut().handle_receipts_connected(Time(0));
    for second in 0..5 {
        relay.handle_timeout(Time(second * 1_000_000));
        while let Some(transmit) = relay.downstream_mut().poll_transmit(Time(0)) {
            assert_eq!(transmit, Transmit::Sink(ToSink::Ping));
        }
    }
}

#[test]
fn what_the_first_stage_makes_is_the_second_ones_task() {
    for order in [Order::Seq, Order::Completion] {
        let mut stages = Stages::new(order);
        stages.ends = [
            Some(|task| Outcome::ok([task, &b".1\n"[..]].concat().into())),
            Some(|task| Outcome::ok([task, &b".2\n"[..]].concat().into())),
        ];
        stages.join(FIRST, 1);
        stages.join(SECOND, 1);
        stages.read(&Payload::from(b"task"), 3);
        stages.end_input();
        let record = |seq| (seq, Status::Ok, "second".to_owned(), b"task.1.2\n".to_vec());
        assert_eq!(stages.written, [record(0), record(1), record(2)]);
        stages.assert_over();
    }
}

#[test]
fn what_ends_in_the_first_stage_never_reaches_the_second() {
    for status in [Status::Failed, Status::Skipped] {
        let mut stages = Stages::new(Order::Seq);
        stages.ends[FIRST] = Some(match status {
            Status::Failed => |_| Outcome::error(Status::Failed, "no"),
            _ => |_| Outcome::error(Status::Skipped, ""),
        });
        stages.join(FIRST, 1);
        stages.join(SECOND, 1);
        stages.read(&Payload::from(b"task"), 2);
        stages.end_input();
        let record = |seq| (seq, status, "first".to_owned(), Vec::new());
        assert_eq!(stages.written, [record(0), record(1)]);
        assert_eq!(stages.begun, [2, 0]);
        stages.assert_over();
        let failed = stages.ventilator.snapshot().failed;
        assert_eq!(failed, if status == Status::Failed { 2 } else { 0 });
    }
}

#[test]
fn a_relay_that_is_new_hands_out_nothing_that_is_held() {
    let mut stages = Stages::new(Order::Seq);
    stages.ends[SECOND] = None;
    stages.join(FIRST, 1);
    stages.join(SECOND, 1);
    stages.read(&Payload::from(b"task"), 2);
    stages.end_input();
    assert_eq!(stages.begun, [2, 1]);
    stages.restart_relay();
    stages.restart_relay();
    // What runs in the second stage goes on, and nothing of the first one has run again.
    assert_eq!(stages.begun, [2, 1]);
    stages.ends[SECOND] = Some(|task| Outcome::ok(task.clone()));
    if let Some(worker) = &mut stages.workers[SECOND] {
        worker.handle_finished(Finished {
            slot: tradewind_proto::Slot(0),
            started_us: 1,
            ran_us: 10,
            outcome: Outcome::ok(Payload::from(b"task")),
            reported: None,
        });
    }
    // A new relay waits for all whom the sink may know of.
    stages.now = stages.now + ROLL_CALL_GRACE;
    stages.relay.downstream_mut().handle_timeout(stages.now);
    stages.settle();
    assert_eq!(stages.begun, [2, 2]);
    assert_eq!(stages.written.len(), 2);
    stages.assert_over();
}

#[test]
fn a_cancel_reaches_what_the_next_stage_runs() {
    let mut stages = Stages::new(Order::Seq);
    stages.ends[SECOND] = None;
    stages.join(FIRST, 1);
    stages.join(SECOND, 1);
    stages.read(&Payload::from(b"task"), 3);
    assert_eq!(stages.begun, [3, 1]);
    stages.ventilator.handle_cancel();
    stages.settle();
    let statuses: Vec<Status> = stages.written.iter().map(|(_, status, ..)| *status).collect();
    assert_eq!(statuses, [Status::Cancelled; 3]);
    assert_eq!(stages.ventilator.ended(), Some(&Ended::Complete));
    let stop = stages.workers[SECOND].as_mut().and_then(Executor::poll_stop);
    assert_eq!(stop.map(|stop| stop.seq.0), Some(0));
}

#[test]
fn a_refusal_goes_all_the_way_up() {
    let mut stages = Stages::new(Order::Seq);
    let reason = "the disk is somebody else's".to_owned();
    let refused = ToVentilator::Refused { job: IN_SECOND, reason };
    stages.relay.handle_from_downstream(stages.now, refused);
    stages.settle();
    let reason = Some(Ended::Refused("the disk is somebody else's".to_owned()));
    assert_eq!(stages.ventilator.ended(), reason.as_ref());
    assert_eq!(stages.relay.downstream().ended(), reason.as_ref());
}

#[test]
fn what_comes_to_the_wrong_stage_counts_for_nothing() {
    let mut stages = Stages::new(Order::Seq);
    stages.join(FIRST, 1);
    stages.join(SECOND, 1);
    // A worker of the second stage has reached the relay before it instead of the sink.
    let astray = |seq| TaskResult {
        seq: Seq(seq),
        attempt: Attempt::FIRST,
        last: true,
        started_us: 1,
        ran_us: 1,
        task_bytes: 4,
        task_hash: TaskHash::of(b"task"),
        outcome: Outcome::ok(Payload::from(b"made of it")),
        reported: None,
    };
    stages.ends[FIRST] = None;
    stages.read(&Payload::from(b"task"), 1);
    stages.relay.handle_from_upstream(ToSink::Results {
        job: IN_SECOND,
        session: SessionId(SECOND as u64),
        results: vec![astray(0)].into(),
    });
    stages.settle();
    assert_eq!(stages.begun, [1, 0]);
    assert_eq!(stages.relay.upstream().snapshot().unexpected_results, 1);
}

/// How far the first stage gets while nobody works in the second one.
#[test]
fn a_stage_gets_ahead_of_the_next_one_by_its_bound_and_no_further() {
    // Large tasks are bounded by their bytes, small ones by their number.
    for bytes in [16_u64, 1 << 10, 64 << 10, 1 << 20] {
        let mut stages = Stages::new(Order::Seq);
        stages.join(FIRST, 1);
        let task = Payload::from(vec![b'x'; bytes as usize]);
        let count = (4 * HELD_BYTES_MAX / bytes).min(2 * UNSETTLED_TASKS_MAX);
        stages.read(&task, count);
        let ahead = stages.begun[FIRST];
        let kept = ahead * bytes;
        assert!(ahead <= UNSETTLED_TASKS_MAX, "{ahead} tasks");
        // What was handed out before the relay had too much still comes.
        assert!(kept <= HELD_BYTES_MAX + 2 * CREDIT_BYTES_MAX, "{kept} bytes");
        assert!(ahead == UNSETTLED_TASKS_MAX || kept >= HELD_BYTES_MAX, "{ahead} of {bytes}");
        // And goes on as soon as somebody works there.
        stages.join(SECOND, 1);
        stages.read(&task, count / 4);
        stages.end_input();
        stages.assert_over();
    }
}

#[test]
fn what_a_stopped_job_leaves_out_takes_up_no_credit() {
    let mut stages = Stages::new(Order::Seq);
    stages.ends[SECOND] = None;
    stages.join(FIRST, 1);
    stages.join(SECOND, 4);
    stages.read(&Payload::from(b"task"), 4);
    let held = |stages: &Stages| {
        let snapshot = stages.relay.downstream().snapshot();
        (snapshot.read, snapshot.workers[0].out)
    };
    assert_eq!(held(&stages), (4, 4));
    // Another ventilator has gone on with the job and was stopped before it had come this far.
    let close = ToSink::JobClose { job: JOB, total: 1, end: InputEnd::CutShort };
    stages.relay.handle_from_upstream(close);
    assert_eq!(held(&stages), (4, 1));
}

// Fails if records of an earlier stage are sent to the sink once.
#[test]
fn a_record_of_an_earlier_stage_is_sent_again_to_a_sink_that_missed_it() {
    let mut stages = Stages::new(Order::Seq);
    stages.ends[FIRST] = Some(|_| Outcome::error(Status::Failed, "no"));
    stages.join(FIRST, 1);
    stages.is_sink_deaf = true;
    stages.read(&Payload::from(b"task"), 1);
    assert_eq!((stages.begun, stages.written.len()), ([1, 0], 0));
    stages.reconnect_sink();
    assert_eq!(stages.written, [(0, Status::Failed, "first".to_owned(), Vec::new())]);
    stages.end_input();
    stages.assert_over();
}

// Fails if a relay does not tell the earlier stage what is stored when it hears of that in a second hello.
#[test]
fn a_receipt_that_a_relay_missed_is_made_up_for_by_the_hello() {
    let mut stages = Stages::new(Order::Seq);
    stages.join(FIRST, 1);
    stages.join(SECOND, 1);
    stages.is_sink_mute = true;
    stages.read(&Payload::from(b"task"), 1);
    assert_eq!((stages.written.len(), stages.ventilator.snapshot().settled), (1, 0));
    stages.reconnect_sink();
    assert_eq!(stages.ventilator.snapshot().settled, 1);
    stages.end_input();
    stages.assert_over();
}

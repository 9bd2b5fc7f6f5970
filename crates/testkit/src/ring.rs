//! All machines of a job, joined without sockets or codec.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Deref;
use std::sync::Arc;

use tradewind_proto::Payload;
use tradewind_proto::collector::{
    Collector, CollectorConfig, Counts, Inputs, Opened, Opening, Order, Records,
};
use tradewind_proto::dispatcher::{Dispatcher, DispatcherConfig, Ended, Notice, Policy, Transmit};
use tradewind_proto::executor::{Executor, Finished, Start};
use tradewind_proto::limits::MESSAGE_BYTES_MAX;
use tradewind_proto::message::{
    self, Card, Layout, Outcome, Report, Role, Status, TaskResult, ToSink, ToVentilator, ToWorker,
};
use tradewind_proto::{JobId, LaneId, Seq, SeqSet, SessionId, Slot, Time};

use crate::machine::{Accepts, CollectorAction, DispatcherAction, ExecutorAction, Machine};

/// Id of the first job of a [`Ring`].
pub const JOB: JobId = JobId(77);

/// A ventilator, workers and a sink. Time passes only where a test says so, and each message arrives at
/// once unless a test holds it back. The machines are checked against themselves after each step.
#[derive(Debug)]
pub struct Ring {
    /// The time of all machines.
    pub now: Time,
    /// The ventilator's machine.
    pub dispatcher: Dispatcher,
    /// The sink's machine.
    pub collector: Collector,
    /// The workers by id, which is the id of their lane.
    pub workers: BTreeMap<u64, Worker>,
    /// Records in the order in which they were written.
    pub written: Vec<Written>,
    /// Records that a new sink finds in its output.
    pub from_before: (SeqSet, Counts),
    /// The ventilator's notices that no test has taken.
    pub notices: VecDeque<Notice>,
    /// Starts of the ventilator.
    ventilators: u64,
    /// Whether the sink's messages stay in the sink.
    pub sink_is_mute: bool,
    /// Whether records stay in the sink because its disk is slow.
    pub disk_is_stuck: bool,
    /// Whether messages to the sink are lost on the way to it.
    pub sink_is_deaf: bool,
    /// Lanes that the ventilator has closed.
    pub closed: Vec<LaneId>,
    /// Worker whose messages are lost on the way to it.
    pub swallows: Option<u64>,
    /// Steps until the machines are checked again.
    unchecked: u64,
}

/// A worker, whose tasks a test ends.
#[derive(Debug)]
pub struct Worker {
    /// The worker's machine.
    pub executor: Executor,
    /// Running tasks by slot.
    pub running: BTreeMap<u32, Start>,
    /// Seqs and attempts of the tasks that were to be stopped.
    pub stopped: Vec<(u64, u32)>,
}

/// A record in the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Name of the stage that the task ended in.
    pub stage: Arc<str>,
    /// Outcome of the task.
    pub result: TaskResult,
}

impl Deref for Written {
    type Target = TaskResult;

    fn deref(&self) -> &TaskResult {
        &self.result
    }
}

impl Ring {
    /// Creates a ventilator and a sink that are connected, with a job that has this number of retries.
    #[must_use]
    pub fn new(retries: u32, order: Order) -> Self {
        Self::with(order, |config| config.policy.retries = retries)
    }

    /// Creates a ventilator with changed settings, and a sink that is connected to it.
    pub fn with(order: Order, change: impl FnOnce(&mut DispatcherConfig)) -> Self {
        let mut config = config(JOB);
        change(&mut config);
        let collector =
            CollectorConfig { session: SessionId(1000), order, report: Report::default() };
        let mut ring = Self {
            now: Time(1_000_000),
            dispatcher: Dispatcher::new(config),
            collector: Collector::new(collector),
            workers: BTreeMap::new(),
            written: Vec::new(),
            from_before: (SeqSet::new(), Counts::default()),
            notices: VecDeque::new(),
            ventilators: 1,
            sink_is_mute: false,
            disk_is_stuck: false,
            sink_is_deaf: false,
            closed: Vec::new(),
            swallows: None,
            unchecked: 0,
        };
        ring.dispatcher.handle_sink_connected();
        ring.dispatcher.handle_receipts_connected(ring.now);
        ring.collector.handle_ventilator_connected();
        ring.settle();
        ring
    }

    /// Reads tasks.
    pub fn tasks(&mut self, tasks: &[&'static str]) {
        for task in tasks {
            self.dispatcher.handle_task(Payload::from(task.as_bytes()));
        }
        self.settle();
    }

    /// Connects a new worker, whose id is its session and its lane.
    pub fn join(&mut self, id: u64, slots: u32) {
        self.join_with(id, slots, MESSAGE_BYTES_MAX);
    }

    /// Connects a new worker that takes messages of at most this number of bytes.
    pub fn join_with(&mut self, id: u64, slots: u32, message_bytes_max: u64) {
        let mut executor = Executor::new(SessionId(id), slots);
        executor.handle_sink_connected();
        self.collector.handle_worker_connected(SessionId(id), &format!("w{id}"));
        let worker = Worker { executor, running: BTreeMap::new(), stopped: Vec::new() };
        self.workers.insert(id, worker);
        let card = Card {
            role: Role::Worker,
            session: SessionId(id),
            slots,
            message_bytes_max,
            name: format!("w{id}"),
        };
        self.dispatcher.handle_lane_opened(self.now, LaneId(id), &card);
        self.settle();
    }

    /// Kills a worker, and closes its lanes.
    pub fn kill(&mut self, id: u64) {
        self.workers.remove(&id);
        self.collector.handle_worker_disconnected(SessionId(id));
        self.dispatcher.handle_lane_gone(LaneId(id));
        self.settle();
    }

    /// Ends the task in a worker's slot.
    pub fn finish(&mut self, id: u64, slot: u32, outcome: Outcome) {
        self.finish_after(id, slot, 10, outcome);
    }

    /// Ends the task in a worker's slot after it has run for this time in µs.
    pub fn finish_after(&mut self, id: u64, slot: u32, ran_us: u64, outcome: Outcome) {
        self.worker(id).finish(slot, ran_us, outcome);
        self.settle();
    }

    /// Ends the task in a worker's slot and starts the next one there. The worker sends nothing yet.
    pub fn finish_quietly(&mut self, id: u64, slot: u32, outcome: Outcome) {
        let now = self.now;
        let worker = self.worker(id);
        worker.finish(slot, 10, outcome);
        let quietly = Accepts { messages: false, ..Accepts::ALL };
        while let Some(action) = worker.executor.poll(now, quietly) {
            let message = worker.apply(action);
            debug_assert_eq!(message, None, "messages are not accepted");
        }
    }

    fn worker(&mut self, id: u64) -> &mut Worker {
        self.workers.get_mut(&id).expect("the worker is there")
    }

    /// Ends all running tasks, with the task as its output, until no task runs.
    pub fn finish_all(&mut self) {
        for _ in 0..100_000 {
            let next = self.workers.iter().find_map(|(id, worker)| {
                let (slot, start) = worker.running.first_key_value()?;
                Some((*id, *slot, start.task.payload.clone()))
            });
            let Some((id, slot, payload)) = next else { return };
            self.now = Time(self.now.0 + 1_000);
            self.finish(id, slot, Outcome::ok(payload));
        }
        panic!("it never ends");
    }

    /// Kills the sink, and starts another one with the records that are in the output.
    pub fn restart_sink(&mut self, order: Order) {
        let mut stored = SeqSet::new();
        let mut counts = Counts::default();
        for (seq, status, _) in self.records() {
            stored.insert(Seq(seq));
            counts.add(status);
        }
        self.from_before = (stored, counts);
        for worker in self.workers.values_mut() {
            worker.executor.handle_sink_disconnected();
        }
        self.dispatcher.handle_sink_disconnected();
        self.dispatcher.handle_receipts_disconnected(self.now);
        let config = CollectorConfig { session: SessionId(1001), order, report: Report::default() };
        self.collector = Collector::new(config);
        for (id, worker) in &mut self.workers {
            self.collector.handle_worker_connected(SessionId(*id), &format!("w{id}"));
            worker.executor.handle_sink_connected();
        }
        self.dispatcher.handle_receipts_connected(self.now);
        self.collector.handle_ventilator_connected();
        self.dispatcher.handle_sink_connected();
        self.settle();
    }

    /// Ends the connections between the ventilator and the sink. Messages on their way are lost.
    pub fn cut_sink_off(&mut self) {
        self.dispatcher.handle_sink_disconnected();
        self.dispatcher.handle_receipts_disconnected(self.now);
        self.collector.handle_ventilator_disconnected();
        self.settle();
    }

    /// Connects the ventilator and the sink again.
    pub fn connect_sink(&mut self) {
        self.dispatcher.handle_receipts_connected(self.now);
        self.collector.handle_ventilator_connected();
        self.dispatcher.handle_sink_connected();
        self.settle();
    }

    /// Kills the ventilator, and starts another one that has read no input. Workers connect to it when
    /// they [rejoin](Self::rejoin).
    pub fn restart_ventilator(&mut self, start: message::Start) {
        let job = JobId(JOB.0 + self.ventilators);
        self.ventilators += 1;
        self.dispatcher = Dispatcher::new(DispatcherConfig { start, ..config(job) });
        self.collector.handle_ventilator_disconnected();
        self.dispatcher.handle_sink_connected();
        self.dispatcher.handle_receipts_connected(self.now);
        self.collector.handle_ventilator_connected();
        self.settle();
    }

    /// Connects a worker to a ventilator that was restarted.
    pub fn rejoin(&mut self, id: u64, slots: u32) {
        let (session, name) = (SessionId(id), format!("w{id}"));
        let card =
            Card { role: Role::Worker, session, slots, message_bytes_max: MESSAGE_BYTES_MAX, name };
        self.dispatcher.handle_lane_opened(self.now, LaneId(id), &card);
        self.settle();
    }

    /// Compares tasks with the written records, as the sink's shell does.
    fn compare(&mut self, inputs: &Inputs) {
        let hash = |seq: &Seq| {
            let record = self.written.iter().find(|record| record.seq == *seq);
            record.map(|record| record.task_hash)
        };
        match inputs.stored.iter().find(|(seq, new)| hash(seq) != Some(*new)) {
            Some((seq, _)) => self.collector.handle_changed(*seq),
            None => self.collector.handle_verified(inputs.below),
        }
    }

    /// Lets this number of µs pass.
    pub fn pass(&mut self, micros: u64) {
        self.now = Time(self.now.0 + micros);
        self.dispatcher.handle_due(self.now);
        self.collector.handle_due(self.now);
        for worker in self.workers.values_mut() {
            worker.executor.handle_due(self.now);
        }
        self.settle();
    }

    /// Does what the machines ask for until there is no more. Time stands still.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.step() {
                return;
            }
        }
        panic!("the machines never stop talking");
    }

    /// Checks the machines, and checks them again after a number of steps that grows with the number of
    /// tasks to look at.
    fn check(&mut self) {
        if self.unchecked > 0 {
            self.unchecked -= 1;
            return;
        }
        let snapshot = self.dispatcher.snapshot();
        self.unchecked = (snapshot.read - snapshot.settled) / 256;
        self.dispatcher.check();
        self.collector.check();
        self.workers.values().for_each(|worker| worker.executor.check());
    }

    /// Does what each machine asks for, once; returns whether one had something to say.
    fn step(&mut self) -> bool {
        self.check();
        let mut moved = false;
        while let Some(action) = self.dispatcher.poll(self.now, Accepts::ALL) {
            match action {
                DispatcherAction::Transmit(Transmit::Worker(lane, message)) => {
                    self.tell_worker(lane, message);
                }
                DispatcherAction::Transmit(Transmit::Sink(message)) => self.tell_sink(message),
                DispatcherAction::Notice(notice) => self.notices.push_back(notice),
                DispatcherAction::Close(lane) => {
                    self.closed.push(lane);
                    self.dispatcher.handle_lane_gone(lane);
                }
            }
            moved = true;
        }
        for worker in self.workers.values_mut() {
            while let Some(action) = worker.executor.poll(self.now, Accepts::ALL) {
                if let Some(message) = worker.apply(action) {
                    self.collector.handle_message(message);
                }
                moved = true;
            }
        }
        let (messages, records) = (!self.sink_is_mute, !self.disk_is_stuck);
        moved | self.drive_sink(Accepts { messages, records })
    }

    fn tell_worker(&mut self, lane: LaneId, message: ToWorker) {
        if self.swallows == Some(lane.0) {
            return;
        }
        if let Some(worker) = self.workers.get_mut(&lane.0) {
            worker.executor.handle_message(message);
        }
    }

    fn tell_sink(&mut self, message: ToSink) {
        if self.sink_is_deaf {
            return;
        }
        self.collector.handle_message(message);
        // The next message belongs to the job already.
        self.drive_sink(Accepts::NEITHER);
    }

    fn drive_sink(&mut self, accepts: Accepts) -> bool {
        let mut moved = false;
        while let Some(action) = self.collector.poll(self.now, accepts) {
            match action {
                CollectorAction::Open(opening) => self.open(&opening),
                CollectorAction::Compare(inputs) => self.compare(&inputs),
                CollectorAction::Begin => {}
                CollectorAction::Write(lists) => {
                    for Records { stage, results, .. } in &lists {
                        let written = |result: &TaskResult| Written {
                            stage: Arc::clone(stage),
                            result: result.clone(),
                        };
                        self.written.extend(results.iter().map(written));
                    }
                    self.collector.handle_written(lists.len());
                }
                CollectorAction::Spool(_) | CollectorAction::Unspool(_) => {
                    panic!("this sink has no spool");
                }
                CollectorAction::Transmit(message) => {
                    self.dispatcher.handle_message(self.now, message);
                }
            }
            moved = true;
        }
        moved
    }

    fn open(&mut self, opening: &Opening) {
        let (stored, counts) = self.from_before.clone();
        // An output with records in it belongs to the job that made them.
        let job = if counts.total() > 0 { JOB } else { opening.job };
        self.collector.handle_opened(Opened { job, stored, counts, ..Opened::default() });
    }

    /// Flushes the output, after which the job can end.
    pub fn flush(&mut self) {
        assert!(self.collector.is_all_stored(), "everything is stored");
        self.collector.handle_flushed();
        self.settle();
    }

    /// Returns seqs, statuses and attempts of the records, in the order in which they were written.
    #[must_use]
    pub fn records(&self) -> Vec<(u64, Status, u32)> {
        let about = |record: &Written| (record.seq.0, record.outcome.status, record.attempt.0);
        self.written.iter().map(about).collect()
    }

    /// Returns seqs and attempts of a worker's running tasks, in the order of slots.
    #[must_use]
    pub fn running(&self, id: u64) -> Vec<(u64, u32)> {
        let tasks = self.workers[&id].running.values();
        tasks.map(|start| (start.task.seq.0, start.task.attempt.0)).collect()
    }

    /// Panics unless the job is complete and no worker holds a task or a result of it.
    #[track_caller]
    pub fn assert_over(&self) {
        assert_eq!(self.dispatcher.ended(), Some(&Ended::Complete));
        assert!(self.collector.is_done());
        for (id, worker) in &self.workers {
            assert!(worker.executor.is_empty(), "worker {id} holds something");
            assert_eq!(worker.executor.snapshot().jobs_done, 1, "worker {id}");
        }
    }

    /// Hands a message to the ventilator.
    pub fn say(&mut self, message: ToVentilator) {
        self.dispatcher.handle_message(self.now, message);
        self.settle();
    }
}

impl Worker {
    fn finish(&mut self, slot: u32, ran_us: u64, outcome: Outcome) {
        self.running.remove(&slot).expect("a task runs there");
        let (slot, started_us, reported) = (Slot(slot), 1, None);
        self.executor.handle_finished(Finished { slot, started_us, ran_us, outcome, reported });
    }

    /// Does what the executor asks for, but for messages: returns the one to send.
    fn apply(&mut self, action: ExecutorAction) -> Option<ToSink> {
        match action {
            ExecutorAction::Start(start) => {
                self.running.insert(start.slot.0, start);
                None
            }
            ExecutorAction::Stop(stop) => {
                self.stopped.push((stop.seq.0, stop.attempt.0));
                None
            }
            ExecutorAction::Transmit(message) => Some(message),
        }
    }
}

/// Returns the settings of a ventilator, with nothing particular in them.
#[must_use]
pub fn config(job: JobId) -> DispatcherConfig {
    DispatcherConfig {
        layout: Layout::Unsaid,
        job,
        name: "test".into(),
        stage: String::new(),
        start: message::Start::New,
        policy: Policy::default(),
        message_bytes_max: MESSAGE_BYTES_MAX,
        seed: 1,
    }
}

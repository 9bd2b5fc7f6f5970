//! All three machines, joined without sockets or codec: what one says, the other hears at once,
//! unless a test holds it back.

use std::collections::BTreeMap;

use tradewind_proto::Payload;
use tradewind_proto::collector::{
    Collector, CollectorConfig, Counts, Inputs, Opened, Opening, Order,
};
use tradewind_proto::dispatcher::{Dispatcher, DispatcherConfig, Ended, Policy, Transmit};
use tradewind_proto::executor::{Executor, Finished, Start};
use tradewind_proto::limits::MESSAGE_BYTES_MAX;
use tradewind_proto::message::{
    self, Card, Layout, Outcome, Report, Role, Status, TaskResult, ToVentilator, ToWorker,
};
use tradewind_proto::{JobId, LaneId, Seq, SeqSet, SessionId, Slot, Time};

pub(crate) const JOB: JobId = JobId(77);

pub(crate) struct Ring {
    pub(crate) now: Time,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) collector: Collector,
    pub(crate) workers: BTreeMap<u64, Worker>,
    /// What was written, in the order of writing.
    pub(crate) written: Vec<TaskResult>,
    /// What a new sink finds in its output.
    pub(crate) from_before: (SeqSet, Counts),
    /// Starts of the ventilator.
    ventilators: u64,
    /// Hold back what the sink says.
    pub(crate) sink_is_mute: bool,
    /// Hold back what was written: the disk is slow.
    pub(crate) disk_is_stuck: bool,
    /// Nothing gets through to this worker.
    pub(crate) swallows: Option<u64>,
    /// Steps until the machines are checked again.
    unchecked: u64,
}

pub(crate) struct Worker {
    pub(crate) executor: Executor,
    /// What runs: a test ends it.
    pub(crate) running: BTreeMap<u32, Start>,
    pub(crate) stopped: Vec<(u64, u32)>,
}

impl Ring {
    pub(crate) fn new(retries: u32, order: Order) -> Self {
        Self::with(order, |config| config.policy.retries = retries)
    }

    pub(crate) fn with(order: Order, change: impl FnOnce(&mut DispatcherConfig)) -> Self {
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
            ventilators: 1,
            sink_is_mute: false,
            disk_is_stuck: false,
            swallows: None,
            unchecked: 0,
        };
        ring.dispatcher.handle_sink_connected();
        ring.dispatcher.handle_receipts_connected(ring.now);
        ring.collector.handle_ventilator_connected();
        ring.settle();
        ring
    }

    pub(crate) fn tasks(&mut self, tasks: &[&'static str]) {
        for task in tasks {
            self.dispatcher.handle_task(Payload::from(task.as_bytes()));
        }
        self.settle();
    }

    /// A worker whose id is its session and its lane.
    pub(crate) fn join(&mut self, id: u64, slots: u32) {
        self.join_with(id, slots, MESSAGE_BYTES_MAX);
    }

    /// The same, one that takes messages of so many bytes.
    pub(crate) fn join_with(&mut self, id: u64, slots: u32, message_bytes_max: u64) {
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

    /// The worker dies, and its lane ends.
    pub(crate) fn kill(&mut self, id: u64) {
        self.workers.remove(&id);
        self.collector.handle_worker_disconnected(SessionId(id));
        self.dispatcher.handle_lane_gone(LaneId(id));
        self.settle();
    }

    /// Ends what runs in a worker's slot.
    pub(crate) fn finish(&mut self, id: u64, slot: u32, outcome: Outcome) {
        self.finish_after(id, slot, 10, outcome);
    }

    pub(crate) fn finish_after(&mut self, id: u64, slot: u32, ran_us: u64, outcome: Outcome) {
        let worker = self.workers.get_mut(&id).expect("the worker is there");
        worker.running.remove(&slot).expect("something runs there");
        worker.executor.handle_finished(Finished {
            slot: Slot(slot),
            started_us: 1,
            ran_us,
            outcome,
            reported: None,
        });
        self.settle();
    }

    /// Ends what runs in a worker's slot, which goes on with what waits there, and says nothing yet.
    pub(crate) fn finish_quietly(&mut self, id: u64, slot: u32, outcome: Outcome) {
        let worker = self.workers.get_mut(&id).expect("the worker is there");
        worker.running.remove(&slot).expect("something runs there");
        worker.executor.handle_finished(Finished {
            slot: Slot(slot),
            started_us: 1,
            ran_us: 10,
            outcome,
            reported: None,
        });
        while let Some(start) = worker.executor.poll_start(self.now) {
            worker.running.insert(start.slot.0, start);
        }
    }

    /// Ends everything that runs, with the task as its output, until nothing runs.
    pub(crate) fn finish_all(&mut self) {
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

    /// The sink dies, and comes back with what is in its output.
    pub(crate) fn restart_sink(&mut self, order: Order) {
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

    /// The ventilator dies, and comes back with the same input to come. Workers find it when they
    /// [rejoin](Self::rejoin).
    pub(crate) fn restart_ventilator(&mut self, start: message::Start) {
        let job = JobId(JOB.0 + self.ventilators);
        self.ventilators += 1;
        self.dispatcher = Dispatcher::new(DispatcherConfig { start, ..config(job) });
        self.collector.handle_ventilator_disconnected();
        self.dispatcher.handle_sink_connected();
        self.dispatcher.handle_receipts_connected(self.now);
        self.collector.handle_ventilator_connected();
        self.settle();
    }

    /// A worker that lives finds the ventilator that is new.
    pub(crate) fn rejoin(&mut self, id: u64, slots: u32) {
        let (session, name) = (SessionId(id), format!("w{id}"));
        let card =
            Card { role: Role::Worker, session, slots, message_bytes_max: MESSAGE_BYTES_MAX, name };
        self.dispatcher.handle_lane_opened(self.now, LaneId(id), &card);
        self.settle();
    }

    /// Compares as the sink's shell does: with what was written.
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

    pub(crate) fn pass(&mut self, micros: u64) {
        self.now = Time(self.now.0 + micros);
        self.dispatcher.handle_timeout(self.now);
        self.collector.handle_timeout(self.now);
        for worker in self.workers.values_mut() {
            worker.executor.handle_timeout(self.now);
        }
        self.settle();
    }

    /// Delivers everything until nobody has anything more to say. Time stands still.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
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
        let snapshot = self.dispatcher.snapshot();
        self.unchecked = (snapshot.read - snapshot.settled) / 256;
        self.dispatcher.check_invariants();
        self.collector.check_invariants();
        self.workers.values().for_each(|worker| worker.executor.check_invariants());
    }

    fn step(&mut self) -> bool {
        self.check_invariants();
        let mut moved = false;
        while let Some(transmit) = self.dispatcher.poll_transmit(self.now) {
            moved = true;
            match transmit {
                Transmit::Worker(lane, message) => self.tell_worker(lane, message),
                Transmit::Sink(message) => {
                    self.collector.handle_message(message);
                    if let Some(Opening { job, .. }) = self.collector.poll_open() {
                        let (stored, counts) = self.from_before.clone();
                        // An output with records in it belongs to the job that made them.
                        let job = if counts.total() > 0 { JOB } else { job };
                        self.collector.handle_opened(Opened {
                            job,
                            stored,
                            counts,
                            ..Opened::default()
                        });
                    }
                    while let Some(inputs) = self.collector.poll_inputs() {
                        self.compare(&inputs);
                    }
                }
            }
        }
        while let Some(lane) = self.dispatcher.poll_close() {
            moved = true;
            self.dispatcher.handle_lane_gone(lane);
        }
        for worker in self.workers.values_mut() {
            while let Some(start) = worker.executor.poll_start(self.now) {
                moved = true;
                worker.running.insert(start.slot.0, start);
            }
            while let Some(stop) = worker.executor.poll_stop() {
                worker.stopped.push((stop.seq.0, stop.attempt.0));
            }
            while let Some(message) = worker.executor.poll_transmit() {
                moved = true;
                self.collector.handle_message(message);
            }
        }
        while !self.disk_is_stuck
            && let Some(records) = self.collector.poll_write()
        {
            moved = true;
            let count = records.len();
            self.written.extend(records.into_iter().flat_map(|records| records.results));
            self.collector.handle_written(count);
        }
        while !self.sink_is_mute
            && let Some(message) = self.collector.poll_transmit()
        {
            moved = true;
            self.dispatcher.handle_message(self.now, message);
        }
        moved
    }

    fn tell_worker(&mut self, lane: LaneId, message: ToWorker) {
        if self.swallows == Some(lane.0) {
            return;
        }
        if let Some(worker) = self.workers.get_mut(&lane.0) {
            worker.executor.handle_message(message);
        }
    }

    /// The output is flushed: the job can end.
    pub(crate) fn flush(&mut self) {
        assert!(self.collector.is_all_stored(), "everything is stored");
        self.collector.handle_flushed();
        self.settle();
    }

    /// Seqs, statuses and attempts of the records, as they were written.
    pub(crate) fn records(&self) -> Vec<(u64, Status, u32)> {
        let about = |result: &TaskResult| (result.seq.0, result.outcome.status, result.attempt.0);
        self.written.iter().map(about).collect()
    }

    /// What runs at a worker: seqs and attempts by slot.
    pub(crate) fn running(&self, id: u64) -> Vec<(u64, u32)> {
        let tasks = self.workers[&id].running.values();
        tasks.map(|start| (start.task.seq.0, start.task.attempt.0)).collect()
    }

    /// The job ended well, and nobody holds anything.
    pub(crate) fn assert_over(&self) {
        assert_eq!(self.dispatcher.ended(), Some(&Ended::Complete));
        assert!(self.collector.is_done());
        for (id, worker) in &self.workers {
            assert!(worker.executor.is_empty(), "worker {id} holds something");
            assert_eq!(worker.executor.snapshot().jobs_done, 1, "worker {id}");
        }
    }

    pub(crate) fn say(&mut self, message: ToVentilator) {
        self.dispatcher.handle_message(self.now, message);
        self.settle();
    }
}

pub(crate) fn config(job: JobId) -> DispatcherConfig {
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

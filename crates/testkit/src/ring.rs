//! All machines of a job, joined without sockets or codec.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tradewind_proto::Payload;
use tradewind_proto::collector::{Collector, Order};
use tradewind_proto::dispatcher::{
    Dispatcher, DispatcherConfig, Ended, Notice, Policy, TaskLimits, Transmit,
};
use tradewind_proto::limits::MESSAGE_BYTES_MAX;
use tradewind_proto::message::{self, Layout, Outcome, Status, ToSink, ToVentilator, ToWorker};
use tradewind_proto::relay::{Relay, RelayConfig};
use tradewind_proto::{JobId, LaneId, Seq, SessionId, Time};

use crate::machine::{Accepts, DispatcherAction, Machine};
use crate::sink::{Sink, Written};
use crate::worker::{Deed, RUN_US, Run, Worker};

/// Id of the first job of a [`Ring`], in its first stage.
pub const JOB: JobId = JobId(77);

/// A ventilator, workers and a sink, and a relay between each two stages. Time passes only where a test
/// says so, and each message arrives at once unless it takes a [`hop`](Self::hop). The machines are
/// checked against themselves after each step.
#[derive(Debug)]
pub struct Ring {
    /// The time of all machines.
    pub now: Time,
    /// Time that each message takes.
    pub hop: Duration,
    /// The ventilator's machine.
    pub dispatcher: Dispatcher,
    /// The relays' machines: the first is the sink of the first stage and the ventilator of the second.
    pub relays: Vec<Relay>,
    /// The sink.
    pub sink: Sink,
    /// The workers of all stages by id, which is the id of their lane.
    pub workers: BTreeMap<u64, Worker>,
    /// Notices of ventilator and relays that no test has taken.
    pub notices: VecDeque<Notice>,
    /// Whether the sink's messages stay in the sink.
    pub sink_is_mute: bool,
    /// Whether records stay in the sink because its disk is slow.
    pub disk_is_stuck: bool,
    /// Whether messages of the ventilator, or of the last relay, are lost on the way to the sink.
    pub sink_is_deaf: bool,
    /// Lanes that the ventilator or a relay has closed.
    pub closed: Vec<LaneId>,
    /// Worker whose messages are lost on the way to it.
    pub swallows: Option<u64>,
    /// Messages that were lost so.
    pub swallowed: Vec<ToWorker>,
    /// Starts of the ventilator.
    pub(crate) ventilators: u64,
    /// Starts of relays.
    pub(crate) relay_starts: u64,
    /// Messages on their way and tasks that run, by time and then by age.
    events: BTreeMap<(Time, u64), Event>,
    /// Number of events so far.
    scheduled: u64,
    /// Steps until the machines are checked again.
    unchecked: u64,
}

/// Something that will happen.
#[derive(Debug)]
enum Event {
    /// A message reaches a worker.
    ToWorker(u64, ToWorker),
    /// A message reaches what collects the results of a stage.
    ToCollector(usize, ToSink),
    /// A message reaches what dispatches the tasks of a stage.
    ToDispatcher(usize, ToVentilator),
    /// A task of a worker ends.
    Ended(u64, Run),
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
        Self::connected(order, config, Vec::new())
    }

    /// Creates a ventilator, relays and a sink that are connected, for a job with stages of these names.
    #[must_use]
    pub fn with_stages(order: Order, stages: &[&str]) -> Self {
        let (first, others) = stages.split_first().expect("there is a stage");
        let config = DispatcherConfig { stage: (*first).to_owned(), ..config(JOB) };
        let relay = |(index, stage): (usize, &&str)| Relay::new(relay_config(index as u64, stage));
        Self::connected(order, config, others.iter().enumerate().map(relay).collect())
    }

    /// Creates a ventilator and a sink that are connected, with a job of which every task below a seq is
    /// settled.
    #[must_use]
    pub fn starting_at(order: Order, first: u64) -> Self {
        let mut ring = Self::unconnected(order, config(JOB), Vec::new());
        ring.dispatcher = ring.dispatcher.with_first(Seq(first));
        ring.sink.first = Seq(first);
        ring.connect()
    }

    fn connected(order: Order, config: DispatcherConfig, relays: Vec<Relay>) -> Self {
        Self::unconnected(order, config, relays).connect()
    }

    fn connect(mut self) -> Self {
        (0..=self.relays.len()).for_each(|stage| self.connect_stage(stage));
        self.settle();
        self
    }

    fn unconnected(order: Order, config: DispatcherConfig, relays: Vec<Relay>) -> Self {
        Self {
            now: Time(1_000_000),
            hop: Duration::ZERO,
            dispatcher: Dispatcher::new(config),
            relay_starts: relays.len() as u64,
            relays,
            sink: Sink::new(order, None),
            workers: BTreeMap::new(),
            notices: VecDeque::new(),
            sink_is_mute: false,
            disk_is_stuck: false,
            sink_is_deaf: false,
            closed: Vec::new(),
            swallows: None,
            swallowed: Vec::new(),
            ventilators: 1,
            events: BTreeMap::new(),
            scheduled: 0,
            unchecked: 0,
        }
    }

    /// Returns the machine that dispatches the tasks of a stage.
    pub(crate) fn dispatcher_of(&mut self, stage: usize) -> &mut Dispatcher {
        match stage.checked_sub(1) {
            None => &mut self.dispatcher,
            Some(relay) => self.relays[relay].downstream_mut(),
        }
    }

    /// Returns the machine that collects the results of a stage.
    pub(crate) fn collector_of(&mut self, stage: usize) -> &mut Collector {
        match self.relays.get_mut(stage) {
            Some(relay) => relay.upstream_mut(),
            None => &mut self.sink.collector,
        }
    }

    /// Reads tasks.
    pub fn tasks(&mut self, tasks: &[&'static str]) {
        for task in tasks {
            self.dispatcher.handle_task(Payload::from(task.as_bytes()));
        }
        self.settle();
    }

    /// Reads tasks that have limits of their own.
    pub fn tasks_with(&mut self, tasks: &[(&'static str, TaskLimits)]) {
        for (task, limits) in tasks {
            self.dispatcher.handle_task_with(Payload::from(task.as_bytes()), *limits);
        }
        self.settle();
    }

    /// Reads the same task this number of times, or as often as there is room for it.
    pub fn read(&mut self, task: &Payload, count: u64) {
        let mut left = count;
        while left > 0 && self.dispatcher.input_room() > 0 {
            let room = self.dispatcher.input_room().min(left);
            (0..room).for_each(|_| self.dispatcher.handle_task(task.clone()));
            left -= room;
            self.settle();
        }
    }

    /// Ends the input.
    pub fn end_input(&mut self) {
        self.dispatcher.handle_input_end();
        self.settle();
    }

    /// Ends the task in a worker's slot.
    pub fn finish(&mut self, id: u64, slot: u32, outcome: Outcome) {
        self.finish_after(id, slot, RUN_US, outcome);
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
        worker.finish(slot, RUN_US, outcome);
        let quietly = Accepts { messages: false, ..Accepts::ALL };
        let mut deeds = Vec::new();
        worker.drive(now, quietly, |deed| deeds.push(deed));
        deeds.into_iter().for_each(|deed| self.perform(id, deed));
    }

    /// Returns a worker.
    ///
    /// # Panics
    ///
    /// When there is none with this id.
    pub fn worker(&mut self, id: u64) -> &mut Worker {
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

    /// Lets this number of µs pass.
    pub fn pass(&mut self, micros: u64) {
        let until = Time(self.now.0 + micros);
        while self.events.first_key_value().is_some_and(|((at, _), _)| *at <= until) {
            self.advance();
        }
        self.now = until;
        self.handle_due();
        self.settle();
    }

    /// Lets time pass until a message arrives, a task ends or a machine is due.
    pub fn advance(&mut self) {
        let due = self.due().max(self.now);
        match self.events.first_entry() {
            Some(next) if next.key().0 <= due => {
                self.now = next.key().0;
                let event = next.remove();
                self.happen(event);
            }
            _ => self.now = due,
        }
        self.handle_due();
        self.settle();
        assert!(self.due() > self.now, "a timer that was due is set again");
    }

    /// Returns the time at which the next machine is due.
    fn due(&self) -> Time {
        let workers = self.workers.values().map(|worker| worker.executor.due());
        let relays = self.relays.iter().map(Relay::poll_timeout);
        let others = [self.dispatcher.due(), self.sink.collector.due()];
        workers.chain(relays).chain(others).min().expect("there are machines")
    }

    fn handle_due(&mut self) {
        self.dispatcher.handle_due(self.now);
        self.relays.iter_mut().for_each(|relay| relay.handle_timeout(self.now));
        self.sink.collector.handle_due(self.now);
        for worker in self.workers.values_mut() {
            worker.executor.handle_due(self.now);
        }
    }

    /// Does what the machines ask for until there is no more. Time stands still.
    pub fn settle(&mut self) {
        for _ in 0..1_000_000 {
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
        // Where messages take time, each is a step of its own.
        let tasks_a_step = if self.hop.is_zero() { 256 } else { 16 };
        self.unchecked = (snapshot.read - snapshot.settled) / tasks_a_step;
        self.dispatcher.check();
        self.relays.iter().for_each(Relay::check_invariants);
        self.sink.collector.check();
        self.workers.values().for_each(|worker| worker.executor.check());
    }

    /// Does what each machine asks for, once; returns whether one had something to say.
    fn step(&mut self) -> bool {
        self.check();
        let mut moved = false;
        for stage in 0..=self.relays.len() {
            moved |= self.drive_dispatcher(stage);
        }
        moved |= self.drive_workers();
        let (messages, records) = (!self.sink_is_mute, !self.disk_is_stuck);
        moved |= self.drive_sink(Accepts { messages, records });
        for stage in (0..self.relays.len()).rev() {
            while let Some(message) = self.relays[stage].upstream_mut().poll_transmit() {
                self.send(Event::ToDispatcher(stage, message));
                moved = true;
            }
        }
        moved
    }

    fn drive_dispatcher(&mut self, stage: usize) -> bool {
        let (now, last) = (self.now, self.relays.len());
        let mut moved = false;
        while let Some(action) = self.dispatcher_of(stage).poll(now, Accepts::ALL) {
            moved = true;
            match action {
                DispatcherAction::Transmit(Transmit::Worker(lane, message)) => {
                    self.send_to_worker(lane, message);
                }
                DispatcherAction::Transmit(Transmit::Sink(_))
                    if stage == last && self.sink_is_deaf => {}
                DispatcherAction::Transmit(Transmit::Sink(message)) => {
                    self.send(Event::ToCollector(stage, message));
                }
                DispatcherAction::Notice(notice) => self.notices.push_back(notice),
                DispatcherAction::Close(lane) => {
                    self.closed.push(lane);
                    self.dispatcher_of(stage).handle_lane_gone(lane);
                }
            }
        }
        moved
    }

    fn send_to_worker(&mut self, lane: LaneId, message: ToWorker) {
        if self.swallows == Some(lane.0) {
            self.swallowed.push(message);
            return;
        }
        let Some(worker) = self.workers.get_mut(&lane.0) else { return };
        match &message {
            ToWorker::Tasks { tasks, .. } => worker.sent_tasks += tasks.0.len() as u64,
            ToWorker::Recall { .. } => worker.recalls += 1,
            _ => {}
        }
        self.send(Event::ToWorker(lane.0, message));
    }

    fn drive_workers(&mut self) -> bool {
        let mut moved = false;
        let mut deeds = Vec::new();
        for (id, worker) in &mut self.workers {
            moved |= worker.drive(self.now, Accepts::ALL, |deed| deeds.push((*id, deed)));
        }
        deeds.into_iter().for_each(|(id, deed)| self.perform(id, deed));
        moved
    }

    fn perform(&mut self, id: u64, deed: Deed) {
        match deed {
            Deed::Send(message) => {
                let stage = self.worker(id).stage;
                self.send(Event::ToCollector(stage, message));
            }
            Deed::Run(run) => self.schedule(self.now + run.takes, Event::Ended(id, run)),
        }
    }

    fn drive_sink(&mut self, accepts: Accepts) -> bool {
        let mut messages = Vec::new();
        let moved = self.sink.drive(self.now, accepts, |message| messages.push(message));
        let stage = self.relays.len();
        messages.into_iter().for_each(|message| self.send(Event::ToDispatcher(stage, message)));
        moved
    }

    /// Sends a message, which arrives after a hop.
    fn send(&mut self, message: Event) {
        if self.hop.is_zero() {
            self.happen(message);
        } else {
            self.schedule(self.now + self.hop, message);
        }
    }

    fn schedule(&mut self, at: Time, event: Event) {
        self.events.insert((at, self.scheduled), event);
        self.scheduled += 1;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToWorker(id, message) => {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.executor.handle_message(message);
                }
            }
            Event::ToCollector(stage, message) => match self.relays.get_mut(stage) {
                Some(relay) => relay.handle_from_upstream(message),
                None => {
                    self.sink.collector.handle_message(message);
                    // The next message belongs to the job already.
                    self.drive_sink(Accepts::NEITHER);
                }
            },
            Event::ToDispatcher(stage, message) => match stage.checked_sub(1) {
                None => self.dispatcher.handle_message(self.now, message),
                Some(relay) => self.relays[relay].handle_from_downstream(self.now, message),
            },
            Event::Ended(id, Run { slot, takes, outcome }) => {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.finish(slot, takes.as_micros() as u64, outcome);
                }
            }
        }
    }

    /// Flushes the output, after which the job can end.
    pub fn flush(&mut self) {
        assert!(self.sink.collector.is_all_stored(), "everything is stored");
        self.sink.collector.handle_flushed();
        self.settle();
    }

    /// Returns seqs, statuses and attempts of the records, in the order in which they were written.
    #[must_use]
    pub fn records(&self) -> Vec<(u64, Status, u32)> {
        let about = |record: &Written| (record.seq.0, record.outcome.status, record.attempt.0);
        self.sink.written.iter().map(about).collect()
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
        for relay in &self.relays {
            assert_eq!(relay.downstream().ended(), Some(&Ended::Complete));
        }
        assert!(self.sink.collector.is_done());
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

/// Returns the settings of a relay, with nothing particular in them. Each start of one has its number.
#[must_use]
pub fn relay_config(start: u64, stage: &str) -> RelayConfig {
    RelayConfig {
        session: SessionId(2000 + start),
        stage: stage.to_owned(),
        policy: Policy::default(),
        message_bytes_max: MESSAGE_BYTES_MAX,
        keep_newline: false,
        seed: 2000 + start,
    }
}

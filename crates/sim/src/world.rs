//! The world: its clock, its queue, and what happens next.

use bytes::Bytes;
use fastrand::Rng;
use tradewind_proto::message::{News, ToSink, ToVentilator, ToWorker};
use tradewind_proto::{SessionId, Time};
use tradewind_testkit::Machine;
use tradewind_wire::{Message, decode};

use crate::check::Check;
use crate::event::{End, Event, Instant, Process, Queue, Route};
use crate::mutation::Mutation;
use crate::network::Connection;
use crate::plan::Plan;
use crate::relay::RelayNode;
use crate::serve::{Serve, Turn};
use crate::sink::Sink;
use crate::ventilator::Ventilator;
use crate::worker::Worker;

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) queue: Queue,
    pub(crate) rng: Rng,
    pub(crate) plan: Plan,
    pub(crate) check: Check,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) ventilator: Ventilator,
    pub(crate) sink: Sink,
    /// Of worlds that have a queue: what the two share.
    pub(crate) serve: Option<Box<Serve>>,
    /// One less than there are stages.
    pub(crate) relays: Vec<RelayNode>,
    /// All that ever started.
    pub(crate) workers: Vec<Worker>,
    /// Everything was stored once.
    pub(crate) was_stored: bool,
    /// Routes on which no process is reached, and the time since when.
    pub(crate) dialling: Vec<(Route, Instant)>,
    /// Routes that are not dialled any more.
    pub(crate) given_up: Vec<Route>,
    /// Seats of workers that have left with the job.
    pub(crate) seats_left: Vec<usize>,
    /// By seat, time until which the ventilator is not reached from there.
    pub(crate) blocked_tasks: Vec<Instant>,
    /// By seat, time until which the sink is not reached from there.
    pub(crate) blocked_results: Vec<Instant>,
    /// By stage, time until which its ventilator and its sink do not reach each other.
    pub(crate) blocked_trunk: Vec<Instant>,
    /// By seat, batches of tasks with which the lane ends.
    pub(crate) cuts_due: Vec<u32>,
    /// By seat, time until which lanes swallow each frame of more than a number of bytes, and all that follows.
    pub(crate) holes: Vec<(Instant, usize)>,
    /// Time until which the network is slow, and the longest way of a message until then.
    pub(crate) slow_network: (Instant, u64),
    pub(crate) slow_disk_until: Instant,
    pub(crate) trace: Trace,
}

/// A process's own time.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// Microseconds that it is ahead of the world's.
    pub(crate) ahead: u64,
    hung_until: Instant,
    /// Events that wait for a process that hangs.
    inbox: Vec<Event>,
    wake_at: Option<Instant>,
}

/// Every event leaves its mark: two runs of a seed must leave the same.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) hash: u64,
    pub(crate) events: u64,
    pub(crate) lines: Option<Vec<String>>,
}

/// Bytes of a frame that leave their mark: payloads would take more time than all else.
const FRAME_BYTES_NOTED: usize = 512;

/// No single event makes a machine say so much, unless it never stops.
pub(crate) const POLLS_MAX: usize = 200_000;

impl World {
    pub(crate) fn start(&mut self) {
        self.plant_in_ledger(Process::Ventilator);
        for seat in 0..self.plan.seats.len() {
            self.queue.push(self.plan.seats[seat].joins_at, Event::Spawn(seat));
        }
        for fault in 0..self.plan.faults.len() {
            self.queue.push(self.plan.faults[fault].0, Event::Fault(fault));
        }
        if self.serve.is_some() {
            return self.begin_queue();
        }
        for index in 0..self.plan.stages {
            let stage = self.plan.stage(index);
            let (job, receipts) = (self.rng.u64(0..10_000), self.rng.u64(0..10_000));
            self.queue.push(job, Event::Dial(Route::Job(stage)));
            self.queue.push(receipts, Event::Dial(Route::Receipts(stage)));
        }
        self.queue.push(0, Event::Input);
        self.drive(Process::Ventilator);
        self.drive(Process::Sink);
        for relay in 0..self.relays.len() {
            self.drive(Process::Relay(relay));
        }
    }

    /// For [`Mutation::Ledger`].
    pub(crate) fn plant_in_ledger(&mut self, hub: Process) {
        if let Some(Mutation::Ledger(bug)) = self.mutation {
            self.dispatcher(hub).plant(bug);
        }
    }

    /// Lets the next event happen; false if there is none.
    pub(crate) fn step(&mut self) -> bool {
        let Some((at, event)) = self.queue.pop() else { return false };
        debug_assert!(at >= self.now, "time does not go back");
        self.now = at;
        if let Event::Wake(process) = event {
            let clock = self.clock_of(process);
            if clock.wake_at != Some(at) {
                return true;
            }
            clock.wake_at = None;
        }
        if let Some(process) = self.target(&event) {
            if !self.is_alive(process) {
                return true;
            }
            let now = self.now;
            let clock = self.clock_of(process);
            if clock.hung_until > now {
                clock.inbox.push(event);
                return true;
            }
        }
        self.happen(event);
        true
    }

    fn happen(&mut self, event: Event) {
        self.trace.note(self.now, &event);
        match event {
            Event::Dial(route) => self.dial(route),
            Event::Opened(connection, end) => self.handle_opened(connection, end),
            Event::Gone(connection, end) => self.handle_gone(connection, end),
            Event::Arrived(connection, frame) => self.handle_arrived(connection, &frame),
            Event::Trickled(connection) => self.handle_trickled(connection),
            Event::Injected(process, frame) => self.deliver(process, &frame),
            Event::Wake(process) => self.wake(process),
            Event::Resume(process) => self.resume(process),
            Event::Input => self.read_input(),
            Event::TaskEnded { worker, slot, run } => self.handle_task_ended(worker, slot, run),
            Event::ChildBack { worker, slot } => {
                self.begin(worker, slot);
                self.drive(Process::Worker(worker));
            }
            Event::OutputOpened => self.handle_output_opened(),
            Event::Written => self.handle_written(),
            Event::Flushed => self.handle_flushed(),
            Event::Revive(Process::Ventilator) => self.start_ventilator(),
            Event::Revive(Process::Relay(relay)) => self.start_relay(relay),
            Event::Revive(_) => self.start_sink(),
            Event::Spawn(seat) => self.spawn(seat),
            Event::Queue(turn) => self.handle_turn(turn),
            Event::Fault(index) => {
                let (_, fault) = self.plan.faults[index];
                self.trace.say(self.now, || format!("{fault:?}"));
                self.check.progressed(self.now);
                self.apply(fault);
            }
        }
    }

    fn wake(&mut self, process: Process) {
        let now = self.time_of(process);
        match process {
            Process::Ventilator => self.ventilator.dispatcher.handle_due(now),
            Process::Sink => self.sink.collector.handle_due(now),
            Process::Relay(relay) => self.relays[relay].relay.handle_timeout(now),
            Process::Worker(worker) => self.workers[worker].executor.handle_due(now),
        }
        self.drive(process);
    }

    pub(crate) fn hang(&mut self, process: Process, until: Instant) {
        let clock = self.clock_of(process);
        if until > clock.hung_until {
            clock.hung_until = until;
            self.queue.push(until, Event::Resume(process));
        }
    }

    /// All that waited comes at once. Whether the timer is seen before or after the rest is left
    /// to chance.
    fn resume(&mut self, process: Process) {
        let mut inbox = std::mem::take(&mut self.clock_of(process).inbox);
        if self.rng.bool() {
            inbox.sort_by_key(|event| matches!(event, Event::Wake(_)));
        }
        for event in inbox {
            if self.is_alive(process) {
                self.happen(event);
            }
        }
    }

    /// The process that notices the event.
    fn target(&self, event: &Event) -> Option<Process> {
        match event {
            Event::Dial(route) => Some(route.dialler()),
            Event::Opened(connection, end) | Event::Gone(connection, end) => {
                Some(self.connections[*connection].route.at(*end))
            }
            Event::Arrived(connection, _) | Event::Trickled(connection) => {
                Some(self.connections[*connection].route.at(End::Receiver))
            }
            Event::Injected(process, _) | Event::Wake(process) => Some(*process),
            Event::Input => Some(Process::Ventilator),
            Event::TaskEnded { worker, .. } | Event::ChildBack { worker, .. } => {
                Some(Process::Worker(*worker))
            }
            Event::OutputOpened | Event::Written | Event::Flushed => Some(Process::Sink),
            Event::Queue(Turn::Said(..)) => Some(Process::Ventilator),
            Event::Queue(Turn::Rewrite(_)) => Some(Process::Sink),
            Event::Resume(_)
            | Event::Revive(_)
            | Event::Spawn(_)
            | Event::Queue(_)
            | Event::Fault(_) => None,
        }
    }

    pub(crate) fn is_alive(&self, process: Process) -> bool {
        match process {
            Process::Ventilator => self.ventilator.is_alive,
            Process::Sink => self.sink.is_alive,
            Process::Relay(relay) => self.relays[relay].is_alive,
            Process::Worker(worker) => self.workers[worker].is_alive,
        }
    }

    pub(crate) fn clock_of(&mut self, process: Process) -> &mut Clock {
        match process {
            Process::Ventilator => &mut self.ventilator.clock,
            Process::Sink => &mut self.sink.clock,
            Process::Relay(relay) => &mut self.relays[relay].clock,
            Process::Worker(worker) => &mut self.workers[worker].clock,
        }
    }

    pub(crate) fn time_of(&mut self, process: Process) -> Time {
        let now = self.now;
        Time(now + self.clock_of(process).ahead)
    }

    /// Asks a machine what to do until there is nothing more, and when to ask again.
    pub(crate) fn drive(&mut self, process: Process) {
        let due = match process {
            Process::Ventilator => self.drive_ventilator(),
            Process::Sink => self.drive_sink(),
            Process::Relay(relay) => self.drive_relay(relay),
            Process::Worker(worker) => self.drive_worker(worker),
        };
        self.check_machine(process);
        let (Some(due), true) = (due, self.is_alive(process)) else { return };
        let now = self.now;
        let clock = self.clock_of(process);
        let at = due.0.saturating_sub(clock.ahead).max(now);
        if clock.wake_at != Some(at) {
            clock.wake_at = Some(at);
            self.queue.push(at, Event::Wake(process));
        }
    }

    /// Checks a machine after all that it does: against itself, and against the bounds in bytes. The
    /// more tasks are not settled, the more rarely all of them are looked at.
    fn check_machine(&mut self, process: Process) {
        if !self.is_alive(process) {
            return;
        }
        match process {
            Process::Ventilator | Process::Relay(_) => {
                let snapshot = self.dispatcher(process).snapshot();
                self.check.dispatcher(&snapshot, matches!(process, Process::Relay(_)));
            }
            Process::Sink => self.check.collector(&self.sink.collector.snapshot()),
            Process::Worker(_) => {}
        }
        let snapshot = self.ventilator.dispatcher.snapshot();
        let unsettled = snapshot.read - snapshot.settled;
        if !self.trace.events.is_multiple_of(1 + unsettled / 256) {
            return;
        }
        match process {
            Process::Ventilator => self.ventilator.dispatcher.check(),
            Process::Relay(relay) => self.relays[relay].relay.check_invariants(),
            Process::Sink => self.sink.collector.check(),
            Process::Worker(worker) => self.workers[worker].executor.check(),
        }
    }

    /// A frame is read at a process. What is no message is dropped, as the shells do.
    pub(crate) fn deliver(&mut self, process: Process, frame: &Bytes) {
        match process {
            Process::Ventilator => {
                let now = self.time_of(process);
                if let Some(message) = self.decoded(process, frame) {
                    self.note_heard(0, &message);
                    let excuse = self.excuse(&message);
                    self.ventilator.dispatcher.handle_message(now, message);
                    if let Some(excuse) = excuse {
                        self.ventilator.dispatcher.handle_message(now, excuse);
                    }
                }
            }
            Process::Sink => {
                if let Some(mut message) = self.decoded(process, frame) {
                    self.trust(&mut message);
                    self.sink.hear(&message, self.mutation);
                    self.write_duplicates(&message);
                    self.write_both(&message);
                    self.sink.collector.handle_message(message.clone());
                    self.note_claims(&message);
                }
            }
            // It has two ports.
            Process::Relay(relay) if frame.get(1) == Some(&ToVentilator::CHANNEL) => {
                let now = self.time_of(process);
                if let Some(message) = self.decoded(process, frame) {
                    self.note_heard(relay + 1, &message);
                    self.relays[relay].relay.handle_from_downstream(now, message);
                }
            }
            Process::Relay(relay) => {
                if let Some(message) = self.decoded(process, frame) {
                    let early = match &message {
                        ToSink::Results { results, .. }
                            if self.mutation == Some(Mutation::EarlyStored) =>
                        {
                            Some(results.0.iter().map(|result| result.seq).collect())
                        }
                        _ => None,
                    };
                    self.relays[relay].farewell.handle_message(&message);
                    let relay = &mut self.relays[relay].relay;
                    relay.handle_from_upstream(message);
                    if let Some(early) = early {
                        relay.upstream_mut().handle_stored(&early);
                    }
                }
            }
            Process::Worker(worker) => {
                if let Some(message) = self.decoded(process, frame) {
                    if let ToWorker::Cancel { .. } = &message {
                        self.check.gave_up(worker);
                    }
                    self.workers[worker].farewell.handle_message(&message);
                    self.workers[worker].executor.handle_message(message);
                }
            }
        }
        self.drive(process);
    }

    /// For [`Mutation::ForgetOwed`].
    fn excuse(&self, message: &ToVentilator) -> Option<ToVentilator> {
        match message {
            ToVentilator::Relay { session, news: News::Heartbeat { .. } }
                if self.mutation == Some(Mutation::ForgetOwed) =>
            {
                Some(ToVentilator::Relay { session: *session, news: News::Alive })
            }
            _ => None,
        }
    }

    /// For [`Mutation::TrustResults`].
    fn trust(&self, message: &mut ToSink) {
        if let ToSink::Results { session, results, .. } = message
            && self.mutation == Some(Mutation::TrustResults)
        {
            for result in &mut results.0 {
                let tag = self.sink.collector.tag_of(*session, result);
                result.tag = tag.unwrap_or(result.tag);
            }
        }
    }

    /// Tells the account what the dispatcher of a stage hears of workers.
    fn note_heard(&mut self, stage: usize, message: &ToVentilator) {
        let sessions: Vec<SessionId> = match message {
            ToVentilator::Receipt { retry, .. } => {
                retry.0.iter().map(|failure| failure.session).collect()
            }
            ToVentilator::Relay { session, .. } => vec![*session],
            ToVentilator::SinkHello { .. } if self.plan.is_keyless => {
                // What workers have may be given with another key: they are given it again.
                (0..self.workers.len()).for_each(|worker| self.check.died(worker));
                return;
            }
            _ => return,
        };
        for session in sessions {
            let worker = self.workers.iter().position(|worker| worker.session == session);
            if let Some(worker) = worker {
                self.check.heard(worker, session, stage, message);
            }
        }
    }

    fn decoded<M: Message + std::fmt::Debug>(
        &mut self,
        process: Process,
        frame: &Bytes,
    ) -> Option<M> {
        let message = decode::<M>(frame);
        self.trace.say(self.now, || match &message {
            Ok(message) => format!("{process:?} hears {message:?}"),
            Err(error) => format!("{process:?} drops a frame: {error}"),
        });
        message.ok()
    }
}

impl Clock {
    /// Resets the clock of a process that is started again: it has no timers, and its machine's time.
    pub(crate) fn restart(&mut self) {
        *self = Self { ahead: self.ahead, ..Self::default() };
    }
}

impl Trace {
    fn note(&mut self, now: Instant, event: &Event) {
        self.events += 1;
        self.mix(now);
        match event {
            Event::Arrived(connection, frame) => {
                self.mix(*connection as u64);
                self.mix(frame.len() as u64);
                for chunk in frame[..frame.len().min(FRAME_BYTES_NOTED)].chunks(8) {
                    let mut word = [0; 8];
                    word[..chunk.len()].copy_from_slice(chunk);
                    self.mix(u64::from_le_bytes(word));
                }
            }
            Event::TaskEnded { worker, slot, run } => {
                [*worker as u64, *slot as u64, *run].into_iter().for_each(|part| self.mix(part));
            }
            Event::Opened(connection, end) => self.mix((*connection as u64) << 8 | *end as u64),
            Event::Gone(connection, end) => self.mix((*connection as u64) << 9 | *end as u64),
            _ => {}
        }
        if !matches!(event, Event::Arrived(..) | Event::Wake(_)) {
            self.say(now, || format!("{event:?}"));
        }
    }

    fn mix(&mut self, word: u64) {
        self.hash = (self.hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    pub(crate) fn say(&mut self, now: Instant, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>12.6} {}", now as f64 / 1e6, line()));
        }
    }
}

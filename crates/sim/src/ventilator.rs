//! The ventilator's shell.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tradewind_proto::dispatcher::{Dispatcher, DispatcherConfig, Policy, Timeout, Transmit};
use tradewind_proto::farewell::{VentilatorExit, VentilatorFarewell};
use tradewind_proto::limits::{MESSAGE_BYTES_MAX, QUEUE_RETAINED_BYTES_MAX};
use tradewind_proto::message::{Layout, Start, ToWorker};
use tradewind_proto::{JobId, LaneId, Seq, SessionId, Time};
use tradewind_testkit::{Accepts, DispatcherAction, Machine};
use tradewind_wire::encode;

use crate::event::{ConnectionId, End, Event, Process, Route};
use crate::plan::{Fate, Plan};
use crate::world::{Clock, POLLS_MAX, World};

pub(crate) struct Ventilator {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) farewell: VentilatorFarewell,
    pub(crate) is_alive: bool,
    /// It has left by its own rules, and is not started again.
    pub(crate) has_left: bool,
    /// Starts so far.
    starts: u64,
    pub(crate) clock: Clock,
    pub(crate) hub: Hub,
    /// Tasks read so far.
    read: usize,
    input_ended: bool,
    /// There was no room for the next task.
    input_waits: bool,
}

/// Connections of a process that dispatches tasks.
#[derive(Default)]
pub(crate) struct Hub {
    /// The lanes that are up, as far as is known here.
    pub(crate) lanes: BTreeMap<SessionId, ConnectionId>,
    pub(crate) job: Option<ConnectionId>,
    pub(crate) was_connected: bool,
    /// The newest connection of the sink.
    pub(crate) receipts: Option<ConnectionId>,
    was_calling_roll: bool,
    /// For [`Mutation::NewestSink`](crate::Mutation::NewestSink).
    pub(crate) is_taken: bool,
}

impl Ventilator {
    pub(crate) fn new(plan: &Plan, seed: u64) -> Self {
        Self {
            dispatcher: Dispatcher::new(config(plan, seed, Start::New)),
            farewell: VentilatorFarewell::default(),
            is_alive: true,
            has_left: false,
            starts: 1,
            clock: Clock::default(),
            hub: Hub::default(),
            read: 0,
            input_ended: false,
            input_waits: false,
        }
    }
}

impl Ventilator {
    /// Creates the ventilator of a queue, whose tasks begin with this one.
    pub(crate) fn of_queue(
        plan: &Plan,
        seed: u64,
        start: Start,
        first: Seq,
        policy: Policy,
    ) -> Self {
        let config = DispatcherConfig { policy, ..config(plan, seed, start) };
        let dispatcher = Dispatcher::new(config).with_first(first);
        let dispatcher = dispatcher.with_retained_bytes_max(QUEUE_RETAINED_BYTES_MAX);
        Self { dispatcher, ..Self::new(plan, seed) }
    }

    /// Notes that the next task is to be read when there is room for it.
    pub(crate) fn wait_for_room(&mut self) {
        self.input_waits = true;
    }
}

fn config(plan: &Plan, seed: u64, start: Start) -> DispatcherConfig {
    DispatcherConfig {
        layout: Layout::Unsaid,
        job: JobId(!seed),
        name: "a job".to_owned(),
        stage: stage_name(0),
        start,
        policy: policy(plan),
        message_bytes_max: MESSAGE_BYTES_MAX,
        seed,
    }
}

/// Returns the limits of a stage's tasks and workers.
pub(crate) fn policy(plan: &Plan) -> Policy {
    Policy {
        retries: plan.retries,
        timeout: match plan.timeout_us {
            _ if plan.has_percent_timeout => Some(Timeout::Percent(1_000.0)),
            us => us.map(|us| Timeout::After(Duration::from_micros(us))),
        },
        losses_max: plan.losses_max,
        ..Policy::default()
    }
}

/// Time after which processes are started again that have left, and that the ventilator waits for, in
/// microseconds.
const CALLED_BACK_AFTER_US: u64 = 30_000_000;

/// Time after which a job that was cancelled without an answer is resumed, in microseconds.
const RESUMED_AFTER_US: u64 = 20_000_000;

/// Returns the name of a stage.
pub(crate) fn stage_name(index: usize) -> String {
    format!("stage-{index}")
}

impl World {
    pub(crate) fn kill_ventilator(&mut self, is_silent: bool) {
        if !self.ventilator.is_alive {
            return;
        }
        self.trace.say(self.now, || "the ventilator dies".to_owned());
        self.ventilator.is_alive = false;
        self.abandon(Process::Ventilator, is_silent);
    }

    pub(crate) fn start_ventilator(&mut self) {
        if self.ventilator.is_alive || self.ventilator.has_left {
            return;
        }
        self.trace.say(self.now, || "the ventilator starts again".to_owned());
        self.check.restarted(0);
        let old = &mut self.ventilator;
        let starts = old.starts + 1;
        let seed = self.plan.seed.wrapping_add(starts << 32);
        let mut clock = std::mem::take(&mut old.clock);
        clock.restart();
        let dispatcher = Dispatcher::new(config(&self.plan, seed, Start::Resume));
        let new = Ventilator::new(&self.plan, seed);
        self.ventilator = Ventilator { dispatcher, starts, clock, ..new };
        self.plant_in_ledger(Process::Ventilator);
        self.dial_anew(Route::Job(self.plan.stage(0)));
        self.queue.push(self.now, Event::Input);
        self.seat_again();
        self.call_back();
        self.drive(Process::Ventilator);
    }

    /// Schedules starts of processes that have left, for the case that the ventilator waits for them.
    pub(crate) fn call_back(&mut self) {
        let at = self.now + CALLED_BACK_AFTER_US;
        self.queue.push(at, Event::Revive(Process::Sink));
        for relay in 0..self.relays.len() {
            self.queue.push(at, Event::Revive(Process::Relay(relay)));
        }
    }

    /// Returns whether the ventilator waits for others.
    pub(crate) fn is_waiting(&self) -> bool {
        self.ventilator.is_alive && self.ventilator.dispatcher.ended().is_none()
    }

    /// Workers that have not answered when the ventilator ends the roll call are as good as lost.
    fn watch_roll_call(&mut self, hub: Process) {
        let snapshot = self.dispatcher(hub).snapshot();
        let is_calling = snapshot.is_calling_roll;
        if std::mem::replace(&mut self.hub(hub).was_calling_roll, is_calling) && !is_calling {
            let ready = snapshot.workers.iter().filter(|worker| worker.is_ready);
            let ready: BTreeSet<SessionId> = ready.map(|worker| worker.session).collect();
            for worker in 0..self.workers.len() {
                let is_its = self.workers[worker].stage.hub() == hub;
                if is_its && !ready.contains(&self.workers[worker].session) {
                    self.check.died(worker);
                }
            }
        }
    }

    pub(crate) fn read_input(&mut self) {
        self.ventilator.input_waits = false;
        if self.serve.is_some() {
            return self.read_tasks();
        }
        let mut chunk = self.plan.input_chunk;
        while chunk > 0 && !self.ventilator.input_ended && !self.ventilator.dispatcher.is_stopped()
        {
            let seq = self.ventilator.read;
            let Some(task) = self.plan.tasks.get(seq) else {
                self.ventilator.input_ended = true;
                self.ventilator.dispatcher.handle_input_end();
                break;
            };
            if self.ventilator.dispatcher.input_room() == 0 {
                self.ventilator.input_waits = true;
                break;
            }
            self.ventilator.read += 1;
            self.check.progressed(self.now);
            chunk -= 1;
            if task.fate == Fate::Unfit {
                self.ventilator.dispatcher.handle_unfit_task("unfit".to_owned());
            } else if let Some(limits) = self.plan.own_limits.get(&(seq as u64)) {
                let payload = self.check.payload(seq, 0);
                self.ventilator.dispatcher.handle_task_with(payload, *limits);
            } else {
                self.ventilator.dispatcher.handle_task(self.check.payload(seq, 0));
            }
        }
        if chunk == 0 {
            self.queue.push(self.now + self.plan.input_gap_us, Event::Input);
        }
        self.drive(Process::Ventilator);
    }

    pub(crate) fn drive_ventilator(&mut self) -> Option<Time> {
        let now = self.time_of(Process::Ventilator);
        let Ventilator { farewell, dispatcher, .. } = &mut self.ventilator;
        if farewell.review(now, dispatcher) {
            self.trace.say(self.now, || "the ventilator cancels what nobody finishes".to_owned());
            self.check.cancelled();
        }
        self.drive_hub(Process::Ventilator);
        if self.ventilator.input_waits && self.ventilator.dispatcher.input_room() > 0 {
            self.ventilator.input_waits = false;
            self.queue.push(self.now, Event::Input);
        }
        let Ventilator { farewell, dispatcher, .. } = &self.ventilator;
        if let Some(exit) = farewell.exit(now, dispatcher) {
            self.leave_ventilator(exit);
            return None;
        }
        Some(dispatcher.poll_timeout().min(farewell.poll_timeout()))
    }

    fn leave_ventilator(&mut self, exit: VentilatorExit) {
        self.trace.say(self.now, || format!("the ventilator leaves: {exit:?}"));
        self.check.progressed(self.now);
        self.ventilator.is_alive = false;
        self.abandon(Process::Ventilator, false);
        match exit {
            VentilatorExit::Ended => {
                self.ventilator.has_left = true;
                self.check.left("the ventilator");
            }
            // The job is resumed.
            VentilatorExit::Unanswered => {
                self.queue.push(self.now + RESUMED_AFTER_US, Event::Revive(Process::Ventilator));
            }
        }
    }

    /// Does what a dispatcher says.
    pub(crate) fn drive_hub(&mut self, hub: Process) {
        let now = self.time_of(hub);
        let mut accepts = Accepts::ALL;
        for polls in 0.. {
            if polls == POLLS_MAX {
                self.check.fail(|| "the dispatcher never stops talking".to_owned());
                return;
            }
            let Some(action) = self.dispatcher(hub).poll(now, accepts) else { break };
            // The programs send all messages first. Asking for one again may set another timer.
            accepts.messages = matches!(action, DispatcherAction::Transmit(_));
            match action {
                DispatcherAction::Transmit(transmit) => self.transmit(hub, &transmit),
                DispatcherAction::Notice(notice) => {
                    self.trace.say(self.now, || format!("{hub:?} logs: {notice}"));
                }
                DispatcherAction::Close(lane) => self.close_lane(hub, lane),
            }
        }
        self.watch_roll_call(hub);
    }

    fn transmit(&mut self, hub: Process, transmit: &Transmit) {
        self.trace.say(self.now, || format!("{hub:?} says {transmit:?}"));
        match transmit {
            Transmit::Worker(lane, message) => self.send_to_worker(*lane, message),
            Transmit::Sink(message) => {
                if let Some(id) = self.hub(hub).job {
                    self.send(id, encode(message));
                }
            }
        }
    }

    /// The connections of a process that hands out tasks.
    pub(crate) fn hub(&mut self, process: Process) -> &mut Hub {
        match process {
            Process::Relay(relay) => &mut self.relays[relay].hub,
            _ => &mut self.ventilator.hub,
        }
    }

    /// The machine of a process that hands out tasks.
    pub(crate) fn dispatcher(&mut self, process: Process) -> &mut Dispatcher {
        match process {
            Process::Relay(relay) => self.relays[relay].relay.downstream_mut(),
            _ => &mut self.ventilator.dispatcher,
        }
    }

    fn send_to_worker(&mut self, lane: LaneId, message: &ToWorker) {
        let id = lane.0 as usize;
        let Route::Tasks(worker, stage) = self.connections[id].route else { return };
        if let ToWorker::Tasks { tasks, .. } = message {
            self.check.dispatched(worker, stage.index, &tasks.0);
            if let Some(serve) = &mut self.serve
                && let Err(problem) = serve.account.dispatched(&tasks.0)
            {
                self.check.fail(|| problem);
            }
            let session = self.workers[worker].session;
            let snapshot = self.dispatcher(stage.hub()).snapshot();
            let held = snapshot.workers.iter().find(|worker| worker.session == session);
            self.check.charged(&tasks.0, held.map_or(0, |worker| worker.out_bytes));
        }
        self.send(id, encode(message));
        let seat = self.workers[worker].seat;
        if matches!(message, ToWorker::Tasks { .. }) && self.cuts_due[seat] > 0 {
            self.cuts_due[seat] -= 1;
            self.cut(id);
        }
    }

    /// The dispatcher closes the lane of a worker that it has declared lost, and the older one of
    /// two.
    fn close_lane(&mut self, hub: Process, lane: LaneId) {
        let id = lane.0 as usize;
        let Route::Tasks(worker, _) = self.connections[id].route else { return };
        let session = self.workers[worker].session;
        if self.hub(hub).lanes.get(&session) == Some(&id) {
            self.hub(hub).lanes.remove(&session);
            self.declared_lost(worker);
        }
        if self.is_open(id, End::Sender) {
            self.close(id, End::Sender);
        }
    }

    pub(crate) fn declared_lost(&mut self, worker: usize) {
        self.trace.say(self.now, || format!("worker {worker} is declared lost"));
        let is_needless = self.plan.is_safe && self.workers[worker].is_alive;
        self.check.lost(worker, is_needless);
    }
}

//! Connections: first in, first out, and nothing is lost while they live.

use bytes::Bytes;
use tradewind_proto::LaneId;
use tradewind_proto::limits::HEARTBEAT_INTERVAL;
use tradewind_proto::limits::MESSAGE_BYTES_MAX;
use tradewind_proto::message::{Card, Role, ToSink, ToWorker};
use tradewind_wire::decode;

use crate::event::{ConnectionId, End, Event, Instant, Process, Route};
use crate::mutation::Mutation;
use crate::relay::RelayNode;
use crate::sink::Sink;
use crate::ventilator::Ventilator;
use crate::worker::Worker;
use crate::world::World;

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) route: Route,
    /// Nothing gets through any more.
    is_cut: bool,
    /// By end: it stands, as far as that end knows.
    is_open: [bool; 2],
    /// By end: the process that it belonged to is dead.
    is_orphaned: [bool; 2],
    /// By end: when it was or will be told that it stands.
    opens_at: [Instant; 2],
    last_arrival: Instant,
    /// It has swallowed something: nothing arrives any more.
    is_holed: bool,
}

/// Time after which a packet that is not acknowledged ends its connection.
const UNACKED_US_MAX: u64 = 30_000_000;

impl Route {
    pub(crate) fn at(self, end: End) -> Process {
        match (self, end) {
            (Self::Tasks(worker, _), End::Receiver) | (Self::Results(worker, _), End::Sender) => {
                Process::Worker(worker)
            }
            (Self::Tasks(_, stage) | Self::Job(stage), End::Sender)
            | (Self::Receipts(stage), End::Receiver) => stage.hub(),
            (Self::Results(_, stage) | Self::Job(stage), End::Receiver)
            | (Self::Receipts(stage), End::Sender) => stage.collector(),
        }
    }

    pub(crate) fn dialling_end(self) -> End {
        match self {
            Self::Tasks(..) => End::Receiver,
            Self::Results(..) | Self::Job(_) | Self::Receipts(_) => End::Sender,
        }
    }

    pub(crate) fn dialler(self) -> Process {
        self.at(self.dialling_end())
    }
}

impl End {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Sender => Self::Receiver,
            Self::Receiver => Self::Sender,
        }
    }
}

impl World {
    fn delay(&mut self) -> u64 {
        let (least, most) = self.plan.delay_us;
        let (slow_until, slow_most) = self.slow_network;
        let most = if self.now < slow_until { most.max(slow_most) } else { most };
        self.rng.u64(least..=most)
    }

    fn is_blocked(&self, route: Route) -> bool {
        self.now
            < match route {
                Route::Tasks(worker, _) => self.blocked_tasks[self.workers[worker].seat],
                Route::Results(worker, _) => self.blocked_results[self.workers[worker].seat],
                Route::Job(stage) | Route::Receipts(stage) => self.blocked_trunk[stage.index],
            }
    }

    /// The connection that the dialler of a route has or is about to have.
    fn dialled_mut(&mut self, route: Route) -> &mut Option<ConnectionId> {
        match route {
            Route::Tasks(worker, _) => &mut self.workers[worker].lane,
            Route::Results(worker, _) => &mut self.workers[worker].results,
            Route::Job(stage) => &mut self.hub(stage.hub()).job,
            Route::Receipts(stage) => &mut self.intake(stage.collector()).receipts,
        }
    }

    pub(crate) fn dialled(&mut self, route: Route) -> Option<ConnectionId> {
        *self.dialled_mut(route)
    }

    pub(crate) fn dial(&mut self, route: Route) {
        if self.dialled(route).is_some() || self.given_up.contains(&route) {
            return;
        }
        let listener = route.at(route.dialling_end().other());
        if self.is_blocked(route) || !self.is_alive(listener) {
            if self.is_dialled_in_vain(route) {
                self.give_up(route);
            } else {
                self.dial_later(route);
            }
            return;
        }
        self.dialling.retain(|(dialled, _)| *dialled != route);
        let id = self.connections.len();
        let opens_at = [self.now + self.delay(), self.now + self.delay()];
        self.connections.push(Connection {
            route,
            is_cut: false,
            is_open: [false; 2],
            is_orphaned: [false; 2],
            opens_at,
            last_arrival: 0,
            is_holed: false,
        });
        *self.dialled_mut(route) = Some(id);
        self.queue.push(opens_at[End::Sender as usize], Event::Opened(id, End::Sender));
        self.queue.push(opens_at[End::Receiver as usize], Event::Opened(id, End::Receiver));
    }

    /// A process that has just started dials, whatever the one before had.
    pub(crate) fn dial_anew(&mut self, route: Route) {
        *self.dialled_mut(route) = None;
        self.dialling.retain(|(dialled, _)| *dialled != route);
        self.given_up.retain(|given_up| *given_up != route);
        self.dial_later(route);
    }

    /// Has the time passed in which a peer is to be reached?
    fn is_dialled_in_vain(&mut self, route: Route) -> bool {
        let Some(timeout) = self.plan.connect_timeout_us else { return false };
        match self.dialling.iter().find(|(dialled, _)| *dialled == route) {
            Some((_, since)) => self.now >= since + timeout,
            None => {
                self.dialling.push((route, self.now));
                false
            }
        }
    }

    /// A peer is not dialled any more: a process that cannot do without ends, and is started again.
    fn give_up(&mut self, route: Route) {
        self.given_up.push(route);
        let process = route.dialler();
        self.trace.say(self.now, || format!("{process:?} gives up {route:?}"));
        let (can_do_without, is_over) = self.tell_given_up(process, route);
        if can_do_without && self.mutation != Some(Mutation::ReportTimeout) {
            self.drive(process);
            return;
        }
        if is_over {
            self.check.fail(|| format!("{process:?} reports a time-out instead of the end"));
        }
        match process {
            Process::Ventilator => self.kill_ventilator(false),
            Process::Relay(relay) => self.kill_relay(relay, false),
            Process::Sink => self.kill_sink(false),
            Process::Worker(worker) => {
                let seat = self.workers[worker].seat;
                self.kill(worker, false);
                return self.seat_if_needed(seat);
            }
        }
        self.queue.push(self.now + 1_000_000, Event::Revive(process));
    }

    /// Returns what the rules of leaving say: whether the process can do without, and whether what it
    /// would say is the end of the job.
    fn tell_given_up(&mut self, process: Process, route: Route) -> (bool, bool) {
        match process {
            Process::Ventilator => {
                let Ventilator { farewell, dispatcher, .. } = &mut self.ventilator;
                let is_over = dispatcher.ended().is_some();
                (farewell.handle_sink_given_up(dispatcher), is_over)
            }
            Process::Relay(relay) => {
                let RelayNode { farewell, relay, .. } = &mut self.relays[relay];
                let is_ended = relay.downstream().ended().is_some();
                if matches!(route, Route::Job(_)) {
                    (farewell.handle_sink_given_up(relay), is_ended)
                } else {
                    let is_over = relay.is_all_stored() || is_ended;
                    (farewell.handle_ventilator_given_up(relay), is_over)
                }
            }
            Process::Sink => {
                let Sink { farewell, collector, .. } = &mut self.sink;
                let is_over = collector.is_all_stored();
                (farewell.handle_ventilator_given_up(collector), is_over)
            }
            Process::Worker(worker) => {
                let Worker { farewell, executor, .. } = &mut self.workers[worker];
                let is_over = executor.is_draining();
                (farewell.handle_peer_given_up(executor), is_over)
            }
        }
    }

    fn dial_later(&mut self, route: Route) {
        let backoff = self.rng.u64(5_000..1_000_000);
        self.queue.push(self.now + backoff, Event::Dial(route));
    }

    pub(crate) fn is_open(&self, id: ConnectionId, end: End) -> bool {
        self.connections[id].is_open[end as usize]
    }

    pub(crate) fn handle_opened(&mut self, id: ConnectionId, end: End) {
        let route = self.connections[id].route;
        if self.connections[id].is_orphaned[end as usize] {
            return;
        }
        self.connections[id].is_open[end as usize] = true;
        let process = route.at(end);
        let now = self.time_of(process);
        match (route, end) {
            (Route::Tasks(worker, _), End::Sender) => {
                let worker = &self.workers[worker];
                let session = worker.session;
                let card = Card {
                    role: Role::Worker,
                    session,
                    slots: worker.slots,
                    message_bytes_max: MESSAGE_BYTES_MAX,
                    name: worker.name(),
                    queue: String::new(),
                };
                let card = tradewind_wire::decode(&tradewind_wire::encode(&card))
                    .expect("an honest card decodes");
                self.hub(process).lanes.insert(session, id);
                let lane = LaneId(id as u64);
                self.dispatcher(process).handle_lane_opened(now, lane, &card);
            }
            (Route::Tasks(worker, _), End::Receiver) => {
                self.workers[worker].farewell.handle_ventilator_connected();
                self.repeat_tasks(worker);
            }
            (Route::Results(worker, _), End::Sender) => {
                let is_first = !std::mem::replace(&mut self.workers[worker].was_connected, true);
                if is_first || self.mutation != Some(Mutation::ForgetSinkConnected) {
                    self.workers[worker].executor.handle_sink_connected();
                }
                self.workers[worker].farewell.handle_sink_connected();
            }
            (Route::Results(worker, _), End::Receiver) => {
                let worker = &self.workers[worker];
                let (session, name) = (worker.session, worker.name());
                self.intake(process).workers.insert(session, id);
                self.collector(process).handle_worker_connected(session, &name);
            }
            (Route::Job(_), End::Sender) => {
                let was_connected = &mut self.hub(process).was_connected;
                let is_first = !std::mem::replace(was_connected, true);
                if is_first || self.mutation != Some(Mutation::ForgetJobConnected) {
                    self.dispatcher(process).handle_sink_connected();
                }
            }
            (Route::Job(_), End::Receiver) => {
                self.intake(process).ventilators.insert(id);
                match process {
                    Process::Relay(relay) => {
                        self.relays[relay].farewell.handle_ventilator_connected();
                    }
                    _ => self.sink.farewell.handle_ventilator_connected(),
                }
            }
            (Route::Receipts(_), End::Sender) => {
                self.collector(process).handle_ventilator_connected();
            }
            (Route::Receipts(_), End::Receiver) => {
                self.hub(process).receipts = Some(id);
                self.dispatcher(process).handle_receipts_connected(now);
            }
        }
        self.drive(process);
    }

    /// An end learns of the end of its connection. What is known of a newer connection stays as
    /// it is.
    pub(crate) fn handle_gone(&mut self, id: ConnectionId, end: End) {
        let route = self.connections[id].route;
        if self.connections[id].is_orphaned[end as usize] {
            return;
        }
        self.connections[id].is_open[end as usize] = false;
        let process = route.at(end);
        let now = self.time_of(process);
        if end == route.dialling_end() {
            if self.dialled(route) != Some(id) {
                return;
            }
            *self.dialled_mut(route) = None;
            self.dial_later(route);
        }
        match (route, end) {
            (Route::Tasks(worker, _), End::Sender) => {
                let session = self.workers[worker].session;
                if self.hub(process).lanes.get(&session) == Some(&id) {
                    self.hub(process).lanes.remove(&session);
                    self.declared_lost(worker);
                }
                if self.mutation != Some(Mutation::ForgetLoss) {
                    self.dispatcher(process).handle_lane_gone(LaneId(id as u64));
                }
            }
            (Route::Tasks(worker, _), End::Receiver) => {
                self.workers[worker].farewell.handle_ventilator_disconnected();
            }
            (Route::Job(_), End::Receiver) => {
                self.intake(process).ventilators.remove(&id);
            }
            (Route::Results(worker, _), End::Sender) => {
                self.workers[worker].farewell.handle_sink_disconnected();
                self.workers[worker].executor.handle_sink_disconnected();
            }
            (Route::Results(worker, _), End::Receiver) => {
                let session = self.workers[worker].session;
                if self.intake(process).workers.get(&session) == Some(&id) {
                    self.intake(process).workers.remove(&session);
                    self.collector(process).handle_worker_disconnected(session);
                }
            }
            (Route::Job(_), End::Sender) => self.dispatcher(process).handle_sink_disconnected(),
            (Route::Receipts(_), End::Sender) => {
                self.collector(process).handle_ventilator_disconnected();
            }
            (Route::Receipts(_), End::Receiver) => {
                if self.hub(process).receipts == Some(id) {
                    self.hub(process).receipts = None;
                    self.dispatcher(process).handle_receipts_disconnected(now);
                }
            }
        }
        self.drive(process);
    }

    pub(crate) fn send(&mut self, id: ConnectionId, frame: Bytes) {
        let delay = self.delay();
        let connection = &mut self.connections[id];
        if connection.is_cut || !connection.is_open[End::Sender as usize] {
            return;
        }
        let at = (self.now + delay)
            .max(connection.last_arrival + 1)
            .max(connection.opens_at[End::Receiver as usize] + 1);
        // What is sent on a slow link waits for what was sent before, and bytes of it arrive all the
        // time.
        let (began, at) = match (connection.route, self.plan.result_rate) {
            (Route::Results(..), Some(rate)) => {
                let began = connection.last_arrival.max(self.now);
                (began, at + frame.len() as u64 * 1_000_000 / rate)
            }
            _ => (at, at),
        };
        connection.last_arrival = at;
        let beat = HEARTBEAT_INTERVAL.as_micros() as u64;
        for second in 1..=(at - began) / beat {
            self.queue.push(began + second * beat, Event::Trickled(id));
        }
        self.queue.push(at, Event::Arrived(id, frame));
    }

    /// The shell sees bytes of a message that is not complete yet.
    pub(crate) fn handle_trickled(&mut self, id: ConnectionId) {
        let connection = &self.connections[id];
        let Route::Results(worker, _) = connection.route else { return };
        let is_dead = connection.is_cut || !connection.is_open[End::Receiver as usize];
        if is_dead || self.mutation == Some(Mutation::ForgetAlive) {
            return;
        }
        let process = connection.route.at(End::Receiver);
        let session = self.workers[worker].session;
        self.workers[worker].sent_bytes += self.plan.result_rate.unwrap_or(0);
        self.collector(process).handle_alive(session);
        self.drive(process);
    }

    /// Another sink connects where one is. It is refused as long as that one stands.
    pub(crate) fn connect_second_sink(&mut self, stage: usize) {
        let hub = self.plan.stage(stage).hub();
        if self.mutation == Some(Mutation::NewestSink) && self.is_alive(hub) {
            let now = self.time_of(hub);
            self.hub(hub).receipts = None;
            self.dispatcher(hub).handle_receipts_disconnected(now);
            self.dispatcher(hub).handle_receipts_connected(now);
            self.hub(hub).is_taken = true;
        }
    }

    pub(crate) fn handle_arrived(&mut self, id: ConnectionId, frame: &Bytes) {
        let connection = &self.connections[id];
        if connection.is_cut || !connection.is_open[End::Receiver as usize] {
            return;
        }
        let route = connection.route;
        if self.is_dropped(route, frame) || self.is_swallowed(id, frame) || self.is_from_second(id)
        {
            return;
        }
        if let Route::Tasks(worker, _) = route
            && self.mutation == Some(Mutation::RepeatTasks)
            && self.workers[worker].repeated.is_none()
            && frame.get(2) == Some(&1)
        {
            self.workers[worker].repeated = Some(frame.clone());
        }
        self.deliver(route.at(End::Receiver), frame);
    }

    fn is_swallowed(&mut self, id: ConnectionId, frame: &Bytes) -> bool {
        let Route::Tasks(worker, _) = self.connections[id].route else { return false };
        let (until, bytes) = self.holes[self.workers[worker].seat];
        if self.connections[id].is_holed {
            return true;
        }
        let is_swallowed = self.now < until && frame.len() > bytes;
        if is_swallowed {
            self.connections[id].is_holed = true;
            // It is never acknowledged: the kernels give up in the end.
            for end in [End::Sender, End::Receiver] {
                self.tell_gone(id, end, self.now + UNACKED_US_MAX);
            }
        }
        is_swallowed
    }

    /// For [`Mutation::NewestSink`]: the first one is not listened to any more.
    fn is_from_second(&mut self, id: ConnectionId) -> bool {
        let route = self.connections[id].route;
        matches!(route, Route::Receipts(_)) && self.hub(route.at(End::Receiver)).is_taken
    }

    /// For the planted bugs that lose a frame: the third byte says which message it is.
    fn is_dropped(&mut self, route: Route, frame: &Bytes) -> bool {
        match self.mutation {
            Some(Mutation::DropReceipt) => {
                matches!(route, Route::Receipts(_))
                    && frame.get(2) == Some(&1)
                    && self.rng.u8(0..50) == 0
            }
            Some(Mutation::DropTasks) => {
                matches!(route, Route::Tasks(..))
                    && frame.get(2) == Some(&1)
                    && self.rng.u8(0..50) == 0
            }
            Some(Mutation::ForgetRecall) => {
                matches!(route, Route::Tasks(..))
                    && matches!(decode(frame), Ok(ToWorker::Recall { .. }))
            }
            Some(Mutation::DropPassed) => {
                matches!(route, Route::Job(_))
                    && matches!(decode(frame), Ok(ToSink::Forwarded { .. }))
                    && self.rng.u8(0..20) == 0
            }
            _ => false,
        }
    }

    fn repeat_tasks(&mut self, worker: usize) {
        if let Some(frame) = self.workers[worker].repeated.take() {
            self.deliver(Process::Worker(worker), &frame);
        }
    }

    /// Nothing gets through any more, and each end learns of it in its own time.
    pub(crate) fn cut(&mut self, id: ConnectionId) {
        let connection = &mut self.connections[id];
        if connection.is_cut {
            return;
        }
        connection.is_cut = true;
        for end in [End::Sender, End::Receiver] {
            let notices = self.rng.u64(0..=self.plan.notice_us_max);
            self.tell_gone(id, end, self.now + notices);
        }
    }

    fn tell_gone(&mut self, id: ConnectionId, end: End, at: Instant) {
        let at = at.max(self.connections[id].opens_at[end as usize] + 1);
        self.queue.push(at, Event::Gone(id, end));
    }

    /// One end closes. What a sender has sent still arrives, what a receiver has not read is lost.
    pub(crate) fn close(&mut self, id: ConnectionId, end: End) {
        let delay = self.delay();
        let connection = &mut self.connections[id];
        connection.is_open[end as usize] = false;
        if connection.is_cut {
            return;
        }
        match end {
            End::Receiver => {
                connection.is_cut = true;
                self.tell_gone(id, End::Sender, self.now + delay);
            }
            // That it is closed is swallowed too.
            End::Sender if connection.is_holed => {}
            End::Sender => {
                let at = (self.now + delay).max(connection.last_arrival + 1);
                connection.last_arrival = at;
                self.tell_gone(id, End::Receiver, at);
            }
        }
    }

    /// Ends a process's connections as it dies: its kernel closes them, or they are not closed at all.
    pub(crate) fn abandon(&mut self, process: Process, is_silent: bool) {
        for id in 0..self.connections.len() {
            let route = self.connections[id].route;
            for end in [End::Sender, End::Receiver] {
                if route.at(end) != process || self.connections[id].is_orphaned[end as usize] {
                    continue;
                }
                self.connections[id].is_orphaned[end as usize] = true;
                if self.connections[id].is_cut {
                    continue;
                }
                if !is_silent {
                    self.close(id, end);
                    continue;
                }
                self.connections[id].is_cut = true;
                self.connections[id].is_open[end as usize] = false;
                let notices = self.rng.u64(0..=self.plan.notice_us_max);
                self.tell_gone(id, end.other(), self.now + notices);
            }
        }
    }
}

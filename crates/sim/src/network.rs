//! Connections: first in, first out, and nothing is lost while they live.

use bytes::Bytes;
use tradewind_proto::LaneId;
use tradewind_proto::message::{Card, Role};

use crate::event::{ConnectionId, End, Event, Instant, Process, Route};
use crate::mutation::Mutation;
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
}

impl Route {
    pub(crate) fn at(self, end: End) -> Process {
        match (self, end) {
            (Self::Tasks(worker), End::Receiver) | (Self::Results(worker), End::Sender) => {
                Process::Worker(worker)
            }
            (Self::Tasks(_) | Self::Job, End::Sender) | (Self::Receipts, End::Receiver) => {
                Process::Ventilator
            }
            (Self::Results(_) | Self::Job, End::Receiver) | (Self::Receipts, End::Sender) => {
                Process::Sink
            }
        }
    }

    pub(crate) fn dialling_end(self) -> End {
        match self {
            Self::Tasks(_) => End::Receiver,
            Self::Results(_) | Self::Job | Self::Receipts => End::Sender,
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
                Route::Tasks(worker) => self.blocked_tasks[self.workers[worker].seat],
                Route::Results(worker) => self.blocked_results[self.workers[worker].seat],
                Route::Job | Route::Receipts => self.blocked_trunk,
            }
    }

    /// The connection that the dialler of a route has or is about to have.
    fn dialled_mut(&mut self, route: Route) -> &mut Option<ConnectionId> {
        match route {
            Route::Tasks(worker) => &mut self.workers[worker].lane,
            Route::Results(worker) => &mut self.workers[worker].results,
            Route::Job => &mut self.ventilator.job,
            Route::Receipts => &mut self.sink.receipts,
        }
    }

    pub(crate) fn dialled(&mut self, route: Route) -> Option<ConnectionId> {
        *self.dialled_mut(route)
    }

    pub(crate) fn dial(&mut self, route: Route) {
        if self.dialled(route).is_some() {
            return;
        }
        let listener = route.at(route.dialling_end().other());
        if self.is_blocked(route) || !self.is_alive(listener) {
            self.dial_later(route);
            return;
        }
        let id = self.connections.len();
        let opens_at = [self.now + self.delay(), self.now + self.delay()];
        self.connections.push(Connection {
            route,
            is_cut: false,
            is_open: [false; 2],
            is_orphaned: [false; 2],
            opens_at,
            last_arrival: 0,
        });
        *self.dialled_mut(route) = Some(id);
        self.queue.push(opens_at[End::Sender as usize], Event::Opened(id, End::Sender));
        self.queue.push(opens_at[End::Receiver as usize], Event::Opened(id, End::Receiver));
    }

    /// A process that has just started dials, whatever the one before had.
    pub(crate) fn dial_anew(&mut self, route: Route) {
        *self.dialled_mut(route) = None;
        self.dial_later(route);
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
            (Route::Tasks(worker), End::Sender) => {
                let worker = &self.workers[worker];
                let card = Card {
                    role: Role::Worker,
                    session: worker.session,
                    slots: worker.slots,
                    name: worker.name(),
                };
                let card = tradewind_wire::decode(&tradewind_wire::encode(&card))
                    .expect("an honest card decodes");
                self.ventilator.lanes.insert(worker.session, id);
                let lane = LaneId(id as u64);
                self.ventilator.dispatcher.handle_lane_opened(now, lane, &card);
            }
            (Route::Tasks(worker), End::Receiver) => self.repeat_tasks(worker),
            (Route::Results(worker), End::Sender) => {
                let is_first = !std::mem::replace(&mut self.workers[worker].was_connected, true);
                if is_first || self.mutation != Some(Mutation::ForgetSinkConnected) {
                    self.workers[worker].executor.handle_sink_connected();
                }
            }
            (Route::Results(worker), End::Receiver) => {
                let worker = &self.workers[worker];
                self.sink.workers.insert(worker.session, id);
                self.sink.collector.handle_worker_connected(worker.session, &worker.name());
            }
            (Route::Job, End::Sender) => {
                let is_first = !std::mem::replace(&mut self.ventilator.was_connected, true);
                if is_first || self.mutation != Some(Mutation::ForgetJobConnected) {
                    self.ventilator.dispatcher.handle_sink_connected();
                }
            }
            (Route::Job, End::Receiver) => {}
            (Route::Receipts, End::Sender) => self.sink.collector.handle_ventilator_connected(),
            (Route::Receipts, End::Receiver) => {
                self.ventilator.receipts = Some(id);
                self.ventilator.dispatcher.handle_receipts_connected(now);
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
            (Route::Tasks(worker), End::Sender) => {
                let session = self.workers[worker].session;
                if self.ventilator.lanes.get(&session) == Some(&id) {
                    self.ventilator.lanes.remove(&session);
                    self.declared_lost(worker);
                }
                if self.mutation != Some(Mutation::ForgetLoss) {
                    self.ventilator.dispatcher.handle_lane_gone(LaneId(id as u64));
                }
            }
            (Route::Tasks(_), End::Receiver) | (Route::Job, End::Receiver) => {}
            (Route::Results(worker), End::Sender) => {
                self.workers[worker].executor.handle_sink_disconnected();
            }
            (Route::Results(worker), End::Receiver) => {
                let session = self.workers[worker].session;
                if self.sink.workers.get(&session) == Some(&id) {
                    self.sink.workers.remove(&session);
                    self.sink.collector.handle_worker_disconnected(session);
                }
            }
            (Route::Job, End::Sender) => self.ventilator.dispatcher.handle_sink_disconnected(),
            (Route::Receipts, End::Sender) => self.sink.collector.handle_ventilator_disconnected(),
            (Route::Receipts, End::Receiver) => {
                if self.ventilator.receipts == Some(id) {
                    self.ventilator.receipts = None;
                    self.ventilator.dispatcher.handle_receipts_disconnected(now);
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
        connection.last_arrival = at;
        self.queue.push(at, Event::Arrived(id, frame));
    }

    pub(crate) fn handle_arrived(&mut self, id: ConnectionId, frame: &Bytes) {
        let connection = &self.connections[id];
        if connection.is_cut || !connection.is_open[End::Receiver as usize] {
            return;
        }
        let route = connection.route;
        if self.is_dropped(route, frame) {
            return;
        }
        if let Route::Tasks(worker) = route
            && self.mutation == Some(Mutation::RepeatTasks)
            && self.workers[worker].repeated.is_none()
            && frame.get(2) == Some(&1)
        {
            self.workers[worker].repeated = Some(frame.clone());
        }
        self.deliver(route.at(End::Receiver), frame);
    }

    /// For the planted bugs that lose a frame: the third byte says which message it is.
    fn is_dropped(&mut self, route: Route, frame: &Bytes) -> bool {
        match self.mutation {
            Some(Mutation::DropReceipt) => {
                route == Route::Receipts && frame.get(2) == Some(&1) && self.rng.u8(0..50) == 0
            }
            Some(Mutation::DropTasks) => {
                matches!(route, Route::Tasks(_))
                    && frame.get(2) == Some(&1)
                    && self.rng.u8(0..50) == 0
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
            End::Sender => {
                let at = (self.now + delay).max(connection.last_arrival + 1);
                connection.last_arrival = at;
                self.tell_gone(id, End::Receiver, at);
            }
        }
    }

    /// A process dies: its kernel closes for it, or nobody does.
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

//! Processes of a ring that come and go, and the connections between them.

use tradewind_proto::collector::Order;
use tradewind_proto::dispatcher::{Dispatcher, DispatcherConfig};
use tradewind_proto::executor::Executor;
use tradewind_proto::limits::MESSAGE_BYTES_MAX;
use tradewind_proto::message::{self, Card, Role};
use tradewind_proto::relay::Relay;
use tradewind_proto::{JobId, LaneId, Seq, SessionId};

use crate::ring::{JOB, Ring, config, relay_config};
use crate::worker::{Ends, Worker};

impl Ring {
    /// Connects a new worker, whose id is its session and its lane.
    pub fn join(&mut self, id: u64, slots: u32) {
        self.join_as(&card(id, slots), 0, Ends::by_test());
    }

    /// Connects a new worker that takes messages of at most this number of bytes.
    pub fn join_with(&mut self, id: u64, slots: u32, message_bytes_max: u64) {
        self.join_as(&Card { message_bytes_max, ..card(id, slots) }, 0, Ends::by_test());
    }

    /// Connects a new worker of a stage, counted from 0, whose tasks end by a rule.
    pub fn join_stage(&mut self, stage: usize, id: u64, slots: u32, ends: Ends) {
        self.join_as(&card(id, slots), stage, ends);
    }

    fn join_as(&mut self, card: &Card, stage: usize, ends: Ends) {
        let mut executor = Executor::new(card.session, card.slots);
        executor.handle_sink_connected();
        self.collector_of(stage).handle_worker_connected(card.session, &card.name);
        let id = card.session.0;
        self.workers.insert(id, Worker { ends, ..Worker::new(executor, stage) });
        let now = self.now;
        self.dispatcher_of(stage).handle_lane_opened(now, LaneId(id), card);
        self.settle();
    }

    /// Kills a worker, and closes its lanes.
    pub fn kill(&mut self, id: u64) {
        let Some(Worker { stage, .. }) = self.workers.remove(&id) else { return };
        self.collector_of(stage).handle_worker_disconnected(SessionId(id));
        self.dispatcher_of(stage).handle_lane_gone(LaneId(id));
        self.settle();
    }

    /// Kills the sink, and starts another one with the records that are in the output.
    pub fn restart_sink(&mut self, order: Order) {
        let last = self.relays.len();
        self.disconnect_collector(last);
        self.sink.restart(order);
        self.connect_collector(last);
        self.settle();
    }

    /// Kills a relay, and starts another one.
    pub fn restart_relay(&mut self, relay: usize, stage: &str) {
        self.disconnect_collector(relay);
        self.collector_of(relay + 1).handle_ventilator_disconnected();
        self.relays[relay] = Relay::new(relay_config(self.relay_starts, stage));
        self.relay_starts += 1;
        self.connect_collector(relay);
        self.connect_stage(relay + 1);
        for id in self.ids_in(relay + 1) {
            self.open_lane(id);
        }
        self.settle();
    }

    /// Tells a stage's ventilator and workers that what collects their results is gone.
    fn disconnect_collector(&mut self, stage: usize) {
        for id in self.ids_in(stage) {
            self.worker(id).executor.handle_sink_disconnected();
        }
        self.disconnect_dispatcher(stage);
    }

    /// Connects a stage's ventilator and workers to what collects their results.
    fn connect_collector(&mut self, stage: usize) {
        for id in self.ids_in(stage) {
            self.collector_of(stage).handle_worker_connected(SessionId(id), &name(id));
            self.worker(id).executor.handle_sink_connected();
        }
        self.connect_stage(stage);
    }

    fn disconnect_dispatcher(&mut self, stage: usize) {
        let now = self.now;
        let dispatcher = self.dispatcher_of(stage);
        dispatcher.handle_sink_disconnected();
        dispatcher.handle_receipts_disconnected(now);
    }

    /// Connects what dispatches the tasks of a stage with what collects its results.
    pub(crate) fn connect_stage(&mut self, stage: usize) {
        let now = self.now;
        self.dispatcher_of(stage).handle_receipts_connected(now);
        self.collector_of(stage).handle_ventilator_connected();
        self.dispatcher_of(stage).handle_sink_connected();
    }

    /// Ends the connections to and from the ventilator, or the last relay, at the sink. Messages on their
    /// way are lost.
    pub fn cut_sink_off(&mut self) {
        let last = self.relays.len();
        self.disconnect_dispatcher(last);
        self.collector_of(last).handle_ventilator_disconnected();
        self.settle();
    }

    /// Connects the ventilator, or the last relay, and the sink again.
    pub fn connect_sink(&mut self) {
        self.connect_stage(self.relays.len());
        self.settle();
    }

    /// Kills the ventilator, and starts another one that has read no input. Workers connect to it when
    /// they [rejoin](Self::rejoin).
    pub fn restart_ventilator(&mut self, start: message::Start) {
        self.restart_ventilator_at(start, 0);
    }

    /// Kills the ventilator, and starts another one whose input begins with this seq.
    pub fn restart_ventilator_at(&mut self, start: message::Start, first: u64) {
        self.replace_ventilator(start, first);
        self.collector_of(0).handle_ventilator_disconnected();
        self.connect_stage(0);
        self.settle();
    }

    /// Kills the ventilator, and starts another one, which knows the id of the job by itself.
    pub fn restart_own_ventilator(&mut self, first: u64) {
        let config = DispatcherConfig { start: message::Start::Resume, ..config(JOB) };
        self.dispatcher = Dispatcher::new(config).with_own_job().with_first(Seq(first));
        self.collector_of(0).handle_ventilator_disconnected();
        self.connect_stage(0);
        self.settle();
    }

    /// Kills sink and ventilator of a job of one stage, and starts others. The ventilator's input begins with this
    /// seq.
    pub fn restart_both_at(&mut self, order: Order, start: message::Start, first: u64) {
        self.disconnect_collector(0);
        self.sink.restart(order);
        self.replace_ventilator(start, first);
        self.connect_collector(0);
        self.settle();
    }

    fn replace_ventilator(&mut self, start: message::Start, first: u64) {
        let job = JobId(JOB.0 + self.ventilators);
        self.ventilators += 1;
        let config = DispatcherConfig { start, ..config(job) };
        self.dispatcher = Dispatcher::new(config).with_first(Seq(first));
    }

    /// Connects a worker to a ventilator that was restarted.
    pub fn rejoin(&mut self, id: u64, slots: u32) {
        let now = self.now;
        self.dispatcher.handle_lane_opened(now, LaneId(id), &card(id, slots));
        self.settle();
    }

    fn open_lane(&mut self, id: u64) {
        let (now, Worker { stage, executor, .. }) = (self.now, self.worker(id));
        let (stage, slots) = (*stage, executor.snapshot().slots);
        self.dispatcher_of(stage).handle_lane_opened(now, LaneId(id), &card(id, slots));
    }

    /// Returns the ids of a stage's workers.
    fn ids_in(&self, stage: usize) -> Vec<u64> {
        let workers = self.workers.iter().filter(|(_, worker)| worker.stage == stage);
        workers.map(|(id, _)| *id).collect()
    }
}

fn card(id: u64, slots: u32) -> Card {
    let (role, session, name) = (Role::Worker, SessionId(id), name(id));
    let queue = String::new();
    Card { role, session, slots, message_bytes_max: MESSAGE_BYTES_MAX, name, queue }
}

fn name(id: u64) -> String {
    format!("w{id}")
}

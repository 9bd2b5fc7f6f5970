//! The connections of a process that collects results: a sink, or a relay from the earlier stage.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tradewind_lanes::{Closer, Dialler, PeerAddr, PeerHost, PullGate, PushLane, Sparing, Traffic};
use tradewind_proto::collector::Collector;
use tradewind_proto::limits::{HEARTBEAT_INTERVAL, LINGER};
use tradewind_proto::message::{Role, ToSink};
use tradewind_proto::{SessionId, Time};

use crate::arrivals::Arrivals;
use crate::counterpart::{Admission, Counterpart, Verdict};
use crate::links::{
    BREACH_LINES_MAX, Conn, GaveUp, Inward, Outward, keep_outward, send, serve_inward,
};
use crate::peers::Peers;
use tradewind_system::Clock;

/// Event on these connections.
pub enum UpstreamEvent {
    /// Event at the port for results.
    Results(Inward<ToSink>),
    /// Event of the connection to the ventilator.
    Receipts(Outward),
}

/// The connections that stand.
pub struct Upstream {
    clock: Clock,
    peers: Peers,
    callers: BTreeMap<Conn, Caller>,
    /// Decides which of the calling ventilators is ours.
    counterpart: Counterpart<ToSink>,
    receipts: Option<(Conn, PushLane)>,
    /// Address of the ventilator when it last answered.
    ventilator_addr: Option<PeerAddr>,
    heard: VecDeque<Heard>,
    refused: Sparing<()>,
    breaches: Sparing<PeerHost>,
    checked: Option<Time>,
    /// The warning was given that the ventilator does not take what it is told.
    is_congested: bool,
}

struct Caller {
    role: Role,
    session: SessionId,
    closer: Closer,
    traffic: Arc<Traffic>,
    arrivals: Arrivals,
    /// Name of the process, and of its connection.
    name: String,
    addr: PeerAddr,
    /// Number of messages that it may not send.
    breaches: u32,
}

/// Number of messages that a peer may not send after which its connection is closed.
const BREACHES_MAX: u32 = 3;

/// Result of an event beyond the state of a connection.
#[derive(Debug)]
pub enum Heard {
    /// A message that its sender may send.
    Message(ToSink),
    /// A ventilator's connection to this process stands.
    VentilatorConnected,
    /// The connection to the ventilator is gone.
    VentilatorGone,
}

/// Bytes for the ventilator that it has not taken, beyond which no more is heard of others until it has taken half
/// of them.
pub const UNTAKEN_BYTES_MAX: u64 = 32 << 20;

impl Upstream {
    /// Creates the set without any connection.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            peers: Peers::default(),
            callers: BTreeMap::new(),
            counterpart: Counterpart::default(),
            receipts: None,
            ventilator_addr: None,
            heard: VecDeque::new(),
            refused: Sparing::default(),
            breaches: Sparing::new(BREACH_LINES_MAX),
            checked: None,
            is_congested: false,
        }
    }

    /// Listens for results and for the ventilator, and keeps up a connection for receipts to it.
    pub fn serve<E>(
        results: PullGate,
        ventilator: Dialler,
        connect_timeout: Option<Duration>,
        events: &mpsc::Sender<E>,
    ) where
        E: From<UpstreamEvent> + Send + 'static,
    {
        serve_inward(results, events.clone(), |event| E::from(UpstreamEvent::Results(event)));
        keep_outward(ventilator, connect_timeout, events.clone(), |event| {
            E::from(UpstreamEvent::Receipts(event))
        });
    }

    /// Reports a connection's change to the collector. Messages come from
    /// [`poll_heard`](Self::poll_heard).
    ///
    /// # Errors
    /// When the ventilator is given up.
    pub fn handle_event(
        &mut self,
        now: Time,
        collector: &mut Collector,
        event: UpstreamEvent,
    ) -> Result<(), GaveUp> {
        match event {
            UpstreamEvent::Results(Inward::Up { conn, card, closer, traffic, addr }) => {
                tracing::debug!(role = ?card.role, name = card.name, "peer joins");
                if self.peers.add(conn, &card) {
                    collector.handle_worker_connected(card.session, &card.name);
                }
                let (role, session) = (card.role, card.session);
                let (name, arrivals, breaches) = (card.name, Arrivals::default(), 0);
                let caller =
                    Caller { role, session, closer, traffic, arrivals, name, addr, breaches };
                self.callers.insert(conn, caller);
                if role == Role::Ventilator {
                    self.heard.push_back(Heard::VentilatorConnected);
                    match self.counterpart.handle_caller(now, conn, session) {
                        Verdict::Stay => {}
                        Verdict::Refuse => self.refuse(now, conn),
                        Verdict::Ask => {
                            // The link is dialled again as soon as its lane is gone.
                            self.receipts = None;
                            collector.handle_ventilator_disconnected();
                        }
                    }
                }
            }
            UpstreamEvent::Results(Inward::Message { conn, message, weight }) => {
                if let Some(caller) = self.callers.get_mut(&conn) {
                    caller.arrivals.handle_message();
                }
                if !self.peers.may_say(conn, &message) {
                    self.handle_breach(now, collector, conn);
                } else if self.callers.get(&conn).is_some_and(|it| it.role == Role::Ventilator) {
                    match self.counterpart.handle_message(now, conn, message, weight.bytes) {
                        Admission::Taken(message) => self.heard.push_back(Heard::Message(message)),
                        Admission::Held => {}
                        Admission::TooMuch => self.refuse(now, conn),
                    }
                } else {
                    self.heard.push_back(Heard::Message(message));
                }
            }
            UpstreamEvent::Results(Inward::Down { conn }) => self.forget(collector, conn),
            UpstreamEvent::Receipts(Outward::Up { conn, card, lane }) => {
                self.ventilator_addr = Some(lane.peer_addr().clone());
                self.receipts = Some((conn, lane));
                collector.handle_ventilator_connected();
                let (held, others) = self.counterpart.handle_answer(now, card.session);
                others.into_iter().for_each(|conn| self.refuse(now, conn));
                self.heard.extend(held.into_iter().map(|(_, message)| Heard::Message(message)));
            }
            UpstreamEvent::Receipts(Outward::Down { conn, reason }) => {
                if self.receipts.as_ref().is_some_and(|(current, _)| *current == conn) {
                    tracing::info!(%reason, "lost the connection to the ventilator");
                    self.receipts = None;
                    self.counterpart.handle_no_answer();
                    collector.handle_ventilator_disconnected();
                    self.heard.push_back(Heard::VentilatorGone);
                }
            }
            UpstreamEvent::Results(Inward::GaveUp(gave_up))
            | UpstreamEvent::Receipts(Outward::GaveUp(gave_up)) => return Err(gave_up),
        }
        Ok(())
    }

    /// Returns the next message.
    pub fn poll_heard(&mut self) -> Option<Heard> {
        self.heard.pop_front()
    }

    fn forget(&mut self, collector: &mut Collector, conn: Conn) {
        self.callers.remove(&conn);
        self.counterpart.handle_gone(conn);
        if let Some(session) = self.peers.remove(conn) {
            collector.handle_worker_disconnected(session);
        }
    }

    /// Ignores a message that its sender may not send, as in the name of another session. An honest peer
    /// never does that; whoever goes on with it loses the connection.
    fn handle_breach(&mut self, now: Time, collector: &mut Collector, conn: Conn) {
        // What was on its way when the connection was closed.
        let Some(caller) = self.callers.get_mut(&conn) else { return };
        caller.breaches += 1;
        let Caller { name, addr, .. } = &*caller;
        if let Some(left_out) = self.breaches.say(self.clock.instant(now), addr.host()) {
            tracing::warn!(name, %addr, "it says what only another may say: ignored{left_out}");
        }
        if caller.breaches >= BREACHES_MAX {
            caller.closer.refuse(&format!("{BREACHES_MAX} messages that only another may send"));
            self.forget(collector, conn);
        }
    }

    /// Closes the connection of a caller that is not this sink's ventilator.
    fn refuse(&mut self, now: Time, conn: Conn) {
        let Some(caller) = self.callers.get(&conn) else { return };
        let at =
            self.ventilator_addr.as_ref().map_or_else(|| "elsewhere".to_owned(), PeerAddr::place);
        if let Some(left_out) = self.refused.say(self.clock.instant(now), ()) {
            tracing::warn!(
                "another ventilator brings a job and may not: this sink's ventilator is {at}{left_out}"
            );
        }
        caller.closer.refuse(&format!(
            "this sink's ventilator is another, {at} (its --ventilator); a second job has to wait"
        ));
    }

    /// Reports workers to the collector whose bytes arrive although no message is complete: a large
    /// result on a slow link holds up the heartbeats behind it.
    fn check_arrivals(&mut self, now: Time, collector: &mut Collector) {
        if self.checked.is_some_and(|at| now.since(at) < HEARTBEAT_INTERVAL) {
            return;
        }
        self.checked = Some(now);
        for caller in self.callers.values_mut().filter(|caller| caller.role == Role::Worker) {
            // One that is not read at present may be saying anything.
            if caller.arrivals.check(caller.traffic.bytes_in()) || caller.traffic.is_paused() {
                collector.handle_alive(caller.session);
            }
        }
    }

    /// Sends the collector's messages until there are no more.
    pub fn drive(&mut self, now: Time, collector: &mut Collector) {
        self.check_arrivals(now, collector);
        while let Some(message) = collector.poll_transmit() {
            // The end of a lane is reported by an event of its own.
            let _ = self.receipts.as_mut().map(|(_, lane)| send(lane, &message));
        }
    }

    /// Returns a future to wait for before any other event is handled, if too much of what the ventilator is told has
    /// not been taken: workers make us say it, however fast they speak. It ends when the ventilator has taken some, or
    /// its connection has ended.
    ///
    /// There is no deadlock: what a ventilator hears never waits for what a sink or relay hears from others.
    pub fn congestion(&mut self) -> Option<impl Future<Output = ()> + use<>> {
        let (_, lane) = self.receipts.as_ref()?;
        let bytes = lane.queue_bytes();
        if bytes < UNTAKEN_BYTES_MAX {
            return None;
        }
        if !std::mem::replace(&mut self.is_congested, true) {
            tracing::warn!(
                "{} MiB wait for the ventilator to take them: workers wait as well meanwhile",
                bytes >> 20
            );
        }
        Some(lane.drained(UNTAKEN_BYTES_MAX / 2))
    }

    /// Returns whether there is a connection to or from a ventilator.
    #[must_use]
    pub fn has_ventilator(&self) -> bool {
        self.receipts.is_some() || self.peers.has_ventilator()
    }

    /// Closes the lanes, letting the last messages reach the ventilator.
    pub async fn close(&mut self) {
        if let Some((_, lane)) = self.receipts.take() {
            lane.close(LINGER).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tradewind_lanes::{Door, LaneOptions};
    use tradewind_proto::collector::{CollectorConfig, Order};
    use tradewind_proto::message::{Card, News, Report};
    use tradewind_proto::{JobId, JobKey};

    use super::*;
    use crate::links::Weight;

    #[tokio::test]
    async fn others_are_not_heard_while_the_ventilator_has_too_much_to_take() {
        let (any, options) = ("tcp://127.0.0.1:0".parse().unwrap(), LaneOptions::default());
        let mut gate = PullGate::bind(&any, options.clone(), Door::default()).await.unwrap();
        let mut dialler = Dialler::new(gate.endpoint(), options, Door::default(), 7);
        let (mut push, mut pull) = tokio::join!(dialler.dial_push(), gate.accept());
        let mut links = Upstream::new(Clock::default());
        assert!(links.congestion().is_none(), "there is none");
        while push.queue_bytes() < UNTAKEN_BYTES_MAX {
            push.send(vec![0; 1 << 20].into()).unwrap();
        }
        links.receipts = Some((Conn(0), push));
        let congestion = links.congestion().expect("it has taken nothing");
        tokio::select! {
            () = congestion => {}
            () = async { while pull.recv().await.is_ok() {} } => panic!("the lane has ended"),
        }
        assert!(links.congestion().is_none());
        let (_, push) = links.receipts.as_mut().unwrap();
        while push.queue_bytes() < UNTAKEN_BYTES_MAX {
            push.send(vec![0; 1 << 20].into()).unwrap();
        }
        let congestion = links.congestion().expect("it has taken half of it, and no more");
        // A connection that ends is no reason to wait.
        drop(pull);
        congestion.await;
        assert!(links.congestion().is_none());
    }

    #[tokio::test]
    async fn who_says_three_times_what_only_another_may_say_loses_the_connection() {
        let (any, options) = ("tcp://127.0.0.1:0".parse().unwrap(), LaneOptions::default());
        let mut gate = PullGate::bind(&any, options.clone(), Door::default()).await.unwrap();
        let mut dialler = Dialler::new(gate.endpoint(), options, Door::default(), 7);
        let (push, pull) = tokio::join!(dialler.dial_push(), gate.accept());
        let (now, conn, session) = (Time(0), Conn(0), SessionId(1));
        let mut links = Upstream::new(Clock::default());
        let mut collector = Collector::new(CollectorConfig {
            session: SessionId(9),
            order: Order::Seq,
            report: Report::default(),
            key: JobKey::new([0; 16]),
        });
        let card = Card {
            role: Role::Worker,
            session,
            slots: 1,
            message_bytes_max: 1 << 20,
            name: "liar".to_owned(),
            queue: String::new(),
        };
        let (closer, traffic, addr) = (pull.closer(), pull.traffic(), pull.peer_addr().clone());
        let up = Inward::Up { conn, card, closer, traffic, addr };
        links.handle_event(now, &mut collector, UpstreamEvent::Results(up)).unwrap();
        let mut say = |message| {
            let message = Inward::Message { conn, message, weight: Weight::default() };
            links.handle_event(now, &mut collector, UpstreamEvent::Results(message)).unwrap();
            links.poll_heard().is_some()
        };
        let beat = |session| ToSink::News { session, news: News::Reconnected };
        assert!(say(beat(session)));
        assert!(!say(beat(SessionId(2))), "another session's");
        assert!(!say(ToSink::JobDone { job: JobId(1) }), "a ventilator's");
        assert!(say(beat(session)), "an honest one between them still counts");
        assert_eq!(push.watch().reason(), None);
        assert!(!say(ToSink::JobDone { job: JobId(1) }));
        let told = push.watch().gone().await.to_string();
        assert_eq!(told, "it says: 3 messages that only another may send");
        assert!(!say(beat(session)), "what comes after it is not heard");
    }
}

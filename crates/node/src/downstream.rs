//! The connections of a process that dispatches tasks: a ventilator, or a relay to its next stage.

use std::collections::{BTreeMap, VecDeque};
use std::mem::{self, Discriminant};
use std::time::Duration;

use tokio::sync::mpsc;
use tradewind_lanes::{Closer, Dialler, PeerAddr, PeerHost, PullGate, PushGate, PushLane, Sparing};
use tradewind_proto::dispatcher::{Dispatcher, DispatcherSnapshot, Notice, Transmit};
use tradewind_proto::limits::{LINGER, MESSAGE_OVERHEAD_BYTES};
use tradewind_proto::message::{Outcome, ToSink, ToVentilator};
use tradewind_proto::{LaneId, SessionId, Time};

use crate::counterpart::{Admission, Counterpart, Verdict};
use crate::links::{
    Conn, GaveUp, Inward, Outward, keep_outward, send, serve_inward, serve_outward,
};
use tradewind_system::Clock;

/// Event on these connections.
pub enum DownstreamEvent {
    /// Event at the port for workers.
    Tasks(Outward),
    /// Event of the connection to the sink.
    Sink(Outward),
    /// Event at the port for receipts.
    Receipts(Inward<ToVentilator>),
}

/// The connections that stand.
pub struct Downstream {
    clock: Clock,
    lanes: BTreeMap<LaneId, (PushLane, String)>,
    sink: Option<(Conn, PushLane)>,
    /// Address of the sink when it last answered.
    sink_addr: Option<PeerAddr>,
    /// Bytes of the largest message that the sink takes.
    sink_bytes_max: u64,
    /// Connections at the port for receipts; one of them is the sink's.
    callers: BTreeMap<Conn, (Closer, SessionId)>,
    counterpart: Counterpart<ToVentilator>,
    receipts: Option<Conn>,
    /// Messages of the sink.
    heard: VecDeque<ToVentilator>,
    refused: Sparing<()>,
    expelled: Sparing<()>,
    /// Lines about workers that come and go.
    comings: Sparing<(PeerHost, Coming)>,
    notices: Sparing<Discriminant<Notice>>,
    /// Workers that do not answer although there is a sink, and the time since which they do not.
    unready: BTreeMap<SessionId, Time>,
}

/// Time after which a worker that has not answered the roll call counts as unable to reach the
/// sink, by way of which the answer comes.
const ANSWER_MAX: Duration = Duration::from_secs(4);

/// What a worker does at the port for tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Coming {
    Joins,
    Goes,
}

/// Number of lines about workers that come, or go, for each host within a minute. The others are counted:
/// who comes and goes all the time must not fill a disk.
const COMINGS_MAX: u32 = 5;

/// Number of the machine's notices of a kind that are logged within a minute.
const NOTICES_MAX: u32 = 20;

/// Makes the records that a relay forwards fit into the sink's messages: a record that does not fit
/// becomes a failure. All other messages to a sink are small.
fn fit(message: &mut ToSink, sink_bytes_max: u64) {
    let ToSink::Forwarded { results, .. } = message else { return };
    let most = sink_bytes_max.saturating_sub(MESSAGE_OVERHEAD_BYTES);
    for result in &mut results.0 {
        let bytes = result.payload_bytes();
        if bytes <= most {
            continue;
        }
        let Outcome { status, exit, error, .. } = result.outcome.clone();
        let error = format!(
            "{error} (the record has {bytes} bytes and the sink takes messages of {sink_bytes_max} \
             bytes, see --message-max: the rest is left out)"
        );
        result.outcome = Outcome { exit, ..Outcome::error(status, error) };
        result.reported = None;
    }
}

impl Downstream {
    /// Creates the set without any connection.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            lanes: BTreeMap::new(),
            sink: None,
            sink_addr: None,
            sink_bytes_max: 0,
            callers: BTreeMap::new(),
            counterpart: Counterpart::default(),
            receipts: None,
            heard: VecDeque::new(),
            refused: Sparing::default(),
            expelled: Sparing::default(),
            comings: Sparing::new(COMINGS_MAX),
            notices: Sparing::new(NOTICES_MAX),
            unready: BTreeMap::new(),
        }
    }

    /// Listens for workers and for the sink's receipts, and keeps up a connection to the sink.
    pub fn serve<E>(
        tasks: PushGate,
        receipts: PullGate,
        sink: Dialler,
        connect_timeout: Option<Duration>,
        events: &mpsc::Sender<E>,
    ) where
        E: From<DownstreamEvent> + Send + 'static,
    {
        serve_outward(tasks, events.clone(), |event| E::from(DownstreamEvent::Tasks(event)));
        serve_inward(receipts, events.clone(), |event| E::from(DownstreamEvent::Receipts(event)));
        keep_outward(sink, connect_timeout, events.clone(), |event| {
            E::from(DownstreamEvent::Sink(event))
        });
    }

    /// Reports a connection's change to the dispatcher. Messages of the sink come from
    /// [`poll_heard`](Self::poll_heard).
    ///
    /// # Errors
    /// When the sink is given up.
    pub fn handle_event(
        &mut self,
        now: Time,
        dispatcher: &mut Dispatcher,
        event: DownstreamEvent,
    ) -> Result<(), GaveUp> {
        match event {
            DownstreamEvent::Tasks(Outward::Up { conn, card, lane }) => {
                let id = LaneId(conn.0);
                let addr = lane.peer_addr();
                let (worker, slots) = (&card.name, card.slots);
                match self.comings.say(self.clock.instant(now), (addr.host(), Coming::Joins)) {
                    Some(left_out) => {
                        tracing::info!(worker, slots, %addr, "worker joins{left_out}");
                    }
                    None => tracing::debug!(worker, slots, %addr, "worker joins"),
                }
                self.lanes.insert(id, (lane, card.name.clone()));
                dispatcher.handle_lane_opened(now, id, &card);
            }
            DownstreamEvent::Tasks(Outward::Down { conn, reason }) => {
                let id = LaneId(conn.0);
                let tasks = dispatcher.out_at(id).unwrap_or(0);
                if let Some((lane, worker)) = self.lanes.remove(&id) {
                    let key = (lane.peer_addr().host(), Coming::Goes);
                    let back = match tasks {
                        0 => String::new(),
                        _ => format!("; {tasks} of its tasks go back"),
                    };
                    match self.comings.say(self.clock.instant(now), key) {
                        Some(left_out) if tasks > 0 => {
                            tracing::warn!(worker, %reason, "worker gone{back}{left_out}");
                        }
                        Some(left_out) => tracing::info!(worker, %reason, "worker gone{left_out}"),
                        None => tracing::debug!(worker, %reason, "worker gone{back}"),
                    }
                }
                dispatcher.handle_lane_gone(id);
            }
            DownstreamEvent::Sink(Outward::Up { conn, card, lane }) => {
                self.sink_addr = Some(lane.peer_addr().clone());
                self.sink_bytes_max = card.message_bytes_max;
                self.sink = Some((conn, lane));
                dispatcher.handle_sink_connected();
                let (held, others) = self.counterpart.handle_answer(now, card.session);
                others.into_iter().for_each(|conn| self.refuse(now, conn));
                for (conn, message) in held {
                    self.hear(now, dispatcher, conn, message);
                }
            }
            DownstreamEvent::Sink(Outward::Down { conn, reason }) => {
                if self.sink.as_ref().is_some_and(|(current, _)| *current == conn) {
                    tracing::info!(%reason, "lost the connection to the sink");
                    self.sink = None;
                    self.counterpart.handle_no_answer();
                    dispatcher.handle_sink_disconnected();
                }
            }
            DownstreamEvent::Receipts(Inward::Up { conn, card, closer, .. }) => {
                self.callers.insert(conn, (closer, card.session));
                match self.counterpart.handle_caller(now, conn, card.session) {
                    // Only a message makes a sink: a process that connects and sends none must not
                    // displace it.
                    Verdict::Stay => {}
                    Verdict::Refuse => self.refuse(now, conn),
                    Verdict::Ask => {
                        // The link is dialled again as soon as its lane is gone.
                        self.sink = None;
                        dispatcher.handle_sink_disconnected();
                    }
                }
            }
            DownstreamEvent::Receipts(Inward::Message { conn, message, weight }) => {
                if !self.is_own(conn, &message) {
                    self.expel(now, conn, "the hello names another session than the card");
                    return Ok(());
                }
                match self.counterpart.handle_message(now, conn, message, weight.bytes) {
                    Admission::Taken(message) => self.hear(now, dispatcher, conn, message),
                    Admission::Held => {}
                    Admission::TooMuch => self.refuse(now, conn),
                }
            }
            DownstreamEvent::Receipts(Inward::Down { conn }) => {
                self.callers.remove(&conn);
                self.counterpart.handle_gone(conn);
                if self.receipts == Some(conn) {
                    self.receipts = None;
                    dispatcher.handle_receipts_disconnected(now);
                }
            }
            DownstreamEvent::Tasks(Outward::GaveUp(gave_up))
            | DownstreamEvent::Sink(Outward::GaveUp(gave_up))
            | DownstreamEvent::Receipts(Inward::GaveUp(gave_up)) => return Err(gave_up),
        }
        Ok(())
    }

    /// Returns the next message of the sink.
    pub fn poll_heard(&mut self) -> Option<ToVentilator> {
        self.heard.pop_front()
    }

    fn hear(&mut self, now: Time, dispatcher: &mut Dispatcher, conn: Conn, message: ToVentilator) {
        if self.receipts < Some(conn) {
            self.receipts = Some(conn);
            // The messages of the sink before are out of date.
            self.heard.clear();
            dispatcher.handle_receipts_connected(now);
        }
        if self.receipts == Some(conn) {
            self.heard.push_back(message);
        }
    }

    /// Returns whether a message speaks for the session of its sender.
    fn is_own(&self, conn: Conn, message: &ToVentilator) -> bool {
        match message {
            ToVentilator::SinkHello { sink, .. } => {
                self.callers.get(&conn).is_none_or(|(_, session)| session == sink)
            }
            _ => true,
        }
    }

    /// Closes the connection of a caller that breaks the rules.
    fn expel(&mut self, now: Time, conn: Conn, reason: &str) {
        let Some((closer, _)) = self.callers.remove(&conn) else { return };
        self.counterpart.handle_gone(conn);
        if let Some(left_out) = self.expelled.say(self.clock.instant(now), ()) {
            tracing::warn!("the connection of a sink is closed: {reason}{left_out}");
        }
        closer.refuse(reason);
    }

    /// Closes the connection of a caller that is not this ventilator's sink.
    fn refuse(&mut self, now: Time, conn: Conn) {
        let Some((closer, _)) = self.callers.remove(&conn) else { return };
        let at = self.sink_addr.as_ref().map_or_else(|| "elsewhere".to_owned(), PeerAddr::place);
        if let Some(left_out) = self.refused.say(self.clock.instant(now), ()) {
            tracing::warn!(
                "another sink wants to take part and may not: this one's sink is {at}{left_out}"
            );
        }
        closer.refuse(&format!(
            "this ventilator's sink is another, {at} (its --sink); a second one cannot take part"
        ));
    }

    /// Returns the number of connected workers that cannot reach the sink.
    pub fn unreached(&mut self, now: Time, snapshot: &DispatcherSnapshot) -> u64 {
        if !snapshot.is_sink_open || snapshot.is_calling_roll {
            self.unready.clear();
            return 0;
        }
        let is_unready = |session: &SessionId| {
            let mut workers = snapshot.workers.iter();
            workers.any(|worker| worker.session == *session && !worker.is_ready)
        };
        self.unready.retain(|session, _| is_unready(session));
        for worker in snapshot.workers.iter().filter(|worker| !worker.is_ready) {
            self.unready.entry(worker.session).or_insert(now);
        }
        let is_late = |since: &&Time| now.since(**since) >= ANSWER_MAX;
        self.unready.values().filter(is_late).count() as u64
    }

    /// Sends the dispatcher's messages until there are no more.
    pub fn drive(&mut self, now: Time, dispatcher: &mut Dispatcher) {
        while let Some(transmit) = dispatcher.poll_transmit(now) {
            // The end of a lane is reported by an event of its own.
            match transmit {
                Transmit::Worker(id, message) => {
                    let _ = self.lanes.get_mut(&id).map(|(lane, _)| send(lane, &message));
                }
                Transmit::Sink(mut message) => {
                    fit(&mut message, self.sink_bytes_max);
                    let _ = self.sink.as_mut().map(|(_, lane)| send(lane, &message));
                }
            }
        }
        let at = self.clock.instant(now);
        while let Some(notice) = dispatcher.poll_notice() {
            let Some(left_out) = self.notices.say(at, mem::discriminant(&notice)) else {
                tracing::debug!("{notice}");
                continue;
            };
            match notice {
                // The process that sent the worker home, or the worker's own log, knows more.
                Notice::Leaves { .. } => tracing::info!("{notice}{left_out}"),
                _ => tracing::warn!("{notice}{left_out}"),
            }
        }
        while let Some(((host, coming), count)) = self.comings.poll(at) {
            match coming {
                Coming::Joins => tracing::info!(%host, "{count} more workers join"),
                Coming::Goes => tracing::info!(%host, "{count} more workers gone"),
            }
        }
        while let Some(id) = dispatcher.poll_close() {
            if let Some((_, worker)) = self.lanes.remove(&id) {
                tracing::info!(worker, "the worker's connection is closed");
            }
        }
    }

    /// Closes all lanes, letting queued messages drain for up to `LINGER`.
    pub async fn close(&mut self) {
        let sink = self.sink.take().map(|(_, lane)| lane);
        let lanes = std::mem::take(&mut self.lanes).into_values().map(|(lane, _)| lane).chain(sink);
        let mut closing = tokio::task::JoinSet::new();
        for lane in lanes {
            closing.spawn(lane.close(LINGER));
        }
        closing.join_all().await;
    }
}

#[cfg(test)]
mod tests {
    use tradewind_lanes::{Door, LaneOptions};
    use tradewind_proto::dispatcher::{DispatcherConfig, Policy};
    use tradewind_proto::message::{Exit, Layout, Report, Start, Status, TaskResult};
    use tradewind_proto::{Attempt, JobId, JobKey, Payload, Seq, SeqRanges, Tag, TaskHash};

    use super::*;
    use crate::links::Weight;

    fn dispatcher() -> Dispatcher {
        Dispatcher::new(DispatcherConfig {
            job: JobId(1),
            name: "job".to_owned(),
            stage: String::new(),
            start: Start::New,
            layout: Layout::Unsaid,
            policy: Policy::default(),
            message_bytes_max: 1 << 20,
            seed: 7,
        })
    }

    fn hello(sink: SessionId) -> ToVentilator {
        ToVentilator::SinkHello {
            asked: JobId(1),
            job: JobId(1),
            sink,
            stored: SeqRanges::default(),
            again: SeqRanges::default(),
            workers: None,
            report: Report::default(),
            key: JobKey::new([0; 16]),
        }
    }

    #[tokio::test]
    async fn a_hello_in_the_name_of_another_session_ends_the_connection() {
        let (any, options) = ("tcp://127.0.0.1:0".parse().unwrap(), LaneOptions::default());
        let mut gate = PullGate::bind(&any, options.clone(), Door::default()).await.unwrap();
        let mut dialler = Dialler::new(gate.endpoint(), options, Door::default(), 7);
        let (push, pull) = tokio::join!(dialler.dial_push(), gate.accept());
        let (now, conn, session) = (Time(0), Conn(0), SessionId(1));
        let mut links = Downstream::new(Clock::default());
        links.callers.insert(conn, (pull.closer(), session));
        let _ = links.counterpart.handle_answer(now, session);
        let _ = links.counterpart.handle_caller(now, conn, session);
        let mut dispatcher = dispatcher();
        let mut say = |session| {
            let message =
                Inward::Message { conn, message: hello(session), weight: Weight::default() };
            links.handle_event(now, &mut dispatcher, DownstreamEvent::Receipts(message)).unwrap();
            links.poll_heard().is_some()
        };
        assert!(say(session));
        assert_eq!(push.watch().reason(), None);
        assert!(!say(SessionId(2)));
        let told = push.watch().gone().await.to_string();
        assert_eq!(told, "it says: the hello names another session than the card");
        assert!(!say(session), "what comes after it is not heard either");
    }

    #[test]
    fn a_record_that_the_sink_does_not_take_is_passed_on_without_what_is_too_large() {
        let result = |seq, output: usize| TaskResult {
            seq: Seq(seq),
            attempt: Attempt::FIRST,
            last: true,
            tag: Tag::default(),
            started_us: 1,
            ran_us: 1,
            task_bytes: 1,
            task_hash: TaskHash::of(b"x"),
            outcome: Outcome {
                exit: Exit::Code(3),
                output: Payload::from(vec![0; output]),
                ..Outcome::error(Status::Failed, "exit code 3")
            },
            reported: None,
        };
        let results = vec![result(0, 10), result(1, 2 << 20)];
        let (stage, worker) = (String::new(), String::new());
        let mut message =
            ToSink::Forwarded { job: JobId(1), stage, worker, results: results.clone().into() };
        fit(&mut message, 1 << 20);
        let ToSink::Forwarded { results: passed, .. } = message else {
            panic!("it is what it was")
        };
        assert_eq!(passed.0[0], results[0]);
        let Outcome { status, exit, output, error, .. } = &passed.0[1].outcome;
        assert_eq!((*status, *exit, output.len()), (Status::Failed, Exit::Code(3), 0));
        assert!(
            error.starts_with("exit code 3 (the record has 2097163 bytes and the sink"),
            "{error}"
        );
    }
}

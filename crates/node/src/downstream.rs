//! The connections of whoever hands out tasks: a ventilator, or a relay to its next stage.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tradewind_lanes::{Dialler, PullGate, PushGate, PushLane};
use tradewind_proto::dispatcher::{Dispatcher, Ended, Transmit};
use tradewind_proto::message::{Role, ToVentilator};
use tradewind_proto::{LaneId, Time};

use crate::links::{Conn, Inward, Outward, keep_outward, send, serve_inward, serve_outward};

/// Everything that can happen on these connections.
pub enum DownstreamEvent {
    /// At the port for workers.
    Tasks(Outward),
    /// On the way to the sink.
    Sink(Outward),
    /// At the port for receipts.
    Receipts(Inward<ToVentilator>),
}

/// The connections that stand.
#[derive(Default)]
pub struct Downstream {
    lanes: BTreeMap<LaneId, PushLane>,
    sink: Option<(Conn, PushLane)>,
    receipts: Option<Conn>,
    /// Since when the job is complete and there is no sink that knows the job, to be told so.
    untold: Option<Instant>,
}

/// Somebody was not reached in time.
#[derive(Debug)]
pub struct GaveUp {
    /// What was tried and why it failed.
    pub reason: String,
}

/// How long to wait for a sink that has to be told that the job is complete. It may be a relay that
/// takes the place of one that was killed just then, and finds nobody else who knows.
const FAREWELL: Duration = Duration::from_secs(10);

/// How long a lane may take to deliver the last messages of a job.
const LINGER: Duration = Duration::from_secs(2);

impl Downstream {
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
        serve_outward(tasks, Role::Worker, events.clone(), |event| {
            E::from(DownstreamEvent::Tasks(event))
        });
        serve_inward(receipts, &[Role::Sink], events.clone(), |event| {
            E::from(DownstreamEvent::Receipts(event))
        });
        keep_outward(sink, connect_timeout, events.clone(), |event| {
            E::from(DownstreamEvent::Sink(event))
        });
    }

    /// Tells the dispatcher what has become of a connection; gives what the sink said.
    ///
    /// # Errors
    /// When the sink was not reached in time.
    pub fn handle_event(
        &mut self,
        now: Time,
        dispatcher: &mut Dispatcher,
        event: DownstreamEvent,
    ) -> Result<Option<ToVentilator>, GaveUp> {
        match event {
            DownstreamEvent::Tasks(Outward::Up { conn, card, lane }) => {
                let Some(card) = card else { return Ok(None) };
                let id = LaneId(conn.0);
                tracing::info!(worker = card.name, slots = card.slots, lane = id.0, "worker joins");
                self.lanes.insert(id, lane);
                dispatcher.handle_lane_opened(now, id, &card);
            }
            DownstreamEvent::Tasks(Outward::Down { conn }) => {
                let id = LaneId(conn.0);
                if self.lanes.remove(&id).is_some() {
                    tracing::info!(lane = id.0, "worker gone");
                }
                dispatcher.handle_lane_gone(id);
            }
            DownstreamEvent::Sink(Outward::Up { conn, lane, .. }) => {
                self.sink = Some((conn, lane));
                dispatcher.handle_sink_connected();
            }
            DownstreamEvent::Sink(Outward::Down { conn }) => {
                if self.sink.as_ref().is_some_and(|(current, _)| *current == conn) {
                    self.sink = None;
                    dispatcher.handle_sink_disconnected();
                }
            }
            // Only words make a sink: whoever connects and says nothing must not displace it.
            DownstreamEvent::Receipts(Inward::Up { .. }) => {}
            DownstreamEvent::Receipts(Inward::Message { conn, message }) => {
                if self.receipts < Some(conn) {
                    self.receipts = Some(conn);
                    dispatcher.handle_receipts_connected(now);
                }
                return Ok(Some(message).filter(|_| self.receipts == Some(conn)));
            }
            DownstreamEvent::Receipts(Inward::Down { conn }) => {
                if self.receipts == Some(conn) {
                    self.receipts = None;
                    dispatcher.handle_receipts_disconnected(now);
                }
            }
            DownstreamEvent::Tasks(Outward::GaveUp { reason })
            | DownstreamEvent::Sink(Outward::GaveUp { reason })
            | DownstreamEvent::Receipts(Inward::GaveUp { reason }) => {
                return Err(GaveUp { reason });
            }
        }
        Ok(None)
    }

    /// Does what the dispatcher says, until it says nothing more.
    pub fn go_on(&mut self, now: Time, dispatcher: &mut Dispatcher) {
        while let Some(transmit) = dispatcher.poll_transmit(now) {
            // A lane that is gone says so by an event of its own.
            match transmit {
                Transmit::Worker(id, message) => {
                    let _ = self.lanes.get_mut(&id).map(|lane| send(lane, &message));
                }
                Transmit::Sink(message) => {
                    let _ = self.sink.as_mut().map(|(_, lane)| send(lane, &message));
                }
            }
        }
        while let Some(notice) = dispatcher.poll_notice() {
            tracing::warn!("{notice}");
        }
        while let Some(id) = dispatcher.poll_close() {
            self.lanes.remove(&id);
        }
        let is_complete = dispatcher.ended() == Some(&Ended::Complete);
        let is_untold = is_complete && !dispatcher.is_sink_open();
        self.untold = is_untold.then(|| self.untold.unwrap_or_else(Instant::now));
    }

    /// Is the job over, and is there nobody who has to be told and may yet come?
    #[must_use]
    pub fn is_over(&self, dispatcher: &Dispatcher) -> bool {
        dispatcher.ended().is_some() && self.untold.is_none_or(|since| since.elapsed() > FAREWELL)
    }

    /// Sees that everybody gets the last word.
    pub async fn close(&mut self) {
        let sink = self.sink.take().map(|(_, lane)| lane);
        let lanes = std::mem::take(&mut self.lanes).into_values().chain(sink);
        let mut closing = tokio::task::JoinSet::new();
        for lane in lanes {
            closing.spawn(lane.close(LINGER));
        }
        closing.join_all().await;
    }
}

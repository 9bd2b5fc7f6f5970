//! The connections of whoever collects results: a sink, or a relay from the stage before.

use std::time::Duration;

use tokio::sync::mpsc;
use tradewind_lanes::{Dialler, PullGate, PushLane};
use tradewind_proto::collector::Collector;
use tradewind_proto::message::{Role, ToSink};

use crate::downstream::GaveUp;
use crate::links::{Conn, Inward, Outward, keep_outward, send, serve_inward};
use crate::peers::Peers;

/// Everything that can happen on these connections.
pub enum UpstreamEvent {
    /// At the port for results.
    Results(Inward<ToSink>),
    /// On the way to the ventilator.
    Receipts(Outward),
}

/// What an event brought that is more than a connection.
#[derive(Debug)]
pub enum Heard {
    /// Nothing.
    Nothing,
    /// Somebody said something that he may say.
    Message(ToSink),
    /// The ventilator is gone.
    VentilatorGone,
}

/// The connections that stand.
#[derive(Default)]
pub struct Upstream {
    peers: Peers,
    receipts: Option<(Conn, PushLane)>,
}

/// How long the receipts' connection may take to deliver the last of them.
const LINGER: Duration = Duration::from_secs(2);

impl Upstream {
    /// Listens for results and for the ventilator, and keeps up a connection for receipts to it.
    pub fn serve<E>(
        results: PullGate,
        ventilator: Dialler,
        connect_timeout: Option<Duration>,
        events: &mpsc::Sender<E>,
    ) where
        E: From<UpstreamEvent> + Send + 'static,
    {
        serve_inward(results, &[Role::Worker, Role::Ventilator], events.clone(), |event| {
            E::from(UpstreamEvent::Results(event))
        });
        keep_outward(ventilator, connect_timeout, events.clone(), |event| {
            E::from(UpstreamEvent::Receipts(event))
        });
    }

    /// Tells the collector what has become of a connection; gives what was said on one.
    ///
    /// # Errors
    /// When the ventilator was not reached in time.
    pub fn handle_event(
        &mut self,
        collector: &mut Collector,
        event: UpstreamEvent,
    ) -> Result<Heard, GaveUp> {
        match event {
            UpstreamEvent::Results(Inward::Up { conn, card }) => {
                let Some(card) = card else { return Ok(Heard::Nothing) };
                tracing::debug!(role = ?card.role, name = card.name, "peer joins");
                if self.peers.add(conn, &card) {
                    collector.handle_worker_connected(card.session, &card.name);
                }
            }
            UpstreamEvent::Results(Inward::Message { conn, message }) => {
                if self.peers.may_say(conn, &message) {
                    return Ok(Heard::Message(message));
                }
                tracing::warn!(conn = conn.0, "a peer speaks for another: ignored");
            }
            UpstreamEvent::Results(Inward::Down { conn }) => {
                if let Some(session) = self.peers.remove(conn) {
                    collector.handle_worker_disconnected(session);
                }
            }
            UpstreamEvent::Receipts(Outward::Up { conn, lane, .. }) => {
                self.receipts = Some((conn, lane));
                collector.handle_ventilator_connected();
            }
            UpstreamEvent::Receipts(Outward::Down { conn }) => {
                if self.receipts.as_ref().is_some_and(|(current, _)| *current == conn) {
                    self.receipts = None;
                    collector.handle_ventilator_disconnected();
                    return Ok(Heard::VentilatorGone);
                }
            }
            UpstreamEvent::Results(Inward::GaveUp { reason })
            | UpstreamEvent::Receipts(Outward::GaveUp { reason }) => {
                return Err(GaveUp { reason });
            }
        }
        Ok(Heard::Nothing)
    }

    /// Sends what the collector says, until it says nothing more.
    pub fn go_on(&mut self, collector: &mut Collector) {
        while let Some(message) = collector.poll_transmit() {
            // A lane that is gone says so by an event of its own.
            let _ = self.receipts.as_mut().map(|(_, lane)| send(lane, &message));
        }
    }

    /// Is there no ventilator, in either direction?
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.receipts.is_none() && !self.peers.has_ventilator()
    }

    /// Sees that the ventilator gets the last word.
    pub async fn close(&mut self) {
        if let Some((_, lane)) = self.receipts.take() {
            lane.close(LINGER).await;
        }
    }
}

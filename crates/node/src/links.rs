//! Connections that are kept up and speak in messages.
//!
//! Each link is a task that turns a gate or a dialler into events for a program's one loop. Every
//! connection has a number of its own, so that news of an old one is never taken for news of the
//! one that replaced it.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tradewind_lanes::{Dialler, LaneGone, PullGate, PullLane, PushGate, PushLane};
use tradewind_proto::message::{Card, Role};
use tradewind_wire::{Message, decode, encode};

/// A connection of one link, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Conn(pub u64);

/// What happens on a link that carries out.
pub enum Outward {
    /// A connection stands.
    Up {
        /// Its number.
        conn: Conn,
        /// What the peer says it is; `None` if we dialled.
        card: Option<Card>,
        /// Where to send.
        lane: PushLane,
    },
    /// A connection is gone.
    Down {
        /// Its number.
        conn: Conn,
    },
    /// The peer could not be reached in time.
    GaveUp {
        /// What was tried and why it failed.
        reason: String,
    },
}

/// What happens on a link that carries in.
pub enum Inward<M> {
    /// A connection stands.
    Up {
        /// Its number.
        conn: Conn,
        /// What the peer says it is; `None` if we dialled.
        card: Option<Card>,
    },
    /// A message came.
    Message {
        /// On which connection.
        conn: Conn,
        /// The message.
        message: M,
    },
    /// A connection is gone, and all of its messages have been delivered.
    Down {
        /// Its number.
        conn: Conn,
    },
    /// The peer could not be reached in time.
    GaveUp {
        /// What was tried and why it failed.
        reason: String,
    },
}

/// Sends a message.
///
/// # Errors
/// When the lane is gone; the link will say so too.
pub fn send<M: Message>(lane: &mut PushLane, message: &M) -> Result<(), LaneGone> {
    lane.send(encode(message))
}

/// A card as the identity of a dialler.
///
/// Every card fits: names are bounded.
#[must_use]
pub fn identity(card: &Card) -> Bytes {
    encode(card)
}

/// Accepts connections that carry out.
pub fn serve_outward<E: Send + 'static>(
    mut gate: PushGate,
    role: Role,
    events: mpsc::Sender<E>,
    event: fn(Outward) -> E,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        for conn in (0..).map(Conn) {
            let lane = gate.accept().await;
            let Some(card) = admit(lane.peer_identity(), lane.peer_addr(), &[role]) else {
                continue;
            };
            let gone = lane.watch().gone();
            if events.send(event(Outward::Up { conn, card: Some(card), lane })).await.is_err() {
                return;
            }
            let events = events.clone();
            tokio::spawn(async move {
                let reason = gone.await;
                tracing::debug!(conn = conn.0, %reason, "lane gone");
                let _ = events.send(event(Outward::Down { conn })).await;
            });
        }
    })
}

/// Accepts connections that carry in.
pub fn serve_inward<M, E>(
    mut gate: PullGate,
    roles: &'static [Role],
    events: mpsc::Sender<E>,
    event: fn(Inward<M>) -> E,
) -> JoinHandle<()>
where
    M: Message + Send + 'static,
    E: Send + 'static,
{
    tokio::spawn(async move {
        for conn in (0..).map(Conn) {
            let lane = gate.accept().await;
            let Some(card) = admit(lane.peer_identity(), lane.peer_addr(), roles) else {
                continue;
            };
            if events.send(event(Inward::Up { conn, card: Some(card) })).await.is_err() {
                return;
            }
            let events = events.clone();
            tokio::spawn(async move {
                receive(lane, conn, &events, event).await;
                let _ = events.send(event(Inward::Down { conn })).await;
            });
        }
    })
}

/// Keeps a connection that carries out.
pub fn keep_outward<E: Send + 'static>(
    mut dialler: Dialler,
    timeout: Option<Duration>,
    events: mpsc::Sender<E>,
    event: fn(Outward) -> E,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        for conn in (0..).map(Conn) {
            let Some(lane) = within(timeout, dialler.dial_push()).await else {
                let reason = gave_up(&dialler, timeout);
                let _ = events.send(event(Outward::GaveUp { reason })).await;
                return;
            };
            let gone = lane.watch().gone();
            if events.send(event(Outward::Up { conn, card: None, lane })).await.is_err() {
                return;
            }
            gone.await;
            if events.send(event(Outward::Down { conn })).await.is_err() {
                return;
            }
        }
    })
}

/// Keeps a connection that carries in.
pub fn keep_inward<M, E>(
    mut dialler: Dialler,
    timeout: Option<Duration>,
    events: mpsc::Sender<E>,
    event: fn(Inward<M>) -> E,
) -> JoinHandle<()>
where
    M: Message + Send + 'static,
    E: Send + 'static,
{
    tokio::spawn(async move {
        for conn in (0..).map(Conn) {
            let Some(lane) = within(timeout, dialler.dial_pull()).await else {
                let reason = gave_up(&dialler, timeout);
                let _ = events.send(event(Inward::GaveUp { reason })).await;
                return;
            };
            if events.send(event(Inward::Up { conn, card: None })).await.is_err() {
                return;
            }
            receive(lane, conn, &events, event).await;
            if events.send(event(Inward::Down { conn })).await.is_err() {
                return;
            }
        }
    })
}

/// Delivers messages until the peer goes, or says something that is none.
async fn receive<M: Message, E>(
    mut lane: PullLane,
    conn: Conn,
    events: &mpsc::Sender<E>,
    event: fn(Inward<M>) -> E,
) {
    loop {
        let frame = match lane.recv().await {
            Ok(frame) => frame,
            Err(reason) => {
                tracing::debug!(conn = conn.0, peer = %lane.peer_addr(), %reason, "lane gone");
                return;
            }
        };
        match decode(&frame) {
            Ok(message) => {
                if events.send(event(Inward::Message { conn, message })).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(peer = %lane.peer_addr(), %error, "closed: not a message");
                return;
            }
        }
    }
}

fn admit(identity: &[u8], peer: std::net::SocketAddr, roles: &[Role]) -> Option<Card> {
    match decode::<Card>(&Bytes::copy_from_slice(identity)) {
        Ok(card) if roles.contains(&card.role) => Some(card),
        Ok(card) => {
            tracing::warn!(%peer, role = ?card.role, "closed: has no business on this port");
            None
        }
        Err(error) => {
            tracing::warn!(%peer, %error, "closed: no valid card");
            None
        }
    }
}

async fn within<T>(timeout: Option<Duration>, dial: impl Future<Output = T>) -> Option<T> {
    match timeout {
        Some(timeout) => tokio::time::timeout(timeout, dial).await.ok(),
        None => Some(dial.await),
    }
}

fn gave_up(dialler: &Dialler, timeout: Option<Duration>) -> String {
    let endpoint = dialler.endpoint();
    let timeout = timeout.unwrap_or_default();
    match dialler.last_error() {
        Some(error) => format!("{endpoint} was not reached within {timeout:?}: {error}"),
        None => format!("{endpoint} was not reached within {timeout:?}"),
    }
}

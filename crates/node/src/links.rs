//! Connections that are kept up and carry messages.
//!
//! Each link is a task that turns a gate or a dialler into events for a program's one loop. Every
//! connection has a number of its own, so that news of an old one is never taken for news of the
//! one that replaced it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tradewind_lanes::{
    Closer, Dialler, Endpoint, GoneReason, LaneGone, LaneOptions, PeerAddr, PeerHost, PullGate,
    PullLane, PushGate, PushLane, Sparing, Traffic,
};
use tradewind_proto::message::Card;
use tradewind_wire::{Message, decode, encode};

use crate::doors::{Port, dial_door};
use crate::exit::{CONNECT, Fatal, USAGE, WRONG_PEER};
use crate::keys::MaybeKeys;
use tradewind_system::random_id;

/// Number of a connection of one link, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Conn(pub u64);

/// Event of a link that sends.
pub enum Outward {
    /// A connection stands.
    Up {
        /// Number of the connection.
        conn: Conn,
        /// Card of the peer.
        card: Card,
        /// Lane to send on.
        lane: PushLane,
    },
    /// A connection is gone.
    Down {
        /// Number of the connection.
        conn: Conn,
        /// Reason.
        reason: GoneReason,
    },
    /// The peer is given up.
    GaveUp(GaveUp),
}

/// Failure to reach a peer in time, or to reach the right one.
#[derive(Debug)]
pub struct GaveUp {
    /// Exit code of a program that needs the peer.
    pub code: u8,
    /// Attempt and the cause of its failure, from the endpoint on.
    pub reason: String,
}

impl GaveUp {
    /// Returns the error of a program that needs the peer.
    #[must_use]
    pub fn fatal(self, whom: &str) -> Fatal {
        Fatal::new(self.code, format!("{whom} at {}", self.reason))
    }
}

/// Event of a link that receives.
pub enum Inward<M> {
    /// A connection stands.
    Up {
        /// Number of the connection.
        conn: Conn,
        /// Card of the peer.
        card: Card,
        /// Handle to close the connection.
        closer: Closer,
        /// Bytes received on it, those of incomplete messages too.
        traffic: Arc<Traffic>,
        /// Name of the peer.
        addr: PeerAddr,
    },
    /// A message arrived.
    Message {
        /// Number of the connection.
        conn: Conn,
        /// The message.
        message: M,
        /// What it takes.
        weight: Weight,
    },
    /// A connection is gone, and all of its messages have been delivered.
    Down {
        /// Number of the connection.
        conn: Conn,
    },
    /// The peer is given up.
    GaveUp(GaveUp),
}

/// Bytes of the large messages of one port that wait for the loop, or are being decoded, at most; a single larger one
/// waits alone. Further ones wait in their lanes.
const WAITING_KIB_MAX: u32 = 16 << 10;

/// Bytes from which on a message is a large one.
const LARGE_BYTES_MIN: usize = 64 << 10;

/// Bytes of a message that was received. They count as waiting until this is dropped.
#[derive(Debug, Default)]
pub struct Weight {
    /// Bytes of the message, as it came.
    pub bytes: usize,
    _waiting: Option<OwnedSemaphorePermit>,
}

/// Scales for the messages of one port.
#[derive(Clone, Debug)]
struct Scales(Arc<Semaphore>);

impl Scales {
    fn new() -> Self {
        Self(Arc::new(Semaphore::new(WAITING_KIB_MAX as usize)))
    }

    /// Waits until there is room for a message of so many bytes.
    async fn weigh(&self, bytes: usize) -> Weight {
        if bytes < LARGE_BYTES_MIN {
            return Weight { bytes, _waiting: None };
        }
        let kib =
            u32::try_from(bytes >> 10).map_or(WAITING_KIB_MAX, |kib| kib.min(WAITING_KIB_MAX));
        // It is never closed.
        let waiting = self.0.clone().acquire_many_owned(kib).await.ok();
        Weight { bytes, _waiting: waiting }
    }
}

/// Sends a message.
///
/// # Errors
/// When the lane is gone; the link will say so too.
pub fn send<M: Message>(lane: &mut PushLane, message: &M) -> Result<(), LaneGone> {
    lane.send(encode(message))
}

/// Returns a dialler of a port.
///
/// # Errors
/// When the endpoint stands for all of a machine.
pub fn dialler(
    endpoint: Endpoint,
    lanes: &LaneOptions,
    ours: &Card,
    port: Port,
    keys: &MaybeKeys,
) -> Result<Dialler, Fatal> {
    if endpoint.is_wildcard() {
        let text = format!("{endpoint} is for listening; say which host is to be dialled");
        return Err(Fatal::new(USAGE, text));
    }
    Ok(Dialler::new(endpoint, lanes.clone(), dial_door(ours, port, keys), random_id()))
}

/// Accepts connections of a link that sends.
pub fn serve_outward<E: Send + 'static>(
    mut gate: PushGate,
    events: mpsc::Sender<E>,
    event: fn(Outward) -> E,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        for conn in (0..).map(Conn) {
            let lane = gate.accept().await;
            let Some(card) = card(lane.peer_identity()) else { continue };
            let gone = lane.watch().gone();
            if events.send(event(Outward::Up { conn, card, lane })).await.is_err() {
                return;
            }
            let events = events.clone();
            tokio::spawn(async move {
                let reason = gone.await;
                tracing::debug!(conn = conn.0, %reason, "lane gone");
                let _ = events.send(event(Outward::Down { conn, reason })).await;
            });
        }
    })
}

/// Accepts connections of a link that receives.
pub fn serve_inward<M, E>(
    mut gate: PullGate,
    events: mpsc::Sender<E>,
    event: fn(Inward<M>) -> E,
) -> JoinHandle<()>
where
    M: Message + Send + 'static,
    E: Send + 'static,
{
    let (warnings, scales) = (Warnings::default(), Scales::new());
    tokio::spawn(async move {
        for conn in (0..).map(Conn) {
            let lane = gate.accept().await;
            let Some(up) = up(conn, &lane) else { continue };
            if events.send(event(up)).await.is_err() {
                return;
            }
            let (events, warnings, scales) = (events.clone(), warnings.clone(), scales.clone());
            tokio::spawn(async move {
                receive(lane, conn, &warnings, &scales, &events, event).await;
                let _ = events.send(event(Inward::Down { conn })).await;
            });
        }
    })
}

/// Keeps up a connection that sends.
pub fn keep_outward<E: Send + 'static>(
    mut dialler: Dialler,
    timeout: Option<Duration>,
    events: mpsc::Sender<E>,
    event: fn(Outward) -> E,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        for conn in (0..).map(Conn) {
            let mut hopeless = dialler.hopeless();
            let lane = tokio::select! {
                lane = within(timeout, dialler.dial_push()) => lane.ok_or(timeout),
                () = hopeless.wait() => Err(None),
            };
            let lane = match lane {
                Ok(lane) => lane,
                Err(timeout) => {
                    let gave_up = gave_up(&dialler, timeout);
                    let _ = events.send(event(Outward::GaveUp(gave_up))).await;
                    return;
                }
            };
            let Some(card) = card(lane.peer_identity()) else { continue };
            let gone = lane.watch().gone();
            if events.send(event(Outward::Up { conn, card, lane })).await.is_err() {
                return;
            }
            let reason = gone.await;
            if events.send(event(Outward::Down { conn, reason })).await.is_err() {
                return;
            }
        }
    })
}

/// Keeps up a connection that receives.
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
    let (warnings, scales) = (Warnings::default(), Scales::new());
    tokio::spawn(async move {
        for conn in (0..).map(Conn) {
            let mut hopeless = dialler.hopeless();
            let lane = tokio::select! {
                lane = within(timeout, dialler.dial_pull()) => lane.ok_or(timeout),
                () = hopeless.wait() => Err(None),
            };
            let lane = match lane {
                Ok(lane) => lane,
                Err(timeout) => {
                    let gave_up = gave_up(&dialler, timeout);
                    let _ = events.send(event(Inward::GaveUp(gave_up))).await;
                    return;
                }
            };
            let Some(up) = up(conn, &lane) else { continue };
            if events.send(event(up)).await.is_err() {
                return;
            }
            receive(lane, conn, &warnings, &scales, &events, event).await;
            if events.send(event(Inward::Down { conn })).await.is_err() {
                return;
            }
        }
    })
}

fn up<M>(conn: Conn, lane: &PullLane) -> Option<Inward<M>> {
    let card = card(lane.peer_identity())?;
    let addr = lane.peer_addr().clone();
    Some(Inward::Up { conn, card, closer: lane.closer(), traffic: lane.traffic(), addr })
}

/// Warnings about a link's peers: a few of a kind in a minute, since a peer that is sent away may come again.
#[derive(Clone)]
struct Warnings(Arc<Mutex<Sparing<(PeerHost, &'static str)>>>);

/// Lines about a peer's breaches of one kind that are logged within a minute.
pub(crate) const BREACH_LINES_MAX: u32 = 5;

impl Default for Warnings {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Sparing::new(BREACH_LINES_MAX))))
    }
}

impl Warnings {
    fn say(&self, peer: &PeerAddr, what: &'static str, why: &dyn std::fmt::Display) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(left_out) = said.say(Instant::now(), (peer.host(), what)) {
            tracing::warn!(%peer, "{what}: {why}{left_out}");
        }
    }
}

/// Delivers messages until the peer goes, or sends a frame that is not a message.
async fn receive<M: Message, E>(
    mut lane: PullLane,
    conn: Conn,
    warnings: &Warnings,
    scales: &Scales,
    events: &mpsc::Sender<E>,
    event: fn(Inward<M>) -> E,
) {
    loop {
        let frame = match lane.recv().await {
            Ok(frame) => frame,
            Err(reason @ (GoneReason::Protocol(_) | GoneReason::Overrun)) => {
                warnings.say(lane.peer_addr(), "connection closed", &reason);
                return;
            }
            Err(reason) => {
                tracing::debug!(conn = conn.0, peer = %lane.peer_addr(), %reason, "lane gone");
                return;
            }
        };
        // Before it is decoded, which takes more memory.
        let weight = scales.weigh(frame.len()).await;
        match decode(&frame) {
            Ok(message) => {
                drop(frame);
                if events.send(event(Inward::Message { conn, message, weight })).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                warnings.say(lane.peer_addr(), "connection closed: not a message", &error);
                lane.closer().refuse(&format!("this is not a message: {error}"));
                let _ = lane.watch().gone().await;
                return;
            }
        }
    }
}

/// Returns the card that a door has accepted.
fn card(identity: &[u8]) -> Option<Card> {
    decode(&Bytes::copy_from_slice(identity)).ok()
}

async fn within<T>(timeout: Option<Duration>, dial: impl Future<Output = T>) -> Option<T> {
    match timeout {
        Some(timeout) => tokio::time::timeout(timeout, dial).await.ok(),
        None => Some(dial.await),
    }
}

/// Returns the failure when there is no lane, after this time or for good.
fn gave_up(dialler: &Dialler, timeout: Option<Duration>) -> GaveUp {
    let endpoint = dialler.endpoint();
    let (code, what) = match timeout {
        Some(timeout) => (CONNECT, format!("{endpoint} was not reached within {timeout:?}")),
        None => (WRONG_PEER, format!("{endpoint} is not the one that is needed")),
    };
    let reason = match dialler.last_error() {
        Some(error) => format!("{what}: {error}"),
        None => what,
    };
    GaveUp { code, reason }
}

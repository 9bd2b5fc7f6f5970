//! A lane that sends.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use zeromq::{PushSocket, SocketSend, ZmqMessage};

use crate::attach::{Attached, ZmqSocket};
use crate::lane::sealed::Sealed;
use crate::lane::{Closer, GoneReason, Lane, LaneGone, LaneState, LaneWatch, Peer, Traffic};
use crate::pump::{Flow, Pump};
use crate::stream::PeerAddr;

/// Longest frame whose header has two bytes.
const SHORT_FRAME_BYTES_MAX: u64 = 255;

/// A PUSH socket with one peer. Dropping it closes the connection at once, even with frames still
/// queued; [`close`](Self::close) does not.
pub struct PushLane {
    socket: ZmqSocket<PushSocket>,
    pump: Pump,
    state: Arc<LaneState>,
    peer: Peer,
    /// Bytes that were queued, as they go over the wire, those of the handshake included.
    queued: u64,
}

impl PushLane {
    /// Returns the peer's ZMTP identity. For a peer that gave none zmq.rs makes up 16 random bytes.
    pub fn peer_identity(&self) -> &[u8] {
        &self.peer.identity
    }

    /// Returns the name of the peer.
    pub fn peer_addr(&self) -> &PeerAddr {
        &self.peer.addr
    }

    /// Returns the bytes in and out; the handle outlives the lane.
    pub fn traffic(&self) -> Arc<Traffic> {
        self.state.traffic.clone()
    }

    /// Returns a handle that ends the lane from elsewhere.
    pub fn closer(&self) -> Closer {
        Closer(self.state.clone())
    }

    /// Queues a frame, to be sent as soon as the peer takes it. Never waits: the caller has to
    /// bound the frames that are sent and not acknowledged, and a lane whose queue of 100,000
    /// frames is full is closed.
    ///
    /// `Ok` does not mean that the peer has got the frame, or will.
    ///
    /// # Errors
    ///
    /// When the lane is closed, by the peer or because its queue was full.
    pub fn send(&mut self, frame: Bytes) -> Result<(), LaneGone> {
        if let Some(reason) = self.state.gone() {
            return Err(LaneGone { reason });
        }
        let frame_bytes = frame.len() as u64;
        let header_bytes = if frame_bytes <= SHORT_FRAME_BYTES_MAX { 2 } else { 9 };
        let reason = match self.socket.0.send(ZmqMessage::from(frame)).now_or_never() {
            Some(Ok(())) => {
                self.queued += header_bytes + frame_bytes;
                return Ok(());
            }
            Some(Err(_)) => GoneReason::Closed,
            None => GoneReason::Overrun,
        };
        self.state.end(reason.clone());
        self.pump.stop();
        // The pump may have stored the reason earlier.
        Err(LaneGone { reason: self.state.gone().unwrap_or(reason) })
    }

    /// Returns the bytes that were queued and that the kernel has not taken for the peer; none when the lane is gone.
    pub fn queue_bytes(&self) -> u64 {
        if self.state.gone().is_some() {
            return 0;
        }
        self.queued.saturating_sub(self.state.traffic.bytes_out())
    }

    /// Returns a future that resolves when no more than so many bytes of those that are queued now are left in the
    /// queue, or when the lane is gone.
    pub fn drained(&self, bytes: u64) -> impl Future<Output = ()> + use<> {
        let (state, until) = (self.state.clone(), self.queued.saturating_sub(bytes));
        async move {
            let gone = state.watch().gone();
            let sent = async {
                loop {
                    let mut sent = pin!(state.sent.notified());
                    // From now on, so that nothing is missed between the question and the wait.
                    sent.as_mut().enable();
                    if state.traffic.bytes_out() >= until {
                        return;
                    }
                    sent.await;
                }
            };
            tokio::select! {
                () = sent => {}
                _ = gone => {}
            }
        }
    }

    /// Resolves when the peer has closed its end or the connection broke. Cancel-safe.
    ///
    /// The socket itself would never notice: it goes on taking frames for a peer that is no more.
    pub async fn gone(&mut self) -> GoneReason {
        self.watch().gone().await
    }

    /// Returns a handle for another task to wait on.
    pub fn watch(&self) -> LaneWatch {
        self.state.watch()
    }

    /// Sends all queued frames, ends the connection in order, and waits until the peer has read
    /// everything and closed its end too, but no longer than `linger`. The kernel goes on sending
    /// the bytes that it has taken by then.
    pub async fn close(self, linger: Duration) {
        let Self { socket, pump, .. } = self;
        drop(socket);
        pump.finish(linger).await;
    }
}

impl fmt::Debug for PushLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushLane").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Lane for PushLane {}

impl Sealed for PushLane {
    type Socket = PushSocket;
    const FLOW: Flow = Flow::Out;

    fn new(attached: Attached<PushSocket>) -> Self {
        let Attached { socket, pump, state, peer, .. } = attached;
        let queued = state.traffic.bytes_out();
        Self { socket, pump, state, peer, queued }
    }

    fn watch(&self) -> LaneWatch {
        self.state.watch()
    }
}

//! A lane that carries out.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use zeromq::{PushSocket, SocketSend, ZmqMessage};

use crate::attach::{Attached, ZmqSocket};
use crate::lane::sealed::Sealed;
use crate::lane::{Closer, GoneReason, Lane, LaneGone, LaneState, LaneWatch, Peer, Traffic};
use crate::pump::{Flow, Pump};

/// A PUSH socket with one peer. Dropping it closes the connection at once, whatever is still queued;
/// [`close`](Self::close) does not.
pub struct PushLane {
    socket: ZmqSocket<PushSocket>,
    pump: Pump,
    state: Arc<LaneState>,
    peer: Peer,
}

impl PushLane {
    /// What the peer gave as its ZMTP identity. For a peer that gave none zmq.rs makes up 16 random bytes.
    pub fn peer_identity(&self) -> &[u8] {
        &self.peer.identity
    }

    /// The network address of the peer.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer.addr
    }

    /// Bytes in and out; the handle outlives the lane.
    pub fn traffic(&self) -> Arc<Traffic> {
        self.state.traffic.clone()
    }

    /// A handle that ends the lane from elsewhere.
    pub fn closer(&self) -> Closer {
        Closer(self.state.clone())
    }

    /// Queues a frame, to be sent as soon as the peer takes it. Never waits: what is sent without being
    /// acknowledged is for the caller to bound, and a lane whose queue of 100,000 frames is full is closed.
    ///
    /// `Ok` does not mean that the peer has got it, or will.
    pub fn send(&mut self, frame: Bytes) -> Result<(), LaneGone> {
        if let Some(reason) = self.state.gone() {
            return Err(LaneGone { reason });
        }
        let reason = match self.socket.0.send(ZmqMessage::from(frame)).now_or_never() {
            Some(Ok(())) => return Ok(()),
            Some(Err(_)) => GoneReason::Closed,
            None => GoneReason::Overrun,
        };
        self.state.end(reason.clone());
        self.pump.stop();
        // The pump may have been quicker to say why.
        Err(LaneGone { reason: self.state.gone().unwrap_or(reason) })
    }

    /// Resolves when the peer has closed its end or the connection broke. Cancel-safe.
    ///
    /// The socket itself would never notice: it goes on taking frames for a peer that is no more.
    pub async fn gone(&mut self) -> GoneReason {
        self.watch().gone().await
    }

    /// A handle for another task to wait on.
    pub fn watch(&self) -> LaneWatch {
        self.state.watch()
    }

    /// Sends everything that is queued, says goodbye, and waits until the peer has read it all and closed
    /// its end too, but no longer than `linger`. What the kernel has taken by then it goes on sending.
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
        Self { socket, pump, state, peer }
    }

    fn watch(&self) -> LaneWatch {
        self.state.watch()
    }
}

//! A lane that receives.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc;
use zeromq::{PullSocket, SocketEvent, SocketRecv};

use crate::attach::{Attached, ZmqSocket};
use crate::lane::sealed::Sealed;
use crate::lane::{Closer, GoneReason, Lane, LaneState, LaneWatch, Peer, Traffic};
use crate::pump::{Flow, Pump};
use crate::stream::PeerAddr;
use crate::unfinished::LARGE_BYTES_MIN;

/// A PULL socket with one peer. Dropping it closes the connection.
pub struct PullLane {
    socket: ZmqSocket<PullSocket>,
    events: mpsc::Receiver<SocketEvent>,
    /// The socket has no more frames, and said so.
    drained: bool,
    /// Bytes of the latest frame, if it is a large one: the next call says that it is done with.
    large_bytes: u64,
    _pump: Pump,
    state: Arc<LaneState>,
    peer: Peer,
}

impl PullLane {
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

    /// Returns the next frame. When the peer has gone, returns first every frame that had arrived
    /// completely, and only then the reason, on every further call. Cancel-safe.
    ///
    /// A frame is a slice of a read buffer and keeps all of that buffer in memory. A large one counts as unfinished
    /// until the next call.
    ///
    /// # Errors
    ///
    /// When the peer has gone, with the reason.
    pub async fn recv(&mut self) -> Result<Bytes, GoneReason> {
        let done = std::mem::take(&mut self.large_bytes);
        if done > 0 {
            self.state.frames.done(done);
        }
        if !self.drained {
            tokio::select! {
                // The socket would wait for ever for another peer. That it has lost its peer it
                // reports to its monitor alone, while it is being asked for the next frame: hence
                // the order.
                biased;
                received = self.socket.0.recv() => {
                    let frame = received.ok().and_then(|message| message.into_vecdeque().pop_front());
                    if let Some(frame) = frame {
                        let bytes = frame.len() as u64;
                        self.large_bytes = if bytes < LARGE_BYTES_MIN { 0 } else { bytes };
                        return Ok(frame);
                    }
                }
                () = disconnected(&mut self.events) => {}
            }
            self.drained = true;
        }
        Err(self.watch().gone().await)
    }

    /// Returns a handle for another task to wait on. It resolves when the peer goes, which may be
    /// before the last frames were received here.
    pub fn watch(&self) -> LaneWatch {
        self.state.watch()
    }
}

async fn disconnected(events: &mut mpsc::Receiver<SocketEvent>) {
    while let Some(event) = events.next().await {
        if let SocketEvent::Disconnected(_) = event {
            return;
        }
    }
}

impl fmt::Debug for PullLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullLane").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Lane for PullLane {}

impl Sealed for PullLane {
    type Socket = PullSocket;
    const FLOW: Flow = Flow::In;

    fn new(attached: Attached<PullSocket>) -> Self {
        let Attached { socket, events, pump, state, peer } = attached;
        Self { socket, events, drained: false, large_bytes: 0, _pump: pump, state, peer }
    }

    fn watch(&self) -> LaneWatch {
        self.state.watch()
    }
}

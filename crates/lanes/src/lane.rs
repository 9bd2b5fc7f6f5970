//! What both kinds of lane have in common: why they end, who hears of it, and what passed through them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::attach::Attached;
use crate::meter::Violation;
use crate::pump::Flow;

/// Why a lane carries nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GoneReason {
    /// The peer closed its end.
    #[error("the peer closed the connection")]
    Ended,
    /// The connection broke, or a timeout of TCP's said that it must have.
    #[error("the connection broke: {0}")]
    Broken(io::ErrorKind),
    /// The peer sent what it may not, and was cut off.
    #[error("the peer sent {0}")]
    Protocol(#[from] Violation),
    /// The peer took so little for so long that ZeroMQ's queue of frames to send was full.
    #[error("the peer does not keep up and its queue is full")]
    Overrun,
    /// It was closed at this end.
    #[error("the lane was closed")]
    Closed,
}

/// The frame was not sent, and nothing else will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the lane is gone: {reason}")]
pub struct LaneGone {
    /// Why it is.
    pub reason: GoneReason,
}

/// Tells another task when a lane is gone.
#[derive(Debug, Clone)]
pub struct LaneWatch(watch::Receiver<Option<GoneReason>>);

impl LaneWatch {
    /// Resolves once the lane is gone; for a lane that was dropped, to [`GoneReason::Closed`].
    pub async fn gone(mut self) -> GoneReason {
        match self.0.wait_for(Option::is_some).await {
            Ok(reason) => reason.unwrap_or(GoneReason::Closed),
            Err(_) => GoneReason::Closed,
        }
    }
}

/// Bytes that passed through a lane on the network's side, ZMTP's own included. Stays readable after it.
#[derive(Debug, Default)]
pub struct Traffic {
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
}

impl Traffic {
    /// Bytes received from the peer.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    /// Bytes handed to the kernel for the peer.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Ordering::Relaxed)
    }
}

/// [`PushLane`](crate::PushLane) or [`PullLane`](crate::PullLane): what a [`Gate`](crate::Gate) can yield.
pub trait Lane: sealed::Sealed {}

pub(crate) mod sealed {
    use super::{Attached, Flow};

    pub trait Sealed: Sized + Send + 'static {
        type Socket: zeromq::Socket + 'static;
        const FLOW: Flow;

        fn new(attached: Attached<Self::Socket>) -> Self;
    }
}

/// The other end of a lane.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) identity: Bytes,
    pub(crate) addr: SocketAddr,
}

/// Shared by a lane and its pump.
#[derive(Debug)]
pub(crate) struct LaneState {
    gone: watch::Sender<Option<GoneReason>>,
    pub(crate) traffic: Arc<Traffic>,
    /// Given back when both the lane and its pump are no more.
    _permit: Option<OwnedSemaphorePermit>,
}

impl LaneState {
    /// For a lane that nobody counts.
    pub(crate) fn uncounted() -> Arc<Self> {
        Self::new(None)
    }

    /// For a lane that is one of a limited number.
    pub(crate) fn counted(permit: OwnedSemaphorePermit) -> Arc<Self> {
        Self::new(Some(permit))
    }

    fn new(permit: Option<OwnedSemaphorePermit>) -> Arc<Self> {
        let gone = watch::Sender::new(None);
        Arc::new(Self { gone, traffic: Arc::default(), _permit: permit })
    }

    /// The first reason stays: what follows is its consequence.
    pub(crate) fn end(&self, reason: GoneReason) {
        self.gone.send_if_modified(|gone| {
            let is_first = gone.is_none();
            gone.get_or_insert(reason);
            is_first
        });
    }

    pub(crate) fn gone(&self) -> Option<GoneReason> {
        *self.gone.borrow()
    }

    pub(crate) fn watch(&self) -> LaneWatch {
        LaneWatch(self.gone.subscribe())
    }
}

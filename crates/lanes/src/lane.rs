//! What both kinds of lane have in common: why they end, who hears of it, and what passed through them.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::attach::Attached;
use crate::meter::Violation;
use crate::pump::Flow;

/// Why a lane carries nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
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
    /// The peer closed it and said why.
    #[error("it says: {0}")]
    Told(Arc<str>),
    /// It was closed at this end, and the peer was told why.
    #[error("{0}")]
    Refused(Arc<str>),
}

impl GoneReason {
    /// What the peer is told of it, if it is of any use to the peer.
    pub(crate) fn to_tell(&self) -> Option<String> {
        match self {
            Self::Refused(reason) => Some(reason.to_string()),
            Self::Protocol(violation) => Some(format!("what came was {violation}")),
            Self::Ended | Self::Broken(_) | Self::Overrun | Self::Closed | Self::Told(_) => None,
        }
    }
}

/// The frame was not sent, and nothing else will be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the lane is gone: {reason}")]
pub struct LaneGone {
    /// Why it is.
    pub reason: GoneReason,
}

/// Tells another task when a lane is gone.
#[derive(Debug, Clone)]
pub struct LaneWatch(watch::Receiver<Option<GoneReason>>);

impl LaneWatch {
    /// Why the lane is gone, if it is.
    pub fn reason(&self) -> Option<GoneReason> {
        self.0.borrow().clone()
    }

    /// Resolves once the lane is gone; for a lane that was dropped, to [`GoneReason::Closed`].
    pub async fn gone(mut self) -> GoneReason {
        match self.0.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(GoneReason::Closed),
            Err(_) => GoneReason::Closed,
        }
    }
}

/// Ends a lane from anywhere, with a reason that the peer is told.
#[derive(Debug, Clone)]
pub struct Closer(pub(crate) Arc<LaneState>);

impl Closer {
    /// Closes the lane. What arrives from now on is not delivered.
    pub fn refuse(&self, reason: &str) {
        self.0.dismissal.send_if_modified(|dismissal| {
            let is_first = dismissal.is_none();
            dismissal.get_or_insert_with(|| reason.into());
            is_first
        });
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
    use super::{Attached, Flow, LaneWatch};

    pub trait Sealed: Sized + Send + 'static {
        type Socket: zeromq::Socket + 'static;
        const FLOW: Flow;

        fn new(attached: Attached<Self::Socket>) -> Self;

        fn watch(&self) -> LaneWatch;
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
    /// Why it is to be closed, if somebody here wants it so.
    dismissal: watch::Sender<Option<Arc<str>>>,
    pub(crate) traffic: Arc<Traffic>,
    /// The peer is being told why the lane ends. Meanwhile the pump is not stopped.
    is_telling: AtomicBool,
    /// Given back when both the lane and its pump are no more.
    permits: Mutex<Vec<OwnedSemaphorePermit>>,
}

impl LaneState {
    /// For a lane that nobody counts.
    pub(crate) fn uncounted() -> Arc<Self> {
        Self::new(Vec::new())
    }

    /// For a lane that is one of a limited number.
    pub(crate) fn counted(permit: OwnedSemaphorePermit) -> Arc<Self> {
        Self::new(vec![permit])
    }

    fn new(permits: Vec<OwnedSemaphorePermit>) -> Arc<Self> {
        Arc::new(Self {
            gone: watch::Sender::new(None),
            dismissal: watch::Sender::new(None),
            traffic: Arc::default(),
            is_telling: AtomicBool::new(false),
            permits: Mutex::new(permits),
        })
    }

    /// One more limited number that it is one of.
    pub(crate) fn hold(&self, permit: Option<OwnedSemaphorePermit>) {
        self.permits.lock().unwrap_or_else(PoisonError::into_inner).extend(permit);
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
        self.gone.borrow().clone()
    }

    pub(crate) fn watch(&self) -> LaneWatch {
        LaneWatch(self.gone.subscribe())
    }

    /// Resolves when somebody here wants it closed.
    pub(crate) async fn dismissed(&self) -> Arc<str> {
        let mut dismissal = self.dismissal.subscribe();
        match dismissal.wait_for(Option::is_some).await.map(|reason| reason.clone()) {
            Ok(Some(reason)) => reason,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    pub(crate) fn is_telling(&self) -> bool {
        self.is_telling.load(Ordering::Relaxed)
    }

    pub(crate) fn begin_telling(&self) {
        self.is_telling.store(true, Ordering::Relaxed);
    }
}

//! Common parts of both kinds of lane: why they end, how their end is observed, and the bytes that
//! passed through them.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{Notify, OwnedSemaphorePermit, watch};

use crate::attach::Attached;
use crate::door::Admitted;
use crate::gate::Pass;
use crate::meter::Violation;
use crate::options::LaneOptions;
use crate::porch::NoRoom;
use crate::pump::Flow;
use crate::stream::PeerAddr;
use crate::unfinished::LaneFrames;

/// Reason why a lane ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GoneReason {
    /// The peer closed its end.
    #[error("the peer closed the connection")]
    Ended,
    /// The connection broke, or a timeout of TCP's said that it must have.
    #[error("the connection broke: {0}")]
    Broken(io::ErrorKind),
    /// The peer sent bytes that it may not send, and was cut off.
    #[error("the peer sent {0}")]
    Protocol(#[from] Violation),
    /// The peer took so few frames that ZeroMQ's queue was full.
    #[error("the peer does not keep up and its queue is full")]
    Overrun,
    /// The lane was closed at this end.
    #[error("the lane was closed")]
    Closed,
    /// The peer closed the lane and gave a reason.
    #[error("it says: {0}")]
    Told(Arc<str>),
    /// The lane was closed at this end, and the peer was told why.
    #[error("{0}")]
    Refused(Arc<str>),
}

impl GoneReason {
    /// Returns the reason to send to the peer, if it is of any use there.
    pub(crate) fn to_tell(&self) -> Option<String> {
        match self {
            Self::Refused(reason) => Some(reason.to_string()),
            Self::Protocol(violation) => Some(format!("you sent {violation}")),
            Self::Ended | Self::Broken(_) | Self::Overrun | Self::Closed | Self::Told(_) => None,
        }
    }
}

/// Error: the frame was not sent, and no other will be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the lane is gone: {reason}")]
pub struct LaneGone {
    /// Reason why the lane is gone.
    pub reason: GoneReason,
}

/// Handle by which another task waits for the end of a lane.
#[derive(Debug, Clone)]
pub struct LaneWatch(watch::Receiver<Option<GoneReason>>);

impl LaneWatch {
    /// Returns the reason why the lane is gone, if it is.
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

/// Handle that ends a lane from anywhere, with a reason for the peer.
#[derive(Debug, Clone)]
pub struct Closer(pub(crate) Arc<LaneState>);

impl Closer {
    /// Closes the lane. Frames that arrive from now on are not delivered.
    pub fn refuse(&self, reason: &str) {
        self.0.dismiss(reason);
    }
}

/// Bytes that passed through a lane on the network's side, ZMTP's own included. Readable after the
/// lane has ended.
#[derive(Debug, Default)]
pub struct Traffic {
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    /// Nothing is read, because too much of unfinished messages is there.
    pub(crate) is_paused: AtomicBool,
}

impl Traffic {
    /// Returns the bytes received from the peer.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    /// Returns whether nothing is read from the peer at present because too much of unfinished messages has come on
    /// all lanes: its silence means nothing.
    pub fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Relaxed)
    }

    /// Returns the bytes given to the kernel for the peer.
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

/// Peer of a lane.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) identity: Bytes,
    pub(crate) addr: PeerAddr,
}

/// State that a lane and its pump share.
#[derive(Debug)]
pub(crate) struct LaneState {
    gone: watch::Sender<Option<GoneReason>>,
    /// Reason why the lane is to be closed, set at this end.
    dismissal: watch::Sender<Option<Arc<str>>>,
    pub(crate) traffic: Arc<Traffic>,
    /// The peer is being told why the lane ends. Meanwhile the pump is not stopped.
    is_telling: AtomicBool,
    /// Permits that are returned when both the lane and its pump have ended.
    permits: Mutex<Vec<OwnedSemaphorePermit>>,
    /// Bytes of messages that have begun and not ended, or were not taken.
    pub(crate) frames: LaneFrames,
    /// Bytes were sent.
    pub(crate) sent: Notify,
    /// Place among a gate's connections, given back likewise.
    pass: Option<Pass>,
}

impl LaneState {
    /// Creates the state of a lane that is not counted.
    pub(crate) fn uncounted(options: &LaneOptions) -> Arc<Self> {
        Self::new(None, options)
    }

    /// Creates the state of a lane that is one of a limited number.
    pub(crate) fn counted(pass: Pass, options: &LaneOptions) -> Arc<Self> {
        Self::new(Some(pass), options)
    }

    fn new(pass: Option<Pass>, options: &LaneOptions) -> Arc<Self> {
        Arc::new(Self {
            gone: watch::Sender::new(None),
            dismissal: watch::Sender::new(None),
            traffic: Arc::default(),
            is_telling: AtomicBool::new(false),
            permits: Mutex::default(),
            frames: LaneFrames::new(options.unfinished.clone()),
            sent: Notify::new(),
            pass,
        })
    }

    /// Takes the place of a peer that has been let in, and adds its permit of another limited number.
    pub(crate) fn let_in(&self, admitted: Admitted) -> Result<(), NoRoom> {
        let Admitted { permit, may_use_reserve } = admitted;
        self.permits.lock().unwrap_or_else(PoisonError::into_inner).extend(permit);
        self.pass.as_ref().map_or(Ok(()), |pass| pass.judged(may_use_reserve))
    }

    /// Sets the reason of the end. The first one stays: later ones are its consequences.
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

    /// Closes the lane from this end, and tells the peer why. The first reason stays.
    pub(crate) fn dismiss(&self, reason: &str) {
        self.dismissal.send_if_modified(|dismissal| {
            let is_first = dismissal.is_none();
            dismissal.get_or_insert_with(|| reason.into());
            is_first
        });
    }

    /// Resolves when the lane is to be closed from this end.
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

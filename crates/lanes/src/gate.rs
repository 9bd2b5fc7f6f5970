//! A gate: a listening port that makes a lane of every connection.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tracing::{debug, error, info, warn};

use crate::attach::{HandshakeError, attach};
use crate::endpoint::Endpoint;
use crate::lane::{GoneReason, Lane, LaneState};
use crate::options::LaneOptions;
use crate::pull::PullLane;
use crate::push::PushLane;
use crate::tcp;

/// A gate whose lanes carry out, to peers that dial with PULL.
pub type PushGate = Gate<PushLane>;
/// A gate whose lanes carry in, from peers that dial with PUSH.
pub type PullGate = Gate<PullLane>;

/// Listens, shakes hands and yields lanes. Handshakes run beside one another and whether or not
/// [`accept`](Self::accept) is being awaited, so that a slow or hostile stranger delays nobody.
///
/// Dropping a gate closes the port and the lanes nobody has taken; those that were yielded stay.
pub struct Gate<L> {
    endpoint: Endpoint,
    lanes: mpsc::UnboundedReceiver<L>,
    porter: JoinHandle<()>,
}

/// Why a gate cannot listen.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum BindError {
    #[error("{endpoint} is taken by another process")]
    Taken { endpoint: Endpoint },
    #[error("{endpoint} is not an address of this machine")]
    NotHere { endpoint: Endpoint },
    #[error("{endpoint} may not be listened on by this user (ports below 1024 need a privilege)")]
    Forbidden { endpoint: Endpoint },
    #[error("{endpoint} names a host that does not resolve: {source}")]
    Unresolved { endpoint: Endpoint, source: io::Error },
    #[error("{endpoint} cannot be listened on: {source}")]
    Failed { endpoint: Endpoint, source: io::Error },
    #[error("the inherited socket cannot be listened on: {source}")]
    Inherited { source: io::Error },
}

/// Connections that the kernel keeps for a listener that is not being accepted from.
const BACKLOG: i32 = 1024;

/// Listens on an endpoint without a runtime, for a gate to [adopt](Gate::adopt) later: peers may dial from
/// now on, and the port is known. Of a name's addresses the first that can be had is taken.
pub fn bind(endpoint: &Endpoint) -> Result<std::net::TcpListener, BindError> {
    let addresses: Vec<SocketAddr> = match (endpoint.host(), endpoint.port()).to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(source) => return Err(BindError::Unresolved { endpoint: endpoint.clone(), source }),
    };
    let failed = |source| BindError::new(endpoint, source);
    let listener = std::net::TcpListener::bind(&addresses[..]).map_err(failed)?;
    // The standard library's is 128; a thousand workers may dial at once.
    socket2::SockRef::from(&listener).listen(BACKLOG).map_err(failed)?;
    Ok(listener)
}

impl<L: Lane> Gate<L> {
    /// Listens on an endpoint. Of a name's addresses the first that can be had is taken.
    pub async fn bind(endpoint: &Endpoint, options: LaneOptions) -> Result<Self, BindError> {
        let host = (endpoint.host(), endpoint.port());
        let addresses: Vec<SocketAddr> = match tokio::net::lookup_host(host).await {
            Ok(addresses) => addresses.collect(),
            Err(source) => {
                return Err(BindError::Unresolved { endpoint: endpoint.clone(), source });
            }
        };
        let failed = |source| BindError::new(endpoint, source);
        let listener = TcpListener::bind(&addresses[..]).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        Ok(Self::open(listener, endpoint.with_port(port), options))
    }

    /// Takes over a listener that somebody else has bound. Needs a tokio runtime around it.
    pub fn adopt(listener: std::net::TcpListener, options: LaneOptions) -> Result<Self, BindError> {
        let inherited = |source| BindError::Inherited { source };
        listener.set_nonblocking(true).map_err(inherited)?;
        let listener = TcpListener::from_std(listener).map_err(inherited)?;
        let endpoint = listener.local_addr().map_err(inherited)?.into();
        Ok(Self::open(listener, endpoint, options))
    }

    fn open(listener: TcpListener, endpoint: Endpoint, options: LaneOptions) -> Self {
        let (lanes_in, lanes) = mpsc::unbounded_channel();
        let porter = Porter {
            endpoint: endpoint.clone(),
            // The limit bounds the channel as well: a lane in it has its permit.
            connections: Arc::new(Semaphore::new(
                options.connections_max.min(Semaphore::MAX_PERMITS),
            )),
            options: Arc::new(options),
            lanes: lanes_in,
            handshakes: JoinSet::new(),
        };
        Self { endpoint, lanes, porter: tokio::spawn(porter.run(listener)) }
    }

    /// The host as it was asked for, and the actual port.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    /// The next lane whose handshake is complete. Cancel-safe.
    pub async fn accept(&mut self) -> L {
        self.lanes.recv().await.expect("the porter runs until the gate is dropped")
    }

    /// As dropping it, but when this returns the port is free again.
    pub async fn close(mut self) {
        self.porter.abort();
        // Cancelled, which is what was asked for.
        let _ = (&mut self.porter).await;
    }
}

impl<L> fmt::Debug for Gate<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl<L> Drop for Gate<L> {
    fn drop(&mut self) {
        self.porter.abort();
    }
}

impl BindError {
    fn new(endpoint: &Endpoint, source: io::Error) -> Self {
        let endpoint = endpoint.clone();
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::Taken { endpoint },
            io::ErrorKind::AddrNotAvailable => Self::NotHere { endpoint },
            io::ErrorKind::PermissionDenied => Self::Forbidden { endpoint },
            _ => Self::Failed { endpoint, source },
        }
    }
}

/// How long the porter waits after the system would not give it a connection, for want of file descriptors
/// as a rule.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Accepts connections for a gate and sees them through their handshakes.
struct Porter<L> {
    endpoint: Endpoint,
    connections: Arc<Semaphore>,
    options: Arc<LaneOptions>,
    lanes: mpsc::UnboundedSender<L>,
    /// Dropped, and thereby ended, with the porter.
    handshakes: JoinSet<()>,
}

impl<L: Lane> Porter<L> {
    async fn run(mut self, listener: TcpListener) {
        let mut failing = false;
        let mut full = false;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(ended) = self.handshakes.join_next() => {
                    if let Err(error) = ended {
                        error!(endpoint = %self.endpoint, %error, "a handshake panicked");
                    }
                    continue;
                }
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    if !failing {
                        warn!(endpoint = %self.endpoint, %error, "cannot accept connections, trying on");
                    }
                    failing = true;
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                    continue;
                }
            };
            failing = false;
            match self.connections.clone().try_acquire_owned() {
                Ok(permit) => {
                    full = false;
                    self.admit(stream, peer, permit);
                }
                Err(_) => {
                    let max = self.options.connections_max;
                    if !full {
                        warn!(endpoint = %self.endpoint, max, "too many connections, refusing more");
                    }
                    full = true;
                    debug!(endpoint = %self.endpoint, %peer, max, "refused: too many connections");
                }
            }
        }
    }

    fn admit(&mut self, stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
        let (endpoint, options) = (self.endpoint.clone(), self.options.clone());
        let lanes = self.lanes.clone();
        self.handshakes.spawn(async move {
            match shake_hands::<L>(stream, peer, permit, &options).await {
                Ok(lane) => {
                    debug!(%endpoint, %peer, "lane open");
                    // Fails only when the gate is gone, and then the lane should be too.
                    let _ = lanes.send(lane);
                }
                Err(error @ HandshakeError::Local(_)) => {
                    warn!(%endpoint, %peer, %error, "connection lost");
                }
                // A port scan, or somebody's health check.
                Err(
                    reason @ (HandshakeError::Timeout(_) | HandshakeError::Gone(GoneReason::Ended)),
                ) => {
                    debug!(%endpoint, %peer, %reason, "refused");
                }
                Err(reason) => info!(%endpoint, %peer, %reason, "refused"),
            }
        });
    }
}

/// What comes between TCP and ZMTP on an accepted connection belongs here.
async fn shake_hands<L: Lane>(
    stream: TcpStream,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
    options: &LaneOptions,
) -> Result<L, HandshakeError> {
    tcp::configure(&stream, options).map_err(HandshakeError::Local)?;
    attach::<L, _>(stream, peer, None, LaneState::counted(permit), options).await
}

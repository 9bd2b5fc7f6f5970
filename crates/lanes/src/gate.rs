//! A gate: a listening port, or Unix socket, that makes a lane of every connection.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::Instant;
use tracing::{debug, error, warn};
use tradewind_keys::Fault;

use crate::attach::{HandshakeError, attach};
use crate::door::Door;
use crate::endpoint::{Endpoint, TcpEndpoint};
use crate::keyring::{End, Lock};
use crate::lane::{GoneReason, Lane, LaneState};
use crate::listener::{Accepted, Accepting, Listener, judge};
use crate::meter::{error_command, greeting};
use crate::options::LaneOptions;
use crate::porch::{Arrival, Limits, NoRoom, Porch, Ticket};
use crate::pull::PullLane;
use crate::push::PushLane;
use crate::sparing::Sparing;
use crate::stream::{PeerAddr, PeerHost, Stream};
use crate::unix;

/// A gate whose lanes send, to peers that dial with PULL.
pub type PushGate = Gate<PushLane>;
/// A gate whose lanes receive, from peers that dial with PUSH.
pub type PullGate = Gate<PullLane>;

/// Listens, shakes hands and yields lanes. Handshakes run beside one another and whether or not
/// [`accept`](Self::accept) is being awaited, so that a slow or hostile stranger delays no other
/// peer.
///
/// Dropping a gate closes the port and the lanes that were not yielded; the yielded ones stay.
pub struct Gate<L> {
    endpoint: Endpoint,
    lanes: mpsc::UnboundedReceiver<L>,
    /// Lanes of another gate.
    others: Option<mpsc::UnboundedReceiver<L>>,
    porter: JoinHandle<()>,
}

/// Reason why a gate cannot listen.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum BindError {
    #[error("{endpoint} is taken by another process")]
    Taken { endpoint: Endpoint },
    #[error("{endpoint} is not an address of this machine")]
    NotHere { endpoint: Endpoint },
    #[error("{endpoint} may not be listened on by this user ({})", privilege(.endpoint))]
    Forbidden { endpoint: Endpoint },
    #[error("{endpoint} is a file, but not a socket: remove it, or give another path")]
    NotASocket { endpoint: Endpoint },
    #[error("{endpoint} is a socket of user {user}: remove it, or give another path")]
    OfAnotherUser { endpoint: Endpoint, user: u32 },
    #[error("{endpoint} is in a directory that does not exist")]
    DirectoryMissing { endpoint: Endpoint },
    #[error("{endpoint} names a host that does not resolve: {source}")]
    Unresolved { endpoint: Endpoint, source: io::Error },
    #[error("{endpoint} cannot be listened on: {source}")]
    Failed { endpoint: Endpoint, source: io::Error },
    #[error("the inherited socket cannot be listened on: {source}")]
    Inherited { source: io::Error },
}

fn privilege(endpoint: &Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Tcp(_) => "ports below 1024 need a privilege",
        Endpoint::Ipc(_) => "its directory may not be written to",
    }
}

/// Number of connections that the kernel keeps for a listener that is not being accepted from.
pub(crate) const BACKLOG: i32 = 1024;

/// Listens on an endpoint without a runtime, for a gate to [adopt](Gate::adopt) later: peers may dial from
/// now on, and the port is known.
///
/// All addresses of a name are listened on, with one port. `*` and `[::]` are all of this machine, in IPv6
/// and IPv4; where there is no IPv6, in IPv4 alone.
///
/// The file of a Unix socket on which no process listens any more is replaced.
///
/// # Errors
///
/// When the endpoint is in use, is not of this machine or not allowed to this user, or its name does not
/// resolve.
pub fn bind(endpoint: &Endpoint) -> Result<Vec<Listener>, BindError> {
    match endpoint {
        Endpoint::Tcp(tcp) => {
            let listeners = bind_tcp(endpoint, tcp)?;
            Ok(listeners.into_iter().map(Listener::from).collect())
        }
        Endpoint::Ipc(ipc) => Ok(vec![unix::bind(ipc, BACKLOG)?.into()]),
    }
}

fn bind_tcp(
    endpoint: &Endpoint,
    tcp: &TcpEndpoint,
) -> Result<Vec<std::net::TcpListener>, BindError> {
    let unresolved = |source| BindError::Unresolved { endpoint: endpoint.clone(), source };
    let host = if tcp.is_wildcard() { "::" } else { tcp.host() };
    let addresses = (host, tcp.port()).to_socket_addrs().map_err(unresolved)?;
    let failed = |source| BindError::new(endpoint, source);
    let mut listeners: Vec<std::net::TcpListener> = Vec::new();
    let mut failure = None;
    for mut address in addresses {
        if let Some(first) = listeners.first() {
            address.set_port(first.local_addr().map_err(failed)?.port());
        }
        match listen(address) {
            Ok(listener) => listeners.push(listener),
            Err(error) if is_family_missing(&error) && endpoint.is_wildcard() => {
                let everywhere = (Ipv4Addr::UNSPECIFIED, tcp.port()).into();
                listeners.push(listen(everywhere).map_err(failed)?);
            }
            // The name has an address more than this machine.
            Err(error)
                if is_family_missing(&error) || error.kind() == io::ErrorKind::AddrNotAvailable =>
            {
                failure = Some(error);
            }
            // The free port of one address may be taken at the other.
            Err(error) => return Err(failed(error)),
        }
    }
    if listeners.is_empty() {
        let nothing = || io::Error::new(io::ErrorKind::NotFound, "a name without an address");
        return Err(failed(failure.unwrap_or_else(nothing)));
    }
    Ok(listeners)
}

fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Whatever the system's default: the unspecified address takes IPv4 too.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    // The standard library's is 128; a thousand workers may dial at once.
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Returns whether this machine knows no such addresses: IPv6 is switched off, as a rule.
fn is_family_missing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(EAFNOSUPPORT)
        || error.kind() == io::ErrorKind::AddrNotAvailable && is_ipv6_off()
}

fn is_ipv6_off() -> bool {
    Socket::new(Domain::IPV6, Type::STREAM, None)
        .and_then(|socket| {
            socket.bind(&SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 0)).into())
        })
        .is_err()
}

/// Linux's number, on all of its architectures.
const EAFNOSUPPORT: i32 = 97;

impl<L: Lane> Gate<L> {
    /// Listens on an endpoint, on all of its addresses as [`bind`] does.
    ///
    /// # Errors
    ///
    /// Those of [`bind`].
    pub async fn bind(
        endpoint: &Endpoint,
        options: LaneOptions,
        door: Door,
    ) -> Result<Self, BindError> {
        let endpoint = endpoint.clone();
        // A name may take a while to resolve.
        let bound = tokio::task::spawn_blocking(move || (bind(&endpoint), endpoint)).await;
        let (bound, endpoint) = bound.expect("binding does not panic, and is not cancelled");
        Self::open(bound?, Some(endpoint), options, door)
    }

    /// Takes over listeners that are already bound. Needs a tokio runtime around it.
    ///
    /// # Errors
    ///
    /// When a listener cannot be registered with the runtime.
    pub fn adopt(
        listeners: Vec<Listener>,
        options: LaneOptions,
        door: Door,
    ) -> Result<Self, BindError> {
        Self::open(listeners, None, options, door)
    }

    fn open(
        listeners: Vec<Listener>,
        endpoint: Option<Endpoint>,
        options: LaneOptions,
        door: Door,
    ) -> Result<Self, BindError> {
        let inherited = |source| BindError::Inherited { source };
        let nothing = || io::Error::new(io::ErrorKind::NotFound, "there is none");
        let first = listeners.first().ok_or_else(nothing).map_err(inherited)?;
        let actual = first.endpoint().map_err(inherited)?;
        let endpoint = match (endpoint, actual.tcp()) {
            (Some(endpoint), Some(tcp)) => endpoint.with_port(tcp.port()),
            (Some(_) | None, _) => actual,
        };
        let accepting = listeners.into_iter().map(Listener::accepting);
        let listeners = accepting.collect::<Result<Vec<_>, _>>().map_err(inherited)?;
        let (lanes_in, lanes) = mpsc::unbounded_channel();
        let porter = Porter {
            endpoint: endpoint.clone(),
            // The limits bound the channel as well: a lane in it has its pass.
            porch: Arc::new(Mutex::new(Porch::new(Limits {
                connections_max: options.connections_max,
                reserved: options.connections_reserved,
                half_open_max: options.half_open_max,
                per_address_max: options.connections_per_address,
            }))),
            options: Arc::new(options),
            door,
            lanes: lanes_in,
            handshakes: JoinSet::new(),
            half_open: HashMap::new(),
            refused: Arc::default(),
            farewells: Arc::new(Semaphore::new(FAREWELLS_MAX)),
            spare: spare(),
        };
        Ok(Self { endpoint, lanes, others: None, porter: tokio::spawn(porter.run(listeners)) })
    }

    /// Returns the host as it was asked for, with the actual port.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    /// Yields these lanes too, which another gate has yielded: whoever is behind that one passes them on.
    #[must_use]
    pub fn with_lanes(mut self, lanes: mpsc::UnboundedReceiver<L>) -> Self {
        self.others = Some(lanes);
        self
    }

    /// Returns the next lane whose handshake is complete. Cancel-safe.
    pub async fn accept(&mut self) -> L {
        let own = self.lanes.recv();
        let Some(others) = &mut self.others else {
            return own.await.expect("the porter runs until the gate is dropped");
        };
        tokio::select! {
            lane = own => lane.expect("the porter runs until the gate is dropped"),
            Some(lane) = others.recv() => lane,
        }
    }

    /// Closes the gate as dropping it does, but when this returns the port is free again.
    pub async fn close(mut self) {
        self.porter.abort();
        // Cancelled, as requested.
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
    pub(crate) fn new(endpoint: &Endpoint, source: io::Error) -> Self {
        let endpoint = endpoint.clone();
        match source.kind() {
            io::ErrorKind::NotFound if endpoint.tcp().is_none() => {
                Self::DirectoryMissing { endpoint }
            }
            io::ErrorKind::AddrInUse => Self::Taken { endpoint },
            io::ErrorKind::AddrNotAvailable => Self::NotHere { endpoint },
            io::ErrorKind::PermissionDenied => Self::Forbidden { endpoint },
            _ => Self::Failed { endpoint, source },
        }
    }
}

/// Pause of the porter after the system gave it no connection, for want of file descriptors as a
/// rule.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Number of connections that are told at the same time that there are too many. Others are closed
/// without a reason.
const FAREWELLS_MAX: usize = 8;

/// Time that one of them may take to read the reason and leave.
const FAREWELL_MAX: Duration = Duration::from_millis(500);

/// Opens a file that is closed when no more can be opened, to make room for a connection that is
/// told so.
fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Lines that were logged, by peer; `None` where there was no connection to be had.
type Refused = Sparing<(Option<PeerHost>, String)>;

/// Accepts connections for a gate and sees them through their handshakes.
struct Porter<L> {
    endpoint: Endpoint,
    porch: Arc<Mutex<Porch>>,
    options: Arc<LaneOptions>,
    door: Door,
    lanes: mpsc::UnboundedSender<L>,
    /// Dropped, and thereby ended, with the porter. Those of connections that may still become lanes say which one
    /// they were about.
    handshakes: JoinSet<Option<Ticket>>,
    half_open: HashMap<Ticket, AbortHandle>,
    /// Lines that were logged about refused peers.
    refused: Arc<Mutex<Refused>>,
    farewells: Arc<Semaphore>,
    spare: Option<File>,
}

impl<L: Lane> Porter<L> {
    async fn run(mut self, listeners: Vec<Accepting>) {
        loop {
            let full_until = lock(&self.porch).full_until(Instant::now());
            let accepted = tokio::select! {
                accepted = accept(&listeners), if full_until.is_none() => accepted,
                () = until(full_until), if full_until.is_some() => continue,
                Some(ended) = self.handshakes.join_next() => {
                    match ended {
                        Ok(ticket) => drop(ticket.and_then(|it| self.half_open.remove(&it))),
                        Err(error) if error.is_cancelled() => {}
                        Err(error) => {
                            error!(endpoint = %self.endpoint, %error, "a handshake panicked");
                        }
                    }
                    continue;
                }
            };
            match accepted {
                Ok((stream, peer)) => self.receive(stream, peer),
                Err(error) => self.turn_away(&listeners, &error).await,
            }
        }
    }

    fn receive(&mut self, stream: Accepted, peer: PeerAddr) {
        // Before anything is made for it.
        if let Err(reason) = judge(&peer) {
            return say_refused(&self.refused, &self.endpoint, Some(&peer), &reason);
        }
        let arrival = lock(&self.porch).arrive(Instant::now(), peer.ip());
        match arrival {
            Arrival::Admit { ticket, instead_of } => {
                if let Some(oldest) = instead_of.and_then(|it| self.half_open.remove(&it)) {
                    debug!(endpoint = %self.endpoint, "a handshake that goes on for long is ended");
                    oldest.abort();
                }
                self.admit(stream, peer, Pass { porch: self.porch.clone(), ticket });
            }
            Arrival::Refuse(NoRoom::Rate) => {
                // Without a word: that would be work, and this one comes too often already.
                let reason = NoRoom::Rate.to_string();
                say_refused(&self.refused, &self.endpoint, Some(&peer), &reason);
            }
            Arrival::Refuse(reason) => self.send_away(stream, &peer, &reason.to_string()),
        }
    }

    fn admit(&mut self, stream: Accepted, peer: PeerAddr, pass: Pass) {
        let ticket = pass.ticket;
        let (endpoint, options) = (self.endpoint.clone(), self.options.clone());
        let (lanes, door) = (self.lanes.clone(), self.door.clone());
        let refused = self.refused.clone();
        let handshake = self.handshakes.spawn(async move {
            match shake_hands::<L>(stream, peer.clone(), pass, &door, &options).await {
                Ok(lane) => {
                    debug!(%endpoint, %peer, "lane open");
                    // Fails only when the gate is gone, and then the lane should be too.
                    let _ = lanes.send(lane);
                }
                Err(error @ HandshakeError::Local(_)) => {
                    say_refused(&refused, &endpoint, Some(&peer), &error.to_string());
                }
                // A port scan or a health check; a dialler at the wrong gate; a peer that the door
                // refuses, which logs that itself.
                Err(
                    reason @ (HandshakeError::Timeout(_)
                    | HandshakeError::Gone(
                        GoneReason::Ended
                        | GoneReason::Broken(_)
                        | GoneReason::Told(_)
                        | GoneReason::Refused(_),
                    )
                    | HandshakeError::Key(Fault::Io(_))),
                ) => {
                    debug!(%endpoint, %peer, %reason, "refused");
                }
                Err(reason) => {
                    say_refused(&refused, &endpoint, Some(&peer), &reason.to_string());
                }
            }
            Some(ticket)
        });
        self.half_open.insert(ticket, handshake);
    }

    /// Without a file to accept with, accepts a waiting connection with the spare file and tells it
    /// so: else it would wait for an answer, and others behind it.
    async fn turn_away(&mut self, listeners: &[Accepting], error: &io::Error) {
        let is_spare_free = self.spare.take().is_some();
        if is_spare_free
            && let Ok(Ok((stream, peer))) =
                tokio::time::timeout(ACCEPT_BACKOFF, accept(listeners)).await
        {
            if judge(&peer).is_ok() {
                self.send_away(stream, &peer, &format!("no room for a connection: {error}"));
            }
        } else {
            say_refused(&self.refused, &self.endpoint, None, &error.to_string());
        }
        tokio::time::sleep(ACCEPT_BACKOFF).await;
        self.spare = spare();
    }

    fn send_away(&mut self, stream: Accepted, peer: &PeerAddr, reason: &str) {
        say_refused(&self.refused, &self.endpoint, Some(peer), reason);
        let Ok(stream) = stream.stream(&self.options) else { return };
        let Ok(permit) = self.farewells.clone().try_acquire_owned() else { return };
        let words = [&greeting()[..], &error_command(reason)].concat();
        let lock = self.door.lock.clone();
        self.handshakes.spawn(async move {
            let _ = tokio::time::timeout(FAREWELL_MAX, farewell(stream, lock, &words)).await;
            drop(permit);
            None
        });
    }
}

/// Place of a connection at a gate, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    porch: Arc<Mutex<Porch>>,
    ticket: Ticket,
}

impl Pass {
    /// Notes that the door has let the connection in.
    pub(crate) fn judged(&self, may_use_reserve: bool) -> Result<(), NoRoom> {
        lock(&self.porch).judged(self.ticket, may_use_reserve)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        lock(&self.porch).left(self.ticket);
    }
}

fn lock(porch: &Mutex<Porch>) -> MutexGuard<'_, Porch> {
    porch.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn until(time: Option<Instant>) {
    if let Some(time) = time {
        tokio::time::sleep_until(time).await;
    }
}

/// Returns the next connection at any of the listeners. Cancel-safe.
async fn accept(listeners: &[Accepting]) -> io::Result<(Accepted, PeerAddr)> {
    std::future::poll_fn(|context| {
        for listener in listeners {
            if let Poll::Ready(accepted) = listener.poll_accept(context) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
}

async fn farewell(stream: Stream, lock: Option<Lock>, words: &[u8]) -> io::Result<()> {
    let mut stream = match (stream, lock) {
        (Stream::Tcp(stream), Some(lock)) => {
            let secured = lock.secure(stream, End::Gate).await;
            secured.map_err(|_| io::ErrorKind::InvalidData)?.0
        }
        (stream, _) => stream,
    };
    stream.write_all(words).await?;
    stream.flush().await?;
    stream.shutdown().await?;
    // Until the peer has gone: if the socket were closed with unread bytes of the peer, the peer
    // would never read ours.
    let mut ignored = [0; 256];
    while stream.read(&mut ignored).await? > 0 {}
    Ok(())
}

fn say_refused(
    refused: &Mutex<Refused>,
    endpoint: &Endpoint,
    peer: Option<&PeerAddr>,
    reason: &str,
) {
    let mut refused = refused.lock().unwrap_or_else(PoisonError::into_inner);
    // Without the port or process: a peer that comes again does so from another one.
    let key = (peer.map(PeerAddr::host), reason.to_owned());
    let whose = match peer {
        Some(peer) => format!("connection from {peer}"),
        None => "a connection".to_owned(),
    };
    match refused.say(std::time::Instant::now(), key) {
        Some(left_out) => warn!("{whose} to {endpoint} closed: {reason}{left_out}"),
        None => debug!(%endpoint, ?peer, reason, "closed"),
    }
}

async fn shake_hands<L: Lane>(
    stream: Accepted,
    peer: PeerAddr,
    pass: Pass,
    door: &Door,
    options: &LaneOptions,
) -> Result<L, HandshakeError> {
    let stream = stream.stream(options).map_err(HandshakeError::Local)?;
    attach::<L>(stream, peer, door, LaneState::counted(pass, options), End::Gate, options).await
}

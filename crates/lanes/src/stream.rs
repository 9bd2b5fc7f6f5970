//! The byte streams on which lanes run, and the names of the peers at their other ends.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Sleep, sleep};

use crate::endpoint::IpcEndpoint;
use crate::keyring::Secured;
use crate::options::LaneOptions;
use crate::tcp;

/// A connection, ready for ZMTP.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Tls(Box<Secured>),
    Unix(UnixSide),
}

impl Stream {
    /// Takes a TCP connection, and sets its options.
    pub(crate) fn tcp(stream: TcpStream, options: &LaneOptions) -> io::Result<Self> {
        tcp::configure(&stream, options)?;
        Ok(Self::Tcp(stream))
    }

    /// Takes a connection of a Unix socket. It needs no keepalive: the kernel knows when a peer has ended.
    pub(crate) fn unix(stream: UnixStream, options: &LaneOptions) -> Self {
        Self::Unix(UnixSide { stream, untaken_max: options.unacked_max, stall: None })
    }
}

/// A Unix socket whose peer has to read. TCP ends a connection whose data is not taken by itself
/// (`TCP_USER_TIMEOUT`).
#[derive(Debug)]
pub(crate) struct UnixSide {
    stream: UnixStream,
    untaken_max: Duration,
    /// Runs while there is no room for what is to be written.
    stall: Option<Pin<Box<Sleep>>>,
}

impl UnixSide {
    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(context, bytes) {
            self.stall = None;
            return Poll::Ready(written);
        }
        let untaken_max = self.untaken_max;
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(untaken_max)));
        ready!(stall.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => match ready!(Pin::new(stream).poll_read(context, buffer)) {
                // A peer that was killed says no goodbye. The end of a stream means nothing here, be it
                // the peer's or made by another on the way, who could break the connection as well.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                read => Poll::Ready(read),
            },
            Self::Unix(side) => Pin::new(&mut side.stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(side) => side.poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(side) => Pin::new(&mut side.stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(side) => Pin::new(&mut side.stream).poll_shutdown(context),
        }
    }
}

/// Name of a peer, as logs show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerAddr {
    /// Address and port.
    Tcp(SocketAddr),
    /// A process that dialled a Unix socket, which gives it no address.
    Process {
        /// User of the process.
        user: u32,
        /// Its id; `None` if it cannot be seen from here, or if the system does not tell.
        process: Option<i32>,
    },
    /// The Unix socket that was dialled.
    Socket(Arc<IpcEndpoint>),
}

/// Part of a peer's name that stays when the peer comes again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PeerHost {
    /// Address.
    Ip(IpAddr),
    /// User on this machine.
    User(u32),
    /// Unix socket that was dialled.
    Socket(Arc<IpcEndpoint>),
}

impl PeerAddr {
    /// Returns the part of the name that stays when the peer comes again.
    pub fn host(&self) -> PeerHost {
        match self {
            Self::Tcp(address) => PeerHost::Ip(address.ip()),
            Self::Process { user, .. } => PeerHost::User(*user),
            Self::Socket(endpoint) => PeerHost::Socket(endpoint.clone()),
        }
    }

    /// Returns the address by which a peer's connections are counted; a Unix socket gives none.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Process { .. } | Self::Socket(_) => None,
        }
    }

    /// Returns the place of the peer, as it reads after "the sink is": `at tcp://10.0.0.7:5558`.
    pub fn place(&self) -> String {
        match self {
            Self::Tcp(address) => format!("at tcp://{address}"),
            Self::Process { .. } => format!("{self}"),
            Self::Socket(endpoint) => format!("at {endpoint}"),
        }
    }
}

impl From<SocketAddr> for PeerAddr {
    fn from(address: SocketAddr) -> Self {
        // An IPv4 peer of a socket for both, as people write it.
        Self::Tcp((address.ip().to_canonical(), address.port()).into())
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Process { user, process: Some(process) } => {
                write!(f, "process {process} of user {user}")
            }
            Self::Process { user, process: None } => write!(f, "a process of user {user}"),
            Self::Socket(endpoint) => endpoint.fmt(f),
        }
    }
}

impl fmt::Display for PeerHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::User(user) => write!(f, "user {user}"),
            Self::Socket(endpoint) => endpoint.fmt(f),
        }
    }
}

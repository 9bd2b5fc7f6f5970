//! Sockets that listen, before and after a gate has them.

use std::io;
use std::net::TcpListener as StdTcpListener;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::task::{Context, Poll};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::endpoint::Endpoint;
use crate::options::LaneOptions;
use crate::stream::{PeerAddr, Stream};
use crate::unix::{SocketFile, UnixListening, check_user, endpoint_of};

/// Socket that listens, for a gate to [adopt](crate::Gate::adopt).
///
/// The file of a Unix socket that [`bind`](crate::bind) has made is removed when this, or the gate, is dropped.
#[derive(Debug)]
pub struct Listener(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(StdTcpListener),
    Unix(UnixListening),
}

impl Listener {
    /// Returns where it listens, with the actual port.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn endpoint(&self) -> io::Result<Endpoint> {
        match &self.0 {
            Kind::Tcp(listener) => listener.local_addr().map(Endpoint::from),
            Kind::Unix(UnixListening { listener, .. }) => {
                let nameless =
                    || io::Error::new(io::ErrorKind::NotFound, "a socket without a name");
                endpoint_of(&listener.local_addr()?).map(Endpoint::Ipc).ok_or_else(nameless)
            }
        }
    }

    /// Registers the socket with the runtime around it.
    pub(crate) fn accepting(self) -> io::Result<Accepting> {
        match self.0 {
            Kind::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(Accepting::Tcp)
            }
            Kind::Unix(UnixListening { listener, file }) => {
                listener.set_nonblocking(true)?;
                let listener = UnixListener::from_std(listener)?;
                Ok(Accepting::Unix { listener, _file: file })
            }
        }
    }
}

impl From<StdTcpListener> for Listener {
    fn from(listener: StdTcpListener) -> Self {
        Self(Kind::Tcp(listener))
    }
}

/// A socket whose file is left to the process that made it.
impl From<StdUnixListener> for Listener {
    fn from(listener: StdUnixListener) -> Self {
        Self(Kind::Unix(UnixListening { listener, file: None }))
    }
}

impl From<UnixListening> for Listener {
    fn from(listening: UnixListening) -> Self {
        Self(Kind::Unix(listening))
    }
}

/// A gate's listening socket.
pub(crate) enum Accepting {
    Tcp(TcpListener),
    Unix { listener: UnixListener, _file: Option<SocketFile> },
}

/// A connection that was accepted, before anything is known of its peer but its name.
#[derive(Debug)]
pub(crate) enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Accepting {
    pub(crate) fn poll_accept(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(Accepted, PeerAddr)>> {
        match self {
            Self::Tcp(listener) => listener
                .poll_accept(context)
                .map_ok(|(stream, peer)| (Accepted::Tcp(stream), peer.into())),
            Self::Unix { listener, .. } => listener.poll_accept(context).map(|accepted| {
                let (stream, _) = accepted?;
                let peer = stream.peer_cred()?;
                // A process of another namespace has the id 0 here.
                let process = peer.pid().filter(|process| *process > 0);
                Ok((Accepted::Unix(stream), PeerAddr::Process { user: peer.uid(), process }))
            }),
        }
    }
}

impl Accepted {
    /// Makes a stream for a lane of it.
    pub(crate) fn stream(self, options: &LaneOptions) -> io::Result<Stream> {
        match self {
            Self::Tcp(stream) => Stream::tcp(stream, options),
            Self::Unix(stream) => Ok(Stream::unix(stream, options)),
        }
    }
}

/// Returns the reason why a peer may not say a word: on a Unix socket, one that is of another user.
pub(crate) fn judge(peer: &PeerAddr) -> Result<(), String> {
    match peer {
        PeerAddr::Process { user, .. } => check_user(*user)
            .map_err(|_| "only processes of the user that listens may connect".to_owned()),
        PeerAddr::Tcp(_) | PeerAddr::Socket(_) => Ok(()),
    }
}

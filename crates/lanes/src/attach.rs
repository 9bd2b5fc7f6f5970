//! Puts a ZeroMQ socket behind a byte stream.

use std::fs::Permissions;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream as StdUnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};
use tradewind_keys::Fault;
use zeromq::util::PeerIdentity;
use zeromq::{Socket, SocketEvent, SocketOptions, ZmqError};

use crate::door::Door;
use crate::keyring::End;
use crate::lane::sealed::Sealed;
use crate::lane::{GoneReason, LaneState, Peer};
use crate::meter::Meter;
use crate::options::LaneOptions;
use crate::pump::{Guard, Pump};
use crate::stream::{PeerAddr, Stream};

/// Reason why a connection never became a lane.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// The handshake stopped half way.
    #[error("no complete handshake within {0:?}")]
    Timeout(Duration),
    /// The two ends do not trust one another.
    #[error(transparent)]
    Key(#[from] Fault),
    /// The connection did not last, or was ended by the frame meter.
    #[error(transparent)]
    Gone(GoneReason),
    /// ZeroMQ refused the peer, a PUSH behind a PUSH for example.
    #[error("zeromq refused the peer: {0}")]
    Refused(#[source] ZmqError),
    /// A resource of this process is lacking, file descriptors for example.
    #[error("no socket for zeromq: {0}")]
    Local(#[source] io::Error),
}

/// A socket with exactly one peer, whose handshake is complete.
pub struct Attached<Z: Socket> {
    pub(crate) socket: ZmqSocket<Z>,
    pub(crate) events: mpsc::Receiver<SocketEvent>,
    pub(crate) pump: Pump,
    pub(crate) state: Arc<LaneState>,
    pub(crate) peer: Peer,
}

/// Makes a lane of a connection.
pub(crate) async fn attach<L>(
    stream: Stream,
    peer_addr: PeerAddr,
    door: &Door,
    state: Arc<LaneState>,
    end: End,
    options: &LaneOptions,
) -> Result<L, HandshakeError>
where
    L: Sealed,
{
    let timeout = || HandshakeError::Timeout(options.handshake_timeout);
    let deadline = Instant::now() + options.handshake_timeout;
    let (stream, key) = match (stream, &door.lock) {
        (Stream::Tcp(stream), Some(lock)) => {
            let secured = timeout_at(deadline, lock.secure(stream, end)).await;
            let (stream, key) = secured.map_err(|_| timeout())??;
            (stream, Some(key))
        }
        (stream, _) => (stream, None),
    };
    if let (Some(lock), Some(key)) = (&door.lock, &key) {
        lock.watch(key.clone(), &state);
    }
    let (listener, zmq) = private_pair(options.socket_dir.as_deref()).map_err(local)?;
    let mut handshake = Handshake::<L::Socket>::start(listener, door.identity.clone()).await?;
    let meter = Meter::new(L::FLOW.limits(options.message_bytes_max));
    let guard = Guard { door: door.clone(), peer: peer_addr.clone(), key, end };
    let pump = Pump::start(stream, zmq, L::FLOW, meter, guard, state.clone());

    // The pump's end need not be waited for: it closes the Unix socket, and then ZeroMQ comes to a verdict.
    // Nor would it be right to: the peer may have shaken hands, said all it had to say and gone already.
    let verdict = timeout_at(deadline, handshake.verdict()).await;
    let identity = match verdict {
        Ok(Ok(identity)) => match state.gone() {
            // The peer shook hands and refused us at once.
            Some(reason @ GoneReason::Told(_)) => return Err(HandshakeError::Gone(reason)),
            _ => identity,
        },
        Ok(Err(error)) => {
            return Err(match state.gone() {
                Some(reason) if reason != GoneReason::Closed => HandshakeError::Gone(reason),
                _ => HandshakeError::Refused(error),
            });
        }
        Err(_) => return Err(timeout()),
    };
    let (socket, events) = handshake.complete();
    let peer = Peer { identity: identity.into(), addr: peer_addr };
    Ok(L::new(Attached { socket, events, pump, state, peer }))
}

fn local(error: io::Error) -> HandshakeError {
    HandshakeError::Local(error)
}

/// A ZeroMQ socket that leaves nothing behind. A PULL socket that is merely dropped does: its writing task
/// keeps the socket's inside alive, and that keeps the task waiting. What a PUSH socket has queued is still
/// written after its shutdown.
pub(crate) struct ZmqSocket<Z: Socket>(pub(crate) Z);

impl<Z: Socket> Drop for ZmqSocket<Z> {
    fn drop(&mut self) {
        self.0.backend().shutdown();
    }
}

/// A socket that has not decided yet. ZeroMQ shakes hands in a task that cannot be stopped; if the
/// socket were shut down just before that task is done, its peer would be added to a socket without
/// an owner.
struct Handshake<Z: Socket + 'static> {
    /// Taken once ZeroMQ has decided.
    parts: Option<(ZmqSocket<Z>, mpsc::Receiver<SocketEvent>)>,
}

/// Time after which a socket whose Unix stream is closed counts as decided; it should decide at
/// once.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(60);

impl<Z: Socket + 'static> Handshake<Z> {
    async fn start(
        listener: UnixListener,
        identity: Option<PeerIdentity>,
    ) -> Result<Self, HandshakeError> {
        let mut options = SocketOptions::default();
        if let Some(identity) = identity {
            options.peer_identity(identity);
        }
        let mut socket = ZmqSocket(Z::with_options(options));
        // Before the socket is bound, or events are missed.
        let events = socket.0.monitor();
        socket.0.bind_listener(listener).await.map_err(|error| match error {
            ZmqError::Network(error) => HandshakeError::Local(error),
            error => HandshakeError::Refused(error),
        })?;
        Ok(Self { parts: Some((socket, events)) })
    }

    async fn verdict(&mut self) -> Result<PeerIdentity, ZmqError> {
        let (socket, events) = self.parts.as_mut().expect("taken by `complete` and `drop` alone");
        let verdict = verdict(events).await;
        // One connection is all that this socket will ever have.
        socket.0.binds().clear();
        verdict
    }

    fn complete(mut self) -> (ZmqSocket<Z>, mpsc::Receiver<SocketEvent>) {
        self.parts.take().expect("taken by `complete` and `drop` alone")
    }
}

impl<Z: Socket + 'static> Drop for Handshake<Z> {
    fn drop(&mut self) {
        let Some((mut socket, mut events)) = self.parts.take() else { return };
        // After a verdict nothing is bound any more. Without a runtime there are no tasks to wait for.
        if socket.0.binds().is_empty() {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                let _ = tokio::time::timeout(VERDICT_TIMEOUT, verdict(&mut events)).await;
                drop(socket);
            });
        }
    }
}

async fn verdict(events: &mut mpsc::Receiver<SocketEvent>) -> Result<PeerIdentity, ZmqError> {
    loop {
        match events.next().await {
            Some(SocketEvent::Accepted(_, identity)) => return Ok(identity),
            Some(SocketEvent::AcceptFailed(error)) => return Err(error),
            Some(_) => {}
            None => return Err(ZmqError::Socket("the socket's monitor closed")),
        }
    }
}

/// Length of the longest path of a Unix socket that every Unix takes, its closing zero not counted.
const SOCKET_PATH_BYTES_MAX: usize = 103;

/// Directory where Linux keeps files in memory. On a disk each lane would cost a few milliseconds,
/// for a name that exists for an instant.
const MEMORY_DIR: &str = "/dev/shm";

/// Returns a listener, and the only connection it will ever have: when this returns, its name is
/// gone from the disk. A directory that only this user may enter kept all others out while it was
/// there.
fn private_pair(dir: Option<&Path>) -> io::Result<(UnixListener, UnixStream)> {
    let mut private = tempfile::Builder::new();
    private.prefix("tradewind-");
    let mode = Permissions::from_mode(0o700);
    private.permissions(mode);
    let in_dir = |dir: &Path| private.tempdir_in(dir);

    let system = std::env::temp_dir();
    let made = match dir {
        Some(dir) => in_dir(dir),
        None => in_dir(Path::new(MEMORY_DIR)).or_else(|_| in_dir(&system)),
    };
    let mut dir = match made {
        Ok(dir) => dir,
        Err(error) => return abstract_pair().map_err(|_| error),
    };
    let socket_in = |dir: &Path| dir.join("s");
    if socket_in(dir.path()).as_os_str().as_bytes().len() > SOCKET_PATH_BYTES_MAX {
        dir = in_dir(Path::new("/tmp"))?;
    }
    let path = socket_in(dir.path());
    let listener = UnixListener::bind(&path)?;
    // Waits in the listener's queue until ZeroMQ accepts it.
    let stream = StdUnixStream::connect(&path)?;
    dir.close()?;
    stream.set_nonblocking(true)?;
    Ok((listener, UnixStream::from_std(stream)?))
}

/// Does the same where no directory can be written to, as in a container whose root is read-only:
/// under a name that is in no file system, that cannot be guessed, and that exists for as long. A
/// process in this network namespace could read it in /proc/net/unix meanwhile, hence only there.
#[cfg(target_os = "linux")]
fn abstract_pair() -> io::Result<(UnixListener, UnixStream)> {
    use std::os::linux::net::SocketAddrExt;

    let name = format!("tradewind-{:032x}", fastrand::u128(..));
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    let listener = UnixListener::bind_addr(&address)?;
    let stream = StdUnixStream::connect_addr(&address)?;
    stream.set_nonblocking(true)?;
    Ok((listener, UnixStream::from_std(stream)?))
}

#[cfg(not(target_os = "linux"))]
fn abstract_pair() -> io::Result<(UnixListener, UnixStream)> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn where_no_directory_can_be_written_to_a_pair_is_had_all_the_same() {
        let nowhere = Path::new("/proc/nowhere");
        let (listener, stream) = private_pair(Some(nowhere)).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        accepted.set_nonblocking(true).unwrap();
        stream.writable().await.unwrap();
        stream.try_write(b"x").unwrap();
        let accepted = UnixStream::from_std(accepted).unwrap();
        accepted.readable().await.unwrap();
        assert_eq!(accepted.try_read(&mut [0; 2]).unwrap(), 1);
    }

    #[tokio::test]
    async fn a_private_pair_leaves_nothing_on_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (listener, _stream) = private_pair(Some(dir.path())).unwrap();
        assert!(listener.accept().is_ok());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_long_directory_gives_way_to_a_short_one() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(100));
        std::fs::create_dir(&long).unwrap();
        let (listener, _stream) = private_pair(Some(&long)).unwrap();
        assert!(listener.accept().is_ok());
        assert_eq!(std::fs::read_dir(&long).unwrap().count(), 0);
    }
}

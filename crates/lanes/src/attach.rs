//! Puts a ZeroMQ socket behind a byte stream.

use std::fs::Permissions;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};
use tradewind_keys::Fault;
use zeromq::util::PeerIdentity;
use zeromq::{Socket, SocketEvent, SocketOptions, ZmqError};

use crate::door::Door;
use crate::handshake::{Greeted, Guard, Refused, send, tell};
use crate::keyring::End;
use crate::lane::sealed::Sealed;
use crate::lane::{GoneReason, LaneState, Peer};
use crate::meter::{
    GREETING_BYTES, HEADER_BYTES_MAX, Meter, Ready, body_bytes, error_command, greeting,
    ready_command,
};
use crate::options::LaneOptions;
use crate::porch::NoRoom;
use crate::pump::{Inflow, Pump};
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
    /// The gate has no place for the peer.
    #[error(transparent)]
    NoRoom(NoRoom),
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
    let mut stream = stream;
    let mut meter = Meter::new(L::FLOW.limits(options.message_bytes_max));
    let guard = Guard { door, peer: &peer_addr, key: key.as_ref(), end, flow: L::FLOW };
    let greeted = timeout_at(deadline, guard.greet(&mut stream, &mut meter, &state)).await;
    let Greeted { ready, buffer } = match greeted.map_err(|_| timeout())? {
        Ok(greeted) => greeted,
        Err(Refused { error, words }) => {
            if !words.is_empty() {
                last_words(stream, words, state, end).await;
            }
            return Err(error);
        }
    };
    let made = zmq_socket::<L::Socket>(&ready, door, deadline, options).await;
    let (zmq, (socket, events), identity) = match made {
        Ok(made) => made,
        Err(error) => {
            if let HandshakeError::Local(error) = &error {
                let words = error_command(&format!("no room for a connection: {error}"));
                last_words(stream, words, state, end).await;
            }
            return Err(error);
        }
    };
    if end == End::Gate {
        let sent = timeout_at(deadline, send(&mut stream, &guard.ready(), &state)).await;
        sent.map_err(|_| timeout())?.map_err(HandshakeError::Gone)?;
    }
    let inflow = Inflow { meter, buffer, lag_max: options.message_lag_max };
    let pump = Pump::start(stream, zmq, L::FLOW, inflow, state.clone());
    let peer = Peer { identity: identity.into(), addr: peer_addr };
    Ok(L::new(Attached { socket, events, pump, state, peer }))
}

/// Tells a peer why it is not let in. At a gate it counts as a connection until then; a dialler need not wait.
async fn last_words(stream: Stream, words: Vec<u8>, state: Arc<LaneState>, end: End) {
    let telling = async move {
        tell(stream, &words).await;
        drop(state);
    };
    match end {
        End::Gate => telling.await,
        End::Dialler => drop(tokio::spawn(telling)),
    }
}

/// Makes a socket of ZeroMQ for a peer that has said who it is; returns our end of its connection, the socket,
/// and the peer's identity.
async fn zmq_socket<Z: Socket + 'static>(
    ready: &Ready,
    door: &Door,
    deadline: Instant,
    options: &LaneOptions,
) -> Result<(UnixStream, (ZmqSocket<Z>, Events), PeerIdentity), HandshakeError> {
    let (listener, mut zmq) = private_pair(options.socket_dir.as_deref()).map_err(local)?;
    let mut handshake = Handshake::<Z>::start(listener, door.identity.clone()).await?;
    let words = [&greeting()[..], &ready_command(&ready.socket_type, &ready.identity)].concat();
    let verdict = timeout_at(deadline, async {
        zmq.write_all(&words).await.map_err(local)?;
        // A failure here is the consequence of the verdict.
        let _ = skip_handshake(&mut zmq).await;
        handshake.verdict().await.map_err(HandshakeError::Refused)
    });
    let verdict = verdict.await;
    let identity = verdict.map_err(|_| HandshakeError::Timeout(options.handshake_timeout))??;
    Ok((zmq, handshake.complete(), identity))
}

/// Reads ZeroMQ's greeting and READY: the peer has ours.
async fn skip_handshake(zmq: &mut UnixStream) -> io::Result<()> {
    let mut greeting = [0; GREETING_BYTES];
    zmq.read_exact(&mut greeting).await?;
    let mut header = [0; HEADER_BYTES_MAX];
    let mut read = 0;
    let body_bytes = loop {
        zmq.read_exact(&mut header[read..=read]).await?;
        read += 1;
        if let Some(body_bytes) = body_bytes(&header[..read]) {
            break body_bytes;
        }
    };
    let mut body = vec![0; usize::try_from(body_bytes).map_err(io::Error::other)?];
    zmq.read_exact(&mut body).await?;
    Ok(())
}

fn local(error: io::Error) -> HandshakeError {
    HandshakeError::Local(error)
}

type Events = mpsc::Receiver<SocketEvent>;

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
    parts: Option<(ZmqSocket<Z>, Events)>,
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

    fn complete(mut self) -> (ZmqSocket<Z>, Events) {
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

async fn verdict(events: &mut Events) -> Result<PeerIdentity, ZmqError> {
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
    let in_dir = |dir: &Path| Name::in_dir(dir);
    let made = match dir {
        Some(dir) => in_dir(dir),
        None => in_dir(Path::new(MEMORY_DIR)).or_else(|_| in_dir(&std::env::temp_dir())),
    };
    let mut name = match made {
        Ok(name) => name,
        Err(error) => return abstract_pair().map_err(|_| error),
    };
    if name.socket.as_os_str().as_bytes().len() > SOCKET_PATH_BYTES_MAX {
        name = in_dir(Path::new("/tmp"))?;
    }
    let listener = UnixListener::bind(&name.socket)?;
    // Waits in the listener's queue until ZeroMQ accepts it.
    let stream = StdUnixStream::connect(&name.socket)?;
    drop(name);
    stream.set_nonblocking(true)?;
    Ok((listener, UnixStream::from_std(stream)?))
}

/// Name of a socket in a directory of its own. Both are removed when this is dropped, by their paths: to look
/// into the directory would take a descriptor, and there may be none left.
struct Name {
    dir: PathBuf,
    socket: PathBuf,
}

impl Name {
    fn in_dir(dir: &Path) -> io::Result<Self> {
        let mut private = tempfile::Builder::new();
        private.prefix("tradewind-");
        private.permissions(Permissions::from_mode(0o700));
        let dir = private.tempdir_in(dir)?.keep();
        Ok(Self { socket: dir.join("s"), dir })
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // There is none if it could not be bound.
        let _ = std::fs::remove_file(&self.socket);
        let _ = std::fs::remove_dir(&self.dir);
    }
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
    use crate::few_files::with_files_left;

    #[test]
    fn a_private_pair_leaves_nothing_where_files_run_out() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let name = "attach::tests::a_private_pair_leaves_nothing_where_files_run_out";
        with_files_left(name, |dir, left| {
            let made = private_pair(Some(dir));
            // It takes both ends, and not one more.
            assert_eq!(made.is_ok(), left >= 2, "{left} files left");
            made
        });
    }

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

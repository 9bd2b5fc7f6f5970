//! A connection of a liar: ZMTP over TCP, with or without TLS, and any bytes or messages on it.
//!
//! It is below the machines, and below the lanes: no rule of ours holds for it. Messages are encoded by the
//! codec and keys are used by the crate that the programs have, so that both are always of their version.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddrV4;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tradewind_e2e::wait_for;
use tradewind_keys::{Keys, Role as KeyRole, Roles, UnixTime};
use tradewind_proto::message::{Card, ToWorker};
use tradewind_wire::{Message, VERSION, decode, encode};

/// Time in which a peer has to take a message, or to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("a runtime can be had")
});

/// Waits for something that is asynchronous.
pub(crate) fn block<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.block_on(future)
}

trait Both: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Both for S {}

type Stream = Box<dyn Both>;

/// Direction in which a port carries messages, as seen from the liar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The liar sends.
    Push,
    /// The liar receives.
    Pull,
}

impl Kind {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Push => b"PUSH",
            Self::Pull => b"PULL",
        }
    }
}

/// Reason why a liar was not let in, or was sent away.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Shut(pub(crate) String);

impl std::fmt::Debug for Shut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Shut {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// A way to a port: keys that are shown on it, if any, and an address to come from.
#[derive(Clone, Default)]
pub(crate) struct Route {
    pub(crate) keys: Option<Arc<Keys>>,
    pub(crate) from: Option<std::net::Ipv4Addr>,
}

/// A connection whose handshake is complete.
pub(crate) struct Peer {
    writer: WriteHalf<Stream>,
    heard: Arc<Mutex<Heard>>,
    /// Card that the other end has shown.
    pub(crate) card: Option<Card>,
    reader: Reader,
}

enum Reader {
    /// Takes what comes.
    Task(JoinHandle<()>),
    /// Leaves it where it is.
    Deaf { _half: ReadHalf<Stream> },
}

#[derive(Default)]
struct Heard {
    frames: VecDeque<Bytes>,
    end: Option<String>,
}

/// ZMTP 3.0: signature, version, mechanism, as-server, filler.
pub(crate) fn greeting() -> Vec<u8> {
    let mut greeting = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0];
    greeting.extend_from_slice(b"NULL");
    greeting.resize(64, 0);
    greeting
}

/// A READY command with this kind of socket and this identity.
pub(crate) fn ready(socket: &[u8], identity: &[u8]) -> Vec<u8> {
    let mut body = b"\x05READY".to_vec();
    for (name, value) in [(&b"Socket-Type"[..], socket), (b"Identity", identity)] {
        body.push(name.len() as u8);
        body.extend_from_slice(name);
        body.extend_from_slice(&(value.len() as u32).to_be_bytes());
        body.extend_from_slice(value);
    }
    command(&body)
}

/// A command with this body.
pub(crate) fn command(body: &[u8]) -> Vec<u8> {
    let mut command = vec![0x06];
    command.extend_from_slice(&(body.len() as u64).to_be_bytes());
    command.extend_from_slice(body);
    command
}

/// The header of a frame that claims to have this number of bytes.
pub(crate) fn header(bytes: u64) -> Vec<u8> {
    let mut header = vec![0x02];
    header.extend_from_slice(&bytes.to_be_bytes());
    header
}

/// A frame with this body.
pub(crate) fn frame(body: &[u8]) -> Vec<u8> {
    [&header(body.len() as u64)[..], body].concat()
}

impl Route {
    async fn connect_tcp(&self, to: SocketAddrV4) -> Result<TcpStream, Shut> {
        let socket = TcpSocket::new_v4()?;
        if let Some(from) = self.from {
            socket.bind((from, 0).into())?;
        }
        let stream = within(socket.connect(to.into())).await??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Encrypts a connection if there are keys.
    async fn secure(&self, stream: TcpStream) -> Result<Stream, Shut> {
        let Some(keys) = &self.keys else { return Ok(Box::new(stream)) };
        let protocol = protocol();
        let secured = keys.connect(stream, &protocol, all_roles(), UnixTime::now());
        let (stream, _) = within(secured).await?.map_err(|fault| Shut(fault.to_string()))?;
        Ok(Box::new(stream))
    }

    /// Connects without TLS, and says these bytes.
    pub(crate) fn say_plainly(&self, to: SocketAddrV4, bytes: &[u8]) -> Result<Raw, Shut> {
        block(async {
            let mut stream = self.connect_tcp(to).await?;
            within(stream.write_all(bytes)).await??;
            Ok(Raw(stream))
        })
    }

    /// Connects, with TLS if there are keys, and says these bytes.
    pub(crate) async fn say(&self, to: SocketAddrV4, bytes: &[u8], last: Last) -> Result<(), Shut> {
        let raw = self.connect_tcp(to).await?;
        if last == Last::Reset {
            let _ = SockRef::from(&raw).set_linger(Some(Duration::ZERO));
        }
        let mut stream = self.secure(raw).await?;
        if last == Last::Bytewise {
            for byte in bytes {
                within(stream.write_all(&[*byte])).await??;
                within(stream.flush()).await??;
            }
        } else {
            within(stream.write_all(bytes)).await??;
            within(stream.flush()).await??;
        }
        if last == Last::Half {
            within(stream.shutdown()).await??;
            let _ = timeout(Duration::from_millis(300), hear_out(&mut stream)).await;
        }
        Ok(())
    }

    /// Shows a card at a port.
    pub(crate) fn dial(&self, to: SocketAddrV4, kind: Kind, card: &[u8]) -> Result<Peer, Shut> {
        block(self.shake_hands(to, kind, card))
            .map(|(stream, theirs)| Peer::of(stream, theirs, true))
    }

    /// Shows a worker's card at the tasks port, hears the roll call, and takes nothing more of what comes.
    pub(crate) fn dial_deaf(
        &self,
        to: SocketAddrV4,
        card: &[u8],
    ) -> Result<(Peer, ToWorker), Shut> {
        block(async {
            let (mut stream, theirs) = self.shake_hands(to, Kind::Pull, card).await?;
            let (_, body) = within(read_frame(&mut stream)).await??;
            let first = decode(&Bytes::from(body)).map_err(|error| Shut(error.to_string()))?;
            Ok((Peer::of(stream, theirs, false), first))
        })
    }

    async fn shake_hands(
        &self,
        to: SocketAddrV4,
        kind: Kind,
        card: &[u8],
    ) -> Result<(Stream, Option<Card>), Shut> {
        let mut stream = self.secure(self.connect_tcp(to).await?).await?;
        within(stream.write_all(&[greeting(), ready(kind.name(), card)].concat())).await??;
        let theirs = within(hear_ready(&mut stream)).await??;
        Ok((stream, theirs))
    }
}

/// Protocol inside TLS: what the programs say.
pub(crate) fn protocol() -> String {
    format!("tradewind/{VERSION}")
}

pub(crate) fn all_roles() -> Roles {
    Roles::of(&KeyRole::ALL)
}

async fn within<T>(future: impl Future<Output = T>) -> Result<T, Shut> {
    timeout(ANSWER_MAX, future).await.map_err(|_| Shut(format!("no answer in {ANSWER_MAX:?}")))
}

/// Reads the other end's greeting and READY; returns the card in it.
async fn hear_ready(stream: &mut Stream) -> Result<Option<Card>, Shut> {
    let mut theirs = [0; 64];
    stream.read_exact(&mut theirs).await?;
    let (flags, body) = read_frame(stream).await?;
    if flags & 0x04 == 0 {
        return Err(Shut("a message came before READY".to_owned()));
    }
    if let Some(reason) = error_of(&body) {
        return Err(Shut(reason));
    }
    Ok(identity_of(&body).and_then(|identity| decode(&Bytes::from(identity)).ok()))
}

async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Vec<u8>)> {
    let flags = stream.read_u8().await?;
    let length = match flags & 0x02 {
        0 => u64::from(stream.read_u8().await?),
        _ => stream.read_u64().await?,
    };
    let mut body = Vec::new();
    stream.take(length).read_to_end(&mut body).await?;
    Ok((flags, body))
}

fn error_of(command: &[u8]) -> Option<String> {
    let reason = command.strip_prefix(b"\x05ERROR")?.get(1..)?;
    Some(String::from_utf8_lossy(reason).into_owned())
}

fn identity_of(ready: &[u8]) -> Option<Vec<u8>> {
    let name = b"\x08Identity";
    let at = ready.windows(name.len()).position(|part| part == name)? + name.len();
    let length = u32::from_be_bytes(ready.get(at..at + 4)?.try_into().ok()?);
    ready.get(at + 4..at + 4 + length as usize).map(<[u8]>::to_vec)
}

impl Peer {
    fn of(stream: Stream, card: Option<Card>, is_listening: bool) -> Self {
        let (mut reader, writer) = split(stream);
        let heard = Arc::new(Mutex::new(Heard::default()));
        let to = Arc::clone(&heard);
        let reader = if is_listening {
            Reader::Task(RUNTIME.spawn(async move {
                let end = loop {
                    match read_frame(&mut reader).await {
                        Ok((flags, body)) if flags & 0x04 == 0 => {
                            lock(&to).frames.push_back(body.into());
                        }
                        Ok((_, body)) => {
                            if let Some(reason) = error_of(&body) {
                                break reason;
                            }
                        }
                        Err(error) => break error.to_string(),
                    }
                };
                lock(&to).end = Some(end);
            }))
        } else {
            Reader::Deaf { _half: reader }
        };
        Self { writer, heard, card, reader }
    }

    /// Sends a message. Fails when the other end is gone, or takes nothing for long.
    pub(crate) fn send<M: Message>(&mut self, message: &M) -> Result<(), Shut> {
        self.send_frame(&encode(message))
    }

    /// Sends a frame with these bytes.
    pub(crate) fn send_frame(&mut self, body: &[u8]) -> Result<(), Shut> {
        self.send_bytes(&frame(body))
    }

    /// Sends bytes as they are.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), Shut> {
        self.send_within(bytes, ANSWER_MAX)
    }

    /// Sends bytes as they are, as far as the other end takes them in this time.
    pub(crate) fn send_within(&mut self, bytes: &[u8], at_most: Duration) -> Result<(), Shut> {
        block(async {
            let write = async {
                self.writer.write_all(bytes).await?;
                self.writer.flush().await
            };
            let written = timeout(at_most, write).await;
            written.map_err(|_| Shut(format!("it takes nothing for {at_most:?}")))??;
            Ok(())
        })
    }

    /// Returns the next message, if one has come.
    pub(crate) fn next<M: Message>(&mut self) -> Option<M> {
        let frame = lock(&self.heard).frames.pop_front()?;
        Some(decode(&frame).expect("the programs speak our version"))
    }

    /// Waits for a message that is one of those.
    #[track_caller]
    pub(crate) fn wait_for<M: Message, T>(
        &mut self,
        what: &str,
        mut pick: impl FnMut(M) -> Option<T>,
    ) -> Result<T, Shut> {
        wait_for(what, || match self.next() {
            Some(message) => pick(message).map(Ok),
            None => self.end().map(|why| Err(Shut(why))),
        })
    }

    /// Returns why the connection has ended, if it has.
    pub(crate) fn end(&self) -> Option<String> {
        lock(&self.heard).end.clone()
    }

    /// Waits until the other end has closed the connection; returns what it said.
    #[track_caller]
    pub(crate) fn wait_for_end(&self, what: &str) -> String {
        wait_for(&format!("the connection of {what} is closed"), || self.end())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Reader::Task(task) = &self.reader {
            task.abort();
        }
    }
}

fn lock(heard: &Mutex<Heard>) -> std::sync::MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// End of a connection that says bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    /// It is closed.
    Close,
    /// It is reset.
    Reset,
    /// The liar's half is closed, and the other end's answer is read.
    Half,
    /// It is closed; the bytes come one by one.
    Bytewise,
}

async fn hear_out(stream: &mut Stream) -> io::Result<u64> {
    tokio::io::copy(stream, &mut tokio::io::sink()).await
}

/// A plain connection on which bytes were said.
pub(crate) struct Raw(TcpStream);

impl Raw {
    /// Returns whether the other end has closed it. What it says is not looked at.
    pub(crate) fn has_ended(&self) -> bool {
        let mut bytes = [0; 1 << 12];
        loop {
            match self.0.try_read(&mut bytes) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }
}
/// A port of a liar, to which honest programs dial.
pub(crate) struct Trap {
    listener: TcpListener,
    kind: Kind,
    card: Vec<u8>,
    keys: Option<Arc<Keys>>,
}

impl Trap {
    /// Listens, and shows this card to those that come.
    pub(crate) fn listen(
        at: SocketAddrV4,
        kind: Kind,
        card: Vec<u8>,
        keys: Option<Arc<Keys>>,
    ) -> Self {
        let listener = block(TcpListener::bind(at)).expect("no other program has this address");
        Self { listener, kind, card, keys }
    }

    /// Waits for a program that shakes hands. `Err`: it has refused.
    #[track_caller]
    pub(crate) fn accept(&self) -> Result<Peer, Shut> {
        block(async {
            let (stream, _) = within(self.listener.accept()).await??;
            let mut stream: Stream = match &self.keys {
                None => Box::new(stream),
                Some(keys) => {
                    let protocol = protocol();
                    let secured = keys.accept(stream, &protocol, all_roles(), UnixTime::now());
                    let (stream, _) =
                        within(secured).await?.map_err(|fault| Shut(fault.to_string()))?;
                    Box::new(stream)
                }
            };
            let said = [greeting(), ready(self.kind.name(), &self.card)].concat();
            within(stream.write_all(&said)).await??;
            let theirs = within(hear_ready(&mut stream)).await??;
            Ok(Peer::of(stream, theirs, true))
        })
    }
}

//! The pump: carries bytes between the network and the Unix socket behind which ZeroMQ sits.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tradewind_keys::Peer as Key;

use crate::door::{Admitted, Door, Hello};
use crate::keyring::End;
use crate::lane::{GoneReason, LaneState};
use crate::meter::{Found, Limits, Meter, Ready, Track, error_command};
use crate::stream::PeerAddr;

/// Direction in which a lane carries messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    In,
    Out,
}

impl Flow {
    /// Lanes carry messages of one frame, and a PULL peer none at all.
    pub(crate) fn limits(self, message_bytes_max: u64) -> Limits {
        let message_frames_max = match self {
            Flow::In => 1,
            Flow::Out => 0,
        };
        Limits { message_bytes_max, message_frames_max }
    }
}

/// A running pump. Dropped, it stops and closes both of its streams, unless it is just telling the
/// peer a reason: then it does so by itself, soon.
#[derive(Debug)]
pub(crate) struct Pump {
    task: JoinHandle<()>,
    state: Arc<LaneState>,
}

impl Pump {
    pub(crate) fn start<S>(
        network: S,
        zmq: UnixStream,
        flow: Flow,
        meter: Meter,
        guard: Guard,
        state: Arc<LaneState>,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let task = tokio::spawn(run(network, zmq, flow, meter, guard, state.clone()));
        Self { task, state }
    }

    /// Waits until both directions are done, for a bounded time.
    pub(crate) async fn finish(mut self, at_most: Duration) {
        // It ended or ran out of time: it is dropped next in either case.
        let _ = tokio::time::timeout(at_most, &mut self.task).await;
    }

    pub(crate) fn stop(&self) {
        if !self.state.is_telling() {
            self.task.abort();
        }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Rule by which the peer is let in, and the peer's name.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) door: Door,
    pub(crate) peer: PeerAddr,
    /// Key of the peer, if the connection is encrypted.
    pub(crate) key: Option<Key>,
    /// Our end. A peer that dialled us gets our READY when it has been judged: a dialler whose
    /// handshake is complete has thereby been let in.
    pub(crate) end: End,
}

/// Our READY, which waits for the peer to be judged.
#[derive(Default)]
struct Hold {
    is_over: AtomicBool,
    over: Notify,
    /// Bytes that follow READY at once if the peer is not let in, so that both arrive together.
    suffix: Mutex<Option<Vec<u8>>>,
}

impl Hold {
    fn end(&self, suffix: Option<Vec<u8>>) {
        *self.suffix.lock().unwrap_or_else(PoisonError::into_inner) = suffix;
        self.is_over.store(true, Ordering::Relaxed);
        self.over.notify_one();
    }

    async fn ended(&self) {
        if !self.is_over.load(Ordering::Relaxed) {
            self.over.notified().await;
        }
    }

    fn take_suffix(&self) -> Option<Vec<u8>> {
        self.suffix.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Reports that the lane is gone even if the pump is aborted.
struct EndOnDrop(Arc<LaneState>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(GoneReason::Closed);
    }
}

/// Time that telling a peer a reason may take: until our READY is out, and then until the peer has
/// closed its end. Were ours closed first, with bytes of the peer unread, TCP would throw the
/// reason away.
const TELL_MAX: Duration = Duration::from_secs(1);

/// Time for which the peer's reason is awaited after a write has failed.
const LAST_WORD_MAX: Duration = Duration::from_millis(100);

async fn run<S>(
    network: S,
    zmq: UnixStream,
    flow: Flow,
    meter: Meter,
    guard: Guard,
    state: Arc<LaneState>,
) where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let state = EndOnDrop(state);
    let (network_read, network_write) = tokio::io::split(network);
    let (zmq_read, zmq_write) = zmq.into_split();
    let mut sender = Sender { network: network_write, track: Track::default(), has_told: false };
    let (is_ready, hold) = (Notify::new(), Hold::default());
    let is_broken = AtomicBool::new(false);
    if guard.end == End::Dialler {
        hold.end(None);
    }
    // Each half is dropped when its direction is done. The inbound direction's end thereby tells a
    // PULL socket that no more frames will come, once it has read the last.
    let to_tell = {
        let inbound = inbound(network_read, zmq_write, meter, &guard, &hold, &is_broken, &state.0);
        let mut inbound = pin!(inbound);
        let mut outbound = pin!(outbound(zmq_read, &mut sender, &is_ready, &hold, &state.0));
        tokio::select! {
            (reason, network_read) = &mut inbound => match reason.to_tell() {
                Some(text) => {
                    // The peer's judgement of us comes first, and needs our READY.
                    tokio::select! {
                        _ = &mut outbound => {}
                        () = is_ready.notified() => {}
                        () = tokio::time::sleep(TELL_MAX) => {}
                    }
                    Some((text, network_read))
                }
                None => {
                    if flow == Flow::In && reason == GoneReason::Ended {
                        // The peer sees our end close when everything it sent was read, not before.
                        outbound.await;
                    }
                    None
                }
            },
            reason = &mut outbound => {
                if flow == Flow::Out && reason == GoneReason::Closed {
                    // All is sent; a peer that closes its end too has read it.
                    inbound.await;
                } else if let GoneReason::Broken(_) = reason {
                    is_broken.store(true, Ordering::Relaxed);
                    let _ = tokio::time::timeout(LAST_WORD_MAX, inbound).await;
                }
                state.0.end(reason);
                None
            }
        }
    };
    if let Some((text, network_read)) = to_tell {
        let _ = tokio::time::timeout(TELL_MAX, sender.tell(&text, network_read)).await;
    }
}

async fn inbound<N: AsyncRead + Unpin>(
    mut network: N,
    mut zmq: impl AsyncWrite + Unpin,
    mut meter: Meter,
    guard: &Guard,
    hold: &Hold,
    is_broken: &AtomicBool,
    state: &LaneState,
) -> (GoneReason, N) {
    let mut buffer = Buffer::new();
    let mut dismissed = pin!(state.dismissed());
    let reason = loop {
        let read = tokio::select! {
            read = network.read(buffer.space()) => read,
            reason = &mut dismissed => break GoneReason::Refused(reason),
        };
        let read = match read {
            Ok(0) => break GoneReason::Ended,
            Ok(read) => read,
            Err(error) => break GoneReason::Broken(error.kind()),
        };
        state.traffic.bytes_in.fetch_add(read as u64, Ordering::Relaxed);
        match pass(buffer.filled(read), &mut zmq, &mut meter, guard, hold, state).await {
            Ok(passed) => buffer.consume(read, passed),
            Err(reason) => break reason,
        }
    };
    if let Some(text) = reason.to_tell() {
        state.begin_telling();
        hold.end(Some(error_command(&text)));
    } else {
        hold.end(None);
    }
    let is_news = !is_broken.load(Ordering::Relaxed) || matches!(reason, GoneReason::Told(_));
    if is_news {
        // Before the streams are dropped: a task that sees them close can then ask for the reason.
        state.end(reason.clone());
    }
    (reason, network)
}

/// Forwards the bytes that may pass; returns their number.
async fn pass(
    bytes: &[u8],
    zmq: &mut (impl AsyncWrite + Unpin),
    meter: &mut Meter,
    guard: &Guard,
    hold: &Hold,
    state: &LaneState,
) -> Result<usize, GoneReason> {
    let mut passed = 0;
    loop {
        let metered = meter.feed(&bytes[passed..]);
        let end = passed + metered.passed;
        if zmq.write_all(&bytes[passed..end]).await.is_err() {
            return Err(GoneReason::Closed);
        }
        passed = end;
        match metered.found {
            None => return Ok(passed),
            Some(Found::Ready(Ready { socket_type, identity })) => {
                let hello = Hello {
                    addr: guard.peer.clone(),
                    socket_type: &socket_type,
                    identity: &identity,
                    key: guard.key.as_ref(),
                };
                match guard.door.admit(&hello) {
                    Ok(Admitted { permit }) => {
                        state.hold(permit);
                        hold.end(None);
                    }
                    Err(reason) => return Err(GoneReason::Refused(reason.into())),
                }
            }
            Some(Found::Error(reason)) => return Err(GoneReason::Told(reason.into())),
            Some(Found::Violation(violation)) => return Err(GoneReason::Protocol(violation)),
        }
    }
}

/// Network side of a lane, and the position in the stream that we send.
struct Sender<N> {
    network: N,
    track: Track,
    /// The reason of the end was sent already.
    has_told: bool,
}

impl<N: AsyncWrite + Unpin> Sender<N> {
    async fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            // Piece by piece, so that it is known what was sent should we be stopped.
            let written = self.network.write(bytes).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.track.sent(&bytes[..written]);
            bytes = &bytes[written..];
        }
        // Nothing on a plain stream; an encrypting one may hold back a record until told.
        self.network.flush().await
    }

    /// Sends ZeroMQ's bytes; greeting and READY one after the other, even if they come together.
    async fn send_with(&mut self, bytes: &[u8], hold: &Hold) -> io::Result<()> {
        if self.track.is_ready() {
            return self.send(bytes).await;
        }
        let (greeting, rest) = bytes.split_at(self.track.greeting_left().min(bytes.len()));
        self.send(greeting).await?;
        if rest.is_empty() {
            return Ok(());
        }
        hold.ended().await;
        let mut after = self.track.clone();
        after.sent(rest);
        match after.is_ready().then(|| hold.take_suffix()).flatten() {
            Some(suffix) => {
                self.has_told = true;
                self.send(&[rest, &suffix].concat()).await
            }
            None => self.send(rest).await,
        }
    }

    /// Sends the peer a reason, if there is room for it between two frames, and waits for the
    /// peer's end.
    async fn tell(&mut self, reason: &str, mut network: impl AsyncRead + Unpin) {
        if self.track.is_between_frames() && !self.has_told {
            let _ = self.send(&error_command(reason)).await;
        }
        let _ = self.network.shutdown().await;
        let mut ignored = vec![0; BUFFER_BYTES_MIN];
        while network.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
    }
}

async fn outbound(
    mut zmq: impl AsyncRead + Unpin,
    sender: &mut Sender<impl AsyncWrite + Unpin>,
    is_ready: &Notify,
    hold: &Hold,
    state: &LaneState,
) -> GoneReason {
    let mut buffer = Buffer::new();
    loop {
        let read = match zmq.read(buffer.space()).await {
            Ok(0) | Err(_) => {
                if !state.is_telling() {
                    // A failure to say goodbye changes nothing: the goodbye was all that was left.
                    let _ = sender.network.shutdown().await;
                    state.end(GoneReason::Closed);
                }
                return GoneReason::Closed;
            }
            Ok(read) => read,
        };
        if let Err(error) = sender.send_with(buffer.filled(read), hold).await {
            return GoneReason::Broken(error.kind());
        }
        if sender.track.is_ready() {
            is_ready.notify_one();
        }
        state.traffic.bytes_out.fetch_add(read as u64, Ordering::Relaxed);
        buffer.consume(read, read);
    }
}

const BUFFER_BYTES_MIN: usize = 4 << 10;
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// Number of successive reads filling less than a quarter that halve the buffer.
const SHORT_READS: u8 = 16;

/// A buffer that grows with the traffic and shrinks after it: there may be thousands of lanes, most
/// of them idle.
struct Buffer {
    bytes: Vec<u8>,
    /// Number of bytes at the front that did not pass the last time.
    held: usize,
    short_reads: u8,
}

impl Buffer {
    fn new() -> Self {
        Self { bytes: vec![0; BUFFER_BYTES_MIN], held: 0, short_reads: 0 }
    }

    fn space(&mut self) -> &mut [u8] {
        &mut self.bytes[self.held..]
    }

    fn filled(&self, read: usize) -> &[u8] {
        &self.bytes[..self.held + read]
    }

    fn consume(&mut self, read: usize, passed: usize) {
        let end = self.held + read;
        self.bytes.copy_within(passed..end, 0);
        self.held = end - passed;
        self.adapt(read, end);
    }

    fn adapt(&mut self, read: usize, end: usize) {
        let size = self.bytes.len();
        if end == size {
            self.short_reads = 0;
            self.bytes.resize((size * 2).min(BUFFER_BYTES_MAX), 0);
        } else if read >= size / 4 {
            self.short_reads = 0;
        } else if size > BUFFER_BYTES_MIN {
            self.short_reads += 1;
            if self.short_reads == SHORT_READS {
                self.short_reads = 0;
                self.bytes.truncate(size / 2);
                self.bytes.shrink_to_fit();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_follows_the_traffic_and_keeps_what_is_held() {
        let mut buffer = Buffer::new();
        let mut sizes = vec![buffer.bytes.len()];
        for _ in 0..6 {
            let space = buffer.space();
            space.fill(7);
            let read = space.len();
            buffer.consume(read, buffer.filled(read).len() - 3);
            sizes.push(buffer.bytes.len());
        }
        let kib = |n: usize| n << 10;
        assert_eq!(sizes, [4, 8, 16, 32, 64, 64, 64].map(kib));
        for _ in 0..200 {
            buffer.consume(1, 1);
            assert_eq!(buffer.filled(0), [7, 7, 7]);
            buffer.space()[0] = 7;
        }
        assert_eq!(
            (buffer.bytes.len(), buffer.bytes.capacity()),
            (BUFFER_BYTES_MIN, BUFFER_BYTES_MIN)
        );
    }
}

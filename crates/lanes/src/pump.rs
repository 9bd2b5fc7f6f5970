//! The pump: carries bytes between the network and the Unix socket behind which ZeroMQ sits.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::buffer::Buffer;
use crate::handshake::tell;
use crate::lane::{GoneReason, LaneState};
use crate::meter::{Begun, Found, Limits, Meter, Metered, Track, Violation, error_command};
use crate::unfinished::Pace;

/// Direction in which a lane carries messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    In,
    Out,
}

impl Flow {
    pub(crate) fn socket_type(self) -> &'static [u8] {
        match self {
            Flow::In => b"PULL",
            Flow::Out => b"PUSH",
        }
    }

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
        inflow: Inflow,
        state: Arc<LaneState>,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let task = tokio::spawn(run(network, zmq, flow, inflow, state.clone()));
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

/// Reports that the lane is gone even if the pump is aborted.
struct EndOnDrop(Arc<LaneState>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        // No more will come of what was under way.
        self.0.frames.came(0, 0, 0);
        self.0.end(GoneReason::Closed);
    }
}

/// Time for which the peer's reason is awaited after a write has failed.
const LAST_WORD_MAX: Duration = Duration::from_millis(100);

async fn run<S>(network: S, zmq: UnixStream, flow: Flow, inflow: Inflow, state: Arc<LaneState>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let state = EndOnDrop(state);
    let (network_read, network_write) = tokio::io::split(network);
    let (zmq_read, zmq_write) = zmq.into_split();
    let mut sender = Sender { network: network_write, track: Track::default() };
    let is_broken = AtomicBool::new(false);
    // Each half is dropped when its direction is done. The inbound direction's end thereby tells a
    // PULL socket that no more frames will come, once it has read the last.
    let to_tell = {
        let inbound = inbound(network_read, zmq_write, inflow, &is_broken, &state.0);
        let mut inbound = pin!(inbound);
        let mut outbound = pin!(outbound(zmq_read, &mut sender, &state.0));
        tokio::select! {
            (reason, network_read) = &mut inbound => match reason.to_tell() {
                Some(text) => Some((text, network_read)),
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
        // There is room for it between two frames.
        let words = match sender.track.is_between_frames() {
            true => error_command(&text),
            false => Vec::new(),
        };
        tell(tokio::io::join(network_read, sender.network), &words).await;
    }
}

/// State of what comes from the peer.
pub(crate) struct Inflow {
    pub(crate) meter: Meter,
    /// Holds what came behind the handshake.
    pub(crate) buffer: Buffer,
    /// Time that a message may be behind.
    pub(crate) lag_max: Duration,
}

async fn inbound<N: AsyncRead + Unpin>(
    mut network: N,
    mut zmq: impl AsyncWrite + Unpin,
    inflow: Inflow,
    is_broken: &AtomicBool,
    state: &LaneState,
) -> (GoneReason, N) {
    let Inflow { mut meter, mut buffer, lag_max } = inflow;
    let (frames, mut large_bytes) = (&state.frames, 0);
    let mut dismissed = pin!(state.dismissed());
    let mut pace = Pace::new(lag_max);
    // Set again only when it has fired: the deadline never becomes earlier.
    let mut timer = pin!(sleep(lag_max));
    // What came behind the handshake, before anything is read.
    let mut read = 0;
    let reason = loop {
        let passed = tokio::select! {
            biased;
            passed = pass(buffer.filled(read), &mut zmq, &mut meter) => passed,
            // Nobody may be taking what comes.
            reason = &mut dismissed => Err(GoneReason::Refused(reason)),
        };
        match passed {
            Ok(passed) => buffer.consume(read, passed),
            Err(reason) => break reason,
        }
        let unfinished = meter.unfinished();
        let ended = meter.large_bytes() - large_bytes;
        large_bytes += ended;
        match unfinished {
            Some(Begun { held, left }) => frames.came(ended, held, left),
            None => {
                frames.came(ended, 0, 0);
                pace.end();
            }
        }
        if !frames.may_read() {
            state.traffic.is_paused.store(true, Ordering::Relaxed);
            let is_dismissed = tokio::select! {
                () = frames.wait() => None,
                reason = &mut dismissed => Some(reason),
            };
            state.traffic.is_paused.store(false, Ordering::Relaxed);
            if let Some(reason) = is_dismissed {
                break GoneReason::Refused(reason);
            }
        }
        let result = loop {
            if unfinished.is_some() {
                pace.wait(Instant::now());
            }
            let space = match frames.is_scarce() {
                true => buffer.little_space(),
                false => buffer.space(),
            };
            tokio::select! {
                biased;
                reason = &mut dismissed => break Err(GoneReason::Refused(reason)),
                read = network.read(space) => break Ok(read),
                () = &mut timer, if unfinished.is_some() => match pace.deadline() {
                    Some(deadline) if deadline > Instant::now() => timer.as_mut().reset(deadline),
                    _ => break Err(too_slow(unfinished, lag_max)),
                },
            }
        };
        read = match result {
            Ok(Ok(0)) => break GoneReason::Ended,
            Ok(Ok(read)) => read,
            Ok(Err(error)) => break GoneReason::Broken(error.kind()),
            Err(reason) => break reason,
        };
        if unfinished.is_some() {
            pace.came(Instant::now(), read);
        }
        state.traffic.bytes_in.fetch_add(read as u64, Ordering::Relaxed);
    };
    if reason.to_tell().is_some() {
        state.begin_telling();
    }
    let is_news = !is_broken.load(Ordering::Relaxed) || matches!(reason, GoneReason::Told(_));
    if is_news {
        // Before the streams are dropped: a task that sees them close can then ask for the reason.
        state.end(reason.clone());
    }
    (reason, network)
}

fn too_slow(unfinished: Option<Begun>, lag: Duration) -> GoneReason {
    let (held, left) = unfinished.map_or((0, 0), |it| (it.held, it.left));
    GoneReason::Protocol(Violation::Slow { held, bytes: held + left, lag })
}

/// Forwards the bytes that may pass; returns their number.
async fn pass(
    bytes: &[u8],
    zmq: &mut (impl AsyncWrite + Unpin),
    meter: &mut Meter,
) -> Result<usize, GoneReason> {
    let Metered { passed, found } = meter.feed(bytes);
    if zmq.write_all(&bytes[..passed]).await.is_err() {
        return Err(GoneReason::Closed);
    }
    match found {
        // The second can only be the first READY, which was before this.
        None | Some(Found::Ready(_)) => Ok(passed),
        Some(Found::Error(reason)) => Err(GoneReason::Told(reason.into())),
        Some(Found::Violation(violation)) => Err(GoneReason::Protocol(violation)),
    }
}

/// Network side of a lane, and the position in the stream that we send.
struct Sender<N> {
    network: N,
    track: Track,
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
}

async fn outbound(
    mut zmq: impl AsyncRead + Unpin,
    sender: &mut Sender<impl AsyncWrite + Unpin>,
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
        if let Err(error) = sender.send(buffer.filled(read)).await {
            return GoneReason::Broken(error.kind());
        }
        state.traffic.bytes_out.fetch_add(read as u64, Ordering::Relaxed);
        state.sent.notify_waiters();
        buffer.consume(read, read);
    }
}

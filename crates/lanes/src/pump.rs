//! The pump: carries bytes between the network and the Unix socket behind which ZeroMQ sits.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::lane::{GoneReason, LaneState};
use crate::meter::{Limits, Meter};

/// Which way a lane carries messages.
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

/// A running pump. Dropped, it stops and closes both of its streams.
#[derive(Debug)]
pub(crate) struct Pump(JoinHandle<()>);

impl Pump {
    pub(crate) fn start<S>(
        network: S,
        zmq: UnixStream,
        flow: Flow,
        limits: Limits,
        state: Arc<LaneState>,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        Self(tokio::spawn(run(network, zmq, flow, Meter::new(limits), state)))
    }

    /// Waits until both directions are done, but not for ever.
    pub(crate) async fn finish(mut self, at_most: Duration) {
        // Whether it ended or ran out of time: dropping it is what comes next.
        let _ = tokio::time::timeout(at_most, &mut self.0).await;
    }

    pub(crate) fn stop(&self) {
        self.0.abort();
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Says that the lane is gone even if the pump is aborted.
struct EndOnDrop(Arc<LaneState>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(GoneReason::Closed);
    }
}

async fn run<S>(network: S, zmq: UnixStream, flow: Flow, meter: Meter, state: Arc<LaneState>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let state = EndOnDrop(state);
    let (network_read, network_write) = tokio::io::split(network);
    let (zmq_read, zmq_write) = zmq.into_split();
    // Each half is dropped when its direction is done. The inbound direction's end thereby tells a PULL
    // socket that nothing more will come, once it has read what came.
    let mut inbound = pin!(inbound(network_read, zmq_write, meter, &state.0));
    let mut outbound = pin!(outbound(zmq_read, network_write, &state.0));
    tokio::select! {
        reason = &mut inbound => {
            if flow == Flow::In && reason == GoneReason::Ended {
                // The peer sees our end close when everything it sent was read, not before.
                outbound.await;
            }
        }
        reason = &mut outbound => {
            if flow == Flow::Out && reason == GoneReason::Closed {
                // All is sent; a peer that closes its end too has read it.
                inbound.await;
            }
        }
    }
}

async fn inbound(
    mut network: impl AsyncRead + Unpin,
    mut zmq: impl AsyncWrite + Unpin,
    mut meter: Meter,
    state: &LaneState,
) -> GoneReason {
    let mut buffer = Buffer::new();
    let reason = loop {
        let read = match network.read(buffer.space()).await {
            Ok(0) => break GoneReason::Ended,
            Ok(read) => read,
            Err(error) => break GoneReason::Broken(error.kind()),
        };
        state.traffic.bytes_in.fetch_add(read as u64, Ordering::Relaxed);
        let bytes = buffer.filled(read);
        let fed = meter.feed(bytes);
        if zmq.write_all(&bytes[..fed.passed]).await.is_err() {
            break GoneReason::Closed;
        }
        if let Some(violation) = fed.violation {
            break GoneReason::Protocol(violation);
        }
        buffer.consume(read, fed.passed);
    };
    // Before the streams are dropped: who sees them close can then ask why.
    state.end(reason);
    reason
}

async fn outbound(
    mut zmq: impl AsyncRead + Unpin,
    mut network: impl AsyncWrite + Unpin,
    state: &LaneState,
) -> GoneReason {
    let mut buffer = Buffer::new();
    let reason = loop {
        let read = match zmq.read(buffer.space()).await {
            Ok(0) | Err(_) => {
                // A failure to say goodbye changes nothing: the goodbye was all that was left.
                let _ = network.shutdown().await;
                break GoneReason::Closed;
            }
            Ok(read) => read,
        };
        if let Err(error) = network.write_all(buffer.filled(read)).await {
            break GoneReason::Broken(error.kind());
        }
        // Nothing on a TCP stream; an encrypting one may hold back a record until told.
        if let Err(error) = network.flush().await {
            break GoneReason::Broken(error.kind());
        }
        state.traffic.bytes_out.fetch_add(read as u64, Ordering::Relaxed);
        buffer.consume(read, read);
    };
    state.end(reason);
    reason
}

const BUFFER_BYTES_MIN: usize = 4 << 10;
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// So many reads in a row that filled less than a quarter halve the buffer.
const SHORT_READS: u8 = 16;

/// Grows with the traffic and shrinks after it: there may be thousands of lanes, most of them idle.
struct Buffer {
    bytes: Vec<u8>,
    /// At the front: what did not pass the last time.
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

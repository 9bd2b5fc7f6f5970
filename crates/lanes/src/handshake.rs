//! ZMTP's handshake with a peer, before anything but a buffer is made for it.
//!
//! A stranger costs its connection, a task and a few kilobytes until it has said who it is and the door has let
//! it in. Only then is there a socket of ZeroMQ, which hears greeting and READY in our words: what a peer sends
//! reaches it from the first message on.

use std::io;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tradewind_keys::Peer as Key;

use crate::attach::HandshakeError;
use crate::buffer::{BUFFER_BYTES_MIN, Buffer};
use crate::door::{Door, Hello};
use crate::keyring::End;
use crate::lane::{GoneReason, LaneState};
use crate::meter::{Found, Meter, Ready, error_command, greeting, ready_command};
use crate::pump::Flow;
use crate::stream::PeerAddr;

/// Rule by which the peer is let in, and the peer's name.
pub(crate) struct Guard<'a> {
    pub(crate) door: &'a Door,
    pub(crate) peer: &'a PeerAddr,
    /// Key of the peer, if the connection is encrypted.
    pub(crate) key: Option<&'a Key>,
    /// Our end. A peer that dialled us gets our READY last of all: a dialler whose handshake is complete has
    /// thereby been let in.
    pub(crate) end: End,
    pub(crate) flow: Flow,
}

/// Peer that has been let in.
pub(crate) struct Greeted {
    pub(crate) ready: Ready,
    /// Holds what came behind READY.
    pub(crate) buffer: Buffer,
}

/// Peer that has not been let in.
pub(crate) struct Refused {
    pub(crate) error: HandshakeError,
    /// Bytes to send to it before the connection is closed.
    pub(crate) words: Vec<u8>,
}

impl Refused {
    fn silently(reason: GoneReason) -> Self {
        Self { error: HandshakeError::Gone(reason), words: Vec::new() }
    }
}

impl Guard<'_> {
    /// Returns our READY.
    pub(crate) fn ready(&self) -> Vec<u8> {
        let identity = self.door.identity.as_ref().map_or(&[][..], AsRef::as_ref);
        ready_command(self.flow.socket_type(), identity)
    }

    /// Sends our part of the handshake, but for a gate's READY, and reads the peer's. Unbounded in time.
    pub(crate) async fn greet<S>(
        &self,
        stream: &mut S,
        meter: &mut Meter,
        state: &LaneState,
    ) -> Result<Greeted, Refused>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut words = greeting().to_vec();
        if self.end == End::Dialler {
            words.extend(self.ready());
        }
        send(stream, &words, state).await.map_err(Refused::silently)?;
        let mut buffer = Buffer::new();
        let ready = tokio::select! {
            read = read(stream, &mut buffer, meter, state) => match read {
                Ok(ready) => ready,
                Err(reason) => {
                    let words = reason.to_tell().map(|text| error_command(&text));
                    let error = HandshakeError::Gone(reason);
                    return Err(Refused { error, words: words.unwrap_or_default() });
                }
            },
            reason = state.dismissed() => return Err(self.refusal(&reason)),
        };
        let hello = Hello {
            addr: self.peer.clone(),
            socket_type: &ready.socket_type,
            identity: &ready.identity,
            key: self.key,
        };
        let admitted = self.door.admit(&hello).map_err(|reason| self.refusal(&reason))?;
        if let Err(reason) = state.let_in(admitted) {
            let Refused { words, .. } = self.refusal(&reason.to_string());
            return Err(Refused { error: HandshakeError::NoRoom(reason), words });
        }
        // It may have refused us with its next word, and then there has been no lane.
        let next = meter.clone().feed(buffer.filled(0));
        if let (0, Some(Found::Error(reason))) = (next.passed, next.found) {
            return Err(Refused::silently(GoneReason::Told(reason.into())));
        }
        Ok(Greeted { ready, buffer })
    }

    /// Returns the refusal of a peer to which a reason is told. Our READY goes before it, so that the peer can
    /// make up its own mind as well: it may have found a port that it did not mean.
    fn refusal(&self, reason: &str) -> Refused {
        let mut words = match self.end {
            End::Gate => self.ready(),
            End::Dialler => Vec::new(),
        };
        words.extend(error_command(reason));
        Refused { error: HandshakeError::Gone(GoneReason::Refused(reason.into())), words }
    }
}

/// Reads until READY has passed the meter.
async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Buffer,
    meter: &mut Meter,
    state: &LaneState,
) -> Result<Ready, GoneReason> {
    loop {
        let read = match stream.read(buffer.space()).await {
            Ok(0) => return Err(GoneReason::Ended),
            Ok(read) => read,
            Err(error) => return Err(GoneReason::Broken(error.kind())),
        };
        state.traffic.bytes_in.fetch_add(read as u64, Ordering::Relaxed);
        let metered = meter.feed(buffer.filled(read));
        buffer.consume(read, metered.passed);
        match metered.found {
            None => {}
            Some(Found::Ready(ready)) => return Ok(ready),
            Some(Found::Error(reason)) => return Err(GoneReason::Told(reason.into())),
            Some(Found::Violation(violation)) => return Err(GoneReason::Protocol(violation)),
        }
    }
}

/// Sends a part of the handshake.
pub(crate) async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    words: &[u8],
    state: &LaneState,
) -> Result<(), GoneReason> {
    let broken = |error: io::Error| GoneReason::Broken(error.kind());
    stream.write_all(words).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    state.traffic.bytes_out.fetch_add(words.len() as u64, Ordering::Relaxed);
    Ok(())
}

/// Time that telling a peer a reason may take, until it has closed its end. Were ours closed first, with bytes
/// of the peer unread, TCP would throw the reason away.
pub(crate) const TELL_MAX: Duration = Duration::from_secs(1);

/// Sends a peer our last words and waits until it has closed its end, for a bounded time.
pub(crate) async fn tell(stream: impl AsyncRead + AsyncWrite, words: &[u8]) {
    let mut stream = pin!(stream);
    let telling = async {
        stream.write_all(words).await?;
        stream.flush().await?;
        stream.shutdown().await?;
        let mut ignored = vec![0; BUFFER_BYTES_MIN];
        while stream.read(&mut ignored).await? > 0 {}
        io::Result::Ok(())
    };
    // It has heard us or not; either way that was all.
    let _ = tokio::time::timeout(TELL_MAX, telling).await;
}

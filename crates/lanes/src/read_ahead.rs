//! A stream that is read in large pieces when much is on its way, and costs little memory when not.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const BYTES_MIN: usize = 4 << 10;
const BYTES_MAX: usize = 64 << 10;

/// Reads ahead of a reader that takes a little at a time: TLS asks for 4 KiB, which would be a call of the
/// system for each. The buffer doubles when it was filled, and goes back when it was not even half full.
#[derive(Debug)]
pub(crate) struct ReadAhead<S> {
    stream: S,
    buffer: Box<[u8]>,
    /// Bytes of the buffer that were read from the stream, and those of them that were taken.
    filled: usize,
    taken: usize,
}

impl<S> ReadAhead<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: buffer(BYTES_MIN), filled: 0, taken: 0 }
    }

    /// Makes the buffer as large as what came the last time asks for. It is empty.
    fn adapt(&mut self) {
        let size = self.buffer.len();
        let wanted = match self.filled {
            filled if filled == size => (size * 2).min(BYTES_MAX),
            filled if filled < size / 2 => (size / 2).max(BYTES_MIN),
            _ => size,
        };
        if wanted != size {
            self.buffer = buffer(wanted);
        }
    }
}

fn buffer(bytes: usize) -> Box<[u8]> {
    vec![0; bytes].into_boxed_slice()
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.taken == this.filled {
            let mut read = ReadBuf::new(&mut this.buffer);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut read))?;
            (this.filled, this.taken) = (read.filled().len(), 0);
        }
        let bytes = (this.filled - this.taken).min(into.remaining());
        into.put_slice(&this.buffer[this.taken..this.taken + bytes]);
        this.taken += bytes;
        if this.taken == this.filled {
            this.adapt();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn the_buffer_follows_the_traffic_and_nothing_is_lost() {
        let (mut near, far) = duplex(1 << 20);
        let mut ahead = ReadAhead::new(far);
        let bytes: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
        near.write_all(&bytes).await.unwrap();
        let mut read = vec![0; bytes.len()];
        for piece in read.chunks_mut(4096) {
            ahead.read_exact(piece).await.unwrap();
        }
        assert!(read == bytes);
        assert_eq!(ahead.buffer.len(), BYTES_MAX);
        for _ in 0..8 {
            near.write_all(b"a").await.unwrap();
            ahead.read_exact(&mut read[..1]).await.unwrap();
        }
        assert_eq!(ahead.buffer.len(), BYTES_MIN);
        drop(near);
        assert_eq!(ahead.read(&mut read).await.unwrap(), 0);
    }
}

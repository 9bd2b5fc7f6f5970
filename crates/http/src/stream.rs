//! A client's bytes: with a bound on the time for which it may take none, and problems where the parser of
//! HTTP answers by itself.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::problem::{Kind, Problem};

/// A stream of a client.
#[derive(Debug)]
pub(crate) struct Stream<S> {
    inner: S,
    stall_time: Duration,
    /// Since when the client has taken nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// What is written instead of a bare answer, and how far that is.
    instead: Vec<u8>,
    instead_at: usize,
    /// Whether the client sent something since it was last written to.
    has_asked: bool,
}

impl<S> Stream<S> {
    pub(crate) fn new(inner: S, stall_time: Duration) -> Self {
        let instead = Vec::new();
        Self { inner, stall_time, stalled: None, instead, instead_at: 0, has_asked: false }
    }

    /// Returns whether the client sent something that was not answered.
    pub(crate) fn has_asked(&self) -> bool {
        self.has_asked
    }
}

impl<S: AsyncWrite + Unpin> Stream<S> {
    /// Writes, unless the client has taken nothing for too long.
    fn poll_put(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let put = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.within_time(cx, put)
    }

    fn within_time<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.stalled = None;
            return poll;
        }
        let time = self.stall_time;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(time)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Writes what is there instead of a bare answer.
    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.instead_at < self.instead.len() {
            let rest = self.instead[self.instead_at..].to_vec();
            match ready!(self.poll_put(cx, &rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.instead_at += count,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        self.has_asked |= buf.filled().len() > before;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_instead(cx))?;
        self.has_asked = false;
        if let Some(kind) = bare(bytes) {
            let detail = match kind {
                Kind::BadRequest => "it is malformed (RFC 9112)",
                _ => "those of another request may fit",
            };
            self.instead = whole(&Problem::new(kind, detail));
            self.instead_at = 0;
            // The rest is written by what comes next: a flush.
            return Poll::Ready(Ok(bytes.len()));
        }
        self.poll_put(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.within_time(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        let closed = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.within_time(cx, closed)
    }
}

/// Returns what the parser of HTTP refuses, if these bytes are an answer of its own: a head alone. Ours have
/// a body whenever they are of such a status, and no body of ours has an empty line after a carriage return.
fn bare(bytes: &[u8]) -> Option<Kind> {
    let head = bytes.strip_prefix(b"HTTP/1.1 ")?.strip_suffix(b"\r\n\r\n")?;
    let head = std::str::from_utf8(head).ok()?;
    let kind = match head.split(' ').next()? {
        "400" => Kind::BadRequest,
        "414" => Kind::UriTooLong,
        "431" => Kind::HeadTooLarge,
        _ => return None,
    };
    let mut headers = head.split("\r\n").skip(1);
    headers.any(|header| header.eq_ignore_ascii_case("content-length: 0")).then_some(kind)
}

/// Returns the bytes of an answer that is the last of its connection.
pub(crate) fn whole(problem: &Problem) -> Vec<u8> {
    let json = problem.json();
    let status = problem.status();
    let retry = problem.retry_after().map_or(String::new(), |it| format!("retry-after: {it}\r\n"));
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
         cache-control: no-store\r\nx-content-type-options: nosniff\r\n{retry}connection: close\r\n\r\n{json}",
        json.len(),
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_bare_if_it_is_a_head_without_a_body() {
        let of = |text: &str| bare(text.as_bytes());
        let rest = "\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        assert_eq!(of(&format!("HTTP/1.1 400 Bad Request{rest}")), Some(Kind::BadRequest));
        assert_eq!(of(&format!("HTTP/1.1 431 Too{rest}")), Some(Kind::HeadTooLarge));
        assert_eq!(of(&format!("HTTP/1.1 414 Too{rest}")), Some(Kind::UriTooLong));
        for other in [
            format!("HTTP/1.1 200 OK{rest}"),
            format!("HTTP/1.1 400 Bad Request{rest}{{}}"),
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 10\r\n\r\n".to_owned(),
            "HTTP/1.1 100 Continue\r\n\r\n".to_owned(),
            String::new(),
        ] {
            assert_eq!(of(&other), None, "{other}");
        }
        assert_eq!(bare(&whole(&Problem::bad_request("x"))), None);
    }
}

//! Whether a program that serves queues is well: a request for those who have no other program to send it.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use thiserror::Error;
use tradewind_shown::shown;

/// Time to connect, and time for each step of the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reason why a program counts as not well.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub(crate) enum Unwell {
    #[error("http://{at}/healthz was not answered")]
    Silent {
        at: SocketAddr,
        #[source]
        why: io::Error,
    },
    #[error("http://{at}/healthz was answered with: {}", shown(line.trim_end()))]
    Answered { at: SocketAddr, line: String },
}

/// Asks for `/healthz` at a port without TLS. One that listens everywhere is asked on loopback.
///
/// # Errors
/// When the answer is any but 200.
pub(crate) fn health(http: SocketAddr) -> Result<(), Unwell> {
    let at = SocketAddr::new(
        match http.ip() {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        },
        http.port(),
    );
    let line = status_line(at).map_err(|why| Unwell::Silent { at, why })?;
    match line.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(Unwell::Answered { at, line }),
    }
}

fn status_line(at: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /healthz HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n")?;
    let mut line = Vec::new();
    io::Read::take(BufReader::new(stream), 1 << 10).read_until(b'\n', &mut line)?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}

//! The little of HTTP that a measurement needs: one request after another on one connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddrV4, TcpStream};

use anyhow::{Context, Result, bail};

use crate::process::PATIENCE;

/// Connection to a server.
#[derive(Debug)]
pub(crate) struct Http {
    from: BufReader<TcpStream>,
    host: SocketAddrV4,
}

impl Http {
    pub(crate) fn connect(host: SocketAddrV4) -> Result<Self> {
        let stream = TcpStream::connect(host).context("cannot reach the HTTP port")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { from: BufReader::new(stream), host })
    }

    pub(crate) fn get(&mut self, path: &str) -> Result<Vec<u8>> {
        self.ask("GET", path, "", b"")
    }

    /// Asks, with header lines that each end with CRLF. Returns the body of an answer that is a good one.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> Result<Vec<u8>> {
        let (host, length) = (self.host, body.len());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n{headers}\r\n"
        );
        // In one piece: two would be two packets.
        self.from.get_mut().write_all(&[head.as_bytes(), body].concat())?;
        let status = self.line()?;
        let (mut length, mut is_chunked) = (0, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("content-length", value)) => length = value.parse()?,
                Some(("transfer-encoding", _)) => is_chunked = true,
                Some(_) => {}
                None => break,
            }
        }
        let mut answer = Vec::new();
        if is_chunked {
            while self.chunk(&mut answer)? {}
        } else {
            answer.resize(length, 0);
            self.from.read_exact(&mut answer)?;
        }
        if !status.starts_with("HTTP/1.1 2") {
            bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&answer));
        }
        Ok(answer)
    }

    /// Reads a chunk. Returns whether it was not the last one.
    fn chunk(&mut self, answer: &mut Vec<u8>) -> Result<bool> {
        let length = usize::from_str_radix(&self.line()?, 16).context("a chunk's length")?;
        let begin = answer.len();
        answer.resize(begin + length, 0);
        self.from.read_exact(&mut answer[begin..])?;
        self.line()?;
        Ok(length > 0)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            bail!("the HTTP server has closed the connection");
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};
    use std::thread;

    use super::*;

    #[test]
    fn a_body_is_as_long_as_its_head_or_its_chunks_say() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", Some("ab")),
            (
                "HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\na\r\n0123456789\r\n0\r\n\r\n",
                Some("a0123456789"),
            ),
            ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", None),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na", None),
        ] {
            let server = TcpListener::bind("127.0.0.1:0").unwrap();
            let SocketAddr::V4(address) = server.local_addr().unwrap() else {
                unreachable!("IPv4")
            };
            let serving = thread::spawn(move || {
                let (mut client, _) = server.accept().unwrap();
                let mut asked = BufReader::new(client.try_clone().unwrap());
                let mut line = String::new();
                while asked.read_line(&mut line).unwrap() > 2 {
                    line.clear();
                }
                client.write_all(answer.as_bytes()).unwrap();
            });
            let answer = Http::connect(address).unwrap().get("/");
            serving.join().unwrap();
            assert_eq!(answer.ok().as_deref(), expected.map(str::as_bytes), "{expected:?}");
        }
    }
}

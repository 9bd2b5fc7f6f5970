//! Pipeline as in `peers/pipeline.c`, on the `zeromq` crate and a current-thread runtime, which
//! suits it better than one with more threads.

use std::fs::File;
use std::future;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::StreamExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time;
use zeromq::{PullSocket, PushSocket, Socket, SocketEvent, SocketRecv, SocketSend};

use super::block_on;

/// Number of lines that wait between the thread that reads stdin and the socket.
const LINES_MAX: usize = 1024;

pub(super) fn ventilator(tasks: &str, input: &Path, workers: usize) -> Result<()> {
    block_on(async {
        let mut socket = PushSocket::new();
        wait_for(&mut socket, tasks, workers).await?;
        if input == Path::new("-") {
            let mut lines = stdin_lines();
            while let Some(line) = lines.recv().await {
                socket.send(line.into()).await?;
            }
        } else {
            let mut lines = BufReader::new(File::open(input).context("cannot read the input")?);
            while let Some(line) = next_line(&mut lines)? {
                socket.send(line.into()).await?;
            }
        }
        // The socket does not say when all is sent: this process is killed when the sink has it
        // all.
        future::pending().await
    })
}

pub(super) fn worker(tasks: &str, results: &str) -> Result<()> {
    block_on(async {
        let mut to = PushSocket::new();
        wait_until_up(results).await;
        to.connect(results).await?;
        let mut from = PullSocket::new();
        wait_until_up(tasks).await;
        from.connect(tasks).await?;
        loop {
            to.send(from.recv().await?).await?;
        }
    })
}

pub(super) fn sink(results: &str, count: u64, output: &Path) -> Result<()> {
    let is_watched = output == Path::new("-");
    let out: Box<dyn Write> =
        if is_watched { Box::new(io::stdout()) } else { Box::new(File::create(output)?) };
    let mut out = BufWriter::new(out);
    block_on(async {
        let mut socket = PullSocket::new();
        socket.bind(results).await?;
        let mut seen = 0;
        while count == 0 || seen < count {
            let message = socket.recv().await?;
            for frame in message.iter() {
                out.write_all(frame)?;
            }
            out.write_all(b"\n")?;
            if is_watched {
                out.flush()?;
            }
            seen += 1;
        }
        Ok(out.flush()?)
    })
}

/// Waits for all workers: PUSH would give the first one all that its queue holds before the second
/// is there.
async fn wait_for(socket: &mut PushSocket, tasks: &str, mut workers: usize) -> Result<()> {
    let mut events = socket.monitor();
    socket.bind(tasks).await?;
    while workers > 0 {
        if let Some(SocketEvent::Accepted(..)) = events.next().await {
            workers -= 1;
        }
    }
    Ok(())
}

/// Waits for the port: of three programs that start at once one may dial too early; the socket
/// would then pause for 50 ms, a good part of a short run.
async fn wait_until_up(endpoint: &str) {
    let address = endpoint.trim_start_matches("tcp://");
    while TcpStream::connect(address).await.is_err() {
        time::sleep(Duration::from_millis(1)).await;
    }
}

/// Reads stdin on a thread: it would block the runtime.
fn stdin_lines() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(LINES_MAX);
    thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        while let Ok(Some(line)) = next_line(&mut stdin) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn next_line(lines: &mut impl BufRead) -> io::Result<Option<Bytes>> {
    let mut line = Vec::new();
    if lines.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    line.pop_if(|last| *last == b'\n');
    Ok(Some(line.into()))
}

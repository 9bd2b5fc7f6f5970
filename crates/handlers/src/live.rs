//! Output of commands, shown while they run: on the worker's own standard output and error.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, write};

use super::stop;

/// Ways in which the output of running commands is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Live {
    /// Not at all: their records have it.
    #[default]
    No,
    /// Line by line; their records have it too.
    Lines,
    /// Commands have the worker's standard output and error: nothing is captured.
    Raw,
}

/// Lines of one command on their way to a standard stream.
#[derive(Debug)]
pub(super) struct Lines {
    to: BorrowedFd<'static>,
    /// The begin of a line whose end is still to be written.
    begun: Vec<u8>,
}

/// Bytes that a pipe takes in one piece, also where others write to it (`PIPE_BUF`).
const PIECE_BYTES: usize = 4096;

/// One writer at a time, so that lines stay whole where they are longer than that.
static WRITING: Mutex<()> = Mutex::new(());

/// Why standard output takes nothing any more, as an error of the system; 0 as long as it does.
static FAILED: AtomicI32 = AtomicI32::new(0);

/// Why standard output takes nothing any more, if a command had something to write there.
pub fn failure() -> Option<io::Error> {
    match FAILED.load(Ordering::Acquire) {
        0 => None,
        code => Some(io::Error::from_raw_os_error(code)),
    }
}

/// Checks whether our own output is not read any more, as a command was killed for that.
pub(super) fn notice_closed() {
    let mut fds = [PollFd::from_borrowed_fd(rustix::stdio::stdout(), PollFlags::OUT)];
    let is_polled = stop::wait(&mut fds, Some(Duration::ZERO)).is_ok();
    if is_polled && fds[0].revents().contains(PollFlags::ERR) {
        fail(Errno::PIPE);
    }
}

fn fail(error: Errno) {
    FAILED.store(error.raw_os_error(), Ordering::Release);
}

impl Lines {
    pub(super) fn to_stdout() -> Self {
        Self { to: rustix::stdio::stdout(), begun: Vec::new() }
    }

    pub(super) fn to_stderr() -> Self {
        Self { to: rustix::stdio::stderr(), begun: Vec::new() }
    }

    /// Writes the lines that are whole now.
    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else {
            self.begun.extend_from_slice(bytes);
            return Ok(());
        };
        let (whole, begun) = bytes.split_at(end + 1);
        let mut lines = std::mem::replace(&mut self.begun, begun.to_vec());
        lines.extend_from_slice(whole);
        self.write(&lines)
    }

    /// Ends the line that has no end, so that no other text continues it.
    pub(super) fn end(&mut self) -> io::Result<()> {
        if self.begun.is_empty() {
            return Ok(());
        }
        let mut line = std::mem::take(&mut self.begun);
        line.push(b'\n');
        self.write(&line)
    }

    fn write(&self, lines: &[u8]) -> io::Result<()> {
        let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        pieces(lines).try_for_each(|piece| write_all(self.to, piece)).map_err(|error| {
            // What goes to stderr may be lost.
            if self.to.as_raw_fd() == rustix::stdio::stdout().as_raw_fd() {
                fail(error);
            }
            error.into()
        })
    }
}

/// Whole lines, as many as a pipe takes in one piece, but one at least.
fn pieces(mut lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let window = &lines[..lines.len().min(PIECE_BYTES)];
        let newline = |bytes: &[u8]| bytes.iter().position(|byte| *byte == b'\n');
        let last = window.iter().rposition(|byte| *byte == b'\n');
        let end = last.or_else(|| newline(lines)).map_or(lines.len(), |at| at + 1);
        let (piece, rest) = lines.split_at(end);
        lines = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match write(to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            // Another process made it non-blocking, and it is full.
            Err(Errno::AGAIN) => {
                let mut room = [PollFd::from_borrowed_fd(to, PollFlags::OUT)];
                stop::wait(&mut room, None)
                    .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn lines_are_written_when_they_are_whole() {
        let (mut reader, writer) = io::pipe().unwrap();
        let writer: &'static io::PipeWriter = Box::leak(Box::new(writer));
        let mut lines = Lines { to: writer.as_fd(), begun: Vec::new() };
        let mut read = |wanted: &str| {
            let mut found = vec![0; wanted.len()];
            reader.read_exact(&mut found).unwrap();
            assert_eq!(String::from_utf8(found).unwrap(), wanted);
            let mut more = [PollFd::new(&reader, PollFlags::IN)];
            stop::wait(&mut more, Some(Duration::ZERO)).unwrap();
            assert!(more[0].revents().is_empty(), "there is more");
        };
        lines.push(b"a").unwrap();
        read("");
        lines.push(b"b\nc\nd").unwrap();
        read("ab\nc\n");
        lines.push(b"e").unwrap();
        lines.push(b"\n").unwrap();
        read("de\n");
        lines.end().unwrap();
        read("");
        lines.push(b"no end").unwrap();
        lines.end().unwrap();
        read("no end\n");
    }

    #[test]
    fn pieces_are_whole_lines() {
        let long = "x".repeat(PIECE_BYTES + 10) + "\n";
        let short = "y".repeat(PIECE_BYTES / 2) + "\n";
        let text = [&long[..], &short, &short, "z\n"].concat();
        let found: Vec<_> = pieces(text.as_bytes()).map(<[u8]>::len).collect();
        assert_eq!(found, [long.len(), short.len(), short.len() + 2]);
    }
}

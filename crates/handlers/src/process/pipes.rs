//! Our ends of a process's pipes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::io::{Errno, ioctl_fionread, read, write};

/// Bytes that are read at a time: what a pipe holds.
const READ_BYTES: usize = 64 << 10;

/// One of the pipes that a process writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// The pipes; one that has ended is closed.
#[derive(Debug)]
pub(super) struct Pipes {
    /// Does not block.
    pub(super) stdin: Option<OwnedFd>,
    /// The process has closed its end of stdin.
    is_deaf: bool,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    buffer: Vec<u8>,
}

/// Result of one write.
pub(crate) enum Written {
    Bytes(usize),
    Full,
    Closed,
}

impl Pipes {
    pub(super) fn new(
        stdin: Option<OwnedFd>,
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
    ) -> Self {
        Self { stdin, is_deaf: false, stdout, stderr, buffer: Vec::new() }
    }

    /// Returns stdin, unless the process has closed it.
    pub(super) fn writable(&self) -> Option<BorrowedFd<'_>> {
        self.stdin.as_ref().filter(|_| !self.is_deaf).map(AsFd::as_fd)
    }

    pub(super) fn get(&self, stream: Stream) -> Option<BorrowedFd<'_>> {
        let pipe = match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        };
        pipe.as_ref().map(AsFd::as_fd)
    }

    pub(super) fn close(&mut self, stream: Stream) {
        match stream {
            Stream::Stdout => self.stdout = None,
            Stream::Stderr => self.stderr = None,
        }
    }

    /// Returns the number of bytes that lie in a pipe at this moment.
    pub(super) fn held(&self, stream: Stream) -> u64 {
        self.get(stream).and_then(|pipe| ioctl_fionread(pipe).ok()).unwrap_or(0)
    }

    /// Returns the number of bytes that the process was given and has not read.
    pub(super) fn unread(&self) -> u64 {
        self.stdin.as_ref().and_then(|stdin| ioctl_fionread(stdin).ok()).unwrap_or(0)
    }

    /// Reads once, and returns the number of bytes. `sink` gets them, and none at the end of the
    /// stream. The pipe must have something, or this waits.
    pub(super) fn read(
        &mut self,
        stream: Stream,
        sink: impl FnOnce(Stream, &[u8]) -> io::Result<()>,
    ) -> io::Result<usize> {
        self.buffer.clear();
        self.buffer.reserve(READ_BYTES);
        // Not by `get`: the buffer is borrowed too.
        let Some(pipe) = (match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }) else {
            return Ok(0);
        };
        let count = match read(pipe, spare_capacity(&mut self.buffer)) {
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        if count == 0 {
            self.close(stream);
        }
        sink(stream, &self.buffer)?;
        Ok(count)
    }

    /// Writes as much as the pipe takes at once.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<Written> {
        let Some(stdin) = self.writable() else { return Ok(Written::Full) };
        match write(stdin, bytes) {
            Ok(count) => Ok(Written::Bytes(count)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(Written::Full),
            Err(Errno::PIPE) => {
                // What it has not read can still be counted.
                self.is_deaf = true;
                Ok(Written::Closed)
            }
            Err(error) => Err(error.into()),
        }
    }
}

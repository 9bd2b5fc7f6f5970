//! A command's pipes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::PollFlags;
use rustix::io::{Errno, read, write};

use super::super::live::Lines;
use super::super::tail::Tail;
use super::poll::{self, READ_BYTES};

/// Reads in a row of a pipe that others go on writing to.
const READS_MAX: usize = 64;

/// The pipes; one that has ended is closed.
#[derive(Debug)]
pub(super) struct Streams<'a> {
    stdin: Option<OwnedFd>,
    /// Bytes still to be written to stdin.
    input: &'a [u8],
    stdout: Option<OwnedFd>,
    output: Vec<u8>,
    output_bytes_max: usize,
    /// More than that was written to stdout.
    pub(super) exceeded: bool,
    stderr: Option<OwnedFd>,
    tail: Tail,
    /// Where both are shown at once, line by line.
    live: Option<(Lines, Lines)>,
}

/// What polling told.
#[derive(Debug)]
pub(super) struct Ready {
    stdin: PollFlags,
    stdout: PollFlags,
    stderr: PollFlags,
    pub(super) leader: PollFlags,
    signal: PollFlags,
}

impl Ready {
    /// Nothing is.
    pub(super) fn is_timeout(&self) -> bool {
        let Self { stdin, stdout, stderr, leader, signal } = self;
        [stdin, stdout, stderr, leader, signal].into_iter().all(|flags| flags.is_empty())
    }

    /// Something was written to stdout or stderr.
    pub(super) fn has_output(&self) -> bool {
        self.stdout.contains(PollFlags::IN) || self.stderr.contains(PollFlags::IN)
    }
}

impl<'a> Streams<'a> {
    pub(super) fn new(
        input: &'a [u8],
        output_bytes_max: usize,
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
    ) -> Self {
        Self {
            stdin: None,
            input,
            stdout,
            output: Vec::new(),
            output_bytes_max,
            exceeded: false,
            stderr,
            tail: Tail::default(),
            live: None,
        }
    }

    /// From now on lines are shown as they come.
    pub(super) fn show_lines(&mut self) {
        self.live = Some((Lines::to_stdout(), Lines::to_stderr()));
    }

    /// Shows the lines that have no end.
    pub(super) fn end_lines(&mut self) -> io::Result<()> {
        let Some((stdout, stderr)) = &mut self.live else { return Ok(()) };
        // Nobody needs to be there to read what goes to stderr.
        let _ = stderr.end();
        stdout.end()
    }

    /// Writes the input into this, which does not block.
    pub(super) fn feed_through(&mut self, stdin: OwnedFd) -> io::Result<()> {
        self.stdin = Some(stdin);
        self.feed()
    }

    pub(super) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub(super) fn close_stdout(&mut self) {
        self.stdout = None;
    }

    pub(super) fn has_stdout(&self) -> bool {
        self.stdout.is_some()
    }

    /// Does anybody hold the other end of stdout or of stderr, as far as is known?
    pub(super) fn has_any(&self) -> bool {
        self.stdout.is_some() || self.stderr.is_some()
    }

    /// All of stdout, and the end of stderr.
    pub(super) fn into_parts(self) -> (Vec<u8>, Tail) {
        (self.output, self.tail)
    }

    /// Waits until something can be done. `signal` only ends the wait.
    pub(super) fn wait(
        &self,
        leader: Option<BorrowedFd<'_>>,
        signal: Option<BorrowedFd<'_>>,
        timeout: Option<Duration>,
    ) -> io::Result<Ready> {
        let all = [
            (self.stdin.as_ref().map(AsFd::as_fd), PollFlags::OUT),
            (self.stdout.as_ref().map(AsFd::as_fd), PollFlags::IN),
            (self.stderr.as_ref().map(AsFd::as_fd), PollFlags::IN),
            (leader, PollFlags::IN),
            (signal, PollFlags::IN),
        ];
        let [stdin, stdout, stderr, leader, signal] = poll::wait(all, timeout)?;
        Ok(Ready { stdin, stdout, stderr, leader, signal })
    }

    pub(super) fn handle(&mut self, ready: &Ready) -> io::Result<()> {
        if !ready.stdin.is_empty() {
            self.feed()?;
        }
        // Data comes before the hang-up: with the latter alone there is nothing left to read.
        if ready.stdout.contains(PollFlags::IN) {
            self.read_stdout()?;
        } else if !ready.stdout.is_empty() {
            self.stdout = None;
        }
        if ready.stderr.contains(PollFlags::IN) {
            self.read_stderr()?;
        } else if !ready.stderr.is_empty() {
            self.stderr = None;
        }
        Ok(())
    }

    /// Takes what is in the pipes, and closes what nobody holds any more. Others than the command may
    /// go on writing: that must not hold up anybody.
    pub(super) fn take_what_is_there(&mut self) -> io::Result<()> {
        for _ in 0..READS_MAX {
            if self.exceeded {
                self.stdout = None;
            }
            if !self.has_any() {
                break;
            }
            let ready = self.wait(None, None, Some(Duration::ZERO))?;
            if ready.is_timeout() {
                break;
            }
            self.handle(&ready)?;
        }
        Ok(())
    }

    /// Writes as much of the input as the pipe takes.
    fn feed(&mut self) -> io::Result<()> {
        while let Some(stdin) = &self.stdin {
            if self.input.is_empty() {
                self.stdin = None;
                break;
            }
            match write(stdin, self.input) {
                Ok(count) => self.input = &self.input[count..],
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                // Nobody has to read the task to the end.
                Err(Errno::PIPE) => self.stdin = None,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads once. The pipe must have something, or this waits.
    fn read_stdout(&mut self) -> io::Result<()> {
        let Some(stdout) = &self.stdout else { return Ok(()) };
        self.output.reserve(READ_BYTES);
        let before = self.output.len();
        let count = match read(stdout, spare_capacity(&mut self.output)) {
            Ok(count) => count,
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if self.output.len() > self.output_bytes_max {
            self.output.truncate(self.output_bytes_max);
            self.exceeded = true;
        }
        if count == 0 {
            self.stdout = None;
        }
        match &mut self.live {
            Some((lines, _)) => lines.push(&self.output[before..]),
            None => Ok(()),
        }
    }

    /// Reads once. The pipe must have something, or this waits.
    fn read_stderr(&mut self) -> io::Result<()> {
        let Some(stderr) = &self.stderr else { return Ok(()) };
        let mut buffer = [0; 16 << 10];
        match read(stderr, &mut buffer) {
            Ok(0) => self.stderr = None,
            Ok(count) => {
                self.tail.push(&buffer[..count]);
                if let Some((_, lines)) = &mut self.live {
                    let _ = lines.push(&buffer[..count]);
                }
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

//! Looks after one running command until it has ended: feeds it, listens to it, stops it.
//!
//! Everything happens in one poll loop on the slot's thread, so nothing can deadlock however much
//! is written to whom, and every decision about the process group is made in one place.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, ioctl_fionread, read, write};
use rustix::process::Signal;

use super::group::Group;
use super::stop::{self, StopSignal};
use super::tail::Tail;

/// Bytes that are read at a time: what a pipe holds.
const READ_BYTES: usize = 64 << 10;

/// How often a stopped group whose leader has exited is asked whether the others have too.
const OTHERS_INTERVAL: Duration = Duration::from_millis(20);

/// Far enough away, and no clock overflows.
const GRACE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A command that was started, and our ends of what it writes to.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) child: Child,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    /// Has the other ends of these too. As long as it does, the pipes do not hang up, which would
    /// wake us twice for each command, only to wait for its end after all.
    pub(super) ends: Command,
}

/// How a command ended and what it wrote.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// At most the limit.
    pub(super) stdout: Vec<u8>,
    /// It wrote more to stdout than the limit.
    pub(super) stdout_exceeded: bool,
    pub(super) stderr: Tail,
}

/// How far stopping has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopping {
    /// Nobody asked for it.
    No,
    /// The group was sent TERM, and will be sent KILL at this time.
    Terminated(Instant),
    /// The group was sent KILL.
    Killed,
}

/// Runs a command to its end. `input` goes to its stdin if that is a pipe.
pub(super) fn supervise(
    spawned: Spawned,
    input: &[u8],
    stdout_bytes_max: usize,
    grace: Duration,
    stop: &StopSignal,
) -> io::Result<Ended> {
    let Spawned { mut child, stdout, stderr, ends } = spawned;
    let stdin = child.stdin.take().map(OwnedFd::from);
    let group = Group::new(child)?;
    let mut streams = Streams {
        stdin: None,
        input,
        stdout: Some(stdout),
        output: Vec::new(),
        output_bytes_max: stdout_bytes_max,
        exceeded: false,
        stderr: Some(stderr),
        tail: Tail::default(),
    };
    if let Some(stdin) = stdin {
        fcntl_setfl(&stdin, OFlags::NONBLOCK)?;
        streams.stdin = Some(stdin);
        // A small task fits into the pipe: then there is nothing to poll for.
        streams.feed()?;
    }

    let mut stopping = Stopping::No;
    let mut leader_exited = false;
    loop {
        let timeout = match stopping {
            Stopping::Terminated(kill_at) => {
                let left = kill_at.saturating_duration_since(Instant::now());
                Some(if leader_exited { left.min(OTHERS_INTERVAL) } else { left })
            }
            Stopping::No | Stopping::Killed => None,
        };
        let leader = (!leader_exited).then(|| group.exited());
        let signal = (stopping == Stopping::No).then(|| stop.as_fd());
        let ready = streams.wait(leader, signal, timeout)?;

        streams.handle(&ready)?;
        leader_exited |= !ready.leader.is_empty();
        if stopping == Stopping::No && stop.is_stopped() {
            group.signal(Signal::TERM);
            stopping = Stopping::Terminated(Instant::now() + grace.min(GRACE_MAX));
        }
        if let Stopping::Terminated(kill_at) = stopping
            && Instant::now() >= kill_at
        {
            group.signal(Signal::KILL);
            stopping = Stopping::Killed;
        }
        if streams.exceeded && streams.stdout.is_some() {
            // Before the pipe is closed, or a broken pipe might kill it first.
            group.signal(Signal::KILL);
            stopping = Stopping::Killed;
            streams.stdout = None;
        }
        if leader_exited {
            match stopping {
                // Whoever it left behind may go on, and may go on holding its pipes.
                Stopping::No => break,
                // The grace is for all of the group: a shell dies at once, its child cleans up.
                Stopping::Terminated(_) if group.has_others() => {}
                Stopping::Terminated(_) | Stopping::Killed => {
                    group.signal(Signal::KILL);
                    break;
                }
            }
        }
    }
    streams.drain()?;
    drop(ends);
    let status = group.reap()?;
    Ok(Ended {
        status,
        stdout: streams.output,
        stdout_exceeded: streams.exceeded,
        stderr: streams.tail,
    })
}

/// The pipes; one that has ended is closed.
#[derive(Debug)]
struct Streams<'a> {
    stdin: Option<OwnedFd>,
    /// What is still to be written to stdin.
    input: &'a [u8],
    stdout: Option<OwnedFd>,
    output: Vec<u8>,
    output_bytes_max: usize,
    exceeded: bool,
    stderr: Option<OwnedFd>,
    tail: Tail,
}

/// What polling told.
#[derive(Debug)]
struct Ready {
    stdin: PollFlags,
    stdout: PollFlags,
    stderr: PollFlags,
    leader: PollFlags,
}

impl Streams<'_> {
    /// Waits until something can be done. `signal` only ends the wait.
    fn wait<'a>(
        &'a self,
        leader: Option<BorrowedFd<'a>>,
        signal: Option<BorrowedFd<'a>>,
        timeout: Option<Duration>,
    ) -> io::Result<Ready> {
        let mut fds = Vec::with_capacity(5);
        let mut add = |fd: Option<BorrowedFd<'a>>, flags| {
            fd.map(|fd| {
                fds.push(PollFd::from_borrowed_fd(fd, flags));
                fds.len() - 1
            })
        };
        let stdin = add(self.stdin.as_ref().map(AsFd::as_fd), PollFlags::OUT);
        let stdout = add(self.stdout.as_ref().map(AsFd::as_fd), PollFlags::IN);
        let stderr = add(self.stderr.as_ref().map(AsFd::as_fd), PollFlags::IN);
        let leader = add(leader, PollFlags::IN);
        add(signal, PollFlags::IN);
        stop::wait(&mut fds, timeout)?;
        let flags = |at: Option<usize>| at.map_or(PollFlags::empty(), |at| fds[at].revents());
        Ok(Ready {
            stdin: flags(stdin),
            stdout: flags(stdout),
            stderr: flags(stderr),
            leader: flags(leader),
        })
    }

    fn handle(&mut self, ready: &Ready) -> io::Result<()> {
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

    /// Takes what is in the pipes right now. It may be held open, and written to, by others than
    /// the command: that must not hold up anybody.
    fn drain(&mut self) -> io::Result<()> {
        self.stdin = None;
        let held = |fd: &Option<OwnedFd>| fd.as_ref().map_or(Ok(0), ioctl_fionread);
        let mut left = held(&self.stdout)?;
        while left > 0 && self.stdout.is_some() {
            left = left.saturating_sub(self.read_stdout()? as u64);
        }
        let mut left = held(&self.stderr)?;
        while left > 0 && self.stderr.is_some() {
            left = left.saturating_sub(self.read_stderr()? as u64);
        }
        Ok(())
    }

    /// Reads once. The pipe must have something, or this waits.
    fn read_stdout(&mut self) -> io::Result<usize> {
        let Some(stdout) = &self.stdout else { return Ok(0) };
        self.output.reserve(READ_BYTES);
        let count = match read(stdout, spare_capacity(&mut self.output)) {
            Ok(count) => count,
            Err(Errno::INTR) => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        if self.output.len() > self.output_bytes_max {
            self.output.truncate(self.output_bytes_max);
            self.exceeded = true;
        }
        if count == 0 {
            self.stdout = None;
        }
        Ok(count)
    }

    /// Reads once. The pipe must have something, or this waits.
    fn read_stderr(&mut self) -> io::Result<usize> {
        let Some(stderr) = &self.stderr else { return Ok(0) };
        let mut buffer = [0; 4 << 10];
        match read(stderr, &mut buffer) {
            Ok(0) => {
                self.stderr = None;
                Ok(0)
            }
            Ok(count) => {
                self.tail.push(&buffer[..count]);
                Ok(count)
            }
            Err(Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

//! A child's process, and our ends of its pipes.

use std::env;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, ioctl_fionread, read, write};
use rustix::process::Signal;
use tradewind_proto::Slot;
use tradewind_proto::message::Exit;

use super::super::group::Group;
use super::super::process::poll;
use super::super::{command, files};
use super::PipeHandler;

/// A child that was started and is not reaped yet.
#[derive(Debug)]
pub(super) struct Child {
    group: Group,
    stdin: Option<OwnedFd>,
    /// It has closed the other end of stdin.
    is_deaf: bool,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

/// Readiness of a child's pipes, and its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) exited: bool,
}

/// Result of one read.
pub(super) enum Read {
    Bytes(usize),
    Nothing,
    Closed,
}

/// Result of one write.
pub(super) enum Written {
    Bytes(usize),
    Full,
    Closed,
}

/// Set for every child, unless the user has set it to anything: what Python prints goes out at
/// once. Without that, an answer would lie in the child's buffer until it is full.
const PYTHON_ENV: &str = "PYTHONUNBUFFERED";

impl Child {
    pub(super) fn spawn(handler: &PipeHandler, slot: Slot) -> io::Result<Self> {
        let starting = files::starting();
        let (stdin_end, stdin) = io::pipe()?;
        let (stdout, stdout_end) = io::pipe()?;
        let (stderr, stderr_end) = io::pipe()?;
        let (stdin, stdout) = (starting.keep(stdin.into()), starting.keep(stdout.into()));
        let stderr = starting.keep(stderr.into());
        for ours in [&stdin, &stdout, &stderr] {
            fcntl_setfl(ours, OFlags::NONBLOCK)?;
        }
        let mut command = Command::new(&handler.program);
        for name in &handler.hidden {
            command.env_remove(name);
        }
        command
            .arg0(&handler.words[0])
            .args(&handler.words[1..])
            .env("TRADEWIND_WORKER", &handler.options.worker)
            .env("TRADEWIND_SLOT", (slot.0 + handler.options.first_slot).to_string())
            .process_group(0)
            .stdin(Stdio::from(stdin_end))
            .stdout(Stdio::from(stdout_end))
            .stderr(Stdio::from(stderr_end));
        if env::var_os(PYTHON_ENV).is_none() {
            command.env(PYTHON_ENV, "1");
        }
        let reserved = starting.reserve()?;
        let child = starting.spawn(&mut command)?;
        drop(reserved);
        let group = Group::new(child, false, &starting)?;
        let (stdin, stdout, stderr) = (Some(stdin), Some(stdout), Some(stderr));
        Ok(Self { group, stdin, is_deaf: false, stdout, stderr })
    }

    /// Waits until something can be done, or `wake` is readable. What is not asked for is not ready.
    pub(super) fn wait(
        &self,
        wake: BorrowedFd<'_>,
        is_writing: bool,
        timeout: Option<Duration>,
    ) -> io::Result<Ready> {
        let stdin = self.stdin.as_ref().filter(|_| is_writing && !self.is_deaf);
        let all = [
            (Some(wake), PollFlags::IN),
            (Some(self.group.exited()), PollFlags::IN),
            (stdin.map(AsFd::as_fd), PollFlags::OUT),
            (self.stdout.as_ref().map(AsFd::as_fd), PollFlags::IN),
            (self.stderr.as_ref().map(AsFd::as_fd), PollFlags::IN),
        ];
        let [_, exited, stdin, stdout, stderr] =
            poll::wait(all, timeout)?.map(|flags| !flags.is_empty());
        Ok(Ready { stdin, stdout, stderr, exited })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<Written> {
        let Some(stdin) = self.stdin.as_ref().filter(|_| !self.is_deaf) else {
            return Ok(Written::Full);
        };
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

    pub(super) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub(super) fn read_stdout(&mut self, buffer: &mut [u8]) -> io::Result<Read> {
        read_once(&mut self.stdout, buffer)
    }

    pub(super) fn read_stderr(&mut self, buffer: &mut [u8]) -> io::Result<Read> {
        read_once(&mut self.stderr, buffer)
    }

    /// Bytes that lie in stdout and in stderr right now.
    pub(super) fn held(&self) -> (u64, u64) {
        let held = |fd: &Option<OwnedFd>| fd.as_ref().and_then(|fd| ioctl_fionread(fd).ok());
        (held(&self.stdout).unwrap_or(0), held(&self.stderr).unwrap_or(0))
    }

    /// Bytes that it was given and has not read.
    pub(super) fn unread(&self) -> u64 {
        self.stdin.as_ref().and_then(|stdin| ioctl_fionread(stdin).ok()).unwrap_or(0)
    }

    pub(super) fn signal(&self, signal: Signal) {
        self.group.signal(signal);
        // A child that is stopped hears nothing else.
        self.group.signal(Signal::CONT);
    }

    /// The signal that keeps it from the terminal, if one does.
    pub(super) fn wants_terminal(&self) -> Option<Signal> {
        self.group.wants_terminal()
    }

    /// Is somebody of its group alive besides it?
    pub(super) fn has_others(&self) -> bool {
        self.group.has_others()
    }

    /// Waits for its end, and leaves nobody of its group behind.
    pub(super) fn reap(mut self) -> io::Result<Exit> {
        self.group.signal(Signal::KILL);
        self.group.reap().map(command::exit_of)
    }
}

fn read_once(fd: &mut Option<OwnedFd>, buffer: &mut [u8]) -> io::Result<Read> {
    let Some(open) = fd else { return Ok(Read::Nothing) };
    match read(open, buffer) {
        Ok(0) => {
            *fd = None;
            Ok(Read::Closed)
        }
        Ok(count) => Ok(Read::Bytes(count)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(Read::Nothing),
        Err(error) => Err(error.into()),
    }
}

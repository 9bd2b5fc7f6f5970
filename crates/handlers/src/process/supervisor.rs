//! Starts a process, waits for what it does, and ends it together with its group.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::Signal;

use super::group::{Group, Others};
use super::pipes::{Pipes, Stream, Written};
use crate::files::Starting;
use crate::stop;

/// Interval at which a group whose leader has exited is asked whether the others have too.
const OTHERS_INTERVAL: Duration = Duration::from_millis(20);

/// Intervals at which a process is checked that the kernel may have stopped because of the terminal:
/// the first, and the longest.
const TERMINAL_INTERVAL_MIN: Duration = Duration::from_millis(50);
const TERMINAL_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// Options for starting a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Launch {
    /// Its stdin is a pipe; else it is the command's own.
    pub(crate) is_fed: bool,
    /// Its stdout and stderr are pipes; else they are ours.
    pub(crate) is_captured: bool,
    /// It is in our own process group, which has the terminal, and not in one of its own.
    pub(crate) is_alone: bool,
    /// It may be stopped because of a terminal that it may not use.
    pub(crate) has_terminal: bool,
    /// Its ends of stdout and stderr stay open here until it has ended, where there are files enough:
    /// the pipes do not hang up before, which would wake us twice, only to wait for its end after all.
    pub(crate) keeps_ends: bool,
}

/// A process that was started, with its group and our ends of its pipes.
#[derive(Debug)]
pub(crate) struct Supervised {
    group: Group,
    pipes: Pipes,
    ends: Option<Command>,
    phase: Phase,
    terminal_interval: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Exited,
    Reaped,
}

/// Events that a wait is for, besides the end of the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interest {
    /// There are bytes for stdin.
    pub(crate) input: bool,
    /// Stdout and stderr are read.
    pub(crate) output: bool,
}

/// Result of a wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) stdin: bool,
    stdout: bool,
    stderr: bool,
    /// The signal that keeps the process from the terminal.
    pub(crate) wants_terminal: Option<Signal>,
}

impl Supervised {
    /// Starts a process.
    ///
    /// # Errors
    ///
    /// When the system refuses: the command, a pipe or another file.
    pub(crate) fn spawn(
        mut command: Command,
        launch: Launch,
        starting: &Starting,
    ) -> io::Result<Self> {
        let pipe = || -> io::Result<(Option<OwnedFd>, Stdio)> {
            if !launch.is_captured {
                return Ok((None, Stdio::inherit()));
            }
            let (ours, theirs) = io::pipe()?;
            Ok((Some(starting.keep(ours.into())), theirs.into()))
        };
        let ((stdout, stdout_end), (stderr, stderr_end)) = (pipe()?, pipe()?);
        command.stdout(stdout_end).stderr(stderr_end);
        if launch.is_fed {
            command.stdin(Stdio::piped());
        }
        if !launch.is_alone {
            // Together with the absence of `pre_exec` this keeps to posix_spawn, which does not
            // copy the worker's page tables.
            command.process_group(0);
        }
        let reserved = starting.reserve()?;
        let mut child = starting.spawn(&mut command)?;
        let stdin = child.stdin.take().map(|stdin| starting.keep(stdin.into()));
        drop(reserved);
        let group = Group::new(child, launch.is_alone, starting)?;
        if let Some(stdin) = &stdin {
            fcntl_setfl(stdin, OFlags::NONBLOCK)?;
        }
        let is_kept = launch.keeps_ends && !starting.is_sparing();
        Ok(Self {
            group,
            pipes: Pipes::new(stdin, stdout, stderr),
            ends: is_kept.then_some(command),
            phase: Phase::Running,
            terminal_interval: launch.has_terminal.then_some(TERMINAL_INTERVAL_MIN),
        })
    }

    /// Waits until something can be done, the process ends, or `wake` is readable. After its end it is
    /// also time, every 20 ms, to ask for [others](Self::others).
    pub(crate) fn poll(
        &mut self,
        wake: Option<BorrowedFd<'_>>,
        interest: Interest,
        timeout: Option<Duration>,
    ) -> io::Result<Ready> {
        let interval = match self.phase {
            Phase::Running => self.terminal_interval,
            Phase::Exited => Some(OTHERS_INTERVAL),
            Phase::Reaped => None,
        };
        let timeout = [timeout, interval].into_iter().flatten().min();
        let is_running = self.phase == Phase::Running;
        let output = |stream| self.pipes.get(stream).filter(|_| interest.output);
        let all = [
            (wake, PollFlags::IN),
            (is_running.then(|| self.group.exited()), PollFlags::IN),
            (self.pipes.writable().filter(|_| interest.input), PollFlags::OUT),
            (output(Stream::Stdout), PollFlags::IN),
            (output(Stream::Stderr), PollFlags::IN),
        ];
        let ready = wait(all, timeout)?.map(|flags| !flags.is_empty());
        let [_, exited, stdin, stdout, stderr] = ready;
        let mut wants_terminal = None;
        if exited {
            self.phase = Phase::Exited;
        } else if is_running
            && ready == [false; 5]
            && let Some(interval) = &mut self.terminal_interval
        {
            *interval = (2 * *interval).min(TERMINAL_INTERVAL_MAX);
            wants_terminal = self.group.wants_terminal();
        }
        Ok(Ready { stdin, stdout, stderr, wants_terminal })
    }

    /// Writes as much as stdin takes at once.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<Written> {
        self.pipes.write(bytes)
    }

    /// Reads once from each pipe that is ready, in this order, and returns the number of bytes. `sink`
    /// gets them, and none at the end of a stream.
    pub(crate) fn read(
        &mut self,
        ready: Ready,
        order: [Stream; 2],
        mut sink: impl FnMut(Stream, &[u8]) -> io::Result<()>,
    ) -> io::Result<u64> {
        let mut total = 0;
        for stream in order {
            let is_ready = match stream {
                Stream::Stdout => ready.stdout,
                Stream::Stderr => ready.stderr,
            };
            if is_ready {
                total += self.pipes.read(stream, &mut sink)? as u64;
            }
        }
        Ok(total)
    }

    /// Reads what lies in the pipes at this moment, in this order, and returns the number of bytes.
    /// Others than the process may go on writing: that must not hold anything up.
    pub(crate) fn drain(
        &mut self,
        order: [Stream; 2],
        mut sink: impl FnMut(Stream, &[u8]) -> io::Result<()>,
    ) -> io::Result<u64> {
        let mut total = 0;
        for (stream, mut left) in order.map(|stream| (stream, self.pipes.held(stream))) {
            while left > 0
                && let count @ 1.. = self.pipes.read(stream, &mut sink)? as u64
            {
                left = left.saturating_sub(count);
                total += count;
            }
        }
        Ok(total)
    }

    /// Closes the pipes that no process writes to any more. Is another one left?
    pub(crate) fn close_ended(&mut self) -> io::Result<bool> {
        let streams = [Stream::Stdout, Stream::Stderr];
        if self.has_output() {
            let all = streams.map(|stream| (self.pipes.get(stream), PollFlags::IN));
            for (stream, flags) in streams.into_iter().zip(wait(all, Some(Duration::ZERO))?) {
                if !flags.is_empty() && !flags.contains(PollFlags::IN) {
                    self.pipes.close(stream);
                }
            }
        }
        Ok(self.has_output())
    }

    /// Is stdout or stderr open, as far as is known?
    pub(crate) fn has_output(&self) -> bool {
        self.pipes.stdout.is_some() || self.pipes.stderr.is_some()
    }

    pub(crate) fn has_stdout(&self) -> bool {
        self.pipes.stdout.is_some()
    }

    pub(crate) fn close_stdout(&mut self) {
        self.pipes.stdout = None;
    }

    pub(crate) fn has_stdin(&self) -> bool {
        self.pipes.stdin.is_some()
    }

    pub(crate) fn close_stdin(&mut self) {
        self.pipes.stdin = None;
    }

    /// Returns the number of bytes that the process was given and has not read.
    pub(crate) fn unread(&self) -> u64 {
        self.pipes.unread()
    }

    /// Signals the group.
    pub(crate) fn signal(&self, signal: Signal) {
        self.group.signal(signal);
        if signal != Signal::KILL {
            // A process that is stopped hears nothing else.
            self.group.signal(Signal::CONT);
        }
    }

    /// Kills the group: its leader counts as exited from now on.
    pub(crate) fn kill(&mut self) {
        self.group.signal(Signal::KILL);
        self.phase = Phase::Exited;
    }

    pub(crate) fn has_exited(&self) -> bool {
        self.phase != Phase::Running
    }

    /// Asks the kernel whether the process has exited: it may have since the last wait.
    pub(crate) fn check_exited(&mut self) -> bool {
        if self.phase == Phase::Running && self.group.has_exited() {
            self.phase = Phase::Exited;
        }
        self.has_exited()
    }

    /// Members of its group that are alive, besides the process.
    pub(crate) fn others(&self) -> Others {
        self.group.others()
    }

    /// Has the process exited, and may its group go? The grace of one that is being stopped is for
    /// all of the group: a shell dies at once, its child cleans up.
    pub(crate) fn is_over(&self, is_in_grace: bool) -> bool {
        self.has_exited() && !(is_in_grace && self.others() != Others::None)
    }

    /// Waits for the end of the process. Others of its group are killed, or left alone.
    pub(crate) fn reap(&mut self, kills_others: bool) -> io::Result<ExitStatus> {
        if kills_others {
            self.group.signal(Signal::KILL);
        }
        self.close_stdin();
        self.ends = None;
        self.phase = Phase::Reaped;
        self.group.reap()
    }

    /// Is the group empty, once the process was reaped?
    pub(crate) fn is_gone(&self) -> bool {
        self.group.is_gone()
    }
}

/// Waits until one of these is ready, and says what each is ready for: nothing, where there is none.
fn wait<const N: usize>(
    all: [(Option<BorrowedFd<'_>>, PollFlags); N],
    timeout: Option<Duration>,
) -> io::Result<[PollFlags; N]> {
    let mut fds = Vec::with_capacity(N);
    let places = all.map(|(fd, flags)| {
        fds.push(PollFd::from_borrowed_fd(fd?, flags));
        Some(fds.len() - 1)
    });
    stop::wait(&mut fds, timeout)?;
    Ok(places.map(|place| place.map_or(PollFlags::empty(), |at| fds[at].revents())))
}

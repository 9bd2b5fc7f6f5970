//! Looks after one running command until it has ended: feeds it, listens to it, stops it.
//!
//! Everything happens in one poll loop on the slot's thread, so nothing can deadlock however much
//! is written to whom, and every decision about the process group is made in one place.

pub(crate) mod poll;
mod streams;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::Signal;

use self::poll::OTHERS_INTERVAL;
use self::streams::Streams;
use super::group::Group;
use super::linger::Linger;
use super::stop::{StopSignal, is_at_once};
use super::tail::Tail;
use super::term_seq::TermSeq;

/// How often it is seen whether a command that is being stopped is to be killed now.
const AT_ONCE_INTERVAL: Duration = Duration::from_millis(50);

/// How often a command is looked at that the kernel may have stopped because of the terminal: first,
/// and later on.
const TERMINAL_INTERVAL_MIN: Duration = Duration::from_millis(50);
const TERMINAL_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// A command that was started, and our ends of what it writes to.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) group: Group,
    pub(super) stdin: Option<OwnedFd>,
    /// Unless the command has ours.
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    /// Has the other ends of these too, where there are files enough. As long as it does, the pipes
    /// do not hang up, which would wake us twice for each command, only to wait for its end after
    /// all.
    pub(super) ends: Option<Command>,
}

/// How to look after a command.
#[derive(Debug)]
pub(super) struct Care<'a> {
    /// Goes to its stdin if that is a pipe.
    pub(super) input: &'a [u8],
    pub(super) stdout_bytes_max: usize,
    /// What it writes is shown line by line.
    pub(super) is_live: bool,
    pub(super) term_seq: &'a TermSeq,
    /// It may be stopped because of a terminal that it may not use.
    pub(super) has_terminal: bool,
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
    /// It was told to stop while it ran.
    pub(super) is_stopped: bool,
    /// It was stopped by this signal, because it wanted the terminal.
    pub(super) wanted_terminal: Option<Signal>,
}

/// How far stopping has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopping {
    /// Nobody asked for it.
    No,
    /// The group was sent a signal, and will be sent the one of this place at this time.
    Signalled { next: usize, at: Instant },
    /// The group was sent KILL.
    Killed,
}

/// Runs a command to its end.
pub(super) fn supervise(spawned: Spawned, care: &Care<'_>, stop: &StopSignal) -> io::Result<Ended> {
    let Spawned { mut group, stdin, stdout, stderr, ends } = spawned;
    let mut streams = Streams::new(care.input, care.stdout_bytes_max, stdout, stderr);
    if care.is_live {
        streams.show_lines();
    }
    if let Some(stdin) = stdin {
        fcntl_setfl(&stdin, OFlags::NONBLOCK)?;
        // A small task fits into the pipe: then there is nothing to poll for.
        streams.feed_through(stdin)?;
    }

    let mut stopping = Stopping::No;
    let mut leader_exited = false;
    let mut is_stopped = false;
    let mut wanted_terminal = None;
    let mut terminal_interval = care.has_terminal.then_some(TERMINAL_INTERVAL_MIN);
    loop {
        let timeout = match stopping {
            Stopping::Signalled { at, .. } => {
                let left = at.saturating_duration_since(Instant::now()).min(AT_ONCE_INTERVAL);
                Some(if leader_exited { left.min(OTHERS_INTERVAL) } else { left })
            }
            Stopping::No => terminal_interval,
            Stopping::Killed => None,
        };
        let leader = (!leader_exited).then(|| group.exited());
        let signal = (stopping == Stopping::No).then(|| stop.as_fd());
        let ready = streams.wait(leader, signal, timeout)?;

        streams.handle(&ready)?;
        leader_exited |= !ready.leader.is_empty();
        if stopping == Stopping::No && !leader_exited {
            if ready.is_timeout()
                && let Some(interval) = &mut terminal_interval
            {
                *interval = (2 * *interval).min(TERMINAL_INTERVAL_MAX);
                wanted_terminal = group.wants_terminal();
            }
            // It may have exited just before it was to stop: then it was not stopped.
            leader_exited = stop.is_stopped() && group.has_exited();
            if !leader_exited && (stop.is_stopped() || wanted_terminal.is_some()) {
                is_stopped = stop.is_stopped();
                stopping = go_on_stopping(&group, care.term_seq, 0);
            }
        }
        if let Stopping::Signalled { next, at } = stopping {
            if is_at_once() {
                group.signal(Signal::KILL);
                stopping = Stopping::Killed;
            } else if Instant::now() >= at {
                stopping = go_on_stopping(&group, care.term_seq, next);
            }
        }
        if streams.exceeded && streams.has_stdout() {
            // Before the pipe is closed, or a broken pipe might kill it first.
            group.signal(Signal::KILL);
            stopping = Stopping::Killed;
            streams.close_stdout();
        }
        if leader_exited {
            match stopping {
                Stopping::No => break,
                // The grace is for all of the group: a shell dies at once, its child cleans up.
                Stopping::Signalled { .. } if group.has_others() => {}
                Stopping::Signalled { .. } | Stopping::Killed => {
                    group.signal(Signal::KILL);
                    break;
                }
            }
        }
    }
    streams.close_stdin();
    drop(ends);
    let status = group.reap()?;
    streams.take_what_is_there()?;
    // A command that another slot is just starting holds the pipes too, for an instant.
    if stopping == Stopping::No && streams.has_any() && !group.is_gone() {
        listen_on(&mut streams, &group, stop)?;
    }
    streams.end_lines()?;
    let exceeded = streams.exceeded;
    let (stdout, stderr) = streams.into_parts();
    Ok(Ended { status, stdout, stdout_exceeded: exceeded, stderr, is_stopped, wanted_terminal })
}

/// Sends the signal of this place, from where on stopping goes on.
fn go_on_stopping(group: &Group, term_seq: &TermSeq, place: usize) -> Stopping {
    match term_seq.step(place) {
        Some((signal, wait)) if signal != Signal::KILL => {
            group.signal(signal);
            // A command that is stopped hears nothing else.
            group.signal(Signal::CONT);
            Stopping::Signalled { next: place + 1, at: Instant::now() + wait }
        }
        _ => {
            group.signal(Signal::KILL);
            Stopping::Killed
        }
    }
}

/// Takes what others still write on behalf of a command that has exited. Whoever it left behind may
/// go on after that, and may go on holding its pipes.
fn listen_on(streams: &mut Streams<'_>, group: &Group, stop: &StopSignal) -> io::Result<()> {
    let mut linger = Linger::new(Instant::now());
    while streams.has_any() && !streams.exceeded && !stop.is_stopped() {
        let timeout = linger.poll_timeout().saturating_duration_since(Instant::now());
        let ready = streams.wait(None, Some(stop.as_fd()), Some(timeout))?;
        streams.handle(&ready)?;
        let now = Instant::now();
        if ready.has_output() {
            linger.handle_output(now);
        }
        if now >= linger.poll_timeout() && linger.handle_others(now, group.others()) {
            // It may have come while we looked.
            return streams.take_what_is_there();
        }
    }
    Ok(())
}

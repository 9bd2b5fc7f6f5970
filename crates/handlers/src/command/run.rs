//! Runs one command to its end: feeds it, listens to it, stops it.
//!
//! Everything happens in one poll loop on the slot's thread, so nothing can deadlock however much
//! is written to whom.

use std::io;
use std::os::fd::AsFd;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tradewind_system::Clock;

use crate::live::Lines;
use crate::process::{Interest, Linger, Ready, Stream, Supervised, Termination, Written};
use crate::stop::{StopSignal, is_at_once};
use crate::tail::Tail;
use crate::term_seq::TermSeq;

/// Interval at which a command that is being stopped is checked for having to be killed now.
const AT_ONCE_INTERVAL: Duration = Duration::from_millis(50);

/// Order in which the streams are read.
const ORDER: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

/// Rules for running a command.
#[derive(Debug)]
pub(super) struct Care<'a> {
    /// Bytes for its stdin, if that is a pipe.
    pub(super) input: &'a [u8],
    pub(super) stdout_bytes_max: usize,
    /// Its output is shown line by line.
    pub(super) is_live: bool,
    pub(super) term_seq: &'a TermSeq,
}

/// End and output of a command.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) written: Output,
    /// It was told to stop while it ran.
    pub(super) is_stopped: bool,
    /// The signal by which it was stopped because it wanted the terminal.
    pub(super) wanted_terminal: Option<Signal>,
}

/// Output of a command.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// At most the limit.
    pub(super) stdout: Vec<u8>,
    stdout_bytes_max: usize,
    /// It wrote more to stdout than the limit.
    pub(super) is_exceeded: bool,
    pub(super) stderr: Tail,
    /// Place where both are shown at once, line by line.
    live: Option<(Lines, Lines)>,
}

/// Runs a command to its end.
///
/// # Errors
///
/// When the system fails to wait for it, to read or to write: the command was killed then.
pub(super) fn run(mut child: Supervised, care: &Care<'_>, stop: &StopSignal) -> io::Result<Ended> {
    let clock = Clock::default();
    let live = care.is_live.then(|| (Lines::to_stdout(), Lines::to_stderr()));
    let stdout_bytes_max = care.stdout_bytes_max;
    let mut output = Output { stdout_bytes_max, live, ..Output::default() };
    let mut input = care.input;
    // A small task fits into the pipe: then there is nothing to poll for.
    feed(&mut child, &mut input)?;

    let mut termination: Option<Termination> = None;
    let mut is_stopped = false;
    let mut wanted_terminal = None;
    while !child.is_over(matches!(termination, Some(Termination::Grace { .. }))) {
        let due = termination.and_then(|termination| termination.poll_timeout());
        let timeout = due.map(|at| at.since(clock.now()).min(AT_ONCE_INTERVAL));
        let wake = termination.is_none().then(|| stop.as_fd());
        let interest = Interest { input: !input.is_empty(), output: true };
        let ready = child.poll(wake, interest, timeout)?;

        if ready.stdin {
            feed(&mut child, &mut input)?;
        }
        output.read(&mut child, ready)?;
        if termination.is_none() && !child.has_exited() {
            wanted_terminal = ready.wants_terminal;
            // It may have exited just before it was to stop: then it was not stopped.
            let is_asked = stop.is_stopped() && !child.check_exited();
            if is_asked || wanted_terminal.is_some() {
                is_stopped = is_asked;
                let (begun, signal) = Termination::begin(clock.now(), care.term_seq);
                child.signal(signal);
                termination = Some(begun);
            }
        }
        if let Some(running @ Termination::Grace { .. }) = &mut termination {
            if is_at_once() {
                child.signal(Signal::KILL);
                *running = Termination::Killed;
            } else if let Some(signal) = running.handle_timeout(clock.now(), care.term_seq) {
                child.signal(signal);
            }
        }
        if output.is_exceeded && child.has_stdout() {
            // Before the pipe is closed, or a broken pipe might kill it first.
            child.signal(Signal::KILL);
            termination = Some(Termination::Killed);
            child.close_stdout();
        }
    }
    let status = child.reap(termination.is_some())?;
    output.drain(&mut child)?;
    // A command that another slot is just starting holds the pipes too, for an instant.
    if child.close_ended()? && termination.is_none() && !output.is_exceeded {
        if child.is_gone() {
            // The last of the group may have written and gone since.
            output.drain(&mut child)?;
        } else {
            listen_on(&mut child, &mut output, stop)?;
        }
    }
    output.end_lines()?;
    Ok(Ended { status, written: output, is_stopped, wanted_terminal })
}

/// Writes as much of the input as the pipe takes.
fn feed(child: &mut Supervised, input: &mut &[u8]) -> io::Result<()> {
    while child.has_stdin() && !input.is_empty() {
        match child.write(input)? {
            Written::Bytes(count) => *input = &input[count..],
            Written::Full => return Ok(()),
            // No command has to read its task to the end.
            Written::Closed => *input = &[],
        }
    }
    child.close_stdin();
    Ok(())
}

/// Takes what others still write on behalf of a command that has exited. They may stay after that,
/// and may keep its pipes open.
fn listen_on(child: &mut Supervised, output: &mut Output, stop: &StopSignal) -> io::Result<()> {
    let mut linger = Linger::new(Instant::now());
    let interest = Interest { input: false, output: true };
    while child.has_output() && !output.is_exceeded && !stop.is_stopped() {
        let timeout = linger.poll_timeout().saturating_duration_since(Instant::now());
        let ready = child.poll(Some(stop.as_fd()), interest, Some(timeout))?;
        let mut bytes = output.read(child, ready)?;
        let is_due = Instant::now() >= linger.poll_timeout();
        // In this order: what one of them had written before it was seen to be idle or gone counts.
        let others = is_due.then(|| child.others());
        if is_due {
            bytes += output.drain(child)?;
        }
        if bytes > 0 {
            linger.handle_output();
        }
        if others.is_some_and(|others| linger.handle_others(Instant::now(), others)) {
            break;
        }
    }
    Ok(())
}

impl Output {
    /// Reads what is ready, and returns the number of bytes.
    fn read(&mut self, child: &mut Supervised, ready: Ready) -> io::Result<u64> {
        child.read(ready, ORDER, |stream, bytes| self.push(stream, bytes))
    }

    /// Reads what lies in the pipes at this moment, and returns the number of bytes.
    fn drain(&mut self, child: &mut Supervised) -> io::Result<u64> {
        child.drain(ORDER, |stream, bytes| self.push(stream, bytes))
    }

    fn push(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        match stream {
            Stream::Stdout => {
                let room = self.stdout_bytes_max - self.stdout.len();
                self.is_exceeded |= bytes.len() > room;
                let bytes = &bytes[..bytes.len().min(room)];
                self.stdout.extend_from_slice(bytes);
                match &mut self.live {
                    Some((lines, _)) => lines.push(bytes),
                    None => Ok(()),
                }
            }
            Stream::Stderr => {
                self.stderr.push(bytes);
                if let Some((_, lines)) = &mut self.live {
                    // What goes to stderr may be lost.
                    let _ = lines.push(bytes);
                }
                Ok(())
            }
        }
    }

    /// Shows the lines that have no end.
    fn end_lines(&mut self) -> io::Result<()> {
        let Some((stdout, stderr)) = &mut self.live else { return Ok(()) };
        let _ = stderr.end();
        stdout.end()
    }
}

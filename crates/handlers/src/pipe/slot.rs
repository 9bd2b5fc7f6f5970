//! A slot's thread: does what its feed decides, to a child that it owns.

use std::env;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use tradewind_proto::message::Exit;
use tradewind_proto::{Payload, Slot, Time};

use super::super::process::{
    Interest, Launch, Stream, Supervised, Written, exit_of, terminal_reason,
};
use super::super::{Finished, Lack, files, stop};
use super::PipeHandler;
use super::feed::{Action, Ended, Feed, Log};
use super::pipes::{Mailbox, Shared, SlotStatus};
use super::stderr::LogLine;

/// Order in which the streams are read: what a child says on the way to its answer belongs to that.
const ORDER: [Stream; 2] = [Stream::Stderr, Stream::Stdout];

/// Set for every child, unless the user has set it to anything: what Python prints goes out at
/// once. Without that, an answer would lie in the child's buffer until it is full.
const PYTHON_ENV: &str = "PYTHONUNBUFFERED";

/// Runs a slot until it is closed.
pub(super) fn run(slot: Slot, shared: &Shared, mailbox: &Mailbox) {
    let feed = Feed::new(shared.handler.options().clone());
    let status = feed.status();
    let command = shared.handler.command();
    let mut thread = SlotThread { slot, shared, feed, child: None, status, command };
    let mut has_given_up = false;
    loop {
        if let Some(inbox) = mailbox.take() {
            let now = thread.now();
            for task in inbox.tasks {
                thread.feed.handle_task(now, task);
            }
            if !inbox.stops.is_empty() {
                // An answer that is there already came in time.
                thread.drain();
            }
            for (seq, attempt) in inbox.stops {
                thread.feed.handle_stop(now, seq, attempt);
            }
            if let Some(close) = inbox.close {
                thread.feed.handle_close(now, close);
            }
        }
        thread.act();
        thread.write();
        thread.report();
        if thread.feed.is_over() {
            return;
        }
        if let Some(reason) = thread.feed.given_up()
            && !std::mem::replace(&mut has_given_up, true)
        {
            shared.give_up(reason);
        }
        thread.wait(mailbox);
    }
}

struct SlotThread<'a> {
    slot: Slot,
    shared: &'a Shared,
    feed: Feed,
    child: Option<Supervised>,
    /// As it was last reported.
    status: super::feed::FeedStatus,
    command: Payload,
}

impl SlotThread<'_> {
    fn now(&self) -> Time {
        self.shared.clock.now()
    }

    fn act(&mut self) {
        while let Some(action) = self.feed.poll_action() {
            match (action, &mut self.child) {
                (Action::Start, _) => match spawn(&self.shared.handler, self.slot) {
                    Ok(child) => {
                        self.child = Some(child);
                        self.feed.handle_started(self.now());
                    }
                    Err(error) => {
                        let reason = error.to_string();
                        match Lack::of(&error) {
                            Some(_) => self.feed.handle_lack(self.now(), &reason),
                            None => self.feed.handle_start_failed(self.now(), &reason),
                        }
                    }
                },
                (Action::CloseInput, Some(child)) => child.close_stdin(),
                (Action::Signal(signal), Some(child)) => child.signal(signal),
                (Action::CloseInput | Action::Signal(_), None) => {}
            }
        }
    }

    /// Writes what the child takes.
    fn write(&mut self) {
        let Some(child) = &mut self.child else { return };
        while !self.feed.outgoing().is_empty() {
            let now = self.shared.clock.now();
            match child.write(self.feed.outgoing()) {
                Ok(Written::Bytes(count)) => self.feed.handle_written(now, count),
                Ok(Written::Full) => break,
                // Any other error of a pipe has the same consequence.
                Ok(Written::Closed) | Err(_) => {
                    self.feed.handle_input_closed(now);
                    break;
                }
            }
        }
    }

    /// Reports the tasks that have ended, and logs stderr.
    fn report(&mut self) {
        for log in self.feed.take_logs() {
            self.log(log);
        }
        let ended = self.feed.take_ended();
        let status = self.feed.status();
        if ended.is_empty() && status == self.status {
            return;
        }
        self.status = status;
        // What the two clocks differ by.
        let unix_us = self.shared.clock.unix_us().saturating_sub(self.now().0);
        let slot = self.slot;
        let finished = ended.into_iter().map(|ended| {
            let Ended { task, started, ran_us, outcome } = ended;
            let reported = task.reported(|| self.command.clone());
            Finished {
                slot,
                seq: task.seq,
                attempt: task.attempt,
                started_us: unix_us + started.0,
                ran_us,
                outcome,
                reported,
                next: None,
                unstarted: None,
            }
        });
        let super::feed::FeedStatus { depth, under_way } = status;
        self.shared.report(finished, SlotStatus { slot, depth, under_way });
    }

    fn log(&self, log: Log) {
        let slot = self.slot.0;
        match log {
            Log::Stderr(LogLine::Line(Some(seq), line)) => {
                tracing::info!(slot, seq = seq.0, "handler: {line}");
            }
            Log::Stderr(LogLine::Line(None, line)) => tracing::info!(slot, "handler: {line}"),
            Log::Stderr(LogLine::LeftOut(lines)) => {
                tracing::info!(slot, "handler: {lines} more lines in this second are left out");
            }
            Log::Warning(text) => tracing::warn!(slot, "{text}"),
        }
    }

    /// Waits until something happens, and handles it.
    fn wait(&mut self, mailbox: &Mailbox) {
        let due = self.feed.poll_timeout();
        let mut timeout = due.map(|due| due.since(self.now()));
        let Some(child) = &mut self.child else {
            let mut fds = [PollFd::new(&mailbox.wake, PollFlags::IN)];
            // Cannot fail: it is one open descriptor.
            let _ = stop::wait(&mut fds, timeout);
            return self.handle_time();
        };
        // Of a child that has exited all is read; others of its group are given time.
        let is_running = !child.has_exited();
        if is_running && let Some(nap) = self.feed.nap() {
            std::thread::sleep(nap);
            // What is there by now is all that is looked for.
            timeout = timeout.map(|_| Duration::ZERO);
        }
        let is_writing = is_running && !self.feed.outgoing().is_empty();
        let interest = Interest { input: is_writing, output: is_running };
        let read = child.poll(Some(mailbox.wake.as_fd()), interest, timeout).and_then(|ready| {
            child.read(ready, ORDER, |stream, bytes| {
                push(&mut self.feed, self.shared.clock.now(), stream, bytes)
            })?;
            Ok(ready.wants_terminal)
        });
        match read {
            Ok(Some(signal)) => self.feed.handle_wrong(self.now(), terminal_reason(signal)),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(slot = self.slot.0, "failed to supervise the handler: {error}");
                child.kill();
            }
        }
        self.handle_exit(is_running);
        self.handle_time();
    }

    fn handle_time(&mut self) {
        let now = self.now();
        if self.feed.poll_timeout().is_some_and(|due| due <= now) {
            self.feed.handle_timeout(now);
        }
    }

    /// Sees to a child that has exited; `was_running` if that is new.
    fn handle_exit(&mut self, was_running: bool) {
        if was_running && self.child.as_ref().is_some_and(Supervised::has_exited) {
            self.drain();
        }
        let is_in_grace = self.feed.is_stopping();
        let Some(mut child) = self.child.take_if(|child| child.is_over(is_in_grace)) else {
            return;
        };
        let unread = child.unread();
        let exit = child.reap(true).map(exit_of).unwrap_or_else(|error: io::Error| {
            tracing::error!(slot = self.slot.0, "failed to wait for the handler: {error}");
            Exit::None
        });
        let now = self.now();
        self.feed.handle_exit(now, exit, unread);
    }

    /// Reads what lies in the pipes at this moment.
    fn drain(&mut self) {
        let Some(child) = self.child.as_mut() else { return };
        let drained = child.drain(ORDER, |stream, bytes| {
            push(&mut self.feed, self.shared.clock.now(), stream, bytes)
        });
        if let Err(error) = drained {
            tracing::error!(slot = self.slot.0, "failed to read from the handler: {error}");
        }
    }
}

fn push(feed: &mut Feed, now: Time, stream: Stream, bytes: &[u8]) -> io::Result<()> {
    match stream {
        Stream::Stdout if bytes.is_empty() => feed.handle_output_closed(now),
        Stream::Stdout => feed.handle_output(now, bytes),
        Stream::Stderr if bytes.is_empty() => {}
        Stream::Stderr => feed.handle_error_output(now, bytes),
    }
    Ok(())
}

fn spawn(handler: &PipeHandler, slot: Slot) -> io::Result<Supervised> {
    let mut command = Command::new(&handler.program);
    handler.environment.set(&mut command, slot);
    command.arg0(&handler.words[0]).args(&handler.words[1..]);
    if env::var_os(PYTHON_ENV).is_none() {
        command.env(PYTHON_ENV, "1");
    }
    let launch = Launch {
        is_fed: true,
        is_captured: true,
        is_alone: false,
        has_terminal: handler.has_terminal,
        keeps_ends: false,
    };
    Supervised::spawn(command, launch, &files::starting())
}

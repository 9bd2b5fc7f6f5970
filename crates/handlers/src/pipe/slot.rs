//! A slot's thread: does what its feed decides, to a child that it owns.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::process::Signal;
use tradewind_proto::message::Exit;
use tradewind_proto::{Payload, Slot, Time};

use super::super::command::terminal_reason;
use super::super::process::poll::{OTHERS_INTERVAL, READ_BYTES};
use super::super::{Finished, Lack, stop};
use super::child::{Child, Read, Written};
use super::feed::{Action, Ended, Feed, Log};
use super::pipes::{Desk, Shared, Standing};
use super::said::Said;

/// How often a child is looked at that the kernel may have stopped because of the terminal.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(500);

/// Runs a slot until it is closed.
pub(super) fn run(slot: Slot, shared: &Shared, desk: &Desk) {
    let feed = Feed::new(shared.handler.options().clone());
    let standing = feed.standing();
    let command = shared.handler.command();
    let buffer = vec![0; READ_BYTES];
    let mut thread = SlotThread {
        slot,
        shared,
        feed,
        child: None,
        has_exited: false,
        standing,
        command,
        buffer,
    };
    let mut has_given_up = false;
    loop {
        if let Some(inbox) = desk.take() {
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
        thread.wait(desk);
    }
}

struct SlotThread<'a> {
    slot: Slot,
    shared: &'a Shared,
    feed: Feed,
    child: Option<Child>,
    /// The child has exited, and others of its group have not.
    has_exited: bool,
    /// As it was last reported.
    standing: super::feed::Standing,
    command: Payload,
    buffer: Vec<u8>,
}

impl SlotThread<'_> {
    fn now(&self) -> Time {
        self.shared.clock.now()
    }

    fn act(&mut self) {
        while let Some(action) = self.feed.poll_action() {
            match (action, &mut self.child) {
                (Action::Start, _) => match Child::spawn(&self.shared.handler, self.slot) {
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
                (Action::Terminate, Some(child)) => child.signal(self.shared.signal(0)),
                (Action::Signal(place), Some(child)) => child.signal(self.shared.signal(place)),
                (Action::Kill, Some(child)) => child.signal(Signal::KILL),
                (
                    Action::CloseInput | Action::Terminate | Action::Signal(_) | Action::Kill,
                    None,
                ) => {}
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
                // Nobody knows what else may be wrong with a pipe.
                Ok(Written::Closed) | Err(_) => {
                    self.feed.handle_input_closed(now);
                    break;
                }
            }
        }
    }

    /// Tells of what has ended, and logs what was said.
    fn report(&mut self) {
        for log in self.feed.take_logs() {
            self.log(log);
        }
        let ended = self.feed.take_ended();
        let standing = self.feed.standing();
        if ended.is_empty() && standing == self.standing {
            return;
        }
        self.standing = standing;
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
        let super::feed::Standing { depth, under_way } = standing;
        self.shared.report(finished, Standing { slot, depth, under_way });
    }

    fn log(&self, log: Log) {
        let slot = self.slot.0;
        match log {
            Log::Said(Said::Line(Some(seq), line)) => {
                tracing::info!(slot, seq = seq.0, "handler: {line}");
            }
            Log::Said(Said::Line(None, line)) => tracing::info!(slot, "handler: {line}"),
            Log::Said(Said::LeftOut(lines)) => {
                tracing::info!(slot, "handler: {lines} more lines in this second are left out");
            }
            Log::Warning(text) => tracing::warn!(slot, "{text}"),
        }
    }

    /// Waits until something happens, and handles it.
    fn wait(&mut self, desk: &Desk) {
        let due = self.feed.poll_timeout();
        let now = self.now();
        let mut timeout = due.map(|due| due.since(now));
        let Some(child) = &self.child else {
            let mut fds = [PollFd::new(&desk.wake, PollFlags::IN)];
            // Cannot fail: it is one open descriptor.
            let _ = stop::wait(&mut fds, timeout);
            return self.handle_time();
        };
        if self.has_exited {
            let others = timeout.map_or(OTHERS_INTERVAL, |left| left.min(OTHERS_INTERVAL));
            let _ = stop::wait(&mut [PollFd::new(&desk.wake, PollFlags::IN)], Some(others));
            self.handle_time();
            return self.handle_exit();
        }
        if let Some(nap) = self.feed.nap() {
            std::thread::sleep(nap);
            // What is there by now is all that is looked for.
            timeout = timeout.map(|_| Duration::ZERO);
        }
        if self.shared.handler.has_terminal {
            let until = timeout.unwrap_or(TERMINAL_INTERVAL);
            timeout = Some(until.min(TERMINAL_INTERVAL));
            if let Some(signal) = child.wants_terminal() {
                self.feed.handle_wrong(now, terminal_reason(signal));
                return;
            }
        }
        let is_writing = !self.feed.outgoing().is_empty();
        let ready = match child.wait(desk.wake.as_fd(), is_writing, timeout) {
            Ok(ready) => ready,
            Err(error) => {
                tracing::error!(slot = self.slot.0, "failed to supervise the handler: {error}");
                child.signal(Signal::KILL);
                self.drain();
                self.has_exited = true;
                // Waits for its end.
                return self.handle_exit();
            }
        };
        // What it said on the way to its answer belongs to that.
        if ready.stderr {
            self.read_stderr();
        }
        if ready.stdout {
            self.read_stdout();
        }
        if ready.exited {
            self.drain();
            self.has_exited = true;
            self.handle_exit();
        }
        self.handle_time();
    }

    fn handle_time(&mut self) {
        let now = self.now();
        if self.feed.poll_timeout().is_some_and(|due| due <= now) {
            self.feed.handle_timeout(now);
        }
    }

    /// The child has exited; the grace of one that was stopped is for all of its group.
    fn handle_exit(&mut self) {
        let Some(child) = self.child.take() else { return };
        if self.feed.is_stopping() && child.has_others() {
            self.child = Some(child);
            return;
        }
        self.has_exited = false;
        let unread = child.unread();
        let exit = child.reap().unwrap_or_else(|error: io::Error| {
            tracing::error!(slot = self.slot.0, "cannot wait for the handler: {error}");
            Exit::None
        });
        let now = self.now();
        self.feed.handle_exit(now, exit, unread);
    }

    /// Takes what lies in the pipes right now. Others than the child may hold them open and write:
    /// that must not hold up anybody.
    fn drain(&mut self) {
        let Some((mut stdout, mut stderr)) = self.child.as_ref().map(Child::held) else { return };
        while stderr > 0
            && let count @ 1.. = self.read_stderr()
        {
            stderr = stderr.saturating_sub(count as u64);
        }
        while stdout > 0
            && let count @ 1.. = self.read_stdout()
        {
            stdout = stdout.saturating_sub(count as u64);
        }
    }

    fn read_stdout(&mut self) -> usize {
        let Some(child) = &mut self.child else { return 0 };
        let read = child.read_stdout(&mut self.buffer);
        let now = self.shared.clock.now();
        match read {
            Ok(Read::Bytes(count)) => {
                self.feed.handle_output(now, &self.buffer[..count]);
                count
            }
            Ok(Read::Nothing) => 0,
            Ok(Read::Closed) | Err(_) => {
                self.feed.handle_output_closed(now);
                0
            }
        }
    }

    fn read_stderr(&mut self) -> usize {
        let Some(child) = &mut self.child else { return 0 };
        match child.read_stderr(&mut self.buffer) {
            Ok(Read::Bytes(count)) => {
                let now = self.shared.clock.now();
                self.feed.handle_error_output(now, &self.buffer[..count]);
                count
            }
            Ok(Read::Nothing | Read::Closed) | Err(_) => 0,
        }
    }
}

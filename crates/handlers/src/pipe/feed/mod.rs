//! Decides about a slot's child: which tasks it gets, the meaning of its bytes, the task that its end
//! is blamed on, and the time of its restart. Knows no process and no clock.

use std::collections::VecDeque;
use std::time::Duration;

use rustix::process::Signal;
use tradewind_proto::message::{Exit, Outcome, Status};
use tradewind_proto::{Attempt, Seq, Time};

use super::super::process::{Termination, killed_by};
use super::super::tail::Tail;
use super::super::{STOPPED, Task, TermSeq, stopped};
use super::PipeOptions;
use super::codec::{Answers, encode, unfit};
use super::pace::Pace;
use super::stderr::{LogLine, Stderr};

/// A slot's tasks and its child.
///
/// After each input, ask for [actions](Self::poll_action), then for [bytes](Self::outgoing) to
/// write, [ended tasks](Self::take_ended) and [lines](Self::take_logs) for the log.
#[derive(Debug)]
pub(super) struct Feed {
    options: PipeOptions,
    /// Tasks in the order in which they came, which is that of the answers.
    tasks: VecDeque<Unanswered>,
    /// Number of leading tasks that the running child is done with: it was given them, or never will be.
    passed: usize,
    /// Number of those that it was given.
    given: usize,
    outgoing: Vec<u8>,
    outgoing_from: usize,
    answers: Answers,
    stderr: Stderr,
    pace: Pace,
    state: State,
    /// Number of children in a row that ended before they had answered anything.
    failures: u32,
    /// Number of children in a row that could not be started because this host lacked something.
    lacks: u32,
    closing: Option<Close>,
    actions: VecDeque<Action>,
    ended: Vec<Ended>,
    logs: Vec<Log>,
    has_wondered: bool,
}

/// A task that has no answer yet.
#[derive(Debug)]
struct Unanswered {
    task: Task,
    /// Time at which the running child was given the task, or came to it.
    given: Option<Time>,
    /// Whether its end is not waited for any more.
    is_stopped: bool,
    /// Why no child can be given it.
    unfit: Option<&'static str>,
}

#[derive(Debug)]
enum State {
    /// There is no child, and will be none before.
    Down {
        not_before: Time,
    },
    /// It was asked for.
    Starting,
    Up(Child),
    /// There will be none any more.
    GivenUp {
        reason: String,
    },
}

#[derive(Debug)]
struct Child {
    started: Time,
    answered: u64,
    /// Last progress: the time at which it was given something to do, or answered.
    moved: Time,
    /// Bytes of tasks that it took.
    written: u64,
    end: Option<End>,
}

/// Why a child is to end.
#[derive(Debug)]
struct End {
    cause: Cause,
    next: Step,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Cause {
    /// This task was to stop.
    Stopped(Seq, Attempt),
    /// It did what it must not do, and this is to be blamed on the task it was at.
    Wrong(String),
    /// The same, and it was at none.
    WrongWhileIdle(String),
    /// It has closed its stdin or its stdout: it may be about to exit.
    Leaving(&'static str),
    /// There will be no more tasks.
    Closed,
}

/// Next step against a child that does not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It has until then to exit by itself.
    Exit(Time),
    /// Its group is being ended.
    End(Termination),
}

/// Ways to close a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Close {
    /// The child sees the end of its input and may exit by itself, if it has answered.
    AtLeisure,
    /// It is stopped.
    AtOnce,
}

/// Next action for the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Start one; then say so.
    Start,
    /// Close its stdin.
    CloseInput,
    /// Send its group this signal.
    Signal(Signal),
}

/// A task that has ended. They end in the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) task: Task,
    /// Time at which the child was given the task, or was through with the one before.
    pub(super) started: Time,
    pub(super) ran_us: u64,
    pub(super) outcome: Outcome,
}

/// Something for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Log {
    /// The child wrote it to stderr.
    Stderr(LogLine),
    /// The user should know it.
    Warning(String),
}

/// State of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FeedStatus {
    /// Number of tasks that it takes at once.
    pub(super) depth: u32,
    /// Task that the child is at, and the time from which its timeout counts.
    pub(super) under_way: Option<(Seq, Attempt, Time)>,
}

/// Bytes that are written at a time, if tasks are small: what a pipe holds.
const WRITE_BYTES: usize = 64 << 10;

/// The wait before another child after one that ended without an answer; it doubles with each.
const BACKOFF_MIN: Duration = Duration::from_millis(100);

const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Number of times in a row that a child is retried which cannot be started because this host lacks
/// something: about a minute.
const LACKS_MAX: u32 = 12;

/// Bytes of a child's stderr in the log.
const STDERR_BYTES_MAX: usize = 1 << 10;

/// Time in which a child that has closed its stdin or stdout must exit; else it is broken.
const LEAVING_MAX: Duration = Duration::from_secs(1);

/// Time without an answer after which a child may have forgotten to flush.
const WONDER_AFTER: Duration = Duration::from_secs(10);

impl Feed {
    /// A slot without a child; one is asked for at once.
    pub(super) fn new(options: PipeOptions) -> Self {
        let answers = Answers::new(options.mode, options.output_bytes_max);
        Self {
            options,
            tasks: VecDeque::new(),
            passed: 0,
            given: 0,
            outgoing: Vec::new(),
            outgoing_from: 0,
            answers,
            stderr: Stderr::default(),
            pace: Pace::default(),
            state: State::Starting,
            failures: 0,
            lacks: 0,
            closing: None,
            actions: VecDeque::from([Action::Start]),
            ended: Vec::new(),
            logs: Vec::new(),
            has_wondered: false,
        }
    }

    /// Adds a task.
    pub(super) fn handle_task(&mut self, now: Time, task: Task) {
        let unfit = unfit(self.options.mode, &task.payload);
        self.tasks.push_back(Unanswered { task, given: None, is_stopped: false, unfit });
        self.go_on(now);
    }

    /// Notes that the result of this attempt is not wanted any more, or that it has timed out. The child is
    /// stopped only for the task that it is at; it will be through with others that it was given soon.
    pub(super) fn handle_stop(&mut self, now: Time, seq: Seq, attempt: Attempt) {
        let mut tasks = self.tasks.iter_mut().enumerate();
        let Some((place, entry)) =
            tasks.find(|(_, entry)| (entry.task.seq, entry.task.attempt) == (seq, attempt))
        else {
            return;
        };
        entry.is_stopped = true;
        if place == 0 && entry.given.is_some() {
            self.stop_child(now, Cause::Stopped(seq, attempt));
        }
        self.go_on(now);
    }

    /// Notes that the child was started.
    pub(super) fn handle_started(&mut self, now: Time) {
        let (answered, written) = (0, 0);
        self.lacks = 0;
        self.state = State::Up(Child { started: now, answered, moved: now, written, end: None });
        match self.closing {
            Some(close) => self.close_child(now, close),
            None => self.go_on(now),
        }
    }

    /// The child could not be started.
    pub(super) fn handle_start_failed(&mut self, now: Time, reason: &str) {
        self.logs.push(Log::Warning(format!("the handler cannot be started: {reason}")));
        self.count_failure(now, reason);
        self.go_on(now);
    }

    /// The child could not be started because this host lacks something, which may pass.
    pub(super) fn handle_lack(&mut self, now: Time, reason: &str) {
        self.lacks += 1;
        let reason = format!("the handler cannot be started: {reason}");
        if self.lacks == 1 {
            self.logs.push(Log::Warning(format!("{reason}; its tasks wait")));
        }
        self.state = if self.lacks > LACKS_MAX {
            State::GivenUp { reason }
        } else {
            State::Down { not_before: now + backoff(self.lacks) }
        };
        self.go_on(now);
    }

    /// The child took this many of the [outgoing](Self::outgoing) bytes.
    pub(super) fn handle_written(&mut self, now: Time, count: usize) {
        self.outgoing_from += count;
        if let State::Up(child) = &mut self.state {
            child.written += count as u64;
        }
        self.go_on(now);
    }

    /// The child has closed its stdin.
    pub(super) fn handle_input_closed(&mut self, now: Time) {
        self.leave(now, "closed its standard input");
    }

    /// The child has closed its stdout.
    pub(super) fn handle_output_closed(&mut self, now: Time) {
        self.leave(now, "closed its standard output");
    }

    /// The child has written more to stdout.
    pub(super) fn handle_output(&mut self, now: Time, bytes: &[u8]) {
        let State::Up(child) = &mut self.state else { return };
        let is_wrong = |end: &End| matches!(end.cause, Cause::Wrong(_) | Cause::WrongWhileIdle(_));
        if child.end.as_ref().is_some_and(is_wrong) {
            return;
        }
        self.answers.push(bytes);
        let stopped_for = match child.end.as_ref().map(|end| &end.cause) {
            Some(Cause::Stopped(seq, attempt)) => Some((*seq, *attempt)),
            _ => None,
        };
        let from = self.ended.len();
        let began = self.tasks.front().and_then(|entry| entry.given);
        let wrong = loop {
            match self.answers.next() {
                Ok(None) => break None,
                Err(wrong) => break Some(wrong.to_string()),
                Ok(Some(answer)) => {
                    let Some(entry) = self.tasks.front().filter(|entry| entry.given.is_some())
                    else {
                        break Some("the handler wrote an answer without a task".into());
                    };
                    let (due, seq) = (entry.task.seq, answer.seq);
                    if let Some(seq) = seq.filter(|seq| *seq != due) {
                        break Some(format!(
                            "the handler answered out of order: seq {seq} instead of {due}"
                        ));
                    }
                    let mut outcome = answer.outcome;
                    // Its time was up: what the child makes of that comes too late.
                    if stopped_for == Some((entry.task.seq, entry.task.attempt)) {
                        outcome = stopped(outcome);
                    }
                    if self.ended.len() == from {
                        outcome.stderr = self.stderr.recent().into_bytes().into();
                    }
                    self.end_first(now, outcome);
                    self.end_ungiven(now);
                }
            }
        };
        self.handle_answered(now, from, began);
        match wrong {
            Some(wrong) => self.handle_wrong(now, &wrong),
            None => self.go_on(now),
        }
    }

    /// The child does what it must not do.
    pub(super) fn handle_wrong(&mut self, now: Time, wrong: &str) {
        let is_idle = self.given == 0;
        let wrong = wrong.to_owned();
        let cause = if is_idle { Cause::WrongWhileIdle(wrong) } else { Cause::Wrong(wrong) };
        self.stop_child(now, cause);
        self.go_on(now);
    }

    /// The child has written more to stderr.
    pub(super) fn handle_error_output(&mut self, now: Time, bytes: &[u8]) {
        let seq = self.at();
        self.stderr.push(now, seq, bytes);
        self.log_stderr();
    }

    /// Handles the end of the child, after all that it had written before. `unread` of the bytes that it was
    /// given were not read.
    pub(super) fn handle_exit(&mut self, now: Time, exit: Exit, unread: u64) {
        let down = State::Down { not_before: now };
        let State::Up(child) = std::mem::replace(&mut self.state, down) else { return };
        let seq = self.at();
        let tail = self.stderr.end(now, seq);
        self.log_stderr();
        let is_amid = self.answers.is_amid();
        // Whatever brought it down, it was no task.
        let is_loading = child.answered == 0 && child.written == unread;
        match child.end.map(|end| end.cause) {
            Some(Cause::Closed) => {}
            Some(Cause::Stopped(seq, attempt)) => {
                let is_it =
                    |entry: &Unanswered| (entry.task.seq, entry.task.attempt) == (seq, attempt);
                if self.tasks.front().is_some_and(is_it) {
                    self.end_first(now, failed(exit, STOPPED.to_owned(), tail));
                }
            }
            Some(Cause::WrongWhileIdle(reason)) => {
                self.warn(format!("{reason}; restarting it"));
                self.count_end(now, child.answered, &reason);
            }
            Some(Cause::Wrong(reason)) => {
                self.warn(format!("{reason}; restarting it"));
                self.count_end(now, child.answered, &reason);
                self.end_first(now, failed(exit, reason, tail));
            }
            Some(Cause::Leaving(_)) | None => {
                let is_blamed = self.given > 0 && !is_loading;
                let when = match self.given {
                    _ if is_loading => " before it took a task".to_owned(),
                    0 => " between tasks".to_owned(),
                    _ if is_amid => " in the middle of its answer to this task".to_owned(),
                    1 if exit == Exit::Code(0) => " without an answer to this task".to_owned(),
                    given if exit == Exit::Code(0) => {
                        format!(" without an answer to this task and {} more", given - 1)
                    }
                    _ => String::new(),
                };
                let reason = format!("the handler {}{when}", how(exit));
                let mut in_full = reason.clone();
                if !tail.is_empty() {
                    in_full += ": ";
                    in_full += &tail.text(STDERR_BYTES_MAX);
                }
                self.warn(format!("{}; restarting it", one_line(&in_full)));
                self.count_end(now, child.answered, &in_full);
                if is_blamed {
                    self.end_first(now, failed(exit, reason, tail));
                }
            }
        }
        self.take_back();
        self.go_on(now);
    }

    /// It is as late as [`poll_timeout`](Self::poll_timeout) said.
    pub(super) fn handle_timeout(&mut self, now: Time) {
        if let State::Up(Child { end: Some(end), .. }) = &mut self.state {
            match &mut end.next {
                Step::Exit(at) if *at <= now => {
                    if let Cause::Leaving(what) = end.cause {
                        let wrong = format!("the handler {what} and did not exit");
                        end.cause = if self.given > 0 {
                            Cause::Wrong(wrong)
                        } else {
                            Cause::WrongWhileIdle(wrong)
                        };
                    }
                    end.next = begin_end(now, &self.options.term_seq, &mut self.actions);
                }
                Step::Exit(_) => {}
                Step::End(termination) => {
                    let signal = termination.handle_timeout(now, &self.options.term_seq);
                    self.actions.extend(signal.map(Action::Signal));
                }
            }
        }
        if self.wonders_at().is_some_and(|at| at <= now) {
            self.has_wondered = true;
            let text = format!(
                "the handler has answered nothing for {} s: if it is not just slow, it keeps its \
                 answers in a buffer; make it flush after each (flush=True or python3 -u in \
                 Python, `stdbuf -oL` before other programs)",
                WONDER_AFTER.as_secs()
            );
            self.logs.push(Log::Warning(text));
        }
        self.go_on(now);
    }

    /// No more tasks will come, and those that came are not waited for.
    pub(super) fn handle_close(&mut self, now: Time, close: Close) {
        if self.closing >= Some(close) {
            return;
        }
        self.closing = Some(close);
        self.close_child(now, close);
    }

    pub(super) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Bytes for the child's stdin.
    pub(super) fn outgoing(&self) -> &[u8] {
        &self.outgoing[self.outgoing_from..]
    }

    /// Returns the tasks that have ended, each once and in this order.
    pub(super) fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    pub(super) fn take_logs(&mut self) -> Vec<Log> {
        std::mem::take(&mut self.logs)
    }

    /// Returns the time at which to call [`handle_timeout`](Self::handle_timeout), if nothing happens before.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        let due = match &self.state {
            State::Down { not_before } => {
                let is_wanted = self.closing.is_none() && self.has_work();
                is_wanted.then_some(*not_before)
            }
            State::Up(Child { end: Some(end), .. }) => match &end.next {
                Step::Exit(at) => Some(*at),
                Step::End(termination) => termination.poll_timeout(),
            },
            State::Up(_) | State::Starting | State::GivenUp { .. } => None,
        };
        [due, self.wonders_at()].into_iter().flatten().min()
    }

    /// Returns the time for which its output need not be read: the child has enough to do, and many
    /// answers that are read at once cost less than each by itself.
    pub(super) fn nap(&self) -> Option<Duration> {
        let State::Up(Child { end: None, answered: 1.., .. }) = &self.state else { return None };
        self.pace.nap(self.given)
    }

    pub(super) fn status(&self) -> FeedStatus {
        FeedStatus { depth: self.pace.depth(), under_way: self.under_way() }
    }

    /// Why there will be no child any more.
    pub(super) fn given_up(&self) -> Option<&str> {
        match &self.state {
            State::GivenUp { reason } => Some(reason),
            _ => None,
        }
    }

    /// Is the child to end, and are others of its group given time for it?
    pub(super) fn is_stopping(&self) -> bool {
        let State::Up(Child { end: Some(end), .. }) = &self.state else { return false };
        matches!(end.next, Step::End(Termination::Grace { .. }))
    }

    /// Nothing is left to be done, and nothing will come.
    pub(super) fn is_over(&self) -> bool {
        let is_down = matches!(self.state, State::Down { .. } | State::GivenUp { .. });
        self.closing.is_some() && is_down && self.actions.is_empty()
    }

    /// The task that the child is at.
    fn at(&self) -> Option<Seq> {
        self.tasks.front().filter(|entry| entry.given.is_some()).map(|entry| entry.task.seq)
    }

    fn under_way(&self) -> Option<(Seq, Attempt, Time)> {
        let State::Up(child) = &self.state else { return None };
        let entry = self.tasks.front()?;
        let since = entry.given?;
        // It may still have to load whatever it needs.
        let since = if child.answered == 0 {
            since.max(child.started + self.options.startup)
        } else {
            since
        };
        Some((entry.task.seq, entry.task.attempt, since))
    }

    fn has_work(&self) -> bool {
        self.tasks.iter().any(|entry| entry.unfit.is_none() && !entry.is_stopped)
    }

    fn wonders_at(&self) -> Option<Time> {
        let State::Up(Child { end: None, answered, moved, .. }) = &self.state else { return None };
        // One that has answered at once before is just slow now.
        let may_hold_back = self.given > usize::from(*answered > 0);
        let is_quiet = may_hold_back && self.outgoing().is_empty() && !self.has_wondered;
        is_quiet.then_some(*moved + WONDER_AFTER)
    }

    /// Does what can be done without an event: ends tasks, asks for a child, gives it tasks.
    fn go_on(&mut self, now: Time) {
        self.end_ungiven(now);
        if let State::Down { not_before } = self.state
            && now >= not_before
            && self.closing.is_none()
            && self.has_work()
        {
            self.state = State::Starting;
            self.actions.push_back(Action::Start);
        }
        self.fill(now);
    }

    /// Gives the child as much as fits into a write.
    fn fill(&mut self, now: Time) {
        let State::Up(child) = &mut self.state else { return };
        if child.end.is_some() || self.passed == self.tasks.len() {
            return;
        }
        if self.outgoing_from > 0 {
            self.outgoing.drain(..self.outgoing_from);
            self.outgoing_from = 0;
        }
        while self.outgoing.len() < WRITE_BYTES
            && let Some(entry) = self.tasks.get_mut(self.passed)
        {
            self.passed += 1;
            if entry.unfit.is_some() || entry.is_stopped {
                continue;
            }
            if self.given == 0 {
                child.moved = now;
            }
            self.given += 1;
            entry.given = Some(now);
            encode(self.options.mode, &entry.task, &mut self.outgoing);
        }
    }

    /// Ends what comes first and was not given to the child: its end is known.
    fn end_ungiven(&mut self, now: Time) {
        while let Some(entry) = self.tasks.front()
            && entry.given.is_none()
            && (entry.is_stopped || entry.unfit.is_some())
        {
            let reason = entry.unfit.unwrap_or(STOPPED);
            self.end_first(now, Outcome::error(Status::Failed, reason));
        }
    }

    fn end_first(&mut self, now: Time, outcome: Outcome) {
        let Some(entry) = self.tasks.pop_front() else { return };
        let started = entry.given.unwrap_or(now);
        self.passed = self.passed.saturating_sub(1);
        self.given -= usize::from(entry.given.is_some());
        let ran_us = now.since(started).as_micros() as u64;
        self.ended.push(Ended { task: entry.task, started, ran_us, outcome });
    }

    /// The ends from this one on are answers that were read at once: each took its part of the
    /// time. The child came to the first of them at `began`.
    fn handle_answered(&mut self, now: Time, from: usize, began: Option<Time>) {
        let answered = self.ended.len() - from;
        let (State::Up(child), Some(began), 1..) = (&mut self.state, began, answered) else {
            return;
        };
        let (took, count) = (now.since(began).as_micros() as u64, answered as u64);
        for (place, ended) in (0..).zip(&mut self.ended[from..]) {
            let (start, end) = (took * place / count, took * (place + 1) / count);
            ended.started = began + Duration::from_micros(start);
            ended.ran_us = end - start;
        }
        // The first answer tells how long it took to load, too.
        if child.answered > 0 {
            self.pace.handle_answered(took, count);
        }
        child.answered += count;
        child.moved = now;
        self.failures = 0;
        self.stderr.answered();
        if let Some(first) = self.tasks.front_mut()
            && first.given.is_some()
        {
            first.given = Some(now);
        }
    }

    /// Requeues the tasks that the child was given, for the next child.
    fn take_back(&mut self) {
        for entry in self.tasks.iter_mut().take(self.passed) {
            entry.given = None;
        }
        (self.passed, self.given) = (0, 0);
        self.outgoing.clear();
        self.outgoing_from = 0;
        self.answers.clear();
    }

    fn leave(&mut self, now: Time, what: &'static str) {
        if let State::Up(child) = &mut self.state
            && child.end.is_none()
        {
            let next = Step::Exit(now + LEAVING_MAX);
            child.end = Some(End { cause: Cause::Leaving(what), next });
        }
    }

    /// Begins to end the child, unless that was begun.
    fn stop_child(&mut self, now: Time, cause: Cause) {
        let State::Up(child) = &mut self.state else { return };
        if child.end.as_ref().is_none_or(|end| matches!(end.cause, Cause::Leaving(_))) {
            let next = begin_end(now, &self.options.term_seq, &mut self.actions);
            child.end = Some(End { cause, next });
        }
    }

    fn close_child(&mut self, now: Time, close: Close) {
        // Answers that are missing by now are not waited for.
        let close = if self.given > 0 { Close::AtOnce } else { close };
        let State::Up(child) = &mut self.state else { return };
        match close {
            Close::AtLeisure if child.end.is_none() => {
                let next = Step::Exit(now + self.options.exit_grace);
                child.end = Some(End { cause: Cause::Closed, next });
                self.actions.push_back(Action::CloseInput);
            }
            Close::AtLeisure => {}
            Close::AtOnce => {
                if !matches!(&child.end, Some(End { next: Step::End(_), .. })) {
                    let next = begin_end(now, &self.options.term_seq, &mut self.actions);
                    child.end = Some(End { cause: Cause::Closed, next });
                }
            }
        }
    }

    fn count_end(&mut self, now: Time, answered: u64, reason: &str) {
        if answered == 0 {
            self.count_failure(now, reason);
        }
    }

    fn count_failure(&mut self, now: Time, reason: &str) {
        self.failures += 1;
        let limit = self.options.restarts_max;
        self.state = if self.failures > limit {
            let reason = one_line(reason);
            let count = match self.failures {
                1 => "it has".to_owned(),
                many => format!("{many} in a row have"),
            };
            State::GivenUp {
                reason: format!("{reason}; {count} answered no task at all (see --pipe-restarts)"),
            }
        } else {
            State::Down { not_before: now + backoff(self.failures) }
        };
    }

    fn warn(&mut self, text: String) {
        self.logs.push(Log::Warning(text));
    }

    fn log_stderr(&mut self) {
        self.logs.extend(self.stderr.take_lines().into_iter().map(Log::Stderr));
    }
}

fn failed(exit: Exit, reason: String, stderr: Tail) -> Outcome {
    let stderr = stderr.into_bytes().into();
    Outcome { exit, stderr, ..Outcome::error(Status::Failed, reason) }
}

/// Begins to end the child's group.
fn begin_end(now: Time, term_seq: &TermSeq, actions: &mut VecDeque<Action>) -> Step {
    let (termination, signal) = Termination::begin(now, term_seq);
    actions.push_back(Action::Signal(signal));
    Step::End(termination)
}

/// Returns the wait after this many failures in a row.
fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (BACKOFF_MIN * (1 << doublings)).min(BACKOFF_MAX)
}

/// After "the handler".
fn how(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exited with code {code}"),
        Exit::Signal(signal) => format!("was {}", killed_by(signal)),
        Exit::None => "ended with unknown wait status".to_owned(),
    }
}

/// Of several lines the last says most, as in a traceback.
fn one_line(text: &str) -> String {
    match (text.split_once('\n'), text.rsplit_once('\n')) {
        (Some((first, _)), Some((_, last))) => format!("{first} ... {last}"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;

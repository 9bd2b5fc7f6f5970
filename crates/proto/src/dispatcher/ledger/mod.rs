//! Facts about each task. Only here does a task's state change, and only here are bytes added to
//! the kept ones and to the charges of workers, or taken off.
//!
//! Each verb leaves the task in the one [state](TaskState) that its name says, wherever it was before,
//! and the sets, the counts and the [charges](Charge) with it.

mod entry;
mod own;
mod records;
mod table;
mod waiting;

use std::collections::BTreeSet;

pub(super) use self::entry::{Entry, TaskState};
pub(super) use self::own::OwnLimits;
pub(super) use self::records::{Forwarded, GivenUp, Record};
pub(super) use self::waiting::{Class, Waiting};

use self::records::Records;
use self::table::Table;
use super::TaskLimits;
use super::roster::Roster;
use crate::limits::{READ_AHEAD_TASKS_MAX, UNSETTLED_TASKS_MAX};
use crate::message::{Status, Task, TaskResult};
use crate::{Attempt, JobKey, Payload, Seq, SeqList, SeqRange, SeqSet, SessionId, TaskHash, Time};

/// The tasks, and what is kept of them.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    table: Table,
    /// The lowest seq that may be [fresh](TaskState::Fresh).
    fresh: Seq,
    /// Number of fresh tasks.
    fresh_count: u64,
    /// Number of tasks that are [received](TaskState::Received).
    received_count: u64,
    /// The tasks that are [requeued](TaskState::Requeued).
    waiting: Waiting,
    /// The tasks that are in [backoff](TaskState::Backoff), by when that ends.
    backoff: BTreeSet<(Time, Seq)>,
    /// The records of tasks that were [given up](TaskState::GivenUp).
    records: Records,
    /// No task from this seq on was given up before its turn.
    at_once_end: Seq,
    /// Limits of the tasks that have their own.
    own: OwnLimits,
    /// Payload bytes of all tasks.
    retained_bytes: u64,
    bug: Option<LedgerBug>,
}

/// A bug that is planted to prove that tests would find it. Without debug assertions it does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerBug {
    /// The charge of a worker is not reduced when the worker no longer answers for a task.
    KeepCharge,
    /// A settled task is forgotten when the window moves on past a straggler.
    ForgetSettled,
    /// A task that is not settled is forgotten when the window moves on.
    ForgetStraggler,
    /// A result that comes again, of a task that its worker no longer has, says something of tasks.
    CountRepeated,
    /// The limits that a task has of its own are forgotten when a worker turns out to hold the task.
    ForgetOwn,
}

/// Payload bytes of the tasks that a worker alone answers for.
#[derive(Debug, Default)]
pub(super) struct Charge {
    bytes: u64,
}

impl Charge {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Tasks that are on their way to a worker. They are not charged to it before
/// [`send`](Ledger::send).
#[derive(Debug)]
pub(super) struct Shipment {
    session: SessionId,
    tasks: Vec<Task>,
    seqs: SeqList,
    bytes: u64,
    /// Time of the dispatch, in seconds: rounded up, so that 0 is none.
    at_s: u32,
}

impl Shipment {
    pub(super) fn new(now: Time, session: SessionId, count: usize) -> Self {
        let at_s = u32::try_from(now.0.div_ceil(entry::SECOND_US)).unwrap_or(u32::MAX);
        Self { session, tasks: Vec::with_capacity(count), seqs: SeqList::new(), bytes: 0, at_s }
    }

    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Bytes that are taken off one worker's charge together.
struct Release {
    of: TaskState,
    bytes: u64,
    bug: Option<LedgerBug>,
}

impl Release {
    fn new(bug: Option<LedgerBug>) -> Self {
        Self { of: TaskState::Settled, bytes: 0, bug }
    }

    /// Notes that a task leaves this state.
    fn add(&mut self, roster: &mut Roster, old: TaskState, bytes: u64) {
        if old != self.of {
            self.end(roster);
            self.of = old;
        }
        self.bytes += bytes;
    }

    fn end(&mut self, roster: &mut Roster) {
        let bytes = std::mem::take(&mut self.bytes);
        if let TaskState::Out(session) = self.of
            && !is_planted(self.bug, LedgerBug::KeepCharge)
            && let Some(worker) = roster.get_mut(session)
        {
            worker.charge.bytes -= bytes;
        }
    }
}

/// Is this bug planted?
fn is_planted(planted: Option<LedgerBug>, bug: LedgerBug) -> bool {
    cfg!(debug_assertions) && planted == Some(bug)
}

impl Ledger {
    /// Creates the ledger of a job of which every task below a seq is settled.
    pub(super) fn starting_at(first: Seq) -> Self {
        Self { table: Table::starting_at(first), fresh: first, ..Self::default() }
    }

    /// Returns the seq that the next task will have.
    pub(super) fn end(&self) -> Seq {
        self.table.end()
    }

    /// Returns the lowest seq that is not settled.
    pub(super) fn base(&self) -> Seq {
        self.table.base()
    }

    /// Returns the lowest seq that was never dispatched in its turn.
    pub(super) fn fresh(&self) -> Seq {
        self.fresh
    }

    /// Returns the number of tasks that are settled.
    pub(super) fn settled(&self) -> u64 {
        self.table.settled()
    }

    /// Returns whether every task that was taken in is settled.
    pub(super) fn is_all_settled(&self) -> bool {
        self.base() == self.end()
    }

    /// Returns the bytes of tasks, and of an earlier stage's records, that are kept until they are
    /// stored.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.retained_bytes + self.records.forwarded_bytes()
    }

    /// Returns the number of tasks that may be taken in.
    pub(super) fn room(&self, bytes_max: u64) -> u64 {
        if self.retained_bytes >= bytes_max && self.table.live() > 0 {
            return 0;
        }
        let room = UNSETTLED_TASKS_MAX + READ_AHEAD_TASKS_MAX;
        room.saturating_sub(self.table.live())
    }

    /// Returns the number of fresh tasks, whether they may go out or not.
    pub(super) fn fresh_count(&self) -> u64 {
        self.fresh_count
    }

    /// Returns the number of fresh tasks that may go out: the number of dispatched and unsettled
    /// tasks is bounded.
    pub(super) fn fresh_room(&self) -> u64 {
        let unsettled = self.table.live() - self.fresh_count;
        self.fresh_count.min(UNSETTLED_TASKS_MAX.saturating_sub(unsettled))
    }

    /// Returns the state of a task that is below the end.
    pub(super) fn state(&self, seq: Seq) -> Option<TaskState> {
        self.table.state(seq)
    }

    /// Returns the entry of a task.
    pub(super) fn get(&self, seq: Seq) -> Option<&Entry> {
        self.table.get(seq)
    }

    /// Returns the bytes of a task's payload.
    pub(super) fn payload_bytes(&self, seq: Seq) -> u64 {
        self.table.get(seq).map_or(0, Entry::bytes)
    }

    /// Returns whether the task is out at this worker.
    pub(super) fn is_out_at(&self, seq: Seq, session: SessionId) -> bool {
        self.state(seq) == Some(TaskState::Out(session))
    }

    pub(super) fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    pub(super) fn records(&self) -> &Records {
        &self.records
    }

    /// Returns the limits of the tasks that have their own.
    pub(super) fn own(&self) -> &OwnLimits {
        &self.own
    }

    /// Returns the number of retries and timeouts that unsettled tasks have of their own.
    pub(super) fn own_limits(&self) -> u64 {
        self.own.count()
    }

    /// Returns the number of tasks that wait to be dispatched, for the first time or again.
    pub(super) fn queued(&self) -> u64 {
        self.fresh_count + self.waiting.len() as u64
    }

    /// Returns the number of tasks that failed and are not dispatched again before a time.
    pub(super) fn delayed(&self) -> u64 {
        self.backoff.len() as u64
    }

    /// Returns the number of tasks of which the sink has a result that is not stored.
    pub(super) fn received(&self) -> u64 {
        self.received_count
    }

    /// Returns the time at which the next backoff ends.
    pub(super) fn next_backoff(&self) -> Option<Time> {
        self.backoff.first().map(|(until, _)| *until)
    }

    /// Returns the first task whose backoff is over.
    pub(super) fn recovered(&self, now: Time) -> Option<Seq> {
        self.backoff.first().filter(|(until, _)| *until <= now).map(|(_, seq)| *seq)
    }

    /// Returns the seq from which on no task was dispatched, or has a record that the sink may have.
    pub(super) fn begun(&self) -> Seq {
        self.table.begun(self.fresh).max(self.at_once_end)
    }

    /// Returns the records that the sink is to write itself now, ascending. Without an order those are all.
    pub(super) fn given_up_in_turn(
        &self,
        has_no_order: bool,
    ) -> impl Iterator<Item = (Seq, &GivenUp)> {
        let is_in_turn =
            move |seq: Seq, it: &GivenUp| has_no_order || it.is_at_once || seq < self.fresh;
        self.records.all_given_up().filter(move |(seq, given_up)| is_in_turn(*seq, given_up))
    }

    /// Returns whether the task was cancelled by itself.
    pub(super) fn is_cancelled(&self, seq: Seq) -> bool {
        self.records.given_up(seq).is_some_and(|given_up| given_up.is_at_once)
    }

    /// Returns the tasks that are neither settled nor absent, ascending.
    pub(super) fn live(&self) -> impl Iterator<Item = (Seq, &Entry)> {
        self.table.iter().filter(|(_, entry)| entry.state.is_live())
    }

    /// Returns the tasks that are neither settled nor absent, from a seq on, ascending.
    pub(super) fn live_from(&self, start: Seq) -> impl Iterator<Item = (Seq, &Entry)> {
        self.live().skip_while(move |(seq, _)| *seq < start)
    }

    /// Returns the first settled task that is not in a set.
    pub(super) fn first_settled_beyond(&self, has: &SeqSet) -> Option<Seq> {
        self.table.first_settled_beyond(has)
    }

    /// Returns the number of tasks that take up memory.
    pub(super) fn entries(&self) -> u64 {
        self.table.entries() as u64
    }

    /// Takes in a task of the input, whose hash is this one if it is not that of the payload.
    pub(super) fn take_in(&mut self, payload: Payload, hash: Option<TaskHash>) -> Seq {
        self.retained_bytes += payload.len() as u64;
        self.fresh_count += 1;
        self.table.push(Entry { origin: hash, ..Entry::new(payload) })
    }

    /// Gives a task that is not settled limits of its own.
    pub(super) fn limit(&mut self, seq: Seq, limits: TaskLimits) {
        if self.state(seq).is_some_and(|state| state != TaskState::Settled) {
            self.own.insert(seq, limits);
        }
    }

    /// Takes in a task of the input whose record is stored already.
    pub(super) fn take_in_settled(&mut self) {
        self.table.push(Entry::settled());
        self.advance();
    }

    /// Takes in the next tasks of the input, whose records are stored already.
    pub(super) fn take_in_recorded(&mut self, count: u64) {
        self.table.push_settled(count);
    }

    /// Returns the seq from which on no honest peer names a task: with the unsettled tasks that there
    /// may be none lies beyond.
    fn reachable_end(&self) -> Seq {
        Seq(self.settled() + UNSETTLED_TASKS_MAX + READ_AHEAD_TASKS_MAX)
    }

    /// Makes room for tasks that a relay hears of before they come.
    pub(super) fn reach(&mut self, range: SeqRange) {
        let range = range.clamped(self.base(), self.reachable_end());
        if range.end > self.end() {
            self.table.reach(range.end);
        }
        self.table.fill(range);
    }

    /// Takes in the payload of a task from an earlier stage. Returns false if the task is not to be
    /// dispatched, because a worker has it already, or it is not needed any more.
    pub(super) fn arrive(
        &mut self,
        roster: &mut Roster,
        seq: Seq,
        payload: Payload,
        origin: TaskHash,
    ) -> bool {
        let fresh = self.fresh;
        self.table.fill(SeqRange::one(seq));
        let Some(entry) = self.table.get_mut(seq).filter(|entry| !entry.is_here) else {
            return false;
        };
        let bytes = payload.len() as u64;
        match entry.state {
            TaskState::Settled | TaskState::GivenUp => return false,
            TaskState::Out(session) => {
                if let Some(worker) = roster.get_mut(session) {
                    worker.charge.bytes += bytes;
                }
            }
            _ => {}
        }
        self.retained_bytes += bytes;
        let is_fresh = seq >= fresh && entry.is_blank();
        let is_absent = entry.state == TaskState::Absent;
        (entry.payload, entry.origin, entry.is_here) = (payload, Some(origin), true);
        if is_absent {
            // A task that has been out before is not fresh, wherever its seq lies.
            entry.state = if is_fresh { TaskState::Fresh } else { TaskState::Idle };
            self.fresh_count += u64::from(is_fresh);
            self.table.add_live(1);
        }
        is_absent
    }

    /// Takes in the record of a task that ended in an earlier stage, to be forwarded unchanged.
    pub(super) fn forward(&mut self, roster: &mut Roster, forwarded: Forwarded) {
        let seq = forwarded.result.seq;
        if self.close(roster, seq).is_some() {
            self.records.insert(seq, Record::Forwarded(forwarded));
        }
    }

    /// Gives a task up: the sink is to write the record itself, at once or when the task's turn has come.
    pub(super) fn give_up(
        &mut self,
        roster: &mut Roster,
        seq: Seq,
        status: Status,
        error: String,
        is_at_once: bool,
    ) -> Option<GivenUp> {
        let (attempt, task_hash) = self.close(roster, seq)?;
        let given_up = GivenUp { attempt, task_hash, status, error, is_at_once };
        if is_at_once {
            self.at_once_end = self.at_once_end.max(seq.next());
        }
        self.records.insert(seq, Record::GivenUp(given_up.clone()));
        Some(given_up)
    }

    /// Takes a task from its worker for good. Returns the last attempt and the hash, unless the
    /// task has a record.
    fn close(&mut self, roster: &mut Roster, seq: Seq) -> Option<(Attempt, TaskHash)> {
        let state = self.state(seq)?;
        if matches!(state, TaskState::Settled | TaskState::GivenUp) {
            return None;
        }
        self.table.fill(SeqRange::one(seq));
        self.free(roster, seq);
        let entry = self.table.get_mut(seq)?;
        let about = (entry.attempt, entry.hash());
        self.retained_bytes -= entry.bytes();
        entry.payload = Payload::new();
        entry.is_here = true;
        if entry.state == TaskState::Absent {
            self.table.add_live(1);
        }
        self.set(seq, TaskState::GivenUp);
        Some(about)
    }

    /// Has all records sent again that a sink may have missed.
    pub(super) fn pass_again(&mut self) {
        self.records.send_again();
    }

    /// Returns the next records of earlier stages for the sink, with the names of their stage and
    /// worker.
    pub(super) fn next_forwarded(&mut self) -> Option<(String, String, Vec<TaskResult>)> {
        self.records.next_forwarded()
    }

    /// Puts a task among those that wait, since it cannot be dispatched in its turn.
    pub(super) fn requeue(&mut self, seq: Seq, class: Class) {
        if self.state(seq).is_some_and(TaskState::is_unassigned) {
            self.leave(seq);
            self.set(seq, TaskState::Requeued);
            self.waiting.insert(seq, class);
        }
    }

    /// Moves a waiting task to another class.
    pub(super) fn reclass(&mut self, seq: Seq, class: Class) {
        if self.state(seq) == Some(TaskState::Requeued) {
            self.waiting.insert(seq, class);
        }
    }

    /// Lets an unassigned task wait until a time.
    pub(super) fn back_off(&mut self, seq: Seq, until: Time) {
        if self.state(seq).is_some_and(TaskState::is_unassigned) {
            self.leave(seq);
            self.set(seq, TaskState::Backoff { until });
            self.backoff.insert((until, seq));
        }
    }

    /// Keeps an unassigned task from being dispatched.
    pub(super) fn set_idle(&mut self, seq: Seq) {
        if self.state(seq).is_some_and(TaskState::is_unassigned) {
            self.leave(seq);
            self.set(seq, TaskState::Idle);
        }
    }

    /// Returns the next task in turn, which may be one that need not be dispatched.
    pub(super) fn seek_fresh(&mut self) -> Option<&Entry> {
        self.fresh = self.table.next_known(self.fresh);
        self.table.get(self.fresh)
    }

    /// Skips the first task that was not dispatched in its turn. It is not fresh.
    pub(super) fn pass_over(&mut self) {
        debug_assert_ne!(self.state(self.fresh), Some(TaskState::Fresh), "nothing fresh is lost");
        self.fresh = self.fresh.next();
    }

    /// Dispatches consecutive fresh tasks while they fit: up to a number and to the bytes of the
    /// whole shipment and of each task, and up to the first that has limits of its own.
    pub(super) fn dispatch_fresh(
        &mut self,
        count: u64,
        bytes_max: u64,
        task_bytes_max: u64,
        retries: u32,
        shipment: &mut Shipment,
    ) {
        let count = count.saturating_sub(shipment.tasks.len() as u64).min(self.fresh_room());
        let range = SeqRange { start: self.fresh, end: Seq(self.fresh.0 + count) };
        let range = match self.own.first_from(range.start) {
            Some(own) => range.clamped(range.start, own),
            None => range,
        };
        let mut end = range.start;
        for (seq, entry) in self.table.window_mut(range) {
            let bytes = shipment.bytes + entry.bytes();
            if entry.state != TaskState::Fresh
                || bytes > bytes_max
                || entry.bytes() > task_bytes_max
            {
                break;
            }
            shipment.bytes = bytes;
            let task = entry.dispatch(seq, shipment, retries);
            shipment.tasks.push(task);
            end = seq.next();
        }
        let range = SeqRange { start: range.start, end };
        shipment.seqs.push_range(range);
        self.fresh_count -= range.count();
        self.fresh = range.end;
    }

    /// Dispatches a task that is fresh or requeued, and that has this number of retries unless it has its own.
    pub(super) fn dispatch(&mut self, seq: Seq, retries: u32, shipment: &mut Shipment) {
        let retries = self.own.retries(seq).unwrap_or(retries);
        let Some(entry) = self.table.get_mut(seq) else { return };
        match entry.state {
            TaskState::Fresh => {
                debug_assert_eq!(seq, self.fresh, "in its turn");
                self.fresh_count -= 1;
                self.fresh = seq.next();
            }
            TaskState::Requeued => self.waiting.remove(seq),
            state => debug_assert!(false, "{seq} is dispatched and was {state:?}"),
        }
        shipment.bytes += entry.bytes();
        shipment.seqs.push(seq);
        let task = entry.dispatch(seq, shipment, retries);
        shipment.tasks.push(task);
    }

    /// Charges what was dispatched to its worker, and gives the tasks their tags by this key.
    pub(super) fn send(
        &mut self,
        roster: &mut Roster,
        key: JobKey,
        shipment: Shipment,
    ) -> Vec<Task> {
        let Shipment { session, mut tasks, seqs, bytes, .. } = shipment;
        if let Some(worker) = roster.get_mut(session) {
            worker.charge.bytes += bytes;
            for range in seqs.as_slice() {
                worker.out.insert_range(*range);
            }
            let tagger = worker.tagger.get(key, session);
            tagger.tag_each(&mut tasks, |task| (task.seq, task.hash), |task, tag| task.tag = tag);
        }
        tasks
    }

    /// Assigns a task to a worker that turns out to hold it, and for which no worker answered. It
    /// was dispatched at least once, and any failure of it counts.
    pub(super) fn hold(&mut self, roster: &mut Roster, seq: Seq, session: SessionId) {
        let state = self.state(seq);
        if !state.is_some_and(|state| state.is_unassigned() || state == TaskState::Absent) {
            return;
        }
        self.table.fill(SeqRange::one(seq));
        self.leave(seq);
        if state == Some(TaskState::Absent) {
            self.table.add_live(1);
        }
        self.set(seq, TaskState::Out(session));
        if is_planted(self.bug, LedgerBug::ForgetOwn) {
            self.own.remove_range(SeqRange::one(seq));
        }
        let Some(entry) = self.table.get_mut(seq) else { return };
        entry.attempt = entry.attempt.max(Attempt::FIRST);
        if let Some(worker) = roster.get_mut(session) {
            worker.charge.bytes += entry.bytes();
        }
    }

    /// Notes an attempt that this dispatcher may not know of.
    pub(super) fn note_attempt(&mut self, seq: Seq, attempt: Attempt) {
        if let Some(entry) = self.table.get_mut(seq) {
            entry.attempt = entry.attempt.max(attempt);
        }
    }

    /// Notes that the worker may hold an earlier attempt than the last that it was sent.
    pub(super) fn doubt_attempt(&mut self, seq: Seq, session: SessionId) {
        if let Some(entry) = self.table.get_mut(seq)
            && entry.state == TaskState::Out(session)
        {
            entry.since = Attempt(0);
        }
    }

    /// Takes back an attempt, since the task was only reassigned, unless another worker made one
    /// before.
    pub(super) fn undo_attempt(&mut self, seq: Seq, session: SessionId) {
        if let Some(entry) = self.table.get_mut(seq)
            && entry.state == TaskState::Out(session)
            && entry.since == entry.attempt
        {
            entry.attempt = Attempt(entry.attempt.0.saturating_sub(1));
        }
    }

    /// Notes that an attempt failed, once.
    pub(super) fn note_failure(&mut self, seq: Seq, attempt: Attempt) {
        self.table.fill(SeqRange::one(seq));
        if let Some(entry) = self.table.get_mut(seq) {
            // It may be an attempt that an earlier ventilator counted.
            entry.attempt = entry.attempt.max(attempt);
            if attempt > entry.failed {
                entry.failed = attempt;
                entry.failures += 1;
            }
        }
    }

    /// Releases a task from its worker: it is [idle](TaskState::Idle), or absent again.
    pub(super) fn release(&mut self, roster: &mut Roster, seq: Seq) {
        if let Some(TaskState::Out(_)) = self.state(seq) {
            self.free(roster, seq);
            self.unhold(seq);
        }
    }

    fn unhold(&mut self, seq: Seq) {
        let Some(entry) = self.table.get_mut(seq) else { return };
        entry.state = entry.unassigned_state();
        if entry.state == TaskState::Absent {
            self.table.remove_live();
        }
    }

    /// Reassigns a task to another worker that holds it too.
    pub(super) fn reassign(&mut self, roster: &mut Roster, seq: Seq, to: SessionId) {
        self.hold(roster, seq, to);
        self.doubt_attempt(seq, to);
    }

    /// Notes that the sink has a worker's results of these tasks. Returns the number of those of which it had
    /// none, as far as is known.
    pub(super) fn receive(
        &mut self,
        roster: &mut Roster,
        range: SeqRange,
        session: SessionId,
    ) -> u64 {
        let reachable = range.clamped(self.base(), self.reachable_end());
        let Self { table, waiting, backoff, fresh_count, bug, .. } = self;
        let bug = *bug;
        table.fill(reachable);
        let (mut release, mut absent, mut new) = (Release::new(bug), 0, 0);
        table.for_each(range, |seq, entry| {
            let old = entry.state;
            match old {
                TaskState::Out(_) | TaskState::Idle => {}
                TaskState::Absent => absent += 1,
                TaskState::Fresh => *fresh_count -= 1,
                TaskState::Requeued => waiting.remove(seq),
                TaskState::Backoff { until } => {
                    backoff.remove(&(until, seq));
                }
                TaskState::Received(_) | TaskState::GivenUp => return,
                // Another worker's record came first: this result is not needed.
                TaskState::Settled => {
                    roster.announce_settled(session, SeqRange::one(seq));
                    return;
                }
            }
            entry.state = TaskState::Received(session);
            new += 1;
            // An earlier ventilator may have dispatched it.
            entry.attempt = entry.attempt.max(Attempt::FIRST);
            release.add(roster, old, entry.bytes());
        });
        release.end(roster);
        table.add_live(absent);
        for range in table.settled_behind(range) {
            roster.announce_settled(session, range);
        }
        self.received_count += new;
        new
    }

    /// Assigns tasks, whose results only an old sink had in memory, to the workers that retain the
    /// results. Returns the tasks whose worker is gone: they are idle, or absent.
    pub(super) fn forget_received(&mut self, roster: &mut Roster) -> Vec<Seq> {
        let received = self.live().filter_map(|(seq, entry)| match entry.state {
            TaskState::Received(session) => Some((seq, session)),
            _ => None,
        });
        let mut unassigned = Vec::new();
        let received = received.collect::<Vec<_>>();
        self.received_count = 0;
        for (seq, session) in received {
            let Some(entry) = self.table.get_mut(seq) else { continue };
            if let Some(worker) = roster.get_mut(session) {
                entry.state = TaskState::Out(session);
                worker.out.insert(seq);
                worker.charge.bytes += entry.bytes();
            } else {
                self.unhold(seq);
                unassigned.push(seq);
            }
        }
        unassigned
    }

    /// Notes that these records are stored. Workers that hold the tasks or retain their results are
    /// to be told.
    pub(super) fn settle(&mut self, roster: &mut Roster, range: SeqRange) {
        let Self { table, waiting, backoff, records, retained_bytes, bug, .. } = self;
        let (fresh_count, received_count) = (&mut self.fresh_count, &mut self.received_count);
        let bug = *bug;
        let mut release = Release::new(bug);
        let mut run = SeqRange { start: range.start, end: range.start };
        let (mut of, mut freed) = (None, 0);
        table.settle(range, |seq, entry| {
            let mut holder = None;
            match entry.state {
                TaskState::Out(session) => holder = Some(session),
                TaskState::Received(session) => {
                    *received_count -= 1;
                    holder = Some(session);
                }
                TaskState::Fresh => *fresh_count -= 1,
                TaskState::Requeued => waiting.remove(seq),
                TaskState::Backoff { until } => {
                    backoff.remove(&(until, seq));
                }
                TaskState::GivenUp => records.remove(seq),
                TaskState::Absent | TaskState::Idle | TaskState::Settled => {}
            }
            let bytes = entry.bytes();
            entry.payload = Payload::new();
            freed += bytes;
            release.add(roster, entry.state, bytes);
            if of != holder || run.end != seq {
                if let Some(session) = of {
                    roster.announce_settled(session, run);
                }
                (of, run.start) = (holder, seq);
            }
            run.end = seq.next();
        });
        if let Some(session) = of {
            roster.announce_settled(session, run);
        }
        release.end(roster);
        *retained_bytes -= freed;
        self.own.remove_range(range);
    }

    /// Notes that records are stored of tasks that a relay has not seen.
    pub(super) fn settle_beyond(&mut self, roster: &mut Roster, range: SeqRange) {
        if range.end > self.end() {
            self.table.reach(range.end);
        }
        self.settle(roster, range);
    }

    /// Frees memory of settled tasks.
    pub(super) fn advance(&mut self) {
        self.table.advance();
    }

    pub(super) fn has_planted(&self, bug: LedgerBug) -> bool {
        is_planted(self.bug, bug)
    }

    pub(super) fn plant(&mut self, bug: LedgerBug) {
        self.bug = Some(bug);
        self.table.plant(bug);
    }

    /// Drops the tasks from a seq on, none of which was dispatched.
    pub(super) fn cut_off(&mut self, end: Seq) {
        let Self { table, waiting, backoff, fresh, fresh_count, records, retained_bytes, .. } =
            self;
        table.cut_off(end, |entry| {
            *retained_bytes -= entry.bytes();
            *fresh_count -= u64::from(entry.state == TaskState::Fresh);
        });
        waiting.cut_off(end);
        backoff.retain(|(_, seq)| *seq < end);
        records.cut_off(end);
        *fresh = (*fresh).min(end);
        self.own.cut_off(end);
    }

    /// Takes a task that has no record from the worker that answers for it, or out of the set in
    /// which it waits. The caller sets its next state.
    fn free(&mut self, roster: &mut Roster, seq: Seq) {
        if let Some(TaskState::Out(session)) = self.state(seq) {
            let mut release = Release::new(self.bug);
            release.add(roster, TaskState::Out(session), self.payload_bytes(seq));
            release.end(roster);
        }
        self.leave(seq);
    }

    fn leave(&mut self, seq: Seq) {
        match self.state(seq) {
            Some(TaskState::Fresh) => self.fresh_count -= 1,
            Some(TaskState::Received(_)) => self.received_count -= 1,
            Some(TaskState::Requeued) => self.waiting.remove(seq),
            Some(TaskState::Backoff { until }) => {
                self.backoff.remove(&(until, seq));
            }
            _ => {}
        }
    }

    fn set(&mut self, seq: Seq, state: TaskState) {
        if let Some(entry) = self.table.get_mut(seq) {
            entry.state = state;
        }
    }

    /// Panics if places that keep the same fact differ.
    pub(super) fn check_invariants(&self, roster: &Roster) {
        self.table.check_invariants();
        let mut charged = std::collections::BTreeMap::<SessionId, u64>::new();
        let (mut retained_bytes, mut fresh_count, mut given_up) = (0, 0, 0);
        let (mut requeued, mut backing_off, mut received) = (0, 0, 0);
        for (seq, entry) in self.table.iter() {
            let bytes = entry.bytes();
            retained_bytes += bytes;
            match entry.state {
                TaskState::Absent => assert!(!entry.is_here, "{seq} is absent and here"),
                TaskState::Fresh => {
                    fresh_count += 1;
                    assert!(seq >= self.fresh, "{seq} is fresh and was passed over");
                    assert_eq!(entry.attempt, Attempt(0), "{seq} is fresh");
                }
                TaskState::Requeued => {
                    requeued += 1;
                    assert!(self.waiting.contains(seq), "{seq} waits nowhere");
                }
                TaskState::Backoff { until } => {
                    backing_off += 1;
                    assert!(self.backoff.contains(&(until, seq)), "{seq} is never tried again");
                }
                TaskState::Out(session) => {
                    *charged.entry(session).or_default() += bytes;
                    let holder = roster.get(session);
                    let is_known = holder.is_some_and(|worker| worker.out.contains(seq));
                    assert!(is_known, "{seq} is out at a worker that does not have it");
                }
                TaskState::GivenUp => {
                    given_up += 1;
                    assert!(self.records.contains(seq), "{seq} was given up without a record");
                }
                TaskState::Received(_) => received += 1,
                TaskState::Idle | TaskState::Settled => {}
            }
            let is_over = matches!(entry.state, TaskState::GivenUp | TaskState::Settled);
            assert!(!is_over || bytes == 0, "{seq} needs no payload");
            assert!(!entry.state.is_unassigned() || entry.is_here, "{seq} waits and is not here");
        }
        assert_eq!(self.retained_bytes, retained_bytes, "bytes of all payloads");
        assert_eq!(self.fresh_count, fresh_count, "tasks that are fresh");
        assert_eq!(self.received_count, received, "tasks of which the sink has results");
        assert_eq!(self.waiting.len(), requeued, "tasks that are requeued");
        assert_eq!(self.backoff.len(), backing_off, "tasks that back off");
        self.records.check_invariants(given_up);
        let mut limited = std::iter::successors(self.own.first_from(Seq(0)), |seq| {
            self.own.first_from(seq.next())
        });
        let settled =
            limited.find(|seq| self.state(*seq).is_none_or(|state| state == TaskState::Settled));
        assert_eq!(settled, None, "a task that is settled has limits of its own");
        for (session, worker) in roster {
            let bytes = charged.remove(session).unwrap_or_default();
            assert_eq!(worker.charge.bytes, bytes, "bytes that {} answers for", worker.name);
        }
        assert!(charged.is_empty(), "{charged:?} is out at workers that are gone");
    }
}

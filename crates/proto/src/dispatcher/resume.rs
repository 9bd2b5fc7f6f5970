//! A job that is resumed after an earlier ventilator.
//!
//! The sink reports its job and the stored records. Then the input is read again, up to the last
//! task that the earlier ventilator can have dispatched: stored tasks are skipped, after the sink
//! has compared their hashes. Only then is the sink asked for its hello a second time, the one that
//! counts: from here on every seq that the sink or a worker may name is known. Tasks that workers
//! still hold stay with them; the others wait in the queue until all workers have answered the roll
//! call.
//!
//! An input that is a log may have been trimmed: it [begins](Dispatcher::with_first) with a task above 0, and
//! what lies below is neither read nor compared. Neither are the tasks above that are said to be
//! [recorded](Dispatcher::handle_recorded).

use std::collections::{BTreeMap, VecDeque};

use super::ledger::{Entry, TaskState};
use super::{Dispatcher, Ended};
use crate::limits::{BATCH_TASKS_MAX, READ_AHEAD_TASKS_MAX, UNSETTLED_TASKS_MAX};
use crate::message::{InputEnd, Start, ToSink, changed_input};
use crate::{Attempt, JobId, Seq, SeqRange, SeqRanges, SeqSet, SessionId, TaskHash};

#[derive(Debug)]
pub(super) struct Resume {
    pub(super) phase: Phase,
    /// Whether the job's id is the ventilator's, and not the sink's to say.
    pub(super) is_own: bool,
    /// Seqs that the sink had stored, of tasks that were not read at that time.
    known: SeqSet,
    /// Seq from which on no task is known to have or have had a record.
    known_end: Seq,
    /// Seq from which on no task has or had a record, by the last hello that counted; 0 once the sink knows
    /// that the comparison is over.
    sink_end: Seq,
    /// Seq after the last task that the sink has compared; 0 before the first.
    verified: Seq,
    /// Hashes of the tasks that were read, lie below the known end, and are yet to be compared.
    unverified: VecDeque<(Seq, TaskHash)>,
    /// Number of leading `unverified` hashes already sent to the sink.
    sent: usize,
    /// State of tasks that are out or received and were not read yet.
    ahead: BTreeMap<(Seq, SessionId), Ahead>,
    /// Seq of the task that was to be read next at the last heartbeat.
    read: Seq,
    /// Whether the input says that it has given all earlier tasks.
    is_caught_up: bool,
}

/// State of a task that was not read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ahead {
    /// A worker holds the task.
    Out,
    /// The sink has that worker's result.
    Received,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The sink has not reported its job yet.
    Asking,
    /// The input is read up to the last task that the earlier ventilator can have dispatched.
    Reading,
    /// All is read; the next hello of the sink counts.
    AskingAgain,
    /// The job runs.
    Going,
}

impl Resume {
    pub(super) fn new(first: Seq, is_own: bool) -> Self {
        Self {
            phase: Phase::Asking,
            is_own,
            known: SeqSet::new(),
            known_end: Seq(0),
            sink_end: Seq(0),
            verified: Seq(0),
            unverified: VecDeque::new(),
            sent: 0,
            ahead: BTreeMap::new(),
            read: first,
            is_caught_up: false,
        }
    }

    fn learn(&mut self, stored: &SeqRanges, again: &SeqRanges) {
        self.known = stored.to_set();
        self.known_end = self.known_end.max(stored.end()).max(again.end());
    }

    /// Returns whether the sink had this task's record before the task was read.
    pub(super) fn is_known(&self, seq: Seq) -> bool {
        self.known.contains(seq)
    }

    /// Returns whether the sink has compared all tasks that were read and need it.
    pub(super) fn is_all_verified(&self) -> bool {
        self.unverified.is_empty()
    }

    /// Returns the part below a seq that needs no more comparing, by its end. All tasks below it were read.
    pub(super) fn compared(&self, below: Seq) -> Seq {
        self.unverified.front().map_or(below, |(seq, _)| below.min(*seq))
    }

    /// Returns the number of tasks that may be read before the sink has compared more.
    pub(super) fn room(&self) -> u64 {
        let unverified = self.unverified.len() as u64;
        (UNSETTLED_TASKS_MAX + READ_AHEAD_TASKS_MAX).saturating_sub(unverified)
    }
}

/// Returns the places of a range of tasks, at all workers.
fn ahead_of(range: SeqRange) -> std::ops::Range<(Seq, SessionId)> {
    (range.start, SessionId(0))..(range.end, SessionId(0))
}

impl Dispatcher {
    /// Returns whether the state of the job is not known yet.
    #[must_use]
    pub fn is_resuming(&self) -> bool {
        self.source.resume().is_some_and(|resume| resume.phase != Phase::Going)
    }

    /// Returns whether another ventilator began the job.
    pub(super) fn is_resumed(&self) -> bool {
        self.source.resume().is_some()
    }

    /// Returns whether the sink has not reported its job yet.
    pub(super) fn is_asking(&self) -> bool {
        self.source.resume().is_some_and(|resume| resume.phase == Phase::Asking)
    }

    /// Returns whether the sink's hello does not count yet.
    pub(super) fn is_reading_again(&self) -> bool {
        let phase = self.source.resume().map(|resume| resume.phase);
        matches!(phase, Some(Phase::Asking | Phase::Reading))
    }

    /// Notes that a worker holds these tasks, some of which may not have been read yet.
    pub(super) fn hold_ahead(&mut self, session: SessionId, held: &SeqSet) {
        let end = self.ledger.end();
        let Some(resume) = self.source.resume_mut() else { return };
        resume.ahead.retain(|(_, holder), state| *holder != session || *state == Ahead::Received);
        // Fewer were ever out at a time.
        let room = (UNSETTLED_TASKS_MAX as usize).saturating_sub(resume.ahead.len());
        for seq in held.iter().skip_while(|seq| *seq < end).take(room) {
            resume.ahead.entry((seq, session)).or_insert(Ahead::Out);
        }
    }

    /// Notes that the sink has results of tasks that were not read yet.
    pub(super) fn receive_ahead(&mut self, session: SessionId, ranges: &SeqRanges) {
        let Some(resume) = self.source.resume_mut() else { return };
        for range in ranges.as_slice() {
            let of_any = resume.ahead.range_mut(ahead_of(*range));
            for (_, state) in of_any.filter(|((_, holder), _)| *holder == session) {
                *state = Ahead::Received;
            }
        }
    }

    /// Takes back results, of tasks that were not read yet, that only an old sink had in memory:
    /// workers that are here retain theirs.
    pub(super) fn forget_received_ahead(&mut self) {
        let Some(resume) = self.source.resume_mut() else { return };
        resume.ahead.retain(|(_, holder), state| {
            *state = Ahead::Out;
            self.roster.contains(*holder)
        });
    }

    /// Notes that a worker no longer holds these tasks, which were not read yet.
    pub(super) fn release_ahead(&mut self, session: SessionId, ranges: &SeqRanges) {
        let Some(resume) = self.source.resume_mut().filter(|resume| !resume.ahead.is_empty())
        else {
            return;
        };
        for range in ranges.as_slice() {
            let of_any = resume.ahead.range(ahead_of(*range));
            let its = of_any
                .filter(|((_, holder), state)| *holder == session && **state != Ahead::Received);
            for place in its.map(|(place, _)| *place).collect::<Vec<_>>() {
                resume.ahead.remove(&place);
            }
        }
    }

    /// Notes that a worker no longer holds any task that was not read yet.
    pub(super) fn release_all_ahead(&mut self, session: SessionId) {
        if let Some(resume) = self.source.resume_mut() {
            let is_kept = |holder, state| holder != session || state == Ahead::Received;
            resume.ahead.retain(|(_, holder), state| is_kept(*holder, *state));
        }
    }

    /// Assigns a task that was just read to the workers that have held it all the time.
    pub(super) fn adopt_ahead(&mut self, seq: Seq) {
        let Some(resume) = self.source.resume_mut() else { return };
        let of_it = (seq, SessionId(0))..=(seq, SessionId(u64::MAX));
        let holders: Vec<(SessionId, Ahead)> =
            resume.ahead.range(of_it).map(|((_, holder), state)| (*holder, *state)).collect();
        for (session, state) in holders {
            resume.ahead.remove(&(seq, session));
            let is_first = self.ledger.get(seq).is_some_and(|entry| entry.attempt() == Attempt(0));
            if state == Ahead::Received {
                self.ledger.receive(&mut self.roster, SeqRange::one(seq), session);
                self.ledger.note_attempt(seq, Attempt::FIRST);
                continue;
            }
            let Some(worker) = self.roster.get_mut(session) else { continue };
            worker.out.insert(seq);
            self.roll.is_doubled = true;
            if is_first {
                self.ledger.hold(&mut self.roster, seq, session);
            }
        }
    }

    /// Returns whether even tasks that were never dispatched wait for the roll call, since a worker
    /// may hold them.
    pub(super) fn is_fresh_held(&self) -> bool {
        self.source.may_be_held() && self.roll.call.is_some()
    }

    /// Returns whether the record of a task that was just read is stored already.
    pub(super) fn read_again(&mut self, seq: Seq, hash: impl FnOnce() -> TaskHash) -> bool {
        let Some(resume) = self.source.resume_mut() else { return false };
        if seq < resume.known_end {
            resume.unverified.push_back((seq, hash()));
        }
        resume.is_known(seq)
    }

    /// Ends the reading of an input once there is no room for more.
    pub(super) fn end_full_reading(&mut self) {
        if self.is_reading_again() && self.input_room() == 0 {
            self.end_reading(false);
        }
    }

    /// Takes in tasks whose records are stored already, as the sink knows too, and which are not read. They take
    /// as long as one.
    ///
    /// A sink that lacks one of these records has another output than the job began with: the job is refused.
    pub fn handle_recorded(&mut self, count: u64) {
        if self.source.total.is_some() {
            return;
        }
        let start = self.ledger.end();
        let range = SeqRange { start, end: Seq(start.0.saturating_add(count)) };
        self.ledger.take_in_recorded(range.count());
        self.unread_cancels.remove_range(range);
        if let Some(resume) = self.source.resume_mut() {
            // Workers that hold one are told when they have answered the roll call.
            let ahead = resume.ahead.range(ahead_of(range)).map(|(place, _)| *place);
            for place in ahead.collect::<Vec<_>>() {
                resume.ahead.remove(&place);
            }
        }
        self.end_comparison();
    }

    /// Notes stored seqs of tasks that were not read yet.
    pub(super) fn learn_beyond(&mut self, stored: &SeqRanges) {
        let end = self.ledger.end();
        let Some(resume) = self.source.resume_mut() else { return };
        for range in stored.as_slice().iter().filter(|range| range.end > end) {
            let start = range.start.max(end);
            resume.known.insert_range(SeqRange { start, end: range.end });
        }
    }

    /// Handles a hello of the sink before the one that counts.
    pub(super) fn handle_early_hello(&mut self, job: JobId, stored: &SeqRanges, again: &SeqRanges) {
        let Some(resume) = self.source.resume_mut() else { return };
        // The sink is asked by its own job's id from now on: messages for another id are dropped.
        self.config.job = job;
        self.config.start = Start::New;
        if resume.phase == Phase::Asking {
            resume.phase = Phase::Reading;
            resume.learn(stored, again);
        }
        self.compare_again();
        // The close was sent with another id.
        self.send_close();
        self.end_reading(false);
    }

    /// Compares again: messages to the sink, or its answers, may be lost.
    pub(super) fn compare_again(&mut self) {
        if let Some(resume) = self.source.resume_mut() {
            resume.sent = 0;
        }
    }

    /// Notes the seq from which on no task has or had a record, by a hello that counts.
    pub(super) fn handle_sink_end(&mut self, sink_end: Seq) {
        if let Some(resume) = self.source.resume_mut() {
            resume.sink_end = sink_end;
        }
        self.end_comparison();
    }

    /// Tells the sink, once the comparison is over, that none of its records needs one any more. It may wait
    /// for that: a relay that had heard of the resume before it had a sink asked for the job, and the sink has
    /// records that the relay had not heard of. Or all of its records are of tasks that are not in the input any
    /// more.
    fn end_comparison(&mut self) {
        if matches!(self.course.ended, Some(Ended::Refused(_))) {
            return;
        }
        let end = self.ledger.end();
        let Some(resume) = self.source.resume_mut() else { return };
        let is_read = resume.phase == Phase::Going && end >= resume.known_end;
        // Of tasks that were not read no hash was sent.
        if is_read && resume.is_all_verified() && resume.verified < resume.sink_end {
            let (job, from) = (self.config.job, std::mem::take(&mut resume.sink_end));
            self.send_sink(ToSink::Inputs { job, from, hashes: Vec::new().into() });
        }
    }

    pub(super) fn handle_verified(&mut self, below: Seq) {
        let Some(resume) = self.source.resume_mut() else { return };
        while resume.sent > 0
            && let Some((seq, _)) = resume.unverified.front().filter(|(seq, _)| *seq < below)
        {
            resume.verified = seq.next();
            resume.unverified.pop_front();
            resume.sent -= 1;
        }
        self.end_comparison();
        self.end_reading(false);
        self.finish_if_complete();
    }

    /// Returns the next part of the input for the sink to compare.
    pub(super) fn next_inputs(&mut self) -> Option<ToSink> {
        if !self.sink.is_connected {
            return None;
        }
        let resume = self.source.resume_mut()?;
        if resume.phase == Phase::Asking {
            return None;
        }
        let mut unsent = resume.unverified.range(resume.sent..);
        let (from, first) = *unsent.next()?;
        let next = unsent.take(BATCH_TASKS_MAX - 1).zip(from.0 + 1..);
        let next = next.take_while(|((seq, _), in_turn)| seq.0 == *in_turn);
        let hashes: Vec<TaskHash> =
            std::iter::once(first).chain(next.map(|((_, hash), _)| *hash)).collect();
        resume.sent += hashes.len();
        Some(ToSink::Inputs { job: self.config.job, from, hashes: hashes.into() })
    }

    /// Notes that the input has given every task that an earlier ventilator can have dispatched.
    pub fn handle_caught_up(&mut self) {
        if let Some(resume) = self.source.resume_mut() {
            resume.is_caught_up = true;
        }
        self.end_reading(false);
    }

    /// Ends the reading of an input that gives no task for a while: it has given all earlier tasks.
    pub(super) fn end_idle_reading(&mut self) {
        let end = self.ledger.end();
        let Some(resume) = self.source.resume_mut() else { return };
        let is_idle = std::mem::replace(&mut resume.read, end) == end;
        self.end_reading(is_idle);
    }

    /// Asks for the hello that counts once all is read and compared.
    pub(super) fn end_reading(&mut self, is_idle: bool) {
        let is_read = is_idle || self.source.total.is_some() || self.input_room() == 0;
        let read = self.source.total.filter(|_| self.source.end == InputEnd::Whole);
        let Some(resume) = self.source.resume_mut() else { return };
        let is_read = is_read || resume.is_caught_up;
        if let Some(total) = read.filter(|total| *total < resume.known_end.0) {
            self.course.ended.get_or_insert(Ended::Refused(format!(
                "the input is not the one that this job began with: it has {total} {tasks}, and the \
                 output has records up to task {end}; give the same input, or --overwrite without \
                 --resume to start over",
                tasks = if total == 1 { "task" } else { "tasks" },
                end = resume.known_end.0,
            )));
            return;
        }
        if resume.phase == Phase::Reading && is_read && resume.unverified.is_empty() {
            resume.phase = Phase::AskingAgain;
            self.open_job();
        }
    }

    /// Resumes the job with the hello that counts: any task that was read may be held by a worker.
    pub(super) fn resume(&mut self, stored: &SeqRanges) {
        if let Some(resume) = self.source.resume_mut() {
            resume.phase = Phase::Going;
        }
        self.learn_beyond(stored);
        // No ventilator had more than these out.
        let known = self.ledger.live().filter(|(_, entry)| entry.state() != TaskState::GivenUp);
        let fresh =
            |(seq, entry): (Seq, &Entry)| (entry.state() == TaskState::Fresh).then_some(seq);
        let known = known.take(UNSETTLED_TASKS_MAX as usize).filter_map(fresh);
        for seq in known.collect::<Vec<_>>() {
            self.requeue(seq);
        }
    }

    /// Checks that the tasks a worker was given and holds are those of the input.
    pub(super) fn is_input(&mut self, held: &[(Seq, TaskHash)]) -> bool {
        if !self.is_resumed() {
            return true;
        }
        let differs = |(seq, hash): &&(Seq, TaskHash)| {
            let is_kept = |state| !matches!(state, TaskState::Settled | TaskState::GivenUp);
            let entry = self.ledger.get(*seq).filter(|entry| is_kept(entry.state()));
            entry.is_some_and(|entry| entry.hash() != *hash)
        };
        let Some((seq, _)) = held.iter().find(differs) else { return true };
        // The job can still be resumed with the right input: workers do not hear that it is over.
        self.course.ended = Some(Ended::Refused(changed_input(*seq)));
        false
    }
}

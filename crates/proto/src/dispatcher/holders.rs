//! Holders of tasks: the roll call, news of workers, and the tasks of a lost worker.

use super::course::Stopped;
use super::ledger::TaskState;
use super::marks::Verdict;
use super::worker::Phase;
use super::{Dispatcher, Notice, Timeout, Transmit};
use crate::limits::SLOTS_MAX;
use crate::message::{News, Status, ToSink, ToWorker};
use crate::{LaneId, Seq, SeqRange, SeqRanges, SeqSet, SessionId, Tag, TaskHash, Time};

impl Dispatcher {
    pub(super) fn roll_call(&mut self, session: SessionId) {
        if self.is_resuming() || self.is_job_unknown() {
            // The call names the job's own id, and has to wait until that is known.
            return;
        }
        let Some(worker) = self.roster.get_mut(session) else { return };
        let (lane, call) = (worker.lane, self.roll.take_call());
        worker.phase = Phase::Called;
        if worker.call.replace(call).is_none() {
            worker.overdue.handle_called();
        }
        worker.recall = None;
        let roll_call =
            ToWorker::RollCall { job: self.config.job, call, layout: self.config.layout.clone() };
        self.outbox.transmits.push_back(Transmit::Worker(lane, roll_call));
        if self.is_cancelled() {
            let cancel = ToWorker::Cancel { job: self.config.job };
            self.outbox.transmits.push_back(Transmit::Worker(lane, cancel));
        }
    }

    pub(super) fn handle_news(&mut self, now: Time, session: SessionId, news: News) {
        let Some(worker) = self.roster.get_mut(session) else {
            self.note_gone(now, session, &news);
            return;
        };
        if news == News::Gone {
            worker.cut = Some(now);
            return;
        }
        (worker.heard, worker.cut) = (now, None);
        match news {
            News::Heartbeat { running, queued, slots } => {
                worker.running = running;
                worker.queued = queued;
                worker.has_unproven &= running > 0 || queued > 0;
                if u64::from(slots) != worker.window.slots() {
                    worker.window.set_slots(slots.min(SLOTS_MAX));
                    worker.slots_max = worker.slots_max.max(worker.window.slots());
                }
                // A worker may retain results that another worker's record has settled: it can
                // forget them.
                if worker.announced_below < self.ledger.base() {
                    self.roster.announce_base(session);
                }
                self.note_heartbeat(now, session, u64::from(running) + u64::from(queued));
            }
            News::Holding { job, call, unfinished, finished, hashes, tags } => {
                let mut all = unfinished.to_set();
                finished.as_slice().iter().for_each(|range| all.insert_range(*range));
                // Without a hash and a tag for each task it is no honest worker's answer, and what it
                // costs to look at has no bound.
                let counts = [hashes.0.len() as u64, tags.0.len() as u64];
                if job == self.config.job
                    && counts == [all.count(); 2]
                    && worker.call.take_if(|due| *due == call).is_some()
                {
                    let unfinished = unfinished.to_set();
                    let held = self.proven(session, &all, &hashes.0, &tags.0);
                    let proven = held.iter().filter(|(seq, _)| unfinished.contains(*seq)).count();
                    if let Some(worker) = self.roster.get_mut(session) {
                        worker.has_unproven = proven as u64 != unfinished.count();
                    }
                    if self.is_input(&held) {
                        self.handle_holding(session, held.into_iter().map(|(seq, _)| seq));
                    }
                }
            }
            News::Returned { job, ranges } => {
                if job == self.config.job {
                    self.note_unstartable(session, &ranges);
                    self.handle_returned(session, &ranges);
                }
            }
            News::Recalled { job, call, ranges } => {
                if job == self.config.job {
                    self.handle_recalled(session, call, &ranges);
                }
            }
            News::Reconnected => self.roll_call(session),
            News::Draining { reason } => {
                let is_new = worker.phase != Phase::Draining;
                worker.phase = Phase::Draining;
                // A worker that was told to leave has no reason of its own.
                if is_new && !reason.is_empty() {
                    let worker = worker.name.clone();
                    self.outbox.notices.push_back(Notice::Leaves { worker, reason });
                }
            }
            // All of its other messages wait behind this one.
            News::Alive => {
                if worker.overdue.handle_arriving() {
                    worker.deaf_since = None;
                }
            }
            News::Gone => {}
            News::Goodbye => {
                let lane = worker.lane;
                self.lose(session, false);
                self.outbox.closes.push_back(lane);
            }
        }
    }

    /// Returns the tasks, of those that a worker claims to hold, that it was given, with their hashes.
    /// It may have been given the others by a ventilator whose sink had another key, and gets them again.
    fn proven(
        &self,
        session: SessionId,
        all: &SeqSet,
        hashes: &[TaskHash],
        tags: &[Tag],
    ) -> Vec<(Seq, TaskHash)> {
        let tagger = self.sink.key.tagger(session);
        let claims = all.iter().zip(hashes.iter().zip(tags));
        let proven = claims.filter(|(seq, (hash, tag))| tagger.tag(*seq, **hash) == **tag);
        proven.map(|(seq, (hash, _))| (seq, *hash)).collect()
    }

    /// Handles the answer to a roll call: the worker's list, ascending, replaces the dispatcher's.
    pub(super) fn handle_holding(&mut self, session: SessionId, held: impl Iterator<Item = Seq>) {
        let ranges: SeqRanges = held.collect();
        self.reach(&ranges);
        let mut held = ranges.to_set();
        self.roll.is_doubled |= !held.is_empty();
        self.hold_ahead(session, &held);
        held.remove_range(SeqRange { start: Seq(0), end: self.ledger.base() });
        held.remove_range(SeqRange { start: self.dispatched_end(), end: Seq(u64::MAX) });
        let Some(worker) = self.roster.get_mut(session) else { return };
        worker.window.handle_reset();
        worker.deaf_since = None;
        let owed = worker.overdue.handle_held(&held);
        // One that was sent after the call is answered after it.
        let owed = owed.filter(|_| worker.recall.is_none());
        let out = std::mem::replace(&mut worker.out, held.clone());
        if worker.phase == Phase::Called {
            worker.phase = Phase::Ready;
        }
        for seq in out.iter().filter(|seq| !held.contains(*seq)) {
            self.take_back(session, seq);
        }
        for seq in held.iter() {
            // Include tasks that it was known to hold: another worker's result may have reached the
            // old sink first and been lost with it.
            self.adopt(session, seq);
            self.ledger.doubt_attempt(seq, session);
        }
        // The worker may retain results that are settled below the base, and settled seqs above it
        // were announced on a lane that may have died with them, as may have the cancel of a task.
        let is_unneeded = |seq: &Seq| match self.ledger.state(*seq) {
            Some(TaskState::Settled) => true,
            Some(TaskState::GivenUp) => self.ledger.is_cancelled(*seq),
            _ => false,
        };
        let unneeded: Vec<Seq> = held.iter().filter(is_unneeded).collect();
        for seq in unneeded {
            self.roster.announce_settled(session, SeqRange::one(seq));
        }
        self.roster.announce_base(session);
        if let Some(keep) = owed {
            self.send_recall(session, keep);
        }
    }

    /// Asks a worker to hand back all tasks that have not started, but for the first `keep`.
    pub(super) fn send_recall(&mut self, session: SessionId, keep: u64) {
        let call = self.roll.take_call();
        let Some(worker) = self.roster.get_mut(session) else { return };
        worker.recall = Some(call);
        worker.overdue.handle_recall(keep);
        let recall = ToWorker::Recall { job: self.config.job, call, keep };
        self.outbox.transmits.push_back(Transmit::Worker(worker.lane, recall));
    }

    /// Assigns a task to a lost worker that is back and still holds it: no need to run it again.
    pub(super) fn adopt(&mut self, session: SessionId, seq: Seq) {
        if self.is_cancelled() {
            // The worker has just been told to drop everything.
            return;
        }
        // What it has kept for too long is better run elsewhere.
        if self.roster.get(session).is_some_and(|worker| worker.health.is_distrusted) {
            return;
        }
        let Some(state) = self.ledger.state(seq) else { return };
        // A failed task in its backoff is not adopted from the worker at which it failed: that
        // worker has just not heard yet that the failure is known.
        let is_waiting = state == TaskState::Requeued;
        let is_known = !is_waiting && self.has_failed_at(seq, session);
        if is_known || !(state.is_unassigned() || state == TaskState::Absent) {
            return;
        }
        self.ledger.hold(&mut self.roster, seq, session);
        let is_suspect = self.is_suspect(seq);
        if let Some(worker) = self.roster.get_mut(session).filter(|_| is_suspect) {
            worker.suspect = Some(seq);
        }
    }

    /// Notes that tasks handed back by a worker that stays could not run there, and may run
    /// elsewhere.
    fn note_unstartable(&mut self, session: SessionId, ranges: &SeqRanges) {
        let end = self.dispatched_end();
        let Some(worker) = self.roster.get(session) else { return };
        if worker.phase == Phase::Draining {
            return;
        }
        let its = worker.out.parts_of(ranges).into_iter().flat_map(SeqRange::seqs);
        for seq in its.filter(|seq| *seq < end) {
            if self.ledger.is_out_at(seq, session) {
                self.note_failed_at(seq, session);
            }
        }
    }

    pub(super) fn handle_returned(&mut self, session: SessionId, ranges: &SeqRanges) {
        self.release_ahead(session, ranges);
        let end = self.dispatched_end();
        let Some(worker) = self.roster.get_mut(session) else { return };
        worker.window.handle_reset();
        let returned = worker.out.parts_of(ranges);
        // It had them. An answer without any says nothing of those that it was given.
        if !returned.is_empty() {
            worker.deaf_since = None;
        }
        returned.iter().for_each(|range| worker.out.remove_range(*range));
        worker.overdue.handle_left(&worker.out);
        for seq in returned.into_iter().flat_map(SeqRange::seqs).filter(|seq| *seq < end) {
            self.take_back(session, seq);
        }
    }

    /// Takes back the tasks of a worker. A task may have killed it, unless it announced its
    /// leaving.
    pub(super) fn lose(&mut self, session: SessionId, is_blaming: bool) {
        self.release_all_ahead(session);
        let Some(worker) = self.roster.remove(session) else { return };
        self.history.workers_lost += u64::from(is_blaming);
        if let Some(roll) = &mut self.roll.call {
            roll.expected.remove(&session);
        }
        // Tasks start in the order of their seqs: only the first ones can have been running, and
        // only a running task can have brought the worker down.
        let slots = if is_blaming { worker.slots_max as usize } else { 0 };
        let running = worker.out.iter().take(slots);
        let blamed = running.filter(|seq| self.ledger.is_out_at(*seq, session));
        self.blame(session, &worker, blamed.collect());
        for seq in worker.out.iter() {
            self.take_back(session, seq);
        }
        self.learn_sizes();
        self.review_health(self.seen);
    }

    /// Requeues a task that was out.
    pub(super) fn take_back(&mut self, session: SessionId, seq: Seq) {
        if !self.ledger.is_out_at(seq, session) {
            return;
        }
        self.ledger.release(&mut self.roster, seq);
        // Skip if another worker still holds it.
        if !self.reassign(session, seq) && !self.give_up_if_hopeless(seq) {
            self.requeue(seq);
        }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.course.stopped == Some(Stopped::Cancelled)
    }

    /// Gives up an unassigned task that is not to be dispatched again. One that is not here yet is
    /// given up when it comes: its record names its hash.
    pub(super) fn give_up_if_hopeless(&mut self, seq: Seq) -> bool {
        if !self.is_unassigned(seq) {
            return false;
        }
        if self.is_cancelled() {
            self.give_up(seq, Status::Cancelled, "the job was cancelled".to_owned());
            return true;
        }
        let losses_max = self.config.policy.losses_max as usize;
        let mark = self.suspicions.marks.get(&seq);
        if let Some(Verdict::Guilty(losses)) = mark.map(|mark| mark.verdict(losses_max)) {
            let reason =
                format!("its worker was lost {losses} times, at last with nothing beside it");
            self.give_up(seq, Status::Lost, reason);
            return true;
        }
        false
    }

    /// Reassigns a task that was dispatched twice to the other worker that holds it, if there is
    /// one.
    pub(super) fn reassign(&mut self, from: SessionId, seq: Seq) -> bool {
        if !self.roll.is_doubled {
            return false;
        }
        let mut others = self.roster.iter();
        // One that owes results may say that it holds the task, to keep it from the others.
        let other = others.find(|(session, worker)| {
            **session != from && worker.out.contains(seq) && !worker.health.is_distrusted
        });
        let Some(other) = other.map(|(session, _)| *session) else { return false };
        self.ledger.reassign(&mut self.roster, seq, other);
        true
    }

    /// Takes back the results that only the old sink had in memory: each has to come again from the
    /// worker that retains it, or from another one if that worker is gone.
    pub(super) fn forget_received(&mut self) {
        self.halting.unstored = SeqSet::new();
        self.forget_received_ahead();
        for seq in self.ledger.forget_received(&mut self.roster) {
            if !self.give_up_if_hopeless(seq) {
                self.requeue(seq);
            }
        }
    }

    /// Notes that bytes of a message of the sink arrive that is not complete yet.
    pub fn handle_sink_alive(&mut self, now: Time) {
        self.note_sink_alive(now);
    }

    pub(super) fn note_sink_alive(&mut self, now: Time) {
        // Workers are heard through the sink alone: its silence is not theirs.
        if self.sink.is_silent(now) {
            self.roster.values_mut().for_each(|worker| worker.heard = now);
            self.hold_judgement(now);
        }
        self.sink.heard = now;
    }

    /// Announces a timeout that has changed to the workers: the tasks that they run were dispatched
    /// with an older one, or with none. It would hold for all tasks of a worker, so one that has a task with its own
    /// timeout is told later.
    fn announce_limits(&mut self) {
        let limits = self.limits();
        let (old, new) = (self.run_times.told_limit_us, limits.timeout_us);
        let is_fixed = !matches!(self.config.policy.timeout, Some(Timeout::Percent(_)));
        let has_moved = old.is_none_or(|old| new.is_some_and(|new| new.abs_diff(old) > old / 10));
        if is_fixed || new.is_none() {
            return;
        }
        if has_moved {
            self.run_times.told_limit_us = new;
            self.roster.values_mut().for_each(|worker| worker.is_limit_due = true);
        }
        let job = self.config.job;
        for lane in self.roster.lanes().collect::<Vec<_>>() {
            let session = self.roster.session(lane);
            let worker = session.and_then(|session| self.roster.get_mut(session));
            let Some(worker) = worker.filter(|worker| worker.is_limit_due) else { continue };
            if self.ledger.own().timeouts_us(&worker.out).is_empty() {
                worker.is_limit_due = false;
                let told = Transmit::Worker(lane, ToWorker::Limits { job, limits });
                self.outbox.transmits.push_back(told);
            }
        }
    }

    pub(super) fn beat(&mut self, now: Time, before: Time) {
        self.end_idle_reading();
        self.announce_limits();
        let pings = self.roster.lanes().map(|lane| Transmit::Worker(lane, ToWorker::Ping));
        self.outbox.transmits.extend(pings);
        if self.sink.is_open() {
            self.send_sink(ToSink::Ping);
        } else {
            // The hello may have come on a connection that was taken for the older of two.
            self.open_job();
        }
        if !self.sink.is_open() || self.sink.is_silent(now) {
            self.roster.values_mut().for_each(|worker| worker.heard = now);
            self.hold_judgement(now);
            return;
        }
        self.judge(now);
        self.review_overdue(before);
        self.review_health(now);
        self.review_waiting(now);
        let timeout = self.config.policy.worker_timeout;
        let silent: Vec<(SessionId, LaneId)> = self
            .roster
            .iter()
            .filter(|(_, worker)| now.since(worker.heard) > timeout)
            .map(|(session, worker)| (*session, worker.lane))
            .collect();
        for (session, lane) in silent {
            if let Some(worker) = self.roster.get(session) {
                let (worker, out) = (worker.name.clone(), worker.out.count());
                let seconds = timeout.as_secs();
                self.outbox.notices.push_back(Notice::Silent { worker, seconds, out });
            }
            self.lose(session, true);
            self.outbox.closes.push_back(lane);
        }
    }
}

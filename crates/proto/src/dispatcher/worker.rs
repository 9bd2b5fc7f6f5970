//! A worker as the dispatcher knows it.

use std::collections::BTreeMap;

use super::health::Health;
use super::ledger::Charge;
use super::overdue::Overdue;
use super::snapshot::{WorkerSnapshot, WorkerState};
use super::tail::Pace;
use crate::limits::CREDIT_BYTES_MAX;
use crate::message::Card;
use crate::tag::KeptTagger;
use crate::window::Window;
use crate::{CallId, LaneId, Seq, SeqList, SeqSet, SessionId, Time};

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) lane: LaneId,
    pub(super) name: String,
    pub(super) phase: Phase,
    /// Roll call that the worker has not answered. Answers to earlier calls are out of date.
    pub(super) call: Option<CallId>,
    pub(super) window: Window,
    /// Number of tasks that can have been running at once, whatever the number of slots now.
    pub(super) slots_max: u64,
    /// Run time of tasks at this worker.
    pub(super) pace: Pace,
    /// How the tasks of this worker end.
    pub(super) health: Health,
    /// Bytes of the largest message that the worker takes, which bounds its tasks.
    pub(super) message_bytes_max: u64,
    pub(super) payload_bytes_max: u64,
    /// Suspect that the worker was given last.
    pub(super) suspect: Option<Seq>,
    /// The worker is kept for a suspect that is to run alone, or has it.
    pub(super) is_reserved: bool,
    /// The worker has tasks that an earlier ventilator gave to it, or claims so, and has not said since that
    /// it has none: whatever it is given is not alone there.
    pub(super) has_unproven: bool,
    /// Time since which the worker reports fewer tasks than it was given, or does not answer, and
    /// the number of such reports.
    pub(super) deaf_since: Option<(Time, u32)>,
    /// Time of the last heartbeat.
    pub(super) beat: Time,
    /// Time at which its connection to the sink ended, if the worker was not heard since.
    pub(super) cut: Option<Time>,
    /// Tasks that were sent with another timeout than the present one of the job, by that timeout in
    /// microseconds; `u64::MAX` for none. Some may have ended.
    earlier_limits: BTreeMap<u64, SeqSet>,
    /// The job's timeout has changed, and the worker is to be told as soon as it has no task that has its own.
    pub(super) is_limit_due: bool,
    /// Answers and results that the worker owes.
    pub(super) overdue: Overdue,
    /// Recall that the worker has not answered.
    pub(super) recall: Option<CallId>,
    /// Time before which no more tasks are recalled.
    pub(super) recall_min: Time,
    /// Last progress: a result arrived, or a first task was given.
    pub(super) last_progress: Time,
    /// Tasks that the worker was given and whose results the sink has not received from it.
    pub(super) out: SeqSet,
    pub(super) tagger: KeptTagger,
    /// Payload bytes of the tasks for which this worker alone answers.
    pub(super) charge: Charge,
    /// Settled seqs that were not announced to the worker.
    pub(super) settled: SeqList,
    pub(super) announced_below: Seq,
    pub(super) heard: Time,
    /// Time at which the session connected for the first time.
    joined: Time,
    pub(super) running: u32,
    pub(super) queued: u32,
    pub(super) done: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Has not answered the roll call: its results might not arrive.
    Called,
    /// May have tasks.
    Ready,
    /// Takes no more tasks.
    Draining,
}

impl Worker {
    pub(super) fn new(now: Time, lane: LaneId, card: &Card) -> Self {
        Self {
            lane,
            name: card.name.clone(),
            phase: Phase::Called,
            call: None,
            window: Window::new(card.slots),
            slots_max: u64::from(card.slots.max(1)),
            pace: Pace::default(),
            health: Health::new(now),
            message_bytes_max: card.message_bytes_max,
            payload_bytes_max: card.largest_payload(),
            suspect: None,
            is_reserved: false,
            has_unproven: false,
            deaf_since: None,
            beat: Time(0),
            cut: None,
            earlier_limits: BTreeMap::new(),
            is_limit_due: false,
            overdue: Overdue::default(),
            recall: None,
            recall_min: now,
            last_progress: now,
            out: SeqSet::new(),
            tagger: KeptTagger::default(),
            charge: Charge::default(),
            settled: SeqList::new(),
            announced_below: Seq(0),
            heard: now,
            joined: now,
            running: 0,
            queued: 0,
            done: 0,
        }
    }

    /// Returns the number of tasks that the worker may hold: its window, and no fewer than are
    /// worth a message. `least`: minimum for a worker whose run time per task is not known yet.
    pub(super) fn window(&self, least: u64) -> u64 {
        self.window.size_or(self.pace.least_worth().unwrap_or(least))
    }

    /// Returns the number of tasks that the worker may still be given, if it may hold `room`.
    pub(super) fn free(&self, room: u64) -> u64 {
        room.saturating_sub(self.out.count())
    }

    /// Returns the payload bytes that the worker may still be given.
    pub(super) fn free_bytes(&self) -> u64 {
        CREDIT_BYTES_MAX.saturating_sub(self.charge.bytes())
    }

    pub(super) fn idle_slots(&self) -> u64 {
        self.window.slots().saturating_sub(self.out.count())
    }

    /// Returns whether the worker should be given tasks now, if it may hold `room`.
    ///
    /// With all slots busy there is no hurry: the worker waits until an eighth of its window is
    /// free, or batches would become as small as the receipts that freed them.
    pub(super) fn is_hungry(&self, room: u64) -> bool {
        let free = self.free(room);
        let is_worthwhile = self.idle_slots() > 0 || free * 8 >= room;
        self.can_start() && free > 0 && self.free_bytes() > 0 && is_worthwhile
    }

    /// Returns whether the worker may have tasks and uses a slot to run them in.
    pub(super) fn is_usable(&self) -> bool {
        self.phase == Phase::Ready && self.window.slots() > 0 && !self.health.is_aside
    }

    /// Returns whether the worker is usable and not kept for a suspect.
    pub(super) fn can_start(&self) -> bool {
        self.is_usable() && !self.is_reserved
    }

    /// Returns whether a task of this size fits into a message to the worker.
    pub(super) fn fits(&self, bytes: u64) -> bool {
        bytes <= self.payload_bytes_max
    }

    /// Notes the timeout, in microseconds, of all tasks that are out and of which none is noted: those that follow
    /// may have another one. `own`: those that have their own.
    pub(super) fn note_limit(&mut self, limit_us: Option<u64>, own: &[(Seq, u64)]) {
        let mut unnoted = self.out.clone();
        own.iter().for_each(|(seq, _)| _ = unnoted.remove(*seq));
        self.earlier_limits.retain(|_, seqs| {
            *seqs = SeqSet::of(&seqs.parts_of(&self.out.to_ranges()).into_iter().collect());
            seqs.to_ranges().as_slice().iter().for_each(|range| unnoted.remove_range(*range));
            !seqs.is_empty()
        });
        let noted = self.earlier_limits.entry(limit_us.unwrap_or(u64::MAX)).or_default();
        unnoted.to_ranges().as_slice().iter().for_each(|range| noted.insert_range(*range));
    }

    /// Returns the longest timeout, in microseconds, of the tasks that are out, where the job has this one; `None` if
    /// a task may take any time. `own`: those that have their own, with it.
    pub(super) fn longest_timeout_us(
        &self,
        job_us: Option<u64>,
        own: &[(Seq, u64)],
    ) -> Option<u64> {
        let longest_own = own.iter().map(|(_, us)| *us).max();
        let longest = if own.len() as u64 == self.out.count() {
            longest_own?
        } else {
            // A worker that was not told of the job's timeout may have tasks that were sent with none.
            let job_us = job_us.filter(|_| !self.is_limit_due)?;
            job_us.max(self.longest_earlier_limit()).max(longest_own.unwrap_or(0))
        };
        (longest < u64::MAX).then_some(longest)
    }

    /// Returns the longest timeout, in microseconds, of a task that is out and may have been sent with another one
    /// than the job's; `u64::MAX` for none.
    fn longest_earlier_limit(&self) -> u64 {
        let mut limits = self.earlier_limits.iter().rev();
        let is_out = |seqs: &SeqSet| !self.out.parts_of(&seqs.to_ranges()).is_empty();
        limits.find(|(_, seqs)| is_out(seqs)).map_or(0, |(limit_us, _)| *limit_us)
    }

    /// Returns the number of tasks per slot.
    pub(super) fn load(&self) -> f64 {
        self.out.count() as f64 / self.window.slots() as f64
    }

    /// Returns its state. `factor`: the run time of its tasks as a multiple of that at the others, where that is
    /// known; `held_until`: until when it gets no task because it is slow.
    pub(super) fn snapshot(
        &self,
        session: SessionId,
        factor: Option<f64>,
        is_slow: bool,
        held_until: Option<Time>,
    ) -> WorkerSnapshot {
        let (failed, failed_in_row) = self.health.failures();
        let state = match (self.phase, self.health.aside(), held_until) {
            (Phase::Called, ..) => WorkerState::Called,
            (Phase::Draining, ..) => WorkerState::Draining,
            (Phase::Ready, Some((why, probe_at)), _) => WorkerState::SetAside { why, probe_at },
            (Phase::Ready, None, _) if self.is_reserved => {
                WorkerState::Reserved { suspect: self.suspect }
            }
            (Phase::Ready, None, Some(until)) => WorkerState::HeldBack { until },
            (Phase::Ready, None, None) => WorkerState::Ready,
        };
        WorkerSnapshot {
            session,
            name: self.name.clone(),
            slots: self.window.slots(),
            window: self.window.size(),
            out: self.out.count(),
            out_bytes: self.charge.bytes(),
            running: self.running,
            queued: self.queued,
            done: self.done,
            rate: self.window.rate(),
            is_ready: self.phase == Phase::Ready,
            state,
            heard: self.heard,
            joined: self.joined,
            first: self.out.first(),
            failed,
            failed_in_row,
            usual: self.pace.usual(),
            factor,
            is_slow,
        }
    }
}

//! Workers that are heard, and owe an answer or a result for too long.
//!
//! A worker is asked to hand tasks back, or which tasks it holds, and answers at once; a task that has a
//! timeout ends. One that sends heartbeats and does neither holds its tasks for as long as it likes, or
//! has a hidden fault. It is lost: its lane is closed and its tasks go elsewhere.
//!
//! Time is counted in heartbeats of the ventilator between which the worker was heard, so that the
//! silence of a worker, of the sink, or of this process is never taken for it.

use std::time::Duration;

use super::Dispatcher;
use super::health::Notice;
use super::worker::Worker;
use crate::limits::{ANSWER_MAX, ARRIVING_BEATS_MAX, HEARTBEAT_INTERVAL, HELD_BYTES_MAX};
use crate::{Seq, SeqSet, SessionId, Time};

/// Answers and results that a worker owes, and the number of heartbeats since it does.
#[derive(Debug, Default)]
pub(super) struct Overdue {
    /// Heartbeats since it was asked something that it has not answered.
    unanswered: u32,
    /// Recall that it has not answered, by the number of tasks that it may keep.
    recall: Option<u64>,
    /// Tasks that it has shown to hold by its last answer to a roll call: they have reached it.
    shown: SeqSet,
    /// Its first task by seq, which it runs or starts next.
    first: Option<First>,
    /// Bytes of a message of the worker have arrived since the last heartbeat: it may be the answer.
    is_arriving: bool,
    /// Heartbeats in which only such bytes have come.
    arriving: u32,
}

/// The first task of a worker by seq.
#[derive(Clone, Copy, Debug)]
struct First {
    seq: Seq,
    /// Heartbeats since it is the first.
    beats: u32,
    /// Longest timeout of a task that the worker has had since then.
    timeout: Duration,
}

impl Overdue {
    /// Notes that the roll is called.
    pub(super) fn handle_called(&mut self) {
        if self.recall.is_none() {
            self.unanswered = 0;
        }
    }

    /// Notes a recall that leaves the worker this number of tasks.
    pub(super) fn handle_recall(&mut self, keep: u64) {
        if self.recall.replace(keep).is_none() {
            self.unanswered = 0;
        }
    }

    /// Notes that the worker has answered a recall.
    pub(super) fn handle_recalled(&mut self) {
        (self.recall, self.unanswered) = (None, 0);
    }

    /// Notes that the worker has answered a roll call with the tasks that it holds. Returns the recall
    /// that it still owes: its answer may have been lost before the roll was called.
    pub(super) fn handle_held(&mut self, held: &SeqSet) -> Option<u64> {
        self.shown = held.clone();
        if self.recall.is_none() {
            self.unanswered = 0;
        }
        self.recall
    }

    /// Notes a result of a task that the worker had. Answers may wait behind results.
    pub(super) fn handle_progress(&mut self) {
        (self.unanswered, self.arriving) = (0, 0);
    }

    /// Notes which tasks are left to the worker. The count of one that comes to it once more is reset.
    pub(super) fn handle_left(&mut self, out: &SeqSet) {
        self.first.take_if(|first| !out.contains(first.seq));
    }

    /// Notes that bytes of a message arrive. Returns whether that excuses the worker: not for ever.
    pub(super) fn handle_arriving(&mut self) -> bool {
        self.is_arriving = self.arriving < ARRIVING_BEATS_MAX;
        self.is_arriving
    }

    /// Counts a heartbeat. Returns for how long the worker owes something, and what, if that is too
    /// long. `timeout`: longest timeout of its tasks; `None` if one of them may take any time.
    fn beat(
        &mut self,
        is_called: bool,
        first: Option<Seq>,
        answer_max: Duration,
        timeout: Option<Duration>,
    ) -> Option<Owed> {
        if std::mem::take(&mut self.is_arriving) {
            self.arriving += 1;
            return None;
        }
        self.unanswered += u32::from(is_called || self.recall.is_some());
        self.first = first.zip(timeout).map(|(seq, timeout)| match self.first {
            Some(First { seq: same, beats, timeout: longest }) if same == seq => {
                First { seq, beats: beats + 1, timeout: longest.max(timeout) }
            }
            _ => First { seq, beats: 0, timeout },
        });
        if HEARTBEAT_INTERVAL * self.unanswered > answer_max {
            return Some(Owed::Answer { seconds: answer_max.as_secs() });
        }
        let First { seq, beats, timeout } = self.first?;
        // All slots may have begun with others before it came, and those may have ended since.
        let most = timeout.saturating_mul(2).saturating_add(answer_max);
        let held = HEARTBEAT_INTERVAL * beats;
        (held > most).then_some(Owed::Result { seq, seconds: held.as_secs() })
    }
}

/// Something that a worker owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    Answer { seconds: u64 },
    Result { seq: Seq, seconds: u64 },
}

impl Dispatcher {
    /// Takes their tasks from workers that have owed something for too long. `before`: time of the
    /// heartbeat before this one.
    pub(super) fn review_overdue(&mut self, before: Time) {
        if self.course.ended.is_some() {
            return;
        }
        let answer_max = self.config.policy.worker_timeout.max(ANSWER_MAX);
        let timeout_us = self.limits().timeout_us;
        // A sink that is full leaves results with their workers, but not the one that it waits for.
        let is_sink_full = self.sink.held_bytes >= HELD_BYTES_MAX;
        let base = self.ledger.base();
        let mut lost = Vec::new();
        for (session, worker) in &mut self.roster {
            // What has not reached it yet is a matter of whether it hears us.
            let has_all = u64::from(worker.running) + u64::from(worker.queued)
                >= worker.out.count()
                || worker.out.is_subset(&worker.overdue.shown);
            if worker.heard < before || !has_all {
                continue;
            }
            let is_called = worker.call.is_some();
            let first = worker
                .out
                .first()
                .filter(|first| worker.window.slots() > 0 && (!is_sink_full || *first == base));
            let own = self.ledger.own().timeouts_us(&worker.out);
            let timeout = worker.longest_timeout_us(timeout_us, &own).map(Duration::from_micros);
            if let Some(owed) = worker.overdue.beat(is_called, first, answer_max, timeout) {
                lost.push((*session, owed));
            }
        }
        for (session, owed) in lost {
            self.lose_overdue(session, owed);
        }
    }

    fn lose_overdue(&mut self, session: SessionId, owed: Owed) {
        let Some(Worker { lane, name, out, .. }) = self.roster.get(session) else { return };
        let (lane, worker, out) = (*lane, name.clone(), out.count());
        self.outbox.notices.push_back(match owed {
            Owed::Answer { seconds } => Notice::NoAnswer { worker, seconds, out },
            Owed::Result { seq, seconds } => Notice::NoResult { worker, seq, seconds, out },
        });
        self.roster.distrust(session);
        self.take_all_elsewhere(session);
        self.outbox.closes.push_back(lane);
    }

    /// Loses a worker whose tasks are better run at others.
    pub(super) fn take_all_elsewhere(&mut self, session: SessionId) {
        let Some(worker) = self.roster.get(session) else { return };
        // The results of some tasks that it holds may have come from other workers.
        let its = worker.out.iter().filter(|seq| self.ledger.is_out_at(*seq, session));
        for seq in its.collect::<Vec<_>>() {
            self.note_failed_at(seq, session);
        }
        self.history.workers_lost += 1;
        self.lose(session, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fails if only the timeouts of the tasks count that are there now: the first one has yet to begin.
    #[test]
    fn the_first_task_may_have_waited_for_one_that_took_longer_and_has_ended() {
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3_600));
        let mut overdue = Overdue::default();
        let mut beat = |timeout| overdue.beat(false, Some(Seq(3)), second, timeout);
        let beats_in = |time: Duration| (time.as_micros() / HEARTBEAT_INTERVAL.as_micros()) as u32;
        for _ in 0..beats_in(hour) {
            assert_eq!(beat(Some(hour)), None);
        }
        for _ in 0..beats_in(hour) {
            assert_eq!(beat(Some(second)), None);
        }
        let owed = (0..4 * beats_in(second)).find_map(|_| beat(Some(second)));
        assert!(matches!(owed, Some(Owed::Result { seq: Seq(3), .. })), "{owed:?}");
    }
}

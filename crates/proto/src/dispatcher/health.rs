//! Sick workers: every task fails on their hosts, but not elsewhere.
//!
//! The failures at a worker are compared with those at the others, by a sequential test of the
//! likelihood ratio (Page's CUSUM): each failure speaks for a sick host, the more so the less the
//! others fail, and each success against it. Once the test is clear enough, and there is a healthy
//! worker besides, the worker is **set aside**: it gets only a probe now and then, after a growing
//! pause: a task that may fail once more. A success brings the worker back.

use std::fmt;
use std::time::Duration;

use super::snapshot::Aside;
use super::worker::{Phase, Worker};
use super::{Dispatcher, Transmit};
use crate::limits::{PROBE_PAUSE_MAX, PROBE_PAUSE_MIN};
use crate::{Seq, SessionId, Time};

/// Ends of the tasks of a worker.
#[derive(Debug)]
pub(super) struct Health {
    /// Number of tasks that ended there, and of those that failed.
    ended: u64,
    failed: u64,
    /// Number of failures since the last message about a success.
    in_row: u64,
    /// Number of recent tasks that ended there, and of those that failed, with fading weight.
    recent_ended: f64,
    recent_failed: f64,
    /// Logarithm of the odds that the worker is sick rather than like the others.
    score: f64,
    /// The worker gets no tasks but probes.
    pub(super) is_aside: bool,
    /// The worker was lost because it owed an answer or a result, and has done nothing well since.
    pub(super) is_distrusted: bool,
    /// Number of probes since the worker was set aside.
    probes: u32,
    probe_at: Time,
    pause: Duration,
}

/// Trust in a worker, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    Doubtful,
    Unknown,
    Well,
}

/// What is known against a worker, the worst first: of several workers the best get the tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Distrusted,
    Sick,
    Well,
}

/// Notice for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A worker fails much more than the others and gets no more tasks.
    SetAside {
        /// Name of the worker.
        worker: String,
        /// Number of tasks that failed there.
        failed: u64,
        /// Number of tasks that ended there.
        ended: u64,
        /// Number of tasks that failed at the other workers.
        others_failed: u64,
        /// Number of tasks that ended at the other workers.
        others_ended: u64,
    },
    /// A worker that was set aside gets tasks again.
    TakenBack {
        /// Name of the worker.
        worker: String,
    },
    /// A worker leaves of its own accord.
    Leaves {
        /// Name of the worker.
        worker: String,
        /// Reason that the worker gives.
        reason: String,
    },
    /// A worker was silent for so long that it is declared lost.
    Silent {
        /// Name of the worker.
        worker: String,
        /// Length of the silence in seconds.
        seconds: u64,
        /// Number of tasks that are reassigned.
        out: u64,
    },
    /// A worker is heard and does not answer the ventilator's question.
    NoAnswer {
        /// Name of the worker.
        worker: String,
        /// Time for which it was waited, in seconds.
        seconds: u64,
        /// Number of tasks that are reassigned.
        out: u64,
    },
    /// A worker is heard and has not finished a task long after the task's timeout.
    NoResult {
        /// Name of the worker.
        worker: String,
        /// The task.
        seq: Seq,
        /// Time for which the task was first at the worker, in seconds.
        seconds: u64,
        /// Number of tasks that are reassigned.
        out: u64,
    },
    /// A worker is heard by way of the sink, but messages do not get through to it.
    Deaf {
        /// Name of the worker.
        worker: String,
        /// Number of tasks that are reassigned.
        out: u64,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetAside { worker, failed, ended, others_failed, others_ended } => write!(
                f,
                "worker {worker} is set aside: {failed} of its {ended} tasks failed, \
                 {others_failed} of the other workers' {others_ended}; look at its host"
            ),
            Self::TakenBack { worker } => {
                write!(f, "worker {worker} gets tasks again after it was set aside")
            }
            Self::Leaves { worker, reason } => write!(f, "worker {worker} leaves: {reason}"),
            Self::Silent { worker, seconds, out } => write!(
                f,
                "nothing was heard of worker {worker} for {seconds} s (--worker-timeout): it is taken \
                 for lost, {out} of its tasks go back"
            ),
            Self::NoAnswer { worker, seconds, out } => write!(
                f,
                "worker {worker} has not answered for {seconds} s which tasks it holds: closing its \
                 connection, {out} tasks go back"
            ),
            Self::NoResult { worker, seq, seconds, out } => write!(
                f,
                "worker {worker} has had task {seq} for {seconds} s, longer than the timeouts of \
                 its tasks let it: closing its connection, {out} tasks go back"
            ),
            Self::Deaf { worker, out } => write!(
                f,
                "worker {worker} is heard and does not hear us: closing its connection, {out} tasks \
                 go back; large packets may not get through to it (MTU)"
            ),
        }
    }
}

/// Logarithm of the odds from which a worker is sick: 1 in 20,000 by chance.
const SCORE_MIN: f64 = 10.0;

/// Highest logarithm of the odds, so that a host that recovers is believed soon.
const SCORE_MAX: f64 = 15.0;

/// Number of failures below which a worker is not sick.
const FAILURES_MIN: u64 = 5;

/// Lowest rate of failures at a sick host.
const SICK_RATE_MIN: f64 = 0.9;

/// Weight of the latest results, in tasks.
const RECENT_TASKS: f64 = 256.0;

/// Number of probes with tasks that have no retry left: each may cost a record.
const LAST_PROBES_MAX: u32 = 3;

impl Health {
    pub(super) fn new(now: Time) -> Self {
        Self {
            ended: 0,
            failed: 0,
            in_row: 0,
            recent_ended: 0.0,
            recent_failed: 0.0,
            score: 0.0,
            is_aside: false,
            is_distrusted: false,
            probes: 0,
            probe_at: now,
            pause: PROBE_PAUSE_MIN,
        }
    }

    /// Returns whether a task has succeeded at the worker.
    pub(super) fn has_done_well(&self) -> bool {
        self.ended > self.failed
    }

    /// Returns the trust in the worker for the last attempt of a task: low, if all tasks have
    /// failed there.
    pub(super) fn trust(&self) -> Trust {
        match (self.has_done_well(), self.failed) {
            (true, _) => Trust::Well,
            (false, 0) => Trust::Unknown,
            (false, _) => Trust::Doubtful,
        }
    }

    /// Returns whether more tasks have succeeded than failed at the worker.
    pub(super) fn is_proven(&self) -> bool {
        self.ended > 2 * self.failed
    }

    /// Returns the number of tasks that failed at the worker, and that of its failures since the last message
    /// about a success.
    pub(super) fn failures(&self) -> (u64, u64) {
        (self.failed, self.in_row)
    }

    /// Returns why the worker gets no tasks but probes, and when the next one is due.
    pub(super) fn aside(&self) -> Option<(Aside, Time)> {
        let Self { ended, failed, .. } = *self;
        let why = if self.is_distrusted { Aside::Owed } else { Aside::Failures { failed, ended } };
        self.is_aside.then_some((why, self.probe_at))
    }

    fn is_sick(&self) -> bool {
        self.score >= SCORE_MIN && self.failed >= FAILURES_MIN
    }

    fn standing(&self, failures_max: Option<u64>) -> Standing {
        if self.is_distrusted {
            Standing::Distrusted
        } else if self.is_sick() || self.is_over(failures_max) {
            Standing::Sick
        } else {
            Standing::Well
        }
    }

    fn is_over(&self, failures_max: Option<u64>) -> bool {
        failures_max.is_some_and(|most| self.failed >= most)
    }

    /// Adds tasks that succeeded, without a comparison with other workers.
    fn add_successes(&mut self, ended: u64) {
        if self.score > 0.0 {
            self.add(ended, 0, 0.5);
            return;
        }
        self.ended += ended;
        self.recent_ended += ended as f64;
        self.fade();
    }

    /// Fades old results.
    fn fade(&mut self) {
        if self.recent_ended > RECENT_TASKS {
            self.recent_failed *= RECENT_TASKS / self.recent_ended;
            self.recent_ended = RECENT_TASKS;
        }
    }

    /// Adds `ended` tasks, of which `failed` failed, while tasks at the others fail at `rate`.
    fn add(&mut self, ended: u64, failed: u64, rate: f64) {
        self.ended += ended;
        self.failed += failed;
        self.recent_ended += ended as f64;
        self.recent_failed += failed as f64;
        self.fade();
        let sick_rate = SICK_RATE_MIN.max((1.0 + rate) / 2.0);
        let of_success = ((1.0 - sick_rate) / (1.0 - rate)).ln();
        let of_failure = (sick_rate / rate).ln();
        self.score = (self.score + (ended - failed) as f64 * of_success).max(0.0);
        self.score = (self.score + failed as f64 * of_failure).min(SCORE_MAX);
    }

    fn set_aside(&mut self, now: Time) {
        self.is_aside = true;
        self.probes = 0;
        self.probe_at = now + self.pause;
    }

    fn take_back(&mut self) {
        (self.is_aside, self.is_distrusted, self.score) = (false, false, 0.0);
    }

    fn handle_probe(&mut self, now: Time) {
        self.probes += 1;
        self.pause = (2 * self.pause).min(PROBE_PAUSE_MAX);
        self.probe_at = now + self.pause;
    }
}

/// Returns the rate of failures at other workers: of all their tasks, or the mean over the workers,
/// if that is lower. A sick worker ends many more tasks than a healthy one, and would hide the next
/// sick one behind its failures; a worker that was set aside shows nothing about tasks any more.
fn others_rate<'a>(others: impl Iterator<Item = &'a Health>) -> f64 {
    let rate = |failed: f64, ended: f64| (failed + 0.5) / (ended + 1.0);
    let (mut failed, mut ended, mut rates, mut workers) = (0.0, 0.0, 0.0, 0.0);
    for other in others.filter(|other| !other.is_aside && other.recent_ended > 0.0) {
        failed += other.recent_failed;
        ended += other.recent_ended;
        rates += rate(other.recent_failed, other.recent_ended);
        workers += 1.0;
    }
    let of_all = rate(failed, ended);
    let of_workers = if workers > 0.0 { rates / workers } else { of_all };
    of_all.min(of_workers).clamp(0.01, 0.98)
}

impl Dispatcher {
    /// Notes that `ended` tasks ended at this worker, of which `failed` failed.
    pub(super) fn note_ends(&mut self, now: Time, session: SessionId, ended: u64, failed: u64) {
        if let Some(worker) = self.roster.get_mut(session) {
            let health = &mut worker.health;
            health.in_row = if failed == ended { health.in_row + failed } else { 0 };
        }
        if failed == 0 {
            // As nearly always.
            let Some(worker) = self.roster.get_mut(session) else { return };
            let was_aside = worker.health.is_aside;
            worker.health.add_successes(ended);
            if (was_aside || worker.health.is_distrusted)
                && !worker.health.is_over(self.config.policy.worker_failures_max)
            {
                worker.health.take_back();
                let worker = worker.name.clone();
                self.roster.trust(session);
                if was_aside {
                    self.outbox.notices.push_back(Notice::TakenBack { worker });
                }
            }
            return;
        }
        let others = self.roster.iter().filter(|(other, _)| **other != session);
        let rate = others_rate(others.map(|(_, worker)| &worker.health));
        if let Some(worker) = self.roster.get_mut(session) {
            worker.health.add(ended, failed, rate);
            self.review_health(now);
        }
    }

    /// Sets aside sick workers while one is there that is well, and distrusted ones while there is any other:
    /// a worker at which tasks fail ends them, one that owes results may keep them for ever.
    pub(super) fn review_health(&mut self, now: Time) {
        let failures_max = self.config.policy.worker_failures_max;
        let standing = |worker: &Worker| worker.health.standing(failures_max);
        let can_take = |worker: &&Worker| worker.phase == Phase::Ready && worker.window.slots() > 0;
        let best = self.roster.values().filter(can_take).map(standing).max();
        let (mut all_ended, mut all_failed) = (0, 0);
        for worker in self.roster.values() {
            all_ended += worker.health.ended;
            all_failed += worker.health.failed;
        }
        let mut aside = Vec::new();
        for (session, worker) in &mut self.roster {
            if best.is_none_or(|best| standing(worker) >= best) {
                worker.health.is_aside = false;
            } else if !worker.health.is_aside {
                worker.health.set_aside(now);
                aside.push(*session);
                let Worker { name, health, .. } = &*worker;
                if health.is_distrusted {
                    // It was said why when it was lost.
                    continue;
                }
                self.outbox.notices.push_back(Notice::SetAside {
                    worker: name.clone(),
                    failed: health.failed,
                    ended: health.ended,
                    others_failed: all_failed - health.failed,
                    others_ended: all_ended - health.ended,
                });
            }
        }
        self.roster.has_aside = self.roster.values().any(|worker| worker.health.is_aside);
        for session in aside {
            self.recall_all(session);
        }
    }

    /// Asks a worker to hand back all tasks that have not started.
    pub(super) fn recall_all(&mut self, session: SessionId) {
        let Some(worker) = self.roster.get(session) else { return };
        if worker.recall.is_none() && worker.out.count() > worker.window.slots() {
            self.send_recall(session, 0);
        }
    }

    /// Dispatches a probe to a worker that was set aside, to see whether its host has recovered.
    pub(super) fn dispatch_probe(&mut self, now: Time) -> Option<Transmit> {
        let failures_max = self.config.policy.worker_failures_max;
        let is_due = |worker: &Worker| {
            let health = &worker.health;
            health.is_aside
                && health.probe_at <= now
                && !health.is_over(failures_max)
                && worker.phase == Phase::Ready
                && worker.window.slots() > 0
                && worker.out.is_empty()
        };
        let (session, worker) = self.roster.iter().find(|(_, worker)| is_due(worker))?;
        let (session, is_first) = (*session, worker.health.probes < LAST_PROBES_MAX);
        let elsewhere = self.ledger.waiting().elsewhere.keys().copied().take(super::SCAN_MAX);
        let retry = elsewhere
            .filter(|seq| !self.has_failed_at(*seq, session))
            .find(|seq| self.has_retry(*seq) && self.may_go(*seq));
        let seq = retry.or_else(|| {
            let plain = self.next_to_dispatch()?;
            let is_worth = self.has_retry(plain) || (self.retries(plain) == 0 && is_first);
            (is_worth && !self.has_failed_at(plain, session)).then_some(plain)
        })?;
        self.roster.get_mut(session)?.health.handle_probe(now);
        self.dispatch_seqs(now, session, &[seq])
    }

    /// Returns whether the task may fail once more without that being its record.
    pub(super) fn has_retry(&self, seq: Seq) -> bool {
        self.ledger.get(seq).is_some_and(|entry| entry.failures() < self.retries(seq))
    }

    /// Returns the number of times that the task is retried.
    fn retries(&self, seq: Seq) -> u32 {
        self.ledger.own().retries(seq).unwrap_or(self.config.policy.retries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Failures in a row after which a worker is sick, where the others fail at this rate.
    fn failures_until_sick(rate: f64) -> u64 {
        let mut health = Health::new(Time(0));
        (1..)
            .find(|_| {
                health.add(1, 1, rate);
                health.is_sick()
            })
            .unwrap_or(u64::MAX)
    }

    #[test]
    fn the_less_the_others_fail_the_sooner_a_worker_is_sick() {
        assert_eq!(failures_until_sick(0.01), FAILURES_MIN);
        assert_eq!(failures_until_sick(0.1), 5);
        assert_eq!(failures_until_sick(0.5), 18, "nothing is known of them");
        assert!(failures_until_sick(0.95) > 300, "a job whose tasks fail");
    }

    #[test]
    fn a_worker_that_fails_as_the_others_do_is_not_sick() {
        for (rate, every) in [(0.5, 2), (0.1, 10), (0.01, 100)] {
            let mut health = Health::new(Time(0));
            for task in 0..10_000 {
                health.add(1, u64::from(task % every == 0), rate);
                assert!(!health.is_sick(), "after {task} tasks at {rate}");
            }
        }
    }

    #[test]
    fn a_worker_that_fails_most_of_its_tasks_is_sick() {
        let mut health = Health::new(Time(0));
        let sick = (1..100).find(|task| {
            health.add(1, u64::from(task % 4 != 0), 0.02);
            health.is_sick()
        });
        assert!(sick.is_some_and(|tasks| tasks < 12), "{sick:?}");
    }
}

//! Choice of workers for special tasks: suspects, tasks that failed elsewhere, and tasks that are
//! too large for some workers.

use super::health::Trust;
use super::worker::{Phase, Worker};
use super::{Dispatcher, SCAN_MAX, Transmit};
use crate::limits::{BATCH_BYTES_MAX, BATCH_TASKS_MAX, ELSEWHERE_WAIT_MAX, LARGE_WAIT_MAX};
use crate::message::Status;
use crate::{Seq, SessionId, Time};

use super::ledger::{Class, Shipment, Waiting};
use super::marks::Elsewhere;

impl Dispatcher {
    pub(super) fn dispatch_special(&mut self, now: Time) -> Option<Transmit> {
        if self.roll.call.is_some() {
            // A worker may hold them.
            return None;
        }
        if self.roster.has_reserved || self.ledger.waiting().is_special() {
            let special = self.dispatch_alone(now);
            let special = special.or_else(|| self.dispatch_beside(now));
            let special = special.or_else(|| self.dispatch_elsewhere(now));
            let special = special.or_else(|| self.dispatch_large(now));
            if special.is_some() {
                return special;
            }
        }
        if self.roster.has_aside { self.dispatch_probe(now) } else { None }
    }

    /// Dispatches a suspect whose next loss would be its last, to a worker that holds no task and
    /// gets no other until this one has ended.
    fn dispatch_alone(&mut self, now: Time) -> Option<Transmit> {
        let seqs = self.ledger.waiting().alone.iter().copied().take(SCAN_MAX);
        let mut seqs = seqs.filter(|seq| self.may_go(*seq));
        let next = seqs.find(|seq| {
            let bytes = self.ledger.payload_bytes(*seq);
            self.roster.values().any(|worker| worker.is_usable() && worker.fits(bytes))
        });
        self.reserve(next);
        let seq = next?;
        let bytes = self.ledger.payload_bytes(seq);
        let is_empty =
            |worker: &Worker| worker.is_usable() && worker.out.is_empty() && !worker.has_unproven;
        let mut reserved = self.roster.iter().filter(|(_, worker)| worker.is_reserved);
        let (session, _) = reserved.find(|(_, worker)| is_empty(worker) && worker.fits(bytes))?;
        let session = *session;
        self.roster.get_mut(session)?.suspect = Some(seq);
        self.dispatch_seqs(now, session, &[seq])
    }

    /// Keeps workers free of other tasks for suspects that are to run alone: those that run one,
    /// and those that will be empty soonest. Not more than half of the workers, unless no other
    /// task waits.
    fn reserve(&mut self, next: Option<Seq>) {
        let is_else = self.ledger.waiting().count() > self.ledger.waiting().alone.len() as u64
            // A task in a worker's queue waits too, and would be requeued from there.
            || self.roster.values().any(|worker| worker.out.count() > worker.window.slots())
            || !self.ledger.waiting().large.is_empty()
            || (self.ledger.fresh_room() > 0 && !self.is_fresh_held());
        let bytes = next.map_or(0, |seq| self.ledger.payload_bytes(seq));
        let waiting = next.map_or(0, |_| self.ledger.waiting().alone.len());
        let mut count = 0;
        let (mut free, mut kept) = (Vec::new(), 0);
        for (session, worker) in &self.roster {
            count += usize::from(worker.is_usable());
            // The suspect that it runs may have been received meanwhile, or be assigned to another
            // worker.
            let is_running = worker.is_reserved && self.has_suspect(*session, worker);
            kept += usize::from(is_running);
            if worker.is_usable() && !is_running && worker.fits(bytes) {
                let place = (worker.has_unproven, worker.out.count());
                free.push((place, !worker.is_reserved, *session));
            }
        }
        free.sort_unstable();
        let most = if is_else { (count / 2).max(1) } else { count };
        let wanted = most.saturating_sub(kept).min(waiting);
        free.truncate(wanted);
        let chosen: Vec<SessionId> = free.into_iter().map(|(_, _, session)| session).collect();
        for (session, worker) in &mut self.roster {
            let suspect = worker.suspect.filter(|_| worker.is_reserved);
            let is_running = suspect.is_some_and(|seq| self.ledger.is_out_at(seq, *session));
            worker.is_reserved = is_running || chosen.contains(session);
        }
        self.roster.has_reserved = kept > 0 || !chosen.is_empty();
        for session in chosen {
            self.recall_all(session);
        }
    }

    /// Dispatches a suspect with losses to spare where no other suspect is; beside another one only
    /// if slots would stay idle otherwise.
    fn dispatch_beside(&mut self, now: Time) -> Option<Transmit> {
        let is_else = self.ledger.waiting().count() > self.ledger.waiting().beside.len() as u64
            || (self.ledger.fresh_room() > 0 && !self.is_fresh_held());
        for seq in self.ledger.waiting().beside.iter().copied().take(SCAN_MAX) {
            if !self.may_go(seq) {
                continue;
            }
            let bytes = self.ledger.payload_bytes(seq);
            let workers = self.hungry().filter(|(session, worker)| {
                worker.fits(bytes) && (!is_else || !self.has_suspect(*session, worker))
            });
            let best = workers.min_by(|(a, worker_a), (b, worker_b)| {
                let order = |session: &SessionId, worker: &Worker| {
                    let is_shared = self.has_suspect(*session, worker);
                    (is_shared, worker.idle_slots() == 0, self.has_failed_at(seq, *session))
                };
                let order = order(a, worker_a).cmp(&order(b, worker_b));
                order.then(worker_a.load().total_cmp(&worker_b.load()))
            });
            let Some((session, _)) = best else { continue };
            self.roster.get_mut(session)?.suspect = Some(seq);
            return self.dispatch_seqs(now, session, &[seq]);
        }
        None
    }

    /// Dispatches a task that failed at some worker to one at which it did not.
    fn dispatch_elsewhere(&mut self, now: Time) -> Option<Transmit> {
        let seqs = self.ledger.waiting().elsewhere.keys().copied();
        self.dispatch_choosy(now, seqs.take(SCAN_MAX).collect())
    }

    /// Dispatches a task that is too large for some workers to another one.
    fn dispatch_large(&mut self, now: Time) -> Option<Transmit> {
        let seqs = self.ledger.waiting().large.keys().copied();
        self.dispatch_choosy(now, seqs.take(SCAN_MAX).collect())
    }

    /// Dispatches the first of these tasks that some worker may have, and those after it that may
    /// go to the same worker.
    fn dispatch_choosy(&mut self, now: Time, seqs: Vec<Seq>) -> Option<Transmit> {
        if seqs.is_empty() || self.hungry().next().is_none() {
            return None;
        }
        let may_have = |seq: Seq, session: SessionId, worker: &Worker| {
            !self.is_better_kept(seq, worker)
                && worker.fits(self.ledger.payload_bytes(seq))
                && (!self.has_failed_at(seq, session) || self.elsewhere(seq) == Elsewhere::Nowhere)
        };
        let mut seqs = seqs.into_iter().filter(|seq| self.may_go(*seq));
        let (first, session) = seqs.find_map(|seq| {
            let workers = self.hungry().filter(|(session, worker)| may_have(seq, *session, worker));
            let best = workers.min_by(|(_, a), (_, b)| a.load().total_cmp(&b.load()));
            best.map(|(session, _)| (seq, session))
        })?;
        let worker = self.roster.get(session)?;
        let free = worker.free(self.room(worker));
        let free = self.out_room().map_or(free, |out| free.min(out.of(worker)));
        let count = (free as usize).min(BATCH_TASKS_MAX);
        let room = worker.free_bytes().min(BATCH_BYTES_MAX as u64);
        let (mut chosen, mut bytes) = (vec![first], self.ledger.payload_bytes(first));
        for seq in seqs {
            bytes += self.ledger.payload_bytes(seq);
            if chosen.len() >= count || bytes > room {
                break;
            }
            if may_have(seq, session, worker) {
                chosen.push(seq);
            }
        }
        self.dispatch_seqs(now, session, &chosen)
    }

    /// Returns whether it is the task's last attempt, and there is a more promising worker at which
    /// it has not failed.
    fn is_better_kept(&self, seq: Seq, worker: &Worker) -> bool {
        let trust = worker.health.trust();
        if self.has_retry(seq) || trust == Trust::Well {
            return false;
        }
        let Some(mark) = self.suspicions.marks.get(&seq).filter(|mark| !mark.failed_at.is_empty())
        else {
            return false;
        };
        let bytes = self.ledger.payload_bytes(seq);
        self.roster.iter().any(|(session, other)| {
            (other.is_usable() || other.phase == Phase::Called)
                && other.health.trust() > trust
                && other.fits(bytes)
                && !mark.failed_at.contains(session)
        })
    }

    /// Returns the workers that should be given tasks now.
    fn hungry(&self) -> impl Iterator<Item = (SessionId, &Worker)> {
        let workers = self.roster.iter().filter(|(_, worker)| worker.is_hungry(self.room(worker)));
        workers.map(|(session, worker)| (*session, worker))
    }

    /// Dispatches the first of these tasks to a worker, and those of the others that have the same timeout.
    pub(super) fn dispatch_seqs(
        &mut self,
        now: Time,
        session: SessionId,
        seqs: &[Seq],
    ) -> Option<Transmit> {
        let was_idle = self.roster.get(session)?.out.is_empty();
        let mut shipment = Shipment::new(now, session, seqs.len());
        let timeout_us = |seq: &Seq| self.ledger.own().timeout_us(*seq);
        let first = seqs.first().and_then(timeout_us);
        let alike: Vec<Seq> = seqs.iter().copied().filter(|seq| timeout_us(seq) == first).collect();
        for seq in &alike {
            self.ledger.dispatch(*seq, self.config.policy.retries, &mut shipment);
        }
        self.send_tasks(now, session, shipment, was_idle)
    }

    /// Updates the size of the largest payload that all workers take.
    pub(super) fn learn_sizes(&mut self) {
        let all = self.roster.values().map(|worker| worker.payload_bytes_max);
        let least = all.min().unwrap_or(u64::MAX);
        if std::mem::replace(&mut self.roster.payload_bytes_min, least) < least {
            // A task that was too large for a worker that is gone may fit those that stay.
            let seqs: Vec<Seq> = self.ledger.waiting().large.keys().copied().collect();
            seqs.into_iter().for_each(|seq| self.requeue(seq));
        }
    }

    /// Checks the tasks that wait for a certain worker again: there may be none.
    pub(super) fn review_waiting(&mut self, now: Time) {
        let waiting: Vec<(Seq, Option<Time>)> =
            self.ledger.waiting().elsewhere.iter().map(|(seq, until)| (*seq, *until)).collect();
        for (seq, until) in waiting {
            let is_due = until.is_some_and(|until| until <= now);
            match self.elsewhere(seq) {
                Elsewhere::Ready | Elsewhere::Joining if is_due => {
                    self.ledger.reclass(seq, Class::Any);
                }
                Elsewhere::Nowhere => self.ledger.reclass(seq, Class::Any),
                Elsewhere::Joining if until.is_none() => {
                    let until = Some(now + ELSEWHERE_WAIT_MAX);
                    self.ledger.reclass(seq, Class::Elsewhere(until));
                }
                Elsewhere::Ready | Elsewhere::Joining => {}
            }
        }
        let usable = self.roster.values().filter(|worker| worker.is_usable());
        let Some(most) = usable.map(|worker| worker.payload_bytes_max).max() else { return };
        let Waiting { beside, alone, .. } = self.ledger.waiting();
        let stuck = beside.iter().chain(alone).copied();
        let stuck: Vec<Seq> = stuck.filter(|seq| self.ledger.payload_bytes(*seq) > most).collect();
        for seq in stuck {
            self.ledger.reclass(seq, Class::Large(now));
        }
        let large: Vec<(Seq, Time)> =
            self.ledger.waiting().large.iter().map(|(s, t)| (*s, *t)).collect();
        for (seq, since) in large {
            let bytes = self.ledger.payload_bytes(seq);
            if bytes <= most {
                self.ledger.reclass(seq, Class::Large(now));
            } else if now.since(since) > LARGE_WAIT_MAX {
                self.give_up(seq, Status::Failed, self.too_large(bytes));
            }
        }
    }

    /// Returns the reason why a task cannot be sent to any worker.
    fn too_large(&self, bytes: u64) -> String {
        let workers = self.roster.values().filter(|worker| worker.is_usable());
        let largest = workers.max_by_key(|worker| worker.message_bytes_max);
        let (name, most) = largest.map_or(("", 0), |it| (it.name.as_str(), it.message_bytes_max));
        let own = self.config.message_bytes_max;
        format!(
            "the task has {bytes} bytes and is too large for every worker: the most that one takes \
             is a message of {most} bytes (worker {name}, --message-max), the limit here is {own}"
        )
    }
}

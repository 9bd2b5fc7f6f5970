//! Workers that are heard and do not hear.
//!
//! A connection may carry what is small and swallow what is large, or everything after it. The worker
//! says by way of the sink what it has, and in that order: with a heartbeat, all results that it sent
//! before are here. So a worker that has less than it was given, for a while, has not been given it.

use super::Dispatcher;
use super::health::Notice;
use crate::limits::{DEAF_BEAT_MAX, DEAF_MIN, HEARTBEAT_INTERVAL};
use crate::{Seq, SessionId, Time};

impl Dispatcher {
    /// A worker says that it has so many tasks. If that is too few, it is asked, and if it does not
    /// answer, its lane is closed: it did not die, and what it was given goes to others.
    pub(super) fn note_heartbeat(&mut self, now: Time, session: SessionId, held: u64) {
        let is_over = self.course.ended.is_some() || self.is_cancelled();
        let Some(worker) = self.roster.get_mut(session) else { return };
        let is_called = worker.call.is_some();
        // Heartbeats that come close together have waited behind a large result: they are old.
        let is_old = now.since(std::mem::replace(&mut worker.beat, now)) < HEARTBEAT_INTERVAL / 2;
        if is_over || is_old || !(is_called || worker.out.count() > held) {
            worker.deaf_since = None;
            return;
        }
        let (since, beats) = worker.deaf_since.get_or_insert((now, 0));
        *beats += 1;
        // A machine that sleeps, again and again, finds each time that long has passed: only what the
        // worker had the time to say counts.
        let silent = now.since(*since).min(DEAF_BEAT_MAX * (*beats - 1));
        if is_called && silent > self.config.policy.worker_timeout {
            self.close_deaf(session);
        } else if !is_called && silent > DEAF_MIN {
            worker.deaf_since = None;
            self.roll_call(session);
        }
    }

    fn close_deaf(&mut self, session: SessionId) {
        let Some(worker) = self.roster.get(session) else { return };
        let (lane, name, out) = (worker.lane, worker.name.clone(), worker.out.count());
        // Of what it holds, others may have had the results.
        let its = worker.out.iter().filter(|seq| self.ledger.is_out_at(*seq, session));
        let seqs: Vec<Seq> = its.collect();
        self.outbox.notices.push_back(Notice::Deaf { worker: name, out });
        for seq in seqs {
            self.note_failed_at(seq, session);
        }
        self.lose(session, false);
        self.outbox.closes.push_back(lane);
    }
}

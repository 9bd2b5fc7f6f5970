//! Deaf workers: heard by the sink, but nothing gets through to them.
//!
//! A connection may carry small messages and swallow large ones, or everything after one. A worker
//! sends heartbeats by way of the sink, in order: when one is here, all earlier results of the
//! worker are. So a worker that reports fewer tasks than it was given, for a while, has not
//! received them.

use super::Dispatcher;
use super::health::Notice;
use crate::limits::{DEAF_BEAT_MAX, DEAF_MIN, HEARTBEAT_INTERVAL};
use crate::{SessionId, Time};

impl Dispatcher {
    /// Handles the number of tasks that a worker reports. If that is too low, the worker gets a
    /// roll call, and if it does not answer, its lane is closed: the worker did not die, and its
    /// tasks are reassigned.
    pub(super) fn note_heartbeat(&mut self, now: Time, session: SessionId, held: u64) {
        let is_over = self.course.ended.is_some() || self.is_cancelled();
        let Some(worker) = self.roster.get_mut(session) else { return };
        let is_called = worker.call.is_some();
        // Heartbeats that come close together have waited behind a large result: they are old.
        let is_old = now.since(std::mem::replace(&mut worker.beat, now)) < HEARTBEAT_INTERVAL / 2;
        if is_over || !(is_called || worker.out.count() > held) {
            worker.deaf_since = None;
            return;
        }
        if is_old {
            return;
        }
        let (since, beats) = worker.deaf_since.get_or_insert((now, 0));
        *beats += 1;
        // A machine that sleeps, again and again, finds each time that long has passed: only the
        // time in which the worker could send counts.
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
        self.outbox.notices.push_back(Notice::Deaf { worker: name, out });
        self.take_all_elsewhere(session);
        self.outbox.closes.push_back(lane);
    }
}

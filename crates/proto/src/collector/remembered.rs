//! Workers that may hold tasks, for the sink that is started after this one.
//!
//! A sink that knows them tells its ventilator whom to wait for. Without them it has to wait for whoever may come.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::WORKER_TIMEOUT;
use crate::{SessionId, Time};

/// Workers that may hold tasks.
#[derive(Debug)]
pub(super) struct Remembered {
    /// Those of the sink before this one, if they are known.
    pub(super) before: Option<BTreeSet<SessionId>>,
    /// Those of this one, with the time since which they are not connected.
    workers: BTreeMap<SessionId, Connection>,
    is_changed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    Stands,
    /// It has ended, after the last time that is known.
    Ended,
    EndedBy(Time),
}

impl Remembered {
    pub(super) fn new(before: Option<Vec<SessionId>>) -> Self {
        let before = before.map(|sessions| sessions.into_iter().collect::<BTreeSet<_>>());
        let absent = before.iter().flatten().map(|session| (*session, Connection::Ended));
        Self { workers: absent.collect(), before, is_changed: false }
    }

    pub(super) fn handle_connected(&mut self, session: SessionId) {
        self.is_changed |= self.workers.insert(session, Connection::Stands).is_none();
    }

    pub(super) fn handle_disconnected(&mut self, session: SessionId) {
        self.workers.entry(session).and_modify(|it| *it = Connection::Ended);
    }

    /// Notes that a worker holds nothing, and leaves.
    pub(super) fn handle_goodbye(&mut self, session: SessionId) {
        self.is_changed |= self.workers.remove(&session).is_some();
    }

    pub(super) fn handle_timeout(&mut self, now: Time) {
        let count = self.workers.len();
        self.workers.retain(|_, connection| match *connection {
            Connection::Stands => true,
            Connection::Ended => {
                *connection = Connection::EndedBy(now);
                true
            }
            // The ventilator has taken its tasks back by then, if there is one.
            Connection::EndedBy(at) => now < at + 2 * WORKER_TIMEOUT,
        });
        self.is_changed |= self.workers.len() != count;
    }

    pub(super) fn poll(&mut self) -> Option<Vec<SessionId>> {
        std::mem::take(&mut self.is_changed).then(|| self.workers.keys().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_worker_is_remembered_until_its_tasks_are_back_or_it_has_said_goodbye() {
        let mut remembered = Remembered::new(None);
        let [a, b, c] = [1, 2, 3].map(SessionId);
        assert_eq!(remembered.poll(), None);
        for session in [a, b, c] {
            remembered.handle_connected(session);
        }
        assert_eq!(remembered.poll(), Some(vec![a, b, c]));
        remembered.handle_connected(a);
        assert_eq!(remembered.poll(), None, "nothing is new");
        remembered.handle_goodbye(b);
        remembered.handle_disconnected(b);
        assert_eq!(remembered.poll(), Some(vec![a, c]));
        remembered.handle_disconnected(c);
        let start = Time(5);
        remembered.handle_timeout(start);
        remembered.handle_timeout(start + (2 * WORKER_TIMEOUT - Duration::from_micros(1)));
        assert_eq!(remembered.poll(), None, "its tasks may be there");
        remembered.handle_timeout(start + 2 * WORKER_TIMEOUT);
        assert_eq!(remembered.poll(), Some(vec![a]));
    }

    #[test]
    fn workers_from_before_that_do_not_come_are_forgotten() {
        let [a, b] = [1, 2].map(SessionId);
        let mut remembered = Remembered::new(Some(vec![a, b]));
        remembered.handle_timeout(Time(0));
        remembered.handle_connected(a);
        assert_eq!(remembered.poll(), None, "the next process knows both already");
        remembered.handle_timeout(Time(0) + 2 * WORKER_TIMEOUT);
        assert_eq!(remembered.poll(), Some(vec![a]));
    }
}

//! The workers: by session, and by the lane that each is on.

use std::collections::{BTreeMap, BTreeSet};

use super::worker::Worker;
use crate::limits::WORKERS_MAX;
use crate::{LaneId, SeqRange, SessionId};

/// The workers that have a lane.
#[derive(Debug)]
pub(super) struct Roster {
    workers: BTreeMap<SessionId, Worker>,
    sessions: BTreeMap<LaneId, SessionId>,
    /// Sessions of workers that were lost because they owed something.
    distrusted: BTreeSet<SessionId>,
    /// Sessions to which settled seqs are to be announced.
    to_settle: Vec<SessionId>,
    /// A worker is kept free of all tasks but a suspect.
    pub(super) has_reserved: bool,
    /// A worker is set aside.
    pub(super) has_aside: bool,
    /// Bytes of the largest payload that all workers take.
    pub(super) payload_bytes_min: u64,
}

impl Default for Roster {
    fn default() -> Self {
        Self {
            workers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            distrusted: BTreeSet::new(),
            to_settle: Vec::new(),
            has_reserved: false,
            has_aside: false,
            payload_bytes_min: u64::MAX,
        }
    }
}

impl Roster {
    pub(super) fn get(&self, session: SessionId) -> Option<&Worker> {
        self.workers.get(&session)
    }

    pub(super) fn get_mut(&mut self, session: SessionId) -> Option<&mut Worker> {
        self.workers.get_mut(&session)
    }

    pub(super) fn contains(&self, session: SessionId) -> bool {
        self.workers.contains_key(&session)
    }

    pub(super) fn len(&self) -> usize {
        self.workers.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    pub(super) fn iter(&self) -> std::collections::btree_map::Iter<'_, SessionId, Worker> {
        self.workers.iter()
    }

    pub(super) fn values(&self) -> std::collections::btree_map::Values<'_, SessionId, Worker> {
        self.workers.values()
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Worker> {
        self.workers.values_mut()
    }

    pub(super) fn sessions(&self) -> Vec<SessionId> {
        self.workers.keys().copied().collect()
    }

    pub(super) fn lanes(&self) -> impl Iterator<Item = LaneId> {
        self.sessions.keys().copied()
    }

    /// Returns the session of the worker on a lane.
    pub(super) fn session(&self, lane: LaneId) -> Option<SessionId> {
        self.sessions.get(&lane).copied()
    }

    pub(super) fn insert(&mut self, session: SessionId, worker: Worker) {
        self.sessions.insert(worker.lane, session);
        self.workers.insert(session, worker);
    }

    /// Moves a worker to another lane; returns the one that it was on.
    pub(super) fn move_to(&mut self, session: SessionId, lane: LaneId) -> Option<LaneId> {
        let worker = self.workers.get_mut(&session)?;
        let old = std::mem::replace(&mut worker.lane, lane);
        self.sessions.remove(&old);
        self.sessions.insert(lane, session);
        Some(old)
    }

    pub(super) fn remove(&mut self, session: SessionId) -> Option<Worker> {
        let worker = self.workers.remove(&session)?;
        self.sessions.remove(&worker.lane);
        Some(worker)
    }

    /// Notes that a worker that comes back gets no tasks but probes, while another one is well.
    pub(super) fn distrust(&mut self, session: SessionId) {
        if self.distrusted.len() == WORKERS_MAX {
            self.distrusted.pop_first();
        }
        self.distrusted.insert(session);
    }

    pub(super) fn is_distrusted(&self, session: SessionId) -> bool {
        self.distrusted.contains(&session)
    }

    /// Notes that a worker has done a task well.
    pub(super) fn trust(&mut self, session: SessionId) {
        self.distrusted.remove(&session);
    }

    /// Notes settled seqs that are to be announced to a worker.
    pub(super) fn announce_settled(&mut self, session: SessionId, range: SeqRange) {
        let Some(worker) = self.workers.get_mut(&session) else { return };
        if worker.settled.is_empty() {
            self.to_settle.push(session);
        }
        worker.settled.push_range(range);
    }

    /// Notes that the lowest unsettled seq is to be announced to a worker.
    pub(super) fn announce_base(&mut self, session: SessionId) {
        if self.workers.get(&session).is_some_and(|worker| worker.settled.is_empty()) {
            self.to_settle.push(session);
        }
    }

    pub(super) fn next_to_settle(&mut self) -> Option<SessionId> {
        self.to_settle.pop()
    }

    pub(super) fn check_invariants(&self) {
        assert_eq!(self.workers.len(), self.sessions.len(), "each worker has a lane");
        for (session, worker) in &self.workers {
            assert_eq!(self.sessions.get(&worker.lane), Some(session), "a worker and its lane");
        }
    }
}

impl<'a> IntoIterator for &'a Roster {
    type Item = (&'a SessionId, &'a Worker);
    type IntoIter = std::collections::btree_map::Iter<'a, SessionId, Worker>;

    fn into_iter(self) -> Self::IntoIter {
        self.workers.iter()
    }
}

impl<'a> IntoIterator for &'a mut Roster {
    type Item = (&'a SessionId, &'a mut Worker);
    type IntoIter = std::collections::btree_map::IterMut<'a, SessionId, Worker>;

    fn into_iter(self) -> Self::IntoIter {
        self.workers.iter_mut()
    }
}

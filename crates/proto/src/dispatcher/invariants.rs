//! Checks that what the dispatcher keeps in several places says the same everywhere.

use std::collections::BTreeMap;

use super::Dispatcher;
use super::entry::State;
use crate::{Seq, SessionId};

impl Dispatcher {
    /// Panics if the machine contradicts itself. Does nothing in a build without debug assertions:
    /// it looks at every task that is kept.
    pub fn check_invariants(&self) {
        if cfg!(debug_assertions) {
            self.check_tasks();
            self.check_waiting();
            self.check_workers();
            self.check_records();
        }
    }

    /// Bytes are those of the payloads, and a worker is charged for what it alone answers for.
    fn check_tasks(&self) {
        assert!(self.base <= self.fresh && self.fresh <= self.end(), "the front is in order");
        let mut out: BTreeMap<SessionId, u64> = BTreeMap::new();
        let (mut retained_bytes, mut unsettled) = (0, 0);
        for (seq, entry) in (self.base.0..).map(Seq).zip(&self.entries) {
            let bytes = entry.payload.len() as u64;
            retained_bytes += bytes;
            unsettled += u64::from(entry.state != State::Settled);
            match entry.state {
                State::Out(session) => *out.entry(session).or_default() += bytes,
                State::Absent => assert!(!entry.is_here, "{seq} is absent and here"),
                State::Queued => assert!(entry.is_here, "{seq} waits and is not here"),
                State::GivenUp | State::Settled => assert_eq!(bytes, 0, "{seq} needs no payload"),
                State::Received(_) => {}
            }
        }
        assert_eq!(self.retained_bytes, retained_bytes, "bytes of all payloads");
        assert_eq!(self.settled + unsettled, self.end().0, "tasks that are settled");
        for (session, worker) in &self.workers {
            let bytes = out.remove(session).unwrap_or_default();
            assert_eq!(worker.out_bytes, bytes, "bytes that {} answers for", worker.name);
        }
        assert!(out.is_empty(), "{out:?} is out at workers that are gone");
    }

    /// A task that waits is in one set, and one that is in a set waits.
    fn check_waiting(&self) {
        let waiting = &self.waiting;
        let sets = [&waiting.any, &waiting.beside, &waiting.alone, &waiting.judged];
        let maps = waiting.elsewhere.keys().chain(waiting.large.keys());
        let mut all: Vec<Seq> = sets.into_iter().flatten().chain(maps).copied().collect();
        all.sort_unstable();
        assert!(all.is_sorted_by(|a, b| a < b), "a task waits in two ways: {all:?}");
        for seq in &all {
            assert_eq!(self.state(*seq), Some(State::Queued), "{seq} waits");
        }
        let is_backing_off = |seq| self.delayed.iter().any(|(_, delayed)| *delayed == seq);
        for (seq, entry) in (self.base.0..).map(Seq).zip(&self.entries) {
            let is_due = seq < self.fresh && self.is_due(seq);
            if entry.state == State::Queued && is_due && all.binary_search(&seq).is_err() {
                assert!(is_backing_off(seq), "{seq} is to be dispatched and waits nowhere");
            }
        }
    }

    fn check_workers(&self) {
        assert_eq!(self.workers.len(), self.sessions.len(), "each worker has a lane");
        for (session, worker) in &self.workers {
            assert_eq!(self.sessions.get(&worker.lane), Some(session), "a worker and its lane");
            let is_due = |seq: Seq| self.is_due(seq) || self.relay.is_none();
            for seq in worker.out.iter() {
                assert!(seq < self.end() && is_due(seq), "{seq} is out at {}", worker.name);
            }
        }
        for (seq, entry) in (self.base.0..).map(Seq).zip(&self.entries) {
            if let State::Out(session) = entry.state {
                let holder = self.workers.get(&session);
                assert!(holder.is_some_and(|worker| worker.out.contains(seq)), "{seq} is out");
            }
        }
    }

    /// What the sink is to write itself, or has from an earlier stage, is what was given up.
    fn check_records(&self) {
        for seq in self.given_up.keys() {
            assert_eq!(self.state(*seq), Some(State::GivenUp), "{seq} was given up");
        }
        let passed = self.relay.as_ref().map_or(0, |relay| relay.check_invariants());
        let entries = self.entries.iter().filter(|entry| entry.state == State::GivenUp);
        assert_eq!(entries.count(), self.given_up.len() + passed, "records without a result");
        for seq in self.marks.keys() {
            assert!(self.base <= *seq, "{seq} has its record, and something against it");
        }
    }
}

//! Checks that what the executor keeps in several places says the same everywhere.

use std::collections::BTreeSet;

use super::Executor;
use crate::Seq;

impl Executor {
    /// Panics if the machine contradicts itself. Does nothing in a build without debug assertions:
    /// it looks at every task and result that is kept.
    pub fn check_invariants(&self) {
        if cfg!(debug_assertions) {
            self.check_slots();
            self.check_work();
        }
    }

    fn check_slots(&self) {
        let free: BTreeSet<u32> = self.free_slots.iter().map(|slot| slot.0).collect();
        assert_eq!(free.len(), self.free_slots.len(), "a slot is free once");
        for (slot, running) in (0..).zip(&self.slots) {
            assert_eq!(running.is_none(), free.contains(&slot), "slot {slot}");
        }
        let prefetched: usize = self.feeds.iter().map(|feed| feed.behind.len()).sum();
        assert_eq!(self.prefetched, prefetched, "tasks that lie behind others");
        for (feed, running) in self.feeds.iter().zip(&self.slots) {
            assert!(feed.behind.is_empty() || running.is_some(), "nothing lies behind nothing");
            let seqs = feed.behind.iter().map(|running| running.seq);
            assert!(seqs.is_sorted_by(|a, b| a < b), "what lies in a slot ascends");
        }
    }

    fn check_work(&self) {
        let queued = self.queue.iter().map(|queued| queued.task.seq);
        self.queue.check_invariants();
        assert_eq!(self.retained.iter().count(), self.retained.count(), "results are counted");
        let Some(job) = &self.job else {
            assert!(self.queue.is_empty() && self.retained.count() == 0, "work of no job");
            return;
        };
        let below = job.below;
        assert!(queued.clone().all(|seq| seq >= below), "a task is queued and settled");
        assert!(self.retained.iter().all(|(seq, _)| seq >= below), "a result is settled");
        let wanted = self.in_slots().filter(|running| !running.is_unwanted());
        let mut seqs: Vec<Seq> = wanted.map(|running| running.seq).chain(queued).collect();
        seqs.sort_unstable();
        assert!(seqs.is_sorted_by(|a, b| a < b), "a task is here twice: {seqs:?}");
    }
}

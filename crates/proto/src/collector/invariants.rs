//! Checks that the places in which the collector keeps the same fact agree.

use super::{Collector, Order};
use crate::SeqSet;

impl Collector {
    /// Panics if the machine contradicts itself. Does nothing in a build without debug assertions:
    /// it looks at every record that is kept.
    pub fn check_invariants(&self) {
        let Some(job) = self.job.as_ref().filter(|_| cfg!(debug_assertions)) else { return };
        let waiting = job.waiting.values().map(|(_, writing)| writing);
        let kept = waiting.chain(job.ready.iter().map(|(_, writing)| writing));
        let kept: Vec<_> = kept.chain(&job.writing).chain(&job.spool.spooling).collect();
        let held_bytes: u64 = kept.iter().map(|writing| writing.held_bytes).sum();
        assert_eq!(job.held_bytes, held_bytes, "bytes of all records that are kept");
        let mut seqs = SeqSet::new();
        for range in kept.iter().flat_map(|writing| writing.seqs.as_slice()) {
            assert!(seqs.is_free(*range), "{range:?} has two records");
            // A record that another relay has forwarded may be stored before it is here again.
            let is_new = self.downstream.is_some() || job.stored.is_free(*range);
            assert!(is_new, "{range:?} is stored, and waits to be");
            seqs.insert_range(*range);
        }
        assert!(job.stored.is_subset(&job.taken), "what is stored was taken");
        assert!(seqs.is_subset(&job.taken), "what is kept was taken");
        let counted = job.counts.total() + job.first.0;
        assert_eq!(counted, job.stored.count(), "each record is counted once");
        if self.downstream.is_none() {
            let count = job.stored.count() + seqs.count();
            assert_eq!(job.taken.count(), count, "what was taken is stored, or waits to be");
        }
        let waiting = job.waiting.values().map(|(_, writing)| writing.held_bytes);
        assert_eq!(job.waiting_bytes, waiting.sum::<u64>(), "bytes of all records that wait");
        let spooling = job.spool.spooling.iter().map(|writing| writing.held_bytes);
        assert_eq!(
            job.spool.spooling_bytes,
            spooling.sum::<u64>(),
            "bytes of what is being spooled"
        );
        assert!(job.spool.seqs.is_subset(&job.stored), "what is spooled is stored");
        for range in job.spool.seqs.to_ranges().as_slice() {
            assert!(job.given.is_free(*range), "{range:?} is in the spool and in the output");
        }
        let due = job.given.first_missing();
        for (first, (records, _)) in &job.waiting {
            assert_eq!(self.config.order, Order::Seq, "nothing else waits for its turn");
            assert_eq!(records.results.first().map(|result| result.seq), Some(*first));
            assert!(*first > due, "{first} waits, and {due} is due");
        }
    }
}

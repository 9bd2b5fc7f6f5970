//! The seqs that the ventilator reports as settled.

use crate::{Seq, SeqRanges, SeqSet};

/// Every seq below one, and some ranges above it.
pub(super) struct Settled<'a> {
    pub(super) below: Seq,
    pub(super) ranges: &'a SeqRanges,
    /// No seq from here on is settled.
    pub(super) end: Seq,
    /// The ranges once more as a set, where there are many: beside a task that takes long each
    /// batch is one.
    set: Option<SeqSet>,
}

/// Number of ranges that are looked through one by one.
const FEW_RANGES: usize = 8;

impl<'a> Settled<'a> {
    pub(super) fn new(below: Seq, ranges: &'a SeqRanges) -> Self {
        let end = ranges.as_slice().iter().map(|range| range.end).fold(below, Seq::max);
        let is_many = ranges.as_slice().len() > FEW_RANGES;
        Self { below, ranges, end, set: is_many.then(|| ranges.to_set()) }
    }

    pub(super) fn contains(&self, seq: Seq) -> bool {
        let is_in_range =
            || self.set.as_ref().map_or_else(|| self.ranges.contains(seq), |set| set.contains(seq));
        seq < self.below || (seq < self.end && is_in_range())
    }
}

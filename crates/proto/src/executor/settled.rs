//! What the ventilator says is settled.

use crate::{Seq, SeqRanges, SeqSet};

/// Everything below a seq, and what lies in some ranges above.
pub(super) struct Settled<'a> {
    pub(super) below: Seq,
    pub(super) ranges: &'a SeqRanges,
    /// Nothing from here on is settled.
    pub(super) end: Seq,
    /// The ranges once more, where there are many: beside a task that takes long each batch is one.
    set: Option<SeqSet>,
}

/// Ranges that are looked through one by one.
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

//! Sets of seqs as ranges: received, stored and held seqs are mostly contiguous.

use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::batch::cautious;
use crate::limits::{BATCH_TASKS_MAX, RANGES_MAX, SEQS_MAX};
use crate::{Seq, SeqSet};

/// The seqs from `start` up to, but without, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeqRange {
    /// The first seq in the range.
    pub start: Seq,
    /// The first seq after the range; never below `start`.
    pub end: Seq,
}

/// Set of seqs as it travels: its ranges, normal.
///
/// Normal ranges ascend, and between two of them at least one seq is missing: each set has one form. A
/// list that is not normal is no message, so that work on one is bounded by the seqs in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeqRanges(Vec<SeqRange>);

/// Seqs in the order in which they are added, until they are [taken](Self::take) as a set.
///
/// Adding the seq that follows the last range extends it: seqs that are added in ascending order give
/// the shortest list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeqList(Vec<SeqRange>);

impl SeqRange {
    /// Returns the range that holds just `seq`.
    #[must_use]
    pub fn one(seq: Seq) -> Self {
        Self { start: seq, end: seq.next() }
    }

    /// Returns the number of seqs in the range.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.end.0 - self.start.0
    }

    /// Returns the seqs, ascending.
    pub fn seqs(self) -> impl Iterator<Item = Seq> {
        (self.start.0..self.end.0).map(Seq)
    }

    /// Returns the part of the range that lies from `start` up to `end`.
    #[must_use]
    pub fn clamped(&self, start: Seq, end: Seq) -> Self {
        let start = self.start.clamp(start, end.max(start));
        Self { start, end: self.end.clamp(start, end.max(start)) }
    }
}

impl SeqRanges {
    /// Creates an empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Returns the set of one range's seqs.
    #[must_use]
    pub fn of(range: SeqRange) -> Self {
        Self(if range.count() > 0 { vec![range] } else { Vec::new() })
    }

    /// Returns the set for quick questions about many seqs, and for changes.
    #[must_use]
    pub fn to_set(&self) -> SeqSet {
        SeqSet::of(self)
    }

    /// Returns whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of seqs.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(SeqRange::count).sum()
    }

    /// Returns the seq from which on no seq is in the set.
    #[must_use]
    pub fn end(&self) -> Seq {
        self.0.last().map_or(Seq(0), |range| range.end)
    }

    /// Returns the ranges, ascending.
    #[must_use]
    pub fn as_slice(&self) -> &[SeqRange] {
        &self.0
    }

    /// Returns all seqs, ascending. Their number may be far beyond memory when a peer made the set:
    /// clamp the ranges before walking them.
    pub fn seqs(&self) -> impl Iterator<Item = Seq> {
        self.0.iter().flat_map(|range| range.seqs())
    }

    /// Returns whether `seq` is in the set.
    #[must_use]
    pub fn contains(&self, seq: Seq) -> bool {
        let place = self.0.partition_point(|range| range.end <= seq);
        self.0.get(place).is_some_and(|range| range.start <= seq)
    }
}

impl SeqList {
    /// Creates an empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a seq.
    pub fn push(&mut self, seq: Seq) {
        self.push_range(SeqRange::one(seq));
    }

    /// Adds all seqs of a range.
    pub fn push_range(&mut self, range: SeqRange) {
        if range.count() == 0 {
            return;
        }
        match self.0.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.0.push(range),
        }
    }

    /// Returns whether no seq was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the ranges, in the order in which they were added.
    #[must_use]
    pub fn as_slice(&self) -> &[SeqRange] {
        &self.0
    }

    /// Returns the set of all seqs that were added, and leaves an empty list.
    #[must_use]
    pub fn take(&mut self) -> SeqRanges {
        let mut ranges = std::mem::take(&mut self.0);
        // As nearly always: they were added in ascending order.
        if !ranges.is_sorted_by(|a, b| a.end < b.start) {
            ranges.sort_unstable_by_key(|range| range.start);
            ranges.dedup_by(|next, last| {
                let is_joined = next.start <= last.end;
                if is_joined {
                    last.end = last.end.max(next.end);
                }
                is_joined
            });
        }
        SeqRanges(ranges)
    }
}

impl FromIterator<Seq> for SeqRanges {
    fn from_iter<I: IntoIterator<Item = Seq>>(seqs: I) -> Self {
        let mut list = SeqList::new();
        seqs.into_iter().for_each(|seq| list.push(seq));
        list.take()
    }
}

impl FromIterator<SeqRange> for SeqRanges {
    fn from_iter<I: IntoIterator<Item = SeqRange>>(ranges: I) -> Self {
        let mut list = SeqList::new();
        ranges.into_iter().for_each(|range| list.push_range(range));
        list.take()
    }
}

/// On the wire a range is its start and its count.
#[derive(Serialize, Deserialize)]
struct WireRange {
    start: u64,
    count: u64,
}

impl Serialize for SeqRanges {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(
            self.0.iter().map(|range| WireRange { start: range.start.0, count: range.count() }),
        )
    }
}

impl<'de> Deserialize<'de> for SeqRanges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ranges;

        impl<'de> Visitor<'de> for Ranges {
            type Value = Vec<SeqRange>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {RANGES_MAX} ranges")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let claimed = list.size_hint().unwrap_or(0);
                if claimed > RANGES_MAX {
                    return Err(A::Error::invalid_length(claimed, &self));
                }
                let mut ranges = Vec::with_capacity(cautious::<SeqRange>(claimed));
                // Nothing lies below seq 0, so that the first range may begin there.
                let mut free = 0;
                while let Some(WireRange { start, count }) = list.next_element()? {
                    let end = start.checked_add(count).filter(|end| *end <= SEQS_MAX);
                    match end {
                        Some(end) if start >= free && count > 0 => {
                            free = end + 1;
                            ranges.push(SeqRange { start: Seq(start), end: Seq(end) });
                        }
                        _ => return Err(A::Error::custom("ranges of seqs are not normal")),
                    }
                }
                Ok(ranges)
            }
        }

        deserializer.deserialize_seq(Ranges).map(Self)
    }
}

/// Reads the seqs of one batch of results.
pub(crate) fn deserialize_batch<'de, D>(deserializer: D) -> Result<SeqRanges, D::Error>
where
    D: Deserializer<'de>,
{
    let ranges = SeqRanges::deserialize(deserializer)?;
    if ranges.0.len() > BATCH_TASKS_MAX || ranges.count() > BATCH_TASKS_MAX as u64 {
        return Err(D::Error::custom("a batch of results has too many seqs"));
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(ranges: &[SeqRange]) -> Vec<(u64, u64)> {
        ranges.iter().map(|range| (range.start.0, range.end.0)).collect()
    }

    #[test]
    fn ascending_seqs_join_into_one_range() {
        let listed = |seqs: &[u64]| {
            let mut list = SeqList::new();
            seqs.iter().copied().map(Seq).for_each(|seq| list.push(seq));
            pairs(list.as_slice())
        };
        assert_eq!(listed(&[3, 4, 5]), [(3, 6)]);
        assert_eq!(listed(&[3, 4, 6]), [(3, 5), (6, 7)]);
        assert_eq!(listed(&[5, 4]), [(5, 6), (4, 5)]);
        assert_eq!(listed(&[]), []);
    }

    // Fails if a list that was not added in order is taken as it is.
    #[test]
    fn a_set_has_one_form_whatever_the_order_of_its_seqs() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut list, mut naive) = (SeqList::new(), std::collections::BTreeSet::new());
            for _ in 0..rng.u64(0..40) {
                let start = rng.u64(0..60);
                let end = start + rng.u64(0..4);
                list.push_range(SeqRange { start: Seq(start), end: Seq(end) });
                naive.extend(start..end);
            }
            let set = list.take();
            assert!(set.seqs().map(|seq| seq.0).eq(naive.iter().copied()), "seed {seed}");
            assert!(set.as_slice().is_sorted_by(|a, b| a.end < b.start), "seed {seed}");
            assert_eq!(set, naive.iter().copied().map(Seq).collect(), "seed {seed}");
            assert_eq!(set.to_set().to_ranges(), set, "seed {seed}");
            for seq in 0..70 {
                assert_eq!(set.contains(Seq(seq)), naive.contains(&seq), "seed {seed}: {seq}");
            }
            assert!(list.is_empty(), "seed {seed}");
        }
    }

    #[test]
    fn clamping_keeps_the_common_part() {
        let clamp = |a, b, c, d| {
            let range = SeqRange { start: Seq(a), end: Seq(b) }.clamped(Seq(c), Seq(d));
            (range.start.0, range.count())
        };
        assert_eq!(clamp(2, 9, 4, 6), (4, 2));
        assert_eq!(clamp(2, 9, 0, 100), (2, 7));
        assert_eq!(clamp(2, 4, 6, 9).1, 0);
        assert_eq!(clamp(10, 20, 6, 9).1, 0);
    }
}

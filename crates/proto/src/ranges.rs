//! Sets of seqs as ranges: received, stored and held seqs are mostly contiguous.

use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::RANGES_MAX;
use crate::{Seq, SeqSet};

/// The seqs from `start` up to, but without, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeqRange {
    /// The first seq in the range.
    pub start: Seq,
    /// The first seq after the range; never below `start`.
    pub end: Seq,
}

/// A list of ranges of seqs, in the order in which they were added.
///
/// Adding the seq that follows the last range extends it. Seqs that are added in ascending order
/// therefore give the shortest list; any other order is allowed and costs a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeqRanges(Vec<SeqRange>);

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

    /// Returns the seqs as a set.
    #[must_use]
    pub fn to_set(&self) -> SeqSet {
        let mut set = SeqSet::new();
        self.0.iter().for_each(|range| set.insert_range(*range));
        set
    }

    /// Returns whether the list is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of seqs that were added.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(SeqRange::count).sum()
    }

    /// Returns the ranges.
    #[must_use]
    pub fn as_slice(&self) -> &[SeqRange] {
        &self.0
    }

    /// Returns the ranges and leaves an empty list.
    #[must_use]
    pub fn take(&mut self) -> Self {
        Self(std::mem::take(&mut self.0))
    }

    /// Returns all seqs, range by range. Their number may be far beyond memory when a peer made the
    /// list: clamp the ranges before walking them.
    pub fn seqs(&self) -> impl Iterator<Item = Seq> {
        self.0.iter().flat_map(|range| range.seqs())
    }

    /// Returns whether `seq` is in one of the ranges.
    #[must_use]
    pub fn contains(&self, seq: Seq) -> bool {
        self.0.iter().any(|range| range.start <= seq && seq < range.end)
    }
}

impl FromIterator<Seq> for SeqRanges {
    fn from_iter<I: IntoIterator<Item = Seq>>(seqs: I) -> Self {
        let mut ranges = Self::new();
        seqs.into_iter().for_each(|seq| ranges.push(seq));
        ranges
    }
}

/// On the wire a range is its start and its count, so that no peer can send one that ends before
/// it begins.
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
        let list: crate::batch::Bounded<WireRange, RANGES_MAX> =
            Deserialize::deserialize(deserializer)?;
        let mut ranges = Self(Vec::with_capacity(list.0.len()));
        for WireRange { start, count } in list.0 {
            let end = start.checked_add(count).ok_or_else(|| {
                serde::de::Error::custom("a range of seqs ends beyond the last seq")
            })?;
            ranges.push_range(SeqRange { start: Seq(start), end: Seq(end) });
        }
        Ok(ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(seqs: &[u64]) -> Vec<(u64, u64)> {
        let list: SeqRanges = seqs.iter().copied().map(Seq).collect();
        list.as_slice().iter().map(|range| (range.start.0, range.end.0)).collect()
    }

    #[test]
    fn ascending_seqs_join_into_one_range() {
        assert_eq!(ranges(&[3, 4, 5]), [(3, 6)]);
        assert_eq!(ranges(&[3, 4, 6]), [(3, 5), (6, 7)]);
        assert_eq!(ranges(&[5, 4]), [(5, 6), (4, 5)]);
        assert_eq!(ranges(&[]), []);
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

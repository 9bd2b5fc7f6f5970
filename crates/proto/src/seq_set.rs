//! A set of seqs that is mostly contiguous.

use std::collections::BTreeMap;

use crate::{Seq, SeqRange, SeqRanges};

/// A set of seqs, kept as disjoint ranges that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeqSet {
    /// End of each range by its start.
    ranges: BTreeMap<u64, u64>,
    count: u64,
}

impl SeqSet {
    /// Creates an empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: BTreeMap::new(), count: 0 }
    }

    /// Creates the set of these seqs.
    #[must_use]
    pub fn of(ranges: &SeqRanges) -> Self {
        let pairs = ranges.as_slice().iter().map(|range| (range.start.0, range.end.0));
        Self { ranges: pairs.collect(), count: ranges.count() }
    }

    /// Returns the number of seqs in the set.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns whether `seq` is in the set.
    #[must_use]
    pub fn contains(&self, seq: Seq) -> bool {
        // Most of who asks ask for a seq in the last range, or behind it.
        if let Some((start, end)) = self.ranges.last_key_value()
            && *start <= seq.0
        {
            return seq.0 < *end;
        }
        self.ranges.range(..=seq.0).next_back().is_some_and(|(_, end)| seq.0 < *end)
    }

    /// Returns whether no seq of a range is in the set.
    #[must_use]
    pub fn is_free(&self, range: SeqRange) -> bool {
        self.ranges.range(..range.end.0).next_back().is_none_or(|(_, end)| *end <= range.start.0)
    }

    /// Returns whether every seq of this set is in the other one.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.first_beyond(other).is_none()
    }

    /// Returns the parts of a range that are in the set, ascending.
    #[must_use]
    pub fn parts(&self, range: SeqRange) -> Vec<SeqRange> {
        let first = self.ranges.range(..=range.start.0).next_back().map_or(0, |(start, _)| *start);
        let around = self.ranges.range(first..range.end.0.max(first));
        let parts = around.map(|(start, end)| SeqRange { start: Seq(*start), end: Seq(*end) });
        let parts = parts.map(|part| part.clamped(range.start, range.end));
        parts.filter(|part| part.count() > 0).collect()
    }

    /// Returns the parts of other seqs that are in the set, ascending. Takes time for the shorter of
    /// the two lists of ranges, and for the parts.
    #[must_use]
    pub fn parts_of(&self, ranges: &SeqRanges) -> Vec<SeqRange> {
        let others = ranges.as_slice();
        if others.len() <= self.ranges.len() {
            return others.iter().flat_map(|range| self.parts(*range)).collect();
        }
        let mut parts = Vec::new();
        for (&start, &end) in &self.ranges {
            let first = others.partition_point(|other| other.end.0 <= start);
            let inside = others[first..].iter().take_while(|other| other.start.0 < end);
            parts.extend(inside.map(|other| other.clamped(Seq(start), Seq(end))));
        }
        parts
    }

    /// Returns the parts of a range that are not in the set, ascending.
    #[must_use]
    pub fn gaps(&self, range: SeqRange) -> Vec<SeqRange> {
        let (mut start, mut gaps) = (range.start.0, Vec::new());
        let before = self.ranges.range(..=start).next_back().map(|(_, end)| *end);
        start = start.max(before.unwrap_or(0));
        for (&other_start, &other_end) in self.ranges.range(start..range.end.0.max(start)) {
            gaps.push(SeqRange { start: Seq(start), end: Seq(other_start) });
            start = other_end;
        }
        if start < range.end.0 {
            gaps.push(SeqRange { start: Seq(start), end: range.end });
        }
        gaps.retain(|gap| gap.count() > 0);
        gaps
    }

    /// Returns the lowest seq of this set that is not in the other one.
    #[must_use]
    pub fn first_beyond(&self, other: &Self) -> Option<Seq> {
        let ranges = self.ranges.iter();
        let mut gaps = ranges.map(|(start, end)| {
            let around = other.ranges.range(..=start).next_back().map(|(_, end)| *end);
            (around.unwrap_or(0).max(*start), *end)
        });
        gaps.find(|(missing, end)| missing < end).map(|(missing, _)| Seq(missing))
    }

    /// Returns the lowest seq of the set.
    #[must_use]
    pub fn first(&self) -> Option<Seq> {
        self.ranges.first_key_value().map(|(start, _)| Seq(*start))
    }

    /// Returns the lowest seq that is not in the set.
    #[must_use]
    pub fn first_missing(&self) -> Seq {
        match self.ranges.first_key_value() {
            Some((0, end)) => Seq(*end),
            _ => Seq(0),
        }
    }

    /// Returns the longest range of the set that begins with a seq, if that is in the set.
    #[must_use]
    pub fn range_from(&self, seq: Seq) -> Option<SeqRange> {
        let (_, end) = self.ranges.range(..=seq.0).next_back()?;
        (seq.0 < *end).then_some(SeqRange { start: seq, end: Seq(*end) })
    }

    /// Returns the seq after the highest one in the set.
    #[must_use]
    pub fn end(&self) -> Seq {
        self.ranges.last_key_value().map_or(Seq(0), |(_, end)| Seq(*end))
    }

    /// Adds a seq; returns false if it was there.
    pub fn insert(&mut self, seq: Seq) -> bool {
        let before = self.count;
        self.insert_range(SeqRange::one(seq));
        self.count > before
    }

    /// Adds all seqs of a range.
    pub fn insert_range(&mut self, range: SeqRange) {
        let (mut start, mut end) = (range.start.0, range.end.0);
        if start >= end {
            return;
        }
        // The next seq in order extends the last range: the common case by far.
        if let Some(mut last) = self.ranges.last_entry()
            && *last.get() == start
        {
            *last.get_mut() = end;
            self.count += end - start;
            return;
        }
        while let Some((&other_start, &other_end)) = self.ranges.range(..=end).next_back()
            && other_end >= start
        {
            self.ranges.remove(&other_start);
            self.count -= other_end - other_start;
            start = start.min(other_start);
            end = end.max(other_end);
        }
        self.ranges.insert(start, end);
        self.count += end - start;
    }

    /// Removes a seq; returns false if it was not there.
    pub fn remove(&mut self, seq: Seq) -> bool {
        let Some((&start, &end)) = self.ranges.range(..=seq.0).next_back() else { return false };
        if seq.0 >= end {
            return false;
        }
        self.count -= 1;
        if start == seq.0 {
            self.ranges.remove(&start);
        } else {
            self.ranges.insert(start, seq.0);
        }
        if seq.0 + 1 < end {
            self.ranges.insert(seq.0 + 1, end);
        }
        true
    }

    /// Removes all seqs of a range.
    pub fn remove_range(&mut self, range: SeqRange) {
        let (start, end) = (range.start.0, range.end.0);
        if start >= end {
            return;
        }
        while let Some((&other_start, &other_end)) = self.ranges.range(..end).next_back()
            && other_end > start
        {
            self.ranges.remove(&other_start);
            if other_end > end {
                self.ranges.insert(end, other_end);
            }
            if other_start < start {
                self.ranges.insert(other_start, start);
            }
            self.count -= other_end.min(end) - other_start.max(start);
        }
    }

    /// Returns the seqs, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Seq> + '_ {
        self.ranges.iter().flat_map(|(start, end)| (*start..*end).map(Seq))
    }

    /// Returns the set as a list of ranges, ascending.
    #[must_use]
    pub fn to_ranges(&self) -> SeqRanges {
        let ranges = self.ranges.iter();
        ranges.map(|(start, end)| SeqRange { start: Seq(*start), end: Seq(*end) }).collect()
    }
}

impl FromIterator<Seq> for SeqSet {
    fn from_iter<I: IntoIterator<Item = Seq>>(seqs: I) -> Self {
        let mut set = Self::new();
        for seq in seqs {
            set.insert(seq);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn behaves_like_a_set_of_numbers() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut set, mut naive) = (SeqSet::new(), BTreeSet::new());
            for _ in 0..200 {
                let seq = rng.u64(0..60);
                match rng.u8(0..4) {
                    0 => assert_eq!(set.insert(Seq(seq)), naive.insert(seq), "seed {seed}"),
                    1 => assert_eq!(set.remove(Seq(seq)), naive.remove(&seq), "seed {seed}"),
                    2 => {
                        let end = seq + rng.u64(0..8);
                        set.remove_range(SeqRange { start: Seq(seq), end: Seq(end) });
                        naive.retain(|other| !(seq..end).contains(other));
                    }
                    _ => {
                        let end = seq + rng.u64(0..8);
                        set.insert_range(SeqRange { start: Seq(seq), end: Seq(end) });
                        naive.extend(seq..end);
                    }
                }
                assert_eq!(set.count(), naive.len() as u64, "seed {seed}");
                assert_eq!(set.contains(Seq(seq)), naive.contains(&seq), "seed {seed}");
                let free = SeqRange { start: Seq(seq), end: Seq(seq + rng.u64(0..8)) };
                let is_free = !free.seqs().any(|seq| naive.contains(&seq.0));
                assert_eq!(free.count() == 0 || set.is_free(free), is_free, "seed {seed}");
                let mut larger = set.clone();
                assert!(set.is_subset(&larger));
                larger.remove(Seq(seq));
                let beyond = naive.contains(&seq).then_some(Seq(seq));
                assert_eq!(set.first_beyond(&larger), beyond, "seed {seed}");
                let around = SeqRange { start: Seq(seq), end: Seq(seq + rng.u64(0..20)) };
                let gaps = set.gaps(around);
                assert!(gaps.iter().zip(gaps.iter().skip(1)).all(|(a, b)| a.end < b.start));
                let parts = set.parts(around).into_iter().flat_map(SeqRange::seqs);
                assert!(parts.eq(around.seqs().filter(|seq| naive.contains(&seq.0))));
                let others: SeqRanges = (0..rng.u64(0..20)).map(|_| Seq(rng.u64(0..70))).collect();
                let parts = set.parts_of(&others).into_iter().flat_map(SeqRange::seqs);
                assert!(
                    parts.eq(others.seqs().filter(|seq| naive.contains(&seq.0))),
                    "seed {seed}"
                );
                let missing = around.seqs().filter(|seq| !naive.contains(&seq.0));
                assert!(gaps.into_iter().flat_map(SeqRange::seqs).eq(missing), "seed {seed}");
                let end = (seq..).find(|seq| !naive.contains(seq)).unwrap_or_default();
                let from = set.range_from(Seq(seq)).map(|range| (range.start.0, range.end.0));
                assert_eq!(from, (end > seq).then_some((seq, end)), "seed {seed}");
                let missing = (0..).find(|seq| !naive.contains(seq));
                assert_eq!(Some(set.first_missing().0), missing, "seed {seed}");
                assert!(set.iter().map(|seq| seq.0).eq(naive.iter().copied()), "seed {seed}");
                assert_eq!(set.to_ranges().count(), set.count(), "seed {seed}");
                let touching = set.ranges.iter().zip(set.ranges.iter().skip(1));
                assert!(touching.into_iter().all(|((_, end), (start, _))| end < start));
            }
        }
    }
}

//! Which task of a process's ring is which of a partition: a ring numbers the tasks of all its partitions in the order
//! in which they are read, for itself.

use std::collections::{BTreeMap, VecDeque};

use tradewind_proto::{Seq, SeqRange, SeqSet};

/// A task of a queue with partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Its partition.
    pub partition: u32,
    /// Its position there.
    pub position: u64,
}

impl Place {
    /// Returns the number of the task for people, among all of the queue's.
    #[must_use]
    pub fn number(self, partitions: u32) -> u64 {
        self.position.saturating_mul(u64::from(partitions)).saturating_add(self.partition.into())
    }

    /// Returns the task with this number.
    #[must_use]
    pub fn of(number: u64, partitions: u32) -> Self {
        let partitions = u64::from(partitions.max(1));
        let partition = u32::try_from(number % partitions).expect("it is below a u32");
        Self { partition, position: number / partitions }
    }
}

/// Returns the partition of the tasks with a key: the key's CRC-32, as zip has it, modulo the number of partitions. Whoever
/// adds tasks by an engine's own client does the same.
#[must_use]
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    crc32fast::hash(key) % partitions.max(1)
}

/// Tasks of the ring that follow one another in a partition.
#[derive(Clone, Copy, Debug)]
struct Run {
    seq: u64,
    place: Place,
    count: u64,
}

/// What is known of a partition that is held.
#[derive(Debug)]
struct Part {
    /// Every position below was read, or is not to be.
    next: u64,
    /// Positions whose tasks have records, or at which there is no task.
    stored: SeqSet,
    /// Number of tasks that were read and have no record.
    out: u64,
}

/// The tasks of a ring.
#[derive(Debug, Default)]
pub struct Placed {
    parts: BTreeMap<u32, Part>,
    /// Without those whose tasks all have records.
    runs: VecDeque<Run>,
    /// Seq of the next task.
    next: u64,
}

impl Placed {
    /// Begins with a partition whose first task has this position, and of which these tasks have records. Returns the
    /// position from which it is to be read.
    pub fn begin(&mut self, partition: u32, first: u64, mut stored: SeqSet) -> u64 {
        stored.insert_range(SeqRange { start: Seq(0), end: Seq(first) });
        let next = stored.first_missing().0;
        self.end(partition);
        self.parts.insert(partition, Part { next, stored, out: 0 });
        next
    }

    /// Ends with a partition. Returns the tasks of the ring that are nobody's from now on.
    pub fn end(&mut self, partition: u32) -> Vec<SeqRange> {
        let Some(part) = self.parts.remove(&partition) else { return Vec::new() };
        let (ours, others) =
            self.runs.iter().copied().partition(|run| run.place.partition == partition);
        self.runs = others;
        let ours: VecDeque<Run> = ours;
        let left = ours.into_iter().flat_map(|run| {
            let start = run.place.position;
            let positions = SeqRange { start: Seq(start), end: Seq(start + run.count) };
            let seq = move |position: Seq| Seq(run.seq + (position.0 - start));
            let range = move |gap: SeqRange| SeqRange { start: seq(gap.start), end: seq(gap.end) };
            part.stored.gaps(positions).into_iter().map(range).collect::<Vec<_>>()
        });
        left.collect()
    }

    /// Notes that a task was read. Returns whether it is the ring's next one: otherwise it has its record, was read
    /// before, or its partition is not held any more.
    pub fn push(&mut self, place: Place) -> bool {
        let Some(part) = self.parts.get_mut(&place.partition) else { return false };
        if place.position < part.next {
            return false;
        }
        let gap = SeqRange { start: Seq(part.next), end: Seq(place.position) };
        part.stored.insert_range(gap);
        part.next = place.position + 1;
        if part.stored.contains(Seq(place.position)) {
            return false;
        }
        part.out += 1;
        let seq = self.next;
        self.next += 1;
        match self.runs.back_mut() {
            Some(run) if follows(run, place) => run.count += 1,
            _ => self.runs.push_back(Run { seq, place, count: 1 }),
        }
        true
    }

    /// Returns which task one of the ring is; `None` if it is nobody's any more, or all around it have records.
    #[must_use]
    pub fn place(&self, seq: Seq) -> Option<Place> {
        let at = self.runs.partition_point(|run| run.seq + run.count <= seq.0);
        let run = self.runs.get(at).filter(|run| run.seq <= seq.0)?;
        Some(Place { position: run.place.position + (seq.0 - run.seq), ..run.place })
    }

    /// Returns which task of the ring a task is, if it was read and its run is still there.
    #[must_use]
    pub fn seq(&self, place: Place) -> Option<Seq> {
        let has = |run: &&Run| {
            let first = run.place.position;
            run.place.partition == place.partition
                && (first..first + run.count).contains(&place.position)
        };
        let run = self.runs.iter().find(has)?;
        Some(Seq(run.seq + (place.position - run.place.position)))
    }

    /// Notes that a task has its record. Does nothing if its partition is not held.
    pub fn settle(&mut self, place: Place) {
        let Some(part) = self.parts.get_mut(&place.partition) else { return };
        if part.stored.insert(Seq(place.position)) {
            part.out -= 1;
        }
        while let Some(run) = self.runs.front()
            && self.is_settled(run)
        {
            self.runs.pop_front();
        }
    }

    fn is_settled(&self, run: &Run) -> bool {
        let Some(part) = self.parts.get(&run.place.partition) else { return true };
        let start = run.place.position;
        // One that was read last is gone on with.
        let is_whole = part.next > start + run.count || run.seq + run.count < self.next;
        let positions = SeqRange { start: Seq(start), end: Seq(start + run.count) };
        is_whole && part.stored.gaps(positions).is_empty()
    }

    /// Returns whether a partition is held.
    #[must_use]
    pub fn has(&self, partition: u32) -> bool {
        self.parts.contains_key(&partition)
    }

    /// Returns whether a task is known to have its record, which may have been removed since.
    #[must_use]
    pub fn is_stored(&self, place: Place) -> bool {
        let part = self.parts.get(&place.partition);
        part.is_some_and(|part| part.stored.contains(Seq(place.position)))
    }

    /// Returns the position below which every task of a partition has its record.
    #[must_use]
    pub fn low(&self, partition: u32) -> Option<u64> {
        Some(self.parts.get(&partition)?.stored.first_missing().0)
    }

    /// Returns the number of tasks of a partition that were read and have no record.
    #[must_use]
    pub fn out(&self, partition: u32) -> Option<u64> {
        Some(self.parts.get(&partition)?.out)
    }

    /// Returns the number of positions of a partition below this one that have neither a record nor were passed over.
    #[must_use]
    pub fn unsettled(&self, partition: u32, end: u64) -> Option<u64> {
        let part = self.parts.get(&partition)?;
        let positions = SeqRange { start: Seq(0), end: Seq(end) };
        let stored: u64 = part.stored.parts(positions).iter().map(|range| range.count()).sum();
        Some(end - stored)
    }
}

fn follows(run: &Run, place: Place) -> bool {
    run.place.partition == place.partition && run.place.position + run.count == place.position
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: u32, position: u64) -> Place {
        Place { partition, position }
    }

    fn set(positions: impl IntoIterator<Item = u64>) -> SeqSet {
        positions.into_iter().map(Seq).collect()
    }

    #[test]
    fn numbers_for_people_read_back() {
        for (place, partitions, number) in [(at(0, 7), 1, 7), (at(3, 5), 4, 23), (at(0, 0), 4, 0)] {
            assert_eq!(place.number(partitions), number);
            assert_eq!(Place::of(number, partitions), place);
        }
    }

    // What other programs compute as well: it never changes.
    #[test]
    fn a_key_has_its_partition_for_ever() {
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
        assert_eq!([1, 4, 7].map(|partitions| partition_of(b"123456789", partitions)), [0, 2, 5]);
    }

    #[test]
    fn tasks_of_two_partitions_are_told_apart() {
        let mut placed = Placed::default();
        assert_eq!(placed.begin(0, 0, SeqSet::new()), 0);
        assert_eq!(placed.begin(1, 10, set([10, 12])), 11);
        for place in [at(0, 0), at(0, 1), at(1, 11), at(0, 2), at(1, 13)] {
            assert!(placed.push(place), "{place:?}");
        }
        assert!(!placed.push(at(1, 13)), "it was read");
        assert!(!placed.push(at(2, 0)), "it is not held");
        let places: Vec<_> = (0..5).map(|seq| placed.place(Seq(seq)).unwrap()).collect();
        assert_eq!(places, [at(0, 0), at(0, 1), at(1, 11), at(0, 2), at(1, 13)]);
        assert_eq!(placed.place(Seq(5)), None);
        assert_eq!(placed.seq(at(1, 11)), Some(Seq(2)));
        assert_eq!(placed.seq(at(1, 12)), None, "it has its record");
        assert_eq!((placed.low(0), placed.low(1)), (Some(0), Some(11)));
        assert_eq!((placed.out(0), placed.out(1)), (Some(3), Some(2)));
        for place in [at(1, 11), at(0, 0), at(0, 1)] {
            placed.settle(place);
        }
        assert_eq!((placed.low(0), placed.low(1)), (Some(2), Some(13)));
        assert_eq!(placed.place(Seq(1)), None, "nothing is to be known of it");
        assert_eq!(placed.place(Seq(3)), Some(at(0, 2)));
        assert_eq!(placed.unsettled(0, 5), Some(3));
        assert_eq!(placed.unsettled(1, 15), Some(2));
    }

    #[test]
    fn a_task_that_has_its_record_is_passed_over() {
        let mut placed = Placed::default();
        assert_eq!(placed.begin(0, 2, set([3, 5])), 2);
        let pushed: Vec<bool> = (2..7).map(|position| placed.push(at(0, position))).collect();
        assert_eq!(pushed, [true, false, true, false, true]);
        assert_eq!(placed.place(Seq(2)), Some(at(0, 6)));
    }

    #[test]
    fn tasks_of_a_partition_that_went_are_nobodys() {
        let mut placed = Placed::default();
        placed.begin(0, 0, SeqSet::new());
        placed.begin(1, 0, SeqSet::new());
        for position in 0..3 {
            assert!(placed.push(at(0, position)) && placed.push(at(1, position)));
        }
        placed.settle(at(0, 1));
        let left: Vec<_> = placed.end(0).into_iter().map(|it| (it.start.0, it.end.0)).collect();
        assert_eq!(left, [(0, 1), (4, 5)]);
        assert_eq!(placed.place(Seq(0)), None);
        assert_eq!(placed.place(Seq(1)), Some(at(1, 0)));
        placed.settle(at(0, 0));
        assert!(!placed.push(at(0, 3)) && !placed.has(0));
        // It comes back: all is read anew.
        assert_eq!(placed.begin(0, 0, set([1])), 0);
        assert!(placed.push(at(0, 0)));
        assert_eq!(placed.place(Seq(6)), Some(at(0, 0)));
        assert!(placed.has(0) && placed.has(1));
    }

    #[test]
    fn a_straggler_keeps_its_run_and_no_other_memory() {
        let mut placed = Placed::default();
        placed.begin(0, 0, SeqSet::new());
        for position in 0..100_000 {
            assert!(placed.push(at(0, position)));
            if position > 0 {
                placed.settle(at(0, position));
            }
        }
        assert_eq!((placed.runs.len(), placed.out(0)), (1, Some(1)));
        assert_eq!(placed.place(Seq(0)), Some(at(0, 0)));
        assert_eq!(placed.low(0), Some(0));
    }
}

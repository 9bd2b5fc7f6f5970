//! What tasks were when their records were stored.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind};

use tradewind_proto::{Seq, TaskHash};

use super::journal::{Entry, Lines};

/// What tasks were when their records were stored: to be asked in ascending order of seq, and for
/// none that is not stored.
///
/// The journal is read forward as needed. What is in memory are the entries between the one that
/// was asked for and the last one read: as many as the records are out of order.
#[derive(Debug)]
pub struct TaskHashes {
    lines: Lines<BufReader<File>>,
    /// The lowest seq that may be asked for.
    next: Seq,
    ahead: BinaryHeap<Reverse<Block>>,
}

/// What is left of an entry.
#[derive(Debug)]
struct Block {
    records: Vec<(u64, u64)>,
    hashes: Vec<TaskHash>,
    /// The range of the next record, the place of its hash, and the record.
    range: usize,
    place: usize,
    next: u64,
}

impl TaskHashes {
    /// Reads a journal from its second line on.
    pub(super) fn new(lines: Lines<BufReader<File>>) -> Self {
        Self { lines, next: Seq(0), ahead: BinaryHeap::new() }
    }

    /// The lowest seq that may be asked for.
    #[must_use]
    pub fn next(&self) -> Seq {
        self.next
    }

    /// What this task was; `None` if it is not in the journal.
    ///
    /// # Errors
    ///
    /// When the journal cannot be read, or is no longer what it was at the start.
    pub fn get(&mut self, seq: Seq) -> io::Result<Option<TaskHash>> {
        self.next = seq.next();
        loop {
            if let Some(mut first) = self.ahead.peek_mut() {
                if first.0.next == seq.0 {
                    return Ok(Some(first.0.hashes[first.0.place]));
                }
                if first.0.next < seq.0 {
                    if !first.0.skip_to(seq.0) {
                        PeekMut::pop(first);
                    }
                    continue;
                }
            }
            let changed = || io::Error::new(ErrorKind::InvalidData, "the journal has changed");
            let entry = match self.lines.next::<Entry>()? {
                Some(Ok(entry)) => entry,
                Some(Err(_)) => return Err(changed()),
                None => return Ok(None),
            };
            let hashes = entry.hashes().ok_or_else(changed)?;
            if let Some(&(next, _)) = entry.records.first() {
                let records = entry.records;
                self.ahead.push(Reverse(Block { records, hashes, range: 0, place: 0, next }));
            }
        }
    }
}

impl Block {
    /// Goes on to the first record that is not below; false if there is none.
    fn skip_to(&mut self, seq: u64) -> bool {
        while let Some(&(start, end)) = self.records.get(self.range) {
            let next = self.next.max(start);
            if seq < end {
                let skipped = seq.saturating_sub(next);
                self.next = next + skipped;
                self.place += skipped as usize;
                return true;
            }
            self.place += (end - next) as usize;
            self.range += 1;
        }
        false
    }
}

impl Ord for Block {
    fn cmp(&self, other: &Self) -> Ordering {
        self.next.cmp(&other.next)
    }
}

impl PartialOrd for Block {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Block {
    fn eq(&self, other: &Self) -> bool {
        self.next == other.next
    }
}

impl Eq for Block {}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use tradewind_proto::message::Status;

    use super::super::journal::Kept;
    use super::*;

    /// A journal of these entries; the hash of a task is its seq plus one.
    fn hashes(entries: &[Vec<u64>]) -> TaskHashes {
        let mut text = Vec::new();
        for seqs in entries {
            let kept =
                |seq| Kept { seq: Seq(seq), hash: TaskHash(seq as u32 + 1), status: Status::Ok };
            let mut entry = Entry::default();
            entry.set_records(&seqs.iter().copied().map(kept).collect::<Vec<_>>());
            entry.encode(&mut text);
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&text).unwrap();
        file.rewind().unwrap();
        TaskHashes::new(Lines::new(BufReader::new(file)))
    }

    #[test]
    fn each_stored_task_has_its_hash_in_whatever_order_it_was_stored() {
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..300 {
            let mut entries = vec![Vec::new(); random.usize(1..8)];
            let mut stored = Vec::new();
            for seq in 0..60 {
                if random.u8(..4) > 0 {
                    stored.push(seq);
                    random.choice(&mut entries).unwrap().push(seq);
                }
            }
            let mut hashes = hashes(&entries);
            for seq in stored.into_iter().filter(|_| random.u8(..3) > 0) {
                let wanted = Some(TaskHash(seq as u32 + 1));
                assert_eq!(hashes.get(Seq(seq)).unwrap(), wanted);
                assert_eq!(hashes.next(), Seq(seq + 1));
            }
            assert_eq!(hashes.get(Seq(60)).unwrap(), None, "nobody has stored it");
        }
    }

    #[test]
    fn no_more_is_read_than_is_asked_for() {
        let entries: Vec<_> = (0..100).map(|n| (10 * n..10 * n + 10).collect()).collect();
        let mut hashes = hashes(&entries);
        for seq in 0..1000 {
            assert!(hashes.get(Seq(seq)).unwrap().is_some());
            assert!(hashes.ahead.len() <= 2);
        }
    }
}

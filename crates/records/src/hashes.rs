//! Hashes of tasks whose records are stored.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind};
use std::os::unix::fs::FileExt;

use tradewind_proto::{Seq, TaskHash};

use super::journal::{Entry, Lines};

/// Bytes of entries in memory. Beyond it those that are needed last are left to the journal.
const AHEAD_BYTES_MAX: usize = 4 << 20;

/// Hashes of tasks whose records are stored, to be asked for in ascending order of seq, and only
/// for stored tasks.
///
/// The journal is read forward as needed. In memory are the entries between the one that was asked
/// for and the last one read: as many as the records are out of order. Of those that are needed
/// last only the place in the journal is in memory, and they are read again.
#[derive(Debug)]
pub struct TaskHashes {
    lines: Lines<BufReader<File>>,
    /// Lowest seq that may be asked for.
    next: Seq,
    ahead: BinaryHeap<Reverse<Block>>,
    /// Bytes of the contents of those.
    bytes: usize,
    bytes_max: usize,
}

/// Rest of an entry.
#[derive(Debug)]
struct Block {
    /// Place of its line in the journal, and its length.
    line: (u64, usize),
    /// Range of the next record, place of its hash, and the record.
    range: usize,
    place: usize,
    next: u64,
    /// Contents, unless they are left to the journal.
    contents: Option<Contents>,
}

#[derive(Debug)]
struct Contents {
    records: Vec<(u64, u64)>,
    hashes: Vec<TaskHash>,
}

impl TaskHashes {
    /// Creates a reader of a journal from its second line on.
    pub(super) fn new(lines: Lines<BufReader<File>>) -> Self {
        let (ahead, bytes) = (BinaryHeap::new(), 0);
        Self { lines, next: Seq(0), ahead, bytes, bytes_max: AHEAD_BYTES_MAX }
    }

    /// Returns the lowest seq that may be asked for.
    #[must_use]
    pub fn next(&self) -> Seq {
        self.next
    }

    /// Returns the hash of a task; `None` if it is not in the journal.
    ///
    /// # Errors
    ///
    /// When the journal cannot be read, or has changed since the start.
    pub fn get(&mut self, seq: Seq) -> io::Result<Option<TaskHash>> {
        self.next = seq.next();
        loop {
            if self.bytes > self.bytes_max {
                self.leave_to_the_journal();
            }
            if let Some(mut first) = self.ahead.peek_mut()
                && first.0.next <= seq.0
            {
                let block = &mut first.0;
                let contents = match block.contents.take() {
                    Some(contents) => contents,
                    None => {
                        let contents = read_again(&self.lines, block.line)?;
                        self.bytes += contents.bytes();
                        contents
                    }
                };
                let has_more = block.next == seq.0 || block.skip_to(seq.0, &contents);
                let hash = contents.hashes.get(block.place).copied();
                if !has_more {
                    self.bytes -= contents.bytes();
                    PeekMut::pop(first);
                    continue;
                }
                let is_found = block.next == seq.0;
                block.contents = Some(contents);
                if is_found {
                    return Ok(Some(hash.ok_or_else(changed)?));
                }
                continue;
            }
            let at = self.lines.at();
            let Some(entry) = self.lines.next::<Entry>()? else { return Ok(None) };
            let contents = Contents::of(entry.map_err(|_| changed())?)?;
            if let Some(&(next, _)) = contents.records.first() {
                let length = usize::try_from(self.lines.at() - at).map_err(io::Error::other)?;
                self.bytes += contents.bytes();
                let (line, contents) = ((at, length), Some(contents));
                self.ahead.push(Reverse(Block { line, range: 0, place: 0, next, contents }));
            }
        }
    }

    /// Frees half of the memory: the contents of the blocks that are needed last.
    fn leave_to_the_journal(&mut self) {
        let mut blocks = std::mem::take(&mut self.ahead).into_vec();
        blocks.sort_unstable_by_key(|Reverse(block)| block.next);
        let mut kept = 0;
        for (place, Reverse(block)) in blocks.iter_mut().enumerate() {
            kept += block.contents.as_ref().map_or(0, Contents::bytes);
            if place > 0 && kept > self.bytes_max / 2 {
                self.bytes -= block.contents.take().map_or(0, |contents| contents.bytes());
            }
        }
        self.ahead = blocks.into();
    }
}

fn changed() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the journal has changed")
}

/// Reads the contents of an entry whose line was read before.
fn read_again(lines: &Lines<BufReader<File>>, (at, length): (u64, usize)) -> io::Result<Contents> {
    let mut line = vec![0; length];
    lines.reader().get_ref().read_exact_at(&mut line, at)?;
    let entry = Lines::new(&line[..]).next::<Entry>()?;
    Contents::of(entry.and_then(Result::ok).ok_or_else(changed)?)
}

impl Contents {
    fn of(entry: Entry) -> io::Result<Self> {
        let hashes = entry.hashes().ok_or_else(changed)?;
        Ok(Self { records: entry.records, hashes })
    }

    fn bytes(&self) -> usize {
        size_of_val(&self.records[..]) + size_of_val(&self.hashes[..])
    }
}

impl Block {
    /// Moves to the first record that is not below this seq. Returns false if there is none.
    fn skip_to(&mut self, seq: u64, contents: &Contents) -> bool {
        while let Some(&(start, end)) = contents.records.get(self.range) {
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
    fn entries_needed_last_are_left_to_the_journal() {
        // The first task's record comes last.
        let mut entries: Vec<Vec<u64>> =
            (0..500).map(|n| (100 * n + 1..100 * n + 101).collect()).collect();
        entries.push(vec![0]);
        let mut hashes = hashes(&entries);
        hashes.bytes_max = 10_000;
        for seq in 0..=50_000 {
            assert_eq!(hashes.get(Seq(seq)).unwrap(), Some(TaskHash(seq as u32 + 1)));
            let contents = hashes.ahead.iter().filter_map(|block| block.0.contents.as_ref());
            let bytes: usize = contents.map(Contents::bytes).sum();
            assert_eq!(bytes, hashes.bytes);
            assert!(bytes <= 10_000 + 416, "{bytes} bytes at {seq}");
        }
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
            hashes.bytes_max = random.usize(..400);
            for seq in stored.into_iter().filter(|_| random.u8(..3) > 0) {
                let wanted = Some(TaskHash(seq as u32 + 1));
                assert_eq!(hashes.get(Seq(seq)).unwrap(), wanted);
                assert_eq!(hashes.next(), Seq(seq + 1));
            }
            assert_eq!(hashes.get(Seq(60)).unwrap(), None, "it was never stored");
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

//! A journal that is kept elsewhere than in a file beside the output: the same lines, one by one.
//!
//! An entry says what is about to be stored, since the records themselves are somewhere that knows which it has. So
//! an entry may speak of records that are not there, and of two entries about a record the later one counts.

use std::env;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use tradewind_proto::collector::Counts;
use tradewind_proto::message::{Status, TaskResult};
use tradewind_proto::{Seq, SeqRange, SeqSet};

use super::Claim;
use super::journal::{BadLine, Entry, Kept, Lines};
use super::open::{Journal, JournalPlace};
use super::spool::unnamed_file;

/// Records of an entry at most: a line has 160 KiB then, where none is next to another.
const ENTRY_RECORDS_MAX: usize = 4096;

/// A journal that was read back from elsewhere, with a copy here for the comparison with a resumed job's input.
#[derive(Debug)]
pub struct KeptJournal {
    claim: Option<Claim>,
    /// Tasks whose records are not `ok`, by status.
    not_ok: [SeqSet; 5],
    is_complete: bool,
    copy: File,
    copy_bytes: u64,
}

/// Error: a line is none of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no line of a journal")]
pub struct NoJournalLine;

impl KeptJournal {
    /// Creates an empty one.
    ///
    /// # Errors
    ///
    /// When there is no room for a temporary file.
    pub fn new() -> io::Result<Self> {
        let copy = unnamed_file(&env::temp_dir())?;
        let (claim, not_ok) = (None, Default::default());
        Ok(Self { claim, not_ok, is_complete: false, copy, copy_bytes: 0 })
    }

    /// Takes in the next line. With a claim a journal begins anew.
    ///
    /// # Errors
    ///
    /// When the copy cannot be written, or inside, when it is no line of a journal.
    pub fn handle_line(&mut self, line: &[u8]) -> io::Result<Result<(), NoJournalLine>> {
        if let Some(claim) = Claim::read(line)? {
            self.copy.set_len(0)?;
            self.copy_bytes = 0;
            (self.claim, self.not_ok, self.is_complete) = (Some(claim), Default::default(), false);
            return Ok(Ok(()));
        }
        let entry = match Lines::new(line).next::<Entry>()? {
            Some(Ok(entry)) if entry.hashes().is_some() => entry,
            Some(Ok(_) | Err(BadLine)) | None => return Ok(Err(NoJournalLine)),
        };
        self.is_complete = entry.complete;
        for (start, end) in &entry.records {
            let range = SeqRange { start: Seq(*start), end: Seq(*end) };
            self.not_ok.iter_mut().for_each(|set| set.remove_range(range));
        }
        for (set, (_, ranges)) in self.not_ok.iter_mut().zip(entry.not_ok.each()) {
            for (start, end) in ranges {
                set.insert_range(SeqRange { start: Seq(*start), end: Seq(*end) });
            }
        }
        self.copy.write_all_at(line, self.copy_bytes)?;
        self.copy_bytes += line.len() as u64;
        Ok(Ok(()))
    }

    /// Returns the job that it is of; `None` if it is empty.
    #[must_use]
    pub fn claim(&self) -> Option<&Claim> {
        self.claim.as_ref()
    }

    /// Returns whether its last line says that the job is complete.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Returns the numbers of records by status, of these tasks.
    #[must_use]
    pub fn counts(&self, stored: &SeqSet) -> Counts {
        let count = |set: &SeqSet| {
            let ranges = set.to_ranges();
            let parts = ranges.as_slice().iter().flat_map(|range| stored.parts(*range));
            parts.map(|part| part.count()).sum::<u64>()
        };
        // In the order of `NotOk::each`.
        let [failed, timed_out, lost, cancelled, skipped] = &self.not_ok;
        let mut counts = Counts {
            ok: 0,
            failed: count(failed),
            timed_out: count(timed_out),
            lost: count(lost),
            cancelled: count(cancelled),
            skipped: count(skipped),
        };
        counts.ok = stored.count().saturating_sub(counts.total());
        counts
    }

    /// Returns the copy as a journal. It has the lines that are taken in later, too.
    ///
    /// # Errors
    ///
    /// When the system has no handle to give.
    pub fn journal(&self) -> io::Result<Journal> {
        Ok(Journal(JournalPlace::Copy(self.copy.try_clone()?)))
    }
}

/// Lines about records that are about to be stored.
#[derive(Debug, Default)]
pub struct JournalLines {
    kept: Vec<Kept>,
}

impl JournalLines {
    /// Adds a record, with the status under which it is stored.
    pub fn add(&mut self, result: &TaskResult, status: Status) {
        let TaskResult { seq, task_hash, .. } = result;
        self.kept.push(Kept { seq: *seq, hash: *task_hash, status });
    }

    /// Takes the lines about the records that were added.
    pub fn take(&mut self) -> Vec<Vec<u8>> {
        self.kept.sort_unstable_by_key(|kept| kept.seq);
        let line = |kept: &[Kept]| {
            let mut entry = Entry::default();
            entry.set_records(kept);
            let mut line = Vec::new();
            entry.encode(&mut line);
            line
        };
        let lines = self.kept.chunks(ENTRY_RECORDS_MAX).map(line).collect();
        self.kept.clear();
        lines
    }
}

/// Returns the line that says that a job is complete.
#[must_use]
pub fn complete_line() -> Vec<u8> {
    let mut line = Vec::new();
    Entry::complete(None, None).encode(&mut line);
    line
}

#[cfg(test)]
mod tests {
    use tradewind_proto::collector::{Order, Records};
    use tradewind_proto::message::Status;
    use tradewind_proto::{JobId, TaskHash};

    use super::super::Format;
    use super::super::examples::{record, with};
    use super::*;

    fn claim(job: u64) -> Vec<u8> {
        let claim = Claim::new(JobId(job), "job".into(), Format::Jsonl, Order::Seq, false);
        let mut line = Vec::new();
        claim.encode(&mut line);
        line
    }

    fn ended(seq: u64, status: Status) -> Records {
        with(record(seq, ""), |result| {
            (result.outcome.status, result.task_hash) = (status, TaskHash(seq as u32 + 1));
        })
    }

    fn journal_lines(records: &[Records]) -> Vec<Vec<u8>> {
        let mut lines = JournalLines::default();
        records.iter().flat_map(|list| &list.results).for_each(|result| {
            lines.add(result, result.outcome.status);
        });
        lines.take()
    }

    #[track_caller]
    fn take(journal: &mut KeptJournal, line: &[u8]) {
        assert_eq!(journal.handle_line(line).expect("there is room"), Ok(()));
    }

    #[test]
    fn the_later_of_two_entries_about_a_record_counts() {
        let mut journal = KeptJournal::new().expect("there is room");
        assert_eq!(journal.claim(), None);
        take(&mut journal, &claim(7));
        let first = [ended(2, Status::Failed), ended(0, Status::Ok), ended(1, Status::Lost)];
        for line in journal_lines(&first) {
            take(&mut journal, &line);
        }
        for line in journal_lines(&[ended(2, Status::Ok), ended(9, Status::Failed)]) {
            take(&mut journal, &line);
        }
        assert_eq!(journal.claim().map(|claim| claim.job), Some(JobId(7)));
        // The last was never stored.
        let stored: SeqSet = [0, 1, 2].map(Seq).into_iter().collect();
        assert_eq!(journal.counts(&stored), Counts { ok: 2, lost: 1, ..Counts::default() });
        let copy = journal.journal().expect("there is a handle");
        for _ in 0..2 {
            let mut hashes = copy.hashes().expect("it can be read");
            for seq in 0..3 {
                let hash = hashes.get(Seq(seq)).expect("it can be read");
                assert_eq!(hash, Some(TaskHash(seq as u32 + 1)));
            }
        }
        assert!(!journal.is_complete());
        take(&mut journal, &complete_line());
        assert!(journal.is_complete());
        take(&mut journal, &claim(8));
        assert!(!journal.is_complete());
        assert_eq!(copy.hashes().expect("it can be read").get(Seq(0)).expect("it can"), None);
    }

    #[test]
    fn many_records_are_several_lines_and_what_is_none_is_said() {
        let records: Vec<_> = (0..10_000).map(|seq| ended(2 * seq, Status::Ok)).collect();
        let lines = journal_lines(&records);
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.len() < 160 << 10));
        let mut journal = KeptJournal::new().expect("there is room");
        let cut = &lines[0][..lines[0].len() - 2];
        for line in [&b"x\n"[..], b"", cut] {
            assert_eq!(journal.handle_line(line).expect("it can"), Err(NoJournalLine));
        }
    }
}

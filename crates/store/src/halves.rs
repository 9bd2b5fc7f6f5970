//! A queue whose tasks and records are kept in two places: what one half may believe of the other.
//!
//! The half with the tasks removes none on its own word. What it has heard of records is enough to dispatch by, and
//! to find out that records are lost; that a task is not needed any more is for the record log to say, since it
//! knows which records are kept.

use std::ops::Range;

use thiserror::Error;
use tradewind_proto::{JobId, Seq, SeqRange, SeqRanges, SeqSet};
use tradewind_records::Medium;

use crate::records::{RecordError, RecordLog};

/// What a record log says of the records of a range of tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Whether one of the tasks has no record, or one with which it may be retried.
    pub is_needed: bool,
    /// Position of each task's record; `None` if it is not kept. None at all if a task is needed.
    pub positions: Vec<Option<u64>>,
    /// Position after the last record of all.
    pub end: u64,
}

/// How long a key is remembered whose task is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remember {
    /// No longer.
    Not,
    /// As long as its record is kept.
    Kept,
    /// As long as by the position of its record, also of one that is gone.
    Position,
}

impl Told {
    /// Returns the position of the record by which a key is remembered; `None` if it is not.
    #[must_use]
    pub fn remembered(&self, remember: Remember, place: usize) -> Option<u64> {
        let position = self.positions.get(place).copied().flatten();
        match remember {
            Remember::Not => None,
            Remember::Kept => position,
            // When one was stored that is gone is not known any more: not after this.
            Remember::Position => Some(position.unwrap_or(self.end)),
        }
    }
}

impl<M: Medium> RecordLog<M> {
    /// Says what a task log has to know of the records of a range of tasks. `failed` is as in
    /// [`is_needed`](Self::is_needed).
    ///
    /// # Errors
    ///
    /// When the index cannot be read, or is damaged.
    pub fn tell(&mut self, range: Range<u64>, failed: &mut SeqSet) -> Result<Told, RecordError> {
        let end = self.committed();
        let seqs = SeqRange { start: Seq(range.start), end: Seq(range.end) };
        if self.is_needed(seqs, failed) {
            return Ok(Told { is_needed: true, positions: Vec::new(), end });
        }
        // A record that may be lost with the machine is none for which its task can go.
        self.sync()?;
        let positions = range.map(|seq| self.position_of(Seq(seq))).collect::<Result<_, _>>()?;
        Ok(Told { is_needed: false, positions, end })
    }
}

/// What the half with the tasks has noted of the records, to find out whether they are still there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// Seq below which every task had its record.
    pub low: u64,
    /// Number of tasks that had their records.
    pub stored: u64,
}

/// Reason why records are not those of a task log.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum NotOurs {
    #[error(
        "the records at the sink are those of another job ({theirs}), and not of the tasks here ({ours}): one of the two \
         directories is not the one that belongs to the other"
    )]
    OtherJob { ours: JobId, theirs: JobId },
    #[error(
        "the sink has a record of task {record}, and the tasks here end before task {end}: they are of different times, \
         of a copy or of a machine that stopped with fsync = \"none\""
    )]
    Ahead { record: u64, end: u64 },
    #[error(
        "the sink has the records of {stored} tasks, and had those of {noted} or more: it has lost them, or its \
         directory is another one"
    )]
    Lost { stored: u64, noted: u64 },
}

/// Returns why records are not those of the tasks of a job, if that is so. `end` is the position after the last task.
///
/// # Errors
///
/// When they are not.
pub fn judge_records(
    (ours, noted, end): (JobId, Noted, u64),
    theirs: JobId,
    stored: &SeqRanges,
) -> Result<(), NotOurs> {
    if theirs != ours {
        return Err(NotOurs::OtherJob { ours, theirs });
    }
    if stored.end().0 > end {
        return Err(NotOurs::Ahead { record: stored.end().0 - 1, end });
    }
    let set = stored.to_set();
    let (count, low) = (set.count(), set.first_missing().0);
    if count < noted.stored || low < noted.low {
        return Err(NotOurs::Lost { stored: count, noted: noted.stored.max(noted.low) });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(ranges: &[(u64, u64)]) -> SeqRanges {
        let mut set = SeqSet::new();
        for (start, end) in ranges {
            set.insert_range(SeqRange { start: Seq(*start), end: Seq(*end) });
        }
        set.to_ranges()
    }

    #[test]
    fn records_are_those_of_the_tasks_or_it_is_said_why_not() {
        let ours = (JobId(7), Noted { low: 3, stored: 5 }, 10);
        let judge = |theirs, stored: &[(u64, u64)]| judge_records(ours, theirs, &ranges(stored));
        assert_eq!(judge(JobId(7), &[(0, 3), (5, 7)]), Ok(()));
        assert_eq!(judge(JobId(7), &[(0, 10)]), Ok(()), "it may have stored more than was heard");
        let other = NotOurs::OtherJob { ours: JobId(7), theirs: JobId(8) };
        assert_eq!(judge(JobId(8), &[(0, 3), (5, 7)]), Err(other));
        assert_eq!(judge(JobId(7), &[(0, 11)]), Err(NotOurs::Ahead { record: 10, end: 10 }));
        assert_eq!(judge(JobId(7), &[]), Err(NotOurs::Lost { stored: 0, noted: 5 }));
        assert_eq!(judge(JobId(7), &[(0, 2), (4, 9)]), Err(NotOurs::Lost { stored: 7, noted: 5 }));
        assert_eq!(judge(JobId(7), &[(0, 4)]), Err(NotOurs::Lost { stored: 4, noted: 5 }));
    }

    #[test]
    fn a_key_is_remembered_by_its_record_or_not_at_all() {
        let told = Told { is_needed: false, positions: vec![Some(4), None], end: 9 };
        for (remember, wanted) in [
            (Remember::Not, [None, None]),
            (Remember::Kept, [Some(4), None]),
            (Remember::Position, [Some(4), Some(9)]),
        ] {
            assert_eq!([0, 1].map(|place| told.remembered(remember, place)), wanted);
        }
    }
}

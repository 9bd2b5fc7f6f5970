//! Reading back what an output has, by its journal.
//!
//! Works on any bytes, and changes none: what is beyond the ends that it finds is to be cut off.

use std::io::{self, BufRead, Read};

use serde::de::IgnoredAny;
use tradewind_proto::collector::Counts;
use tradewind_proto::message::Status;
use tradewind_proto::{Seq, SeqRange, SeqSet};

use super::Role;
use super::journal::{Claim, Entry, Lines, Part};

/// How much is read at a time, in bytes.
const READ_BYTES: usize = 64 << 10;

/// What an output has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Whose it is.
    pub claim: Claim,
    /// Tasks whose records are in it.
    pub stored: SeqSet,
    /// How these ended.
    pub counts: Counts,
    /// Those that are not `ok`.
    pub not_ok: SeqSet,
    /// Those that were cancelled.
    pub cancelled: SeqSet,
    /// So many bytes of the output count.
    pub output_end: u64,
    /// So many of the joblog.
    pub joblog_end: u64,
    /// So many of the journal.
    pub journal_end: u64,
}

/// What is there is neither whole nor torn at its end.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The journal does not say whose output it is.
    #[error("line 1 is not as it was written")]
    Claim,
    /// A line of the journal was changed, or does not follow from those before.
    #[error("line {line} is not as it was written")]
    Line {
        /// Which, from 1.
        line: u64,
    },
    /// Something is amiss with the bytes that the journal speaks of, and those after it are good.
    #[error("bytes {from} to {to} are not as they were written")]
    Bytes {
        /// In which of the two.
        role: Role,
        /// The first of the bytes that the journal vouches for.
        from: u64,
        /// The byte after the last of them.
        to: u64,
    },
    /// There is enough in it, and none of it is what the journal speaks of.
    #[error("it is not what the journal speaks of")]
    Foreign {
        /// Which of the two.
        role: Role,
    },
    /// It cannot be read.
    #[error("cannot read it: {reason}")]
    Read {
        /// Which of the three.
        role: Role,
        /// What the system says.
        reason: io::Error,
    },
}

impl Damage {
    /// What is damaged.
    #[must_use]
    pub fn role(&self) -> Role {
        match self {
            Self::Claim | Self::Line { .. } => Role::Journal,
            Self::Bytes { role, .. } | Self::Foreign { role } | Self::Read { role, .. } => *role,
        }
    }
}

/// Finds out what an output has. A torn end counts as not there: the last line of the journal if
/// it is not whole, and whatever entries at its end speak of bytes that are not there.
///
/// # Errors
///
/// When something else is amiss than the end, or cannot be read.
pub fn recover(
    journal: impl BufRead,
    output: Option<impl Read>,
    joblog: Option<impl Read>,
) -> Result<Recovered, Damage> {
    recover_until(journal, output, joblog, |_| false)
}

/// The same, but what comes with the first entry of this kind, or after it, does not count.
pub(super) fn recover_until(
    journal: impl BufRead,
    output: Option<impl Read>,
    joblog: Option<impl Read>,
    is_end: impl Fn(&Entry) -> bool,
) -> Result<Recovered, Damage> {
    let unread = |reason| Damage::Read { role: Role::Journal, reason };
    let mut lines = Lines::new(journal);
    let Some(Ok(claim)) = lines.next::<Claim>().map_err(unread)? else {
        return Err(Damage::Claim);
    };
    let mut output = Checked::new(Role::Output, output);
    let mut joblog = Checked::new(Role::Joblog, joblog);
    let mut recovered = Recovered {
        claim,
        stored: SeqSet::new(),
        counts: Counts::default(),
        not_ok: SeqSet::new(),
        cancelled: SeqSet::new(),
        output_end: 0,
        joblog_end: 0,
        journal_end: lines.at(),
    };
    let mut is_whole = true;
    while let Some(line) = lines.next::<Entry>().map_err(unread)? {
        let damage = Damage::Line { line: lines.number() };
        let Ok(entry) = line else {
            // A line that was being written is the last.
            while let Some(line) = lines.next::<IgnoredAny>().map_err(unread)? {
                if line.is_ok() {
                    return Err(damage);
                }
            }
            break;
        };
        if is_end(&entry) {
            break;
        }
        let (Some(in_output), Some(in_joblog)) =
            (output.check(entry.output)?, joblog.check(entry.joblog)?)
        else {
            return Err(damage);
        };
        // What follows is only asked whether it proves that this is no torn end.
        is_whole &= in_output && in_joblog;
        if is_whole {
            recovered.add(&entry).ok_or(damage)?;
            recovered.output_end = output.at;
            recovered.joblog_end = joblog.at;
            recovered.journal_end = lines.at();
        }
    }
    Ok(recovered)
}

impl Recovered {
    /// Adds the records of an entry, unless they are there.
    fn add(&mut self, entry: &Entry) -> Option<()> {
        let count = entry.hashes()?.len() as u64;
        let before = self.stored.count();
        insert(&mut self.stored, &entry.records);
        if self.stored.count() - before != count {
            return None;
        }
        for (status, ranges) in entry.not_ok.each() {
            insert(&mut self.not_ok, ranges);
            if status == Status::Cancelled {
                insert(&mut self.cancelled, ranges);
            }
        }
        let Counts { ok, failed, timed_out, lost, cancelled } = entry.counts();
        self.counts.ok += ok;
        self.counts.failed += failed;
        self.counts.timed_out += timed_out;
        self.counts.lost += lost;
        self.counts.cancelled += cancelled;
        Some(())
    }
}

fn insert(set: &mut SeqSet, ranges: &[(u64, u64)]) {
    for (start, end) in ranges {
        set.insert_range(SeqRange { start: Seq(*start), end: Seq(*end) });
    }
}

/// A file that the journal speaks of.
struct Checked<R> {
    role: Role,
    reader: Option<R>,
    buffer: Vec<u8>,
    /// The last entry ended here.
    at: u64,
    /// The first bytes that were not as they should be.
    bad: Option<(u64, u64)>,
}

impl<R: Read> Checked<R> {
    fn new(role: Role, reader: Option<R>) -> Self {
        let buffer = vec![0; if reader.is_some() { READ_BYTES } else { 0 }];
        Self { role, reader, buffer, at: 0, bad: None }
    }

    /// Reads on, and says whether that is what the journal says. `None` if the journal cannot have
    /// said that.
    fn check(&mut self, part: Option<Part>) -> Result<Option<bool>, Damage> {
        let Some((part, reader)) = part.zip(self.reader.as_mut()) else {
            return Ok((part.is_none() && self.reader.is_none()).then_some(true));
        };
        let (role, from) = (self.role, self.at);
        let Some(count) = part.end.checked_sub(from) else { return Ok(None) };
        self.at = part.end;
        let mut crc = crc32fast::Hasher::new();
        let mut left = count;
        while left > 0 {
            let room = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match reader.read(&mut self.buffer[..room]) {
                Ok(0) => break,
                Ok(read) => {
                    crc.update(&self.buffer[..read]);
                    left -= read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(reason) => return Err(Damage::Read { role, reason }),
            }
        }
        let is_short = left > 0;
        let is_good = !is_short && crc.finalize() == part.crc;
        if is_good {
            // A crash takes the end of what was written, never something before it.
            return match self.bad {
                Some((from, to)) if count > 0 => Err(Damage::Bytes { role, from, to }),
                _ => Ok(Some(true)),
            };
        }
        // A crash leaves less than there was, not something else of that length.
        if !is_short && from == 0 {
            return Err(Damage::Foreign { role });
        }
        let (first, _) = self.bad.unwrap_or((from, part.end));
        self.bad = Some((first, part.end));
        Ok(Some(false))
    }
}

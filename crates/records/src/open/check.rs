//! Checks of the files that are there: whether they may be written, and in which way.

use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::Path;

use tradewind_proto::collector::Order;

use super::{Prepared, Settings, journal_at};
use crate::error::{Earlier, Obstacle};
use crate::journal::{Claim, Entry, Lines};
use crate::{Destination, Format, OpenError, OutputTarget, Role, results};

/// Bytes that the first line of a journal is looked for in.
const FIRST_BYTES_MAX: u64 = 1 << 20;

impl Prepared {
    pub(super) fn read_claim(&mut self) -> Result<(), OpenError> {
        let Some(path) = &self.journal else { return Ok(()) };
        let at = |reason| OpenError::opening(&journal_at(path), reason);
        let foreign = |why| OpenError::new(&journal_at(path), Obstacle::Foreign(why));
        let claim = match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_symlink() => return Err(foreign("a symbolic link")),
            Ok(metadata) if !metadata.is_file() => return Err(foreign("no regular file")),
            Ok(_) => Some(File::open(path).map_err(at)?),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(at(error)),
        };
        let claim = match claim.map(read_first).transpose().map_err(at)? {
            None | Some(First::Unfinished) => None,
            Some(First::Claim(claim)) => Some(*claim),
            Some(First::Other) => return Err(foreign("no journal that this version reads")),
        };
        // A journal whose output was moved away, or emptied, is left over.
        let is_left_over = claim.is_some() && self.is_empty()? && has_bytes(path).map_err(at)?;
        self.claim = claim.filter(|_| !is_left_over);
        Ok(())
    }

    /// Checks that directories of other tasks are not mixed with those of this job.
    pub(super) fn check_results(&self) -> Result<(), OpenError> {
        let Some(directory) = &self.settings.results else { return Ok(()) };
        let target = OutputTarget::File(directory.clone());
        let destination = Destination { role: Role::Results, target };
        let is_empty = results::is_empty(directory);
        let is_empty = is_empty.map_err(|reason| OpenError::opening(&destination, reason))?;
        if is_empty || self.claim.is_some() || self.settings.overwrite {
            return Ok(());
        }
        Err(OpenError::new(&destination, Obstacle::Exists))
    }

    /// Checks that the output is continued with the flags with which it was begun.
    pub(super) fn check_flags(&self) -> Result<(), OpenError> {
        let Some(claim) = &self.claim else { return Ok(()) };
        let Settings { format, order, .. } = self.settings;
        let has_joblog = self.joblog.as_ref().is_some_and(|file| file.path().is_some());
        let how = match claim {
            _ if claim.format != format => match claim.format {
                Format::Lines => "with --format lines",
                Format::Jsonl => "with --format jsonl",
            },
            _ if claim.ordered && order != Order::Seq => "with --ordered",
            _ if !claim.ordered && order == Order::Seq => "with --unordered",
            _ if claim.joblog && !has_joblog => "with a joblog",
            _ if !claim.joblog && has_joblog => "without a joblog",
            _ => return Ok(()),
        };
        Err(OpenError::new(self.named(), Obstacle::Begun(how)))
    }

    /// Checks that the records of failed tasks can be deleted.
    pub(super) fn check_retry(&self) -> Result<(), OpenError> {
        let needed = match (self.settings.format, self.output.path()) {
            (Format::Lines, _) => "--format jsonl: lines do not have the seq of their task",
            (Format::Jsonl, None) => {
                "a file as --output: records written elsewhere cannot be removed"
            }
            (Format::Jsonl, Some(_)) => return Ok(()),
        };
        Err(OpenError::CannotRetry { needed })
    }
}

/// Returns whether a journal covers any bytes.
/// First line of a file with the name of a journal.
enum First {
    Claim(Box<Claim>),
    /// A claim of which a crash left a part, or nothing.
    Unfinished,
    /// Something that no version wrote, or a newer one.
    Other,
}

fn read_first(file: File) -> io::Result<First> {
    let mut start = Vec::new();
    file.take(FIRST_BYTES_MAX).read_to_end(&mut start)?;
    Ok(match Claim::read(start.as_slice())? {
        Some(claim) => First::Claim(Box::new(claim)),
        None if Claim::is_unfinished(&start) => First::Unfinished,
        None => First::Other,
    })
}

fn has_bytes(journal: &Path) -> io::Result<bool> {
    let mut lines = Lines::new(BufReader::new(File::open(journal)?));
    lines.next::<Claim>()?;
    while let Some(Ok(entry)) = lines.next::<Entry>()? {
        if entry.output.or(entry.joblog).is_some_and(|part| part.end > 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads the records of the earlier run that a journal is about.
pub(super) fn read_earlier(path: &Path, other: Option<String>) -> Result<Earlier, OpenError> {
    let read = || {
        let mut lines = Lines::new(BufReader::new(File::open(path)?));
        lines.next::<Claim>()?;
        let mut earlier = Earlier { count: 0, not_ok: 0, is_complete: false, other };
        while let Some(Ok(entry)) = lines.next::<Entry>()? {
            earlier.is_complete = entry.complete;
            if !entry.is_note() {
                let counts = entry.counts();
                earlier.count += counts.total();
                earlier.not_ok += counts.not_ok();
            }
        }
        Ok(earlier)
    };
    read().map_err(|reason| OpenError::opening(&journal_at(path), reason))
}

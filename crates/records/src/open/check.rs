//! Checks of the files that are there: whether they may be written, and in which way.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind};
use std::path::Path;

use tradewind_proto::collector::Order;

use super::{Prepared, Settings, journal_at};
use crate::error::{Earlier, Obstacle};
use crate::journal::{Claim, Entry, Lines};
use crate::{Destination, Format, OpenError, OutputTarget, Role, results};

impl Prepared {
    pub(super) fn read_claim(&mut self) -> Result<(), OpenError> {
        let Some(path) = &self.journal else { return Ok(()) };
        let at = |reason| OpenError::opening(&journal_at(path), reason);
        let claim = match File::open(path) {
            Ok(file) => Claim::read(BufReader::new(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let claim = claim.map_err(at)?;
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

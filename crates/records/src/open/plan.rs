//! Plan of the changes to an output before its first record.
//!
//! Reading comes first and changes nothing, so that a job that is refused has changed nothing. The
//! changes may fail for want of room, and are then tried again from the beginning.

use std::io;
use std::path::{Path, PathBuf};

use tradewind_proto::collector::{Counts, Opened, Opening, Order};
use tradewind_proto::{JobId, JobKey, SeqSet};

use super::change::{failed, is_cancelled};
use super::{Continued, Journal, JournalPlace, Prepared, Settings};
use crate::error::Obstacle;
use crate::file::{OpenFile, sync_directory_of};
use crate::output::Reorder;
use crate::recover::Recovered;
use crate::spool::{self, Spooler};
use crate::stream::Place;
use crate::{Format, Fsync, OpenError, OutputError, Writer};

/// Changes to make to an output.
#[derive(Debug)]
pub(crate) struct Plan {
    prepared: Prepared,
    journal: PathBuf,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// It is replaced.
    Begin { job: JobId, key: Option<JobKey>, name: String },
    /// It is continued. The records that were found are known until something is changed.
    GoOn { again: Again, found: Option<Box<Recovered>>, spool: Box<SpoolStep> },
}

/// Facts that are needed to continue with a spool.
#[derive(Debug)]
struct SpoolStep {
    job: JobId,
    /// Tasks whose records are to stay in the output.
    stored: SeqSet,
    /// Tasks whose records were about to be in the spool, by the journal.
    noted: SeqSet,
    /// Contents of the spool, known until something is changed.
    found: Option<spool::Found>,
}

/// Records of a continued output that do not count, because their tasks are to run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    Nothing,
    Cancelled,
    NotOk,
}

/// Open journal, and the places of the first record.
pub(crate) struct Ready {
    pub(super) journal: OpenFile,
    pub(super) output_end: u64,
    pub(super) joblog_end: u64,
    pub(super) is_complete: bool,
    pub(crate) spooler: Option<Spooler>,
}

impl Plan {
    pub(super) fn begin(prepared: Prepared, journal: PathBuf, opening: &Opening) -> Self {
        let Opening { job, key, name, .. } = opening.clone();
        Self { prepared, journal, step: Step::Begin { job, key, name } }
    }

    /// Returns the settings of the output.
    pub(crate) fn settings(&self) -> &Settings {
        &self.prepared.settings
    }

    /// Plans to continue with the records that are there, and reads them.
    pub(super) fn go_on(
        mut prepared: Prepared,
        path: PathBuf,
        again: Again,
    ) -> Result<(Self, Continued), OpenError> {
        prepared.check_flags()?;
        let paths = prepared.paths(&path);
        let destination = prepared.named().clone();
        let rewriting = |error| OpenError::new(&destination, Obstacle::Rewrite(error));
        prepared.settle(&paths).map_err(rewriting)?;
        let found = prepared.recover(&path, |_| false)?;
        let dropped = found.dropped(again);
        if again == Again::NotOk && !dropped.is_empty() {
            prepared.check_retry()?;
        }
        let kept = match prepared.is_cut_short(again) {
            true if !dropped.is_empty() => Some(prepared.recover(&path, is_cancelled)?),
            _ => None,
        };
        let claim = &found.claim;
        let mut opened = Opened { job: claim.job, key: claim.key(), ..Opened::default() };
        let (mut stored, mut counts) = (found.stored.clone(), found.counts);
        match &kept {
            Some(kept) => (stored, counts) = (kept.stored.clone(), kept.counts),
            None => {
                dropped.to_ranges().as_slice().iter().for_each(|range| stored.remove_range(*range));
                counts = again.without(&counts);
            }
        }
        opened.again = found.again.clone();
        for range in found.stored.to_ranges().as_slice() {
            opened.again.insert_range(*range);
        }
        for range in stored.to_ranges().as_slice() {
            opened.again.remove_range(*range);
        }
        let mut spool = SpoolStep {
            job: found.claim.job,
            stored: stored.clone(),
            noted: found.spooled.clone(),
            found: None,
        };
        let spooled = spool.find(&path, again).map_err(|reason| unreadable(&path, reason))?;
        opened.spooled = spooled.seqs.clone();
        for range in spooled.seqs.to_ranges().as_slice() {
            stored.insert_range(*range);
            opened.again.remove_range(*range);
        }
        counts.add_all(&spooled.counts);
        spool.found = Some(spooled);
        (opened.stored, opened.counts) = (stored, counts);
        if prepared.settings.fsync != Fsync::None {
            prepared.sync(&path)?;
        }
        let cut_bytes = prepared.beyond(&found)?;
        let journal = Some(Journal(JournalPlace::Beside(path.clone())));
        let step = Step::GoOn { again, found: Some(Box::new(found)), spool: Box::new(spool) };
        let plan = Self { prepared, journal: path, step };
        Ok((plan, Continued { opened, journal, cut_bytes }))
    }

    /// Carries the plan out. May be tried again.
    pub(crate) fn carry_out(&mut self) -> Result<Ready, OutputError> {
        let ready = match &mut self.step {
            Step::Begin { job, key, name } => {
                let claim = self.prepared.new_claim(*job, *key, name.clone());
                let is_synced = self.prepared.settings.fsync != Fsync::None;
                let journal = self.prepared.replace(&self.journal, &claim)?;
                let spooler = Some(Spooler::begin(&self.journal, *job, is_synced)?);
                Ready { journal, output_end: 0, joblog_end: 0, is_complete: false, spooler }
            }
            Step::GoOn { again, found, spool } => {
                let mut ready = self.prepared.go_on(&self.journal, *again, found.take())?;
                let is_synced = self.prepared.settings.fsync != Fsync::None;
                ready.spooler = Some(spool.go_on(&self.journal, *again, is_synced)?);
                ready
            }
        };
        if self.prepared.settings.fsync != Fsync::None {
            let joblog = self.prepared.joblog.as_ref();
            let files = [Some(&self.prepared.output), joblog, Some(&ready.journal)];
            for file in files.into_iter().flatten() {
                let Some(path) = file.path() else { continue };
                sync_directory_of(path).map_err(|reason| failed(file.destination(), reason))?;
            }
        }
        Ok(ready)
    }

    /// Returns the files to put into order at the end: tasks that ran again were stored after those
    /// that did not.
    pub(crate) fn reorder(&self) -> Option<Reorder> {
        let Settings { format, order, .. } = self.prepared.settings;
        let paths = self.prepared.paths(&self.journal);
        let is_sorted_last = matches!(self.step, Step::GoOn { .. })
            && order == Order::Seq
            && format == Format::Jsonl
            && paths.output.is_some();
        let destination = self.prepared.named().clone();
        is_sorted_last.then(|| Reorder::new(paths, destination))
    }

    pub(crate) fn into_writer(self, ready: Ready) -> Writer<OpenFile> {
        let Ready { journal, output_end, joblog_end, is_complete, spooler: _ } = ready;
        let place = |file: OpenFile, end: u64| -> Place<OpenFile> {
            let end = file.path().is_some().then_some(end);
            file.into_place(end)
        };
        let joblog = self.prepared.joblog.map(|file| place(file, joblog_end));
        let output = place(self.prepared.output, output_end);
        let Settings { format, fsync, extras, .. } = self.prepared.settings;
        let journal = Some(journal.into_place(None));
        let writer = Writer::new(format, fsync, output, joblog, journal);
        let mut writer = writer.with_extras(extras);
        writer.set_complete(is_complete);
        writer
    }
}

impl SpoolStep {
    /// Finds the records in the spool that count.
    fn find(&self, journal: &Path, again: Again) -> io::Result<spool::Found> {
        let mut medium = spool::Directory::new(spool::beside(journal));
        let is_written = |seq| self.stored.contains(seq);
        let mut found = spool::find(&mut medium, self.job, is_written, &self.noted)?;
        let dropped = match again {
            Again::Nothing => SeqSet::new(),
            Again::Cancelled => found.cancelled.clone(),
            Again::NotOk => found.not_ok.clone(),
        };
        found.leave_out(&dropped, |counts| again.without(counts));
        Ok(found)
    }

    /// Makes the spool ready. May be tried again.
    fn go_on(
        &mut self,
        journal: &Path,
        again: Again,
        is_synced: bool,
    ) -> Result<Spooler, OutputError> {
        let found = match self.found.take() {
            Some(found) => found,
            None => {
                let found = self.find(journal, again);
                found.map_err(|reason| failed(&spool::destination(journal), reason))?
            }
        };
        Spooler::go_on(journal, self.job, is_synced, &found)
    }
}

impl Recovered {
    /// Returns the tasks whose records are to be replaced.
    pub(super) fn dropped(&self, again: Again) -> SeqSet {
        match again {
            Again::Nothing => SeqSet::new(),
            Again::Cancelled => self.cancelled.clone(),
            Again::NotOk => self.not_ok.clone(),
        }
    }
}

impl Again {
    /// Returns the numbers of records by status without those that are to be replaced.
    fn without(self, counts: &Counts) -> Counts {
        match self {
            Self::Nothing => *counts,
            Self::Cancelled => Counts { cancelled: 0, ..*counts },
            Self::NotOk => Counts { ok: counts.ok, skipped: counts.skipped, ..Counts::default() },
        }
    }
}

fn unreadable(journal: &Path, reason: io::Error) -> OpenError {
    OpenError::opening(&spool::destination(journal), reason)
}

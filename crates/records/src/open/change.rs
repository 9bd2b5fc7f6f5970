//! Changes to what is there, before the first record: replacing, cutting and rewriting it.

use std::io::{self, BufReader, Write};
use std::path::Path;

use tradewind_proto::{JobId, JobKey};

use super::plan::{Again, Ready};
use super::{Prepared, Settings, journal_at, open_file};
use crate::error::Obstacle;
use crate::file::OpenFile;
use crate::journal::{Claim, Entry};
use crate::recover::{Damage, Recovered, recover_until};
use crate::rewrite::{self, Paths};
use crate::spool;
use crate::stream::Device;
use crate::{Destination, Format, OpenError, OutputError, Role};

impl Prepared {
    pub(super) fn paths(&self, journal: &Path) -> Paths {
        let joblog = self.joblog.as_ref().and_then(OpenFile::path);
        Paths {
            output: self.output.path().map(Path::to_owned),
            joblog: joblog.map(Path::to_owned),
            journal: journal.to_owned(),
        }
    }

    pub(super) fn new_claim(&self, job: JobId, key: Option<JobKey>, name: String) -> Claim {
        let Settings { format, order, .. } = self.settings;
        let has_joblog = self.joblog.as_ref().is_some_and(|file| file.path().is_some());
        Claim::new(job, name, format, order, has_joblog).with_key(key)
    }

    /// Returns whether the output is cut before the first cancelled task: lines do not have the seq
    /// of their task, so those after it go as well. Standard output stays as it is: a cancelled
    /// task has written nothing to it.
    pub(super) fn is_cut_short(&self, again: Again) -> bool {
        again == Again::Cancelled
            && self.output.path().is_some()
            && self.settings.format == Format::Lines
    }

    /// Replaces all that is there. Returns the new journal.
    pub(super) fn replace(&mut self, path: &Path, claim: &Claim) -> Result<OpenFile, OutputError> {
        let destination = journal_at(path);
        let at = |reason| failed(&destination, reason);
        let mut journal = OpenFile::open(Role::Journal, &destination.target).map_err(at)?;
        // An old claim must not vouch for new bytes, nor the new claim for old ones.
        if journal.len().map_err(at)? > 0 {
            journal.cut(0).and_then(|()| journal.sync()).map_err(at)?;
        }
        let generation = self.claim.as_ref().map_or(0, |claim| claim.generation);
        self.paths(path).clean(generation).map_err(at)?;
        for file in self.files().filter(|file| file.path().is_some()) {
            let destination = file.destination().clone();
            file.cut(0).map_err(|reason| failed(&destination, reason))?;
        }
        let mut text = Vec::new();
        claim.encode(&mut text);
        // Before the first record: a start that finds one must know the job that it belongs to.
        journal.write_all(&text).map_err(at)?;
        Ok(journal)
    }

    pub(super) fn go_on(
        &mut self,
        path: &Path,
        again: Again,
        found: Option<Box<Recovered>>,
    ) -> Result<Ready, OutputError> {
        let paths = self.paths(path);
        let named = self.named().clone();
        let rewriting = |reason| OutputError::Rewrite { destination: named.clone(), reason };
        let unread = |error: OpenError| rewriting(io::Error::other(error.to_string()));
        let mut found = match found {
            Some(found) => *found,
            None => {
                self.settle(&paths).map_err(rewriting)?;
                self.recover(path, |_| false).map_err(unread)?
            }
        };
        let dropped = found.dropped(again);
        self.cut(path, &found)?;
        if !dropped.is_empty() {
            if self.is_cut_short(again) {
                let kept = self.recover(path, is_cancelled).map_err(unread)?;
                rewrite::cut_journal(&paths, kept.journal_end).map_err(rewriting)?;
            } else if paths.output.is_some() {
                rewrite::rewrite(&paths, &dropped).map_err(rewriting)?;
                self.settle(&paths).map_err(rewriting)?;
            } else {
                rewrite::delete_from_journal(&paths, &dropped).map_err(rewriting)?;
            }
            found = self.recover(path, |_| false).map_err(unread)?;
            self.cut(path, &found)?;
        }
        let Recovered { output_end, joblog_end, journal_end, is_complete, .. } = found;
        let at = journal_at(path);
        let journal = OpenFile::open(Role::Journal, &at.target);
        let mut journal = journal.map_err(|reason| failed(&at, reason))?;
        journal.go_to(journal_end).map_err(|reason| failed(&at, reason))?;
        Ok(Ready { journal, output_end, joblog_end, is_complete, spooler: None })
    }

    /// Finishes a rewrite that an earlier start has committed.
    pub(super) fn settle(&mut self, paths: &Paths) -> io::Result<()> {
        for file in rewrite::settle(paths)? {
            match file.destination().role {
                Role::Joblog => {
                    let old = self.joblog.take();
                    self.joblog = old.map(|old| file.named(old.destination().clone()));
                }
                Role::Output | Role::Journal | Role::Results | Role::Spool => {
                    self.output = file.named(self.output.destination().clone());
                }
            }
        }
        Ok(())
    }

    /// Makes all that was read survive a crash of the machine: it counts as stored from here on, and the
    /// process that wrote it may have been killed before it synced it.
    pub(super) fn sync(&mut self, path: &Path) -> Result<(), OpenError> {
        let mut journal = open_file(Role::Journal, &journal_at(path).target)?;
        for file in self.files().chain([&mut journal]) {
            let synced = file.sync();
            synced.map_err(|reason| OpenError::opening(file.destination(), reason))?;
        }
        let synced = spool::Directory::new(spool::beside(path)).sync_all();
        synced.map_err(|reason| OpenError::opening(&spool::destination(path), reason))
    }

    pub(super) fn recover(
        &self,
        path: &Path,
        is_end: impl Fn(&Entry) -> bool,
    ) -> Result<Recovered, OpenError> {
        let journal = open_file(Role::Journal, &journal_at(path).target)?;
        let kept = |file: &&OpenFile| file.path().is_some();
        let output = Some(&self.output).filter(kept).map(OpenFile::reader);
        let joblog = self.joblog.as_ref().filter(kept).map(OpenFile::reader);
        let recovered = recover_until(BufReader::new(journal.reader()), output, joblog, is_end);
        recovered.map_err(|damage| {
            let destination = match (damage.role(), &self.joblog) {
                (Role::Joblog, Some(joblog)) => joblog.destination().clone(),
                (Role::Journal, _) => journal_at(path),
                _ => self.output.destination().clone(),
            };
            let obstacle = match damage {
                Damage::Changed { .. } => Obstacle::Changed,
                damage => Obstacle::Damaged(damage),
            };
            OpenError::new(&destination, obstacle)
        })
    }

    /// Returns the bytes that do not count.
    pub(super) fn beyond(&self, found: &Recovered) -> Result<u64, OpenError> {
        let files =
            [(Some(&self.output), found.output_end), (self.joblog.as_ref(), found.joblog_end)];
        let mut beyond = 0;
        for (file, end) in files {
            let Some(file) = file.filter(|file| file.path().is_some()) else { continue };
            let len = file.len();
            let len = len.map_err(|reason| OpenError::opening(file.destination(), reason))?;
            beyond += len.saturating_sub(end);
        }
        Ok(beyond)
    }

    /// Cuts off the bytes that do not count.
    ///
    /// The journal first: if the process is killed then, bytes are left that no entry covers, and
    /// the next start cuts them off. The other way round new records could be written where an
    /// entry still vouches for the old ones.
    fn cut(&mut self, journal: &Path, to: &Recovered) -> Result<(), OutputError> {
        let at = journal_at(journal);
        let mut journal =
            OpenFile::open(Role::Journal, &at.target).map_err(|reason| failed(&at, reason))?;
        let ends = [to.journal_end, to.output_end, to.joblog_end];
        let files = [Some(&mut journal), Some(&mut self.output), self.joblog.as_mut()];
        for (file, end) in files.into_iter().zip(ends) {
            let Some(file) = file.filter(|file| file.path().is_some()) else { continue };
            let destination = file.destination().clone();
            let cut = |file: &mut OpenFile| {
                if file.len()? != end {
                    file.cut(end)?;
                    file.sync()?;
                }
                file.go_to(end)
            };
            cut(file).map_err(|reason| failed(&destination, reason))?;
        }
        Ok(())
    }
}

pub(super) fn is_cancelled(entry: &Entry) -> bool {
    entry.counts().cancelled > 0
}

pub(super) fn failed(destination: &Destination, reason: io::Error) -> OutputError {
    OutputError::Io { destination: destination.clone(), reason }
}

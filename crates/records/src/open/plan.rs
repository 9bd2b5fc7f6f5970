//! What is to be done to an output before its first record, and the output after that.
//!
//! Reading comes first and changes nothing, so that a job that is refused has changed nothing. The
//! rest may fail for want of room, and is then tried again from its beginning.

use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use tradewind_proto::collector::{Counts, Opened, Order, Records};
use tradewind_proto::{JobId, Seq, SeqRange, SeqSet};

use super::file::{OpenFile, sync_directory_of};
use super::format::tag;
use super::journal::{Claim, Entry};
use super::open::{Continued, Journal, Prepared, Settings, journal_at, open_file};
use super::recover::{Damage, Recovered, recover_until};
use super::results::Results;
use super::rewrite::{self, Paths};
use super::said::Said;
use super::spool::{self, Spooler};
use super::stream::{Device, Place};
use super::{Destination, Extras, Format, Fsync, OpenError, Output, OutputError, Role, Writer};

/// What is to be done to what is there.
#[derive(Debug)]
pub(super) struct Plan {
    prepared: Prepared,
    journal: PathBuf,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// It is replaced.
    Begin { job: JobId, name: String },
    /// It is gone on with. What was found in it is known until something is changed.
    GoOn { again: Again, found: Option<Box<Recovered>>, spool: Box<SpoolStep> },
}

/// What is needed to go on with a spool.
#[derive(Debug)]
struct SpoolStep {
    job: JobId,
    /// In the output, of what is to stay there.
    stored: SeqSet,
    /// Of which the journal says that they were about to be in the spool.
    noted: SeqSet,
    /// What was found in it is known until something is changed.
    found: Option<spool::Found>,
}

/// What of a continued output is not to count, because it is to be run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    Nothing,
    Cancelled,
    NotOk,
}

/// The output that the user named.
#[derive(Debug)]
pub struct FileOutput {
    state: State,
    /// What has to be brought into the order of the input at the end.
    reorder: Option<Reorder>,
    is_reordered: bool,
    /// For their locks.
    locked: Vec<OpenFile>,
    extras: Extras,
    results: Option<Results>,
    said: Said,
    spooler: Option<Spooler>,
}

#[derive(Debug)]
enum State {
    Planned(Box<Plan>),
    Open(Box<Writer<OpenFile>>),
    /// In between.
    Nothing,
}

#[derive(Debug)]
struct Reorder {
    paths: Paths,
    destination: Destination,
    /// It is written anew, and has to be put into its place.
    generation: Option<u64>,
}

/// Where the first record will be.
struct Ready {
    journal: OpenFile,
    output_end: u64,
    joblog_end: u64,
    is_complete: bool,
    spooler: Option<Spooler>,
}

impl Plan {
    pub(super) fn begin(prepared: Prepared, journal: PathBuf, job: JobId, name: String) -> Self {
        Self { prepared, journal, step: Step::Begin { job, name } }
    }

    /// Reads what is there.
    pub(super) fn go_on(
        mut prepared: Prepared,
        path: PathBuf,
        again: Again,
    ) -> Result<(Self, Continued), OpenError> {
        prepared.check_flags()?;
        let paths = prepared.paths(&path);
        let destination = prepared.named().clone();
        prepared.settle(&paths).map_err(|reason| OpenError::Rewrite { destination, reason })?;
        let found = prepared.recover(&path, |_| false)?;
        let dropped = found.dropped(again);
        if again == Again::NotOk && !dropped.is_empty() {
            prepared.check_retry()?;
        }
        let kept = match prepared.is_cut_short(again) {
            true if !dropped.is_empty() => Some(prepared.recover(&path, is_cancelled)?),
            _ => None,
        };
        let mut opened = Opened { job: found.claim.job, ..Opened::default() };
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
        let cut_bytes = prepared.beyond(&found)?;
        let journal = Some(Journal(path.clone()));
        let step = Step::GoOn { again, found: Some(Box::new(found)), spool: Box::new(spool) };
        let plan = Self { prepared, journal: path, step };
        Ok((plan, Continued { opened, journal, cut_bytes }))
    }

    /// Does what is to be done. May be tried again.
    fn carry_out(&mut self) -> Result<Ready, OutputError> {
        let ready = match &mut self.step {
            Step::Begin { job, name } => {
                let claim = self.prepared.new_claim(*job, name.clone());
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

    /// What has to be put into order when all is there: tasks that ran again were stored after
    /// those that did not.
    fn reorder(&self) -> Option<Reorder> {
        let Settings { format, order, .. } = self.prepared.settings;
        let paths = self.prepared.paths(&self.journal);
        let is_sorted_last = matches!(self.step, Step::GoOn { .. })
            && order == Order::Seq
            && format == Format::Jsonl
            && paths.output.is_some();
        let destination = self.prepared.named().clone();
        is_sorted_last.then_some(Reorder { paths, destination, generation: None })
    }

    fn into_writer(self, ready: Ready) -> Writer<OpenFile> {
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

impl Prepared {
    fn paths(&self, journal: &Path) -> Paths {
        let joblog = self.joblog.as_ref().and_then(OpenFile::path);
        Paths {
            output: self.output.path().map(Path::to_owned),
            joblog: joblog.map(Path::to_owned),
            journal: journal.to_owned(),
        }
    }

    fn new_claim(&self, job: JobId, name: String) -> Claim {
        let Settings { format, order, .. } = self.settings;
        let has_joblog = self.joblog.as_ref().is_some_and(|file| file.path().is_some());
        Claim::new(job, name, format, order, has_joblog)
    }

    /// Lines say not whose they are, so those after a cancelled task's go as well. What went to
    /// standard output stays there: of a cancelled task that is nothing.
    fn is_cut_short(&self, again: Again) -> bool {
        again == Again::Cancelled
            && self.output.path().is_some()
            && self.settings.format == Format::Lines
    }

    /// Replaces whatever is there, and gives the new journal.
    fn replace(&mut self, path: &Path, claim: &Claim) -> Result<OpenFile, OutputError> {
        let destination = journal_at(path);
        let at = |reason| failed(&destination, reason);
        let mut journal = OpenFile::open(Role::Journal, &destination.target).map_err(at)?;
        // An old claim must not vouch for what will be written, nor the new one for what was.
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
        // Before the first record: whoever finds one must know whose it is.
        journal.write_all(&text).map_err(at)?;
        Ok(journal)
    }

    fn go_on(
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
                rewrite::strike(&paths, &dropped).map_err(rewriting)?;
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

    /// Ends what an earlier start was about to do.
    fn settle(&mut self, paths: &Paths) -> io::Result<()> {
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

    fn recover(
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
            match damage {
                Damage::Changed { .. } => OpenError::Changed { destination },
                damage => OpenError::Damaged { destination, damage },
            }
        })
    }

    /// How much there is that does not count.
    fn beyond(&self, found: &Recovered) -> Result<u64, OpenError> {
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

    /// Cuts off what does not count.
    ///
    /// The journal first: then there are only bytes of which nobody speaks, and should this be
    /// where we are killed, the next start cuts them off. The other way round new records could
    /// come to stand where an entry still speaks of what was there.
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

impl SpoolStep {
    /// Finds out what the spool has that counts.
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

    /// Makes it ready. May be tried again.
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
    /// Tasks whose records are to be replaced.
    fn dropped(&self, again: Again) -> SeqSet {
        match again {
            Again::Nothing => SeqSet::new(),
            Again::Cancelled => self.cancelled.clone(),
            Again::NotOk => self.not_ok.clone(),
        }
    }
}

impl Again {
    /// How many records there are of each status without those that are to be replaced.
    fn without(self, counts: &Counts) -> Counts {
        match self {
            Self::Nothing => *counts,
            Self::Cancelled => Counts { cancelled: 0, ..*counts },
            Self::NotOk => Counts { ok: counts.ok, skipped: counts.skipped, ..Counts::default() },
        }
    }
}

fn is_cancelled(entry: &Entry) -> bool {
    entry.counts().cancelled > 0
}

fn unreadable(journal: &Path, reason: io::Error) -> OpenError {
    OpenError::opening(&spool::destination(journal), reason)
}

fn failed(destination: &Destination, reason: io::Error) -> OutputError {
    OutputError::Io { destination: destination.clone(), reason }
}

impl FileOutput {
    pub(super) fn planned(plan: Plan) -> Self {
        let settings = plan.prepared.settings.clone();
        Self::new(State::Planned(Box::new(plan)), &settings)
    }

    /// Where no journal can be, each start is the first.
    pub(super) fn unkept(prepared: Prepared, job: JobId) -> Self {
        let Prepared { settings, output, joblog, .. } = prepared;
        let joblog = joblog.map(|file| file.into_place(None));
        let Settings { format, fsync, extras, .. } = settings;
        let writer = Writer::new(format, fsync, output.into_place(None), joblog, None);
        let unkept = Self::new(State::Open(Box::new(writer.with_extras(extras))), &settings);
        Self { spooler: Some(Spooler::unnamed(job)), ..unkept }
    }

    fn new(state: State, settings: &Settings) -> Self {
        Self {
            state,
            reorder: None,
            is_reordered: false,
            locked: Vec::new(),
            extras: settings.extras,
            results: settings.results.clone().map(Results::new),
            said: Said::new(settings.say),
            spooler: None,
        }
    }

    fn spooler(&mut self) -> Result<&mut Spooler, OutputError> {
        self.spooler.as_mut().ok_or(OutputError::NoSpool)
    }

    fn writer(&mut self) -> &mut Writer<OpenFile> {
        match &mut self.state {
            State::Open(writer) => writer,
            State::Planned(_) | State::Nothing => panic!("an output begins before its records"),
        }
    }
}

impl Output for FileOutput {
    fn begin(&mut self) -> Result<(), OutputError> {
        self.results.as_ref().map_or(Ok(()), Results::begin)?;
        let State::Planned(plan) = &mut self.state else { return Ok(()) };
        let mut ready = plan.carry_out()?;
        self.spooler = ready.spooler.take();
        self.reorder = plan.reorder();
        if let State::Planned(plan) = std::mem::replace(&mut self.state, State::Nothing) {
            self.state = State::Open(Box::new(plan.into_writer(ready)));
        }
        Ok(())
    }

    fn write(&mut self, records: &[Records]) -> Result<(), OutputError> {
        for record in records.iter().flat_map(Records::iter) {
            let tag = if self.extras.tag { tag(record) } else { Vec::new() };
            self.said.add(record, &tag);
        }
        if let Some(results) = &mut self.results {
            results.add(records);
            // It commits by itself, and what is in the journal is there as well.
            let drained = results.drain();
            return self.writer().write(records).and(drained);
        }
        self.writer().write(records)
    }

    fn commit(&mut self) -> Result<(), OutputError> {
        self.results.as_mut().map_or(Ok(()), Results::drain)?;
        self.writer().commit()?;
        self.said.flush();
        Ok(())
    }

    fn sync(&mut self) -> Result<(), OutputError> {
        // Without a beginning there is nothing to sync.
        if matches!(self.state, State::Planned(_)) {
            return Ok(());
        }
        self.commit()?;
        self.spooler.as_mut().map_or(Ok(()), Spooler::sync)?;
        self.writer().sync()
    }

    fn spool(&mut self, records: &[Records]) -> Result<u64, OutputError> {
        self.writer().note_spooled(records)?;
        self.spooler()?.append(records)
    }

    fn unspool(&mut self, range: SeqRange, bytes_max: usize) -> Result<Vec<Records>, OutputError> {
        self.spooler()?.read(range, bytes_max)
    }

    fn release(&mut self, below: Seq) -> u64 {
        self.spooler.as_mut().map_or(0, |spooler| spooler.release(below))
    }

    fn finish(&mut self, is_whole: bool) -> Result<(), OutputError> {
        if self.is_reordered {
            return Ok(());
        }
        // What may still be added to is put into order when it is whole.
        if !is_whole {
            return self.writer().finish(false);
        }
        let Some(mut reorder) = self.reorder.take() else { return self.writer().finish(true) };
        let finished = self.put_into_order(&mut reorder);
        if finished.is_err() {
            self.reorder = Some(reorder);
        }
        finished
    }
}

impl FileOutput {
    fn put_into_order(&mut self, reorder: &mut Reorder) -> Result<(), OutputError> {
        let Reorder { paths, destination, generation } = reorder;
        let failed = |reason| OutputError::Rewrite { destination: destination.clone(), reason };
        if generation.is_none() {
            self.writer().sync()?;
            if rewrite::is_in_order(paths).map_err(failed)? {
                return self.writer().finish(true);
            }
            *generation = Some(rewrite::rewrite(paths, &SeqSet::new()).map_err(failed)?);
        }
        self.locked = rewrite::settle(paths).map_err(failed)?;
        self.is_reordered = true;
        Ok(())
    }
}

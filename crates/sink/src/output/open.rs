//! Opening what the user named, without harm to what is there.
//!
//! In two steps: at the start of the program, when nothing but the names is known, and when the
//! job is known to which the output is to belong.

use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};

use tradewind_proto::collector::Records;
use tradewind_proto::collector::{Opened, Opening, Order};
use tradewind_proto::message::Start;
use tradewind_proto::{JobId, SeqSet};

use super::file::{OpenFile, sync_directory_of};
use super::hashes::TaskHashes;
use super::journal::{self, Claim, Entry, Lines};
use super::recover::{Damage, Recovered, recover_until};
use super::rewrite::{self, Paths};
use super::stream::{Device, Place};
use super::{Destination, Format, Fsync, Output, OutputError, OutputTarget, Role, Writer};

/// What to open.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where records go.
    pub output: OutputTarget,
    /// How they look there.
    pub format: Format,
    /// Their order.
    pub order: Order,
    /// Where a line about each goes.
    pub joblog: Option<OutputTarget>,
    /// Files that are not empty are replaced rather than refused.
    pub overwrite: bool,
    /// What a crash of the machine may take away.
    pub fsync: Fsync,
}

/// What is to be written, before the job is known. Until it is, nothing that exists is touched.
#[derive(Debug)]
pub struct Prepared {
    settings: Settings,
    output: OpenFile,
    joblog: Option<OpenFile>,
    /// Where the journal is or will be.
    journal: Option<PathBuf>,
    claim: Option<Claim>,
}

/// What was there of the job.
#[derive(Debug)]
pub struct Continued {
    /// For the collector.
    pub opened: Opened,
    /// The journal, if there is one.
    pub journal: Option<Journal>,
    /// So much was written and cut off, because no record is known to end with it.
    pub cut_bytes: u64,
}

/// The journal's file, to be removed when nothing is left to do.
#[derive(Debug)]
pub struct Journal(PathBuf);

/// The output that the user named.
#[derive(Debug)]
pub struct FileOutput {
    writer: Writer<OpenFile>,
    /// What has to be brought into the order of the input at the end.
    reorder: Option<Reorder>,
    is_reordered: bool,
    /// For their locks.
    locked: Vec<OpenFile>,
}

#[derive(Debug)]
struct Reorder {
    paths: Paths,
    destination: Destination,
    /// It is written anew, and has to be put into its place.
    generation: Option<u64>,
}

/// Why records cannot be written where the user wants them.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory that it should be in does not exist.
    #[error("directory {directory:?} of {destination} does not exist")]
    NoDirectory {
        /// What was to be opened.
        destination: Destination,
        /// What is missing.
        directory: PathBuf,
    },
    /// It is a directory.
    #[error("{destination} is a directory")]
    Directory {
        /// What was to be opened.
        destination: Destination,
    },
    /// Permissions forbid it.
    #[error("no permission to write {destination}")]
    Denied {
        /// What was to be opened.
        destination: Destination,
    },
    /// Something is in it already.
    #[error("{destination} exists already; give --overwrite to replace it")]
    Exists {
        /// What was to be opened.
        destination: Destination,
    },
    /// Records and joblog would end up in one file.
    #[error("output and joblog are the same: {destination}")]
    Same {
        /// The second of the two.
        destination: Destination,
    },
    /// Another process writes it.
    #[error("{destination} is in use by another process")]
    InUse {
        /// What was to be opened.
        destination: Destination,
    },
    /// It has records of another job, which is not to be resumed.
    #[error(
        "{destination} holds {count} records of another job, {name} ({job}); --resume goes on with \
         it, --overwrite replaces it"
    )]
    OtherJob {
        /// What was to be opened.
        destination: Destination,
        /// How many records it has.
        count: u64,
        /// What the other job is called.
        name: String,
        /// Its id.
        job: JobId,
    },
    /// It was begun in another way.
    #[error("{destination} was begun {how}; go on with it in the same way")]
    Begun {
        /// What was to be opened.
        destination: Destination,
        /// With which flag.
        how: &'static str,
    },
    /// It is not what it was when it was written.
    #[error("{destination} is damaged: {damage}; --overwrite replaces it")]
    Damaged {
        /// What is damaged.
        destination: Destination,
        /// In which way.
        damage: Damage,
    },
    /// The records of failed tasks cannot be taken out of it.
    #[error("--retry-failed needs {needed}")]
    CannotRetry {
        /// What the user can do.
        needed: &'static str,
    },
    /// It cannot be written anew, without the records of tasks that run again.
    #[error("cannot rewrite {destination}: {reason}")]
    Rewrite {
        /// What was to be written anew.
        destination: Destination,
        /// What the system says.
        reason: io::Error,
    },
    /// It cannot be opened for another reason.
    #[error("cannot open {destination}: {reason}")]
    Io {
        /// What was to be opened.
        destination: Destination,
        /// What the system says.
        reason: io::Error,
    },
}

/// Opens the output, and the joblog if there is to be one, and changes nothing.
///
/// A named pipe is opened when someone opens its other end.
///
/// # Errors
///
/// When one of them cannot be opened or must not be written.
pub fn prepare(settings: &Settings) -> Result<Prepared, OpenError> {
    let output = open_file(Role::Output, &settings.output)?;
    let joblog = match &settings.joblog {
        Some(target) => Some(open_file(Role::Joblog, target)?),
        None => None,
    };
    let journal = output.path().or_else(|| joblog.as_ref()?.path()).map(journal_of);
    let settings = settings.clone();
    let mut prepared = Prepared { settings, output, joblog, journal, claim: None };
    prepared.check_names()?;
    prepared.read_claim()?;
    let may_hold_something = prepared.claim.is_some() || prepared.settings.overwrite;
    for file in prepared.files() {
        let destination = file.destination().clone();
        let is_ours = file.path().is_some();
        let opening = |reason| OpenError::opening(&destination, reason);
        if !file.lock().map_err(opening)? {
            return Err(OpenError::InUse { destination });
        }
        let is_empty = !is_ours || file.len().map_err(opening)? == 0;
        if !is_empty && !may_hold_something {
            return Err(OpenError::Exists { destination });
        }
    }
    Ok(prepared)
}

/// What of a continued output is not to count, because it is to be run again.
#[derive(Clone, Copy)]
enum Again {
    Nothing,
    Cancelled,
    NotOk,
}

impl Settings {
    /// Can records of failed tasks be taken out again?
    pub(super) fn can_retry(&self) -> bool {
        self.format == Format::Jsonl && self.output != OutputTarget::Stdout
    }
}

impl Prepared {
    /// What was to be opened.
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Makes the output ready for a job: for a new one, or for one that it has a part of already,
    /// which takes as long as reading it.
    ///
    /// # Errors
    ///
    /// When the output belongs to another job, when it is damaged, or cannot be read or written.
    pub fn open(self, opening: &Opening) -> Result<(FileOutput, Continued), OpenError> {
        let Some(journal) = self.journal.clone() else { return self.begin_unkept(opening.job) };
        let again = match (&self.claim, opening.start) {
            (None, _) => return self.begin(&journal, opening),
            // A sink that was started again while the ventilator goes on.
            (Some(claim), _) if claim.job == opening.job => Again::Nothing,
            (Some(_), Start::Resume) => Again::Cancelled,
            (Some(_), Start::RetryFailed) => Again::NotOk,
            (Some(_), Start::Anew) if self.settings.overwrite => {
                return self.begin(&journal, opening);
            }
            (Some(claim), Start::Anew) => {
                return Err(OpenError::OtherJob {
                    destination: self.named().clone(),
                    count: count_records(&journal)?,
                    name: claim.name.clone(),
                    job: claim.job,
                });
            }
        };
        self.go_on(journal, again)
    }

    /// Where no journal can be, each start is the first.
    fn begin_unkept(self, job: JobId) -> Result<(FileOutput, Continued), OpenError> {
        let (output, joblog) = (self.output.into_place(None), self.joblog);
        let joblog = joblog.map(|file| file.into_place(None));
        let Settings { format, fsync, .. } = self.settings;
        let writer = Writer::new(format, fsync, output, joblog, None);
        let opened = Opened { job, ..Opened::default() };
        let continued = Continued { opened, journal: None, cut_bytes: 0 };
        Ok((
            FileOutput { writer, reorder: None, is_reordered: false, locked: Vec::new() },
            continued,
        ))
    }

    /// Replaces whatever is there.
    fn begin(
        mut self,
        path: &Path,
        opening: &Opening,
    ) -> Result<(FileOutput, Continued), OpenError> {
        let destination = journal_at(path);
        let failed = |reason| OpenError::opening(&destination, reason);
        let mut journal = open_file(Role::Journal, &destination.target)?;
        // An old claim must not vouch for what will be written, nor the new one for what was.
        if journal.len().map_err(failed)? > 0 {
            journal.cut(0).and_then(|()| journal.sync()).map_err(failed)?;
        }
        let generation = self.claim.as_ref().map_or(0, |claim| claim.generation);
        self.paths(path).clean(generation).map_err(failed)?;
        for file in self.files().filter(|file| file.path().is_some()) {
            let destination = file.destination().clone();
            file.cut(0).map_err(|reason| OpenError::opening(&destination, reason))?;
        }
        let Settings { format, order, .. } = self.settings;
        let has_joblog = self.joblog.as_ref().is_some_and(|file| file.path().is_some());
        let claim = Claim::new(opening.job, opening.name.clone(), format, order, has_joblog);
        let mut text = Vec::new();
        claim.encode(&mut text);
        // Before the first record: whoever finds one must know whose it is.
        journal.write_all(&text).map_err(failed)?;
        let opened = Opened { job: opening.job, ..Opened::default() };
        let continued = Continued { opened, journal: Some(Journal(path.to_owned())), cut_bytes: 0 };
        let writer = self.into_writer(journal, 0, 0)?;
        Ok((
            FileOutput { writer, reorder: None, is_reordered: false, locked: Vec::new() },
            continued,
        ))
    }

    fn go_on(mut self, path: PathBuf, again: Again) -> Result<(FileOutput, Continued), OpenError> {
        self.check_flags()?;
        if matches!(again, Again::NotOk) {
            self.check_retry()?;
        }
        let paths = self.paths(&path);
        let named = self.named().clone();
        let rewriting = |reason| OpenError::Rewrite { destination: named.clone(), reason };
        self.settle(&paths).map_err(rewriting)?;

        // Lines say not whose they are, so those after a cancelled task's go as well. What went to
        // standard output stays there: of a cancelled task that is nothing.
        let is_cut_short = matches!(again, Again::Cancelled)
            && paths.output.is_some()
            && self.settings.format == Format::Lines;
        let is_end = |entry: &Entry| is_cut_short && entry.counts().cancelled > 0;
        let (mut journal, mut recovered) = self.recover(&path, is_end)?;
        let cut_bytes = self.cut(&mut journal, &recovered)?;

        let dropped = match again {
            Again::Nothing => SeqSet::new(),
            Again::Cancelled => recovered.cancelled.clone(),
            Again::NotOk => recovered.not_ok.clone(),
        };
        if !dropped.is_empty() {
            if paths.output.is_some() {
                rewrite::rewrite(&paths, &dropped).map_err(rewriting)?;
                self.settle(&paths).map_err(rewriting)?;
            } else {
                rewrite::strike(&paths, &dropped).map_err(rewriting)?;
            }
            (journal, recovered) = self.recover(&path, |_| false)?;
            self.cut(&mut journal, &recovered)?;
        }

        let opened =
            Opened { job: recovered.claim.job, stored: recovered.stored, counts: recovered.counts };
        // Tasks that run again are stored after those that did not.
        let is_sorted_last = recovered.claim.ordered && self.settings.format == Format::Jsonl;
        let reorder = (is_sorted_last && paths.output.is_some()).then_some(Reorder {
            paths,
            destination: named,
            generation: None,
        });
        let writer = self.into_writer(journal, recovered.output_end, recovered.joblog_end)?;
        let journal = Some(Journal(path));
        let continued = Continued { opened, journal, cut_bytes };
        Ok((FileOutput { writer, reorder, is_reordered: false, locked: Vec::new() }, continued))
    }

    fn files(&mut self) -> impl Iterator<Item = &mut OpenFile> {
        std::iter::once(&mut self.output).chain(&mut self.joblog)
    }

    fn paths(&self, journal: &Path) -> Paths {
        let joblog = self.joblog.as_ref().and_then(OpenFile::path);
        Paths {
            output: self.output.path().map(Path::to_owned),
            joblog: joblog.map(Path::to_owned),
            journal: journal.to_owned(),
        }
    }

    /// What the journal is beside.
    fn named(&self) -> &Destination {
        let file = match &self.joblog {
            Some(joblog) if self.output.path().is_none() => joblog,
            _ => &self.output,
        };
        file.destination()
    }

    fn check_names(&self) -> Result<(), OpenError> {
        let Some(joblog) = &self.joblog else { return Ok(()) };
        let is_journal = self.journal.is_some() && joblog.path() == self.journal.as_deref();
        if self.output.is_same(joblog) || is_journal {
            return Err(OpenError::Same { destination: joblog.destination().clone() });
        }
        Ok(())
    }

    fn read_claim(&mut self) -> Result<(), OpenError> {
        let Some(path) = &self.journal else { return Ok(()) };
        let claim = match File::open(path) {
            Ok(file) => Claim::read(BufReader::new(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        self.claim = claim.map_err(|reason| OpenError::opening(&journal_at(path), reason))?;
        Ok(())
    }

    /// Is the output gone on with in the way it was begun?
    fn check_flags(&self) -> Result<(), OpenError> {
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
        Err(OpenError::Begun { destination: self.named().clone(), how })
    }

    /// Can the records of tasks that failed be taken out?
    fn check_retry(&self) -> Result<(), OpenError> {
        let needed = match (self.settings.format, self.output.path()) {
            (Format::Lines, _) => "--format jsonl: lines do not say which task they are of",
            (Format::Jsonl, None) => "a file as --output: what went elsewhere cannot be taken back",
            (Format::Jsonl, Some(_)) => return Ok(()),
        };
        Err(OpenError::CannotRetry { needed })
    }

    /// Ends what an earlier start was about to do.
    fn settle(&mut self, paths: &Paths) -> io::Result<()> {
        for file in rewrite::settle(paths)? {
            match file.destination().role {
                Role::Joblog => {
                    let old = self.joblog.take();
                    self.joblog = old.map(|old| file.named(old.destination().clone()));
                }
                Role::Output | Role::Journal => {
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
    ) -> Result<(OpenFile, Recovered), OpenError> {
        let journal = open_file(Role::Journal, &journal_at(path).target)?;
        let kept = |file: &&OpenFile| file.path().is_some();
        let output = Some(&self.output).filter(kept).map(OpenFile::reader);
        let joblog = self.joblog.as_ref().filter(kept).map(OpenFile::reader);
        let recovered = recover_until(BufReader::new(journal.reader()), output, joblog, is_end);
        let recovered = recovered.map_err(|damage| {
            let destination = match (damage.role(), &self.joblog) {
                (Role::Joblog, Some(joblog)) => joblog.destination().clone(),
                (Role::Journal, _) => journal_at(path),
                _ => self.output.destination().clone(),
            };
            OpenError::Damaged { destination, damage }
        })?;
        Ok((journal, recovered))
    }

    /// Cuts off what does not count.
    ///
    /// The journal first: then there are only bytes of which nobody speaks, and should this be
    /// where we are killed, the next start cuts them off. The other way round new records could
    /// come to stand where an entry still speaks of what was there.
    fn cut(&mut self, journal: &mut OpenFile, to: &Recovered) -> Result<u64, OpenError> {
        let mut cut_bytes = 0;
        let ends = [to.journal_end, to.output_end, to.joblog_end];
        let files = [Some(journal), Some(&mut self.output), self.joblog.as_mut()];
        for (file, end) in files.into_iter().zip(ends) {
            let Some(file) = file.filter(|file| file.path().is_some()) else { continue };
            let destination = file.destination().clone();
            let cut = |file: &mut OpenFile| {
                let len = file.len()?;
                file.cut(end)?;
                if len != end {
                    file.sync()?;
                }
                Ok(len.saturating_sub(end))
            };
            let bytes = cut(file).map_err(|reason| OpenError::opening(&destination, reason))?;
            if destination.role != Role::Journal {
                cut_bytes += bytes;
            }
        }
        Ok(cut_bytes)
    }

    fn into_writer(
        self,
        journal: OpenFile,
        output_end: u64,
        joblog_end: u64,
    ) -> Result<Writer<OpenFile>, OpenError> {
        if self.settings.fsync != Fsync::None {
            let joblog = self.joblog.as_ref();
            for file in [Some(&self.output), joblog, Some(&journal)].into_iter().flatten() {
                let Some(path) = file.path() else { continue };
                sync_directory_of(path)
                    .map_err(|reason| OpenError::opening(file.destination(), reason))?;
            }
        }
        let place = |file: OpenFile, end: u64| -> Place<OpenFile> {
            let end = file.path().is_some().then_some(end);
            file.into_place(end)
        };
        let joblog = self.joblog.map(|file| place(file, joblog_end));
        let output = place(self.output, output_end);
        let Settings { format, fsync, .. } = self.settings;
        Ok(Writer::new(format, fsync, output, joblog, Some(journal.into_place(None))))
    }
}

impl Journal {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What the tasks were whose records are stored by now.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    pub fn hashes(&self) -> io::Result<TaskHashes> {
        let mut lines = Lines::new(BufReader::new(File::open(&self.0)?));
        lines.next::<Claim>()?;
        Ok(TaskHashes::new(lines))
    }

    /// Removes it: the output is what it was to be, and belongs to nobody from now on.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    pub fn remove(self) -> io::Result<()> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Output for FileOutput {
    fn write(&mut self, records: &[Records]) -> Result<(), OutputError> {
        self.writer.write(records)
    }

    fn commit(&mut self) -> Result<(), OutputError> {
        self.writer.commit()
    }

    fn sync(&mut self) -> Result<(), OutputError> {
        self.writer.sync()
    }

    fn finish(&mut self, is_whole: bool) -> Result<(), OutputError> {
        if self.is_reordered {
            return Ok(());
        }
        // What may still be added to is put into order when it is whole.
        let Some(Reorder { paths, destination, generation }) =
            self.reorder.as_mut().filter(|_| is_whole)
        else {
            return self.writer.finish(is_whole);
        };
        let failed = |reason| OutputError::Rewrite { destination: destination.clone(), reason };
        if generation.is_none() {
            self.writer.finish(is_whole)?;
            if rewrite::is_in_order(paths).map_err(failed)? {
                self.reorder = None;
                return Ok(());
            }
            *generation = Some(rewrite::rewrite(paths, &SeqSet::new()).map_err(failed)?);
        }
        self.locked = rewrite::settle(paths).map_err(failed)?;
        self.reorder = None;
        self.is_reordered = true;
        Ok(())
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            output: OutputTarget::default(),
            format: Format::default(),
            order: Order::Seq,
            joblog: None,
            overwrite: false,
            fsync: Fsync::default(),
        }
    }
}

fn open_file(role: Role, target: &OutputTarget) -> Result<OpenFile, OpenError> {
    let destination = Destination { role, target: target.clone() };
    OpenFile::open(role, target).map_err(|reason| OpenError::opening(&destination, reason))
}

fn journal_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(journal::SUFFIX);
    name.into()
}

fn journal_at(path: &Path) -> Destination {
    Destination { role: Role::Journal, target: OutputTarget::File(path.to_owned()) }
}

fn count_records(path: &Path) -> Result<u64, OpenError> {
    let count = || {
        let mut lines = Lines::new(BufReader::new(File::open(path)?));
        lines.next::<Claim>()?;
        let mut count = 0;
        while let Some(Ok(entry)) = lines.next::<Entry>()? {
            count += entry.count().unwrap_or_default();
        }
        Ok(count)
    };
    count().map_err(|reason| OpenError::opening(&journal_at(path), reason))
}

impl OpenError {
    fn opening(destination: &Destination, reason: io::Error) -> Self {
        let destination = destination.clone();
        match reason.kind() {
            ErrorKind::IsADirectory => Self::Directory { destination },
            ErrorKind::PermissionDenied => Self::Denied { destination },
            ErrorKind::NotFound => match missing_directory(&destination.target) {
                Some(directory) => Self::NoDirectory { destination, directory },
                None => Self::Io { destination, reason },
            },
            _ => Self::Io { destination, reason },
        }
    }
}

fn missing_directory(target: &OutputTarget) -> Option<PathBuf> {
    let OutputTarget::File(path) = target else { return None };
    let directory = path.parent().filter(|directory| *directory != Path::new(""))?;
    (!directory.exists()).then(|| directory.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use tradewind_proto::message::Status;
    use tradewind_proto::{Seq, TaskHash};

    use super::super::examples::record;
    use super::*;

    fn opening(job: u64, start: Start) -> Opening {
        Opening {
            job: JobId(job),
            name: "job".into(),
            start,
            stage: String::new(),
            is_untouched: true,
        }
    }

    fn open(settings: &Settings) -> Result<FileOutput, OpenError> {
        prepare(settings)?.open(&opening(1, Start::Anew)).map(|(output, _)| output)
    }

    fn settings(output: &Path, joblog: Option<&Path>, overwrite: bool) -> Settings {
        Settings {
            output: OutputTarget::File(output.to_owned()),
            joblog: joblog.map(|path| OutputTarget::File(path.to_owned())),
            overwrite,
            ..Settings::default()
        }
    }

    #[test]
    fn records_and_joblog_are_written_to_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let (output, joblog) = (dir.path().join("out"), dir.path().join("log"));
        fs::write(&output, "").unwrap();
        let mut writer = open(&settings(&output, Some(&joblog), false)).unwrap();
        writer.write(&[record(0, "a"), record(1, "b")]).unwrap();
        writer.commit().unwrap();
        assert_eq!(fs::read_to_string(&output).unwrap(), "a\nb\n");
        assert_eq!(fs::read_to_string(&joblog).unwrap().lines().count(), 3);
        writer.finish(true).unwrap();
    }

    #[test]
    fn a_file_with_something_in_it_is_replaced_only_on_demand() {
        let dir = tempfile::tempdir().unwrap();
        let (full, new) = (dir.path().join("full"), dir.path().join("new"));
        fs::write(&full, "precious, and longer than what follows").unwrap();
        let refused = |output: &Path, joblog: &Path, wanted: &str| {
            let error = open(&settings(output, Some(joblog), false)).unwrap_err();
            let wanted =
                format!("{wanted} {full:?} exists already; give --overwrite to replace it");
            assert_eq!(error.to_string(), wanted);
            assert_eq!(fs::read(&full).unwrap().len(), 38);
        };
        refused(&full, &new, "output");
        refused(&new, &full, "joblog");

        let mut writer = open(&settings(&full, None, true)).unwrap();
        writer.write(&[record(0, "x")]).unwrap();
        writer.finish(true).unwrap();
        assert_eq!(fs::read_to_string(&full).unwrap(), "x\n");
    }

    #[test]
    fn output_and_joblog_are_never_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "precious").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for joblog in [&file, &link, &dir.path().join("./file")] {
            let error = open(&settings(&file, Some(joblog), true)).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("output and joblog are the same: joblog {joblog:?}")
            );
            assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
        }
        let null = Path::new("/dev/null");
        assert!(open(&settings(null, Some(null), false)).is_ok(), "it is no file");
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "").unwrap();
        let check = |output: PathBuf, wanted: &str| {
            let error = open(&settings(&output, None, false)).unwrap_err();
            let wanted = wanted.replace('@', &format!("{output:?}"));
            assert_eq!(error.to_string(), wanted.replace('%', dir.path().to_str().unwrap()));
        };
        check(at("none/x"), "directory \"%/none\" of output @ does not exist");
        check(at(""), "output @ is a directory");
        check(at("file/x"), "cannot open output @: Not a directory (os error 20)");
        check("".into(), "cannot open output @: No such file or directory (os error 2)");
    }

    #[test]
    fn a_full_disk_is_an_error_that_can_be_retried() {
        let mut writer = open(&settings(Path::new("/dev/full"), None, false)).unwrap();
        writer.write(&[record(0, "a")]).unwrap();
        for _ in 0..2 {
            assert_eq!(
                writer.commit().unwrap_err().to_string(),
                "cannot write to output \"/dev/full\": No space left on device (os error 28)"
            );
        }
    }

    #[test]
    fn a_file_without_permission_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::set_permissions(file.path(), PermissionsExt::from_mode(0o444)).unwrap();
        // Nothing is forbidden to root.
        if let Err(error) = open(&settings(file.path(), None, false)) {
            let wanted = format!("no permission to write output {:?}", file.path());
            assert_eq!(error.to_string(), wanted);
        }
    }

    /// An output in a directory of its own, and what is done to it by one start after another.
    struct Scene {
        dir: tempfile::TempDir,
        settings: Settings,
    }

    impl Scene {
        fn new(format: Format, order: Order) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let at = |name| dir.path().join(name);
            let settings =
                Settings { format, order, ..settings(&at("out"), Some(&at("log")), false) };
            Self { dir, settings }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn text(&self, name: &str) -> String {
            fs::read_to_string(self.at(name)).unwrap()
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.dir.path()).unwrap();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }

        /// The seqs in the output, which is JSON lines, and in the joblog.
        fn seqs(&self) -> Vec<u64> {
            let of = |line: &str| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64().unwrap()
            };
            let seqs: Vec<_> = self.text("out").lines().map(of).collect();
            assert_eq!(self.logged(), seqs);
            seqs
        }

        fn logged(&self) -> Vec<u64> {
            let log = self.text("log");
            let first = |line: &str| line.split('\t').next().unwrap().parse::<u64>().unwrap() - 1;
            log.lines().skip(1).map(first).collect()
        }

        fn open(&self, opening: &Opening) -> Result<(FileOutput, Continued), OpenError> {
            prepare(&self.settings)?.open(opening)
        }

        /// Opens it for the job, stores these, a commit each, and is killed.
        fn store(&self, job: u64, start: Start, records: &[Records]) -> Continued {
            let (mut output, continued) = self.open(&opening(job, start)).unwrap();
            for record in records {
                output.write(std::slice::from_ref(record)).unwrap();
                output.commit().unwrap();
            }
            continued
        }

        fn refused(&self, job: u64, start: Start) -> String {
            let before = self.names();
            let error = self.open(&opening(job, start)).unwrap_err().to_string();
            assert_eq!(self.names(), before);
            error.replace(self.dir.path().to_str().unwrap(), "%")
        }
    }

    fn of_status(seq: u64, status: Status) -> Records {
        let mut record = record(seq, format!("{seq}\n"));
        record.results[0].outcome.status = status;
        record.results[0].task_hash = TaskHash(seq as u32 + 100);
        record
    }

    fn ok(seqs: impl IntoIterator<Item = u64>) -> Vec<Records> {
        seqs.into_iter().map(|seq| of_status(seq, Status::Ok)).collect()
    }

    /// Seqs 0 to 9: 2 and 7 failed, 5 was cancelled.
    fn mixed() -> Vec<Records> {
        let mut records = ok(0..10);
        records[2] = of_status(2, Status::Failed);
        records[5] = of_status(5, Status::Cancelled);
        records[7] = of_status(7, Status::TimedOut);
        records
    }

    fn stored(continued: &Continued) -> Vec<u64> {
        continued.opened.stored.iter().map(|seq| seq.0).collect()
    }

    #[test]
    fn a_sink_that_starts_again_goes_on_with_what_is_there() {
        for (format, fsync) in [(Format::Lines, Fsync::None), (Format::Jsonl, Fsync::Batch)] {
            let mut scene = Scene::new(format, Order::Seq);
            scene.settings.fsync = fsync;
            let first = scene.store(1, Start::Anew, &ok(0..3));
            assert!(stored(&first).is_empty());
            // It was killed while it wrote.
            for name in ["out", "log", "out.tradewind"] {
                let text = scene.text(name) + "half a li";
                fs::write(scene.at(name), text).unwrap();
            }
            // Even --overwrite does not make it a new job.
            scene.settings.overwrite = true;
            let second = scene.store(1, Start::Anew, &ok(3..5));
            assert_eq!(stored(&second), [0, 1, 2]);
            assert_eq!((second.opened.counts.ok, second.cut_bytes), (3, 18));
            let mut hashes = second.journal.as_ref().unwrap().hashes().unwrap();
            assert_eq!(hashes.get(Seq(1)).unwrap(), Some(TaskHash(101)));
            assert_eq!(hashes.get(Seq(3)).unwrap(), Some(TaskHash(103)), "as it is by now");

            let (mut output, third) = scene.open(&opening(1, Start::Resume)).unwrap();
            output.finish(true).unwrap();
            assert_eq!(stored(&third), [0, 1, 2, 3, 4]);
            let mut wanted = Vec::new();
            ok(0..5)
                .iter()
                .flat_map(Records::iter)
                .for_each(|record| format.encode(record, &mut wanted));
            assert_eq!(scene.text("out").as_bytes(), wanted);
            assert_eq!(scene.logged(), [0, 1, 2, 3, 4]);
            assert_eq!(scene.names(), ["log", "out", "out.tradewind"]);
            let journal = third.journal.unwrap();
            assert_eq!(journal.path(), scene.at("out.tradewind"));
            journal.remove().unwrap();
            assert_eq!(scene.names(), ["log", "out"]);
        }
    }

    #[test]
    fn another_job_is_resumed_or_replaced_only_on_demand() {
        let mut scene = Scene::new(Format::Lines, Order::Seq);
        scene.store(1, Start::Anew, &ok(0..3));
        assert_eq!(
            scene.refused(2, Start::Anew),
            "output \"%/out\" holds 3 records of another job, job (0000000000000001); --resume goes \
             on with it, --overwrite replaces it"
        );
        let resumed = scene.store(3, Start::Resume, &ok(3..4));
        assert_eq!((resumed.opened.job, stored(&resumed).len()), (JobId(1), 3));
        assert_eq!(scene.text("out"), "0\n1\n2\n3\n");

        scene.settings.overwrite = true;
        let replaced = scene.store(4, Start::Anew, &ok(0..1));
        assert_eq!((replaced.opened.job, stored(&replaced).len()), (JobId(4), 0));
        assert_eq!((scene.text("out").as_str(), scene.logged()), ("0\n", vec![0]));
        assert_eq!(stored(&scene.store(4, Start::Anew, &[])), [0]);
    }

    #[test]
    fn an_output_is_gone_on_with_in_the_way_it_was_begun() {
        let check = |change: fn(&mut Settings), wanted: &str| {
            let mut scene = Scene::new(Format::Jsonl, Order::Seq);
            scene.store(1, Start::Anew, &ok(0..3));
            change(&mut scene.settings);
            let error = scene.refused(1, Start::Anew);
            let wanted =
                format!("output \"%/out\" was begun {wanted}; go on with it in the same way");
            assert_eq!(error, wanted);
        };
        check(|settings| settings.format = Format::Lines, "with --format jsonl");
        check(|settings| settings.order = Order::Completion, "with --ordered");
        check(|settings| settings.joblog = None, "with a joblog");
    }

    #[test]
    fn damage_is_refused_and_nothing_is_changed() {
        let scene = Scene::new(Format::Jsonl, Order::Seq);
        scene.store(1, Start::Anew, &ok(0..5));
        let check = |name: &str, line: usize, wanted: &str| {
            let good = scene.text(name);
            let at = good.split_inclusive('\n').take(line - 1).map(str::len).sum::<usize>() + 3;
            let mut bad = good.clone().into_bytes();
            bad[at] ^= 1;
            fs::write(scene.at(name), &bad).unwrap();
            let error = scene.refused(1, Start::Resume);
            assert_eq!(fs::read(scene.at(name)).unwrap(), bad);
            fs::write(scene.at(name), good).unwrap();
            let wanted = format!("{wanted}; --overwrite replaces it");
            assert_eq!(error, wanted);
        };
        let line = scene.text("out").find('\n').unwrap() + 1;
        check(
            "out",
            2,
            &format!(
                "output \"%/out\" is damaged: bytes {line} to {} are not as they were written",
                2 * line
            ),
        );
        check(
            "out.tradewind",
            3,
            "journal \"%/out.tradewind\" is damaged: line 3 is not as it was written",
        );
        check("log", 1, "joblog \"%/log\" is damaged: it is not what the journal speaks of");
        assert_eq!(stored(&scene.store(1, Start::Resume, &[])).len(), 5);
    }

    #[test]
    fn no_two_sinks_write_one_file() {
        let mut scene = Scene::new(Format::Lines, Order::Seq);
        let (output, _) = scene.open(&opening(1, Start::Anew)).unwrap();
        assert_eq!(scene.refused(1, Start::Anew), "output \"%/out\" is in use by another process");
        scene.settings.output = OutputTarget::File("/dev/null".into());
        assert_eq!(scene.refused(1, Start::Anew), "joblog \"%/log\" is in use by another process");
        drop(output);
        scene.settings.output = OutputTarget::File(scene.at("out"));
        scene.store(1, Start::Anew, &[]);
    }

    #[test]
    fn what_is_removed_meanwhile_is_written_again() {
        let scene = Scene::new(Format::Jsonl, Order::Seq);
        let (mut output, _) = scene.open(&opening(1, Start::Anew)).unwrap();
        for (seq, name) in (0..).zip(["out", "log", "out.tradewind"]) {
            output.write(&ok([2 * seq])).unwrap();
            output.commit().unwrap();
            fs::remove_file(scene.at(name)).unwrap();
            output.write(&ok([2 * seq + 1])).unwrap();
            assert!(matches!(output.commit(), Err(OutputError::Removed { .. })));
            output.commit().unwrap();
            assert_eq!(scene.seqs(), (0..2 * seq + 2).collect::<Vec<_>>());
        }
        fs::rename(scene.at("out"), scene.at("moved")).unwrap();
        fs::write(scene.at("out"), "precious").unwrap();
        output.write(&ok([6])).unwrap();
        for _ in 0..2 {
            assert!(matches!(output.commit(), Err(OutputError::Replaced { .. })));
        }
        assert_eq!(scene.text("out"), "precious");
        fs::rename(scene.at("moved"), scene.at("out")).unwrap();
        output.finish(true).unwrap();
        drop(output);
        assert_eq!(stored(&scene.store(1, Start::Resume, &[])).len(), 7);
    }

    #[test]
    fn tasks_that_failed_run_again_and_the_output_has_one_record_of_each() {
        let check = |order, start, again: &[u64], wanted: &[u64]| {
            let scene = Scene::new(Format::Jsonl, order);
            scene.store(1, Start::Anew, &mixed());
            let resumed = scene.store(2, start, &ok(again.iter().copied().take(1)));
            let kept: Vec<_> = (0..10).filter(|seq| !again.contains(seq)).collect();
            assert_eq!((stored(&resumed), resumed.opened.job), (kept.clone(), JobId(1)));
            assert_eq!(resumed.opened.counts.total(), kept.len() as u64);
            assert_eq!(resumed.opened.counts.cancelled, 0);
            let mut hashes = resumed.journal.as_ref().unwrap().hashes().unwrap();
            for seq in kept.iter().copied() {
                let hash = Some(TaskHash(seq as u32 + 100));
                assert_eq!(hashes.get(Seq(seq)).unwrap(), hash);
            }

            // The sink dies once more.
            let (mut output, continued) = scene.open(&opening(1, start)).unwrap();
            assert_eq!(stored(&continued).len(), kept.len() + 1);
            output.write(&ok(again.iter().copied().skip(1))).unwrap();
            if order == Order::Seq {
                let obstacle = scene.at("out.tradewind.2");
                fs::create_dir(&obstacle).unwrap();
                assert!(matches!(output.finish(true), Err(OutputError::Rewrite { .. })));
                fs::remove_dir(obstacle).unwrap();
            }
            output.finish(true).unwrap();
            drop(output);
            assert_eq!(scene.seqs(), wanted);
            assert_eq!(scene.names(), ["log", "out", "out.tradewind"]);
            let last = scene.store(1, Start::Resume, &[]);
            assert_eq!(stored(&last), (0..10).collect::<Vec<_>>());
        };
        let (seq, completion) = (Order::Seq, Order::Completion);
        let all: Vec<_> = (0..10).collect();
        check(seq, Start::RetryFailed, &[2, 5, 7], &all);
        check(seq, Start::Resume, &[5], &all);
        check(completion, Start::RetryFailed, &[2, 5, 7], &[0, 1, 3, 4, 6, 8, 9, 2, 5, 7]);
        check(completion, Start::Resume, &[5], &[0, 1, 2, 3, 4, 6, 7, 8, 9, 5]);
    }

    #[test]
    fn the_records_of_all_tasks_may_go() {
        let scene = Scene::new(Format::Jsonl, Order::Seq);
        let failed: Vec<_> = (0..3).map(|seq| of_status(seq, Status::Lost)).collect();
        scene.store(1, Start::Anew, &failed);
        let resumed = scene.store(2, Start::RetryFailed, &ok(0..3));
        assert!(stored(&resumed).is_empty());
        assert_eq!(scene.seqs(), [0, 1, 2]);
    }

    #[test]
    fn lines_go_on_before_the_first_cancelled_task() {
        let scene = Scene::new(Format::Lines, Order::Seq);
        scene.store(1, Start::Anew, &mixed());
        assert_eq!(
            scene.refused(2, Start::RetryFailed),
            "--retry-failed needs --format jsonl: lines do not say which task they are of"
        );
        let resumed = scene.store(2, Start::Resume, &ok(5..10));
        assert_eq!(stored(&resumed), [0, 1, 2, 3, 4]);
        assert_eq!(scene.text("out"), "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
        assert_eq!(scene.logged(), (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn what_cannot_be_read_back_goes_on_by_its_joblog() {
        let mut scene = Scene::new(Format::Jsonl, Order::Completion);
        scene.settings.output = OutputTarget::File("/dev/null".into());
        scene.store(1, Start::Anew, &mixed());
        assert_eq!(scene.names(), ["log", "log.tradewind"]);
        assert_eq!(
            scene.refused(2, Start::RetryFailed),
            "--retry-failed needs a file as --output: what went elsewhere cannot be taken back"
        );
        let resumed = scene.store(2, Start::Resume, &ok([5]));
        assert_eq!(stored(&resumed), [0, 1, 2, 3, 4, 6, 7, 8, 9]);
        assert_eq!(scene.logged(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 5]);
        let again = scene.store(1, Start::Resume, &[]);
        assert_eq!(stored(&again), (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn wherever_a_rewrite_is_stopped_the_next_start_finds_the_old_or_the_new_output() {
        let check = |stop: fn(&Scene, &Paths)| {
            let scene = Scene::new(Format::Jsonl, Order::Seq);
            scene.store(1, Start::Anew, &mixed());
            let paths = Paths {
                output: Some(scene.at("out")),
                joblog: Some(scene.at("log")),
                journal: scene.at("out.tradewind"),
            };
            stop(&scene, &paths);
            let found = stored(&scene.store(1, Start::Resume, &[]));
            let (old, new) = ((0..10).collect::<Vec<_>>(), vec![0, 1, 3, 4, 5, 6, 7, 8, 9]);
            assert!(found == old || found == new, "{found:?}");
            assert_eq!(scene.seqs(), found);
            assert_eq!(scene.names(), ["log", "out", "out.tradewind"]);

            let retried = scene.store(2, Start::RetryFailed, &ok([2, 5, 7]));
            assert_eq!(stored(&retried), [0, 1, 3, 4, 6, 8, 9]);
            let (mut output, _) = scene.open(&opening(1, Start::Resume)).unwrap();
            output.finish(true).unwrap();
            assert_eq!(scene.seqs(), old);
        };
        check(|scene, _| fs::write(scene.at("out.tradewind.1"), "half").unwrap());
        check(|scene, _| {
            fs::write(scene.at("out.tradewind.1"), "whole").unwrap();
            fs::write(scene.at("log.tradewind.1"), "half").unwrap();
            fs::write(scene.at("out.tradewind.new"), "half").unwrap();
        });
        check(|_, paths| rewritten(paths));
        check(|scene, paths| {
            rewritten(paths);
            fs::rename(scene.at("out.tradewind.1"), scene.at("out")).unwrap();
        });
        check(|scene, paths| {
            rewritten(paths);
            fs::rename(scene.at("out.tradewind.1"), scene.at("out")).unwrap();
            fs::rename(scene.at("log.tradewind.1"), scene.at("log")).unwrap();
        });
    }

    fn rewritten(paths: &Paths) {
        rewrite::rewrite(paths, &[Seq(2)].into_iter().collect()).unwrap();
    }

    #[test]
    fn a_link_is_followed_and_stays_one() {
        let mut scene = Scene::new(Format::Jsonl, Order::Seq);
        std::os::unix::fs::symlink(scene.at("out"), scene.at("link")).unwrap();
        scene.settings.output = OutputTarget::File(scene.at("link"));
        scene.store(1, Start::Anew, &mixed());
        scene.store(2, Start::RetryFailed, &ok([2, 5, 7]));
        assert_eq!(scene.names(), ["link", "log", "out", "out.tradewind"]);
        assert!(fs::symlink_metadata(scene.at("link")).unwrap().is_symlink());
        assert_eq!(scene.seqs().len(), 10);
    }
}

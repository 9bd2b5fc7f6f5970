//! Opening of the files that the user named, without harm to their contents.
//!
//! In three steps:
//!
//! | step | when | file |
//! | --- | --- | --- |
//! | [`prepare`] finds and locks the files | at the start of the program, when only their names are known | `mod.rs` |
//! | [`Prepared::open`] reads them and plans | when the job is known to which the output is to belong | `check.rs`, `plan.rs` |
//! | [`Output::begin`](crate::Output::begin) changes them | when it is known that the job is not refused | `change.rs` |

mod change;
mod check;
mod plan;

use std::fs::File;
use std::io::{self, BufReader, Seek};
use std::path::{Path, PathBuf};

use tradewind_proto::JobId;
use tradewind_proto::collector::{Opened, Opening, Order};
use tradewind_proto::message::Start;

use self::check::read_earlier;
use self::plan::Again;
pub(crate) use self::plan::Plan;
use crate::error::Obstacle;
use crate::file::OpenFile;
use crate::hashes::TaskHashes;
use crate::journal::{self, Claim, Lines};
use crate::output::FileOutput;
use crate::same::{ReadFile, SameFile, beside, check_distinct};
use crate::{Destination, Extras, Format, Fsync, OpenError, OutputTarget, Role, Show};

/// Files to open, and their form.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Destination of the records.
    pub output: OutputTarget,
    /// Format of the records.
    pub format: Format,
    /// Order of the records.
    pub order: Order,
    /// Destination of a line about each record.
    pub joblog: Option<OutputTarget>,
    /// Whether files that are not empty are replaced rather than refused.
    pub overwrite: bool,
    /// Records that a crash of the machine may take away.
    pub fsync: Fsync,
    /// Additional fields of records.
    pub extras: Extras,
    /// Directory that gets a directory for each task.
    pub results: Option<PathBuf>,
    /// Lines that are written to stderr.
    pub show: Show,
}

/// Opened files, before the job is known. Until it is, nothing that exists is changed.
#[derive(Debug)]
pub struct Prepared {
    pub(crate) settings: Settings,
    pub(crate) output: OpenFile,
    pub(crate) joblog: Option<OpenFile>,
    /// Path of the journal, whether it exists or not.
    pub(crate) journal: Option<PathBuf>,
    pub(crate) claim: Option<Claim>,
}

/// Earlier records of the job.
#[derive(Debug)]
pub struct Continued {
    /// State for the collector.
    pub opened: Opened,
    /// Journal, if there is one.
    pub journal: Option<Journal>,
    /// Bytes that were written and do not count, because no record is known to end with them.
    pub cut_bytes: u64,
}

/// The journal, to be read while records are written.
#[derive(Debug)]
pub struct Journal(pub(crate) JournalPlace);

#[derive(Debug)]
pub(crate) enum JournalPlace {
    /// The file beside the output.
    Beside(PathBuf),
    /// A copy of the entries of one that is kept elsewhere.
    Copy(File),
}

/// Opens the output, and the joblog if there is to be one. Changes nothing.
///
/// # Errors
///
/// When one of them cannot be opened or must not be written, or when it is a named pipe that no
/// process has opened for reading.
pub fn prepare(settings: &Settings) -> Result<Prepared, OpenError> {
    let read = ReadFile::stdin();
    check_distinct(read.as_slice(), &settings.output, settings.joblog.as_ref())?;
    let output = open_file(Role::Output, &settings.output)?;
    let joblog = match &settings.joblog {
        Some(target) => Some(open_file(Role::Joblog, target)?),
        None => None,
    };
    // Two links that led nowhere until now.
    if let Some(joblog) = joblog.as_ref().filter(|joblog| joblog.is_same(&output)) {
        return Err(SameFile::new(output.destination(), joblog.destination()).into());
    }
    let kept = output.path().or_else(|| joblog.as_ref()?.path());
    let journal = kept.map(|path| beside(path, journal::SUFFIX));
    let settings = settings.clone();
    let mut prepared = Prepared { settings, output, joblog, journal, claim: None };
    prepared.read_claim()?;
    prepared.check_results()?;
    let may_hold_something = prepared.claim.is_some() || prepared.settings.overwrite;
    for file in prepared.files() {
        let destination = file.destination().clone();
        let is_ours = file.path().is_some();
        let opening = |reason| OpenError::opening(&destination, reason);
        if !file.lock().map_err(opening)? {
            return Err(OpenError::new(&destination, Obstacle::InUse));
        }
        let is_empty = !is_ours || file.len().map_err(opening)? == 0;
        if !is_empty && !may_hold_something {
            return Err(OpenError::new(&destination, Obstacle::NoJournal));
        }
    }
    Ok(prepared)
}

impl Settings {
    /// Returns whether records of failed tasks can be deleted.
    pub(crate) fn can_retry(&self) -> bool {
        self.format == Format::Jsonl && self.output != OutputTarget::Stdout
    }
}

impl Prepared {
    /// Returns the settings.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Reads the records of a job that the output has, which takes as long as reading the output.
    /// Changes nothing.
    ///
    /// # Errors
    ///
    /// When the output belongs to another job, when it is damaged, or cannot be read.
    pub fn open(self, opening: &Opening) -> Result<(FileOutput, Continued), OpenError> {
        let Some(journal) = self.journal.clone() else {
            let continued = Continued::nothing(opening.job, None);
            return Ok((FileOutput::unkept(self, opening.job), continued));
        };
        let (again, start) = match (&self.claim, opening.start) {
            (None, _) => return Ok(self.begin(journal, opening)),
            // The sink was started again, and the ventilator was not.
            (Some(claim), _) if claim.job == opening.job => (Again::Nothing, None),
            (Some(_), start @ Start::Resume) => (Again::Cancelled, Some(start)),
            (Some(_), start @ Start::RetryFailed) => (Again::NotOk, Some(start)),
            (Some(_), Start::New) if self.settings.overwrite => {
                return Ok(self.begin(journal, opening));
            }
            (Some(claim), Start::New) => {
                let other = (claim.name != opening.name).then(|| claim.name.clone());
                let earlier = read_earlier(&journal, other)?;
                if earlier.is_complete && self.is_empty()? {
                    return Ok(self.begin(journal, opening));
                }
                return Err(OpenError::new(self.named(), Obstacle::Earlier(earlier)));
            }
        };
        let (plan, mut continued) = Plan::go_on(self, journal, again)?;
        continued.opened.pending = start;
        Ok((FileOutput::planned(plan), continued))
    }

    /// Plans to replace all that is there.
    fn begin(self, journal: PathBuf, opening: &Opening) -> (FileOutput, Continued) {
        let continued = Continued::nothing(opening.job, Some(journal.clone()));
        (FileOutput::planned(Plan::begin(self, journal, opening)), continued)
    }

    pub(crate) fn files(&mut self) -> impl Iterator<Item = &mut OpenFile> {
        std::iter::once(&mut self.output).chain(&mut self.joblog)
    }

    /// Returns the destination that the journal belongs to.
    pub(crate) fn named(&self) -> &Destination {
        self.main().destination()
    }

    fn main(&self) -> &OpenFile {
        match &self.joblog {
            Some(joblog) if self.output.path().is_none() => joblog,
            _ => &self.output,
        }
    }

    /// Returns whether there is nothing that the user would miss.
    fn is_empty(&self) -> Result<bool, OpenError> {
        let main = self.main();
        let len = main.len().map_err(|reason| OpenError::opening(main.destination(), reason))?;
        Ok(len == 0)
    }
}

impl Continued {
    fn nothing(job: JobId, journal: Option<PathBuf>) -> Self {
        let opened = Opened { job, ..Opened::default() };
        Self {
            opened,
            journal: journal.map(|path| Journal(JournalPlace::Beside(path))),
            cut_bytes: 0,
        }
    }
}

impl Journal {
    /// Returns the path; `None` if it is kept elsewhere.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            JournalPlace::Beside(path) => Some(path),
            JournalPlace::Copy(_) => None,
        }
    }

    /// Returns the hashes of the tasks whose records are stored by now, or were deleted to be
    /// replaced. Those that were returned before are not to be used any more.
    ///
    /// # Errors
    ///
    /// When the journal cannot be read.
    pub fn hashes(&self) -> io::Result<TaskHashes> {
        let mut lines = match &self.0 {
            JournalPlace::Beside(path) => Lines::new(BufReader::new(File::open(path)?)),
            JournalPlace::Copy(file) => {
                let mut file = file.try_clone()?;
                file.rewind()?;
                return Ok(TaskHashes::new(Lines::new(BufReader::new(file))));
            }
        };
        lines.next::<Claim>()?;
        Ok(TaskHashes::new(lines))
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
            extras: Extras::default(),
            results: None,
            show: Show::default(),
        }
    }
}

pub(crate) fn open_file(role: Role, target: &OutputTarget) -> Result<OpenFile, OpenError> {
    let destination = Destination { role, target: target.clone() };
    OpenFile::open(role, target).map_err(|reason| OpenError::opening(&destination, reason))
}

pub(crate) fn journal_at(path: &Path) -> Destination {
    Destination { role: Role::Journal, target: OutputTarget::File(path.to_owned()) }
}

#[cfg(test)]
mod tests;

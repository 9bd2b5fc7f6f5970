//! The control log of a queue, or of one of its halves, and the directory that it is in.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tradewind_proto::{JobId, JobKey};
use tradewind_records::Directory;
use tradewind_store::{Change, Control, ControlError, ControlOptions, Noted, Part};
use tradewind_system::{random_id, random_key};

use crate::dir::{LOCK_WAIT, LockError, lock_dir};
use crate::disk::{Disk, Durability};
use crate::logs::{OpenError, say_torn};

/// Name of the setting that is the id of a queue's job.
const JOB: &str = ".job";

/// Name of the setting that is the key of the tags of a queue's tasks.
const TAGS: &str = ".tags";

/// Name of the setting that says which half of a queue is here; not there: both are.
const HALF: &str = ".half";

/// Name of the setting with what was noted of the records on another host.
const NOTED: &str = ".noted";

/// Name of the setting that is the id of the machine's start, of a queue that is not synced.
const BOOT: &str = ".boot";

/// Name of the setting that says that a queue is being removed.
const REMOVING: &str = ".removing";

/// Returns the change that says that a queue is being removed.
pub(crate) fn removing() -> Change {
    Change::Setting(REMOVING.into(), Some(Bytes::new()))
}

/// Half of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    /// The tasks, with the ventilator.
    Tasks,
    /// The records, with the sink.
    Records,
    /// None: both logs are an engine's.
    Neither,
}

impl Half {
    fn as_str(self) -> &'static str {
        match self {
            Self::Tasks => "tasks",
            Self::Records => "records",
            Self::Neither => "neither",
        }
    }
}

/// The control log of a queue.
pub(crate) struct ControlLog {
    dir: PathBuf,
    /// Holds the directory, for nobody else to write there.
    _lock: File,
    /// Whether tasks and records are synced before they are promised.
    durability: Durability,
    control: Mutex<Control<Disk>>,
}

impl ControlLog {
    /// Opens the control log in a directory, or creates it there. One process has it at a time. `half` is what of the
    /// queue is to be there.
    pub(crate) fn open(dir: &Path, half: Option<Half>) -> Result<Self, OpenError> {
        let amiss = |error| OpenError::Control { path: dir.to_owned(), error };
        let log = Self::look(dir)?;
        let found = log.setting(HALF);
        let wanted = half.map(|half| Bytes::from_static(half.as_str().as_bytes()));
        if found != wanted {
            let part = |part: Part| dir.join(part.as_str()).exists();
            if found.is_some() || part(Part::Tasks) || part(Part::Records) {
                let found = match found.as_deref() {
                    Some(b"tasks") => "the tasks of a queue alone, of a `ventilator --serve`",
                    Some(b"records") => "the records of a queue alone, of a `sink --store`",
                    Some(_) => {
                        "a queue whose logs are an engine's, which its source in the configuration says"
                    }
                    None => "both halves of a queue, of a `tradewind serve`",
                };
                return Err(OpenError::Half { path: dir.to_owned(), found });
            }
            log.change([Change::Setting(HALF.into(), wanted)]).map_err(amiss)?;
        }
        // What cannot be read is found out now.
        match log.job() {
            Ok(_) => Ok(log),
            Err(()) => Err(OpenError::Job { path: dir.to_owned() }),
        }
    }

    /// Opens the control log of whatever is in a directory.
    pub(crate) fn look(dir: &Path) -> Result<Self, OpenError> {
        let failed = |error| OpenError::Io { path: dir.to_owned(), error };
        let lock = lock_dir(dir, LOCK_WAIT).map_err(|error| match error {
            LockError::Io { error, .. } => failed(error),
            LockError::InUse(error) => failed(io::Error::other(error)),
        })?;
        // What was said to a queue is little, and is always synced. It says how the others were written.
        let always = Durability::default();
        let control = Disk::new(Directory::new(dir.join(Part::Control.as_str())), always);
        let amiss = |error| OpenError::Control { path: dir.to_owned(), error };
        let (control, found) =
            Control::open(control, random_id(), ControlOptions::default()).map_err(amiss)?;
        say_torn(dir, Part::Control, found.torn_bytes);
        Ok(Self {
            dir: dir.to_owned(),
            _lock: lock,
            durability: Durability::default(),
            control: Mutex::new(control),
        })
    }

    /// Returns whether the queue is being removed.
    pub(crate) fn is_removing(&self) -> bool {
        self.setting(REMOVING).is_some()
    }

    /// Returns the directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn durability(&self) -> &Durability {
        &self.durability
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Control<Disk>> {
        // No thread leaves it in the middle of a change by a panic: the log sees to that itself.
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn setting(&self, name: &str) -> Option<Bytes> {
        self.lock().state().settings.get(name).cloned()
    }

    /// Makes changes that survive a crash of the machine, all or none.
    pub(crate) fn change(
        &self,
        changes: impl IntoIterator<Item = Change>,
    ) -> Result<(), ControlError> {
        let mut control = self.lock();
        let made = changes.into_iter().try_for_each(|change| control.apply(change));
        let made = made.and_then(|()| control.commit());
        if made.is_err() {
            control.discard();
        }
        made
    }

    /// Returns the id of the queue's job and the key of its tags; `None` if it has not begun.
    pub(crate) fn job(&self) -> Result<Option<(JobId, JobKey)>, ()> {
        let Some(job) = self.setting(JOB) else { return Ok(None) };
        let job = <[u8; 8]>::try_from(&job[..]).map_err(drop)?;
        let tags = self.setting(TAGS).ok_or(())?;
        let tags = <[u8; 16]>::try_from(&tags[..]).map_err(drop)?;
        Ok(Some((JobId(u64::from_le_bytes(job)), JobKey::new(tags))))
    }

    /// Returns whether the queue's job has begun.
    pub(crate) fn has_job(&self) -> bool {
        matches!(self.job(), Ok(Some(_)))
    }

    /// Returns the queue's job and the key of its tags: it is this one from now on if there was none.
    pub(crate) fn begin(&self, job: JobId) -> Result<(JobId, JobKey), ControlError> {
        if let Ok(Some(begun)) = self.job() {
            return Ok(begun);
        }
        let tags = random_key();
        self.change([setting(JOB, &job.0.to_le_bytes()), setting(TAGS, &tags)])?;
        Ok((job, JobKey::new(tags)))
    }

    /// Makes the job another one if the machine has started since this was noted: workers may have results of tasks
    /// that are lost, which are not to count for others with the same positions.
    pub(crate) fn note_boot(&self) -> Result<(), ControlError> {
        let boot = boot_id();
        let is_same = self.setting(BOOT).is_some_and(|it| *it == *boot);
        if is_same && !boot.is_empty() {
            return Ok(());
        }
        let mut changes = vec![setting(BOOT, &boot)];
        if self.has_job() {
            changes
                .extend([setting(JOB, &random_id().to_le_bytes()), setting(TAGS, &random_key())]);
        }
        self.change(changes)
    }

    /// Returns what was noted of the records on another host.
    pub(crate) fn noted(&self) -> Noted {
        let noted = self.setting(NOTED);
        let number = |at: usize| -> Option<u64> {
            Some(u64::from_le_bytes(noted.as_ref()?.get(at..at + 8)?.try_into().ok()?))
        };
        Noted { low: number(0).unwrap_or(0), stored: number(8).unwrap_or(0) }
    }

    /// Notes what there is of records on another host. They do not become fewer.
    pub(crate) fn note(&self, noted: Noted) -> Result<(), ControlError> {
        let before = self.noted();
        let Noted { low, stored } = noted;
        if low <= before.low && stored <= before.stored {
            return Ok(());
        }
        let numbers = [low.max(before.low), stored.max(before.stored)];
        let value: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.change([Change::Setting(NOTED.into(), Some(value.into()))])
    }
}

fn setting(name: &str, value: &[u8]) -> Change {
    Change::Setting(name.into(), Some(Bytes::copy_from_slice(value)))
}

/// Returns what is another one each time that the machine starts; nothing where it does not say.
fn boot_id() -> Vec<u8> {
    std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

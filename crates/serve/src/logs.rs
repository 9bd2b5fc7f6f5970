//! The logs of a queue, shared by its threads.
//!
//! Each log has a lock of its own, which is held while it is synced. Whoever needs two takes that of the tasks
//! before that of the records, and that of the control log last.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;
use tokio::sync::{oneshot, watch};
use tradewind_http::{SettingsPatch, Unique};
use tradewind_proto::{JobId, JobKey, Seq, SeqSet};
use tradewind_records::Directory;
use tradewind_store::{
    Change, Control, ControlError, ControlOptions, Keep, Part, RecordError, RecordLog,
    RecordOptions, SubmitError, Tasks, TasksOptions, skip_lost,
};
use tradewind_system::{random_id, random_key};

use crate::dir::{LOCK_WAIT, LockError, lock_dir};
use crate::disk::{Disk, Durability};
use crate::settings::{durability as durability_of, effective};

/// Name of the setting that is the id of a queue's job.
const JOB: &str = ".job";

/// Name of the setting that is the key of the tags of a queue's tasks.
const TAGS: &str = ".tags";

/// Name of the setting that is the id of the machine's start, of a queue that is not synced.
const BOOT: &str = ".boot";

/// The logs of a queue.
pub(crate) struct Logs {
    dir: PathBuf,
    /// Holds the directory, for nobody else to write there.
    _lock: File,
    durability: Durability,
    tasks: Mutex<Tasks<Disk>>,
    records: Mutex<RecordLog<Disk>>,
    control: Mutex<Control<Disk>>,
    /// Tasks whose records are kept, and are neither `ok` nor `skipped`: they may be retried.
    failed: Mutex<SeqSet>,
    submitted: Mutex<Submitted>,
    is_submitted: Condvar,
    /// Position after the last record.
    stored: watch::Sender<u64>,
    /// Who waits for the record of a task.
    waiting: Mutex<HashMap<u64, Vec<oneshot::Sender<()>>>>,
}

/// What the ventilator's input waits for.
struct Submitted {
    /// Position after the last task.
    end: u64,
    is_closed: bool,
}

/// Reason why the logs of a queue cannot be opened.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub(crate) enum OpenError {
    #[error("{}: {error}", .path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{}: the tasks: {error}", .path.display())]
    Tasks { path: PathBuf, error: SubmitError },
    #[error("{}: the records: {error}", .path.display())]
    Records { path: PathBuf, error: RecordError },
    #[error("{}: the control log: {error}", .path.display())]
    Control { path: PathBuf, error: ControlError },
    #[error("{}: it has no id of its own that can be read", .path.display())]
    Job { path: PathBuf },
    #[error(
        "{}: its records are of tasks up to {record}, and its task log ends before task {end}: they are of different \
         times, of a copy that was made while the queue was served, or of a machine that stopped while it had fsync = \
         \"none\", with which it is opened",
        .path.display()
    )]
    Ahead { path: PathBuf, record: u64, end: u64 },
}

impl Logs {
    /// Opens the logs in a directory, or creates them there. One process has them at a time.
    pub(crate) fn open(dir: &Path, config: &SettingsPatch) -> Result<Self, OpenError> {
        let path = dir.to_owned();
        let failed = |error| OpenError::Io { path: dir.to_owned(), error };
        let lock = lock_dir(dir, LOCK_WAIT).map_err(|error| match error {
            LockError::Io { error, .. } => failed(error),
            LockError::InUse(error) => failed(io::Error::other(error)),
        })?;
        let durability = Durability::default();
        let disk = |part: Part, durability: &Durability| {
            Disk::new(Directory::new(dir.join(part.as_str())), durability.clone())
        };
        // What was said to a queue is little, and is always synced. It says how the others were written.
        let always = Durability::default();
        let (mut control, found) =
            Control::open(disk(Part::Control, &always), random_id(), ControlOptions::default())
                .map_err(|error| OpenError::Control { path: path.clone(), error })?;
        say_torn(dir, Part::Control, found.torn_bytes);
        // Settings that cannot be read are refused by who needs them.
        let is_synced = effective(config, control.state()).is_ok_and(|it| durability_of(&it).0);
        durability.set(is_synced);
        let part = |part: Part| disk(part, &durability);
        let (records, found) = RecordLog::open(
            part(Part::Records),
            part(Part::Index),
            random_id(),
            RecordOptions::default(),
        )
        .map_err(|error| OpenError::Records { path: path.clone(), error })?;
        say_torn(dir, Part::Records, found.torn_bytes);
        let (mut tasks, found) = Tasks::open(
            part(Part::Tasks),
            part(Part::Keys),
            random_id(),
            TasksOptions::default(),
            // What is not remembered any more is found out by the first trim.
            0,
        )
        .map_err(|error| OpenError::Tasks { path: path.clone(), error })?;
        say_torn(dir, Part::Tasks, found.torn_bytes);
        let mut records = records;
        // A task that is submitted next would be taken for one that has its record.
        let (recorded, end) = (records.stored().end().0, tasks.committed());
        if recorded > end && is_synced {
            return Err(OpenError::Ahead { path, record: recorded - 1, end });
        }
        if !is_synced {
            let skipped = skip_lost(&mut tasks, &records, &mut control)
                .map_err(|error| OpenError::Control { path: path.clone(), error })?;
            if skipped > 0 {
                let dir = dir.display();
                tracing::warn!(
                    "{dir}: {skipped} tasks from {end} on are lost, with fsync = \"none\" and a machine that stopped"
                );
            }
        }
        control.settle(records.stored());
        let failed =
            records.not_ok().map_err(|error| OpenError::Records { path: path.clone(), error })?;
        let logs = Self {
            dir: path,
            _lock: lock,
            durability,
            failed: Mutex::new(failed),
            submitted: Mutex::new(Submitted { end: tasks.committed(), is_closed: false }),
            is_submitted: Condvar::new(),
            stored: watch::Sender::new(records.committed()),
            waiting: Mutex::default(),
            tasks: Mutex::new(tasks),
            records: Mutex::new(records),
            control: Mutex::new(control),
        };
        // What cannot be read is found out now.
        let has_job = logs.job().map_err(|()| OpenError::Job { path: dir.to_owned() })?.is_some();
        if !is_synced {
            logs.note_boot(has_job)
                .map_err(|error| OpenError::Control { path: dir.to_owned(), error })?;
        }
        Ok(logs)
    }

    /// Makes the job another one if the machine has started since this was noted: workers may have results of tasks
    /// that are lost, which are not to count for others with the same positions.
    fn note_boot(&self, has_job: bool) -> Result<(), ControlError> {
        let boot = boot_id();
        let is_same = self.control().state().settings.get(BOOT).is_some_and(|it| **it == *boot);
        if is_same && !boot.is_empty() {
            return Ok(());
        }
        let mut changes = vec![setting(BOOT, &boot)];
        if has_job {
            changes
                .extend([setting(JOB, &random_id().to_le_bytes()), setting(TAGS, &random_key())]);
        }
        self.change(changes)
    }

    /// Returns the directory of the logs.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Says whether what is written is synced before it is promised. Where it is from now on, so is what was promised
    /// before.
    pub(crate) fn set_synced(&self, is_synced: bool) {
        self.durability.set(is_synced);
        if is_synced {
            let synced = self.tasks().sync().map_err(|error| error.to_string());
            let synced = synced.and(self.records().sync().map_err(|error| error.to_string()));
            if let Err(error) = synced {
                // The next commit syncs it as well, or fails.
                tracing::error!("{}: cannot be synced: {error}", self.dir.display());
            }
        }
    }

    pub(crate) fn tasks(&self) -> MutexGuard<'_, Tasks<Disk>> {
        lock(&self.tasks)
    }

    pub(crate) fn records(&self) -> MutexGuard<'_, RecordLog<Disk>> {
        lock(&self.records)
    }

    pub(crate) fn control(&self) -> MutexGuard<'_, Control<Disk>> {
        lock(&self.control)
    }

    /// Makes changes that survive a crash of the machine, all or none.
    pub(crate) fn change(
        &self,
        changes: impl IntoIterator<Item = Change>,
    ) -> Result<(), ControlError> {
        let mut control = self.control();
        let made = changes.into_iter().try_for_each(|change| control.apply(change));
        let made = made.and_then(|()| control.commit());
        if made.is_err() {
            control.discard();
        }
        made
    }

    /// Returns the id of the queue's job and the key of its tags; `None` if it has not begun.
    fn job(&self) -> Result<Option<(JobId, JobKey)>, ()> {
        let control = self.control();
        let settings = &control.state().settings;
        let Some(job) = settings.get(JOB) else { return Ok(None) };
        let job = <[u8; 8]>::try_from(&job[..]).map_err(drop)?;
        let tags = settings.get(TAGS).ok_or(())?;
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

    /// Returns the position after the last task that is promised.
    pub(crate) fn submitted(&self) -> u64 {
        lock(&self.submitted).end
    }

    /// Notes that tasks are promised.
    pub(crate) fn note_submitted(&self, end: u64) {
        lock(&self.submitted).end = end;
        self.is_submitted.notify_all();
    }

    /// Waits for a task at this position or behind it, for so long at most. Returns the position after the last
    /// one; `None` if the queue is closed.
    pub(crate) fn wait_submitted(&self, position: u64, wait: Duration) -> Option<u64> {
        let submitted = lock(&self.submitted);
        let is_waiting = |it: &mut Submitted| it.end <= position && !it.is_closed;
        let waited = self.is_submitted.wait_timeout_while(submitted, wait, is_waiting);
        let (submitted, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (!submitted.is_closed).then_some(submitted.end)
    }

    /// Ends what waits for tasks.
    pub(crate) fn close(&self) {
        lock(&self.submitted).is_closed = true;
        self.is_submitted.notify_all();
    }

    /// Notes that records are stored, up to this position of their log.
    pub(crate) fn note_stored(&self, records: &[(Seq, bool)], end: u64) {
        {
            let mut failed = lock(&self.failed);
            for (seq, _) in records.iter().filter(|(_, is_failed)| *is_failed) {
                failed.insert(*seq);
            }
        }
        self.stored.send_replace(end);
        let mut waiting = lock(&self.waiting);
        if waiting.is_empty() {
            return;
        }
        for (seq, _) in records {
            for waiter in waiting.remove(&seq.0).into_iter().flatten() {
                let _ = waiter.send(());
            }
        }
    }

    /// Returns what tells the position after the last record.
    pub(crate) fn stored(&self) -> watch::Receiver<u64> {
        self.stored.subscribe()
    }

    /// Returns what ends when the record of a task is stored. One that is stored already does not end it: to be
    /// looked at after this.
    pub(crate) fn wait_stored(&self, seq: Seq) -> oneshot::Receiver<()> {
        let (waiter, stored) = oneshot::channel();
        let mut waiting = lock(&self.waiting);
        let waiters = waiting.entry(seq.0).or_default();
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(waiter);
        stored
    }

    /// Forgets who does not wait any more.
    pub(crate) fn forget_waiters(&self) {
        lock(&self.waiting).retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.is_closed());
            !waiters.is_empty()
        });
    }

    /// Removes what is not needed any more: records by `keep`, tasks that have their records, keys of both.
    pub(crate) fn trim(&self, keep: Option<Keep>, unique: Unique) -> Result<(), SubmitError> {
        let now = now();
        if let Some(keep) = keep {
            self.records().remove_old(keep, now)?;
        }
        let (records, failed) = (|| self.records(), || lock(&self.failed));
        match unique {
            Unique::Kept => self.tasks().trim(records, failed, false),
            Unique::Stored => self.tasks().trim(records, failed, true),
            Unique::Time(time) => {
                // Whoever was submitted since then was stored later.
                let first = self.records().first_since(now.saturating_sub(time))?;
                self.tasks().trim_from(records, failed, first)
            }
        }
    }
}

fn setting(name: &str, value: &[u8]) -> Change {
    Change::Setting(name.into(), Some(bytes::Bytes::copy_from_slice(value)))
}

/// Returns what is another one each time that the machine starts; nothing where it does not say.
fn boot_id() -> Vec<u8> {
    std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No thread leaves what it guards in the middle of a change by a panic: the logs see to that themselves.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn say_torn(dir: &Path, part: Part, bytes: u64) {
    if bytes > 0 {
        let (dir, part) = (dir.display(), part.as_str());
        tracing::warn!(
            "{dir}/{part}: {bytes} bytes that were being written, and were promised to nobody, are cut"
        );
    }
}

/// Returns the time since 1970.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tradewind_http::{Change as Wish, Fsync};
    use tradewind_proto::message::Status;
    use tradewind_store::{StoredTask, Submitted};

    use super::*;

    fn submit(logs: &Logs, count: u64) -> u64 {
        let mut tasks = logs.tasks();
        let mut submit = || tasks.submit(StoredTask::default()).unwrap();
        let first = (0..count).map(|_| submit()).collect::<Vec<Submitted>>()[0].position();
        tasks.commit().unwrap();
        first
    }

    #[test]
    fn a_queue_that_is_not_synced_goes_on_when_its_last_tasks_are_lost() {
        let dir = tempfile::tempdir().unwrap();
        let synced = SettingsPatch::default();
        let unsynced = SettingsPatch { fsync: Wish::To(Fsync::None), ..SettingsPatch::default() };
        let logs = Logs::open(dir.path(), &unsynced).unwrap();
        let job = logs.begin(JobId(7)).unwrap();
        submit(&logs, 5);
        let mut records = logs.records();
        records.append(Duration::ZERO, Seq(3), Status::Ok, b"{}\n").unwrap();
        records.commit().unwrap();
        drop(records);
        let reader = || Change::Consumer("reader".into(), Some(100));
        logs.change([reader(), Change::Cancel(tradewind_proto::SeqRange::one(Seq(4)))]).unwrap();
        drop(logs);
        let logs = Logs::open(dir.path(), &unsynced).unwrap();
        assert_eq!(logs.begin(JobId(8)).unwrap(), job, "the machine has not stopped");
        drop(logs);

        std::fs::remove_dir_all(dir.path().join("tasks")).unwrap();
        let refused = Logs::open(dir.path(), &synced).err().unwrap().to_string();
        assert!(refused.contains("its task log ends before task 0"), "{refused}");
        let logs = Logs::open(dir.path(), &unsynced).unwrap();
        let consumed = logs.control().state().consumed();
        assert_eq!(consumed, Some(logs.records().committed()));
        assert_eq!((submit(&logs, 1), logs.tasks().task(3).unwrap()), (5, None));
        logs.change([setting(BOOT, b"another start")]).unwrap();
        drop(logs);
        let logs = Logs::open(dir.path(), &unsynced).unwrap();
        assert_ne!(logs.begin(JobId(8)).unwrap().0, job.0);
        drop(logs);
        assert_eq!(Logs::open(dir.path(), &synced).unwrap().submitted(), 6);
    }
}

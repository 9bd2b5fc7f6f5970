//! Opening the logs of a queue: both halves in one directory, or one.
//!
//! Each log has a lock of its own, which is held while it is synced. Whoever needs two takes that of the tasks
//! before that of the records, and that of the control log last.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;
use tradewind_http::{SettingsPatch, Unique};
use tradewind_store::{ControlError, Part, RecordError, SubmitError, skip_lost};

use crate::control::{ControlLog, Half};
use crate::records::SharedRecords;
use crate::settings::{durability, effective};
use crate::tasks::SharedTasks;

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
    #[error("{}: it is the directory of another program: {found}", .path.display())]
    Half { path: PathBuf, found: &'static str },
    #[error(
        "{}: its records are of tasks up to {record}, and its task log ends before task {end}: they are of different \
         times, of a copy that was made while the queue was served, or of a machine that stopped while it had fsync = \
         \"none\", with which it is opened",
        .path.display()
    )]
    Ahead { path: PathBuf, record: u64, end: u64 },
}

/// Opens the logs of both halves in a directory, or creates them there.
pub(crate) fn open_both(
    dir: &Path,
    config: &SettingsPatch,
) -> Result<(Arc<SharedTasks>, Arc<SharedRecords>), OpenError> {
    let control = Arc::new(ControlLog::open(dir, None)?);
    // Settings that cannot be read are refused by who needs them.
    let is_synced = effective(config, control.lock().state()).is_ok_and(|it| durability(&it).0);
    control.durability().set(is_synced);
    let records = SharedRecords::open(control.clone())?;
    let tasks = SharedTasks::open(control.clone())?;
    // A task that is submitted next would be taken for one that has its record.
    let (recorded, end) = (records.records().stored().end().0, tasks.submitted());
    if recorded > end && is_synced {
        return Err(OpenError::Ahead { path: dir.to_owned(), record: recorded - 1, end });
    }
    if !is_synced {
        let amiss = |error| OpenError::Control { path: dir.to_owned(), error };
        let skipped = skip_lost(&mut tasks.tasks(), &records.records(), &mut control.lock());
        let skipped = skipped.map_err(amiss)?;
        if skipped > 0 {
            tasks.note_submitted(end + skipped);
            let dir = dir.display();
            tracing::warn!(
                "{dir}: {skipped} tasks from {end} on are lost, with fsync = \"none\" and a machine that stopped"
            );
        }
        control.note_boot().map_err(amiss)?;
    }
    control.lock().settle(records.records().stored());
    Ok((Arc::new(tasks), Arc::new(records)))
}

/// Says whether tasks and records are synced before they are promised. Where they are from now on, so is what was
/// promised before.
pub(crate) fn set_synced(tasks: &SharedTasks, records: &SharedRecords, is_synced: bool) {
    tasks.control().durability().set(is_synced);
    if is_synced {
        let synced = tasks.tasks().sync().map_err(|error| error.to_string());
        let synced = synced.and(records.records().sync().map_err(|error| error.to_string()));
        if let Err(error) = synced {
            // The next commit syncs it as well, or fails.
            tracing::error!("{}: cannot be synced: {error}", tasks.dir().display());
        }
    }
}

/// Opens the task log in a directory that has no records, or creates it there.
pub(crate) fn open_tasks(dir: &Path) -> Result<Arc<SharedTasks>, OpenError> {
    let control = ControlLog::open(dir, Some(Half::Tasks))?;
    SharedTasks::open(Arc::new(control)).map(Arc::new)
}

/// Opens the record log in a directory that has no tasks, or creates it there.
pub(crate) fn open_records(dir: &Path) -> Result<Arc<SharedRecords>, OpenError> {
    let control = ControlLog::open(dir, Some(Half::Records))?;
    SharedRecords::open(Arc::new(control)).map(Arc::new)
}

/// Removes tasks that have their records, and keys of both, where the records are in the same process.
pub(crate) fn trim(
    log: &SharedTasks,
    kept: &SharedRecords,
    unique: Unique,
) -> Result<(), SubmitError> {
    let (records, failed) = (|| kept.records(), || kept.failed());
    match unique {
        Unique::Kept => log.tasks().trim(records, failed, false),
        Unique::Stored => log.tasks().trim(records, failed, true),
        Unique::Time(time) => {
            // Whoever was submitted since then was stored later.
            let first = kept.records().first_since(now().saturating_sub(time))?;
            log.tasks().trim_from(records, failed, first)
        }
    }
}

pub(crate) fn say_torn(dir: &Path, part: Part, bytes: u64) {
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
    use tradewind_proto::{JobId, Seq};
    use tradewind_store::{Change, StoredTask, Submitted};

    use super::*;

    fn submit(logs: &SharedTasks, count: u64) -> u64 {
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
        let (logs, kept) = open_both(dir.path(), &unsynced).unwrap();
        let job = logs.control().begin(JobId(7)).unwrap();
        submit(&logs, 5);
        let mut records = kept.records();
        records.append(Duration::ZERO, Seq(3), Status::Ok, b"{}\n").unwrap();
        records.commit().unwrap();
        drop(records);
        let reader = || Change::Consumer("reader".into(), Some(100));
        logs.control()
            .change([reader(), Change::Cancel(tradewind_proto::SeqRange::one(Seq(4)))])
            .unwrap();
        drop((logs, kept));
        let (logs, kept) = open_both(dir.path(), &unsynced).unwrap();
        assert_eq!(logs.control().begin(JobId(8)).unwrap(), job, "the machine has not stopped");
        drop((logs, kept));

        std::fs::remove_dir_all(dir.path().join("tasks")).unwrap();
        let refused = open_both(dir.path(), &synced).err().unwrap().to_string();
        assert!(refused.contains("its task log ends before task 0"), "{refused}");
        let (logs, kept) = open_both(dir.path(), &unsynced).unwrap();
        let consumed = logs.control().lock().state().consumed();
        assert_eq!(consumed, Some(kept.records().committed()));
        assert_eq!((submit(&logs, 1), logs.tasks().task(3).unwrap()), (5, None));
        logs.control()
            .change([Change::Setting(".boot".into(), Some("another start".into()))])
            .unwrap();
        drop((logs, kept));
        let (logs, kept) = open_both(dir.path(), &unsynced).unwrap();
        assert_ne!(logs.control().begin(JobId(8)).unwrap().0, job.0);
        drop((logs, kept));
        assert_eq!(open_both(dir.path(), &synced).unwrap().0.submitted(), 6);
    }
}

//! What becomes of the wish that a task is run again.

use std::ops::DerefMut;

use bytes::Bytes;
use tradewind_proto::Seq;
use tradewind_records::Medium;

use crate::records::RecordLog;
use crate::task::StoredTask;
use crate::tasks::{SubmitError, Tasks};

/// Answer to the wish that a task is run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It has no record yet.
    Unsettled,
    /// Its record or the task itself was removed.
    Gone,
    /// It is run again already, by this task: it was asked for under the same key.
    Known(u64),
    /// This is to be submitted.
    New(StoredTask),
}

/// Returns what becomes of the wish that a task is run again, under a key or none. The logs are held on to for one
/// answer each.
///
/// # Errors
///
/// When a log cannot be read.
pub fn retry<M, R, T>(
    records: impl Fn() -> R,
    tasks: impl Fn() -> T,
    of: u64,
    key: Option<Bytes>,
) -> Result<Retry, SubmitError>
where
    M: Medium,
    R: DerefMut<Target = RecordLog<M>>,
    T: DerefMut<Target = Tasks<M>>,
{
    if !records().stored().contains(Seq(of)) {
        return Ok(Retry::Unsettled);
    }
    let is_kept = records().position_of(Seq(of))?.is_some();
    retry_settled(is_kept, tasks, of, key)
}

/// Returns what becomes of the wish that a task with a record is run again, by whether that is kept.
///
/// # Errors
///
/// When the task log cannot be read.
pub fn retry_settled<M, T>(
    is_kept: bool,
    tasks: impl Fn() -> T,
    of: u64,
    key: Option<Bytes>,
) -> Result<Retry, SubmitError>
where
    M: Medium,
    T: DerefMut<Target = Tasks<M>>,
{
    let task = if is_kept { tasks().task(of)? } else { None };
    let Some(task) = task else {
        // Who asks again because an answer was lost is to have it, whatever was removed meanwhile.
        let known = key.map(|key| tasks().find_retry(of, &key)).transpose()?.flatten();
        return Ok(known.map_or(Retry::Gone, Retry::Known));
    };
    Ok(Retry::New(task.retried(of, key)))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use tradewind_proto::message::Status;

    use super::*;
    use crate::disk::Disk;
    use crate::log::LogOptions;
    use crate::records::{Keep, RecordOptions};
    use crate::task::TaskOptions;
    use crate::tasks::{Submitted, TasksOptions};

    const SMALL: LogOptions = LogOptions { segment_bytes: 100, zeroed_bytes: 0 };

    #[test]
    fn a_retry_has_its_answer_again_under_its_key_when_what_it_is_of_is_gone() {
        let options = TasksOptions { log: SMALL, keys: SMALL, keys_max: 50 };
        let tasks = Tasks::open(Disk::default(), Disk::default(), 7, options, 0).unwrap().0;
        let options = RecordOptions { log: SMALL, index_seqs: 16 };
        let records = RecordLog::open(Disk::default(), Disk::default(), 7, options).unwrap().0;
        let (tasks, records) = (RefCell::new(tasks), RefCell::new(records));
        let ask = |of, key: &'static str| {
            let key = (!key.is_empty()).then_some(key.into());
            retry(|| records.borrow_mut(), || tasks.borrow_mut(), of, key).unwrap()
        };
        let submit = |task| {
            let mut tasks = tasks.borrow_mut();
            let submitted = tasks.submit(task).unwrap();
            tasks.commit().unwrap();
            submitted
        };
        let store = |seq, status| {
            let mut records = records.borrow_mut();
            records.append(Duration::ZERO, Seq(seq), status, &[b'-'; 60]).unwrap();
            records.commit().unwrap();
        };
        let options = TaskOptions { retries: Some(3), ..TaskOptions::default() };
        let key = Some(Bytes::from_static(b"mine"));
        submit(StoredTask { key, options, payload: Bytes::from_static(b"task 0") });
        assert_eq!(ask(0, "again"), Retry::Unsettled);
        store(0, Status::Failed);
        let Retry::New(again) = ask(0, "again") else { panic!("it is there") };
        let options = TaskOptions { retries: Some(3), retry_of: Some(0), timeout: None };
        let (key, payload) = (Some("again".into()), Bytes::from_static(b"task 0"));
        assert_eq!(again, StoredTask { key, options, payload });
        assert_eq!(submit(again.clone()), Submitted::New(1));
        assert_eq!(ask(0, "again"), Retry::New(again.clone()));
        assert_eq!(submit(again), Submitted::Known(1), "the key says that it is the same");
        store(1, Status::Ok);
        submit(StoredTask { payload: Bytes::from_static(b"task 2"), ..StoredTask::default() });
        store(2, Status::Ok);
        // The record goes, with it nothing keeps the task, and the retry stays where the segment does.
        records.borrow_mut().remove_old(Keep::Bytes(0), Duration::ZERO).unwrap();
        assert_eq!(ask(0, ""), Retry::Gone);
        assert_eq!(ask(0, "again"), Retry::Known(1));
        assert_eq!(ask(0, "mine"), Retry::Gone, "the key of another task");
        assert_eq!(ask(1, "again"), Retry::Gone, "it is no retry of itself");
    }
}

//! Records of tasks.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tradewind_proto::collector;
use tradewind_proto::message::{Exit, Status};

use crate::{Error, TaskError};

/// A task's one record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// The task's place in the job, from 0.
    pub seq: u64,
    /// Status with which it ended.
    pub status: Status,
    /// Number of the attempt, from 1; 0 if the task was never run.
    pub attempt: u32,
    /// Name of the worker that ran it; empty if none did.
    pub worker: Arc<str>,
    /// Start of the attempt, by the worker's clock.
    pub started: Option<SystemTime>,
    /// Run time of the attempt.
    pub ran: Duration,
    /// Exit of its process, if it had one.
    pub exit: Exit,
    /// Bytes that the command wrote to stdout, or that the handler returned.
    pub output: Bytes,
    /// Empty when all went well; else the end of stderr (4 KiB) or a reason.
    pub error: String,
}

impl Record {
    pub(crate) fn new(record: &collector::Record<'_>) -> Self {
        let result = record.result;
        let started = Duration::from_micros(result.started_us);
        let started = UNIX_EPOCH.checked_add(started).filter(|_| result.started_us > 0);
        Self {
            seq: result.seq.0,
            status: result.outcome.status,
            attempt: result.attempt.0,
            worker: record.worker.into(),
            started,
            ran: Duration::from_micros(result.ran_us),
            exit: result.outcome.exit,
            output: result.outcome.output.clone().into(),
            error: result.outcome.error.clone(),
        }
    }

    /// Returns the output, if the task is `ok`.
    ///
    /// # Errors
    /// When the task has another status.
    pub fn ok(self) -> Result<Bytes, TaskError> {
        match self.status {
            Status::Ok => Ok(self.output),
            status => Err(TaskError { seq: self.seq, status, error: self.error }),
        }
    }

    /// Returns the value of an output that is JSON, if the task is `ok`.
    ///
    /// # Errors
    /// When the task has another status, or its output is not JSON of this type.
    pub fn json<T: DeserializeOwned>(self) -> Result<T, Error> {
        let seq = self.seq;
        let output = self.ok()?;
        serde_json::from_slice(&output)
            .map_err(|error| Error::Decode { seq, reason: error.to_string() })
    }
}

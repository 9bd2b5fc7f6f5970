//! The record log as the sink's output.

use std::io;
use std::sync::Arc;

use tradewind_proto::Seq;
use tradewind_proto::collector::{Opened, Opening, Records};
use tradewind_proto::message::Status;
use tradewind_records::{
    Continued, Destination, Obstacle, OpenError, Output, OutputError, OutputTarget, Role, Store,
    encode_jsonl,
};
use tradewind_store::{ControlError, LogError, RecordBatches, RecordError};

use crate::logs::now;
use crate::records::SharedRecords;

/// Bytes of records that wait in memory for being committed together.
const WAITING_BYTES_MAX: usize = 2 << 20;

/// The record log of a queue, before its job is known.
pub(crate) struct LogStore(pub(crate) Arc<SharedRecords>);

/// Stores records in the record log.
pub(crate) struct LogOutput {
    logs: Arc<SharedRecords>,
    /// Records that are not in the log yet.
    batches: RecordBatches,
}

impl Store for LogStore {
    type Output = LogOutput;

    fn open(self, opening: &Opening) -> Result<(LogOutput, Continued), OpenError> {
        let Self(logs) = self;
        let failed = |error: ControlError| OpenError::At {
            destination: destination(&logs),
            obstacle: Obstacle::Io(io::Error::other(error)),
        };
        let (job, key) = logs.control().begin(opening.job).map_err(failed)?;
        let opened = {
            let opened = logs.records().opened();
            Opened { job, key: Some(key), ..opened }
        };
        let output = LogOutput { logs, batches: RecordBatches::default() };
        Ok((output, Continued { opened, journal: None, cut_bytes: 0 }))
    }

    fn has_input(&self) -> bool {
        true
    }
}

fn note(logs: &SharedRecords, end: u64, stored: &[(Seq, Status)]) {
    let is_failed = |status| !matches!(status, Status::Ok | Status::Skipped);
    let stored: Vec<(Seq, bool)> =
        stored.iter().map(|(seq, status)| (*seq, is_failed(*status))).collect();
    logs.note_stored(&stored, end);
}

fn destination(logs: &SharedRecords) -> Destination {
    Destination { role: Role::Output, target: OutputTarget::File(logs.dir().join("records")) }
}

impl Output for LogOutput {
    fn write(&mut self, records: &[Records]) -> Result<(), OutputError> {
        // What was not committed waits in the batches, whatever comes behind it: it is tried again.
        let mut committed = Ok(());
        for list in records {
            for record in list.iter() {
                let (seq, status) = (record.result.seq, record.result.outcome.status);
                self.batches.add(seq, status, |line| encode_jsonl(record, true, line));
            }
            if committed.is_ok() && self.batches.bytes() >= WAITING_BYTES_MAX {
                committed = self.commit();
            }
        }
        committed
    }

    fn commit(&mut self) -> Result<(), OutputError> {
        if self.batches.is_empty() {
            return Ok(());
        }
        let Self { logs, batches } = self;
        let stored = batches.commit(&mut logs.records(), now, |end, stored| {
            note(logs, end, stored);
        });
        stored.map_err(|error| OutputError::Io {
            destination: destination(&self.logs),
            reason: reason(error),
        })
    }

    fn sync(&mut self) -> Result<(), OutputError> {
        self.commit()
    }

    fn finish(&mut self, _: bool) -> Result<(), OutputError> {
        self.commit()
    }
}

fn reason(error: RecordError) -> io::Error {
    match error {
        RecordError::Log(LogError::Io(error)) => error,
        error => io::Error::other(error),
    }
}

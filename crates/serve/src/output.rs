//! The record log as the sink's output.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use tradewind_proto::Seq;
use tradewind_proto::collector::{Opened, Opening, Records};
use tradewind_proto::message::Status;
use tradewind_records::{
    Continued, Destination, Obstacle, OpenError, Output, OutputError, OutputTarget, Role, Store,
    encode_jsonl,
};
use tradewind_store::{ControlError, LogError, RecordError};

use crate::logs::{Logs, now};

/// Bytes of records that are committed together.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// The record log of a queue, before its job is known.
pub(crate) struct LogStore(pub(crate) Arc<Logs>);

/// Stores records in the record log.
pub(crate) struct LogOutput {
    logs: Arc<Logs>,
    /// Lines of the records that are not in the log yet.
    lines: Vec<u8>,
    taken: Vec<Line>,
    /// Number of them that wait in the log.
    appended: usize,
}

struct Line {
    seq: Seq,
    status: Status,
    line: Range<usize>,
}

impl Store for LogStore {
    type Output = LogOutput;

    fn open(self, opening: &Opening) -> Result<(LogOutput, Continued), OpenError> {
        let Self(logs) = self;
        let failed = |error: ControlError| OpenError::At {
            destination: destination(&logs),
            obstacle: Obstacle::Io(io::Error::other(error)),
        };
        let (job, key) = logs.begin(opening.job).map_err(failed)?;
        let opened = {
            let records = logs.records();
            let stored = records.stored().clone();
            let (first, counts) = (stored.first_missing(), *records.counts());
            Opened { job, first, stored, counts, key: Some(key), ..Opened::default() }
        };
        let output = LogOutput { logs, lines: Vec::new(), taken: Vec::new(), appended: 0 };
        Ok((output, Continued { opened, journal: None, cut_bytes: 0 }))
    }

    fn has_input(&self) -> bool {
        true
    }
}

impl LogOutput {
    fn append(&mut self) -> Result<(), RecordError> {
        let mut records = self.logs.records();
        while let Some(Line { seq, status, line }) = self.taken.get(self.appended) {
            if records.waiting_bytes() + line.len() > BATCH_BYTES_MAX && records.waiting_bytes() > 0
            {
                records.commit()?;
                note(&self.logs, records.committed(), &self.taken[..self.appended]);
                self.taken.drain(..self.appended);
                self.appended = 0;
                continue;
            }
            records.append(now(), *seq, *status, &self.lines[line.clone()])?;
            self.appended += 1;
        }
        records.commit()?;
        note(&self.logs, records.committed(), &self.taken);
        self.taken.clear();
        self.lines.clear();
        self.appended = 0;
        // One large record does not hold on to its size.
        self.lines.shrink_to(BATCH_BYTES_MAX);
        Ok(())
    }
}

fn note(logs: &Logs, end: u64, stored: &[Line]) {
    let is_failed = |status| !matches!(status, Status::Ok | Status::Skipped);
    let stored: Vec<(Seq, bool)> =
        stored.iter().map(|line| (line.seq, is_failed(line.status))).collect();
    logs.note_stored(&stored, end);
}

fn destination(logs: &Logs) -> Destination {
    Destination { role: Role::Output, target: OutputTarget::File(logs.dir().join("records")) }
}

impl Output for LogOutput {
    fn write(&mut self, records: &[Records]) -> Result<(), OutputError> {
        for record in records.iter().flat_map(Records::iter) {
            let start = self.lines.len();
            encode_jsonl(record, true, &mut self.lines);
            let (seq, status) = (record.result.seq, record.result.outcome.status);
            self.taken.push(Line { seq, status, line: start..self.lines.len() });
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), OutputError> {
        if self.taken.is_empty() {
            return Ok(());
        }
        let appended = self.append();
        appended.map_err(|error| OutputError::Io {
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

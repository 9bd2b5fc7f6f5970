//! Records in a stream, one a subject.
//!
//! | subject | message |
//! | --- | --- |
//! | `STREAM-records.PARTITION.r.SEQ` | the record of a task; `Tradewind-Status` is how it ended |
//! | `STREAM-records.PARTITION.e.EPOCH` | marker: its owner writes from here on |
//! | `STREAM-records.PARTITION.c.SEQUENCE` | checkpoint: a sequence, a line feed, and the tasks stored up to it |
//!
//! Each message says which sequence the stream is to end with. So the server refuses whatever the owner before sends
//! after the marker of the next one, and who is refused looks for the marker.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::Stream;
use bytes::Bytes;
use tradewind_engine::{
    Committed, EngineError, Epoch, NewRecord, RecordLog, format_stored, parse_stored,
};
use tradewind_proto::message::Status;
use tradewind_proto::{Seq, SeqSet};
use tradewind_store::StoredRecord;

use crate::connection::{Connection, Refusal};

const STATUS: &str = "Tradewind-Status";

/// Bytes that the headers of a record have at most.
const HEADERS_BYTES_MAX: usize = 256;

/// Number of times that the stream is read again because another wrote to it, in one call.
const TRIES: usize = 10;

/// Bytes that are read at a time.
const READ_BYTES: usize = 4 << 20;

#[derive(Debug)]
pub(crate) struct NatsRecords {
    connection: Arc<Connection>,
    stream: Stream,
    name: String,
    /// Beginning of the subjects.
    prefix: String,
    /// Epoch of the marker under which this writes.
    owned: Option<Epoch>,
    stored: SeqSet,
    /// Sequence up to which `stored` is known; `None` before the checkpoint was read.
    read_to: Option<u64>,
    /// Sequence with which the stream ends if nobody else wrote to it; `None` when that is not known.
    last: Option<u64>,
}

impl NatsRecords {
    pub(crate) fn open(connection: Arc<Connection>, partition: u32) -> Result<Self, EngineError> {
        let base = format!("{}-records", connection.url.stream);
        let (name, prefix) = (format!("{base}-{partition}"), format!("{base}.{partition}"));
        let subjects = ["r", "e", "c"].map(|kind| format!("{prefix}.{kind}.>"));
        let stream = connection.stream(&name, subjects.to_vec())?;
        let (stored, read_to) = (SeqSet::new(), None);
        Ok(Self { connection, stream, name, prefix, owned: None, stored, read_to, last: None })
    }

    fn subject(&self, kind: &str, number: u64) -> String {
        format!("{}.{kind}.{number}", self.prefix)
    }

    /// Reads what was written since it was read last, all that the leader has.
    fn sync(&mut self) -> Result<u64, EngineError> {
        let (_, end) = self.connection.ends(&self.stream)?;
        let mut read_to = match self.read_to {
            Some(read_to) => read_to,
            None => self.read_checkpoint()?,
        };
        let all = format!("{}.>", self.prefix);
        let records = format!("{}.r.", self.prefix);
        loop {
            let read = self.connection.read(&self.stream, &all, read_to + 1, READ_BYTES)?;
            let Some(last) = read.last() else { break };
            read_to = last.sequence;
            for message in read {
                let Some(seq) = message.subject.strip_prefix(&records) else { continue };
                self.stored.insert(seq_of(message.sequence, seq)?);
            }
            self.read_to = Some(read_to);
        }
        let last = end.max(read_to);
        (self.read_to, self.last) = (Some(read_to), Some(last));
        Ok(last)
    }

    fn read_checkpoint(&mut self) -> Result<u64, EngineError> {
        let subject = format!("{}.c.>", self.prefix);
        let Some(message) = self.connection.last(&self.stream, &subject)? else { return Ok(0) };
        let text = std::str::from_utf8(&message.payload).ok();
        let parts = text.and_then(|text| text.split_once('\n'));
        let parts = parts.and_then(|(at, set)| Some((at.parse().ok()?, parse_stored(set).ok()?)));
        let position = message.sequence - 1;
        let amiss = || EngineError::Amiss { position, what: "it is no checkpoint".into() };
        let (read_to, stored) = parts.ok_or_else(amiss)?;
        self.stored = stored;
        Ok(read_to)
    }

    /// Returns the epoch of the last marker.
    fn marker(&self) -> Result<Option<Epoch>, EngineError> {
        let subject = format!("{}.e.>", self.prefix);
        let Some(message) = self.connection.last(&self.stream, &subject)? else { return Ok(None) };
        let epoch = message.subject.as_str().rsplit('.').next().and_then(|it| it.parse().ok());
        let position = message.sequence - 1;
        let amiss = || EngineError::Amiss { position, what: "it is no marker".into() };
        Ok(Some(Epoch(epoch.ok_or_else(amiss)?)))
    }

    /// Makes the stream this owner's, unless it is the next one's.
    fn own(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        for _ in 0..TRIES {
            let marker = self.marker()?;
            if let Some(by) = marker.filter(|by| *by > epoch) {
                return Err(EngineError::Fenced { epoch, by: Some(by) });
            }
            let last = self.sync()?;
            let is_there = marker == Some(epoch);
            if is_there || self.write(self.subject("e", epoch.0), last, Bytes::new())? {
                self.owned = Some(epoch);
                let subject = format!("{}.e.>", self.prefix);
                if let (false, Some(own)) = (is_there, self.last) {
                    self.connection.purge(&self.stream, &subject, own)?;
                }
                return Ok(());
            }
        }
        Err(self.busy())
    }

    fn check_owned(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        if self.owned != Some(epoch) || self.last.is_none() { self.own(epoch) } else { Ok(()) }
    }

    fn busy(&self) -> EngineError {
        EngineError::Away(format!("others write to stream {}", self.name))
    }

    /// Writes one message behind the last. Returns false if that is not the last any more.
    fn write(&mut self, subject: String, last: u64, body: Bytes) -> Result<bool, EngineError> {
        let message = PublishMessage::build().payload(body).expected_last_sequence(last);
        let mut written = None;
        self.last = None;
        self.connection.publish(vec![(subject, message)], |_, answer| {
            match answer {
                Ok(sequence) => written = Some(sequence),
                Err(Refusal::WrongSequence | Refusal::SubjectTaken) => {}
                Err(Refusal::Error(error)) => return Err(error),
            }
            Ok(())
        })?;
        self.last = written;
        if let Some(sequence) = written {
            note_written(&mut self.read_to, sequence);
        }
        Ok(written.is_some())
    }

    /// Sends records behind the last. Stops at the first that is refused.
    fn send(
        &mut self,
        records: &[NewRecord],
        answers: &mut [Option<Committed>],
    ) -> Result<(), EngineError> {
        let Some(mut last) = self.last.take() else { return Ok(()) };
        let (mut places, mut seen) = (Vec::new(), BTreeSet::new());
        let mut messages = Vec::new();
        for (place, record) in records.iter().enumerate() {
            if answers[place].is_some() {
                continue;
            }
            if self.stored.contains(record.seq) || !seen.insert(record.seq) {
                answers[place] = Some(Committed::Known);
                continue;
            }
            let mut headers = HeaderMap::new();
            headers.insert(STATUS, record.status.as_str());
            let message = PublishMessage::build().payload(record.line.clone()).headers(headers);
            let message = message.expected_last_sequence(last + messages.len() as u64);
            messages.push((self.subject("r", record.seq.0), message));
            places.push(place);
        }
        let (stored, read_to, mut is_whole) = (&mut self.stored, &mut self.read_to, true);
        self.connection.publish(messages, |at, answer| {
            match answer {
                Ok(sequence) => {
                    last = sequence;
                    note_written(read_to, sequence);
                    stored.insert(records[places[at]].seq);
                    answers[places[at]] = Some(Committed::New);
                }
                Err(Refusal::WrongSequence | Refusal::SubjectTaken) => is_whole = false,
                Err(Refusal::Error(error)) => return Err(error),
            }
            Ok(())
        })?;
        if is_whole {
            self.last = Some(last);
        }
        Ok(())
    }
}

impl RecordLog for NatsRecords {
    fn line_bytes_max(&self) -> usize {
        self.connection.payload_max().saturating_sub(HEADERS_BYTES_MAX)
    }

    fn commit(
        &mut self,
        epoch: Epoch,
        records: &[NewRecord],
    ) -> Result<Vec<Committed>, EngineError> {
        let max = self.connection.payload_max();
        for (place, record) in records.iter().enumerate() {
            let bytes = record.line.len() + HEADERS_BYTES_MAX;
            if bytes > max {
                return Err(EngineError::TooLarge { place, bytes, max });
            }
        }
        let mut answers = vec![None; records.len()];
        for _ in 0..TRIES {
            self.check_owned(epoch)?;
            self.send(records, &mut answers)?;
            if let Some(answers) = answers.iter().copied().collect() {
                return Ok(answers);
            }
        }
        Err(self.busy())
    }

    fn stored(&mut self) -> Result<SeqSet, EngineError> {
        self.sync()?;
        Ok(self.stored.clone())
    }

    fn checkpoint(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        for _ in 0..TRIES {
            self.check_owned(epoch)?;
            let last = self.sync()?;
            let body = format!("{last}\n{}", format_stored(&self.stored));
            let (bytes, max) = (body.len() + HEADERS_BYTES_MAX, self.connection.payload_max());
            if bytes > max {
                return Err(EngineError::TooLarge { place: 0, bytes, max });
            }
            // What was read here may have been written under the next marker already.
            if let Some(by) = self.marker()?.filter(|by| *by > epoch) {
                return Err(EngineError::Fenced { epoch, by: Some(by) });
            }
            if self.write(self.subject("c", last), last, body.into())? {
                let subject = format!("{}.c.>", self.prefix);
                return self.connection.purge(&self.stream, &subject, last + 1);
            }
        }
        Err(self.busy())
    }

    fn get(&mut self, seq: Seq) -> Result<Option<(u64, StoredRecord)>, EngineError> {
        let found = self.connection.last(&self.stream, &self.subject("r", seq.0))?;
        found
            .map(|message| {
                let status = status_of(message.sequence, &message.headers)?;
                let stored = StoredRecord { seq, status, bytes: message.payload };
                Ok((message.sequence - 1, stored))
            })
            .transpose()
    }

    fn read(
        &mut self,
        from: u64,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<(u64, StoredRecord)>, EngineError> {
        let subjects = format!("{}.r.>", self.prefix);
        let read = self.connection.follow(&self.stream, &subjects, from + 1, bytes_max, wait)?;
        let records = read.into_iter().map(|message| {
            let seq = message.subject.rsplit('.').next().unwrap_or_default();
            let seq = seq_of(message.sequence, seq)?;
            let status = status_of(message.sequence, &message.headers)?;
            let record = StoredRecord { seq, status, bytes: message.payload };
            Ok((message.sequence - 1, record))
        });
        records.collect()
    }

    fn remove_below(&mut self, epoch: Epoch, position: u64) -> Result<(), EngineError> {
        self.checkpoint(epoch)?;
        let subjects = format!("{}.r.>", self.prefix);
        self.connection.purge(&self.stream, &subjects, position + 1)
    }
}

/// Notes that a message of this owner is in the stream: what lies directly behind what was read need not be read back.
fn note_written(read_to: &mut Option<u64>, sequence: u64) {
    if read_to.is_some_and(|read_to| read_to + 1 == sequence) {
        *read_to = Some(sequence);
    }
}

fn seq_of(sequence: u64, text: &str) -> Result<Seq, EngineError> {
    let amiss = |_| EngineError::Amiss {
        position: sequence - 1,
        what: "its subject has no task's number".into(),
    };
    text.parse().map(Seq).map_err(amiss)
}

fn status_of(sequence: u64, headers: &HeaderMap) -> Result<Status, EngineError> {
    let value = headers.get(STATUS).map_or("", |value| value.as_str());
    let status = Status::ALL.into_iter().find(|status| status.as_str() == value);
    let amiss = || EngineError::Amiss {
        position: sequence - 1,
        what: format!("{STATUS} is no status: {value:?}"),
    };
    status.ok_or_else(amiss)
}

//! Records on their way into the log, in batches.

use std::ops::Range;
use std::time::Duration;

use tradewind_proto::Seq;
use tradewind_proto::message::Status;
use tradewind_records::Medium;

use super::{RecordError, RecordLog};

/// Bytes of records that are committed together.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Records that are not in the log yet.
#[derive(Debug, Default)]
pub struct RecordBatches {
    bytes: Vec<u8>,
    waiting: Vec<(Seq, Status)>,
    /// Place of each of them in the bytes.
    places: Vec<Range<usize>>,
    /// Number of them that wait in the log.
    appended: usize,
}

impl RecordBatches {
    /// Adds a record, of what `write` appends to the buffer.
    pub fn add(&mut self, seq: Seq, status: Status, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.waiting.push((seq, status));
        self.places.push(start..self.bytes.len());
    }

    /// Returns the bytes of the records that are not stored.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Returns whether all are stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Stores all records. `now` is asked for the time since 1970. `note` is told of each batch that is stored: the
    /// position after the last record, and the batch's records.
    ///
    /// # Errors
    ///
    /// When some of them could not be stored. They wait still: the next commit tries it again.
    pub fn commit<M: Medium>(
        &mut self,
        log: &mut RecordLog<M>,
        now: impl Fn() -> Duration,
        mut note: impl FnMut(u64, &[(Seq, Status)]),
    ) -> Result<(), RecordError> {
        let mut time = now();
        while let Some(place) = self.places.get(self.appended).cloned() {
            let waiting = log.waiting_bytes();
            if waiting + place.len() > BATCH_BYTES_MAX && waiting > 0 {
                log.commit()?;
                note(log.committed(), &self.waiting[..self.appended]);
                self.waiting.drain(..self.appended);
                self.places.drain(..self.appended);
                self.appended = 0;
                time = now();
                continue;
            }
            let (seq, status) = self.waiting[self.appended];
            log.append(time, seq, status, &self.bytes[place])?;
            self.appended += 1;
        }
        log.commit()?;
        note(log.committed(), &self.waiting);
        self.waiting.clear();
        self.places.clear();
        self.bytes.clear();
        self.appended = 0;
        // One large record does not hold on to its size.
        self.bytes.shrink_to(BATCH_BYTES_MAX);
        Ok(())
    }
}

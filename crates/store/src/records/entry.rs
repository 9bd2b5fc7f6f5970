//! Entries of a record log.
//!
//! | record | |
//! | --- | --- |
//! | kind | 1 |
//! | status | 0 `ok`, 1 `failed`, 2 `timed_out`, 3 `lost`, 4 `cancelled`, 5 `skipped` |
//! | seq | varint |
//! | record | the rest |
//!
//! | checkpoint | |
//! | --- | --- |
//! | kind | 2 |
//! | option 1 | time at which its segment begins, in microseconds since 1970 |
//! | option 2 | stored seqs before it |
//! | option 3 | numbers of records by status, in the order above, varints |
//! | option 4 | number of seqs in a file of the index, varint; for each of its files two: the file's number, and the highest position in it |
//!
//! Varints, options and sets of seqs are those of `parts.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tradewind_proto::collector::Counts;
use tradewind_proto::limits::SEQS_MAX;
use tradewind_proto::message::Status;
use tradewind_proto::{Seq, SeqSet};

use crate::parts::{
    CRITICAL, SetError, Short, put_number, put_part, put_set, put_varint, take_part, take_set,
    take_u8, take_varint,
};

/// Number of seqs in a file of the index at most.
pub(super) const INDEX_SEQS_MAX: u64 = 1 << 32;

/// Record as it stands in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Task that it is of.
    pub seq: Seq,
    /// How the task ended.
    pub status: Status,
    /// The record itself, in the form that it was given.
    pub bytes: Bytes,
}

/// What holds where a segment begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// Time at which its segment begins, since 1970. Whole microseconds.
    pub(super) begun: Duration,
    /// Tasks whose records were stored before, also those that were removed.
    pub(super) stored: SeqSet,
    /// Numbers of these by status.
    pub(super) counts: Counts,
    /// Number of seqs in a file of the index.
    pub(super) index_seqs: u64,
    /// Files of the index, with the highest position in each.
    pub(super) index: BTreeMap<u64, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Record(StoredRecord),
    Checkpoint(Checkpoint),
}

/// Reason why an entry of a record log cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum EntryError {
    #[error("it ends too soon")]
    Short,
    #[error("it is of a kind that this program does not know, {0}")]
    Kind(u8),
    #[error("it has a status that this program does not know, {0}")]
    Status(u8),
    #[error("it has a seq that cannot be")]
    Seq,
    #[error("option {0} is not understood by this program")]
    Option(u8),
    #[error("it has a number that cannot be, in option {0}")]
    Number(u8),
}

impl From<Short> for EntryError {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

impl From<SetError> for EntryError {
    fn from(error: SetError) -> Self {
        match error {
            SetError::Short => Self::Short,
            SetError::Seq => Self::Seq,
        }
    }
}

const RECORD: u8 = 1;
const CHECKPOINT: u8 = 2;

const BEGUN: u8 = 1;
const STORED: u8 = 2;
const COUNTS: u8 = 3;
const INDEX: u8 = 4;

pub(super) fn encode_record(seq: Seq, status: Status, record: &[u8], out: &mut Vec<u8>) {
    let number = Status::ALL.iter().position(|it| *it == status).expect("it is one of them");
    out.extend([RECORD, number as u8]);
    put_varint(seq.0, out);
    out.extend_from_slice(record);
}

impl Entry {
    pub(super) fn decode(mut bytes: Bytes) -> Result<Self, EntryError> {
        match take_u8(&mut bytes)? {
            RECORD => {
                let number = take_u8(&mut bytes)?;
                let status = Status::ALL.get(usize::from(number)).copied();
                let status = status.ok_or(EntryError::Status(number))?;
                let seq = Seq(take_varint(&mut bytes)?);
                if seq.0 >= SEQS_MAX {
                    return Err(EntryError::Seq);
                }
                Ok(Self::Record(StoredRecord { seq, status, bytes }))
            }
            CHECKPOINT => Checkpoint::decode(bytes).map(Self::Checkpoint),
            kind => Err(EntryError::Kind(kind)),
        }
    }
}

impl Checkpoint {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let Self { begun, stored, counts, index_seqs, index } = self;
        out.push(CHECKPOINT);
        put_number(BEGUN, u64::try_from(begun.as_micros()).unwrap_or(u64::MAX), out);
        let mut part = Vec::new();
        put_set(stored, &mut part);
        out.push(STORED);
        put_part(&part, out);
        part.clear();
        let Counts { ok, failed, timed_out, lost, cancelled, skipped } = counts;
        for count in [ok, failed, timed_out, lost, cancelled, skipped] {
            put_varint(*count, &mut part);
        }
        out.push(COUNTS);
        put_part(&part, out);
        part.clear();
        put_varint(*index_seqs, &mut part);
        for (file, position) in index {
            put_varint(*file, &mut part);
            put_varint(*position, &mut part);
        }
        out.push(INDEX);
        put_part(&part, out);
    }

    fn decode(mut bytes: Bytes) -> Result<Self, EntryError> {
        let mut checkpoint = Self::default();
        while !bytes.is_empty() {
            let option = take_u8(&mut bytes)?;
            let mut part = take_part(&mut bytes)?;
            match option {
                BEGUN => checkpoint.begun = Duration::from_micros(take_varint(&mut part)?),
                STORED => checkpoint.stored = take_set(part)?,
                COUNTS => {
                    let Counts { ok, failed, timed_out, lost, cancelled, skipped } =
                        &mut checkpoint.counts;
                    for count in [ok, failed, timed_out, lost, cancelled, skipped] {
                        *count = take_varint(&mut part)?;
                        // A sum of them does not overflow.
                        if *count > SEQS_MAX / 8 {
                            return Err(EntryError::Number(COUNTS));
                        }
                    }
                }
                INDEX => {
                    checkpoint.index_seqs = take_varint(&mut part)?;
                    if checkpoint.index_seqs > INDEX_SEQS_MAX {
                        return Err(EntryError::Number(INDEX));
                    }
                    while !part.is_empty() {
                        let file = take_varint(&mut part)?;
                        checkpoint.index.insert(file, take_varint(&mut part)?);
                    }
                }
                CRITICAL.. => return Err(EntryError::Option(option)),
                _ => {}
            }
        }
        Ok(checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[(u64, u64)]) -> SeqSet {
        ranges.iter().flat_map(|(start, end)| (*start..*end).map(Seq)).collect()
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            begun: Duration::from_micros(1_000_001),
            stored: set(&[(0, 200), (201, 202), (1000, 1003)]),
            counts: Counts { ok: 198, failed: 5, skipped: 1, ..Counts::default() },
            index_seqs: 16,
            index: BTreeMap::from([(0, 300), (7, 2)]),
        }
    }

    #[test]
    fn entries_read_back_as_they_were_written() {
        let mut out = Vec::new();
        encode_record(Seq(300), Status::TimedOut, b"line\n", &mut out);
        assert_eq!(out, b"\x01\x02\xac\x02line\n", "the format is documented");
        let bytes = Bytes::from_static(b"line\n");
        let record = StoredRecord { seq: Seq(300), status: Status::TimedOut, bytes };
        assert_eq!(Entry::decode(out.into()), Ok(Entry::Record(record)));
        let mut out = Vec::new();
        checkpoint().encode(&mut out);
        let wanted =
            b"\x02\x01\x03\xc1\x84\x3d\x02\x08\x00\xc8\x01\x01\x01\x9e\x06\x03\x03\x07\xc6\x01\x05\
            \x00\x00\x00\x01\x04\x06\x10\x00\xac\x02\x07\x02";
        assert_eq!(out, wanted, "the format is documented");
        assert_eq!(Entry::decode(out.clone().into()), Ok(Entry::Checkpoint(checkpoint())));
        out.extend(b"\x7f\x01z");
        assert_eq!(Entry::decode(out.into()), Ok(Entry::Checkpoint(checkpoint())));
        for status in Status::ALL {
            let mut out = Vec::new();
            encode_record(Seq(1), status, b"", &mut out);
            let Ok(Entry::Record(record)) = Entry::decode(out.into()) else { panic!("{status:?}") };
            assert_eq!(record.status, status);
        }
    }

    #[test]
    fn what_is_no_entry_is_refused_and_what_is_cut_off_never_panics() {
        let decode = |bytes: &[u8]| Entry::decode(Bytes::copy_from_slice(bytes));
        assert_eq!(decode(b""), Err(EntryError::Short));
        assert_eq!(decode(b"\x07"), Err(EntryError::Kind(7)));
        assert_eq!(decode(b"\x01\x06\x00"), Err(EntryError::Status(6)));
        assert_eq!(decode(b"\x01\x00\x80\x80\x80\x80\x80\x80\x80\x80\x40"), Err(EntryError::Seq));
        assert_eq!(decode(b"\x02\x80\x00"), Err(EntryError::Option(128)));
        assert_eq!(
            decode(b"\x02\x02\x0b\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
            Err(EntryError::Seq)
        );
        let mut whole = Vec::new();
        checkpoint().encode(&mut whole);
        for end in 0..whole.len() {
            // Between two options it is a checkpoint that says less: the batch's own CRC is in the way of that.
            let _ = decode(&whole[..end]);
        }
    }
}

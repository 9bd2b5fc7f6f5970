//! Numbers and parts of entries: a varint has 7 bits a byte, the lowest first; a part is its length, as a
//! varint, and its bytes; an option is its number, one byte, and a part. A set of seqs has for each of its ranges
//! two varints, the distance from the end of the last one and the length.
//!
//! An option with a number of 128 or more has to be understood by who reads it; a lower one that is not known
//! is passed over, so that older programs can read what newer ones wrote.

use bytes::{Buf, Bytes};
use thiserror::Error;
use tradewind_proto::limits::SEQS_MAX;
use tradewind_proto::{Seq, SeqRange, SeqSet};

/// Reason why bytes are not numbers and parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("it ends too soon")]
pub(crate) struct Short;

/// Reason why bytes are no set of seqs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum SetError {
    #[error("it ends too soon")]
    Short,
    #[error("it has a seq that cannot be")]
    Seq,
}

impl From<Short> for SetError {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

/// From this number on an option has to be understood.
pub(crate) const CRITICAL: u8 = 128;

pub(crate) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_part(part: &[u8], out: &mut Vec<u8>) {
    put_varint(part.len() as u64, out);
    out.extend_from_slice(part);
}

/// Appends an option whose value is a number.
pub(crate) fn put_number(option: u8, value: u64, out: &mut Vec<u8>) {
    let mut bytes = Vec::new();
    put_varint(value, &mut bytes);
    out.push(option);
    put_part(&bytes, out);
}

pub(crate) fn take_u8(bytes: &mut Bytes) -> Result<u8, Short> {
    bytes.try_get_u8().map_err(|_| Short)
}

pub(crate) fn take_varint(bytes: &mut Bytes) -> Result<u64, Short> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take_u8(bytes)?;
        let bits = u64::from(byte & 0x7f);
        value |= bits << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Short)
}

pub(crate) fn take_part(bytes: &mut Bytes) -> Result<Bytes, Short> {
    let len = usize::try_from(take_varint(bytes)?).map_err(|_| Short)?;
    if len > bytes.len() {
        return Err(Short);
    }
    Ok(bytes.split_to(len))
}

pub(crate) fn put_set(set: &SeqSet, out: &mut Vec<u8>) {
    let mut last = 0;
    for range in set.to_ranges().as_slice() {
        put_varint(range.start.0 - last, out);
        put_varint(range.count(), out);
        last = range.end.0;
    }
}

/// Takes all of these bytes as a set.
pub(crate) fn take_set(mut bytes: Bytes) -> Result<SeqSet, SetError> {
    let (mut set, mut last) = (SeqSet::new(), 0_u64);
    while !bytes.is_empty() {
        let start = last.saturating_add(take_varint(&mut bytes)?);
        last = start.saturating_add(take_varint(&mut bytes)?);
        if last > SEQS_MAX {
            return Err(SetError::Seq);
        }
        set.insert_range(SeqRange { start: Seq(start), end: Seq(last) });
    }
    Ok(set)
}

//! Format of a segment.
//!
//! A segment begins with [`HEADER_BYTES`] bytes: a magic number and the id of its job. A record is
//! a frame: the CRC-32 of the rest of it, the length of the body and the seq, and the body: the
//! names of its worker and its stage, and the result in the form of the wire. All numbers are
//! little-endian.

use std::sync::Arc;

use bytes::Bytes;
use tradewind_proto::collector::Record;
use tradewind_proto::message::TaskResult;
use tradewind_proto::{JobId, Seq};
use tradewind_wire::{decode_result, encode_result};

pub(super) const HEADER_BYTES: u64 = 24;

const MAGIC: &[u8; 16] = b"tradewind spool\x03";

/// Bytes before the body.
pub(super) const HEAD_BYTES: u64 = 16;

/// Numbers before the body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    crc: u32,
    body_bytes: u32,
    pub(super) seq: Seq,
}

/// A record that was read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) worker: Arc<str>,
    pub(super) stage: Arc<str>,
    pub(super) result: TaskResult,
}

/// Names that were read last: they seldom change.
#[derive(Debug)]
pub(super) struct Names([Arc<str>; 2]);

impl Default for Names {
    fn default() -> Self {
        Self([Arc::from(""), Arc::from("")])
    }
}

pub(super) fn header(job: JobId) -> Vec<u8> {
    [&MAGIC[..], &job.0.to_le_bytes()].concat()
}

/// Returns the job of the segment that begins with these bytes; `None` if they are no header.
pub(super) fn job_of(header: &[u8]) -> Option<JobId> {
    let job = header.strip_prefix(MAGIC)?;
    Some(JobId(u64::from_le_bytes(job.try_into().ok()?)))
}

/// Returns whether these bytes can be the beginning of a header.
pub(super) fn is_torn_header(bytes: &[u8]) -> bool {
    (bytes.len() as u64) < HEADER_BYTES
        && bytes.iter().zip(MAGIC).all(|(byte, wanted)| byte == wanted)
}

/// Appends a record to `out`.
pub(super) fn encode(record: Record<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_BYTES as usize]);
    for name in [record.worker, record.stage] {
        let length = u16::try_from(name.len()).expect("names are short");
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(name.as_bytes());
    }
    encode_result(record.result, out);
    let body_bytes = out.len() - start - HEAD_BYTES as usize;
    let body_bytes = u32::try_from(body_bytes).expect("a result fits into a message");
    out[start + 4..start + 8].copy_from_slice(&body_bytes.to_le_bytes());
    out[start + 8..start + 16].copy_from_slice(&record.result.seq.0.to_le_bytes());
    let crc = crc32fast::hash(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
}

impl Head {
    /// Reads the numbers at the beginning of `bytes`; `None` if there are too few.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (crc, rest) = bytes.split_first_chunk()?;
        let (body_bytes, rest) = rest.split_first_chunk()?;
        let (seq, _) = rest.split_first_chunk()?;
        Some(Self {
            crc: u32::from_le_bytes(*crc),
            body_bytes: u32::from_le_bytes(*body_bytes),
            seq: Seq(u64::from_le_bytes(*seq)),
        })
    }

    /// Returns the bytes of the frame.
    pub(super) fn frame_bytes(&self) -> u64 {
        HEAD_BYTES + u64::from(self.body_bytes)
    }

    /// Decodes the record; `None` if the bytes of the frame are not as they were written.
    pub(super) fn decode(&self, frame: &Bytes, names: &mut Names) -> Option<Read> {
        if crc32fast::hash(&frame[4..]) != self.crc {
            return None;
        }
        let mut at = HEAD_BYTES as usize;
        let mut name = |which: usize| {
            let (length, rest) = frame.get(at..)?.split_first_chunk()?;
            let name = rest.get(..usize::from(u16::from_le_bytes(*length)))?;
            at += 2 + name.len();
            let last = &mut names.0[which];
            if last.as_bytes() != name {
                *last = Arc::from(str::from_utf8(name).ok()?);
            }
            Some(Arc::clone(last))
        };
        let (worker, stage) = (name(0)?, name(1)?);
        let result = decode_result(frame, at).ok().filter(|result| result.seq == self.seq)?;
        Some(Read { worker, stage, result })
    }
}

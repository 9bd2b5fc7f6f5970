//! Bytes of a segment: a header, then batches. Numbers are little-endian.
//!
//! | header | bytes |
//! | --- | --- |
//! | 0 | `TWINDLOG` |
//! | 8 | version, 2 bytes |
//! | 10 | kind of log, 2 bytes |
//! | 12 | 0, 4 bytes |
//! | 16 | id of the log, 8 bytes, random |
//! | 24 | position of the first entry, 8 bytes |
//! | 32 | CRC-32 of the bytes before, 4 bytes |
//! | 36 | 0, 28 bytes |
//!
//! | batch | bytes |
//! | --- | --- |
//! | 0 | `TWB1` |
//! | 4 | bytes of the body, 4 bytes |
//! | 8 | position of the first entry, 8 bytes |
//! | 16 | number of entries, 4 bytes |
//! | 20 | CRC-32 of the body, 4 bytes |
//! | 24 | marks, 4 bytes: which kinds of entries are among them, as the log's owner says |
//! | 28 | CRC-32 of the log's id and the bytes before, 4 bytes |
//! | 32 | body: each entry's length, 4 bytes, and the entry; then 0 up to a multiple of 8 |
//!
//! A segment that is followed by another ends with the head of a batch without entries.
//!
//! The id is in the CRC of a batch so that no entry, whose bytes a stranger may have chosen, looks like a batch.

use crc32fast::Hasher;

/// Version of the format.
pub(crate) const VERSION: u16 = 1;

pub(crate) const HEADER_BYTES: u64 = 64;
const HEADER_MAGIC: &[u8; 8] = b"TWINDLOG";

pub(crate) const HEAD_BYTES: usize = 32;
pub(crate) const HEAD_MAGIC: &[u8; 4] = b"TWB1";

/// Batches begin at multiples of this.
pub(crate) const ALIGN: usize = 8;

/// What a log's entries are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Tasks.
    Tasks,
    /// Records.
    Records,
    /// Changes of a queue: cancels, pauses, settings, positions of consumers.
    Control,
    /// Keys of tasks that are gone.
    Keys,
}

impl Kind {
    const fn number(self) -> u16 {
        match self {
            Self::Tasks => 1,
            Self::Records => 2,
            Self::Control => 3,
            Self::Keys => 4,
        }
    }
}

/// What is wrong with a segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// It was not written to its end, or is damaged.
    Broken,
    Version(u16),
    Kind,
}

/// Header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) id: u64,
    pub(crate) first: u64,
}

impl Header {
    pub(crate) fn encode(self, kind: Kind) -> [u8; HEADER_BYTES as usize] {
        let mut bytes = [0; HEADER_BYTES as usize];
        bytes[..8].copy_from_slice(HEADER_MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10..12].copy_from_slice(&kind.number().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.id.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..32]);
        bytes[32..36].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8], kind: Kind) -> Result<Self, HeaderFault> {
        let bytes: &[u8; HEADER_BYTES as usize] =
            bytes.try_into().map_err(|_| HeaderFault::Broken)?;
        let is_right = bytes.starts_with(HEADER_MAGIC)
            && u32_at(bytes, 32) == crc32fast::hash(&bytes[..32])
            && bytes[36..].iter().all(|byte| *byte == 0);
        if !is_right {
            return Err(HeaderFault::Broken);
        }
        // Only now: a version of which one bit has turned is no version.
        match u16::from_le_bytes([bytes[8], bytes[9]]) {
            VERSION => {}
            version => return Err(HeaderFault::Version(version)),
        }
        if u16::from_le_bytes([bytes[10], bytes[11]]) != kind.number() {
            return Err(HeaderFault::Kind);
        }
        Ok(Self { id: u64_at(bytes, 16), first: u64_at(bytes, 24) })
    }
}

/// Head of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) body_bytes: u32,
    pub(crate) first: u64,
    pub(crate) count: u32,
    pub(crate) body_crc: u32,
    pub(crate) marks: u32,
}

impl Head {
    pub(crate) fn encode(self, id: u64) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..4].copy_from_slice(HEAD_MAGIC);
        bytes[4..8].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.first.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.count.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.body_crc.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.marks.to_le_bytes());
        let crc = head_crc(id, &bytes);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8], id: u64) -> Option<Self> {
        let bytes: &[u8; HEAD_BYTES] = bytes.get(..HEAD_BYTES)?.try_into().ok()?;
        let is_right = bytes.starts_with(HEAD_MAGIC) && u32_at(bytes, 28) == head_crc(id, bytes);
        is_right.then(|| Self {
            body_bytes: u32_at(bytes, 4),
            first: u64_at(bytes, 8),
            count: u32_at(bytes, 16),
            body_crc: u32_at(bytes, 20),
            marks: u32_at(bytes, 24),
        })
    }

    /// Returns the head behind the last batch of a segment that is followed by another.
    pub(crate) fn end_of_segment(position: u64) -> Self {
        Self { body_bytes: 0, first: position, count: 0, body_crc: 0, marks: 0 }
    }

    /// Returns the bytes of the batch, those after its body too.
    pub(crate) fn batch_bytes(self) -> u64 {
        HEAD_BYTES as u64 + u64::from(self.body_bytes).next_multiple_of(ALIGN as u64)
    }

    /// Returns the position after the last entry; `None` if there is no such.
    pub(crate) fn end(self) -> Option<u64> {
        self.first.checked_add(u64::from(self.count))
    }
}

fn head_crc(id: u64, head: &[u8; HEAD_BYTES]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&id.to_le_bytes());
    hasher.update(&head[..28]);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

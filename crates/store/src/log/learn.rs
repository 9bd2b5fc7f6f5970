//! Learning what is in a segment that was there before.

use std::io;
use std::ops::Range;

use tradewind_records::{Chunk, Medium};

use super::read::head_bytes;
use super::survey::head_after;
use super::{CHUNK_BYTES, Log, Segment, damaged, write_zeros};
use crate::error::LogError;
use crate::format::{ALIGN, HEAD_BYTES, HEADER_BYTES, Head, Header, HeaderFault, Kind, VERSION};

impl<M: Medium> Log<M> {
    /// Reads the end of a segment before the last one. Returns false if that is not at the end of its file:
    /// then its batches say where it is.
    pub(super) fn learn_end(&mut self, number: u64) -> Result<bool, LogError> {
        let len = self.medium.len(number)?;
        let Some(at) = len.checked_sub(HEAD_BYTES as u64) else { return Ok(false) };
        let mut bytes = [0; HEAD_BYTES];
        let read = self.medium.read_at(number, at, &mut bytes)?;
        let Some(head) = Head::decode(&bytes[..read], self.id) else { return Ok(false) };
        let next = self.segments.range(number + 1..).next().map(|(next, _)| *next);
        if head != Head::end_of_segment(head.first)
            || !(number..=next.unwrap_or(u64::MAX)).contains(&head.first)
            || at < HEADER_BYTES
        {
            return Ok(false);
        }
        let (end, is_closed) = (head.first, true);
        let segment =
            Segment { bytes: at, file_bytes: len, end, is_closed, ..Segment::new(number) };
        self.segments.insert(number, Segment { is_known: false, ..segment });
        Ok(true)
    }

    /// Looks at each batch of a segment, if that was not done yet. Of the last one, returns the bytes of what was
    /// being written.
    pub(super) fn learn(&mut self, number: u64, is_last: bool) -> Result<u64, LogError> {
        let before = &self.segments[&number];
        if before.is_known {
            return Ok(0);
        }
        let wanted = before.is_closed.then_some((before.bytes, before.end));
        let len = self.medium.len(number)?;
        let next = self.segments.range(number + 1..).next().map(|(next, _)| *next);
        let mut segment = Segment { file_bytes: len, ..Segment::new(number) };
        let mut chunk = Chunk::new(CHUNK_BYTES);
        loop {
            let medium = &mut self.medium;
            let bytes = head_bytes(medium, &mut chunk, number, segment.bytes, len)?;
            let Some(head) = bytes.and_then(|bytes| Head::decode(&bytes, self.id)) else { break };
            if head.first != segment.end
                || head.end().is_none_or(|end| next.is_some_and(|next| end > next))
            {
                return Err(damaged(number, segment.bytes, "its positions"));
            }
            // What is read later is checked then.
            if is_last {
                let at = segment.bytes + HEAD_BYTES as u64;
                let body = chunk.bytes_at(medium, number, at, head.body_bytes.into(), len)?;
                if body.is_none_or(|body| crc32fast::hash(&body) != head.body_crc) {
                    break;
                }
            } else if segment.bytes + head.batch_bytes() > len.next_multiple_of(ALIGN as u64) {
                break;
            }
            segment.add(head);
            if segment.is_closed {
                break;
            }
        }
        segment.is_known = true;
        let end = match segment.is_closed {
            true => segment.bytes + HEAD_BYTES as u64,
            false => segment.bytes,
        };
        // Zeros, or a batch that was never committed: nothing that was may follow, where each was synced before the next.
        if (self.medium.is_synced() || !is_last)
            && head_after(&mut self.medium, number, end, len, self.id)?.is_some()
        {
            return Err(damaged(number, end, "a batch, and whole ones follow"));
        }
        let mut torn = 0;
        if is_last {
            torn = self.torn_bytes(number, end..len)?;
            segment.is_torn = torn > 0;
        } else if !segment.is_closed {
            return Err(damaged(number, end, "a batch, and another segment follows"));
        }
        if wanted.is_some_and(|wanted| wanted != (segment.bytes, segment.end)) {
            return Err(damaged(number, segment.bytes, "it does not reach to its end"));
        }
        self.segments.insert(number, segment);
        Ok(torn)
    }

    /// Returns the number of bytes up to the last that is not zero.
    fn torn_bytes(&mut self, number: u64, range: Range<u64>) -> Result<u64, LogError> {
        let mut torn = 0;
        let mut at = range.start;
        while at < range.end {
            let room =
                usize::try_from(CHUNK_BYTES.min(range.end - at)).map_err(io::Error::other)?;
            let mut bytes = vec![0; room];
            let read = self.medium.read_at(number, at, &mut bytes)?;
            if read == 0 {
                break;
            }
            if let Some(last) = bytes[..read].iter().rposition(|byte| *byte != 0) {
                torn = at + last as u64 + 1 - range.start;
            }
            at += read as u64;
        }
        Ok(torn)
    }

    /// Fills what is left of a batch with zeros, if there is something.
    pub(super) fn clear_rest(&mut self, number: u64) -> Result<(), LogError> {
        let segment = self.segments.get_mut(&number).expect("the segment is there");
        if segment.is_torn {
            let end = match segment.is_closed {
                true => segment.bytes + HEAD_BYTES as u64,
                false => segment.bytes,
            };
            write_zeros(&mut self.medium, number, end..segment.file_bytes)?;
            self.medium.sync(number)?;
            segment.is_torn = false;
        }
        Ok(())
    }
}

/// Returns the header of a segment; `None` if it was being written and nothing follows it.
pub(super) fn header_of(
    medium: &mut impl Medium,
    segment: u64,
    kind: Kind,
) -> Result<Option<Header>, LogError> {
    let mut bytes = [0; HEADER_BYTES as usize];
    let read = medium.read_at(segment, 0, &mut bytes)?;
    match Header::decode(&bytes[..read], kind) {
        Ok(header) if header.first == segment => Ok(Some(header)),
        Ok(_) => Err(damaged(segment, 24, "the position of its first entry")),
        Err(HeaderFault::Version(version)) => {
            Err(LogError::Version { segment, version, ours: VERSION })
        }
        Err(HeaderFault::Kind) => Err(LogError::Foreign { segment }),
        Err(HeaderFault::Broken) => {
            let len = medium.len(segment)?;
            if len > HEADER_BYTES && !is_zero(medium, segment, HEADER_BYTES..len)? {
                return Err(damaged(segment, 0, "its header"));
            }
            Ok(None)
        }
    }
}

pub(super) fn is_zero(
    medium: &mut impl Medium,
    segment: u64,
    range: Range<u64>,
) -> io::Result<bool> {
    let mut at = range.start;
    while at < range.end {
        let room = CHUNK_BYTES.min(range.end - at);
        let mut bytes = vec![0; usize::try_from(room).map_err(io::Error::other)?];
        let read = medium.read_at(segment, at, &mut bytes)?;
        if bytes[..read].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        if read == 0 {
            break;
        }
        at += read as u64;
    }
    Ok(true)
}

//! Looking at all of a log, also behind what is damaged.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use memchr::memmem::Finder;
use tradewind_records::{Chunk, Medium};

use super::learn::{header_of, is_zero};
use super::read::{Source, take_entry};
use super::{CHUNK_BYTES, damaged};
use crate::error::LogError;
use crate::format::{ALIGN, HEAD_BYTES, HEAD_MAGIC, HEADER_BYTES, Head, Kind};

/// What is in a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Number of segments.
    pub segments: usize,
    /// Bytes of all files, with zeros that were written ahead.
    pub bytes: u64,
    /// Number of entries that can be read.
    pub entries: u64,
    /// Their positions, ascending.
    pub ranges: Vec<Range<u64>>,
    /// Bytes at the end that do not count: they look like a batch that was being written.
    pub torn_bytes: u64,
}

/// Entry of a survey.
#[derive(Clone, Debug)]
pub(crate) struct Surveyed {
    /// Id of the log.
    pub(crate) id: u64,
    pub(crate) segment: u64,
    pub(crate) is_last: bool,
    /// Byte at which its batch begins.
    pub(crate) batch: u64,
    pub(crate) position: u64,
    pub(crate) bytes: Bytes,
}

/// Where something is amiss, and what.
pub(crate) type Place = (u64, u64, String);

/// Looks at all of a log. Changes nothing. Gives each entry to `visit`, which says what is amiss with it.
///
/// # Errors
///
/// When the segments cannot be listed.
pub(crate) fn survey<M: Medium>(
    medium: &mut M,
    kind: Kind,
    faults: &mut Vec<Place>,
    mut visit: impl FnMut(Surveyed) -> Result<(), String>,
) -> io::Result<Survey> {
    let mut survey = Survey::default();
    let mut numbers = medium.segments()?;
    numbers.sort_unstable();
    let mut of_all = None;
    for (at, &segment) in numbers.iter().enumerate() {
        let next = numbers.get(at + 1).copied();
        let looked =
            look_at(medium, kind, (segment, next), &mut of_all, &mut survey, faults, &mut visit);
        if let Err(error) = looked {
            let at = if let LogError::Damaged { at, .. } = error { at } else { 0 };
            let what = match error {
                LogError::Damaged { what, .. } => what.to_owned(),
                error => error.to_string(),
            };
            faults.push((segment, at, what));
        }
    }
    Ok(survey)
}

fn look_at<M: Medium>(
    medium: &mut M,
    kind: Kind,
    (segment, next): (u64, Option<u64>),
    of_all: &mut Option<u64>,
    survey: &mut Survey,
    faults: &mut Vec<Place>,
    visit: &mut impl FnMut(Surveyed) -> Result<(), String>,
) -> Result<(), LogError> {
    let len = medium.len(segment)?;
    (survey.segments, survey.bytes) = (survey.segments + 1, survey.bytes + len);
    let Some(header) = header_of(medium, segment, kind)? else {
        // As for `Log::open`.
        if next.is_some() || (segment > 0 && survey.segments == 1) {
            return Err(damaged(segment, 0, "its header"));
        }
        survey.torn_bytes += len;
        return Ok(());
    };
    let id = *of_all.get_or_insert(header.id);
    if id != header.id {
        return Err(LogError::Foreign { segment });
    }
    let is_last = next.is_none();
    let mut chunk = Chunk::new(CHUNK_BYTES);
    let (mut at, mut position, mut is_closed) = (HEADER_BYTES, segment, false);
    while at < len {
        let mut source = Source { medium, id, segment, end: len };
        let read = source.head(&mut chunk, at).and_then(|(head, end)| {
            if head.count == 0 {
                return Ok((head, end, Bytes::new()));
            }
            Ok((head, end, source.body(&mut chunk, at, head)?))
        });
        let (head, end, mut body) = match read {
            Ok(read) => read,
            Err(error) => {
                if is_zero(medium, segment, at..len)? {
                    break;
                }
                match head_after(medium, segment, at, len, id)? {
                    Some(after) => {
                        let LogError::Damaged { what, .. } = error else { return Err(error) };
                        faults.push((segment, at, what.to_owned()));
                        at = after;
                        continue;
                    }
                    None if is_last => {
                        survey.torn_bytes += len - at;
                        return Ok(());
                    }
                    None => return Err(error),
                }
            }
        };
        if head.first < position || next.is_some_and(|next| end > next) {
            faults.push((segment, at, "its positions".to_owned()));
        }
        for position in head.first..end {
            let Some(bytes) = take_entry(&mut body) else {
                faults.push((segment, at, "the length of an entry".to_owned()));
                break;
            };
            survey.entries += 1;
            match survey.ranges.last_mut() {
                Some(last) if last.end == position => last.end = position + 1,
                _ => survey.ranges.push(position..position + 1),
            }
            let surveyed = Surveyed { id, segment, is_last, batch: at, position, bytes };
            if let Err(what) = visit(surveyed) {
                faults.push((segment, at, format!("entry {position}: {what}")));
            }
        }
        position = position.max(end);
        at += head.batch_bytes();
        if head.count == 0 {
            is_closed = true;
            break;
        }
    }
    if is_closed && head_after(medium, segment, at, len, id)?.is_some() {
        return Err(damaged(segment, at, "a batch, behind its end"));
    }
    if !is_closed && !is_last {
        return Err(damaged(segment, at, "a batch, and another segment follows"));
    }
    Ok(())
}

/// Returns the byte at which the next whole head begins, behind that which begins here.
pub(super) fn head_after<M: Medium>(
    medium: &mut M,
    segment: u64,
    from: u64,
    len: u64,
    id: u64,
) -> io::Result<Option<u64>> {
    let finder = Finder::new(HEAD_MAGIC);
    // The batch at `from` is broken itself, though its head may be whole.
    let mut at = from + ALIGN as u64;
    while at + HEAD_BYTES as u64 <= len {
        let room = CHUNK_BYTES.min(len - at);
        let mut bytes = vec![0; usize::try_from(room).map_err(io::Error::other)?];
        let read = medium.read_at(segment, at, &mut bytes)?;
        bytes.truncate(read);
        let mut places = finder.find_iter(&bytes);
        if let Some(place) = places.find(|place| Head::decode(&bytes[*place..], id).is_some()) {
            return Ok(Some(at + place as u64));
        }
        if read < HEAD_BYTES {
            break;
        }
        // A head that the chunk cuts is whole in the next.
        at += (read - HEAD_BYTES + 1) as u64;
    }
    Ok(None)
}

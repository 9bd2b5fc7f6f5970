//! Reading a spool back: nothing panics, nothing counts that is not whole and in a note, and what counts is
//! read in its order, now and after another start.
//!
//! The data is a byte, and then frames: a byte for the kind, the seq, a length, and so many bytes.

use std::collections::BTreeMap;
use std::io;

use tradewind_proto::message::{Outcome, Status, TaskResult};
use tradewind_proto::{Attempt, JobId, Payload, Seq, SeqSet, Tag, TaskHash};
use tradewind_records::{Medium, Spool, find};
use tradewind_wire::encode_result;

const JOB: JobId = JobId(7);

pub fn spool(mut data: &[u8]) {
    let flags = super::byte(&mut data);
    let mut segments = segments(data);
    // Torn at its end.
    if let Some(last) = segments.0.values_mut().next_back() {
        last.truncate(last.len().saturating_sub(usize::from(flags >> 3)));
    }
    let before = segments.clone();
    let is_written = |seq: Seq| flags & 1 != 0 && seq.0 % 5 == 0;
    let is_noted = |seq: &Seq| flags & 2 == 0 || seq.0 % 7 != 3;
    let noted: SeqSet = (0..=u64::from(u8::MAX)).map(Seq).filter(is_noted).collect();
    let found = find(&mut segments, JOB, is_written, &noted).expect("memory does not fail");
    assert_eq!(segments, before, "to look changes nothing");
    assert!(found.seqs.iter().all(|seq| noted.contains(seq) && !is_written(seq)));
    assert_eq!(found.counts.total(), found.seqs.count());

    let mut spool = Spool::go_on(segments, JOB, false, &found).expect("memory does not fail");
    let mut again = spool.medium().clone();
    let found_again = find(&mut again, JOB, is_written, &noted).expect("memory does not fail");
    assert_eq!(found_again.seqs, found.seqs, "nothing is lost by going on");
    for range in found.seqs.to_ranges().as_slice() {
        let lists = spool.read(*range, usize::MAX).expect("it was found");
        let seqs = lists.iter().flat_map(|list| &list.results).map(|result| result.seq);
        assert!(seqs.eq(range.seqs()), "each record once, in its order");
    }
    spool.release(Seq(u64::MAX));
    assert!(spool.medium().0.len() <= before.0.len(), "a segment came from nowhere");
}

/// Makes segments with checksums that are right, but for some.
fn segments(mut data: &[u8]) -> Segments {
    let mut segments = BTreeMap::<u64, Vec<u8>>::new();
    while !data.is_empty() {
        let kind = super::byte(&mut data);
        let seq = super::byte(&mut data);
        let length = usize::from(super::byte(&mut data)).min(data.len());
        let (body, rest) = data.split_at(length);
        data = rest;
        if segments.is_empty() || kind & 1 != 0 {
            let job = if kind & 2 == 0 { JOB.0 } else { u64::from(seq) };
            let header = [&b"tradewind spool\x03"[..], &job.to_le_bytes()].concat();
            segments.insert(segments.len() as u64, header);
        }
        let Some(mut segment) = segments.last_entry() else { return Segments(segments) };
        let mut frame = Vec::new();
        if kind & 4 == 0 {
            for name in ["w", "stage"] {
                frame.extend_from_slice(&(name.len() as u16).to_le_bytes());
                frame.extend_from_slice(name.as_bytes());
            }
            encode_result(&result(seq, kind, body), &mut frame);
        } else {
            frame.extend_from_slice(body);
        }
        let mut head = (frame.len() as u32).to_le_bytes().to_vec();
        head.extend_from_slice(&u64::from(seq).to_le_bytes());
        let rest = [head, frame].concat();
        let crc = crc32fast::hash(&rest) ^ u32::from(kind & 8 != 0);
        segment.get_mut().extend_from_slice(&crc.to_le_bytes());
        segment.get_mut().extend_from_slice(&rest);
    }
    Segments(segments)
}

fn result(seq: u8, kind: u8, output: &[u8]) -> TaskResult {
    let status = [Status::Ok, Status::Failed, Status::Cancelled, Status::Lost];
    let mut outcome = Outcome::ok(Payload::from(output.to_vec()));
    outcome.status = status[usize::from(kind >> 6)];
    TaskResult {
        seq: Seq(u64::from(seq)),
        attempt: Attempt(1),
        last: true,
        tag: Tag::default(),
        started_us: 1,
        ran_us: 1,
        task_bytes: 1,
        task_hash: TaskHash(u32::from(seq)),
        outcome,
        reported: None,
    }
}

/// Segments in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segments(BTreeMap<u64, Vec<u8>>);

impl Segments {
    fn get(&mut self, segment: u64) -> io::Result<&mut Vec<u8>> {
        self.0.get_mut(&segment).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Medium for Segments {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        Ok(self.0.keys().copied().collect())
    }

    fn create(&mut self, segment: u64) -> io::Result<()> {
        let before = self.0.insert(segment, Vec::new());
        assert!(before.is_none(), "segment {segment} exists");
        Ok(())
    }

    fn len(&mut self, segment: u64) -> io::Result<u64> {
        Ok(self.get(segment)?.len() as u64)
    }

    fn read_at(&mut self, segment: u64, at: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let from = self.get(segment)?.get(at as usize..).unwrap_or_default();
        let count = from.len().min(bytes.len());
        bytes[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }

    fn write_at(&mut self, segment: u64, at: u64, bytes: &[u8]) -> io::Result<()> {
        let file = self.get(segment)?;
        assert_eq!(file.len() as u64, at, "a segment is only appended to");
        file.extend_from_slice(bytes);
        Ok(())
    }

    fn cut(&mut self, segment: u64, len: u64) -> io::Result<()> {
        self.get(segment)?.truncate(len as usize);
        Ok(())
    }

    fn sync(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        self.get(segment)?;
        self.0.remove(&segment);
        Ok(())
    }
}

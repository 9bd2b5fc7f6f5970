//! The journal: which job an output belongs to, and which records are in it up to which byte.
//!
//! A text file beside the output, only ever appended to: `<CRC-32 of the JSON> <JSON>` a line. The
//! first line is the [`Claim`]; each other one is an [`Entry`], written after its bytes have left
//! the process. The truth is the output: an entry whose bytes are missing says nothing.

use std::io::{self, BufRead, Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tradewind_proto::collector::{Counts, Order};
use tradewind_proto::message::Status;
use tradewind_proto::{JobId, JobKey, Seq, TaskHash};

use super::Format;

/// Suffix of the journal's name, after the name of the file that it belongs to.
pub(super) const SUFFIX: &str = ".tradewind";

/// Version that is written.
const VERSION: u32 = 3;

/// Oldest version that is read. It has neither records that are to be replaced nor a last line; the
/// second has no key.
const VERSION_MIN: u32 = 1;

/// Bytes of the longest line that is read. The longest that is written has a few hundred thousand
/// records, none next to another.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Bytes before the JSON: eight digits and a space.
const PREFIX_BYTES: usize = 9;

/// First line: the job that the output belongs to, and its format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Version of the journal.
    tradewind: u32,
    /// Id of the job.
    #[serde(serialize_with = "write_job", deserialize_with = "read_job")]
    pub job: JobId,
    /// Key of the tags of the job's tasks. Journals of version 2 have none.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_key",
        deserialize_with = "read_key"
    )]
    pub(super) key: Option<JobKey>,
    /// Name of the job, for display.
    pub name: String,
    /// Format of the records.
    pub format: Format,
    /// Whether the records are in the order of the input.
    pub ordered: bool,
    /// Whether there is a joblog that the journal covers.
    pub joblog: bool,
    /// Number of times that the output was rewritten: see `rewrite.rs`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) generation: u64,
}

/// Records that one commit added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) output: Option<Part>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) joblog: Option<Part>,
    /// Seqs of the records: half-open ranges, ascending.
    pub(super) records: Vec<(u64, u64)>,
    #[serde(default, skip_serializing_if = "NotOk::is_empty")]
    pub(super) not_ok: NotOk,
    /// Task hashes of the records, ascending by seq: 32 bits each, little-endian, in base64.
    hashes: String,
    /// Whether these records were deleted from the output, to be replaced: a note of their task
    /// hashes.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) again: bool,
    /// Whether these records are about to be in the spool: a note of their task hashes.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) spooled: bool,
    /// Whether the job is complete with the records before this, and these are synced.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) complete: bool,
}

/// Bytes that a commit added to one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// Bytes of the file after the commit.
    pub(super) end: u64,
    /// CRC-32 of the added bytes.
    pub(super) crc: u32,
}

/// Numbers of records that are not `ok`, by the words for their status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct NotOk {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) failed: Vec<(u64, u64)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) timed_out: Vec<(u64, u64)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) lost: Vec<(u64, u64)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) cancelled: Vec<(u64, u64)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) skipped: Vec<(u64, u64)>,
}

/// Facts about a record that the journal keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) seq: Seq,
    pub(super) hash: TaskHash,
    pub(super) status: Status,
}

/// A line that was not written whole, or was changed since.
pub(super) struct BadLine;

/// Reader of a journal, line by line.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    /// Byte at which the next line begins.
    at: u64,
    number: u64,
}

impl Claim {
    /// Creates the claim of a new output.
    #[must_use]
    pub fn new(job: JobId, name: String, format: Format, order: Order, joblog: bool) -> Self {
        let ordered = order == Order::Seq;
        let key = None;
        Self { tradewind: VERSION, job, key, name, format, ordered, joblog, generation: 0 }
    }

    /// Adds the key of the tags of the job's tasks.
    #[must_use]
    pub fn with_key(self, key: Option<JobKey>) -> Self {
        Self { key, ..self }
    }

    /// Returns the key of the tags of the job's tasks.
    #[must_use]
    pub fn key(&self) -> Option<JobKey> {
        self.key
    }

    /// Appends the line to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode(&Self { tradewind: VERSION, ..self.clone() }, out);
    }

    /// Reads the first line of a journal. Returns `None` if it is not a claim.
    ///
    /// # Errors
    ///
    /// When the journal cannot be read.
    pub fn read(journal: impl BufRead) -> io::Result<Option<Self>> {
        let claim = match Lines::new(journal).next::<Self>()? {
            Some(Ok(claim)) if (VERSION_MIN..=VERSION).contains(&claim.tradewind) => Some(claim),
            _ => None,
        };
        Ok(claim)
    }

    /// Returns whether a journal that consists of these bytes ends before its first line does.
    pub(super) fn is_unfinished(journal: &[u8]) -> bool {
        let Some((crc, json)) = journal.split_at_checked(PREFIX_BYTES) else {
            return journal.iter().all(u8::is_ascii_hexdigit);
        };
        let begin = br#"{"tradewind":"#;
        let is_begun = begin.starts_with(json) || json.starts_with(begin);
        let is_crc =
            crc.ends_with(b" ") && crc[..PREFIX_BYTES - 1].iter().all(u8::is_ascii_hexdigit);
        is_crc && is_begun && !json.contains(&b'\n')
    }
}

impl Entry {
    /// Creates the last line of a journal whose job is complete.
    pub(super) fn complete(output: Option<Part>, joblog: Option<Part>) -> Self {
        Self { output, joblog, complete: true, ..Self::default() }
    }

    /// Creates a note of records that are about to be in the spool, ascending by seq.
    pub(super) fn spooled(records: &[Kept]) -> Self {
        let mut entry = Self { spooled: true, ..Self::default() };
        entry.set_records(records);
        entry
    }

    /// Returns whether it is a note: its records were not added by this commit.
    pub(super) fn is_note(&self) -> bool {
        self.again || self.spooled
    }

    /// Creates a note of records that were deleted, ascending by seq.
    pub(super) fn again(records: &[Kept]) -> Self {
        let mut entry = Self { again: true, ..Self::default() };
        entry.set_records(records);
        entry.not_ok.clear();
        entry
    }

    /// Makes this the entry of these records, ascending by seq.
    pub(super) fn set_records(&mut self, records: &[Kept]) {
        let Self { records: ranges, not_ok, hashes, .. } = self;
        ranges.clear();
        not_ok.clear();
        hashes.clear();
        let mut bytes = Vec::with_capacity(4 * records.len());
        for Kept { seq, hash, status } in records {
            extend(ranges, *seq);
            if let Some(ranges) = not_ok.of(*status) {
                extend(ranges, *seq);
            }
            bytes.extend_from_slice(&hash.0.to_le_bytes());
        }
        STANDARD.encode_string(&bytes, hashes);
    }

    /// Appends the line to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        encode(self, out);
    }

    /// Returns the number of records; `None` if its ranges are not ranges.
    pub(super) fn count(&self) -> Option<u64> {
        let mut before = 0;
        self.records.iter().try_fold(0, |count, (start, end)| {
            let is_sound = before <= *start && start < end;
            before = *end;
            is_sound.then(|| count + (end - start))
        })
    }

    /// Returns the hashes, one for each record; `None` if they are damaged.
    pub(super) fn hashes(&self) -> Option<Vec<TaskHash>> {
        let bytes = STANDARD.decode(&self.hashes).ok()?;
        let (hashes, rest) = bytes.as_chunks();
        let is_sound = rest.is_empty() && self.count()? == hashes.len() as u64;
        is_sound.then(|| hashes.iter().map(|hash| TaskHash(u32::from_le_bytes(*hash))).collect())
    }

    /// Returns the records, ascending by seq; `None` if they are damaged.
    pub(super) fn records(&self) -> Option<Vec<Kept>> {
        let hashes = self.hashes()?;
        let seqs = self.records.iter().flat_map(|(start, end)| *start..*end);
        let mut records: Vec<_> = seqs
            .zip(hashes)
            .map(|(seq, hash)| Kept { seq: Seq(seq), hash, status: Status::Ok })
            .collect();
        for (status, ranges) in self.not_ok.each() {
            for seq in ranges.iter().flat_map(|(start, end)| *start..*end) {
                let place = records.binary_search_by_key(&Seq(seq), |kept| kept.seq).ok()?;
                records[place].status = status;
            }
        }
        Some(records)
    }

    /// Returns the numbers of records by status.
    pub(super) fn counts(&self) -> Counts {
        let count = |ranges: &[(u64, u64)]| {
            ranges.iter().map(|(start, end)| end.saturating_sub(*start)).sum::<u64>()
        };
        let mut counts = Counts {
            ok: 0,
            failed: count(&self.not_ok.failed),
            timed_out: count(&self.not_ok.timed_out),
            lost: count(&self.not_ok.lost),
            cancelled: count(&self.not_ok.cancelled),
            skipped: count(&self.not_ok.skipped),
        };
        counts.ok = count(&self.records).saturating_sub(counts.total());
        counts
    }
}

impl NotOk {
    fn is_empty(&self) -> bool {
        self.each().iter().all(|(_, ranges)| ranges.is_empty())
    }

    fn clear(&mut self) {
        let Self { failed, timed_out, lost, cancelled, skipped } = self;
        [failed, timed_out, lost, cancelled, skipped].into_iter().for_each(Vec::clear);
    }

    fn of(&mut self, status: Status) -> Option<&mut Vec<(u64, u64)>> {
        match status {
            Status::Ok => None,
            Status::Failed => Some(&mut self.failed),
            Status::TimedOut => Some(&mut self.timed_out),
            Status::Lost => Some(&mut self.lost),
            Status::Cancelled => Some(&mut self.cancelled),
            Status::Skipped => Some(&mut self.skipped),
        }
    }

    pub(super) fn each(&self) -> [(Status, &[(u64, u64)]); 5] {
        [
            (Status::Failed, &self.failed),
            (Status::TimedOut, &self.timed_out),
            (Status::Lost, &self.lost),
            (Status::Cancelled, &self.cancelled),
            (Status::Skipped, &self.skipped),
        ]
    }
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, line: Vec::new(), at: 0, number: 0 }
    }

    /// Creates a reader that begins here.
    pub(super) fn reader(&self) -> &R {
        &self.reader
    }

    /// Returns the byte at which the next line begins.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Returns the number of the last line, from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Returns the next line.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<Result<T, BadLine>>> {
        self.line.clear();
        (&mut self.reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut self.line)?;
        if self.line.is_empty() {
            return Ok(None);
        }
        self.at += self.line.len() as u64;
        self.number += 1;
        Ok(Some(decode(&self.line).ok_or(BadLine)))
    }
}

fn encode(value: &impl Serialize, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[b' '; PREFIX_BYTES]);
    serde_json::to_writer(&mut *out, value)
        .expect("writing to memory does not fail, and all keys are strings");
    let crc = crc32fast::hash(&out[start + PREFIX_BYTES..]);
    write!(&mut out[start..], "{crc:08x}").expect("there is room for eight digits");
    out.push(b'\n');
}

fn decode<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let (prefix, json) = line.strip_suffix(b"\n")?.split_at_checked(PREFIX_BYTES)?;
    if prefix != format!("{:08x} ", crc32fast::hash(json)).as_bytes() {
        return None;
    }
    serde_json::from_slice(json).ok()
}

fn extend(ranges: &mut Vec<(u64, u64)>, seq: Seq) {
    match ranges.last_mut() {
        Some((_, end)) if *end == seq.0 => *end += 1,
        _ => ranges.push((seq.0, seq.0 + 1)),
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

fn write_job<S: Serializer>(job: &JobId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(job)
}

fn read_job<'de, D: Deserializer<'de>>(deserializer: D) -> Result<JobId, D::Error> {
    let text = String::deserialize(deserializer)?;
    u64::from_str_radix(&text, 16).map(JobId).map_err(serde::de::Error::custom)
}

fn write_key<S: Serializer>(key: &Option<JobKey>, serializer: S) -> Result<S::Ok, S::Error> {
    let bytes = key.map(JobKey::to_bytes).unwrap_or_default();
    STANDARD.encode(bytes).serialize(serializer)
}

fn read_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<JobKey>, D::Error> {
    let bytes = STANDARD.decode(String::deserialize(deserializer)?);
    let bytes = bytes.ok().and_then(|bytes| bytes.try_into().ok());
    let bytes = bytes.ok_or_else(|| serde::de::Error::custom("a key has 16 bytes"))?;
    Ok(Some(JobKey::new(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let kept = |seq, status| Kept { seq: Seq(seq), hash: TaskHash(seq as u32 + 1), status };
        let records = [
            kept(0, Status::Ok),
            kept(1, Status::Ok),
            kept(3, Status::Failed),
            kept(4, Status::Failed),
            kept(9, Status::Cancelled),
        ];
        let mut entry = Entry { output: Some(Part { end: 1234, crc: 56 }), ..Entry::default() };
        entry.set_records(&records);
        assert_eq!(entry.records().unwrap(), records);
        entry
    }

    fn encoded(encode: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        encode(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_look_as_they_are_documented() {
        let claim = Claim::new(
            JobId(0x0123_4567_89ab_cdef),
            "a \"job\"".into(),
            Format::Jsonl,
            Order::Completion,
            true,
        );
        let claim = claim.with_key(Some(JobKey::new(*b"sixteen bytes...")));
        let line = encoded(|out| claim.encode(out));
        assert_eq!(
            &line[9..],
            "{\"tradewind\":3,\"job\":\"0123456789abcdef\",\"key\":\"c2l4dGVlbiBieXRlcy4uLg==\",\
             \"name\":\"a \\\"job\\\"\",\"format\":\"jsonl\",\"ordered\":false,\"joblog\":true}\n"
        );
        assert_eq!(Claim::read(line.as_bytes()).unwrap(), Some(claim));
        let line = encoded(|out| entry().encode(out));
        assert_eq!(
            &line[9..],
            "{\"output\":{\"end\":1234,\"crc\":56},\"records\":[[0,2],[3,5],[9,10]],\
             \"not_ok\":{\"failed\":[[3,5]],\"cancelled\":[[9,10]]},\
             \"hashes\":\"AQAAAAIAAAAEAAAABQAAAAoAAAA=\"}\n"
        );
        let line = encoded(|out| Entry::complete(None, None).encode(out));
        assert_eq!(&line[9..], "{\"records\":[],\"hashes\":\"\",\"complete\":true}\n");
        let kept = Kept { seq: Seq(3), hash: TaskHash(1), status: Status::Failed };
        let line = encoded(|out| Entry::again(&[kept]).encode(out));
        assert_eq!(&line[9..], "{\"records\":[[3,4]],\"hashes\":\"AQAAAA==\",\"again\":true}\n");
        let counts = Counts { ok: 2, failed: 2, cancelled: 1, ..Counts::default() };
        assert_eq!(entry().counts(), counts);
    }

    #[test]
    fn a_line_that_is_not_as_it_was_written_is_bad() {
        let mut line = encoded(|out| entry().encode(out)).into_bytes();
        assert_eq!(decode(&line), Some(entry()));
        for place in 0..line.len() {
            assert_eq!(decode::<Entry>(&line[..place]), None);
            line[place] ^= 1;
            assert_eq!(decode::<Entry>(&line), None, "at {place}");
            line[place] ^= 1;
        }
    }

    #[test]
    fn ranges_that_are_none_are_found_out() {
        let check = |records: &[(u64, u64)], count| {
            let entry = Entry { records: records.to_vec(), ..Entry::default() };
            assert_eq!(entry.count(), count, "{records:?}");
        };
        check(&[], Some(0));
        check(&[(0, 1), (5, 7)], Some(3));
        check(&[(0, u64::MAX)], Some(u64::MAX));
        check(&[(3, 3)], None);
        check(&[(3, 2)], None);
        check(&[(3, 5), (4, 6)], None);
        check(&[(3, 5), (0, 1)], None);
    }
}

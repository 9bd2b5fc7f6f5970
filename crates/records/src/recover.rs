//! Reading of an output by its journal.
//!
//! Reads any bytes and changes none: the caller cuts off the bytes beyond the ends that are found.

use std::io::{self, BufRead, Read};

use serde::de::IgnoredAny;
use tradewind_proto::collector::Counts;
use tradewind_proto::message::Status;
use tradewind_proto::{Seq, SeqRange, SeqSet};

use super::Role;
use super::journal::{Claim, Entry, Lines, Part};

/// Bytes that are read at a time.
const READ_BYTES: usize = 64 << 10;

/// Contents of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// First line of the journal.
    pub claim: Claim,
    /// Tasks whose records are in it.
    pub stored: SeqSet,
    /// Numbers of these records by status.
    pub counts: Counts,
    /// Tasks among these that are not `ok`.
    pub not_ok: SeqSet,
    /// Tasks among these that were cancelled.
    pub cancelled: SeqSet,
    /// Tasks whose records were deleted to be replaced, and are not yet.
    pub again: SeqSet,
    /// Tasks whose records were about to be in the spool.
    pub spooled: SeqSet,
    /// Whether the job was complete with these records, and nothing was added since.
    pub is_complete: bool,
    /// Bytes of the output that count.
    pub output_end: u64,
    /// Bytes of the joblog that count.
    pub joblog_end: u64,
    /// Bytes of the journal that count.
    pub journal_end: u64,
}

/// Damage of an output that is neither whole nor torn at its end.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The journal has no claim.
    #[error("line 1 is not as it was written")]
    Claim,
    /// A line of the journal was changed, or does not follow from those before.
    #[error("line {line} is not as it was written")]
    Line {
        /// Number of the line, from 1.
        line: u64,
    },
    /// Bytes that the journal covers have changed, and those after them are good.
    #[error("bytes {from} to {to} are not as they were written")]
    Bytes {
        /// Output or joblog.
        role: Role,
        /// First of the bytes.
        from: u64,
        /// Byte after the last of them.
        to: u64,
    },
    /// The file is long enough, and the journal covers none of it.
    #[error("its contents do not match the journal")]
    Foreign {
        /// Output or joblog.
        role: Role,
    },
    /// The job was complete and all of its records synced, and the file has changed since.
    #[error("it was changed after the job was complete")]
    Changed {
        /// Output or joblog.
        role: Role,
    },
    /// The file cannot be read.
    #[error("cannot read it: {reason}")]
    Read {
        /// Output, joblog or journal.
        role: Role,
        /// Error of the operating system.
        reason: io::Error,
    },
}

impl Damage {
    /// Returns the damaged file.
    #[must_use]
    pub fn role(&self) -> Role {
        match self {
            Self::Claim | Self::Line { .. } => Role::Journal,
            Self::Bytes { role, .. } | Self::Foreign { role } => *role,
            Self::Changed { role } | Self::Read { role, .. } => *role,
        }
    }
}

/// Reads the contents of an output. A torn end does not count: the last line of the journal if it
/// is not whole, and all entries at its end whose bytes are missing.
///
/// # Errors
///
/// When another part than the end is damaged, or cannot be read.
pub fn recover(
    journal: impl BufRead,
    output: Option<impl Read>,
    joblog: Option<impl Read>,
) -> Result<Recovered, Damage> {
    recover_until(journal, output, joblog, |_| false)
}

/// Reads the contents of an output up to, and without, the first entry of this kind.
pub(super) fn recover_until(
    journal: impl BufRead,
    output: Option<impl Read>,
    joblog: Option<impl Read>,
    is_end: impl Fn(&Entry) -> bool,
) -> Result<Recovered, Damage> {
    let unread = |reason| Damage::Read { role: Role::Journal, reason };
    let mut lines = Lines::new(journal);
    let Some(Ok(claim)) = lines.next::<Claim>().map_err(unread)? else {
        return Err(Damage::Claim);
    };
    let mut output = Checked::new(Role::Output, output);
    let mut joblog = Checked::new(Role::Joblog, joblog);
    let mut recovered = Recovered {
        claim,
        stored: SeqSet::new(),
        counts: Counts::default(),
        not_ok: SeqSet::new(),
        cancelled: SeqSet::new(),
        again: SeqSet::new(),
        spooled: SeqSet::new(),
        is_complete: false,
        output_end: 0,
        joblog_end: 0,
        journal_end: lines.at(),
    };
    let mut is_whole = true;
    while let Some(line) = lines.next::<Entry>().map_err(unread)? {
        let damage = Damage::Line { line: lines.number() };
        let Ok(entry) = line else {
            // A line that was being written is the last.
            while let Some(line) = lines.next::<IgnoredAny>().map_err(unread)? {
                if line.is_ok() {
                    return Err(damage);
                }
            }
            break;
        };
        if is_end(&entry) {
            break;
        }
        recovered.is_complete = entry.complete;
        if entry.is_note() {
            if is_whole {
                recovered.note(&entry).ok_or(damage)?;
                recovered.journal_end = lines.at();
            }
            continue;
        }
        let checked = output.check(entry.output).and_then(|in_output| {
            joblog.check(entry.joblog).map(|in_joblog| in_output.zip(in_joblog))
        });
        let (in_output, in_joblog) = match checked {
            Ok(Some(found)) => found,
            Ok(None) => return Err(damage),
            Err(damage @ (Damage::Foreign { .. } | Damage::Bytes { .. })) => {
                let role = damage.role();
                let is_complete = is_complete_at_end(&mut lines, &entry).map_err(unread)?;
                return Err(if is_complete { Damage::Changed { role } } else { damage });
            }
            Err(damage) => return Err(damage),
        };
        // The rest is read only to learn whether it proves that this is no torn end.
        is_whole &= in_output && in_joblog;
        if is_whole {
            recovered.add(&entry).ok_or(damage)?;
            recovered.output_end = output.at;
            recovered.joblog_end = joblog.at;
            recovered.journal_end = lines.at();
        }
    }
    if recovered.is_complete {
        // Nothing was being written: this is no torn end.
        output.check_end()?;
        joblog.check_end()?;
    }
    for range in recovered.stored.to_ranges().as_slice() {
        recovered.again.remove_range(*range);
    }
    Ok(recovered)
}

/// Returns whether the last line after this entry says that the job is complete.
fn is_complete_at_end(lines: &mut Lines<impl BufRead>, entry: &Entry) -> io::Result<bool> {
    let mut is_complete = entry.complete;
    while let Some(Ok(entry)) = lines.next::<Entry>()? {
        is_complete = entry.complete;
    }
    Ok(is_complete)
}

impl Recovered {
    /// Adds the records of a note: those that were deleted, or are about to be in the spool.
    fn note(&mut self, entry: &Entry) -> Option<()> {
        entry.hashes()?;
        let noted = if entry.spooled { &mut self.spooled } else { &mut self.again };
        insert(noted, &entry.records);
        Some(())
    }

    /// Adds the records of an entry, unless they are there.
    fn add(&mut self, entry: &Entry) -> Option<()> {
        let count = entry.hashes()?.len() as u64;
        let before = self.stored.count();
        insert(&mut self.stored, &entry.records);
        if self.stored.count() - before != count {
            return None;
        }
        for (status, ranges) in entry.not_ok.each() {
            if !status.is_success() {
                insert(&mut self.not_ok, ranges);
            }
            if status == Status::Cancelled {
                insert(&mut self.cancelled, ranges);
            }
        }
        self.counts.add_all(&entry.counts());
        Some(())
    }
}

fn insert(set: &mut SeqSet, ranges: &[(u64, u64)]) {
    for (start, end) in ranges {
        set.insert_range(SeqRange { start: Seq(*start), end: Seq(*end) });
    }
}

/// File that the journal covers.
struct Checked<R> {
    role: Role,
    reader: Option<R>,
    buffer: Vec<u8>,
    /// Byte at which the last entry ended.
    at: u64,
    /// First bytes that were not as they should be.
    bad: Option<(u64, u64)>,
}

impl<R: Read> Checked<R> {
    fn new(role: Role, reader: Option<R>) -> Self {
        let buffer = vec![0; if reader.is_some() { READ_BYTES } else { 0 }];
        Self { role, reader, buffer, at: 0, bad: None }
    }

    /// Reads the bytes of the next part. Returns whether they are those that the journal covers;
    /// `None` if the part cannot follow the last one.
    fn check(&mut self, part: Option<Part>) -> Result<Option<bool>, Damage> {
        let Some((part, reader)) = part.zip(self.reader.as_mut()) else {
            return Ok((part.is_none() && self.reader.is_none()).then_some(true));
        };
        let (role, from) = (self.role, self.at);
        let Some(count) = part.end.checked_sub(from) else { return Ok(None) };
        self.at = part.end;
        let mut crc = crc32fast::Hasher::new();
        let mut left = count;
        while left > 0 {
            let room = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match reader.read(&mut self.buffer[..room]) {
                Ok(0) => break,
                Ok(read) => {
                    crc.update(&self.buffer[..read]);
                    left -= read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(reason) => return Err(Damage::Read { role, reason }),
            }
        }
        let is_short = left > 0;
        let is_good = !is_short && crc.finalize() == part.crc;
        if is_good {
            // A crash takes the end of the written bytes, never something before it.
            return match self.bad {
                Some((from, to)) if count > 0 => Err(Damage::Bytes { role, from, to }),
                _ => Ok(Some(true)),
            };
        }
        // A crash leaves fewer bytes, not other ones.
        if !is_short && from == 0 {
            return Err(Damage::Foreign { role });
        }
        let (first, _) = self.bad.unwrap_or((from, part.end));
        self.bad = Some((first, part.end));
        Ok(Some(false))
    }

    /// Returns whether all of it is as it was when the job was complete.
    fn check_end(&mut self) -> Result<(), Damage> {
        let role = self.role;
        let Some(reader) = &mut self.reader else { return Ok(()) };
        let read = reader.read(&mut self.buffer[..1]);
        let more = read.map_err(|reason| Damage::Read { role, reason })?;
        if self.bad.is_some() || more > 0 { Err(Damage::Changed { role }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use tradewind_proto::JobId;
    use tradewind_proto::collector::Order;
    use tradewind_proto::message::{Exit, Outcome};

    use super::super::examples::record;
    use super::super::{
        Destination, Device, Format, Fsync, Output, OutputTarget, Place, Writer, joblog,
    };
    use super::*;
    use tradewind_proto::collector::Records;

    /// Output, joblog and journal.
    type Bytes = [Vec<u8>; 3];

    /// Writes, each with the number of its file.
    type Writes = Vec<(usize, Vec<u8>)>;

    /// Notes what is written where, in which order.
    #[derive(Clone)]
    struct Disk {
        which: usize,
        log: Rc<RefCell<Writes>>,
    }

    impl io::Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.log.borrow_mut().push((self.which, bytes.to_vec()));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Device for Disk {
        fn sync(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn records(count: u64) -> Vec<Records> {
        let of = |seq: u64| {
            let mut record = record(seq, "x".repeat(seq as usize % 4));
            if seq % 5 == 2 {
                let status =
                    [Status::Failed, Status::Cancelled, Status::TimedOut][seq as usize % 3];
                record.results[0].outcome =
                    Outcome { exit: Exit::Code(1), ..Outcome::error(status, "no") };
            }
            record
        };
        (0..count).map(of).collect()
    }

    fn claimed(format: Format) -> Bytes {
        let mut journal = Vec::new();
        Claim::new(JobId(1), "job".into(), format, Order::Completion, true).encode(&mut journal);
        [Vec::new(), Vec::new(), journal]
    }

    /// Continues an output, and returns the writes in their order.
    fn write(format: Format, there: &Bytes, groups: &[Vec<Records>]) -> Writes {
        let log = Rc::default();
        let place = |which: usize, role| Place {
            destination: Destination { role, target: OutputTarget::Stdout },
            device: Disk { which, log: Rc::clone(&log) },
            end: Some(there[which].len() as u64),
        };
        let [output, joblog, journal] =
            [place(0, Role::Output), place(1, Role::Joblog), place(2, Role::Journal)];
        let mut writer = Writer::new(format, Fsync::None, output, Some(joblog), Some(journal));
        for group in groups {
            writer.write(group).unwrap();
            writer.commit().unwrap();
        }
        writer.finish(false).unwrap();
        log.take()
    }

    fn apply(bytes: &mut Bytes, writes: Writes) {
        writes.into_iter().for_each(|(which, written)| bytes[which].extend(written));
    }

    fn groups(records: &[Records], random: &mut fastrand::Rng) -> Vec<Vec<Records>> {
        let mut groups = Vec::new();
        let mut rest = records;
        while !rest.is_empty() {
            let (group, others) = rest.split_at(random.usize(1..6).min(rest.len()));
            groups.push(group.to_vec());
            rest = others;
        }
        groups
    }

    fn read([output, joblog, journal]: &Bytes) -> Result<Recovered, Damage> {
        recover(&journal[..], Some(&output[..]), Some(&joblog[..]))
    }

    fn cut(bytes: &mut Bytes, to: &Recovered) {
        let ends = [to.output_end, to.joblog_end, to.journal_end];
        for (bytes, end) in bytes.iter_mut().zip(ends) {
            assert!(end <= bytes.len() as u64, "no more counts than there is");
            bytes.truncate(end as usize);
        }
    }

    /// Checks that all that is there was found, and no more, and that all is there if more is written after it.
    fn check_found(format: Format, mut bytes: Bytes, found: &Recovered, written: &[Records]) {
        cut(&mut bytes, found);
        let is_stored = |record: &&Records| found.stored.contains(record.results[0].seq);
        let stored: Vec<Records> = written.iter().filter(is_stored).cloned().collect();
        let missing: Vec<Records> = written.iter().filter(|r| !is_stored(r)).cloned().collect();
        assert_eq!(found.stored.count(), stored.len() as u64);
        let mut counts = Counts::default();
        stored.iter().for_each(|record| counts.add(record.results[0].outcome.status));
        assert_eq!(found.counts, counts);
        assert_eq!(found.not_ok.count(), counts.not_ok());
        assert_eq!(found.cancelled.count(), counts.cancelled);
        check_files(format, &bytes, &stored);

        let more = write(format, &bytes, std::slice::from_ref(&missing));
        apply(&mut bytes, more);
        let all = [stored, missing].concat();
        check_files(format, &bytes, &all);
        let found = read(&bytes).unwrap();
        assert_eq!(found.stored.count(), all.len() as u64);
        assert_eq!(found.output_end, bytes[0].len() as u64);
    }

    fn check_files(format: Format, [output, joblog, _]: &Bytes, records: &[Records]) {
        let (mut wanted, mut log) = (Vec::new(), joblog::HEADER.as_bytes().to_vec());
        for record in records.iter().flat_map(Records::iter) {
            format.encode(record, &mut wanted);
            joblog::encode(record, &mut log);
        }
        assert_eq!(output.escape_ascii().to_string(), wanted.escape_ascii().to_string());
        // The header comes with the first record.
        if !(joblog.is_empty() && records.is_empty()) {
            assert_eq!(joblog.escape_ascii().to_string(), log.escape_ascii().to_string());
        }
    }

    /// Some dozens of records, in whole groups.
    fn example(format: Format) -> (Bytes, Vec<Records>) {
        let mut random = fastrand::Rng::with_seed(5);
        let mut records = records(30);
        random.shuffle(&mut records);
        let mut bytes = claimed(format);
        let writes = write(format, &bytes, &groups(&records, &mut random));
        apply(&mut bytes, writes);
        (bytes, records)
    }

    const FORMATS: [Format; 2] = [Format::Lines, Format::Jsonl];

    #[test]
    fn whole_records_are_found_whole() {
        for format in FORMATS {
            let (bytes, records) = example(format);
            let found = read(&bytes).unwrap();
            assert_eq!(found.stored.count(), records.len() as u64);
            assert_eq!(found.journal_end, bytes[2].len() as u64);
            check_found(format, bytes, &found, &records);
        }
    }

    #[test]
    fn wherever_a_file_ends_the_records_before_are_found() {
        for format in FORMATS {
            let (bytes, records) = example(format);
            let first_line = 1 + bytes[2].iter().position(|byte| *byte == b'\n').unwrap();
            for which in 0..3 {
                for end in 0..bytes[which].len() {
                    let mut bytes = bytes.clone();
                    bytes[which].truncate(end);
                    match read(&bytes) {
                        Ok(found) => {
                            assert!(found.stored.count() < records.len() as u64 || which < 2);
                            check_found(format, bytes, &found, &records);
                        }
                        Err(damage) => {
                            assert!(which == 2 && end < first_line, "{damage}");
                            assert!(matches!(damage, Damage::Claim));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_byte_that_was_changed_is_never_taken_for_a_record() {
        for format in FORMATS {
            let (bytes, records) = example(format);
            for which in 0..3 {
                let mut damages = 0;
                for place in 0..bytes[which].len() {
                    let mut bytes = bytes.clone();
                    bytes[which][place] ^= 1 << (place % 8);
                    match read(&bytes) {
                        Ok(found) => check_found(format, bytes, &found, &records),
                        Err(_) => damages += 1,
                    }
                }
                assert!(
                    damages > bytes[which].len() / 2,
                    "only the end of file {which} may be torn"
                );
            }
        }
    }

    #[test]
    fn damage_says_where_it_is() {
        let (bytes, _) = example(Format::Jsonl);
        let check = |which: usize, place: usize, role, wanted: &str| {
            let mut bytes = bytes.clone();
            bytes[which][place] ^= 1;
            let damage = read(&bytes).unwrap_err();
            assert_eq!((damage.role(), damage.to_string()), (role, wanted.to_owned()));
        };
        let line_2 = 3 + bytes[2].iter().position(|byte| *byte == b'\n').unwrap();
        check(2, 0, Role::Journal, "line 1 is not as it was written");
        check(2, line_2, Role::Journal, "line 2 is not as it was written");
        check(0, 0, Role::Output, "its contents do not match the journal");
        check(1, 0, Role::Joblog, "its contents do not match the journal");
        let mut lines = Lines::new(&bytes[2][..]);
        assert!(matches!(lines.next::<Claim>(), Ok(Some(Ok(_)))));
        let mut end = || match lines.next::<Entry>() {
            Ok(Some(Ok(entry))) => entry.output.unwrap().end,
            _ => panic!("a good journal"),
        };
        let (from, to) = (end(), end());
        let wanted = format!("bytes {from} to {to} are not as they were written");
        check(0, to as usize - 1, Role::Output, &wanted);
    }

    #[test]
    fn a_record_that_is_there_twice_is_damage() {
        let (mut bytes, records) = example(Format::Jsonl);
        let writes = write(Format::Jsonl, &bytes, &[records[3..4].to_vec()]);
        apply(&mut bytes, writes);
        assert!(matches!(read(&bytes), Err(Damage::Line { .. })));
    }

    #[test]
    fn wherever_the_sink_is_killed_again_and_again_the_output_becomes_what_it_should() {
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..300 {
            let format = FORMATS[random.usize(..2)];
            let mut bytes = claimed(format);
            let records = records(random.u64(..40));
            let mut order: Vec<Records> = Vec::new();
            loop {
                let found = read(&bytes).unwrap();
                cut(&mut bytes, &found);
                order.retain(|record| found.stored.contains(record.results[0].seq));
                assert_eq!(order.len() as u64, found.stored.count());
                check_files(format, &bytes, &order);
                let mut missing = records.clone();
                missing.retain(|record| !found.stored.contains(record.results[0].seq));
                random.shuffle(&mut missing);
                let writes = write(format, &bytes, &groups(&missing, &mut random));
                let total: usize = writes.iter().map(|(_, bytes)| bytes.len()).sum();
                let mut room = if random.u8(..4) == 0 { total } else { random.usize(..=total) };
                let is_killed = room < total;
                for (which, written) in writes {
                    let count = room.min(written.len());
                    bytes[which].extend_from_slice(&written[..count]);
                    room -= count;
                }
                order.append(&mut missing);
                if !is_killed {
                    break;
                }
            }
            check_files(format, &bytes, &order);
            assert_eq!(read(&bytes).unwrap().stored.count(), records.len() as u64);
        }
    }
}

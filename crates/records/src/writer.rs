//! Records on their way into the output, the joblog and the journal.

use tradewind_proto::collector::Records;
use tradewind_proto::message::{Status, TaskResult};
use tradewind_proto::{Seq, SeqRange, SeqSet, TaskHash};

use super::journal::{Entry, Kept, Part};
use super::stream::{Device, Place, Stream};
use super::{Extras, Format, Fsync, OutputError, joblog};

/// Records after which a commit is due, so that no entry of the journal becomes long.
pub(super) const ENTRY_RECORDS_MAX: usize = 16 << 10;

/// Output that stores records.
///
/// A record is stored when `write` has taken it and a later `commit` returned `Ok`: then no part of
/// it is left in this process. An error means only that not all could be written: all that was
/// taken is kept, and the next `commit` continues where the last one stopped.
pub trait Output {
    /// Makes it ready for the first record. Until then all that is there is unchanged.
    ///
    /// # Errors
    ///
    /// When that failed. May be tried again.
    fn begin(&mut self) -> Result<(), OutputError> {
        Ok(())
    }

    /// Takes records, in the order in which they are to be stored. They are taken even if it fails:
    /// do not give them again.
    ///
    /// # Errors
    ///
    /// When some of the bytes had to be written, and could not be.
    fn write(&mut self, records: &[Records]) -> Result<(), OutputError>;

    /// Writes all that was taken.
    ///
    /// # Errors
    ///
    /// When that failed. May be tried again.
    fn commit(&mut self) -> Result<(), OutputError>;

    /// Commits, and makes everything survive a crash of the machine where the device can.
    ///
    /// # Errors
    ///
    /// When that failed. May be tried again.
    fn sync(&mut self) -> Result<(), OutputError>;

    /// Syncs, and takes no more records: puts them into their final form, if the job is whole and
    /// not just stopped.
    ///
    /// # Errors
    ///
    /// When that failed. May be tried again.
    fn finish(&mut self, is_whole: bool) -> Result<(), OutputError>;

    /// Returns the number of records that were stored as `failed` since the last call although their tasks were `ok`: the
    /// output does not take as much as these have written.
    fn take_failed(&mut self) -> u64 {
        0
    }

    /// Stores records beside the output, to be read back later. Returns the bytes of all that are
    /// there.
    ///
    /// # Errors
    ///
    /// When that failed. None of them is there then.
    fn spool(&mut self, _: &[Records]) -> Result<u64, OutputError> {
        Err(OutputError::NoSpool)
    }

    /// Reads records of the range back, from its beginning to its end, or until they have
    /// `bytes_max` bytes. They are to be written, and are not read again.
    ///
    /// # Errors
    ///
    /// When they cannot be read. May be tried again.
    fn unspool(&mut self, _: SeqRange, _bytes_max: usize) -> Result<Vec<Records>, OutputError> {
        Err(OutputError::NoSpool)
    }

    /// Notes that all spooled records below this seq are committed to the output. Returns the bytes
    /// that are left.
    fn release(&mut self, _below: Seq) -> u64 {
        0
    }
}

/// Writes records to one device, a joblog to a second, and a journal of both to a third.
#[derive(Debug)]
pub struct Writer<D> {
    format: Format,
    extras: Extras,
    fsync: Fsync,
    output: Stream<D>,
    joblog: Option<Stream<D>>,
    journal: Option<Journal<D>>,
}

#[derive(Debug)]
struct Journal<D> {
    stream: Stream<D>,
    /// Records that are in no entry yet.
    pending: Vec<Kept>,
    /// Entry that is written next: kept to reuse its memory.
    entry: Entry,
    /// Records that were last noted as about to be in the spool.
    noted: SeqSet,
    /// Whether the last line says that the job is complete.
    is_complete: bool,
}

impl<D: Device> Writer<D> {
    /// Creates a writer, with a joblog and a journal if there are devices for them. The journal has
    /// its claim already.
    pub fn new(
        format: Format,
        fsync: Fsync,
        output: Place<D>,
        joblog: Option<Place<D>>,
        journal: Option<Place<D>>,
    ) -> Self {
        let joblog = joblog.map(|place| {
            let is_new = place.end.is_none_or(|end| end == 0);
            let mut stream = Stream::new(place);
            if is_new {
                stream.buffer().extend_from_slice(joblog::HEADER.as_bytes());
            }
            stream
        });
        let journal = journal.map(|place| Journal {
            stream: Stream::new(place),
            pending: Vec::new(),
            entry: Entry::default(),
            noted: SeqSet::new(),
            is_complete: false,
        });
        let (output, extras) = (Stream::new(output), Extras::default());
        Self { format, extras, fsync, output, joblog, journal }
    }

    /// Adds fields to the records.
    #[must_use]
    pub fn with_extras(self, extras: Extras) -> Self {
        Self { extras, ..self }
    }

    /// Sets whether the job is complete already.
    pub(super) fn set_complete(&mut self, is_complete: bool) {
        self.journal.iter_mut().for_each(|journal| journal.is_complete = is_complete);
    }

    /// Notes that these records, ascending by seq, are to be replaced.
    pub(super) fn note_again(&mut self, records: &[Kept]) -> Result<(), OutputError> {
        self.commit()?;
        let Some(journal) = &mut self.journal else { return Ok(()) };
        for records in records.chunks(ENTRY_RECORDS_MAX) {
            Entry::again(records).encode(journal.stream.buffer());
            journal.stream.drain()?;
        }
        Ok(())
    }

    /// Notes the task hashes of records that are about to be in the spool. The spool may have no
    /// record without a note. Records that come again, because the spool could not be written, are
    /// not noted again: a full disk must not be filled with notes, nor memory.
    ///
    /// # Errors
    ///
    /// When that failed. May be tried again.
    pub fn note_spooled(&mut self, records: &[Records]) -> Result<(), OutputError> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let records = records.iter().flat_map(|list| &list.results).map(|result| Kept {
            seq: result.seq,
            hash: result.task_hash,
            status: result.outcome.status,
        });
        let mut records: Vec<Kept> = records.collect();
        records.sort_unstable_by_key(|kept| kept.seq);
        let count = records.len();
        records.retain(|kept| !journal.noted.contains(kept.seq));
        if records.len() == count {
            journal.noted = SeqSet::new();
        }
        journal.is_complete = false;
        for records in records.chunks(ENTRY_RECORDS_MAX) {
            let entry = Entry::spooled(records);
            entry.encode(journal.stream.buffer());
            for (start, end) in entry.records {
                journal.noted.insert_range(SeqRange { start: Seq(start), end: Seq(end) });
            }
        }
        journal.stream.drain()?;
        if self.fsync == Fsync::None { Ok(()) } else { journal.stream.sync() }
    }

    /// Takes a record that is encoded already.
    pub(super) fn write_encoded(
        &mut self,
        kept: Kept,
        output: &[u8],
        joblog: &[u8],
    ) -> Result<(), OutputError> {
        self.output.buffer().extend_from_slice(output);
        if let Some(stream) = &mut self.joblog {
            stream.buffer().extend_from_slice(joblog);
        }
        self.note(kept.seq, kept.hash, kept.status);
        if self.is_full() { self.commit() } else { Ok(()) }
    }

    fn note(&mut self, seq: Seq, hash: TaskHash, status: Status) {
        if let Some(journal) = &mut self.journal {
            journal.pending.push(Kept { seq, hash, status });
        }
    }

    fn is_full(&self) -> bool {
        self.output.is_full()
            || self.joblog.as_ref().is_some_and(Stream::is_full)
            || self.journal.as_ref().is_some_and(|j| j.pending.len() >= ENTRY_RECORDS_MAX)
    }

    fn streams(&mut self) -> impl Iterator<Item = &mut Stream<D>> {
        let journal = self.journal.as_mut().map(|journal| &mut journal.stream);
        [Some(&mut self.output), self.joblog.as_mut(), journal].into_iter().flatten()
    }
}

impl<D: Device> Output for Writer<D> {
    fn write(&mut self, records: &[Records]) -> Result<(), OutputError> {
        let mut result = Ok(());
        for record in records.iter().flat_map(Records::iter) {
            self.format.encode_with(self.extras, record, self.output.buffer());
            if let Some(joblog) = &mut self.joblog {
                joblog::encode(record, joblog.buffer());
            }
            let TaskResult { seq, task_hash, outcome, .. } = record.result;
            self.note(*seq, *task_hash, outcome.status);
            if (self.is_full() || self.fsync == Fsync::Record) && result.is_ok() {
                result = self.commit();
            }
        }
        result
    }

    fn commit(&mut self) -> Result<(), OutputError> {
        let is_synced = self.fsync != Fsync::None;
        self.streams().try_for_each(Stream::check)?;
        // Records in the joblog are in the output, never the other way round, and those in the
        // journal are in both.
        self.output.drain()?;
        self.joblog.as_mut().map_or(Ok(()), Stream::drain)?;
        if is_synced {
            self.output.sync()?;
            self.joblog.as_mut().map_or(Ok(()), Stream::sync)?;
        }
        let Some(journal) = &mut self.journal else { return Ok(()) };
        if !journal.pending.is_empty() {
            let parts = (self.output.take_part(), self.joblog.as_mut().and_then(Stream::take_part));
            journal.add_entry(parts);
        }
        journal.stream.drain()?;
        if is_synced { journal.stream.sync() } else { Ok(()) }
    }

    fn sync(&mut self) -> Result<(), OutputError> {
        self.commit()?;
        self.streams().try_for_each(Stream::sync)
    }

    fn finish(&mut self, is_whole: bool) -> Result<(), OutputError> {
        self.commit()?;
        self.output.sync()?;
        self.joblog.as_mut().map_or(Ok(()), Stream::sync)?;
        let Some(journal) = &mut self.journal else { return Ok(()) };
        // After all else is synced: from here on a difference is no torn end.
        if is_whole && !std::mem::replace(&mut journal.is_complete, true) {
            let output = self.output.take_part();
            let joblog = self.joblog.as_mut().and_then(Stream::take_part);
            Entry::complete(output, joblog).encode(journal.stream.buffer());
        }
        journal.stream.drain()?;
        journal.stream.sync()
    }
}

impl<D: Device> Journal<D> {
    /// Writes one entry with all pending records.
    fn add_entry(&mut self, (output, joblog): (Option<Part>, Option<Part>)) {
        let Self { stream, pending, entry, is_complete, noted: _ } = self;
        *is_complete = false;
        if !pending.is_sorted_by_key(|kept| kept.seq) {
            pending.sort_unstable_by_key(|kept| kept.seq);
        }
        (entry.output, entry.joblog) = (output, joblog);
        entry.set_records(pending);
        entry.encode(stream.buffer());
        pending.clear();
        pending.shrink_to(ENTRY_RECORDS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::io;
    use std::rc::Rc;

    use tradewind_proto::JobId;
    use tradewind_proto::collector::Order;

    use super::super::examples::record;
    use super::super::stream::Presence;
    use super::super::{Claim, Destination, OutputTarget, Role, recover};
    use super::*;

    /// A disk that is full after `room` bytes and takes at most `step` of them at a time.
    #[derive(Clone)]
    struct Disk {
        room: Rc<Cell<usize>>,
        step: usize,
        written: Rc<RefCell<Vec<u8>>>,
        syncs: Rc<Cell<usize>>,
        presence: Rc<Cell<Presence>>,
    }

    impl io::Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room.get()).min(self.step);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room.set(self.room.get() - count);
            self.written.borrow_mut().extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Device for Disk {
        fn sync(&mut self) -> io::Result<()> {
            self.syncs.set(self.syncs.get() + 1);
            Ok(())
        }

        fn presence(&mut self) -> io::Result<Presence> {
            Ok(self.presence.get())
        }

        fn restore(&mut self) -> io::Result<()> {
            self.presence.set(Presence::There);
            Ok(())
        }
    }

    fn disk(room: usize, step: usize) -> Disk {
        Disk {
            room: Rc::new(Cell::new(room)),
            step,
            written: Rc::default(),
            syncs: Rc::default(),
            presence: Rc::new(Cell::new(Presence::There)),
        }
    }

    fn disks(room: usize, step: usize) -> [Disk; 3] {
        [disk(room, step), disk(room, step), disk(room, step)]
    }

    fn writer(format: Format, fsync: Fsync, disks: &[Disk; 3]) -> Writer<Disk> {
        let place = |role, disk: &Disk| Place {
            destination: Destination { role, target: OutputTarget::File("x".into()) },
            device: disk.clone(),
            end: Some(0),
        };
        let [output, joblog, journal] = disks;
        Writer::new(
            format,
            fsync,
            place(Role::Output, output),
            Some(place(Role::Joblog, joblog)),
            Some(place(Role::Journal, journal)),
        )
    }

    fn encoded(records: &[Records], format: Format) -> (Vec<u8>, Vec<u8>) {
        let (mut output, mut log) = (Vec::new(), joblog::HEADER.as_bytes().to_vec());
        for record in records.iter().flat_map(Records::iter) {
            format.encode(record, &mut output);
            joblog::encode(record, &mut log);
        }
        (output, log)
    }

    /// Output and joblog are those of the records, and the journal says so.
    fn check_written(disks: &[Disk; 3], records: &[Records], format: Format) {
        let [output, joblog, journal] = disks.each_ref().map(|disk| disk.written.borrow().clone());
        let wanted = encoded(records, format);
        assert_eq!(output, wanted.0);
        assert_eq!(joblog, wanted.1);
        let mut claimed = Vec::new();
        Claim::new(JobId(1), "job".into(), format, Order::Seq, true).encode(&mut claimed);
        claimed.extend_from_slice(&journal);
        let recovered = recover(&claimed[..], Some(&output[..]), Some(&joblog[..])).unwrap();
        assert!(recovered.stored.iter().eq(records.iter().map(|record| record.results[0].seq)));
        assert_eq!(recovered.output_end, output.len() as u64);
        assert_eq!(recovered.journal_end, claimed.len() as u64);
    }

    #[test]
    fn records_that_cannot_be_spooled_are_noted_once() {
        let records: Vec<_> = (3..40).map(|seq| record(seq, "x")).collect();
        let noted = |room, tries| {
            let disks = disks(1 << 20, 1 << 20);
            let mut writer = writer(Format::Lines, Fsync::None, &disks);
            disks[2].room.set(room);
            for _ in 0..tries {
                let _ = writer.note_spooled(&records[10..]);
                disks[2].room.set(room);
            }
            disks[2].room.set(1 << 20);
            // Records that have come meanwhile are noted as well, and only those.
            writer.note_spooled(&records[10..]).unwrap();
            writer.note_spooled(&records[20..30]).unwrap();
            writer.note_spooled(&records).unwrap();
            disks[2].written.take()
        };
        let once = noted(1 << 20, 0);
        assert_eq!(once.iter().filter(|byte| **byte == b'\n').count(), 2);
        for room in 0..100 {
            assert_eq!(noted(room, 20), once, "{room}");
        }
    }

    #[test]
    fn wherever_a_disk_is_full_a_retry_goes_on_from_there() {
        let records: Vec<_> = (0..4).map(|seq| record(seq, format!("output {seq}"))).collect();
        let check = |format, fsync, rooms: [usize; 3], step| {
            let disks = rooms.map(|room| disk(room, step));
            let mut writer = writer(format, fsync, &disks);
            let mut errors = 0;
            for batch in records.chunks(2) {
                let mut result = writer.write(batch).and_then(|()| writer.commit());
                while let Err(error) = result {
                    assert!(matches!(error, OutputError::Io { .. }), "{error}");
                    errors += 1;
                    disks.iter().zip(rooms).for_each(|(disk, room)| disk.room.set(room.max(1)));
                    result = writer.commit();
                }
            }
            while let Err(error) = writer.finish(true) {
                assert!(matches!(error, OutputError::Io { .. }), "{error}");
                errors += 1;
                disks.iter().zip(rooms).for_each(|(disk, room)| disk.room.set(room.max(1)));
            }
            check_written(&disks, &records, format);
            let is_enough = |(disk, room): (&Disk, usize)| disk.written.borrow().len() <= room;
            assert_eq!(errors > 0, !disks.iter().zip(rooms).all(is_enough), "{rooms:?}, {step}");
        };
        for format in [Format::Lines, Format::Jsonl] {
            for fsync in [Fsync::None, Fsync::Record] {
                let large = disks(usize::MAX, usize::MAX);
                let mut writer = writer(format, fsync, &large);
                for batch in records.chunks(2) {
                    writer.write(batch).unwrap();
                    writer.commit().unwrap();
                }
                for (place, disk) in large.iter().enumerate() {
                    for room in 0..=disk.written.borrow().len() {
                        for step in [1, 7, usize::MAX] {
                            let mut rooms = [usize::MAX; 3];
                            rooms[place] = room;
                            check(format, fsync, rooms, step);
                            check(format, fsync, [room; 3], step);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_commit_leaves_nothing_behind() {
        let disks = disks(usize::MAX, usize::MAX);
        let mut writer = writer(Format::Lines, Fsync::None, &disks);
        for seq in 0..3 {
            writer.write(&[record(seq, "x")]).unwrap();
            writer.commit().unwrap();
            assert_eq!(disks[0].written.borrow().len() as u64, 2 * (seq + 1));
            let lines = disks[2].written.borrow().iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(lines as u64, seq + 1);
        }
        assert_eq!(disks.each_ref().map(|disk| disk.syncs.get()), [0; 3]);
        for _ in 0..2 {
            writer.finish(true).unwrap();
            let journal = String::from_utf8(disks[2].written.borrow().clone()).unwrap();
            assert_eq!(journal.lines().count(), 4, "it says once that the job is complete");
            assert!(journal.ends_with("\"complete\":true}\n"), "{journal}");
        }
        assert_eq!(disks.each_ref().map(|disk| disk.syncs.get()), [1; 3]);
    }

    #[test]
    fn records_are_synced_before_they_count_as_stored() {
        let check = |fsync, wanted: usize| {
            let disks = disks(usize::MAX, usize::MAX);
            let mut writer = writer(Format::Lines, fsync, &disks);
            for seq in [0, 10] {
                writer
                    .write(&[record(seq, "x"), record(seq + 1, ""), record(seq + 2, "")])
                    .unwrap();
                writer.commit().unwrap();
                writer.commit().unwrap();
            }
            // The tasks in the middle print nothing.
            let syncs = disks.each_ref().map(|disk| disk.syncs.get());
            assert_eq!(syncs, [wanted.min(2), wanted, wanted], "{fsync:?}");
        };
        check(Fsync::None, 0);
        check(Fsync::Batch, 2);
        check(Fsync::Record, 6);
    }

    #[test]
    fn records_are_taken_even_if_passing_them_on_early_fails() {
        let records: Vec<_> =
            (0..20).map(|seq| record(seq, vec![b'a' + seq as u8; 50_000])).collect();
        let disks = disks(usize::MAX, usize::MAX);
        disks[0].room.set(300_000);
        let mut writer = writer(Format::Lines, Fsync::None, &disks);
        writer.write(&records).unwrap_err();
        writer.commit().unwrap_err();
        disks[0].room.set(usize::MAX);
        writer.commit().unwrap();
        check_written(&disks, &records, Format::Lines);
    }

    #[test]
    fn without_records_there_is_an_empty_output_and_a_joblog_with_its_header() {
        let disks = disks(usize::MAX, usize::MAX);
        writer(Format::Jsonl, Fsync::Batch, &disks).finish(true).unwrap();
        let [output, joblog, journal] = disks.map(|disk| disk.written.take());
        assert!(output.is_empty());
        let journal = String::from_utf8(journal).unwrap();
        assert!(journal.lines().count() == 1 && journal.contains("\"complete\":true"), "{journal}");
        assert_eq!(joblog, joblog::HEADER.as_bytes());
    }

    #[test]
    fn a_removed_file_is_put_back_and_a_replaced_one_left_alone() {
        let records: Vec<_> = (0..3).map(|seq| record(seq, "x")).collect();
        for place in 0..3 {
            let disks = disks(usize::MAX, usize::MAX);
            let mut writer = writer(Format::Lines, Fsync::None, &disks);
            writer.write(&records[..1]).unwrap();
            writer.commit().unwrap();

            disks[place].presence.set(Presence::Removed);
            writer.write(&records[1..2]).unwrap();
            let error = writer.commit().unwrap_err();
            assert!(error.to_string().ends_with(" \"x\" was removed; it is written again"));
            writer.commit().unwrap();
            assert_eq!(disks[place].presence.get(), Presence::There);

            disks[place].presence.set(Presence::Replaced);
            writer.write(&records[2..]).unwrap();
            for _ in 0..3 {
                let error = writer.commit().unwrap_err().to_string();
                assert!(error.ends_with(" was replaced by another file; move that one away"));
            }
            disks[place].presence.set(Presence::There);
            writer.commit().unwrap();
            check_written(&disks, &records, Format::Lines);
        }
    }

    #[test]
    fn errors_name_the_destination_and_the_reason() {
        let check = |role, target, kind: io::ErrorKind, wanted: &str| {
            struct Broken(io::ErrorKind);
            impl io::Write for Broken {
                fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                    Err(self.0.into())
                }
                fn flush(&mut self) -> io::Result<()> {
                    Ok(())
                }
            }
            impl Device for Broken {
                fn sync(&mut self) -> io::Result<()> {
                    Ok(())
                }
            }
            let destination = Destination { role, target };
            let place = Place { destination, device: Broken(kind), end: None };
            let mut writer = Writer::new(Format::Lines, Fsync::None, place, None, None);
            writer.write(&[record(0, "x")]).unwrap();
            let error = writer.commit().unwrap_err();
            assert_eq!(error.to_string(), wanted);
            let closed = kind == io::ErrorKind::BrokenPipe;
            assert_eq!(matches!(error, OutputError::Closed { .. }), closed);
        };
        let file = || OutputTarget::File("x".into());
        let (broken, full) = (io::ErrorKind::BrokenPipe, io::ErrorKind::StorageFull);
        check(
            Role::Output,
            OutputTarget::Stdout,
            broken,
            "standard output was closed by its reader",
        );
        check(Role::Joblog, file(), broken, "joblog \"x\" was closed by its reader");
        check(Role::Output, file(), full, "cannot write to output \"x\": no storage space");
    }
}

//! Records on their way into the output and the joblog.

use super::stream::{Device, Stream};
use super::{Destination, Format, OutputError, Record, joblog};

/// Where records are stored.
///
/// A record is stored when `write` has taken it and a later `commit` returned `Ok`: then no
/// part of it is left in this process. An error means that not all could be passed on, and nothing
/// more: whatever was taken is kept, and the next `commit` goes on where the last one stopped.
pub trait Output {
    /// Takes records, in the order in which they are to be stored. They are taken even if it
    /// fails: they must not be given again.
    ///
    /// # Errors
    ///
    /// When some of what was taken had to be passed on, and could not be.
    fn write(&mut self, records: &[Record]) -> Result<(), OutputError>;

    /// Passes on all that was taken.
    ///
    /// # Errors
    ///
    /// When that failed. May be tried again.
    fn commit(&mut self) -> Result<(), OutputError>;

    /// Commits, and makes everything survive a crash of the machine where that can be had.
    ///
    /// # Errors
    ///
    /// When that failed. May be tried again.
    fn finish(&mut self) -> Result<(), OutputError>;
}

/// Writes records to one device, and a joblog to another.
#[derive(Debug)]
pub struct Writer<D> {
    format: Format,
    output: Stream<D>,
    joblog: Option<Stream<D>>,
}

impl<D: Device> Writer<D> {
    /// Writes records in this format, and a joblog if there is a device for it.
    pub fn new(
        format: Format,
        (destination, device): (Destination, D),
        joblog: Option<(Destination, D)>,
    ) -> Self {
        let joblog = joblog.map(|(destination, device)| {
            let mut stream = Stream::new(device, destination);
            stream.buffer().extend_from_slice(joblog::HEADER.as_bytes());
            stream
        });
        Self { format, output: Stream::new(device, destination), joblog }
    }
}

impl<D: Device> Output for Writer<D> {
    fn write(&mut self, records: &[Record]) -> Result<(), OutputError> {
        let mut result = Ok(());
        for record in records {
            self.format.encode(record, self.output.buffer());
            if let Some(joblog) = &mut self.joblog {
                joblog::encode(record, joblog.buffer());
            }
            let is_full =
                self.output.is_full() || self.joblog.as_ref().is_some_and(Stream::is_full);
            if is_full && result.is_ok() {
                result = self.commit();
            }
        }
        result
    }

    fn commit(&mut self) -> Result<(), OutputError> {
        // What the joblog knows of is in the output, never the other way round.
        self.output.drain()?;
        self.joblog.as_mut().map_or(Ok(()), Stream::drain)
    }

    fn finish(&mut self) -> Result<(), OutputError> {
        self.commit()?;
        self.output.sync()?;
        self.joblog.as_mut().map_or(Ok(()), Stream::sync)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::io;
    use std::rc::Rc;

    use super::super::record::tests::record;
    use super::super::{OutputTarget, Role};
    use super::*;

    /// A disk that is full after `room` bytes and takes at most `step` of them at a time.
    #[derive(Clone, Default)]
    struct Disk {
        room: Rc<Cell<usize>>,
        step: usize,
        written: Rc<RefCell<Vec<u8>>>,
        syncs: Rc<Cell<usize>>,
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
    }

    fn disk(room: usize, step: usize) -> Disk {
        Disk { room: Rc::new(Cell::new(room)), step, ..Disk::default() }
    }

    fn named(role: Role, disk: &Disk) -> (Destination, Disk) {
        (Destination { role, target: OutputTarget::File("x".into()) }, disk.clone())
    }

    fn writer(format: Format, output: &Disk, joblog: &Disk) -> Writer<Disk> {
        Writer::new(format, named(Role::Output, output), Some(named(Role::Joblog, joblog)))
    }

    fn encoded(records: &[Record], format: Format) -> (Vec<u8>, Vec<u8>) {
        let (mut output, mut log) = (Vec::new(), joblog::HEADER.as_bytes().to_vec());
        for record in records {
            format.encode(record, &mut output);
            joblog::encode(record, &mut log);
        }
        (output, log)
    }

    #[test]
    fn wherever_a_disk_is_full_a_retry_goes_on_from_there() {
        let records: Vec<_> = (0..6).map(|seq| record(seq, format!("output {seq}"))).collect();
        for format in [Format::Lines, Format::Jsonl] {
            let wanted = encoded(&records, format);
            let longest = wanted.0.len().max(wanted.1.len());
            for room in 0..=longest {
                for step in [1, 7, usize::MAX] {
                    let disks = (disk(room, step), disk(room, step));
                    let mut writer = writer(format, &disks.0, &disks.1);
                    let mut errors = 0;
                    for batch in records.chunks(2) {
                        writer.write(batch).unwrap();
                        while let Err(error) = writer.commit() {
                            assert!(matches!(error, OutputError::Io { .. }), "{error}");
                            errors += 1;
                            disks.0.room.set(room.max(1));
                            disks.1.room.set(room.max(1));
                        }
                    }
                    writer.finish().unwrap();
                    assert_eq!(*disks.0.written.borrow(), wanted.0, "room {room}, step {step}");
                    assert_eq!(*disks.1.written.borrow(), wanted.1, "room {room}, step {step}");
                    assert_eq!(errors > 0, room < longest);
                }
            }
        }
    }

    #[test]
    fn a_commit_leaves_nothing_behind() {
        let disks = (disk(usize::MAX, usize::MAX), disk(usize::MAX, usize::MAX));
        let mut writer = writer(Format::Lines, &disks.0, &disks.1);
        for seq in 0..3 {
            writer.write(&[record(seq, "x")]).unwrap();
            writer.commit().unwrap();
            assert_eq!(disks.0.written.borrow().len() as u64, 2 * (seq + 1));
        }
        assert_eq!((disks.0.syncs.get(), disks.1.syncs.get()), (0, 0));
        writer.finish().unwrap();
        assert_eq!((disks.0.syncs.get(), disks.1.syncs.get()), (1, 1));
    }

    #[test]
    fn records_are_taken_even_if_passing_them_on_early_fails() {
        let records: Vec<_> =
            (0..20).map(|seq| record(seq, vec![b'a' + seq as u8; 50_000])).collect();
        let disks = (disk(300_000, usize::MAX), disk(usize::MAX, usize::MAX));
        let mut writer = writer(Format::Lines, &disks.0, &disks.1);
        writer.write(&records).unwrap_err();
        writer.commit().unwrap_err();
        disks.0.room.set(usize::MAX);
        writer.commit().unwrap();
        let wanted = encoded(&records, Format::Lines);
        assert_eq!(*disks.0.written.borrow(), wanted.0);
        assert_eq!(*disks.1.written.borrow(), wanted.1);
    }

    #[test]
    fn without_records_there_is_an_empty_output_and_a_joblog_with_its_header() {
        let disks = (disk(usize::MAX, usize::MAX), disk(usize::MAX, usize::MAX));
        writer(Format::Jsonl, &disks.0, &disks.1).finish().unwrap();
        assert_eq!(*disks.0.written.borrow(), b"");
        assert_eq!(*disks.1.written.borrow(), joblog::HEADER.as_bytes());
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
            let mut writer = Writer::new(Format::Lines, (destination, Broken(kind)), None);
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

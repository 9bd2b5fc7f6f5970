//! An output on a thread of its own.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use tradewind_proto::collector::Records;
use tradewind_proto::message::TaskResult;
use tradewind_proto::{Seq, SeqRange};

use super::{Continued, OpenError, Output, OutputError};

/// Records after which a commit is due although more are waiting: the first of them should not wait
/// for all that come meanwhile.
const GROUP_RECORDS_MAX: usize = 16 << 10;

/// Bytes of output after which a commit is due.
const GROUP_BYTES_MAX: usize = 1 << 20;

/// Event of the writer: `C` when its output is open, `E` if it cannot be opened.
#[derive(Debug)]
pub enum Event<C = Continued, E = OpenError> {
    /// The output is open. The first event.
    Opened(C),
    /// The output cannot be opened. The only event.
    Refused(E),
    /// The output is ready for records.
    Begun,
    /// The next records, in the order in which they were given, are stored.
    Stored {
        /// Number of lists of them.
        count: usize,
        /// Number of records that are `failed` now, and were `ok`: they are larger than the output takes.
        failed: u64,
    },
    /// The next records that were to be spooled are stored.
    Spooled {
        /// Number of lists of them.
        count: usize,
        /// Bytes in the spool.
        spool_bytes: u64,
    },
    /// The next records that were to be spooled are not.
    SpoolFailed {
        /// These records.
        records: Vec<Records>,
        /// Reason.
        error: OutputError,
    },
    /// The records below this seq that were to be moved from the spool to the output are there.
    Unspooled {
        /// Seq of the first record that was not moved.
        below: Seq,
        /// Bytes in the spool.
        spool_bytes: u64,
    },
    /// Not all could be written. Nothing is lost and no further event comes until
    /// [`WriterThread::retry`].
    Failed(OutputError),
    /// All records are stored and the output is finished.
    Finished,
}

/// Runs an output on a thread of its own, so that a slow disk or a blocked pipe stops no other
/// part.
///
/// Batches that wait while others are being written are committed together: the busier the output,
/// the fewer the commits. The queue has no limit; the caller keeps one, by the records that were
/// given and not reported as stored.
///
/// When it is dropped, all that was given is still written and synced, without a finish, unless
/// that fails.
#[derive(Debug)]
pub struct WriterThread {
    commands: Sender<Command>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
enum Command {
    Store(Vec<Records>),
    Spool(Vec<Records>),
    Unspool(SeqRange),
    Retry,
    Begin,
    Finish { is_whole: bool },
}

impl WriterThread {
    /// Starts the thread, which opens the output first. It calls `report` for each event, and drops
    /// it when it ends. Before the first records, call [`begin`](Self::begin).
    ///
    /// # Errors
    ///
    /// When the system has no thread to give.
    pub fn spawn<O: Output, C, E>(
        open: impl FnOnce() -> Result<(O, C), E> + Send + 'static,
        mut report: impl FnMut(Event<C, E>) + Send + 'static,
    ) -> io::Result<Self> {
        let (commands, received) = channel();
        let run = move || match open() {
            Ok((output, continued)) => {
                report(Event::Opened(continued));
                Loop { output, report, commands: received, waiting: VecDeque::new() }.run();
            }
            Err(error) => report(Event::Refused(error)),
        };
        let thread = thread::Builder::new().name("writer".to_owned()).spawn(run)?;
        Ok(Self { commands, thread })
    }

    /// Makes the output ready for records: creates files, or changes those that are there.
    pub fn begin(&self) {
        self.send(Command::Begin);
    }

    /// Stores records after all that were given before.
    pub fn store(&self, records: Vec<Records>) {
        self.send(Command::Store(records));
    }

    /// Stores records beside the output.
    pub fn spool(&self, records: Vec<Records>) {
        self.send(Command::Spool(records));
    }

    /// Moves spooled records to the output, after all that were given before: some of the range,
    /// from its beginning on.
    pub fn unspool(&self, range: SeqRange) {
        self.send(Command::Unspool(range));
    }

    /// Continues after a failure. Otherwise does nothing.
    pub fn retry(&self) {
        self.send(Command::Retry);
    }

    /// Finishes the output: no more records come, unless a job that is not whole, because it was
    /// stopped before its end, is resumed.
    pub fn finish(&self, is_whole: bool) {
        self.send(Command::Finish { is_whole });
    }

    /// Waits for the thread to end, which it does after [`Event::Finished`], or once all that was
    /// given is written, or has failed and the caller cannot retry any more.
    ///
    /// # Panics
    ///
    /// When the thread did.
    pub fn join(self) {
        drop(self.commands);
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }

    fn send(&self, command: Command) {
        // It ends only after the finish, when there is nothing left to say, or by a panic, which
        // `join` passes on.
        let _ = self.commands.send(command);
    }
}

/// Error: no sender of commands is left.
struct Abandoned;

struct Loop<O, R> {
    output: O,
    report: R,
    commands: Receiver<Command>,
    /// Commands that came during a failure.
    waiting: VecDeque<Command>,
}

impl<O: Output, R> Loop<O, R> {
    fn run<C, E>(mut self)
    where
        R: FnMut(Event<C, E>),
    {
        // Abandoned or finished: the caller is gone, or knows.
        let _ = self.run_until_abandoned();
    }

    fn run_until_abandoned<C, E>(&mut self) -> Result<(), Abandoned>
    where
        R: FnMut(Event<C, E>),
    {
        loop {
            let Ok(next) = self.next() else {
                // The job is stopped before its end. All is written; should it not survive a crash
                // of the machine, the next start runs it again.
                let _ = self.output.sync();
                return Err(Abandoned);
            };
            let mut next = Some(next);
            let mut group = Group::default();
            let mut finish = None;
            let mut unspool = None;
            while let Some(command) = next.take() {
                match command {
                    Command::Store(batch) => {
                        let written = self.output.write(&batch);
                        group.add(&batch);
                        self.retry_until_ok(written, O::commit)?;
                    }
                    Command::Spool(records) => {
                        (self.report)(match self.output.spool(&records) {
                            Ok(spool_bytes) => Event::Spooled { count: records.len(), spool_bytes },
                            Err(error) => Event::SpoolFailed { records, error },
                        });
                    }
                    Command::Unspool(range) => {
                        unspool = Some(range);
                        break;
                    }
                    Command::Retry => {}
                    Command::Begin => {
                        let begun = self.output.begin();
                        self.retry_until_ok(begun, O::begin)?;
                        (self.report)(Event::Begun);
                    }
                    Command::Finish { is_whole } => {
                        finish = Some(is_whole);
                        break;
                    }
                }
                if group.is_full() {
                    break;
                }
                next = self.waiting.pop_front().or_else(|| self.commands.try_recv().ok());
            }
            if group.count > 0 {
                let committed = self.output.commit();
                self.retry_until_ok(committed, O::commit)?;
                let failed = self.output.take_failed();
                (self.report)(Event::Stored { count: group.count, failed });
            }
            if let Some(range) = unspool {
                self.unspool(range)?;
            }
            if let Some(is_whole) = finish {
                let finished = self.output.finish(is_whole);
                self.retry_until_ok(finished, |output| output.finish(is_whole))?;
                (self.report)(Event::Finished);
            }
        }
    }

    /// Moves some records of a range from the spool to the output.
    fn unspool<C, E>(&mut self, range: SeqRange) -> Result<(), Abandoned>
    where
        R: FnMut(Event<C, E>),
    {
        let records = loop {
            match self.output.unspool(range, GROUP_BYTES_MAX) {
                Ok(records) => break records,
                Err(error) => self.retry_until_ok(Err(error), |_| Ok(()))?,
            }
        };
        let last = records.iter().flat_map(|list| &list.results).next_back();
        let below = last.map_or(range.start, |last| last.seq.next());
        let written = self.output.write(&records);
        self.retry_until_ok(written, O::commit)?;
        let committed = self.output.commit();
        self.retry_until_ok(committed, O::commit)?;
        let spool_bytes = self.output.release(below);
        (self.report)(Event::Unspooled { below, spool_bytes });
        Ok(())
    }

    /// Reports each failure, and tries again at each request.
    fn retry_until_ok<C, E>(
        &mut self,
        mut result: Result<(), OutputError>,
        again: impl Fn(&mut O) -> Result<(), OutputError>,
    ) -> Result<(), Abandoned>
    where
        R: FnMut(Event<C, E>),
    {
        while let Err(error) = result {
            (self.report)(Event::Failed(error));
            loop {
                match self.commands.recv().map_err(|_| Abandoned)? {
                    Command::Retry => break,
                    command => self.waiting.push_back(command),
                }
            }
            result = again(&mut self.output);
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Command, Abandoned> {
        match self.waiting.pop_front() {
            Some(command) => Ok(command),
            None => self.commands.recv().map_err(|_| Abandoned),
        }
    }
}

/// Batches that are committed together.
#[derive(Default)]
struct Group {
    /// Lists of records.
    count: usize,
    records: usize,
    bytes: usize,
}

impl Group {
    fn add(&mut self, batch: &[Records]) {
        self.count += batch.len();
        for Records { results, .. } in batch {
            self.records += results.len();
            let bytes =
                |result: &TaskResult| result.outcome.output.len() + result.outcome.stderr.len();
            self.bytes += results.iter().map(bytes).sum::<usize>();
        }
    }

    fn is_full(&self) -> bool {
        self.records >= GROUP_RECORDS_MAX || self.bytes >= GROUP_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::{Arc, Mutex};

    use super::super::examples::record;
    use super::super::{Destination, Format, Fsync, OpenFile, OutputTarget, Role, Writer};
    use super::*;

    fn destination() -> Destination {
        Destination { role: Role::Output, target: OutputTarget::Stdout }
    }

    /// Starts a thread whose events can be waited for.
    type Event = super::Event<(), &'static str>;

    fn start(output: impl Output + Send + 'static) -> (WriterThread, Receiver<Event>) {
        let (sender, events) = channel();
        let report = move |event| sender.send(event).expect("the test waits for events");
        let thread = WriterThread::spawn(|| Ok((output, ())), report).unwrap();
        assert!(matches!(events.recv(), Ok(Event::Opened(()))));
        (thread, events)
    }

    fn into_pipe() -> (WriterThread, Receiver<Event>, io::PipeReader) {
        let (reader, pipe) = io::pipe().unwrap();
        let output = Writer::new(
            Format::Lines,
            Fsync::None,
            OpenFile::from(pipe).into_place(None),
            None,
            None,
        );
        let (thread, events) = start(output);
        (thread, events, reader)
    }

    /// Output that stores records when the random numbers let it.
    struct Flaky {
        taken: Vec<u64>,
        stored: Arc<Mutex<Vec<u64>>>,
        random: fastrand::Rng,
    }

    impl Flaky {
        fn maybe(&mut self) -> Result<(), OutputError> {
            if self.random.u8(..3) == 0 {
                let reason = io::ErrorKind::StorageFull.into();
                return Err(OutputError::Io { destination: destination(), reason });
            }
            self.stored.lock().unwrap().append(&mut self.taken);
            Ok(())
        }
    }

    impl Output for Flaky {
        fn write(&mut self, records: &[Records]) -> Result<(), OutputError> {
            self.taken.extend(records.iter().map(|record| record.results[0].seq.0));
            if self.random.bool() { self.maybe() } else { Ok(()) }
        }

        fn commit(&mut self) -> Result<(), OutputError> {
            self.maybe()
        }

        fn sync(&mut self) -> Result<(), OutputError> {
            self.maybe()
        }

        fn finish(&mut self, _: bool) -> Result<(), OutputError> {
            self.maybe()
        }
    }

    #[test]
    fn each_record_is_stored_and_reported_once_in_spite_of_failures() {
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..200 {
            let stored = Arc::new(Mutex::new(Vec::new()));
            let (thread, events) = start(Flaky {
                taken: Vec::new(),
                stored: Arc::clone(&stored),
                random: random.fork(),
            });
            let mut given = 0;
            for _ in 0..random.usize(..20) {
                let count = random.u64(..4);
                thread.store((given..given + count).map(|seq| record(seq, "x")).collect());
                given += count;
            }
            thread.finish(true);
            let mut reported = 0;
            for event in &events {
                match event {
                    Event::Stored { count, .. } => {
                        assert!(count > 0);
                        reported += count;
                        assert!(stored.lock().unwrap().len() >= reported);
                    }
                    Event::Failed(_) => thread.retry(),
                    Event::Finished => break,
                    other => panic!("{other:?}"),
                }
            }
            thread.join();
            assert!(events.recv().is_err(), "there is nothing after the finish");
            assert_eq!(reported as u64, given);
            assert_eq!(*stored.lock().unwrap(), (0..given).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_blocked_pipe_stops_only_the_writer() {
        let (thread, events, mut reader) = into_pipe();
        // A pipe holds 64 KiB.
        let output = "x".repeat(100_000);
        for seq in 0..50 {
            thread.store(vec![record(seq, &output)]);
        }
        thread.finish(true);
        // Once there is a byte, the first record is being written. It does not fit into the pipe.
        let mut first = [0];
        reader.read_exact(&mut first).unwrap();
        events.try_recv().expect_err("nothing can be stored yet");

        let joined = std::thread::spawn(move || thread.join());
        let mut text = String::from_utf8(first.into()).unwrap();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.lines().all(|line| line == output));
        assert_eq!(text.lines().count(), 50);
        joined.join().unwrap();
        let mut events: Vec<_> = events.iter().collect();
        assert!(matches!(events.pop(), Some(Event::Finished)));
        let counts = events.iter().map(|event| match event {
            Event::Stored { count, .. } => *count,
            other => panic!("{other:?}"),
        });
        assert_eq!(counts.sum::<usize>(), 50);
    }

    #[test]
    fn stored_records_are_reported_without_a_finish() {
        let (thread, events, mut reader) = into_pipe();
        for seq in 0..3 {
            thread.store(vec![record(seq, "ab")]);
            assert!(matches!(events.recv(), Ok(Event::Stored { count: 1, .. })));
            let mut bytes = [0; 3];
            reader.read_exact(&mut bytes).unwrap();
            assert_eq!(bytes, *b"ab\n");
        }
    }

    #[test]
    fn a_reader_that_goes_away_is_reported_as_such() {
        let (thread, events, reader) = into_pipe();
        drop(reader);
        thread.store(vec![record(0, "x")]);
        assert!(matches!(events.recv(), Ok(Event::Failed(OutputError::Closed { .. }))));
        thread.store(vec![record(1, "x")]);
        thread.finish(true);
        thread.join();
        assert!(events.recv().is_err(), "it is reported once, and no caller is left to retry");
    }

    #[test]
    fn given_records_are_written_without_a_finish() {
        let (thread, events, mut reader) = into_pipe();
        (0..5).for_each(|seq| thread.store(vec![record(seq, "x")]));
        thread.join();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x\n".repeat(5));
        assert!(events.iter().all(|event| matches!(event, Event::Stored { .. })));
    }

    #[test]
    fn without_a_finish_the_rest_is_synced() {
        struct Noted(Arc<Mutex<Vec<&'static str>>>);

        impl Noted {
            fn note(&self, what: &'static str) -> Result<(), OutputError> {
                self.0.lock().unwrap().push(what);
                Ok(())
            }
        }

        impl Output for Noted {
            fn write(&mut self, _: &[Records]) -> Result<(), OutputError> {
                self.note("write")
            }

            fn commit(&mut self) -> Result<(), OutputError> {
                self.note("commit")
            }

            fn sync(&mut self) -> Result<(), OutputError> {
                self.note("sync")
            }

            fn finish(&mut self, _: bool) -> Result<(), OutputError> {
                self.note("finish")
            }
        }

        let noted = Arc::default();
        let (thread, events) = start(Noted(Arc::clone(&noted)));
        thread.store(vec![record(0, "x")]);
        thread.join();
        assert!(matches!(events.recv(), Ok(Event::Stored { count: 1, .. })));
        assert_eq!(*noted.lock().unwrap(), ["write", "commit", "sync"]);
    }

    #[test]
    fn an_output_that_cannot_be_opened_is_reported_and_nothing_more() {
        let (sender, events) = channel();
        let open = || Err::<(Writer<OpenFile>, ()), _>("no");
        let report = move |event| sender.send(event).expect("the test waits for events");
        let thread = WriterThread::spawn(open, report).unwrap();
        thread.store(vec![record(0, "x")]);
        thread.finish(true);
        thread.join();
        let events: Vec<Event> = events.iter().collect();
        assert!(matches!(events[..], [Event::Refused("no")]), "{events:?}");
    }
}

//! The task logs of the partitions that this process has, as the ventilator's input.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tradewind_engine::{Epoch, TaskLog};
use tradewind_input::{Chunk, InputError, Source};
use tradewind_partitions::Place;
use tradewind_proto::limits::READ_TASKS_MAX;
use tradewind_store::StoredTask;

use super::held::{Held, Reading};
use crate::source::push;

/// Bytes of tasks that are read together.
const READ_BYTES_MAX: usize = 256 << 10;

/// Longest wait without a look at whether anybody wants the tasks.
const WAIT: Duration = Duration::from_millis(500);

/// Time after which a log that cannot be read is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Tasks of a partition that were read together.
pub(crate) struct Read {
    partition: u32,
    epoch: Epoch,
    tasks: VecDeque<(u64, StoredTask)>,
}

/// Takes what is read of partitions. It waits for room.
pub(crate) type Reads = SyncSender<Read>;

/// The tasks of the partitions that this process has, in the order in which they are read. They have no end before
/// the queue has.
pub(crate) struct EngineSource {
    held: Arc<Held>,
    reads: Receiver<Read>,
    /// What does not fit into a chunk.
    left: Option<Read>,
    has_begun: bool,
}

impl EngineSource {
    /// Returns it, and what the readers of partitions send to.
    pub(crate) fn new(held: Arc<Held>) -> (Self, Reads) {
        // What waits here is memory beside the ring's.
        let (sender, reads) = sync_channel(1);
        (Self { held, reads, left: None, has_begun: false }, sender)
    }

    fn fill(&mut self, chunk: &mut Chunk) {
        let Some(Read { partition, epoch, tasks }) = &mut self.left else { return };
        let part = self.held.part(*partition);
        let is_held = part.is_some_and(|it| it.epoch == *epoch && !it.reading.has_ended());
        if is_held {
            let mut placed = self.held.placed();
            while (chunk.len() as u64) < READ_TASKS_MAX
                && let Some((position, task)) = tasks.pop_front()
            {
                if placed.push(Place { partition: *partition, position }) {
                    push(chunk, task);
                }
            }
        }
        if !is_held || tasks.is_empty() {
            self.left = None;
        }
    }
}

impl Source for EngineSource {
    /// Returns an empty chunk now and then, so that the thread that reads can see that nobody wants more.
    fn read(&mut self) -> Result<Option<Chunk>, InputError> {
        let mut chunk = Chunk::default();
        if !std::mem::replace(&mut self.has_begun, true) {
            // Each process begins a job of its own: nobody has tasks of it.
            chunk.set_caught_up();
            return Ok(Some(chunk));
        }
        if self.left.is_none() {
            match self.reads.recv_timeout(WAIT) {
                Ok(read) => self.left = Some(read),
                Err(RecvTimeoutError::Timeout) => {}
                // The queue has ended, and with it the ventilator that would take this for the end of the input.
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            }
        }
        self.fill(&mut chunk);
        Ok(Some(chunk))
    }
}

/// Reads a partition on a thread of its own, until it is told to end or the source is gone.
pub(crate) fn spawn_reader(
    name: &str,
    (partition, epoch): (u32, Epoch),
    from: u64,
    log: Box<dyn TaskLog>,
    reading: Reading,
    reads: Reads,
) -> std::io::Result<()> {
    let thread = thread::Builder::new().name(format!("{name}:{partition}"));
    let queue = name.to_owned();
    let run = move || read_on(&queue, (partition, epoch), from, log, &reading, &reads);
    thread.spawn(run).map(drop)
}

fn read_on(
    queue: &str,
    (partition, epoch): (u32, Epoch),
    mut from: u64,
    mut log: Box<dyn TaskLog>,
    reading: &Reading,
    reads: &Reads,
) {
    let mut is_failing = false;
    while !reading.has_ended() {
        match log.read(from, READ_BYTES_MAX, WAIT) {
            Ok(tasks) => {
                if std::mem::take(&mut is_failing) {
                    tracing::info!("queue {queue}: partition {partition} can be read again");
                }
                let Some((last, _)) = tasks.last() else { continue };
                from = last + 1;
                if reads.send(Read { partition, epoch, tasks: tasks.into() }).is_err() {
                    return;
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::error!(
                        "queue {queue}: partition {partition} cannot be read, none of its tasks goes out until it can: \
                         {error}"
                    );
                }
                reading.wait_ended(RETRY_INTERVAL);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use tradewind_engine::{EngineError, SubmitId};
    use tradewind_store::Submitted;

    use super::*;

    /// Log that cannot be read, and tells who asks.
    struct Away(Sender<()>);

    impl TaskLog for Away {
        fn submit(&mut self, _: SubmitId, _: &[StoredTask]) -> Result<Vec<Submitted>, EngineError> {
            unreachable!("a reader submits nothing")
        }

        fn read(
            &mut self,
            _: u64,
            _: usize,
            _: Duration,
        ) -> Result<Vec<(u64, StoredTask)>, EngineError> {
            self.0.send(()).expect("the test waits for it");
            Err(EngineError::Away("x".into()))
        }

        fn first(&mut self) -> Result<u64, EngineError> {
            unreachable!("a reader is told where to begin")
        }

        fn end(&mut self) -> Result<u64, EngineError> {
            unreachable!("a reader reads on")
        }

        fn trim(&mut self, _: Epoch, _: u64, _: u64) -> Result<(), EngineError> {
            unreachable!("a reader removes nothing")
        }
    }

    #[test]
    fn the_input_ends_when_its_last_reader_has() {
        let (mut source, reads) = EngineSource::new(Arc::default());
        assert!(source.read().expect("it can").is_some(), "it begins");
        let (asked_in, asked) = channel();
        let reading = Reading::default();
        let log = Box::new(Away(asked_in));
        spawn_reader("q", (0, Epoch(1)), 0, log, reading.clone(), reads).expect("there is room");
        asked.recv().expect("it is read");
        reading.end();
        while source.read().expect("it can").is_some() {}
    }

    #[test]
    fn a_reader_that_waits_hears_the_end() {
        let reading = Reading::default();
        let (told_in, told) = channel();
        let waiting = reading.clone();
        thread::spawn(move || {
            // Longer than any test takes.
            waiting.wait_ended(Duration::from_secs(3600));
            told_in.send(waiting.has_ended()).expect("it is waited for");
        });
        reading.end();
        assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(true));
    }
}

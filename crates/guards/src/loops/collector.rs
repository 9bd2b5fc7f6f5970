//! Loop of the sink: results in, records out, stored in, receipts out.

use tradewind_proto::collector::{Collector, CollectorConfig, Opened, Opening, Order};
use tradewind_proto::message::{Report, Start, ToSink, ToVentilator};
use tradewind_proto::{SeqRange, SessionId};
use tradewind_testkit::{Accepts, CollectorAction, Machine};

use super::made::{BATCH, JOB, KEY, SHARE, range, results, session, time};

/// Runs it with one worker, whose results come in order.
pub(crate) fn collector(tasks: u64) {
    let starts = (0..tasks).step_by(BATCH as usize);
    run(1, starts.map(|start| (0, range(start, BATCH.min(tasks - start)))));
}

/// Runs it with a hundred workers, whose batches are smaller and come in any order.
pub(crate) fn collector_of_100(tasks: u64) {
    /// Number of batches that overtake one another.
    const SHUFFLED: u64 = 64;
    /// Step between them, which has no divisor in common with their number.
    const STEP: u64 = 37;
    let rounds = tasks.div_ceil(SHARE * SHUFFLED);
    let batches = (0..rounds * SHUFFLED).map(|place| {
        let (round, place) = (place / SHUFFLED, place % SHUFFLED);
        let start = (round * SHUFFLED + place * STEP % SHUFFLED) * SHARE;
        (place % 100, range(start, SHARE.min(tasks.saturating_sub(start))))
    });
    run(100, batches.filter(|(_, batch)| batch.count() > 0));
}

fn run(workers: u64, batches: impl Iterator<Item = (u64, SeqRange)>) {
    let mut sink = Sink::new(workers);
    let mut waiting = 0;
    for (worker, batch) in batches {
        let session = session(worker);
        let results = results(session, batch).into();
        sink.collector.handle_message(ToSink::Results { job: JOB, session, results });
        sink.given += batch.count();
        waiting += batch.count();
        // The sink's loop takes all events that wait before it drives the collector.
        if waiting >= BATCH {
            waiting = 0;
            sink.drive();
        }
    }
    // The next receipt is about the records that are written now.
    sink.drive();
    sink.drive();
    assert_eq!(sink.collector.snapshot().stored.total(), sink.given, "every task has its record");
    assert_eq!(sink.told, sink.given, "the ventilator knows");
}

/// Collector, its writer, and a ventilator that takes receipts.
struct Sink {
    collector: Collector,
    given: u64,
    /// Lists of records that are being written.
    writing: usize,
    told: u64,
}

impl Sink {
    fn new(workers: u64) -> Self {
        let config = CollectorConfig {
            session: SessionId(1),
            order: Order::Seq,
            report: Report::default(),
            key: KEY,
        };
        let mut collector = Collector::new(config);
        collector.handle_ventilator_connected();
        let open = ToSink::JobOpen {
            job: JOB,
            name: String::new(),
            start: Start::New,
            stage: String::new(),
            is_untouched: true,
        };
        collector.handle_message(open);
        for worker in 0..workers {
            collector.handle_worker_connected(session(worker), "worker");
        }
        let mut sink = Self { collector, given: 0, writing: 0, told: 0 };
        sink.drive();
        sink
    }

    /// Drives the collector, as the sink's loop does. The records of the last round are written
    /// meanwhile.
    fn drive(&mut self) {
        let now = time(self.given);
        self.collector.handle_due(now);
        self.collector.handle_written(std::mem::take(&mut self.writing));
        while let Some(action) = self.collector.poll(now, Accepts::ALL) {
            match action {
                CollectorAction::Write(records) => self.writing += records.len(),
                CollectorAction::Transmit(ToVentilator::Receipt { stored, .. }) => {
                    self.told += stored.count();
                }
                CollectorAction::Transmit(_) => {}
                CollectorAction::Open(Opening { job, .. }) => {
                    self.collector.handle_opened(Opened { job, ..Opened::default() });
                }
                CollectorAction::Compare(_)
                | CollectorAction::Begin
                | CollectorAction::Spool(_)
                | CollectorAction::Unspool(_) => panic!("a new job in order has no {action:?}"),
            }
        }
    }
}

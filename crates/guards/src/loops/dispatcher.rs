//! Loop of the ventilator: tasks in, batches out, receipts in, settled out.

use std::collections::VecDeque;

use tradewind_proto::batch::Bounded;
use tradewind_proto::dispatcher::{Dispatcher, Transmit};
use tradewind_proto::limits::MESSAGE_BYTES_MAX;
use tradewind_proto::message::{Card, News, Received, Report, Role, ToVentilator, ToWorker};
use tradewind_proto::{LaneId, SeqList, SeqRanges, SessionId};
use tradewind_testkit::{Accepts, DispatcherAction, Machine, config};

use super::made::{BATCH, JOB, KEY, PAYLOAD_BYTES, payload, session, time};

/// Runs it with one worker.
pub(crate) fn dispatcher(tasks: u64) {
    run(tasks, 1);
}

/// Runs it with a hundred workers.
pub(crate) fn dispatcher_of_100(tasks: u64) {
    run(tasks, 100);
}

fn run(tasks: u64, workers: u64) {
    let mut ventilator = Ventilator::new(workers);
    let mut read = 0;
    while ventilator.stored < tasks {
        while read < tasks && ventilator.dispatcher.input_room() > 0 {
            let count = BATCH.min(tasks - read);
            (0..count).for_each(|_| ventilator.dispatcher.handle_task(payload()));
            read += count;
        }
        ventilator.drive();
        ventilator.answer();
    }
    ventilator.drive();
    assert_eq!(ventilator.dispatcher.snapshot().settled, tasks, "every task was dispatched");
}

/// Dispatcher, and the peers that answer it.
struct Ventilator {
    dispatcher: Dispatcher,
    /// Number of workers, and run time of a task: together they run one a microsecond.
    workers: u64,
    /// Batches that were sent, with their workers.
    out: VecDeque<(SessionId, SeqRanges)>,
    /// Tasks that the sink has received and not yet written.
    received: SeqList,
    done: u64,
    stored: u64,
}

impl Ventilator {
    fn new(workers: u64) -> Self {
        let mut dispatcher = Dispatcher::new(config(JOB));
        dispatcher.handle_sink_connected();
        dispatcher.handle_receipts_connected(time(0));
        let hello = ToVentilator::SinkHello {
            asked: JOB,
            job: JOB,
            sink: SessionId(1),
            stored: SeqRanges::new(),
            again: SeqRanges::new(),
            workers: None,
            report: Report::default(),
            key: KEY,
        };
        dispatcher.handle_message(time(0), hello);
        for worker in 0..workers {
            let card = Card {
                role: Role::Worker,
                session: session(worker),
                slots: 1,
                message_bytes_max: MESSAGE_BYTES_MAX,
                name: String::new(),
                queue: String::new(),
            };
            dispatcher.handle_lane_opened(time(0), LaneId(worker), &card);
        }
        let (out, received) = (VecDeque::new(), SeqList::new());
        Self { dispatcher, workers, out, received, done: 0, stored: 0 }
    }

    /// Drives the dispatcher, as the ventilator's loop does.
    fn drive(&mut self) {
        let now = time(self.done);
        self.dispatcher.handle_due(now);
        while let Some(action) = self.dispatcher.poll(now, Accepts::ALL) {
            match action {
                DispatcherAction::Transmit(Transmit::Worker(LaneId(worker), message)) => {
                    self.take(session(worker), message);
                }
                DispatcherAction::Transmit(Transmit::Sink(_)) => {}
                DispatcherAction::Notice(_) | DispatcherAction::Close(_) => {
                    panic!("a job that runs well has no {action:?}");
                }
            }
        }
    }

    /// Takes a message to a worker, and answers it where that is all there is to do.
    fn take(&mut self, session: SessionId, message: ToWorker) {
        match message {
            ToWorker::Tasks { tasks, .. } => {
                self.out.push_back((session, tasks.0.iter().map(|task| task.seq).collect()));
            }
            ToWorker::RollCall { job, call, .. } => {
                let (unfinished, finished) = (SeqRanges::new(), SeqRanges::new());
                let (hashes, tags) = (Bounded::default(), Bounded::default());
                let news = News::Holding { job, call, unfinished, finished, hashes, tags };
                let relay = ToVentilator::Relay { session, news };
                self.dispatcher.handle_message(time(self.done), relay);
            }
            _ => {}
        }
    }

    /// Ends the oldest batches, about a full one together, and stores those that ended before.
    fn answer(&mut self) {
        let ran_us = self.workers;
        let stored = self.received.take();
        let mut received = Vec::new();
        let mut count = 0;
        while count < BATCH
            && let Some((session, ranges)) = self.out.pop_front()
        {
            count += ranges.count();
            ranges.as_slice().iter().for_each(|range| self.received.push_range(*range));
            let bytes = ranges.count() * PAYLOAD_BYTES as u64;
            received.push(Received {
                session,
                ranges,
                ran_us_max: ran_us,
                ran_us_median: ran_us,
                ran_us_mean: ran_us,
                bytes,
                failed: 0,
            });
        }
        self.done += count;
        self.stored += stored.count();
        let receipt = ToVentilator::Receipt {
            job: JOB,
            received: Bounded(received),
            stored,
            retry: Bounded::default(),
            held_bytes: 0,
            failed: 0,
        };
        self.dispatcher.handle_message(time(self.done), receipt);
    }
}

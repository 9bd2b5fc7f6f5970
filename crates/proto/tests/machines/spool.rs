//! The sink's spool: what waits for an earlier record, and is not held in memory.

use std::collections::VecDeque;

use tradewind_proto::collector::{Collector, CollectorConfig, Opened, Order, Records, SpoolLimits};
use tradewind_proto::message::{
    InputEnd, Outcome, Report, Start, Status, TaskResult, ToSink, ToVentilator,
};
use tradewind_proto::{Attempt, JobId, Payload, Seq, SeqRange, SeqSet, SessionId, TaskHash, Time};

const JOB: JobId = JobId(7);
const OUTPUT_BYTES: usize = 1000;

/// A collector, and what does as it says.
struct Sink {
    collector: Collector,
    /// In the order in which they were written.
    output: Vec<u64>,
    spool: SeqSet,
    /// What the writer was told, and has not done.
    commands: VecDeque<Command>,
    told: SeqSet,
    held_bytes: u64,
    is_complete: bool,
    /// Records for which the spool has room.
    room: u64,
}

enum Command {
    Store(Vec<Records>),
    Spool(Vec<Records>),
    Unspool(SeqRange),
}

fn result(seq: u64) -> TaskResult {
    TaskResult {
        seq: Seq(seq),
        attempt: Attempt(1),
        last: true,
        started_us: 1,
        ran_us: 1,
        task_bytes: 1,
        task_hash: TaskHash(seq as u32),
        outcome: Outcome::ok(Payload::from(vec![seq as u8; OUTPUT_BYTES])),
        reported: None,
    }
}

impl Sink {
    fn new(limits: SpoolLimits, opened: Opened) -> Self {
        let config =
            CollectorConfig { session: SessionId(1), order: Order::Seq, report: Report::default() };
        let mut collector = Collector::new(config).with_spool(limits);
        collector.handle_ventilator_connected();
        collector.handle_worker_connected(SessionId(2), "w");
        let is_resumed = opened.pending.is_some();
        collector.handle_message(ToSink::JobOpen {
            job: JOB,
            name: String::new(),
            start: if is_resumed { Start::Resume } else { Start::New },
            stage: String::new(),
            is_untouched: true,
        });
        collector.poll_open().expect("there is a job to be opened");
        let spool = opened.spooled.clone();
        let output = opened.stored.iter().filter(|seq| !spool.contains(*seq));
        let output = output.map(|seq| seq.0).collect();
        collector.handle_opened(Opened { job: JOB, ..opened });
        Self {
            collector,
            output,
            spool,
            commands: VecDeque::new(),
            told: SeqSet::new(),
            held_bytes: 0,
            is_complete: false,
            room: u64::MAX,
        }
    }

    fn take(&mut self, seqs: impl IntoIterator<Item = u64>) {
        let results: Vec<_> = seqs.into_iter().map(result).collect();
        let results = results.into();
        self.collector.handle_message(ToSink::Results { job: JOB, session: SessionId(2), results });
        self.poll();
    }

    fn close(&mut self, total: u64) {
        self.collector.handle_message(ToSink::JobClose { job: JOB, total, end: InputEnd::Whole });
        self.poll();
    }

    fn poll(&mut self) {
        self.collector.poll_begin();
        if let Some(records) = self.collector.poll_spool() {
            let seqs = records.iter().flat_map(|list| &list.results).map(|result| result.seq);
            assert!(seqs.is_sorted(), "ascending");
            self.commands.push_back(Command::Spool(records));
        }
        loop {
            if let Some(records) = self.collector.poll_write() {
                self.commands.push_back(Command::Store(records));
            } else if let Some(range) = self.collector.poll_unspool() {
                self.commands.push_back(Command::Unspool(range));
            } else {
                break;
            }
        }
        while let Some(message) = self.collector.poll_transmit() {
            match message {
                ToVentilator::Receipt { stored, held_bytes, .. } => {
                    stored.as_slice().iter().for_each(|range| self.told.insert_range(*range));
                    self.held_bytes = held_bytes;
                }
                ToVentilator::Complete { .. } => self.is_complete = true,
                _ => {}
            }
        }
    }

    /// Does one thing that the writer was told; false if there is none.
    fn write(&mut self, at_a_time: u64) -> bool {
        let Some(command) = self.commands.pop_front() else { return false };
        match command {
            Command::Store(lists) => {
                let seqs = lists.iter().flat_map(|list| &list.results).map(|result| result.seq.0);
                self.output.extend(seqs);
                self.collector.handle_written(lists.len());
            }
            Command::Spool(lists) => {
                let seqs: Vec<Seq> =
                    lists.iter().flat_map(|list| &list.results).map(|result| result.seq).collect();
                if self.spool.count() + seqs.len() as u64 > self.room {
                    self.collector.handle_spool_failed(lists);
                } else {
                    for seq in seqs {
                        assert!(self.spool.insert(seq), "{seq:?} is spooled once");
                    }
                    self.collector.handle_spooled(lists.len(), self.bytes());
                }
            }
            Command::Unspool(range) => {
                let end = Seq(range.end.0.min(range.start.0 + at_a_time));
                for seq in range.start.0..end.0 {
                    assert!(self.spool.remove(Seq(seq)), "{seq} is in the spool");
                    self.output.push(seq);
                }
                self.collector.handle_unspooled(end, self.bytes());
            }
        }
        self.poll();
        true
    }

    fn bytes(&self) -> u64 {
        self.spool.count() * OUTPUT_BYTES as u64
    }

    fn write_all(&mut self) {
        while self.write(10) {}
    }

    fn assert_whole(&mut self, total: u64) {
        self.write_all();
        assert!(self.output.iter().copied().eq(0..total), "{:?}", self.output);
        assert!(self.collector.is_all_stored());
        assert_eq!(self.told.first_missing(), Seq(total));
        assert_eq!(self.collector.snapshot().stored.total(), total);
        assert_eq!(self.collector.snapshot().held_bytes, 0);
        assert_eq!(self.collector.snapshot().spooled, 0);
        self.collector.handle_flushed();
        self.poll();
        assert!(self.is_complete);
    }
}

fn limits(records: u64, spool: u64) -> SpoolLimits {
    let bytes = result(0).held_bytes();
    SpoolLimits { waiting_bytes_max: records * bytes, spool_bytes_max: spool * OUTPUT_BYTES as u64 }
}

#[test]
fn what_waits_for_a_straggler_is_stored_in_the_spool() {
    let mut sink = Sink::new(limits(10, 10_000), Opened::default());
    for start in (1..1000).step_by(3) {
        sink.take(start..start + 3);
        sink.write_all();
        assert!(sink.collector.snapshot().held_bytes <= 13 * result(0).held_bytes());
    }
    assert_eq!(sink.output, []);
    assert!(sink.told.count() > 980, "{} are told to be stored", sink.told.count());
    sink.close(1000);
    assert!(!sink.collector.is_all_stored(), "some of it is only in the spool");
    sink.take([0]);
    assert!(!sink.collector.is_all_stored());
    sink.assert_whole(1000);
}

#[test]
fn what_is_done_while_the_spool_is_read_back_waits_in_its_turn() {
    let mut sink = Sink::new(limits(10, 10_000), Opened::default());
    sink.take(1..100);
    sink.write_all();
    sink.take([0]);
    for start in (100..1000).step_by(10) {
        // The spool is read more slowly than records come.
        sink.write(5);
        sink.take(start..start + 10);
    }
    assert!(sink.output.len() < 900);
    sink.close(1000);
    sink.assert_whole(1000);
}

#[test]
fn a_spool_that_is_full_leaves_the_rest_in_memory() {
    let mut sink = Sink::new(limits(10, 100), Opened::default());
    for start in (1..300).step_by(5) {
        sink.take(start..start + 5);
        sink.write_all();
    }
    assert!((95..115).contains(&sink.spool.count()), "{} are spooled", sink.spool.count());
    assert!(sink.held_bytes > 150 * result(0).held_bytes(), "the ventilator hears of it");
    sink.close(301);
    sink.take([0]);
    sink.assert_whole(301);
}

#[test]
fn what_could_not_be_spooled_waits_in_memory_and_is_tried_again() {
    let mut sink = Sink::new(limits(10, 10_000), Opened::default());
    sink.room = 0;
    sink.collector.handle_timeout(Time(0));
    sink.take(1..50);
    sink.take(50..100);
    sink.write_all();
    assert_eq!(sink.spool.count(), 0);
    assert_eq!(sink.collector.snapshot().held_bytes, 99 * result(0).held_bytes());
    sink.take(100..101);
    assert!(sink.commands.is_empty(), "not before a while has passed");
    sink.room = u64::MAX;
    sink.collector.handle_timeout(sink.collector.poll_timeout());
    sink.poll();
    sink.write_all();
    assert!(sink.spool.count() > 0);
    sink.take([0]);
    sink.close(101);
    sink.assert_whole(101);
}

#[test]
fn a_duplicate_of_what_is_spooled_is_said_to_be_stored() {
    let mut sink = Sink::new(limits(1, 10_000), Opened::default());
    sink.take(1..20);
    sink.write_all();
    let spooled = sink.spool.iter().next().expect("something is spooled");
    let told = std::mem::take(&mut sink.told);
    sink.take([spooled.0]);
    assert!(sink.told.contains(spooled));
    told.to_ranges().as_slice().iter().for_each(|range| sink.told.insert_range(*range));
    assert_eq!(sink.collector.snapshot().duplicates, 1);
    sink.close(20);
    sink.take([0]);
    sink.assert_whole(20);
}

#[test]
fn a_sink_that_starts_again_goes_on_with_its_spool() {
    let stored: SeqSet = (0..3).chain(5..20).chain(30..40).map(Seq).collect();
    let spooled: SeqSet = (7..20).chain(30..40).map(Seq).collect();
    let counts = tradewind_proto::collector::Counts { ok: stored.count(), ..Default::default() };
    let opened = Opened { job: JOB, stored, spooled, counts, ..Opened::default() };
    let mut sink = Sink::new(limits(1, 10_000), opened.clone());
    sink.told = opened.stored;
    sink.poll();
    sink.write_all();
    // 5 and 6 stand there from before: they were run again then.
    assert_eq!(sink.output, [0, 1, 2, 5, 6]);
    sink.take(3..5);
    sink.write_all();
    assert_eq!(sink.output[5..], [vec![3, 4], (7..20).collect()].concat());
    sink.take(20..30);
    sink.close(40);
    sink.write_all();
    assert_eq!(sink.output[20..], (20..40).collect::<Vec<_>>());
    assert!(sink.collector.is_all_stored());
}

#[test]
fn nothing_is_moved_before_the_input_of_a_resumed_job_is_compared() {
    let stored: SeqSet = (0..10).map(Seq).collect();
    let spooled: SeqSet = (4..10).map(Seq).collect();
    let pending = Some(Start::Resume);
    let opened = Opened { job: JOB, stored, spooled, pending, ..Opened::default() };
    let mut sink = Sink::new(limits(1, 10_000), opened);
    sink.take(11..20);
    assert!(sink.commands.is_empty());
    let hashes = (0..10).map(TaskHash).collect();
    sink.collector.handle_message(ToSink::Inputs {
        job: JOB,
        from: Seq(0),
        hashes: tradewind_proto::batch::Bounded(hashes),
    });
    let inputs = sink.collector.poll_inputs().expect("they are to be compared");
    assert_eq!(inputs.stored.len(), 10);
    sink.collector.handle_verified(inputs.below);
    sink.poll();
    sink.write_all();
    assert_eq!(sink.output, (0..10).collect::<Vec<_>>());
}

#[test]
fn tasks_that_are_given_up_let_what_is_spooled_out() {
    let mut sink = Sink::new(limits(1, 10_000), Opened::default());
    sink.take((1..50).filter(|seq| seq % 10 != 0));
    sink.write_all();
    for seq in [40, 30, 0, 10, 20] {
        sink.collector.handle_message(ToSink::GiveUp {
            job: JOB,
            seq: Seq(seq),
            attempt: Attempt(1),
            task_hash: TaskHash(0),
            status: Status::Cancelled,
            error: "cancelled".into(),
        });
        sink.poll();
        sink.write(3);
    }
    sink.close(50);
    sink.assert_whole(50);
}

#[test]
fn whatever_comes_in_whatever_order_is_written_in_order() {
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut sink = Sink::new(limits(rng.u64(0..20), rng.u64(0..200)), Opened::default());
        let total = 400;
        let mut seqs: Vec<u64> = (0..total).collect();
        // Each may be late by some.
        let late = rng.u64(1..400);
        seqs.sort_by_cached_key(|seq| seq + rng.u64(0..late));
        let mut time = 0;
        while !seqs.is_empty() {
            let count = rng.usize(1..=seqs.len().min(5));
            sink.take(seqs.drain(..count));
            sink.room = if rng.u8(0..10) == 0 { 0 } else { u64::MAX };
            for _ in 0..rng.u8(0..3) {
                sink.write(rng.u64(1..20));
            }
            time += 300_000;
            sink.collector.handle_timeout(Time(time));
            sink.poll();
        }
        sink.close(total);
        sink.assert_whole(total);
    }
}

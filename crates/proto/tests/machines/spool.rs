//! The sink's spool: what waits for an earlier record, and is not held in memory.

use tradewind_proto::collector::{Order, SpoolLimits};
use tradewind_proto::message::{
    InputEnd, Outcome, Start, Status, TaskResult, ToSink, ToVentilator,
};
use tradewind_proto::{Attempt, JobId, Payload, Seq, SeqSet, SessionId, TaskHash, Time};

use tradewind_testkit::{Accepts, Sink, tag};

const JOB: JobId = JobId(7);
const OUTPUT_BYTES: usize = 1000;

/// A sink with a disk that works when a test says so, and what it has told its ventilator.
struct Scene {
    sink: Sink,
    told: SeqSet,
    held_bytes: u64,
    is_complete: bool,
}

fn result(seq: u64) -> TaskResult {
    TaskResult {
        seq: Seq(seq),
        attempt: Attempt(1),
        last: true,
        tag: tag(2, seq, TaskHash(seq as u32)),
        started_us: 1,
        ran_us: 1,
        task_bytes: 1,
        task_hash: TaskHash(seq as u32),
        outcome: Outcome::ok(Payload::from(vec![seq as u8; OUTPUT_BYTES])),
        reported: None,
    }
}

impl Scene {
    fn new(limits: SpoolLimits) -> Self {
        Self::begin(Sink::new(Order::Seq, Some(limits)), JOB, Start::New)
    }

    /// A sink that finds these records in its output and in its spool.
    fn restarted(
        limits: SpoolLimits,
        written: impl IntoIterator<Item = u64>,
        spooled: impl IntoIterator<Item = u64>,
    ) -> Sink {
        let (written, spooled) = (written.into_iter(), spooled.into_iter());
        let sink = Sink::new(Order::Seq, Some(limits));
        sink.with_records(JOB, written.map(result), spooled.map(result))
    }

    fn begin(mut sink: Sink, job: JobId, start: Start) -> Self {
        sink.is_slow = true;
        sink.collector.handle_ventilator_connected();
        sink.collector.handle_worker_connected(SessionId(2), "w");
        sink.collector.handle_message(ToSink::JobOpen {
            job,
            name: String::new(),
            start,
            stage: String::new(),
            is_untouched: true,
        });
        let mut scene = Self { sink, told: SeqSet::new(), held_bytes: 0, is_complete: false };
        scene.drive();
        scene
    }

    fn take(&mut self, seqs: impl IntoIterator<Item = u64>) {
        let results: Vec<_> = seqs.into_iter().map(result).collect();
        let results = results.into();
        self.hear(ToSink::Results { job: JOB, session: SessionId(2), results });
    }

    fn close(&mut self, total: u64) {
        self.hear(ToSink::JobClose { job: JOB, total, end: InputEnd::Whole });
    }

    fn hear(&mut self, message: ToSink) {
        self.sink.collector.handle_message(message);
        self.drive();
    }

    fn pass(&mut self, now: Time) {
        self.sink.collector.handle_timeout(now);
        self.drive();
    }

    fn drive(&mut self) {
        let Self { sink, told, held_bytes, is_complete } = self;
        sink.drive(Time(0), Accepts::ALL, |message| match message {
            ToVentilator::Receipt { stored, held_bytes: held, .. } => {
                stored.as_slice().iter().for_each(|range| told.insert_range(*range));
                *held_bytes = held;
            }
            ToVentilator::Complete { .. } => *is_complete = true,
            _ => {}
        });
    }

    /// Lets the disk do one thing; false if there is none.
    fn write(&mut self, unspooled_max: u64) -> bool {
        let has_written = self.sink.write(unspooled_max);
        self.drive();
        has_written
    }

    fn write_all(&mut self) {
        while self.write(10) {}
    }

    fn output(&self) -> Vec<u64> {
        self.sink.written.iter().map(|record| record.seq.0).collect()
    }

    fn spooled(&self) -> usize {
        self.sink.spooled.len()
    }

    fn assert_whole(&mut self, total: u64) {
        self.write_all();
        let output = self.output();
        assert!(output.iter().copied().eq(0..total), "{output:?}");
        let collector = &mut self.sink.collector;
        assert!(collector.is_all_stored());
        assert_eq!(self.told.first_missing(), Seq(total));
        assert_eq!(collector.snapshot().stored.total(), total);
        assert_eq!(collector.snapshot().held_bytes, 0);
        assert_eq!(collector.snapshot().spooled, 0);
        collector.handle_flushed();
        self.drive();
        assert!(self.is_complete);
    }
}

fn limits(records: u64, spool: u64) -> SpoolLimits {
    let bytes = result(0).held_bytes();
    SpoolLimits { waiting_bytes_max: records * bytes, spool_bytes_max: spool * OUTPUT_BYTES as u64 }
}

#[test]
fn what_waits_for_a_straggler_is_stored_in_the_spool() {
    let mut sink = Scene::new(limits(10, 10_000));
    for start in (1..1000).step_by(3) {
        sink.take(start..start + 3);
        sink.write_all();
        assert!(sink.sink.collector.snapshot().held_bytes <= 13 * result(0).held_bytes());
    }
    assert_eq!(sink.output(), []);
    assert!(sink.told.count() > 980, "{} are told to be stored", sink.told.count());
    sink.close(1000);
    assert!(!sink.sink.collector.is_all_stored(), "some of it is only in the spool");
    sink.take([0]);
    assert!(!sink.sink.collector.is_all_stored());
    sink.assert_whole(1000);
}

// Fails if a job counts as stored with records that are only in the spool: the sink would leave.
#[test]
fn records_that_are_only_in_the_spool_keep_a_job_open() {
    let mut sink = Scene::new(limits(0, 10_000));
    sink.take(1..20);
    sink.write_all();
    sink.close(20);
    sink.take([0]);
    assert!(sink.write(0), "the first record is written");
    assert_eq!((sink.told.count(), sink.spooled()), (20, 19));
    assert!(!sink.sink.collector.is_all_stored());
    sink.assert_whole(20);
}

#[test]
fn what_is_done_while_the_spool_is_read_back_waits_in_its_turn() {
    let mut sink = Scene::new(limits(10, 10_000));
    sink.take(1..100);
    sink.write_all();
    sink.take([0]);
    for start in (100..1000).step_by(10) {
        // The spool is read more slowly than records come.
        sink.write(5);
        sink.take(start..start + 10);
    }
    assert!(sink.output().len() < 900);
    sink.close(1000);
    sink.assert_whole(1000);
}

#[test]
fn a_spool_that_is_full_leaves_the_rest_in_memory() {
    let mut sink = Scene::new(limits(10, 100));
    for start in (1..300).step_by(5) {
        sink.take(start..start + 5);
        sink.write_all();
    }
    assert!((95..115).contains(&sink.spooled()), "{} are spooled", sink.spooled());
    assert!(sink.held_bytes > 150 * result(0).held_bytes(), "the ventilator hears of it");
    sink.close(301);
    sink.take([0]);
    sink.assert_whole(301);
}

#[test]
fn what_could_not_be_spooled_waits_in_memory_and_is_tried_again() {
    let mut sink = Scene::new(limits(10, 10_000));
    sink.sink.spool_room = 0;
    sink.pass(Time(0));
    sink.take(1..50);
    sink.take(50..100);
    sink.write_all();
    assert_eq!(sink.spooled(), 0);
    assert_eq!(sink.sink.collector.snapshot().held_bytes, 99 * result(0).held_bytes());
    sink.take(100..101);
    assert!(sink.sink.is_idle(), "not before a while has passed");
    sink.sink.spool_room = usize::MAX;
    sink.pass(sink.sink.collector.poll_timeout());
    sink.write_all();
    assert!(sink.spooled() > 0);
    sink.take([0]);
    sink.close(101);
    sink.assert_whole(101);
}

#[test]
fn a_duplicate_of_what_is_spooled_is_said_to_be_stored() {
    let mut sink = Scene::new(limits(1, 10_000));
    sink.take(1..20);
    sink.write_all();
    let spooled = sink.sink.spooled.keys().next().copied().expect("something is spooled");
    let told = std::mem::take(&mut sink.told);
    sink.take([spooled.0]);
    assert!(sink.told.contains(spooled));
    told.to_ranges().as_slice().iter().for_each(|range| sink.told.insert_range(*range));
    assert_eq!(sink.sink.collector.snapshot().duplicates, 1);
    sink.close(20);
    sink.take([0]);
    sink.assert_whole(20);
}

#[test]
fn a_sink_that_starts_again_goes_on_with_its_spool() {
    // 5 and 6 stand there from before: they were run again then.
    let written = [0, 1, 2, 5, 6];
    let sink = Scene::restarted(limits(1, 10_000), written, (7..20).chain(30..40));
    let mut sink = Scene::begin(sink, JOB, Start::New);
    sink.write_all();
    assert_eq!(sink.output(), written);
    sink.take(3..5);
    sink.write_all();
    assert_eq!(sink.output()[5..], [vec![3, 4], (7..20).collect()].concat());
    sink.take(20..30);
    sink.close(40);
    sink.write_all();
    assert_eq!(sink.output()[20..], (20..40).collect::<Vec<_>>());
    assert!(sink.sink.collector.is_all_stored());
}

#[test]
fn nothing_is_moved_before_the_input_of_a_resumed_job_is_compared() {
    let sink = Scene::restarted(limits(1, 10_000), 0..4, 4..10);
    let mut sink = Scene::begin(sink, JobId(8), Start::Resume);
    sink.take(11..20);
    assert!(sink.sink.is_idle());
    let hashes = (0..10).map(TaskHash).collect();
    let hashes = tradewind_proto::batch::Bounded(hashes);
    sink.hear(ToSink::Inputs { job: JOB, from: Seq(0), hashes });
    assert_eq!(sink.sink.compared, 10, "all with records are compared");
    sink.write_all();
    assert_eq!(sink.output(), (0..10).collect::<Vec<_>>());
}

#[test]
fn tasks_that_are_given_up_let_what_is_spooled_out() {
    let mut sink = Scene::new(limits(1, 10_000));
    sink.take((1..50).filter(|seq| seq % 10 != 0));
    sink.write_all();
    for seq in [40, 30, 0, 10, 20] {
        sink.hear(ToSink::GiveUp {
            job: JOB,
            seq: Seq(seq),
            attempt: Attempt(1),
            task_hash: TaskHash(0),
            status: Status::Cancelled,
            error: "cancelled".into(),
        });
        sink.write(3);
    }
    sink.close(50);
    sink.assert_whole(50);
}

#[test]
fn whatever_comes_in_whatever_order_is_written_in_order() {
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut sink = Scene::new(limits(rng.u64(0..20), rng.u64(0..200)));
        let total = 400;
        let mut seqs: Vec<u64> = (0..total).collect();
        // Each may be late by some.
        let late = rng.u64(1..400);
        seqs.sort_by_cached_key(|seq| seq + rng.u64(0..late));
        let mut time = 0;
        while !seqs.is_empty() {
            let count = rng.usize(1..=seqs.len().min(5));
            sink.take(seqs.drain(..count));
            sink.sink.spool_room = if rng.u8(0..10) == 0 { 0 } else { usize::MAX };
            for _ in 0..rng.u8(0..3) {
                sink.write(rng.u64(1..20));
            }
            time += 300_000;
            sink.pass(Time(time));
        }
        sink.close(total);
        sink.assert_whole(total);
    }
}

//! Records that are to be replaced: compared with the input first, and nothing changes before that.

use tradewind_proto::collector::{Collector, CollectorConfig, Counts, Inputs, Opened, Order};
use tradewind_proto::dispatcher::{Dispatcher, DispatcherConfig, Ended, Transmit};
use tradewind_proto::message::{
    HaltOn, InputEnd, Outcome, Report, Start, TaskResult, ToSink, ToVentilator,
};
use tradewind_proto::{Attempt, JobId, Payload, Seq, SeqSet, SessionId, TaskHash, Time};

use tradewind_testkit::{KEY, config, tag};

const JOB: JobId = JobId(7);

fn seqs(range: impl IntoIterator<Item = u64>) -> SeqSet {
    range.into_iter().map(Seq).collect()
}

fn open(job: JobId, start: Start) -> ToSink {
    let (name, stage) = ("job".to_owned(), String::new());
    ToSink::JobOpen { job, name, start, stage, is_untouched: true }
}

/// A sink whose output has records of tasks 0 to 3, and had one of task 4 that is to be replaced.
fn pending() -> Collector {
    let mut sink = Collector::new(CollectorConfig {
        session: SessionId(1),
        order: Order::Completion,
        report: Report::default(),
        key: KEY,
    });
    sink.handle_ventilator_connected();
    sink.handle_message(open(JobId(8), Start::RetryFailed));
    assert!(sink.poll_open().is_some());
    sink.handle_opened(Opened {
        job: JOB,
        stored: seqs(0..4),
        counts: Counts { ok: 4, ..Counts::default() },
        again: seqs([4]),
        pending: Some(Start::RetryFailed),
        ..Opened::default()
    });
    sink
}

fn hellos(sink: &mut Collector) -> Vec<(Vec<Seq>, Vec<Seq>)> {
    std::iter::from_fn(|| sink.poll_transmit())
        .filter_map(|message| match message {
            ToVentilator::SinkHello { stored, again, .. } => {
                Some((stored.seqs().collect(), again.seqs().collect()))
            }
            _ => None,
        })
        .collect()
}

fn inputs(sink: &mut Collector, from: u64, hashes: &[u32]) -> Inputs {
    let hashes: Vec<TaskHash> = hashes.iter().map(|hash| TaskHash(*hash)).collect();
    sink.handle_message(ToSink::Inputs { job: JOB, from: Seq(from), hashes: hashes.into() });
    sink.poll_inputs().expect("there is something to compare")
}

fn result(seq: u64) -> ToSink {
    let result = TaskResult {
        seq: Seq(seq),
        attempt: Attempt::FIRST,
        last: true,
        tag: tag(9, seq, TaskHash(1)),
        started_us: 1,
        ran_us: 1,
        task_bytes: 1,
        task_hash: TaskHash(1),
        outcome: Outcome::ok(Payload::from(b"x")),
        reported: None,
    };
    ToSink::Results { job: JOB, session: SessionId(9), results: vec![result].into() }
}

#[test]
fn an_output_is_changed_when_all_that_has_records_is_compared() {
    let mut sink = pending();
    let (stored, again) = ((0..4).map(Seq).collect(), vec![Seq(4)]);
    assert_eq!(hellos(&mut sink), [(stored, again)]);
    assert!(!sink.poll_begin());
    let compared = inputs(&mut sink, 0, &[10, 11, 12, 13, 14, 15]);
    let wanted: Vec<_> = (0..5).map(|seq| (Seq(seq), TaskHash(10 + seq as u32))).collect();
    assert_eq!((compared.stored, compared.below), (wanted, Seq(6)));
    // Nothing is written before, and the job is not over, whatever its ventilator says.
    sink.handle_message(result(5));
    sink.handle_message(ToSink::JobClose { job: JOB, total: 4, end: InputEnd::Whole });
    assert!(sink.poll_write().is_none() && !sink.is_all_stored());
    sink.handle_verified(Seq(4));
    assert!(!sink.poll_begin(), "task 4 is not compared");
    assert!(sink.poll_write().is_none());
    sink.handle_verified(Seq(6));
    assert!(sink.poll_begin() && !sink.poll_begin(), "once");
    assert_eq!(sink.poll_write().map(|records| records.len()), Some(1));
}

#[test]
fn an_output_is_changed_for_the_first_record_of_what_was_compared() {
    let mut sink = pending();
    sink.handle_verified(Seq(3));
    // Of a task that is not compared yet.
    sink.handle_message(result(5));
    assert!(!sink.poll_begin());
    let mut sink = pending();
    sink.handle_verified(Seq(5));
    sink.handle_message(result(4));
    assert!(sink.poll_begin());
    assert!(sink.poll_write().is_some());
}

// Found by the simulator: a ventilator that was stopped before it had read its input again told its sink so, and
// the sink waited for the rest of the comparison for ever.
#[test]
fn a_job_that_is_stopped_while_it_is_compared_is_over() {
    for end in [InputEnd::CutShort, InputEnd::Halted(HaltOn::Fail)] {
        let mut sink = pending();
        sink.handle_message(ToSink::JobClose { job: JOB, total: 2, end });
        assert!(!sink.poll_begin(), "task 1 is not compared");
        sink.handle_verified(Seq(2));
        assert!(sink.poll_begin() && sink.is_all_stored());
    }
}

#[test]
fn after_a_refusal_the_same_may_be_tried_again_with_another_input() {
    let mut sink = pending();
    sink.handle_verified(Seq(4));
    sink.handle_changed(Seq(4));
    let _ = hellos(&mut sink);
    sink.handle_message(open(JobId(9), Start::Resume));
    assert!(hellos(&mut sink).is_empty(), "that is something else");
    sink.handle_message(open(JobId(9), Start::RetryFailed));
    assert_eq!(hellos(&mut sink).len(), 1);
    assert!(!sink.poll_begin());
    let _ = inputs(&mut sink, 0, &[1; 5]);
    sink.handle_verified(Seq(4));
    assert!(!sink.poll_begin(), "what was compared before counts for nothing");
    sink.handle_verified(Seq(5));
    assert!(sink.poll_begin());
}

/// A ventilator that is told of these, and reads so many tasks.
fn resumed(tasks: u64) -> Dispatcher {
    let start = Start::RetryFailed;
    let mut ventilator = Dispatcher::new(DispatcherConfig { start, ..config(JobId(8)) });
    ventilator.handle_sink_connected();
    ventilator.handle_receipts_connected(Time(0));
    let hello = ToVentilator::SinkHello {
        asked: JobId(8),
        job: JOB,
        sink: SessionId(1),
        stored: seqs(0..4).to_ranges(),
        again: seqs([4]).to_ranges(),
        workers: Some(Vec::new().into()),
        key: KEY,
        report: Report::default(),
    };
    ventilator.handle_message(Time(0), hello);
    (0..tasks).for_each(|_| ventilator.handle_task(Payload::from(b"t")));
    ventilator.handle_input_end();
    ventilator
}

#[test]
fn an_input_that_ends_before_what_is_to_run_again_is_refused() {
    for (tasks, has) in [(4, "it has 4 tasks"), (1, "it has 1 task,"), (0, "it has 0 tasks")] {
        let ventilator = resumed(tasks);
        let Some(Ended::Refused(reason)) = ventilator.ended() else {
            panic!("{:?}", ventilator.ended());
        };
        assert!(reason.contains(has), "{reason}");
        assert!(reason.contains("the output has records up to task 5"), "{reason}");
    }
}

#[test]
fn what_is_to_run_again_is_sent_to_be_compared() {
    let mut ventilator = resumed(6);
    assert_eq!(ventilator.ended(), None);
    let sent = std::iter::from_fn(|| ventilator.poll_transmit(Time(0)));
    let compared: usize = sent
        .map(|transmit| match transmit {
            Transmit::Sink(ToSink::Inputs { hashes, .. }) => hashes.0.len(),
            _ => 0,
        })
        .sum();
    assert_eq!(compared, 5, "and no more: nothing is known of the sixth");
}

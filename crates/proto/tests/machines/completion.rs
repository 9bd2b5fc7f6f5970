//! The end of a job is heard by whoever comes to ask.

use tradewind_proto::collector::{Collector, CollectorConfig, Counts, Opened, Order};
use tradewind_proto::message::{InputEnd, Report, Start, ToSink, ToVentilator};
use tradewind_proto::{JobId, Seq, SeqSet, SessionId};
use tradewind_testkit::KEY;

const JOB: JobId = JobId(7);

/// How often the collector says that all is stored.
fn completions(collector: &mut Collector) -> usize {
    std::iter::from_fn(|| collector.poll_transmit())
        .filter(|message| *message == ToVentilator::Complete { job: JOB })
        .count()
}

fn open() -> ToSink {
    let (name, stage) = ("job".to_owned(), String::new());
    ToSink::JobOpen { job: JOB, name, start: Start::New, stage, is_untouched: true }
}

// Fails if `Complete` does not follow each hello: a ventilator that has lost it waits for ever. A relay
// that takes the place of one that was killed hears of the end of the input only after the hello, and
// cannot believe before that a job is complete.
#[test]
fn a_complete_job_is_said_to_be_so_with_each_hello_and_when_it_is_closed_again() {
    let close = ToSink::JobClose { job: JOB, total: 1, end: InputEnd::Whole };
    let mut sink = Collector::new(CollectorConfig {
        session: SessionId(1),
        order: Order::Seq,
        report: Report::default(),
        key: KEY,
    });
    sink.handle_ventilator_connected();
    sink.handle_message(open());
    assert!(sink.poll_open().is_some());
    let mut stored = SeqSet::new();
    stored.insert(Seq(0));
    let counts = Counts { ok: 1, ..Counts::default() };
    sink.handle_opened(Opened { job: JOB, stored, counts, ..Opened::default() });
    sink.handle_message(close.clone());
    assert_eq!(completions(&mut sink), 0, "nothing is flushed yet");
    sink.handle_flushed();
    assert_eq!(completions(&mut sink), 1);

    sink.handle_ventilator_disconnected();
    sink.handle_ventilator_connected();
    assert_eq!(completions(&mut sink), 1, "with the hello");
    sink.handle_message(open());
    assert_eq!(completions(&mut sink), 1, "with the hello that was asked for");
    sink.handle_message(close);
    assert_eq!(completions(&mut sink), 1, "after the close");
}

// Fails if a `JobClose` that comes while the output is made ready is dropped: no other may follow.
#[test]
fn an_end_that_is_heard_while_the_output_is_made_ready_is_known_after_it() {
    let mut sink = Collector::new(CollectorConfig {
        session: SessionId(1),
        order: Order::Seq,
        report: Report::default(),
        key: KEY,
    });
    sink.handle_ventilator_connected();
    sink.handle_message(open());
    assert!(sink.poll_open().is_some());
    sink.handle_message(ToSink::JobClose { job: JOB, total: 0, end: InputEnd::Whole });
    assert!(!sink.is_all_stored());
    let (stored, counts) = (SeqSet::new(), Counts::default());
    sink.handle_opened(Opened { job: JOB, stored, counts, ..Opened::default() });
    assert!(sink.is_all_stored() && sink.is_whole());
}

//! What the sink answers, and what workers hear of it: no result is retained for longer than it takes to
//! store its record, and no answer is given to the wrong peer.

use tradewind_proto::collector::{Collector, CollectorConfig, Counts, Opened, Order};
use tradewind_proto::limits::MESSAGE_BYTES_MAX;
use tradewind_proto::message::{
    Card, Outcome, Report, Role, Start, Status, TaskResult, ToSink, ToVentilator,
};
use tradewind_proto::{Attempt, LaneId, Payload, Seq, SeqSet, SessionId, TaskHash};

use crate::ok;
use tradewind_testkit::{JOB, KEY, Ring, tag};

const SECOND: u64 = 1_000_000;

const WORKER: SessionId = SessionId(9);

/// A sink with a job, whose hello was sent.
fn sink() -> Collector {
    let session = SessionId(1);
    let report = Report::default();
    let mut sink =
        Collector::new(CollectorConfig { session, order: Order::Completion, report, key: KEY });
    sink.handle_ventilator_connected();
    let (name, stage) = ("job".to_owned(), String::new());
    let start = Start::New;
    sink.handle_message(ToSink::JobOpen { job: JOB, name, start, stage, is_untouched: true });
    assert!(sink.poll_open().is_some());
    let (stored, counts) = (SeqSet::new(), Counts::default());
    sink.handle_opened(Opened { job: JOB, stored, counts, ..Opened::default() });
    assert_eq!(sent(&mut sink), ["hello"]);
    sink
}

fn results(seqs: &[u64], is_ok: bool) -> ToSink {
    let result = |seq: &u64| TaskResult {
        seq: Seq(*seq),
        attempt: Attempt::FIRST,
        last: is_ok,
        tag: tag(WORKER.0, *seq, TaskHash(1)),
        started_us: 1,
        ran_us: 1,
        task_bytes: 1,
        task_hash: TaskHash(1),
        outcome: match is_ok {
            true => Outcome::ok(Payload::from(b"x")),
            false => Outcome::error(Status::Failed, "no"),
        },
        reported: None,
    };
    let results: Vec<TaskResult> = seqs.iter().map(result).collect();
    ToSink::Results { job: JOB, session: WORKER, results: results.into() }
}

fn write(sink: &mut Collector) {
    while let Some(records) = sink.poll_write() {
        sink.handle_written(records.len());
    }
}

/// What the sink sends: of a receipt the seqs that it has received, stored, and wants tried again.
fn sent(sink: &mut Collector) -> Vec<String> {
    let seqs = |seqs: &mut dyn Iterator<Item = Seq>| -> String {
        seqs.map(|seq| format!(" {}", seq.0)).collect()
    };
    let messages = std::iter::from_fn(|| sink.poll_transmit());
    let text = |message| match message {
        ToVentilator::SinkHello { .. } => "hello".to_owned(),
        ToVentilator::Receipt { received, stored, retry, .. } => {
            let received = seqs(&mut received.0.iter().flat_map(|it| it.ranges.seqs()));
            let (stored, retry) =
                (seqs(&mut stored.seqs()), seqs(&mut retry.0.iter().map(|failure| failure.seq)));
            format!("received{received}, stored{stored}, retry{retry}")
        }
        other => format!("{other:?}"),
    };
    messages.map(text).collect()
}

// Fails if a result whose record is stored is not answered with `stored`, or not with `received`.
#[test]
fn a_result_that_comes_again_is_answered_like_the_first() {
    let mut sink = sink();
    sink.handle_message(results(&[0, 1], true));
    assert_eq!(sent(&mut sink), ["received 0 1, stored, retry"]);
    write(&mut sink);
    assert_eq!(sent(&mut sink), ["received, stored 0 1, retry"]);
    sink.handle_message(results(&[0, 1], true));
    assert_eq!(sent(&mut sink), ["received 0 1, stored 0 1, retry"]);
    // One that is not stored yet is answered when it is.
    sink.handle_message(results(&[2], true));
    sink.handle_message(results(&[2], true));
    assert_eq!(sent(&mut sink), ["received 2 2, stored, retry"]);
    write(&mut sink);
    assert_eq!(sent(&mut sink), ["received, stored 2, retry"]);
}

// Fails if a record that is stored, of an earlier stage or given up, is not answered when it comes again.
#[test]
fn a_record_that_comes_again_is_answered_like_the_first() {
    let give_up = || ToSink::GiveUp {
        job: JOB,
        seq: Seq(0),
        attempt: Attempt(0),
        task_hash: TaskHash(1),
        status: Status::Failed,
        error: "too large".to_owned(),
    };
    let mut sink = sink();
    sink.handle_message(give_up());
    assert_eq!(sent(&mut sink), [""; 0], "not before it is stored");
    write(&mut sink);
    for _ in 0..2 {
        assert_eq!(sent(&mut sink), ["received, stored 0, retry"]);
        sink.handle_message(give_up());
        write(&mut sink);
    }
    assert_eq!(sink.snapshot().stored.total(), 1);
}

// Fails if what was to be sent, or what a receipt was to have in it, outlives the connection.
#[test]
fn an_answer_goes_to_the_ventilator_whose_connection_it_was_for() {
    let pending: [fn(&mut Collector); 4] = [
        |sink| sink.handle_message(results(&[0], true)),
        |sink| {
            sink.handle_message(results(&[0], true));
            let _ = sent(sink);
            write(sink);
        },
        |sink| sink.handle_message(results(&[0], false)),
        |sink| {
            sink.handle_worker_connected(WORKER, "w9");
            sink.handle_worker_disconnected(WORKER);
        },
    ];
    for pending in pending {
        let mut sink = sink();
        pending(&mut sink);
        sink.handle_ventilator_disconnected();
        assert_eq!(sent(&mut sink), [""; 0]);
        sink.handle_ventilator_connected();
        // What is stored is in the hello, and what is not is answered when it is.
        assert_eq!(sent(&mut sink), ["hello"]);
    }
}

// Fails if nothing is forgotten of what a receipt for no ventilator would have in it.
#[test]
fn what_comes_while_there_is_no_ventilator_is_answered_by_the_hello() {
    let mut sink = sink();
    sink.handle_ventilator_disconnected();
    sink.handle_message(results(&[0], true));
    sink.handle_message(results(&[1], false));
    write(&mut sink);
    sink.handle_message(results(&[0], true));
    sink.handle_ventilator_connected();
    assert_eq!(sent(&mut sink), ["hello"]);
}

// Fails if news overtake the receipt for results that came before them: what a worker holds would be
// compared with what it held before.
#[test]
fn news_do_not_overtake_the_receipt_for_earlier_results() {
    let mut sink = sink();
    sink.handle_worker_connected(WORKER, "w9");
    sink.handle_message(results(&[0], true));
    sink.handle_worker_disconnected(WORKER);
    let sent = sent(&mut sink);
    assert_eq!(sent.len(), 2, "{sent:?}");
    assert!(sent[0].starts_with("received 0") && sent[1].starts_with("Relay"), "{sent:?}");
}

fn retained(ring: &Ring, worker: u64) -> u64 {
    ring.workers[&worker].executor.snapshot().retained
}

// Fails if the ranges of settled seqs, or the lowest one that is not settled, are not announced, and if a
// worker does not forget the results in either.
#[test]
fn a_result_is_forgotten_when_its_record_is_stored() {
    let mut ring = Ring::new(0, Order::Completion);
    ring.join(1, 4);
    ring.tasks(&["t"; 4]);
    let seqs: Vec<u64> = ring.running(1).iter().map(|task| task.0).collect();
    assert_eq!(seqs, [0, 1, 2, 3]);
    // Beside an earlier task that still runs, then in order, and then both.
    for slot in [2, 0, 3, 1] {
        ring.disk_is_stuck = true;
        ring.finish(1, slot, ok("x"));
        assert_eq!(retained(&ring, 1), 1, "not before it is stored");
        ring.disk_is_stuck = false;
        ring.settle();
        assert_eq!(retained(&ring, 1), 0, "after {slot}");
    }
}

// Fails if a heartbeat of a worker that was not told of the base, or a roll call, has no answer.
#[test]
fn what_another_worker_has_done_is_stopped_at_the_next_heartbeat() {
    let mut ring = Ring::new(0, Order::Completion);
    ring.join(1, 1);
    ring.tasks(&["a"]);
    ring.dispatcher.handle_lane_gone(LaneId(1));
    ring.join(2, 1);
    ring.rejoin(1, 1);
    ring.finish(2, 0, ok("x"));
    assert_eq!(ring.records(), [(0, Status::Ok, 2)]);
    ring.pass(2 * SECOND);
    assert_eq!(ring.workers[&1].stopped, [(0, 1)]);
}

// Fails if a worker on a new lane is told only of what was settled since.
#[test]
fn what_was_settled_while_a_lane_was_dead_is_told_on_the_next() {
    for is_beside in [false, true] {
        let mut ring = Ring::new(0, Order::Completion);
        ring.join(1, 2);
        ring.tasks(&["a", "b"]);
        ring.swallows = Some(1);
        ring.finish(1, u32::from(is_beside), ok("x"));
        assert_eq!((ring.records().len(), retained(&ring, 1)), (1, 1));
        // Nothing was settled since, and the end of the old lane is not heard of before.
        let worker = ring.workers.remove(&1).expect("it has joined");
        ring.workers.insert(2, worker);
        let card = Card {
            role: Role::Worker,
            session: SessionId(1),
            slots: 2,
            message_bytes_max: MESSAGE_BYTES_MAX,
            name: "w1".to_owned(),
            queue: String::new(),
        };
        ring.dispatcher.handle_lane_opened(ring.now, LaneId(2), &card);
        ring.settle();
        assert_eq!(retained(&ring, 2), 0, "beside another: {is_beside}");
        assert_eq!(ring.closed, [LaneId(1)], "the old lane");
    }
}

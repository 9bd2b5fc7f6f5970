//! A worker that was let in, and lies about itself and its tasks.

use tradewind_proto::message::{News, Outcome, ToWorker};
use tradewind_proto::{CallId, Payload, Seq, SeqRange, SeqRanges, Tag, TaskHash};

use super::INSIDE;
use crate::ring::{Flags, Ring};
use crate::stage::{Stage, Worker, result};
use crate::suite::{Group, Scenario, Seen};

pub(crate) const GROUP: Group = Group {
    name: "workers",
    scenarios: &[
        Scenario {
            name: "keeper",
            required: "one that answers every call and returns nothing is lost by the timeout (R4)",
            ways: INSIDE,
            play: keeper,
        },
        Scenario {
            name: "returns-of-others",
            required: "tasks of others are not taken from them by one that returns them (R4, R8)",
            ways: INSIDE,
            play: returns_of_others,
        },
        Scenario {
            name: "goodbye-and-on",
            required: "results after a goodbye count once, or not (R8)",
            ways: INSIDE,
            play: goodbye_and_on,
        },
        Scenario {
            name: "claims-of-all",
            required: "an answer to the roll call proves each task by its tag (R8)",
            ways: INSIDE,
            play: claims_of_all,
        },
        Scenario {
            name: "second-lane",
            required: "one that opens its lanes again and again harms itself alone",
            ways: INSIDE,
            play: second_lane,
        },
        Scenario {
            name: "results-twice",
            required: "a result that comes twice, with two outcomes, is one record: the first",
            ways: INSIDE,
            play: results_twice,
        },
    ],
    undefended: &[],
};

/// A worker among honest ones, which was given tasks.
fn with_tasks(stage: &Stage, ring: &mut Ring, slots: u32) -> Worker {
    let liar = stage.liar(&ring.scene);
    let mut worker = liar.worker(&ring.scene, slots, "liar").expect("workers get in");
    worker.answer();
    ring.feed_until_given(&mut worker);
    worker
}

fn honest_alone(ring: Ring) {
    let _ = ring.end_untouched();
}

fn keeper(stage: &Stage) -> Seen {
    let mut ring = Ring::start(stage, Flags { ventilator: "--timeout 1s", ..Flags::default() });
    ring.echo();
    ring.feed(200);
    let mut worker = with_fresh_tasks(stage, &mut ring);
    let kept = worker.given();
    let all = ring.fed();
    ring.wait_for_stored_while(all, || {
        let others = worker.read();
        let held = worker.held().len() as u32;
        worker.beat(held);
        for message in others {
            match message {
                ToWorker::RollCall { call, .. } => {
                    worker.call = call;
                    let news = worker.holding_all();
                    let _ = worker.tell(news);
                }
                ToWorker::Recall { job, call, .. } => {
                    let _ = worker.tell(News::Recalled { job, call, ranges: SeqRanges::new() });
                }
                _ => {}
            }
        }
    });
    honest_alone(ring);
    format!("it was lost with {kept} tasks or more; all records are right").into()
}

/// A worker that was given tasks, of which there are enough.
fn with_fresh_tasks(stage: &Stage, ring: &mut Ring) -> Worker {
    let liar = stage.liar(&ring.scene);
    let mut worker = liar.worker(&ring.scene, 8, "liar").expect("workers get in");
    worker.answer();
    ring.feed_until_given(&mut worker);
    worker
}

fn returns_of_others(stage: &Stage) -> Seen {
    let mut ring = Ring::begin(stage, Flags::default());
    let mut worker = with_tasks(stage, &mut ring, 1);
    let (job, call) = (worker.job, worker.call);
    let all = || SeqRanges::of(SeqRange { start: Seq(0), end: Seq(60) });
    let far = || SeqRanges::of(SeqRange { start: Seq(1 << 40), end: Seq((1 << 62) - 1) });
    for ranges in [all(), far()] {
        let _ = worker.tell(News::Returned { job, ranges: ranges.clone() });
        for call in [call, CallId(call.0 + 1), CallId(7)] {
            let _ = worker.tell(News::Recalled { job, call, ranges: ranges.clone() });
        }
    }
    drop(worker);
    honest_alone(ring);
    "80 right records".into()
}

fn goodbye_and_on(stage: &Stage) -> Seen {
    let mut ring = Ring::begin(stage, Flags::default());
    let mut worker = with_tasks(stage, &mut ring, 4);
    let own = worker.take();
    let _ = worker.tell(News::Goodbye);
    let _ = worker.tell(News::Draining { reason: String::new() });
    let lie = |task| result(task, Outcome::ok(Payload::from("late")));
    for _ in 0..3 {
        let _ = worker.send(own.iter().map(lie).collect());
        let news = worker.holding(SeqRanges::new(), Vec::new(), Vec::new());
        let _ = worker.tell(news);
    }
    let given: Vec<u64> = own.iter().map(|task| task.seq.0).collect();
    let ended = ring.end(|record| {
        let is_own = record.worker == "liar" && given.contains(&record.seq);
        assert!(is_own || record.worker.starts_with("honest"), "{record:?}");
    });
    format!("{} records, each once", ended.records.len()).into()
}

fn claims_of_all(stage: &Stage) -> Seen {
    let ring = Ring::begin(stage, Flags::default());
    let liar = stage.liar(&ring.scene);
    let mut worker = liar.worker(&ring.scene, 1, "liar").expect("workers get in");
    let all = SeqRanges::of(SeqRange { start: Seq(0), end: Seq(60) });
    let hashes: Vec<TaskHash> =
        (0..60).map(|seq| TaskHash::of(crate::ring::task(seq).as_bytes())).collect();
    for counts in [(60, 60), (60, 0), (0, 60), (0, 0)] {
        let tags = (0..counts.1).map(|_| Tag(fastrand::u64(..))).collect();
        let news = worker.holding(all.clone(), hashes[..counts.0].to_vec(), tags);
        let _ = worker.tell(news);
    }
    let far = SeqRanges::of(SeqRange { start: Seq(1 << 61), end: Seq((1 << 62) - 1) });
    let news = worker.holding(far, Vec::new(), Vec::new());
    let _ = worker.tell(news);
    drop(worker);
    honest_alone(ring);
    "80 right records".into()
}

fn second_lane(stage: &Stage) -> Seen {
    let ring = Ring::begin(stage, Flags::default());
    let liar = stage.liar(&ring.scene);
    let mut lanes = Vec::new();
    for _ in 0..20 {
        let mut worker = liar.worker(&ring.scene, 64, "liar").expect("workers get in");
        worker.answer();
        lanes.push(worker);
    }
    drop(lanes);
    honest_alone(ring);
    "80 right records after 40 connections of one session".into()
}

fn results_twice(stage: &Stage) -> Seen {
    let mut ring = Ring::begin(stage, Flags::default());
    let mut worker = with_tasks(stage, &mut ring, 1);
    let own = worker.take();
    let first = |task| result(task, Outcome::ok(Payload::from("first")));
    let second = |task| result(task, Outcome::ok(Payload::from("second")));
    let _ = worker.send(own.iter().map(first).collect());
    let _ = worker.send(own.iter().chain(&own).map(second).collect());
    let _ = worker.tell(News::Goodbye);
    let ended = ring.end(|record| {
        let is_first = record.worker == "liar" && record.output.as_deref() == Some("first");
        assert!(is_first || record.worker.starts_with("honest"), "{record:?}");
    });
    let by_liar = ended.records.iter().filter(|record| record.worker == "liar").count();
    assert_eq!(by_liar, own.len(), "each of its tasks has its first result");
    format!("{by_liar} records of the first outcome").into()
}

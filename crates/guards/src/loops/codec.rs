//! Encoding and decoding of messages.

use std::hint::black_box;

use tradewind_proto::batch::Bounded;
use tradewind_proto::message::{Received, ToSink, ToVentilator, ToWorker};
use tradewind_proto::{Seq, SeqRanges};
use tradewind_wire::{Message, decode, encode};

use super::made::{BATCH, JOB, range, results, session, tasks as tasks_of};

/// First seq: long on the wire, as most are in a long job.
const START: u64 = 1 << 33;

pub(crate) fn encode_tasks(tasks: u64) {
    repeat_encode(tasks, &full_tasks());
}

pub(crate) fn decode_tasks(tasks: u64) {
    repeat_decode(tasks, &full_tasks());
}

pub(crate) fn encode_results(tasks: u64) {
    repeat_encode(tasks, &full_results());
}

pub(crate) fn decode_results(tasks: u64) {
    repeat_decode(tasks, &full_results());
}

/// Encodes and decodes a receipt for tasks that ended in no order, so that each is a range.
pub(crate) fn receipts(tasks: u64) {
    let receipt = ToVentilator::Receipt {
        job: JOB,
        received: Bounded(vec![Received {
            session: session(1),
            ranges: apart(),
            ran_us_max: 1000,
            ran_us_median: 10,
            ran_us_mean: 10,
            bytes: 1 << 14,
            failed: 0,
        }]),
        stored: apart(),
        retry: Bounded::default(),
        held_bytes: 1 << 14,
        failed: 0,
    };
    repeat_encode(tasks, &receipt);
    repeat_decode(tasks, &receipt);
}

/// Encodes and decodes the message to a worker that tasks are settled.
pub(crate) fn settled(tasks: u64) {
    let settled = ToWorker::Settled { job: JOB, below: Seq(START), ranges: apart() };
    repeat_encode(tasks, &settled);
    repeat_decode(tasks, &settled);
}

fn full_tasks() -> ToWorker {
    tasks_of(range(START, BATCH))
}

fn full_results() -> ToSink {
    let results = results(session(1), range(START, BATCH)).into();
    ToSink::Results { job: JOB, session: session(1), results }
}

/// Returns a batch of seqs, none next to another.
fn apart() -> SeqRanges {
    (0..BATCH).map(|place| Seq(START + 2 * place)).collect()
}

fn repeat_encode(tasks: u64, message: &impl Message) {
    for _ in 0..tasks.div_ceil(BATCH) {
        black_box(encode(black_box(message)));
    }
}

fn repeat_decode<M: Message>(tasks: u64, message: &M) {
    let frame = encode(message);
    for _ in 0..tasks.div_ceil(BATCH) {
        let message: M = decode(black_box(&frame)).expect("it was encoded just now");
        black_box(message);
    }
}

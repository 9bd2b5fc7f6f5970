//! The loops, and what a task may cost in each.

use std::fmt;

use tradewind_proto::limits::BATCH_TASKS_MAX;

use crate::loops;

/// A hot loop.
#[derive(Clone, Copy, Debug)]
pub struct Loop {
    /// What it is called.
    pub name: &'static str,
    /// Runs it over so many tasks.
    pub run: fn(u64),
    /// What it cost when that was last written down.
    pub known: Cost,
}

/// What a loop costs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Instructions for a task, in a release build for x86-64.
    pub instructions: f64,
    /// Allocations, and reallocations, for [`BATCH_TASKS`] tasks.
    pub allocations: f64,
    /// Bytes that are allocated for a task.
    pub bytes: f64,
}

/// Tasks in a full batch.
pub const BATCH_TASKS: u64 = BATCH_TASKS_MAX as u64;

/// Tasks after which every loop has its pace: the windows of all workers have grown, and whatever
/// is kept has the size that it stays at. What is counted comes after these.
pub const TASKS: u64 = 256 * BATCH_TASKS;

/// Compilers differ, and so do the processors that valgrind plays.
const INSTRUCTIONS_MARGIN: f64 = 1.15;

/// Half of one for each batch: one that is new for every batch is too much.
const ALLOCATIONS_MARGIN: f64 = 0.5;

/// The batches of a hundred workers are cut a little differently whenever the dispatcher learns
/// something; one that is new for each of them is still too much.
const BATCHES_MARGIN: f64 = 1.03;

/// The last doubling of a buffer that grows may come a little sooner.
const BYTES_MARGIN: f64 = 1.1;

/// All of them, with what they cost: instructions for a task, allocations for a batch, bytes for a
/// task, as counted and without a margin. What has become cheaper should be written down here. Where
/// tasks lie in lists, each has eight bytes for what it was in the input of a job of several stages.
pub const LOOPS: [Loop; 15] = [
    known("dispatcher", loops::dispatcher, 337.2, 6.00, 56.5),
    known("dispatcher-of-100", loops::dispatcher_of_100, 435.9, 19.34, 57.4),
    known("executor", loops::executor, 816.0, 3.00, 200.1),
    known("executor-of-100", loops::executor_of_100, 847.7, 24.00, 200.5),
    known("collector", loops::collector, 179.3, 8.00, 160.8),
    known("collector-of-100", loops::collector_of_100, 209.4, 37.12, 164.0),
    known("encode-tasks", loops::encode_tasks, 141.7, 2.00, 64.1),
    known("decode-tasks", loops::decode_tasks, 200.6, 1.00, 56.0),
    known("encode-results", loops::encode_results, 325.7, 2.00, 64.1),
    known("decode-results", loops::decode_results, 506.8, 1.00, 152.0),
    known("receipts", loops::receipts, 379.9, 14.00, 127.8),
    known("settled", loops::settled, 191.1, 10.00, 63.8),
    known("input", loops::input, 170.1, 0.28, 57.0),
    known("output-lines", loops::output_lines, 220.1, 1.00, 4.0),
    known("output-jsonl", loops::output_jsonl, 3153.8, 1.00, 4.0),
];

const fn known(
    name: &'static str,
    run: fn(u64),
    instructions: f64,
    allocations: f64,
    bytes: f64,
) -> Loop {
    Loop { name, run, known: Cost { instructions, allocations, bytes } }
}

impl Loop {
    /// The loop of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        LOOPS.into_iter().find(|each| each.name == name)
    }

    /// What it may cost.
    #[must_use]
    pub fn bound(&self) -> Cost {
        Cost {
            instructions: self.known.instructions * INSTRUCTIONS_MARGIN,
            allocations: self.known.allocations * BATCHES_MARGIN + ALLOCATIONS_MARGIN,
            bytes: self.known.bytes * BYTES_MARGIN,
        }
    }
}

impl fmt::Display for Loop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

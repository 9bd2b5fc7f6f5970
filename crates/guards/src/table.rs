//! Table of the loops, and the costs of a task in each.

use std::fmt;

use tradewind_proto::limits::BATCH_TASKS_MAX;

use crate::loops;

/// Hot loop.
#[derive(Clone, Copy, Debug)]
pub struct Loop {
    /// Name of the loop.
    pub name: &'static str,
    /// Runs the loop over this number of tasks.
    pub run: fn(u64),
    /// Cost when it was last written down.
    pub known: Cost,
}

/// Cost of a loop.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Instructions for a task, in a release build for x86-64.
    pub instructions: f64,
    /// Allocations, and reallocations, for [`BATCH_TASKS`] tasks.
    pub allocations: f64,
    /// Bytes that are allocated for a task.
    pub bytes: f64,
}

/// Number of tasks in a full batch.
pub const BATCH_TASKS: u64 = BATCH_TASKS_MAX as u64;

/// Number of tasks after which every loop has its pace: the windows of all workers have grown, and
/// all lists have their final size. Only the tasks after these are counted.
pub const TASKS: u64 = 256 * BATCH_TASKS;

/// Factor for other compilers, and for the processors that valgrind emulates.
const INSTRUCTIONS_MARGIN: f64 = 1.15;

/// Half an allocation for each batch: a whole one is too much.
const ALLOCATIONS_MARGIN: f64 = 0.5;

/// Factor for the batches of a hundred workers, which are cut a little differently with each change
/// of the dispatcher; a whole allocation for each of them is still too much.
const BATCHES_MARGIN: f64 = 1.03;

/// Factor for the last doubling of a buffer, which may come a little sooner.
const BYTES_MARGIN: f64 = 1.1;

/// Loops with their costs: instructions for a task, allocations for a batch, bytes for a task, as
/// counted and without a margin. Write a lower cost down here. In lists of tasks, each has eight
/// bytes for its hash in the input of a job of several stages.
pub const LOOPS: [Loop; 15] = [
    known("dispatcher", loops::dispatcher, 517.1, 6.00, 64.5),
    known("dispatcher-of-100", loops::dispatcher_of_100, 612.3, 19.34, 65.5),
    known("executor", loops::executor, 923.4, 3.00, 208.0),
    known("executor-of-100", loops::executor_of_100, 963.0, 24.00, 208.1),
    known("collector", loops::collector, 266.5, 8.00, 160.8),
    known("collector-of-100", loops::collector_of_100, 301.8, 37.12, 164.0),
    known("encode-tasks", loops::encode_tasks, 189.5, 3.00, 76.1),
    known("decode-tasks", loops::decode_tasks, 231.3, 1.00, 64.0),
    known("encode-results", loops::encode_results, 372.8, 3.00, 72.1),
    known("decode-results", loops::decode_results, 544.9, 1.00, 152.0),
    known("receipts", loops::receipts, 365.4, 14.00, 127.8),
    known("settled", loops::settled, 179.8, 10.00, 63.8),
    known("input", loops::input, 159.1, 0.28, 57.0),
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
    /// Returns the loop of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        LOOPS.into_iter().find(|each| each.name == name)
    }

    /// Returns the bound of the cost.
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

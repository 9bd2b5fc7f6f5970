//! Hot loops, each over a given number of tasks: the work of the machines, the codec, the input and
//! the output for every task of a job that runs well.
//!
//! The peers of a loop's subject are played here, as cheaply as possible: their cost is part of the
//! count.

mod codec;
mod collector;
mod dispatcher;
mod executor;
mod input;
mod made;
mod output;

pub(crate) use codec::{
    decode_results, decode_tasks, encode_results, encode_tasks, receipts, settled,
};
pub(crate) use collector::{collector, collector_of_100};
pub(crate) use dispatcher::{dispatcher, dispatcher_of_100};
pub(crate) use executor::{executor, executor_of_100};
pub(crate) use input::input;
pub(crate) use output::{output_jsonl, output_lines};

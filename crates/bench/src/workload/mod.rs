//! Workloads: a module for each, with the letter that it has in the table.

mod commands;
mod echo;
mod engines;
mod gathered;
pub(crate) mod growth;
mod handlers;
mod input;
mod latency;
mod memory;
mod queued;
mod schedule;
mod single;
mod start;
mod uneven;
mod waiting;

use anyhow::{Result, bail};

use crate::figure::Outcome;
use crate::lab::Lab;

type Measure = fn(&Lab) -> Result<Outcome>;

/// Workloads, in the order of the table.
const ALL: [(char, Measure); 11] = [
    ('E', echo::measure),
    ('C', commands::measure),
    ('P', handlers::measure),
    ('U', uneven::measure),
    ('L', latency::measure),
    ('S', start::measure),
    ('M', memory::measure),
    ('Q', single::measure),
    ('B', queued::measure),
    ('W', waiting::measure),
    ('N', engines::measure),
];

/// Workload that is measured only when it is asked for: it needs servers that `scripts/engines --build` installs.
const ON_DEMAND: char = 'N';

/// Returns the workloads with these letters; all but one if there are none.
pub(crate) fn chosen(letters: &[char]) -> Result<Vec<(char, Measure)>> {
    if let Some(letter) = letters.iter().find(|letter| !ALL.iter().any(|(l, _)| l == *letter)) {
        bail!("there is no workload {letter}");
    }
    let is_chosen = |letter: char| match letters {
        [] => letter != ON_DEMAND,
        _ => letters.contains(&letter),
    };
    Ok(ALL.into_iter().filter(|(letter, _)| is_chosen(*letter)).collect())
}

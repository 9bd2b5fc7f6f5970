//! Tradewind's three programs, started as a user would.

use std::path::Path;

use anyhow::Result;

use crate::lab::{Lab, Place};
use crate::process::{Program, Running};

const TASKS_PORT: u16 = 5557;
const RESULTS_PORT: u16 = 5558;
const RECEIPTS_PORT: u16 = 5559;

pub(crate) fn ventilator(lab: &Lab, place: &Place, input: impl AsRef<Path>) -> Program {
    lab.ours("ventilator")
        .arg("--input")
        .arg(input.as_ref())
        .args(["--tasks", &place.endpoint(TASKS_PORT)])
        .args(["--receipts", &place.endpoint(RECEIPTS_PORT)])
        .args(["--sink", &place.endpoint(RESULTS_PORT)])
}

/// Returns a worker that leaves with the job.
pub(crate) fn worker(lab: &Lab, place: &Place) -> Program {
    lab.ours("worker")
        .args(["--quiet", "--exit-when-done"])
        .args(["--ventilator", &place.endpoint(TASKS_PORT)])
        .args(["--sink", &place.endpoint(RESULTS_PORT)])
}

/// Returns a sink with ordered output, as is the default of lines.
pub(crate) fn sink(lab: &Lab, place: &Place, output: impl AsRef<Path>) -> Program {
    lab.ours("sink")
        .arg("--output")
        .arg(output.as_ref())
        .args(["--listen", &place.endpoint(RESULTS_PORT)])
        .args(["--ventilator", &place.endpoint(RECEIPTS_PORT)])
}

/// Starts all three over the tasks of a file; the workers have these arguments.
pub(crate) fn start_ring<'a>(
    lab: &Lab,
    place: &Place,
    input: &Path,
    output: &Path,
    workers: impl IntoIterator<Item = &'a [&'a str]>,
) -> Result<Vec<Running>> {
    let mut ring = vec![sink(lab, place, output).arg("--quiet").start()?];
    for args in workers {
        ring.push(worker(lab, place).args(args).start()?);
    }
    ring.push(ventilator(lab, place, input).arg("--quiet").start()?);
    Ok(ring)
}

//! C: a command for each task, with its output captured.

use std::fs::File;
use std::time::Instant;

use anyhow::Result;

use super::input::Input;
use crate::figure::{Bound, Figure, Outcome, Unit};
use crate::lab::{Lab, Place};
use crate::peer::shell;
use crate::process::Program;
use crate::rounds::{Contestant, interleave};

const OURS: &str = "tradewind run -j 2";
const XARGS: &str = "xargs -P 2 -n 1";
const PARALLEL: &str = "parallel -j 2";

const COMMAND: &str = "/bin/true";
const JOBS: usize = 2;

const NOTE: &str = "C: from start to exit, lines from a file on stdin, stdout to a file. Tradewind \
    and GNU parallel capture the output of each command; xargs lets it through.";

pub(crate) fn measure(lab: &Lab) -> Result<Outcome> {
    let place = lab.place()?;
    let input = Input::write(&place, "tasks", lab.count(5000, 1500), 16)?;
    // The slower one gets fewer commands.
    let fewer = Input::write(&place, "fewer", lab.count(1000, 300), 16)?;
    let figures = vec![Figure::new('C', "a command a task", Unit::TasksPerSecond)];
    let contestants = vec![
        Contestant::new(OURS, || {
            let args = ["run", "--quiet", "-j", "2", "--", COMMAND];
            rate(lab, lab.ours("tradewind").args(args), &input)
        }),
        Contestant::with(XARGS, shell::installed("xargs"), |_| {
            rate(lab, shell::xargs(JOBS, COMMAND)?, &input)
        }),
        Contestant::with(PARALLEL, shell::installed("parallel"), |_| {
            rate(lab, shell::parallel(JOBS, COMMAND)?, &fewer)
        }),
    ];
    let figures = interleave(lab, figures, contestants);
    let mut outcome = Outcome::default();
    let ratio = figures[0].ratio(OURS, XARGS);
    outcome.target('C', "tradewind run ÷ xargs -P", Bound::AtLeast(1.1), Unit::Times, ratio);
    outcome.figures = figures;
    outcome.notes.push(NOTE.into());
    Ok(outcome)
}

fn rate(lab: &Lab, program: Program, input: &Input) -> Result<Vec<f64>> {
    let place: Place = lab.place()?;
    let program = program
        .dir(place.dir())
        .stdin(File::open(&input.path)?)
        .stdout(File::create(place.path("output"))?);
    let began = Instant::now();
    program.start()?.finish()?;
    Ok(vec![input.tasks as f64 / began.elapsed().as_secs_f64()])
}

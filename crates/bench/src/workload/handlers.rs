//! P: a handler that stays up, beside the same script fed by a shell and beside a process a task.

use std::fs::{self, File};
use std::time::Instant;

use anyhow::{Context, Result};

use super::input::Input;
use crate::figure::{Bound, Figure, Outcome, Unit};
use crate::lab::Lab;
use crate::peer::shell;
use crate::process::Program;
use crate::rounds::{Contestant, interleave};

const OURS: &str = "tradewind run --pipe lines -j 1";
const PIPE: &str = "cat tasks | python3 handler.py";
const EACH: &str = "tradewind run -j 1, a python3 a task";

/// Script for `--pipe lines`.
const HANDLER: &str = "import sys\nfor line in sys.stdin:\n    \
    print(line.upper(), end='', flush=True)\n";

/// Script for one task.
const ONE: &str = "import sys\nprint(sys.argv[1].upper())\n";

const NOTE: &str = "P: from start to exit, lines from a file, stdout to a file. The script flushes \
    each line, in both.";

pub(crate) fn measure(lab: &Lab) -> Result<Outcome> {
    let place = lab.place()?;
    let input = Input::write(&place, "tasks", lab.count(2_000_000, 400_000), 16)?;
    // The slower one gets fewer tasks.
    let fewer = Input::write(&place, "fewer", lab.count(200, 100), 16)?;
    let (handler, one) = (place.path("handler.py"), place.path("one.py"));
    fs::write(&handler, HANDLER).context("cannot write a script")?;
    fs::write(&one, ONE).context("cannot write a script")?;
    let figures = vec![Figure::new('P', "a handler that stays up", Unit::TasksPerSecond)];
    let contestants = vec![
        Contestant::with(OURS, shell::installed("python3"), |_| {
            let args = ["run", "--quiet", "-j", "1", "--pipe", "lines", "--", "python3"];
            rate(lab, lab.ours("tradewind").args(args).arg(&handler), &input)
        }),
        Contestant::with(PIPE, shell::installed("python3"), |_| {
            let program = Program::new("sh").args(["-c", "cat | python3 \"$0\""]);
            rate(lab, program.arg(&handler), &input)
        }),
        Contestant::with(EACH, shell::installed("python3"), |_| {
            let args = ["run", "--quiet", "-j", "1", "--", "python3"];
            rate(lab, lab.ours("tradewind").args(args).arg(&one), &fewer)
        }),
    ];
    let figures = interleave(lab, figures, contestants);
    let mut outcome = Outcome::default();
    for (theirs, least) in [(PIPE, 0.5), (EACH, 50.0)] {
        let what = format!("{OURS} ÷ {theirs}");
        let ratio = figures[0].ratio(OURS, theirs);
        outcome.target('P', what, Bound::AtLeast(least), Unit::Times, ratio);
    }
    outcome.figures = figures;
    outcome.notes.push(NOTE.into());
    Ok(outcome)
}

fn rate(lab: &Lab, program: Program, input: &Input) -> Result<Vec<f64>> {
    let place = lab.place()?;
    let output = place.path("output");
    let program =
        program.dir(place.dir()).stdin(File::open(&input.path)?).stdout(File::create(&output)?);
    let began = Instant::now();
    program.start()?.finish()?;
    let took = began.elapsed();
    // Digits have no upper case.
    input.expect_same(&output)?;
    Ok(vec![input.tasks as f64 / took.as_secs_f64()])
}

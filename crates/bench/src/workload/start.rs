//! S: the time to the first result, and a thousand workers that join and work.

use std::fs::File;
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::gathered::Gathered;
use super::input::Input;
use crate::figure::{Bound, Figure, Outcome, Unit};
use crate::lab::Lab;
use crate::peer::bare::{Bare, Work};
use crate::peer::shell;
use crate::process::{PATIENCE, Program, Running, wait_readable};
use crate::rounds::{Contestant, interleave};
use crate::stats::Spread;

const RUN_ECHO: &str = "tradewind run --echo";
const RUN_COMMAND: &str = "tradewind run -- echo";
const LIBZMQ: &str = "libzmq in C, three processes";
const XARGS: &str = "xargs -n 1 echo";
const PARALLEL: &str = "parallel echo";

const CROWD: usize = 1000;
const JOINED: &str = "Tradewind, 1,000 workers";
const ALONE: &str = "Tradewind, 1 worker";

/// Number of starts in a round, whose median is taken.
const STARTS: usize = 5;

const NOTE: &str = "S: the first result is there when the first byte of it can be read from stdout. \
    A thousand `worker --echo`, each a process, have joined when the ventilator and the sink have \
    said so of all, from the start of the first; ventilator and sink are up by then. The job is \
    then written to the ventilator's stdin; its rate is from the first byte written to the end of \
    the ventilator and the sink.";

pub(crate) fn measure(lab: &Lab) -> Result<Outcome> {
    let mut outcome = first_result(lab)?;
    outcome.merge(crowd(lab)?);
    outcome.notes.push(NOTE.into());
    Ok(outcome)
}

fn first_result(lab: &Lab) -> Result<Outcome> {
    let place = lab.place()?;
    let input = Input::write(&place, "tasks", 10, 16)?;
    let tradewind = |args: &[&str]| {
        first_byte(&input, || Ok(lab.ours("tradewind").args(["run", "--quiet"]).args(args)))
    };
    let figures = vec![Figure::new('S', "from start to first result", Unit::Milliseconds)];
    let contestants = vec![
        Contestant::new(RUN_ECHO, || tradewind(&["--echo"])),
        Contestant::new(RUN_COMMAND, || tradewind(&["--", "echo"])),
        Contestant::with(LIBZMQ, Bare::libzmq(lab), |bare| bare_first_byte(lab, bare, &input)),
        Contestant::with(XARGS, shell::installed("xargs"), |_| {
            first_byte(&input, || shell::xargs(2, "echo"))
        }),
        Contestant::with(PARALLEL, shell::installed("parallel"), |_| {
            first_byte(&input, || shell::parallel(2, "echo"))
        }),
    ];
    let figures = interleave(lab, figures, contestants);
    let mut outcome = Outcome::default();
    for who in [RUN_ECHO, RUN_COMMAND] {
        let what = format!("first result of {who}");
        let figure = figures[0].spread(who);
        outcome.target('S', what, Bound::AtMost(50.0), Unit::Milliseconds, figure);
    }
    outcome.figures = figures;
    Ok(outcome)
}

fn first_byte(input: &Input, program: impl Fn() -> Result<Program>) -> Result<Vec<f64>> {
    repeated(|| {
        let program = program()?.stdin(File::open(&input.path)?).stdout(Stdio::piped());
        let began = Instant::now();
        let mut running = program.start()?;
        read_byte(&mut running)?;
        Ok(began.elapsed())
    })
}

fn bare_first_byte(lab: &Lab, bare: &Bare, input: &Input) -> Result<Vec<f64>> {
    repeated(|| {
        let place = lab.place()?;
        let began = Instant::now();
        let mut sink = bare.sink(lab, &place, 0, "-").stdout(Stdio::piped()).start()?;
        let _ventilator = bare.ventilator(lab, &place, &input.path, 1).start()?;
        let _worker = bare.worker(lab, &place, Work::Echo).start()?;
        read_byte(&mut sink)?;
        Ok(began.elapsed())
    })
}

fn read_byte(running: &mut Running) -> Result<()> {
    let mut stdout = running.take_stdout()?;
    wait_readable(&stdout, PATIENCE)?;
    stdout.read_exact(&mut [0]).context("it ended without a result")
}

/// Returns the median of a few times, in milliseconds.
fn repeated(start: impl Fn() -> Result<Duration>) -> Result<Vec<f64>> {
    let took: Result<Vec<f64>> = (0..STARTS).map(|_| Ok(start()?.as_secs_f64() * 1e3)).collect();
    let spread = Spread::of(took?).context("nothing was measured")?;
    Ok(vec![spread.median])
}

fn crowd(lab: &Lab) -> Result<Outcome> {
    let place = lab.place()?;
    let input = Input::write(&place, "tasks", lab.count(1_000_000, 500_000), 16)?;
    let figures = vec![
        Figure::new('S', "a job over workers that have joined", Unit::TasksPerSecond),
        Figure::of_ours('S', "from the start of the first to the joining of all", Unit::Seconds),
    ];
    let contestants = vec![
        Contestant::new(JOINED, || join_and_work(lab, &input, CROWD)),
        Contestant::new(ALONE, || join_and_work(lab, &input, 1)),
    ];
    let figures = interleave(lab, figures, contestants);
    let mut outcome = Outcome::default();
    let (share, joined) = (figures[0].ratio(JOINED, ALONE), figures[1].spread(JOINED));
    outcome.target('S', "1,000 workers joined", Bound::AtMost(3.0), Unit::Seconds, joined);
    outcome.target('S', "1,000 workers ÷ 1 worker", Bound::AtLeast(0.6), Unit::Times, share);
    outcome.figures = figures;
    Ok(outcome)
}

/// Returns the tasks a second, and the seconds that joining took.
fn join_and_work(lab: &Lab, input: &Input, workers: usize) -> Result<Vec<f64>> {
    let gathered = Gathered::start(lab, workers)?;
    let joining = gathered.joining.as_secs_f64();
    let job = gathered.work(input)?;
    Ok(vec![input.tasks as f64 / job.time.as_secs_f64(), joining])
}

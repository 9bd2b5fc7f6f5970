//! L: one task at a time, and the time until its result is there.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::figure::{Bound, Figure, Outcome, Unit};
use crate::lab::{Lab, Place};
use crate::peer::bare::{Bare, Work};
use crate::peer::tradewind;
use crate::process::{PATIENCE, Program, Running, wait_readable};
use crate::rounds::{Contestant, interleave};
use crate::stats::percentile;

const OURS: &str = "Tradewind";
const LIBZMQ: &str = "libzmq in C";
const LIBZMQ_INSIDE: &str = "libzmq in C, without the pipes";
const CRATE: &str = "zeromq crate";

const TASK: &[u8] = b"0123456789abcdef\n";

/// Number of first tasks that do not count: caches are cold, and workers are still joining.
const WARMUP: usize = 200;

const NOTE: &str = "L: a line is written to the ventilator's stdin, and the next one only when it has \
    come out of the sink's stdout: two pipes and two hops over TCP. Without the pipes: ventilator \
    and sink are one process, which does nothing else.";

pub(crate) fn measure(lab: &Lab) -> Result<Outcome> {
    let count = lab.count(5000, 2000) as usize;
    let figures = vec![
        Figure::new('L', "round trip, p50", Unit::Microseconds),
        Figure::new('L', "round trip, p99", Unit::Microseconds),
    ];
    let contestants = vec![
        Contestant::new(OURS, || ours(lab, count)),
        Contestant::with(LIBZMQ, Bare::libzmq(lab), |bare| bare_pipes(lab, bare, count)),
        Contestant::with(LIBZMQ_INSIDE, Bare::libzmq(lab), |bare| inside(lab, bare, count)),
        Contestant::new(CRATE, || bare_pipes(lab, &Bare::Crate, count)),
    ];
    let figures = interleave(lab, figures, contestants);
    let mut outcome = Outcome::default();
    let (p50, p99) = (figures[0].ratio(OURS, LIBZMQ), figures[1].ratio(OURS, LIBZMQ));
    outcome.target('L', "p50 ÷ libzmq in C", Bound::AtMost(1.5), Unit::Times, p50);
    outcome.target('L', "p99 ÷ libzmq in C", Bound::AtMost(3.0), Unit::Times, p99);
    outcome.figures = figures;
    outcome.notes.push(NOTE.into());
    Ok(outcome)
}

fn ours(lab: &Lab, count: usize) -> Result<Vec<f64>> {
    let place = lab.place()?;
    let _worker = tradewind::worker(lab, &place).arg("--echo").start()?;
    let sink = tradewind::sink(lab, &place, "-").arg("--quiet");
    let ventilator = tradewind::ventilator(lab, &place, "-").arg("--quiet");
    through_pipes(ventilator, sink, count)
}

fn bare_pipes(lab: &Lab, bare: &Bare, count: usize) -> Result<Vec<f64>> {
    let place: Place = lab.place()?;
    let _worker = bare.worker(lab, &place, Work::Echo).start()?;
    through_pipes(bare.ventilator(lab, &place, "-", 1), bare.sink(lab, &place, 0, "-"), count)
}

fn inside(lab: &Lab, bare: &Bare, count: usize) -> Result<Vec<f64>> {
    let printed = bare.roundtrips(lab, &lab.place()?, WARMUP + count)?;
    let nanoseconds = printed.lines().skip(WARMUP).map(str::parse::<f64>);
    let took: Result<Vec<f64>, _> = nanoseconds.map(|ns| Ok(ns? / 1e3)).collect();
    percentiles(&took.map_err(|error: std::num::ParseFloatError| error)?)
}

fn through_pipes(ventilator: Program, sink: Program, count: usize) -> Result<Vec<f64>> {
    let mut sink: Running = sink.stdout(Stdio::piped()).start()?;
    let mut ventilator = ventilator.stdin(Stdio::piped()).start()?;
    let mut to = ventilator.take_stdin()?;
    let mut from = BufReader::new(sink.take_stdout()?);
    let mut took = Vec::with_capacity(count);
    let mut line = Vec::new();
    for number in 0..WARMUP + count {
        let began = Instant::now();
        to.write_all(TASK).context("the ventilator does not read")?;
        line.clear();
        wait_readable(from.get_ref(), PATIENCE).context("a line is lost")?;
        from.read_until(b'\n', &mut line).context("the sink does not write")?;
        if line != TASK {
            bail!("the sink wrote {:?}", String::from_utf8_lossy(&line));
        }
        if number >= WARMUP {
            took.push(began.elapsed().as_secs_f64() * 1e6);
        }
    }
    percentiles(&took)
}

pub(super) fn percentiles(microseconds: &[f64]) -> Result<Vec<f64>> {
    [50.0, 99.0]
        .map(|percent| percentile(microseconds, percent).context("nothing was measured"))
        .into_iter()
        .collect()
}

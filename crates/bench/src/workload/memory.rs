//! M: the largest memory of each process, and the processor time of an idle one.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use super::input::Input;
use crate::figure::{Bound, Figure, Outcome, Series, Unit};
use crate::lab::{Lab, Place};
use crate::peer::tradewind;
use crate::process::{Running, finish_all};
use crate::rounds::{Contestant, interleave};
use crate::stats::Spread;
use crate::watch::MemoryWatch;

const SINK: &str = "sink";
const WORKER: &str = "worker";
const VENTILATOR: &str = "ventilator";

const MEMORY_MIB_MAX: f64 = 64.0;

/// Factor up to which memory counts as independent of the number of tasks: a long job has more
/// chances to meet the moment that takes most.
const GROWTH_MAX: f64 = 1.2;

const IDLE_PERCENT_MAX: f64 = 0.5;

/// Time after which no program has work left from starting.
const SETTLING: Duration = Duration::from_secs(2);

const NOTE: &str = "M: VmHWM, looked at every 10 ms until the end of each process. The straggler is \
    a worker that sleeps two seconds over each task, beside one that echoes tasks of 1 KiB, so that \
    the ordered output waits. Idle are three processes that have joined, with an input that stays \
    open and says nothing.";

pub(crate) fn measure(lab: &Lab) -> Result<Outcome> {
    let mut outcome = lengths(lab)?;
    outcome.merge(straggler(lab)?);
    outcome.merge(idle(lab)?);
    outcome.notes.push(NOTE.into());
    Ok(outcome)
}

/// Measures the largest memory in a few rounds of a short job, and in a long one.
fn lengths(lab: &Lab) -> Result<Outcome> {
    let echo = |tasks| peaks(lab, tasks, 16, &[&["--echo"]]);
    let few: Vec<Peaks> = (0..lab.rounds).map(|_| echo(1_000_000)).collect::<Result<_>>()?;
    let many_tasks = lab.count(100_000_000, 10_000_000);
    let many = echo(many_tasks)?;
    let grown = (0..many.len()).map(|who| many[who] / largest(few.iter().map(|few| few[who])));
    let growth = Spread::of([largest(grown)]);
    let mut outcome = Outcome::default();
    let many_name = format!("{} M echo tasks", many_tasks / 1_000_000);
    outcome.memory("1 M echo tasks", &few);
    outcome.memory(&many_name, &[many]);
    let what = format!("{many_name} ÷ the most at 1 M, the process that grew most");
    outcome.target('M', what, Bound::AtMost(GROWTH_MAX), Unit::Times, growth);
    Ok(outcome)
}

fn straggler(lab: &Lab) -> Result<Outcome> {
    let slow: &[&str] = &["--slots", "1", "--", "sh", "-c", "sleep 2; echo $1", "sh", "{}"];
    let peaks = peaks(lab, lab.count(400_000, 200_000), 1 << 10, &[&["--echo"], slow])?;
    let mut outcome = Outcome::default();
    outcome.memory("tasks of 1 KiB behind a straggler", &[peaks]);
    Ok(outcome)
}

/// Memory in MiB of the sink, the largest worker and the ventilator.
type Peaks = [f64; 3];

impl Outcome {
    fn memory(&mut self, what: &str, runs: &[Peaks]) {
        let mut figure = Figure::of_ours('M', format!("peak memory, {what}"), Unit::Mebibytes);
        for (who, name) in [SINK, WORKER, VENTILATOR].into_iter().enumerate() {
            let values = runs.iter().map(|run| Some(run[who])).collect();
            figure.series.push(Series { who: name.into(), values, skipped: None });
        }
        let most = Spread::of([largest(runs.iter().flatten().copied())]);
        let what = format!("{what}, the largest process");
        self.target('M', what, Bound::AtMost(MEMORY_MIB_MAX), Unit::Mebibytes, most);
        self.figures.push(figure);
    }
}

fn peaks(lab: &Lab, tasks: u64, task_bytes: usize, workers: &[&[&str]]) -> Result<Peaks> {
    let place: Place = lab.place()?;
    let input = Input::write(&place, "tasks", tasks, task_bytes)?;
    let output = place.path("output");
    let ring = tradewind::start_ring(lab, &place, &input.path, &output, workers.iter().copied())?;
    let watch = MemoryWatch::start(&ring);
    finish_all(ring)?;
    let peaks = watch.peaks();
    input.expect_same(&output)?;
    let mib: Vec<f64> = peaks.iter().map(|bytes| *bytes as f64 / f64::from(1 << 20)).collect();
    let [sink, workers @ .., ventilator] = &mib[..] else {
        bail!("the memory was not watched");
    };
    eprintln!("{tasks} tasks of {task_bytes} bytes: {mib:.1?} MiB");
    Ok([*sink, largest(workers.iter().copied()), *ventilator])
}

fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, f64::max)
}

fn idle(lab: &Lab) -> Result<Outcome> {
    let figures = [SINK, WORKER, VENTILATOR]
        .map(|who| Figure::of_ours('M', format!("idle {who}"), Unit::PercentOfCore));
    let contestants = vec![Contestant::new("Tradewind", || idle_percents(lab))];
    let figures = interleave(lab, figures.into(), contestants);
    let mut outcome = Outcome::default();
    let mut all = Figure::of_ours('M', "processor time when idle", Unit::PercentOfCore);
    for (who, mut figure) in [SINK, WORKER, VENTILATOR].into_iter().zip(figures) {
        let bound = Bound::AtMost(IDLE_PERCENT_MAX);
        let percent = figure.spread("Tradewind");
        outcome.target('M', figure.name, bound, Unit::PercentOfCore, percent);
        all.series.extend(figure.series.pop().map(|series| Series { who: who.into(), ..series }));
    }
    outcome.figures.push(all);
    Ok(outcome)
}

fn idle_percents(lab: &Lab) -> Result<Vec<f64>> {
    let place = lab.place()?;
    let sink = tradewind::sink(lab, &place, place.path("output")).arg("--quiet").start()?;
    let worker = tradewind::worker(lab, &place).arg("--echo").start()?;
    let ventilator =
        tradewind::ventilator(lab, &place, "-").arg("--quiet").stdin(Stdio::piped()).start()?;
    thread::sleep(SETTLING);
    let all = [&sink, &worker, &ventilator];
    let before = all.map(Running::cpu_exact);
    let watched = Duration::from_secs(lab.count(10, 4));
    thread::sleep(watched);
    let after = all.map(Running::cpu_exact);
    let used = after.iter().zip(before).map(|(after, before)| after.saturating_sub(before));
    Ok(used.map(|used| 100.0 * used.as_secs_f64() / watched.as_secs_f64()).collect())
}

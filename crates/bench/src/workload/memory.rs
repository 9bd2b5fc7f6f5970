//! M: the most memory that each process had, and the processor time of one that has nothing to do.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::Result;

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

/// What counts as independent of the number of tasks.
const GROWTH_MAX: f64 = 1.1;

const IDLE_PERCENT_MAX: f64 = 0.5;

/// After this nobody has anything left to do from starting.
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

fn lengths(lab: &Lab) -> Result<Outcome> {
    let few = peaks(lab, 1_000_000, 16, &[&["--echo"]])?;
    let many_tasks = lab.count(100_000_000, 10_000_000);
    let many = peaks(lab, many_tasks, 16, &[&["--echo"]])?;
    let mut outcome = Outcome::default();
    let growth = few.iter().zip(&many).map(|(few, many)| many / few).fold(0.0, f64::max);
    let many_name = format!("{} M echo tasks", many_tasks / 1_000_000);
    outcome.memory("1 M echo tasks", &few);
    outcome.memory(&many_name, &many);
    let what = format!("{many_name} ÷ 1 M, the process that grew most");
    let growth = Spread::of([growth]);
    outcome.target('M', what, Bound::AtMost(GROWTH_MAX), Unit::Times, growth);
    Ok(outcome)
}

fn straggler(lab: &Lab) -> Result<Outcome> {
    let slow: &[&str] = &["--slots", "1", "--", "sh", "-c", "sleep 2; echo {}"];
    let peaks = peaks(lab, lab.count(400_000, 200_000), 1 << 10, &[&["--echo"], slow])?;
    let mut outcome = Outcome::default();
    outcome.memory("tasks of 1 KiB behind a straggler", &peaks);
    Ok(outcome)
}

impl Outcome {
    fn memory(&mut self, what: &str, peaks: &[f64]) {
        let mut figure = Figure::of_ours('M', format!("peak memory, {what}"), Unit::Mebibytes);
        figure.series = [SINK, WORKER, VENTILATOR]
            .iter()
            .zip(peaks)
            .map(|(who, mib)| Series::once(who, *mib))
            .collect();
        let most = Spread::of([peaks.iter().copied().fold(0.0, f64::max)]);
        let what = format!("{what}, the largest process");
        self.target('M', what, Bound::AtMost(MEMORY_MIB_MAX), Unit::Mebibytes, most);
        self.figures.push(figure);
    }
}

/// In MiB: the sink's, the largest worker's, the ventilator's.
fn peaks(lab: &Lab, tasks: u64, task_bytes: usize, workers: &[&[&str]]) -> Result<Vec<f64>> {
    let place: Place = lab.place()?;
    let input = Input::write(&place, "tasks", tasks, task_bytes)?;
    let output = place.path("output");
    let ring = tradewind::start_ring(lab, &place, &input.path, &output, workers.iter().copied())?;
    let watch = MemoryWatch::start(&ring);
    finish_all(ring)?;
    let peaks = watch.peaks();
    input.expect_same(&output)?;
    let mib: Vec<f64> = peaks.iter().map(|bytes| *bytes as f64 / f64::from(1 << 20)).collect();
    let [sink, workers @ .., ventilator] = &mib[..] else { unreachable!("three or more") };
    eprintln!("{tasks} tasks of {task_bytes} bytes: {mib:.1?} MiB");
    Ok(vec![*sink, workers.iter().copied().fold(0.0, f64::max), *ventilator])
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

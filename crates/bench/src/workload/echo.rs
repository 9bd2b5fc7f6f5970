//! E: tasks that do nothing. The rest is the cost of the queue.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::input::Input;
use crate::figure::{Bound, Figure, Outcome, Unit};
use crate::lab::{Lab, Place};
use crate::peer::bare::{Bare, Work};
use crate::peer::beanstalkd::{Beanstalkd, Kept};
use crate::peer::celery::Celery;
use crate::peer::dask::Dask;
use crate::peer::tradewind;
use crate::process::finish_all;
use crate::rounds::{Contestant, interleave};

const OURS: &str = "Tradewind, 1 worker";
const OURS_TWO: &str = "Tradewind, 2 workers";
const LIBZMQ: &str = "libzmq in C, 1 worker";
const LIBZMQ_TWO: &str = "libzmq in C, 2 workers";
const CRATE: &str = "zeromq crate, 1 worker";
const BEANSTALKD: &str = "beanstalkd, 1 worker";
const CELERY: &str = "Celery with Redis, 1 worker";
const DASK: &str = "Dask, 1 worker";

const NOTE: &str = "E: from the start of the first of three processes to the end of the last (of a \
    bare pipeline: to the end of its sink). Tradewind has all guarantees on and its ordered output \
    is compared with the input; bare pipelines send one message a task, keep nothing and know no \
    order. beanstalkd is up before its producer, worker and consumer are started; Celery and Dask \
    are timed from the first task sent to the last result received, with a worker that is up. The \
    slower a program is, the fewer tasks it gets. Processor time is that of all processes.";

pub(crate) fn measure(lab: &Lab) -> Result<Outcome> {
    let mut outcome = small(lab)?;
    outcome.merge(large(lab, "1 KiB", 1 << 10, lab.count(500_000, 100_000))?);
    outcome.merge(large(lab, "1 MiB", 1 << 20, lab.count(1000, 300))?);
    outcome.notes.push(NOTE.into());
    Ok(outcome)
}

fn small(lab: &Lab) -> Result<Outcome> {
    let place = lab.place()?;
    let input = Input::write(&place, "tasks", lab.count(4_000_000, 1_000_000), 16)?;
    // The slower a program is, the fewer tasks it gets.
    let fewer = Input::write(&place, "fewer", lab.count(1_000_000, 500_000), 16)?;
    let few = Input::write(&place, "few", lab.count(50_000, 20_000), 16)?;
    let fewest = Input::write(&place, "fewest", lab.count(2000, 1000), 16)?;
    let figures = vec![
        Figure::new('E', "no-op tasks of 16 bytes", Unit::TasksPerSecond),
        Figure::new('E', "no-op tasks of 16 bytes, processor time a task", Unit::Microseconds),
    ];
    let contestants = vec![
        Contestant::new(OURS, || Ok(ours(lab, &input, 1)?.a_task(&input))),
        Contestant::new(OURS_TWO, || Ok(ours(lab, &input, 2)?.a_task(&input))),
        Contestant::with(LIBZMQ, Bare::libzmq(lab), |bare| {
            Ok(theirs(lab, bare, &input, 1)?.a_task(&input))
        }),
        Contestant::with(LIBZMQ_TWO, Bare::libzmq(lab), |bare| {
            Ok(theirs(lab, bare, &input, 2)?.a_task(&input))
        }),
        Contestant::new(CRATE, || Ok(theirs(lab, &Bare::Crate, &fewer, 1)?.a_task(&fewer))),
        Contestant::with(BEANSTALKD, Beanstalkd::find(Kept::InMemory), |peer| {
            brokered(lab, &few, |place, input, output| {
                peer.run(lab, place, input, few.tasks, output, &[Work::Echo])
            })
        }),
        Contestant::with(CELERY, Celery::find(lab), |peer| {
            brokered(lab, &fewest, |place, input, output| peer.echo(lab, place, input, output))
        }),
        Contestant::with(DASK, Dask::find(lab), |peer| {
            brokered(lab, &fewest, |place, input, output| {
                peer.run(lab, place, input, output, &[Work::Echo])
            })
        }),
    ];
    let figures = interleave(lab, figures, contestants);
    let rates = &figures[0];
    let (one, two) = (rates.spread(OURS), rates.ratio(OURS_TWO, OURS));
    let to_libzmq = rates.ratio(OURS, LIBZMQ);
    let mut outcome = Outcome::default();
    outcome.target('E', OURS, Bound::AtLeast(3e6), Unit::TasksPerSecond, one);
    outcome.target('E', "2 workers ÷ 1 worker", Bound::AtLeast(1.0), Unit::Times, two);
    outcome.target('E', "1 worker ÷ libzmq in C", Bound::AtLeast(1.5), Unit::Times, to_libzmq);
    outcome.figures = figures;
    Ok(outcome)
}

fn large(lab: &Lab, size: &str, task_bytes: usize, tasks: u64) -> Result<Outcome> {
    let place = lab.place()?;
    let input = Input::write(&place, "tasks", tasks, task_bytes)?;
    let name = format!("no-op tasks of {size}");
    let figures = vec![Figure::new('E', name, Unit::MegabytesPerSecond)];
    let contestants = vec![
        Contestant::new(OURS, || Ok(ours(lab, &input, 1)?.by_size(&input))),
        Contestant::with(LIBZMQ, Bare::libzmq(lab), |bare| {
            Ok(theirs(lab, bare, &input, 1)?.by_size(&input))
        }),
        Contestant::new(CRATE, || Ok(theirs(lab, &Bare::Crate, &input, 1)?.by_size(&input))),
    ];
    let figures = interleave(lab, figures, contestants);
    let mut outcome = Outcome::default();
    if task_bytes >= 1 << 20 {
        let what = format!("{size}: 1 worker ÷ zeromq crate");
        let ratio = figures[0].ratio(OURS, CRATE);
        outcome.target('E', what, Bound::AtLeast(0.5), Unit::Times, ratio);
    }
    outcome.figures = figures;
    Ok(outcome)
}

/// Costs of a job.
struct Cost {
    time: Duration,
    cpu: Duration,
}

impl Cost {
    fn a_task(&self, input: &Input) -> Vec<f64> {
        let tasks = input.tasks as f64;
        vec![tasks / self.time.as_secs_f64(), self.cpu.as_secs_f64() * 1e6 / tasks]
    }

    fn by_size(&self, input: &Input) -> Vec<f64> {
        vec![input.megabytes() / self.time.as_secs_f64()]
    }
}

fn ours(lab: &Lab, input: &Input, workers: usize) -> Result<Cost> {
    let echo: &[&str] = &["--echo"];
    let workers = std::iter::repeat_n(echo, workers);
    let job = |place: &Place, output: &Path| {
        let ring = tradewind::start_ring(lab, place, &input.path, output, workers)?;
        finish_all(ring)
    };
    timed(lab, job, |output| input.expect_same(output))
}

fn theirs(lab: &Lab, bare: &Bare, input: &Input, workers: usize) -> Result<Cost> {
    let work = vec![Work::Echo; workers];
    let job = |place: &Place, output: &Path| {
        bare.run(lab, place, &input.path, input.tasks, output, &work)
    };
    timed(lab, job, |output| input.expect_as_long(output))
}

/// Returns a rate alone: these measure their own time.
fn brokered(
    lab: &Lab,
    input: &Input,
    job: impl FnOnce(&Place, &Path, &Path) -> Result<Duration>,
) -> Result<Vec<f64>> {
    let place = lab.place()?;
    let output = place.path("output");
    let time = job(&place, &input.path, &output)?;
    input.expect_as_long(&output)?;
    Ok(vec![input.tasks as f64 / time.as_secs_f64()])
}

fn timed(
    lab: &Lab,
    job: impl FnOnce(&Place, &Path) -> Result<Duration>,
    verify: impl FnOnce(&Path) -> Result<()>,
) -> Result<Cost> {
    let place = lab.place()?;
    let output = place.path("output");
    let began = Instant::now();
    let cpu = job(&place, &output)?;
    let time = began.elapsed();
    verify(&output)?;
    Ok(Cost { time, cpu })
}

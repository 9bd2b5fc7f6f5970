//! Growth of cost with the number of tasks, with their size and with the number of workers: it
//! should grow with the first of them alone, and linearly.

use anyhow::Result;

use super::gathered::{Gathered, Job};
use super::input::Input;
use crate::curve::{BYTES, Curves, Point};
use crate::figure::Unit;
use crate::lab::Lab;
use crate::report::number;
use crate::stats::Spread;

/// Largest number of bytes of all tasks together, as their size grows.
const BYTES_MAX: u64 = 512 << 20;
const BYTES_MAX_QUICK: u64 = 128 << 20;

/// Number of tasks from which on a job is measured once: it takes as long as all others together.
const ONCE_TASKS_MIN: u64 = 50_000_000;

/// Measures growth in all three quantities.
pub(crate) fn measure(lab: &Lab) -> Result<Vec<Curves>> {
    Ok(vec![by_tasks(lab)?, by_size(lab)?, by_workers(lab)?])
}

fn by_tasks(lab: &Lab) -> Result<Curves> {
    let mut curves = Curves::new("number of tasks", "tasks");
    let most = lab.count(100_000_000, 10_000_000);
    let counts = std::iter::successors(Some(10_000), |count| Some(count * 10));
    for tasks in counts.take_while(|tasks| *tasks <= most) {
        let rounds = if tasks >= ONCE_TASKS_MIN { 1 } else { lab.rounds };
        curves.points.push(point(lab, tasks as f64, rounds, tasks, 16, 1)?);
    }
    Ok(curves)
}

fn by_size(lab: &Lab) -> Result<Curves> {
    let mut curves = Curves::new("size of a task", BYTES);
    for power in [4, 6, 8, 10, 12, 14, 16, 18, 20] {
        let bytes = 1 << power;
        let bytes_max = lab.count(BYTES_MAX, BYTES_MAX_QUICK);
        let tasks = (bytes_max >> power).min(lab.count(1_000_000, 500_000));
        curves.points.push(point(lab, bytes as f64, lab.rounds, tasks, bytes, 1)?);
    }
    Ok(curves)
}

fn by_workers(lab: &Lab) -> Result<Curves> {
    let mut curves = Curves::new("number of workers", "workers");
    let tasks = lab.count(1_000_000, 200_000);
    for workers in [1, 2, 5, 10, 30, 100, 300, 1000] {
        match point(lab, workers as f64, lab.rounds, tasks, 16, workers) {
            Ok(point) => curves.points.push(point),
            Err(error) => {
                eprintln!("{workers} workers: {error:#}");
                break;
            }
        }
    }
    Ok(curves)
}

fn point(
    lab: &Lab,
    at: f64,
    rounds: usize,
    tasks: u64,
    task_bytes: usize,
    workers: usize,
) -> Result<Point> {
    let place = lab.place()?;
    let input = Input::write(&place, "tasks", tasks, task_bytes)?;
    let jobs: Result<Vec<Job>> =
        (0..rounds).map(|_| Gathered::start(lab, workers)?.work(&input)).collect();
    let jobs = jobs?;
    let rates = jobs.iter().map(|job| tasks as f64 / job.time.as_secs_f64());
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let most = |peaks: &dyn Fn(&Job) -> u64| Spread::of(jobs.iter().map(|job| mib(peaks(job))));
    let point = Point {
        at,
        tasks,
        rate: Spread::of(rates),
        megabytes: task_bytes as f64 * tasks as f64 / 1e6,
        ventilator_mib: most(&|job| job.ventilator_bytes),
        worker_mib: most(&|job| job.worker_bytes),
        sink_mib: most(&|job| job.sink_bytes),
    };
    let rate = point.rate.map(|rate| number(rate.median, Unit::TasksPerSecond));
    let rate = rate.unwrap_or_default();
    eprintln!("{tasks} tasks of {task_bytes} bytes, {workers} workers: {rate}");
    Ok(point)
}

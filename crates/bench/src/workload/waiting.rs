//! W: the start of a server whose queue has many tasks that wait.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};

use super::input::Input;
use crate::figure::{Bound, Figure, Outcome, Unit};
use crate::lab::{Lab, Place};
use crate::peer::beanstalkd::{Beanstalkd, Kept};
use crate::peer::nats::JetStream;
use crate::peer::queue::Queue;
use crate::peer::redis::Lists;
use crate::peer::shell;
use crate::peer::tradewind::Serve;
use crate::rounds::{Contestant, interleave};
use crate::watch::memory_bytes_max;

const OURS: &str = "Tradewind";
const BEANSTALKD: &str = "beanstalkd with a log, 1 M tasks";
const REDIS: &str = "Redis, a list with a log";
const NATS: &str = "NATS JetStream 2.9";

const TASK_BYTES: usize = 100;
const SECONDS_MAX: f64 = 2.0;

const NOTE: &str = "W: tasks of 100 bytes that were submitted to a server that was then ended by SIGTERM; each start is on a \
    copy of its directory, which is in the page cache. The port answers: from the start of the server until it \
    has answered a first request that any client makes (Redis says meanwhile that it loads). First record: until a \
    worker and a reader that are started then have done a task. Memory: VmHWM of the server at that time. \
    beanstalkd has 1 M tasks, since putting more takes it minutes. Redis \
    has a bare list, whose tasks are moved to another one; Celery's messages would be several times as large.";

pub(crate) fn measure(lab: &Lab) -> Result<Outcome> {
    let place = &lab.place()?;
    let input = Input::write(place, "tasks", lab.count(10_000_000, 1_000_000), TASK_BYTES)?;
    // Putting more takes beanstalkd minutes.
    let fewer = Input::write(place, "fewer", 1_000_000, TASK_BYTES)?;
    let millions = input.tasks / 1_000_000;
    let figures = vec![
        Figure::new(
            'W',
            format!("start with {millions} M tasks waiting: port answers"),
            Unit::Seconds,
        ),
        Figure::new(
            'W',
            format!("start with {millions} M tasks waiting: first record"),
            Unit::Seconds,
        ),
        Figure::new(
            'W',
            format!("server with {millions} M tasks waiting: memory"),
            Unit::Mebibytes,
        ),
    ];
    // What is submitted before need not be synced one by one.
    let beanstalkd = Beanstalkd::find(Kept::InLog { sync_ms: 50 });
    let contestants = vec![
        starting(OURS, lab, place, &input, Ok(Serve)),
        starting(BEANSTALKD, lab, place, &fewer, beanstalkd),
        starting(REDIS, lab, place, &input, Lists::find()),
        starting(NATS, lab, place, &input, JetStream::find()),
    ];
    let figures = interleave(lab, figures, contestants);
    let mut outcome = Outcome::default();
    for figure in &figures[..2] {
        let bound = Bound::AtMost(SECONDS_MAX);
        outcome.target('W', figure.name.clone(), bound, Unit::Seconds, figure.spread(OURS));
    }
    outcome.figures = figures;
    outcome.notes.push(NOTE.into());
    Ok(outcome)
}

/// Creates a contestant whose directory is filled in its first round.
fn starting<'a>(
    who: &str,
    lab: &'a Lab,
    place: &'a Place,
    input: &'a Input,
    queue: Result<impl Queue + 'a>,
) -> Contestant<'a> {
    let full = place.path(&who.replace(' ', "-"));
    let mut is_full = false;
    Contestant::with(who, queue, move |queue| {
        if !is_full {
            fill(lab, queue, &full, input).context("cannot submit the tasks")?;
            is_full = true;
        }
        start(lab, queue, &full)
    })
}

fn fill(lab: &Lab, queue: &impl Queue, dir: &Path, input: &Input) -> Result<()> {
    let place = lab.place()?;
    let server = queue.start_empty(lab, &place, dir)?;
    queue.producer(lab, &place, &input.path).start()?.finish()?;
    server.stop()
}

/// Returns the seconds until the port answers and until the first record, and the memory in MiB.
fn start(lab: &Lab, queue: &impl Queue, full: &Path) -> Result<Vec<f64>> {
    let place = lab.place()?;
    let dir = copy(full, &place)?;
    let began = Instant::now();
    let server = queue.start(lab, &place, &dir)?;
    let answers = began.elapsed();
    let _worker = queue.worker(lab, &place).start()?;
    queue.consumer(lab, &place, 1, &place.path("output"))?.start()?.finish()?;
    let first = began.elapsed();
    let bytes = memory_bytes_max(server.pid()).context("the server has gone")?;
    Ok(vec![answers.as_secs_f64(), first.as_secs_f64(), bytes as f64 / f64::from(1 << 20)])
}

/// Copies a directory, and waits until the disk has nothing more to do.
fn copy(from: &Path, place: &Place) -> Result<PathBuf> {
    let to = place.path("queue");
    shell::installed("cp")?.arg("-r").args([from, &to]).start()?.finish()?;
    shell::installed("sync")?.arg("-f").arg(&to).start()?.finish()?;
    Ok(to)
}

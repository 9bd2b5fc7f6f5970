//! B: tasks of a queue that stays open, in batches: the rate at which they are promised, and the rate at which
//! they are done.

use std::time::Instant;

use anyhow::Result;

use super::input::Input;
use crate::figure::{Bound, Figure, Outcome, Unit};
use crate::lab::Lab;
use crate::peer::beanstalkd::{Beanstalkd, Kept};
use crate::peer::celery::Celery;
use crate::peer::nats::JetStream;
use crate::peer::queue::Queue;
use crate::peer::tradewind::Serve;
use crate::rounds::{Contestant, interleave};

const OURS: &str = "Tradewind";
const BEANSTALKD: &str = "beanstalkd, synced log";
const BEANSTALKD_LATER: &str = "beanstalkd, log synced every 50 ms";
const NATS: &str = "NATS JetStream, synced";
const NATS_LATER: &str = "NATS JetStream 2.9, synced every 2 min";
const CELERY: &str = "Celery, synced Redis";

const TASK_BYTES: usize = 100;

const NOTE: &str = "B: tasks of 100 bytes, all programs on this machine. Submits: from the start of the program \
    that submits to its end, when all are promised; no worker is there. End to end: from the start of two \
    programs, one that submits and one that reads all results, until the latter has them; one worker is up. \
    Tradewind: the Rust client, 1,000 tasks a request, four requests at a time; `worker --echo`; records as they \
    come. beanstalkd: 256 requests under way; `-f 0` syncs after each command, `-f 50`, its default, every \
    50 ms, so that what was promised last may be lost. NATS: streams in files without a limit, 4,000 publishes \
    under way, a pull consumer that acknowledges each task when its result was acknowledged, results pushed with \
    flow control; version 2.9, of Debian, syncs every two minutes and cannot do it more often, the newer one has \
    `sync_interval: always`. Celery: a `group` of tasks, then `delay` of each and `join_native`; Redis with \
    `appendfsync always`. The slower a program is, the fewer tasks it gets. Processor time is that of all \
    programs of the run from end to end.";

pub(crate) fn measure(lab: &Lab) -> Result<Outcome> {
    let place = lab.place()?;
    let input = |name, full, quick| Input::write(&place, name, lab.count(full, quick), TASK_BYTES);
    let many = input("many", 1_000_000, 200_000)?;
    let fewer = input("fewer", 100_000, 50_000)?;
    let few = input("few", 5000, 2000)?;
    let fewest = input("fewest", 1000, 500)?;
    let figures = vec![
        Figure::new('B', "durable submits of 100 bytes in batches", Unit::TasksPerSecond),
        Figure::new('B', "echo tasks of 100 bytes, end to end", Unit::TasksPerSecond),
        Figure::new('B', "echo tasks of 100 bytes, processor time a task", Unit::Microseconds),
    ];
    let later = Beanstalkd::find(Kept::InLog { sync_ms: 50 });
    let contestants = vec![
        Contestant::new(OURS, || rates(lab, &Serve, &many)),
        Contestant::with(BEANSTALKD, Beanstalkd::find(Kept::InLog { sync_ms: 0 }), |peer| {
            rates(lab, peer, &few)
        }),
        Contestant::with(BEANSTALKD_LATER, later, |peer| rates(lab, peer, &fewer)),
        Contestant::with(NATS, JetStream::synced(lab), |peer| rates(lab, peer, &few)),
        Contestant::with(NATS_LATER, JetStream::find(), |peer| rates(lab, peer, &fewer)),
        Contestant::with(CELERY, Celery::durable(lab), |peer| {
            let submits = peer.submit(lab, &lab.place()?, &fewest.path)?;
            let place = lab.place()?;
            let output = place.path("output");
            let echo = peer.echo(lab, &place, &fewest.path, &output)?;
            fewest.expect_as_long(&output)?;
            Ok([submits, echo].map(|took| fewest.tasks as f64 / took.as_secs_f64()).to_vec())
        }),
    ];
    let figures = interleave(lab, figures, contestants);
    let mut outcome = Outcome::default();
    let what = "echo tasks, end to end";
    outcome.target('B', what, Bound::AtLeast(1e6), Unit::TasksPerSecond, figures[1].spread(OURS));
    outcome.figures = figures;
    outcome.notes.push(NOTE.into());
    Ok(outcome)
}

/// Returns the rate of submits alone, that from end to end, and the processor time of a task of the latter in
/// microseconds.
fn rates(lab: &Lab, queue: &impl Queue, input: &Input) -> Result<Vec<f64>> {
    let submits = submits(lab, queue, input)?;
    let (rate, cpu) = echo(lab, queue, input)?;
    Ok(vec![submits, rate, cpu])
}

fn submits(lab: &Lab, queue: &impl Queue, input: &Input) -> Result<f64> {
    let place = lab.place()?;
    let _server = queue.start_empty(lab, &place, &place.path("queue"))?;
    let began = Instant::now();
    queue.producer(lab, &place, &input.path).start()?.finish()?;
    Ok(input.tasks as f64 / began.elapsed().as_secs_f64())
}

fn echo(lab: &Lab, queue: &impl Queue, input: &Input) -> Result<(f64, f64)> {
    let place = lab.place()?;
    let server = queue.start_empty(lab, &place, &place.path("queue"))?;
    let worker = queue.worker(lab, &place).start()?;
    queue.wait_for_worker(&place)?;
    let output = place.path("output");
    let began = Instant::now();
    let consumer = queue.consumer(lab, &place, input.tasks, &output)?.start()?;
    let producer = queue.producer(lab, &place, &input.path).start()?;
    let cpu = consumer.finish()?;
    let took = began.elapsed();
    let cpu = cpu + producer.finish()? + server.cpu() + worker.cpu();
    input.expect_as_long(&output)?;
    let tasks = input.tasks as f64;
    Ok((tasks / took.as_secs_f64(), cpu.as_secs_f64() * 1e6 / tasks))
}

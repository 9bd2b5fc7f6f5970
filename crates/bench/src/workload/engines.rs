//! N: queues on engines, beside what the engine's own client does without Tradewind, on the same server.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::figure::{Bound, Figure, Outcome, Series, Unit};
use crate::lab::{Lab, Place};
use crate::peer::engine::{Engine, PlainLoop};
use crate::peer::queue::Queue;
use crate::peer::tradewind::Serve;
use crate::process::{PATIENCE, Program, Running};
use crate::rounds::{Contestant, interleave};
use crate::watch::memory_bytes_max;

const OURS: &str = "Tradewind";
const JETSTREAM: &str = "pull consumer, batches of 100";
const BATCHES: &str = "`skip locked`, `limit 100`";
const SINGLE: &str = "`skip locked`, `limit 1`";

const TASK_BYTES: usize = 100;

/// Workers of the plain client, and slots of ours.
const WORKERS: usize = 4;

/// Interval at which the engine is asked for the number of records.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Time for which a queue with many tasks is watched.
const WATCH: Duration = Duration::from_secs(30);

const NOTE: &str = "N: tasks of 100 bytes that wait in the engine, published or inserted by its own client; one \
    server for each engine, with its defaults (JetStream syncs every two minutes, PostgreSQL each commit), which is \
    cleared between turns. The plain client is written with async-nats and tokio-postgres and has four workers, each \
    with a connection: they fetch 100 messages, publish a result of each, wait for the acks of these and acknowledge the \
    tasks, from a stream with work queue retention; or lock `limit` rows by `for update skip locked`, insert \
    their results, delete them and commit, with prepared statements. Tradewind: `serve` with one partition and `worker --echo \
    --slots 4`; its records are JSON with the task, the output, the worker and times, and each task has at most one. \
    Measured from the start of the programs until all results are there and all tasks are removed: for Tradewind until \
    `serve`, which is asked to end when it has the last record, has ended. Memory: VmHWM of `serve`. With many tasks: from the \
    start of `serve` and the worker to the first record, and the most memory of the first 30 s, in one run.";

pub(crate) fn measure(lab: &Lab) -> Result<Outcome> {
    let place = lab.place()?;
    let mut outcome = Outcome::default();
    let many = lab.count(10_000_000, 1_000_000);
    let mut waiting = [
        Figure::of_ours(
            'N',
            format!("first record with {} M tasks waiting in the engine", many / 1_000_000),
            Unit::Seconds,
        ),
        Figure::of_ours(
            'N',
            format!(
                "most memory of `serve` with {} M tasks waiting in the engine",
                many / 1_000_000
            ),
            Unit::Mebibytes,
        ),
    ];
    let loops = |limit| PlainLoop { workers: WORKERS, limit };
    {
        let engine = Engine::start_jetstream(lab, &place)?;
        let plain = [(JETSTREAM, lab.count(300_000, 60_000), loops(100))];
        race(lab, &engine, "JetStream", lab.count(300_000, 60_000), &plain, &mut outcome);
        wait(lab, &engine, "JetStream", many, &mut waiting);
    }
    {
        let engine = Engine::start_postgres(&place)?;
        let plain = [
            (BATCHES, lab.count(200_000, 40_000), loops(100)),
            (SINGLE, lab.count(10_000, 3_000), loops(1)),
        ];
        race(lab, &engine, "PostgreSQL", lab.count(200_000, 40_000), &plain, &mut outcome);
        wait(lab, &engine, "PostgreSQL", many, &mut waiting);
    }
    outcome.figures.extend(waiting);
    outcome.notes.push(NOTE.into());
    Ok(outcome)
}

fn race(
    lab: &Lab,
    engine: &Engine,
    name: &str,
    ours: u64,
    plain: &[(&str, u64, PlainLoop)],
    outcome: &mut Outcome,
) {
    let figures =
        vec![Figure::new('N', format!("{name}: tasks done and removed"), Unit::TasksPerSecond)];
    let mut contestants = vec![Contestant::new(OURS, || run_ours(lab, engine, ours))];
    for (who, count, plain) in plain {
        contestants.push(Contestant::new(*who, || run_plain(lab, engine, *count, *plain)));
    }
    let figures = interleave(lab, figures, contestants);
    for (who, ..) in plain {
        let what = format!("{name}: throughput ÷ {who}");
        outcome.target('N', what, Bound::AtLeast(1.0), Unit::Times, figures[0].ratio_to(who));
    }
    outcome.figures.extend(figures);
}

fn run_plain(lab: &Lab, engine: &Engine, count: u64, plain: PlainLoop) -> Result<Vec<f64>> {
    engine.clear("plain")?;
    engine.fill_plain(lab, "plain", count, TASK_BYTES)?;
    let began = Instant::now();
    engine.plain_loop(lab, "plain", count, plain).start()?.finish()?;
    let mut counts = engine.plain_counts("plain")?;
    // The server removes what is acknowledged a moment later.
    while counts.1 > 0 && began.elapsed() < PATIENCE {
        thread::sleep(LOOK_INTERVAL);
        counts = engine.plain_counts("plain")?;
    }
    let took = began.elapsed();
    if counts != (count, 0) {
        bail!("there are {} results, and {} tasks are left", counts.0, counts.1);
    }
    engine.clear("plain")?;
    Ok(vec![count as f64 / took.as_secs_f64()])
}

fn run_ours(lab: &Lab, engine: &Engine, count: u64) -> Result<Vec<f64>> {
    let place = filled(lab, engine, count)?;
    let began = Instant::now();
    let [server, worker] = start(lab, &place)?;
    wait_records(engine, &[&server, &worker], count)?;
    server.stop()?;
    let took = began.elapsed();
    let counts = engine.counts(Serve::QUEUE)?;
    if counts != (count, 0) {
        bail!("there are {} records, and {} tasks are left", counts.0, counts.1);
    }
    engine.clear(Serve::QUEUE)?;
    Ok(vec![count as f64 / took.as_secs_f64()])
}

/// Measures a queue with many tasks, once.
fn wait(lab: &Lab, engine: &Engine, who: &str, count: u64, figures: &mut [Figure; 2]) {
    let measured = waiting(lab, engine, count);
    let (values, skipped) = match measured {
        Ok(values) => (values.map(Some), None),
        Err(error) => ([None, None], Some(format!("{error:#}"))),
    };
    eprintln!("{who}, {count} tasks: {values:?} {skipped:?}");
    for (figure, value) in figures.iter_mut().zip(values) {
        figure.series.push(Series {
            who: who.into(),
            values: vec![value],
            skipped: skipped.clone(),
        });
    }
}

/// Returns the seconds until the first record, and the memory in MiB.
fn waiting(lab: &Lab, engine: &Engine, count: u64) -> Result<[f64; 2]> {
    let place = filled(lab, engine, count)?;
    let began = Instant::now();
    let [server, worker] = start(lab, &place)?;
    wait_records(engine, &[&server, &worker], 1)?;
    let first = began.elapsed();
    // Others need the disk and the processor as well: not more than this is looked at.
    while began.elapsed() < WATCH && engine.records(Serve::QUEUE)? < count {
        thread::sleep(LOOK_INTERVAL);
    }
    let records = engine.records(Serve::QUEUE)?;
    eprintln!("{records} records in {:?}", began.elapsed());
    let bytes = memory_bytes_max(server.pid()).context("the server has gone")?;
    drop([server, worker]);
    engine.clear(Serve::QUEUE)?;
    Ok([first.as_secs_f64(), bytes as f64 / f64::from(1 << 20)])
}

/// Returns a place whose queue has this number of tasks.
fn filled(lab: &Lab, engine: &Engine, count: u64) -> Result<Place> {
    engine.clear(Serve::QUEUE)?;
    let place = lab.place()?;
    std::fs::write(place.path("config"), engine.config(Serve::QUEUE))?;
    let server = serve(lab, &place)?.start()?;
    let began = Instant::now();
    while !Serve.answers(&place) {
        if server.wait(LOOK_INTERVAL).is_ok() || began.elapsed() > PATIENCE {
            bail!("the server does not come up: {}", server.said());
        }
    }
    server.stop()?;
    engine.fill_queue(lab, Serve::QUEUE, count, TASK_BYTES)?;
    Ok(place)
}

fn start(lab: &Lab, place: &Place) -> Result<[Running; 2]> {
    let server = serve(lab, place)?.start()?;
    let worker = Serve.worker(lab, place).args(["--slots", &WORKERS.to_string()]).start()?;
    Ok([server, worker])
}

fn serve(lab: &Lab, place: &Place) -> Result<Program> {
    Ok(Serve.server(lab, place, &place.path("queue"))?.arg("--config").arg(place.path("config")))
}

fn wait_records(engine: &Engine, programs: &[&Running], count: u64) -> Result<()> {
    let began = Instant::now();
    while engine.records(Serve::QUEUE)? < count {
        let has_ended = programs.iter().any(|program| program.wait(LOOK_INTERVAL / 2).is_ok());
        if has_ended || began.elapsed() > PATIENCE {
            let said: Vec<_> = programs.iter().map(|program| program.said()).collect();
            bail!("the records do not come: {}", said.concat());
        }
    }
    Ok(())
}

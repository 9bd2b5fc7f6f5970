//! Q: a single task of a queue that stays open, from its submit to its record.

use std::fs::File;
use std::io::{Seek, Write};
use std::time::Instant;

use anyhow::{Result, ensure};
use tradewind_client::blocking::Client;

use super::latency::percentiles;
use crate::figure::{Bound, Figure, Outcome, Unit};
use crate::lab::Lab;
use crate::peer::beanstalkd::{Beanstalkd, Kept};
use crate::peer::celery::Celery;
use crate::peer::queue::Queue;
use crate::peer::tradewind::Serve;
use crate::process::PATIENCE;
use crate::rounds::{Contestant, interleave};
use crate::stats::{Spread, ratios};

const OURS: &str = "Tradewind, HTTP, `Prefer: wait`";
const OURS_CLIENT: &str = "Tradewind, Rust client";
const BEANSTALKD: &str = "beanstalkd, synced log";
const BEANSTALKD_IN_MEMORY: &str = "beanstalkd in memory";
const CELERY: &str = "Celery, synced Redis";
const SYNC: &str = "append and `fdatasync` alone";
const SYNC_ZEROED: &str = "write over zeros and `fdatasync` alone";

const TASK: &[u8] = b"0123456789abcdef";

/// Bytes that are synced alone.
const SYNCED: &[u8] = &[b'x'; 100];

/// Number of first tasks that do not count.
const WARMUP: usize = 50;

/// Factor of beanstalkd's round trip that is the goal.
const TIMES_BEANSTALKD: f64 = 1.5;

const NOTE: &str = "Q: one task after another, of 16 bytes, on one connection, with a worker that echoes it; \
    from the submit until its record is read. The Rust client has two requests for that, `submit` and `result`. beanstalkd (`-b DIR -f 0`) syncs each put and each delete: a \
    client puts a task, a worker reserves it, puts a result into another tube and deletes the task, the \
    client reserves the result; that it deletes it is not in the time. Celery: `task.delay().get()`, one \
    worker process, Redis for broker and results, `appendonly yes`, `appendfsync always`. Below: 100 bytes \
    at the end of a file of the same file system, and `fdatasync`; and over zeros that were written before, as \
    Tradewind's logs do it, which changes nothing of the file but its content.";

pub(crate) fn measure(lab: &Lab) -> Result<Outcome> {
    let count = lab.count(3000, 1000) as usize;
    // The slower one gets fewer tasks.
    let few = lab.count(1000, 300) as usize;
    let figures = vec![
        Figure::new('Q', "single task, submit to record, p50", Unit::Microseconds),
        Figure::new('Q', "single task, submit to record, p99", Unit::Microseconds),
    ];
    let contestants = vec![
        Contestant::new(OURS, || ours(lab, count)),
        Contestant::new(OURS_CLIENT, || client(lab, count)),
        Contestant::with(BEANSTALKD, Beanstalkd::find(Kept::InLog { sync_ms: 0 }), |peer| {
            beanstalkd(lab, peer, count)
        }),
        Contestant::with(BEANSTALKD_IN_MEMORY, Beanstalkd::find(Kept::InMemory), |peer| {
            beanstalkd(lab, peer, count)
        }),
        Contestant::with(CELERY, Celery::durable(lab), |peer| {
            let took = peer.roundtrips(lab, &lab.place()?, few)?;
            let us: Vec<f64> = took.iter().map(|took| took.as_secs_f64() * 1e6).collect();
            percentiles(&us)
        }),
        Contestant::new(SYNC, || sync(lab, count, 0)),
        Contestant::new(SYNC_ZEROED, || sync(lab, count, (WARMUP + count) * SYNCED.len())),
    ];
    let figures = interleave(lab, figures, contestants);
    let mut outcome = Outcome::default();
    for (figure, percentile) in figures.iter().zip(["p50", "p99"]) {
        for theirs in [BEANSTALKD, BEANSTALKD_IN_MEMORY] {
            let what = format!("{percentile} ÷ ({TIMES_BEANSTALKD} × {theirs} + `fdatasync`)");
            let goal: Vec<Option<f64>> = figure
                .values(theirs)
                .iter()
                .zip(figure.values(SYNC))
                .map(|(theirs, sync)| Some(TIMES_BEANSTALKD * (*theirs)? + (*sync)?))
                .collect();
            let ratio = Spread::of(ratios(figure.values(OURS), &goal));
            outcome.target('Q', what, Bound::AtMost(1.0), Unit::Times, ratio);
        }
    }
    outcome.figures = figures;
    outcome.notes.push(NOTE.into());
    Ok(outcome)
}

fn ours(lab: &Lab, count: usize) -> Result<Vec<f64>> {
    let (place, queue) = (lab.place()?, Serve);
    let _server = queue.start_empty(lab, &place, &place.path("queues"))?;
    let _worker = queue.worker(lab, &place).start()?;
    queue.wait_for_worker(&place)?;
    let mut http = Serve::http(&place)?;
    roundtrips(count, || {
        let began = Instant::now();
        let record = Serve::ask(&mut http, TASK)?;
        let took = began.elapsed().as_secs_f64();
        let record: serde_json::Value = serde_json::from_slice(&record)?;
        ensure!(record["output"].as_str().map(str::as_bytes) == Some(TASK), "got {record}");
        Ok(took)
    })
}

fn client(lab: &Lab, count: usize) -> Result<Vec<f64>> {
    let (place, queue) = (lab.place()?, Serve);
    let _server = queue.start_empty(lab, &place, &place.path("queues"))?;
    let _worker = queue.worker(lab, &place).start()?;
    queue.wait_for_worker(&place)?;
    let client = Client::connect(&Serve::url(&place))?;
    roundtrips(count, || {
        let began = Instant::now();
        let submitted = client.submit(Serve::QUEUE, TASK)?;
        let record = client.result(&submitted.id, PATIENCE)?;
        let took = began.elapsed().as_secs_f64();
        let output = record.and_then(|record| record.output());
        ensure!(output.as_deref() == Some(TASK), "got {output:?}");
        Ok(took)
    })
}

fn beanstalkd(lab: &Lab, peer: &Beanstalkd, count: usize) -> Result<Vec<f64>> {
    let place = lab.place()?;
    let _broker = peer.start_empty(lab, &place, &place.path("log"))?;
    let _worker = peer.worker(lab, &place).arg("--single").start()?;
    let mut client = peer.client(&place)?;
    roundtrips(count, || {
        let began = Instant::now();
        let results = client.put_and_reserve(TASK)?;
        let took = began.elapsed().as_secs_f64();
        ensure!(results.len() == 1 && results[0].body == TASK, "got another result");
        client.delete(&results)?;
        Ok(took)
    })
}

/// Measures writes at the end of a file, or over that many zeros.
fn sync(lab: &Lab, count: usize, zeros: usize) -> Result<Vec<f64>> {
    let place = lab.place()?;
    let mut file = File::create(place.path("file"))?;
    file.write_all(&vec![0; zeros])?;
    file.sync_all()?;
    file.rewind()?;
    roundtrips(count, || {
        let began = Instant::now();
        file.write_all(SYNCED)?;
        file.sync_data()?;
        Ok(began.elapsed().as_secs_f64())
    })
}

/// Returns p50 and p99 of the seconds of each, in microseconds.
fn roundtrips(count: usize, mut once: impl FnMut() -> Result<f64>) -> Result<Vec<f64>> {
    let took: Result<Vec<f64>> = (0..WARMUP + count).map(|_| Ok(once()? * 1e6)).collect();
    percentiles(&took?[WARMUP..])
}

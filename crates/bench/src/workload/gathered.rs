//! Ring that is up and that all workers have joined: the rest of the time is work alone.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::input::Input;
use crate::lab::{Lab, Place};
use crate::peer::tradewind;
use crate::process::{Running, finish_all};
use crate::watch::MemoryWatch;

/// Number of workers whose memory is watched: watching is work too.
const WATCHED_WORKERS_MAX: usize = 4;

#[derive(Debug)]
pub(super) struct Gathered {
    /// Time from the start of the first worker until the ventilator and the sink have logged that
    /// all are there.
    pub(super) joining: Duration,
    place: Place,
    sink: Running,
    ventilator: Running,
    workers: Vec<Running>,
}

/// Costs of a job.
#[derive(Debug)]
pub(super) struct Job {
    /// Time from the first byte of the input to the end of the ventilator and the sink.
    pub(super) time: Duration,
    /// Largest memory of each program; of the workers, that of the largest that was watched.
    pub(super) sink_bytes: u64,
    pub(super) ventilator_bytes: u64,
    pub(super) worker_bytes: u64,
}

impl Gathered {
    /// Starts workers that echo, each a process.
    pub(super) fn start(lab: &Lab, count: usize) -> Result<Self> {
        let place = lab.place()?;
        let sink = tradewind::sink(lab, &place, output(&place))
            .args(["--no-progress", "--log", "tradewind_node=debug"])
            .start()?;
        let ventilator = tradewind::ventilator(lab, &place, "-")
            .args(["--no-progress", "--log", "tradewind_node=debug"])
            .stdin(Stdio::piped())
            .start()?;
        sink.wait_until_said("role=Ventilator", 1)?;
        let began = Instant::now();
        let echo = || tradewind::worker(lab, &place).arg("--echo").silent().start();
        let workers: Vec<Running> = (0..count).map(|_| echo()).collect::<Result<_>>()?;
        ventilator.wait_until_said("worker joins", count)?;
        sink.wait_until_said("role=Worker", count)?;
        Ok(Self { joining: began.elapsed(), place, sink, ventilator, workers })
    }

    /// Runs a job, and checks that the output is the input.
    pub(super) fn work(self, input: &Input) -> Result<Job> {
        let Self { place, sink, mut ventilator, workers, .. } = self;
        let mut to = ventilator.take_stdin()?;
        let mut tasks = File::open(&input.path)?;
        let watched = [&sink, &ventilator].into_iter().chain(&workers);
        let watch = MemoryWatch::start(watched.take(2 + WATCHED_WORKERS_MAX));
        let began = Instant::now();
        // It ends with the pipe.
        thread::spawn(move || std::io::copy(&mut tasks, &mut to));
        finish_all(vec![sink, ventilator])?;
        let time = began.elapsed();
        input.expect_same(&output(&place))?;
        let peaks = watch.peaks();
        let [sink_bytes, ventilator_bytes, workers @ ..] = &peaks[..] else {
            bail!("the memory was not watched");
        };
        let worker_bytes = workers.iter().copied().max().unwrap_or(0);
        let (sink_bytes, ventilator_bytes) = (*sink_bytes, *ventilator_bytes);
        Ok(Job { time, sink_bytes, ventilator_bytes, worker_bytes })
    }
}

fn output(place: &Place) -> PathBuf {
    place.path("output")
}

//! Bare ZeroMQ pipelines, as in the ZeroMQ guide: in C on libzmq (`peers/pipeline.c`) and in Rust
//! on the `zeromq` crate (`role/pipeline.rs`). Both take the same arguments.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::{Lab, Place};
use crate::process::{Program, Running};

const TASKS_PORT: u16 = 5557;
const RESULTS_PORT: u16 = 5558;

/// One of the two pipelines.
#[derive(Debug, Clone)]
pub(crate) enum Bare {
    Libzmq(PathBuf),
    Crate,
}

impl Bare {
    pub(crate) fn libzmq(lab: &Lab) -> Result<Self> {
        let program = lab.peers.pipeline.clone().context("there is no libzmq to compile with")?;
        Ok(Self::Libzmq(program))
    }

    pub(crate) fn ventilator(
        &self,
        lab: &Lab,
        place: &Place,
        input: impl AsRef<Path>,
        workers: usize,
    ) -> Program {
        self.role(lab, "ventilator")
            .arg(place.endpoint(TASKS_PORT))
            .arg(input.as_ref())
            .arg(workers.to_string())
    }

    /// Returns a worker, which does not know when all is over.
    pub(crate) fn worker(&self, lab: &Lab, place: &Place, work: Work) -> Program {
        let worker = self
            .role(lab, "worker")
            .args([place.endpoint(TASKS_PORT), place.endpoint(RESULTS_PORT)]);
        match work {
            Work::Echo => worker,
            Work::Sleep { slower } => worker.arg(slower.to_string()),
        }
    }

    /// Returns a sink, which ends after this number of results, or never if it is 0.
    pub(crate) fn sink(
        &self,
        lab: &Lab,
        place: &Place,
        count: u64,
        output: impl AsRef<Path>,
    ) -> Program {
        self.role(lab, "sink")
            .arg(place.endpoint(RESULTS_PORT))
            .arg(count.to_string())
            .arg(output.as_ref())
    }

    /// Runs a ventilator and sink in one, which sends one task at a time, and a worker.
    pub(crate) fn roundtrips(&self, lab: &Lab, place: &Place, count: usize) -> Result<String> {
        let _worker = self.worker(lab, place, Work::Echo).start()?;
        self.role(lab, "roundtrip")
            .args([place.endpoint(TASKS_PORT), place.endpoint(RESULTS_PORT), count.to_string()])
            .output()
    }

    /// Runs a job from the start to the end of the sink, which has everything by then. Returns the
    /// processor time of all.
    pub(crate) fn run(
        &self,
        lab: &Lab,
        place: &Place,
        input: &Path,
        count: u64,
        output: &Path,
        workers: &[Work],
    ) -> Result<Duration> {
        let sink = self.sink(lab, place, count, output).start()?;
        let mut others = vec![self.ventilator(lab, place, input, workers.len()).start()?];
        for work in workers {
            others.push(self.worker(lab, place, *work).start()?);
        }
        let cpu = sink.finish()?;
        Ok(others.iter().map(Running::cpu).sum::<Duration>() + cpu)
    }

    fn role(&self, lab: &Lab, role: &str) -> Program {
        match self {
            Self::Libzmq(program) => Program::new(program).arg(role),
            Self::Crate => lab.ours("bench").args(["role", role]),
        }
    }
}

/// Work of a worker on a task.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work {
    Echo,
    /// Sleeps the seconds in the task times this factor.
    Sleep {
        slower: f64,
    },
}

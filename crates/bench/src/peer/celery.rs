//! Celery with Redis: a worker, and a job that sends tasks and collects results.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{python, redis, shell};
use crate::lab::{Lab, Place};
use crate::process::{Program, Running};

/// Celery and Redis, both installed.
#[derive(Debug)]
pub(crate) struct Celery {
    /// Whether Redis has a log, synced after each write.
    has_log: bool,
}

impl Celery {
    /// Returns one whose Redis keeps nothing on the disk.
    pub(crate) fn find(lab: &Lab) -> Result<Self> {
        Self::with(lab, false)
    }

    /// Returns one whose Redis has written to the disk what it has taken.
    pub(crate) fn durable(lab: &Lab) -> Result<Self> {
        Self::with(lab, true)
    }

    fn with(lab: &Lab, has_log: bool) -> Result<Self> {
        shell::installed("redis-server")?;
        python::interpreter(lab)?;
        Ok(Self { has_log })
    }

    /// Measures from the first task sent to the last result received, with a worker that is up.
    pub(crate) fn echo(
        &self,
        lab: &Lab,
        place: &Place,
        input: &Path,
        output: &Path,
    ) -> Result<Duration> {
        let _redis = self.start_redis(place)?;
        let _worker = self.start_worker(lab, place)?;
        python::seconds(&self.job(lab, place, "echo")?.arg(input).arg(output).output()?)
    }

    /// Measures the sending of tasks alone, with no worker there.
    pub(crate) fn submit(&self, lab: &Lab, place: &Place, input: &Path) -> Result<Duration> {
        let _redis = self.start_redis(place)?;
        python::seconds(&self.job(lab, place, "submit")?.arg(input).output()?)
    }

    /// Measures single tasks, each sent when the result of the one before is there.
    pub(crate) fn roundtrips(
        &self,
        lab: &Lab,
        place: &Place,
        count: usize,
    ) -> Result<Vec<Duration>> {
        let _redis = self.start_redis(place)?;
        let _worker = self.start_worker(lab, place)?;
        let printed = self.job(lab, place, "roundtrips")?.arg(count.to_string()).output()?;
        let took = printed.lines().map(python::seconds).collect::<Result<Vec<_>>>()?;
        ensure!(took.len() == count, "it measured {} instead of {count}", took.len());
        Ok(took)
    }

    fn start_redis(&self, place: &Place) -> Result<Running> {
        python::script(place, "celery_job.py", include_str!("../../peers/celery_job.py"))?;
        redis::server(place, place.dir(), self.has_log)?.start()
    }

    fn start_worker(&self, lab: &Lab, place: &Place) -> Result<Running> {
        self.python(lab, place)?
            .args(["-m", "celery", "-A", "celery_job", "worker", "-c", "1", "-l", "error"])
            .args(["--without-gossip", "--without-mingle", "--without-heartbeat"])
            .start()
    }

    fn job(&self, lab: &Lab, place: &Place, what: &str) -> Result<Program> {
        Ok(self.python(lab, place)?.args(["celery_job.py", what]))
    }

    fn python(&self, lab: &Lab, place: &Place) -> Result<Program> {
        let broker = format!("redis://{}/0", redis::address(place));
        Ok(python::interpreter(lab)?.dir(place.dir()).env("BROKER", broker))
    }
}

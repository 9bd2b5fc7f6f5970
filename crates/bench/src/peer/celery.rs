//! Celery with Redis: a worker of one process, and a job that sends tasks and collects results.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::{python, shell};
use crate::lab::{Lab, Place};
use crate::process::Program;

const REDIS_PORT: u16 = 6379;

/// Celery and Redis, both installed.
#[derive(Debug)]
pub(crate) struct Celery;

impl Celery {
    pub(crate) fn find(lab: &Lab) -> Result<Self> {
        shell::installed("redis-server")?;
        python::interpreter(lab)?;
        Ok(Self)
    }

    /// Measures from the first task sent to the last result received, with a worker that is up.
    pub(crate) fn echo(
        &self,
        lab: &Lab,
        place: &Place,
        input: &Path,
        output: &Path,
    ) -> Result<Duration> {
        python::script(place, "celery_job.py", include_str!("../../peers/celery_job.py"))?;
        let redis = place.address(REDIS_PORT);
        let _redis = shell::installed("redis-server")?
            .args(["--bind", &redis.ip().to_string(), "--port", &redis.port().to_string()])
            // Keeps nothing on disk.
            .args(["--save", "", "--appendonly", "no"])
            .dir(place.dir())
            .start()?;
        let python = || -> Result<Program> {
            let broker = format!("redis://{redis}/0");
            Ok(python::interpreter(lab)?.dir(place.dir()).env("BROKER", broker))
        };
        let _worker = python()?
            .args(["-m", "celery", "-A", "celery_job", "worker", "-c", "1", "-l", "error"])
            .args(["--without-gossip", "--without-mingle", "--without-heartbeat"])
            .start()?;
        let job = python()?.arg("celery_job.py").arg(input).arg(output);
        python::seconds(&job.output()?)
    }
}

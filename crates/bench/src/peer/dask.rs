//! Dask's distributed scheduler, with a cluster of its own on this machine.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::bare::Work;
use super::python;
use crate::lab::{Lab, Place};

/// Dask, installed.
#[derive(Debug)]
pub(crate) struct Dask;

impl Dask {
    pub(crate) fn find(lab: &Lab) -> Result<Self> {
        python::interpreter(lab)?;
        Ok(Self)
    }

    /// Measures from the first task sent to the last result received, with workers that are up.
    pub(crate) fn run(
        &self,
        lab: &Lab,
        place: &Place,
        input: &Path,
        output: &Path,
        workers: &[Work],
    ) -> Result<Duration> {
        let script = python::script(place, "dask_job.py", include_str!("../../peers/dask_job.py"))?;
        let factors = workers.iter().map(|work| match work {
            Work::Echo => "1".to_owned(),
            Work::Sleep { slower } => slower.to_string(),
        });
        let sleeps = workers.iter().any(|work| matches!(work, Work::Sleep { .. }));
        let job = python::interpreter(lab)?
            .dir(place.dir())
            .arg(script)
            .args([input, output])
            .arg(place.address(0).ip().to_string())
            .arg(if sleeps { "sleep" } else { "echo" })
            .args(factors);
        python::seconds(&job.output()?)
    }
}

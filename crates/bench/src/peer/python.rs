//! Peers in Python, which measure their own time: starting an interpreter would be most of it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::{Lab, Place};
use crate::process::Program;

/// Returns the interpreter that has the packages, or the reason why there is none.
pub(super) fn interpreter(lab: &Lab) -> Result<Program> {
    Ok(Program::new(lab.peers.python.as_ref().context("its Python packages cannot be installed")?))
}

/// Writes a script to the place of a run.
pub(super) fn script(place: &Place, name: &str, content: &str) -> Result<PathBuf> {
    let path = place.path(name);
    fs::write(&path, content).context("cannot write a script")?;
    Ok(path)
}

/// Returns the seconds that a script has printed.
pub(super) fn seconds(printed: &str) -> Result<Duration> {
    let seconds = printed.trim().parse().with_context(|| format!("it printed {printed:?}"))?;
    Ok(Duration::from_secs_f64(seconds))
}

//! What a shell has at hand: xargs and GNU parallel.

use anyhow::{Result, bail};

use crate::process::Program;

/// A command for each line of stdin, so many at a time.
pub(crate) fn xargs(jobs: usize, command: &str) -> Result<Program> {
    let program = installed("xargs")?;
    Ok(program.args(["-P", &jobs.to_string(), "-n", "1", command]))
}

pub(crate) fn parallel(jobs: usize, command: &str) -> Result<Program> {
    let program = installed("parallel")?;
    // Without a word about citations, which it would wait with.
    Ok(program.args(["--will-cite", "-j", &jobs.to_string(), command]))
}

/// A program that is in the path, or why it is not measured.
pub(crate) fn installed(name: &str) -> Result<Program> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|dir| dir.join(name).exists()) {
        bail!("{name} is not installed");
    }
    Ok(Program::new(name))
}

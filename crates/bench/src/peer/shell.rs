//! Tools of a shell: xargs and GNU parallel.

use anyhow::{Result, bail};

use crate::process::Program;

/// Returns `xargs` with a command for each line of stdin, at most `jobs` at a time.
pub(crate) fn xargs(jobs: usize, command: &str) -> Result<Program> {
    let program = installed("xargs")?;
    Ok(program.args(["-P", &jobs.to_string(), "-n", "1", command]))
}

pub(crate) fn parallel(jobs: usize, command: &str) -> Result<Program> {
    let program = installed("parallel")?;
    // Without the notice about citations, for which it would wait.
    Ok(program.args(["--will-cite", "-j", &jobs.to_string(), command]))
}

/// Returns a program in the path, or the reason why it is not measured.
pub(crate) fn installed(name: &str) -> Result<Program> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|dir| dir.join(name).exists()) {
        bail!("{name} is not installed");
    }
    Ok(Program::new(name))
}

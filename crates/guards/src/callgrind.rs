//! Runs of this program under valgrind's callgrind.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Costs of one run.
pub(crate) struct Profile {
    pub(crate) instructions: u64,
    /// Calls of the C library's allocating functions. The programs have an allocator of their own,
    /// and this one has not: the number of allocations of a loop is the same.
    pub(crate) allocations: u64,
}

const ALLOCATING: [&str; 4] = ["malloc", "calloc", "realloc", "posix_memalign"];

/// Runs a loop over this number of tasks.
pub(crate) fn profile(name: &str, tasks: u64) -> Result<Profile> {
    let file = tempfile::NamedTempFile::new().context("no place for the profile")?;
    let mut out_file = std::ffi::OsString::from("--callgrind-out-file=");
    out_file.push(file.path());
    let output = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind", "--compress-strings=no"])
        .arg(out_file)
        .arg(std::env::current_exe()?)
        .args(["--run", name, "--tasks", &tasks.to_string()])
        .stdin(Stdio::null())
        .output()
        .context("cannot start valgrind")?;
    ensure!(
        output.status.success(),
        "{name} failed under valgrind: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let text = fs::read_to_string(file.path()).context("cannot read the profile")?;
    parse(&text).with_context(|| format!("the profile of {name}"))
}

/// Reads callgrind's own format: `cfn=` names the function that the `calls=` after it are to.
fn parse(profile: &str) -> Result<Profile> {
    let (mut callee, mut allocations) = ("", 0);
    for line in profile.lines() {
        match line.split_once('=').or_else(|| line.split_once(": ")) {
            Some(("cfn", name)) => callee = name,
            Some(("calls", rest)) if ALLOCATING.contains(&callee) => {
                let count = rest.split(' ').next().unwrap_or_default();
                allocations += count.parse::<u64>().context("no number of calls")?;
            }
            Some(("totals", total)) => {
                let instructions = total.parse().context("no number of instructions")?;
                return Ok(Profile { instructions, allocations });
            }
            _ => {}
        }
    }
    bail!("there is no total");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_allocating_functions_are_allocations() {
        let profile = "fn=main\n1 20\n\
            cfn=malloc\ncalls=3 0\n1 60\n\
            cfn=free\ncalls=4 0\n1 40\n\
            fn=grow\n1 5\n\
            cfn=realloc\ncalls=2 0\n1 10\n\n\
            totals: 135\n";
        let Profile { instructions, allocations } = parse(profile).unwrap();
        assert_eq!((instructions, allocations), (135, 5));
        assert!(parse("fn=main\n1 20\n").is_err(), "it was cut short");
    }
}

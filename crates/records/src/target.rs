//! Where output goes, as the user named it.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where bytes go: `-` means standard output (a file of that name is `./-`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OutputTarget {
    /// Standard output.
    #[default]
    Stdout,
    /// A file, or anything else with a path.
    File(PathBuf),
}

/// What the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The records themselves.
    Output,
    /// A line about each, for GNU parallel's readers.
    Joblog,
    /// What is in the two, for a sink that goes on with them.
    Journal,
    /// A directory for each task.
    Results,
    /// Records that wait for an earlier one.
    Spool,
}

/// What errors are about: displayed as `output "x"` or `standard output`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// What is written there.
    pub role: Role,
    /// Where that is.
    pub target: OutputTarget,
}

impl OutputTarget {
    /// As it is written on a command line.
    #[must_use]
    pub fn as_os_str(&self) -> &OsStr {
        match self {
            Self::Stdout => OsStr::new("-"),
            Self::File(path) => path.as_os_str(),
        }
    }
}

impl From<OsString> for OutputTarget {
    fn from(given: OsString) -> Self {
        if given == "-" { Self::Stdout } else { Self::File(given.into()) }
    }
}

impl FromStr for OutputTarget {
    type Err = Infallible;

    fn from_str(given: &str) -> Result<Self, Infallible> {
        Ok(OsString::from(given).into())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Output => "output",
            Self::Joblog => "joblog",
            Self::Journal => "journal",
            Self::Results => "results",
            Self::Spool => "spool",
        })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            OutputTarget::Stdout => f.write_str("standard output"),
            OutputTarget::File(path) => write!(f, "{} {path:?}", self.role),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dash_is_standard_output() {
        let check = |given: &str, wanted: OutputTarget, text: &str| {
            let target: OutputTarget = given.parse().unwrap();
            assert_eq!(target, wanted);
            assert_eq!(Destination { role: Role::Joblog, target }.to_string(), text);
        };
        check("-", OutputTarget::Stdout, "standard output");
        check("./-", OutputTarget::File("./-".into()), "joblog \"./-\"");
        check("log", OutputTarget::File("log".into()), "joblog \"log\"");
    }
}

//! Destinations of output, as the user named them.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Place that bytes go to: `-` means standard output (a file of that name is `./-`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OutputTarget {
    /// Standard output.
    #[default]
    Stdout,
    /// A file, or anything else with a path.
    File(PathBuf),
}

/// Contents of a file that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Records.
    Output,
    /// A line about each record, for GNU parallel's readers.
    Joblog,
    /// Entries about the records in the other two, for resuming.
    Journal,
    /// A directory for each task.
    Results,
    /// Records that wait for an earlier one.
    Spool,
}

/// Place and contents of a file that is written: displayed as `output "x"` or `standard output`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Contents.
    pub role: Role,
    /// Place.
    pub target: OutputTarget,
}

impl OutputTarget {
    /// Returns the word on a command line.
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

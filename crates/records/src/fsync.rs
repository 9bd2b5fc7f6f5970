//! Records that a crash of the machine may take away.

/// Time at which written records are made to survive a crash of the machine.
///
/// A crash of the sink alone never takes a stored record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Fsync {
    /// At the end; until then the system writes at a time of its own.
    #[default]
    None,
    /// Before any record counts as stored, many records at a time.
    Batch,
    /// Before any record counts as stored, each record by itself.
    Record,
}

impl Fsync {
    /// Returns the word on a command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Batch => "batch",
            Self::Record => "record",
        }
    }
}

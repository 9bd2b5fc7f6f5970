//! What a crash of the machine may take away.

/// When what was written is made to survive a crash of the machine.
///
/// A crash of the sink alone never takes anything that was called stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Fsync {
    /// At the end; until then the system writes when it likes.
    #[default]
    None,
    /// Before any record is called stored, many at a time.
    Batch,
    /// The same, each record by itself.
    Record,
}

impl Fsync {
    /// As it is written on a command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Batch => "batch",
            Self::Record => "record",
        }
    }
}

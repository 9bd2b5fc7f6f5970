//! What was measured.

use serde::Serialize;

use crate::stats::{Spread, ratios};

/// A number that was measured of several programs.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    /// The workload's letter.
    pub(crate) workload: char,
    pub(crate) name: String,
    pub(crate) unit: Unit,
    /// Whether the first is ours and the others are compared with it.
    pub(crate) is_race: bool,
    pub(crate) series: Vec<Series>,
}

/// What it was of one program.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Series {
    pub(crate) who: String,
    /// One for each round; `None` if there was none to be had.
    pub(crate) values: Vec<Option<f64>>,
    /// Why there are none.
    pub(crate) skipped: Option<String>,
}

/// What the values count. Also says which ones are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Unit {
    #[serde(rename = "tasks/s")]
    TasksPerSecond,
    #[serde(rename = "MB/s")]
    MegabytesPerSecond,
    #[serde(rename = "us")]
    Microseconds,
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "s")]
    Seconds,
    #[serde(rename = "MiB")]
    Mebibytes,
    #[serde(rename = "% of a core")]
    PercentOfCore,
    /// A time divided by the least possible, or one rate by another.
    #[serde(rename = "x")]
    Times,
}

/// What a figure is to be.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Target {
    pub(crate) workload: char,
    pub(crate) what: String,
    pub(crate) bound: Bound,
    pub(crate) unit: Unit,
    /// What it is; `None` if it could not be measured.
    pub(crate) figure: Option<Spread>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// What came of a workload.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Outcome {
    pub(crate) figures: Vec<Figure>,
    pub(crate) targets: Vec<Target>,
    /// How it was measured, for readers.
    pub(crate) notes: Vec<String>,
}

impl Figure {
    /// Ours beside others.
    pub(crate) fn new(workload: char, name: impl Into<String>, unit: Unit) -> Self {
        Self { workload, name: name.into(), unit, is_race: true, series: Vec::new() }
    }

    /// Several things of ours.
    pub(crate) fn of_ours(workload: char, name: impl Into<String>, unit: Unit) -> Self {
        Self { is_race: false, ..Self::new(workload, name, unit) }
    }

    /// What it was of a program.
    pub(crate) fn spread(&self, who: &str) -> Option<Spread> {
        self.find(who)?.spread()
    }

    /// What it was of the first program, divided by another's in the same round.
    pub(crate) fn ratio_to(&self, who: &str) -> Option<Spread> {
        self.ratio(&self.series.first()?.who, who)
    }

    /// What it was of one program, divided by another's in the same round.
    pub(crate) fn ratio(&self, ours: &str, theirs: &str) -> Option<Spread> {
        Spread::of(ratios(&self.find(ours)?.values, &self.find(theirs)?.values))
    }

    fn find(&self, who: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.who == who)
    }
}

impl Series {
    /// Measured once.
    #[cfg(test)]
    pub(crate) fn once(who: &str, value: f64) -> Self {
        Self { who: who.to_owned(), values: vec![Some(value)], skipped: None }
    }

    pub(crate) fn spread(&self) -> Option<Spread> {
        Spread::of(self.values.iter().flatten().copied())
    }
}

impl Unit {
    pub(crate) fn is_better_high(self) -> bool {
        matches!(self, Self::TasksPerSecond | Self::MegabytesPerSecond)
    }

    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Self::TasksPerSecond => "tasks/s",
            Self::MegabytesPerSecond => "MB/s",
            Self::Microseconds => "µs",
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
            Self::Mebibytes => "MiB",
            Self::PercentOfCore => "% of a core",
            Self::Times => "×",
        }
    }
}

impl Target {
    /// `None` if it could not be measured.
    pub(crate) fn is_met(&self) -> Option<bool> {
        let figure = self.figure?.median;
        Some(match self.bound {
            Bound::AtLeast(bound) => figure >= bound,
            Bound::AtMost(bound) => figure <= bound,
        })
    }
}

impl Outcome {
    pub(crate) fn merge(&mut self, other: Self) {
        self.figures.extend(other.figures);
        self.targets.extend(other.targets);
        self.notes.extend(other.notes);
    }

    pub(crate) fn target(
        &mut self,
        workload: char,
        what: impl Into<String>,
        bound: Bound,
        unit: Unit,
        figure: Option<Spread>,
    ) {
        self.targets.push(Target { workload, what: what.into(), bound, unit, figure });
    }
}

//! Figures: results of measurements.

use serde::Serialize;

use crate::stats::{Spread, ratios};

/// Number that was measured of several programs.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    /// Letter of the workload.
    pub(crate) workload: char,
    pub(crate) name: String,
    pub(crate) unit: Unit,
    /// Whether the first is ours and the others are compared with it.
    pub(crate) is_race: bool,
    pub(crate) series: Vec<Series>,
}

/// Values of one program.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Series {
    pub(crate) who: String,
    /// Value of each round; `None` if it could not be measured.
    pub(crate) values: Vec<Option<f64>>,
    /// Reason why there are none.
    pub(crate) skipped: Option<String>,
}

/// Unit of the values. Says also which ones are better.
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
    /// Ratio of a time to the least possible, or of one rate to another.
    #[serde(rename = "x")]
    Times,
}

/// Bound that a figure should keep.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Target {
    pub(crate) workload: char,
    pub(crate) what: String,
    pub(crate) bound: Bound,
    pub(crate) unit: Unit,
    /// Figure; `None` if it could not be measured.
    pub(crate) figure: Option<Spread>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// Figures of a workload.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Outcome {
    pub(crate) figures: Vec<Figure>,
    pub(crate) targets: Vec<Target>,
    /// Notes for readers on how it was measured.
    pub(crate) notes: Vec<String>,
}

impl Figure {
    /// Creates a figure of ours beside others.
    pub(crate) fn new(workload: char, name: impl Into<String>, unit: Unit) -> Self {
        Self { workload, name: name.into(), unit, is_race: true, series: Vec::new() }
    }

    /// Creates a figure of several things of ours.
    pub(crate) fn of_ours(workload: char, name: impl Into<String>, unit: Unit) -> Self {
        Self { is_race: false, ..Self::new(workload, name, unit) }
    }

    /// Returns the spread of a program's values.
    pub(crate) fn spread(&self, who: &str) -> Option<Spread> {
        self.find(who)?.spread()
    }

    /// Returns the ratio of the first program to another in the same round.
    pub(crate) fn ratio_to(&self, who: &str) -> Option<Spread> {
        self.ratio(&self.series.first()?.who, who)
    }

    /// Returns the ratio of one program to another in the same round.
    pub(crate) fn ratio(&self, ours: &str, theirs: &str) -> Option<Spread> {
        Spread::of(ratios(&self.find(ours)?.values, &self.find(theirs)?.values))
    }

    /// Returns the values of a program, one a round.
    pub(crate) fn values(&self, who: &str) -> &[Option<f64>] {
        self.find(who).map_or(&[], |series| &series.values)
    }

    fn find(&self, who: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.who == who)
    }
}

impl Series {
    /// Creates the values of a single round.
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
    /// Returns whether the bound is kept; `None` if the figure could not be measured.
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

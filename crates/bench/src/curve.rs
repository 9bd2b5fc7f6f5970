//! What was measured of growing work.

use serde::Serialize;

use crate::stats::Spread;

/// The unit of sizes.
pub(crate) const BYTES: &str = "bytes";

/// Points along one thing that grows.
#[derive(Debug, Serialize)]
pub(crate) struct Curves {
    /// What grows.
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) points: Vec<Point>,
}

/// What was measured at one place of it.
#[derive(Debug, Serialize)]
pub(crate) struct Point {
    pub(crate) at: f64,
    pub(crate) tasks: u64,
    /// All tasks together, without newlines.
    pub(crate) megabytes: f64,
    /// Tasks a second.
    pub(crate) rate: Option<Spread>,
    pub(crate) ventilator_mib: Option<Spread>,
    /// The largest of those that were watched.
    pub(crate) worker_mib: Option<Spread>,
    pub(crate) sink_mib: Option<Spread>,
}

impl Curves {
    pub(crate) fn new(name: &'static str, unit: &'static str) -> Self {
        Self { name, unit, points: Vec::new() }
    }

    /// Whether it is the tasks' size that grows.
    pub(crate) fn has_sizes(&self) -> bool {
        self.unit == BYTES
    }
}

impl Point {
    /// Megabytes a second.
    pub(crate) fn megabytes_a_second(&self) -> Option<f64> {
        Some(self.rate?.median * self.megabytes / self.tasks as f64)
    }
}

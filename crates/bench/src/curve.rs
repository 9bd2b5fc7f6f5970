//! Measurements of growing work.

use serde::Serialize;

use crate::stats::Spread;

/// Unit of sizes.
pub(crate) const BYTES: &str = "bytes";

/// Points of a quantity that grows.
#[derive(Debug, Serialize)]
pub(crate) struct Curves {
    /// Quantity that grows.
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) points: Vec<Point>,
}

/// Measurement at one point.
#[derive(Debug, Serialize)]
pub(crate) struct Point {
    pub(crate) at: f64,
    pub(crate) tasks: u64,
    /// Bytes of all tasks, without newlines.
    pub(crate) megabytes: f64,
    /// Tasks a second.
    pub(crate) rate: Option<Spread>,
    pub(crate) ventilator_mib: Option<Spread>,
    /// Largest memory among the processes that were watched.
    pub(crate) worker_mib: Option<Spread>,
    pub(crate) sink_mib: Option<Spread>,
}

impl Curves {
    pub(crate) fn new(name: &'static str, unit: &'static str) -> Self {
        Self { name, unit, points: Vec::new() }
    }

    /// Returns whether the size of tasks grows.
    pub(crate) fn has_sizes(&self) -> bool {
        self.unit == BYTES
    }
}

impl Point {
    /// Returns the megabytes a second.
    pub(crate) fn megabytes_a_second(&self) -> Option<f64> {
        Some(self.rate?.median * self.megabytes / self.tasks as f64)
    }
}

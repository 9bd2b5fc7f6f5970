//! The disk of the simulator.

#[allow(dead_code, reason = "here it has room")]
#[path = "../../../crates/sim/src/serve/disk.rs"]
mod simulated;

pub(super) use self::simulated::{Disk, Part};

//! The processor.

use tradewind_proto::limits::SLOTS_MAX;

/// Returns the number of tasks that this machine runs at once, by default.
#[must_use]
pub fn cores() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(cores).unwrap_or(SLOTS_MAX).min(SLOTS_MAX)
}

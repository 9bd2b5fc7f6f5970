//! Values as people write them, in flags, files and environment variables: durations, sizes, names,
//! timeouts and column separators.
//!
//! Text becomes a value here, once, or an error that says how the value is written. Without flags
//! and without a clock.

mod colsep;
mod values;

pub use colsep::Colsep;
pub use values::{
    default_name, duration, duration_or_zero, host_name, is_identifier, is_queue_name, name,
    payload_bytes_max, queue_name, size, timeout,
};

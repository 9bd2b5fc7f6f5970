//! (to come)
pub mod input;

//! The parser itself.

#[allow(dead_code, reason = "nobody reads here what was parsed")]
#[path = "../../../crates/cli/src/run/pipeline/file.rs"]
mod file;
#[path = "../../../crates/cli/src/run/pipeline/table.rs"]
mod table;

pub fn parse(bytes: &[u8]) -> Result<(), String> {
    file::Pipeline::parse(bytes).map(drop).map_err(|error| error.to_string())
}

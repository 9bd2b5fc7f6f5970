//! What was measured, for readers: text, markdown, JSON and pictures.

mod axis;
mod bars;
mod number;
mod svg;
mod table;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

pub(crate) use number::number;
pub(crate) use table::text;

use crate::figure::Outcome;
use crate::machine::Machine;

/// Everything, for programs.
#[derive(Serialize)]
struct Document<'a> {
    machine: &'a Machine,
    #[serde(flatten)]
    outcome: &'a Outcome,
}

pub(crate) fn write_files(dir: &Path, machine: &Machine, outcome: &Outcome) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let write = |name: &str, content: &str| {
        let path = dir.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    };
    write("bench.json", &serde_json::to_string_pretty(&Document { machine, outcome })?)?;
    write("bench.txt", &text(machine, outcome))?;
    write("bench.md", &table::markdown(machine, outcome))?;
    write("bench.svg", &bars::picture(machine, outcome))
}

//! Reports of the measurements: text, markdown, JSON and pictures.

mod axis;
mod bars;
mod lines;
mod number;
mod svg;
mod table;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

pub(crate) use number::number;

use crate::curve::Curves;
use crate::figure::Outcome;
use crate::machine::Machine;

/// All measurements, for programs.
#[derive(Serialize)]
struct Document<'a> {
    machine: &'a Machine,
    #[serde(flatten)]
    outcome: &'a Outcome,
}

/// Growth, for programs.
#[derive(Serialize)]
struct GrowthDocument<'a> {
    machine: &'a Machine,
    growth: &'a [Curves],
}

/// Writes the reports of the workloads. Returns the text.
pub(crate) fn write_comparison(dir: &Path, machine: &Machine, outcome: &Outcome) -> Result<String> {
    let text = table::text(machine, outcome);
    write(dir, "bench.json", &serde_json::to_string_pretty(&Document { machine, outcome })?)?;
    write(dir, "bench.txt", &text)?;
    write(dir, "bench.md", &table::markdown(machine, outcome))?;
    write(dir, "bench.svg", &bars::picture(machine, outcome))?;
    Ok(text)
}

/// Writes the reports of growth. Returns the text.
pub(crate) fn write_growth(dir: &Path, machine: &Machine, growth: &[Curves]) -> Result<String> {
    let text = table::growth_text(machine, growth);
    let document = GrowthDocument { machine, growth };
    write(dir, "growth.json", &serde_json::to_string_pretty(&document)?)?;
    write(dir, "growth.txt", &text)?;
    write(dir, "growth.md", &table::growth_markdown(machine, growth))?;
    write(dir, "growth.svg", &lines::picture(machine, growth))?;
    Ok(text)
}

fn write(dir: &Path, name: &str, content: &str) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let path = dir.join(name);
    fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
}

//! Counts the costs of a task in the hot loops, and prints those that are above their bounds.

mod callgrind;
mod count;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use tradewind_guards::{BATCH_TASKS, LOOPS, Loop, TASKS};

use crate::count::{Counted, count_all};

/// Part of the known cost below which a loop should get a lower bound.
const CHEAPER: f64 = 0.9;

/// Counts the instructions and allocations of a task in the hot loops, by valgrind.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  \
        guards\n  \
        guards dispatcher encode\n  \
        valgrind --tool=callgrind guards --run dispatcher"
)]
struct Args {
    /// Count only the loops with one of these texts in their names.
    names: Vec<String>,
    /// Run this loop without counting, for a profiler.
    #[arg(long, value_name = "LOOP", value_parser = named, conflicts_with = "names")]
    run: Option<Loop>,
    /// Number of tasks in the run.
    #[arg(long, default_value_t = TASKS, requires = "run")]
    tasks: u64,
}

fn named(name: &str) -> Result<Loop, String> {
    Loop::named(name).ok_or_else(|| format!("there are {}", names()))
}

fn names() -> String {
    LOOPS.map(|each| each.name).join(", ")
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if let Some(each) = args.run {
        (each.run)(args.tasks);
        return Ok(ExitCode::SUCCESS);
    }
    let is_wanted =
        |each: &Loop| args.names.is_empty() || args.names.iter().any(|n| each.name.contains(n));
    let wanted: Vec<Loop> = LOOPS.into_iter().filter(is_wanted).collect();
    ensure!(!wanted.is_empty(), "no loop has such a name: there are {}", names());

    let counted = count_all(&wanted)?;
    print(&wanted, &counted).context("cannot write to stdout")?;
    let is_fine = wanted.iter().zip(&counted).all(|(each, now)| !now.is_over(&each.bound()));
    Ok(ExitCode::from(u8::from(!is_fine)))
}

fn print(loops: &[Loop], counted: &[Counted]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let (left, right) = ("instructions a task", format!("allocations in {BATCH_TASKS} tasks"));
    writeln!(out, "{:18} {left:>21} {right:>27}", "")?;
    writeln!(out, "{:18} {:>10} {:>10} {:>16} {:>10}", "loop", "now", "bound", "now", "bound")?;
    for (each, now) in loops.iter().zip(counted) {
        let bound = each.bound();
        let remark = if now.instructions > bound.instructions {
            "  TOO MANY INSTRUCTIONS"
        } else if now.allocations > bound.allocations {
            "  TOO MANY ALLOCATIONS"
        } else if now.instructions < each.known.instructions * CHEAPER {
            "  less than is known"
        } else {
            ""
        };
        let (name, instructions, allocations) = (each.name, now.instructions, now.allocations);
        writeln!(
            out,
            "{name:18} {instructions:>10.1} {:>10.1} {allocations:>16.2} {:>10.2}{remark}",
            bound.instructions, bound.allocations,
        )?;
    }
    Ok(())
}

//! Runs worlds and says which of them broke the promise.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;
use std::io::Write;
use tradewind_sim::{Options, Report, run};

/// Tradewind's machines in virtual time, with seeded faults.
#[derive(Debug, Parser)]
#[command(version, after_help = "Example: sim --seeds 100000")]
struct Args {
    /// Number of seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Run just this seed.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Give some tasks limits of their own.
    #[arg(long)]
    own_limits: bool,
    /// Play queues instead of jobs.
    #[arg(long, conflicts_with = "own_limits")]
    queue: bool,
    /// Print a line for each event.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Go on after this many seeds have failed.
    #[arg(long, default_value_t = 1)]
    failures: u64,
}

/// Seeds that are run twice to see that the second run is like the first.
const TWICE: u64 = 20;

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let (first, count) = args.seed.map_or((args.first, args.seeds), |seed| (seed, 1));
    let has_own_limits = args.own_limits;
    let is_queue = args.queue;
    let options = Options { trace: args.trace, has_own_limits, is_queue, ..Options::default() };
    let mut out = std::io::stdout().lock();
    let began = Instant::now();
    let (mut failed, mut events, mut records, mut reruns, mut ran) = (0, 0, 0, 0, 0);
    for seed in first..first.saturating_add(count) {
        let mut report = run(seed, options);
        if seed - first < TWICE && report.violation.is_none() {
            compare(&mut report, &run(seed, options));
        }
        for line in &report.lines {
            writeln!(out, "{line}").context("cannot write to stdout")?;
        }
        ran += 1;
        events += report.events;
        records += report.records;
        reruns += report.reruns;
        if let Some(violation) = report.violation {
            writeln!(out, "seed {seed}: {violation}")?;
            let kind = match (has_own_limits, is_queue) {
                (true, _) => "--own-limits ",
                (_, true) => "--queue ",
                _ => "",
            };
            writeln!(out, "cargo run --release -p tradewind-sim -- {kind}--seed {seed} --trace")?;
            failed += 1;
            if failed >= args.failures {
                break;
            }
        }
    }
    let took = began.elapsed().as_secs_f64();
    let rate = f64::from(ran) / took;
    writeln!(
        out,
        "{ran} seeds in {took:.1} s ({rate:.0}/s), {failed} failed; \
         {events} events, {records} records, {reruns} reruns"
    )?;
    Ok(ExitCode::from(u8::from(failed > 0)))
}

fn compare(report: &mut Report, second: &Report) {
    if report.hash != second.hash {
        report.violation = Some("two runs of the seed differ".to_owned());
    }
}

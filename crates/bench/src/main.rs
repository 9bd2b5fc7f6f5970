//! Measures Tradewind and its peers on the same work, in turn, in one run.
//!
//! Absolute times on shared machines drift, so only the ratio of two programs in the same round
//! counts. Uses Tradewind's command lines and its client of queues, and nothing else of it.

mod args;
mod curve;
mod figure;
mod http;
mod lab;
mod machine;
mod peer;
mod process;
mod report;
mod role;
mod rounds;
mod stats;
mod tidy;
mod watch;
mod workload;

use std::io::Write;

use anyhow::Result;
use clap::Parser;

use crate::args::{Args, Command};
use crate::figure::Outcome;
use crate::lab::{Lab, Peers};
use crate::machine::Machine;

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(Command::Role(role)) = args.command {
        return role::run(role);
    }
    let workloads = workload::chosen(&args.only)?;
    let rounds = args.rounds();
    let peers = Peers { pipeline: args.pipeline, python: args.python, nats: args.nats };
    let lab = Lab::new(rounds, args.quick, peers)?;
    tidy::prepare(lab.scratch())?;
    let machine = Machine::look(&lab);
    let mut out = std::io::stdout();
    if args.growth {
        let curves = workload::growth::measure(&lab)?;
        let text = report::write_growth(&args.out, &machine, &curves)?;
        return Ok(out.write_all(text.as_bytes())?);
    }
    let mut outcome = Outcome::default();
    let mut broken = Vec::new();
    let mut text = String::new();
    for (letter, measure) in workloads {
        // A workload that cannot be measured does not make the others worth less.
        match measure(&lab) {
            Ok(measured) => outcome.merge(measured),
            Err(error) => {
                eprintln!("{letter}: {error:#}");
                outcome.notes.push(format!("{letter}: could not be measured: {error:#}"));
                broken.push(letter.to_string());
            }
        }
        text = report::write_comparison(&args.out, &machine, &outcome)?;
    }
    if let Some(book) = &args.book {
        report::put_into_book(book, &machine, &outcome)?;
    }
    out.write_all(text.as_bytes())?;
    anyhow::ensure!(broken.is_empty(), "not measured: {}", broken.join(", "));
    Ok(())
}

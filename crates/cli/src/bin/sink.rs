//! The `sink` program.

use std::process::ExitCode;

use clap::Parser;
use tradewind_node::{exit, version};
use tradewind_serve::SinkProgram;

#[derive(Parser)]
#[command(name = "sink", version = version(), about = "Tradewind's sink: records are stored here")]
struct Cli {
    #[command(flatten)]
    args: SinkProgram,
}

fn main() -> ExitCode {
    exit::report("sink", exit::parse::<Cli>("sink").args.main())
}

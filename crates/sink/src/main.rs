//! The `sink` program.

use std::process::ExitCode;

use clap::Parser;
use tradewind_node::exit;
use tradewind_sink::SinkArgs;

#[derive(Parser)]
#[command(name = "sink", version, about)]
struct Cli {
    #[command(flatten)]
    args: SinkArgs,
}

fn main() -> ExitCode {
    exit::report("sink", exit::parse::<Cli>("sink").args.main())
}

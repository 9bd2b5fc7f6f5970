//! The `sink` program.

use std::process::ExitCode;

use clap::Parser;
use tradewind_node::exit;
use tradewind_sink::SinkArgs;

/// Lists of results are allocated on one thread and freed on another, thousands of times a second;
/// the C library gives their memory back to the system each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "sink", version, about)]
struct Cli {
    #[command(flatten)]
    args: SinkArgs,
}

fn main() -> ExitCode {
    exit::report("sink", exit::parse::<Cli>("sink").args.main())
}

//! The `worker` program.

use std::process::ExitCode;

use clap::Parser;
use tradewind_node::exit;
use tradewind_worker::WorkerArgs;

/// Lists of results are allocated on one thread and freed on another, thousands of times a second;
/// the C library gives their memory back to the system each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "worker", version, about)]
struct Cli {
    #[command(flatten)]
    args: WorkerArgs,
}

fn main() -> ExitCode {
    exit::report("worker", exit::parse::<Cli>("worker").args.main())
}

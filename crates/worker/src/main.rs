//! The `worker` program.

use std::process::ExitCode;

use clap::Parser;
use tradewind_node::{exit, version};
use tradewind_worker::WorkerArgs;

#[derive(Parser)]
#[command(name = "worker", version = version(), about)]
struct Cli {
    #[command(flatten)]
    args: WorkerArgs,
}

fn main() -> ExitCode {
    exit::report("worker", exit::parse::<Cli>("worker").args.main())
}

//! The `ventilator` program.

use std::process::ExitCode;

use clap::Parser;
use tradewind_node::exit;
use tradewind_ventilator::VentilatorArgs;

/// Lists of results are allocated on one thread and freed on another, thousands of times a second;
/// the C library gives their memory back to the system each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "ventilator", version, about)]
struct Cli {
    #[command(flatten)]
    args: VentilatorArgs,
}

fn main() -> ExitCode {
    exit::report("ventilator", exit::parse::<Cli>("ventilator").args.main())
}

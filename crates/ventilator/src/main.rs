//! The `ventilator` program.

use std::process::ExitCode;

use clap::Parser;
use tradewind_node::exit;
use tradewind_ventilator::VentilatorArgs;

#[derive(Parser)]
#[command(name = "ventilator", version, about)]
struct Cli {
    #[command(flatten)]
    args: VentilatorArgs,
}

fn main() -> ExitCode {
    exit::report("ventilator", exit::parse::<Cli>("ventilator").args.main())
}

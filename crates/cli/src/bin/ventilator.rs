//! The `ventilator` program.

use std::process::ExitCode;

use clap::Parser;
use tradewind_node::{exit, version};
use tradewind_serve::VentilatorProgram;

#[derive(Parser)]
#[command(name = "ventilator", version = version(), about = "Tradewind's ventilator: tasks go in here")]
struct Cli {
    #[command(flatten)]
    args: VentilatorProgram,
}

fn main() -> ExitCode {
    exit::report("ventilator", exit::parse::<Cli>("ventilator").args.main())
}

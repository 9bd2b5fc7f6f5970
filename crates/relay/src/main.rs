//! The `relay` program.

use std::process::ExitCode;

use clap::Parser;
use tradewind_node::{exit, version};
use tradewind_relay::RelayArgs;

#[derive(Parser)]
#[command(name = "relay", version = version(), about)]
struct Cli {
    #[command(flatten)]
    args: RelayArgs,
}

fn main() -> ExitCode {
    exit::report("relay", exit::parse::<Cli>("relay").args.main())
}

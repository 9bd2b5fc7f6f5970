//! The `tradewind` program.

mod keys;
#[cfg(feature = "pages")]
mod pages;
mod queues;
mod run;
mod store;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tradewind_node::{exit, version};
use tradewind_relay::RelayArgs;
use tradewind_serve::{ServeArgs, SinkProgram, VentilatorProgram};
use tradewind_worker::WorkerArgs;

use crate::keys::KeysArgs;
#[cfg(feature = "pages")]
use crate::pages::{CompletionsArgs, ManArgs};
use crate::queues::{
    CancelArgs, PauseArgs, QueueArgs, RecordsArgs, ResultArgs, ResumeArgs, RetryArgs, StatusArgs,
    SubmitArgs,
};
use crate::run::RunArgs;
use crate::store::StoreArgs;

/// A pile of tasks, some machines, and one record for each task
#[derive(Parser)]
#[command(name = "tradewind", version = version())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(Box<RunArgs>),
    Ventilator(Box<VentilatorProgram>),
    Worker(Box<WorkerArgs>),
    Relay(Box<RelayArgs>),
    Sink(Box<SinkProgram>),
    Keys(Box<KeysArgs>),
    Serve(Box<ServeArgs>),
    Store(StoreArgs),
    Submit(Box<SubmitArgs>),
    Result(ResultArgs),
    Status(StatusArgs),
    Records(RecordsArgs),
    Cancel(CancelArgs),
    Retry(RetryArgs),
    Pause(PauseArgs),
    Resume(ResumeArgs),
    Queue(Box<QueueArgs>),
    #[cfg(feature = "pages")]
    Completions(CompletionsArgs),
    #[cfg(feature = "pages")]
    Man(ManArgs),
}

fn main() -> ExitCode {
    match exit::parse::<Cli>("tradewind").command {
        Command::Run(args) => exit::report("tradewind", args.main()),
        Command::Ventilator(args) => exit::report("ventilator", args.main()),
        Command::Worker(args) => exit::report("worker", args.main()),
        Command::Relay(args) => exit::report("relay", args.main()),
        Command::Sink(args) => exit::report("sink", args.main()),
        Command::Keys(args) => exit::report("tradewind keys", args.main()),
        Command::Store(args) => exit::report("tradewind store", args.main()),
        Command::Serve(args) => exit::report("tradewind serve", args.main()),
        Command::Submit(args) => exit::report("tradewind submit", args.main()),
        Command::Result(args) => exit::report("tradewind result", args.main()),
        Command::Status(args) => exit::report("tradewind status", args.main()),
        Command::Records(args) => exit::report("tradewind records", args.main()),
        Command::Cancel(args) => exit::report("tradewind cancel", args.main()),
        Command::Retry(args) => exit::report("tradewind retry", args.main()),
        Command::Pause(args) => exit::report("tradewind pause", args.main()),
        Command::Resume(args) => exit::report("tradewind resume", args.main()),
        Command::Queue(args) => exit::report("tradewind queue", args.main()),
        #[cfg(feature = "pages")]
        Command::Completions(args) => exit::report("tradewind completions", args.main()),
        #[cfg(feature = "pages")]
        Command::Man(args) => exit::report("tradewind man", args.main()),
    }
}

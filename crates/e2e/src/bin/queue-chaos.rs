//! Serves a queue whose server, workers and submitters are killed while tasks are submitted and sent again, and counts what is lost.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use tradewind_e2e::Namespaces;
use tradewind_e2e::chaos::{EngineKind, QueuePlan, Underneath, queue_chaos};

/// Kill the server and the workers of a queue while submitters die and send again
#[derive(Debug, Parser)]
#[command(version, after_help = "Example: queue-chaos --minutes 10")]
struct Args {
    /// For how long tasks are submitted and processes killed
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,

    /// Decides everything but the machine's own timing [default: a new one]
    #[arg(long)]
    seed: Option<u64>,

    /// Seconds between two kills, on average
    #[arg(long, default_value_t = 2.0)]
    pause: f64,

    /// Number of submitters
    #[arg(long, default_value_t = 4)]
    submitters: usize,

    /// Number of submitters that are programs, which are killed as well
    #[arg(long, default_value_t = 2)]
    programs: usize,

    /// What the queue's logs are in: an engine, whose server is killed as well
    #[arg(long, value_enum)]
    engine: Option<Engine>,

    /// Number of servers that share a queue on an engine
    #[arg(long, default_value_t = 2)]
    servers: usize,

    /// Number of nodes of the engine: if there are several, nodes and servers live in network namespaces and are cut off as
    /// well, which takes root; NATS only
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    nodes: u8,

    /// Number of workers of each server
    #[arg(long, default_value_t = 3)]
    workers: usize,

    /// Number of tasks of each submitter at most, spread over the time; a queue remembers two million keys
    #[arg(long, default_value_t = 300_000)]
    tasks: u64,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Engine {
    /// NATS JetStream, of the program that NATS_SERVER names
    Nats,
    /// PostgreSQL, of the programs in the directory that POSTGRES_BIN names
    Postgres,
}

impl Engine {
    fn kind(self) -> EngineKind {
        match self {
            Self::Nats => EngineKind::Nats,
            Self::Postgres => EngineKind::Postgres,
        }
    }
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if args.nodes > 1 {
        anyhow::ensure!(
            matches!(args.engine, Some(Engine::Nats)),
            "--nodes goes with --engine nats"
        );
        Namespaces::new(1).context("--nodes needs network namespaces: root and iproute2")?;
    }
    let mut out = std::io::stdout();
    let plan = QueuePlan {
        seed: args.seed.unwrap_or_else(|| u64::from(fastrand::u32(..))),
        length: Duration::try_from_secs_f64(args.minutes * 60.0).context("--minutes")?,
        submitters: args.submitters,
        programs: args.programs,
        workers: args.workers,
        underneath: args.engine.map(|engine| Underneath {
            kind: engine.kind(),
            servers: args.servers,
            nodes: args.nodes.into(),
        }),
        tasks_max: args.tasks,
        pause: Duration::try_from_secs_f64(args.pause).context("--pause")?,
        patience: Duration::from_secs(300),
    };
    writeln!(out, "queue-chaos: seed {}, {} min", plan.seed, args.minutes)?;
    let began = Instant::now();
    let report = queue_chaos(&plan);
    writeln!(out, "{report}")?;
    let verdict = if report.is_good() { "the promise was kept" } else { "FAILED" };
    writeln!(out, "{verdict}, in {:.0} s", began.elapsed().as_secs_f64())?;
    Ok(ExitCode::from(u8::from(!report.is_good())))
}

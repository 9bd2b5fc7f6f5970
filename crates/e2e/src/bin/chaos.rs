//! Runs jobs whose every role is killed, stopped and cut off at random, and counts what is lost.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use tradewind_e2e::Namespaces;
use tradewind_e2e::chaos::{Failure, Options, Plan, Report, Role, Round, Tally};

/// Run jobs whose every role is killed, stopped and cut off at random
#[derive(Debug, Parser)]
#[command(version, after_help = "Example: chaos --minutes 10 --roles ventilator,sink")]
struct Args {
    /// For how long; a round that has begun is brought to its end
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,

    /// Decides everything but the machine's own timing [default: a new one]
    #[arg(long)]
    seed: Option<u64>,

    /// Who suffers
    #[arg(long, value_delimiter = ',', default_value = "ventilator,worker,sink")]
    roles: Vec<Role>,

    /// Tasks of each round, instead of as many as fit
    #[arg(long)]
    tasks: Option<u64>,

    /// For how many seconds of a round faults occur
    #[arg(long, default_value_t = 25.0)]
    round: f64,

    /// How many seconds after the last fault, beyond what the job takes undisturbed, are a hang
    #[arg(long, default_value_t = 60.0)]
    patience: f64,

    /// All on loopback, and so nobody is cut off
    #[arg(long)]
    no_netns: bool,
}

#[derive(Debug, Default)]
struct Sum {
    rounds: u64,
    tally: Tally,
    tasks: u64,
    records: u64,
    lost: u64,
    doubled: u64,
    wrong: u64,
    failed: u64,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let mut out = std::io::stdout();
    let interrupted = watch_signals()?;
    let seed = args.seed.unwrap_or_else(|| u64::from(fastrand::u32(..)));
    writeln!(out, "chaos: seed {seed}, {} min", args.minutes)?;
    let has_namespaces = !args.no_netns && has_namespaces(&mut out)?;
    let began = Instant::now();
    let length = Duration::try_from_secs_f64(args.minutes * 60.0).context("--minutes")?;
    let mut seeds = fastrand::Rng::with_seed(seed);
    let mut round_seed = seed;
    let mut sum = Sum::default();
    loop {
        let left = length.saturating_sub(began.elapsed());
        let faults = Duration::try_from_secs_f64(args.round).context("--round")?;
        let faults = faults.min(left.max(Duration::from_secs(5)));
        let mut plan = Plan::new(round_seed, &args.roles, has_namespaces, faults);
        plan.tasks = args.tasks.unwrap_or(plan.tasks);
        writeln!(out, "\nround {}, seed {round_seed}: {plan}", sum.rounds + 1)?;
        let options = Options {
            has_namespaces,
            patience: Duration::try_from_secs_f64(args.patience).context("--patience")?,
            interrupted: &interrupted,
        };
        let round = Round::new(&plan, options)?;
        let dir = round.dir();
        sum.rounds += 1;
        let (tally, result) = round.run();
        sum.tally += tally;
        write!(out, "{}", indented(&tally.table()))?;
        match result {
            Ok(report) => {
                sum.add(&report);
                write_report(&mut out, &report)?;
            }
            Err(Failure::Interrupted) => {
                writeln!(out, "interrupted")?;
                return Ok(ExitCode::from(130));
            }
            Err(failure) => {
                sum.fail(&plan, &failure);
                writeln!(out, "FAILED: {failure}")?;
                write_logs(&mut out, &dir)?;
                writeln!(out, "all logs: {}", dir.display())?;
                writeln!(out, "again:    scripts/chaos 1 {round_seed}")?;
                break;
            }
        }
        if began.elapsed() >= length {
            break;
        }
        round_seed = u64::from(seeds.u32(..));
    }
    sum.write(&mut out, began.elapsed())?;
    Ok(ExitCode::from(u8::from(sum.failed > 0)))
}

/// Can everybody have a namespace of their own? If not, says why.
fn has_namespaces(out: &mut impl Write) -> Result<bool> {
    let Err(error) = Namespaces::new(1) else { return Ok(true) };
    writeln!(out, "cuts: skipped: no network namespaces here: {error}")?;
    Ok(false)
}

/// Ctrl-C ends the round, so that nothing of it is left behind.
fn watch_signals() -> Result<Arc<AtomicBool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    let (mut int, mut term) = {
        let _guard = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! { _ = int.recv() => {} _ = term.recv() => {} }
        });
        flag.store(true, Ordering::Relaxed);
    });
    Ok(interrupted)
}

fn write_report(out: &mut impl Write, report: &Report) -> Result<()> {
    let Report { verdict, took, calm, notes } = report;
    for note in notes {
        writeln!(out, "  note: {note}")?;
    }
    writeln!(
        out,
        "  {} tasks, {} records, {} lost, {} doubled; {took:.1?}, {calm:.1?} of it calm",
        verdict.tasks, verdict.records, verdict.lost, verdict.doubled
    )?;
    Ok(())
}

/// The end of everything that was logged.
fn write_logs(out: &mut impl Write, dir: &Path) -> Result<()> {
    const LINES: usize = 20;
    let mut paths: Vec<_> = std::fs::read_dir(dir)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    paths.sort();
    for path in paths {
        let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
        let skip = text.lines().count().saturating_sub(LINES);
        let end: String = text.lines().skip(skip).map(|line| format!("{line}\n")).collect();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        write!(out, "--- the end of {name}\n{}", indented(&end))?;
    }
    Ok(())
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

impl Sum {
    fn add(&mut self, report: &Report) {
        self.tasks += report.verdict.tasks;
        self.records += report.verdict.records;
    }

    fn fail(&mut self, plan: &Plan, failure: &Failure) {
        self.failed += 1;
        self.tasks += plan.tasks;
        if let Failure::Wrong(verdict) = failure {
            self.records += verdict.records;
            self.lost += verdict.lost;
            self.doubled += verdict.doubled;
            self.wrong += verdict.wrong + verdict.disordered;
        }
    }

    fn write(&self, out: &mut impl Write, took: Duration) -> Result<()> {
        writeln!(out, "\n== {} rounds in {took:.0?}, {} failed", self.rounds, self.failed)?;
        write!(out, "{}", self.tally.table())?;
        writeln!(
            out,
            "{} tasks, {} records, {} lost, {} doubled, {} wrong or out of order",
            self.tasks, self.records, self.lost, self.doubled, self.wrong
        )?;
        Ok(())
    }
}

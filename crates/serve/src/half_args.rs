//! The flags of `ventilator` and `sink`, of a job or of queues.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use tradewind_face::HttpArgs;
use tradewind_node::exit::{Fatal, OrExit, USAGE};
use tradewind_node::{Inherited, allow_many_files, block_on, exit, logs};
use tradewind_sink::SinkArgs;
use tradewind_ventilator::VentilatorArgs;

use crate::config::Config;
use crate::serve::{RecordPorts, Settings, TaskPorts, serve_records, serve_tasks};

/// Flags of a half of queues.
#[derive(Args, Clone, Debug)]
pub struct HalfArgs {
    /// File with settings of queues, as of `tradewind serve`; the relays of both halves are in it
    #[arg(long, env = "TRADEWIND_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Port for HTTP by default.
const HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5560);

impl HalfArgs {
    /// Refuses them for a job.
    fn check_unused(&self, flag: &str) -> Result<(), Fatal> {
        match self.config {
            None => Ok(()),
            Some(_) => Err(Fatal::new(USAGE, format!("--config is for queues, with {flag}"))),
        }
    }

    fn config(&self) -> Result<Config, Fatal> {
        let config = self.config.as_deref().map(Config::read).transpose();
        Ok(config.or_exit(USAGE)?.unwrap_or_default())
    }
}

/// Hand out tasks, one a line of the input, to workers; with --serve those of queues
#[derive(Args, Clone, Debug)]
pub struct VentilatorProgram {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub job: VentilatorArgs,

    /// Run no job, but serve the tasks of queues that stay open, whose records a `sink --store` has; they are kept in
    /// this directory
    #[arg(
        long,
        env = "TRADEWIND_SERVE",
        value_name = "DIR",
        help_heading = "Queues",
        requires = "records",
        conflicts_with_all = [
            "input", "input_name", "null", "job", "stage", "resume", "retry_failed", "resume_wait", "header",
            "no_header", "input_format", "max_args", "xargs", "asked_fields", "colsep", "retries", "timeout", "halt"
        ]
    )]
    pub serve: Option<PathBuf>,

    /// URL of the HTTP port of the sink, as http://sink-host:5560; https with keys
    #[arg(
        long,
        env = "TRADEWIND_RECORDS",
        value_name = "URL",
        help_heading = "Queues",
        requires = "serve"
    )]
    pub records: Option<String>,

    #[command(flatten, next_help_heading = "Queues")]
    #[expect(missing_docs, reason = "clap would show it")]
    pub half: HalfArgs,
}

/// Collect the records of a job; with --store those of queues
#[derive(Args, Clone, Debug)]
pub struct SinkProgram {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub job: SinkArgs,

    /// Run no job, but keep the records of queues that stay open, whose tasks a `ventilator --serve` has, in this
    /// directory
    #[arg(
        long,
        env = "TRADEWIND_STORE",
        value_name = "DIR",
        help_heading = "Queues",
        conflicts_with_all = [
            "output", "format", "ordered", "unordered", "joblog", "overwrite", "tag", "with_task", "results",
            "no_stderr", "fsync", "when_full", "spool_max"
        ]
    )]
    pub store: Option<PathBuf>,

    #[command(flatten, next_help_heading = "Queues")]
    #[expect(missing_docs, reason = "clap would show it")]
    pub half: HalfArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub http: HttpArgs,
}

impl VentilatorProgram {
    /// Runs the program: everything between the flags and the exit code.
    ///
    /// # Errors
    /// When the job cannot be run, or the queues cannot be served.
    pub fn main(self) -> exit::Outcome {
        let Self { job, serve, records, half } = self;
        let (Some(dir), Some(records)) = (serve, records) else {
            half.check_unused("--serve DIR")?;
            return job.main();
        };
        logs::init(&job.logs, "info")?;
        let config = half.config()?;
        let mut inherited = Inherited::from_env();
        let ports = TaskPorts {
            tasks: inherited.or_endpoint(0, job.tasks),
            receipts: inherited.or_endpoint(1, job.receipts),
            sink: job.sink,
            records,
        };
        let settings = Settings {
            dir,
            config,
            http: job.http.http.unwrap_or(HTTP),
            http_trust: job.http.http_trust,
            keys: job.keys.wanted(),
            lanes: job.gate.options(job.lanes.options()),
        };
        allow_many_files();
        block_on(|shutdown| serve_tasks(settings, ports, shutdown))
    }
}

impl SinkProgram {
    /// Runs the program: everything between the flags and the exit code.
    ///
    /// # Errors
    /// When the records cannot be collected, or the queues cannot be served.
    pub fn main(self) -> exit::Outcome {
        let Self { job, store, half, http } = self;
        let Some(dir) = store else {
            half.check_unused("--store DIR")?;
            if http.http.is_some() {
                return Err(Fatal::new(USAGE, "--http is for queues, with --store DIR"));
            }
            return job.main();
        };
        logs::init(&job.logs, "info")?;
        let config = half.config()?;
        let mut inherited = Inherited::from_env();
        let ports = RecordPorts {
            results: inherited.or_endpoint(0, job.listen),
            ventilator: job.ventilator,
        };
        let settings = Settings {
            dir,
            config,
            http: http.http.unwrap_or(HTTP),
            http_trust: http.http_trust,
            keys: job.keys.wanted(),
            lanes: job.gate.options(job.lanes.options()),
        };
        allow_many_files();
        block_on(|shutdown| serve_records(settings, ports, shutdown))
    }
}

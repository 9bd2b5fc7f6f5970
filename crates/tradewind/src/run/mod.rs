//! `tradewind run`: all three on this machine, as one program.

mod child;

use std::io::{IsTerminal, stdout};

use clap::Args;
use clap::builder::BoolishValueParser;
use tradewind_node::args::{LogArgs, default_name};
use tradewind_node::exit::{Fatal, HELP, INPUT, LISTEN, OK, OrExit, STOPPED, SYSTEM, USAGE};
use tradewind_node::{Asked, Shutdown, block_on, exit, logs};
use tradewind_proto::dispatcher::Timeout;
use tradewind_proto::limits::{MESSAGE_BYTES_MAX, SLOTS_MAX};
use tradewind_sink::args::OutputArgs;
use tradewind_sink::output::OutputTarget;
use tradewind_ventilator::args::{PolicyArgs, ResumeArgs};
use tradewind_ventilator::input::{self, InputPath};
use tradewind_worker::args::{HandlerArgs, PIPES, REPLACEMENTS, cores};

use self::child::{Children, End, Role, arg, flag};

const EXAMPLES: &str = "\
Examples:
  find . -name '*.jpg' | tradewind run -j 8 -- convert {} {.}.png
  tradewind run --input urls.txt --output results.jsonl --retries 2 --timeout 30s -- curl -sf
  find . -type f -print0 | tradewind run -0 -- sha256sum > sums.txt
  tradewind run --pipe lines -- python3 handler.py < lines.txt > answers.txt";

/// Run a command for each line of the input, on this machine
#[derive(Args, Clone, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{REPLACEMENTS}\n\n{PIPES}\n\n{HELP}"))]
pub(crate) struct RunArgs {
    /// Tasks to run at once, in all [default: the cores]
    #[arg(
        long,
        short,
        env = "TRADEWIND_SLOTS",
        value_name = "SLOTS",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(SLOTS_MAX))
    )]
    jobs: Option<u32>,

    /// Worker processes to spread them over
    #[arg(
        long,
        env = "TRADEWIND_WORKERS",
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=1024)
    )]
    workers: u32,

    /// Where the tasks are: a file, or - for standard input
    #[arg(long, env = "TRADEWIND_INPUT", value_name = "FILE", default_value = "-")]
    input: InputPath,

    /// Tasks end with a NUL, not with a newline
    #[arg(long, short = '0', env = "TRADEWIND_NULL", value_parser = BoolishValueParser::new())]
    null: bool,

    #[command(flatten)]
    handler: HandlerArgs,

    #[command(flatten)]
    resume: ResumeArgs,

    #[command(flatten)]
    policy: PolicyArgs,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    logs: LogArgs,
}

impl RunArgs {
    pub(crate) fn main(self) -> exit::Outcome {
        logs::init(&self.logs, "warn")?;
        block_on(|shutdown| self.run(shutdown))
    }

    async fn run(self, mut shutdown: Shutdown) -> exit::Outcome {
        // What is wrong with the command line is said before anything is started.
        self.handler.runner("", MESSAGE_BYTES_MAX)?;
        drop(input::open(&self.input).or_exit(INPUT)?);
        let slots = self.jobs.unwrap_or_else(cores);
        if self.workers > slots {
            let text = format!("{} workers cannot share {slots} slots; see -j", self.workers);
            return Err(Fatal::new(USAGE, text));
        }

        let mut children = self.start(slots)?;
        loop {
            tokio::select! {
                end = children.ended() => match end? {
                    End::All { ventilator, sink } => {
                        return Ok(if ventilator == OK { sink } else { ventilator });
                    }
                    // Its tasks wait for somebody to run them.
                    End::WorkerKilled { worker } => children.restart_worker(worker)?,
                    End::Failed { code } => {
                        // The child has said why.
                        children.quit().await;
                        return Ok(code);
                    }
                },
                asked = shutdown.asked() => match asked {
                    // The ventilator knows what draining and cancelling mean.
                    Asked::Drain | Asked::Cancel => children.ask_ventilator(),
                    Asked::Quit => {
                        children.quit().await;
                        return Ok(STOPPED);
                    }
                }
            }
        }
    }

    /// Starts all three, with listeners that are open already: no port is guessed, and nobody has
    /// to wait for anybody.
    fn start(&self, slots: u32) -> Result<Children, Fatal> {
        let mut listeners = Vec::new();
        for _ in 0..3 {
            listeners.push(std::net::TcpListener::bind("127.0.0.1:0").or_exit(LISTEN)?);
        }
        let [tasks, receipts, results] = <[_; 3]>::try_from(listeners).expect("three were made");
        let endpoint = |listener: &std::net::TcpListener| {
            listener.local_addr().map(|address| format!("tcp://{address}")).or_exit(LISTEN)
        };
        let (tasks_at, receipts_at, results_at) =
            (endpoint(&tasks)?, endpoint(&receipts)?, endpoint(&results)?);

        let mut logs = self.logs.clone();
        // A bar between the lines of the output would be in the way of both.
        logs.no_progress |= self.output.output == OutputTarget::Stdout && stdout().is_terminal();
        let mut children = Children::new(logs).or_exit(SYSTEM)?;
        let sink = [arg("--ventilator", &receipts_at), arg("--listen", &results_at)].concat();
        children.start(Role::Sink, [sink, self.sink_args()].concat(), &[results])?;
        let ventilator = [
            arg("--tasks", &tasks_at),
            arg("--receipts", &receipts_at),
            arg("--sink", &results_at),
            self.ventilator_args(),
        ];
        children.start(Role::Ventilator, ventilator.concat(), &[tasks, receipts])?;
        let host = default_name();
        for worker in 0..self.workers {
            let share = slots / self.workers + u32::from(worker < slots % self.workers);
            let args = [
                arg("--ventilator", &tasks_at),
                arg("--sink", &results_at),
                arg("--slots", share.to_string()),
                arg("--name", format!("{host}.{}", worker + 1)),
                self.worker_args(),
            ];
            children.start(Role::Worker, args.concat(), &[])?;
        }
        Ok(children)
    }

    fn ventilator_args(&self) -> Vec<std::ffi::OsString> {
        let PolicyArgs { retries, timeout, max_losses, halt } = &self.policy;
        let mut args = arg("--input", self.input.as_os_str());
        args.extend(flag("--null", self.null));
        let ResumeArgs { resume, retry_failed } = self.resume;
        args.extend(flag("--resume", resume));
        args.extend(flag("--retry-failed", retry_failed));
        // All workers are new, and hold nothing.
        args.extend(arg("--resume-wait", "0s"));
        args.extend(arg("--retries", retries.to_string()));
        match timeout {
            Some(Timeout::After(limit)) => {
                args.extend(arg("--timeout", format!("{}us", limit.as_micros())));
            }
            Some(Timeout::Percent(percent)) => {
                args.extend(arg("--timeout", format!("{percent}%")));
            }
            None => {}
        }
        args.extend(arg("--max-losses", max_losses.to_string()));
        if let Some(halt) = halt {
            args.extend(arg("--halt", halt.to_string()));
        }
        args
    }

    fn sink_args(&self) -> Vec<std::ffi::OsString> {
        let OutputArgs { output, format, ordered, unordered, joblog, overwrite, fsync } =
            &self.output;
        let mut args = arg("--output", output.as_os_str());
        if let Some(format) = format {
            args.extend(arg("--format", format.as_str()));
        }
        if let Some(joblog) = joblog {
            args.extend(arg("--joblog", joblog.as_os_str()));
        }
        args.extend(flag("--ordered", *ordered));
        args.extend(flag("--unordered", *unordered));
        args.extend(flag("--overwrite", *overwrite));
        args.extend(arg("--fsync", fsync.as_str()));
        args.extend(flag("--no-progress", true));
        args
    }

    fn worker_args(&self) -> Vec<std::ffi::OsString> {
        let HandlerArgs {
            stdin,
            echo,
            sleep,
            pipe,
            pipe_startup,
            pipe_restarts,
            skip_exit_code,
            max_output,
            command,
        } = &self.handler;
        let mut args = arg("--max-output", max_output.to_string());
        args.extend(flag("--exit-when-done", true));
        args.extend(flag("--stdin", *stdin));
        args.extend(flag("--echo", *echo));
        args.extend(flag("--sleep", *sleep));
        if let Some(pipe) = pipe {
            args.extend(arg("--pipe", pipe.as_str()));
            args.extend(arg("--pipe-startup", format!("{}us", pipe_startup.as_micros())));
            args.extend(arg("--pipe-restarts", pipe_restarts.to_string()));
        }
        if let Some(code) = skip_exit_code {
            args.extend(arg("--skip-exit-code", code.to_string()));
        }
        if !command.is_empty() {
            args.push("--".into());
            args.extend(command.iter().cloned());
        }
        args
    }
}

//! The child processes of `tradewind run`.

use std::ffi::OsString;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::{Pid, Signal as Signo, kill_process};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tradewind_node::args::LogArgs;
use tradewind_node::exit::{Fatal, INPUT, OK, OrExit, STOPPED, SYSTEM, TASKS_FAILED, say};
use tradewind_node::{PARENT_ENV, RELAY};

/// What a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Ventilator,
    Worker,
    Sink,
}

/// What the end of one or more children means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The job is over.
    All { ventilator: u8, sink: u8 },
    /// A worker died of a signal while the job goes on.
    WorkerKilled { worker: usize },
    /// A child cannot do its part.
    Failed { code: u8 },
}

/// The children that run.
pub(super) struct Children {
    logs: LogArgs,
    ends: Signal,
    processes: Vec<Process>,
    /// All were told to quit: whatever they end with now is no news.
    is_quitting: bool,
}

struct Process {
    role: Role,
    args: Vec<OsString>,
    child: Child,
    started: Instant,
    code: Option<u8>,
}

/// Workers get the job's end from the ventilator; one that does not take it is not waited for
/// longer than this.
const WORKERS_GRACE: Duration = Duration::from_secs(5);

/// When the ventilator has stopped the job, the sink may take so long to finish its output.
const SINK_GRACE: Duration = Duration::from_secs(5);

/// From the request to quit to SIGKILL. A worker gives its tasks two seconds of that.
const QUIT_GRACE: Duration = Duration::from_secs(5);

/// A worker that dies sooner after its start is not started again: it would die again.
const WORKER_LIFE_MIN: Duration = Duration::from_secs(1);

/// Where inherited listeners are put, out of the way of what else a child opens.
const FIRST_FD: i32 = 100;

impl Children {
    /// No child yet.
    pub(super) fn new(logs: LogArgs) -> std::io::Result<Self> {
        Ok(Self {
            logs,
            ends: signal(SignalKind::child())?,
            processes: Vec::new(),
            is_quitting: false,
        })
    }

    /// Starts a child, which gets these listeners.
    pub(super) fn start(
        &mut self,
        role: Role,
        args: Vec<OsString>,
        listeners: &[TcpListener],
    ) -> Result<(), Fatal> {
        self.start_with_stdin(role, args, listeners, role.stdin())
    }

    /// The same, with this standard input.
    pub(super) fn start_with_stdin(
        &mut self,
        role: Role,
        args: Vec<OsString>,
        listeners: &[TcpListener],
        stdin: Stdio,
    ) -> Result<(), Fatal> {
        let child = self.spawn(role, &args, listeners, stdin).or_exit(SYSTEM)?;
        self.processes.push(Process { role, args, child, started: Instant::now(), code: None });
        Ok(())
    }

    /// Starts a worker that was killed again.
    pub(super) fn restart_worker(&mut self, worker: usize) -> Result<(), Fatal> {
        let args = self.processes[worker].args.clone();
        let stdin = Role::Worker.stdin();
        let child = self.spawn(Role::Worker, &args, &[], stdin).or_exit(SYSTEM)?;
        let process = &mut self.processes[worker];
        process.child = child;
        process.started = Instant::now();
        process.code = None;
        Ok(())
    }

    fn spawn(
        &self,
        role: Role,
        args: &[OsString],
        listeners: &[TcpListener],
        stdin: Stdio,
    ) -> std::io::Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        // What was set for this process was taken into account, and comes as flags.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("TRADEWIND_") || text.starts_with("LISTEN_") {
                command.env_remove(name);
            }
        }
        command
            .env(PARENT_ENV, std::process::id().to_string())
            .arg(role.name())
            .args(arg("--log", self.logs.log.as_deref().unwrap_or("warn")))
            .args(flag("--quiet", self.logs.quiet))
            .args(flag("--no-progress", self.logs.no_progress && role != Role::Sink))
            .args(args)
            .stdin(stdin)
            .stdout(if role == Role::Sink { Stdio::inherit() } else { Stdio::null() });
        let passed_on = pass_on(listeners, &mut command)?;
        let child = command.spawn();
        drop(passed_on);
        child
    }

    /// Waits until something has ended that matters. Cancel-safe.
    pub(super) async fn ended(&mut self) -> Result<End, Fatal> {
        loop {
            if let Some(end) = self.take_ends()? {
                return Ok(end);
            }
            if let (Some(ventilator), Some(sink)) =
                (self.code(Role::Ventilator), self.code(Role::Sink))
            {
                let _ = tokio::time::timeout(WORKERS_GRACE, self.all_ended()).await;
                self.quit().await;
                return Ok(End::All { ventilator, sink });
            }
            if let Some(code @ (STOPPED | INPUT)) = self.code(Role::Ventilator) {
                // Nobody will tell the sink any more; it may be waiting for a disk that is full.
                let _ = tokio::time::timeout(SINK_GRACE, self.all_ended()).await;
                if self.code(Role::Sink).is_none() {
                    say("tradewind: the output could not be finished; records may be missing");
                }
                self.quit().await;
                return Ok(End::All { ventilator: code, sink: code });
            }
            self.ends.recv().await;
        }
    }

    fn code(&self, role: Role) -> Option<u8> {
        self.processes.iter().find(|process| process.role == role)?.code
    }

    async fn all_ended(&mut self) {
        while self.processes.iter().any(|process| process.code.is_none()) {
            // Whatever a worker ends with now, the job is complete without it.
            if !matches!(self.take_ends(), Ok(None)) {
                continue;
            }
            if self.processes.iter().any(|process| process.code.is_none()) {
                self.ends.recv().await;
            }
        }
    }

    /// Takes note of children that have ended; gives the first end that matters.
    fn take_ends(&mut self) -> Result<Option<End>, Fatal> {
        for (place, process) in self.processes.iter_mut().enumerate() {
            if process.code.is_some() {
                continue;
            }
            let Some(status) = process.child.try_wait().or_exit(SYSTEM)? else { continue };
            let code = status.code().map_or(SYSTEM, |code| code as u8);
            process.code = Some(code);
            if self.is_quitting {
                continue;
            }
            match process.role {
                Role::Worker if is_killed(status) => {
                    if process.started.elapsed() >= WORKER_LIFE_MIN {
                        tracing::warn!(%status, "a worker was killed; another takes its place");
                        return Ok(Some(End::WorkerKilled { worker: place }));
                    }
                    say(&format!("tradewind: a worker died as soon as it was started ({status})"));
                    return Ok(Some(End::Failed { code: SYSTEM }));
                }
                Role::Worker if code == OK => {}
                // It stops only when it is told to, which is not for others to do.
                Role::Sink | Role::Ventilator if is_killed(status) => {
                    say(&format!("tradewind: the {} was killed ({status})", process.role.name()));
                    return Ok(Some(End::Failed { code: SYSTEM }));
                }
                // Before it says that its input is bad, it has seen to what it had read.
                Role::Ventilator if matches!(code, OK | TASKS_FAILED | STOPPED | INPUT) => {}
                Role::Sink if matches!(code, OK | TASKS_FAILED) => {}
                Role::Ventilator | Role::Worker | Role::Sink => {
                    return Ok(Some(End::Failed { code }));
                }
            }
        }
        Ok(None)
    }

    /// Passes a request to stop on to the ventilator, who knows how.
    pub(super) fn ask_ventilator(&mut self) {
        self.signal(RELAY, |role| role == Role::Ventilator);
    }

    /// Ends all children, the hard way if need be.
    pub(super) async fn quit(&mut self) {
        self.is_quitting = true;
        self.signal(Signo::HUP, |_| true);
        if tokio::time::timeout(QUIT_GRACE, self.all_ended()).await.is_err() {
            self.signal(Signo::KILL, |_| true);
            self.all_ended().await;
        }
    }

    fn signal(&mut self, signo: Signo, is_meant: impl Fn(Role) -> bool) {
        for process in &mut self.processes {
            // Until it was waited for, its id is nobody else's.
            let is_running = process.code.is_none() && matches!(process.child.try_wait(), Ok(None));
            if is_running
                && is_meant(process.role)
                && let Some(pid) = Pid::from_raw(process.child.id().cast_signed())
            {
                let _ = kill_process(pid, signo);
            }
        }
    }
}

impl Role {
    fn stdin(self) -> Stdio {
        if self == Self::Ventilator { Stdio::inherit() } else { Stdio::null() }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ventilator => "ventilator",
            Self::Worker => "worker",
            Self::Sink => "sink",
        }
    }
}

fn is_killed(status: ExitStatus) -> bool {
    status.signal().is_some()
}

/// Makes listeners survive into a child, at numbers that follow one another. They are closed here
/// when the result is dropped.
fn pass_on(listeners: &[TcpListener], command: &mut Command) -> std::io::Result<Vec<OwnedFd>> {
    if listeners.is_empty() {
        return Ok(Vec::new());
    }
    let mut first = FIRST_FD;
    let fds = loop {
        let fds = (first..)
            .zip(listeners)
            .map(|(number, listener)| fcntl_dupfd_cloexec(listener, number))
            .collect::<Result<Vec<OwnedFd>, _>>()?;
        let numbers = fds.iter().map(std::os::fd::AsRawFd::as_raw_fd);
        if numbers.eq((first..).take(fds.len())) {
            break fds;
        }
        first += 1;
    };
    for fd in &fds {
        fcntl_setfd(fd, FdFlags::empty())?;
    }
    command.env("LISTEN_FDS", fds.len().to_string()).env("LISTEN_FDS_FIRST_FD", first.to_string());
    Ok(fds)
}

/// A flag with its value.
pub(super) fn arg(name: &str, value: impl Into<OsString>) -> Vec<OsString> {
    vec![name.into(), value.into()]
}

/// A flag without one.
pub(super) fn flag(name: &str, is_set: bool) -> Option<OsString> {
    is_set.then(|| name.into())
}

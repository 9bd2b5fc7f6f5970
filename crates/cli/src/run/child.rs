//! The child processes of `tradewind run`.

use std::ffi::OsString;
use std::io::{IsTerminal, stderr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::{Pid, Resource, Signal as Signo, getrlimit, kill_process};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tradewind_lanes::PrivateDir;
use tradewind_node::args::LogArgs;
use tradewind_node::exit::{
    BAR_ENV, Fatal, INPUT, OK, OrExit, REFUSED, STOPPED, SYSTEM, TASKS_FAILED, say, share_with_bar,
};
use tradewind_node::{BLOCKING_THREADS_MAX, LEAVE, RELAY, is_caught, parent};
use tradewind_system::OwnVariables;

/// Role of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Ventilator,
    Worker,
    Relay,
    Sink,
}

/// A child that is to be started.
pub(super) struct Part {
    pub(super) role: Role,
    /// The stage, if there are several: for people.
    pub(super) stage: Option<String>,
    pub(super) args: Vec<OsString>,
    /// Arguments for its first start only.
    pub(super) first_args: Vec<OsString>,
    /// Arguments instead of those when it is started again.
    pub(super) later_args: Vec<OsString>,
    /// Whether it stays in our process group, which has the terminal.
    pub(super) keeps_terminal: bool,
    /// Whether its commands write to our standard output.
    pub(super) keeps_stdout: bool,
    /// Additional variables of its environment.
    pub(super) env: Vec<(String, String)>,
    /// Listeners that it gets, and gets again when it is started again.
    pub(super) listeners: Vec<UnixListener>,
    /// Standard input of its first start, unless that is as usual.
    pub(super) stdin: Option<Stdio>,
}

/// Meaning of the end of one or more children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The job is over.
    All { ventilator: u8, sink: u8 },
    /// A worker or a relay died of a signal while the job goes on.
    Killed { child: usize },
    /// A child cannot do its part.
    Failed { code: u8 },
}

/// The children that run.
pub(super) struct Children {
    logs: LogArgs,
    /// Directory of their sockets. Goes when they have.
    sockets: PrivateDir,
    /// The largest message of all of them.
    message_bytes_max: u64,
    /// The ventilator draws a progress bar on a terminal.
    has_bar: bool,
    ends: Signal,
    processes: Vec<Process>,
    /// All were told to quit: whatever they end with now is no news.
    is_quitting: bool,
    /// From the request to quit to SIGKILL.
    quit_grace: Duration,
    /// The job is over, and all were told to leave.
    is_dismissed: bool,
    relays_until: Option<Instant>,
}

struct Process {
    part: Part,
    started: Started,
    code: Option<u8>,
    /// Number of times in a row that it was killed before it had begun to work.
    early_deaths: u32,
}

/// A child since its last start.
struct Started {
    child: Child,
    at: Instant,
    /// A worker says here that it has heard of the job.
    joined: Option<UnixDatagram>,
}

/// Time that workers have to leave when the job is over: handlers that stay up have two seconds of it to
/// exit by themselves.
const WORKERS_GRACE: Duration = Duration::from_secs(5);

/// Time that the sink has to finish its output after the ventilator has stopped the job.
const SINK_GRACE: Duration = Duration::from_secs(5);

/// Time that relays have to tell the sink when the ventilator is through with the job. One that was
/// killed just then will never hear of it.
const RELAYS_GRACE: Duration = Duration::from_secs(5);

/// From the request to quit to SIGKILL, beside commands that take two seconds of that to end.
const QUIT_GRACE: Duration = Duration::from_secs(5);

/// Before a worker that was told to leave is told so again. More than what counts as one signal.
const LEAVE_AGAIN: Duration = Duration::from_millis(300);

/// Time that a worker takes besides its commands.
const QUIT_MARGIN: Duration = Duration::from_secs(3);

/// Time that the workers wait for the ventilator to leave before them.
const VENTILATOR_GRACE: Duration = Duration::from_millis(500);

/// Age below which a child that is killed, and has not begun to work, may well be killed again.
const LIFE_MIN: Duration = Duration::from_secs(1);

/// Number of times in a row that such a child is started again.
const EARLY_DEATHS_MAX: u32 = 3;

/// First file descriptor of inherited listeners, out of the way of others that a child opens.
const FIRST_FD: i32 = 100;

impl Children {
    /// No child yet.
    pub(super) fn new(
        logs: LogArgs,
        message_bytes_max: u64,
        sockets: PrivateDir,
    ) -> std::io::Result<Self> {
        let has_bar = stderr().is_terminal() && !logs.quiet && !logs.no_progress;
        if has_bar {
            share_with_bar();
        }
        Ok(Self {
            has_bar,
            message_bytes_max,
            logs,
            sockets,
            ends: signal(SignalKind::child())?,
            processes: Vec::new(),
            is_quitting: false,
            quit_grace: QUIT_GRACE,
            is_dismissed: false,
            relays_until: None,
        })
    }

    /// The place for their sockets.
    pub(super) fn sockets(&self) -> &PrivateDir {
        &self.sockets
    }

    /// Time that commands have to end once they are told to.
    pub(super) fn allow_for(&mut self, commands: Duration) {
        self.quit_grace = QUIT_GRACE.max(commands + QUIT_MARGIN);
    }

    /// Starts a child.
    pub(super) fn start_part(&mut self, mut part: Part) -> Result<(), Fatal> {
        let stdin = part.stdin.take().unwrap_or_else(|| part.role.stdin());
        let started = self.spawn(&part, &part.first_args, stdin).or_exit(SYSTEM)?;
        if part.role != Role::Relay {
            // A peer that dials it when it is gone is to be refused.
            part.listeners.clear();
        }
        self.processes.push(Process { part, started, code: None, early_deaths: 0 });
        Ok(())
    }

    /// Starts a child that was killed again.
    pub(super) fn restart(&mut self, child: usize) -> Result<(), Fatal> {
        let part = &self.processes[child].part;
        let new = self.spawn(part, &part.later_args, part.role.stdin()).or_exit(SYSTEM)?;
        let process = &mut self.processes[child];
        process.started = new;
        process.code = None;
        Ok(())
    }

    fn spawn(&self, part: &Part, more: &[OsString], stdin: Stdio) -> std::io::Result<Started> {
        let mut command = Command::new(std::env::current_exe()?);
        // Variables for this process were taken into account, and come as flags.
        OwnVariables::find().hide_from(&mut command);
        let role = part.role;
        if self.has_bar {
            command.env(BAR_ENV, "1");
        }
        command
            .envs(part.env.iter().map(|(name, value)| (name, value)))
            .env(parent::ENV, std::process::id().to_string())
            .envs(self.sockets.path().map(|dir| (parent::DIR_ENV, dir)))
            .arg(role.name())
            .args(arg("--log", self.logs.log.as_deref().unwrap_or("warn")))
            .args(flag("--quiet", self.logs.quiet))
            .args(flag("--no-progress", self.logs.no_progress && role != Role::Sink))
            .args(arg("--message-max", self.message_bytes_max.to_string()))
            .args(more)
            .args(&part.args)
            .stdin(stdin)
            .stdout(if role == Role::Sink || part.keeps_stdout {
                Stdio::inherit()
            } else {
                Stdio::null()
            });
        if role == Role::Worker && !part.keeps_terminal {
            // A command is in its worker's group for an instant before it has one of its own, and
            // what a terminal sends to the whole group just then would end it.
            command.process_group(0);
        }
        let (ours, theirs) = match role {
            Role::Worker => {
                UnixDatagram::pair().map(|(ours, theirs)| (Some(ours), Some(theirs)))?
            }
            Role::Ventilator | Role::Relay | Role::Sink => (None, None),
        };
        let listeners = part.listeners.iter().map(AsFd::as_fd);
        let fds: Vec<_> = listeners.chain(theirs.iter().map(AsFd::as_fd)).collect();
        let passed_on = pass_on(&fds, &mut command)?;
        let child = command.spawn();
        drop(passed_on);
        if let Some(joined) = &ours {
            joined.set_nonblocking(true)?;
        }
        Ok(Started { child: child?, at: Instant::now(), joined: ours })
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
                self.dismiss().await;
                return Ok(End::All { ventilator, sink });
            }
            if let Some(code @ (STOPPED | INPUT)) = self.code(Role::Ventilator) {
                // No process will tell the sink any more; it may be waiting for a disk that is full.
                let _ = tokio::time::timeout(SINK_GRACE, self.all_ended(Role::Sink)).await;
                if self.code(Role::Sink).is_none() {
                    say("tradewind: the output could not be finished; records may be missing");
                }
                self.dismiss().await;
                return Ok(End::All { ventilator: code, sink: code });
            }
            let Some(until) = self.relays_until() else {
                self.ends.recv().await;
                continue;
            };
            if tokio::time::timeout_at(until.into(), self.ends.recv()).await.is_ok() {
                continue;
            }
            if self.code(Role::Ventilator).is_none() {
                return Ok(End::Failed { code: REFUSED });
            }
            // All is stored, and the sink leaves when it is alone.
            self.signal(LEAVE, |role| role == Role::Relay);
            self.relays_until = None;
        }
    }

    /// Returns the time until which the relays must have ended because the ventilator has, or the other
    /// way round; `None` if that is not so.
    fn relays_until(&mut self) -> Option<Instant> {
        let mut relays = self.processes.iter().filter(|process| process.part.role == Role::Relay);
        let is_uneven = match self.code(Role::Ventilator) {
            Some(_) => relays.any(|relay| relay.code.is_none()),
            None => relays.any(|relay| relay.code == Some(REFUSED)),
        };
        let until = self.relays_until.unwrap_or_else(|| Instant::now() + RELAYS_GRACE);
        self.relays_until = is_uneven.then_some(until);
        self.relays_until
    }

    pub(super) fn code(&self, role: Role) -> Option<u8> {
        self.processes.iter().find(|process| process.part.role == role)?.code
    }

    /// Waits until all that are this, or anything, have ended. Cancel-safe.
    async fn all_ended(&mut self, role: impl Into<Option<Role>>) {
        let role = role.into();
        let is_left = |process: &Process| {
            process.code.is_none() && role.is_none_or(|role| process.part.role == role)
        };
        while self.processes.iter().any(is_left) {
            // Whatever a worker ends with now, the job is complete without it.
            if !matches!(self.take_ends(), Ok(None)) {
                continue;
            }
            if self.processes.iter().any(is_left) {
                self.ends.recv().await;
            }
        }
    }

    /// Sends all home when there is no more job. Workers that have joined have heard so; one that
    /// had not yet would dial closed ports for ever. Cancel-safe.
    async fn dismiss(&mut self) {
        if !std::mem::replace(&mut self.is_dismissed, true) {
            self.signal(RELAY, |role| role == Role::Worker);
            self.signal(LEAVE, |role| role != Role::Worker);
        }
        let _ = tokio::time::timeout(WORKERS_GRACE, self.all_ended(None)).await;
        self.quit().await;
    }

    /// Takes note of children that have ended; gives the first end that matters.
    fn take_ends(&mut self) -> Result<Option<End>, Fatal> {
        for child in 0..self.processes.len() {
            let is_over = self.code(Role::Ventilator).is_some();
            let process = &mut self.processes[child];
            if process.code.is_some() {
                continue;
            }
            let Some(status) = process.started.child.try_wait().or_exit(SYSTEM)? else { continue };
            let code = status.code().map_or(SYSTEM, |code| code as u8);
            process.code = Some(code);
            if self.is_quitting || self.is_dismissed {
                continue;
            }
            let part = &process.part;
            match part.role {
                // There is nothing left for another to do.
                Role::Relay if is_over => {}
                Role::Worker | Role::Relay if is_killed(status) => {
                    let what = part.what();
                    let is_early = !process.started.has_worked();
                    process.early_deaths = if is_early { process.early_deaths + 1 } else { 0 };
                    if process.early_deaths <= EARLY_DEATHS_MAX {
                        tracing::warn!(%status, "a {what} was killed; another takes its place");
                        return Ok(Some(End::Killed { child }));
                    }
                    say(&format!(
                        "tradewind: a {what} was killed as soon as it was started, {} times in a \
                         row ({status})",
                        process.early_deaths
                    ));
                    return Ok(Some(End::Failed { code: SYSTEM }));
                }
                Role::Worker if code == OK => {}
                // It was told to stop before it could listen to that.
                Role::Ventilator if status.signal() == Some(RELAY.as_raw()) => {
                    say("stopped before the job began: nothing was run");
                    return Ok(Some(End::Failed { code: STOPPED }));
                }
                // It stops only when it is told to, which is not for others to do.
                Role::Sink | Role::Ventilator if is_killed(status) => {
                    say(&format!("tradewind: the {} was killed ({status})", part.role.name()));
                    return Ok(Some(End::Failed { code: SYSTEM }));
                }
                // Before it says that its input is bad, it has seen to what it had read.
                Role::Ventilator if matches!(code, OK | TASKS_FAILED | STOPPED | INPUT) => {}
                Role::Sink if matches!(code, OK | TASKS_FAILED) => {}
                // The ventilator says why.
                Role::Relay if matches!(code, OK | TASKS_FAILED | REFUSED) => {}
                Role::Ventilator | Role::Worker | Role::Relay | Role::Sink => {
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

    /// Has the ventilator say how things stand.
    pub(super) fn look(&mut self) {
        // One that has only just been started would be ended by the question.
        let ventilator = self.processes.iter().find(|it| it.part.role == Role::Ventilator);
        let pid = ventilator.and_then(|it| Pid::from_raw(it.started.child.id().cast_signed()));
        if pid.is_some_and(|pid| is_caught(pid, Signo::USR1)) {
            self.signal(Signo::USR1, |role| role == Role::Ventilator);
        } else {
            say("starting");
        }
    }

    /// Ends all children, the hard way if need be.
    pub(super) async fn quit(&mut self) {
        self.is_quitting = true;
        // Before its workers, each of which it would otherwise call gone.
        self.signal(LEAVE, |role| role == Role::Ventilator);
        let _ = tokio::time::timeout(VENTILATOR_GRACE, self.all_ended(Role::Ventilator)).await;
        self.signal(LEAVE, |_| true);
        if tokio::time::timeout(self.quit_grace, self.all_ended(None)).await.is_err() {
            self.signal(Signo::KILL, |_| true);
            self.all_ended(None).await;
        }
    }

    /// Ends all children, and workers do not wait for their commands either.
    pub(super) async fn quit_now(&mut self) {
        self.is_quitting = true;
        // One that stops its commands kills them when it is told to leave once more.
        let until = Instant::now() + self.quit_grace;
        while Instant::now() < until {
            self.signal(LEAVE, |_| true);
            if tokio::time::timeout(LEAVE_AGAIN, self.all_ended(None)).await.is_ok() {
                return;
            }
        }
        self.quit().await;
    }

    fn signal(&mut self, signo: Signo, is_meant: impl Fn(Role) -> bool) {
        for process in &mut self.processes {
            // Until it was waited for, its id is not given to another process.
            let is_running =
                process.code.is_none() && matches!(process.started.child.try_wait(), Ok(None));
            if is_running
                && is_meant(process.part.role)
                && let Some(pid) = Pid::from_raw(process.started.child.id().cast_signed())
            {
                let _ = kill_process(pid, signo);
            }
        }
    }
}

impl Started {
    /// Has it lived long enough, or said that it works?
    fn has_worked(&self) -> bool {
        let has_joined = self.joined.as_ref().is_some_and(|joined| joined.recv(&mut [0]).is_ok());
        has_joined || self.at.elapsed() >= LIFE_MIN
    }
}

impl Part {
    /// A child that needs no more than this.
    pub(super) fn new(role: Role, args: Vec<OsString>, listeners: Vec<UnixListener>) -> Self {
        let (first_args, later_args) = (Vec::new(), Vec::new());
        let env = Vec::new();
        let (stage, keeps_terminal) = (None, false);
        Self {
            role,
            stage,
            args,
            first_args,
            later_args,
            keeps_terminal,
            keeps_stdout: false,
            env,
            listeners,
            stdin: None,
        }
    }

    /// Returns its name for people.
    fn what(&self) -> String {
        match &self.stage {
            Some(stage) => format!("{} of stage {stage:?}", self.role.name()),
            None => self.role.name().to_owned(),
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
            Self::Relay => "relay",
            Self::Sink => "sink",
        }
    }
}

fn is_killed(status: ExitStatus) -> bool {
    status.signal().is_some()
}

/// Makes sockets survive into a child, at numbers that follow one another. They are closed here when
/// the result is dropped.
fn pass_on(sockets: &[BorrowedFd<'_>], command: &mut Command) -> std::io::Result<Vec<OwnedFd>> {
    if sockets.is_empty() {
        return Ok(Vec::new());
    }
    let limit = getrlimit(Resource::Nofile).current.and_then(|limit| i32::try_from(limit).ok());
    let mut first = limit.map_or(FIRST_FD, |limit| FIRST_FD.min(limit / 2));
    let fds = loop {
        let fds = (first..)
            .zip(sockets)
            .map(|(number, socket)| fcntl_dupfd_cloexec(socket, number))
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

/// Threads of this process: the first one, and those for `stderr` and for values.
const RUN_THREADS: usize = 3;

impl Role {
    /// Threads of a program of this role at most, without those of a worker's slots: its first one, the one for
    /// `stderr`, the one that reads or writes files, and those for what would block it.
    fn threads_max(self) -> usize {
        BLOCKING_THREADS_MAX
            + match self {
                Self::Ventilator | Self::Sink => 3,
                Self::Worker | Self::Relay => 2,
            }
    }
}

/// Tells a worker how many workers and relays were started together with it.
pub(super) fn share_args(workers: u32, relays: usize) -> Vec<OsString> {
    let threads = RUN_THREADS
        + Role::Ventilator.threads_max()
        + Role::Sink.threads_max()
        + relays * Role::Relay.threads_max()
        + workers as usize * Role::Worker.threads_max();
    [arg("--share", workers.to_string()), arg("--share-threads", threads.to_string())].concat()
}

/// A flag with its value.
pub(super) fn arg(name: &str, value: impl Into<OsString>) -> Vec<OsString> {
    vec![name.into(), value.into()]
}

/// A flag without one.
pub(super) fn flag(name: &str, is_set: bool) -> Option<OsString> {
    is_set.then(|| name.into())
}

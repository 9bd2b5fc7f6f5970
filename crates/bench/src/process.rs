//! Programs that are started, watched and ended.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::machine::memory_available_bytes;
use crate::tidy;

/// Time after which anything counts as stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Interval at which the machine's memory is checked while something is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Free memory below which a measurement is given up.
const AVAILABLE_BYTES_MIN: u64 = 1 << 30;

/// Bytes of a failed program's stderr that are shown.
const STDERR_BYTES_MAX: usize = 2000;

/// Unit of processor time in the kernel: a hundredth of a second.
const TICK: Duration = Duration::from_millis(10);

/// Program that is about to be started. It reads nothing and its output is not kept, unless asked
/// for.
#[derive(Debug)]
pub(crate) struct Program {
    command: Command,
    is_silent: bool,
}

/// Program that runs. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    child: Child,
    stderr: Option<File>,
}

impl Program {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TRADEWIND_") {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self { command, is_silent: false }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Runs it as this user and group.
    pub(crate) fn user(mut self, id: u32) -> Self {
        self.command.uid(id).gid(id);
        self
    }

    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.command.stdin(stdin);
        self
    }

    pub(crate) fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.command.stdout(stdout);
        self
    }

    /// Drops its stderr: the files of a thousand programs would be too many.
    pub(crate) fn silent(mut self) -> Self {
        self.is_silent = true;
        self
    }

    pub(crate) fn start(mut self) -> Result<Running> {
        let program = Path::new(self.command.get_program());
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let stderr = if self.is_silent {
            self.command.stderr(Stdio::null());
            None
        } else {
            let file = tempfile::tempfile().context("cannot make a scratch file")?;
            self.command.stderr(file.try_clone()?);
            Some(file)
        };
        let child =
            tidy::spawn(&mut self.command).with_context(|| format!("cannot start {name}"))?;
        Ok(Running { name, child, stderr })
    }

    /// Starts it, waits for its end, and returns its output.
    pub(crate) fn output(self) -> Result<String> {
        let printed = tempfile::tempfile().context("cannot make a scratch file")?;
        self.stdout(printed.try_clone()?).start()?.finish()?;
        Ok(read_all(&printed))
    }
}

impl Running {
    /// Returns its stdin, if that is a pipe.
    pub(crate) fn take_stdin(&mut self) -> Result<ChildStdin> {
        self.child.stdin.take().context("its stdin is not a pipe")
    }

    /// Returns its stdout, if that is a pipe.
    pub(crate) fn take_stdout(&mut self) -> Result<ChildStdout> {
        self.child.stdout.take().context("its stdout is not a pipe")
    }

    /// Returns the stderr that it has written so far.
    pub(crate) fn said(&self) -> String {
        self.stderr.as_ref().map(read_all).unwrap_or_default()
    }

    /// Waits for its end, which has to be a good one. Returns the processor time of it and its
    /// children.
    pub(crate) fn finish(mut self) -> Result<Duration> {
        self.wait(PATIENCE)?;
        let cpu = self.cpu();
        let status = self.child.wait()?;
        if !status.success() {
            bail!("{} ended with {status}: {}", self.name, tail(&self.said()));
        }
        Ok(cpu)
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(self) -> Result<()> {
        kill_process(self.pid(), Signal::TERM)?;
        self.wait(PATIENCE)
    }

    /// Waits until it has ended, without taking its status.
    pub(crate) fn wait(&self, patience: Duration) -> Result<()> {
        let pidfd = pidfd_open(self.pid(), PidfdFlags::empty())?;
        wait_readable(&pidfd, patience)
            .with_context(|| format!("{} does not end: {}", self.name, tail(&self.said())))
    }

    /// Returns the processor time that it and those of its children that have ended have used so
    /// far.
    pub(crate) fn cpu(&self) -> Duration {
        // pid (name) state ..., see proc_pid_stat(5): utime is field 14, then stime, cutime, cstime.
        let stat = self.proc("stat");
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks = fields.split_ascii_whitespace().skip(11).take(4);
        TICK * ticks.filter_map(|ticks| ticks.parse::<u32>().ok()).sum()
    }

    /// Returns its own processor time, to the nanosecond; only while it runs.
    pub(crate) fn cpu_exact(&self) -> Duration {
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.pid().as_raw_pid())) else {
            return Duration::ZERO;
        };
        let threads = threads.flatten().map(|thread| thread.path().join("schedstat"));
        let stats = threads.filter_map(|path| fs::read_to_string(path).ok());
        // The first number is the time on a processor.
        let times = stats.filter_map(|stat| stat.split(' ').next()?.parse().ok());
        times.map(Duration::from_nanos).sum()
    }

    /// Waits until it has written this to stderr for the nth time.
    pub(crate) fn wait_until_said(&self, text: &str, times: usize) -> Result<()> {
        let began = Instant::now();
        while self.said().matches(text).count() < times {
            if began.elapsed() > PATIENCE {
                bail!("{} did not say {text:?} {times} times: {}", self.name, tail(&self.said()));
            }
            leave_memory_to_others()?;
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.pid().as_raw_pid());
        fs::read_to_string(path).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        tidy::end(&mut self.child);
    }
}

/// Waits until all have ended, each well. Returns their processor time. If one ends badly, the
/// others are not waited for.
pub(crate) fn finish_all(mut all: Vec<Running>) -> Result<Duration> {
    let mut cpu = Duration::ZERO;
    let began = Instant::now();
    while !all.is_empty() {
        let ended = wait_for_any(&all)?;
        for index in ended.into_iter().rev() {
            cpu += all.swap_remove(index).finish()?;
        }
        if began.elapsed() > PATIENCE {
            let names: Vec<_> = all.iter().map(|running| running.name.as_str()).collect();
            bail!("{} did not end in {PATIENCE:?}", names.join(", "));
        }
        leave_memory_to_others()?;
    }
    Ok(cpu)
}

/// Waits a moment for any of them to end. Returns those that have.
fn wait_for_any(all: &[Running]) -> Result<Vec<usize>> {
    let pidfds: io::Result<Vec<OwnedFd>> =
        all.iter().map(|running| Ok(pidfd_open(running.pid(), PidfdFlags::empty())?)).collect();
    let pidfds = pidfds?;
    let mut polled: Vec<_> = pidfds.iter().map(|pidfd| PollFd::new(pidfd, PollFlags::IN)).collect();
    poll(&mut polled, Some(&Timespec::try_from(LOOK_INTERVAL)?))?;
    let ended = polled.iter().enumerate().filter(|(_, fd)| !fd.revents().is_empty());
    Ok(ended.map(|(index, _)| index).collect())
}

/// Returns an error if the machine has no memory left: a thousand workers may take more than it
/// has.
fn leave_memory_to_others() -> Result<()> {
    let available = memory_available_bytes();
    if available < AVAILABLE_BYTES_MIN {
        bail!("the machine has only {} MiB of memory left", available >> 20);
    }
    Ok(())
}

/// Waits until there is something to read.
pub(crate) fn wait_readable(fd: impl AsFd, patience: Duration) -> Result<()> {
    let timeout = Timespec::try_from(patience)?;
    if poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout))? == 0 {
        bail!("waited {patience:?} in vain");
    }
    Ok(())
}

fn read_all(file: &File) -> String {
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    // Without the position, which is the program's too.
    let read = file.read_at(&mut bytes, 0).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

fn tail(stderr: &str) -> &str {
    let start = stderr.len().saturating_sub(STDERR_BYTES_MAX);
    let start = (start..=stderr.len()).find(|at| stderr.is_char_boundary(*at)).unwrap_or(0);
    stderr[start..].trim()
}

//! A program that runs, and what it has said so far.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::wait_until;

/// A program that is about to be started. Its stdin is empty and what it writes is captured, unless
/// said otherwise.
#[derive(Debug)]
pub struct Start {
    command: Command,
    stdin: Stdin,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
}

#[derive(Debug)]
enum Stdin {
    Given(Stdio),
    Bytes(Vec<u8>),
    Kept,
}

/// A program that was started. It is killed when this is dropped; if that is because the test
/// fails, what it said is shown.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    status: Option<ExitStatus>,
    stdin: Option<ChildStdin>,
    stdout: Option<Captured>,
    stderr: Option<Captured>,
}

/// A program that has ended by itself.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// Bytes that it wrote to stdout, if that was captured.
    pub stdout: Vec<u8>,
    /// Text that it wrote to stderr, if that was captured.
    pub stderr: String,
}

#[derive(Debug)]
struct Captured {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Start {
    /// A program with this environment and nothing of Tradewind's besides.
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TRADEWIND_") {
                command.env_remove(name);
            }
        }
        // Most tests are about other things than keys; those that are say whose home it is.
        command.env("TRADEWIND_INSECURE", "true");
        // A group of its own, as a shell makes one: the signals of a test reach no other process.
        command.process_group(0);
        Self { command, stdin: Stdin::Given(Stdio::null()), stdout: None, stderr: None }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Adds arguments, separated by spaces.
    #[must_use]
    pub fn words(self, words: &str) -> Self {
        self.args(words.split_whitespace())
    }

    /// Sets the directory in which it runs.
    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Limits the number of files that it may have open. To be called last.
    #[must_use]
    pub fn files_max(self, files: u32) -> Self {
        self.limited(&format!("--nofile={files}:{files}"))
    }

    /// Limits the bytes of each file that it writes, until [`Process::lift_file_bytes_max`]. To be called last.
    #[must_use]
    pub fn file_bytes_max(self, bytes: u64) -> Self {
        self.limited(&format!("--fsize={bytes}:unlimited"))
    }

    fn limited(mut self, limit: &str) -> Self {
        let mut limited = Command::new("prlimit");
        limited.arg(limit);
        limited.arg(self.command.get_program()).args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        if let Some(dir) = self.command.get_current_dir() {
            limited.current_dir(dir);
        }
        limited.process_group(0);
        self.command = limited;
        self
    }

    /// Sets the home of its user: keys are looked for there, and needed for TCP.
    #[must_use]
    pub fn home(mut self, dir: impl AsRef<Path>) -> Self {
        for name in ["XDG_CONFIG_HOME", "CREDENTIALS_DIRECTORY", "TRADEWIND_INSECURE"] {
            self.command.env_remove(name);
        }
        self.command.env("HOME", dir.as_ref());
        self
    }

    /// Sets the bytes of its stdin.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Stdin::Bytes(bytes.into());
        self
    }

    /// Sets its stdin.
    #[must_use]
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdin = Stdin::Given(stdin.into());
        self
    }

    /// Stdin stays open; see [`Process::stdin`].
    #[must_use]
    pub fn keep_stdin(mut self) -> Self {
        self.stdin = Stdin::Kept;
        self
    }

    /// Sets its stdout.
    #[must_use]
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.stdout = Some(stdout.into());
        self
    }

    /// Sets its stderr.
    #[must_use]
    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.stderr = Some(stderr.into());
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(mut self) -> Process {
        let name = format!("{:?}", self.command);
        let (stdin, bytes, keep) = match self.stdin {
            Stdin::Given(stdin) => (stdin, None, false),
            Stdin::Bytes(bytes) => (Stdio::piped(), Some(bytes), false),
            Stdin::Kept => (Stdio::piped(), None, true),
        };
        self.command
            .stdin(stdin)
            .stdout(self.stdout.unwrap_or_else(Stdio::piped))
            .stderr(self.stderr.unwrap_or_else(Stdio::piped));
        let mut child =
            self.command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        // It holds the other ends of pipes that were given to the child.
        drop(self.command);
        let stdin = child.stdin.take();
        let stdin = match bytes {
            Some(bytes) => {
                let mut stdin = stdin.expect("it is a pipe");
                // A program that ends early need not read it all.
                std::thread::spawn(move || stdin.write_all(&bytes));
                None
            }
            None => stdin.filter(|_| keep),
        };
        let stdout = child.stdout.take().map(Captured::of);
        let stderr = child.stderr.take().map(Captured::of);
        Process { child, name, status: None, stdin, stdout, stderr }
    }

    /// Starts it and waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn run(self) -> Ended {
        self.start().wait()
    }
}

impl Captured {
    fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&bytes);
        let reader = std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                to.lock().expect("readers do not panic").extend_from_slice(&buffer[..count]);
            }
        });
        Self { bytes, reader }
    }

    fn with<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        look(&self.bytes.lock().expect("readers do not panic"))
    }

    fn text(&self) -> String {
        self.with(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }
}

impl Process {
    /// Its id.
    ///
    /// # Panics
    /// Never: ids are positive.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Its stdin, if that was kept.
    pub fn stdin(&mut self) -> Option<&mut ChildStdin> {
        self.stdin.as_mut()
    }

    /// The end of its input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Returns the number of lines that it has written to stdout.
    #[must_use]
    pub fn stdout_lines(&self) -> usize {
        let count = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
        self.stdout.as_ref().map_or(0, |stdout| stdout.with(count))
    }

    /// Returns the text that it has written to stderr so far, if that is captured.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.as_ref().map(Captured::text).unwrap_or_default()
    }

    /// Waits until it has said this on stderr.
    ///
    /// # Panics
    /// When it does not, or ends before.
    #[track_caller]
    pub fn wait_for_stderr(&mut self, text: &str) {
        let name = self.name.clone();
        wait_until(&format!("{name} says {text:?}"), || {
            let is_running = self.is_running();
            let has_said = self.stderr().contains(text);
            assert!(has_said || is_running, "{name} ended without a word of {text:?}");
            has_said
        });
    }

    /// Has it not ended yet?
    ///
    /// # Panics
    /// When the system does not know.
    pub fn is_running(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child can be waited for");
        }
        self.status.is_none()
    }

    /// Returns its end, if it has ended.
    ///
    /// # Panics
    /// When the system does not know.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.is_running();
        self.status
    }

    /// Lifts a limit of the bytes of its files.
    ///
    /// # Panics
    /// When it cannot be lifted.
    pub fn lift_file_bytes_max(&self) {
        let pid = self.pid().as_raw_pid().to_string();
        let lifted = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited"]).status();
        assert!(lifted.is_ok_and(|status| status.success()), "the limit is lifted");
    }

    /// Sends it a signal, unless it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            let _ = kill_process(self.pid(), signal);
        }
    }

    /// Sends a signal to it and to its children, as a terminal does for Ctrl-C.
    pub fn signal_group(&mut self, signal: Signal) {
        if self.is_running() {
            let _ = kill_process_group(self.pid(), signal);
        }
    }

    /// Ends it as a power cut would.
    ///
    /// # Panics
    /// When it survives.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        wait_until("a killed process ends", || !self.is_running());
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end, or when another process holds on to its output.
    #[track_caller]
    pub fn wait(mut self) -> Ended {
        self.stdin = None;
        let what = format!("{} ends", self.name);
        wait_until(&what, || !self.is_running());
        // A pipe is at its end when the last process that has it open is gone.
        let what = format!("all that {} has started ends", self.name);
        wait_until(&what, || {
            let mut readers = self.stdout.iter().chain(&self.stderr);
            readers.all(|captured| captured.reader.is_finished())
        });
        let status = self.status.expect("it has ended");
        let stdout = self.stdout.as_ref().map(|stdout| stdout.with(<[u8]>::to_vec));
        Ended { status, stdout: stdout.unwrap_or_default(), stderr: self.stderr() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut text = format!("--- {} ({:?})\n", self.name, self.status);
            for line in self.stderr().lines() {
                let _ = writeln!(text, "    {line}");
            }
            eprint!("{text}");
        }
        if self.status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Ended {
    /// The exit code, or what a shell makes of the signal.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status.code().or(self.status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
    }

    /// Returns the text that it wrote to stdout.
    ///
    /// # Panics
    /// When it is not UTF-8.
    #[must_use]
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("the output is text")
    }

    /// Sees to it that it ended with this code.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "{:?}, and said:\n{}", self.status, self.stderr);
        self
    }
}

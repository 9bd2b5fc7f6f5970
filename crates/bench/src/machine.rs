//! Machine and versions that were measured.

use std::fs;
use std::process::Command;
use std::thread;

use serde::Serialize;

use crate::lab::Lab;

/// Facts for the header of every table.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: f64,
    pub(crate) kernel: String,
    /// Date, in UTC.
    pub(crate) date: String,
    /// Load average of the last minute at the start: other load of the machine.
    pub(crate) load: f64,
    /// Names and versions; those that could not be found are left out.
    pub(crate) versions: Vec<(String, String)>,
}

impl Machine {
    pub(crate) fn look(lab: &Lab) -> Self {
        Self {
            cpu: proc_value("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into()),
            cores: thread::available_parallelism().map_or(0, usize::from),
            memory_gib: memory_bytes("MemTotal") as f64 / f64::from(1 << 30),
            kernel: read("/proc/sys/kernel/osrelease"),
            date: first_line("date", &["-u", "+%F %H:%M UTC"]).unwrap_or_default(),
            load: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|l| l.parse().ok())
                .unwrap_or(0.0),
            versions: versions(lab),
        }
    }

    /// Creates one without any facts.
    #[cfg(test)]
    pub(crate) fn unknown() -> Self {
        let (cpu, kernel, date) = (String::new(), String::new(), String::new());
        Self { cpu, cores: 0, memory_gib: 0.0, kernel, date, load: 0.0, versions: Vec::new() }
    }

    /// Returns the facts in one line.
    pub(crate) fn summary(&self) -> String {
        let Self { cpu, cores, memory_gib, kernel, .. } = self;
        format!("{cpu}, {cores} cores, {memory_gib:.0} GiB, Linux {kernel}")
    }
}

fn versions(lab: &Lab) -> Vec<(String, String)> {
    let pipeline =
        lab.peers.pipeline.as_ref().and_then(|p| first_line(&p.to_string_lossy(), &["version"]));
    let python = lab.peers.python.as_ref().map(|p| p.to_string_lossy().into_owned());
    let package = |name: &str| {
        let code = format!("from importlib.metadata import version; print(version('{name}'))");
        first_line(python.as_ref()?, &["-c", &code])
    };
    let nats =
        lab.peers.nats.as_ref().and_then(|p| first_line(&p.to_string_lossy(), &["--version"]));
    let scratch = lab.scratch().to_string_lossy();
    let all = [
        ("Tradewind", Some(tradewind())),
        ("rustc", first_line("rustc", &["--version"]).map(|line| word(&line, 1))),
        ("zeromq crate", zeromq_crate()),
        ("libzmq", pipeline),
        ("xargs (findutils)", first_line("xargs", &["--version"]).map(last_word)),
        ("GNU parallel", first_line("parallel", &["--version"]).map(last_word)),
        ("NATS", first_line("nats-server", &["--version"]).map(last_word)),
        ("NATS with sync", nats.map(last_word)),
        ("scratch files on", first_line("findmnt", &["-no", "FSTYPE", "-T", &scratch])),
        ("beanstalkd", first_line("beanstalkd", &["-v"]).map(last_word)),
        ("redis", first_line("redis-server", &["--version"]).map(|line| word(&line, 2))),
        ("celery", package("celery")),
        ("dask", package("distributed")),
        ("python", python.as_ref().and_then(|p| first_line(p, &["--version"])).map(last_word)),
    ];
    let found = all.into_iter().filter_map(|(name, version)| Some((name.to_owned(), version?)));
    found.collect()
}

/// Returns the version, with the commit that was measured, if there is one.
fn tradewind() -> String {
    let commit = first_line("git", &["describe", "--always", "--dirty", "--exclude=*"]);
    let version = env!("CARGO_PKG_VERSION");
    commit.map_or_else(|| version.to_owned(), |commit| format!("{version} ({commit})"))
}

/// Returns the version in Cargo.lock.
fn zeromq_crate() -> Option<String> {
    let lock = include_str!("../../../Cargo.lock");
    let (_, rest) = lock.split_once("name = \"zeromq\"\nversion = \"")?;
    rest.split('"').next().map(str::to_owned)
}

/// Returns the bytes that programs could still get without swapping.
pub(crate) fn memory_available_bytes() -> u64 {
    memory_bytes("MemAvailable")
}

fn memory_bytes(name: &str) -> u64 {
    let value = proc_value("/proc/meminfo", name).unwrap_or_default();
    word(&value, 0).parse::<u64>().unwrap_or(0) << 10
}

fn proc_value(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

fn read(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_default().trim().to_owned()
}

fn first_line(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().filter(|_| output.status.success()).map(str::to_owned)
}

fn word(line: &str, index: usize) -> String {
    line.split_whitespace().nth(index).unwrap_or_default().trim_start_matches("v=").to_owned()
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `Option::map` gives")]
fn last_word(line: String) -> String {
    line.split_whitespace().next_back().unwrap_or_default().to_owned()
}

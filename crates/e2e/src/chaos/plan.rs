//! A round's job, decided by a seed.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use super::{Expected, Fault, Role, Tempo, schedule};

/// A round: a job, and what happens to those who do it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Seed of everything here, the tasks' texts included.
    pub seed: u64,
    /// Kind of the tasks.
    pub work: Work,
    /// Number of tasks.
    pub tasks: u64,
    /// Number of tasks, the last ones, that end only when the faults are over: so these find the job at work, however
    /// fast it is. For commands alone. Each fills a slot until then: there must be slots beside them.
    pub held: u64,
    /// Number of retries of a failed task.
    pub retries: u32,
    /// Form of the records.
    pub format: Format,
    /// Whether the sink syncs each batch.
    pub has_fsync: bool,
    /// Time that a resumed ventilator waits for workers if the sink is new too.
    pub resume_wait: Duration,
    /// Number of workers.
    pub workers: usize,
    /// Number of tasks that each of them runs at once.
    pub slots: u32,
    /// Faults, in their order.
    pub faults: Vec<Fault>,
    /// Do they have keys, and speak TLS?
    pub has_keys: bool,
}

/// Kind of the tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A text that comes back.
    Echo,
    /// A time to wait, without a process.
    Sleep {
        /// Longest wait in milliseconds.
        ms_max: u64,
    },
    /// A process that waits and says which it was.
    Command {
        /// Longest wait in milliseconds.
        ms_max: u64,
        /// Of a hundred tasks, those that fail at each attempt.
        failing_percent: u64,
    },
}

/// Form of the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One object a line, as tasks end.
    Jsonl,
    /// One object a line, by the input's order.
    JsonlOrdered,
    /// The outputs alone, by the input's order.
    Lines,
}

/// File that is there once the faults are over.
pub(super) const CALM_FILE: &str = "calm";

/// The exit code of a task that fails.
const FAILED: i64 = 3;

/// What a command does.
const COMMAND: &str = "set -- $1; sleep $2; while test -n \"$4\" && ! test -e calm; do sleep 0.05; done; \
                       echo $1; exit $3";

/// Time that a process takes beside its wait, on a busy machine.
const SPAWN_MS: u64 = 10;

/// As many processes as two cores start in a second, and do other things besides.
const COMMANDS_PER_SECOND_MAX: u64 = 150;

impl Plan {
    /// A round that lasts about as long as its faults, if these are many.
    #[must_use]
    pub fn new(seed: u64, roles: &[Role], has_cuts: bool, length: Duration) -> Self {
        let mut random = Rng::with_seed(seed);
        let random = &mut random;
        let (workers, slots) = (random.usize(1..=4), random.u32(1..=4));
        let ms_max = [1, 30, 100, 300][random.usize(..4)];
        let (work, retries) = match random.u8(..6) {
            0 => (Work::Echo, 0),
            1 => (Work::Sleep { ms_max }, 0),
            2 => (Work::Command { ms_max, failing_percent: 0 }, 0),
            3 => (Work::Command { ms_max, failing_percent: 0 }, 2),
            _ => (Work::Command { ms_max, failing_percent: 5 }, random.u32(0..=2)),
        };
        let format = match random.u8(..3) {
            0 => Format::Jsonl,
            // A sleep says nothing.
            1 if !matches!(work, Work::Sleep { .. }) => Format::Lines,
            _ => Format::JsonlOrdered,
        };
        // Alone it would take about half of that time, and the faults hold it up.
        let seconds = length.as_secs_f64() * (0.3 + 0.5 * random.f64());
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "about as many"
        )]
        let tasks = match work {
            Work::Echo => random.u64(200_000..=1_500_000),
            _ => (work.rate_max(workers as u64 * u64::from(slots)) as f64 * seconds) as u64,
        };
        let gap_mean = Duration::from_millis([250, 400, 600][random.usize(..3)]);
        let tempo = Tempo { roles: roles.to_vec(), has_cuts, gap_mean, length };
        Self {
            seed,
            work,
            tasks: tasks.max(100),
            held: 0,
            retries,
            format,
            has_fsync: random.bool(),
            // The default and, so that more is done under faults, less.
            resume_wait: Duration::from_millis([10_000, 1_000, 0][random.usize(..3)]),
            workers,
            slots,
            faults: schedule(random, &tempo),
            has_keys: random.bool(),
        }
    }

    /// The task's text, one line.
    #[must_use]
    pub fn task(&self, seq: u64) -> String {
        let mut random = self.random(seq);
        match self.work {
            Work::Echo => {
                let filler: String = (0..random.usize(..80)).map(|_| random.lowercase()).collect();
                format!("{seq} {filler}")
            }
            Work::Sleep { ms_max } => seconds(random.u64(..=ms_max)),
            Work::Command { ms_max, failing_percent } => {
                let wait = seconds(random.u64(..=ms_max));
                let fails = random.u64(..100) < failing_percent;
                let code = if fails { FAILED } else { 0 };
                let held = if seq < self.free() { "" } else { " held" };
                format!("{seq} {wait} {code}{held}")
            }
        }
    }

    /// Returns the record that a task has to have.
    #[must_use]
    pub fn expected(&self, seq: u64) -> Expected {
        let task = self.task(seq);
        match self.work {
            Work::Echo => Expected { status: "ok", exit_code: None, output: task },
            Work::Sleep { .. } => Expected { status: "ok", exit_code: None, output: String::new() },
            Work::Command { .. } => {
                let is_ok = task.split(' ').nth(2) == Some("0");
                let code = if is_ok { 0 } else { FAILED };
                let status = if code == 0 { "ok" } else { "failed" };
                Expected { status, exit_code: Some(code), output: format!("{seq}\n") }
            }
        }
    }

    /// Returns the handler of the workers.
    #[must_use]
    pub fn handler(&self) -> Vec<&'static str> {
        match self.work {
            Work::Echo => vec!["--echo"],
            Work::Sleep { .. } => vec!["--sleep"],
            Work::Command { .. } => {
                vec!["--", "sh", "-c", COMMAND, "sh", "{}"]
            }
        }
    }

    /// Returns the number of tasks that are not held.
    pub(super) fn free(&self) -> u64 {
        self.tasks - self.held
    }

    /// Returns the time that the job may take without faults, generously.
    #[must_use]
    pub fn time_alone(&self) -> Duration {
        let rate = match self.work {
            Work::Echo => 20_000,
            work => work.rate_max(self.workers as u64 * u64::from(self.slots)),
        };
        Duration::from_secs(1 + self.tasks / rate) * (1 + self.retries)
    }

    fn random(&self, seq: u64) -> Rng {
        // Any odd number spreads them: one generator for each task, so that tasks need no memory.
        Rng::with_seed(self.seed ^ seq.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

impl Work {
    /// Returns the number of tasks a second, with this number at once.
    fn rate_max(self, at_once: u64) -> u64 {
        match self {
            Self::Echo => 1_000_000,
            Self::Sleep { ms_max } => at_once * 1_000 / (1 + ms_max / 2),
            Self::Command { ms_max, .. } => {
                (at_once * 1_000 / (SPAWN_MS + ms_max / 2)).min(COMMANDS_PER_SECOND_MAX)
            }
        }
    }
}

impl Format {
    /// Is it by the input's order?
    #[must_use]
    pub fn is_ordered(self) -> bool {
        self != Self::Jsonl
    }

    /// The output's name, and the sink's flags for it.
    pub(super) fn flags(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Jsonl => ("out.jsonl", &[]),
            Self::JsonlOrdered => ("out.jsonl", &["--ordered"]),
            Self::Lines => ("out.txt", &["--format", "lines"]),
        }
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1_000, ms % 1_000)
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let work = match self.work {
            Work::Echo => "echo".to_owned(),
            Work::Sleep { ms_max } => format!("sleep up to {ms_max} ms"),
            Work::Command { ms_max, failing_percent } => format!(
                "commands up to {ms_max} ms, {failing_percent}% fail, {} retries",
                self.retries
            ),
        };
        let format = match self.format {
            Format::Jsonl => "jsonl",
            Format::JsonlOrdered => "ordered jsonl",
            Format::Lines => "lines",
        };
        let fsync = if self.has_fsync { ", fsync batch" } else { "" };
        let keys = if self.has_keys { ", with keys" } else { "" };
        write!(
            f,
            "{} tasks ({work}), {format}{fsync}, {} × {} slots, resume wait {:?}{keys}",
            self.tasks, self.workers, self.slots, self.resume_wait
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seed: u64) -> Plan {
        Plan::new(seed, &Role::ALL, true, Duration::from_secs(25))
    }

    #[test]
    fn a_seed_brings_back_its_round() {
        assert_eq!(format!("{:?}", plan(3)), format!("{:?}", plan(3)));
        assert_eq!(plan(3).task(17), plan(3).task(17));
        assert_ne!(format!("{:?}", plan(3)), format!("{:?}", plan(4)));
    }

    #[test]
    fn every_variety_occurs() {
        let all: String = (0..200).map(|seed| format!("{}\n", plan(seed))).collect();
        for text in [
            "echo",
            "sleep",
            "commands",
            " 5% fail, 0",
            " 5% fail, 2",
            " jsonl",
            "ordered jsonl",
            "lines",
            "fsync",
            "with keys",
            "1 × ",
            "4 × ",
            "wait 10s",
            "wait 0ns",
            "× 1 slots",
            "× 4 slots",
        ] {
            assert!(all.contains(text), "{text:?} in\n{all}");
        }
    }

    #[test]
    fn tasks_are_one_line_and_say_what_is_expected() {
        for seed in 0..100 {
            let plan = plan(seed);
            assert!(plan.tasks >= 100);
            for seq in [0, 1, 50, 99] {
                let (task, expected) = (plan.task(seq), plan.expected(seq));
                assert!(!task.contains('\n') && !task.is_empty());
                match plan.work {
                    Work::Echo => assert_eq!(expected.output, task),
                    Work::Sleep { .. } => assert!(expected.output.is_empty()),
                    Work::Command { .. } => {
                        assert_eq!(expected.output, format!("{seq}\n"));
                        assert_eq!(expected.status == "ok", expected.exit_code == Some(0));
                        assert!(task.starts_with(&format!("{seq} ")), "{task}");
                    }
                }
            }
        }
        let failing = (0..100).map(plan).find(|plan| plan.to_string().contains("5% fail")).unwrap();
        let failed = (0..1_000).filter(|seq| failing.expected(*seq).status == "failed").count();
        assert!((20..=100).contains(&failed), "{failed}");
    }
}

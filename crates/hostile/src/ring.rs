//! A job of the real programs, with honest workers, and what has to be true of it whatever a liar does.

use std::io::Write;
use std::time::Duration;

use tradewind_e2e::{
    MIB, Process, Record, Scene, Start, cpu_time, memory_bytes_max, records, wait_for, wait_until,
};

use crate::stage::{Stage, Worker};

/// Settings of a ring's programs, as flags.
#[derive(Clone, Copy, Default)]
pub(crate) struct Flags {
    pub(crate) ventilator: &'static str,
    pub(crate) sink: &'static str,
    /// File for the records; `out.jsonl` if `None`.
    pub(crate) output: Option<&'static str>,
    /// Limit of open files.
    pub(crate) files: Option<u32>,
}

/// A handler that takes as long as a person needs to notice it, and writes the task.
pub(crate) const SLOW: &str = "sleep 0.01; printf %s \"$1\"";

/// Ventilator, sink and workers of one job.
pub(crate) struct Ring {
    pub(crate) ventilator: Process,
    pub(crate) sink: Process,
    pub(crate) workers: Vec<Process>,
    flags: Flags,
    fed: u64,
    /// Last: it kills what is left.
    pub(crate) scene: Scene,
}

impl Ring {
    /// Starts a sink and a ventilator, whose input stays open.
    #[track_caller]
    pub(crate) fn start(stage: &Stage, flags: Flags) -> Self {
        Self::start_after(stage, flags, |_| ()).0
    }

    /// Starts a sink; then the ventilator, after something has been done.
    #[track_caller]
    pub(crate) fn start_after<T>(
        stage: &Stage,
        flags: Flags,
        between: impl FnOnce(&Scene) -> T,
    ) -> (Self, T) {
        let scene = stage.scene();
        let mut sink = Self::sink(&scene, flags).start();
        sink.wait_for_stderr("the sink is up");
        let done = between(&scene);
        let mut ventilator = Self::ventilator(&scene, flags).keep_stdin().start();
        ventilator.wait_for_stderr("the ventilator is up");
        (Self { ventilator, sink, workers: Vec::new(), flags, fed: 0, scene }, done)
    }

    /// A ring of programs that run.
    pub(crate) fn of(scene: Scene, flags: Flags, ventilator: Process, sink: Process) -> Self {
        Self { ventilator, sink, workers: Vec::new(), flags, fed: 0, scene }
    }

    /// Starts a ring whose input is a file with all of its tasks.
    #[track_caller]
    pub(crate) fn start_whole(stage: &Stage, flags: Flags, tasks: u64) -> Self {
        let prepare = |scene: &Scene| scene.file("in", lines(0..tasks));
        let (mut ring, _) = Self::start_after(stage, flags, prepare);
        ring.fed = tasks;
        ring
    }

    /// Starts another ventilator, with these flags besides.
    #[track_caller]
    pub(crate) fn restart_ventilator(&mut self, flags: &str) {
        let start = Self::ventilator(&self.scene, self.flags).words(flags);
        self.ventilator = start.keep_stdin().start();
        self.ventilator.wait_for_stderr("the ventilator is up");
    }

    pub(crate) fn sink(scene: &Scene, flags: Flags) -> Start {
        let output = flags.output.unwrap_or("out.jsonl");
        limited(scene.sink(), flags).words("--no-progress --output").arg(output).words(flags.sink)
    }

    pub(crate) fn ventilator(scene: &Scene, flags: Flags) -> Start {
        limited(scene.ventilator(), flags).words("--no-progress").words(flags.ventilator)
    }

    /// Starts an honest worker that hands its tasks back.
    pub(crate) fn echo(&mut self) {
        self.worker("--echo");
    }

    /// Starts an honest worker with two slots that runs [`SLOW`].
    pub(crate) fn slow(&mut self) {
        self.shell(SLOW);
    }

    /// Starts an honest worker with two slots that runs a script.
    pub(crate) fn shell(&mut self, script: &str) {
        let start = self.honest().words("--slots 2 -- sh -c").args([script, "sh", "{}"]);
        self.workers.push(start.start());
    }

    /// Starts an honest worker with these flags.
    pub(crate) fn worker(&mut self, flags: &str) {
        let start = self.honest().words(flags);
        self.workers.push(start.start());
    }

    fn honest(&self) -> Start {
        let name = format!("honest{}", self.workers.len());
        self.scene.worker(&name).arg("--exit-when-done")
    }

    /// Gives the job more tasks.
    #[track_caller]
    pub(crate) fn feed(&mut self, tasks: u64) {
        self.feed_lines(lines(self.fed..self.fed + tasks).as_bytes());
        self.fed += tasks;
    }

    /// Gives the job tasks until this worker is given one: the others may have done all by the time it was let in.
    #[track_caller]
    pub(crate) fn feed_until_given(&mut self, worker: &mut Worker) {
        wait_until("it is given a task", || {
            self.feed(5);
            worker.given() > 0
        });
    }

    /// Gives the job lines as they are.
    #[track_caller]
    pub(crate) fn feed_lines(&mut self, lines: &[u8]) {
        let stdin = self.ventilator.stdin().expect("it was kept");
        stdin.write_all(lines).expect("the ventilator reads on");
    }

    /// Returns the number of tasks that the job has so far.
    pub(crate) fn fed(&self) -> u64 {
        self.fed
    }

    /// Returns the number of records in the output.
    pub(crate) fn stored(&self) -> u64 {
        let bytes = self.scene.read(self.flags.output.unwrap_or("out.jsonl"));
        bytes.iter().filter(|byte| **byte == b'\n').count() as u64
    }

    #[track_caller]
    pub(crate) fn wait_for_stored(&self, count: u64) {
        let mut seen = 0;
        wait_until(&format!("{count} records are stored"), || {
            seen = self.stored();
            seen >= count
        });
    }

    /// Waits for records and does something meanwhile.
    #[track_caller]
    pub(crate) fn wait_for_stored_while(&self, count: u64, mut meanwhile: impl FnMut()) {
        wait_until(&format!("{count} records are stored"), || {
            meanwhile();
            self.stored() >= count
        });
    }

    /// Begins a job with a slow worker.
    #[track_caller]
    pub(crate) fn begin(stage: &Stage, flags: Flags) -> Self {
        let mut ring = Self::start(stage, flags);
        ring.slow();
        ring.feed(60);
        ring.wait_for_stored(6);
        ring
    }

    /// Feeds the job some more tasks and sees to it that it ends as if there had been no liar: the right
    /// record for each task, from an honest worker, and all exit with 0.
    #[track_caller]
    pub(crate) fn end_untouched(mut self) -> Ended {
        self.feed(20);
        self.end(|record| assert!(record.worker.starts_with("honest"), "forged: {record:?}"))
    }

    /// Ends the input and sees to it that all records are there, once, right, and as is asked besides.
    #[track_caller]
    pub(crate) fn end(mut self, check: impl Fn(&Record)) -> Ended {
        self.ventilator.close_stdin();
        let Self { ventilator, sink, workers, flags, fed, scene } = self;
        let ventilator = ventilator.wait().expect(0);
        let sink = sink.wait().expect(0);
        for worker in workers {
            let _ = worker.wait().expect(0);
        }
        let output = flags.output.unwrap_or("out.jsonl");
        let bytes = scene.read(output);
        let mut all = Vec::new();
        if output.ends_with(".jsonl") {
            all = records(&bytes, fed);
            for record in &all {
                check(record);
                if record.worker.starts_with("honest") {
                    assert_eq!(record.status, "ok", "{record:?}");
                    assert_eq!(record.output.as_deref(), Some(&*task(record.seq)), "{record:?}");
                }
            }
        } else {
            let right = lines(0..fed);
            let same = bytes == right.as_bytes();
            assert!(
                same,
                "{} bytes of output, not the {} of {fed} tasks",
                bytes.len(),
                right.len()
            );
        }
        for program in [&ventilator, &sink] {
            assert!(!program.stderr.contains("panicked"), "{}", program.stderr);
        }
        scene.assert_nothing_left();
        Ended { records: all, sink: sink.stderr }
    }

    /// The most memory that a program has had, in MiB.
    #[track_caller]
    pub(crate) fn memory_mib(process: &Process) -> u64 {
        wait_for("the program runs", || memory_bytes_max(process.pid())) / MIB
    }

    /// Waits until a program has done what it was sent; returns the processor time that it took.
    #[track_caller]
    pub(crate) fn settle(process: &Process, since: Duration) -> Duration {
        let mut last = cpu_time(process.pid());
        let mut calm = 0;
        wait_until("the program comes to rest", || {
            std::thread::sleep(Duration::from_millis(90));
            let now = cpu_time(process.pid());
            let used = now.zip(last).map(|(now, last)| now - last);
            last = now;
            calm = if used.is_none_or(|used| used <= Duration::from_millis(20)) {
                calm + 1
            } else {
                0
            };
            calm >= 3
        });
        last.unwrap_or_default().saturating_sub(since)
    }

    /// The processor time that a program has used.
    #[track_caller]
    pub(crate) fn cpu(process: &Process) -> Duration {
        cpu_time(process.pid()).expect("the program runs")
    }
}

/// What was left when a job had ended.
pub(crate) struct Ended {
    pub(crate) records: Vec<Record>,
    /// What the sink said.
    pub(crate) sink: String,
}

/// The line of a task.
pub(crate) fn task(seq: u64) -> String {
    format!("task-{seq}")
}

fn lines(seqs: std::ops::Range<u64>) -> String {
    seqs.map(|seq| format!("{}\n", task(seq))).collect()
}

/// The same program, perhaps with fewer open files.
fn limited(start: Start, flags: Flags) -> Start {
    match flags.files {
        None => start,
        Some(files) => start.files_max(files),
    }
}

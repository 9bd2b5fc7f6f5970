//! One job with real processes: starts them, does to them what the plan says, starts again what it
//! has killed, and compares when they have ended.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::growth::Growth;
use super::plan::CALM_FILE;
use super::{Fault, Gap, Kind, Plan, Role, Tally, Verdict, compare};
use crate::{POLL_INTERVAL, Process, Scene, Signal, Start};

/// Settings of a round.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Whether each process has a network namespace of its own.
    pub has_namespaces: bool,
    /// Time that the job may take after the last fault, beyond its undisturbed time.
    pub patience: Duration,
    /// Set when the rounds are to stop.
    pub interrupted: &'a AtomicBool,
}

/// A round that came to its end.
#[derive(Clone, Debug)]
pub struct Report {
    /// Verdict on the round.
    pub verdict: Verdict,
    /// Time from its first process to its last.
    pub took: Duration,
    /// Time from the last fault to the end of the job.
    pub calm: Duration,
    /// Remark on something that is not wrong.
    pub notes: Vec<String>,
}

/// Why a round failed. The stderr of its processes is left in a directory.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It was interrupted: its end is not known.
    #[error("interrupted")]
    Interrupted,
    /// The machine would not do its part.
    #[error("cannot {0}: {1}")]
    Io(&'static str, #[source] io::Error),
    /// A process ended that was not killed.
    #[error("a {role} ended by itself with {code:?}")]
    Ended {
        /// Role of the process.
        role: Role,
        /// Exit code, if it did not end by a signal.
        code: Option<i32>,
    },
    /// The job did not end, although it was not disturbed any longer.
    #[error("hangs: after {calm:.1?} of calm there are {records} of {tasks} records; {who}")]
    Hang {
        /// Time since the last fault.
        calm: Duration,
        /// Number of records in the output.
        records: u64,
        /// Number of records that there should be.
        tasks: u64,
        /// States of the processes.
        who: String,
    },
    /// The output is not what it should be.
    #[error(
        "wrong: {} lost, {} doubled, {} wrong, {} out of order; such as {:?}",
        .0.lost, .0.doubled, .0.wrong, .0.disordered, .0.examples
    )]
    Wrong(Verdict),
}

/// Time that the other processes have to end by themselves once it is known that they need not.
const PARTING: Duration = Duration::from_secs(3);

/// A round that runs.
#[derive(Debug)]
pub struct Round<'a> {
    // Dropped in this order: the processes end before what they live in is removed.
    places: Vec<Place>,
    growth: Growth,
    events: Option<File>,
    scene: Scene,
    plan: &'a Plan,
    options: Options<'a>,
    began: Instant,
    next_fault: usize,
    last_fault: Instant,
    last_records: u64,
    calm_since: Option<Instant>,
    /// Time since which some that were to end have not ended.
    parting_since: Option<Instant>,
    /// The ventilator or the sink was killed when the output was already complete: the other one
    /// may be gone by then, and no process can tell the new one so.
    has_late_kill: bool,
    tally: Tally,
    notes: Vec<String>,
}

/// Place of a process, in which one runs after the other.
#[derive(Debug)]
struct Place {
    role: Role,
    /// Which of the workers.
    number: usize,
    state: State,
    starts: u32,
    stopped_until: Option<Instant>,
    cut_until: Option<Instant>,
}

#[derive(Debug)]
enum State {
    Up(Process),
    Down { until: Instant },
    Ended { code: Option<i32> },
}

impl<'a> Round<'a> {
    /// Writes the input and makes everything ready.
    ///
    /// # Errors
    /// When the machine will not do that.
    pub fn new(plan: &'a Plan, options: Options<'a>) -> Result<Self, Failure> {
        let mut scene = if options.has_namespaces {
            Scene::with_namespaces(plan.workers)
                .map_err(|error| Failure::Io("make network namespaces", error))?
        } else {
            Scene::new()
        };
        if plan.has_keys {
            scene.make_keys();
        }
        write_input(&scene, plan).map_err(|error| Failure::Io("write the input", error))?;
        let events = File::create(scene.path("events.log"));
        let events = events.map_err(|error| Failure::Io("write a log", error))?;
        let now = Instant::now();
        let place = |role, number| Place {
            role,
            number,
            state: State::Down { until: now },
            starts: 0,
            stopped_until: None,
            cut_until: None,
        };
        let workers = (0..plan.workers).map(|number| place(Role::Worker, number));
        let growth = Growth::new(&scene.path(plan.format.flags().0));
        Ok(Self {
            places: [place(Role::Ventilator, 0), place(Role::Sink, 0)]
                .into_iter()
                .chain(workers)
                .collect(),
            growth,
            events: Some(events),
            scene,
            plan,
            options,
            began: now,
            next_fault: 0,
            last_fault: now,
            last_records: 0,
            calm_since: None,
            parting_since: None,
            has_late_kill: false,
            tally: Tally::default(),
            notes: Vec::new(),
        })
    }

    /// File with the stderr of its processes.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.scene.dir().to_owned()
    }

    /// Runs it to its end. If it fails, its directory is left behind.
    pub fn run(mut self) -> (Tally, Result<Report, Failure>) {
        let result = self.work().and_then(|()| self.judge());
        if let Err(failure) = &result
            && !matches!(failure, Failure::Interrupted)
        {
            self.note_event(&format!("{failure}"));
            self.scene.keep_dir();
        }
        (self.tally, result)
    }

    fn work(&mut self) -> Result<(), Failure> {
        loop {
            if self.options.interrupted.load(Ordering::Relaxed) {
                return Err(Failure::Interrupted);
            }
            self.notice_ends()?;
            self.end_pauses()?;
            if self.is_over()? {
                return Ok(());
            }
            if self.calm_since.is_none() && self.is_fault_due() {
                self.strike();
            }
            self.check_deadline()?;
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Processes that ended although they were not killed.
    fn notice_ends(&mut self) -> Result<(), Failure> {
        for index in 0..self.places.len() {
            let place = &mut self.places[index];
            let State::Up(process) = &mut place.state else { continue };
            let Some(status) = process.status() else { continue };
            let (role, code) = (place.role, status.code());
            place.state = State::Ended { code };
            self.note_event(&format!("{} ended: {status}", self.places[index].name()));
            let is_expected = role != Role::Worker && matches!(code, Some(0 | 1));
            if !is_expected && role != Role::Worker && self.has_late_kill {
                self.notes.push(format!("a late {role} ended with {code:?}"));
            } else if !is_expected {
                return Err(Failure::Ended { role, code });
            }
            // The rest is a matter of moments, which no fault is to prolong.
            self.be_calm();
        }
        Ok(())
    }

    /// Continues, joins and starts what is due.
    fn end_pauses(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        for index in 0..self.places.len() {
            let place = &mut self.places[index];
            if place.stopped_until.is_some_and(|until| until <= now) {
                place.stopped_until = None;
                if let State::Up(process) = &mut place.state {
                    process.signal(Signal::CONT);
                }
            }
            if place.cut_until.is_some_and(|until| until <= now) {
                place.cut_until = None;
                set_cut(&self.scene, place, false);
            }
            if matches!(place.state, State::Down { until } if until <= now) {
                place.starts += 1;
                let log = self.scene.path(&format!("{}.log", place.name()));
                let log = OpenOptions::new().create(true).append(true).open(log);
                let mut log = log.map_err(|error| Failure::Io("write a log", error))?;
                let _ = writeln!(log, "--- start {} at {:.3?}", place.starts, self.began.elapsed());
                let start = start(&self.scene, self.plan, place);
                place.state = State::Up(start.stdout(Stdio::null()).stderr(log).start());
                let text = format!("{} is started", self.places[index].name());
                self.note_event(&text);
            }
        }
        Ok(())
    }

    fn is_fault_due(&mut self) -> bool {
        let Some(fault) = self.plan.faults.get(self.next_fault) else {
            self.be_calm();
            return false;
        };
        match fault.after {
            Gap::Time(gap) => self.last_fault.elapsed() >= gap,
            Gap::Records(more) => {
                let due = self.plan.free().min(self.last_records + more);
                self.places.iter().all(Place::is_well) && self.growth.lines() >= due
            }
        }
    }

    /// The next fault, if there is anybody whom it can meet.
    fn strike(&mut self) {
        let fault = self.plan.faults[self.next_fault];
        self.next_fault += 1;
        // Times add up: a fault that is late does not make the later ones later still.
        match fault.after {
            Gap::Time(gap) => self.last_fault += gap,
            Gap::Records(_) => {
                self.last_fault = Instant::now();
                self.last_records = self.growth.lines();
            }
        }
        let can_suffer = |place: &Place| place.role == fault.role && place.can_suffer(fault.kind);
        let able: Vec<usize> =
            (0..self.places.len()).filter(|index| can_suffer(&self.places[*index])).collect();
        if able.is_empty() {
            return;
        }
        let index = able[fault.worker % able.len()];
        self.hurt(index, fault);
        self.tally.count(fault.role, fault.kind);
        self.note_event(&format!("{} {}", self.places[index].name(), fault.kind));
    }

    fn hurt(&mut self, index: usize, fault: Fault) {
        let place = &mut self.places[index];
        match (fault.kind, &mut place.state) {
            (Kind::Kill(pause), State::Up(process)) => {
                process.kill();
                // It may have ended in that very moment: that is seen later.
                if process.status().is_some_and(|status| status.code().is_some()) {
                    return;
                }
                place.state = State::Down { until: Instant::now() + pause };
                place.stopped_until = None;
                if fault.role != Role::Worker && self.growth.lines() >= self.plan.tasks {
                    self.has_late_kill = true;
                }
            }
            (Kind::Stop(pause), State::Up(process)) => {
                process.signal(Signal::STOP);
                place.stopped_until = Some(Instant::now() + pause);
            }
            (Kind::Cut(pause), _) => {
                set_cut(&self.scene, place, true);
                place.cut_until = Some(Instant::now() + pause);
            }
            (Kind::Kill(_) | Kind::Stop(_), _) => {}
        }
    }

    /// No more faults, and what they have left behind is mended at once.
    fn be_calm(&mut self) {
        if self.calm_since.is_some() {
            return;
        }
        let now = Instant::now();
        self.calm_since = Some(now);
        for place in &mut self.places {
            place.stopped_until = place.stopped_until.map(|_| now);
            place.cut_until = place.cut_until.map(|_| now);
            if let State::Down { until } = &mut place.state {
                *until = now;
            }
        }
        File::create(self.scene.path(CALM_FILE)).expect("a file can be made");
        self.note_event("calm");
    }

    /// Is there nothing more to wait for?
    ///
    /// A sink that has ended by itself has all records, and one whose ventilator has ended by
    /// itself has them too. Normally both end. But one that was killed in the very last moment and
    /// started again may meet no peer any more.
    fn is_over(&mut self) -> Result<bool, Failure> {
        let is_up = |place: &&Place| place.role != Role::Worker && !place.has_ended();
        let up: Vec<&Place> = self.places.iter().filter(is_up).collect();
        let [last] = up[..] else { return Ok(up.is_empty()) };
        let since = *self.parting_since.get_or_insert_with(Instant::now);
        if !self.has_late_kill || since.elapsed() < PARTING {
            return Ok(false);
        }
        let note =
            format!("a {} that was killed at the very end had nobody left to meet", last.role);
        self.note_event(&note);
        self.notes.push(note);
        Ok(true)
    }

    fn check_deadline(&mut self) -> Result<(), Failure> {
        let next = self.plan.faults.get(self.next_fault);
        let is_waited_for = next.is_some_and(|fault| matches!(fault.after, Gap::Records(_)));
        let since = self.calm_since.or(is_waited_for.then_some(self.last_fault));
        let Some(calm) = since.map(|since| since.elapsed()) else { return Ok(()) };
        if calm < self.options.patience + self.plan.time_alone() {
            return Ok(());
        }
        let who: Vec<String> = self.places.iter().map(Place::describe).collect();
        Err(Failure::Hang {
            calm,
            records: self.growth.lines(),
            tasks: self.plan.tasks,
            who: who.join(", "),
        })
    }

    fn judge(&mut self) -> Result<Report, Failure> {
        let took = self.began.elapsed();
        let calm = self.calm_since.map_or(Duration::ZERO, |since| since.elapsed());
        // No process writes to the files that are read now.
        self.places.clear();
        let plan = self.plan;
        let (output, _) = plan.format.flags();
        let verdict = File::open(self.scene.path(output)).and_then(|file| {
            compare(plan.format, plan.tasks, |seq| plan.expected(seq), BufReader::new(file))
        });
        let verdict = verdict.map_err(|error| Failure::Io("read the output", error))?;
        if !verdict.is_right() {
            return Err(Failure::Wrong(verdict));
        }
        let notes = std::mem::take(&mut self.notes);
        Ok(Report { verdict, took, calm, notes })
    }

    fn note_event(&mut self, text: &str) {
        if let Some(events) = &mut self.events {
            let _ = writeln!(events, "{:9.3} {text}", self.began.elapsed().as_secs_f64());
        }
    }
}

impl Place {
    fn name(&self) -> String {
        match self.role {
            Role::Worker => format!("worker{}", self.number),
            role => role.to_string(),
        }
    }

    fn is_well(&self) -> bool {
        matches!(self.state, State::Up(_))
            && self.stopped_until.is_none()
            && self.cut_until.is_none()
    }

    fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended { .. })
    }

    fn can_suffer(&self, kind: Kind) -> bool {
        let is_up = matches!(self.state, State::Up(_));
        match kind {
            Kind::Kill(_) => is_up,
            Kind::Stop(_) => is_up && self.stopped_until.is_none(),
            Kind::Cut(_) => !self.has_ended() && self.cut_until.is_none(),
        }
    }

    fn describe(&self) -> String {
        let state = match &self.state {
            State::Up(process) => format!("runs as {}", process.pid().as_raw_pid()),
            State::Down { .. } => "is about to be started".to_owned(),
            State::Ended { code } => format!("has ended with {code:?}"),
        };
        format!("{} {state} (start {})", self.name(), self.starts)
    }
}

fn set_cut(scene: &Scene, place: &Place, is_cut: bool) {
    match place.role {
        Role::Ventilator => scene.cut_ventilator(is_cut),
        Role::Worker => scene.cut_worker(place.number, is_cut),
        Role::Sink => scene.cut_sink(is_cut),
    }
}

fn start(scene: &Scene, plan: &Plan, place: &Place) -> Start {
    match place.role {
        // A worker's death is not to be counted against what it was running.
        Role::Ventilator => scene
            .ventilator()
            .words("--no-progress --resume --input in --max-losses 1000000")
            .args(["--retries", &plan.retries.to_string()])
            .args(["--resume-wait", &format!("{}ms", plan.resume_wait.as_millis())]),
        Role::Sink => {
            let (output, flags) = plan.format.flags();
            let fsync = if plan.has_fsync { "batch" } else { "none" };
            scene
                .sink()
                .words("--no-progress")
                .args(["--output", output])
                .args(flags)
                .args(["--fsync", fsync])
        }
        Role::Worker => {
            let slots = plan.slots.to_string();
            let name = format!("{}.{}", place.name(), place.starts);
            scene.worker_at(place.number, &name).args(["--slots", &slots]).args(plan.handler())
        }
    }
}

fn write_input(scene: &Scene, plan: &Plan) -> io::Result<()> {
    let mut input = BufWriter::new(File::create(scene.path("in"))?);
    for seq in 0..plan.tasks {
        writeln!(input, "{}", plan.task(seq))?;
    }
    input.flush()
}

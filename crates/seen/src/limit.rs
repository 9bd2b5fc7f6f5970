//! What limits a job, in a sentence: the first of these rules that holds.

use serde::Serialize;
use tradewind_proto::dispatcher::{Aside, Place, WorkerState};
use tradewind_proto::limits::{HELD_BYTES_MAX, UNSETTLED_TASKS_MAX};

use crate::look::{About, Asked, End, Look};
use crate::status::Tone;
use crate::words::{about, bytes, many, number, time};

/// What limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Nothing any more: the job has ended.
    Ended,
    /// Somebody asked for it.
    Paused,
    /// The sink is not there.
    NoSink,
    /// Workers are asked what they hold.
    RollCall,
    /// The output.
    Sink,
    /// There are no workers.
    NoWorkers,
    /// Nothing ends.
    Stalled,
    /// One task, behind which no more are handed out.
    Order,
    /// The last tasks.
    Tail,
    /// Tasks that failed wait to be tried again.
    Retries,
    /// The input.
    Input,
    /// The ventilator's processor.
    Ventilator,
    /// The workers, or the way to them.
    Workers,
}

/// What holds, in words.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    pub(crate) by: By,
    pub(crate) tone: Tone,
    pub(crate) line: String,
    pub(crate) more: String,
}

/// What the rules look at beside the [`Look`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) about: &'a About,
    pub(crate) look: &'a Look,
    /// Share of the time in which the loop is busy, over the last seconds.
    pub(crate) loop_busy: f64,
    /// Seconds since which no record was stored although tasks run.
    pub(crate) still: f64,
    /// Seconds since which the sink has held more than half of what it may.
    pub(crate) held: f64,
    /// Seconds since which tasks wait although slots are idle.
    pub(crate) idle: f64,
    /// Records a second.
    pub(crate) rate: f64,
    /// Seconds until the end, if they are known.
    pub(crate) left: Option<f64>,
    /// Seconds for which what limits has limited.
    pub(crate) since: f64,
}

/// Seconds without a record after which a job stands still, at least.
const STILL_MIN: f64 = 60.0;

impl Facts<'_> {
    pub(crate) fn slots(&self) -> u64 {
        self.look.snapshot.workers.iter().map(|worker| worker.slots).sum()
    }

    pub(crate) fn busy(&self) -> u64 {
        let workers = &self.look.snapshot.workers;
        workers.iter().map(|worker| u64::from(worker.running).min(worker.slots)).sum()
    }

    /// Returns the number of slots that run nothing of what could run.
    fn idle_slots(&self) -> u64 {
        self.slots() - self.busy()
    }

    /// Returns the number of slots for which their worker has no task: those that the way there leaves idle. A slot
    /// between two tasks that are there is its worker's own affair.
    fn starved_slots(&self) -> u64 {
        let workers = &self.look.snapshot.workers;
        workers.iter().map(|worker| worker.slots.saturating_sub(worker.out)).sum()
    }

    /// Returns the rule that holds.
    pub(crate) fn rule(&self) -> Rule {
        let rules = [
            Self::ended,
            Self::paused,
            Self::no_sink,
            Self::roll_call,
            Self::stuck_sink,
            Self::slow_sink,
            Self::no_workers,
            Self::stalled,
            Self::order,
            Self::tail,
            Self::retries,
            Self::input,
            Self::ventilator,
            Self::way,
        ];
        rules.iter().find_map(|rule| rule(self)).unwrap_or_else(|| self.workers())
    }

    fn ended(&self) -> Option<Rule> {
        let snapshot = &self.look.snapshot;
        let (tone, line, more) = match self.look.end.as_ref()? {
            End::Complete if snapshot.failed == 0 => (
                Tone::Plain,
                format!("Finished: all {} have their record.", tasks(snapshot.settled)),
                "",
            ),
            End::Complete => (
                Tone::Warn,
                format!(
                    "Finished: all {} have their record, {} of them not ok.",
                    tasks(snapshot.settled),
                    number(snapshot.failed)
                ),
                "To run these again: --resume --retry-failed.",
            ),
            End::Early => (
                Tone::Warn,
                format!("Stopped early: {} have their record.", tasks(snapshot.settled)),
                "To go on: --resume.",
            ),
            End::Failed(reason) => {
                (Tone::Bad, format!("The program ended: {reason}."), "To go on: --resume.")
            }
            End::Refused(reason) => (Tone::Bad, format!("The job was refused: {reason}."), ""),
        };
        Some(rule(By::Ended, tone, line, more))
    }

    fn paused(&self) -> Option<Rule> {
        let running = self.look.snapshot.running;
        let line = match self.look.asked {
            Asked::Drain => format!("Draining: {}, none is handed out.", still_run(running)),
            Asked::Cancel => format!("Cancelling: {}.", still_run(running)),
            Asked::Nothing if self.look.snapshot.is_paused => {
                format!("Paused: {}, none is handed out.", still_run(running))
            }
            Asked::Nothing => return None,
        };
        Some(rule(By::Paused, Tone::Warn, line, ""))
    }

    fn no_sink(&self) -> Option<Rule> {
        if self.look.snapshot.is_sink_open {
            return None;
        }
        let long =
            if self.since < 1.0 { String::new() } else { format!(" for {}", time(self.since)) };
        let line = format!("Waiting for the sink: nobody answers at {}{long}.", self.about.sink);
        Some(rule(
            By::NoSink,
            Tone::Warn,
            line,
            "Start it, or see whether its port can be reached.",
        ))
    }

    fn roll_call(&self) -> Option<Rule> {
        let workers = &self.look.snapshot.workers;
        let called = workers.iter().filter(|worker| !worker.is_ready).count() as u64;
        self.look.snapshot.is_calling_roll.then(|| {
            let line = if called > 0 {
                format!("Asking {} what they hold, up to 10 s.", many(called, "worker"))
            } else {
                "Waiting up to 10 s for workers that may hold tasks.".to_owned()
            };
            rule(
                By::RollCall,
                Tone::Plain,
                line,
                "The sink or the ventilator is new; tasks are not run twice.",
            )
        })
    }

    fn stuck_sink(&self) -> Option<Rule> {
        self.look.snapshot.is_output_stuck.then(|| {
            let line = "The sink limits: its output takes nothing more.".to_owned();
            let more = "Nothing is lost: tasks go on when it can be written. Its own log says why; make room, or see \
                        who reads it.";
            rule(By::Sink, Tone::Bad, line, more)
        })
    }

    fn slow_sink(&self) -> Option<Rule> {
        let held = self.look.snapshot.held_bytes;
        (held >= HELD_BYTES_MAX || self.held >= 5.0).then(|| {
            let line = format!(
                "The sink limits: {} wait there for the output, which takes {} records a second.",
                bytes(held),
                crate::words::short(self.rate)
            );
            rule(
                By::Sink,
                Tone::Warn,
                line,
                "More workers do not help. A faster disk, or --fsync none, does.",
            )
        })
    }

    fn no_workers(&self) -> Option<Rule> {
        self.look.snapshot.workers.is_empty().then(|| {
            let more = format!(
                "Start one: worker --ventilator {} --sink {} -- COMMAND",
                self.about.tasks, self.about.sink
            );
            rule(
                By::NoWorkers,
                Tone::Warn,
                "Waiting for workers: none is connected.".to_owned(),
                &more,
            )
        })
    }

    fn stalled(&self) -> Option<Rule> {
        let long =
            self.look.runs.quantile(0.99).map_or(STILL_MIN, |long| (5.0 * long).max(STILL_MIN));
        if self.look.snapshot.dispatched == 0 || self.still < long {
            return None;
        }
        let line = format!("Nothing has ended for {}.{}", time(self.still), self.straggler());
        let more = "Look at what that task does: tradewind explain, or its worker's log. --timeout would end it.";
        Some(rule(By::Stalled, Tone::Bad, line, more))
    }

    /// Returns a sentence about the first task without a record.
    fn straggler(&self) -> String {
        let Some(straggler) = &self.look.snapshot.straggler else { return String::new() };
        let seconds = self.look.snapshot.now.since(straggler.since).as_secs_f64();
        let seq = number(straggler.seq.0);
        match &straggler.place {
            Place::AtWorker { worker, .. } => {
                format!(
                    " Task #{seq} at {worker} is the first without a record, for {}.",
                    time(seconds)
                )
            }
            _ => format!(" Task #{seq} is the first without a record, for {}.", time(seconds)),
        }
    }

    fn order(&self) -> Option<Rule> {
        let snapshot = &self.look.snapshot;
        let span = snapshot.read.saturating_sub(snapshot.low_water_mark.0);
        (snapshot.queued == 0
            && snapshot.total.is_none()
            && span >= UNSETTLED_TASKS_MAX
            && self.idle_slots() > 0)
            .then(|| {
                let line = format!("One task holds up the rest.{}", self.straggler());
                rule(By::Order, Tone::Warn, line, "A --timeout ends such tasks.")
            })
    }

    fn tail(&self) -> Option<Rule> {
        let snapshot = &self.look.snapshot;
        let idle = self.idle_slots();
        let is_input_over = snapshot.total == Some(snapshot.read);
        let left = snapshot.dispatched + snapshot.received + snapshot.given_up;
        (is_input_over && snapshot.queued == 0 && snapshot.delayed == 0 && idle > 0 && left > 0)
            .then(|| {
                let line = match snapshot.running {
                    0 => format!("The last {} on their way to the output.", are(left)),
                    1 => format!("The last task runs; {} idle.", are_slots(idle)),
                    running => {
                        format!("The last {} tasks run; {} idle.", number(running), are_slots(idle))
                    }
                };
                rule(By::Tail, Tone::Plain, line, "More workers do not help.")
            })
    }

    fn retries(&self) -> Option<Rule> {
        let snapshot = &self.look.snapshot;
        let until =
            snapshot.delayed_until.filter(|_| snapshot.queued == 0 && self.idle_slots() > 0)?;
        (snapshot.delayed > 0).then(|| {
            let next = until.since(snapshot.now).as_secs_f64();
            let (wait, them) =
                if snapshot.delayed == 1 { ("waits", "it") } else { ("wait", "the next") };
            let line = format!(
                "{} that failed {wait} to be tried again, {them} in {}.",
                capital(&tasks(snapshot.delayed)),
                time(next)
            );
            rule(By::Retries, Tone::Plain, line, "")
        })
    }

    fn input(&self) -> Option<Rule> {
        let snapshot = &self.look.snapshot;
        let is_over = snapshot.total == Some(snapshot.read);
        (snapshot.queued == 0 && !is_over && self.idle_slots() > 0).then(|| {
            if self.about.is_queue && snapshot.dispatched == 0 {
                return rule(
                    By::Input,
                    Tone::Plain,
                    "Idle: every task has its record.".to_owned(),
                    "",
                );
            }
            let line = format!(
                "Waiting for input: {} of {} slots are busy.",
                number(self.busy()),
                number(self.slots())
            );
            rule(By::Input, Tone::Plain, line, "More workers do not help: they wait for tasks.")
        })
    }

    fn ventilator(&self) -> Option<Rule> {
        (self.loop_busy >= 0.9 && self.starved_slots() > 0).then(|| {
            let each = if self.rate > 0.0 {
                format!(" with {} tasks a second", crate::words::short(self.rate))
            } else {
                String::new()
            };
            let line = format!(
                "The ventilator limits: its loop is {:.0} % busy{each}.",
                self.loop_busy * 100.0
            );
            rule(
                By::Ventilator,
                Tone::Plain,
                line,
                "Larger tasks help: -n puts several lines into one.",
            )
        })
    }

    fn way(&self) -> Option<Rule> {
        let idle = self.starved_slots();
        (self.look.snapshot.queued > 0 && idle * 20 > self.slots() && self.idle >= 2.0).then(|| {
            let aside = self.aside();
            if aside > 0 {
                let line = format!(
                    "Workers limit: {} set aside, since their tasks fail.",
                    if aside == 1 { "1 is".to_owned() } else { format!("{} are", number(aside)) }
                );
                return rule(
                    By::Workers,
                    Tone::Warn,
                    line,
                    "See which, and what their host lacks.",
                );
            }
            let line = format!(
                "The way to the workers limits: {} of {} slots are idle while tasks wait.",
                number(idle),
                number(self.slots())
            );
            rule(
                By::Workers,
                Tone::Plain,
                line,
                "Tasks are short for this network: larger ones help (-n), and more --slots.",
            )
        })
    }

    fn aside(&self) -> u64 {
        let is_aside = |state: &WorkerState| {
            matches!(state, WorkerState::SetAside { why: Aside::Failures { .. }, .. })
        };
        self.look.snapshot.workers.iter().filter(|worker| is_aside(&worker.state)).count() as u64
    }

    fn workers(&self) -> Rule {
        let slots = self.slots();
        let line = if self.idle_slots() == 0 {
            match slots {
                1 => "Workers limit: the only slot is busy.".to_owned(),
                2 => "Workers limit: both slots are busy.".to_owned(),
                slots => format!("Workers limit: all {} slots are busy.", number(slots)),
            }
        } else {
            format!("Workers limit: {} of {} slots are busy.", number(self.busy()), number(slots))
        };
        // What waits is worked off by more slots; what runs is not.
        let more = match self.left.filter(|left| *left > 10.0 && slots > 0) {
            Some(left) => {
                let added = (slots / 4).max(1);
                let gain = left * (1.0 - slots as f64 / (slots + added) as f64);
                format!(
                    "More workers help: {} would end it about {} earlier.",
                    many(added, "more slot"),
                    about(gain)
                )
            }
            None => "More workers help.".to_owned(),
        };
        rule(By::Workers, Tone::Plain, line, &more)
    }
}

fn rule(by: By, tone: Tone, line: String, more: &str) -> Rule {
    Rule { by, tone, line, more: more.to_owned() }
}

fn tasks(count: u64) -> String {
    many(count, "task")
}

fn still_run(count: u64) -> String {
    if count == 1 { "1 task still runs".to_owned() } else { format!("{} still run", tasks(count)) }
}

fn are(count: u64) -> String {
    if count == 1 { "result is".to_owned() } else { format!("{} results are", number(count)) }
}

fn are_slots(count: u64) -> String {
    if count == 1 { "1 slot is".to_owned() } else { format!("{} slots are", number(count)) }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

//! Looks at a job once a second, and makes the account of it.

use std::time::Duration;

use tradewind_proto::dispatcher::DispatcherSnapshot;
use tradewind_proto::limits::HELD_BYTES_MAX;

use crate::eta::Pace;
use crate::events::Events;
use crate::limit::{By, Facts, Rule};
use crate::look::{About, Asked, End, Look};
use crate::series::{Point, Series};
use crate::status::{
    Counts, Eta, Fail, Limit, Link, Note, Place, Program, Queue, Run, State, Status, Tone, Wanted,
    Worker,
};
use crate::words::{self, many, number, time};
use crate::workers;

/// Looks at a job.
#[derive(Debug)]
pub struct Watch {
    about: About,
    /// When the program began, in seconds since 1970.
    began: f64,
    series: Series,
    pace: Pace,
    events: Events,
    shown: Option<(Rule, f64)>,
    /// A rule that holds, but not for long.
    next: Option<(By, f64)>,
    latest: Option<(f64, Look)>,
    /// Share of the time in which the loop is busy.
    loop_busy: f64,
    /// Since when no record was stored although tasks run.
    still_since: Option<f64>,
    held_since: Option<f64>,
    idle_since: Option<f64>,
    ended: Option<f64>,
}

/// Seconds for which a rule has to hold before it takes the place of another.
const HOLD: f64 = 2.0;

/// Number of workers above which each is a letter of a map.
const MAP_MIN: usize = 40;

impl Watch {
    /// Makes one for a program that began then, in seconds since 1970.
    #[must_use]
    pub fn new(about: About, began: f64) -> Self {
        Self {
            about,
            began,
            series: Series::default(),
            pace: Pace::default(),
            events: Events::default(),
            shown: None,
            next: None,
            latest: None,
            loop_busy: 0.0,
            still_since: None,
            held_since: None,
            idle_since: None,
            ended: None,
        }
    }

    /// Notes a look. They come about once a second.
    pub fn note(&mut self, at: f64, look: Look) {
        let snapshot = &look.snapshot;
        if let Some((before_at, before)) = &self.latest {
            let busy = look.busy.saturating_sub(before.busy).as_secs_f64();
            self.loop_busy = (busy / (at - before_at).max(1e-3)).min(1.0);
        }
        let slots: u64 = snapshot.workers.iter().map(|worker| worker.slots).sum();
        let is_starved = snapshot.workers.iter().any(|worker| worker.out < worker.slots);
        if look.end.is_none() {
            self.series.note(at, snapshot.settled, snapshot.failed, backlog(&look));
            self.pace.note(at, snapshot.settled, slots);
        }
        let settled_before = self.latest.as_ref().map(|(_, look)| look.snapshot.settled);
        let has_moved = settled_before != Some(snapshot.settled);
        since(&mut self.still_since, at, !has_moved && snapshot.dispatched > 0);
        since(&mut self.held_since, at, snapshot.held_bytes > HELD_BYTES_MAX / 2);
        since(&mut self.idle_since, at, snapshot.queued > 0 && is_starved);
        if look.end.is_some() && self.ended.is_none() {
            self.ended = Some(at);
        }
        self.events.note(at, &look);
        self.latest = Some((at, look));
        self.choose(at);
    }

    /// Chooses the rule that is shown: one that has held for a while.
    fn choose(&mut self, at: f64) {
        let Some((_, look)) = &self.latest else { return };
        let shown_by = self.shown.as_ref().map(|(rule, _)| rule.by);
        let seconds = |since: Option<f64>| since.map_or(0.0, |since| at - since);
        let (rate, _) = self.series.rates();
        let mut facts = Facts {
            about: &self.about,
            look,
            loop_busy: self.loop_busy,
            still: seconds(self.still_since),
            held: seconds(self.held_since),
            idle: seconds(self.idle_since),
            rate,
            left: self.eta(look).map(|eta| eta.seconds),
            since: 0.0,
        };
        let by = facts.rule().by;
        let since = match (&self.shown, self.next) {
            (Some((rule, since)), _) if rule.by == by => {
                self.next = None;
                *since
            }
            (_, Some((next, since))) if next == by => since,
            _ => {
                self.next = Some((by, at));
                at
            }
        };
        // Who was waited for and is there now is not waited for any longer.
        let was_waiting =
            matches!(shown_by, None | Some(By::NoSink | By::NoWorkers | By::RollCall | By::Paused));
        let is_at_once = was_waiting || matches!(by, By::Ended | By::Paused);
        if shown_by != Some(by) && !is_at_once && at - since < HOLD {
            return;
        }
        facts.since = at - since;
        self.shown = Some((facts.rule(), since));
    }

    fn eta(&self, look: &Look) -> Option<crate::eta::Eta> {
        let snapshot = &look.snapshot;
        if look.end.is_some()
            || self
                .still_since
                .zip(self.latest.as_ref())
                .is_some_and(|(since, (at, _))| at - since >= 60.0)
        {
            return None;
        }
        let total = snapshot.total.or(look.about)?;
        let slots = snapshot.workers.iter().map(|worker| worker.slots).sum();
        self.pace.eta(total.saturating_sub(snapshot.settled), slots, &look.runs)
    }

    /// Returns the points after a moment.
    #[must_use]
    pub fn points(&self, after: f64) -> Vec<Point> {
        self.series.after(after)
    }

    /// Returns the names of the workers in the order of the map.
    #[must_use]
    pub fn crew(&self) -> Vec<String> {
        let Some((_, look)) = &self.latest else { return Vec::new() };
        if look.snapshot.workers.len() <= MAP_MIN {
            return Vec::new();
        }
        look.snapshot.workers.iter().map(|worker| worker.name.clone()).collect()
    }

    /// Returns the latest look, with the time of it.
    #[must_use]
    pub fn latest(&self) -> Option<(f64, &Look)> {
        self.latest.as_ref().map(|(at, look)| (*at, look))
    }

    /// Returns what limits the job.
    #[must_use]
    pub fn limit(&self) -> Option<By> {
        self.shown.as_ref().map(|(rule, _)| rule.by)
    }

    /// Returns the share of the time in which the loop is busy.
    #[must_use]
    pub const fn loop_busy(&self) -> f64 {
        self.loop_busy
    }

    /// Returns seconds until the end, and those within which 9 of 10 jobs end.
    #[must_use]
    pub fn left(&self) -> Option<(f64, f64)> {
        let (_, look) = self.latest.as_ref()?;
        self.eta(look).map(|eta| (eta.seconds, eta.high))
    }

    /// Returns what the program is.
    #[must_use]
    pub const fn about(&self) -> &About {
        &self.about
    }

    /// Returns the account of the job; `None` before the first look.
    #[must_use]
    pub fn status(&self, wanted: &Wanted) -> Option<Status> {
        let (at, look) = self.latest.as_ref()?;
        let (rule, since) = self.shown.as_ref()?;
        let program = Program {
            role: self.about.role,
            version: self.about.version,
            host: self.about.host.clone(),
            began: self.began,
        };
        Some(Status::of_job(*at, program, self.queue(*at, look, rule, *since, wanted)))
    }

    fn queue(&self, at: f64, look: &Look, rule: &Rule, since: f64, wanted: &Wanted) -> Queue {
        let snapshot = &look.snapshot;
        let total = snapshot.total.or(look.about);
        let is_estimate = snapshot.total.is_none() && total.is_some();
        let eta = self.eta(look);
        let (rate, fail_rate) = self.series.rates();
        let state = state(look, rule, self.about.is_queue);
        let took = self.ended.map(|ended| ended - self.began);
        let all = workers::rows(look);
        let workers_text = workers::text(&all);
        let map = if all.len() > MAP_MIN {
            all.iter().map(workers::letter).collect()
        } else {
            String::new()
        };
        let notes = notes(look, &all);
        let (workers, workers_found) = workers::wanted(all, wanted);
        let counts = counts(look);
        Queue {
            id: format!("{:016x}", look.job.0),
            name: self.about.name.clone(),
            kind: if self.about.is_queue { "queue" } else { "job" },
            endless: self.about.is_queue,
            state,
            state_text: state_text(state, snapshot.failed),
            about: self.about_lines(at, snapshot),
            began: self.began,
            ended: self.ended,
            took_seconds: took,
            limit: Limit {
                by: rule.by,
                since,
                tone: rule.tone,
                line: rule.line.clone(),
                more: rule.more.clone(),
            },
            chain: self.chain(look, rule),
            notes,
            total: if self.about.is_queue { None } else { total },
            total_is_estimate: is_estimate,
            progress: total
                .filter(|total| *total > 0 && !self.about.is_queue)
                .map(|total| (snapshot.settled as f64 / total as f64).min(1.0)),
            no_eta: if eta.is_some() { String::new() } else { self.no_eta(look, total) },
            eta: eta.map(|eta| Eta {
                seconds: eta.seconds,
                low_seconds: eta.low,
                high_seconds: eta.high,
                at: at + eta.seconds,
            }),
            facts: self.facts(at, look, took),
            counts,
            places: places(look, &counts, total, at),
            where_text: match total.filter(|_| !self.about.is_queue) {
                Some(total) if is_estimate => format!("about {} tasks", number(total)),
                Some(total) => many(total, "task"),
                None => format!("{} so far", many(snapshot.read, "task")),
            },
            rate,
            fail_rate,
            run: run(look),
            stages: None,
            fails: fails(look),
            fails_text: fails_text(look),
            events: self.events.all(),
            workers,
            workers_found,
            map,
            workers_text,
            no_workers: format!("None is connected. They connect to {}.", self.about.tasks),
        }
    }

    fn about_lines(&self, at: f64, snapshot: &DispatcherSnapshot) -> Vec<String> {
        let slots: u64 = snapshot.workers.iter().map(|worker| worker.slots).sum();
        vec![
            format!("began {} ago", time((at - self.began).max(1.0).round())),
            format!("{} of {}", many(slots, "slot"), many(snapshot.workers.len() as u64, "worker")),
            format!("sink at {}", self.about.sink),
        ]
    }

    fn no_eta(&self, look: &Look, total: Option<u64>) -> String {
        let text = if total.is_none() {
            "how many tasks there are is not known before the input ends"
        } else if look.snapshot.workers.is_empty() {
            "there are no workers"
        } else if self.still_since.is_some() {
            "nothing has ended for a while"
        } else {
            "too little has been done to tell"
        };
        text.to_owned()
    }

    fn facts(&self, at: f64, look: &Look, took: Option<f64>) -> Vec<(String, String)> {
        let snapshot = &look.snapshot;
        let age = took.unwrap_or(at - self.began).max(1.0);
        let mean = snapshot.settled as f64 / age;
        let mut facts =
            vec![("a second on average".to_owned(), words::rate(mean).replace("/s", ""))];
        if snapshot.retries > 0 {
            facts.push(("failed attempts were tried again".to_owned(), number(snapshot.retries)));
        }
        if snapshot.workers_lost > 0 {
            facts.push(("workers were lost".to_owned(), number(snapshot.workers_lost)));
        }
        facts
    }

    fn chain(&self, look: &Look, rule: &Rule) -> Vec<Link> {
        let snapshot = &look.snapshot;
        let input = if snapshot.total.is_some() {
            "has ended"
        } else if rule.by == By::Input {
            "is waited for"
        } else {
            "keeps up"
        };
        let workers = match (snapshot.workers.len(), rule.by) {
            (0, _) => "none".to_owned(),
            (_, By::Workers) => "limit".to_owned(),
            _ => {
                let slots: u64 = snapshot.workers.iter().map(|worker| worker.slots).sum();
                format!("{} of {} slots busy", number(snapshot.running.min(slots)), number(slots))
            }
        };
        let sink = if !snapshot.is_sink_open {
            "is not there"
        } else if snapshot.is_output_stuck {
            "is stuck"
        } else if rule.by == By::Sink {
            "limits"
        } else {
            "keeps up"
        };
        let limits = |who: &str| {
            let limiting = match rule.by {
                By::Input => "input",
                By::Ventilator => "ventilator",
                By::Workers | By::NoWorkers | By::Tail | By::Stalled | By::Order | By::RollCall => {
                    "workers"
                }
                By::Sink | By::NoSink => "sink",
                By::Ended | By::Paused | By::Retries => "",
            };
            (who == limiting).then_some(rule.tone)
        };
        let ventilator = format!("{:.0} % busy", self.loop_busy * 100.0);
        [
            ("input", input.to_owned()),
            ("ventilator", ventilator),
            ("workers", workers),
            ("sink", sink.to_owned()),
        ]
        .map(|(who, word)| Link { who, word, limits: limits(who) })
        .into()
    }
}

/// Keeps since when something holds.
fn since(since: &mut Option<f64>, at: f64, holds: bool) {
    *since = if holds { since.or(Some(at)) } else { None };
}

/// Returns the number of tasks without a record, as far as they are known.
fn backlog(look: &Look) -> u64 {
    let snapshot = &look.snapshot;
    snapshot
        .total
        .or(look.about)
        .unwrap_or(snapshot.read)
        .max(snapshot.read)
        .saturating_sub(snapshot.settled)
}

fn counts(look: &Look) -> Counts {
    let snapshot = &look.snapshot;
    let running = snapshot.running.min(snapshot.dispatched);
    let unread = snapshot.total.or(look.about).unwrap_or(0).saturating_sub(snapshot.read);
    Counts {
        stored: snapshot.settled,
        not_ok: snapshot.failed,
        unstored: snapshot.received + snapshot.given_up,
        running,
        held: snapshot.dispatched - running,
        delayed: snapshot.delayed,
        queued: snapshot.queued + unread,
    }
}

fn places(look: &Look, counts: &Counts, total: Option<u64>, _at: f64) -> Vec<Place> {
    let snapshot = &look.snapshot;
    let next = snapshot.delayed_until.map_or_else(String::new, |until| {
        format!("the next in {}", time(until.since(snapshot.now).as_secs_f64()))
    });
    let unread = total.unwrap_or(0).saturating_sub(snapshot.read);
    let waiting =
        if unread > 0 { format!("{} of them not read yet", number(unread)) } else { String::new() };
    let place =
        |id, n, name, about: &str, rare| Place { id, n, name, about: about.to_owned(), rare };
    vec![
        place(
            "ok",
            counts.stored - counts.not_ok.min(counts.stored),
            "stored",
            "ok or skipped",
            false,
        ),
        place("bad", counts.not_ok, "stored, not ok", "failed, timed out, lost", true),
        place(
            "unstored",
            counts.unstored,
            "finished, not stored",
            "on their way to the sink",
            false,
        ),
        place("run", counts.running, "running", "", false),
        place("held", counts.held, "at workers", "wait for a slot there", false),
        place("late", counts.delayed, "to be tried again", &next, true),
        place("wait", counts.queued, "queued", &waiting, false),
    ]
}

fn run(look: &Look) -> Run {
    let runs = &look.runs;
    let (half, most) = (runs.quantile(0.5), runs.quantile(0.95));
    let text = match half.zip(most) {
        Some((half, most)) => {
            format!("Half take less than {}, 1 in 20 more than {}.", time(half), time(most))
        }
        None => "None has ended yet.".to_owned(),
    };
    Run {
        buckets: runs.doublings(),
        p50_seconds: half,
        p95_seconds: most,
        limit_seconds: look.timeout.as_ref().map(Duration::as_secs_f64),
        text,
    }
}

/// Number of groups of failures that are told.
const FAILS_MAX: usize = 12;

fn fails(look: &Look) -> Vec<Fail> {
    let mut groups: Vec<&crate::look::Failures> = look.failures.iter().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    groups
        .into_iter()
        .take(FAILS_MAX)
        .map(|group| {
            let (first, last) = group.ago;
            let mut about = vec![group.how.clone()];
            if first - last > 1.0 {
                about.push(format!("the first {} ago", time(first)));
            }
            match &group.workers[..] {
                [(only, _)] if group.workers_count == 1 => about.push(format!("all on {only}")),
                [(most, count), ..] if count * 5 >= group.count * 4 => {
                    about.push(format!("{} of them on {most}", number(*count)));
                }
                _ if group.workers_count > 1 => {
                    about.push(format!("on {}", many(group.workers_count, "worker")));
                }
                _ => {}
            }
            Fail {
                id: group.id.clone(),
                count: group.count,
                message: group.message.clone(),
                when: if last < 1.0 { "now".to_owned() } else { format!("{} ago", time(last)) },
                about: about.join(" · "),
                example: group.example.clone(),
                seqs: group.seqs.clone(),
            }
        })
        .collect()
}

fn fails_text(look: &Look) -> String {
    let groups = look.failures.len() as u64;
    let mut text = match (look.snapshot.failed, groups) {
        (0, _) => "no record is anything but ok".to_owned(),
        (failed, 0) => format!("{} not ok", many(failed, "record")),
        (failed, groups) => format!("{} in {}", many(failed, "record"), many(groups, "group")),
    };
    if look.snapshot.retries > 0 {
        text += &format!("; {} tried again", many(look.snapshot.retries, "attempt"));
    }
    text
}

/// Number of notes that are told.
const NOTES_MAX: usize = 3;

fn notes(look: &Look, workers: &[Worker]) -> Vec<Note> {
    let mut notes: Vec<Note> = workers
        .iter()
        .filter(|worker| worker.tone > Tone::Plain)
        .map(|worker| Note {
            tone: worker.tone,
            text: format!("{}: {}.", worker.name, worker.remark),
            to: "#h-workers",
            link: "See workers",
        })
        .collect();
    notes.sort_by_key(|note| std::cmp::Reverse(note.tone));
    notes.truncate(NOTES_MAX - 1);
    let snapshot = &look.snapshot;
    if snapshot.failed * 100 > snapshot.settled && look.end.is_none() {
        let common = look.failures.iter().max_by_key(|group| group.count);
        let common =
            common.map_or_else(String::new, |group| format!(" Most often: {}", group.message));
        notes.push(Note {
            tone: Tone::Warn,
            text: format!(
                "{} of {} records are not ok.{common}",
                number(snapshot.failed),
                number(snapshot.settled)
            ),
            to: "#h-fails",
            link: "See failures",
        });
    }
    notes
}

fn state(look: &Look, rule: &Rule, is_queue: bool) -> State {
    match (&look.end, look.asked) {
        (Some(End::Complete), _) if look.snapshot.failed == 0 => State::Done,
        (Some(End::Complete), _) => State::DoneFailed,
        (Some(_), _) => State::Failed,
        (None, Asked::Drain | Asked::Cancel) => State::Draining,
        (None, Asked::Nothing) => match rule.by {
            By::Paused => State::Paused,
            By::NoSink | By::NoWorkers | By::RollCall => State::Waiting,
            By::Stalled => State::Stuck,
            By::Sink if rule.tone == Tone::Bad => State::Stuck,
            By::Input if is_queue && look.snapshot.dispatched == 0 => State::Idle,
            _ => State::Running,
        },
    }
}

fn state_text(state: State, failed: u64) -> String {
    match state {
        State::Running => "running".to_owned(),
        State::Idle => "idle".to_owned(),
        State::Waiting => "waiting".to_owned(),
        State::Paused => "paused".to_owned(),
        State::Draining => "draining".to_owned(),
        State::Stuck => "stands still".to_owned(),
        State::Done => "finished".to_owned(),
        State::DoneFailed => format!("finished, {} not ok", number(failed)),
        State::Failed => "ended early".to_owned(),
    }
}

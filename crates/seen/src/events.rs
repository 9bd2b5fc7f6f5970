//! What happened: told by what differs between two looks.

use std::collections::{HashMap, VecDeque};

use tradewind_proto::SessionId;

use crate::look::{Asked, End, Look};
use crate::status::Event;
use crate::words::{many, number};

/// The last events.
#[derive(Debug, Default)]
pub(crate) struct Events {
    ring: VecDeque<Event>,
    before: Option<Before>,
}

#[derive(Debug)]
struct Before {
    workers: HashMap<SessionId, Known>,
    is_sink_open: bool,
    is_paused: bool,
    is_output_stuck: bool,
    is_input_over: bool,
    asked: Asked,
    has_ended: bool,
}

#[derive(Clone, Debug)]
struct Known {
    name: String,
    out: u64,
    is_slow: bool,
}

/// Number of events that are kept.
const EVENTS_MAX: usize = 100;

/// Seconds after which something that comes and goes is told again.
const AGAIN: f64 = 600.0;

/// Number of workers that are told one by one.
const NAMED_MAX: usize = 4;

impl Events {
    pub(crate) fn all(&self) -> Vec<Event> {
        self.ring.iter().cloned().collect()
    }

    pub(crate) fn note(&mut self, at: f64, look: &Look) {
        let now = Before::of(look);
        let before = self.before.replace(now);
        let Some(now) = &self.before else { return };
        let mut told = Vec::new();
        let Some(before) = before else {
            self.tell(at, vec![("the job began".to_owned(), false)]);
            return;
        };
        told.extend(arrivals(&before, now));
        told.extend(losses(&before, now));
        told.extend(slowness(&before, now));
        let changes = [
            (before.is_sink_open, now.is_sink_open, "the sink is there", "the sink is gone", true),
            (before.is_paused, now.is_paused, "paused", "goes on after a pause", true),
            (
                before.is_output_stuck,
                now.is_output_stuck,
                "the output takes nothing more",
                "the output can be written again",
                true,
            ),
        ];
        for (was, is, on, off, mark) in changes {
            if was != is {
                told.push(((if is { on } else { off }).to_owned(), mark));
            }
        }
        if now.is_input_over && !before.is_input_over {
            told.push((
                format!("the input has ended: {}", many(look.snapshot.read, "task")),
                false,
            ));
        }
        if now.asked != before.asked {
            match now.asked {
                Asked::Nothing => {}
                Asked::Drain => told.push(("asked to stop: draining".to_owned(), true)),
                Asked::Cancel => told.push(("cancelled".to_owned(), true)),
            }
        }
        if now.has_ended && !before.has_ended {
            let text = match &look.end {
                Some(End::Refused(reason)) => format!("refused: {reason}"),
                Some(End::Failed(reason)) => format!("the program ended: {reason}"),
                Some(End::Early) => "stopped before its end".to_owned(),
                _ => "the job is done".to_owned(),
            };
            told.push((text, true));
        }
        self.tell(at, told);
    }

    fn tell(&mut self, at: f64, told: Vec<(String, bool)>) {
        for (text, mark) in told {
            // What is told without a mark comes and goes: once in a while is enough.
            let is_known = |event: &Event| event.text == text && at - event.t < AGAIN;
            if !mark && self.ring.iter().any(is_known) {
                continue;
            }
            if self.ring.len() == EVENTS_MAX {
                self.ring.pop_front();
            }
            self.ring.push_back(Event { t: at, text, mark });
        }
    }
}

impl Before {
    fn of(look: &Look) -> Self {
        let snapshot = &look.snapshot;
        let known = |worker: &tradewind_proto::dispatcher::WorkerSnapshot| {
            let known =
                Known { name: worker.name.clone(), out: worker.out, is_slow: worker.is_slow };
            (worker.session, known)
        };
        Self {
            workers: snapshot.workers.iter().map(known).collect(),
            is_sink_open: snapshot.is_sink_open,
            is_paused: snapshot.is_paused,
            is_output_stuck: snapshot.is_output_stuck,
            is_input_over: snapshot.total.is_some(),
            asked: look.asked,
            has_ended: look.end.is_some(),
        }
    }
}

fn arrivals(before: &Before, now: &Before) -> Vec<(String, bool)> {
    let new = now.workers.iter().filter(|(session, _)| !before.workers.contains_key(session));
    let mut names: Vec<&str> = new.map(|(_, known)| known.name.as_str()).collect();
    names.sort_unstable();
    match names.len() {
        0 => Vec::new(),
        1 => vec![(format!("{} joined", names[0]), true)],
        count => {
            let named = names[..count.min(NAMED_MAX)].join(", ");
            let more = if count > NAMED_MAX { ", …" } else { "" };
            vec![(format!("{count} workers joined: {named}{more}"), true)]
        }
    }
}

fn losses(before: &Before, now: &Before) -> Vec<(String, bool)> {
    let gone = before.workers.iter().filter(|(session, _)| !now.workers.contains_key(session));
    let mut gone: Vec<&Known> = gone.map(|(_, known)| known).collect();
    gone.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let tasks = |out: u64| match out {
        0 => String::new(),
        1 => "; the task that it had goes to others".to_owned(),
        out => format!("; the {} tasks that it had go to others", number(out)),
    };
    if gone.len() > NAMED_MAX {
        let out: u64 = gone.iter().map(|known| known.out).sum();
        return vec![(format!("{} workers left, with {}", gone.len(), many(out, "task")), true)];
    }
    gone.iter().map(|known| (format!("{} left{}", known.name, tasks(known.out)), true)).collect()
}

fn slowness(before: &Before, now: &Before) -> Vec<(String, bool)> {
    let mut slow: Vec<&str> = now
        .workers
        .iter()
        .filter(|(session, known)| {
            known.is_slow && before.workers.get(session).is_some_and(|before| !before.is_slow)
        })
        .map(|(_, known)| known.name.as_str())
        .collect();
    slow.sort_unstable();
    slow.truncate(NAMED_MAX);
    slow.into_iter().map(|name| (format!("{name} counts as slow"), false)).collect()
}

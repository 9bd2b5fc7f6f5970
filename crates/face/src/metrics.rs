//! Names and numbers for Prometheus: of the account that all others are shown, read when they are asked for.
//!
//! Labels are closed sets, but for the queue and the stage, which are the user's and few. Only the ventilator counts
//! tasks, so that nothing is doubled where all programs are read.

use std::fmt::{Error, Write as _};
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tradewind_proto::dispatcher::WorkerState;
use tradewind_seen::{By, Tone, Wanted, Watch};

use crate::face::Face;
use crate::routes::with_type;

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All that can limit.
const LIMITS: [(By, &str); 13] = [
    (By::Ended, "ended"),
    (By::Paused, "paused"),
    (By::NoSink, "no_sink"),
    (By::RollCall, "roll_call"),
    (By::Sink, "sink"),
    (By::NoWorkers, "no_workers"),
    (By::Stalled, "stalled"),
    (By::Order, "order"),
    (By::Tail, "tail"),
    (By::Retries, "retries"),
    (By::Input, "input"),
    (By::Ventilator, "ventilator"),
    (By::Workers, "workers"),
];

pub(crate) fn answer(face: &Face, headers: &HeaderMap) -> Response {
    let families = families(&face.watch());
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(Arc::from(families))));
    let mut text = String::new();
    // It writes to memory, and fails only there.
    let _ = encode(&mut text, &registry);
    let accepts = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accepts.contains("application/openmetrics-text") {
        return with_type(StatusCode::OK, OPEN_METRICS, Body::from(text));
    }
    with_type(StatusCode::OK, TEXT, Body::from(older(&text)))
}

/// Returns it in the older format, in which a counter's family has the name of its numbers.
fn older(text: &str) -> String {
    let mut counters = Vec::new();
    for line in text.lines() {
        if let Some(name) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" counter"))
        {
            counters.push(name);
        }
    }
    let mut out = String::with_capacity(text.len() + 64);
    for line in text.lines().filter(|line| *line != "# EOF") {
        let comment = ["# HELP ", "# TYPE "].into_iter().find(|start| line.starts_with(start));
        match comment.map(|start| (start, &line[start.len()..])) {
            Some((start, rest)) => {
                let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                let total = if counters.contains(&name) { "_total" } else { "" };
                let _ = writeln!(out, "{start}{name}{total} {rest}");
            }
            None => {
                let _ = writeln!(out, "{line}");
            }
        }
    }
    out
}

/// A family: its name, what it is, and its numbers by their labels.
#[derive(Clone, Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    numbers: Vec<(Vec<(&'static str, String)>, f64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
}

#[derive(Clone, Debug)]
struct Families(Arc<[Family]>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        for family in &*self.0 {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (labels, number) in &family.numbers {
                let one = metric.encode_family(labels)?;
                match family.kind {
                    Kind::Counter => ConstCounter::new(*number).encode(one)?,
                    Kind::Gauge => ConstGauge::new(*number).encode(one)?,
                }
            }
        }
        Ok(())
    }
}

fn families(watch: &Watch) -> Vec<Family> {
    let about = watch.about();
    let queue = || vec![("queue", about.name.clone())];
    let mut families = vec![Family {
        name: "tradewind_build_info",
        help: "Which program this is",
        kind: Kind::Gauge,
        numbers: vec![(
            vec![("role", about.role.to_owned()), ("version", about.version.to_owned())],
            1.0,
        )],
    }];
    families.extend(process());
    let Some((at, look)) = watch.latest() else { return families };
    let snapshot = &look.snapshot;
    let status = watch.status(&Wanted::default());
    let mut add = |name, help, kind, numbers| families.push(Family { name, help, kind, numbers });
    let one = |number: f64| vec![(queue(), number)];
    let with = |label: &'static str, value: &str| {
        let mut labels = queue();
        labels.push((label, value.to_owned()));
        labels
    };
    let count = |number: u64| one(number as f64);
    add(
        "tradewind_tasks_submitted",
        "Tasks read from the input, or accepted from submitters",
        Kind::Counter,
        count(snapshot.read),
    );
    let not_ok = snapshot.failed.min(snapshot.settled);
    add(
        "tradewind_records",
        "Records stored, by whether the task is ok or skipped, or not",
        Kind::Counter,
        vec![
            (with("status", "ok"), (snapshot.settled - not_ok) as f64),
            (with("status", "not_ok"), not_ok as f64),
        ],
    );
    add(
        "tradewind_attempts_retried",
        "Attempts that failed and after which the task was to be tried again",
        Kind::Counter,
        count(snapshot.retries),
    );
    add(
        "tradewind_tasks_recalled",
        "Tasks taken back from a queue at a worker to be given to another",
        Kind::Counter,
        count(snapshot.recalled),
    );
    add(
        "tradewind_workers_lost",
        "Workers that went without a word",
        Kind::Counter,
        count(snapshot.workers_lost),
    );
    add(
        "tradewind_roll_calls",
        "Roll calls: a worker or the sink was new",
        Kind::Counter,
        count(snapshot.roll_calls),
    );
    add(
        "tradewind_loop_busy_seconds",
        "Time in which the one loop had something to do; near 1 a second it limits",
        Kind::Counter,
        vec![(Vec::new(), look.busy.as_secs_f64())],
    );
    if let Some(status) = &status {
        let counts = status.queue.counts;
        let states = [
            ("queued", counts.queued),
            ("delayed", counts.delayed),
            ("held", counts.held),
            ("running", counts.running),
            ("unstored", counts.unstored),
        ];
        add(
            "tradewind_queue_tasks",
            "Tasks without a record, by where they are; the sum is the backlog",
            Kind::Gauge,
            states.map(|(state, count)| (with("state", state), count as f64)).into(),
        );
        if let Some(total) = status.queue.total {
            add(
                "tradewind_job_tasks",
                "How many tasks the job has, as far as is known",
                Kind::Gauge,
                count(total),
            );
        }
    }
    let age = snapshot
        .straggler
        .as_ref()
        .map_or(0.0, |straggler| snapshot.now.since(straggler.since).as_secs_f64());
    add(
        "tradewind_queue_oldest_unsettled_age_seconds",
        "For how long the first task without a record has been the first",
        Kind::Gauge,
        one(age),
    );
    if let Some(stored) = snapshot.stored_at {
        let stored = at - snapshot.now.since(stored).as_secs_f64();
        add(
            "tradewind_last_record_timestamp_seconds",
            "When the latest record was stored, since 1970",
            Kind::Gauge,
            one(stored),
        );
    }
    if let Some((left, high)) = watch.left() {
        add(
            "tradewind_job_eta_seconds",
            "Time to the end, by the present rate; absent if unknown",
            Kind::Gauge,
            one(left),
        );
        add(
            "tradewind_job_eta_high_seconds",
            "9 of 10 jobs are done by then",
            Kind::Gauge,
            one(high),
        );
    }
    let limit = watch.limit();
    add(
        "tradewind_limited_by",
        "1 for what limits now, 0 for the others",
        Kind::Gauge,
        LIMITS.map(|(by, name)| (with("by", name), f64::from(u8::from(limit == Some(by))))).into(),
    );
    let mut states =
        [("well", 0), ("slow", 0), ("failing", 0), ("silent", 0), ("called", 0), ("draining", 0)];
    let everyone = Wanted { rows: usize::MAX, ..Wanted::default() };
    let rows = watch.status(&everyone).map(|status| status.queue.workers).unwrap_or_default();
    let tone = |name: &str| {
        rows.iter().find(|row| row.name == name).map(|row| row.tone).unwrap_or_default()
    };
    for worker in &snapshot.workers {
        let state = match (worker.state, tone(&worker.name)) {
            (WorkerState::Called, _) => "called",
            (WorkerState::Draining, _) => "draining",
            (WorkerState::SetAside { .. }, _) => "failing",
            (_, Tone::Bad) => "silent",
            (_, Tone::Warn) => "slow",
            _ => "well",
        };
        for (name, count) in &mut states {
            *count += u32::from(*name == state);
        }
    }
    add(
        "tradewind_workers",
        "Workers that are connected, each in one state",
        Kind::Gauge,
        states.map(|(state, count)| (with("state", state), f64::from(count))).into(),
    );
    let slots: u64 = snapshot.workers.iter().map(|worker| worker.slots).sum();
    let busy = snapshot.running.min(slots);
    add(
        "tradewind_slots",
        "Slots of the workers",
        Kind::Gauge,
        vec![(with("state", "busy"), busy as f64), (with("state", "idle"), (slots - busy) as f64)],
    );
    let window: u64 = snapshot.workers.iter().map(|worker| worker.window).sum();
    add(
        "tradewind_window_tasks",
        "Tasks that the workers may hold, in all",
        Kind::Gauge,
        count(window),
    );
    add(
        "tradewind_retained_bytes",
        "Payload bytes kept until their records are stored",
        Kind::Gauge,
        count(snapshot.kept_bytes),
    );
    add(
        "tradewind_output_held_bytes",
        "Bytes of records that the sink holds and has not written; at 16777216 nothing more is handed out",
        Kind::Gauge,
        count(snapshot.held_bytes),
    );
    add(
        "tradewind_output_stuck",
        "1 while the output cannot be written",
        Kind::Gauge,
        one(f64::from(u8::from(snapshot.is_output_stuck))),
    );
    let span = snapshot.read.saturating_sub(snapshot.low_water_mark.0);
    add(
        "tradewind_reorder_span_tasks",
        "From the first task without a record to the last that was read",
        Kind::Gauge,
        count(span),
    );
    families
}

/// Numbers of the process, as all clients of Prometheus name them.
fn process() -> Vec<Family> {
    let mut families = Vec::new();
    let mut add = |name, help, kind, number: Option<f64>| {
        if let Some(number) = number {
            families.push(Family { name, help, kind, numbers: vec![(Vec::new(), number)] });
        }
    };
    let figures = tradewind_system::process_figures();
    add(
        "process_cpu_seconds",
        "Processor time, user and system",
        Kind::Counter,
        figures.cpu_seconds,
    );
    add(
        "process_resident_memory_bytes",
        "Resident memory",
        Kind::Gauge,
        figures.resident_bytes.map(|it| it as f64),
    );
    add("process_open_fds", "Open files", Kind::Gauge, figures.open_files.map(|it| it as f64));
    add(
        "process_max_fds",
        "How many may be open",
        Kind::Gauge,
        figures.files_max.map(|it| it as f64),
    );
    add("process_start_time_seconds", "When it started, since 1970", Kind::Gauge, figures.started);
    families
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_names_counters_with_their_suffix() {
        let text = "# HELP a Help.\n# TYPE a counter\na_total{x=\"1\"} 2\n# HELP b Help.\n# TYPE b gauge\nb 1\n# EOF\n";
        let wanted = "# HELP a_total Help.\n# TYPE a_total counter\na_total{x=\"1\"} 2\n# HELP b Help.\n# TYPE b gauge\nb 1\n";
        assert_eq!(older(text), wanted);
    }
}

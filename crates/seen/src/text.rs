//! The account of a job for a terminal without a page.

use std::fmt::Write as _;

use crate::status::{Status, Tone};
use crate::words::{about, number, rate, time};

/// Returns a status as lines of text.
#[must_use]
pub fn text(status: &Status) -> String {
    let queue = &status.queue;
    let mut out = String::new();
    let mut line = |text: &str| {
        out.push_str(text);
        out.push('\n');
    };
    line(&format!("{}: {}, {}", queue.name, queue.state_text, queue.about.join(", ")));
    line(&queue.limit.line);
    if !queue.limit.more.is_empty() {
        line(&queue.limit.more);
    }
    let links = queue.chain.iter().map(|link| match link.limits {
        Some(_) => format!("[{} {}]", link.who, link.word),
        None => format!("{} {}", link.who, link.word),
    });
    line(&links.collect::<Vec<_>>().join(" > "));
    for note in &queue.notes {
        line(&format!("! {}", note.text));
    }
    line("");
    let mut progress = match (queue.progress, queue.total) {
        (Some(progress), Some(total)) => format!(
            "{:.0} %, {} of {}{} tasks",
            (progress * 100.0).floor(),
            number(queue.counts.stored),
            if queue.total_is_estimate { "about " } else { "" },
            number(total)
        ),
        _ => format!("{} tasks have their record", number(queue.counts.stored)),
    };
    let _ = write!(progress, ", {} not ok, {}", number(queue.counts.not_ok), rate(queue.rate));
    match (&queue.eta, queue.took_seconds) {
        (_, Some(took)) => {
            let _ = write!(progress, ", in {}", time(took));
        }
        (Some(eta), None) => {
            let (low, high) = (about(eta.low_seconds), about(eta.high_seconds));
            let _ = write!(progress, ", {} left ({low} to {high})", about(eta.seconds));
        }
        (None, None) => {}
    }
    line(&progress);
    let places = queue.places.iter().filter(|place| place.n > 0);
    let places = places.map(|place| format!("{} {}", number(place.n), place.name));
    line(&places.collect::<Vec<_>>().join(", "));
    if queue.run.p50_seconds.is_some() {
        line(&queue.run.text);
    }
    if !queue.workers.is_empty() {
        line("");
        line(&queue.workers_text);
        let widest = queue.workers.iter().map(|worker| worker.name.chars().count()).max();
        let widest = widest.unwrap_or(0).max(6);
        line(&format!(
            "{:widest$}  {:>7}  {:>8}  {:>8}  {:>6}  REMARK",
            "WORKER", "SLOTS", "DONE/S", "MEDIAN", "FAILED"
        ));
        for worker in &queue.workers {
            let mark = match worker.tone {
                Tone::Plain => "",
                Tone::Warn => "! ",
                Tone::Bad => "X ",
            };
            let median = worker.median_seconds.map_or_else(|| "-".to_owned(), time);
            let row = format!(
                "{:widest$}  {:>7}  {:>8}  {median:>8}  {:>6}  {mark}{}",
                worker.name,
                format!("{}/{}", worker.busy, worker.slots),
                rate(worker.rate).replace("/s", ""),
                number(worker.failed),
                worker.remark
            );
            line(row.trim_end());
        }
        let more = queue.workers_found - queue.workers.len() as u64;
        if more > 0 {
            line(&format!("{} more", number(more)));
        }
    }
    if !queue.fails.is_empty() {
        line("");
        line(&queue.fails_text);
        for fail in &queue.fails {
            line(&format!(
                "{:>6} x {} ({}, {})",
                number(fail.count),
                fail.message,
                fail.about,
                fail.when
            ));
        }
    }
    out
}

//! Progress of the job on stderr: a bar on a terminal, where the feature `cli` is on; a line now
//! and then elsewhere.

#[cfg(feature = "cli")]
mod bar;

use std::time::{Duration, Instant};

use crate::exit::say;
use crate::figures::{self, time};

/// Facts that progress shows.
#[derive(Clone, Debug, Default)]
pub struct ProgressView {
    /// Number of tasks whose records are stored.
    pub done: u64,
    /// Number of all tasks, once it is known.
    pub total: Option<u64>,
    /// Approximate number of all tasks, until it is known.
    pub about: Option<u64>,
    /// Number of records whose status is not `ok`.
    pub failed: u64,
    /// Number of connected workers.
    pub workers: u64,
    /// Number of connected workers that cannot reach the sink.
    pub unreached: u64,
    /// Peer that is being waited for, if the job stands still.
    pub waiting_for: Option<&'static str>,
}

/// Shows progress.
pub struct Progress {
    show: Show,
    began: Instant,
    last: Option<(Instant, u64)>,
}

enum Show {
    Nothing,
    #[cfg(feature = "cli")]
    Bar(bar::Bar),
    Lines,
}

/// Shortest time between two lines without a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

impl Show {
    #[cfg(feature = "cli")]
    fn what_suits_stderr() -> Self {
        use std::io::IsTerminal;

        if std::io::stderr().is_terminal() { Self::Bar(bar::Bar::new()) } else { Self::Lines }
    }

    #[cfg(not(feature = "cli"))]
    fn what_suits_stderr() -> Self {
        Self::Lines
    }
}

impl Progress {
    /// Creates a progress display that suits stderr, or none if it is not wanted.
    #[must_use]
    pub fn new(is_wanted: bool) -> Self {
        let show = if is_wanted { Show::what_suits_stderr() } else { Show::Nothing };
        Self { show, began: Instant::now(), last: None }
    }

    /// Interval at which [`show`](Self::show) is worth calling.
    pub const INTERVAL: Duration = Duration::from_millis(125);

    /// Returns whether no progress is shown.
    #[must_use]
    pub fn is_off(&self) -> bool {
        matches!(self.show, Show::Nothing)
    }

    /// Shows the state of the job.
    pub fn show(&mut self, view: &ProgressView) {
        match &self.show {
            Show::Nothing => {}
            #[cfg(feature = "cli")]
            Show::Bar(bar) => bar.show(view),
            Show::Lines => self.line(view),
        }
    }

    /// Prints the state of the job at once, whether or not progress is shown.
    pub fn tell(&self, view: &ProgressView) {
        say(&self.text(view, Instant::now()));
    }

    fn line(&mut self, view: &ProgressView) {
        let now = Instant::now();
        let (since, _) = self.last.unwrap_or((self.began, 0));
        if now.duration_since(since) < LINE_INTERVAL {
            return;
        }
        say(&self.text(view, now));
        self.last = Some((now, view.done));
    }

    fn text(&self, view: &ProgressView, now: Instant) -> String {
        let (since, before) = self.last.unwrap_or((self.began, 0));
        let elapsed = now.duration_since(since).as_secs_f64().max(0.001);
        let rate = view.done.saturating_sub(before) as f64 / elapsed;
        let mut pieces = pieces(now.duration_since(self.began), Some(rate), view);
        match (view.total, view.about) {
            (Some(total), _) => pieces[0] = format!("{} of {total} done", view.done),
            (None, Some(about)) => pieces[0] = format!("{} of about {about} done", view.done),
            (None, None) => {}
        }
        pieces.join(", ")
    }

    /// Leaves the terminal as it was.
    pub fn clear(&mut self) {
        #[cfg(feature = "cli")]
        if let Show::Bar(bar) = &self.show {
            bar.clear();
        }
        self.show = Show::Nothing;
    }
}

/// Returns the parts of the line, the most important ones first. Unknown facts are left out.
fn pieces(elapsed: Duration, rate: Option<f64>, view: &ProgressView) -> Vec<String> {
    let done = match (view.total, view.about) {
        (Some(total), _) => format!("{}/{total}", view.done),
        (None, Some(about)) => format!("{}/~{about}", view.done),
        (None, None) => format!("{} done", view.done),
    };
    let rate = rate.filter(|rate| *rate > 0.0);
    let eta = view.total.or(view.about).zip(rate).and_then(|(total, rate)| {
        let left = total.saturating_sub(view.done) as f64 / rate;
        Duration::try_from_secs_f64(left.ceil()).ok().map(|left| format!("eta {}", time(left)))
    });
    let failed = (view.failed > 0).then(|| format!("{} failed", view.failed));
    let waiting = view.waiting_for.map(|who| format!("waiting for {who}"));
    let workers = match view.workers {
        1 => "1 worker".to_owned(),
        workers => format!("{workers} workers"),
    };
    let workers = match view.unreached {
        0 => workers,
        unreached => format!("{unreached} of {workers} cannot reach the sink"),
    };
    let after = format!("after {}", time(elapsed));
    let pieces =
        [Some(done), rate.map(figures::rate), eta, failed, waiting, Some(workers), Some(after)];
    pieces.into_iter().flatten().collect()
}

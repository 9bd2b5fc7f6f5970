//! How far the job is, on stderr: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use crate::exit::say;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What progress shows.
#[derive(Clone, Debug, Default)]
pub struct ProgressView {
    /// Tasks whose records are stored.
    pub done: u64,
    /// All tasks, once that is known.
    pub total: Option<u64>,
    /// Records whose status is not `ok`.
    pub failed: u64,
    /// Workers that are connected.
    pub workers: u64,
    /// Who is being waited for, if the job stands still.
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
    Bar(ProgressBar),
    Lines,
}

/// Without a terminal: not more often than this.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

impl Progress {
    /// Shows nothing if it is not wanted, else what suits stderr.
    #[must_use]
    pub fn new(is_wanted: bool) -> Self {
        let show = if !is_wanted {
            Show::Nothing
        } else if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
            bar.set_style(style(false));
            Show::Bar(bar)
        } else {
            Show::Lines
        };
        Self { show, began: Instant::now(), last: None }
    }

    /// How often [`show`](Self::show) is worth calling.
    pub const INTERVAL: Duration = Duration::from_millis(125);

    /// Does nobody look?
    #[must_use]
    pub fn is_off(&self) -> bool {
        matches!(self.show, Show::Nothing)
    }

    /// Shows how things stand.
    pub fn show(&mut self, view: &ProgressView) {
        match &self.show {
            Show::Nothing => {}
            Show::Bar(bar) => {
                if bar.length() != view.total {
                    bar.set_style(style(view.total.is_some()));
                    match view.total {
                        Some(total) => bar.set_length(total),
                        None => bar.unset_length(),
                    }
                }
                bar.set_position(view.done);
                bar.set_message(about(view));
            }
            Show::Lines => self.line(view),
        }
    }

    fn line(&mut self, view: &ProgressView) {
        let now = Instant::now();
        let (since, before) = self.last.unwrap_or((self.began, 0));
        let elapsed = now.duration_since(since);
        if elapsed < LINE_INTERVAL {
            return;
        }
        self.last = Some((now, view.done));
        let rate = view.done.saturating_sub(before) as f64 / elapsed.as_secs_f64();
        let done = view.done;
        match view.total {
            Some(total) => {
                let eta = if rate > 0.0 {
                    let left = total.saturating_sub(done) as f64 / rate;
                    let left = Duration::try_from_secs_f64(left.ceil()).unwrap_or(Duration::MAX);
                    format!(", {} left", humantime::format_duration(left))
                } else {
                    String::new()
                };
                say(&format!("{done} of {total} done, {rate:.1}/s{eta}, {}", about(view)));
            }
            None => say(&format!("{done} done, {rate:.1}/s, {}", about(view))),
        }
    }

    /// Leaves the terminal as it was.
    pub fn clear(&mut self) {
        if let Show::Bar(bar) = &self.show {
            bar.finish_and_clear();
        }
        self.show = Show::Nothing;
    }
}

fn about(view: &ProgressView) -> String {
    let workers = match view.workers {
        1 => "1 worker".to_owned(),
        workers => format!("{workers} workers"),
    };
    match view.waiting_for {
        Some(who) => format!("{} failed, {workers}, waiting for {who}", view.failed),
        None => format!("{} failed, {workers}", view.failed),
    }
}

fn style(has_total: bool) -> ProgressStyle {
    let template = if has_total {
        "{elapsed_precise} {wide_bar} {pos}/{len} {per_sec}, {eta} left, {msg}"
    } else {
        "{elapsed_precise} {spinner} {pos} done {per_sec}, {msg}"
    };
    ProgressStyle::with_template(template).expect("the templates are constants and parse")
}

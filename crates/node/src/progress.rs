//! How far the job is, on stderr: a bar on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use crate::exit::say;
use crate::figures::{self, time};
use tradewind_system::stderr;

/// What progress shows.
#[derive(Clone, Debug, Default)]
pub struct ProgressView {
    /// Tasks whose records are stored.
    pub done: u64,
    /// All tasks, once that is known.
    pub total: Option<u64>,
    /// About how many there are, until that is known.
    pub about: Option<u64>,
    /// Records whose status is not `ok`.
    pub failed: u64,
    /// Workers that are connected.
    pub workers: u64,
    /// Of those, the ones that cannot reach the sink.
    pub unreached: u64,
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

/// A terminal that has fewer columns gets no bar, only numbers.
const BAR_COLUMNS_MIN: usize = 60;

/// What a bar takes of a line, with the space after it, and the last column, which stays free.
const BAR_COLUMNS: usize = 22;

/// Without a terminal: not more often than this.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

impl Progress {
    /// Shows nothing if it is not wanted, else what suits stderr.
    #[must_use]
    pub fn new(is_wanted: bool) -> Self {
        let show = if !is_wanted {
            Show::Nothing
        } else if std::io::stderr().is_terminal() {
            let screen = ProgressDrawTarget::term_like_with_hz(Box::new(Screen::default()), 8);
            let bar = ProgressBar::with_draw_target(None, screen);
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
                let length = view.total.or(view.about);
                if bar.length() != length {
                    match length {
                        Some(total) => bar.set_length(total),
                        None => bar.unset_length(),
                    }
                }
                bar.set_position(view.done);
                let columns = usize::from(columns());
                let has_bar = length.is_some() && columns >= BAR_COLUMNS_MIN;
                bar.set_style(style(has_bar));
                let room = columns.saturating_sub(if has_bar { BAR_COLUMNS } else { 1 });
                let rate = Some(bar.per_sec()).filter(|_| view.done > 0);
                bar.set_message(fit(&pieces(bar.elapsed(), rate, view), room));
            }
            Show::Lines => self.line(view),
        }
    }

    /// Says how things stand, at once and whether or not progress is shown.
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
        if let Show::Bar(bar) = &self.show {
            bar.finish_and_clear();
        }
        self.show = Show::Nothing;
    }
}

/// The terminal that stderr is, by way of the queue of all that goes there: a terminal that was
/// stopped with Ctrl-S must not stop the job.
#[derive(Debug, Default)]
struct Screen(Mutex<Drawing>);

#[derive(Debug, Default)]
struct Drawing {
    bytes: Vec<u8>,
    /// What stands there when these are written is more than an empty line.
    is_bar: bool,
}

impl Screen {
    fn put(&self, text: &str, is_bar: bool) -> io::Result<()> {
        let mut drawing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drawing.bytes.extend_from_slice(text.as_bytes());
        drawing.is_bar = is_bar;
        Ok(())
    }

    /// Moves the cursor as terminals do for CSI, unless it stays where it is.
    fn go(&self, n: usize, direction: char) -> io::Result<()> {
        let is_bar = self.0.lock().unwrap_or_else(PoisonError::into_inner).is_bar;
        if n == 0 { Ok(()) } else { self.put(&format!("\x1b[{n}{direction}"), is_bar) }
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        columns()
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.go(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.go(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.go(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.go(n, 'D')
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        self.put(line, false)?;
        self.put("\n", false)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.put(text, true)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.put("\r\x1b[2K", false)
    }

    fn flush(&self) -> io::Result<()> {
        let mut drawing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = std::mem::take(&mut drawing.bytes);
        if !bytes.is_empty() {
            stderr::draw(bytes, drawing.is_bar);
        }
        Ok(())
    }
}

/// How things stand, piece by piece, the most important ones first. What is not known is left out.
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

/// As many of the pieces as there are columns for.
fn fit(pieces: &[String], columns: usize) -> String {
    let mut line = String::new();
    for piece in pieces {
        let gap = if line.is_empty() { "" } else { "  " };
        if !line.is_empty() && line.len() + gap.len() + piece.len() > columns {
            break;
        }
        line.push_str(gap);
        line.push_str(piece);
    }
    line
}

/// The width of the terminal that stderr is.
fn columns() -> u16 {
    match rustix::termios::tcgetwinsize(rustix::stdio::stderr()) {
        Ok(size) if size.ws_col > 0 => size.ws_col,
        _ => 80,
    }
}

fn style(has_bar: bool) -> ProgressStyle {
    let template = if has_bar { "{bar:20} {msg}" } else { "{msg}" };
    ProgressStyle::with_template(template).expect("the templates are constants and parse")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_known_and_fits() {
        let line = |done, total, rate, columns| {
            let view = ProgressView { done, total, workers: 1, ..ProgressView::default() };
            fit(&pieces(Duration::from_secs(9), rate, &view), columns)
        };
        assert_eq!(line(0, Some(40), None, 80), "0/40  1 worker  after 9s");
        assert_eq!(line(0, None, Some(0.0), 80), "0 done  1 worker  after 9s");
        assert_eq!(
            line(17, Some(40), Some(8.9124), 80),
            "17/40  8.9/s  eta 3s  1 worker  after 9s"
        );
        assert_eq!(line(17, Some(40), Some(8.9124), 25), "17/40  8.9/s  eta 3s");
        assert_eq!(line(17, Some(40), Some(8.9124), 12), "17/40  8.9/s");
        assert_eq!(line(17, Some(40), Some(8.9124), 3), "17/40");
        assert_eq!(line(170, None, Some(0.1), 80), "170 done  6.0/min  1 worker  after 9s");
        let view = ProgressView { done: 17, about: Some(40), ..ProgressView::default() };
        let line = fit(&pieces(Duration::from_secs(9), Some(8.9124), &view), 25);
        assert_eq!(line, "17/~40  8.9/s  eta 3s");
        let waits = ProgressView {
            done: 3,
            failed: 2,
            waiting_for: Some("workers"),
            ..ProgressView::default()
        };
        let all = fit(&pieces(Duration::from_secs(125), Some(2.0), &waits), 80);
        assert_eq!(all, "3 done  2.0/s  2 failed  waiting for workers  0 workers  after 2m");
    }
}

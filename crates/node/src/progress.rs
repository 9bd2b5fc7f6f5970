//! How far the job is, on stderr: a bar on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use crate::exit::say;
use crate::stderr;

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
        let done = view.done;
        let Some(total) = view.total else {
            return format!("{done} done, {rate:.1}/s, {}", about(view));
        };
        let eta = if rate > 0.0 {
            let left = total.saturating_sub(done) as f64 / rate;
            let left = Duration::try_from_secs_f64(left.ceil()).unwrap_or(Duration::MAX);
            format!(", {} left", humantime::format_duration(left))
        } else {
            String::new()
        };
        format!("{done} of {total} done, {rate:.1}/s{eta}, {}", about(view))
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
        match rustix::termios::tcgetwinsize(rustix::stdio::stderr()) {
            Ok(size) if size.ws_col > 0 => size.ws_col,
            _ => 80,
        }
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

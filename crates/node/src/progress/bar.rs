//! A bar on a terminal.

use std::io;
use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use tradewind_system::stderr;

use super::{ProgressView, pieces};

/// Number of columns below which a terminal gets no bar, only numbers.
const BAR_COLUMNS_MIN: usize = 60;

/// Number of columns of the bar, with the space after it and the last column, which stays free.
const BAR_COLUMNS: usize = 22;

/// A line that is drawn again and again.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new() -> Self {
        let screen = ProgressDrawTarget::term_like_with_hz(Box::new(Screen::default()), 8);
        let bar = ProgressBar::with_draw_target(None, screen);
        bar.set_style(style(false));
        Self(bar)
    }

    /// Draws the state of the job.
    pub(super) fn show(&self, view: &ProgressView) {
        let Self(bar) = self;
        // A bar that is cleared stays so: what comes late would clear the line after it too.
        if bar.is_finished() {
            return;
        }
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

    /// Leaves the terminal as it was.
    pub(super) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

/// The terminal that stderr is, by way of the queue of all that goes there: a terminal that was
/// stopped with Ctrl-S must not stop the job.
#[derive(Debug, Default)]
struct Screen(Mutex<Drawing>);

#[derive(Debug, Default)]
struct Drawing {
    bytes: Vec<u8>,
    /// Whether there is more than an empty line when these are written.
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

/// Returns the pieces for which there are columns.
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

/// Returns the width of the terminal on stderr.
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
    use std::time::Duration;

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

//! Stopping what runs, from another thread.

use tradewind_node::{Asked, Shutdown, StopHandle, exit::Fatal};

/// Stops a ventilator, a worker or a sink. May be used before it has begun, and after it has ended.
///
/// | | [`drain`](Self::drain) | [`cancel`](Self::cancel) | [`quit`](Self::quit) |
/// | --- | --- | --- | --- |
/// | ventilator | takes no more tasks, finishes those it has handed out | gives all that have not ended a `cancelled` record | leaves at once |
/// | worker | hands back what has not started, finishes what runs | leaves at once: what ran is run elsewhere | the same |
/// | sink | stores what it has and leaves; the others wait for another | the same | the same |
#[derive(Clone, Debug, Default)]
pub struct Handle(StopHandle);

impl Handle {
    /// As the first SIGTERM does with the programs.
    pub fn drain(&self) {
        self.0.ask(Asked::Drain);
    }

    /// As the second does.
    pub fn cancel(&self) {
        self.0.ask(Asked::Cancel);
    }

    /// As the third does.
    pub fn quit(&self) {
        self.0.ask(Asked::Quit);
    }

    /// Returns the receiver of the requests. Needs a tokio runtime around it if signals count as well.
    pub(crate) fn shutdown(&self, signals: bool) -> Result<Shutdown, Fatal> {
        let shutdown = Shutdown::by(&self.0);
        if signals { shutdown.or_signals() } else { Ok(shutdown) }
    }
}

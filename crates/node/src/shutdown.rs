//! Signals that ask a program to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{Fatal, OrExit, SYSTEM};

/// Counts how often the program was asked to stop, by SIGINT or SIGTERM.
#[derive(Debug)]
pub struct Shutdown {
    interrupt: Signal,
    terminate: Signal,
    asked: u32,
}

impl Shutdown {
    /// Takes the signals over. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// When the system has no signals to give.
    pub fn new() -> Result<Self, Fatal> {
        let take = |kind| signal(kind).or_exit(SYSTEM);
        Ok(Self {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            asked: 0,
        })
    }

    /// Waits for the next signal and says how many there have been. Cancel-safe.
    pub async fn asked(&mut self) -> u32 {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        self.asked += 1;
        self.asked
    }
}

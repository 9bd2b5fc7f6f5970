//! Queues that stay open: a server with a directory, and three programs that use it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::lab::{Lab, Place};
use crate::process::{PATIENCE, Program, Running};

/// Interval at which a server is asked whether it is up.
const ASK_INTERVAL: Duration = Duration::from_millis(1);

/// Server of a queue. All programs of a place are its own.
pub(crate) trait Queue {
    /// Returns the server on a directory, which may have tasks.
    fn server(&self, lab: &Lab, place: &Place, dir: &Path) -> Result<Program>;

    /// Returns whether the server answers. May wait for that.
    fn answers(&self, place: &Place) -> bool;

    /// Makes what has to be there in an empty directory.
    fn set_up(&self, _lab: &Lab, _place: &Place) -> Result<()> {
        Ok(())
    }

    /// Returns a program that submits the lines of a file and ends when the server has all.
    fn producer(&self, lab: &Lab, place: &Place, input: &Path) -> Program;

    /// Returns a program that echoes tasks, until it is killed.
    fn worker(&self, lab: &Lab, place: &Place) -> Program;

    /// Waits until a worker that was started is up.
    fn wait_for_worker(&self, _place: &Place) -> Result<()> {
        Ok(())
    }

    /// Returns a program that writes this number of results, from the next one on.
    fn consumer(&self, lab: &Lab, place: &Place, count: u64, output: &Path) -> Result<Program>;

    /// Starts the server on a directory, and returns when it answers.
    fn start(&self, lab: &Lab, place: &Place, dir: &Path) -> Result<Running> {
        std::fs::create_dir_all(dir)?;
        let server = self.server(lab, place, dir)?.start()?;
        let began = Instant::now();
        while !self.answers(place) {
            // Until then, or until the server has ended.
            if server.wait(ASK_INTERVAL).is_ok() || began.elapsed() > PATIENCE {
                bail!("the server does not come up: {}", server.said());
            }
        }
        Ok(server)
    }

    /// Starts the server on an empty directory, and returns when it can take tasks.
    fn start_empty(&self, lab: &Lab, place: &Place, dir: &Path) -> Result<Running> {
        let server = self.start(lab, place, dir)?;
        self.set_up(lab, place)?;
        Ok(server)
    }
}

//! beanstalkd, with a producer, workers and a consumer (`role/beanstalk.rs`) that talk to it as good
//! clients do: many requests at once.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::bare::Work;
use super::queue::Queue;
use super::shell;
use crate::lab::{Lab, Place};
use crate::process::{Program, Running};
use crate::role::beanstalk::Broker;

const PORT: u16 = 11300;

/// beanstalkd, installed.
#[derive(Debug)]
pub(crate) struct Beanstalkd {
    kept: Kept,
}

/// Where beanstalkd keeps its jobs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kept {
    InMemory,
    /// In a log as well, synced at most every so many milliseconds; 0 is after each command.
    InLog {
        sync_ms: u32,
    },
}

impl Beanstalkd {
    pub(crate) fn find(kept: Kept) -> Result<Self> {
        shell::installed("beanstalkd")?;
        Ok(Self { kept })
    }

    /// Measures from the start of the three roles to the end of the consumer; the broker is up by
    /// then.
    pub(crate) fn run(
        &self,
        lab: &Lab,
        place: &Place,
        input: &Path,
        count: u64,
        output: &Path,
        workers: &[Work],
    ) -> Result<Duration> {
        let _broker = self.start(lab, place, place.dir())?;
        let began = Instant::now();
        let consumer = self.consumer(lab, place, count, output)?.start()?;
        let _workers: Vec<Running> = workers
            .iter()
            .map(|work| match work {
                Work::Echo => self.worker(lab, place).start(),
                Work::Sleep { slower } => self.worker(lab, place).arg(slower.to_string()).start(),
            })
            .collect::<Result<_>>()?;
        let _producer = self.producer(lab, place, input).start()?;
        consumer.finish()?;
        Ok(began.elapsed())
    }

    /// Connects to the broker of a place.
    pub(crate) fn client(&self, place: &Place) -> Result<Broker> {
        Broker::of_client(&place.address(PORT).to_string())
    }
}

impl Queue for Beanstalkd {
    fn server(&self, _lab: &Lab, place: &Place, dir: &Path) -> Result<Program> {
        let address = place.address(PORT);
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let broker = shell::installed("beanstalkd")?.args(["-l", &host, "-p", &port]);
        Ok(match self.kept {
            Kept::InMemory => broker,
            Kept::InLog { sync_ms } => broker.arg("-b").arg(dir).args(["-f", &sync_ms.to_string()]),
        })
    }

    fn answers(&self, place: &Place) -> bool {
        // It listens before it reads its log, and answers afterwards.
        self.client(place).is_ok_and(|mut broker| broker.ping().is_ok())
    }

    fn producer(&self, lab: &Lab, place: &Place, input: &Path) -> Program {
        role(lab, place, "producer").arg(input)
    }

    fn worker(&self, lab: &Lab, place: &Place) -> Program {
        role(lab, place, "tube-worker")
    }

    fn consumer(&self, lab: &Lab, place: &Place, count: u64, output: &Path) -> Result<Program> {
        Ok(role(lab, place, "consumer").arg(count.to_string()).arg(output))
    }
}

fn role(lab: &Lab, place: &Place, role: &str) -> Program {
    lab.ours("bench").args(["role", role]).arg(place.address(PORT).to_string())
}

//! beanstalkd, a broker in memory, with a producer, workers and a consumer (`role/beanstalk.rs`)
//! that talk to it as good clients do: many requests at once.

use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::bare::Work;
use super::shell;
use crate::lab::{Lab, Place};
use crate::process::{PATIENCE, Program, Running};

const PORT: u16 = 11300;

/// beanstalkd, installed.
#[derive(Debug)]
pub(crate) struct Beanstalkd;

impl Beanstalkd {
    pub(crate) fn find() -> Result<Self> {
        shell::installed("beanstalkd")?;
        Ok(Self)
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
        let _broker = start_broker(place)?;
        let role = |role: &str| {
            lab.ours("bench").args(["role", role]).arg(place.address(PORT).to_string())
        };
        let began = Instant::now();
        let consumer = role("consumer").arg(count.to_string()).arg(output).start()?;
        let _workers: Vec<Running> = workers
            .iter()
            .map(|work| match work {
                Work::Echo => role("tube-worker").start(),
                Work::Sleep { slower } => role("tube-worker").arg(slower.to_string()).start(),
            })
            .collect::<Result<_>>()?;
        let _producer = role("producer").arg(input).start()?;
        consumer.finish()?;
        Ok(began.elapsed())
    }
}

fn start_broker(place: &Place) -> Result<Running> {
    let address = place.address(PORT);
    let program: Program = shell::installed("beanstalkd")?;
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let broker = program.args(["-l", &host, "-p", &port]).start()?;
    let began = Instant::now();
    while let Err(error) = TcpStream::connect(address) {
        if began.elapsed() > PATIENCE {
            return Err(error).context("beanstalkd does not come up");
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(broker)
}

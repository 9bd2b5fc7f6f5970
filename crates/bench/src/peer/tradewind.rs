//! Tradewind's programs, started as a user would.

use std::path::Path;

use anyhow::Result;

use super::queue::Queue;
use crate::http::Http;
use crate::lab::{Lab, Place};
use crate::process::{Program, Running};

const TASKS_PORT: u16 = 5557;
const RESULTS_PORT: u16 = 5558;
const RECEIPTS_PORT: u16 = 5559;
const HTTP_PORT: u16 = 5560;

pub(crate) fn ventilator(lab: &Lab, place: &Place, input: impl AsRef<Path>) -> Program {
    lab.ours("ventilator")
        .arg("--input")
        .arg(input.as_ref())
        .args(["--tasks", &place.endpoint(TASKS_PORT)])
        .args(["--receipts", &place.endpoint(RECEIPTS_PORT)])
        .args(["--sink", &place.endpoint(RESULTS_PORT)])
}

/// Returns a worker that leaves with the job.
pub(crate) fn worker(lab: &Lab, place: &Place) -> Program {
    lab.ours("worker")
        .args(["--quiet", "--exit-when-done"])
        .args(["--ventilator", &place.endpoint(TASKS_PORT)])
        .args(["--sink", &place.endpoint(RESULTS_PORT)])
}

/// Returns a sink with ordered output, as is the default of lines.
pub(crate) fn sink(lab: &Lab, place: &Place, output: impl AsRef<Path>) -> Program {
    lab.ours("sink")
        .arg("--output")
        .arg(output.as_ref())
        .args(["--listen", &place.endpoint(RESULTS_PORT)])
        .args(["--ventilator", &place.endpoint(RECEIPTS_PORT)])
}

/// Starts all three over the tasks of a file; the workers have these arguments.
pub(crate) fn start_ring<'a>(
    lab: &Lab,
    place: &Place,
    input: &Path,
    output: &Path,
    workers: impl IntoIterator<Item = &'a [&'a str]>,
) -> Result<Vec<Running>> {
    let mut ring = vec![sink(lab, place, output).arg("--quiet").start()?];
    for args in workers {
        ring.push(worker(lab, place).args(args).start()?);
    }
    ring.push(ventilator(lab, place, input).arg("--quiet").start()?);
    Ok(ring)
}

/// `tradewind serve`, with a queue and programs (`role/queue.rs`) that use it by the Rust client.
#[derive(Debug)]
pub(crate) struct Serve;

impl Serve {
    /// Name of the one queue that is served.
    pub(crate) const QUEUE: &str = "bench";

    pub(crate) fn http(place: &Place) -> Result<Http> {
        Http::connect(place.address(HTTP_PORT))
    }

    /// Submits a task and waits for its record.
    pub(crate) fn ask(http: &mut Http, task: &[u8]) -> Result<Vec<u8>> {
        http.ask("POST", &format!("/v1/queues/{}/tasks", Self::QUEUE), "Prefer: wait=60\r\n", task)
    }

    pub(crate) fn url(place: &Place) -> String {
        format!("http://{}", place.address(HTTP_PORT))
    }
}

impl Queue for Serve {
    fn server(&self, lab: &Lab, place: &Place, dir: &Path) -> Result<Program> {
        Ok(lab
            .ours("tradewind")
            .args(["serve", "--quiet", "--dir"])
            .arg(dir)
            .args(["--tasks", &place.endpoint(TASKS_PORT)])
            .args(["--results", &place.endpoint(RESULTS_PORT)])
            .args(["--http", &place.address(HTTP_PORT).to_string()]))
    }

    fn answers(&self, place: &Place) -> bool {
        Self::http(place).is_ok_and(|mut http| http.get("/healthz").is_ok())
    }

    fn producer(&self, lab: &Lab, place: &Place, input: &Path) -> Program {
        lab.ours("bench").args(["role", "submitter", &Self::url(place), Self::QUEUE]).arg(input)
    }

    fn worker(&self, lab: &Lab, place: &Place) -> Program {
        lab.ours("tradewind")
            .args(["worker", "--quiet", "--echo", "--queue", Self::QUEUE])
            .args(["--ventilator", &place.endpoint(TASKS_PORT)])
            .args(["--sink", &place.endpoint(RESULTS_PORT)])
    }

    fn wait_for_worker(&self, place: &Place) -> Result<()> {
        Self::ask(&mut Self::http(place)?, b"warm-up").map(drop)
    }

    fn consumer(&self, lab: &Lab, place: &Place, count: u64, output: &Path) -> Result<Program> {
        let state = Self::http(place)?.get(&format!("/v1/queues/{}", Self::QUEUE))?;
        let state: serde_json::Value = serde_json::from_slice(&state)?;
        let program = lab
            .ours("bench")
            .args(["role", "reader", &Self::url(place), Self::QUEUE, &count.to_string()])
            .arg(output);
        // The next record is the one after the last.
        let last = state["position"].as_u64().map(|position| position.to_string());
        Ok(program.args(last))
    }
}

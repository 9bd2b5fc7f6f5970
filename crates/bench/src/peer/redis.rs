//! Redis, alone with two of its lists or under Celery. All that it is told is in its log.

use std::net::SocketAddrV4;
use std::path::Path;

use anyhow::Result;

use super::queue::Queue;
use super::shell;
use crate::lab::{Lab, Place};
use crate::process::Program;
use crate::role::redis::Redis;

const PORT: u16 = 6379;

/// Lists of Redis, with a log that is synced after each write.
#[derive(Debug)]
pub(crate) struct Lists;

impl Lists {
    pub(crate) fn find() -> Result<Self> {
        shell::installed("redis-server")?;
        Ok(Self)
    }
}

/// Returns the address of the server of a place.
pub(super) fn address(place: &Place) -> SocketAddrV4 {
    place.address(PORT)
}

/// Returns a server on a directory; with a log of its writes, or with nothing on the disk.
pub(super) fn server(place: &Place, dir: &Path, has_log: bool) -> Result<Program> {
    let address = address(place);
    let program = shell::installed("redis-server")?
        .args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()])
        .args(["--save", "", "--appendonly", if has_log { "yes" } else { "no" }])
        .dir(dir);
    Ok(if has_log { program.args(["--appendfsync", "always"]) } else { program })
}

impl Queue for Lists {
    fn server(&self, _lab: &Lab, place: &Place, dir: &Path) -> Result<Program> {
        server(place, dir, true)
    }

    fn answers(&self, place: &Place) -> bool {
        // While it loads, it says so instead.
        Redis::connect(&address(place).to_string())
            .and_then(|mut redis| redis.ask(&["PING"]))
            .is_ok_and(|answer| answer == "+PONG")
    }

    fn producer(&self, lab: &Lab, place: &Place, input: &Path) -> Program {
        role(lab, place, "redis-producer").arg(input)
    }

    fn worker(&self, lab: &Lab, place: &Place) -> Program {
        role(lab, place, "redis-worker")
    }

    fn consumer(&self, lab: &Lab, place: &Place, count: u64, output: &Path) -> Result<Program> {
        Ok(role(lab, place, "redis-consumer").arg(count.to_string()).arg(output))
    }
}

fn role(lab: &Lab, place: &Place, role: &str) -> Program {
    lab.ours("bench").args(["role", role]).arg(address(place).to_string())
}

//! NATS JetStream with streams in files, and programs (`role/nats.rs`) that talk to it as its clients do.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::queue::Queue;
use super::shell;
use crate::lab::{Lab, Place};
use crate::process::Program;
use crate::role::nats::Nats;

const PORT: u16 = 4222;

/// A server of NATS, installed.
#[derive(Debug)]
pub(crate) struct JetStream {
    program: PathBuf,
    /// Whether each message is synced before it is acknowledged. Otherwise that is done every two minutes.
    is_synced: bool,
}

impl JetStream {
    /// Returns the one in the path. Its version 2.9 cannot sync each message.
    pub(crate) fn find() -> Result<Self> {
        shell::installed("nats-server")?;
        Ok(Self { program: "nats-server".into(), is_synced: false })
    }

    /// Returns one that can.
    pub(crate) fn synced(lab: &Lab) -> Result<Self> {
        let program = lab.peers.nats.clone().context("there is no nats-server that syncs")?;
        Ok(Self { program, is_synced: true })
    }
}

impl Queue for JetStream {
    fn server(&self, _lab: &Lab, place: &Place, dir: &Path) -> Result<Program> {
        let (address, dir) = (place.address(PORT), dir.display());
        let sync = if self.is_synced { ", sync_interval: always" } else { "" };
        let config = place.path("nats.conf");
        let content =
            format!("listen: \"{address}\"\njetstream {{ store_dir: \"{dir}\"{sync} }}\n");
        fs::write(&config, content).context("cannot write a configuration")?;
        Ok(Program::new(&self.program).arg("-c").arg(config))
    }

    fn answers(&self, place: &Place) -> bool {
        Nats::connect(&place.address(PORT).to_string()).is_ok()
    }

    fn set_up(&self, lab: &Lab, place: &Place) -> Result<()> {
        role(lab, place, "nats-set-up").start()?.finish()?;
        Ok(())
    }

    fn producer(&self, lab: &Lab, place: &Place, input: &Path) -> Program {
        role(lab, place, "nats-producer").arg(input)
    }

    fn worker(&self, lab: &Lab, place: &Place) -> Program {
        role(lab, place, "nats-worker")
    }

    fn consumer(&self, lab: &Lab, place: &Place, count: u64, output: &Path) -> Result<Program> {
        Ok(role(lab, place, "nats-consumer").arg(count.to_string()).arg(output))
    }
}

fn role(lab: &Lab, place: &Place, role: &str) -> Program {
    lab.ours("bench").args(["role", role]).arg(place.address(PORT).to_string())
}

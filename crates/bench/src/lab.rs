//! Lab: programs to start, addresses and scratch directories.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::process::Program;

/// Things that a measurement needs.
#[derive(Debug)]
pub(crate) struct Lab {
    /// Number of rounds.
    pub(crate) rounds: usize,
    /// Whether to do less work.
    pub(crate) is_quick: bool,
    pub(crate) peers: Peers,
    programs: PathBuf,
    scratch: TempDir,
    places: Cell<u8>,
}

/// Peers that are not in the path.
#[derive(Debug)]
pub(crate) struct Peers {
    /// The C pipeline, if it could be compiled.
    pub(crate) pipeline: Option<PathBuf>,
    /// A Python that has Celery and Dask, if it could be installed.
    pub(crate) python: Option<PathBuf>,
    /// A server of NATS that can sync each message, if it could be installed.
    pub(crate) nats: Option<PathBuf>,
}

/// Place of one run: a directory and an address that no other run has.
#[derive(Debug)]
pub(crate) struct Place {
    dir: TempDir,
    host: Ipv4Addr,
}

impl Lab {
    pub(crate) fn new(rounds: usize, is_quick: bool, peers: Peers) -> Result<Self> {
        let ours = std::env::current_exe().context("cannot find this program")?;
        let programs = ours.parent().context("this program is in no directory")?.to_owned();
        let scratch = tempfile::Builder::new().prefix("tradewind-bench-").tempdir()?;
        Ok(Self { rounds, is_quick, peers, programs, scratch, places: Cell::new(0) })
    }

    /// Returns the directory of scratch files.
    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Returns the first number for a full run, the second for a quick one.
    pub(crate) fn count(&self, full: u64, quick: u64) -> u64 {
        if self.is_quick { quick } else { full }
    }

    /// Creates a place for the next run.
    pub(crate) fn place(&self) -> Result<Place> {
        let number = self.places.get() % 250 + 1;
        self.places.set(number);
        // Loopback has 16 million addresses, and each has all ports: no other program uses these.
        let [.., high, low] = std::process::id().to_be_bytes();
        let dir =
            tempfile::tempdir_in(self.scratch()).context("cannot make a scratch directory")?;
        Ok(Place { dir, host: Ipv4Addr::new(127, high, low, number) })
    }

    /// Returns one of Tradewind's programs, or this one: `cargo build` puts them side by side.
    pub(crate) fn ours(&self, name: &str) -> Program {
        // Of what is compared with it nothing encrypts; scripts/measure has the price of keys.
        Program::new(self.program(name)).env("TRADEWIND_INSECURE", "true")
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }
}

impl Place {
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    pub(crate) fn address(&self, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.host, port)
    }

    pub(crate) fn endpoint(&self, port: u16) -> String {
        format!("tcp://{}", self.address(port))
    }
}

//! Network namespaces joined by a bridge: machines that can be cut off from one another.
//!
//! Takes root and iproute2. Names carry the id of the process that made them, so that what a killed
//! one has left behind, and what still runs in it, is known and removed.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{panic, thread};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Beginning of the names of everything that is made here.
const PREFIX: &str = "twchaos";

/// The interface inside of each namespace.
const INSIDE: &str = "eth0";

/// Address of the bridge, at which [`Namespaces::within`] is.
const HUB: &str = "10.77.0.254/24";

/// Namespaces with an address each; removed when this is dropped.
#[derive(Debug)]
pub struct Namespaces {
    prefix: String,
    nodes: usize,
}

static MADE: AtomicU32 = AtomicU32::new(0);

impl Namespaces {
    /// New ones. What processes that are no more have left behind is removed first.
    ///
    /// # Errors
    /// When they cannot be made: without root, without iproute2, or where the kernel has none.
    ///
    /// # Panics
    /// When there are more of them than addresses.
    pub fn new(nodes: usize) -> io::Result<Self> {
        assert!(nodes < 250, "a network has so many addresses");
        remove_stale()?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        // From here on, whatever fails, what was made is removed.
        let made = Self { prefix: format!("{PREFIX}-{}-{number}", std::process::id()), nodes };
        made.make()?;
        Ok(made)
    }

    /// The namespace's name.
    #[must_use]
    pub fn name(&self, node: usize) -> String {
        format!("{}-{node}", self.prefix)
    }

    /// Returns a namespace's address. It cannot be reached from outside, so all of our networks have the same.
    ///
    /// # Panics
    /// Never: there are not that many.
    #[must_use]
    pub fn address(&self, node: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, 1 + u8::try_from(node).expect("there are fewer than 250"))
    }

    /// Runs something on a thread that is at the bridge: it reaches all nodes that are not cut off. Threads and
    /// processes that it starts are there too.
    ///
    /// # Panics
    /// When it does, or the thread cannot be moved.
    pub fn within<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.hub());
        let there = || {
            let hub = std::fs::File::open(path).expect("iproute2 has made it");
            move_into_link_name_space(hub.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root may go there");
            run()
        };
        let done = thread::scope(|scope| scope.spawn(there).join());
        done.unwrap_or_else(|panicked| panic::resume_unwind(panicked))
    }

    /// Pulls the node's cable out of the bridge, or puts it in again.
    ///
    /// # Errors
    /// When that fails.
    pub fn set_cut(&self, node: usize, is_cut: bool) -> io::Result<()> {
        let state = if is_cut { "down" } else { "up" };
        ip(&["-n", &self.hub(), "link", "set", &port(node), state]).map(drop)
    }

    fn make(&self) -> io::Result<()> {
        let hub = self.hub();
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", &hub, "address", "add", HUB, "dev", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "bridge", "up"])?;
        ip(&["-n", &hub, "link", "set", "lo", "up"])?;
        for node in 0..self.nodes {
            let (name, port) = (self.name(node), port(node));
            let address = format!("{}/24", self.address(node));
            ip(&["netns", "add", &name])?;
            let veth = ["type", "veth", "peer", "name", INSIDE, "netns", &name];
            ip(&[&["-n", &hub, "link", "add", &port][..], &veth].concat())?;
            ip(&["-n", &hub, "link", "set", &port, "master", "bridge", "up"])?;
            ip(&["-n", &name, "address", "add", &address, "dev", INSIDE])?;
            ip(&["-n", &name, "link", "set", INSIDE, "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // The links go with their namespaces.
        for name in (0..self.nodes).map(|node| self.name(node)).chain([self.hub()]) {
            let _ = ip(&["netns", "delete", &name]);
        }
    }
}

/// The bridge's end of a node's cable.
fn port(node: usize) -> String {
    format!("port{node}")
}

fn remove_stale() -> io::Result<()> {
    let is_alive = |id: u32| Path::new(&format!("/proc/{id}")).exists();
    for name in stale(&ip(&["netns", "list"])?, is_alive) {
        // Another one of us may be at it too, so nothing of this need succeed.
        let ids = ip(&["netns", "pids", name]).unwrap_or_default();
        for id in ids.lines().filter_map(|id| Pid::from_raw(id.parse().ok()?)) {
            let _ = kill_process(id, Signal::KILL);
        }
        let _ = ip(&["netns", "delete", name]);
    }
    Ok(())
}

/// Of the names that `ip netns list` prints, those that a process made which is no more.
fn stale(list: &str, is_alive: impl Fn(u32) -> bool) -> Vec<&str> {
    let names = list.lines().filter_map(|line| line.split_whitespace().next());
    let maker = |name: &str| -> Option<u32> {
        name.strip_prefix(PREFIX)?.strip_prefix('-')?.split('-').next()?.parse().ok()
    };
    names.filter(|name| maker(name).is_some_and(|id| !is_alive(id))).collect()
}

fn ip(args: &[&str]) -> io::Result<String> {
    let done = Command::new("ip").args(args).stdin(Stdio::null()).output()?;
    if done.status.success() {
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&done.stderr);
        Err(io::Error::other(format!("ip {}: {}", args.join(" "), said.trim())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_dead_processes_have_made_is_stale() {
        let list = "twchaos-12-0-hub\ntwchaos-12-0-1 (id: 3)\ntwchaos-7-4-0\ntwchaos\nother-12\n";
        assert_eq!(stale(list, |id| id == 7), ["twchaos-12-0-hub", "twchaos-12-0-1"]);
        assert!(stale(list, |_| true).is_empty());
    }
}

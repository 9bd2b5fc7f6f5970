//! A process that is looked after: its group, its pipes, its end. A command that runs for one task
//! and a child that stays are what is done with one.
//!
//! `environment` is what all of them have; `supervisor` owns the process; `group` signals it and asks who is
//! left of it, `pipes` reads and writes, `termination` and `linger` decide when to signal and how long to
//! listen.

mod environment;
mod exit;
mod group;
mod linger;
mod oom;
mod pipes;
mod supervisor;
mod termination;

pub(crate) use environment::Environment;
#[cfg(test)]
pub(crate) use exit::signal_name;
pub(crate) use exit::{exit_of, killed_by, terminal_reason};
#[cfg(test)]
pub(crate) use group::members;
pub(crate) use linger::Linger;
pub(crate) use oom::{OomKills, REASON as OOM_REASON, may_be as may_be_oom};
pub(crate) use pipes::{Stream, Written};
pub(crate) use supervisor::{Interest, Launch, Ready, Supervised};
pub(crate) use termination::Termination;

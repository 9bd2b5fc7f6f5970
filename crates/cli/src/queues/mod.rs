//! Commands about queues: each asks a server, which `tradewind serve` is.

mod manage;
mod read;
mod server;
mod submit;
mod tasks;

pub(crate) use manage::{PauseArgs, QueueArgs, ResumeArgs};
pub(crate) use read::{RecordsArgs, ResultArgs, StatusArgs};
pub(crate) use submit::SubmitArgs;
pub(crate) use tasks::{CancelArgs, RetryArgs};

/// Exit code of a program that waited for a record in vain, as that of timeout(1).
const NO_RECORD: u8 = 124;

/// Table of the exit codes for `--help`.
const HELP: &str = "\
Exit codes:
  0    it is done, and every record that was asked for is ok
  1    some of these records are not ok
  2    the command line is wrong
  3    the input cannot be read, or is not what was submitted under its keys
  4    the output cannot be written
  6    the server was not reached, or its answer was lost
  7    the server refused the request
  8    something else went wrong on this machine
  10   another program answers there, or one with other keys
  124  a task has no record yet
  141  the reader of the output closed it";

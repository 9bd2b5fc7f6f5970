//! Exit statuses in words.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::Signal;
use tradewind_proto::message::Exit;

pub(crate) fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::None,
    }
}

pub(crate) fn killed_by(signal: i32) -> String {
    match signal_name(signal) {
        Some(name) => format!("killed by signal {signal} (SIG{name})"),
        None => format!("killed by signal {signal}"),
    }
}

/// Returns the name as on x86, ARM and RISC-V; real-time signals have none.
pub(crate) fn signal_name(signal: i32) -> Option<&'static str> {
    const NAMES: &str = "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM \
                         STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO \
                         PWR SYS";
    NAMES.split(' ').nth(usize::try_from(signal).ok()?.checked_sub(1)?)
}

/// Returns why a process was stopped by TTIN or TTOU, and what helps.
pub(crate) fn terminal_reason(signal: Signal) -> &'static str {
    if signal == Signal::TTIN {
        "it was stopped because it wants to read from the terminal (SIGTTIN), and commands have \
         none: give it its input another way, or use `tradewind run --tty -j1`"
    } else {
        "it was stopped because it wants to write to the terminal or to set it up (SIGTTOU), and \
         commands have none: use `tradewind run --tty -j1`"
    }
}

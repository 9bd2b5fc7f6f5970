//! Queues and jobs whose logs are an engine's, on a real server that each test starts: run by `scripts/engines`.

mod chapter;
mod jobs;
mod network;
#[path = "../e2e/book/pages.rs"]
#[allow(dead_code, reason = "the book's own tests use the rest")]
mod pages;
mod queues;
#[path = "../e2e/book/shell.rs"]
#[allow(dead_code, reason = "the book's own tests use the rest")]
mod shell;
mod transactions;

use std::process::Command;

/// Notes that a test is not run for want of something. Where all is to be there, it fails.
#[track_caller]
fn skip(test: &str, reason: &str) {
    let is_required = std::env::var_os("ENGINES_REQUIRED").is_some_and(|it| !it.is_empty());
    assert!(!is_required, "{test}: {reason}");
    tradewind_e2e::note_skipped(test, reason);
}

fn has_nats() -> bool {
    has(&std::env::var("NATS_SERVER").unwrap_or_else(|_| "nats-server".to_owned()))
}

fn has_postgres() -> bool {
    let bin = std::env::var("POSTGRES_BIN").map(|bin| format!("{bin}/")).unwrap_or_default();
    has(&format!("{bin}initdb"))
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|ended| ended.status.success())
}

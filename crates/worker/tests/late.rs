//! A worker that leaves with the job, and comes after the job's end.

use std::net::TcpListener;
use std::time::Duration;

use clap::Parser;
use tradewind_node::exit::CONNECT;
use tradewind_node::{Shutdown, StopHandle};
use tradewind_worker::{Settings, WorkerArgs, run};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: WorkerArgs,
}

fn settings(flags: &str) -> Settings {
    let args = Cli::parse_from("worker --echo".split(' ').chain(flags.split_whitespace())).args;
    args.settings().unwrap_or_else(|fatal| panic!("{:#}", fatal.error))
}

#[test]
fn only_one_that_leaves_with_the_job_may_be_late() {
    let minute = Some(Duration::from_secs(60));
    for (flags, late_max) in [
        ("--exit-when-done", minute),
        ("--exit-when-done --connect-timeout 2m", None),
        ("--connect-timeout 2m", None),
        ("", None),
    ] {
        assert_eq!(settings(flags).late_max, late_max, "{flags:?}");
    }
}

#[tokio::test]
async fn one_that_is_late_leaves() {
    // Where nobody listens any more.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    drop(listener);
    let flags = format!("--exit-when-done --ventilator {endpoint} --sink {endpoint}");
    let late_max = Some(Duration::from_millis(300));
    let late = Settings { late_max, ..settings(&flags) };
    let ended = run(late, Shutdown::by(&StopHandle::default())).await.unwrap_err();
    assert_eq!(ended.code, CONNECT);
    let text = format!("{:#}", ended.error);
    assert!(text.contains(&format!("{endpoint} was not reached in 300ms")), "{text}");
    assert!(text.contains("is the job over already?"), "{text}");
}

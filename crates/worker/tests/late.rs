//! A worker that leaves with the job, and comes after the job's end.

use std::net::TcpListener;
use std::time::Duration;

use clap::Parser;
use tradewind_lanes::{LaneOptions, PushGate};
use tradewind_node::doors::{Port, gate_door};
use tradewind_node::exit::CONNECT;
use tradewind_node::links::send;
use tradewind_node::{Room, Shutdown, StopHandle};
use tradewind_proto::limits::{FORGOTTEN_MAX, MESSAGE_BYTES_MAX};
use tradewind_proto::message::{Card, Layout, Role, ToWorker};
use tradewind_proto::{CallId, JobId, SessionId};
use tradewind_worker::{Settings, WorkerArgs, run};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: WorkerArgs,
}

fn settings(flags: &str) -> Settings {
    let args =
        Cli::parse_from("worker --echo --insecure".split(' ').chain(flags.split_whitespace())).args;
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

#[test]
fn only_one_that_leaves_with_the_job_takes_it_to_be_over() {
    let hours = Some(Duration::from_secs(2 * 3600));
    for (flags, forgotten_max) in [
        ("--exit-when-done", Some(FORGOTTEN_MAX)),
        ("--exit-when-done --connect-timeout 2m", Some(FORGOTTEN_MAX)),
        ("--exit-when-done --connect-timeout 2h", hours),
        ("--connect-timeout 2h", None),
        ("", None),
    ] {
        assert_eq!(settings(flags).forgotten_max, forgotten_max, "{flags:?}");
    }
}

/// A ventilator that knows a job when it is reached first, and knows none when it is reached again.
async fn serve_once(mut gate: PushGate) {
    let mut lane = gate.accept().await;
    let (job, call, layout) = (JobId(1), CallId(1), Layout::Unsaid);
    send(&mut lane, &ToWorker::RollCall { job, call, layout }).expect("the worker is there");
    send(&mut lane, &ToWorker::Ping).expect("the worker is there");
    lane.close(Duration::from_secs(5)).await;
    let mut lane = gate.accept().await;
    while send(&mut lane, &ToWorker::Ping).is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn one_that_has_missed_the_end_leaves() {
    let card = Card {
        role: Role::Ventilator,
        session: SessionId(1),
        slots: 0,
        message_bytes_max: MESSAGE_BYTES_MAX,
        name: "ventilator".to_owned(),
        queue: String::new(),
    };
    let door = gate_door(&card, Port::Tasks, Room::for_workers(1, 0), &None);
    let any_port = "tcp://127.0.0.1:0".parse().unwrap();
    let gate = PushGate::bind(&any_port, LaneOptions::default(), door).await.unwrap();
    let endpoint = gate.endpoint().clone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("tcp://{}", listener.local_addr().unwrap());
    drop(listener);
    let flags = format!("--exit-when-done --ventilator {endpoint} --sink {nobody}");
    let forgotten_max = Some(Duration::from_millis(300));
    let forgotten = Settings { forgotten_max, ..settings(&flags) };
    let shutdown = Shutdown::by(&StopHandle::default());
    let (ended, _ventilator) = (run(forgotten, shutdown), tokio::spawn(serve_once(gate)));
    let ended = ended.await.unwrap_err();
    assert_eq!(ended.code, CONNECT);
    let text = format!("{:#}", ended.error);
    assert!(text.contains("for 300ms no ventilator that knows the job was met at"), "{text}");
}

#[tokio::test]
async fn one_that_is_late_leaves() {
    // An endpoint at which no process listens any more.
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

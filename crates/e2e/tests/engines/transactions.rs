//! A program of another language puts tasks in by transactions of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tradewind_e2e::chaos::{EngineKind, EngineServer};
use tradewind_e2e::{Scene, ask, wait_for};

use super::{has_postgres, skip};

const PARTITIONS: u32 = 2;

const TRANSACTIONS: u64 = 2_000;

/// A Python with psycopg: what `scripts/engines` installs, or the system's.
fn python() -> Option<String> {
    let python = std::env::var("PSYCOPG_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let ended = Command::new(&python).args(["-c", "import psycopg"]).output();
    ended.is_ok_and(|it| it.status.success()).then_some(python)
}

#[test]
fn tasks_of_a_program_have_records_exactly_if_its_transactions_committed() {
    let test = "tasks_of_a_program_have_records_exactly_if_its_transactions_committed";
    let Some(python) = python() else {
        return skip(test, "there is no psycopg, which scripts/engines installs");
    };
    if !has_postgres() {
        return skip(test, "there is no PostgreSQL, which scripts/engines installs");
    }
    let (engine, scene) = (EngineServer::start(EngineKind::Postgres), Scene::new());
    let config = scene.file("serve.toml", engine.config("mail", PARTITIONS));
    let mut serve = scene.serve().arg("--config").arg(config).start();
    serve.wait_for_stderr("partition 1 is taken");
    let _worker = scene.worker("w").words("--queue mail --echo --slots 4").start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engines/shop.py");
    let url = engine.url("mail");
    let (database, _) = url.split_once('?').expect("it names a table");
    let shop = scene.other(&python).arg(script).args([database, "mail"]);
    let told = shop.arg(TRANSACTIONS.to_string()).run().expect(0);
    let told: BTreeMap<String, BTreeSet<u64>> = serde_json::from_str(told.text()).unwrap();
    for outcome in ["committed", "rolled_back", "cut", "unheard"] {
        assert!(told[outcome].len() as u64 >= TRANSACTIONS / 5, "{outcome}: {told:?}");
    }
    let sold = &told["sold"];
    assert!(sold.is_superset(&told["committed"]), "what was heard is there");
    assert!(sold.is_disjoint(&told["rolled_back"]) && sold.is_disjoint(&told["cut"]));
    // Tasks behind the last one would have come before it was sold, or never.
    let records = wait_for("each has its record", || {
        let mut records = Vec::new();
        for partition in 0..PARTITIONS {
            let mut after = String::new();
            loop {
                let path =
                    format!("/v1/queues/mail/records?partition={partition}&limit=1000{after}");
                let page = ask(scene.http(), "GET", &path, &[], b"").ok()?.expect(200);
                let Some(last) = page.body.lines().last() else { break };
                let last: Value = serde_json::from_str(last).unwrap();
                after = format!("&after={}", last["position"]);
                records.extend(page.body.lines().map(output));
            }
        }
        (records.len() >= sold.len()).then_some(records)
    });
    wait_for("the queue is empty", || {
        let state = ask(scene.http(), "GET", "/v1/queues/mail", &[], b"").ok()?.json();
        (state["queued"] == 0 && state["running"] == 0).then_some(())
    });
    assert_eq!(records.len(), sold.len(), "one record for each");
    assert_eq!(records.into_iter().collect::<BTreeSet<_>>(), *sold);
    let unheard = &told["unheard"];
    let came = unheard.intersection(sold).count();
    eprintln!("{} tasks; of {} commits without an answer {came} came", sold.len(), unheard.len());
}

fn output(line: &str) -> u64 {
    let record: Value = serde_json::from_str(line).unwrap();
    assert_eq!(record["status"], "ok", "{record}");
    record["output"].as_str().unwrap().parse().expect("it is the task")
}

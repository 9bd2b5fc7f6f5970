//! A Rust program as a worker: the examples of the `tradewind` crate.

use std::io::Write;

use tradewind_e2e::{Process, Scene, Signal, Start, records, wait_until};

fn check(example: &str, flags: &str, input: &str, output: &str) {
    let scene = Scene::new();
    let sink = scene.sink().start();
    let ventilator = scene.ventilator().words(flags).input(input).start();
    let endpoints = [scene.tasks(), scene.results()].map(|address| format!("tcp://{address}"));
    let worker: Start = scene.ours(&format!("examples/{example}")).args(endpoints);
    let worker = worker.start();
    let failed = i32::from(output.is_empty());
    ventilator.wait().expect(failed);
    assert_eq!(sink.wait().expect(failed).text(), output, "{example}");
    worker.wait().expect(0);
    scene.assert_nothing_left();
}

#[test]
fn a_closure_runs_tasks() {
    check("primes", "", "10\n100\n1000\n", "10 4\n100 25\n1000 168\n");
}

#[test]
fn an_error_of_a_closure_is_its_tasks_failure() {
    check("primes", "", "many\n", "");
}

#[test]
fn a_closure_that_heeds_its_timeout_is_stopped() {
    check("primes", "--timeout 200ms", "9000000000\n", "");
}

#[test]
fn an_asynchronous_closure_runs_many_tasks_at_once() {
    let lines: String = (0..500).map(|n| format!("{n}\n")).collect();
    check("waits", "", &lines, &lines);
}

#[test]
fn sigterm_drains_a_rust_worker() {
    let scene = Scene::new();
    let sink = scene.sink().words("--format jsonl").start();
    let mut ventilator = scene.ventilator().keep_stdin().start();
    let mut give = |tasks: &[u8]| {
        ventilator.stdin().expect("it is open").write_all(tasks).expect("it is read");
    };
    give(b"1\n2\n");
    let worker = || -> Process {
        let endpoints = [scene.tasks(), scene.results()].map(|address| format!("tcp://{address}"));
        scene.ours("examples/waits").args(endpoints).start()
    };
    let mut first = worker();
    wait_until("both tasks have their records", || sink.stdout_lines() == 2);
    first.signal(Signal::TERM);
    first.wait().expect(0);
    let second = worker();
    give(b"3\n");
    ventilator.close_stdin();
    ventilator.wait().expect(0);
    second.wait().expect(0);
    let records = records(&sink.wait().expect(0).stdout, 3);
    assert!(records.iter().all(|record| record.status == "ok"));
    scene.assert_nothing_left();
}

#[test]
fn a_closure_takes_and_returns_values() {
    let order = |item, count, price| {
        format!("{{\"item\":\"{item}\",\"count\":{count},\"price\":{price}}}\n")
    };
    let orders = order("tea", 3, "2.5") + &order("tar", 0, "1") + &order("rum", 1, "9.75");
    let totals = "{\"item\":\"tea\",\"total\":7.5}\n{\"item\":\"rum\",\"total\":9.75}\n";
    check("orders", "", &orders, totals);
    check("orders", "", &order("debt", 1, "-1"), "");
}

#[test]
fn a_program_is_all_three() {
    let scene = Scene::new();
    let file = |name: &str, text: &str| scene.file(name, text).display().to_string();
    let names = [file("a", "one two\n"), file("b", ""), file("c", "1\n2\n3")];
    let words = scene.ours("examples/words").args(&names).start();
    let ended = words.wait().expect(0);
    let wanted = ["2", "0", "3"].iter().zip(&names).map(|(n, name)| format!("{n:>8} {name}\n"));
    assert_eq!(ended.text(), wanted.collect::<String>());
    scene.assert_nothing_left();
}

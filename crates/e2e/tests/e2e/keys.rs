//! Jobs with keys: found in their places, never shown, changed while a job runs.

use std::fs::{self, Permissions};
use std::io::Write;
use std::net::SocketAddrV4;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::kill_process;
use tradewind_e2e::{Ended, Process, Scene, Signal, Start, note_skipped, records, wait_until};

/// A home with the folder of keys.
fn holder(scene: &Scene) -> PathBuf {
    let home = scene.path("holder");
    fs::create_dir(&home).unwrap();
    let made = keys(scene, &home, "new").run().expect(0);
    assert!(made.stderr.contains("keys made in"), "{}", made.stderr);
    home
}

fn keys(scene: &Scene, home: &Path, words: &str) -> Start {
    scene.ours("tradewind").home(home).arg("keys").words(words)
}

/// A token that the holder of the folder has made.
fn token(scene: &Scene, holder: &Path, words: &str) -> Vec<u8> {
    keys(scene, holder, &format!("token {words}")).run().expect(0).stdout
}

fn private_file(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

/// A home with a token, where programs find it.
fn bearer(scene: &Scene, holder: &Path, role: &str, name: &str) -> PathBuf {
    let home = scene.path(name);
    private_file(&home.join(".config/tradewind/token"), &token(scene, holder, role));
    home
}

/// A home without keys.
fn stranger(scene: &Scene) -> PathBuf {
    let home = scene.path("stranger");
    fs::create_dir_all(&home).unwrap();
    home
}

/// The fingerprint of the token that was made last.
fn last_token(scene: &Scene, holder: &Path) -> String {
    let shown = keys(scene, holder, "show").run().expect(0);
    let tokens = shown.text().split("tokens\n").nth(1).unwrap().lines();
    tokens.last().unwrap().split_whitespace().nth(1).unwrap().to_owned()
}

/// All that is secret in a home: tokens, and the lines of private keys.
fn secrets(home: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut dirs = vec![home.join(".config/tradewind")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let text = String::from_utf8(fs::read(path).unwrap()).unwrap();
            let mut is_private = text.starts_with("twt1-");
            for line in text.lines() {
                is_private |= line.contains("PRIVATE KEY");
                // A part of it would be as bad.
                if is_private && !line.starts_with("-----") {
                    found.extend(
                        line.as_bytes()
                            .chunks_exact(24)
                            .map(|it| String::from_utf8(it.to_vec()).unwrap()),
                    );
                }
                is_private &= !line.starts_with("-----END");
            }
        }
    }
    assert!(!found.is_empty());
    found
}

#[test]
fn a_job_with_keys_runs_and_nothing_secret_is_in_any_argv_or_environment() {
    let scene = Scene::new();
    let holder = holder(&scene);
    let sinks = bearer(&scene, &holder, "sink", "sinks");
    let credentials = scene.path("credentials");
    private_file(&credentials.join("tradewind-worker.token"), &token(&scene, &holder, "worker"));
    let mut secret = secrets(&holder);
    secret.extend(secrets(&sinks));
    let text = String::from_utf8(fs::read(credentials.join("tradewind-worker.token")).unwrap());
    secret.extend(
        text.unwrap().as_bytes()[5..]
            .chunks_exact(24)
            .map(|it| String::from_utf8(it.to_vec()).unwrap()),
    );

    let sink = scene.sink().home(&sinks).words("--format jsonl").start();
    let mut ventilator = scene.ventilator().home(&holder).keep_stdin().start();
    let worker =
        scene.worker("w").home(stranger(&scene)).env("CREDENTIALS_DIRECTORY", &credentials);
    let command =
        "tr '\\0' '\\n' < /proc/$$/cmdline; env; echo \"$1\"; test \"$1\" != wait || sleep 100";
    let worker = worker.words("--slots 2 --exit-when-done -- sh -c").args([command, "sh", "{}"]);
    let mut worker = worker.start();
    worker.wait_for_stderr("the worker is up");
    ventilator.stdin().unwrap().write_all(b"one\nwait\n").unwrap();
    wait_until("one is done and the other runs", || {
        sink.stdout_lines() == 1 && scene.count("sleep 100") == 1
    });

    let processes = scene.pids("");
    // What has keys shows its environment to root alone, as it has to be; the task shows its own.
    let least = if rustix::process::geteuid().is_root() { 5 } else { 2 };
    assert!(processes.len() >= least, "ventilator, sink, worker, sh, sleep: {processes:?}");
    for pid in processes {
        for file in ["cmdline", "environ"] {
            let bytes = fs::read(format!("/proc/{}/{file}", pid.as_raw_pid())).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains("twt1-") && !text.contains("PRIVATE KEY"), "{text}");
            assert!(!secret.iter().any(|it| text.contains(it)), "{text}");
        }
    }
    for pid in scene.pids("sleep 100").into_iter().filter(|pid| *pid != worker.pid()) {
        let _ = kill_process(pid, Signal::KILL);
    }
    ventilator.close_stdin();
    let _ = ventilator.wait().expect(1);
    let _ = worker.wait().expect(0);
    let records = records(&sink.wait().expect(1).stdout, 2);
    let output = records[0].output.clone().unwrap();
    assert!(output.ends_with("\none\n") && output.contains("PATH="), "{output}");
    for hidden in ["TRADEWIND_KEYS", "TRADEWIND_INSECURE", "CREDENTIALS_DIRECTORY", "twt1-"] {
        assert!(!output.contains(hidden), "{output}");
    }
    assert!(!secret.iter().any(|it| output.contains(it)), "{output}");
    scene.assert_nothing_left();
}

/// Starts a program that cannot, with nothing to do.
fn fails(start: Start, code: i32, said: &str) -> Ended {
    let ended = start.run().expect(code);
    assert!(ended.stderr.contains(said), "{said}: {}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    ended
}

#[test]
fn keys_that_cannot_be_used_are_named_with_what_to_do() {
    let scene = Scene::new();
    let holder = holder(&scene);
    let path = scene.path("worker.token");
    private_file(&path, &token(&scene, &holder, "worker"));
    let worker = || scene.worker("w").home(stranger(&scene)).arg("--echo");
    let sink = || scene.sink().home(stranger(&scene));
    fails(sink().arg("--keys").arg(&path), 8, "is a worker's token, and this program is a sink");
    fails(worker().words("--keys /nowhere/at-all"), 8, "/nowhere/at-all: No such file");
    fails(worker().arg("--insecure").arg("--keys").arg(&path), 2, "exclude one another");
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    fails(worker().arg("--keys").arg(&path), 8, "may be read or written by other users (mode 644)");
    fails(worker().env("TRADEWIND_KEYS", &path), 8, "chmod 600");
    let home = bearer(&scene, &holder, "worker", "careless");
    let found = home.join(".config/tradewind/token");
    fs::set_permissions(&found, Permissions::from_mode(0o640)).unwrap();
    fails(scene.worker("w").home(&home).arg("--echo"), 8, "(mode 640)");
}

#[test]
fn a_port_is_listened_on_with_keys_or_when_told_so() {
    let scene = Scene::new();
    let home = stranger(&scene);
    for program in ["ventilator", "sink", "relay"] {
        let ports: &[&str] = match program {
            "sink" => &["--listen"],
            "ventilator" => &["--tasks", "--receipts"],
            _ => &["--listen", "--tasks", "--receipts"],
        };
        // Loopback too, and whether one port is on TCP or all are.
        for port in ports {
            let mut start = scene.ours("tradewind").home(&home).arg(program);
            for other in ports {
                let place = if other == port { "tcp://127.0.0.1:0" } else { "ipc://@nowhere" };
                start = start.args([other, place]);
            }
            let ended =
                fails(start, 2, "there are no keys, and tcp://127.0.0.1:0 would be open to");
            for way in ["`tradewind keys new`", "--insecure", &format!("keys token {program}`")] {
                assert!(ended.stderr.contains(way), "{}", ended.stderr);
            }
        }
    }
    let sink = scene.sink().home(&home).arg("--insecure").start();
    let ventilator = scene.ventilator().home(&home).env("TRADEWIND_INSECURE", "true").input("x\n");
    let ventilator = ventilator.start();
    // One that only dials need not be told.
    let worker = scene.worker("w").home(&home).words("--exit-when-done --echo").start();
    let _ = ventilator.wait().expect(0);
    let _ = worker.wait().expect(0);
    assert_eq!(sink.wait().expect(0).text(), "x\n");
}

#[test]
fn unix_sockets_look_for_no_keys() {
    let scene = Scene::new();
    let holder = holder(&scene);
    let home = bearer(&scene, &holder, "worker", "careless");
    let found = home.join(".config/tradewind/token");
    fs::set_permissions(&found, Permissions::from_mode(0o644)).unwrap();
    let run = scene.run().home(&home).words("--quiet -- echo").input("x\n");
    assert_eq!(run.env("TRADEWIND_KEYS", "/nowhere").run().expect(0).text(), "x\n");
}

/// A job of one task.
fn ring<'a>(scene: &'a Scene, holder: &'a Path) -> (Process, Process) {
    let sink = scene.sink().home(holder).start();
    let ventilator = scene.ventilator().home(holder).keep_stdin().start();
    (ventilator, sink)
}

fn finish(mut ventilator: Process, sink: Process, worker: Process, line: &str) {
    ventilator.stdin().unwrap().write_all(line.as_bytes()).unwrap();
    ventilator.close_stdin();
    let _ = ventilator.wait().expect(0);
    let _ = worker.wait().expect(0);
    assert_eq!(sink.wait().expect(0).text(), line);
}

#[test]
fn whoever_does_not_belong_to_the_job_hears_so_and_so_does_the_job() {
    let scene = Scene::new();
    let holder = holder(&scene);
    let (mut ventilator, mut sink) = ring(&scene, &holder);
    sink.wait_for_stderr("the job is open");

    let plain = scene.worker("plain").home(stranger(&scene)).arg("--echo").start();
    let sinks = bearer(&scene, &holder, "sink", "sinks");
    let wrong = scene.ours("sink").home(&sinks).words("--listen tcp://127.0.0.1:0");
    let wrong = wrong.args(["--ventilator", &format!("tcp://{}", scene.results())]).start();
    let others = scene.path("others");
    fs::create_dir(&others).unwrap();
    let _ = keys(&scene, &others, "new").run().expect(0);
    let other = scene.worker("other").home(&others).arg("--echo").start();

    ventilator.wait_for_stderr("closed: it does not use TLS, and this program has keys");
    ventilator.wait_for_stderr("it is of another set of keys");
    sink.wait_for_stderr("closed: it refuses this program's key: this role may not connect");
    let says = |process: Process, said: &str| {
        let ended = process.wait().expect(10);
        assert!(ended.stderr.contains(said), "{said}: {}", ended.stderr);
    };
    says(plain, "TLS, and this program has no keys: give both ends keys (`tradewind keys`)");
    says(wrong, "its key is that of a sink, and here it has to be that of a ventilator or relay");
    says(other, "its key is of another set of keys");

    let worker = bearer(&scene, &holder, "worker", "workers");
    let worker = scene.worker("w").home(&worker).words("--exit-when-done --echo").start();
    finish(ventilator, sink, worker, "after all\n");
    scene.assert_nothing_left();
}

#[test]
fn a_ban_ends_a_worker_that_runs_and_its_tasks_go_to_another() {
    let scene = Scene::new();
    let holder = holder(&scene);
    let (mut ventilator, sink) = ring(&scene, &holder);
    let bad = bearer(&scene, &holder, "worker", "bad");
    let key = last_token(&scene, &holder);
    let mut bad = scene.worker("bad").home(&bad).words("--sleep").start();
    ventilator.stdin().unwrap().write_all(b"100\n").unwrap();
    ventilator.wait_for_stderr("worker joins");
    let banned = keys(&scene, &holder, &format!("ban {key}")).run().expect(0);
    assert!(banned.stderr.contains("is banned, in"), "{}", banned.stderr);
    let line = format!("the worker key {key} is banned");
    ventilator.wait_for_stderr(&line);
    bad.wait_for_stderr(&line);
    ventilator.wait_for_stderr(&format!("closed: its worker key {key} is banned"));
    bad.wait_for_stderr("it refuses this program's key: it is banned there");
    assert!(bad.is_running(), "a ban may be lifted");

    let good = bearer(&scene, &holder, "worker", "good");
    let good = scene.worker("good").home(&good).words("--exit-when-done --echo").start();
    ventilator.close_stdin();
    let _ = ventilator.wait().expect(0);
    let _ = good.wait().expect(0);
    assert_eq!(sink.wait().expect(0).text(), "100\n");
    bad.kill();
    scene.assert_nothing_left();
}

#[test]
fn a_rotation_while_a_job_runs_stops_nothing_and_the_old_token_is_refused_after_it() {
    let scene = Scene::new();
    let holder = holder(&scene);
    let (mut ventilator, sink) = ring(&scene, &holder);
    let home = bearer(&scene, &holder, "worker", "workers");
    let old = scene.path("old");
    private_file(&old, &fs::read(home.join(".config/tradewind/token")).unwrap());
    let mut worker = scene.worker("w").home(&home).words("--exit-when-done --echo").start();
    ventilator.wait_for_stderr("worker joins");

    let _ = keys(&scene, &holder, "rotate worker --overlap 1ms").run().expect(0);
    ventilator.wait_for_stderr("keys read again");
    private_file(&home.join(".config/tradewind/token"), &token(&scene, &holder, "worker"));
    worker.wait_for_stderr("keys read again");
    let mut late =
        scene.worker("late").home(stranger(&scene)).arg("--echo").arg("--keys").arg(&old).start();
    ventilator.wait_for_stderr("its worker key is of a root that has not been accepted since");
    late.wait_for_stderr("it has expired, or is not valid yet by the clock there");
    late.kill();
    finish(ventilator, sink, worker, "as before\n");
    scene.assert_nothing_left();
}

#[test]
fn a_key_that_expires_soon_is_warned_of() {
    let scene = Scene::new();
    let holder = holder(&scene);
    let home = bearer(&scene, &holder, "worker --expires 1m", "workers");
    let mut worker = scene.worker("w").home(&home).arg("--echo").start();
    worker.wait_for_stderr("expires at");
    assert!(worker.stderr().contains("make a new one in time"), "{}", worker.stderr());
}

#[test]
fn a_token_brings_the_addresses() {
    let scene = Scene::new();
    let holder = holder(&scene);
    let (ventilator, sink) = ring(&scene, &holder);
    let (tasks, results) = (scene.tasks(), scene.results());
    let words = format!("worker --ventilator tcp://{tasks} --sink tcp://{results}");
    let home = bearer(&scene, &holder, &words, "workers");
    let worker = scene.ours("worker").home(&home).words("--exit-when-done --echo").start();
    finish(ventilator, sink, worker, "found\n");
}

#[test]
fn a_pipeline_with_keys_has_a_relay_with_a_token() {
    let scene = Scene::new();
    let holder = holder(&scene);
    let relays = bearer(&scene, &holder, "relay", "relays");
    let workers = bearer(&scene, &holder, "worker", "workers");
    let moved = |address: SocketAddrV4| SocketAddrV4::new(*address.ip(), address.port() + 1000);
    let (listen, tasks) = (moved(scene.results()), moved(scene.tasks()));
    let receipts = moved(scene.receipts());
    let at = |address| format!("tcp://{address}");
    let sink = scene.ours("sink").home(&holder).args(["--listen", &at(scene.results())]);
    let sink = sink.args(["--ventilator", &at(receipts)]).start();
    let between = scene.ours("relay").home(&relays).args(["--listen", &at(listen)]);
    let between = between.args(["--tasks", &at(tasks), "--receipts", &at(receipts)]);
    let between =
        between.args(["--ventilator", &at(scene.receipts()), "--sink", &at(scene.results())]);
    let between = between.start();
    let worker = |ventilator, sink, word| {
        let worker = scene.ours("worker").home(&workers).words("--exit-when-done");
        let worker = worker.args(["--ventilator", &at(ventilator), "--sink", &at(sink)]);
        worker.args(["--", "echo", word]).start()
    };
    let first = worker(scene.tasks(), listen, "first");
    let second = worker(tasks, scene.results(), "second");
    let ventilator = scene.ours("ventilator").home(&holder).args(["--tasks", &at(scene.tasks())]);
    let ventilator = ventilator.args(["--receipts", &at(scene.receipts()), "--sink", &at(listen)]);
    let ventilator = ventilator.input("task\n").start();
    let _ = ventilator.wait().expect(0);
    for process in [first, second, between] {
        let _ = process.wait().expect(0);
    }
    assert_eq!(sink.wait().expect(0).text(), "second first task\n");
    scene.assert_nothing_left();
}

#[test]
fn from_nothing_to_a_job_on_three_hosts() {
    let test = "from_nothing_to_a_job_on_three_hosts";
    let scene = match Scene::with_namespaces(1) {
        Ok(scene) => scene,
        Err(error) => return note_skipped(test, &error.to_string()),
    };
    // The README's commands; a home stands for the home of a host.
    let vent_host = holder(&scene);
    let sink_host = bearer(&scene, &vent_host, "sink", "sink-host");
    let work_host = bearer(&scene, &vent_host, "worker", "work-host");
    let sink = scene.sink().home(&sink_host).start();
    let worker = scene.worker("w").home(&work_host).words("--exit-when-done -- expr 1 +").start();
    let ventilator = scene.ventilator().home(&vent_host).input("1\n2\n3\n").start();
    let _ = ventilator.wait().expect(0);
    let _ = worker.wait().expect(0);
    assert_eq!(sink.wait().expect(0).text(), "2\n3\n4\n");
    scene.assert_nothing_left();
}

//! Records that wait for a task which runs long are not held in memory, and stop no other task.

use std::path::{Path, PathBuf};
use std::process::Command;

use tradewind_e2e::{Scene, Signal, Start, pause_between_signals, records, wait_until};
use tradewind_node::exit::OUTPUT;

/// The first task runs until there is a file `go`. Each notes that it has run, and prints much.
const STRAGGLER: &str = "[ $1 != 0 ] || while [ ! -e go ]; do sleep 0.02; done; \
                         head -c 200000 /dev/zero | tr '\\0' x; echo; echo $1; echo $1 >> runs";

/// Three times what is held before the ventilator stops.
const COUNT: u64 = 250;

/// Fewer than this are begun without a spool.
const HELD: usize = 150;

fn numbers() -> String {
    (0..COUNT).map(|n| format!("{n}\n")).collect()
}

fn worker(scene: &Scene, name: &str) -> Start {
    let worker = scene.worker(name).words("--slots 3 --exit-when-done");
    worker.args(["--", "sh", "-c", STRAGGLER, "sh", "{}"])
}

fn ran(scene: &Scene) -> usize {
    scene.read("runs").iter().filter(|byte| **byte == b'\n').count()
}

fn wait_for_all_others(scene: &Scene) {
    wait_until("all others have run", || ran(scene) >= COUNT as usize - 1);
}

fn assert_in_order(output: &[u8]) {
    let text = String::from_utf8_lossy(output);
    let mut lines = text.lines();
    for n in 0..COUNT {
        assert!(
            lines.next().is_some_and(|line| line.len() == 200_000 && !line.contains(|c| c != 'x'))
        );
        assert_eq!(lines.next(), Some(n.to_string().as_str()));
    }
    assert_eq!(lines.next(), None);
}

/// Returns the files that are left beside the output.
fn beside(scene: &Scene) -> Vec<String> {
    let names = std::fs::read_dir(scene.dir()).expect("the directory can be read");
    let names = names.map(|entry| entry.expect("it can be read").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name.contains("tradewind")).collect()
}

#[test]
fn a_task_that_runs_long_stops_no_other_though_records_are_in_order() {
    let scene = Scene::new();
    let run = scene.run().words("-j 3 --quiet").env("TMPDIR", scene.dir());
    let run = run.input(numbers()).args(["--", "sh", "-c", STRAGGLER, "sh", "{}"]).start();
    wait_for_all_others(&scene);
    scene.file("go", "");
    let ended = run.wait().expect(0);
    assert_in_order(&ended.stdout);
    assert_eq!(beside(&scene), [""; 0], "nothing is left of the spool");
    scene.assert_nothing_left();
}

#[test]
fn without_room_for_a_spool_the_job_waits_for_the_task_that_runs_long() {
    for (flags, is_blocked) in [("--spool-max 0", false), ("--spool-max 2M", false), ("", true)] {
        eprintln!("{flags}, {is_blocked}");
        let scene = Scene::new();
        let mut sink = scene.sink().words("--output out --format lines").words(flags).start();
        if is_blocked {
            scene.file("out.tradewind-spool", "precious");
        }
        let worker = worker(&scene, "w").start();
        let ventilator = scene.ventilator().input(numbers()).words("--quiet").start();
        wait_until("much is held", || ran(&scene) > 70);
        if is_blocked {
            sink.wait_for_stderr("cannot write to spool");
        }
        pause_between_signals();
        pause_between_signals();
        assert!(ran(&scene) < HELD, "{} have run", ran(&scene));
        scene.file("go", "");
        ventilator.wait().expect(0);
        worker.wait().expect(0);
        sink.wait().expect(0);
        assert_in_order(&scene.read("out"));
        if is_blocked {
            assert_eq!(scene.read("out.tradewind-spool"), b"precious");
        }
        scene.assert_nothing_left();
    }
}

#[test]
fn whoever_dies_nothing_that_waits_is_lost() {
    for flags in ["--format lines --output out", "--output out --format lines --fsync batch"] {
        eprintln!("{flags}");
        let scene = Scene::new();
        let mut sink = scene.sink().words(flags).start();
        let first = worker(&scene, "w").start();
        let ventilator = scene.ventilator().input(numbers()).words("--quiet").start();
        for part in [100, 200] {
            wait_until("much has run", || ran(&scene) >= part);
            sink.kill();
            sink = scene.sink().words(flags).start();
        }
        wait_for_all_others(&scene);
        assert_eq!(scene.read("out"), b"", "all of it waits");
        sink.kill();
        sink = scene.sink().words(flags).start();
        scene.file("go", "");
        wait_until("some is in the output", || scene.read("out").len() > 1_000_000);
        sink.kill();
        let sink = scene.sink().words(flags).start();
        ventilator.wait().expect(0);
        first.wait().expect(0);
        sink.wait().expect(0);
        assert_in_order(&scene.read("out"));
        assert_eq!(ran(&scene), COUNT as usize, "each ran once");
        assert_eq!(beside(&scene), ["out.tradewind"]);
        scene.assert_nothing_left();
    }
}

#[test]
fn a_job_that_is_resumed_goes_on_with_what_waited() {
    let scene = Scene::new();
    let flags = "--output out --format lines";
    let mut sink = scene.sink().words(flags).start();
    let mut killed = worker(&scene, "w").start();
    let mut ventilator = scene.ventilator().input(numbers()).words("--quiet").start();
    wait_for_all_others(&scene);
    for process in [&mut ventilator, &mut killed, &mut sink] {
        process.kill();
    }
    scene.file("go", "");
    // With another task than there was, nothing is run and nothing is changed.
    let changed = numbers().replace("\n120\n", "\n121\n");
    let mut other = scene.sink().words(flags).start();
    let refused = scene.ventilator().input(changed).words("--quiet --resume").start();
    assert_ne!(refused.wait().code(), 0);
    other.kill();
    drop(other.wait());
    let before = ran(&scene);
    let sink = scene.sink().words(flags).start();
    let worker = worker(&scene, "v").start();
    let ventilator = scene.ventilator().input(numbers()).words("--quiet --resume").start();
    ventilator.wait().expect(0);
    worker.wait().expect(0);
    sink.wait().expect(0);
    assert_in_order(&scene.read("out"));
    assert!(ran(&scene) - before < 100, "{} ran again", ran(&scene) - before);
    assert_eq!(beside(&scene), ["out.tradewind"]);
}

#[test]
fn a_job_that_is_cancelled_has_what_waited_in_its_output() {
    let scene = Scene::new();
    let sink = scene.sink().words("--output out.jsonl --ordered").start();
    let worker = worker(&scene, "w").start();
    let mut ventilator = scene.ventilator().input(numbers()).words("--quiet").start();
    wait_for_all_others(&scene);
    ventilator.signal(Signal::INT);
    pause_between_signals();
    ventilator.signal(Signal::INT);
    drop((ventilator.wait(), worker.wait(), sink.wait()));
    let records = records(&scene.read("out.jsonl"), COUNT);
    assert_eq!(records[0].status, "cancelled");
    assert!(records[1..].iter().all(|record| record.status == "ok"));
    let text = String::from_utf8(scene.read("out.jsonl")).expect("jsonl is text");
    for (n, line) in text.lines().enumerate() {
        assert!(line.starts_with(&format!("{{\"seq\":{n},")), "they are in order");
    }
    assert_eq!(beside(&scene), ["out.jsonl.tradewind"]);
}

/// A disk of its own, in a directory.
struct Disk(PathBuf);

impl Disk {
    /// None where that takes rights that the tests do not have.
    fn new(directory: PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir(&directory).expect("there is room for a directory");
        let is_mounted = mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "none"], &directory);
        is_mounted.then_some(Self(directory))
    }

    fn grow(&self, size: &str) {
        assert!(mount(&["-o", &format!("remount,size={size}")], &self.0), "it can be larger");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn mount(args: &[&str], directory: &Path) -> bool {
    Command::new("mount").args(args).arg(directory).status().is_ok_and(|status| status.success())
}

#[test]
fn a_disk_that_becomes_full_while_much_waits_is_waited_for() {
    // There is more room before the task that runs long ends, or only after that.
    for is_after in [false, true] {
        let scene = Scene::new();
        let Some(disk) = Disk::new(scene.path("disk"), "12M") else {
            eprintln!("skipped: a disk of its own cannot be mounted");
            return;
        };
        let mut sink = scene.sink().words("--format lines --output disk/out").start();
        let worker = worker(&scene, "w").start();
        let mut ventilator = scene.ventilator().input(numbers()).words("--quiet").start();
        sink.wait_for_stderr("cannot write to spool");
        let said = "records that wait for an earlier one stay in memory";
        assert!(sink.stderr().contains(said), "{}", sink.stderr());
        // The ventilator stops when 16 MiB are held.
        wait_until("much is held", || ran(&scene) > 100);
        let journal_bytes = || std::fs::metadata(disk.0.join("out.tradewind")).unwrap().len();
        let before = journal_bytes();
        pause_between_signals();
        assert!(ran(&scene) < 200, "{} have run", ran(&scene));
        if is_after {
            scene.file("go", "");
            sink.wait_for_stderr("cannot write to output");
            pause_between_signals();
            assert!(journal_bytes() < before + 10_000, "notes do not fill the disk");
        }
        assert!(ventilator.is_running() && sink.is_running());
        disk.grow("200M");
        if !is_after {
            wait_for_all_others(&scene);
            assert!(sink.stderr().contains("are spooled again"), "{}", sink.stderr());
            scene.file("go", "");
        }
        ventilator.wait().expect(0);
        worker.wait().expect(0);
        sink.wait().expect(0);
        assert_in_order(&scene.read("disk/out"));
        assert_eq!(ran(&scene), COUNT as usize, "each ran once");
        assert_eq!(std::fs::read_dir(&disk.0).expect("it is there").count(), 2);
    }
}

/// Fails for one task of ten, until there is a file `well`.
const FAILING: &str = "[ $1 != 0 ] || while [ ! -e go ]; do sleep 0.02; done; echo $1 >> runs; \
                       head -c 200000 /dev/zero | tr '\\0' x; \
                       case $1 in *7) test -e well;; esac";

/// All programs of a job were killed while all but the first task's record waited in the spool.
fn left_with_a_spool(scene: &Scene) {
    let mut sink = scene.sink().words(JSONL).start();
    let mut killed = failing_worker(scene, "w").start();
    let mut ventilator = scene.ventilator().input(numbers()).words("--quiet").start();
    wait_for_all_others(scene);
    for process in [&mut ventilator, &mut killed, &mut sink] {
        process.kill();
    }
    assert!(scene.path("out.tradewind-spool").is_dir());
    scene.file("go", "");
}

const JSONL: &str = "--output out --format jsonl --ordered";

fn failing_worker(scene: &Scene, name: &str) -> Start {
    let worker = scene.worker(name).words("--slots 3 --exit-when-done");
    worker.args(["--", "sh", "-c", FAILING, "sh", "{}"])
}

/// Ends a job of this number of tasks, and returns the seqs of those that are not `ok`.
fn end(scene: &Scene, sink_flags: &str, flags: &str, count: u64, code: i32) -> Vec<u64> {
    let sink = scene.sink().words(JSONL).words(sink_flags).start();
    let worker = failing_worker(scene, "v").start();
    let input: String = (0..count).map(|n| format!("{n}\n")).collect();
    let ventilator = scene.ventilator().input(input).words("--quiet").words(flags).start();
    ventilator.wait().expect(code);
    worker.wait();
    sink.wait().expect(code);
    let text = scene.read("out");
    let records = records(&text, count);
    let text = String::from_utf8(text).expect("jsonl is text");
    for (n, line) in text.lines().enumerate() {
        assert!(line.starts_with(&format!("{{\"seq\":{n},")), "they are in order");
    }
    assert_eq!(beside(scene), ["out.tradewind"]);
    records.iter().filter(|record| record.status != "ok").map(|record| record.seq).collect()
}

fn sevens(count: u64) -> Vec<u64> {
    (0..count).filter(|n| n % 10 == 7).collect()
}

#[test]
fn what_failed_and_waited_is_run_again() {
    let scene = Scene::new();
    left_with_a_spool(&scene);
    scene.file("well", "");
    let before = ran(&scene);
    let not_ok = end(&scene, "", "--resume --retry-failed", COUNT, 0);
    assert!(not_ok.is_empty(), "{not_ok:?}");
    let again = ran(&scene) - before;
    assert!((sevens(COUNT).len()..120).contains(&again), "{again} ran again");
}

#[test]
fn a_job_with_more_tasks_goes_on_with_what_waited() {
    let scene = Scene::new();
    left_with_a_spool(&scene);
    let before = ran(&scene);
    assert_eq!(end(&scene, "", "--resume", COUNT + 50, 1), sevens(COUNT + 50));
    let again = ran(&scene) - before;
    assert!((50..150).contains(&again), "{again} ran again");
}

#[test]
fn what_waited_goes_with_an_output_that_is_replaced() {
    let scene = Scene::new();
    left_with_a_spool(&scene);
    let before = ran(&scene);
    assert_eq!(end(&scene, "--overwrite", "", 20, 1), sevens(20));
    // The command that the killed worker has left behind may end now as well.
    assert!((20..=21).contains(&(ran(&scene) - before)), "{} ran", ran(&scene) - before);
}

#[test]
fn a_second_sink_leaves_the_spool_of_the_first_alone() {
    let scene = Scene::new();
    let mut sink = scene.sink().words(JSONL).start();
    let mut killed = failing_worker(&scene, "w").start();
    let mut ventilator = scene.ventilator().input(numbers()).words("--quiet").start();
    wait_for_all_others(&scene);
    let (port, out) = (Scene::new(), scene.path("out"));
    for flag in ["--ordered", "--overwrite"] {
        let second = port.sink().words("--format jsonl").arg(flag).arg("--output").arg(&out);
        let ended = second.run().expect(OUTPUT.into());
        assert!(ended.stderr.contains("is in use by another process"), "{}", ended.stderr);
    }
    for process in [&mut ventilator, &mut killed, &mut sink] {
        process.kill();
    }
    scene.file("go", "");
    let before = ran(&scene);
    assert_eq!(end(&scene, "", "--resume", COUNT, 1), sevens(COUNT));
    assert!(ran(&scene) - before < 100, "{} ran again", ran(&scene) - before);
}

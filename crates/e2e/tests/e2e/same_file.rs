//! A file that is read is never written over, under any name and however it is opened.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::symlink;

use tradewind_e2e::{Scene, Start};

const PRECIOUS: &str = "1\n2\n3\n";

/// It is refused, and what is precious is as it was.
#[track_caller]
fn assert_refused(scene: &Scene, what: &str, start: Start) {
    let ended = start.run().expect(2);
    assert!(ended.stderr.contains("are the same file"), "{what}: {}", ended.stderr);
    assert_eq!(scene.read("io"), PRECIOUS.as_bytes(), "{what}");
}

fn scene() -> Scene {
    let scene = Scene::new();
    scene.file("io", PRECIOUS);
    symlink("io", scene.path("link")).expect("it can be made");
    symlink("link", scene.path("link2")).expect("it can be made");
    std::fs::hard_link(scene.path("io"), scene.path("hard")).expect("it can be made");
    scene
}

#[test]
fn input_and_output_are_never_one_file() {
    let scene = scene();
    let run = |words: &str| scene.run().words("--echo").words(words);
    let read = || File::open(scene.path("io")).expect("it is there");
    for name in ["io", "link", "link2", "hard", "./io"] {
        for flags in [
            "--input io --overwrite --output",
            "--input io --overwrite --format jsonl --output",
            "--input io --output",
            "--input io --resume --output",
            "--input io --overwrite --joblog",
            "--input io --overwrite --output other --joblog",
        ] {
            assert_refused(&scene, flags, run(flags).arg(name));
        }
        let output = ["--overwrite", "--output", "io"];
        assert_refused(&scene, name, run("").args(output).args(["--input", name]));
        for flags in ["--overwrite --output", "--overwrite --joblog"] {
            assert_refused(&scene, flags, run(flags).arg(name).stdin(read()));
        }
        // As a shell opens them for `>> io` and, a moment too late for anybody, `> io`.
        let path = scene.path(name);
        let append = || OpenOptions::new().append(true).open(&path).expect("it is there");
        assert_refused(&scene, ">>", run("--input io").stdout(append()));
        assert_refused(&scene, "< >>", run("").stdin(read()).stdout(append()));
    }
    assert!(!scene.path("io.tradewind").exists() && !scene.path("other").exists());
}

#[test]
fn a_journal_is_not_read_or_written_as_something_else() {
    let scene = scene();
    std::fs::rename(scene.path("io"), scene.path("out.tradewind")).expect("it is there");
    symlink("out.tradewind", scene.path("io")).expect("it can be made");
    let run = |words: &str| scene.run().words("--echo --overwrite --output out").words(words);
    assert_refused(&scene, "journal", run("--input out.tradewind"));
    assert_refused(&scene, "link to the journal", run("--input io"));
    assert_refused(&scene, "joblog", run("--joblog out.tradewind").input("a\n"));
    assert_refused(&scene, "joblog by a link", run("--joblog io").input("a\n"));
    std::fs::remove_file(scene.path("io")).expect("it is there");
    std::fs::rename(scene.path("out.tradewind"), scene.path("out.tradewind.1"))
        .expect("it is there");
    symlink("out.tradewind.1", scene.path("io")).expect("it can be made");
    assert_refused(&scene, "a leftover", run("--input io"));
}

#[test]
fn output_and_joblog_are_never_one_file() {
    let scene = scene();
    for (output, joblog) in [("io", "hard"), ("link", "io"), ("new", "new"), ("new", "./new")] {
        let start = scene.run().words("--echo --overwrite").input("a\n");
        let start = start.args(["--output", output, "--joblog", joblog]);
        assert_refused(&scene, joblog, start);
        let start = scene.sink().arg("--overwrite").args(["--output", output, "--joblog", joblog]);
        assert_refused(&scene, joblog, start);
    }
    let append = OpenOptions::new().append(true).open(scene.path("io")).expect("it is there");
    assert_refused(
        &scene,
        ">>",
        scene.run().words("--echo --joblog io").input("a\n").stdout(append),
    );
}

#[test]
fn files_of_values_are_inputs() {
    let scene = scene();
    scene.file("other", "x\n");
    for values in [":::: io", ":::: other link", "::: a :::: io", "::: a ::::+ hard"] {
        for flag in ["--output", "--joblog"] {
            let run = scene.run().words("--overwrite").args([flag, "io"]).words("-- echo");
            assert_refused(&scene, values, run.words(values));
        }
    }
}

#[test]
fn results_are_not_put_over_the_input() {
    let scene = Scene::new();
    std::fs::create_dir_all(scene.path("results/1")).expect("it can be made");
    for file in ["stdout", "stderr", "record.json"] {
        let name = format!("results/1/{file}");
        let path = scene.file(&name, PRECIOUS);
        let run = || scene.run().words("--overwrite --results results");
        let values = run().args(["--", "echo", "::::", &name]);
        let stdin = run().stdin(File::open(&path).expect("it is there")).words("-- echo");
        for start in [run().args(["--input", &name, "--", "echo"]), values, stdin] {
            let ended = start.run().expect(2);
            assert!(ended.stderr.contains("in the directory of a task"), "{}", ended.stderr);
            assert_eq!(scene.read(&name), PRECIOUS.as_bytes());
        }
    }
    // Beside these it is in the way of none.
    scene.file("results/list", PRECIOUS);
    let run = scene.run().words("--overwrite --results results --input results/list -- echo");
    let _ = run.run().expect(0);
    assert_eq!(scene.read("results/list"), PRECIOUS.as_bytes());
}

#[test]
fn a_pipeline_file_is_not_written_over() {
    let scene = scene();
    let text = "[[stage]]\nname = 'a'\necho = true\n";
    scene.file("p.toml", text);
    for flags in ["--output p.toml", "--joblog p.toml"] {
        let run = scene.run().words("--pipeline p.toml --overwrite").words(flags).input("a\n");
        let ended = run.run().expect(2);
        assert!(ended.stderr.contains("are the same file"), "{}", ended.stderr);
        assert_eq!(scene.read("p.toml"), text.as_bytes());
    }
}

#[test]
fn a_pipeline_file_names_no_file_twice() {
    let scene = scene();
    for output in ["io", "hard", "link"] {
        let text =
            format!("input = 'io'\noutput = '{output}'\n[[stage]]\nname = 'a'\necho = true\n");
        scene.file("p.toml", text);
        let run = || scene.run().words("--pipeline p.toml --overwrite");
        assert_refused(&scene, output, run());
        run().words("--output other").run().expect(0);
        assert_refused(&scene, output, run().words("--output new --joblog").arg(output));
    }
}

#[test]
fn terminals_and_null_devices_may_be_both() {
    let scene = Scene::new();
    let null = || OpenOptions::new().read(true).write(true).open("/dev/null").expect("it is there");
    scene.run().words("--echo").stdin(null()).stdout(null()).run().expect(0);
    scene.run().words("--echo --input /dev/null --output /dev/null").run().expect(0);
}

//! `--line-buffer` and `--ungroup`: what commands write is there while they run.

use std::io::{BufRead, BufReader};

use tradewind_e2e::{Scene, records, wait_until};

/// Two commands that take turns: each goes on when as many lines are shown as its file's name says.
const TURNS: &str = "turn() { until test -e $1; do sleep 0.01; done; }
case $1 in
    a) echo a1; turn 2; echo a2 ;;
    b) turn 1; echo b1; turn 3; echo b2 ;;
esac; echo err$1 >&2";

#[test]
fn lines_of_commands_that_run_together_are_mixed_as_they_come() {
    for flags in ["--line-buffer", "--lb --workers 2", "--ungroup", "-u --workers 2"] {
        let scene = Scene::new();
        let run = scene.run().words("-j 2").words(flags).args(["--", "sh", "-c", TURNS, "sh"]);
        let run = run.args([":::", "a", "b"]).start();
        // That a command has gone on does not say that its line was read: two pipes have no order.
        for shown in 1..=3 {
            wait_until("the next line is there", || run.stdout_lines() == shown);
            scene.file(&shown.to_string(), "");
        }
        let ended = run.wait().expect(0);
        assert_eq!(ended.text(), "a1\nb1\na2\nb2\n", "{flags}");
        for line in ["erra", "errb", "2 tasks: 2 ok"] {
            assert!(ended.stderr.lines().any(|said| said.starts_with(line)), "{}", ended.stderr);
        }
        scene.assert_nothing_left();
    }
}

#[test]
fn a_line_is_there_before_its_command_has_ended() {
    let scene = Scene::new();
    let script = "echo ready; printf half; while ! test -e go; do sleep 0.01; done";
    for flags in ["--line-buffer", "-u"] {
        let run = scene.run().words(flags).args(["--", "sh", "-c", script, ":::", "1"]).start();
        wait_until("its first line is there", || run.stdout_lines() == 1);
        scene.file("go", "");
        let wanted = if flags == "-u" { "ready\nhalf" } else { "ready\nhalf\n" };
        assert_eq!(run.wait().expect(0).text(), wanted, "{flags}");
        std::fs::remove_file(scene.path("go")).unwrap();
    }
    scene.assert_nothing_left();
}

#[test]
fn records_have_what_was_shown_line_by_line() {
    let scene = Scene::new();
    let run = scene.run().words("--line-buffer --output out.jsonl -- echo ::: a b").run();
    let ended = run.expect(0);
    let mut lines: Vec<_> = ended.text().lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["a", "b"]);
    let records = records(&scene.read("out.jsonl"), 2);
    assert_eq!(records[0].output.as_deref(), Some("a\n"));
    // Records have nothing of output that is not captured, and cannot go where commands write.
    let run = scene.run().words("-u --output raw.jsonl -- echo ::: a").run().expect(0);
    assert_eq!(run.text(), "a\n");
    let raw = String::from_utf8(scene.read("raw.jsonl")).unwrap();
    assert!(raw.contains("\"output\":\"\""), "{raw}");
    let mixed = scene.run().words("-u --format jsonl -- echo ::: a").run().expect(2);
    assert!(mixed.stderr.contains("records need --output FILE"), "{}", mixed.stderr);
    scene.assert_nothing_left();
}

#[test]
fn many_lines_stay_whole() {
    let scene = Scene::new();
    // Longer and shorter than what a pipe takes in one piece.
    let script =
        "for i in 1 2 3 4 5 6 7 8 9; do head -c 9000 /dev/zero | tr '\\0' $1; echo; echo $1; done";
    let run = scene.run().words("-j 8 --line-buffer --").args(["sh", "-c", script, "sh"]);
    let ended = run.args([":::", "a", "b", "c", "d", "e", "f", "g", "h"]).run().expect(0);
    let lines: Vec<_> = ended.text().lines().collect();
    assert_eq!(lines.len(), 8 * 9 * 2);
    for line in lines {
        let first = line.chars().next().unwrap();
        assert!(matches!(line.len(), 1 | 9_000) && line.chars().all(|c| c == first), "{line}");
    }
    scene.assert_nothing_left();
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_job() {
    let scene = Scene::new();
    for flags in ["--line-buffer", "-u"] {
        let (reader, writer) = std::io::pipe().unwrap();
        let tasks = "y\n".repeat(100_000);
        let run = scene.run().words("-j 2").words(flags).args(["--", "sh", "-c", "exec yes"]);
        let run = run.input(tasks).stdout(writer).start();
        let mut first = String::new();
        BufReader::new(reader).read_line(&mut first).unwrap();
        assert_eq!(first, "y\n");
        let _ = run.wait().expect(141);
        scene.assert_nothing_left();
    }
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let ended = scene.run().words("--lb -- echo ::: a").stdout(full).run().expect(4);
    assert!(ended.stderr.contains("cannot write to standard output"), "{}", ended.stderr);
    scene.assert_nothing_left();
}

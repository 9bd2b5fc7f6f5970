//! Each folder of `examples` with a `run.sh` does what its README says. The scripts compare what
//! came out with what should have, and end with an error where that differs.

use std::path::{Path, PathBuf};

use tradewind_e2e::{Ended, Scene, note_skipped, program, summary_counts};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn is_installed(command: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(command).is_file())
}

/// Runs it, if all that it needs is here.
#[track_caller]
fn run(example: &str, arguments: &[&str], needs: &[&str]) -> Option<Ended> {
    if let Some(missing) = needs.iter().find(|command| !is_installed(command)) {
        note_skipped(&format!("example {example}"), &format!("{missing} is not installed"));
        return None;
    }
    let scene = Scene::new();
    let script = repository().join("examples").join(example).join("run.sh");
    let start = scene.other("bash").arg(script).args(arguments);
    let start = start.env("TRADEWIND", program("tradewind")).env("TMPDIR", scene.dir());
    let ended = start.run();
    assert_eq!(ended.code(), 0, "{example}:\n{}\n{}", ended.text(), ended.stderr);
    scene.assert_nothing_left();
    let left: Vec<_> = std::fs::read_dir(scene.dir()).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(left.is_empty(), "it leaves {left:?}");
    Some(ended)
}

/// Sees to it that one of its lines has all of these texts, in this order.
#[track_caller]
fn assert_line(text: &str, parts: &[&str]) {
    let has_all = |line: &str| {
        let mut parts = parts.iter();
        parts.try_fold(line, |rest, part| Some(rest.split_once(part)?.1)).is_some()
    };
    assert!(text.lines().any(has_all), "no line has {parts:?}:\n{text}");
}

#[test]
fn thumbnails_of_all_pictures_but_the_broken_one() {
    // `identify` comes with ImageMagick alone; a `convert` may be another program's.
    let Some(ended) = run("thumbnails", &[], &["convert", "identify"]) else { return };
    assert_eq!(summary_counts(&ended.stderr), Some("14 tasks: 13 ok, 1 failed"));
    let text = ended.text();
    assert_line(text, &["\"status\":\"failed\"", "\"stderr\":\"convert", "broken.jpg"]);
    assert_line(text, &["13 thumbnails, each of the right shape"]);
}

#[test]
fn words_of_this_machines_documentation() {
    let Some(ended) = run("words", &[], &["python3"]) else { return };
    let text = ended.text();
    // A program is among the files, which is no text.
    assert_line(text, &[" documents, 1 files that are no text"]);
    assert_line(text, &["digest of all, in order: "]);
    assert_line(text, &["the same, to the last word"]);
    let counts = summary_counts(&ended.stderr).unwrap_or_default();
    assert!(counts.ends_with(" ok, 1 skipped"), "{counts}");
}

#[test]
fn a_site_is_crawled_and_indexed() {
    let Some(ended) = run("crawl", &["Pipeline"], &["curl", "python3"]) else { return };
    let text = ended.text();
    assert_line(text, &["failed in fetch: /moved.html: ", "404"]);
    assert_line(text, &["skipped in parse: /README.md"]);
    assert_line(text, &["pages with \"Pipeline\""]);
    assert_line(text, &["the index is the same"]);
}

//! Real files, through a real command: the result is that of the command alone.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tradewind_e2e::{Scene, wait_until};

const FILES: usize = 3_000;
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Files of all kinds and sizes, spread over everything that is installed, sorted.
fn corpus() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::from("/usr")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
            let is_line = !entry.path().as_os_str().as_bytes().contains(&b'\n');
            if metadata.is_dir() {
                directories.push(entry.path());
            } else if metadata.is_file() && metadata.len() <= FILE_BYTES_MAX && is_line {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    let step = (found.len() / FILES).max(1);
    let files: Vec<_> = found
        .into_iter()
        .step_by(step)
        .filter(|path| fs::File::open(path).is_ok())
        .take(FILES)
        .collect();
    assert!(files.len() > 100, "/usr is nearly empty");
    files
}

fn joined(paths: &[impl AsRef<Path>], end: u8) -> Vec<u8> {
    let mut list = Vec::new();
    for path in paths {
        list.extend_from_slice(path.as_ref().as_os_str().as_bytes());
        list.push(end);
    }
    list
}

/// Output of the command for these files without Tradewind.
fn plain(scene: &Scene, command: &str, paths: &[impl AsRef<Path>]) -> Vec<u8> {
    let xargs = scene.other("xargs").arg("-0").words(command);
    xargs.input(joined(paths, 0)).run().expect(0).stdout
}

#[track_caller]
fn assert_same(found: &[u8], wanted: &[u8]) {
    let mut lines = found.split(|b| *b == b'\n').zip(wanted.split(|b| *b == b'\n'));
    if let Some((found, wanted)) = lines.find(|(found, wanted)| found != wanted) {
        let (found, wanted) = (String::from_utf8_lossy(found), String::from_utf8_lossy(wanted));
        panic!("{found:?} instead of {wanted:?}");
    }
    assert_eq!(found.len(), wanted.len(), "one is longer");
}

#[test]
fn sums_of_real_files_are_those_of_sha256sum() {
    let scene = Scene::new();
    let files = corpus();
    let wanted = plain(&scene, "sha256sum", &files);
    let run = scene.run().words("-j 4 -- sha256sum {}").input(joined(&files, b'\n'));
    assert_same(&run.run().expect(0).stdout, &wanted);
    scene.assert_nothing_left();
}

#[test]
fn sums_are_the_same_though_a_worker_is_killed_and_another_comes_late() {
    let scene = Scene::new();
    let files = corpus();
    let wanted = plain(&scene, "sha256sum", &files);
    let worker =
        |name| scene.worker(name).words("--slots 2 --exit-when-done -- sha256sum {}").start();

    let sink = scene.sink().start();
    let list = scene.file("list", joined(&files, b'\n'));
    let ventilator = scene.ventilator().arg("--input").arg(list).start();
    let mut first = worker("first");
    let others = [worker("second"), worker("third")];
    wait_until("some results are out", || sink.stdout_lines() > files.len() / 5);
    first.kill();
    let late = worker("late");

    let sink = sink.wait().expect(0);
    assert_same(&sink.stdout, &wanted);
    let _ = ventilator.wait().expect(0);
    for worker in others.into_iter().chain([late]) {
        let _ = worker.wait().expect(0);
    }
    assert!(sink.stderr.contains(&format!("{0} tasks: {0} ok", files.len())), "{}", sink.stderr);
    scene.assert_nothing_left();
}

#[test]
fn file_names_are_bytes() {
    let scene = Scene::new();
    let names: [&[u8]; 12] = [
        b"plain.txt",
        b"with space.tar.gz",
        b"it's \"quoted\"",
        b"back\\slash",
        b"new\nline.txt",
        b"$(reboot); `x` & | > <",
        b"{}",
        b"{.}.{/}",
        b"caf\xe9.latin1",
        b"\xff\xfe\x80",
        "\u{1f980}.\u{3c0}".as_bytes(),
        b".hidden",
    ];
    let mut paths = Vec::new();
    for name in names {
        let path = scene.path("odd names").join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, name).unwrap();
        paths.push(path);
    }
    let wanted = plain(&scene, "sha256sum -z", &paths);
    // With -z sha256sum ends lines with NUL: it does not escape, and a newline is added to each.
    let wanted: Vec<u8> = wanted.split_inclusive(|b| *b == 0).collect::<Vec<_>>().join(&b'\n');
    let wanted = [&wanted[..], b"\n"].concat();
    let input = joined(&paths, 0);
    for command in ["-- sha256sum -z {}", "-- sha256sum -z"] {
        let run = scene.run().words("-0 -j 4").words(command).input(input.clone());
        assert_same(&run.run().expect(0).stdout, &wanted);
    }
}

#[test]
fn contents_on_stdin_are_what_was_sent() {
    let scene = Scene::new();
    let texts = ["", "a", "two words", "caf\u{e9}", "-", "{}"];
    // A line is sent as a line; what is between NULs as it is.
    for (flags, separator, end) in [("", "\n", "\n"), ("-0 ", "\0", "")] {
        let mut wanted = String::new();
        for text in texts {
            let file = scene.file("text", format!("{text}{end}"));
            let sum = scene.other("sha256sum").stdin(fs::File::open(file).unwrap()).run();
            wanted += sum.expect(0).text();
        }
        let run = scene.run().words(flags).words("--stdin -j 2 -- sha256sum");
        let input = texts.join(separator) + separator;
        assert_eq!(run.input(input).run().expect(0).text(), wanted, "{flags}");
    }
}

#[test]
fn replacement_strings_are_those_of_gnu_parallel() {
    let scene = Scene::new();
    let check = |template: &[&str], wanted: &[&str]| {
        let run = scene.run().args(["--", "printf", "%s|"]).args(template);
        let found = run.input("/a/b.c/d.tar.gz\nx.txt\nplain\n").run().expect(0);
        assert_eq!(found.text().lines().collect::<Vec<_>>(), wanted, "{template:?}");
    };
    check(&[], &["/a/b.c/d.tar.gz|", "x.txt|", "plain|"]);
    check(&["{}"], &["/a/b.c/d.tar.gz|", "x.txt|", "plain|"]);
    check(&["{.}"], &["/a/b.c/d.tar|", "x|", "plain|"]);
    check(&["{/}"], &["d.tar.gz|", "x.txt|", "plain|"]);
    check(&["{//}"], &["/a/b.c|", ".|", ".|"]);
    check(&["{/.}"], &["d.tar|", "x|", "plain|"]);
    check(&["{#}"], &["1|", "2|", "3|"]);
    check(&["<{.}>{#}", "lit"], &["</a/b.c/d.tar>1|lit|", "<x>2|lit|", "<plain>3|lit|"]);
}

#[test]
fn a_command_knows_where_it_runs() {
    let scene = Scene::new();
    let show = "echo $1 $TRADEWIND_SEQ $TRADEWIND_ATTEMPT $TRADEWIND_WORKER";
    let ventilator = scene.ventilator().input("a\nb\n").start();
    let sink = scene.sink().start();
    let worker = scene.worker("smith").arg("--exit-when-done").args(["--", "sh", "-c", show, "-"]);
    let _ = worker.run().expect(0);
    assert_eq!(sink.wait().expect(0).text(), "a 0 1 smith\nb 1 1 smith\n");
    let _ = ventilator.wait().expect(0);
    // A kept signal mask or an ignored SIGPIPE would make `yes | head` run for ever.
    let run = scene.run().args(["--", "sh", "-c", "yes $1 | head -1", "sh", "{}"]).input("y\n");
    assert_eq!(run.run().expect(0).text(), "y\n");
}

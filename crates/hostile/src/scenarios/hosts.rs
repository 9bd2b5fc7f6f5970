//! Tasks, files and other users of a host that are hostile. No peer lies here.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::process::geteuid;
use tradewind_e2e::{Ended, MIB};
use tradewind_e2e::{Process, Record, Scene, memory_bytes_max, program, records, wait_until};

use crate::ring::{Flags, Ring};
use crate::stage::{Stage, Way};
use crate::suite::{Group, Scenario, Seen};

const HERE: &[Way] = &[Way::Here];

pub(crate) const GROUP: Group = Group {
    name: "hosts",
    scenarios: &[
        Scenario {
            name: "other-user",
            required: "another user takes no part in a `tradewind run`, of which nothing is on TCP (R1)",
            ways: HERE,
            play: other_user,
        },
        Scenario {
            name: "poison",
            required: "a task that kills its workers is the one that is `lost` (R9)",
            ways: HERE,
            play: poison,
        },
        Scenario {
            name: "poison-in-a-run",
            required: "the same in a `tradewind run`, which starts its worker again (R9)",
            ways: HERE,
            play: poison_in_a_run,
        },
        Scenario {
            name: "environment",
            required: "a task sees nothing of where keys are; a run within a task works (R11)",
            ways: HERE,
            play: environment,
        },
        Scenario {
            name: "code-in-tasks",
            required: "a replacement string within code is refused with exit code 2 (R12)",
            ways: HERE,
            play: code_in_tasks,
        },
        Scenario {
            name: "odd-tasks",
            required: "tasks with NUL, wrong UTF-8 or 200 kB have a record each, and harm no other",
            ways: HERE,
            play: odd_tasks,
        },
        Scenario {
            name: "output-bombs",
            required: "endless output is cut, and the worker has at most 128 MiB",
            ways: HERE,
            play: output_bombs,
        },
        Scenario {
            name: "orphans",
            required: "tasks that leave children behind leave no zombies",
            ways: HERE,
            play: orphans,
        },
        Scenario {
            name: "links",
            required: "links and files of others in the place of ours are unchanged (R10)",
            ways: HERE,
            play: links,
        },
        Scenario {
            name: "crafted-journals",
            required: "a journal that was made up is refused, or begun anew, within its size (R10)",
            ways: HERE,
            play: crafted_journals,
        },
    ],
    undefended: &[],
};

/// Dials wherever it is told to, as another user. Says what becomes of it.
const STRANGER: &str = r#"
import encodings.idna, os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
hello = b"\xff" + b"\0" * 8 + b"\x7f\x03\x00NULL" + b"\0" * 48
for name in sys.argv[2:]:
    peer = socket.socket(socket.AF_UNIX)
    try:
        peer.connect("\0" + name[1:] if name.startswith("@") else name)
        peer.sendall(hello)
        print("answered" if peer.recv(64) else "closed")
    except OSError:
        print("closed")
try:
    open(sys.argv[1]).read()
    print("read")
except OSError:
    print("closed")
"#;

fn other_user(stage: &Stage) -> Seen {
    if !geteuid().is_root() {
        return Seen::Skipped("this takes root".to_owned());
    }
    let scene = stage.scene();
    if !scene.other("python3").args(["-c", "pass"]).run().status.success() {
        return Seen::Skipped("this takes python3".to_owned());
    }
    let home = scene.path("private");
    fs::create_dir(&home).expect("there is room");
    fs::set_permissions(&home, PermissionsExt::from_mode(0o700)).expect("it is ours");
    let wait = "touch begun; while [ ! -e go ]; do sleep 0.01; done; echo mine $1";
    let run = scene.run().words("-j2 --output private/out.jsonl -- sh -c").args([wait, "sh", "{}"]);
    let run = run.words("::: a b c d").start();
    wait_until("a task runs", || scene.path("begun").exists());
    let line = |pid: rustix::process::Pid| fs::read(format!("/proc/{}/cmdline", pid.as_raw_pid()));
    let lines = scene.pids("tradewind").into_iter().filter_map(|pid| line(pid).ok());
    let text: String =
        lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).collect();
    let mut names: Vec<&str> = text.split(' ').filter_map(|it| it.strip_prefix("ipc://")).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 3, "{text}");
    let stranger = scene.other("python3").args(["-c", STRANGER, "private/out.jsonl"]).args(&names);
    let said = stranger.run().expect(0);
    assert_eq!(said.text(), "closed\n".repeat(4));
    let ports = listeners(&scene);
    assert_eq!(ports, 0, "ports on TCP");
    scene.file("go", "");
    let _ = run.wait().expect(0);
    let records = records(&scene.read("private/out.jsonl"), 4);
    assert!(records.iter().all(|it| it.output.as_deref().is_some_and(|it| it.starts_with("mine"))));
    "0 tasks given, 0 records written, 0 ports on TCP".into()
}

/// The number of TCP ports on which processes of a scene listen.
fn listeners(scene: &Scene) -> usize {
    let mut sockets = Vec::new();
    for pid in scene.pids("") {
        let Ok(files) = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_pid())) else { continue };
        let links = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
        let names = links.map(|link| link.to_string_lossy().into_owned());
        let numbers =
            names.filter_map(|it| Some(it.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()));
        sockets.extend(numbers);
    }
    assert!(!sockets.is_empty(), "they have sockets");
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"]
        .map(|path| fs::read_to_string(path).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    // State 0A is LISTEN.
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.get(3) == Some(&"0A"))
        .filter(|fields| fields.get(9).is_some_and(|inode| sockets.iter().any(|it| it == inode)))
        .count()
}

#[track_caller]
fn assert_one_lost(records: &[Record], poison: u64) {
    for record in records {
        let wanted = if record.seq == poison { "lost" } else { "ok" };
        assert_eq!(record.status, wanted, "{record:?}");
    }
}

fn poison(stage: &Stage) -> Seen {
    let scene = stage.scene();
    let sink = Ring::sink(&scene, Flags::default()).start();
    let line = |seq| if seq == 3 { "sleep 0.1; kill -9 $PPID\n" } else { "sleep 0.2; echo fine\n" };
    let input: String = (0..40).map(line).collect();
    let mut ventilator = Ring::ventilator(&scene, Flags::default()).input(input).start();
    let start = |at: usize| {
        let worker = scene.worker(&format!("w{at}")).words("--slots 8 --unsafe-template");
        worker.args(["--", "sh", "-c", "{}"]).start()
    };
    let mut workers: Vec<Process> = (0..3).map(start).collect();
    let mut deaths = 0;
    wait_until("the job ends", || {
        for (at, worker) in workers.iter_mut().enumerate() {
            if !worker.is_running() {
                deaths += 1;
                *worker = start(at);
            }
        }
        !ventilator.is_running()
    });
    let _ = sink.wait().expect(1);
    assert_one_lost(&records(&scene.read("out.jsonl"), 40), 3);
    format!("1 of 40 lost: the poison, after {deaths} deaths").into()
}

fn poison_in_a_run(stage: &Stage) -> Seen {
    let scene = stage.scene();
    let line = |seq| if seq == 3 { "kill -9 $PPID\n" } else { "sleep 0.2; echo fine\n" };
    let input: String = (0..20).map(line).collect();
    let run = scene.run().words("-j 4 --output out.jsonl --unsafe-template -- sh -c {}");
    let ended = run.input(input).run();
    let all = scene.read("out.jsonl");
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    assert_one_lost(&records(&all, 20), 3);
    "1 of 20 lost: the poison".into()
}

fn environment(stage: &Stage) -> Seen {
    let mut ring = Ring::start(stage, Flags::default());
    let names = ["TRADEWIND_KEYS", "TRADEWIND_TOKEN", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET"];
    let worker = ring.scene.worker("honest0").words("--exit-when-done --insecure");
    let worker = worker.args(["--", "sh", "-c", "env; echo \"$1\"", "sh", "{}"]);
    // The first one would be used, and excludes --insecure.
    let worker = names.iter().skip(1).fold(worker, |worker, name| worker.env(name, "/s3cret"));
    ring.workers.push(worker.start());
    ring.feed_lines(b"x\n");
    ring.wait_for_stored(1);
    let output = records(&ring.scene.read("out.jsonl"), 1)[0].output.clone().unwrap_or_default();
    assert!(!output.contains("s3cret"), "{output}");
    for name in names.iter().chain(&["TRADEWIND_INSECURE", "TRADEWIND_PARENT"]) {
        assert!(!output.contains(name), "{output}");
    }
    let run = ring.scene.run().words("-- sh -c").arg("\"$0\" run -- echo \"$1\" ::: a b");
    let nested = run.arg(program("tradewind")).args(["{}", ":::", "x"]).run().expect(0);
    assert_eq!(nested.text().lines().count(), 2, "{}", nested.text());
    "nothing of ours but what is documented; 2 records of a run in a run".into()
}

fn code_in_tasks(stage: &Stage) -> Seen {
    let scene = stage.scene();
    let lines: &[&[&str]] = &[
        &["sh", "-c", "echo {}"],
        &["bash", "-c", "echo '{}'"],
        &["dash", "-c", "echo \"{}\""],
        &["zsh", "-ec", "echo {}"],
        &["ksh", "-c", "cat {.}"],
        &["/bin/sh", "-xc", "echo {/}"],
        &["sh", "-c", "echo {#}; cat {//}"],
        &["python", "-c", "print('{}')"],
        &["python3", "-c", "open('{}')"],
        &["perl", "-e", "print '{}'"],
        &["perl", "-ne", "print '{}'"],
        &["awk", "BEGIN{print \"{}\"}"],
        &["gawk", "{print \"{}\"}"],
        &["env", "sh", "-c", "echo {}"],
        &["nice", "sh", "-c", "echo {}"],
        &["timeout", "5", "bash", "-c", "echo {}"],
        &["sudo", "sh", "-c", "echo {}"],
    ];
    for line in lines {
        let ended = scene.run().arg("--").args(*line).input("x; touch pwned\n").run();
        assert_eq!(ended.code(), 2, "{line:?}: {}", ended.stderr);
    }
    for line in
        [&["sh", "-c", "echo \"$1\"", "sh", "{}"][..], &["echo", "{}"], &["sh", "-c", "echo fine"]]
    {
        let ended = scene.run().arg("--").args(line).input("x; touch pwned\n").run();
        assert_eq!(ended.code(), 0, "{line:?}: {}", ended.stderr);
    }
    assert!(!scene.path("pwned").exists(), "a task was run as code");
    format!("{} command lines refused, 3 safe ones run", lines.len()).into()
}

fn odd_tasks(stage: &Stage) -> Seen {
    let scene = stage.scene();
    let mut input = b"a\nb\0\xff\xfe\0\0-la\0--version\0$(touch pwned)\0`touch pwned`\0".to_vec();
    input.extend([b'x'; 200_000]);
    input.push(0);
    let ended = scene.run().words("-0 --output out.jsonl -- printf %s").input(input).run();
    let all = records(&scene.read("out.jsonl"), 8);
    assert!(!scene.path("pwned").exists());
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    let failed = all.iter().filter(|record| record.status != "ok").count();
    format!("8 tasks, 8 records, {failed} of them clear failures").into()
}

fn output_bombs(stage: &Stage) -> Seen {
    let mut ring = Ring::start(stage, Flags::default());
    ring.feed_lines(b"out\nerr\n");
    ring.ventilator.close_stdin();
    let script = "if [ $1 = out ]; then yes; else yes >&2 & sleep 1; kill $!; exit 3; fi";
    let worker = ring.scene.worker("w").words("--slots 2 -- sh -c").args([script, "sh", "{}"]);
    let worker = worker.start();
    let mut memory = 0;
    wait_until("both end", || {
        memory = memory_bytes_max(worker.pid()).map_or(memory, |bytes| bytes / MIB);
        ring.stored() == 2
    });
    assert!(memory <= 128, "{memory} MiB");
    let largest = records(&ring.scene.read("out.jsonl"), 2);
    let bytes = largest.iter().filter_map(|it| it.output.as_ref()).map(String::len).max();
    format!("the worker had {memory} MiB; {} MiB of output kept", bytes.unwrap_or(0) as u64 / MIB)
        .into()
}

fn orphans(stage: &Stage) -> Seen {
    let mut ring = Ring::start(stage, Flags::default());
    ring.feed_lines("x\n".repeat(100).as_bytes());
    let script = "sleep 2 & exit 0";
    let worker = ring.scene.worker("w").words("--slots 4 -- sh -c").args([script, "sh", "{}"]);
    let worker = worker.start();
    ring.wait_for_stored(100);
    let parent = worker.pid().as_raw_pid().to_string();
    let is_zombie = |path: &Path| {
        let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        fields.first() == Some(&"Z") && fields.get(1) == Some(&&*parent)
    };
    wait_until("no zombies are left", || {
        let all = fs::read_dir("/proc").expect("there is a /proc").flatten();
        all.filter(|it| is_zombie(&it.path())).count() == 0
    });
    "0 zombies after 100 tasks with children".into()
}

fn run_here(scene: &Scene, dir: &str, words: &str) -> Ended {
    let script = format!("cd {dir} && exec \"$0\" run {words} -- echo");
    scene.other("sh").args(["-c", &script]).arg(program("tradewind")).input("a\nb\n").run()
}

fn links(stage: &Stage) -> Seen {
    let scene = stage.scene();
    let precious = "precious\n".repeat(5);
    let victim = scene.file("victim", &precious);
    let mut count = 0;
    let mut dir = |name: &str| {
        count += 1;
        let dir = format!("links-{count}");
        fs::create_dir(scene.path(&dir)).expect("there is room");
        symlink(&victim, scene.path(&dir).join(name)).expect("there is room");
        dir
    };
    let is_whole = || fs::read_to_string(&victim).is_ok_and(|text| text == precious);
    let journal = dir("out.jsonl.tradewind");
    let ended = run_here(&scene, &journal, "--output out.jsonl");
    assert!(is_whole(), "the journal was written over a link");
    assert_eq!(ended.code(), 4, "{}", ended.stderr);
    let output = dir("out.jsonl");
    let ended = run_here(&scene, &output, "--output out.jsonl");
    assert!(is_whole(), "the output was written over a link: {}", ended.stderr);
    let joblog = dir("joblog");
    let ended = run_here(&scene, &joblog, "--output out.jsonl --joblog joblog");
    assert!(is_whole(), "the joblog was written over a link: {}", ended.stderr);
    fs::create_dir(scene.path("modes")).expect("there is room");
    let _ = run_here(&scene, "modes", "--output out.jsonl").expect(0);
    let mode =
        fs::metadata(scene.path("modes/out.jsonl.tradewind")).map(|it| it.permissions().mode());
    assert!(
        mode.is_ok_and(|mode| mode & 0o077 == 0),
        "others read the journal, and the job's key in it"
    );
    for name in ["out.jsonl.tradewind.1", "out.jsonl.tradewind.new"] {
        let rewrite = dir(name);
        let at = |words: &str| {
            let script =
                format!("cd {rewrite} && exec \"$0\" run {words} -- sh -c 'test -e ok' sh");
            scene.other("sh").args(["-c", &script]).arg(program("tradewind")).input("a\nb\n").run()
        };
        let _ = at("--output out.jsonl").expect(1);
        scene.file(&format!("{rewrite}/ok"), "");
        let ended = at("--output out.jsonl --resume --retry-failed");
        assert!(is_whole(), "{name} was written over a link: {}", ended.stderr);
        assert_eq!(ended.code(), 4, "{}", ended.stderr);
    }
    fs::create_dir(scene.path("notes")).expect("there is room");
    let notes = scene.file("notes/notes.tradewind", "my own notes, no journal\n");
    let ended = run_here(&scene, "notes", "--output notes");
    assert_eq!(ended.code(), 4, "{}", ended.stderr);
    let left = fs::read_to_string(notes).unwrap_or_default();
    assert_eq!(left, "my own notes, no journal\n");
    "6 files of others unchanged; the journal is private".into()
}

fn crafted_journals(stage: &Stage) -> Seen {
    let scene = stage.scene();
    let long = format!("00000000 {{\"x\":\"{}\"}}\n", "a".repeat(16 << 20));
    let deep = format!("00000000 {}\n", "[".repeat(100_000));
    let claim = "{\"tradewind\":1,\"job\":\"0123456789abcdef\",\"name\":\"\u{1b}]0;x\\u0007\",\"format\":\"jsonl\"}";
    let sealed =
        |json: &str| format!("{:08x} {json}\n", tradewind_proto::TaskHash::of(json.as_bytes()).0);
    let huge = "{\"output\":{\"end\":18446744073709551615,\"crc\":0},\"records\":[[0,18446744073709551615]],\"hashes\":\"\"}";
    let journals = [
        long,
        deep,
        sealed(claim),
        sealed(claim) + &sealed(huge),
        sealed("{\"tradewind\":99}"),
        "garbage".to_owned(),
    ];
    for (at, journal) in journals.iter().enumerate() {
        for words in ["--resume", "--resume --retry-failed", ""] {
            let dir = format!("crafted-{at}-{}", words.len());
            fs::create_dir(scene.path(&dir)).expect("there is room");
            scene.file(&format!("{dir}/o.jsonl.tradewind"), journal);
            scene.file(&format!("{dir}/o.jsonl"), "");
            let ended = run_here(&scene, &dir, &format!("--output o.jsonl {words}"));
            assert!(
                matches!(ended.code(), 0 | 4),
                "{at} {words}: {} {}",
                ended.code(),
                ended.stderr
            );
            assert!(!ended.stderr.contains('\u{1b}'), "{:?}", ended.stderr);
        }
    }
    format!("{} journals, three ways each: refused or begun anew", journals.len()).into()
}

//! Programs that talk over Unix sockets: nothing of them listens on TCP, and no other user takes part.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, geteuid};
use tradewind_e2e::{
    Process, Scene, Signal, Start, note_skipped, program, records, wait_for, wait_until,
};
use tradewind_node::exit::{LISTEN, STOPPED};

/// Id of the user who is not ours.
const STRANGER: u32 = 65534;

/// Becomes another user. Then tries to take part wherever it is told to, as a peer whose card is good enough to
/// be read, and says what becomes of it; or listens in the place of a ventilator. (It is not started as that
/// user, who may not be able to read the directory that Python is in.)
const STRANGER_PY: &str = r#"
import encodings.idna, os, socket, struct, sys

os.setgroups([])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))

def greeting():
    return b"\xff" + b"\0" * 8 + b"\x7f\x03\x00NULL" + b"\0" * 48

def ready():
    pairs = ((b"Socket-Type", b"PULL"), (b"Identity", b"x"))
    body = b"\x05READY"
    for name, value in pairs:
        body += bytes([len(name)]) + name + struct.pack(">I", len(value)) + value
    return b"\x04" + bytes([len(body)]) + body

def call(where):
    scheme, name = where.split("://", 1)
    if scheme == "tcp":
        host, port = name.rsplit(":", 1)
        return socket.create_connection((host, int(port)), 10)
    to = socket.socket(socket.AF_UNIX)
    to.settimeout(10)
    to.connect("\0" + name[1:] if name.startswith("@") else name)
    return to

def attempt(where):
    try:
        peer = call(where)
    except OSError:
        return "unreachable"
    try:
        peer.sendall(greeting() + ready())
        return "answered" if peer.recv(64) else "closed"
    except ConnectionError:
        return "closed"

if sys.argv[2] == "listen":
    os.umask(0)
    here = socket.socket(socket.AF_UNIX)
    here.bind(sys.argv[3])
    here.listen()
    print("listening", file=sys.stderr, flush=True)
    while True:
        peer, _ = here.accept()
        heard = peer.recv(64)
        print("heard", len(heard), flush=True)
else:
    for _ in range(int(sys.argv[2])):
        for where in sys.argv[3:]:
            print(attempt(where))
"#;

/// Whether another user can be had here, and Python for that one.
fn has_stranger(test: &str) -> bool {
    let as_stranger = || {
        let mut command = Command::new("python3");
        command.args(["-c", STRANGER_PY, &STRANGER.to_string(), "0"]);
        command.output().is_ok_and(|output| output.status.success())
    };
    if geteuid().is_root() && as_stranger() {
        return true;
    }
    note_skipped(test, "this takes root and python3");
    false
}

fn stranger(scene: &Scene) -> Start {
    scene.other("python3").args(["-c", STRANGER_PY, &STRANGER.to_string()])
}

/// Text that a stranger at the port sees.
fn attempts(scene: &Scene, times: u32, places: &[String]) -> Vec<String> {
    let ended = stranger(scene).arg(times.to_string()).args(places).run().expect(0);
    ended.text().lines().map(str::to_owned).collect()
}

/// The endpoints in the command lines of all that `run` has started; every user can read those.
fn endpoints(scene: &Scene) -> Vec<String> {
    let line = |pid: Pid| fs::read(format!("/proc/{}/cmdline", pid.as_raw_pid()));
    let lines = scene.pids("tradewind").into_iter().filter_map(|pid| line(pid).ok());
    let mut all: Vec<String> = lines
        .flat_map(|line| {
            String::from_utf8_lossy(&line).split('\0').map(str::to_owned).collect::<Vec<_>>()
        })
        .filter(|word| word.starts_with("tcp://") || word.starts_with("ipc://"))
        .collect();
    all.sort();
    all.dedup();
    all
}

/// A run whose tasks wait until there is a file `go`.
fn waiting(run: Start) -> Start {
    let wait = "touch begun; while [ ! -e go ]; do sleep 0.01; done; echo mine $1";
    run.words("-j2 --overwrite --output out.jsonl -- sh -c")
        .args([wait, "sh", "{}"])
        .words("::: a b c d")
}

fn let_go(scene: &Scene, run: Process) {
    scene.file("go", "");
    run.wait().expect(0);
    for record in records(&scene.read("out.jsonl"), 4) {
        let output = record.output.as_deref().unwrap_or_default();
        assert!(output.starts_with("mine "), "{record:?}");
    }
}

#[test]
fn another_user_cannot_take_part_in_a_run() {
    if !has_stranger("another_user_cannot_take_part_in_a_run") {
        return;
    }
    let scene = Scene::new();
    let run = waiting(scene.run()).start();
    wait_until("a task runs", || scene.path("begun").exists());
    let places = endpoints(&scene);
    assert_eq!(places.len(), 3, "{places:?}");
    assert_eq!(attempts(&scene, 1, &places), ["unreachable"; 3], "{places:?}");
    let_go(&scene, run);
}

/// In mounts of its own, in which no place for sockets can be written to.
fn on_a_read_only_system(scene: &Scene, user_namespace: bool) -> Start {
    let mounts =
        "mount -t tmpfs -o ro none /dev/shm && mount -t tmpfs -o ro none /tmp && exec \"$@\"";
    let start = scene.other("unshare").args(user_namespace.then_some("-r"));
    let start = start.args(["-m", "sh", "-c", mounts, "sh"]).arg(program("tradewind")).arg("run");
    start.env("XDG_RUNTIME_DIR", "/proc").env("TMPDIR", "/nowhere")
}

fn has_mounts(test: &str, user_namespace: bool) -> bool {
    let try_out = "mount -t tmpfs -o ro none /dev/shm";
    let mut command = Command::new("unshare");
    command.args(user_namespace.then_some("-r")).args(["-m", "sh", "-c", try_out]);
    if command.output().is_ok_and(|output| output.status.success()) {
        return true;
    }
    note_skipped(test, "unshare or the right to mount is missing");
    false
}

#[test]
fn a_run_needs_no_directory() {
    if !has_mounts("a_run_needs_no_directory", true) {
        return;
    }
    let scene = Scene::new();
    let ended = on_a_read_only_system(&scene, true).words("-- echo {} ::: a b c").run().expect(0);
    assert_eq!(ended.text(), "a\nb\nc\n");
}

#[test]
fn another_user_is_sent_away_where_sockets_have_no_directory() {
    let test = "another_user_is_sent_away_where_sockets_have_no_directory";
    if !has_stranger(test) || !has_mounts(test, false) {
        return;
    }
    let scene = Scene::new();
    let mut run = waiting(on_a_read_only_system(&scene, false)).start();
    wait_until("a task runs", || scene.path("begun").exists());
    let places = endpoints(&scene);
    assert!(places.len() == 3 && places.iter().all(|place| place.contains("://@")), "{places:?}");
    assert_eq!(attempts(&scene, 20, &places), ["closed"; 60], "{places:?}");
    let refusal = "only processes of the user that listens may connect";
    run.wait_for_stderr(refusal);
    let said = run.stderr();
    assert!(said.contains(&format!("of user {STRANGER} to ipc://@")), "{said}");
    assert!(said.matches(refusal).count() <= 3, "once at each socket:\n{said}");
    let_go(&scene, run);
}

#[test]
fn nothing_of_a_run_listens_on_tcp() {
    let scene = Scene::new();
    let test = "nothing_of_a_run_listens_on_tcp";
    let mut try_out = Command::new("unshare");
    if !try_out
        .args(["-r", "-n", "ip", "link", "set", "lo", "up"])
        .output()
        .is_ok_and(|it| it.status.success())
    {
        return note_skipped(test, "unshare, ip or the right to use them is missing");
    }
    scene.file(
        "pipeline.toml",
        "[[stage]]\nname = \"a\"\ncommand = \"cat\"\nstdin = true\n\
         [[stage]]\nname = \"b\"\ncommand = [\"sh\", \"-c\", \"cat /proc/net/tcp /proc/net/tcp6\", \"sh\"]\n",
    );
    let listeners = |words: &str| {
        // A network of its own: nothing of others is in the lists.
        let within = "ip link set lo up && exec \"$@\"";
        let start = scene.other("unshare").args(["-r", "-n", "sh", "-c", within, "sh"]);
        let ended = start.arg(program("tradewind")).words(words).input("x\n").run().expect(0);
        let text = ended.text();
        assert!(text.contains("local_address"), "{text}");
        // State 0A is LISTEN.
        text.lines().filter(|line| line.contains(" 0A ")).count()
    };
    assert_eq!(listeners("run -- sh -c cat</proc/net/tcp;cat</proc/net/tcp6 {}"), 0);
    assert_eq!(listeners("run --pipeline pipeline.toml"), 0);
}

#[test]
fn sockets_of_a_run_are_removed_however_it_ends() {
    let scene = Scene::new();
    let runtime = scene.path("runtime");
    fs::create_dir(&runtime).unwrap();
    let is_empty = || fs::read_dir(&runtime).unwrap().count() == 0;
    let run = || waiting(scene.run()).arg("e").env("XDG_RUNTIME_DIR", &runtime).start();
    let begin = || {
        let _ = fs::remove_file(scene.path("begun"));
        let run = run();
        wait_until("a task runs", || scene.path("begun").exists());
        let dir = fs::read_dir(&runtime).unwrap().next().expect("a directory").unwrap();
        assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        run
    };

    let mut interrupted = begin();
    interrupted.signal_group(Signal::INT);
    tradewind_e2e::pause_between_signals();
    interrupted.signal_group(Signal::INT);
    interrupted.wait().expect(STOPPED.into());
    assert!(is_empty());

    let mut killed = begin();
    killed.kill();
    wait_until("the children of a killed run remove what it has made", is_empty);

    let worker_dies = begin();
    scene.file("go", "");
    worker_dies.wait().expect(0);
    assert!(is_empty());

    let error = scene.run().words("--output /dev/null/x -- cat").env("XDG_RUNTIME_DIR", &runtime);
    assert_ne!(error.input("a\n").run().code(), 0);
    assert!(is_empty());
}

#[test]
fn a_run_within_a_task_is_a_run_of_its_own() {
    let scene = Scene::new();
    let tradewind = program("tradewind");
    let inner = format!("{} run -- echo inner {{}} of $1 ::: a b", tradewind.display());
    let run = scene.run().words("-- sh -c").arg(inner.replace("{}", "$TRADEWIND_SEQ"));
    let ended = run.args(["sh", "{}"]).words("::: x y").run().expect(0);
    assert_eq!(ended.text().lines().count(), 4, "{}", ended.text());
}

/// The names of Tradewind's and systemd's variables that a task sees.
#[test]
fn tasks_see_the_documented_variables_only() {
    let scene = Scene::new();
    let worker = |words: &str| {
        let names = [
            "CREDENTIALS_DIRECTORY",
            "TRADEWIND_LOG",
            "NOTIFY_SOCKET",
            "LISTEN_FDNAMES",
            "WATCHDOG_USEC",
        ];
        let start = scene.worker("w").words("--exit-when-done --slots 1").words(words);
        names.iter().fold(start, |start, name| {
            start.env(name, if *name == "TRADEWIND_LOG" { "info" } else { "/secret" })
        })
    };
    let list = "env | cut -d= -f1 | grep -E '^(CREDENTIALS|TRADEWIND|NOTIFY|LISTEN|WATCHDOG)' | sort | xargs";
    scene.file("list.sh", format!("{list}\n"));
    scene.file("pipe.sh", format!("names=$({list})\nwhile read line; do echo \"$names\"; done\n"));
    let check = |words: &str, wanted: &str| {
        let sink = scene.sink().words("--format lines").start();
        let ventilator = scene.ventilator().input("a\n").start();
        worker(words).run().expect(0);
        ventilator.wait().expect(0);
        assert_eq!(sink.wait().expect(0).text(), format!("{wanted}\n"), "{words}");
    };
    check("-- sh list.sh", "TRADEWIND_ATTEMPT TRADEWIND_SEQ TRADEWIND_SLOT TRADEWIND_WORKER");
    check("--pipe lines -- sh pipe.sh", "TRADEWIND_SLOT TRADEWIND_WORKER");
    // Under `run`, whose own children have other ones, it is the same; others only look alike.
    let run = scene.run().env("LISTEN_PORT", "80").env("NOTIFY_SOCKET", "/secret");
    let ended = run.words("-j 1 -- sh list.sh ::: a").run().expect(0);
    let wanted = "LISTEN_PORT TRADEWIND_ATTEMPT TRADEWIND_SEQ TRADEWIND_SLOT TRADEWIND_WORKER\n";
    assert_eq!(ended.text(), wanted);
}

/// The programs of a scene, with sockets in this directory.
struct ByHand<'a> {
    scene: &'a Scene,
    dir: String,
}

impl ByHand<'_> {
    fn at(&self, name: &str) -> String {
        format!("ipc://{}/{name}", self.dir)
    }

    fn ventilator(&self) -> Start {
        let start = self.scene.ours("ventilator").args(["--tasks", &self.at("tasks")]);
        start.args(["--receipts", &self.at("receipts"), "--sink", &self.at("results")])
    }

    fn worker(&self) -> Start {
        let start = self.scene.ours("worker").args(["--ventilator", &self.at("tasks")]);
        start.args(["--sink", &self.at("results"), "--exit-when-done"])
    }

    fn sink(&self) -> Start {
        let start = self.scene.ours("sink").args(["--listen", &self.at("results")]);
        start.args(["--ventilator", &self.at("receipts"), "--format", "lines"])
    }
}

fn by_hand(scene: &Scene) -> ByHand<'_> {
    let dir = scene.path("sockets");
    fs::create_dir(&dir).unwrap();
    ByHand { scene, dir: dir.to_str().expect("it is text").to_owned() }
}

fn names(dir: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn programs_that_are_given_socket_files_use_them_and_remove_them() {
    let scene = Scene::new();
    let ring = by_hand(&scene);
    let mut dead = ring.sink().start();
    wait_until("the sink listens", || names(&ring.dir) == ["results"]);
    dead.kill();
    assert_eq!(names(&ring.dir), ["results"], "a killed process leaves its file");

    let sink = ring.sink().start();
    let ventilator = ring.ventilator().keep_stdin().start();
    wait_until("both listen", || names(&ring.dir) == ["receipts", "results", "tasks"]);
    let taken = ring.ventilator().arg("-q").run().expect(LISTEN.into());
    let line = format!("{} is taken by another process", ring.at("tasks"));
    assert!(taken.stderr.contains(&line), "{}", taken.stderr);
    let mut ventilator = ventilator;
    std::io::Write::write_all(ventilator.stdin().unwrap(), b"a\nb\n").unwrap();
    ventilator.close_stdin();
    ring.worker().words("-- echo").run().expect(0);
    ventilator.wait().expect(0);
    assert_eq!(sink.wait().expect(0).text(), "a\nb\n");
    assert_eq!(names(&ring.dir), [""; 0]);

    fs::write(Path::new(&ring.dir).join("results"), "precious").unwrap();
    let refused = ring.sink().arg("-q").run().expect(LISTEN.into());
    assert!(refused.stderr.contains("is a file, but not a socket"), "{}", refused.stderr);
    assert_eq!(fs::read(Path::new(&ring.dir).join("results")).unwrap(), b"precious");
}

#[test]
fn another_user_is_sent_away_from_a_socket_that_all_can_reach() {
    if !has_stranger("another_user_is_sent_away_from_a_socket_that_all_can_reach") {
        return;
    }
    let scene = Scene::new();
    let ring = by_hand(&scene);
    let everybody =
        |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    everybody(scene.dir());
    everybody(Path::new(&ring.dir));
    let mut sink = ring.sink().start();
    wait_until("the sink listens", || names(&ring.dir) == ["results"]);
    let socket = Path::new(&ring.dir).join("results");
    wait_until("only its user may connect", || {
        socket.metadata().unwrap().permissions().mode() & 0o777 == 0o600
    });
    let places = [ring.at("results")];
    assert_eq!(attempts(&scene, 1, &places), ["unreachable"]);
    everybody(&socket);
    assert_eq!(attempts(&scene, 100, &places), ["closed"; 100]);
    let refusal = "only processes of the user that listens may connect";
    sink.wait_for_stderr(refusal);
    assert_eq!(sink.stderr().matches(refusal).count(), 1, "{}", sink.stderr());
}

#[test]
fn a_socket_of_another_user_is_not_spoken_to() {
    if !has_stranger("a_socket_of_another_user_is_not_spoken_to") {
        return;
    }
    let scene = Scene::new();
    let ring = by_hand(&scene);
    for dir in [scene.dir(), Path::new(&ring.dir)] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let mut impostor = stranger(&scene).arg("listen").arg(format!("{}/tasks", ring.dir)).start();
    impostor.wait_for_stderr("listening");
    let mut worker = ring.worker().words("-- cat").start();
    worker.wait_for_stderr(&format!("a process of user {STRANGER} listens there"));
    let heard = wait_for("the impostor has heard the worker leave", || {
        (impostor.stdout_lines() > 0).then(|| impostor.stdout_lines())
    });
    assert!(heard > 0);
    worker.kill();
    impostor.signal(Signal::TERM);
    let said = impostor.wait().stdout;
    let said = String::from_utf8_lossy(&said);
    assert!(said.lines().all(|line| line == "heard 0"), "it was told something:\n{said}");
}

//! PostgreSQL servers, of which each has a directory and a port of its own.
//!
//! `POSTGRES_BIN` names the directory of the programs. They do not run as root: who is root starts them as `nobody`.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process, test_kill_process};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// User and group as which a server runs that root starts: nobody.
const NOBODY: u32 = 65534;

/// Time after which a server is no good that has not started.
const PATIENCE: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(10);

/// A server with the user `u`, whose password is `p`.
pub(crate) struct Server {
    dir: TempDir,
    port: u16,
    child: Mutex<Option<Child>>,
    // What others copy is there as long as one of them runs.
    _template: Arc<TempDir>,
}

impl Server {
    pub(crate) fn begin() -> Self {
        let template = template();
        let dir = directory();
        let copied = Command::new("cp")
            .arg("-a")
            .arg(template.path().join("data"))
            .arg(dir.path())
            .status()
            .expect("there is cp");
        assert!(copied.success(), "the template is copied");
        let server = Self { dir, port: free_port(), child: Mutex::default(), _template: template };
        server.start();
        server
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Starts the server, and waits until it takes connections.
    pub(crate) fn start(&self) {
        let data = self.dir.path().join("data");
        let log = fs::File::create(self.dir.path().join("log")).expect("it is written");
        let child = program("postgres")
            .arg("-D")
            .arg(&data)
            .args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k", ""])
            .args(["-c", "shared_buffers=16MB", "-c", "max_connections=60"])
            .stderr(log)
            .spawn()
            .expect("it starts");
        *self.child.lock().expect("nobody panicked") = Some(child);
        let began = Instant::now();
        while self.try_program().is_err() {
            assert!(began.elapsed() < PATIENCE, "the server does not start: {}", self.log());
            thread::sleep(PAUSE);
        }
    }

    /// Kills the server, all processes of it, and waits until they are gone.
    pub(crate) fn kill(&self) {
        let Some(mut child) = self.child.lock().expect("nobody panicked").take() else { return };
        let postmaster = Pid::from_child(&child);
        // Stopped, it starts no more of them.
        kill_process(postmaster, Signal::STOP).expect("it is ours");
        let path = format!("/proc/{0}/task/{0}/children", child.id());
        let children = fs::read_to_string(path).expect("it is there");
        child.kill().expect("it is ours");
        child.wait().expect("it ends");
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        let children: Vec<_> = children.filter_map(Pid::from_raw).collect();
        for child in &children {
            // It may have ended with the postmaster.
            let _ = kill_process(*child, Signal::KILL);
        }
        let began = Instant::now();
        while children.iter().any(|child| is_running(*child)) {
            assert!(began.elapsed() < PATIENCE, "the server's processes do not end");
            thread::sleep(PAUSE);
        }
    }

    /// Has SQL done, past the proxy.
    pub(crate) fn sql(&self, text: &str) {
        self.program().sql(text);
    }

    /// Waits until a query says true.
    pub(crate) fn wait_for(&self, text: &str) {
        let (began, program) = (Instant::now(), self.program());
        while program.ask(text) != "t" {
            assert!(began.elapsed() < PATIENCE, "never: {text}");
            thread::sleep(PAUSE);
        }
    }

    /// Connects as a program of somebody else does.
    pub(crate) fn program(&self) -> Program {
        self.try_program().unwrap_or_else(|error| panic!("{error:?}: {}", self.log()))
    }

    fn try_program(&self) -> Result<Program, tokio_postgres::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("it starts");
        let client = runtime.block_on(async {
            let mut config = Config::new();
            config.host("127.0.0.1").port(self.port).user("u").password("p").dbname("postgres");
            let (client, connection) = config.connect(NoTls).await?;
            tokio::spawn(connection);
            Ok(client)
        })?;
        Ok(Program { runtime, client })
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

/// Connection of a program of somebody else.
pub(crate) struct Program {
    runtime: Runtime,
    client: Client,
}

impl Program {
    /// Has statements done.
    pub(crate) fn sql(&self, text: &str) {
        self.try_sql(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    }

    pub(crate) fn try_sql(&self, text: &str) -> Result<(), tokio_postgres::Error> {
        self.runtime.block_on(self.client.batch_execute(text))
    }

    /// Returns the first value that a query answers, as text; nothing if there is none.
    pub(crate) fn ask(&self, text: &str) -> String {
        let rows = self.runtime.block_on(self.client.simple_query(text));
        let rows = rows.unwrap_or_else(|error| panic!("{text}: {error:?}"));
        let first = rows.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        first.unwrap_or_default().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns whether a process is there, and not only waits for who asks how it ended.
fn is_running(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    let is_zombie = status.is_ok_and(|status| {
        status.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X']))
    });
    !is_zombie && test_kill_process(pid).is_ok()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    listener.local_addr().expect("it has an address").port()
}

/// Makes a directory into which the server's user may look.
fn directory() -> TempDir {
    let dir = tempfile::tempdir().expect("there is room for a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    dir
}

/// Returns a directory with an empty server in `data`, for all cases that run at a time.
fn template() -> Arc<TempDir> {
    static TEMPLATE: OnceLock<Mutex<Weak<TempDir>>> = OnceLock::new();
    let mut shared =
        TEMPLATE.get_or_init(Mutex::default).lock().unwrap_or_else(|error| error.into_inner());
    if let Some(there) = shared.upgrade() {
        return there;
    }
    let dir = directory();
    let (data, password) = (dir.path().join("data"), dir.path().join("password"));
    fs::create_dir(&data).expect("it is made");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).expect("it is ours");
    if geteuid().is_root() {
        chown(&data, Some(NOBODY), Some(NOBODY)).expect("root may");
    }
    fs::write(&password, "p\n").expect("it is written");
    let made = program("initdb")
        .args(["--no-sync", "--auth=scram-sha-256", "--username=u", "--encoding=UTF8"])
        .args(["--locale=C", "--pwfile"])
        .arg(&password)
        .arg("-D")
        .arg(&data)
        .output()
        .expect("it starts");
    assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    let dir = Arc::new(dir);
    *shared = Arc::downgrade(&dir);
    dir
}

fn program(name: &str) -> Command {
    let directory = std::env::var_os("POSTGRES_BIN").map(PathBuf::from);
    let path = directory.as_deref().unwrap_or(Path::new("")).join(name);
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // The directory of whoever started the tests may be closed to the server's user.
    command.current_dir("/");
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

//! JetStream passes the contract of engines, on a server that each case starts.
//!
//! `NATS_SERVER` names the program; `scripts/test` installs one.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::Config;
use tempfile::TempDir;
use tradewind_engine::contract::{Fault, Proxy, Stage};
use tradewind_engine::{Engine, EngineError, SubmitId};
use tradewind_engine_nats::Nats;
use tradewind_store::StoredTask;

tradewind_engine::contract!(Server::begin, &[]);

struct Server {
    dir: TempDir,
    port: u16,
    proxy: Proxy,
    child: Mutex<Option<Child>>,
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    listener.local_addr().expect("it has an address").port()
}

impl Server {
    fn begin(_name: &str) -> Self {
        let dir = tempfile::tempdir().expect("there is room for a directory");
        let port = free_port();
        let proxy = Proxy::begin(port);
        let server = Self { dir, port, proxy, child: Mutex::default() };
        let config = format!(
            "listen: 127.0.0.1:{port}\njetstream {{ store_dir: {:?}, sync_interval: always }}\n\
             authorization {{ user: u, password: p }}\n",
            server.dir.path().join("store")
        );
        std::fs::write(server.dir.path().join("nats.conf"), config).expect("it is written");
        server.start();
        server
    }

    fn start(&self) {
        let program = std::env::var("NATS_SERVER").unwrap_or_else(|_| "nats-server".into());
        let child = Command::new(&program)
            .arg("-c")
            .arg(self.dir.path().join("nats.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("failed to start {program}: {error}"));
        *self.child.lock().expect("nobody panicked") = Some(child);
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "the server does not listen");
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn kill(&self) {
        if let Some(mut child) = self.child.lock().expect("nobody panicked").take() {
            child.kill().expect("it is ours");
            child.wait().expect("it ends");
        }
    }

    fn url(&self, login: &str, stream: &str) -> String {
        format!("nats://{login}@127.0.0.1:{}/{stream}?timeout_ms=2000", self.proxy.port())
    }

    fn raw<T>(&self, what: impl AsyncFnOnce(async_nats::jetstream::Context) -> T) -> T {
        let runtime = tokio::runtime::Runtime::new().expect("it starts");
        runtime.block_on(async {
            let url = format!("nats://127.0.0.1:{}", self.port);
            let options =
                async_nats::ConnectOptions::with_user_and_password("u".into(), "p".into());
            let client = options.connect(url).await.expect("it connects");
            what(async_nats::jetstream::new(client)).await
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Stage for Server {
    fn open(&self) -> Result<Box<dyn Engine>, EngineError> {
        let url = self.url("u:p", "ORDERS").parse().expect("it is one");
        Ok(Box::new(Nats::connect(url)?))
    }

    fn fault(&self, fault: Fault) {
        match fault {
            Fault::Kill => self.kill(),
            Fault::Start => self.start(),
            fault => self.proxy.fault(fault),
        }
    }

    fn remove_task(&self, position: u64) {
        self.raw(async |context| {
            let stream = context.get_stream("ORDERS-0").await.expect("it is there");
            stream.delete_message(position + 1).await.expect("it is removed");
        });
    }

    fn open_wrongly(&self) -> EngineError {
        let url = self.url("u:wrong", "ORDERS").parse().expect("it is one");
        Nats::connect(url).expect_err("it is refused")
    }

    fn open_lossy(&self) -> Vec<(String, Option<EngineError>)> {
        let ours = |name: &str| Config {
            name: format!("{name}-0"),
            subjects: vec![format!("{name}.0.k.>"), format!("{name}.0.u.>")],
            ..Config::default()
        };
        let cases = [
            ("max_age", Config { max_age: Duration::from_secs(60), ..ours("A") }),
            ("discard", ours("B")),
            ("max_msgs_per_subject", Config { max_messages_per_subject: 5, ..ours("C") }),
        ];
        let opened = cases.into_iter().map(|(setting, config)| {
            let name = config.name.trim_end_matches("-0").to_owned();
            self.raw(async |context| context.create_stream(config).await.expect("it is made"));
            let url = self.url("u:p", &name).parse().expect("it is one");
            let opened = Nats::connect(url).and_then(|engine| engine.tasks(0).map(drop));
            (setting.to_owned(), opened.err())
        });
        opened.collect()
    }

    fn too_large(&self) -> usize {
        1 << 20
    }
}

/// Fails by a hang if each batch may hold a part of the answers that the library waits for.
#[test]
fn many_batches_at_a_time_do_not_wait_for_one_another() {
    let server = Server::begin("batches");
    let engine = server.open().expect("it opens");
    server.fault(Fault::Slow(Duration::from_millis(20)));
    let logs: Vec<_> = (0..12).map(|_| engine.tasks(0).expect("it opens")).collect();
    let (done, all) = std::sync::mpsc::channel();
    for (number, mut log) in (0..).zip(logs) {
        let done = done.clone();
        thread::spawn(move || {
            let task = |place: u32| StoredTask {
                payload: format!("{number}-{place}").into(),
                ..StoredTask::default()
            };
            let tasks: Vec<_> = (0..1000).map(task).collect();
            while log.submit(SubmitId(number), &tasks).is_err() {}
            done.send(()).expect("it is waited for");
        });
    }
    for _ in 0..12 {
        all.recv_timeout(Duration::from_secs(120)).expect("each is done");
    }
}

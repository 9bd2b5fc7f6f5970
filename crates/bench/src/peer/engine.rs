//! Engines underneath queues: servers that are started empty, what their own clients do (`role/plain.rs`), and
//! `tradewind serve` on them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::geteuid;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::lab::{Lab, Place};
use crate::process::{PATIENCE, Program, Running};

/// User and group as which a server runs that root starts: nobody.
const NOBODY: u32 = 65534;

/// Interval at which a server is asked whether it is up.
const ASK_INTERVAL: Duration = Duration::from_millis(20);

/// Engine, with its one server of a run.
pub(crate) enum Engine {
    JetStream(Server),
    Postgres(Server),
}

/// Server that runs.
pub(crate) struct Server {
    address: String,
    runtime: Runtime,
    running: Running,
    _dir: TempDir,
}

/// What the plain client does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlainLoop {
    pub(crate) workers: usize,
    /// Tasks of a transaction, where there are transactions.
    pub(crate) limit: u64,
}

impl Engine {
    pub(crate) fn start_jetstream(lab: &Lab, place: &Place) -> Result<Self> {
        let program = lab.peers.nats.clone().context("there is no nats-server")?;
        let (dir, address) = (directory()?, place.address(4222).to_string());
        let config = dir.path().join("nats.conf");
        let store = dir.path().display();
        fs::write(
            &config,
            format!("listen: \"{address}\"\njetstream {{ store_dir: \"{store}\" }}\n"),
        )?;
        let running = Program::new(program).arg("-c").arg(config).start()?;
        let server = Server::new(address, running, dir)?;
        let engine = Self::JetStream(server);
        engine.wait_up(|server| {
            server.runtime.block_on(async { async_nats::connect(&server.address).await.is_ok() })
        })
    }

    pub(crate) fn start_postgres(place: &Place) -> Result<Self> {
        let (dir, host) = (directory()?, place.address(0).ip().to_string());
        let (data, port) = (dir.path().join("data"), "5432");
        fs::create_dir(&data)?;
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700))?;
        if geteuid().is_root() {
            chown(&data, Some(NOBODY), Some(NOBODY))?;
        }
        let initdb = postgres("initdb")?.args(["--auth=trust", "--username=u", "--encoding=UTF8"]);
        initdb.args(["--locale=C", "-D"]).arg(&data).start()?.finish()?;
        let running = postgres("postgres")?
            .arg("-D")
            .arg(&data)
            .args(["-p", port, "-h", &host, "-k", ""])
            .args(["-c", "shared_buffers=512MB", "-c", "max_wal_size=4GB"])
            .start()?;
        let address = format!("host={host} port={port} user=u dbname=postgres");
        let engine = Self::Postgres(Server::new(address, running, dir)?);
        engine.wait_up(|server| server.ask("select 1").is_ok())
    }

    fn wait_up(self, is_up: impl Fn(&Server) -> bool) -> Result<Self> {
        let began = Instant::now();
        while !is_up(self.server()) {
            if self.server().running.wait(ASK_INTERVAL).is_ok() || began.elapsed() > PATIENCE {
                bail!("the server does not come up: {}", self.server().running.said());
            }
        }
        Ok(self)
    }

    fn server(&self) -> &Server {
        match self {
            Self::JetStream(server) | Self::Postgres(server) => server,
        }
    }

    /// Returns what a queue's configuration says of its logs.
    pub(crate) fn config(&self, name: &str) -> String {
        let url = match self {
            Self::JetStream(server) => format!("nats://{}/{name}", server.address),
            Self::Postgres(server) => {
                let word = |key: &str| {
                    let words = server.address.split(' ');
                    words.filter_map(|word| word.strip_prefix(key)).next().unwrap_or_default()
                };
                format!("postgres://u@{}:{}/postgres?table={name}", word("host="), word("port="))
            }
        };
        format!("[queue.{name}]\nsource = \"{url}\"\nsink = \"{url}\"\n")
    }

    fn plain(&self, lab: &Lab, role: &str) -> Program {
        lab.ours("bench").args(["role", "plain", role, &self.server().address])
    }

    /// Fills the log of a queue, which `serve` has made.
    pub(crate) fn fill_queue(&self, lab: &Lab, name: &str, count: u64, bytes: usize) -> Result<()> {
        let (count, bytes) = (count.to_string(), bytes.to_string());
        let fill = match self {
            Self::JetStream(_) => {
                let subject = format!("{name}.0.u");
                self.plain(lab, "nats-fill").args([&subject, &count, &bytes, "--unique"])
            }
            Self::Postgres(_) => self.plain(lab, "postgres-fill").args([name, &count, &bytes]),
        };
        let filling = fill.start()?;
        filling.wait(20 * PATIENCE)?;
        filling.finish().map(drop)
    }

    /// Makes what the plain client uses, and fills it.
    pub(crate) fn fill_plain(&self, lab: &Lab, name: &str, count: u64, bytes: usize) -> Result<()> {
        let (count, bytes) = (count.to_string(), bytes.to_string());
        let (set_up, fill, target) = match self {
            Self::JetStream(_) => ("nats-set-up", "nats-fill", format!("{name}_TASKS")),
            Self::Postgres(_) => ("postgres-set-up", "postgres-fill", format!("{name}_tasks")),
        };
        self.plain(lab, set_up).arg(name).start()?.finish()?;
        self.plain(lab, fill).args([&target, &count, &bytes]).start()?.finish()?;
        Ok(())
    }

    /// Returns the plain client, which ends when all tasks are done.
    pub(crate) fn plain_loop(
        &self,
        lab: &Lab,
        name: &str,
        count: u64,
        plain: PlainLoop,
    ) -> Program {
        let workers = plain.workers.to_string();
        match self {
            Self::JetStream(_) => {
                self.plain(lab, "nats-loop").args([name, &count.to_string(), &workers])
            }
            Self::Postgres(_) => {
                self.plain(lab, "postgres-loop").args([name, &plain.limit.to_string(), &workers])
            }
        }
    }

    /// Returns the number of results of the plain client, and of tasks that are left.
    pub(crate) fn plain_counts(&self, name: &str) -> Result<(u64, u64)> {
        match self {
            Self::JetStream(server) => Ok((
                server.messages(&format!("{name}_RESULTS"))?,
                server.messages(&format!("{name}_TASKS"))?,
            )),
            Self::Postgres(server) => Ok((
                server.ask(&format!("select count(*) from {name}_results"))?,
                server.ask(&format!("select count(*) from {name}_tasks"))?,
            )),
        }
    }

    /// Returns the number of records of a queue so far, or one more.
    pub(crate) fn records(&self, name: &str) -> Result<u64> {
        match self {
            // Beside them there are a marker, and later a checkpoint.
            Self::JetStream(server) => {
                Ok(server.messages(&format!("{name}-records-0"))?.saturating_sub(1))
            }
            Self::Postgres(server) => {
                let sequence = format!("{name}_records_position_seq");
                server.ask(&format!(
                    "select case when is_called then last_value else 0 end from {sequence}"
                ))
            }
        }
    }

    /// Returns the number of records of a queue that has ended, and of tasks that are left.
    pub(crate) fn counts(&self, name: &str) -> Result<(u64, u64)> {
        match self {
            Self::JetStream(server) => Ok((
                server.messages(&format!("{name}-records-0"))?.saturating_sub(2),
                server.messages(&format!("{name}-0"))?,
            )),
            Self::Postgres(server) => Ok((
                server.ask(&format!("select count(*) from {name}_records"))?,
                server.ask(&format!("select count(*) from {name}"))?,
            )),
        }
    }

    /// Removes all that a run has left, and waits for what the server does about it.
    pub(crate) fn clear(&self, name: &str) -> Result<()> {
        match self {
            Self::JetStream(server) => server.runtime.block_on(async {
                let client = async_nats::connect(&server.address).await?;
                let nats = async_nats::jetstream::new(client);
                for of in ["-0", "-records-0", "_TASKS", "_RESULTS"] {
                    // It has one or the other.
                    let _ = nats.delete_stream(format!("{name}{of}")).await;
                }
                Ok(())
            }),
            Self::Postgres(server) => {
                let all =
                    ["", "_pages", "_partitions", "_fences", "_records", "_checkpoints", "_leases"];
                for of in all.into_iter().chain(["_settings", "_tasks", "_results"]) {
                    server.run(&format!("drop table if exists {name}{of} cascade"))?;
                }
                for of in ["set_partition", "notify", "adopt"] {
                    server.run(&format!("drop routine if exists {name}_{of} cascade"))?;
                }
                server.run("checkpoint")
            }
        }
    }
}

impl Server {
    fn new(address: String, running: Running, dir: TempDir) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { address, runtime, running, _dir: dir })
    }

    fn messages(&self, stream: &str) -> Result<u64> {
        self.runtime.block_on(async {
            let client = async_nats::connect(&self.address).await?;
            let stream = async_nats::jetstream::new(client).get_stream(stream).await?;
            Ok(stream.cached_info().state.messages)
        })
    }

    fn ask(&self, text: &str) -> Result<u64> {
        self.runtime.block_on(async {
            let (client, connection) =
                tokio_postgres::connect(&self.address, tokio_postgres::NoTls).await?;
            tokio::spawn(connection);
            let rows = client.simple_query(text).await?;
            let value = rows.iter().find_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
                _ => None,
            });
            Ok(value.context("no row")?.parse()?)
        })
    }

    fn run(&self, text: &str) -> Result<()> {
        self.runtime.block_on(async {
            let (client, connection) =
                tokio_postgres::connect(&self.address, tokio_postgres::NoTls).await?;
            tokio::spawn(connection);
            Ok(client.batch_execute(text).await?)
        })
    }
}

/// Makes a directory into which a server's user may look.
fn directory() -> Result<TempDir> {
    let dir = tempfile::Builder::new().prefix("tradewind-bench-engine-").tempdir()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    Ok(dir)
}

/// Returns a program of PostgreSQL: that of `POSTGRES_BIN`, or of the newest Debian package.
fn postgres(name: &str) -> Result<Program> {
    let from_environment = std::env::var_os("POSTGRES_BIN").map(PathBuf::from);
    let newest = || {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
        let number = |dir: &fs::DirEntry| dir.file_name().to_str()?.parse::<u32>().ok();
        let newest = versions.filter_map(|dir| Some((number(&dir)?, dir.path()))).max()?;
        Some(newest.1.join("bin"))
    };
    let dir = from_environment.or_else(newest).context("PostgreSQL is not installed")?;
    let program = Program::new(dir.join(name)).dir(std::path::Path::new("/"));
    Ok(if geteuid().is_root() { program.user(NOBODY) } else { program })
}

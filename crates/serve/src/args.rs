//! The flags of `tradewind serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use tradewind_face::Trusted;
use tradewind_lanes::Endpoint;
use tradewind_node::args::{GateArgs, KeyArgs, LaneArgs, LogArgs};
use tradewind_node::exit::{HELP, OK, OrExit, USAGE};
use tradewind_node::{Inherited, Listen, allow_many_files, block_on, exit, logs};

use crate::config::Config;
use crate::health::health;
use crate::serve::{Ports, Settings, serve};

const EXAMPLES: &str = "\
Examples:
  tradewind keys new                     # once: workers and this program trust one another
  tradewind serve &
  tradewind worker --queue thumbs -- convert {} {.}.png &
  tradewind submit thumbs --wait photo.jpg
  curl -X POST --data-binary photo.jpg http://127.0.0.1:5560/v1/queues/thumbs/tasks";

const CONFIG: &str = "\
The configuration FILE (TOML) has settings of queues, which `tradewind queue set` changes while they are open:
  [queue.thumbs]
  retries = 3              # attempts after the first [default: 0]
  timeout = \"10m\"          # of an attempt [default: any]
  max_running = 200        # tasks at the workers at once [default: any]
  keep = \"7d\"              # records: a time, a size as \"20G\", or \"consumed\" [default: all]
  unique = \"kept\"          # a key is remembered while its record is \"kept\", until it is \"stored\", or a time as \"1h\"
  fsync = \"batch\"          # what is promised is synced before, many together; \"record\": each; \"none\"
With further stages, whose relays are started with --queue thumbs:
  first_relay = \"tcp://relay-host:5558\"   # --listen of the first relay
  last_relay = \"tcp://relay-host:5559\"    # --receipts of the last one";

/// Exit code for one that is not well: what container engines take for it.
const UNWELL: u8 = 1;

/// Port for receipts by default, where there are relays.
const RECEIPTS: &str = "tcp://127.0.0.1:5559";

/// Serve queues that stay open: tasks in by HTTP, records out, for as long as it runs
#[derive(Args, Clone, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{CONFIG}\n\n{HELP}"))]
pub struct ServeArgs {
    /// Directory of the queues' tasks and records; made if it is not there
    #[arg(long, env = "TRADEWIND_DIR", value_name = "DIR", default_value = "tradewind-queues")]
    pub dir: PathBuf,

    /// File with settings of queues; see below
    #[arg(long, env = "TRADEWIND_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Listen for workers here: tcp://HOST:PORT, or ipc:///PATH for a Unix socket
    #[arg(
        long,
        env = "TRADEWIND_TASKS",
        value_name = "ENDPOINT",
        default_value = "tcp://127.0.0.1:5557"
    )]
    pub tasks: Endpoint,

    /// Listen for workers' results here, likewise
    #[arg(
        long,
        env = "TRADEWIND_RESULTS",
        value_name = "ENDPOINT",
        default_value = "tcp://127.0.0.1:5558"
    )]
    pub results: Endpoint,

    /// Listen for receipts of relays here, likewise, if a queue has relays behind it
    /// [default: tcp://127.0.0.1:5559]
    #[arg(long, env = "TRADEWIND_RECEIPTS", value_name = "ENDPOINT")]
    pub receipts: Option<Endpoint>,

    /// Answer HTTP here. On loopback nobody needs a token; elsewhere it speaks TLS, and clients need a key of
    /// `tradewind keys token client`
    #[arg(long, env = "TRADEWIND_HTTP", value_name = "ADDRESS", default_value = "127.0.0.1:5560")]
    pub http: SocketAddr,

    /// Trust requests of these addresses, as those of this machine: without TLS and without a key. For a container
    /// whose port is published on the host's loopback: gateway is its default gateway, from which those
    /// connections come. Whoever connects from there may submit, read and cancel; all others are refused
    #[arg(
        long,
        env = "TRADEWIND_HTTP_TRUST",
        value_name = "ADDRESS|gateway",
        value_delimiter = ',',
        value_parser = str::parse::<Trusted>
    )]
    pub http_trust: Vec<Trusted>,

    /// Serve nothing, but ask the program that listens at --http, without TLS, whether it is well: exit code 0 or 1.
    /// For the health checks of container engines
    #[arg(long, hide = true)]
    pub check: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub keys: KeyArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub lanes: LaneArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub gate: GateArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub logs: LogArgs,
}

impl ServeArgs {
    /// Runs the program: everything between the flags and the exit code.
    ///
    /// # Errors
    /// When a port, a key, the configuration or the directory cannot be used.
    pub fn main(self) -> exit::Outcome {
        logs::init(&self.logs, "info")?;
        if self.check {
            return health(self.http).map(|()| OK).or_exit(UNWELL);
        }
        let config = self.config.as_deref().map(Config::read).transpose().or_exit(USAGE)?;
        let config = config.unwrap_or_default();
        let mut inherited = Inherited::from_env();
        let has_relays = config.queues.values().any(|queue| queue.relays.is_some());
        let receipts = match self.receipts {
            None if has_relays => Some(RECEIPTS.parse().or_exit(USAGE)?),
            receipts => receipts,
        };
        let ports = Ports {
            tasks: inherited.or_endpoint(0, self.tasks),
            results: inherited.or_endpoint(1, self.results),
            receipts: receipts.map(Listen::Endpoint),
        };
        let settings = Settings {
            dir: self.dir,
            config,
            http: self.http,
            http_trust: self.http_trust,
            keys: self.keys.wanted(),
            lanes: self.gate.options(self.lanes.options()),
        };
        allow_many_files();
        block_on(|shutdown| serve(settings, ports, shutdown))
    }
}

//! Flags of programs that show themselves.

use std::ffi::OsString;
use std::net::SocketAddr;

use clap::Args;
use tokio::sync::mpsc;
use tradewind_keys::Role as KeyRole;
use tradewind_node::exit::{Fatal, OrExit, SYSTEM};
use tradewind_node::keys::{MaybeKeys, Wanted};
use tradewind_seen::{About, Ask};

use crate::{HttpPort, Shown, Trusted, http_keys, show};

/// Number of questions that wait for a loop.
const ASKS_MAX: usize = 16;

/// Whether, where and to whom a program shows itself.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Watching")]
pub struct HttpArgs {
    /// Show a page with the state of the job here, and status.json, metrics and the rest, as in 127.0.0.1:5560. On
    /// loopback nobody needs a key; elsewhere it speaks TLS, and clients need a key of `tradewind keys token client`
    #[arg(long, env = "TRADEWIND_HTTP", value_name = "ADDRESS")]
    pub http: Option<SocketAddr>,

    /// Trust requests of these addresses, as those of this machine: without TLS and without a key; gateway is the
    /// default gateway, from which connections to a container's published port come. They see what tasks write to
    /// stderr
    #[arg(
        long,
        env = "TRADEWIND_HTTP_TRUST",
        value_name = "ADDRESS|gateway",
        value_delimiter = ',',
        value_parser = str::parse::<Trusted>,
        requires = "http"
    )]
    pub http_trust: Vec<Trusted>,
}

impl HttpArgs {
    /// Returns them as flags of another program.
    pub fn to_args(&self) -> impl Iterator<Item = OsString> {
        let http = self.http.iter().map(|at| format!("--http={at}").into());
        http.chain(self.http_trust.iter().map(|trusted| format!("--http-trust={trusted}").into()))
    }

    /// Shows a program whose loop answers what comes from the receiver; nothing unless it is asked for.
    ///
    /// # Errors
    /// When the port cannot be listened on, or nobody is named who may ask.
    pub fn show(
        &self,
        wanted: &Wanted,
        keys: &MaybeKeys,
        about: impl FnOnce() -> About,
    ) -> Result<Option<(Shown, mpsc::Receiver<Ask>)>, Fatal> {
        let Some(at) = self.http else { return Ok(None) };
        let keys = http_keys(wanted, at.ip(), keys, &self.http_trust)?;
        let port = HttpPort::open(at, keys, &[KeyRole::Client])?;
        tracing::info!(http = %port.at()?, "it is shown");
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let shown = show(port, about(), asks).or_exit(SYSTEM)?;
        Ok(Some((shown, asked)))
    }
}

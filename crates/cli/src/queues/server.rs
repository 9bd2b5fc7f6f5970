//! The server that is asked, and how its answers are printed.

use std::io::{self, BufWriter, ErrorKind, Stdout, Write};
use std::path::PathBuf;

use clap::Args;
use tradewind_client::{Client, DEFAULT_URL, Error, Options, Unreachable};
use tradewind_keys::KEYS_ENV;
use tradewind_node::args::LogArgs;
use tradewind_node::exit::{
    CLOSED, CONNECT, Fatal, OUTPUT, OrExit, Outcome, REFUSED, SYSTEM, USAGE, WRONG_PEER,
};
use tradewind_node::logs;

/// Flags of every command that asks a server.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Server")]
pub(super) struct ServerArgs {
    /// URL of the server
    #[arg(long, env = "TRADEWIND_URL", value_name = "URL", default_value = DEFAULT_URL)]
    url: String,

    /// For https: folder of keys or file with a client's token. By default looked for in
    /// $CREDENTIALS_DIRECTORY, /run/secrets and ~/.config/tradewind
    #[arg(long, env = KEYS_ENV, value_name = "PATH")]
    keys: Option<PathBuf>,

    /// Print JSON, an object a line
    #[arg(long)]
    pub(super) json: bool,

    /// Log level: error, warn, info, debug, or a tracing filter
    #[arg(long, env = "TRADEWIND_LOG", value_name = "LEVEL")]
    log: Option<String>,
}

impl ServerArgs {
    /// Runs a command.
    pub(super) fn run<F>(&self, command: impl FnOnce(Client) -> F) -> Outcome
    where
        F: Future<Output = Outcome>,
    {
        let log = LogArgs { log: self.log.clone(), quiet: false, no_progress: true };
        logs::init(&log, "warn")?;
        if tradewind_stdio::is_stdout_closed() {
            return Err(Fatal::new(OUTPUT, "standard output is closed"));
        }
        let mut options = Options::from_env();
        options.keys = self.keys.clone().or(options.keys);
        let client = Client::with(&self.url, options).map_err(fatal)?;
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().or_exit(SYSTEM)?.block_on(command(client))
    }
}

/// Returns the end of a program whose request was not answered.
pub(super) fn fatal(error: Error) -> Fatal {
    let code = code(&error);
    let is_absent = matches!(
        &error,
        Error::Unreachable { why: Unreachable::Io(_) | Unreachable::Timeout(_), .. }
    );
    if !is_absent {
        return Fatal { code, error: error.into() };
    }
    let hint = "is `tradewind serve` running there? --url (TRADEWIND_URL) says where it is";
    Fatal::new(code, format!("{error}: {hint}"))
}

fn code(error: &Error) -> u8 {
    match error {
        Error::Address(_) | Error::Name(_) | Error::HeaderKey | Error::Bearer => USAGE,
        Error::Unreachable { why: Unreachable::Keys(_), .. } | Error::Answer { .. } => WRONG_PEER,
        Error::Unreachable { .. } | Error::Lost { .. } | Error::Timeout { .. } => CONNECT,
        Error::Uncertain(error) => code(error),
        Error::Problem(_) => REFUSED,
        _ => SYSTEM,
    }
}

/// Standard output.
pub(super) struct Out(BufWriter<Stdout>);

impl Out {
    pub(super) fn new() -> Self {
        Self(BufWriter::new(io::stdout()))
    }

    pub(super) fn line(&mut self, line: impl AsRef<[u8]>) -> Result<(), Fatal> {
        self.bytes(line)?;
        self.bytes("\n")
    }

    pub(super) fn bytes(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Fatal> {
        self.0.write_all(bytes.as_ref()).map_err(|error| cannot_write(&error))
    }

    pub(super) fn flush(&mut self) -> Result<(), Fatal> {
        self.0.flush().map_err(|error| cannot_write(&error))
    }
}

fn cannot_write(error: &io::Error) -> Fatal {
    match error.kind() {
        ErrorKind::BrokenPipe => Fatal::new(CLOSED, ""),
        _ => Fatal::new(OUTPUT, format!("cannot write to standard output: {error}")),
    }
}

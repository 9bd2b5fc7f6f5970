//! Keys of a process: where they come from, which ports they open, and what is said of them.

use std::env;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

pub use tradewind_keys::{KEYS_ENV, Role as KeyRole};
use tradewind_keys::{Keys, Peer, Places, Roles, UnixTime};
use tradewind_lanes::{Endpoint, Keyring};
use tradewind_proto::SessionId;
use tradewind_proto::message::{Card, Role};
use tradewind_system::random_id;
use tradewind_wire::VERSION;

use crate::Listen;
use crate::exit::{Fatal, OrExit, SYSTEM, USAGE};

/// Keys of a role; `None` for one whose connections are not encrypted.
pub type MaybeKeys = Option<Arc<Keyring>>;

/// Names the variable that stands for `--insecure`.
pub const INSECURE_ENV: &str = "TRADEWIND_INSECURE";

/// Settings of a user about keys.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Folder of keys, or file with a token; looked for in the usual places if `None`.
    pub keys: Option<PathBuf>,
    /// Whether connections are not to be encrypted, and anybody may take part.
    pub is_insecure: bool,
}

impl Wanted {
    /// Adds what the environment says, unless the program has said something.
    #[must_use]
    pub fn or_env(self) -> Self {
        if self.keys.is_some() || self.is_insecure {
            return self;
        }
        let text = |name: &str| env::var_os(name).filter(|text| !text.is_empty());
        let is_insecure = text(INSECURE_ENV).is_some_and(|text| {
            let text = text.to_string_lossy().to_lowercase();
            !matches!(&*text, "n" | "no" | "f" | "false" | "off" | "0")
        });
        Self { keys: text(KEYS_ENV).map(PathBuf::from), is_insecure }
    }

    /// Opens the keys for a role, if it has any TCP connections. An address that is `None` is not known yet.
    ///
    /// # Errors
    /// When there are keys that cannot be used, or when it is to listen on TCP and there are none.
    pub fn open<'a>(
        self,
        role: KeyRole,
        listens: impl IntoIterator<Item = &'a Listen>,
        dials: impl IntoIterator<Item = Option<&'a Endpoint>>,
    ) -> Result<MaybeKeys, Fatal> {
        let Self { keys, is_insecure } = self;
        let listens = listens.into_iter().find_map(Listen::on_tcp);
        let is_dialled = |it: Option<&Endpoint>| it.is_none_or(|endpoint| endpoint.tcp().is_some());
        let is_tcp = listens.is_some() || dials.into_iter().any(is_dialled);
        if !is_tcp {
            return Ok(None);
        }
        if is_insecure {
            return match keys {
                Some(_) => Err(Fatal::new(
                    USAGE,
                    format!(
                        "--keys ({KEYS_ENV}) and --insecure ({INSECURE_ENV}) exclude one another"
                    ),
                )),
                None => Ok(None),
            };
        }
        let source = Places::of_process(keys).find(role).or_exit(SYSTEM)?;
        match (source, listens) {
            (Some(source), _) => {
                tracing::debug!(keys = %source.path().display(), "keys found");
                let keys = Keys::open(source, role, UnixTime::now()).or_exit(SYSTEM)?;
                Ok(Some(Arc::new(Keyring::new(keys, format!("tradewind/{VERSION}")))))
            }
            (None, None) => Ok(None),
            (None, Some(at)) => Err(Fatal::new(USAGE, open_to_all(role, &at))),
        }
    }
}

/// Returns the hint for a role that would listen without keys.
fn open_to_all(role: KeyRole, at: &str) -> String {
    format!(
        "there are no keys, and {at} would be open to whoever reaches it: make keys with `tradewind keys new`, or \
         bring a token of `tradewind keys token {role}`; --insecure does without"
    )
}

/// Returns the session of a process: that of its key, if it has one.
#[must_use]
pub fn session(keys: &MaybeKeys) -> SessionId {
    SessionId(keys.as_ref().map_or_else(random_id, |keyring| keyring.keys().session()))
}

/// Returns the address of the ventilator: the one that was given, or that of the token, or the usual one.
///
/// # Errors
/// When that in the token is no endpoint.
pub fn ventilator_at(
    given: Option<Endpoint>,
    keys: &MaybeKeys,
    usual: &str,
) -> Result<Endpoint, Fatal> {
    let of_token = keys.as_ref().and_then(|it| it.keys().addresses().ventilator.as_deref());
    address(given, of_token, usual)
}

/// Returns the address of the sink, likewise.
///
/// # Errors
/// When that in the token is no endpoint.
pub fn sink_at(given: Option<Endpoint>, keys: &MaybeKeys, usual: &str) -> Result<Endpoint, Fatal> {
    let of_token = keys.as_ref().and_then(|it| it.keys().addresses().sinks.first());
    address(given, of_token.map(String::as_str), usual)
}

fn address(
    given: Option<Endpoint>,
    of_token: Option<&str>,
    usual: &str,
) -> Result<Endpoint, Fatal> {
    given.map_or_else(|| of_token.unwrap_or(usual).parse().or_exit(SYSTEM), Ok)
}

/// Interval at which keys are looked at. A ban or a new token counts after this time at the latest.
const INTERVAL: Duration = Duration::from_secs(2);

/// Keeps keys up to date for as long as they are in use, and logs what the user should know.
///
/// # Errors
/// When there is no thread to be had.
pub fn keep_fresh(keys: &MaybeKeys) -> Result<(), Fatal> {
    let Some(keyring) = keys else { return Ok(()) };
    // Files may lie on a disk that does not answer: not in a loop that has to be heard.
    let weak = Arc::downgrade(keyring);
    let thread = thread::Builder::new().name("keys".to_owned()).spawn(move || refresh(&weak));
    thread.or_exit(SYSTEM).map(drop)
}

fn refresh(keyring: &Weak<Keyring>) {
    while let Some(keyring) = keyring.upgrade() {
        for notice in keyring.refresh(UnixTime::now()) {
            if notice.is_warning() {
                tracing::warn!("{notice}");
            } else {
                tracing::info!("{notice}");
            }
        }
        drop(keyring);
        thread::sleep(INTERVAL);
    }
}

/// Returns the roles of keys that may show a card of this role: a relay is a sink or a ventilator, depending
/// on the side from which it is seen.
pub(crate) const fn holders(role: Role) -> Roles {
    match role {
        Role::Ventilator => Roles::of(&[KeyRole::Ventilator, KeyRole::Relay]),
        Role::Worker => Roles::of(&[KeyRole::Worker]),
        Role::Sink => Roles::of(&[KeyRole::Sink, KeyRole::Relay]),
    }
}

/// Compares a peer's card with its key.
///
/// # Errors
/// When the card claims to be somebody else, with what to tell it.
pub(crate) fn compare(card: &Card, key: &Peer) -> Result<(), String> {
    if !holders(card.role).contains(key.role) {
        return Err(format!("its card is not that of a {}, which its key is", key.role));
    }
    if card.session.0 != key.session {
        return Err("its card shows a session that is not the one of its key".to_owned());
    }
    Ok(())
}

//! How a server is asked.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tradewind_keys::KEYS_ENV;

/// Names the variable with the token for servers that want one (`Authorization: Bearer`).
pub const TOKEN_ENV: &str = "TRADEWIND_HTTP_TOKEN";

/// How a server is asked.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Folder of keys or file with a token of `tradewind keys`, for `https`; looked for in the usual places if
    /// `None`.
    pub keys: Option<PathBuf>,
    /// Token for servers that want one (`Authorization: Bearer`).
    pub bearer: Option<String>,
    /// Time that a connection may take, with its keys.
    pub connect_timeout: Duration,
    /// Time without a byte of an answer after which it is given up, beside the time that was to be waited.
    pub answer_timeout: Duration,
    /// Time for which a request is sent again that a server that was there before does not answer, or has no
    /// room for. Zero for never.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keys: None,
            bearer: None,
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(60),
            patience: Duration::from_secs(30),
        }
    }
}

impl Options {
    /// Returns the defaults, with the keys and the token that the environment names (`TRADEWIND_KEYS`,
    /// [`TOKEN_ENV`]).
    #[must_use]
    pub fn from_env() -> Self {
        let text = |name: &str| env::var_os(name).filter(|text| !text.is_empty());
        let bearer = text(TOKEN_ENV).and_then(|text| text.into_string().ok());
        Self { keys: text(KEYS_ENV).map(PathBuf::from), bearer, ..Self::default() }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keys, bearer, connect_timeout, answer_timeout, patience } = self;
        f.debug_struct("Options")
            .field("keys", keys)
            .field("bearer", &bearer.is_some())
            .field("connect_timeout", connect_timeout)
            .field("answer_timeout", answer_timeout)
            .field("patience", patience)
            .finish()
    }
}

//! Where keys are found.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::certificate::Signer;
use crate::error::KeysError;
use crate::folder::{Folder, Root};
use crate::list;
use crate::moment::UnixTime;
use crate::private;
use crate::role::Role;
use crate::token::{Addresses, Token};
use crate::trust::Trust;

/// Names the variable that says where the keys are: `--keys` in the environment.
pub const KEYS_ENV: &str = "TRADEWIND_KEYS";

/// Keys on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Folder that `tradewind keys new` made.
    Folder(PathBuf),
    /// File with a token. A list of banned keys may lie beside it.
    Token(PathBuf),
}

/// Content of a source, for one role.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) signer: Signer,
    /// Time until which others accept what it signs.
    pub(crate) until: UnixTime,
    pub(crate) trust: Trust,
    pub(crate) addresses: Addresses,
}

/// State of the files of a source. A different one means that a file was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(Vec<(PathBuf, u64, Option<SystemTime>)>);

impl Source {
    /// Returns the source at a path: a folder or a file.
    ///
    /// # Errors
    /// When there is neither.
    pub fn at(path: &Path) -> Result<Self, KeysError> {
        let metadata = fs::metadata(path).map_err(KeysError::io(path))?;
        if metadata.is_dir() {
            Ok(Self::Folder(path.to_owned()))
        } else if metadata.is_file() {
            Ok(Self::Token(path.to_owned()))
        } else {
            Err(KeysError::Neither { path: path.to_owned() })
        }
    }

    /// Returns its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        let (Self::Folder(path) | Self::Token(path)) = self;
        path
    }

    /// Returns the path of the list of banned keys.
    #[must_use]
    pub fn banned_path(&self) -> PathBuf {
        match self {
            Self::Folder(path) => path.join(list::BANNED),
            Self::Token(path) => path.with_file_name(list::BANNED),
        }
    }

    /// Bans a key; returns whether it was not banned before.
    ///
    /// # Errors
    /// When the list cannot be read or written.
    pub fn ban(&self, fingerprint: crate::Fingerprint) -> Result<bool, KeysError> {
        list::ban(&self.banned_path(), fingerprint)
    }

    pub(crate) fn read(&self, role: Role, now: UnixTime) -> Result<Content, KeysError> {
        let content = match self {
            Self::Folder(path) => {
                let (Root { signer, anchor, .. }, trust) =
                    Folder::open(path)?.into_parts(role, now)?;
                Content { signer, until: anchor.until, trust, addresses: Addresses::default() }
            }
            Self::Token(path) => {
                let token = read_token(path)?;
                if token.role != role {
                    let (path, wanted) = (path.clone(), role);
                    return Err(KeysError::WrongRole { path, role: token.role, wanted });
                }
                let banned = list::banned(&self.banned_path())?;
                let Token { addresses, signer, anchors, .. } = token;
                let until = signer.facts.not_after;
                Content { signer, until, trust: Trust { anchors, banned }, addresses }
            }
        };
        let (path, facts) = (self.path().to_owned(), &content.signer.facts);
        if facts.not_after < now {
            return Err(KeysError::Expired { path, role, at: facts.not_after });
        }
        if facts.not_before > now {
            return Err(KeysError::NotYetValid { path, role, from: facts.not_before });
        }
        Ok(content)
    }

    pub(crate) fn stamp(&self) -> Stamp {
        let mut files = Vec::new();
        match self {
            Self::Folder(path) => {
                let entries = fs::read_dir(path).into_iter().flatten().flatten();
                files.extend(entries.map(|entry| entry.path()));
                files.sort_unstable();
            }
            Self::Token(path) => files.extend([path.clone(), self.banned_path()]),
        }
        let state = |path: PathBuf| {
            let metadata = fs::metadata(&path).ok();
            let length = metadata.as_ref().map_or(0, fs::Metadata::len);
            let changed = metadata.and_then(|metadata| metadata.modified().ok());
            (path, length, changed)
        };
        Stamp(files.into_iter().map(state).collect())
    }
}

/// Reads a token's file.
///
/// # Errors
/// When it cannot be read, others may read it, or it holds no token.
pub fn read_token(path: &Path) -> Result<Token, KeysError> {
    let text = private::read(path)?;
    Token::decode(&text).map_err(|why| KeysError::Token { path: path.to_owned(), why })
}

/// Places where keys are looked for, in this order: the path that was given, the service manager's
/// credentials, the container's secrets, the user's configuration.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Path given by a flag or the environment. Nothing else is looked at then.
    pub given: Option<PathBuf>,
    /// `$CREDENTIALS_DIRECTORY`, as systemd sets it.
    pub credentials: Option<PathBuf>,
    /// `/run/secrets`, where container engines mount secrets.
    pub secrets: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME/tradewind` or `~/.config/tradewind`.
    pub config: Option<PathBuf>,
}

impl Places {
    /// Returns the places of this process; `given` stands for a flag or [`KEYS_ENV`].
    #[must_use]
    pub fn of_process(given: Option<PathBuf>) -> Self {
        Self {
            given,
            credentials: directory("CREDENTIALS_DIRECTORY"),
            secrets: Some("/run/secrets".into()),
            config: config(),
        }
    }

    /// Returns the keys for a role; `None` if there are none in any place. A token of another role is
    /// passed over, unless it was given.
    ///
    /// # Errors
    /// When there are some that cannot be used.
    pub fn find(&self, role: Role) -> Result<Option<Source>, KeysError> {
        if let Some(given) = &self.given {
            return Source::at(given).map(Some);
        }
        for path in self.tokens(role) {
            match read_token(&path) {
                Ok(token) if token.role == role => return Ok(Some(Source::Token(path))),
                Ok(_) => {}
                Err(KeysError::Io { why, .. }) if is_absent(&why) => {}
                Err(error) => return Err(error),
            }
        }
        let folder = self.config.as_ref().map(|config| config.join("keys"));
        Ok(folder.filter(|path| path.is_dir()).map(Source::Folder))
    }

    /// Returns the tokens' paths, whether they are there or not.
    fn tokens(&self, role: Role) -> impl Iterator<Item = PathBuf> {
        let named = [format!("tradewind-{role}.token"), "tradewind.token".to_owned()];
        let mounted = self.credentials.iter().chain(&self.secrets);
        let mounted: Vec<_> =
            mounted.flat_map(|place| named.iter().map(|name| place.join(name))).collect();
        let own = [format!("{role}.token"), "token".to_owned()];
        let own = self
            .config
            .clone()
            .into_iter()
            .flat_map(move |config| own.clone().map(|name| config.join(name)));
        mounted.into_iter().chain(own)
    }
}

/// Returns the user's folder of keys: where `tradewind keys new` makes it.
#[must_use]
pub fn default_folder() -> Option<PathBuf> {
    Some(config()?.join("keys"))
}

fn config() -> Option<PathBuf> {
    let config = directory("XDG_CONFIG_HOME")
        .or_else(|| directory("HOME").map(|home| home.join(".config")))?;
    Some(config.join("tradewind"))
}

fn directory(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::moment::DAY;

    const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));

    #[test]
    fn keys_are_found_in_order_and_by_role() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            Some(path)
        };
        let places = Places {
            given: None,
            credentials: place("credentials"),
            secrets: place("secrets"),
            config: place("config"),
        };
        assert_eq!(places.find(Role::Worker).unwrap(), None);
        let folder = Folder::create(&dir.path().join("config/keys"), NOW).unwrap();
        let found = |role| places.find(role).unwrap().unwrap().path().to_owned();
        let in_dir = |name: &str| dir.path().join(name);
        assert_eq!(found(Role::Worker), in_dir("config/keys"));

        let put = |role, name: &str| {
            let token = folder.token(role, DAY, Addresses::default(), NOW).unwrap();
            private::create(&in_dir(name), token.encode().unwrap().as_bytes()).unwrap();
        };
        for name in [
            "config/token",
            "config/worker.token",
            "secrets/tradewind.token",
            "secrets/tradewind-worker.token",
            "credentials/tradewind.token",
            "credentials/tradewind-worker.token",
        ] {
            put(Role::Worker, name);
            assert_eq!(found(Role::Worker), in_dir(name));
        }
        // Tokens of another role are not for a sink.
        assert_eq!(found(Role::Sink), in_dir("config/keys"));
        let given = Places { given: Some(in_dir("config/token")), ..places.clone() };
        assert_eq!(given.find(Role::Sink).unwrap().unwrap().path(), in_dir("config/token"));
        let missing = Places { given: Some(in_dir("nowhere")), ..places };
        assert!(missing.find(Role::Sink).is_err());
    }

    #[test]
    fn a_token_that_cannot_be_used_is_no_reason_to_look_further() {
        let dir = tempfile::tempdir().unwrap();
        let config = Some(dir.path().to_owned());
        let places = Places { config, ..Places::default() };
        Folder::create(&dir.path().join("keys"), NOW).unwrap();
        private::create(&dir.path().join("token"), b"twt1-AAAA").unwrap();
        assert!(matches!(places.find(Role::Worker), Err(KeysError::Token { .. })));
    }

    #[test]
    fn a_tokens_role_and_time_are_checked_where_it_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(&dir.path().join("keys"), NOW).unwrap();
        let path = dir.path().join("token");
        let token = folder.token(Role::Worker, DAY, Addresses::default(), NOW).unwrap();
        private::create(&path, token.encode().unwrap().as_bytes()).unwrap();
        let source = Source::at(&path).unwrap();
        assert!(source.read(Role::Worker, NOW).is_ok());
        let read = |role, now| source.read(role, now).unwrap_err();
        assert!(matches!(read(Role::Sink, NOW), KeysError::WrongRole { .. }));
        let (late, early) = (crate::moment::after(NOW, DAY * 2), crate::moment::before(NOW, DAY));
        assert!(matches!(read(Role::Worker, late), KeysError::Expired { .. }));
        assert!(matches!(read(Role::Worker, early), KeysError::NotYetValid { .. }));
    }

    #[test]
    fn a_stamp_tells_of_every_change() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(&dir.path().join("keys"), NOW).unwrap();
        let source = Source::at(folder.path()).unwrap();
        let before = source.stamp();
        assert_eq!(source.stamp(), before);
        source.ban(crate::Fingerprint::of_key(b"x")).unwrap();
        let banned = source.stamp();
        assert_ne!(banned, before);
        folder.rotate(Role::Worker, DAY, NOW).unwrap();
        assert_ne!(source.stamp(), banned);
    }
}

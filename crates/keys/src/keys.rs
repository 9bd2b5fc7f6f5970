//! The keys of a running process.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::sign::{CertifiedKey, SigningKey};

use crate::certificate::{Facts, Secret, Signer};
use crate::error::KeysError;
use crate::moment::{self, DAY, UnixTime, text};
use crate::role::Role;
use crate::source::{Content, Source, Stamp};
use crate::token::Addresses;
use crate::trust::{Peer, Trust, WARNING, is_near};

/// The keys of a process: whom it trusts, and the certificate that it shows, which it makes itself.
///
/// Its own key is made at the start and stays until the end: it is the process's session.
pub struct Keys {
    role: Role,
    source: Source,
    secret: Secret,
    signing_key: Arc<dyn SigningKey>,
    addresses: Addresses,
    state: Mutex<State>,
}

struct State {
    stamp: Stamp,
    signer: Signer,
    trust: Arc<Trust>,
    certified: Arc<CertifiedKey>,
    renewal: UnixTime,
    warned: Option<UnixTime>,
    /// The latest failure to read the files, so that it is told once.
    failure: Option<String>,
}

/// Something that the user should know about keys in use.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum Notice {
    Changed { path: PathBuf },
    Unusable { why: String },
    Expires { path: PathBuf, role: Role, at: UnixTime },
    Expired { path: PathBuf, role: Role, at: UnixTime },
    RootExpires { role: Role, at: UnixTime },
}

impl Notice {
    /// Returns whether it is about something that goes wrong, or will.
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        !matches!(self, Self::Changed { .. })
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { path } => write!(f, "keys read again: {} was changed", path.display()),
            Self::Unusable { why } => {
                write!(f, "changed keys cannot be used, those read before stay in use: {why}")
            }
            Self::Expires { path, role, at } => write!(
                f,
                "the {role} key in {} expires at {}: make a new one in time (`tradewind keys rotate` and \
                 `tradewind keys token`)",
                path.display(),
                text(*at)
            ),
            Self::Expired { path, role, at } => write!(
                f,
                "the {role} key in {} expired at {}: no new connection can be made",
                path.display(),
                text(*at)
            ),
            Self::RootExpires { role, at } => write!(
                f,
                "{role}s are accepted until {} only: their root expires (`tradewind keys rotate {role}`)",
                text(*at)
            ),
        }
    }
}

impl Keys {
    /// Reads the keys for a role and makes the process's own. From then on the process leaves no core
    /// dump, and other processes of the user cannot read its memory.
    ///
    /// # Errors
    /// When they cannot be read, or are not for the role or the time.
    pub fn open(source: Source, role: Role, now: UnixTime) -> Result<Self, KeysError> {
        // Refused in a sandbox, perhaps; then it is as without keys.
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        // Taken first: a change while they are read is found later.
        let stamp = source.stamp();
        let Content { signer, until, trust, addresses } = source.read(role, now)?;
        let secret = Secret::generate();
        let signing_key = any_ecdsa_type(&secret.for_tls()).expect("the key was just made");
        let (certified, renewal) = certify(role, &signer, &secret, &signing_key, now);
        let renewal = renewal.min(until);
        let state = State {
            stamp,
            signer,
            trust: Arc::new(trust),
            certified,
            renewal,
            warned: None,
            failure: None,
        };
        let state = Mutex::new(state);
        Ok(Self { role, source, secret, signing_key, addresses, state })
    }

    /// Returns the role that the process has.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Returns where the keys are from.
    #[must_use]
    pub const fn source(&self) -> &Source {
        &self.source
    }

    /// Returns the session of this process: the start of the hash of its key.
    #[must_use]
    pub fn session(&self) -> u64 {
        self.secret.fingerprint().session()
    }

    /// Returns the addresses in the token, as they were when it was read first.
    #[must_use]
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Returns whether a key of the peer was banned, its own or one that vouches for it.
    #[must_use]
    pub fn is_banned(&self, peer: &Peer) -> bool {
        self.state().trust.ban(peer).is_some()
    }

    /// Reads the files again if they were changed, renews the certificate in time, and returns what
    /// the user should know. To be called every few seconds.
    pub fn refresh(&self, now: UnixTime) -> Vec<Notice> {
        let mut notices = Vec::new();
        let stamp = self.source.stamp();
        let mut state = self.state();
        let is_changed = stamp != state.stamp;
        if is_changed || now >= state.renewal {
            match self.source.read(self.role, now) {
                Ok(Content { signer, until, trust, .. }) => {
                    let (certified, renewal) =
                        certify(self.role, &signer, &self.secret, &self.signing_key, now);
                    (state.certified, state.renewal) = (certified, renewal.min(until));
                    (state.signer, state.trust, state.stamp) = (signer, Arc::new(trust), stamp);
                    state.failure = None;
                    if is_changed {
                        notices.push(Notice::Changed { path: self.source.path().to_owned() });
                    }
                }
                // What has expired is warned of below.
                Err(KeysError::Expired { .. }) if !is_changed => {}
                Err(error) => {
                    // Perhaps half way through a change: asked again, told once.
                    let why = error.to_string();
                    if state.failure.as_ref() != Some(&why) {
                        notices.push(Notice::Unusable { why: why.clone() });
                        state.failure = Some(why);
                    }
                }
            }
        }
        if state.warned.is_none_or(|last| now >= moment::after(last, DAY)) {
            let warnings = self.warnings(&state, now);
            if !warnings.is_empty() {
                state.warned = Some(now);
                notices.extend(warnings);
            }
        }
        notices
    }

    fn warnings(&self, state: &State, now: UnixTime) -> Vec<Notice> {
        let mut warnings = Vec::new();
        let (path, role) = (self.source.path().to_owned(), self.role);
        let Facts { not_before, not_after, .. } = state.signer.facts;
        let anchors = state.trust.anchors.iter().filter(|anchor| anchor.role == role);
        let newest = anchors.map(|anchor| anchor.until).max();
        // A root that is followed by another in this folder takes care of itself.
        let is_followed = state.signer.is_root() && newest.is_some_and(|newest| newest > not_after);
        if now > not_after {
            warnings.push(Notice::Expired { path, role, at: not_after });
        } else if !is_followed && is_near(not_before, not_after, now) {
            warnings.push(Notice::Expires { path, role, at: not_after });
        }
        for other in Role::ALL.into_iter().filter(|other| *other != role) {
            let anchors = state.trust.anchors.iter().filter(|anchor| anchor.role == other);
            if let Some(at) = anchors.map(|anchor| anchor.until).max()
                && moment::after(now, WARNING) >= at
            {
                warnings.push(Notice::RootExpires { role: other, at });
            }
        }
        warnings
    }

    pub(crate) fn trust(&self) -> Arc<Trust> {
        self.state().trust.clone()
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        self.state().certified.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the certificate of the process; returns it with the time of its renewal.
fn certify(
    role: Role,
    signer: &Signer,
    secret: &Secret,
    signing_key: &Arc<dyn SigningKey>,
    now: UnixTime,
) -> (Arc<CertifiedKey>, UnixTime) {
    let own = signer.identity(role, secret, now);
    let end = Facts::read(&own).expect("what was just made is right").not_after;
    let mut chain = vec![own];
    // A root is there already.
    if !signer.is_root() {
        chain.push(signer.certificate.clone());
    }
    let renewal = moment::after(now, moment::between(now, end) / 2);
    (Arc::new(CertifiedKey::new(chain, signing_key.clone())), renewal)
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("role", &self.role)
            .field("source", &self.source)
            .field("session", &format_args!("{:016x}", self.session()))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::folder::Folder;
    use crate::private;

    const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
    const HOUR: Duration = Duration::from_secs(3600);

    fn later(pause: Duration) -> UnixTime {
        moment::after(NOW, pause)
    }

    fn end_of(keys: &Keys) -> UnixTime {
        Facts::read(&keys.certified().cert[0]).unwrap().not_after
    }

    #[test]
    fn a_process_with_keys_leaves_no_core_dump() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(&dir.path().join("keys"), NOW).unwrap();
        let _keys = Keys::open(Source::at(folder.path()).unwrap(), Role::Sink, NOW).unwrap();
        let behavior = rustix::process::dumpable_behavior().unwrap();
        assert_eq!(behavior, DumpableBehavior::NotDumpable);
    }

    #[test]
    fn a_certificate_is_renewed_at_half_of_its_life_with_the_same_session() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(&dir.path().join("keys"), NOW).unwrap();
        let keys = Keys::open(Source::at(folder.path()).unwrap(), Role::Sink, NOW).unwrap();
        let (session, end) = (keys.session(), end_of(&keys));
        assert_eq!(end, later(DAY));
        assert_eq!(keys.refresh(later(HOUR * 12 - Duration::from_secs(1))), []);
        assert_eq!(end_of(&keys), end);
        assert_eq!(keys.refresh(later(HOUR * 12)), []);
        assert_eq!((end_of(&keys), keys.session()), (later(HOUR * 36), session));
        let other = Keys::open(Source::at(folder.path()).unwrap(), Role::Sink, NOW).unwrap();
        assert_ne!(other.session(), session);
    }

    #[test]
    fn warnings_begin_thirty_days_before_and_come_daily() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(&dir.path().join("keys"), NOW).unwrap();
        let path = dir.path().join("token");
        let token = folder.token(Role::Sink, DAY * 100, Addresses::default(), NOW).unwrap();
        private::create(&path, token.encode().unwrap().as_bytes()).unwrap();
        let keys = Keys::open(Source::at(&path).unwrap(), Role::Sink, NOW).unwrap();
        let at = later(DAY * 100);
        let warning = [Notice::Expires { path: path.clone(), role: Role::Sink, at }];
        assert_eq!(keys.refresh(later(DAY * 70 - HOUR)), []);
        assert_eq!(keys.refresh(later(DAY * 70)), warning);
        assert_eq!(keys.refresh(later(DAY * 71 - HOUR)), []);
        assert_eq!(keys.refresh(later(DAY * 71)), warning);
        let expired = [Notice::Expired { path, role: Role::Sink, at }];
        assert_eq!(keys.refresh(later(DAY * 101)), expired);
        // It can show nothing newer.
        assert!(end_of(&keys) < at);
    }

    #[test]
    fn a_short_token_warns_in_the_second_half_of_its_life() {
        assert!(!is_near(NOW, later(DAY * 10), later(DAY * 4)));
        assert!(is_near(NOW, later(DAY * 10), later(DAY * 5)));
    }

    #[test]
    fn changed_files_are_read_again_and_bad_ones_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(&dir.path().join("keys"), NOW).unwrap();
        let path = dir.path().join("token");
        let put = |text: &str| private::replace(&path, text.as_bytes()).unwrap();
        let token = |days| {
            let token = folder.token(Role::Sink, DAY * days, Addresses::default(), NOW).unwrap();
            token.encode().unwrap()
        };
        put(&token(200));
        let keys = Keys::open(Source::at(&path).unwrap(), Role::Sink, NOW).unwrap();
        put("twt1-AAAA");
        let notices = keys.refresh(NOW);
        assert!(matches!(&notices[..], [Notice::Unusable { .. }]), "{notices:?}");
        assert_eq!(keys.refresh(NOW), []);
        put(&token(300));
        assert_eq!(keys.refresh(NOW), [Notice::Changed { path: path.clone() }]);
        assert_eq!(keys.refresh(NOW), []);
        assert_eq!(keys.state().signer.facts.not_after, later(DAY * 300));
    }

    #[test]
    fn while_roots_overlap_the_old_one_signs_and_then_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(&dir.path().join("keys"), NOW).unwrap();
        let old = folder.signing_root(Role::Sink, NOW).unwrap().anchor.fingerprint();
        let keys = Keys::open(Source::at(folder.path()).unwrap(), Role::Sink, NOW).unwrap();
        let folder = folder.rotate(Role::Sink, HOUR * 6, NOW).unwrap();
        let new = folder.signing_root(Role::Sink, NOW).unwrap().anchor.fingerprint();
        assert_eq!(keys.refresh(NOW).len(), 1);
        let signer = || keys.state().signer.facts.fingerprint;
        assert_eq!(signer(), old);
        assert_eq!(keys.refresh(later(HOUR * 5)), []);
        assert_eq!(signer(), old);
        assert_eq!(keys.refresh(later(HOUR * 6 + Duration::from_secs(1))), []);
        assert_eq!(signer(), new);
        assert_ne!(old, new);
    }

    #[test]
    fn roots_of_others_that_expire_are_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(&dir.path().join("keys"), NOW).unwrap();
        let now = later(DAY * 340);
        let folder = folder.rotate(Role::Sink, DAY, now).unwrap();
        let folder = folder.rotate(Role::Relay, DAY, now).unwrap();
        let keys = Keys::open(Source::at(folder.path()).unwrap(), Role::Sink, now).unwrap();
        let roles: Vec<_> = keys
            .refresh(now)
            .into_iter()
            .map(|notice| match notice {
                Notice::RootExpires { role, .. } => role,
                other => panic!("{other}"),
            })
            .collect();
        assert_eq!(roles, [Role::Ventilator, Role::Worker, Role::Client]);
    }
}

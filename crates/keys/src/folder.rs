//! The folder that `tradewind keys new` makes: the roots of all roles.
//!
//! | file | content |
//! | --- | --- |
//! | `worker-1.pem` | root of a role: private key and certificate. A rotation adds `worker-2.pem` |
//! | `retired` | `FINGERPRINT TIME`: a root that is not accepted after that |
//! | `banned` | `FINGERPRINT`: a root or token that is not accepted |
//! | `issued` | `FINGERPRINT ROLE EXPIRY`: the tokens that were made |

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::certificate::{Secret, Signer};
use crate::error::KeysError;
use crate::fingerprint::Fingerprint;
use crate::list;
use crate::moment::{self, UnixTime};
use crate::private;
use crate::role::Role;
use crate::token::{Addresses, Token};
use crate::trust::{Anchor, Trust};

const RETIRED: &str = "retired";
const ISSUED: &str = "issued";

/// A folder of keys.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    roots: Vec<Root>,
    banned: Vec<Fingerprint>,
    issued: Vec<Issued>,
}

/// A root of a role, with its private key.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) anchor: Anchor,
    pub(crate) signer: Signer,
    number: u32,
}

/// A token that was made with the folder's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Fingerprint of its key.
    pub fingerprint: Fingerprint,
    /// Its role.
    pub role: Role,
    /// Time at which it expires.
    pub expires: UnixTime,
}

impl Folder {
    /// Makes a folder with a root for each role. What is there already is not touched.
    ///
    /// # Errors
    /// When there is something already, or it cannot be written.
    pub fn create(path: &Path, now: UnixTime) -> Result<Self, KeysError> {
        let exists = || KeysError::Exists { path: path.to_owned() };
        if path.symlink_metadata().is_ok() && !is_empty_directory(path) {
            return Err(exists());
        }
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let mut directories = DirBuilder::new();
        directories.recursive(true).mode(private::DIRECTORY_MODE);
        directories.create(parent).map_err(KeysError::io(parent))?;
        // Made beside it, so that it is there as a whole or not at all.
        let made = tempfile::Builder::new()
            .prefix(".tradewind-keys-")
            .permissions(Permissions::from_mode(private::DIRECTORY_MODE))
            .tempdir_in(parent)
            .map_err(KeysError::io(parent))?;
        for role in Role::ALL {
            write_root(made.path(), role, 1, &Signer::root(role, now))?;
        }
        match fs::rename(made.path(), path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return Err(exists()),
            Err(why) => return Err(KeysError::Io { path: path.to_owned(), why }),
        }
        Self::open(path)
    }

    /// Reads a folder.
    ///
    /// # Errors
    /// When it is none, it or a file in it may be read by others, or it is damaged.
    pub fn open(path: &Path) -> Result<Self, KeysError> {
        let metadata = fs::metadata(path).map_err(KeysError::io(path))?;
        let no_folder = || KeysError::NoFolder { path: path.to_owned() };
        if !metadata.is_dir() {
            return Err(no_folder());
        }
        private::check(path, &metadata)?;
        let mut roots = Vec::new();
        for entry in fs::read_dir(path).map_err(KeysError::io(path))? {
            let name = entry.map_err(KeysError::io(path))?.file_name();
            if let Some((role, number)) = name.to_str().and_then(root_of_name) {
                roots.push(read_root(&path.join(&name), role, number)?);
            }
        }
        if roots.is_empty() {
            return Err(no_folder());
        }
        roots.sort_by_key(|root: &Root| (root.anchor.role, root.number));
        for (fingerprint, until) in list::read(&path.join(RETIRED), |fields| {
            let [fingerprint, until] = fields else { return None };
            Some((fingerprint.parse().ok()?, moment::parse(until)?))
        })? {
            let fingerprint: Fingerprint = fingerprint;
            for root in &mut roots {
                if root.anchor.fingerprint() == fingerprint {
                    root.anchor.until = root.anchor.until.min(until);
                }
            }
        }
        let banned = list::banned(&path.join(list::BANNED))?;
        let issued = list::read(&path.join(ISSUED), |fields| {
            let [fingerprint, role, expires] = fields else { return None };
            Some(Issued {
                fingerprint: fingerprint.parse().ok()?,
                role: role.parse().ok()?,
                expires: moment::parse(expires)?,
            })
        })?;
        Ok(Self { path: path.to_owned(), roots, banned, issued })
    }

    /// Returns where the folder is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the roots of all roles, the oldest of each first.
    pub fn anchors(&self) -> impl Iterator<Item = &Anchor> {
        self.roots.iter().map(|root| &root.anchor)
    }

    /// Returns the banned keys.
    #[must_use]
    pub fn banned(&self) -> &[Fingerprint] {
        &self.banned
    }

    /// Returns the tokens that were made, the oldest first.
    #[must_use]
    pub fn issued(&self) -> &[Issued] {
        &self.issued
    }

    /// Makes a token, valid for the given time or as long as its root.
    ///
    /// # Errors
    /// When the role has no root that is accepted, or the folder cannot be written.
    pub fn token(
        &self,
        role: Role,
        life: Duration,
        addresses: Addresses,
        now: UnixTime,
    ) -> Result<Token, KeysError> {
        let root = self.signing_root(role, now)?;
        let signer = root.signer.token(role, now, moment::after(now, life));
        let anchors = self.accepted(now).cloned().collect();
        let token = Token { role, addresses, signer, anchors };
        let (fingerprint, expires) = (token.fingerprint(), moment::text(token.expires()));
        list::add(&self.path.join(ISSUED), &format!("{fingerprint} {role} {expires}"))?;
        Ok(token)
    }

    /// Adds a root to a role. Those that it has are accepted for the time of the overlap only.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn rotate(self, role: Role, overlap: Duration, now: UnixTime) -> Result<Self, KeysError> {
        let of_role = || self.roots.iter().filter(|root| root.anchor.role == role);
        let number = of_role().map(|root| root.number).max().unwrap_or(0) + 1;
        write_root(&self.path, role, number, &Signer::root(role, now))?;
        let until = moment::after(now, overlap);
        for root in of_role().filter(|root| root.anchor.until > until) {
            let line = format!("{} {}", root.anchor.fingerprint(), moment::text(until));
            list::add(&self.path.join(RETIRED), &line)?;
        }
        Self::open(&self.path)
    }

    /// Returns the newest accepted root of the role.
    pub(crate) fn signing_root(&self, role: Role, now: UnixTime) -> Result<&Root, KeysError> {
        self.accepted_of(role, now).next_back().ok_or_else(|| self.no_root(role))
    }

    /// Takes the root of the role that signs the processes of this host, and what to trust. It is the oldest
    /// accepted one: while two overlap, those who know only that one are not shut out.
    pub(crate) fn into_parts(
        mut self,
        role: Role,
        now: UnixTime,
    ) -> Result<(Root, Trust), KeysError> {
        let no_root = self.no_root(role);
        let number = self.accepted_of(role, now).next().ok_or(no_root)?.number;
        let is_it = |root: &Root| root.anchor.role == role && root.number == number;
        let anchors = self.anchors().cloned().collect();
        let at = self.roots.iter().position(is_it).expect("it was found just now");
        Ok((self.roots.swap_remove(at), Trust { anchors, banned: self.banned }))
    }

    fn no_root(&self, role: Role) -> KeysError {
        KeysError::NoRoot { path: self.path.clone(), role }
    }

    fn accepted_of(&self, role: Role, now: UnixTime) -> impl DoubleEndedIterator<Item = &Root> {
        let is_accepted = move |root: &&Root| {
            let Anchor { role: its, until, .. } = root.anchor;
            its == role && until >= now && !self.banned.contains(&root.anchor.fingerprint())
        };
        self.roots.iter().filter(is_accepted)
    }

    fn accepted(&self, now: UnixTime) -> impl Iterator<Item = &Anchor> {
        let is_accepted = move |anchor: &&Anchor| {
            anchor.until >= now && !self.banned.contains(&anchor.fingerprint())
        };
        self.anchors().filter(is_accepted)
    }
}

fn is_empty_directory(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

fn root_of_name(name: &str) -> Option<(Role, u32)> {
    let (role, number) = name.strip_suffix(".pem")?.split_once('-')?;
    Some((role.parse().ok()?, number.parse().ok()?))
}

fn write_root(folder: &Path, role: Role, number: u32, root: &Signer) -> Result<(), KeysError> {
    let path = folder.join(format!("{role}-{number}.pem"));
    let mut text = Zeroizing::new(String::with_capacity(PEM_BYTES_USUAL));
    add_pem(&mut text, "PRIVATE KEY", root.secret.pkcs8());
    add_pem(&mut text, "CERTIFICATE", &root.certificate);
    private::create(&path, text.as_bytes())
}

fn read_root(path: &Path, role: Role, number: u32) -> Result<Root, KeysError> {
    let bad = |why| KeysError::Certificate { path: path.to_owned(), why };
    let bad_pem = |error: rustls::pki_types::pem::Error| {
        bad(crate::certificate::BadCertificate::certificate(error))
    };
    let text = private::read(path)?;
    let certificate = CertificateDer::from_pem_slice(text.as_bytes()).map_err(bad_pem)?;
    let secret = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(bad_pem)?;
    let secret = Secret::read(secret.secret_pkcs8_der()).map_err(bad)?;
    let anchor = Anchor::of(role, &certificate).map_err(bad)?;
    let signer = Signer::read(certificate, secret).map_err(bad)?;
    Ok(Root { anchor, signer, number })
}

/// Room for a root's file, so that its bytes are not moved about in memory.
const PEM_BYTES_USUAL: usize = 4096;

/// Columns of a line in a PEM file (RFC 7468).
const PEM_COLUMNS: usize = 64;

fn add_pem(text: &mut String, label: &str, der: &[u8]) {
    let encoded = Zeroizing::new(STANDARD.encode(der));
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(PEM_COLUMNS.min(rest.len()));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));

    fn roots(folder: &Folder, role: Role) -> Vec<UnixTime> {
        folder.anchors().filter(|anchor| anchor.role == role).map(|anchor| anchor.until).collect()
    }

    #[test]
    fn a_new_folder_is_private_and_has_a_root_for_each_role() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config/keys");
        let folder = Folder::create(&path, NOW).unwrap();
        let roles: Vec<_> = folder.anchors().map(|anchor| anchor.role).collect();
        assert_eq!(roles, Role::ALL);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        for entry in fs::read_dir(&path).unwrap() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600);
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_is_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        fs::create_dir(&path).unwrap();
        let before: Vec<_> = Folder::create(&path, NOW).unwrap().anchors().cloned().collect();
        let again = Folder::create(&path, NOW).unwrap_err();
        assert!(matches!(again, KeysError::Exists { .. }), "{again}");
        let after: Vec<_> = Folder::open(&path).unwrap().anchors().cloned().collect();
        assert_eq!(before, after);
        let file = dir.path().join("file");
        fs::write(&file, "precious").unwrap();
        assert!(matches!(Folder::create(&file, NOW), Err(KeysError::Exists { .. })));
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }

    #[test]
    fn an_open_folder_or_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        Folder::create(&path, NOW).unwrap();
        let set =
            |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        set(&path, 0o755);
        assert!(matches!(Folder::open(&path), Err(KeysError::Open { is_directory: true, .. })));
        set(&path, 0o700);
        set(&path.join("sink-1.pem"), 0o640);
        assert!(matches!(Folder::open(&path), Err(KeysError::Open { mode: 0o640, .. })));
        let empty = dir.path().join("empty");
        DirBuilder::new().mode(0o700).create(&empty).unwrap();
        assert!(matches!(Folder::open(&empty), Err(KeysError::NoFolder { .. })));
    }

    #[test]
    fn a_rotation_adds_a_root_and_retires_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(&dir.path().join("keys"), NOW).unwrap();
        let year = roots(&folder, Role::Worker)[0];
        let week = moment::after(NOW, moment::DAY * 7);
        let folder = folder.rotate(Role::Worker, moment::DAY * 7, NOW).unwrap();
        assert_eq!(roots(&folder, Role::Worker), [week, year]);
        assert_eq!(roots(&folder, Role::Sink), [year]);
        let newest = folder.signing_root(Role::Worker, NOW).unwrap();
        assert_eq!(newest.number, 2);
        // A second one does not lengthen the overlap of the first.
        let later = moment::after(NOW, moment::DAY);
        let folder = folder.rotate(Role::Worker, moment::DAY * 30, later).unwrap();
        assert_eq!(roots(&folder, Role::Worker)[0], week);
        let token = |now| folder.token(Role::Sink, moment::DAY, Addresses::default(), now).unwrap();
        assert_eq!(token(NOW).anchors().len(), 7);
        assert_eq!(token(moment::after(week, moment::DAY)).anchors().len(), 6);
    }

    #[test]
    fn tokens_are_noted_and_a_banned_root_signs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let folder = Folder::create(&path, NOW).unwrap();
        let token = folder.token(Role::Worker, moment::DAY, Addresses::default(), NOW).unwrap();
        let folder = Folder::open(&path).unwrap();
        let (fingerprint, expires) = (token.fingerprint(), token.expires());
        assert_eq!(folder.issued(), [Issued { fingerprint, role: Role::Worker, expires }]);
        let root = folder.signing_root(Role::Worker, NOW).unwrap().anchor.fingerprint();
        list::ban(&path.join(list::BANNED), root).unwrap();
        let folder = Folder::open(&path).unwrap();
        assert_eq!(folder.banned(), [root]);
        let error = folder.token(Role::Worker, moment::DAY, Addresses::default(), NOW).unwrap_err();
        assert!(matches!(error, KeysError::NoRoot { .. }), "{error}");
    }
}

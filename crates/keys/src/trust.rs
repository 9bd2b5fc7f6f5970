//! Whom to trust: the decision about a peer's certificates, without files, sockets or a clock.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor};
use webpki::{EndEntityCert, KeyUsage};

use crate::certificate::{BadCertificate, Facts, server_name};
use crate::fault::Fault;
use crate::fingerprint::Fingerprint;
use crate::moment::{self, UnixTime};
use crate::role::{Role, Roles};

/// Signatures that are taken: what is made here has no others.
pub(crate) const ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] =
    &[webpki::ring::ECDSA_P256_SHA256];

/// Root of a role, by its public half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// Role of the programs that it vouches for.
    pub role: Role,
    /// Time after which it is not accepted: its expiry, or the end of its overlap with a newer one.
    pub until: UnixTime,
    pub(crate) trust: TrustAnchor<'static>,
}

impl Anchor {
    pub(crate) fn of(role: Role, root: &CertificateDer<'_>) -> Result<Self, BadCertificate> {
        let facts = Facts::read(root)?;
        let trust =
            webpki::anchor_from_trusted_cert(root).map_err(BadCertificate::certificate)?.to_owned();
        Ok(Self { role, until: facts.not_after, trust })
    }

    /// Returns the fingerprint of the root's key.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_key(&webpki::spki_for_anchor(&self.trust))
    }
}

/// Who a peer is, as its certificates say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Role whose root verified it.
    pub role: Role,
    /// Session, which is the start of the hash of its key.
    pub session: u64,
    /// Fingerprint by which it is banned: that of its token, or of its role's root if it holds that.
    pub fingerprint: Fingerprint,
    /// Time at which its token or its role's root expires.
    pub expires: UnixTime,
    /// All keys on the way from the root to the peer, its own included.
    path: Vec<Fingerprint>,
}

/// End of a connection at which a peer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Listener,
    Dialler,
}

/// The roots of all roles, and the banned keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    pub(crate) anchors: Vec<Anchor>,
    pub(crate) banned: Vec<Fingerprint>,
}

impl Trust {
    /// Decides about a peer that stands at one end and shows these certificates, its own first.
    pub(crate) fn judge(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        end: End,
        accepted: Roles,
        now: UnixTime,
    ) -> Result<Peer, Fault> {
        let peer = self.verify(own, others, end, now)?;
        if let Some(banned) = self.ban(&peer) {
            return Err(Fault::Banned { role: peer.role, fingerprint: banned });
        }
        if !accepted.contains(peer.role) {
            return Err(Fault::WrongRole { role: peer.role, accepted });
        }
        Ok(peer)
    }

    /// Returns the key of the peer that is banned, its own or one that vouches for it.
    pub(crate) fn ban(&self, peer: &Peer) -> Option<Fingerprint> {
        peer.path.iter().copied().find(|key| self.banned.contains(key))
    }

    fn verify(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        end: End,
        now: UnixTime,
    ) -> Result<Peer, Fault> {
        let error = match self.path(own, others, end, now) {
            Ok((peer, until)) if now > until => {
                return Err(Fault::RootExpired { role: peer.role, at: until });
            }
            Ok((peer, _)) => return Ok(peer),
            Err(error) => error,
        };
        // A stranger's certificate may be of any time: that of a key of ours alone is worth a word.
        match error {
            webpki::Error::CertExpired { not_after, .. } => {
                match self.path(own, others, end, not_after) {
                    Ok((Peer { role, .. }, _)) => Err(Fault::Expired { role, at: not_after }),
                    Err(_) => Err(Fault::UnknownRoot),
                }
            }
            webpki::Error::CertNotValidYet { not_before, .. } => {
                match self.path(own, others, end, not_before) {
                    Ok((Peer { role, .. }, _)) => {
                        Err(Fault::NotYetValid { role, from: not_before })
                    }
                    Err(_) => Err(Fault::UnknownRoot),
                }
            }
            webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
                Err(Fault::UnknownRoot)
            }
            error => Err(Fault::Certificate(error.to_string())),
        }
    }

    /// Returns the peer and the time until which its root is accepted.
    fn path(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        end: End,
        now: UnixTime,
    ) -> Result<(Peer, UnixTime), webpki::Error> {
        let anchors: Vec<_> = self.anchors.iter().map(|anchor| anchor.trust.clone()).collect();
        let certificate = EndEntityCert::try_from(own)?;
        let usage = match end {
            End::Listener => KeyUsage::server_auth(),
            End::Dialler => KeyUsage::client_auth(),
        };
        let path =
            certificate.verify_for_usage(ALGORITHMS, &anchors, others, now, usage, None, None)?;
        certificate.verify_is_valid_for_subject_name(&server_name())?;

        let anchor = self
            .anchors
            .iter()
            .find(|anchor| anchor.trust == *path.anchor())
            .ok_or(webpki::Error::UnknownIssuer)?;
        let own = Fingerprint::of_key(&certificate.subject_public_key_info());
        let mut peer = Peer {
            role: anchor.role,
            session: own.session(),
            fingerprint: anchor.fingerprint(),
            expires: anchor.until,
            path: vec![own, anchor.fingerprint()],
        };
        // One at most, by the roots' own constraint.
        for token in path.intermediate_certificates() {
            let der = CertificateDer::from(token.der().to_vec());
            let facts = Facts::read(&der).map_err(|_| webpki::Error::BadDer)?;
            peer.fingerprint = facts.fingerprint;
            peer.expires = peer.expires.min(facts.not_after);
            peer.path.push(facts.fingerprint);
        }
        Ok((peer, anchor.until))
    }
}

/// Time before an expiry from which it is worth a warning.
pub(crate) const WARNING: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Returns whether something that was valid for a while and expires needs a warning now: from 30
/// days before, or from half of its life if that is shorter.
pub(crate) fn is_near(not_before: UnixTime, not_after: UnixTime, now: UnixTime) -> bool {
    let ahead = WARNING.min(moment::between(not_before, not_after) / 2);
    moment::after(now, ahead) >= not_after
}

//! Certificates: those that are made here, and what is read out of one.

use std::fmt;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use thiserror::Error;
use time::{OffsetDateTime, PrimitiveDateTime};
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};
use zeroize::Zeroize;

use crate::fingerprint::Fingerprint;
use crate::moment::{self, SKEW_MAX, UnixTime};
use crate::role::Role;

/// Time for which a root is valid.
pub const ROOT_LIFE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Time for which the certificate of a process is valid. It is renewed when half of it has passed.
pub const IDENTITY_LIFE: Duration = moment::DAY;

/// Name in every certificate of a process, the same for all: who a peer is, its root says.
const NAME: &str = "tradewind";

pub(crate) fn server_name() -> ServerName<'static> {
    ServerName::try_from(NAME).expect("the name is a name")
}

/// Error: a certificate or a key is not one that was made here.
#[derive(Debug, Error)]
#[error("it is no {what} that `tradewind keys` has made: {why}")]
pub struct BadCertificate {
    what: &'static str,
    why: String,
}

impl BadCertificate {
    pub(crate) fn certificate(why: impl fmt::Display) -> Self {
        Self { what: "certificate", why: why.to_string() }
    }

    fn key(why: impl fmt::Display) -> Self {
        Self { what: "private key", why: why.to_string() }
    }
}

/// A private key, whose bytes are overwritten when it is dropped.
pub(crate) struct Secret(KeyPair);

impl Secret {
    pub(crate) fn generate() -> Self {
        Self(KeyPair::generate().expect("the system gives random numbers"))
    }

    pub(crate) fn read(pkcs8: &[u8]) -> Result<Self, BadCertificate> {
        KeyPair::from_pkcs8_der_and_sign_algo(
            &PrivatePkcs8KeyDer::from(pkcs8),
            &PKCS_ECDSA_P256_SHA256,
        )
        .map(Self)
        .map_err(BadCertificate::key)
    }

    pub(crate) fn pkcs8(&self) -> &[u8] {
        self.0.serialized_der()
    }

    pub(crate) fn for_tls(&self) -> PrivateKeyDer<'_> {
        PrivatePkcs8KeyDer::from(self.pkcs8()).into()
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_key(&self.0.subject_public_key_info())
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.fingerprint())
    }
}

/// Facts in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) issuer: String,
    pub(crate) name: String,
    pub(crate) not_before: UnixTime,
    pub(crate) not_after: UnixTime,
    pub(crate) fingerprint: Fingerprint,
}

impl Facts {
    pub(crate) fn read(der: &CertificateDer<'_>) -> Result<Self, BadCertificate> {
        let bad = BadCertificate::certificate;
        let certificate = Certificate::from_der(der).map_err(bad)?.tbs_certificate;
        let seconds =
            |time: x509_cert::time::Time| moment::of_seconds(time.to_unix_duration().as_secs());
        let spki = certificate.subject_public_key_info.to_der().map_err(bad)?;
        let name = |name: x509_cert::name::Name| match name.to_string().strip_prefix("CN=") {
            Some(name) => Ok(name.to_owned()),
            None => Err(BadCertificate::certificate("it names somebody else")),
        };
        Ok(Self {
            name: name(certificate.subject)?,
            issuer: name(certificate.issuer)?,
            not_before: seconds(certificate.validity.not_before),
            not_after: seconds(certificate.validity.not_after),
            fingerprint: Fingerprint::of_key(&spki),
        })
    }
}

/// A key that signs certificates, a role's root or a token's, with its own certificate.
pub(crate) struct Signer {
    is_root: bool,
    pub(crate) facts: Facts,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) secret: Secret,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({:?})", self.facts)
    }
}

impl Signer {
    pub(crate) fn read(
        certificate: CertificateDer<'static>,
        secret: Secret,
    ) -> Result<Self, BadCertificate> {
        let facts = Facts::read(&certificate)?;
        let is_root = facts.issuer == facts.name;
        if facts.fingerprint != secret.fingerprint() {
            return Err(BadCertificate::key("it belongs to another certificate"));
        }
        Ok(Self { is_root, facts, certificate, secret })
    }

    /// Returns whether it vouches for itself.
    pub(crate) fn is_root(&self) -> bool {
        self.is_root
    }

    /// Makes a new root of a role.
    pub(crate) fn root(role: Role, now: UnixTime) -> Self {
        let secret = Secret::generate();
        let name = format!("tradewind {role} root {}", secret.fingerprint().short());
        let not_after = moment::after(now, ROOT_LIFE);
        let mut params = params(&name, now, not_after);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&secret.0).expect("the parameters are right");
        Self::made(certificate.der(), secret)
    }

    /// Makes a key that signs the processes of one token, and its certificate. It is valid until the
    /// given time, or as long as this one if that is shorter.
    pub(crate) fn token(&self, role: Role, now: UnixTime, not_after: UnixTime) -> Self {
        let secret = Secret::generate();
        let name = format!("tradewind {role} token {}", secret.fingerprint().short());
        let mut params = params(&name, now, not_after.min(self.facts.not_after));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.use_authority_key_identifier_extension = true;
        let certificate = self.sign(&params, &secret);
        Self::made(&certificate, secret)
    }

    /// Makes the certificate of a process.
    pub(crate) fn identity(
        &self,
        role: Role,
        secret: &Secret,
        now: UnixTime,
    ) -> CertificateDer<'static> {
        let not_after = moment::after(now, IDENTITY_LIFE).min(self.facts.not_after);
        let mut params = params(&format!("tradewind {role}"), now, not_after);
        params.subject_alt_names =
            vec![rcgen::SanType::DnsName(NAME.try_into().expect("the name is a name"))];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Which end dialled says nothing about who it is: each may do both.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params, secret)
    }

    fn sign(&self, params: &CertificateParams, subject: &Secret) -> CertificateDer<'static> {
        let mut own = CertificateParams::default();
        own.distinguished_name = distinguished(&self.facts.name);
        let issuer = Issuer::from_params(&own, &self.secret.0);
        params.signed_by(&subject.0, &issuer).expect("the parameters are right").der().clone()
    }

    fn made(certificate: &CertificateDer<'static>, secret: Secret) -> Self {
        Self::read(certificate.clone(), secret).expect("what was just made is right")
    }
}

fn params(name: &str, now: UnixTime, not_after: UnixTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished(name);
    params.not_before = date(moment::before(now, SKEW_MAX));
    params.not_after = date(not_after);
    params
}

fn distinguished(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn date(time: UnixTime) -> OffsetDateTime {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(PrimitiveDateTime::MAX.assume_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));

    #[test]
    fn a_root_says_whose_it_is_and_lasts_a_year() {
        let root = Signer::root(Role::Worker, NOW);
        let Facts { name, not_before, not_after, fingerprint, .. } = root.facts.clone();
        assert_eq!(name, format!("tradewind worker root {}", fingerprint.short()));
        assert_eq!(not_before, moment::before(NOW, SKEW_MAX));
        assert_eq!(not_after, moment::after(NOW, ROOT_LIFE));
        assert_eq!(fingerprint, root.secret.fingerprint());
    }

    #[test]
    fn nothing_is_valid_for_longer_than_what_signed_it() {
        let root = Signer::root(Role::Sink, NOW);
        let end = |der: &CertificateDer<'_>| Facts::read(der).unwrap().not_after;
        let late = moment::after(NOW, ROOT_LIFE * 2);
        let token = root.token(Role::Sink, NOW, late);
        assert_eq!(token.facts.not_after, root.facts.not_after);
        let hour = moment::after(NOW, Duration::from_secs(3600));
        let token = root.token(Role::Sink, NOW, hour);
        let secret = Secret::generate();
        assert_eq!(end(&token.identity(Role::Sink, &secret, NOW)), hour);
        assert_eq!(
            end(&root.identity(Role::Sink, &secret, NOW)),
            moment::after(NOW, IDENTITY_LIFE)
        );
    }

    #[test]
    fn a_key_is_refused_with_another_certificate() {
        let (one, other) = (Signer::root(Role::Sink, NOW), Signer::root(Role::Sink, NOW));
        let secret = Secret::read(one.secret.pkcs8()).unwrap();
        assert!(Signer::read(one.certificate, secret).is_ok());
        let secret = Secret::read(other.secret.pkcs8()).unwrap();
        let error = Signer::read(Signer::root(Role::Sink, NOW).certificate, secret).unwrap_err();
        assert!(error.to_string().contains("another certificate"), "{error}");
        assert!(Secret::read(b"nonsense").is_err());
        assert!(Facts::read(&CertificateDer::from(&b"nonsense"[..])).is_err());
    }

    #[test]
    fn debug_shows_no_secret() {
        let root = Signer::root(Role::Sink, NOW);
        let bytes = format!("{:?}", root.secret.pkcs8());
        let shown = format!("{root:?} {:?}", root.secret);
        assert!(!shown.contains(&bytes) && shown.contains(&root.secret.fingerprint().to_string()));
    }
}

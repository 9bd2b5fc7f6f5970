//! Why two programs do not trust one another, in one line for each end.

use std::io;

use rustls::{AlertDescription, CertificateError, InvalidMessage};
use thiserror::Error;

use crate::fingerprint::Fingerprint;
use crate::moment::{UnixTime, text};
use crate::role::{Role, Roles};

/// Reason why a connection between two programs was not made, as seen from this end. Each reads
/// after the address of the peer and a colon.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum Fault {
    #[error("its key is that of a {role}, and here it has to be that of a {accepted}")]
    WrongRole { role: Role, accepted: Roles },
    #[error("its key is of another set of keys: both ends need keys of one `tradewind keys new`")]
    UnknownRoot,
    #[error("its {role} token expired at {}: make it a new one with `tradewind keys token {role}`", text(*at))]
    Expired { role: Role, at: UnixTime },
    #[error("its {role} key is of a root that has not been accepted since {}: make it a new token \
             with `tradewind keys token {role}`", text(*at))]
    RootExpired { role: Role, at: UnixTime },
    #[error("its {role} key is valid only from {}: a clock is wrong, there or here", text(*from))]
    NotYetValid { role: Role, from: UnixTime },
    #[error("its {role} key {fingerprint} is banned")]
    Banned { role: Role, fingerprint: Fingerprint },
    #[error("it speaks {theirs}, and this program {ours}: both ends need the same version")]
    WrongVersion { theirs: String, ours: String },
    #[error("it shows no key")]
    NoKey,
    #[error("its certificate is not one of Tradewind's: {0}")]
    Certificate(String),
    #[error(
        "it does not use TLS, and this program has keys: give it keys too (`tradewind keys token`), \
             or both --insecure"
    )]
    Plain,
    #[error("it refuses this program's key: {0}")]
    Refused(#[from] Refusal),
    #[error("no TLS connection: {0}")]
    Tls(String),
    #[error("the connection ended before the keys were checked: {0}")]
    Io(io::ErrorKind),
}

/// Reason that the other end gives for a refusal, as far as TLS can say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum Refusal {
    #[error("this role may not connect to that port")]
    Role,
    #[error("it is of another set of keys; both ends need keys of one `tradewind keys new`")]
    Root,
    #[error("it has expired, or is not valid yet by the clock there")]
    Time,
    #[error("it is banned there")]
    Banned,
    #[error("the program there speaks another version")]
    Version,
    #[error("none was shown")]
    NoKey,
}

impl Fault {
    /// Returns whether trying again is of no use: the peer, the port or the keys would have to be others.
    /// A clock may be set, and a token replaced.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        match self {
            Self::WrongRole { .. }
            | Self::UnknownRoot
            | Self::WrongVersion { .. }
            | Self::NoKey
            | Self::Certificate(_)
            | Self::Plain => true,
            Self::Refused(refusal) => !matches!(refusal, Refusal::Time | Refusal::Banned),
            Self::Expired { .. }
            | Self::RootExpired { .. }
            | Self::NotYetValid { .. }
            | Self::Banned { .. }
            | Self::Tls(_)
            | Self::Io(_) => false,
        }
    }

    /// Returns the error that makes TLS tell the peer this reason.
    pub(crate) fn to_tls(&self) -> rustls::Error {
        rustls::Error::InvalidCertificate(match self {
            Self::WrongRole { .. } => CertificateError::ApplicationVerificationFailure,
            Self::UnknownRoot => CertificateError::UnknownIssuer,
            Self::Expired { .. } | Self::RootExpired { .. } => CertificateError::Expired,
            Self::NotYetValid { .. } => CertificateError::NotValidYet,
            Self::Banned { .. } => CertificateError::Revoked,
            _ => CertificateError::BadEncoding,
        })
    }

    /// Reads the failure of a connection: what TLS says of its own, and what the peer said in an alert.
    #[must_use]
    pub fn of_io(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(error) => Self::of_tls(error),
            None => Self::Io(error.kind()),
        }
    }

    fn of_tls(error: &rustls::Error) -> Self {
        let refusal = match error {
            rustls::Error::AlertReceived(alert) => match alert {
                AlertDescription::AccessDenied => Refusal::Role,
                AlertDescription::UnknownCA => Refusal::Root,
                AlertDescription::CertificateExpired => Refusal::Time,
                AlertDescription::CertificateRevoked => Refusal::Banned,
                AlertDescription::NoApplicationProtocol => Refusal::Version,
                AlertDescription::CertificateRequired => Refusal::NoKey,
                _ => return Self::Tls(error.to_string()),
            },
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
                return Self::Plain;
            }
            rustls::Error::NoCertificatesPresented => return Self::NoKey,
            _ => return Self::Tls(error.to_string()),
        };
        Self::Refused(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_end_finds_the_other_is_told() {
        let check = |fault: Fault, told: Option<Refusal>| {
            let rustls::Error::InvalidCertificate(error) = fault.to_tls() else {
                panic!("{fault}")
            };
            let alert = rustls::Error::AlertReceived(error.into());
            let seen = Fault::of_io(&io::Error::new(io::ErrorKind::InvalidData, alert));
            match told {
                Some(refusal) => assert_eq!(seen, Fault::Refused(refusal), "{fault}"),
                None => assert!(matches!(seen, Fault::Tls(_)), "{fault}: {seen}"),
            }
        };
        let (role, at) = (Role::Worker, crate::moment::of_seconds(7));
        let accepted = Roles::of(&[Role::Sink]);
        check(Fault::WrongRole { role, accepted }, Some(Refusal::Role));
        check(Fault::UnknownRoot, Some(Refusal::Root));
        check(Fault::Expired { role, at }, Some(Refusal::Time));
        check(Fault::RootExpired { role, at }, Some(Refusal::Time));
        check(Fault::NotYetValid { role, from: at }, Some(Refusal::Time));
        let fingerprint = Fingerprint::of_key(b"x");
        check(Fault::Banned { role, fingerprint }, Some(Refusal::Banned));
        check(Fault::Certificate("bad".into()), None);
    }

    #[test]
    fn every_fault_is_one_line() {
        let fault = Fault::Refused(Refusal::Root).to_string();
        assert!(fault.contains("refuses") && fault.contains("another set of keys"), "{fault}");
        let fault = Fault::Expired { role: Role::Worker, at: crate::moment::of_seconds(7) };
        assert_eq!(
            fault.to_string(),
            "its worker token expired at 1970-01-01T00:00:07Z: make it a new one with `tradewind keys token worker`"
        );
        assert!(!Fault::Plain.to_string().contains('\n'));
    }
}

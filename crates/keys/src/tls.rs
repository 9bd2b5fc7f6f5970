//! TLS 1.3 on a stream, both ends with certificates.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{Acceptor, NoServerSessionStorage};
use rustls::sign::SingleCertAndKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, ServerConfig,
    SignatureScheme,
};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::{LazyConfigAcceptor, TlsConnector, TlsStream, client};

use crate::certificate::server_name;
use crate::fault::Fault;
use crate::keys::Keys;
use crate::moment::UnixTime;
use crate::role::Roles;
use crate::trust::{ALGORITHMS, End, Peer, Trust};

/// A stream that is encrypted.
pub type Encrypted<S> = TlsStream<S>;

/// Returns whether a first byte that a peer sent is one of TLS: a handshake or an alert.
#[must_use]
pub const fn is_tls(first: u8) -> bool {
    matches!(first, 0x15 | 0x16)
}

/// Time for which a peer's end is awaited after it was refused. Were ours closed first, with bytes of the
/// peer unread, TCP would throw the reason away.
const FAREWELL_MAX: Duration = Duration::from_millis(500);

impl Keys {
    /// Encrypts a stream that a peer has dialled. `protocol` names the version of what is spoken inside: it is
    /// the same at both ends. Bounded by the caller in time.
    ///
    /// # Errors
    /// When the peer may not connect here; it is told so, as far as TLS can.
    pub async fn accept<S>(
        &self,
        stream: S,
        protocol: &str,
        accepted: Roles,
        now: UnixTime,
    ) -> Result<(Encrypted<S>, Peer), Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut acceptor = LazyConfigAcceptor::new(Acceptor::default(), stream);
        let start = match (&mut acceptor).await {
            Ok(start) => start,
            Err(error) => {
                if let Some(stream) = acceptor.take_io() {
                    see_off(stream).await;
                }
                return Err(Fault::of_io(&error));
            }
        };
        let theirs: Vec<_> = start.client_hello().alpn().into_iter().flatten().map(name).collect();
        let verifier = Arc::new(Verifier::new(self, End::Dialler, accepted, now));
        let config = Arc::new(self.server_config(&verifier, protocol));
        match start.into_stream(config).into_fallible().await {
            Ok(stream) => {
                let peer = verifier.peer().ok_or(Fault::NoKey)?;
                Ok((stream.into(), peer))
            }
            Err((error, stream)) => {
                see_off(stream).await;
                let is_version =
                    matches!(tls(&error), Some(Error::NoApplicationProtocol)) || theirs.is_empty();
                Err(if is_version {
                    let theirs = match theirs.join(", ") {
                        none if none.is_empty() => "another protocol".to_owned(),
                        theirs => theirs,
                    };
                    Fault::WrongVersion { theirs, ours: protocol.to_owned() }
                } else {
                    verifier.fault().unwrap_or_else(|| Fault::of_io(&error))
                })
            }
        }
    }

    /// Encrypts a stream that was dialled. Returns when the peer has accepted this end too, which it shows by
    /// its first byte: so what is spoken inside must begin with one of the listener. Bounded by the caller in
    /// time.
    ///
    /// # Errors
    /// When the peer is not one of those that are expected, or does not accept this end.
    pub async fn connect<S>(
        &self,
        stream: S,
        protocol: &str,
        expected: Roles,
        now: UnixTime,
    ) -> Result<(Encrypted<S>, Peer), Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut stream, peer) = self.connect_as_client(stream, protocol, expected, now).await?;
        // In TLS 1.3 the dialler is done before the listener has judged it.
        match stream.fill_buf().await {
            Ok([]) => Err(Fault::Io(io::ErrorKind::UnexpectedEof)),
            Ok(_) => Ok((stream.into(), peer)),
            Err(error) => Err(Fault::of_io(&error)),
        }
    }

    /// Does the same without waiting for the peer's first byte: for protocols in which the dialler speaks first.
    /// That the peer does not accept this end is then the error of a later read: [`Fault::of_io`].
    ///
    /// # Errors
    /// When the peer is not one of those that are expected.
    pub async fn connect_unconfirmed<S>(
        &self,
        stream: S,
        protocol: &str,
        expected: Roles,
        now: UnixTime,
    ) -> Result<(Encrypted<S>, Peer), Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (stream, peer) = self.connect_as_client(stream, protocol, expected, now).await?;
        Ok((stream.into(), peer))
    }

    async fn connect_as_client<S>(
        &self,
        stream: S,
        protocol: &str,
        expected: Roles,
        now: UnixTime,
    ) -> Result<(client::TlsStream<S>, Peer), Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let verifier = Arc::new(Verifier::new(self, End::Listener, expected, now));
        let config = Arc::new(self.client_config(&verifier, protocol));
        let connector = TlsConnector::from(config);
        let stream = match connector.connect(server_name(), stream).into_fallible().await {
            Ok(stream) => stream,
            Err((error, stream)) => {
                see_off(stream).await;
                return Err(verifier.fault().unwrap_or_else(|| Fault::of_io(&error)));
            }
        };
        let peer = verifier.peer().ok_or(Fault::NoKey)?;
        if stream.get_ref().1.alpn_protocol() != Some(protocol.as_bytes()) {
            let theirs = stream.get_ref().1.alpn_protocol().map_or("another protocol".into(), name);
            return Err(Fault::WrongVersion { theirs, ours: protocol.to_owned() });
        }
        Ok((stream, peer))
    }

    fn server_config(&self, verifier: &Arc<Verifier>, protocol: &str) -> ServerConfig {
        let own = Arc::new(SingleCertAndKey::from(self.certified()));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has the suites of TLS 1.3")
            .with_client_cert_verifier(verifier.clone())
            .with_cert_resolver(own);
        config.alpn_protocols = vec![protocol.into()];
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        config
    }

    fn client_config(&self, verifier: &Arc<Verifier>, protocol: &str) -> ClientConfig {
        let own = Arc::new(SingleCertAndKey::from(self.certified()));
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has the suites of TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_cert_resolver(own);
        config.alpn_protocols = vec![protocol.into()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        // The name is the same everywhere, and says nothing.
        config.enable_sni = false;
        config
    }
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(ring::default_provider())).clone()
}

fn name(protocol: &[u8]) -> String {
    let text = String::from_utf8_lossy(protocol);
    text.chars().take(NAME_CHARS_MAX).flat_map(char::escape_default).collect()
}

/// Length of a stranger's text that is shown.
const NAME_CHARS_MAX: usize = 40;

fn tls(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// Gives a refused peer the time to read why.
async fn see_off(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let farewell = async {
        let _ = stream.shutdown().await;
        let mut ignored = [0; 1024];
        while stream.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
    };
    let _ = tokio::time::timeout(FAREWELL_MAX, farewell).await;
}

/// Decides about the peer of one connection, and keeps the decision.
struct Verifier {
    trust: Arc<Trust>,
    /// End at which the peer stands.
    end: End,
    accepted: Roles,
    now: UnixTime,
    algorithms: WebPkiSupportedAlgorithms,
    verdict: Mutex<Option<Result<Peer, Fault>>>,
}

impl Verifier {
    fn new(keys: &Keys, end: End, accepted: Roles, now: UnixTime) -> Self {
        let algorithms = WebPkiSupportedAlgorithms {
            all: ALGORITHMS,
            mapping: &[(SignatureScheme::ECDSA_NISTP256_SHA256, ALGORITHMS)],
        };
        let verdict = Mutex::default();
        Self { trust: keys.trust(), end, accepted, now, algorithms, verdict }
    }

    fn judge(&self, own: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
        let verdict = self.trust.judge(own, others, self.end, self.accepted, self.now);
        let outcome = verdict.as_ref().map(drop).map_err(Fault::to_tls);
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
        outcome
    }

    fn verdict(&self) -> Option<Result<Peer, Fault>> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn peer(&self) -> Option<Peer> {
        self.verdict()?.ok()
    }

    fn fault(&self) -> Option<Fault> {
        self.verdict()?.err()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({})", self.accepted)
    }
}

/// Methods that both kinds of verifier have beside the decision.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signature, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.algorithms.supported_schemes()
        }
    };
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A stranger is told nothing.
        &[]
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(own, others).map(|()| ClientCertVerified::assertion())
    }

    signatures!();
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(own, others).map(|()| ServerCertVerified::assertion())
    }

    signatures!();
}

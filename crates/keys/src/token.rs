//! Tokens: what a program on another host needs, in one line.
//!
//! ```text
//! twt1-<base64url, without padding>
//!
//! u8   1, the version of the token
//! u16  number of bytes that follow, all integers big-endian
//! u8   role
//! text certificate of the token's key     a text or list of bytes: u16 length, then the bytes
//! text the token's key, PKCS #8
//! u8   number of roots; each: u8 role, u64 accepted until (seconds since 1970), text subject, text key
//! text address of the ventilator, or empty
//! u8   number of sinks; each: text address
//! u32  CRC-32 of all before it
//! ```

use std::fmt;
use std::str;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::{CertificateDer, Der, TrustAnchor};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::certificate::{BadCertificate, Secret, Signer};
use crate::fingerprint::Fingerprint;
use crate::moment::{self, UnixTime};
use crate::role::Role;
use crate::trust::Anchor;

/// Beginning of every token of this version.
const PREFIX: &str = "twt1-";
/// Beginning of every token.
const PREFIX_ANY: &str = "twt";
/// Version byte and length.
const HEAD_BYTES: usize = 3;
const CRC_BYTES: usize = 4;

/// Addresses in a token, used where no flag gives them. They are kept as they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Address of the ventilator's port for this role.
    pub ventilator: Option<String>,
    /// Addresses of the sink.
    pub sinks: Vec<String>,
}

/// A token: a key that signs the processes of one role until it expires, the roots of all roles, and
/// perhaps addresses.
#[derive(Debug)]
pub struct Token {
    /// Role of the programs that it makes.
    pub role: Role,
    /// Addresses for the role.
    pub addresses: Addresses,
    pub(crate) signer: Signer,
    pub(crate) anchors: Vec<Anchor>,
}

/// Error: a text is no token.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum TokenError {
    #[error("it is no token: one begins with {PREFIX}")]
    NotAToken,
    #[error("the token is of a newer version of Tradewind")]
    Newer,
    #[error("the token is cut off: {present} of {whole} characters are there")]
    CutOff { present: usize, whole: usize },
    #[error("the token was changed: copy it again, whole and in one line")]
    Changed,
    #[error(transparent)]
    Certificate(#[from] BadCertificate),
}

impl Token {
    /// Returns the fingerprint by which the token is banned.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.signer.facts.fingerprint
    }

    /// Returns the time at which it expires.
    #[must_use]
    pub fn expires(&self) -> UnixTime {
        self.signer.facts.not_after
    }

    /// Returns the roots that a program with this token accepts.
    #[must_use]
    pub fn anchors(&self) -> &[Anchor] {
        &self.anchors
    }

    /// Returns the token as one line, without a line feed.
    ///
    /// # Errors
    /// When the addresses are too long.
    pub fn encode(&self) -> Result<Zeroizing<String>, TooLong> {
        let mut body = Writer(Zeroizing::new(Vec::with_capacity(BYTES_USUAL)));
        body.0.push(self.role.number());
        body.bytes(&self.signer.certificate)?;
        body.bytes(self.signer.secret.pkcs8())?;
        body.count(self.anchors.len())?;
        for Anchor { role, until, trust } in &self.anchors {
            body.0.push(role.number());
            body.0.extend(until.as_secs().to_be_bytes());
            body.bytes(&trust.subject)?;
            body.bytes(&trust.subject_public_key_info)?;
        }
        body.bytes(self.addresses.ventilator.as_deref().unwrap_or("").as_bytes())?;
        body.count(self.addresses.sinks.len())?;
        for sink in &self.addresses.sinks {
            body.bytes(sink.as_bytes())?;
        }
        let length = u16::try_from(body.0.len() + CRC_BYTES).map_err(|_| TooLong)?;
        let mut whole = Zeroizing::new(Vec::with_capacity(HEAD_BYTES + usize::from(length)));
        whole.push(1);
        whole.extend(length.to_be_bytes());
        whole.extend_from_slice(&body.0);
        let crc = crc32fast::hash(&whole);
        whole.extend(crc.to_be_bytes());

        let mut text =
            Zeroizing::new(String::with_capacity(PREFIX.len() + whole.len() * 4 / 3 + 4));
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(&*whole, &mut text);
        Ok(text)
    }

    /// Reads a token; space around it is ignored.
    ///
    /// # Errors
    /// When it is none, or not whole.
    pub fn decode(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let Some(encoded) = text.strip_prefix(PREFIX) else {
            let is_newer = text
                .strip_prefix(PREFIX_ANY)
                .and_then(|rest| rest.split_once('-'))
                .is_some_and(|(version, _)| version.parse::<u32>().is_ok_and(|it| it > 1));
            return Err(if is_newer { TokenError::Newer } else { TokenError::NotAToken });
        };
        // A group that is cut in two does not decode: what is whole says how long it should be.
        let head = encoded
            .get(..4)
            .ok_or(TokenError::CutOff { present: encoded.len(), whole: encoded.len().max(4) })?;
        let head = URL_SAFE_NO_PAD.decode(head).map_err(|_| TokenError::Changed)?;
        let length = HEAD_BYTES + usize::from(u16::from_be_bytes([head[1], head[2]]));
        let encoded_length = base64::encoded_len(length, false).expect("64 KiB do not overflow");
        if encoded.len() < encoded_length {
            let added = PREFIX.len();
            return Err(TokenError::CutOff {
                present: encoded.len() + added,
                whole: encoded_length + added,
            });
        }
        let bytes =
            Zeroizing::new(URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TokenError::Changed)?);
        if bytes.len() != length || bytes[0] != 1 || length < HEAD_BYTES + CRC_BYTES {
            return Err(TokenError::Changed);
        }
        let (body, crc) = bytes.split_last_chunk::<CRC_BYTES>().ok_or(TokenError::Changed)?;
        if crc32fast::hash(body) != u32::from_be_bytes(*crc) {
            return Err(TokenError::Changed);
        }
        Self::read(Reader(&body[HEAD_BYTES..])).ok_or(TokenError::Changed)?.map_err(Into::into)
    }

    /// Reads the fields. `None`: they are not what the version says.
    fn read(mut fields: Reader<'_>) -> Option<Result<Self, BadCertificate>> {
        let role = fields.role()?;
        let certificate = CertificateDer::from(fields.bytes()?.to_vec());
        let secret = fields.bytes()?;
        let mut anchors = Vec::new();
        for _ in 0..fields.byte()? {
            let role = fields.role()?;
            let until = moment::of_seconds(u64::from_be_bytes(*fields.chunk()?));
            let subject = Der::from(fields.bytes()?.to_vec());
            let subject_public_key_info = Der::from(fields.bytes()?.to_vec());
            let trust = TrustAnchor { subject, subject_public_key_info, name_constraints: None };
            anchors.push(Anchor { role, until, trust });
        }
        let ventilator = Some(fields.text()?).filter(|address| !address.is_empty());
        let mut sinks = Vec::new();
        for _ in 0..fields.byte()? {
            sinks.push(fields.text()?);
        }
        if !fields.0.is_empty() {
            return None;
        }
        let addresses = Addresses { ventilator, sinks };
        let signer = Secret::read(secret).and_then(|secret| Signer::read(certificate, secret));
        Some(signer.map(|signer| Self { role, addresses, signer, anchors }))
    }
}

/// Room for a token without addresses, so that its bytes are not moved about in memory.
const BYTES_USUAL: usize = 4096;

/// Error: a token would be longer than 64 KiB.
#[derive(Debug, Error)]
#[error("the addresses are too long for a token")]
pub struct TooLong;

struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    fn count(&mut self, count: usize) -> Result<(), TooLong> {
        self.0.push(u8::try_from(count).map_err(|_| TooLong)?);
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        self.0.extend(u16::try_from(bytes.len()).map_err(|_| TooLong)?.to_be_bytes());
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn chunk<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(chunk)
    }

    fn byte(&mut self) -> Option<u8> {
        self.chunk::<1>().map(|[byte]| *byte)
    }

    fn role(&mut self) -> Option<Role> {
        Role::of_number(self.byte()?)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = u16::from_be_bytes(*self.chunk()?);
        let (bytes, rest) = self.0.split_at_checked(length.into())?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<String> {
        str::from_utf8(self.bytes()?).ok().map(str::to_owned)
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ventilator = self.ventilator.iter().map(|it| format!("ventilator {it}"));
        let sinks = self.sinks.iter().map(|it| format!("sink {it}"));
        f.write_str(&ventilator.chain(sinks).collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));

    fn token() -> Token {
        let roots: Vec<_> =
            Role::ALL.into_iter().map(|role| (role, Signer::root(role, NOW))).collect();
        let anchors = roots
            .iter()
            .map(|(role, root)| Anchor::of(*role, &root.certificate).unwrap())
            .collect();
        let (role, root) = &roots[1];
        Token {
            role: *role,
            addresses: Addresses {
                ventilator: Some("tcp://host1:5557".into()),
                sinks: vec!["tcp://host1:5558".into(), "tcp://host2:5558".into()],
            },
            signer: root.token(*role, NOW, moment::after(NOW, moment::DAY)),
            anchors,
        }
    }

    #[test]
    fn a_token_is_one_line_that_is_read_back() {
        let token = token();
        let text = token.encode().unwrap();
        assert!(
            text.starts_with("twt1-") && text.is_ascii() && !text.contains(char::is_whitespace)
        );
        // What a terminal takes as one line.
        assert!(text.len() < 2500, "{}", text.len());
        let read = Token::decode(&format!(" {}\n", *text)).unwrap();
        assert_eq!((read.role, &read.addresses), (Role::Worker, &token.addresses));
        assert_eq!(read.signer.facts, token.signer.facts);
        assert_eq!(read.anchors, token.anchors);
        assert_eq!(read.signer.secret.pkcs8(), token.signer.secret.pkcs8());
        assert_eq!(read.expires(), moment::after(NOW, moment::DAY));
    }

    #[test]
    fn a_token_that_is_cut_off_anywhere_is_said_to_be() {
        let text = token().encode().unwrap();
        for end in PREFIX.len()..text.len() {
            let error = Token::decode(&text[..end]).unwrap_err();
            assert!(matches!(error, TokenError::CutOff { .. }), "{end}: {error}");
        }
        for end in 0..PREFIX.len() {
            assert!(matches!(Token::decode(&text[..end]), Err(TokenError::NotAToken)), "{end}");
        }
    }

    #[test]
    fn any_changed_character_is_found() {
        let text = token().encode().unwrap();
        for at in PREFIX.len()..text.len() {
            let mut changed = text.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            let error = Token::decode(&changed).unwrap_err();
            // A changed length reads as a cut.
            let is_found = matches!(error, TokenError::Changed | TokenError::CutOff { .. });
            assert!(is_found, "{at}: {error}");
        }
        let more = format!("{}AAAA", *text);
        assert!(matches!(Token::decode(&more), Err(TokenError::Changed)));
    }

    #[test]
    fn what_is_no_token_is_said_to_be_none() {
        for text in ["", "secret", "twt-", "twt1", "-----BEGIN PRIVATE KEY-----"] {
            assert!(matches!(Token::decode(text), Err(TokenError::NotAToken)), "{text}");
        }
        assert!(matches!(Token::decode("twt2-AAAA"), Err(TokenError::Newer)));
        // All in order but for the fields themselves.
        let mut bytes = vec![1, 0, 5, 9];
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        assert!(matches!(Token::decode(&text), Err(TokenError::Changed)));
    }
}

//! Fingerprints of public keys.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use thiserror::Error;

/// First half of the SHA-256 hash of a public key (its `SubjectPublicKeyInfo` in DER): the name of a
/// root, of a token, or of one process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    pub(crate) fn of_key(spki: &[u8]) -> Self {
        let hash = digest(&SHA256, spki);
        Self(*hash.as_ref().first_chunk().expect("a SHA-256 hash has 32 bytes"))
    }

    /// Returns the session of the process that has this key: the first 8 bytes of the hash.
    #[must_use]
    pub fn session(self) -> u64 {
        u64::from_be_bytes(*self.0.first_chunk().expect("16 bytes are more than 8"))
    }

    /// Returns the first digits, which tell a few keys apart.
    pub(crate) fn short(self) -> String {
        self.to_string()[..8].to_owned()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Error: this is not how a fingerprint is written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{0:?} is no fingerprint: it has 32 hexadecimal digits, as `tradewind keys show` prints them"
)]
pub struct NoFingerprint(String);

impl FromStr for Fingerprint {
    type Err = NoFingerprint;

    fn from_str(text: &str) -> Result<Self, NoFingerprint> {
        let bad = || NoFingerprint(text.into());
        let digits: Option<Vec<u8>> =
            text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
        let digits: [u8; 32] = digits.ok_or_else(bad)?.try_into().map_err(|_| bad())?;
        Ok(Self(std::array::from_fn(|at| digits[2 * at] << 4 | digits[2 * at + 1])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_the_start_of_the_hash_and_is_read_back() {
        let fingerprint = Fingerprint::of_key(b"abc");
        // The published test vector of SHA-256.
        assert_eq!(fingerprint.to_string(), "ba7816bf8f01cfea414140de5dae2223");
        assert_eq!(fingerprint.session(), 0xba78_16bf_8f01_cfea);
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        assert_eq!(fingerprint.to_string().to_uppercase().parse(), Ok(fingerprint));
        for bad in
            ["", "ba78", "ba7816bf8f01cfea414140de5dae222g", "ba7816bf8f01cfea414140de5dae22231"]
        {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }
}

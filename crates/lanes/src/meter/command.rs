//! The two commands that are read here, and the places in a stream where one may be inserted.

use tradewind_shown::shown;

use super::{COMMAND, GREETING_BYTES, HEADER_BYTES_MAX, Header};

/// Bytes of the longest reason that an ERROR command carries.
pub const REASON_BYTES_MAX: usize = 255;

const READY: &[u8] = b"\x05READY";
const ERROR: &[u8] = b"\x05ERROR";

/// Properties of a peer in its READY command; empty where the peer gives none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ready {
    /// `PUSH` or `PULL`, as a rule.
    pub socket_type: Vec<u8>,
    /// ZMTP identity.
    pub identity: Vec<u8>,
}

impl Ready {
    /// Reads a command's body as far as it makes sense.
    pub(super) fn read(body: &[u8]) -> Self {
        let mut ready = Self::default();
        let Some(mut rest) = body.strip_prefix(READY) else { return ready };
        while let Some((name, value, after)) = property(rest) {
            if name.eq_ignore_ascii_case(b"Socket-Type") {
                ready.socket_type = value.to_vec();
            } else if name.eq_ignore_ascii_case(b"Identity") {
                ready.identity = value.to_vec();
            }
            rest = after;
        }
        ready
    }
}

/// Splits off the first of some properties: returns its name, its value, and the rest.
fn property(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name_bytes, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked((*name_bytes).into())?;
    let (value_bytes, rest) = rest.split_first_chunk()?;
    let value_bytes = usize::try_from(u32::from_be_bytes(*value_bytes)).ok()?;
    let (value, rest) = rest.split_at_checked(value_bytes)?;
    Some((name, value, rest))
}

/// Returns the reason in an ERROR command's body, fit to be shown: a stranger chose the text.
pub(super) fn error_reason(body: &[u8]) -> Option<String> {
    let rest = body.strip_prefix(ERROR)?;
    let reason = match rest.split_first() {
        Some((&length, text)) => &text[..text.len().min(length.into())],
        None => &[],
    };
    let reason = String::from_utf8_lossy(reason);
    let shown = shown(&reason);
    Some(if shown.is_empty() { "no reason given".to_owned() } else { shown.into_owned() })
}

/// Returns ZMTP 3.0's greeting with the NULL mechanism.
pub fn greeting() -> [u8; GREETING_BYTES] {
    let mut bytes = [0; GREETING_BYTES];
    (bytes[0], bytes[8], bytes[9], bytes[10]) = (0xff, 1, 0x7f, 3);
    bytes[12..16].copy_from_slice(b"NULL");
    bytes
}

/// Returns a READY command as it goes over the wire. An empty identity is none.
pub fn ready_command(socket_type: &[u8], identity: &[u8]) -> Vec<u8> {
    let mut body = READY.to_vec();
    let properties = [("Socket-Type", socket_type), ("Identity", identity)];
    for (name, value) in properties.into_iter().filter(|(_, value)| !value.is_empty()) {
        body.push(name.len() as u8);
        body.extend_from_slice(name.as_bytes());
        body.extend((value.len() as u32).to_be_bytes());
        body.extend_from_slice(value);
    }
    command(&body)
}

/// Returns an ERROR command as it goes over the wire. A reason that is too long is cut.
pub fn error_command(reason: &str) -> Vec<u8> {
    let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
    command(&[ERROR, &[reason.len() as u8], reason.as_bytes()].concat())
}

fn command(body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![COMMAND];
    match u8::try_from(body.len()) {
        Ok(length) => bytes.push(length),
        Err(_) => {
            bytes[0] |= super::LONG;
            bytes.extend((body.len() as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

/// Follows a stream that we send from the end of its handshake on, which is known to be valid, to find the places
/// where a command may be inserted.
#[derive(Debug, Clone, Default)]
pub struct Track {
    /// Number of bytes until the next header begins.
    left: u64,
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: usize,
}

impl Track {
    /// Notes that these bytes were sent.
    pub fn sent(&mut self, mut bytes: &[u8]) {
        loop {
            let skipped =
                usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            self.left -= skipped as u64;
            bytes = &bytes[skipped..];
            let Some((first, rest)) = bytes.split_first() else { return };
            self.header[self.header_bytes] = *first;
            self.header_bytes += 1;
            bytes = rest;
            if let Ok(Some(header)) = Header::read(&self.header[..self.header_bytes]) {
                self.left = header.body_bytes;
                self.header_bytes = 0;
            }
        }
    }

    /// Returns whether no frame is half sent.
    pub fn is_between_frames(&self) -> bool {
        self.left == 0 && self.header_bytes == 0
    }
}

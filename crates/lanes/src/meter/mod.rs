//! The frame meter decides which bytes of a peer's stream may reach ZeroMQ.
//!
//! No I/O, no clock, no memory of its own: it is given slices and returns how much of each may
//! pass. It follows ZMTP 3's framing (<https://rfc.zeromq.org/spec/23/>) just closely enough to
//! find the headers: a greeting of 64 bytes, then flags · length · body, over and over.
//!
//! It is there because zmq.rs reserves memory for any length that a header announces, as soon as it
//! has read that header: a few bytes from a stranger would abort the process. Hence the one rule:
//! no byte of a header passes before the whole header was found valid.
//!
//! Commands are held back until they are complete, since two of them are read here: READY, in which
//! a peer gives its identity, and ZMTP 3.1's ERROR (<https://rfc.zeromq.org/spec/37/>), in which it
//! gives the reason why it closes. The second never passes: zmq.rs does not know it. Greeting and READY
//! are not forwarded either, but said again in our own words once the peer has been let in.

mod command;

use std::time::Duration;

use thiserror::Error;

use crate::unfinished::{LARGE_BYTES_MIN, RATE_BYTES_MIN};

pub use command::{REASON_BYTES_MAX, Ready, Track, error_command, greeting, ready_command};

/// Length of ZMTP's greeting.
pub const GREETING_BYTES: usize = 64;
/// Longest header: flags, and a length of eight bytes.
pub const HEADER_BYTES_MAX: usize = 9;
/// Largest command. The only one that passes is the handshake's READY, whose identity has at most 255 bytes.
pub const COMMAND_BYTES_MAX: u64 = 4096;
/// Largest number of bytes that are held back: a command that lacks a byte.
pub const HELD_BYTES_MAX: usize = HEADER_BYTES_MAX + COMMAND_BYTES_MAX as usize;

const MORE: u8 = 0x01;
const LONG: u8 = 0x02;
const COMMAND: u8 = 0x04;

/// Limits of a peer's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one message, all its frames together.
    pub message_bytes_max: u64,
    /// Frames of one message. 0: this peer may shake hands, and then send no message.
    pub message_frames_max: u32,
}

/// Reason why a peer's stream goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum Violation {
    #[error(
        "TLS, and this program has no keys: give both ends keys (`tradewind keys`), or both --insecure"
    )]
    Tls,
    #[error("not a ZMTP 3 greeting (byte {at} is {byte:#04x})")]
    Greeting { at: usize, byte: u8 },
    #[error("a frame with unknown flags {flags:#04x}")]
    Flags { flags: u8 },
    #[error("a message before the handshake was complete")]
    Early,
    #[error("a command after the handshake")]
    Late,
    #[error("a command of {bytes} bytes")]
    Command { bytes: u64 },
    #[error(
        "a message of {bytes} bytes or more, where at most {max} are taken (see --message-max)"
    )]
    Message { bytes: u64, max: u64 },
    #[error("a message of more than {max} frames")]
    Frames { max: u32 },
    #[error(
        "a message too slowly: {held} of {bytes} bytes had come when it was {lag:?} behind {} KiB/s",
        RATE_BYTES_MIN >> 10
    )]
    Slow { held: u64, bytes: u64, lag: Duration },
}

/// Result for a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Metered {
    /// Number of bytes at the front that may be forwarded. If nothing was found the rest is an
    /// incomplete header or command, no longer than [`HELD_BYTES_MAX`], and is to be fed again with
    /// the bytes that follow it.
    pub passed: usize,
    /// Finding about the bytes after those, if there is one.
    pub found: Option<Found>,
}

/// Finding of the meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The peer gives its identity, in the command that has passed last. The rest is to be fed again.
    Ready(Ready),
    /// The peer gives the reason why it closes the connection, in text that is fit to be shown. No
    /// more bytes pass.
    Error(String),
    /// The next bytes must not pass, now or ever.
    Violation(Violation),
}

/// Bytes of a message that has begun and not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// Number of those that have passed.
    pub held: u64,
    /// Number of those that its latest header announces, and that have not come.
    pub left: u64,
}

/// Follows one peer's stream.
#[derive(Debug, Clone)]
pub struct Meter {
    limits: Limits,
    expected: Expected,
    ready: bool,
    /// Message that is under way.
    message: Message,
    /// Bytes that the headers of the latest message announce.
    begun_bytes: u64,
    large_bytes: u64,
    bytes_passed: u64,
}

#[derive(Debug, Clone)]
enum Expected {
    Greeting { at: usize },
    Header,
    Body { left: u64 },
    Nothing(Found),
}

/// Result of reading a header.
enum Step {
    Pass(usize),
    /// The header is incomplete.
    Wait,
    /// The command passes, and is shown to the caller.
    Show(usize, Ready),
    End(Found),
}

#[derive(Debug, Clone, Copy, Default)]
struct Message {
    bytes: u64,
    frames: u32,
}

struct Header {
    flags: u8,
    body_bytes: u64,
    size: usize,
}

impl Meter {
    /// Creates a meter for a stream that has not begun.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            expected: Expected::Greeting { at: 0 },
            ready: false,
            message: Message::default(),
            begun_bytes: 0,
            large_bytes: 0,
            bytes_passed: 0,
        }
    }

    /// Examines the bytes that arrived, preceded by those that did not pass the last time. The cuts
    /// between slices make no difference to the bytes that pass in the end.
    pub fn feed(&mut self, bytes: &[u8]) -> Metered {
        let mut passed = 0;
        let found = loop {
            let rest = &bytes[passed..];
            let step = match &self.expected {
                Expected::Nothing(found) => break Some(found.clone()),
                _ if rest.is_empty() => break None,
                Expected::Greeting { at } => self.greet(*at, rest).map(Step::Pass),
                Expected::Body { left } => Ok(Step::Pass(self.skip(*left, rest))),
                Expected::Header => match Header::read(rest) {
                    Ok(Some(header)) => self.admit(&header, rest),
                    Ok(None) => Ok(Step::Wait),
                    Err(violation) => Err(violation),
                },
            };
            match step.unwrap_or_else(|violation| Step::End(Found::Violation(violation))) {
                Step::Pass(size) => passed += size,
                Step::Wait => break None,
                Step::Show(size, ready) => {
                    passed += size;
                    break Some(Found::Ready(ready));
                }
                Step::End(found) => {
                    self.expected = Expected::Nothing(found.clone());
                    break Some(found);
                }
            }
        };
        self.bytes_passed += passed as u64;
        Metered { passed, found }
    }

    /// Returns the message that has begun and not ended, if there is one.
    pub fn unfinished(&self) -> Option<Begun> {
        let left = match self.expected {
            Expected::Body { left } => left,
            // Between two frames of one message.
            Expected::Header if self.message.frames > 0 => 0,
            _ => return None,
        };
        Some(Begun { held: self.begun_bytes - left, left })
    }

    /// Returns the bytes of all large messages that have ended so far.
    pub(crate) fn large_bytes(&self) -> u64 {
        self.large_bytes
    }

    /// Returns the number of bytes that passed so far.
    pub fn bytes_passed(&self) -> u64 {
        self.bytes_passed
    }

    /// Passes bytes of the greeting one by one: it has a fixed length, so no byte in it can do
    /// harm, and libzmq waits for the first ten before it sends the rest.
    fn greet(&mut self, first: usize, rest: &[u8]) -> Result<usize, Violation> {
        let size = rest.len().min(GREETING_BYTES - first);
        for (at, &byte) in (first..).zip(&rest[..size]) {
            let good = match at {
                0 => byte == 0xff,
                9 => byte == 0x7f,
                10 => byte >= 3,
                12..16 => byte == b"NULL"[at - 12],
                16..32 => byte == 0,
                _ => true,
            };
            if !good && at == 0 && tradewind_keys::is_tls(byte) {
                return Err(Violation::Tls);
            }
            if !good && at == first {
                return Err(Violation::Greeting { at, byte });
            }
            if !good {
                // The bytes before it pass, as they would have had they come alone.
                self.expected = Expected::Greeting { at };
                return Ok(at - first);
            }
        }
        self.expected = match first + size {
            GREETING_BYTES => Expected::Header,
            at => Expected::Greeting { at },
        };
        Ok(size)
    }

    fn skip(&mut self, left: u64, rest: &[u8]) -> usize {
        let size = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
        self.expected = match left - size as u64 {
            0 => {
                // It is whole if no other frame was announced.
                if self.message.frames == 0 && self.begun_bytes >= LARGE_BYTES_MIN {
                    self.large_bytes += self.begun_bytes;
                }
                Expected::Header
            }
            left => Expected::Body { left },
        };
        size
    }

    fn admit(&mut self, header: &Header, rest: &[u8]) -> Result<Step, Violation> {
        let Header { flags, body_bytes, size } = *header;
        if flags & COMMAND != 0 {
            return self.admit_command(body_bytes, &rest[size..], size);
        }
        self.admit_message_frame(flags & MORE != 0, body_bytes)?;
        self.expected = match body_bytes {
            0 => Expected::Header,
            left => Expected::Body { left },
        };
        Ok(Step::Pass(size))
    }

    fn admit_command(
        &mut self,
        body_bytes: u64,
        rest: &[u8],
        header_bytes: usize,
    ) -> Result<Step, Violation> {
        if body_bytes > COMMAND_BYTES_MAX {
            return Err(Violation::Command { bytes: body_bytes });
        }
        let Some(body) = rest.get(..body_bytes as usize) else { return Ok(Step::Wait) };
        if let Some(reason) = command::error_reason(body) {
            return Ok(Step::End(Found::Error(reason)));
        }
        if self.ready {
            // zmq.rs knows READY alone; any other command would end its reading.
            return Err(Violation::Late);
        }
        self.ready = true;
        Ok(Step::Show(header_bytes + body.len(), Ready::read(body)))
    }

    fn admit_message_frame(&mut self, more: bool, body_bytes: u64) -> Result<(), Violation> {
        if !self.ready {
            return Err(Violation::Early);
        }
        let bytes = self.message.bytes.saturating_add(body_bytes);
        if bytes > self.limits.message_bytes_max {
            let max = self.limits.message_bytes_max;
            return Err(Violation::Message { bytes, max });
        }
        // A frame that announces another one is as good as two.
        let frames = self.message.frames + 1;
        let max = self.limits.message_frames_max;
        if frames.saturating_add(u32::from(more)) > max {
            return Err(Violation::Frames { max });
        }
        self.begun_bytes = bytes;
        self.message = if more { Message { bytes, frames } } else { Message::default() };
        Ok(())
    }
}

/// Returns the length of the body that follows a header, once the header is complete and if it is one.
pub fn body_bytes(header: &[u8]) -> Option<u64> {
    Header::read(header).ok().flatten().map(|header| header.body_bytes)
}

impl Header {
    /// `None` while the header is incomplete.
    fn read(bytes: &[u8]) -> Result<Option<Self>, Violation> {
        let [flags, length @ ..] = bytes else { return Ok(None) };
        let flags = *flags;
        let unknown = flags & !(MORE | LONG | COMMAND) != 0;
        if unknown || flags & (COMMAND | MORE) == COMMAND | MORE {
            return Err(Violation::Flags { flags });
        }
        if flags & LONG == 0 {
            let body = length.first();
            return Ok(body.map(|&length| Self { flags, body_bytes: length.into(), size: 2 }));
        }
        let body = length.first_chunk::<8>();
        Ok(body.map(|&length| Self { flags, body_bytes: u64::from_be_bytes(length), size: 9 }))
    }
}

#[cfg(test)]
mod tests;

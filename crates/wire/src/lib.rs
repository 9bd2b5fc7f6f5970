//! Tradewind's codec: messages to frames and back.
//!
//! This crate does no I/O and decides nothing. It is the only one that knows bincode. A frame is
//! two bytes of header, the protocol's version and the channel to which it belongs, and a bincode
//! body (`standard` configuration). A decoded message is checked: no bytes trail, no list is longer
//! than its bound, no name is unprintable, ranges of seqs are normal. Payloads are slices of the frame, not
//! copies, unless they are a small part of it: then they would keep far more memory than they seem to.

mod borrowed;

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tradewind_proto::limits::{NAME_BYTES_MAX, QUEUE_BYTES_MAX, SLOTS_MAX};
use tradewind_proto::message::{Card, Role, TaskResult, ToSink, ToVentilator, ToWorker};
use tradewind_shown::is_plain;

use crate::borrowed::Borrowed;

/// The protocol's version. Both ends of a lane must have the same one.
pub const VERSION: u8 = 8;

/// Bytes of the largest frame that this codec reads, whatever a lane lets through.
pub const FRAME_BYTES_MAX: usize = 1 << 30;

/// Bytes of the largest card: the limit of a ZMTP identity.
pub const CARD_BYTES_MAX: usize = 255;

const CONFIG: Configuration<LittleEndian, Varint, Limit<FRAME_BYTES_MAX>> =
    bincode::config::standard().with_limit::<FRAME_BYTES_MAX>();

/// Reason why a frame is not a message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The frame is shorter than a header.
    #[error("a frame of {0} bytes has no header")]
    Short(usize),
    /// The peer speaks another version.
    #[error("the peer speaks version {theirs} of the protocol, this is version {VERSION}")]
    Version {
        /// Version in the frame.
        theirs: u8,
    },
    /// The frame belongs on another lane.
    #[error("a frame for channel {theirs:?} came on channel {ours:?}")]
    Channel {
        /// Channel in the frame.
        theirs: char,
        /// Channel that was expected.
        ours: char,
    },
    /// The body cannot be decoded.
    #[error("the body does not decode: {0}")]
    Body(#[from] bincode::error::DecodeError),
    /// Bytes follow the body.
    #[error("{0} bytes trail the body")]
    Trailing(usize),
    /// The card has a value that no honest peer sends.
    #[error("{0}")]
    Card(&'static str),
    /// A name is too long, or would change the state of a terminal.
    #[error("{0}")]
    Name(&'static str),
}

/// Message that can be sent.
pub trait Message: Sized {
    /// Mark of the channel in the header.
    const CHANNEL: u8;

    /// Returns the bytes of the frame approximately, or a few more: a frame that grows is copied
    /// each time.
    fn bytes_hint(&self) -> usize {
        256
    }

    /// Writes the body.
    fn encode_body(&self, frame: &mut Vec<u8>);

    /// Reads the body, which starts at `at` in the frame. Payloads share the frame's memory.
    ///
    /// # Errors
    /// When it is not a body of this channel's messages.
    fn decode_body(frame: &Bytes, at: usize) -> Result<Self, DecodeError>;
}

/// Encodes a message as a frame.
pub fn encode<M: Message>(message: &M) -> Bytes {
    let mut frame = Vec::with_capacity(message.bytes_hint());
    frame.extend_from_slice(&[VERSION, M::CHANNEL]);
    message.encode_body(&mut frame);
    frame.into()
}

/// Decodes the message in a frame.
///
/// # Errors
/// When the frame is not one of this version's messages of this channel, whole and alone.
pub fn decode<M: Message>(frame: &Bytes) -> Result<M, DecodeError> {
    match **frame {
        [VERSION, channel, ..] if channel == M::CHANNEL => M::decode_body(frame, 2),
        [VERSION, channel, ..] => {
            Err(DecodeError::Channel { theirs: char::from(channel), ours: char::from(M::CHANNEL) })
        }
        [theirs, _, ..] => Err(DecodeError::Version { theirs }),
        _ => Err(DecodeError::Short(frame.len())),
    }
}

/// Returns the approximate bytes of a list, by the payload bytes of its elements.
fn hint<T>(list: &[T], payload_bytes: impl Fn(&T) -> usize) -> usize {
    64 + list.iter().map(|element| payload_bytes(element) + ELEMENT_BYTES).sum::<usize>()
}

/// Bytes of a task or a result beside its payload, while its numbers are not large.
const ELEMENT_BYTES: usize = 48;

/// Bytes of a frame with tasks or results beside these.
const FRAME_OTHER_BYTES: usize = 512;

fn write<T: Serialize>(body: &T, frame: &mut Vec<u8>) {
    bincode::serde::encode_into_std_write(body, frame, CONFIG)
        .expect("messages hold nothing that bincode cannot write, and memory does not fail");
}

fn read<'a, T: Deserialize<'a>>(frame: &'a Bytes, at: usize) -> Result<T, DecodeError> {
    let body = &frame[at..];
    let (message, length) = bincode::serde::borrow_decode_from_slice(body, CONFIG)?;
    match body.len() - length {
        0 => Ok(message),
        trailing => Err(DecodeError::Trailing(trailing)),
    }
}

/// Appends a result to `out`, for a file of this process.
// Inlined, so that the crate that calls it has its own instances of the generic code of serde and
// bincode. A second caller in this crate keeps them out of the loop over a batch: 20 instructions a
// result, and 59 for `decode_result`.
#[inline]
pub fn encode_result(result: &TaskResult, out: &mut Vec<u8>) {
    write(result, out);
}

/// Decodes a result that fills `bytes` from `at` on. Payloads share the memory.
///
/// # Errors
/// When it is not a result of this version, whole and alone.
#[inline]
pub fn decode_result(bytes: &Bytes, at: usize) -> Result<TaskResult, DecodeError> {
    let result: TaskResult<borrowed::Borrowed<'_>> = read(bytes, at)?;
    Ok(borrowed::task_result(result, bytes))
}

impl Message for ToWorker {
    const CHANNEL: u8 = b'w';

    fn bytes_hint(&self) -> usize {
        match self {
            Self::Tasks { tasks, .. } => hint(&tasks.0, |task| task.payload.len()),
            _ => 256,
        }
    }

    fn encode_body(&self, frame: &mut Vec<u8>) {
        write(self, frame);
    }

    fn decode_body(frame: &Bytes, at: usize) -> Result<Self, DecodeError> {
        let message: ToWorker<Borrowed<'_>> = read(frame, at)?;
        Ok(borrowed::to_worker(message, frame))
    }
}

impl Message for ToSink {
    const CHANNEL: u8 = b's';

    fn bytes_hint(&self) -> usize {
        match self {
            Self::Results { results, .. } | Self::Forwarded { results, .. } => {
                hint(&results.0, |result| result.payload_bytes() as usize)
            }
            _ => 256,
        }
    }

    fn encode_body(&self, frame: &mut Vec<u8>) {
        write(self, frame);
    }

    fn decode_body(frame: &Bytes, at: usize) -> Result<Self, DecodeError> {
        let message: ToSink<Borrowed<'_>> = read(frame, at)?;
        let names = match &message {
            ToSink::JobOpen { name, stage, .. } => [name.as_str(), stage],
            ToSink::Forwarded { stage, worker, .. } => [stage.as_str(), worker],
            _ => ["", ""],
        };
        names.into_iter().try_for_each(check_name)?;
        Ok(borrowed::to_sink(message, frame))
    }
}

impl Message for ToVentilator {
    const CHANNEL: u8 = b'v';

    fn encode_body(&self, frame: &mut Vec<u8>) {
        write(self, frame);
    }

    fn decode_body(frame: &Bytes, at: usize) -> Result<Self, DecodeError> {
        read(frame, at)
    }
}

impl Message for Card {
    const CHANNEL: u8 = b'c';

    fn encode_body(&self, frame: &mut Vec<u8>) {
        write(self, frame);
    }

    fn decode_body(frame: &Bytes, at: usize) -> Result<Self, DecodeError> {
        if frame.len() > CARD_BYTES_MAX {
            return Err(DecodeError::Card("a card is longer than an identity"));
        }
        let card: Self = read(frame, at)?;
        check_name(&card.name)?;
        check_name(&card.queue)?;
        if card.queue.len() > QUEUE_BYTES_MAX {
            return Err(DecodeError::Name("the name of a queue is too long"));
        }
        if card.role == Role::Worker && !(1..=SLOTS_MAX).contains(&card.slots) {
            return Err(DecodeError::Card("a worker has no slots, or too many"));
        }
        if card.role == Role::Worker && card.name.is_empty() {
            return Err(DecodeError::Card("a worker has no name"));
        }
        Ok(card)
    }
}

/// Checks a name, since names end up on terminals and in tab-separated files.
fn check_name(name: &str) -> Result<(), DecodeError> {
    if name.len() > NAME_BYTES_MAX {
        return Err(DecodeError::Name("a name is too long"));
    }
    if !is_plain(name) {
        return Err(DecodeError::Name("a name holds hidden characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;

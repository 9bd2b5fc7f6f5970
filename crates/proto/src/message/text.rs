//! Texts of messages.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use crate::limits::ERROR_BYTES_MAX;

/// A text that is read [out of the frame](deserialize).
#[derive(Deserialize)]
pub(super) struct Text(#[serde(deserialize_with = "deserialize")] pub(super) String);

/// Reads a text for people out of the received frame: its first [`ERROR_BYTES_MAX`] bytes, which is more than an
/// honest peer sends.
///
/// What is left out is never held: neither with the text nor as room for it.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_str(Characters { bytes_max: ERROR_BYTES_MAX })
}

/// Reads a text that means something to a program, whole.
///
/// As an owned one it would have as many bytes as the frame says before it turns out that the frame ends: a
/// few bytes of a stranger would take as much memory as the largest frame.
pub(super) fn deserialize_whole<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<String, D::Error> {
    deserializer.deserialize_str(Characters { bytes_max: usize::MAX })
}

struct Characters {
    bytes_max: usize,
}

impl Visitor<'_> for Characters {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        Ok(text[..text.floor_char_boundary(self.bytes_max)].to_owned())
    }
}

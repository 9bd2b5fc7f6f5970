//! Texts of messages.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

/// A text that is read [out of the frame](deserialize).
#[derive(Deserialize)]
pub(super) struct Text(#[serde(deserialize_with = "deserialize")] pub(super) String);

/// Reads a text out of the received frame.
///
/// As an owned one it would have as many bytes as the frame says before it turns out that the frame ends: a
/// few bytes of a stranger would take as much memory as the largest frame.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct Characters;

    impl Visitor<'_> for Characters {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_string<E: Error>(self, text: String) -> Result<String, E> {
            Ok(text)
        }
    }

    deserializer.deserialize_str(Characters)
}

//! Whole numbers, as JSON has them.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error, Unexpected, Visitor};

/// Numbers from this one on are not those of a `u64`.
const TOO_LARGE: f64 = 18_446_744_073_709_551_616.0;

/// Reads a whole number, or `None` for `null`. To JSON Schema `320.0` is one as `320` is, and there are languages
/// in which all numbers are written so.
///
/// # Errors
///
/// When it is none, or does not fit.
pub fn whole<'de, D: Deserializer<'de>, T: TryFrom<u64>>(from: D) -> Result<Option<T>, D::Error> {
    from.deserialize_any(Whole(PhantomData))
}

struct Whole<T>(PhantomData<T>);

impl<T: TryFrom<u64>> Visitor<'_> for Whole<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = 8 * size_of::<T>();
        write!(f, "a whole number below 2^{bits}")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        let fits = T::try_from(number).map(Some);
        fits.map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        let is_whole = number.fract() == 0.0 && (0.0..TOO_LARGE).contains(&number);
        if !is_whole {
            return Err(E::invalid_value(Unexpected::Float(number), &self));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is whole, not negative, and fits"
        )]
        self.visit_u64(number as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: TryFrom<u64>>(json: &str) -> Result<Option<T>, String> {
        whole(&mut serde_json::Deserializer::from_str(json)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_number_is_whole_however_it_is_written() {
        for (json, number) in [
            ("320", 320),
            ("320.0", 320),
            ("3.2e2", 320),
            ("-0.0", 0),
            ("1e19", 10_000_000_000_000_000_000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(read(json), Ok(Some(number)), "{json}");
        }
        assert_eq!(read::<u64>("null"), Ok(None));
        assert_eq!(read("4294967295.0"), Ok(Some(u32::MAX)));
    }

    #[test]
    fn what_is_no_whole_number_is_refused_in_words() {
        for (json, wanted) in [
            ("320.5", "floating point `320.5`, expected a whole number below 2^64"),
            ("-1", "integer `-1`, expected"),
            ("-1.0", "floating point `-1.0`, expected"),
            ("18446744073709551616", "floating point `1.844"),
            ("1e300", "expected a whole number below 2^64"),
            ("\"1\"", "string \"1\", expected"),
            ("true", "boolean `true`, expected"),
            ("[1]", "sequence, expected"),
        ] {
            let error = read::<u64>(json).unwrap_err();
            assert!(error.contains(wanted), "{json}: {error}");
        }
        for json in ["4294967296", "4294967296.0"] {
            let error = read::<u32>(json).unwrap_err();
            assert!(error.contains("expected a whole number below 2^32"), "{json}: {error}");
        }
    }
}

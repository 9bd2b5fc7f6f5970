//! What URLs of engines have in common: `scheme://[login@]hosts/path[?option=value&…]`. What may stand in each place is the
//! engine's to say.

use std::time::Duration;

use thiserror::Error;

/// Parts of a URL, of which nothing is decoded but the values of options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlParts<'a> {
    /// Text before `://`.
    pub scheme: &'a str,
    /// Text before the last `@` of the authority, if there is one.
    pub login: Option<&'a str>,
    /// The rest of the authority.
    pub hosts: &'a str,
    /// Text after the first `/`; `None` if there is none.
    pub path: Option<&'a str>,
    /// Names and values.
    pub options: Vec<(&'a str, String)>,
}

/// A `%` is followed by something else than what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a % is followed by two hexadecimal digits, which are not 00, and what they say is UTF-8")]
pub struct PercentError;

impl<'a> UrlParts<'a> {
    /// Splits a URL; `None` if it has no scheme.
    ///
    /// # Errors
    ///
    /// When the value of an option cannot be decoded.
    pub fn split(text: &'a str) -> Result<Option<Self>, PercentError> {
        let Some((scheme, rest)) = text.split_once("://") else { return Ok(None) };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, Some(path)),
            None => (rest, None),
        };
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (Some(login), hosts),
            None => (None, authority),
        };
        let options = query.split('&').filter(|part| !part.is_empty()).map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((name, decoded(value)?))
        });
        let options = options.collect::<Result<_, _>>()?;
        Ok(Some(Self { scheme, login, hosts, path, options }))
    }
}

/// Returns a text with what each `%` stands for.
///
/// # Errors
///
/// When one stands for nothing, or for a zero, which ends texts elsewhere.
pub fn decoded(text: &str) -> Result<String, PercentError> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((byte, more)) = rest.split_first() {
        rest = more;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let digits = rest.get(..2).and_then(|it| std::str::from_utf8(it).ok());
        let digits = digits.filter(|it| it.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let digits = digits.ok_or(PercentError)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| PercentError)?);
        rest = &rest[2..];
    }
    if bytes.contains(&0) {
        return Err(PercentError);
    }
    String::from_utf8(bytes).map_err(|_| PercentError)
}

/// Returns the time that an answer may take, as the option `timeout_ms` says it; `None` if it is none.
#[must_use]
pub fn timeout_ms(value: &str) -> Option<Duration> {
    let number = value.parse().ok().filter(|it| (1..=600_000).contains(it))?;
    Some(Duration::from_millis(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_split_at_its_signs() {
        let split = |text| UrlParts::split(text).expect("it can be decoded");
        let parts = |scheme, login, hosts, path, options: &[(&'static str, &str)]| {
            let options =
                options.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            Some(UrlParts { scheme, login, hosts, path, options })
        };
        assert_eq!(split("a/b"), None);
        assert_eq!(split("x://a"), parts("x", None, "a", None, &[]));
        assert_eq!(
            split("x://u@v:p@a,b:1/c/d?e=%3d=&&f"),
            parts("x", Some("u@v:p"), "a,b:1", Some("c/d"), &[("e", "=="), ("f", "")])
        );
        assert_eq!(UrlParts::split("x://a/b?c=%"), Err(PercentError));
    }

    #[test]
    fn what_a_percent_sign_stands_for_is_text() {
        let cases = [("", Some("")), ("a%20%c3%A9", Some("a é")), ("%2", None), ("%+4", None)];
        for (text, wanted) in cases.into_iter().chain([("%ff", None), ("a%00", None)]) {
            assert_eq!(decoded(text).ok().as_deref(), wanted, "{text}");
        }
        assert_eq!(timeout_ms("70"), Some(Duration::from_millis(70)));
        assert_eq!(["0", "600001", "-1", "x"].map(timeout_ms), [None; 4]);
    }
}
